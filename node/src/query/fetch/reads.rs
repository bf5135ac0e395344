//! Which classes of facts were looked at, so that a transaction can name what its conditions rest on.
//!
//! Why this is enough: what is fetched, and so the answer, follows from the answers to the patterns
//! that were asked, and from nothing else of the data (texts of terms never change). Every asked
//! pattern is recorded, empty answers included, as a class that holds every fact which the pattern
//! matches: one of the classes of its given terms. A write of a fact counts for every class of that
//! fact. So while nothing was written to a recorded class, every asked pattern has the same facts, and
//! the same questions give the same answer. Whether a class was asked as a scan or key by key changes
//! which classes are recorded, never whether they suffice.

use beam_wire::TermId;
use beam_wire::command::{AccessPath, READS_MAX};
use beam_wire::fact::{GraphPattern, Pattern};
use std::collections::HashSet;

/// The classes that were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    classes: HashSet<AccessPath>,
    /// Look-ups are recorded by their predicate, since there were too many.
    coarse: bool,
}

impl Reads {
    /// Records that a pattern was asked.
    pub fn record(&mut self, pattern: &Pattern) {
        self.insert(class(pattern));
        if self.classes.len() > READS_MAX && !self.coarse {
            self.coarse = true;
            for class in std::mem::take(&mut self.classes) {
                self.insert(class);
            }
        }
        if self.classes.len() > READS_MAX {
            self.classes = HashSet::from([AccessPath::Everything]);
        }
    }

    fn insert(&mut self, class: AccessPath) {
        if self.classes.contains(&AccessPath::Everything) {
            return;
        }
        match class {
            AccessPath::Everything => self.classes = HashSet::from([class]),
            AccessPath::SubjectPredicateObject(_, p, _)
            | AccessPath::SubjectPredicate(_, p)
            | AccessPath::PredicateObject(p, _)
                if self.coarse || self.classes.contains(&AccessPath::Predicate(p)) =>
            {
                self.classes.insert(AccessPath::Predicate(p));
            }
            class => {
                self.classes.insert(class);
            }
        }
    }

    /// The same, wider: look-ups by their predicates.
    pub fn coarsened(&self) -> Reads {
        let mut wider = Reads { classes: HashSet::new(), coarse: true };
        self.classes.iter().for_each(|class| wider.insert(*class));
        wider
    }

    /// Their hashes, sorted, each once; at most [`READS_MAX`].
    pub fn hashes(&self) -> Vec<u64> {
        let mut hashes: Vec<u64> = self.classes.iter().map(AccessPath::hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }
}

/// A class that holds every fact which the pattern matches.
fn class(pattern: &Pattern) -> AccessPath {
    match (pattern.subject, pattern.predicate, pattern.object) {
        (Some(s), Some(p), Some(o)) => AccessPath::SubjectPredicateObject(s, p, o),
        (Some(s), Some(p), None) => AccessPath::SubjectPredicate(s, p),
        (None, Some(p), Some(o)) => AccessPath::PredicateObject(p, o),
        (Some(s), None, _) => AccessPath::Subject(s),
        (None, None, Some(o)) => AccessPath::Object(o),
        (None, Some(p), None) => AccessPath::Predicate(p),
        (None, None, None) => match pattern.graph {
            GraphPattern::Default => AccessPath::Graph(TermId::DEFAULT_GRAPH),
            GraphPattern::Named(g) => AccessPath::Graph(g),
            GraphPattern::AnyNamed | GraphPattern::Any => AccessPath::Everything,
        },
    }
}

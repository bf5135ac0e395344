//! A version of the database, with changes that are not written yet: what the later operations of one
//! update see.

use super::error::QueryError;
use super::source::{Found, Source};
use beam_wire::error::CallError;
use beam_wire::fact::{Fact, GraphPattern, Pattern};
use beam_wire::{Term, TermId};
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What an update changes, as far as it is planned.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Facts that are gone.
    pub deletes: BTreeSet<Fact>,
    /// Facts that are there. None is in both.
    pub inserts: BTreeSet<Fact>,
    /// The terms of both.
    pub terms: BTreeMap<TermId, Term>,
}

impl Changes {
    /// The fact is gone from here on.
    pub fn delete(&mut self, fact: Fact) {
        self.inserts.remove(&fact);
        self.deletes.insert(fact);
    }

    /// The fact is there from here on.
    pub fn insert(&mut self, fact: Fact) {
        self.deletes.remove(&fact);
        self.inserts.insert(fact);
    }

    /// The id of a term, which is remembered.
    pub fn id(&mut self, term: Term) -> TermId {
        let id = TermId::of(&term);
        self.terms.entry(id).or_insert(term);
        id
    }

    /// Keeps them within a query's bounds.
    pub fn within(&self, facts_max: usize) -> Result<(), QueryError> {
        if self.deletes.len() + self.inserts.len() > facts_max {
            return Err(QueryError::TooLarge {
                what: format!("it changes more than {facts_max} facts"),
                advice: "change a part at a time",
            });
        }
        Ok(())
    }
}

/// A source as it will be after some changes.
pub struct Overlay<'s> {
    source: &'s dyn Source,
    changes: &'s Changes,
}

impl<'s> Overlay<'s> {
    /// The source after these changes.
    pub fn new(source: &'s dyn Source, changes: &'s Changes) -> Self {
        Self { source, changes }
    }
}

impl Source for Overlay<'_> {
    fn lookup(&self, patterns: Vec<Pattern>, limit: usize) -> BoxFuture<'_, Result<Found, CallError>> {
        Box::pin(async move {
            // A part of what is there may be deleted here: ask for so much more.
            let asked: HashSet<Pattern> = patterns.iter().copied().collect();
            let enough = limit.saturating_add(self.changes.deletes.len());
            let mut found = self.source.lookup(patterns, enough).await?;
            found.facts.retain(|f| !self.changes.deletes.contains(f) && !self.changes.inserts.contains(f));
            found.facts.extend(self.changes.inserts.iter().filter(|f| matches_any(&asked, f)));
            Ok(found)
        })
    }

    fn terms(&self, ids: Vec<TermId>) -> BoxFuture<'_, Result<Vec<(TermId, Term)>, CallError>> {
        Box::pin(async move {
            let (ours, theirs): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| self.changes.terms.contains_key(id));
            let mut found = if theirs.is_empty() { vec![] } else { self.source.terms(theirs).await? };
            found.extend(ours.into_iter().map(|id| (id, self.changes.terms[&id].clone())));
            Ok(found)
        })
    }
}

/// Whether one of many patterns matches: asks for each of the 24 patterns that a fact can match.
fn matches_any(patterns: &HashSet<Pattern>, fact: &Fact) -> bool {
    let own = match fact.graph {
        TermId::DEFAULT_GRAPH => [GraphPattern::Default; 2],
        g => [GraphPattern::Named(g), GraphPattern::AnyNamed],
    };
    (0..8).any(|given| {
        let term = |bit: u8, id: TermId| (given & bit != 0).then_some(id);
        let (subject, predicate, object) = (term(1, fact.subject), term(2, fact.predicate), term(4, fact.object));
        let graphs = [own[0], own[1], GraphPattern::Any];
        graphs.into_iter().any(|graph| patterns.contains(&Pattern { subject, predicate, object, graph }))
    })
}

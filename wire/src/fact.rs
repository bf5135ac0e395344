//! Facts (RDF quads) and the patterns that match them.

use crate::space::{Point, Space};
use crate::term::TermId;
use serde::{Deserialize, Serialize};

/// An RDF quad, by the ids of its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fact {
    /// The subject.
    pub subject: TermId,
    /// The predicate.
    pub predicate: TermId,
    /// The object.
    pub object: TermId,
    /// The graph, or [`TermId::DEFAULT_GRAPH`].
    pub graph: TermId,
}

/// What a look-up looks for: each term given or open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pattern {
    /// The subject, or any.
    pub subject: Option<TermId>,
    /// The predicate, or any.
    pub predicate: Option<TermId>,
    /// The object, or any.
    pub object: Option<TermId>,
    /// The graphs.
    pub graph: GraphPattern,
}

/// Which graphs a pattern looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GraphPattern {
    /// The default graph only.
    Default,
    /// One named graph.
    Named(TermId),
    /// Every named graph.
    AnyNamed,
    /// The default graph and every named one.
    Any,
}

impl Fact {
    /// Where the fact lies in a space of facts.
    ///
    /// # Panics
    /// For [`Space::Term`], in which no fact lies.
    pub fn point(&self, space: Space) -> Point {
        match space {
            Space::Subject => self.subject.point(),
            Space::Object => self.object.point(),
            Space::Term => panic!("facts do not lie in the term space"),
        }
    }
}

impl GraphPattern {
    /// Whether the graph is one of these.
    pub fn matches(&self, graph: &TermId) -> bool {
        match self {
            GraphPattern::Default => *graph == TermId::DEFAULT_GRAPH,
            GraphPattern::Named(id) => graph == id,
            GraphPattern::AnyNamed => *graph != TermId::DEFAULT_GRAPH,
            GraphPattern::Any => true,
        }
    }
}

impl Pattern {
    /// Whether the fact is one that the pattern looks for.
    pub fn matches(&self, fact: &Fact) -> bool {
        self.subject.is_none_or(|s| s == fact.subject)
            && self.predicate.is_none_or(|p| p == fact.predicate)
            && self.object.is_none_or(|o| o == fact.object)
            && self.graph.matches(&fact.graph)
    }
}

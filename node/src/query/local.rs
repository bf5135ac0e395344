//! The fetched facts, as the evaluator reads them.

use super::facts::{DEFAULT_GRAPH, Id, Index, Slice};
use super::work::Work;
use crate::rdf::convert::from_oxrdf;
use beam_wire::TermId;
use spareval::{InternalQuad, QueryableDataset};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// A dataset over fetched facts. Terms that only the query knows, or computes, are numbered behind
/// those of the facts.
#[derive(Clone)]
pub struct Local(Rc<Inner>);

struct Inner {
    index: Arc<Index>,
    work: Arc<Work>,
    more: RefCell<More>,
    /// A text was needed that was not fetched: the answer is worth nothing. The evaluator takes some
    /// errors for an unbound value or even for true, so an error alone would not do.
    text_missing: Cell<bool>,
}

#[derive(Default)]
struct More {
    numbers: HashMap<TermId, Id>,
    texts: Vec<oxrdf::Term>,
    /// Texts of terms that the facts know by their hash only, but the query knows in full.
    known: HashMap<Id, oxrdf::Term>,
}

/// Why a term cannot be read or made.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Unreadable {
    /// Its text was not fetched.
    #[error("the text of a term was not fetched")]
    TextMissing,
    /// An expression made a triple term that nests deeper than terms may.
    #[error("a triple term nests too deep")]
    TooDeep,
}

impl Local {
    /// A dataset of all these facts.
    pub fn new(index: Arc<Index>, work: Arc<Work>) -> Self {
        Self(Rc::new(Inner { index, work, more: RefCell::default(), text_missing: Cell::new(false) }))
    }

    /// Whether the evaluation met a term without its text.
    pub fn text_missing(&self) -> bool {
        self.0.text_missing.get()
    }
}

/// The facts of part of an order that also lie in the asked graphs.
struct Quads {
    inner: Rc<Inner>,
    slice: Slice,
    subject: Option<Id>,
    predicate: Option<Id>,
    object: Option<Id>,
    graph: Option<Option<Id>>,
}

impl Iterator for Quads {
    type Item = Result<InternalQuad<Id>, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.inner.work.fact();
            let [subject, predicate, object, graph] = self.inner.index.next(&mut self.slice)?;
            let fits = self.subject.is_none_or(|s| s == subject)
                && self.predicate.is_none_or(|p| p == predicate)
                && self.object.is_none_or(|o| o == object)
                && match self.graph {
                    None => graph != DEFAULT_GRAPH,
                    Some(g) => graph == g.unwrap_or(DEFAULT_GRAPH),
                };
            if fits {
                let graph_name = (graph != DEFAULT_GRAPH).then_some(graph);
                return Some(Ok(InternalQuad { subject, predicate, object, graph_name }));
            }
        }
    }
}

impl QueryableDataset<'static> for Local {
    type InternalTerm = Id;
    type Error = Unreadable;

    fn internal_quads_for_pattern(
        &self,
        subject: Option<&Id>,
        predicate: Option<&Id>,
        object: Option<&Id>,
        graph_name: Option<Option<&Id>>,
    ) -> impl Iterator<Item = Result<InternalQuad<Id>, Unreadable>> + use<> {
        let (subject, predicate, object) = (subject.copied(), predicate.copied(), object.copied());
        Quads {
            slice: self.0.index.slice(subject, predicate, object),
            inner: self.0.clone(),
            subject,
            predicate,
            object,
            graph: graph_name.map(|g| g.copied()),
        }
    }

    fn internal_named_graphs(&self) -> impl Iterator<Item = Result<Id, Unreadable>> + use<> {
        let mut graphs: Vec<Id> = self.0.index.facts().iter().map(|q| q[3]).filter(|g| *g != DEFAULT_GRAPH).collect();
        graphs.sort_unstable();
        graphs.dedup();
        graphs.into_iter().map(Ok)
    }

    fn internalize_term(&self, term: oxrdf::Term) -> Result<Id, Unreadable> {
        let id = TermId::of(&from_oxrdf(term.clone()).map_err(|_| Unreadable::TooDeep)?);
        let terms = &self.0.index.terms;
        let mut more = self.0.more.borrow_mut();
        if let Some(number) = terms.find(id) {
            if terms.lacks_text(number) {
                more.known.insert(number, term);
            }
            return Ok(number);
        }
        let next = (terms.len() + more.texts.len()) as Id;
        let number = *more.numbers.entry(id).or_insert(next);
        if number == next {
            more.texts.push(term);
        }
        Ok(number)
    }

    fn externalize_term(&self, term: Id) -> Result<oxrdf::Term, Unreadable> {
        let terms = &self.0.index.terms;
        let more = self.0.more.borrow();
        let text = match (term as usize).checked_sub(terms.len()) {
            Some(i) => Some(more.texts[i].clone()),
            None => terms.text(term).or_else(|| more.known.get(&term).cloned()),
        };
        text.ok_or_else(|| {
            self.0.text_missing.set(true);
            Unreadable::TextMissing
        })
    }
}

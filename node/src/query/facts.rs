//! The facts that a query has fetched: D′, a part of the data in which the query has the same answer.
//!
//! Terms are numbered as they come, so that a fact takes 16 bytes an order, and a set of terms is a
//! sorted list of numbers.

use crate::rdf::convert::{from_oxrdf, to_oxrdf};
use beam_wire::{Fact, TermId};
use std::collections::HashMap;
use std::sync::OnceLock;

/// A term's number within one query. 0 stands for the default graph.
pub type Id = u32;

/// Subject, predicate, object, graph.
pub type Quad = [Id; 4];

/// The number that stands for the default graph.
pub const DEFAULT_GRAPH: Id = 0;

/// Terms by their numbers.
pub struct Terms {
    numbers: HashMap<TermId, Id>,
    ids: Vec<TermId>,
    texts: Vec<Option<oxrdf::Term>>,
}

impl Terms {
    /// Knows the default graph only.
    pub fn new() -> Self {
        let mut terms = Self { numbers: HashMap::new(), ids: vec![], texts: vec![] };
        terms.number(TermId::DEFAULT_GRAPH);
        terms
    }

    /// The term's number: a new one if it has none.
    pub fn number(&mut self, id: TermId) -> Id {
        *self.numbers.entry(id).or_insert_with(|| {
            self.ids.push(id);
            self.texts.push(None);
            (self.ids.len() - 1) as Id
        })
    }

    /// The term's number, if it has one.
    pub fn find(&self, id: TermId) -> Option<Id> {
        self.numbers.get(&id).copied()
    }

    /// The id of a number that was given out here.
    pub fn id(&self, number: Id) -> TermId {
        self.ids[number as usize]
    }

    /// How many numbers were given out.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Remembers a text.
    pub fn set_text(&mut self, number: Id, text: oxrdf::Term) {
        self.texts[number as usize] = Some(text);
    }

    /// The term itself, if it is known or lies in its id.
    pub fn text(&self, number: Id) -> Option<oxrdf::Term> {
        match self.texts.get(number as usize)? {
            Some(text) => Some(text.clone()),
            None => to_oxrdf(&self.id(number).inline()?).ok(),
        }
    }

    /// Whether the text must be fetched before it can be used.
    pub fn lacks_text(&self, number: Id) -> bool {
        number != DEFAULT_GRAPH && self.texts[number as usize].is_none() && self.id(number).inline().is_none()
    }
}

/// Facts as they are fetched. The same fact may come several times.
pub struct Facts {
    /// Every term of the facts, and some more.
    pub terms: Terms,
    quads: Vec<Quad>,
    /// The first so many of `quads` are sorted, and each is there once.
    tidy: usize,
    /// For each number: whether a fact of the default graph has it as subject or object.
    default_nodes: Vec<bool>,
}

/// Facts that are not tidied yet are worth a sort when there are this many.
const UNTIDY_MAX: usize = 65_536;

impl Facts {
    /// None yet.
    pub fn new() -> Self {
        Self { terms: Terms::new(), quads: vec![], tidy: 0, default_nodes: vec![] }
    }

    /// Numbers the terms of a fact.
    pub fn quad(&mut self, fact: &Fact) -> Quad {
        [fact.subject, fact.predicate, fact.object, fact.graph].map(|id| self.terms.number(id))
    }

    /// Keeps a fact.
    pub fn push(&mut self, quad: Quad) {
        if quad[3] == DEFAULT_GRAPH {
            for node in [quad[0], quad[2]] {
                if self.default_nodes.len() <= node as usize {
                    self.default_nodes.resize(node as usize + 1, false);
                }
                self.default_nodes[node as usize] = true;
            }
        }
        self.quads.push(quad);
        if self.quads.len() - self.tidy > UNTIDY_MAX.max(self.tidy) {
            self.tidy_up();
        }
    }

    /// Whether a fact of the default graph has the term as subject or object.
    pub fn is_default_node(&self, number: Id) -> bool {
        self.default_nodes.get(number as usize).copied().unwrap_or(false)
    }

    /// How many facts there are, each counted once.
    pub fn count(&mut self) -> usize {
        self.tidy_up();
        self.quads.len()
    }

    /// At least as many as there are: cheap.
    pub fn count_at_most(&self) -> usize {
        self.quads.len()
    }

    fn tidy_up(&mut self) {
        if self.tidy < self.quads.len() {
            self.quads.sort_unstable();
            self.quads.dedup();
            self.tidy = self.quads.len();
        }
    }

    /// The memory that evaluating these facts will take, roughly: three orders, and the numbers of
    /// the terms; texts not counted.
    pub fn bytes(&self) -> usize {
        self.quads.len() * 3 * size_of::<Quad>() + self.terms.len() * 128
    }

    /// The facts, ready to be read.
    pub fn index(mut self) -> Index {
        self.tidy_up();
        Index { terms: self.terms, spo: self.quads, pos: OnceLock::new(), osp: OnceLock::new() }
    }
}

/// Facts in three orders, of which two are made when they are first needed.
pub struct Index {
    /// Every term of the facts, and some more.
    pub terms: Terms,
    spo: Vec<Quad>,
    pos: OnceLock<Vec<Quad>>,
    osp: OnceLock<Vec<Quad>>,
}

/// Where each of subject, predicate, object and graph stands in an order.
const SPO: [usize; 4] = [0, 1, 2, 3];
const POS: [usize; 4] = [2, 0, 1, 3];
const OSP: [usize; 4] = [1, 2, 0, 3];

/// Part of one order, as positions in it.
pub struct Slice {
    order: [usize; 4],
    next: usize,
    end: usize,
}

impl Index {
    /// All facts, sorted.
    pub fn facts(&self) -> &[Quad] {
        &self.spo
    }

    /// The part of an order that holds every fact with these terms (and maybe others).
    pub fn slice(&self, s: Option<Id>, p: Option<Id>, o: Option<Id>) -> Slice {
        let (order, key) = match (s, p, o) {
            (Some(s), None, Some(o)) => (OSP, [Some(o), Some(s), None]),
            (Some(s), p, o) => (SPO, [Some(s), p, o]),
            (None, Some(p), o) => (POS, [Some(p), o, None]),
            (None, None, Some(o)) => (OSP, [Some(o), None, None]),
            (None, None, None) => (SPO, [None, None, None]),
        };
        let key: Vec<Id> = key.into_iter().map_while(|k| k).collect();
        let quads = self.order(order);
        let next = quads.partition_point(|q| q[..key.len()] < key[..]);
        let end = next + quads[next..].partition_point(|q| q[..key.len()] == key[..]);
        Slice { order, next, end }
    }

    /// The next fact of a part.
    pub fn next(&self, slice: &mut Slice) -> Option<Quad> {
        if slice.next == slice.end {
            return None;
        }
        let quad = self.order(slice.order)[slice.next];
        slice.next += 1;
        Some(slice.order.map(|place| quad[place]))
    }

    fn order(&self, order: [usize; 4]) -> &[Quad] {
        let sorted = |order: [usize; 4]| {
            let mut quads: Vec<Quad> = self.spo.iter().map(|q| place(q, order)).collect();
            quads.sort_unstable();
            quads
        };
        match order {
            POS => self.pos.get_or_init(|| sorted(POS)),
            OSP => self.osp.get_or_init(|| sorted(OSP)),
            _ => &self.spo,
        }
    }
}

/// Puts subject, predicate, object and graph at their places in an order.
fn place(quad: &Quad, order: [usize; 4]) -> Quad {
    let mut placed = [0; 4];
    for (term, place) in quad.iter().zip(order) {
        placed[place] = *term;
    }
    placed
}

/// The id of a term that a query names. How deep those nest was checked before they were parsed.
pub fn id_of(term: &oxrdf::Term) -> TermId {
    TermId::of(&from_oxrdf(term.clone()).expect("brackets nest less deep than terms may"))
}

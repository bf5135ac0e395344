//! For tests: a source in memory, which also checks that it is asked properly.

use super::facts::{DEFAULT_GRAPH, Facts, Index, id_of};
use super::source::{BATCH_MAX, Found, Source};
use super::{Answer, Limits, Query, QueryError, STACK_BYTES, evaluate};
use crate::rdf::convert::{from_oxrdf, to_oxrdf};
use beam_wire::env::{Dns, DnsError, Env, SrvAnswer};
use beam_wire::error::CallError;
use beam_wire::fact::{Fact, GraphPattern, Pattern};
use beam_wire::message::api::QueryReply;
use beam_wire::{Term, TermId};
use futures::future::BoxFuture;
use oxrdf::{Dataset, GraphName, Quad};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Facts and texts in memory.
pub struct Memory {
    index: Index,
    /// Facts handed out, texts handed out.
    pub facts: AtomicU64,
    pub texts: AtomicU64,
    /// Patterns that match everything.
    pub scans: AtomicU64,
}

impl Memory {
    pub fn new(quads: impl IntoIterator<Item = Quad>) -> Self {
        let mut facts = Facts::new();
        for quad in quads {
            let graph = match &quad.graph_name {
                GraphName::DefaultGraph => DEFAULT_GRAPH,
                GraphName::NamedNode(n) => number(&mut facts, &n.clone().into()),
                GraphName::BlankNode(n) => number(&mut facts, &n.clone().into()),
            };
            let triple = [quad.subject.into(), quad.predicate.into(), quad.object];
            let [s, p, o] = triple.map(|t: oxrdf::Term| number(&mut facts, &t));
            facts.push([s, p, o, graph]);
        }
        let (facts, index) = (AtomicU64::default(), facts.index());
        Self { index, facts, texts: AtomicU64::default(), scans: AtomicU64::default() }
    }

    pub fn of(dataset: &Dataset) -> Self {
        Self::new(dataset.iter().map(|q| q.into_owned()))
    }

    fn fact(&self, [s, p, o, g]: [u32; 4]) -> Fact {
        let id = |n| self.index.terms.id(n);
        Fact { subject: id(s), predicate: id(p), object: id(o), graph: id(g) }
    }
}

fn number(facts: &mut Facts, term: &oxrdf::Term) -> u32 {
    let number = facts.terms.number(id_of(term));
    if facts.terms.lacks_text(number) {
        facts.terms.set_text(number, term.clone());
    }
    number
}

impl Source for Memory {
    fn lookup(&self, patterns: Vec<Pattern>, limit: usize) -> BoxFuture<'_, Result<Found, CallError>> {
        assert!((1..=BATCH_MAX).contains(&patterns.len()), "{} patterns in one look-up", patterns.len());
        assert!(limit > 0, "a look-up for nothing");
        assert_eq!(patterns.iter().collect::<HashSet<_>>().len(), patterns.len(), "a pattern is asked twice");
        let mut found = Found { facts: vec![], complete: true };
        let mut seen = HashSet::new();
        for pattern in &patterns {
            assert_ne!(pattern.graph, GraphPattern::Named(TermId::DEFAULT_GRAPH), "the default graph has no name");
            if [pattern.subject, pattern.predicate, pattern.object] == [None; 3] {
                self.scans.fetch_add(1, Ordering::Relaxed);
            }
            let given = [pattern.subject, pattern.predicate, pattern.object];
            let numbers = given.map(|id| id.map(|id| self.index.terms.find(id)));
            if numbers.contains(&Some(None)) {
                continue;
            }
            let [s, p, o] = numbers.map(Option::flatten);
            let mut slice = self.index.slice(s, p, o);
            while let Some(quad) = self.index.next(&mut slice) {
                let fact = self.fact(quad);
                if pattern.matches(&fact) && (patterns.len() == 1 || seen.insert(quad)) {
                    if found.facts.len() >= limit {
                        found.complete = false;
                        break;
                    }
                    found.facts.push(fact);
                }
            }
        }
        self.facts.fetch_add(found.facts.len() as u64, Ordering::Relaxed);
        Box::pin(async move { Ok(found) })
    }

    fn terms(&self, ids: Vec<TermId>) -> BoxFuture<'_, Result<Vec<(TermId, Term)>, CallError>> {
        assert!((1..=BATCH_MAX).contains(&ids.len()), "{} texts at once", ids.len());
        assert!(ids.iter().all(|id| id.inline().is_none()), "a text that its id holds is asked for");
        self.texts.fetch_add(ids.len() as u64, Ordering::Relaxed);
        let text = |id: TermId| Some((id, from_oxrdf(self.index.terms.text(self.index.terms.find(id)?)?).ok()?));
        let texts = ids.into_iter().filter_map(text).collect();
        Box::pin(async move { Ok(texts) })
    }
}

struct NoDns;

impl Dns for NoDns {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>> {
        Box::pin(async move { Err(DnsError::NoSuchName(name.into())) })
    }
}

/// A real `Env` without a network.
pub fn env() -> Env {
    Env::real(Arc::new(NoDns))
}

/// Runs in a runtime of its own.
pub fn run<F: Future>(f: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build()
        .expect("a runtime")
        .block_on(f)
}

/// Evaluates over a source, with the default limits.
pub fn answer(query: &Query, source: &dyn Source) -> Result<Answer, QueryError> {
    run(async { evaluate(query, source, Limits::default(), &env()).await })
}

/// Rows as the evaluator has them.
pub fn rows(answer: &Answer) -> Vec<Vec<Option<oxrdf::Term>>> {
    let term = |t: Term| to_oxrdf(&t).expect("an RDF 1.2 term");
    let mut rows = vec![];
    for chunk in answer.chunks.clone() {
        match chunk {
            QueryReply::Rows(chunk) => {
                rows.extend(chunk.into_iter().map(|r| r.into_iter().map(|t| t.map(term)).collect()))
            }
            QueryReply::Triples(chunk) => rows.extend(chunk.into_iter().map(|t| t.map(|t| Some(term(t))).to_vec())),
            other => panic!("{other:?} is no part of an answer"),
        }
    }
    rows
}

/// Parses and evaluates on a thread with the stack of a worker.
pub fn on_a_small_stack(query: String) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let run = move || {
        if let Ok(query) = super::parse_query(&query, None) {
            answer(&query, &Memory::new([])).map(drop).unwrap_or_default();
        }
    };
    thread.spawn(run).expect("a thread").join().expect("no overflow");
}

//! Property paths: facts are fetched step by step from the end that is known.
//!
//! From a set of terms at one end, every fact is fetched that lies on a path from there, breadth
//! first. So every pair of the path that begins in the set is found in what was fetched, whichever way
//! the evaluator then goes. With neither end known, all facts of the path's properties are fetched.
//!
//! A path that may have length zero pairs a term with itself if it is a node of the graph. A term that
//! no fetched fact shows to be one is looked up, first as subject, then as object.

use super::Fetch;
use super::leaf::{Graphs, Slot, graph_variable};
use super::sets::{Candidates, Out, Set, both, either, set, without};
use crate::query::error::QueryError;
use crate::query::facts::{Id, id_of};
use crate::query::parse::may_be_empty;
use beam_wire::fact::GraphPattern;
use futures::future::BoxFuture;
use spargebra::algebra::PropertyPathExpression as Path;
use spargebra::term::{NamedNode, TermPattern};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forward,
    Backward,
}

impl Way {
    fn back(self) -> Self {
        match self {
            Way::Forward => Way::Backward,
            Way::Backward => Way::Forward,
        }
    }
}

/// What a walk along a path needs at every step.
struct Ground<'g> {
    graphs: Vec<(GraphPattern, bool)>,
    graph_candidates: Option<Set>,
    text: &'g str,
}

impl Fetch<'_> {
    /// The likely cost of a path, in facts fetched.
    pub(super) fn path_cost(&self, s: &TermPattern, path: &Path, o: &TermPattern, c: &Candidates) -> u64 {
        let size = |term: &TermPattern| match Slot::of(term) {
            Slot::Term(_) => Some(1),
            Slot::Variable(v) => c.get(&v).map(|set| set.len() as u64),
        };
        let known = [size(s).map(|n| n * 50), size(o).map(|n| n * 100)].into_iter().flatten().min();
        known.unwrap_or(if may_be_empty(path) { 2_000_000_000 } else { 2_000_000 })
    }

    /// Fetches the facts of a path.
    pub(super) async fn path(
        &mut self,
        s: &TermPattern,
        path: &Path,
        o: &TermPattern,
        graphs: &Graphs,
        c: &Candidates,
    ) -> Result<Out, QueryError> {
        let text = format!("{s} {path} {o}");
        let ends = [Slot::of(s), Slot::of(o)];
        let known = [self.known(&ends[0], c), self.known(&ends[1], c)];
        let graph_candidates = graph_variable(graphs).and_then(|g| c.get(g).cloned());
        let patterns = self.graph_patterns(graphs, graph_candidates.as_ref());
        let ground = Ground { graphs: patterns, graph_candidates, text: &text };
        let sets: [Option<Set>; 2] = match &known {
            [Some(from), to] if to.as_ref().is_none_or(|to| from.len() <= to.len()) => {
                let reached = self.from(path, Way::Forward, from.clone(), graphs, &ground).await?;
                [Some(from.clone()), Some(to.as_ref().map_or(reached.clone(), |to| both(to, &reached)))]
            }
            [from, Some(to)] => {
                let reached = self.from(path, Way::Backward, to.clone(), graphs, &ground).await?;
                [Some(from.as_ref().map_or(reached.clone(), |from| both(from, &reached))), Some(to.clone())]
            }
            _ => self.everything(path, &ground).await?,
        };
        let mut out = Out::default();
        for (slot, set) in ends.into_iter().zip(sets) {
            match (slot, set) {
                (Slot::Variable(v), Some(set)) => {
                    if self.looked_at.contains(&v) {
                        self.wanted.extend(set.iter().copied());
                    }
                    out.join(Out { sets: Candidates::from([(v, set)]), empty: false });
                }
                (Slot::Variable(v), None) if self.looked_at.contains(&v) => {
                    // Any node may turn up.
                    self.wanted.extend(1..self.facts.terms.len() as Id);
                }
                (_, Some(set)) => out.empty |= set.is_empty(),
                _ => {}
            }
        }
        Ok(out)
    }

    async fn from(
        &mut self,
        path: &Path,
        way: Way,
        start: Set,
        graphs: &Graphs,
        ground: &Ground<'_>,
    ) -> Result<Set, QueryError> {
        if may_be_empty(path) {
            self.prove_nodes(&start, graphs, ground).await?;
        }
        self.reach(path, way, start, ground).await
    }

    /// Every term that a path leads to from a set of terms, fetching the facts on the way.
    fn reach<'a>(
        &'a mut self,
        path: &'a Path,
        way: Way,
        start: Set,
        ground: &'a Ground<'a>,
    ) -> BoxFuture<'a, Result<Set, QueryError>> {
        Box::pin(async move {
            if start.is_empty() {
                return Ok(start);
            }
            Ok(match path {
                Path::NamedNode(p) => self.edges(Some(p), &[], way, Some(start), ground).await?.1,
                Path::NegatedPropertySet(not) => self.edges(None, not, way, Some(start), ground).await?.1,
                Path::Reverse(p) => self.reach(p, way.back(), start, ground).await?,
                Path::Sequence(a, b) => {
                    let (first, second) = if way == Way::Forward { (a, b) } else { (b, a) };
                    let middle = self.reach(first, way, start, ground).await?;
                    self.reach(second, way, middle, ground).await?
                }
                Path::Alternative(a, b) => {
                    let a = self.reach(a, way, start.clone(), ground).await?;
                    either(&a, &self.reach(b, way, start, ground).await?)
                }
                Path::ZeroOrOne(p) => either(&start, &self.reach(p, way, start.clone(), ground).await?),
                Path::ZeroOrMore(p) => self.closure(p, way, start, ground).await?,
                Path::OneOrMore(p) => {
                    let first = self.reach(p, way, start, ground).await?;
                    self.closure(p, way, first, ground).await?
                }
            })
        })
    }

    /// The start, and all that any number of steps leads to.
    async fn closure(&mut self, path: &Path, way: Way, start: Set, ground: &Ground<'_>) -> Result<Set, QueryError> {
        let (mut visited, mut frontier) = (start.clone(), start);
        while !frontier.is_empty() {
            let next = self.reach(path, way, frontier, ground).await?;
            frontier = without(&next, &visited);
            visited = either(&visited, &frontier);
        }
        Ok(visited)
    }

    /// Fetches one step: the facts of a predicate, or of all but some, from a set of terms or from
    /// anywhere. Returns the terms where the facts begin and end, seen along the way.
    async fn edges(
        &mut self,
        predicate: Option<&NamedNode>,
        not: &[NamedNode],
        way: Way,
        from: Option<Set>,
        ground: &Ground<'_>,
    ) -> Result<(Set, Set), QueryError> {
        let predicate = predicate.map(|p| self.one(id_of(&p.clone().into())));
        let not: Vec<Id> = not.iter().map(|p| self.facts.terms.number(id_of(&p.clone().into()))).collect();
        let known = match way {
            Way::Forward => [from, predicate, None],
            Way::Backward => [None, predicate, from],
        };
        let (mut begins, mut ends) = (vec![], vec![]);
        let take = |quad: [Id; 4]| {
            let fits = !not.contains(&quad[1]);
            if fits {
                begins.push(quad[0]);
                ends.push(quad[2]);
            }
            fits
        };
        self.facts_of(&known, &ground.graphs, ground.graph_candidates.as_ref(), ground.text, take).await?;
        let (begins, ends) = (set(begins), set(ends));
        Ok(if way == Way::Forward { (begins, ends) } else { (ends, begins) })
    }

    /// Fetches all facts that can be on the path, and says where it can begin and end, if it is known.
    async fn everything(&mut self, path: &Path, ground: &Ground<'_>) -> Result<[Option<Set>; 2], QueryError> {
        let mut steps = vec![];
        properties(path, &mut steps);
        if may_be_empty(path) {
            self.edges(None, &[], Way::Forward, None, ground).await?;
            return Ok([None, None]);
        }
        let mut ends = BTreeMap::new();
        for step in steps {
            if let Entry::Vacant(end) = ends.entry(step.to_string()) {
                let (predicate, not): (_, &[NamedNode]) = match step {
                    Path::NamedNode(p) => (Some(p), &[]),
                    Path::NegatedPropertySet(not) => (None, not),
                    _ => unreachable!("only single steps are listed"),
                };
                let found = self.edges(predicate, not, Way::Forward, None, ground).await?;
                end.insert(found);
            }
        }
        Ok([first(path, Way::Forward, &ends), first(path, Way::Backward, &ends)])
    }

    /// Fetches, for each term that is a node of the graph, a fact that shows it.
    async fn prove_nodes(&mut self, terms: &Set, graphs: &Graphs, ground: &Ground<'_>) -> Result<(), QueryError> {
        // In named graphs each graph needs its own proof.
        let unproven = |fetch: &Self| match graphs {
            Graphs::Default => Arc::new(terms.iter().copied().filter(|t| !fetch.facts.is_default_node(*t)).collect()),
            _ => terms.clone(),
        };
        for way in [Way::Forward, Way::Backward] {
            let unproven = unproven(self);
            self.edges(None, &[], way, Some(unproven), ground).await?;
        }
        Ok(())
    }
}

/// The single steps that a path is made of.
fn properties<'p>(path: &'p Path, into: &mut Vec<&'p Path>) {
    match path {
        Path::NamedNode(_) | Path::NegatedPropertySet(_) => into.push(path),
        Path::Reverse(p) | Path::ZeroOrMore(p) | Path::OneOrMore(p) | Path::ZeroOrOne(p) => properties(p, into),
        Path::Sequence(a, b) | Path::Alternative(a, b) => {
            properties(a, into);
            properties(b, into);
        }
    }
}

/// Where a path can begin, given where its steps begin and end; none if that is not known.
fn first(path: &Path, way: Way, steps: &BTreeMap<String, (Set, Set)>) -> Option<Set> {
    match path {
        Path::NamedNode(_) | Path::NegatedPropertySet(_) => {
            let (begins, ends) = steps.get(&path.to_string())?;
            Some(if way == Way::Forward { begins.clone() } else { ends.clone() })
        }
        Path::Reverse(p) => first(p, way.back(), steps),
        Path::OneOrMore(p) => first(p, way, steps),
        Path::Alternative(a, b) => Some(either(&first(a, way, steps)?, &first(b, way, steps)?)),
        Path::Sequence(a, b) => {
            let first_step = if way == Way::Forward { a } else { b };
            if may_be_empty(first_step) { None } else { first(first_step, way, steps) }
        }
        Path::ZeroOrMore(_) | Path::ZeroOrOne(_) => None,
    }
}

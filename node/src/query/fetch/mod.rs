//! Fetches the facts that a query needs: as few as can be told without statistics.
//!
//! # What it promises
//!
//! For a pattern P and candidates C (for some variables, sets of terms), call a row *of interest* if
//! every variable that it binds and C names is bound to one of C's terms. [`Fetch::pattern`] fetches
//! facts D′ ⊆ D such that for every D″ with D′ ⊆ D″ ⊆ D, P has the same rows of interest in D″ as in
//! D, each as often. And it returns, for variables that are bound in *every* row of interest, sets
//! that hold all that they are bound to. With no candidates every row is of interest: so the whole
//! query has the same rows in what was fetched for it as in the data. D″ is there because other parts
//! of a query fetch for themselves, and more facts must do no harm.
//!
//! Why each step keeps the promise:
//!
//! - *Triple pattern*: a row of interest comes from a fact whose terms are candidates; all of those
//!   are fetched. More facts give only more rows that are not of interest, or the same ones.
//! - *Join*: a row of interest restricts to rows of interest of both halves. For a variable bound in
//!   every row of the left half, the right row agrees with the left one or leaves it unbound, so the
//!   left's set may narrow the right's. A variable that the left half may leave unbound says nothing.
//! - *OPTIONAL, MINUS*: here a row on the right makes a row on the left *change* or vanish, so rows on
//!   the right count even if they are not of interest themselves. The outer candidates of a variable
//!   that the left may leave unbound must therefore NOT narrow the right: a right row that binds it to
//!   something else still extends (or removes) the left row; had it not been fetched, the left row
//!   would wrongly stay as it was. What may narrow the right is what is bound in every row on the left:
//!   only a right row that agrees there can touch a left row of interest.
//! - *EXISTS* in an expression is evaluated with the row's bindings, for rows of the filtered pattern:
//!   again only what is bound in every one of them narrows it.
//! - *FILTER* drops rows one by one; terms that it demands narrow its pattern.
//! - *LIMIT, OFFSET*: which rows are kept depends on all rows, so nothing narrows them. *GROUP BY*
//!   makes one row of all that agree on its variables, so candidates for those pass, and no others.
//!   A *sub-select* hides the variables that it does not project: another variable of the same name.
//! - *Paths*: from one end's candidates, all facts on paths from there are fetched. Rows of interest
//!   begin there. See [`path`].
//!
//! # What is missing
//!
//! Statistics: the order of a join follows from the number of candidates alone, and is decided anew
//! after each look-up. Counts are fetched as facts.

pub mod expressions;
mod leaf;
mod path;
mod reads;
mod sets;

pub use expressions::looked_at;
pub use leaf::Graphs;
pub use reads::Reads;
pub use sets::{Candidates, Out, Set};

use super::error::QueryError;
use super::facts::{Facts, Id, id_of};
use super::plan::{Orders, address};
use super::{Limits, Source};
use beam_wire::TermId;
use expressions::{demands, exists, of_aggregate, of_order};
use futures::future::BoxFuture;
use leaf::Triple;
use sets::{both, contains, either, narrow, only, set};
use spargebra::algebra::{Expression, GraphPattern, PropertyPathExpression};
use spargebra::term::{NamedNodePattern, TermPattern};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// The dataset of a query: FROM and FROM NAMED, or USING and USING NAMED.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// The graphs that are merged into the default graph; none: the default graph itself.
    pub default: Option<Vec<TermId>>,
    /// The named graphs; none: all.
    pub named: Option<Vec<TermId>>,
}

impl Dataset {
    /// The dataset that a query or an operation names.
    pub fn of(dataset: Option<&spargebra::algebra::QueryDataset>) -> Self {
        let ids = |graphs: &Vec<oxrdf::NamedNode>| {
            let mut ids: Vec<TermId> = graphs.iter().map(|g| id_of(&g.clone().into())).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        match dataset {
            None => Self::default(),
            Some(d) => Self { default: Some(ids(&d.default)), named: d.named.as_ref().map(ids) },
        }
    }
}

/// One walk over a query's pattern.
pub struct Fetch<'s> {
    source: &'s dyn Source,
    limits: &'s Limits,
    dataset: Dataset,
    /// Variables whose texts will be looked at.
    looked_at: BTreeSet<String>,
    /// What was fetched.
    pub facts: Facts,
    /// Terms whose texts will be looked at.
    pub wanted: HashSet<Id>,
    /// Which classes of facts the answer rests on.
    pub reads: Reads,
    /// Look-ups sent.
    pub lookups: u32,
    /// In which order the parts of joins were fetched.
    pub orders: Orders,
    fresh: usize,
}

/// One part of a join.
#[derive(Clone, Copy)]
pub enum Part<'p> {
    /// A triple pattern.
    Triple(&'p spargebra::term::TriplePattern),
    /// Subject, path, object.
    Path(&'p TermPattern, &'p PropertyPathExpression, &'p TermPattern),
    /// An empty group inside of GRAPH: the graphs themselves.
    Graph,
    /// Anything else.
    Other(&'p GraphPattern),
}

impl<'s> Fetch<'s> {
    /// Begins with no facts.
    pub fn new(source: &'s dyn Source, limits: &'s Limits, dataset: Dataset, looked_at: BTreeSet<String>) -> Self {
        let (facts, wanted, reads) = (Facts::new(), HashSet::new(), Reads::default());
        Self { source, limits, dataset, looked_at, facts, wanted, reads, lookups: 0, orders: Orders::new(), fresh: 0 }
    }

    /// Fetches what a pattern needs for its rows of interest: see the promise above.
    pub fn pattern<'a>(
        &'a mut self,
        pattern: &'a GraphPattern,
        graphs: &'a Graphs,
        candidates: Candidates,
    ) -> BoxFuture<'a, Result<Out, QueryError>> {
        Box::pin(async move {
            let mut out = self.step(pattern, graphs, candidates.clone()).await?;
            for (variable, set) in &mut out.sets {
                if let Some(candidates) = candidates.get(variable) {
                    *set = both(set, candidates);
                }
            }
            out.see_empty();
            Ok(out)
        })
    }

    async fn step(&mut self, pattern: &GraphPattern, graphs: &Graphs, mut c: Candidates) -> Result<Out, QueryError> {
        match pattern {
            GraphPattern::Bgp { .. } | GraphPattern::Path { .. } | GraphPattern::Join { .. } => {
                let mut parts = vec![];
                flatten(pattern, *graphs != Graphs::Default, &mut parts);
                let (out, order) = self.join(parts, graphs, c).await?;
                self.orders.insert(address(pattern), order);
                Ok(out)
            }
            GraphPattern::LeftJoin { left, right, expression } => {
                let a = self.pattern(left, graphs, c).await?;
                if a.empty {
                    return Ok(a);
                }
                let mut inner = a.sets.clone();
                if let Some(expression) = expression {
                    self.demand(expression, &mut inner);
                }
                let b = self.pattern(right, graphs, inner).await?;
                if let (Some(expression), false) = (expression, b.empty) {
                    let mut rows = a.sets.clone();
                    narrow(&mut rows, &b.sets);
                    self.exists(expression, graphs, &rows).await?;
                }
                Ok(a)
            }
            GraphPattern::Minus { left, right } => {
                let a = self.pattern(left, graphs, c).await?;
                if !a.empty {
                    self.pattern(right, graphs, a.sets.clone()).await?;
                }
                Ok(a)
            }
            GraphPattern::Filter { expr, inner } => {
                self.demand(expr, &mut c);
                let out = self.pattern(inner, graphs, c).await?;
                if !out.empty {
                    self.exists(expr, graphs, &out.sets).await?;
                }
                Ok(out)
            }
            GraphPattern::Union { left, right } => {
                let a = self.pattern(left, graphs, c.clone()).await?;
                let b = self.pattern(right, graphs, c).await?;
                Ok(match (a.empty, b.empty) {
                    (true, _) => b,
                    (_, true) => a,
                    _ => {
                        let shared = |(v, a): (String, Set)| Some((either(&a, b.sets.get(&v)?), v));
                        let sets = a.sets.into_iter().filter_map(shared).map(|(set, v)| (v, set)).collect();
                        Out { sets, empty: false }
                    }
                })
            }
            GraphPattern::Graph { name, inner } => {
                let graphs = match name {
                    NamedNodePattern::NamedNode(n) => Graphs::Named(id_of(&n.clone().into())),
                    NamedNodePattern::Variable(v) => Graphs::Variable(v.as_str().to_owned()),
                };
                self.pattern(inner, &graphs, c).await
            }
            GraphPattern::Extend { inner, variable, expression } => {
                c.remove(variable.as_str());
                let mut out = self.pattern(inner, graphs, c).await?;
                if !out.empty {
                    self.exists(expression, graphs, &out.sets).await?;
                }
                if let Expression::NamedNode(n) = expression {
                    let id = self.facts.terms.number(id_of(&n.clone().into()));
                    out.sets.insert(variable.as_str().to_owned(), set(vec![id]));
                }
                Ok(out)
            }
            GraphPattern::Values { variables, bindings } => {
                let mut rows: Vec<Vec<Option<Id>>> = vec![];
                for row in bindings {
                    let row: Vec<Option<Id>> = row
                        .iter()
                        .map(|t| t.as_ref().map(|t| self.facts.terms.number(id_of(&t.clone().into()))))
                        .collect();
                    let fits = |(v, id): (&oxrdf::Variable, &Option<Id>)| match (c.get(v.as_str()), id) {
                        (Some(set), Some(id)) => contains(set, *id),
                        _ => true,
                    };
                    if variables.iter().zip(&row).all(fits) {
                        rows.push(row);
                    }
                }
                let column = |(i, v): (usize, &oxrdf::Variable)| {
                    let ids: Option<Vec<Id>> = rows.iter().map(|row| row[i]).collect();
                    Some((v.as_str().to_owned(), set(ids?)))
                };
                let sets = variables.iter().enumerate().filter_map(column).collect();
                Ok(Out { sets, empty: rows.is_empty() })
            }
            GraphPattern::OrderBy { inner, expression } => {
                let out = self.pattern(inner, graphs, c).await?;
                for order in expression {
                    self.exists(of_order(order), graphs, &out.sets).await?;
                }
                Ok(out)
            }
            GraphPattern::Distinct { inner } | GraphPattern::Reduced { inner } => self.pattern(inner, graphs, c).await,
            GraphPattern::Project { inner, variables } => {
                // A graph's variable that is not projected is another one inside.
                let hidden = match graphs {
                    Graphs::Variable(g) if !variables.iter().any(|v| v.as_str() == g) => {
                        self.fresh += 1;
                        Some(Graphs::Variable(format!("_:graph{}", self.fresh)))
                    }
                    _ => None,
                };
                let out = self.pattern(inner, hidden.as_ref().unwrap_or(graphs), only(&c, variables)).await?;
                Ok(Out { sets: only(&out.sets, variables), empty: out.empty })
            }
            GraphPattern::Slice { inner, start, length } => {
                if let Some(length) = length
                    && let Some(out) = self.some_rows(inner, graphs, start.saturating_add(*length)).await?
                {
                    return Ok(out);
                }
                self.pattern(inner, graphs, Candidates::new()).await
            }
            GraphPattern::Group { inner, variables, aggregates } => {
                let out = self.pattern(inner, graphs, only(&c, variables)).await?;
                for expression in aggregates.iter().filter_map(|(_, a)| of_aggregate(a)) {
                    self.exists(expression, graphs, &out.sets).await?;
                }
                // Without GROUP BY there is one row even of nothing.
                Ok(Out { sets: only(&out.sets, variables), empty: out.empty && !variables.is_empty() })
            }
            GraphPattern::Service { name, .. } => {
                Err(QueryError::Unsupported(format!("SERVICE {name} is not supported")))
            }
        }
    }

    /// Cheapest part first, by what is known then; each part narrows the rest.
    async fn join<'p>(
        &mut self,
        parts: Vec<Part<'p>>,
        graphs: &Graphs,
        c: Candidates,
    ) -> Result<(Out, Vec<usize>), QueryError> {
        let (mut known, mut order) = (c, vec![]);
        let mut parts: Vec<(usize, Part<'p>)> = parts.into_iter().enumerate().collect();
        let mut out = Out::default();
        while !parts.is_empty() && !out.empty {
            let costs = parts.iter().enumerate().map(|(i, (_, part))| (self.part_cost(part, graphs, &known), i));
            let (_, cheapest) = costs.min().expect("there are parts");
            let (number, part) = parts.remove(cheapest);
            order.push(number);
            let next = match part {
                Part::Triple(t) => {
                    let triple = Triple::new(t);
                    self.triple(&triple, graphs, &known).await?
                }
                Part::Path(s, path, o) => self.path(s, path, o, graphs, &known).await?,
                Part::Graph => self.graph_names(graphs, &known).await?,
                Part::Other(pattern) => self.pattern(pattern, graphs, known.clone()).await?,
            };
            narrow(&mut known, &next.sets);
            out.join(next);
        }
        Ok((out, order))
    }

    /// What a pattern is likely to cost, in facts: good enough to tell which of two to fetch first.
    fn cost(&self, pattern: &GraphPattern, graphs: &Graphs, c: &Candidates) -> u64 {
        match pattern {
            GraphPattern::Bgp { .. } | GraphPattern::Path { .. } | GraphPattern::Join { .. } => {
                let mut parts = vec![];
                flatten(pattern, *graphs != Graphs::Default, &mut parts);
                parts.iter().map(|part| self.part_cost(part, graphs, c)).min().unwrap_or(0)
            }
            GraphPattern::Values { .. } => 0,
            GraphPattern::Union { left, right } => {
                self.cost(left, graphs, c).saturating_add(self.cost(right, graphs, c))
            }
            GraphPattern::LeftJoin { left: inner, .. }
            | GraphPattern::Minus { left: inner, .. }
            | GraphPattern::Filter { inner, .. }
            | GraphPattern::Extend { inner, .. }
            | GraphPattern::OrderBy { inner, .. }
            | GraphPattern::Distinct { inner }
            | GraphPattern::Reduced { inner }
            | GraphPattern::Graph { inner, .. }
            | GraphPattern::Service { inner, .. } => self.cost(inner, graphs, c),
            GraphPattern::Project { inner, variables } | GraphPattern::Group { inner, variables, .. } => {
                self.cost(inner, graphs, &only(c, variables))
            }
            GraphPattern::Slice { inner, .. } => self.cost(inner, graphs, &Candidates::new()),
        }
    }

    fn part_cost(&self, part: &Part<'_>, graphs: &Graphs, c: &Candidates) -> u64 {
        match part {
            Part::Triple(t) => self.triple_cost(&Triple::new(t), c),
            Part::Path(s, path, o) => self.path_cost(s, path, o, c),
            Part::Graph => 1_000,
            Part::Other(pattern) => self.cost(pattern, graphs, c),
        }
    }

    /// Candidates that a filter demands.
    fn demand(&mut self, expression: &Expression, c: &mut Candidates) {
        for (variable, iris) in demands(expression) {
            let ids = iris.into_iter().map(|iri| {
                let iri = oxrdf::NamedNode::new_unchecked(iri);
                self.facts.terms.number(id_of(&iri.into()))
            });
            let demanded = set(ids.collect());
            c.entry(variable).and_modify(|set| *set = both(set, &demanded)).or_insert(demanded);
        }
    }

    /// Fetches what each EXISTS of an expression needs, for rows of which `rows` is known.
    async fn exists(&mut self, expression: &Expression, graphs: &Graphs, rows: &Candidates) -> Result<(), QueryError> {
        for pattern in exists(expression) {
            self.pattern(pattern, graphs, rows.clone()).await?;
        }
        Ok(())
    }

    /// Any `count` rows of a pattern that makes one row of each fact, without fetching all: LIMIT
    /// without an order, and ASK. None if the pattern is not so simple.
    pub async fn some_rows(
        &mut self,
        pattern: &GraphPattern,
        graphs: &Graphs,
        count: usize,
    ) -> Result<Option<Out>, QueryError> {
        let (mut pattern, mut graphs) = (pattern, graphs.clone());
        loop {
            pattern = match pattern {
                GraphPattern::Project { inner, variables } => {
                    if matches!(&graphs, Graphs::Variable(g) if !variables.iter().any(|v| v.as_str() == g)) {
                        return Ok(None);
                    }
                    inner
                }
                GraphPattern::Extend { inner, expression, .. } if exists(expression).is_empty() => inner,
                GraphPattern::Graph { inner, name: NamedNodePattern::NamedNode(n) } => {
                    graphs = Graphs::Named(id_of(&n.clone().into()));
                    inner
                }
                GraphPattern::Graph { inner, name: NamedNodePattern::Variable(v) } => {
                    graphs = Graphs::Variable(v.as_str().to_owned());
                    inner
                }
                GraphPattern::Bgp { patterns } if patterns.len() == 1 => {
                    let triple = Triple::new(&patterns[0]);
                    return self.some_facts(&triple, &graphs, count).await;
                }
                _ => return Ok(None),
            };
        }
    }

    /// The term's number, as a set of one.
    fn one(&mut self, id: TermId) -> Set {
        Arc::new(vec![self.facts.terms.number(id)])
    }
}

/// The parts of nested joins: the order in which they are written does not matter. `named`: whether
/// the pattern stands inside of GRAPH.
pub fn flatten<'p>(pattern: &'p GraphPattern, named: bool, parts: &mut Vec<Part<'p>>) {
    match pattern {
        GraphPattern::Bgp { patterns } if patterns.is_empty() && named => parts.push(Part::Graph),
        GraphPattern::Bgp { patterns } => parts.extend(patterns.iter().map(Part::Triple)),
        GraphPattern::Path { subject, path, object } => parts.push(Part::Path(subject, path, object)),
        GraphPattern::Join { left, right } => {
            flatten(left, named, parts);
            flatten(right, named, parts);
        }
        other => parts.push(Part::Other(other)),
    }
}

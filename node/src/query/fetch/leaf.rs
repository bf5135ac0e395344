//! Triple patterns, and the look-ups that answer them.

use super::Fetch;
use super::sets::{Candidates, Out, Set, contains, set};
use crate::query::error::QueryError;
use crate::query::facts::{DEFAULT_GRAPH, Id, Quad, id_of};
use crate::query::source::BATCH_MAX;
use beam_wire::TermId;
use beam_wire::fact::{GraphPattern, Pattern};
use futures::StreamExt;
use spargebra::term::{NamedNodePattern, TermPattern};

/// Above this many keys a scan of the predicate is tried first. A key costs about as much as twenty
/// scanned facts; a scan that is too large is given up, and the keys are looked up after all.
pub const KEYS_BEFORE_SCAN: usize = 50_000;

/// Look-ups that are waited for at the same time: hides the round trip, and bounds what is held.
const IN_FLIGHT: usize = 4;

/// Named graphs that are asked one by one; more are asked together, and what is not wanted dropped.
const GRAPHS_ONE_BY_ONE: usize = 4;

/// Where a pattern looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Graphs {
    /// Outside of GRAPH.
    Default,
    /// GRAPH with an IRI.
    Named(TermId),
    /// GRAPH with a variable.
    Variable(String),
}

/// A term of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// This one.
    Term(TermId),
    /// Whatever the variable is bound to.
    Variable(String),
}

/// A triple pattern.
pub struct Triple {
    /// Subject, predicate, object.
    pub slots: [Slot; 3],
    /// As the query has it, for messages.
    pub text: String,
}

impl Slot {
    /// Of a subject or object.
    pub fn of(term: &TermPattern) -> Self {
        match term {
            TermPattern::Variable(v) => Slot::Variable(v.as_str().to_owned()),
            term => Slot::Term(id_of(&crate::query::parse::ground(term).expect("checked when parsed").into())),
        }
    }
}

impl Triple {
    /// Of the algebra's pattern, in which no triple term holds a variable.
    pub fn new(t: &spargebra::term::TriplePattern) -> Self {
        let predicate = match &t.predicate {
            NamedNodePattern::NamedNode(n) => Slot::Term(id_of(&n.clone().into())),
            NamedNodePattern::Variable(v) => Slot::Variable(v.as_str().to_owned()),
        };
        Self { slots: [Slot::of(&t.subject), predicate, Slot::of(&t.object)], text: t.to_string() }
    }
}

/// What is known of each of subject, predicate and object.
pub type Known = [Option<Set>; 3];

/// How a pattern's facts are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Subject,
    Object,
    Predicate,
    Scan,
}

/// The likely cost of each way, in facts fetched. Subjects have few facts of one predicate, objects
/// can have many, and a predicate most of all.
fn ways(known: [Option<u64>; 3]) -> [(u64, Access); 4] {
    let [s, p, o] = known;
    let never = u64::MAX;
    let by_subject = s.map_or(never, |s| {
        s * if o == Some(1) && p.is_some() {
            1
        } else if p.is_some() {
            3
        } else {
            15
        }
    });
    // Some objects have millions: where subjects are known too, they bound what comes.
    let by_object = o.map_or(never, |o| {
        o * if s.is_some() {
            1_000
        } else if p.is_some() {
            30
        } else {
            60
        }
    });
    let by_predicate = p.map_or(never, |p| p * 1_000_000);
    [
        (by_subject, Access::Subject),
        (by_object, Access::Object),
        (by_predicate, Access::Predicate),
        (1_000_000_000, Access::Scan),
    ]
}

impl Fetch<'_> {
    /// The likely cost of a triple pattern, in facts fetched.
    pub(super) fn triple_cost(&self, triple: &Triple, c: &Candidates) -> u64 {
        let size = |slot: &Slot| match slot {
            Slot::Term(_) => Some(1),
            Slot::Variable(v) => c.get(v).map(|set| set.len() as u64),
        };
        let ways = ways([size(&triple.slots[0]), size(&triple.slots[1]), size(&triple.slots[2])]);
        ways.into_iter().map(|(cost, _)| cost).min().expect("there are four")
    }

    /// What is known of a slot.
    pub(super) fn known(&mut self, slot: &Slot, c: &Candidates) -> Option<Set> {
        match slot {
            Slot::Term(id) => Some(self.one(*id)),
            Slot::Variable(v) => c.get(v).cloned(),
        }
    }

    /// Fetches the facts of a triple pattern.
    pub(super) async fn triple(&mut self, triple: &Triple, graphs: &Graphs, c: &Candidates) -> Result<Out, QueryError> {
        let known = [0, 1, 2].map(|i| self.known(&triple.slots[i], c));
        let graph_candidates = graph_variable(graphs).and_then(|g| c.get(g).cloned());
        let mut rows = Rows::new(triple, graphs);
        let patterns = self.graph_patterns(graphs, graph_candidates.as_ref());
        let text = triple.text.clone();
        self.facts_of(&known, &patterns, graph_candidates.as_ref(), &text, |quad| rows.take(quad)).await?;
        Ok(self.rows(rows))
    }

    /// At least `count` facts of a triple pattern, if there are as many. None if a fact may not make
    /// a row.
    pub(super) async fn some_facts(
        &mut self,
        triple: &Triple,
        graphs: &Graphs,
        count: usize,
    ) -> Result<Option<Out>, QueryError> {
        let mut names: Vec<&String> = triple.slots.iter().filter_map(Slot::variable).collect();
        names.extend(graph_variable(graphs));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        let patterns = self.graph_patterns(graphs, None);
        // Graphs that are merged may hold the same fact twice.
        if names.len() < all || patterns.len() != 1 || count > self.limits.facts_max {
            return Ok(None);
        }
        let [subject, predicate, object] = [0, 1, 2].map(|i| match &triple.slots[i] {
            Slot::Term(id) => Some(*id),
            Slot::Variable(_) => None,
        });
        let (graph, as_default) = patterns[0];
        let pattern = Pattern { subject, predicate, object, graph };
        self.reads.record(&pattern);
        self.lookups += 1;
        let found = self.source.some(pattern, count).await?;
        let mut rows = Rows::new(triple, graphs);
        for fact in &found.facts {
            let mut quad = self.facts.quad(fact);
            if as_default {
                quad[3] = DEFAULT_GRAPH;
            }
            rows.take(quad);
            self.facts.push(quad);
        }
        self.within_limits(&triple.text)?;
        Ok(Some(self.rows(rows)))
    }

    fn rows(&mut self, rows: Rows<'_>) -> Out {
        let mut out = Out { sets: Candidates::new(), empty: rows.count == 0 };
        for (variable, ids) in rows.columns {
            let set = set(ids);
            if self.looked_at.contains(variable) {
                self.wanted.extend(set.iter().copied());
            }
            out.sets.insert(variable.clone(), set);
        }
        out
    }

    /// The graphs to ask for, and whether a fact found there counts as one of the default graph.
    pub(super) fn graph_patterns(&mut self, graphs: &Graphs, candidates: Option<&Set>) -> Vec<(GraphPattern, bool)> {
        match (graphs, &self.dataset.default, &self.dataset.named) {
            (Graphs::Default, None, _) => vec![(GraphPattern::Default, false)],
            (Graphs::Default, Some(from), _) => from.iter().map(|g| (GraphPattern::Named(*g), true)).collect(),
            (Graphs::Named(g), _, Some(named)) if !named.contains(g) => vec![],
            (Graphs::Named(g), _, _) => vec![(GraphPattern::Named(*g), false)],
            (Graphs::Variable(_), _, named) => {
                let few = candidates.filter(|set| set.len() <= GRAPHS_ONE_BY_ONE);
                let ids: Vec<TermId> = match (few, named) {
                    (None, None) => return vec![(GraphPattern::AnyNamed, false)],
                    (Some(set), named) => {
                        let ids = set.iter().map(|g| self.facts.terms.id(*g));
                        ids.filter(|g| named.as_ref().is_none_or(|named| named.contains(g))).collect()
                    }
                    (None, Some(named)) => named.clone(),
                };
                ids.into_iter()
                    .filter(|g| *g != TermId::DEFAULT_GRAPH)
                    .map(|g| (GraphPattern::Named(g), false))
                    .collect()
            }
        }
    }

    /// The graphs themselves: an empty group inside of GRAPH has one row for each.
    pub(super) async fn graph_names(&mut self, graphs: &Graphs, c: &Candidates) -> Result<Out, QueryError> {
        let variable = graph_variable(graphs);
        let candidates = variable.and_then(|g| c.get(g).cloned());
        if let Some(named) = self.dataset.named.clone() {
            let ids: Vec<Id> = named.into_iter().map(|g| self.facts.terms.number(g)).collect();
            let ids = candidates.map_or(set(ids.clone()), |c| super::both(&c, &set(ids)));
            return Ok(Out { sets: variable.map(|v| (v.clone(), ids)).into_iter().collect(), empty: false });
        }
        let one_by_one: Option<Vec<TermId>> = match (graphs, &candidates) {
            (Graphs::Named(g), _) => Some(vec![*g]),
            (_, Some(set)) if set.len() <= 64 => Some(set.iter().map(|g| self.facts.terms.id(*g)).collect()),
            _ => None,
        };
        let mut ids = vec![];
        let open = Pattern { subject: None, predicate: None, object: None, graph: GraphPattern::AnyNamed };
        match one_by_one {
            // One fact proves that a graph is there.
            Some(graphs) => {
                for g in graphs.into_iter().filter(|g| *g != TermId::DEFAULT_GRAPH) {
                    let pattern = Pattern { graph: GraphPattern::Named(g), ..open };
                    self.reads.record(&pattern);
                    self.lookups += 1;
                    for fact in self.source.lookup(vec![pattern], 1).await?.facts {
                        let quad = self.facts.quad(&fact);
                        self.facts.push(quad);
                        ids.push(quad[3]);
                    }
                }
            }
            None => {
                let patterns = [(GraphPattern::AnyNamed, false)];
                let nothing = [None, None, None];
                let text = format!("GRAPH ?{} {{}}", variable.map_or("", |v| v));
                self.facts_of(&nothing, &patterns, candidates.as_ref(), &text, |quad| {
                    ids.push(quad[3]);
                    true
                })
                .await?;
            }
        }
        let ids = set(ids);
        let empty = ids.is_empty();
        Ok(Out { sets: variable.map(|v| (v.clone(), ids)).into_iter().collect(), empty })
    }

    /// Fetches every fact of these graphs whose terms are known ones, shows it to `take`, and keeps
    /// it if that says so. `text` names the pattern in errors.
    pub(super) async fn facts_of(
        &mut self,
        known: &Known,
        graphs: &[(GraphPattern, bool)],
        graph_candidates: Option<&Set>,
        text: &str,
        mut take: impl FnMut(Quad) -> bool + Send,
    ) -> Result<(), QueryError> {
        if known.iter().flatten().any(|set| set.is_empty()) || graph_candidates.is_some_and(|set| set.is_empty()) {
            return Ok(());
        }
        let sizes = [0, 1, 2].map(|i| known[i].as_ref().map(|set| set.len() as u64));
        let ways = ways(sizes);
        let (_, best) = *ways.iter().min_by_key(|(cost, _)| *cost).expect("there are four");
        let keys = match best {
            Access::Subject => sizes[0],
            Access::Object => sizes[2],
            Access::Predicate | Access::Scan => None,
        };
        let mut plans = vec![best];
        if keys.is_some_and(|n| n > KEYS_BEFORE_SCAN as u64) && sizes[1].is_some() {
            plans.insert(0, Access::Predicate);
        }
        for &(graph, as_default) in graphs {
            for (i, plan) in plans.iter().enumerate() {
                let more = i + 1 < plans.len();
                let patterns = self.patterns(known, *plan, graph);
                let mut keep = |fetch: &mut Self, fact: &beam_wire::Fact| {
                    let mut quad = fetch.facts.quad(fact);
                    let fits = known.iter().zip(quad).all(|(k, id)| k.as_ref().is_none_or(|set| contains(set, id)));
                    let fits = fits && graph_candidates.is_none_or(|set| contains(set, quad[3]));
                    if as_default {
                        quad[3] = DEFAULT_GRAPH;
                    }
                    if fits && take(quad) {
                        fetch.facts.push(quad);
                    }
                };
                if self.look_up(patterns, more, text, &mut keep).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The patterns that a way of access asks for.
    fn patterns(&self, known: &Known, access: Access, graph: GraphPattern) -> Vec<Pattern> {
        let ids = |set: &Set| set.iter().map(|id| self.facts.terms.id(*id)).collect::<Vec<_>>();
        let open = Pattern { subject: None, predicate: None, object: None, graph };
        let single =
            |set: &Option<Set>| set.as_ref().filter(|set| set.len() == 1).map(|set| self.facts.terms.id(set[0]));
        let [s, p, o] = known;
        // Several predicates multiply the keys: few are worth it, many are sorted out afterwards.
        let predicates = match p {
            Some(p) if p.len() <= 4 => ids(p).into_iter().map(Some).collect(),
            _ => vec![None],
        };
        let keyed = |keys: &Set, make: &dyn Fn(TermId, Option<TermId>) -> Pattern| -> Vec<Pattern> {
            ids(keys).into_iter().flat_map(|key| predicates.iter().map(move |p| make(key, *p))).collect()
        };
        match (access, s, p, o) {
            (Access::Subject, Some(s), ..) => {
                let object = single(o).filter(|_| p.as_ref().is_some_and(|p| p.len() <= 4));
                keyed(s, &|key, predicate| Pattern { subject: Some(key), predicate, object, ..open })
            }
            (Access::Object, _, _, Some(o)) => {
                keyed(o, &|key, predicate| Pattern { object: Some(key), predicate, ..open })
            }
            (Access::Predicate, _, Some(p), _) => {
                ids(p).into_iter().map(|id| Pattern { predicate: Some(id), ..open }).collect()
            }
            _ => vec![open],
        }
    }

    /// Asks for patterns in batches, several at a time. If there are too many facts, this is `false`
    /// when there is another way, else an error. What was kept by then does no harm.
    async fn look_up(
        &mut self,
        patterns: Vec<Pattern>,
        another_way: bool,
        text: &str,
        keep: &mut (dyn FnMut(&mut Self, &beam_wire::Fact) + Send),
    ) -> Result<bool, QueryError> {
        let (source, limit) = (self.source, self.limits.facts_max);
        let batches: Vec<Vec<Pattern>> = patterns.chunks(BATCH_MAX).map(<[Pattern]>::to_vec).collect();
        let mut answers =
            futures::stream::iter(batches.clone()).map(|batch| source.lookup(batch, limit)).buffered(IN_FLIGHT);
        let mut recorded = batches.into_iter();
        while let Some(found) = answers.next().await {
            let found = found?;
            self.lookups += 1;
            if !found.complete {
                if another_way {
                    return Ok(false);
                }
                return Err(self.too_many_facts(text));
            }
            for pattern in recorded.next().into_iter().flatten() {
                self.reads.record(&pattern);
            }
            for fact in &found.facts {
                keep(self, fact);
            }
            self.within_limits(text)?;
        }
        Ok(true)
    }

    /// Whether what was fetched fits into its bounds.
    fn within_limits(&mut self, text: &str) -> Result<(), QueryError> {
        if self.facts.count_at_most() > self.limits.facts_max && self.facts.count() > self.limits.facts_max {
            return Err(self.too_many_facts(text));
        }
        if self.facts.bytes() > self.limits.memory_bytes_max && self.facts.count() > 0 {
            let bytes = self.facts.bytes();
            if bytes > self.limits.memory_bytes_max {
                return Err(QueryError::TooLarge {
                    what: format!(
                        "with the facts of {text} it needs {} MiB, and may use {}",
                        bytes >> 20,
                        self.limits.memory_bytes_max >> 20
                    ),
                    advice: ADVICE,
                });
            }
        }
        Ok(())
    }

    fn too_many_facts(&self, text: &str) -> QueryError {
        QueryError::TooLarge {
            what: format!("fetching {text} takes it above {} facts", self.limits.facts_max),
            advice: ADVICE,
        }
    }
}

const ADVICE: &str = "name a subject, an object or a rarer property, so that fewer facts can match";

impl Slot {
    fn variable(&self) -> Option<&String> {
        match self {
            Slot::Term(_) => None,
            Slot::Variable(v) => Some(v),
        }
    }
}

/// The variable of GRAPH.
pub fn graph_variable(graphs: &Graphs) -> Option<&String> {
    match graphs {
        Graphs::Variable(v) => Some(v),
        _ => None,
    }
}

/// What a triple pattern's variables are bound to, as facts come in.
struct Rows<'t> {
    columns: Vec<(&'t String, Vec<Id>)>,
    /// For subject, predicate, object and graph: the column of its variable.
    places: [Option<usize>; 4],
    count: usize,
}

impl<'t> Rows<'t> {
    fn new(triple: &'t Triple, graphs: &'t Graphs) -> Self {
        let mut columns: Vec<(&String, Vec<Id>)> = vec![];
        let [s, p, o] = &triple.slots;
        let variables = [s.variable(), p.variable(), o.variable(), graph_variable(graphs)];
        let places = variables.map(|v| {
            let v = v?;
            Some(columns.iter().position(|(name, _)| *name == v).unwrap_or_else(|| {
                columns.push((v, vec![]));
                columns.len() - 1
            }))
        });
        Self { columns, places, count: 0 }
    }

    /// Whether the fact makes a row: a variable that stands twice needs the same term twice.
    fn take(&mut self, quad: Quad) -> bool {
        let same =
            |i: usize, j: usize| self.places[i].is_none() || self.places[i] != self.places[j] || quad[i] == quad[j];
        if !(0..4).all(|i| (i + 1..4).all(|j| same(i, j))) {
            return false;
        }
        for (id, place) in quad.into_iter().zip(self.places) {
            if let Some(place) = place {
                let ids = &mut self.columns[place].1;
                // Sorted facts repeat a term many times in a row.
                if ids.last() != Some(&id) {
                    ids.push(id);
                }
            }
        }
        self.count += 1;
        true
    }
}

impl Fetch<'_> {
    /// Every fact of the default graph that one of these is the subject of.
    pub async fn facts_about(&mut self, subjects: Vec<Id>) -> Result<Vec<Quad>, QueryError> {
        let graphs = self.graph_patterns(&Graphs::Default, None);
        let mut quads = vec![];
        let known = [Some(set(subjects)), None, None];
        self.facts_of(&known, &graphs, None, "the resources to describe", |quad| {
            quads.push(quad);
            true
        })
        .await?;
        Ok(quads)
    }
}

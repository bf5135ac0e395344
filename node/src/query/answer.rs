//! Answers a query: fetches what it needs, then lets the evaluator finish.

use super::Limits;
use super::error::QueryError;
use super::facts::{Facts, Id, Index, Quad};
use super::fetch::{Dataset, Fetch, Graphs, Reads, looked_at};
use super::local::Local;
use super::names::Names;
use super::parse::{NEW_BLANK, Query};
use super::plan::{ROW, plan};
use super::source::{BATCH_MAX, Source};
use super::work::{self, Work};
use crate::rdf::convert::{from_oxrdf, to_oxrdf};
use beam_wire::env::Env;
use beam_wire::message::api::{QueryReply, Shape};
use beam_wire::{Term, TermId};
use futures::StreamExt;
use oxrdf::{BlankNode, GraphName, Literal, NamedNode, NamedOrBlankNode};
use spareval::{CancellationToken, QueryEvaluationError, QueryEvaluator, QueryResults};
use spargebra::algebra::GraphPattern;
use spargebra::term::{NamedNodePattern, TermPattern, TriplePattern};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// What a query is answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What follows.
    pub shape: Shape,
    /// Rows or triples, in order, in parts of at most [`CHUNK_BYTES`] (a part holds at least one row).
    pub chunks: Vec<QueryReply>,
    /// What it rests on.
    pub reads: Reads,
    /// What it took.
    pub stats: Stats,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Facts fetched, each counted once.
    pub facts: u64,
    /// Texts fetched.
    pub texts: u64,
    /// Look-ups and questions for texts.
    pub requests: u32,
    /// Rows or triples of the answer.
    pub rows: u64,
}

/// A part of an answer is sent when it is this large: well below a frame's limit, and large enough
/// that its envelope does not matter.
pub const CHUNK_BYTES: usize = 128 << 10;

/// Questions for texts that are waited for at the same time.
const TEXTS_IN_FLIGHT: usize = 4;

/// Answers a query from the facts of one version.
pub async fn evaluate(query: &Query, source: &dyn Source, limits: Limits, env: &Env) -> Result<Answer, QueryError> {
    let answer = answer(query, source, &limits, env);
    match limits.deadline {
        Some(deadline) => env.timeout_at(deadline, answer).await.unwrap_or(Err(QueryError::Deadline)),
        None => answer.await,
    }
}

async fn answer(query: &Query, source: &dyn Source, limits: &Limits, env: &Env) -> Result<Answer, QueryError> {
    use spargebra::Query as Q;
    let (Q::Select { pattern, .. }
    | Q::Construct { pattern, .. }
    | Q::Describe { pattern, .. }
    | Q::Ask { pattern, .. }) = &query.0;
    if let Q::Describe { dataset, pattern, base_iri } = &query.0 {
        let select = Q::Select { dataset: dataset.clone(), pattern: pattern.clone(), base_iri: base_iri.clone() };
        return describe(&select, source, limits, env).await;
    }
    let mut variables = BTreeSet::new();
    looked_at(pattern, &mut variables);
    match &query.0 {
        Q::Construct { template, .. } => template.iter().for_each(|t| template_variables(t, &mut variables)),
        Q::Ask { .. } => {}
        _ => projected(pattern, &mut variables),
    }
    let dataset = Dataset::of(query.0.dataset());
    let mut fetch = Fetch::new(source, limits, dataset, variables);
    let some = matches!(query.0, Q::Ask { .. }) && fetch.some_rows(pattern, &Graphs::Default, 1).await?.is_some();
    if !some {
        fetch.pattern(pattern, &Graphs::Default, Default::default()).await?;
    }
    let mut stats = Stats { requests: fetch.lookups, ..Stats::default() };
    let reads = std::mem::take(&mut fetch.reads);
    let mut planned = query.0.clone();
    let (Q::Select { pattern: p, .. }
    | Q::Construct { pattern: p, .. }
    | Q::Describe { pattern: p, .. }
    | Q::Ask { pattern: p, .. }) = &mut planned;
    *p = plan(pattern, &fetch.orders, false);
    let names = source.version().map(|version| Names::of(&query.1, version));
    let evaluated = finish(planned, fetch.facts, fetch.wanted, names, source, limits, env, &mut stats).await?;
    Ok(Answer { shape: evaluated.shape, chunks: evaluated.chunks, reads, stats })
}

/// The rows of a SELECT, for an update; what was looked at is added to `reads`.
pub(super) async fn evaluate_rows(
    select: &spargebra::Query,
    dataset: Dataset,
    source: &dyn Source,
    limits: &Limits,
    env: &Env,
    reads: &mut Reads,
    stats: &mut Stats,
) -> Result<Vec<Vec<Option<Term>>>, QueryError> {
    let spargebra::Query::Select { pattern, base_iri, dataset: using } = select else {
        unreachable!("an update's WHERE selects")
    };
    let mut variables = BTreeSet::new();
    looked_at(pattern, &mut variables);
    projected(pattern, &mut variables);
    let mut fetch = Fetch::new(source, limits, dataset, variables);
    fetch.reads = std::mem::take(reads);
    fetch.pattern(pattern, &Graphs::Default, Default::default()).await?;
    *reads = std::mem::take(&mut fetch.reads);
    stats.requests += fetch.lookups;
    let pattern = plan(pattern, &fetch.orders, false);
    let planned = spargebra::Query::Select { dataset: using.clone(), pattern, base_iri: base_iri.clone() };
    // The nodes that an update makes are new each time that it is made.
    let found = finish(planned, fetch.facts, fetch.wanted, None, source, limits, env, stats).await?;
    let rows = found.chunks.into_iter().flat_map(|chunk| match chunk {
        QueryReply::Rows(rows) => rows,
        _ => vec![],
    });
    Ok(rows.collect())
}

/// Fetches the wanted texts, and evaluates.
#[allow(clippy::too_many_arguments, reason = "all of them are what an evaluation consists of")]
pub(super) async fn finish(
    query: spargebra::Query,
    facts: Facts,
    wanted: HashSet<Id>,
    names: Option<Names>,
    source: &dyn Source,
    limits: &Limits,
    env: &Env,
    stats: &mut Stats,
) -> Result<Evaluated, QueryError> {
    let mut index = facts.index();
    stats.facts += index.facts().len() as u64;
    let mut texts = TextsFetched::default();
    texts.fetch(&mut index, wanted, source, limits, stats).await?;
    let mut index = Arc::new(index);
    loop {
        let token = CancelWhenDropped(CancellationToken::new());
        let run = Run {
            query: query.clone(),
            index: index.clone(),
            names: names.clone(),
            token: token.0.clone(),
            bytes_max: limits.memory_bytes_max.saturating_sub(texts.bytes),
        };
        let evaluated = env.blocking(move || run.run()).await;
        match evaluated {
            Ok(evaluated) => {
                stats.rows += evaluated.rows;
                return Ok(evaluated);
            }
            // An expression looked at a text that nobody foresaw: fetch them all, and start again.
            Err(RunError::TextMissing) if !texts.all => {
                texts.all = true;
                let index = Arc::get_mut(&mut index).expect("the evaluation is over");
                let all = (1..index.terms.len() as Id).collect();
                texts.fetch(index, all, source, limits, stats).await?;
            }
            Err(RunError::TextMissing) => {
                return Err(QueryError::Evaluation("the text of a term is known to no view".into()));
            }
            Err(RunError::Failed(e)) => return Err(e),
        }
    }
}

#[derive(Default)]
struct TextsFetched {
    bytes: usize,
    all: bool,
}

impl TextsFetched {
    async fn fetch(
        &mut self,
        index: &mut Index,
        wanted: HashSet<Id>,
        source: &dyn Source,
        limits: &Limits,
        stats: &mut Stats,
    ) -> Result<(), QueryError> {
        let mut ids: Vec<TermId> =
            wanted.into_iter().filter(|n| index.terms.lacks_text(*n)).map(|n| index.terms.id(n)).collect();
        ids.sort_unstable();
        let batches: Vec<Vec<TermId>> = ids.chunks(BATCH_MAX).map(<[TermId]>::to_vec).collect();
        let mut answers = futures::stream::iter(batches).map(|ids| source.terms(ids)).buffered(TEXTS_IN_FLIGHT);
        while let Some(terms) = answers.next().await {
            stats.requests += 1;
            for (id, term) in terms? {
                let (Some(number), Some(text)) = (index.terms.find(id), to_oxrdf(&term).ok()) else {
                    continue;
                };
                self.bytes += size_of::<oxrdf::Term>() + term_bytes(&term);
                stats.texts += 1;
                index.terms.set_text(number, text);
            }
            if self.bytes > limits.memory_bytes_max {
                return Err(too_large("the texts of its terms", limits.memory_bytes_max));
            }
        }
        Ok(())
    }
}

fn too_large(what: &str, bytes_max: usize) -> QueryError {
    QueryError::TooLarge {
        what: format!("{what} would take more than {} MiB", bytes_max >> 20),
        advice: "select fewer variables, add a LIMIT, or ask for a part at a time",
    }
}

/// Stops an evaluation on another thread when nobody waits for it any more.
struct CancelWhenDropped(CancellationToken);

impl Drop for CancelWhenDropped {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// One evaluation over fetched facts.
struct Run {
    query: spargebra::Query,
    index: Arc<Index>,
    names: Option<Names>,
    token: CancellationToken,
    bytes_max: usize,
}

/// What an evaluation gave.
pub(super) struct Evaluated {
    pub shape: Shape,
    pub chunks: Vec<QueryReply>,
    pub rows: u64,
}

enum RunError {
    TextMissing,
    Failed(QueryError),
}

impl Run {
    fn run(self) -> Result<Evaluated, RunError> {
        let work = Arc::new(Work::new(self.token.clone(), &self.query, self.bytes_max));
        let local = Local::new(self.index.clone(), work.clone());
        let evaluated = work::until_stopped(|| self.evaluate(local.clone(), work.clone()));
        if local.text_missing() {
            return Err(RunError::TextMissing);
        }
        evaluated.unwrap_or_else(Err).map_err(RunError::Failed)
    }

    fn evaluate(&self, local: Local, work: Arc<Work>) -> Result<Evaluated, QueryError> {
        let evaluator = QueryEvaluator::new()
            .with_cancellation_token(self.token.clone())
            .with_custom_function(NamedNode::new_unchecked(NEW_BLANK), new_blank)
            .with_custom_function(NamedNode::new_unchecked(ROW), move |_| {
                work.row();
                Some(Literal::from(true).into())
            });
        let mut prepared = evaluator.prepare(&self.query);
        if let Some(dataset) = self.query.dataset() {
            // FROM graphs were merged into the default graph as they were fetched.
            prepared.dataset_mut().set_default_graph(vec![GraphName::DefaultGraph]);
            if let Some(named) = &dataset.named {
                let mut named: Vec<&NamedNode> = named.iter().collect();
                named.sort_unstable();
                named.dedup();
                let named = named.into_iter().map(|g| NamedOrBlankNode::from(g.clone())).collect();
                prepared.dataset_mut().set_available_named_graphs(named);
            }
        }
        let mut chunks = Chunks { bytes_max: self.bytes_max, ..Chunks::default() };
        let mut names = self.names.clone();
        let mut term = |term: oxrdf::Term| -> Result<Term, QueryError> {
            let term = from_oxrdf(term).map_err(|e| QueryError::Evaluation(e.to_string()))?;
            Ok(match &mut names {
                Some(names) => names.rename(term, &self.index.terms),
                None => term,
            })
        };
        let shape = match prepared.execute(local).map_err(failed)? {
            QueryResults::Boolean(answer) => Shape::Boolean(answer),
            QueryResults::Solutions(solutions) => {
                let variables = solutions.variables().iter().map(|v| v.as_str().to_owned()).collect();
                let mut rows = vec![];
                for solution in solutions {
                    let solution = solution.map_err(failed)?;
                    let row: Vec<Option<Term>> = solution
                        .values()
                        .iter()
                        .map(|t| t.clone().map(&mut term).transpose())
                        .collect::<Result<_, _>>()?;
                    let bytes = row.iter().flatten().map(term_bytes).sum();
                    rows.push(row);
                    chunks.count(bytes, &mut rows, QueryReply::Rows)?;
                }
                chunks.end(rows, QueryReply::Rows);
                Shape::Solutions { variables }
            }
            QueryResults::Graph(found) => {
                let mut triples = vec![];
                for triple in found {
                    let triple = triple.map_err(failed)?;
                    let triple = [term(triple.subject.into())?, term(triple.predicate.into())?, term(triple.object)?];
                    let bytes = triple.iter().map(term_bytes).sum();
                    triples.push(triple);
                    chunks.count(bytes, &mut triples, QueryReply::Triples)?;
                }
                chunks.end(triples, QueryReply::Triples);
                Shape::Graph
            }
        };
        Ok(Evaluated { shape, chunks: chunks.done, rows: chunks.rows })
    }
}

/// BNODE(text): one node for each text in each solution, and never one that the data knows.
fn new_blank(arguments: &[oxrdf::Term]) -> Option<oxrdf::Term> {
    let [oxrdf::Term::Literal(text), oxrdf::Term::BlankNode(solution)] = arguments else { return None };
    let hash = blake3::hash(format!("{} {}", solution.as_str(), text.value()).as_bytes());
    Some(BlankNode::new_unchecked(format!("b{}", &hash.to_hex()[..32])).into())
}

fn failed(e: QueryEvaluationError) -> QueryError {
    match e {
        QueryEvaluationError::Cancelled => QueryError::Deadline,
        QueryEvaluationError::UnsupportedCustomFunction(f) => {
            QueryError::Unsupported(format!("the function {f} is not known"))
        }
        e @ QueryEvaluationError::UnsupportedCustomFunctionArity { .. } => QueryError::Unsupported(e.to_string()),
        e => QueryError::Evaluation(e.to_string()),
    }
}

/// Cuts an answer into parts.
#[derive(Default)]
struct Chunks {
    done: Vec<QueryReply>,
    chunk_bytes: usize,
    all_bytes: usize,
    bytes_max: usize,
    rows: u64,
}

impl Chunks {
    fn count<T>(&mut self, bytes: usize, rows: &mut Vec<T>, make: fn(Vec<T>) -> QueryReply) -> Result<(), QueryError> {
        self.rows += 1;
        self.chunk_bytes += bytes;
        self.all_bytes += bytes + size_of::<T>();
        if self.all_bytes > self.bytes_max {
            return Err(too_large("its answer", self.bytes_max));
        }
        if self.chunk_bytes >= CHUNK_BYTES {
            self.chunk_bytes = 0;
            self.done.push(make(std::mem::take(rows)));
        }
        Ok(())
    }

    fn end<T>(&mut self, rows: Vec<T>, make: fn(Vec<T>) -> QueryReply) {
        if !rows.is_empty() {
            self.done.push(make(rows));
        }
    }
}

/// About what a term takes in memory and on the wire.
pub(super) fn term_bytes(term: &Term) -> usize {
    size_of::<Option<Term>>()
        + match term {
            Term::Iri(text) | Term::Blank(text) => text.len(),
            Term::Literal { lexical, datatype } => lexical.len() + datatype.len(),
            Term::LangLiteral { lexical, language, .. } => lexical.len() + language.len(),
            Term::Triple(parts) => parts.iter().map(term_bytes).sum(),
        }
}

/// The variables that an answer shows.
fn projected(pattern: &GraphPattern, into: &mut BTreeSet<String>) {
    match pattern {
        GraphPattern::Project { variables, .. } => into.extend(variables.iter().map(|v| v.as_str().to_owned())),
        GraphPattern::Distinct { inner }
        | GraphPattern::Reduced { inner }
        | GraphPattern::Slice { inner, .. }
        | GraphPattern::OrderBy { inner, .. } => projected(inner, into),
        _ => {}
    }
}

fn template_variables(triple: &TriplePattern, into: &mut BTreeSet<String>) {
    if let NamedNodePattern::Variable(v) = &triple.predicate {
        into.insert(v.as_str().to_owned());
    }
    for term in [&triple.subject, &triple.object] {
        match term {
            TermPattern::Variable(v) => {
                into.insert(v.as_str().to_owned());
            }
            TermPattern::Triple(inner) => template_variables(inner, into),
            _ => {}
        }
    }
}

/// DESCRIBE: for each resource that the pattern binds, the facts that it is the subject of, and the
/// same for every blank node that they lead to (a concise bounded description).
async fn describe(
    select: &spargebra::Query,
    source: &dyn Source,
    limits: &Limits,
    env: &Env,
) -> Result<Answer, QueryError> {
    let spargebra::Query::Select { dataset, pattern, base_iri } = select else { unreachable!("made by the caller") };
    let mut variables = BTreeSet::new();
    looked_at(pattern, &mut variables);
    projected(pattern, &mut variables);
    let mut fetch = Fetch::new(source, limits, Dataset::of(dataset.as_ref()), variables);
    fetch.pattern(pattern, &Graphs::Default, Default::default()).await?;
    let mut stats = Stats { requests: fetch.lookups, ..Stats::default() };
    let reads = std::mem::take(&mut fetch.reads);
    let planned = plan(pattern, &fetch.orders, false);
    let planned = spargebra::Query::Select { dataset: dataset.clone(), pattern: planned, base_iri: base_iri.clone() };
    let found = finish(planned, fetch.facts, fetch.wanted, None, source, limits, env, &mut stats).await?;
    stats.rows = 0;
    let mut next = BTreeSet::new();
    for chunk in found.chunks {
        let QueryReply::Rows(rows) = chunk else { continue };
        next.extend(rows.into_iter().flatten().flatten().map(|t| TermId::of(&t)));
    }

    let mut fetch = Fetch::new(source, limits, Dataset::of(dataset.as_ref()), BTreeSet::new());
    fetch.reads = reads;
    let mut described: HashSet<Id> = HashSet::new();
    let mut quads: BTreeSet<Quad> = BTreeSet::new();
    let mut texts = TextsFetched::default();
    let mut index = Facts::new().index();
    while !next.is_empty() {
        let subjects = next.iter().map(|id| fetch.facts.terms.number(*id)).filter(|n| described.insert(*n)).collect();
        let found = fetch.facts_about(subjects).await?;
        next.clear();
        for quad in found.into_iter().filter(|q| !quads.contains(q)).collect::<Vec<_>>() {
            quads.insert(quad);
        }
        // Texts tell which objects are blank nodes.
        let wanted: HashSet<TermId> = quads.iter().flat_map(|q| &q[..3]).map(|n| fetch.facts.terms.id(*n)).collect();
        let wanted = wanted.into_iter().map(|id| index.terms.number(id)).collect();
        texts.fetch(&mut index, wanted, source, limits, &mut stats).await?;
        for quad in &quads {
            let id = fetch.facts.terms.id(quad[2]);
            let object = index.terms.number(id);
            if !described.contains(&quad[2]) && matches!(index.terms.text(object), Some(oxrdf::Term::BlankNode(_))) {
                next.insert(id);
            }
        }
    }
    stats.requests += fetch.lookups;
    stats.facts += quads.len() as u64;
    let mut chunks = Chunks { bytes_max: limits.memory_bytes_max.saturating_sub(texts.bytes), ..Chunks::default() };
    let mut triples = vec![];
    let text = |n: Id, index: &Index| {
        let number = index.terms.find(fetch.facts.terms.id(n))?;
        from_oxrdf(index.terms.text(number)?).ok()
    };
    for quad in &quads {
        let [Some(s), Some(p), Some(o)] = [0, 1, 2].map(|i| text(quad[i], &index)) else {
            return Err(QueryError::Evaluation("the text of a term is known to no view".into()));
        };
        let triple = [s, p, o];
        let bytes = triple.iter().map(term_bytes).sum();
        triples.push(triple);
        chunks.count(bytes, &mut triples, QueryReply::Triples)?;
    }
    chunks.end(triples, QueryReply::Triples);
    stats.rows = chunks.rows;
    Ok(Answer { shape: Shape::Graph, chunks: chunks.done, reads: fetch.reads, stats })
}

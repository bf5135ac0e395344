//! Turns an update into the facts that it deletes and inserts, and the reads that this rests on.
//!
//! Operations are planned in order; each sees what those before it changed, through an overlay on the
//! source. The result is one set of changes, to be written by one transaction: a fact that is deleted
//! and inserted again is only inserted.
//!
//! Blank nodes of an INSERT template are new in every solution, those of INSERT DATA in every update;
//! their labels are drawn here, before the log, so that every view stores the same.
//!
//! Graphs exist while they hold facts: CREATE does nothing, DROP is CLEAR, and neither fails because a
//! graph is or is not there. Both read all that they remove, so a fact that is written to the graph
//! meanwhile makes the transaction conflict, and it is tried again.

use super::Limits;
use super::answer::{Stats, evaluate_rows};
use super::error::QueryError;
use super::fetch::{Dataset, Reads};
use super::overlay::{Changes as Planned, Overlay};
use super::parse::Update;
use super::source::Source;
use crate::rdf::convert::from_oxrdf;
use crate::rdf::read::Quad;
use beam_wire::env::Env;
use beam_wire::fact::{Fact, GraphPattern as In, Pattern};
use beam_wire::{Term, TermId};
use oxrdf::Variable;
use spargebra::GraphUpdateOperation as Operation;
use spargebra::algebra::{GraphPattern, GraphTarget, QueryDataset};
use spargebra::term::{
    GraphName, GraphNamePattern, GroundQuadPattern, GroundTermPattern, NamedNodePattern, QuadPattern, TermPattern,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A triple that a template makes, and its graph.
type Made = ([Term; 3], Option<Term>);

/// What an update comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Facts to delete, before the inserts.
    pub deletes: Vec<Quad>,
    /// Facts to insert.
    pub inserts: Vec<Quad>,
    /// Hashes of the access paths that were looked up, sorted, each once. Empty if none were: then
    /// the update is blind.
    pub reads: Vec<u64>,
    /// What it took.
    pub stats: Stats,
}

impl Update {
    /// Whether planning it asks the source anything. INSERT DATA and DELETE DATA do not.
    pub fn needs_read(&self) -> bool {
        let reads = |operation: &Operation| {
            matches!(operation, Operation::DeleteInsert { .. } | Operation::Clear { .. } | Operation::Drop { .. })
        };
        self.0.operations.iter().any(reads)
    }
}

/// Plans an update at the version that the source shows.
pub async fn plan_update(
    update: &Update,
    source: &dyn Source,
    limits: Limits,
    env: &Env,
) -> Result<Changes, QueryError> {
    let plan = async {
        let mut plan = Plan {
            source,
            limits: &limits,
            env,
            planned: Planned::default(),
            reads: Reads::default(),
            stats: Stats::default(),
        };
        plan.update(update).await?;
        Ok(plan.finish())
    };
    match limits.deadline {
        Some(deadline) => env.timeout_at(deadline, plan).await.unwrap_or(Err(QueryError::Deadline)),
        None => plan.await,
    }
}

struct Plan<'p> {
    source: &'p dyn Source,
    limits: &'p Limits,
    env: &'p Env,
    planned: Planned,
    reads: Reads,
    stats: Stats,
}

impl Plan<'_> {
    async fn update(&mut self, update: &Update) -> Result<(), QueryError> {
        let mut data_blanks = HashMap::new();
        for operation in &update.0.operations {
            match operation {
                Operation::InsertData { data } => {
                    for quad in data {
                        let subject = self.fresh(&quad.subject.clone().into(), &mut data_blanks);
                        let predicate = to_wire(&quad.predicate.clone().into());
                        let object = self.fresh(&quad.object, &mut data_blanks);
                        let fact = self.fact(subject, predicate, object, graph(&quad.graph_name));
                        self.planned.insert(fact);
                    }
                }
                Operation::DeleteData { data } => {
                    for quad in data {
                        let [subject, predicate, object] = [
                            to_wire(&quad.subject.clone().into()),
                            to_wire(&quad.predicate.clone().into()),
                            to_wire(&oxrdf::Term::from(quad.object.clone())),
                        ];
                        let fact = self.fact(subject, predicate, object, graph(&quad.graph_name));
                        self.planned.delete(fact);
                    }
                }
                Operation::DeleteInsert { delete, insert, using, pattern } => {
                    let base_iri = update.0.base_iri.clone();
                    let variables = template_variables(delete, insert);
                    let inner = Box::new((**pattern).clone());
                    let pattern = GraphPattern::Project { inner, variables: variables.clone() };
                    let select = spargebra::Query::Select { dataset: using.clone(), pattern, base_iri };
                    self.delete_insert(&select, using.as_ref(), &variables, delete, insert).await?;
                }
                Operation::Clear { graph, .. } | Operation::Drop { graph, .. } => self.clear(graph).await?,
                // LOAD without SILENT was refused when the update was read.
                Operation::Create { .. } | Operation::Load { .. } => {}
            }
            self.planned.within(self.limits.facts_max)?;
        }
        Ok(())
    }

    async fn delete_insert(
        &mut self,
        select: &spargebra::Query,
        using: Option<&QueryDataset>,
        variables: &[Variable],
        delete: &[GroundQuadPattern],
        insert: &[QuadPattern],
    ) -> Result<(), QueryError> {
        let overlay = Overlay::new(self.source, &self.planned);
        let rows = evaluate_rows(
            select,
            Dataset::of(using),
            &overlay,
            self.limits,
            self.env,
            &mut self.reads,
            &mut self.stats,
        )
        .await?;
        // Every solution's deletes come before any solution's inserts.
        let mut inserts = vec![];
        for row in &rows {
            let row = Row { variables, values: row };
            for quad in delete {
                if let Some(([s, p, o], g)) = row.fill(quad) {
                    let fact = self.fact(s, p, o, g);
                    self.planned.delete(fact);
                }
            }
            let mut blanks = HashMap::new();
            for quad in insert {
                if let Some(([s, p, o], g)) = self.fill(&row, quad, &mut blanks) {
                    inserts.push(self.fact(s, p, o, g));
                }
            }
            self.planned.within(self.limits.facts_max.saturating_sub(inserts.len()))?;
        }
        inserts.into_iter().for_each(|fact| self.planned.insert(fact));
        Ok(())
    }

    async fn clear(&mut self, target: &GraphTarget) -> Result<(), QueryError> {
        let graph = match target {
            GraphTarget::NamedNode(n) => In::Named(TermId::of(&to_wire(&n.clone().into()))),
            GraphTarget::DefaultGraph => In::Default,
            GraphTarget::NamedGraphs => In::AnyNamed,
            GraphTarget::AllGraphs => In::Any,
        };
        let pattern = Pattern { subject: None, predicate: None, object: None, graph };
        self.reads.record(&pattern);
        let overlay = Overlay::new(self.source, &self.planned);
        let found = overlay.lookup(vec![pattern], self.limits.facts_max).await?;
        self.stats.requests += 1;
        self.stats.facts += found.facts.len() as u64;
        if !found.complete {
            return Err(QueryError::TooLarge {
                what: format!("{target} holds more than {} facts", self.limits.facts_max),
                advice: "delete a part at a time, with DELETE WHERE",
            });
        }
        let mut ids: BTreeSet<TermId> = BTreeSet::new();
        for fact in &found.facts {
            ids.extend([fact.subject, fact.predicate, fact.object, fact.graph]);
        }
        ids.remove(&TermId::DEFAULT_GRAPH);
        let unknown: Vec<TermId> = ids.into_iter().filter(|id| id.inline().is_none()).collect();
        let mut texts = vec![];
        for batch in unknown.chunks(super::BATCH_MAX) {
            self.stats.requests += 1;
            texts.extend(overlay.terms(batch.to_vec()).await?);
        }
        for (id, term) in texts {
            self.stats.texts += 1;
            self.planned.terms.insert(id, term);
        }
        found.facts.into_iter().for_each(|fact| self.planned.delete(fact));
        Ok(())
    }

    fn fact(&mut self, subject: Term, predicate: Term, object: Term, graph: Option<Term>) -> Fact {
        let graph = graph.map_or(TermId::DEFAULT_GRAPH, |g| self.planned.id(g));
        let [subject, predicate, object] = [subject, predicate, object].map(|t| self.planned.id(t));
        Fact { subject, predicate, object, graph }
    }

    /// The term, with a label of our own for each blank node.
    fn fresh(&self, term: &oxrdf::Term, blanks: &mut HashMap<String, Term>) -> Term {
        match term {
            oxrdf::Term::BlankNode(n) => self.blank(n.as_str(), blanks),
            oxrdf::Term::Triple(t) => {
                let subject = self.fresh(&t.subject.clone().into(), blanks);
                let object = self.fresh(&t.object, blanks);
                Term::Triple(Box::new([subject, to_wire(&t.predicate.clone().into()), object]))
            }
            term => to_wire(term),
        }
    }

    fn blank(&self, label: &str, blanks: &mut HashMap<String, Term>) -> Term {
        let new = || Term::Blank(format!("b{:032x}", self.env.random_u128()));
        blanks.entry(label.to_owned()).or_insert_with(new).clone()
    }

    /// A fact of an INSERT template; none where a variable is unbound or the term cannot stand there.
    fn fill(&self, row: &Row<'_>, quad: &QuadPattern, blanks: &mut HashMap<String, Term>) -> Option<Made> {
        let subject = self.term(row, &quad.subject, blanks)?;
        let object = self.term(row, &quad.object, blanks)?;
        let predicate = row.predicate(&quad.predicate)?;
        Some(([node(subject)?, predicate, object], row.graph(&quad.graph_name)?))
    }

    fn term(&self, row: &Row<'_>, term: &TermPattern, blanks: &mut HashMap<String, Term>) -> Option<Term> {
        match term {
            TermPattern::NamedNode(n) => Some(to_wire(&n.clone().into())),
            TermPattern::Literal(l) => Some(to_wire(&l.clone().into())),
            TermPattern::BlankNode(n) => Some(self.blank(n.as_str(), blanks)),
            TermPattern::Variable(v) => row.get(v).cloned(),
            TermPattern::Triple(t) => {
                let subject = node(self.term(row, &t.subject, blanks)?)?;
                let object = self.term(row, &t.object, blanks)?;
                Some(Term::Triple(Box::new([subject, row.predicate(&t.predicate)?, object])))
            }
        }
    }

    fn finish(self) -> Changes {
        let terms = &self.planned.terms;
        let text = |id: TermId| terms.get(&id).cloned().or_else(|| id.inline()).expect("every changed term is known");
        let quad = |fact: &Fact| Quad {
            fact: [fact.subject, fact.predicate, fact.object].map(text),
            graph: (fact.graph != TermId::DEFAULT_GRAPH).then(|| text(fact.graph)),
        };
        Changes {
            deletes: self.planned.deletes.iter().map(quad).collect(),
            inserts: self.planned.inserts.iter().map(quad).collect(),
            reads: self.reads.hashes(),
            stats: self.stats,
        }
    }
}

/// One solution of a WHERE.
struct Row<'r> {
    variables: &'r [Variable],
    values: &'r [Option<Term>],
}

impl Row<'_> {
    fn get(&self, variable: &Variable) -> Option<&Term> {
        let i = self.variables.iter().position(|v| v == variable)?;
        self.values.get(i)?.as_ref()
    }

    fn predicate(&self, predicate: &NamedNodePattern) -> Option<Term> {
        match predicate {
            NamedNodePattern::NamedNode(n) => Some(to_wire(&n.clone().into())),
            NamedNodePattern::Variable(v) => self.get(v).filter(|t| matches!(t, Term::Iri(_))).cloned(),
        }
    }

    fn graph(&self, graph: &GraphNamePattern) -> Option<Option<Term>> {
        Some(match graph {
            GraphNamePattern::DefaultGraph => None,
            GraphNamePattern::NamedNode(n) => Some(to_wire(&n.clone().into())),
            GraphNamePattern::Variable(v) => Some(node(self.get(v)?.clone())?),
        })
    }

    /// A fact of a DELETE template; none where a variable is unbound or the term cannot stand there.
    fn fill(&self, quad: &GroundQuadPattern) -> Option<Made> {
        let subject = node(self.term(&quad.subject)?)?;
        Some(([subject, self.predicate(&quad.predicate)?, self.term(&quad.object)?], self.graph(&quad.graph_name)?))
    }

    fn term(&self, term: &GroundTermPattern) -> Option<Term> {
        match term {
            GroundTermPattern::NamedNode(n) => Some(to_wire(&n.clone().into())),
            GroundTermPattern::Literal(l) => Some(to_wire(&l.clone().into())),
            GroundTermPattern::Variable(v) => self.get(v).cloned(),
            GroundTermPattern::Triple(t) => {
                let parts = [node(self.term(&t.subject)?)?, self.predicate(&t.predicate)?, self.term(&t.object)?];
                Some(Term::Triple(Box::new(parts)))
            }
        }
    }
}

/// What may be a subject or a graph.
fn node(term: Term) -> Option<Term> {
    matches!(term, Term::Iri(_) | Term::Blank(_)).then_some(term)
}

/// A term that the update names. How deep those nest was checked before they were parsed.
fn to_wire(term: &oxrdf::Term) -> Term {
    from_oxrdf(term.clone()).expect("brackets nest less deep than terms may")
}

fn graph(graph: &GraphName) -> Option<Term> {
    match graph {
        GraphName::DefaultGraph => None,
        GraphName::NamedNode(n) => Some(to_wire(&n.clone().into())),
    }
}

/// The variables of the templates, each once.
fn template_variables(delete: &[GroundQuadPattern], insert: &[QuadPattern]) -> Vec<Variable> {
    let mut found = BTreeMap::new();
    let mut add = |v: &Variable| drop(found.insert(v.as_str().to_owned(), v.clone()));
    let graph = |g: &GraphNamePattern, add: &mut dyn FnMut(&Variable)| {
        if let GraphNamePattern::Variable(v) = g {
            add(v);
        }
    };
    for quad in delete {
        in_term(&quad.subject.clone().into(), &mut add);
        in_predicate(&quad.predicate, &mut add);
        in_term(&quad.object.clone().into(), &mut add);
        graph(&quad.graph_name, &mut add);
    }
    for quad in insert {
        in_term(&quad.subject, &mut add);
        in_predicate(&quad.predicate, &mut add);
        in_term(&quad.object, &mut add);
        graph(&quad.graph_name, &mut add);
    }
    found.into_values().collect()
}

fn in_predicate(predicate: &NamedNodePattern, add: &mut dyn FnMut(&Variable)) {
    if let NamedNodePattern::Variable(v) = predicate {
        add(v);
    }
}

fn in_term(term: &TermPattern, add: &mut dyn FnMut(&Variable)) {
    match term {
        TermPattern::Variable(v) => add(v),
        TermPattern::Triple(t) => {
            in_term(&t.subject, add);
            in_predicate(&t.predicate, add);
            in_term(&t.object, add);
        }
        _ => {}
    }
}

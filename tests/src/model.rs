//! What a log means, as simply as it can be said: its entries are gone through in order, and after each it is known
//! which facts there are. It shares no code with views; stories compare every answer with it.

use anyhow::{Context, Result, ensure};
use beam_node::remote::log::RemoteLog;
use beam_wire::command::{AccessPath, Command, Genesis, Transact, Verdict};
use beam_wire::env::Env;
use beam_wire::message::log::Entry;
use beam_wire::{Fact, LogIndex, Term, TermId, TransactionId, Version};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// A question that the model can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The objects of a subject and a predicate.
    Objects(Term, Term),
    /// The subjects of a predicate and an object.
    Subjects(Term, Term),
    /// Subjects and objects of a predicate.
    Pairs(Term),
}

impl Asked {
    /// The same as a query, whose rows are the answer.
    pub fn sparql(&self) -> String {
        match self {
            Asked::Objects(s, p) => format!("SELECT ?o {{ {} {} ?o }}", text(s), text(p)),
            Asked::Subjects(p, o) => format!("SELECT ?s {{ ?s {} {} }}", text(p), text(o)),
            Asked::Pairs(p) => format!("SELECT ?s ?o {{ ?s {} ?o }}", text(p)),
        }
    }
}

fn text(term: &Term) -> String {
    match term {
        Term::Iri(iri) => format!("<{iri}>"),
        Term::Literal { lexical, datatype } => format!("\"{lexical}\"^^<{datatype}>"),
        other => panic!("stories ask for no {other:?}"),
    }
}

/// Rows of an answer, in no order.
pub type Rows = BTreeSet<Vec<String>>;

/// Rows as they can be compared.
pub fn rows<'r>(rows: impl IntoIterator<Item = &'r Vec<Option<Term>>>) -> Rows {
    rows.into_iter().map(|row| row.iter().map(|term| term.as_ref().map(text).unwrap_or_default()).collect()).collect()
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Of which version.
    pub version: Version,
    /// To which question.
    pub asked: Asked,
    /// With what.
    pub rows: Rows,
}

/// A log, gone through.
#[derive(Default)]
pub struct Model {
    rules: Option<Genesis>,
    facts: BTreeSet<Fact>,
    terms: HashMap<TermId, Term>,
    slots: Vec<u64>,
    committed: HashMap<TransactionId, u64>,
    /// What became of each entry that has data.
    pub verdicts: BTreeMap<u64, Verdict>,
}

/// Every entry of the log, from the first on.
pub async fn read_log(env: &Env, log: &RemoteLog, patience: Duration) -> Result<Vec<Entry>> {
    let end = log.tail(true, env.now() + patience).await?;
    let mut reader = log.read(None, LogIndex(1), true);
    let mut entries = Vec::new();
    while reader.position() <= end.index {
        let frame = env.timeout(patience, reader.next()).await.context("reading the log")??;
        entries.extend(frame.context("the log ended")?.entries);
    }
    Ok(entries)
}

impl Model {
    /// Goes through a log, and compares each answer with what the facts were at its version.
    pub fn check(log: &[Entry], mut answers: Vec<Answer>) -> Result<Model> {
        answers.sort_by_key(|answer| answer.version.index);
        let mut model = Model::default();
        let mut answers = answers.iter().peekable();
        for (index, entry) in (1..).zip(log) {
            model.go_on(index, entry);
            while let Some(answer) = answers.next_if(|answer| answer.version.index.0 == index) {
                let expected = model.rows(&answer.asked);
                let Answer { version, asked, rows } = answer;
                ensure!(*rows == expected, "{asked:?} at {version} was answered {rows:?}, and it is {expected:?}");
            }
        }
        ensure!(answers.next().is_none(), "an answer is of a version that the log does not have");
        Ok(model)
    }

    /// Where a transaction was committed, if it was.
    pub fn committed(&self, id: &TransactionId) -> Option<LogIndex> {
        self.committed.get(id).copied().map(LogIndex)
    }

    /// What the facts are after all entries.
    pub fn rows(&self, asked: &Asked) -> Rows {
        let id = TermId::of;
        let text = |id: &TermId| text(&id.inline().unwrap_or_else(|| self.terms[id].clone()));
        let of = |fact: &Fact| match asked {
            Asked::Objects(s, p) => {
                (fact.subject == id(s) && fact.predicate == id(p)).then(|| vec![text(&fact.object)])
            }
            Asked::Subjects(p, o) => {
                (fact.predicate == id(p) && fact.object == id(o)).then(|| vec![text(&fact.subject)])
            }
            Asked::Pairs(p) => (fact.predicate == id(p)).then(|| vec![text(&fact.subject), text(&fact.object)]),
        };
        self.facts.iter().filter_map(of).collect()
    }

    /// Goes on by one entry; the facts that it has changed: those that are gone, and those that have come.
    pub fn go_on(&mut self, index: u64, entry: &Entry) -> (BTreeSet<Fact>, BTreeSet<Fact>) {
        let Entry::Data { body, .. } = entry else { return Default::default() };
        match Command::decode(body) {
            Ok(Command::Genesis(genesis)) if self.rules.is_none() => {
                self.slots = vec![0; 1 << genesis.slots_log2];
                self.rules = Some(genesis);
            }
            Ok(Command::Transact(transact)) => {
                let verdict = self.judge(index, &transact);
                self.verdicts.insert(index, verdict);
                if verdict == Verdict::Committed {
                    return self.apply(index, &transact);
                }
            }
            _ => {}
        }
        Default::default()
    }

    fn judge(&self, index: u64, transact: &Transact) -> Verdict {
        let window = self.rules.as_ref().expect("the genesis comes first").window;
        if index - transact.id.born.0 > window {
            return Verdict::Expired;
        }
        if let Some(of) = self.committed.get(&transact.id).filter(|of| index - **of <= window) {
            return Verdict::Duplicate { of: LogIndex(*of) };
        }
        let written = transact.reads.iter().map(|hash| self.slots[*hash as usize % self.slots.len()]);
        match written.max().filter(|with| *with > transact.read_index.0) {
            Some(with) => Verdict::Conflict { with: LogIndex(with) },
            None => Verdict::Committed,
        }
    }

    fn apply(&mut self, index: u64, transact: &Transact) -> (BTreeSet<Fact>, BTreeSet<Fact>) {
        self.committed.insert(transact.id, index);
        let ids = transact.term_ids();
        self.terms.extend(ids.iter().copied().zip(transact.terms.iter().cloned()));
        let before = self.facts.clone();
        for fact in transact.deletes.iter().chain(&transact.inserts) {
            let Fact { subject, predicate, object, graph } = fact.fact(&ids);
            for hash in AccessPath::classes([subject, predicate, object, graph].map(|id| id.point())) {
                let slot = hash as usize % self.slots.len();
                self.slots[slot] = index;
            }
        }
        for fact in &transact.deletes {
            self.facts.remove(&fact.fact(&ids));
        }
        self.facts.extend(transact.inserts.iter().map(|fact| fact.fact(&ids)));
        (before.difference(&self.facts).copied().collect(), self.facts.difference(&before).copied().collect())
    }
}

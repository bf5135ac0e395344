//! What a view must do, as simply as it can be said: every version is a set of facts, and verdicts
//! are found by looking back over the whole log. Tests compare the view with it.

use beam_wire::command::{AccessPath, Begin, Builder, Command, Genesis, Rejection, Verdict};
use beam_wire::fact::{GraphPattern, Pattern};
use beam_wire::message::log::Entry;
use beam_wire::{Epoch, Fact, LogIndex, Name, Origin, Range, Space, Term, TermId, TransactionId, Version};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

pub const SLOTS_LOG2: u8 = 10;

/// A log, and what every version of the database is.
pub struct Model {
    /// The entry at index i is `entries[i - 1]`.
    pub entries: Vec<Entry>,
    pub outcomes: Vec<Option<Verdict>>,
    /// `versions[i]` holds the facts at index i.
    pub versions: Vec<BTreeSet<Fact>>,
    window: Option<u64>,
    epoch: u64,
    committed: BTreeMap<TransactionId, u64>,
    /// Index and slots of all committed writes.
    writes: Vec<(u64, BTreeSet<u64>)>,
}

pub fn cluster() -> Name {
    Name::new("test").unwrap()
}

pub fn entry(body: impl Into<Bytes>) -> Entry {
    Entry::Data { origin: Origin { node: cluster(), boot: 1, sequence: 1 }, body: body.into() }
}

pub fn command(command: Command) -> Entry {
    entry(command.encode())
}

pub fn genesis(window: u64) -> Entry {
    let genesis = Genesis { cluster: cluster(), epoch: Epoch(1), format: 1, slots_log2: SLOTS_LOG2, window };
    command(Command::Genesis(genesis))
}

pub fn begin(epoch: u64, kept: u64) -> Entry {
    command(Command::Begin(Begin { epoch: Epoch(epoch), kept: LogIndex(kept) }))
}

pub fn version(index: u64) -> Version {
    Version { epoch: Epoch(1), index: LogIndex(index) }
}

/// One of a few terms of each kind; some are inline, some are hashed.
pub fn term(kind: char, i: u64) -> Term {
    match (kind, i % 2) {
        ('o', 0) => {
            Term::Literal { lexical: i.to_string(), datatype: "http://www.w3.org/2001/XMLSchema#integer".into() }
        }
        ('o', _) => Term::Literal {
            lexical: format!("an object whose text is too long to be inline {i}"),
            datatype: "http://www.w3.org/2001/XMLSchema#string".into(),
        },
        _ => Term::Iri(format!("http://example.org/{kind}{i}")),
    }
}

type Quad = ([Term; 3], Option<Term>);

/// What a transaction says, besides its facts.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: TransactionId,
    pub read_index: u64,
    pub reads: Vec<u64>,
    pub epoch: u64,
    pub deletes: Vec<Quad>,
    pub inserts: Vec<Quad>,
}

impl Attempt {
    pub fn entry(&self) -> Entry {
        let mut builder = Builder::new();
        for (fact, graph) in &self.deletes {
            builder.delete(fact.clone(), graph.clone()).unwrap();
        }
        for (fact, graph) in &self.inserts {
            builder.insert(fact.clone(), graph.clone()).unwrap();
        }
        let transact = builder.build(Epoch(self.epoch), self.id, LogIndex(self.read_index), self.reads.clone());
        command(Command::Transact(transact))
    }
}

pub fn fact((fact, graph): &Quad) -> Fact {
    let [subject, predicate, object] = fact.each_ref().map(TermId::of);
    Fact { subject, predicate, object, graph: graph.as_ref().map_or(TermId::DEFAULT_GRAPH, TermId::of) }
}

fn slots(fact: &Fact) -> [u64; 8] {
    let points = [fact.subject, fact.predicate, fact.object, fact.graph].map(|id| id.point());
    AccessPath::classes(points).map(slot)
}

fn slot(hash: u64) -> u64 {
    hash % (1 << SLOTS_LOG2)
}

impl Model {
    pub fn new() -> Model {
        Model {
            entries: Vec::new(),
            outcomes: Vec::new(),
            versions: vec![BTreeSet::new()],
            window: None,
            epoch: 1,
            committed: BTreeMap::new(),
            writes: Vec::new(),
        }
    }

    /// A log of `length` entries out of a small world, in which things collide often.
    pub fn random(seed: u64, length: usize) -> Model {
        Model::random_of(seed, length, false)
    }

    /// The same, of a log that was recovered again and again.
    pub fn random_with_epochs(seed: u64, length: usize) -> Model {
        Model::random_of(seed, length, true)
    }

    fn random_of(seed: u64, length: usize, epochs: bool) -> Model {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut model = Model::new();
        let window = chance.random_range(2..12);
        let mut attempts: Vec<Attempt> = Vec::new();
        while model.entries.len() < length {
            let index = model.entries.len() as u64 + 1;
            match chance.random_range(0..20) {
                _ if model.window.is_none() && chance.random_bool(0.5) => model.begin(window),
                0 => model.add(Entry::Skip, None),
                1 => model.add(entry(&b"\x01\0nonsense"[..]), Some(Verdict::Rejected(Rejection::Malformed))),
                2 => model.add(entry(&b"\x09\0\0"[..]), Some(Verdict::Rejected(Rejection::FormatNotInForce))),
                3 if model.window.is_some() => {
                    model.add(genesis(window), Some(Verdict::Rejected(Rejection::SecondGenesis)))
                }
                6 if epochs && model.window.is_some() => {
                    // One in three was not written by the log: it says another place, or an epoch that is over.
                    let (epoch, kept) = match chance.random_range(0..6) {
                        0 => (model.epoch + 1, index),
                        1 => (model.epoch.max(2), index - 1),
                        _ => (model.epoch + chance.random_range(1..5), index - 1),
                    };
                    model.begin_epoch(epoch, kept);
                }
                4 | 5 if !attempts.is_empty() => {
                    let again = attempts[chance.random_range(0..attempts.len())].clone();
                    model.attempt(&again);
                }
                _ => {
                    let near = |chance: &mut StdRng| (index + 1).saturating_sub(chance.random_range(1..14));
                    let mut quads = || {
                        let count = chance.random_range(0..4);
                        (0..count).map(|_| quad(&mut chance)).collect::<Vec<_>>()
                    };
                    let (deletes, inserts) = (quads(), quads());
                    let read = |chance: &mut StdRng| {
                        let fact = fact(&quad(chance));
                        match chance.random_range(0..3) {
                            0 => AccessPath::SubjectPredicate(fact.subject, fact.predicate).hash(),
                            1 => AccessPath::Object(fact.object).hash(),
                            _ => AccessPath::SubjectPredicateObject(fact.subject, fact.predicate, fact.object).hash(),
                        }
                    };
                    let reads: BTreeSet<u64> = (0..chance.random_range(0..3)).map(|_| read(&mut chance)).collect();
                    let attempt = Attempt {
                        id: TransactionId { born: LogIndex(near(&mut chance)), random: chance.random() },
                        read_index: near(&mut chance),
                        reads: reads.into_iter().collect(),
                        epoch: if chance.random_bool(0.1) { chance.random_range(0..12) } else { model.epoch },
                        deletes,
                        inserts,
                    };
                    model.attempt(&attempt);
                    attempts.push(attempt);
                }
            }
        }
        model
    }

    pub fn begin(&mut self, window: u64) {
        self.window = Some(window);
        self.add(genesis(window), Some(Verdict::Committed));
    }

    /// Facts, ids and writes stay as they are: the log has kept them.
    pub fn begin_epoch(&mut self, epoch: u64, kept: u64) {
        let verdict = match self.window {
            None => Verdict::Rejected(Rejection::BeforeGenesis),
            Some(_) if epoch <= self.epoch || kept != self.entries.len() as u64 => {
                Verdict::Rejected(Rejection::WrongEpoch)
            }
            Some(_) => Verdict::Committed,
        };
        if verdict == Verdict::Committed {
            self.epoch = epoch;
        }
        self.add(begin(epoch, kept), Some(verdict));
    }

    /// Adds an entry that changes no facts.
    pub fn add(&mut self, entry: Entry, outcome: Option<Verdict>) {
        self.entries.push(entry);
        self.outcomes.push(outcome);
        self.versions.push(self.versions.last().unwrap().clone());
    }

    pub fn attempt(&mut self, attempt: &Attempt) {
        let verdict = self.verdict(attempt);
        self.add(attempt.entry(), Some(verdict));
        if verdict != Verdict::Committed {
            return;
        }
        let index = self.entries.len() as u64;
        self.committed.insert(attempt.id, index);
        let written = attempt.deletes.iter().chain(&attempt.inserts).flat_map(|quad| slots(&fact(quad))).collect();
        self.writes.push((index, written));
        let facts = self.versions.last_mut().unwrap();
        for quad in &attempt.deletes {
            facts.remove(&fact(quad));
        }
        facts.extend(attempt.inserts.iter().map(fact));
    }

    fn verdict(&self, attempt: &Attempt) -> Verdict {
        let index = self.entries.len() as u64 + 1;
        let Some(window) = self.window else { return Verdict::Rejected(Rejection::BeforeGenesis) };
        let born = attempt.id.born.0;
        if attempt.epoch != self.epoch {
            return Verdict::Rejected(Rejection::WrongEpoch);
        }
        if born >= index {
            return Verdict::Rejected(Rejection::BornAhead);
        }
        if attempt.read_index >= index {
            return Verdict::Rejected(Rejection::ReadAhead);
        }
        if index - born > window {
            return Verdict::Expired;
        }
        if let Some(of) = self.committed.get(&attempt.id).filter(|of| index - **of <= window) {
            return Verdict::Duplicate { of: LogIndex(*of) };
        }
        for read in &attempt.reads {
            let last = self.writes.iter().rev().find(|(_, slots)| slots.contains(&slot(*read)));
            if let Some((with, _)) = last.filter(|(with, _)| *with > attempt.read_index) {
                return Verdict::Conflict { with: LogIndex(*with) };
            }
        }
        Verdict::Committed
    }

    /// What a look-up of one pattern must find.
    pub fn look_up(&self, index: u64, pattern: &Pattern, space: Space, range: &Range) -> BTreeSet<Fact> {
        let facts = self.versions[index as usize].iter();
        facts.filter(|fact| pattern.matches(fact) && range.contains(fact.point(space))).copied().collect()
    }

    /// Where the first entry that is not judged to be before the genesis lies.
    pub fn genesis_at(&self) -> Option<u64> {
        let begins = |entry: &Entry| matches!(entry, Entry::Data { body, .. } if matches!(Command::decode(body), Ok(Command::Genesis(_))));
        self.entries.iter().position(begins).map(|i| i as u64 + 1)
    }
}

pub fn quad(chance: &mut StdRng) -> Quad {
    let mut of = |kind, count| term(kind, chance.random_range(0..count));
    let fact = [of('s', 3), of('p', 2), of('o', 4)];
    let graph = (chance.random_range(0..3) == 0).then(|| term('g', chance.random_range(0..2)));
    (fact, graph)
}

pub fn pattern(chance: &mut StdRng) -> Pattern {
    let quad = fact(&quad(chance));
    let mut some = |id: TermId| chance.random_bool(0.5).then_some(id);
    let (subject, predicate, object) = (some(quad.subject), some(quad.predicate), some(quad.object));
    let graph = match chance.random_range(0..4) {
        0 => GraphPattern::Default,
        1 => GraphPattern::AnyNamed,
        2 => GraphPattern::Named(TermId::of(&term('g', chance.random_range(0..2)))),
        _ => GraphPattern::Any,
    };
    Pattern { subject, predicate, object, graph }
}

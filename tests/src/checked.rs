//! Writers and readers that never stop, and a model that says afterwards whether every answer was right.
//!
//! Each writer changes facts of its own, one change after the other, so whoever knows which changes were
//! acknowledged at which version knows all that the database held at any of them. An answer says of which version
//! it is; when all has been written down, the model goes through the versions once and compares.

use anyhow::{Result, ensure};
use beam_client::{Client, Position, Version};
use beam_wire::env::{Env, Task};
use beam_wire::{LogIndex, Name, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Between two calls of one writer or reader.
const PAUSE: Duration = Duration::from_millis(25);
/// Things of a writer. It says something new of each in turn, so that there is a past.
const THINGS: u64 = 12;
/// So many of a writer's first changes leave something that is never touched again.
const FIRST: u64 = 25;

/// Writers and readers at work.
pub struct Checked {
    env: Env,
    record: Arc<Record>,
    tasks: Vec<Task>,
}

#[derive(Default)]
struct Record {
    stop: AtomicBool,
    written: Mutex<Written>,
    answers: Mutex<Vec<Answer>>,
    /// How many calls each reader has ended.
    read: Mutex<BTreeMap<usize, u64>>,
    failed: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Written {
    changes: BTreeMap<LogIndex, Change>,
    newest: Option<Version>,
    last_at: Option<Instant>,
    gap: Duration,
}

#[derive(Clone, Copy)]
struct Change {
    writer: usize,
    number: u64,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// How far every writer is.
    Counts,
    /// All that a writer has said.
    Things { writer: usize },
    /// What was written at the beginning, and never again: nothing puts it right if it is lost.
    First,
}

struct Answer {
    asked: Asked,
    /// What the answer must at least have seen.
    least: Option<Version>,
    version: Version,
    rows: BTreeSet<Vec<String>>,
    count: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Changes that were acknowledged.
    pub writes: usize,
    /// Answers, all of which were right.
    pub answers: usize,
    /// The longest time between two acknowledgements.
    pub gap: Duration,
}

impl Checked {
    /// Starts a writer and two readers with each client.
    pub fn start(env: &Env, clients: &BTreeMap<Name, Client>) -> Checked {
        let record = Arc::new(Record::default());
        let writers = clients.len();
        let mut tasks = Vec::new();
        for (writer, client) in clients.values().enumerate() {
            let writing = write(env.clone(), record.clone(), client.clone(), writer);
            tasks.push(env.tasks().serve("checked.write", writing));
            for reader in [2 * writer, 2 * writer + 1] {
                record.read.lock().expect("nobody panics with it").insert(reader, 0);
                let reading = read(env.clone(), record.clone(), client.clone(), reader, writers);
                tasks.push(env.tasks().serve("checked.read", reading));
            }
        }
        Checked { env: env.clone(), record, tasks }
    }

    /// The longest time between two acknowledged changes since the last call, the one that runs included.
    pub fn take_gap(&self) -> Duration {
        let mut written = self.record.written();
        let running = written.last_at.map_or(Duration::ZERO, |last| self.env.now() - last);
        written.last_at = Some(self.env.now());
        std::mem::take(&mut written.gap).max(running)
    }

    /// Waits until every reader has ended so many calls more: enough that whoever answers now was asked for all.
    pub async fn go_on(&self, calls: u64) {
        let read = || self.record.read.lock().expect("nobody panics with it").clone();
        let before = read();
        let is_failed = || !self.record.failed.lock().expect("nobody panics with it").is_empty();
        while read().iter().any(|(reader, ended)| ended - before[reader] < calls) && !is_failed() {
            self.env.sleep(PAUSE).await;
        }
    }

    /// Lets every call end; then all that was answered must be right, and nothing may have failed.
    pub async fn stop(self) -> Result<Outcome> {
        self.record.stop.store(true, Relaxed);
        while !self.tasks.iter().all(Task::is_finished) {
            self.env.sleep(PAUSE).await;
        }
        let failed = self.record.failed.lock().expect("nobody panics with it");
        ensure!(failed.is_empty(), "{} calls failed: {failed:?}", failed.len());
        let written = self.record.written();
        let mut answers = self.record.answers.lock().expect("nobody panics with it");
        answers.sort_by_key(|answer| answer.version.index);
        let mut model = Model::default();
        let mut changes = written.changes.iter().peekable();
        for answer in answers.iter() {
            while let Some((_, change)) = changes.next_if(|(index, _)| **index <= answer.version.index) {
                model.change(*change);
            }
            let Answer { asked, least, version, rows, count } = answer;
            ensure!(
                least.is_none_or(|least| version.index >= least.index),
                "{asked:?} was answered at {version}, after {least:?} had been acknowledged"
            );
            let expected = model.rows(*asked);
            ensure!(
                *rows == expected && *count == expected.len(),
                "{asked:?} at {version}: {count} rows\n{rows:?}\nand not {}\n{expected:?}",
                expected.len()
            );
        }
        Ok(Outcome { writes: written.changes.len(), answers: answers.len(), gap: written.gap })
    }
}

impl Record {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().expect("nobody panics with it")
    }

    fn fail(&self, what: String) {
        self.failed.lock().expect("nobody panics with it").push(what);
    }
}

/// All that the writers have written.
#[derive(Default)]
struct Model {
    counts: BTreeMap<usize, u64>,
    things: BTreeMap<(usize, u64), u64>,
}

impl Model {
    fn change(&mut self, Change { writer, number }: Change) {
        self.counts.insert(writer, number);
        self.things.insert((writer, number % THINGS), number);
    }

    fn rows(&self, asked: Asked) -> BTreeSet<Vec<String>> {
        match asked {
            Asked::Counts => self.counts.iter().map(|(w, n)| vec![writer_iri(*w), n.to_string()]).collect(),
            Asked::First => {
                let numbers = self.counts.iter().flat_map(|(w, n)| (1..=FIRST.min(*n)).map(|n| (*w, n)));
                numbers.map(|(w, n)| vec![first_iri(w, n), n.to_string()]).collect()
            }
            Asked::Things { writer } => {
                let mine = self.things.range((writer, 0)..(writer + 1, 0));
                mine.map(|((w, thing), number)| vec![thing_iri(*w, *thing), said(*w, *number)]).collect()
            }
        }
    }
}

fn writer_iri(writer: usize) -> String {
    format!("urn:writer:{writer}")
}

fn thing_iri(writer: usize, thing: u64) -> String {
    format!("urn:thing:{writer}:{thing}")
}

fn first_iri(writer: usize, number: u64) -> String {
    format!("urn:first:{writer}:{number}")
}

fn said(writer: usize, number: u64) -> String {
    format!("a text that is too long to lie in an id, number {number} of {writer}")
}

async fn write(env: Env, record: Arc<Record>, client: Client, writer: usize) {
    let mut number = 0;
    while !record.stop.load(Relaxed) {
        number += 1;
        let (me, thing, text) = (writer_iri(writer), thing_iri(writer, number % THINGS), said(writer, number));
        let first = match number <= FIRST {
            true => format!(" . <{}> <urn:was> {number}", first_iri(writer, number)),
            false => String::new(),
        };
        let update = format!(
            "DELETE {{ <{me}> <urn:count> ?n . <{thing}> <urn:says> ?said }} \
             INSERT {{ <{me}> <urn:count> {number} . <{thing}> <urn:of> <{me}> ; <urn:says> \"{text}\"{first} }} \
             WHERE {{ OPTIONAL {{ <{me}> <urn:count> ?n }} OPTIONAL {{ <{thing}> <urn:says> ?said }} }}"
        );
        match client.update(&update).await {
            Ok(outcome) => {
                let mut written = record.written();
                let now = env.now();
                if let Some(last) = written.last_at {
                    written.gap = written.gap.max(now - last);
                }
                written.last_at = Some(now);
                written.changes.insert(outcome.version.index, Change { writer, number });
                if written.newest.is_none_or(|newest| newest.index < outcome.version.index) {
                    written.newest = Some(outcome.version);
                }
            }
            // Whether it happened is not known: the model would not know what to expect.
            Err(error) => return record.fail(format!("change {number} of writer {writer}: {error}")),
        }
        env.sleep(PAUSE).await;
    }
}

async fn read(env: Env, record: Arc<Record>, client: Client, reader: usize, writers: usize) {
    while !record.stop.load(Relaxed) {
        let newest = record.written().newest;
        let (position, least) = match (env.random_below(4), newest) {
            (0, Some(newest)) => {
                let back = env.random_below(60) as u64;
                let exact = Version { index: LogIndex(newest.index.0.saturating_sub(back).max(1)), ..newest };
                (Position::Exact(exact), None)
            }
            (1, _) => (Position::Recent, None),
            _ => (Position::Latest, newest),
        };
        let asked = match env.random_below(3) {
            0 => Asked::Counts,
            1 => Asked::First,
            _ => Asked::Things { writer: env.random_below(writers) },
        };
        let sparql = match asked {
            Asked::Counts => "SELECT ?w ?n { ?w <urn:count> ?n }".to_owned(),
            Asked::First => "SELECT ?f ?n { ?f <urn:was> ?n }".to_owned(),
            Asked::Things { writer } => {
                format!("SELECT ?t ?says {{ ?t <urn:of> <{}> . ?t <urn:says> ?says }}", writer_iri(writer))
            }
        };
        match client.query_all(&sparql, position).await {
            Ok(found) => {
                let text = |term: &Option<Term>| match term {
                    Some(Term::Iri(text)) | Some(Term::Literal { lexical: text, .. }) => text.clone(),
                    other => format!("{other:?}"),
                };
                let rows = found.rows.iter().map(|row| row.iter().map(text).collect()).collect();
                let (version, count) = (found.version, found.rows.len());
                let answer = Answer { asked, least, version, rows, count };
                record.answers.lock().expect("nobody panics with it").push(answer);
            }
            Err(error) => record.fail(format!("{asked:?} at {position:?}: {error}")),
        }
        *record.read.lock().expect("nobody panics with it").entry(reader).or_default() += 1;
        env.sleep(PAUSE).await;
    }
}

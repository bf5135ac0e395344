//! Everything that a watcher is told: each change of facts, in the order of the log.
//!
//! The log says what was written and in which order, views say what became of each entry, and which of the facts
//! that it touches were there before. All three are asked by index, so it does not matter which log node, which
//! views and which api node answer, nor how the data is cut: from any index on, every watcher is told the same.
//!
//! Entries go in runs: what became of all of them is one question, and which facts were there before the first of
//! them is another; from there on each entry follows from the one before.

use crate::api::ApiRole;
use crate::api::fanout::{Question, Tally};
use crate::query::{BATCH_MAX, Source};
use crate::remote::view::Asking;
use beam_wire::command::{Builder, Command, FactRef, Transact, Verdict};
use beam_wire::env::Env;
use beam_wire::error::Retry;
use beam_wire::fact::{GraphPattern, Pattern};
use beam_wire::message::api::{ApiWatch, FactChange, WatchReply};
use beam_wire::message::log::{Entries, Entry};
use beam_wire::message::view::{VERDICTS_MAX, VerdictsChunk, ViewVerdicts};
use beam_wire::quic::Handle;
use beam_wire::{CallError, Code, Epoch, Fact, LogIndex, Range, Space, Term, TermId, Version};
use futures::stream::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

/// Watchers of one api node. Each reads the log for itself, and asks views for what it finds there.
pub(super) const WATCHERS_MAX: usize = 256;

/// How long one step may take: an answer of views, or finding the place in the log.
const STEP_PATIENCE: Duration = Duration::from_secs(30);

/// A watcher hears something at least so often.
const QUIET: Duration = Duration::from_secs(1);

/// Facts that a run touches, beside those of its last entry: four look-ups, which are asked for at once.
const RUN_FACTS: usize = 4 * BATCH_MAX;
const LOOKUPS_IN_FLIGHT: usize = 4;

/// Changes in one reply, in bytes: well below the limit of a frame.
const REPLY_BYTES: usize = 128 << 10;

impl ApiRole {
    /// Tells changes until the watcher goes away.
    pub(super) async fn watch(&self, call: Handle<ApiWatch>) -> Result<(), CallError> {
        let Ok(_place) = self.watchers.try_acquire() else {
            let message = format!("{WATCHERS_MAX} watch here already");
            return Err(CallError::later(Code::Overloaded, 1000, message));
        };
        let deadline = self.env.now() + STEP_PATIENCE;
        let after = self.current(call.request.after, deadline).await?;
        let after = self.existing(after, deadline).await?;
        let mut reader = self.log.read(Some(after.epoch), after.index.next(), true);
        let mut watcher = Watcher { env: &self.env, call, reached: after, told_at: self.env.now() };
        watcher.tell_reached().await?;
        loop {
            let Some(frame) = watcher.meanwhile(reader.next()).await?.map_err(too_old)? else {
                return Err(CallError::elsewhere(Code::Unavailable, "the log ended a stream that was to follow it"));
            };
            if frame.epoch != after.epoch {
                // What the watcher knows may be called otherwise now, or be lost: that is found out at the beginning.
                let message = format!("an epoch has begun after {}: watch anew from there", watcher.reached);
                return Err(CallError { code: Code::Unavailable, message, retry: Retry::Later { after_ms: 500 } });
            }
            for run in runs(frame) {
                let last = run.end;
                for (version, changes) in watcher.meanwhile(self.changes(after.epoch, run)).await?.map_err(too_old)? {
                    watcher.tell(version, changes).await?;
                }
                // All of it was looked at: whoever begins again needs none of it any more.
                watcher.passed(last).await?;
            }
        }
    }

    /// What each entry of a run has changed; those that changed nothing are left out.
    async fn changes(&self, epoch: Epoch, run: Run) -> Result<Vec<(Version, Vec<FactChange>)>, CallError> {
        let deadline = self.env.now() + STEP_PATIENCE;
        let Some(last) = run.last() else { return Ok(Vec::new()) };
        let at = Version { epoch, index: last };
        let question = Verdicts { after: LogIndex(run.first.0 - 1), at };
        let verdicts = self.fanout.ask(&question, deadline, &Tally::default()).await?.found;
        let committed: HashSet<LogIndex> =
            verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Committed).map(|(index, _)| *index).collect();
        if let Some(index) = run.unread.iter().find(|index| committed.contains(index)) {
            let message = format!("entry {index} is in a format that this node does not read: install a newer beam");
            return Err(CallError::elsewhere(Code::Unsupported, message));
        }
        let written: Vec<Written> = run.written.into_iter().filter(|w| committed.contains(&w.index)).collect();
        let Some(first) = written.first() else { return Ok(Vec::new()) };
        let before = Version { epoch, index: LogIndex(first.index.0 - 1) };
        let mut live = self.live(&written, before, deadline).await?;
        let changes = written.iter().map(|w| (Version { epoch, index: w.index }, w.changes(&mut live)));
        Ok(changes.filter(|(_, changes)| !changes.is_empty()).collect())
    }

    /// Those of the touched facts that were there at a version.
    async fn live(&self, written: &[Written], at: Version, deadline: Instant) -> Result<HashSet<Fact>, CallError> {
        let mut touched: Vec<Fact> = written.iter().flat_map(|w| w.facts().map(|(fact, _)| fact)).collect();
        touched.sort_unstable();
        touched.dedup();
        let source = self.source(at, deadline);
        let lookups: Vec<Vec<Pattern>> =
            touched.chunks(BATCH_MAX).map(|facts| facts.iter().map(only).collect()).collect();
        let found = futures::stream::iter(lookups)
            .map(|patterns| source.lookup(patterns, usize::MAX))
            .buffered(LOOKUPS_IN_FLIGHT)
            .try_fold(HashSet::new(), async |mut live, found| {
                live.extend(found.facts);
                Ok(live)
            });
        found.await
    }
}

/// Who watches, and what it has been told.
struct Watcher<'a> {
    env: &'a Env,
    call: Handle<ApiWatch>,
    /// All that was changed up to here was told.
    reached: Version,
    told_at: Instant,
}

impl Watcher<'_> {
    /// Waits for what is done for it, and does not leave it in silence meanwhile: whoever hears nothing takes us for dead,
    /// goes elsewhere and begins again, without end if the next step always takes so long.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, CallError> {
        let mut work = pin!(work);
        loop {
            match self.env.timeout_at(self.told_at + QUIET, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) => self.tell_reached().await?,
            }
        }
    }

    /// Nothing more is to be told up to here. That is said now and then also when there is always something to do.
    async fn passed(&mut self, index: LogIndex) -> Result<(), CallError> {
        self.reached.index = self.reached.index.max(index);
        if self.env.now() < self.told_at + QUIET { Ok(()) } else { self.tell_reached().await }
    }

    async fn tell_reached(&mut self) -> Result<(), CallError> {
        self.call.reply(&WatchReply::Reached(self.reached)).await?;
        self.told_at = self.env.now();
        Ok(())
    }

    /// Sends what one version has changed, in as many replies as it takes.
    async fn tell(&mut self, version: Version, changes: Vec<FactChange>) -> Result<(), CallError> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        for change in changes {
            let more = Builder::bytes_of(&change.fact, change.graph.as_ref());
            if bytes + more > REPLY_BYTES && !part.is_empty() {
                let changes = std::mem::take(&mut part);
                self.call.reply(&WatchReply::Changes { version, last: false, changes }).await?;
                bytes = 0;
            }
            bytes += more;
            part.push(change);
        }
        self.call.reply(&WatchReply::Changes { version, last: true, changes: part }).await?;
        (self.reached, self.told_at) = (version, self.env.now());
        Ok(())
    }
}

/// The pattern that matches a fact and nothing else.
fn only(fact: &Fact) -> Pattern {
    let graph = match fact.graph {
        TermId::DEFAULT_GRAPH => GraphPattern::Default,
        graph => GraphPattern::Named(graph),
    };
    Pattern { subject: Some(fact.subject), predicate: Some(fact.predicate), object: Some(fact.object), graph }
}

/// What the log has let go of, or what became of which views have forgotten, cannot be watched any more.
fn too_old(error: CallError) -> CallError {
    match error.code {
        Code::Discarded | Code::OutcomeUnknown => {
            let message =
                format!("changes as old as these are not kept: read the newest version, and watch from it ({error})");
            CallError::never(Code::TooOld, message)
        }
        _ => error,
    }
}

/// Entries that are looked at together.
#[derive(Debug)]
struct Run {
    /// The index of the first entry, whatever it is, and of the last.
    first: LogIndex,
    end: LogIndex,
    written: Vec<Written>,
    /// Entries that are no command that we know. Most are refused by every view; whether one is not, views say.
    unread: Vec<LogIndex>,
    facts: usize,
}

/// A transaction of the log.
#[derive(Debug)]
struct Written {
    index: LogIndex,
    transact: Transact,
    ids: Vec<TermId>,
}

impl Run {
    fn from(first: LogIndex) -> Run {
        Run { first, end: first, written: Vec::new(), unread: Vec::new(), facts: 0 }
    }

    /// The last entry that has to be judged.
    fn last(&self) -> Option<LogIndex> {
        self.written.last().map(|w| w.index).into_iter().chain(self.unread.last().copied()).max()
    }
}

/// Cuts entries into runs.
fn runs(frame: Entries) -> Vec<Run> {
    let mut runs = vec![Run::from(frame.first)];
    for (index, entry) in (frame.first.0..).map(LogIndex).zip(frame.entries) {
        let run = runs.last_mut().expect("there is one");
        let run = if run.facts > RUN_FACTS || index.0 - run.first.0 >= VERDICTS_MAX {
            runs.push(Run::from(index));
            runs.last_mut().expect("there is one")
        } else {
            run
        };
        run.end = index;
        let Entry::Data { body, .. } = entry else { continue };
        match Command::decode_with_ids(&body) {
            Ok((Command::Transact(transact), ids)) => {
                run.facts += transact.deletes.len() + transact.inserts.len();
                run.written.push(Written { index, transact, ids });
            }
            Ok(_) => {}
            Err(_) => run.unread.push(index),
        }
    }
    runs
}

impl Written {
    /// Every fact that it deletes or inserts, and how it is written.
    fn facts(&self) -> impl Iterator<Item = (Fact, FactRef)> {
        let Transact { deletes, inserts, .. } = &self.transact;
        deletes.iter().chain(inserts).map(|written| (written.fact(&self.ids), *written))
    }

    /// What it changes where these facts are there; afterwards they are as it leaves them.
    fn changes(&self, live: &mut HashSet<Fact>) -> Vec<FactChange> {
        let inserts: HashSet<Fact> = self.transact.inserts.iter().map(|f| f.fact(&self.ids)).collect();
        let touched: BTreeMap<Fact, FactRef> = self.facts().collect();
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for (fact, written) in touched {
            // Deletes come before inserts, so whatever is inserted is there in the end, and all else is not.
            match (live.contains(&fact), inserts.contains(&fact)) {
                (false, true) => {
                    live.insert(fact);
                    come.push(self.change(true, written));
                }
                (true, false) => {
                    live.remove(&fact);
                    gone.push(self.change(false, written));
                }
                (true, true) | (false, false) => {}
            }
        }
        gone.append(&mut come);
        gone
    }

    fn change(&self, inserted: bool, written: FactRef) -> FactChange {
        let term = |number: u32| -> Term { self.transact.terms[number as usize].clone() };
        let fact = [written.subject, written.predicate, written.object].map(term);
        FactChange { inserted, fact, graph: written.graph.map(term) }
    }
}

/// What became of a run of entries? Any view can say.
struct Verdicts {
    after: LogIndex,
    at: Version,
}

impl Question for Verdicts {
    type Call = ViewVerdicts;
    type Found = (LogIndex, Verdict);

    fn asking(&self) -> Asking {
        Asking::Verdict
    }

    fn at(&self) -> Version {
        self.at
    }

    fn space(&self) -> Option<Space> {
        None
    }

    fn wanted(&self) -> &[Range] {
        &[Range::ALL]
    }

    fn request(&self, _: Range) -> ViewVerdicts {
        ViewVerdicts { after: self.after, at: self.at }
    }

    fn take(&self, _: &ViewVerdicts, reply: VerdictsChunk) -> Result<Vec<(LogIndex, Verdict)>, CallError> {
        Ok(reply.verdicts)
    }
}

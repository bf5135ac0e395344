//! How a view without data begins: it copies what it is to hold from views that hold it, as it was at one
//! version, and then follows the log from there.
//!
//! First it takes a verdict checkpoint, then facts and texts, cut to its own range, from several views at
//! once: those of its own datacenter before others, whatever their cuts. What it has got is noted with the
//! data, so that it goes on where it was when it is killed, and asks another view for the rest when one
//! dies. Counts and sums are made from what is there in the end, when it is opened. A backup begins in the same way ([`Keep`]).

use super::checkpoint;
use super::intervals::Intervals;
use super::keys::{Order, read_live};
use super::store::{Progress, StorageError, Store, orders};
use super::verdict::Rules;
use crate::remote::view::{Asking, View, Views};
use beam_wire::env::Env;
use beam_wire::message::view::{CheckpointChunk, CopyChunk, Served, ViewCheckpoint, ViewCopy};
use beam_wire::{CallError, Code, Fact, LogIndex, Name, Range, Space, Term, TermId, Version, codec};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Records that are written as one: sorted by each order, some 10 MB. Fewer make more tables to merge later.
const RECORDS_MAX: usize = if cfg!(test) { 12 } else { 128 << 10 };
/// And what their keys and texts weigh.
const BYTES_MAX: usize = 16 << 20;
/// A source that sends nothing for so long is asked no further.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Between two looks for somebody to copy from.
const PAUSE: Duration = Duration::from_millis(250);
/// Pieces of a checkpoint that are written as one.
const CHECKPOINT_BYTES: usize = 4 << 20;

/// Where a copy is kept: a view's store, or a backup.
pub trait Keep: Clone + Send + Sync + 'static {
    /// Its disk failed.
    type Error: std::error::Error + Send + 'static;

    /// The copy that was begun and not finished, if there is one.
    fn unfinished(&self) -> Result<Option<Unfinished>, Self::Error>;

    /// Notes how far a copy is, durably and after what was put.
    fn note_unfinished(&self, noted: &Unfinished) -> Result<(), Self::Error>;

    /// Forgets a verdict checkpoint, whole or not.
    fn forget_checkpoint(&self) -> Result<(), Self::Error>;

    /// Adds pieces of a verdict checkpoint.
    fn put_checkpoint(&self, pieces: &[(Bytes, Bytes)]) -> Result<(), Self::Error>;

    /// Adds versions of facts of a space, or texts. Some may be there already.
    fn put(&self, space: Space, facts: &[FactVersion], terms: Vec<(TermId, Bytes)>) -> Result<(), Self::Error>;

    /// All is here, as it was at `at`; of what was deleted at or before `oldest`, versions may be missing.
    fn conclude(&self, at: Version, oldest: LogIndex) -> Result<(), Self::Error>;
}

/// A fact, the index that inserted it, and the one that deleted it.
pub type FactVersion = (Fact, LogIndex, Option<LogIndex>);

impl Keep for Store {
    type Error = StorageError;

    fn unfinished(&self) -> Result<Option<Unfinished>, StorageError> {
        Store::unfinished(self)
    }

    fn note_unfinished(&self, noted: &Unfinished) -> Result<(), StorageError> {
        Store::note_unfinished(self, noted)
    }

    fn forget_checkpoint(&self) -> Result<(), StorageError> {
        Store::forget_checkpoint(self)
    }

    fn put_checkpoint(&self, pieces: &[(Bytes, Bytes)]) -> Result<(), StorageError> {
        Store::put_checkpoint(self, pieces)
    }

    fn put(&self, space: Space, facts: &[FactVersion], terms: Vec<(TermId, Bytes)>) -> Result<(), StorageError> {
        for order in orders(space) {
            self.ingest_facts(*order, facts)?;
        }
        self.ingest_terms(terms)
    }

    /// Says durably that it is whole. Whoever opens it then counts and sums what there is.
    fn conclude(&self, at: Version, oldest: LogIndex) -> Result<(), StorageError> {
        // The checkpoint may be older than the epoch that the facts are of.
        let rules =
            checkpoint::load(&self.snapshot())?.0.rules().map(|rules| Rules { epoch: at.epoch, ..rules.clone() });
        Store::conclude(self, &Progress { applied: at.index, oldest, facts: 0, rules })
    }
}

/// Why a copy cannot be finished.
#[derive(Debug, thiserror::Error)]
pub enum BootError<E> {
    /// The disk failed that the copy is kept on.
    #[error(transparent)]
    Storage(#[from] E),
    /// It took longer than the views' history, or the cluster was recovered meanwhile: the copy must begin
    /// again, with nothing.
    #[error("no view can read version {at} any more, of which a copy was being made: it begins anew")]
    TooOld {
        /// The version.
        at: Version,
    },
}

/// What is noted of a copy under way, with the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// The version that is copied.
    pub at: Version,
    /// Of what was deleted at or before this index, versions may be missing.
    pub oldest: LogIndex,
    /// What is copied from one view at a time.
    pub units: Vec<Unit>,
}

/// A range, and what is missing of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The range.
    pub served: Served,
    /// The keys that are not here yet.
    pub missing: Intervals,
}

/// A copy under way.
pub struct Boot<V, K> {
    env: Env,
    me: Name,
    views: V,
    store: K,
    /// Told of records as they are kept.
    tell: Box<dyn Fn(u64) + Send + Sync>,
    noted: Mutex<Unfinished>,
    /// How many units each view copies for us now.
    busy: Mutex<BTreeMap<Name, u32>>,
}

impl<V: Views, K: Keep> Boot<V, K> {
    /// Goes on with the copy that the store has noted, or begins one: waits until there are views to copy
    /// from.
    pub async fn begin(env: Env, me: Name, views: V, store: K, serves: &[Served]) -> Result<Self, BootError<K::Error>> {
        let noted = match store.unfinished().map_err(BootError::Storage)? {
            Some(noted) => noted,
            None => begin(&env, &views, &store, serves).await?,
        };
        tracing::info!("copying version {} from other views", noted.at);
        let (noted, busy) = (Mutex::new(noted), Mutex::default());
        Ok(Boot { env, me, views, store, tell: Box::new(drop), noted, busy })
    }

    /// Tells of so many versions of facts and texts, each time that some are kept.
    pub fn telling(self, tell: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Boot { tell: Box::new(tell), ..self }
    }

    /// Copies all that is missing. When this returns, the store is as if it had applied the log.
    pub async fn finish(self) -> Result<LogIndex, BootError<K::Error>> {
        let count = self.noted().units.len();
        try_join_all((0..count).map(|unit| self.copy(unit))).await?;
        let Unfinished { at, oldest, .. } = self.noted().clone();
        let store = self.store.clone();
        self.env.blocking(move || store.conclude(at, oldest)).await.map_err(BootError::Storage)?;
        Ok(at.index)
    }

    /// Copies one unit, from one view after the other until nothing is missing.
    async fn copy(&self, unit: usize) -> Result<(), BootError<K::Error>> {
        let mut failed: Option<Name> = None;
        loop {
            let (at, Unit { served, missing }) = {
                let noted = self.noted();
                (noted.at, noted.units[unit].clone())
            };
            if missing.is_empty() {
                return Ok(());
            }
            let Some(source) = self.source(at, served, failed.as_ref())? else {
                // Perhaps the one that failed is the only one: it is asked again after the pause.
                failed = None;
                let _ = self.env.timeout(PAUSE, self.views.changed()).await;
                continue;
            };
            let busy = Busy::with(&self.busy, &source.node);
            let copied = self.copy_from(&source, unit, at, served, &missing).await?;
            drop(busy);
            let came_to_nothing = self.noted().units[unit].missing == missing;
            if let Err(why) = &copied {
                tracing::info!("copying {} {} from {}: {why}", served.space, served.range, source.node);
            }
            if copied.is_err() || came_to_nothing {
                failed = Some(source.node.clone());
            }
            if came_to_nothing {
                self.env.sleep(PAUSE).await;
            }
        }
    }

    /// Copies what one view sends. The inner error is the view's.
    async fn copy_from(
        &self,
        source: &View,
        unit: usize,
        at: Version,
        served: Served,
        missing: &Intervals,
    ) -> Result<Result<(), CallError>, BootError<K::Error>> {
        let wanted = missing.as_slice().iter().take(beam_wire::message::view::INTERVALS_MAX).cloned().collect();
        let request = ViewCopy { at, space: served.space, range: served.range, wanted };
        let forever = self.env.now() + Duration::from_secs(86_400);
        let mut chunks = self.views.call(source, Asking::Copy, request, forever);
        let mut gathered = Gathered::default();
        loop {
            let chunk = match self.env.timeout(SILENCE_MAX, chunks.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) => return self.keep(unit, served, gathered).await.map(Ok),
                ended => {
                    self.keep(unit, served, gathered).await?;
                    let silent = || CallError::elsewhere(Code::Deadline, "it fell silent");
                    return Ok(Err(ended.ok().flatten().and_then(Result::err).unwrap_or_else(silent)));
                }
            };
            if let Err(why) = gathered.add(chunk, at.index, served) {
                return Ok(Err(why));
            }
            if gathered.is_enough() {
                self.keep(unit, served, std::mem::take(&mut gathered)).await?;
            }
        }
    }

    /// Writes what was gathered, then notes what is not missing any more.
    async fn keep(&self, unit: usize, served: Served, gathered: Gathered) -> Result<(), BootError<K::Error>> {
        let Gathered { facts, terms, done, oldest, .. } = gathered;
        let (store, records) = (self.store.clone(), facts.len() + terms.len());
        let written = self.env.blocking(move || store.put(served.space, &facts, terms)).await;
        written.map_err(BootError::Storage)?;
        (self.tell)(records as u64);
        let noted = {
            let mut noted = self.noted();
            noted.oldest = noted.oldest.max(oldest);
            done.iter().for_each(|interval| noted.units[unit].missing.remove(interval));
            noted.clone()
        };
        let store = self.store.clone();
        self.env.blocking(move || store.note_unfinished(&noted)).await.map_err(BootError::Storage)
    }

    /// Whom to ask for a unit: of those that hold it, another view of this node before others, then those of our own
    /// datacenter, the least busy first. Nobody, while none is there.
    fn source(&self, at: Version, served: Served, failed: Option<&Name>) -> Result<Option<View>, BootError<K::Error>> {
        let mut holders = sources(&self.views);
        holders.retain(|view| holds(view, served));
        let can_read = |view: &View| view.status.epoch == Some(at.epoch) && view.status.oldest <= at.index;
        if !holders.is_empty() && !holders.iter().any(can_read) {
            return Err(BootError::TooOld { at });
        }
        let busy = self.busy.lock().expect("nothing panics while it holds this");
        let rank = |view: &View| {
            let waiting = busy.get(&view.node).copied().unwrap_or_default();
            (view.node != self.me, !view.home, waiting, view.node.clone())
        };
        Ok(holders.into_iter().filter(|view| can_read(view) && Some(&view.node) != failed).min_by_key(rank))
    }

    fn noted(&self) -> MutexGuard<'_, Unfinished> {
        self.noted.lock().expect("nothing panics while it holds this")
    }
}

/// Views that others may copy from. The one that copies boots itself, and so is none of them.
fn sources(views: &impl Views) -> Vec<View> {
    let able = |view: &View| view.status.state.answers() && view.status.checkpoint > LogIndex(0);
    views.table().iter().filter(|view| able(view)).cloned().collect()
}

/// Whether there is a view with more than so many entries: then copying is quicker than reading them.
pub fn is_worth_it(views: &impl Views, entries: u64) -> bool {
    sources(views).iter().any(|view| view.status.applied.0 > entries)
}

/// Whether others hold all of these ranges.
pub fn all_is_held(views: &impl Views, serves: &[Served]) -> bool {
    are_held(&sources(views), serves)
}

fn are_held(sources: &[View], serves: &[Served]) -> bool {
    serves.iter().all(|served| pieces(*served, sources).is_some())
}

fn holds(view: &View, served: Served) -> bool {
    let mine = view.status.serves.iter().filter(|s| s.space == served.space);
    mine.into_iter().any(|s| s.range.intersect(&served.range) == Some(served.range))
}

/// Takes a checkpoint, and notes what is to be copied.
async fn begin<K: Keep>(
    env: &Env,
    views: &impl Views,
    store: &K,
    serves: &[Served],
) -> Result<Unfinished, BootError<K::Error>> {
    let (mut told, mut failed) = (env.now(), None);
    loop {
        let table = sources(views);
        let rank =
            |view: &&View| (Some(&view.node) != failed.as_ref(), view.home, view.status.checkpoint, view.node.clone());
        let donor = table.iter().max_by_key(rank);
        let complete = are_held(&table, serves);
        if let Some(donor) = donor.filter(|_| complete) {
            match take_checkpoint(env, views, donor, store).await.map_err(BootError::Storage)? {
                Ok(at) => {
                    // As late as can be: the copy must be done before that is history. An epoch may have begun since the
                    // checkpoint, and views answer in the newest.
                    let now = donor.status.epoch.map(|epoch| Version { epoch, index: donor.status.applied });
                    let at = now.filter(|now| now.index >= at.index).unwrap_or(at);
                    let ranges = serves.iter().filter_map(|served| pieces(*served, &table)).flatten();
                    let units = ranges.map(|served| Unit { served, missing: Intervals::all() }).collect();
                    let noted = Unfinished { at, oldest: LogIndex(0), units };
                    store.note_unfinished(&noted).map_err(BootError::Storage)?;
                    return Ok(noted);
                }
                Err(why) => {
                    tracing::info!("taking a verdict checkpoint from {}: {why}", donor.node);
                    failed = Some(donor.node.clone());
                    env.sleep(PAUSE).await;
                    continue;
                }
            }
        }
        if env.now() >= told {
            tracing::info!("waiting for views to copy from: {} are there, all ranges held: {complete}", table.len());
            told = env.now() + Duration::from_secs(10);
        }
        let _ = env.timeout(PAUSE, views.changed()).await;
    }
}

/// A range, cut so that each piece is held whole by some view; none if some of it is held by none.
fn pieces(served: Served, sources: &[View]) -> Option<Vec<Served>> {
    let space = served.space;
    let held = || sources.iter().flat_map(|view| &view.status.serves).filter(move |s| s.space == space);
    let mut pieces = Vec::new();
    let mut first = served.range.first;
    loop {
        let reach = held().filter(|s| s.range.contains(first)).map(|s| s.range.last).max()?;
        let last = reach.min(served.range.last);
        pieces.push(Served { space: served.space, range: Range { first, last } });
        if last == served.range.last {
            return Some(pieces);
        }
        first = beam_wire::Point(last.0 + 1);
    }
}

/// Copies a view's verdict checkpoint. Returns its version; the inner error is the view's.
async fn take_checkpoint<K: Keep>(
    env: &Env,
    views: &impl Views,
    donor: &View,
    store: &K,
) -> Result<Result<Version, CallError>, K::Error> {
    let clean = store.clone();
    env.blocking(move || clean.forget_checkpoint()).await?;
    let request = ViewCheckpoint { epoch: donor.status.epoch };
    let mut chunks = views.call(donor, Asking::Copy, request, env.now() + Duration::from_secs(3600));
    let (mut at, mut pieces, mut bytes) = (None, Vec::new(), 0);
    loop {
        let chunk = match env.timeout(SILENCE_MAX, chunks.next()).await {
            Ok(Some(Ok(chunk))) => Some(chunk),
            Ok(None) => None,
            Ok(Some(Err(why))) => return Ok(Err(why)),
            Err(_) => return Ok(Err(CallError::elsewhere(Code::Deadline, "it fell silent"))),
        };
        let ends = chunk.is_none();
        if let Some(CheckpointChunk { at: of, pieces: more }) = chunk {
            if at.is_some_and(|at| at != of) {
                return Ok(Err(CallError::elsewhere(Code::Internal, "it sent two checkpoints as one")));
            }
            at = Some(of);
            bytes += more.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            pieces.extend(more);
        }
        if bytes >= CHECKPOINT_BYTES || ends {
            let (store, pieces) = (store.clone(), std::mem::take(&mut pieces));
            bytes = 0;
            env.blocking(move || store.put_checkpoint(&pieces)).await?;
        }
        if ends {
            let nothing = || CallError::elsewhere(Code::Internal, "it has no checkpoint");
            return Ok(at.ok_or_else(nothing));
        }
    }
}

/// What has come and is not written yet.
#[derive(Default)]
struct Gathered {
    facts: Vec<FactVersion>,
    terms: Vec<(TermId, Bytes)>,
    bytes: usize,
    done: Vec<beam_wire::message::view::KeyInterval>,
    oldest: LogIndex,
}

impl Gathered {
    /// Takes a chunk in, if it is what was asked for.
    fn add(&mut self, chunk: CopyChunk, at: LogIndex, served: Served) -> Result<(), CallError> {
        let wrong = |what: &str| Err(CallError::elsewhere(Code::Internal, format!("it sent {what}")));
        let mut key: Vec<u8> = Vec::new();
        for copied in chunk.facts {
            let shared = usize::from(copied.shared);
            if shared > key.len() {
                return wrong("a key that goes on from nothing");
            }
            key.truncate(shared);
            key.extend_from_slice(&copied.rest);
            let order = match served.space {
                Space::Subject => Order::Spog,
                Space::Object => Order::Opsg,
                Space::Term => return wrong("facts for texts"),
            };
            let Ok(fact) = read_live(order, &key) else { return wrong("what is no key") };
            if !served.range.contains(fact.point(served.space)) {
                return wrong("facts of other points");
            }
            if copied.inserted > at || copied.deleted.is_some_and(|deleted| deleted > at) {
                return wrong("what came later");
            }
            self.bytes += key.len();
            self.facts.push((fact, copied.inserted, copied.deleted));
        }
        for term in chunk.terms {
            if served.space != Space::Term || !served.range.contains(term.id.point()) {
                return wrong("texts of other points");
            }
            match codec::decode::<Term>(&term.text) {
                Ok(text) if TermId::of(&text) == term.id => {}
                Ok(_) => return wrong("a text of another id"),
                Err(_) => return wrong("what is no text"),
            }
            self.bytes += term.text.len();
            self.terms.push((term.id, term.text));
        }
        self.done.extend(chunk.done);
        self.oldest = self.oldest.max(chunk.oldest);
        Ok(())
    }

    fn is_enough(&self) -> bool {
        self.facts.len() + self.terms.len() >= RECORDS_MAX || self.bytes >= BYTES_MAX
    }
}

/// Counts a unit that a view copies for us, until it is dropped.
struct Busy<'a> {
    busy: &'a Mutex<BTreeMap<Name, u32>>,
    node: Name,
}

impl<'a> Busy<'a> {
    fn with(busy: &'a Mutex<BTreeMap<Name, u32>>, node: &Name) -> Busy<'a> {
        *busy.lock().expect("nothing panics while it holds this").entry(node.clone()).or_default() += 1;
        Busy { busy, node: node.clone() }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.busy.lock().expect("nothing panics while it holds this").get_mut(&self.node) {
            *count -= 1;
        }
    }
}

#[cfg(test)]
mod tests;

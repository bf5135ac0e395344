//! Answers peers: reads a request, has it done, writes the replies. Nothing else.

use super::apply::{Held, Shared};
use super::carousel::Carousel;
use super::checkpoint;
use super::copy::Wanted;
use super::follow::FollowError;
use super::intervals::Intervals;
use super::lookup::{At, Lookup, LookupError, Request};
use super::outcomes::Outcome;
use super::status::{Board, WATCH_EVERY, WATCH_PAUSE};
use super::store::{Scan, StorageError, Store};
use super::terms::TermLookup;
use beam_wire::env::Env;
use beam_wire::fact::Pattern;
use beam_wire::message::Kind;
use beam_wire::message::view::ViewRules;
use beam_wire::message::view::{
    CheckpointChunk, Counts, INTERVALS_MAX, KEYS_MAX, LookupChunk, TermsChunk, ViewCheckpoint, ViewCopy, ViewCount,
    ViewLookup, ViewStatus, ViewTerms, ViewVerdict,
};
use beam_wire::quic::{Handle, Incoming};
use beam_wire::{CallError, Code, Range, Space, Version};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What the answers are made from. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// The node's clock and threads.
    pub env: Env,
    /// The view's disk.
    pub store: Store,
    /// What the applier shares.
    pub shared: Arc<Shared>,
    /// How the view is.
    pub board: Arc<Board>,
    /// What it holds.
    pub held: Arc<Held>,
    /// Slices that may be read at the same time.
    pub slices: Arc<Semaphore>,
    /// What others copy from.
    pub carousel: Carousel,
}

/// Slices read at the same time, on a thread each. More would not be quicker on any disk or machine
/// that we know, and calls take turns slice by slice, so that a scan does not keep keys waiting.
pub const SLICES_MAX: usize = 16;

impl Desk {
    /// Answers one call of a kind that belongs to views.
    pub async fn serve(self, call: Incoming) -> Result<(), CallError> {
        let board = self.board.clone();
        match call.kind {
            Kind::ViewStatus => status(self.env, self.board, call.open()?).await,
            Kind::ViewRules => {
                let mut call: Handle<ViewRules> = call.open()?;
                call.reply(&board.rules()).await
            }
            Kind::ViewCopy => self.copy(call.open()?).await,
            Kind::ViewCheckpoint => self.checkpoint(call.open()?).await,
            Kind::ViewLookup => {
                let _counted = board.enter();
                self.lookup(call.open()?).await
            }
            Kind::ViewTerms => {
                let _counted = board.enter();
                self.terms(call.open()?).await
            }
            Kind::ViewVerdict => {
                let _counted = board.enter();
                self.verdict(call.open()?).await
            }
            Kind::ViewCount => {
                let _counted = board.enter();
                self.count(call.open()?).await
            }
            other => Err(CallError::never(Code::UnknownKind, format!("a view does not answer {other:?}"))),
        }
    }

    /// Reads something on a thread that may block.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> T {
        let _turn = self.slices.acquire().await.expect("it is never closed");
        self.env.blocking(read).await
    }

    async fn lookup(self, mut call: Handle<ViewLookup>) -> Result<(), CallError> {
        let ViewLookup { at, space, range, patterns } = call.request.clone();
        self.check(space, &range, patterns.len())?;
        self.check_epoch(at)?;
        self.board.applied(&self.env, at.index, call.deadline).await?;
        let mut lookup = self.open(At::Exact(at), space, range, patterns, u64::MAX).await?;
        loop {
            let slice = lookup.next(&self).await?;
            if !slice.facts.is_empty() {
                call.reply(&LookupChunk { facts: slice.facts }).await?;
            }
            if slice.done {
                return Ok(());
            }
        }
    }

    async fn count(self, mut call: Handle<ViewCount>) -> Result<(), CallError> {
        let ViewCount { at, space, range, patterns, limit } = call.request.clone();
        self.check(space, &range, patterns.len())?;
        self.check_epoch(at)?;
        self.board.applied(&self.env, at.index, call.deadline).await?;
        let mut counts = vec![0; patterns.len()];
        let mut lookup = self.open(At::AtLeast(at), space, range, patterns, limit).await?;
        loop {
            let slice = lookup.next(&self).await?;
            for (number, count) in slice.counts {
                counts[number as usize] += count;
            }
            for (number, _) in slice.facts {
                counts[number as usize] += 1;
            }
            if slice.done {
                return call.reply(&Counts { counts }).await;
            }
        }
    }

    async fn terms(self, mut call: Handle<ViewTerms>) -> Result<(), CallError> {
        let ViewTerms { at, ids } = call.request.clone();
        check_keys(ids.len())?;
        if let Some(id) = ids.iter().find(|id| !id.is_inline() && !self.held.contains(Space::Term, id.point())) {
            return Err(CallError::never(Code::NotHere, format!("this view does not hold the term {id}")));
        }
        self.check_epoch(at)?;
        self.board.applied(&self.env, at.index, call.deadline).await?;
        let desk = self.clone();
        let opened = self.read(move || TermLookup::open(&desk.store, at, ids)).await;
        let mut lookup = opened.map_err(|e| self.refuse(e))?;
        loop {
            let (back, slice) = self
                .read(move || {
                    let slice = lookup.slice();
                    (lookup, slice)
                })
                .await;
            lookup = back;
            let (terms, done) = slice.map_err(|e| self.refuse(e.into()))?;
            if !terms.is_empty() {
                call.reply(&TermsChunk { terms }).await?;
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Lets another view copy from this one.
    async fn copy(self, mut call: Handle<ViewCopy>) -> Result<(), CallError> {
        let ViewCopy { at, space, range, wanted } = call.request.clone();
        check_count(wanted.len(), INTERVALS_MAX, "intervals")?;
        let Some(keys) = Intervals::checked(wanted) else {
            return Err(CallError::never(Code::Invalid, "intervals of keys are ascending, disjoint and not empty"));
        };
        self.check_held(space, &range)?;
        self.check_epoch(at)?;
        self.board.applied(&self.env, at.index, call.deadline).await?;
        let mut ride = self.carousel.ride(space, Wanted { at: at.index, range, keys });
        while let Some(chunks) = ride.next().await? {
            for chunk in chunks {
                call.reply(&chunk).await?;
            }
        }
        Ok(())
    }

    /// Sends the newest verdict checkpoint.
    async fn checkpoint(self, mut call: Handle<ViewCheckpoint>) -> Result<(), CallError> {
        let snapshot = self.store.snapshot();
        let desk = self.clone();
        let head =
            self.read(move || checkpoint::head(&snapshot).map(|head| (head, snapshot.checkpoint_pieces()))).await;
        let (head, mut pieces) = head.map_err(|e| desk.refuse(e.into()))?;
        let Some(at) = head else {
            return Err(CallError::elsewhere(Code::Unavailable, "this view has no verdict checkpoint yet"));
        };
        if let Some(epoch) = call.request.epoch.filter(|epoch| *epoch != at.epoch) {
            let message = format!("this view's checkpoint is of epoch {}, not {epoch}", at.epoch);
            return Err(CallError::never(Code::WrongEpoch, message));
        }
        loop {
            let (rest, chunk) = self
                .read(move || {
                    let chunk = checkpoint_chunk(&mut pieces);
                    (pieces, chunk)
                })
                .await;
            pieces = rest;
            let chunk = chunk.map_err(|e| self.refuse(e.into()))?;
            if chunk.is_empty() {
                return Ok(());
            }
            call.reply(&CheckpointChunk { at, pieces: chunk }).await?;
        }
    }

    async fn verdict(self, mut call: Handle<ViewVerdict>) -> Result<(), CallError> {
        let at = call.request.at;
        self.check_epoch(at)?;
        self.board.judged(&self.env, at.index, call.deadline).await?;
        self.check_epoch(at)?;
        let outcome = self.shared.outcomes().get(at.index);
        match outcome {
            Some(Outcome::Judged(verdict)) => call.reply(&verdict).await,
            Some(Outcome::Skip) => Err(CallError::never(Code::Invalid, format!("entry {at} has no data to judge"))),
            None => {
                let message = format!("verdicts of entries as old as {at} are not kept");
                Err(CallError::never(Code::OutcomeUnknown, message))
            }
        }
    }

    /// Refuses what cannot be answered by this view, before anything is read.
    fn check(&self, space: Space, range: &Range, keys: usize) -> Result<(), CallError> {
        check_keys(keys)?;
        if space == Space::Term {
            return Err(CallError::never(Code::Invalid, "no facts lie in the term space: ask for subject or object"));
        }
        self.check_held(space, range)
    }

    fn check_held(&self, space: Space, range: &Range) -> Result<(), CallError> {
        if !self.held.covers(space, range) {
            let served: Vec<String> = self.held.ranges(space).iter().map(Range::to_string).collect();
            let held = if served.is_empty() { "nothing".into() } else { served.join(", ") };
            let message = format!("of the {space} space this view holds {held}, not all of {range}");
            return Err(CallError::never(Code::NotHere, message));
        }
        Ok(())
    }

    fn check_epoch(&self, at: Version) -> Result<(), CallError> {
        match self.board.epoch() {
            Some(epoch) if epoch != at.epoch => {
                // One of the two has not heard yet that an epoch has begun. Whoever asks finds the version's place anew.
                let message = format!("version {at} is of another epoch than this view's, {epoch}");
                Err(CallError::later(Code::WrongEpoch, 100, message))
            }
            _ => Ok(()),
        }
    }

    async fn open(
        &self,
        at: At,
        space: Space,
        range: Range,
        patterns: Vec<Pattern>,
        limit: u64,
    ) -> Result<OpenLookup, CallError> {
        let desk = self.clone();
        let opened = self.read(move || {
            let request = Request { at, space, range, patterns: &patterns, limit };
            match at {
                At::Exact(_) => Lookup::open(&desk.store, &desk.shared, &desk.held, &request),
                At::AtLeast(_) => Lookup::count(&desk.store, &desk.shared, &desk.held, &request),
            }
        });
        opened.await.map(|lookup| OpenLookup(Some(lookup))).map_err(|e| self.refuse(e))
    }

    /// Tells the caller, and if the disk is broken, the view.
    fn refuse(&self, error: LookupError) -> CallError {
        match error {
            LookupError::Call(e) => e,
            LookupError::Storage(e) => {
                let told = CallError::elsewhere(Code::Storage, e.to_string());
                self.board.set_broken(FollowError::from(e));
                told
            }
        }
    }
}

/// A look-up that goes to a blocking thread and comes back, slice by slice.
struct OpenLookup(Option<Lookup>);

impl OpenLookup {
    async fn next(&mut self, desk: &Desk) -> Result<super::lookup::Slice, CallError> {
        let mut lookup = self.0.take().expect("it comes back unless the call was dropped");
        let (lookup, slice) = desk
            .read(move || {
                let slice = lookup.slice();
                (lookup, slice)
            })
            .await;
        self.0 = Some(lookup);
        slice.map_err(|e| desk.refuse(e))
    }
}

fn check_keys(count: usize) -> Result<(), CallError> {
    check_count(count, KEYS_MAX, "keys")
}

fn check_count(count: usize, max: usize, what: &str) -> Result<(), CallError> {
    if count > max {
        let message = format!("{count} {what} are more than the {max} that one call may have");
        return Err(CallError::never(Code::TooLarge, message));
    }
    Ok(())
}

/// Answers for a view that has nothing to answer from yet.
pub async fn without_data(env: Env, board: Arc<Board>, call: Incoming) -> Result<(), CallError> {
    match call.kind {
        Kind::ViewStatus => status(env, board, call.open()?).await,
        _ => Err(CallError::elsewhere(Code::Unavailable, "this view copies from others, and has no data yet")),
    }
}

async fn status(env: Env, board: Arc<Board>, mut call: Handle<ViewStatus>) -> Result<(), CallError> {
    loop {
        let edition = board.edition();
        call.reply(&board.status()).await?;
        if !call.request.watch {
            return Ok(());
        }
        env.sleep(WATCH_PAUSE).await;
        // Its end is news too: that the view is alive.
        let _ = env.timeout(WATCH_EVERY - WATCH_PAUSE, board.changed_since(edition)).await;
    }
}

/// Pieces of a checkpoint in one chunk, in bytes, beside its last one.
const CHECKPOINT_CHUNK_BYTES: usize = 200 << 10;

fn checkpoint_chunk(pieces: &mut Scan) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    while bytes < CHECKPOINT_CHUNK_BYTES
        && let Some(piece) = pieces.next().transpose()?
    {
        let (key, value) = (Bytes::copy_from_slice(&piece.0), Bytes::copy_from_slice(&piece.1));
        bytes += key.len() + value.len();
        chunk.push((key, value));
    }
    Ok(chunk)
}

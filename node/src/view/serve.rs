//! Answers peers: reads a request, has it done, writes the replies. Nothing else.

use super::apply::{Held, Shared};
use super::carousel::Carousel;
use super::checkpoint;
use super::copy::Wanted;
use super::follow::FollowError;
use super::instance::Instance;
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
    CheckpointChunk, Counts, INTERVALS_MAX, KEYS_MAX, LookupChunk, Served, TermsChunk, VERDICTS_MAX, VerdictsChunk,
    ViewCheckpoint, ViewCopy, ViewCount, ViewLoad, ViewLoadReply, ViewLookup, ViewState, ViewStatus, ViewStatusReply,
    ViewTerms, ViewVerdict, ViewVerdicts, ViewVerify,
};
use beam_wire::quic::{Handle, Incoming};
use beam_wire::{CallError, Code, LogIndex, Range, Space, TermId, Version};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

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
    /// Calls that are answered at once.
    pub calls_max: u32,
    /// What others copy from.
    pub carousel: Carousel,
    /// One scan at a time.
    pub scanning: Arc<Semaphore>,
    /// Whether the view stops, or begins anew: nothing is answered from here any more.
    pub closed: watch::Sender<bool>,
}

/// Slices read at the same time, on a thread each. More would not be quicker on any disk or machine
/// that we know, and calls take turns slice by slice, so that a scan does not keep keys waiting.
pub const SLICES_MAX: usize = 16;

/// Answers one call of a kind that belongs to views: the view that can answer it best does.
pub async fn serve(env: Env, instances: Vec<Arc<Instance>>, call: Incoming) -> Result<(), CallError> {
    if call.kind == Kind::ViewStatus {
        let Some(first) = instances.first() else { return Err(without_data()) };
        return status(env, first.board().clone(), call.open()?).await;
    }
    match call.kind {
        Kind::ViewLoad => {
            let mut call: Handle<ViewLoad> = call.open()?;
            let loads = instances.iter().map(|instance| instance.board().load());
            call.reply(&loads.fold(ViewLoadReply::default(), sum)).await
        }
        Kind::ViewRules => {
            let mut call: Handle<ViewRules> = call.open()?;
            // One that has no data yet has read nothing, and says so.
            let rules = instances.iter().map(|instance| instance.board().rules()).max_by_key(|rules| rules.at);
            call.reply(&rules.ok_or_else(without_data)?).await
        }
        Kind::ViewCopy => {
            let call: Handle<ViewCopy> = call.open()?;
            let ViewCopy { at, space, range, .. } = call.request;
            let desk = one_of(instances, Some(at), |held| held.covers(space, &range))?;
            desk.while_open(desk.clone().copy(call)).await
        }
        Kind::ViewCheckpoint => {
            let newest = desks(instances).into_iter().max_by_key(|desk| desk.board.status().checkpoint);
            let desk = newest.ok_or_else(without_data)?;
            desk.while_open(desk.clone().checkpoint(call.open()?)).await
        }
        Kind::ViewVerify => {
            let call: Handle<ViewVerify> = call.open()?;
            let desk = the_one_that_holds(&instances, &call.request.serves)?;
            // It may scan for minutes: whoever else the node holds may go meanwhile.
            drop(instances);
            desk.while_open(desk.clone().verify(call)).await
        }
        Kind::ViewLookup => {
            let call: Handle<ViewLookup> = call.open()?;
            let ViewLookup { at, space, range, .. } = call.request;
            let desk = one_of(instances, Some(at), |held| held.covers(space, &range))?;
            desk.counted(desk.clone().lookup(call)).await
        }
        Kind::ViewTerms => {
            let call: Handle<ViewTerms> = call.open()?;
            let desk = one_of(instances, Some(call.request.at), |held| stranger(held, &call.request.ids).is_none())?;
            desk.counted(desk.clone().terms(call)).await
        }
        Kind::ViewVerdict => {
            let call: Handle<ViewVerdict> = call.open()?;
            let desk = one_of(instances, Some(call.request.at), |_| true)?;
            desk.counted(desk.clone().verdict(call)).await
        }
        Kind::ViewVerdicts => {
            let call: Handle<ViewVerdicts> = call.open()?;
            let desk = one_of(instances, Some(call.request.at), |_| true)?;
            desk.counted(desk.clone().verdicts(call)).await
        }
        Kind::ViewCount => {
            let call: Handle<ViewCount> = call.open()?;
            let ViewCount { at, space, range, .. } = call.request;
            let desk = one_of(instances, Some(at), |held| held.covers(space, &range))?;
            desk.counted(desk.clone().count(call)).await
        }
        other => Err(CallError::never(Code::UnknownKind, format!("a view does not answer {other:?}"))),
    }
}

/// What the views of a node answer from.
fn desks(instances: Vec<Arc<Instance>>) -> Vec<Desk> {
    instances.iter().filter_map(|instance| instance.desk()).collect()
}

/// The view to answer from. The call keeps no other open: they may be dropped, or begin anew, while it goes on.
fn one_of(
    instances: Vec<Arc<Instance>>,
    at: Option<Version>,
    holds: impl Fn(&Held) -> bool,
) -> Result<Desk, CallError> {
    best(&desks(instances), at, holds)
}

/// The view to answer from: one that holds what is asked for, can still read the version, and is not about to stop.
fn best(desks: &[Desk], at: Option<Version>, holds: impl Fn(&Held) -> bool) -> Result<Desk, CallError> {
    let rank = |desk: &&Desk| rank(holds(&desk.held), &desk.board.status(), at.map(|at| at.index));
    desks.iter().min_by_key(rank).cloned().ok_or_else(without_data)
}

fn rank(holds: bool, status: &ViewStatusReply, at: Option<LogIndex>) -> impl Ord + use<> {
    let place = match status.state {
        ViewState::Serving => 0,
        ViewState::Draining => 1,
        ViewState::Booting | ViewState::Damaged => 2,
    };
    let (too_old, waits) = (at.is_some_and(|at| status.oldest > at), at.is_some_and(|at| status.applied < at));
    (!holds, too_old, place, waits)
}

/// The view that is meant, and nothing else.
fn the_one_that_holds(instances: &[Arc<Instance>], serves: &[Served]) -> Result<Desk, CallError> {
    let Some(instance) = instances.iter().find(|instance| instance.board().serves() == serves) else {
        let message = "this node holds something else by now: look again at what there is";
        return Err(CallError::never(Code::NotHere, message));
    };
    instance.desk().ok_or_else(|| match instance.board().damage() {
        Some(why) => CallError::elsewhere(Code::Storage, format!("{why}. It has not begun anew yet")),
        None => without_data(),
    })
}

/// An id whose term the view does not hold.
fn stranger<'a>(held: &Held, ids: &'a [TermId]) -> Option<&'a TermId> {
    ids.iter().find(|id| !id.is_inline() && !held.contains(Space::Term, id.point()))
}

fn sum(a: ViewLoadReply, b: ViewLoadReply) -> ViewLoadReply {
    ViewLoadReply {
        calls: a.calls + b.calls,
        answered: a.answered + b.answered,
        cancelled: a.cancelled + b.cancelled,
        refused: a.refused + b.refused,
    }
}

impl Desk {
    /// Ends all that goes on, or waits: whoever holds this lets go of the store soon.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Goes on for no longer than the desk is open.
    pub(super) async fn while_open<T>(
        &self,
        answering: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(self.gone()),
            outcome = answering => outcome,
        }
    }

    fn gone(&self) -> CallError {
        match self.board.damage() {
            Some(why) => CallError::elsewhere(Code::Storage, why),
            None => CallError::elsewhere(Code::Unavailable, "this view stops, or begins anew: ask another"),
        }
    }

    /// Answers a call that counts, if there are not too many.
    async fn counted(&self, answering: impl Future<Output = Result<(), CallError>>) -> Result<(), CallError> {
        let counted = self.board.enter(self.calls_max)?;
        let outcome = self.while_open(answering).await;
        counted.ended();
        outcome
    }

    /// Reads something on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> T {
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
        if let Some(id) = stranger(&self.held, &ids) {
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
        // The checkpoint itself may be older than the epoch: what follows it in the log leads into that.
        if let Some(epoch) = call.request.epoch {
            self.check_epoch(Version { epoch, ..at })?;
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

    async fn verdicts(self, mut call: Handle<ViewVerdicts>) -> Result<(), CallError> {
        let ViewVerdicts { after, at } = call.request;
        if after > at.index {
            let message = format!("nothing lies after {after} and up to {}", at.index);
            return Err(CallError::never(Code::Invalid, message));
        }
        if at.index.0 - after.0 > VERDICTS_MAX {
            let message = format!("more than {VERDICTS_MAX} entries lie after {after} up to {}", at.index);
            return Err(CallError::never(Code::TooLarge, message));
        }
        self.check_epoch(at)?;
        self.board.judged(&self.env, at.index, call.deadline).await?;
        self.check_epoch(at)?;
        let mut verdicts = Vec::new();
        {
            let outcomes = self.shared.outcomes();
            for index in (after.0..at.index.0).map(|before| LogIndex(before).next()) {
                match outcomes.get(index) {
                    Some(Outcome::Judged(verdict)) => verdicts.push((index, verdict)),
                    Some(Outcome::Skip) => {}
                    None => {
                        let message = format!("verdicts of entries as old as {index} are not kept");
                        return Err(CallError::never(Code::OutcomeUnknown, message));
                    }
                }
            }
        }
        call.reply(&VerdictsChunk { verdicts }).await
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

    pub(super) fn check_epoch(&self, at: Version) -> Result<(), CallError> {
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
    pub(super) fn refuse(&self, error: LookupError) -> CallError {
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

/// None of the views has anything to answer from yet.
fn without_data() -> CallError {
    CallError::elsewhere(Code::Unavailable, "this view copies from others, and has no data yet")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::view::tests::view;

    #[test]
    fn who_holds_it_answers_and_who_stays_before_who_goes() {
        let status = |state, oldest, applied| {
            let mut view = view("v", &[], applied);
            view.set(|status| (status.state, status.oldest) = (state, LogIndex(oldest)));
            view.status
        };
        let ranked = |holds, state, oldest, applied| rank(holds, &status(state, oldest, applied), Some(LogIndex(50)));
        use ViewState::*;
        let order = [
            ranked(true, Serving, 0, 60),
            ranked(true, Serving, 0, 49),
            ranked(true, Draining, 0, 60),
            ranked(true, Booting, 0, 60),
            ranked(true, Booting, 0, 49),
            ranked(true, Serving, 51, 60),
            ranked(false, Serving, 0, 60),
        ];
        assert!(order.is_sorted());
    }
}

//! The one that writes. Everything that the log or the vote becomes goes through here, in the order in
//! which it was asked for: openraft has one cursor for what is flushed, so a vote that overtook entries
//! would release acknowledgements for entries that are not on disk.
//!
//! What has come while the disk was busy is written together and flushed once.

use super::files::{Files, Worked};
use super::meta::MachineState;
use super::segment::weight;
use super::store::{Shared, StoreError};
use super::types::{Entry, IoFlushed, LogId, Vote};
use beam_wire::env::Env;
use beam_wire::ids::Epoch;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

/// How long what may lag (the committed and applied positions) lags at most. A restart applies again
/// what was applied since: a second's entries are read in a fraction of one.
const LAZY: Duration = Duration::from_millis(500);

/// How often it looks how much room the disk has when there is nothing to write: others use the disk too.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often it looks while the disk is full.
const FULL_PAUSE: Duration = Duration::from_millis(250);

/// What is written together: beyond this, grouping saves nothing, and only delays the first.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Something to write, and whom to tell.
pub struct Job {
    pub change: Change,
    pub report: Report,
    /// What it takes of the room for what is not flushed.
    pub room: Option<OwnedSemaphorePermit>,
}

impl Job {
    /// Something that takes no room.
    pub fn new(change: Change, report: Report) -> Self {
        Self { change, report, room: None }
    }
}

/// Something to write.
pub enum Change {
    /// They follow the last entry.
    Append(Vec<Entry>),
    Vote(Vote),
    Epoch(Epoch),
    /// A new epoch, of which this node is the only member.
    Begin(Begun),
    /// Lazy.
    Committed(LogId),
    /// Lazy.
    Machine(Arc<MachineState>),
    /// Makes what was lazy durable.
    Save,
    /// Drops the entries from an index on.
    Truncate(u64),
    /// Drops the entries up to an index, in whole segments.
    Purge(LogId),
    /// Saves, closes all files, and ends the writer.
    Close,
    /// A reader has found a file damaged: ends the writer at once.
    Damaged {
        file: String,
        why: String,
    },
}

/// What the metadata of a new epoch are: they change in one transaction.
pub struct Begun {
    pub raft_id: u64,
    pub epoch: Epoch,
    pub vote: Vote,
    pub committed: LogId,
    pub machine: Arc<MachineState>,
}

/// Whom to tell that something is durable.
pub enum Report {
    Nobody,
    Flushed(IoFlushed),
    Done(oneshot::Sender<io::Result<()>>),
}

/// Writes jobs as they come, until told to close, until nobody can send more, or until the disk fails:
/// then the node must stop. While the disk is full it waits for room, however long that takes.
pub async fn write(
    env: Env,
    mut files: Files,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    shared: Arc<Shared>,
) -> Result<(), StoreError> {
    let mut save_at = None;
    let mut look_at = env.now() + LOOK_EVERY;
    let mut full = false;
    loop {
        let due = env.sleep_until(save_at.map_or(look_at, |at: Instant| at.min(look_at)));
        let first = tokio::select! {
            biased;
            job = jobs.recv() => Some(job.unwrap_or_else(|| Job::new(Change::Close, Report::Nobody))),
            () = due => None,
        };
        let (mut changes, mut waiting) = first.map_or_else(Default::default, |first| group(first, &mut jobs));
        if save_at.is_some_and(|at| at <= env.now()) {
            changes.push(Change::Save);
        }
        look_at = env.now() + LOOK_EVERY;
        files.ask(changes);
        let result = loop {
            let (returned, result) = env
                .blocking(move || {
                    let result = files.work().and_then(|worked| Ok((worked, files.bytes()?)));
                    (files, result)
                })
                .await;
            files = returned;
            let result = match result {
                Ok(done) => files.settled().await.map(|()| done),
                Err(e) => Err(e),
            };
            shared.looked(files.room());
            match result {
                Ok((Worked::All, bytes)) => {
                    if std::mem::replace(&mut full, false) {
                        tracing::info!("the disk of the log has room again ({})", files.room().1);
                    }
                    break Ok(bytes);
                }
                Ok((Worked::Waits, bytes)) => {
                    shared.written(files.segments(), files.last(), bytes);
                    if !std::mem::replace(&mut full, true) {
                        let (space, reserve) = (files.room().1, files.reserve() >> 20);
                        tracing::warn!(
                            "the disk of the log is full ({space}, {reserve} MiB are to be kept free): nothing is \
                             written until there is room"
                        );
                    }
                    if let Err(e) = wait_for_room(&env, &mut files, &mut jobs, &mut waiting).await {
                        break Err(e);
                    }
                }
                Err(e) => break Err(e),
            }
        };
        match result {
            Ok(bytes) => shared.written(files.segments(), files.last(), bytes),
            Err(e) => {
                shared.ended(&e.to_string());
                // Nobody may believe that what they asked for was done.
                jobs.close();
                while let Ok(job) = jobs.try_recv() {
                    waiting.push((job.report, job.room));
                }
                waiting.into_iter().for_each(|(report, _)| report.tell(Err(e.to_io())));
                // A log that was told to close has not failed.
                return if matches!(e, StoreError::Full { .. }) { Ok(()) } else { Err(e) };
            }
        }
        if files.is_closed() {
            shared.ended("it was closed");
            let result = files.finish();
            let told = |result: &Result<(), StoreError>| result.as_ref().map(|_| ()).map_err(|e| e.to_io());
            waiting.into_iter().for_each(|(report, _)| report.tell(told(&result)));
            return result;
        }
        waiting.into_iter().for_each(|(report, _)| report.tell(Ok(())));
        save_at = files.is_lazy().then(|| save_at.filter(|at| *at > env.now()).unwrap_or_else(|| env.now() + LAZY));
    }
}

/// Waits a moment for the disk to have room, and meanwhile takes what is asked for. An error if the log is
/// told to close: what waits is then not written.
async fn wait_for_room(
    env: &Env,
    files: &mut Files,
    jobs: &mut mpsc::UnboundedReceiver<Job>,
    waiting: &mut Vec<Waiting>,
) -> Result<(), StoreError> {
    let again = env.now() + FULL_PAUSE;
    while !files.is_closing() {
        let job = tokio::select! {
            biased;
            () = env.sleep_until(again) => return Ok(()),
            job = jobs.recv() => job.unwrap_or_else(|| Job::new(Change::Close, Report::Nobody)),
        };
        let makes_room = matches!(job.change, Change::Purge(_));
        files.ask(vec![job.change]);
        waiting.push((job.report, job.room));
        if makes_room {
            return Ok(());
        }
    }
    Err(StoreError::Full { space: files.room().1 })
}

type Waiting = (Report, Option<OwnedSemaphorePermit>);

/// All that was asked for meanwhile, up to a bound, and who waits for it.
fn group(first: Job, jobs: &mut mpsc::UnboundedReceiver<Job>) -> (Vec<Change>, Vec<Waiting>) {
    let (mut changes, mut waiting, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some(job) = next {
        let last = matches!(job.change, Change::Close);
        if let Change::Append(entries) = &job.change {
            bytes += entries.iter().map(weight).sum::<usize>();
        }
        changes.push(job.change);
        waiting.push((job.report, job.room));
        next = if last || bytes >= GROUP_BYTES_MAX { None } else { jobs.try_recv().ok() };
    }
    (changes, waiting)
}

impl Report {
    fn tell(self, result: io::Result<()>) {
        match self {
            Report::Nobody => {}
            Report::Flushed(flushed) => flushed.io_completed(result),
            // Whoever asked may have gone; what was asked for is done.
            Report::Done(done) => drop(done.send(result)),
        }
    }
}

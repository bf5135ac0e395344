//! The one that writes. Everything that the log or the vote becomes goes through here, in the order in
//! which it was asked for: openraft has one cursor for what is flushed, so a vote that overtook entries
//! would release acknowledgements for entries that are not on disk.
//!
//! What has come while the disk was busy is written together and flushed once.

use super::disk::Disk;
use super::meta::{MachineState, Meta, MetaState, SegmentRecord};
use super::segment::{Segment, weight};
use super::store::{Shared, StoreError, StoreOptions};
use super::types::{Entry, IoFlushed, LogId, Vote};
use beam_wire::env::Env;
use beam_wire::ids::Epoch;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// How long what may lag (the committed and applied positions) lags at most. A restart applies again
/// what was applied since: a second's entries are read in a fraction of one.
const LAZY: Duration = Duration::from_millis(500);

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
}

/// Whom to tell that something is durable.
pub enum Report {
    Nobody,
    Flushed(IoFlushed),
    Done(oneshot::Sender<io::Result<()>>),
}

/// The open files. Whatever blocks is done by these.
pub struct Files {
    disk: Arc<dyn Disk>,
    meta: Meta,
    state: MetaState,
    options: StoreOptions,
    /// As listed in `state`.
    segments: Vec<Arc<Segment>>,
    /// The newest index in the segments.
    last: Option<u64>,
    /// Whether the last segment is open for writing, and what was written to it.
    open: Option<u64>,
    /// Bytes of the files of all segments but the last.
    sealed_bytes: u64,
    /// Something lazy is not durable yet.
    lazy: bool,
    closed: bool,
}

/// Entries that are flushed together, and the newest of the lazy changes that came among them. Those speak
/// of entries that came before them.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    committed: Option<LogId>,
    machine: Option<Arc<MachineState>>,
}

/// Writes jobs as they come, until told to close, until nobody can send more, or until the disk fails:
/// then the node must stop.
pub async fn write(
    env: Env,
    mut files: Files,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    shared: Arc<Shared>,
) -> Result<(), StoreError> {
    let mut save_at = None;
    loop {
        let due = async {
            match save_at {
                Some(at) => env.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let first = tokio::select! {
            biased;
            job = jobs.recv() => job.unwrap_or_else(|| Job::new(Change::Close, Report::Nobody)),
            () = due => Job::new(Change::Save, Report::Nobody),
        };
        let (mut changes, mut waiting) = group(first, &mut jobs);
        if save_at.is_some_and(|at| at <= env.now()) {
            changes.push(Change::Save);
        }
        let (returned, result) = env
            .blocking(move || {
                let result = files.write(changes).and_then(|()| files.bytes());
                (files, result)
            })
            .await;
        files = returned;
        let result = match result {
            Ok(bytes) => files.disk.settled().await.map(|()| bytes).map_err(StoreError::from),
            Err(e) => Err(e),
        };
        match result {
            Ok(bytes) => shared.written(&files.segments, files.last, bytes),
            Err(e) => {
                shared.ended(&e.to_string());
                // Nobody may believe that what they asked for was done.
                jobs.close();
                while let Ok(job) = jobs.try_recv() {
                    waiting.push((job.report, job.room));
                }
                waiting.into_iter().for_each(|(report, _)| report.tell(Err(e.to_io())));
                return Err(e);
            }
        }
        if files.closed {
            shared.ended("it was closed");
            let result = files.meta.close();
            let told = |result: &Result<(), StoreError>| result.as_ref().map(|_| ()).map_err(|e| e.to_io());
            waiting.into_iter().for_each(|(report, _)| report.tell(told(&result)));
            return result;
        }
        waiting.into_iter().for_each(|(report, _)| report.tell(Ok(())));
        save_at = files.lazy.then(|| save_at.filter(|at| *at > env.now()).unwrap_or_else(|| env.now() + LAZY));
    }
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

impl Files {
    /// The files as they were found. `last` is the newest index in the segments.
    pub fn new(
        disk: Arc<dyn Disk>,
        meta: Meta,
        state: MetaState,
        options: StoreOptions,
        segments: Vec<Arc<Segment>>,
        last: Option<u64>,
    ) -> Result<Self, StoreError> {
        let sealed = segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
        let sealed_bytes = sealed.iter().map(|s| s.file_bytes()).sum::<Result<u64, _>>()?;
        Ok(Self { disk, meta, state, options, segments, last, open: None, sealed_bytes, lazy: false, closed: false })
    }

    /// All segments, in order.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// What the segments take on disk.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        Ok(self.sealed_bytes + self.segments.last().map_or(Ok(0), |s| s.file_bytes())?)
    }

    /// Does all of it, in order, and returns when the real disk has it (a simulated one must settle).
    pub fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut group = Group::default();
        for change in changes {
            match change {
                Change::Append(more) if group.entries.is_empty() => group.entries = more,
                Change::Append(more) => group.entries.extend(more),
                Change::Committed(id) => group.committed = Some(id),
                Change::Machine(machine) => group.machine = Some(machine),
                other => {
                    self.append(std::mem::take(&mut group))?;
                    self.change(other)?;
                }
            }
        }
        self.append(group)
    }

    fn change(&mut self, change: Change) -> Result<(), StoreError> {
        match change {
            Change::Append(_) | Change::Committed(_) | Change::Machine(_) => unreachable!("these are gathered"),
            Change::Vote(vote) => {
                self.state.vote = Some(vote);
                self.save()
            }
            Change::Epoch(epoch) => {
                self.state.epoch = Some(epoch);
                self.save()
            }
            Change::Save => self.save(),
            Change::Truncate(from) => self.truncate(from),
            Change::Purge(upto) => self.purge(upto),
            Change::Close => self.close(),
        }
    }

    fn save(&mut self) -> Result<(), StoreError> {
        self.meta.save(&self.state)?;
        self.lazy = false;
        Ok(())
    }

    fn append(&mut self, group: Group) -> Result<(), StoreError> {
        let mut entries = group.entries.as_slice();
        while let Some(first) = entries.first() {
            let used = self.open_last(first.log_id.index)?;
            let segment = self.segments.last().expect("the last segment was just opened");
            let (count, bytes) = segment.append(entries, self.options.segment_bytes.saturating_sub(used).max(1))?;
            self.open = Some(used + bytes);
            self.last = Some(entries[count - 1].log_id.index);
            entries = &entries[count..];
        }
        // Not sooner: a new segment saves, and a position beyond the end of the log would be taken, after a
        // crash, for entries that were purged.
        self.lazy |= group.committed.is_some() || group.machine.is_some();
        self.state.committed = group.committed.or(self.state.committed);
        if let Some(machine) = group.machine {
            self.state.machine = machine;
        }
        Ok(())
    }

    /// Opens the last segment for writing, or a new one that begins at `next` if there is none or it is
    /// full. Returns how much was written to it.
    fn open_last(&mut self, next: u64) -> Result<u64, StoreError> {
        let used = match (self.open, self.segments.last()) {
            (Some(used), Some(_)) => used,
            // What is in there is not counted at a restart. The file is longer than that.
            (None, Some(segment)) => {
                segment.unseal()?;
                if segment.bounds()?.is_none() { 0 } else { segment.file_bytes()? }
            }
            (_, None) => return self.roll(next),
        };
        self.open = Some(used);
        if used < self.options.segment_bytes { Ok(used) } else { self.roll(next) }
    }

    /// Begins a new segment. It is durable before it is listed, so a listed segment always exists.
    fn roll(&mut self, first: u64) -> Result<u64, StoreError> {
        if let Some(full) = self.segments.last() {
            full.seal()?;
            self.sealed_bytes += full.file_bytes()?;
        }
        self.open = None;
        let record = SegmentRecord { number: self.state.next_segment, first };
        let segment = Segment::create(self.disk.clone(), record)?;
        self.state.next_segment += 1;
        self.state.segments.push(record);
        self.save()?;
        self.segments.push(Arc::new(segment));
        self.open = Some(0);
        Ok(0)
    }

    /// The list first: after it is durable, files that it does not name are dirt, and those that it does
    /// name hold what they held. Then the files, then the end of the last one.
    fn truncate(&mut self, from: u64) -> Result<(), StoreError> {
        let keep = self.segments.partition_point(|s| s.record.first < from);
        let gone = self.unlist(keep..self.segments.len())?;
        for segment in gone {
            segment.remove()?;
        }
        if self.last.is_some_and(|last| last >= from) {
            self.last = from.checked_sub(1).filter(|_| !self.segments.is_empty());
        }
        if let Some(segment) = self.segments.last() {
            segment.unseal()?;
            segment.cut(from)?;
        }
        Ok(())
    }

    /// The purge point first, with the list: a crash then leaves files that nobody lists, never a list
    /// of files that are not there.
    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        if self.state.purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        self.state.purged = Some(upto);
        let ends = self.segments.iter().skip(1).map(|next| Some(next.record.first - 1)).chain([self.last]);
        let count = ends.take_while(|end| end.is_none_or(|end| end <= upto.index)).count().min(self.segments.len());
        let gone = self.unlist(0..count)?;
        for segment in gone {
            segment.remove()?;
        }
        if self.segments.is_empty() {
            self.last = None;
        }
        Ok(())
    }

    /// Strikes segments from the list, and returns them. The last one left may be written to again.
    fn unlist(&mut self, range: std::ops::Range<usize>) -> Result<Vec<Arc<Segment>>, StoreError> {
        if !range.is_empty() && range.end == self.segments.len() {
            self.open = None;
        }
        self.state.segments.drain(range.clone());
        self.save()?;
        let gone = self.segments.drain(range).collect();
        let sealed = self.segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
        self.sealed_bytes = sealed.iter().map(|s| s.file_bytes()).sum::<Result<u64, _>>()?;
        Ok(gone)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.save()?;
        for segment in &self.segments {
            segment.seal()?;
            segment.close_sealed()?;
        }
        self.closed = true;
        Ok(())
    }
}

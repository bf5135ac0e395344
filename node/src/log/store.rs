//! The log on disk, as openraft and the readers see it.
//!
//! What is appended can be read at once, from the tail in memory; the writer makes it durable and says
//! so later. What has left the tail is read from the segments, by as many readers at once as there are.

use super::disk::Disk;
use super::meta::{MachineState, MetaState};
use super::open::open_files;
use super::room::{Room, Space};
use super::runtime;
use super::segment::{Segment, weight};
use super::tail::Tail;
use super::types::{Entry, EntryContent, IoFlushed, LogId, LogTypes, Vote, content};
use super::writer::{Change, Job, Report, write};
use beam_wire::env::Env;
use beam_wire::ids::{Epoch, Name};
use beam_wire::message::log::BODY_BYTES_MAX;
use futures::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::async_runtime::WatchSender;
use openraft::async_runtime::watch::Watch as _;
use openraft::storage::{LogState, RaftLogReader, RaftLogStorage};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// What one request of replication holds, unless one entry alone is larger. The leader's lease is renewed
/// by answers: while a slow follower is sent a lot, they must not be far between.
const REQUEST_BYTES: usize = 128 << 10;

/// Entries that wait for the disk. Beyond this an append waits until some are flushed: the disk is then
/// seconds behind, and taking more would only hide it.
const UNFLUSHED_BYTES_MAX: usize = 64 << 20;

/// Sealed segments that are kept open: a file handle and a megabyte each. Readers of one region of the
/// log share them.
const SEALED_OPEN_MAX: usize = 16;

/// A file that a full disk made unusable is opened once more at once, or when there is room.
const REOPENED_WITHIN: Duration = Duration::from_millis(50);

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// A directory belongs to one cluster for ever.
    pub cluster: Name,
    /// A segment takes no more entries once their values have this many bytes. redb walks this much after
    /// a crash, and a discard frees this much at a time.
    pub segment_bytes: u64,
    /// The newest entries are kept in memory, up to this many bytes: seconds of a busy log, so that
    /// replication and the views that are up to date cost no reads.
    pub cache_bytes: usize,
    /// What is to stay free on the disk, or a twentieth of it if that is less: room for what makes room. It
    /// takes a busy log seconds to fill, in which somebody else can be made to lead.
    pub reserve_bytes: u64,
}

impl StoreOptions {
    pub fn new(cluster: Name) -> Self {
        Self { cluster, segment_bytes: 64 << 20, cache_bytes: 32 << 20, reserve_bytes: 512 << 20 }
    }
}

/// Why a log does not open, or can no longer be used. The node must stop.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{file}: {source}")]
    Database { file: String, source: redb::Error },
    #[error("{file} is open in another process: one log node per directory")]
    InUse { file: String },
    #[error("{file} has format {found}, but this version of Beam reads up to {known}: start the version that wrote it")]
    UnknownFormat { file: String, found: u32, known: u32 },
    #[error("the log was closed while its disk was full ({space}): what waited to be written is not written")]
    Full { space: Space },
    #[error(
        "{file}: {why}. Nothing is served from a log that is damaged. Rebuild it from the other log nodes: stop this \
         node, then `beam log rebuild --data DIR` on its machine, then start it (`beam log verify` names all damages)"
    )]
    Corrupt { file: String, why: String },
    #[error("there is no log in this directory")]
    NoLog,
    #[error("the rebuilding of this log was interrupted: run `beam log rebuild` once more, then start the node")]
    HalfRebuilt,
    #[error("this log belongs to the cluster {found}, not to {wanted}")]
    OtherCluster { found: Name, wanted: Name },
    #[error(
        "there is {file}, but no file meta, which says what counts: this log has lost data. Run `beam log rebuild`: the node then joins anew, as another member"
    )]
    NoMeta { file: String },
}

impl StoreError {
    pub(super) fn database(file: &str, source: redb::Error) -> Self {
        match source {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { file: file.into() },
            source => Self::Database { file: file.into(), source },
        }
    }

    /// The same, for those who want an I/O error.
    pub(super) fn to_io(&self) -> io::Error {
        let kind = match self {
            Self::Io(e) | Self::Database { source: redb::Error::Io(e), .. } => e.kind(),
            Self::InUse { .. } => io::ErrorKind::ResourceBusy,
            Self::Full { .. } => io::ErrorKind::StorageFull,
            Self::Corrupt { .. } | Self::UnknownFormat { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self.to_string())
    }
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// The lowest index that can be read, or that the next entry will have.
    pub first: u64,
    /// The newest entry, flushed or not; the last purged one if there is none.
    pub last: Option<LogId>,
    /// The newest entry known to be committed.
    pub committed: Option<LogId>,
    /// The newest entry that is gone for good.
    pub purged: Option<LogId>,
    /// The newest index on disk.
    pub flushed: Option<u64>,
    /// What all segments take on disk.
    pub bytes: u64,
}

/// The log of one node. Cheap to clone. Its files are closed some time after the last clone is dropped;
/// [`LogStore::close`] waits for that.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job>,
}

/// What readers and the writer share.
pub(super) struct Shared {
    env: Env,
    raft_id: u64,
    cluster: Name,
    memory: Mutex<Memory>,
    room: Arc<Semaphore>,
    /// Those that were read last are last.
    sealed_open: Mutex<VecDeque<Arc<Segment>>>,
    room_on_disk: runtime::Sender<(Room, Space)>,
}

struct Memory {
    tail: Tail,
    last: Option<LogId>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    vote: Option<Vote>,
    epoch: Option<Epoch>,
    machine: Arc<MachineState>,
    /// As they are on disk.
    segments: Vec<Arc<Segment>>,
    flushed: Option<u64>,
    bytes: u64,
    /// Rises when entries disappear: who has read meanwhile reads again.
    generation: u64,
    /// Why nothing can be written any more.
    ended: Option<String>,
}

impl LogStore {
    /// Opens the log of a directory; makes one if the directory is empty. Reads no entries but the last.
    pub async fn open(env: &Env, disk: Arc<dyn Disk>, options: StoreOptions) -> Result<Self, StoreError> {
        let fresh = MetaState::fresh(options.cluster.clone(), env.random_u64());
        let cache_bytes = options.cache_bytes;
        let files = disk.clone();
        let (files, state, last) = env.blocking(move || open_files(files, options, fresh)).await?;
        disk.settled().await?;
        let segments = files.segments().to_vec();
        let room = files.room();
        let last = last.or(state.purged);
        let memory = Memory {
            tail: Tail::new(last.map(|id| id.index + 1), cache_bytes),
            last,
            purged: state.purged,
            committed: state.committed,
            vote: state.vote,
            epoch: state.epoch,
            machine: state.machine,
            segments,
            flushed: last.map(|id| id.index),
            bytes: files.bytes()?,
            generation: 0,
            ended: None,
        };
        let shared = Arc::new(Shared {
            env: env.clone(),
            raft_id: state.raft_id,
            cluster: state.cluster,
            memory: Mutex::new(memory),
            room: Arc::new(Semaphore::new(UNFLUSHED_BYTES_MAX)),
            sealed_open: Mutex::default(),
            room_on_disk: runtime::Watch::channel(room).0,
        });
        let (jobs, asked) = mpsc::unbounded_channel();
        env.tasks().own("log.writer", write(env.clone(), files, asked, shared.clone())).detach();
        Ok(Self { shared, jobs })
    }

    /// Drawn when the directory was empty: a node that lost its data has another one.
    pub fn raft_id(&self) -> u64 {
        self.shared.raft_id
    }

    pub fn cluster(&self) -> &Name {
        &self.shared.cluster
    }

    /// None until the cluster was born, as far as this node knows.
    pub fn epoch(&self) -> Option<Epoch> {
        self.shared.memory().epoch
    }

    /// Durable on return.
    pub async fn set_epoch(&self, epoch: Epoch) -> io::Result<()> {
        if self.epoch() != Some(epoch) {
            self.done(|_| Change::Epoch(epoch)).await?;
            self.shared.memory().epoch = Some(epoch);
        }
        Ok(())
    }

    /// Whether this node has never voted, held an entry, or belonged to a cluster.
    pub fn is_pristine(&self) -> bool {
        let memory = self.shared.memory();
        memory.vote.is_none() && memory.last.is_none() && memory.epoch.is_none()
    }

    pub fn state(&self) -> StoreState {
        let memory = self.shared.memory();
        StoreState {
            first: memory.first(),
            last: memory.last,
            committed: memory.committed,
            purged: memory.purged,
            flushed: memory.flushed,
            bytes: memory.bytes,
        }
    }

    /// Whether the disk is too full to take proposals of clients.
    pub fn is_full(&self) -> bool {
        self.shared.room_on_disk.borrow_watched().0.is_full()
    }

    /// Whether what is appended is not written before there is room.
    pub fn waits_for_room(&self) -> bool {
        self.shared.room_on_disk.borrow_watched().0 == Room::Nothing
    }

    /// How much room the disk had when it was last looked at: a second ago at most.
    pub fn space(&self) -> Space {
        self.shared.room_on_disk.borrow_watched().1
    }

    /// Tells when the disk becomes full, and when it is not any more.
    pub fn watch_room(&self) -> runtime::Receiver<(Room, Space)> {
        self.shared.room_on_disk.subscribe()
    }

    pub fn vote(&self) -> Option<Vote> {
        self.shared.memory().vote
    }

    /// The entries `from..=to` as far as the log holds them: one at least, then no more than weigh
    /// `max_bytes` (bodies, and 128 bytes each). An index that is gone is an error of kind `NotFound`.
    pub async fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<(u64, EntryContent)>> {
        let gone = |first| io::Error::new(io::ErrorKind::NotFound, format!("the log begins at {first}, not at {from}"));
        let entries = self.entries(from, to, max_bytes).await?;
        let first = self.state().first;
        match entries.first() {
            Some(entry) if entry.log_id.index == from => {}
            _ if from < first => return Err(gone(first)),
            _ => {}
        }
        Ok(entries.iter().map(|e| (e.log_id.index, content(e))).collect())
    }

    /// The id of the entry at an index, if the log holds it.
    pub async fn log_id(&self, index: u64) -> io::Result<Option<LogId>> {
        Ok(self.entries(index, index, 0).await?.first().map(|e| e.log_id))
    }

    /// Writes what is written lazily, closes all files, and returns when that is done. What is asked
    /// of the log afterwards fails.
    pub async fn close(&self) -> io::Result<()> {
        self.done(|_| Change::Close).await
    }

    #[cfg(test)]
    pub(super) async fn entries_at(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        self.entries(from, to, max_bytes).await
    }

    #[cfg(test)]
    pub(super) fn segment_count(&self) -> usize {
        self.shared.memory().segments.len()
    }

    /// What the state machine knew when it was last asked.
    pub(crate) fn machine(&self) -> Arc<MachineState> {
        self.shared.memory().machine.clone()
    }

    /// Remembers what the state machine knows. Durable some time later, but never before the entries
    /// that it speaks of.
    pub(super) fn set_machine(&self, machine: Arc<MachineState>) -> io::Result<()> {
        let mut memory = self.shared.memory();
        memory.machine = machine.clone();
        self.send(&memory, Job::new(Change::Machine(machine), Report::Nobody))
    }

    /// Makes what the state machine knows durable.
    pub(super) async fn save(&self) -> io::Result<()> {
        self.done(|_| Change::Save).await
    }

    /// The entries `from..=to` that the log holds: one if there is one, then while they fit into
    /// `max_bytes`.
    async fn entries(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        'again: loop {
            let (mut found, mut next, mut left) = (Vec::new(), from, max_bytes);
            let generation = self.shared.memory().generation;
            loop {
                let (segments, disk_to) = {
                    let memory = self.shared.memory();
                    if memory.generation != generation {
                        continue 'again;
                    }
                    if memory.ended.is_some() {
                        return Err(memory.end());
                    }
                    next = next.max(memory.first());
                    let Some(to) = memory.last.map(|last| to.min(last.index)) else { return Ok(found) };
                    if next > to {
                        return Ok(found);
                    }
                    let tail = memory.tail.first().unwrap_or(0);
                    if tail <= next {
                        found.extend(memory.tail.entries(next, to, &mut left, found.is_empty()));
                        return Ok(found);
                    }
                    (memory.segments_of(next, to.min(tail - 1)), to.min(tail - 1))
                };
                let (store, one, mut bytes) = (self.clone(), found.is_empty(), left);
                let read =
                    move || store.shared.read_segments(&segments, next, disk_to, &mut bytes, one).map(|e| (e, bytes));
                match self.shared.env.blocking(read).await {
                    // A full disk has interrupted the writer, which opens the file once more.
                    Err(StoreError::Database { source: redb::Error::PreviousIo, .. }) if self.lives() => {
                        self.shared.env.sleep(REOPENED_WITHIN).await;
                        continue 'again;
                    }
                    // The files may have gone while we read them.
                    _ if self.shared.memory().generation != generation => continue 'again,
                    Err(e) => {
                        let error = e.to_io();
                        if let StoreError::Corrupt { file, why } = e {
                            self.damaged(file, why);
                        }
                        return Err(error);
                    }
                    Ok((entries, bytes)) => {
                        next += entries.len() as u64;
                        left = bytes;
                        found.extend(entries);
                    }
                }
                if next <= disk_to {
                    return Ok(found);
                }
            }
        }
    }

    /// Ends the writer, and with it the node: what else is damaged, nobody knows.
    fn damaged(&self, file: String, why: String) {
        let memory = self.shared.memory();
        // It ends already if this fails.
        drop(self.send(&memory, Job::new(Change::Damaged { file, why }, Report::Nobody)));
    }

    fn lives(&self) -> bool {
        self.shared.memory().ended.is_none()
    }

    /// Asks the writer for something, in order with what happens to `memory`, and waits until it is
    /// durable.
    async fn done(&self, change: impl FnOnce(&mut Memory) -> Change) -> io::Result<()> {
        let (done, is_done) = oneshot::channel();
        {
            let mut memory = self.shared.memory();
            let change = change(&mut memory);
            self.send(&memory, Job::new(change, Report::Done(done)))?;
        }
        match is_done.await {
            Ok(result) => result,
            Err(_) => Err(self.shared.memory().end()),
        }
    }

    fn send(&self, memory: &Memory, job: Job) -> io::Result<()> {
        match &memory.ended {
            None => self.jobs.send(job).map_err(|_| memory.end()),
            Some(_) => Err(memory.end()),
        }
    }
}

impl Memory {
    fn first(&self) -> u64 {
        let begins = || self.segments.first().map(|s| s.record.first).or(self.tail.first()).unwrap_or(0);
        self.purged.map_or_else(begins, |id| id.index + 1)
    }

    /// Those that hold some of `from..=to`.
    fn segments_of(&self, from: u64, to: u64) -> Vec<Arc<Segment>> {
        let begin = self.segments.partition_point(|s| s.record.first <= from).saturating_sub(1);
        self.segments[begin..].iter().take_while(|s| s.record.first <= to).cloned().collect()
    }

    fn end(&self) -> io::Error {
        let why = self.ended.as_deref().unwrap_or("its writer was killed");
        io::Error::other(format!("the log can no longer be used: {why}"))
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer has made this durable.
    pub(super) fn written(&self, segments: &[Arc<Segment>], last: Option<u64>, bytes: u64) {
        let mut memory = self.memory();
        let same = memory.segments.iter().map(|s| s.record).eq(segments.iter().map(|s| s.record));
        if !same {
            memory.segments = segments.to_vec();
        }
        memory.bytes = bytes;
        // Entries that are being truncated are on disk still.
        let newest = memory.last.map(|id| id.index);
        memory.flushed = last.max(memory.purged.map(|id| id.index)).min(newest);
        if let Some(flushed) = memory.flushed {
            memory.tail.evict(flushed);
        }
    }

    /// The disk has this room.
    pub(super) fn looked(&self, found: (Room, Space)) {
        self.room_on_disk.send_if_modified(|known| {
            let changed = known.0 != found.0;
            *known = found;
            changed
        });
    }

    /// Nothing will be written any more.
    pub(super) fn ended(&self, why: &str) {
        self.memory().ended.get_or_insert(why.to_owned());
        // Who waits for room would wait for ever.
        self.room.close();
    }

    fn read_segments(
        &self,
        segments: &[Arc<Segment>],
        from: u64,
        to: u64,
        left: &mut usize,
        one: bool,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut found: Vec<Entry> = Vec::new();
        for segment in segments {
            let next = from + found.len() as u64;
            let entries = segment.entries(next, to, left, one && found.is_empty())?;
            self.was_read(segment)?;
            if let Some((entry, index)) = entries.iter().zip(next..).find(|(e, index)| e.log_id.index != *index) {
                let why = format!("entry {index} is missing before entry {}", entry.log_id.index);
                return Err(StoreError::Corrupt { file: segment.name(), why });
            }
            found.extend(entries);
            if *left == 0 {
                return Ok(found);
            }
        }
        let next = from + found.len() as u64;
        match segments.last() {
            Some(last) if next <= to => {
                Err(StoreError::Corrupt { file: last.name(), why: format!("entry {next} is missing") })
            }
            _ => Ok(found),
        }
    }

    /// Closes the sealed segment that was not read for longest, if too many are open.
    fn was_read(&self, segment: &Arc<Segment>) -> Result<(), StoreError> {
        let oldest = {
            let mut open = self.sealed_open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|s| !Arc::ptr_eq(s, segment));
            open.push_back(segment.clone());
            if open.len() > SEALED_OPEN_MAX { open.pop_front() } else { None }
        };
        oldest.map_or(Ok(()), |segment| segment.close_sealed())
    }
}

impl RaftLogReader<LogTypes> for LogStore {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        match bounds(&range) {
            Some((from, to)) => self.entries(from, to, usize::MAX).await,
            None => Ok(Vec::new()),
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.vote())
    }

    /// What fits into one message to a follower.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        match bounds(&(start..end)) {
            Some((from, to)) => self.entries(from, to, REQUEST_BYTES).await,
            None => Ok(Vec::new()),
        }
    }

    /// A piece at a time: what is to be applied after a restart may not fit into memory.
    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let store = self.clone();
        stream::unfold(bounds(&range), move |range| {
            let store = store.clone();
            async move {
                let (from, to) = range?;
                let piece = store.entries(from, to, BODY_BYTES_MAX).await;
                let next = match &piece {
                    Ok(entries) => entries.last()?.log_id.index + 1,
                    Err(_) => return Some((vec![Err(piece.err()?)], None)),
                };
                let rest = (next <= to).then_some((next, to));
                Some((piece.into_iter().flatten().map(Ok).collect::<Vec<_>>(), rest))
            }
        })
        .flat_map(stream::iter)
        .boxed()
    }
}

/// The first and last index of a range.
fn bounds(range: &impl RangeBounds<u64>) -> Option<(u64, u64)> {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.checked_add(1)?,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(to) => *to,
        Bound::Excluded(end) => end.checked_sub(1)?,
        Bound::Unbounded => u64::MAX,
    };
    (from <= to).then_some((from, to))
}

impl RaftLogStorage<LogTypes> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<LogTypes>> {
        let memory = self.shared.memory();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.done(|_| Change::Vote(vote)).await?;
        self.shared.memory().vote = Some(vote);
        Ok(())
    }

    /// Not durable before the next flush or 500 ms.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let mut memory = self.shared.memory();
        memory.committed = Some(committed);
        self.send(&memory, Job::new(Change::Committed(committed), Report::Nobody))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let bytes = entries.iter().map(weight).sum::<usize>().min(UNFLUSHED_BYTES_MAX);
        let room = self.shared.room.clone().acquire_many_owned(bytes as u32).await;
        let room = room.map_err(|_| self.shared.memory().end())?;
        let mut memory = self.shared.memory();
        let follows = entries.iter().map(|e| Some(e.log_id.index));
        let first = memory.tail.next().or(entries.first().map(|e| e.log_id.index)).unwrap_or(0);
        if let Some((found, wanted)) = follows.zip(first..).find(|(found, wanted)| *found != Some(*wanted)) {
            return Err(io::Error::other(format!("entry {} would leave a hole at {wanted}", found.unwrap_or(0))));
        }
        if let Some(last) = entries.last() {
            memory.last = Some(last.log_id);
        }
        entries.iter().for_each(|e| memory.tail.push(e.clone()));
        let job = Job { change: Change::Append(entries), report: Report::Flushed(flushed), room: Some(room) };
        self.send(&memory, job)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        if self.state().last.is_none_or(|last| last.index < from) {
            return Ok(());
        }
        self.done(|memory| {
            memory.tail.truncate(from);
            memory.last = last.or(memory.purged);
            memory.flushed = memory.flushed.min(last.map(|id| id.index));
            memory.generation += 1;
            Change::Truncate(from)
        })
        .await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.done(|memory| {
            memory.tail.purge(upto.index);
            memory.purged = memory.purged.max(Some(upto));
            memory.last = memory.last.max(memory.purged);
            memory.generation += 1;
            Change::Purge(upto)
        })
        .await
    }
}

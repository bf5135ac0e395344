//! The log on disk, as openraft and the readers see it.

use super::disk::Disk;
use super::types::{Entry, EntryContent, IoFlushed, LogId, LogTypes, Vote};
use beam_wire::env::Env;
use beam_wire::ids::{Epoch, Name};
use openraft::storage::{LogState, RaftLogReader, RaftLogStorage};
use openraft::OptionalSend;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// A directory belongs to one cluster for ever.
    pub cluster: Name,
    /// A segment takes no more entries once their values have this many bytes.
    pub segment_bytes: u64,
    /// The newest entries are kept in memory, up to this many bytes.
    pub cache_bytes: u64,
}

impl StoreOptions {
    pub fn new(cluster: Name) -> Self {
        Self { cluster, segment_bytes: 64 << 20, cache_bytes: 32 << 20 }
    }
}

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Io(#[from] io::Error),
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

/// The log of one node. Cheap to clone; it ends when the last clone is dropped.
#[derive(Clone)]
pub struct LogStore(Arc<()>);

impl LogStore {
    pub async fn open(_env: &Env, _disk: Arc<dyn Disk>, _options: StoreOptions) -> Result<Self, StoreError> {
        todo!()
    }
    /// Drawn when the directory was empty; never the same again on another directory.
    pub fn raft_id(&self) -> u64 {
        todo!()
    }
    pub fn cluster(&self) -> &Name {
        todo!()
    }
    /// None until the cluster was born, as far as this node knows.
    pub fn epoch(&self) -> Option<Epoch> {
        todo!()
    }
    /// Durable on return.
    pub async fn set_epoch(&self, _epoch: Epoch) -> io::Result<()> {
        todo!()
    }
    /// Whether this node has never voted, nor held an entry.
    pub fn is_pristine(&self) -> bool {
        todo!()
    }
    pub fn state(&self) -> StoreState {
        todo!()
    }
    pub fn vote(&self) -> Option<Vote> {
        todo!()
    }
    /// The entries `from..=to` as far as the log holds them, one at least, then no more than
    /// `max_bytes` of bodies. An index that is gone is an error of kind `NotFound`.
    pub async fn read(&self, _from: u64, _to: u64, _max_bytes: usize) -> io::Result<Vec<(u64, EntryContent)>> {
        todo!()
    }
    /// The id of the entry at an index that the log holds.
    pub async fn log_id(&self, _index: u64) -> io::Result<Option<LogId>> {
        todo!()
    }
    /// Writes what is written lazily, closes all files, and returns when that is done. What is asked
    /// of the log afterwards fails.
    pub async fn close(&self) -> io::Result<()> {
        todo!()
    }
}

impl RaftLogReader<LogTypes> for LogStore {
    async fn try_get_log_entries<R>(&mut self, _range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        todo!()
    }
    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        todo!()
    }
}

impl RaftLogStorage<LogTypes> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<LogTypes>> {
        todo!()
    }
    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }
    async fn save_vote(&mut self, _vote: &Vote) -> io::Result<()> {
        todo!()
    }
    async fn append<I>(&mut self, _entries: I, _flushed: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        todo!()
    }
    async fn truncate_after(&mut self, _last: Option<LogId>) -> io::Result<()> {
        todo!()
    }
    async fn purge(&mut self, _upto: LogId) -> io::Result<()> {
        todo!()
    }
}

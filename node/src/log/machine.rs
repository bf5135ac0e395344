//! What the log does with its own committed entries: very little. It says how far it has applied,
//! remembers the membership, and passes discards on.

use super::store::LogStore;
use super::types::{Entry, LogId, LogTypes, Snapshot, SnapshotData, SnapshotMeta, StoredMembership, Watch};
use futures::Stream;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::OptionalSend;
use std::io;
use std::sync::Arc;

/// Called for every committed entry, in order, before [`Machine::applied`] says so. It must not block.
pub type OnApply = Arc<dyn Fn(&Entry) + Send + Sync>;

pub struct Machine(());

impl Machine {
    pub fn new(_store: LogStore, _on_apply: OnApply) -> Self {
        todo!()
    }
    /// The newest entry that was applied.
    pub fn applied(&self) -> Watch<Option<LogId>> {
        todo!()
    }
    /// The newest entry that a committed discard lets go, whether or not it is gone already. Whoever
    /// holds the `Raft` follows this, at the start too: trigger a snapshot, which will stand at this
    /// entry, wait until the metrics show it, then purge up to it.
    pub fn discarded(&self) -> Watch<Option<LogId>> {
        todo!()
    }
}

impl RaftStateMachine<LogTypes> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        todo!()
    }
    async fn apply<S>(&mut self, _entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<LogTypes>>> + Unpin + OptionalSend,
    {
        todo!()
    }
    async fn get_snapshot_builder(&mut self) -> Builder {
        todo!()
    }
    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, _data: SnapshotData) -> io::Result<()> {
        todo!()
    }
    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        todo!()
    }
}

/// Describes the state of a [`Machine`].
pub struct Builder(());

impl RaftSnapshotBuilder<LogTypes> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        todo!()
    }
}

//! What the log does with its own committed entries: very little. It says how far it has applied,
//! remembers the membership, and passes discards on.
//!
//! All of it follows from the log, and is made durable lazily: after a restart, what was applied since is
//! applied again.

use super::meta::MachineState;
use super::store::LogStore;
use super::types::{
    Entry, EpochBegan, LogCommand, LogId, LogTypes, Snapshot, SnapshotData, SnapshotMeta, StoredMembership, Watch,
    WatchSender,
};
use futures::{Stream, StreamExt};
use openraft::async_runtime::WatchSender as _;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, OptionalSend};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Called for every committed entry, in order, before [`Machine::applied`] says so; after a restart again
/// for those that it was called for since the position was last durable. It must not block.
pub type OnApply = Arc<dyn Fn(&Entry) + Send + Sync>;

/// Entries after which waiters are told, if more are at hand.
const APPLY_AT_ONCE: usize = 256;

pub struct Machine {
    store: LogStore,
    on_apply: OnApply,
    state: MachineState,
    applied: WatchSender<Option<LogId>>,
    discarded: WatchSender<Option<LogId>>,
    built: Built,
}

/// The newest snapshot. It needs no place on disk: it can be built again at any time.
type Built = Arc<Mutex<Option<Snapshot>>>;

impl Machine {
    pub fn new(store: LogStore, on_apply: OnApply) -> Self {
        let state = MachineState::clone(&store.machine());
        let (applied, _) = LogTypes::watch_channel(state.applied);
        let (discarded, _) = LogTypes::watch_channel(state.discarded);
        Self { store, on_apply, state, applied, discarded, built: Built::default() }
    }

    /// The newest entry that was applied.
    pub fn applied(&self) -> Watch<Option<LogId>> {
        self.applied.subscribe()
    }

    /// The newest entry that a committed discard lets go, whether or not it is gone already. Whoever
    /// holds the `Raft` follows this, at the start too: trigger a snapshot, which will stand at this
    /// entry, wait until the metrics show it, then purge up to it.
    pub fn discarded(&self) -> Watch<Option<LogId>> {
        self.discarded.subscribe()
    }

    async fn apply_one(&mut self, entry: &Entry) -> io::Result<()> {
        match &entry.payload {
            EntryPayload::Blank | EntryPayload::Normal(LogCommand::Data { .. }) => {}
            EntryPayload::Membership(membership) => {
                self.state.memberships.push(StoredMembership::new(Some(entry.log_id), membership.clone()));
            }
            // A discard lets go of nothing from its own place on.
            EntryPayload::Normal(LogCommand::Discard { before }) => {
                if let Some(last) = (*before).min(entry.log_id.index).checked_sub(1) {
                    self.discard(last).await?;
                }
            }
            EntryPayload::Normal(LogCommand::Drain { datacenters }) => {
                self.state.course.drained.clone_from(datacenters);
            }
            EntryPayload::Normal(LogCommand::Begin { epoch, kept, .. }) => {
                // Who was out of order before may be all that is left.
                self.state.course.drained.clear();
                // After a restart, and after a snapshot, it may be known already.
                if self.state.course.epochs.last().is_none_or(|last| last.epoch < *epoch) {
                    self.state.course.epochs.push(EpochBegan { epoch: *epoch, kept: *kept });
                }
            }
        }
        self.state.applied = Some(entry.log_id);
        (self.on_apply)(entry);
        Ok(())
    }

    async fn discard(&mut self, last: u64) -> io::Result<()> {
        if self.state.discarded.is_some_and(|id| id.index >= last) {
            return Ok(());
        }
        // After a restart, what is applied again may be gone already.
        if let Some(id) = self.store.log_id(last).await? {
            self.state.discarded = Some(id);
            forget_before(&mut self.state.memberships, id);
        }
        Ok(())
    }

    fn publish(&self) {
        set(&self.applied, self.state.applied);
        set(&self.discarded, self.state.discarded);
    }

    fn built(&self) -> Option<Snapshot> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Drops the memberships that no snapshot can stand at any more.
fn forget_before(memberships: &mut Vec<StoredMembership>, id: LogId) {
    let later = |m: &StoredMembership| m.log_id().as_ref().is_some_and(|at| at.index > id.index);
    let first_later = memberships.iter().position(later).unwrap_or(memberships.len());
    memberships.drain(..first_later.saturating_sub(1));
}

fn set(watch: &WatchSender<Option<LogId>>, value: Option<LogId>) {
    watch.send_if_modified(|old| {
        let changed = *old != value;
        *old = value;
        changed
    });
}

impl RaftStateMachine<LogTypes> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.state.applied, self.state.membership()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<LogTypes>>> + Unpin + OptionalSend,
    {
        let mut entries = entries.ready_chunks(APPLY_AT_ONCE);
        while let Some(chunk) = entries.next().await {
            let mut replies = Vec::new();
            for item in chunk {
                let (entry, reply) = item?;
                self.apply_one(&entry).await?;
                replies.extend(reply);
            }
            self.store.set_machine(Arc::new(self.state.clone()))?;
            self.publish();
            replies.into_iter().for_each(|reply| reply.send(()));
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: self.store.clone(), state: self.state.clone(), built: self.built.clone() }
    }

    /// What this node held is behind the snapshot, and openraft will purge it.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        match (self.store.epoch(), data.epoch) {
            (Some(own), Some(other)) if own != other => {
                return Err(io::Error::other(format!("a snapshot of epoch {other} came to a log of epoch {own}")));
            }
            (None, Some(epoch)) => self.store.set_epoch(epoch).await?,
            _ => {}
        }
        self.state = MachineState {
            applied: meta.last_log_id,
            discarded: meta.last_log_id,
            memberships: vec![meta.last_membership.clone()],
            course: data.course.clone(),
        };
        self.store.set_machine(Arc::new(self.state.clone()))?;
        self.store.save().await?;
        let snapshot = Snapshot { meta: meta.clone(), snapshot: data };
        *self.built.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.built())
    }
}

/// Describes the state of a [`Machine`].
pub struct Builder {
    store: LogStore,
    state: MachineState,
    built: Built,
}

impl RaftSnapshotBuilder<LogTypes> for Builder {
    type SnapshotData = SnapshotData;

    /// It stands at the discard point, not at the last entry applied, so that whoever begins with it is
    /// sent all entries that are kept. It stands at the last entry only if nothing was ever discarded.
    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let at = self.state.discarded.max(self.store.state().purged).or(self.state.applied);
        let meta = SnapshotMeta { last_log_id: at, last_membership: self.state.membership_at(at) };
        let snapshot =
            Snapshot { meta, snapshot: SnapshotData { epoch: self.store.epoch(), course: self.state.course.clone() } };
        *self.built.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
        Ok(snapshot)
    }
}

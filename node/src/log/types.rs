//! The types that openraft is made with, and what an entry of ours holds.

use super::runtime::Runtime;
use beam_wire::ids::{Epoch, LogIndex, Name, Origin};
use bytes::Bytes;
use openraft::alias;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

pub use beam_wire::message::log::{Entry as EntryContent, EpochBegan};

openraft::declare_raft_types!(
    /// Everything that openraft lets us choose.
    pub LogTypes:
        D = LogCommand,
        R = (),
        NodeId = u64,
        Node = LogNode,
        AsyncRuntime = Runtime,
);

pub type LogId = alias::LogIdOf<LogTypes>;
pub type Vote = alias::VoteOf<LogTypes>;
pub type Entry = alias::EntryOf<LogTypes>;
pub type StoredMembership = alias::StoredMembershipOf<LogTypes>;
pub type Membership = openraft::Membership<u64, LogNode>;
pub type SnapshotMeta = alias::SnapshotMetaOf<LogTypes>;
pub type Snapshot = alias::SnapshotOf<LogTypes, SnapshotData>;
pub type IoFlushed = openraft::storage::IOFlushed<LogTypes>;
/// Wakes its waiters in the order in which they came.
pub type Watch<T> = alias::WatchReceiverOf<LogTypes, T>;
pub type WatchSender<T> = alias::WatchSenderOf<LogTypes, T>;

/// What the log can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogCommand {
    /// A proposal. The log never looks into `body`.
    Data { origin: Origin, body: Bytes },
    /// Every log node drops the entries below `before`, in whole segments.
    Discard { before: u64 },
    /// From now on the leader stays out of these datacenters, and only of these.
    Drain { datacenters: BTreeSet<Name> },
    /// A new epoch begins: the entries up to `kept` are those of the epoch before. Readers see the body,
    /// which tells the views.
    Begin { epoch: Epoch, kept: LogIndex, origin: Origin, body: Bytes },
}

impl fmt::Display for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { origin, body } => {
                write!(f, "{} bytes from {}/{:x}/{}", body.len(), origin.node, origin.boot, origin.sequence)
            }
            Self::Discard { before } => write!(f, "discard before {before}"),
            Self::Drain { datacenters } => {
                let names: Vec<_> = datacenters.iter().map(Name::as_str).collect();
                write!(f, "drained: {}", if names.is_empty() { "none".into() } else { names.join(", ") })
            }
            Self::Begin { epoch, kept, .. } => write!(f, "epoch {epoch} begins, entries up to {kept} are kept"),
        }
    }
}

/// What Raft's membership says about a log node, beside its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogNode {
    pub node: Name,
    pub datacenter: Name,
}

/// openraft's suite of storage cases makes nodes up.
#[cfg(test)]
impl Default for LogNode {
    fn default() -> Self {
        let name: Name = "made-up".parse().expect("this is a name");
        Self { node: name.clone(), datacenter: name }
    }
}

impl fmt::Display for LogNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.node, self.datacenter)
    }
}

/// What the log's own commands have made of it, beside its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// The datacenters that the leader stays out of.
    pub drained: BTreeSet<Name>,
    /// All epochs but the first, in order.
    pub epochs: Vec<EpochBegan>,
}

/// All that a Raft snapshot of ours carries beside its own description (which names the discard
/// point and the membership there): entries are never copied by snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotData {
    /// None before the cluster was born.
    pub epoch: Option<Epoch>,
    /// As the sender knows it, which may be further than the snapshot: what is applied again changes nothing.
    pub course: Course,
}

/// What a reader is given for an entry: Raft's own entries and the log's own commands are skips.
pub fn content(entry: &Entry) -> EntryContent {
    match &entry.payload {
        openraft::EntryPayload::Normal(LogCommand::Data { origin, body } | LogCommand::Begin { origin, body, .. }) => {
            EntryContent::Data { origin: origin.clone(), body: body.clone() }
        }
        openraft::EntryPayload::Normal(LogCommand::Discard { .. } | LogCommand::Drain { .. })
        | openraft::EntryPayload::Blank
        | openraft::EntryPayload::Membership(_) => EntryContent::Skip,
    }
}

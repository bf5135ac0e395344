//! Calls that log nodes answer. Any log node answers all of them; appends are forwarded to the
//! leader. The log never looks into the bodies of entries.

use super::{Call, Kind};
use crate::ids::{Epoch, LogIndex, Name, Origin, Version};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The largest body of an entry, in bytes. With its frame it stays below the 1 MiB of a control
/// frame.
pub const BODY_BYTES_MAX: usize = 900 * 1024;

/// Opens a stream of appends. Items are batches of proposals; replies are their indexes, in order.
/// An acknowledged proposal is on the disks of a majority. Appends are at least once: when the
/// call fails, proposals without an index may or may not be in the log, now or later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAppend {
    /// Refuse if the cluster is in another epoch.
    pub epoch: Option<Epoch>,
    /// Set by a log node that forwards: the receiver must lead, and does not forward again.
    pub forwarded: bool,
}

/// What an append stream carries to the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposals {
    /// Appended in this order; together below the limit of a frame.
    pub proposals: Vec<Proposal>,
}

/// One entry to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Given by the first log node that takes the proposal.
    pub origin: Option<Origin>,
    /// At most [`BODY_BYTES_MAX`] bytes.
    pub body: Bytes,
}

/// Proposals that are in the log now: the indexes of the oldest ones that were not yet answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The epoch of all these indexes.
    pub epoch: Epoch,
    /// One for each proposal, in the order in which they were sent.
    pub indexes: Vec<LogIndex>,
}

impl Call for LogAppend {
    const KIND: Kind = Kind::LogAppend;
    type Item = Proposals;
    type Reply = Appended;
}

/// Reads committed entries from an index on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRead {
    /// Refuse if the cluster is in another epoch.
    pub epoch: Option<Epoch>,
    /// The first index wanted.
    pub from: LogIndex,
    /// At the end, wait for more instead of ending.
    pub follow: bool,
}

/// A run of the log: the entries follow one another without a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The newest index known to be committed, for lag.
    pub committed: LogIndex,
    /// The index of the first entry below.
    pub first: LogIndex,
    /// Contiguous from `first` on. Empty only to report `committed`.
    pub entries: Vec<Entry>,
}

/// What lies at an index of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Raft, or the log itself, wrote this: it has an index and no data.
    Skip,
    /// A proposal.
    Data {
        /// Where it came from.
        origin: Origin,
        /// What was appended.
        body: Bytes,
    },
}

impl Call for LogRead {
    const KIND: Kind = Kind::LogRead;
    type Item = ();
    type Reply = Entries;
}

/// Asks for the newest index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTail {
    /// At least everything that was acknowledged before the call began (asks a majority), or what
    /// this node knows to be committed.
    pub linearizable: bool,
    /// Set by a log node that forwards: the receiver must lead, and does not forward again.
    pub forwarded: bool,
}

impl Call for LogTail {
    const KIND: Kind = Kind::LogTail;
    type Item = ();
    type Reply = Version;
}

/// Asks a log node about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogInfo;

/// What a log node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogInfoReply {
    /// The node that answers.
    pub node: Name,
    /// Its Raft id: drawn anew whenever its disk is empty, so that a node that lost data never
    /// votes under its old one.
    pub raft_id: u64,
    /// None until the cluster was born.
    pub epoch: Option<Epoch>,
    /// The lowest index that can be read.
    pub first: LogIndex,
    /// The highest index on this node, committed or not; none when the log is empty.
    pub last: Option<LogIndex>,
    /// The highest index known to be committed; none before the first.
    pub committed: Option<LogIndex>,
    /// Bytes of all segments on disk.
    pub bytes: u64,
    /// Raft's term.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<Name>,
    /// All members, by node name. Empty before the cluster was born.
    pub members: Vec<Member>,
}

/// One log node, as Raft sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// Its Raft id.
    pub raft_id: u64,
    /// Whether it votes; else it learns.
    pub voter: bool,
    /// The highest index that the leader knows it to hold. Only the leader says this.
    pub matched: Option<LogIndex>,
}

impl Call for LogInfo {
    const KIND: Kind = Kind::LogInfo;
    type Item = ();
    type Reply = LogInfoReply;
}

/// Asks a log node how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus;

/// What an operator wants to know of a log node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatusReply {
    /// What it says of the log.
    pub info: LogInfoReply,
    /// Raft's term of its last entry: of two logs, the one of the higher term, then of the higher index, is newer.
    pub last_term: Option<u64>,
    /// Where each epoch but the first began, in order.
    pub epochs: Vec<EpochBegan>,
    /// The datacenters that the leader stays out of.
    pub drained: Vec<Name>,
    /// What is left of its disk, in bytes, as far as the machine tells.
    pub free_bytes: Option<u64>,
    /// Whether the disk is too full to take more.
    pub full: bool,
    /// How often this node, when it leads, asks every member whether it still does, in milliseconds.
    pub heartbeat_ms: u32,
    /// For how long those who heard the leader refuse another, in milliseconds.
    pub lease_ms: u32,
    /// The round trips to the other log nodes that it is connected to.
    pub round_trips: Vec<RoundTrip>,
    /// What is not as it should be, one sentence each.
    pub warnings: Vec<String>,
}

/// Where an epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochBegan {
    /// The epoch.
    pub epoch: Epoch,
    /// The newest entry of the epoch before that is in the log: up to it, indexes mean the same in both.
    pub kept: LogIndex,
}

/// Up to which index versions of an epoch mean the same in the newest one: without end for the newest itself, none
/// for an epoch that is not in its past. `epochs` are all but the first, in order.
pub fn shared_up_to(epochs: &[EpochBegan], of: Epoch) -> Option<LogIndex> {
    let first = Epoch(1);
    let known = of == first || epochs.iter().any(|began| began.epoch == of);
    let later = epochs.iter().filter(|began| began.epoch > of).map(|began| began.kept).min();
    known.then(|| later.unwrap_or(LogIndex(u64::MAX)))
}

/// How far another node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// The other node.
    pub node: Name,
    /// In microseconds, smoothed.
    pub micros: u32,
}

impl Call for LogStatus {
    const KIND: Kind = Kind::LogStatus;
    type Item = ();
    type Reply = LogStatusReply;
}

/// Asks a log node what it would bring to a recovery from a lost majority, and gives it its part in one. It needs no
/// leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecover {
    /// Its part, if it shall have one. It is durable when this is answered; the node then restarts by itself, and
    /// carries it out.
    pub order: Option<RecoverOrder>,
}

/// A log node's part in a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverOrder {
    /// Names the plan.
    pub token: u64,
    /// Whom it is for.
    pub node: Name,
    /// What the plan was made from: if the node's log is another now, it refuses.
    pub seen: LogEnd,
    /// What it shall do.
    pub part: RecoverPart,
}

/// What a log node shall do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoverPart {
    /// Begin an epoch with all that it holds, as the only member.
    Refound {
        /// The epoch.
        epoch: Epoch,
    },
    /// Set its log aside, which belongs to an epoch that is over, and begin with an empty one. It makes sure that the
    /// newer epoch is there, and comes from its own.
    SetAside {
        /// The newer epoch.
        epoch: Epoch,
        /// A log node that is in it.
        founder: Name,
    },
}

/// Where a node's log ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogEnd {
    /// The node's Raft id.
    pub raft_id: u64,
    /// The epoch; none until the cluster was born.
    pub epoch: Option<Epoch>,
    /// The term of the last entry.
    pub term: Option<u64>,
    /// The index of the last entry.
    pub last: Option<LogIndex>,
}

impl std::fmt::Display for LogEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "none".into());
        let epoch = or_none(self.epoch.map(|epoch| epoch.to_string()));
        let last = or_none(self.last.map(|last| last.to_string()));
        let term = self.term.map(|term| format!(" of term {term}")).unwrap_or_default();
        write!(f, "of epoch {epoch}, ends at entry {last}{term}, Raft id {:x}", self.raft_id)
    }
}

/// What a log node brings to a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecoverReply {
    /// How it is.
    pub status: LogStatusReply,
    /// The Raft ids of the voters, as it knows them: a majority of each of these sets decides.
    pub voters: Vec<Vec<u64>>,
    /// If it leads: how long ago a majority has answered it, in milliseconds.
    pub majority_ms_ago: Option<u64>,
    /// How long ago it has heard a leader, in milliseconds.
    pub leader_ms_ago: Option<u64>,
    /// The plan of which it has a part that it has not carried out yet.
    pub pending: Option<u64>,
}

impl LogRecoverReply {
    /// Where its log ends.
    pub fn end(&self) -> LogEnd {
        let info = &self.status.info;
        LogEnd { raft_id: info.raft_id, epoch: info.epoch, term: self.status.last_term, last: info.last }
    }
}

impl Call for LogRecover {
    const KIND: Kind = Kind::LogRecover;
    type Item = ();
    type Reply = LogRecoverReply;
}

/// Drops all entries below an index, on every log node, in whole segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDiscard {
    /// The epoch of `before`.
    pub epoch: Epoch,
    /// The lowest index to keep.
    pub before: LogIndex,
    /// Set by a log node that forwards: the receiver must lead, and does not forward again.
    pub forwarded: bool,
}

impl Call for LogDiscard {
    const KIND: Kind = Kind::LogDiscard;
    type Item = ();
    /// Where the discard itself lies in the log.
    type Reply = Version;
}

/// Asks for a change of the log's members, of its leader, or of the datacenters that the leader stays out
/// of: for its plan, or that it be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChange {
    /// Refuse if the cluster is in another epoch.
    pub epoch: Option<Epoch>,
    /// What is to be.
    pub change: Change,
    /// Do it; none to be shown the plan alone.
    pub apply: Option<Apply>,
    /// Set by a log node that forwards: the receiver must lead, and does not forward again.
    pub forwarded: bool,
}

/// What can be changed while the log runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A node that is no member yet learns from now on.
    Add {
        /// The node. It runs, and its log is empty, or one of this cluster and epoch.
        node: Name,
        /// Its datacenter, as its certificate says.
        datacenter: Name,
    },
    /// Learners vote from now on, all at once.
    Promote {
        /// The nodes.
        nodes: Vec<Name>,
    },
    /// Members are no members any more, all at once.
    Remove {
        /// The members.
        members: Vec<MemberName>,
    },
    /// A node that has lost its disk, and so drew another Raft id, learns, and when it has caught up takes
    /// the place of its old id.
    Replace {
        /// The node.
        node: Name,
    },
    /// The leader hands over to this node.
    Lead {
        /// The node.
        node: Name,
    },
    /// The leader stays out of a datacenter, until [`Change::Return`].
    Drain {
        /// The datacenter.
        datacenter: Name,
    },
    /// The leader may be in a datacenter again.
    Return {
        /// The datacenter.
        datacenter: Name,
    },
}

/// A member, by name. A node that has lost its disk may be there twice, under two Raft ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberName {
    /// The node.
    pub node: Name,
    /// Its Raft id; none for all that the node has.
    pub raft_id: Option<u64>,
}

/// That a change be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// What [`Plan::at`] of the plan said that was agreed to: if the members have changed since, nothing is done.
    pub seen: LogIndex,
    /// Do what [`Plan::refused`] warns of, too.
    pub force: bool,
}

/// What a change would do, or has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChangeReply {
    /// As of now: when a change takes several steps, what is left of it.
    pub plan: Plan,
    /// The version at which all of it is done; none if it was not asked for, or waits ([`Plan::waits`]):
    /// then ask again.
    pub done: Option<Version>,
}

/// What a change would do. Sentences are for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where the newest change of members lies in the log.
    pub at: LogIndex,
    /// The members now.
    pub before: Vec<Member>,
    /// The members afterwards.
    pub after: Vec<Member>,
    /// The datacenters that the leader stays out of afterwards.
    pub drained: Vec<Name>,
    /// The leader afterwards, if the change says.
    pub leader: Option<Name>,
    /// All is as asked already.
    pub nothing_to_do: bool,
    /// What happens, and what may fail afterwards.
    pub notes: Vec<String>,
    /// What is allowed and unwise.
    pub warnings: Vec<String>,
    /// What must come first, and how far it is. It comes by itself.
    pub waits: Option<String>,
    /// Why it is not done unless forced.
    pub refused: Option<String>,
    /// Why it cannot be done at all.
    pub impossible: Option<String>,
}

impl Call for LogChange {
    const KIND: Kind = Kind::LogChange;
    type Item = ();
    type Reply = LogChangeReply;
}

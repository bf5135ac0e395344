//! What log nodes say to each other. The payloads are openraft's own types in postcard, which only
//! the log knows; here they are bytes in an envelope that is checked before they are opened.

use super::{Call, Kind};
use crate::ids::{Epoch, Name};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Whom a Raft message is for, and from whom. The receiver compares it with itself and with the
/// sender's certificate before it believes a word: a lie in DNS must not count one node's
/// acknowledgement as another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The cluster.
    pub cluster: Name,
    /// The epoch; none before the cluster was born.
    pub epoch: Option<Epoch>,
    /// The sender's node name.
    pub from: Name,
    /// The sender's Raft id.
    pub from_raft_id: u64,
    /// The target's node name.
    pub to: Name,
    /// The target's Raft id.
    pub to_raft_id: u64,
}

/// One openraft message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftBytes(pub Bytes);

macro_rules! raft_call {
    ($(#[$doc:meta])* $name:ident, item = $item:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// Checked first.
            pub envelope: Envelope,
            /// The request; empty for streams.
            pub body: RaftBytes,
        }
        impl Call for $name {
            const KIND: Kind = Kind::$name;
            type Item = $item;
            type Reply = RaftBytes;
        }
    };
}

raft_call!(
    /// An ordered stream of append-entries requests, answered in order: pipelined replication.
    RaftPipe, item = RaftBytes
);
raft_call!(
    /// A vote or pre-vote request.
    RaftVote, item = ()
);
raft_call!(
    /// The discard point, epoch and membership: all that a Raft snapshot of ours carries.
    RaftSnapshot, item = ()
);
raft_call!(
    /// Hands leadership over.
    RaftTransfer, item = ()
);
raft_call!(
    /// A single append-entries request outside the pipe: heartbeats and read-index probes.
    RaftHeartbeat, item = RaftBytes
);

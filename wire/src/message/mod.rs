//! Every call that one peer may make of another.
//!
//! A call is a request, zero or more further items from the caller, zero or more replies, and an
//! end. [`Call`] ties the types together; [`Kind`] is its number on the wire; [`allow`] says which
//! role may make it. Nothing here knows how bytes travel.

pub mod allow;
pub mod api;
pub mod hello;
pub mod log;
pub mod raft;
pub mod view;

use serde::{Serialize, de::DeserializeOwned};

/// The number of a call on the wire. A promise: numbers are only ever added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
#[allow(missing_docs, reason = "each is documented at the request type of the same name")]
pub enum Kind {
    Hello = 1,
    LogAppend = 16,
    LogRead = 17,
    LogTail = 18,
    LogInfo = 19,
    LogDiscard = 20,
    LogStatus = 21,
    LogChange = 22,
    LogRecover = 23,
    RaftPipe = 32,
    RaftVote = 33,
    RaftSnapshot = 34,
    RaftTransfer = 35,
    RaftHeartbeat = 36,
    ViewStatus = 48,
    ViewLookup = 49,
    ViewTerms = 50,
    ViewVerdict = 51,
    ViewCount = 52,
    ViewCopy = 53,
    ViewCheckpoint = 54,
    ViewRules = 55,
    ViewInstances = 56,
    ViewHold = 57,
    ViewDrop = 58,
    ViewVerdicts = 59,
    ViewVerify = 62,
    ViewLoad = 63,
    ApiQuery = 64,
    ApiUpdate = 65,
    ApiTransact = 66,
    ApiStatus = 67,
    ApiRead = 68,
    ApiWatch = 69,
    ApiCommitted = 70,
    ApiLoad = 75,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Kind; 36] = [
        Kind::Hello,
        Kind::LogAppend,
        Kind::LogRead,
        Kind::LogTail,
        Kind::LogInfo,
        Kind::LogDiscard,
        Kind::LogStatus,
        Kind::LogChange,
        Kind::LogRecover,
        Kind::RaftPipe,
        Kind::RaftVote,
        Kind::RaftSnapshot,
        Kind::RaftTransfer,
        Kind::RaftHeartbeat,
        Kind::ViewStatus,
        Kind::ViewLookup,
        Kind::ViewTerms,
        Kind::ViewVerdict,
        Kind::ViewCount,
        Kind::ViewCopy,
        Kind::ViewCheckpoint,
        Kind::ViewRules,
        Kind::ViewInstances,
        Kind::ViewHold,
        Kind::ViewDrop,
        Kind::ViewVerdicts,
        Kind::ViewVerify,
        Kind::ViewLoad,
        Kind::ApiQuery,
        Kind::ApiUpdate,
        Kind::ApiTransact,
        Kind::ApiStatus,
        Kind::ApiRead,
        Kind::ApiWatch,
        Kind::ApiCommitted,
        Kind::ApiLoad,
    ];

    /// The kind with this number, if there is one.
    pub fn from_number(number: u16) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| *k as u16 == number)
    }
}

/// A request, and what belongs to it.
pub trait Call: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its number.
    const KIND: Kind;
    /// What the caller sends after the request. `()` where nothing follows.
    type Item: Serialize + DeserializeOwned + Send + 'static;
    /// What comes back, any number of times.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

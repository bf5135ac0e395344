//! How a call fails: a code for programs, a sentence for people, and what to do next.

use crate::ids::Name;
use serde::{Deserialize, Serialize};

/// Why a call failed. Numbers are promises: they are only ever added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u16)]
#[non_exhaustive]
pub enum Code {
    /// The peer failed in a way that it has no better word for.
    Internal = 0,
    /// The request is not well formed, or asks for something that cannot be.
    Invalid = 1,
    /// The caller's role may not make this call.
    Denied = 2,
    /// The peer does not know this kind of call.
    UnknownKind = 3,
    /// A frame or value is above its limit.
    TooLarge = 4,
    /// The deadline passed.
    Deadline = 5,
    /// The peer has too much to do, and has done nothing of what was asked.
    Overloaded = 6,
    /// The peer is starting, stopping, or cannot reach those it needs.
    Unavailable = 7,
    /// No majority of log nodes answers.
    NoQuorum = 8,
    /// This log node does not lead.
    NotLeader = 9,
    /// The log no longer holds that index.
    Discarded = 10,
    /// The version is older than what the view keeps.
    TooOld = 11,
    /// The index lies beyond what the peer has reached.
    Ahead = 12,
    /// The version belongs to another epoch.
    WrongEpoch = 13,
    /// The view does not hold the asked points.
    NotHere = 14,
    /// The query would need more memory than it may use.
    QueryTooLarge = 15,
    /// The transaction read what another has written since.
    Conflict = 16,
    /// It cannot be said any more whether the transaction was committed.
    OutcomeUnknown = 17,
    /// The transaction was refused by every view.
    Rejected = 18,
    /// The disk is full or failing.
    Storage = 19,
    /// The peer does what is asked, but not yet.
    Unsupported = 20,
    /// The connection broke before the answer was whole.
    Disconnected = 21,
}

/// Whether and where to try a failed call again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// The same peer, after a pause.
    Later {
        /// How long to wait, in milliseconds.
        after_ms: u32,
    },
    /// Another peer that serves the same, at once.
    Elsewhere,
    /// This peer.
    At(Name),
}

/// What the caller of a failed call is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// For programs.
    pub code: Code,
    /// For people: what, where, what to do.
    pub message: String,
    /// What to do next.
    pub retry: Retry,
}

impl CallError {
    /// An error that would come again.
    pub fn never(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: Retry::Never }
    }
    /// An error that another peer may not have.
    pub fn elsewhere(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: Retry::Elsewhere }
    }
    /// An error that passes.
    pub fn later(code: Code, after_ms: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: Retry::Later { after_ms } }
    }
    /// Whether trying again, here or elsewhere, can help.
    pub fn is_retryable(&self) -> bool {
        self.retry != Retry::Never
    }
}

impl From<crate::codec::DecodeError> for CallError {
    fn from(e: crate::codec::DecodeError) -> Self {
        Self::never(Code::Invalid, e.to_string())
    }
}

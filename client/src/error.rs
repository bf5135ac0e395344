//! Why a call to the cluster failed.

use beam_wire::command::CommandError;
use beam_wire::quic::{EndpointError, NobodyKnown};
use beam_wire::term::TermError;
use beam_wire::{CallError, Code, Name, TransactionId};
use std::time::Duration;

/// Why a call to the cluster failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No UDP socket, or a certificate that cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// DNS names no api node.
    #[error("no api node can be found")]
    NoApiNode(#[from] NobodyKnown),
    /// An api node refused the call, and others would too.
    #[error("{node}: {error}")]
    Refused {
        /// The api node.
        node: Name,
        /// What it said.
        error: CallError,
    },
    /// The database was recovered from a disaster, or restored, since the version that the call depends on; and that
    /// version, or what was written after it, is not in it any more. For a write: the attempt that was refused changed
    /// nothing; if an earlier one may have come through, make it anew with the same id. The error names both epochs. Reading
    /// anew ([`crate::Session::forget`]) shows what is there. [`crate::Client::write`] and [`crate::Client::transaction`] do
    /// so themselves.
    #[error("{node}: {error}")]
    EpochChanged {
        /// The api node.
        node: Name,
        /// What it said.
        error: CallError,
    },
    /// The api node is older than this program and does not know the call, and no other was found that does. Nothing
    /// was changed. Upgrade the api nodes, or do without the call.
    #[error("{node} is older than this program, and no api node was found that is not: upgrade it ({error})")]
    NodeTooOld {
        /// The api node.
        node: Name,
        /// What it said.
        error: CallError,
    },
    /// No api node answered in time. Nothing was changed.
    #[error("no api node answered within {} s{}", .after.as_secs_f64(), and_the(.last))]
    Unavailable {
        /// How long was tried.
        after: Duration,
        /// The node that was asked last, and how it failed.
        last: Option<Box<(Name, CallError)>>,
    },
    /// It cannot be said whether the write was done. [`crate::Client::committed`] says whether it was so far; made
    /// again with the same id ([`crate::Client::transaction_as`]) it happens once. [`ClientError::may_be_known_later`] tells whether
    /// either can still say so.
    #[error("it is not known whether the write was done{}", and_the(.last))]
    OutcomeUnknown {
        /// The id of the transaction.
        id: TransactionId,
        /// The node that was asked last, and how it failed.
        last: Option<Box<(Name, CallError)>>,
    },
    /// Others kept writing what a transaction reads, until its time was over. It changed nothing.
    #[error(
        "others kept writing what the transaction reads: {attempts} attempts met a conflict; the last, {node}: {error}"
    )]
    Conflicts {
        /// How often it was tried.
        attempts: u32,
        /// The api node that was asked last.
        node: Name,
        /// What it said.
        error: CallError,
    },
    /// A transaction is one entry of the log, and this one does not fit. It was not sent.
    #[error("the transaction holds {count} {what}, and {max} at most fit into one: cut it into several")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much that is.
        count: usize,
        /// How much may be.
        max: usize,
    },
    /// A transaction was used after its end: it has been committed, or given up.
    #[error("the transaction is over: what is read or written through it after its end would not be part of it")]
    Over,
    /// The answer broke off after rows were handed out: ask again for all of it.
    #[error("the answer of {node} broke off: {error}")]
    BrokenOff {
        /// The api node.
        node: Name,
        /// How it broke off.
        error: CallError,
    },
    /// The term or fact is none that Beam stores.
    #[error(transparent)]
    Term(#[from] TermError),
    /// The command is none.
    #[error(transparent)]
    Command(#[from] CommandError),
}

fn and_the(last: &Option<Box<(Name, CallError)>>) -> String {
    last.as_deref().map(|(node, error)| format!("; the last, {node}: {error}")).unwrap_or_default()
}

impl ClientError {
    /// Whether the same call may succeed if it is made again, after a pause. A write for which this is
    /// true and that is not [`ClientError::OutcomeUnknown`] was not done.
    pub fn is_retryable(&self) -> bool {
        match self {
            ClientError::Unavailable { .. } | ClientError::NoApiNode(_) => true,
            // What broke off because it needs too much would do so again.
            ClientError::BrokenOff { error, .. } => error.is_retryable(),
            // A conflict: what was read has changed. Reading again and trying anew can succeed.
            ClientError::Refused { error, .. } => error.is_retryable() || error.code == Code::Conflict,
            ClientError::Conflicts { .. } => true,
            // Made again with another id it could be done twice.
            ClientError::OutcomeUnknown { .. } => false,
            // What was seen is gone: only the caller knows what that means for what it is about to do.
            ClientError::EpochChanged { .. } => false,
            ClientError::Endpoint(_) | ClientError::Term(_) | ClientError::Command(_) => false,
            // Until somebody upgrades it.
            ClientError::NodeTooOld { .. } => false,
            ClientError::TooLarge { .. } | ClientError::Over => false,
        }
    }

    /// Of a write whose outcome is not known: whether asking again, or making it again with the same id, may still tell. Not
    /// when its id is older than what the cluster remembers ([`crate::Client::committed`]); only the facts themselves can tell then. False
    /// for all other errors.
    pub fn may_be_known_later(&self) -> bool {
        match self {
            ClientError::OutcomeUnknown { last, .. } => last.as_ref().is_none_or(|last| last.1.is_retryable()),
            _ => false,
        }
    }

    /// The code that the cluster gave, or the one that fits best; none for faults of this machine.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Refused { error, .. } | ClientError::EpochChanged { error, .. } => Some(error.code),
            ClientError::BrokenOff { error, .. } | ClientError::Conflicts { error, .. } => Some(error.code),
            ClientError::NodeTooOld { .. } => Some(Code::UnknownKind),
            ClientError::TooLarge { .. } => Some(Code::TooLarge),
            ClientError::Over => Some(Code::Invalid),
            ClientError::NoApiNode(_) => Some(Code::Unavailable),
            ClientError::Unavailable { last, .. } => Some(last.as_ref().map_or(Code::Unavailable, |last| last.1.code)),
            ClientError::OutcomeUnknown { .. } => Some(Code::OutcomeUnknown),
            ClientError::Term(_) | ClientError::Command(_) => Some(Code::Invalid),
            ClientError::Endpoint(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::LogIndex;

    /// Kinds of errors. A new one must be given a number, and a row below, before this compiles and passes.
    const KINDS: usize = 13;

    fn kind(error: &ClientError) -> usize {
        match error {
            ClientError::Endpoint(_) => 0,
            ClientError::NoApiNode(_) => 1,
            ClientError::Refused { .. } => 2,
            ClientError::EpochChanged { .. } => 3,
            ClientError::NodeTooOld { .. } => 4,
            ClientError::Unavailable { .. } => 5,
            ClientError::OutcomeUnknown { .. } => 6,
            ClientError::Conflicts { .. } => 7,
            ClientError::TooLarge { .. } => 8,
            ClientError::Over => 9,
            ClientError::BrokenOff { .. } => 10,
            ClientError::Term(_) => 11,
            ClientError::Command(_) => 12,
        }
    }

    #[test]
    fn an_outcome_may_be_known_later_unless_the_id_is_too_old() {
        let unknown = |last: Option<CallError>| ClientError::OutcomeUnknown {
            id: TransactionId::new(LogIndex(1), 2),
            last: last.map(|error| Box::new((Name::new("api-va").unwrap(), error))),
        };
        assert!(unknown(None).may_be_known_later());
        assert!(unknown(Some(CallError::elsewhere(Code::Disconnected, "it is gone"))).may_be_known_later());
        assert!(unknown(Some(CallError::later(Code::OutcomeUnknown, 200, "ask again"))).may_be_known_later());
        assert!(!unknown(Some(CallError::never(Code::OutcomeUnknown, "too old"))).may_be_known_later());
        assert!(!ClientError::Over.may_be_known_later());
    }

    #[test]
    fn each_error_says_whether_to_try_again() {
        let node = || Name::new("api-va").unwrap();
        let refused = |error| ClientError::Refused { node: node(), error };
        let cases = [
            (refused(CallError::never(Code::Invalid, "no SPARQL")), false, Some(Code::Invalid)),
            (refused(CallError::never(Code::Denied, "a reader")), false, Some(Code::Denied)),
            (refused(CallError::never(Code::Conflict, "read again")), true, Some(Code::Conflict)),
            (
                ClientError::EpochChanged { node: node(), error: CallError::never(Code::WrongEpoch, "recovered") },
                false,
                Some(Code::WrongEpoch),
            ),
            (
                ClientError::BrokenOff { node: node(), error: CallError::elsewhere(Code::Disconnected, "it is gone") },
                true,
                Some(Code::Disconnected),
            ),
            (
                ClientError::BrokenOff { node: node(), error: CallError::never(Code::QueryTooLarge, "too much") },
                false,
                Some(Code::QueryTooLarge),
            ),
            (
                ClientError::Conflicts {
                    attempts: 3,
                    node: node(),
                    error: CallError::never(Code::Conflict, "read again"),
                },
                true,
                Some(Code::Conflict),
            ),
            (ClientError::TooLarge { what: "bytes", count: 2, max: 1 }, false, Some(Code::TooLarge)),
            (ClientError::Over, false, Some(Code::Invalid)),
            (ClientError::Unavailable { after: Duration::ZERO, last: None }, true, Some(Code::Unavailable)),
            (
                ClientError::Unavailable {
                    after: Duration::from_secs(3),
                    last: Some(Box::new((node(), CallError::later(Code::NoQuorum, 500, "no majority")))),
                },
                true,
                Some(Code::NoQuorum),
            ),
            (
                ClientError::OutcomeUnknown { id: TransactionId::new(LogIndex(1), 2), last: None },
                false,
                Some(Code::OutcomeUnknown),
            ),
            (
                ClientError::NodeTooOld { node: node(), error: CallError::never(Code::UnknownKind, "what?") },
                false,
                Some(Code::UnknownKind),
            ),
            (ClientError::NoApiNode(NobodyKnown { why: Vec::new() }), true, Some(Code::Unavailable)),
            (ClientError::Endpoint(EndpointError::Tls("no key".into())), false, None),
            (ClientError::Term(TermError::Iri("x".into())), false, Some(Code::Invalid)),
            (ClientError::Command(CommandError::Malformed("x".into())), false, Some(Code::Invalid)),
        ];
        let mut rows = [0; KINDS];
        for (error, retryable, code) in cases {
            assert_eq!((error.is_retryable(), error.code()), (retryable, code), "{error}");
            rows[kind(&error)] += 1;
        }
        assert!(rows.iter().all(|rows| *rows > 0), "a kind of error has no row: {rows:?}");
    }

    /// Every `Result` of the SDK carries one, on the way of those that go well, too: clippy warns users of 128 bytes and
    /// more.
    #[test]
    fn errors_are_small() {
        let bytes = size_of::<ClientError>();
        assert!(bytes <= 96, "{bytes} bytes");
    }

    #[test]
    fn the_last_node_is_named() {
        let last = Box::new((Name::new("api-or").unwrap(), CallError::later(Code::NoQuorum, 500, "no majority")));
        let error = ClientError::Unavailable { after: Duration::from_secs(3), last: Some(last) };
        assert_eq!(error.to_string(), "no api node answered within 3 s; the last, api-or: no majority");
    }
}

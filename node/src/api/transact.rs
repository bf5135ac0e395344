//! Everything that a transaction does: check it, append it, and learn what became of it.

use crate::api::ApiRole;
use crate::api::fanout::{Question, Tally};
use crate::remote::view::Asking;
use beam_wire::command::{Command, Rejection, Transact, Verdict};
use beam_wire::error::Retry;
use beam_wire::message::api::{ApiTransact, TransactReply};
use beam_wire::message::log::BODY_BYTES_MAX;
use beam_wire::message::view::ViewVerdict;
use beam_wire::{CallError, Code, Epoch, LogIndex, Range, Space, TransactionId, Version};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// How long the log may take to acknowledge. Without a majority this is when a writer hears of it.
const APPEND_PATIENCE: Duration = Duration::from_secs(6);

/// What the outcome of a transaction depends on, besides the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub epoch: Epoch,
    pub id: TransactionId,
    pub read_index: LogIndex,
    /// It depends on nothing that it read.
    pub blind: bool,
}

impl Terms {
    pub(super) fn of(transact: &Transact) -> Terms {
        let Transact { epoch, id, read_index, reads, .. } = transact;
        Terms { epoch: *epoch, id: *id, read_index: *read_index, blind: reads.is_empty() }
    }
}

impl ApiRole {
    /// Takes a transaction that the caller has encoded.
    pub(super) async fn transact(&self, request: ApiTransact, deadline: Instant) -> Result<TransactReply, CallError> {
        let transact = match Command::decode(&request.command) {
            Ok(Command::Transact(transact)) => transact,
            Ok(_) => return Err(CallError::never(Code::Denied, "clients may only append transactions")),
            Err(error) => return Err(CallError::never(Code::Invalid, error.to_string())),
        };
        self.hold_back().await?;
        let recent = self.recent(deadline).await?;
        if transact.epoch < recent.epoch {
            return Err(wrong_epoch(transact.epoch, recent));
        }
        if let Some(window) = self.window() {
            still_known(transact.id, recent.index, window)?;
        }
        let (version, verdict) = self.commit(Terms::of(&transact), request.command, request.wait, deadline).await?;
        match verdict {
            Some(verdict) => Ok(TransactReply { version: judge(version, verdict)?, verdict: Some(verdict) }),
            None => Ok(TransactReply { version, verdict: None }),
        }
    }

    /// Appends the transaction, and asks what became of it unless that is certain.
    pub(super) async fn commit(
        &self,
        terms: Terms,
        body: Bytes,
        wait: bool,
        deadline: Instant,
    ) -> Result<(Version, Option<Verdict>), CallError> {
        if body.len() > BODY_BYTES_MAX {
            let message = format!(
                "the transaction takes {} bytes, {BODY_BYTES_MAX} at most fit into one entry: cut it into several",
                body.len()
            );
            return Err(CallError::never(Code::TooLarge, message));
        }
        let patience = deadline.min(self.env.now() + APPEND_PATIENCE);
        let version = self.appender.append(body, patience).await?;
        self.saw_in_log(version);
        if version.epoch != terms.epoch {
            // Every view rejects it: it was made in an epoch that is over.
            return Err(wrong_epoch(terms.epoch, version));
        }
        if !wait && self.window().is_some_and(|window| certain(terms, version.index, window)) {
            return Ok((version, None));
        }
        let verdict = self.verdict(version, deadline).await.map_err(|error| {
            // The id stays the same when it is tried again: then the first one is found.
            let message = format!("the transaction is in the log at {version}, but its verdict is not known: {error}");
            CallError { code: Code::OutcomeUnknown, message, retry: Retry::Later { after_ms: 200 } }
        })?;
        Ok((version, Some(verdict)))
    }

    async fn verdict(&self, at: Version, deadline: Instant) -> Result<Verdict, CallError> {
        let answer = self.fanout.ask(&VerdictAt(at), deadline, &Tally::default()).await?;
        let nothing = || CallError::elsewhere(Code::Internal, "the view ended the call without a verdict");
        answer.found.first().copied().ok_or_else(nothing)
    }
}

/// A transaction of one epoch met the log in another. It changes nothing; made anew, with the same id, it happens once.
fn wrong_epoch(of: Epoch, at: Version) -> CallError {
    let message = format!(
        "the transaction is of epoch {of}, but the database is in epoch {} (at {at}): it was recovered or restored meanwhile. \
         This attempt changed nothing: read again, and write anew, with the same id",
        at.epoch
    );
    CallError::never(Code::WrongEpoch, message)
}

/// Whether a transaction that lies at `index` is committed whatever else the log holds: it read nothing, and
/// its id is not too old to be known. (If it is a duplicate, the first one was committed.)
fn certain(terms: Terms, index: LogIndex, window: u64) -> bool {
    let Terms { id, read_index, blind, .. } = terms;
    blind && id.born < index && read_index < index && index.0 - id.born.0 <= window
}

/// Refuses an id that is too old to be recognised: whether it was committed before cannot be said any more.
pub(super) fn still_known(id: TransactionId, newest: LogIndex, window: u64) -> Result<(), CallError> {
    let age = newest.0.saturating_sub(id.born.0);
    if age <= window { Ok(()) } else { Err(expired(&format!("is {age} entries old, ids are known for {window}"))) }
}

fn expired(why: &str) -> CallError {
    let message =
        format!("the transaction's id {why}: whether an earlier attempt was committed cannot be said any more");
    CallError::never(Code::OutcomeUnknown, message)
}

/// What a verdict means for who wrote the transaction that lies at `at`: where it was committed, or why not.
pub(super) fn judge(at: Version, verdict: Verdict) -> Result<Version, CallError> {
    match verdict {
        Verdict::Committed => Ok(at),
        Verdict::Duplicate { of } => Ok(Version { index: of, ..at }),
        Verdict::Conflict { with } => {
            let message = format!("what the transaction read was written at {with}, after it was read: read again");
            Err(CallError::never(Code::Conflict, message))
        }
        Verdict::Expired => Err(expired("had expired when it was appended")),
        Verdict::Rejected(Rejection::WrongEpoch) => {
            let why = "it was made in an epoch that is over: the database was recovered or restored";
            Err(CallError::never(Code::WrongEpoch, format!("the transaction was refused by every view: {why}")))
        }
        Verdict::Rejected(rejection) => {
            let why = match rejection {
                Rejection::Malformed => "its body is not a command",
                Rejection::FormatNotInForce => "it has a newer format than the one in force",
                Rejection::WrongEpoch => "it belongs to another epoch",
                Rejection::BornAhead => "its id was born at an index that did not exist yet",
                Rejection::ReadAhead => "it was read at an index that did not exist yet",
                Rejection::BeforeGenesis => "the log has no genesis yet",
                Rejection::SecondGenesis => "the log has a genesis already",
            };
            Err(CallError::never(Code::Rejected, format!("the transaction was refused by every view: {why}")))
        }
    }
}

/// What became of the entry at a version? Any view can say.
pub(super) struct VerdictAt(pub Version);

impl Question for VerdictAt {
    type Call = ViewVerdict;
    type Found = Verdict;

    fn asking(&self) -> Asking {
        Asking::Verdict
    }

    fn at(&self) -> Version {
        self.0
    }

    fn space(&self) -> Option<Space> {
        None
    }

    fn wanted(&self) -> &[Range] {
        &[Range::ALL]
    }

    fn request(&self, _: Range) -> ViewVerdict {
        ViewVerdict { at: self.0 }
    }

    fn take(&self, _: &ViewVerdict, verdict: Verdict) -> Result<Vec<Verdict>, CallError> {
        Ok(vec![verdict])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_its_meaning() {
        let at = |index| Version { epoch: Epoch(1), index: LogIndex(index) };
        let cases = [
            (Verdict::Committed, Ok(at(9))),
            (Verdict::Duplicate { of: LogIndex(4) }, Ok(at(4))),
            (Verdict::Conflict { with: LogIndex(7) }, Err(Code::Conflict)),
            (Verdict::Expired, Err(Code::OutcomeUnknown)),
            (Verdict::Rejected(Rejection::Malformed), Err(Code::Rejected)),
            (Verdict::Rejected(Rejection::WrongEpoch), Err(Code::WrongEpoch)),
            (Verdict::Rejected(Rejection::BornAhead), Err(Code::Rejected)),
        ];
        for (verdict, expected) in cases {
            let judged = judge(at(9), verdict);
            assert!(judged.as_ref().err().is_none_or(|e| !e.is_retryable()), "the same would come again");
            assert_eq!(judged.map_err(|e| e.code), expected, "{verdict:?}");
        }
    }

    #[test]
    fn only_blind_writes_with_a_known_id_are_certain() {
        let terms = |born, read_index, blind| Terms {
            epoch: Epoch(1),
            id: TransactionId::new(LogIndex(born), 1),
            read_index: LogIndex(read_index),
            blind,
        };
        // The window is 10.
        let cases = [
            (terms(90, 90, true), 100, true),
            (terms(89, 89, true), 100, false),
            (terms(99, 99, true), 100, true),
            (terms(100, 50, true), 100, false),
            (terms(99, 100, true), 100, false),
            (terms(99, 99, false), 100, false),
        ];
        for (terms, index, expected) in cases {
            assert_eq!(certain(terms, LogIndex(index), 10), expected, "{terms:?} at {index}");
        }
    }

    #[test]
    fn an_id_that_is_too_old_is_refused_before_it_is_appended() {
        let id = TransactionId::new(LogIndex(100), 1);
        assert!(still_known(id, LogIndex(110), 10).is_ok());
        assert_eq!(still_known(id, LogIndex(111), 10).unwrap_err().code, Code::OutcomeUnknown);
        assert!(still_known(id, LogIndex(50), 10).is_ok(), "the writer knows more than we");
    }
}

//! Whether a transaction was committed: for a writer who lost the answer, and is about to try again.
//!
//! The log itself says so: whatever carries the id lies after the index that the id was born at, and what became
//! of it any view can tell. An id is a few seconds old where somebody tries again, so few entries are read. One that is as old
//! as the window of verdicts costs reading all of that: so few do it at once, and nobody reads further back.

use crate::api::ApiRole;
use crate::api::fanout::Tally;
use crate::api::transact::{VerdictAt, still_known};
use beam_wire::command::{Command, Verdict};
use beam_wire::message::api::CommittedReply;
use beam_wire::message::log::Entry;
use beam_wire::{CallError, Code, LogIndex, TransactionId, Version};
use tokio::time::Instant;

/// Calls that read the log for themselves at once. Each holds a frame of it; after a leader is lost, all writers of a node may
/// come with ids that are seconds old, and get their turn as soon as those before them are told.
pub(super) const READERS_MAX: usize = 16;

/// How soon whoever found all places taken may come again: reading back some seconds takes less.
const READERS_HINT_MS: u32 = 200;

impl ApiRole {
    /// Where the transaction was committed, as of a version that holds all that was acknowledged before.
    pub(super) async fn committed(&self, id: TransactionId, deadline: Instant) -> Result<CommittedReply, CallError> {
        let Ok(_place) = self.looking_back.try_acquire() else {
            let message = format!("{READERS_MAX} calls look through the log here for what became of transactions");
            return Err(CallError::later(Code::Overloaded, READERS_HINT_MS, message));
        };
        let at = self.tail(deadline).await?;
        // Without the window there is no end to how far back the id may lie.
        let unknown = || CallError::later(Code::Unavailable, 500, "no view has said yet for how long ids are known");
        still_known(id, at.index, self.window().ok_or_else(unknown)?)?;
        let reading = self.with_id(id, at);
        let late = |_| Err(CallError::later(Code::Deadline, 500, "the log was not read in time"));
        let found = self.env.timeout_at(deadline, reading).await.unwrap_or_else(late)?;
        let mut committed = None;
        for index in found {
            let question = VerdictAt(Version { index, ..at });
            let answer = self.fanout.ask(&question, deadline, &Tally::default()).await?;
            match answer.found.first() {
                Some(Verdict::Committed) => committed = Some(index),
                Some(Verdict::Duplicate { of }) => committed = Some(*of),
                // An attempt of another epoch, one that met a conflict, or came too late: it left no trace.
                Some(Verdict::Rejected(_) | Verdict::Conflict { .. } | Verdict::Expired) => {}
                None => return Err(CallError::elsewhere(Code::Internal, "a view ended the call without a verdict")),
            }
        }
        Ok(CommittedReply { at, committed })
    }

    /// The entries that carry an id, up to a version.
    async fn with_id(&self, id: TransactionId, at: Version) -> Result<Vec<LogIndex>, CallError> {
        let mut found = Vec::new();
        if id.born >= at.index {
            return Ok(found);
        }
        let mut reader = self.log.read(Some(at.epoch), id.born.next(), true);
        while reader.position() <= at.index {
            let Some(frame) = reader.next().await.map_err(forgotten)? else {
                let message = format!("the log ended a stream before {at}, which it holds");
                return Err(CallError::elsewhere(Code::Unavailable, message));
            };
            for (index, entry) in (frame.first.0..=at.index.0).map(LogIndex).zip(&frame.entries) {
                let Entry::Data { body, .. } = entry else { continue };
                if matches!(Command::decode(body), Ok(Command::Transact(transact)) if transact.id == id) {
                    found.push(index);
                }
            }
        }
        Ok(found)
    }
}

/// What the log has let go of cannot be looked through.
fn forgotten(error: CallError) -> CallError {
    match error.code {
        Code::Discarded => {
            let message = format!("whether the transaction was committed cannot be said any more: {error}");
            CallError::never(Code::OutcomeUnknown, message)
        }
        _ => error,
    }
}

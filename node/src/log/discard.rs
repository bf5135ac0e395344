//! How entries are let go: one committed command, which every log node follows by itself in whole segments.
//!
//! A member that lacks entries below the point gets the point instead of them (a Raft snapshot of ours) and goes
//! on from there. It would lose nothing that matters, but its log would begin later than the others'; so the
//! leader refuses to discard what a member that answers is still being sent.

use super::forward::{ForLeader, at_leader};
use super::info::{stopped, version};
use super::raft::Log;
use super::types::{LogCommand, LogId, LogTypes, Watch};
use beam_wire::error::{CallError, Code};
use beam_wire::ids::{LogIndex, Name, Version};
use beam_wire::message::log::LogDiscard;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A member that has not answered for this long holds no discard up: a node that restarts, or whose network
/// fails for a moment, is back sooner; one that is gone would fill the disks of all others.
const HELD_FOR_SILENT: Duration = Duration::from_secs(60);

/// Lets all entries below an index go, on every log node.
pub(super) async fn discard(log: &Log, call: &LogDiscard, deadline: Option<Instant>) -> Result<Version, CallError> {
    log.check_epoch(Some(call.epoch))?;
    let committed = log.committed().map_or(0, |id| id.index);
    if call.before.0 > committed {
        let message = format!("cannot discard before {}: the log is committed up to {committed} here", call.before);
        return Err(CallError::elsewhere(Code::Ahead, message));
    }
    at_leader(log, call, deadline).await
}

impl ForLeader for LogDiscard {
    fn is_forwarded(&self) -> bool {
        self.forwarded
    }

    fn forward(&self) -> Self {
        Self { forwarded: true, ..self.clone() }
    }

    async fn lead(&self, log: &Log) -> Result<Option<Version>, CallError> {
        // Whoever begins after a discard takes it that the log has had its first entry.
        if !log.birth.is_open() {
            return Ok(None);
        }
        if let Some(why) = held(self.before, &members(log)) {
            return Err(CallError::later(Code::Ahead, 500, why));
        }
        match log.raft.client_write(LogCommand::Discard { before: self.before.0 }).await {
            Ok(written) => Ok(Some(version(log, written.log_id.index)?)),
            Err(RaftError::Fatal(e)) => Err(stopped(e).into()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_))) => {
                Ok(None)
            }
            Err(RaftError::APIError(e)) => Err(CallError::never(Code::Internal, e.to_string())),
        }
    }
}

/// A member, as the leader sees it.
struct Holder {
    node: Name,
    /// The newest entry that it is known to hold.
    matched: Option<LogIndex>,
    silent_for: Duration,
}

/// Why entries may not be let go yet.
fn held(before: LogIndex, members: &[Holder]) -> Option<String> {
    let next = |member: &Holder| member.matched.map_or(LogIndex(0), LogIndex::next);
    let behind = members.iter().filter(|m| next(m) < before && m.silent_for < HELD_FOR_SILENT);
    let furthest = behind.min_by_key(|member| next(member))?;
    Some(format!(
        "{} is catching up and has all entries before {}, but not yet those before {before}: discard before {} now, or \
         wait (a member that is silent for {HELD_FOR_SILENT:?} is not waited for)",
        furthest.node,
        next(furthest),
        next(furthest)
    ))
}

/// All members but this leader.
fn members(log: &Log) -> Vec<Holder> {
    let leads_for = {
        let since = *log.leads_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| log.env.now().duration_since(since))
    };
    let metrics = log.raft.metrics();
    let metrics = metrics.borrow_watched();
    let others = metrics.membership_config.nodes().filter(|(id, _)| **id != metrics.id);
    let holders = others.map(|(id, node)| {
        let matched = metrics.replication.as_ref().and_then(|r| r.get(id)).and_then(|m| m.as_ref());
        let answered = metrics.heartbeat.as_ref().and_then(|h| h.get(id)).and_then(|at| *at);
        let silent_for = answered.map_or(leads_for, |at| at.elapsed());
        Holder { node: node.node.clone(), matched: matched.map(|m| LogIndex(m.index)), silent_for }
    });
    holders.collect()
}

/// A snapshot of ours is a few hundred bytes in memory.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(1);

/// Lets entries go that a discard has named: a snapshot must stand there before openraft purges.
pub(super) async fn run(log: Arc<Log>, mut discarded: Watch<Option<LogId>>) -> Result<(), String> {
    let gone = |_| "the log's state machine is gone".to_string();
    let stopped = |e: Fatal<LogTypes>| e.to_string();
    loop {
        let upto = *discarded.borrow_and_update();
        if let Some(upto) = upto.filter(|upto| log.store.state().purged < Some(*upto)) {
            let mut snapshots = log.raft.watch_snapshot_progress();
            while snapshots.get() < Some(upto) {
                // One that is being made already may stand before this point: then ask once more.
                log.raft.trigger().snapshot().await.map_err(stopped)?;
                let made = log.env.timeout(SNAPSHOT_WITHIN, snapshots.wait_until_ge(&Some(upto))).await;
                if let Ok(made) = made {
                    made.map_err(|_| "Raft is gone".to_string())?;
                }
            }
            log.raft.trigger().purge_log(upto.index).await.map_err(stopped)?;
        }
        discarded.changed().await.map_err(gone)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discard_waits_for_those_who_answer_and_for_nobody_for_ever() {
        let member = |node: &str, matched: Option<u64>, silent_s: u64| Holder {
            node: Name::new(node).unwrap(),
            matched: matched.map(LogIndex),
            silent_for: Duration::from_secs(silent_s),
        };
        let held_by = |before: u64, members: &[Holder]| {
            held(LogIndex(before), members).map(|why| why.split_once(' ').unwrap().0.to_owned())
        };
        let table: [(u64, Vec<Holder>, Option<&str>); 7] = [
            (100, vec![], None),
            (100, vec![member("a", Some(99), 0)], None),
            (100, vec![member("a", Some(98), 0)], Some("a")),
            (100, vec![member("a", Some(98), 59), member("b", Some(500), 0)], Some("a")),
            (100, vec![member("a", Some(98), 60), member("b", Some(500), 0)], None),
            (100, vec![member("a", Some(60), 0), member("b", None, 3)], Some("b")),
            (0, vec![member("a", None, 0)], None),
        ];
        for (before, members, expected) in table {
            assert_eq!(held_by(before, &members).as_deref(), expected);
        }
        let why = held(LogIndex(100), &[member("a", Some(41), 0)]).unwrap();
        assert!(
            why.starts_with("a is catching up and has all entries before 42, but not yet those before 100"),
            "{why}"
        );
    }
}

//! What a log node says of itself, and its newest index.

use super::append::AppendError;
use super::forward::{ForLeader, at_leader};
use super::raft::Log;
use super::round_trips;
use beam_wire::error::CallError;
use beam_wire::ids::{LogIndex, Version};
use beam_wire::message::log::{LogInfoReply, LogStatusReply, LogTail, Member};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{Fatal, RaftError};
use openraft::raft::linearizable_read::LinearizerOption;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long one confirmation of the leader may take before it is asked for anew.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// What this node knows.
pub(super) fn info(log: &Log) -> LogInfoReply {
    let metrics = log.raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let state = log.store.state();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let members = membership.nodes().map(|(id, node)| Member {
        node: node.node.clone(),
        datacenter: node.datacenter.clone(),
        raft_id: *id,
        voter: voters.contains(id),
        matched: metrics
            .replication
            .as_ref()
            .and_then(|r| r.get(id))
            .and_then(|m| m.as_ref())
            .map(|m| LogIndex(m.index)),
    });
    LogInfoReply {
        node: log.options.node.clone(),
        raft_id: log.store.raft_id(),
        epoch: log.store.epoch(),
        first: LogIndex(state.first),
        last: state.last.map(|id| LogIndex(id.index)),
        committed: log.committed().map(|id| LogIndex(id.index)),
        bytes: state.bytes,
        term: metrics.current_term,
        leader: metrics.current_leader.and_then(|id| membership.get_node(&id)).map(|n| n.node.clone()),
        members: members.collect(),
    }
}

/// How this node is.
pub(super) async fn status(log: &Log) -> LogStatusReply {
    let machine = log.store.machine();
    let ms = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
    LogStatusReply {
        info: info(log),
        last_term: log.store.state().last.map(|id| id.leader_id.term),
        epochs: machine.course.epochs.clone(),
        drained: machine.course.drained.iter().cloned().collect(),
        free_bytes: Some(log.store.space().free_bytes),
        full: log.store.is_full(),
        heartbeat_ms: ms(log.options.heartbeat),
        lease_ms: ms(log.options.election_max),
        round_trips: round_trips::now(log).await,
        warnings: warnings(log),
    }
}

/// What is not as it should be.
fn warnings(log: &Log) -> Vec<String> {
    let mut warnings: Vec<String> =
        log.birth.waits_for().map(|what| format!("it waits for {what}")).into_iter().collect();
    if log.removed.is_so() {
        let me = &log.options.node;
        warnings.push(format!("not a member any more: beam log add {me}, or switch it off and take it out of DNS"));
    }
    warnings.extend(log.timer_warnings.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    warnings
}

/// The newest index: of this node, or at least everything that was acknowledged before the call.
pub(super) async fn tail(log: &Log, call: &LogTail, deadline: Option<Instant>) -> Result<Version, CallError> {
    if call.linearizable {
        return at_leader(log, call, deadline).await;
    }
    let index = LogIndex(log.committed().map_or(0, |id| id.index));
    Ok(Version { epoch: log.epoch()?, index })
}

/// An index of this log, in its epoch.
pub(super) fn version(log: &Log, index: u64) -> Result<Version, CallError> {
    Ok(Version { epoch: log.epoch()?, index: LogIndex(index) })
}

pub(super) fn stopped(e: Fatal<super::types::LogTypes>) -> AppendError {
    AppendError::Stopped { why: e.to_string() }
}

impl ForLeader for LogTail {
    fn is_forwarded(&self) -> bool {
        self.forwarded
    }

    fn forward(&self) -> Self {
        Self { forwarded: true, ..self.clone() }
    }

    async fn lead(&self, log: &Log) -> Result<Option<Version>, CallError> {
        // To ask the others now would break the silence.
        if log.hushed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // Every call confirms the leader anew: an answer to an earlier call proves nothing for this one.
        log.network.ask_anew();
        let confirm = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(CONFIRM_WITHIN);
        match log.raft.get_read_linearizer(confirm).await {
            Ok(read) => Ok(Some(version(log, read.read_log_id().index())?)),
            Err(RaftError::Fatal(e)) => Err(stopped(e).into()),
            Err(RaftError::APIError(e)) => {
                tracing::debug!("this leader is not confirmed: {e}");
                Ok(None)
            }
        }
    }
}

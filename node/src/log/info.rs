//! What a log node says of itself, its newest index, and how entries are let go.

use super::append::AppendError;
use super::network::QUICK;
use super::raft::{Leads, Log};
use super::types::LogCommand;
use beam_wire::error::{CallError, Code};
use beam_wire::ids::{LogIndex, Name, Version};
use beam_wire::message::Call;
use beam_wire::message::log::{LogDiscard, LogInfoReply, LogStatusReply, LogTail, Member, RoundTrip};
use beam_wire::quic::Lane;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::raft::linearizable_read::LinearizerOption;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Between attempts, when nobody leads or the leader is not confirmed yet.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// How long before its deadline a call is told why it fails.
const REASON_BEFORE: Duration = Duration::from_millis(100);
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
        free_bytes: None,
        full: false,
        heartbeat_ms: ms(log.options.heartbeat),
        lease_ms: ms(log.options.election_max),
        round_trips: round_trips(log).await,
        warnings: Vec::new(),
    }
}

/// To the other log nodes that this one is connected to.
async fn round_trips(log: &Log) -> Vec<RoundTrip> {
    /// A connection that is there is given at once.
    const AT_ONCE: Duration = Duration::from_millis(1);
    let others = log.options.members.iter().filter(|member| member.node != log.options.node);
    let asked = others.map(|member| async {
        let peer = log.env.timeout(AT_ONCE, log.network.peer(&member.node, QUICK)).await.ok()?.ok()?;
        let micros = u32::try_from(peer.rtt().as_micros()).unwrap_or(u32::MAX);
        Some(RoundTrip { node: member.node.clone(), micros })
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// The newest index: of this node, or at least everything that was acknowledged before the call.
pub(super) async fn tail(log: &Log, call: &LogTail, deadline: Option<Instant>) -> Result<Version, CallError> {
    if call.linearizable {
        return at_leader(log, call, deadline).await;
    }
    let index = LogIndex(log.committed().map_or(0, |id| id.index));
    Ok(Version { epoch: log.epoch()?, index })
}

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

fn stopped(e: Fatal<super::types::LogTypes>) -> AppendError {
    AppendError::Stopped { why: e.to_string() }
}

/// A call that only the leader can answer.
trait ForLeader: Call<Item = (), Reply = Version> {
    /// Whether it was forwarded already.
    fn is_forwarded(&self) -> bool;
    /// The same call, marked so that it is not forwarded again.
    fn forward(&self) -> Self;
    /// The leader's answer; none if it turns out not to lead, or cannot prove it yet.
    fn lead(&self, log: &Log) -> impl Future<Output = Result<Option<LogIndex>, CallError>> + Send;
}

impl ForLeader for LogTail {
    fn is_forwarded(&self) -> bool {
        self.forwarded
    }

    fn forward(&self) -> Self {
        Self { forwarded: true, ..self.clone() }
    }

    async fn lead(&self, log: &Log) -> Result<Option<LogIndex>, CallError> {
        // To ask the others now would break the silence.
        if log.hushed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // Every call confirms the leader anew: an answer to an earlier call proves nothing for this one.
        let confirm = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(CONFIRM_WITHIN);
        match log.raft.get_read_linearizer(confirm).await {
            Ok(read) => Ok(Some(LogIndex(read.read_log_id().index()))),
            Err(RaftError::Fatal(e)) => Err(stopped(e).into()),
            Err(RaftError::APIError(e)) => {
                tracing::debug!("this leader is not confirmed: {e}");
                Ok(None)
            }
        }
    }
}

impl ForLeader for LogDiscard {
    fn is_forwarded(&self) -> bool {
        self.forwarded
    }

    fn forward(&self) -> Self {
        Self { forwarded: true, ..self.clone() }
    }

    async fn lead(&self, log: &Log) -> Result<Option<LogIndex>, CallError> {
        match log.raft.client_write(LogCommand::Discard { before: self.before.0 }).await {
            Ok(written) => Ok(Some(LogIndex(written.log_id.index))),
            Err(RaftError::Fatal(e)) => Err(stopped(e).into()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_))) => {
                Ok(None)
            }
            Err(RaftError::APIError(e)) => Err(CallError::never(Code::Internal, e.to_string())),
        }
    }
}

/// Answers a call here if this node leads, else where the leader is, until the deadline.
async fn at_leader<C: ForLeader>(log: &Log, call: &C, deadline: Option<Instant>) -> Result<Version, CallError> {
    let latest = log.env.now() + log.options.append_timeout;
    // At its deadline a call is dropped without a word: the reason must be out before.
    let deadline = deadline.map_or(latest, |d| d.checked_sub(REASON_BEFORE).unwrap_or(d).min(latest));
    match log.env.timeout_at(deadline, keep_asking(log, call, deadline)).await {
        Ok(answer) => answer,
        Err(_) => Err(match log.leads() {
            Leads::Other { node, .. } => {
                let message = format!("{} does not reach {}, which leads the log", log.options.node, node.node);
                CallError::elsewhere(Code::Unavailable, message)
            }
            _ => {
                let message = format!("no majority of the log nodes ({}) answers", log.voters());
                CallError::later(Code::NoQuorum, 500, message)
            }
        }),
    }
}

async fn keep_asking<C: ForLeader>(log: &Log, call: &C, deadline: Instant) -> Result<Version, CallError> {
    let epoch = log.epoch()?;
    loop {
        match log.leads() {
            Leads::Me => match call.lead(log).await? {
                Some(index) => return Ok(Version { epoch, index }),
                None if call.is_forwarded() => return Err(not_leader(log, None)),
                None => {}
            },
            Leads::Other { node, .. } if call.is_forwarded() => return Err(not_leader(log, Some(node.node))),
            Leads::Nobody if call.is_forwarded() => return Err(not_leader(log, None)),
            Leads::Other { id, node } => tokio::select! { biased;
                _ = replaced(log, id) => {}
                answer = ask(log, &node.node, call, deadline) => match answer {
                    Ok(version) => return Ok(version),
                    Err(e) if e.is_retryable() => tracing::debug!("{node}, which leads, refused: {e}"),
                    Err(e) => return Err(e),
                },
            },
            Leads::Nobody => {}
        }
        log.env.sleep(RETRY_EVERY).await;
    }
}

async fn ask<C: ForLeader>(log: &Log, leader: &Name, call: &C, deadline: Instant) -> Result<Version, CallError> {
    log.network.peer(leader, Lane::Calls).await?.ask(&call.forward(), deadline).await
}

/// Waits until another than `leader` leads.
async fn replaced(log: &Log, leader: u64) {
    let mut changes = log.raft.server_metrics();
    while changes.borrow_and_update().current_leader == Some(leader) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn not_leader(log: &Log, leader: Option<Name>) -> CallError {
    AppendError::NotLeader { me: log.options.node.clone(), leader }.into()
}

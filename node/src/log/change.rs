//! Changes of the log's members, of its leader and of the drained datacenters, while the log runs.
//!
//! The leader finds out how the members are, [`members`] plans, and the leader does one step after the other,
//! planning anew before each. What a plan was agreed to for is checked by openraft once more when it writes: if
//! the members have changed meanwhile, nothing happens.

use super::forward::{ForLeader, at_leader};
use super::members::{self, Candidate, Health, Known, Precondition, Step, Unvoting};
use super::network::QUICK;
use super::place;
use super::raft::{Leads, Log};
use super::types::{LogCommand, LogNode, LogTypes};
use beam_wire::error::{CallError, Code};
use beam_wire::identity::Identity;
use beam_wire::ids::{LogIndex, Name, Version};
use beam_wire::message::log::{Change, LogChange, LogChangeReply, LogInfo, LogStatus};
use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{LogIdOptionExt, ServerState};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a member may take to say how it is. It is longer than a lost packet takes to be sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long a call waits for what must come first, before its caller is told how far that is.
const WAIT_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at what must come first.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After this time a change that stands half done is not being done by anybody any more.
const SETTLE_AFTER: Duration = Duration::from_secs(2);

/// Plans a change, and does it if asked to.
pub(super) async fn change(
    log: &Log,
    call: &LogChange,
    deadline: Option<Instant>,
) -> Result<LogChangeReply, CallError> {
    log.check_epoch(call.epoch)?;
    at_leader(log, call, deadline).await
}

impl ForLeader for LogChange {
    fn is_forwarded(&self) -> bool {
        self.forwarded
    }

    fn forward(&self) -> Self {
        Self { forwarded: true, ..self.clone() }
    }

    async fn lead(&self, log: &Log) -> Result<Option<LogChangeReply>, CallError> {
        let wait_until = log.env.now() + WAIT_WITHIN;
        let mut agreed = self.apply.as_ref().map(|apply| apply.seen);
        loop {
            let Some(known) = look(log, Some(&self.change)).await? else { return Ok(None) };
            let decision = members::decide(&known, &self.change);
            let plan = decision.plan;
            let Some(apply) = &self.apply else { return Ok(Some(LogChangeReply { plan, done: None })) };
            if let Some(seen) = agreed.take()
                && seen != plan.at
            {
                let message = format!("the members have changed at {}, after the plan was made: look again", plan.at);
                return Err(CallError::never(Code::Conflict, message));
            }
            let forbidden = plan.refused.as_ref().filter(|_| !apply.force);
            if let Some(why) = plan.impossible.as_ref().or(forbidden) {
                return Err(CallError::never(Code::Invalid, why.clone()));
            }
            let written = match decision.step {
                Step::Nothing => {
                    let index = LogIndex(log.committed().map_or(plan.at.0, |id| id.index));
                    return Ok(Some(LogChangeReply { plan, done: Some(Version { epoch: known.epoch, index }) }));
                }
                Step::Wait if log.env.now() >= wait_until => {
                    return Ok(Some(LogChangeReply { plan, done: None }));
                }
                Step::Wait => {
                    log.env.sleep(LOOK_EVERY).await;
                    continue;
                }
                Step::HandOver(to) => {
                    place::hand_over(log, to).await?;
                    return Ok(None);
                }
                Step::Members(change) => write_members(log, &known, change, Unvoting::Leave).await?,
                Step::Drain(datacenters) => match log.raft.client_write(LogCommand::Drain { datacenters }).await {
                    Ok(_) => true,
                    Err(e) => refused(e)?,
                },
            };
            if !written {
                return Ok(None);
            }
        }
    }
}

/// Writes a change of members, unless they are others by now. False if it was not written, and another attempt
/// may succeed.
async fn write_members(
    log: &Log,
    known: &Known,
    change: members::ChangeMembers,
    unvoting: Unvoting,
) -> Result<bool, CallError> {
    let last_membership_log_id = *log.raft.server_metrics().borrow_watched().membership_config.log_id();
    if last_membership_log_id.index() != Some(known.at) {
        return Ok(false);
    }
    tracing::info!("changing the members of the log: {change}");
    let unchanged = [Precondition::LastMembershipLogId { last_membership_log_id }];
    match log.raft.change_membership_if(change, unvoting == Unvoting::Learn, unchanged).await {
        Ok(_) => Ok(true),
        Err(e) => refused(e),
    }
}

/// False for what passes.
fn refused(e: RaftError<LogTypes, ClientWriteError<LogTypes>>) -> Result<bool, CallError> {
    use ChangeMembershipError::{InProgress, UncommittedLeaderLog};
    match e {
        RaftError::Fatal(e) => Err(CallError::elsewhere(Code::Unavailable, format!("this log node has stopped: {e}"))),
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(_)
            | ClientWriteError::LogEntryDiscarded(_)
            | ClientWriteError::PreconditionFailed(_)
            | ClientWriteError::ChangeMembershipError(InProgress(_) | UncommittedLeaderLog(_)),
        ) => Ok(false),
        RaftError::APIError(e) => Err(CallError::never(Code::Internal, e.to_string())),
    }
}

/// What this leader knows of the members, and of the node that a change is about; none if it does not lead.
async fn look(log: &Log, change: Option<&Change>) -> Result<Option<Known>, CallError> {
    let epoch = log.epoch()?;
    let (membership, at, last, leader, matched) = {
        let metrics = log.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return Ok(None);
        }
        let matched: BTreeMap<u64, Option<u64>> =
            metrics.replication.iter().flatten().map(|(id, at)| (*id, at.as_ref().map(|at| at.index))).collect();
        let config = &metrics.membership_config;
        let at = config.log_id().index().unwrap_or(0);
        (config.membership().clone(), at, metrics.last_log_index.unwrap_or(0), metrics.id, matched)
    };
    let nodes: Vec<(u64, LogNode)> = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
    let healths = nodes.iter().map(|(id, node)| async {
        let (answers, full) = if *id == leader { (true, false) } else { answers(log, *id, &node.node).await };
        let matched = if *id == leader { Some(last) } else { matched.get(id).copied().flatten() };
        (*id, Health { matched, answers, full })
    });
    let subject = match change {
        Some(Change::Add { node, .. } | Change::Replace { node }) => Some(node),
        _ => None,
    };
    let candidate = async {
        match subject {
            Some(node) => Some(candidate(log, node).await),
            None => None,
        }
    };
    let (health, candidate) = futures::future::join(join_all(healths), candidate).await;
    Ok(Some(Known {
        epoch,
        membership,
        at,
        last,
        leader,
        health: health.into_iter().collect(),
        drained: log.store.machine().course.drained.clone(),
        preferred: log.options.preferred.clone(),
        candidate,
    }))
}

/// Whether a member answers under its Raft id, and whether its disk is full.
async fn answers(log: &Log, raft_id: u64, node: &Name) -> (bool, bool) {
    match log.network.ask(node, &LogStatus, ANSWER_WITHIN).await {
        Ok(status) => (status.info.raft_id == raft_id, status.full),
        // An older version of Beam, which lives.
        Err(e) => (e.code == Code::UnknownKind, false),
    }
}

/// What a node says of itself that may become a member.
async fn candidate(log: &Log, node: &Name) -> Result<Candidate, String> {
    let deadline = log.env.now() + ANSWER_WITHIN;
    let asking = async {
        if *node == log.options.node {
            let (raft_id, epoch) = (log.store.raft_id(), log.store.epoch());
            return Ok(Candidate { raft_id, datacenter: log.options.datacenter.clone(), epoch });
        }
        let peer = log.network.peer(node, QUICK).await?;
        let info = peer.ask(&LogInfo, deadline).await?;
        let Identity::Node { datacenter, .. } = peer.info().identity.clone() else {
            return Err(CallError::never(Code::Denied, "its certificate is not a node's"));
        };
        Ok(Candidate { raft_id: info.raft_id, datacenter, epoch: info.epoch })
    };
    match log.env.timeout_at(deadline, asking).await {
        Ok(answer) => answer.map_err(|e: CallError| e.to_string()),
        Err(_) => Err(format!("no answer within {ANSWER_WITHIN:?}")),
    }
}

/// Ends changes of members that stand half done, because the leader that began them was replaced.
pub(super) async fn settle(log: Arc<Log>) {
    let mut half_done: Option<(u64, Instant)> = None;
    loop {
        log.env.sleep(SETTLE_AFTER / 4).await;
        let joint_at = {
            let metrics = log.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let config = &metrics.membership_config;
            let joint = config.membership().get_joint_config().len() > 1;
            (metrics.state == ServerState::Leader && joint).then(|| config.log_id().index()).flatten()
        };
        let now = log.env.now();
        half_done = match (joint_at, half_done) {
            (Some(at), Some((same, since))) if at == same => Some((at, since)),
            (Some(at), _) => Some((at, now)),
            (None, _) => None,
        };
        if half_done.is_none_or(|(_, since)| now < since + SETTLE_AFTER) || log.leads() != Leads::Me {
            continue;
        }
        let settled = async {
            let Some(known) = look(&log, None).await? else { return Ok(false) };
            match members::settle(&known) {
                Some((change, unvoting)) => write_members(&log, &known, change, unvoting).await,
                None => Ok(false),
            }
        };
        if let Err(e) = settled.await {
            tracing::warn!("a change of members that stands half done was not finished: {e}");
        }
    }
}

//! A node that was taken out of the members is not told: who leads sends it nothing any more. It finds out by
//! itself, so that readers do not stay with a log that never goes on.

use super::raft::Log;
use super::runtime::{self, Sender};
use beam_wire::error::{CallError, Code};
use beam_wire::message::log::{LogInfo, LogInfoReply};
use futures::future::join_all;
use openraft::async_runtime::watch::Watch as _;
use openraft::async_runtime::{WatchReceiver, WatchSender};
use std::sync::Arc;
use std::time::Duration;

/// After so long a silence of all leaders a node asks whether it is still a member. Elections are over sooner.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// How often it asks.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Whether this node was taken out.
pub(super) struct Removed(Sender<bool>);

impl Removed {
    pub fn new() -> Self {
        Self(runtime::Watch::channel(false).0)
    }

    pub fn is_so(&self) -> bool {
        *self.0.borrow_watched()
    }

    /// Waits until it is so, and says so to a reader.
    pub async fn refusal(&self, log: &Log) -> CallError {
        // The sender, which is in `self`, does not end before this does.
        let _ = self.0.subscribe().wait_until(|removed| *removed).await;
        let node = &log.options.node;
        CallError::elsewhere(Code::Unavailable, format!("{node} is not a member of the log any more"))
    }
}

/// Keeps [`Removed`] true.
pub(super) async fn watch(log: Arc<Log>) {
    loop {
        log.env.sleep(ASK_EVERY).await;
        let heard = log.heard.last().unwrap_or(log.began);
        let removed = log.env.now().duration_since(heard) >= SILENT_FOR && leader_knows_it_not(&log).await;
        if log.removed.0.send_if_different(removed) && removed {
            tracing::warn!("this node is not a member of the log any more");
        }
    }
}

/// Whether a leader of this log answers, to whom this node is no member. (This node may lead itself, or wait to be
/// made a member: then it is not gone.)
async fn leader_knows_it_not(log: &Log) -> bool {
    let (me, term, was_member) = {
        let metrics = log.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        (metrics.id, metrics.vote.leader_id.term, metrics.membership_config.nodes().next().is_some())
    };
    if !was_member {
        return false;
    }
    let asked =
        log.others().into_iter().map(|node| async move { log.network.ask(&node, &LogInfo, ANSWER_WITHIN).await.ok() });
    let answers = join_all(asked).await;
    let leads = |info: &&LogInfoReply| {
        info.leader.as_ref() == Some(&info.node) && info.epoch == log.store.epoch() && info.term >= term
    };
    answers.iter().flatten().find(leads).is_some_and(|info| info.members.iter().all(|member| member.raft_id != me))
}

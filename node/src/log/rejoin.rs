//! A node whose log was rebuilt asks to be a member anew, in place of who it was, until it votes.

use super::disk::Disk;
use super::raft::Log;
use super::renewal;
use beam_wire::error::CallError;
use beam_wire::ids::Name;
use beam_wire::message::log::{Apply, Change, LogChange, LogChangeReply};
use openraft::async_runtime::WatchReceiver;
use std::sync::Arc;
use std::time::Duration;

/// How often it asks: a node that has to be sent the whole log first is told to wait each time.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A change of members takes several commits.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Asks one log node after the other. Any of them brings it to the leader.
pub(super) async fn run(log: Arc<Log>, disk: Arc<dyn Disk>) {
    let others: Vec<Name> = log.options.members.iter().map(|member| member.node.clone()).collect();
    for node in others.iter().cycle() {
        if votes(&log) {
            break;
        }
        if *node == log.options.node {
            log.env.sleep(ASK_EVERY).await;
        } else if let Err(e) = ask(&log, node).await {
            tracing::info!("{node} does not take this node as a voter in place of who it was yet: {e}");
        }
    }
    // Otherwise it would ask in vain at its next start, which changes nothing.
    match log.env.blocking(move || renewal::clear(&*disk)).await {
        Ok(()) => tracing::info!("this node votes again, as another member, and its log is whole"),
        Err(e) => tracing::warn!("this node votes again, but that cannot be written down: {e}"),
    }
}

fn votes(log: &Log) -> bool {
    let metrics = log.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().voter_ids().any(|id| id == log.store.raft_id())
}

/// Has the change planned, and then done as planned, if nothing speaks against it.
async fn ask(log: &Log, node: &Name) -> Result<(), CallError> {
    let change = Change::Replace { node: log.options.node.clone() };
    let planned = call(log, node, change.clone(), None).await?.plan;
    if planned.nothing_to_do {
        return Ok(());
    }
    let apply = Apply { seen: planned.at, force: false };
    call(log, node, change, Some(apply)).await.map(|_| ())
}

async fn call(log: &Log, node: &Name, change: Change, apply: Option<Apply>) -> Result<LogChangeReply, CallError> {
    let call = LogChange { epoch: None, change, apply, forwarded: false };
    log.network.ask(node, &call, ANSWER_WITHIN).await
}

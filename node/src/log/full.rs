//! What a leader does about full disks, its own and those of others.
//!
//! A leader whose disk is full takes no more proposals, and hands over to a voter that is well. When the
//! disks of a majority are full, no leader takes proposals. The log's own commands are still taken: a
//! discard makes room.

use super::raft::{Leads, Log, names};
use super::types::LogNode;
use beam_wire::ids::Name;
use beam_wire::message::log::LogStatus;
use openraft::async_runtime::WatchReceiver;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a leader asks the others.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a healthy one may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);

/// Whether the disks of the other voters are full, as this leader knows it since it leads.
#[derive(Default)]
pub(super) struct Full(Mutex<BTreeMap<u64, bool>>);

impl Full {
    /// Whether this voter's disk is full, if it has said so.
    pub fn knows(&self, id: u64) -> Option<bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    fn set(&self, full: BTreeMap<u64, bool>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = full;
    }
}

/// Whose disks are full, if that is a reason for this leader to refuse proposals.
pub(super) fn refuses(log: &Log) -> Option<String> {
    let me = log.store.raft_id();
    let metrics = log.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let voters: BTreeMap<u64, &LogNode> =
        membership.voter_ids().filter_map(|id| Some((id, membership.get_node(&id)?))).collect();
    let own = log.store.is_full();
    let is_full = |id: &u64| if *id == me { own } else { log.full.knows(*id) == Some(true) };
    let full: Vec<&Name> = voters.iter().filter(|(id, _)| is_full(id)).map(|(_, node)| &node.node).collect();
    let many = full.len() > voters.len() / 2;
    (own || many).then(|| names(if many { full } else { vec![&log.options.node] }.into_iter()))
}

/// Learns, while this node leads, whose disks are full. That a leader whose own disk is full hands over is up to
/// [`super::place`].
pub(super) async fn run(log: Arc<Log>) {
    let mut changes = log.raft.server_metrics();
    loop {
        drop(changes.borrow_and_update());
        let voters = if log.leads() == Leads::Me { other_voters(&log) } else { BTreeMap::new() };
        let asked = voters.iter().map(|(id, node)| ask(&log, *id, node));
        log.full.set(futures::future::join_all(asked).await.into_iter().flatten().collect());
        // At once when it has begun to lead.
        if let Ok(Err(_)) = log.env.timeout(ASK_EVERY, changes.changed()).await {
            return;
        }
    }
}

fn other_voters(log: &Log) -> BTreeMap<u64, LogNode> {
    let me = log.store.raft_id();
    let metrics = log.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let voters = membership.voter_ids().filter(|id| *id != me);
    voters.filter_map(|id| Some((id, membership.get_node(&id)?.clone()))).collect()
}

/// Whether the voter says that its disk is full. Of one that does not answer nothing is known.
async fn ask(log: &Log, id: u64, node: &LogNode) -> Option<(u64, bool)> {
    let status = log.network.ask(&node.node, &LogStatus, ANSWER_WITHIN).await.ok()?;
    Some((id, status.full))
}

//! How a cluster begins, once.
//!
//! A log node whose disk is empty draws a Raft id at random. The first log node that the topology names
//! asks all of them; when every one answers and none has ever held an entry or voted, it makes them the
//! first members. The first leader then appends the first entry, which says what all views must agree
//! on, before any other proposal. A node that lost its disk has another Raft id, so it is nobody's
//! member any more and votes for nobody.

use super::info;
use super::machine::OnApply;
use super::raft::{Leads, Log, names};
use super::runtime::{self, Sender};
use super::types::{EntryContent, LogCommand, LogId, LogNode, Watch, content};
use beam_wire::ids::{Epoch, LogIndex};
use beam_wire::message::log::{LogInfo, LogInfoReply};
use bytes::Bytes;
use futures::future::join_all;
use openraft::async_runtime::watch::Watch as _;
use openraft::async_runtime::{WatchReceiver, WatchSender};
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::{ReadPolicy, ServerState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Between two attempts to find all log nodes.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long a log node may take to answer what it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Between two attempts of a new leader to reach a majority.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// How far the cluster's birth has come, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// There are no members yet, or none that this node knows.
    Waiting { waits_for: String },
    /// There are members.
    Members,
    /// The log holds its first data.
    Born,
}

/// The stage, for all who wait for it.
pub(super) struct Birth(Sender<Stage>);

impl Birth {
    pub fn new() -> Self {
        let stage = Stage::Waiting { waits_for: "this log node has just started".into() };
        Self(runtime::Watch::channel(stage).0)
    }

    /// Whether proposals may go to openraft.
    pub fn is_open(&self) -> bool {
        *self.0.borrow_watched() == Stage::Born
    }

    /// What is missing before anything can be appended; none when nothing is.
    pub fn waits_for(&self) -> Option<String> {
        match &*self.0.borrow_watched() {
            Stage::Waiting { waits_for } => Some(waits_for.clone()),
            Stage::Members | Stage::Born => None,
        }
    }

    /// Waits until proposals may go to openraft.
    pub async fn open(&self) {
        // The sender, which is in `self`, does not end before this does.
        let _ = self.0.subscribe().wait_until(|stage| *stage == Stage::Born).await;
    }

    /// What the state machine calls: the first data that is applied opens the gate.
    pub fn watches_applied(&self) -> OnApply {
        let stage = self.0.clone();
        Arc::new(move |entry| {
            if !matches!(*stage.borrow_watched(), Stage::Born) && matches!(content(entry), EntryContent::Data { .. }) {
                stage.send_if_different(Stage::Born);
            }
        })
    }

    fn set(&self, new: Stage) {
        self.0.send_if_modified(|stage| {
            let differs = *stage != new && *stage != Stage::Born;
            if differs {
                *stage = new;
            }
            differs
        });
    }
}

/// Brings the cluster to life, and after every election makes sure that the log has its first entry.
pub(super) async fn run(log: Arc<Log>, first_entry: Bytes, mut discarded: Watch<Option<LogId>>) -> Result<(), String> {
    let fatal = |e: openraft::errors::Fatal<_>| e.to_string();
    while !log.raft.is_initialized().await.map_err(fatal)? {
        let waits_for = match found(&log).await {
            Found::All(members) => {
                found_cluster(&log, members).await?;
                continue;
            }
            Found::Waiting(waits_for) => waits_for,
        };
        log.birth.set(Stage::Waiting { waits_for });
        log.env.sleep(ASK_EVERY).await;
    }
    log.birth.set(Stage::Members);
    let mut changes = log.raft.server_metrics();
    while !log.birth.is_open() {
        if discarded.borrow_and_update().is_some() {
            log.birth.set(Stage::Born);
            break;
        }
        if changes.borrow_and_update().state == ServerState::Leader {
            ensure_first_entry(&log, &first_entry).await?;
        } else {
            tokio::select! { biased;
                changed = changes.changed() => changed.map_err(|_| "Raft is gone".to_string())?,
                _ = log.birth.open() => {}
                // Only what was in the log can be let go: whoever begins after a discard need not see it.
                gone = discarded.changed() => gone.map_err(|_| "the log's state machine is gone".to_string())?,
            }
        }
    }
    std::future::pending().await
}

enum Found {
    /// All log nodes of the topology, pristine; this node shall make them members.
    All(BTreeMap<u64, LogNode>),
    Waiting(String),
}

/// Asks every log node of the topology what it is. (This one may have begun a cluster already, and lost
/// power before that was on its disk: then it begins again.)
async fn found(log: &Log) -> Found {
    let answers = join_all(log.options.members.iter().map(|node| async move {
        if node.node == log.options.node { (node, Ok(info::info(log))) } else { (node, ask(log, node).await) }
    }))
    .await;
    let mut silent = Vec::new();
    let mut members = BTreeMap::new();
    let mut alive = Vec::new();
    let mut was_member = false;
    for (node, answer) in answers {
        match answer {
            Ok(info) if is_pristine(&info) => {
                members.insert(info.raft_id, node.clone());
            }
            Ok(info) => {
                alive.push(&node.node);
                was_member |= info.members.iter().any(|m| m.node == log.options.node);
                if info.members.iter().any(|m| m.raft_id == log.store.raft_id()) {
                    return Found::Waiting(format!("entries from the leader, whom {} knows", node.node));
                }
            }
            Err(why) => silent.push(format!("{} ({why})", node.node)),
        }
    }
    if !alive.is_empty() {
        let (alive, me) = (names(alive.into_iter()), &log.options.node);
        return Found::Waiting(match was_member {
            true => format!(
                "its old place among the members: its disk is empty, but {alive} hold the log already, with {me} under \
                 another Raft id: beam log replace {me}"
            ),
            false => format!("being made a member: it is empty, and {alive} hold the log already: beam log add {me}"),
        });
    }
    if !silent.is_empty() {
        return Found::Waiting(format!("these log nodes do not answer: {}", silent.join(", ")));
    }
    let distinct: BTreeSet<_> = members.values().map(|m| &m.node).collect();
    if distinct.len() != log.options.members.len() {
        return Found::Waiting("two log nodes have drawn the same Raft id: empty the disk of one".into());
    }
    if log.options.members[0].node != log.options.node {
        return Found::Waiting(format!("{} to make all log nodes members", log.options.members[0].node));
    }
    Found::All(members)
}

fn is_pristine(info: &LogInfoReply) -> bool {
    info.members.is_empty() && info.last.is_none() && info.term == 0
}

async fn ask(log: &Log, node: &LogNode) -> Result<LogInfoReply, String> {
    log.network.ask(&node.node, &LogInfo, ANSWER_WITHIN).await.map_err(|e| e.to_string())
}

/// Makes the log nodes members of a new cluster, in its first epoch.
async fn found_cluster(log: &Log, members: BTreeMap<u64, LogNode>) -> Result<(), String> {
    tracing::info!("all {} log nodes are here and empty: the cluster begins", members.len());
    log.store.set_epoch(Epoch(1)).await.map_err(|e| e.to_string())?;
    match log.raft.initialize(members).await {
        // Meanwhile something has reached the log: then it has members.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

/// Of a leader: appends the first entry if there is no data in the log. Whatever earlier leaders may
/// have written is known once this leader has committed an entry of its own.
async fn ensure_first_entry(log: &Log, first_entry: &Bytes) -> Result<(), String> {
    while log.leads() == Leads::Me {
        match log.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => {}
            Err(RaftError::Fatal(e)) => return Err(e.to_string()),
            Err(RaftError::APIError(e)) => {
                tracing::debug!("this leader is not confirmed yet: {e}");
                log.env.sleep(RETRY_EVERY).await;
                continue;
            }
        }
        if holds_data(log).await? {
            log.birth.set(Stage::Born);
            return Ok(());
        }
        let origin = log.queue.origin(&log.options.node);
        match log.raft.client_write(LogCommand::Data { origin, body: first_entry.clone() }).await {
            Ok(written) => {
                tracing::info!("the first entry lies at {}", LogIndex(written.log_id.index));
                log.birth.set(Stage::Born);
                return Ok(());
            }
            Err(RaftError::Fatal(e)) => return Err(e.to_string()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_))) => {
                log.env.sleep(RETRY_EVERY).await;
            }
            Err(RaftError::APIError(e)) => return Err(e.to_string()),
        }
    }
    Ok(())
}

/// Looks for data from the start of the log. It lies within the first few entries, or there is none;
/// once something was discarded, there was.
async fn holds_data(log: &Log) -> Result<bool, String> {
    let Some(committed) = log.committed() else { return Ok(false) };
    if log.store.state().purged.is_some() {
        return Ok(true);
    }
    let mut from = 0;
    while from <= committed.index {
        let entries = log.store.read(from, committed.index, 64 << 10).await.map_err(|e| e.to_string())?;
        let Some((last, _)) = entries.last() else { break };
        from = last + 1;
        if entries.iter().any(|(_, content)| matches!(content, EntryContent::Data { .. })) {
            return Ok(true);
        }
    }
    Ok(false)
}

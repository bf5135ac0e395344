//! How a log node notices that the log goes on without it.
//!
//! A recovery begins a new epoch without the nodes that were away. When they come back, together they may be a
//! majority of the old epoch, and would take writes that are in nobody else's log. So each log node asks the others,
//! from its start on, which epoch they are in; once it hears of one that comes from its own, it answers no more calls but
//! those that look into it. Its log stays as it is, until `beam log recover` sets it aside.

use super::raft::Log;
use super::runtime::{self, Sender};
use beam_wire::error::{CallError, Code};
use beam_wire::ids::{Epoch, LogIndex, Name};
use beam_wire::message::log::{LogStatus, LogStatusReply, shared_up_to};
use futures::future::join_all;
use openraft::async_runtime::watch::Watch as _;
use openraft::async_runtime::{WatchReceiver, WatchSender};
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long a log node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Whether the log goes on without this node.
pub(super) struct Outlived(Sender<Option<By>>);

/// Who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct By {
    node: Name,
    epoch: Epoch,
    /// The last entry that both have.
    kept: LogIndex,
}

impl Outlived {
    pub fn new() -> Self {
        Self(runtime::Watch::channel(None).0)
    }

    /// Refuses whatever would read or write a log that is over.
    pub fn check(&self) -> Result<(), CallError> {
        match &*self.0.borrow_watched() {
            None => Ok(()),
            Some(By { node, epoch, kept }) => Err(CallError::elsewhere(
                Code::WrongEpoch,
                format!(
                    "this log node was left behind: the log was recovered or restored, {node} is in epoch {epoch}, which \
                     has kept the entries up to {kept}. `beam log recover` sets its log aside, and it joins anew"
                ),
            )),
        }
    }

    /// Waits until the log goes on without this node.
    pub async fn told(&self) {
        // The sender, which is in `self`, does not end before this does.
        let _ = self.0.subscribe().wait_until(Option::is_some).await;
    }
}

/// Asks the others, for as long as this node has not been left behind.
pub(super) async fn watch(log: Arc<Log>) {
    loop {
        let answers = join_all(log.others().into_iter().map(|node| ask(&log, node))).await;
        let mine = log.store.epoch();
        let by = answers.into_iter().flatten().filter_map(|(node, said)| outlives(mine?, node, &said));
        if let Some(by) = by.max_by_key(|by| by.epoch) {
            tracing::error!(
                "this log node was left behind in epoch {}: {} is in epoch {}. `beam log recover` sets its log aside",
                mine.map_or(0, |e| e.0),
                by.node,
                by.epoch
            );
            log.raft.runtime_config().elect(false);
            log.outlived.0.send_if_modified(|outlived| {
                *outlived = Some(by);
                true
            });
            return;
        }
        log.env.sleep(ASK_EVERY).await;
    }
}

async fn ask(log: &Log, node: Name) -> Option<(Name, LogStatusReply)> {
    match log.network.ask(&node, &LogStatus, ANSWER_WITHIN).await {
        Ok(said) => Some((node, said)),
        Err(e) => {
            tracing::debug!("{node} does not say in which epoch it is: {e}");
            None
        }
    }
}

/// Whether a node's epoch comes from `mine`, and has left it behind.
fn outlives(mine: Epoch, node: Name, said: &LogStatusReply) -> Option<By> {
    let epoch = said.info.epoch.filter(|epoch| *epoch > mine)?;
    // One that does not know its own beginning yet will say it later.
    said.epochs.last().filter(|last| last.epoch == epoch)?;
    Some(By { node, epoch, kept: shared_up_to(&said.epochs, mine)? })
}

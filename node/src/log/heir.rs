//! Who takes proposals while leadership moves on purpose.
//!
//! When a leader hands over it takes no more proposals, and its heir does not lead before it was elected, two round
//! trips later. What is proposed meanwhile need not wait for that where it is: all who hear of the handover
//! bring it to the heir, which keeps it until it leads.

use super::raft::{Leads, Log};
use super::runtime::Receiver;
use super::types::{LogNode, LogTypes, Watch};
use openraft::async_runtime::{WatchReceiver, WatchSender};
use openraft::metrics::RaftServerMetrics;
use std::time::Duration;
use tokio::time::Instant;

/// A handover takes a few round trips.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);

/// The voter to which the leader hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heir {
    id: u64,
    node: LogNode,
    /// The leader that hands over, as far as it is known.
    of: Option<u64>,
    /// By then it leads, or nothing has come of it.
    until: Instant,
}

impl Log {
    /// Leadership is being handed to this voter.
    pub fn inherits(&self, id: u64) {
        let heir = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let node = metrics.membership_config.membership().get_node(&id).cloned();
            let (of, until) = (metrics.current_leader, self.env.now() + HAND_OVER_WITHIN);
            node.map(|node| Heir { id, node, of, until })
        };
        self.heir.send_if_modified(|known| {
            *known = heir;
            true
        });
    }

    /// To whom the leader hands over just now.
    fn heir(&self) -> Option<Heir> {
        let heir = self.heir.borrow_watched().clone()?;
        let leader = self.raft.server_metrics().borrow_watched().current_leader;
        let goes_on = leader.is_none() || leader == heir.of || leader == Some(heir.id);
        (goes_on && self.env.now() < heir.until).then_some(heir)
    }

    /// Whether leadership is moving on purpose.
    pub fn is_handed_over(&self) -> bool {
        self.heir().is_some()
    }

    /// Whether this node is about to lead, so that what others bring already can wait here.
    pub fn is_heir(&self) -> bool {
        self.heir().is_some_and(|heir| heir.id == self.store.raft_id())
    }

    /// To whom proposals go: the leader, or the one that is about to lead.
    pub fn takes_proposals(&self) -> Leads {
        match (self.heir(), self.leads()) {
            (Some(heir), leads) if heir.id == self.store.raft_id() => {
                if leads == Leads::Me {
                    leads
                } else {
                    Leads::Nobody
                }
            }
            (Some(heir), _) => Leads::Other { id: heir.id, node: heir.node },
            (None, leads) => leads,
        }
    }
}

/// Tells when [`Log::takes_proposals`] may have changed.
pub struct Successions {
    metrics: Watch<RaftServerMetrics<LogTypes>>,
    heirs: Receiver<Option<Heir>>,
}

impl Successions {
    pub fn of(log: &Log) -> Self {
        Self { metrics: log.raft.server_metrics(), heirs: log.heir.subscribe() }
    }

    /// From now on only what comes is a change.
    pub fn seen(&mut self) {
        drop(self.metrics.borrow_and_update());
        drop(self.heirs.borrow_and_update());
    }

    /// Waits for a change. False when openraft has ended.
    pub async fn changed(&mut self, log: &Log) -> bool {
        let until = log.heir().map(|heir| heir.until);
        let nothing_came_of_it = async {
            match until {
                Some(until) => log.env.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            changed = self.metrics.changed() => changed.is_ok(),
            changed = self.heirs.changed() => changed.is_ok(),
            () = nothing_came_of_it => true,
        }
    }
}

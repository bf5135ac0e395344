//! Cutting the data of a running cluster into another number of partitions.
//!
//! Each node is told to hold what it shall hold of the next cut, as a second view beside the one that it has. The
//! second copies from the first, or from other nodes, and both serve side by side: api nodes ask any mix of cuts.
//! Once every new view serves, the old ones drain and go, node after node. [`plan`] decides, from what the nodes
//! say alone; here they are asked and told. So this may be broken off anywhere: whoever runs it again goes on where
//! it was, and a node that has lost its disk on the way is told anew.
//!
//! What it never does: let a point be served by fewer nodes than is wanted, or stop a view before those that replace
//! it serve.

pub mod plan;

use beam_wire::env::Env;
use beam_wire::message::Call;
use beam_wire::message::view::{ViewDrop, ViewHold, ViewInstances, ViewInstancesReply};
use beam_wire::quic::{Directory, Lane, NodeAddress, Peers};
use beam_wire::{CallError, Code, Name, Role};
use futures::future::join_all;
use plan::{Progress, Seen, Step, Target, Wanted, next};
use std::time::Duration;
use tokio::time::Instant;

/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at all nodes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The nodes that hold views, as an operator sees them.
#[derive(Clone)]
pub struct Nodes {
    /// Clock.
    pub env: Env,
    /// Connections.
    pub peers: Peers,
    /// Who there is.
    pub directory: Directory,
}

impl Nodes {
    /// Asks every node that DNS names as a view how it is.
    pub async fn survey(&self) -> Vec<Seen> {
        let deadline = self.env.now() + ANSWER_WITHIN;
        let asked = self.directory.nodes_everywhere(Role::View).into_iter().map(|address| async move {
            let says = self.ask(&address, ViewInstances { watch: false }, deadline).await;
            Seen { node: address.node, datacenter: address.datacenter, says: says.map_err(|e| e.to_string()) }
        });
        let mut seen = join_all(asked).await;
        seen.sort_by(|a, b| (&a.datacenter, &a.node).cmp(&(&b.datacenter, &b.node)));
        seen
    }

    /// Does the next thing again and again until all is as the plan says. `tell` is told how far it has come, whenever
    /// that has changed. Fails when nothing has moved for as long as `patience` says.
    pub async fn carry_out(
        &self,
        wanted: Wanted,
        targets: &[Target],
        patience: Duration,
        mut tell: impl FnMut(&Progress),
    ) -> Result<(), CallError> {
        let mut told = None;
        let mut until = self.env.now() + patience;
        loop {
            let (step, mut progress) = next(wanted, targets, &self.survey().await);
            let refused = match step {
                Step::Done => {
                    tell(&progress);
                    return Ok(());
                }
                Step::Wait => Vec::new(),
                Step::Hold(orders) => self.order(orders, |serves| ViewHold { serves }).await?,
                Step::Drop(orders) => self.order(orders, |serves| ViewDrop { serves }).await?,
            };
            progress.waits.extend(refused);
            if told.as_ref() != Some(&progress) {
                tell(&progress);
                told = Some(progress);
                until = self.env.now() + patience;
            } else if self.env.now() >= until {
                let waits = told.unwrap_or_default().waits.join("; ");
                let message = format!("nothing has moved for {} s ({waits}): ask again to go on", patience.as_secs());
                return Err(CallError::later(Code::Deadline, 1000, message));
            }
            self.env.sleep(LOOK_EVERY).await;
        }
    }

    /// Tells nodes what to do, all at once. Whoever cannot now is told again later; why is returned.
    async fn order<C: Call<Reply = ViewInstancesReply>>(
        &self,
        orders: Vec<(Name, Vec<beam_wire::message::view::Served>)>,
        call: impl Fn(Vec<beam_wire::message::view::Served>) -> C,
    ) -> Result<Vec<String>, CallError> {
        let deadline = self.env.now() + ANSWER_WITHIN;
        let told = orders.into_iter().map(|(node, serves)| {
            let call = call(serves);
            async move {
                let answer = match self.directory.find(&node) {
                    Some(address) => self.ask(&address, call, deadline).await.map(drop),
                    None => Err(CallError::elsewhere(Code::Unavailable, "DNS does not name it any more")),
                };
                (node, answer)
            }
        });
        let mut refused = Vec::new();
        for (node, answer) in join_all(told).await {
            match answer {
                Ok(()) => {}
                Err(error) if error.is_retryable() => refused.push(format!("{node}: {error}")),
                Err(error) => return Err(CallError { message: format!("{node}: {}", error.message), ..error }),
            }
        }
        Ok(refused)
    }

    async fn ask<C: Call>(&self, address: &NodeAddress, call: C, deadline: Instant) -> Result<C::Reply, CallError> {
        let asking = async { self.peers.peer(&address.target(), Lane::Calls).await?.ask(&call, deadline).await };
        let silent = |_| CallError::elsewhere(Code::Unavailable, "it does not answer");
        self.env.timeout_at(deadline, asking).await.map_err(silent)?
    }
}

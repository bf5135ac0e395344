//! Calls that only the leader can answer: any log node takes them and brings them there.

use super::append::AppendError;
use super::raft::{Leads, Log};
use beam_wire::error::{CallError, Code, Retry};
use beam_wire::ids::Name;
use beam_wire::message::Call;
use beam_wire::quic::Lane;
use openraft::async_runtime::WatchReceiver;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Between attempts, when nobody leads or the leader is not confirmed yet.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// How long before its deadline a call is told why it fails.
const REASON_BEFORE: Duration = Duration::from_millis(100);

/// A call that only the leader can answer.
pub(super) trait ForLeader: Call<Item = ()> {
    /// Whether it was forwarded already.
    fn is_forwarded(&self) -> bool;
    /// The same call, marked so that it is not forwarded again.
    fn forward(&self) -> Self;
    /// The leader's answer; none if it turns out not to lead, or cannot prove it yet.
    fn lead(&self, log: &Log) -> impl Future<Output = Result<Option<Self::Reply>, CallError>> + Send;
}

/// Answers a call here if this node leads, else where the leader is, until the deadline.
pub(super) async fn at_leader<C: ForLeader>(
    log: &Log,
    call: &C,
    deadline: Option<Instant>,
) -> Result<C::Reply, CallError> {
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

async fn keep_asking<C: ForLeader>(log: &Log, call: &C, deadline: Instant) -> Result<C::Reply, CallError> {
    // Without an epoch there is no cluster yet, and the error says what is missing.
    log.epoch()?;
    loop {
        match log.leads() {
            Leads::Me => match call.lead(log).await? {
                Some(answer) => return Ok(answer),
                None if call.is_forwarded() => return Err(not_leader(log, None)),
                None => {}
            },
            Leads::Other { node, .. } if call.is_forwarded() => return Err(not_leader(log, Some(node.node))),
            Leads::Nobody if call.is_forwarded() => return Err(not_leader(log, None)),
            Leads::Other { id, node } => tokio::select! { biased;
                _ = replaced(log, id) => {}
                answer = ask(log, &node.node, call, deadline) => match answer {
                    Ok(answer) => return Ok(answer),
                    Err(e) if passes(&e) => tracing::debug!("{node}, which leads, refused: {e}"),
                    Err(e) => return Err(e),
                },
            },
            Leads::Nobody => {}
        }
        log.env.sleep(RETRY_EVERY).await;
    }
}

/// Whether the leader, or another, may answer in a moment. What the leader itself wants tried again later
/// is the caller's to decide.
fn passes(e: &CallError) -> bool {
    e.code == Code::NotLeader || matches!(e.retry, Retry::Elsewhere | Retry::At(_))
}

async fn ask<C: ForLeader>(log: &Log, leader: &Name, call: &C, deadline: Instant) -> Result<C::Reply, CallError> {
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

//! What an operator does when the log has lost its majority: look at the survivors, agree to a plan, carry it out.
//!
//! [`crate::log::survivors`] decides; this asks and tells the log nodes. It may be broken off anywhere: whoever runs
//! it again sees what is left to do.

use crate::log::survivors::{Answers, Plan, SILENT_MS};
use crate::remote::log::RemoteLog;
use beam_wire::env::Env;
use beam_wire::message::log::{LogRecover, RecoverOrder, RecoverPart};
use beam_wire::{CallError, Code, Name};
use futures::future::join_all;
use std::time::Duration;
use tokio::time::Instant;

/// How long a log node may take to say how it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at a node that restarts.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Asks every log node that the topology or DNS names.
pub async fn survey(env: &Env, log: &RemoteLog, nodes: &[Name]) -> Answers {
    let deadline = env.now() + ANSWER_WITHIN;
    let asked = nodes.iter().map(|node| async move {
        let said = log.recover(node, &LogRecover { order: None }, deadline).await;
        (node.clone(), said.map_err(|e| e.to_string()))
    });
    join_all(asked).await
}

/// Carries a plan out: first the log that is kept begins its new epoch, then the others' are set aside. `tell` is
/// told each step as it is done.
pub async fn carry_out(
    env: &Env,
    log: &RemoteLog,
    plan: &Plan,
    deadline: Instant,
    mut tell: impl FnMut(String),
) -> Result<(), CallError> {
    for order in &plan.orders {
        give(env, log, order, deadline).await?;
        tell(format!("{} has its part, and restarts", order.node));
        match &order.part {
            RecoverPart::Refound { epoch } => {
                let leads = |said: &beam_wire::message::log::LogStatusReply| {
                    said.info.epoch == Some(*epoch)
                        && said.info.leader.as_ref() == Some(&order.node)
                        && said.epochs.last().is_some_and(|began| said.info.committed > Some(began.kept))
                };
                until(env, log, &order.node, deadline, leads).await?;
                tell(format!("{} leads the log in epoch {epoch}: it takes writes again", order.node));
            }
            RecoverPart::SetAside { .. } => {
                let old = order.seen.raft_id;
                until(env, log, &order.node, deadline, |said| said.info.raft_id != old).await?;
                tell(format!("{} has set its old log aside, and is empty", order.node));
            }
        }
    }
    Ok(())
}

/// Gives an order, again and again where that may help: the same order twice does no harm.
async fn give(env: &Env, log: &RemoteLog, order: &RecoverOrder, deadline: Instant) -> Result<(), CallError> {
    loop {
        match log.recover(&order.node, &LogRecover { order: Some(order.clone()) }, deadline).await {
            Ok(_) => return Ok(()),
            Err(e) if !e.is_retryable() || env.now() + LOOK_EVERY >= deadline => return Err(e),
            Err(e) => tracing::debug!("{} did not take its order: {e}", order.node),
        }
        env.sleep(LOOK_EVERY).await;
    }
}

async fn until(
    env: &Env,
    log: &RemoteLog,
    node: &Name,
    deadline: Instant,
    so: impl Fn(&beam_wire::message::log::LogStatusReply) -> bool,
) -> Result<(), CallError> {
    let mut trouble = "it does not answer".to_owned();
    while env.now() + LOOK_EVERY < deadline {
        match log.status(node, deadline.min(env.now() + ANSWER_WITHIN)).await {
            Ok(said) if so(&said) => return Ok(()),
            Ok(said) => trouble = format!("it is {:?}", said.info),
            Err(e) => trouble = e.to_string(),
        }
        env.sleep(LOOK_EVERY).await;
    }
    let message = format!("{node} has taken its part, but has not come back with it done ({trouble}); look at its log");
    Err(CallError::later(Code::Unavailable, SILENT_MS as u32, message))
}

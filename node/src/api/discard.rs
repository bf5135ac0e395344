//! Everything that an api node does to shorten the log: now and then it looks, and proposes a discard.
//!
//! All api nodes do so, each at moments of its own: whoever comes first does the work, and a discard that was done already
//! changes nothing.

use super::shorten::{Decision, ShortenOptions, decide};
use crate::coverage::Seen;
use crate::remote::log::RemoteLog;
use crate::remote::view::RemoteViews;
use beam_wire::env::Env;
use beam_wire::message::log::LogInfoReply;
use beam_wire::{CallError, Code, LogIndex};
use std::time::Duration;

/// Between two looks, on average: a log at full speed grows by a few segments meanwhile.
const PAUSE: Duration = Duration::from_secs(30);
/// A log node that says nothing for so long counts as not answering.
const INFO_PATIENCE: Duration = Duration::from_secs(2);
/// How long the log may take for a discard.
const DISCARD_PATIENCE: Duration = Duration::from_secs(10);

/// Takes this node's turns, without end.
pub(super) async fn take_turns(env: Env, log: RemoteLog, views: RemoteViews, options: ShortenOptions) {
    loop {
        // At random moments: all api nodes would else ask at once.
        env.sleep(PAUSE.mul_f64(0.5 + env.random_below(1000) as f64 / 1000.0)).await;
        match turn(&env, &log, &views, &options).await {
            Ok(None) => {}
            Ok(Some((before, Decision { without, .. }))) if without.is_empty() => {
                tracing::info!("all views can do without the log's entries before {before}: they are let go");
            }
            Ok(Some((before, decision))) => {
                tracing::warn!("entries before {before} are let go: {}", decision.sentence(&options));
            }
            Err(error) => tracing::info!("the log could not be shortened now: {error}"),
        }
    }
}

/// Looks once. Returns what was let go, and why.
async fn turn(
    env: &Env,
    log: &RemoteLog,
    views: &RemoteViews,
    options: &ShortenOptions,
) -> Result<Option<(LogIndex, Decision)>, CallError> {
    let info = info(env, log).await?;
    let all = views.all();
    let seen = all.iter().filter_map(|(address, status)| {
        let status = status.as_ref().ok()?;
        Some(Seen { node: &address.node, datacenter: &address.datacenter, status })
    });
    let decision = decide(options, &seen.collect::<Vec<_>>(), &info);
    let (Some(before), Some(epoch)) = (decision.before, info.epoch) else { return Ok(None) };
    log.discard(epoch, before, env.now() + DISCARD_PATIENCE).await?;
    Ok(Some((before, decision)))
}

/// What the nearest log node that answers says.
async fn info(env: &Env, log: &RemoteLog) -> Result<LogInfoReply, CallError> {
    let mut last = CallError::later(Code::Unavailable, 500, "DNS names no log node");
    for node in log.nodes() {
        let deadline = env.now() + INFO_PATIENCE;
        match env.timeout_at(deadline, log.info(&node.node, deadline)).await {
            Ok(Ok(info)) if info.epoch.is_some() => return Ok(info),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => last = error,
            Err(_) => last = CallError::elsewhere(Code::Unavailable, format!("{} does not answer", node.node)),
        }
    }
    Err(last)
}

//! What a view whose data is damaged begins anew from: its log, if that is still whole, or other views. While there is
//! neither, it keeps what it has, answers nothing, and says why.

use super::boot;
use super::instance::Others;
use crate::remote::log::RemoteLog;
use crate::remote::view::{RemoteViews, Views};
use beam_wire::LogIndex;
use beam_wire::env::Env;
use beam_wire::message::view::Served;
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a log node may take to say where its log begins.
const LOG_WITHIN: Duration = Duration::from_secs(2);
/// Between two complaints.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Where a view may begin anew from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// The log still has all entries.
    Log,
    /// Others hold all of it.
    Views,
}

/// Waits until there is something to begin anew from.
pub async fn replacement(env: &Env, others: &Others, serves: &[Served]) -> Replacement {
    let Others { datacenter, peers, directory, log, .. } = others.clone();
    let views = RemoteViews::start(env, peers, directory, datacenter);
    let mut told = env.now();
    loop {
        if is_whole(env, &log).await {
            return Replacement::Log;
        }
        if boot::all_is_held(&views, serves) {
            return Replacement::Views;
        }
        if env.now() >= told {
            tracing::error!(
                "this view is damaged, and cannot begin anew: the log was discarded, and no other views hold all of its \
                 ranges. Start views of these ranges, or restore a backup; its files are kept until then"
            );
            told = env.now() + TOLD_EVERY;
        }
        let _ = env.timeout(PAUSE, views.changed()).await;
    }
}

/// Whether a log node holds every entry.
async fn is_whole(env: &Env, log: &RemoteLog) -> bool {
    for node in log.nodes() {
        let info = log.info(&node.node, env.now() + LOG_WITHIN).await;
        if info.is_ok_and(|info| info.first <= LogIndex(1)) {
            return true;
        }
    }
    false
}

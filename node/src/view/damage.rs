//! What a view goes on from when its own data is damaged, or the log has let go of what it lacks: the log, if a node
//! still has it, or other views. While there is neither, it keeps what it has, and says why.

use super::boot;
use super::instance::Others;
use crate::remote::log::RemoteLog;
use crate::remote::view::RemoteViews;
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

/// Where a view may go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// A log node still has all entries that it needs.
    Log,
    /// Others hold all of it.
    Views,
}

/// Waits until there is something to go on from: the log from an entry on, or all that is to be held. `why` is for people.
pub async fn replacement(env: &Env, others: &Others, serves: &[Served], from: LogIndex, why: &str) -> Replacement {
    let Others { datacenter, peers, directory, log, .. } = others.clone();
    let views = RemoteViews::start(env, peers, directory, datacenter);
    let mut told = env.now();
    loop {
        if is_kept(env, &log, from).await {
            return Replacement::Log;
        }
        if boot::all_is_held(&views, serves) {
            return Replacement::Views;
        }
        if env.now() >= told {
            tracing::error!(
                "{why}, and cannot begin anew: the log from entry {from} on was discarded, and no other views hold all of \
                 its ranges. Start views of these ranges, or restore a backup; its files are kept until then"
            );
            told = env.now() + TOLD_EVERY;
        }
        // However often others tell how they are.
        env.sleep(PAUSE).await;
    }
}

/// Whether a log node holds every entry from one on.
async fn is_kept(env: &Env, log: &RemoteLog, from: LogIndex) -> bool {
    for node in log.nodes() {
        let info = log.info(&node.node, env.now() + LOG_WITHIN).await;
        if info.is_ok_and(|info| info.first <= from) {
            return true;
        }
    }
    false
}

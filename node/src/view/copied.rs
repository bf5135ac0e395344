//! Whether a view that has copied from others is as they are: a source may have been wrong without knowing it.
//!
//! Hashes that views keep as they apply see nothing of what is lost on a disk later, and a copy is made from disks. So once
//! the copy serves, its hashes are compared with those of all others. If it is the one that differs, it stops, has the
//! others read their disks, so that a source that is damaged finds that out and goes, too, and copies again.

use super::follow::FollowError;
use super::instance::Others;
use super::status::Board;
use super::store::StorageError;
use crate::remote::view::RemoteViews;
use crate::verify::compare::{Finding, What};
use crate::verify::verify;
use beam_wire::Name;
use beam_wire::env::Env;
use beam_wire::message::view::{Served, ViewState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the others may take to tell their hashes.
const COMPARE_WITHIN: Duration = Duration::from_secs(60);
/// How long they may take to read their disks: at their rate, some hundred million facts each.
const SCAN_WITHIN: Duration = Duration::from_secs(3600);

/// Waits until the view serves, and compares it with the others. If it is wrong, it is `doubted`, and stops; whoever was
/// doubted before goes on, and says so: a second copy would be no better.
pub async fn compare(env: Env, others: Others, board: Arc<Board>, doubted: Arc<AtomicBool>) {
    loop {
        let edition = board.edition();
        match board.state() {
            ViewState::Serving => break,
            ViewState::Draining => return,
            ViewState::Booting | ViewState::Damaged => board.changed_since(edition).await,
        }
    }
    let me = others.me.clone();
    let views = views(&env, others);
    let report = verify(&env, &views, false, env.now() + COMPARE_WITHIN).await;
    for (node, why) in &report.missing {
        tracing::info!("what was copied could not be compared with {node}: {why}");
    }
    let Some(finding) = report.findings.into_iter().find(|finding| is_against(finding, &me, board.serves())) else {
        return tracing::info!(
            "what was copied does not differ from what others hold: {} were asked",
            report.compared.len()
        );
    };
    let why = format!("what this view has copied is not what others hold: {finding}");
    if doubted.swap(true, Ordering::Relaxed) {
        return tracing::error!("{why}, though it was copied again. See `beam verify --scan`");
    }
    board.set_broken(FollowError::from(StorageError::Damaged(why)));
}

/// Has all others read their disks. Those that are damaged stop, and begin anew.
pub async fn scan_others(env: &Env, others: Others) {
    let views = views(env, others);
    let report = verify(env, &views, true, env.now() + SCAN_WITHIN).await;
    for finding in report.findings {
        tracing::error!("before this view copies again: {finding}");
    }
}

fn views(env: &Env, others: Others) -> RemoteViews {
    let Others { datacenter, peers, directory, .. } = others;
    RemoteViews::start(env, peers, directory, datacenter)
}

/// Whether most others say something else than this view of something that it holds.
fn is_against(finding: &Finding, me: &Name, serves: &[Served]) -> bool {
    let ours = |served: &Served| {
        serves.iter().any(|s| s.space == served.space && s.range.intersect(&served.range) == Some(served.range))
    };
    matches!(finding.what, What::Live | What::Verdicts)
        && finding.wrong.contains(me)
        && finding.served.as_ref().is_none_or(ours)
}

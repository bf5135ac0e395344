//! Whether all views of a running cluster hold the same: each is asked for hashes as of one index, which are then
//! compared, over whatever mix of cuts there is.
//!
//! The index is the newest that any view has applied. The others wait until they have applied it; those that have gone
//! on in the meantime still know what it was. A view that was copied may hold texts that later entries brought, until it
//! has applied those itself: so what differs is looked at once more, a moment later, and counts if it still does.

pub mod compare;

use crate::remote::view::{Asking, RemoteViews, View, Views};
use beam_wire::env::Env;
use beam_wire::message::view::{ViewVerify, ViewVerifyReply};
use beam_wire::{CallError, Code, LogIndex, Name, Version};
use compare::{Finding, Told, compare};
use futures::StreamExt;
use futures::future::join_all;
use std::time::Duration;
use tokio::time::Instant;

/// How long views that DNS names may take to say how they are.
const APPEAR_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait before what differs is looked at again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often another index is tried when one was too old for a view that goes on fast.
const ATTEMPTS: u32 = 5;
/// Before a view is asked again whose connection has broken.
const RECONNECT_PAUSE: Duration = Duration::from_millis(300);

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The version at which views were compared; none if no view has one.
    pub at: Option<Version>,
    /// The views that were compared, with their datacenters, in order.
    pub compared: Vec<(Name, Name)>,
    /// The views that were not, and why.
    pub missing: Vec<(Name, CallError)>,
    /// What differs.
    pub findings: Vec<Finding>,
    /// Ranges that only one view told something of, and nothing else adds up to.
    pub alone: Vec<String>,
    /// Live facts in all, if all ranges were told.
    pub facts: Option<u64>,
    /// Records that were read from disks.
    pub records: u64,
}

impl Report {
    /// Whether nothing differs.
    pub fn all_agree(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Asks all views, and compares what they say. With `scan`, each reads all of its data before it answers.
pub async fn verify(env: &Env, views: &RemoteViews, scan: bool, deadline: Instant) -> Report {
    let unheard = appear(env, views).await;
    let first = look(env, views, scan, &unheard, deadline).await;
    // A scan is not repeated: whoever is found damaged by it has said so itself.
    if first.findings.iter().all(|finding| finding.is_damage()) {
        return first;
    }
    env.sleep(AGAIN_AFTER).await;
    let again = look(env, views, false, &unheard, deadline).await;
    let still =
        |finding: &Finding| finding.needs_scan() || again.findings.iter().any(|other| other.same_place(finding));
    let findings = first.findings.iter().filter(|finding| still(finding)).cloned().collect();
    Report { findings, ..first }
}

/// Waits until every view that DNS names has said how it is, or had time enough. Returns those that have not.
async fn appear(env: &Env, views: &RemoteViews) -> Vec<(Name, CallError)> {
    let until = env.now() + APPEAR_WITHIN;
    loop {
        let changed = views.changed();
        let all = views.all();
        let unheard: Vec<_> =
            all.iter().filter_map(|(at, said)| Some((at.node.clone(), said.as_ref().err()?.clone()))).collect();
        if !all.is_empty() && unheard.is_empty() || env.timeout_at(until, changed).await.is_err() {
            return unheard;
        }
    }
}

async fn look(env: &Env, views: &RemoteViews, scan: bool, unheard: &[(Name, CallError)], deadline: Instant) -> Report {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let table = views.table();
        let newest = |view: &View| Some(Version { epoch: view.status.epoch?, index: view.status.applied });
        let Some(at) = table.iter().filter_map(newest).max() else {
            let nothing = || CallError::elsewhere(Code::Unavailable, "it has applied nothing yet");
            let missing = table.iter().map(|view| (view.node.clone(), nothing())).chain(unheard.iter().cloned());
            return report(None, Vec::new(), missing.collect());
        };
        // What was deleted before is no longer whole everywhere.
        let after = table.iter().map(|view| view.status.oldest).max().unwrap_or(LogIndex(0));
        let scan = scan.then_some(after);
        let asked = table.iter().map(|view| ask(env, views, view, at, scan, deadline));
        let answers: Vec<_> = join_all(asked).await;
        let moved = |answer: &Result<ViewVerifyReply, CallError>| matches!(answer, Err(e) if e.code == Code::TooOld || e.code == Code::WrongEpoch);
        if attempt < ATTEMPTS && answers.iter().any(moved) {
            env.sleep(Duration::from_millis(100)).await;
            continue;
        }
        let (mut told, mut missing) = (Vec::new(), unheard.to_vec());
        for (view, answer) in table.iter().cloned().zip(answers) {
            match answer {
                Ok(reply) => told.push(Told { node: view.node, datacenter: view.datacenter, reply, after }),
                Err(error) => missing.push((view.node, error)),
            }
        }
        missing.sort_by(|a, b| a.0.cmp(&b.0));
        missing.dedup_by(|a, b| a.0 == b.0);
        return report(Some(at), told, missing);
    }
}

fn report(at: Option<Version>, told: Vec<Told>, missing: Vec<(Name, CallError)>) -> Report {
    let compare::Compared { mut findings, alone, facts } = compare(&told);
    // It has read its own data, and says what is wrong with it.
    let (damaged, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(|(_, e)| e.code == Code::Storage);
    findings.splice(0..0, damaged.into_iter().map(|(node, error)| Finding::damage(node, error.message)));
    let records = told.iter().filter_map(|told| Some(told.reply.scanned.as_ref()?.records)).sum();
    let mut compared: Vec<_> = told.into_iter().map(|told| (told.node, told.datacenter)).collect();
    compared.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    Report { at, compared, missing, findings, alone, facts, records }
}

/// Asks a view. One that was started again since it was last asked has lost that connection: it is asked anew.
async fn ask(
    env: &Env,
    views: &RemoteViews,
    view: &View,
    at: Version,
    scan: Option<LogIndex>,
    deadline: Instant,
) -> Result<ViewVerifyReply, CallError> {
    let request = ViewVerify { serves: view.status.serves.clone(), at, scan };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let answer = views.call(view, Asking::Copy, request.clone(), deadline).next().await;
        match answer {
            Some(Err(error)) if error.code == Code::Disconnected && attempt < ATTEMPTS => {
                env.sleep(RECONNECT_PAUSE).await;
            }
            Some(answer) => return answer,
            None => return Err(CallError::elsewhere(Code::Internal, "it ended the call without an answer")),
        }
    }
}

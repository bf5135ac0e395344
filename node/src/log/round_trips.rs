//! How far the other log nodes are: measured at the start, for the timers, and watched from then on.

use super::network::{Network, QUICK};
use super::raft::Log;
use super::timers::Timers;
use super::types::LogNode;
use beam_wire::env::Env;
use beam_wire::ids::Name;
use beam_wire::message::log::{LogInfo, RoundTrip};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long a starting node looks for the others before it takes what is known of them. Two round trips to
/// shake hands and three to measure fit, over any ocean.
const MEASURE_WITHIN: Duration = Duration::from_secs(1);
/// Questions to each: the first round trip is that of a handshake, which computes.
const QUESTIONS: usize = 3;
/// Between two attempts to reach a node that is starting as well.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// A connection that is there is given at once.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How often the timers are held against the round trips.
const WATCH_EVERY: Duration = Duration::from_secs(10);

/// The round trips to other log nodes, as far as they answer within a second.
pub(super) async fn measure(env: &Env, network: &Network, others: &[LogNode]) -> BTreeMap<Name, Option<Duration>> {
    let deadline = env.now() + MEASURE_WITHIN;
    let measuring = others.iter().map(|other| async move {
        let measured = env.timeout_at(deadline, async {
            let peer = loop {
                match network.peer(&other.node, QUICK).await {
                    Ok(peer) => break peer,
                    Err(_) => env.sleep(RETRY_EVERY).await,
                }
            };
            for _ in 0..QUESTIONS {
                // A refusal takes a round trip too.
                if let Err(e) = peer.ask(&LogInfo, deadline).await {
                    tracing::debug!("{} is starting: {e}", other.node);
                }
            }
            peer.rtt()
        });
        (other.node.clone(), measured.await.ok())
    });
    join_all(measuring).await.into_iter().collect()
}

/// Warns of timers that do not fit the round trips to the voters, once whenever that changes.
pub(super) async fn watch(log: Arc<Log>) {
    let options = &log.options;
    let (heartbeat, beat) = (options.heartbeat, options.beat);
    let timers = Timers { heartbeat, beat, election_min: options.election_min, election_max: options.election_max };
    loop {
        log.env.sleep(WATCH_EVERY).await;
        let voters: BTreeSet<Name> = log.voter_names().into_iter().collect();
        let round_trips = now(&log).await.into_iter().filter(|to| voters.contains(&to.node));
        let round_trips = round_trips.map(|to| (to.node, Duration::from_micros(to.micros.into()))).collect();
        let found = timers.warnings(&round_trips);
        let mut warned = log.timer_warnings.lock().unwrap_or_else(PoisonError::into_inner);
        // The numbers in a warning wander; that it is there does not.
        if found.len() != warned.len() {
            found.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        *warned = found;
    }
}

/// To the other log nodes that this one is connected to.
pub(super) async fn now(log: &Log) -> Vec<RoundTrip> {
    let asked = log.others().into_iter().map(|node| async move {
        let peer = log.env.timeout(AT_ONCE, log.network.peer(&node, QUICK)).await.ok()?.ok()?;
        let micros = u32::try_from(peer.rtt().as_micros()).unwrap_or(u32::MAX);
        Some(RoundTrip { node, micros })
    });
    join_all(asked).await.into_iter().flatten().collect()
}

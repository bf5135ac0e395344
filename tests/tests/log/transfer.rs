//! What writers notice of leadership that moves on purpose.

use super::cluster::{Cluster, name};
use super::{disk, ms, wan};
use beam_wire::env::Task;
use beam_wire::env::sim::SimWorld;
use beam_wire::{CallError, Name};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Appends on their way from each datacenter.
const IN_FLIGHT: usize = 64;

/// When appends from one datacenter were acknowledged, and which failed.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<Instant>,
    failed: Vec<CallError>,
}

impl Seen {
    /// The longest time without an acknowledgement between two instants.
    fn gap(&self, from: Instant, to: Instant) -> Duration {
        let inside = self.acknowledged.iter().copied().filter(|at| (from..to).contains(at));
        let ends: Vec<Instant> = [from].into_iter().chain(inside).chain([to]).collect();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}

/// A datacenter's clients, each of which appends again as soon as it may.
fn busy(cluster: &mut Cluster, datacenter: &str) -> (Arc<Mutex<Seen>>, Vec<Task>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let appender = cluster.client(datacenter).appender();
    let one = |n: usize| {
        let (env, seen, appender) = (cluster.env.clone(), seen.clone(), appender.clone());
        cluster.env.tasks().serve("writer", async move {
            // Spread, so that there is something to acknowledge at any time.
            env.sleep(ms(2 * n as u64)).await;
            loop {
                let outcome = appender.append("x".into(), env.now() + ms(10_000)).await;
                let mut seen = seen.lock().unwrap();
                match outcome {
                    Ok(_) => seen.acknowledged.push(env.now()),
                    Err(e) => seen.failed.push(e),
                }
            }
        })
    };
    let tasks = (0..IN_FLIGHT).map(one).collect();
    (seen, tasks)
}

/// Leadership moves from va to the preferred datacenter while all are busy. `round_trips` are those from each
/// datacenter to the new leader, or from the old one, whichever is longer.
fn moves(seed: u64, to: &str, round_trips: [u64; 3]) {
    let to: Name = name(to);
    SimWorld::run(seed, |world| async move {
        let mut cluster = Cluster::new(&world, disk(), wan());
        cluster.options.preferred = Some(to.clone());
        cluster.options.calm = ms(3000);
        cluster.start_all().await;
        let busy: Vec<_> = ["va", "or", "ie"].map(|dc| (dc, busy(&mut cluster, dc))).into();
        let first = cluster.wait_for_leader().await;
        cluster.env.sleep(ms(1000)).await;
        let calm = cluster.env.now();
        let target = format!("log-{to}");
        assert_ne!(first, target, "seed {seed}: it leads already");
        cluster.wait(|c| c.info(&target).is_some_and(|i| i.leader == Some(name(&target))).then_some(())).await;
        let moved = cluster.env.now();
        cluster.env.sleep(ms(1500)).await;
        for ((dc, (seen, _)), round_trip) in busy.iter().zip(round_trips.map(ms)) {
            let seen = seen.lock().unwrap();
            let before = seen.gap(calm, moved - ms(500));
            let around = seen.gap(moved - ms(500), moved + ms(800));
            let after = seen.gap(moved + ms(700), cluster.env.now());
            let longer = around.saturating_sub(before.max(after));
            let round_trips = longer.as_secs_f64() / round_trip.as_secs_f64();
            println!(
                "seed {seed}, {first} to {target}, from {dc}: at most {before:?} between two acknowledgements before, \
                 {after:?} after, {around:?} around: {round_trips:.1} round trips longer"
            );
            assert!(seen.failed.is_empty(), "seed {seed}: {:?}", seen.failed[0]);
            assert!(round_trips < 1.0, "seed {seed}, from {dc}: {round_trips:.1} round trips longer");
        }
    });
}

#[test]
fn no_append_fails_while_leadership_moves_and_nobody_waits_for_a_round_trip_longer() {
    for seed in 80..84 {
        moves(seed, "ie", [76, 130, 76]);
        moves(seed, "or", [60, 60, 130]);
    }
}

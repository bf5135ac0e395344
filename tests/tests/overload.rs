//! A load that never ends, and views that cannot follow it: writers are slowed, and told to come again later, so that readers of
//! `Latest` wait a few seconds at most, and no writer's id grows too old to be known.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, Position};
use beam_tests::{SimCluster, tell};
use beam_wire::env::Env;
use beam_wire::env::sim::{Link, SimWorld};
use beam_wire::{ClientRole, Role, Term};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// W, small: a writer that waits for long would not be known any more.
const WINDOW: u64 = 2000;
/// Writers, each with one transaction on its way.
const WRITERS: u64 = 24;
/// Letters of each transaction, which no compression makes few.
const LETTERS: usize = 12_000;
/// How long the load goes on.
const LOAD: Duration = Duration::from_secs(25);
/// How long a reader of `Latest` waits at most: as old as entries become before writes are refused, those that were on their way
/// then, and the way to the log.
const LATEST_MAX: Duration = Duration::from_secs(8);

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    written: AtomicU64,
    failed: Mutex<Option<String>>,
}

#[test]
fn a_load_without_end_starves_no_reader_and_lets_no_id_expire() {
    tell(|| SimWorld::run(21, load_without_end));
}

async fn load_without_end(world: SimWorld) -> Result<()> {
    let mut cluster = SimCluster::start(world, 0.0, |topology| {
        topology.verdicts.slots_log2 = 12;
        topology.verdicts.window = WINDOW;
    })
    .await?;
    let env = cluster.env();
    let clients = cluster.clients(PATIENCE).await?;
    let here = cluster.topology.datacenters[0].clone();
    let reader = clients[&here].clone();
    let writer = cluster.client_within(&here, std::slice::from_ref(&here), ClientRole::Writer, PATIENCE).await?;
    // The way from log nodes to views carries less than is written, everywhere: no view is of help to another.
    let slow = Link { loss: 0.15, ..Link::of(Duration::from_millis(8)) };
    for log in cluster.topology.nodes_with(Role::Log) {
        for view in cluster.topology.nodes_with(Role::View) {
            cluster.world.net().set_link(log.address, view.address, slow);
        }
    }

    let load = Arc::new(Load::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| env.tasks().serve("load.write", write(env.clone(), writer.clone(), load.clone(), number)))
        .collect();
    let (mut reads, mut longest) = (0, Duration::ZERO);
    let until = env.now() + LOAD;
    while env.now() < until {
        let asked = env.now();
        reader.query_all("ASK { <urn:load> ?p ?o }", Position::Latest).await.context("a read of Latest")?;
        longest = longest.max(env.now() - asked);
        reads += 1;
    }
    load.stop.store(true, Relaxed);
    while !writers.iter().all(|writer| writer.is_finished()) {
        env.sleep(Duration::from_millis(50)).await;
        ensure!(env.now() < until + PATIENCE, "a writer has not ended");
    }
    let failed = load.failed.lock().expect("nobody panics with it").take();
    ensure!(failed.is_none(), "{}", failed.unwrap_or_default());
    let written = load.written.load(Relaxed);
    println!("{written} written; {reads} reads, the longest took {longest:?}");
    ensure!(longest <= LATEST_MAX, "a read of Latest took {longest:?}");
    ensure!(longest > Duration::from_secs(2), "the views followed: this story tells nothing");
    ensure!(written > WRITERS, "nothing was written");

    let found = reader.query_all("SELECT (COUNT(*) AS ?n) { <urn:load> <urn:p> ?o }", Position::Latest).await?;
    let count = found.rows.first().and_then(|row| row[0].clone()).context("a count")?;
    let Term::Literal { lexical, .. } = &count else { anyhow::bail!("{count:?} is no number") };
    ensure!(*lexical == written.to_string(), "{lexical} are there, {written} were acknowledged");
    Ok(())
}

/// Writes one fact after the other. Each has its own id, which stays the same until it is acknowledged.
async fn write(env: Env, client: Client, load: Arc<Load>, writer: u64) {
    for number in 0.. {
        if load.stop.load(Relaxed) {
            return;
        }
        let letters: String = (0..LETTERS / 16).map(|_| format!("{:016x}", env.random_u64())).collect();
        let update = format!("INSERT DATA {{ <urn:load> <urn:p> \"{writer} {number} {letters}\" }}");
        // A client that is told to come again later does so, until its patience ends.
        if let Err(error) = client.update(&update).await {
            *load.failed.lock().expect("nobody panics with it") = Some(format!("writer {writer}: {error}"));
            return;
        }
        load.written.fetch_add(1, Relaxed);
    }
}

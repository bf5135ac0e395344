//! Reads go on when views of a datacenter are gone, and when the log is: who asks waits no longer than for a hedge, not until a
//! connection is found dead.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, Position, Version};
use beam_node::log::disk_sim::Loss;
use beam_tests::{SimCluster, tell};
use beam_wire::env::Env;
use beam_wire::env::sim::SimWorld;
use beam_wire::message::view::{ViewLoad, ViewLookup};
use beam_wire::quic::{CallOptions, Lane};
use beam_wire::{ClientRole, LogIndex, Name, Range, Role, Space};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Subjects, over both partitions.
const SUBJECTS: u64 = 50;
/// Calls that wait for a log that does not answer: more than an api node runs at once.
const STUCK: usize = 48;
/// Between two queries.
const PAUSE: Duration = Duration::from_millis(5);

async fn start(world: SimWorld) -> Result<(SimCluster, Client, Version)> {
    let mut cluster = SimCluster::start(world, 0.0, |topology| topology.verdicts.slots_log2 = 12).await?;
    let clients = cluster.clients(PATIENCE).await?;
    let client = clients[&cluster.topology.datacenters[0]].clone();
    let facts: String = (0..SUBJECTS).map(|i| format!("<urn:s:{i}> <urn:p> {i} .")).collect();
    let version = client.update(&format!("INSERT DATA {{ {facts} }}")).await?.version;
    // What was written is at home, too.
    client.query_all("ASK { ?s ?p ?o }", Position::AtLeast(version)).await?;
    Ok((cluster, client, version))
}

/// Looks single facts up for a while, each at a recent version; the longest that one took.
async fn ask(env: &Env, client: &Client, time: Duration) -> Result<Duration> {
    let until = env.now() + time;
    let mut longest = Duration::ZERO;
    for subject in (0..SUBJECTS).cycle() {
        if env.now() >= until {
            break;
        }
        let asked = env.now();
        let found =
            client.query_all(&format!("SELECT ?o {{ <urn:s:{subject}> <urn:p> ?o }}"), Position::Recent).await?;
        ensure!(found.rows.len() == 1, "{} rows of subject {subject} at {}", found.rows.len(), found.version);
        longest = longest.max(env.now() - asked);
        env.sleep(PAUSE).await;
    }
    Ok(longest)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// First one view of a partition is gone without a word, then the other, too: its datacenter has none left. Queries are answered
/// by the one, then from another datacenter, and at home again when they are back.
#[test]
fn queries_go_on_from_another_datacenter_and_return_home() {
    tell(|| SimWorld::run(11, views_are_gone));
}

async fn views_are_gone(world: SimWorld) -> Result<()> {
    let (mut cluster, client, _) = start(world).await?;
    let env = cluster.env();
    let healthy = ask(&env, &client, seconds(3)).await?;
    ensure!(healthy < ms(10), "{healthy:?} with all views");
    let [one, other] = ["view-va-1a", "view-va-1b"].map(|name| Name::new(name).expect("a name"));

    cluster.kill_node(&one, Loss::Nothing).await;
    let first = ask(&env, &client, seconds(1)).await.context("as one view dies")?;
    ensure!(first < ms(60), "{first:?} as one view died: more than a hedge");
    let (api, load) = client.api_load().await?;
    ensure!(load.out == [one.clone()], "{api} leaves out {:?}", load.out);
    let without = ask(&env, &client, seconds(8)).await.context("without one view")?;
    ensure!(without < ms(10), "{without:?} without one view, when it was known");

    cluster.kill_node(&other, Loss::Nothing).await;
    let first = ask(&env, &client, seconds(1)).await.context("as the last view dies")?;
    ensure!(first < ms(250), "{first:?} as the last view died: more than two hedges and a round trip");
    let away = ask(&env, &client, seconds(8)).await.context("from another datacenter")?;
    ensure!(away > ms(55) && away < ms(100), "{away:?} is not a round trip to another datacenter");

    for view in [&one, &other] {
        cluster.start_node(view).await?;
    }
    // They open their disks, are seen, and a few probes show that they answer.
    ask(&env, &client, seconds(15)).await.context("as they come back")?;
    let home = ask(&env, &client, seconds(3)).await?;
    ensure!(home < ms(10), "{home:?} with all views again: that is not at home");
    Ok(())
}

/// A datacenter is cut off from the others, and so its log node from the majority. What its views hold can be read; what needs the
/// log fails within its deadline and says why. When the others are back, so is everything.
#[test]
fn without_the_log_recent_and_exact_reads_go_on() {
    tell(|| SimWorld::run(12, the_log_is_cut_off));
}

async fn the_log_is_cut_off(world: SimWorld) -> Result<()> {
    let (mut cluster, client, version) = start(world).await?;
    let env = cluster.env();
    let here = cluster.topology.datacenters[0].clone();
    let limit = seconds(12);
    let hasty = cluster.client_within(&here, std::slice::from_ref(&here), ClientRole::Writer, limit).await?;
    let all = "SELECT ?s ?o { ?s <urn:p> ?o } ORDER BY ?s";
    let before = client.query_all(all, Position::Exact(version)).await?;
    ensure!(before.rows.len() as u64 == SUBJECTS);

    cluster.cut_off(&here);
    // More than may run at once wait for the log, all the time: nobody else waits for them.
    let stop = Arc::new(AtomicBool::new(false));
    let mut stuck = Vec::new();
    for number in 0..STUCK {
        let (patient, stop) = (client.within(seconds(4)), stop.clone());
        let calling = async move {
            while !stop.load(Relaxed) {
                // There is no majority: that they fail is told below.
                if number % 2 == 0 {
                    let _ = patient.query_all("ASK { ?s ?p ?o }", Position::Latest).await;
                } else {
                    let _ = patient.update(&format!("INSERT DATA {{ <urn:stuck:{number}> <urn:q> 1 }}")).await;
                }
            }
        };
        stuck.push(env.tasks().serve("stuck", calling));
    }
    // Also while connections to the others are being found dead.
    for second in 0..10 {
        let longest = ask(&env, &client, seconds(1)).await.with_context(|| format!("{second} s after the cut"))?;
        ensure!(longest < ms(10), "{longest:?} {second} s after the cut");
    }
    stop.store(true, Relaxed);
    let exact = client.query_all(all, Position::Exact(version)).await.context("an exact version")?;
    ensure!(exact.rows == before.rows && exact.version == before.version);

    let asked = env.now();
    let latest = hasty.query_all(all, Position::Latest).await.err().context("Latest without a majority")?;
    let took = env.now() - asked;
    ensure!(took <= limit + seconds(1), "Latest failed after {took:?}");
    ensure!(latest.is_retryable() && says_why(&latest.to_string()), "Latest failed so: {latest}");
    let asked = env.now();
    let write =
        hasty.update("INSERT DATA { <urn:late> <urn:p> 1 }").await.err().context("a write without a majority")?;
    let took = env.now() - asked;
    ensure!(took <= limit + seconds(1), "the write failed after {took:?}");
    ensure!(says_why(&write.to_string()), "the write failed so: {write}");

    cluster.world.net().heal();
    let back = env.now() + seconds(30);
    while let Err(error) = client.query_all("ASK { ?s ?p ?o }", Position::Latest).await {
        ensure!(env.now() < back, "still cut off: {error}");
    }
    client.update("INSERT DATA { <urn:after> <urn:p> 1 }").await.context("a write after the return")?;
    Ok(())
}

/// Whether an error tells that the log has no majority.
fn says_why(error: &str) -> bool {
    error.contains("majority") || error.contains("quorum") || error.contains("leader")
}

/// Whoever has asked a view leaves: within a round trip the view has stopped working for them, and counts it.
#[test]
fn a_view_stops_work_whose_caller_is_gone() {
    tell(|| SimWorld::run(13, the_caller_is_gone));
}

async fn the_caller_is_gone(world: SimWorld) -> Result<()> {
    let (mut cluster, _client, version) = start(world).await?;
    let env = cluster.env();
    let (peers, directory, _) = cluster.nodes(&cluster.topology.datacenters[1].clone())?;
    let view = loop {
        let views: BTreeMap<Name, _> =
            directory.nodes_everywhere(Role::View).into_iter().map(|n| (n.node.clone(), n)).collect();
        match views.get(&Name::new("view-va-1a")?) {
            Some(view) => break view.target(),
            None => env.sleep(ms(10)).await,
        }
    };
    let peer = peers.peer(&view, Lane::Calls).await?;
    let round_trip = ms(60);
    let deadline = || env.now() + seconds(20);
    let before = peer.ask(&ViewLoad, deadline()).await?;

    // An entry that will be there much later.
    let at = Version { index: LogIndex(version.index.0 + 1000), ..version };
    let lookup = ViewLookup { at, space: Space::Subject, range: Range::partition(0, 2), patterns: vec![] };
    let call = peer.call(&lookup, CallOptions { deadline: Some(deadline()) }).await?;
    env.sleep(2 * round_trip).await;
    ensure!(peer.ask(&ViewLoad, deadline()).await?.calls == before.calls + 1, "the view does not wait");

    drop(call);
    env.sleep(round_trip / 2 + ms(5)).await;
    // What is asked now arrives after the word that the caller is gone.
    let after = peer.ask(&ViewLoad, deadline()).await?;
    ensure!(after.calls == before.calls, "the view still works: {after:?}");
    ensure!(after.cancelled == before.cancelled + 1, "the view has not counted it: {after:?}");

    // One whose deadline passes is no other case; the view is told the deadline, and needs no word.
    let call = peer.call(&lookup, CallOptions { deadline: Some(env.now() + ms(200)) }).await?;
    env.sleep(ms(200) + round_trip).await;
    let late = peer.ask(&ViewLoad, deadline()).await?;
    ensure!(late.calls == before.calls && late.cancelled == after.cancelled + 1, "after its deadline: {late:?}");
    drop(call);
    Ok(())
}

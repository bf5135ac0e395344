//! A view behind a link that loses a fifth of all packets follows the log all the same: slowly, and without ever standing still.

use anyhow::{Context, Result, ensure};
use beam_client::{Builder, Client, Term};
use beam_node::log::disk_sim::Loss;
use beam_tests::{SimCluster, tell};
use beam_wire::env::sim::{Link, SimWorld};
use beam_wire::{LogIndex, Name, Role};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// The way to a view: some 25 KB a second get through.
const LATENCY: Duration = Duration::from_millis(65);
const LOSS: f64 = 0.2;

/// A view that has been away reads on: many entries wait for it. It has each soon after it has come, not when many have.
#[test]
fn a_view_that_loses_a_fifth_of_all_packets_never_stands_still() {
    tell(|| SimWorld::run(41, |world| story(world, Entries { count: 60, letters: 48 << 10 }, true, seconds(8))));
}

/// One entry takes longer to come than a view stays with a log node elsewhere without looking for its own: it is not asked for
/// again and again.
#[test]
fn an_entry_that_takes_long_comes_from_another_datacenter() {
    tell(|| SimWorld::run(42, |world| story(world, Entries { count: 2, letters: 890 << 10 }, false, seconds(90))));
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What is written, in letters that no compression makes few.
struct Entries {
    count: u64,
    letters: usize,
}

/// Writes while a view is away, which then comes back. Its datacenter has its log node, or has not.
async fn story(world: SimWorld, entries: Entries, has_log: bool, still_max: Duration) -> Result<()> {
    let mut cluster = SimCluster::start(world, 0.0, |topology| topology.verdicts.slots_log2 = 12).await?;
    let env = cluster.env();
    let clients = cluster.clients(PATIENCE).await?;
    let home = cluster.topology.datacenters[0].clone();
    let client = clients[&home].clone();
    let view = Name::new("view-va-1b")?;
    let address = cluster.topology.node(&view).context("it is in the topology")?.address;
    let logs: Vec<_> = cluster.topology.nodes_with(Role::Log).cloned().collect();
    for log in &logs {
        let bad = Link { loss: LOSS, ..Link::of(LATENCY) };
        cluster.world.net().set_link(log.address, address, bad);
        if log.datacenter == home && !has_log {
            cluster.kill_node(&log.name, Loss::Unsynced).await;
        }
    }
    cluster.kill_node(&view, Loss::Nothing).await;
    let mut last = LogIndex(0);
    for number in 0..entries.count {
        let letters: String = (0..entries.letters / 16).map(|_| format!("{:016x}", env.random_u64())).collect();
        let iri = |text: &str| Term::Iri(text.to_owned());
        let mut facts = Builder::new();
        facts.insert([iri("urn:load"), iri("urn:p"), Term::string(format!("{number} {letters}"))], None)?;
        last = client.write(facts).await?.index;
    }
    cluster.start_node(&view).await?;
    let began = env.now();
    let (mut applied, mut moved, mut longest) = (LogIndex(0), began, Duration::ZERO);
    while applied < last {
        env.sleep(Duration::from_millis(250)).await;
        let now = position(&client, &view).await?;
        if now > applied {
            (applied, moved) = (now, env.now());
        }
        longest = longest.max(env.now() - moved);
        ensure!(longest < still_max, "it has stood still at {applied} for {longest:?}, and {last} is written");
    }
    let took = env.now() - began;
    println!("{last} was reached after {took:?}; the longest stand was {longest:?}");
    ensure!(took > entries.count as u32 * Duration::from_millis(500), "the way was too good: this story tells nothing");
    Ok(())
}

/// How far a view has come, as an api node hears of it.
async fn position(client: &Client, view: &Name) -> Result<LogIndex> {
    let status = client.status().await?;
    let said = status.views.into_iter().find(|said| said.node == *view).context("DNS names the view")?;
    Ok(said.status.map_or(LogIndex(0), |status| status.applied))
}

//! The log is shortened by itself, as far as views in every datacenter hold on their disks what goes; and not
//! while a datacenter's views are gone, unless it outgrows its size.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, Position};
use beam_node::api::shorten::{Decision, Held, ShortenOptions, decide};
use beam_node::coverage::Seen;
use beam_node::demo::checks;
use beam_node::log::disk_sim::Loss;
use beam_tests::{SimCluster, tell};
use beam_wire::env::Env;
use beam_wire::env::sim::SimWorld;
use beam_wire::topology::Topology;
use beam_wire::{LogIndex, Name, Role, Term};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Api nodes look every half a minute, at random: each has looked several times.
const LOOKS: Duration = Duration::from_secs(150);
/// What the log may grow to for those who are not seen.
const HOLD_BYTES: u64 = 6 << 20;

/// Two views in each datacenter, each of all that there is; a log of small segments that keeps little.
fn small(topology: &mut Topology) {
    topology.nodes.retain(|node| !node.has_role(Role::View) || node.name.as_str().contains("-1"));
    for served in topology.nodes.iter_mut().flat_map(|node| &mut node.serves) {
        served.range = beam_wire::Range::ALL;
    }
    topology.verdicts.slots_log2 = 12;
    topology.view.checkpoint = Some(8);
    topology.log.segment_mib = Some(1);
    topology.log.keep_entries = Some(4);
    topology.log.hold_bytes = Some(HOLD_BYTES);
}

/// What is written: a number, and a text that no compression makes small.
struct Written {
    texts: Vec<String>,
    chance: Env,
}

/// Characters of a text.
const TEXT: usize = 128 << 10;

impl Written {
    /// Writes so many more.
    async fn more(&mut self, client: &Client, count: usize) -> Result<()> {
        for _ in 0..count {
            let letter = |byte: &u8| char::from(b' ' + 16 + byte % 64);
            let bytes = (0..TEXT / 64).map(|_| self.chance.random::<64>()).collect::<Vec<_>>();
            let text: String = bytes.as_flattened().iter().map(letter).filter(|c| *c != '\\').collect();
            let number = self.texts.len();
            client.update(&format!("INSERT DATA {{ <urn:{number}> <urn:says> \"{text}\" }}")).await?;
            self.texts.push(text);
        }
        Ok(())
    }

    /// All of it, and nothing else, is found in the client's datacenter.
    async fn is_all_there(&self, client: &Client) -> Result<()> {
        let answer = client.query_all("SELECT ?s ?o { ?s <urn:says> ?o }", Position::Latest).await?;
        let mut found = Vec::new();
        for row in answer.rows {
            let [Some(Term::Iri(s)), Some(o)] = &row[..] else { anyhow::bail!("a row of something else") };
            let number: usize = s.strip_prefix("urn:").context("a subject that nobody wrote")?.parse()?;
            let Term::Literal { lexical, .. } = o else { anyhow::bail!("no text") };
            found.push((number, lexical.clone()));
        }
        found.sort_unstable();
        let expected: Vec<(usize, String)> = self.texts.iter().cloned().enumerate().collect();
        ensure!(found == expected, "{} texts are found of {}", found.len(), expected.len());
        Ok(())
    }
}

/// What an operator is told of the log, by the api node of a datacenter.
async fn decided(client: &Client, topology: &Topology) -> Result<(Decision, String)> {
    let status = client.status().await?;
    let views = status.views.iter().filter_map(|view| {
        Some(Seen { node: &view.node, datacenter: &view.datacenter, status: view.status.as_ref().ok()? })
    });
    let log = status.log.iter().find_map(|n| n.status.as_ref().ok()).context("no log node answers")?;
    let options = ShortenOptions::of(topology);
    let decision = decide(&options, &views.collect::<Vec<_>>(), log);
    let sentence = decision.sentence(&options);
    Ok((decision, sentence))
}

/// Waits until every log node begins above an index. Returns where they begin.
async fn shortened(env: &Env, client: &Client, beyond: LogIndex) -> Result<LogIndex> {
    let give_up = env.now() + LOOKS;
    loop {
        let status = client.status().await?;
        let firsts = status.log.iter().map(|n| n.status.as_ref().map_or(LogIndex(0), |info| info.first));
        let lowest = firsts.min().context("no log node")?;
        if lowest > beyond {
            return Ok(lowest);
        }
        ensure!(env.now() < give_up, "the log still begins at {lowest}");
        env.sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn the_log_is_shortened_by_itself_and_not_beneath_a_datacenter_that_is_not_seen() {
    tell(|| SimWorld::run(11, story));
}

async fn story(world: SimWorld) -> Result<()> {
    let mut written = Written { texts: Vec::new(), chance: world.env("texts") };
    let mut cluster = SimCluster::start(world, 0.0, small).await?;
    let env = cluster.env();
    let clients = cluster.clients(PATIENCE).await?;
    let topology = cluster.topology.clone();
    let [va, _, ie] = &topology.datacenters[..] else { anyhow::bail!("three datacenters") };
    let here = &clients[va];

    // Under load the log is shortened, with nobody doing anything about it.
    written.more(here, 24).await?;
    let first = shortened(&env, here, LogIndex(0)).await.context("under load")?;

    // The views of a datacenter are gone: the log waits for them, and says so.
    let gone: Vec<Name> = topology.nodes_in(ie).filter(|n| n.has_role(Role::View)).map(|n| n.name.clone()).collect();
    for view in &gone {
        cluster.kill_node(view, Loss::Nothing).await;
    }
    // Those who have looked just before may have seen them still.
    env.sleep(Duration::from_secs(20)).await;
    let waits_from = shortened(&env, here, LogIndex(0)).await?;
    written.more(here, 16).await?;
    env.sleep(LOOKS).await;
    let still = shortened(&env, here, LogIndex(0)).await?;
    ensure!(still == waits_from, "the log was shortened from {waits_from} to {still} beneath {ie}");
    let (decision, sentence) = decided(here, &topology).await?;
    ensure!(matches!(&decision.held, Held::Unseen { datacenter, .. } if datacenter == ie), "{sentence}");
    ensure!(sentence.contains("is not shortened: in ie no view is seen to hold"), "{sentence}");

    // It outgrows its size: it goes on without them, and says that, too.
    written.more(here, 48).await?;
    let beyond = shortened(&env, here, waits_from).await.context("past its size")?;
    written.is_all_there(here).await.context("while a datacenter has no views")?;
    written.is_all_there(&clients[ie]).await.context("in the datacenter without views")?;

    // They come back while nobody else has what the log has let go of: they keep what they have, and wait.
    let is_view = |n: &&beam_wire::topology::Node| n.has_role(Role::View) && n.datacenter != *ie;
    let others: Vec<Name> = topology.nodes.iter().filter(is_view).map(|n| n.name.clone()).collect();
    for view in &others {
        cluster.kill_node(view, Loss::Nothing).await;
    }
    for view in &gone {
        cluster.start_node(view).await?;
    }
    env.sleep(Duration::from_secs(30)).await;
    let status = clients[ie].status().await?;
    let back: Vec<_> = status.views.iter().filter(|view| gone.contains(&view.node)).collect();
    ensure!(back.len() == gone.len(), "{} views are seen, of {}", back.len(), gone.len());
    for view in back {
        let said = view.status.as_ref().map_err(|error| anyhow::anyhow!("{}: {error}", view.node))?;
        ensure!(said.applied > LogIndex(0), "{} has given up what it had, and has got nothing for it", view.node);
    }

    // The others are there again: they copy what they lack, and the log is shortened as before.
    for view in &others {
        cluster.start_node(view).await?;
    }
    checks::until_serving(&env, &clients, PATIENCE).await.context("after they have come back")?;
    written.is_all_there(&clients[ie]).await.context("after they have come back")?;
    written.more(here, 24).await?;
    let last = shortened(&env, here, beyond).await.context("with all views")?;
    let (decision, sentence) = decided(here, &topology).await?;
    ensure!(decision.without.is_empty() && !matches!(decision.held, Held::Unseen { .. }), "{sentence}");
    for client in clients.values() {
        written.is_all_there(client).await?;
    }
    println!("the log began at {first}, waited at {waits_from}, then began at {beyond} and {last}");
    Ok(())
}

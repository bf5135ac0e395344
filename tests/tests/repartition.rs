//! The data of a running cluster is cut anew, under load: no query fails or is answered wrongly, and writes go on.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, is_serving};
use beam_node::coverage::{self, served};
use beam_node::demo::checks;
use beam_node::log::disk_sim::Loss;
use beam_node::remote::view::RemoteViews;
use beam_node::repartition::Nodes;
use beam_node::repartition::plan::{Plan, Progress, Seen, Wanted, plan};
use beam_node::verify::verify;
use beam_tests::checked::{Checked, Outcome};
use beam_tests::{SimCluster, tell};
use beam_wire::env::Env;
use beam_wire::env::sim::SimWorld;
use beam_wire::message::view::{Served, ViewState};
use beam_wire::topology::{Node, Topology};
use beam_wire::{Name, Range, Role, Space};
use std::collections::BTreeMap;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Small, so that a short log has a checkpoint: only what comes after the oldest one must be kept.
const CHECKPOINT: u64 = 40;
const LOSS: f64 = 0.001;
/// What a view that is killed may add to the time between two acknowledged writes: whoever waits for its verdict asks
/// another, and a connection that is gone is noticed.
const NOTICED_WITHIN: Duration = Duration::from_millis(1500);

/// Enough; so that the story ends.
const KILLS: u32 = 16;
/// Of every reader, to see whether all that was copied is right.
const CALLS: u64 = 15;

fn name(text: impl Into<String>) -> Name {
    Name::new(text).expect("tests use good names")
}

fn part(i: u32, n: u32) -> Vec<Served> {
    Space::ALL.map(|space| Served { space, range: Range::partition(i, n) }).into()
}

/// Views in two datacenters, each partition twice; the third has none, and its queries go to the others.
fn cut_into(topology: &mut Topology, n: u32) {
    topology.verdicts.slots_log2 = 12;
    topology.view.checkpoint = Some(CHECKPOINT);
    let like = topology.nodes_with(Role::View).next().expect("there is a view").clone();
    topology.nodes.retain(|node| !node.has_role(Role::View));
    for datacenter in topology.datacenters.iter().take(2) {
        for i in 0..n {
            for letter in ["a", "b"] {
                let name = name(format!("view-{datacenter}-{}{letter}", i + 1));
                let serves = part(i, n);
                topology.nodes.push(Node { name, datacenter: datacenter.clone(), serves, ..like.clone() });
            }
        }
    }
}

/// Lets go of the beginning of the log, so that views which begin must copy from others.
async fn discard(cluster: &mut SimCluster, clients: &BTreeMap<Name, Client>) -> Result<()> {
    let here = cluster.topology.datacenters[0].clone();
    cluster.discard(&clients[&here], CHECKPOINT + 1, PATIENCE).await.map(drop)
}

/// What an administrator in a datacenter commands.
async fn operator(cluster: &mut SimCluster) -> Result<Nodes> {
    let datacenter = cluster.topology.datacenters[0].clone();
    let (peers, directory, _) = cluster.nodes(&datacenter)?;
    let env = cluster.env();
    directory.ready(&env, PATIENCE).await?;
    Ok(Nodes { env, peers, directory })
}

/// A plan that is not refused.
async fn agreed(nodes: &Nodes, wanted: Wanted) -> Result<Plan> {
    let give_up = nodes.env.now() + PATIENCE;
    loop {
        let plan = plan(wanted, &nodes.survey().await);
        match plan.impossible.as_ref().or(plan.refused.as_ref()) {
            None => return Ok(plan),
            Some(why) => ensure!(nodes.env.now() < give_up, "{why}"),
        }
        nodes.env.sleep(Duration::from_millis(500)).await;
    }
}

/// Carries a plan out, and says how it went.
async fn carry_out(nodes: &Nodes, wanted: Wanted) -> Result<()> {
    let plan = agreed(nodes, wanted).await?;
    let began = nodes.env.now();
    let tell = |progress: &Progress| {
        let at = (nodes.env.now() - began).as_secs_f64();
        println!(
            "{at:5.1} s: {} of {} serve, {} old; {:?}",
            progress.serving, progress.wanted, progress.old, progress.waits
        );
    };
    nodes.carry_out(wanted, &plan.targets, PATIENCE, tell).await?;
    Ok(())
}

/// All points are served by two nodes of each datacenter that holds views, and nobody holds anything else.
fn is_cut(seen: &[Seen], n: u32) -> Result<()> {
    for node in seen {
        let says = node.says.as_ref().map_err(|why| anyhow::anyhow!("{}: {why}", node.node))?;
        ensure!(says.instances.len() == 1, "{} holds {} views", node.node, says.instances.len());
        let status = &says.instances[0].status;
        ensure!(status.state == ViewState::Serving, "{} does not serve", node.node);
        for served in &status.serves {
            let is_part = (0..n).any(|i| Range::partition(i, n) == served.range);
            ensure!(is_part, "{} holds {}", node.node, served.range);
        }
    }
    for datacenter in seen.iter().map(|node| &node.datacenter) {
        ensure!(least_served(seen, datacenter, None) >= 2, "{datacenter} serves some points less than twice");
    }
    Ok(())
}

/// All views have come to the same, on their disks, too: whatever was killed, copied and cut on the way.
async fn all_agree(nodes: &Nodes, home: &Name, count: usize) -> Result<()> {
    let views = RemoteViews::start(&nodes.env, nodes.peers.clone(), nodes.directory.clone(), home.clone());
    let report = verify(&nodes.env, &views, true, nodes.env.now() + PATIENCE).await;
    ensure!(report.all_agree() && report.missing.is_empty() && report.alone.is_empty(), "{report:?}");
    ensure!(report.compared.len() == count, "{} views were compared, not {count}", report.compared.len());
    ensure!(report.records > 0, "nothing was read");
    Ok(())
}

/// By how many nodes of a datacenter its least served point is served, without one of them.
fn least_served(seen: &[Seen], datacenter: &Name, without: Option<&Name>) -> usize {
    let views = seen.iter().filter(|node| Some(&node.node) != without).flat_map(|node| {
        let says = node.says.iter().flat_map(|says| &says.instances);
        says.map(|view| coverage::Seen { node: &node.node, datacenter: &node.datacenter, status: &view.status })
    });
    let pieces = served(&views.collect::<Vec<_>>(), datacenter);
    pieces.into_iter().map(|piece| piece.serving.len()).min().unwrap_or_default()
}

/// Kills view nodes at random moments, also several at once, wherever that leaves every point served in its datacenter,
/// and starts them again after a moment; some without their data.
struct Reaper {
    nodes: Nodes,
    /// Who is down, and until when.
    down: Vec<(Name, tokio::time::Instant)>,
    next: tokio::time::Instant,
    killed: u32,
    wiped: u32,
    /// How many were down at once.
    at_once: usize,
}

impl Reaper {
    fn new(nodes: &Nodes) -> Reaper {
        Reaper { nodes: nodes.clone(), down: Vec::new(), next: nodes.env.now(), killed: 0, wiped: 0, at_once: 0 }
    }

    async fn reap(&mut self, cluster: &mut SimCluster) -> Result<()> {
        let env = self.nodes.env.clone();
        let within = |ms: usize| Duration::from_millis(100 + env.random_below(ms) as u64);
        let (due, down) = self.down.drain(..).partition(|(_, until)| *until <= env.now());
        self.down = down;
        start(cluster, due).await?;
        if !self.down.is_empty() || env.now() < self.next || self.killed >= KILLS {
            return Ok(());
        }
        self.next = env.now() + within(4000);
        let mut seen = self.nodes.survey().await;
        for _ in 0..1 + env.random_below(3) {
            let victim = env.random_below(seen.len());
            let (node, datacenter) = (seen[victim].node.clone(), seen[victim].datacenter.clone());
            if least_served(&seen, &datacenter, Some(&node)) == 0 {
                continue;
            }
            seen.remove(victim);
            cluster.kill_node(&node, Loss::Nothing).await;
            self.killed += 1;
            if env.random_below(3) == 0 {
                cluster.wipe_view(&node)?;
                self.wiped += 1;
            }
            self.down.push((node, env.now() + within(1500)));
        }
        self.at_once = self.at_once.max(self.down.len());
        Ok(())
    }

    /// Nobody is killed any more.
    async fn rest(&mut self, cluster: &mut SimCluster) -> Result<()> {
        start(cluster, std::mem::take(&mut self.down)).await
    }
}

async fn start(cluster: &mut SimCluster, nodes: Vec<(Name, tokio::time::Instant)>) -> Result<()> {
    for (node, _) in nodes {
        cluster.start_node(&node).await?;
    }
    Ok(())
}

/// From four partitions to five by command, with views that die and lose their disks on the way; then back, with the
/// command broken off and begun again.
fn by_command(seed: u64) -> Result<Outcome> {
    SimWorld::run(seed, |world| async move {
        let mut cluster = SimCluster::start(world, LOSS, |topology| cut_into(topology, 4)).await?;
        let env = cluster.env();
        let clients = cluster.clients(PATIENCE).await?;
        let nodes = operator(&mut cluster).await?;
        let traffic = Checked::start(&env, &clients);
        env.sleep(Duration::from_secs(4)).await;
        discard(&mut cluster, &clients).await?;
        let calm = traffic.take_gap();

        let mut reaper = Reaper::new(&nodes);
        let (five, four) = (Wanted { partitions: 5, replicas: 2 }, Wanted { partitions: 4, replicas: 2 });
        {
            let mut command = Box::pin(carry_out(&nodes, five));
            loop {
                match env.timeout(Duration::from_millis(50), &mut command).await {
                    Ok(done) => break done.context("to five")?,
                    Err(_) => reaper.reap(&mut cluster).await?,
                }
            }
        }
        reaper.rest(&mut cluster).await?;
        // Whoever was wiped since its last view came holds what its topology says: the command puts that right, too.
        carry_out(&nodes, five).await.context("to five, once more")?;
        is_cut(&nodes.survey().await, 5)?;
        let home = cluster.topology.datacenters[0].clone();
        all_agree(&nodes, &home, 16).await.context("in five")?;
        traffic.go_on(CALLS).await;
        let to_five = traffic.take_gap();

        discard(&mut cluster, &clients).await?;
        let mut broken_off = 0;
        loop {
            let patience = Duration::from_millis(500 + env.random_below(6000) as u64);
            match env.timeout(patience, carry_out(&nodes, four)).await {
                Ok(done) => break done.context("to four")?,
                Err(_) => broken_off += 1,
            }
        }
        ensure!(broken_off > 0, "the command was never broken off");
        is_cut(&nodes.survey().await, 4)?;
        let to_four = traffic.take_gap();
        traffic.go_on(CALLS).await;
        println!(
            "seed {seed}: {} killed, {} of them wiped, up to {} down at once, broken off {broken_off} times; longest gap between \
             writes: {calm:?} before, {to_five:?} to five, {to_four:?} to four",
            reaper.killed, reaper.wiped, reaper.at_once
        );
        ensure!(reaper.killed >= 3 && reaper.at_once >= 2, "{} killed, {} at once", reaper.killed, reaper.at_once);
        ensure!(to_five <= calm + NOTICED_WITHIN, "writes paused for {to_five:?}, before that for {calm:?}");
        ensure!(to_four <= calm * 2, "writes paused for {to_four:?} though nobody died, before that for {calm:?}");
        let outcome = traffic.stop().await?;
        all_agree(&nodes, &home, 16).await.context("in four again")?;
        Ok(outcome)
    })
    .with_context(|| format!("seed {seed}"))
}

#[test]
fn by_command_from_four_to_five_and_back() {
    tell(|| {
        for seed in seeds(1..=1) {
            println!("{:?}", by_command(seed)?);
        }
        Ok(())
    });
}

/// Those of `BEAM_SEEDS` (`3..9`), or a few.
fn seeds(few: std::ops::RangeInclusive<u64>) -> std::ops::RangeInclusive<u64> {
    let Ok(wanted) = std::env::var("BEAM_SEEDS") else { return few };
    let (from, to) = wanted.split_once("..").expect("BEAM_SEEDS is like 3..9");
    from.parse().expect("a number")..=to.parse().expect("a number")
}

/// By hand: nodes with the new ranges join, which no other node's topology names; when they serve, the old ones stop.
#[test]
fn by_hand_with_nodes_that_join_and_leave() {
    tell(|| {
        SimWorld::run(7, |world| async move {
            let mut cluster = SimCluster::start(world, LOSS, |topology| cut_into(topology, 2)).await?;
            let env = cluster.env();
            let clients = cluster.clients(PATIENCE).await?;
            let nodes = operator(&mut cluster).await?;
            let traffic = Checked::start(&env, &clients);
            env.sleep(Duration::from_secs(3)).await;
            discard(&mut cluster, &clients).await?;
            let calm = traffic.take_gap();

            let old: Vec<Node> = cluster.topology.nodes_with(Role::View).cloned().collect();
            for like in old.iter().filter(|node| node.name.as_str().ends_with("-1a")) {
                for i in 0..3 {
                    for letter in ["a", "b"] {
                        let name = name(format!("new-{}-{}{letter}", like.datacenter, i + 1));
                        cluster.join_node(Node { name, serves: part(i, 3), ..like.clone() }, LOSS).await?;
                    }
                }
            }
            until_all_serve(&env, &clients, old.len() + 12).await?;
            for node in &old {
                cluster.retire_node(&node.name).await;
                env.sleep(Duration::from_millis(300)).await;
            }
            until_all_serve(&env, &clients, 12).await?;
            traffic.go_on(CALLS).await;
            let cutting = traffic.take_gap();
            println!("longest gap between writes: {calm:?} before, {cutting:?} meanwhile");
            ensure!(cutting <= calm + NOTICED_WITHIN, "writes paused for {cutting:?}, before that for {calm:?}");
            is_cut(&operator(&mut cluster).await?.survey().await, 3)?;
            println!("{:?}", traffic.stop().await?);
            let home = cluster.topology.datacenters[0].clone();
            all_agree(&nodes, &home, 12).await
        })
    });
}

/// Waits until every api node knows so many views, all of which serve.
async fn until_all_serve(env: &Env, clients: &BTreeMap<Name, Client>, count: usize) -> Result<()> {
    let give_up = env.now() + 3 * PATIENCE;
    loop {
        let mut waits = None;
        for (datacenter, client) in clients {
            let status = client.status().await?;
            let serving = status.views.iter().filter(|view| view.status.as_ref().is_ok_and(is_serving)).count();
            if (serving, status.views.len()) != (count, count) {
                waits = Some(format!("{datacenter} sees {} views, {serving} of which serve", status.views.len()));
            }
        }
        match waits {
            None => return Ok(()),
            Some(why) => ensure!(env.now() < give_up, "{why}, and not {count}"),
        }
        env.sleep(Duration::from_millis(200)).await;
    }
}

/// A view is killed and its disk lost; another node, of another name, takes its place, and nobody does anything else.
#[test]
fn another_node_under_another_name_replaces_a_lost_one() {
    tell(|| {
        SimWorld::run(8, |world| async move {
            let mut cluster = SimCluster::start(world, LOSS, |topology| cut_into(topology, 2)).await?;
            let env = cluster.env();
            let clients = cluster.clients(PATIENCE).await?;
            let traffic = Checked::start(&env, &clients);
            env.sleep(Duration::from_secs(3)).await;
            discard(&mut cluster, &clients).await?;
            for victim in ["view-va-1a", "view-va-1b", "view-or-2b"] {
                let victim = name(victim);
                let lost = cluster.topology.node(&victim).context("it is in the topology")?.clone();
                cluster.kill_node(&victim, Loss::Nothing).await;
                cluster.wipe_view(&victim)?;
                cluster.retire_node(&victim).await;
                let successor = name(format!("{victim}-successor"));
                cluster.join_node(Node { name: successor, ..lost }, LOSS).await?;
                until_all_serve(&env, &clients, 8).await.with_context(|| format!("after {victim}"))?;
                traffic.go_on(CALLS).await;
            }
            checks::until_serving(&env, &clients, PATIENCE).await?;
            println!("{:?}", traffic.stop().await?);
            let home = cluster.topology.datacenters[0].clone();
            all_agree(&operator(&mut cluster).await?, &home, 8).await
        })
    });
}

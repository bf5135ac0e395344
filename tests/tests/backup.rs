//! The whole database is backed up while it is written to, and made again in another cluster with other cuts.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, Position, Version};
use beam_node::backup::database::{Source, Taken, back_up_database, base_in, check, log_in};
use beam_node::backup::fill::{FillError, fill};
use beam_node::backup::restore::{Target, restore};
use beam_node::backup::verify::verify_base;
use beam_node::demo::checks;
use beam_node::log::types::LogNode;
use beam_node::node::{begin_body, log_options};
use beam_node::remote::log::RemoteLog;
use beam_node::remote::view::RemoteViews;
use beam_tests::{SimCluster, tell};
use beam_wire::env::Env;
use beam_wire::env::sim::SimWorld;
use beam_wire::topology::Topology;
use beam_wire::{ClientRole, LogIndex, Name, Range, Role};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Small, so that a short log has a checkpoint.
const CHECKPOINT: u64 = 40;

fn small(topology: &mut Topology) {
    topology.verdicts.slots_log2 = 12;
    topology.view.checkpoint = Some(CHECKPOINT);
}

/// A counter that counts up, among facts that stay: there is a past, and a text for each.
async fn write(client: &Client, i: usize) -> Result<Version> {
    let update = format!(
        "DELETE {{ <urn:counter> <urn:is> ?n }} INSERT {{ <urn:counter> <urn:is> {i} . \
         <urn:thing:{i}> <urn:says> \"a text that is too long to lie in an id, number {i}\" }} \
         WHERE {{ OPTIONAL {{ <urn:counter> <urn:is> ?n }} }}"
    );
    Ok(client.update(&update).await?.version)
}

/// Whether the database is as it was after the write of this number.
async fn is_as_after(client: &Client, i: usize, position: Position) -> Result<()> {
    let counter = client.query_all("SELECT ?n { <urn:counter> <urn:is> ?n }", position).await?;
    let counter: Vec<String> = counter.rows.iter().map(|row| format!("{:?}", row[0])).collect();
    ensure!(counter.len() == 1 && counter[0].contains(&format!("\"{i}\"")), "the counter is {counter:?}, not {i}");
    let things = client.query_all("SELECT ?t ?x { ?t <urn:says> ?x }", position).await?;
    ensure!(things.rows.len() == i + 1, "{} things are there after write {i}", things.rows.len());
    for row in things.rows {
        let [Some(thing), Some(text)] = &row[..] else { anyhow::bail!("a row without a text") };
        let number: usize =
            format!("{thing:?}").rsplit(':').next().context("a number")?.trim_end_matches(['"', ')']).parse()?;
        ensure!(number <= i && format!("{text:?}").contains(&format!("number {number}\"")), "{thing:?} says {text:?}");
    }
    Ok(())
}

/// What was written, by number.
type Written = Arc<Mutex<Vec<Version>>>;

/// Who backs up.
struct Operator {
    env: Env,
    cluster: Name,
    log: RemoteLog,
    views: RemoteViews,
}

impl Operator {
    fn of(cluster: &mut SimCluster, near: &Name) -> Result<Operator> {
        let env = cluster.env();
        let (peers, nodes, log) = cluster.nodes(near)?;
        let views = RemoteViews::start(&env, peers, nodes, near.clone());
        Ok(Operator { env, cluster: cluster.topology.cluster.clone(), log, views })
    }

    /// None if it was broken off.
    async fn take(&self, directory: &Path, within: Duration) -> Result<Option<Taken>> {
        let (cluster, me) = (self.cluster.clone(), Name::new("backup")?);
        let source = Source { cluster, me, log: self.log.clone(), views: self.views.clone(), idle: PATIENCE };
        match self.env.timeout(within, back_up_database(&self.env, source, directory, |_| {})).await {
            Ok(taken) => Ok(Some(taken?)),
            Err(_) => Ok(None),
        }
    }
}

#[test]
fn the_database_is_backed_up_under_load_and_made_again_with_other_cuts() {
    tell(|| {
        let backup = tempfile::tempdir()?;
        let directory = backup.path().to_owned();
        let (written, whole) = SimWorld::run(5, |world| under_load(world, directory))?;
        let directory = backup.path().to_owned();
        SimWorld::run(6, |world| made_again(world, directory, written, whole))?;
        let directory = backup.path().to_owned();
        SimWorld::run(7, |world| damage_is_named(world, directory))
    });
}

/// Returns what was written, and the version of the base.
async fn under_load(world: SimWorld, directory: std::path::PathBuf) -> Result<(Vec<Version>, Version)> {
    let mut cluster = SimCluster::start(world, 0.0, small).await?;
    let env = cluster.env();
    let clients = cluster.clients(PATIENCE).await?;
    let datacenters = cluster.topology.datacenters.clone();
    let here = &clients[&datacenters[0]];
    let written = Written::default();
    for i in 0..70 {
        let version = write(here, i).await?;
        written.lock().expect("no holder panics").push(version);
    }

    // The log lets go of what all views have: without them it is not the whole database.
    cluster.discard(here, CHECKPOINT, PATIENCE).await?;

    // While the backup is made, somebody writes, without a pause.
    let writer = cluster.client(&datacenters[0], &datacenters[..1], ClientRole::Writer).await?;
    let (numbers, stop) = (written.clone(), Arc::new(Mutex::new(false)));
    let stopped = stop.clone();
    let failed = Arc::new(Mutex::new(None));
    let failure = failed.clone();
    let _writing = env.tasks().serve("writer", async move {
        for i in 70.. {
            if *stopped.lock().expect("no holder panics") {
                return;
            }
            match write(&writer, i).await {
                Ok(version) => numbers.lock().expect("no holder panics").push(version),
                Err(error) => {
                    *failure.lock().expect("no holder panics") = Some(error);
                    return;
                }
            }
        }
    });
    // It is broken off again and again, and goes on.
    let operators = [Operator::of(&mut cluster, &datacenters[1])?, Operator::of(&mut cluster, &datacenters[2])?];
    let (mut within, mut broken) = (Duration::from_millis(20), 0);
    let taken = loop {
        match operators[0].take(&directory, within).await? {
            Some(taken) => break taken,
            None => (within, broken) = (within + Duration::from_millis(20), broken + 1),
        }
    };
    let whole = taken.base.whole.context("it is whole")?;
    ensure!(broken > 3, "it was broken off {broken} times");
    ensure!(check(&directory)?.1 == whole);
    // Later it is added to: the log alone.
    env.sleep(Duration::from_secs(5)).await;
    *stop.lock().expect("no holder panics") = true;
    env.sleep(Duration::from_secs(1)).await;
    ensure!(failed.lock().expect("no holder panics").is_none(), "a write has failed");
    let later = operators[1].take(&directory, PATIENCE).await?.context("it adds to it")?;
    ensure!(later.base == taken.base && later.added.last > taken.added.last, "{:?}", later.added);
    let written = written.lock().expect("no holder panics").clone();
    println!(
        "{} writes, base {}, broken off {broken} times, log up to {:?}",
        written.len(),
        whole.at,
        later.added.last
    );
    Ok((written, whole.at))
}

/// What was written a moment ago is worth a backup, too.
#[test]
fn a_database_of_one_fact_is_backed_up() {
    tell(|| {
        let backup = tempfile::tempdir()?;
        let directory = backup.path().to_owned();
        SimWorld::run(8, |world| async move {
            let mut cluster = SimCluster::start(world, 0.0, |_| {}).await?;
            let clients = cluster.clients(PATIENCE).await?;
            let here = cluster.topology.datacenters[0].clone();
            write(&clients[&here], 0).await?;
            let taken = Operator::of(&mut cluster, &here)?.take(&directory, PATIENCE).await?.context("it is taken")?;
            ensure!(check(&directory)?.1 == taken.base.whole.context("it is whole")?);
            Ok(())
        })
    });
}

/// Three parts instead of two; one view alone holds the last two of a datacenter.
fn other_cuts(topology: &mut Topology) {
    small(topology);
    // No view writes a checkpoint after it was restored: others must be able to copy all the same.
    topology.view.checkpoint = Some(1 << 20);
    for (number, node) in topology.nodes.iter_mut().filter(|node| node.has_role(Role::View)).enumerate() {
        let part = [0, 1, 2, 2][number % 4];
        node.serves.iter_mut().for_each(|served| served.range = Range::partition(part, 3));
    }
}

async fn made_again(world: SimWorld, backup: std::path::PathBuf, written: Vec<Version>, base: Version) -> Result<()> {
    let mut cluster = SimCluster::prepare(world, 0.0, other_cuts)?;
    let (env, topology) = (cluster.env(), cluster.topology.clone());
    // A version between the base and the end of the log.
    let after_base = written.iter().filter(|version| version.index > base.index).count();
    ensure!(after_base > 10, "only {after_base} writes came after the base");
    let last = written.len() - after_base / 2;

    // One log node, and the views of two datacenters; the third's have nothing.
    let seed = topology.nodes_with(Role::Log).next().context("a log node")?;
    let target = Target {
        disk: cluster.disk(&seed.name).context("its disk")?,
        options: log_options(&topology, seed).store,
        node: LogNode { node: seed.name.clone(), datacenter: seed.datacenter.clone() },
        body: begin_body,
    };
    let made = restore(&env, &log_in(&backup), Some(written[last].index), target, |_| {}).await?;
    ensure!(made.first > LogIndex(0) && made.kept == written[last].index, "{made:?}");
    let empty = &topology.datacenters[2];
    for view in topology.nodes_with(Role::View).filter(|node| node.datacenter != *empty) {
        let directory = cluster.view_directory(&view.name);
        let filled = fill(&env, &backup, &topology.cluster, &view.serves, &directory, |_, _| {}).await?;
        ensure!(filled.at == base);
    }
    for node in topology.nodes.iter().filter(|node| !node.has_role(Role::Log) || node.name == seed.name) {
        cluster.start_node(&node.name).await?;
    }
    let clients = cluster.clients(PATIENCE).await?;
    checks::until_serving(&env, &clients, PATIENCE).await?;

    // All of it is there, as it was; and at each version since the base.
    for (datacenter, client) in &clients {
        is_as_after(client, last, Position::Latest).await.with_context(|| format!("in {datacenter}"))?;
        let before = written.iter().position(|version| version.index > base.index).context("a write")?;
        for i in [before, (before + last) / 2] {
            let at = Version { epoch: made.epoch, index: written[i].index };
            is_as_after(client, i, Position::Exact(at)).await.with_context(|| format!("in {datacenter} at {at}"))?;
        }
    }
    // And it goes on, with verdicts that hold what was restored.
    let client = &clients[&topology.datacenters[0]];
    for i in last + 1..last + 6 {
        ensure!(write(client, i).await?.epoch == made.epoch);
    }
    for client in clients.values() {
        is_as_after(client, last + 5, Position::Latest).await?;
    }
    Ok(())
}

async fn damage_is_named(world: SimWorld, backup: std::path::PathBuf) -> Result<()> {
    let env: Env = world.env("reader");
    let (base, ..) = check(&backup)?;
    let directory = base_in(&backup);
    ensure!(verify_base(&env, &directory, &base, |_, _| {}).await.is_empty());
    for piece in &base.pieces {
        let path = directory.join(&piece.file);
        let whole = std::fs::read(&path)?;
        for at in (0..whole.len()).step_by(7) {
            let mut rotten = whole.clone();
            rotten[at] ^= 1;
            std::fs::write(&path, rotten)?;
            let found = verify_base(&env, &directory, &base, |_, _| {}).await;
            ensure!(found.len() == 1 && found[0].0 == *piece, "byte {at} of {}: {found:?}", piece.file);
        }
        let view = tempfile::tempdir()?;
        let refused =
            fill(&env, &backup, &base.cluster, &beam_node::backup::base::EVERYTHING, view.path(), |_, _| {}).await;
        ensure!(matches!(refused, Err(FillError::Damaged { .. })), "{refused:?}");
        std::fs::write(&path, whole)?;
    }
    Ok(())
}

//! Views that come and go: they copy from one another what the log no longer holds.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, Everything, Position, Version, is_serving};
use beam_node::demo::checks;
use beam_node::log::disk_sim::Loss;
use beam_node::view::store::{Store, StoreOptions};
use beam_tests::{SimCluster, tell};
use beam_wire::Name;
use beam_wire::env::sim::SimWorld;
use beam_wire::message::view::Served;
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// When api nodes know of a view that it was killed: until then they say of it what it has said last.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// Small, so that a short log has a checkpoint: only what comes after the oldest one must be kept.
const CHECKPOINT: u64 = 40;

async fn start(world: SimWorld) -> Result<SimCluster> {
    SimCluster::start(world, 0.0, |topology| {
        topology.verdicts.slots_log2 = 12;
        topology.view.checkpoint = Some(CHECKPOINT);
    })
    .await
}

/// A counter that counts up, among facts that stay: there is a past, and a text for each.
async fn write(client: &Client, from: u64, to: u64) -> Result<Version> {
    let mut last = None;
    for i in from..to {
        let update = format!(
            "DELETE {{ <urn:counter> <urn:is> ?n }} INSERT {{ <urn:counter> <urn:is> {i} . \
             <urn:thing:{i}> <urn:says> \"a text that is too long to lie in an id, number {i}\" }} \
             WHERE {{ OPTIONAL {{ <urn:counter> <urn:is> ?n }} }}"
        );
        last = Some(client.update(&update).await?.version);
    }
    last.context("nothing was written")
}

/// All that the datacenter's views hold at a version.
async fn everything(client: &Client, at: Version) -> Result<Everything> {
    Ok(client.query_all("SELECT ?s ?p ?o { ?s ?p ?o } ORDER BY ?s ?p ?o", Position::Exact(at)).await?)
}

/// One view is wiped, then all views of a datacenter, after the log has let go of what they would need. They
/// copy from others and answer as those do, now and for earlier versions, with nobody doing anything about it.
#[test]
fn wiped_views_copy_what_the_log_has_let_go() {
    tell(wiped);
}

fn wiped() -> Result<()> {
    SimWorld::run(3, |world| async move {
        let mut cluster = start(world).await?;
        let env = cluster.env();
        let clients = cluster.clients(PATIENCE).await?;
        let datacenters = cluster.topology.datacenters.clone();
        let (here, there) = (&clients[&datacenters[0]], &clients[&datacenters[1]]);
        let early = write(here, 0, 60).await?;
        let late = write(here, 60, 100).await?;

        // Everything up to the oldest checkpoint may go.
        cluster.discard(here, CHECKPOINT, PATIENCE).await?;

        let victim = Name::new("view-va-1a")?;
        cluster.kill_node(&victim, Loss::Nothing).await;
        cluster.wipe_view(&victim)?;
        cluster.start_node(&victim).await?;
        env.sleep(HEARD_WITHIN).await;
        checks::until_serving(&env, &clients, PATIENCE).await.context("with one view wiped")?;

        let expected = [everything(there, early).await?, everything(there, late).await?];
        ensure!(expected[1].rows.len() == 101, "the other datacenter holds {} rows", expected[1].rows.len());
        let views: Vec<Name> = cluster.topology.nodes_in(&datacenters[0]).map(|n| n.name.clone()).collect();
        let views: Vec<Name> = views.into_iter().filter(|name| name.as_str().starts_with("view")).collect();
        for view in &views {
            cluster.kill_node(view, Loss::Nothing).await;
            cluster.wipe_view(view)?;
        }
        for view in &views {
            cluster.start_node(view).await?;
        }
        env.sleep(HEARD_WITHIN).await;
        checks::until_serving(&env, &clients, PATIENCE).await.context("with all views of a datacenter wiped")?;
        let status = here.status().await?;
        let home = status.views.iter().filter(|view| view.datacenter == datacenters[0]);
        ensure!(home.filter(|view| view.status.as_ref().is_ok_and(is_serving)).count() == views.len());
        for (at, expected) in [early, late].into_iter().zip(expected) {
            let found = everything(here, at).await?;
            ensure!(found.rows == expected.rows, "at {at}: {} rows, not {}", found.rows.len(), expected.rows.len());
        }
        // And they go on, with the verdicts of those who have read the whole log.
        write(here, 100, 110).await?;
        Ok(())
    })
}

/// A view that was killed while it copied a verdict checkpoint, before any fact, finds the log short when it starts again: it
/// reads all of it, and does not take the checkpoint for its own.
#[test]
fn a_copy_that_was_cut_short_before_its_first_fact_is_forgotten() {
    tell(|| {
        SimWorld::run(5, |world| async move {
            let mut cluster = start(world).await?;
            let env = cluster.env();
            let clients = cluster.clients(PATIENCE).await?;
            let datacenters = cluster.topology.datacenters.clone();
            let (here, there) = (&clients[&datacenters[0]], &clients[&datacenters[1]]);
            let late = write(here, 0, 100).await?;
            let expected = everything(there, late).await?;

            let [victim, twin] = [Name::new("view-va-1a")?, Name::new("view-va-1b")?];
            let checkpoint_and_serves = async || {
                let status = here.status().await?;
                let view = status.views.into_iter().find(|view| view.node == victim).context("the victim")?;
                let status = view.status.map_err(|error| anyhow::anyhow!("{error}"))?;
                anyhow::Ok((status.checkpoint, status.serves))
            };
            let serves = loop {
                match checkpoint_and_serves().await? {
                    (checkpoint, serves) if checkpoint.0 >= CHECKPOINT => break serves,
                    _ => env.sleep(Duration::from_millis(100)).await,
                }
            };
            cluster.kill_node(&victim, Loss::Nothing).await;
            leave_only_the_checkpoint(&cluster.view_directory(&victim), &cluster.topology.cluster, &serves)?;
            cluster.start_node(&victim).await?;
            checks::until_serving(&env, &clients, PATIENCE).await?;
            cluster.kill_node(&twin, Loss::Nothing).await;
            let found = everything(here, late).await?;
            ensure!(found.rows == expected.rows, "{} rows, not {}", found.rows.len(), expected.rows.len());
            Ok(())
        })
    });
}

/// Takes everything from a view but its verdict checkpoint.
fn leave_only_the_checkpoint(home: &Path, cluster: &Name, serves: &[Served]) -> Result<()> {
    let directory = [home.to_path_buf()]
        .into_iter()
        .chain(std::fs::read_dir(home)?.filter_map(|entry| Some(entry.ok()?.path())))
        .find(|directory| directory.join("view.txt").exists())
        .with_context(|| format!("no view lies in {}", home.display()))?;
    let options = StoreOptions::default();
    let kept = {
        let store = Store::open(&directory, cluster, serves, &options)?;
        let pieces = store.snapshot().checkpoint_pieces();
        pieces
            .map(|row| row.map(|(key, piece)| (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&piece))))
            .collect::<Result<Vec<_>, _>>()?
    };
    ensure!(!kept.is_empty(), "it has no checkpoint");
    std::fs::remove_dir_all(&directory)?;
    let store = Store::open(&directory, cluster, serves, &options)?;
    store.put_checkpoint(&kept)?;
    Ok(store.persist()?)
}

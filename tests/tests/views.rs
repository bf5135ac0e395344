//! Views that come and go: they copy from one another what the log no longer holds.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, Everything, Position, Version, is_serving};
use beam_node::demo::checks;
use beam_node::log::disk_sim::Loss;
use beam_tests::{SimCluster, tell};
use beam_wire::Name;
use beam_wire::env::sim::SimWorld;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Small, so that a short log has a checkpoint: only what comes after the oldest one must be kept.
const CHECKPOINT: u64 = 40;

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
        let change = |topology: &mut beam_wire::topology::Topology| {
            topology.verdicts.slots_log2 = 12;
            topology.view.checkpoint = Some(CHECKPOINT);
        };
        let mut cluster = SimCluster::start(world, 0.0, change).await?;
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

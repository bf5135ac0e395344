//! A newer command format is put in force while the cluster runs, and one node cannot read it.

use anyhow::{Context, Result, ensure};
use beam_node::demo::checks;
use beam_node::log::disk_sim::Loss;
use beam_node::node::Ending;
use beam_node::upgrade::{UpgradeRefused, decide, survey, upgrade};
use beam_tests::{SimCluster, tell};
use beam_wire::command::FORMAT;
use beam_wire::env::sim::SimWorld;
use beam_wire::{Name, Position};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// What every program but one reads.
const NEXT: u16 = FORMAT + 1;

#[test]
fn a_node_that_lacks_a_format_is_named_before_and_stops_after() {
    tell(story);
}

fn story() -> Result<()> {
    SimWorld::run(11, |world| async move {
        let mut cluster = SimCluster::start(world, 0.0, |topology| topology.verdicts.slots_log2 = 14).await?;
        let env = cluster.env();
        let datacenters = cluster.topology.datacenters.clone();
        let clients = cluster.clients(PATIENCE).await?;
        let home = &datacenters[0];
        let (peers, directory, log) = cluster.nodes(home)?;
        env.sleep(Duration::from_secs(1)).await;
        let found = survey(&env, &peers, &directory, &log).await;
        ensure!(found.in_force == Some(FORMAT) && found.reads.len() == cluster.topology.nodes.len(), "{found:?}");
        ensure!(matches!(decide(&found, NEXT), Err(UpgradeRefused::Older { .. })), "nobody can read it yet");
        ensure!(decide(&found, FORMAT) == Err(UpgradeRefused::NotNewer { in_force: FORMAT }));

        // Node by node gets the new program; one view is forgotten.
        let late = Name::new("view-or-1a")?;
        for node in cluster.topology.clone().nodes.iter().filter(|node| node.name != late) {
            cluster.formats.insert(node.name.clone(), NEXT);
            cluster.kill_node(&node.name, Loss::Nothing).await;
            cluster.start_node(&node.name).await?;
            env.sleep(Duration::from_secs(1)).await;
        }
        checks::until_serving(&env, &clients, PATIENCE).await.context("after the new program")?;
        let found = survey(&env, &peers, &directory, &log).await;
        ensure!(
            decide(&found, NEXT) == Err(UpgradeRefused::Older { nodes: format!("{late} (up to {FORMAT})") }),
            "{found:?}"
        );
        // One that does not answer may be as old.
        cluster.kill_node(&late, Loss::Nothing).await;
        let found = survey(&env, &peers, &directory, &log).await;
        let silent = decide(&found, NEXT).unwrap_err();
        ensure!(matches!(&silent, UpgradeRefused::Silent { nodes } if nodes.contains(late.as_str())), "{silent}");
        cluster.start_node(&late).await?;
        checks::until_serving(&env, &clients, PATIENCE).await?;

        // Forced, it comes into force at one index for all who can read it, and the other stops there.
        let at = upgrade(&log, NEXT, env.now() + PATIENCE).await?;
        env.sleep(Duration::from_secs(5)).await;
        let Some(Ending::Failed(why)) = cluster.ended(&late) else { anyhow::bail!("{late} goes on") };
        let expected = format!(
            "entry {} puts command format {NEXT} in force, and this version of Beam reads formats up to {FORMAT}",
            at.index
        );
        ensure!(why.contains(&expected), "{why}");
        for node in cluster.topology.nodes.iter().filter(|node| node.name != late) {
            ensure!(cluster.ended(&node.name).is_none(), "{} has ended", node.name);
        }
        for client in clients.values() {
            client.update("INSERT DATA { <urn:a> <urn:is> 1 }").await.context("writes go on")?;
            let answer = client.query_all("SELECT ?v { <urn:a> <urn:is> ?v }", Position::Latest).await?;
            ensure!(answer.rows.len() == 1, "reads go on");
        }
        let found = survey(&env, &peers, &directory, &log).await;
        ensure!(found.in_force == Some(NEXT), "{found:?}");
        // Started again, also without its data, it does not guess.
        cluster.kill_node(&late, Loss::Nothing).await;
        cluster.wipe_view(&late)?;
        cluster.start_node(&late).await?;
        env.sleep(Duration::from_secs(30)).await;
        ensure!(matches!(cluster.ended(&late), Some(Ending::Failed(_))), "it serves what it cannot read");
        Ok(())
    })
}

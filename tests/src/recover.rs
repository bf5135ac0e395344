//! Recovering a simulated cluster from the loss of its majority, as an operator does.

use crate::SimCluster;
use anyhow::Result;
use beam_node::log::survivors::plan;
use beam_node::recovery::{carry_out, survey};
use beam_wire::{Epoch, Name, Role};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Plans a recovery as seen from a datacenter, and carries it out.
pub async fn recover(cluster: &mut SimCluster, from: &Name, patience: Duration) -> Result<Epoch> {
    let env = cluster.env();
    let log = cluster.log(from)?;
    // It has to hear of them first.
    env.sleep(Duration::from_secs(1)).await;
    let nodes: Vec<Name> = cluster.topology.nodes_with(Role::Log).map(|node| node.name.clone()).collect();
    let plan = plan(&cluster.topology.cluster, &survey(&env, &log, &nodes).await)?;
    let epoch = plan.epoch;
    let ended = Arc::new(Mutex::new(None));
    let (operator, end) = (env.clone(), ended.clone());
    let _task = env.tasks().serve("operator", async move {
        let deadline = operator.now() + patience;
        let result = carry_out(&operator, &log, &plan, deadline, |step| println!("{step}")).await;
        *end.lock().expect("nothing panics while it holds this") = Some(result);
    });
    loop {
        if let Some(result) = ended.lock().expect("nothing panics while it holds this").take() {
            result?;
            return Ok(epoch);
        }
        cluster.restart_those_who_shall().await?;
        env.sleep(Duration::from_millis(20)).await;
    }
}

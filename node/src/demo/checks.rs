//! What can be asked of a cluster from outside: does it serve, who leads, what does it hold? The demo
//! and the simulation ask the same.

use super::traffic;
use anyhow::{Context, Result, bail};
use beam_client::{Client, is_serving};
use beam_wire::env::Env;
use beam_wire::{Name, Position, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Waits until every view that the clients' api nodes know of says that it serves.
pub async fn until_serving(env: &Env, clients: &BTreeMap<Name, Client>, patience: Duration) -> Result<()> {
    let give_up = env.now() + patience;
    loop {
        let mut waits = None;
        for (datacenter, client) in clients {
            match client.status().await {
                Ok(status) if status.views.is_empty() => waits = Some(format!("{datacenter} knows no view")),
                Ok(status) => {
                    if let Some(view) = status.views.iter().find(|v| !v.status.as_ref().is_ok_and(is_serving)) {
                        let why = view.status.as_ref().err().cloned().unwrap_or_default();
                        waits = Some(format!("{datacenter} sees that view {} does not serve yet {why}", view.node));
                    }
                }
                Err(error) => waits = Some(format!("{datacenter}: {error}")),
            }
        }
        match waits {
            None => return Ok(()),
            Some(why) if env.now() > give_up => bail!("after {} s: {why}", patience.as_secs()),
            Some(_) => env.sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The datacenter of the log's leader.
pub async fn leader_datacenter(client: &Client) -> Result<Name> {
    let status = client.status().await?;
    // A log node that has been away may still believe in an older leader: the newest term is right.
    let infos = status.log.iter().filter_map(|n| n.status.as_ref().ok()).filter(|info| info.leader.is_some());
    let newest = infos.max_by_key(|info| info.term).context("no log node knows a leader")?;
    let node = status.log.iter().find(|n| Some(&n.node) == newest.leader.as_ref());
    Ok(node.context("the leader is not among the log nodes")?.datacenter.clone())
}

/// The numbers of all writes of the traffic that a client finds.
pub async fn read_back(client: &Client) -> Result<BTreeSet<u64>> {
    let sparql = format!("SELECT ?write WHERE {{ ?write <{}> ?in }}", traffic::WRITTEN_IN);
    let answer = client.query_all(&sparql, Position::Latest).await?;
    let mut found = BTreeSet::new();
    for row in answer.rows {
        if let Some(Some(Term::Iri(iri))) = row.first() {
            let number = iri.strip_prefix("urn:beam:demo:write:").context("a subject that nobody wrote")?;
            found.insert(number.parse()?);
        }
    }
    Ok(found)
}

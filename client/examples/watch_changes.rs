//! Follows the changes of facts that this very program makes, through another datacenter; stops in the middle, and goes
//! on where it was.
//!
//! ```text
//! beam dev                                             # in another terminal
//! cargo run -p beam-client --example watch_changes
//! ```
//!
//! Options as in `read_your_write`.

mod cluster;

use beam_client::{Client, Position, Version, Watch};
use std::error::Error;

const CHANGES: usize = 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = cluster::from_args()?;
    let first = cluster.topology.datacenters.first().ok_or("the topology has no datacenter")?;
    let last = cluster.topology.datacenters.last().ok_or("the topology has no datacenter")?;
    let here = Client::connect(cluster.env.clone(), cluster.options()?.prefer(first)).await?;
    let there = Client::connect(cluster.env.clone(), cluster.options()?.prefer(last)).await?;
    let counter = format!("urn:beam:example:counter:{:032x}", cluster.env.random_u128());
    let begin = there.query_all("ASK {}", Position::Latest).await?.version;

    let mut written = Vec::new();
    for number in 0..CHANGES {
        let update = format!(
            "DELETE {{ <{counter}> <urn:is> ?old }} INSERT {{ <{counter}> <urn:is> {number} }} \
             WHERE {{ OPTIONAL {{ <{counter}> <urn:is> ?old }} }}"
        );
        written.push(here.update(&update).await?.version);
        // Inserting what is there is no change, and is not told.
        here.update(&format!("INSERT DATA {{ <{counter}> <urn:is> {number} }}")).await?;
    }

    let mut watch = there.watch(begin);
    let mut seen = follow(&mut watch, &counter, CHANGES / 2).await?;
    let kept = seen.last().copied().ok_or("nothing was told")?;
    println!("stops after version {kept}, and goes on from there");
    drop(watch);
    let mut watch = here.watch(kept);
    seen.extend(follow(&mut watch, &counter, CHANGES - CHANGES / 2).await?);
    here.close().await;
    there.close().await;
    if seen == written { Ok(()) } else { Err(format!("{seen:?} were told, and {written:?} written").into()) }
}

/// The next versions that changed the counter.
async fn follow(watch: &mut Watch, counter: &str, count: usize) -> Result<Vec<Version>, Box<dyn Error>> {
    let mut versions = Vec::new();
    while versions.len() < count {
        let changed = watch.next().await?;
        let ours = |term: &beam_client::Term| matches!(term, beam_client::Term::Iri(iri) if iri == counter);
        if changed.facts.iter().any(|change| ours(&change.fact[0])) {
            for change in &changed.facts {
                println!("{} {} {:?}", changed.version, if change.inserted { "+" } else { "-" }, change.fact[2]);
            }
            versions.push(changed.version);
        }
    }
    Ok(versions)
}

//! Writes a fact through one datacenter, and reads it through another: a session sees its own writes
//! wherever it asks.
//!
//! ```text
//! beam dev                                             # in another terminal
//! cargo run -p beam-client --example read_your_write
//! ```
//!
//! Options: `--topology FILE` (topology.toml), `--certs DIR` (beam-data/certs), `--client NAME` (writer); or
//! the environment variables BEAM_TOPOLOGY, BEAM_CERTS and BEAM_CLIENT.

mod cluster;

use beam_client::{Builder, Client, Position, Term};
use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = cluster::from_args()?;
    let first = cluster.topology.datacenters.first().ok_or("the topology has no datacenter")?;
    let last = cluster.topology.datacenters.last().ok_or("the topology has no datacenter")?;
    let here = Client::connect(cluster.env.clone(), cluster.options()?.prefer(first)).await?;
    let there = Client::connect(cluster.env.clone(), cluster.options()?.prefer(last)).await?;

    let note = format!("urn:beam:example:note:{:032x}", cluster.env.random_u128());
    let session = here.session();
    let asked = cluster.env.now();
    let outcome = session.update(&format!("INSERT DATA {{ <{note}> <urn:beam:example:says> \"hello\" }}")).await?;
    println!("wrote <{note}> through {first}: version {}, {:?}", outcome.version, cluster.env.now() - asked);

    // What the session has seen can go to another client, in another place.
    let seen = session.seen().ok_or("the session has seen its own write")?;
    let elsewhere = there.session_from(seen);
    let asked = cluster.env.now();
    let answer = elsewhere.query_all(&format!("SELECT ?text {{ <{note}> ?says ?text }}")).await?;
    println!("read through {last} at version {}, {:?}: {:?}", answer.version, cluster.env.now() - asked, answer.rows);
    if answer.rows != [vec![Some(Term::string("hello"))]] {
        return Err("a session must read its own writes".into());
    }

    // Without a session, `Latest` asks the log where it ends, and sees all that was acknowledged anywhere.
    let mut facts = Builder::new();
    let iri = |text: &str| Term::Iri(text.to_owned());
    facts.delete([iri(&note), iri("urn:beam:example:says"), Term::string("hello")], None)?;
    let version = there.write(facts).await?;
    println!("deleted it through {last}: version {version}");
    let answer = here.query_all(&format!("ASK {{ <{note}> ?says ?text }}"), Position::Latest).await?;
    println!("is it still there, asks {first} at version {}: {:?}", answer.version, answer.shape);

    here.close().await;
    there.close().await;
    Ok(())
}

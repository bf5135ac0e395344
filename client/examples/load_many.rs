//! Loads a hundred thousand facts, many transactions in flight, as fast as the cluster takes them.
//!
//! ```text
//! beam dev                                             # in another terminal
//! cargo run --release -p beam-client --example load_many
//! ```
//!
//! Options as in `read_your_write`.

mod cluster;

use beam_client::{Client, FACTS_PER_TRANSACTION, LOADS_IN_FLIGHT, Position, Term, batches};
use futures::stream;
use std::error::Error;

const FACTS: usize = 100_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = cluster::from_args()?;
    let client = Client::connect(cluster.env.clone(), cluster.options()?).await?;
    let measured = format!("urn:beam:example:load:{:032x}", cluster.env.random_u128());

    let predicate = Term::Iri(measured.clone());
    let facts = (0..FACTS).map(move |number| {
        let place = Term::Iri(format!("urn:beam:example:place:{number}"));
        Ok::<_, Box<dyn Error>>(([place, predicate.clone(), Term::string(number.to_string())], None))
    });
    let began = cluster.env.now();
    let batches = batches(stream::iter(facts), FACTS_PER_TRANSACTION);
    let loaded = client.load(batches, LOADS_IN_FLIGHT, |so_far| println!("{} facts", so_far.facts)).await?;
    let took = cluster.env.now() - began;
    println!("{} facts in {} transactions, {took:?}", loaded.facts, loaded.transactions);

    // All of it can be read at this version.
    let version = loaded.version.ok_or("nothing was loaded")?;
    let count = format!("SELECT (COUNT(*) AS ?n) {{ ?place <{measured}> ?number }}");
    println!("{:?}", client.query_all(&count, Position::AtLeast(version)).await?.rows);
    client.close().await;
    Ok(())
}

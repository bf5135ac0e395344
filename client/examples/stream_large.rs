//! Writes ten thousand facts, and reads them as a stream: rows are handed out as they come, and memory stays
//! small.
//!
//! ```text
//! beam dev                                             # in another terminal
//! cargo run -p beam-client --example stream_large
//! ```
//!
//! Options as in `read_your_write`.

mod cluster;

use beam_client::{Builder, Client, ClientError, Position, Term};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::error::Error;

const FACTS: usize = 10_000;
const FACTS_PER_WRITE: usize = 500;
/// Writes under way at once: a write takes a round trip between datacenters, however small it is.
const WRITES_AT_ONCE: usize = 8;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = cluster::from_args()?;
    let client = Client::connect(cluster.env.clone(), cluster.options()?).await?;
    let measurement = format!("urn:beam:example:measured:{:032x}", cluster.env.random_u128());

    let started = cluster.env.now();
    let writes = (0..FACTS).step_by(FACTS_PER_WRITE).map(|from| write(&client, &measurement, from));
    let versions: Vec<_> = stream::iter(writes).buffer_unordered(WRITES_AT_ONCE).try_collect().await?;
    let version = versions.into_iter().max().ok_or("nothing was written")?;
    println!("wrote {FACTS} facts in {:?}, up to version {version}", cluster.env.now() - started);

    let started = cluster.env.now();
    let sparql = format!("SELECT ?place ?value {{ ?place <{measurement}> ?value }}");
    let mut answer = client.query(&sparql, Position::AtLeast(version)).await?;
    println!("first rows after {:?}, of version {}", cluster.env.now() - started, answer.version());
    let mut rows = 0;
    while let Some(row) = answer.next().await? {
        rows += 1;
        if rows % 2_500 == 0 {
            println!("row {rows}: {:?}", row.into_iter().flatten().collect::<Vec<_>>());
        }
    }
    println!("{rows} rows in {:?}; {:?}", cluster.env.now() - started, answer.summary());
    client.close().await;
    if rows == FACTS { Ok(()) } else { Err(format!("{rows} rows instead of {FACTS}").into()) }
}

async fn write(client: &Client, measurement: &str, from: usize) -> Result<beam_client::Version, ClientError> {
    let mut facts = Builder::new();
    for number in from..from + FACTS_PER_WRITE {
        let place = Term::Iri(format!("urn:beam:example:place:{number}"));
        let value = Term::Literal {
            lexical: (number * 7).to_string(),
            datatype: "http://www.w3.org/2001/XMLSchema#integer".to_owned(),
        };
        facts.insert([place, Term::Iri(measurement.to_owned()), value], None)?;
    }
    client.write(facts).await
}

//! Loads files of facts through the SDK, many transactions in flight.

use crate::rdf::batch::{BatchError, Batches};
use beam_client::wire::env::Env;
use beam_client::{Builder, Client, LoadError, Loaded};
use futures::stream::{self, Stream};

/// Writes each batch as one transaction. `told` hears of each that was acknowledged. When a batch cannot be read,
/// those before it are still written.
pub async fn load(
    client: &Client,
    batches: Batches,
    in_flight: usize,
    told: impl FnMut(&Loaded),
) -> Result<Loaded, LoadError<BatchError>> {
    client.load(read(client.env().clone(), batches), in_flight, told).await
}

/// Reading and parsing blocks for some milliseconds a batch, on a thread of its own.
fn read(env: Env, batches: Batches) -> impl Stream<Item = Result<Builder, BatchError>> {
    stream::unfold((env, batches), |(env, mut batches)| async move {
        let (batch, batches) = env.blocking(move || (batches.next(), batches)).await;
        Some((batch?.map(|batch| batch.builder), (env, batches)))
    })
}

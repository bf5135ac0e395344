//! Loads batches of facts through the SDK, many transactions in flight.

use crate::rdf::batch::{Batch, BatchError, Batches};
use beam_client::{Client, ClientError};
use futures::stream::{FuturesUnordered, StreamExt};

/// Transactions in flight: enough to fill the log's pipeline over a WAN, few enough that the views'
/// queues stay short.
pub const IN_FLIGHT: usize = 16;

/// Why a load stopped. What was told as loaded is in the database; loading the whole again changes
/// nothing but the rest, because facts are a set.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is wrong.
    #[error("{0}")]
    File(#[from] BatchError),
    /// The cluster did not take it.
    #[error("after {loaded} facts: {error}")]
    Write {
        /// Facts of transactions that were acknowledged.
        loaded: u64,
        /// What happened then.
        #[source]
        error: Box<ClientError>,
    },
}

/// Writes each batch as one transaction; how many facts that were. `told` hears it on the way. When a
/// batch cannot be read, those before it are still written.
pub async fn load(
    client: &Client,
    mut batches: Batches,
    in_flight: usize,
    told: impl Fn(u64),
) -> Result<u64, LoadError> {
    let mut loaded: u64 = 0;
    let mut writes = FuturesUnordered::new();
    let mut broken = None;
    loop {
        // Reading and parsing blocks for some milliseconds a batch, on a thread of its own.
        let (batch, rest) = client.env().blocking(move || (batches.next(), batches)).await;
        batches = rest;
        let batch = match batch {
            Some(Ok(batch)) => batch,
            Some(Err(error)) => {
                broken = Some(error);
                break;
            }
            None => break,
        };
        if writes.len() >= in_flight
            && let Some(written) = writes.next().await
        {
            loaded = acknowledged(loaded, written)?;
            told(loaded);
        }
        writes.push(write(client, batch));
    }
    while let Some(written) = writes.next().await {
        loaded = acknowledged(loaded, written)?;
        told(loaded);
    }
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(loaded),
    }
}

async fn write(client: &Client, batch: Batch) -> Result<u64, ClientError> {
    client.write(batch.builder).await?;
    Ok(batch.read)
}

fn acknowledged(loaded: u64, written: Result<u64, ClientError>) -> Result<u64, LoadError> {
    written.map(|facts| loaded + facts).map_err(|error| LoadError::Write { loaded, error: error.into() })
}

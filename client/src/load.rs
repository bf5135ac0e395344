//! Many facts at once: transactions in flight side by side.

use crate::client::Client;
use crate::error::ClientError;
use beam_wire::command::Builder;
use beam_wire::message::log::BODY_BYTES_MAX;
use beam_wire::{Term, Version};
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::time::Instant;

/// Transactions in flight unless told otherwise: enough to fill the log's pipeline over a WAN, few enough that the
/// views' queues stay short.
pub const LOADS_IN_FLIGHT: usize = 16;

/// Facts in one transaction unless told otherwise: enough that an entry's own cost does not show, few enough that a
/// view applies it in some milliseconds.
pub const FACTS_PER_TRANSACTION: usize = 2000;

/// Bytes that the terms and facts of one entry may take before compression. The rest of it is format, epoch, id,
/// index and counts.
const FACT_BYTES_MAX: usize = BODY_BYTES_MAX - 128;

/// For how long a transaction of a load is sent again and again before the load fails. Its id makes it happen once.
const BATCH_PATIENCE: Duration = Duration::from_secs(300);
/// Between a call that has failed and the next.
const BATCH_PAUSE: Duration = Duration::from_secs(1);

/// What was loaded so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Facts of transactions that were acknowledged, those included that were in the database already.
    pub facts: u64,
    /// Those transactions.
    pub transactions: u64,
    /// A version with all of them; none before the first.
    pub version: Option<Version>,
}

/// Why a load stopped. What was loaded is in the database; loading all of it again changes nothing but the rest,
/// because facts are a set.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// What was to be loaded could not be read on. What had been read before is loaded.
    #[error("{error}")]
    Source {
        /// What is in the database.
        loaded: Loaded,
        /// What was wrong.
        error: E,
    },
    /// The cluster did not take it.
    #[error("after {} facts: {error}", .loaded.facts)]
    Write {
        /// What is in the database at least: others may have been under way.
        loaded: Loaded,
        /// What happened then.
        #[source]
        error: Box<ClientError>,
    },
}

impl Client {
    /// Writes each batch as one transaction, so many at the same time, in no order. It reads from the stream no faster
    /// than the cluster takes what it brings. `told` hears of each that was acknowledged. What the cluster does not take
    /// within this client's timeout is sent again with the same id, so that it happens once, until five minutes are over.
    ///
    /// ```no_run
    /// use beam_client::{Client, ClientError, FACTS_PER_TRANSACTION, LOADS_IN_FLIGHT, Term, batches};
    /// use futures::stream;
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let iri = |text: String| Term::Iri(text);
    /// let facts = (0..1_000_000).map(move |n| {
    ///     let fact = [iri(format!("urn:place:{n}")), iri("urn:number".into()), Term::string(n.to_string())];
    ///     Ok::<_, ClientError>((fact, None))
    /// });
    /// let batches = batches(stream::iter(facts), FACTS_PER_TRANSACTION);
    /// let loaded = client.load(batches, LOADS_IN_FLIGHT, |so_far| println!("{}", so_far.facts)).await?;
    /// println!("{} facts in {} transactions", loaded.facts, loaded.transactions);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LoadError::Source`] when the stream brings an error, after all before it was written; [`LoadError::Write`].
    pub async fn load<E>(
        &self,
        batches: impl Stream<Item = Result<Builder, E>>,
        in_flight: usize,
        mut told: impl FnMut(&Loaded),
    ) -> Result<Loaded, LoadError<E>> {
        let mut batches = pin!(batches);
        let (mut loaded, mut writes) = (Loaded::default(), FuturesUnordered::new());
        let (mut broken, mut over) = (None, false);
        loop {
            let reads = !over && broken.is_none() && writes.len() < in_flight.max(1);
            // Writes go on while the stream takes its time.
            tokio::select! {
                biased;
                Some(written) = writes.next(), if !writes.is_empty() => match written {
                    Ok((facts, version)) => {
                        loaded.facts += facts;
                        loaded.transactions += 1;
                        loaded.version = loaded.version.max(Some(version));
                        told(&loaded);
                    }
                    Err(error) => return Err(LoadError::Write { loaded, error: Box::new(error) }),
                },
                batch = batches.next(), if reads => match batch {
                    Some(Ok(batch)) => writes.push(self.write_batch(batch)),
                    Some(Err(error)) => broken = Some(error),
                    None => over = true,
                },
                else => break,
            }
        }
        match broken {
            Some(error) => Err(LoadError::Source { loaded, error }),
            None => Ok(loaded),
        }
    }

    /// Writes a batch, and goes on for as long as it may still be written: whoever loads for hours lives through
    /// elections, restarts and full queues.
    async fn write_batch(&self, batch: Builder) -> Result<(u64, Version), ClientError> {
        let (facts, gives_up) = (batch.len() as u64, self.env().now() + BATCH_PATIENCE);
        let planned = self.patiently(gives_up, || self.plan(batch.clone())).await?;
        drop(batch);
        Ok((facts, self.patiently(gives_up, || self.carry_out(&planned)).await?))
    }

    /// Makes a call that may be made again, until it comes to something or it is time to give up.
    async fn patiently<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        gives_up: Instant,
        call: impl Fn() -> F,
    ) -> Result<T, ClientError> {
        loop {
            match call().await {
                Err(error) if may_be_sent_again(&error) && self.env().now() < gives_up => {
                    self.env().sleep(BATCH_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Whether the same write, with its id, may come to something yet.
fn may_be_sent_again(error: &ClientError) -> bool {
    error.may_be_known_later() || error.is_retryable()
}

/// Cuts a stream of facts, each with its graph, into transactions of at most so many facts that fit into an entry of
/// the log.
pub fn batches<E: From<ClientError>>(
    facts: impl Stream<Item = Result<([Term; 3], Option<Term>), E>>,
    facts_max: usize,
) -> impl Stream<Item = Result<Builder, E>> {
    let cutter = Cutter { facts: Box::pin(facts), facts_max: facts_max.max(1), next: None, error: None, over: false };
    futures::stream::unfold(cutter, |mut cutter| async move { Some((cutter.next().await?, cutter)) })
}

type Quad = ([Term; 3], Option<Term>);

struct Cutter<S, E> {
    facts: Pin<Box<S>>,
    facts_max: usize,
    /// The one that did not fit into the batch before.
    next: Option<Quad>,
    /// What came after the batch before.
    error: Option<E>,
    over: bool,
}

impl<S: Stream<Item = Result<Quad, E>>, E: From<ClientError>> Cutter<S, E> {
    async fn next(&mut self) -> Option<Result<Builder, E>> {
        let mut batch = Builder::new();
        while self.error.is_none() && !self.over && batch.len() < self.facts_max {
            let next = match self.next.take() {
                Some(quad) => Some(Ok(quad)),
                None => self.facts.next().await,
            };
            match next {
                Some(Ok((fact, graph))) => {
                    let bytes = Builder::bytes_of(&fact, graph.as_ref());
                    // One that fits into no entry is refused when it is written, by its size.
                    if batch.bytes() + bytes > FACT_BYTES_MAX && !batch.is_empty() {
                        self.next = Some((fact, graph));
                        break;
                    }
                    self.error = batch.insert(fact, graph).err().map(|error| ClientError::from(error).into());
                }
                Some(Err(error)) => self.error = Some(error),
                None => self.over = true,
            }
        }
        // What came before an error is written before it is told.
        if !batch.is_empty() {
            return Some(Ok(batch));
        }
        let error = self.error.take()?;
        self.over = true;
        Some(Err(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn fact(n: usize, text: &str) -> Result<Quad, ClientError> {
        let iri = |text: String| Term::Iri(text);
        Ok(([iri(format!("urn:s:{n}")), iri("urn:p".into()), Term::string(text)], None))
    }

    async fn sizes(facts: Vec<Result<Quad, ClientError>>, facts_max: usize) -> Vec<Result<usize, String>> {
        let cut = batches(stream::iter(facts), facts_max);
        cut.map(|batch| batch.map(|b| b.len()).map_err(|e| e.to_string())).collect().await
    }

    #[tokio::test]
    async fn every_fact_is_in_one_batch() {
        assert_eq!(sizes((0..25).map(|n| fact(n, "x")).collect(), 10).await, [Ok(10), Ok(10), Ok(5)]);
        assert_eq!(sizes(vec![], 10).await, []);
        let large = "x".repeat(BODY_BYTES_MAX / 2);
        let facts = (0..3).map(|n| fact(n, &format!("{large}{n}"))).collect();
        assert_eq!(sizes(facts, 10).await, [Ok(1), Ok(1), Ok(1)], "two of them fit into no entry");
    }

    #[tokio::test]
    async fn what_came_before_an_error_is_not_lost() {
        let wrong = || Err(ClientError::Over);
        let facts = vec![fact(1, "x"), fact(2, "x"), wrong(), fact(3, "x")];
        assert_eq!(sizes(facts, 10).await, [Ok(2), Err(ClientError::Over.to_string())]);
        let relative = Ok(([Term::Iri("s".into()), Term::Iri("urn:p".into()), Term::string("o")], None));
        let found = sizes(vec![fact(1, "x"), relative], 10).await;
        assert!(matches!(&found[..], [Ok(1), Err(_)]), "{found:?}");
    }
}

//! Transactions: reads at one version, then writes, as one step.

use crate::answer::{Answer, Everything, Reads, Replies};
use crate::client::{Client, lock};
use crate::error::ClientError;
use crate::reach::Changes;
use beam_wire::command::{AccessPath, Builder, READS_MAX, Verdict};
use beam_wire::message::api::ApiRead;
use beam_wire::quic::CallOptions;
use beam_wire::{Code, Position, Term, TransactionId, Version};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The longest pause before the first new attempt. It doubles with each, up to the maximum.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(640);

/// One attempt at a transaction: what it reads is of one version, and what it writes is collected. Clones are
/// the same attempt.
///
/// Reads see the database as it was when the first of them began, without what this transaction writes.
#[derive(Clone)]
pub struct Transaction {
    inner: Arc<Inner>,
}

struct Inner {
    /// All its calls end when the transaction has to.
    client: Client,
    /// Held while the first query runs: others wait until they know of which version it is.
    version: tokio::sync::Mutex<Option<Version>>,
    work: Mutex<Option<Work>>,
    /// The version that it reads is not in the database any more.
    lost: AtomicBool,
}

#[derive(Default)]
struct Work {
    facts: Builder,
    reads: Reads,
    read: bool,
}

/// A transaction that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the attempt returned that was committed.
    pub value: T,
    /// The version with its changes; for one that wrote nothing, the version that it read; for one that did neither, a
    /// version that the cluster had reached, a few seconds ago at most. Only writes make an entry of the log.
    pub version: Version,
    /// How often it was tried, because others wrote what it had read, or the database was recovered meanwhile.
    pub attempts: u32,
}

/// What became of a transaction that may have been made before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done<T> {
    /// Now.
    Now(Committed<T>),
    /// It had been committed before this call, at this version. What it returned then is not known.
    Before(Version),
}

impl Client {
    /// Makes a transaction: `attempt` reads and writes through what it is given, and all of that happens at once, or
    /// not at all. It is strictly serializable: it is as if nobody else had done anything between its first read and
    /// its commit. When somebody has written what it read, it is tried again, until this client's timeout.
    ///
    /// So it is when the database is recovered or restored while it runs: it reads anew what is there then. Whether an
    /// attempt from before came through and was kept is found out first, so that it still happens once.
    ///
    /// An `attempt` may run several times, so it must do nothing else that cannot be done twice. When it fails,
    /// nothing was written.
    ///
    /// ```no_run
    /// use beam_client::{Client, ClientError, Term};
    /// # async fn example(client: Client) -> Result<(), ClientError> {
    /// let iri = |text: &str| Term::Iri(text.to_owned());
    /// let claimed = client
    ///     .transaction(|tx| async move {
    ///         let taken = tx.query("ASK { ?who <urn:name> \"alice\" }").await?;
    ///         if taken.boolean() == Some(true) {
    ///             return Ok::<_, ClientError>(false);
    ///         }
    ///         tx.insert([iri("urn:user:7"), iri("urn:name"), Term::string("alice")], None)?;
    ///         Ok(true)
    ///     })
    ///     .await?;
    /// println!("{} at {}", claimed.value, claimed.version);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `attempt` returns; [`ClientError::Conflicts`] when others kept writing what it reads;
    /// [`ClientError::TooLarge`]; [`ClientError::OutcomeUnknown`] when it was sent to be committed and no answer came;
    /// else as [`Client::query`].
    pub async fn transaction<T, E, F, Fut>(&self, attempt: F) -> Result<Committed<T>, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<ClientError>,
    {
        Ok(self.for_one_call().attempts(&mut None, attempt).await?.0)
    }

    /// The same under an id that the caller has kept, from [`Client::new_id`]: whoever calls again with it, after an
    /// unknown outcome or after a crash, makes the transaction once. What had been committed before is not tried
    /// again.
    ///
    /// Ids are known for as many entries of the log as the cluster's window says (about a million): try again within
    /// minutes.
    ///
    /// # Errors
    /// As [`Client::transaction`]; [`ClientError::OutcomeUnknown`] also when the id is too old to be known.
    pub async fn transaction_as<T, E, F, Fut>(&self, id: TransactionId, attempt: F) -> Result<Done<T>, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<ClientError>,
    {
        let client = self.for_one_call();
        if let (_, Some(before)) = client.committed(id).await? {
            return Ok(Done::Before(before));
        }
        match client.attempts(&mut Some(id), attempt).await {
            // Perhaps by a copy of this very attempt, perhaps by one that was on its way all the time.
            Ok((committed, true)) => Ok(Done::Before(committed.version)),
            Ok((committed, false)) => Ok(Done::Now(committed)),
            // Perhaps the attempt has met what it had done itself.
            Err(error) => match client.committed(id).await {
                Ok((_, Some(before))) => Ok(Done::Before(before)),
                _ => Err(error),
            },
        }
    }

    /// Tries until it is committed; and whether that had been done by another copy.
    async fn attempts<T, E, F, Fut>(
        &self,
        id: &mut Option<TransactionId>,
        attempt: F,
    ) -> Result<(Committed<T>, bool), E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<ClientError>,
    {
        let mut pause = PAUSE_FIRST;
        let kept = id.is_some();
        for attempts in 1.. {
            let transaction = Transaction::begin(self);
            let value = match attempt(transaction.clone()).await {
                Ok(value) => Some(value),
                Err(error) => {
                    transaction.end();
                    // It has sent nothing, and reads another version next time.
                    if !transaction.inner.lost.load(Ordering::Relaxed) || self.env().now() >= self.deadline() {
                        return Err(error);
                    }
                    None
                }
            };
            let again = match value {
                None => None,
                Some(value) => match transaction.commit(id).await {
                    Ok((version, duplicate)) => return Ok((Committed { value, version, attempts }, duplicate)),
                    Err(error @ ClientError::EpochChanged { .. }) => {
                        // Of this attempt, a copy may have been kept from before. In the new epoch none can come any more.
                        if let Some(id) = *id
                            && let (_, Some(version)) = self.committed(id).await?
                        {
                            return Ok((Committed { value, version, attempts }, false));
                        }
                        if !kept {
                            *id = None;
                        }
                        Some(error)
                    }
                    Err(error) => match error {
                        ClientError::Refused { node, error } if error.code == Code::Conflict => {
                            Some(ClientError::Conflicts { attempts, node, error })
                        }
                        error => return Err(error.into()),
                    },
                },
            };
            // With jitter: writers who met at one fact would otherwise meet again.
            let wait = pause.mul_f64(self.env().random_below(1000) as f64 / 1000.0);
            if let (true, Some(error)) = (self.env().now() + wait >= self.deadline(), again) {
                return Err(error.into());
            }
            self.env().sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        unreachable!("attempts are not counted to their end")
    }
}

impl Transaction {
    fn begin(client: &Client) -> Transaction {
        let (version, work, lost) = (Default::default(), Mutex::new(Some(Work::default())), AtomicBool::new(false));
        Transaction { inner: Arc::new(Inner { client: client.clone(), version, work, lost }) }
    }

    /// Asks a SPARQL query, of the one version that this transaction reads: the newest when its first query began.
    ///
    /// # Errors
    /// As [`Client::query`]; [`ClientError::Over`] after the attempt has ended.
    pub async fn query(&self, sparql: &str) -> Result<Everything, ClientError> {
        self.at_work(|_| Ok(()))?;
        let mut version = self.inner.version.lock().await;
        let (answer, reads) = match *version {
            None => {
                let (answer, reads) = self.read(sparql, Position::Latest).await?;
                *version = Some(answer.version);
                (answer, reads)
            }
            Some(known) => {
                drop(version);
                let read = self.read(sparql, Position::Exact(known)).await;
                if let Err(ClientError::EpochChanged { .. }) = read {
                    self.inner.lost.store(true, Ordering::Relaxed);
                }
                read?
            }
        };
        self.at_work(|work| {
            work.read = true;
            work.reads.fine.extend(&reads.fine);
            work.reads.coarse.extend(&reads.coarse);
            Ok(())
        })?;
        Ok(answer)
    }

    async fn read(&self, sparql: &str, position: Position) -> Result<(Everything, Reads), ClientError> {
        let client = &self.inner.client;
        let request = ApiRead { sparql: sparql.to_owned(), base_iri: None, position };
        let answer = client
            .anywhere(Changes::Nothing, |peer, deadline| {
                let (request, env) = (request.clone(), client.env().clone());
                Box::pin(async move {
                    let replies = peer.call(&request, CallOptions { deadline: Some(deadline) }).await?;
                    Answer::begin(peer.info().hello.name.clone(), env, Replies::Read(replies), deadline).await
                })
            })
            .await?;
        client.learnt(answer.version());
        answer.all_and_reads().await
    }

    /// Will insert this fact; in the default graph if none is given.
    ///
    /// # Errors
    /// If it is no fact that Beam stores; [`ClientError::Over`] after the attempt has ended.
    pub fn insert(&self, fact: [Term; 3], graph: Option<Term>) -> Result<(), ClientError> {
        self.at_work(|work| Ok(work.facts.insert(fact, graph)?))
    }

    /// Will delete this fact; from the default graph if none is given. Deletes come before inserts.
    ///
    /// # Errors
    /// As [`Transaction::insert`].
    pub fn delete(&self, fact: [Term; 3], graph: Option<Term>) -> Result<(), ClientError> {
        self.at_work(|work| Ok(work.facts.delete(fact, graph)?))
    }

    /// The version that this transaction reads; none before its first query was answered.
    pub async fn version(&self) -> Option<Version> {
        *self.inner.version.lock().await
    }

    fn at_work(&self, with: impl FnOnce(&mut Work) -> Result<(), ClientError>) -> Result<(), ClientError> {
        with(lock(&self.inner.work).as_mut().ok_or(ClientError::Over)?)
    }

    /// What was written is given up.
    fn end(&self) {
        *lock(&self.inner.work) = None;
    }

    /// Appends what was written, with what was read. The id stays through all attempts: one with a conflict leaves
    /// no trace, and none of its copies ever will, for what conflicted stays written. So only one of them can be
    /// committed, whichever that is, and whoever lost the answer tries again under the same id.
    async fn commit(self, id: &mut Option<TransactionId>) -> Result<(Version, bool), ClientError> {
        let work = lock(&self.inner.work).take().ok_or(ClientError::Over)?;
        let read = *self.inner.version.lock().await;
        if let (Some(read), true) = (read, work.facts.is_empty()) {
            return Ok((read, false));
        }
        let client = &self.inner.client;
        let (known, fresh) = client.new_id().await?;
        if work.facts.is_empty() {
            return Ok((known, false));
        }
        let id = *id.get_or_insert(fresh);
        let at = read.unwrap_or(known);
        let reads = if work.read { work.reads.within_bounds() } else { Vec::new() };
        let transact = work.facts.build(at.epoch, id, at.index, reads);
        let reply = client.transact(transact, false).await?;
        Ok((reply.version, matches!(reply.verdict, Some(Verdict::Duplicate { .. }))))
    }
}

impl Reads {
    /// The narrowest that a transaction may name.
    fn within_bounds(self) -> Vec<u64> {
        let fits = [self.fine, self.coarse].into_iter().find(|reads| reads.len() <= READS_MAX);
        fits.map_or_else(|| vec![AccessPath::Everything.hash()], |reads| reads.into_iter().collect())
    }
}

impl Everything {
    /// The answer of an ASK; none for others.
    pub fn boolean(&self) -> Option<bool> {
        match self.shape {
            beam_wire::message::api::Shape::Boolean(answer) => Some(answer),
            _ => None,
        }
    }
}

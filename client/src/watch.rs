//! Changes of facts, as they are made.

use crate::client::{Client, lock};
use crate::error::ClientError;
use crate::reach::Changes;
use beam_wire::message::api::{ApiWatch, FactChange, WatchReply};
use beam_wire::quic::{CallOptions, Caller};
use beam_wire::{CallError, Code, Name, Version};
use futures::stream::{self, Stream};
use std::time::Duration;
use tokio::time::Instant;

/// An api node says something every second: one that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(4);

/// Before a stream is opened again that broke without having brought anything; doubles up to the maximum.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Every change of facts after a version, in the order in which they were committed.
///
/// It follows the cluster whichever nodes die: when its stream breaks, it goes on with another api node where it
/// was. Each version that changed something is told once, with all that it changed; so whoever keeps the version
/// of what was done ([`Changed::version`]) together with what it did, and begins there again after a crash, has
/// done everything exactly once.
///
/// ```no_run
/// use beam_client::{Client, ClientError, Position};
/// # async fn example(client: Client) -> Result<(), ClientError> {
/// let all = client.query_all("SELECT * { ?s ?p ?o }", Position::Latest).await?;
/// // What was read is of this version; from here on, changes tell the rest.
/// let mut watch = client.watch(all.version);
/// loop {
///     let changed = watch.next().await?;
///     for change in &changed.facts {
///         println!("{} {} {:?}", changed.version, if change.inserted { "+" } else { "-" }, change.fact);
///     }
/// }
/// # }
/// ```
pub struct Watch {
    client: Client,
    after: Version,
    open: Option<Open>,
    /// What of the next version has come so far.
    part: Vec<FactChange>,
    trouble: Option<Trouble>,
}

struct Open {
    node: Name,
    replies: Caller<ApiWatch>,
}

/// Streams broke, and nothing has come since.
struct Trouble {
    since: Instant,
    pause: Duration,
}

/// What one version has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The version. It is the next after the one told before that has changed any fact.
    pub version: Version,
    /// Each fact once, deletes before inserts. Only what was really changed: inserting what is there is no change.
    pub facts: Vec<FactChange>,
}

impl Client {
    /// Follows every change after a version: that of an answer ([`crate::Answer::version`]), or of the last change
    /// that was told. Nothing is sent before the first [`Watch::next`].
    pub fn watch(&self, after: Version) -> Watch {
        Watch { client: self.clone(), after, open: None, part: Vec::new(), trouble: None }
    }
}

impl Watch {
    /// The next version that has changed facts; waits for it as long as it takes. Safe to cancel: nothing is lost,
    /// and nothing is told twice.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with [`Code::TooOld`] when changes as old as these are not kept any more: read
    /// everything anew, and watch from there. [`ClientError::EpochChanged`] when the database was recovered or restored
    /// without what was told last. [`ClientError::Unavailable`] when no api node could serve it for as long as a call
    /// of this client may take; calling again goes on where it was.
    pub async fn next(&mut self) -> Result<Changed, ClientError> {
        let env = self.client.env().clone();
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    if let Some(trouble) = &mut self.trouble {
                        let pause = trouble.pause.mul_f64(0.5 + env.random_below(1000) as f64 / 1000.0);
                        trouble.pause = (trouble.pause * 2).min(PAUSE_MAX);
                        env.sleep(pause).await;
                    }
                    let (open, reached) = self.begin().await?;
                    self.after = reached;
                    self.open.insert(open)
                }
            };
            let silent = |_| Err(CallError::elsewhere(Code::Unavailable, "nothing was heard of it for too long"));
            let reply = env.timeout(SILENCE, open.replies.next()).await.unwrap_or_else(silent);
            match reply {
                Ok(Some(WatchReply::Changes { version, last, changes })) => {
                    self.part.extend(changes);
                    self.trouble = None;
                    if last {
                        self.after = version;
                        return Ok(Changed { version, facts: std::mem::take(&mut self.part) });
                    }
                }
                Ok(Some(WatchReply::Reached(version))) => {
                    self.after = version;
                    self.trouble = None;
                }
                Ok(None) => self.broke(CallError::elsewhere(Code::Disconnected, "the changes ended"))?,
                Err(error) => self.broke(error)?,
            }
        }
    }

    /// All changes up to this version were told: it rises also while nothing is changed.
    pub fn reached(&self) -> Version {
        self.after
    }

    /// The same as a stream, which ends after an error.
    pub fn stream(self) -> impl Stream<Item = Result<Changed, ClientError>> + Send {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(changed) => Some((Ok(changed), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Opens a stream, and waits until it is known to be served: from which version on, as the newest epoch calls it.
    async fn begin(&self) -> Result<(Open, Version), ClientError> {
        let request = ApiWatch { after: self.after };
        let begin = self.client.anywhere(Changes::Nothing, |peer, _| {
            let request = request.clone();
            Box::pin(async move {
                let mut replies = peer.call(&request, CallOptions::default()).await?;
                match replies.next().await? {
                    Some(WatchReply::Reached(version)) => {
                        Ok((Open { node: peer.info().hello.name.clone(), replies }, version))
                    }
                    _ => Err(CallError::elsewhere(Code::Internal, "changes that do not say where they begin")),
                }
            })
        });
        begin.await
    }

    /// The stream is over. What has come of the next version comes again.
    fn broke(&mut self, error: CallError) -> Result<(), ClientError> {
        self.part.clear();
        let Some(Open { node, .. }) = self.open.take() else { return Ok(()) };
        if !error.is_retryable() {
            return Err(match error.code {
                Code::WrongEpoch => ClientError::EpochChanged { node, error },
                _ => ClientError::Refused { node, error },
            });
        }
        let now = self.client.env().now();
        lock(&self.client.inner().standing).failed(&node, now);
        let trouble = self.trouble.get_or_insert(Trouble { since: now, pause: PAUSE_FIRST });
        if now - trouble.since > self.client.timeout() {
            self.trouble = None;
            let last = Some(Box::new((node, error)));
            return Err(ClientError::Unavailable { after: self.client.timeout(), last });
        }
        Ok(())
    }
}

//! Reads that never go back.

use crate::answer::{Answer, Everything};
use crate::client::Client;
use crate::error::ClientError;
use crate::transaction::{Committed, Transaction};
use beam_wire::command::Builder;
use beam_wire::message::api::Outcome;
use beam_wire::{Position, Version};
use std::sync::Mutex;

/// A sequence of calls in which each sees at least what those before it saw or wrote, whichever api node or
/// datacenter answers. It costs nothing while the views keep up, unlike [`Position::Latest`], which asks a
/// majority of the log.
///
/// ```no_run
/// # async fn example(client: beam_client::Client) -> Result<(), beam_client::ClientError> {
/// let session = client.session();
/// session.update("INSERT DATA { <urn:alice> <urn:age> 41 }").await?;
/// let answer = session.query_all("SELECT ?age { <urn:alice> <urn:age> ?age }").await?;
/// assert_eq!(answer.rows.len(), 1, "a session reads its own writes");
/// # Ok(())
/// # }
/// ```
pub struct Session {
    client: Client,
    seen: Mutex<Option<Version>>,
}

impl Session {
    pub(crate) fn new(client: Client, seen: Option<Version>) -> Session {
        Session { client, seen: Mutex::new(seen) }
    }

    /// The newest version that was seen or written. Another session can go on from it: see
    /// [`Client::session_from`].
    pub fn seen(&self) -> Option<Version> {
        *self.seen.lock().expect("no holder panics")
    }

    /// Forgets what was seen: the next call sees what is there now.
    pub fn forget(&self) {
        *self.seen.lock().expect("no holder panics") = None;
    }

    fn saw(&self, version: Version) {
        let mut seen = self.seen.lock().expect("no holder panics");
        *seen = seen.max(Some(version));
    }

    fn position(&self) -> Position {
        self.seen().map_or(Position::Recent, Position::AtLeast)
    }

    /// As [`Client::query`], at a version that holds all that this session has seen.
    ///
    /// # Errors
    /// As [`Client::query`]; [`ClientError::EpochChanged`] when the database was recovered or restored since, without
    /// what this session has seen. It says so until [`Session::forget`].
    pub async fn query(&self, sparql: &str) -> Result<Answer, ClientError> {
        let answer = self.client.query(sparql, self.position()).await?;
        self.saw(answer.version());
        Ok(answer)
    }

    /// As [`Session::query`], all at once.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn query_all(&self, sparql: &str) -> Result<Everything, ClientError> {
        self.query(sparql).await?.all().await
    }

    /// As [`Client::update`]; its conditions see at least what this session has seen.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub async fn update(&self, sparql: &str) -> Result<Outcome, ClientError> {
        let outcome = self.client.update_at_least(sparql, self.seen()).await?;
        self.saw(outcome.version);
        Ok(outcome)
    }

    /// As [`Client::transaction`]: it reads the newest version, which holds all that this session has seen.
    ///
    /// # Errors
    /// As [`Client::transaction`].
    pub async fn transaction<T, E, F, Fut>(&self, attempt: F) -> Result<Committed<T>, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<ClientError>,
    {
        let committed = self.client.transaction(attempt).await?;
        self.saw(committed.version);
        Ok(committed)
    }

    /// As [`Client::write`].
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn write(&self, facts: Builder) -> Result<Version, ClientError> {
        let version = self.client.write(facts).await?;
        self.saw(version);
        Ok(version)
    }
}

//! The answer to a query, as it comes.

use crate::error::ClientError;
use beam_wire::env::Env;
use beam_wire::message::api::{ApiQuery, ApiRead, QueryReply, Shape};
use beam_wire::quic::Caller;
use beam_wire::term::Term;
use beam_wire::{CallError, Code, Name, Version};
use futures::stream::{self, Stream};
use std::collections::{BTreeSet, VecDeque};
use tokio::time::Instant;

/// A row of a SELECT: for each variable of [`Answer::variables`] a term, or nothing where it is unbound.
pub type Row = Vec<Option<Term>>;

/// The answer to a query, as it comes. Dropping it tells the cluster to stop.
pub struct Answer {
    node: Name,
    version: Version,
    shape: Shape,
    replies: Replies,
    env: Env,
    deadline: Instant,
    ready: VecDeque<Row>,
    reads: Reads,
    summary: Option<Summary>,
}

/// Of the two calls that a query is made by.
pub(crate) enum Replies {
    Query(Caller<ApiQuery>),
    Read(Caller<ApiRead>),
}

impl Replies {
    async fn next(&mut self) -> Result<Option<QueryReply>, CallError> {
        match self {
            Replies::Query(replies) => replies.next().await,
            Replies::Read(replies) => replies.next().await,
        }
    }
}

/// What an answer rests on, in a narrow and in a wide sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    pub fine: BTreeSet<u64>,
    pub coarse: BTreeSet<u64>,
}

/// What a query took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Facts that were fetched from views.
    pub facts_fetched: u64,
    /// Requests to views.
    pub requests: u32,
    /// Those among them that were sent because another was late.
    pub hedges: u32,
}

/// An answer that is all there.
#[derive(Clone, Debug, PartialEq)]
pub struct Everything {
    /// The version of the database that it is of.
    pub version: Version,
    /// What kind of answer it is: [`Shape::Boolean`] holds the answer of an ASK.
    pub shape: Shape,
    /// The rows of a SELECT.
    pub rows: Vec<Row>,
    /// The triples of a CONSTRUCT or DESCRIBE.
    pub triples: Vec<[Term; 3]>,
    /// What it took.
    pub summary: Summary,
}

impl Answer {
    /// Reads the head and what comes first after it: until then the query can be sent elsewhere.
    pub(crate) async fn begin(
        node: Name,
        env: Env,
        mut replies: Replies,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let headless = || CallError::elsewhere(Code::Internal, "an answer without a head");
        let Some(QueryReply::Head { version, shape }) = replies.next().await? else { return Err(headless()) };
        let (ready, reads, summary) = (VecDeque::new(), Reads::default(), None);
        let mut answer = Answer { node, version, shape, replies, env, deadline, ready, reads, summary };
        answer.fill().await?;
        Ok(answer)
    }

    /// The version of the database that all of the answer is of.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What kind of answer it is.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The variables of a SELECT, without `?`; empty for others.
    pub fn variables(&self) -> &[String] {
        match &self.shape {
            Shape::Solutions { variables } => variables,
            Shape::Boolean(_) | Shape::Graph => &[],
        }
    }

    /// The answer of an ASK; none for others.
    pub fn boolean(&self) -> Option<bool> {
        match self.shape {
            Shape::Boolean(answer) => Some(answer),
            Shape::Solutions { .. } | Shape::Graph => None,
        }
    }

    /// The next row of a SELECT; none after the last. Triples of a CONSTRUCT or DESCRIBE come as rows of
    /// three terms.
    ///
    /// # Errors
    /// [`ClientError::BrokenOff`] when the rest cannot be had any more. Rows that came before are good, but
    /// not all.
    pub async fn next(&mut self) -> Result<Option<Row>, ClientError> {
        while self.ready.is_empty() && self.summary.is_none() {
            let filled = match self.env.clone().timeout_at(self.deadline, self.fill()).await {
                Ok(filled) => filled,
                Err(_) => Err(CallError::elsewhere(Code::Deadline, "the rest of the answer did not come in time")),
            };
            filled.map_err(|error| ClientError::BrokenOff { node: self.node.clone(), error })?;
        }
        Ok(self.ready.pop_front())
    }

    /// The rows as a stream, which ends after an error. They are read from the cluster as they are taken.
    ///
    /// ```no_run
    /// use beam_client::Position;
    /// use futures::TryStreamExt;
    /// use std::pin::pin;
    /// # async fn example(client: beam_client::Client) -> Result<(), beam_client::ClientError> {
    /// let answer = client.query("SELECT ?s ?o { ?s <urn:knows> ?o }", Position::Recent).await?;
    /// let mut rows = pin!(answer.stream());
    /// while let Some(row) = rows.try_next().await? {
    ///     println!("{row:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream(self) -> impl Stream<Item = Result<Row, ClientError>> + Send {
        stream::unfold(Some(self), |answer| async move {
            let mut answer = answer?;
            match answer.next().await {
                Ok(row) => Some((Ok(row?), Some(answer))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// What the query took; none until the last row was read.
    pub fn summary(&self) -> Option<Summary> {
        self.summary.filter(|_| self.ready.is_empty())
    }

    /// Reads all that is left into memory.
    ///
    /// # Errors
    /// As [`Answer::next`].
    pub async fn all(self) -> Result<Everything, ClientError> {
        Ok(self.all_and_reads().await?.0)
    }

    /// The same, and what the answer rests on.
    pub(crate) async fn all_and_reads(mut self) -> Result<(Everything, Reads), ClientError> {
        let mut rows = Vec::new();
        while let Some(row) = self.next().await? {
            rows.push(row);
        }
        let triples = match self.shape {
            Shape::Graph => rows.drain(..).filter_map(triple).collect(),
            Shape::Solutions { .. } | Shape::Boolean(_) => Vec::new(),
        };
        let Answer { version, shape, reads, summary, .. } = self;
        Ok((Everything { version, shape, rows, triples, summary: summary.unwrap_or_default() }, reads))
    }

    /// Takes in one more reply.
    async fn fill(&mut self) -> Result<(), CallError> {
        match self.replies.next().await? {
            Some(QueryReply::Rows(rows)) => self.ready.extend(rows),
            Some(QueryReply::Triples(triples)) => self.ready.extend(triples.into_iter().map(|t| t.map(Some).into())),
            Some(QueryReply::Summary { facts_fetched, requests, hedges }) => {
                self.summary = Some(Summary { facts_fetched, requests, hedges });
            }
            Some(QueryReply::Reads { fine, coarse }) => {
                self.reads.fine.extend(fine);
                self.reads.coarse.extend(coarse);
            }
            Some(QueryReply::Head { .. }) => {
                return Err(CallError::elsewhere(Code::Internal, "an answer with two heads"));
            }
            // What ends without a summary was cut short: it must not look whole.
            None => return Err(CallError::elsewhere(Code::Internal, "the answer ended before its summary")),
        }
        Ok(())
    }
}

fn triple(row: Row) -> Option<[Term; 3]> {
    let terms: Vec<Term> = row.into_iter().collect::<Option<_>>()?;
    terms.try_into().ok()
}

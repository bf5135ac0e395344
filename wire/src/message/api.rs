//! Calls that api nodes answer: what a program can ask of the database.

use super::{Call, Kind, log::LogInfoReply, view::ViewLoadReply, view::ViewStatusReply};
use crate::command::Verdict;
use crate::ids::{LogIndex, Name, Position, TransactionId, Version};
use crate::term::Term;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A SPARQL query. The first reply is a head; then rows or triples follow until the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiQuery {
    /// SPARQL 1.1 Query: SELECT, ASK, CONSTRUCT or DESCRIBE.
    pub sparql: String,
    /// For relative IRIs.
    pub base_iri: Option<String>,
    /// The version to read.
    pub position: Position,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum QueryReply {
    /// Always first: what is coming, and of which version.
    Head {
        /// The version that was read: all of the answer, and nothing else.
        version: Version,
        /// What follows.
        shape: Shape,
    },
    /// Rows of a SELECT: for each variable of the head, a term or nothing.
    Rows(Vec<Vec<Option<Term>>>),
    /// Triples of a CONSTRUCT or DESCRIBE: subject, predicate, object.
    Triples(Vec<[Term; 3]>),
    /// Always last: what it took.
    Summary {
        /// Facts fetched from views.
        facts_fetched: u64,
        /// Requests sent to views.
        requests: u32,
        /// Second requests among them, sent because the first was late.
        hedges: u32,
    },
    /// Before the summary of an [`ApiRead`]: what the answer rests on.
    Reads {
        /// Hashes of the access paths that were used; sorted, at most [`crate::command::READS_MAX`].
        fine: Vec<u64>,
        /// The same, by wider classes: fewer, for transactions that read much.
        coarse: Vec<u64>,
    },
}

/// The shape of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// `Rows` follow.
    Solutions {
        /// Names without `?`.
        variables: Vec<String>,
    },
    /// The answer of an ASK.
    Boolean(bool),
    /// `Triples` follow.
    Graph,
}

impl Call for ApiQuery {
    const KIND: Kind = Kind::ApiQuery;
    type Item = ();
    type Reply = QueryReply;
}

/// A query of a transaction: answered as an [`ApiQuery`] is, and told what the answer rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiRead {
    /// As in [`ApiQuery`].
    pub sparql: String,
    /// As in [`ApiQuery`].
    pub base_iri: Option<String>,
    /// As in [`ApiQuery`].
    pub position: Position,
}

impl Call for ApiRead {
    const KIND: Kind = Kind::ApiRead;
    type Item = ();
    type Reply = QueryReply;
}

/// Asks for every effective change of facts after a version, in the order of the log, without end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiWatch {
    /// The caller knows all changes up to this version.
    pub after: Version,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchReply {
    /// What changed from one version to another.
    Changes {
        /// The version with these changes; none lies between it and the one that was told before.
        version: Version,
        /// Whether these are all of this version. If not, the next reply holds more of them.
        last: bool,
        /// No fact twice; deletes before inserts.
        changes: Vec<FactChange>,
    },
    /// There are no more changes up to this version. Told at least every second while nothing else is.
    Reached(Version),
}

/// A fact that came or went. Inserting what is there, or deleting what is not, is no change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FactChange {
    /// It is there from this version on; else it is not any more.
    pub inserted: bool,
    /// Subject, predicate and object.
    pub fact: [Term; 3],
    /// None for the default graph.
    pub graph: Option<Term>,
}

impl Call for ApiWatch {
    const KIND: Kind = Kind::ApiWatch;
    type Item = ();
    type Reply = WatchReply;
}

/// Asks whether a transaction was committed: for those who lost the answer, and are about to try again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCommitted {
    /// The transaction.
    pub id: TransactionId,
}

/// What became of a transaction so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedReply {
    /// The answer is as of this version, which holds all that was acknowledged before the call. What is on its way
    /// to the log may come after it.
    pub at: Version,
    /// Where it was committed.
    pub committed: Option<LogIndex>,
}

impl Call for ApiCommitted {
    const KIND: Kind = Kind::ApiCommitted;
    type Item = ();
    type Reply = CommittedReply;
}

/// A SPARQL update: one transaction, one append, whatever number of operations it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiUpdate {
    /// SPARQL 1.1 Update.
    pub sparql: String,
    /// For relative IRIs.
    pub base_iri: Option<String>,
    /// Makes the first attempt exactly once when the call is sent again after a lost connection.
    pub id: TransactionId,
    /// The version that its conditions must at least have seen.
    pub at_least: Option<Version>,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where the transaction lies in the log; for a duplicate, where the first one does; for an
    /// update that had nothing to change, the version that it read.
    pub version: Version,
    /// How often it was tried, because others wrote what it had read.
    pub attempts: u32,
}

impl Call for ApiUpdate {
    const KIND: Kind = Kind::ApiUpdate;
    type Item = ();
    type Reply = Outcome;
}

/// A transaction that the caller has encoded itself: a [`crate::command::Command::Transact`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiTransact {
    /// The encoded command. The api node checks it before it appends it.
    pub command: Bytes,
    /// Wait for the verdict even of a blind write, so that a reader finds it applied here.
    pub wait: bool,
}

/// Where the transaction lies, and its verdict if one was needed or asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactReply {
    /// Where the entry lies in the log.
    pub version: Version,
    /// None for a blind write that was not waited for: it is committed as soon as it is appended.
    pub verdict: Option<Verdict>,
}

impl Call for ApiTransact {
    const KIND: Kind = Kind::ApiTransact;
    type Item = ();
    type Reply = TransactReply;
}

/// Asks an api node what it sees of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiStatus;

/// What an api node sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiStatusReply {
    /// The node that answers.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// The newest version that views of its datacenter cover, once it knows one.
    pub recent: Option<Version>,
    /// Every log node that DNS names.
    pub log: Vec<NodeStatus<LogInfoReply>>,
    /// Every view that DNS names.
    pub views: Vec<NodeStatus<ViewStatusReply>>,
    /// Second requests sent since its start.
    pub hedges: u64,
    /// Requests sent to views since its start.
    pub requests: u64,
}

/// A node, and what it said; or why nothing is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus<T> {
    /// The node.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// Its own words, or the error of asking.
    pub status: Result<T, String>,
}

impl Call for ApiStatus {
    const KIND: Kind = Kind::ApiStatus;
    type Item = ();
    type Reply = ApiStatusReply;
}

/// Asks an api node how much it has to do, and has done since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiLoad;

/// What an api node has to do and has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiLoadReply {
    /// Requests sent to views.
    pub requests: u64,
    /// Second requests among them, sent because the first was late.
    pub hedges: u64,
    /// Requests among them that were sent only to see whether a view that is left out is well again.
    pub probes: u64,
    /// Views that are left out, because they were silent or slow.
    pub out: Vec<Name>,
    /// Queries and updates that are evaluated now.
    pub running: u32,
    /// Queries and updates that wait for their turn.
    pub waiting: u32,
    /// Calls that were refused because there was too much to do.
    pub refused: u64,
    /// What every view node says of the same that DNS names.
    pub views: Vec<NodeStatus<ViewLoadReply>>,
}

impl Call for ApiLoad {
    const KIND: Kind = Kind::ApiLoad;
    type Item = ();
    type Reply = ApiLoadReply;
}

/// Makes ids for transactions out of an index that the caller knows and chance.
impl TransactionId {
    /// `born` must be an index that exists already; `random` fresh chance.
    pub fn new(born: crate::ids::LogIndex, random: u128) -> Self {
        Self { born, random }
    }
}

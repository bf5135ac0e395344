//! What an entry says: the decoded body of an entry of the log.

use crate::fact::Fact;
use crate::ids::{Epoch, LogIndex, Name, TransactionId};
use crate::term::{Term, TermId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The newest command format that this program reads and writes.
pub const FORMAT: u16 = 1;

/// Reads of a transaction above this number coarsen.
pub const READS_MAX: usize = 4096;

/// One command; one entry holds one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry of a log: all that verdicts depend on.
    Genesis(Genesis),
    /// Changes facts.
    Transact(Transact),
    /// From the next index on, this format is in force.
    Upgrade(u16),
}

/// All that verdicts depend on besides the log's other entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The cluster's name.
    pub cluster: Name,
    /// The epoch that begins here.
    pub epoch: Epoch,
    /// The format in force from the next index on.
    pub format: u16,
    /// N = 2^this slots of write history (10 to 30).
    pub slots_log2: u8,
    /// W: how many indexes back ids and verdicts are known.
    pub window: u64,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transact {
    /// The epoch of all indexes below.
    pub epoch: Epoch,
    /// Makes it exactly once.
    pub id: TransactionId,
    /// The version that its conditions were read at.
    pub read_index: LogIndex,
    /// Hashes of the access paths that its conditions used, empty results included; empty for a
    /// blind write.
    pub reads: Vec<u64>,
    /// Each term once.
    pub terms: Vec<Term>,
    /// Facts to delete, as numbers into `terms`. Deletes come before inserts.
    pub deletes: Vec<FactRef>,
    /// Facts to insert.
    pub inserts: Vec<FactRef>,
}

/// A fact, as numbers into a term table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FactRef {
    /// The subject's number.
    pub subject: u32,
    /// The predicate's number.
    pub predicate: u32,
    /// The object's number.
    pub object: u32,
    /// The graph's number; none for the default graph.
    pub graph: Option<u32>,
}

/// What every view concludes about a transaction, from the log alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// It was applied.
    Committed,
    /// Something that it read was written after its read index, at this index or, by a collision
    /// of hashes, seems to be.
    Conflict {
        /// The later write.
        with: LogIndex,
    },
    /// The same transaction was committed before.
    Duplicate {
        /// Where.
        of: LogIndex,
    },
    /// Its id is older than the window.
    Expired,
    /// It can never be applied.
    Rejected(Rejection),
}

/// Why an entry can never be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rejection {
    /// The body is not a command, or one with numbers outside its term table and the like.
    Malformed,
    /// It needs a newer format than the one in force at its index.
    FormatNotInForce,
    /// It belongs to another epoch.
    WrongEpoch,
    /// Its id was born at or after its own index.
    BornAhead,
    /// Its read index is at or after its own index.
    ReadAhead,
    /// The log has no genesis yet.
    BeforeGenesis,
    /// The log has a genesis already.
    SecondGenesis,
}

/// Why a body is not a command of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The bytes are no command.
    #[error("malformed command: {0}")]
    Malformed(String),
    /// The command is of a format that this program does not know.
    #[error("the command has format {found}, this program knows up to {known}")]
    Format {
        /// The command's format.
        found: u16,
        /// The newest format known here.
        known: u16,
    },
}

impl Command {
    /// The body of an entry: format, compression mark, command.
    pub fn encode(&self) -> Bytes {
        todo!()
    }

    /// The format that a body needs, read without decoding the rest.
    pub fn format_of(_body: &[u8]) -> Result<u16, CommandError> {
        todo!()
    }

    /// Reads and checks a body: everything that can be wrong with a command by itself.
    pub fn decode(_body: &[u8]) -> Result<Command, CommandError> {
        todo!()
    }
}

impl Transact {
    /// The ids of the term table, in order.
    pub fn term_ids(&self) -> Vec<TermId> {
        self.terms.iter().map(TermId::of).collect()
    }
}

impl FactRef {
    /// The fact, given the ids of the term table.
    pub fn fact(&self, ids: &[TermId]) -> Fact {
        Fact {
            subject: ids[self.subject as usize],
            predicate: ids[self.predicate as usize],
            object: ids[self.object as usize],
            graph: self.graph.map_or(TermId::DEFAULT_GRAPH, |g| ids[g as usize]),
        }
    }
}

/// A way in which facts are looked up, and so a class of facts that a reader depends on. Graphs do
/// not refine the classes of subject, predicate and object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants name the given terms")]
pub enum AccessPath {
    SubjectPredicateObject(TermId, TermId, TermId),
    SubjectPredicate(TermId, TermId),
    PredicateObject(TermId, TermId),
    Subject(TermId),
    Predicate(TermId),
    Object(TermId),
    Graph(TermId),
    Everything,
}

impl AccessPath {
    /// The hash that stands for the class: the same on every node.
    pub fn hash(&self) -> u64 {
        todo!()
    }

    /// The hashes of every class that a fact belongs to. `points` are those of its subject,
    /// predicate, object and graph.
    pub fn classes(_points: [crate::space::Point; 4]) -> [u64; 8] {
        todo!()
    }
}

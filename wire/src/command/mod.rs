//! What an entry says: the decoded body of an entry of the log.
//!
//! `body.rs` turns commands into bytes and back, and decides which bytes are commands; `access.rs`
//! names the classes of facts that readers depend on; `builder.rs` makes a [`Transact`] in the one
//! order that is accepted. Every view reads every entry ever written and must conclude the same from
//! it: what decodes today decodes for ever, to the same command, and what is malformed stays so. A
//! new rule needs a new [`FORMAT`].

mod access;
mod body;
mod builder;

pub use access::AccessPath;
pub use body::CommandError;
pub use builder::Builder;

use crate::fact::Fact;
use crate::ids::{Epoch, LogIndex, Name, TransactionId};
use crate::term::{Term, TermId};
use serde::{Deserialize, Serialize};

/// The newest command format that this program reads and writes.
pub const FORMAT: u16 = 1;

/// Reads of a transaction above this number coarsen.
pub const READS_MAX: usize = 4096;

/// Terms in one transaction. Two bytes are enough for a term, and fifty hold it in memory: without
/// this bound a body could ask for many times its size.
pub const TERMS_MAX: usize = 1 << 18;

/// Facts that one transaction may delete, and as many that it may insert.
pub const FACTS_MAX: usize = 1 << 18;

/// One command; one entry holds one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry of a log: all that verdicts depend on.
    Genesis(Genesis),
    /// Changes facts.
    Transact(Transact),
    /// From the next index on, this format is in force.
    Upgrade(u16),
    /// From the next index on, this epoch is in force. The log writes it when it was recovered or restored;
    /// nobody proposes it.
    Begin(Begin),
}

/// What [`Genesis::slots_log2`] may be: 8 KiB to 8 GiB of memory in each view.
pub const SLOTS_LOG2: std::ops::RangeInclusive<u8> = 10..=30;

/// All that verdicts depend on besides the log's other entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The cluster's name.
    pub cluster: Name,
    /// The epoch that begins here.
    pub epoch: Epoch,
    /// The format in force from the next index on.
    pub format: u16,
    /// N = 2^this slots of write history: see [`SLOTS_LOG2`].
    pub slots_log2: u8,
    /// W: how many indexes back ids and verdicts are known.
    pub window: u64,
}

/// A new epoch of the same log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The epoch that begins here. It is above all that the log has had.
    pub epoch: Epoch,
    /// The index before this entry's own: up to it, indexes mean what they meant before.
    pub kept: LogIndex,
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
    /// blind write. Strictly ascending, at most [`READS_MAX`].
    #[serde(deserialize_with = "body::reads")]
    pub reads: Vec<u64>,
    /// Each term once, and none that no fact uses; at most [`TERMS_MAX`].
    #[serde(deserialize_with = "body::terms")]
    pub terms: Vec<Term>,
    /// Facts to delete, as numbers into `terms`: strictly ascending, at most [`FACTS_MAX`]. Deletes
    /// come before inserts.
    #[serde(deserialize_with = "body::facts")]
    pub deletes: Vec<FactRef>,
    /// Facts to insert: strictly ascending, at most [`FACTS_MAX`].
    #[serde(deserialize_with = "body::facts")]
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

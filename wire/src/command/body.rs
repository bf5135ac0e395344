//! The bytes of a command, and which bytes are one.
//!
//! `u16` format, `u8` compression (0: the command follows in postcard; 1: `u32` its length, then an
//! LZ4 block), integers in little endian. Nothing is allocated before its size was checked.

use super::{Command, FACTS_MAX, FORMAT, FactRef, Genesis, READS_MAX, SLOTS_LOG2, TERMS_MAX, Transact};
use crate::codec;
use crate::term::{Term, TermId};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The largest command, in bytes before compression.
pub(super) const COMMAND_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Below this, there is nothing to gain from compression.
const COMPRESS_BYTES_MIN: usize = 256;
const HEADER_BYTES: usize = 3;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;

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

fn malformed(why: impl Into<String>) -> CommandError {
    CommandError::Malformed(why.into())
}

impl Command {
    /// The body of an entry: format, compression mark, command.
    pub fn encode(&self) -> Bytes {
        let command = codec::encode(self);
        let mut body = FORMAT.to_le_bytes().to_vec();
        if command.len() >= COMPRESS_BYTES_MIN {
            let block = lz4_flex::block::compress(&command);
            if block.len() + 4 < command.len() {
                body.push(LZ4);
                body.extend((command.len() as u32).to_le_bytes());
                body.extend(block);
                return body.into();
            }
        }
        body.push(PLAIN);
        body.extend(command);
        body.into()
    }

    /// The format that a body needs, read without decoding the rest.
    pub fn format_of(body: &[u8]) -> Result<u16, CommandError> {
        match body.first_chunk() {
            Some(bytes) if *bytes != [0, 0] => Ok(u16::from_le_bytes(*bytes)),
            Some(_) => Err(malformed("there is no format 0")),
            None => Err(malformed("the body is too short for a format")),
        }
    }

    /// How many bytes a body says that its command has before compression: what decoding it will
    /// take, for those who decode many. Bodies that are no command may say anything.
    pub fn bytes_of(body: &[u8]) -> usize {
        match body.get(HEADER_BYTES - 1..) {
            Some([LZ4, a, b, c, d, ..]) => {
                (u32::from_le_bytes([*a, *b, *c, *d]) as usize).clamp(body.len(), COMMAND_BYTES_MAX.max(body.len()))
            }
            _ => body.len(),
        }
    }

    /// Reads and checks a body: everything that can be wrong with a command by itself.
    pub fn decode(body: &[u8]) -> Result<Command, CommandError> {
        Ok(Self::decode_with_ids(body)?.0)
    }

    /// As [`Command::decode`], with the ids of a transaction's term table, which are computed anyway.
    pub fn decode_with_ids(body: &[u8]) -> Result<(Command, Vec<TermId>), CommandError> {
        let found = Self::format_of(body)?;
        if found > FORMAT {
            return Err(CommandError::Format { found, known: FORMAT });
        }
        let (header, content) = body.split_at_checked(HEADER_BYTES).ok_or_else(|| malformed("no compression mark"))?;
        let command: Command = match header[2] {
            PLAIN => codec::decode(content),
            LZ4 => codec::decode(&decompress(content)?),
            mark => return Err(malformed(format!("unknown compression {mark}"))),
        }
        .map_err(|e| malformed(e.to_string()))?;
        let ids = match &command {
            Command::Genesis(genesis) => genesis.check().map(|()| Vec::new()),
            Command::Transact(transact) => transact.check(),
            Command::Upgrade(0) => Err(malformed("there is no format 0")),
            Command::Upgrade(_) => Ok(Vec::new()),
            Command::Begin(begin) if begin.epoch.0 < 2 => Err(malformed("the first epoch begins with the genesis")),
            Command::Begin(_) => Ok(Vec::new()),
        }?;
        Ok((command, ids))
    }
}

fn decompress(content: &[u8]) -> Result<Vec<u8>, CommandError> {
    let (length, block) = content.split_first_chunk().ok_or_else(|| malformed("no length before the LZ4 block"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > COMMAND_BYTES_MAX {
        return Err(malformed(format!("{length} bytes are more than the {COMMAND_BYTES_MAX} that a command may have")));
    }
    let mut command = vec![0; length];
    match lz4_flex::block::decompress_into(block, &mut command) {
        Ok(written) if written == length => Ok(command),
        Ok(written) => Err(malformed(format!("the LZ4 block holds {written} bytes, not {length}"))),
        Err(e) => Err(malformed(format!("LZ4: {e}"))),
    }
}

impl Genesis {
    fn check(&self) -> Result<(), CommandError> {
        let bad = |why: &str| Err(malformed(why));
        match self {
            Genesis { epoch, .. } if epoch.0 == 0 => bad("the first epoch is 1"),
            Genesis { format: 0, .. } => bad("there is no format 0"),
            Genesis { window: 0, .. } => bad("the window must be at least 1"),
            Genesis { slots_log2, .. } if !SLOTS_LOG2.contains(slots_log2) => {
                bad("the number of slots must be 2^10 to 2^30")
            }
            _ => Ok(()),
        }
    }
}

impl Transact {
    /// Checks all but sizes, and returns the ids of the term table.
    fn check(&self) -> Result<Vec<TermId>, CommandError> {
        if !self.reads.is_sorted_by(|a, b| a < b) {
            return Err(malformed("reads are not strictly ascending"));
        }
        for term in &self.terms {
            term.check().map_err(|e| malformed(e.to_string()))?;
        }
        let ids = self.term_ids();
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(malformed(format!("the term {} is in the table twice", pair[0])));
        }
        let mut used = vec![false; self.terms.len()];
        for (facts, what) in [(&self.deletes, "deletes"), (&self.inserts, "inserts")] {
            if !facts.is_sorted_by(|a, b| a < b) {
                return Err(malformed(format!("{what} are not strictly ascending")));
            }
            for fact in facts {
                self.check_fact(fact, &mut used)?;
            }
        }
        match used.iter().position(|used| !used) {
            Some(number) => Err(malformed(format!("no fact uses term {number}"))),
            None => Ok(ids),
        }
    }

    fn check_fact(&self, fact: &FactRef, used: &mut [bool]) -> Result<(), CommandError> {
        let mut term = |number: u32| {
            let term = self.terms.get(number as usize);
            let term = term.ok_or_else(|| malformed(format!("term {number} of {}", self.terms.len())))?;
            used[number as usize] = true;
            Ok(term)
        };
        let place = |e: crate::term::TermError| malformed(e.to_string());
        term(fact.subject)?.can_be_subject().map_err(place)?;
        term(fact.predicate)?.can_be_predicate().map_err(place)?;
        term(fact.object)?;
        match fact.graph {
            Some(graph) => term(graph)?.can_be_graph().map_err(place),
            None => Ok(()),
        }
    }
}

pub(super) fn reads<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u64>, D::Error> {
    at_most(d, READS_MAX)
}

pub(super) fn terms<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Term>, D::Error> {
    at_most(d, TERMS_MAX)
}

pub(super) fn facts<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<FactRef>, D::Error> {
    at_most(d, FACTS_MAX)
}

/// A sequence that is refused before anything is allocated if it says that it is longer.
fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D, max: usize) -> Result<Vec<T>, D::Error> {
    struct AtMost<T>(usize, PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {} values", self.0)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let length = seq.size_hint().unwrap_or(0);
            if length > self.0 {
                return Err(A::Error::invalid_length(length, &self));
            }
            // The count is a claim; the values that follow prove it.
            let mut values = Vec::with_capacity(length.min(4096));
            while let Some(value) = seq.next_element()? {
                if values.len() == self.0 {
                    return Err(A::Error::invalid_length(self.0 + 1, &self));
                }
                values.push(value);
            }
            Ok(values)
        }
    }
    d.deserialize_seq(AtMost(max, PhantomData))
}

#[cfg(test)]
mod tests;

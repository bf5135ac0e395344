//! Verdict checkpoints: the state of [`super::verdict`] on disk, so that a restart need not read
//! the log from its beginning.
//!
//! A checkpoint is written in the batch of the run that ends at it, and only what changed since the
//! one before: chunks of slots, and pieces of what became of entries. A restart loads it and judges
//! the entries from it to where the facts are; those are applied already.
//!
//! ```text
//! head                    postcard: index judged, rules
//! slots/ number(4, BE)    8,192 slots, little-endian indexes; none means unwritten
//! log/   number(8, BE)    postcard: of 1,024 indexes, the outcomes' codes and committed ids
//! sum                     postcard: index judged, hash of the state
//! ```
//!
//! Whoever reads it sums slots and ids again: a checkpoint of which something is missing, or not as it was written, is
//! never taken up. Programs that know no hash leave one behind that is of another index, and is not looked at.

use super::outcomes::Outcomes;
use super::store::{Batch, Snapshot, StorageError};
use super::verdict::{Rules, Slots, Verdicts, sum_of_chunk, sum_of_id};
use beam_wire::command::SLOTS_LOG2;
use beam_wire::{LogIndex, Sum, TransactionId, Version, codec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A checkpoint is due after this many bytes of bodies, if that is more than four times what it writes.
const DUE_BYTES: u64 = 32 << 20;
/// Indexes in a piece of the log.
const PIECE: u64 = 1024;

const HEAD: &[u8] = b"head";
const SLOTS: &[u8] = b"slots/";
const LOG: &[u8] = b"log/";
const SUM: &[u8] = b"sum";

#[derive(Serialize, Deserialize)]
struct Head {
    judged: LogIndex,
    rules: Option<Rules>,
}

#[derive(Serialize, Deserialize)]
struct Piece {
    first: LogIndex,
    codes: Vec<u64>,
    committed: Vec<(LogIndex, TransactionId)>,
}

/// Whether so many bytes of bodies were judged since the last one that it is time for the next.
pub fn is_due(verdicts: &Verdicts, bytes: u64) -> bool {
    let slots_bytes = verdicts.slots().len() as u64 * 8;
    bytes >= DUE_BYTES.max(4 * slots_bytes)
}

/// Writes what changed since the checkpoint at `last`.
pub fn write(batch: &mut Batch<'_>, verdicts: &mut Verdicts, outcomes: &Outcomes, last: LogIndex) {
    let judged = verdicts.judged();
    for chunk in verdicts.take_dirty() {
        batch.put_checkpoint_piece(&slots_key(chunk), &verdicts.slots().chunk(chunk));
    }
    let window = verdicts.rules().map(|rules| rules.window);
    let lowest = |judged: LogIndex| judged.0.saturating_sub(window.unwrap_or(PIECE));
    let mut written = verdicts.committed_after(LogIndex((last.0 / PIECE * PIECE).saturating_sub(1))).peekable();
    for number in last.0.max(lowest(judged)) / PIECE..=judged.0 / PIECE {
        let indexes = number * PIECE..=(number * PIECE + PIECE - 1).min(judged.0);
        while written.next_if(|(index, _)| index < &LogIndex(*indexes.start())).is_some() {}
        let mut piece = Piece { first: LogIndex(0), codes: Vec::new(), committed: Vec::new() };
        for index in indexes.clone() {
            if let Some(code) = outcomes.code(LogIndex(index)) {
                if piece.codes.is_empty() {
                    piece.first = LogIndex(index);
                }
                piece.codes.push(code);
            }
        }
        while let Some(id) = written.next_if(|(index, _)| index.0 <= *indexes.end()) {
            piece.committed.push(*id);
        }
        batch.put_checkpoint_piece(&log_key(number), &codec::encode(&piece));
    }
    for number in lowest(last) / PIECE..lowest(judged) / PIECE {
        batch.remove_checkpoint_piece(&log_key(number));
    }
    let head = Head { judged, rules: verdicts.rules().cloned() };
    batch.put_checkpoint_piece(HEAD, &codec::encode(&head));
    batch.put_checkpoint_piece(SUM, &codec::encode(&(judged, verdicts.sum())));
}

/// The version of the newest checkpoint; none if there is none, or it is older than the genesis.
pub fn head(snapshot: &Snapshot) -> Result<Option<Version>, StorageError> {
    let Some(head) = snapshot.checkpoint_piece(HEAD)? else { return Ok(None) };
    Ok(read_head(&head)?.version())
}

/// The version of a checkpoint, if its head is among these pieces.
pub fn version_among(pieces: &[(Bytes, Bytes)]) -> Result<Option<Version>, StorageError> {
    let head = pieces.iter().find(|(key, _)| key[..] == *HEAD);
    head.map_or(Ok(None), |(_, head)| Ok(read_head(head)?.version()))
}

fn read_head(head: &[u8]) -> Result<Head, StorageError> {
    let head: Head = codec::decode(head).map_err(|_| damaged("the head"))?;
    match &head.rules {
        Some(rules) if !SLOTS_LOG2.contains(&rules.slots_log2) => Err(damaged("the number of slots")),
        _ => Ok(head),
    }
}

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged(format!("{what} of the verdict checkpoint"))
}

impl Head {
    fn version(self) -> Option<Version> {
        self.rules.map(|rules| Version { epoch: rules.epoch, index: self.judged })
    }

    /// Ids count from this index on, and outcomes from the next: pieces may reach further back.
    fn lowest(&self) -> LogIndex {
        let window = self.rules.as_ref().map_or(PIECE, |rules| rules.window);
        LogIndex(self.judged.0.saturating_sub(window))
    }
}

/// What one piece says.
enum Said<'a> {
    Head(Head),
    Slots { number: usize, chunk: &'a [u8] },
    Log(Piece),
    Sum(LogIndex, Sum),
}

impl Said<'_> {
    fn read<'a>(key: &[u8], value: &'a [u8]) -> Result<Said<'a>, StorageError> {
        if key == HEAD {
            return Ok(Said::Head(read_head(value)?));
        }
        if key == SUM {
            let (of, sum) = codec::decode(value).map_err(|_| damaged("the hash"))?;
            return Ok(Said::Sum(of, sum));
        }
        if let Some(number) = key.strip_prefix(SLOTS) {
            let number = number.try_into().map(u32::from_be_bytes).map_err(|_| damaged("a key"))?;
            return Ok(Said::Slots { number: number as usize, chunk: value });
        }
        if key.starts_with(LOG) {
            return Ok(Said::Log(codec::decode(value).map_err(|_| damaged("a piece"))?));
        }
        Err(damaged("a key"))
    }
}

/// Sums a checkpoint while it is read, piece by piece in the order of their keys.
#[derive(Default)]
pub struct Check {
    /// Of ids: the lowest index that counts.
    lowest: Option<LogIndex>,
    judged: LogIndex,
    found: Sum,
    written: Option<(LogIndex, Sum)>,
}

impl Check {
    /// Takes the next piece in.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.take(&Said::read(key, value)?)
    }

    fn take(&mut self, said: &Said<'_>) -> Result<(), StorageError> {
        if let Said::Head(head) = said {
            (self.lowest, self.judged) = (Some(head.lowest()), head.judged);
            return Ok(());
        }
        // The head's key is the lowest.
        let lowest = self.lowest.ok_or_else(|| damaged("the missing head"))?;
        match said {
            Said::Head(_) => {}
            Said::Slots { number, chunk } => self.found += sum_of_chunk(*number, chunk),
            Said::Log(piece) => {
                let ids = piece.committed.iter().filter(|(index, _)| *index >= lowest);
                ids.for_each(|(index, id)| self.found += sum_of_id(id, *index));
            }
            Said::Sum(of, sum) => self.written = Some((*of, *sum)),
        }
        Ok(())
    }

    /// The sum of slots and ids. Fails if that is not what was written.
    pub fn end(&self) -> Result<Sum, StorageError> {
        match self.written {
            Some((of, sum)) if of == self.judged && sum != self.found => Err(damaged("the hash")),
            _ => Ok(self.found),
        }
    }
}

/// The state at the newest checkpoint; that before the first entry, if there is none.
pub fn load(snapshot: &Snapshot) -> Result<(Verdicts, Outcomes), StorageError> {
    let mut pieces = snapshot.checkpoint_pieces();
    let Some(head) = pieces.next().transpose()? else { return Ok((Verdicts::new(), Outcomes::default())) };
    let mut check = Check::default();
    check.add(&head.0, &head.1)?;
    let head = read_head(&head.1)?;
    let slots = Slots::new(head.rules.as_ref().map_or(0, |rules| 1 << rules.slots_log2));
    let (mut outcomes, mut committed) = (Outcomes::default(), Vec::new());
    let (lowest, window) = (head.lowest(), head.rules.as_ref().map(|rules| rules.window));
    for piece in pieces {
        let (key, value) = piece?;
        let said = Said::read(&key, &value)?;
        check.take(&said)?;
        match said {
            Said::Slots { number, chunk } if !slots.restore_chunk(number, chunk) => return Err(damaged("a chunk")),
            Said::Log(piece) => {
                let codes = (piece.first.0..).map(LogIndex).zip(piece.codes).filter(|(index, _)| *index > lowest);
                for (index, code) in codes {
                    if !outcomes.push_code(index, code, window) {
                        return Err(damaged("an outcome"));
                    }
                }
                committed.extend(piece.committed.into_iter().filter(|(index, _)| *index >= lowest));
            }
            Said::Head(_) | Said::Slots { .. } | Said::Sum(..) => {}
        }
    }
    let sum = check.end()?;
    if outcomes.code(head.judged).is_none() || outcomes.code(head.judged.next()).is_some() {
        return Err(damaged("the last outcome"));
    }
    Ok((Verdicts::restore(head.judged, head.rules, slots, committed, sum), outcomes))
}

fn slots_key(chunk: usize) -> Vec<u8> {
    [SLOTS, &(chunk as u32).to_be_bytes()].concat()
}

fn log_key(number: u64) -> Vec<u8> {
    [LOG, &number.to_be_bytes()].concat()
}

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
//! ```

use super::outcomes::Outcomes;
use super::store::{Batch, Snapshot, StorageError, Store};
use super::verdict::{Rules, Slots, Verdicts};
use beam_wire::{LogIndex, TransactionId, Version, codec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A checkpoint is due after this many bytes of bodies, if that is more than four times what it writes.
const DUE_BYTES: u64 = 32 << 20;
/// Indexes in a piece of the log.
const PIECE: u64 = 1024;

const HEAD: &[u8] = b"head";
const SLOTS: &[u8] = b"slots/";
const LOG: &[u8] = b"log/";

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
    codec::decode(head).map_err(|_| StorageError::Damaged("the head of the verdict checkpoint".into()))
}

impl Head {
    fn version(self) -> Option<Version> {
        self.rules.map(|rules| Version { epoch: rules.epoch, index: self.judged })
    }
}

/// The state at the newest checkpoint; that before the first entry, if there is none.
pub fn load(store: &Store) -> Result<(Verdicts, Outcomes), StorageError> {
    let damaged = |what: &str| StorageError::Damaged(format!("{what} of the verdict checkpoint"));
    let Some(head) = store.checkpoint_piece(HEAD)? else { return Ok((Verdicts::new(), Outcomes::default())) };
    let Head { judged, rules } = codec::decode(&head).map_err(|_| damaged("the head"))?;

    let slots = Slots::new(rules.as_ref().map_or(0, |rules| 1 << rules.slots_log2));
    for piece in store.checkpoint_pieces(SLOTS) {
        let (key, chunk) = piece?;
        let number = key[SLOTS.len()..].try_into().map(u32::from_be_bytes).map_err(|_| damaged("a key"))?;
        if !slots.restore_chunk(number as usize, &chunk) {
            return Err(damaged("a chunk"));
        }
    }
    let (mut outcomes, mut committed) = (Outcomes::default(), Vec::new());
    let window = rules.as_ref().map(|rules| rules.window);
    // Pieces may reach further back than anybody asks.
    let lowest = LogIndex(judged.0.saturating_sub(window.unwrap_or(PIECE)));
    for piece in store.checkpoint_pieces(LOG) {
        let piece: Piece = codec::decode(&piece?.1).map_err(|_| damaged("a piece"))?;
        let mut index = piece.first;
        for code in piece.codes {
            if index > lowest {
                outcomes.push_code(index, code, window);
            }
            index = index.next();
        }
        committed.extend(piece.committed.into_iter().filter(|(index, _)| *index >= lowest));
    }
    Ok((Verdicts::restore(judged, rules, slots, committed), outcomes))
}

fn slots_key(chunk: usize) -> Vec<u8> {
    [SLOTS, &(chunk as u32).to_be_bytes()].concat()
}

fn log_key(number: u64) -> Vec<u8> {
    [LOG, &number.to_be_bytes()].concat()
}

//! Reads what a view holds, key by key, as it was at earlier versions: what other views copy.
//!
//! A view keeps every version back to its oldest one, live or past. So what was at a version can be told
//! from any later state: a fact that was inserted since is left out, and one that was deleted since is live.
//! Hence a copy may be put together from slices that were read at different times, of different views, and
//! is still exactly the state at its version. A fact's live and past versions are read together, for
//! between two slices it may move from one to the other.

use super::intervals::{Intervals, contains};
use super::keys::{ID_BYTES, Order, read_index, read_past_key};
use super::store::{Scan, Snapshot, StorageError, StoredBytes};
use beam_wire::message::view::{CopiedFact, CopiedTerm, CopyChunk, KeyInterval};
use beam_wire::{LogIndex, Point, Range, Space, TermId};
use bytes::Bytes;
use std::iter::Peekable;

/// Facts or texts in a slice, beside the rest of the versions of its last fact: a few milliseconds of reading.
/// (Tests have few facts, and want many slices.)
const SLICE_RECORDS: usize = if cfg!(test) { 5 } else { 4096 };
/// And what they weigh: a slice of long texts is no longer than one of facts.
const SLICE_BYTES: usize = 512 << 10;
/// What a chunk holds, beside its last record.
const CHUNK_BYTES: usize = if cfg!(test) { 250 } else { 200 << 10 };
/// What a record takes beside its key or text.
const RECORD_BYTES: usize = 24;

/// Some keys, and all that lies at them.
pub struct Slice {
    /// The keys.
    pub of: KeyInterval,
    /// Of what was deleted at or before this index, versions may be missing.
    pub oldest: LogIndex,
    space: Space,
    records: Vec<Record>,
}

/// A version of a fact, or a text.
struct Record {
    key: StoredBytes,
    inserted: LogIndex,
    deleted: Option<LogIndex>,
    text: StoredBytes,
}

/// What one who copies wants of a slice.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The version.
    pub at: LogIndex,
    /// The points.
    pub range: Range,
    /// The keys that are still missing.
    pub keys: Intervals,
}

impl Slice {
    /// Reads on from a key, at most up to `end`.
    pub fn read(snapshot: &Snapshot, space: Space, from: Bytes, end: Option<Bytes>) -> Result<Slice, StorageError> {
        let oldest = snapshot.progress()?.oldest;
        let window = KeyInterval { from: from.clone(), to: end.clone() };
        let (records, next) = match space {
            Space::Term => texts(snapshot.terms_range(&window))?,
            Space::Subject => versions(snapshot, Order::Spog, &window)?,
            Space::Object => versions(snapshot, Order::Opsg, &window)?,
        };
        // What compaction has dropped meanwhile may be missing here.
        let oldest = oldest.max(snapshot.floor());
        Ok(Slice { of: KeyInterval { from, to: next.or(end) }, oldest, space, records })
    }

    /// What is wanted of it, and which keys that settles. The last chunk of each interval says so.
    pub fn chunks(&self, wanted: &Wanted) -> Vec<CopyChunk> {
        let mut chunks = Vec::new();
        for interval in wanted.keys.within(&self.of) {
            let mut chunk = self.empty();
            let (mut bytes, mut previous): (_, &[u8]) = (0, &[]);
            let mut lies = Lies::in_range(wanted.range);
            let begin = self.records.partition_point(|record| record.key[..] < interval.from[..]);
            for record in self.records[begin..].iter().take_while(|record| contains(&interval, &record.key)) {
                if record.inserted > wanted.at || !lies.here(&record.key) {
                    continue;
                }
                if bytes >= CHUNK_BYTES {
                    chunks.push(std::mem::replace(&mut chunk, self.empty()));
                    (bytes, previous) = (0, &[]);
                }
                bytes += RECORD_BYTES + record.text.len() + record.key.len();
                if self.space == Space::Term {
                    let id = TermId(record.key[..].try_into().expect("checked when it was read"));
                    chunk.terms.push(CopiedTerm { id, text: Bytes::copy_from_slice(&record.text) });
                } else {
                    let shared = previous.iter().zip(record.key.iter()).take_while(|(a, b)| a == b).count();
                    let rest = Bytes::copy_from_slice(&record.key[shared..]);
                    let deleted = record.deleted.filter(|deleted| *deleted <= wanted.at);
                    chunk.facts.push(CopiedFact { shared: shared as u8, rest, inserted: record.inserted, deleted });
                    previous = &record.key;
                }
            }
            chunk.done = Some(interval);
            chunks.push(chunk);
        }
        chunks
    }

    fn empty(&self) -> CopyChunk {
        CopyChunk { oldest: self.oldest, done: None, facts: Vec::new(), terms: Vec::new() }
    }
}

/// Whether keys lie in a range of points. Many that follow one another begin with the same term.
struct Lies {
    range: Range,
    last: Option<([u8; ID_BYTES], bool)>,
}

impl Lies {
    fn in_range(range: Range) -> Lies {
        Lies { range, last: None }
    }

    fn here(&mut self, key: &[u8]) -> bool {
        if self.range == Range::ALL {
            return true;
        }
        let first: [u8; ID_BYTES] = key[..ID_BYTES].try_into().expect("checked when it was read");
        match self.last {
            Some((same, here)) if same == first => here,
            _ => {
                let point: Point = TermId(first).point();
                let here = self.range.contains(point);
                self.last = Some((first, here));
                here
            }
        }
    }
}

/// Records, and the first key that is beyond them if there may be more.
type Read = (Vec<Record>, Option<Bytes>);

fn texts(scan: Scan) -> Result<Read, StorageError> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    for row in scan {
        let (key, text) = row?;
        if key.len() != ID_BYTES {
            return Err(StorageError::Damaged(format!("{} bytes are no id of a text", key.len())));
        }
        if records.len() >= SLICE_RECORDS || bytes >= SLICE_BYTES {
            return Ok((records, Some(Bytes::copy_from_slice(&key))));
        }
        bytes += text.len();
        records.push(Record { key, inserted: LogIndex(0), deleted: None, text });
    }
    Ok((records, None))
}

/// Live and past versions of facts, in the order of the facts' keys.
fn versions(snapshot: &Snapshot, order: Order, window: &KeyInterval) -> Result<Read, StorageError> {
    let mut live = Ahead::of(snapshot.live_range(order, window), |key, value| {
        if key.len() < ID_BYTES {
            return Err(StorageError::Damaged(format!("{} bytes are no key of a fact", key.len())));
        }
        Ok(Record { key, inserted: read_index(&value)?, deleted: None, text: StoredBytes::empty() })
    });
    let mut past = Ahead::of(snapshot.past_range(order, window), |key, _| {
        let (fact, deleted, inserted) = read_past_key(&key)?;
        let key = key[..fact].into();
        Ok(Record { key, inserted, deleted: Some(deleted), text: StoredBytes::empty() })
    });
    let mut records: Vec<Record> = Vec::new();
    loop {
        let next = match (live.peek()?, past.peek()?) {
            (None, None) => return Ok((records, None)),
            (Some(a), Some(b)) if a.key <= b.key => &mut live,
            (Some(_), None) => &mut live,
            (_, Some(_)) => &mut past,
        };
        let Some(record) = next.take()? else { return Ok((records, None)) };
        if records.len() >= SLICE_RECORDS && records.last().is_some_and(|last| last.key != record.key) {
            return Ok((records, Some(Bytes::copy_from_slice(&record.key))));
        }
        records.push(record);
    }
}

/// A scan whose next record can be looked at.
struct Ahead {
    scan: Peekable<Box<dyn Iterator<Item = Result<Record, StorageError>>>>,
}

impl Ahead {
    fn of(scan: Scan, read: impl Fn(StoredBytes, StoredBytes) -> Result<Record, StorageError> + 'static) -> Ahead {
        let records = scan.map(move |row| row.and_then(|(key, value)| read(key, value)));
        let records: Box<dyn Iterator<Item = _>> = Box::new(records);
        Ahead { scan: records.peekable() }
    }

    fn peek(&mut self) -> Result<Option<&Record>, StorageError> {
        if let Some(Err(_)) = self.scan.peek() {
            return Err(self.scan.next().and_then(Result::err).expect("it was just looked at"));
        }
        Ok(self.scan.peek().and_then(|next| next.as_ref().ok()))
    }

    fn take(&mut self) -> Result<Option<Record>, StorageError> {
        self.scan.next().transpose()
    }
}

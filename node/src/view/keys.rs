//! The bytes of a fact in each order. A promise: what is on disk stays readable.
//!
//! ```text
//! live key    a(17) b(17) c(17) [graph(17)]                          value: inserted, LEB128
//! past key    a(17) b(17) c(17) [graph(17)] deleted(8) inserted(8)   value: empty
//! ```
//!
//! `a b c` are the fact's terms as the order arranges them. The default graph is left out: it is
//! what most facts lie in, and its 17 bytes would be a quarter of each key. The four shapes differ
//! in length, so nothing is ambiguous. Indexes are big-endian, so the versions of one fact follow
//! one another as they were deleted.

use beam_wire::{Fact, LogIndex, TermId};
use std::fmt;

/// Bytes of a term's id.
pub const ID_BYTES: usize = 17;
/// The longest live key.
pub const LIVE_BYTES_MAX: usize = 4 * ID_BYTES;
/// The longest past key.
pub const PAST_BYTES_MAX: usize = LIVE_BYTES_MAX + 16;

/// Above every index that a log can reach. Its first byte is still 0, which no term's id begins
/// with: so in the past keys of a fact in the default graph it sorts before the same fact in others.
pub const AFTER_ALL_INDEXES: LogIndex = LogIndex((1 << 56) - 1);

/// An arrangement of a fact's terms. Each is one live and one past keyspace on disk, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Subject, predicate, object: of the subject space.
    Spog,
    /// Predicate, object, subject: of the subject space.
    Posg,
    /// Object, predicate, subject: of the object space.
    Opsg,
    // Gspo: its name is reserved.
}

impl Order {
    /// The name of the order on disk.
    pub fn name(self) -> &'static str {
        match self {
            Order::Spog => "spog",
            Order::Posg => "posg",
            Order::Opsg => "opsg",
        }
    }

    fn arrange(self, fact: &Fact) -> [&TermId; 3] {
        let Fact { subject, predicate, object, .. } = fact;
        match self {
            Order::Spog => [subject, predicate, object],
            Order::Posg => [predicate, object, subject],
            Order::Opsg => [object, predicate, subject],
        }
    }

    fn restore(self, [a, b, c]: [TermId; 3], graph: TermId) -> Fact {
        let (subject, predicate, object) = match self {
            Order::Spog => (a, b, c),
            Order::Posg => (c, a, b),
            Order::Opsg => (c, b, a),
        };
        Fact { subject, predicate, object, graph }
    }
}

/// A key on the stack.
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; PAST_BYTES_MAX],
    length: usize,
}

impl Key {
    fn empty() -> Key {
        Key { bytes: [0; PAST_BYTES_MAX], length: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// What every key begins with whose first terms are these.
    pub fn prefix(terms: &[TermId]) -> Key {
        let mut key = Key::empty();
        for term in terms {
            key.push(&term.0);
        }
        key
    }

    /// The live key of a fact.
    pub fn live(order: Order, fact: &Fact) -> Key {
        let mut key = Key::empty();
        for term in order.arrange(fact) {
            key.push(&term.0);
        }
        if fact.graph != TermId::DEFAULT_GRAPH {
            key.push(&fact.graph.0);
        }
        key
    }

    /// The past key of one version of a fact.
    pub fn past(order: Order, fact: &Fact, deleted: LogIndex, inserted: LogIndex) -> Key {
        let mut key = Key::live(order, fact);
        key.push(&deleted.0.to_be_bytes());
        key.push(&inserted.0.to_be_bytes());
        key
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.as_ref() == other.as_ref()
    }
}
impl Eq for Key {}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Key) -> std::cmp::Ordering {
        self.as_ref().cmp(other.as_ref())
    }
}
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Bytes on disk that are no key or value of ours: the disk is damaged, or not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes are no {what}")]
pub struct KeyError {
    what: &'static str,
    length: usize,
}

/// Reads a live key.
pub fn read_live(order: Order, key: &[u8]) -> Result<Fact, KeyError> {
    let error = KeyError { what: "live key", length: key.len() };
    let graph = match key.len() {
        n if n == 3 * ID_BYTES => TermId::DEFAULT_GRAPH,
        n if n == 4 * ID_BYTES => term_at(key, 3).ok_or(error)?,
        _ => return Err(error),
    };
    let terms = [term_at(key, 0).ok_or(error)?, term_at(key, 1).ok_or(error)?, term_at(key, 2).ok_or(error)?];
    Ok(order.restore(terms, graph))
}

/// Reads a past key: the fact, when it was deleted, and when it was inserted.
pub fn read_past(order: Order, key: &[u8]) -> Result<(Fact, LogIndex, LogIndex), KeyError> {
    let error = KeyError { what: "past key", length: key.len() };
    let (rest, inserted) = key.split_last_chunk::<8>().ok_or(error)?;
    let (live, deleted) = rest.split_last_chunk::<8>().ok_or(error)?;
    let index = |bytes: &[u8; 8]| LogIndex(u64::from_be_bytes(*bytes));
    Ok((read_live(order, live).map_err(|_| error)?, index(deleted), index(inserted)))
}

/// Reads a past key without its terms: how long the fact's own key is, when it was deleted, and when inserted.
pub fn read_past_key(key: &[u8]) -> Result<(usize, LogIndex, LogIndex), KeyError> {
    let error = KeyError { what: "past key", length: key.len() };
    let length = key.len().checked_sub(16).filter(|n| [3 * ID_BYTES, 4 * ID_BYTES].contains(n)).ok_or(error)?;
    let index = |at: usize| key[at..at + 8].try_into().map(u64::from_be_bytes).map(LogIndex).map_err(|_| error);
    Ok((length, index(length)?, index(length + 8)?))
}

/// When the version of a past key was deleted.
pub fn deleted_at(key: &[u8]) -> Option<LogIndex> {
    let (rest, _) = key.split_last_chunk::<8>()?;
    let (_, deleted) = rest.split_last_chunk::<8>()?;
    Some(LogIndex(u64::from_be_bytes(*deleted)))
}

fn term_at(key: &[u8], i: usize) -> Option<TermId> {
    key.get(i * ID_BYTES..(i + 1) * ID_BYTES)?.try_into().ok().map(TermId)
}

/// The value of a live key: seven bits a byte, lowest first.
pub fn write_index(index: LogIndex) -> ([u8; 10], usize) {
    let (mut bytes, mut length, mut rest) = ([0; 10], 0, index.0);
    loop {
        bytes[length] = (rest & 0x7f) as u8 | if rest > 0x7f { 0x80 } else { 0 };
        length += 1;
        rest >>= 7;
        if rest == 0 {
            return (bytes, length);
        }
    }
}

/// Reads the value of a live key.
pub fn read_index(value: &[u8]) -> Result<LogIndex, KeyError> {
    let error = KeyError { what: "insert index", length: value.len() };
    let mut index = 0u64;
    for (i, byte) in value.iter().enumerate() {
        let bits = u64::from(byte & 0x7f).checked_shl(7 * i as u32).ok_or(error)?;
        index |= bits;
        if byte & 0x80 == 0 {
            return if i + 1 == value.len() { Ok(LogIndex(index)) } else { Err(error) };
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> TermId {
        TermId([byte; 17])
    }

    const fn fact(graph: TermId) -> Fact {
        Fact { subject: TermId([0x11; 17]), predicate: TermId([0x22; 17]), object: TermId([0x33; 17]), graph }
    }

    /// If this test wants to change, views could no longer read their disks.
    #[test]
    fn golden_bytes() {
        let (s, p, o, g) = ("11".repeat(17), "22".repeat(17), "33".repeat(17), "44".repeat(17));
        let hex = |key: Key| format!("{key:?}");
        let (plain, named) = (fact(TermId::DEFAULT_GRAPH), fact(id(0x44)));
        assert_eq!(hex(Key::live(Order::Spog, &plain)), format!("{s}{p}{o}"));
        assert_eq!(hex(Key::live(Order::Posg, &plain)), format!("{p}{o}{s}"));
        assert_eq!(hex(Key::live(Order::Opsg, &plain)), format!("{o}{p}{s}"));
        assert_eq!(hex(Key::live(Order::Opsg, &named)), format!("{o}{p}{s}{g}"));
        assert_eq!(
            hex(Key::past(Order::Posg, &named, LogIndex(0x0102), LogIndex(3))),
            format!("{p}{o}{s}{g}00000000000001020000000000000003")
        );
        let index = |i| {
            let (bytes, length) = write_index(LogIndex(i));
            bytes[..length].to_vec()
        };
        assert_eq!(index(0), [0]);
        assert_eq!(index(127), [0x7f]);
        assert_eq!(index(128), [0x80, 1]);
        assert_eq!(index(u64::MAX), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!([Order::Spog, Order::Posg, Order::Opsg].map(Order::name), ["spog", "posg", "opsg"]);
    }

    #[test]
    fn what_was_written_is_read() {
        for order in [Order::Spog, Order::Posg, Order::Opsg] {
            for graph in [TermId::DEFAULT_GRAPH, id(0x44)] {
                let fact = fact(graph);
                assert_eq!(read_live(order, Key::live(order, &fact).as_ref()), Ok(fact));
                let past = Key::past(order, &fact, LogIndex(9), LogIndex(7));
                assert_eq!(read_past(order, past.as_ref()), Ok((fact, LogIndex(9), LogIndex(7))));
                assert_eq!(deleted_at(past.as_ref()), Some(LogIndex(9)));
                assert!(read_live(order, past.as_ref()).is_err());
            }
        }
        for i in [0, 1, 127, 128, 300, 1 << 32, u64::MAX] {
            let (bytes, length) = write_index(LogIndex(i));
            assert_eq!(read_index(&bytes[..length]), Ok(LogIndex(i)));
            assert!(read_index(&bytes[..length - 1]).is_err());
            assert!(read_index(&[&bytes[..length], &[0]].concat()).is_err());
        }
    }
}

//! Facts that change again and again.
//!
//! The engine keeps every version of a row in memory until it writes a table, and whoever scans across such a row
//! walks them all: after 100,000 changes of one fact, 36 ms. Asking for one key finds its newest version at once. So
//! a fact that was deleted [`HOT_AT`] times lately becomes *hot*: its rows in all orders say no more than that, and
//! stay as they are, and since when it is live, or is not, lies in a row of its own, which is only ever asked for.
//!
//! ```text
//! live key    as ever                                       value: empty
//! hot key     subject(17) predicate(17) object(17) [graph(17)]   value: live(1) or gone(0), since(LEB128)
//! ```
//!
//! It changes in one row, then, instead of two or three. Once it has not changed for a whole history, it is like
//! all others again.

use super::StorageError;
use crate::view::keys::{self, Key, Order};
use beam_wire::{Fact, LogIndex};

/// Deletions of a fact, among those of others, that make it hot. A scan walks twice as many versions at most: some 20 us.
const HOT_AT: u32 = if cfg!(test) { 3 } else { 32 };
/// Facts that are counted at the same time: 64 KiB.
const COUNTED: usize = 4096;

/// The value of a live row whose fact is hot.
pub(super) const MARK: &[u8] = &[];

/// How a fact's rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heat {
    /// In every order.
    Cold,
    /// It becomes hot: in every order, and apart.
    Rising,
    /// Apart only.
    Hot,
}

/// What is known of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Since when it is live; none if it is not.
    pub live: Option<LogIndex>,
    /// Whether it is hot.
    pub hot: bool,
}

/// Reads a live row, and the hot one where that matters.
pub(super) fn found<T: AsRef<[u8]>>(
    row: Option<&[u8]>,
    hot: impl FnOnce() -> fjall::Result<Option<T>>,
) -> Result<Found, StorageError> {
    match row {
        None => Ok(Found { live: None, hot: false }),
        Some(MARK) => {
            let row = hot()?.ok_or_else(|| StorageError::Damaged("a hot fact has no row".into()))?;
            let (live, since) = read(row.as_ref())?;
            Ok(Found { live: live.then_some(since), hot: true })
        }
        Some(value) => Ok(Found { live: Some(keys::read_index(value)?), hot: false }),
    }
}

pub(super) fn key(fact: &Fact) -> Key {
    Key::live(Order::Spog, fact)
}

pub(super) fn write(live: bool, since: LogIndex) -> Vec<u8> {
    let (index, length) = keys::write_index(since);
    [&[u8::from(live)], &index[..length]].concat()
}

/// Whether the fact is live, and since when it is, or is not.
pub(super) fn read(value: &[u8]) -> Result<(bool, LogIndex), StorageError> {
    match value.split_first() {
        Some((live @ (0 | 1), since)) => Ok((*live == 1, keys::read_index(since)?)),
        _ => Err(StorageError::Damaged("the row of a hot fact".into())),
    }
}

/// Counts deletions of facts. In each place lies one fact; another that comes to it takes from its count first. So a
/// fact is found that is deleted more often than all others of its place together.
pub struct Deletions {
    places: Vec<(u64, u32)>,
}

impl Deletions {
    /// None so far.
    pub fn new() -> Deletions {
        Deletions { places: vec![(0, 0); COUNTED] }
    }

    /// A fact with this hash is deleted. Returns whether it becomes hot.
    pub fn count(&mut self, hash: u64) -> bool {
        let (fact, count) = &mut self.places[hash as usize % COUNTED];
        if *count == 0 {
            *fact = hash;
        }
        if *fact != hash {
            *count -= 1;
            return false;
        }
        *count += 1;
        let rises = *count >= HOT_AT;
        if rises {
            *count = 0;
        }
        rises
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test wants to change, views could no longer read their disks.
    #[test]
    fn golden_bytes() {
        assert_eq!(MARK, b"");
        assert_eq!(write(true, LogIndex(300)), [1, 0xac, 2]);
        assert_eq!(write(false, LogIndex(300)), [0, 0xac, 2]);
        assert_eq!(read(&[1, 0xac, 2]).unwrap(), (true, LogIndex(300)));
        assert!([&[][..], &[1], &[2, 1], &[1, 0xac]].into_iter().all(|value| read(value).is_err()));
    }

    #[test]
    fn who_is_deleted_often_becomes_hot_and_others_do_not() {
        let mut deletions = Deletions::new();
        let rises: Vec<u32> = (1..=2 * HOT_AT).filter(|_| deletions.count(7)).collect();
        assert_eq!(rises, [HOT_AT, 2 * HOT_AT]);
        // All of these share a place, and come in turn.
        let mut deletions = Deletions::new();
        assert!((0..100 * u64::from(HOT_AT)).all(|i| !deletions.count(i % 5 * COUNTED as u64)));
    }
}

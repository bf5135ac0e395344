//! One version of the disk, and what is read of it key by key.

use super::hot;
use super::{PROGRESS, Progress, StorageError, Store, count_key, read_count, read_progress};
use crate::view::keys::{self, Key, Order};
use beam_wire::message::view::KeyInterval;
use beam_wire::{Fact, LogIndex, TermId};
use bytes::Bytes;
use fjall::{Keyspace, Readable};
use std::ops::Bound;
use std::sync::Arc;

/// One version of the disk. Cheap to clone: each scan of live facts has one.
#[derive(Clone)]
pub struct Snapshot(Arc<Taken>);

struct Taken {
    inner: fjall::Snapshot,
    store: Store,
}

impl Snapshot {
    pub(super) fn of(store: &Store, inner: fjall::Snapshot) -> Snapshot {
        Snapshot(Arc::new(Taken { inner, store: store.clone() }))
    }

    /// How far the view had come.
    pub fn progress(&self) -> Result<Progress, StorageError> {
        read_progress(self.0.inner.get(&self.0.store.meta, PROGRESS)?)
    }

    /// Since when a fact is live; none if it is not.
    pub fn live(&self, order: Order, fact: &Fact) -> Result<Option<LogIndex>, StorageError> {
        let row = self.0.inner.get(&self.0.store.lanes[&order].live, Key::live(order, fact))?;
        Ok(hot::found(row.as_deref(), || self.0.inner.get(&self.0.store.hot, hot::key(fact)))?.live)
    }

    /// The live facts whose keys begin with `prefix`, in the order of their bytes.
    pub fn live_prefix(&self, order: Order, prefix: &Key) -> Scan {
        self.live_rows(order, self.0.inner.prefix(&self.0.store.lanes[&order].live, prefix))
    }

    /// The past facts whose keys begin with `prefix`, from `from` on, in the order of their bytes.
    pub fn past_from(&self, order: Order, prefix: &Key, from: &Key) -> Scan {
        let past = &self.0.store.lanes[&order].past;
        // One byte longer than any key, of the highest bytes, comes after all that begin with the prefix.
        let mut end = [0xff; keys::PAST_BYTES_MAX + 1];
        end[..prefix.as_ref().len()].copy_from_slice(prefix.as_ref());
        Scan::engine(self.0.inner.range::<&[u8], _>(past, from.as_ref()..&end[..]))
    }

    /// The live facts whose keys lie in an interval.
    pub fn live_range(&self, order: Order, keys: &KeyInterval) -> Scan {
        self.live_rows(order, self.range(&self.0.store.lanes[&order].live, keys))
    }

    /// The past versions of facts whose keys lie in an interval. No fact's key begins with that of another but
    /// for the graph, and the 0 that follows the key of a fact here comes before any graph.
    pub fn past_range(&self, order: Order, keys: &KeyInterval) -> Scan {
        Scan::engine(self.range(&self.0.store.lanes[&order].past, keys))
    }

    /// The texts whose ids lie in an interval.
    pub fn terms_range(&self, ids: &KeyInterval) -> Scan {
        Scan::engine(self.range(&self.0.store.terms, ids))
    }

    /// A piece of the newest verdict checkpoint.
    pub fn checkpoint_piece(&self, key: &[u8]) -> Result<Option<fjall::Slice>, StorageError> {
        Ok(self.0.inner.get(&self.0.store.checkpoint, key)?)
    }

    /// All pieces of the newest verdict checkpoint.
    pub fn checkpoint_pieces(&self) -> Scan {
        Scan::engine(self.range(&self.0.store.checkpoint, &KeyInterval { from: Bytes::new(), to: None }))
    }

    fn live_rows(&self, order: Order, rows: fjall::Iter) -> Scan {
        Scan { items: Items::Engine(rows), hot: Some((self.clone(), order)) }
    }

    fn range(&self, keyspace: &Keyspace, keys: &KeyInterval) -> fjall::Iter {
        let from = Bound::Included(&keys.from[..]);
        let to = keys.to.as_ref().map_or(Bound::Unbounded, |to| Bound::Excluded(&to[..]));
        self.0.inner.range::<&[u8], _>(keyspace, (from, to))
    }

    /// Past versions deleted at or before this index may be gone by now, whatever the snapshot says.
    pub fn floor(&self) -> LogIndex {
        self.0.store.floor()
    }

    /// The text of a term, as [`Batch::put_term`] was given it.
    pub fn term(&self, id: &TermId) -> Result<Option<fjall::Slice>, StorageError> {
        Ok(self.0.inner.get(&self.0.store.terms, id.0)?)
    }

    /// As [`Store::count`].
    pub fn count(&self, predicate: &TermId, named: bool) -> Result<u64, StorageError> {
        read_count(self.0.inner.get(&self.0.store.counts, count_key(predicate, named))?)
    }
}

/// A key or a value, as the engine gives it.
pub type StoredBytes = fjall::Slice;

/// Keys and values, one after another. It may outlive the call that opened it.
pub struct Scan {
    items: Items,
    /// Where the hot ones among live facts are looked up.
    hot: Option<(Snapshot, Order)>,
}

enum Items {
    Engine(fjall::Iter),
    Memory(std::vec::IntoIter<Key>),
}

impl Scan {
    /// Keys without values that are in memory already.
    pub fn of(keys: Vec<Key>) -> Scan {
        Scan { items: Items::Memory(keys.into_iter()), hot: None }
    }

    fn engine(rows: fjall::Iter) -> Scan {
        Scan { items: Items::Engine(rows), hot: None }
    }

    /// The row of a live fact, as if it were not hot; none if the fact is not live.
    fn cool(&self, row: Row) -> Result<Option<Row>, StorageError> {
        let (key, value) = row;
        let Some((snapshot, order)) = self.hot.as_ref().filter(|_| value[..] == *hot::MARK) else {
            return Ok(Some((key, value)));
        };
        let fact = keys::read_live(*order, &key)?;
        let found = hot::found(Some(&value), || snapshot.0.inner.get(&snapshot.0.store.hot, hot::key(&fact)))?;
        Ok(found.live.map(|inserted| {
            let (value, length) = keys::write_index(inserted);
            (key, value[..length].into())
        }))
    }
}

/// A key and its value.
type Row = (StoredBytes, StoredBytes);

impl Iterator for Scan {
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = match &mut self.items {
                Items::Engine(iter) => iter.next()?.into_inner().map_err(StorageError::from),
                Items::Memory(keys) => Ok((keys.next()?.as_ref().into(), StoredBytes::empty())),
            };
            if let Some(row) = row.and_then(|row| self.cool(row)).transpose() {
                return Some(row);
            }
        }
    }
}

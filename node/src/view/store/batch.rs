//! Writes that become readable, and survive a kill, as one.

use super::hot::{self, Heat};
use super::{BATCH, PROGRESS, Progress, SUMMED, SUMS, StorageError, Store, UNFINISHED, count_key, sum_key};
use crate::view::keys::{self, Key, Order};
use crate::view::sums::Tally;
use beam_wire::message::view::Served;
use beam_wire::{Fact, LogIndex, TermId, codec};

/// Writes that become one.
pub struct Batch<'a> {
    store: &'a Store,
    inner: fjall::OwnedWriteBatch,
}

impl<'a> Batch<'a> {
    pub(super) fn of(store: &'a Store, inner: fjall::OwnedWriteBatch) -> Batch<'a> {
        Batch { store, inner }
    }

    /// Since when a fact is live from now on, if it is, in one order. For one that is hot, or becomes so, comes
    /// [`Batch::put_hot`] beside this.
    pub fn put_live(&mut self, order: Order, fact: &Fact, live: Option<LogIndex>, heat: Heat) {
        let (keyspace, key) = (&self.store.lanes[&order].live, Key::live(order, fact));
        match (heat, live) {
            (Heat::Hot, _) => {}
            (Heat::Rising, _) => self.inner.insert(keyspace, key.as_ref(), hot::MARK),
            (Heat::Cold, Some(inserted)) => {
                let (value, length) = keys::write_index(inserted);
                self.inner.insert(keyspace, key.as_ref(), &value[..length]);
            }
            (Heat::Cold, None) => self.inner.remove(keyspace, key.as_ref()),
        }
    }

    /// Since when a hot fact is live, or is not any more, whatever the order.
    pub fn put_hot(&mut self, fact: &Fact, live: bool, since: LogIndex) {
        self.inner.insert(&self.store.hot, hot::key(fact).as_ref(), hot::write(live, since));
    }

    /// A fact is not hot any more: its rows in all orders are written with this.
    pub fn remove_hot(&mut self, fact: &Fact) {
        self.inner.remove(&self.store.hot, hot::key(fact).as_ref());
    }

    /// A fact was live from `inserted` until before `deleted`.
    pub fn put_past(&mut self, order: Order, fact: &Fact, deleted: LogIndex, inserted: LogIndex) {
        let key = Key::past(order, fact, deleted, inserted);
        self.inner.insert(&self.store.lanes[&order].past, key.as_ref(), []);
    }

    /// A past version is forgotten.
    pub(super) fn remove_past(&mut self, order: Order, key: &[u8]) {
        self.inner.remove(&self.store.lanes[&order].past, key);
    }

    /// The text of a term.
    pub fn put_term(&mut self, id: &TermId, text: &[u8]) {
        self.inner.insert(&self.store.terms, id.0, text);
    }

    /// The count of a predicate.
    pub fn put_count(&mut self, predicate: &TermId, named: bool, count: u64) {
        self.inner.insert(&self.store.counts, count_key(predicate, named), count.to_le_bytes());
    }

    /// How far the view has come with this batch.
    pub fn put_progress(&mut self, progress: &Progress) {
        self.inner.insert(&self.store.meta, PROGRESS, codec::encode(progress));
    }

    /// What is in a cell.
    pub fn put_tally(&mut self, cell: &Served, Tally { count, sum }: &Tally) {
        let sum: [u8; 32] = (*sum).into();
        self.inner.insert(&self.store.meta, sum_key(cell), [&sum[..], &count.to_le_bytes()].concat());
    }

    /// All cells are as of this index.
    pub fn put_summed(&mut self, applied: LogIndex) {
        self.inner.insert(&self.store.meta, SUMMED, codec::encode(&(SUMS, applied)));
    }

    /// A piece of a verdict checkpoint.
    pub fn put_checkpoint_piece(&mut self, key: &[u8], piece: &[u8]) {
        self.inner.insert(&self.store.checkpoint, key, piece);
    }

    /// Drops a piece of an older checkpoint.
    pub fn remove_checkpoint_piece(&mut self, key: &[u8]) {
        self.inner.remove(&self.store.checkpoint, key);
    }

    pub(super) fn remove_unfinished(&mut self) {
        self.inner.remove(&self.store.meta, UNFINISHED);
    }

    /// Makes all of it readable, at once, and safe from a kill.
    pub fn commit(mut self) -> Result<(), StorageError> {
        if self.inner.is_empty() {
            return Ok(());
        }
        self.inner.insert(&self.store.meta, BATCH, []);
        self.inner.commit()?;
        self.store.throttle()
    }
}

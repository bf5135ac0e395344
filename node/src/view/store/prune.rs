//! Past versions that nobody may read any more.
//!
//! They leave the disk in two ways. Compaction drops those that it comes across; but tables that nothing is written to
//! are never compacted, so a pass goes over all of them now and then, and removes the rest. The caller has made it
//! durable before, with [`Store::let_go`], that no older version is read.

use super::{StorageError, Store};
use crate::view::keys::{self, Order};
use beam_wire::LogIndex;
use beam_wire::message::view::KeyInterval;
use bytes::Bytes;
use fjall::compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What became of some rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Where to go on; none if this was the last.
    pub next: Option<Bytes>,
    /// Versions that were removed.
    pub removed: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

impl Store {
    /// Goes over so many past versions of an order, from a key on, and removes those that nobody may read any more.
    pub fn prune(&self, order: Order, from: Bytes, rows: usize) -> Result<Pruned, StorageError> {
        let (floor, mut pruned, mut batch) = (self.floor(), Pruned::default(), self.batch());
        for (number, row) in self.snapshot().past_range(order, &KeyInterval { from, to: None }).enumerate() {
            let (key, _) = row?;
            if number == rows {
                pruned.next = Some(Bytes::copy_from_slice(&key));
                break;
            }
            pruned.bytes += key.len() as u64;
            if is_dead(&key, floor) {
                batch.remove_past(order, &key);
                pruned.removed += 1;
            }
        }
        batch.commit()?;
        Ok(pruned)
    }
}

fn is_dead(key: &[u8], floor: LogIndex) -> bool {
    keys::deleted_at(key).is_some_and(|deleted| deleted <= floor)
}

/// Drops past versions that nobody may read any more, as compaction comes across them.
pub(super) struct Drops(pub(super) Arc<AtomicU64>);

impl Factory for Drops {
    fn name(&self) -> &str {
        "past"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Drops(self.0.clone()))
    }
}

impl CompactionFilter for Drops {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let floor = LogIndex(self.0.load(Ordering::Acquire));
        // A past key is written once, so nothing older can come to light where it was.
        Ok(if is_dead(item.key(), floor) { Verdict::Destroy } else { Verdict::Keep })
    }
}

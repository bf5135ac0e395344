//! The newest entries, in memory: replication and followers read them without touching the disk.
//! Entries that are not on disk yet are always here.

use super::segment::{take, weight};
use super::types::Entry;
use std::collections::VecDeque;

/// A run of entries that ends with the newest one.
#[derive(Debug)]
pub struct Tail {
    entries: VecDeque<Entry>,
    /// The index that the next entry must have. Unbound while the log was never written to.
    next: Option<u64>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    /// Nothing yet; the next entry will be at `next`, or anywhere if that is unknown.
    pub fn new(next: Option<u64>, bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), next, bytes: 0, bytes_max }
    }

    /// The lowest index held here; that of the next entry when nothing is.
    pub fn first(&self) -> Option<u64> {
        self.entries.front().map(|e| e.log_id.index).or(self.next)
    }

    /// The index that the next entry must have, if there is one that it must.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Adds the newest entry.
    pub fn push(&mut self, entry: Entry) {
        let index = entry.log_id.index;
        assert!(self.next.is_none_or(|next| next == index), "entry {index} would follow {:?}", self.next);
        self.next = Some(index + 1);
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
    }

    /// Drops the entries from an index on, which the next one will have.
    pub fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|e| e.log_id.index >= from) {
            let entry = self.entries.pop_back();
            self.bytes -= entry.as_ref().map_or(0, weight);
        }
        self.next = Some(from);
    }

    /// Drops the entries up to an index.
    pub fn purge(&mut self, upto: u64) {
        self.drop_front(|entry, _| entry.log_id.index <= upto);
        self.next = self.next.max(Some(upto + 1));
    }

    /// Drops the oldest entries, out of those up to `flushed`, until the rest is light enough.
    pub fn evict(&mut self, flushed: u64) {
        let bytes_max = self.bytes_max;
        self.drop_front(|entry, bytes| bytes > bytes_max && entry.log_id.index <= flushed);
    }

    fn drop_front(&mut self, drop: impl Fn(&Entry, usize) -> bool) {
        while self.entries.front().is_some_and(|e| drop(e, self.bytes)) {
            let entry = self.entries.pop_front();
            self.bytes -= entry.as_ref().map_or(0, weight);
        }
    }

    /// The entries held here out of `from..=to`, while they fit into `bytes_left`; with `one`, the first
    /// in any case.
    pub fn entries(&self, from: u64, to: u64, bytes_left: &mut usize, one: bool) -> Vec<Entry> {
        let Some(first) = self.first() else { return Vec::new() };
        let mut entries = Vec::new();
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        for entry in self.entries.range(skip.min(self.entries.len())..) {
            let wanted = entry.log_id.index <= to;
            if !wanted || !take(bytes_left, weight(entry), one && entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::types::{LogCommand, LogId};
    use openraft::EntryPayload;
    use openraft::vote::leader_id_adv::LeaderId;

    fn entry(index: u64, bytes: usize) -> Entry {
        let origin = beam_wire::Origin { node: "a".parse().unwrap(), boot: 0, sequence: index };
        let payload = EntryPayload::Normal(LogCommand::Data { origin, body: vec![0; bytes].into() });
        Entry { log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, index), payload }
    }

    fn read(tail: &Tail, from: u64, to: u64, mut bytes: usize) -> Vec<u64> {
        tail.entries(from, to, &mut bytes, true).iter().map(|e| e.log_id.index).collect()
    }

    /// An entry that left before it was on disk would be nowhere: a read would find a hole.
    #[test]
    fn only_what_is_on_disk_is_evicted() {
        let mut tail = Tail::new(None, 500);
        (5..15).for_each(|i| tail.push(entry(i, 100)));
        tail.evict(4);
        assert_eq!(tail.first(), Some(5));
        tail.evict(8);
        assert_eq!(tail.first(), Some(9));
        tail.evict(14);
        assert_eq!(read(&tail, 0, 99, usize::MAX), [13, 14]);
    }

    #[test]
    fn reads_are_bounded_but_always_go_on() {
        let mut tail = Tail::new(Some(0), usize::MAX);
        (0..10).for_each(|i| tail.push(entry(i, 872)));
        assert_eq!(read(&tail, 2, 8, 3000), [2, 3, 4]);
        assert_eq!(read(&tail, 2, 3, 3000), [2, 3]);
        assert_eq!(read(&tail, 9, 99, 1), [9]);
        assert_eq!(read(&tail, 10, 99, 3000), [0; 0]);
    }

    #[test]
    fn both_ends_can_be_cut() {
        let mut tail = Tail::new(Some(3), usize::MAX);
        (3..10).for_each(|i| tail.push(entry(i, 1)));
        tail.truncate(7);
        tail.purge(4);
        assert_eq!(read(&tail, 0, 99, usize::MAX), [5, 6]);
        assert_eq!(tail.next(), Some(7));
        tail.purge(20);
        assert_eq!((tail.first(), tail.next()), (Some(21), Some(21)));
        tail.push(entry(21, 1));
        assert_eq!(read(&tail, 0, 99, usize::MAX), [21]);
    }

    #[test]
    #[should_panic(expected = "would follow")]
    fn a_hole_is_our_own_mistake() {
        let mut tail = Tail::new(Some(3), usize::MAX);
        tail.push(entry(4, 1));
    }
}

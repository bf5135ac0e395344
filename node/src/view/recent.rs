//! Facts deleted lately, by time.
//!
//! A read at T needs the facts that were deleted after T. For T close to the head they are here, in
//! memory, and a fact that changed a hundred thousand times costs no more than any other. Further
//! back, look-ups walk the past on disk.

use beam_wire::{Fact, LogIndex};
use std::collections::VecDeque;

/// Deletions kept: 6 MB a space. A view takes a minute or so to delete as many at full load, and
/// readers are rarely further behind.
const KEPT_MAX: usize = 65_536;

/// Deletions that one look-up takes along: sorting them costs it about a millisecond.
const TAKEN_MAX: usize = 8_192;

/// A version of a fact that is past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// What was deleted.
    pub fact: Fact,
    /// The first index at which it was gone.
    pub deleted: LogIndex,
    /// The index at which that version came.
    pub inserted: LogIndex,
}

/// The newest deletions of one space.
#[derive(Debug)]
pub struct Recent {
    /// All deletions after this index are here.
    complete_after: LogIndex,
    deletions: VecDeque<Deleted>,
}

impl Recent {
    /// Nothing deleted after `applied` yet.
    pub fn new(applied: LogIndex) -> Recent {
        Recent { complete_after: applied, deletions: VecDeque::new() }
    }

    /// Adds deletions, ordered by index.
    pub fn add(&mut self, deletions: impl IntoIterator<Item = Deleted>) {
        for deletion in deletions {
            debug_assert!(self.deletions.back().is_none_or(|newest| newest.deleted <= deletion.deleted));
            self.deletions.push_back(deletion);
            if self.deletions.len() > KEPT_MAX {
                self.complete_after = self.deletions.pop_front().expect("it is not empty").deleted;
            }
        }
    }

    /// What was deleted after `after` and not after `until`; none if that is not known here, or too
    /// much to be worth it.
    pub fn between(&self, after: LogIndex, until: LogIndex) -> Option<Vec<Deleted>> {
        if after < self.complete_after {
            return None;
        }
        let bound = |index: LogIndex| self.deletions.partition_point(|d| d.deleted <= index);
        let (first, end) = (bound(after), bound(until));
        (end.saturating_sub(first) <= TAKEN_MAX).then(|| self.deletions.range(first..end.max(first)).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::TermId;

    fn deletion(index: u64) -> Deleted {
        let id = TermId([1; 17]);
        let fact = Fact { subject: id, predicate: id, object: id, graph: id };
        Deleted { fact, deleted: LogIndex(index), inserted: LogIndex(index - 1) }
    }

    #[test]
    fn only_what_is_known_completely_is_told() {
        let mut recent = Recent::new(LogIndex(5));
        recent.add([7, 7, 9].map(deletion));
        let count = |recent: &Recent, after, until| recent.between(LogIndex(after), LogIndex(until)).map(|d| d.len());
        assert_eq!(count(&recent, 4, 9), None);
        assert_eq!(count(&recent, 5, 9), Some(3));
        assert_eq!(count(&recent, 7, 9), Some(1));
        assert_eq!(count(&recent, 5, 8), Some(2));
        assert_eq!(count(&recent, 9, 9), Some(0));
        assert_eq!(count(&recent, 12, 9), Some(0));

        recent.add((10..10 + KEPT_MAX as u64).map(deletion));
        assert_eq!(count(&recent, 8, 20), None, "index 9 was dropped");
        assert_eq!(count(&recent, 9, 20), Some(11));
        assert_eq!(count(&recent, 9, 100_000), None, "too many");
    }
}

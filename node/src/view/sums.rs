//! Hashes of what a view holds, kept as entries are applied: by them views are compared with one another, and with
//! what lies on their disks.
//!
//! Each range that the view holds is cut into *cells*, wherever a cut of all points into up to [`CUTS_MAX`] equal
//! parts does: so views of different cuts have the same cells. A cell's sum is that of its live facts, each with the
//! index of its insertion, or of its texts; one more is that of all that verdicts depend on. The sums are as of the
//! newest index. What recent entries changed of them is kept, too, so that they can be told as of an index a little
//! further back, which all views have passed.

use super::apply::Held;
use beam_wire::message::view::{RangeSum, Served};
use beam_wire::{Fact, LogIndex, Point, Range, Space, Sum, TermId};
use std::collections::{BTreeSet, VecDeque};

/// Cuts into more parts, or at other places, have cells of their own at their ends.
pub const CUTS_MAX: u32 = 32;
/// Changes that are kept, in 56 bytes each: those of some seconds while whole files are loaded, of hours otherwise.
const KEPT_MAX: usize = if cfg!(test) { 300 } else { 64 << 10 };

/// A live fact, as a member of a sum.
pub fn of_fact(fact: &Fact, inserted: LogIndex) -> Sum {
    Sum::of(Member::of_fact(1, fact, &[inserted]).bytes())
}

/// A past version of a fact, as a member of a sum.
pub fn of_past(fact: &Fact, inserted: LogIndex, deleted: LogIndex) -> Sum {
    Sum::of(Member::of_fact(2, fact, &[inserted, deleted]).bytes())
}

/// A text, as a member of a sum.
pub fn of_text(id: &TermId, text: &[u8]) -> Sum {
    Sum::of(&[&[3], &id.0[..], text].concat())
}

/// The bytes of a fact, on the stack: a live one in the default graph is one block of the hash.
struct Member {
    bytes: [u8; 1 + 4 * 17 + 2 * 8],
    length: usize,
}

impl Member {
    fn of_fact(kind: u8, fact: &Fact, indexes: &[LogIndex]) -> Member {
        let mut member = Member { bytes: [0; 1 + 4 * 17 + 2 * 8], length: 0 };
        member.push(&[kind]);
        [fact.subject, fact.predicate, fact.object].iter().for_each(|id| member.push(&id.0));
        if fact.graph != TermId::DEFAULT_GRAPH {
            member.push(&fact.graph.0);
        }
        indexes.iter().for_each(|index| member.push(&index.0.to_be_bytes()));
        member
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// How the ranges of a view are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    served: Vec<Served>,
    /// Where the cells of each space begin in `served`.
    spaces: [usize; 4],
}

/// What is known of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Facts or texts in it.
    pub count: u64,
    /// Their sum.
    pub sum: Sum,
}

impl Cells {
    /// Of all that a view holds.
    pub fn of(held: &Held) -> Cells {
        let starts: BTreeSet<u64> =
            (1..=CUTS_MAX).flat_map(|n| (0..n).map(move |i| Range::partition(i, n).first.0)).collect();
        let (mut served, mut spaces) = (Vec::new(), [0; 4]);
        for space in Space::ALL {
            for range in held.ranges(space) {
                let mut first = range.first;
                for start in starts.range(range.first.0..=range.last.0).filter(|start| **start > range.first.0) {
                    served.push(Served { space, range: Range { first, last: Point(start - 1) } });
                    first = Point(*start);
                }
                served.push(Served { space, range: Range { first, last: range.last } });
            }
            spaces[space as usize + 1] = served.len();
        }
        Cells { served, spaces }
    }

    /// The cells, in the order of their spaces and points.
    pub fn served(&self) -> &[Served] {
        &self.served
    }

    /// The number of the cell that a point lies in. The view holds the point.
    pub fn number(&self, space: Space, point: Point) -> usize {
        let begin = self.spaces[space as usize];
        let of_space = &self.served[begin..self.spaces[space as usize + 1]];
        begin + of_space.partition_point(|served| served.range.first <= point) - 1
    }

    /// Whether the view holds a point.
    pub fn holds(&self, space: Space, point: Point) -> bool {
        let of_space = &self.served[self.of_space(space)];
        of_space
            .partition_point(|served| served.range.first <= point)
            .checked_sub(1)
            .is_some_and(|i| of_space[i].range.contains(point))
    }

    /// The numbers of a space's cells.
    pub fn of_space(&self, space: Space) -> std::ops::Range<usize> {
        self.spaces[space as usize]..self.spaces[space as usize + 1]
    }

    /// The number that stands for the state of the verdicts.
    pub fn verdicts(&self) -> usize {
        self.served.len()
    }

    /// Nothing in any cell.
    pub fn empty(&self) -> Vec<Tally> {
        vec![Tally::default(); self.served.len()]
    }

    /// Sums as they travel.
    pub fn told(&self, tallies: &[Tally]) -> Vec<RangeSum> {
        let each = self.served.iter().zip(tallies);
        each.map(|(served, Tally { count, sum })| RangeSum { served: *served, count: *count, sum: *sum }).collect()
    }
}

/// What an entry changed of a cell, or of the verdicts' state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The entry.
    pub index: LogIndex,
    /// The cell's number.
    pub cell: u32,
    /// How many more there are.
    pub count: i32,
    /// What is to be added.
    pub sum: Sum,
}

/// What an entry adds and takes away.
#[derive(Default)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// One more.
    pub fn add(&mut self, index: LogIndex, cell: usize, sum: Sum) {
        self.0.push(Change { index, cell: cell as u32, count: 1, sum });
    }

    /// One less.
    pub fn take(&mut self, index: LogIndex, cell: usize, sum: Sum) {
        let mut less = Sum::default();
        less -= sum;
        self.0.push(Change { index, cell: cell as u32, count: -1, sum: less });
    }

    /// The state of the verdicts became another.
    pub fn verdicts(&mut self, index: LogIndex, cell: usize, before: Sum, after: Sum) {
        if before != after {
            let mut sum = after;
            sum -= before;
            self.0.push(Change { index, cell: cell as u32, count: 0, sum });
        }
    }

    /// In the order of their indexes, one for each index and cell.
    fn merged(self) -> Vec<Change> {
        let mut changes = self.0;
        changes.sort_unstable_by_key(|change| (change.index, change.cell));
        changes.dedup_by(|later, kept| {
            let same = (later.index, later.cell) == (kept.index, kept.cell);
            if same {
                kept.count += later.count;
                kept.sum += later.sum;
            }
            same
        });
        changes
    }
}

/// The sums of a view.
pub struct Sums {
    cells: Cells,
    tallies: Vec<Tally>,
    verdicts: Sum,
    /// Up to here facts and texts are in.
    applied: LogIndex,
    /// Up to here the verdicts are in. Less than `applied` while a restarted view catches up.
    judged: LogIndex,
    /// Recent changes, oldest first.
    kept: VecDeque<Change>,
    /// All changes after this index are kept.
    since: LogIndex,
}

/// The sums as of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// Of each cell.
    pub tallies: Vec<Tally>,
    /// Of the verdicts' state.
    pub verdicts: Sum,
}

/// Why sums cannot be told as of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The view has not come so far.
    Ahead,
    /// They can be told from this index on.
    Before(LogIndex),
}

impl Sums {
    /// As they were found when the view was opened.
    pub fn new(cells: Cells, tallies: Vec<Tally>, applied: LogIndex, verdicts: Sum, judged: LogIndex) -> Sums {
        let since = applied.max(judged);
        Sums { cells, tallies, verdicts, applied, judged, kept: VecDeque::new(), since }
    }

    /// How they are cut.
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    /// The sums as of the newest index.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// Takes in what entries up to this one have changed. Returns the cells that are others now.
    pub fn add(&mut self, changes: Changes, applied: LogIndex, judged: LogIndex) -> BTreeSet<usize> {
        let mut changed = BTreeSet::new();
        for change in changes.merged() {
            match self.tallies.get_mut(change.cell as usize) {
                None => self.verdicts += change.sum,
                Some(tally) => {
                    tally.count = tally.count.wrapping_add_signed(change.count.into());
                    tally.sum += change.sum;
                    changed.insert(change.cell as usize);
                }
            }
            if change.index > self.since {
                self.kept.push_back(change);
            }
        }
        while self.kept.len() > KEPT_MAX {
            let oldest = self.kept.pop_front().expect("there are many");
            self.since = oldest.index;
        }
        (self.applied, self.judged) = (applied, judged);
        changed
    }

    /// The sums as they were at an index.
    pub fn as_of(&self, index: LogIndex) -> Result<AsOf, Missed> {
        if index > self.applied.min(self.judged) {
            return Err(Missed::Ahead);
        }
        if index < self.since {
            return Err(Missed::Before(self.since));
        }
        let mut then = AsOf { tallies: self.tallies.clone(), verdicts: self.verdicts };
        for change in self.kept.iter().rev().take_while(|change| change.index > index) {
            match then.tallies.get_mut(change.cell as usize) {
                None => then.verdicts -= change.sum,
                Some(tally) => {
                    tally.count = tally.count.wrapping_add_signed(-i64::from(change.count));
                    tally.sum -= change.sum;
                }
            }
        }
        Ok(then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(serves: &[(Space, Range)]) -> Cells {
        let serves: Vec<Served> = serves.iter().map(|(space, range)| Served { space: *space, range: *range }).collect();
        Cells::of(&Held::new(&serves))
    }

    /// Whatever the cut into up to 32 parts, its views' cells are those of a view that holds everything.
    #[test]
    fn views_of_different_cuts_have_the_same_cells() {
        let whole = cells(&[(Space::Object, Range::ALL)]);
        for n in 1..=CUTS_MAX {
            let parts = (0..n).flat_map(|i| cells(&[(Space::Object, Range::partition(i, n))]).served);
            assert_eq!(parts.collect::<Vec<_>>(), whole.served, "{n} parts");
        }
    }

    #[test]
    fn every_point_lies_in_its_cell() {
        let odd = Range { first: Point(5), last: Point(u64::MAX / 3) };
        let cells = cells(&[(Space::Subject, Range::partition(1, 3)), (Space::Subject, odd), (Space::Term, odd)]);
        assert_eq!(cells.of_space(Space::Object).len(), 0);
        for (number, served) in cells.served().iter().enumerate() {
            let Range { first, last } = served.range;
            for point in [first, last, Point(first.0 + (last.0 - first.0) / 2)] {
                assert_eq!(cells.number(served.space, point), number);
            }
        }
    }

    #[test]
    fn sums_are_told_as_of_recent_indexes_only() {
        let cells = cells(&[(Space::Term, Range::partition(0, 32))]);
        let (count, zero) = (cells.served().len(), Sum::default());
        let of = |i: u64| Sum::of_pair(i, i);
        let mut sums = Sums::new(cells.clone(), cells.empty(), LogIndex(10), of(10), LogIndex(7));
        let mut then = vec![(LogIndex(10), cells.empty(), of(10))];
        // A restarted view judges again first.
        let judged = |index: LogIndex, before: u64, after: u64| {
            let mut changes = Changes::default();
            changes.verdicts(index, cells.verdicts(), of(before), of(after));
            changes
        };
        assert_eq!(sums.as_of(LogIndex(10)), Err(Missed::Ahead));
        assert!(sums.add(judged(LogIndex(9), 10, 12), LogIndex(10), LogIndex(10)).is_empty());
        then[0].2 = of(12);
        for index in (11..11 + 2 * KEPT_MAX as u64).map(LogIndex) {
            let mut changes = judged(index, index.0 + 1, index.0 + 2);
            changes.add(index, index.0 as usize % count, of(index.0));
            if index.0 % 3 == 0 {
                changes.take(index, index.0 as usize % count, of(index.0));
            }
            sums.add(changes, index, index);
            then.push((index, sums.tallies().to_vec(), of(index.0 + 2)));
        }
        let last = then.last().unwrap().0;
        assert_eq!(sums.as_of(last.next()), Err(Missed::Ahead));
        assert_eq!(sums.as_of(LogIndex(10)), Err(Missed::Before(sums.since)));
        assert!(sums.since.0 > 10 && last.0 - sums.since.0 > KEPT_MAX as u64 / 3);
        for (index, tallies, verdicts) in then {
            match sums.as_of(index) {
                Ok(found) => assert_eq!(found, AsOf { tallies, verdicts }, "at {index}"),
                Err(missed) => assert_eq!((missed, index < sums.since), (Missed::Before(sums.since), true)),
            }
        }
        assert_ne!(sums.verdicts, zero);
    }
}

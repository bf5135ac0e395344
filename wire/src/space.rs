//! How the data is cut: spaces, points and ranges.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A way to cut the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Space {
    /// A fact lies at its subject.
    Subject,
    /// A fact lies at its object.
    Object,
    /// The text of a term lies at the term.
    Term,
}

impl Space {
    /// All spaces, in the order of their numbers.
    pub const ALL: [Space; 3] = [Space::Subject, Space::Object, Space::Term];

    /// The word that topology and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Space::Subject => "subject",
            Space::Object => "object",
            Space::Term => "term",
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a term, or a fact by one of its terms, lies in a space: a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point(pub u64);

/// All points from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Range {
    /// The lowest point.
    pub first: Point,
    /// The highest point.
    pub last: Point,
}

impl Range {
    /// Every point.
    pub const ALL: Range = Range { first: Point(0), last: Point(u64::MAX) };

    /// The `i`-th of `n` equal parts of all points, counted from 0. The parts of one `n` cover every
    /// point once.
    ///
    /// # Panics
    /// If `i >= n`.
    pub fn partition(i: u32, n: u32) -> Range {
        assert!(i < n, "partition {i} of {n}");
        let start = |i: u32| ((u128::from(i) << 64) / u128::from(n)) as u64;
        let last = if i + 1 == n { u64::MAX } else { start(i + 1) - 1 };
        Range { first: Point(start(i)), last: Point(last) }
    }

    /// Whether `point` lies in the range.
    pub fn contains(&self, point: Point) -> bool {
        self.first <= point && point <= self.last
    }

    /// The points of both, if there are any.
    pub fn intersect(&self, other: &Range) -> Option<Range> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Range { first, last })
    }
}

/// All points, ascending, cut where those change who hold them.
pub fn overlay<T: Clone + PartialEq>(held: &[(Range, T)]) -> Vec<(Range, Vec<T>)> {
    let begins = held.iter().map(|(range, _)| range.first);
    let after = held.iter().filter_map(|(range, _)| range.last.0.checked_add(1).map(Point));
    let starts: Vec<Point> =
        begins.chain(after).chain([Range::ALL.first]).collect::<BTreeSet<_>>().into_iter().collect();
    let mut pieces: Vec<(Range, Vec<T>)> = Vec::new();
    for (i, &first) in starts.iter().enumerate() {
        let last = starts.get(i + 1).map_or(Range::ALL.last, |next| Point(next.0 - 1));
        let holding = held.iter().filter(|(range, _)| range.contains(first));
        let holders: Vec<T> = holding.map(|(_, holder)| holder.clone()).collect();
        match pieces.last_mut() {
            Some((range, before)) if *before == holders => range.last = last,
            _ => pieces.push((Range { first, last }, holders)),
        }
    }
    pieces
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}..={:016x}", self.first.0, self.last.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_laid_over_one_another() {
        let range = |first, last| Range { first: Point(first), last: Point(last) };
        assert_eq!(overlay::<u8>(&[]), [(Range::ALL, vec![])]);
        let held = [(range(0, 99), 'a'), (range(50, 149), 'b'), (range(100, 149), 'a'), (range(200, u64::MAX), 'c')];
        let expected = [
            (range(0, 49), vec!['a']),
            (range(50, 99), vec!['a', 'b']),
            (range(100, 149), vec!['b', 'a']),
            (range(150, 199), vec![]),
            (range(200, u64::MAX), vec!['c']),
        ];
        assert_eq!(overlay(&held), expected);
        let twice = [(range(0, 99), 'a'), (range(100, u64::MAX), 'a')];
        assert_eq!(overlay(&twice), [(Range::ALL, vec!['a'])], "what nobody sees is no cut");
    }

    #[test]
    fn partitions_cover_every_point_once() {
        for n in [1, 2, 3, 4, 5, 7, 64] {
            let parts: Vec<_> = (0..n).map(|i| Range::partition(i, n)).collect();
            assert_eq!(parts[0].first, Point(0));
            assert_eq!(parts.last().unwrap().last, Point(u64::MAX));
            for pair in parts.windows(2) {
                assert_eq!(pair[0].last.0 + 1, pair[1].first.0);
                assert_eq!(pair[0].intersect(&pair[1]), None);
            }
        }
    }
}

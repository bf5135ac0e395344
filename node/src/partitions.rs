//! What a view holds, in words: for people, and for `topology.toml`.

use beam_wire::message::view::Served;
use beam_wire::{Range, Space};
use std::collections::{BTreeMap, BTreeSet};

/// Cuts of more partitions are told by their ranges.
const PARTITIONS_TOLD_MAX: u32 = 4096;

/// What is held, in short: `1/5, 4/5`; with the names of the spaces where it is not the same in all of them.
pub fn spelled(serves: &[Served]) -> String {
    let by_space = by_space(serves);
    let mut by_ranges: BTreeMap<&BTreeSet<Range>, Vec<&str>> = BTreeMap::new();
    for (space, ranges) in &by_space {
        by_ranges.entry(ranges).or_default().push(space.as_str());
    }
    let told = by_ranges.into_iter().map(|(ranges, spaces)| match spaces.len() == Space::ALL.len() {
        true => parts(ranges).join(", "),
        false => format!("{} {}", spaces.join("+"), parts(ranges).join(", ")),
    });
    told.collect::<Vec<_>>().join("; ")
}

/// The lines of `topology.toml` that say this; none if it cannot.
pub fn lines(serves: &[Served]) -> Option<String> {
    let by_space = by_space(serves);
    let ranges = by_space.values().next()?;
    if by_space.values().any(|other| other != ranges) || cut(ranges).is_none() {
        return None;
    }
    let quoted: Vec<String> = parts(ranges).iter().map(|part| format!("{part:?}")).collect();
    let mut lines = match &quoted[..] {
        [one] => format!("partition = {one}"),
        more => format!("partition = [{}]", more.join(", ")),
    };
    if by_space.len() < Space::ALL.len() {
        let spaces: Vec<String> = by_space.keys().map(|space| format!("{:?}", space.as_str())).collect();
        lines += &format!("\nspaces = [{}]", spaces.join(", "));
    }
    Some(lines)
}

/// Whether two nodes' ranges differ in any point of any space, however they are cut.
pub fn holds_otherwise(held: &[Served], said: &[Served]) -> bool {
    let merged = |serves: &[Served]| {
        let mut merged: Vec<Served> = Vec::new();
        let mut serves = serves.to_vec();
        serves.sort_unstable();
        for served in serves {
            match merged.last_mut() {
                Some(last)
                    if last.space == served.space && last.range.last.0.saturating_add(1) >= served.range.first.0 =>
                {
                    last.range.last = last.range.last.max(served.range.last);
                }
                _ => merged.push(served),
            }
        }
        merged
    };
    merged(held) != merged(said)
}

/// A range in few words: `2/4` where it is such a part.
pub fn range_name(range: &Range) -> String {
    parts(&BTreeSet::from([*range])).concat()
}

/// Whether a range is one of equal parts.
pub fn is_partition(range: &Range) -> bool {
    cut(&BTreeSet::from([*range])).is_some()
}

/// Which n-th of all points a range is, from 0; none if it is not one.
pub fn partition_of(range: Range, n: u32) -> Option<u32> {
    let near = ((u128::from(range.first.0) * u128::from(n)) >> 64) as u32;
    (near..=near + 1).find(|i| *i < n && Range::partition(*i, n) == range)
}

fn by_space(serves: &[Served]) -> BTreeMap<Space, BTreeSet<Range>> {
    let mut by_space: BTreeMap<Space, BTreeSet<Range>> = BTreeMap::new();
    for served in serves {
        by_space.entry(served.space).or_default().insert(served.range);
    }
    by_space
}

/// The smallest number of partitions of which all ranges are some.
fn cut(ranges: &BTreeSet<Range>) -> Option<u32> {
    (1..=PARTITIONS_TOLD_MAX).find(|n| ranges.iter().all(|range| partition_of(*range, *n).is_some()))
}

fn parts(ranges: &BTreeSet<Range>) -> Vec<String> {
    let cut = cut(ranges);
    let part = |range: &Range| match cut.and_then(|n| Some((partition_of(*range, n)?, n))) {
        Some((i, n)) => format!("{}/{n}", i + 1),
        None => range.to_string(),
    };
    ranges.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::Point;

    fn serves(spaces: &[Space], parts: &[(u32, u32)]) -> Vec<Served> {
        let of = |space: &Space| {
            let space = *space;
            parts.iter().map(move |(i, n)| Served { space, range: Range::partition(*i, *n) })
        };
        spaces.iter().flat_map(of).collect()
    }

    #[test]
    fn what_is_held_is_told_in_short_and_for_the_topology() {
        let two = serves(&Space::ALL, &[(3, 5), (0, 5)]);
        assert_eq!(spelled(&two), "1/5, 4/5");
        assert_eq!(lines(&two).unwrap(), "partition = [\"1/5\", \"4/5\"]");
        assert_eq!(lines(&serves(&Space::ALL, &[(1, 2)])).unwrap(), "partition = \"2/2\"");
        let subjects = serves(&[Space::Subject, Space::Term], &[(0, 2)]);
        assert_eq!(spelled(&subjects), "subject+term 1/2");
        assert_eq!(lines(&subjects).unwrap(), "partition = \"1/2\"\nspaces = [\"subject\", \"term\"]");
        let free = vec![Served { space: Space::Object, range: Range { first: Point(1), last: Point(7) } }];
        assert_eq!(spelled(&free), "object 0000000000000001..=0000000000000007");
        assert_eq!(lines(&free), None);
    }

    #[test]
    fn the_same_points_cut_otherwise_are_the_same() {
        let half = serves(&Space::ALL, &[(0, 2)]);
        assert!(!holds_otherwise(&half, &serves(&Space::ALL, &[(1, 4), (0, 4)])));
        assert!(holds_otherwise(&half, &serves(&Space::ALL, &[(0, 4)])));
        assert!(holds_otherwise(&half, &serves(&[Space::Subject], &[(0, 2)])));
        assert!(!holds_otherwise(&serves(&Space::ALL, &[(1, 2)]), &serves(&Space::ALL, &[(2, 4), (3, 4)])));
    }
}

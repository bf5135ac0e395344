//! Which views to ask, so that every wanted point is asked for exactly once, whatever cuts are alive.
//! Plain data in, plain data out.

use crate::api::choose::{Candidate, late_after, rivals};
use beam_wire::{Name, Point, Range};
use std::time::Duration;

/// A view, and one range that it offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Who offers.
    pub candidate: Candidate,
    /// What it holds.
    pub range: Range,
}

/// One batch for one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The view to ask.
    pub view: Name,
    /// From the first to the last wanted point that it is asked for. The view holds all of it.
    pub range: Range,
    /// The view has not applied the wanted version yet: it will wait.
    pub behind: bool,
    /// The view was put out, and nobody else can answer.
    pub out: bool,
    /// Views that could have been chosen instead.
    pub rivals: Vec<Name>,
    /// The view is late when nothing was heard of it for so long.
    pub late_after: Duration,
}

/// No offer holds these points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub Range);

/// Covers `wanted` (ascending, disjoint) by the offers. From the lowest wanted point that is not covered
/// yet, `choose` picks among the offers that hold it and reach at least half as far as the best one, so that
/// neither many small requests arise where few would do, nor the same view is always asked because it holds
/// a little more.
pub fn cover(
    wanted: &[Range],
    offers: &[Offer],
    choose: &mut dyn FnMut(&[&Candidate]) -> usize,
) -> Result<Vec<Part>, Missing> {
    let mut parts = Vec::new();
    let Some(end) = wanted.last().map(|r| r.last) else { return Ok(parts) };
    let mut open = wanted.iter().copied().peekable();
    let mut from = open.peek().map(|r| r.first);
    while let Some(first) = from {
        let holding: Vec<&Offer> = offers.iter().filter(|o| o.range.contains(first)).collect();
        let reach = |o: &Offer| o.range.last.min(end).0 - first.0;
        let Some(best) = holding.iter().map(|o| reach(o)).max() else {
            return Err(Missing(missing_from(first, wanted, offers)));
        };
        let far: Vec<&Offer> = holding.into_iter().filter(|o| reach(o) >= best / 2).collect();
        let candidates: Vec<&Candidate> = far.iter().map(|o| &o.candidate).collect();
        let number = choose(&candidates);
        let (chosen, late_after, rivals) = (far[number], late_after(number, &candidates), rivals(number, &candidates));
        let mut last = first;
        from = None;
        while let Some(range) = open.peek() {
            if range.first > chosen.range.last {
                from = Some(range.first);
                break;
            }
            last = range.last.min(chosen.range.last);
            if range.last > chosen.range.last {
                from = Some(Point(chosen.range.last.0 + 1));
                break;
            }
            open.next();
        }
        let Candidate { view, behind, out, .. } = chosen.candidate.clone();
        parts.push(Part { view, range: Range { first, last }, behind: behind > 0, out, rivals, late_after });
    }
    Ok(parts)
}

/// The uncovered points from `first` on, up to where the wanted range ends or an offer begins.
fn missing_from(first: Point, wanted: &[Range], offers: &[Offer]) -> Range {
    let end = wanted.iter().find(|r| r.contains(first)).map_or(first, |r| r.last);
    let next = offers.iter().map(|o| o.range.first).filter(|p| *p > first && *p <= end).min();
    Range { first, last: next.map_or(end, |p| Point(p.0 - 1)) }
}

/// Points that may repeat and be in any order, as ascending ranges of one point each.
pub fn ranges_of(points: impl IntoIterator<Item = Point>) -> Vec<Range> {
    let mut points: Vec<Point> = points.into_iter().collect();
    points.sort_unstable();
    points.dedup();
    points.into_iter().map(|p| Range { first: p, last: p }).collect()
}

/// The parts of `wanted` (ascending, disjoint) that lie in `range`.
pub fn within(wanted: &[Range], range: Range) -> Vec<Range> {
    let from = wanted.partition_point(|r| r.last < range.first);
    wanted[from..].iter().map_while(|r| r.intersect(&range)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(view: usize, first: u64, last: u64) -> Offer {
        let candidate = Candidate::plain(Name::new(format!("v{view}")).unwrap());
        Offer { candidate, range: Range { first: Point(first), last: Point(last) } }
    }

    fn range(first: u64, last: u64) -> Range {
        Range { first: Point(first), last: Point(last) }
    }

    #[test]
    fn two_cuts_at_once_cover_everything_once() {
        let halves = [(0, 0, 2), (1, 1, 2)];
        let thirds = [(2, 0, 3), (3, 1, 3), (4, 2, 3)];
        let offers: Vec<Offer> = halves
            .into_iter()
            .chain(thirds)
            .map(|(v, i, n)| offer(v, Range::partition(i, n).first.0, Range::partition(i, n).last.0))
            .collect();
        let mut longest = |c: &[&Candidate]| c.len() - 1;
        let parts = cover(&[Range::ALL], &offers, &mut longest).unwrap();
        let asked: Vec<&str> = parts.iter().map(|p| p.view.as_str()).collect();
        assert_eq!(asked, ["v2", "v3", "v4"], "a third reaches more than half as far as a half");
        assert_eq!(parts[0].range, Range::partition(0, 3));
        assert_eq!(parts[2].range, Range::partition(2, 3));
    }

    #[test]
    fn what_nobody_holds_is_named() {
        let mut first = |_: &[&Candidate]| 0;
        let offers = [offer(0, 0, 99), offer(1, 200, 299)];
        assert_eq!(cover(&[range(50, 250)], &offers, &mut first), Err(Missing(range(100, 199))));
        assert_eq!(cover(&[range(50, 60), range(300, 310)], &offers, &mut first), Err(Missing(range(300, 310))));
        assert_eq!(cover(&[range(5, 5)], &[], &mut first), Err(Missing(range(5, 5))));
        assert_eq!(cover(&[], &[], &mut first), Ok(vec![]));
    }

    /// A cut of 0..=255 (scaled to all points) into consecutive ranges.
    fn cut() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::btree_set(1u64..256, 0..6).prop_map(|starts| {
            let starts: Vec<u64> = std::iter::once(0).chain(starts).collect();
            let ends = starts.iter().skip(1).map(|s| s - 1).chain([255]);
            starts.iter().copied().zip(ends).collect()
        })
    }

    /// Ascending disjoint ranges in 0..=255.
    fn wanted() -> impl Strategy<Value = Vec<Range>> {
        proptest::collection::btree_set(0u64..256, 0..20).prop_map(|bounds| {
            let bounds: Vec<u64> = bounds.into_iter().collect();
            bounds.chunks(2).map(|pair| range(pair[0], *pair.last().unwrap())).collect()
        })
    }

    proptest! {
        /// Every wanted point is in exactly one part, and the part's view holds all of the part's range; or
        /// a range is named, wanted, that nobody holds.
        #[test]
        fn every_wanted_point_is_asked_for_once(
            cuts in proptest::collection::vec(cut(), 1..4),
            alive in proptest::collection::vec(proptest::bool::weighted(0.8), 24),
            wanted in wanted(),
            choices in proptest::collection::vec(0usize..100, 64),
        ) {
            let all: Vec<Offer> =
                cuts.concat().into_iter().enumerate().map(|(v, (first, last))| offer(v, first, last)).collect();
            let offers: Vec<Offer> =
                all.into_iter().zip(&alive).filter(|(_, alive)| **alive).map(|(offer, _)| offer).collect();
            let mut choices = choices.into_iter().cycle();
            let mut choose = |c: &[&Candidate]| choices.next().unwrap() % c.len();
            let held = |point: u64| offers.iter().any(|o| o.range.contains(Point(point)));
            match cover(&wanted, &offers, &mut choose) {
                Ok(parts) => {
                    for point in (0..256).map(Point) {
                        let is_wanted = wanted.iter().any(|r| r.contains(point));
                        let asked = parts.iter().filter(|p| p.range.contains(point)).count();
                        prop_assert!(asked <= 1);
                        prop_assert!(!is_wanted || asked == 1, "{point:?} is wanted and not asked for");
                    }
                    for part in parts {
                        let holds = |o: &Offer| o.candidate.view == part.view && o.range.intersect(&part.range) == Some(part.range);
                        prop_assert!(offers.iter().any(holds));
                        let wanted = within(&wanted, part.range);
                        prop_assert_eq!(wanted.first().map(|r| r.first), Some(part.range.first));
                        prop_assert_eq!(wanted.last().map(|r| r.last), Some(part.range.last));
                    }
                }
                Err(Missing(range)) => {
                    for point in range.first.0..=range.last.0 {
                        prop_assert!(!held(point) && wanted.iter().any(|r| r.contains(Point(point))));
                    }
                }
            }
        }
    }
}

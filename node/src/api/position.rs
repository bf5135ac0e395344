//! Which version a reader gets. Plain data in, plain data out.

use crate::remote::view::View;
use beam_wire::space::overlay;
use beam_wire::{Epoch, LogIndex, Point, Space, Version};

/// No view that answers holds this point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no view answers for {point} of the {space} space", point = format_args!("{:016x}", .point.0))]
pub struct Uncovered {
    /// The space.
    pub space: Space,
    /// The lowest such point.
    pub point: Point,
}

/// The epoch of the cluster, as far as its views know: the newest.
pub fn epoch<'a>(views: impl IntoIterator<Item = &'a View>) -> Option<Epoch> {
    views.into_iter().filter_map(|v| v.status.epoch).max()
}

/// The newest version that the given views cover: at every point of every space one of them has applied it.
pub fn covered<'a>(views: impl IntoIterator<Item = &'a View> + Clone) -> Result<Version, Uncovered> {
    let nowhere = Uncovered { space: Space::Subject, point: Point(0) };
    let epoch = epoch(views.clone()).ok_or(nowhere)?;
    let answering = views.into_iter().filter(|v| v.status.epoch == Some(epoch) && v.status.state.answers());
    let held: Vec<_> =
        answering.flat_map(|v| v.status.serves.iter().map(|served| (served, v.status.applied))).collect();
    let mut index = LogIndex(u64::MAX);
    for space in Space::ALL {
        let held = held.iter().filter(|(served, _)| served.space == space);
        for (range, applied) in overlay(&held.map(|(served, applied)| (served.range, *applied)).collect::<Vec<_>>()) {
            let newest = applied.into_iter().max().ok_or(Uncovered { space, point: range.first })?;
            index = index.min(newest);
        }
    }
    Ok(Version { epoch, index })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::view::tests::view;
    use beam_wire::Range;
    use beam_wire::message::view::ViewState;

    const ALL: &[(Space, Range)] =
        &[(Space::Subject, Range::ALL), (Space::Object, Range::ALL), (Space::Term, Range::ALL)];

    fn part(i: u32, n: u32) -> Vec<(Space, Range)> {
        Space::ALL.map(|s| (s, Range::partition(i, n))).to_vec()
    }

    #[test]
    fn the_slowest_place_has_its_quickest_view() {
        let views = [
            view("a", &part(0, 2), 90),
            view("b", &part(0, 2), 100),
            view("c", &part(1, 2), 95),
            view("d", &part(1, 2), 80),
        ];
        assert_eq!(covered(&views).unwrap().index, LogIndex(95));
        let third = view("e", &part(2, 3), 97);
        let with_third: Vec<&View> = views.iter().chain([&third]).collect();
        assert_eq!(covered(with_third).unwrap().index, LogIndex(95), "from 1/2 to 2/3 it is still c alone");
    }

    #[test]
    fn a_hole_is_named() {
        let views = [view("a", &part(0, 2), 90), view("b", &part(2, 3), 90)];
        let hole = Uncovered { space: Space::Subject, point: Range::partition(1, 2).first };
        assert_eq!(covered(&views), Err(hole));
        assert!(hole.to_string().contains("8000000000000000 of the subject space"));
        let without_terms = [view("a", &ALL[..2], 90)];
        assert_eq!(covered(&without_terms), Err(Uncovered { space: Space::Term, point: Point(0) }));
        assert!(covered(&[]).is_err());
    }

    #[test]
    fn booting_views_and_older_epochs_do_not_count() {
        let old = view("a", ALL, 500);
        let mut new = view("b", ALL, 7);
        new.set(|s| s.epoch = Some(Epoch(2)));
        assert_eq!(covered([&old, &new]), Ok(Version { epoch: Epoch(2), index: LogIndex(7) }));
        let mut booting = view("c", ALL, 9);
        for state in [ViewState::Booting, ViewState::Damaged] {
            booting.set(|s| s.state = state);
            assert_eq!(covered([&old, &booting]).unwrap().index, LogIndex(500));
        }
    }
}

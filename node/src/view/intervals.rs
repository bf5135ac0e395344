//! Sets of keys as intervals: what a copy still lacks.

use beam_wire::message::view::KeyInterval;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Disjoint intervals, ascending, none of them empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intervals(Vec<KeyInterval>);

impl Intervals {
    /// Every key.
    pub fn all() -> Intervals {
        Intervals(vec![KeyInterval { from: Bytes::new(), to: None }])
    }

    /// Intervals from elsewhere; none if they are not ascending, disjoint and not empty.
    pub fn checked(intervals: Vec<KeyInterval>) -> Option<Intervals> {
        let full = intervals.iter().all(|i| i.to.as_ref().is_none_or(|to| i.from < *to));
        let ascend = intervals.windows(2).all(|pair| pair[0].to.as_ref().is_some_and(|to| *to <= pair[1].from));
        (full && ascend).then_some(Intervals(intervals))
    }

    /// As they travel.
    pub fn as_slice(&self) -> &[KeyInterval] {
        &self.0
    }

    /// Whether there is no key in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all keys of `gone` out.
    pub fn remove(&mut self, gone: &KeyInterval) {
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for interval in self.0.drain(..) {
            if !overlap(&interval, gone) {
                left.push(interval);
                continue;
            }
            if interval.from < gone.from {
                left.push(KeyInterval { from: interval.from.clone(), to: Some(gone.from.clone()) });
            }
            if let Some(end) = &gone.to
                && interval.to.as_ref().is_none_or(|to| end < to)
            {
                left.push(KeyInterval { from: end.clone(), to: interval.to });
            }
        }
        self.0 = left;
    }

    /// What of `window` is in it.
    pub fn within(&self, window: &KeyInterval) -> Vec<KeyInterval> {
        let common = |interval: &KeyInterval| KeyInterval {
            from: interval.from.clone().max(window.from.clone()),
            to: sooner(&interval.to, &window.to),
        };
        self.0.iter().filter(|interval| overlap(interval, window)).map(common).collect()
    }

    /// The first key at or after `from` that is in it.
    pub fn next_from(&self, from: &[u8]) -> Option<Bytes> {
        let reaches = |interval: &&KeyInterval| interval.to.as_ref().is_none_or(|to| from < &to[..]);
        let interval = self.0.iter().find(reaches)?;
        Some(if &interval.from[..] < from { Bytes::copy_from_slice(from) } else { interval.from.clone() })
    }
}

/// Whether a key lies in an interval.
pub fn contains(interval: &KeyInterval, key: &[u8]) -> bool {
    &interval.from[..] <= key && interval.to.as_ref().is_none_or(|to| key < &to[..])
}

fn overlap(a: &KeyInterval, b: &KeyInterval) -> bool {
    a.to.as_ref().is_none_or(|to| b.from < *to) && b.to.as_ref().is_none_or(|to| a.from < *to)
}

/// Of two ends the first; none is the end of all keys.
fn sooner(a: &Option<Bytes>, b: &Option<Bytes>) -> Option<Bytes> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b).clone()),
        (end, None) | (None, end) => end.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(from: u8, to: Option<u8>) -> KeyInterval {
        let key = |byte: u8| if byte == 0 { Bytes::new() } else { Bytes::from(vec![byte]) };
        KeyInterval { from: key(from), to: to.map(key) }
    }

    /// The first bytes of the keys that are in it.
    fn members(intervals: &Intervals) -> Vec<u8> {
        (1..=255).filter(|byte| intervals.0.iter().any(|i| contains(i, &[*byte]))).collect()
    }

    proptest! {
        #[test]
        fn what_was_removed_is_gone_and_nothing_else(gone in prop::collection::vec((0u8..=255, prop::option::of(0u8..=255)), 0..8)) {
            let mut intervals = Intervals::all();
            let mut left: Vec<u8> = (1..=255).collect();
            for (from, to) in gone {
                let Some(gone) = Intervals::checked(vec![interval(from, to)]) else { continue };
                let gone = gone.0[0].clone();
                left.retain(|byte| !contains(&gone, &[*byte]));
                intervals.remove(&gone);
                prop_assert_eq!(members(&intervals), left.clone());
                prop_assert_eq!(Intervals::checked(intervals.0.clone()), Some(intervals.clone()));
                for from in 1..=255u8 {
                    let next = intervals.next_from(&[from]).map(|key| key[0]);
                    prop_assert_eq!(next, left.iter().copied().find(|byte| *byte >= from));
                }
                let window = interval(50, Some(200));
                let within = Intervals(intervals.within(&window));
                let wanted: Vec<u8> = left.iter().copied().filter(|byte| (50..200).contains(byte)).collect();
                prop_assert_eq!(members(&within), wanted);
            }
        }
    }

    #[test]
    fn intervals_from_elsewhere_are_checked() {
        let checked = |list: &[(u8, Option<u8>)]| {
            Intervals::checked(list.iter().map(|(from, to)| interval(*from, *to)).collect()).is_some()
        };
        assert!(checked(&[]) && checked(&[(0, None)]) && checked(&[(1, Some(2)), (2, None)]));
        assert!(!checked(&[(2, Some(2))]), "empty");
        assert!(!checked(&[(1, Some(3)), (2, None)]), "they overlap");
        assert!(!checked(&[(1, None), (2, None)]), "nothing follows the end");
    }
}

//! A hash of a set, which members can be added to and taken from in any order.
//!
//! It is the sum of its members' hashes, in four lanes modulo 2⁶⁴. Two sets that differ by chance have equal sums with
//! a probability of 2⁻²⁵⁶; sums of disjoint sets add up to that of all. It finds faults. It does not withstand
//! somebody who can choose members *and* change what is kept of them: he can solve for a sum.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{AddAssign, SubAssign};

/// The sum of a set's members. That of the empty set is all zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "[u8; 32]", into = "[u8; 32]")]
pub struct Sum([u64; 4]);

impl Sum {
    /// Of the set that has this one member: the BLAKE3 hash of its bytes, as four little-endian lanes.
    pub fn of(member: &[u8]) -> Sum {
        Sum::from(*blake3::hash(member).as_bytes())
    }

    /// Of one member that is a pair of numbers: a hash that takes a few nanoseconds, for what changes too often for
    /// [`Sum::of`]. Two pairs have the same with a probability of 2⁻⁶⁴.
    pub fn of_pair(a: u64, b: u64) -> Sum {
        let both = mix(a.wrapping_add(GOLDEN)) ^ b;
        Sum([1, 2, 3, 4].map(|lane: u64| mix(both.wrapping_add(lane.wrapping_mul(GOLDEN)))))
    }
}

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): each bit of the input changes half of the output's.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Sum) {
        self.0.iter_mut().zip(other.0).for_each(|(lane, other)| *lane = lane.wrapping_add(other));
    }
}

impl SubAssign for Sum {
    fn sub_assign(&mut self, other: Sum) {
        self.0.iter_mut().zip(other.0).for_each(|(lane, other)| *lane = lane.wrapping_sub(other));
    }
}

impl From<[u8; 32]> for Sum {
    fn from(bytes: [u8; 32]) -> Sum {
        let lane = |i: usize| u64::from_le_bytes(bytes[i * 8..][..8].try_into().expect("eight bytes"));
        Sum([lane(0), lane(1), lane(2), lane(3)])
    }
}

impl From<Sum> for [u8; 32] {
    fn from(sum: Sum) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.chunks_exact_mut(8).zip(sum.0).for_each(|(place, lane)| place.copy_from_slice(&lane.to_le_bytes()));
        bytes
    }
}

/// Enough of it to tell two apart.
impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: [u8; 32] = (*self).into();
        bytes[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn members_come_and_go_in_any_order() {
        let [a, b, c] = ["a", "b", "c"].map(|member| Sum::of(member.as_bytes()));
        let mut sum = Sum::default();
        [a, b, c].into_iter().for_each(|member| sum += member);
        [c, a].into_iter().for_each(|member| sum -= member);
        assert_eq!(sum, b);
        sum += b;
        assert_ne!(sum, Sum::default(), "a member that is there twice does not vanish");
        assert_eq!(Sum::from(<[u8; 32]>::from(sum)), sum);
    }

    #[test]
    fn pairs_are_told_apart() {
        let pairs = (0..100).flat_map(|a| (0..100).map(move |b| Sum::of_pair(a, b)));
        assert_eq!(pairs.collect::<BTreeSet<_>>().len(), 10_000);
        assert_ne!(Sum::of_pair(1, 2), Sum::of_pair(2, 1));
    }

    /// If this test wants to change, views would no longer find what they have stored.
    #[test]
    fn golden_sums() {
        assert_eq!(Sum::of(b"").to_string(), "af1349b9f5f9");
        assert_eq!(Sum::of_pair(1, 2).to_string(), "6b067396b4db");
    }
}

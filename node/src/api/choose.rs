//! Which of several views that hold the same to ask: near ones that are ready first, and among those at
//! random, the quick and idle more often.

use beam_wire::Name;
use std::time::Duration;

/// What is known of a view when it is chosen or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The view.
    pub view: Name,
    /// It is in our own datacenter.
    pub home: bool,
    /// How many entries it must still apply before it can answer.
    pub behind: u64,
    /// It is about to stop, or no longer keeps the version: ask it only when nobody else is left.
    pub unwilling: bool,
    /// It was silent or slow lately: ask it only when others cannot answer.
    pub out: bool,
    /// Our own requests that it has not answered yet.
    pub in_flight: u32,
    /// What its recent answers of this kind took in the mean: a few that are very late count.
    pub usual: Duration,
    /// It is late when nothing was heard of it for so long.
    pub late_after: Duration,
}

/// A view of our own datacenter that is further behind than this is asked after those elsewhere that are not:
/// catching up takes it longer than a round trip.
const BEHIND_BEARABLE: u64 = 5_000;

/// The number of the candidate to ask: of the best tier, two at random, and of those the one more often that
/// should answer sooner ("the power of two choices", Mitzenmacher 2001). The chance falls with the square of
/// the expected time, so a slow view is avoided, but still asked now and then: else nobody would learn that
/// it has recovered.
///
/// # Panics
/// If there is no candidate.
pub fn choose(candidates: &[&Candidate], random_below: &mut dyn FnMut(usize) -> usize) -> usize {
    let best = candidates.iter().map(|c| tier(c)).min().expect("there is something to choose from");
    let tier: Vec<usize> = (0..candidates.len()).filter(|i| tier(candidates[*i]) == best).collect();
    let a = random_below(tier.len());
    if tier.len() == 1 {
        return tier[a];
    }
    let b = (a + 1 + random_below(tier.len() - 1)) % tier.len();
    let (a, b) = (tier[a], tier[b]);
    let [weight_a, weight_b] = [a, b].map(|i| expected_us(candidates[i]).pow(2));
    // The chance of a is b's weight of both: the slower b, the more often a.
    let chance_of_a = (weight_b * CHANCES as u128 / (weight_a + weight_b)) as usize;
    if random_below(CHANCES) < chance_of_a { a } else { b }
}

const CHANCES: usize = 1 << 16;

/// When a request to the chosen candidate is late: as soon as it would be with the quickest of those that could have been
/// chosen as well. Else a view that has become slow would be waited for because it is slow.
pub fn late_after(chosen: usize, candidates: &[&Candidate]) -> Duration {
    let chosen = candidates[chosen];
    let others = candidates.iter().filter(|other| tier(other) == tier(chosen));
    others.map(|other| other.late_after).min().unwrap_or(chosen.late_after)
}

/// Those that could have been chosen instead.
pub fn rivals(chosen: usize, candidates: &[&Candidate]) -> Vec<Name> {
    let chosen = candidates[chosen];
    let others = candidates.iter().filter(|other| tier(other) == tier(chosen) && other.view != chosen.view);
    others.map(|other| other.view.clone()).collect()
}

fn tier(candidate: &Candidate) -> u8 {
    match (candidate.home, candidate.behind) {
        _ if candidate.unwilling => 7,
        (_, 0) if candidate.out => 5,
        _ if candidate.out => 6,
        (true, 0) => 0,
        (true, 1..=BEHIND_BEARABLE) => 1,
        (false, 0) => 2,
        (true, _) => 3,
        (false, _) => 4,
    }
}

/// How soon an answer may be expected, in microseconds: what answers take, once for each request that waits
/// already, and a little for each entry that must be applied first.
fn expected_us(candidate: &Candidate) -> u128 {
    let answers = candidate.usual.as_micros().clamp(1, 60_000_000) * (1 + u128::from(candidate.in_flight));
    answers + u128::from(candidate.behind.min(1 << 32)) * 20
}

#[cfg(test)]
impl Candidate {
    /// A view of which there is nothing special to say.
    pub fn plain(view: Name) -> Candidate {
        let (usual, late_after) = (Duration::from_millis(1), Duration::from_millis(20));
        Candidate { view, home: true, behind: 0, unwilling: false, out: false, in_flight: 0, usual, late_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    fn candidate(name: &str, change: impl FnOnce(&mut Candidate)) -> Candidate {
        let mut candidate = Candidate::plain(Name::new(name).unwrap());
        change(&mut candidate);
        candidate
    }

    /// How often each of the candidates is chosen in 1,000 times.
    fn shares(candidates: &[Candidate]) -> Vec<u32> {
        let mut rng = seeded(7);
        let mut shares = vec![0; candidates.len()];
        let candidates: Vec<&Candidate> = candidates.iter().collect();
        (0..1000).for_each(|_| shares[choose(&candidates, &mut |n| rng.random_range(0..n))] += 1);
        shares
    }

    fn seeded(seed: u64) -> impl Rng {
        rand::rngs::StdRng::seed_from_u64(seed)
    }

    #[test]
    fn equals_share_evenly() {
        let four = ["a", "b", "c", "d"].map(|n| candidate(n, |_| ()));
        assert!(shares(&four).iter().all(|s| (200..300).contains(s)), "{:?}", shares(&four));
    }

    #[test]
    fn the_slow_and_the_busy_are_asked_rarely_but_asked() {
        let slow = candidate("slow", |c| c.usual = Duration::from_millis(8));
        let shares_slow = shares(&[candidate("quick", |_| ()), slow]);
        assert!((5..40).contains(&shares_slow[1]), "{shares_slow:?}");
        let busy = candidate("busy", |c| c.in_flight = 3);
        let shares_busy = shares(&[candidate("idle", |_| ()), busy]);
        assert!((30..100).contains(&shares_busy[1]), "{shares_busy:?}");
    }

    #[test]
    fn home_and_ready_comes_first_then_home_then_away() {
        let ready = candidate("ready", |_| ());
        let behind = candidate("behind", |c| c.behind = 10);
        let away = candidate("away", |c| c.home = false);
        let far_behind = candidate("far-behind", |c| c.behind = 1_000_000);
        let out = candidate("out", |c| c.out = true);
        let out_behind = candidate("out-behind", |c| (c.out, c.behind) = (true, 1));
        let leaving = candidate("leaving", |c| c.unwilling = true);
        let order = [&ready, &behind, &away, &far_behind, &out, &out_behind, &leaving];
        for first in 0..order.len() {
            let left: Vec<&Candidate> = order[first..].iter().rev().copied().collect();
            let chosen = choose(&left, &mut |n| n - 1);
            assert_eq!(left[chosen], order[first]);
        }
    }
    #[test]
    fn a_slow_view_is_late_when_its_quick_rival_would_be() {
        let quick = candidate("quick", |_| ());
        let slow = candidate("slow", |c| c.late_after = Duration::from_millis(300));
        let away = candidate("away", |c| (c.home, c.late_after) = (false, Duration::from_millis(5)));
        let all = [&quick, &slow, &away];
        assert_eq!(late_after(1, &all), Duration::from_millis(20));
        assert_eq!(late_after(2, &all), Duration::from_millis(5));
        assert_eq!(late_after(0, &all[1..]), Duration::from_millis(300), "it is the only one here");
        assert_eq!(rivals(1, &all), std::slice::from_ref(&quick.view));
    }
}

//! How long a peer's answers take lately: a small histogram that forgets.
//!
//! Buckets grow by a quarter of a power of two, from 0.1 ms to 6 s: a percentile read from it is at most a
//! fifth too high. After a few hundred samples all counts are halved, so that a peer that has become slow,
//! or has recovered, is seen as such within as many calls.

use std::sync::LazyLock;
use std::time::Duration;

const BUCKETS: usize = 64;
const LOWEST_US: f64 = 100.0;

/// Samples after which all counts are halved. The 95th percentile of 128 samples still rests on six.
const SAMPLES_MAX: u32 = 256;

/// The assumption counts as so many samples among the first ones: few enough that a dozen real ones outweigh them.
const ASSUMED_SAMPLES: u32 = 4;

/// A peer of which nothing was seen yet is taken to answer that much sooner than assumed in the mean: it is asked, and then
/// something is known.
const HOPED: u32 = 10;

/// See [`Latency::mean`]. What a lost packet costs within a datacenter still counts whole.
const OUTLIER: u32 = 8;

/// A histogram of recent latencies.
#[derive(Clone, Debug)]
pub struct Latency {
    counts: [u32; BUCKETS],
    total: u32,
    /// What percentiles are like until enough is known.
    assumed: Option<Duration>,
}

impl Latency {
    /// Begins with an assumption, which real samples soon outweigh.
    pub fn starting_at(assumed: Duration) -> Latency {
        Latency { counts: [0; BUCKETS], total: 0, assumed: Some(assumed) }
    }

    /// Takes in one sample.
    pub fn record(&mut self, took: Duration) {
        if self.total >= SAMPLES_MAX {
            self.counts.iter_mut().for_each(|c| *c /= 2);
            self.total = self.counts.iter().sum();
            self.assumed = None;
        }
        self.counts[bucket(took)] += 1;
        self.total += 1;
    }

    /// The time that `percent` of the recent answers took at most.
    pub fn percentile(&self, percent: u32) -> Duration {
        let assumed = self.assumed.map(bucket);
        let total = self.total + assumed.map_or(0, |_| ASSUMED_SAMPLES);
        let rank = (u64::from(total) * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.counts.iter().enumerate().position(|(bucket, c)| {
            seen += u64::from(*c) + if assumed == Some(bucket) { u64::from(ASSUMED_SAMPLES) } else { 0 };
            seen >= rank
        });
        upper_bound(found.unwrap_or(BUCKETS - 1))
    }

    /// What the recent answers took in the mean, where none counts more than [`OUTLIER`] times the median: some that are late
    /// are a reason to ask others more often, a single one that was lost is none to ask nobody else.
    pub fn mean(&self) -> Duration {
        if self.total == 0 {
            return self.assumed.unwrap_or_default() / HOPED;
        }
        let most = self.percentile(50) * OUTLIER;
        let each = self.counts.iter().enumerate().map(|(i, n)| upper_bound(i).min(most).as_secs_f64() * f64::from(*n));
        Duration::from_secs_f64(each.sum::<f64>() / f64::from(self.total))
    }
}

fn bucket(took: Duration) -> usize {
    let us = took.as_micros() as f64;
    if us <= LOWEST_US { 0 } else { (((us / LOWEST_US).log2() * 4.0).ceil() as usize).min(BUCKETS - 1) }
}

fn upper_bound(bucket: usize) -> Duration {
    UPPER_BOUNDS[bucket]
}

/// All buckets are gone through for each view that may be chosen.
static UPPER_BOUNDS: LazyLock<[Duration; BUCKETS]> = LazyLock::new(|| {
    std::array::from_fn(|bucket| Duration::from_micros((LOWEST_US * 2f64.powf(bucket as f64 / 4.0)) as u64))
});

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn percentiles_are_at_most_a_fifth_too_high() {
        let mut latency = Latency::starting_at(ms(50));
        (0..200).for_each(|i| latency.record(ms(1 + i % 100)));
        for (percent, exact) in [(50, ms(50)), (95, ms(95))] {
            let found = latency.percentile(percent);
            assert!(found >= exact.mul_f64(0.97) && found <= exact.mul_f64(1.2), "p{percent} is {found:?}");
        }
    }

    #[test]
    fn the_mean_counts_what_is_late_but_not_how_late() {
        let mut latency = Latency::starting_at(ms(1));
        (0..180).for_each(|_| latency.record(ms(1)));
        assert!(latency.mean() < ms(2));
        (0..20).for_each(|_| latency.record(ms(1000)));
        let mean = latency.mean().as_secs_f64() * 1e3;
        assert!((1.6..2.2).contains(&mean), "nine of ten times 1 ms, and once 8 ms, are not {mean} ms");
    }

    #[test]
    fn the_assumption_is_soon_outweighed_and_the_past_forgotten() {
        let mut latency = Latency::starting_at(ms(500));
        assert!(latency.percentile(50) >= ms(500));
        (0..100).for_each(|_| latency.record(ms(2)));
        assert!(latency.percentile(95) < ms(3));
        (0..60).for_each(|_| latency.record(ms(300)));
        assert!(latency.percentile(95) >= ms(290), "a peer that became slow is seen as such");
        (0..700).for_each(|_| latency.record(ms(2)));
        assert!(latency.percentile(95) < ms(3), "and so is its recovery");
    }

    #[test]
    fn extremes_stay_in_the_histogram() {
        let mut latency = Latency::starting_at(Duration::ZERO);
        latency.record(Duration::from_secs(3600));
        assert_eq!(latency.percentile(1), upper_bound(0));
        assert_eq!(latency.percentile(100), upper_bound(BUCKETS - 1));
    }
}

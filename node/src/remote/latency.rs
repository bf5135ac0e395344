//! How long a peer's answers take lately: a small histogram that forgets.
//!
//! Buckets grow by a quarter of a power of two, from 0.1 ms to 6 s: a percentile read from it is at most a
//! fifth too high. After a few hundred samples all counts are halved, so that a peer that has become slow,
//! or has recovered, is seen as such within as many calls.

use std::time::Duration;

const BUCKETS: usize = 64;
const LOWEST_US: f64 = 100.0;

/// Samples after which all counts are halved. The 95th percentile of 128 samples still rests on six.
const SAMPLES_MAX: u32 = 256;

/// What the histogram is seeded with, as so many samples: few enough that a dozen real ones outweigh them.
const SEED_SAMPLES: u32 = 4;

/// A histogram of recent latencies.
#[derive(Clone, Debug)]
pub struct Latency {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Latency {
    /// Begins with an assumption, which real samples soon outweigh.
    pub fn starting_at(assumed: Duration) -> Latency {
        let mut latency = Latency { counts: [0; BUCKETS], total: 0 };
        for _ in 0..SEED_SAMPLES {
            latency.record(assumed);
        }
        latency
    }

    /// Takes in one sample.
    pub fn record(&mut self, took: Duration) {
        if self.total >= SAMPLES_MAX {
            self.counts.iter_mut().for_each(|c| *c /= 2);
            self.total = self.counts.iter().sum();
        }
        self.counts[bucket(took)] += 1;
        self.total += 1;
    }

    /// The time that `percent` of the recent answers took at most.
    pub fn percentile(&self, percent: u32) -> Duration {
        let rank = (u64::from(self.total) * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|c| {
            seen += u64::from(*c);
            seen >= rank
        });
        upper_bound(found.unwrap_or(BUCKETS - 1))
    }
}

fn bucket(took: Duration) -> usize {
    let us = took.as_micros() as f64;
    if us <= LOWEST_US { 0 } else { (((us / LOWEST_US).log2() * 4.0).ceil() as usize).min(BUCKETS - 1) }
}

fn upper_bound(bucket: usize) -> Duration {
    Duration::from_micros((LOWEST_US * 2f64.powf(bucket as f64 / 4.0)) as u64)
}

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

//! When a call is late, and how much may be sent besides first attempts: decided without I/O and without a clock.

use std::collections::VecDeque;
use std::time::Duration;

/// Answers that are remembered.
const REMEMBERED: usize = 64;
/// While nothing is known, an answer is late after so long: longer than a round trip around the world, with a
/// query in it.
const LATE_AT_FIRST: Duration = Duration::from_millis(800);
/// No answer is late before that: what else costs a moment, a lost packet or a new leader, passes by itself.
const LATE_MIN: Duration = Duration::from_millis(300);
const LATE_MAX: Duration = Duration::from_secs(5);
/// Late is what takes so many times longer than nine answers in ten.
const LATE_TIMES: u32 = 4;

/// How long answers of one kind take.
#[derive(Debug, Default)]
pub struct Lateness {
    recent: VecDeque<Duration>,
}

impl Lateness {
    /// An answer took so long.
    pub fn answered(&mut self, took: Duration) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(took);
    }

    /// When somebody else is asked as well.
    pub fn late_after(&self) -> Duration {
        let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        match sorted.get(sorted.len() * 9 / 10) {
            Some(most) if sorted.len() >= 8 => (*most * LATE_TIMES).clamp(LATE_MIN, LATE_MAX),
            _ => LATE_AT_FIRST,
        }
    }
}

/// Tokens in thousandths: what one costs, what a call brings, what a millisecond brings, and what is kept at most.
const TOKEN: u64 = 1000;
const PER_CALL: u64 = 100;
const PER_MS: u64 = 5;
const KEPT_MAX: u64 = 50 * TOKEN;

/// Bounds what is sent again: clients that try again without bound keep a cluster down that has just been
/// overloaded.
///
/// Going to one other node when a node has failed is free: a lost node must cost each of its callers no more than
/// that. All else, second requests because a first is late and third attempts, is a tenth of all calls, and a few
/// a second.
#[derive(Debug)]
pub struct Budget {
    thousandths: u64,
    /// When they were counted, in milliseconds since any beginning.
    at_ms: u64,
}

impl Budget {
    /// Full.
    pub fn new(now: Duration) -> Budget {
        Budget { thousandths: KEPT_MAX, at_ms: now.as_millis() as u64 }
    }

    /// A call begins.
    pub fn called(&mut self) {
        self.thousandths = (self.thousandths + PER_CALL).min(KEPT_MAX);
    }

    /// Takes a token; or says when there will be one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let now_ms = now.as_millis() as u64;
        let earned = now_ms.saturating_sub(self.at_ms).saturating_mul(PER_MS);
        self.thousandths = self.thousandths.saturating_add(earned).min(KEPT_MAX);
        self.at_ms = self.at_ms.max(now_ms);
        match self.thousandths.checked_sub(TOKEN) {
            Some(left) => {
                self.thousandths = left;
                Ok(())
            }
            None => Err(Duration::from_millis(now_ms + (TOKEN - self.thousandths).div_ceil(PER_MS))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn late_is_what_takes_much_longer_than_most() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.late_after(), LATE_AT_FIRST);
        (0..8).for_each(|_| lateness.answered(ms(130)));
        assert_eq!(lateness.late_after(), ms(520));
        lateness.answered(ms(9000));
        (0..10).for_each(|_| lateness.answered(ms(130)));
        assert_eq!(lateness.late_after(), ms(520), "one that took long changes nothing");
        (0..64).for_each(|_| lateness.answered(ms(10)));
        assert_eq!(lateness.late_after(), LATE_MIN);
        (0..64).for_each(|_| lateness.answered(ms(4000)));
        assert_eq!(lateness.late_after(), LATE_MAX, "heavy queries are not sent twice soon");
    }

    #[test]
    fn what_is_sent_again_is_a_tenth_of_all_calls_and_a_few_a_second() {
        let mut budget = Budget::new(ms(0));
        let taken = |budget: &mut Budget, at: u64| (0..1000).take_while(|_| budget.take(ms(at)).is_ok()).count();
        assert_eq!(taken(&mut budget, 0), 50, "what was kept");
        assert_eq!(budget.take(ms(0)), Err(ms(200)), "and then one every 200 ms");
        assert_eq!(budget.take(ms(200)), Ok(()));
        (0..100).for_each(|_| budget.called());
        assert_eq!(taken(&mut budget, 200), 10);
        assert_eq!(taken(&mut budget, 1200), 5);
        assert_eq!(taken(&mut budget, 100_000), 50, "no more than that is kept");
    }
}

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

/// Tokens in thousandths: what one costs, and what a call brings.
const TOKEN: u64 = 1000;
const PER_CALL: u64 = 100;
/// When whoever has no token, and earns none by waiting, looks again.
const LOOK_AGAIN_MS: u64 = 200;

/// Bounds what is sent again: clients that try again without bound keep a cluster down that has just been
/// overloaded.
///
/// Going to one other node when a node has failed is free: a lost node must cost each of its callers no more than
/// that.
#[derive(Debug)]
pub struct Budget {
    /// What a millisecond brings, and what is kept at most.
    per_ms: u64,
    kept_max: u64,
    thousandths: u64,
    /// When they were counted, in milliseconds since any beginning.
    at_ms: u64,
}

impl Budget {
    /// For attempts after the second: a tenth of all calls, and five a second.
    pub fn of_attempts() -> Budget {
        Budget::full(5, 50 * TOKEN)
    }

    /// For second requests because a first is late: a tenth of all calls, and a few for the moment in which a node is
    /// lost. Time brings none: where everything is late because there is too much to do, all would be sent twice.
    pub fn of_seconds() -> Budget {
        Budget::full(0, 20 * TOKEN)
    }

    fn full(per_ms: u64, kept_max: u64) -> Budget {
        Budget { per_ms, kept_max, thousandths: kept_max, at_ms: 0 }
    }

    /// A call begins.
    pub fn called(&mut self) {
        self.thousandths = (self.thousandths + PER_CALL).min(self.kept_max);
    }

    /// Takes a token; or says when there will be one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let now_ms = now.as_millis() as u64;
        let earned = now_ms.saturating_sub(self.at_ms).saturating_mul(self.per_ms);
        self.thousandths = self.thousandths.saturating_add(earned).min(self.kept_max);
        self.at_ms = self.at_ms.max(now_ms);
        match self.thousandths.checked_sub(TOKEN) {
            Some(left) => {
                self.thousandths = left;
                Ok(())
            }
            None => {
                let missing = TOKEN - self.thousandths;
                let wait_ms = if self.per_ms == 0 { LOOK_AGAIN_MS } else { missing.div_ceil(self.per_ms) };
                Err(Duration::from_millis(now_ms + wait_ms))
            }
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
        let mut budget = Budget::of_attempts();
        let taken = |budget: &mut Budget, at: u64| (0..1000).take_while(|_| budget.take(ms(at)).is_ok()).count();
        assert_eq!(taken(&mut budget, 0), 50, "what was kept");
        assert_eq!(budget.take(ms(0)), Err(ms(200)), "and then one every 200 ms");
        assert_eq!(budget.take(ms(200)), Ok(()));
        (0..100).for_each(|_| budget.called());
        assert_eq!(taken(&mut budget, 200), 10);
        assert_eq!(taken(&mut budget, 1200), 5);
        assert_eq!(taken(&mut budget, 100_000), 50, "no more than that is kept");

        let mut budget = Budget::of_seconds();
        assert_eq!(taken(&mut budget, 0), 20);
        assert_eq!(budget.take(ms(100_000)), Err(ms(100_200)), "time brings none");
        (0..30).for_each(|_| budget.called());
        assert_eq!(taken(&mut budget, 100_000), 3);
    }
}

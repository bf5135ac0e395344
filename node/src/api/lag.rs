//! How long the views have been behind the log, and what that means for writes: plain data in, plain data out.
//!
//! A lag of so many entries says little by itself: one view applies them in a second, another in minutes, and whoever reads
//! `Latest` waits for as long. So the age of the oldest entry that the views do not cover is kept here, too. That entry was seen
//! in the log at some time: seen by us when we appended it, or by any view that told us. And because a burst may have followed it,
//! so is how quickly the views have come on lately: what they need for the rest is what readers will wait.

use beam_wire::{Epoch, LogIndex, Version};
use std::collections::VecDeque;
use std::time::Duration;

/// Where the log's end was, and when.
#[derive(Debug, Default)]
pub struct Lag {
    /// None before anything was seen.
    epoch: Option<Epoch>,
    /// Ascending in both. Each says when this index was seen in the log first.
    marks: VecDeque<(Duration, LogIndex)>,
    /// What the views covered, and when; of the last [`RATE_OVER`].
    covered: VecDeque<(Duration, LogIndex)>,
}

/// How far the views are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// In entries.
    pub entries: u64,
    /// The age of the oldest entry that they do not cover.
    pub age: Duration,
    /// How long they need for all, if they go on as lately. None while that is not known.
    pub need: Option<Duration>,
}

/// What to do about writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Take them.
    None,
    /// Take each after a pause.
    Slow(Duration),
    /// Refuse them: the views must catch up first.
    Refuse,
}

/// Marks lie at least so far apart, and there are no more than so many: more than the age at which writes are refused.
const MARK_EVERY: Duration = Duration::from_millis(50);
const MARKS_MAX: usize = 256;

/// How quickly views come on is judged by so long.
const RATE_OVER: Duration = Duration::from_secs(2);
/// And not before they have had so long for what they miss: before, they may have had nothing to do.
const RATE_AFTER: Duration = Duration::from_millis(500);

/// The longest pause before a write that is still taken.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Views that are up to so long behind are no reason to hold writes back: a checkpoint or a slow disk.
const AGE_BEARABLE: Duration = Duration::from_secs(1);
/// Beyond this readers of `Latest` would wait for too long.
const AGE_MAX: Duration = Duration::from_secs(4);

impl Lag {
    /// The log reached a version.
    pub fn saw(&mut self, end: Version, now: Duration) {
        if Some(end.epoch) < self.epoch {
            return;
        }
        if Some(end.epoch) > self.epoch {
            *self = Lag { epoch: Some(end.epoch), ..Lag::default() };
        }
        match self.marks.back_mut() {
            Some((_, index)) if *index >= end.index => {}
            // What came since the last mark counts as seen with it: a little too old rather than too young.
            Some((at, index)) if now.saturating_sub(*at) < MARK_EVERY => *index = end.index,
            _ => {
                if self.marks.len() == MARKS_MAX {
                    self.marks.pop_front();
                }
                self.marks.push_back((now, end.index));
            }
        }
    }

    /// How far views are behind that cover a version now.
    pub fn behind(&mut self, covered: Version, now: Duration) -> Behind {
        if Some(covered.epoch) != self.epoch {
            return Behind { entries: 0, age: Duration::ZERO, need: None };
        }
        let newest = self.marks.back().map_or(LogIndex(0), |(_, index)| *index);
        let missing = self.marks.iter().find(|(_, index)| *index > covered.index);
        let age = missing.map_or(Duration::ZERO, |(at, _)| now.saturating_sub(*at));
        let entries = newest.0.saturating_sub(covered.index.0);
        let rate = self.rate(covered.index, now).filter(|_| age >= RATE_AFTER);
        let need = rate.map(|rate| Duration::from_secs_f64((entries as f64 / rate.max(0.01)).min(3600.0)));
        Behind { entries, age, need }
    }

    /// Entries that the views came on lately, in a second.
    fn rate(&mut self, covered: LogIndex, now: Duration) -> Option<f64> {
        if self.covered.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= MARK_EVERY) {
            self.covered.push_back((now, covered));
        }
        // One that is older is kept: after a pause it says most.
        while self.covered.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= RATE_OVER) {
            self.covered.pop_front();
        }
        let (at, index) = self.covered.front()?;
        let took = now.saturating_sub(*at);
        (took >= RATE_AFTER).then(|| covered.0.saturating_sub(index.0) as f64 / took.as_secs_f64())
    }
}

/// A load must not outrun the views forever: writes are slowed, and then refused, by whichever is worse, the number of entries
/// (from W/8 to W/4, so that ids are still known when the views come to them), their age, or how long the views need for them.
pub fn pressure(behind: Behind, window: u64) -> Pressure {
    let bearable = window / 8;
    let by_entries = (behind.entries as f64 - bearable as f64) / bearable.max(1) as f64;
    let time = behind.age.max(behind.need.unwrap_or_default());
    let by_time = (time.as_secs_f64() - AGE_BEARABLE.as_secs_f64()) / (AGE_MAX - AGE_BEARABLE).as_secs_f64();
    match by_entries.max(by_time) {
        worst if worst <= 0.0 => Pressure::None,
        worst if worst <= 1.0 => Pressure::Slow(Duration::from_millis(1) + PAUSE_MAX.mul_f64(worst)),
        _ => Pressure::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(epoch: u64, index: u64) -> Version {
        Version { epoch: Epoch(epoch), index: LogIndex(index) }
    }

    #[test]
    fn the_oldest_entry_that_is_missing_counts() {
        let mut lag = Lag::default();
        for (time, index) in [(0, 100), (1000, 200), (1010, 300), (2000, 400), (2100, 350)] {
            lag.saw(at(1, index), ms(time));
        }
        // (covered, entries, age at 3,000 ms)
        let cases = [
            (400, 0, 0),
            (500, 0, 0),
            (399, 1, 1000),
            (300, 100, 1000),
            (299, 101, 2000),
            (100, 300, 2000),
            (0, 400, 3000),
        ];
        for (covered, entries, age) in cases {
            let expected = Behind { entries, age: ms(age), need: None };
            assert_eq!(lag.behind(at(1, covered), ms(3000)), expected, "{covered} are covered");
        }
        assert_eq!(lag.behind(at(2, 0), ms(3000)).entries, 0, "nothing is known of that epoch");
        lag.saw(at(2, 50), ms(3000));
        lag.saw(at(1, 900), ms(3000));
        assert_eq!(lag.behind(at(2, 40), ms(3001)), Behind { entries: 10, age: ms(1), need: None });
    }

    /// A hundred entries a second come, the views do ten: long before the oldest that they miss is old, it is known how long they need.
    #[test]
    fn what_the_views_need_is_known_from_how_they_come_on() {
        let mut lag = Lag::default();
        let behind: Vec<Behind> = (0..=40)
            .map(|step| {
                lag.saw(at(1, 5 * step), ms(50 * step));
                lag.behind(at(1, step / 2), ms(50 * step))
            })
            .collect();
        assert_eq!(behind[10].need, None, "there was too little time to know");
        let Behind { entries, need, .. } = behind[20];
        let need = need.unwrap();
        assert!(
            entries == 90 && need > ms(8900) && need < ms(9100),
            "{entries} entries at 10 in a second are not {need:?}"
        );
        assert_eq!(pressure(behind[20], 1_000_000), Pressure::Refuse);
        // They stop for a moment: what they did before counts.
        let paused = lag.behind(at(1, 20), ms(2600));
        assert!(paused.need.unwrap() < ms(30_000), "{paused:?}");
        assert!(lag.covered.len() <= 64);
    }

    #[test]
    fn marks_are_bounded() {
        let mut lag = Lag::default();
        for i in 0..100_000 {
            lag.saw(at(1, i), ms(i));
        }
        assert_eq!(lag.marks.len(), MARKS_MAX);
        assert!(lag.behind(at(1, 0), ms(100_000)).age > AGE_MAX);
    }

    #[test]
    fn writes_are_slowed_then_refused_by_entries_or_by_age() {
        let pause = |millis| Pressure::Slow(ms(millis));
        // (entries, age), of a window of 8,000
        let cases = [
            ((1000, 1000), Pressure::None),
            ((1500, 0), pause(251)),
            ((2000, 0), pause(501)),
            ((2001, 0), Pressure::Refuse),
            ((0, 2500), pause(251)),
            ((1, 4000), pause(501)),
            ((1, 4001), Pressure::Refuse),
            ((1500, 1600), pause(251)),
        ];
        for ((entries, age), expected) in cases {
            let behind = Behind { entries, age: ms(age), need: None };
            assert_eq!(pressure(behind, 8000), expected, "{entries} entries, {age} ms");
            let behind = Behind { entries, age: ms(0), need: Some(ms(age)) };
            assert_eq!(pressure(behind, 8000), expected, "{entries} entries, {age} ms are needed");
        }
        assert_eq!(pressure(Behind { entries: 5, age: ms(0), need: None }, 0), Pressure::Refuse);
    }
}

//! Which views are left out for a while, because they are silent or much slower than others that hold the same:
//! decided here, without I/O and without a clock.
//!
//! A hedge hides a slow view from one request, and costs another one. A view that stays slow would cost one each time,
//! and everybody waits for the hedge first. So what became of each request is kept here for each view, and
//! - a view from which several requests in a row had no answer, before another view gave it or because it failed, is
//!   out at once: its process may be stopped, and QUIC notices only after seconds. Requests that were under way at the
//!   same time are one of the row: when all views become much slower at once, many of them lose at once, by chance;
//! - a view of whose last answers an eighth came much too late, two of the very last among them, is out if others that
//!   hold the same are much better. When all are slow nobody is out: going elsewhere would help nobody.
//!
//! Who is out is asked only where nobody else is left. Now and then, more and more rarely, a request that goes to another
//! view is sent to it, too, and its answer thrown away; after a few that come in time it is in again. Views that are put
//! out again soon are out for longer.
//!
//! Times are given as durations since any common beginning.

use beam_wire::Name;
use std::collections::BTreeMap;
use std::time::Duration;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered in time.
    InTime,
    /// It was answered much too late, or refused because there was too much to do.
    Slow,
    /// It was not answered by the time that another view had given the answer, or it failed.
    Silent,
}

/// What is known of all views that were asked.
#[derive(Debug, Default)]
pub struct Ejector {
    views: BTreeMap<Name, Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    /// The last outcomes, the newest lowest. A one was not in time.
    bad: u64,
    /// How many of them there are.
    seen: u32,
    /// How many of the last were silent, each sent after the one before was known to be.
    silent: u32,
    /// When the last of these was known.
    silent_at: Duration,
    /// Since when it has been much slower than others.
    slow_since: Option<Duration>,
    out: Option<Out>,
    /// How long it waited for a probe when it was last out, and until when that is held against it.
    record: Option<(Duration, Duration)>,
}

#[derive(Debug)]
struct Out {
    /// From one probe to the next.
    pause: Duration,
    probe_at: Duration,
    /// Probes that were answered in time, one after the other.
    good: u32,
}

/// Silent requests in a row after which a view is out. One may be chance, or a lost packet.
const SILENT_MAX: u32 = 4;
/// Outcomes that are kept.
const SEEN_MAX: u32 = u64::BITS;
/// Fewer say nothing about how often a view is slow.
const SEEN_MIN: u32 = 16;
const BAD_MIN: u32 = 4;
/// A view is slow of whose outcomes one in so many is bad. The 95th percentile and twice of it lie far apart, so that this
/// is several times what is usual.
const SLOW_ONE_IN: u32 = 8;
/// And so many times what the best other view has.
const WORSE: u32 = 3;
/// And of its last so many at least so many were bad, the very last one among them.
const LATELY: u32 = 16;
const LATELY_MIN: u32 = 2;
/// And for so long: when all become slower at once, it is one of them that shows it first.
const SLOW_FOR: Duration = Duration::from_millis(100);
/// The pause before the first probe. Each following one is twice as long, up to the maximum: that is how long a view may have
/// recovered before somebody knows.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The pause after a probe that was answered in time.
const PAUSE_GOOD: Duration = Duration::from_millis(50);
/// Probes in a row that bring a view in again.
const GOOD_MIN: u32 = 3;
/// That it was out is held against a view for so many of the pauses that it had.
const HELD_AGAINST: u32 = 20;

impl Ejector {
    /// What became of a request to `view`, sent then, which `rivals` could have answered, too. Says whether the view is
    /// out because of that.
    pub fn saw(&mut self, view: &Name, outcome: Outcome, sent: Duration, rivals: &[Name], now: Duration) -> bool {
        let standing = self.views.entry(view.clone()).or_default();
        if standing.out.is_some() {
            // It was sent before the view was out, and says nothing new.
            return false;
        }
        standing.take(outcome, sent, now);
        let (silent, own, lately) = (standing.silent >= SILENT_MAX, standing.share(), standing.bad_lately());
        let slow = own.is_slow() && rivals.iter().any(|rival| self.is_much_better(rival, own));
        let standing = self.views.get_mut(view).expect("it was there above");
        let slow_since = *standing.slow_since.get_or_insert(now);
        if !slow {
            standing.slow_since = None;
        }
        let ejected = silent || slow && lately && now - slow_since >= SLOW_FOR;
        if ejected {
            standing.eject(now);
        }
        ejected
    }

    /// What became of a request that was sent to `view` while it was out. Says whether the view is in because of that.
    pub fn probed(&mut self, view: &Name, outcome: Outcome, now: Duration) -> bool {
        self.views.get_mut(view).is_some_and(|standing| standing.probed(outcome, now))
    }

    /// Whether a view is left out.
    pub fn is_out(&self, view: &Name) -> bool {
        self.views.get(view).is_some_and(|standing| standing.out.is_some())
    }

    /// All that are left out.
    pub fn out(&self) -> impl Iterator<Item = &Name> {
        self.views.iter().filter(|(_, standing)| standing.out.is_some()).map(|(name, _)| name)
    }

    /// Those that are out and may be probed now.
    pub fn due(&self, now: Duration) -> impl Iterator<Item = &Name> {
        let due = move |out: &Out| out.probe_at <= now;
        self.views.iter().filter(move |(_, standing)| standing.out.as_ref().is_some_and(due)).map(|(name, _)| name)
    }

    /// Whether a view that is out is to be probed now, which is due and paid for. Its next probe is due after a pause,
    /// whatever comes of this one. What is not paid for stays due.
    pub fn probe(&mut self, view: &Name, now: Duration, pay: impl FnOnce() -> bool) -> bool {
        let Some(out) = self.views.get_mut(view).and_then(|standing| standing.out.as_mut()) else { return false };
        let probed = out.probe_at <= now && pay();
        if probed {
            out.probe_at = now + out.pause;
        }
        probed
    }

    /// Forgets all views but these.
    pub fn keep(&mut self, known: impl Fn(&Name) -> bool) {
        self.views.retain(|view, _| known(view));
    }

    fn is_much_better(&self, rival: &Name, than: Share) -> bool {
        let standing = self.views.get(rival).filter(|standing| standing.out.is_none() && standing.seen >= SEEN_MIN);
        standing.map(Standing::share).is_some_and(|share| !share.is_slow() && share.is_much_better(than))
    }
}

impl Standing {
    fn take(&mut self, outcome: Outcome, sent: Duration, now: Duration) {
        self.bad = self.bad << 1 | u64::from(outcome != Outcome::InTime);
        self.seen = (self.seen + 1).min(SEEN_MAX);
        if outcome != Outcome::Silent {
            self.silent = 0;
        } else if self.silent == 0 || sent >= self.silent_at {
            (self.silent, self.silent_at) = (self.silent + 1, now);
        }
    }

    fn share(&self) -> Share {
        Share { bad: self.bad.count_ones(), of: self.seen }
    }

    /// Whether it is slow still: one that is asked less than others keeps what was long ago for longer.
    fn bad_lately(&self) -> bool {
        let lately = self.bad & ((1 << LATELY) - 1);
        lately & 1 == 1 && lately.count_ones() >= LATELY_MIN
    }

    fn eject(&mut self, now: Duration) {
        let held = self.record.filter(|(_, until)| now < *until);
        let pause = held.map_or(PAUSE_FIRST, |(pause, _)| (pause * 2).min(PAUSE_MAX));
        self.out = Some(Out { pause, probe_at: now + pause, good: 0 });
    }

    fn probed(&mut self, outcome: Outcome, now: Duration) -> bool {
        let Some(out) = &mut self.out else { return false };
        if outcome != Outcome::InTime {
            out.good = 0;
            out.pause = (out.pause * 2).min(PAUSE_MAX);
            out.probe_at = now + out.pause;
            return false;
        }
        out.good += 1;
        out.probe_at = now + PAUSE_GOOD;
        let back = out.good >= GOOD_MIN;
        if back {
            *self = Standing { record: Some((out.pause, now + out.pause * HELD_AGAINST)), ..Standing::default() };
        }
        back
    }
}

/// Bad outcomes, of how many.
#[derive(Clone, Copy)]
struct Share {
    bad: u32,
    of: u32,
}

impl Share {
    fn is_slow(self) -> bool {
        self.of >= SEEN_MIN && self.bad >= BAD_MIN && self.bad * SLOW_ONE_IN >= self.of
    }

    fn is_much_better(self, than: Share) -> bool {
        self.bad * WORSE * than.of <= than.bad * self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::*;

    fn name(name: &str) -> Name {
        Name::new(name).unwrap()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Two views that hold the same.
    #[derive(Default)]
    struct Pair(Ejector);

    impl Pair {
        /// `sick` has this outcome, and `well` that one, so many times.
        fn see(&mut self, times: u32, sick: Outcome, well: Outcome, at: u64) {
            for _ in 0..times {
                self.0.saw(&name("sick"), sick, ms(at), &[name("well")], ms(at));
                self.0.saw(&name("well"), well, ms(at), &[name("sick")], ms(at));
            }
        }

        fn out(&self) -> Vec<&str> {
            self.0.out().map(Name::as_str).collect()
        }

        fn probe(&mut self, outcome: Outcome, at: u64) {
            assert!(self.0.probe(&name("sick"), ms(at), || true), "no probe is due at {at} ms");
            self.0.probed(&name("sick"), outcome, ms(at));
        }
    }

    #[test]
    fn four_silent_ones_in_a_row_put_a_view_out() {
        let mut pair = Pair::default();
        pair.see(3, Silent, InTime, 0);
        pair.see(1, InTime, InTime, 0);
        pair.see(3, Silent, InTime, 0);
        assert_eq!(pair.out(), [""; 0], "an answer between them shows that it lives");
        pair.see(1, Silent, InTime, 0);
        assert_eq!(pair.out(), ["sick"]);
    }

    /// Whoever loses many races that all began before the first of them was lost has lost one.
    #[test]
    fn requests_that_were_under_way_at_the_same_time_are_silent_once() {
        let mut pair = Pair::default();
        let lose = |pair: &mut Pair, sent, at| pair.0.saw(&name("sick"), Silent, ms(sent), &[name("well")], ms(at));
        for at in 10..60 {
            assert!(!lose(&mut pair, 9, at), "at {at} ms");
        }
        assert!(!lose(&mut pair, 20, 70) && !lose(&mut pair, 70, 80));
        assert!(!lose(&mut pair, 79, 85), "it was under way when the one before was lost");
        assert!(lose(&mut pair, 80, 90));
    }

    /// What a lost packet costs, in one of ten answers.
    #[test]
    fn a_view_that_is_often_slow_is_out_if_others_are_not() {
        let run = |well| {
            let mut pair = Pair::default();
            for round in 0..20 {
                pair.see(7, InTime, InTime, 10 * round);
                pair.see(1, Slow, well, 10 * round);
            }
            pair.out().contains(&"sick")
        };
        assert!(run(InTime));
        assert!(!run(Slow), "nobody is out when all are slow");

        let mut pair = Pair::default();
        for round in 0..50 {
            pair.see(30, InTime, InTime, 10 * round);
            pair.see(2, Slow, InTime, 10 * round);
        }
        assert_eq!(pair.out(), [""; 0], "one in sixteen is a hedge's affair");
    }

    /// All become slower at once, but the answers of one come first.
    #[test]
    fn it_takes_a_while_to_be_slow() {
        let mut pair = Pair::default();
        pair.see(64, InTime, InTime, 0);
        let one = |pair: &mut Pair, view: &str, other: &str, at| {
            (0..30).any(|_| pair.0.saw(&name(view), Slow, ms(at), &[name(other)], ms(at)))
        };
        assert!(!one(&mut pair, "sick", "well", 0));
        assert!(!one(&mut pair, "sick", "well", 99));
        let mut alone = pair;
        assert!(one(&mut alone, "sick", "well", 100));

        let mut pair = Pair::default();
        pair.see(64, InTime, InTime, 0);
        for at in (0..1000).step_by(50) {
            assert!(!one(&mut pair, "sick", "well", at) && !one(&mut pair, "well", "sick", at));
        }
    }

    #[test]
    fn one_view_alone_is_never_too_slow() {
        let mut ejector = Ejector::default();
        assert!(!(0..100).any(|_| ejector.saw(&name("only"), Slow, ms(0), &[], ms(0))));
        let rivals = [name("only"), name("unknown")];
        let ejected = (0..100).any(|_| ejector.saw(&name("other"), Slow, ms(0), &rivals, ms(0)));
        assert!(!ejected, "the only one is as slow, and of the unknown nothing is known");
    }

    /// The times of all probes, and what comes of them.
    #[test]
    fn probes_become_rare_and_three_good_ones_bring_a_view_in() {
        let mut pair = Pair::default();
        pair.see(4, Silent, InTime, 1000);
        // What was on its way when it was put out.
        pair.see(9, Silent, InTime, 1001);
        pair.see(9, InTime, InTime, 1002);
        assert!(!pair.0.probe(&name("well"), ms(9999), || true), "who is in is not probed");
        assert!(!pair.0.probe(&name("sick"), ms(1249), || true));
        pair.probe(Silent, 1250);
        assert!(!pair.0.probe(&name("sick"), ms(1749), || true));
        pair.probe(Slow, 1750);
        assert!(!pair.0.probe(&name("sick"), ms(2749), || true));
        assert!(!pair.0.probe(&name("sick"), ms(2750), || false), "nobody paid for it");
        assert!(pair.0.due(ms(2750)).eq([&name("sick")]), "what was not paid for stays due");
        // One that is not heard of again.
        assert!(pair.0.probe(&name("sick"), ms(2750), || true));
        assert!(!pair.0.probe(&name("sick"), ms(3749), || panic!("it is not due: nothing is to be paid")));
        assert_eq!(pair.0.due(ms(3749)).count(), 0);
        pair.probe(InTime, 3750);
        pair.probe(InTime, 3800);
        pair.probe(Slow, 3850);
        let mut at = 3850;
        for pause in [2000, 4000, 8000, 10_000, 10_000] {
            assert!(!pair.0.probe(&name("sick"), ms(at + pause - 1), || true));
            at += pause;
            pair.probe(Silent, at);
        }
        at += 10_000;
        for good in 0..3 {
            assert_eq!(pair.out(), ["sick"]);
            pair.probe(InTime, at + 50 * good);
        }
        assert_eq!(pair.out(), [""; 0]);
    }

    #[test]
    fn who_is_out_again_soon_is_out_for_longer() {
        let mut pair = Pair::default();
        let back_in = |pair: &mut Pair, at: u64| (0..3).for_each(|good| pair.probe(InTime, at + 50 * good));
        pair.see(4, Silent, InTime, 0);
        back_in(&mut pair, 250);
        pair.see(4, Silent, InTime, 1000);
        assert!(!pair.0.probe(&name("sick"), ms(1499), || true));
        back_in(&mut pair, 1500);
        // Later than what is held against it: twenty times 500 ms.
        pair.see(4, Silent, InTime, 12_000);
        assert!(pair.0.probe(&name("sick"), ms(12_250), || true));
    }
}

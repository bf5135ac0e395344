//! How often a leader speaks, and how long its silence is borne: from how far the log nodes are apart.
//!
//! Safety never rests on these times, only how soon a dead leader is replaced, and that a living one is not. So
//! each node takes its own from the longest round trip to another log node:
//!
//! - *heartbeat*: openraft asks each member whether it still follows, one question at a time, and an answer that
//!   takes longer than a heartbeat is lost. So it is the longest round trip and an eighth more, for jitter.
//! - *lease* (`election_max`): for how long those who heard the leader refuse another, and for how long a leader
//!   that a majority answered takes proposals. When it is idle, its newest answer is as old as a heartbeat, a tick
//!   of openraft's (13/64 of one) and a round trip. So it is these together, and [`JITTER`].
//! - *election_min*: openraft waits between this and the lease before it asks for votes by itself, and waits this
//!   long for a vote. It is five sevenths of the lease: more than a heartbeat and than any round trip.
//! - *beat*: the leader says one way that it lives, so that this needs no round trip: at least seven times a lease.
//!
//! In one building this would be a few milliseconds, less than a busy machine's pauses: hence the floors.
//! What the topology sets is taken as it is, and warned about when it does not fit.

use beam_wire::ids::Name;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of a round trip, while a network is busy.
const JITTER: Duration = Duration::from_millis(35);
/// What is taken for a node that nothing is known of: an ocean.
const UNKNOWN: Duration = Duration::from_millis(130);
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
const LEASE_MIN: Duration = Duration::from_millis(300);
const BEAT_MIN: Duration = Duration::from_millis(50);
/// What an answer needs beyond the round trip.
const MARGIN: Duration = Duration::from_millis(5);
/// A lease that is longer than needed by this factor, and this much, is worth a word.
const SLOW_FACTOR: u32 = 3;
const SLOW: Duration = Duration::from_secs(1);

/// What is known before anything was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// `[log] heartbeat`
    pub heartbeat: Option<Duration>,
    /// `[log] election`
    pub election: Option<(Duration, Duration)>,
    /// The round trips to the other log nodes, by the topology's `[[link]]`s.
    pub round_trips: BTreeMap<Name, Duration>,
}

impl Given {
    /// Whether measuring would change nothing.
    pub fn is_complete(&self) -> bool {
        self.heartbeat.is_some() && self.election.is_some()
    }
}

/// See the top of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    pub heartbeat: Duration,
    pub beat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self::for_round_trip(UNKNOWN, &Given::default())
    }
}

impl Timers {
    /// `others` are the other log nodes, with the round trips that were measured.
    pub fn derive(given: &Given, others: &BTreeMap<Name, Option<Duration>>) -> Self {
        let known = |(node, measured): (&Name, &Option<Duration>)| measured.or(given.round_trips.get(node).copied());
        let longest = others.iter().map(|other| known(other).unwrap_or(UNKNOWN)).max().unwrap_or_default();
        Self::for_round_trip(longest, given)
    }

    fn for_round_trip(round_trip: Duration, given: &Given) -> Self {
        let derived = whole(round_trip + (round_trip / 8).max(MARGIN * 2)).max(HEARTBEAT_MIN);
        // openraft does not start with an election_min that is no longer than the heartbeat.
        let at_most = given.election.map_or(derived, |(min, _)| min.saturating_sub(MARGIN).max(MARGIN));
        let heartbeat = given.heartbeat.unwrap_or(derived.min(at_most));
        let (election_min, election_max) = given.election.unwrap_or_else(|| {
            let lease = whole(heartbeat + tick(heartbeat) + round_trip + JITTER).max(LEASE_MIN);
            ((lease * 5 / 7).max(heartbeat + MARGIN), lease)
        });
        let beat = BEAT_MIN.max(election_max / 14).min(election_max / 4);
        Self { heartbeat, beat, election_min, election_max }
    }

    /// What does not fit the round trips to the voters, one sentence each.
    pub fn warnings(&self, voters: &BTreeMap<Name, Duration>) -> Vec<String> {
        let Some((node, longest)) = voters.iter().max_by_key(|(_, round_trip)| **round_trip) else {
            return Vec::new();
        };
        let fitting = Self::for_round_trip(*longest, &Given::default());
        let way_out = format!(
            "restart this node, so that it takes times that fit, or set [log] heartbeat_ms = {}, election_min_ms = {}, election_max_ms = {}",
            fitting.heartbeat.as_millis(),
            fitting.election_min.as_millis(),
            fitting.election_max.as_millis()
        );
        let mut warnings = Vec::new();
        let needed = *longest + MARGIN;
        if self.heartbeat < needed {
            warnings.push(format!(
                "the heartbeat of {:?} is shorter than the round trip to {node} ({}): its answers count as lost; {way_out}",
                self.heartbeat,
                text(*longest)
            ));
        }
        let lease = self.heartbeat + tick(self.heartbeat) + *longest;
        if self.election_max < lease {
            warnings.push(format!(
                "the lease of {:?} is shorter than a heartbeat, a tick and the round trip to {node} ({}) together: an idle \
                 leader refuses proposals for a moment; {way_out}",
                self.election_max,
                text(*longest)
            ));
        }
        if self.election_max > fitting.election_max * SLOW_FACTOR && self.election_max > fitting.election_max + SLOW {
            warnings.push(format!(
                "a dead leader is noticed after {:?}, and {:?} would do: the longest round trip to a voter is {}; {way_out}",
                self.election_max,
                fitting.election_max,
                text(*longest)
            ));
        }
        warnings
    }
}

/// openraft looks at its timers this often.
fn tick(heartbeat: Duration) -> Duration {
    heartbeat * 13 / 64
}

/// Up to the next ten milliseconds, so that a little jitter does not give other times at each start.
fn whole(duration: Duration) -> Duration {
    Duration::from_millis((duration.as_micros() as u64).div_ceil(10_000) * 10)
}

/// To a tenth of a millisecond.
fn text(round_trip: Duration) -> String {
    format!("{:.1} ms", round_trip.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn timers(heartbeat: u64, beat: u64, election_min: u64, election_max: u64) -> Timers {
        let (heartbeat, beat) = (ms(heartbeat), ms(beat));
        let round = |d: Duration| Duration::from_millis(d.as_millis() as u64);
        Timers { heartbeat, beat, election_min: round(ms(election_min)), election_max: ms(election_max) }
    }

    /// Whole milliseconds are what openraft takes.
    fn derive(given: &Given, round_trips: &[Option<u64>]) -> Timers {
        let others = (0..).zip(round_trips).map(|(n, rtt)| (name(&format!("n{n}")), rtt.map(ms))).collect();
        let Timers { heartbeat, beat, election_min, election_max } = Timers::derive(given, &others);
        let whole = |d: Duration| ms(d.as_millis() as u64);
        Timers { heartbeat, beat: whole(beat), election_min: whole(election_min), election_max }
    }

    #[test]
    fn times_follow_from_the_longest_round_trip() {
        let nothing = Given::default();
        let table: [(&[Option<u64>], Timers); 8] = [
            (&[Some(0), Some(1)], timers(100, 50, 214, 300)),
            (&[Some(20), Some(30)], timers(100, 50, 214, 300)),
            (&[Some(60), Some(76)], timers(100, 50, 214, 300)),
            (&[Some(60), Some(130)], timers(150, 50, 250, 350)),
            (&[Some(250), Some(300)], timers(340, 53, 535, 750)),
            // Nothing is known of one.
            (&[Some(60), None], timers(150, 50, 250, 350)),
            (&[Some(300), None], timers(340, 53, 535, 750)),
            // Alone.
            (&[], timers(100, 50, 214, 300)),
        ];
        for (round_trips, expected) in table {
            assert_eq!(derive(&nothing, round_trips), expected, "{round_trips:?}");
        }
    }

    #[test]
    fn the_links_of_the_topology_stand_in_for_what_was_not_measured() {
        let given = Given { round_trips: [(name("n0"), ms(20)), (name("n1"), ms(300))].into(), ..Given::default() };
        assert_eq!(derive(&given, &[None, None]), timers(340, 53, 535, 750));
        assert_eq!(derive(&given, &[None, Some(1)]), timers(100, 50, 214, 300), "what was measured counts");
    }

    #[test]
    fn what_the_topology_sets_is_kept_and_the_rest_fits_it() {
        let heartbeat = Given { heartbeat: Some(ms(500)), ..Given::default() };
        assert_eq!(derive(&heartbeat, &[Some(1)]), timers(500, 50, 505, 640));
        let election = Given { election: Some((ms(90), ms(120))), ..Given::default() };
        assert_eq!(derive(&election, &[Some(60)]), timers(85, 30, 90, 120));
        let both = Given { heartbeat: Some(ms(150)), election: Some((ms(1000), ms(2000))), ..Given::default() };
        assert_eq!(derive(&both, &[Some(1)]), timers(150, 142, 1000, 2000));
        assert!(both.is_complete() && !election.is_complete());
    }

    #[test]
    fn whatever_was_measured_the_times_agree_with_each_other() {
        for rtt in 0..2000 {
            let t = Timers::for_round_trip(ms(rtt), &Given::default());
            assert!(t.heartbeat > ms(rtt) && t.election_min > t.heartbeat && t.election_max > t.election_min, "{t:?}");
            assert!(t.election_min > ms(rtt), "a vote comes back in time: {t:?}");
            assert!(t.election_max >= t.heartbeat + tick(t.heartbeat) + ms(rtt), "{t:?}");
            assert!(t.beat * 4 <= t.election_max, "{t:?}");
            assert_eq!(t.warnings(&[(name("other"), ms(rtt))].into()), [""; 0], "{rtt} ms");
        }
    }

    #[test]
    fn what_does_not_fit_is_warned_about() {
        let far = [(name("near"), ms(1)), (name("far"), ms(200))].into();
        let [heartbeat, lease] = &Timers::default().warnings(&far)[..] else { panic!("two warnings") };
        assert!(
            heartbeat.starts_with("the heartbeat of 150ms is shorter than the round trip to far (200.0 ms)"),
            "{heartbeat}"
        );
        assert!(
            heartbeat.ends_with("set [log] heartbeat_ms = 230, election_min_ms = 371, election_max_ms = 520"),
            "{heartbeat}"
        );
        assert!(lease.starts_with("the lease of 350ms is shorter than"), "{lease}");
        let slow = Timers { election_max: ms(5000), election_min: ms(4000), ..Timers::default() };
        let warnings = slow.warnings(&[(name("near"), ms(1))].into());
        assert!(warnings[0].starts_with("a dead leader is noticed after 5s, and 300ms would do"), "{warnings:?}");
        assert_eq!(slow.warnings(&BTreeMap::new()), [""; 0], "nothing was measured");
    }
}

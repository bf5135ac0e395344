//! Whether to ask another view now, to wait, or to give up: decided here, without I/O and without a clock.
//!
//! One [`Hedge`] follows one batch. It asks somebody; when that is late, and the [`Budget`] allows it, it
//! asks somebody else as well; when all who were asked are late, one more. The first answer counts. When somebody fails, others are asked at once.
//! When nobody is left, all are forgiven after a pause, a few times. Times are given as durations since any
//! common beginning.

use beam_wire::Name;
use std::collections::BTreeSet;
use std::time::Duration;

/// Requests to send together, which cover the batch: one, unless no single view holds all of its points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way<P> {
    /// What to send.
    pub parts: Vec<P>,
    /// The views that are asked, in the order of `parts`.
    pub views: Vec<Name>,
    /// The way is late when nothing was heard for so long.
    pub late_after: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<P> {
    /// Send these requests. Their number is told with all that is heard of them.
    Send {
        /// The number of the way.
        way: usize,
        /// What to send.
        parts: Vec<P>,
        /// Others are on, and late.
        hedge: bool,
    },
    /// Nothing, until then.
    WaitUntil(Duration),
    /// Stop.
    GiveUp(GiveUp),
}

/// Why to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// There is no time left.
    Deadline,
    /// All who could answer have failed, repeatedly; or there is nobody.
    NobodyLeft,
}

/// The decisions of one batch.
#[derive(Debug)]
pub struct Hedge {
    deadline: Duration,
    /// It follows a part of a batch whose own hedge has earned for it.
    within: bool,
    ways: Vec<State>,
    failed: BTreeSet<Name>,
    rounds_left: u32,
    pause: Option<Duration>,
}

#[derive(Debug)]
struct State {
    views: Vec<Name>,
    running: bool,
    /// It was sent, or something was heard of it last.
    since: Duration,
    late_after: Duration,
    /// When to ask somebody else.
    late_at: Duration,
}

/// How often all who failed are forgiven: with the pauses below, for about three seconds, which a view that
/// starts anew after a crash needs.
const ROUNDS_MAX: u32 = 6;

/// The first pause; each following one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// Ways that are on at once: all views of a datacenter that hold the same may be gone at once, and another one must be asked
/// before QUIC notices. More would only add to what makes them late.
const WAYS_MAX: usize = 4;

/// Chunks of one answer may lie further apart than its beginning and the request: a scan finds nothing for a
/// while.
const SILENCE_MIN: Duration = Duration::from_millis(250);

/// How long to wait for a view whose answers mostly came within `recent`, its recent 95th percentile. Below
/// the floor, hedges answer the noise of a scheduler; above the ceiling, people have left.
pub fn late_after(recent: Duration) -> Duration {
    recent.clamp(Duration::from_millis(5), Duration::from_secs(2))
}

impl Hedge {
    /// Nothing is asked yet.
    pub fn new(deadline: Duration) -> Hedge {
        let (ways, failed) = (Vec::new(), BTreeSet::new());
        Hedge { deadline, within: false, ways, failed, rounds_left: ROUNDS_MAX, pause: None }
    }

    /// For one part of a way that consists of several: its requests were counted when the way was sent, so they earn
    /// nothing again; and those who fail are forgiven only by the hedge of the way.
    pub fn within(deadline: Duration) -> Hedge {
        Hedge { within: true, rounds_left: 0, ..Hedge::new(deadline) }
    }

    /// Do not ask this view: it failed already, or is asked for the same by another way.
    pub fn avoid(&mut self, view: Name) {
        self.failed.insert(view);
    }

    /// What to do at `now`. `find` returns a way that asks none of the given views.
    pub fn next<P>(
        &mut self,
        now: Duration,
        budget: &mut Budget,
        find: &mut dyn FnMut(&BTreeSet<Name>) -> Option<Way<P>>,
    ) -> Next<P> {
        if now >= self.deadline {
            return Next::GiveUp(GiveUp::Deadline);
        }
        match self.running().max_by_key(|way| self.ways[*way].late_at) {
            None => self.next_first(now, budget, find),
            Some(latest) => self.next_hedge(latest, now, budget, find),
        }
    }

    fn next_first<P>(
        &mut self,
        now: Duration,
        budget: &mut Budget,
        find: &mut dyn FnMut(&BTreeSet<Name>) -> Option<Way<P>>,
    ) -> Next<P> {
        match self.pause {
            Some(pause) if now < pause => return Next::WaitUntil(pause.min(self.deadline)),
            Some(_) => {
                self.failed.clear();
                self.pause = None;
            }
            None => {}
        }
        if let Some(way) = find(&self.failed) {
            if !self.within {
                budget.earn(way.parts.len());
            }
            return self.send(way, now, false);
        }
        if self.rounds_left == 0 {
            return Next::GiveUp(GiveUp::NobodyLeft);
        }
        let pause = now + PAUSE_FIRST * (1 << (ROUNDS_MAX - self.rounds_left));
        self.rounds_left -= 1;
        self.pause = Some(pause);
        Next::WaitUntil(pause.min(self.deadline))
    }

    /// One or more ways are on; `latest` is the one that will be late after all others.
    fn next_hedge<P>(
        &mut self,
        latest: usize,
        now: Duration,
        budget: &mut Budget,
        find: &mut dyn FnMut(&BTreeSet<Name>) -> Option<Way<P>>,
    ) -> Next<P> {
        let late_at = self.ways[latest].late_at;
        if now < late_at {
            return Next::WaitUntil(late_at.min(self.deadline));
        }
        if self.running().count() == WAYS_MAX {
            return Next::WaitUntil(self.deadline);
        }
        let way = find(&self.unwanted());
        let wait = match way {
            Some(way) if budget.spend(way.parts.len()) => return self.send(way, now, true),
            // Every request that goes well adds to the budget.
            Some(_) => self.ways[latest].late_after.max(PAUSE_FIRST / 10),
            None => self.ways[latest].late_after.max(SILENCE_MIN),
        };
        self.ways[latest].late_at = now + wait;
        Next::WaitUntil((now + wait).min(self.deadline))
    }

    fn send<P>(&mut self, way: Way<P>, now: Duration, hedge: bool) -> Next<P> {
        let Way { parts, views, late_after } = way;
        self.ways.push(State { views, running: true, since: now, late_after, late_at: now + late_after });
        Next::Send { way: self.ways.len() - 1, parts, hedge }
    }

    /// A part of an answer came, but not its end.
    pub fn heard(&mut self, way: usize, now: Duration) {
        let way = &mut self.ways[way];
        way.since = now;
        way.late_after = way.late_after.max(SILENCE_MIN);
        way.late_at = now + way.late_after;
    }

    /// Whether nothing was heard of a way for longer than is usual.
    pub fn is_late(&self, way: usize, now: Duration) -> bool {
        now - self.ways[way].since >= self.ways[way].late_after
    }

    /// The way failed, because of this view if one is to blame.
    pub fn failed(&mut self, way: usize, view: Option<&Name>) {
        self.ways[way].running = false;
        match view {
            Some(view) => {
                self.failed.insert(view.clone());
            }
            // Else the same way would be found again, at once.
            None => self.failed.extend(self.ways[way].views.iter().cloned()),
        }
    }

    /// The views that failed or are being asked.
    pub fn unwanted(&self) -> BTreeSet<Name> {
        let asked = self.ways.iter().filter(|way| way.running).flat_map(|way| &way.views);
        self.failed.iter().chain(asked).cloned().collect()
    }

    /// The ways that are on.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.ways.len()).filter(|way| self.ways[*way].running)
    }
}

/// Limits hedges to a twentieth of all requests, with a small burst: when everything is slow, asking
/// twice makes it slower.
#[derive(Debug)]
pub struct Budget {
    /// In twentieths of a request.
    saved: u64,
}

/// A hedge costs what so many requests earn: 5 % extra.
const REQUESTS_PER_HEDGE: u64 = 20;

/// Hedges that may be sent at once after a quiet time: when a view stops, all that wait for it should be hedged, before it
/// is known well enough to be left out.
pub(super) const BURST: u64 = 25;

impl Default for Budget {
    fn default() -> Self {
        Budget { saved: BURST * REQUESTS_PER_HEDGE }
    }
}

impl Budget {
    /// So many first requests were sent.
    pub fn earn(&mut self, requests: usize) {
        self.saved = (self.saved + requests as u64).min(BURST * REQUESTS_PER_HEDGE);
    }

    /// Takes what so many extra requests cost, if there is enough.
    pub fn spend(&mut self, requests: usize) -> bool {
        let left = self.saved.checked_sub(requests as u64 * REQUESTS_PER_HEDGE);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;
    use std::path::Path;

    /// Runs every story in `hedge/`, and compares what was decided with what the story says.
    ///
    /// Above `---` stands what happens: `views near late=20 far late=100` in order of preference, `deadline
    /// MS`, `hedges N` (what the budget allows), `ask` (once, at 0 ms), `advance MS`, `chunk VIEW`, `fail
    /// VIEW`, `answer VIEW`. Below it, what is done.
    #[test]
    fn stories() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/hedge");
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 8);
        for file in files {
            let story = std::fs::read_to_string(&file).unwrap();
            let (events, expected) = story.split_once("---\n").unwrap();
            assert_eq!(play(events), expected, "{} tells otherwise", file.display());
        }
    }

    fn play(events: &str) -> String {
        let mut stage = Stage {
            views: Vec::new(),
            hedge: Hedge::new(ms(10_000)),
            budget: Budget::default(),
            sent: Vec::new(),
            now: ms(0),
            wake: None,
            over: false,
            said: String::new(),
        };
        for line in events.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["views", ..] => {
                    stage.views = words[1..].chunks(2).map(|v| (v[0].into(), v[1][5..].parse().unwrap())).collect()
                }
                ["deadline", at] => stage.hedge = Hedge::new(ms(at.parse().unwrap())),
                ["hedges", count] => stage.budget.saved = count.parse::<u64>().unwrap() * REQUESTS_PER_HEDGE,
                ["ask"] => stage.act(),
                ["advance", by] => stage.advance(ms(by.parse().unwrap())),
                ["chunk", view] => {
                    let way = stage.way(view);
                    stage.hedge.heard(way, stage.now);
                    stage.say(format!("← {view}, more follows"));
                    stage.act();
                }
                ["fail", view] => {
                    let way = stage.way(view);
                    stage.hedge.failed(way, Some(&Name::new(view).unwrap()));
                    stage.say(format!("← {view} fails"));
                    stage.act();
                }
                ["answer", view] => {
                    let way = stage.way(view);
                    stage.say(format!("← {view}"));
                    let losers: Vec<usize> = stage.hedge.running().filter(|w| *w != way).collect();
                    losers.into_iter().for_each(|w| stage.say(format!("{} reset", stage.sent[w])));
                    stage.over = true;
                }
                _ => panic!("what does {line:?} mean?"),
            }
        }
        stage.said
    }

    struct Stage {
        views: Vec<(String, u64)>,
        hedge: Hedge,
        budget: Budget,
        sent: Vec<String>,
        now: Duration,
        wake: Option<Duration>,
        over: bool,
        said: String,
    }

    impl Stage {
        fn say(&mut self, what: String) {
            writeln!(self.said, "{:<7} {what}", format!("{}ms", self.now.as_millis())).unwrap();
        }

        fn way(&self, view: &str) -> usize {
            self.hedge.running().find(|way| self.sent[*way] == view).unwrap_or_else(|| panic!("{view} is not asked"))
        }

        fn advance(&mut self, by: Duration) {
            let end = self.now + by;
            while let Some(wake) = self.wake.filter(|w| *w <= end && !self.over) {
                self.now = wake;
                self.act();
            }
            self.now = end;
        }

        /// Does what the hedge says until it says to wait.
        fn act(&mut self) {
            self.wake = None;
            while !self.over && self.wake.is_none() {
                let views = &self.views;
                let mut find = |avoid: &BTreeSet<Name>| {
                    let (name, late) = views.iter().find(|(v, _)| !avoid.contains(&Name::new(v).unwrap()))?;
                    let view = Name::new(name).unwrap();
                    Some(Way { parts: vec![view.clone()], views: vec![view], late_after: ms(*late) })
                };
                match self.hedge.next(self.now, &mut self.budget, &mut find) {
                    Next::Send { way, parts, hedge } => {
                        assert_eq!(way, self.sent.len());
                        self.sent.push(parts[0].as_str().into());
                        self.say(format!("→ {}{}", parts[0], if hedge { ", a hedge" } else { "" }));
                    }
                    Next::WaitUntil(at) => {
                        assert!(at > self.now, "a wait that is over would spin");
                        self.wake = Some(at);
                    }
                    Next::GiveUp(why) => {
                        self.over = true;
                        self.say(format!("gives up: {why:?}"));
                    }
                }
            }
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_budget_lets_one_in_twenty_through_and_a_small_burst() {
        let mut budget = Budget::default();
        let burst = (0..100).filter(|_| budget.spend(1)).count();
        assert_eq!(burst as u64, BURST);
        let mut hedges = 0;
        for _ in 0..1000 {
            budget.earn(1);
            hedges += usize::from(budget.spend(1));
        }
        assert_eq!(hedges, 50);
        budget.earn(20);
        assert!(!budget.spend(2), "a hedge that takes two requests costs two");
    }
}

//! Looks facts up by batches of patterns, at one exact version.
//!
//! A [`Lookup`] holds one snapshot of the disk for as long as it lasts, so everything that it finds
//! is of one version, whatever is applied meanwhile. It is read in bounded slices, between which a
//! caller may go away, and its deadline may pass.
//!
//! What was live at T is what is live now and was inserted at or before T, and what is past but was
//! inserted at or before T and deleted after. The past is asked only where the write history shows
//! a write after T, and read from recent deletions in memory where they reach back to T.
//!
//! Nor is the disk asked for what was found before and, as the write history shows, not written since ([`RowCache`]).

use super::apply::{Held, Shared};
use super::keys::{self, Key, Order};
use super::recent::Deleted;
use super::row_cache::{Answer, FACTS_MAX, RowCache};
use super::store::{Scan, Snapshot, StorageError, Store};
use super::verdict::Slots;
use beam_wire::command::AccessPath;
use beam_wire::fact::{GraphPattern, Pattern};
use beam_wire::{CallError, Code, Epoch, Fact, LogIndex, Point, Range, Space, TermId, Version};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Facts in one slice: with their numbers they take less than 256 KiB.
pub const SLICE_FACTS: usize = 3_500;
/// Keys that one slice visits at most: a few milliseconds.
const SLICE_KEYS: usize = 20_000;
/// Versions of one fact that are stepped over before seeking past them all: a seek costs about as much.
const STEPS_BEFORE_SEEK: usize = 16;

/// Why facts cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The caller should know something that it does not.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Which version a look-up reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// This one.
    Exact(Version),
    /// Any at or after this one.
    AtLeast(Version),
}

/// A batch of patterns, being looked up.
pub struct Lookup {
    snapshot: Snapshot,
    index: LogIndex,
    /// What the snapshot is of.
    applied: LogIndex,
    /// The write history; none while it does not cover the snapshot.
    slots: Option<Slots>,
    rows: RowCache,
    /// All live facts of the current pattern's prefix so far; none if they are too many, or will not be all.
    gathered: Option<Vec<Fact>>,
    space: Space,
    /// Only facts at these points; none if the view holds no others.
    range: Option<Range>,
    last_point: Option<(TermId, Point)>,
    past: Past,
    /// Facts found per pattern, at most.
    limit: u64,
    plans: Vec<Plan>,
    /// The pattern that is being looked up.
    current: usize,
    stage: Stage,
    found: u64,
    /// Keys looked at so far.
    visited: u64,
    /// Patterns that counters have answered.
    counted: Vec<(u32, u64)>,
}

/// How a pattern is looked up.
struct Plan {
    number: u32,
    pattern: Pattern,
    order: Order,
    prefix: Key,
}

/// Where the past is read.
enum Past {
    /// Nothing was deleted after the version.
    None,
    /// From memory, by order: past keys, ascending.
    Recent { deletions: Vec<Deleted>, by_order: BTreeMap<Order, Vec<Key>> },
    /// From disk.
    Disk,
}

enum Stage {
    Start,
    /// From an answer of before: the place in it.
    Remembered(Arc<Answer>, usize),
    Live(Scan),
    LiveDone,
    Past(Box<PastScan>),
}

struct PastScan {
    scan: Scan,
    /// The fact whose versions are being read, and how many in a row were of no use.
    fact: Option<Fact>,
    steps: usize,
}

/// What a slice found.
#[derive(Debug, Default)]
pub struct Slice {
    /// The pattern's number and the fact.
    pub facts: Vec<(u32, Fact)>,
    /// The pattern's number and a count that was known without looking.
    pub counts: Vec<(u32, u64)>,
    /// Nothing follows.
    pub done: bool,
}

/// What is read.
pub struct Request<'a> {
    /// The version.
    pub at: At,
    /// `Subject` or `Object`.
    pub space: Space,
    /// Only facts at these points.
    pub range: Range,
    /// What is looked for.
    pub patterns: &'a [Pattern],
    /// Facts found per pattern, at most.
    pub limit: u64,
}

impl Lookup {
    /// Takes the snapshot. The caller has waited until the version is applied, and knows that the
    /// view holds the range.
    pub fn open(store: &Store, shared: &Shared, held: &Held, request: &Request<'_>) -> Result<Lookup, LookupError> {
        let snapshot = store.snapshot();
        let progress = snapshot.progress()?;
        let epoch = progress.rules.as_ref().map(|rules| rules.epoch);
        let index = match request.at {
            At::Exact(version) => {
                check_version(version, epoch, progress.oldest, progress.applied)?;
                version.index
            }
            At::AtLeast(version) => {
                check_version(version, epoch, LogIndex(0), progress.applied)?;
                progress.applied
            }
        };
        let past = if index == progress.applied {
            Past::None
        } else {
            let space = usize::from(request.space == Space::Object);
            // After the snapshot was taken, so that all of its deletions are there.
            match shared.recent(space).between(index, progress.applied) {
                Some(deletions) if deletions.is_empty() => Past::None,
                Some(deletions) => Past::Recent { deletions, by_order: BTreeMap::new() },
                None => Past::Disk,
            }
        };
        let mut plans: Vec<Plan> = request
            .patterns
            .iter()
            .enumerate()
            .map(|(number, pattern)| Plan::new(number as u32, pattern, request.space))
            .collect();
        plans.sort_by(|a, b| a.order.cmp(&b.order).then(a.prefix.cmp(&b.prefix)));
        Ok(Lookup {
            snapshot,
            index,
            applied: progress.applied,
            // After the snapshot was taken, so that all of its writes are there.
            slots: shared.slots(),
            rows: shared.rows().clone(),
            gathered: None,
            space: request.space,
            range: (held.ranges(request.space) != [request.range]).then_some(request.range),
            last_point: None,
            past,
            limit: request.limit,
            plans,
            current: 0,
            stage: Stage::Start,
            found: 0,
            visited: 0,
            counted: Vec::new(),
        })
    }

    /// As [`Lookup::open`], for those who only count: where a counter knows, no fact is looked at.
    pub fn count(store: &Store, shared: &Shared, held: &Held, request: &Request<'_>) -> Result<Lookup, LookupError> {
        let mut lookup = Lookup::open(store, shared, held, request)?;
        if lookup.space == Space::Subject && lookup.range.is_none() {
            let mut counted = Vec::new();
            for plan in &lookup.plans {
                if let Some(count) = counter(&lookup.snapshot, &plan.pattern)? {
                    counted.push((plan.number, count.min(request.limit)));
                }
            }
            lookup.plans.retain(|plan| counted.iter().all(|(number, _)| *number != plan.number));
            lookup.counted = counted;
        }
        Ok(lookup)
    }

    /// Finds more. A slice may be empty without being the last.
    pub fn slice(&mut self) -> Result<Slice, LookupError> {
        let slice = self.find()?;
        // Compaction does not know of snapshots: it may have dropped what this slice needed.
        if self.snapshot.floor() > self.index {
            let message = format!("version {} grew too old for this view while it was being read", self.index);
            return Err(CallError::elsewhere(Code::TooOld, message).into());
        }
        Ok(slice)
    }

    fn find(&mut self) -> Result<Slice, StorageError> {
        let mut slice = Slice { counts: std::mem::take(&mut self.counted), ..Slice::default() };
        let mut keys = SLICE_KEYS;
        while self.current < self.plans.len() {
            if slice.facts.len() >= SLICE_FACTS || keys == 0 {
                return Ok(slice);
            }
            keys -= 1;
            self.visited += 1;
            if self.found >= self.limit {
                self.next_pattern();
                continue;
            }
            if let Some(fact) = self.step()? {
                slice.facts.push((self.plans[self.current].number, fact));
                self.found += 1;
            }
        }
        slice.done = true;
        Ok(slice)
    }

    /// How many keys it has looked at, found or not.
    pub fn visited(&self) -> u64 {
        self.visited
    }

    /// Looks at one key, or goes on to the next stage or pattern.
    fn step(&mut self) -> Result<Option<Fact>, StorageError> {
        let plan = &self.plans[self.current];
        match &mut self.stage {
            Stage::Start => {
                if let Some(fact) = exact(&plan.pattern) {
                    self.stage = Stage::LiveDone;
                    let inserted = self.snapshot.live(self.plans[self.current].order, &fact)?;
                    let live = inserted.is_some_and(|inserted| inserted <= self.index);
                    return Ok((live && self.in_range(&fact)).then_some(fact));
                }
                if let Some(answer) = self.remembered() {
                    self.stage = Stage::Remembered(answer, 0);
                    return Ok(None);
                }
                self.stage = Stage::Live(self.snapshot.live_prefix(plan.order, &plan.prefix));
                self.gathered = Some(Vec::new()).filter(|_| !plan.prefix.as_ref().is_empty());
                Ok(None)
            }
            Stage::Remembered(answer, next) => {
                let Some(fact) = answer.facts.get(*next).copied() else {
                    self.next_pattern();
                    return Ok(None);
                };
                *next += 1;
                Ok((plan.pattern.matches(&fact) && self.in_range(&fact)).then_some(fact))
            }
            Stage::Live(scan) => {
                let Some(item) = scan.next() else {
                    if let Some(facts) = self.gathered.take() {
                        let answer = Answer { at: self.applied, facts: facts.into() };
                        self.rows.put(plan.order, &plan.prefix, answer);
                    }
                    self.stage = Stage::LiveDone;
                    return Ok(None);
                };
                let (key, value) = item?;
                let fact = keys::read_live(plan.order, &key)?;
                match &mut self.gathered {
                    Some(facts) if facts.len() < FACTS_MAX => facts.push(fact),
                    _ => self.gathered = None,
                }
                let found = plan.pattern.matches(&fact) && keys::read_index(&value)? <= self.index;
                Ok((found && self.in_range(&fact)).then_some(fact))
            }
            Stage::LiveDone => {
                self.begin_past();
                Ok(None)
            }
            Stage::Past(_) => self.step_past(),
        }
    }

    /// What was found before for the current pattern's prefix, if nothing that the pattern matches was written between
    /// then and this version.
    fn remembered(&self) -> Option<Arc<Answer>> {
        let (plan, slots) = (&self.plans[self.current], self.slots.as_ref()?);
        let answer = self.rows.get(plan.order, &plan.prefix)?;
        (!written_after(slots, &plan.pattern, self.index.min(answer.at))).then_some(answer)
    }

    /// Opens the past for the current pattern, or answers from memory and goes on.
    fn begin_past(&mut self) {
        let plan = &self.plans[self.current];
        if matches!(self.past, Past::None) {
            return self.next_pattern();
        }
        if self.slots.as_ref().is_some_and(|slots| !written_after(slots, &plan.pattern, self.index)) {
            return self.next_pattern();
        }
        let scan = match &mut self.past {
            Past::Recent { deletions, by_order } => {
                let (order, index) = (plan.order, self.index);
                let sorted = by_order.entry(order).or_insert_with(|| {
                    let of_version = deletions.iter().filter(|d| d.inserted <= index);
                    let mut sorted: Vec<_> =
                        of_version.map(|d| Key::past(order, &d.fact, d.deleted, d.inserted)).collect();
                    sorted.sort_unstable();
                    sorted
                });
                let first = sorted.partition_point(|key| key < &plan.prefix);
                let prefix = plan.prefix.as_ref();
                Scan::of(sorted[first..].iter().take_while(|key| key.as_ref().starts_with(prefix)).copied().collect())
            }
            _ => self.snapshot.past_from(plan.order, &plan.prefix, &plan.prefix),
        };
        self.stage = Stage::Past(Box::new(PastScan { scan, fact: None, steps: 0 }));
    }

    fn step_past(&mut self) -> Result<Option<Fact>, StorageError> {
        let plan = &self.plans[self.current];
        let Stage::Past(past) = &mut self.stage else { unreachable!("only called in this stage") };
        let Some(item) = past.scan.next() else {
            self.next_pattern();
            return Ok(None);
        };
        let (fact, deleted, inserted) = keys::read_past(plan.order, &item?.0)?;
        if past.fact != Some(fact) {
            past.fact = Some(fact);
            past.steps = 0;
        }
        if deleted > self.index && inserted <= self.index {
            let found = plan.pattern.matches(&fact);
            return Ok((found && self.in_range(&fact)).then_some(fact));
        }
        past.steps += 1;
        if past.steps >= STEPS_BEFORE_SEEK {
            // Versions of a fact follow one another. Only the first that was deleted after the
            // version can have been live at it.
            let target = if deleted <= self.index { self.index.next() } else { keys::AFTER_ALL_INDEXES };
            let from = Key::past(plan.order, &fact, target, LogIndex(0));
            past.scan = self.snapshot.past_from(plan.order, &plan.prefix, &from);
            past.steps = 0;
        }
        Ok(None)
    }

    fn next_pattern(&mut self) {
        self.current += 1;
        self.stage = Stage::Start;
        self.found = 0;
    }

    fn in_range(&mut self, fact: &Fact) -> bool {
        let Some(range) = self.range else { return true };
        let term = if self.space == Space::Subject { fact.subject } else { fact.object };
        let point = match self.last_point {
            Some((last, point)) if last == term => point,
            _ => term.point(),
        };
        self.last_point = Some((term, point));
        range.contains(point)
    }
}

impl Plan {
    fn new(number: u32, pattern: &Pattern, space: Space) -> Plan {
        let Pattern { subject, predicate, object, .. } = pattern;
        let (order, terms) = match (space, subject, predicate) {
            (Space::Object, ..) => (Order::Opsg, [object, predicate, subject]),
            (_, None, Some(_)) => (Order::Posg, [predicate, object, subject]),
            _ => (Order::Spog, [subject, predicate, object]),
        };
        let given: Vec<TermId> = terms.iter().map_while(|term| **term).collect();
        Plan { number, pattern: *pattern, order, prefix: Key::prefix(&given) }
    }
}

/// The only fact that can match, where the pattern leaves nothing open.
fn exact(pattern: &Pattern) -> Option<Fact> {
    let graph = match pattern.graph {
        GraphPattern::Default => TermId::DEFAULT_GRAPH,
        GraphPattern::Named(graph) => graph,
        GraphPattern::AnyNamed | GraphPattern::Any => return None,
    };
    Some(Fact { subject: pattern.subject?, predicate: pattern.predicate?, object: pattern.object?, graph })
}

/// How many live facts match, where a counter knows.
fn counter(snapshot: &Snapshot, pattern: &Pattern) -> Result<Option<u64>, StorageError> {
    Ok(match pattern {
        Pattern { subject: None, predicate: None, object: None, graph: GraphPattern::Any } => {
            Some(snapshot.progress()?.facts)
        }
        Pattern { subject: None, predicate: Some(predicate), object: None, graph } => match graph {
            GraphPattern::Default => Some(snapshot.count(predicate, false)?),
            GraphPattern::AnyNamed => Some(snapshot.count(predicate, true)?),
            GraphPattern::Any => Some(snapshot.count(predicate, false)? + snapshot.count(predicate, true)?),
            GraphPattern::Named(_) => None,
        },
        _ => None,
    })
}

/// Whether anything that matches may have been written after `index`. It has not if any class that
/// holds all matching facts has not.
fn written_after(slots: &Slots, pattern: &Pattern, index: LogIndex) -> bool {
    let Pattern { subject, predicate, object, graph } = *pattern;
    let narrowest = match (subject, predicate, object) {
        (Some(s), Some(p), Some(o)) => AccessPath::SubjectPredicateObject(s, p, o),
        (Some(s), Some(p), None) => AccessPath::SubjectPredicate(s, p),
        (None, Some(p), Some(o)) => AccessPath::PredicateObject(p, o),
        (Some(s), None, _) => AccessPath::Subject(s),
        (None, Some(p), None) => AccessPath::Predicate(p),
        (None, None, Some(o)) => AccessPath::Object(o),
        (None, None, None) => AccessPath::Everything,
    };
    let graph = match graph {
        GraphPattern::Default => AccessPath::Graph(TermId::DEFAULT_GRAPH),
        GraphPattern::Named(graph) => AccessPath::Graph(graph),
        GraphPattern::AnyNamed | GraphPattern::Any => AccessPath::Everything,
    };
    slots.read(narrowest.hash()) > index && slots.read(graph.hash()) > index
}

/// Whether a version is one that the view can read.
pub fn check_version(
    version: Version,
    epoch: Option<Epoch>,
    oldest: LogIndex,
    applied: LogIndex,
) -> Result<(), CallError> {
    let Some(epoch) = epoch else {
        return Err(CallError::elsewhere(Code::Unavailable, "this view has not seen the first entry of the log yet"));
    };
    if version.epoch != epoch {
        let message = format!("version {version} is of another epoch than this view's, {epoch}");
        return Err(CallError::later(Code::WrongEpoch, 100, message));
    }
    if version.index < oldest {
        let message = format!("version {version} is older than what this view keeps, from {epoch}.{oldest} on");
        return Err(CallError::elsewhere(Code::TooOld, message));
    }
    if version.index > applied {
        let message = format!("version {version} is ahead of this view, which has applied {epoch}.{applied}");
        return Err(CallError::elsewhere(Code::Ahead, message));
    }
    Ok(())
}

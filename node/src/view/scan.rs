//! Reads everything that a view has on disk, and sums it: what lies there must be what was applied.
//!
//! The sums that are kept while entries are applied cannot see a bit that flips afterwards. A scan can: it takes a
//! snapshot, reads every order of it, live and past, texts, and the verdict checkpoint, and compares. A block whose
//! checksum is wrong fails in the engine; what is left are rows that are missing, or others than were written. It is
//! read in slices, between which look-ups have their turn.

use super::checkpoint;
use super::keys::{self, Order};
use super::store::{Scan as Rows, Snapshot, StorageError, Store, orders};
use super::sums::{self, Cells, Tally};
use beam_wire::message::view::{KeyInterval, RangeSum, Scanned, Served};
use beam_wire::{Fact, LogIndex, Point, Space, TermId};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Rows in a slice: a few milliseconds.
const SLICE_ROWS: usize = if cfg!(test) { 7 } else { 4096 };

/// A scan under way.
pub struct Scan {
    snapshot: Snapshot,
    cells: Cells,
    /// Past versions count if they were deleted after the first, up to the second.
    between: (LogIndex, LogIndex),
    next: VecDeque<Part>,
    rows: Option<(Part, Rows)>,
    found: BTreeMap<Part, Vec<Tally>>,
    last_point: (TermId, Point),
    counting: Option<Counting>,
    counts: Counts,
    checkpoint: checkpoint::Check,
    /// The first counter that is wrong.
    miscounted: Option<String>,
    records: u64,
}

/// What is read in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Live(Order),
    Past(Order),
    Texts,
    Verdicts,
}

/// How many facts have a predicate, in the default graph (false) and in named ones.
pub type Counts = BTreeMap<(TermId, bool), u64>;

/// Live facts of one predicate, in the default graph and in others.
struct Counting {
    predicate: TermId,
    counts: [u64; 2],
}

/// What a view holds and the live facts of its subject space, made from its disk: of one that has not kept sums, or was
/// copied. Nothing writes meanwhile.
pub fn tally(store: &Store, cells: &Cells) -> Result<(Vec<Tally>, Counts), StorageError> {
    let mut scan = Scan::of(store.snapshot(), cells.clone(), (LogIndex(0), LogIndex(0)));
    // One order of each space says it all, and the one that goes by predicate counts, too.
    scan.next.retain(|part| matches!(part, Part::Live(Order::Posg | Order::Opsg) | Part::Texts));
    while scan.slice()?.is_some() {}
    let mut tallies = cells.empty();
    for (part, found) in &scan.found {
        let space = part.space();
        tallies[cells.of_space(space)].copy_from_slice(&found[cells.of_space(space)]);
    }
    Ok((tallies, scan.counts))
}

impl Scan {
    /// Of everything in a snapshot. Of past versions those are told that were deleted after the first index, up to the
    /// second.
    pub fn of(snapshot: Snapshot, cells: Cells, between: (LogIndex, LogIndex)) -> Scan {
        let held = |space: &Space| !cells.of_space(*space).is_empty();
        let orders: Vec<Order> = Space::ALL.iter().filter(|s| held(s)).flat_map(|s| orders(*s)).copied().collect();
        let mut next: VecDeque<Part> = orders.iter().map(|order| Part::Live(*order)).collect();
        next.extend(orders.iter().map(|order| Part::Past(*order)));
        if held(&Space::Term) {
            next.push_back(Part::Texts);
        }
        next.push_back(Part::Verdicts);
        Scan {
            snapshot,
            cells,
            between,
            next,
            rows: None,
            found: BTreeMap::new(),
            last_point: (TermId::DEFAULT_GRAPH, TermId::DEFAULT_GRAPH.point()),
            counting: None,
            counts: Counts::new(),
            checkpoint: checkpoint::Check::default(),
            miscounted: None,
            records: 0,
        }
    }

    /// Reads on. Returns how many bytes that were; none when all is read.
    pub fn slice(&mut self) -> Result<Option<u64>, StorageError> {
        let (part, mut rows) = match self.rows.take() {
            Some(rows) => rows,
            None => {
                let Some(part) = self.next.pop_front() else { return Ok(None) };
                self.found.insert(part, self.cells.empty());
                (part, self.open(part))
            }
        };
        let mut bytes = 0;
        for _ in 0..SLICE_ROWS {
            let Some(row) = rows.next() else {
                self.end_counting()?;
                if part == Part::Verdicts {
                    self.checkpoint.end()?;
                }
                return Ok(Some(bytes));
            };
            let (key, value) = row?;
            bytes += (key.len() + value.len()) as u64;
            self.records += 1;
            self.add(part, &key, &value)?;
        }
        self.rows = Some((part, rows));
        Ok(Some(bytes))
    }

    fn open(&self, part: Part) -> Rows {
        let all = KeyInterval { from: Bytes::new(), to: None };
        match part {
            Part::Live(order) => self.snapshot.live_range(order, &all),
            Part::Past(order) => self.snapshot.past_range(order, &all),
            Part::Texts => self.snapshot.terms_range(&all),
            Part::Verdicts => self.snapshot.checkpoint_pieces(),
        }
    }

    fn add(&mut self, part: Part, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let (id, sum) = match part {
            Part::Live(order) => {
                let fact = keys::read_live(order, key)?;
                if order == Order::Posg {
                    self.count(&fact)?;
                }
                (lies_at(part.space(), &fact), sums::of_fact(&fact, keys::read_index(value)?))
            }
            Part::Past(order) => {
                let (fact, deleted, inserted) = keys::read_past(order, key)?;
                let (after, until) = self.between;
                if deleted <= after || deleted > until {
                    return Ok(());
                }
                (lies_at(part.space(), &fact), sums::of_past(&fact, inserted, deleted))
            }
            Part::Texts => {
                let id = TermId(key.try_into().map_err(|_| StorageError::Damaged("the id of a text".into()))?);
                (id, sums::of_text(&id, value))
            }
            Part::Verdicts => return self.checkpoint.add(key, value),
        };
        if self.last_point.0 != id {
            self.last_point = (id, id.point());
        }
        let (space, point) = (part.space(), self.last_point.1);
        if !self.cells.holds(space, point) {
            return Err(StorageError::Damaged(format!("{} holds what lies at other points", part.name())));
        }
        let tally = &mut self.found.get_mut(&part).expect("it was opened")[self.cells.number(space, point)];
        tally.count += 1;
        tally.sum += sum;
        Ok(())
    }

    /// Compares counters with what they count. The facts come by predicate.
    fn count(&mut self, fact: &Fact) -> Result<(), StorageError> {
        if self.counting.as_ref().is_none_or(|counting| counting.predicate != fact.predicate) {
            self.end_counting()?;
            self.counting = Some(Counting { predicate: fact.predicate, counts: [0; 2] });
        }
        let counting = self.counting.as_mut().expect("it was just set");
        counting.counts[usize::from(fact.graph != TermId::DEFAULT_GRAPH)] += 1;
        Ok(())
    }

    fn end_counting(&mut self) -> Result<(), StorageError> {
        let Some(Counting { predicate, counts }) = self.counting.take() else { return Ok(()) };
        for (named, count) in [false, true].into_iter().zip(counts) {
            if count > 0 {
                self.counts.insert((predicate, named), count);
            }
            let counter = self.snapshot.count(&predicate, named)?;
            if counter != count {
                self.miscounted.get_or_insert(format!(
                    "the counter of predicate {predicate} says {counter}, and there are {count}"
                ));
            }
        }
        Ok(())
    }

    /// What is on disk and is not what was applied, when all is read. `applied` is of the same index as the snapshot.
    pub fn difference(&self, applied: &[Tally]) -> Option<String> {
        for (part, found) in &self.found {
            for cell in self.cells.of_space(part.space()) {
                let expected = match part {
                    Part::Live(_) | Part::Texts => applied[cell],
                    // Nobody has summed them, but both orders hold the same.
                    Part::Past(Order::Posg) if !self.past_is_cut_short() => self.found[&Part::Past(Order::Spog)][cell],
                    Part::Past(_) | Part::Verdicts => continue,
                };
                if let Some(how) = differ(found[cell], expected) {
                    let Served { space, range } = self.cells.served()[cell];
                    return Some(format!("{how} in {} of {space} {range}", part.name()));
                }
            }
        }
        self.miscounted.clone()
    }

    /// What of the past versions that were asked for compaction may have dropped.
    fn past_is_cut_short(&self) -> bool {
        self.snapshot.floor() > self.between.0
    }

    /// What it found, to be compared with other views.
    pub fn scanned(&self) -> Result<Scanned, StorageError> {
        let mut past = Vec::new();
        for (space, order) in [(Space::Subject, Order::Spog), (Space::Object, Order::Opsg)] {
            if let Some(found) = self.found.get(&Part::Past(order)) {
                let told: Vec<RangeSum> = self.cells.told(found);
                past.extend_from_slice(&told[self.cells.of_space(space)]);
            }
        }
        let oldest = self.snapshot.progress()?.oldest.max(self.snapshot.floor());
        Ok(Scanned { past, oldest, records: self.records })
    }
}

impl Part {
    fn space(self) -> Space {
        match self {
            Part::Live(Order::Spog | Order::Posg) | Part::Past(Order::Spog | Order::Posg) => Space::Subject,
            Part::Live(Order::Opsg) | Part::Past(Order::Opsg) => Space::Object,
            // The checkpoint lies nowhere; nothing of it is counted.
            Part::Texts | Part::Verdicts => Space::Term,
        }
    }

    fn name(self) -> String {
        match self {
            Part::Live(order) => format!("the live facts ({})", order.name()),
            Part::Past(order) => format!("the past facts ({})", order.name()),
            Part::Texts => "the texts".to_owned(),
            Part::Verdicts => "the verdict checkpoint".to_owned(),
        }
    }
}

fn lies_at(space: Space, fact: &Fact) -> TermId {
    if space == Space::Subject { fact.subject } else { fact.object }
}

fn differ(found: Tally, expected: Tally) -> Option<String> {
    if found == expected {
        return None;
    }
    Some(match found.count == expected.count {
        true => format!("{} are not those that were written", found.count),
        false => format!("there are {} where {} were written", found.count, expected.count),
    })
}

#[cfg(test)]
mod tests;

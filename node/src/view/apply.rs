//! Applies a run of entries: the only place that changes facts.
//!
//! For each run: judge every entry in order; gather what the committed ones write and this view
//! holds; sort it, per space, by fact; look up once per fact whether it is live; fold its changes
//! in order, so that later entries of the run see earlier ones; and commit what is left, in one
//! batch with the progress and, when one is due, a verdict checkpoint. An insert of a live fact or
//! a delete of an absent one writes nothing.
//!
//! It reads no clock, asks nobody, and tells "the entry is bad", which every view concludes, from
//! "this view cannot go on", which is an error. A killed view resumes exactly where its last
//! batch ended.

use super::checkpoint;
use super::keys::Order;
use super::outcomes::{Outcome, Outcomes};
use super::recent::{Deleted, Recent};
use super::row_cache::RowCache;
use super::scan;
use super::store::{Batch, Deletions, Heat, Progress, StorageError, Store, StoredBytes, orders};
use super::sums::{self, Cells, Changes, Sums};
use super::terms::KnownTerms;
use super::verdict::{Change, Judged, Slots, UnknownFormat, Verdicts};
use beam_wire::command::{AccessPath, Begin, Verdict};
use beam_wire::message::log::Entry;
use beam_wire::message::view::Served;
use beam_wire::{Epoch, Fact, LogIndex, Name, Range, Space, TermId, codec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// Entries that follow one another.
#[derive(Clone, Debug)]
pub struct Run {
    /// The index of the first.
    pub first: LogIndex,
    /// At least one.
    pub entries: Vec<Entry>,
}

/// What a view applies, and how.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// The cluster that the log must belong to.
    pub cluster: Name,
    /// What the view holds.
    pub serves: Vec<Served>,
    /// The newest command format that the view reads.
    pub format: u16,
    /// How many indexes back versions can be read.
    pub history: u64,
    /// A verdict checkpoint is due after this many indexes.
    pub checkpoint_indexes: u64,
}

/// Enough for an hour of heavy writing, and for readers who page through a large result.
pub const HISTORY: u64 = 1_000_000;

/// Judging so many entries again, at a restart, takes seconds.
pub const CHECKPOINT_INDEXES: u64 = 65_536;

/// Hot facts that are looked at together, whether they have rested: in a millisecond or so.
const COOLED: usize = if cfg!(test) { 2 } else { 256 };

/// Why a view cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Its disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log has gone on without this program.
    #[error(transparent)]
    UnknownFormat(#[from] UnknownFormat),
    /// The log has gone on without what this view has applied.
    #[error(
        "this view has applied entries up to {applied} of epoch {ours}, but epoch {found} began after entry {kept}: \
         the cluster was recovered or restored, and what came after is not in it. Empty the view's directory, and it \
         starts anew"
    )]
    LeftBehind {
        /// The view's epoch.
        ours: Epoch,
        /// The one that replaced it.
        found: Epoch,
        /// The last entry that both have.
        kept: LogIndex,
        /// The newest entry that the view has applied.
        applied: LogIndex,
    },
    /// It reads the wrong log.
    #[error(
        "the log at hand is that of cluster {found}, this node belongs to {ours}: check the topology and the DNS zone"
    )]
    OtherCluster {
        /// The cluster that the log's genesis names.
        found: Name,
        /// The cluster of this node.
        ours: Name,
    },
}

/// Where a view stands after a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What is readable now.
    pub progress: Progress,
    /// Entries that were judged. Less than what is applied while a restarted view catches up.
    pub judged: LogIndex,
    /// The newest verdict checkpoint.
    pub checkpoint: LogIndex,
}

/// What look-ups may read while entries are applied.
pub struct Shared {
    outcomes: Mutex<Outcomes>,
    slots: Mutex<Option<Slots>>,
    recent: [Mutex<Recent>; 2],
    rows: RowCache,
    sums: Mutex<Sums>,
}

/// The state of a view, and its disk.
pub struct Applier {
    options: ApplyOptions,
    held: Held,
    store: Store,
    shared: Arc<Shared>,
    verdicts: Verdicts,
    progress: Progress,
    checkpoint: LogIndex,
    /// Bytes of bodies since the last checkpoint.
    unsaved_bytes: u64,
    known_terms: KnownTerms,
    deletions: Deletions,
    /// The next of the hot facts to look at, whether it has rested; none for the first.
    next_hot: Option<StoredBytes>,
    /// Writes since some were looked at. One is for each, so that no more become hot than are looked at.
    writes: usize,
    subject_writes: Vec<Write>,
    object_writes: Vec<Write>,
    cells: Cells,
    /// What the run changes of the sums.
    changes: Changes,
    /// Cells whose sums are not on disk as they are.
    unsaved_cells: BTreeSet<usize>,
}

/// One write of a fact.
#[derive(Clone, Copy)]
struct Write {
    fact: Fact,
    /// The cells of the subject and of the object space that it lies in, of those that the view holds.
    cells: [Option<u32>; 2],
    index: LogIndex,
    insert: bool,
}

/// What a run leaves of some facts.
#[derive(Default)]
struct Folded {
    live: Vec<Row>,
    past: Vec<Past>,
    /// How many more facts are live, per predicate in the default graph (false) or a named one.
    counts: BTreeMap<(TermId, bool), i64>,
}

/// A fact that is live since then, or not any more.
#[derive(Clone, Copy)]
struct Row {
    fact: Fact,
    live: Option<LogIndex>,
    /// The entry that left it so.
    since: LogIndex,
    heat: Heat,
    /// Whether the view holds it in the object space.
    by_object: bool,
}

/// A version that is past now.
#[derive(Clone, Copy)]
struct Past {
    version: Deleted,
    by_object: bool,
}

impl Applier {
    /// Takes up where the store was left.
    pub fn open(store: Store, options: ApplyOptions) -> Result<Applier, StorageError> {
        let mut progress = store.progress()?;
        let (mut verdicts, outcomes) = checkpoint::load(&store.snapshot())?;
        if verdicts.judged() > progress.applied {
            let (judged, applied) = (verdicts.judged(), progress.applied);
            let why = format!("the verdict checkpoint is of entry {judged}, and entries were applied up to {applied}");
            return Err(StorageError::Damaged(why));
        }
        verdicts.read_formats(options.format);
        let recent = [Recent::new(progress.applied), Recent::new(progress.applied)].map(Mutex::new);
        let held = Held::new(&options.serves);
        let cells = Cells::of(&held);
        let (tallies, unsaved_cells) = match store.tallies(&cells, progress.applied)? {
            Some(kept) => (kept, BTreeSet::new()),
            // A copy, or what a program has left that did not sum.
            None => {
                let (tallies, counts) = scan::tally(&store, &cells)?;
                progress.facts = counts.values().sum();
                let mut batch = store.batch();
                for ((predicate, named), count) in &counts {
                    batch.put_count(predicate, *named, *count);
                }
                cells.served().iter().zip(&tallies).for_each(|(cell, tally)| batch.put_tally(cell, tally));
                batch.put_summed(progress.applied);
                batch.put_progress(&progress);
                batch.commit()?;
                (tallies, BTreeSet::new())
            }
        };
        let sums = Sums::new(cells.clone(), tallies, progress.applied, verdicts.sum(), verdicts.judged());
        let (outcomes, sums) = (Mutex::new(outcomes), Mutex::new(sums));
        let shared = Arc::new(Shared { outcomes, slots: Mutex::default(), recent, rows: RowCache::new(), sums });
        let applier = Applier {
            held,
            cells,
            changes: Changes::default(),
            unsaved_cells,
            options,
            store,
            shared,
            checkpoint: verdicts.judged(),
            verdicts,
            progress,
            unsaved_bytes: 0,
            known_terms: KnownTerms::new(),
            deletions: Deletions::new(),
            next_hot: None,
            writes: 0,
            subject_writes: Vec::new(),
            object_writes: Vec::new(),
        };
        applier.share_slots();
        Ok(applier)
    }

    /// What readers share with it.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What verdicts are made from.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// The first index that it needs.
    pub fn next(&self) -> LogIndex {
        self.verdicts.judged().next()
    }

    /// Where it stands.
    pub fn applied(&self) -> Applied {
        Applied { progress: self.progress.clone(), judged: self.verdicts.judged(), checkpoint: self.checkpoint }
    }

    /// Applies a run. `Ok` is what every view concludes; `Err` stops this one.
    ///
    /// # Panics
    /// If the run does not begin at [`Applier::next`].
    pub fn apply(&mut self, run: &Run) -> Result<Applied, ApplyError> {
        self.verdicts.check_format()?;
        let changes = self.judge(run)?;
        let last = self.verdicts.judged();
        let due = self.is_checkpoint_due();
        if last > self.progress.applied || due {
            let store = self.store.clone();
            let mut batch = store.batch();
            self.write_terms(&mut batch, &changes)?;
            self.write_facts(&mut batch, &changes)?;
            if due {
                let outcomes = self.shared.outcomes();
                checkpoint::write(&mut batch, &mut self.verdicts, &outcomes, self.checkpoint);
            }
            if last > self.progress.applied {
                self.progress.applied = last;
                self.progress.rules = self.verdicts.rules().cloned();
                self.raise_oldest();
            }
            batch.put_progress(&self.progress);
            self.write_sums(&mut batch);
            batch.commit()?;
            self.cool()?;
            if due {
                self.checkpoint = last;
                self.unsaved_bytes = 0;
            }
        } else {
            self.add_to_sums();
        }
        self.share_slots();
        Ok(self.applied())
    }

    /// The first comes as soon as there is anything to judge by: without one, nobody can copy this view, or back it up.
    fn is_checkpoint_due(&self) -> bool {
        let first = self.checkpoint == LogIndex(0) && self.verdicts.rules().is_some();
        first
            || self.verdicts.judged().0 - self.checkpoint.0 >= self.options.checkpoint_indexes
            || checkpoint::is_due(&self.verdicts, self.unsaved_bytes)
    }

    /// Gives up the oldest versions, a sixteenth of the history at a time: readers of the oldest are
    /// told so, and only after this is durable are they dropped.
    fn raise_oldest(&mut self) {
        let oldest = self.progress.applied.0.saturating_sub(self.options.history);
        if oldest > self.progress.oldest.0 + self.options.history / 16 {
            self.progress.oldest = LogIndex(oldest);
        }
    }

    /// Puts facts that were hot once, and have not changed for a whole history, back among all others.
    fn cool(&mut self) -> Result<(), StorageError> {
        if self.writes < COOLED {
            return Ok(());
        }
        self.writes = 0;
        let from = self.next_hot.take();
        let (cooled, next) = self.store.cooled(self.progress.oldest, from.as_deref().unwrap_or(&[]), COOLED)?;
        self.next_hot = next;
        let mut batch = self.store.batch();
        for (fact, live) in cooled {
            for (space, id) in [(Space::Subject, &fact.subject), (Space::Object, &fact.object)] {
                if self.held.contains(space, id.point()) {
                    orders(space).iter().for_each(|order| batch.put_live(*order, &fact, live, Heat::Cold));
                }
            }
            batch.remove_hot(&fact);
        }
        batch.commit()
    }

    /// Judges every entry. Returns what is to be applied; a restarted view has applied some already.
    fn judge(&mut self, run: &Run) -> Result<Vec<(LogIndex, Box<Change>)>, ApplyError> {
        let mut changes = Vec::new();
        let mut index = run.first;
        for entry in &run.entries {
            let before = self.verdicts.sum();
            let outcome = match self.verdicts.judge(index, entry)? {
                Judged::Skip => Outcome::Skip,
                Judged::Refused(verdict) => Outcome::Judged(verdict),
                Judged::Ruled => {
                    self.check_cluster()?;
                    Outcome::Judged(Verdict::Committed)
                }
                Judged::Began(begin) => {
                    self.check_kept(index, begin)?;
                    Outcome::Judged(Verdict::Committed)
                }
                Judged::Committed(change) => {
                    if index > self.progress.applied {
                        changes.push((index, change));
                    }
                    Outcome::Judged(Verdict::Committed)
                }
            };
            self.changes.verdicts(index, self.cells.verdicts(), before, self.verdicts.sum());
            let window = self.verdicts.rules().map(|rules| rules.window);
            self.shared.outcomes().push(index, outcome, window);
            if let Entry::Data { body, .. } = entry {
                self.unsaved_bytes += body.len() as u64;
            }
            index = index.next();
        }
        Ok(changes)
    }

    /// A restarted view judges again what it has applied. If an epoch begins among that which it did not know
    /// of, it has applied what is not in the log any more.
    fn check_kept(&self, index: LogIndex, begin: Begin) -> Result<(), ApplyError> {
        let Progress { applied, rules, .. } = &self.progress;
        match rules {
            Some(rules) if index <= *applied && rules.epoch < begin.epoch => Err(ApplyError::LeftBehind {
                ours: rules.epoch,
                found: begin.epoch,
                kept: begin.kept,
                applied: *applied,
            }),
            _ => Ok(()),
        }
    }

    fn check_cluster(&self) -> Result<(), ApplyError> {
        match self.verdicts.rules() {
            Some(rules) if rules.cluster != self.options.cluster => {
                let ours = self.options.cluster.clone();
                Err(ApplyError::OtherCluster { found: rules.cluster.clone(), ours })
            }
            _ => Ok(()),
        }
    }

    /// Writes the texts that are not here yet.
    fn write_terms(&mut self, batch: &mut Batch<'_>, changes: &[(LogIndex, Box<Change>)]) -> Result<(), StorageError> {
        let mut unseen = Vec::new();
        for (index, change) in changes {
            for (i, id) in change.ids.iter().enumerate() {
                let point = change.points[i];
                let held = self.held.contains(Space::Term, point);
                if held && !id.is_inline() && self.known_terms.learn(id, point) {
                    unseen.push((id, *index, point, &change.transact.terms[i]));
                }
            }
        }
        // The first entry that brings a text is the one that changes the sum.
        unseen.sort_unstable_by_key(|(id, index, ..)| (*id, *index));
        unseen.dedup_by_key(|(id, ..)| *id);
        for (id, index, point, term) in unseen {
            if !self.store.has_term(id)? {
                let text = codec::encode(term);
                batch.put_term(id, &text);
                self.changes.add(index, self.cells.number(Space::Term, point), sums::of_text(id, &text));
            }
        }
        Ok(())
    }

    fn write_facts(&mut self, batch: &mut Batch<'_>, changes: &[(LogIndex, Box<Change>)]) -> Result<(), StorageError> {
        let (mut by_subject, mut by_object) =
            (std::mem::take(&mut self.subject_writes), std::mem::take(&mut self.object_writes));
        for (index, change) in changes {
            let deletes = change.transact.deletes.iter().map(|fact| (fact, false));
            let inserts = change.transact.inserts.iter().map(|fact| (fact, true));
            for (fact, insert) in deletes.chain(inserts) {
                let cell = |space, term: u32| {
                    let point = change.points[term as usize];
                    self.held.contains(space, point).then(|| self.cells.number(space, point) as u32)
                };
                let cells = [cell(Space::Subject, fact.subject), cell(Space::Object, fact.object)];
                let write = Write { fact: fact.fact(&change.ids), cells, index: *index, insert };
                // What the view holds in both spaces is looked up in one.
                match cells {
                    [Some(_), _] => by_subject.push(write),
                    [None, Some(_)] => by_object.push(write),
                    [None, None] => {}
                }
            }
        }
        self.writes += by_subject.len() + by_object.len();
        let mut of_subjects = self.fold(Order::Spog, &mut by_subject)?;
        let mut of_objects = self.fold(Order::Opsg, &mut by_object)?;
        self.write_counts(batch, &of_subjects)?;
        for row in of_subjects.live.iter().chain(&of_objects.live).filter(|row| row.heat != Heat::Cold) {
            batch.put_hot(&row.fact, row.live.is_some(), row.since);
        }
        of_objects.live.extend(of_subjects.live.iter().filter(|row| row.by_object));
        of_objects.past.extend(of_subjects.past.iter().filter(|past| past.by_object));
        self.write_order(batch, Order::Spog, &mut of_subjects);
        self.write_order(batch, Order::Posg, &mut of_subjects);
        self.write_order(batch, Order::Opsg, &mut of_objects);
        // Before the batch is committed: a reader that sees the batch must find its deletions here.
        for (space, mut folded) in [of_subjects, of_objects].into_iter().enumerate() {
            folded.past.sort_by_key(|past| past.version.deleted);
            self.shared.recent(space).add(folded.past.into_iter().map(|past| past.version));
        }
        by_subject.clear();
        by_object.clear();
        (self.subject_writes, self.object_writes) = (by_subject, by_object);
        Ok(())
    }

    /// What the writes leave, in the order of their keys.
    fn fold(&mut self, order: Order, writes: &mut [Write]) -> Result<Folded, StorageError> {
        writes.sort_unstable_by(|a, b| {
            compare(order, &a.fact, &b.fact).then(a.index.cmp(&b.index)).then(a.insert.cmp(&b.insert))
        });
        let mut folded = Folded::default();
        for writes in writes.chunk_by(|a, b| a.fact == b.fact) {
            let Write { fact, cells, .. } = writes[0];
            let (cells, by_object) = (cells.into_iter().flatten().map(|cell| cell as usize), cells[1].is_some());
            let found = self.store.find(order, &fact)?;
            let (mut live, mut since, mut rises) = (found.live, LogIndex(0), false);
            for of_entry in writes.chunk_by(|a, b| a.index == b.index) {
                // Within an entry deletes come before inserts, so its last write is what it leaves.
                let Write { index, insert, .. } = of_entry[of_entry.len() - 1];
                match (live, insert) {
                    (None, true) => {
                        let sum = sums::of_fact(&fact, index);
                        cells.clone().for_each(|cell| self.changes.add(index, cell, sum));
                        (live, since) = (Some(index), index);
                    }
                    (Some(inserted), false) => {
                        let sum = sums::of_fact(&fact, inserted);
                        cells.clone().for_each(|cell| self.changes.take(index, cell, sum));
                        folded.past.push(Past { version: Deleted { fact, deleted: index, inserted }, by_object });
                        rises |= self.deletions.count(hash(&fact));
                        (live, since) = (None, index);
                    }
                    (Some(_), true) | (None, false) => {}
                }
            }
            if live != found.live {
                let heat = match found.hot {
                    true => Heat::Hot,
                    false if rises => Heat::Rising,
                    false => Heat::Cold,
                };
                folded.live.push(Row { fact, live, since, heat, by_object });
                let change = i64::from(live.is_some()) - i64::from(found.live.is_some());
                if change != 0 {
                    let named = fact.graph != TermId::DEFAULT_GRAPH;
                    *folded.counts.entry((fact.predicate, named)).or_default() += change;
                }
            }
        }
        Ok(folded)
    }

    fn write_counts(&mut self, batch: &mut Batch<'_>, folded: &Folded) -> Result<(), StorageError> {
        for ((predicate, named), change) in &folded.counts {
            let count = self.store.count(predicate, *named)?.checked_add_signed(*change);
            let facts = self.progress.facts.checked_add_signed(*change);
            let (Some(count), Some(facts)) = (count, facts) else {
                return Err(StorageError::Damaged("more facts were deleted than are counted".into()));
            };
            batch.put_count(predicate, *named, count);
            self.progress.facts = facts;
        }
        Ok(())
    }

    fn write_order(&self, batch: &mut Batch<'_>, order: Order, folded: &mut Folded) {
        folded.live.sort_unstable_by(|a, b| compare(order, &a.fact, &b.fact));
        for Row { fact, live, heat, .. } in &folded.live {
            batch.put_live(order, fact, *live, *heat);
        }
        // Versions of one fact may come in any order: their keys differ.
        folded.past.sort_unstable_by(|a, b| compare(order, &a.version.fact, &b.version.fact));
        for Past { version: Deleted { fact, deleted, inserted }, .. } in &folded.past {
            batch.put_past(order, fact, *deleted, *inserted);
        }
    }

    /// Takes the run's changes into the sums, and writes those that are others now.
    fn write_sums(&mut self, batch: &mut Batch<'_>) {
        self.add_to_sums();
        let sums = self.shared.sums();
        for cell in std::mem::take(&mut self.unsaved_cells) {
            batch.put_tally(&self.cells.served()[cell], &sums.tallies()[cell]);
        }
        batch.put_summed(self.progress.applied);
    }

    fn add_to_sums(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        let changed = self.shared.sums().add(changes, self.progress.applied, self.verdicts.judged());
        self.unsaved_cells.extend(changed);
    }

    /// Shows readers the write history, once it covers all that they can read.
    fn share_slots(&self) {
        if self.verdicts.judged() >= self.progress.applied && self.verdicts.slots().len() > 0 {
            let mut shared = self.shared.slots.lock().expect("nothing panics while it holds this");
            if shared.is_none() {
                *shared = Some(self.verdicts.slots().clone());
            }
        }
    }
}

/// By which deletions of a fact are counted.
fn hash(fact: &Fact) -> u64 {
    AccessPath::SubjectPredicateObject(fact.subject, fact.predicate, fact.object).hash()
}

fn compare(order: Order, a: &Fact, b: &Fact) -> std::cmp::Ordering {
    match order {
        Order::Spog => a.cmp(b),
        Order::Posg => {
            (&a.predicate, &a.object, &a.subject, &a.graph).cmp(&(&b.predicate, &b.object, &b.subject, &b.graph))
        }
        Order::Opsg => {
            (&a.object, &a.predicate, &a.subject, &a.graph).cmp(&(&b.object, &b.predicate, &b.subject, &b.graph))
        }
    }
}

impl Shared {
    /// What became of recent entries.
    pub fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().expect("nothing panics while it holds this")
    }

    /// The write history; none while it does not cover all that is applied.
    pub fn slots(&self) -> Option<Slots> {
        self.slots.lock().expect("nothing panics while it holds this").clone()
    }

    /// Hashes of what is applied. They may be ahead of what can be read by one run.
    pub fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().expect("nothing panics while it holds this")
    }

    /// What look-ups have found lately.
    pub fn rows(&self) -> &RowCache {
        &self.rows
    }

    /// Recent deletions in a space: 0 subject, 1 object.
    pub fn recent(&self, space: usize) -> MutexGuard<'_, Recent> {
        self.recent[space].lock().expect("nothing panics while it holds this")
    }
}

/// What a view holds.
#[derive(Clone, Debug)]
pub struct Held {
    ranges: [Vec<Range>; 3],
}

impl Held {
    /// Ranges that touch become one.
    pub fn new(serves: &[Served]) -> Held {
        let ranges = Space::ALL.map(|space| {
            let mut ranges: Vec<Range> = serves.iter().filter(|s| s.space == space).map(|s| s.range).collect();
            ranges.sort_unstable();
            let mut merged: Vec<Range> = Vec::new();
            for range in ranges {
                match merged.last_mut() {
                    Some(last) if range.first.0 <= last.last.0.saturating_add(1) => {
                        last.last = last.last.max(range.last)
                    }
                    _ => merged.push(range),
                }
            }
            merged
        });
        Held { ranges }
    }

    /// The ranges of a space: disjoint, ascending.
    pub fn ranges(&self, space: Space) -> &[Range] {
        &self.ranges[space as usize]
    }

    /// Whether the view holds a point.
    pub fn contains(&self, space: Space, point: beam_wire::Point) -> bool {
        self.ranges(space).iter().any(|range| range.contains(point))
    }

    /// Whether the view holds every point of a range.
    pub fn covers(&self, space: Space, range: &Range) -> bool {
        self.ranges(space).iter().any(|held| held.first <= range.first && range.last <= held.last)
    }
}

//! What becomes of each entry: a function of the log alone, the same in every view.
//!
//! No disk, no clock, no network, no configuration: all that a verdict depends on came from the
//! log's first entry or an upgrade. At index `i`, in this order:
//!
//! | found | verdict |
//! | --- | --- |
//! | not a command; a format above the one in force; another epoch; `born` or `read_index` at or after `i` | rejected |
//! | `i − born` above the window W | expired |
//! | its id was committed within the last W indexes | duplicate of that index |
//! | something that it read was written after `read_index` | conflict |
//! | else | committed |
//!
//! Only committed commands leave a trace here: their ids, and in `slot[hash mod N]` their index, for
//! every class of every fact that they write, whether or not that changes anything. Collisions of
//! hashes cause false conflicts only. Every index counts for W, also those without data.

use beam_wire::command::{AccessPath, Command, CommandError, FORMAT, Genesis, Rejection, Transact, Verdict};
use beam_wire::message::log::Entry;
use beam_wire::{Epoch, LogIndex, Name, Point, TermId, TransactionId};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The format that is in force before the genesis says which.
const FIRST_FORMAT: u16 = 1;

/// Slots that are written to a checkpoint together: 64 KiB.
pub const SLOTS_PER_CHUNK: usize = 8192;

/// All that verdicts are made from.
pub struct Verdicts {
    judged: LogIndex,
    rules: Option<Rules>,
    slots: Slots,
    /// Chunks of slots that were written since the last checkpoint.
    dirty: Vec<bool>,
    /// Where each id was committed, for the last W indexes.
    ids: HashMap<TransactionId, LogIndex>,
    /// The same by index, oldest first.
    committed: VecDeque<(LogIndex, TransactionId)>,
}

/// What the genesis and upgrades have laid down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The cluster's name.
    pub cluster: Name,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The format in force.
    pub format: u16,
    /// There are 2^this slots.
    pub slots_log2: u8,
    /// W.
    pub window: u64,
}

/// What an entry turned out to be.
#[derive(Debug)]
pub enum Judged {
    /// It has no data.
    Skip,
    /// Every view concludes this, and nothing changes.
    Refused(Verdict),
    /// Rules were changed; no facts.
    Ruled,
    /// To be applied.
    Committed(Box<Change>),
}

/// A committed transaction.
#[derive(Debug)]
pub struct Change {
    /// As it was written.
    pub transact: Transact,
    /// The ids of its term table.
    pub ids: Vec<TermId>,
    /// Where those lie.
    pub points: Vec<Point>,
}

/// A format is to be put in force that this program does not know. It must stop: whatever follows
/// may mean something that it would get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "entry {index} puts command format {format} in force, and this program knows formats up to {FORMAT}: \
     install a newer beam on this node; its data is kept"
)]
pub struct UnknownFormat {
    /// The entry.
    pub index: LogIndex,
    /// The format.
    pub format: u16,
}

impl Verdicts {
    /// As before the first entry. Index 0 of a log never holds data.
    pub fn new() -> Verdicts {
        Verdicts {
            judged: LogIndex(0),
            rules: None,
            slots: Slots::new(0),
            dirty: Vec::new(),
            ids: HashMap::new(),
            committed: VecDeque::new(),
        }
    }

    /// As they were at `judged`, from a checkpoint.
    pub fn restore(
        judged: LogIndex,
        rules: Option<Rules>,
        slots: Slots,
        committed: impl IntoIterator<Item = (LogIndex, TransactionId)>,
    ) -> Verdicts {
        let committed: VecDeque<_> = committed.into_iter().collect();
        let ids = committed.iter().map(|(index, id)| (*id, *index)).collect();
        let dirty = vec![false; slots.chunks()];
        Verdicts { judged, rules, slots, dirty, ids, committed }
    }

    /// The newest index that was judged.
    pub fn judged(&self) -> LogIndex {
        self.judged
    }

    /// What is laid down; none before the genesis.
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// The write history, shared: readers may look while it is written.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Ids committed after an index, oldest first.
    pub fn committed_after(&self, index: LogIndex) -> impl Iterator<Item = &(LogIndex, TransactionId)> {
        let start = self.committed.partition_point(|(i, _)| *i <= index);
        self.committed.range(start..)
    }

    /// The chunks of slots that were written since this was last asked.
    pub fn take_dirty(&mut self) -> Vec<usize> {
        let chunks = self.dirty.iter().enumerate().filter(|(_, dirty)| **dirty).map(|(i, _)| i).collect();
        self.dirty.fill(false);
        chunks
    }

    /// Judges the next entry.
    ///
    /// # Panics
    /// If `index` does not follow the one judged before.
    pub fn judge(&mut self, index: LogIndex, entry: &Entry) -> Result<Judged, UnknownFormat> {
        assert_eq!(index, self.judged.next(), "entries are judged in order");
        let judged = match entry {
            Entry::Skip => Judged::Skip,
            Entry::Data { body, .. } => self.judge_body(index, body)?,
        };
        self.judged = index;
        self.forget();
        Ok(judged)
    }

    fn judge_body(&mut self, index: LogIndex, body: &[u8]) -> Result<Judged, UnknownFormat> {
        let refused = |rejection| Ok(Judged::Refused(Verdict::Rejected(rejection)));
        let in_force = self.rules.as_ref().map_or(FIRST_FORMAT, |rules| rules.format);
        match Command::format_of(body) {
            Ok(format) if format <= in_force => {}
            Ok(_) | Err(CommandError::Format { .. }) => return refused(Rejection::FormatNotInForce),
            Err(CommandError::Malformed(_)) => return refused(Rejection::Malformed),
        }
        // The format is in force, so this program knows it: else it would have stopped.
        let Ok((command, ids)) = Command::decode_with_ids(body) else { return refused(Rejection::Malformed) };
        match (command, &mut self.rules) {
            (Command::Genesis(_), Some(_)) => refused(Rejection::SecondGenesis),
            (Command::Genesis(genesis), None) => self.begin(index, genesis),
            (_, None) => refused(Rejection::BeforeGenesis),
            (Command::Upgrade(format), Some(rules)) => {
                known(index, format)?;
                // Formats only rise: a late second upgrade must not undo a newer one.
                rules.format = rules.format.max(format);
                Ok(Judged::Ruled)
            }
            (Command::Transact(transact), Some(_)) => Ok(self.judge_transact(index, transact, ids)),
        }
    }

    fn begin(&mut self, index: LogIndex, genesis: Genesis) -> Result<Judged, UnknownFormat> {
        let Genesis { cluster, epoch, format, slots_log2, window } = genesis;
        known(index, format)?;
        self.slots = Slots::new(1 << slots_log2);
        self.dirty = vec![false; self.slots.chunks()];
        self.rules = Some(Rules { cluster, epoch, format, slots_log2, window });
        Ok(Judged::Ruled)
    }

    fn judge_transact(&mut self, index: LogIndex, transact: Transact, ids: Vec<TermId>) -> Judged {
        let rules = self.rules.as_ref().expect("the caller has seen the genesis");
        if let Some(refusal) = self.refusal(index, rules, &transact) {
            return Judged::Refused(refusal);
        }
        let points: Vec<Point> = ids.iter().map(TermId::point).collect();
        let default_graph = TermId::DEFAULT_GRAPH.point();
        for fact in transact.deletes.iter().chain(&transact.inserts) {
            let point = |i: u32| points[i as usize];
            let graph = fact.graph.map_or(default_graph, point);
            let terms = [point(fact.subject), point(fact.predicate), point(fact.object), graph];
            for hash in AccessPath::classes(terms) {
                let slot = self.slots.write(hash, index);
                self.dirty[slot / SLOTS_PER_CHUNK] = true;
            }
        }
        self.ids.insert(transact.id, index);
        self.committed.push_back((index, transact.id));
        Judged::Committed(Box::new(Change { transact, ids, points }))
    }

    /// Why a transaction is not committed, if it is not.
    fn refusal(&self, index: LogIndex, rules: &Rules, transact: &Transact) -> Option<Verdict> {
        let Transact { epoch, id, read_index, reads, .. } = transact;
        if *epoch != rules.epoch {
            return Some(Verdict::Rejected(Rejection::WrongEpoch));
        }
        if id.born >= index {
            return Some(Verdict::Rejected(Rejection::BornAhead));
        }
        if *read_index >= index {
            return Some(Verdict::Rejected(Rejection::ReadAhead));
        }
        if index.0 - id.born.0 > rules.window {
            return Some(Verdict::Expired);
        }
        if let Some(of) = self.ids.get(id) {
            return Some(Verdict::Duplicate { of: *of });
        }
        let written = reads.iter().map(|hash| self.slots.read(*hash));
        written.into_iter().find(|with| with > read_index).map(|with| Verdict::Conflict { with })
    }

    /// Drops ids that no unexpired transaction can carry any more.
    fn forget(&mut self) {
        let Some(rules) = &self.rules else { return };
        let first = self.judged.0.saturating_sub(rules.window);
        while self.committed.front().is_some_and(|(index, _)| index.0 < first) {
            let (_, id) = self.committed.pop_front().expect("there is a front");
            self.ids.remove(&id);
        }
    }
}

fn known(index: LogIndex, format: u16) -> Result<(), UnknownFormat> {
    if format > FORMAT { Err(UnknownFormat { index, format }) } else { Ok(()) }
}

/// The write history: for each hash, modulo their number, the index of the last committed write.
///
/// A flat array, because that takes 11 ns a write where a hash map takes forty times that. One
/// thread writes; readers may ask whether something was written after a version that they read.
#[derive(Clone)]
pub struct Slots(Arc<[AtomicU64]>);

impl Slots {
    /// All unwritten. `count` is a power of two, or 0 before the genesis.
    pub fn new(count: usize) -> Slots {
        Slots((0..count).map(|_| AtomicU64::new(0)).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn write(&self, hash: u64, index: LogIndex) -> usize {
        let slot = (hash & (self.0.len() as u64 - 1)) as usize;
        self.0[slot].store(index.0, Ordering::Release);
        slot
    }

    /// The last committed write of something with this hash, or one that shares its slot.
    pub fn read(&self, hash: u64) -> LogIndex {
        let slot = (hash & (self.0.len() as u64 - 1)) as usize;
        LogIndex(self.0[slot].load(Ordering::Acquire))
    }

    /// How many chunks a checkpoint cuts them into.
    pub fn chunks(&self) -> usize {
        self.0.len().div_ceil(SLOTS_PER_CHUNK)
    }

    /// One chunk, as a checkpoint stores it: little-endian indexes.
    pub fn chunk(&self, i: usize) -> Vec<u8> {
        let slots = &self.0[i * SLOTS_PER_CHUNK..self.0.len().min((i + 1) * SLOTS_PER_CHUNK)];
        slots.iter().flat_map(|slot| slot.load(Ordering::Relaxed).to_le_bytes()).collect()
    }

    /// Puts a stored chunk back; false if it has the wrong length.
    #[must_use]
    pub fn restore_chunk(&self, i: usize, bytes: &[u8]) -> bool {
        let end = self.0.len().min((i + 1) * SLOTS_PER_CHUNK);
        let Some(slots) = self.0.get(i * SLOTS_PER_CHUNK..end) else { return false };
        let (indexes, rest) = bytes.as_chunks::<8>();
        if indexes.len() != slots.len() || !rest.is_empty() {
            return false;
        }
        for (slot, index) in slots.iter().zip(indexes) {
            slot.store(u64::from_le_bytes(*index), Ordering::Release);
        }
        true
    }
}

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
//! Where a new epoch begins, only the epoch changes: what was written up to there is in the log as it was, so its
//! slots and ids go on to count, and a transaction of the new epoch may have been read and born before it.
//!
//! Only committed commands leave a trace here: their ids, and in `slot[hash mod N]` their index, for
//! every class of every fact that they write, whether or not that changes anything. Collisions of
//! hashes cause false conflicts only. Every index counts for W, also those without data.

use beam_wire::command::{AccessPath, Begin, Command, CommandError, FORMAT, Genesis, Rejection, Transact, Verdict};
use beam_wire::message::log::Entry;
use beam_wire::{Epoch, LogIndex, Name, Point, Sum, TermId, TransactionId};
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
    /// The newest format that this program reads.
    reads: u16,
    /// Where each id was committed, for the last W indexes.
    ids: HashMap<TransactionId, LogIndex>,
    /// The same by index, oldest first.
    committed: VecDeque<(LogIndex, TransactionId)>,
    /// Of slots and ids.
    sum: Sum,
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
    /// An epoch begins; no facts were changed.
    Began(Begin),
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
    "entry {index} puts command format {format} in force, and this version of Beam reads formats up to {reads}: \
     install a newer beam on this node; its data is kept"
)]
pub struct UnknownFormat {
    /// The entry.
    pub index: LogIndex,
    /// The format.
    pub format: u16,
    /// The newest that this program reads.
    pub reads: u16,
}

impl Verdicts {
    /// As before the first entry. Index 0 of a log never holds data.
    pub fn new() -> Verdicts {
        Verdicts {
            judged: LogIndex(0),
            rules: None,
            slots: Slots::new(0),
            dirty: Vec::new(),
            reads: FORMAT,
            ids: HashMap::new(),
            committed: VecDeque::new(),
            sum: Sum::default(),
        }
    }

    /// As they were at `judged`, from a checkpoint whose slots and ids have this sum.
    pub fn restore(
        judged: LogIndex,
        rules: Option<Rules>,
        slots: Slots,
        committed: impl IntoIterator<Item = (LogIndex, TransactionId)>,
        sum: Sum,
    ) -> Verdicts {
        let committed: VecDeque<_> = committed.into_iter().collect();
        let ids = committed.iter().map(|(index, id)| (*id, *index)).collect();
        let dirty = vec![false; slots.chunks()];
        Verdicts { judged, rules, slots, dirty, reads: FORMAT, ids, committed, sum }
    }

    /// Stops at formats above this one, where a program would that knows no newer one.
    pub fn read_formats(&mut self, up_to: u16) {
        self.reads = up_to;
    }

    /// Stops a program whose view was copied from one that has read on.
    pub fn check_format(&self) -> Result<(), UnknownFormat> {
        self.rules.as_ref().map_or(Ok(()), |rules| known(self.judged, rules.format, self.reads))
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

    /// The hash of slots and ids: equal states have equal ones.
    pub fn sum(&self) -> Sum {
        self.sum
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
                known(index, format, self.reads)?;
                // Formats only rise: a late second upgrade must not undo a newer one.
                rules.format = rules.format.max(format);
                Ok(Judged::Ruled)
            }
            (Command::Begin(begin), Some(rules)) => {
                // Epochs only rise, and each says where it lies: else somebody has proposed it, not the log.
                if begin.epoch <= rules.epoch || begin.kept.next() != index {
                    return refused(Rejection::WrongEpoch);
                }
                rules.epoch = begin.epoch;
                Ok(Judged::Began(begin))
            }
            (Command::Transact(transact), Some(_)) => Ok(self.judge_transact(index, transact, ids)),
        }
    }

    fn begin(&mut self, index: LogIndex, genesis: Genesis) -> Result<Judged, UnknownFormat> {
        let Genesis { cluster, epoch, format, slots_log2, window } = genesis;
        known(index, format, self.reads)?;
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
                let (slot, before) = self.slots.write(hash, index);
                if before != index {
                    self.dirty[slot / SLOTS_PER_CHUNK] = true;
                    self.sum -= of_slot(slot, before);
                    self.sum += of_slot(slot, index);
                }
            }
        }
        self.ids.insert(transact.id, index);
        self.committed.push_back((index, transact.id));
        self.sum += sum_of_id(&transact.id, index);
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
            let (index, id) = self.committed.pop_front().expect("there is a front");
            self.ids.remove(&id);
            self.sum -= sum_of_id(&id, index);
        }
    }
}

/// A slot as a member of the state's hash; an unwritten one is none.
fn of_slot(slot: usize, index: LogIndex) -> Sum {
    if index == LogIndex(0) { Sum::default() } else { Sum::of_pair(slot as u64, index.0) }
}

/// The hash of a chunk of slots, as [`Slots::chunk`] gave it.
pub fn sum_of_chunk(number: usize, chunk: &[u8]) -> Sum {
    let mut sum = Sum::default();
    for (i, index) in chunk.as_chunks::<8>().0.iter().enumerate() {
        sum += of_slot(number * SLOTS_PER_CHUNK + i, LogIndex(u64::from_le_bytes(*index)));
    }
    sum
}

/// A committed id as a member of the state's hash.
pub fn sum_of_id(id: &TransactionId, index: LogIndex) -> Sum {
    Sum::of(&[&[4], &id.born.0.to_be_bytes()[..], &id.random.to_be_bytes(), &index.0.to_be_bytes()].concat())
}

fn known(index: LogIndex, format: u16, reads: u16) -> Result<(), UnknownFormat> {
    if format > reads { Err(UnknownFormat { index, format, reads }) } else { Ok(()) }
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

    /// Returns which slot it is, and what was there. One thread writes.
    fn write(&self, hash: u64, index: LogIndex) -> (usize, LogIndex) {
        let slot = (hash & (self.0.len() as u64 - 1)) as usize;
        let before = LogIndex(self.0[slot].load(Ordering::Relaxed));
        self.0[slot].store(index.0, Ordering::Release);
        (slot, before)
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

#[cfg(test)]
mod tests {
    use super::super::model::{self, Attempt, fact, term};
    use super::*;
    use beam_wire::Fact;

    /// W in these tests.
    const WINDOW: u64 = 10;

    fn begun() -> Verdicts {
        let mut verdicts = Verdicts::new();
        assert!(matches!(verdicts.judge(LogIndex(1), &model::genesis(WINDOW)), Ok(Judged::Ruled)));
        verdicts
    }

    fn judge(verdicts: &mut Verdicts, entry: &Entry) -> Option<Verdict> {
        match verdicts.judge(verdicts.judged().next(), entry).unwrap() {
            Judged::Skip => None,
            Judged::Refused(verdict) => Some(verdict),
            Judged::Ruled | Judged::Began(_) | Judged::Committed(_) => Some(Verdict::Committed),
        }
    }

    fn skip_to(verdicts: &mut Verdicts, index: u64) {
        while verdicts.judged().0 < index {
            assert_eq!(judge(verdicts, &Entry::Skip), None);
        }
    }

    /// Inserts one fact, of the subject with that number.
    fn write(subject: u64, born: u64, random: u128) -> Attempt {
        Attempt {
            id: TransactionId { born: LogIndex(born), random },
            read_index: born,
            reads: Vec::new(),
            epoch: 1,
            deletes: Vec::new(),
            inserts: vec![([term('s', subject), term('p', 0), term('o', 0)], None)],
        }
    }

    fn reading(mut attempt: Attempt, read_index: u64, path: AccessPath) -> Entry {
        attempt.read_index = read_index;
        attempt.reads = vec![path.hash()];
        attempt.entry()
    }

    fn rejected(rejection: Rejection) -> Option<Verdict> {
        Some(Verdict::Rejected(rejection))
    }

    /// The one body with this format mark whose rest is that of a good command.
    fn marked(format: u16) -> Entry {
        let Entry::Data { body, .. } = write(7, 1, 7).entry() else { unreachable!("attempts have data") };
        let mut body = body.to_vec();
        body[..2].copy_from_slice(&format.to_le_bytes());
        model::entry(body)
    }

    #[test]
    fn every_verdict_and_its_boundaries() {
        use Rejection::*;
        let committed = Some(Verdict::Committed);
        let with_epoch = |epoch| Attempt { epoch, ..write(1, 15, 1) }.entry();
        let subject = |i| AccessPath::Subject(TermId::of(&term('s', i)));
        // At 16: W = 10; subject 5 was written at 14 and nothing else; id {12, 99} was committed there.
        let written = write(5, 12, 99);
        let table = [
            ("no data", Entry::Skip, None),
            ("no command", model::entry(&b"\x01\0\0junk"[..]), rejected(Malformed)),
            ("no format", model::entry(&b"\x01"[..]), rejected(Malformed)),
            ("format 0", marked(0), rejected(Malformed)),
            (
                "a format that is not in force, though readable apart from its mark",
                marked(2),
                rejected(FormatNotInForce),
            ),
            ("a second genesis", model::genesis(WINDOW), rejected(SecondGenesis)),
            ("an older epoch", with_epoch(0), rejected(WrongEpoch)),
            ("a newer epoch", with_epoch(2), rejected(WrongEpoch)),
            ("born just before", write(1, 15, 1).entry(), committed),
            ("born at its own index", write(1, 16, 1).entry(), rejected(BornAhead)),
            ("born later", write(1, u64::MAX, 1).entry(), rejected(BornAhead)),
            ("read just before", Attempt { read_index: 15, ..write(1, 9, 1) }.entry(), committed),
            ("read at its own index", Attempt { read_index: 16, ..write(1, 9, 1) }.entry(), rejected(ReadAhead)),
            ("as old as the window", write(1, 6, 1).entry(), committed),
            ("older than the window", write(1, 5, 1).entry(), Some(Verdict::Expired)),
            ("the same id again", written.entry(), Some(Verdict::Duplicate { of: LogIndex(14) })),
            ("the same id with other facts", write(6, 12, 99).entry(), Some(Verdict::Duplicate { of: LogIndex(14) })),
            ("the same random bits, born elsewhere", write(1, 13, 99).entry(), committed),
            ("the same birth, other random bits", write(1, 12, 98).entry(), committed),
            (
                "read before the write",
                reading(write(1, 13, 1), 13, subject(5)),
                Some(Verdict::Conflict { with: LogIndex(14) }),
            ),
            ("read at the write", reading(write(1, 13, 1), 14, subject(5)), committed),
            ("read something else", reading(write(1, 13, 1), 13, subject(6)), committed),
            ("wrote it blindly", Attempt { read_index: 1, ..write(5, 13, 1) }.entry(), committed),
            ("a format that is in force already", model::command(Command::Upgrade(1)), committed),
            // The order of the rules: whatever comes first wins.
            ("wrong epoch, and born ahead", Attempt { epoch: 2, ..write(1, 16, 1) }.entry(), rejected(WrongEpoch)),
            ("born ahead, and read ahead", Attempt { read_index: 20, ..write(1, 16, 1) }.entry(), rejected(BornAhead)),
            ("read ahead, and expired", Attempt { read_index: 16, ..write(1, 5, 1) }.entry(), rejected(ReadAhead)),
            (
                "duplicate, and conflict",
                reading(written.clone(), 13, subject(5)),
                Some(Verdict::Duplicate { of: LogIndex(14) }),
            ),
        ];
        for (what, entry, verdict) in table {
            let mut verdicts = begun();
            skip_to(&mut verdicts, 13);
            assert_eq!(judge(&mut verdicts, &written.entry()), committed);
            skip_to(&mut verdicts, 15);
            assert_eq!(judge(&mut verdicts, &entry), verdict, "{what}");
        }
    }

    #[test]
    fn nothing_counts_before_the_genesis() {
        let mut verdicts = Verdicts::new();
        assert_eq!(judge(&mut verdicts, &Entry::Skip), None);
        assert_eq!(judge(&mut verdicts, &write(1, 0, 1).entry()), rejected(Rejection::BeforeGenesis));
        assert_eq!(judge(&mut verdicts, &model::command(Command::Upgrade(1))), rejected(Rejection::BeforeGenesis));
        assert_eq!(judge(&mut verdicts, &marked(2)), rejected(Rejection::FormatNotInForce));
        assert_eq!(judge(&mut verdicts, &model::entry(&b"junk"[..1])), rejected(Rejection::Malformed));
        assert_eq!(judge(&mut verdicts, &model::genesis(WINDOW)), Some(Verdict::Committed));
        assert_eq!(verdicts.rules().map(|rules| rules.window), Some(WINDOW));
        assert_eq!(judge(&mut verdicts, &write(1, 0, 1).entry()), Some(Verdict::Committed));
    }

    /// What was written before an epoch began goes on to count, and whoever has read it there may write in the
    /// new epoch; but nothing of the old epoch is taken any more.
    #[test]
    fn an_epoch_replaces_another_at_one_index() {
        let mut verdicts = begun();
        let path = AccessPath::Subject(TermId::of(&term('s', 5)));
        let of = |epoch, attempt: Attempt| Attempt { epoch, ..attempt };
        let kept = write(5, 1, 1);
        assert_eq!(judge(&mut verdicts, &kept.entry()), Some(Verdict::Committed));
        assert_eq!(judge(&mut verdicts, &model::begin(7, 2)), Some(Verdict::Committed));
        assert_eq!(verdicts.rules().map(|rules| rules.epoch), Some(Epoch(7)));
        assert_eq!(judge(&mut verdicts, &write(6, 2, 2).entry()), rejected(Rejection::WrongEpoch));
        assert_eq!(judge(&mut verdicts, &of(7, kept).entry()), Some(Verdict::Duplicate { of: LogIndex(2) }));
        let blind_to_it = of(7, Attempt { reads: vec![path.hash()], ..write(6, 1, 3) });
        assert_eq!(judge(&mut verdicts, &blind_to_it.entry()), Some(Verdict::Conflict { with: LogIndex(2) }));
        let aware = of(7, Attempt { reads: vec![path.hash()], read_index: 2, ..write(6, 1, 4) });
        assert_eq!(judge(&mut verdicts, &aware.entry()), Some(Verdict::Committed));
    }

    #[test]
    fn only_the_log_begins_an_epoch() {
        let mut verdicts = Verdicts::new();
        assert_eq!(judge(&mut verdicts, &model::begin(2, 0)), rejected(Rejection::BeforeGenesis));
        assert_eq!(judge(&mut verdicts, &model::genesis(WINDOW)), Some(Verdict::Committed));
        assert_eq!(judge(&mut verdicts, &model::begin(0, 2)), rejected(Rejection::Malformed));
        assert_eq!(judge(&mut verdicts, &model::begin(1, 3)), rejected(Rejection::Malformed));
        assert_eq!(judge(&mut verdicts, &model::begin(5, 5)), rejected(Rejection::WrongEpoch));
        assert_eq!(judge(&mut verdicts, &model::begin(5, 5)), Some(Verdict::Committed));
        assert_eq!(judge(&mut verdicts, &model::begin(5, 6)), rejected(Rejection::WrongEpoch));
        assert_eq!(judge(&mut verdicts, &model::begin(4, 7)), rejected(Rejection::WrongEpoch));
        assert_eq!(judge(&mut verdicts, &model::begin(6, 8)), Some(Verdict::Committed));
    }

    #[test]
    fn a_refused_transaction_leaves_no_trace() {
        let mut verdicts = begun();
        let path = AccessPath::Subject(TermId::of(&term('s', 5)));
        skip_to(&mut verdicts, 19);
        assert_eq!(judge(&mut verdicts, &write(5, 2, 1).entry()), Some(Verdict::Expired));
        let refused = Attempt { epoch: 9, ..write(5, 19, 2) };
        assert_eq!(judge(&mut verdicts, &refused.entry()), rejected(Rejection::WrongEpoch));
        assert_eq!(judge(&mut verdicts, &reading(write(6, 19, 3), 19, path)), Some(Verdict::Committed));
        assert_eq!(judge(&mut verdicts, &write(5, 19, 2).entry()), Some(Verdict::Committed));
    }

    /// Also one that changes nothing: its writer has seen the fact, and may rely on it.
    #[test]
    fn a_write_counts_for_every_class_of_its_facts() {
        let quad = ([term('s', 1), term('p', 1), term('o', 1)], Some(term('g', 1)));
        let Fact { subject: s, predicate: p, object: o, graph: g } = fact(&quad);
        let classes = [
            AccessPath::SubjectPredicateObject(s, p, o),
            AccessPath::SubjectPredicate(s, p),
            AccessPath::PredicateObject(p, o),
            AccessPath::Subject(s),
            AccessPath::Predicate(p),
            AccessPath::Object(o),
            AccessPath::Graph(g),
            AccessPath::Everything,
        ];
        for path in classes {
            for deleted in [true, false] {
                let mut verdicts = begun();
                let mut writer = Attempt { inserts: Vec::new(), ..write(1, 1, 1) };
                if deleted { &mut writer.deletes } else { &mut writer.inserts }.push(quad.clone());
                assert_eq!(judge(&mut verdicts, &writer.entry()), Some(Verdict::Committed));
                let conflict = Some(Verdict::Conflict { with: LogIndex(2) });
                assert_eq!(judge(&mut verdicts, &reading(write(2, 1, 2), 1, path)), conflict, "{path:?}");
                assert_eq!(judge(&mut verdicts, &reading(write(2, 1, 3), 2, path)), Some(Verdict::Committed));
            }
        }
    }

    #[test]
    fn an_id_is_known_for_as_long_as_it_can_come_again() {
        let mut verdicts = begun();
        let first = write(1, 1, 1);
        assert_eq!(judge(&mut verdicts, &first.entry()), Some(Verdict::Committed));
        skip_to(&mut verdicts, 1 + WINDOW - 1);
        assert_eq!(judge(&mut verdicts, &first.entry()), Some(Verdict::Duplicate { of: LogIndex(2) }));
        assert_eq!(judge(&mut verdicts, &first.entry()), Some(Verdict::Expired));
        skip_to(&mut verdicts, 40);
        assert_eq!(verdicts.ids.len(), 0);
    }

    #[test]
    fn a_format_that_this_program_does_not_know_stops_it() {
        let mut verdicts = begun();
        let upgrade = model::command(Command::Upgrade(FORMAT + 1));
        let stop = UnknownFormat { index: LogIndex(2), format: FORMAT + 1, reads: FORMAT };
        assert_eq!(verdicts.judge(LogIndex(2), &upgrade).unwrap_err(), stop);
        assert!(stop.to_string().contains("install a newer beam"), "{stop}");

        let genesis =
            Genesis { cluster: model::cluster(), epoch: Epoch(1), format: FORMAT + 1, slots_log2: 10, window: WINDOW };
        let stopped = Verdicts::new().judge(LogIndex(1), &model::command(Command::Genesis(genesis)));
        assert_eq!(stopped.unwrap_err(), UnknownFormat { index: LogIndex(1), format: FORMAT + 1, reads: FORMAT });
    }
}

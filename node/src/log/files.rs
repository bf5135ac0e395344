//! The open files of a log, and what becomes of them. Whatever blocks is done here.
//!
//! What there is to write stays here until it is done. When the disk is full, what was begun is put right,
//! and the rest is written when there is room.

use super::disk::Disk;
use super::meta::{MachineState, Meta, MetaState, Sealed, SegmentRecord};
use super::room::{Room, Space, reserve};
use super::segment::{Segment, is_segment_name};
use super::store::{StoreError, StoreOptions};
use super::types::{Entry, LogId};
use super::writer::{Begun, Change};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

/// The open files.
pub struct Files {
    disk: Arc<dyn Disk>,
    meta: Meta,
    state: MetaState,
    options: StoreOptions,
    /// As listed in `state`.
    segments: Vec<Arc<Segment>>,
    /// The newest index in the segments.
    last: Option<u64>,
    /// Whether the last segment is open for writing, and what was written to it.
    open: Option<u64>,
    /// Bytes of the files of all segments but the last.
    sealed_bytes: u64,
    /// Something lazy is not durable yet.
    lazy: bool,
    closed: bool,
    /// What is to be done, in order; what `group` holds comes first.
    todo: VecDeque<Change>,
    group: Group,
    room: Room,
    space: Space,
    /// A full disk has interrupted something: see [`Files::mend`].
    broken: bool,
}

/// Entries that are flushed together, and the newest of the lazy changes that came among them. Those speak
/// of entries that came before them.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    committed: Option<LogId>,
    machine: Option<Arc<MachineState>>,
}

/// What came of some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worked {
    /// All that was asked for is written.
    All,
    /// The rest must wait until there is room on the disk.
    Waits,
}

impl Files {
    /// The files as they were found. `last` is the newest index in the segments.
    pub fn new(
        disk: Arc<dyn Disk>,
        meta: Meta,
        state: MetaState,
        options: StoreOptions,
        segments: Vec<Arc<Segment>>,
        last: Option<u64>,
    ) -> Result<Self, StoreError> {
        let sealed_bytes = state.sealed.values().map(|sealed| sealed.bytes).sum();
        let space = disk.space()?;
        let mut files = Self {
            disk,
            meta,
            state,
            options,
            segments,
            last,
            open: None,
            sealed_bytes,
            lazy: false,
            closed: false,
            todo: VecDeque::new(),
            group: Group::default(),
            room: Room::Enough,
            space,
            broken: false,
        };
        files.look()?;
        Ok(files)
    }

    /// All segments, in order.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// The newest index in the segments.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// Whether something is not durable yet that may lag.
    pub fn is_lazy(&self) -> bool {
        self.lazy
    }

    /// Whether it was told to close: nothing but the metadata file is open any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What the disk allowed when it was last looked at, and what room there was.
    pub fn room(&self) -> (Room, Space) {
        (self.room, self.space)
    }

    /// What is to be kept free.
    pub fn reserve(&self) -> u64 {
        reserve(self.space, self.options.reserve_bytes)
    }

    /// What the segments take on disk.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        Ok(self.sealed_bytes + self.segments.last().map_or(Ok(0), |s| s.file_bytes())?)
    }

    /// Waits until a simulated disk has what was written.
    pub async fn settled(&self) -> Result<(), StoreError> {
        Ok(self.disk.settled().await?)
    }

    /// Closes the metadata file, the last one that is open.
    pub fn finish(self) -> Result<(), StoreError> {
        self.meta.close()
    }

    /// Looks how much room there is.
    pub fn look(&mut self) -> Result<(), StoreError> {
        self.space = self.disk.space()?;
        self.room = Room::judge(self.space, self.options.reserve_bytes, self.room);
        Ok(())
    }

    /// Something to do, after all that was asked for before.
    pub fn ask(&mut self, changes: Vec<Change>) {
        self.todo.extend(changes);
    }

    /// Whether it was told to close, and cannot yet.
    pub fn is_closing(&self) -> bool {
        self.todo.iter().any(|change| matches!(change, Change::Close))
    }

    /// Does what was asked for, as far as there is room, and returns when the real disk has it (a simulated
    /// one must settle).
    pub fn work(&mut self) -> Result<Worked, StoreError> {
        for change in &self.todo {
            if let Change::Damaged { file, why } = change {
                return Err(StoreError::Corrupt { file: file.clone(), why: why.clone() });
            }
        }
        self.look()?;
        match self.mend().and_then(|()| self.write()) {
            Ok(Worked::All) => return Ok(Worked::All),
            Ok(Worked::Waits) => {}
            Err(e) if e.is_full() => self.broken = true,
            Err(e) => return Err(e),
        }
        // At once, for the readers of the last segment, and to make room. If there is no room even for this,
        // later.
        match self.mend().and_then(|()| self.make_room()) {
            Err(e) if e.is_full() => self.broken = true,
            Err(e) => return Err(e),
            Ok(()) => {}
        }
        Ok(Worked::Waits)
    }

    /// Does the discards that wait behind what takes room. They are of entries that are durable, and nothing
    /// that waits speaks of those.
    fn make_room(&mut self) -> Result<(), StoreError> {
        let upto = |change: &Change| match change {
            Change::Purge(upto) if self.last >= Some(upto.index) => Some(*upto),
            _ => None,
        };
        self.todo.iter().filter_map(upto).max().map_or(Ok(()), |upto| self.purge(upto))
    }

    fn write(&mut self) -> Result<Worked, StoreError> {
        loop {
            while let Some(change) = self.todo.pop_front() {
                match change {
                    Change::Append(more) if self.group.entries.is_empty() => self.group.entries = more,
                    Change::Append(more) => self.group.entries.extend(more),
                    Change::Committed(id) => self.group.committed = Some(id),
                    Change::Machine(machine) => self.group.machine = Some(machine),
                    other => {
                        self.todo.push_front(other);
                        break;
                    }
                }
            }
            if self.room == Room::Nothing && !self.group.entries.is_empty() {
                return Ok(Worked::Waits);
            }
            let group = std::mem::take(&mut self.group);
            if let Err(e) = self.append(&group) {
                self.group = group;
                return Err(e);
            }
            let Some(change) = self.todo.pop_front() else { return Ok(Worked::All) };
            if let Err(e) = self.change(&change) {
                self.todo.push_front(change);
                return Err(e);
            }
        }
    }

    fn change(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Append(_) | Change::Committed(_) | Change::Machine(_) => unreachable!("these are gathered"),
            Change::Damaged { .. } => unreachable!("this is looked for first"),
            Change::Vote(vote) => {
                self.state.vote = Some(*vote);
                self.save()
            }
            Change::Epoch(epoch) => {
                self.state.epoch = Some(*epoch);
                self.save()
            }
            Change::Begin(Begun { raft_id, epoch, vote, committed, machine }) => {
                self.state.raft_id = *raft_id;
                self.state.epoch = Some(*epoch);
                self.state.vote = Some(*vote);
                self.state.committed = Some(*committed);
                self.state.machine = machine.clone();
                self.save()
            }
            Change::Save => self.save(),
            Change::Truncate(from) => self.truncate(*from),
            Change::Purge(upto) => self.purge(*upto),
            Change::Close => self.close(),
        }
    }

    fn save(&mut self) -> Result<(), StoreError> {
        self.meta.save(&self.state)?;
        self.lazy = false;
        Ok(())
    }

    fn append(&mut self, group: &Group) -> Result<(), StoreError> {
        // After a full disk, some are written already.
        let written = |entry: &&Entry| self.last.is_some_and(|last| entry.log_id.index <= last);
        let mut entries = &group.entries[group.entries.iter().take_while(written).count()..];
        while let Some(first) = entries.first() {
            let used = self.open_last(first.log_id.index)?;
            let segment = self.segments.last().expect("the last segment was just opened");
            let (count, bytes) = segment.append(entries, self.options.segment_bytes.saturating_sub(used).max(1))?;
            self.open = Some(used + bytes);
            self.last = Some(entries[count - 1].log_id.index);
            entries = &entries[count..];
        }
        // Not sooner: a new segment saves, and a position beyond the end of the log would be taken, after a
        // crash, for entries that were purged.
        self.lazy |= group.committed.is_some() || group.machine.is_some();
        self.state.committed = group.committed.or(self.state.committed);
        if let Some(machine) = &group.machine {
            self.state.machine = machine.clone();
        }
        Ok(())
    }

    /// Opens the last segment for writing, or a new one that begins at `next` if there is none or it is
    /// full. Returns how much was written to it.
    fn open_last(&mut self, next: u64) -> Result<u64, StoreError> {
        let used = match (self.open, self.segments.last()) {
            (Some(used), Some(_)) => used,
            // What is in there is not counted at a restart. The file is longer than that.
            (None, Some(segment)) => {
                if !self.meta.is_current() {
                    self.meta.save(&self.state)?;
                }
                segment.unseal()?;
                if segment.bounds()?.is_none() { 0 } else { segment.file_bytes()? }
            }
            (_, None) => return self.roll(next),
        };
        self.open = Some(used);
        if used < self.options.segment_bytes { Ok(used) } else { self.roll(next) }
    }

    /// Begins a new segment. It is durable before it is listed, so a listed segment always exists.
    fn roll(&mut self, first: u64) -> Result<u64, StoreError> {
        let sealed = match (self.segments.last(), self.last) {
            (Some(full), Some(last)) => {
                full.seal()?;
                Some((full.record.number, Sealed { last, bytes: full.file_bytes()? }))
            }
            _ => None,
        };
        self.open = None;
        let record = SegmentRecord { number: self.state.next_segment, first };
        let segment = Segment::create(self.disk.clone(), record)?;
        if let Some((number, sealed)) = sealed {
            self.sealed_bytes += sealed.bytes;
            self.state.sealed.insert(number, sealed);
        }
        self.state.next_segment += 1;
        self.state.segments.push(record);
        self.segments.push(Arc::new(segment));
        self.save()?;
        self.open = Some(0);
        Ok(0)
    }

    /// The list first: after it is durable, files that it does not name are dirt, and those that it does
    /// name hold what they held. Then the files, then the end of the last one.
    fn truncate(&mut self, from: u64) -> Result<(), StoreError> {
        let keep = self.segments.partition_point(|s| s.record.first < from);
        let gone = self.unlist(keep..self.segments.len())?;
        for segment in gone {
            segment.remove()?;
        }
        if self.last.is_some_and(|last| last >= from) {
            self.last = from.checked_sub(1).filter(|_| !self.segments.is_empty());
        }
        if let Some(segment) = self.segments.last() {
            segment.unseal()?;
            segment.cut(from)?;
        }
        Ok(())
    }

    /// The purge point first, with the list: a crash then leaves files that nobody lists, never a list
    /// of files that are not there.
    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        if self.state.purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        self.state.purged = Some(upto);
        let ends = self.segments.iter().skip(1).map(|next| Some(next.record.first - 1)).chain([self.last]);
        let count = ends.take_while(|end| end.is_none_or(|end| end <= upto.index)).count().min(self.segments.len());
        let gone = self.unlist(0..count)?;
        for segment in gone {
            segment.remove()?;
        }
        if self.segments.is_empty() {
            self.last = None;
        }
        Ok(())
    }

    /// Strikes segments from the list, and returns them. The last one left may be written to again.
    fn unlist(&mut self, range: std::ops::Range<usize>) -> Result<Vec<Arc<Segment>>, StoreError> {
        if !range.is_empty() && range.end == self.segments.len() {
            self.open = None;
        }
        for gone in self.state.segments.drain(range.clone()) {
            self.state.sealed.remove(&gone.number);
        }
        if let Some(last) = self.state.segments.last() {
            self.state.sealed.remove(&last.number);
        }
        self.save()?;
        let gone = self.segments.drain(range).collect();
        self.sealed_bytes = self.state.sealed.values().map(|sealed| sealed.bytes).sum();
        Ok(gone)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.save()?;
        for segment in &self.segments {
            segment.seal()?;
            segment.close_sealed()?;
        }
        self.closed = true;
        Ok(())
    }

    /// Puts right what a full disk has interrupted. redb uses no file in which a write has failed: the files
    /// are opened once more, as after a crash, and what `state` says is made true; what was being done is then
    /// done once more. All of it can be interrupted again.
    fn mend(&mut self) -> Result<(), StoreError> {
        if !self.broken {
            return Ok(());
        }
        if let Some(last) = self.segments.last() {
            last.abandon();
        }
        self.open = None;
        self.meta.reopen(&*self.disk)?;
        self.save()?;
        let listed: BTreeSet<u64> = self.state.segments.iter().map(|s| s.number).collect();
        let (kept, gone) = self.segments.drain(..).partition(|s| listed.contains(&s.record.number));
        self.segments = kept;
        for segment in gone {
            segment.abandon();
        }
        for name in self.disk.list()?.iter().filter(|name| is_segment_name(name)) {
            if !self.segments.iter().any(|s| s.name() == *name) {
                self.disk.remove(name)?;
            }
        }
        self.sealed_bytes = self.state.sealed.values().map(|sealed| sealed.bytes).sum();
        let before = self.segments.iter().rev().nth(1).map(|s| s.record.number);
        self.last = before.and_then(|number| Some(self.state.sealed.get(&number)?.last));
        if let Some(last) = self.segments.last() {
            last.unseal()?;
            self.last = last.bounds()?.map(|(_, end)| end).or(self.last);
        }
        self.broken = false;
        Ok(())
    }
}

impl StoreError {
    /// Whether there is no room on the disk, and nothing else is wrong.
    pub(super) fn is_full(&self) -> bool {
        let full = |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Self::Io(e) | Self::Database { source: redb::Error::Io(e), .. } => full(e),
            _ => false,
        }
    }
}

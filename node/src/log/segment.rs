//! A run of entries in one redb file. It is written until it is long enough, then sealed.
//!
//! redb walks a whole file after a crash: as only the last segment is open for writing, only that one is
//! ever walked.
//!
//! Entries lie in runs. In a segment that an earlier version has begun, the first ones lie alone, each in its row.

use super::disk::Disk;
use super::guard::guarded;
use super::meta::{At, SegmentRecord};
use super::run::{self, Run};
use super::store::StoreError;
use super::stored::{EntryError, decode_entry};
use super::types::{Entry, LogCommand};
use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use redb::{
    Builder, Database, DatabaseError, Key, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable, Table, TableDefinition, TableError, TableHandle, WriteTransaction,
};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// By the index of its first entry and its number, each piece of each run.
pub const RUNS: TableDefinition<(u64, u16), &[u8]> = TableDefinition::new("runs");
/// By its index, each entry that an earlier version has written.
pub const SINGLES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
/// What the names of segment files begin with.
const PREFIX: &str = "segment-";
/// The name of a segment until its first commit is durable.
const NEW: &str = "segment.new";
/// Holds a group commit of large entries; half of it buffers writes.
const WRITING_CACHE_BYTES: usize = 32 << 20;
/// Readers go forward, and look at a page once.
const SEALED_CACHE_BYTES: usize = 1 << 20;

/// One segment. Readers and the writer share it.
pub struct Segment {
    pub record: SegmentRecord,
    disk: Arc<dyn Disk>,
    file: RwLock<File>,
}

enum File {
    Closed,
    Writing(Database),
    Sealed(ReadOnlyDatabase),
}

/// Whether a file name is one that only segments have.
pub fn is_segment_name(name: &str) -> bool {
    name == NEW || name.starts_with(PREFIX)
}

impl Segment {
    /// A segment that is listed.
    pub fn listed(disk: Arc<dyn Disk>, record: SegmentRecord) -> Self {
        Self { record, disk, file: RwLock::new(File::Closed) }
    }

    /// Makes an empty one, open for writing. It is durable, and ready to be listed.
    pub fn create(disk: Arc<dyn Disk>, record: SegmentRecord) -> Result<Self, StoreError> {
        let file = disk.create(NEW)?;
        let db = Builder::new().set_cache_size(WRITING_CACHE_BYTES).create_with_backend(file).at(NEW)?;
        let write = db.begin_write().at(NEW)?;
        write.open_table(RUNS).at(NEW)?;
        write.commit().at(NEW)?;
        let name = name(record);
        disk.rename(NEW, &name)?;
        disk.sync_dir()?;
        Ok(Self { record, disk, file: RwLock::new(File::Writing(db)) })
    }

    /// Its file's name.
    pub fn name(&self) -> String {
        name(self.record)
    }

    /// Whether its file is there.
    pub fn exists(&self) -> Result<bool, StoreError> {
        let name = self.name();
        Ok(self.disk.list()?.contains(&name))
    }

    /// How many bytes its file has.
    pub fn file_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.disk.len(&self.name())?)
    }

    /// Opens it for writing: repairs it, if it was left in a crash.
    pub fn unseal(&self) -> Result<(), StoreError> {
        let mut file = self.write();
        if !matches!(*file, File::Writing(_)) {
            close(std::mem::replace(&mut *file, File::Closed), &self.name())?;
            *file = File::Writing(self.open_for_writing()?);
        }
        Ok(())
    }

    /// Ends writing.
    pub fn seal(&self) -> Result<(), StoreError> {
        let mut file = self.write();
        match std::mem::replace(&mut *file, File::Closed) {
            file @ File::Writing(_) => close(file, &self.name()),
            other => {
                *file = other;
                Ok(())
            }
        }
    }

    /// Closes the file of a segment that nobody has read for a while, or that is no more.
    pub fn close_sealed(&self) -> Result<(), StoreError> {
        let mut file = self.write();
        match std::mem::replace(&mut *file, File::Closed) {
            file @ File::Sealed(_) => close(file, &self.name()),
            other => {
                *file = other;
                Ok(())
            }
        }
    }

    /// Closes the file, whatever it was opened for.
    pub fn close(&self) -> Result<(), StoreError> {
        close(std::mem::replace(&mut *self.write(), File::Closed), &self.name())
    }

    /// Closes a file in which a write has failed, or that is damaged, as it is.
    pub fn abandon(&self) {
        let file = std::mem::replace(&mut *self.write(), File::Closed);
        // redb has said already what is wrong.
        drop(guarded(&self.name(), || {
            drop(file);
            Ok(())
        }));
    }

    /// Closes the file and removes it. It must not be listed any more.
    pub fn remove(&self) -> Result<(), StoreError> {
        self.close()?;
        Ok(self.disk.remove(&self.name())?)
    }

    /// Adds entries that follow the last one in one transaction, until what was added weighs more than
    /// `bytes_max`, one at least. Returns how many entries, and how many bytes.
    pub fn append(&self, entries: &[Entry], bytes_max: u64) -> Result<(usize, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        self.change(|write, name| {
            let mut runs = write.open_table(RUNS).at(name)?;
            while let Some(first) = entries.get(count)
                && (count == 0 || bytes < bytes_max)
            {
                let left = usize::try_from(bytes_max - bytes).unwrap_or(usize::MAX);
                let run = Run::of(&entries[count..], left);
                insert(&mut runs, first.log_id.index, &run).at(name)?;
                count += run.count;
                bytes += run.bytes.len() as u64;
            }
            Ok(())
        })?;
        Ok((count, bytes))
    }

    /// Drops its entries from an index on. What is left of a run is written anew.
    pub fn cut(&self, from: u64) -> Result<(), StoreError> {
        self.change(|write, name| {
            if write.list_tables().at(name)?.any(|table| table.name() == SINGLES.name()) {
                write.open_table(SINGLES).at(name)?.retain_in(from.., |_, _| false).at(name)?;
            }
            let mut runs = write.open_table(RUNS).at(name)?;
            let first = run_of(&runs, from).at(name)?.unwrap_or(from);
            let mut left = match runs_from(&runs, first, name)?.next().transpose()? {
                Some((_, entries)) => entries,
                None => Vec::new(),
            };
            left.retain(|entry| entry.log_id.index < from);
            runs.retain_in((first.min(from), 0).., |_, _| false).at(name)?;
            if !left.is_empty() {
                insert(&mut runs, first, &Run::of(&left, usize::MAX)).at(name)?;
            }
            Ok(())
        })
    }

    fn change(&self, change: impl FnOnce(&WriteTransaction, &str) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let name = self.name();
        let file = self.read();
        let File::Writing(db) = &*file else { panic!("{name} is written to, but not open for writing") };
        guarded(&name, || {
            let write = db.begin_write().at(&name)?;
            change(&write, &name)?;
            write.commit().at(&name)
        })
    }

    /// The indexes of its first and last entries.
    pub fn bounds(&self) -> Result<Option<(u64, u64)>, StoreError> {
        self.look(|tables, name| {
            let single = |row: Option<(redb::AccessGuard<'_, u64>, _)>| row.map(|(index, _)| index.value());
            let (mut first, mut last) = (None, None);
            if let Some(singles) = &tables.singles {
                first = single(singles.first().at(name)?);
                last = single(singles.last().at(name)?);
            }
            if let Some(runs) = &tables.runs
                && let Some((key, _)) = runs.last().at(name)?
            {
                first = first.or(runs.first().at(name)?.map(|(key, _)| key.value().0));
                let run = runs_from(runs, key.value().0, name)?.next().transpose()?;
                last = run.and_then(|(_, entries)| Some(entries.last()?.log_id.index));
            }
            Ok(first.zip(last))
        })
    }

    /// The lowest index above this one at which a row begins that can be read without those before it.
    pub fn next_row(&self, after: u64) -> Result<Option<u64>, StoreError> {
        self.look(|tables, name| {
            if let Some(singles) = &tables.singles
                && let Some(row) = singles.range(after + 1..).at(name)?.next()
            {
                return Ok(Some(row.at(name)?.0.value()));
            }
            let Some(runs) = &tables.runs else { return Ok(None) };
            let row = runs.range((after + 1, 0)..).at(name)?.next().transpose().at(name)?;
            Ok(row.map(|(key, _)| key.value().0))
        })
    }

    /// Its entries out of `from..=to`, while their weights fit into `bytes_left`, which they are taken
    /// off. With `one`, the first is read even if it does not fit. Whoever reads on is to find the beginning of a
    /// run: after the first, a run is taken whole or not at all.
    pub fn entries(&self, from: u64, to: u64, bytes_left: &mut usize, one: bool) -> Result<Vec<Entry>, StoreError> {
        self.look(|tables, name| {
            let mut entries = Vec::new();
            if let Some(singles) = &tables.singles {
                for row in singles.range(from..=to).at(name)? {
                    let (index, value) = row.at(name)?;
                    let entry = decode_entry(index.value(), value.value()).map_err(|e| corrupt(name, e))?;
                    if !take(bytes_left, weight(&entry), one && entries.is_empty()) {
                        return Ok(entries);
                    }
                    entries.push(entry);
                }
            }
            let Some(runs) = &tables.runs else { return Ok(entries) };
            let first = run_of(runs, from).at(name)?.unwrap_or(from);
            for run in runs_from(runs, first, name)? {
                let (first, mut run) = run?;
                if first > to {
                    break;
                }
                run.retain(|entry| (from..=to).contains(&entry.log_id.index));
                let weighs = run.iter().map(weight).sum::<usize>();
                if weighs > *bytes_left {
                    // What fits of the first run; of a later one, nothing.
                    let part = if one && entries.is_empty() { run } else { Vec::new() };
                    for entry in part {
                        if !take(bytes_left, weight(&entry), entries.is_empty()) {
                            break;
                        }
                        entries.push(entry);
                    }
                    *bytes_left = 0;
                    break;
                }
                *bytes_left -= weighs;
                entries.append(&mut run);
            }
            Ok(entries)
        })
    }

    /// Runs a read transaction. The file stays open meanwhile: who wants to seal it waits.
    fn look<T>(&self, look: impl FnOnce(&Tables, &str) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let name = self.name();
        loop {
            let file = self.read();
            if matches!(*file, File::Closed) {
                drop(file);
                let mut file = self.write();
                if matches!(*file, File::Closed) {
                    *file = File::Sealed(self.open_sealed()?);
                }
                continue;
            }
            return guarded(&name, || {
                let read = match &*file {
                    File::Writing(db) => db.begin_read(),
                    File::Sealed(db) => db.begin_read(),
                    File::Closed => unreachable!("it was opened, and is held"),
                };
                look(&Tables::open(&read.at(&name)?, &name)?, &name)
            });
        }
    }

    fn open_sealed(&self) -> Result<ReadOnlyDatabase, StoreError> {
        let name = self.name();
        let file = self.disk.open(&name)?;
        guarded(&name, || match Builder::new().set_cache_size(SEALED_CACHE_BYTES).open_read_only_with_backend(file) {
            Err(DatabaseError::RepairAborted) => {
                let why = "it says that it was not closed, but was: its first bytes have rotted".into();
                Err(StoreError::Corrupt { file: name.clone(), why })
            }
            other => other.at(&name),
        })
    }

    /// What was written to it may hang on a page that has rotted, so all of it is checked.
    fn open_for_writing(&self) -> Result<Database, StoreError> {
        let name = self.name();
        let file = self.disk.open(&name)?;
        let mut builder = Builder::new();
        builder.set_cache_size(WRITING_CACHE_BYTES).set_check_integrity_on_open(true);
        guarded(&name, || builder.create_with_backend(file).at(&name))
    }

    fn read(&self) -> RwLockReadGuard<'_, File> {
        self.file.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, File> {
        self.file.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tables of a file that is read: one of them at least.
struct Tables {
    singles: Option<ReadOnlyTable<u64, &'static [u8]>>,
    runs: Option<ReadOnlyTable<(u64, u16), &'static [u8]>>,
}

impl Tables {
    fn open(read: &ReadTransaction, name: &str) -> Result<Self, StoreError> {
        let tables = Self { singles: table(read, SINGLES, name)?, runs: table(read, RUNS, name)? };
        if tables.singles.is_none() && tables.runs.is_none() {
            return Err(StoreError::Corrupt { file: name.into(), why: "it has no table of entries".into() });
        }
        Ok(tables)
    }
}

fn table<K: Key + 'static>(
    read: &ReadTransaction,
    table: TableDefinition<K, &'static [u8]>,
    name: &str,
) -> Result<Option<ReadOnlyTable<K, &'static [u8]>>, StoreError> {
    match read.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        opened => opened.map(Some).at(name),
    }
}

fn insert(runs: &mut Table<'_, (u64, u16), &'static [u8]>, first: u64, run: &Run) -> Result<(), redb::StorageError> {
    for (piece, number) in run.pieces().zip(0..) {
        runs.insert((first, number), &piece[..])?;
    }
    Ok(())
}

/// Where the run begins that holds an index, if there is one.
fn run_of(runs: &impl ReadableTable<(u64, u16), &'static [u8]>, index: u64) -> Result<Option<u64>, redb::StorageError> {
    let before = runs.range(..=(index, u16::MAX))?.next_back().transpose()?;
    Ok(before.map(|(key, _)| key.value().0))
}

/// The runs that begin at an index or later: where each begins, and its entries.
fn runs_from(
    runs: &impl ReadableTable<(u64, u16), &'static [u8]>,
    first: u64,
    name: &str,
) -> Result<impl Iterator<Item = Result<(u64, Vec<Entry>), StoreError>>, StoreError> {
    let mut rows = runs.range((first, 0)..).at(name)?;
    Ok(std::iter::from_fn(move || {
        let row = rows.next()?;
        let read = || {
            let (key, piece) = row.at(name)?;
            let (first, number) = key.value();
            let broken = || corrupt(name, EntryError::Piece { first });
            if number != 0 {
                return Err(broken());
            }
            let length = run::length(first, piece.value()).map_err(|e| corrupt(name, e))?;
            let mut bytes = BytesMut::from(piece.value());
            for number in 1.. {
                if bytes.len() >= length {
                    break;
                }
                let (key, piece) = rows.next().ok_or_else(broken)?.at(name)?;
                if key.value() != (first, number) {
                    return Err(broken());
                }
                bytes.extend_from_slice(piece.value());
            }
            let entries = run::entries(first, &Bytes::from(bytes)).map_err(|e| corrupt(name, e))?;
            Ok((first, entries))
        };
        Some(read())
    }))
}

fn corrupt(name: &str, e: EntryError) -> StoreError {
    StoreError::Corrupt { file: name.into(), why: e.to_string() }
}

/// What an entry counts for where bytes are bounded.
pub fn weight(entry: &Entry) -> usize {
    /// An origin and the rest, in memory and on the wire.
    const FIXED: usize = 128;
    match &entry.payload {
        EntryPayload::Normal(LogCommand::Data { body, .. } | LogCommand::Begin { body, .. }) => FIXED + body.len(),
        _ => FIXED,
    }
}

/// Takes a weight off what is left, to nothing at least. False if it does not fit, and need not.
pub fn take(left: &mut usize, weight: usize, must: bool) -> bool {
    let fits = weight <= *left;
    *left = if fits || must { left.saturating_sub(weight) } else { 0 };
    fits || must
}

fn name(record: SegmentRecord) -> String {
    format!("{PREFIX}{:012}", record.number)
}

fn close(file: File, name: &str) -> Result<(), StoreError> {
    guarded(name, || match file {
        File::Closed => Ok(()),
        File::Writing(db) => db.close().at(name),
        File::Sealed(db) => db.close().at(name),
    })
}

/// redb closes a file that is dropped, and may panic then.
impl Drop for Segment {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {}", self.name(), self.record.first)
    }
}

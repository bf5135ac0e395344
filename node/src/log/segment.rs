//! A run of entries in one redb file. It is written until it is long enough, then sealed.
//!
//! redb walks a whole file after a crash: as only the last segment is open for writing, only that one is
//! ever walked.

use super::disk::Disk;
use super::guard::guarded;
use super::meta::{At, SegmentRecord};
use super::store::StoreError;
use super::stored::{EntryError, decode_entry, encode_entry};
use super::types::{Entry, LogCommand};
use openraft::EntryPayload;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
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
        write.open_table(TABLE).at(NEW)?;
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

    /// Adds entries that follow the last one in one transaction, until the values that were added weigh
    /// more than `bytes_max`, one at least. Returns how many entries, and how many bytes.
    pub fn append(&self, entries: &[Entry], bytes_max: u64) -> Result<(usize, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        self.change(|table| {
            for entry in entries {
                let value = encode_entry(entry);
                table.insert(entry.log_id.index, value.as_slice())?;
                count += 1;
                bytes += value.len() as u64;
                if bytes >= bytes_max {
                    break;
                }
            }
            Ok(())
        })?;
        Ok((count, bytes))
    }

    /// Drops its entries from an index on.
    pub fn cut(&self, from: u64) -> Result<(), StoreError> {
        self.change(|table| table.retain_in(from.., |_, _| false))
    }

    fn change(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, u64, &[u8]>) -> Result<(), redb::StorageError>,
    ) -> Result<(), StoreError> {
        let name = self.name();
        let file = self.read();
        let File::Writing(db) = &*file else { panic!("{name} is written to, but not open for writing") };
        guarded(&name, || {
            let write = db.begin_write().at(&name)?;
            change(&mut write.open_table(TABLE).at(&name)?).at(&name)?;
            write.commit().at(&name)
        })
    }

    /// The indexes of its first and last entries.
    pub fn bounds(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let name = self.name();
        self.look(|table| {
            let first = table.first().at(&name)?.map(|(key, _)| key.value());
            let last = table.last().at(&name)?.map(|(key, _)| key.value());
            Ok(first.zip(last))
        })
    }

    /// Its entries out of `from..=to`, while their weights fit into `bytes_left`, which they are taken
    /// off. With `one`, the first is read even if it does not fit.
    pub fn entries(&self, from: u64, to: u64, bytes_left: &mut usize, one: bool) -> Result<Vec<Entry>, StoreError> {
        let name = self.name();
        self.look(|table| {
            let mut entries = Vec::new();
            for row in table.range(from..=to).at(&name)? {
                let (index, value) = row.at(&name)?;
                let corrupt = |e: EntryError| StoreError::Corrupt { file: name.clone(), why: e.to_string() };
                let entry = decode_entry(index.value(), value.value()).map_err(corrupt)?;
                if !take(bytes_left, weight(&entry), one && entries.is_empty()) {
                    break;
                }
                entries.push(entry);
            }
            Ok(entries)
        })
    }

    /// Runs a read transaction. The file stays open meanwhile: who wants to seal it waits.
    fn look<T>(
        &self,
        look: impl FnOnce(ReadOnlyTable<u64, &'static [u8]>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
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
                look(read.at(&name)?.open_table(TABLE).at(&name)?)
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

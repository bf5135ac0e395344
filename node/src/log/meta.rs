//! The metadata file: who this node is, its vote, how far it is, and which segments there are.
//!
//! A change is one transaction of one small redb file. What has not changed is not written.

use super::disk::{Disk, DiskFile};
use super::guard::guarded;
use super::store::StoreError;
use super::stored::{StoredLogId, StoredMembers, StoredVote};
use super::types::{Course, LogId, StoredMembership, Vote};
use beam_wire::codec::{self, DecodeError};
use beam_wire::ids::{Epoch, Name};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The format of the metadata that this version writes.
pub const META_FORMAT: u32 = 3;
/// The oldest format that it reads. What later formats have added is then as in an empty log.
pub const META_FORMAT_MIN: u32 = 1;
/// The file's name.
pub const META: &str = "meta";
/// Its name until its first commit is durable: a torn first commit must not count as existing.
pub const META_NEW: &str = "meta.new";

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// A vote or a list of segments is some 100 bytes.
const CACHE_BYTES: usize = 1 << 20;

/// All that the metadata file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaState {
    /// Drawn when the directory was empty.
    pub raft_id: u64,
    pub cluster: Name,
    /// None until the cluster was born, as far as this node knows.
    pub epoch: Option<Epoch>,
    pub vote: Option<Vote>,
    /// The newest entry known to be committed. It may lag.
    pub committed: Option<LogId>,
    /// The newest entry that is gone for good.
    pub purged: Option<LogId>,
    pub machine: Arc<MachineState>,
    /// In the order of their indexes. Only the last is written to.
    pub segments: Vec<SegmentRecord>,
    /// By number: all segments but the last, and but those that an earlier version has sealed, until they
    /// were looked into.
    pub sealed: BTreeMap<u64, Sealed>,
    /// The number of the next segment. Numbers are never used again.
    pub next_segment: u64,
}

impl MetaState {
    /// Of a directory that was empty.
    pub fn fresh(cluster: Name, raft_id: u64) -> Self {
        Self {
            raft_id,
            cluster,
            epoch: None,
            vote: None,
            committed: None,
            purged: None,
            machine: Arc::default(),
            segments: Vec::new(),
            sealed: BTreeMap::new(),
            next_segment: 0,
        }
    }
}

/// A segment that counts. Files that are not listed do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// Its file is named after it.
    pub number: u64,
    /// The index of its first entry, or of the one that will be.
    pub first: u64,
}

/// What a segment was when it was closed for good: a start then need not open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The index of its last entry.
    pub last: u64,
    /// How long its file is.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredSealed {
    number: u64,
    last: u64,
    bytes: u64,
}

/// What the state machine remembers over a restart. It may lag behind the log, and is then made good
/// by applying entries again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    /// The newest entry that was applied.
    pub applied: Option<LogId>,
    /// The newest entry that a committed discard lets go.
    pub discarded: Option<LogId>,
    /// The membership at `discarded` (or the first one), and all later ones, in order.
    pub memberships: Vec<StoredMembership>,
    /// What the log's own commands have made of it.
    pub course: Course,
}

impl MachineState {
    /// The membership that holds at an entry.
    pub fn membership_at(&self, at: Option<LogId>) -> StoredMembership {
        let index = |id: &Option<LogId>| id.as_ref().map(|id| id.index);
        let holds = |m: &&StoredMembership| index(m.log_id()) <= index(&at);
        self.memberships.iter().rev().find(holds).cloned().unwrap_or_default()
    }

    /// The newest membership.
    pub fn membership(&self) -> StoredMembership {
        self.memberships.last().cloned().unwrap_or_default()
    }
}

#[derive(Serialize, Deserialize)]
struct StoredMachine {
    applied: Option<StoredLogId>,
    discarded: Option<StoredLogId>,
    memberships: Vec<StoredMembers>,
}

/// The open file.
pub struct Meta {
    /// None if it could not be opened once more.
    db: Option<Database>,
    /// What the file holds.
    written: BTreeMap<&'static str, Vec<u8>>,
}

impl Meta {
    /// Makes the file. It counts only once everything in it is durable.
    pub fn create(disk: &dyn Disk, state: &MetaState) -> Result<Self, StoreError> {
        let mut meta = Self { db: Some(database(disk.create(META_NEW)?, META_NEW)?), written: BTreeMap::new() };
        meta.save(state)?;
        disk.rename(META_NEW, META)?;
        disk.sync_dir()?;
        Ok(meta)
    }

    /// Opens and reads the file.
    pub fn open(disk: &dyn Disk) -> Result<(Self, MetaState), StoreError> {
        let file = disk.open(META)?;
        let (db, found) = guarded(META, || {
            let db = database(file, META)?;
            let mut found = BTreeMap::new();
            for row in db.begin_read().at(META)?.open_table(TABLE).at(META)?.iter().at(META)? {
                let (key, value) = row.at(META)?;
                found.insert(key.value().to_owned(), value.value().to_vec());
            }
            Ok((db, found))
        })?;
        let state = decode(&found)?;
        let wanted = encode(&state);
        let written = wanted.keys().filter_map(|key| Some((*key, found.get(*key)?.clone()))).collect();
        Ok((Self { db: Some(db), written }, state))
    }

    /// Opens the file once more, after a write has failed: who knows what it holds now.
    pub fn reopen(&mut self, disk: &dyn Disk) -> Result<(), StoreError> {
        self.db = None;
        *self = Self::open(disk)?.0;
        Ok(())
    }

    /// Whether the file is in the format that this version writes: versions that know none of what it writes
    /// elsewhere then refuse the log, instead of taking it for empty.
    pub fn is_current(&self) -> bool {
        self.written.get(FORMAT).is_some_and(|format| *format == META_FORMAT.to_le_bytes())
    }

    /// Makes `state` durable: once the disk has settled, if it is simulated.
    pub fn save(&mut self, state: &MetaState) -> Result<(), StoreError> {
        let wanted = encode(state);
        if wanted == self.written {
            return Ok(());
        }
        let db = self.db.as_ref().expect("what could not be opened once more is not saved to");
        guarded(META, || {
            let write = db.begin_write().at(META)?;
            {
                let mut table = write.open_table(TABLE).at(META)?;
                for (key, value) in &wanted {
                    if self.written.get(key) != Some(value) {
                        table.insert(key, value.as_slice()).at(META)?;
                    }
                }
            }
            write.commit().at(META)
        })?;
        self.written = wanted;
        Ok(())
    }

    /// Closes the file, so that it needs no repair.
    pub fn close(self) -> Result<(), StoreError> {
        self.db.map_or(Ok(()), |db| guarded(META, || db.close().at(META)))
    }
}

fn database(file: DiskFile, name: &str) -> Result<Database, StoreError> {
    Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create_with_backend(file).at(name)
}

fn encode(state: &MetaState) -> BTreeMap<&'static str, Vec<u8>> {
    let id = |id: &Option<LogId>| codec::encode(&id.map(StoredLogId::from));
    let machine = StoredMachine {
        applied: state.machine.applied.map(Into::into),
        discarded: state.machine.discarded.map(Into::into),
        memberships: state.machine.memberships.iter().map(Into::into).collect(),
    };
    let sealed = |s: &SegmentRecord| {
        state.sealed.get(&s.number).map(|sealed| StoredSealed {
            number: s.number,
            last: sealed.last,
            bytes: sealed.bytes,
        })
    };
    let sealed: Vec<_> = state.segments.iter().filter_map(sealed).collect();
    let mut values = BTreeMap::from([
        (FORMAT, META_FORMAT.to_le_bytes().to_vec()),
        ("raft_id", codec::encode(&state.raft_id)),
        ("cluster", codec::encode(&state.cluster)),
        ("epoch", codec::encode(&state.epoch)),
        ("vote", codec::encode(&state.vote.map(StoredVote::from))),
        ("committed", id(&state.committed)),
        ("purged", id(&state.purged)),
        ("machine", codec::encode(&machine)),
        ("course", codec::encode(&state.machine.course)),
        ("segments", codec::encode(&state.segments)),
        ("next_segment", codec::encode(&state.next_segment)),
        ("sealed", codec::encode(&sealed)),
    ]);
    let checksum = checksum(values.iter().map(|(key, value)| (*key, value.as_slice())));
    values.insert(CHECKSUM, checksum.to_vec());
    values
}

/// The key of the format's number.
const FORMAT: &str = "format";
/// The key of what covers all others: redb looks at its own checksums only after a crash.
const CHECKSUM: &str = "checksum";

fn checksum<'a>(values: impl Iterator<Item = (&'a str, &'a [u8])>) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for (key, value) in values.filter(|(key, _)| *key != CHECKSUM) {
        for part in [key.as_bytes(), value] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }
    hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}

fn decode(found: &BTreeMap<String, Vec<u8>>) -> Result<MetaState, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { file: META.into(), why };
    let format = found.get(FORMAT).and_then(|v| Some(u32::from_le_bytes(v.as_slice().try_into().ok()?)));
    let format = match format {
        Some(format @ META_FORMAT_MIN..=META_FORMAT) => format,
        Some(found) => return Err(StoreError::UnknownFormat { file: META.into(), found, known: META_FORMAT }),
        None => return Err(corrupt("it has no format number".into())),
    };
    let wanted = checksum(found.iter().map(|(key, value)| (key.as_str(), value.as_slice())));
    if found.get(CHECKSUM).map_or(format >= 2, |found| *found != wanted) {
        return Err(corrupt("its values are not those that were written (checksum)".into()));
    }
    let id = |id: Option<StoredLogId>| id.map(LogId::from);
    let machine: StoredMachine = value(found, "machine")?;
    let memberships = machine.memberships.into_iter().map(TryInto::try_into).collect::<Result<_, DecodeError>>();
    let machine = MachineState {
        applied: id(machine.applied),
        discarded: id(machine.discarded),
        memberships: memberships.map_err(|e| corrupt(format!("machine: {e}")))?,
        course: if format < 2 { Course::default() } else { value(found, "course")? },
    };
    let sealed: Vec<StoredSealed> = if found.contains_key("sealed") { value(found, "sealed")? } else { Vec::new() };
    let sealed = sealed.into_iter().map(|s| (s.number, Sealed { last: s.last, bytes: s.bytes })).collect();
    Ok(MetaState {
        raft_id: value(found, "raft_id")?,
        cluster: value(found, "cluster")?,
        epoch: value(found, "epoch")?,
        vote: value::<Option<StoredVote>>(found, "vote")?.map(Into::into),
        committed: id(value(found, "committed")?),
        purged: id(value(found, "purged")?),
        machine: Arc::new(machine),
        segments: value(found, "segments")?,
        sealed,
        next_segment: value(found, "next_segment")?,
    })
}

fn value<T: DeserializeOwned>(found: &BTreeMap<String, Vec<u8>>, key: &str) -> Result<T, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { file: META.into(), why };
    let bytes = found.get(key).ok_or_else(|| corrupt(format!("it has no {key}")))?;
    codec::decode(bytes).map_err(|e| corrupt(format!("{key}: {e}")))
}

/// Names the file of a redb error.
pub(super) trait At<T> {
    fn at(self, file: &str) -> Result<T, StoreError>;
}

impl<T, E: Into<redb::Error>> At<T> for Result<T, E> {
    fn at(self, file: &str) -> Result<T, StoreError> {
        self.map_err(|e| StoreError::database(file, e.into()))
    }
}

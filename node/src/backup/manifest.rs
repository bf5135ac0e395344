//! The file that says what a backup is: `manifest.json`.

use beam_wire::message::log::EpochBegan;
use beam_wire::{Epoch, LogIndex, Name};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The format that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";
const MANIFEST_NEW: &str = "manifest.json.new";
const LOCK: &str = "lock";

/// What a backup holds. In the file it is `{"manifest": {..}, "blake3": ".."}`, with the hash of its own compact JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// See [`FORMAT`].
    pub format: u32,
    /// Whose log it is.
    pub cluster: Name,
    /// Where each epoch but the first began, as far as the entries below tell.
    pub epochs: Vec<EpochBegan>,
    /// The lowest entry. What lay before was discarded when the backup began.
    pub first: LogIndex,
    /// In order, without a gap.
    pub chunks: Vec<ChunkRecord>,
}

/// A file of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkRecord {
    /// Its name in the directory.
    pub file: String,
    /// Its first entry.
    pub first: LogIndex,
    /// Its last entry.
    pub last: LogIndex,
    /// What it takes.
    pub bytes: u64,
    /// What its entries take before compression.
    pub entry_bytes: u64,
    /// Of the file as it is, in hex.
    pub blake3: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<M> {
    manifest: M,
    blake3: String,
}

/// Why a directory is no backup that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is none.
    #[error("{} holds no backup: it has no {MANIFEST}", .path.display())]
    NoBackup {
        /// The directory.
        path: PathBuf,
    },
    /// It is damaged.
    #[error("{}: {why}. Without it nothing says what belongs to the backup: use another one", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is of another version.
    #[error("{} has format {found}, but this version of Beam reads only {known}: use the one that wrote it", .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// What is read.
        known: u32,
    },
    /// Somebody is at it.
    #[error("{} is in use by another process", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// Names the file of an I/O error.
pub(super) fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, ManifestError> {
    result.map_err(|source| ManifestError::Io { path: path.to_owned(), source })
}

impl Manifest {
    /// Of a backup that is to begin at an entry.
    pub fn new(cluster: Name, first: LogIndex) -> Manifest {
        Manifest { format: FORMAT, cluster, epochs: Vec::new(), first, chunks: Vec::new() }
    }

    /// Reads the manifest of a directory; none if there is none.
    pub fn load(directory: &Path) -> Result<Option<Manifest>, ManifestError> {
        let Some(manifest) = read_sealed::<Manifest>(directory, FORMAT)? else { return Ok(None) };
        let damaged = |why: String| ManifestError::Damaged { path: directory.join(MANIFEST), why };
        let mut next = manifest.first;
        for chunk in &manifest.chunks {
            if chunk.first != next || chunk.last < chunk.first {
                return Err(damaged(format!("{} does not begin at entry {next}", chunk.file)));
            }
            next = chunk.last.next();
        }
        Ok(Some(manifest))
    }

    /// Makes this the manifest of a directory, durably. The chunks that it names must be in the directory.
    pub fn save(&self, directory: &Path) -> Result<(), ManifestError> {
        write_sealed(directory, self)
    }

    /// The newest entry.
    pub fn last(&self) -> Option<LogIndex> {
        self.chunks.last().map(|chunk| chunk.last)
    }

    /// The index of the entry that comes next.
    pub fn next(&self) -> LogIndex {
        self.last().map_or(self.first, LogIndex::next)
    }

    /// The epoch of the newest entry.
    pub fn epoch(&self) -> Epoch {
        self.epochs.last().map_or(Epoch(1), |began| began.epoch)
    }
}

/// Reads the manifest of a directory, if there is one; it must be of this format.
pub(super) fn read_sealed<M: Serialize + DeserializeOwned>(
    directory: &Path,
    format: u32,
) -> Result<Option<M>, ManifestError> {
    let path = directory.join(MANIFEST);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return at(&path, Err(e)),
    };
    let damaged = |why: String| ManifestError::Damaged { path: path.clone(), why };
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
    if let Some(found) = json["manifest"]["format"].as_u64().filter(|found| *found != u64::from(format)) {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(ManifestError::UnknownFormat { path, found, known: format });
    }
    let Sealed { manifest, blake3 } = serde_json::from_value::<Sealed<M>>(json).map_err(|e| damaged(e.to_string()))?;
    if hash(&manifest) != blake3 {
        return Err(damaged("its bytes are not those that were written (checksum)".into()));
    }
    Ok(Some(manifest))
}

/// Makes this the manifest of a directory, durably. The files that it names must be there.
pub(super) fn write_sealed<M: Serialize>(directory: &Path, manifest: &M) -> Result<(), ManifestError> {
    let sealed = Sealed { blake3: hash(manifest), manifest };
    let text = serde_json::to_string_pretty(&sealed).expect("our structs serialize");
    sync_directory(directory)?;
    write_file(&directory.join(MANIFEST_NEW), text.as_bytes())?;
    let path = directory.join(MANIFEST);
    at(&path, fs::rename(directory.join(MANIFEST_NEW), &path))?;
    sync_directory(directory)
}

fn hash(manifest: &impl Serialize) -> String {
    let text = serde_json::to_string(manifest).expect("our structs serialize");
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Writes a file whole, and waits until the disk has it.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ManifestError> {
    let mut file = at(path, File::create(path))?;
    at(path, file.write_all(bytes))?;
    at(path, file.sync_all())
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), ManifestError> {
    at(path, File::open(path).and_then(|directory| directory.sync_all()))
}

/// A directory that nobody else changes meanwhile.
#[derive(Debug)]
pub struct Locked {
    _lock: File,
}

impl Locked {
    /// Takes it.
    pub fn take(directory: &Path) -> Result<Locked, ManifestError> {
        let path = directory.join(LOCK);
        let lock = at(&path, OpenOptions::new().create(true).truncate(false).write(true).open(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Locked { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(ManifestError::InUse { path: directory.to_owned() }),
            Err(TryLockError::Error(e)) => at(&path, Err(e)),
        }
    }
}

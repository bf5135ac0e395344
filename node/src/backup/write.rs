//! Adds to a backup what the log has by now.

use super::chunk::{self, CHUNK_BYTES, CHUNK_ENTRIES};
use super::manifest::{Locked, Manifest, ManifestError, at};
use crate::remote::log::RemoteLog;
use beam_wire::env::Env;
use beam_wire::message::log::{Entry, EpochBegan, shared_up_to};
use beam_wire::{CallError, Code, Epoch, LogIndex, Name};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Chunks after which the manifest is written: what is lost at most when a backup is broken off.
const CHUNKS_UNLISTED_MAX: usize = 8;

/// Why a backup cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The directory.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The log.
    #[error("the log cannot be read: {0}")]
    Log(#[from] CallError),
    /// Nothing came.
    #[error("the log nodes send nothing{}", .why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Silent {
        /// What went wrong last.
        why: Option<CallError>,
    },
    /// The directory is another cluster's.
    #[error("the backup is of the cluster {found}, not of {wanted}: name another directory")]
    OtherCluster {
        /// The backup's.
        found: Name,
        /// The log's.
        wanted: Name,
    },
    /// The log was discarded beyond what the backup has.
    #[error(
        "the backup ends before entry {next}, but the log begins at {first}: what lies between was discarded before it was \
         backed up. Keep this backup as it is, and begin another in an empty directory"
    )]
    Gap {
        /// What the backup needs next.
        next: LogIndex,
        /// The lowest entry of the log.
        first: LogIndex,
    },
    /// The backup holds what the log has lost.
    #[error(
        "the backup holds entries up to {last} of epoch {ours}, but the log is in epoch {epoch}, which has kept those up to \
         {kept}: it was recovered or restored. Keep this backup as it is, and begin another in an empty directory"
    )]
    LeftBehind {
        /// The backup's newest entry.
        last: LogIndex,
        /// Its epoch.
        ours: Epoch,
        /// The log's.
        epoch: Epoch,
        /// The last entry that both have.
        kept: LogIndex,
    },
    /// The backup is of another life of the log.
    #[error(
        "the backup is of epoch {ours}, which is not in the past of the log's epoch {epoch}: begin another in an empty \
         directory"
    )]
    OtherLife {
        /// The backup's.
        ours: Epoch,
        /// The log's.
        epoch: Epoch,
    },
}

/// What was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Entries.
    pub entries: u64,
    /// Files.
    pub chunks: u64,
    /// What the entries take.
    pub entry_bytes: u64,
    /// What the files take.
    pub bytes: u64,
    /// The newest entry of the backup.
    pub last: Option<LogIndex>,
    /// Up to where the log was committed when this ended.
    pub committed: LogIndex,
}

impl Added {
    /// As one, with what was added after it.
    pub fn absorb(&mut self, later: &Added) {
        self.entries += later.entries;
        self.chunks += later.chunks;
        self.entry_bytes += later.entry_bytes;
        self.bytes += later.bytes;
        self.last = later.last;
        self.committed = later.committed;
    }
}

/// Adds all that is committed by now. A new backup begins `from` an entry, or where the log does. `idle` is how long the
/// log may be silent; `tell` hears how far it is.
pub async fn back_up(
    env: &Env,
    log: &RemoteLog,
    cluster: &Name,
    directory: &Path,
    from: Option<LogIndex>,
    idle: Duration,
    mut tell: impl FnMut(&Added),
) -> Result<Added, BackupError> {
    at(directory, fs::create_dir_all(directory))?;
    let _locked = Locked::take(directory)?;
    let (epoch, epochs) = log.epochs(env.now() + idle).await?;
    let first = first(env, log, idle).await?;
    let mut writer = match Manifest::load(directory)? {
        Some(manifest) => {
            goes_on(&manifest, cluster, epoch, &epochs, first)?;
            Writer::open(directory, manifest, epochs)?
        }
        None if from.is_some_and(|from| from < first) => {
            return Err(BackupError::Gap { next: from.unwrap_or_default(), first });
        }
        None => Writer::open(directory, Manifest::new(cluster.clone(), from.unwrap_or(first)), epochs)?,
    };
    let mut reader = log.read(Some(epoch), writer.manifest.next(), false);
    loop {
        let next = env.timeout(idle, reader.next()).await;
        let Ok(next) = next else { return Err(BackupError::Silent { why: reader.trouble().cloned() }) };
        let entries = match next {
            Ok(Some(entries)) => entries,
            Ok(None) => break,
            // Discarded since we looked.
            Err(e) if e.code == Code::Discarded => {
                let next = writer.next();
                return Err(BackupError::Gap { next, first: self::first(env, log, idle).await.unwrap_or(next) });
            }
            Err(e) => return Err(e.into()),
        };
        writer.added.committed = entries.committed;
        (writer, _) = written(env, writer, move |writer| writer.push(entries.entries)).await?;
        tell(&writer.added);
    }
    let (writer, ()) = written(env, writer, Writer::finish).await?;
    Ok(writer.added)
}

/// Files are written where blocking hurts nobody.
async fn written<T: Send + 'static>(
    env: &Env,
    mut writer: Writer,
    write: impl FnOnce(&mut Writer) -> Result<T, ManifestError> + Send + 'static,
) -> Result<(Writer, T), BackupError> {
    let (writer, result) = env
        .blocking(move || {
            let result = write(&mut writer);
            (writer, result)
        })
        .await;
    Ok((writer, result?))
}

/// The lowest entry that all log nodes that answer still have.
async fn first(env: &Env, log: &RemoteLog, idle: Duration) -> Result<LogIndex, BackupError> {
    let deadline = env.now() + idle;
    let nodes = log.nodes();
    let asked = futures::future::join_all(nodes.iter().map(|node| log.info(&node.node, deadline))).await;
    let mut last = CallError::later(Code::Unavailable, 500, "DNS names no log node");
    let mut first = None;
    for answer in asked {
        match answer {
            // One that is empty holds nothing and hides nothing.
            Ok(info) if info.last.is_some() => first = first.max(Some(info.first)),
            Ok(_) => {}
            Err(e) => last = e,
        }
    }
    first.ok_or(BackupError::Log(last))
}

/// Whether what the log holds follows what the backup has.
fn goes_on(
    manifest: &Manifest,
    cluster: &Name,
    epoch: Epoch,
    epochs: &[EpochBegan],
    first: LogIndex,
) -> Result<(), BackupError> {
    if manifest.cluster != *cluster {
        return Err(BackupError::OtherCluster { found: manifest.cluster.clone(), wanted: cluster.clone() });
    }
    let ours = manifest.epoch();
    let last = manifest.last().unwrap_or_default();
    match shared_up_to(epochs, ours) {
        None => return Err(BackupError::OtherLife { ours, epoch }),
        Some(kept) if last > kept => return Err(BackupError::LeftBehind { last, ours, epoch, kept }),
        Some(_) => {}
    }
    let next = manifest.next();
    if next < first { Err(BackupError::Gap { next, first }) } else { Ok(()) }
}

/// What is being added.
pub struct Writer {
    directory: PathBuf,
    pub manifest: Manifest,
    /// Of the log.
    epochs: Vec<EpochBegan>,
    pub added: Added,
    waiting: Vec<Entry>,
    waiting_bytes: usize,
    unlisted: usize,
}

impl Writer {
    /// Goes on with a backup, without what was not listed when it was broken off.
    pub fn open(directory: &Path, manifest: Manifest, epochs: Vec<EpochBegan>) -> Result<Writer, ManifestError> {
        for entry in at(directory, fs::read_dir(directory))? {
            let entry = at(directory, entry)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if chunk::is_chunk_name(&name) && !manifest.chunks.iter().any(|chunk| chunk.file == name) {
                at(&entry.path(), fs::remove_file(entry.path()))?;
            }
        }
        let added = Added { last: manifest.last(), ..Added::default() };
        let directory = directory.to_owned();
        Ok(Writer { directory, manifest, epochs, added, waiting: Vec::new(), waiting_bytes: 0, unlisted: 0 })
    }

    /// The index of the entry that comes next.
    pub fn next(&self) -> LogIndex {
        LogIndex(self.manifest.next().0 + self.waiting.len() as u64)
    }

    /// Takes the entries that come next.
    pub fn push(&mut self, entries: Vec<Entry>) -> Result<(), ManifestError> {
        for entry in entries {
            self.waiting_bytes += match &entry {
                Entry::Skip => 1,
                Entry::Data { body, .. } => body.len() + 32,
            };
            self.waiting.push(entry);
            if self.waiting_bytes >= CHUNK_BYTES || self.waiting.len() >= CHUNK_ENTRIES {
                self.cut()?;
            }
        }
        Ok(())
    }

    /// Makes all that was taken durable.
    pub fn finish(&mut self) -> Result<(), ManifestError> {
        if !self.waiting.is_empty() {
            self.cut()?;
        }
        self.save()
    }

    fn save(&mut self) -> Result<(), ManifestError> {
        // An epoch that began after the last entry may yet turn out another.
        let last = self.manifest.last();
        self.manifest.epochs = self.epochs.iter().filter(|began| last > Some(began.kept)).copied().collect();
        self.unlisted = 0;
        self.manifest.save(&self.directory)
    }

    fn cut(&mut self) -> Result<(), ManifestError> {
        let entries = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let count = entries.len() as u64;
        let record = chunk::write(&self.directory, self.manifest.next(), entries)?;
        self.added.entries += count;
        self.added.chunks += 1;
        self.added.entry_bytes += record.entry_bytes;
        self.added.bytes += record.bytes;
        self.added.last = Some(record.last);
        self.manifest.chunks.push(record);
        self.unlisted += 1;
        if self.unlisted >= CHUNKS_UNLISTED_MAX { self.save() } else { Ok(()) }
    }
}

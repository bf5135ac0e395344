//! Makes a log out of a backup: the log directory of one node, as the beginning of a new epoch.

use super::chunk;
use super::manifest::{Manifest, ManifestError};
use crate::log::begin::{self, BeginBody, Seed};
use crate::log::disk::Disk;
use crate::log::store::{StoreError, StoreOptions};
use crate::log::types::LogNode;
use beam_wire::env::Env;
use beam_wire::{Epoch, LogIndex, Name};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A restored log's epoch exceeds those that the backup knows of by at least this: by more than a recovery that came after
/// the backup may have drawn.
const EPOCHS_SKIPPED: u64 = 1 << 21;
/// And by less than this much more: who restores twice makes two epochs.
const EPOCHS_DRAWN: usize = 1 << 20;

/// Why a backup is not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A chunk of it.
    #[error("{}: {why}: the backup can be restored up to entry {} only (--to)", .file.display(), .before)]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
        /// The last entry before it.
        before: LogIndex,
    },
    /// The log's disk.
    #[error("the log cannot be written: {0}")]
    Store(#[from] StoreError),
    /// There is something already.
    #[error("the log directory is not empty (it holds {file}): name another, or move it away")]
    NotEmpty {
        /// One of its files.
        file: String,
    },
    /// It is another cluster's.
    #[error("the backup is of the cluster {found}, the topology of {wanted}")]
    OtherCluster {
        /// The backup's.
        found: Name,
        /// The topology's.
        wanted: Name,
    },
    /// The backup does not hold the index.
    #[error("the backup holds entries {first} to {last}: {to} is not among them")]
    NotThere {
        /// What was asked for.
        to: LogIndex,
        /// The lowest entry.
        first: LogIndex,
        /// The highest.
        last: LogIndex,
    },
    /// It would be a log that says nothing.
    #[error("up to entry {to} nothing was ever appended: there is nothing to restore. Name a higher index")]
    NoData {
        /// What was asked for.
        to: LogIndex,
    },
}

/// The log to be.
pub struct Target {
    /// Where it shall lie.
    pub disk: Arc<dyn Disk>,
    /// How it is kept.
    pub options: StoreOptions,
    /// Its first member.
    pub node: LogNode,
    /// What the entry says with which its epoch begins.
    pub body: BeginBody,
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The lowest entry.
    pub first: LogIndex,
    /// The last entry of the backup that is in it.
    pub kept: LogIndex,
    /// The log's epoch.
    pub epoch: Epoch,
}

/// Fills an empty disk with the entries up to `to`, or all of them. `tell` hears how far it is. If it is broken off, the
/// disk must be emptied.
pub async fn restore(
    env: &Env,
    directory: &Path,
    to: Option<LogIndex>,
    target: Target,
    mut tell: impl FnMut(LogIndex),
) -> Result<Restored, RestoreError> {
    let Target { disk, options, node, body } = target;
    let manifest = Manifest::load(directory)?.ok_or_else(|| ManifestError::NoBackup { path: directory.to_owned() })?;
    if manifest.cluster != options.cluster {
        return Err(RestoreError::OtherCluster { found: manifest.cluster, wanted: options.cluster });
    }
    if let Some(file) = disk.list().map_err(StoreError::from)?.first() {
        return Err(RestoreError::NotEmpty { file: file.clone() });
    }
    let (first, last) = (manifest.first, manifest.last().unwrap_or_default());
    let to = to.unwrap_or(last);
    if manifest.chunks.is_empty() || to < first || to > last {
        return Err(RestoreError::NotThere { to, first, last });
    }
    let epoch = Epoch(manifest.epoch().0 + EPOCHS_SKIPPED + env.random_below(EPOCHS_DRAWN) as u64);
    let seed = Seed { epoch, raft_id: env.random_u64(), node, body };
    let epochs = manifest.epochs.iter().filter(|began| began.kept < to).copied().collect();
    let settle = disk.clone();
    let mut log = env.blocking(move || begin::Restoring::new(disk, options, first, epochs, seed)).await?;
    for record in manifest.chunks.iter().filter(|chunk| chunk.first <= to) {
        let (from, of) = (directory.to_owned(), record.clone());
        let read = env.blocking(move || chunk::read(&from, &of)).await;
        let mut entries = read.map_err(|why| RestoreError::Damaged {
            file: directory.join(&record.file),
            why,
            before: LogIndex(record.first.0.saturating_sub(1)),
        })?;
        entries.truncate((to.0 + 1 - record.first.0).try_into().unwrap_or(usize::MAX));
        let kept = LogIndex(record.first.0 + entries.len() as u64 - 1);
        log = env.blocking(move || log.append(entries)).await?;
        tell(kept);
    }
    if first == LogIndex(0) && !log.holds_data() {
        return Err(RestoreError::NoData { to });
    }
    env.blocking(move || log.finish(to)).await?;
    settle.settled().await.map_err(StoreError::from)?;
    Ok(Restored { first, kept: to, epoch })
}

//! Backs the whole database up while it runs: the base at one version, copied from views, and the log from there on.
//!
//! ```text
//! base/    what all views together held at one version, and the verdicts' state a little before
//! log/     a backup of the log, from the entry after that state on
//! ```
//!
//! The log is added to while the base is copied: so it cannot be discarded meanwhile beyond what is here. From both, the
//! database can be made again as it was at any index from the base's to the log's last one. Making it again adds to the log.

use super::base::{Base, BaseManifest, EVERYTHING, Whole};
use super::manifest::{Locked, Manifest, ManifestError, at};
use super::write::{Added, BackupError, back_up};
use crate::remote::log::RemoteLog;
use crate::remote::view::Views;
use crate::view::boot::{Boot, BootError, all_is_held};
use beam_wire::env::Env;
use beam_wire::message::log::shared_up_to;
use beam_wire::{LogIndex, Name};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Notify;

/// How often the log is added to while the base is copied.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// Between two looks whether the log has got as far as the views.
const PAUSE: Duration = Duration::from_millis(200);

/// Where the base lies in a backup.
pub fn base_in(backup: &Path) -> PathBuf {
    backup.join("base")
}

/// Where the log lies in a backup.
pub fn log_in(backup: &Path) -> PathBuf {
    backup.join("log")
}

/// Why the database cannot be backed up.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The directory.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The log.
    #[error(transparent)]
    Log(#[from] BackupError),
    /// The base cannot be finished.
    #[error(
        "{0}: the views could not keep that version for as long as the backup took. Begin another one in an empty \
         directory; raise [view] history, or copy_mib_per_second, if that happens again"
    )]
    TooOld(BootError<ManifestError>),
    /// There is nobody to copy from.
    #[error(
        "there are no views to copy all ranges from: see beam status. As long as the log was never discarded, `beam log \
         backup` is the whole database"
    )]
    NoViews,
    /// The directory is another cluster's.
    #[error("the backup is of the cluster {found}, not of {wanted}: name another directory")]
    OtherCluster {
        /// The backup's.
        found: Name,
        /// Ours.
        wanted: Name,
    },
    /// It is not finished.
    #[error("{} is not whole yet: run `beam backup` again, it goes on where it was", .path.display())]
    Unfinished {
        /// The backup.
        path: PathBuf,
    },
    /// Base and log do not belong together.
    #[error("{}: {why}. Use another backup", .path.display())]
    Torn {
        /// The backup.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
}

impl From<BootError<ManifestError>> for DatabaseError {
    fn from(e: BootError<ManifestError>) -> Self {
        match e {
            BootError::Storage(e) => DatabaseError::Manifest(e),
            too_old @ BootError::TooOld { .. } => DatabaseError::TooOld(too_old),
        }
    }
}

/// How far a backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The base.
    pub base: BaseManifest,
    /// What was added to the log since this began.
    pub added: Added,
}

/// What is backed up, and with what.
pub struct Source<V> {
    /// The cluster.
    pub cluster: Name,
    /// Who asks.
    pub me: Name,
    /// Its log.
    pub log: RemoteLog,
    /// Its views.
    pub views: V,
    /// How long they may be silent.
    pub idle: Duration,
}

/// Makes the base, unless it is there, and adds to the log all that is committed by now. `tell` hears how far it is.
pub async fn back_up_database<V: Views + Clone>(
    env: &Env,
    source: Source<V>,
    directory: &Path,
    mut tell: impl FnMut(&Taken),
) -> Result<Taken, DatabaseError> {
    let Source { cluster, me, log, views, idle } = source;
    at(directory, fs::create_dir_all(directory))?;
    let _locked = Locked::take(directory)?;
    let base = Base::open(&base_in(directory), &cluster)?;
    if base.manifest().cluster != cluster {
        return Err(DatabaseError::OtherCluster { found: base.manifest().cluster, wanted: cluster });
    }
    let log_directory = log_in(directory);
    let mut taken = Taken { base: base.manifest(), added: Added::default() };
    let mut add = async |tell: &mut dyn FnMut(&Taken)| {
        let from = base.manifest().checkpoint.map(|checkpoint| checkpoint.index.next());
        let added = back_up(env, &log, &cluster, &log_directory, from, idle, |_| {}).await?;
        taken.added.absorb(&added);
        taken.base = base.manifest();
        tell(&taken);
        Ok::<Option<LogIndex>, DatabaseError>(added.last)
    };
    if base.manifest().whole.is_none() {
        let missing = held_by_nobody(env, views.clone(), idle);
        let begun = Boot::begin(env.clone(), me, views, base.clone(), &EVERYTHING);
        let boot = tokio::select! {
            begun = begun => begun?,
            () = missing => return Err(DatabaseError::NoViews),
        };
        let copied = Notify::new();
        let copying = async {
            let copying = boot.finish().await;
            copied.notify_one();
            copying.map_err(DatabaseError::from)
        };
        let adding = async {
            // The first time at once: what follows the base's beginning must not be discarded before it is here.
            loop {
                add(&mut tell).await?;
                if env.timeout(LOG_EVERY, copied.notified()).await.is_ok() {
                    return Ok(());
                }
            }
        };
        futures::future::try_join(copying, adding).await?;
    }
    let least = base.manifest().whole.map(|whole| whole.at.index);
    // The log node that is read from may not have heard yet of what the views have applied.
    let until = env.now() + idle;
    while add(&mut tell).await? < least && env.now() < until {
        env.sleep(PAUSE).await;
    }
    check(directory)?;
    Ok(taken)
}

/// Ends when for so long no views have held all ranges.
async fn held_by_nobody(env: &Env, views: impl Views, idle: Duration) {
    let mut give_up = env.now() + idle;
    while env.now() < give_up {
        if all_is_held(&views, &EVERYTHING) {
            give_up = env.now() + idle;
        }
        env.sleep(PAUSE).await;
    }
}

/// What a whole backup is made of, if its parts belong together.
pub fn check(directory: &Path) -> Result<(BaseManifest, Whole, Manifest), DatabaseError> {
    let none = |path: PathBuf| ManifestError::NoBackup { path };
    let base = BaseManifest::load(&base_in(directory))?.ok_or_else(|| none(base_in(directory)))?;
    let log = Manifest::load(&log_in(directory))?.ok_or_else(|| none(log_in(directory)))?;
    let path = directory.to_owned();
    let (Some(whole), Some(checkpoint)) = (base.whole, base.checkpoint) else {
        return Err(DatabaseError::Unfinished { path });
    };
    let torn = |why: String| Err(DatabaseError::Torn { path: path.clone(), why });
    let (at, last) = (whole.at, log.last().unwrap_or_default());
    if log.cluster != base.cluster {
        return torn(format!("the base is of the cluster {}, the log of {}", base.cluster, log.cluster));
    }
    if log.first > checkpoint.index.next() {
        return torn(format!(
            "the log begins at entry {}, but is needed from {} on",
            log.first,
            checkpoint.index.next()
        ));
    }
    if last < at.index {
        return Err(DatabaseError::Unfinished { path });
    }
    if shared_up_to(&log.epochs, at.epoch).is_none_or(|kept| at.index > kept) {
        return torn(format!(
            "the base is of version {at}, which is not in the past of the log: it was recovered or restored"
        ));
    }
    Ok((base, whole, log))
}

//! Fills a view's directory from a backup: with the ranges that this view is to hold, whatever the cuts were.

use super::base::{self, Piece};
use super::database::{DatabaseError, base_in, check};
use crate::view::boot::{FactVersion, Keep};
use crate::view::store::{OpenError, StorageError, Store, StoreOptions};
use beam_wire::env::Env;
use beam_wire::message::view::Served;
use beam_wire::{Name, Point, Space, Version};
use std::path::{Path, PathBuf};

/// Why a view is not filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The backup.
    #[error(transparent)]
    Backup(#[from] DatabaseError),
    /// A file of it.
    #[error("{}: {why}: without it the database cannot be restored from this backup", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is another cluster's.
    #[error("the backup is of the cluster {found}, the topology of {wanted}")]
    OtherCluster {
        /// The backup's.
        found: Name,
        /// The topology's.
        wanted: Name,
    },
    /// The view's directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The view's disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The version that the view begins with.
    pub at: Version,
    /// Live facts of its subject space.
    pub facts: u64,
}

/// Fills an empty directory. If it is broken off, the directory must be emptied. `tell` hears how many of how many bytes of the
/// backup were read.
pub async fn fill(
    env: &Env,
    backup: &Path,
    cluster: &Name,
    serves: &[Served],
    directory: &Path,
    mut tell: impl FnMut(u64, u64),
) -> Result<Filled, FillError> {
    let (base, whole, _) = check(backup)?;
    if base.cluster != *cluster {
        return Err(FillError::OtherCluster { found: base.cluster, wanted: cluster.clone() });
    }
    let (of, at, wanted) = (directory.to_owned(), cluster.clone(), serves.to_vec());
    let store = env.blocking(move || Store::open(&of, &at, &wanted, &StoreOptions::default())).await?;
    let all = base.pieces.iter().map(|piece| piece.bytes).sum();
    let (mut done, mut facts) = (0, 0);
    for record in base.pieces {
        let (from, read) = (base_in(backup), record.clone());
        let piece = env.blocking(move || base::read(&from, &read)).await;
        let file = base_in(backup).join(&record.file);
        let piece = piece.map_err(|why| FillError::Damaged { file, why })?;
        let (store, serves) = (store.clone(), serves.to_vec());
        facts += env.blocking(move || put(&store, &serves, piece)).await?;
        done += record.bytes;
        tell(done, all);
    }
    env.blocking(move || Keep::conclude(&store, whole.at, whole.oldest)).await?;
    Ok(Filled { at: whole.at, facts })
}

/// Puts what the view holds of a piece. Returns how many facts of its subject space are live then.
fn put(store: &Store, serves: &[Served], piece: Piece) -> Result<u64, StorageError> {
    let held = |space: Space, point: Point| serves.iter().any(|s| s.space == space && s.range.contains(point));
    match piece {
        Piece::Checkpoint(pieces) => store.put_checkpoint(&pieces).map(|()| 0),
        Piece::Terms(mut terms) => {
            terms.retain(|(id, _)| held(Space::Term, id.point()));
            store.ingest_terms(terms).map(|()| 0)
        }
        Piece::Facts(facts) => {
            for space in [Space::Subject, Space::Object] {
                let here = facts.iter().filter(|(fact, ..)| held(space, fact.point(space)));
                let here: Vec<_> = here.copied().collect();
                // An order that the view does not have takes nothing.
                if !here.is_empty() {
                    Keep::put(store, space, &here, Vec::new())?;
                }
            }
            let live = |(fact, _, deleted): &&FactVersion| {
                deleted.is_none() && held(Space::Subject, fact.point(Space::Subject))
            };
            Ok(facts.iter().filter(live).count() as u64)
        }
    }
}

//! Reads all of a backup, and names what is damaged.

use super::base::{self, BaseManifest, PieceRecord};
use super::chunk;
use super::manifest::{Manifest, ManifestError};
use beam_wire::LogIndex;
use beam_wire::env::Env;
use std::path::Path;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// What is wrong with it.
    pub damage: Vec<Damage>,
}

/// A chunk that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its file.
    pub file: String,
    /// Its first entry.
    pub first: LogIndex,
    /// Its last entry.
    pub last: LogIndex,
    /// What is wrong.
    pub why: String,
}

/// Reads every chunk. `tell` hears how many of how many bytes were read.
pub async fn verify(env: &Env, directory: &Path, mut tell: impl FnMut(u64, u64)) -> Result<Verified, ManifestError> {
    let manifest = Manifest::load(directory)?.ok_or_else(|| ManifestError::NoBackup { path: directory.to_owned() })?;
    let all: u64 = manifest.chunks.iter().map(|chunk| chunk.bytes).sum();
    let (mut read, mut damage) = (0, Vec::new());
    for record in &manifest.chunks {
        let (directory, of) = (directory.to_owned(), record.clone());
        let found = env.blocking(move || chunk::read(&directory, &of).map(drop)).await;
        if let Err(why) = found {
            damage.push(Damage { file: record.file.clone(), first: record.first, last: record.last, why });
        }
        read += record.bytes;
        tell(read, all);
    }
    Ok(Verified { manifest, damage })
}

/// Reads every file of a base. Returns those that cannot be used, and what is wrong with each.
pub async fn verify_base(
    env: &Env,
    directory: &Path,
    manifest: &BaseManifest,
    mut tell: impl FnMut(u64, u64),
) -> Vec<(PieceRecord, String)> {
    let all = manifest.pieces.iter().map(|piece| piece.bytes).sum();
    let (mut read, mut damage) = (0, Vec::new());
    for record in &manifest.pieces {
        let (directory, of) = (directory.to_owned(), record.clone());
        let found = env.blocking(move || base::read(&directory, &of).map(drop)).await;
        damage.extend(found.err().map(|why| (record.clone(), why)));
        read += record.bytes;
        tell(read, all);
    }
    damage
}

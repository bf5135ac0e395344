//! The base of a database's backup: all facts and texts as they were at one version, and the verdicts' state, in files.
//!
//! It is what a view copies from others when it starts ([`Keep`]), of all ranges, and it is made by the same code. Each piece
//! that comes is a file of its own, compressed, with its hash in the manifest; how far the copy is stands there, too. Facts are
//! kept once, by their subjects: other orders and cuts are made from them. A piece may be there twice if the copy was broken off.

use super::chunk::{read_packed, write_packed};
use super::manifest::{ManifestError, at, read_sealed, write_sealed};
use crate::view::boot::{FactVersion, Keep, Unfinished};
use crate::view::checkpoint::version_among;
use beam_wire::message::view::Served;
use beam_wire::{LogIndex, Name, Range, Space, TermId, Version, codec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The format that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// All facts, and all texts.
pub const EVERYTHING: [Served; 2] =
    [Served { space: Space::Subject, range: Range::ALL }, Served { space: Space::Term, range: Range::ALL }];

/// Pieces after which the manifest is written: what is copied again at most when a backup is broken off.
const UNLISTED_MAX: usize = 8;

/// What the base holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseManifest {
    /// See [`FORMAT`].
    pub format: u32,
    /// Whose facts these are.
    pub cluster: Name,
    /// The version of the verdicts' state. The log is needed from the next entry on.
    pub checkpoint: Option<Version>,
    /// All is here, as it was then.
    pub whole: Option<Whole>,
    /// The copy that is under way.
    pub unfinished: Option<Unfinished>,
    /// The files, in the order in which they came.
    pub pieces: Vec<PieceRecord>,
}

/// Of what version all is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// The version.
    pub at: Version,
    /// Of what was deleted at or before this index, versions may be missing.
    pub oldest: LogIndex,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PieceRecord {
    /// Its name in the directory.
    pub file: String,
    /// What is in it.
    pub of: Kind,
    /// Records in it.
    pub records: u64,
    /// What it takes.
    pub bytes: u64,
    /// Of the file as it is, in hex.
    pub blake3: String,
}

/// What a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Pieces of the verdicts' state.
    Checkpoint,
    /// Versions of facts.
    Facts,
    /// Texts of terms.
    Terms,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// Keys and values of the verdicts' state.
    Checkpoint(Vec<(Bytes, Bytes)>),
    /// Versions of facts.
    Facts(Vec<FactVersion>),
    /// Texts of terms, each in postcard.
    Terms(Vec<(TermId, Bytes)>),
}

impl BaseManifest {
    /// Reads the manifest of a directory; none if there is none.
    pub fn load(directory: &Path) -> Result<Option<BaseManifest>, ManifestError> {
        read_sealed(directory, FORMAT)
    }
}

/// Reads a piece back. The error says what is wrong with the file.
pub fn read(directory: &Path, record: &PieceRecord) -> Result<Piece, String> {
    let plain = read_packed(&directory.join(&record.file), record.bytes, &record.blake3)?;
    let piece: Piece = codec::decode(&plain).map_err(|e| e.to_string())?;
    match (piece.kind(), piece.records()) == (record.of, record.records) {
        true => Ok(piece),
        false => Err(format!(
            "it holds {} records of {:?}, not {} of {:?}",
            piece.records(),
            piece.kind(),
            record.records,
            record.of
        )),
    }
}

impl Piece {
    fn kind(&self) -> Kind {
        match self {
            Piece::Checkpoint(_) => Kind::Checkpoint,
            Piece::Facts(_) => Kind::Facts,
            Piece::Terms(_) => Kind::Terms,
        }
    }

    fn records(&self) -> u64 {
        let records = match self {
            Piece::Checkpoint(pieces) => pieces.len(),
            Piece::Facts(facts) => facts.len(),
            Piece::Terms(terms) => terms.len(),
        };
        records as u64
    }
}

/// A base that is being made. Clones are of the same.
#[derive(Clone)]
pub struct Base {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    state: Mutex<State>,
}

struct State {
    manifest: BaseManifest,
    next_file: u64,
    unlisted: usize,
}

impl Base {
    /// Goes on with the base of a directory, or begins one.
    pub fn open(directory: &Path, cluster: &Name) -> Result<Base, ManifestError> {
        at(directory, fs::create_dir_all(directory))?;
        let new = || BaseManifest {
            format: FORMAT,
            cluster: cluster.clone(),
            checkpoint: None,
            whole: None,
            unfinished: None,
            pieces: Vec::new(),
        };
        let manifest = BaseManifest::load(directory)?.unwrap_or_else(new);
        // Files that were not listed when it was broken off are written over, or removed at the end.
        let listed = manifest.pieces.iter().filter_map(|piece| number_of(&piece.file)).max();
        let state = State { manifest, next_file: listed.map_or(0, |last| last + 1), unlisted: 0 };
        Ok(Base { shared: Arc::new(Shared { directory: directory.to_owned(), state: Mutex::new(state) }) })
    }

    /// What it holds by now.
    pub fn manifest(&self) -> BaseManifest {
        self.state().manifest.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("nothing panics while it holds this")
    }

    fn add(&self, piece: Piece) -> Result<(), ManifestError> {
        let number = {
            let mut state = self.state();
            state.next_file += 1;
            state.next_file - 1
        };
        let file = format!("{PREFIX}{number:08}{SUFFIX}");
        let (bytes, blake3) = write_packed(&self.shared.directory.join(&file), &codec::encode(&piece))?;
        let record = PieceRecord { file, of: piece.kind(), records: piece.records(), bytes, blake3 };
        let mut state = self.state();
        state.manifest.pieces.push(record);
        state.unlisted += 1;
        Ok(())
    }

    fn save(&self, state: &mut State) -> Result<(), ManifestError> {
        state.unlisted = 0;
        write_sealed(&self.shared.directory, &state.manifest)
    }
}

const PREFIX: &str = "base-";
const SUFFIX: &str = ".zst";

fn number_of(file: &str) -> Option<u64> {
    file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

impl Keep for Base {
    type Error = ManifestError;

    fn unfinished(&self) -> Result<Option<Unfinished>, ManifestError> {
        Ok(self.state().manifest.unfinished.clone())
    }

    fn note_unfinished(&self, noted: &Unfinished) -> Result<(), ManifestError> {
        let mut state = self.state();
        let begins = state.manifest.unfinished.replace(noted.clone()).is_none();
        if begins || state.unlisted >= UNLISTED_MAX { self.save(&mut state) } else { Ok(()) }
    }

    fn forget_checkpoint(&self) -> Result<(), ManifestError> {
        let mut state = self.state();
        state.manifest.checkpoint = None;
        state.manifest.pieces.retain(|piece| piece.of != Kind::Checkpoint);
        Ok(())
    }

    fn put_checkpoint(&self, pieces: &[(Bytes, Bytes)]) -> Result<(), ManifestError> {
        let path = &self.shared.directory;
        let damaged =
            |e: crate::view::store::StorageError| ManifestError::Damaged { path: path.clone(), why: e.to_string() };
        let version = version_among(pieces).map_err(damaged)?;
        self.add(Piece::Checkpoint(pieces.to_vec()))?;
        let mut state = self.state();
        state.manifest.checkpoint = version.or(state.manifest.checkpoint);
        Ok(())
    }

    fn put(&self, _: Space, facts: &[FactVersion], mut terms: Vec<(TermId, Bytes)>) -> Result<(), ManifestError> {
        if !facts.is_empty() {
            let mut facts = facts.to_vec();
            facts.sort_unstable();
            self.add(Piece::Facts(facts))?;
        }
        if !terms.is_empty() {
            terms.sort_unstable();
            self.add(Piece::Terms(terms))?;
        }
        Ok(())
    }

    fn conclude(&self, version: Version, oldest: LogIndex) -> Result<(), ManifestError> {
        let directory = &self.shared.directory;
        let mut state = self.state();
        state.manifest.unfinished = None;
        state.manifest.whole = Some(Whole { at: version, oldest });
        self.save(&mut state)?;
        for entry in at(directory, fs::read_dir(directory))? {
            let entry = at(directory, entry)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if number_of(&name).is_some() && !state.manifest.pieces.iter().any(|piece| piece.file == name) {
                at(&entry.path(), fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }
}

//! A file of entries: zstd, and in it the index of the first one and the entries, in postcard.

use super::manifest::{ChunkRecord, ManifestError, at, write_file};
use beam_wire::message::log::Entry;
use beam_wire::{LogIndex, codec};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Bodies in one chunk, unless the last alone exceeds it: what is lost when a backup is broken off, and what a restore
/// holds in memory.
pub const CHUNK_BYTES: usize = 16 << 20;
/// Entries in one chunk: skips have no bytes.
pub const CHUNK_ENTRIES: usize = 1 << 18;
/// More than any chunk of ours takes when decompressed: a damaged one must not take all memory.
const DECODED_BYTES_MAX: usize = 128 << 20;
/// zstd's own default: 300 MB/s and more a core.
const LEVEL: i32 = 3;

const PREFIX: &str = "log-";
const SUFFIX: &str = ".zst";

#[derive(Serialize, Deserialize)]
struct Chunk {
    first: LogIndex,
    entries: Vec<Entry>,
}

/// Writes entries to a file of their own. It counts once a manifest names it.
pub fn write(directory: &Path, first: LogIndex, entries: Vec<Entry>) -> Result<ChunkRecord, ManifestError> {
    assert!(!entries.is_empty(), "a chunk has entries");
    let last = LogIndex(first.0 + entries.len() as u64 - 1);
    let file = format!("{PREFIX}{first:020}-{last:020}{SUFFIX}", first = first.0, last = last.0);
    let plain = codec::encode(&Chunk { first, entries });
    let (bytes, blake3) = write_packed(&directory.join(&file), &plain)?;
    Ok(ChunkRecord { file, first, last, bytes, entry_bytes: plain.len() as u64, blake3 })
}

/// Writes bytes to a file, compressed. Returns what it takes, and its hash in hex.
pub(super) fn write_packed(path: &Path, plain: &[u8]) -> Result<(u64, String), ManifestError> {
    let bytes = at(path, zstd::bulk::compress(plain, LEVEL))?;
    write_file(path, &bytes)?;
    Ok((bytes.len() as u64, blake3::hash(&bytes).to_hex().to_string()))
}

/// Reads what [`write_packed`] wrote. The error says what is wrong with the file.
pub(super) fn read_packed(path: &Path, length: u64, blake3: &str) -> Result<Vec<u8>, String> {
    let bytes = fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "it is missing".to_owned(),
        _ => e.to_string(),
    })?;
    if bytes.len() as u64 != length {
        return Err(format!("it has {} bytes, not {length}", bytes.len()));
    }
    if blake3::hash(&bytes).to_hex().as_str() != blake3 {
        return Err("its bytes are not those that were written (checksum)".into());
    }
    zstd::bulk::decompress(&bytes, DECODED_BYTES_MAX).map_err(|e| e.to_string())
}

/// Reads the entries of a chunk back. The error says what is wrong with the file.
pub fn read(directory: &Path, record: &ChunkRecord) -> Result<Vec<Entry>, String> {
    let plain = read_packed(&directory.join(&record.file), record.bytes, &record.blake3)?;
    let Chunk { first, entries } = codec::decode(&plain).map_err(|e| e.to_string())?;
    let last = (first.0 + entries.len() as u64).checked_sub(1).map(LogIndex);
    if (first, last) != (record.first, Some(record.last)) {
        return Err(format!(
            "it holds entries {first} to {}, not {} to {}",
            last.unwrap_or_default(),
            record.first,
            record.last
        ));
    }
    Ok(entries)
}

/// Whether a file is named like a chunk.
pub fn is_chunk_name(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

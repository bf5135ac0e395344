//! Reads all that a log has on disk, and says what of it is damaged. No node may run meanwhile.

use super::disk::Disk;
use super::meta::{META, Meta, Sealed, SegmentRecord};
use super::open::reaches_committed;
use super::segment::Segment;
use super::store::StoreError;
use super::types::LogId;
use std::sync::Arc;

/// What is read at once.
const PIECE_BYTES: usize = 8 << 20;
/// Of one segment, no more than so many damages are named.
const NAMED_MAX: usize = 10;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many segments are listed.
    pub segments: usize,
    /// How many entries were read, and are as they were written.
    pub entries: u64,
    /// The last entry that was read.
    pub last: Option<LogId>,
    /// What is not, each with its file, and its entry if that is known.
    pub damages: Vec<String>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Segments that were read.
    pub segments: usize,
    /// Of so many.
    pub of: usize,
}

/// Reads the whole log of a directory. The last segment is repaired first if it was left in a crash, as a start
/// would. An error if it cannot be read at all for another reason than that it is damaged.
pub fn verify(disk: Arc<dyn Disk>, mut progress: impl FnMut(Progress)) -> Result<Verified, StoreError> {
    let mut verified = Verified::default();
    if !disk.list()?.iter().any(|name| name == META) {
        return Err(StoreError::NoLog);
    }
    let (meta, state) = match Meta::open(&*disk) {
        Ok(opened) => opened,
        Err(e) => return damaged(&mut verified, e).map(|()| verified),
    };
    verified.segments = state.segments.len();
    for (i, record) in state.segments.iter().enumerate() {
        progress(Progress { segments: i, of: verified.segments });
        let sealed = state.sealed.get(&record.number).copied();
        let next = state.segments.get(i + 1).map(|next| next.first);
        let segment = Segment::listed(disk.clone(), *record);
        if let Err(e) = read(&segment, *record, sealed, next, &mut verified) {
            damaged(&mut verified, e)?;
        }
    }
    if let Err(e) = reaches_committed(verified.last, &state) {
        damaged(&mut verified, e)?;
    }
    progress(Progress { segments: verified.segments, of: verified.segments });
    meta.close()?;
    Ok(verified)
}

fn damaged(verified: &mut Verified, e: StoreError) -> Result<(), StoreError> {
    match e {
        StoreError::Corrupt { file, why } => {
            verified.damages.push(format!("{file}: {why}"));
            Ok(())
        }
        e => Err(e),
    }
}

fn read(
    segment: &Segment,
    record: SegmentRecord,
    sealed: Option<Sealed>,
    next: Option<u64>,
    verified: &mut Verified,
) -> Result<(), StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { file: segment.name(), why };
    if !segment.exists()? {
        return Err(corrupt(format!("there is no such file, and the entries from {} on lie in it", record.first)));
    }
    if let Some(sealed) = sealed
        && sealed.bytes != segment.file_bytes()?
    {
        let found = segment.file_bytes()?;
        let why = format!("it is {found} bytes long, but was {} when it was closed for good", sealed.bytes);
        damaged(verified, corrupt(why))?;
    }
    if sealed.is_none() {
        segment.unseal()?;
    }
    // The last one ends where it ends.
    let end = match next.map(|next| next - 1).or(segment.bounds()?.map(|(_, last)| last)) {
        Some(end) => end,
        None => return segment.close(),
    };
    let (mut at, mut named) = (record.first, 0);
    while at <= end {
        match segment.entries(at, end, &mut { PIECE_BYTES }, true) {
            Ok(entries) if entries.is_empty() => return Err(corrupt(format!("entry {at} is missing"))),
            Ok(entries) => {
                if let Some((entry, index)) = entries.iter().zip(at..).find(|(e, index)| e.log_id.index != *index) {
                    let why = format!("entry {index} is missing before entry {}", entry.log_id.index);
                    return Err(corrupt(why));
                }
                verified.last = entries.last().map(|e| e.log_id).max(verified.last);
                verified.entries += entries.len() as u64;
                at += entries.len() as u64;
            }
            // Which ones, run by run.
            Err(StoreError::Corrupt { .. }) => {
                while at <= end {
                    let next = segment.next_row(at)?.map_or(end + 1, |next| next.min(end + 1));
                    match segment.entries(at, next - 1, &mut { usize::MAX }, true) {
                        Ok(entries) if (entries.len() as u64) < next - at => {
                            return Err(corrupt(format!("entry {} is missing", at + entries.len() as u64)));
                        }
                        Ok(entries) => {
                            verified.last = entries.last().map(|e| e.log_id).max(verified.last);
                            verified.entries += entries.len() as u64;
                        }
                        Err(e) => {
                            damaged(verified, e)?;
                            named += 1;
                            if named == NAMED_MAX {
                                return Err(corrupt(format!("entries from {next} on were not looked at any more")));
                            }
                        }
                    }
                    at = next;
                }
            }
            Err(e) => return Err(e),
        }
    }
    segment.close()
}

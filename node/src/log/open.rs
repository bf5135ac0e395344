//! Opening a log: what the metadata file lists counts, whatever else a crash has left is removed, and
//! what is listed must be whole.

use super::disk::Disk;
use super::files::Files;
use super::meta::{META, META_NEW, Meta, MetaState, Sealed};
use super::renewal::{self, Old, Renewal};
use super::segment::{Segment, is_segment_name};
use super::store::{StoreError, StoreOptions};
use super::types::LogId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Opens all files; begins with `fresh` if there are none. Returns the last entry, too.
pub fn open_files(
    disk: Arc<dyn Disk>,
    options: StoreOptions,
    fresh: MetaState,
) -> Result<(Files, MetaState, Option<LogId>), StoreError> {
    match renewal::read(&*disk)? {
        Some(Renewal::SetAside(_)) => return Err(StoreError::HalfRebuilt),
        Some(Renewal::Rejoin(Old { cluster: Some(found), .. })) if found != options.cluster => {
            return Err(StoreError::OtherCluster { found, wanted: options.cluster });
        }
        Some(Renewal::Rejoin(_)) | None => {}
    }
    let names = disk.list()?;
    let (meta, mut state) = if names.iter().any(|name| name == META) {
        Meta::open(&*disk)?
    } else if let Some(file) = names.iter().find(|name| is_segment_name(name)) {
        return Err(StoreError::NoMeta { file: file.clone() });
    } else {
        (Meta::create(&*disk, &fresh)?, fresh)
    };
    if state.cluster != options.cluster {
        return Err(StoreError::OtherCluster { found: state.cluster, wanted: options.cluster });
    }
    let segments: Vec<_> = state.segments.iter().map(|r| Arc::new(Segment::listed(disk.clone(), *r))).collect();
    let names: BTreeSet<String> = disk.list()?.into_iter().collect();
    let listed: BTreeSet<String> = segments.iter().map(|s| s.name()).collect();
    for name in names.iter().filter(|name| *name == META_NEW || is_segment_name(name) && !listed.contains(*name)) {
        disk.remove(name)?;
    }
    if let Some(missing) = segments.iter().find(|s| !names.contains(&s.name())) {
        let why = format!("there is no such file, and the entries from {} on lie in it", missing.record.first);
        return Err(StoreError::Corrupt { file: missing.name(), why });
    }
    let last = check(&segments, &mut state)?;
    let files = Files::new(disk, meta, state.clone(), options, segments, last.map(|id| id.index))?;
    Ok((files, state, last))
}

/// Makes sure that no entry is missing. Of a sealed segment only the length of its file is looked at: what
/// it holds was written down when it was sealed. Only the last segment is opened, and those that an earlier
/// version has sealed, for the first time. Returns the last entry.
fn check(segments: &[Arc<Segment>], state: &mut MetaState) -> Result<Option<LogId>, StoreError> {
    let corrupt = |segment: &Segment, why: String| Err(StoreError::Corrupt { file: segment.name(), why });
    let readable = state.purged.map(|id| id.index + 1);
    if let (Some(segment), Some(readable)) = (segments.first(), readable)
        && segment.record.first > readable
    {
        let why = format!("it begins at entry {}: entries from {readable} on are missing", segment.record.first);
        return corrupt(segment, why);
    }
    let mut last = None;
    for (i, segment) in segments.iter().enumerate() {
        let first = segment.record.first;
        let Some(next) = segments.get(i + 1).map(|next| next.record.first) else {
            segment.unseal()?;
            last = bounds(segment)?.map(|(_, end)| (segment, end)).or(last);
            break;
        };
        let sealed = match state.sealed.get(&segment.record.number) {
            Some(sealed) => *sealed,
            None => {
                // A crash may have come while it was being sealed.
                segment.unseal()?;
                segment.seal()?;
                let Some((_, end)) = bounds(segment)? else {
                    return corrupt(segment, format!("it is empty: entries {first} to {} are missing", next - 1));
                };
                segment.close_sealed()?;
                let sealed = Sealed { last: end, bytes: segment.file_bytes()? };
                state.sealed.insert(segment.record.number, sealed);
                sealed
            }
        };
        if sealed.last + 1 != next {
            let why = format!("it ends at entry {}, but the next segment begins at {next}", sealed.last);
            return corrupt(segment, why);
        }
        let found = segment.file_bytes()?;
        if found != sealed.bytes {
            let why = format!("it is {found} bytes long, but was {} when it was closed for good", sealed.bytes);
            return corrupt(segment, why);
        }
        last = Some((segment, sealed.last));
    }
    let last = match last {
        None => None,
        Some((segment, end)) => segment.entries(end, end, &mut 0, true)?.first().map(|e| e.log_id),
    };
    reaches_committed(last, state)?;
    Ok(last)
}

/// Makes sure that what was committed is there, of a log that ends with `last`.
pub fn reaches_committed(last: Option<LogId>, state: &MetaState) -> Result<(), StoreError> {
    let reached = last.max(state.purged).max(state.machine.applied);
    match state.committed {
        Some(committed) if reached.is_none_or(|reached| reached.index < committed.index) => {
            let end = reached.map_or("is empty".into(), |id| format!("ends at {}", id.index));
            let why = format!(
                "entry {} is committed, but the log {end}: the disk has lost what it had synced",
                committed.index
            );
            Err(StoreError::Corrupt { file: META.into(), why })
        }
        _ => Ok(()),
    }
}

/// The first and last entry of a segment that is opened, if it has any.
fn bounds(segment: &Segment) -> Result<Option<(u64, u64)>, StoreError> {
    let wanted = segment.record.first;
    match segment.bounds()? {
        Some((first, _)) if first != wanted => {
            let why = format!("it begins at entry {first}, but should at {wanted}");
            Err(StoreError::Corrupt { file: segment.name(), why })
        }
        bounds => Ok(bounds),
    }
}

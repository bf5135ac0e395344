//! Opening a log: what the metadata file lists counts, whatever else a crash has left is removed, and
//! what is listed must be whole.

use super::disk::Disk;
use super::meta::{META, META_NEW, Meta, MetaState};
use super::segment::{Segment, is_segment_name};
use super::store::{StoreError, StoreOptions};
use super::types::LogId;
use super::writer::Files;
use std::sync::Arc;

/// Opens all files; begins with `fresh` if there are none. Returns the last entry, too.
pub fn open_files(
    disk: Arc<dyn Disk>,
    options: StoreOptions,
    fresh: MetaState,
) -> Result<(Files, MetaState, Option<LogId>), StoreError> {
    let names = disk.list()?;
    let (meta, state) = if names.iter().any(|name| name == META) {
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
    let listed = |name: &String| segments.iter().any(|s| s.name() == *name);
    for name in disk.list()?.iter().filter(|name| *name == META_NEW || is_segment_name(name) && !listed(name)) {
        disk.remove(name)?;
    }
    let last = check(&segments, &state)?;
    let files = Files::new(disk, meta, state.clone(), options, segments, last.map(|id| id.index))?;
    Ok((files, state, last))
}

/// Makes sure that no entry is missing, by the first and last one of each segment. Returns the last.
fn check(segments: &[Arc<Segment>], state: &MetaState) -> Result<Option<LogId>, StoreError> {
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
        let next = segments.get(i + 1).map(|next| next.record.first);
        if next.is_none() {
            segment.unseal()?;
        }
        let wanted = segment.record.first;
        match (segment.bounds()?, next) {
            (None, None) => {}
            (None, Some(next)) => {
                return corrupt(segment, format!("it is empty: entries {wanted} to {} are missing", next - 1));
            }
            (Some((first, _)), _) if first != wanted => {
                return corrupt(segment, format!("it begins at entry {first}, but should at {wanted}"));
            }
            (Some((_, end)), Some(next)) if end + 1 != next => {
                return corrupt(segment, format!("it ends at entry {end}, but the next segment begins at {next}"));
            }
            (Some((_, end)), _) => last = Some((segment, end)),
        }
    }
    let last = match last {
        None => None,
        Some((segment, end)) => segment.entries(end, end, &mut 0, true)?.first().map(|e| e.log_id),
    };
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
        _ => Ok(last),
    }
}

//! Everything that a read does: entries from this node's own disk, up to what it knows to be committed.

use super::raft::Log;
use super::recover::check_reader;
use super::types::EntryContent;
use beam_wire::error::{CallError, Code};
use beam_wire::ids::LogIndex;
use beam_wire::message::log::{Entries, LogRead};
use beam_wire::quic::Handle;
use std::io::ErrorKind;
use std::sync::Arc;

/// Bodies in one frame, unless one alone is larger. A reader has nothing of a frame before it has all of it, and a link that loses
/// a fifth of its packets brings some 25 KB a second: it must not stand still for long, nor lose much when it breaks off.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// Entries in one frame: skips have no bytes.
const FRAME_ENTRIES_MAX: u64 = 4096;

/// Serves one stream of entries.
pub(super) async fn read(log: Arc<Log>, mut call: Handle<LogRead>) -> Result<(), CallError> {
    check_reader(&log, call.request.epoch, call.request.from)?;
    let epoch = log.epoch()?;
    let mut commits = log.raft.watch_commit_progress();
    let mut next = call.request.from;
    let mut told = None;
    loop {
        let committed = commits.get().map(|id| LogIndex(id.index));
        if let Some(committed) = committed.filter(|c| next <= *c) {
            log.outlived.check()?;
            let to = committed.0.min(next.0 + FRAME_ENTRIES_MAX - 1);
            let entries = entries(&log, next, to).await?;
            let first = next;
            next = LogIndex(next.0 + entries.len() as u64);
            told = Some(committed);
            call.reply(&Entries { epoch, committed, first, entries }).await?;
            continue;
        }
        if !call.request.follow {
            return Ok(());
        }
        if told.is_none() {
            // A reader that is ahead of all that is committed learns so.
            check_first(&log, next)?;
            let committed = committed.unwrap_or_default();
            told = Some(committed);
            call.reply(&Entries { epoch, committed, first: next, entries: Vec::new() }).await?;
        }
        let stopped = |_| CallError::elsewhere(Code::Unavailable, "this log node has stopped");
        tokio::select! { biased;
            () = log.outlived.told() => log.outlived.check()?,
            changed = commits.changed() => changed.map_err(stopped)?,
        }
    }
}

/// A run of entries from `from` on, at least one.
async fn entries(log: &Log, from: LogIndex, to: u64) -> Result<Vec<EntryContent>, CallError> {
    check_first(log, from)?;
    let read = match log.store.read(from.0, to, FRAME_BYTES_MAX).await {
        Ok(read) => read,
        // Discarded since we looked.
        Err(e) if e.kind() == ErrorKind::NotFound => {
            check_first(log, from)?;
            return Err(CallError::elsewhere(Code::Storage, format!("the entry {from} is missing: {e}")));
        }
        Err(e) => return Err(CallError::elsewhere(Code::Storage, e.to_string())),
    };
    let contiguous = read.iter().zip(from.0..).all(|((index, _), expected)| *index == expected);
    assert!(contiguous && !read.is_empty(), "the store reads a run from the index that it was asked for");
    Ok(read.into_iter().map(|(_, content)| content).collect())
}

fn check_first(log: &Log, from: LogIndex) -> Result<(), CallError> {
    let first = LogIndex(log.store.state().first);
    if from < first {
        let message = format!("the log begins at {first}: what lies before, {from} included, was discarded");
        return Err(CallError::never(Code::Discarded, message));
    }
    Ok(())
}

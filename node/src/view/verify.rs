//! Tells what the view holds, in hashes, and reads all of its data to see whether that is what lies on its disk.
//!
//! Only one scan runs at a time, slice by slice, no faster than [`SCAN_BYTES_PER_SECOND`]: each slice waits for its turn
//! among the look-ups. What it finds wrong is told to the board, and the view stops.

use super::scan::Scan;
use super::serve::Desk;
use super::status::Board;
use super::store::StorageError;
use super::sums::{AsOf, Missed};
use beam_wire::env::Env;
use beam_wire::message::view::{Scanned, ViewState, ViewVerify, ViewVerifyReply};
use beam_wire::quic::Handle;
use beam_wire::{CallError, Code, LogIndex};
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// Keys and values, as they are before compression: ten million facts in one and a half minutes. A quarter of what one core
/// reads, so that a scan takes no more than that of it.
const SCAN_BYTES_PER_SECOND: u64 = 20 << 20;
/// How often a scan tries to begin where applying has not yet gone on too far.
const ATTEMPTS: u32 = 5;

impl Desk {
    pub(super) async fn verify(self, mut call: Handle<ViewVerify>) -> Result<(), CallError> {
        let ViewVerify { at, scan, .. } = call.request;
        self.check_epoch(at)?;
        self.board.applied(&self.env, at.index, call.deadline).await?;
        self.board.judged(&self.env, at.index, call.deadline).await?;
        self.check_epoch(at)?;
        let AsOf { tallies, verdicts } = self.sums(at.index)?;
        let sums = self.shared.sums().cells().told(&tallies);
        let scanned = match scan {
            Some(after) => Some(self.scan(after, at.index).await?),
            None => None,
        };
        call.reply(&ViewVerifyReply { sums, verdicts, scanned }).await
    }

    fn sums(&self, index: LogIndex) -> Result<AsOf, CallError> {
        self.shared.sums().as_of(index).map_err(|missed| match missed {
            Missed::Ahead => CallError::elsewhere(Code::Ahead, format!("this view has not judged entry {index} yet")),
            Missed::Before(since) => {
                let message = format!("this view has gone on beyond entry {index}: it tells hashes from {since} on");
                CallError::never(Code::TooOld, message)
            }
        })
    }

    /// Reads everything. Of past versions it tells those that were deleted after the first index, up to the second.
    async fn scan(&self, after: LogIndex, until: LogIndex) -> Result<Scanned, CallError> {
        let _alone = self.scanning.acquire().await.expect("it is never closed");
        let (mut scan, applied) = self.begin_scan((after, until)).await?;
        loop {
            let (back, read) = self
                .read(move || {
                    let read = scan.slice();
                    (scan, read)
                })
                .await;
            scan = back;
            match read.map_err(|e| self.refuse(e.into()))? {
                Some(bytes) => {
                    self.env.sleep(Duration::from_secs_f64(bytes as f64 / SCAN_BYTES_PER_SECOND as f64)).await;
                }
                None => break,
            }
        }
        if let Some(difference) = scan.difference(&applied.tallies) {
            return Err(self.refuse(StorageError::Damaged(difference).into()));
        }
        scan.scanned().map_err(|e| self.refuse(e.into()))
    }

    /// A snapshot, and the sums as of the same index.
    async fn begin_scan(&self, between: (LogIndex, LogIndex)) -> Result<(Scan, AsOf), CallError> {
        let mut attempts = 0;
        loop {
            let (store, cells) = (self.store.clone(), self.shared.sums().cells().clone());
            let begun = self.read(move || -> Result<_, StorageError> {
                let snapshot = store.snapshot();
                let index = snapshot.progress()?.applied;
                Ok((index, Scan::of(snapshot, cells, between)))
            });
            let (index, scan) = begun.await.map_err(|e| self.refuse(e.into()))?;
            self.board.judged(&self.env, index, None).await?;
            match self.sums(index) {
                Ok(applied) => return Ok((scan, applied)),
                Err(error) if attempts == ATTEMPTS => return Err(error),
                Err(_) => attempts += 1,
            }
        }
    }
}

/// Scans now and then, for as long as the view lives.
pub async fn scan_regularly(env: Env, every: Duration, board: Arc<Board>, desk: Arc<RwLock<Option<Desk>>>) {
    // Views that were started together must not all be slower at the same time.
    let mut pause = every.mul_f64(env.random_below(1000) as f64 / 1000.0);
    loop {
        env.sleep(pause).await;
        pause = every;
        let desk = desk.read().expect("nothing panics while it holds this").clone();
        let Some(desk) = desk.filter(|_| board.state() == ViewState::Serving) else { continue };
        let status = board.status();
        match desk.while_open(desk.scan(status.oldest, status.applied)).await {
            Ok(scanned) => tracing::info!("a scan has read {} records: all is as it was applied", scanned.records),
            Err(why) => tracing::warn!("a scan has ended: {why}"),
        }
    }
}

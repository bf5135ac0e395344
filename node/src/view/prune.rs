//! Goes over past versions now and then, and removes those that are older than the view's history.
//!
//! The oldest index that can be read has risen before, durably, so nobody may ask for them any more; look-ups and
//! copies that began earlier are told so by their next slice. It reads in slices of a few milliseconds, between which
//! look-ups have their turn, and not faster than a disk gives beside all else.

use super::serve::Desk;
use super::store::{StorageError, Store};
use beam_wire::LogIndex;
use beam_wire::env::Env;
use bytes::Bytes;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// Between two passes. What compaction does not drop meanwhile takes room for so long.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Versions in a slice.
const SLICE_ROWS: usize = if cfg!(test) { 7 } else { 512 };
/// How fast a pass reads: a gigabyte takes a minute.
const BYTES_PER_SECOND: u64 = 16 << 20;
/// What removing a version counts for, in bytes read: 20,000 a second. At the pace of reading alone it would be a load like any
/// other, which look-ups notice.
const REMOVED_BYTES: u64 = 800;

/// Makes a pass whenever there may be something to remove, for as long as the view lives.
pub async fn prune_regularly(env: Env, desk: Arc<RwLock<Option<Desk>>>) {
    // Views that were started together must not all be slower at the same time.
    let mut pause = PRUNE_EVERY.mul_f64(env.random_below(1000) as f64 / 1000.0);
    let mut done = LogIndex(0);
    loop {
        env.sleep(pause).await;
        pause = PRUNE_EVERY;
        let desk = || desk.read().expect("nothing panics while it holds this").clone();
        let Some(floor) = desk().map(|desk| desk.store.floor()) else { continue };
        if floor == done {
            continue;
        }
        match pass(&env, || desk().map(|desk| desk.store)).await {
            Ok(removed) => {
                done = floor;
                tracing::debug!("{removed} past versions from up to {floor} were removed");
            }
            Err(why) => {
                tracing::warn!("past versions are not removed: {why}");
                if let Some(desk) = desk() {
                    desk.refuse(why.into());
                }
            }
        }
    }
}

/// Goes over all past versions once. Returns how many it has removed. It asks for the store slice by slice, and ends
/// when there is none: while it waits, it keeps nobody from closing it.
pub async fn pass(env: &Env, store: impl Fn() -> Option<Store>) -> Result<u64, StorageError> {
    let mut removed = 0;
    let orders: Vec<_> = store().map(|store| store.orders().collect()).unwrap_or_default();
    for order in orders {
        let mut next = Some(Bytes::new());
        while let Some(from) = next {
            let Some(store) = store() else { return Ok(removed) };
            let pruned = env.blocking(move || store.prune(order, from, SLICE_ROWS)).await?;
            removed += pruned.removed;
            next = pruned.next;
            let cost = pruned.bytes + pruned.removed * REMOVED_BYTES;
            env.sleep(Duration::from_secs_f64(cost as f64 / BYTES_PER_SECOND as f64)).await;
        }
    }
    Ok(removed)
}

//! A disk that fills up: what was begun is put right, what waits is written when there is room, in order,
//! and nothing is told before.

use super::crash::{Model, Progress, SCRIPT, check, goes_on, look, perform};
use super::*;
use crate::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
use std::sync::Mutex;
use std::time::Duration;

const MOMENT: Duration = Duration::from_secs(3);

/// Virtual time, so that waiting for room takes none.
fn story<T>(test: impl Future<Output = T>) -> T {
    run(async {
        tokio::time::pause();
        test.await
    })
}

fn disk() -> SimDisk {
    SimDisk::new(&Env::current(), SimDiskOptions::default())
}

async fn with_reserve(disk: &SimDisk, reserve_bytes: u64) -> LogStore {
    let options = StoreOptions { reserve_bytes, segment_bytes: 1 << 20, ..options() };
    LogStore::open(&Env::current(), Arc::new(disk.clone()), options).await.unwrap()
}

/// Prevents: a node that ends because its disk is full, or a vote that overtakes the entries before it.
#[test]
fn what_waits_for_room_is_written_in_order_when_there_is_some() {
    story(async {
        let disk = disk();
        let mut store = with_reserve(&disk, 64 << 10).await;
        append(&mut store, (0..50).map(|i| data(1, i))).await.unwrap();
        assert!(!store.is_full());
        // A quarter of the reserve is not left any more.
        disk.set_capacity(Some(disk.used() + (15 << 10)));
        Env::current().sleep(MOMENT).await;
        assert!(store.is_full());
        let mut flushed = append_only(&mut store, (50..60).map(|i| data(1, i))).await.unwrap();
        let mut voting = store.clone();
        let voted = Env::current().tasks().spawn_raw(async move { voting.save_vote(&vote(2)).await });
        let mut later = append_only(&mut store, (60..70).map(|i| data(2, i))).await.unwrap();
        Env::current().sleep(MOMENT).await;
        assert!(flushed.try_recv().is_err() && later.try_recv().is_err(), "nothing is told before it is durable");
        assert_eq!(store.vote(), None);
        // Readers go on, from disk and from memory.
        assert_eq!(indexes(&all(&store).await), Vec::from_iter(0..70));
        assert_eq!(store.state().flushed, Some(49));
        disk.set_capacity(None);
        flushed.await.unwrap().unwrap();
        voted.await.unwrap().unwrap();
        later.await.unwrap().unwrap();
        assert!(!store.is_full());
        disk.crash(Loss::Unsynced);
        let store = with_reserve(&disk, 64 << 10).await;
        assert_eq!(indexes(&all(&store).await), Vec::from_iter(0..70));
        assert_eq!(store.vote(), Some(vote(2)));
    });
}

/// Prevents: a discard that waits for the room that it would make.
#[test]
fn a_discard_makes_room_while_others_wait_for_it() {
    story(async {
        let disk = disk();
        let options = StoreOptions { reserve_bytes: 256 << 10, ..options() };
        let mut store = LogStore::open(&Env::current(), Arc::new(disk.clone()), options).await.unwrap();
        append(&mut store, (0..40).map(|i| data(1, i))).await.unwrap();
        disk.set_capacity(Some(disk.used() + (60 << 10)));
        Env::current().sleep(MOMENT).await;
        let mut flushed = append_only(&mut store, (40..50).map(|i| data(1, i))).await.unwrap();
        Env::current().sleep(MOMENT).await;
        assert!(flushed.try_recv().is_err());
        // What waits cannot go.
        store.purge(id(1, 30)).await.unwrap();
        flushed.await.unwrap().unwrap();
        assert_eq!(indexes(&all(&store).await), Vec::from_iter(31..50));
    });
}

/// Prevents: a full disk that keeps the process from ending, or a log that says that it wrote what it did
/// not.
#[test]
fn a_log_closes_while_it_waits_for_room() {
    story(async {
        let disk = disk();
        let mut store = with_reserve(&disk, 64 << 10).await;
        append(&mut store, (0..50).map(|i| data(1, i))).await.unwrap();
        disk.set_capacity(Some(disk.used()));
        let flushed = append_only(&mut store, (50..60).map(|i| data(1, i))).await.unwrap();
        assert_eq!(store.close().await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        let error = flushed.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(append_only(&mut store, [data(1, 60)]).await.is_err());
        disk.set_capacity(None);
        assert_eq!(indexes(&all(&with_reserve(&disk, 0).await).await), Vec::from_iter(0..50));
    });
}

/// Prevents: an append that takes memory without bound while the disk is full.
#[test]
fn what_waits_for_room_is_bounded() {
    story(async {
        let disk = disk();
        let mut store = with_reserve(&disk, 64 << 10).await;
        append(&mut store, [data(1, 0)]).await.unwrap();
        disk.set_capacity(Some(disk.used()));
        let big = |index| {
            let mut entry = data(1, index);
            if let EntryPayload::Normal(LogCommand::Data { body, .. }) = &mut entry.payload {
                *body = vec![7; 1 << 20].into();
            }
            entry
        };
        let mut flushed = Vec::new();
        let mut next = 1;
        while let Ok(appended) = Env::current().timeout(MOMENT, append_only(&mut store, [big(next)])).await {
            flushed.push(appended.unwrap());
            next += 1;
            assert!(next < 100, "it takes more and more");
        }
        assert!(next > 32, "only {next} were taken");
        disk.set_capacity(None);
        for is_flushed in flushed {
            is_flushed.await.unwrap().unwrap();
        }
    });
}

/// Prevents: a write that fails for want of room, at any place of any step, and that leaves something half
/// done, done twice, or forgotten; also if power fails later. Somebody else fills the disk, so nothing is
/// known before.
#[test]
fn a_disk_that_is_full_at_any_operation_holds_nothing_up_for_good() {
    story(async {
        let mut n = 1;
        loop {
            let mut wanted = Model::default();
            SCRIPT.iter().for_each(|step| wanted.step(*step));
            // For a moment; for so long that putting right what was begun fails too.
            let times = [1, 2, 3, 7, 20][n as usize % 5];
            println!("full before operation {n}, {times} times");
            let disk = SimDisk::seeded(&Env::current(), n, SimDiskOptions::default());
            let mut store = open(&disk).await.unwrap();
            let begun = disk.operations();
            disk.full_before(n, times);
            let progress = Mutex::default();
            perform(&mut store, &progress).await;
            assert_eq!(progress.into_inner().unwrap().acknowledged, SCRIPT.len());
            assert_eq!(look(&store).await, wanted);
            if disk.operations() - begun < n {
                break;
            }
            disk.crash([Loss::Torn, Loss::Unsynced, Loss::Nothing][n as usize % 3]);
            let mut store = open(&disk).await.unwrap();
            assert_eq!(look(&store).await, wanted);
            goes_on(&mut store, &disk).await;
            n += 1;
        }
        assert!(n > 300, "the script has only {n} operations");
    });
}

/// Prevents: a crash while what a full disk has interrupted is put right, that loses what was acknowledged.
#[test]
fn a_disk_that_is_full_and_then_loses_power_loses_nothing_acknowledged() {
    story(async {
        for n in 1..250 {
            let disk = SimDisk::seeded(&Env::current(), n, SimDiskOptions::default());
            let mut store = open(&disk).await.unwrap();
            disk.full_before(n, 3 + n % 5);
            disk.crash_before(n + 1 + n * 7 % 19);
            let progress: Mutex<Progress> = Mutex::default();
            perform(&mut store, &progress).await;
            disk.crash([Loss::Torn, Loss::Unsynced, Loss::Nothing][n as usize % 3]);
            let mut store = open(&disk).await.unwrap();
            check(&look(&store).await, progress.into_inner().unwrap());
            goes_on(&mut store, &disk).await;
        }
    });
}

use super::*;
use crate::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
use crate::log::machine::Machine;
use crate::log::types::{Course, SnapshotData, StoredMembership};
use openraft::async_runtime::WatchReceiver;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use std::sync::Mutex;

fn disk() -> SimDisk {
    SimDisk::new(&Env::current(), SimDiskOptions::default())
}

fn discard(term: u64, index: u64, before: u64) -> Entry {
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(LogCommand::Discard { before }) }
}

fn machine(store: &LogStore) -> Machine {
    Machine::new(store.clone(), Arc::new(|_| {}))
}

async fn apply(machine: &mut Machine, store: &LogStore, range: std::ops::Range<u64>) {
    use openraft::storage::RaftLogReader;
    let entries = store.clone().try_get_log_entries(range).await.unwrap();
    machine.apply(futures::stream::iter(entries.into_iter().map(|e| Ok((e, None))))).await.unwrap();
}

/// Members at 0 and 5, a discard before 4 at 7.
async fn written(disk: &SimDisk) -> LogStore {
    let mut store = open(disk).await.unwrap();
    let mut entries: Vec<Entry> = (0..10).map(|i| data(1, i)).collect();
    entries[0] = members(1, 0, &[1]);
    entries[5] = members(1, 5, &[1, 2]);
    entries[7] = discard(1, 7, 4);
    append(&mut store, entries).await.unwrap();
    store.set_epoch(beam_wire::Epoch(3)).await.unwrap();
    store
}

#[test]
fn entries_are_shown_in_order_before_they_count_as_applied() {
    run(async {
        let store = written(&disk()).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shown = seen.clone();
        let mut machine = Machine::new(store.clone(), Arc::new(move |e: &Entry| shown.lock().unwrap().push(e.log_id)));
        let applied = machine.applied();
        apply(&mut machine, &store, 0..6).await;
        assert_eq!(*applied.borrow_watched(), Some(id(1, 5)));
        apply(&mut machine, &store, 6..10).await;
        assert_eq!(*seen.lock().unwrap(), (0..10).map(|i| id(1, i)).collect::<Vec<_>>());
    });
}

/// Prevents: a restart that has forgotten who votes, or claims to have applied what it does not hold.
#[test]
fn a_restart_knows_the_membership_and_no_more_than_the_log_holds() {
    run(async {
        let disk = disk();
        let store = written(&disk).await;
        let mut before = machine(&store);
        apply(&mut before, &store, 0..10).await;
        let (applied, membership) = before.applied_state().await.unwrap();
        assert_eq!(applied, Some(id(1, 9)));
        assert_eq!(membership, StoredMembership::new(Some(id(1, 5)), super::membership(&[1, 2])));
        store.close().await.unwrap();
        let store = open(&disk).await.unwrap();
        assert_eq!(machine(&store).applied_state().await.unwrap(), (applied, membership));
    });
}

/// Prevents: an applied position beyond the log's end, which openraft takes for a log that was purged: the
/// node would then never hold these entries.
#[test]
fn what_was_applied_is_durable_only_after_its_entries() {
    run(async {
        for n in 1..60 {
            let disk = disk();
            let store = written(&disk).await;
            let mut machine = machine(&store);
            apply(&mut machine, &store, 0..10).await;
            let mut writing = store.clone();
            disk.crash_before(n);
            for index in 10..13 {
                let Ok(_) = append_only(&mut writing, [data(1, index)]).await else { break };
                apply(&mut machine, &store, index..index + 1).await;
                if writing.save_vote(&vote(index)).await.is_err() {
                    break;
                }
            }
            disk.crash(Loss::Torn);
            let store = open(&disk).await.unwrap();
            let applied = super::super::machine::Machine::new(store.clone(), Arc::new(|_| {})).applied_state().await;
            assert!(applied.unwrap().0 <= store.state().last, "crash before operation {n}");
        }
    });
}

/// Prevents: a joiner that begins after the newest snapshot instead of at the discard point, and cannot
/// serve the entries between.
#[test]
fn a_snapshot_stands_at_the_discard_point_with_the_membership_there() {
    run(async {
        let disk = disk();
        let mut store = written(&disk).await;
        let mut machine = machine(&store);
        let discarded = machine.discarded();
        apply(&mut machine, &store, 0..7).await;
        assert_eq!(*discarded.borrow_watched(), None);
        apply(&mut machine, &store, 7..10).await;
        assert_eq!(*discarded.borrow_watched(), Some(id(1, 3)));
        let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        assert_eq!(snapshot.meta.last_log_id, Some(id(1, 3)));
        assert_eq!(snapshot.meta.last_membership, StoredMembership::new(Some(id(1, 0)), super::membership(&[1])));
        assert_eq!(snapshot.snapshot, SnapshotData { epoch: Some(beam_wire::Epoch(3)), course: Course::default() });
        // The point outlives a restart, before and after the entries are gone.
        store.purge(id(1, 3)).await.unwrap();
        store.close().await.unwrap();
        let store = open(&disk).await.unwrap();
        let mut machine = super::machine::machine(&store);
        assert_eq!(*machine.discarded().borrow_watched(), Some(id(1, 3)));
        assert_eq!(machine.get_snapshot_builder().await.build_snapshot().await.unwrap().meta, snapshot.meta);
        assert_eq!(indexes(&all(&store).await), Vec::from_iter(4..10));

        // A joiner takes it, and goes on from there.
        let other = SimDisk::new(&Env::current(), SimDiskOptions::default());
        let mut joiner = open(&other).await.unwrap();
        let mut joined = super::machine::machine(&joiner);
        joined.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
        joiner.purge(id(1, 3)).await.unwrap();
        assert_eq!(joiner.epoch(), Some(beam_wire::Epoch(3)));
        assert_eq!(joiner.state().first, 4);
        append(&mut joiner, all(&store).await).await.unwrap();
        apply(&mut joined, &joiner, 4..10).await;
        other.crash(Loss::Unsynced);
        let joiner = open(&other).await.unwrap();
        let (applied, _) = super::machine::machine(&joiner).applied_state().await.unwrap();
        assert!(applied >= Some(id(1, 3)));
        assert_eq!(all(&joiner).await, all(&store).await);
    });
}

/// Prevents: a discard that lets go of entries that are not applied yet, or moves the point backwards.
#[test]
fn a_discard_reaches_no_further_than_itself_and_never_back() {
    run(async {
        let mut store = open(&disk()).await.unwrap();
        let entries = [members(1, 0, &[1]), discard(1, 1, 99), discard(1, 2, 0), discard(1, 3, 1)];
        append(&mut store, entries).await.unwrap();
        let mut machine = machine(&store);
        let discarded = machine.discarded();
        apply(&mut machine, &store, 0..2).await;
        assert_eq!(*discarded.borrow_watched(), Some(id(1, 0)));
        apply(&mut machine, &store, 2..4).await;
        assert_eq!(*discarded.borrow_watched(), Some(id(1, 0)));
    });
}

/// Prevents: two histories in one log.
#[test]
fn a_snapshot_of_another_epoch_is_refused() {
    run(async {
        let store = written(&disk()).await;
        let meta = crate::log::types::SnapshotMeta { last_log_id: Some(id(9, 99)), ..Default::default() };
        let other = SnapshotData { epoch: Some(beam_wire::Epoch(4)), course: Course::default() };
        let error = machine(&store).install_snapshot(&meta, other).await.unwrap_err().to_string();
        assert_eq!(error, "a snapshot of epoch 4 came to a log of epoch 3");
    });
}

//! A log that becomes the seed of a new epoch, and loses power at every single operation of its disk meanwhile.

use super::*;
use crate::log::begin::{CarriedOut, carry_out};
use crate::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
use crate::log::pending::{self, Pending, Refounding, SettingAside};
use beam_wire::ids::{Epoch, LogIndex};
use beam_wire::message::log::LogEnd;
use openraft::storage::RaftLogStorage;

const NEW_ID: u64 = 77;
const NEW_EPOCH: Epoch = Epoch(1234);

fn node() -> LogNode {
    LogNode { node: "log-va".parse().unwrap(), datacenter: "va".parse().unwrap() }
}

fn begin(disk: &SimDisk) -> Result<Option<CarriedOut>, StoreError> {
    carry_out(Arc::new(disk.clone()), &options(), &node(), |epoch, kept| format!("begin {epoch} {kept}").into())
}

/// A log of a few segments, part of which is known to be committed.
async fn log(disk: &SimDisk) -> LogEnd {
    let mut store = open(disk).await.unwrap();
    store.set_epoch(Epoch(1)).await.unwrap();
    store.save_vote(&vote(3)).await.unwrap();
    append(&mut store, [members(1, 0, &[7, 8, 9])]).await.unwrap();
    append(&mut store, (1..10).map(|i| data(3, i))).await.unwrap();
    store.save_committed(Some(id(3, 4))).await.unwrap();
    store.close().await.unwrap();
    LogEnd { raft_id: store.raft_id(), epoch: Some(Epoch(1)), term: Some(3), last: Some(LogIndex(9)) }
}

async fn is_refounded(disk: &SimDisk) {
    let store = open(disk).await.unwrap();
    let entries = all(&store).await;
    assert_eq!(indexes(&entries), (0..=11).collect::<Vec<_>>());
    assert_eq!(entries[1..10], (1..10).map(|i| data(3, i)).collect::<Vec<_>>(), "what was there stays as it was");
    let EntryPayload::Normal(LogCommand::Begin { epoch, kept, body, .. }) = &entries[10].payload else { panic!() };
    assert_eq!((*epoch, *kept, &body[..]), (NEW_EPOCH, LogIndex(9), &b"begin 1234 9"[..]));
    let EntryPayload::Membership(alone) = &entries[11].payload else { panic!() };
    assert_eq!(alone.voter_ids().collect::<Vec<_>>(), [NEW_ID]);
    assert_eq!((store.raft_id(), store.epoch()), (NEW_ID, Some(NEW_EPOCH)));
    assert_eq!(store.state().committed.map(|id| id.index), Some(11), "committed by decree");
    assert!(store.vote().unwrap().leader_id.term > 3 && entries[11].log_id.leader_id.term > 3);
    let began = store.machine().course.epochs.last().map(|began| (began.epoch, began.kept));
    assert_eq!(began, Some((NEW_EPOCH, LogIndex(9))));
    store.close().await.unwrap();
}

#[test]
fn power_may_fail_anywhere_while_an_epoch_begins() {
    let mut crashes = 0;
    for n in 1.. {
        let done = run(async {
            let disk = SimDisk::seeded(&Env::current(), n, SimDiskOptions::default());
            let seen = log(&disk).await;
            let order = Refounding { token: 5, seen, epoch: NEW_EPOCH, raft_id: NEW_ID };
            pending::write(&disk, &Pending::Refound(order)).unwrap();
            disk.crash_before(n);
            let first = begin(&disk);
            let done = first.is_ok();
            disk.crash(if n % 2 == 0 { Loss::Torn } else { Loss::Unsynced });
            match begin(&disk).unwrap() {
                Some(CarriedOut::Refounded { epoch, kept }) => assert_eq!((epoch, kept), (NEW_EPOCH, LogIndex(9))),
                None => {}
                other => panic!("crash {n}: {other:?}"),
            }
            is_refounded(&disk).await;
            assert_eq!(begin(&disk).unwrap(), None, "it is done once");
            done
        });
        if done {
            break;
        }
        crashes = n;
    }
    println!("{crashes} crashes");
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn power_may_fail_anywhere_while_a_log_is_set_aside() {
    let mut crashes = 0;
    for n in 1.. {
        let done = run(async {
            let disk = SimDisk::seeded(&Env::current(), n, SimDiskOptions::default());
            let seen = log(&disk).await;
            let before: Vec<_> = disk.list().unwrap();
            let order = SettingAside { token: 5, seen, epoch: NEW_EPOCH };
            pending::write(&disk, &Pending::SetAside(order)).unwrap();
            disk.crash_before(n);
            let done = begin(&disk).is_ok();
            // Renames are whole: a torn crash of this disk may leave a file without any name.
            disk.crash(Loss::Unsynced);
            begin(&disk).unwrap();
            let aside: Vec<_> = before.iter().map(|name| format!("aside-0000000000000005-{name}")).collect();
            assert_eq!(disk.list().unwrap(), aside, "crash {n}: all files are there, under another name");
            let store = open(&disk).await.unwrap();
            assert!(store.is_pristine());
            store.close().await.unwrap();
            done
        });
        if done {
            break;
        }
        crashes = n;
    }
    assert!(crashes > 5, "{crashes}");
}

#[test]
fn a_log_that_has_changed_since_is_left_alone() {
    run(async {
        for order in [true, false] {
            let disk = SimDisk::seeded(&Env::current(), 1, SimDiskOptions::default());
            let seen = LogEnd { last: Some(LogIndex(8)), ..log(&disk).await };
            let order = match order {
                true => Pending::Refound(Refounding { token: 5, seen, epoch: NEW_EPOCH, raft_id: NEW_ID }),
                false => Pending::SetAside(SettingAside { token: 5, seen, epoch: NEW_EPOCH }),
            };
            pending::write(&disk, &order).unwrap();
            let refused = begin(&disk).unwrap();
            assert!(matches!(&refused, Some(CarriedOut::Refused { why }) if why.contains("entry 9")), "{refused:?}");
            assert_eq!(begin(&disk).unwrap(), None, "the order is void");
            let store = open(&disk).await.unwrap();
            assert_eq!((store.epoch(), all(&store).await.len()), (Some(Epoch(1)), 10));
            store.close().await.unwrap();
        }
    });
}

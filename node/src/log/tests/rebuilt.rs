//! A log that has lost data is set aside, and its node is another one from then on.

use super::*;
use crate::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
use crate::log::meta::META;
use crate::log::rebuild::rebuild;
use crate::log::renewal::{self, Old, Renewal};

async fn disk() -> (SimDisk, u64) {
    let disk = SimDisk::new(&Env::current(), SimDiskOptions::default());
    let mut store = open(&disk).await.unwrap();
    for index in 0..10 {
        append(&mut store, [data(1, index)]).await.unwrap();
    }
    store.save_vote(&vote(3)).await.unwrap();
    let id = store.raft_id();
    store.close().await.unwrap();
    (disk, id)
}

fn is_old(name: &str) -> bool {
    name.starts_with("aside-")
}

/// Prevents: a node that lost data, and votes again under the id whose promises it has forgotten.
#[test]
fn a_rebuilt_node_is_empty_and_another_one() {
    run(async {
        let (disk, raft_id) = disk().await;
        let before = disk.list().unwrap();
        let rebuilt = rebuild(&disk, false).unwrap();
        let old = Old { raft_id: Some(raft_id), cluster: Some("test".parse().unwrap()) };
        assert_eq!(rebuilt.old, old);
        assert_eq!(rebuilt.set_aside, before.iter().map(|name| format!("aside-rebuilt-1-{name}")).collect::<Vec<_>>());
        assert_eq!(renewal::read(&disk).unwrap(), Some(Renewal::Rejoin(old.clone())));
        // Once more does no harm.
        assert_eq!(rebuild(&disk, false).unwrap().old, old);
        disk.crash(Loss::Unsynced);
        let store = open(&disk).await.unwrap();
        assert_ne!(store.raft_id(), raft_id);
        assert!(store.is_pristine());
        store.close().await.unwrap();
        // What it is now may be damaged in its turn.
        let rebuilt = rebuild(&disk, true).unwrap();
        assert_eq!((rebuilt.old.raft_id, rebuilt.set_aside.len()), (Some(store.raft_id()), 0));
        assert!(disk.list().unwrap().iter().all(|name| is_old(name) || name == "renewal"));
    });
}

/// Prevents: damage that cannot be set aside because it is damage.
#[test]
fn a_node_is_rebuilt_whatever_is_damaged() {
    run(async {
        for at in [0, 100, 5000, 9000] {
            let (disk, _) = disk().await;
            disk.rot(META, at).unwrap();
            rebuild(&disk, false).unwrap();
            assert!(open(&disk).await.unwrap().is_pristine());
        }
        let (disk, _) = disk().await;
        disk.remove(META).unwrap();
        assert!(matches!(open(&disk).await, Err(StoreError::NoMeta { .. })));
        assert_eq!(rebuild(&disk, true).unwrap().old, Old::default());
        assert!(open(&disk).await.unwrap().is_pristine());
        let empty = SimDisk::new(&Env::current(), SimDiskOptions::default());
        assert!(matches!(rebuild(&empty, false), Err(StoreError::NoLog)));
    });
}

/// Prevents: a crash on the way, after which some of the old files are taken for a whole log, or the node does
/// not know any more that it is to join anew.
#[test]
fn a_crash_at_any_operation_of_rebuilding_leaves_the_old_log_or_none() {
    run(async {
        for loss in [Loss::Unsynced, Loss::Torn, Loss::Nothing] {
            let mut n = 1;
            loop {
                let (disk, raft_id) = disk().await;
                disk.crash_before(n);
                let done = rebuild(&disk, n % 2 == 0).is_ok();
                if disk.is_on() {
                    assert!(done);
                    break;
                }
                disk.crash(loss);
                match open(&disk).await {
                    Ok(store) if store.raft_id() == raft_id => assert_eq!(all(&store).await.len(), 10),
                    Ok(store) => {
                        assert!(store.is_pristine());
                        assert!(matches!(renewal::read(&disk).unwrap(), Some(Renewal::Rejoin(_))));
                    }
                    Err(StoreError::HalfRebuilt) => {
                        rebuild(&disk, false).unwrap();
                        assert!(open(&disk).await.unwrap().is_pristine());
                        assert_eq!(
                            renewal::read(&disk).unwrap(),
                            Some(Renewal::Rejoin(Old {
                                raft_id: Some(raft_id),
                                cluster: Some("test".parse().unwrap())
                            }))
                        );
                    }
                    Err(e) => panic!("operation {n}, {loss:?}: {e}"),
                }
                n += 1;
            }
            assert!(n > 10);
        }
    });
}

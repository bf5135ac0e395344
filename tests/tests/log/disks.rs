//! Disks that fill up, fail, or rot.

use super::cluster::Cluster;
use super::{disk, ms, wan};
use beam_node::log::disk_sim::Loss;
use beam_node::log::rebuild::rebuild;
use beam_wire::env::sim::SimWorld;
use beam_wire::error::Retry;
use beam_wire::{Code, LogIndex};
use bytes::Bytes;

const RESERVE: u64 = 8 << 20;

/// A story in which all log nodes run, and keep some room free.
fn story<F: Future>(seed: u64, tell: impl FnOnce(Cluster) -> F) -> F::Output {
    SimWorld::run(seed, |world| async move {
        let mut cluster = Cluster::new(&world, disk(), wan());
        cluster.options.store.reserve_bytes = RESERVE;
        cluster.start_all().await;
        tell(cluster).await
    })
}

/// Somebody else fills a machine's disk, up to so many bytes.
fn leave(cluster: &Cluster, host: &str, bytes: u64) {
    let disk = &cluster.machines[host].disk;
    disk.set_capacity(Some(disk.used() + bytes));
}

fn make_room(cluster: &Cluster, host: &str) {
    cluster.machines[host].disk.set_capacity(None);
}

fn bodies(name: &str, count: usize) -> Vec<Bytes> {
    (0..count).map(|i| Bytes::from(format!("{name} {i}"))).collect()
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_and_nobody_notices() {
    story(60, async |mut cluster| {
        let clients = ["va", "or", "ie"].map(|dc| cluster.client(dc));
        clients[0].append(bodies("before", 10), cluster.soon(10)).await.unwrap();
        let leader = cluster.wait_for_leader().await;
        leave(&cluster, &leader, RESERVE / 2);
        cluster.wait(|c| c.leader().filter(|now| *now != leader)).await;
        let mut last = LogIndex(0);
        for client in &clients {
            last = client.append(bodies("after", 10), cluster.soon(10)).await.unwrap()[9].index;
        }
        // What is replicated is still written there.
        cluster.wait(|c| c.info(&leader).filter(|info| info.committed >= Some(last))).await;
        let own = cluster.client(leader.strip_prefix("log-").unwrap());
        assert_eq!(cluster.read_all(&own, last.next()).await.len(), 1 + 10 + 30);
    });
}

#[test]
fn appends_are_refused_while_the_disks_of_a_majority_are_full_and_reads_go_on() {
    story(61, async |mut cluster| {
        let client = cluster.client("or");
        let before = client.append(bodies("before", 10), cluster.soon(10)).await.unwrap()[9];
        let mut reader = client.read(None, LogIndex(0), true);
        for host in ["log-va", "log-or", "log-ie"] {
            leave(&cluster, host, RESERVE / 2);
        }
        cluster.env.sleep(ms(3000)).await;
        for dc in ["va", "or", "ie"] {
            let client = cluster.client(dc);
            let refused = client.append(vec!["no".into()], cluster.soon(4)).await.unwrap_err();
            assert_eq!(refused.code, Code::Storage, "{refused:?}");
            assert!(matches!(refused.retry, Retry::Later { .. }), "{refused:?}");
            for host in ["log-va", "log-or", "log-ie"] {
                assert!(refused.message.contains(host), "{refused}");
            }
            assert_eq!(cluster.read_all(&client, before.index.next()).await.len(), 11);
        }
        // One well disk more is a majority without two full ones.
        make_room(&cluster, "log-va");
        make_room(&cluster, "log-or");
        let after = client.append(bodies("after", 3), cluster.soon(10)).await.unwrap()[2];
        while reader.position() <= after.index {
            cluster.env.timeout(ms(10_000), reader.next()).await.expect("it goes on").unwrap();
        }
    });
}

#[test]
fn a_discard_is_taken_while_all_disks_are_full_and_makes_room() {
    SimWorld::run(62, |world| async move {
        let mut cluster = Cluster::new(&world, disk(), wan());
        cluster.options.store.reserve_bytes = RESERVE;
        cluster.options.store.segment_bytes = 1 << 20;
        cluster.start_all().await;
        let client = cluster.client("va");
        let large = || vec![Bytes::from(vec![7; 512 << 10]); 20];
        let before = client.append(large(), cluster.soon(20)).await.unwrap()[19];
        let hosts = ["log-va", "log-or", "log-ie"];
        // What a member is still being sent is not discarded.
        for host in hosts {
            cluster.wait(|c| c.info(host).filter(|info| info.committed >= Some(before.index))).await;
        }
        cluster.env.sleep(ms(3000)).await;
        for host in hosts {
            leave(&cluster, host, RESERVE / 2);
        }
        cluster.env.sleep(ms(3000)).await;
        assert!(client.append(vec!["no".into()], cluster.soon(3)).await.is_err());
        client.discard(before.epoch, before.index, cluster.soon(10)).await.unwrap();
        client.append(vec!["yes".into()], cluster.soon(10)).await.unwrap();
    });
}

#[test]
fn a_follower_without_room_waits_and_catches_up_by_itself() {
    story(63, async |mut cluster| {
        let client = cluster.client("va");
        client.append(bodies("before", 10), cluster.soon(10)).await.unwrap();
        let leader = cluster.wait_for_leader().await;
        let follower = ["log-va", "log-or", "log-ie"].into_iter().find(|host| *host != leader).unwrap();
        leave(&cluster, follower, RESERVE / 8);
        cluster.env.sleep(ms(2000)).await;
        let used = cluster.machines[follower].disk.used();
        let mut last = LogIndex(0);
        for round in 0..5 {
            last = client.append(bodies(&format!("round {round}"), 100), cluster.soon(10)).await.unwrap()[99].index;
        }
        cluster.env.sleep(ms(5000)).await;
        assert_eq!(cluster.machines[follower].disk.used(), used, "nothing is written there");
        make_room(&cluster, follower);
        cluster.wait(|c| c.info(follower).filter(|info| info.committed >= Some(last))).await;
        cluster.kill(follower, Loss::Unsynced);
        cluster.start(follower).await;
        cluster.wait(|c| c.info(follower).filter(|info| info.committed >= Some(last))).await;
        let own = cluster.client(follower.strip_prefix("log-").unwrap());
        assert_eq!(cluster.read_all(&own, last.next()).await.len(), 1 + 10 + 500);
    });
}

#[test]
fn a_node_whose_disk_fails_to_sync_stops_and_names_the_file_and_the_others_go_on() {
    story(64, async |mut cluster| {
        let client = cluster.client("or");
        client.append(bodies("before", 10), cluster.soon(10)).await.unwrap();
        let leader = cluster.wait_for_leader().await;
        cluster.machines[&leader].disk.fail_syncs(true);
        let ending = cluster.world.env(&leader);
        let appending = client.append(bodies("during", 20), cluster.soon(20));
        let (ended, versions) = futures::join!(ending.tasks().ended(), appending);
        assert_eq!(ended.name, "log.writer");
        assert!(ended.why.contains("segment-000000000000: "), "{}", ended.why);
        assert!(ended.why.contains("the disk did not keep what was written"), "{}", ended.why);
        // What the node was told to stop for, it does: nothing of it stays.
        cluster.kill(&leader, Loss::Unsynced);
        let last = versions.unwrap()[19].index;
        cluster.wait(|c| c.leader().filter(|now| *now != leader)).await;
        client.append(bodies("after", 5), cluster.soon(10)).await.unwrap();
        cluster.machines[&leader].disk.fail_syncs(false);
        cluster.start(&leader).await;
        cluster.wait(|c| c.info(&leader).filter(|info| info.committed >= Some(last))).await;
        let own = cluster.client(leader.strip_prefix("log-").unwrap());
        let all = cluster.read_all(&own, last.next()).await;
        let mut during: Vec<_> = all.values().filter(|body| body.starts_with(b"during")).collect();
        during.dedup();
        assert_eq!(during.len(), 20);
    });
}

/// A segment rots, a reader finds it, and the node stops. One command on its machine, and it is a voter again:
/// under another id, since its promises went with its data, and with the same entries.
#[test]
fn a_node_whose_log_has_rotted_stops_and_is_rebuilt_from_the_others() {
    SimWorld::run(65, |world| async move {
        let mut cluster = Cluster::new(&world, disk(), wan());
        cluster.options.store.segment_bytes = 512 << 10;
        cluster.options.store.cache_bytes = 256 << 10;
        cluster.start_all().await;
        let client = cluster.client("or");
        let large = |i: u64| Bytes::from([format!("the entry {i:08}").as_bytes(), &[7; 64 << 10]].concat());
        let versions = client.append((0..40).map(large).collect(), cluster.soon(60)).await.unwrap();
        let last = versions[39].index;
        cluster.wait(|c| c.info("log-ie").filter(|info| info.committed >= Some(last))).await;
        let before = cluster.info("log-ie").unwrap().raft_id;
        let rotting = cluster.machines["log-ie"].disk.clone();
        let file = "segment-000000000000";
        let bytes = rotting.bytes(file).unwrap();
        let marks = bytes.windows(18).enumerate().filter(|(_, w)| *w == b"the entry 00000001");
        let places: Vec<u64> = marks.map(|(at, _)| at as u64).collect();
        assert!(!places.is_empty(), "the entry lies there");
        // Pages that are no longer used may hold it too.
        places.into_iter().for_each(|at| rotting.rot(file, at).unwrap());
        // A reader beside it is served by the others when it comes there.
        let beside = cluster.client("ie");
        // It knows where the log nodes are.
        cluster.env.sleep(ms(2000)).await;
        let ending = cluster.world.env("log-ie");
        let ending = ending.tasks();
        let (ended, all) = futures::join!(cluster.env.timeout(ms(20_000), ending.ended()), async {
            cluster.env.timeout(ms(20_000), cluster.read_all(&beside, last.next())).await
        });
        let (ended, all) = (ended.expect("the node stops"), all.expect("others have it"));
        assert!(versions.iter().zip(0..).all(|(version, i)| all[&version.index] == large(i)));
        assert!(ended.why.contains(&format!("{file}: ")) && ended.why.contains("beam log rebuild"), "{}", ended.why);
        cluster.kill("log-ie", Loss::Unsynced);
        let rebuilt = rebuild(&rotting, true).unwrap();
        assert_eq!(rebuilt.old.raft_id, Some(before));
        cluster.start("log-ie").await;
        let leader = cluster.wait_for_leader().await;
        let info = cluster
            .wait(|c| {
                let (own, led) = (c.info("log-ie")?, c.info(&leader)?);
                let votes = led.members.iter().any(|m| m.raft_id == own.raft_id && m.voter);
                (votes && own.committed >= Some(last) && !c.machines["log-ie"].has_renewal()).then_some(led)
            })
            .await;
        assert!(info.members.iter().all(|m| m.raft_id != before), "{info:?}");
        let own = cluster.client("ie");
        let all = cluster.read_all(&own, last.next()).await;
        assert!(versions.iter().zip(0..).all(|(version, i)| all[&version.index] == large(i)));
        client.append(vec!["after".into()], cluster.soon(10)).await.unwrap();
    });
}

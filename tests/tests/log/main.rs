//! The log, as its clients meet it: three datacenters in a simulated world, their faults included.

mod chaos;
mod cluster;
mod disks;
mod faults;
mod members;
mod readers;
mod recover;
mod transfer;

use beam_node::log::disk_sim::SimDiskOptions;
use beam_wire::env::sim::{Link, SimWorld, Trace};
use beam_wire::error::Retry;
use beam_wire::{Code, LogIndex, Version};
use bytes::Bytes;
use cluster::{Cluster, FIRST_ENTRY};
use std::collections::BTreeMap;
use std::time::Duration;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn disk() -> SimDiskOptions {
    SimDiskOptions { sync: ms(1), ..SimDiskOptions::default() }
}

fn wan() -> Link {
    Link { jitter: ms(1), ..Link::default() }
}

/// A story in which all log nodes run.
fn story<F: Future>(seed: u64, tell: impl FnOnce(Cluster) -> F) -> F::Output {
    SimWorld::run(seed, |world| async move {
        let mut cluster = Cluster::new(&world, disk(), wan());
        cluster.start_all().await;
        tell(cluster).await
    })
}

async fn append_everywhere_read_everywhere(mut cluster: Cluster) {
    let clients = ["va", "or", "ie"].map(|dc| cluster.client(dc));
    let mut expected = BTreeMap::new();
    for (n, client) in clients.iter().enumerate() {
        let bodies: Vec<Bytes> = (0..500).map(|i| Bytes::from(format!("{n}.{i}"))).collect();
        let versions = client.append(bodies.clone(), cluster.soon(10)).await.unwrap();
        assert!(versions.is_sorted(), "they are appended in order");
        expected.extend(versions.into_iter().map(|v| v.index).zip(bodies));
    }
    assert_eq!(expected.len(), 1500, "each has an index of its own");
    for client in &clients {
        let tail = client.tail(true, cluster.soon(10)).await.unwrap();
        assert!(tail.index >= *expected.keys().last().unwrap());
        let mut seen = cluster.read_all(client, tail.index.next()).await;
        assert_eq!(seen.pop_first().unwrap().1, FIRST_ENTRY);
        assert_eq!(seen, expected);
    }
}

#[test]
fn what_is_appended_anywhere_is_read_everywhere() {
    story(1, append_everywhere_read_everywhere);
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let run = |seed| -> Trace {
        SimWorld::run(seed, |world| async move {
            let mut cluster = Cluster::new(&world, disk(), Link { loss: 0.01, ..wan() });
            cluster.start_all().await;
            append_everywhere_read_everywhere(cluster).await;
            world.net().trace()
        })
    };
    let first = run(5);
    assert_eq!(first, run(5));
    assert_ne!(first, run(6), "the trace depends on the seed");
}

#[test]
fn a_reader_that_follows_sees_what_is_appended_later() {
    story(2, async |mut cluster| {
        let (writer, follower) = (cluster.client("va"), cluster.client("ie"));
        writer.append(vec!["before".into()], cluster.soon(10)).await.unwrap();
        let mut reader = follower.read(None, LogIndex(0), true);
        let appending = async {
            cluster.env.sleep(ms(3000)).await;
            writer.append(vec!["later".into()], cluster.soon(10)).await.unwrap()[0].index
        };
        let reading = async {
            let mut last = None;
            loop {
                let entries = reader.next().await.unwrap().unwrap();
                for entry in entries.entries {
                    if let beam_wire::message::log::Entry::Data { body, .. } = entry {
                        last = Some(body);
                    }
                }
                if last.as_ref().is_some_and(|body| body == "later") {
                    return LogIndex(reader.position().0 - 1);
                }
            }
        };
        let (appended, read) = futures::future::join(appending, reading).await;
        assert_eq!(appended, read);
        // Not following, it ends at what is committed.
        let mut reader = follower.read(None, LogIndex(0), false);
        while let Some(entries) = reader.next().await.unwrap() {
            assert!(entries.committed >= read);
        }
        assert!(reader.position() > read);
    });
}

#[test]
fn an_entry_names_the_log_node_that_took_it() {
    story(8, async |mut cluster| {
        for dc in ["va", "or", "ie"] {
            let client = cluster.client(dc);
            let index = client.append(vec!["x".into()], cluster.soon(10)).await.unwrap()[0].index;
            let entries = client.read(None, index, true).next().await.unwrap().unwrap();
            let beam_wire::message::log::Entry::Data { origin, .. } = &entries.entries[0] else { panic!("no data") };
            assert_eq!(origin.node.as_str(), format!("log-{dc}"));
        }
    });
}

#[test]
fn an_appender_has_many_on_their_way() {
    story(3, async |mut cluster| {
        let client = cluster.client("or");
        client.tail(true, cluster.soon(10)).await.unwrap();
        let appender = client.appender();
        appender.append("warm".into(), cluster.soon(10)).await.unwrap();
        let began = cluster.env.now();
        let appends = (0..2000u32).map(|i| appender.append(i.to_le_bytes().to_vec().into(), cluster.soon(10)));
        let versions = futures::future::join_all(appends).await;
        let indexes: std::collections::BTreeSet<LogIndex> = versions.into_iter().map(|v| v.unwrap().index).collect();
        assert_eq!(indexes.len(), 2000, "each has an index of its own");
        // One after the other they would take two minutes.
        assert!(cluster.env.now() - began < ms(1000), "it took {:?}", cluster.env.now() - began);
    });
}

#[test]
fn a_discard_lets_entries_go_on_every_node() {
    story(4, async |mut cluster| {
        // Small segments, so that there are whole ones to drop.
        for host in ["log-va", "log-or", "log-ie"] {
            cluster.kill(host, beam_node::log::disk_sim::Loss::Nothing);
        }
        cluster.options.store.segment_bytes = 4096;
        cluster.start_all().await;
        let client = cluster.client("va");
        let bodies = vec![Bytes::from(vec![1; 512]); 64];
        let versions = client.append(bodies, cluster.soon(10)).await.unwrap();
        let Version { epoch, index: last } = *versions.last().unwrap();
        let beyond = client.discard(epoch, LogIndex(last.0 + 1000), cluster.soon(2)).await.unwrap_err();
        assert_eq!(beyond.code, Code::Ahead);
        client.discard(epoch, last, cluster.soon(10)).await.unwrap();
        let all_gone = |c: &Cluster| c.machines.keys().all(|host| c.info(host).unwrap().first == last).then_some(());
        cluster.wait(all_gone).await;
        let error = client.read(None, LogIndex(1), true).next().await.unwrap_err();
        assert_eq!((error.code, &error.retry), (Code::Discarded, &Retry::Never));
        assert!(error.message.contains(&format!("begins at {last}")), "{error}");
        // A node that was away meanwhile, and one that restarts, know it too.
        cluster.kill("log-or", beam_node::log::disk_sim::Loss::Unsynced);
        cluster.start("log-or").await;
        let or = cluster.client("or");
        let error = or.read(None, LogIndex(0), true).next().await.unwrap_err();
        assert_eq!(error.code, Code::Discarded);
        let entries = or.read(None, last, true).next().await.unwrap().unwrap();
        assert_eq!(entries.first, last);
    });
}

#[test]
fn calls_of_another_epoch_are_refused() {
    story(6, async |mut cluster| {
        let client = cluster.client("va");
        client.append(vec!["x".into()], cluster.soon(10)).await.unwrap();
        let other = beam_wire::Epoch(2);
        // Whoever knows of a newer epoch has met nodes that were left behind, and waits for others.
        let mut reader = client.read(Some(other), LogIndex(0), true);
        assert!(cluster.env.timeout(ms(3000), reader.next()).await.is_err());
        assert_eq!(reader.trouble().unwrap().code, Code::WrongEpoch);
        let error = client.read(Some(beam_wire::Epoch(0)), LogIndex(0), true).next().await.unwrap_err();
        assert_eq!(error.code, Code::WrongEpoch);
        let error = client.discard(beam_wire::Epoch(0), LogIndex(0), cluster.soon(2)).await.unwrap_err();
        assert_eq!(error.code, Code::WrongEpoch);
    });
}

#[test]
fn an_append_takes_its_round_trips_and_no_more() {
    story(7, async |mut cluster| {
        let clients = ["va", "or", "ie"].map(|dc| (dc, cluster.client(dc)));
        for (_, client) in &clients {
            client.append(vec!["warm".into()], cluster.soon(10)).await.unwrap();
        }
        let leader = cluster.wait_for_leader().await;
        // To the leader and back, and from the leader to its nearest follower and back.
        let [va, or, ie] = match leader.as_str() {
            "log-va" => [60, 120, 136],
            "log-or" => [120, 60, 190],
            _ => [152, 206, 76],
        };
        for ((dc, client), expected) in clients.iter().zip([va, or, ie]) {
            let appender = client.appender();
            appender.append("warm".into(), cluster.soon(10)).await.unwrap();
            let began = cluster.env.now();
            for _ in 0..20 {
                appender.append("x".into(), cluster.soon(10)).await.unwrap();
            }
            let mean = (cluster.env.now() - began) / 20;
            println!("{dc}, {leader} leads: an append takes {mean:?}, round trips take {expected} ms");
            assert!(mean < ms(expected + 12), "{dc}: {mean:?} for {expected} ms of round trips");
            let began = cluster.env.now();
            for _ in 0..20 {
                client.tail(true, cluster.soon(10)).await.unwrap();
            }
            println!("{dc}, {leader} leads: a linearizable tail takes {:?}", (cluster.env.now() - began) / 20);
        }
    });
}

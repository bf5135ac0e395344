//! Readers that follow the log through all trouble, and callers that ask where it ends: what they see is
//! held against what was acknowledged, and against the log at the end.

use super::cluster::{Cluster, FIRST_ENTRY};
use super::{disk, ms, story, wan};
use beam_node::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
use beam_node::remote::log::RemoteLog;
use beam_wire::LogIndex;
use beam_wire::env::sim::SimWorld;
use beam_wire::env::{Env, Task};
use beam_wire::message::log::{Entries, Entry};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// One reader, and what it has seen so far.
pub struct Witness {
    datacenter: &'static str,
    seen: Arc<Mutex<Seen>>,
    _task: Task,
}

/// Bodies by index; none for skips.
#[derive(Default)]
struct Seen {
    entries: BTreeMap<LogIndex, Option<Bytes>>,
    wrong: Option<String>,
}

impl Witness {
    /// Follows the log from its first entry on, wherever a log node answers.
    pub fn follow(cluster: &mut Cluster, datacenter: &'static str) -> Self {
        let client = cluster.client(datacenter);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let witnessed = seen.clone();
        let task = cluster.env.tasks().serve("witness", async move {
            let mut reader = client.read(None, LogIndex(0), true);
            loop {
                match reader.next().await {
                    Ok(Some(entries)) => witnessed.lock().unwrap().add(entries),
                    ended => {
                        witnessed.lock().unwrap().wrong = Some(format!("it ended with {ended:?}"));
                        return;
                    }
                }
            }
        });
        Self { datacenter, seen, _task: task }
    }

    /// How many entries it has seen.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().entries.len()
    }

    /// What is wrong with what it has seen, given the data that lies in the log at the end.
    pub fn contradicts(&self, log: &BTreeMap<LogIndex, Bytes>, below: LogIndex) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        let datacenter = self.datacenter;
        if let Some(wrong) = &seen.wrong {
            return Some(format!("the reader in {datacenter}: {wrong}"));
        }
        let differs = seen.entries.range(..below).find(|(index, body)| body.as_ref() != log.get(index));
        differs.map(|(index, body)| {
            format!("the reader in {datacenter} saw {body:?} at {index}, where {:?} lies", log.get(index))
        })
    }
}

impl Seen {
    fn add(&mut self, entries: Entries) {
        let expected = self.entries.last_key_value().map_or(LogIndex(0), |(last, _)| last.next());
        if entries.first != expected {
            self.wrong = Some(format!("{} came, but {expected} was next", entries.first));
        }
        for (index, entry) in (entries.first.0..).zip(entries.entries) {
            if index > entries.committed.0 {
                self.wrong = Some(format!("{index} came, but only {} was committed", entries.committed));
            }
            let body = match entry {
                Entry::Skip => None,
                Entry::Data { body, .. } => Some(body),
            };
            self.entries.insert(LogIndex(index), body);
        }
    }
}

/// Asks for the linearizable tail over and over. `acknowledged` is the newest index that anybody was
/// answered with: a tail below what it was when the call began is wrong.
pub fn watch_tails(
    env: &Env,
    client: RemoteLog,
    acknowledged: impl Fn() -> LogIndex + Send + 'static,
    tell: impl Fn(String) + Send + 'static,
) -> Task {
    let asking = env.clone();
    env.tasks().serve("tails", async move {
        loop {
            let least = acknowledged();
            if let Ok(tail) = client.tail(true, asking.now() + ms(5000)).await
                && tail.index < least
            {
                tell(format!("{least} was acknowledged, then a linearizable tail was {}", tail.index));
            }
            asking.sleep(ms(asking.random_below(200) as u64)).await;
        }
    })
}

/// An entry that a follower has passed on may be lost with its power: it was committed, so it is on the disks
/// of the others. The reader must not be given anything else in its place.
#[test]
fn a_reader_goes_on_where_it_was_at_a_node_that_came_back_with_a_shorter_log() {
    SimWorld::run(31, |world| async move {
        let mut cluster = Cluster::new(&world, disk(), wan());
        let slow = SimDiskOptions { sync: ms(2000), ..disk() };
        cluster.machines.get_mut("log-or").unwrap().disk = SimDisk::new(&cluster.env.child("a slow disk"), slow);
        cluster.start_all().await;
        let (va, or) = (cluster.client("va"), cluster.client("or"));
        va.append(vec!["before".into()], cluster.soon(30)).await.unwrap();
        cluster.wait(|c| (c.leader()? != "log-or").then_some(())).await;
        cluster.env.sleep(ms(10_000)).await;

        let versions = va.append((0..10u8).map(|n| Bytes::from(vec![n])).collect(), cluster.soon(10)).await.unwrap();
        let last = versions.last().unwrap().index;
        let seen = cluster.read_all(&or, last.next()).await;
        assert_eq!(seen.last_key_value().unwrap(), (&last, &Bytes::from_static(&[9])));
        cluster.kill("log-or", Loss::Unsynced);
        cluster.cut_off("or");
        cluster.start("log-or").await;
        let shorter = cluster.info("log-or").unwrap().last;
        assert!(shorter < Some(last), "it lost nothing: {shorter:?}, {last}");

        // Alone it has no more to say, and says how far it is.
        let mut reader = or.read(None, last.next(), true);
        let told = cluster.env.timeout_at(cluster.soon(20), reader.next()).await.unwrap().unwrap().unwrap();
        assert!(told.entries.is_empty() && told.committed < last.next(), "{told:?}");
        let mut prefix = seen;
        prefix.retain(|index, _| *index <= told.committed);
        assert_eq!(cluster.read_prefix(&or).await, prefix);
        cluster.world.net().heal();
        let after = va.append(vec!["after".into()], cluster.soon(10)).await.unwrap()[0].index;
        while reader.position() <= after {
            let entries = cluster.env.timeout_at(cluster.soon(60), reader.next()).await.unwrap().unwrap().unwrap();
            let data = (entries.first.0..).zip(entries.entries).find(|(index, _)| LogIndex(*index) == after);
            if let Some((_, entry)) = data {
                assert!(matches!(entry, Entry::Data { body, .. } if body == "after"));
            }
        }
    });
}

/// Every index is defined: what Raft and the log write for themselves are skips.
#[test]
fn elections_and_discards_leave_skips_and_no_holes() {
    story(32, async |mut cluster| {
        let client = cluster.client("ie");
        let witnesses = ["va", "or", "ie"].map(|dc| Witness::follow(&mut cluster, dc));
        let mut acknowledged = BTreeMap::new();
        for round in 0..3u8 {
            let body = Bytes::from(vec![round]);
            let version = client.append(vec![body.clone()], cluster.soon(20)).await.unwrap()[0];
            acknowledged.insert(version.index, body);
            client.discard(version.epoch, LogIndex(0), cluster.soon(20)).await.unwrap();
            let leader = cluster.wait_for_leader().await;
            cluster.kill(&leader, Loss::Unsynced);
            let next = client.append(vec!["between".into()], cluster.soon(20)).await.unwrap()[0];
            acknowledged.insert(next.index, "between".into());
            cluster.start(&leader).await;
        }
        let last = client.append(vec!["last".into()], cluster.soon(20)).await.unwrap()[0].index;
        cluster.wait(|_| witnesses.iter().all(|w| w.count() as u64 > last.0).then_some(())).await;
        let log = cluster.read_all(&client, last).await;
        assert!(acknowledged.iter().all(|(index, body)| log.get(index) == Some(body)));
        assert_eq!(log.values().filter(|body| *body == FIRST_ENTRY).count(), 1);
        let skips = last.0 as usize - log.len();
        assert!(skips >= 3 + 3, "three elections and three discards leave a skip each, not {skips}");
        for witness in &witnesses {
            assert_eq!(witness.contradicts(&log, last), None);
        }
    });
}

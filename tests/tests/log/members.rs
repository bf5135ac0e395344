//! Members come and go, datacenters are drained, and leadership moves, while clients append.

use super::cluster::{Cluster, name};
use super::{disk, ms, story, wan};
use beam_node::log::disk_sim::Loss;
use beam_node::remote::log::RemoteLog;
use beam_wire::env::Task;
use beam_wire::env::sim::{Link, SimWorld};
use beam_wire::message::log::{Apply, Change, Member, MemberName, Plan};
use beam_wire::{CallError, Code, LogIndex, Version};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub fn add(node: &str, datacenter: &str) -> Change {
    Change::Add { node: name(node), datacenter: name(datacenter) }
}

pub fn promote(nodes: &[&str]) -> Change {
    Change::Promote { nodes: nodes.iter().map(|node| name(node)).collect() }
}

pub fn remove(nodes: &[&str]) -> Change {
    Change::Remove { members: nodes.iter().map(|node| MemberName { node: name(node), raft_id: None }).collect() }
}

pub fn replace(node: &str) -> Change {
    Change::Replace { node: name(node) }
}

fn drain(datacenter: &str) -> Change {
    Change::Drain { datacenter: name(datacenter) }
}

/// What a change would do.
async fn plan(cluster: &Cluster, operator: &RemoteLog, change: &Change) -> Plan {
    operator.change(change, None, cluster.soon(20)).await.unwrap().plan
}

/// Does what the plan says, and waits until all of it is done, as `beam log` does.
pub async fn apply(
    cluster: &Cluster,
    operator: &RemoteLog,
    change: &Change,
    force: bool,
) -> Result<Version, CallError> {
    let until = cluster.soon(60);
    let mut plan = operator.change(change, None, until).await?.plan;
    loop {
        let reply = match operator.change(change, Some(Apply { seen: plan.at, force }), until).await {
            // An earlier change was just being ended.
            Err(e) if e.code == Code::Conflict => {
                plan = operator.change(change, None, until).await?.plan;
                continue;
            }
            reply => reply?,
        };
        if let Some(done) = reply.done {
            return Ok(done);
        }
        assert!(cluster.env.now() < until, "it waits still: {:?}", reply.plan.waits);
        plan = reply.plan;
    }
}

async fn does(cluster: &Cluster, operator: &RemoteLog, change: &Change) -> Version {
    apply(cluster, operator, change, false).await.unwrap()
}

/// Appends from every datacenter without end, and what was acknowledged.
struct Load {
    acknowledged: Arc<Mutex<BTreeMap<LogIndex, Bytes>>>,
    writers: Vec<Task>,
}

impl Load {
    fn start(cluster: &mut Cluster) -> Self {
        let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
        let writers = ["va", "or", "ie"].map(|dc| {
            let (client, acknowledged, env) = (cluster.client(dc), acknowledged.clone(), cluster.env.clone());
            cluster.env.tasks().serve("writer", async move {
                let appender = client.appender();
                for n in 0u64.. {
                    let body = Bytes::from(format!("{dc}.{n}"));
                    if let Ok(version) = appender.append(body.clone(), env.now() + ms(8000)).await {
                        let before = acknowledged.lock().unwrap().insert(version.index, body);
                        assert_eq!(before, None, "two bodies at {}", version.index);
                    }
                    env.sleep(ms(20)).await;
                }
            })
        });
        Self { acknowledged, writers: writers.into() }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more were acknowledged.
    async fn goes_on(&self, cluster: &Cluster) {
        let enough = self.count() + 10;
        cluster.wait(|_| (self.count() >= enough).then_some(())).await;
    }

    /// Ends it, and finds everything that was acknowledged on these nodes.
    async fn all_is_there(self, cluster: &mut Cluster, hosts: &[&str]) {
        drop(self.writers);
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        let last = *acknowledged.keys().last().unwrap();
        let client = cluster.client("va");
        for host in hosts {
            cluster.wait(|c| (c.info(host).unwrap().committed >= Some(last)).then_some(())).await;
            let log = cluster.read_at(&client, host, last.next()).await;
            for (index, body) in &acknowledged {
                assert_eq!(log.get(index), Some(body), "{host} at {index}");
            }
        }
    }
}

/// The voters and learners by name, as the leader sees them.
fn members(cluster: &Cluster) -> Option<(Vec<String>, Vec<String>)> {
    let info = cluster.info(&cluster.leader()?)?;
    let named = |voter: bool| {
        let mut names: Vec<_> =
            info.members.iter().filter(|m| m.voter == voter).map(|m: &Member| m.node.to_string()).collect();
        names.sort();
        names
    };
    Some((named(true), named(false)))
}

fn voters(cluster: &Cluster) -> Vec<String> {
    members(cluster).map(|(voters, _)| voters).unwrap_or_default()
}

const TO_FIVE: [(&str, &str); 2] = [("log-va-2", "va"), ("log-or-2", "or")];
const TO_NINE: [(&str, &str); 4] = [("log-va-3", "va"), ("log-or-3", "or"), ("log-ie-2", "ie"), ("log-ie-3", "ie")];

async fn grow(cluster: &mut Cluster, operator: &RemoteLog, by: &[(&str, &str)]) {
    for (host, datacenter) in by {
        cluster.add(host, datacenter);
        cluster.start(host).await;
    }
    // Until DNS has told everybody.
    cluster.env.sleep(ms(8000)).await;
    for (host, datacenter) in by {
        does(cluster, operator, &add(host, datacenter)).await;
    }
    let hosts: Vec<&str> = by.iter().map(|(host, _)| *host).collect();
    does(cluster, operator, &promote(&hosts)).await;
}

#[test]
fn a_cluster_grows_to_nine_and_shrinks_to_three_under_load() {
    story(200, async |mut cluster| {
        let operator = cluster.operator("va");
        let load = Load::start(&mut cluster);
        load.goes_on(&cluster).await;
        grow(&mut cluster, &operator, &TO_FIVE).await;
        assert_eq!(voters(&cluster), ["log-ie", "log-or", "log-or-2", "log-va", "log-va-2"]);
        load.goes_on(&cluster).await;
        grow(&mut cluster, &operator, &TO_NINE).await;
        assert_eq!(voters(&cluster).len(), 9);
        load.goes_on(&cluster).await;
        // Any one datacenter may be lost now, and one node more.
        let leader = cluster.wait_for_leader().await;
        let lost = cluster.machines[&leader].node.datacenter.clone();
        cluster.cut_off(lost.as_str());
        let other = cluster.machines.values().find(|m| m.node.datacenter != lost).unwrap().node.node.to_string();
        cluster.kill(&other, Loss::Unsynced);
        let client = cluster.client(if lost == name("va") { "or" } else { "va" });
        cluster.cut_off(lost.as_str());
        client.append(vec!["without".into()], cluster.soon(30)).await.unwrap();
        cluster.world.net().heal();
        cluster.start(&other).await;
        // And back.
        let by: Vec<&str> = TO_NINE.iter().map(|(host, _)| *host).collect();
        does(&cluster, &operator, &remove(&by)).await;
        let by: Vec<&str> = TO_FIVE.iter().map(|(host, _)| *host).collect();
        does(&cluster, &operator, &remove(&by)).await;
        assert_eq!(voters(&cluster), ["log-ie", "log-or", "log-va"]);
        for (host, _) in TO_NINE.iter().chain(&TO_FIVE) {
            cluster.kill(host, Loss::Unsynced);
        }
        load.goes_on(&cluster).await;
        load.all_is_there(&mut cluster, &["log-va", "log-or", "log-ie"]).await;
    });
}

#[test]
fn a_node_that_lost_its_disk_is_replaced_under_load() {
    for seed in 210..212 {
        story(seed, async |mut cluster| {
            let operator = cluster.operator("ie");
            let load = Load::start(&mut cluster);
            load.goes_on(&cluster).await;
            let old = cluster.info("log-or").unwrap().raft_id;
            cluster.kill("log-or", Loss::Unsynced);
            // Nobody answers under that name.
            let refused = plan(&cluster, &operator, &replace("log-or")).await.impossible.unwrap();
            assert!(refused.starts_with("log-or does not answer: start it, with an empty disk"), "{refused}");
            cluster.wipe("log-or");
            cluster.start("log-or").await;
            load.goes_on(&cluster).await;
            let says = |c: &Cluster| c.waits_for("log-or").filter(|what| what.contains("beam log replace log-or"));
            cluster.wait(says).await;
            does(&cluster, &operator, &replace("log-or")).await;
            let new = cluster.info("log-or").unwrap().raft_id;
            assert_ne!(old, new);
            let leader = cluster.wait_for_leader().await;
            let members = cluster.info(&leader).unwrap().members;
            assert_eq!(members.len(), 3, "the old one is gone: {members:?}");
            assert!(members.iter().any(|m| m.raft_id == new && m.voter), "{members:?}");
            // It makes a majority.
            cluster.kill("log-ie", Loss::Unsynced);
            load.goes_on(&cluster).await;
            load.all_is_there(&mut cluster, &["log-va", "log-or"]).await;
            let again = plan(&cluster, &operator, &replace("log-or")).await;
            assert!(again.nothing_to_do, "{again:?}");
        });
    }
}

#[test]
fn the_leader_can_be_removed_and_added_again() {
    for seed in 220..222 {
        story(seed, async |mut cluster| {
            let operator = cluster.operator("va");
            grow(&mut cluster, &operator, &TO_FIVE).await;
            let load = Load::start(&mut cluster);
            load.goes_on(&cluster).await;
            does(&cluster, &operator, &Change::Lead { node: name("log-va-2") }).await;
            assert_eq!(cluster.wait_for_leader().await, "log-va-2");
            let shown = plan(&cluster, &operator, &remove(&["log-va-2", "log-or-2"])).await;
            assert!(shown.notes.iter().any(|note| note == "log-va-2 leads, and hands over first"), "{shown:?}");
            does(&cluster, &operator, &remove(&["log-va-2", "log-or-2"])).await;
            assert_eq!(voters(&cluster), ["log-ie", "log-or", "log-va"]);
            // It keeps its log, which is a prefix of the others'.
            load.goes_on(&cluster).await;
            does(&cluster, &operator, &add("log-va-2", "va")).await;
            load.goes_on(&cluster).await;
            load.all_is_there(&mut cluster, &["log-va", "log-or", "log-ie", "log-va-2"]).await;
        });
    }
}

#[test]
fn a_drained_datacenter_is_switched_off_and_writes_go_on() {
    for seed in 230..232 {
        SimWorld::run(seed, |world| async move {
            let mut cluster = Cluster::new(&world, disk(), wan());
            cluster.options.preferred = Some(name("va"));
            cluster.start_all().await;
            let operator = cluster.operator("or");
            let load = Load::start(&mut cluster);
            cluster.wait(|c| c.leader().filter(|leader| leader == "log-va")).await;
            does(&cluster, &operator, &drain("va")).await;
            let leader = cluster.wait_for_leader().await;
            assert_ne!(leader, "log-va");
            // Without a leader to lose, nobody notices.
            cluster.kill("log-va", Loss::Unsynced);
            let began = cluster.env.now();
            let client = cluster.client("or");
            client.append(vec!["without".into()], cluster.soon(10)).await.unwrap();
            println!(
                "seed {seed}: the append after the drained datacenter was switched off took {:?}",
                cluster.env.now() - began
            );
            let shown = plan(&cluster, &operator, &drain("ie")).await;
            let why = shown.refused.unwrap();
            assert!(why.contains("without ie, va nothing can be written: 1 of 3 voters would be left"), "{why}");
            cluster.start("log-va").await;
            load.goes_on(&cluster).await;
            // The preference sleeps, for as long as it takes.
            cluster.env.sleep(ms(30_000)).await;
            assert_ne!(cluster.wait_for_leader().await, "log-va");
            // It is not led by it either when the leader dies.
            let leader = cluster.wait_for_leader().await;
            cluster.kill(&leader, Loss::Unsynced);
            load.goes_on(&cluster).await;
            let next = cluster.wait_for_leader().await;
            assert!(next != "log-va" && next != leader, "{next}");
            cluster.start(&leader).await;
            does(&cluster, &operator, &Change::Return { datacenter: name("va") }).await;
            cluster.wait(|c| c.leader().filter(|leader| leader == "log-va")).await;
            load.all_is_there(&mut cluster, &["log-va", "log-or", "log-ie"]).await;
        });
    }
}

/// A drained datacenter that alone can lead must do so: a log that takes nothing is worse.
#[test]
fn a_drained_datacenter_leads_when_nobody_else_can() {
    story(240, async |mut cluster| {
        let operator = cluster.operator("va");
        let client = cluster.client("ie");
        does(&cluster, &operator, &drain("ie")).await;
        does(&cluster, &operator, &Change::Lead { node: name("log-va") }).await;
        // One that may lead lacks what was acknowledged without it; the other dies.
        cluster.kill("log-or", Loss::Unsynced);
        client.append(vec!["without or".into()], cluster.soon(20)).await.unwrap();
        cluster.kill("log-va", Loss::Unsynced);
        cluster.start("log-or").await;
        let version = client.append(vec!["anyway".into()], cluster.soon(60)).await.unwrap()[0];
        // As soon as another can lead, it does.
        cluster.wait(|c| c.info("log-ie")?.leader.filter(|leader| *leader == name("log-or"))).await;
        let all = cluster.read_all(&client, version.index.next()).await;
        assert_eq!(all[&version.index], "anyway");
    });
}

#[test]
fn what_would_leave_no_majority_is_refused_unless_forced() {
    story(250, async |mut cluster| {
        let operator = cluster.operator("va");
        cluster.add("log-va-2", "va");
        cluster.start("log-va-2").await;
        cluster.env.sleep(ms(8000)).await;
        does(&cluster, &operator, &add("log-va-2", "va")).await;
        let refused = apply(&cluster, &operator, &promote(&["log-va-2"]), false).await.unwrap_err();
        assert_eq!(refused.code, Code::Invalid);
        assert_eq!(
            refused.message,
            "the loss of va would stop all writes: 2 of 4 voters would be left, and 3 must agree"
        );
        assert_eq!(voters(&cluster).len(), 3);
        apply(&cluster, &operator, &promote(&["log-va-2"]), true).await.unwrap();
        assert_eq!(voters(&cluster).len(), 4);
        // What was agreed to for other members is not done.
        let stale = Some(Apply { seen: LogIndex(1), force: true });
        let refused = operator.change(&remove(&["log-va-2"]), stale, cluster.soon(10)).await.unwrap_err();
        assert_eq!(refused.code, Code::Conflict);
        assert_eq!(voters(&cluster).len(), 4);
        // Not even force helps where nothing could be written any more.
        cluster.kill("log-or", Loss::Unsynced);
        let refused = apply(&cluster, &operator, &remove(&["log-va-2", "log-ie"]), true).await.unwrap_err();
        assert!(
            refused.message.starts_with("nothing could be written any more: of 2 voters 2 must agree"),
            "{refused}"
        );
        assert_eq!(voters(&cluster).len(), 4);
        // Api nodes and views change nothing.
        let client = cluster.client("va");
        let denied = client.change(&remove(&["log-va-2"]), None, cluster.soon(5)).await.unwrap_err();
        assert_eq!(denied.code, Code::Denied);
    });
}

/// Small segments, so that there are whole ones to drop.
fn story_of_small_segments<F: Future>(seed: u64, tell: impl FnOnce(Cluster) -> F) -> F::Output {
    SimWorld::run(seed, |world| async move {
        let mut cluster = Cluster::new(&world, disk(), wan());
        cluster.options.store.segment_bytes = 4096;
        cluster.start_all().await;
        tell(cluster).await
    })
}

#[test]
fn a_joiner_begins_at_the_discard_point_also_under_a_leader_that_has_restarted() {
    for (seed, restart) in [(260, false), (261, true)] {
        story_of_small_segments(seed, async |mut cluster| {
            let (client, operator) = (cluster.client("va"), cluster.operator("va"));
            let versions = client.append(vec![Bytes::from(vec![1; 512]); 64], cluster.soon(20)).await.unwrap();
            let Version { epoch, index: last } = *versions.last().unwrap();
            client.discard(epoch, last, cluster.soon(20)).await.unwrap();
            cluster.wait(|c| c.machines.keys().all(|h| c.info(h).unwrap().first == last).then_some(())).await;
            if restart {
                for host in ["log-va", "log-or", "log-ie"] {
                    cluster.kill(host, Loss::Unsynced);
                }
                cluster.start_all().await;
            }
            cluster.add("log-va-2", "va");
            cluster.start("log-va-2").await;
            let waits = |c: &Cluster| c.waits_for("log-va-2").filter(|what| what.contains("beam log add log-va-2"));
            cluster.wait(waits).await;
            cluster.env.sleep(ms(8000)).await;
            does(&cluster, &operator, &add("log-va-2", "va")).await;
            let holds = |c: &Cluster| c.info("log-va-2").filter(|i| i.committed >= Some(last)).map(|i| i.first);
            assert_eq!(cluster.wait(holds).await, last, "it begins where the others do");
            apply(&cluster, &operator, &promote(&["log-va-2"]), true).await.unwrap();
            let version = client.append(vec!["after".into()], cluster.soon(20)).await.unwrap()[0];
            cluster.wait(|c| (c.info("log-va-2")?.committed >= Some(version.index)).then_some(())).await;
            let log = cluster.read_from(&client, "log-va-2", last, version.index.next()).await;
            assert_eq!(log[&version.index], "after");
            // It can lead, too: it has seen the first entry neither, and writes no other.
            does(&cluster, &operator, &Change::Lead { node: name("log-va-2") }).await;
            client.append(vec!["led".into()], cluster.soon(20)).await.unwrap();
        });
    }
}

#[test]
fn a_discard_waits_for_a_member_that_is_catching_up_and_not_for_one_that_is_gone() {
    story_of_small_segments(270, async |mut cluster| {
        let client = cluster.client("va");
        client.append(vec!["first".into()], cluster.soon(10)).await.unwrap();
        let leader = cluster.wait_for_leader().await;
        let slow = if leader == "log-ie" { "log-or" } else { "log-ie" };
        cluster.kill(slow, Loss::Unsynced);
        let dc = leader.strip_prefix("log-").unwrap().to_owned();
        let client = cluster.client(&dc);
        let versions = client.append(vec![Bytes::from(vec![1; 512]); 64], cluster.soon(20)).await.unwrap();
        let Version { epoch, index: last } = *versions.last().unwrap();
        // It was there a moment ago.
        let held = client.discard(epoch, last, cluster.soon(2)).await.unwrap_err();
        assert_eq!(held.code, Code::Ahead);
        assert!(
            held.is_retryable() && held.message.starts_with(&format!("{slow} is catching up and has all")),
            "{held}"
        );
        // It comes back in time, catches up, and the discard goes on by itself.
        cluster.start(slow).await;
        client.discard(epoch, last, cluster.soon(30)).await.unwrap();
        assert!(cluster.info(slow).unwrap().last >= Some(last), "it was waited for");
        // Gone for more than a minute, it is not waited for; it goes on from the discard point when it is back.
        cluster.kill(slow, Loss::Unsynced);
        let versions = client.append(vec![Bytes::from(vec![2; 512]); 64], cluster.soon(20)).await.unwrap();
        let last = versions.last().unwrap().index;
        cluster.env.sleep(ms(61_000)).await;
        client.discard(epoch, last, cluster.soon(5)).await.unwrap();
        cluster.start(slow).await;
        let holds = |c: &Cluster| c.info(slow).filter(|i| i.committed >= Some(last)).map(|i| i.first);
        assert_eq!(cluster.wait(holds).await, last);
    });
}

#[test]
fn members_change_while_a_datacenter_is_cut_off() {
    story(280, async |mut cluster| {
        let operator = cluster.operator("va");
        let load = Load::start(&mut cluster);
        cluster.add("log-va-2", "va");
        cluster.add("log-or-2", "or");
        cluster.start("log-va-2").await;
        cluster.start("log-or-2").await;
        cluster.env.sleep(ms(8000)).await;
        cluster.cut_off("ie");
        does(&cluster, &operator, &add("log-va-2", "va")).await;
        does(&cluster, &operator, &add("log-or-2", "or")).await;
        does(&cluster, &operator, &promote(&["log-va-2", "log-or-2"])).await;
        load.goes_on(&cluster).await;
        cluster.world.net().heal();
        cluster.wait(|c| (c.info("log-ie")?.members.len() == 5).then_some(())).await;
        // Whoever was away can lead, and knows the new voters.
        does(&cluster, &operator, &Change::Lead { node: name("log-ie") }).await;
        load.goes_on(&cluster).await;
        load.all_is_there(&mut cluster, &["log-va", "log-or", "log-ie", "log-va-2", "log-or-2"]).await;
    });
}

#[test]
fn the_leader_goes_home_to_any_well_voter_of_the_preferred_datacenter_and_follows_no_flapping_one() {
    let hosts =
        [("a", "va"), ("b", "va"), ("c", "or"), ("d", "or"), ("e", "ie")].map(|(host, dc)| (host.to_owned(), dc));
    SimWorld::run(290, |world| async move {
        let mut cluster = Cluster::of(&world, &hosts, disk(), wan());
        cluster.options.preferred = Some(name("va"));
        cluster.start_all().await;
        let client = cluster.client("or");
        client.append(vec!["first".into()], cluster.soon(20)).await.unwrap();
        let home = |c: &Cluster| c.leader().filter(|leader| ["a", "b"].contains(&leader.as_str()));
        let leader = cluster.wait(home).await;
        // The whole datacenter is lost; one of it comes back and flaps: it is not followed.
        cluster.kill("a", Loss::Unsynced);
        cluster.kill("b", Loss::Unsynced);
        client.append(vec!["without".into()], cluster.soon(20)).await.unwrap();
        let away = cluster.wait_for_leader().await;
        for _ in 0..4 {
            cluster.start(&leader).await;
            cluster.env.sleep(ms(3000)).await;
            assert_eq!(cluster.wait_for_leader().await, away, "it stays");
            cluster.kill(&leader, Loss::Unsynced);
            cluster.env.sleep(ms(1000)).await;
        }
        // The other one is calm.
        let calm = if leader == "a" { "b" } else { "a" };
        cluster.start(calm).await;
        assert_eq!(cluster.wait(home).await, calm);
    });
}

#[test]
fn timers_follow_from_round_trips_and_what_does_not_fit_is_said() {
    story(295, async |mut cluster| {
        let operator = cluster.operator("va");
        operator.append(vec!["first".into()], cluster.soon(20)).await.unwrap();
        // All were there when the last one started; the first knew of nobody.
        let [va, or] = ["log-va", "log-or"].map(name);
        let first = operator.status(&name("log-ie"), cluster.soon(5)).await.unwrap();
        assert_eq!((first.heartbeat_ms, first.lease_ms), (150, 350), "ie starts first, and takes an ocean");
        cluster.kill("log-va", Loss::Unsynced);
        cluster.start("log-va").await;
        cluster.env.sleep(ms(2000)).await;
        let status = operator.status(&va, cluster.soon(5)).await.unwrap();
        assert_eq!((status.heartbeat_ms, status.lease_ms), (100, 300), "76 ms to ie: the floor");
        assert_eq!(status.warnings, [""; 0]);
        // Its way to ie becomes longer than its heartbeat.
        let (at, far) = (cluster.machines["log-va"].address, cluster.machines["log-ie"].address);
        cluster.world.net().set_link(at, far, Link { latency: ms(60), ..wan() });
        cluster.env.sleep(ms(30_000)).await;
        let status = operator.status(&va, cluster.soon(5)).await.unwrap();
        let [heartbeat] = &status.warnings[..] else { panic!("one warning: {:?}", status.warnings) };
        assert!(
            heartbeat.starts_with("the heartbeat of 100ms is shorter than the round trip to log-ie (1"),
            "{heartbeat}"
        );
        let or = operator.status(&or, cluster.soon(5)).await.unwrap();
        assert_eq!(or.warnings, [""; 0], "its own ways are as they were");
        // As it says, a restart mends it.
        cluster.kill("log-va", Loss::Unsynced);
        cluster.start("log-va").await;
        cluster.env.sleep(ms(30_000)).await;
        let status = operator.status(&va, cluster.soon(5)).await.unwrap();
        assert!(status.heartbeat_ms > 125 && status.warnings.is_empty(), "{status:?}");
    });
}

/// It is told nothing any more; its log would never go on, and whoever reads it there would wait for ever.
#[test]
fn readers_leave_a_node_that_was_removed() {
    story(297, async |mut cluster| {
        let (operator, client) = (cluster.operator("va"), cluster.client("va"));
        grow(&mut cluster, &operator, &TO_FIVE).await;
        let mut reader = client.read(None, LogIndex(0), true);
        let at_spare = client.at(name("log-va-2"));
        let before = client.append(vec!["before".into()], cluster.soon(20)).await.unwrap()[0].index;
        cluster.read_at(&client, "log-va-2", before.next()).await;
        // The reader is given all by the node that goes; the other one of its datacenter is down meanwhile.
        cluster.kill("log-va", Loss::Nothing);
        while reader.position() <= before {
            reader.next().await.unwrap();
        }
        cluster.start("log-va").await;
        does(&cluster, &operator, &remove(&["log-va-2", "log-or-2"])).await;
        let after = client.append(vec!["after".into()], cluster.soon(20)).await.unwrap()[0].index;
        let follow = async {
            while reader.position() <= after {
                reader.next().await.unwrap();
            }
        };
        cluster.env.timeout_at(cluster.soon(20), follow).await.expect("the reader has left the removed node");
        let said = operator.status(&name("log-va-2"), cluster.soon(5)).await.unwrap();
        assert!(said.warnings[0].starts_with("not a member any more: beam log add log-va-2"), "{said:?}");
        // Added again, it serves again.
        does(&cluster, &operator, &add("log-va-2", "va")).await;
        let read = cluster.env.timeout_at(cluster.soon(20), at_spare.read(None, after, true).next()).await;
        assert_eq!(read.unwrap().unwrap().unwrap().first, after);
    });
}

/// The leader dies anywhere between the two halves of a change; who leads next ends it, one way or the other.
#[test]
fn a_change_whose_leader_dies_does_not_stand_half_done() {
    for delay in [100, 160, 220, 280, 340] {
        story(298, async |mut cluster| {
            let operator = cluster.operator("va");
            for (host, datacenter) in TO_FIVE {
                cluster.add(host, datacenter);
                cluster.start(host).await;
            }
            cluster.env.sleep(ms(8000)).await;
            for (host, datacenter) in TO_FIVE {
                does(&cluster, &operator, &add(host, datacenter)).await;
            }
            let newcomers = promote(&["log-va-2", "log-or-2"]);
            let shown = plan(&cluster, &operator, &newcomers).await;
            let leader = cluster.wait_for_leader().await;
            let apply = Some(Apply { seen: shown.at, force: false });
            let (asked, change, until) = (operator.clone(), newcomers.clone(), cluster.soon(1));
            let changing = cluster.env.tasks().serve("changing", async move {
                // Its leader dies: the answer says nothing.
                let _ = asked.change(&change, apply, until).await;
            });
            cluster.env.sleep(ms(delay)).await;
            cluster.kill(&leader, Loss::Unsynced);
            let client = cluster.client(if leader == "log-va" { "or" } else { "va" });
            client.append(vec!["on".into()], cluster.soon(20)).await.unwrap();
            drop(changing);
            cluster.start(&leader).await;
            does(&cluster, &operator, &newcomers).await;
            cluster.wait(|c| (voters(c).len() == 5).then_some(())).await;
            does(&cluster, &operator, &remove(&["log-va-2", "log-or-2"])).await;
            assert_eq!(voters(&cluster), ["log-ie", "log-or", "log-va"], "{delay} ms");
        });
    }
}

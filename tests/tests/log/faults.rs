//! One fault at a time.

use super::cluster::Cluster;
use super::{disk, ms, story, wan};
use beam_node::log::disk_sim::Loss;
use beam_wire::CallError;
use beam_wire::env::sim::{Link, SimWorld};
use beam_wire::{Code, LogIndex, Name};

/// The first client whose append succeeds, and how long that takes from now.
async fn gap(cluster: &Cluster, client: &beam_node::remote::log::RemoteLog) -> std::time::Duration {
    let began = cluster.env.now();
    client.append(vec!["after".into()], cluster.soon(30)).await.unwrap();
    cluster.env.now() - began
}

#[test]
fn writes_go_on_within_two_seconds_of_the_leaders_death() {
    for seed in 10..20 {
        story(seed, async |mut cluster| {
            let clients = ["va", "or", "ie"].map(|dc| cluster.client(dc));
            for client in &clients {
                client.append(vec!["before".into()], cluster.soon(10)).await.unwrap();
            }
            let leader = cluster.wait_for_leader().await;
            cluster.kill(&leader, Loss::Unsynced);
            let alive = clients.iter().zip(["log-va", "log-or", "log-ie"]).find(|(_, host)| *host != leader).unwrap();
            let gap = gap(&cluster, alive.0).await;
            println!("seed {seed}: the append after the death of {leader} took {gap:?}");
            assert!(gap < ms(2000), "seed {seed}: {gap:?}");
        });
    }
}

/// After an election the new leader must find out where the others' logs agree with its own. They have told
/// when they voted, so that this takes no round trip, however long the log is.
#[test]
fn a_long_log_does_not_make_the_gap_longer() {
    for (seed, entries) in [(60, 1), (61, 40), (62, 2000), (63, 20_000), (64, 20_000), (65, 20_000), (66, 50_000)] {
        story(seed, async |mut cluster| {
            let clients = ["va", "or", "ie"].map(|dc| cluster.client(dc));
            let versions = clients[0].append(vec!["x".into(); entries], cluster.soon(120)).await.unwrap();
            let last = versions.last().unwrap().index;
            let has_all = |c: &Cluster, host: &String| c.info(host).unwrap().committed >= Some(last);
            cluster.wait(|c| c.machines.keys().all(|host| has_all(c, host)).then_some(())).await;
            let leader = cluster.wait_for_leader().await;
            cluster.kill(&leader, Loss::Unsynced);
            let alive = clients.iter().zip(["log-va", "log-or", "log-ie"]).find(|(_, host)| *host != leader).unwrap();
            let gap = gap(&cluster, alive.0).await;
            println!("seed {seed}: {entries} entries, the append after the death of {leader} took {gap:?}");
            assert!(gap < ms(1400), "seed {seed}: {gap:?}");
        });
    }
}

/// The voter that is needed has entries which its lost leadership left to it alone: they make room.
#[test]
fn a_voter_with_a_tail_of_its_own_follows_who_lacks_it() {
    for seed in 70..74 {
        story(seed, async |mut cluster| {
            let clients = ["va", "or", "ie"].map(|dc| cluster.client(dc));
            let bodies = |text: &str, count| (0..count).map(|n| format!("{text} {n}").into()).collect::<Vec<_>>();
            clients[0].append(bodies("before", 300), cluster.soon(20)).await.unwrap();
            let first = cluster.wait_for_leader().await;
            let lost = first.strip_prefix("log-").unwrap().to_owned();
            cluster.cut_off(&lost);
            let of = |dc: &str| clients.iter().zip(["va", "or", "ie"]).find(|(_, there)| *there == dc).unwrap().0;
            let (inside, outside) = (of(&lost), of(if lost == "va" { "or" } else { "va" }));
            let refused = inside.append(bodies("inside", 100), cluster.soon(4));
            let written = outside.append(bodies("outside", 30), cluster.soon(20));
            let (refused, written) = futures::future::join(refused, written).await;
            assert!(refused.is_err());
            // Now whoever led since dies, and the one with the tail comes back.
            let second = cluster.wait_for_leader().await;
            cluster.kill(&second, Loss::Unsynced);
            cluster.world.net().heal();
            let third = clients.iter().zip(["va", "or", "ie"]).find(|(_, dc)| format!("log-{dc}") != second).unwrap().0;
            let after = third.append(vec!["after".into()], cluster.soon(20)).await.unwrap()[0];
            assert_ne!(cluster.wait_for_leader().await, first, "it lacks what was acknowledged");
            let all = cluster.read_all(inside, after.index.next()).await;
            for (n, version) in written.unwrap().iter().enumerate() {
                assert_eq!(all[&version.index], format!("outside {n}"));
            }
        });
    }
}

#[test]
fn a_lost_datacenter_comes_back_and_catches_up() {
    story(21, async |mut cluster| {
        let clients = ["va", "or", "ie"].map(|dc| cluster.client(dc));
        clients[0].append(vec!["before".into()], cluster.soon(10)).await.unwrap();
        let leader = cluster.wait_for_leader().await;
        let lost = leader.strip_prefix("log-").unwrap().to_owned();
        cluster.cut_off(&lost);
        let (inside, outside) = if lost == "va" { (&clients[0], &clients[1]) } else { (&clients[1], &clients[0]) };
        let inside = if lost == "ie" { &clients[2] } else { inside };
        // Outside writes go on; inside they fail within their bound, and say why.
        let outside_append = outside.append(vec!["outside".into()], cluster.soon(10));
        let inside_append = inside.append(vec!["inside".into()], cluster.soon(8));
        let (written, refused) = futures::future::join(outside_append, inside_append).await;
        let refused: CallError = refused.unwrap_err();
        assert!([Code::NoQuorum, Code::Unavailable].contains(&refused.code), "{refused:?}");
        let tail = inside.tail(true, cluster.soon(8)).await.unwrap_err();
        assert!([Code::NoQuorum, Code::Unavailable].contains(&tail.code), "{tail:?}");
        // What is committed can be read inside, too.
        let tail = inside.tail(false, cluster.soon(2)).await.unwrap();
        assert!(cluster.read_all(inside, tail.index.next()).await.values().any(|body| body == "before"));
        cluster.world.net().heal();
        let written = written.unwrap()[0];
        let all = cluster.read_all(inside, written.index.next()).await;
        assert_eq!(all[&written.index], "outside");
        inside.append(vec!["again".into()], cluster.soon(10)).await.unwrap();
    });
}

#[test]
fn a_lie_in_dns_makes_no_quorum() {
    story(22, async |mut cluster| {
        let client = cluster.client("va");
        let before = client.append(vec!["before".into()], cluster.soon(10)).await.unwrap()[0];
        // `log-or` and `log-ie` are dead, and DNS says that both live where `log-va` does; later, that
        // `log-or` lives where `log-ie` does, which is back.
        cluster.kill("log-or", Loss::Nothing);
        cluster.kill("log-ie", Loss::Nothing);
        cluster.say_in_dns("or", &[("log-or", "log-va")]);
        cluster.say_in_dns("ie", &[("log-ie", "log-va")]);
        cluster.env.sleep(ms(10_000)).await;
        let refused = client.append(vec!["alone".into()], cluster.soon(20)).await.unwrap_err();
        assert!([Code::NoQuorum, Code::Unavailable].contains(&refused.code), "{refused:?}");
        assert!(client.tail(true, cluster.soon(6)).await.is_err());
        assert_eq!(client.tail(false, cluster.soon(6)).await.unwrap().index, before.index);
        cluster.say_in_dns("or", &[("log-or", "log-ie")]);
        cluster.say_in_dns("ie", &[]);
        cluster.start("log-ie").await;
        client.append(vec!["two".into()], cluster.soon(30)).await.unwrap();
        // Were its answers counted twice, va would not need it.
        let leader = cluster.wait_for_leader().await;
        let ie = cluster.info("log-ie").unwrap().raft_id;
        let info = cluster.info(&leader).unwrap();
        for member in info.members.iter().filter(|m| m.node == Name::new("log-or").unwrap()) {
            assert_ne!(member.raft_id, ie);
            assert!(member.matched < info.committed, "log-or cannot have answered: {member:?}");
        }
    });
}

#[test]
fn a_node_with_an_empty_disk_votes_for_nobody() {
    story(23, async |mut cluster| {
        let client = cluster.client("va");
        client.append(vec!["before".into()], cluster.soon(10)).await.unwrap();
        let old_id = cluster.info("log-or").unwrap().raft_id;
        cluster.kill("log-or", Loss::Nothing);
        cluster.wipe("log-or");
        cluster.start("log-or").await;
        let info = cluster.info("log-or").unwrap();
        assert_ne!(info.raft_id, old_id);
        assert_eq!((info.members.len(), info.last), (0, None));
        // Two of three are whole: writes go on. With one of them dead, the empty one makes no majority.
        client.append(vec!["two".into()], cluster.soon(20)).await.unwrap();
        cluster.kill("log-ie", Loss::Unsynced);
        let refused = client.append(vec!["one".into()], cluster.soon(15)).await.unwrap_err();
        assert!([Code::NoQuorum, Code::Unavailable].contains(&refused.code), "{refused:?}");
        assert_eq!(cluster.info("log-or").unwrap().last, None);
        cluster.start("log-ie").await;
        client.append(vec!["two again".into()], cluster.soon(30)).await.unwrap();
    });
}

#[test]
fn nothing_is_appended_before_all_log_nodes_were_there_once() {
    SimWorld::run(24, |world| async move {
        let mut cluster = Cluster::new(&world, disk(), wan());
        cluster.start("log-va").await;
        cluster.start("log-ie").await;
        let client = cluster.client("va");
        let refused = client.append(vec!["early".into()], cluster.soon(20)).await.unwrap_err();
        assert_eq!(refused.code, Code::Unavailable);
        assert!(refused.message.contains("log-or"), "{refused}");
        cluster.start("log-or").await;
        let version = client.append(vec!["born".into()], cluster.soon(20)).await.unwrap()[0];
        let all = cluster.read_all(&client, version.index.next()).await;
        assert_eq!(all.values().collect::<Vec<_>>(), [super::FIRST_ENTRY, b"born"]);
    });
}

#[test]
fn a_bad_network_costs_time_and_nothing_else() {
    for seed in 30..34 {
        let link = Link { jitter: ms(20), loss: 0.03, duplicate: 0.02, reorder: 0.05, ..wan() };
        SimWorld::run(seed, |world| async move {
            let mut cluster = Cluster::new(&world, disk(), link);
            cluster.start_all().await;
            let clients = ["va", "or", "ie"].map(|dc| cluster.client(dc));
            let mut expected = std::collections::BTreeMap::new();
            for round in 0..20 {
                let appends = clients.iter().enumerate().map(|(n, client)| {
                    let body = bytes::Bytes::from(format!("{round}.{n}"));
                    let deadline = cluster.soon(60);
                    async move { (client.append(vec![body.clone()], deadline).await.unwrap()[0].index, body) }
                });
                expected.extend(futures::future::join_all(appends).await);
            }
            let last = *expected.keys().last().unwrap();
            for client in &clients {
                let all = cluster.read_all(client, last.next()).await;
                assert!(expected.iter().all(|(index, body)| all[index] == *body), "seed {seed}");
            }
        });
    }
}

#[test]
fn the_leader_moves_to_the_preferred_datacenter_and_back_after_its_loss() {
    SimWorld::run(40, |world| async move {
        let mut cluster = Cluster::new(&world, disk(), wan());
        cluster.options.preferred = Some(Name::new("ie").unwrap());
        cluster.start_all().await;
        let client = cluster.client("or");
        client.append(vec!["first".into()], cluster.soon(20)).await.unwrap();
        let in_ie = |c: &Cluster| c.leader().filter(|leader| leader == "log-ie");
        cluster.wait(in_ie).await;
        cluster.kill("log-ie", Loss::Unsynced);
        client.append(vec!["without".into()], cluster.soon(20)).await.unwrap();
        assert_ne!(cluster.wait_for_leader().await, "log-ie");
        cluster.start("log-ie").await;
        cluster.wait(in_ie).await;
        let version = client.append(vec!["last".into()], cluster.soon(20)).await.unwrap()[0];
        assert!(version.index > LogIndex(0));
    });
}

/// Without the leader's silence nobody would ever be elected: the one node that all others reach still
/// hears the leader, which reaches nobody else.
#[test]
fn a_leader_without_majority_lets_the_others_elect() {
    SimWorld::run(50, |world| async move {
        let hosts = [("a", "va"), ("b", "va"), ("c", "or"), ("d", "or"), ("e", "ie")];
        let hosts = hosts.map(|(host, dc)| (host.to_owned(), dc));
        let mut cluster = Cluster::of(&world, &hosts, disk(), wan());
        cluster.start_all().await;
        let client = cluster.client("ie");
        client.append(vec!["before".into()], cluster.soon(20)).await.unwrap();
        let leader = cluster.wait_for_leader().await;
        let mut others: Vec<String> = cluster.machines.keys().filter(|host| **host != leader).cloned().collect();
        let hub = others.remove(0);
        let address = |host: &String| cluster.machines[host].address;
        // The hub speaks with everyone; the others and the leader with the hub alone.
        for host in &others {
            world.net().part(&[address(host)], &[address(&leader)]);
            for other in others.iter().filter(|other| *other != host) {
                world.net().part(&[address(host)], &[address(other)]);
            }
        }
        let next = cluster.wait(|c| c.leader().filter(|now| *now != leader)).await;
        assert_eq!(next, hub, "only the hub reaches a majority");
        client.append(vec!["after".into()], cluster.soon(20)).await.unwrap();
    });
}

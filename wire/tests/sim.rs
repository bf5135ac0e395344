//! Peers in a world of memory and virtual time: real QUIC and TLS over links that lose and duplicate,
//! with hosts that die. Whatever happens, the same seed must give the same packets.

mod common;

use beam_certs::days;
use beam_wire::env::sim::{Link, SimWorld, Trace};
use beam_wire::ids::LogIndex;
use beam_wire::message::log::{LogAppend, LogRead, LogTail, Proposal, Proposals};
use beam_wire::message::view::ViewStatus;
use beam_wire::quic::{CallOptions, Lane};
use beam_wire::{Code, Retry};
use common::{Cluster, Node, version};
use std::sync::atomic::Ordering;
use std::time::Duration;

const LOG_VA: &str = "spiffe://beam/dc/va/node/log-va/role/log";
const API_IE: &str = "spiffe://beam/dc/ie/node/api-ie/role/api";
const AT_LOG: &str = "10.0.1.1:7100";
const AT_API: &str = "10.0.2.1:7100";

fn tail() -> LogTail {
    LogTail { linearizable: true, forwarded: false }
}

fn pair(world: &SimWorld, cluster: &Cluster) -> (Node, Node) {
    (cluster.node(&world.env("log"), AT_LOG, LOG_VA), cluster.node(&world.env("api"), AT_API, API_IE))
}

fn bad_link() -> Link {
    Link {
        latency: Duration::from_millis(38),
        jitter: Duration::from_millis(3),
        loss: 0.02,
        duplicate: 0.01,
        reorder: 0.05,
    }
}

/// Asks, streams, cancels and copies over a bad link, loses a host and gets it back.
async fn a_busy_minute(world: SimWorld) -> (Trace, Duration) {
    world.net().set_default_link(bad_link());
    let cluster = Cluster::new(&world.env("authority"));
    let (log, api) = pair(&world, &cluster);
    let peer = api.dial(&log).await.unwrap();
    let request = tail();
    let asks = (0..50).map(|_| peer.ask(&request, api.soon()));
    for reply in futures::future::join_all(asks).await {
        assert_eq!(reply, Ok(version(7)));
    }
    let read = LogRead { epoch: None, from: LogIndex(1), follow: true };
    let mut follows = peer.call(&read, CallOptions::default()).await.unwrap();
    for index in 1..=1000 {
        assert_eq!(follows.next().await.unwrap().unwrap().first, LogIndex(index));
    }
    drop(follows);
    let append = LogAppend { epoch: None, forwarded: false };
    let mut appends = peer.call(&append, CallOptions::default()).await.unwrap();
    for index in 1..=20 {
        let proposal = Proposal { origin: None, body: vec![7; 10_000].into() };
        appends.send(&Proposals { proposals: vec![proposal] }).await.unwrap();
        assert_eq!(appends.next().await.unwrap().unwrap().indexes, [LogIndex(index)]);
    }
    world.kill("log");
    peer.closed().await;
    let (log, soon) = (cluster.node(&world.env("log"), AT_LOG, LOG_VA), api.soon());
    let peer = api.dial(&log).await.unwrap();
    assert_eq!(peer.ask(&tail(), soon).await, Ok(version(7)));
    (world.net().trace(), world.elapsed())
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let (first, first_took) = SimWorld::run(1, a_busy_minute);
    let (second, second_took) = SimWorld::run(1, a_busy_minute);
    assert_eq!(first, second);
    assert_eq!(first_took, second_took);
    assert!(first.lost > 0 && first.packets > 200, "{first:?}");
    let (other, _) = SimWorld::run(2, a_busy_minute);
    assert_ne!(first.hash, other.hash);
}

#[test]
fn a_dead_host_is_noticed_without_a_deadline() {
    SimWorld::run(3, |world| async move {
        let cluster = Cluster::new(&world.env("authority"));
        let (log, api) = pair(&world, &cluster);
        let peer = api.dial(&log).await.unwrap();
        let mut hangs = peer.call(&ViewStatus { watch: true }, CallOptions::default()).await.unwrap();
        log.until(|| log.seen.running.load(Ordering::SeqCst) == 1).await;
        let killed = api.env.now();
        world.kill("log");
        let error = hangs.next().await.unwrap_err();
        assert_eq!((error.code, error.retry), (Code::Disconnected, Retry::Elsewhere));
        assert!(api.env.now() - killed < Duration::from_secs(6));
        // Nobody is there; whoever asks learns it in bounded time, the next one at once.
        let asked = api.env.now();
        assert_eq!(api.dial(&log).await.unwrap_err().code, Code::Unavailable);
        assert!(api.env.now() - asked <= Duration::from_secs(2) + Duration::from_millis(5));
        let asked = api.env.now();
        assert_eq!(api.dial(&log).await.unwrap_err().code, Code::Unavailable);
        assert_eq!(api.env.now(), asked);
        // The dead host's handler is gone with it.
        api.env.sleep(Duration::from_millis(1)).await;
        assert_eq!(log.seen.running.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_restarted_host_resets_its_old_connections() {
    SimWorld::run(4, |world| async move {
        let cluster = Cluster::new(&world.env("authority"));
        let reset_key = [9; 64];
        let start = || cluster.node_with(&world.env("log"), AT_LOG, LOG_VA, days(1), |o| o.reset_key = reset_key);
        let first = start();
        let api = cluster.node(&world.env("api"), AT_API, API_IE);
        let peer = api.dial(&first).await.unwrap();
        world.kill("log");
        let _second = start();
        let restarted = api.env.now();
        // The next packet is answered by a reset, long before the silence would be noticed.
        assert!(peer.ask(&tail(), api.soon()).await.is_err());
        assert!(api.env.now() - restarted < Duration::from_millis(500));
    });
}

#[test]
fn a_cut_one_way_is_as_good_as_both() {
    SimWorld::run(5, |world| async move {
        let cluster = Cluster::new(&world.env("authority"));
        let (log, api) = pair(&world, &cluster);
        let peer = api.dial(&log).await.unwrap();
        world.net().cut(log.address(), api.address());
        peer.closed().await;
        assert!(api.dial(&log).await.is_err());
        world.net().heal();
        api.env.sleep(Duration::from_secs(1)).await;
        let peer = api.dial(&log).await.unwrap();
        assert_eq!(peer.ask(&tail(), api.soon()).await, Ok(version(7)));
    });
}

#[test]
fn a_connection_ends_with_the_certificate_of_its_peer() {
    SimWorld::run(6, |world| async move {
        let cluster = Cluster::new(&world.env("authority"));
        let log = cluster.node(&world.env("log"), AT_LOG, LOG_VA);
        let hour = Duration::from_secs(3600);
        let api = cluster.node_for(&world.env("api"), AT_API, API_IE, hour);
        let peer = api.dial(&log).await.unwrap();
        let begun = world.elapsed();
        peer.closed().await;
        let lived = world.elapsed() - begun;
        assert!(lived <= hour + Duration::from_secs(1) && lived > hour - Duration::from_secs(60), "{lived:?}");
        // Nor is it let in again, until it has a new one. A certificate is good in its last second.
        api.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(api.dial(&log).await.unwrap_err().code, Code::Denied);
        api.peers.endpoint().set_tls(cluster.tls(&world.env("authority"), API_IE, hour)).unwrap();
        api.env.sleep(Duration::from_secs(1)).await;
        api.dial(&log).await.unwrap();
    });
}

#[test]
fn concurrent_diallers_each_way_still_have_healthy_connections() {
    SimWorld::run(7, |world| async move {
        world.net().set_default_link(Link::of(Duration::from_millis(30)));
        let cluster = Cluster::new(&world.env("authority"));
        let (log, api) = pair(&world, &cluster);
        let (to_log, to_api) = futures::future::join(api.dial(&log), log.dial(&api)).await;
        assert_eq!(to_log.unwrap().ask(&tail(), api.soon()).await, Ok(version(7)));
        assert_eq!(to_api.unwrap().ask(&tail(), log.soon()).await, Ok(version(7)));
        let raft = log.peers.peer(&api.target(), Lane::Raft).await.unwrap();
        assert_eq!(raft.ask(&tail(), log.soon()).await, Ok(version(7)));
    });
}

#[test]
fn killing_a_host_ends_all_of_its_tasks_and_children() {
    SimWorld::run(8, |world| async move {
        let env = world.env("a");
        let child = env.child("b");
        child.tasks().serve("for.ever", std::future::pending()).detach();
        env.tasks().serve("for.ever", std::future::pending()).detach();
        world.kill("a");
        env.tasks().join().await;
        assert!(child.tasks().is_killed());
        // Nothing starts on a dead host; the next life is another one.
        let late = env.tasks().spawn_raw(async { 1 });
        assert!(late.await.unwrap_err().is_cancelled());
        let next = world.env("a");
        assert_eq!(next.tasks().spawn_raw(async { 1 }).await.unwrap(), 1);
    });
}

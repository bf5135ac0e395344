//! Real UDP on this machine, as if it were far apart.

mod common;

use beam_wire::env::Env;
use beam_wire::env::wan::WanSockets;
use beam_wire::message::log::LogTail;
use common::{Cluster, NoDns, Node, version};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const LOG_VA: &str = "spiffe://beam/dc/va/node/log-va/role/log";
const API_IE: &str = "spiffe://beam/dc/ie/node/api-ie/role/api";

/// Two datacenters, told apart by their loopback addresses.
fn far_apart(one_way: Duration) -> (WanSockets, Env, Node, Node) {
    let wan =
        WanSockets::new(move |a: SocketAddr, b: SocketAddr| if a.ip() == b.ip() { Duration::ZERO } else { one_way });
    let env = Env::with_sockets(Arc::new(NoDns), Arc::new(wan.clone()));
    let cluster = Cluster::new(&env);
    let node = |name: &str, bind: &str, uri: &str| {
        cluster.node_with(&env.child(name), bind, uri, beam_certs::days(1), |options| {
            options.keep_alive = Duration::from_millis(200);
            options.idle_timeout = Duration::from_millis(1000);
        })
    };
    let (log, api) = (node("log", "127.0.0.1:0", LOG_VA), node("api", "127.0.0.2:0", API_IE));
    (wan, env, log, api)
}

fn tail() -> LogTail {
    LogTail { linearizable: true, forwarded: false }
}

#[tokio::test]
async fn what_is_far_takes_its_time() {
    let (_wan, env, log, api) = far_apart(Duration::from_millis(40));
    let peer = api.dial(&log).await.unwrap();
    let asked = env.now();
    assert_eq!(peer.ask(&tail(), api.soon()).await, Ok(version(7)));
    // Only "not sooner" can be said of a real clock.
    assert!(env.now() - asked >= Duration::from_millis(80));
    assert!(peer.rtt() >= Duration::from_millis(80));
}

#[tokio::test]
async fn what_is_cut_off_is_away_until_it_heals() {
    let (wan, env, log, api) = far_apart(Duration::from_millis(2));
    let peer = api.dial(&log).await.unwrap();
    wan.part(&[log.address()], &[api.address()]);
    peer.closed().await;
    assert!(api.dial(&log).await.is_err());
    wan.heal();
    let peer = loop {
        match api.dial(&log).await {
            Ok(peer) => break peer,
            Err(_) => env.sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!(peer.ask(&tail(), api.soon()).await, Ok(version(7)));
}

#[tokio::test]
async fn a_killed_node_gives_its_port_back() {
    let (_wan, env, log, api) = far_apart(Duration::from_millis(2));
    api.dial(&log).await.unwrap();
    let address = log.address();
    log.env.tasks().kill();
    log.env.tasks().join().await;
    drop(log);
    let cluster = Cluster::new(&env);
    let again = cluster.node(&env.child("log"), &address.to_string(), LOG_VA);
    assert_eq!(again.address(), address);
}

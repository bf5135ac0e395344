//! Peers over real UDP on this machine: what they do for each other, and what they refuse.

mod common;

use beam_certs::{Authority, days};
use beam_wire::env::Env;
use beam_wire::ids::LogIndex;
use beam_wire::message::Kind;
use beam_wire::message::api::ApiStatus;
use beam_wire::message::hello::{Greeting, Hello};
use beam_wire::message::log::{LogAppend, LogInfo, LogRead, LogTail, Proposal, Proposals};
use beam_wire::message::view::{ViewStatus, ViewVerdict};
use beam_wire::quic::{CallOptions, FRAME_BYTES_MAX, Lane, Target, TraceContext};
use beam_wire::{CallError, Code, Retry, codec};
use common::{Cluster, NoDns, Node, identity, name, version};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LOG_VA: &str = "spiffe://beam/dc/va/node/log-va/role/log";
const VIEW_OR: &str = "spiffe://beam/dc/or/node/view-or/role/view";
const API_VA: &str = "spiffe://beam/dc/va/node/api-va/role/api";
const READER: &str = "spiffe://beam/client/ann/role/reader";
const ADMIN: &str = "spiffe://beam/client/root/role/admin";
const ANY: &str = "127.0.0.1:0";

fn env() -> Env {
    Env::real(Arc::new(NoDns))
}

fn pair() -> (Node, Node) {
    let env = env();
    let cluster = Cluster::new(&env);
    (cluster.node(&env.child("a"), ANY, LOG_VA), cluster.node(&env.child("b"), ANY, API_VA))
}

fn tail() -> LogTail {
    LogTail { linearizable: true, forwarded: false }
}

fn proposals(count: usize, bytes: usize) -> Proposals {
    let proposal = Proposal { origin: None, body: vec![7; bytes].into() };
    Proposals { proposals: vec![proposal; count] }
}

fn open_append() -> LogAppend {
    LogAppend { epoch: None, forwarded: false }
}

#[tokio::test]
async fn calls_go_both_ways_on_one_connection() {
    let (log, api) = pair();
    let to_log = api.dial(&log).await.unwrap();
    assert_eq!(to_log.ask(&tail(), api.soon()).await, Ok(version(7)));
    assert_eq!(to_log.info().identity, log.identity);
    assert_eq!(to_log.info().hello, Hello::of(&log.identity, to_log.info().hello.boot));
    // The log finds the connection that the api node dialled.
    let nowhere = Target { addresses: vec![], ..api.target() };
    log.until(|| !log.peers.connections().is_empty()).await;
    let to_api = log.peers.peer(&nowhere, Lane::Calls).await.unwrap();
    assert!(!to_api.info().dialled);
    assert_eq!(to_api.ask(&tail(), log.soon()).await, Ok(version(7)));
    assert_eq!((log.peers.connections().len(), api.peers.connections().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_work_in_a_runtime_of_many_threads() {
    let (log, api) = pair();
    let peer = api.dial(&log).await.unwrap();
    let request = tail();
    let asks = (0..200).map(|_| peer.ask(&request, api.soon()));
    for reply in futures::future::join_all(asks).await {
        assert_eq!(reply, Ok(version(7)));
    }
}

#[tokio::test]
async fn items_and_replies_stream() {
    let (log, api) = pair();
    let peer = api.dial(&log).await.unwrap();
    let call = peer.call(&open_append(), CallOptions::default()).await.unwrap();
    let (mut items, mut replies) = call.split();
    // Large enough that windows fill and both directions must flow at once.
    let send = async {
        for _ in 0..40 {
            items.send(&proposals(1, 900 * 1024)).await.unwrap();
        }
        items.finish().await.unwrap();
    };
    let receive = async {
        let mut indexes = Vec::new();
        while let Some(reply) = replies.next().await.unwrap() {
            indexes.extend(reply.indexes);
        }
        indexes
    };
    let ((), indexes) = futures::future::join(send, receive).await;
    assert_eq!(indexes, (1..=40).map(LogIndex).collect::<Vec<_>>());
}

#[tokio::test]
async fn cancelling_stops_the_handler() {
    let (log, api) = pair();
    let peer = api.dial(&log).await.unwrap();
    // One handler waits for ever, one writes for ever.
    let hangs = peer.call(&ViewStatus { watch: true }, CallOptions::default()).await.unwrap();
    let mut follows =
        peer.call(&LogRead { epoch: None, from: LogIndex(5), follow: true }, CallOptions::default()).await.unwrap();
    assert_eq!(follows.next().await.unwrap().unwrap().first, LogIndex(5));
    assert_eq!(follows.next().await.unwrap().unwrap().first, LogIndex(6));
    log.until(|| log.seen.running.load(Ordering::SeqCst) == 2).await;
    drop(hangs);
    log.until(|| log.seen.running.load(Ordering::SeqCst) == 1).await;
    drop(follows);
    log.until(|| log.seen.running.load(Ordering::SeqCst) == 0).await;
    assert_eq!(peer.ask(&tail(), api.soon()).await, Ok(version(7)));
}

#[tokio::test]
async fn cancelled_calls_give_their_streams_back() {
    let (log, api) = pair();
    let peer = api.dial(&log).await.unwrap();
    // Together more than twice as many as may be open at once. quinn announces returned streams by
    // the eighth, so not quite all of them are there again.
    for _ in 0..3 {
        let mut open = Vec::new();
        for _ in 0..800 {
            open.push(peer.call(&ViewStatus { watch: true }, CallOptions::default()).await.unwrap());
        }
    }
    assert_eq!(peer.ask(&tail(), api.soon()).await, Ok(version(7)));
}

#[tokio::test]
async fn a_deadline_ends_the_call_on_both_sides() {
    let (log, api) = pair();
    let peer = api.dial(&log).await.unwrap();
    let deadline = Some(api.env.now() + Duration::from_millis(100));
    let mut call = peer.call(&ViewStatus { watch: true }, CallOptions { deadline }).await.unwrap();
    let error = call.next().await.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::Deadline, Retry::Elsewhere));
    // The caller is still there, and yet the handler is gone.
    log.until(|| log.seen.started.load(Ordering::SeqCst) == 1).await;
    log.until(|| log.seen.running.load(Ordering::SeqCst) == 0).await;
    drop(call);
}

#[tokio::test]
async fn what_a_role_may_not_do_is_denied() {
    let env = env();
    let cluster = Cluster::new(&env);
    let log = cluster.node(&env.child("log"), ANY, LOG_VA);
    let reader = cluster.node(&env.child("reader"), ANY, READER);
    let admin = cluster.node(&env.child("admin"), ANY, ADMIN);
    let denied = reader.dial(&log).await.unwrap().ask(&tail(), reader.soon()).await.unwrap_err();
    assert_eq!((denied.code, &denied.retry), (Code::Denied, &Retry::Never));
    assert!(denied.message.contains("client/ann"), "{denied}");
    assert!(denied.message.contains("LogTail"), "{denied}");
    let peer = admin.dial(&log).await.unwrap();
    assert_eq!(peer.ask(&tail(), admin.soon()).await, Ok(version(7)));
    // Allowed, but this node does not serve it.
    let unknown = peer.ask(&ApiStatus, admin.soon()).await.unwrap_err();
    assert_eq!(unknown.code, Code::UnknownKind);
}

#[tokio::test]
async fn a_panic_ends_one_call_and_is_counted() {
    let (log, api) = pair();
    let peer = api.dial(&log).await.unwrap();
    let error = peer.ask(&ViewVerdict { at: version(1) }, api.soon()).await.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::Internal, Retry::Elsewhere));
    assert_eq!(log.env.tasks().panics(), 1);
    assert_eq!(peer.ask(&tail(), api.soon()).await, Ok(version(7)));
    let error = peer.ask(&LogInfo, api.soon()).await.unwrap_err();
    assert_eq!(error, CallError::never(Code::UnknownKind, "no LogInfo here"));
    assert_eq!(log.env.tasks().panics(), 1);
}

#[tokio::test]
async fn strangers_are_refused() {
    let env = env();
    let (ours, theirs) = (Cluster::new(&env), Cluster::new(&env));
    let log = ours.node(&env.child("log"), ANY, LOG_VA);
    let stranger = theirs.node(&env.child("stranger"), ANY, API_VA);
    let error = stranger.dial(&log).await.unwrap_err();
    assert_eq!((error.code, &error.retry), (Code::Denied, &Retry::Elsewhere), "{error}");
    // The other way round it is the dialled one that is not trusted.
    let error = log.dial(&stranger).await.unwrap_err();
    assert_eq!(error.code, Code::Denied, "{error}");
    assert!(log.peers.connections().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_cluster_is_refused() {
    let env = env();
    let authority = Authority::create(&env, &name("other"), days(30)).unwrap();
    let other = Cluster { authority };
    let log = Cluster::new(&env).node(&env.child("log"), ANY, LOG_VA);
    let stranger = other.node(&env.child("stranger"), ANY, "spiffe://other/dc/va/node/api-va/role/api");
    assert_eq!(stranger.dial(&log).await.unwrap_err().code, Code::Denied);
    assert!(log.peers.connections().is_empty());
}

#[tokio::test]
async fn a_name_must_be_that_of_the_certificate() {
    let (log, api) = pair();
    // DNS lies: it says that log-or is where log-va is.
    let lie = Target { node: Some(name("log-or")), ..log.target() };
    let error = api.peers.peer(&lie, Lane::Calls).await.unwrap_err();
    assert_eq!((error.code, error.retry.clone()), (Code::Unavailable, Retry::Elsewhere));
    assert!(error.message.contains("log-va"), "{error}");
    let lie = Target { datacenter: Some(name("or")), ..log.target() };
    assert_eq!(api.peers.peer(&lie, Lane::Calls).await.unwrap_err().code, Code::Unavailable);
    assert!(api.peers.connections().is_empty());
    // Whoever wants any node gets this one.
    let anyone = Target { node: None, datacenter: None, ..log.target() };
    let peer = api.peers.peer(&anyone, Lane::Calls).await.unwrap();
    assert_eq!(peer.info().identity, log.identity);
}

#[tokio::test]
async fn the_second_address_is_tried_when_the_first_leads_elsewhere() {
    let env = env();
    let cluster = Cluster::new(&env);
    let log = cluster.node(&env.child("log"), ANY, LOG_VA);
    let view = cluster.node(&env.child("view"), ANY, VIEW_OR);
    let api = cluster.node(&env.child("api"), ANY, API_VA);
    let target = Target { addresses: vec![view.address(), log.address()], ..log.target() };
    assert_eq!(api.peers.peer(&target, Lane::Calls).await.unwrap().info().identity, log.identity);
}

#[tokio::test]
async fn concurrent_askers_share_a_dial_and_lanes_do_not_share_connections() {
    let (log, api) = pair();
    let dials = (0..20).map(|_| api.dial(&log));
    for peer in futures::future::join_all(dials).await {
        peer.unwrap();
    }
    assert_eq!(api.peers.connections().len(), 1);
    let raft = api.peers.peer(&log.target(), Lane::Raft).await.unwrap();
    assert_eq!(raft.info().lane, Lane::Raft);
    assert_eq!(raft.ask(&tail(), api.soon()).await, Ok(version(7)));
    assert_eq!(api.peers.connections().len(), 2);
}

#[tokio::test]
async fn a_node_may_dial_itself() {
    let (log, _) = pair();
    // It may have itself as log-va only: log nodes may call LogTail.
    let peer = log.dial(&log).await.unwrap();
    assert_eq!(peer.ask(&tail(), log.soon()).await, Ok(version(7)));
}

#[tokio::test]
async fn a_failed_dial_is_told_to_all_for_a_moment() {
    let (log, api) = pair();
    let target = Target { addresses: vec![], ..log.target() };
    let first = api.peers.peer(&target, Lane::Calls).await.unwrap_err();
    assert_eq!((first.code, first.retry.clone()), (Code::Unavailable, Retry::Elsewhere));
    assert_eq!(api.peers.peer(&target, Lane::Calls).await.unwrap_err(), first);
    // With an address it is another question.
    api.dial(&log).await.unwrap();
}

#[tokio::test]
async fn a_restarted_node_replaces_its_old_connections() {
    let env = env();
    let cluster = Cluster::new(&env);
    let api = cluster.node(&env.child("api"), ANY, API_VA);
    let first = cluster.node(&env.child("log"), ANY, LOG_VA);
    first.dial(&api).await.unwrap();
    let address = first.address();
    // It dies without a word.
    first.env.tasks().kill();
    first.env.tasks().join().await;
    drop(first);
    let second = cluster.node(&env.child("log"), &address.to_string(), LOG_VA);
    second.dial(&api).await.unwrap();
    api.until(|| api.peers.connections().len() == 1).await;
    let found = api.peers.peer(&Target { addresses: vec![], ..second.target() }, Lane::Calls).await.unwrap();
    assert_eq!(found.info().hello.boot, second.boot);
}

#[tokio::test]
async fn a_borrowed_certificate_replaces_nobody() {
    let env = env();
    let cluster = Cluster::new(&env);
    let api = cluster.node(&env.child("api"), ANY, API_VA);
    let log = cluster.node(&env.child("log"), ANY, LOG_VA);
    let borrower = cluster.node(&env.child("borrower"), ANY, LOG_VA);
    let first = log.dial(&api).await.unwrap();
    let second = borrower.dial(&api).await.unwrap();
    assert_eq!(second.ask(&tail(), log.soon()).await, Ok(version(7)));
    assert_eq!(first.ask(&tail(), log.soon()).await, Ok(version(7)));
}

#[tokio::test]
async fn closing_an_endpoint_tells_its_peers() {
    let (log, api) = pair();
    let peer = api.dial(&log).await.unwrap();
    log.peers.endpoint().close("stopping").await;
    peer.closed().await;
    assert!(peer.is_closed());
    let error = peer.ask(&tail(), api.soon()).await.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::Disconnected, Retry::Elsewhere));
}

#[tokio::test]
async fn a_new_certificate_serves_the_next_handshake() {
    let env = env();
    let cluster = Cluster::new(&env);
    let log = cluster.node(&env.child("log"), ANY, LOG_VA);
    let api = cluster.node(&env.child("api"), ANY, API_VA);
    let before = api.dial(&log).await.unwrap();
    log.peers.endpoint().set_tls(cluster.tls(&env, LOG_VA, days(2))).unwrap();
    let after = api.peers.peer(&log.target(), Lane::Bulk).await.unwrap();
    assert!(after.info().not_after > before.info().not_after);
    assert_eq!(before.ask(&tail(), api.soon()).await, Ok(version(7)));
}

/// What only a peer that does not use this crate can send.
mod raw {
    use super::*;
    use quinn::crypto::rustls::QuicClientConfig;

    pub struct Raw {
        pub connection: quinn::Connection,
        _endpoint: quinn::Endpoint,
    }

    pub async fn connect(cluster: &Cluster, env: &Env, to: &Node) -> Raw {
        let tls = cluster.tls(env, API_VA, days(1));
        let crypto = QuicClientConfig::try_from((*tls.client).clone()).unwrap();
        let mut endpoint = quinn::Endpoint::client(ANY.parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        let connection = endpoint.connect(to.address(), "beam").unwrap().await.unwrap();
        Raw { connection, _endpoint: endpoint }
    }

    pub fn frame(tag: u8, payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_le_bytes()[..], &[tag], payload].concat()
    }

    pub fn open<M: serde::Serialize>(kind: u16, request: &M) -> Vec<u8> {
        frame(1, &codec::encode(&(kind, TraceContext::default(), None::<u32>, request)))
    }

    impl Raw {
        pub async fn hello(self) -> Raw {
            let hello = Hello::of(&identity(API_VA), 1);
            let (sent, _) = self.call(&open(Kind::Hello as u16, &Greeting { lane: Lane::Calls, hello })).await;
            assert_eq!(sent, 4, "the hello was not answered");
            self
        }

        /// Sends bytes, finishes, and gives the tag of the first frame back, and its payload.
        pub async fn call(&self, bytes: &[u8]) -> (u8, Vec<u8>) {
            let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            // It may have been stopped already.
            let _ = send.finish();
            let all = receive.read_to_end(4 << 20).await.unwrap();
            let length = u32::from_le_bytes(all[..4].try_into().unwrap()) as usize;
            (all[4], all[5..5 + length].to_vec())
        }

        pub async fn error(&self, bytes: &[u8]) -> CallError {
            let (tag, payload) = self.call(bytes).await;
            assert_eq!(tag, 6);
            codec::decode(&payload).unwrap()
        }
    }
}

#[tokio::test]
async fn bad_bytes_get_an_error_and_the_connection_lives() {
    let env = env();
    let cluster = Cluster::new(&env);
    let log = cluster.node(&env.child("log"), ANY, LOG_VA);
    let raw = raw::connect(&cluster, &env, &log).await.hello().await;
    let tail_kind = Kind::LogTail as u16;

    let error = raw.error(&raw::open(999, &())).await;
    assert_eq!((error.code, error.message.contains("999")), (Code::UnknownKind, true));

    let error = raw.error(&raw::open(tail_kind, &(tail(), 0u8))).await;
    assert_eq!(error.code, Code::Invalid, "{error}");
    assert!(error.message.contains("1 bytes follow"), "{error}");

    let too_long = [&((FRAME_BYTES_MAX + 1) as u32).to_le_bytes()[..], &[1]].concat();
    let error = raw.error(&too_long).await;
    assert_eq!(error.code, Code::TooLarge, "{error}");

    let error = raw.error(&[0, 0, 0, 0, 77]).await;
    assert_eq!(error.code, Code::Invalid, "{error}");

    let error = raw.error(&raw::frame(2, &[])).await;
    assert_eq!(error.code, Code::Invalid, "{error}");

    let hello = Hello::of(&identity(API_VA), 1);
    let error = raw.error(&raw::open(Kind::Hello as u16, &Greeting { lane: Lane::Calls, hello })).await;
    assert_eq!(error.code, Code::Invalid, "{error}");

    // An item too large, after a good request.
    let append = raw::open(Kind::LogAppend as u16, &open_append());
    let error = raw.error(&[append.as_slice(), &too_long].concat()).await;
    assert_eq!(error.code, Code::TooLarge, "{error}");
    // Items that stop without saying so.
    let error = raw.error(&append).await;
    assert_eq!(error.code, Code::Disconnected, "{error}");
    assert_eq!(log.seen.item_errors.lock().unwrap().len(), 2);

    let (tag, reply) = raw.call(&raw::open(tail_kind, &tail())).await;
    assert_eq!((tag, codec::decode(&reply)), (4, Ok(version(7))));
}

#[tokio::test]
async fn a_half_written_request_is_nothing() {
    let env = env();
    let cluster = Cluster::new(&env);
    let log = cluster.node(&env.child("log"), ANY, LOG_VA);
    let raw = raw::connect(&cluster, &env, &log).await.hello().await;
    let whole = raw::open(Kind::ViewStatus as u16, &ViewStatus { watch: true });
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    send.write_all(&whole[..whole.len() - 1]).await.unwrap();
    send.finish().unwrap();
    assert!(matches!(receive.read_to_end(100).await, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_)))));
    assert_eq!(log.seen.started.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nothing_is_served_before_hello_nor_after_a_lie() {
    let env = env();
    let cluster = Cluster::new(&env);
    let log = cluster.node(&env.child("log"), ANY, LOG_VA);

    let raw = raw::connect(&cluster, &env, &log).await;
    let (mut send, _receive) = raw.connection.open_bi().await.unwrap();
    send.write_all(&raw::open(Kind::LogTail as u16, &tail())).await.unwrap();
    let closed = raw.connection.closed().await.to_string();
    assert!(closed.contains("did not say hello"), "{closed}");

    let raw = raw::connect(&cluster, &env, &log).await;
    let lie = Hello { name: name("api-or"), ..Hello::of(&identity(API_VA), 1) };
    let (mut send, _receive) = raw.connection.open_bi().await.unwrap();
    send.write_all(&raw::open(Kind::Hello as u16, &Greeting { lane: Lane::Calls, hello: lie })).await.unwrap();
    let closed = raw.connection.closed().await.to_string();
    assert!(closed.contains("api-or"), "{closed}");
    assert!(log.peers.connections().is_empty());
}

//! All connections of one endpoint: accepted or dialled, checked, pooled, served, and ended.

use super::frame::{self, CallHeader, FrameReader, FrameWriter, Tag, TraceContext, reason};
use super::peer::{Refusal, certified, check_cluster, check_hello, lost};
use super::serve::{dispatch, first_frame};
use super::{Endpoint, Lane, Peer, PeerInfo, Service};
use crate::env::Env;
use crate::error::{CallError, Code};
use crate::identity::Identity;
use crate::ids::Name;
use crate::message::hello::{Greeting, Hello};
use crate::message::{Call, Kind};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use quinn::Connection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

/// How long one address may take to shake hands and say hello: two round trips, and a lost packet.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a peer that dials us may take for the same.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);

/// How long all who ask after a failed dial are told of it at once, rather than dial again.
const DIAL_PAUSE: Duration = Duration::from_millis(200);

/// Handshakes at once. Each costs about a millisecond of one core; more would only make all of them late.
const HANDSHAKES_MAX: usize = 64;

/// With fewer free than this, a dialler must first prove its address, at the cost of a round trip.
const HANDSHAKES_SCARCE: usize = 16;

/// Whom to dial. The certificate at the other end must agree with what is given here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The node's name; none to take any node that answers.
    pub node: Option<Name>,
    /// Its datacenter, if that matters.
    pub datacenter: Option<Name>,
    /// Where to try, in this order.
    pub addresses: Vec<SocketAddr>,
}

/// Every connection of one endpoint, accepted or dialled. Clones share them.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    endpoint: Endpoint,
    service: Arc<dyn Service>,
    handshakes: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// By age.
    connections: BTreeMap<u64, Peer>,
    /// The same, of nodes, by name, oldest first.
    nodes: BTreeMap<Name, Vec<Peer>>,
    dials: BTreeMap<DialKey, Dial>,
}

type DialKey = (Target, Lane);

enum Dial {
    Underway(Shared<BoxFuture<'static, Result<Peer, CallError>>>),
    Failed { until: Instant, error: CallError },
}

impl Peers {
    /// Starts to accept, if the endpoint has a server's certificate.
    pub fn start(env: Env, endpoint: Endpoint, service: Arc<dyn Service>) -> Peers {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let inner = Inner { env, endpoint, service, handshakes, state: Mutex::default() };
        let peers = Peers { inner: Arc::new(inner) };
        // It ends when the endpoint is closed, or with all tasks.
        peers.inner.env.tasks().serve("quic.accept", peers.clone().accept()).detach();
        peers
    }

    /// A healthy connection, from the pool or dialled now. All who ask for the same share one dial,
    /// which takes two seconds an address at most; for a moment after a failure others fail at once.
    pub async fn peer(&self, target: &Target, lane: Lane) -> Result<Peer, CallError> {
        let dial = {
            let mut state = self.inner.state();
            if let Some(peer) = state.find(target, lane) {
                return Ok(peer);
            }
            let key = (target.clone(), lane);
            match state.dials.get(&key) {
                Some(Dial::Underway(dial)) => dial.clone(),
                Some(Dial::Failed { until, error }) if self.inner.env.now() < *until => return Err(error.clone()),
                _ => {
                    let dial = self.start_dial(key.clone());
                    state.dials.insert(key, Dial::Underway(dial.clone()));
                    dial
                }
            }
        };
        dial.await
    }

    /// Who is connected now.
    pub fn connections(&self) -> Vec<PeerInfo> {
        self.inner.state().connections.values().map(|peer| peer.info().clone()).collect()
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Dials in a task of its own: the first who asked may leave, and others still wait.
    fn start_dial(&self, key: DialKey) -> Shared<BoxFuture<'static, Result<Peer, CallError>>> {
        let (done, outcome) = oneshot::channel();
        let peers = self.clone();
        let task = async move {
            let dialled = peers.dial(&key.0, key.1).await;
            let mut state = peers.inner.state();
            let now = peers.inner.env.now();
            state.dials.retain(|_, dial| !matches!(dial, Dial::Failed { until, .. } if *until <= now));
            match &dialled {
                Ok(_) => state.dials.remove(&key),
                Err(error) => state.dials.insert(key, Dial::Failed { until: now + DIAL_PAUSE, error: error.clone() }),
            };
            drop(state);
            // All who asked may have left.
            let _ = done.send(dialled);
        };
        self.inner.env.tasks().serve("quic.dial", task).detach();
        let stopped = || CallError::elsewhere(Code::Unavailable, "this node is stopping");
        outcome.map(move |outcome| outcome.unwrap_or_else(|_| Err(stopped()))).boxed().shared()
    }

    async fn dial(&self, target: &Target, lane: Lane) -> Result<Peer, CallError> {
        let name = || target.node.as_ref().map_or("a node".to_owned(), Name::to_string);
        let mut failures = Vec::new();
        let mut denied = true;
        for address in &target.addresses {
            let failure = match self.inner.env.timeout(DIAL_TIMEOUT, self.dial_address(target, lane, *address)).await {
                Ok(Ok(peer)) => return Ok(peer),
                Ok(Err(e)) => e,
                Err(_) => CallError::elsewhere(Code::Unavailable, "no answer"),
            };
            denied &= failure.code == Code::Denied;
            failures.push(format!("{address}: {failure}"));
        }
        if failures.is_empty() {
            return Err(CallError::elsewhere(Code::Unavailable, format!("no address is known of {}", name())));
        }
        let code = if denied { Code::Denied } else { Code::Unavailable };
        Err(CallError::elsewhere(code, format!("cannot reach {}: {}", name(), failures.join("; "))))
    }

    async fn dial_address(&self, target: &Target, lane: Lane, address: SocketAddr) -> Result<Peer, CallError> {
        let failed = |e: &dyn std::fmt::Display| CallError::elsewhere(Code::Unavailable, e.to_string());
        let connecting = self.inner.endpoint.connect(address).map_err(|e| failed(&e))?;
        let connection = CloseOnDrop::new(connecting.await.map_err(|e| lost(&e))?);
        let refuse = |refusal: Refusal| {
            connection.refuse(&refusal);
            failed(&refusal)
        };
        let (ours, our_end) = self.inner.endpoint.certified();
        let certified = certified(&connection.0).map_err(refuse)?;
        check_cluster(&certified.identity, &ours).map_err(refuse)?;
        target.check(&certified.identity).map_err(refuse)?;
        let hello = match self.greet(&connection.0, lane).await {
            Ok(hello) => hello,
            // Why the connection broke says more than that the stream did.
            Err(e) => return Err(connection.0.close_reason().map_or(e, |reason| lost(&reason))),
        };
        check_hello(&hello, &certified.identity).map_err(refuse)?;
        let info = PeerInfo {
            identity: certified.identity,
            hello,
            remote: address,
            lane,
            dialled: true,
            not_after: certified.not_after,
        };
        Ok(self.admit(connection.keep(), info, our_end))
    }

    /// The dialler's hello, and the answer to it.
    async fn greet(&self, connection: &Connection, lane: Lane) -> Result<Hello, CallError> {
        let broken = |e: quinn::ConnectionError| lost(&e);
        let (send, receive) = connection.open_bi().await.map_err(broken)?;
        let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
        let header = CallHeader { kind: Greeting::KIND as u16, trace: TraceContext::default(), deadline_ms: None };
        writer.push(Tag::Open, &(header, Greeting { lane, hello: self.inner.service.hello() }))?;
        writer.push_empty(Tag::ItemsEnd);
        writer.finish().await?;
        match reader.frame().await? {
            Some((Tag::Reply, payload)) => Ok(frame::read(&payload)?),
            Some((Tag::Error, payload)) => Err(frame::read::<CallError>(&payload)?),
            _ => Err(CallError::elsewhere(Code::Disconnected, "the peer did not say hello")),
        }
    }

    async fn accept(self) {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = self.inner.handshakes.clone().acquire_owned().await else { return };
            let Some(incoming) = self.inner.endpoint.accept().await else { return };
            let scarce = self.inner.handshakes.available_permits() < HANDSHAKES_SCARCE;
            if scarce && !incoming.remote_address_validated() && incoming.may_retry() {
                if let Err(e) = incoming.retry() {
                    tracing::debug!("a dialler was not asked to prove its address: {e}");
                }
                continue;
            }
            let peers = self.clone();
            let handshake = async move {
                let from = incoming.remote_address();
                match peers.inner.env.timeout(GREETING_TIMEOUT, peers.welcome(incoming)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(e)) => tracing::info!("{from} was not let in: {e}"),
                    Err(_) => tracing::info!("{from} was not let in: it took too long"),
                }
                drop(permit);
            };
            self.inner.env.tasks().serve("quic.welcome", handshake).detach();
        }
    }

    /// Shakes hands with a dialler, and hears its hello before anything else.
    async fn welcome(&self, incoming: quinn::Incoming) -> Result<Peer, CallError> {
        let connecting = incoming.accept().map_err(|e| lost(&e))?;
        let connection = CloseOnDrop::new(connecting.await.map_err(|e| lost(&e))?);
        let refuse = |refusal: Refusal| {
            connection.refuse(&refusal);
            CallError::never(Code::Denied, refusal.to_string())
        };
        let (ours, our_end) = self.inner.endpoint.certified();
        let certified = certified(&connection.0).map_err(refuse)?;
        check_cluster(&certified.identity, &ours).map_err(refuse)?;
        let (send, receive) = connection.0.accept_bi().await.map_err(|e| lost(&e))?;
        let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
        let (header, request) = first_frame(&mut reader).await?;
        if header.kind != Kind::Hello as u16 {
            return Err(refuse(Refusal::NoHello(format!("its first call is of kind {}", header.kind))));
        }
        let greeting: Greeting = frame::read(&request).map_err(|e| refuse(Refusal::NoHello(e.to_string())))?;
        check_hello(&greeting.hello, &certified.identity).map_err(refuse)?;
        writer.push(Tag::Reply, &self.inner.service.hello())?;
        writer.push_empty(Tag::Done);
        writer.finish().await?;
        let info = PeerInfo {
            identity: certified.identity,
            hello: greeting.hello,
            remote: connection.0.remote_address(),
            lane: greeting.lane,
            dialled: false,
            not_after: certified.not_after,
        };
        Ok(self.admit(connection.keep(), info, our_end))
    }

    /// Takes a healthy connection into the pool, and serves it until it ends.
    fn admit(&self, connection: Connection, info: PeerInfo, our_end: Duration) -> Peer {
        let ends = info.not_after.min(our_end);
        let peer = Peer::new(self.inner.env.clone(), connection, Arc::new(info));
        let id = self.inner.state().insert(peer.clone());
        let peers = self.clone();
        let served = peer.clone();
        let task = async move {
            let left = ends.saturating_sub(peers.inner.env.unix_time());
            tokio::select! {
                biased;
                () = peers.serve(&served) => {}
                () = peers.inner.env.sleep(left) => {
                    served.connection().close(reason::EXPIRED, b"a certificate has ended");
                }
            }
            peers.inner.state().remove(id);
        };
        self.inner.env.tasks().serve("quic.connection", task).detach();
        peer
    }

    async fn serve(&self, peer: &Peer) {
        let i = &self.inner;
        while let Ok((send, receive)) = peer.connection().accept_bi().await {
            let info = peer.shared_info().clone();
            let call = dispatch(i.env.clone(), i.service.clone(), info, send, receive);
            i.env.tasks().serve("quic.call", call).detach();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }
}

impl Target {
    /// Whether a certificate is of whom we want.
    fn check(&self, identity: &Identity) -> Result<(), Refusal> {
        let other = |wanted: String| Err(Refusal::Other { found: identity.to_string(), wanted });
        let Identity::Node { datacenter, node, .. } = identity else { return other("a node".into()) };
        match (&self.node, &self.datacenter) {
            (Some(name), _) if name != node => other(format!("node {name}")),
            (_, Some(name)) if name != datacenter => other(format!("in datacenter {name}")),
            _ => Ok(()),
        }
    }
}

impl State {
    /// The newest live connection: after a restart of the peer, older ones are dead and do not know it.
    fn find(&self, target: &Target, lane: Lane) -> Option<Peer> {
        let fits =
            |peer: &&Peer| peer.info().lane == lane && !peer.is_closed() && target.check(&peer.info().identity).is_ok();
        match &target.node {
            Some(node) => self.nodes.get(node)?.iter().rev().find(fits).cloned(),
            None => {
                let there = |peer: &&Peer| target.addresses.contains(&peer.info().remote);
                self.connections.values().rev().filter(there).find(fits).cloned()
            }
        }
    }

    fn insert(&mut self, peer: Peer) -> u64 {
        let id = self.next;
        self.next += 1;
        if let Identity::Node { node, .. } = &peer.info().identity {
            let same = self.nodes.entry(node.clone()).or_default();
            // Another process on the same address: the one that had it before is gone. A program that
            // borrows a node's certificate has an address of its own, and replaces nobody.
            let gone = |old: &&Peer| {
                old.info().remote == peer.info().remote && old.info().hello.boot != peer.info().hello.boot
            };
            for old in same.iter().filter(gone) {
                old.connection().close(reason::REPLACED, b"this node has started again since");
            }
            same.push(peer.clone());
        }
        self.connections.insert(id, peer);
        id
    }

    fn remove(&mut self, id: u64) {
        let Some(peer) = self.connections.remove(&id) else { return };
        let Identity::Node { node, .. } = &peer.info().identity else { return };
        if let Some(same) = self.nodes.get_mut(node) {
            same.retain(|other| other.connection().stable_id() != peer.connection().stable_id());
            if same.is_empty() {
                self.nodes.remove(node);
            }
        }
    }
}

/// A connection that is not healthy yet: it is closed when its handshake is given up.
struct CloseOnDrop(Connection, bool);

impl CloseOnDrop {
    fn new(connection: Connection) -> Self {
        Self(connection, true)
    }

    fn refuse(&self, refusal: &Refusal) {
        self.0.close(reason::REFUSED, refusal.to_string().as_bytes());
    }

    fn keep(mut self) -> Connection {
        self.1 = false;
        self.0.clone()
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if self.1 {
            self.0.close(reason::REFUSED, b"no hello came of it");
        }
    }
}

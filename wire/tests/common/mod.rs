//! Two or more peers that know each other, and a service whose behaviour each test picks by the call
//! that it makes.

#![allow(dead_code, reason = "each test file uses a part of it")]

use beam_certs::{Authority, days};
use beam_wire::env::{Dns, DnsError, Env, SrvAnswer};
use beam_wire::ids::{Epoch, LogIndex, Name, Version};
use beam_wire::message::Kind;
use beam_wire::message::hello::Hello;
use beam_wire::message::log::{Appended, Entries, LogAppend, LogRead, LogTail};
use beam_wire::message::view::{ViewStatus, ViewVerdict};
use beam_wire::quic::{Endpoint, EndpointOptions, Handle, Incoming, Lane, Peer, Peers, Service, Target, Tls};
use beam_wire::{CallError, Code, Identity};
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn identity(uri: &str) -> Identity {
    uri.parse().unwrap()
}

pub struct NoDns;

impl Dns for NoDns {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>> {
        Box::pin(async move { Err(DnsError::NoSuchName(name.into())) })
    }
}

/// What the handlers of one peer have seen.
#[derive(Default)]
pub struct Seen {
    /// Handlers of `ViewStatus` and `LogRead` that run now.
    pub running: AtomicU64,
    /// How many of them have ever started.
    pub started: AtomicU64,
    /// Errors that handlers of `LogAppend` got for items.
    pub item_errors: Mutex<Vec<CallError>>,
}

pub struct Running(Arc<Seen>);

impl Running {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.running.fetch_add(1, Ordering::SeqCst);
        seen.started.fetch_add(1, Ordering::SeqCst);
        Running(seen.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// `LogAppend` answers each item with as many indexes as it has proposals; `LogRead` replies for
/// ever; `LogTail` replies once; `ViewStatus` hangs; `ViewVerdict` panics; others are unknown.
pub struct Echo {
    pub identity: Identity,
    pub boot: u64,
    pub seen: Arc<Seen>,
}

impl Service for Echo {
    fn hello(&self) -> Hello {
        Hello::of(&self.identity, self.boot)
    }

    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        let seen = self.seen.clone();
        match call.kind {
            Kind::LogAppend => Box::pin(async move { append(call.open()?, seen).await }),
            Kind::LogRead => Box::pin(async move { read(call.open()?, seen).await }),
            Kind::LogTail => Box::pin(async move { call.open::<LogTail>()?.reply(&version(7)).await }),
            Kind::ViewStatus => Box::pin(async move {
                let _handle = call.open::<ViewStatus>()?;
                let _running = Running::new(&seen);
                std::future::pending().await
            }),
            Kind::ViewVerdict => Box::pin(async move {
                let _handle = call.open::<ViewVerdict>()?;
                panic!("as asked")
            }),
            other => Box::pin(async move { Err(CallError::never(Code::UnknownKind, format!("no {other:?} here"))) }),
        }
    }
}

async fn append(mut call: Handle<LogAppend>, seen: Arc<Seen>) -> Result<(), CallError> {
    let mut next = 1;
    loop {
        let item = match call.item().await {
            Ok(Some(item)) => item,
            Ok(None) => return Ok(()),
            Err(e) => {
                seen.item_errors.lock().unwrap().push(e.clone());
                return Err(e);
            }
        };
        let count = item.proposals.len() as u64;
        let indexes = (next..next + count).map(LogIndex).collect();
        next += count;
        call.reply(&Appended { epoch: Epoch(1), indexes }).await?;
    }
}

async fn read(mut call: Handle<LogRead>, seen: Arc<Seen>) -> Result<(), CallError> {
    let _running = Running::new(&seen);
    let mut first = call.request.from;
    loop {
        let entries = Entries { epoch: Epoch(1), committed: first, first, entries: Vec::new() };
        call.reply(&entries).await?;
        first = first.next();
    }
}

pub fn version(index: u64) -> Version {
    Version { epoch: Epoch(1), index: LogIndex(index) }
}

/// One authority, and the peers that it knows.
pub struct Cluster {
    pub authority: Authority,
}

pub struct Node {
    pub env: Env,
    pub identity: Identity,
    pub boot: u64,
    pub peers: Peers,
    pub seen: Arc<Seen>,
}

impl Cluster {
    pub fn new(env: &Env) -> Cluster {
        Cluster { authority: Authority::create(env, &name("beam"), days(30)).unwrap() }
    }

    pub fn tls(&self, env: &Env, uri: &str, lifetime: Duration) -> Tls {
        self.authority.issue(env, &identity(uri), lifetime).unwrap().tls(env).unwrap()
    }

    pub fn node(&self, env: &Env, bind: &str, uri: &str) -> Node {
        self.node_for(env, bind, uri, days(1))
    }

    pub fn node_for(&self, env: &Env, bind: &str, uri: &str, lifetime: Duration) -> Node {
        self.node_with(env, bind, uri, lifetime, |_| {})
    }

    pub fn node_with(
        &self,
        env: &Env,
        bind: &str,
        uri: &str,
        lifetime: Duration,
        adjust: impl FnOnce(&mut EndpointOptions),
    ) -> Node {
        let mut tls = self.tls(env, uri, lifetime);
        if matches!(identity(uri), Identity::Client { .. }) {
            tls.server = None;
        }
        let mut options = EndpointOptions::wan(env.random());
        adjust(&mut options);
        let endpoint = Endpoint::open(env, bind.parse().unwrap(), tls, options).unwrap();
        let seen = Arc::new(Seen::default());
        let boot = env.random_u64();
        let echo = Echo { identity: identity(uri), boot, seen: seen.clone() };
        let peers = Peers::start(env.clone(), endpoint, Arc::new(echo));
        Node { env: env.clone(), identity: identity(uri), boot, peers, seen }
    }
}

impl Node {
    pub fn address(&self) -> SocketAddr {
        self.peers.endpoint().local_addr()
    }

    pub fn target(&self) -> Target {
        Target {
            node: Some(self.identity.name().clone()),
            datacenter: self.identity.datacenter().cloned(),
            addresses: vec![self.address()],
        }
    }

    pub async fn dial(&self, other: &Node) -> Result<Peer, CallError> {
        self.peers.peer(&other.target(), Lane::Calls).await
    }

    pub fn soon(&self) -> tokio::time::Instant {
        self.env.now() + Duration::from_secs(20)
    }

    /// Waits until `what` holds.
    pub async fn until(&self, what: impl Fn() -> bool) {
        while !what() {
            self.env.sleep(Duration::from_millis(5)).await;
        }
    }
}

//! A view whose replies are late now and then: it passes calls on to the real one, and holds some answers back. Packets that a
//! network holds back would be sent again soon, so this cannot be done to packets.

use anyhow::Result;
use beam_certs::Credentials;
use beam_wire::env::Env;
use beam_wire::message::hello::Hello;
use beam_wire::message::view::{ViewCount, ViewInstances, ViewLoad, ViewLookup, ViewStatus, ViewTerms, ViewVerdict};
use beam_wire::message::{Call, Kind};
use beam_wire::quic::{CallOptions, Endpoint, EndpointOptions, Incoming, Lane, Peers, Service, Target};
use beam_wire::{CallError, Code, Name};
use futures::future::{BoxFuture, FutureExt};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// By how much a late reply is late.
const LATE: Duration = Duration::from_secs(1);

/// A view's double.
pub struct Relay {
    address: SocketAddr,
    double: Arc<Double>,
}

struct Double {
    env: Env,
    hello: Hello,
    view: Target,
    /// Of so many replies, in a million, each is late.
    late_ppm: AtomicU32,
    peers: OnceLock<Peers>,
}

impl Relay {
    /// Stands in for the view at `at`, with its certificate.
    pub async fn start(env: &Env, certs: &Path, view: &Name, at: SocketAddr) -> Result<Relay> {
        let tls = Credentials::load(certs, view.as_str())?.tls(env)?;
        let hello = Hello::of(&tls.identity, env.random_u64());
        let here = SocketAddr::new(at.ip(), 0);
        let endpoint = Endpoint::open(env, here, tls, EndpointOptions::wan(env.random()).at(here))?;
        let view = Target { node: Some(view.clone()), datacenter: None, addresses: vec![at] };
        let double =
            Arc::new(Double { env: env.clone(), hello, view, late_ppm: AtomicU32::new(0), peers: OnceLock::new() });
        let address = endpoint.local_addr();
        let peers = Peers::start(env.clone(), endpoint, Arc::new(Answering(double.clone())));
        double.peers.get_or_init(|| peers);
        Ok(Relay { address, double })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this share of replies is late.
    pub fn set_late(&self, share: f64) {
        self.double.late_ppm.store((share * 1e6) as u32, Ordering::Relaxed);
    }
}

impl Double {
    async fn pass<C: Call>(&self, call: Incoming) -> Result<(), CallError> {
        let mut call = call.open::<C>()?;
        let starting = || CallError::elsewhere(Code::Unavailable, "not started yet");
        let peer = self.peers.get().ok_or_else(starting)?.peer(&self.view, Lane::Calls).await?;
        let mut passed = peer.call(&call.request, CallOptions { deadline: call.deadline }).await?;
        let is_asked = matches!(C::KIND, Kind::ViewLookup | Kind::ViewTerms | Kind::ViewVerdict | Kind::ViewCount);
        if is_asked && self.env.random_below(1_000_000) < self.late_ppm.load(Ordering::Relaxed) as usize {
            self.env.sleep(LATE).await;
        }
        while let Some(reply) = passed.next().await? {
            call.reply(&reply).await?;
        }
        Ok(())
    }

    async fn answer(self: Arc<Self>, call: Incoming) -> Result<(), CallError> {
        match call.kind {
            Kind::ViewStatus => self.pass::<ViewStatus>(call).await,
            Kind::ViewInstances => self.pass::<ViewInstances>(call).await,
            Kind::ViewLoad => self.pass::<ViewLoad>(call).await,
            Kind::ViewLookup => self.pass::<ViewLookup>(call).await,
            Kind::ViewTerms => self.pass::<ViewTerms>(call).await,
            Kind::ViewVerdict => self.pass::<ViewVerdict>(call).await,
            Kind::ViewCount => self.pass::<ViewCount>(call).await,
            other => Err(CallError::never(Code::UnknownKind, format!("a double does not pass on {other:?}"))),
        }
    }
}

/// What the double's peers hold, which it holds.
struct Answering(Arc<Double>);

impl Service for Answering {
    fn hello(&self) -> Hello {
        self.0.hello.clone()
    }

    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        self.0.clone().answer(call).boxed()
    }
}

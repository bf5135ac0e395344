//! Where a node gets its clock, chance, sockets, DNS and tasks: an [`Env`], and nothing else.
//!
//! Real programs start with [`Env::real`]; tests with [`sim::SimWorld`], in which time is virtual,
//! chance is seeded and the network lives in memory, so that a whole cluster of real QUIC endpoints
//! runs in one thread, and the same seed gives the same packets at the same instants.
//!
//! What this room promises:
//! - every task belongs to the [`Tasks`] of one `Env`, and dies with it ([`Tasks::kill`]);
//! - nothing in the product reads another clock or draws other chance;
//! - [`Env::now`] is tokio's clock, so that timers, quinn and we agree on what time it is.
//!
//! What it never does: it does not stop a blocking closure that runs already.

pub mod chance;
pub mod dns;
pub mod sim;
pub mod sockets;
pub mod tasks;
pub mod wan;

pub use dns::{Dns, DnsError, SrvAnswer, SrvTarget};
pub use sockets::{Sockets, UdpSockets};
pub use tasks::{Ended, Task, Tasks};

use chance::Chance;
use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

tokio::task_local! {
    static CURRENT: Env;
}

/// Clock, chance, sockets, DNS and tasks of one node or client. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    clock: Clock,
    chance: Chance,
    sockets: Arc<dyn Sockets>,
    dns: Arc<dyn Dns>,
    crypto: Arc<CryptoProvider>,
    tasks: Tasks,
}

/// What the wall clock says. Instants are tokio's, which is paused in simulation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    System,
    /// The unix time at an instant of tokio's clock.
    Virtual {
        born: Instant,
        unix: Duration,
    },
}

impl Env {
    /// The operating system's clock, entropy and UDP, in the tokio runtime of whoever calls.
    pub fn real(dns: Arc<dyn Dns>) -> Env {
        Env::with_sockets(dns, Arc::new(sockets::UdpSockets))
    }

    /// As [`Env::real`], with other sockets: see [`wan`].
    pub fn with_sockets(dns: Arc<dyn Dns>, sockets: Arc<dyn Sockets>) -> Env {
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        Env::build("", Clock::System, Chance::from_os(), sockets, dns, crypto)
    }

    fn build(
        name: &str,
        clock: Clock,
        chance: Chance,
        sockets: Arc<dyn Sockets>,
        dns: Arc<dyn Dns>,
        crypto: Arc<CryptoProvider>,
    ) -> Env {
        let inner = Arc::new_cyclic(|inner| Inner {
            name: name.to_owned(),
            clock,
            chance,
            sockets,
            dns,
            crypto,
            tasks: Tasks::new(inner.clone()),
        });
        Env { inner }
    }

    /// The same clock, sockets and DNS, with tasks of its own. [`Tasks::kill`] of the parent kills
    /// the child too; the end of a child's task says nothing to the parent. In simulation the child
    /// draws its chance from a stream of its own, which its name and the parent's chance give.
    pub fn child(&self, name: &str) -> Env {
        let i = &self.inner;
        let (chance, crypto) = if i.chance.is_seeded() {
            let chance = i.chance.child(name);
            let crypto = chance::seeded_crypto(&chance);
            (chance, crypto)
        } else {
            (Chance::from_os(), i.crypto.clone())
        };
        let name = if i.name.is_empty() { name.to_owned() } else { format!("{}/{name}", i.name) };
        let child = Env::build(&name, i.clock, chance, i.sockets.clone(), i.dns.clone(), crypto);
        i.tasks.adopt(&child.inner);
        child
    }

    /// Its name, after those of its parents; empty for a real root. For logs.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The time on the monotonic clock.
    pub fn now(&self) -> Instant {
        now()
    }

    /// The time since 1970, as the wall clock has it. It may jump.
    pub fn unix_time(&self) -> Duration {
        self.inner.clock.unix_time()
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(now() + duration).await
    }

    /// Waits until an instant.
    pub async fn sleep_until(&self, instant: Instant) {
        tokio::time::sleep_until(instant).await
    }

    /// Drops `future` when it takes longer.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        self.timeout_at(now() + duration, future).await
    }

    /// Drops `future` at an instant.
    pub async fn timeout_at<F: Future>(&self, instant: Instant, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout_at(instant, future).await
    }

    /// 64 random bits.
    pub fn random_u64(&self) -> u64 {
        u64::from_le_bytes(self.random())
    }

    /// 128 random bits.
    pub fn random_u128(&self) -> u128 {
        u128::from_le_bytes(self.random())
    }

    /// A number below `n`.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn random_below(&self, n: usize) -> usize {
        assert!(n > 0, "there is no number below zero");
        // The bias is below n / 2^64.
        ((u128::from(self.random_u64()) * n as u128) >> 64) as usize
    }

    /// Fills `bytes` with chance.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.inner.chance.fill(bytes)
    }

    /// Random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// Opens a UDP socket.
    pub fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.inner.sockets.bind(self, address)
    }

    /// Where names are resolved.
    pub fn dns(&self) -> &Arc<dyn Dns> {
        &self.inner.dns
    }

    /// Its tasks.
    pub fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// Runs a closure that blocks: on a thread of its own, or inline in simulation, where a second
    /// thread would stop virtual time. A panic of the closure goes on in the caller.
    pub async fn blocking<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        if self.is_simulated() { f() } else { tasks::blocking(f).await }
    }

    /// Whether time is virtual here.
    pub fn is_simulated(&self) -> bool {
        matches!(self.inner.clock, Clock::Virtual { .. })
    }

    /// What TLS computes with. In simulation its keys and randoms come from the seed.
    pub fn crypto(&self) -> Arc<CryptoProvider> {
        self.inner.crypto.clone()
    }

    /// The wall clock, for TLS.
    pub fn time_provider(&self) -> Arc<dyn TimeProvider> {
        Arc::new(self.inner.clock)
    }

    pub(crate) fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// Runs `future` so that [`Env::current`] is this one in it. Every task of [`Tasks`] is.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    /// The `Env` of the running task.
    ///
    /// # Panics
    /// Outside of [`Env::scope`].
    pub fn current() -> Env {
        CURRENT.get()
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("name", &self.inner.name).field("clock", &self.inner.clock).finish_non_exhaustive()
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
fn now() -> Instant {
    Instant::now()
}

impl Clock {
    fn unix_time(self) -> Duration {
        match self {
            Clock::System => system_time(),
            Clock::Virtual { born, unix } => unix + now().saturating_duration_since(born),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
fn system_time() -> Duration {
    // A clock before 1970 is a machine without a clock; certificates will say so.
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(self.unix_time()))
    }
}

impl quinn::TimeSource for Clock {
    fn now(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + self.unix_time()
    }
}

//! A world in memory: virtual time, seeded chance, a network that delays, loses and duplicates, DNS
//! from a table, and hosts that can be killed at an instant and started again.
//!
//! All of it runs in one thread on tokio's paused clock: time moves only when everybody waits, to the
//! next instant for which somebody waits. So minutes pass in milliseconds, and the same seed gives
//! the same packets at the same instants: [`SimNet::trace`] proves it.
//!
//! What it is not: it has no bandwidth, so nothing ever queues in the network; and hosts compute
//! in no time at all.

mod net;

pub use net::{Link, SimNet, Trace};

use super::chance::{Chance, seeded_crypto};
use super::{Clock, Dns, DnsError, Env, SrvAnswer, Task, now};
use futures::future::BoxFuture;
use net::HostSockets;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// The wall clock at the beginning of every world: 2026-01-01.
pub const BEGINNING: Duration = Duration::from_secs(1_767_225_600);

/// A seeded world. Clones share it.
#[derive(Clone)]
pub struct SimWorld {
    inner: Arc<World>,
}

struct World {
    seed: u64,
    born: Instant,
    net: SimNet,
    dns: Arc<SimDns>,
    hosts: Mutex<BTreeMap<String, Host>>,
    _driver: Task,
}

/// A host of a world, in its current life.
struct Host {
    env: Env,
    life: u64,
}

impl SimWorld {
    /// Runs a story in a new world, in a runtime of its own, to its end.
    pub fn run<F: Future>(seed: u64, story: impl FnOnce(SimWorld) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime of one thread needs nothing from the system");
        runtime.block_on(async {
            let world = SimWorld::new(seed);
            let story = story(world.clone());
            world.env("story").scope(story).await
        })
    }

    /// A new world in the runtime of the caller, which must be of one thread and paused.
    pub fn new(seed: u64) -> SimWorld {
        let born = now();
        let dns = Arc::new(SimDns::default());
        let net = SimNet::new(seed, born);
        let nature = host_env(seed, born, "nature", 0, &net, &dns);
        let driver = nature.tasks().serve("sim.net", net.clone().drive());
        let inner = World { seed, born, net, dns, hosts: Mutex::default(), _driver: driver };
        SimWorld { inner: Arc::new(inner) }
    }

    /// The seed, for the message of a failed test.
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// The environment of a host: starts it if it does not run. Each life of it draws other chance.
    pub fn env(&self, host: &str) -> Env {
        let i = &self.inner;
        let mut hosts = i.hosts();
        let life = match hosts.get(host) {
            Some(found) if found.env.tasks().is_killed() => found.life + 1,
            Some(found) => return found.env.clone(),
            None => 0,
        };
        let env = host_env(i.seed, i.born, host, life, &i.net, &i.dns);
        hosts.insert(host.to_owned(), Host { env: env.clone(), life });
        env
    }

    /// Kills a host at this instant: none of its tasks runs again, its sockets are gone, and it says
    /// goodbye to nobody. Does nothing if it does not run.
    pub fn kill(&self, host: &str) {
        if let Some(found) = self.inner.hosts().get(host) {
            self.inner.net.unplug(host);
            found.env.tasks().kill();
        }
    }

    /// The network.
    pub fn net(&self) -> &SimNet {
        &self.inner.net
    }

    /// The DNS that every host asks.
    pub fn dns(&self) -> &SimDns {
        &self.inner.dns
    }

    /// The time since the world began.
    pub fn elapsed(&self) -> Duration {
        now() - self.inner.born
    }
}

impl World {
    fn hosts(&self) -> MutexGuard<'_, BTreeMap<String, Host>> {
        self.hosts.lock().expect("nothing panics while it holds this")
    }
}

fn host_env(seed: u64, born: Instant, host: &str, life: u64, net: &SimNet, dns: &Arc<SimDns>) -> Env {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&life.to_le_bytes()).update(host.as_bytes());
    let chance = Chance::seeded(*hasher.finalize().as_bytes());
    let crypto = seeded_crypto(&chance);
    let sockets = Arc::new(HostSockets::new(net, host));
    Env::build(host, Clock::Virtual { born, unix: BEGINNING }, chance, sockets, dns.clone(), crypto)
}

/// DNS from a table. It answers at once.
#[derive(Default)]
pub struct SimDns {
    table: Mutex<BTreeMap<String, Result<SrvAnswer, DnsError>>>,
}

impl SimDns {
    /// From now on, a name has this answer, or this failure.
    pub fn set(&self, name: &str, answer: Result<SrvAnswer, DnsError>) {
        self.table().insert(name.to_owned(), answer);
    }

    /// From now on, there is no such name.
    pub fn remove(&self, name: &str) {
        self.table().remove(name);
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Result<SrvAnswer, DnsError>>> {
        self.table.lock().expect("nothing panics while it holds this")
    }
}

impl Dns for SimDns {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>> {
        let answer = self.table().get(name).cloned();
        Box::pin(async move { answer.unwrap_or_else(|| Err(DnsError::NoSuchName(name.to_owned()))) })
    }
}

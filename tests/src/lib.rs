//! Whole clusters for tests: every node real, the world around them simulated.
//!
//! [`SimCluster`] runs the nodes of a topology in one thread on virtual time, with an in-memory network
//! that is slow and loses packets, and disks of log nodes that lose what was not synced when they crash.

pub mod appends;
pub mod checked;
pub mod model;
pub mod recover;

use anyhow::{Context, Result};
use beam_certs::Authority;
use beam_client::{Client, ClientOptions};
use beam_node::demo::checks;
use beam_node::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
use beam_node::node::{Ending, Node, NodeOptions};
use beam_node::remote::log::RemoteLog;
use beam_wire::command::FORMAT;
use beam_wire::env::sim::{Link, SimWorld};
use beam_wire::env::{Env, SrvAnswer, SrvTarget};
use beam_wire::message::hello::Hello;
use beam_wire::quic::{Directory, DirectoryOptions, Endpoint, EndpointOptions, Incoming, Peers, Service};
use beam_wire::topology::{self, Topology};
use beam_wire::{CallError, ClientRole, Code, Identity, LogIndex, Name, Role};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The topology at the root of the repository.
pub const TOPOLOGY: &str = include_str!("../../topology.toml");

/// Certificates of simulated clusters outlive every test.
const CERTIFICATES_LAST: Duration = Duration::from_secs(3600);

/// Clients of one datacenter have these last bytes of their addresses.
const CLIENTS_MAX: u8 = 8;

/// A simulated cluster.
pub struct SimCluster {
    /// The world that it is in.
    pub world: SimWorld,
    /// Its topology, with addresses of that world.
    pub topology: Arc<Topology>,
    authority: Authority,
    disks: BTreeMap<Name, Arc<SimDisk>>,
    views: tempfile::TempDir,
    running: BTreeMap<Name, Node>,
    /// The newest command format that a node reads, where it is not this program's.
    pub formats: BTreeMap<Name, u16>,
    clients: u8,
    joined: u8,
}

impl SimCluster {
    /// Makes certificates, DNS records and links (the round trips of the topology, with `loss`), then starts every
    /// node. `change` may change the topology before.
    pub async fn start(world: SimWorld, loss: f64, change: impl FnOnce(&mut Topology)) -> Result<SimCluster> {
        let mut cluster = SimCluster::prepare(world, loss, change)?;
        for node in cluster.topology.clone().nodes.iter() {
            cluster.start_node(&node.name).await?;
        }
        Ok(cluster)
    }

    /// The same, and starts none of them.
    pub fn prepare(world: SimWorld, loss: f64, change: impl FnOnce(&mut Topology)) -> Result<SimCluster> {
        let mut topology = Topology::parse(TOPOLOGY, "topology.toml")?;
        change(&mut topology);
        let datacenters = topology.datacenters.clone();
        let place = |dc: &Name| datacenters.iter().position(|d| d == dc).expect("checked by the topology") as u8 + 1;
        for (number, node) in topology.nodes.iter_mut().enumerate() {
            node.address = address(place(&node.datacenter), 0, number as u8 + 1);
            node.bind = None;
        }
        let env = world.env("authority");
        let authority = Authority::create(&env, &topology.cluster, 24 * CERTIFICATES_LAST)?;
        let mut cluster = SimCluster {
            topology: Arc::new(topology),
            disks: BTreeMap::new(),
            views: tempfile::tempdir()?,
            running: BTreeMap::new(),
            formats: BTreeMap::new(),
            clients: 0,
            joined: 0,
            authority,
            world,
        };
        cluster.lay_links(loss);
        cluster.publish();
        for node in cluster.topology.clone().nodes.iter() {
            if node.has_role(Role::Log) {
                let nature = cluster.world.env(&format!("disk-{}", node.name));
                cluster.disks.insert(node.name.clone(), Arc::new(SimDisk::new(&nature, SimDiskOptions::default())));
            }
        }
        Ok(cluster)
    }

    fn place(&self, datacenter: &Name) -> u8 {
        self.topology.datacenters.iter().position(|d| d == datacenter).expect("a datacenter of the topology") as u8 + 1
    }

    /// Every address that nodes and clients of a datacenter may have.
    fn addresses(&self, datacenter: &Name) -> Vec<SocketAddr> {
        let clients = (1..=CLIENTS_MAX).map(|n| address(self.place(datacenter), 1, n));
        self.topology.nodes_in(datacenter).map(|n| n.address).chain(clients).collect()
    }

    fn lay_links(&self, loss: f64) {
        for link in &self.topology.links {
            let latency = link.round_trip / 2;
            let link_is = Link { jitter: latency / 30, loss, ..Link::of(latency) };
            for a in self.addresses(&link.between.0) {
                for b in self.addresses(&link.between.1) {
                    self.world.net().set_link(a, b, link_is);
                }
            }
        }
    }

    fn publish(&self) {
        let mut answers: BTreeMap<String, Vec<SrvTarget>> = BTreeMap::new();
        for record in self.topology.srv_records() {
            let node = self.topology.nodes.iter().find(|n| record.target.starts_with(&format!("{}.", n.name)));
            let node = node.expect("records come from nodes");
            answers.entry(record.service.clone()).or_default().push(SrvTarget {
                priority: record.priority,
                weight: record.weight,
                port: record.port,
                target: record.target.clone(),
                addresses: vec![node.address.ip()],
            });
        }
        for (name, targets) in answers {
            self.world.dns().set(&name, Ok(SrvAnswer { targets, ttl: Duration::from_secs(30) }));
        }
    }

    /// Starts a node, on what its disks hold.
    pub async fn start_node(&mut self, name: &Name) -> Result<()> {
        let node = self.topology.node(name).with_context(|| format!("no node {name}"))?;
        let env = self.world.env(name.as_str());
        // The key must stay the same over restarts, so it comes from the name.
        let mut reset_key = [0; 64];
        for (byte, letter) in reset_key.iter_mut().zip(name.as_str().bytes().cycle()) {
            *byte = letter;
        }
        let options = NodeOptions {
            topology: self.topology.clone(),
            name: name.clone(),
            credentials: self.authority.issue(&env, &self.topology.identity(node), CERTIFICATES_LAST)?,
            certs: None,
            format: self.formats.get(name).copied().unwrap_or(FORMAT),
            listen: node.address,
            log_disk: self.disks.get(name).map(|disk| disk.clone() as Arc<dyn beam_node::log::disk::Disk>),
            view_directory: self.view_directory(name),
            reset_key,
        };
        let started = env.scope(Node::start(env.clone(), options)).await?;
        self.running.insert(name.clone(), started);
        Ok(())
    }

    /// The disk of a log node.
    pub fn disk(&self, name: &Name) -> Option<Arc<SimDisk>> {
        self.disks.get(name).cloned()
    }

    /// Where a view has its data.
    pub fn view_directory(&self, name: &Name) -> PathBuf {
        self.views.path().join(name.as_str())
    }

    /// A node is gone at this instant. What the disk of a log node had not synced is lost.
    pub async fn kill_node(&mut self, name: &Name, loss: Loss) {
        let Some(node) = self.running.remove(name) else { return };
        self.world.kill(name.as_str());
        if let Some(disk) = self.disks.get(name) {
            disk.crash(loss);
        }
        node.gone().await;
    }

    /// A node stops in good order, and DNS names it no more.
    pub async fn retire_node(&mut self, name: &Name) {
        let mut topology = Topology::clone(&self.topology);
        topology.nodes.retain(|node| node.name != *name);
        self.topology = Arc::new(topology);
        self.publish();
        if let Some(node) = self.running.remove(name) {
            node.stop().await;
            self.world.kill(name.as_str());
        }
    }

    /// A node joins that the others' topologies do not know: DNS names it, and its certificate says what it may. Its
    /// address is chosen here.
    pub async fn join_node(&mut self, node: topology::Node, loss: f64) -> Result<()> {
        let name = node.name.clone();
        let mut topology = Topology::clone(&self.topology);
        self.joined += 1;
        let address = address(self.place(&node.datacenter), 2, self.joined);
        topology.nodes.push(topology::Node { address, bind: None, ..node });
        self.topology = Arc::new(topology);
        self.lay_links(loss);
        self.publish();
        self.start_node(&name).await
    }

    /// Whether a node runs.
    pub fn runs(&self, name: &Name) -> bool {
        self.running.contains_key(name)
    }

    /// Starts those nodes again that have asked for it; fails when one has failed.
    pub async fn restart_those_who_shall(&mut self) -> Result<()> {
        let ended = self.running.iter().filter_map(|(name, node)| Some((name.clone(), node.ended().now_or_never()?)));
        for (name, ending) in ended.collect::<Vec<_>>() {
            match ending {
                Ending::Restart(_) => {
                    self.kill_node(&name, Loss::Unsynced).await;
                    self.start_node(&name).await?;
                }
                Ending::Failed(why) => anyhow::bail!("{name} has failed: {why}"),
            }
        }
        Ok(())
    }

    /// Why a node has ended by itself, if it has.
    pub fn ended(&self, name: &Name) -> Option<Ending> {
        self.running.get(name)?.ended().now_or_never()
    }

    /// All nodes of a datacenter are gone at once.
    pub async fn lose_datacenter(&mut self, datacenter: &Name, loss: Loss) {
        let names: Vec<Name> = self.topology.nodes_in(datacenter).map(|n| n.name.clone()).collect();
        for name in &names {
            self.world.kill(name.as_str());
        }
        for name in &names {
            self.kill_node(name, loss).await;
        }
    }

    /// Its nodes start again.
    pub async fn return_datacenter(&mut self, datacenter: &Name) -> Result<()> {
        let names: Vec<Name> = self.topology.nodes_in(datacenter).map(|n| n.name.clone()).collect();
        for name in names {
            if !self.running.contains_key(&name) {
                self.start_node(&name).await?;
            }
        }
        Ok(())
    }

    /// One random thing goes wrong, and right again: a datacenter is cut off or lost, or a node dies.
    pub async fn trouble(&mut self, loss: Loss) -> Result<()> {
        let env = self.env();
        let ms = |below: usize| Duration::from_millis(env.random_below(below) as u64);
        let datacenters = &self.topology.datacenters;
        let datacenter = datacenters[env.random_below(datacenters.len())].clone();
        match env.random_below(6) {
            0 => {
                self.cut_off(&datacenter);
                env.sleep(ms(3500)).await;
                self.world.net().heal();
            }
            1 => {
                self.lose_datacenter(&datacenter, loss).await;
                env.sleep(ms(2000)).await;
                self.return_datacenter(&datacenter).await?;
            }
            role => {
                let role = ["log", "view", "api", "api"][role - 2];
                let names = self.topology.nodes.iter().map(|n| &n.name).filter(|n| n.as_str().starts_with(role));
                let names: Vec<Name> = names.cloned().collect();
                let node = &names[env.random_below(names.len())];
                self.kill_node(node, Loss::Unsynced).await;
                env.sleep(ms(1500)).await;
                self.start_node(node).await?;
            }
        }
        env.sleep(ms(1500)).await;
        Ok(())
    }

    /// Cuts a datacenter off from all others; nothing in it stops.
    pub fn cut_off(&self, datacenter: &Name) {
        let here = self.addresses(datacenter);
        for other in self.topology.datacenters.iter().filter(|d| *d != datacenter) {
            self.world.net().part(&here, &self.addresses(other));
        }
    }

    /// The log, as an administrator in a datacenter sees it.
    pub fn log(&mut self, datacenter: &Name) -> Result<RemoteLog> {
        Ok(self.nodes(datacenter)?.2)
    }

    /// All nodes, as an administrator in a datacenter sees them.
    pub fn nodes(&mut self, datacenter: &Name) -> Result<(Peers, Directory, RemoteLog)> {
        self.clients += 1;
        let name = Name::new(format!("admin-{}", self.clients))?;
        let env = self.world.env(name.as_str());
        let identity = Identity::client(self.topology.cluster.clone(), name, ClientRole::Admin);
        let tls = self.authority.issue(&env, &identity, CERTIFICATES_LAST)?.tls(&env)?;
        let number = (self.clients - 1) % CLIENTS_MAX + 1;
        let at = address(self.place(datacenter), 1, number);
        let endpoint = Endpoint::open(&env, at, tls, EndpointOptions::wan([7; 64]))?;
        let service = Nothing(Hello::of(&identity, env.random_u64()));
        let peers = Peers::start(env.clone(), endpoint, Arc::new(service));
        let datacenters = self.topology.datacenters.clone();
        let options = DirectoryOptions::default();
        let roles = [Role::Log, Role::View, Role::Api];
        let directory = Directory::start(&env, &self.topology.zone, datacenters, &roles, options);
        let log = RemoteLog::new(&env, peers.clone(), directory.clone(), datacenter.clone());
        Ok((peers, directory, log))
    }

    /// What lies in a view's directory is gone. The node must not run.
    pub fn wipe_view(&self, name: &Name) -> Result<()> {
        anyhow::ensure!(!self.running.contains_key(name), "{name} runs");
        Ok(std::fs::remove_dir_all(self.view_directory(name))?)
    }

    /// A client in a datacenter, which asks only api nodes of `allowed`, in this order.
    pub async fn client(&mut self, datacenter: &Name, allowed: &[Name], role: ClientRole) -> Result<Client> {
        self.client_within(datacenter, allowed, role, Duration::from_secs(30)).await
    }

    /// The same, with a limit for each of its calls.
    pub async fn client_within(
        &mut self,
        datacenter: &Name,
        allowed: &[Name],
        role: ClientRole,
        limit: Duration,
    ) -> Result<Client> {
        self.clients += 1;
        let env = self.world.env(&format!("client-{}", self.clients));
        let name = Name::new(format!("client-{}", self.clients))?;
        let identity = Identity::client(self.topology.cluster.clone(), name, role);
        let credentials = self.authority.issue(&env, &identity, CERTIFICATES_LAST)?;
        let options = ClientOptions::new(&self.topology.zone, allowed.to_vec(), credentials.tls(&env)?);
        // Each client has an address of its own: those of one datacenter share its links.
        let number = (self.clients - 1) % CLIENTS_MAX + 1;
        let options =
            options.timeout(limit).bind(SocketAddr::new(address(self.place(datacenter), 1, number).ip(), CLIENT_PORT));
        Ok(env.scope(Client::connect(env.clone(), options)).await?)
    }

    /// A writer in each datacenter, which asks no api node elsewhere. Returns when all views serve.
    pub async fn clients(&mut self, patience: Duration) -> Result<BTreeMap<Name, Client>> {
        self.clients_asking(patience, |_, home| vec![home.clone()]).await
    }

    /// As [`SimCluster::clients`], but they go to other datacenters when their own does not answer.
    pub async fn clients_everywhere(&mut self, patience: Duration) -> Result<BTreeMap<Name, Client>> {
        let order = |all: &[Name], home: &Name| {
            let mut order = all.to_vec();
            order.sort_by_key(|datacenter| datacenter != home);
            order
        };
        self.clients_asking(patience, order).await
    }

    async fn clients_asking(
        &mut self,
        patience: Duration,
        order: impl Fn(&[Name], &Name) -> Vec<Name>,
    ) -> Result<BTreeMap<Name, Client>> {
        let mut clients = BTreeMap::new();
        for datacenter in self.topology.datacenters.clone() {
            let order = order(&self.topology.datacenters, &datacenter);
            let client = self.client(&datacenter, &order, ClientRole::Writer).await?;
            clients.insert(datacenter, client);
        }
        checks::until_serving(&self.env(), &clients, patience).await.context("at the start")?;
        Ok(clients)
    }

    /// Lets the log go of all that views have judged, once each has a verdict checkpoint at or after `least`: whoever
    /// is without data must copy then. Returns the lowest entry that is left, on every log node.
    pub async fn discard(&mut self, client: &Client, least: u64, patience: Duration) -> Result<LogIndex> {
        let env = self.env();
        let log = self.log(&self.topology.datacenters[0].clone())?;
        let deadline = env.now() + patience;
        let epoch = log.tail(false, deadline).await?.epoch;
        let before = log.info(&log.nodes()[0].node, deadline).await?.first;
        let oldest = loop {
            let status = client.status().await?;
            let checkpoints = status.views.iter().map(|v| v.status.as_ref().map_or(LogIndex(0), |s| s.checkpoint));
            match checkpoints.min() {
                Some(oldest) if oldest.0 >= least && oldest > before => break oldest,
                _ => env.sleep(Duration::from_millis(100)).await,
            }
            anyhow::ensure!(env.now() < deadline, "no view has written a checkpoint");
        };
        log.discard(epoch, oldest, deadline).await?;
        for node in log.nodes() {
            while log.info(&node.node, deadline).await?.first < oldest {
                env.sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(oldest)
    }

    /// The environment of the test itself.
    pub fn env(&self) -> Env {
        self.world.env("test")
    }
}

/// The seeds of a story: `BEAM_SEEDS=FROM..TO` asks for others, `BEAM_SEEDS=SEED` for one.
pub fn seeds(from: u64, count: u64) -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("BEAM_SEEDS") else { return from..from + count };
    let number = |text: &str| text.parse::<u64>().expect("BEAM_SEEDS is SEED or FROM..TO");
    match asked.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&asked)..number(&asked) + 1,
    }
}

/// Tells a story of a whole cluster on a thread of its own: without optimisation, one needs more stack than a
/// test has.
pub fn tell(story: impl FnOnce() -> Result<()> + Send + 'static) {
    let told = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(|| story().unwrap());
    told.expect("a thread starts").join().expect("the story holds");
}

const STACK_BYTES: usize = 64 << 20;

/// A caller that answers nobody.
struct Nothing(Hello);

impl Service for Nothing {
    fn hello(&self) -> Hello {
        self.0.clone()
    }

    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        let error = CallError::never(Code::UnknownKind, format!("{} answers no {:?}", self.0.name, call.kind));
        Box::pin(std::future::ready(Err(error)))
    }
}

const CLIENT_PORT: u16 = 5000;

/// Of kind 0 are nodes of the first topology, of kind 1 clients, of kind 2 nodes that joined.
fn address(datacenter: u8, kind: u8, number: u8) -> SocketAddr {
    let port = if kind == 1 { CLIENT_PORT } else { 4433 };
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, datacenter, kind, number)), port)
}

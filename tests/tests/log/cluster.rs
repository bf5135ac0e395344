//! Log nodes, each on a machine of its own with a disk that outlives it, and a client in each datacenter.

use beam_certs::{Authority, Credentials, days};
use beam_node::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
use beam_node::log::renewal;
use beam_node::log::types::LogNode;
use beam_node::log::{LogOptions, LogRole};
use beam_node::remote::log::{Reader, RemoteLog};
use beam_wire::env::sim::{Link, SimWorld};
use beam_wire::env::{Env, SrvAnswer, SrvTarget};
use beam_wire::identity::ClientRole;
use beam_wire::message::hello::Hello;
use beam_wire::message::log::{Entries, Entry, LogInfoReply};
use beam_wire::quic::directory::{Directory, DirectoryOptions};
use beam_wire::quic::{Endpoint, EndpointOptions, Incoming, Peers, Service};
use beam_wire::topology::service_name;
use beam_wire::{CallError, Code, Identity, LogIndex, Name, Role as NodeRole};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const ZONE: &str = "beam.test";
pub const FIRST_ENTRY: &[u8] = b"genesis";

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A log node, once it has started and until it is killed.
type Role = Arc<Mutex<Option<Arc<LogRole>>>>;

/// Answers the calls of a log node.
struct LogService {
    identity: Identity,
    boot: u64,
    role: Role,
}

impl Service for LogService {
    fn hello(&self) -> Hello {
        Hello::of(&self.identity, self.boot)
    }

    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        match &*self.role.lock().unwrap() {
            Some(role) => role.serve(call),
            None => Box::pin(async { Err(CallError::later(Code::Unavailable, 100, "it is starting")) }),
        }
    }
}

/// A machine and the log node on it.
pub struct Machine {
    pub node: LogNode,
    pub address: SocketAddr,
    pub disk: SimDisk,
    credentials: Credentials,
    role: Role,
}

impl Machine {
    /// Whether its node has still to do what was left to it before it started.
    pub fn has_renewal(&self) -> bool {
        renewal::read(&self.disk).unwrap().is_some()
    }
}

/// One-way delays between datacenters, in milliseconds.
const DELAYS: [(&str, &str, u64); 3] = [("va", "or", 30), ("va", "ie", 38), ("or", "ie", 65)];
const DATACENTERS: [&str; 3] = ["va", "or", "ie"];

pub struct Cluster {
    pub world: SimWorld,
    /// Of the story, not of any machine.
    pub env: Env,
    pub machines: BTreeMap<String, Machine>,
    pub options: LogOptions,
    authority: Authority,
    /// Every host's datacenter and address, log nodes and clients.
    hosts: Vec<(String, SocketAddr)>,
    /// What is added to every delay between datacenters: jitter, loss and so on.
    link: Link,
}

impl Cluster {
    /// Machines named `log-va`, `log-or` and `log-ie`, all off.
    pub fn new(world: &SimWorld, disk: SimDiskOptions, link: Link) -> Self {
        Self::of(world, &DATACENTERS.map(|dc| (format!("log-{dc}"), dc)), disk, link)
    }

    /// Machines of these names in these datacenters, all off.
    pub fn of(world: &SimWorld, hosts: &[(String, &str)], disk: SimDiskOptions, link: Link) -> Self {
        let env = world.env("story");
        let cluster = name("beam");
        let authority = Authority::create(&env, &cluster, days(3650)).unwrap();
        let members = hosts.iter().map(|(host, dc)| LogNode { node: name(host), datacenter: name(dc) });
        let members: Vec<LogNode> = members.collect();
        let options = LogOptions::new(cluster.clone(), name("nobody"), name("nowhere"), members.clone());
        let (world, machines, hosts) = (world.clone(), BTreeMap::new(), Vec::new());
        let mut this = Self { world, env, machines, options, authority, hosts, link };
        for node in members {
            this.add_machine(node, disk);
        }
        for datacenter in DATACENTERS {
            this.say_in_dns(datacenter, &[]);
        }
        this
    }

    fn add_machine(&mut self, node: LogNode, disk: SimDiskOptions) {
        let (host, datacenter) = (node.node.to_string(), node.datacenter.clone());
        let identity = Identity::node(name("beam"), datacenter, node.node.clone(), vec![NodeRole::Log]);
        let credentials = self.authority.issue(&self.env, &identity, days(30)).unwrap();
        let address = self.place(node.datacenter.as_str());
        let disk = SimDisk::new(&self.env.child(&format!("disk of {host}")), disk);
        self.machines.insert(host, Machine { node, address, disk, credentials, role: Role::default() });
    }

    /// One more machine, off. DNS and its own topology name it; the others' topology does not.
    pub fn add(&mut self, host: &str, datacenter: &str) {
        let node = LogNode { node: name(host), datacenter: name(datacenter) };
        self.add_machine(node, SimDiskOptions { sync: Duration::from_millis(1), ..SimDiskOptions::default() });
        self.say_in_dns(datacenter, &[]);
    }

    /// A new address in a datacenter, with links to all others.
    fn place(&mut self, datacenter: &str) -> SocketAddr {
        let dc = DATACENTERS.iter().position(|d| *d == datacenter).unwrap();
        let address = SocketAddr::from(([10, dc as u8, 0, self.hosts.len() as u8 + 1], 7100));
        for (other, at) in &self.hosts {
            let delay = DELAYS.iter().find(|(a, b, _)| [(*a, *b), (*b, *a)].contains(&(datacenter, other)));
            let link = match delay {
                Some((_, _, ms)) => Link { latency: Duration::from_millis(*ms), ..self.link },
                None => Link::default(),
            };
            self.world.net().set_link(address, *at, link);
        }
        self.hosts.push((datacenter.to_owned(), address));
        address
    }

    /// DNS says from now on where the log nodes of a datacenter live: where they do, but for these, which
    /// it says live where others do.
    pub fn say_in_dns(&self, datacenter: &str, lies: &[(&str, &str)]) {
        let of = self.machines.iter().filter(|(_, machine)| machine.node.datacenter == name(datacenter));
        let targets = of.map(|(host, machine)| {
            let lie = lies.iter().find(|(of, _)| of == host);
            let address = lie.map_or(machine.address, |(_, at)| self.machines[*at].address);
            let (target, addresses) = (format!("{host}.{datacenter}.{ZONE}"), vec![address.ip()]);
            SrvTarget { priority: 0, weight: 1, port: address.port(), target, addresses }
        });
        let answer = SrvAnswer { targets: targets.collect(), ttl: Duration::from_secs(5) };
        self.world.dns().set(&service_name(NodeRole::Log, &name(datacenter), ZONE), Ok(answer));
    }

    fn directory(&self, env: &Env) -> Directory {
        Directory::start(env, ZONE, DATACENTERS.map(name).to_vec(), &[NodeRole::Log], DirectoryOptions::default())
    }

    pub async fn start_all(&mut self) {
        for host in self.machines.keys().cloned().collect::<Vec<_>>() {
            self.start(&host).await;
        }
    }

    pub async fn start(&mut self, host: &str) {
        let env = self.world.env(host);
        let directory = self.directory(&env);
        let machine = self.machines.get_mut(host).unwrap();
        assert!(machine.role.lock().unwrap().is_none(), "{host} runs already");
        let tls = machine.credentials.tls(&env).unwrap();
        let identity = tls.identity.clone();
        let endpoint = Endpoint::open(&env, machine.address, tls, EndpointOptions::wan([7; 64])).unwrap();
        let service = LogService { identity, boot: env.random_u64(), role: machine.role.clone() };
        let peers = Peers::start(env.clone(), endpoint, Arc::new(service));
        let node = machine.node.clone();
        let mut members = self.options.members.clone();
        if !members.contains(&node) {
            members.push(node.clone());
        }
        let options = LogOptions { node: node.node, datacenter: node.datacenter, members, ..self.options.clone() };
        let disk = Arc::new(machine.disk.clone());
        let started = LogRole::start(&env, options, peers, directory, disk, Bytes::from_static(FIRST_ENTRY));
        *machine.role.lock().unwrap() = Some(started.await.unwrap());
    }

    /// The machine loses power, and what its disk has not synced.
    pub fn kill(&mut self, host: &str, loss: Loss) {
        let machine = self.machines.get_mut(host).unwrap();
        // What the machine's peers still held would else live on.
        assert!(machine.role.lock().unwrap().take().is_some(), "{host} does not run");
        machine.disk.crash(loss);
        self.world.kill(host);
    }

    /// Starts those log nodes again that have asked for it. They lose power meanwhile.
    pub async fn restart_those_who_shall(&mut self) {
        let role = |machine: &Machine| machine.role.lock().unwrap().clone();
        let running = self.machines.iter().filter_map(|(host, machine)| Some((host.clone(), role(machine)?)));
        let shall: Vec<String> =
            running.filter(|(_, role)| role.restart().now_or_never().is_some()).map(|(host, _)| host).collect();
        for host in shall {
            self.kill(&host, Loss::Torn);
            self.start(&host).await;
        }
    }

    /// The machine gets an empty disk.
    pub fn wipe(&mut self, host: &str) {
        let machine = self.machines.get_mut(host).unwrap();
        assert!(machine.role.lock().unwrap().is_none(), "{host} runs");
        machine.disk = SimDisk::new(&self.env.child("a new disk"), SimDiskOptions::default());
    }

    pub fn runs(&self, host: &str) -> bool {
        self.machines[host].role.lock().unwrap().is_some()
    }

    pub fn info(&self, host: &str) -> Option<LogInfoReply> {
        Some(self.machines[host].role.lock().unwrap().as_ref()?.info())
    }

    /// What a node that is nobody's member says that it waits for.
    pub fn waits_for(&self, host: &str) -> Option<String> {
        self.machines[host].role.lock().unwrap().as_ref()?.waits_for()
    }

    /// The leader that a majority of nodes agrees on and that runs.
    pub fn leader(&self) -> Option<String> {
        let mut votes: BTreeMap<String, usize> = BTreeMap::new();
        for info in self.machines.keys().filter_map(|host| self.info(host)) {
            if let Some(leader) = info.leader.filter(|leader| self.runs(leader.as_str())) {
                *votes.entry(leader.to_string()).or_default() += 1;
            }
        }
        votes.into_iter().find(|(_, count)| *count > self.machines.len() / 2).map(|(leader, _)| leader)
    }

    pub async fn wait_for_leader(&self) -> String {
        self.wait(|this| this.leader()).await
    }

    /// Waits until something is so. Fails after a virtual minute.
    pub async fn wait<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = self.soon(60);
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(self.env.now() < deadline, "seed {}: it does not come to be", self.world.seed());
            self.env.sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn soon(&self, seconds: u64) -> tokio::time::Instant {
        self.env.now() + Duration::from_secs(seconds)
    }

    /// Cuts every host of a datacenter off from all others, clients included.
    pub fn cut_off(&self, datacenter: &str) {
        let inside = |yes: bool| -> Vec<SocketAddr> {
            self.hosts.iter().filter(|(dc, _)| (dc == datacenter) == yes).map(|(_, at)| *at).collect()
        };
        self.world.net().part(&inside(true), &inside(false));
    }

    /// The log as an api node of a datacenter sees it.
    pub fn client(&mut self, datacenter: &str) -> RemoteLog {
        let host = format!("api-{datacenter}-{}", self.hosts.len());
        let identity = Identity::node(name("beam"), name(datacenter), name(&host), vec![NodeRole::Api]);
        self.caller(datacenter, &host, identity)
    }

    /// The log as an operator in a datacenter sees it.
    pub fn operator(&mut self, datacenter: &str) -> RemoteLog {
        let host = format!("operator-{datacenter}-{}", self.hosts.len());
        let identity = Identity::client(name("beam"), name(&host), ClientRole::Admin);
        self.caller(datacenter, &host, identity)
    }

    fn caller(&mut self, datacenter: &str, host: &str, identity: Identity) -> RemoteLog {
        let env = self.world.env(host);
        let tls = self.authority.issue(&env, &identity, days(30)).unwrap().tls(&env).unwrap();
        let address = self.place(datacenter);
        let endpoint = Endpoint::open(&env, address, tls, EndpointOptions::wan([7; 64])).unwrap();
        let service = LogService { identity, boot: env.random_u64(), role: Arc::default() };
        let peers = Peers::start(env.clone(), endpoint, Arc::new(service));
        RemoteLog::new(&env, peers, self.directory(&env), name(datacenter))
    }

    /// All data that the own datacenter's log node knows to be committed.
    pub async fn read_prefix(&self, client: &RemoteLog) -> BTreeMap<LogIndex, Bytes> {
        let (mut reader, mut data) = (client.read(None, LogIndex(0), false), BTreeMap::new());
        while let Some(entries) = self.env.timeout_at(self.soon(60), reader.next()).await.expect("it ends").unwrap() {
            add(&mut data, entries);
        }
        data
    }

    /// All data of one node's log below an index, as a client is given it who asks that node first.
    pub async fn read_all(&self, client: &RemoteLog, below: LogIndex) -> BTreeMap<LogIndex, Bytes> {
        self.read(client.read(None, LogIndex(0), true), below).await
    }

    /// All data of one node's log below an index, read from that node alone.
    pub async fn read_at(&self, client: &RemoteLog, host: &str, below: LogIndex) -> BTreeMap<LogIndex, Bytes> {
        self.read_from(client, host, LogIndex(0), below).await
    }

    /// The same, from an index on.
    pub async fn read_from(
        &self,
        client: &RemoteLog,
        host: &str,
        from: LogIndex,
        below: LogIndex,
    ) -> BTreeMap<LogIndex, Bytes> {
        self.read(client.at(name(host)).read(None, from, true), below).await
    }

    async fn read(&self, mut reader: Reader, below: LogIndex) -> BTreeMap<LogIndex, Bytes> {
        let mut data = BTreeMap::new();
        while reader.position() < below {
            let entries = self.env.timeout_at(self.soon(60), reader.next()).await;
            let Ok(entries) = entries else {
                let nodes: Vec<_> = self.machines.keys().map(|host| (self.info(host), self.waits_for(host))).collect();
                panic!("nothing from {} on below {below}: {:?}; {nodes:#?}", reader.position(), reader.trouble());
            };
            let entries = entries.unwrap().unwrap();
            add(&mut data, entries);
        }
        data.retain(|index, _| *index < below);
        data
    }
}

fn add(data: &mut BTreeMap<LogIndex, Bytes>, entries: Entries) {
    for (index, entry) in (entries.first.0..).zip(entries.entries) {
        if let Entry::Data { body, .. } = entry {
            data.insert(LogIndex(index), body);
        }
    }
}

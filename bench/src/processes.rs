//! Nodes, each a process of its own on this machine, as production runs them.

use crate::cores::Cores;
use anyhow::{Context, Result};
use beam_certs::Credentials;
use beam_node::discovery::DnsServer;
use beam_node::remote::log::RemoteLog;
use beam_node::remote::view::RemoteViews;
use beam_wire::env::Env;
use beam_wire::env::dns::Resolver;
use beam_wire::message::hello::Hello;
use beam_wire::quic::{Directory, DirectoryOptions, Endpoint, EndpointOptions, Incoming, Peers, Service};
use beam_wire::topology::Topology;
use beam_wire::{CallError, ClientRole, Code, Identity, LogIndex, Name, Role};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Three datacenters, one log node in each; `a` leads.
const DATACENTERS: [&str; 3] = ["a", "b", "c"];
/// The view, in the first.
const VIEW: &str = "view-a";
/// How long a cluster may take to be born.
const BORN_WITHIN: Duration = Duration::from_secs(60);
/// How long one append may take while a log is filled.
const FILLED_WITHIN: Duration = Duration::from_secs(60);
/// On their way while a log is filled.
const FILL_BYTES_IN_FLIGHT: usize = 4 << 20;

/// Nodes on loopback.
pub struct Processes {
    pub env: Env,
    pub topology: Topology,
    /// Where nodes run; anywhere, if nothing is said.
    pub cores: Option<Cores>,
    home: TempDir,
    running: BTreeMap<Name, Child>,
    _dns: DnsServer,
}

/// More than any machine copies: the most that a topology may say.
const UNLIMITED_MIB: u32 = 1 << 20;

impl Processes {
    /// Starts three log nodes, and waits until they take appends.
    pub async fn start() -> Result<Processes> {
        Processes::start_with("").await
    }

    /// As [`Processes::start`], with a view that holds all points, and sends so many MiB a second at most to those that
    /// copy from it; as many as it can if nothing is said.
    pub async fn start_with_view(copy_mib_per_second: Option<u32>) -> Result<Processes> {
        let address = free_addresses(1)?[0];
        let rate = format!("[view]\ncopy_mib_per_second = {}\n", copy_mib_per_second.unwrap_or(UNLIMITED_MIB));
        let view =
            format!("[[node]]\nname = \"{VIEW}\"\ndatacenter = \"a\"\nroles = [\"view\"]\naddress = \"{address}\"\n");
        Processes::start_with(&(rate + &view)).await
    }

    async fn start_with(more: &str) -> Result<Processes> {
        let mut processes = Processes::prepare(&topology_text(more)?).await?;
        for name in processes.topology.nodes.iter().map(|n| n.name.clone()).collect::<Vec<_>>() {
            processes.run(&name)?;
        }
        processes.until_led().await?;
        Ok(processes)
    }

    /// The nodes of a topology, none of which runs yet, with their certificates and DNS.
    pub async fn prepare(text: &str) -> Result<Processes> {
        let home = tempfile::tempdir()?;
        let topology = Topology::parse(text, "topology.toml")?;
        std::fs::write(home.path().join("topology.toml"), text)?;
        let bare = Env::real(Arc::new(Resolver::new(&[])?));
        let dns = DnsServer::start(&bare, &topology, topology.dns.servers[0]).await?;
        let admin = Identity::client(topology.cluster.clone(), Name::new("admin")?, ClientRole::Admin);
        let identities: Vec<Identity> = topology.nodes.iter().map(|n| topology.identity(n)).chain([admin]).collect();
        beam_certs::ensure(&bare, &home.path().join("certs"), &topology.cluster, &identities)?;
        let env = Env::real(Arc::new(Resolver::new(&[dns.address()])?)).child("bench");
        Ok(Processes { env, topology, cores: None, home, running: BTreeMap::new(), _dns: dns })
    }

    /// Waits until the log takes appends.
    pub async fn until_led(&self) -> Result<()> {
        until_led_by_first(&self.env, &self.log(0)?, &self.topology).await.map(drop)
    }

    /// The log nodes.
    pub fn names(&self) -> Vec<Name> {
        self.topology.nodes_with(Role::Log).map(|n| n.name.clone()).collect()
    }

    /// Where a node keeps its log.
    pub fn log_directory(&self, node: &Name) -> PathBuf {
        self.home.path().join(node.as_str()).join("log")
    }

    /// Where the certificates are.
    pub fn certs(&self) -> PathBuf {
        self.home.path().join("certs")
    }

    /// Starts one node.
    pub fn run(&mut self, name: &Name) -> Result<()> {
        self.run_as(name, "")
    }

    /// Starts one node, whose topology says more than the others'.
    pub fn run_as(&mut self, name: &Name, more: &str) -> Result<()> {
        let home = self.home.path();
        let mut topology = home.join("topology.toml");
        if !more.is_empty() {
            let text = std::fs::read_to_string(&topology)? + more;
            topology = home.join(format!("{name}.toml"));
            std::fs::write(&topology, text)?;
        }
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("node")
            .arg("--topology")
            .arg(topology)
            .args(["--name", name.as_str()])
            .arg("--data")
            .arg(home.join(name.as_str()))
            .arg("--certs")
            .arg(self.certs())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(home.join(format!("{name}.stderr")))?);
        let child = match &self.cores {
            Some(cores) => cores.start_node(|| command.spawn())?,
            None => command.spawn(),
        };
        self.running.insert(name.clone(), child.with_context(|| format!("cannot start {name}"))?);
        Ok(())
    }

    /// Ends one node without a word.
    pub fn kill(&mut self, name: &Name) -> Result<()> {
        if let Some(mut child) = self.running.remove(name) {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// The views, as an operator in the first datacenter sees them.
    pub fn views(&self) -> Result<RemoteViews> {
        let datacenter = &self.topology.datacenters[0];
        let (peers, directory) = caller(&self.env, &self.certs(), &self.topology, Role::View)?;
        Ok(RemoteViews::start(&self.env, peers, directory, datacenter.clone()))
    }

    /// Stops one node in the middle of what it does, or lets it go on.
    pub fn pause(&self, name: &Name, pause: bool) -> Result<()> {
        let child = self.running.get(name).with_context(|| format!("{name} does not run"))?;
        let signal = if pause { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// The log, as an operator in the datacenter of this number sees it.
    pub fn log(&self, datacenter: usize) -> Result<RemoteLog> {
        log(&self.env, &self.certs(), &self.topology, &self.topology.datacenters[datacenter])
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            if let Err(e) = self.kill(&name) {
                eprintln!("{name} may still run: {e}");
            }
        }
    }
}

/// Three datacenters on free ports of loopback, with more lines at the end.
pub fn topology(more: &str) -> Result<Topology> {
    Ok(Topology::parse(&topology_text(more)?, "topology.toml")?)
}

/// So many addresses of loopback where nobody listens.
pub fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    // All are held until each has one, so that none is given twice.
    let sockets: Vec<UdpSocket> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?)
}

/// Three datacenters with one log node each, and more lines at the end.
pub fn topology_text(more: &str) -> Result<String> {
    let addresses = free_addresses(4)?;
    let mut text = format!(
        "cluster = \"bench\"\nzone = \"bench.test\"\n[dns]\nservers = [\"{}\"]\n[log]\npreferred = \"a\"\n",
        addresses[3]
    );
    for name in DATACENTERS {
        text += &format!("[[datacenter]]\nname = \"{name}\"\n");
    }
    for (name, address) in DATACENTERS.iter().zip(addresses) {
        text += &format!(
            "[[node]]\nname = \"log-{name}\"\ndatacenter = \"{name}\"\nroles = [\"log\"]\naddress = \"{address}\"\n"
        );
    }
    Ok(text + more)
}

/// The log, as an operator in a datacenter sees it.
pub fn log(env: &Env, certs: &Path, topology: &Topology, datacenter: &Name) -> Result<RemoteLog> {
    let (peers, directory) = caller(env, certs, topology, Role::Log)?;
    Ok(RemoteLog::new(env, peers, directory, datacenter.clone()))
}

/// An operator's connections to all nodes of a role.
fn caller(env: &Env, certs: &Path, topology: &Topology, role: Role) -> Result<(Peers, Directory)> {
    let (datacenters, options) = (topology.datacenters.clone(), DirectoryOptions::default());
    Ok((peers(env, certs)?, Directory::start(env, &topology.zone, datacenters, &[role], options)))
}

/// An operator's connections.
pub fn peers(env: &Env, certs: &Path) -> Result<Peers> {
    let tls = Credentials::load(certs, "admin")?.tls(env)?;
    let here: SocketAddr = "127.0.0.1:0".parse()?;
    let mine = tls.identity.clone();
    let endpoint = Endpoint::open(env, here, tls, EndpointOptions::wan(env.random()).at(here))?;
    Ok(Peers::start(env.clone(), endpoint, Arc::new(Caller(Hello::of(&mine, env.random_u64())))))
}

/// Waits until the first log node leads, and returns its name.
pub async fn until_led_by_first(env: &Env, log: &RemoteLog, topology: &Topology) -> Result<Name> {
    let first = topology.nodes_with(Role::Log).next().context("there are log nodes")?.name.clone();
    let deadline = env.now() + BORN_WITHIN;
    loop {
        let info = log.info(&first, env.now() + Duration::from_secs(1)).await;
        if info.as_ref().is_ok_and(|info| info.leader.as_ref() == Some(&first)) {
            return Ok(first);
        }
        anyhow::ensure!(env.now() < deadline, "{first} does not come to lead: {info:?}");
        env.sleep(Duration::from_millis(100)).await;
    }
}

/// Appends so many bytes in entries of one size, and returns the last one's index.
pub async fn fill(env: &Env, log: &RemoteLog, bytes: u64, size: usize) -> Result<LogIndex> {
    let body = body(env, size);
    let appender = log.appender();
    let appends = (0..bytes / size as u64).map(|_| appender.append(body.clone(), env.now() + FILLED_WITHIN));
    let mut appends = futures::stream::iter(appends).buffer_unordered(FILL_BYTES_IN_FLIGHT.div_ceil(size));
    let mut last = LogIndex(0);
    while let Some(version) = appends.next().await {
        last = last.max(version?.index);
    }
    Ok(last)
}

/// Bytes that do not compress.
pub fn body(env: &Env, size: usize) -> Bytes {
    let bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| env.random_u64().to_le_bytes()).collect();
    Bytes::from(bytes).slice(..size)
}

/// A benchmark answers nobody.
struct Caller(Hello);

impl Service for Caller {
    fn hello(&self) -> Hello {
        self.0.clone()
    }

    fn serve(&self, _: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        futures::future::ready(Err(CallError::never(Code::UnknownKind, "this is a benchmark"))).boxed()
    }
}

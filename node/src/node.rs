//! One node: its endpoint, its peers and its roles. Nothing else knows two roles.
//!
//! A node starts its transport first, then its roles; the roles find one another and the other
//! nodes by name through `remote`, also those of the same node. It ends when a task that owns state
//! ends: replicas cover for it, and a half-dead node helps nobody.

use crate::api::shorten::ShortenOptions;
use crate::api::{ApiOptions, ApiRole};
use crate::log::disk::{Directory as LogDirectory, Disk};
use crate::log::timers::Given;
use crate::log::types::LogNode;
use crate::log::{LogOptions, LogRole};
use crate::remote::log::RemoteLog;
use crate::view::{Others, ViewOptions, ViewRole};
use anyhow::{Context, Result};
use beam_certs::{CertError, Credentials};
use beam_wire::command::{Begin, Command, FORMAT, Genesis};
use beam_wire::env::Env;
use beam_wire::message::Kind;
use beam_wire::message::hello::Hello;
use beam_wire::quic::{Directory, DirectoryOptions, Endpoint, EndpointOptions, Incoming, Peers, Service, Tls};
use beam_wire::topology::{self, Topology};
use beam_wire::{CallError, Code, Epoch, LogIndex, Name, Role};
use futures::future::{BoxFuture, FutureExt};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;

/// How long a stopping view may take to write down what it has.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What a node needs to start.
pub struct NodeOptions {
    /// The cluster.
    pub topology: Arc<Topology>,
    /// Which of its nodes this is.
    pub name: Name,
    /// Its certificate.
    pub credentials: Credentials,
    /// The newest command format that it reads, and says so. Older than [`FORMAT`] only where a test needs an older
    /// program.
    pub format: u16,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the log role keeps its segments; none where the node has no log role.
    pub log_disk: Option<Arc<dyn Disk>>,
    /// Where the view role keeps its index.
    pub view_directory: PathBuf,
    /// Where to look for its next certificate while it runs; none where none will come.
    pub certs: Option<PathBuf>,
    /// Kept over restarts, so that peers of a node that came back learn at once that their old
    /// connections are gone.
    pub reset_key: [u8; 64],
}

impl NodeOptions {
    /// A node that keeps all it has in one directory, which is made if need be.
    pub fn in_directory(
        env: &Env,
        topology: Arc<Topology>,
        name: Name,
        certs: &Path,
        directory: &Path,
    ) -> Result<NodeOptions> {
        let node = topology.node(&name).with_context(|| format!("the topology has no node {name}"))?;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the data directory {}", directory.display()))?;
        let log_disk: Option<Arc<dyn Disk>> = match node.has_role(Role::Log) {
            true => Some(Arc::new(LogDirectory::open(directory.join("log"))?)),
            false => None,
        };
        Ok(NodeOptions {
            format: FORMAT,
            listen: node.bind(),
            log_disk,
            view_directory: directory.join("view"),
            reset_key: reset_key(env, &directory.join("reset.key"))?,
            credentials: Credentials::load(certs, name.as_str())?,
            certs: Some(certs.to_owned()),
            topology,
            name,
        })
    }
}

fn reset_key(env: &Env, path: &Path) -> Result<[u8; 64]> {
    match std::fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|bytes: Vec<u8>| {
            anyhow::anyhow!("{} has {} bytes, not 64: delete it", path.display(), bytes.len())
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = env.random();
            std::fs::write(path, key).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Why a node must stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has something to do that only a start can do. Whoever runs it starts it again.
    Restart(String),
    /// Something that it cannot be without has failed.
    Failed(String),
}

/// A running node.
pub struct Node {
    env: Env,
    endpoint: Endpoint,
    roles: Arc<Roles>,
}

impl Node {
    /// Starts the node's transport, then its roles. Returns when they run, not when they have caught
    /// up.
    pub async fn start(env: Env, options: NodeOptions) -> Result<Node> {
        let scope = env.clone();
        scope.scope(Self::start_in_scope(env, options)).await
    }

    async fn start_in_scope(env: Env, options: NodeOptions) -> Result<Node> {
        let topology = options.topology;
        let node =
            topology.node(&options.name).with_context(|| format!("the topology has no node {}", options.name))?;
        let tls = options.credentials.tls(&env)?;
        let expected = topology.identity(node);
        anyhow::ensure!(
            tls.identity == expected,
            "the certificate says {}, but the topology says {expected}: make one with `beam cert node`",
            tls.identity
        );
        let endpoint_options = EndpointOptions::wan(options.reset_key).at(options.listen);
        let endpoint = Endpoint::open(&env, options.listen, tls, endpoint_options)
            .with_context(|| format!("node {} cannot listen at {}", node.name, options.listen))?;
        if let Some(certs) = options.certs {
            let renewed = renew(endpoint.clone(), node.name.clone());
            let name = node.name.to_string();
            let following = beam_certs::follow(env.clone(), certs, name, options.credentials, renewed);
            env.tasks().serve("node.certificate", following).detach();
        }
        let roles = Arc::new(Roles::new(&env, &topology, node, options.format));
        let peers = Peers::start(env.clone(), endpoint.clone(), roles.clone());
        let datacenters = topology.datacenters.clone();
        let directory =
            Directory::start(&env, &topology.zone, datacenters, &[Role::Log, Role::View], DirectoryOptions::default());
        let log = RemoteLog::new(&env, peers.clone(), directory.clone(), node.datacenter.clone());

        if let Some(disk) = options.log_disk {
            let role_options = log_options(&topology, node);
            let role =
                LogRole::start(&env, role_options, peers.clone(), directory.clone(), disk, genesis(&topology)).await?;
            roles.start(|running| running.log = Some(role));
        }
        if node.has_role(Role::View) {
            let mut view_options = view_options(&topology, node, options.view_directory);
            view_options.format = options.format;
            let others = Others {
                me: node.name.clone(),
                datacenter: node.datacenter.clone(),
                peers: peers.clone(),
                directory: directory.clone(),
                log: log.clone(),
            };
            let role = ViewRole::start(&env, view_options, others).await?;
            roles.start(|running| running.view = Some(role));
        }
        if node.has_role(Role::Api) {
            let (name, datacenter) = (node.name.clone(), node.datacenter.clone());
            let api = ApiRole::start(&env, api_options(&topology), name, datacenter, peers, directory, log);
            roles.start(|running| running.api = Some(api));
        }
        Ok(Node { env, endpoint, roles })
    }

    /// Waits until the node must stop: because a task that owns state has ended, or to start again at once.
    pub async fn ended(&self) -> Ending {
        let log = self.roles.running().log.clone();
        let restart = async {
            match &log {
                Some(log) => log.restart().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            ended = self.env.tasks().ended() => Ending::Failed(format!("{}: {}", ended.name, ended.why)),
            why = restart => Ending::Restart(why),
        }
    }

    /// Everything that the node does ends at this instant, as if its power were cut.
    pub fn kill(&self) {
        self.env.tasks().kill();
    }

    /// Waits until a killed node has let go of its files and its socket.
    pub async fn gone(self) {
        let Node { env, endpoint, roles } = self;
        roles.clear();
        drop(endpoint);
        env.tasks().join().await;
    }

    /// Stops in good order: no new calls, the view's progress to disk, connections closed.
    pub async fn stop(self) {
        self.env.scope(self.roles.stop()).await;
        self.endpoint.close("the node stops").await;
        self.kill();
        self.gone().await;
    }
}

/// Uses each new certificate from the next handshake on.
fn renew(endpoint: Endpoint, node: Name) -> impl FnMut(Result<Tls, CertError>) + Send {
    move |found| {
        let used = found.map_err(|e| e.to_string()).and_then(|tls| endpoint.set_tls(tls).map_err(|e| e.to_string()));
        match used {
            Ok(()) => tracing::info!("node {node} uses its new certificate"),
            Err(why) => tracing::error!("node {node} keeps its old certificate: {why}"),
        }
    }
}

/// What the log says to the views when an epoch begins.
pub fn begin_body(epoch: Epoch, kept: LogIndex) -> bytes::Bytes {
    Command::Begin(Begin { epoch, kept }).encode()
}

/// What the topology says of the log, else the log's own defaults.
pub fn log_options(topology: &Topology, node: &topology::Node) -> LogOptions {
    let member = |n: &topology::Node| LogNode { node: n.name.clone(), datacenter: n.datacenter.clone() };
    let members = topology.nodes_with(Role::Log).map(member).collect();
    let mut options = LogOptions::new(topology.cluster.clone(), node.name.clone(), node.datacenter.clone(), members);
    options.preferred = topology.log.preferred.clone();
    options.begin_body = begin_body;
    let round_trip = |n: &topology::Node| match n.datacenter == node.datacenter {
        true => Some((n.name.clone(), Duration::ZERO)),
        false => Some((n.name.clone(), topology.round_trip(&node.datacenter, &n.datacenter)?)),
    };
    options.given = Given {
        heartbeat: topology.log.heartbeat,
        election: topology.log.election,
        round_trips: topology.nodes_with(Role::Log).filter_map(round_trip).collect(),
    };
    if let Some(mib) = topology.log.segment_mib {
        options.store.segment_bytes = u64::from(mib) << 20;
    }
    if let Some(mib) = topology.log.reserve_mib {
        options.store.reserve_bytes = u64::from(mib) << 20;
    }
    options
}

/// What the topology says of views, else the view's own defaults.
fn view_options(topology: &Topology, node: &topology::Node, directory: PathBuf) -> ViewOptions {
    let mut options = ViewOptions::new(topology.cluster.clone(), node.serves.clone(), directory);
    let topology::View { history, checkpoint, copy_mib_per_second, scan_hours, calls } = topology.view;
    options.history = history.unwrap_or(options.history);
    options.checkpoint_indexes = checkpoint.unwrap_or(options.checkpoint_indexes);
    if let Some(hours) = scan_hours {
        options.scan_every = (hours > 0).then(|| Duration::from_secs(u64::from(hours) * 3600));
    }
    options.calls_max = calls.unwrap_or(options.calls_max);
    if let Some(mib) = copy_mib_per_second {
        options.copy_bytes_per_second = Some(u64::from(mib) << 20);
    }
    options
}

/// What the topology says of queries, else the api node's own defaults.
fn api_options(topology: &Topology) -> ApiOptions {
    let mut options = ApiOptions::new(ShortenOptions::of(topology));
    let topology::Query { memory_mib, hedge, running, waiting, writes } = topology.query;
    if let Some(mib) = memory_mib {
        options.limits.memory_bytes_max = (mib as usize) << 20;
    }
    options.hedging = hedge.unwrap_or(options.hedging);
    let admit = &mut options.admit;
    for (set, max) in
        [(running, &mut admit.running_max), (waiting, &mut admit.waiting_max), (writes, &mut admit.writes_max)]
    {
        *max = set.map_or(*max, |set| set as usize);
    }
    options
}

/// The first entry of the log: all that verdicts will ever depend on.
fn genesis(topology: &Topology) -> bytes::Bytes {
    let verdicts = &topology.verdicts;
    let genesis = Genesis {
        cluster: topology.cluster.clone(),
        epoch: Epoch(1),
        format: FORMAT,
        slots_log2: verdicts.slots_log2,
        window: verdicts.window,
    };
    Command::Genesis(genesis).encode()
}

/// What the node answers: each call goes to the role whose it is.
struct Roles {
    hello: Hello,
    running: RwLock<Running>,
}

/// The roles hold the node's peers, whose service they are: a circle that [`Roles::clear`] opens.
#[derive(Default)]
struct Running {
    log: Option<Arc<LogRole>>,
    view: Option<Arc<ViewRole>>,
    api: Option<Arc<ApiRole>>,
}

impl Roles {
    fn new(env: &Env, topology: &Topology, node: &topology::Node, format: u16) -> Roles {
        let hello = Hello {
            cluster: topology.cluster.clone(),
            epoch: None,
            name: node.name.clone(),
            datacenter: Some(node.datacenter.clone()),
            roles: topology.identity(node).role_names(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            format,
            serves: node.serves.clone(),
            boot: env.random_u64(),
        };
        Roles { hello, running: RwLock::default() }
    }

    fn running(&self) -> RwLockReadGuard<'_, Running> {
        self.running.read().expect("nothing panics while it holds this")
    }

    fn start(&self, with: impl FnOnce(&mut Running)) {
        with(&mut self.running.write().expect("nothing panics while it holds this"))
    }

    /// Lets go of the roles, and so of their files.
    fn clear(&self) {
        self.start(|running| *running = Running::default());
    }

    /// No new work for the roles that keep something; what they know goes to disk.
    async fn stop(&self) {
        let (log, view) = {
            let running = self.running();
            (running.log.clone(), running.view.clone())
        };
        if let Some(view) = view
            && let Err(error) = view.stop(STOP_WITHIN).await
        {
            tracing::error!("the view did not stop well: {error}");
        }
        if let Some(log) = log {
            log.stop().await;
        }
    }
}

impl Service for Roles {
    fn hello(&self) -> Hello {
        let mut hello = self.hello.clone();
        if let Some(view) = &self.running().view {
            hello.serves = view.serves();
        }
        hello
    }

    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        let starting = || {
            CallError::elsewhere(
                Code::Unavailable,
                format!("node {} is starting, or has no such role", self.hello.name),
            )
        };
        use Kind::*;
        let running = self.running();
        let served = match call.kind {
            Hello => None,
            LogAppend | LogRead | LogTail | LogInfo | LogDiscard | LogStatus | LogChange | LogRecover | RaftPipe
            | RaftVote | RaftSnapshot | RaftTransfer | RaftHeartbeat => running.log.as_ref().map(|log| log.serve(call)),
            ViewStatus | ViewLookup | ViewTerms | ViewVerdict | ViewVerdicts | ViewCount | ViewCopy
            | ViewCheckpoint | ViewRules | ViewInstances | ViewLoad | ViewHold | ViewDrop | ViewVerify => {
                running.view.as_ref().map(|view| view.serve(call))
            }
            ApiQuery | ApiRead | ApiUpdate | ApiTransact | ApiCommitted | ApiWatch | ApiStatus | ApiLoad => {
                running.api.as_ref().map(|api| api.serve(call))
            }
        };
        served.unwrap_or_else(|| futures::future::ready(Err(starting())).boxed())
    }
}

//! How commands reach a cluster: topology, certificate, and the client SDK.

use crate::remote::log::RemoteLog;
use anyhow::{Context, Result, anyhow};
use beam_certs::Credentials;
use beam_client::{Client, ClientOptions};
use beam_wire::command::FORMAT;
use beam_wire::env::Env;
use beam_wire::env::dns::Resolver;
use beam_wire::message::hello::Hello;
use beam_wire::quic::{Directory, DirectoryOptions, Endpoint, EndpointOptions, Incoming, Peers, Service};
use beam_wire::topology::{Topology, TopologyError};
use beam_wire::{CallError, Code, Name, Role};
use futures::future::{BoxFuture, FutureExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Which cluster, and as whom.
#[derive(clap::Args, Clone)]
pub struct Connection {
    /// The cluster's topology
    #[arg(long, env = "BEAM_TOPOLOGY", default_value = "topology.toml", value_name = "FILE")]
    pub topology: PathBuf,
    /// The directory that holds ca.pem and the client's certificate
    #[arg(long, env = "BEAM_CERTS", default_value = "beam-data/certs", value_name = "DIR")]
    pub certs: PathBuf,
    /// The name of the client's certificate in that directory
    #[arg(long, env = "BEAM_CLIENT", default_value = "admin", value_name = "NAME")]
    pub client: String,
    /// Ask api nodes of this datacenter first
    #[arg(long, env = "BEAM_DATACENTER", value_name = "NAME")]
    pub datacenter: Option<Name>,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    pub timeout: f64,
}

/// Reads the topology that a command was told of.
pub fn topology_at(path: &Path) -> Result<Topology> {
    Topology::load(path).map_err(|error| match error {
        TopologyError::Unreadable { file, source } => {
            anyhow!("cannot read the topology {file}: {source}; name it with --topology, or run where there is one")
        }
        other => other.into(),
    })
}

/// Where names are looked up: the topology's own DNS servers, or the system's.
pub fn resolver(topology: &Topology) -> Result<Arc<Resolver>> {
    let servers = &topology.dns.servers;
    let resolver = if servers.is_empty() { Resolver::system() } else { Resolver::new(servers) };
    Ok(Arc::new(resolver?))
}

impl Connection {
    /// How long a command may take.
    pub fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.timeout.clamp(0.001, 1e9))
    }

    /// Connects with the certificate that the arguments name.
    pub async fn open(&self) -> Result<(Client, Topology)> {
        let topology = topology_at(&self.topology)?;
        let env = Env::real(resolver(&topology)?);
        let credentials = Credentials::load(&self.certs, &self.client)?;
        let mut datacenters: Vec<Name> = topology.datacenters.clone();
        if let Some(first) = &self.datacenter {
            anyhow::ensure!(
                datacenters.contains(first),
                "the topology has no datacenter {first}; it has {}",
                datacenters.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
            );
            datacenters.sort_by_key(|d| d != first);
        }
        let options = ClientOptions::new(&topology.zone, datacenters, credentials.tls(&env)?);
        let client = Client::connect(env, options.timeout(self.limit())).await?;
        Ok((client, topology))
    }
}

/// A command answers nobody.
struct Caller(Hello);

impl Service for Caller {
    fn hello(&self) -> Hello {
        self.0.clone()
    }

    fn serve(&self, _: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        let refusal = CallError::never(Code::UnknownKind, "this is a client: it answers no calls");
        futures::future::ready(Err(refusal)).boxed()
    }
}

impl Connection {
    /// Connects to the log nodes themselves.
    pub async fn open_log(&self) -> Result<(RemoteLog, Env)> {
        let (_, _, log, env) = self.open_roles(&[Role::Log]).await?;
        Ok((log, env))
    }

    /// Connects to nodes of every role.
    pub async fn open_nodes(&self) -> Result<(Peers, Directory, RemoteLog, Env)> {
        self.open_roles(&[Role::Log, Role::View, Role::Api]).await
    }

    async fn open_roles(&self, roles: &[Role]) -> Result<(Peers, Directory, RemoteLog, Env)> {
        let topology = topology_at(&self.topology)?;
        let env = Env::real(resolver(&topology)?);
        let tls = Credentials::load(&self.certs, &self.client)?.tls(&env)?;
        let local = if topology.nodes.iter().any(|n| n.address.is_ipv6()) { "[::]:0" } else { "0.0.0.0:0" };
        let options = EndpointOptions::wan(env.random());
        let endpoint = Endpoint::open(&env, local.parse().expect("an address"), tls.clone(), options)?;
        let hello = Hello {
            cluster: topology.cluster.clone(),
            epoch: None,
            name: tls.identity.name().clone(),
            datacenter: None,
            roles: tls.identity.role_names(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            format: FORMAT,
            serves: vec![],
            boot: env.random_u64(),
        };
        let peers = Peers::start(env.clone(), endpoint, Arc::new(Caller(hello)));
        let datacenters = topology.datacenters.clone();
        let directory = Directory::start(&env, &topology.zone, datacenters, roles, DirectoryOptions::default());
        directory.ready(&env, self.limit()).await?;
        let log = RemoteLog::new(&env, peers.clone(), directory.clone(), self.near(&topology)?);
        Ok((peers, directory, log, env))
    }

    /// The datacenter whose nodes are asked first.
    pub fn near(&self, topology: &Topology) -> Result<Name> {
        let near = self.datacenter.clone().or(topology.datacenters.first().cloned());
        near.context("the topology has no datacenter")
    }
}

//! A whole cluster in one process: what `demo` and `dev` run.
//!
//! Every node has its own tasks, its own endpoint on a real UDP socket and its own certificate; the
//! nodes share nothing but the process. Killing one aborts all of its tasks at one instant and closes its
//! socket without a word, as a lost machine would. What the disk had not been told to keep is the
//! one thing that survives here and not there; the simulation takes care of that.

pub mod wan;

use crate::discovery::DnsServer;
use crate::node::{Ending, Node, NodeOptions};
use anyhow::{Context, Result};
use beam_certs::Credentials;
use beam_wire::env::Env;
use beam_wire::env::dns::Resolver;
use beam_wire::topology::Topology;
use beam_wire::{ClientRole, Identity, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wan::Wan;

/// The clients that a local cluster has certificates for.
pub const CLIENTS: [(&str, ClientRole); 3] =
    [("reader", ClientRole::Reader), ("writer", ClientRole::Writer), ("admin", ClientRole::Admin)];

/// A running cluster.
pub struct Local {
    topology: Arc<Topology>,
    directory: PathBuf,
    wan: Arc<Wan>,
    resolver: Arc<Resolver>,
    running: BTreeMap<Name, Node>,
    _dns: DnsServer,
}

impl Local {
    /// Starts the DNS server at `dns` (any free port for 0), then every node of the topology.
    /// `directory` keeps certificates and data between runs.
    pub async fn start(topology: Topology, directory: &Path, dns: SocketAddr, wan: Wan) -> Result<Local> {
        let topology = Arc::new(topology);
        let bare = Env::real(Arc::new(Resolver::new(&[])?));
        let dns = DnsServer::start(&bare, &topology, dns).await.context("cannot start the DNS server")?;
        let resolver = Arc::new(Resolver::new(&[dns.address()])?);
        let mut local = Local {
            topology: topology.clone(),
            directory: directory.to_owned(),
            wan: Arc::new(wan),
            resolver,
            running: BTreeMap::new(),
            _dns: dns,
        };
        local.certify(&bare)?;
        for name in topology.nodes.iter().map(|n| n.name.clone()) {
            local.start_node(&name).await?;
        }
        Ok(local)
    }

    /// The cluster's topology.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Where the certificates are.
    pub fn certs(&self) -> PathBuf {
        self.directory.join("certs")
    }

    /// Makes the certificates that are missing or about to run out.
    fn certify(&self, env: &Env) -> Result<()> {
        let cluster = &self.topology.cluster;
        let nodes = self.topology.nodes.iter().map(|n| self.topology.identity(n));
        let clients = CLIENTS
            .iter()
            .map(|(name, role)| Identity::client(cluster.clone(), Name::new(*name).expect("these are names"), *role));
        let identities: Vec<Identity> = nodes.chain(clients).collect();
        beam_certs::ensure(env, &self.certs(), cluster, &identities)?;
        Ok(())
    }

    /// An environment in a datacenter: as far from the other datacenters as the emulated WAN says.
    pub fn env(&self, datacenter: &Name) -> Env {
        Env::with_sockets(self.resolver.clone(), self.wan.sockets(datacenter))
    }

    /// The certificate of one of [`CLIENTS`], or of a node.
    pub fn credentials(&self, name: &str) -> Result<Credentials> {
        Ok(Credentials::load(&self.certs(), name)?)
    }

    async fn start_node(&mut self, name: &Name) -> Result<()> {
        let node = self.topology.node(name).with_context(|| format!("the topology has no node {name}"))?;
        let env = self.env(&node.datacenter).child(name.as_str());
        let options = NodeOptions::in_directory(
            &env,
            self.topology.clone(),
            name.clone(),
            &self.certs(),
            &self.directory.join("nodes").join(name.as_str()),
        )?;
        let node = Node::start(env, options).await.with_context(|| format!("cannot start node {name}"))?;
        self.running.insert(name.clone(), node);
        Ok(())
    }

    fn nodes_of(&self, datacenter: &Name) -> Vec<Name> {
        self.topology.nodes_in(datacenter).map(|n| n.name.clone()).collect()
    }

    /// Everything in the datacenter is gone at one instant.
    pub async fn lose_datacenter(&mut self, datacenter: &Name) {
        let lost: Vec<_> = self.nodes_of(datacenter).iter().filter_map(|n| self.running.remove(n)).collect();
        for node in &lost {
            node.kill();
        }
        for node in lost {
            node.gone().await;
        }
    }

    /// Its nodes start again, each from its own disk.
    pub async fn return_datacenter(&mut self, datacenter: &Name) -> Result<()> {
        for name in self.nodes_of(datacenter) {
            if !self.running.contains_key(&name) {
                self.start_node(&name).await?;
            }
        }
        Ok(())
    }

    /// The datacenters of which at least one node runs.
    pub fn datacenters_up(&self) -> BTreeSet<Name> {
        let up = self.topology.nodes.iter().filter(|n| self.running.contains_key(&n.name));
        up.map(|n| n.datacenter.clone()).collect()
    }

    /// Waits until a node fails: its name, and why. Those that must start again do so meanwhile.
    pub async fn ended(&mut self) -> Result<(Name, String)> {
        loop {
            let ends = self.running.iter().map(|(name, node)| Box::pin(async { (name.clone(), node.ended().await) }));
            let ((name, ending), _, _) = futures::future::select_all(ends).await;
            match ending {
                Ending::Failed(why) => return Ok((name, why)),
                Ending::Restart(why) => {
                    eprintln!("node {name} starts again {why}");
                    if let Some(node) = self.running.remove(&name) {
                        node.stop().await;
                    }
                    self.start_node(&name).await?;
                }
            }
        }
    }

    /// Stops every node in good order.
    pub async fn stop(self) {
        futures::future::join_all(self.running.into_values().map(Node::stop)).await;
    }
}

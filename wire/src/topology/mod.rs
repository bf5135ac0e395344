//! The topology: what must agree everywhere.
//!
//! `topology.toml` names the cluster, its DNS zone, its datacenters and nodes, and the settings
//! that every node must share. [`Topology::parse`] takes it whole or not at all: an unknown key, a
//! name used twice, a partition that cannot be is refused with file, line and column, all faults at
//! once. What is allowed but unwise (no majority without some datacenter, a partition with a single
//! view) is left to [`Topology::warnings`].
//!
//! From the topology follow the DNS records of its nodes ([`Topology::srv_records`],
//! [`Topology::address_records`]); running nodes find one another by those records alone
//! ([`crate::quic::directory`]), so that a view or api node may join without a change here.
//!
//! Missing: addresses that only DNS knows (every node here states its own), and settings that
//! differ per node.

mod check;
mod read;
mod records;
mod table;
#[cfg(test)]
mod tests;

pub use records::{AddressRecord, SrvRecord, TTL, host_name, node_of_host, service_name};
pub use table::{Fault, TopologyError};

use crate::identity::{Identity, Role};
use crate::ids::Name;
use crate::message::view::Served;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// A cluster as its `topology.toml` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The cluster's name: every certificate carries it.
    pub cluster: Name,
    /// The DNS zone of its nodes, in lower case, without a dot at the end.
    pub zone: String,
    /// How to ask DNS.
    pub dns: Dns,
    /// Settings of the log.
    pub log: Log,
    /// What verdicts depend on. Written into the log's first entry, and not read from here again.
    pub verdicts: Verdicts,
    /// Settings of views.
    pub view: View,
    /// Settings of queries.
    pub query: Query,
    /// What is known about the networks between datacenters.
    pub links: Vec<Link>,
    /// The datacenters, in the order of the file.
    pub datacenters: Vec<Name>,
    /// The nodes, in the order of the file.
    pub nodes: Vec<Node>,
}

/// `[dns]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// The servers to ask; empty for those of the operating system. `beam dev` answers its zone
    /// itself at the first of these.
    pub servers: Vec<SocketAddr>,
}

/// `[log]`. What is `None` is left to the log's own defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The datacenter that the leader stays in while it is healthy.
    pub preferred: Option<Name>,
    /// How often a leader says that it lives.
    pub heartbeat: Option<Duration>,
    /// The shortest and the longest silence after which a follower calls an election.
    pub election: Option<(Duration, Duration)>,
    /// The size at which a segment is closed and the next begun.
    pub segment_mib: Option<u32>,
    /// What a log node keeps free on its disk: with less it takes no entries of clients.
    pub reserve_mib: Option<u32>,
    /// The newest entries that the log keeps even if all views have them: a view that was away for a while reads on.
    pub keep_entries: Option<u64>,
    /// How large the log may grow, in bytes, because views that still need it are behind or not seen.
    pub hold_bytes: Option<u64>,
}

/// `[verdicts]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts {
    /// The base-2 logarithm of the number of conflict slots, each of 8 bytes.
    pub slots_log2: u8,
    /// How many indexes back a transaction may have been born.
    pub window: u64,
}

/// 2²³ slots are 64 MiB, enough that two of a million hot keys rarely meet; a million indexes are
/// minutes at full speed.
impl Default for Verdicts {
    fn default() -> Self {
        Self { slots_log2: 23, window: 1_000_000 }
    }
}

/// `[view]`. What is `None` is left to the view's own defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// How many indexes back a view can still be read.
    pub history: Option<u64>,
    /// After how many indexes a view writes a verdict checkpoint. A restart judges so many entries again, and the log
    /// is kept from the oldest one on.
    pub checkpoint: Option<u64>,
    /// What a view sends at most to those that copy from it, all together; 32 if nothing is said.
    pub copy_mib_per_second: Option<u32>,
    /// How often a view reads all of its data, to see whether that is what it has applied; 0 means never.
    pub scan_hours: Option<u32>,
    /// Calls that a view answers at once. More are refused.
    pub calls: Option<u32>,
}

/// `[query]`. What is `None` is left to the api node's own defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// How much memory one query may use.
    pub memory_mib: Option<u32>,
    /// Whether api nodes ask another view when one is late, and leave out those that are silent or slow.
    pub hedge: Option<bool>,
    /// Queries and updates that an api node evaluates at once.
    pub running: Option<u32>,
    /// Queries and updates that wait for that. More are refused.
    pub waiting: Option<u32>,
    /// Transactions that an api node has taken and not answered yet. More are refused.
    pub writes: Option<u32>,
}

/// `[[link]]`: the network between two datacenters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The two ends.
    pub between: (Name, Name),
    /// The round trip. `beam dev --wan topology` delays packets by half of it.
    pub round_trip: Duration,
    /// Bandwidth reserved for Beam, for the floor of the congestion window; none on networks that
    /// are shared with others.
    pub reserved_mbit: Option<u32>,
}

/// `[[node]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, unique in the cluster.
    pub name: Name,
    /// Where it is.
    pub datacenter: Name,
    /// What it does; not empty, ascending.
    pub roles: Vec<Role>,
    /// What it holds, if it is a view.
    pub serves: Vec<Served>,
    /// Where others reach it.
    pub address: SocketAddr,
    /// Where it listens, if not there (behind a NAT, or on all addresses).
    pub bind: Option<SocketAddr>,
}

impl Node {
    /// Where it listens.
    pub fn bind(&self) -> SocketAddr {
        self.bind.unwrap_or(self.address)
    }

    /// Whether it has this role.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

impl Topology {
    /// Reads a topology file.
    pub fn load(path: &Path) -> Result<Topology, TopologyError> {
        let file = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| TopologyError::Unreadable { file: file.clone(), source })?;
        Self::parse(&text, &file)
    }

    /// Reads a topology; `file` is named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Topology, TopologyError> {
        read::parse(text, file)
    }

    /// What is allowed but unwise, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        check::warnings(self)
    }

    /// The node of this name.
    pub fn node(&self, name: &Name) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// All nodes that have this role.
    pub fn nodes_with(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.has_role(role))
    }

    /// All nodes of a datacenter.
    pub fn nodes_in<'a>(&'a self, datacenter: &'a Name) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| node.datacenter == *datacenter)
    }

    /// What the certificate of a node of this topology says.
    pub fn identity(&self, node: &Node) -> Identity {
        Identity::node(self.cluster.clone(), node.datacenter.clone(), node.name.clone(), node.roles.clone())
    }

    /// The round trip between two datacenters, if a link says it.
    pub fn round_trip(&self, a: &Name, b: &Name) -> Option<Duration> {
        self.link(a, b).map(|link| link.round_trip)
    }

    /// What is known of the network between two datacenters.
    pub fn link(&self, a: &Name, b: &Name) -> Option<&Link> {
        self.links.iter().find(|link| {
            let (one, other) = &link.between;
            (one == a && other == b) || (one == b && other == a)
        })
    }
}

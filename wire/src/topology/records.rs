//! The DNS records that lead to a topology's nodes.
//!
//! ```text
//! _beam-log._udp.va.beam.test.  SRV  0 10 7101 log-va.va.beam.test.
//! log-va.va.beam.test.          A    127.0.0.1
//! ```

use super::Topology;
use crate::identity::Role;
use crate::ids::Name;
use std::net::IpAddr;
use std::time::Duration;

/// How long the records may be kept, where Beam itself answers or prints them: short enough that a
/// moved node is found within half a minute, long enough that DNS is no load.
pub const TTL: Duration = Duration::from_secs(30);

/// Weight of every node: all are asked equally often.
const WEIGHT: u16 = 10;

/// One SRV record (RFC 2782): a node that has a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SrvRecord {
    /// `_beam-<role>._udp.<dc>.<zone>`
    pub service: String,
    /// Lower ones are tried first.
    pub priority: u16,
    /// How often it is chosen among those of one priority.
    pub weight: u16,
    /// The UDP port.
    pub port: u16,
    /// `<node>.<dc>.<zone>`
    pub target: String,
}

/// One A or AAAA record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRecord {
    /// `<node>.<dc>.<zone>`
    pub host: String,
    /// Where it is.
    pub address: IpAddr,
}

impl Topology {
    /// An SRV record for each role of each node, in the order of the file.
    pub fn srv_records(&self) -> Vec<SrvRecord> {
        let of_node = |node: &super::Node| {
            let target = host_name(&node.name, &node.datacenter, &self.zone);
            let port = node.address.port();
            let service = |role: &Role| service_name(*role, &node.datacenter, &self.zone);
            let record = |service| SrvRecord { service, priority: 0, weight: WEIGHT, port, target: target.clone() };
            node.roles.iter().map(service).map(record).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of_node).collect()
    }

    /// An address record for each node, in the order of the file.
    pub fn address_records(&self) -> Vec<AddressRecord> {
        let of_node = |node: &super::Node| AddressRecord {
            host: host_name(&node.name, &node.datacenter, &self.zone),
            address: node.address.ip(),
        };
        self.nodes.iter().map(of_node).collect()
    }
}

/// The name under which a datacenter's nodes of one role are found.
pub fn service_name(role: Role, datacenter: &Name, zone: &str) -> String {
    format!("_beam-{role}._udp.{datacenter}.{zone}")
}

/// The name of a node's host.
pub fn host_name(node: &Name, datacenter: &Name, zone: &str) -> String {
    format!("{node}.{datacenter}.{zone}")
}

/// The node and datacenter that a host name stands for, if it is one of the zone's. Case and a dot
/// at the end do not matter.
pub fn node_of_host(host: &str, zone: &str) -> Option<(Name, Name)> {
    let (host, zone) = (host.trim_end_matches('.').to_ascii_lowercase(), zone.trim_end_matches('.'));
    let labels = host.strip_suffix(&zone.to_ascii_lowercase())?.strip_suffix('.')?;
    let (node, datacenter) = labels.split_once('.')?;
    Some((node.parse().ok()?, datacenter.parse().ok()?))
}

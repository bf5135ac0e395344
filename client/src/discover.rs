//! Where api nodes are, without DNS: as a topology says.

use beam_wire::env::{Dns, DnsError, SrvAnswer, SrvTarget};
use beam_wire::topology::Topology;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::time::Duration;

/// It never changes: a program that is to follow nodes which move uses DNS.
const TTL: Duration = Duration::from_secs(300);

/// Answers as the zone of a topology would (`beam topology zone`): for programs that have the file, where no DNS
/// server serves it.
///
/// ```no_run
/// use beam_client::TopologyDns;
/// use beam_client::wire::{env::Env, topology::Topology};
/// use std::sync::Arc;
///
/// # fn example() -> Result<Env, Box<dyn std::error::Error>> {
/// let topology = Topology::load("topology.toml".as_ref())?;
/// Ok(Env::real(Arc::new(TopologyDns::new(&topology))))
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TopologyDns {
    services: BTreeMap<String, Vec<SrvTarget>>,
}

impl TopologyDns {
    /// The nodes of this topology, at its addresses.
    pub fn new(topology: &Topology) -> TopologyDns {
        let addresses: BTreeMap<String, _> =
            topology.address_records().into_iter().map(|record| (record.host, record.address)).collect();
        let mut services: BTreeMap<String, Vec<SrvTarget>> = BTreeMap::new();
        for record in topology.srv_records() {
            let target = SrvTarget {
                priority: record.priority,
                weight: record.weight,
                port: record.port,
                addresses: addresses.get(&record.target).copied().into_iter().collect(),
                target: record.target,
            };
            services.entry(record.service).or_default().push(target);
        }
        TopologyDns { services }
    }
}

impl Dns for TopologyDns {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>> {
        let found = self.services.get(name.trim_end_matches('.')).cloned();
        let answer = found.map(|targets| SrvAnswer { targets, ttl: TTL });
        Box::pin(std::future::ready(answer.ok_or_else(|| DnsError::NoSuchName(name.to_owned()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_api_node_of_the_topology_is_found() {
        let topology = Topology::parse(include_str!("../../topology.toml"), "topology.toml").unwrap();
        let dns = TopologyDns::new(&topology);
        let answer = dns.srv(&format!("_beam-api._udp.va.{}.", topology.zone)).await.unwrap();
        let node = topology.nodes.iter().find(|node| node.name.as_str() == "api-va").unwrap();
        let found: Vec<_> = answer.targets.iter().map(|t| (t.addresses.clone(), t.port)).collect();
        assert_eq!(found, [(vec![node.address.ip()], node.address.port())]);
        assert!(dns.srv("_beam-api._udp.nowhere.beam.test").await.is_err());
    }
}

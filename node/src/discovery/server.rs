//! An authoritative DNS server for one topology.

use beam_wire::env::{Env, Task};
use beam_wire::topology::{TTL, Topology};
use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, AAAA, NS, SOA, SRV};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordSet, RrKey};
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};

/// How long a TCP client may be silent: our answers are asked for once.
const TCP_IDLE: Duration = Duration::from_secs(5);

/// Answers of one TCP client that may wait to be sent.
const TCP_ANSWERS_MAX: usize = 16;

/// With port 0, how often to look for a port that is free for both UDP and TCP.
const PORTS_TRIED_MAX: usize = 16;

/// Why there is no DNS server.
#[derive(Debug, thiserror::Error)]
pub enum DnsServerError {
    /// The address cannot be used.
    #[error("cannot answer DNS at {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// A name of the topology is no name to DNS.
    #[error("a record cannot be made: {0}")]
    Record(String),
}

impl From<ProtoError> for DnsServerError {
    fn from(e: ProtoError) -> Self {
        Self::Record(e.to_string())
    }
}

/// Answers the zone of a topology over UDP and TCP, on sockets of the operating system. It stops when
/// dropped.
pub struct DnsServer {
    address: SocketAddr,
    zone: Arc<InMemoryZoneHandler>,
    _task: Task,
}

impl DnsServer {
    /// Starts to answer at `bind`; port 0 takes any that is free.
    pub async fn start(env: &Env, topology: &Topology, bind: SocketAddr) -> Result<DnsServer, DnsServerError> {
        let origin = absolute(&topology.zone)?;
        let records = records(env, topology)?;
        let zone = InMemoryZoneHandler::new(origin.clone(), records, ZoneType::Primary, AxfrPolicy::Deny)
            .map_err(DnsServerError::Record)?;
        let zone = Arc::new(zone);
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::new(&origin), vec![zone.clone() as Arc<dyn ZoneHandler>]);

        let (udp, tcp) = bound(bind).await.map_err(|source| DnsServerError::Bind { address: bind, source })?;
        let address = udp.local_addr().map_err(|source| DnsServerError::Bind { address: bind, source })?;
        let task = env.tasks().own("dns.serve", async move {
            // hickory keeps its tasks in the server, so they end with this one.
            let mut server = Server::new(catalog);
            server.register_socket(udp);
            server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS_MAX);
            server.block_until_done().await
        });
        Ok(DnsServer { address, zone, _task: task })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the records of this topology from now on. Its zone must be the one it was started with.
    pub async fn set(&self, env: &Env, topology: &Topology) -> Result<(), DnsServerError> {
        let ours = Name::from(self.zone.origin().clone());
        if absolute(&topology.zone)? != ours {
            return Err(DnsServerError::Record(format!("zone {} is not {ours}", topology.zone)));
        }
        let records = records(env, topology)?;
        let records = records.into_iter().map(|(key, set)| (key, Arc::new(set))).collect();
        *self.zone.records_mut().await = records;
        Ok(())
    }
}

async fn bound(bind: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tried = 0;
    loop {
        let udp = UdpSocket::bind(bind).await?;
        tried += 1;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            // Somebody's TCP has the port that we were given for UDP.
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && bind.port() == 0 && tried < PORTS_TRIED_MAX => {}
            Err(e) => return Err(e),
        }
    }
}

type Records = BTreeMap<RrKey, RecordSet>;

fn records(env: &Env, topology: &Topology) -> Result<Records, DnsServerError> {
    let origin = absolute(&topology.zone)?;
    let server = absolute(&format!("ns.{}", topology.zone))?;
    let ttl = TTL.as_secs() as u32;
    // Grows with time, as the serial of a zone must.
    let serial = env.unix_time().as_secs() as u32;
    // The last field is how long "no such name" may be believed: a node that starts is found soon.
    let soa = SOA::new(server.clone(), absolute(&format!("hostmaster.{}", topology.zone))?, serial, 60, 30, 3600, 5);

    let mut records = Records::new();
    let mut add = |name: Name, data: RData| {
        let record = Record::from_rdata(name.clone(), ttl, data);
        let key = RrKey::new(LowerName::new(&name), record.record_type());
        let set = records.entry(key).or_insert_with(|| RecordSet::with_ttl(name, record.record_type(), ttl));
        set.insert(record, serial);
    };
    add(origin.clone(), RData::SOA(soa));
    add(origin, RData::NS(NS(server)));
    for record in topology.srv_records() {
        let target = absolute(&record.target)?;
        let data = SRV::new(record.priority, record.weight, record.port, target);
        add(absolute(&record.service)?, RData::SRV(data));
    }
    for record in topology.address_records() {
        let data = match record.address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        add(absolute(&record.host)?, data);
    }
    Ok(records)
}

fn absolute(name: &str) -> Result<Name, ProtoError> {
    Name::from_ascii(format!("{name}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::env::dns::Resolver;
    use beam_wire::env::{Dns, DnsError};
    use beam_wire::quic::{Directory, DirectoryOptions};
    use beam_wire::{Name as NodeName, Role};

    const ANY_PORT: &str = "127.0.0.1:0";

    fn topology() -> Topology {
        Topology::parse(include_str!("../../../topology.toml"), "topology.toml").unwrap()
    }

    async fn server() -> (Env, DnsServer) {
        // The server needs no DNS itself, and must not be given one that answers.
        let nowhere = Resolver::new(&["127.0.0.1:1".parse().unwrap()]).unwrap();
        let env = Env::real(Arc::new(nowhere));
        let server = DnsServer::start(&env, &topology(), ANY_PORT.parse().unwrap()).await.unwrap();
        (env, server)
    }

    #[tokio::test]
    async fn every_target_is_resolved_by_itself() {
        let (_env, server) = server().await;
        let resolver = Resolver::new(&[server.address()]).unwrap();
        for name in ["_beam-view._udp.or.beam.test", "_beam-view._udp.or.beam.test.", "_BEAM-view._udp.OR.beam.test"] {
            let mut answer = resolver.srv(name).await.unwrap();
            assert_eq!(answer.ttl, TTL);
            answer.targets.sort_by(|a, b| a.target.cmp(&b.target));
            let found: Vec<(&str, u16, String)> = answer
                .targets
                .iter()
                .map(|t| (t.target.as_str(), t.port, t.addresses.iter().map(IpAddr::to_string).collect()))
                .collect();
            let expected = [("1a", 7202), ("1b", 7203), ("2a", 7204), ("2b", 7205)]
                .map(|(node, port)| (format!("view-or-{node}.or.beam.test"), port, "127.0.0.1".to_owned()));
            let found: Vec<_> = found.into_iter().map(|(host, port, ip)| (host.to_owned(), port, ip)).collect();
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn no_such_name_is_not_a_failure() {
        let (_env, server) = server().await;
        let resolver = Resolver::new(&[server.address()]).unwrap();
        let none = "_beam-log._udp.mars.beam.test";
        assert_eq!(resolver.srv(none).await, Err(DnsError::NoSuchName(none.into())));
        // There is such a name, and nothing of the kind that was asked for.
        let host = "log-va.va.beam.test";
        assert_eq!(resolver.srv(host).await, Err(DnsError::NoSuchName(host.into())));
        // The server refuses to speak of other zones.
        let other = resolver.srv("_beam-log._udp.va.other.test").await.unwrap_err();
        assert!(matches!(other, DnsError::Failed(_)), "{other}");
        let port_of_nobody = std::net::UdpSocket::bind(ANY_PORT).unwrap().local_addr().unwrap();
        let silent = Resolver::new(&[port_of_nobody]).unwrap();
        let failed = silent.srv("_beam-log._udp.va.beam.test").await.unwrap_err();
        assert!(matches!(failed, DnsError::Failed(_)), "{failed}");
    }

    #[tokio::test]
    async fn records_can_be_replaced() {
        let (env, server) = server().await;
        let resolver = Resolver::new(&[server.address()]).unwrap();
        let name = "_beam-log._udp.va.beam.test";
        let mut moved = topology();
        moved.nodes[0].address = "[::1]:9000".parse().unwrap();
        server.set(&env, &moved).await.unwrap();
        let answer = resolver.srv(name).await.unwrap();
        assert_eq!((answer.targets[0].port, &answer.targets[0].addresses[..]), (9000, &["::1".parse().unwrap()][..]));
        moved.nodes.remove(0);
        server.set(&env, &moved).await.unwrap();
        assert_eq!(resolver.srv(name).await, Err(DnsError::NoSuchName(name.into())));
        moved.zone = "other.test".into();
        assert!(server.set(&env, &moved).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_told() {
        let (env, server) = server().await;
        let error = DnsServer::start(&env, &topology(), server.address()).await.err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot answer DNS at {}: ", server.address())), "{error}");
    }

    #[tokio::test]
    async fn a_directory_finds_the_whole_cluster() {
        let (_, server) = server().await;
        let env = Env::real(Arc::new(Resolver::new(&[server.address()]).unwrap()));
        let topology = topology();
        let directory = Directory::start(
            &env,
            &topology.zone,
            topology.datacenters.clone(),
            &Role::ALL,
            DirectoryOptions::default(),
        );
        directory.ready(&env, Duration::from_secs(20)).await.unwrap();
        for node in &topology.nodes {
            let found = directory.find(&node.name).unwrap();
            assert_eq!((found.datacenter, found.addresses), (node.datacenter.clone(), vec![node.address]));
        }
        let views = directory.nodes(Role::View, &NodeName::new("ie").unwrap());
        assert_eq!(views.len(), 4);
    }
}

//! Names and where they lead: what the rest asks of DNS.

use futures::FutureExt;
use futures::future::{BoxFuture, join, join_all};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as NetDnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Resolves SRV records.
pub trait Dns: Send + Sync {
    /// The SRV records of `name`, with the addresses of every target.
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>>;
}

/// What DNS said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvAnswer {
    /// As DNS has them; a target that has no address has none here.
    pub targets: Vec<SrvTarget>,
    /// How long this may be believed.
    pub ttl: Duration,
}

/// One SRV record (RFC 2782), resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvTarget {
    /// Lower ones first.
    pub priority: u16,
    /// How often, among those of one priority.
    pub weight: u16,
    /// The UDP port.
    pub port: u16,
    /// The host name, without the final dot.
    pub target: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Why DNS gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// DNS says that there is no such name.
    #[error("DNS knows no SRV record {0}")]
    NoSuchName(String),
    /// DNS did not answer, or not sensibly.
    #[error("DNS failed: {0}")]
    Failed(String),
}

/// Asks real DNS servers.
///
/// Nothing is cached here: a [`crate::quic::Directory`] knows when to ask again, and a TTL that the
/// server gave must reach it.
pub struct Resolver {
    inner: TokioResolver,
}

/// The configuration of the operating system's resolver cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the system's DNS configuration cannot be read: {0}; name servers in [dns] of topology.toml")]
pub struct ResolverError(String);

impl Resolver {
    /// Asks these servers, and nobody else. Each must serve UDP and TCP at its address.
    pub fn new(servers: &[SocketAddr]) -> Result<Resolver, ResolverError> {
        let connection = |server: &SocketAddr, mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let server = |server: &SocketAddr| {
            let ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            NameServerConfig::new(server.ip(), true, ways.map(|way| connection(server, way)).into())
        };
        let config = ResolverConfig::from_parts(None, vec![], servers.iter().map(server).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        Self::build(builder)
    }

    /// Asks whom the operating system asks.
    pub fn system() -> Result<Resolver, ResolverError> {
        Self::build(TokioResolver::builder_tokio().map_err(|e| ResolverError(e.to_string()))?)
    }

    fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<Resolver, ResolverError> {
        let options = builder.options_mut();
        options.cache_size = 0;
        // Two tries of two seconds: a lost packet is made good, and a dead server does not keep a
        // starting node waiting for long.
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        Ok(Resolver { inner: builder.build().map_err(|e| ResolverError(e.to_string()))? })
    }

    async fn resolve(&self, name: &str) -> Result<SrvAnswer, DnsError> {
        let found = match self.inner.srv_lookup(absolute(name)).await {
            Ok(found) => found,
            Err(e) if e.is_no_records_found() && !refused(&e) => return Err(DnsError::NoSuchName(name.into())),
            Err(e) => return Err(DnsError::Failed(format!("{name}: {e}"))),
        };
        let mut ttl = Duration::MAX;
        let mut targets = Vec::new();
        for record in found.answers() {
            ttl = ttl.min(Duration::from_secs(record.ttl.into()));
            let RData::SRV(srv) = &record.data else { continue };
            // RFC 2782: a target of "." says that the service is not there.
            if !srv.target.is_root() {
                let target = srv.target.to_ascii().trim_end_matches('.').to_owned();
                let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
                targets.push(SrvTarget { priority, weight, port, target, addresses: Vec::new() });
            }
        }
        // Only the first target's address comes along, if any: every one is asked for.
        let asked = join_all(targets.iter().map(|target| self.addresses(&target.target))).await;
        let mut failed = Vec::new();
        for (target, addresses) in targets.iter_mut().zip(asked) {
            match addresses {
                Ok((addresses, least)) => {
                    target.addresses = addresses;
                    ttl = ttl.min(least);
                }
                Err(e) => failed.push(format!("{}: {e}", target.target)),
            }
        }
        if !failed.is_empty() && failed.len() == targets.len() {
            return Err(DnsError::Failed(failed.join("; ")));
        }
        if !failed.is_empty() {
            tracing::debug!(name, failed = failed.join("; "), "DNS gave no address for some hosts");
        }
        Ok(SrvAnswer { targets, ttl })
    }

    /// The IPv4 and IPv6 addresses of a host, and the least TTL among them. Fails only if nothing was
    /// found and not both said that there is nothing.
    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), NetError> {
        let name = absolute(host);
        let (v4, v6) = join(self.inner.ipv4_lookup(name.as_str()), self.inner.ipv6_lookup(name.as_str())).await;
        let (mut addresses, mut ttl, mut fault) = (Vec::new(), Duration::MAX, None);
        for answer in [v4, v6] {
            match answer {
                Ok(found) => {
                    for record in found.answers() {
                        ttl = ttl.min(Duration::from_secs(record.ttl.into()));
                        addresses.extend(record.data.ip_addr());
                    }
                }
                Err(e) if e.is_no_records_found() && !refused(&e) => {}
                Err(e) => fault = Some(e),
            }
        }
        match fault {
            Some(fault) if addresses.is_empty() => Err(fault),
            _ => Ok((addresses, ttl)),
        }
    }
}

impl Dns for Resolver {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>> {
        self.resolve(name).boxed()
    }
}

/// With the final dot: no search list is tried.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// A server that refuses or fails says nothing about the name, even where the library calls it an
/// answer without records.
fn refused(e: &NetError) -> bool {
    match e {
        NetError::Dns(NetDnsError::NoRecordsFound(none)) => {
            !matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError)
        }
        _ => false,
    }
}

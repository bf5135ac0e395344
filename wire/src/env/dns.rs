//! Names and where they lead: what the rest asks of DNS.

use futures::future::BoxFuture;
use std::net::IpAddr;
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

//! One connection, and who is at its other end.

use super::Lane;
use super::call::{CallOptions, Caller};
use super::frame::{FrameError, TraceContext, reason};
use super::serve::current_trace;
use crate::env::Env;
use crate::error::{CallError, Code};
use crate::identity::Identity;
use crate::message::Call;
use crate::message::hello::Hello;
use quinn::{Connection, ConnectionError};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use x509_parser::extensions::GeneralName;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// What its certificate says.
    pub identity: Identity,
    /// What it says of itself. It agrees with the certificate where both speak.
    pub hello: Hello,
    /// Where its packets come from.
    pub remote: SocketAddr,
    /// What the connection is for.
    pub lane: Lane,
    /// Whether we dialled it; else it dialled us.
    pub dialled: bool,
    /// When its certificate ends, as unix time: the connection ends then too.
    pub not_after: Duration,
}

/// A healthy connection, ready for calls. Clones share it.
#[derive(Clone)]
pub struct Peer {
    env: Env,
    connection: Connection,
    info: Arc<PeerInfo>,
}

impl Peer {
    pub(super) fn new(env: Env, connection: Connection, info: Arc<PeerInfo>) -> Self {
        Self { env, connection, info }
    }

    /// Who it is.
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    pub(super) fn shared_info(&self) -> &Arc<PeerInfo> {
        &self.info
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Makes a call. For calls without items nothing more need be sent.
    pub async fn call<C: Call>(&self, request: &C, options: CallOptions) -> Result<Caller<C>, CallError> {
        let trace = match current_trace() {
            Some(above) => TraceContext { trace: above.trace, span: self.env.random_u64() },
            None => TraceContext { trace: self.env.random_u128(), span: self.env.random_u64() },
        };
        Caller::open(&self.env, &self.connection, trace, request, options).await
    }

    /// Makes a call that has one reply.
    pub async fn ask<C: Call>(&self, request: &C, deadline: Instant) -> Result<C::Reply, CallError> {
        let mut call = self.call(request, CallOptions { deadline: Some(deadline) }).await?;
        call.finish().await?;
        let reply = call.next().await?;
        let reply = reply.ok_or_else(|| broken_promise::<C>("no reply"))?;
        match call.next().await? {
            None => Ok(reply),
            Some(_) => Err(broken_promise::<C>("more than one reply")),
        }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Waits until the connection is gone.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// The current estimate of a round trip.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Ends the connection and all its calls.
    pub fn close(&self, why: &str) {
        self.connection.close(reason::DONE, why.as_bytes());
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({} at {}, {:?})", self.info.identity, self.info.remote, self.info.lane)
    }
}

fn broken_promise<C: Call>(what: &str) -> CallError {
    CallError::never(Code::Invalid, format!("the peer gave {what} to {:?}, which has one", C::KIND))
}

/// What a certificate says that matters to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certified {
    pub identity: Identity,
    /// Unix time.
    pub not_after: Duration,
}

/// Why a peer is not taken for whom it says it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it showed no certificate")]
    NoCertificate,
    #[error("its certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("its certificate names {0} URIs, not exactly one")]
    Uris(usize),
    #[error("its certificate names no identity: {0}")]
    NoIdentity(String),
    #[error("it belongs to cluster {theirs}, not {ours}")]
    Cluster { theirs: String, ours: String },
    #[error("it says {what} {said}, but its certificate says {certified}")]
    Lie { what: &'static str, said: String, certified: String },
    #[error("it is {found}, not {wanted}")]
    Other { found: String, wanted: String },
    #[error("it did not say hello: {0}")]
    NoHello(String),
}

/// Reads the certificate that the handshake has checked.
pub(super) fn certified(connection: &Connection) -> Result<Certified, Refusal> {
    let identity = connection.peer_identity().ok_or(Refusal::NoCertificate)?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| Refusal::NoCertificate)?;
    read_certificate(chain.first().ok_or(Refusal::NoCertificate)?)
}

fn read_certificate(der: &CertificateDer<'_>) -> Result<Certified, Refusal> {
    let unreadable = |e: &dyn std::fmt::Display| Refusal::Unreadable(e.to_string());
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|e| unreadable(&e))?;
    let names = certificate.subject_alternative_name().map_err(|e| unreadable(&e))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> =
        names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
    let [uri] = uris[..] else { return Err(Refusal::Uris(uris.len())) };
    let identity = uri.parse::<Identity>().map_err(|e| Refusal::NoIdentity(e.to_string()))?;
    let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok(Certified { identity, not_after: Duration::from_secs(not_after) })
}

/// Checks that a certificate is of our cluster.
pub(super) fn check_cluster(certified: &Identity, ours: &Identity) -> Result<(), Refusal> {
    if certified.cluster() == ours.cluster() {
        return Ok(());
    }
    Err(Refusal::Cluster { theirs: certified.cluster().to_string(), ours: ours.cluster().to_string() })
}

/// Checks what a peer says of itself against its certificate.
pub(super) fn check_hello(said: &Hello, certified: &Identity) -> Result<(), Refusal> {
    let compare = |what, said: &str, certified: &str| {
        if said == certified {
            return Ok(());
        }
        Err(Refusal::Lie { what, said: said.to_owned(), certified: certified.to_owned() })
    };
    compare("cluster", said.cluster.as_str(), certified.cluster().as_str())?;
    compare("name", said.name.as_str(), certified.name().as_str())?;
    let datacenter = |name: Option<&crate::Name>| name.map_or("none", crate::Name::as_str).to_owned();
    compare("datacenter", &datacenter(said.datacenter.as_ref()), &datacenter(certified.datacenter()))?;
    let mut roles = said.roles.clone();
    roles.sort_unstable();
    let mut certified_roles = certified.role_names();
    certified_roles.sort_unstable();
    compare("roles", &roles.join("."), &certified_roles.join("."))
}

/// Whether a lost connection means that one side refused the other, rather than that it is away.
pub(super) fn lost(e: &ConnectionError) -> CallError {
    // RFC 9001, section 4.8: 0x100 plus the TLS alert.
    let is_tls = |code: u64| (0x100..0x200).contains(&code);
    match e {
        ConnectionError::ApplicationClosed(close) if close.error_code == reason::REFUSED => CallError::elsewhere(
            Code::Denied,
            format!("the peer refused us: {}", String::from_utf8_lossy(&close.reason)),
        ),
        ConnectionError::ConnectionClosed(close) if is_tls(close.error_code.into()) => {
            let why = tls_fault(close.error_code.into());
            CallError::elsewhere(Code::Denied, format!("the peer refused our certificate: {why} ({close})"))
        }
        ConnectionError::TransportError(error) if is_tls(error.code.into()) => {
            let why = tls_fault(error.code.into());
            CallError::elsewhere(Code::Denied, format!("the peer's certificate was refused: {why} ({error})"))
        }
        _ => FrameError::Lost(e.clone()).into(),
    }
}

/// What a TLS alert (RFC 8446, section 6) says of a certificate, for people.
fn tls_fault(code: u64) -> &'static str {
    match code - 0x100 {
        45 => "it has expired, or is not valid yet",
        46 => "it does not name one identity of the cluster",
        48 => "it was signed by an authority that ca.pem does not list",
        116 => "none was shown",
        120 => "no version of the protocol is common",
        _ => "it cannot be used",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(uri: &str) -> Identity {
        uri.parse().unwrap()
    }

    #[test]
    fn a_hello_must_agree_with_the_certificate() {
        let certified = identity("spiffe://beam/dc/va/node/log-va/role/log.view");
        let truth = Hello::of(&certified, 1);
        assert_eq!(check_hello(&truth, &certified), Ok(()));
        let name = |text| crate::Name::new(text).unwrap();
        for lie in [
            Hello { cluster: name("other"), ..truth.clone() },
            Hello { name: name("log-or"), ..truth.clone() },
            Hello { datacenter: Some(name("or")), ..truth.clone() },
            Hello { datacenter: None, ..truth.clone() },
            Hello { roles: vec!["api".into()], ..truth.clone() },
            Hello { roles: vec![], ..truth.clone() },
        ] {
            assert!(matches!(check_hello(&lie, &certified), Err(Refusal::Lie { .. })), "{lie:?}");
        }
        let client = identity("spiffe://beam/client/ann/role/writer");
        assert_eq!(check_hello(&Hello::of(&client, 1), &client), Ok(()));
        assert!(check_hello(&truth, &client).is_err());
    }

    #[test]
    fn another_cluster_is_refused() {
        let (a, b) = (identity("spiffe://a/client/ann/role/writer"), identity("spiffe://b/client/ann/role/writer"));
        assert_eq!(check_cluster(&a, &a), Ok(()));
        assert_eq!(check_cluster(&a, &b), Err(Refusal::Cluster { theirs: "a".into(), ours: "b".into() }));
    }
}

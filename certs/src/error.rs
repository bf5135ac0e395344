//! What can be wrong with a certificate.

use beam_wire::Name;
use beam_wire::identity::IdentityError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;
use time::macros::format_description;

/// Why certificates cannot be used or made. Each says what to do, where anything can be done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it means")]
pub enum CertError {
    #[error("{} does not exist: {make} makes it", path.display())]
    Missing { path: PathBuf, make: String },
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} exists already: nothing was overwritten", path.display())]
    Exists { path: PathBuf },
    #[error("{what} is damaged or of another kind: {why}")]
    Malformed { what: String, why: String },
    #[error("the certificate of {who} expired at {}: issue a new one", utc(*since))]
    Expired { who: String, since: Duration },
    #[error("the certificate of {who} is not valid before {}, and it is {} here: compare the clocks", utc(*from), utc(*now))]
    NotYetValid { who: String, from: Duration, now: Duration },
    #[error("the certificate of {who} was signed by another authority than those in ca.pem")]
    OtherAuthority { who: String },
    #[error("the certificate of {who} cannot be used: {why}")]
    Unusable { who: String, why: String },
    #[error("{what} names nobody: it carries no SPIFFE URI")]
    NoIdentity { what: String },
    #[error("{what} names {count} identities, and exactly one is allowed")]
    ManyIdentities { what: String, count: usize },
    #[error("{what}: {source}")]
    Identity { what: String, source: IdentityError },
    #[error("{what} belongs to cluster {theirs}, not to {ours}")]
    OtherCluster { what: String, theirs: Name, ours: Name },
    #[error("{what} is a client: only nodes accept connections")]
    NotANode { what: String },
    #[error("{what} does not match its key")]
    KeyMismatch { what: String },
    #[error("the certificate would be valid until {}, longer than its authority, which ends at {}", utc(*until), utc(*authority))]
    OutlivesAuthority { until: Duration, authority: Duration },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl CertError {
    pub(crate) fn malformed(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Malformed { what: what.into(), why: why.to_string() }
    }
}

/// Unix time as people read it.
pub(crate) fn utc(unix: Duration) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    i64::try_from(unix.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.format(&format).ok())
        .unwrap_or_else(|| format!("second {} of 1970", unix.as_secs()))
}

//! Who may speak with whom: Beam's certificates, and the TLS that they make.
//!
//! A cluster has an [`Authority`]. It issues [`Credentials`] to each node and client: an Ed25519 key
//! and a certificate whose one URI says who the owner is ([`beam_wire::Identity`]). [`Credentials::tls`]
//! turns them into what an endpoint needs. In a directory they are
//!
//! ```text
//! ca.pem        the roots that are trusted; more than one while a new authority is rolled in
//! ca.key        the authority's key; only where certificates are issued
//! NAME.pem      the certificate of a node or client
//! NAME.key      its key
//! ```
//!
//! What this crate promises:
//! - TLS 1.3 only, both sides show a certificate, and it is judged at every connection: nothing is
//!   resumed;
//! - a peer's certificate is valid now, signed by a trusted root for this use, and names exactly one
//!   identity of the same cluster. Whether it is the *right* node is for who dialled it to check:
//!   host names and addresses mean nothing here;
//! - a key is written so that only its owner can read it;
//! - chance and time come from an [`beam_wire::env::Env`], so that a simulated cluster has the same
//!   certificates each time.
//!
//! Missing: revocation lists. Certificates are short-lived instead.
//!
//! ```
//! # use beam_wire::{ClientRole, Identity, Name};
//! # fn issue(env: &beam_wire::env::Env, dir: &std::path::Path) -> Result<(), beam_certs::CertError> {
//! use beam_certs::{Authority, days};
//!
//! let cluster = Name::new("beam").unwrap();
//! let authority = Authority::create(env, &cluster, days(3650))?;
//! authority.save(dir)?;
//! let alice = Identity::client(cluster, Name::new("alice").unwrap(), ClientRole::Writer);
//! authority.issue(env, &alice, days(30))?.save(dir)?;
//! # Ok(())
//! # }
//! ```

#![deny(missing_docs)]

mod authority;
mod certificate;
mod credentials;
mod ensure;
mod error;
mod files;
mod rotate;
mod survey;
#[cfg(test)]
mod tests;
mod verify;

pub use authority::Authority;
pub use credentials::Credentials;
pub use ensure::ensure;
pub use error::CertError;
pub use rotate::{LOOK_EVERY, follow};
pub use survey::{Surveyed, survey};

use std::time::Duration;

/// The protocol that endpoints offer and demand.
pub const ALPN: &[u8] = b"beam/1";

/// So many days.
pub fn days(n: u32) -> Duration {
    Duration::from_secs(u64::from(n) * 24 * 60 * 60)
}

//! QUIC: how messages travel between peers that know each other by certificate.
//!
//! An [`Endpoint`] is one UDP port. [`Peers`] holds every connection of it, accepted or dialled; a
//! [`Peer`] is one of them, healthy since both sides have said hello and what they said agreed with
//! their certificates. [`Peer::call`] makes a call; a [`Service`] answers those of others, in both
//! directions on one connection.
//!
//! A call is one bidirectional stream of frames. Cancelling it is resetting the stream
//! both ways: dropping a [`Caller`] does, and the callee's handler is dropped at its next await.
//!
//! What this room promises:
//! - nobody is served before its certificate, cluster, name, datacenter and roles were checked, and
//!   no call that [`crate::message::allow`] does not name for its role;
//! - a peer dialled by name has a certificate for that name, whatever DNS said;
//! - a length is checked before anything is allocated for it, and nothing may follow a message;
//! - a half-written request never looks like a whole one;
//! - a connection ends when the certificate of its peer does, or our own that it was made with.
//!
//! Missing: revocation (certificates are short-lived instead), and a limit to what one client may ask
//! for at once beyond its streams and windows.

pub mod call;
pub mod directory;
pub mod endpoint;
mod floor;
mod frame;
pub mod peer;
pub mod peers;
pub mod serve;

pub use call::{CallOptions, Caller, ItemWriter, ReplyReader};
pub use directory::{Directory, DirectoryOptions, NobodyKnown, NodeAddress};
pub use endpoint::{Endpoint, EndpointError, EndpointOptions};
pub use frame::{FRAME_BYTES_MAX, TraceContext};
pub use peer::{Peer, PeerInfo};
pub use peers::{Peers, Target};
pub use serve::{Handle, Incoming, ItemReader, ReplyWriter, Service};

pub use crate::message::hello::Lane;

use crate::Identity;
use std::sync::Arc;
use std::time::Duration;

/// What an endpoint shows and demands. `beam-certs` makes it out of files; ALPN is `beam/1`.
#[derive(Clone)]
pub struct Tls {
    /// For dialling. It must check the peer's chain, and present our certificate.
    pub client: Arc<rustls::ClientConfig>,
    /// For accepting; none for clients, which only dial. It must demand a client certificate.
    pub server: Option<Arc<rustls::ServerConfig>>,
    /// Whom our certificate names.
    pub identity: Identity,
    /// When our certificate ends, as unix time.
    pub not_after: Duration,
}

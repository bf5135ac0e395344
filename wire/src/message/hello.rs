//! The first call on every connection: who is there, and what it serves.

use super::{Call, Kind, view::Served};
use crate::identity::Identity;
use crate::ids::{Epoch, Name};
use serde::{Deserialize, Serialize};

/// Says who the dialler is; the reply says who was dialled. A peer is healthy only after this,
/// because QUIC calls a client connected before the server has judged its certificate. Both sides
/// check what is said against the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster that the peer belongs to.
    pub cluster: Name,
    /// The epoch that the peer is in, once it knows.
    pub epoch: Option<Epoch>,
    /// The node's or client's name.
    pub name: Name,
    /// The datacenter; none for clients.
    pub datacenter: Option<Name>,
    /// What it does: the roles of its certificate.
    pub roles: Vec<String>,
    /// The version of the software, for people.
    pub software: String,
    /// The newest command format that it can read.
    pub format: u16,
    /// What a view holds; empty for others.
    pub serves: Vec<Served>,
    /// Drawn at random at each start of the process.
    pub boot: u64,
}

impl Hello {
    /// What a certificate already says, for a process that drew `boot` at its start. It serves
    /// nothing yet and knows no epoch.
    pub fn of(identity: &Identity, boot: u64) -> Self {
        Self {
            cluster: identity.cluster().clone(),
            epoch: None,
            name: identity.name().clone(),
            datacenter: identity.datacenter().cloned(),
            roles: identity.role_names(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            format: crate::command::FORMAT,
            serves: Vec::new(),
            boot,
        }
    }
}

/// What a connection is for. A pair of peers has at most one of each that either side dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Calls that somebody waits for.
    Calls,
    /// The log's replication, which must not queue behind anything.
    Raft,
    /// Copies and backups, which limit their own rate.
    Bulk,
}

/// The request of the first call: the dialler's [`Hello`], and what the connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// What the connection is for.
    pub lane: Lane,
    /// Who dials.
    pub hello: Hello,
}

impl Call for Greeting {
    const KIND: Kind = Kind::Hello;
    type Item = ();
    type Reply = Hello;
}

//! Who a peer is: the one URI that its certificate carries.

use crate::ids::Name;
use serde::{Deserialize, Serialize};

/// What a certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Identity {
    /// `spiffe://<cluster>/dc/<dc>/node/<node>/role/<role[.role]>`
    Node {
        /// The cluster.
        cluster: Name,
        /// The datacenter.
        datacenter: Name,
        /// The node.
        node: Name,
        /// What it may do; not empty, ascending.
        roles: Vec<Role>,
    },
    /// `spiffe://<cluster>/client/<name>/role/<reader|writer|admin>`
    Client {
        /// The cluster.
        cluster: Name,
        /// The client.
        name: Name,
        /// What it may do.
        role: ClientRole,
    },
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds the log.
    Log,
    /// Holds a range of the data.
    View,
    /// Answers clients.
    Api,
}

/// What a client may do. Each may do all that the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientRole {
    /// Queries.
    Reader,
    /// Queries and changes facts.
    Writer,
    /// Also operates the cluster.
    Admin,
}

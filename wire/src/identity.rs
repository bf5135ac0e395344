//! Who a peer is: the one URI that its certificate carries.

use crate::ids::{Name, NameError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const SCHEME: &str = "spiffe://";

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

impl Identity {
    /// A node's identity; the order of `roles` does not matter, nor does naming one twice.
    ///
    /// # Panics
    /// If `roles` is empty: a node without a role has no identity.
    pub fn node(cluster: Name, datacenter: Name, node: Name, mut roles: Vec<Role>) -> Self {
        assert!(!roles.is_empty(), "node {node} has no role");
        roles.sort_unstable();
        roles.dedup();
        Self::Node { cluster, datacenter, node, roles }
    }

    /// A client's identity.
    pub fn client(cluster: Name, name: Name, role: ClientRole) -> Self {
        Self::Client { cluster, name, role }
    }

    /// The cluster that it belongs to.
    pub fn cluster(&self) -> &Name {
        match self {
            Self::Node { cluster, .. } | Self::Client { cluster, .. } => cluster,
        }
    }

    /// The node's or the client's name.
    pub fn name(&self) -> &Name {
        match self {
            Self::Node { node: name, .. } | Self::Client { name, .. } => name,
        }
    }

    /// Where the node is; a client is nowhere.
    pub fn datacenter(&self) -> Option<&Name> {
        match self {
            Self::Node { datacenter, .. } => Some(datacenter),
            Self::Client { .. } => None,
        }
    }

    /// What the node does; nothing for a client.
    pub fn roles(&self) -> &[Role] {
        match self {
            Self::Node { roles, .. } => roles,
            Self::Client { .. } => &[],
        }
    }

    /// What the client may do; nothing for a node.
    pub fn client_role(&self) -> Option<ClientRole> {
        match self {
            Self::Node { .. } => None,
            Self::Client { role, .. } => Some(*role),
        }
    }

    /// The words of its roles, as the URI has them; of a client, the one word.
    pub fn role_names(&self) -> Vec<String> {
        match self {
            Self::Node { roles, .. } => roles.iter().map(Role::to_string).collect(),
            Self::Client { role, .. } => vec![role.to_string()],
        }
    }

    /// Whether it is a node that does this.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles().contains(&role)
    }
}

/// The URI.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { cluster, datacenter, node, roles } => {
                write!(f, "{SCHEME}{cluster}/dc/{datacenter}/node/{node}/role/")?;
                for (i, role) in roles.iter().enumerate() {
                    write!(f, "{}{role}", if i == 0 { "" } else { "." })?;
                }
                Ok(())
            }
            Self::Client { cluster, name, role } => write!(f, "{SCHEME}{cluster}/client/{name}/role/{role}"),
        }
    }
}

/// Why a URI is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{uri:?} is not a Beam identity: {why}")]
pub struct IdentityError {
    /// The URI that was refused.
    pub uri: String,
    /// What is wrong with it.
    pub why: IdentityFault,
}

/// What is wrong with a URI that should be an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it means")]
pub enum IdentityFault {
    #[error("it has neither of the forms {NODE_FORM} and {CLIENT_FORM}")]
    Form,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error("its roles are not in ascending order, each once")]
    Order,
}

const NODE_FORM: &str = "spiffe://<cluster>/dc/<dc>/node/<node>/role/<role[.role]>";
const CLIENT_FORM: &str = "spiffe://<cluster>/client/<name>/role/<reader|writer|admin>";

/// Takes exactly what `Display` writes, so that one identity has one URI.
impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        parse(uri).map_err(|why| IdentityError { uri: uri.into(), why })
    }
}

fn parse(uri: &str) -> Result<Identity, IdentityFault> {
    let rest = uri.strip_prefix(SCHEME).ok_or(IdentityFault::Form)?;
    match rest.split('/').collect::<Vec<_>>()[..] {
        [cluster, "dc", datacenter, "node", node, "role", roles] => {
            let roles: Vec<Role> = roles.split('.').map(Role::from_str).collect::<Result<_, _>>()?;
            if !roles.is_sorted_by(|a, b| a < b) {
                return Err(IdentityFault::Order);
            }
            Ok(Identity::Node {
                cluster: cluster.parse()?,
                datacenter: datacenter.parse()?,
                node: node.parse()?,
                roles,
            })
        }
        [cluster, "client", name, "role", role] => {
            Ok(Identity::Client { cluster: cluster.parse()?, name: name.parse()?, role: role.parse()? })
        }
        _ => Err(IdentityFault::Form),
    }
}

/// A word that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not a role; roles are {known}")]
pub struct RoleError {
    /// The word.
    pub word: String,
    /// What it could have been.
    pub known: &'static str,
}

impl Role {
    /// All roles, in their order.
    pub const ALL: [Role; 3] = [Role::Log, Role::View, Role::Api];

    /// The word that certificates, topology and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Log => "log",
            Role::View => "view",
            Role::Api => "api",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(word: &str) -> Result<Self, RoleError> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| RoleError { word: word.into(), known: "log, view and api" })
    }
}

impl ClientRole {
    /// All roles of clients, each with more rights than the one before.
    pub const ALL: [ClientRole; 3] = [ClientRole::Reader, ClientRole::Writer, ClientRole::Admin];

    /// The word that certificates and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            ClientRole::Reader => "reader",
            ClientRole::Writer => "writer",
            ClientRole::Admin => "admin",
        }
    }
}

impl fmt::Display for ClientRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ClientRole {
    type Err = RoleError;
    fn from_str(word: &str) -> Result<Self, RoleError> {
        ClientRole::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| RoleError { word: word.into(), known: "reader, writer and admin" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn identities_are_read_as_they_are_written() {
        let all = [
            (
                Identity::node(name("beam"), name("va"), name("log-va"), vec![Role::Log]),
                "spiffe://beam/dc/va/node/log-va/role/log",
            ),
            (
                Identity::node(name("beam"), name("va"), name("n-1"), vec![Role::Api, Role::Log, Role::Api]),
                "spiffe://beam/dc/va/node/n-1/role/log.api",
            ),
            (
                Identity::client(name("beam"), name("alice"), ClientRole::Writer),
                "spiffe://beam/client/alice/role/writer",
            ),
        ];
        for (identity, uri) in all {
            assert_eq!(identity.to_string(), uri);
            assert_eq!(uri.parse(), Ok(identity));
        }
    }

    #[test]
    fn other_uris_are_refused_with_the_reason() {
        let why = |uri: &str| uri.parse::<Identity>().unwrap_err().why;
        for uri in [
            "",
            "http://beam/client/alice/role/writer",
            "spiffe://beam",
            "spiffe://beam/client/alice",
            "spiffe://beam/client/alice/role/writer/",
            "spiffe://beam/dc/va/node/n/role/log?x",
            "spiffe://beam/dc/va/node/n/role/log/more",
        ] {
            let fault = why(uri);
            assert!(matches!(fault, IdentityFault::Form | IdentityFault::Role(_)), "{uri}: {fault}");
        }
        assert!(matches!(why("spiffe://beam/client/Alice/role/writer"), IdentityFault::Name(_)));
        assert!(matches!(why("spiffe://beam/client/alice/role/log"), IdentityFault::Role(_)));
        assert!(matches!(why("spiffe://beam/dc/va/node/n/role/admin"), IdentityFault::Role(_)));
        assert!(matches!(why("spiffe://beam/dc/va/node/n/role/"), IdentityFault::Role(_)));
        assert_eq!(why("spiffe://beam/dc/va/node/n/role/view.log"), IdentityFault::Order);
        assert_eq!(why("spiffe://beam/dc/va/node/n/role/log.log"), IdentityFault::Order);
    }

    #[test]
    fn roles_of_clients_ascend() {
        assert!(ClientRole::Reader < ClientRole::Writer && ClientRole::Writer < ClientRole::Admin);
    }
}

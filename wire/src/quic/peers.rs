//! All connections of one endpoint.

use super::{Endpoint, Lane, Peer, PeerInfo, Service};
use crate::env::Env;
use crate::error::CallError;
use crate::ids::Name;
use std::net::SocketAddr;
use std::sync::Arc;

/// Whom to dial. The certificate at the other end must agree with what is given here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The node's name; none to take any node that answers.
    pub node: Option<Name>,
    /// Its datacenter, if that matters.
    pub datacenter: Option<Name>,
    /// Where to try, in this order.
    pub addresses: Vec<SocketAddr>,
}

/// Every connection of one endpoint, accepted or dialled. Clones share them.
#[derive(Clone)]
pub struct Peers {}

#[allow(clippy::todo, unused_variables, reason = "bodies follow")]
impl Peers {
    /// Starts to accept, if the endpoint has a server's certificate.
    pub fn start(env: Env, endpoint: Endpoint, service: Arc<dyn Service>) -> Peers {
        todo!()
    }
    /// A healthy connection, from the pool or dialled now. All who ask for the same share one dial,
    /// which takes a few seconds at most; for a moment after a failure others fail at once.
    pub async fn peer(&self, target: &Target, lane: Lane) -> Result<Peer, CallError> {
        todo!()
    }
    /// Who is connected now.
    pub fn connections(&self) -> Vec<PeerInfo> {
        todo!()
    }
    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        todo!()
    }
}

//! One connection, and who is at its other end.

use super::{CallOptions, Caller, Lane};
use crate::error::CallError;
use crate::identity::Identity;
use crate::message::Call;
use crate::message::hello::Hello;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

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

/// A healthy connection, ready for calls.
#[derive(Clone)]
pub struct Peer {
    info: Arc<PeerInfo>,
}

#[allow(clippy::todo, unused_variables, reason = "bodies follow")]
impl Peer {
    /// Who it is.
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }
    /// Makes a call. For calls without items nothing more need be sent.
    pub async fn call<C: Call>(&self, request: &C, options: CallOptions) -> Result<Caller<C>, CallError> {
        todo!()
    }
    /// Makes a call that has one reply.
    pub async fn ask<C: Call>(&self, request: &C, deadline: Instant) -> Result<C::Reply, CallError> {
        todo!()
    }
    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        todo!()
    }
    /// Waits until the connection is gone.
    pub async fn closed(&self) {
        todo!()
    }
    /// The current estimate of a round trip.
    pub fn rtt(&self) -> Duration {
        todo!()
    }
    /// Ends the connection and all its calls.
    pub fn close(&self, why: &str) {
        todo!()
    }
}

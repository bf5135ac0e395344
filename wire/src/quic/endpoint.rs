//! One UDP port that speaks QUIC.

use super::Tls;
use crate::env::Env;
use std::net::SocketAddr;
use std::time::Duration;

/// How an endpoint uses its network.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// Unread bytes of one stream that a peer may send: bounds what a slow reader costs.
    pub stream_window: u32,
    /// The same for all streams of one connection.
    pub connection_window: u32,
    /// Bytes sent and not yet acknowledged, for one connection.
    pub send_window: u64,
    /// How often an idle connection shows that it lives.
    pub keep_alive: Duration,
    /// How long a silent peer counts as alive.
    pub idle_timeout: Duration,
    /// The first guess of a round trip: how long a lost first packet costs.
    pub initial_rtt: Duration,
    /// The largest UDP payload to look for. 1452 fits Ethernet; up to 6000 pays on loopback and on
    /// networks of jumbo frames; above 6500 segmentation offload collapses.
    pub mtu_max: u16,
    /// The congestion window never shrinks below this many bytes. Only where that bandwidth is
    /// reserved: bandwidth × round trip.
    pub window_floor: Option<u64>,
    /// Streams that a peer may have open at once on one connection.
    pub streams_max: u32,
    /// Keys the stateless resets, by which peers learn at once that this node has restarted. Keep it
    /// over restarts.
    pub reset_key: [u8; 64],
}

/// Why an endpoint did not open.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The socket could not be opened.
    #[error("cannot bind UDP {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The TLS configuration cannot carry QUIC.
    #[error("this TLS configuration cannot carry QUIC: {0}")]
    Tls(String),
}

/// One UDP port that speaks QUIC. Clones share it.
#[derive(Clone)]
pub struct Endpoint {}

#[allow(clippy::todo, unused_variables, reason = "bodies follow")]
impl Endpoint {
    /// Opens the port.
    pub fn open(env: &Env, bind: SocketAddr, tls: Tls, options: EndpointOptions) -> Result<Endpoint, EndpointError> {
        todo!()
    }
    /// The address that the socket got.
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }
    /// Uses another certificate, or other roots, from the next handshake on.
    pub fn set_tls(&self, tls: Tls) -> Result<(), EndpointError> {
        todo!()
    }
    /// Closes all connections, tells the peers, and waits a moment until they know.
    pub async fn close(&self, why: &str) {
        todo!()
    }
}

impl EndpointOptions {
    /// For peers on the same network: smaller windows, an early guess of the round trip.
    pub fn lan(reset_key: [u8; 64]) -> Self {
        Self {
            stream_window: 2 << 20,
            connection_window: 16 << 20,
            send_window: 16 << 20,
            initial_rtt: Duration::from_millis(20),
            ..Self::wan(reset_key)
        }
    }

    /// For peers anywhere: windows for a gigabit over 130 ms.
    pub fn wan(reset_key: [u8; 64]) -> Self {
        Self {
            stream_window: 16 << 20,
            connection_window: 32 << 20,
            send_window: 32 << 20,
            // Death is noticed after four unanswered keep-alives. Less would take a stalled machine
            // for a dead one.
            keep_alive: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(4),
            initial_rtt: Duration::from_millis(100),
            mtu_max: 1452,
            window_floor: None,
            streams_max: 1024,
            reset_key,
        }
    }
}

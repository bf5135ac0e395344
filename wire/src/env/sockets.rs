//! UDP sockets. quinn 0.12 will change their trait: what we have of it is here, in `sim` and in `wan`.

use super::Env;
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Asked for in both directions. With the usual 208 KiB, a burst of one megabyte on loopback lost a
/// thousand packets; the kernel gives what its administrator allows.
const BUFFER_BYTES: usize = 4 << 20;

/// Opens sockets. Real UDP, real UDP with delays, or memory stands behind it.
pub trait Sockets: Send + Sync + 'static {
    /// Opens a socket for `env`, within the tokio runtime of the caller.
    fn bind(&self, env: &Env, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;
}

/// The operating system's sockets.
pub struct UdpSockets;

impl Sockets for UdpSockets {
    fn bind(&self, _: &Env, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // Smaller buffers lose packets in bursts, which QUIC repairs: not a reason to refuse to start.
        for (which, outcome) in [
            ("receive", socket.set_recv_buffer_size(BUFFER_BYTES)),
            ("send", socket.set_send_buffer_size(BUFFER_BYTES)),
        ] {
            if let Err(e) = outcome {
                tracing::warn!("{address}: the {which} buffer stays at the system's default: {e}");
            }
        }
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        TokioRuntime.wrap_udp_socket(socket.into())
    }
}

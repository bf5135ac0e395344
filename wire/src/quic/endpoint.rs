//! One UDP port that speaks QUIC.

use super::Tls;
use super::floor::FloorConfig;
use super::frame::reason;
use crate::env::Env;
use crate::identity::Identity;
use quinn::VarInt;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The name that every dialler asks for. Identities are in certificates, not in host names.
const SERVER_NAME: &str = "beam";

/// quinn's own default: Ethernet without IP and UDP headers.
const UDP_PAYLOAD_MIN: u16 = 1472;

/// The largest UDP payload on loopback: above 6500 segmentation offload collapses.
const LOOPBACK_MTU: u16 = 6000;

/// Handshakes that may wait to be looked at, and what each may have sent by then: 16 MiB together,
/// far above what a cluster needs and far below quinn's 65,536.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 64 << 10;

/// How long closing may take: more than a round trip anywhere.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

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
pub struct Endpoint {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    quinn: quinn::Endpoint,
    address: SocketAddr,
    options: EndpointOptions,
    tls: Mutex<Current>,
}

/// What the next handshake uses.
struct Current {
    tls: Tls,
    client: quinn::ClientConfig,
}

impl Endpoint {
    /// Opens the port. Its tasks are `env`'s.
    pub fn open(env: &Env, bind: SocketAddr, tls: Tls, options: EndpointOptions) -> Result<Endpoint, EndpointError> {
        let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &options.reset_key);
        let mut config = quinn::EndpointConfig::new(Arc::new(reset_key));
        let chance = env.clone();
        config
            .rng_seed(Some(env.random()))
            .cid_generator(move || Box::new(ConnectionIds(chance.clone())))
            .max_udp_payload_size(options.mtu_max.max(UDP_PAYLOAD_MIN))
            .map_err(|e| EndpointError::Tls(e.to_string()))?;
        let client = client_config(env, &tls, &options)?;
        let server = server_config(env, &tls, &options)?;
        let bound = |source| EndpointError::Bind { address: bind, source };
        let socket = env.bind(bind).map_err(bound)?;
        let address = socket.local_addr().map_err(bound)?;
        let runtime = Arc::new(Runtime(env.clone()));
        let quinn = quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime).map_err(bound)?;
        let tls = Mutex::new(Current { tls, client });
        Ok(Endpoint { shared: Arc::new(Shared { env: env.clone(), quinn, address, options, tls }) })
    }

    /// The address that the socket got.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Uses another certificate, or other roots, from the next handshake on.
    pub fn set_tls(&self, tls: Tls) -> Result<(), EndpointError> {
        let s = &self.shared;
        let client = client_config(&s.env, &tls, &s.options)?;
        let server = server_config(&s.env, &tls, &s.options)?;
        s.quinn.set_server_config(server);
        *s.tls.lock().expect("assigning does not panic") = Current { tls, client };
        Ok(())
    }

    /// Closes all connections, tells the peers, and waits a moment until they know.
    pub async fn close(&self, why: &str) {
        self.shared.quinn.close(reason::DONE, why.as_bytes());
        // A peer that is away need not be waited for.
        let _ = self.shared.env.timeout(CLOSE_TIMEOUT, self.shared.quinn.wait_idle()).await;
    }

    /// The identity of our certificate, and when it ends.
    pub(super) fn certified(&self) -> (Identity, Duration) {
        let current = self.shared.tls.lock().expect("assigning does not panic");
        (current.tls.identity.clone(), current.tls.not_after)
    }

    pub(super) fn connect(&self, address: SocketAddr) -> Result<quinn::Connecting, quinn::ConnectError> {
        let config = self.shared.tls.lock().expect("assigning does not panic").client.clone();
        self.shared.quinn.connect_with(config, address, SERVER_NAME)
    }

    pub(super) async fn accept(&self) -> Option<quinn::Incoming> {
        self.shared.quinn.accept().await
    }
}

fn client_config(env: &Env, tls: &Tls, options: &EndpointOptions) -> Result<quinn::ClientConfig, EndpointError> {
    let mut client = rustls::ClientConfig::clone(&tls.client);
    // A resumed session would skip the check of certificates that may have ended since.
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_early_data = false;
    let crypto = QuicClientConfig::try_from(client).map_err(|e| EndpointError::Tls(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let chance = env.clone();
    config
        .transport_config(Arc::new(transport(options)))
        .initial_dst_cid_provider(Arc::new(move || quinn::ConnectionId::new(&chance.random::<20>())));
    Ok(config)
}

fn server_config(
    env: &Env,
    tls: &Tls,
    options: &EndpointOptions,
) -> Result<Option<quinn::ServerConfig>, EndpointError> {
    let Some(server) = &tls.server else { return Ok(None) };
    let mut server = rustls::ServerConfig::clone(server);
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(server).map_err(|e| EndpointError::Tls(e.to_string()))?;
    let token_key = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&env.random::<64>());
    let mut config = quinn::ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    // Tokens for later connections would save a round trip under attack only.
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    config
        .transport_config(Arc::new(transport(options)))
        .time_source(Arc::new(env.clock()))
        .validation_token_config(tokens)
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX * INCOMING_MAX as u64);
    Ok(Some(config))
}

fn transport(options: &EndpointOptions) -> quinn::TransportConfig {
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(options.mtu_max);
    let mut acks = quinn::AckFrequencyConfig::default();
    // A lost last packet is noticed that much earlier than with QUIC's 25 ms.
    acks.max_ack_delay(Some(Duration::from_millis(5)));
    let idle = u32::try_from(options.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(options.streams_max.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(options.stream_window.into())
        .receive_window(options.connection_window.into())
        .send_window(options.send_window)
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
        .initial_rtt(options.initial_rtt)
        .mtu_discovery_config(Some(discovery))
        .ack_frequency_config(Some(acks));
    if let Some(bytes) = options.window_floor {
        transport.congestion_controller_factory(Arc::new(FloorConfig { bytes }));
    }
    transport
}

/// quinn's tasks and clock are ours too.
#[derive(Debug)]
struct Runtime(Env);

impl quinn::Runtime for Runtime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn quinn::AsyncTimer>> {
        quinn::TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        // quinn owns it; its handle says nothing that quinn does not.
        drop(self.0.tasks().spawn_raw(task));
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> std::io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "sockets come from Env::bind"))
    }

    fn now(&self) -> std::time::Instant {
        self.0.now().into_std()
    }
}

/// Connection ids are chance, and chance is the environment's.
struct ConnectionIds(Env);

impl quinn::ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        quinn::ConnectionId::new(&self.0.random::<8>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
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

    /// With the largest packets that pay if it listens on loopback, where all of its peers then are.
    pub fn at(self, address: SocketAddr) -> Self {
        if address.ip().is_loopback() { Self { mtu_max: LOOPBACK_MTU, ..self } } else { self }
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

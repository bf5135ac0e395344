//! UDP in memory: every packet's fate and arrival come from the seed.

use crate::env::{Env, Sockets, now};
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a socket holds of packets that nobody has read; more are lost, as with a real one.
const SOCKET_BYTES_MAX: usize = 4 << 20;

/// The largest packet that a link carries: Ethernet without IP and UDP headers.
const PACKET_BYTES_MAX: usize = 1472;

/// Where port numbers for those who ask for any begin.
const EPHEMERAL_PORTS: u16 = 49152;

/// How packets fare from one address to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// One way.
    pub latency: Duration,
    /// Up to this much is added.
    pub jitter: Duration,
    /// The share of packets that are lost.
    pub loss: f64,
    /// The share of packets that arrive twice.
    pub duplicate: f64,
    /// The share of packets that may overtake others by what jitter gives them.
    pub reorder: f64,
}

impl Link {
    /// A link that only takes time.
    pub fn of(latency: Duration) -> Self {
        Self { latency, jitter: Duration::ZERO, loss: 0.0, duplicate: 0.0, reorder: 0.0 }
    }
}

impl Default for Link {
    /// A good network within one datacenter.
    fn default() -> Self {
        Self { jitter: Duration::from_micros(50), ..Self::of(Duration::from_micros(250)) }
    }
}

/// Everything that was sent, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Of the time, ends, size, content and fate of every packet.
    pub hash: u64,
    /// How many were sent.
    pub packets: u64,
    /// How many of them never arrived.
    pub lost: u64,
}

/// The network of a world. Clones share it.
#[derive(Clone)]
pub struct SimNet {
    inner: Arc<Net>,
}

struct Net {
    state: Mutex<State>,
    /// A packet will arrive earlier than the driver waits for.
    earlier: Notify,
}

type Way = (SocketAddr, SocketAddr);

struct State {
    born: Instant,
    chance: ChaCha20Rng,
    link: Link,
    links: BTreeMap<Way, Link>,
    cut: BTreeSet<Way>,
    /// When the last packet of a way arrives: those that may not overtake wait for it.
    last: BTreeMap<Way, Instant>,
    /// On their way, by arrival, then by sending.
    flying: BTreeMap<(Instant, u64), Packet>,
    sockets: BTreeMap<SocketAddr, Port>,
    next: u64,
    hash: blake3::Hasher,
    packets: u64,
    lost: u64,
}

#[derive(Clone)]
struct Packet {
    way: Way,
    ecn: Option<EcnCodepoint>,
    bytes: Vec<u8>,
}

/// A bound address.
struct Port {
    id: u64,
    host: String,
    waiting: VecDeque<Packet>,
    waiting_bytes: usize,
    reader: Option<Waker>,
}

impl SimNet {
    pub(super) fn new(seed: u64, born: Instant) -> Self {
        let state = State {
            born,
            chance: ChaCha20Rng::seed_from_u64(seed),
            link: Link::default(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            last: BTreeMap::new(),
            flying: BTreeMap::new(),
            sockets: BTreeMap::new(),
            next: 0,
            hash: blake3::Hasher::new(),
            packets: 0,
            lost: 0,
        };
        SimNet { inner: Arc::new(Net { state: Mutex::new(state), earlier: Notify::new() }) }
    }

    /// How packets fare where nothing else was said.
    pub fn set_default_link(&self, link: Link) {
        self.state().link = link;
    }

    /// How packets fare between two addresses, both ways.
    pub fn set_link(&self, a: SocketAddr, b: SocketAddr, link: Link) {
        let mut state = self.state();
        state.links.insert((a, b), link);
        state.links.insert((b, a), link);
    }

    /// Loses everything from one address to another, also what is on its way. One way only.
    pub fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.state().cut.insert((from, to));
    }

    /// Loses everything between two groups, both ways.
    pub fn part(&self, these: &[SocketAddr], those: &[SocketAddr]) {
        let mut state = self.state();
        for (a, b) in these.iter().flat_map(|a| those.iter().map(move |b| (*a, *b))) {
            state.cut.insert((a, b));
            state.cut.insert((b, a));
        }
    }

    /// Undoes [`SimNet::cut`] one way.
    pub fn mend(&self, from: SocketAddr, to: SocketAddr) {
        self.state().cut.remove(&(from, to));
    }

    /// Undoes every cut.
    pub fn heal(&self) {
        self.state().cut.clear();
    }

    /// What was sent so far. Two runs that did the same have the same trace.
    pub fn trace(&self) -> Trace {
        let state = self.state();
        let hash = state.hash.finalize();
        let hash = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"));
        Trace { hash, packets: state.packets, lost: state.lost }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().expect("nothing panics while it holds this")
    }

    /// Brings packets to their sockets when it is time.
    pub(super) async fn drive(self) {
        loop {
            let next = self.state().deliver(now());
            match next {
                Some(at) => tokio::select! {
                    biased;
                    () = self.inner.earlier.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.inner.earlier.notified().await,
            }
        }
    }

    pub(super) fn unplug(&self, host: &str) {
        self.state().sockets.retain(|_, port| port.host != host);
    }

    fn bind(&self, host: &str, mut address: SocketAddr) -> io::Result<SimSocket> {
        let mut state = self.state();
        if address.port() == 0 {
            let free = |port: &u16| !state.sockets.contains_key(&SocketAddr::new(address.ip(), *port));
            let port = (EPHEMERAL_PORTS..=u16::MAX).find(free).ok_or(io::ErrorKind::AddrNotAvailable)?;
            address.set_port(port);
        }
        if state.sockets.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = state.next_id();
        let port = Port { id, host: host.to_owned(), waiting: VecDeque::new(), waiting_bytes: 0, reader: None };
        state.sockets.insert(address, port);
        Ok(SimSocket { net: self.clone(), address, id })
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The port, if the socket that asks still has it.
    fn port(&mut self, address: SocketAddr, id: u64) -> Option<&mut Port> {
        self.sockets.get_mut(&address).filter(|port| port.id == id)
    }

    /// Decides the fate of a packet. Says whether it will arrive earlier than all others.
    fn send(&mut self, packet: Packet) -> bool {
        let now = now();
        let way = packet.way;
        let link = *self.links.get(&way).unwrap_or(&self.link);
        // As many draws for every packet, so that runs with other links stay comparable.
        let [lose, double, overtake, delay] = [(); 4].map(|()| self.chance.random::<f64>());
        let lost = lose < link.loss || self.cut.contains(&way) || packet.bytes.len() > PACKET_BYTES_MAX;
        let mut arrival = now + link.latency + link.jitter.mul_f64(delay);
        if overtake >= link.reorder {
            let last = self.last.entry(way).or_insert(arrival);
            arrival = arrival.max(*last);
            *last = arrival;
        }
        self.note(now, &packet, lost);
        if lost {
            return false;
        }
        let first = self.flying.first_key_value().is_none_or(|((at, _), _)| arrival < *at);
        for _ in 0..if double < link.duplicate { 2 } else { 1 } {
            let id = self.next_id();
            self.flying.insert((arrival, id), packet.clone());
        }
        first
    }

    fn note(&mut self, now: Instant, packet: &Packet, lost: bool) {
        self.packets += 1;
        self.lost += u64::from(lost);
        let at = u64::try_from((now - self.born).as_nanos()).expect("no world lives for centuries");
        self.hash.update(&at.to_le_bytes());
        for end in [packet.way.0, packet.way.1] {
            match end.ip() {
                IpAddr::V4(ip) => self.hash.update(&ip.octets()),
                IpAddr::V6(ip) => self.hash.update(&ip.octets()),
            };
            self.hash.update(&end.port().to_le_bytes());
        }
        self.hash.update(&[u8::from(lost)]);
        self.hash.update(&(packet.bytes.len() as u64).to_le_bytes());
        self.hash.update(&packet.bytes);
    }

    /// Hands over what has arrived; says when the next packet does.
    fn deliver(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= now) {
            let packet = entry.remove();
            let kept = !self.cut.contains(&packet.way)
                && self.sockets.get_mut(&packet.way.1).is_some_and(|port| port.receive(packet));
            self.lost += u64::from(!kept);
        }
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }
}

impl Port {
    fn receive(&mut self, packet: Packet) -> bool {
        if self.waiting_bytes + packet.bytes.len() > SOCKET_BYTES_MAX {
            return false;
        }
        self.waiting_bytes += packet.bytes.len();
        self.waiting.push_back(packet);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        true
    }
}

/// The sockets of one host.
pub(super) struct HostSockets {
    net: SimNet,
    host: String,
}

impl HostSockets {
    pub(super) fn new(net: &SimNet, host: &str) -> Self {
        Self { net: net.clone(), host: host.to_owned() }
    }
}

impl Sockets for HostSockets {
    fn bind(&self, _: &Env, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(self.net.bind(&self.host, address)?))
    }
}

struct SimSocket {
    net: SimNet,
    address: SocketAddr,
    id: u64,
}

impl std::fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimSocket({})", self.address)
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut state = self.net.state();
        if state.port(self.address, self.id).is_some() {
            state.sockets.remove(&self.address);
        }
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let mut state = self.net.state();
        // A killed host's last words are lost.
        if state.port(self.address, self.id).is_none() {
            return Ok(());
        }
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let mut earlier = false;
        for bytes in transmit.contents.chunks(size) {
            let way = (self.address, transmit.destination);
            earlier |= state.send(Packet { way, ecn: transmit.ecn, bytes: bytes.to_vec() });
        }
        drop(state);
        if earlier {
            self.net.inner.earlier.notify_one();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.net.state();
        // A killed host hears nothing any more.
        let Some(port) = state.port(self.address, self.id) else { return Poll::Pending };
        let mut count = 0;
        while count < buffers.len().min(meta.len()) {
            let Some(packet) = port.waiting.pop_front() else { break };
            let len = packet.bytes.len();
            port.waiting_bytes -= len;
            // quinn's buffers hold what it has promised to take; the rest is no packet for it.
            if len > buffers[count].len() {
                continue;
            }
            buffers[count][..len].copy_from_slice(&packet.bytes);
            meta[count] =
                RecvMeta { addr: packet.way.0, len, stride: len, ecn: packet.ecn, dst_ip: Some(self.address.ip()) };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        port.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

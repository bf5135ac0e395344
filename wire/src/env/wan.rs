//! Real UDP on one machine, as if the machines were far apart: what is sent waits as long as it would
//! travel, and pairs of addresses can be cut off from each other. For demonstrations and development.
//!
//! The delay is added by the sender, and the time that a link of limited bandwidth takes; nothing is lost
//! but by a cut or a full queue. Delays are exact to tokio's millisecond.

use super::sockets::{Sockets, UdpSockets};
use super::{Env, now};
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What one socket may have on its way: a gigabit over 130 ms, four times. More is lost, as routers do.
const FLYING_BYTES_MAX: usize = 64 << 20;

/// How long a packet may wait before a link of limited bandwidth until it is lost instead, as in a router.
const QUEUED_MAX: Duration = Duration::from_millis(100);
/// IP and UDP headers, which a link carries, too.
const HEADER_BYTES: usize = 28;

/// The sockets of a wide area network on one machine. Clones share its cuts.
#[derive(Clone)]
pub struct WanSockets {
    inner: Arc<Wan>,
}

struct Wan {
    one_way: Box<dyn Fn(SocketAddr, SocketAddr) -> Duration + Send + Sync>,
    /// Of each link that has a delay, in each direction.
    bytes_per_second: Option<f64>,
    /// Until when each link of limited bandwidth is busy with what was sent.
    busy: Mutex<BTreeMap<(SocketAddr, SocketAddr), Instant>>,
    cut: Mutex<BTreeSet<(SocketAddr, SocketAddr)>>,
}

impl WanSockets {
    /// `one_way` says how long a packet takes from an address to another.
    pub fn new(one_way: impl Fn(SocketAddr, SocketAddr) -> Duration + Send + Sync + 'static) -> Self {
        Self::with_bandwidth(one_way, None)
    }

    /// The same, where each link that has a delay carries no more than `bytes_per_second` each way.
    pub fn with_bandwidth(
        one_way: impl Fn(SocketAddr, SocketAddr) -> Duration + Send + Sync + 'static,
        bytes_per_second: Option<f64>,
    ) -> Self {
        let (busy, cut) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Wan { one_way: Box::new(one_way), bytes_per_second, busy, cut }) }
    }

    /// Loses everything between two groups, both ways, also what is on its way.
    pub fn part(&self, these: &[SocketAddr], those: &[SocketAddr]) {
        let mut cut = self.inner.cut();
        for (a, b) in these.iter().flat_map(|a| those.iter().map(move |b| (*a, *b))) {
            cut.insert((a, b));
            cut.insert((b, a));
        }
    }

    /// Undoes every cut.
    pub fn heal(&self) {
        self.inner.cut().clear();
    }
}

impl Sockets for WanSockets {
    fn bind(&self, env: &Env, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let udp = UdpSockets.bind(env, address)?;
        let address = udp.local_addr()?;
        let flying = Flying { queue: Mutex::default(), changed: Notify::new() };
        let socket = Arc::new(WanSocket { wan: self.inner.clone(), udp, address, flying: Arc::new(flying) });
        let fly = fly(env.clone(), Arc::downgrade(&socket), socket.flying.clone());
        // It ends with the socket.
        env.tasks().serve("wan.fly", fly).detach();
        Ok(socket)
    }
}

impl Wan {
    fn cut(&self) -> MutexGuard<'_, BTreeSet<(SocketAddr, SocketAddr)>> {
        self.cut.lock().expect("nothing panics while it holds this")
    }

    /// When what is sent now has left, if it is not lost in the queue before the link.
    fn departure(&self, from: SocketAddr, to: SocketAddr, bytes: usize) -> Option<Instant> {
        let now = now();
        let Some(bytes_per_second) = self.bytes_per_second else { return Some(now) };
        let mut busy = self.busy.lock().expect("nothing panics while it holds this");
        let begins = busy.get(&(from, to)).map_or(now, |until| now.max(*until));
        if begins - now > QUEUED_MAX {
            return None;
        }
        let until = begins + Duration::from_secs_f64(bytes as f64 / bytes_per_second);
        busy.insert((from, to), until);
        Some(until)
    }

    fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.cut().contains(&(from, to))
    }
}

struct WanSocket {
    wan: Arc<Wan>,
    udp: Arc<dyn AsyncUdpSocket>,
    address: SocketAddr,
    flying: Arc<Flying>,
}

/// What one socket has sent and the network has not brought yet.
struct Flying {
    queue: Mutex<Queue>,
    /// Something was queued, or the socket is gone.
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    /// By arrival: one queue for each delay would be needed to keep it sorted by pushing at the end,
    /// so a packet is put in its place; nearly always that is near the end.
    packets: VecDeque<Packet>,
    bytes: usize,
}

/// One transmit, which may be several packets of one size.
struct Packet {
    arrival: Instant,
    to: SocketAddr,
    ecn: Option<EcnCodepoint>,
    bytes: Vec<u8>,
    segment_size: Option<usize>,
    from_ip: Option<IpAddr>,
}

impl Flying {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it holds this")
    }

    fn push(&self, packet: Packet) {
        let mut queue = self.queue();
        if queue.bytes + packet.bytes.len() > FLYING_BYTES_MAX {
            return;
        }
        queue.bytes += packet.bytes.len();
        let behind = queue.packets.iter().rposition(|other| other.arrival <= packet.arrival);
        let place = behind.map_or(0, |i| i + 1);
        queue.packets.insert(place, packet);
        drop(queue);
        if place == 0 {
            self.changed.notify_one();
        }
    }

    /// The next packet if it has arrived, else when it will.
    fn next(&self, now: Instant) -> Result<Packet, Option<Instant>> {
        let mut queue = self.queue();
        match queue.packets.front().map(|packet| packet.arrival) {
            Some(arrival) if arrival <= now => {
                let packet = queue.packets.pop_front().expect("it was there");
                queue.bytes -= packet.bytes.len();
                Ok(packet)
            }
            later => Err(later),
        }
    }
}

async fn fly(env: Env, socket: Weak<WanSocket>, flying: Arc<Flying>) {
    loop {
        match flying.next(env.now()) {
            Ok(packet) => {
                let Some(socket) = socket.upgrade() else { return };
                if !socket.wan.is_cut(socket.address, packet.to) {
                    socket.deliver(&packet).await;
                }
            }
            Err(_) if socket.strong_count() == 0 => return,
            Err(None) => flying.changed.notified().await,
            Err(Some(arrival)) => tokio::select! {
                biased;
                () = flying.changed.notified() => {}
                () = env.sleep_until(arrival) => {}
            },
        }
    }
}

impl WanSocket {
    async fn deliver(&self, packet: &Packet) {
        let transmit = Transmit {
            destination: packet.to,
            ecn: packet.ecn,
            contents: &packet.bytes,
            segment_size: packet.segment_size,
            src_ip: packet.from_ip,
        };
        let mut writable = self.udp.clone().create_io_poller();
        while let Err(e) = self.udp.try_send(&transmit) {
            if e.kind() != io::ErrorKind::WouldBlock {
                tracing::debug!("{} lost a packet to {}: {e}", self.address, packet.to);
                return;
            }
            if std::future::poll_fn(|cx| writable.as_mut().poll_writable(cx)).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for WanSocket {
    fn drop(&mut self) {
        self.flying.changed.notify_one();
    }
}

impl std::fmt::Debug for WanSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WanSocket({})", self.address)
    }
}

impl AsyncUdpSocket for WanSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.udp.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let to = transmit.destination;
        let delay = (self.wan.one_way)(self.address, to);
        if self.wan.is_cut(self.address, to) {
            return Ok(());
        }
        if delay.is_zero() {
            return self.udp.try_send(transmit);
        }
        let packets = transmit.segment_size.map_or(1, |size| transmit.contents.len().div_ceil(size));
        let bytes = transmit.contents.len() + packets * HEADER_BYTES;
        let Some(departure) = self.wan.departure(self.address, to, bytes) else { return Ok(()) };
        self.flying.push(Packet {
            arrival: departure + delay,
            to,
            ecn: transmit.ecn,
            bytes: transmit.contents.to_vec(),
            segment_size: transmit.segment_size,
            from_ip: transmit.src_ip,
        });
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.udp.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.udp.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.udp.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.udp.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_link_carries_one_packet_after_the_other_and_loses_what_would_wait_long() {
        let near = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let wan = WanSockets::with_bandwidth(|_, _| Duration::ZERO, Some(10_000.0)).inner;
        let began = now();
        let first = wan.departure(near(1), near(2), 900).expect("the link is free");
        assert!(first - began >= Duration::from_millis(90));
        let second = wan.departure(near(1), near(2), 900).expect("it waits less than the queue is long");
        assert_eq!(second - first, Duration::from_millis(90));
        assert_eq!(wan.departure(near(1), near(2), 1), None, "the queue is full");
        assert!(wan.departure(near(2), near(1), 1).is_some(), "the other direction is free");
        assert!(wan.departure(near(1), near(3), 1).is_some(), "and so are other links");
    }
}

//! A network between api nodes and one view, which can be made bad: UDP packets go through here, some get lost, and those on
//! their way back are late.

use anyhow::Result;
use beam_wire::env::{Env, Task};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::Instant;

/// The largest UDP packet there is.
const PACKET_BYTES_MAX: usize = 64 << 10;

/// What is wrong with a network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// The share of packets that get lost, both ways.
    pub loss: f64,
    /// By how much packets of the view are late.
    pub delay: Duration,
}

/// The network before one view.
pub struct Proxy {
    net: Arc<Net>,
    _forwarding: Task,
}

struct Net {
    env: Env,
    front: UdpSocket,
    view: Mutex<SocketAddr>,
    trouble: Mutex<Trouble>,
    bytes: AtomicU64,
}

impl Proxy {
    /// Stands at `front`, before the view at `view`.
    pub async fn start(env: &Env, front: SocketAddr, view: SocketAddr) -> Result<Proxy> {
        let net = Arc::new(Net {
            env: env.clone(),
            front: UdpSocket::bind(front).await?,
            view: Mutex::new(view),
            trouble: Mutex::default(),
            bytes: AtomicU64::new(0),
        });
        let forwarding = env.tasks().serve("proxy.forward", forward(net.clone()));
        Ok(Proxy { net, _forwarding: forwarding })
    }

    /// From now on this is wrong with the network.
    pub fn set(&self, trouble: Trouble) {
        *self.net.trouble.lock().expect("no holder panics") = trouble;
    }

    /// Callers that are new from now on come to another address.
    pub fn lead_to(&self, view: SocketAddr) {
        *self.net.view.lock().expect("no holder panics") = view;
    }

    /// All that was brought so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.net.bytes.load(Ordering::Relaxed)
    }
}

impl Net {
    fn trouble(&self) -> Trouble {
        *self.trouble.lock().expect("no holder panics")
    }

    /// Whether a packet arrives; it is counted then.
    fn arrives(&self, bytes: usize) -> bool {
        const CHANCES: usize = 1 << 20;
        let lost = (self.env.random_below(CHANCES) as f64) < self.trouble().loss * CHANCES as f64;
        if !lost {
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        !lost
    }
}

/// Brings packets to the view, and for each caller those that come back.
async fn forward(net: Arc<Net>) {
    let mut callers: BTreeMap<SocketAddr, (Arc<UdpSocket>, Task)> = BTreeMap::new();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        // An error tells of a packet that came before; its sender sends it again.
        let Ok((bytes, from)) = net.front.recv_from(&mut packet).await else { continue };
        let caller = match callers.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => match connect(&net, from).await {
                Ok(caller) => unknown.insert(caller),
                Err(error) => {
                    eprintln!("beam-bench: {from} does not get through: {error:#}");
                    continue;
                }
            },
        };
        if net.arrives(bytes) {
            // As above.
            let _ = caller.0.send(&packet[..bytes]).await;
        }
    }
}

async fn connect(net: &Arc<Net>, from: SocketAddr) -> Result<(Arc<UdpSocket>, Task)> {
    let view = *net.view.lock().expect("no holder panics");
    let socket = UdpSocket::bind((view.ip(), 0)).await?;
    socket.connect(view).await?;
    let socket = Arc::new(socket);
    let back = net.env.tasks().serve("proxy.back", back(net.clone(), socket.clone(), from));
    Ok((socket, back))
}

async fn back(net: Arc<Net>, view: Arc<UdpSocket>, to: SocketAddr) {
    let mut late: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        let due = late.front().map(|(due, _)| *due);
        let arrived = tokio::select! {
            biased;
            () = until(&net.env, due) => None,
            received = view.recv(&mut packet) => received.ok(),
        };
        match arrived {
            None => {
                let now = net.env.now();
                while late.front().is_some_and(|(due, _)| *due <= now)
                    && let Some((_, packet)) = late.pop_front()
                {
                    let _ = net.front.send_to(&packet, to).await;
                }
            }
            Some(bytes) if !net.arrives(bytes) => {}
            Some(bytes) => {
                let delay = net.trouble().delay;
                if delay.is_zero() && late.is_empty() {
                    let _ = net.front.send_to(&packet[..bytes], to).await;
                } else {
                    late.push_back((net.env.now() + delay, packet[..bytes].to_vec()));
                }
            }
        }
    }
}

async fn until(env: &Env, due: Option<Instant>) {
    match due {
        Some(due) => env.sleep_until(due).await,
        None => std::future::pending().await,
    }
}

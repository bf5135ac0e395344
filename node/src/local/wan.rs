//! An emulated WAN between the datacenters of one machine: packets are sent late, by the distance
//! between the datacenters of their two ends.

use beam_wire::Name;
use beam_wire::env::wan::WanSockets;
use beam_wire::env::{Env, Sockets, UdpSockets};
use beam_wire::topology::Topology;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// Which emulated WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lab {
    /// Virginia, Oregon, Ireland: round trips of 60, 76 and 130 ms
    UsEu,
    /// The round trips of the topology's links
    Topology,
    /// No delay
    None,
}

impl Lab {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Lab::UsEu => "us-eu",
            Lab::Topology => "topology",
            Lab::None => "none",
        }
    }

    fn round_trips(self, topology: &Topology) -> Vec<(Name, Name, Duration)> {
        let name = |n: &str| Name::new(n).expect("a lab's datacenters have names");
        let us_eu = [("va", "or", 60), ("va", "ie", 76), ("or", "ie", 130)];
        match self {
            Lab::UsEu => us_eu.map(|(a, b, ms)| (name(a), name(b), Duration::from_millis(ms))).into(),
            Lab::Topology => {
                topology.links.iter().map(|l| (l.between.0.clone(), l.between.1.clone(), l.round_trip)).collect()
            }
            Lab::None => vec![],
        }
    }
}

/// Where every socket of the process is, and how far apart places are.
pub struct Wan {
    places: Arc<Places>,
    bytes_per_second: Option<f64>,
}

#[derive(Default)]
struct Places {
    one_way: BTreeMap<(Name, Name), Duration>,
    /// By port: the sockets of one machine, which may be bound to all of its addresses.
    of: RwLock<BTreeMap<u16, Name>>,
}

impl Places {
    /// Nothing is known of sockets outside of the process: they are near.
    fn distance(&self, from: SocketAddr, to: SocketAddr) -> Duration {
        let of = self.of.read().expect("no one panics while placing a socket");
        match (of.get(&from.port()), of.get(&to.port())) {
            (Some(from), Some(to)) => self.one_way.get(&(from.clone(), to.clone())).copied().unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

impl Wan {
    /// The WAN of a lab, for the datacenters of a topology.
    pub fn new(lab: Lab, topology: &Topology) -> Wan {
        let mut one_way = BTreeMap::new();
        for (a, b, round_trip) in lab.round_trips(topology) {
            one_way.insert((a.clone(), b.clone()), round_trip / 2);
            one_way.insert((b, a), round_trip / 2);
        }
        Wan { places: Arc::new(Places { one_way, of: RwLock::default() }), bytes_per_second: None }
    }

    /// The same, where each link between datacenters carries that much each way.
    pub fn with_mbit(self, mbit: u32) -> Wan {
        Wan { bytes_per_second: Some(f64::from(mbit) * 125_000.0), ..self }
    }

    /// Sockets in a datacenter.
    pub fn sockets(&self, datacenter: &Name) -> Arc<dyn Sockets> {
        if self.places.one_way.is_empty() {
            return Arc::new(UdpSockets);
        }
        let places = self.places.clone();
        let delayed = WanSockets::with_bandwidth(move |from, to| places.distance(from, to), self.bytes_per_second);
        Arc::new(Placed { datacenter: datacenter.clone(), places: self.places.clone(), sockets: delayed })
    }
}

/// Notes where each socket is.
struct Placed {
    datacenter: Name,
    places: Arc<Places>,
    sockets: WanSockets,
}

impl Sockets for Placed {
    fn bind(&self, env: &Env, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        let socket = self.sockets.bind(env, address)?;
        let mut of = self.places.of.write().expect("no one panics while placing a socket");
        of.insert(socket.local_addr()?.port(), self.datacenter.clone());
        Ok(socket)
    }
}

//! A cluster on this machine that answers queries, each node a process of its own: three log nodes, two partitions with two
//! views each in the first datacenter, and api nodes beside them.

use crate::processes::{Processes, free_addresses, peers, topology_text};
use anyhow::{Context, Result, ensure};
use beam_certs::Credentials;
use beam_client::{Client, ClientOptions};
use beam_wire::env::Env;
use beam_wire::message::api::{ApiLoad, ApiLoadReply, ApiQuery, ApiStatus, QueryReply};
use beam_wire::message::view::ViewState;
use beam_wire::quic::{CallOptions, Lane, Peers, Target};
use beam_wire::{CallError, Code, Name, Position, Role};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Facts that are asked for: one of each subject.
const SUBJECTS: usize = 20_000;
/// In one transaction.
const SUBJECTS_AT_ONCE: usize = 500;
/// How long the cluster may take to be born, or to be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);
/// How long one query may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The views of the cluster: two of each partition.
pub const VIEWS: [(&str, &str); 4] = [("view-1a", "1/2"), ("view-1b", "1/2"), ("view-2a", "2/2"), ("view-2b", "2/2")];

/// The cluster.
pub struct Cluster {
    /// The clock, chance and tasks of the benchmark.
    pub env: Env,
    /// The nodes.
    pub processes: Processes,
    peers: Peers,
    apis: Vec<(Name, String)>,
}

/// What became of many queries.
pub struct Measured {
    /// From sending to the whole answer, in microseconds; of failed ones, to the error.
    pub latency_us: Histogram<u64>,
    /// From sending to the refusal, in microseconds.
    pub refusal_us: Histogram<u64>,
    /// Answered.
    pub answered: u64,
    /// Refused with `Overloaded`.
    pub refused: u64,
    /// Failed otherwise.
    pub failed: u64,
    /// Of all these, how many were sent before the time was over, and of the answered ones, how many were answered by then:
    /// what came later is no part of a rate.
    pub sent_in_time: u64,
    answered_in_time: u64,
    time: Duration,
    until: Instant,
}

impl Cluster {
    /// The nodes' topology, certificates and DNS. None runs yet. With `fronts`, DNS names views not where they listen, but at
    /// another address, in front of them, where something must stand. Api nodes have these names, and the topology of each
    /// says more.
    pub async fn prepare(apis: &[(&str, &str)], fronts: bool) -> Result<Cluster> {
        let addresses = free_addresses(2 * VIEWS.len() + apis.len())?;
        let (views, api_addresses) = addresses.split_at(2 * VIEWS.len());
        let node = |name: &str, role: &str, address: SocketAddr| {
            format!("[[node]]\nname = \"{name}\"\ndatacenter = \"a\"\nroles = [\"{role}\"]\naddress = \"{address}\"\n")
        };
        let mut more = String::new();
        for ((name, partition), addresses) in VIEWS.iter().zip(views.chunks(2)) {
            more += &node(name, "view", addresses[0]);
            if fronts {
                more += &format!("bind = \"{}\"\n", addresses[1]);
            }
            more += &format!("partition = \"{partition}\"\n");
        }
        for ((name, _), address) in apis.iter().zip(api_addresses) {
            more += &node(name, "api", *address);
        }
        let processes = Processes::prepare(&topology_text(&more)?).await?;
        let env = processes.env.clone();
        let peers = peers(&env, &processes.certs())?;
        let apis = apis.iter().map(|(name, more)| Ok((Name::new(*name)?, (*more).to_owned())));
        Ok(Cluster { env, peers, apis: apis.collect::<Result<_>>()?, processes })
    }

    /// Starts all nodes, waits until they answer, and writes what will be asked for.
    pub async fn start(&mut self) -> Result<()> {
        for role in [Role::Log, Role::View] {
            let names: Vec<Name> = self.processes.topology.nodes_with(role).map(|n| n.name.clone()).collect();
            names.iter().try_for_each(|name| self.processes.run(name))?;
        }
        self.start_apis()?;
        self.processes.until_led().await?;
        self.until_whole().await?;
        let client = self.client().await?;
        for first in (0..SUBJECTS).step_by(SUBJECTS_AT_ONCE) {
            let facts: String =
                (first..first + SUBJECTS_AT_ONCE).map(|i| format!("<urn:s:{i}> <urn:p> {i} .\n")).collect();
            client.update(&format!("INSERT DATA {{ {facts} }}")).await?;
        }
        self.until_whole().await
    }

    /// Ends all api nodes, and starts them anew.
    pub async fn restart_apis(&mut self) -> Result<()> {
        for (name, _) in self.apis.clone() {
            self.processes.kill(&name)?;
        }
        self.start_apis()?;
        self.until_whole().await
    }

    fn start_apis(&mut self) -> Result<()> {
        self.apis.iter().try_for_each(|(name, more)| self.processes.run_as(name, more))
    }

    /// A program's client.
    pub async fn client(&self) -> Result<Client> {
        let tls = Credentials::load(&self.processes.certs(), "admin")?.tls(&self.env)?;
        let topology = &self.processes.topology;
        let options = ClientOptions::new(&topology.zone, vec![topology.datacenters[0].clone()], tls);
        Ok(Client::connect(self.env.clone(), options.timeout(WHOLE_WITHIN)).await?)
    }

    /// Waits until every api node sees all views serve, all that was written, and none left out.
    pub async fn until_whole(&self) -> Result<()> {
        let deadline = self.env.now() + WHOLE_WITHIN;
        for (name, _) in &self.apis {
            loop {
                let whole = self.is_whole(name).await;
                if matches!(whole, Ok(true)) {
                    break;
                }
                ensure!(self.env.now() < deadline, "{name} does not see a whole cluster: {whole:?}");
                self.env.sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    async fn is_whole(&self, api: &Name) -> Result<bool> {
        let peer = self.peers.peer(&self.target(api)?, Lane::Calls).await?;
        let status = peer.ask(&ApiStatus, self.env.now() + PATIENCE).await?;
        let views: Vec<_> = status.views.iter().filter_map(|v| v.status.as_ref().ok()).collect();
        let newest = views.iter().map(|v| v.committed).max();
        let serving = views.iter().filter(|v| v.state == ViewState::Serving && Some(v.applied) == newest).count();
        if serving < VIEWS.len() {
            return Ok(false);
        }
        if self.load(api).await?.out.is_empty() {
            return Ok(true);
        }
        // Only who is asked has something to probe with.
        self.query(api).await?;
        Ok(false)
    }

    /// What an api node has done.
    pub async fn load(&self, api: &Name) -> Result<ApiLoadReply> {
        let peer = self.peers.peer(&self.target(api)?, Lane::Calls).await?;
        Ok(peer.ask(&ApiLoad, self.env.now() + PATIENCE).await?)
    }

    /// Looks one subject up.
    pub async fn query(&self, api: &Name) -> Result<(), CallError> {
        let subject = self.env.random_below(SUBJECTS);
        let sparql = format!("SELECT ?o {{ <urn:s:{subject}> <urn:p> ?o }}");
        let request = ApiQuery { sparql, base_iri: None, position: Position::Recent };
        let target = self.target(api).map_err(|e| CallError::never(Code::Invalid, e.to_string()))?;
        let peer = self.peers.peer(&target, Lane::Calls).await?;
        let mut call = peer.call(&request, CallOptions { deadline: Some(self.env.now() + PATIENCE) }).await?;
        let mut rows = 0;
        while let Some(reply) = call.next().await? {
            if let QueryReply::Rows(more) = reply {
                rows += more.len();
            }
        }
        if rows == 1 { Ok(()) } else { Err(CallError::never(Code::Internal, format!("{rows} rows were found, not 1"))) }
    }

    /// So many queries a second at fixed times, whatever becomes of those before, for so long, and until the last is answered.
    pub async fn ask_at(&self, api: &Name, rate: f64, time: Duration) -> Result<Measured> {
        let env = &self.env;
        let (began, mut measured) = (env.now(), Measured::start(env, time)?);
        let mut asked = FuturesUnordered::new();
        for number in 0..(time.as_secs_f64() * rate) as u64 {
            let at = began + Duration::from_secs_f64(number as f64 / rate);
            loop {
                tokio::select! {
                    biased;
                    Some((outcome, sent)) = asked.next() => measured.add(outcome, sent, env.now())?,
                    () = env.sleep_until(at) => break,
                }
            }
            asked.push(async move {
                let sent = env.now();
                (self.query(api).await, sent)
            });
        }
        while let Some((outcome, sent)) = asked.next().await {
            measured.add(outcome, sent, env.now())?;
        }
        Ok(measured)
    }

    fn target(&self, api: &Name) -> Result<Target> {
        let node = self.processes.topology.node(api).with_context(|| format!("no node {api}"))?;
        Ok(Target { node: Some(api.clone()), datacenter: None, addresses: vec![node.address] })
    }
}

impl Measured {
    /// Nothing yet, of what will be asked from now on for so long.
    pub fn start(env: &Env, time: Duration) -> Result<Measured> {
        let latency_us = Histogram::new_with_bounds(1, 600_000_000, 3)?;
        Ok(Measured {
            refusal_us: latency_us.clone(),
            latency_us,
            answered: 0,
            refused: 0,
            failed: 0,
            sent_in_time: 0,
            answered_in_time: 0,
            time,
            until: env.now() + time,
        })
    }

    /// One query that was sent then has ended now.
    pub fn add(&mut self, outcome: Result<(), CallError>, sent: Instant, now: Instant) -> Result<()> {
        self.sent_in_time += u64::from(sent < self.until);
        let took_us = (now - sent).as_micros() as u64;
        match outcome {
            Err(error) if error.code == Code::Overloaded => {
                self.refused += 1;
                return Ok(self.refusal_us.record(took_us)?);
            }
            Err(error) => {
                eprintln!("beam-bench: a query failed: {error}");
                self.failed += 1;
            }
            Ok(()) => {
                self.answered += 1;
                self.answered_in_time += u64::from(now < self.until);
            }
        }
        Ok(self.latency_us.record(took_us)?)
    }

    /// Sent in each second.
    pub fn offered_per_second(&self) -> f64 {
        self.sent_in_time as f64 / self.time.as_secs_f64()
    }

    /// Answered in each second.
    pub fn per_second(&self) -> f64 {
        self.answered_in_time as f64 / self.time.as_secs_f64()
    }

    /// Of those that were not refused, in milliseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        self.latency_us.value_at_percentile(percent) as f64 / 1e3
    }
}

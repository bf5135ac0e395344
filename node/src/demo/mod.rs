//! The main job, told as a story: three datacenters on this machine, one is lost, nothing is lost.
//!
//! [`run`] is the story. While it goes on, writers and readers in every datacenter never stop
//! ([`traffic`]); every write that was acknowledged is remembered, and at the end each must be found
//! from every datacenter.

pub mod checks;
mod report;
mod sample;
pub mod traffic;

pub use report::Report;

use crate::load::load;
use crate::local::Local;
use crate::local::wan::{Lab, Wan};
use crate::rdf;
use crate::rdf::batch::{FACTS, batches};
use crate::rdf::read::{Quad, Quads};
use anyhow::{Context, Result, bail, ensure};
use beam_client::{Client, ClientOptions, LOADS_IN_FLIGHT, Loaded};
use beam_wire::env::Env;
use beam_wire::topology::Topology;
use beam_wire::{Name, Position, Term};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;
use traffic::Traffic;

/// The cluster that the demo runs: the topology at the root of the repository, on free ports.
const TOPOLOGY: &str = include_str!("../../../topology.toml");

/// How long the cluster may take for each step of the story before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Traffic before the loss, so that there is something to compare with.
const BEFORE: Duration = Duration::from_secs(4);
/// Traffic while the datacenter is gone.
const WITHOUT: Duration = Duration::from_secs(9);
/// Traffic after it has come back.
const AFTER: Duration = Duration::from_secs(3);
/// What to run.
pub struct Options {
    /// RDF to load instead of the sample.
    pub file: Option<PathBuf>,
    /// The emulated WAN.
    pub lab: Lab,
    /// The story goes to stderr: stdout is for the document.
    pub json: bool,
}

struct Story {
    env: Env,
    began: Instant,
    to_stderr: bool,
}

impl Story {
    fn say(&self, line: impl AsRef<str>) {
        let line = format!("{:6.1} s  {}", (self.env.now() - self.began).as_secs_f64(), line.as_ref());
        if self.to_stderr { eprintln!("{line}") } else { println!("{line}") }
    }
}

/// Tells the story. An error means that it could not be told to the end; lost writes are in the
/// report.
pub async fn run(options: Options) -> Result<Report> {
    let home = tempfile::tempdir().context("cannot make a temporary directory")?;
    let topology = on_free_ports(Topology::parse(TOPOLOGY, "the built-in topology")?)?;
    let wan = Wan::new(options.lab, &topology);
    let dns = SocketAddr::from(([127, 0, 0, 1], 0));
    let nodes = topology.nodes.len();
    let datacenters = topology.datacenters.clone();
    let mut cluster = Local::start(topology, home.path(), dns, wan).await?;
    let env = cluster.env(&datacenters[0]).child("demo");
    let story = Story { began: env.now(), env, to_stderr: options.json };
    story.say(format!(
        "{nodes} nodes started in {} datacenters: certificates made, DNS answers, QUIC listens",
        datacenters.len()
    ));

    let mut clients = BTreeMap::new();
    for datacenter in &datacenters {
        clients.insert(datacenter.clone(), connect(&cluster, datacenter, &datacenters).await?);
    }
    checks::until_serving(&story.env, &clients, PATIENCE).await?;
    story.say("every view has caught up: all datacenters serve");

    let near = &clients[&datacenters[0]];
    let loading = story.env.now();
    let quads = open(&story.env, options.file.as_deref())?;
    let said = Cell::new(loading);
    let tell = |&Loaded { facts, .. }: &Loaded| {
        if story.env.now() - said.get() > Duration::from_secs(2) {
            said.set(story.env.now());
            story.say(format!("… {facts} facts"));
        }
    };
    let facts_loaded = load(near, batches(quads, FACTS), LOADS_IN_FLIGHT, tell).await?.facts;
    let load_seconds = (story.env.now() - loading).as_secs_f64();
    story.say(format!("loaded {facts_loaded} facts in {load_seconds:.1} s, each batch one transaction in the one log"));

    let queries = match &options.file {
        None => sample::queries(),
        Some(file) => queries_for(file, open(&story.env, Some(file))?)?,
    };
    ask_from_everywhere(&story, &clients, &queries).await?;

    story.say("writers and readers start in every datacenter, and will not stop");
    let sparql = queries.into_iter().map(|(_, sparql)| sparql).collect();
    let traffic = Traffic::start(&story.env, &clients, sparql);
    watch(&story, &traffic, BEFORE).await;

    let lost = checks::leader_datacenter(near).await?;
    story
        .say(format!("datacenter {lost} is lost: its log node led, its views, its api node, all gone at this instant"));
    cluster.lose_datacenter(&lost).await;
    watch(&story, &traffic, WITHOUT).await;

    cluster.return_datacenter(&lost).await?;
    story.say(format!("datacenter {lost} is back, each node from its own disk"));
    checks::until_serving(&story.env, &clients, PATIENCE).await?;
    story.say(format!("the views of {lost} have caught up from the log and serve"));
    watch(&story, &traffic, AFTER).await;

    let gap = traffic.ledger.gap(story.env.now());
    let ledger = traffic.stop(&story.env).await;
    let acknowledged: BTreeSet<u64> = ledger.acknowledged().into_iter().collect();
    ensure!(!acknowledged.is_empty(), "no write was acknowledged: {}", ledger.take_error().unwrap_or_default());
    let mut missing = BTreeSet::new();
    for datacenter in &datacenters {
        // Only this datacenter's own api node is asked.
        let client = connect(&cluster, datacenter, std::slice::from_ref(datacenter)).await?;
        let found = checks::read_back(&client).await.with_context(|| format!("cannot read back from {datacenter}"))?;
        let absent: Vec<_> = acknowledged.difference(&found).copied().collect();
        story.say(format!(
            "{datacenter} has {} of {} acknowledged writes",
            acknowledged.len() - absent.len(),
            acknowledged.len()
        ));
        missing.extend(absent);
    }

    let (mut hedges, mut requests) = (0, 0);
    for datacenter in &datacenters {
        let status = connect(&cluster, datacenter, std::slice::from_ref(datacenter)).await?.status().await?;
        hedges += status.hedges;
        requests += status.requests;
    }
    let report = Report {
        version: 1,
        wan: options.lab.name().to_owned(),
        facts_loaded,
        load_seconds,
        datacenter_lost: lost.to_string(),
        writes_acked: acknowledged.len() as u64,
        writes_lost: missing.len() as u64 + ledger.not_found.load(Relaxed),
        writes_failed: ledger.writes_failed.load(Relaxed),
        write_gap_ms: gap.as_millis() as u64,
        queries_ok: ledger.queries_ok.load(Relaxed),
        queries_failed: ledger.queries_failed.load(Relaxed),
        hedges,
        requests,
        seconds: (story.env.now() - story.began).as_secs_f64(),
    };
    cluster.stop().await;
    Ok(report)
}

/// Gives every node a port that is free now.
fn on_free_ports(mut topology: Topology) -> Result<Topology> {
    // All are held until each has one, so that none is given twice.
    let mut held = vec![];
    for node in &mut topology.nodes {
        let socket = UdpSocket::bind((node.address.ip(), 0)).context("no free UDP port")?;
        node.address = socket.local_addr()?;
        held.push(socket);
    }
    Ok(topology)
}

async fn connect(cluster: &Local, datacenter: &Name, allowed: &[Name]) -> Result<Client> {
    let env = cluster.env(datacenter).child("client");
    let mut order = allowed.to_vec();
    order.sort_by_key(|d| d != datacenter);
    let tls = cluster.credentials("admin")?.tls(&env)?;
    let options = ClientOptions::new(&cluster.topology().zone, order, tls);
    Ok(Client::connect(env, options.timeout(PATIENCE)).await?)
}

/// Opens the file or the sample.
fn open(env: &Env, file: Option<&Path>) -> Result<Quads> {
    Ok(match file {
        Some(file) => rdf::read::open(file, None, env.random_u64())?,
        None => sample::open(env.random_u64())?,
    })
}

/// What can be asked of any file: about its first subject that has a name.
fn queries_for(file: &Path, quads: Quads) -> Result<Vec<(String, String)>> {
    for quad in quads {
        if let Quad { fact: [Term::Iri(subject), ..], graph: None } = quad? {
            let question = format!("what is known of {subject}");
            return Ok(vec![(question, format!("SELECT ?p ?o WHERE {{ <{subject}> ?p ?o }}"))]);
        }
    }
    bail!("{} has no fact about an IRI in the default graph, so there is nothing to ask", file.display())
}

async fn ask_from_everywhere(
    story: &Story,
    clients: &BTreeMap<Name, Client>,
    queries: &[(String, String)],
) -> Result<()> {
    for (question, sparql) in queries {
        let mut took = vec![];
        let mut rows = None;
        for (datacenter, client) in clients {
            let asked = story.env.now();
            let answer = client.query_all(sparql, Position::Latest).await?;
            took.push(format!("{datacenter} {} ms", (story.env.now() - asked).as_millis()));
            let count = answer.rows.len();
            ensure!(*rows.get_or_insert(count) == count, "two datacenters give {question} other answers");
        }
        story.say(format!("{question}? {} rows: {}", rows.unwrap_or(0), took.join(", ")));
    }
    Ok(())
}

/// Lets the traffic go on, and tells of it every two seconds.
async fn watch(story: &Story, traffic: &Traffic, time: Duration) {
    let ledger = &traffic.ledger;
    let end = story.env.now() + time;
    let tick = Duration::from_secs(2);
    let (mut writes, mut queries) = (ledger.writes(), ledger.queries_ok.load(Relaxed));
    while story.env.now() < end {
        story.env.sleep_until((story.env.now() + tick).min(end)).await;
        let (w, q) = (ledger.writes(), ledger.queries_ok.load(Relaxed));
        story.say(format!(
            "{} writes acknowledged, {} queries answered ({} failed); longest write gap so far {} ms",
            w - writes,
            q - queries,
            ledger.queries_failed.load(Relaxed),
            ledger.gap(story.env.now()).as_millis(),
        ));
        if let Some(error) = ledger.take_error() {
            story.say(format!("  the newest error: {error}"));
        }
        (writes, queries) = (w, q);
    }
}

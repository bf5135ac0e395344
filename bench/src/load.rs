//! Loads a file into a cluster of this process: one datacenter's worth of nodes, or the three of
//! topology.toml. Floors of the same run: reading and batching the file alone, and writing the
//! transactions' bytes to one file with a sync after each batch.

use crate::figures::Figures;
use anyhow::{Context, Result};
use beam_client::{Client, ClientOptions, LOADS_IN_FLIGHT};
use beam_node::demo::checks;
use beam_node::load::load;
use beam_node::local::Local;
use beam_node::local::wan::{Lab, Wan};
use beam_node::rdf::batch::{FACTS, batches};
use beam_node::rdf::read::open;
use beam_wire::command::Command;
use beam_wire::env::Env;
use beam_wire::topology::Topology;
use beam_wire::{Epoch, LogIndex, Role, TransactionId};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

const TOPOLOGY: &str = include_str!("../../topology.toml");
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub struct Args {
    /// RDF: .nt .nq .ttl .trig .rdf, also .gz and .zst
    file: PathBuf,
    /// Log nodes in all three datacenters, but views and an api node in the first one only: for
    /// machines that are too small for three of each
    #[arg(long)]
    one_datacenter_of_views: bool,
    /// Views of each partition in a datacenter
    #[arg(long, default_value_t = 2)]
    instances: usize,
}

pub fn run(args: Args) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Figures::new("load");
    let (parsed, parse_seconds, bytes) = parse(&args.file)?;
    let home = tempfile::tempdir()?;
    let sync_seconds = write_synced(&args.file, home.path())?;
    let measured = runtime.block_on(measure(&args, home.path()))?;
    let rate = |seconds: f64| parsed as f64 / seconds;
    figures.add("facts", parsed as f64, "facts");
    figures.add_beside(
        "loaded and applied by all views",
        rate(measured.applied_seconds),
        "facts/s",
        ("reading the file alone", rate(parse_seconds)),
    );
    figures.add_beside(
        "acknowledged",
        rate(measured.acknowledged_seconds),
        "facts/s",
        ("one file, synced per batch", rate(sync_seconds)),
    );
    let per_fact = |bytes: u64| bytes as f64 / parsed as f64;
    figures.add("transactions, encoded", per_fact(bytes), "B/fact");
    figures.add("log on disk, one copy", per_fact(measured.log_bytes), "B/fact");
    figures.add("index on disk, one copy of all ranges", per_fact(measured.view_bytes), "B/fact");
    figures.add("peak memory of the process", measured.peak_mib, "MiB");
    Ok(figures)
}

/// How many facts the file has, how long reading and encoding takes, and how many bytes it makes.
fn parse(file: &Path) -> Result<(u64, f64, u64)> {
    let began = now();
    let (mut facts, mut bytes) = (0, 0);
    for batch in batches(open(file, None, 1)?, FACTS) {
        let batch = batch?;
        facts += batch.read;
        bytes += encode(batch.builder).len() as u64;
    }
    Ok((facts, began.elapsed().as_secs_f64(), bytes))
}

fn encode(builder: beam_wire::command::Builder) -> bytes::Bytes {
    let id = TransactionId { born: LogIndex(1), random: 1 };
    Command::Transact(builder.build(Epoch(1), id, LogIndex(1), vec![])).encode()
}

fn write_synced(file: &Path, home: &Path) -> Result<f64> {
    let began = now();
    let mut out = std::fs::File::create(home.join("floor"))?;
    for batch in batches(open(file, None, 1)?, FACTS) {
        out.write_all(&encode(batch?.builder))?;
        out.sync_data()?;
    }
    Ok(began.elapsed().as_secs_f64())
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

struct Measured {
    acknowledged_seconds: f64,
    applied_seconds: f64,
    log_bytes: u64,
    view_bytes: u64,
    peak_mib: f64,
}

async fn measure(args: &Args, home: &Path) -> Result<Measured> {
    let topology = topology(args)?;
    let first = topology.datacenters[0].clone();
    let datacenters = topology.datacenters.clone();
    let wan = Wan::new(Lab::None, &topology);
    let cluster = Local::start(topology, home, SocketAddr::from(([127, 0, 0, 1], 0)), wan).await?;
    let env: Env = cluster.env(&first).child("bench");
    let tls = cluster.credentials("admin")?.tls(&env)?;
    let options = ClientOptions::new(&cluster.topology().zone, datacenters, tls).timeout(PATIENCE);
    let client = Client::connect(env.clone(), options).await?;
    let clients = BTreeMap::from([(first, client.clone())]);
    checks::until_serving(&env, &clients, PATIENCE).await?;

    let began = now();
    load(&client, batches(open(&args.file, None, env.random_u64())?, FACTS), LOADS_IN_FLIGHT, |_| ()).await?;
    let acknowledged_seconds = began.elapsed().as_secs_f64();
    let target = client.status().await?.log.iter().filter_map(|n| n.status.as_ref().ok()?.committed).max();
    let target = target.context("no log node says what is committed")?;
    while !client.status().await?.views.iter().all(|v| v.status.as_ref().is_ok_and(|s| s.applied >= target)) {
        env.sleep(Duration::from_millis(50)).await;
    }
    let applied_seconds = began.elapsed().as_secs_f64();

    let topology = cluster.topology().clone();
    cluster.stop().await;
    let nodes = home.join("nodes");
    let log = topology.nodes_with(Role::Log).next().context("no log node")?;
    let log_bytes = size(&nodes.join(log.name.as_str()))?;
    // One instance of each range: all views of the first datacenter, divided by how often each range is there.
    let mut view_bytes = 0;
    let views: Vec<_> = topology.nodes_with(Role::View).filter(|n| n.datacenter == topology.datacenters[0]).collect();
    for view in &views {
        view_bytes += size(&nodes.join(view.name.as_str()))? / args.instances as u64;
    }
    let peak_mib = peak_mib()?;
    Ok(Measured { acknowledged_seconds, applied_seconds, log_bytes, view_bytes, peak_mib })
}

fn topology(args: &Args) -> Result<Topology> {
    let mut topology = Topology::parse(TOPOLOGY, "topology.toml")?;
    let first = topology.datacenters[0].clone();
    if args.one_datacenter_of_views {
        topology.nodes.retain(|n| n.datacenter == first || n.has_role(Role::Log));
    }
    let mut instances = BTreeMap::new();
    topology.nodes.retain(|n| {
        let count = instances.entry((n.datacenter.clone(), n.serves.clone())).or_insert(0);
        *count += 1;
        !n.has_role(Role::View) || *count <= args.instances
    });
    // All are held until each has one, so that none is given twice.
    let mut held = vec![];
    for node in &mut topology.nodes {
        let socket = UdpSocket::bind((node.address.ip(), 0))?;
        node.address = socket.local_addr()?;
        held.push(socket);
    }
    Ok(topology)
}

fn size(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += if kind.is_dir() { size(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
}

/// The most memory that this process ever had.
fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("peak memory is read from /proc")?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).context("the kernel does not tell peak memory")?;
    let kib: f64 = line.split_whitespace().nth(1).context("VmHWM has no value")?.parse()?;
    Ok(kib / 1024.0)
}

//! A log node that was away catches up over a long, narrow link. The floor is the link: one bandwidth, one
//! round trip. The cluster is in this process; the link is emulated (`env/wan.rs`): a packet takes its time,
//! and what finds the queue before the link full is lost.

use crate::figures::Figures;
use crate::processes::{self, fill};
use anyhow::{Context, Result};
use beam_node::local::Local;
use beam_node::local::wan::{Lab, Wan};
use beam_wire::LogIndex;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// How much it lacks
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Bytes in an entry
    #[arg(long, default_value_t = 16 << 10)]
    size: usize,
    /// The link's bandwidth, each way
    #[arg(long, default_value_t = 200)]
    mbit: u32,
    /// The link's round trip
    #[arg(long, default_value_t = 60)]
    round_trip_ms: u64,
}

/// How long it may take beyond what the link needs.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn run(args: Args) -> Result<Figures> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(args))
}

async fn measure(args: Args) -> Result<Figures> {
    let home = tempfile::tempdir()?;
    // The third datacenter is far from the other two, which are near each other.
    let round_trip = args.round_trip_ms;
    let links = ["a", "b"]
        .map(|near| format!("[[link]]\nbetween = [\"{near}\", \"c\"]\nround_trip_ms = {round_trip}\n"))
        .concat();
    let topology = processes::topology(&links)?;
    let wan = Wan::new(Lab::Topology, &topology).with_mbit(args.mbit);
    let [first, .., away] = &topology.datacenters.clone()[..] else { unreachable!("there are three") };
    let mut cluster = Local::start(topology, home.path(), SocketAddr::from(([127, 0, 0, 1], 0)), wan).await?;
    let env = cluster.env(first).child("bench");
    let log = processes::log(&env, &cluster.certs(), cluster.topology(), first)?;
    let leader = processes::until_led_by_first(&env, &log, cluster.topology()).await?;
    cluster.lose_datacenter(away).await;
    let last = fill(&env, &log, args.mib << 20, args.size).await?;
    cluster.return_datacenter(away).await?;

    let began = env.now();
    let behind = cluster.topology().nodes_in(away).next().context("the datacenter has a node")?.name.clone();
    let mut stretches = Vec::new();
    loop {
        anyhow::ensure!(env.now() < began + PATIENCE, "{behind} does not catch up");
        env.sleep(Duration::from_millis(20)).await;
        let info = log.info(&leader, env.now() + Duration::from_secs(5)).await?;
        let member = info.members.iter().find(|m| m.node == behind).context("it is a member")?;
        let matched = member.matched.unwrap_or(LogIndex(0));
        stretches.push((env.now() - began, matched));
        if matched >= last {
            break;
        }
    }
    let took = (env.now() - began).as_secs_f64();
    // When the first entries had arrived.
    let from =
        stretches.iter().find(|(_, matched)| matched.0 > stretches[0].1.0).map_or(0.0, |(at, _)| at.as_secs_f64());
    cluster.stop().await;

    let mbit = |seconds: f64| (args.mib << 20) as f64 * 8.0 / 1e6 / seconds;
    let mut figures = Figures::new("catch-up");
    let link = ("the link's bandwidth", f64::from(args.mbit));
    figures.add_beside(format!("caught up {} MiB, from its start on", args.mib), mbit(took), "Mbit/s", link);
    figures.add("until the first entries", from, "s");
    figures.add("all of it", took, "s");
    Ok(figures)
}

//! `beam dev`: every node of topology.toml as tasks of one process, until Ctrl-C.

use super::connect::topology_at;
use super::node::stop_signal;
use super::runtime;
use crate::local::Local;
use crate::local::wan::{Lab, Wan};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The cluster's topology
    #[arg(long, env = "BEAM_TOPOLOGY", default_value = "topology.toml", value_name = "FILE")]
    topology: PathBuf,
    /// Where certificates and data are kept between runs
    #[arg(long, default_value = "beam-data", value_name = "DIR")]
    data: PathBuf,
    /// The emulated WAN between datacenters named va, or and ie
    #[arg(long, value_enum, default_value_t = Lab::None)]
    wan: Lab,
}

pub fn run(args: Args) -> Result<()> {
    runtime()?.block_on(async {
        let topology = topology_at(&args.topology)?;
        let Some(dns) = topology.dns.servers.first().copied() else {
            bail!(
                "{} names no DNS server: `beam dev` answers the zone itself, at the first of [dns] servers, \
                 for example servers = [\"127.0.0.1:7053\"]",
                args.topology.display()
            );
        };
        let count = topology.nodes.len();
        let wan = Wan::new(args.wan, &topology);
        let mut cluster = Local::start(topology, &args.data, dns, wan).await?;
        let (topology, certs) = (args.topology.display(), cluster.certs());
        let zone = &cluster.topology().zone;
        eprintln!("{count} nodes run in this process; DNS for {zone} is at {dns}; data is in {}.", args.data.display());
        eprintln!("In another terminal:\n");
        let common = match (topology.to_string().as_str(), certs == std::path::Path::new("beam-data/certs")) {
            ("topology.toml", true) => String::new(),
            _ => format!(" --topology {topology} --certs {}", certs.display()),
        };
        eprintln!("  beam status{common}");
        eprintln!("  beam load{common} FILE...");
        eprintln!("  beam query{common} 'SELECT ?s ?p ?o WHERE {{ ?s ?p ?o }} LIMIT 10'");
        eprintln!("  beam update{common} 'INSERT DATA {{ <urn:a> <urn:knows> <urn:b> }}'");
        eprintln!("  beam log info{common}\n");
        eprintln!("Ctrl-C stops it; the data stays.");
        tokio::select! { biased;
            ended = cluster.ended() => {
                let (name, why) = ended?;
                Err(anyhow::anyhow!("{why}")).with_context(|| format!("node {name} stopped"))
            }
            signal = stop_signal() => {
                signal?;
                eprintln!("stopping");
                cluster.stop().await;
                Ok(())
            }
        }
    })
}

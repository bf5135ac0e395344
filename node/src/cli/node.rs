//! `beam node`: one node as one process.

use super::connect::{resolver, topology_at};
use super::runtime;
use crate::node::{Ending, Node, NodeOptions};
use anyhow::{Context, Result, bail};
use beam_wire::Name;
use beam_wire::env::Env;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(clap::Args)]
pub struct Args {
    /// The cluster's topology
    #[arg(long, env = "BEAM_TOPOLOGY", default_value = "topology.toml", value_name = "FILE")]
    topology: PathBuf,
    /// Which node of the topology this is
    #[arg(long, value_name = "NAME")]
    name: Name,
    /// Where it keeps its data
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The directory that holds ca.pem and the node's certificate
    #[arg(long, env = "BEAM_CERTS", default_value = "certs", value_name = "DIR")]
    certs: PathBuf,
}

pub fn run(args: Args) -> Result<()> {
    runtime()?.block_on(async {
        let topology = Arc::new(topology_at(&args.topology)?);
        if topology.node(&args.name).is_none() {
            let names: Vec<_> = topology.nodes.iter().map(|n| n.name.as_str()).collect();
            bail!("{} has no node {}; it has {}", args.topology.display(), args.name, names.join(", "));
        }
        let resolver = resolver(&topology)?;
        loop {
            let env = Env::real(resolver.clone()).child(args.name.as_str());
            let (name, topology) = (args.name.clone(), topology.clone());
            let options = NodeOptions::in_directory(&env, topology, name, &args.certs, &args.data)?;
            let listen = options.listen;
            let node = Node::start(env, options).await?;
            eprintln!("beam: node {} listens at {listen}", args.name);
            tokio::select! { biased;
                ending = node.ended() => match ending {
                    Ending::Restart(why) => {
                        eprintln!("beam: node {} starts again {why}", args.name);
                        node.stop().await;
                    }
                    Ending::Failed(why) => {
                        node.kill();
                        node.gone().await;
                        bail!("node {} stopped: {why}", args.name)
                    }
                },
                signal = stop_signal() => {
                    signal?;
                    eprintln!("beam: node {} stops", args.name);
                    node.stop().await;
                    return Ok(());
                }
            }
        }
    })
}

/// Waits for Ctrl-C or a polite kill.
pub async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    tokio::select! { biased;
        ctrl_c = tokio::signal::ctrl_c() => ctrl_c.context("cannot listen for signals"),
        _ = terminate.recv() => Ok(()),
    }
}

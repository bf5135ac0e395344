//! `beam topology`: checks a topology file, and prints the DNS records that follow from it.

use crate::discovery::zone;
use beam_wire::topology::Topology;
use std::path::PathBuf;

/// Checks topology.toml, or prints its DNS records.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Reads a topology, and says what is wrong (exit code 1) or unwise in it
    Check(File),
    /// Prints the records that the DNS zone of a topology must have
    Zone(File),
}

#[derive(Debug, clap::Args)]
struct File {
    /// The topology
    #[arg(default_value = "topology.toml")]
    file: PathBuf,
}

/// Does what the arguments say.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Check(File { file }) => {
            let topology = Topology::load(&file)?;
            for warning in topology.warnings() {
                eprintln!("warning: {warning}");
            }
            let (datacenters, nodes) = (topology.datacenters.len(), topology.nodes.len());
            println!("{}: cluster {}, {datacenters} datacenters, {nodes} nodes", file.display(), topology.cluster);
        }
        Command::Zone(File { file }) => print!("{}", zone::text(&Topology::load(&file)?)),
    }
    Ok(())
}

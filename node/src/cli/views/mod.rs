//! `beam views`: which node holds which partitions, and cutting the data of a running cluster anew.

mod list;
mod repartition;

use super::connect::Connection;
use super::{Output, runtime};
use crate::repartition::Nodes;
use anyhow::Result;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Every view of every node, how far it is, and where a node holds something else than its topology says
    List {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        connection: Connection,
    },
    /// Cut the data into another number of partitions, while the cluster runs: shows a plan, then carries it out
    Repartition(repartition::Args),
}

pub fn run(args: Args) -> Result<()> {
    runtime()?.block_on(async {
        match args.command {
            Command::List { output, connection } => list::run(output, connection).await,
            Command::Repartition(args) => repartition::run(args).await,
        }
    })
}

/// All nodes that hold views.
async fn nodes(connection: &Connection) -> Result<Nodes> {
    let (peers, directory, _, env) = connection.open_nodes().await?;
    Ok(Nodes { env, peers, directory })
}

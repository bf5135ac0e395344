//! Figures, each beside a floor that was measured in the same run: the machines are noisy, a ratio is
//! not.
//!
//!     cargo run --release -p beam-bench -- load FILE
//!     cargo run --release -p beam-bench -- store
//!     cargo run --release -p beam-bench -- restart --gib 1,10

mod entries;
mod figures;
mod load;
mod restart;
mod store;

use clap::{Parser, Subcommand};

/// Measures Beam, each figure beside a floor of the same run.
#[derive(Parser)]
#[command(name = "beam-bench", version)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
    /// Print one JSON document instead of a table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Bench {
    /// Load a file into a cluster on this machine: facts/s, memory, bytes per fact
    Load(load::Args),
    /// Kill -9 a log node's store while it appends: how long it takes to come back
    Restart(restart::Args),
    /// Append to one log node's store: commits/s and MB/s
    Store(store::Args),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let figures = match arguments.bench {
        Bench::Load(args) => load::run(args)?,
        Bench::Restart(args) => restart::run(args)?,
        Bench::Store(args) => store::run(args)?,
    };
    if figures.figures.is_empty() {
        // A part of a benchmark, which its other part measures.
    } else if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        println!("{}", figures.table());
    }
    Ok(())
}

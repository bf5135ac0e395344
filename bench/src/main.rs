//! Figures, each beside a floor that was measured in the same run: the machines are noisy, a ratio is
//! not.
//!
//!     cargo run --release -p beam-bench -- load FILE

mod figures;
mod load;

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
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let figures = match arguments.bench {
        Bench::Load(args) => load::run(args)?,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        println!("{}", figures.table());
    }
    Ok(())
}

//! Figures, each beside a floor that was measured in the same run: the machines are noisy, a ratio is
//! not.
//!
//!     cargo run --release -p beam-bench -- load FILE
//!     cargo run --release -p beam-bench -- append
//!     cargo run --release -p beam-bench -- read
//!     cargo run --release -p beam-bench -- catch-up
//!     cargo run --release -p beam-bench -- store
//!     cargo run --release -p beam-bench -- restart --gib 1,10
//!     cargo run --release -p beam-bench -- views --facts 5000000
//!     cargo run --release -p beam-bench -- apply
//!     cargo run --release -p beam-bench -- carousel
//!     cargo run --release -p beam-bench -- prune
//!     cargo run --release -p beam-bench -- hedge
//!     cargo run --release -p beam-bench -- overload

mod append;
mod apply;
mod carousel;
mod catch_up;
mod cluster;
mod cores;
mod entries;
mod etcd;
mod facts;
mod figures;
mod hedge;
mod load;
mod overload;
mod processes;
mod prune;
mod read;
mod restart;
mod store;
mod views;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    /// Fill a view's index on the engine it has, and on redb: facts/s, bytes per fact, look-ups
    Views(views::Args),
    /// Apply a log that is on this disk to a view: facts/s, entries/s
    Apply(apply::Args),
    /// Copy all that a view holds over loopback: MB/s, beside raw QUIC's, and what look-ups notice of it
    Carousel(carousel::Args),
    /// Remove versions that nobody may read any more, and what look-ups notice of it
    Prune(prune::Args),
    /// Append to three log nodes on this machine: entries/s and latency, beside a file's and etcd's
    Append(append::Args),
    /// Read the log of a node that has just started: MB/s, beside its files' and raw QUIC's
    Read(read::Args),
    /// Let a log node that was away catch up over a long, narrow link: Mbit/s, beside the link's
    CatchUp(catch_up::Args),
    /// Query while one of two views is stopped, slow, late or loses packets, with hedging and without
    Hedge(hedge::Args),
    /// Query more than the cluster can answer
    Overload(overload::Args),
}

fn main() -> ExitCode {
    // The nodes that a benchmark starts are this program, too.
    if std::env::args().nth(1).is_some_and(|first| first == "node") {
        return beam_node::cli::run();
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("beam-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let figures = match arguments.bench {
        Bench::Load(args) => load::run(args)?,
        Bench::Restart(args) => restart::run(args)?,
        Bench::Store(args) => store::run(args)?,
        Bench::Views(args) => views::run(args)?,
        Bench::Apply(args) => apply::run(args)?,
        Bench::Carousel(args) => carousel::run(args)?,
        Bench::Prune(args) => prune::run(args)?,
        Bench::Append(args) => append::run(args)?,
        Bench::Read(args) => read::run(args)?,
        Bench::CatchUp(args) => catch_up::run(args)?,
        Bench::Hedge(args) => hedge::run(args)?,
        Bench::Overload(args) => overload::run(args)?,
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

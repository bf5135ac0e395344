//! `beam demo`

use super::{Exit, runtime};
use crate::demo;
use crate::local::wan::Lab;
use anyhow::Result;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// RDF to load instead of the built-in sample: .nt .nq .ttl .trig .rdf, also .gz and .zst
    file: Option<PathBuf>,
    /// The emulated WAN between the datacenters
    #[arg(long, value_enum, default_value_t = Lab::UsEu)]
    wan: Lab,
    /// Print the result as one JSON document; the story goes to stderr
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let report = runtime()?.block_on(demo::run(demo::Options { file: args.file, lab: args.wan, json: args.json }))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("\n{}", report.table());
    }
    if report.writes_lost > 0 {
        return Err(Exit { code: 1, why: format!("{} acknowledged writes were lost", report.writes_lost) }.into());
    }
    Ok(())
}

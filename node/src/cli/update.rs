//! `beam update`: a SPARQL update as one transaction.

use super::connect::Connection;
use super::query::sparql_of;
use super::runtime;
use anyhow::Result;
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    /// SPARQL 1.1 Update; - reads it from stdin, @FILE from a file
    sparql: String,
    /// How to print what became of it
    #[arg(long, value_enum, default_value_t = super::Output::Table)]
    output: super::Output,
    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: Args) -> Result<()> {
    let sparql = sparql_of(&args.sparql)?;
    runtime()?.block_on(async {
        let (client, _) = args.connection.open().await?;
        let outcome = client.update(&sparql).await?;
        let (version, attempts) = (outcome.version, outcome.attempts);
        match args.output {
            super::Output::Table => println!("committed at version {version}"),
            super::Output::Json => {
                let document = json!({
                    "version": 1, "epoch": version.epoch.0, "index": version.index.0, "attempts": attempts,
                });
                println!("{document}");
            }
        }
        client.close().await;
        Ok(())
    })
}

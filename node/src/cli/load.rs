//! `beam load`: RDF files into the cluster, many transactions in flight.

use super::connect::Connection;
use super::runtime;
use crate::load::load;
use crate::rdf::batch::{FACTS, batches};
use crate::rdf::read::{Format, open};
use anyhow::{Result, bail};
use beam_client::{Client, LOADS_IN_FLIGHT, Loaded};
use beam_wire::Position;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// Files: .nt .nq .ttl .trig .rdf, also .gz and .zst; - for stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The format, where the file's name does not tell: nt, nq, ttl, trig or rdf
    #[arg(long)]
    format: Option<String>,
    /// Facts in one transaction
    #[arg(long, default_value_t = FACTS, value_parser = at_least_one)]
    batch: usize,
    /// Return as soon as all is acknowledged, without waiting until views have applied it
    #[arg(long)]
    no_wait: bool,
    /// Transactions under way at once
    #[arg(long, default_value_t = LOADS_IN_FLIGHT, value_parser = at_least_one)]
    in_flight: usize,
    #[command(flatten)]
    connection: Connection,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        Ok(n) => Ok(n),
        Err(error) => Err(error.to_string()),
    }
}

pub fn run(args: Args) -> Result<()> {
    let format = match &args.format {
        Some(name) => match Format::from_name(name) {
            Some(format) => Some(format),
            None => bail!("there is no format {name:?}; use one of {}", Format::NAMES.join(", ")),
        },
        None => None,
    };
    runtime()?.block_on(async {
        // A file that is not there or has no known format is found before anything is loaded.
        let (client, _) = args.connection.open().await?;
        let env = client.env().clone();
        let files = args.files.iter().map(|f| open(f, format, env.random_u64())).collect::<Result<Vec<_>, _>>()?;
        let began = env.now();
        let mut all = 0;
        for quads in files {
            let (name, size, read) = (quads.file().to_owned(), quads.size_bytes(), quads.progress());
            let bar = progress_bar(size, &name);
            let file_began = env.now();
            let told = |&Loaded { facts, .. }: &Loaded| {
                bar.set_position(read.bytes());
                let rate = facts as f64 / (env.now() - file_began).as_secs_f64().max(0.001);
                bar.set_message(format!("{} facts, {}/s", HumanCount(facts), HumanCount(rate as u64)));
            };
            let loaded = load(&client, batches(quads, args.batch), args.in_flight, told).await;
            bar.finish_and_clear();
            let facts = loaded?.facts;
            eprintln!("{name}: {} facts, {}", HumanCount(facts), HumanBytes(read.bytes()));
            all += facts;
        }
        let took = (env.now() - began).as_secs_f64();
        if !args.no_wait {
            until_applied(&client).await?;
        }
        let rate = HumanCount((all as f64 / took.max(0.001)) as u64);
        let applied = (env.now() - began).as_secs_f64();
        eprintln!("loaded {} facts in {took:.1} s: {rate} facts/s acknowledged; views near had applied them after {applied:.1} s", HumanCount(all));
        client.close().await;
        Ok(())
    })
}

/// Waits until the views near the api node have applied all that is in the log now: until then a
/// query of the newest version would wait as long.
async fn until_applied(client: &Client) -> Result<()> {
    let (env, bar) = (client.env(), progress_bar(None, "views apply"));
    let target = client.query_all("ASK {}", Position::Latest).await?.version;
    loop {
        let status = client.status().await?;
        let covered = status.recent.map_or(0, |recent| recent.index.0);
        if covered >= target.index.0 {
            bar.finish_and_clear();
            return Ok(());
        }
        bar.set_message(format!("{} entries behind", target.index.0 - covered));
        env.sleep(Duration::from_millis(200)).await;
    }
}

fn progress_bar(size: Option<u64>, name: &str) -> ProgressBar {
    let bar = match size {
        Some(size) => ProgressBar::new(size),
        None => ProgressBar::new_spinner(),
    };
    let template = match size {
        Some(_) => "{prefix} {wide_bar} {percent}%  {msg}  {eta} left",
        None => "{prefix} {spinner} {msg}  {elapsed}",
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is ours"));
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

//! More queries than a cluster can answer: first the most that it answers, with as many callers as it takes, then twice as many
//! queries a second, sent at fixed times whatever becomes of those before. How many are still answered, how long those wait, and what
//! becomes of the rest.
//!
//! The nodes have half of the cores and the callers the other half: else whoever sends twice as much would take from the nodes
//! what they need for answering. Rates count what was answered while queries were sent, the most and all others alike.

use crate::cluster::{Cluster, Measured};
use crate::cores::{self, Cores};
use crate::figures::Figures;
use anyhow::{Context, Result};
use beam_wire::Name;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// Callers that ask one query after the other, to find the most that are answered
    #[arg(long, value_delimiter = ',', default_values_t = [8, 32, 128])]
    callers: Vec<usize>,
    /// How long each is measured
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    seconds: f64,
    /// Queries a second, as multiples of the most that were answered
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 2.0, 4.0])]
    loads: Vec<f64>,
    /// Queries that the api node lets wait, if not as many as usual
    #[arg(long)]
    waiting: Option<u32>,
    /// Let callers and nodes share all cores
    #[arg(long)]
    together: bool,
}

const API: &str = "api-1";
/// Before what is measured.
const WARM: Duration = Duration::from_secs(2);

pub fn run(args: Args) -> Result<Figures> {
    let mut figures = Figures::new("overload");
    let cores = if args.together { None } else { Cores::apart()? };
    match &cores {
        Some(cores) => {
            let (nodes, callers) = cores.counts();
            figures.add("cores of the nodes", nodes.into(), "cores");
            figures.add("cores of the callers", callers.into(), "cores");
            cores.become_caller()?;
        }
        None => figures.add("cores that nodes and callers share", cores::usable()?.into(), "cores"),
    }
    // Its threads run where this one may.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let more = args.waiting.map_or(String::new(), |waiting| format!("[query]\nwaiting = {waiting}\n"));
        let mut cluster = Cluster::prepare(&[(API, &more)], false).await?;
        cluster.processes.cores = cores;
        cluster.start().await?;
        let (api, time) = (&Name::new(API)?, Duration::from_secs_f64(args.seconds));
        let mut peak: Option<(f64, f64)> = None;
        ask(&cluster, args.callers[0], WARM).await?;
        for callers in &args.callers {
            let measured = ask(&cluster, *callers, time).await?;
            let rate = measured.per_second();
            figures.add(format!("{callers} callers, one query after the other"), rate, "queries/s");
            figures.add("  p99", measured.percentile(99.0), "ms");
            if peak.is_none_or(|(best, _)| rate > best) {
                peak = Some((rate, measured.percentile(99.0)));
            }
        }
        let (peak, peak_p99) = peak.context("there must be callers")?;
        for load in &args.loads {
            let measured = cluster.ask_at(api, peak * load, time).await?;
            let all = (measured.answered + measured.refused + measured.failed) as f64;
            let of_most = ("the most", peak);
            figures.add_beside(format!("{load} times the most: answered"), measured.per_second(), "queries/s", of_most);
            figures.add_beside("  offered", measured.offered_per_second(), "queries/s", of_most);
            for percent in [50.0, 99.0, 100.0] {
                let floor = ("p99 at the most", peak_p99);
                figures.add_beside(
                    format!("  p{percent} of those answered"),
                    measured.percentile(percent),
                    "ms",
                    floor,
                );
            }
            figures.add("  refused", 100.0 * measured.refused as f64 / all, "%");
            if measured.refused > 0 {
                let refusal_ms = measured.refusal_us.value_at_percentile(99.0) as f64 / 1e3;
                figures.add("  p99 of refusals", refusal_ms, "ms");
            }
            figures.add("  failed otherwise", 100.0 * measured.failed as f64 / all, "%");
        }
        Ok(figures)
    })
}

/// So many callers, each of which asks one query after the other.
async fn ask(cluster: &Cluster, callers: usize, time: Duration) -> Result<Measured> {
    let (api, env) = (&Name::new(API)?, &cluster.env);
    let (began, mut measured) = (env.now(), Measured::start(env, time)?);
    let one = || async {
        let sent = env.now();
        (cluster.query(api).await, sent)
    };
    let mut asked: FuturesUnordered<_> = (0..callers).map(|_| one()).collect();
    while let Some((outcome, sent)) = asked.next().await {
        measured.add(outcome, sent, env.now())?;
        if env.now() - began < time {
            asked.push(one());
        }
    }
    Ok(measured)
}

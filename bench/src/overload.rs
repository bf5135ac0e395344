//! More queries than a cluster can answer: first the most that it answers, with as many callers as it takes, then twice as many
//! queries a second, sent at fixed times whatever becomes of those before. How many are still answered, how long those wait, and what
//! becomes of the rest.
//!
//! The callers share the machine with the cluster, as in every benchmark here: sending what is refused costs some of it, too.

use crate::cluster::{Cluster, Measured};
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
}

const API: &str = "api-1";
/// Before what is measured.
const WARM: Duration = Duration::from_secs(2);

pub fn run(args: Args) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut cluster = Cluster::prepare(&[(API, "")], false).await?;
        cluster.start().await?;
        let time = Duration::from_secs_f64(args.seconds);
        let mut figures = Figures::new("overload");
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
            let measured = offer(&cluster, peak * load, time).await?;
            let offered = (measured.answered + measured.refused + measured.failed) as f64;
            figures.add_beside(
                format!("{load} times the most: answered"),
                measured.per_second(),
                "queries/s",
                ("the most", peak),
            );
            for percent in [50.0, 99.0, 100.0] {
                let floor = ("p99 at the most", peak_p99);
                figures.add_beside(format!("  p{percent} of those"), measured.percentile(percent), "ms", floor);
            }
            figures.add("  refused", 100.0 * measured.refused as f64 / offered, "%");
            figures.add("  failed otherwise", 100.0 * measured.failed as f64 / offered, "%");
        }
        Ok(figures)
    })
}

/// So many callers, each of which asks one query after the other.
async fn ask(cluster: &Cluster, callers: usize, time: Duration) -> Result<Measured> {
    let (api, env) = (&Name::new(API)?, &cluster.env);
    let (began, mut measured) = (env.now(), Measured::new()?);
    let one = || async {
        let sent = env.now();
        (cluster.query(api).await, env.now() - sent)
    };
    let mut asked: FuturesUnordered<_> = (0..callers).map(|_| one()).collect();
    while let Some((outcome, took)) = asked.next().await {
        measured.add(outcome, took)?;
        if env.now() - began < time {
            asked.push(one());
        }
    }
    measured.took = env.now() - began;
    Ok(measured)
}

/// So many queries a second.
async fn offer(cluster: &Cluster, rate: f64, time: Duration) -> Result<Measured> {
    let api = &Name::new(API)?;
    let mut measured = cluster.ask_at(api, rate, time).await?;
    // What was answered after the last was sent was answered for them, too: it is no part of the rate.
    measured.took = time;
    Ok(measured)
}

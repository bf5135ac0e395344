//! Small queries while one of two views that hold the same is sick in some way: how long they take with hedging and without,
//! beside the same a moment before with nobody sick, and what that costs.
//!
//! All nodes are processes of their own on this machine. Every view stands behind a [`proxy`], which counts bytes and can be made a
//! bad network; where replies of one are to be late, every view stands behind a [`relay`] as well. Queries are sent at fixed times,
//! whatever becomes of those before, so that one that waits keeps no other from being measured.

mod proxy;
mod relay;

use crate::cluster::{Cluster, Measured, VIEWS};
use crate::figures::Figures;
use anyhow::{Context, Result, ensure};
use beam_wire::Name;
use proxy::{Proxy, Trouble};
use relay::Relay;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// Queries a second
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// How long each case is measured, three times
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS")]
    seconds: f64,
    /// Only these cases: paused, slow, late, lossy
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
}

/// The view that falls sick.
const SICK: &str = VIEWS[0].0;
/// Two api nodes, one of which does not hedge.
const HEDGED: &str = "api-1";
const PLAIN: &str = "api-2";
/// Before what is measured.
const WARM: Duration = Duration::from_secs(3);

/// Ways to be sick.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Paused,
    Slow,
    Lossy,
    Late,
}

impl Case {
    /// Late comes last: the doubles stay.
    const ALL: [Case; 4] = [Case::Paused, Case::Slow, Case::Lossy, Case::Late];

    fn key(self) -> &'static str {
        match self {
            Case::Paused => "paused",
            Case::Slow => "slow",
            Case::Lossy => "lossy",
            Case::Late => "late",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Case::Paused => "one of two stopped (SIGSTOP)",
            Case::Slow => "one of two 100 ms slower",
            Case::Lossy => "one of two loses 5 % of packets",
            Case::Late => "one of two answers 1 % 1 s late",
        }
    }
}

pub fn run(args: Args) -> Result<Figures> {
    let known = |key: &String| Case::ALL.iter().any(|case| case.key() == key);
    ensure!(args.cases.iter().all(known), "cases are paused, slow, lossy and late");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut bench = Bench::start(args).await?;
        let mut figures = Figures::new("hedge");
        for case in Case::ALL {
            if bench.args.cases.is_empty() || bench.args.cases.iter().any(|key| key == case.key()) {
                bench.case(case, &mut figures).await?;
            }
        }
        Ok(figures)
    })
}

struct Bench {
    args: Args,
    cluster: Cluster,
    proxies: Vec<Proxy>,
    /// One before each view, as soon as replies are to be late: what a double costs, all cost.
    relays: Vec<Relay>,
}

/// Queries, and what they cost.
struct Cost {
    measured: Measured,
    /// Hedges and probes, in percent of the other requests to views.
    extra_percent: f64,
    /// Between api nodes and views, for each query.
    bytes: f64,
}

impl Bench {
    async fn start(args: Args) -> Result<Bench> {
        let mut cluster = Cluster::prepare(&[(HEDGED, ""), (PLAIN, "[query]\nhedge = false\n")], true).await?;
        let mut proxies = Vec::new();
        for (name, _) in VIEWS {
            let node = cluster.processes.topology.node(&Name::new(name)?).context("a view")?;
            proxies.push(Proxy::start(&cluster.env, node.address, node.bind()).await?);
        }
        cluster.start().await?;
        Ok(Bench { args, cluster, proxies, relays: vec![] })
    }

    async fn case(&mut self, case: Case, figures: &mut Figures) -> Result<()> {
        if case == Case::Late {
            let (env, processes) = (&self.cluster.env, &self.cluster.processes);
            for ((name, _), proxy) in VIEWS.iter().zip(&self.proxies) {
                let node = processes.topology.node(&Name::new(*name)?).context("a view")?;
                let relay = Relay::start(env, &processes.certs(), &node.name, node.bind()).await?;
                proxy.lead_to(relay.address());
                self.relays.push(relay);
            }
            self.cluster.restart_apis().await?;
        }
        let (hedged, plain) = (Name::new(HEDGED)?, Name::new(PLAIN)?);
        for api in [&hedged, &plain] {
            self.cluster.ask_at(api, self.args.rate, WARM).await?;
        }
        let healthy = self.measure(&hedged).await?;
        let mut sick = Vec::new();
        for api in [&hedged, &plain] {
            self.fall_sick(case)?;
            sick.push(self.measure(api).await?);
            self.recover(case)?;
            self.cluster.until_whole().await.with_context(|| format!("after {}", case.name()))?;
        }
        tell(case, &healthy, &sick[0], &sick[1], figures);
        Ok(())
    }

    fn fall_sick(&self, case: Case) -> Result<()> {
        match case {
            Case::Paused => self.cluster.processes.pause(&Name::new(SICK)?, true)?,
            Case::Slow => self.proxies[0].set(Trouble { delay: Duration::from_millis(100), ..Trouble::default() }),
            Case::Lossy => self.proxies[0].set(Trouble { loss: 0.05, ..Trouble::default() }),
            Case::Late => self.relays[0].set_late(0.01),
        }
        Ok(())
    }

    fn recover(&self, case: Case) -> Result<()> {
        match case {
            Case::Paused => self.cluster.processes.pause(&Name::new(SICK)?, false)?,
            Case::Slow | Case::Lossy => self.proxies[0].set(Trouble::default()),
            Case::Late => self.relays[0].set_late(0.0),
        }
        Ok(())
    }

    async fn measure(&self, api: &Name) -> Result<Cost> {
        let bytes = || self.proxies.iter().map(Proxy::bytes).sum::<u64>();
        let (before, bytes_before) = (self.cluster.load(api).await?, bytes());
        let measured = self.cluster.ask_at(api, self.args.rate, Duration::from_secs_f64(self.args.seconds)).await?;
        let (after, bytes) = (self.cluster.load(api).await?, bytes() - bytes_before);
        let extra = (after.hedges + after.probes - before.hedges - before.probes) as f64;
        let requests = (after.requests - before.requests) as f64;
        let bytes = bytes as f64 / (measured.answered + measured.failed).max(1) as f64;
        Ok(Cost { measured, extra_percent: 100.0 * extra / (requests - extra), bytes })
    }
}

fn tell(case: Case, healthy: &Cost, hedged: &Cost, plain: &Cost, figures: &mut Figures) {
    let case = case.name();
    for percent in [50.0, 99.0, 99.9] {
        let floor = ("with nobody sick", healthy.measured.percentile(percent));
        figures.add_beside(format!("{case}: p{percent}"), hedged.measured.percentile(percent), "ms", floor);
        figures.add_beside("  without hedging", plain.measured.percentile(percent), "ms", floor);
    }
    figures.add_beside("  extra requests", hedged.extra_percent, "%", ("with nobody sick", healthy.extra_percent));
    figures.add_beside("  bytes for each query", hedged.bytes, "B", ("with nobody sick", healthy.bytes));
    figures.add(
        "  failed with and without hedging",
        (hedged.measured.failed + plain.measured.failed) as f64,
        "queries",
    );
}

//! Copies all that a view holds, as a view does that starts, and throws it away: how fast one source gives. The view is a
//! process of its own; floor: one stream of raw QUIC over loopback, both ends in one process. Meanwhile, and before,
//! somebody looks up 250 pairs of subject and predicate at once, over QUIC, other ones each time; then the same beside a
//! copy whose rate is limited. Before all that, the same few are looked up again and again.

use crate::facts::{PER_SUBJECT, fact, mix, predicate, terms};
use crate::figures::Figures;
use crate::processes::Processes;
use crate::read::raw_quic;
use anyhow::{Context, Result, ensure};
use beam_node::remote::view::{Asking, RemoteViews, View, Views};
use beam_wire::command::{Builder, Command};
use beam_wire::env::Env;
use beam_wire::fact::{GraphPattern, Pattern};
use beam_wire::message::view::{KeyInterval, ViewCopy, ViewLookup};
use beam_wire::{LogIndex, Range, Space, TransactionId, Version};
use bytes::Bytes;
use futures::StreamExt;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Facts of one transaction.
const FACTS: u64 = 1000;
/// Keys of one look-up.
const KEYS: u64 = 250;
/// Look-ups after which the same keys come again, where they do.
const AGAIN: u64 = 40;
/// Between two look-ups.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the view may take to apply all, and a call.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub struct Args {
    /// How many facts the view holds
    #[arg(long, default_value_t = 1_000_000)]
    facts: u64,
    /// What the view gives at most while its rate is limited
    #[arg(long, default_value_t = 32)]
    mib_per_second: u32,
    /// How long look-ups are measured beside each copy
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

pub fn run(args: Args) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Figures::new("carousel");
    runtime.block_on(async {
        measure(&args, None, &mut figures).await?;
        measure(&args, Some(args.mib_per_second), &mut figures).await
    })?;
    Ok(figures)
}

async fn measure(args: &Args, limit: Option<u32>, figures: &mut Figures) -> Result<()> {
    let processes = Processes::start_with_view(limit).await?;
    let env = processes.env.clone();
    let last = fill(&processes, args.facts).await?;
    let views = processes.views()?;
    let asked = Asked { view: applied(&env, &views, last.index).await?, views, env: env.clone(), at: last };

    let lasts = Duration::from_secs(args.seconds);
    let alone = asked.look_up(args.facts, u64::MAX, lasts).await?;
    let ms = |found: &Histogram<u64>, q| found.value_at_quantile(q) as f64 / 1e3;
    if limit.is_none() {
        let again = asked.look_up(args.facts, AGAIN, lasts).await?;
        for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
            figures.add(format!("{KEYS} keys never asked for before: {name}"), ms(&alone, q), "ms");
            figures.add(format!("{KEYS} keys of {} that come again: {name}", KEYS * AGAIN), ms(&again, q), "ms");
        }
        let began = env.now();
        let copied = asked.copy().await?;
        let seconds = (env.now() - began).as_secs_f64();
        let floor = raw_quic(&processes, 1 << 30).await?;
        let rate = copied.bytes as f64 / 1e6 / seconds;
        figures.add_beside("copied from one view", rate, "MB/s", ("one stream of raw QUIC", floor));
        figures.add("copied from one view: facts and texts", copied.records as f64 / seconds, "per s");
    }
    // Whoever copies begins again when all is there.
    let copying = async {
        let mut bytes = 0;
        let (began, until) = (env.now(), env.now() + lasts);
        while env.now() < until {
            bytes += env.timeout_at(until, asked.copy()).await.map_or(Ok(0), |copied| copied.map(|c| c.bytes))?;
        }
        anyhow::Ok(bytes as f64 / 1e6 / (env.now() - began).as_secs_f64())
    };
    let (beside, _) = futures::future::try_join(asked.look_up(args.facts, u64::MAX, lasts), copying).await?;
    let what = limit.map_or("a copy".to_owned(), |mib| format!("a copy at {mib} MiB/s"));
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let without = ("without one", ms(&alone, q));
        figures.add_beside(format!("{KEYS} keys beside {what}: {name}"), ms(&beside, q), "ms", without);
    }
    Ok(())
}

/// Whom a benchmark asks.
struct Asked {
    env: Env,
    views: RemoteViews,
    view: View,
    at: Version,
}

/// What was copied.
#[derive(Default)]
struct Copied {
    /// Of keys, where they differ from the ones before, and of texts.
    bytes: u64,
    records: u64,
}

impl Asked {
    /// Looks up again and again, with the same keys after so many times, and tells how long it took, in microseconds.
    async fn look_up(&self, facts: u64, again: u64, lasts: Duration) -> Result<Histogram<u64>> {
        let mut found = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        let until = self.env.now() + lasts;
        for round in 0.. {
            let request = ViewLookup {
                at: self.at,
                space: Space::Subject,
                range: Range::ALL,
                patterns: patterns(round % again, facts),
            };
            let began = self.env.now();
            if began > until {
                break;
            }
            let mut chunks = self.views.call(&self.view, Asking::Keys, request, began + PATIENCE);
            let mut count = 0;
            while let Some(chunk) = chunks.next().await {
                count += chunk?.facts.len() as u64;
            }
            found.record((self.env.now() - began).as_micros() as u64)?;
            ensure!(count >= KEYS, "{count} facts were found for {KEYS} pairs");
            self.env.sleep(PAUSE).await;
        }
        Ok(found)
    }

    /// Copies all that there is.
    async fn copy(&self) -> Result<Copied> {
        let mut copied = Copied::default();
        for space in Space::ALL {
            let wanted = vec![KeyInterval { from: Bytes::new(), to: None }];
            let request = ViewCopy { at: self.at, space, range: Range::ALL, wanted };
            let mut chunks = self.views.call(&self.view, Asking::Copy, request, self.env.now() + PATIENCE);
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk?;
                copied.records += (chunk.facts.len() + chunk.terms.len()) as u64;
                copied.bytes += chunk.facts.iter().map(|fact| fact.rest.len() as u64 + 4).sum::<u64>();
                copied.bytes += chunk.terms.iter().map(|term| term.text.len() as u64 + 17).sum::<u64>();
            }
        }
        Ok(copied)
    }
}

/// Appends facts, and returns the last version.
async fn fill(processes: &Processes, facts: u64) -> Result<Version> {
    let (env, log) = (&processes.env, processes.log(0)?);
    let epoch = log.tail(true, env.now() + PATIENCE).await?.epoch;
    let appender = log.appender();
    let mut last = Version { epoch, index: LogIndex(0) };
    for first in (0..facts).step_by(FACTS as usize) {
        let mut builder = Builder::new();
        for number in first..first + FACTS {
            builder.insert(terms(number), None)?;
        }
        let id = TransactionId { born: LogIndex(1), random: u128::from(first) };
        let body = Command::Transact(builder.build(epoch, id, LogIndex(0), Vec::new())).encode();
        last = appender.append(body, env.now() + PATIENCE).await?;
    }
    Ok(last)
}

/// Waits until the view has applied an entry.
async fn applied(env: &Env, views: &RemoteViews, last: LogIndex) -> Result<View> {
    let until = env.now() + PATIENCE;
    loop {
        let changed = views.changed();
        let reached = |view: &&View| view.status.applied >= last && view.status.state.answers();
        match views.table().iter().find(reached) {
            Some(view) => return Ok(view.clone()),
            None => env.timeout_at(until, changed).await.ok().context("the view does not get there")?,
        }
    }
}

fn patterns(round: u64, facts: u64) -> Vec<Pattern> {
    let numbers = (0..KEYS).map(|key| mix(round * KEYS + key) % facts);
    let pattern = |number| Pattern {
        subject: Some(fact(number).subject),
        predicate: Some(predicate(number % PER_SUBJECT)),
        object: None,
        graph: GraphPattern::Default,
    };
    numbers.map(pattern).collect()
}

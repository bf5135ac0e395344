//! Look-ups while versions that nobody may read any more are removed, beside look-ups with nothing else going on. A view
//! has as many past versions as live facts, and half of the past ones are too old.

use crate::facts::{PER_SUBJECT, fact, mix, predicate};
use crate::figures::Figures;
use anyhow::{Result, ensure};
use beam_node::view::keys::{Key, Order};
use beam_node::view::prune;
use beam_node::view::store::{Heat, Store, StoreOptions};
use beam_wire::env::Env;
use beam_wire::message::view::Served;
use beam_wire::{LogIndex, Range, Space};
use hdrhistogram::Histogram;
use openraft::type_config::TypeConfigExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Facts that are written as one.
const BATCH: u64 = 8192;
/// Keys of one look-up.
const KEYS: u64 = 250;
/// Between two look-ups.
const PAUSE: Duration = Duration::from_millis(20);
const ORDERS: [Order; 3] = [Order::Spog, Order::Posg, Order::Opsg];

#[derive(clap::Args)]
pub struct Args {
    /// How many facts are live, and as many past versions
    #[arg(long, default_value_t = 1_000_000)]
    facts: u64,
    /// How long look-ups are measured with nothing else going on
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Where the files lie: the disk that is meant
    #[arg(long, default_value = ".")]
    directory: PathBuf,
}

pub fn run(args: Args) -> Result<Figures> {
    let home = tempfile::tempdir_in(&args.directory)?;
    let serves = [Space::Subject, Space::Object].map(|space| Served { space, range: Range::ALL });
    let store = Store::open(home.path(), &"bench".parse()?, &serves, &StoreOptions::default())?;
    fill(&store, args.facts)?;
    let measured = beam_node::log::types::LogTypes::run(measure(store, args.facts, args.seconds));
    let (alone, beside, removed, took) = measured?;
    let mut figures = Figures::new("prune");
    figures.add("past versions removed", removed as f64, "versions");
    figures.add("by one pass, at its own pace", removed as f64 / took.as_secs_f64(), "per s");
    let ms = |found: &Histogram<u64>, q| found.value_at_quantile(q) as f64 / 1e3;
    for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let floor = ("without it", ms(&alone, q));
        figures.add_beside(format!("{KEYS} keys beside the pass: {name}"), ms(&beside, q), "ms", floor);
    }
    Ok(figures)
}

/// Every fact is live, and was so once before. Versions follow one another in the order of a log.
fn fill(store: &Store, facts: u64) -> Result<()> {
    for first in (0..facts).step_by(BATCH as usize) {
        let mut batch = store.batch();
        for number in first..(first + BATCH).min(facts) {
            let (fact, index) = (fact(number), 3 * number + 1);
            for order in ORDERS {
                batch.put_past(order, &fact, LogIndex(index + 1), LogIndex(index));
                batch.put_live(order, &fact, Some(LogIndex(index + 2)), Heat::Cold);
            }
        }
        batch.commit()?;
    }
    Ok(store.persist()?)
}

type Measured = (Histogram<u64>, Histogram<u64>, u64, Duration);

async fn measure(store: Store, facts: u64, seconds: u64) -> Result<Measured> {
    let env = Env::current();
    let ended = AtomicBool::new(false);
    let stop_later = async {
        env.sleep(Duration::from_secs(seconds)).await;
        ended.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (alone, ()) = futures::future::try_join(look_up(&env, &store, facts, &ended), stop_later).await?;
    ended.store(false, Ordering::Relaxed);
    store.let_go(LogIndex(3 * facts / 2));
    let began = env.now();
    let pass = async {
        let removed = prune::pass(&env, || Some(store.clone())).await?;
        ended.store(true, Ordering::Relaxed);
        anyhow::Ok((removed, env.now() - began))
    };
    let (beside, (removed, took)) = futures::future::try_join(look_up(&env, &store, facts, &ended), pass).await?;
    ensure!(removed > 0, "there was nothing left to remove: compaction was quicker");
    Ok((alone, beside, removed, took))
}

/// Looks up on a thread of its own until told to stop, and tells how long it took, in microseconds.
async fn look_up(env: &Env, store: &Store, facts: u64, ended: &AtomicBool) -> Result<Histogram<u64>> {
    let mut found = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    for round in 0.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let (store, began) = (store.clone(), env.now());
        let count = env.blocking(move || count(&store, round, facts)).await?;
        found.record((env.now() - began).as_micros() as u64)?;
        ensure!(count >= KEYS, "{count} facts were found for {KEYS} pairs");
        env.sleep(PAUSE).await;
    }
    Ok(found)
}

fn count(store: &Store, round: u64, facts: u64) -> Result<u64> {
    let (snapshot, mut count) = (store.snapshot(), 0);
    for key in 0..KEYS {
        let number = mix(round * KEYS + key) % facts;
        let pair = Key::prefix(&[fact(number).subject, predicate(number % PER_SUBJECT)]);
        for row in snapshot.live_prefix(Order::Spog, &pair) {
            row?;
            count += 1;
        }
    }
    Ok(count)
}

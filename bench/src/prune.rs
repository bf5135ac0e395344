//! Look-ups while versions that nobody may read any more are removed, beside look-ups with nothing else going on, and
//! beside as many rows being written as are removed. A view has as many past versions as live facts, and half of the
//! past ones are too old.

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
/// Rows that are written as one while look-ups are measured: as many as a pass looks at in one slice.
const WRITTEN: u64 = 512;
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
    let Measured { alone, beside_pass, beside_writing, removed, took } = measured?;
    let mut figures = Figures::new("prune");
    figures.add("past versions removed", removed as f64, "versions");
    figures.add("by one pass, at its own pace", removed as f64 / took.as_secs_f64(), "per s");
    let ms = |found: &Histogram<u64>, q| found.value_at_quantile(q) as f64 / 1e3;
    for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)] {
        let floor = ("without it", ms(&alone, q));
        figures.add_beside(format!("{KEYS} keys beside the pass: {name}"), ms(&beside_pass, q), "ms", floor);
        figures.add_beside(format!("{KEYS} keys beside as many writes: {name}"), ms(&beside_writing, q), "ms", floor);
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

struct Measured {
    /// How long look-ups took, in microseconds.
    alone: Histogram<u64>,
    beside_pass: Histogram<u64>,
    beside_writing: Histogram<u64>,
    removed: u64,
    took: Duration,
}

async fn measure(store: Store, facts: u64, seconds: u64) -> Result<Measured> {
    let env = Env::current();
    let (alone, ()) = look_up_beside(&env, &store, facts, async {
        env.sleep(Duration::from_secs(seconds)).await;
        Ok(())
    })
    .await?;
    store.let_go(LogIndex(3 * facts / 2));
    let (beside_pass, (removed, took)) = look_up_beside(&env, &store, facts, async {
        let began = env.now();
        Ok((prune::pass(&env, || Some(store.clone())).await?, env.now() - began))
    })
    .await?;
    ensure!(removed > 0, "there was nothing left to remove: compaction was quicker");
    let writing = write(&env, &store, facts, removed, took);
    let (beside_writing, ()) = look_up_beside(&env, &store, facts, writing).await?;
    Ok(Measured { alone, beside_pass, beside_writing, removed, took })
}

/// Writes so many rows of facts that nobody asks for, evenly over a time.
async fn write(env: &Env, store: &Store, facts: u64, rows: u64, over: Duration) -> Result<()> {
    let began = env.now();
    for first in (0..rows).step_by(WRITTEN as usize) {
        let store = store.clone();
        let written = move || {
            let mut batch = store.batch();
            for row in first..(first + WRITTEN).min(rows) {
                let (order, number) = (ORDERS[row as usize % ORDERS.len()], facts + row / ORDERS.len() as u64);
                batch.put_live(order, &fact(number), Some(LogIndex(3 * number)), Heat::Cold);
            }
            batch.commit()
        };
        env.blocking(written).await?;
        let due = over.mul_f64((first + WRITTEN) as f64 / rows as f64);
        env.sleep(due.saturating_sub(env.now() - began)).await;
    }
    Ok(())
}

/// Looks up for as long as something else goes on. Returns how long that took, and what came of the other.
async fn look_up_beside<T>(
    env: &Env,
    store: &Store,
    facts: u64,
    other: impl Future<Output = Result<T>>,
) -> Result<(Histogram<u64>, T)> {
    let ended = AtomicBool::new(false);
    let other = async {
        let came = other.await?;
        ended.store(true, Ordering::Relaxed);
        Ok(came)
    };
    futures::future::try_join(look_up(env, store, facts, &ended), other).await
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

//! How fast a view that holds all facts applies a log, from nothing: one of large transactions, and one of a million
//! small ones. The log was opened again after it was written, so its entries come from files. Floors of the same run:
//! reading that log, and no more; and writing the same keys, sorted, in batches of the same size, without looking whether they are there, without
//! texts and verdicts. Then views of one partition each apply the same log: a tenth of all facts have the same object, so one of
//! them holds more than the others.

use crate::entries::Appended;
use crate::facts::{fact, terms};
use crate::figures::Figures;
use anyhow::{Context, Result, bail, ensure};
use beam_node::log::store::LogStore;
use beam_node::log::types::{EntryContent, LogTypes};
use beam_node::view::apply::{Applier, ApplyOptions, CHECKPOINT_INDEXES, HISTORY};
use beam_node::view::follow::follow;
use beam_node::view::keys::{Key, Order};
use beam_node::view::status::Board;
use beam_node::view::store::{Heat, Store, StoreOptions};
use beam_wire::command::{Builder, Command, FORMAT, Genesis};
use beam_wire::env::Env;
use beam_wire::message::log::{Entries, Entry};
use beam_wire::message::view::Served;
use beam_wire::{CallError, Epoch, Fact, LogIndex, Name, Range, Space, TransactionId};
use bytes::Bytes;
use futures::future::Either;
use futures::{StreamExt, stream};
use openraft::type_config::TypeConfigExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Facts that a view applies as one when it is behind.
const BATCH: usize = 25_000;
/// Entries that are appended as one.
const GROUP: u64 = 4096;
/// What is read from the log at once.
const READ_BYTES: usize = 1 << 20;
/// How long applying a log may take.
const PATIENCE: Duration = Duration::from_secs(3600);
const EPOCH: Epoch = Epoch(1);

#[derive(clap::Args)]
pub struct Args {
    /// Transactions and facts in each, as 2000x1000
    #[arg(long, value_delimiter = ',', default_values_t = ["2000x1000".to_owned(), "1000000x2".to_owned()])]
    logs: Vec<String>,
    /// Into how many partitions the facts are cut afterwards
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// What the view may cache
    #[arg(long, default_value_t = 512)]
    cache_mib: u64,
    /// Where the files lie: the disk that is meant
    #[arg(long, default_value = ".")]
    directory: PathBuf,
}

pub fn run(args: Args) -> Result<Figures> {
    let mut figures = Figures::new("apply");
    for log in &args.logs {
        let (transactions, facts) = log.split_once('x').context("a log is TRANSACTIONSxFACTS, as 2000x1000")?;
        let case =
            Case { transactions: transactions.parse()?, facts: facts.parse()?, cache_bytes: args.cache_mib << 20 };
        let home = tempfile::tempdir_in(&args.directory)?;
        let measured = LogTypes::run(case.measure(home.path(), args.partitions))?;
        let (all, name) = (case.transactions * case.facts, format!("{transactions} transactions of {facts} facts"));
        let facts_per_second = |seconds: f64| all as f64 / seconds;
        figures.add_compared(
            format!("{name}: applied"),
            facts_per_second(measured.applied.seconds),
            "facts/s",
            Some(("writing the sorted keys", facts_per_second(measured.written.seconds))),
            None,
        );
        figures.add_beside(
            format!("{name}: by one core"),
            facts_per_second(measured.applied.cpu_seconds),
            "facts/s",
            ("writing the sorted keys", facts_per_second(measured.written.cpu_seconds)),
        );
        figures.add_beside(
            format!("{name}: transactions"),
            case.transactions as f64 / measured.applied.seconds,
            "per s",
            ("reading the log", case.transactions as f64 / measured.read.seconds),
        );
        let parts = &measured.parts;
        let mean = |of: &dyn Fn(&Took) -> f64| parts.iter().map(of).sum::<f64>() / parts.len() as f64;
        let largest = parts.iter().map(|part| part.cpu_seconds).fold(0.0, f64::max);
        figures.add_beside(
            format!("{name}: the busiest of {} partitions", parts.len()),
            largest,
            "s of a core",
            ("their mean", mean(&|part| part.cpu_seconds)),
        );
    }
    Ok(figures)
}

struct Case {
    transactions: u64,
    facts: u64,
    cache_bytes: u64,
}

struct Measured {
    read: Took,
    applied: Took,
    written: Took,
    parts: Vec<Took>,
}

struct Took {
    seconds: f64,
    cpu_seconds: f64,
}

impl Case {
    async fn measure(&self, home: &Path, partitions: u32) -> Result<Measured> {
        self.fill(&home.join("log")).await?;
        let log = Appended::open(&home.join("log"), 0).await?.store;
        let read = timed(async {
            let mut next = LogIndex(0);
            while let Some(entries) = read(&log, next).await? {
                next = LogIndex(entries.first.0 + entries.entries.len() as u64);
            }
            Ok(())
        });
        let read = read.await?;
        let applied = timed(self.apply(&home.join("view"), log.clone(), Range::ALL)).await?;
        let sorted = self.sorted();
        let written = timed(async { self.write(&home.join("floor"), &sorted) }).await?;
        let mut parts = Vec::new();
        for part in 0..partitions {
            let directory = home.join(format!("part-{part}"));
            parts.push(timed(self.apply(&directory, log.clone(), Range::partition(part, partitions))).await?);
            std::fs::remove_dir_all(directory)?;
        }
        log.close().await?;
        Ok(Measured { read, applied, written, parts })
    }

    async fn fill(&self, directory: &Path) -> Result<()> {
        let mut log = Appended::open(directory, 0).await?;
        let genesis = Genesis { cluster: cluster()?, epoch: EPOCH, format: FORMAT, slots_log2: 23, window: 1_000_000 };
        // Entry 0 is Raft's own.
        log.append_bodies(vec![Bytes::new(), Command::Genesis(genesis).encode()]).await?;
        for first in (0..self.transactions).step_by(GROUP as usize) {
            let group = first..(first + GROUP).min(self.transactions);
            log.append_bodies(group.map(|number| self.transaction(number)).collect::<Result<_>>()?).await?;
        }
        Ok(log.store.close().await?)
    }

    fn transaction(&self, number: u64) -> Result<Bytes> {
        let mut builder = Builder::new();
        for fact in number * self.facts..(number + 1) * self.facts {
            builder.insert(terms(fact), None)?;
        }
        let id = TransactionId { born: LogIndex(number), random: u128::from(number) };
        Ok(Command::Transact(builder.build(EPOCH, id, LogIndex(0), Vec::new())).encode())
    }

    async fn apply(&self, directory: &Path, log: LogStore, range: Range) -> Result<()> {
        let serves = Space::ALL.map(|space| Served { space, range }).to_vec();
        let store = self.open(directory, &serves)?;
        let options = ApplyOptions {
            cluster: cluster()?,
            serves: serves.clone(),
            format: FORMAT,
            history: HISTORY,
            checkpoint_indexes: CHECKPOINT_INDEXES,
        };
        let applier = Applier::open(store.clone(), options)?;
        let board = Arc::new(Board::new(serves, applier.applied()));
        let last = LogIndex(log.state().last.context("the log was filled")?.index);
        let entries = stream::unfold(LogIndex(1), move |next| {
            let log = log.clone();
            async move {
                let entries = read(&log, next).await.transpose()?;
                let entries = entries.map_err(|e| CallError::never(beam_wire::Code::Storage, e.to_string()));
                let next = entries.as_ref().map_or(next, |e| LogIndex(e.first.0 + e.entries.len() as u64));
                Some((entries, next))
            }
        });
        // At its end it is followed on.
        let entries = Box::pin(entries.chain(stream::pending()));
        let env = Env::current();
        let following = follow(env.clone(), applier, store.clone(), entries, board.clone());
        let reached = board.applied(&env, last, Some(env.now() + PATIENCE));
        let ended = futures::future::select(Box::pin(following), Box::pin(reached)).await;
        match ended {
            Either::Left((ended, _)) => bail!("following the log has ended: {ended:?}"),
            Either::Right((reached, _)) => reached?,
        }
        let progress = store.progress()?;
        let all = self.transactions * self.facts;
        ensure!(progress.facts == all || range != Range::ALL, "{} facts of {all} are there", progress.facts);
        Ok(store.persist()?)
    }

    /// All facts in batches, each as it is sorted by every order.
    fn sorted(&self) -> Vec<[(Order, Vec<Fact>); 3]> {
        let all: Vec<Fact> = (0..self.transactions * self.facts).map(fact).collect();
        let sort = |facts: &[Fact], order| {
            let mut facts = facts.to_vec();
            facts.sort_by_cached_key(|fact| Key::live(order, fact));
            (order, facts)
        };
        all.chunks(BATCH).map(|facts| [Order::Spog, Order::Posg, Order::Opsg].map(|order| sort(facts, order))).collect()
    }

    fn write(&self, directory: &Path, sorted: &[[(Order, Vec<Fact>); 3]]) -> Result<()> {
        let serves = [Space::Subject, Space::Object].map(|space| Served { space, range: Range::ALL });
        let store = self.open(directory, &serves)?;
        for facts in sorted {
            let mut batch = store.batch();
            for (order, facts) in facts {
                facts.iter().for_each(|fact| batch.put_live(*order, fact, Some(LogIndex(1)), Heat::Cold));
            }
            batch.commit()?;
        }
        Ok(store.persist()?)
    }

    fn open(&self, directory: &Path, serves: &[Served]) -> Result<Store> {
        let options = StoreOptions { cache_bytes: self.cache_bytes, ..StoreOptions::default() };
        Ok(Store::open(directory, &cluster()?, serves, &options)?)
    }
}

fn cluster() -> Result<Name> {
    Ok("bench".parse()?)
}

/// Entries from an index on; none at the end of the log.
async fn read(log: &LogStore, from: LogIndex) -> Result<Option<Entries>> {
    let last = log.state().last.context("the log was filled")?.index;
    if from.0 > last {
        return Ok(None);
    }
    let found = log.read(from.0, last, READ_BYTES).await?;
    let first = LogIndex(found.first().context("an entry")?.0);
    let entries = found.into_iter().map(|(_, content)| match content {
        EntryContent::Skip => Entry::Skip,
        EntryContent::Data { origin, body } => Entry::Data { origin, body },
    });
    Ok(Some(Entries { epoch: EPOCH, committed: LogIndex(last), first, entries: entries.collect() }))
}

async fn timed(work: impl Future<Output = Result<()>>) -> Result<Took> {
    let (began, cpu) = (now(), cpu_seconds()?);
    work.await?;
    Ok(Took { seconds: began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds()? - cpu })
}

/// What this process has used of all cores.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, in brackets, may hold spaces.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/self/stat has a name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

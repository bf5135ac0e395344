//! The index of a view on the engine that it has, and on redb, with the same keys, in one run.
//!
//! Each engine is filled with generated facts by a process of its own, in batches, as a view applies them: it
//! looks whether each fact is live in both spaces, then writes it in three orders. Meanwhile somebody looks up
//! 250 pairs of subject and predicate at once, twenty times a second. Then a process that goes on writing is
//! killed with SIGKILL, and another opens what it has left. At last one fact is changed again and again. Engines
//! differ in what a kill costs them: fjall keeps every batch, redb goes back to its last sync, which is made once a
//! second.

mod engines;

use crate::facts::{PER_SUBJECT, fact, mix, predicate};
use crate::figures::Figures;
use anyhow::{Context, Result, ensure};
use beam_node::view::keys::{Key, Order};
use beam_wire::{Fact, LogIndex};
use engines::{Change, Engine, ORDERS};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Facts that are written as one.
const BATCH: u64 = 8192;
/// Keys of one look-up.
const KEYS: u64 = 250;
/// Between two look-ups while facts are written.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two syncs.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Changes of one fact.
const HOT: u64 = 100_000;

#[derive(clap::Args)]
pub struct Args {
    /// How many facts
    #[arg(long, default_value_t = 5_000_000)]
    facts: u64,
    /// An engine that takes longer than this to be filled is stopped, and measured with what it has
    #[arg(long, default_value_t = 1800)]
    seconds: u64,
    /// What an engine may cache
    #[arg(long, default_value_t = 512)]
    cache_mib: u64,
    /// Where the files lie: the disk that is meant
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// What a process that this benchmark starts does
    #[arg(long, hide = true, value_enum, requires = "engine")]
    part: Option<Part>,
    /// With which engine
    #[arg(long, hide = true, value_enum)]
    engine: Option<Name>,
}

/// An engine.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Name {
    Fjall,
    Redb,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// Fills it
    Load,
    /// Goes on until it is killed
    Churn,
    /// Opens it, and answers
    Start,
    /// Changes one fact
    Hot,
}

/// What is known of an engine in the end.
#[derive(Default, Serialize, Deserialize)]
struct Measured {
    load: Loaded,
    start_ms: f64,
    hot: Hot,
}

#[derive(Default, Serialize, Deserialize)]
struct Loaded {
    facts: u64,
    seconds: f64,
    busy_p50_ms: f64,
    busy_p99_ms: f64,
    quiet_p50_ms: f64,
    quiet_p99_ms: f64,
    lookups_per_second: f64,
    disk_bytes: u64,
    written_bytes: u64,
    key_bytes: u64,
    peak_bytes: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Hot {
    seconds: f64,
    hot_us: f64,
    cold_us: f64,
}

pub fn run(args: Args) -> Result<Figures> {
    let mut figures = Figures::new("views");
    if let (Some(part), Some(engine)) = (args.part, args.engine) {
        play(part, engine, &args)?;
        return Ok(figures);
    }
    let ours = measure(Name::Fjall, &args)?;
    let other = measure(Name::Redb, &args)?;
    let mut add = |name: &str, unit, of: &dyn Fn(&Measured) -> f64| {
        figures.add_compared(name, of(&ours), unit, None, Some(("redb", of(&other))));
    };
    let per_fact = |bytes: u64, m: &Measured| bytes as f64 / m.load.facts as f64;
    add("facts", "facts", &|m| m.load.facts as f64);
    add("load, reading before each write", "facts/s", &|m| m.load.facts as f64 / m.load.seconds);
    add("on disk, three orders", "B/fact", &|m| per_fact(m.load.disk_bytes, m));
    add("keys and values, three orders", "B/fact", &|m| per_fact(m.load.key_bytes, m));
    add("written to the disk, of keys and values", "times", &|m| m.load.written_bytes as f64 / m.load.key_bytes as f64);
    add("peak memory while loading", "MiB", &|m| m.load.peak_bytes as f64 / f64::from(1 << 20));
    add("250 keys while loading: p50", "ms", &|m| m.load.busy_p50_ms);
    add("250 keys while loading: p99", "ms", &|m| m.load.busy_p99_ms);
    add("250 keys: p50", "ms", &|m| m.load.quiet_p50_ms);
    add("250 keys: p99", "ms", &|m| m.load.quiet_p99_ms);
    add("250 keys, one after the other", "keys/s", &|m| m.load.lookups_per_second * KEYS as f64);
    add("start after kill -9, until it answers", "ms", &|m| m.start_ms);
    add("changes of one fact", "changes/s", &|m| HOT as f64 / m.hot.seconds);
    add("look-up of a fact that never changed", "us", &|m| m.hot.cold_us);
    add("look-up of one that changed 100,000 times", "us", &|m| m.hot.hot_us);
    Ok(figures)
}

fn measure(engine: Name, args: &Args) -> Result<Measured> {
    let home = tempfile::tempdir_in(&args.directory)?;
    let (mut child, line, _) = start(Part::Load, engine, args, home.path())?;
    ensure!(child.wait()?.success(), "filling it has failed");
    let load = serde_json::from_str(&line).context("what the loading process says")?;
    let mut starts = Vec::new();
    for time in 0..5 {
        let (mut child, _, _) = start(Part::Churn, engine, args, home.path())?;
        #[allow(clippy::disallowed_methods, reason = "a benchmark lives in real time")]
        std::thread::sleep(Duration::from_millis(700 + 230 * time));
        ensure!(child.try_wait()?.is_none(), "the process that writes has ended by itself");
        child.kill()?;
        child.wait()?;
        let (mut child, _, took) = start(Part::Start, engine, args, home.path())?;
        ensure!(child.wait()?.success(), "it does not start");
        starts.push(took.as_secs_f64() * 1e3);
    }
    starts.sort_by(f64::total_cmp);
    let (mut child, line, _) = start(Part::Hot, engine, args, home.path())?;
    ensure!(child.wait()?.success(), "changing one fact has failed");
    let hot = serde_json::from_str(&line).context("what the process says that changes one fact")?;
    Ok(Measured { load, start_ms: starts[starts.len() / 2], hot })
}

/// Starts a part, and returns the line that it says, and after how long.
fn start(part: Part, engine: Name, args: &Args, directory: &Path) -> Result<(Child, String, Duration)> {
    let value = |v: &dyn Fn() -> Option<clap::builder::PossibleValue>| v().map(|v| v.get_name().to_owned());
    use clap::ValueEnum;
    let part = value(&|| part.to_possible_value()).context("every part has a name")?;
    let engine = value(&|| engine.to_possible_value()).context("every engine has a name")?;
    let began = now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["views", "--part", &part, "--engine", &engine])
        .args(["--facts", &args.facts.to_string(), "--seconds", &args.seconds.to_string()])
        .args(["--cache-mib", &args.cache_mib.to_string(), "--directory"])
        .arg(directory)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().context("its output is piped")?).read_line(&mut line)?;
    Ok((child, line, began.elapsed()))
}

/// What one of the started processes does.
fn play(part: Part, engine: Name, args: &Args) -> Result<()> {
    let index = engines::open(engine, &args.directory.join("view"), args.cache_mib << 20)?;
    match part {
        Part::Load => say(&load(&*index, args)?),
        Part::Churn => {
            say(&())?;
            for first in (args.facts..).step_by(BATCH as usize) {
                Made::new(first, first + BATCH).write(&*index)?;
            }
            Ok(())
        }
        Part::Start => {
            let some = pairs(1, args.facts.min(1000));
            ensure!(index.count(Order::Spog, &some)? > 0, "it has lost what was persisted");
            say(&())
        }
        Part::Hot => say(&hot(&*index)?),
    }
}

fn say(what: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(std::io::stdout().flush()?)
}

fn load(index: &dyn Engine, args: &Args) -> Result<Loaded> {
    let (began, limit) = (now(), Duration::from_secs(args.seconds));
    let (done, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let (busy, (key_bytes, took)) = std::thread::scope(|scope| {
        let asks = scope.spawn(|| look_up_meanwhile(index, &done, &ended));
        let filled = fill(index, args.facts, began + limit, &done);
        ended.store(true, Ordering::Relaxed);
        let busy = asks.join().expect("it does not panic")?;
        anyhow::Ok((busy, filled?))
    })?;
    let (seconds, facts) = (took.as_secs_f64(), done.load(Ordering::Relaxed));
    settle()?;
    let (mut quiet, asked) = (histogram()?, now());
    for round in 0..500 {
        look_up(index, round, facts, &mut quiet)?;
    }
    let lookups_per_second = 500.0 / asked.elapsed().as_secs_f64();
    let ms = |histogram: &Histogram<u64>, q| histogram.value_at_quantile(q) as f64 / 1e3;
    Ok(Loaded {
        facts,
        seconds,
        busy_p50_ms: ms(&busy, 0.5),
        busy_p99_ms: ms(&busy, 0.99),
        quiet_p50_ms: ms(&quiet, 0.5),
        quiet_p99_ms: ms(&quiet, 0.99),
        lookups_per_second,
        disk_bytes: disk_bytes(&args.directory)?,
        written_bytes: of_this_process("io", "write_bytes:")?,
        key_bytes,
        peak_bytes: of_this_process("status", "VmHWM:")? << 10,
    })
}

/// Writes facts until there are enough or it is late. Returns the bytes of their keys and values, and how long
/// the engine took, without the making of facts.
fn fill(index: &dyn Engine, facts: u64, until: Instant, done: &AtomicU64) -> Result<(u64, Duration)> {
    let (mut key_bytes, mut took, mut synced) = (0, Duration::ZERO, now());
    let mut first = 0;
    while first < facts && now() < until {
        let last = (first + BATCH).min(facts);
        let made = Made::new(first, last);
        let began = now();
        made.write(index)?;
        if synced.elapsed() > SYNC_EVERY {
            index.persist()?;
            synced = now();
        }
        took += began.elapsed();
        key_bytes += made.key_bytes();
        done.store(last, Ordering::Relaxed);
        first = last;
    }
    let began = now();
    index.persist()?;
    Ok((key_bytes, took + began.elapsed()))
}

/// A batch, sorted by each order.
struct Made {
    sorted: Vec<(Order, Vec<Fact>)>,
    at: LogIndex,
}

impl Made {
    fn new(first: u64, last: u64) -> Made {
        let facts: Vec<Fact> = (first..last).map(fact).collect();
        let sort = |order| {
            let mut facts = facts.clone();
            facts.sort_by_cached_key(|fact| Key::live(order, fact));
            (order, facts)
        };
        Made { sorted: ORDERS.map(sort).to_vec(), at: LogIndex(1 + first / 8) }
    }

    /// Writes it as a view does.
    fn write(&self, index: &dyn Engine) -> Result<()> {
        let mut changes = Vec::new();
        for (order, facts) in &self.sorted {
            // Once in each space.
            if *order != Order::Posg {
                std::hint::black_box(index.live(*order, facts)?);
            }
            changes.extend(facts.iter().map(|f| Change { order: *order, fact: *f, live: Some(self.at), past: None }));
        }
        index.write(&changes)
    }

    fn key_bytes(&self) -> u64 {
        let value_bytes = beam_node::view::keys::write_index(self.at).1;
        let of = |order: &Order, fact: &Fact| Key::live(*order, fact).as_ref().len() + value_bytes;
        self.sorted.iter().flat_map(|(order, facts)| facts.iter().map(move |fact| of(order, fact) as u64)).sum()
    }
}

/// Pairs of a subject and a predicate, in the order of their bytes.
fn pairs(round: u64, facts: u64) -> Vec<Key> {
    let mut pairs: Vec<Key> = (0..KEYS)
        .map(|key| {
            let number = mix(round * KEYS + key) % facts;
            Key::prefix(&[fact(number).subject, predicate(number % PER_SUBJECT)])
        })
        .collect();
    pairs.sort_unstable();
    pairs
}

fn look_up(index: &dyn Engine, round: u64, facts: u64, histogram: &mut Histogram<u64>) -> Result<()> {
    let pairs = pairs(round, facts);
    let began = now();
    let found = index.count(Order::Spog, &pairs)?;
    histogram.record(began.elapsed().as_micros() as u64)?;
    ensure!(found >= pairs.len() as u64, "{found} facts were found for {} pairs", pairs.len());
    Ok(())
}

fn look_up_meanwhile(index: &dyn Engine, done: &AtomicU64, ended: &AtomicBool) -> Result<Histogram<u64>> {
    let mut histogram = histogram()?;
    for round in 0.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        #[allow(clippy::disallowed_methods, reason = "a benchmark lives in real time")]
        std::thread::sleep(PAUSE);
        match done.load(Ordering::Relaxed) {
            0 => {}
            facts => look_up(index, round, facts, &mut histogram)?,
        }
    }
    Ok(histogram)
}

/// Inserts and deletes one fact by turns, then compares looking it up with looking up others.
fn hot(index: &dyn Engine) -> Result<Hot> {
    let (hot, began) = (fact(0), now());
    for number in 0..HOT {
        let at = LogIndex(1 << 40 | number);
        let deletes = number.is_multiple_of(2);
        let past = deletes.then(|| (at, LogIndex(at.0.saturating_sub(1))));
        index.change(&hot, (!deletes).then_some(at), past)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let median = |prefix: &dyn Fn(u64) -> Key| -> Result<f64> {
        let mut took = Vec::new();
        for round in 0..1001 {
            let prefix = [prefix(round)];
            let began = now();
            ensure!(index.count(Order::Spog, &prefix)? > 0, "a fact is missing");
            took.push(began.elapsed().as_secs_f64() * 1e6);
        }
        took.sort_by(f64::total_cmp);
        Ok(took[took.len() / 2])
    };
    let prefix = |fact: &Fact| Key::prefix(&[fact.subject, fact.predicate]);
    let hot_us = median(&|_| prefix(&hot))?;
    let cold_us = median(&|round| prefix(&fact(PER_SUBJECT * (1 + round % 100))))?;
    Ok(Hot { seconds, hot_us, cold_us })
}

/// Waits until this process writes nothing any more: what it has put off is part of what it costs.
fn settle() -> Result<()> {
    loop {
        let before = of_this_process("io", "write_bytes:")?;
        #[allow(clippy::disallowed_methods, reason = "a benchmark lives in real time")]
        std::thread::sleep(Duration::from_secs(3));
        if of_this_process("io", "write_bytes:")? - before < 1 << 20 {
            return Ok(());
        }
    }
}

/// A number that the kernel keeps of this process.
fn of_this_process(file: &str, name: &str) -> Result<u64> {
    let path = format!("/proc/self/{file}");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path} has {name}"))?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

fn disk_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

//! Appends to three log nodes, each a process of its own on this machine: entries a second and how long one
//! takes, by the size of entries and how many are on their way. The floor of the same run is one
//! preallocated file, written and synced in batches of that many. The peer, where there is one: etcd.
//!
//! Both systems run with fsync on, over loopback, and are spoken to at the node that leads, from this one
//! process. An append is acknowledged when a majority has it on disk; a put of etcd, when the leader has
//! applied it, too.

use crate::etcd::{Connection, Etcd};
use crate::figures::Figures;
use crate::processes::{Processes, body};
use anyhow::{Result, ensure};
use beam_wire::env::Env;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use std::future::Future;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// Bytes in an entry
    #[arg(long, value_delimiter = ',', default_values_t = [256, 16 << 10])]
    sizes: Vec<usize>,
    /// Entries on their way at a time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256, 4096])]
    in_flight: Vec<usize>,
    /// How long each is measured
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    seconds: f64,
    /// The peer's binary
    #[arg(long, default_value = "/usr/bin/etcd", value_name = "PATH")]
    etcd: PathBuf,
    /// Only the log, without the peer
    #[arg(long)]
    alone: bool,
}

/// Streams or connections, each of which has its part on its way.
const STREAMS_MAX: usize = 16;
/// Before what is measured.
const WARM: Duration = Duration::from_secs(1);
/// How long one append may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Puts go to so many keys.
const KEYS: u64 = 100_000;

pub fn run(args: Args) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Figures::new("append");
    let peer = !args.alone && args.etcd.exists();
    if !args.alone && !peer {
        eprintln!("beam-bench: no etcd at {}: the log is measured alone", args.etcd.display());
    }
    for size in &args.sizes {
        for in_flight in &args.in_flight {
            let cell = Cell { size: *size, in_flight: *in_flight, measured: Duration::from_secs_f64(args.seconds) };
            let ours = runtime.block_on(cell.ours())?;
            let floor = cell.floor()?;
            let theirs = if peer { Some(runtime.block_on(cell.theirs(&args.etcd))?) } else { None };
            cell.tell(&mut figures, &ours, floor, theirs.as_ref());
        }
    }
    Ok(figures)
}

/// One combination.
struct Cell {
    size: usize,
    in_flight: usize,
    measured: Duration,
}

struct Measured {
    per_second: f64,
    latency_us: Histogram<u64>,
}

impl Cell {
    async fn ours(&self) -> Result<Measured> {
        let processes = Processes::start().await?;
        let env = processes.env.clone();
        let body = body(&env, self.size);
        let log = processes.log(0)?;
        let appenders: Vec<_> = (0..self.streams()).map(|_| log.appender()).collect();
        let append = |stream: usize| {
            let (appender, body, env) = (appenders[stream].clone(), body.clone(), env.clone());
            move || {
                let (appender, body, deadline) = (appender.clone(), body.clone(), env.now() + PATIENCE);
                async move { Ok(appender.append(body, deadline).await.map(drop)?) }
            }
        };
        self.measure(&env, append).await
    }

    async fn theirs(&self, binary: &Path) -> Result<Measured> {
        let env = Env::real(std::sync::Arc::new(beam_wire::env::dns::Resolver::new(&[])?));
        let etcd = Etcd::start(&env, binary).await?;
        let leader = etcd.leader().await?;
        let body = body(&env, self.size);
        let mut connections = Vec::new();
        for _ in 0..self.streams() {
            connections.push(Connection::open(&env, leader).await?);
        }
        let put = |stream: usize| {
            let (connection, body, env) = (connections[stream].0.clone(), body.clone(), env.clone());
            move || {
                let (connection, body, key) = (connection.clone(), body.clone(), env.random_u64() % KEYS);
                async move { connection.put(key, &body).await }
            }
        };
        self.measure(&env, put).await
    }

    /// Entries a second of one file that is written and synced in batches.
    fn floor(&self) -> Result<f64> {
        let mut file = tempfile::tempfile()?;
        let batch = vec![7; self.size * self.in_flight];
        // Not longer than a cache of the disk might flatter.
        let file_bytes = batch.len().max(64 << 20);
        file.write_all(&vec![0; file_bytes])?;
        file.sync_all()?;
        let (began, mut entries, mut at) = (now(), 0, 0);
        while began.elapsed() < self.measured {
            if at + batch.len() > file_bytes {
                at = 0;
            }
            file.seek(SeekFrom::Start(at as u64))?;
            file.write_all(&batch)?;
            file.sync_data()?;
            at += batch.len();
            entries += self.in_flight;
        }
        Ok(entries as f64 / began.elapsed().as_secs_f64())
    }

    fn streams(&self) -> usize {
        self.in_flight.clamp(1, STREAMS_MAX)
    }

    /// Keeps so many on their way, each stream its part.
    async fn measure<A, F>(&self, env: &Env, sender: impl Fn(usize) -> A) -> Result<Measured>
    where
        A: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        let begin = now() + WARM;
        let end = begin + self.measured;
        let streams = self.streams();
        let tasks: Vec<_> = (0..streams)
            .map(|stream| {
                let (send, in_flight) = (sender(stream), self.in_flight / streams);
                env.tasks().spawn_raw(async move { keep_sending(send, in_flight, begin, end).await })
            })
            .collect();
        let mut latency_us = histogram();
        for task in tasks {
            latency_us.add(task.await??)?;
        }
        ensure!(!latency_us.is_empty(), "nothing was acknowledged");
        Ok(Measured { per_second: latency_us.len() as f64 / self.measured.as_secs_f64(), latency_us })
    }
}

async fn keep_sending<F: Future<Output = Result<()>>>(
    send: impl Fn() -> F,
    in_flight: usize,
    begin: std::time::Instant,
    end: std::time::Instant,
) -> Result<Histogram<u64>> {
    let timed = || {
        let (began, sending) = (now(), send());
        async move { sending.await.map(|()| began) }
    };
    let mut latency_us = histogram();
    let mut flying: FuturesUnordered<_> = (0..in_flight).map(|_| timed()).collect();
    while let Some(began) = flying.next().await {
        let (began, done) = (began?, now());
        if (begin..end).contains(&done) {
            latency_us.record((done - began).as_micros() as u64)?;
        }
        if done < end {
            flying.push(timed());
        }
    }
    Ok(latency_us)
}

/// Microseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("these are bounds")
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

impl Cell {
    fn tell(&self, figures: &mut Figures, ours: &Measured, floor: f64, theirs: Option<&Measured>) {
        let name = |what: &str| format!("{} B, {} in flight: {what}", self.size, self.in_flight);
        let peer = |value: f64| ("etcd", value);
        figures.add_compared(
            name("appended"),
            ours.per_second,
            "entries/s",
            Some(("one file, synced per batch", floor)),
            theirs.map(|t| peer(t.per_second)),
        );
        for (what, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let ms = |m: &Measured| m.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
            figures.add_compared(name(what), ms(ours), "ms", None, theirs.map(|t| peer(ms(t))));
        }
    }
}

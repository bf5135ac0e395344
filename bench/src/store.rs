//! How fast one log node's store makes entries durable, in groups, one group after the other. The floor of
//! the same run: one raw file of the same length that was written whole before, each group written and
//! then synced with fdatasync. Beside it, the same of a file that grows, as a log does: the file system then has to
//! find room for each group, and to make that durable, too.

use crate::entries::{Appended, noise};
use crate::figures::Figures;
use anyhow::Result;
use beam_node::log::types::LogTypes;
use openraft::type_config::TypeConfigExt;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BODY_BYTES: [usize; 2] = [256, 16 << 10];
const GROUPS: [usize; 3] = [1, 16, 256];

#[derive(clap::Args)]
pub struct Args {
    /// Where the files lie while it is measured: the disk that is meant
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// How long the store and its floor are measured, each, in each case
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Only bodies of so many bytes
    #[arg(long)]
    bytes: Option<usize>,
    /// Only groups of so many entries
    #[arg(long)]
    group: Option<usize>,
}

pub fn run(args: Args) -> Result<Figures> {
    let mut figures = Figures::new("store");
    let limit = Duration::from_secs_f64(args.seconds);
    for bytes in args.bytes.map_or(BODY_BYTES.to_vec(), |b| vec![b]) {
        for group in args.group.map_or(GROUPS.to_vec(), |g| vec![g]) {
            let home = tempfile::tempdir_in(&args.directory)?;
            // In turns, so that whatever else the machine does meets both.
            let (mut ours, mut bare, mut growing) = (Rate::default(), Rate::default(), Rate::default());
            let mut floor = Bare::create(&home.path().join("bare"), bytes * group)?;
            let mut grows = Bare::create(&home.path().join("grows"), bytes * group)?;
            const TURNS: u32 = 4;
            for turn in 0..TURNS {
                let log = home.path().join(format!("log-{turn}"));
                ours.add(LogTypes::run(measure(&log, bytes, group, limit / TURNS))?);
                bare.add(floor.measure(limit / TURNS, |_| Ok(()))?);
                growing.add(grows.measure(limit / TURNS, |file| file.set_len(0))?);
            }
            let name = format!("{group} entries of {bytes} B together");
            let per_entry = |rate: &Rate| rate.commits_per_second() * group as f64;
            figures.add_compared(
                format!("{name}: commits"),
                ours.commits_per_second(),
                "commits/s",
                Some(("a raw file and fdatasync", bare.commits_per_second())),
                Some(("one that grows", growing.commits_per_second())),
            );
            figures.add(format!("{name}: entries"), per_entry(&ours), "entries/s");
            figures.add(format!("{name}: bodies"), per_entry(&ours) * bytes as f64 / 1e6, "MB/s");
        }
    }
    Ok(figures)
}

#[derive(Default)]
struct Rate {
    commits: u64,
    took: Duration,
}

impl Rate {
    fn add(&mut self, other: Rate) {
        self.commits += other.commits;
        self.took += other.took;
    }

    fn commits_per_second(&self) -> f64 {
        self.commits as f64 / self.took.as_secs_f64()
    }
}

async fn measure(directory: &Path, bytes: usize, group: usize, limit: Duration) -> Result<Rate> {
    let mut log = Appended::open(directory, bytes).await?;
    log.append(group).await?;
    let (began, mut commits) = (now(), 0);
    while began.elapsed() < limit {
        log.append(group).await?;
        commits += 1;
    }
    let took = began.elapsed();
    log.store.close().await?;
    Ok(Rate { commits, took })
}

/// A file whose blocks all exist: nothing but its data is written. It is written again from the start
/// when its end is reached.
struct Bare {
    file: File,
    batch: Vec<u8>,
    at: u64,
}

/// As long as a segment.
const BARE_BYTES: u64 = 64 << 20;

impl Bare {
    fn create(path: &Path, batch_bytes: usize) -> Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let chunk = noise(1 << 20);
        for _ in 0..BARE_BYTES / chunk.len() as u64 {
            file.write_all(&chunk)?;
        }
        file.sync_all()?;
        Ok(Self { file, batch: noise(batch_bytes), at: BARE_BYTES })
    }

    /// At the end of the file, `begin_again` says what becomes of it.
    fn measure(&mut self, limit: Duration, begin_again: impl Fn(&File) -> io::Result<()>) -> Result<Rate> {
        let (began, mut commits) = (now(), 0);
        while began.elapsed() < limit {
            if self.at + self.batch.len() as u64 > BARE_BYTES {
                self.file.rewind()?;
                begin_again(&self.file)?;
                self.at = 0;
            }
            self.file.write_all(&self.batch)?;
            self.file.sync_data()?;
            self.at += self.batch.len() as u64;
            commits += 1;
        }
        Ok(Rate { commits, took: began.elapsed() })
    }
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

//! How long a log node's store takes to come back after kill -9, for logs of different lengths.
//!
//! A process appends entries of 16 KiB and is killed while it does so. Another one is then started: from
//! there until it has opened the store, read the first and the last entry, and made a new one durable, is
//! what is measured. The floor of the same run: a process that reads the file of the last segment, and
//! no more. Each is measured with the files in the page cache, and without.

use crate::entries::Appended;
use crate::figures::Figures;
use anyhow::{Context, Result, ensure};
use beam_node::log::types::LogTypes;
use openraft::type_config::TypeConfigExt;
use rustix::fs::{Advice, fadvise};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BODY_BYTES: usize = 16 << 10;
/// What a leader has in flight when many write.
const GROUP: usize = 64;

#[derive(clap::Args)]
pub struct Args {
    /// How long the logs are, in GiB
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 10.0])]
    gib: Vec<f64>,
    /// Where the logs lie: the disk that is meant
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// How often each is killed, and started
    #[arg(long, default_value_t = 5)]
    times: usize,
    /// What a process that this benchmark starts does
    #[arg(long, hide = true, value_enum)]
    part: Option<Part>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// Appends until it is killed
    Append,
    /// Opens the log, reads and appends
    Start,
    /// Reads the last segment
    Floor,
}

/// What a part says when it has done what is measured.
const DONE: &str = "done";

pub fn run(args: Args) -> Result<Figures> {
    let mut figures = Figures::new("restart");
    if let Some(part) = args.part {
        play(part, &args.directory)?;
        return Ok(figures);
    }
    for gib in &args.gib {
        let home = tempfile::tempdir_in(&args.directory)?;
        let log = home.path().join("log");
        LogTypes::run(fill(&log, (gib * (1u64 << 30) as f64) as u64))?;
        let segments = segments(&log)?.len();
        for (cache, cached) in [("cached", true), ("not cached", false)] {
            let (mut ours, mut floor) = (Vec::new(), Vec::new());
            for time in 0..args.times {
                kill_while_appending(&log, Duration::from_millis(300 + 170 * time as u64))?;
                floor.push(until_done(&log, Part::Floor, cached)?);
                ours.push(until_done(&log, Part::Start, cached)?);
            }
            figures.add_beside(
                format!("{gib} GiB ({segments} segments), {cache}: median"),
                median(&mut ours),
                "ms",
                ("reading the last segment", median(&mut floor)),
            );
            figures.add(format!("{gib} GiB ({segments} segments), {cache}: longest"), ours[ours.len() - 1], "ms");
        }
    }
    Ok(figures)
}

async fn fill(log: &Path, bytes: u64) -> Result<()> {
    let mut appended = Appended::open(log, BODY_BYTES).await?;
    while appended.store.state().bytes < bytes {
        appended.append(256).await?;
    }
    Ok(appended.store.close().await?)
}

fn kill_while_appending(log: &Path, after: Duration) -> Result<()> {
    let (mut child, _) = start(log, Part::Append)?;
    #[allow(clippy::disallowed_methods, reason = "a benchmark lives in real time")]
    std::thread::sleep(after);
    ensure!(child.try_wait()?.is_none(), "the process that appends has ended by itself");
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// How many milliseconds after its start a part says that it is done.
fn until_done(log: &Path, part: Part, cached: bool) -> Result<f64> {
    if !cached {
        for file in std::fs::read_dir(log)? {
            let file = std::fs::File::open(file?.path())?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    let (mut child, took) = start(log, part)?;
    ensure!(child.wait()?.success(), "a part has failed");
    Ok(took.as_secs_f64() * 1e3)
}

/// Starts a part, and returns how long it took to be done.
fn start(log: &Path, part: Part) -> Result<(Child, Duration)> {
    let name = match part {
        Part::Append => "append",
        Part::Start => "start",
        Part::Floor => "floor",
    };
    let began = now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["restart", "--part", name, "--directory"])
        .arg(log)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().context("its output is piped")?).read_line(&mut line)?;
    let took = began.elapsed();
    ensure!(line.trim() == DONE, "{name} says {line:?}");
    Ok((child, took))
}

/// What one of the started processes does.
fn play(part: Part, log: &Path) -> Result<()> {
    match part {
        Part::Append => LogTypes::run(async {
            let mut appended = Appended::open(log, BODY_BYTES).await?;
            appended.append(1).await?;
            say_done()?;
            loop {
                appended.append(GROUP).await?;
            }
        }),
        Part::Start => LogTypes::run(async {
            let mut appended = Appended::open(log, BODY_BYTES).await?;
            let last = appended.store.state().last.context("the log is empty")?.index;
            for index in [0, last] {
                ensure!(appended.store.read(index, index, 0).await?.len() == 1, "entry {index} is missing");
            }
            appended.append(1).await?;
            say_done()
        }),
        Part::Floor => {
            let last = segments(log)?.pop().context("there is no segment")?;
            std::hint::black_box(std::fs::read(last)?);
            say_done()
        }
    }
}

fn say_done() -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{DONE}")?;
    Ok(out.flush()?)
}

/// The files of all segments, in order.
fn segments(log: &Path) -> Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(log)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let named = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("segment-"));
    let mut segments: Vec<_> = paths.into_iter().filter(named).collect();
    segments.sort();
    Ok(segments)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

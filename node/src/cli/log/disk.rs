//! `beam log verify` and `beam log rebuild`: the log of one machine, while its node does not run.

use super::super::{Exit, UNHEALTHY};
use crate::log::disk::Directory;
use crate::log::rebuild;
use crate::log::verify::{self, Progress};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Args)]
pub struct Verify {
    /// The directory that the node was given as --data
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[derive(clap::Args)]
pub struct Rebuild {
    /// The directory that the node was given as --data
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Delete the damaged files instead of setting them aside: the others' log must fit on the disk beside them
    #[arg(long)]
    delete: bool,
}

pub fn verify(args: Verify) -> Result<()> {
    let disk = Arc::new(open(&args.data)?);
    let style = "{bar:40} {pos} of {len} segments, {eta} left";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style).context("the bar's template")?);
    let found = verify::verify(disk, |Progress { segments, of }| {
        bar.set_length(of as u64);
        bar.set_position(segments as u64);
    });
    bar.finish_and_clear();
    let found = found?;
    for damage in &found.damages {
        println!("{damage}");
    }
    println!("{} entries in {} segments are as they were written", found.entries, found.segments);
    match found.damages.len() {
        0 => Ok(()),
        n => bail!(Exit {
            code: UNHEALTHY,
            why: format!("{n} damages: rebuild this log from the other log nodes (beam log rebuild)")
        }),
    }
}

pub fn rebuild(args: Rebuild) -> Result<()> {
    let rebuilt = rebuild::rebuild(&open(&args.data)?, args.delete)?;
    let log = args.data.join("log");
    match rebuilt.set_aside.len() {
        0 => {}
        n => println!(
            "{n} files ({} MiB) are set aside as {}; delete them when nobody wants to look at them any more",
            rebuilt.bytes >> 20,
            log.join("aside-rebuilt-*").display()
        ),
    }
    match rebuilt.old.raft_id {
        Some(id) => println!("the log is empty; the node was the member {id:x}, and will be another one"),
        None => println!("the log is empty; who the node was cannot be read any more, and it will be another member"),
    }
    println!("start the node: it asks to be a member in place of who it was, and is sent the whole log");
    Ok(())
}

/// Takes the log's directory, which must be there.
fn open(data: &Path) -> Result<Directory> {
    let log = data.join("log");
    if !log.is_dir() {
        bail!("{} is not the directory of a log node: there is no {}", data.display(), log.display());
    }
    Ok(Directory::open(log)?)
}

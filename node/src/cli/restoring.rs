//! What the commands for backups have in common: their arguments, and how a node's directory is made whole or not at all.

use super::connect::Connection;
use anyhow::{Context, Result, ensure};
use beam_wire::Name;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct BackupArgs {
    /// Where the backup is, or shall be
    pub directory: PathBuf,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(clap::Args)]
pub struct VerifyArgs {
    /// Where the backup is
    pub directory: PathBuf,
}

#[derive(clap::Args)]
pub struct RestoreArgs {
    /// Where the backup is
    pub directory: PathBuf,
    /// The last entry to restore; all of them if none is named
    #[arg(long, value_name = "INDEX")]
    pub to: Option<u64>,
    /// The topology of the cluster to be
    #[arg(long, env = "BEAM_TOPOLOGY", default_value = "topology.toml", value_name = "FILE")]
    pub topology: PathBuf,
    /// The node whose data is made
    #[arg(long, value_name = "NAME")]
    pub node: Name,
    /// Where that node keeps its data
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// A directory below a node's data that is being made. It has its name once it is whole.
pub struct Restoring {
    data: PathBuf,
    whole: PathBuf,
    /// Where it is made.
    pub unfinished: PathBuf,
}

impl Restoring {
    /// Refused if there is something already.
    pub fn begin(data: &Path, name: &str) -> Result<Restoring> {
        let (whole, unfinished) = (data.join(name), data.join(format!("{name}.restoring")));
        let occupied = fs::read_dir(&whole).is_ok_and(|mut entries| entries.next().is_some());
        ensure!(!occupied, "{} is not empty: name another data directory, or move it away", whole.display());
        fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
        // What an earlier attempt has left is nothing yet.
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
        }
        Ok(Restoring { data: data.to_owned(), whole, unfinished })
    }

    /// It is whole: durably gives it its name, and returns that.
    pub fn end(self) -> Result<PathBuf> {
        let Restoring { data, whole, unfinished } = self;
        if whole.exists() {
            fs::remove_dir(&whole).with_context(|| format!("cannot replace {}", whole.display()))?;
        }
        fs::rename(&unfinished, &whole).with_context(|| format!("cannot name {}", whole.display()))?;
        fs::File::open(data).and_then(|data| data.sync_all())?;
        Ok(whole)
    }
}

//! `beam log backup`, `beam log verify-backup` and `beam log restore`.

use crate::backup::manifest::Manifest;
use crate::backup::restore::{Restored, Target, restore};
use crate::backup::verify::verify;
use crate::backup::write::{Added, back_up};
use crate::cli::connect::topology_at;
use crate::cli::restoring::{BackupArgs, RestoreArgs, Restoring, VerifyArgs};
use crate::log::disk::Directory;
use crate::log::types::LogNode;
use crate::node::{begin_body, log_options};
use anyhow::{Context, Result, bail, ensure};
use beam_wire::env::Env;
use beam_wire::env::dns::Resolver;
use beam_wire::topology::{Node, Topology};
use beam_wire::{LogIndex, Role};
use indicatif::{HumanBytes, ProgressBar};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Adds to a backup what the log has by now.
pub async fn backup(args: BackupArgs) -> Result<()> {
    let cluster = topology_at(&args.connection.topology)?.cluster;
    let (log, env) = args.connection.open_log().await?;
    let progress = ProgressBar::new(0);
    let began = env.now();
    let tell = |added: &Added| {
        progress.set_length(added.committed.0);
        progress.set_position(added.last.unwrap_or_default().0);
    };
    let added = back_up(&env, &log, &cluster, &args.directory, None, args.connection.limit(), tell).await;
    progress.finish_and_clear();
    let added = added?;
    let seconds = (env.now() - began).as_secs_f64();
    let last = added.last.map_or("nothing".to_owned(), |last| format!("entry {last}"));
    println!(
        "{} holds the log up to {last}; added {} entries, {} in {} files of {} ({:.1} s, {}/s)",
        args.directory.display(),
        added.entries,
        HumanBytes(added.entry_bytes),
        added.chunks,
        HumanBytes(added.bytes),
        seconds,
        HumanBytes((added.entry_bytes as f64 / seconds.max(0.001)) as u64)
    );
    Ok(())
}

/// Reads all of a backup.
pub async fn verify_backup(args: VerifyArgs) -> Result<()> {
    let env = Env::real(Arc::new(Resolver::new(&[])?));
    let progress = ProgressBar::new(0);
    let found = verify(&env, &args.directory, |read, all| {
        progress.set_length(all);
        progress.set_position(read);
    })
    .await;
    progress.finish_and_clear();
    let found = found?;
    println!("{}", describe(&found.manifest));
    for damage in &found.damage {
        println!("damaged: {}, entries {} to {}: {}", damage.file, damage.first, damage.last, damage.why);
    }
    if let Some(first) = found.damage.first() {
        bail!(
            "{} of {} files are damaged: the log can be restored from this backup up to entry {} only",
            found.damage.len(),
            found.manifest.chunks.len(),
            first.first.0.saturating_sub(1)
        );
    }
    println!("all {} files are whole", found.manifest.chunks.len());
    Ok(())
}

fn describe(manifest: &Manifest) -> String {
    let bytes: u64 = manifest.chunks.iter().map(|chunk| chunk.bytes).sum();
    let last = manifest.last().map_or("none".to_owned(), |last| last.to_string());
    format!(
        "the log of {} from entry {} to {last}, in epoch {}: {} in {} files",
        manifest.cluster,
        manifest.first,
        manifest.epoch(),
        HumanBytes(bytes),
        manifest.chunks.len()
    )
}

/// Makes the log directory of one node.
pub async fn restore_backup(args: RestoreArgs) -> Result<()> {
    let topology = topology_at(&args.topology)?;
    let node = topology.node(&args.node).with_context(|| format!("the topology has no node {}", args.node))?;
    ensure!(node.has_role(Role::Log), "{} is no log node in {}", args.node, args.topology.display());
    let env = Env::real(Arc::new(Resolver::new(&[])?));
    let made = make_log(&env, &topology, node, &args.directory, &args.data, args.to.map(LogIndex)).await?;
    println!(
        "{} holds the log from entry {} to {}, in epoch {}. Start {} with it, all other log nodes and all views with \
         empty directories, and add the log nodes (beam log add NAME)",
        args.data.join("log").display(),
        made.first,
        made.kept,
        made.epoch,
        args.node
    );
    Ok(())
}

/// Makes the log directory of a node that has none.
pub async fn make_log(
    env: &Env,
    topology: &Topology,
    node: &Node,
    backup: &Path,
    data: &Path,
    to: Option<LogIndex>,
) -> Result<Restored> {
    let making = Restoring::begin(data, "log")?;
    let disk = Arc::new(Directory::open(&making.unfinished)?);
    let options = log_options(topology, node).store;
    let seed = LogNode { node: node.name.clone(), datacenter: node.datacenter.clone() };
    let target = Target { disk, options, node: seed, body: begin_body };
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(200));
    let tell = |at: LogIndex| progress.set_message(format!("entry {at}"));
    let made = restore(env, backup, to, target, tell).await;
    progress.finish_and_clear();
    let made = made?;
    making.end()?;
    Ok(made)
}

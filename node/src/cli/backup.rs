//! `beam backup`, `beam verify-backup` and `beam restore`: the database in a directory of files.

use super::connect::topology_at;
use super::log::backup::make_log;
use super::restoring::{BackupArgs, RestoreArgs, Restoring, VerifyArgs};
use super::runtime;
use crate::backup::base::{BaseManifest, Kind};
use crate::backup::database::{Source, Taken, back_up_database, base_in, check, log_in};
use crate::backup::fill::fill;
use crate::backup::verify::{verify, verify_base};
use crate::remote::view::RemoteViews;
use anyhow::{Context, Result, bail, ensure};
use beam_wire::env::Env;
use beam_wire::env::dns::Resolver;
use beam_wire::topology::{Node, Topology};
use beam_wire::{LogIndex, Name, Role};
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Makes a backup, or adds to it.
pub fn backup(args: BackupArgs) -> Result<()> {
    runtime()?.block_on(async {
        let topology = topology_at(&args.connection.topology)?;
        let (peers, directory, log, env) = args.connection.open_nodes().await?;
        let views = RemoteViews::start(&env, peers, directory, args.connection.near(&topology)?);
        // Whoever asks is no view: any name that no view has will do.
        let me = Name::new("backup")?;
        let source = Source { cluster: topology.cluster, me, log, views, idle: args.connection.limit() };
        let progress = spinner();
        let tell = |taken: &Taken| progress.set_message(so_far(taken));
        let began = env.now();
        let taken = back_up_database(&env, source, &args.directory, tell).await;
        progress.finish_and_clear();
        let taken = taken?;
        println!(
            "{} holds {}; added {} entries of the log, {} ({:.1} s)",
            args.directory.display(),
            so_far(&taken),
            HumanCount(taken.added.entries),
            HumanBytes(taken.added.bytes),
            (env.now() - began).as_secs_f64()
        );
        Ok(())
    })
}

fn spinner() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(200));
    progress
}

fn so_far(taken: &Taken) -> String {
    let last = taken.added.last.map_or("no entry".to_owned(), |last| format!("entry {last}"));
    format!("{}, and the log up to {last}", describe(&taken.base))
}

fn describe(base: &BaseManifest) -> String {
    let records = |of: Kind| HumanCount(base.pieces.iter().filter(|p| p.of == of).map(|p| p.records).sum());
    let bytes = HumanBytes(base.pieces.iter().map(|piece| piece.bytes).sum());
    let version = match (base.whole, &base.unfinished) {
        (Some(whole), _) => format!("version {}", whole.at),
        (None, Some(noted)) => format!("a part of version {}", noted.at),
        (None, None) => "nothing yet".to_owned(),
    };
    format!("{version}: {} versions of facts, {} texts, {bytes}", records(Kind::Facts), records(Kind::Terms))
}

/// Reads all of a backup.
pub fn verify_backup(args: VerifyArgs) -> Result<()> {
    let env = Env::real(Arc::new(Resolver::new(&[])?));
    runtime()?.block_on(async {
        let (base, whole, log) = check(&args.directory)?;
        let progress = ProgressBar::new(0);
        let tell = |read, all| {
            progress.set_length(all);
            progress.set_position(read);
        };
        let pieces = verify_base(&env, &base_in(&args.directory), &base, tell).await;
        let found = verify(&env, &log_in(&args.directory), tell).await;
        progress.finish_and_clear();
        let found = found?;
        println!("{}", describe(&base));
        println!("the log from entry {} to {}", log.first, log.last().unwrap_or_default());
        for (piece, why) in &pieces {
            println!("damaged: base/{}: {why}", piece.file);
        }
        for damage in &found.damage {
            println!("damaged: log/{}, entries {} to {}: {}", damage.file, damage.first, damage.last, damage.why);
        }
        if !pieces.is_empty() {
            bail!("{} of {} files of the base are damaged: use another backup", pieces.len(), base.pieces.len());
        }
        if let Some(first) = found.damage.first() {
            match LogIndex(first.first.0.saturating_sub(1)) {
                to if to >= whole.at.index => bail!("the database can be restored up to entry {to} only (--to)"),
                _ => bail!("the database cannot be restored: the log is damaged before version {}", whole.at),
            }
        }
        println!(
            "all {} files are whole: the database can be restored to any entry from {} to {}",
            base.pieces.len() + log.chunks.len(),
            whole.at.index,
            log.last().unwrap_or_default()
        );
        Ok(())
    })
}

/// Makes what a node begins with.
pub fn restore(args: RestoreArgs) -> Result<()> {
    let env = Env::real(Arc::new(Resolver::new(&[])?));
    let topology = topology_at(&args.topology)?;
    let node = topology.node(&args.node).with_context(|| format!("the topology has no node {}", args.node))?;
    let (log, view) = (node.has_role(Role::Log), node.has_role(Role::View));
    ensure!(log || view, "{} keeps no data: it is neither a log node nor a view", args.node);
    let to = args.to.map(LogIndex);
    runtime()?.block_on(async {
        let (_, whole, _) = check(&args.directory)?;
        let least = whole.at.index;
        ensure!(to.is_none_or(|to| to >= least), "the database can be restored to entry {least} and later ones only");
        if view {
            fill_view(&env, &topology, node, &args.directory, &args.data).await?;
        }
        if log {
            let made = make_log(&env, &topology, node, &log_in(&args.directory), &args.data, to).await?;
            println!(
                "{} holds the log up to entry {}, in epoch {}. Start {} with it, all other log nodes with empty directories, \
                 and add them (beam log add NAME)",
                args.data.join("log").display(),
                made.kept,
                made.epoch,
                args.node
            );
        }
        Ok(())
    })
}

async fn fill_view(env: &Env, topology: &Topology, node: &Node, backup: &Path, data: &Path) -> Result<()> {
    let making = Restoring::begin(data, "view")?;
    let progress = ProgressBar::new(0);
    let tell = |read, all| {
        progress.set_length(all);
        progress.set_position(read);
    };
    let mut serves = node.serves.clone();
    serves.sort_unstable();
    let filled = fill(env, backup, &topology.cluster, &serves, &making.unfinished, tell).await;
    progress.finish_and_clear();
    let filled = filled?;
    let view = making.end()?;
    println!(
        "{} holds version {} of what {} serves, {} facts by subject. Start it with the restored log: it reads on from there",
        view.display(),
        filled.at,
        node.name,
        HumanCount(filled.facts)
    );
    Ok(())
}

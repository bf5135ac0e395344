//! `beam log`: the log by itself, which knows nothing of facts.

pub mod backup;
mod change;
mod disk;
mod entries;
mod info;
mod members;
mod recover;
mod upgrade;

use super::agree::How;
use super::connect::Connection;
use super::restoring::{BackupArgs, RestoreArgs, VerifyArgs};
use super::{Output, runtime};
use anyhow::Result;
use beam_wire::Name;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// What each log node holds, and who leads
    Info {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        connection: Connection,
    },
    /// Who votes and who learns, how far each is, and whether it answers
    Members {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        connection: Connection,
    },
    /// Let a node learn: the first step of a new voter
    Add {
        /// The node. It runs, and its log is empty, or one of this cluster and epoch
        node: Name,
        #[command(flatten)]
        how: How,
    },
    /// Let learners vote, all at once
    Promote {
        /// The nodes
        #[arg(required = true)]
        nodes: Vec<Name>,
        #[command(flatten)]
        how: How,
    },
    /// Take members out, all at once
    Remove {
        /// The nodes
        #[arg(required = true)]
        nodes: Vec<Name>,
        /// Take out this Raft id of the one node alone, as `beam log members` shows it
        #[arg(long, value_name = "HEX", value_parser = change::raft_id)]
        raft_id: Option<u64>,
        #[command(flatten)]
        how: How,
    },
    /// Give a node that has lost its disk its place back
    Replace {
        /// The node. It runs, with an empty log
        node: Name,
        #[command(flatten)]
        how: How,
    },
    /// Hand leadership over
    Lead {
        /// The node
        node: Name,
        #[command(flatten)]
        how: How,
    },
    /// Keep the leader out of a datacenter, so that it can be switched off
    Drain {
        /// The datacenter
        #[arg(value_name = "DATACENTER")]
        drained: Name,
        #[command(flatten)]
        how: How,
    },
    /// Let the leader into a drained datacenter again
    Return {
        /// The datacenter
        #[arg(value_name = "DATACENTER")]
        returned: Name,
        #[command(flatten)]
        how: How,
    },
    /// Copy the log into a directory, or add to it what has come since
    Backup(BackupArgs),
    /// Read all of a backup, and name what is damaged
    VerifyBackup(VerifyArgs),
    /// Make the log of one node out of a backup, in a new epoch; offline
    Restore(RestoreArgs),
    /// Put a newer command format in force, once every node can read it
    Upgrade(upgrade::Args),
    /// Go on without a majority that is lost for good: shows a plan, then carries it out
    Recover(recover::Args),
    /// Read all that this machine's log holds, and name what is damaged. Its node must not run
    Verify(disk::Verify),
    /// Set this machine's damaged log aside, so that its node joins anew. Its node must not run
    Rebuild(disk::Rebuild),
    /// Print committed entries
    Read {
        /// The first index
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most this many entries
        #[arg(long)]
        count: Option<u64>,
        /// Wait for more at the end
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Append one entry as it is. Views reject what is not a command
    Append {
        /// The body; - reads it from stdin
        body: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Drop all entries below an index, on every log node
    Discard {
        /// The lowest index to keep
        before: u64,
        #[command(flatten)]
        connection: Connection,
    },
}

pub fn run(args: Args) -> Result<()> {
    use beam_wire::message::log::{Change, MemberName};
    runtime()?.block_on(async {
        match args.command {
            Command::Verify(args) => disk::verify(args),
            Command::Rebuild(args) => disk::rebuild(args),
            Command::Info { output, connection } => info::run(output, connection).await,
            Command::Members { output, connection } => members::run(output, connection).await,
            Command::Add { node, how } => change::add(node, how).await,
            Command::Promote { nodes, how } => change::run(Change::Promote { nodes }, how).await,
            Command::Remove { nodes, raft_id, how } => {
                anyhow::ensure!(raft_id.is_none() || nodes.len() == 1, "--raft-id goes with a single node");
                let members = nodes.into_iter().map(|node| MemberName { node, raft_id }).collect();
                change::run(Change::Remove { members }, how).await
            }
            Command::Replace { node, how } => change::run(Change::Replace { node }, how).await,
            Command::Lead { node, how } => change::run(Change::Lead { node }, how).await,
            Command::Drain { drained, how } => change::run(Change::Drain { datacenter: drained }, how).await,
            Command::Return { returned, how } => change::run(Change::Return { datacenter: returned }, how).await,
            Command::Backup(args) => backup::backup(args).await,
            Command::VerifyBackup(args) => backup::verify_backup(args).await,
            Command::Restore(args) => backup::restore_backup(args).await,
            Command::Upgrade(args) => upgrade::run(args).await,
            Command::Recover(args) => recover::run(args).await,
            Command::Read { from, count, follow, connection } => entries::read(from, count, follow, connection).await,
            Command::Append { body, connection } => entries::append(body, connection).await,
            Command::Discard { before, connection } => entries::discard(before, connection).await,
        }
    })
}

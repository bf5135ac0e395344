//! The command line: one file holds everything that one command does.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
//! 3 unhealthy, 4 unavailable, 5 denied.

mod agree;
mod backup;
mod cert;
mod connect;
mod demo;
mod dev;
mod load;
mod log;
mod node;
mod query;
mod restoring;
mod status;
mod topology;
mod update;
mod verify;
mod views;

use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;

/// A knowledge-graph database (RDF facts, SPARQL) that survives the loss of a whole datacenter.
#[derive(Parser)]
#[command(name = "beam", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Three datacenters on this machine: load, query, lose one, nothing lost
    Demo(demo::Args),
    /// The cluster of topology.toml on this machine, until Ctrl-C
    Dev(dev::Args),
    /// One node, as production runs it
    Node(node::Args),
    /// Load RDF files
    Load(load::Args),
    /// Ask a SPARQL query
    Query(query::Args),
    /// Change facts with a SPARQL update
    Update(update::Args),
    /// Nodes, leader, lag, and what may still fail
    Status(status::Args),
    /// Copy the database into a directory, or add to it what has come since
    Backup(restoring::BackupArgs),
    /// Read all of a backup of the database, and name what is damaged
    VerifyBackup(restoring::VerifyArgs),
    /// Make a node's data out of a backup of the database; offline
    Restore(restoring::RestoreArgs),
    /// Whether all views hold the same
    Verify(verify::Args),
    /// Look into the log, and append to it
    Log(log::Args),
    /// Which node holds which partitions, and cutting the data anew
    Views(views::Args),
    /// Make and show certificates
    Cert(cert::Args),
    /// Check topology.toml, or print its DNS records
    Topology(topology::Args),
}

/// Unless BEAM_LOG says otherwise. Libraries warn of what they handle themselves.
const QUIET: &str = "warn,openraft=off,hickory_net=error,hickory_server=error";

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("BEAM_LOG").unwrap_or_else(|_| QUIET.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let result = match arguments.command {
        Command::Demo(args) => demo::run(args),
        Command::Dev(args) => dev::run(args),
        Command::Node(args) => node::run(args),
        Command::Load(args) => load::run(args),
        Command::Query(args) => query::run(args),
        Command::Update(args) => update::run(args),
        Command::Status(args) => status::run(args),
        Command::Backup(args) => backup::backup(args),
        Command::VerifyBackup(args) => backup::verify_backup(args),
        Command::Restore(args) => backup::restore(args),
        Command::Verify(args) => verify::run(args),
        Command::Log(args) => log::run(args),
        Command::Views(args) => views::run(args),
        Command::Cert(args) => cert::run(args),
        Command::Topology(args) => topology::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("beam: {error:#}");
            exit_code(&error)
        }
    }
}

/// Ends the process with this code, and says why.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct Exit {
    code: u8,
    why: String,
}

/// Nothing failed, but the cluster is not as it should be.
const UNHEALTHY: u8 = 3;

fn exit_code(error: &anyhow::Error) -> ExitCode {
    use beam_wire::Code;
    for cause in error.chain() {
        if let Some(exit) = cause.downcast_ref::<Exit>() {
            return exit.code.into();
        }
        let code = match cause.downcast_ref::<beam_client::ClientError>() {
            Some(client) => client.code(),
            None => cause.downcast_ref::<beam_wire::CallError>().map(|call| call.code),
        };
        match code {
            Some(Code::Denied) => return 5.into(),
            Some(Code::Unavailable | Code::NoQuorum | Code::Deadline | Code::Disconnected | Code::Overloaded) => {
                return 4.into();
            }
            Some(_) => return 1.into(),
            None => {}
        }
    }
    1.into()
}

/// A runtime for commands and nodes.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(crate::query::STACK_BYTES).build()?)
}

/// How a command prints what there is to read.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs: one versioned document
    Json,
}

//! `beam log`: the log by itself, which knows nothing of facts.

use super::connect::Connection;
use super::{Output, runtime};
use anyhow::{Context, Result, bail};
use beam_wire::command::Command as Entry;
use beam_wire::message::log::{self, LogInfoReply};
use beam_wire::{CallError, LogIndex, Name};
use bytes::Bytes;
use comfy_table::{Table, presets};
use serde_json::json;
use std::io::Read;

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
    runtime()?.block_on(async {
        match args.command {
            Command::Info { output, connection } => info(output, connection).await,
            Command::Read { from, count, follow, connection } => read(from, count, follow, connection).await,
            Command::Append { body, connection } => append(body, connection).await,
            Command::Discard { before, connection } => discard(before, connection).await,
        }
    })
}

async fn info(output: Output, connection: Connection) -> Result<()> {
    let (log, env) = connection.open_log().await?;
    let deadline = env.now() + connection.limit();
    let nodes = log.nodes();
    let asked = nodes.iter().map(|n| log.info(&n.node, deadline));
    let infos: Vec<Result<LogInfoReply, CallError>> = futures::future::join_all(asked).await;
    let answered = infos.iter().filter(|i| i.is_ok()).count();
    match output {
        Output::Table => {
            let mut table = Table::new();
            let header = ["NODE", "RAFT ID", "TERM", "LEADER", "FIRST", "LAST", "COMMITTED", "BYTES", "VOTERS"];
            table.load_style(presets::NOTHING).set_header(header);
            for (node, info) in nodes.iter().zip(&infos) {
                table.add_row(match info {
                    Ok(info) => row(info),
                    Err(error) => vec![node.node.to_string(), error.to_string()],
                });
            }
            println!("{table}");
        }
        Output::Json => {
            let documents = nodes.iter().zip(&infos).map(|(node, info)| document(&node.node, info));
            println!(
                "{}",
                serde_json::to_string_pretty(&json!({ "version": 1, "nodes": documents.collect::<Vec<_>>() }))?
            );
        }
    }
    if answered == 0 {
        bail!(CallError::elsewhere(beam_wire::Code::Unavailable, "no log node answered"));
    }
    Ok(())
}

fn text(index: Option<LogIndex>) -> String {
    index.map_or("-".to_owned(), |i| i.to_string())
}

fn row(info: &LogInfoReply) -> Vec<String> {
    let voters: Vec<_> = info.members.iter().filter(|m| m.voter).map(|m| m.node.as_str()).collect();
    vec![
        info.node.to_string(),
        format!("{:x}", info.raft_id),
        info.term.to_string(),
        info.leader.as_ref().map_or("-".to_owned(), Name::to_string),
        info.first.to_string(),
        text(info.last),
        text(info.committed),
        info.bytes.to_string(),
        voters.join(" "),
    ]
}

fn document(node: &Name, info: &Result<LogInfoReply, CallError>) -> serde_json::Value {
    match info {
        Err(error) => json!({ "node": node.as_str(), "error": error.to_string() }),
        Ok(info) => json!({
            "node": node.as_str(),
            "raft_id": format!("{:x}", info.raft_id),
            "epoch": info.epoch.map(|e| e.0),
            "term": info.term,
            "leader": info.leader.as_ref().map(Name::as_str),
            "first": info.first.0,
            "last": info.last.map(|i| i.0),
            "committed": info.committed.map(|i| i.0),
            "bytes": info.bytes,
            "voters": info.members.iter().filter(|m| m.voter).map(|m| m.node.as_str()).collect::<Vec<_>>(),
        }),
    }
}

async fn read(from: u64, count: Option<u64>, follow: bool, connection: Connection) -> Result<()> {
    let (log, env) = connection.open_log().await?;
    let mut entries = log.read(None, LogIndex(from), follow);
    let mut left = count.unwrap_or(u64::MAX);
    // Following has no end; what was asked for otherwise is there at once, or nobody answers.
    let limit = if follow { std::time::Duration::from_secs(u32::MAX.into()) } else { connection.limit() };
    while left > 0 {
        let next = env.timeout(limit, entries.next()).await;
        let chunk = match next.with_context(|| match entries.trouble() {
            Some(trouble) => format!("no entries came in time: {trouble}"),
            None => "no entries came in time".to_owned(),
        })?? {
            Some(chunk) => chunk,
            None => break,
        };
        for (offset, entry) in chunk.entries.iter().enumerate().take(left.try_into().unwrap_or(usize::MAX)) {
            let index = LogIndex(chunk.first.0 + offset as u64);
            match entry {
                log::Entry::Skip => println!("{index}\tskip"),
                log::Entry::Data { origin, body } => {
                    println!("{index}\t{}:{:x}:{}\t{}", origin.node, origin.boot, origin.sequence, describe(body));
                }
            }
            left -= 1;
        }
    }
    Ok(())
}

/// The log does not know what a body means; a person would like to.
fn describe(body: &[u8]) -> String {
    match Entry::decode(body) {
        Ok(Entry::Genesis(g)) => format!(
            "genesis of {} epoch {}: format {}, 2^{} slots, window {}",
            g.cluster, g.epoch, g.format, g.slots_log2, g.window
        ),
        Ok(Entry::Upgrade(format)) => format!("upgrade to format {format}"),
        Ok(Entry::Transact(t)) => format!(
            "transaction {:032x} born {}: {} inserts, {} deletes, {} terms, {} reads at {}",
            t.id.random,
            t.id.born,
            t.inserts.len(),
            t.deletes.len(),
            t.terms.len(),
            t.reads.len(),
            t.read_index
        ),
        Err(error) => format!("{} bytes: {error}", body.len()),
    }
}

async fn append(body: String, connection: Connection) -> Result<()> {
    let body = if body == "-" {
        let mut bytes = vec![];
        std::io::stdin().read_to_end(&mut bytes).context("cannot read stdin")?;
        Bytes::from(bytes)
    } else {
        Bytes::from(body)
    };
    let (log, env) = connection.open_log().await?;
    for version in log.append(vec![body], env.now() + connection.limit()).await? {
        println!("{version}");
    }
    Ok(())
}

async fn discard(before: u64, connection: Connection) -> Result<()> {
    let (log, env) = connection.open_log().await?;
    let deadline = env.now() + connection.limit();
    let epoch = log.tail(false, deadline).await?.epoch;
    let version = log.discard(epoch, LogIndex(before), deadline).await?;
    println!("entries below {before} are dropped as of version {version}; each node drops whole segments");
    Ok(())
}

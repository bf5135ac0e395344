//! `beam log info`: what each log node holds, and who leads.

use crate::cli::Output;
use crate::cli::connect::Connection;
use anyhow::{Result, bail};
use beam_wire::message::log::LogInfoReply;
use beam_wire::{CallError, LogIndex, Name};
use comfy_table::{Table, presets};
use serde_json::json;

pub async fn run(output: Output, connection: Connection) -> Result<()> {
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

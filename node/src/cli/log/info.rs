//! `beam log info`: what each log node holds, who leads, and what the log is kept for.

use crate::api::shorten::{ShortenOptions, decide};
use crate::cli::Output;
use crate::cli::connect::{Connection, topology_at};
use crate::coverage::Seen;
use crate::remote::view::{RemoteViews, Views};
use anyhow::{Result, bail};
use beam_wire::env::Env;
use beam_wire::message::log::LogInfoReply;
use beam_wire::topology::Topology;
use beam_wire::{CallError, LogIndex, Name};
use comfy_table::{Table, presets};
use serde_json::json;
use std::time::Duration;

/// How long views may take to say how they are.
const VIEWS_WITHIN: Duration = Duration::from_secs(3);

pub async fn run(output: Output, connection: Connection) -> Result<()> {
    let topology = topology_at(&connection.topology)?;
    let (peers, directory, log, env) = connection.open_nodes().await?;
    let deadline = env.now() + connection.limit();
    let nodes = log.nodes();
    let views = RemoteViews::start(&env, peers, directory, connection.near(&topology)?);
    let asked = futures::future::join_all(nodes.iter().map(|n| log.info(&n.node, deadline)));
    let (infos, ()): (Vec<Result<LogInfoReply, CallError>>, ()) =
        futures::future::join(asked, all_heard(&env, &views)).await;
    let answered = infos.iter().filter(|i| i.is_ok()).count();
    let kept_for = kept_for(&topology, &views, &infos);
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
            if let Some(kept_for) = &kept_for {
                println!("\n{kept_for}");
            }
        }
        Output::Json => {
            let documents = nodes.iter().zip(&infos).map(|(node, info)| document(&node.node, info));
            let nodes = documents.collect::<Vec<_>>();
            let document = json!({ "version": 1, "nodes": nodes, "kept_for": kept_for });
            println!("{}", serde_json::to_string_pretty(&document)?);
        }
    }
    if answered == 0 {
        bail!(CallError::elsewhere(beam_wire::Code::Unavailable, "no log node answered"));
    }
    Ok(())
}

/// Waits until every view has said how it is, but not for long: one that says nothing is news, too.
async fn all_heard(env: &Env, views: &RemoteViews) {
    let until = env.now() + VIEWS_WITHIN;
    loop {
        let changed = views.changed();
        let all = views.all();
        let heard = !all.is_empty() && all.iter().all(|(_, status)| status.is_ok());
        if heard || env.timeout_at(until, changed).await.is_err() {
            return;
        }
    }
}

/// Why the log is not shorter, in the words of what decides it, and of what its leader waits for.
fn kept_for(topology: &Topology, views: &RemoteViews, infos: &[Result<LogInfoReply, CallError>]) -> Option<String> {
    let views = views.all();
    let seen = views.iter().filter_map(|(address, status)| {
        Some(Seen { node: &address.node, datacenter: &address.datacenter, status: status.as_ref().ok()? })
    });
    let newest = |info: &&LogInfoReply| (info.epoch, info.term, info.committed, info.first);
    let info = infos.iter().flatten().max_by_key(newest)?;
    let options = ShortenOptions::of(topology);
    let decision = decide(&options, &seen.collect::<Vec<_>>(), info);
    let mut sentence = decision.sentence(&options);
    let leader = infos.iter().flatten().find(|i| i.term == info.term && i.leader.as_ref() == Some(&i.node));
    let lacks = |before: LogIndex| {
        let mut members = leader?.members.iter().filter(|m| m.matched.is_some_and(|matched| matched.next() < before));
        members.next()
    };
    if let Some(member) = decision.before.and_then(lacks) {
        sentence.push_str(&format!("; first, the log node {} must catch up", member.node));
    }
    Some(sentence)
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

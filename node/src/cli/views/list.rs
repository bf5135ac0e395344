//! `beam views list`: every view of every node.

use super::nodes;
use crate::cli::Output;
use crate::cli::connect::Connection;
use crate::partitions::{holds_otherwise, lines, spelled};
use crate::repartition::plan::Seen;
use anyhow::Result;
use beam_wire::message::view::{Instance, Served, ViewInstancesReply, ViewState};
use comfy_table::{Table, presets};
use serde_json::json;

pub async fn run(output: Output, connection: Connection) -> Result<()> {
    let seen = nodes(&connection).await?.survey().await;
    let warnings: Vec<String> = seen.iter().filter_map(warning).collect();
    match output {
        Output::Table => print(&seen, &warnings),
        Output::Json => println!("{}", serde_json::to_string_pretty(&document(&seen, &warnings))?),
    }
    Ok(())
}

/// What an operator should know of a node.
fn warning(seen: &Seen) -> Option<String> {
    let node = &seen.node;
    let says = match &seen.says {
        Ok(says) => says,
        Err(why) => return Some(format!("{node}: {why}")),
    };
    let held = held(says);
    holds_otherwise(&held, &says.topology).then(|| {
        let should = lines(&held)
            .map_or("it was told so".to_owned(), |lines| format!("it should say {}", lines.replace('\n', ", ")));
        format!("{node} holds {}, and its topology says {}: {should}", spelled(&held), spelled(&says.topology))
    })
}

/// All that a node holds, views that are about to go excepted.
pub fn held(says: &ViewInstancesReply) -> Vec<Served> {
    let staying = says.instances.iter().filter(|view| view.status.state != ViewState::Draining);
    staying.flat_map(|view| view.status.serves.clone()).collect()
}

fn print(seen: &[Seen], warnings: &[String]) {
    let mut table = Table::new();
    let header =
        ["NODE", "DATACENTER", "VIEW", "STATE", "PARTITIONS", "APPLIED", "BEHIND", "COPIED", "FACTS", "ON DISK"];
    table.load_style(presets::NOTHING).set_header(header);
    for node in seen {
        let Ok(says) = &node.says else {
            table.add_row(vec![node.node.to_string(), node.datacenter.to_string(), "-".into(), "silent".into()]);
            continue;
        };
        for view in &says.instances {
            table.add_row(row(node, view));
        }
    }
    println!("{table}");
    for warning in warnings {
        println!("  ! {warning}");
    }
}

fn row(node: &Seen, view: &Instance) -> Vec<String> {
    let status = &view.status;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        node.node.to_string(),
        node.datacenter.to_string(),
        view.number.to_string(),
        format!("{:?}", status.state).to_lowercase(),
        spelled(&status.serves),
        status.applied.to_string(),
        status.committed.0.saturating_sub(status.applied.0).to_string(),
        or_dash(view.copied.map(|copied| copied.to_string())),
        status.facts.to_string(),
        or_dash(view.disk_bytes.map(|bytes| indicatif::HumanBytes(bytes).to_string())),
    ]
}

fn document(seen: &[Seen], warnings: &[String]) -> serde_json::Value {
    let served = |serves: &[Served]| {
        let one = |s: &Served| json!({ "space": s.space.as_str(), "range": s.range.to_string() });
        serves.iter().map(one).collect::<Vec<_>>()
    };
    let view = |view: &Instance| {
        let status = &view.status;
        json!({
            "number": view.number, "state": format!("{:?}", status.state).to_lowercase(),
            "partitions": spelled(&status.serves), "serves": served(&status.serves), "applied": status.applied.0,
            "committed": status.committed.0, "oldest": status.oldest.0, "copied": view.copied, "facts": status.facts,
            "disk_bytes": view.disk_bytes, "calls": status.calls,
        })
    };
    let nodes = seen.iter().map(|node| match &node.says {
        Ok(says) => json!({
            "node": node.node.as_str(), "datacenter": node.datacenter.as_str(),
            "views": says.instances.iter().map(view).collect::<Vec<_>>(),
            "topology": spelled(&says.topology), "free_bytes": says.free_bytes,
        }),
        Err(error) => json!({ "node": node.node.as_str(), "datacenter": node.datacenter.as_str(), "error": error }),
    });
    json!({ "version": 1, "nodes": nodes.collect::<Vec<_>>(), "warnings": warnings })
}

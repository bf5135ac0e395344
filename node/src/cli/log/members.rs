//! `beam log members`: who votes and who learns, how far each is, and what is not as it should be.

use crate::cli::Output;
use crate::cli::connect::Connection;
use anyhow::Result;
use beam_wire::message::log::{LogStatusReply, Member};
use beam_wire::{CallError, Code, Name};
use comfy_table::{Table, presets};
use serde_json::json;

pub async fn run(output: Output, connection: Connection) -> Result<()> {
    let (log, env) = connection.open_log().await?;
    let deadline = env.now() + connection.limit();
    let nodes = log.nodes();
    let asked = nodes.iter().map(|n| async { (n.node.clone(), log.status(&n.node, deadline).await) });
    let answers: Vec<Answer> = futures::future::join_all(asked).await;
    let Some(view) = View::of(&answers) else {
        anyhow::bail!(CallError::elsewhere(Code::Unavailable, "no log node answered"));
    };
    let rows: Vec<Row> = view.rows(&answers);
    let warnings = view.warnings(&answers);
    match output {
        Output::Table => print(&rows, &warnings),
        Output::Json => println!("{}", serde_json::to_string_pretty(&document(view.source, &rows, &warnings))?),
    }
    Ok(())
}

/// What a log node said of itself.
type Answer = (Name, Result<LogStatusReply, CallError>);

/// The members as the leader sees them, or whoever knows most.
struct View<'a> {
    source: &'a LogStatusReply,
}

struct Row {
    member: Member,
    leads: bool,
    lag: Option<u64>,
    /// Or why not.
    answers: Result<bool, String>,
    drained: bool,
    micros: Option<u32>,
}

impl<'a> View<'a> {
    fn of(answers: &'a [Answer]) -> Option<Self> {
        let knowing = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let leads = |s: &LogStatusReply| s.info.leader.as_ref() == Some(&s.info.node);
        let source = knowing.max_by_key(|s| (leads(s), s.info.term, s.info.committed))?;
        Some(Self { source })
    }

    fn rows(&self, answers: &[Answer]) -> Vec<Row> {
        let info = &self.source.info;
        let mut members = info.members.clone();
        members.sort_by(|a, b| (&a.datacenter, &a.node, a.raft_id).cmp(&(&b.datacenter, &b.node, b.raft_id)));
        let row = |member: Member| {
            let answer = answers.iter().find(|(node, _)| *node == member.node);
            let answers = match answer {
                None => Err("DNS does not name it".to_owned()),
                Some((_, Err(e))) => Err(e.to_string()),
                Some((_, Ok(status))) if status.info.raft_id != member.raft_id => {
                    Err(format!("it is {:x} now: beam log replace {}", status.info.raft_id, member.node))
                }
                Some((_, Ok(status))) => Ok(status.full),
            };
            let is_source = member.node == info.node;
            let matched = if is_source { info.last } else { member.matched };
            let behind = |m: beam_wire::LogIndex| info.last.map(|last| last.0.saturating_sub(m.0));
            Row {
                leads: info.leader.as_ref() == Some(&member.node) && answers.is_ok(),
                lag: matched.and_then(behind),
                answers,
                drained: self.source.drained.contains(&member.datacenter),
                micros: self.source.round_trips.iter().find(|to| to.node == member.node).map(|to| to.micros),
                member: Member { matched, ..member },
            }
        };
        members.into_iter().map(row).collect()
    }

    fn warnings(&self, answers: &[Answer]) -> Vec<String> {
        let info = &self.source.info;
        let mut warnings = Vec::new();
        if info.leader.is_none() {
            warnings.push("nobody leads, as far as is known: the log takes nothing".to_owned());
        }
        for (node, answer) in answers {
            match answer {
                // It says itself what it waits for.
                Ok(status) => warnings.extend(status.warnings.iter().map(|warning| format!("{node}: {warning}"))),
                Err(e) => warnings.push(format!("{node}: {e}")),
            }
            let is_member = info.members.iter().any(|member| member.node == *node);
            let says_so = answer.as_ref().is_ok_and(|status| !status.warnings.is_empty());
            if !is_member && !says_so {
                warnings.push(format!("{node}: not a member: beam log add {node}"));
            }
        }
        warnings
    }
}

fn print(rows: &[Row], warnings: &[String]) {
    let mut table = Table::new();
    let header =
        ["NODE", "DATACENTER", "RAFT ID", "ROLE", "MATCHED", "LAG", "ANSWERS", "FULL", "DRAINED", "ROUND TRIP"];
    table.load_style(presets::NOTHING).set_header(header);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    for row in rows {
        table.add_row(vec![
            row.member.node.to_string(),
            row.member.datacenter.to_string(),
            format!("{:x}", row.member.raft_id),
            role(row).to_owned(),
            or_dash(row.member.matched.map(|m| m.to_string())),
            or_dash(row.lag.map(|lag| lag.to_string())),
            yes(row.answers.is_ok()),
            or_dash(row.answers.as_ref().ok().map(|full| yes(*full))),
            yes(row.drained),
            or_dash(row.micros.map(|micros| format!("{:.1} ms", f64::from(micros) / 1000.0))),
        ]);
    }
    println!("{table}");
    for (node, why) in rows.iter().filter_map(|row| Some((&row.member.node, row.answers.as_ref().err()?))) {
        println!("  ! {node}: {why}");
    }
    for warning in warnings {
        println!("  ! {warning}");
    }
}

fn role(row: &Row) -> &'static str {
    match (row.leads, row.member.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    }
}

fn document(source: &LogStatusReply, rows: &[Row], warnings: &[String]) -> serde_json::Value {
    let members = rows.iter().map(|row| {
        json!({
            "node": row.member.node.as_str(),
            "datacenter": row.member.datacenter.as_str(),
            "raft_id": format!("{:x}", row.member.raft_id),
            "role": role(row),
            "matched": row.member.matched.map(|m| m.0),
            "lag": row.lag,
            "answers": row.answers.is_ok(),
            "full": row.answers.as_ref().ok(),
            "drained": row.drained,
            "round_trip_us": row.micros,
        })
    });
    json!({
        "version": 1,
        "seen_from": source.info.node.as_str(),
        "term": source.info.term,
        "leader": source.info.leader.as_ref().map(Name::as_str),
        "heartbeat_ms": source.heartbeat_ms,
        "lease_ms": source.lease_ms,
        "drained": source.drained.iter().map(Name::as_str).collect::<Vec<_>>(),
        "members": members.collect::<Vec<_>>(),
        "warnings": warnings,
    })
}

//! `beam log add`, `promote`, `remove`, `replace`, `lead`, `drain` and `return`: what each would do is shown on
//! stderr, then done; what cannot be undone is asked about first.

use crate::cli::agree::{How, REFUSED, agreed};
use crate::cli::{Exit, Output};
use crate::remote::log::RemoteLog;
use anyhow::{Context, Result};
use beam_wire::env::Env;
use beam_wire::message::log::{Apply, Change, LogChangeReply, Member, Plan};
use beam_wire::{Code, Name, Version};
use serde_json::json;
use std::time::Duration;

/// Two attempts of a change whose leader was lost on the way.
const RETRY_EVERY: Duration = Duration::from_millis(500);

pub fn raft_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("{text:?} is not a Raft id in hexadecimal"))
}

/// The node's datacenter is where DNS says.
pub async fn add(node: Name, how: How) -> Result<()> {
    let (log, env) = how.connection.open_log().await?;
    let found = log.nodes().into_iter().find(|n| n.node == node);
    let datacenter = found.map(|n| n.datacenter);
    let datacenter = datacenter.with_context(|| format!("DNS names no log node {node}: publish its records first"))?;
    make(&log, &env, Change::Add { node, datacenter }, how).await
}

pub async fn run(change: Change, how: How) -> Result<()> {
    let (log, env) = how.connection.open_log().await?;
    make(&log, &env, change, how).await
}

async fn make(log: &RemoteLog, env: &Env, change: Change, how: How) -> Result<()> {
    let plan = log.change(&change, None, env.now() + how.connection.limit()).await?.plan;
    show(&plan);
    let forbidden = plan.refused.as_ref().filter(|_| !how.force);
    if let Some(why) = plan.impossible.as_ref().or(forbidden) {
        let forceable = if plan.impossible.is_none() { " (--force does it in spite of that)" } else { "" };
        return Err(Exit { code: REFUSED, why: format!("not done: {why}{forceable}") }.into());
    }
    if how.plan || plan.nothing_to_do {
        if plan.nothing_to_do {
            eprintln!("there is nothing to do");
        }
        report(how.output, &plan, None)?;
        return Ok(());
    }
    if matches!(change, Change::Remove { .. } | Change::Replace { .. }) && !how.yes && !agreed("This cannot be undone")?
    {
        return Err(Exit { code: REFUSED, why: "nothing was done".into() }.into());
    }
    let (plan, done) = carry_out(log, env, &change, plan, &how).await?;
    report(how.output, &plan, Some(done))
}

/// Asks until all is done. The time that a command may take begins anew whenever what it waits for moves.
async fn carry_out(log: &RemoteLog, env: &Env, change: &Change, agreed: Plan, how: &How) -> Result<(Plan, Version)> {
    let mut seen = agreed.at;
    let mut waited_for = None;
    let mut until = env.now() + how.connection.limit();
    loop {
        let apply = Some(Apply { seen, force: how.force });
        let trouble = match log.change(change, apply, until).await {
            Ok(LogChangeReply { plan, done: Some(done) }) => return Ok((plan, done)),
            Ok(LogChangeReply { plan, done: None }) => {
                seen = plan.at;
                if plan.waits != waited_for {
                    eprintln!("waiting: {}", plan.waits.as_deref().unwrap_or("for the next step"));
                    waited_for = plan.waits;
                    until = env.now() + how.connection.limit();
                }
                None
            }
            // A leader was lost on the way, or the first half of this change was done; or somebody else was faster.
            Err(e) if e.code == Code::Conflict => {
                let plan = log.change(change, None, until).await?.plan;
                anyhow::ensure!(
                    voting(&plan.after) == voting(&agreed.after),
                    "the members have changed since the plan was shown, and it would do something else now: {e}"
                );
                seen = plan.at;
                None
            }
            Err(e) if e.is_retryable() => Some(e),
            Err(e) => return Err(e.into()),
        };
        if env.now() >= until {
            return Err(match trouble {
                Some(e) => e.into(),
                None => {
                    let what = waited_for.unwrap_or_else(|| "it is not done yet".into());
                    beam_wire::CallError::later(Code::Deadline, 1000, format!("{what}: ask again to go on")).into()
                }
            });
        }
        env.sleep(RETRY_EVERY).await;
    }
}

fn voting(members: &[Member]) -> Vec<(u64, bool)> {
    members.iter().map(|m| (m.raft_id, m.voter)).collect()
}

/// The plan, for people.
fn show(plan: &Plan) {
    let before = voting(&plan.before);
    for member in &plan.before {
        let gone = !plan.after.iter().any(|m| m.raft_id == member.raft_id);
        if gone {
            eprintln!("- {}", line(member));
        }
    }
    for member in &plan.after {
        let sign = match before.iter().find(|(id, _)| *id == member.raft_id) {
            None => '+',
            Some((_, voter)) if *voter != member.voter => '~',
            Some(_) => ' ',
        };
        eprintln!("{sign} {}", line(member));
    }
    if !plan.drained.is_empty() {
        let drained: Vec<_> = plan.drained.iter().map(Name::as_str).collect();
        eprintln!("  the leader stays out of {}", drained.join(", "));
    }
    if let Some(leader) = &plan.leader {
        eprintln!("  {leader} leads");
    }
    for note in &plan.notes {
        eprintln!("  {note}");
    }
    for warning in &plan.warnings {
        eprintln!("! {warning}");
    }
    if let Some(refused) = &plan.refused {
        eprintln!("! {refused}");
    }
}

fn line(member: &Member) -> String {
    let role = if member.voter { "votes" } else { "learns" };
    format!("{} in {} {role} ({:x})", member.node, member.datacenter, member.raft_id)
}

fn report(output: Output, plan: &Plan, done: Option<Version>) -> Result<()> {
    match (output, done) {
        (Output::Table, Some(done)) => println!("done as of version {done}"),
        (Output::Table, None) => {}
        (Output::Json, _) => println!("{}", serde_json::to_string_pretty(&document(plan, done))?),
    }
    Ok(())
}

fn document(plan: &Plan, done: Option<Version>) -> serde_json::Value {
    let members = |members: &[Member]| {
        let member = |m: &Member| {
            json!({
                "node": m.node.as_str(), "datacenter": m.datacenter.as_str(), "raft_id": format!("{:x}", m.raft_id),
                "voter": m.voter,
            })
        };
        members.iter().map(member).collect::<Vec<_>>()
    };
    json!({
        "version": 1,
        "done": done.map(|v| json!({ "epoch": v.epoch.0, "index": v.index.0 })),
        "plan": {
            "at": plan.at.0,
            "before": members(&plan.before),
            "after": members(&plan.after),
            "drained": plan.drained.iter().map(Name::as_str).collect::<Vec<_>>(),
            "leader": plan.leader.as_ref().map(Name::as_str),
            "nothing_to_do": plan.nothing_to_do,
            "notes": plan.notes,
            "warnings": plan.warnings,
            "waits": plan.waits,
            "refused": plan.refused,
            "impossible": plan.impossible,
        },
    })
}

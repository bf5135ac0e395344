//! `beam views repartition`: the data of a running cluster is cut into another number of partitions.

use super::list::held;
use super::nodes;
use crate::cli::agree::{How, REFUSED, agreed};
use crate::cli::{Exit, Output};
use crate::partitions::{lines, spelled};
use crate::repartition::plan::{Plan, Progress, Seen, Target, Wanted, plan};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;

/// What is wanted, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Into how many partitions
    partitions: u32,
    /// How many nodes of each datacenter hold each partition
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    replicas: u32,
    #[command(flatten)]
    how: How,
}

/// A view that drains may wait for its last calls so long, and nothing moves meanwhile.
const PATIENCE_MIN: Duration = Duration::from_secs(90);

pub async fn run(args: Args) -> Result<()> {
    let wanted = Wanted { partitions: args.partitions, replicas: args.replicas };
    let nodes = nodes(&args.how.connection).await?;
    let seen = nodes.survey().await;
    let plan = plan(wanted, &seen);
    show(&plan, &seen);
    let forbidden = plan.refused.as_ref().filter(|_| !args.how.force);
    if let Some(why) = plan.impossible.as_ref().or(forbidden) {
        let forceable = if plan.impossible.is_none() { " (--force does it in spite of that)" } else { "" };
        return Err(Exit { code: REFUSED, why: format!("not done: {why}{forceable}") }.into());
    }
    if args.how.plan || plan.nothing_to_do {
        if plan.nothing_to_do {
            eprintln!("there is nothing to do");
        }
        return report(args.how.output, &plan, false);
    }
    if !args.how.yes && !agreed("What the nodes hold now is deleted once the new views serve")? {
        return Err(Exit { code: REFUSED, why: "nothing was done".into() }.into());
    }
    let patience = args.how.connection.limit().max(PATIENCE_MIN);
    eprintln!("Ctrl-C stops this at any moment; the same command goes on with it.");
    nodes.carry_out(wanted, &plan.targets, patience, |progress| eprintln!("{}", told(progress))).await?;
    report(args.how.output, &plan, true)
}

/// The plan, for people.
fn show(plan: &Plan, seen: &[Seen]) {
    for target in &plan.targets {
        let holds = seen.iter().find(|node| node.node == target.node).and_then(|node| node.says.as_ref().ok());
        let now = holds.map(|says| spelled(&held(says))).unwrap_or_default();
        let next = spelled(&target.serves);
        if target.has && now == next {
            eprintln!("  {} in {} holds {next}", target.node, target.datacenter);
            continue;
        }
        let sign = if target.has { ' ' } else { '~' };
        eprintln!("{sign} {} in {} holds {now}, then {next}{}", target.node, target.datacenter, room(target));
    }
    let takes: Option<u64> = plan.targets.iter().map(|target| target.takes_bytes).sum();
    if let Some(takes) = takes.filter(|takes| *takes > 0) {
        eprintln!(
            "  until the old views go, the new ones take about {} more on all disks, and as much memory again as views \
             take now",
            indicatif::HumanBytes(takes)
        );
    }
    for warning in &plan.warnings {
        eprintln!("! {warning}");
    }
    if let Some(refused) = &plan.refused {
        eprintln!("! {refused}");
    }
}

fn room(target: &Target) -> String {
    let size = |bytes: u64| indicatif::HumanBytes(bytes).to_string();
    match (target.takes_bytes.filter(|takes| *takes > 0), target.free_bytes) {
        (Some(takes), Some(free)) => format!(": about {} of {} that are free", size(takes), size(free)),
        (Some(takes), None) => format!(": about {}", size(takes)),
        _ => String::new(),
    }
}

fn told(progress: &Progress) -> String {
    let Progress { serving, wanted, old, waits } = progress;
    let waits = if waits.is_empty() { String::new() } else { format!(": {}", waits.join("; ")) };
    format!("{serving} of {wanted} new views serve, {old} old ones are left{waits}")
}

fn report(output: Output, plan: &Plan, done: bool) -> Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&document(plan, done))?),
        Output::Table if done => {
            eprintln!(
                "All is done. So that a node which loses its disk comes back with the same, topology.toml should say:"
            );
            for target in &plan.targets {
                let said = lines(&target.serves).unwrap_or_else(|| spelled(&target.serves));
                println!("# {}\n{said}", target.node);
            }
        }
        Output::Table => {}
    }
    Ok(())
}

fn document(plan: &Plan, done: bool) -> serde_json::Value {
    let target = |target: &Target| {
        json!({
            "node": target.node.as_str(), "datacenter": target.datacenter.as_str(),
            "partitions": spelled(&target.serves), "topology": lines(&target.serves), "has": target.has,
            "takes_bytes": target.takes_bytes, "free_bytes": target.free_bytes,
        })
    };
    json!({
        "version": 1,
        "done": done,
        "plan": {
            "targets": plan.targets.iter().map(target).collect::<Vec<_>>(),
            "nothing_to_do": plan.nothing_to_do,
            "warnings": plan.warnings,
            "refused": plan.refused,
            "impossible": plan.impossible,
        },
    })
}

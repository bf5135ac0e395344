//! `beam log recover`: what to do when the log has lost its majority for good. It shows a plan, then carries out the one
//! that was shown.

use crate::cli::connect::{Connection, topology_at};
use crate::log::survivors::{self, Answers, NoRecovery, Plan};
use crate::recovery::{carry_out, survey};
use anyhow::{Result, bail};
use beam_wire::message::log::RecoverPart;
use beam_wire::{CallError, Code, LogIndex, Name, Role};
use comfy_table::{Table, presets};

#[derive(clap::Args)]
pub struct Args {
    /// Carry out the plan with this token, if it is still the plan
    #[arg(long, value_name = "TOKEN")]
    apply: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<()> {
    let connection = args.connection;
    let topology = topology_at(&connection.topology)?;
    let (log, env) = connection.open_log().await?;
    let mut nodes: Vec<Name> = topology.nodes_with(Role::Log).map(|node| node.name.clone()).collect();
    let in_dns = log.nodes().into_iter().map(|node| node.node);
    let more: Vec<Name> = in_dns.filter(|node| !nodes.contains(node)).collect();
    nodes.extend(more);
    let answers = survey(&env, &log, &nodes).await;
    println!("{}", table(&answers));
    let plan = survivors::plan(&topology.cluster, &answers).map_err(refused)?;
    println!("{}", text(&plan));
    let token = format!("{:016x}", plan.token);
    match args.apply {
        None => {
            eprintln!("Nothing was changed. To do this: beam log recover --apply {token}");
            Ok(())
        }
        Some(meant) if meant != token => bail!(
            "the plan is not {meant} any more: something has changed. Read the one above; to do it: beam log recover --apply \
             {token}"
        ),
        Some(_) => {
            carry_out(&env, &log, &plan, env.now() + connection.limit(), |step| eprintln!("{step}")).await?;
            eprintln!("{}", afterwards(&plan));
            Ok(())
        }
    }
}

fn refused(e: NoRecovery) -> anyhow::Error {
    match e {
        NoRecovery::NoSurvivor => CallError::elsewhere(Code::Unavailable, e.to_string()).into(),
        e => e.into(),
    }
}

/// What each log node said.
fn table(answers: &Answers) -> Table {
    let mut table = Table::new();
    let header = ["NODE", "EPOCH", "FIRST", "LAST", "TERM", "COMMITTED", "RAFT ID", "LEADER"];
    table.load_style(presets::NOTHING).set_header(header);
    let text = |index: Option<LogIndex>| index.map_or("-".to_owned(), |i| i.to_string());
    for (node, answer) in answers {
        table.add_row(match answer {
            Ok(said) => {
                let (status, info) = (&said.status, &said.status.info);
                vec![
                    node.to_string(),
                    info.epoch.map_or("-".into(), |epoch| epoch.to_string()),
                    info.first.to_string(),
                    text(info.last),
                    status.last_term.map_or("-".into(), |term| term.to_string()),
                    text(info.committed),
                    format!("{:x}", info.raft_id),
                    info.leader.as_ref().map_or("-".into(), Name::to_string),
                ]
            }
            Err(why) => vec![node.to_string(), why.clone()],
        });
    }
    table
}

/// The plan, in plain words.
fn text(plan: &Plan) -> String {
    let mut lines = Vec::new();
    match &plan.chosen {
        Some(chosen) => {
            let committed = chosen.committed.map_or("none".into(), |c| c.to_string());
            lines.push(format!(
                "The log goes on with that of {}: entries {} to {} (known to be committed: up to {committed}), in epoch {}.",
                chosen.node, chosen.first, chosen.kept, plan.epoch
            ));
        }
        None => lines
            .push(format!("The log lives in epoch {}, at {}. Some nodes are left behind.", plan.epoch, plan.founder)),
    }
    for order in &plan.orders {
        lines.push(match &order.part {
            RecoverPart::Refound { .. } => {
                format!("  {}: keeps all that it holds, and becomes the only member", order.node)
            }
            RecoverPart::SetAside { .. } => format!(
                "  {}: its files are renamed to aside-{:016x}-*, none is deleted; it becomes an empty node, to be added",
                order.node, order.token
            ),
        });
    }
    lines.extend(plan.empty.iter().map(|node| format!("  {node}: is empty; nothing is done to it")));
    lines.extend(plan.lost.iter().map(|(node, why)| format!("  {node}: does not answer ({why})")));
    if !plan.notes.is_empty() {
        lines.push("Know that:".into());
        lines.extend(plan.notes.iter().map(|note| format!("  {note}")));
    }
    lines.push(format!("Token: {:016x}", plan.token));
    lines.join("\n")
}

/// What is left to do by hand.
fn afterwards(plan: &Plan) -> String {
    let aside = plan.orders.iter().filter(|order| matches!(order.part, RecoverPart::SetAside { .. }));
    let names: Vec<&str> = aside.map(|order| order.node.as_str()).chain(plan.empty.iter().map(Name::as_str)).collect();
    let mut text = format!("done: the log is in epoch {}", plan.epoch);
    if !names.is_empty() {
        text += "\nThese log nodes are empty, and become voters by:";
        names.iter().for_each(|name| text += &format!("\n  beam log add {name}"));
        text += &format!("\n  beam log promote {}", names.join(" "));
    }
    if !plan.lost.is_empty() {
        let lost: Vec<&str> = plan.lost.iter().map(|(node, _)| node.as_str()).collect();
        text += &format!(
            "\nShould one of these come back, it is refused until `beam log recover` has set its log aside: {}",
            lost.join(", ")
        );
    }
    text
}

//! `beam log upgrade`: puts a newer command format in force.

use crate::cli::connect::Connection;
use crate::upgrade::{decide, survey, upgrade};
use anyhow::{Result, bail};
use comfy_table::{Table, presets};

#[derive(clap::Args)]
pub struct Args {
    /// The format, one above that in force
    format: u16,
    /// Show what every node reads, and do nothing
    #[arg(long)]
    plan: bool,
    /// Do it although some nodes are too old, or do not answer: their views stop
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<()> {
    let (peers, directory, log, env) = args.connection.open_nodes().await?;
    let found = survey(&env, &peers, &directory, &log).await;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NODE", "READS FORMATS UP TO"]);
    for (node, reads) in &found.reads {
        table.add_row([node.to_string(), reads.as_ref().map_or_else(String::clone, u16::to_string)]);
    }
    println!("{table}");
    println!("in force: {}", found.in_force.map_or("unknown".to_owned(), |format| format.to_string()));
    match decide(&found, args.format) {
        Err(refused) if args.force && refused.can_be_forced() => eprintln!("warning: {refused}"),
        Err(refused) if refused.can_be_forced() => bail!("not done: {refused} (--force does it in spite of that)"),
        Err(refused) => bail!("not done: {refused}"),
        Ok(()) => {}
    }
    if args.plan {
        return Ok(());
    }
    let at = upgrade(&log, args.format, env.now() + args.connection.limit()).await?;
    println!("format {} is in force after version {at}", args.format);
    Ok(())
}

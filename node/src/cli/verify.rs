//! `beam verify`: whether all views hold the same, at one version.

use super::connect::Connection;
use super::{Exit, Output, UNHEALTHY, runtime};
use crate::remote::view::RemoteViews;
use crate::verify::{Report, verify};
use anyhow::{Context, Result};
use beam_wire::message::view::Served;
use beam_wire::{CallError, Code, Name};
use serde_json::json;
use std::time::Duration;

/// Reading everything takes as long as it takes: Ctrl-C ends it.
const SCAN_WITHIN: Duration = Duration::from_secs(24 * 3600);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Let every view read all of its data, too: finds bits that have flipped on a disk
    #[arg(long)]
    scan: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub fn run(args: Args) -> Result<()> {
    let report = runtime()?.block_on(async {
        let (peers, directory, _, env) = args.connection.open_nodes().await?;
        let topology = super::connect::topology_at(&args.connection.topology)?;
        let near = args.connection.datacenter.clone().or(topology.datacenters.first().cloned());
        let views = RemoteViews::start(&env, peers, directory, near.context("the topology has no datacenter")?);
        let within = if args.scan { SCAN_WITHIN } else { args.connection.limit() };
        anyhow::Ok(verify(&env, &views, args.scan, env.now() + within).await)
    })?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&document(&report))?),
        Output::Table => print(&report),
    }
    if !report.all_agree() {
        return Err(Exit { code: UNHEALTHY, why: "not all views hold the same".into() }.into());
    }
    if let Some((node, error)) = report.missing.first() {
        let message = format!("not every view was compared: {node}: {error}");
        return Err(CallError::elsewhere(Code::Unavailable, message).into());
    }
    Ok(())
}

fn print(report: &Report) {
    match report.at {
        Some(at) => println!("{} views were compared at version {at}", report.compared.len()),
        None => println!("no view has applied anything"),
    }
    if report.records > 0 {
        println!("{} records were read from their disks", report.records);
    }
    for finding in &report.findings {
        println!("DIFFERS {finding}");
    }
    for alone in &report.alone {
        println!("ALONE {alone}");
    }
    for (node, error) in &report.missing {
        println!("MISSING {node}: {error}");
    }
    if report.all_agree() && report.missing.is_empty() && report.at.is_some() {
        match report.facts {
            Some(facts) => println!("all hold the same {facts} facts"),
            None => println!("all that is held twice is the same"),
        }
    }
}

fn document(report: &Report) -> serde_json::Value {
    let named = |(node, datacenter): &(Name, Name)| json!({ "node": node.as_str(), "datacenter": datacenter.as_str() });
    let place =
        |served: &Option<Served>| served.map(|s| json!({ "space": s.space.as_str(), "range": s.range.to_string() }));
    let findings = report.findings.iter().map(|finding| {
        json!({
            "what": format!("{:?}", finding.what).to_lowercase(),
            "where": place(&finding.served),
            "wrong": finding.wrong.iter().map(Name::as_str).collect::<Vec<_>>(),
            "why": finding.why,
        })
    });
    json!({
        "version": 1,
        "at": report.at.map(|v| json!({ "epoch": v.epoch.0, "index": v.index.0 })),
        "agree": report.all_agree(),
        "facts": report.facts,
        "records_read": report.records,
        "compared": report.compared.iter().map(named).collect::<Vec<_>>(),
        "differs": findings.collect::<Vec<_>>(),
        "alone": report.alone,
        "missing": report.missing.iter().map(|(node, why)| json!({ "node": node.as_str(), "why": why.to_string() })).collect::<Vec<_>>(),
    })
}

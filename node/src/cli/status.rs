//! `beam status`: nodes, leader, lag, replicas per partition and datacenter, and what may still fail.

use super::connect::Connection;
use super::{Exit, UNHEALTHY, runtime};
use crate::api::shorten::{ShortenOptions, decide};
use crate::coverage::{self, Piece, Planned, Seen};
use crate::partitions::{holds_otherwise, lines, range_name, spelled};
use anyhow::Result;
use beam_client::{Client, ClientError};
use beam_wire::Name;
use beam_wire::message::api::{ApiLoadReply, ApiStatusReply};
use beam_wire::message::log::LogInfoReply;
use beam_wire::message::view::{Served, ViewLoadReply, ViewState, ViewStatusReply};
use beam_wire::topology::Topology;
use comfy_table::{Table, presets};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long log nodes may take to say how they are, beside what the api node has said of them.
const LOG_WITHIN: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// How to print it
    #[arg(long, value_enum, default_value_t = super::Output::Table)]
    output: super::Output,
}

pub fn run(args: Args) -> Result<()> {
    let (status, load, topology, log) = runtime()?.block_on(async {
        let (client, topology) = args.connection.open().await?;
        let (status, load) = tokio::join!(client.status(), load(&client));
        anyhow::Ok((status?, load?, topology, log_warnings(&args.connection).await?))
    })?;
    let judged = Judged::of(&status, load.as_ref(), &topology, log);
    match args.output {
        super::Output::Json => {
            println!("{}", serde_json::to_string_pretty(&document(&status, load.as_ref(), &judged))?)
        }
        super::Output::Table => print(&status, load.as_ref(), &judged),
    }
    if judged.weak.iter().any(|w| w.lost) {
        return Err(Exit { code: UNHEALTHY, why: "the cluster is not whole".into() }.into());
    }
    Ok(())
}

/// What is to be thought of a cluster.
struct Judged {
    weak: Vec<Weakness>,
    /// Who serves what, by datacenter.
    served: Vec<(Name, Vec<Piece>)>,
    /// What the log is kept for.
    log: Option<String>,
}

/// Something that is not as it should be.
struct Weakness {
    /// Something does not work now, and not only after the next failure.
    lost: bool,
    what: String,
    /// What to do about it, where that is known.
    remedy: Option<String>,
}

impl Weakness {
    fn of(what: String) -> Weakness {
        Weakness { lost: false, what, remedy: None }
    }
}

/// How much an api node has to do.
struct Load {
    node: Name,
    said: ApiLoadReply,
}

/// What an api node says of it; none if all of them are too old to know.
async fn load(client: &Client) -> Result<Option<Load>> {
    match client.api_load().await {
        Ok((node, said)) => Ok(Some(Load { node, said })),
        Err(error @ ClientError::NodeTooOld { .. }) => {
            tracing::debug!("how much there is to do is not known: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

impl Load {
    /// For people, in one line.
    fn sentence(&self) -> String {
        let ApiLoadReply { running, waiting, refused, probes, .. } = &self.said;
        format!(
            "{}: {running} queries running, {waiting} waiting, {refused} calls refused and {probes} views probed since its start",
            self.node
        )
    }

    /// Views that it leaves out.
    fn out(&self) -> impl Iterator<Item = Weakness> {
        self.said.out.iter().map(|view| Weakness {
            lost: false,
            what: format!("{} leaves out view {view}, which was silent or much slower than others", self.node),
            remedy: Some(format!("see what keeps {view} busy; it is asked again by itself once it answers in time")),
        })
    }

    fn document(&self) -> serde_json::Value {
        let ApiLoadReply { requests, hedges, probes, out, running, waiting, refused, views } = &self.said;
        let views = views.iter().map(|view| match &view.status {
            Ok(ViewLoadReply { calls, answered, cancelled, refused }) => json!({
                "node": view.node.as_str(), "calls": calls, "answered": answered, "cancelled": cancelled, "refused": refused,
            }),
            Err(error) => json!({ "node": view.node.as_str(), "error": error }),
        });
        json!({
            "answered_by": self.node.as_str(), "requests": requests, "hedges": hedges, "probes": probes,
            "left_out": out.iter().map(Name::as_str).collect::<Vec<_>>(),
            "running": running, "waiting": waiting, "refused": refused, "views": views.collect::<Vec<_>>(),
        })
    }
}

/// What log nodes say of themselves to those who may ask them: with another certificate than an admin's, nothing.
async fn log_warnings(connection: &Connection) -> Result<Vec<String>> {
    let (log, env) = connection.open_log().await?;
    let deadline = env.now() + LOG_WITHIN;
    let nodes = log.nodes();
    let asked = nodes.iter().map(|n| async { (n.node.clone(), log.status(&n.node, deadline).await) });
    let mut warnings = Vec::new();
    let mut drained = BTreeSet::new();
    for (node, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(status) => {
                warnings.extend(status.warnings.into_iter().map(|warning| format!("log node {node}: {warning}")));
                if status.full {
                    warnings.push(format!("log node {node}: its disk is full"));
                }
                drained.extend(status.drained);
            }
            // That it does not answer, the api node has said already.
            Err(e) => tracing::debug!("{node} says nothing of itself: {e}"),
        }
    }
    warnings.extend(drained.iter().map(|dc| format!("{dc} is drained: the log's leader stays out of it")));
    Ok(warnings)
}

impl Judged {
    /// What is missing, what the next failure would take away, and what to do.
    fn of(status: &ApiStatusReply, load: Option<&Load>, topology: &Topology, log_warnings: Vec<String>) -> Judged {
        let views = status.views.iter().filter_map(|view| {
            let said = view.status.as_ref().ok()?;
            Some(Seen { node: &view.node, datacenter: &view.datacenter, status: said })
        });
        let (seen, planned) = (views.collect::<Vec<_>>(), coverage::planned(topology));
        let infos = status.log.iter().filter_map(|n| n.status.as_ref().ok());
        // Others may not have heard yet of the newest epoch, of the leader, of what was let go.
        let newest = infos.max_by_key(|info| (info.epoch, info.term, info.committed, info.first));

        let mut weak = silent(status);
        weak.extend(seen.iter().filter_map(lag));
        weak.extend(load.into_iter().flat_map(Load::out));
        let log_first = newest.map(|info| info.first);
        weak.extend(coverage::gaps(&planned, &seen, log_first).into_iter().map(|gap| Weakness {
            lost: gap.is_open(),
            what: gap.to_string(),
            remedy: Some(gap.remedy.to_string()),
        }));
        weak.extend(planned.iter().filter_map(|planned| otherwise(planned, &seen)));
        weak.extend(log_warnings.into_iter().map(Weakness::of));
        let options = ShortenOptions::of(topology);
        let decision = newest.map(|log| decide(&options, &seen, log));
        if let Some(decision) = decision.as_ref().filter(|decision| decision.is_worrying(&options)) {
            weak.push(Weakness::of(decision.sentence(&options)));
        }
        let datacenters = coverage::datacenters(&planned, &seen).into_iter();
        let served = datacenters.map(|datacenter| (datacenter.clone(), coverage::served(&seen, datacenter))).collect();
        Judged { weak, served, log: decision.map(|decision| decision.sentence(&options)) }
    }
}

/// Nodes that do not answer, and a log without a leader.
fn silent(status: &ApiStatusReply) -> Vec<Weakness> {
    let error =
        |what: &str, node: &Name, error: &String| Weakness::of(format!("{what} {node} does not answer: {error}"));
    let log = status.log.iter().filter_map(|n| Some(error("log node", &n.node, n.status.as_ref().err()?)));
    let views = status.views.iter().filter_map(|n| Some(error("view", &n.node, n.status.as_ref().err()?)));
    let mut weak: Vec<Weakness> = log.chain(views).collect();
    if !status.log.iter().any(|n| n.status.as_ref().is_ok_and(|info| info.leader.is_some())) {
        let what = "no log node knows a leader: writes and Latest reads fail".into();
        weak.insert(0, Weakness { lost: true, what, remedy: None });
    }
    weak
}

/// A node that was told to hold something else than the topology says: with its disk it would lose that, too.
fn otherwise(planned: &Planned, seen: &[Seen<'_>]) -> Option<Weakness> {
    let node = &planned.node;
    let views = seen.iter().filter(|view| view.node == node && view.status.state != ViewState::Draining);
    let held: Vec<Served> = views.flat_map(|view| view.status.serves.clone()).collect();
    if held.is_empty() || !holds_otherwise(&held, &planned.serves) {
        return None;
    }
    let what = format!("{node} holds {}, and the topology says {}", spelled(&held), spelled(&planned.serves));
    let remedy = lines(&held)
        .map(|lines| format!("once nothing moves any more, let the topology say {}", lines.replace('\n', ", ")));
    Some(Weakness { lost: false, what, remedy })
}

/// A view that serves, and is further behind than api nodes bear of a whole datacenter.
fn lag(view: &Seen<'_>) -> Option<Weakness> {
    let ViewStatusReply { state, applied, committed, window, .. } = view.status;
    let behind = committed.0.saturating_sub(applied.0);
    let far = *state == ViewState::Serving && behind > window / 8;
    far.then(|| {
        Weakness::of(format!("view {} is {behind} entries behind the log: others are asked instead", view.node))
    })
}

fn print(status: &ApiStatusReply, load: Option<&Load>, judged: &Judged) {
    let recent = status.recent.map_or("none yet".to_owned(), |v| v.to_string());
    println!("answered by {} in {}; its newest covered version is {recent}\n", status.node, status.datacenter);

    let mut log = Table::new();
    log.load_style(presets::NOTHING).set_header(["LOG", "DATACENTER", "ROLE", "FIRST", "LAST", "COMMITTED", "ON DISK"]);
    for node in &status.log {
        let mut row = vec![node.node.to_string(), node.datacenter.to_string()];
        match &node.status {
            Ok(info) => row.extend(log_row(info)),
            Err(error) => row.push(error.clone()),
        }
        log.add_row(row);
    }
    println!("{log}\n");

    let mut views = Table::new();
    let header = ["VIEW", "DATACENTER", "STATE", "PARTITION", "APPLIED", "BEHIND", "DURABLE", "FACTS", "CALLS"];
    views.load_style(presets::NOTHING).set_header(header);
    for node in &status.views {
        let mut row = vec![node.node.to_string(), node.datacenter.to_string()];
        match &node.status {
            Ok(view) => row.extend(view_row(view)),
            Err(error) => row.push(error.clone()),
        }
        views.add_row(row);
    }
    println!("{views}\n");
    println!("{} requests to views from this api node, {} of them hedges", status.requests, status.hedges);
    if let Some(load) = load {
        println!("{}", load.sentence());
    }
    if let Some(log) = &judged.log {
        println!("{log}");
    }
    if judged.served.iter().flat_map(|(_, pieces)| pieces).all(|piece| piece.serving.len() >= 2) {
        println!("every point of every space is served at least twice in each datacenter");
    }
    for weakness in &judged.weak {
        println!("{} {}", if weakness.lost { "LOST" } else { "WEAK" }, weakness.what);
        if let Some(remedy) = &weakness.remedy {
            println!("     {}", remedy.replace('\n', "\n     "));
        }
    }
}

fn log_row(info: &LogInfoReply) -> Vec<String> {
    let role = match (&info.leader, info.members.iter().find(|m| m.node == info.node)) {
        (Some(leader), _) if *leader == info.node => "leader",
        (_, Some(member)) if member.voter => "voter",
        (_, Some(_)) => "learner",
        (_, None) => "not a member",
    };
    let index = |i: Option<beam_wire::LogIndex>| i.map_or("-".to_owned(), |i| i.to_string());
    let size = indicatif::HumanBytes(info.bytes).to_string();
    vec![role.to_owned(), info.first.to_string(), index(info.last), index(info.committed), size]
}

fn view_row(view: &ViewStatusReply) -> Vec<String> {
    let state = match view.state {
        ViewState::Booting => "booting",
        ViewState::Serving => "serving",
        ViewState::Draining => "draining",
        ViewState::Damaged => "damaged",
    };
    vec![
        state.to_owned(),
        spelled(&view.serves),
        view.applied.to_string(),
        view.committed.0.saturating_sub(view.applied.0).to_string(),
        view.durable.to_string(),
        view.facts.to_string(),
        view.calls.to_string(),
    ]
}

fn document(status: &ApiStatusReply, load: Option<&Load>, judged: &Judged) -> serde_json::Value {
    let log = status.log.iter().map(|n| match &n.status {
        Ok(i) => json!({
            "node": n.node.as_str(), "datacenter": n.datacenter.as_str(), "epoch": i.epoch.map(|e| e.0), "term": i.term,
            "leader": i.leader.as_ref().map(Name::as_str), "first": i.first.0, "last": i.last.map(|x| x.0),
            "committed": i.committed.map(|x| x.0), "bytes": i.bytes,
        }),
        Err(error) => json!({ "node": n.node.as_str(), "datacenter": n.datacenter.as_str(), "error": error }),
    });
    let views = status.views.iter().map(|n| match &n.status {
        Ok(v) => json!({
            "node": n.node.as_str(), "datacenter": n.datacenter.as_str(), "state": format!("{:?}", v.state).to_lowercase(),
            "serves": v.serves.iter().map(|s| json!({ "space": s.space.as_str(), "range": s.range.to_string() })).collect::<Vec<_>>(),
            "oldest": v.oldest.0, "applied": v.applied.0, "durable": v.durable.0, "checkpoint": v.checkpoint.0,
            "committed": v.committed.0, "facts": v.facts, "calls": v.calls,
        }),
        Err(error) => json!({ "node": n.node.as_str(), "datacenter": n.datacenter.as_str(), "error": error }),
    });
    json!({
        "version": 1,
        "answered_by": status.node.as_str(),
        "datacenter": status.datacenter.as_str(),
        "recent": status.recent.map(|v| json!({ "epoch": v.epoch.0, "index": v.index.0 })),
        "log": log.collect::<Vec<_>>(),
        "views": views.collect::<Vec<_>>(),
        "requests": status.requests,
        "hedges": status.hedges,
        "load": load.map(Load::document),
        "coverage": judged.served.iter().map(|(datacenter, pieces)| json!({
            "datacenter": datacenter.as_str(),
            "pieces": pieces.iter().map(piece).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "log_kept_for": judged.log,
        "weaknesses": judged.weak.iter().map(|w| json!({ "lost": w.lost, "what": w.what, "remedy": w.remedy })).collect::<Vec<_>>(),
    })
}

fn piece(piece: &Piece) -> serde_json::Value {
    let names = |nodes: &BTreeSet<Name>| nodes.iter().map(Name::as_str).map(str::to_owned).collect::<Vec<_>>();
    json!({
        "space": piece.space.as_str(),
        "range": range_name(&piece.range),
        "serving": names(&piece.serving),
        "draining": names(&piece.draining),
        "booting": names(&piece.booting),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::message::api::NodeStatus;

    fn name(name: &str) -> Name {
        Name::new(name).unwrap()
    }

    #[test]
    fn views_that_an_api_node_leaves_out_are_named() {
        let said = |view: &str, status| NodeStatus { node: name(view), datacenter: name("va"), status };
        let busy = ViewLoadReply { calls: 1, answered: 20, cancelled: 3, refused: 4 };
        let said = ApiLoadReply {
            requests: 100,
            hedges: 5,
            probes: 2,
            out: vec![name("view-va-2a")],
            running: 16,
            waiting: 7,
            refused: 9,
            views: vec![said("view-va-1a", Ok(busy)), said("view-va-2a", Err("it did not answer".to_owned()))],
        };
        let load = Load { node: name("api-va-1"), said };
        let weak: Vec<Weakness> = load.out().collect();
        assert_eq!(weak.len(), 1);
        assert!(!weak[0].lost && weak[0].what.starts_with("api-va-1 leaves out view view-va-2a"), "{}", weak[0].what);
        let line = "api-va-1: 16 queries running, 7 waiting, 9 calls refused and 2 views probed since its start";
        assert_eq!(load.sentence(), line);
        let document = load.document();
        assert_eq!(document["left_out"], json!(["view-va-2a"]));
        assert_eq!(document["views"][0]["cancelled"], json!(3));
        assert_eq!(document["views"][1]["error"], json!("it did not answer"));
    }
}

//! `beam status`: nodes, leader, lag, replicas per partition and datacenter, and what may still fail.

use super::connect::Connection;
use super::{Exit, UNHEALTHY, runtime};
use anyhow::Result;
use beam_wire::message::api::{ApiStatusReply, NodeStatus};
use beam_wire::message::log::LogInfoReply;
use beam_wire::message::view::{ViewState, ViewStatusReply};
use beam_wire::{Name, Point, Range, Space};
use comfy_table::{Table, presets};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
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
    let (status, log) = runtime()?.block_on(async {
        let status = args.connection.open().await?.0.status().await?;
        anyhow::Ok((status, log_warnings(&args.connection).await?))
    })?;
    let mut weak = weaknesses(&status);
    weak.extend(log.into_iter().map(|what| Weakness { lost: false, what }));
    match args.output {
        super::Output::Json => println!("{}", serde_json::to_string_pretty(&document(&status, &weak))?),
        super::Output::Table => print(&status, &weak),
    }
    if weak.iter().any(|w| w.lost) {
        return Err(Exit { code: UNHEALTHY, why: "the cluster is not whole".into() }.into());
    }
    Ok(())
}

/// Something that is not as it should be.
struct Weakness {
    /// Something does not work now, and not only after the next failure.
    lost: bool,
    what: String,
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

/// What is missing, and what the next failure would take away.
fn weaknesses(status: &ApiStatusReply) -> Vec<Weakness> {
    let mut weak = vec![];
    let infos: Vec<&LogInfoReply> = status.log.iter().filter_map(|n| n.status.as_ref().ok()).collect();
    for node in &status.log {
        if let Err(error) = &node.status {
            weak.push(Weakness { lost: false, what: format!("log node {} does not answer: {error}", node.node) });
        }
    }
    if !infos.iter().any(|i| i.leader.is_some()) {
        weak.push(Weakness { lost: true, what: "no log node knows a leader: writes and Latest reads fail".into() });
    }
    for node in &status.views {
        if let Err(error) = &node.status {
            weak.push(Weakness { lost: false, what: format!("view {} does not answer: {error}", node.node) });
        }
    }
    let datacenters: BTreeSet<&Name> = status.views.iter().chain_names(&status.log);
    for datacenter in datacenters {
        for space in Space::ALL {
            let least = least_covered(status, datacenter, space);
            if let Some((range, count)) = least.filter(|(_, count)| *count < 2) {
                let what = match count {
                    0 => format!("{datacenter}: no view serves {space} {range}; queries there ask other datacenters"),
                    _ => format!("{datacenter}: a single view serves {space} {range}; start another"),
                };
                weak.push(Weakness { lost: count == 0, what });
            }
        }
    }
    weak
}

/// Names of the datacenters of two lists of nodes.
trait ChainNames<'a> {
    fn chain_names<B>(self, other: &'a [NodeStatus<B>]) -> BTreeSet<&'a Name>;
}

impl<'a, A: 'a, I: Iterator<Item = &'a NodeStatus<A>>> ChainNames<'a> for I {
    fn chain_names<B>(self, other: &'a [NodeStatus<B>]) -> BTreeSet<&'a Name> {
        self.map(|n| &n.datacenter).chain(other.iter().map(|n| &n.datacenter)).collect()
    }
}

/// The part of a space that the fewest views of a datacenter serve, and how many those are.
fn least_covered(status: &ApiStatusReply, datacenter: &Name, space: Space) -> Option<(Range, usize)> {
    let serving = status.views.iter().filter(|v| v.datacenter == *datacenter).filter_map(|v| v.status.as_ref().ok());
    let ranges: Vec<Range> = serving
        .filter(|v| v.state == ViewState::Serving)
        .flat_map(|v| v.serves.iter().filter(|s| s.space == space).map(|s| s.range))
        .collect();
    let mut starts: BTreeSet<u64> = [0].into();
    for range in &ranges {
        starts.insert(range.first.0);
        starts.extend(range.last.0.checked_add(1));
    }
    let starts: Vec<u64> = starts.into_iter().collect();
    let last_of = |i: usize| starts.get(i + 1).map_or(u64::MAX, |next| next - 1);
    (0..starts.len())
        .map(|i| {
            let count = ranges.iter().filter(|r| r.contains(Point(starts[i]))).count();
            (Range { first: Point(starts[i]), last: Point(last_of(i)) }, count)
        })
        .min_by_key(|(_, count)| *count)
}

fn print(status: &ApiStatusReply, weak: &[Weakness]) {
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
    if weak.is_empty() {
        println!("every point of every space is served at least twice in each datacenter");
    }
    for weakness in weak {
        println!("{} {}", if weakness.lost { "LOST" } else { "WEAK" }, weakness.what);
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
    };
    vec![
        state.to_owned(),
        partition(view),
        view.applied.to_string(),
        view.committed.0.saturating_sub(view.applied.0).to_string(),
        view.durable.to_string(),
        view.facts.to_string(),
        view.calls.to_string(),
    ]
}

/// A view that holds the same n-th of several spaces, in short.
fn partition(view: &ViewStatusReply) -> String {
    let mut by_range: BTreeMap<Range, Vec<&str>> = BTreeMap::new();
    for served in &view.serves {
        by_range.entry(served.range).or_default().push(served.space.as_str());
    }
    let part = |range: &Range| {
        let of = |n: u32| (0..n).find(|i| Range::partition(*i, n) == *range).map(|i| format!("{}/{n}", i + 1));
        (1..=64).find_map(of).unwrap_or_else(|| range.to_string())
    };
    let all = |spaces: &Vec<&str>| spaces.len() == Space::ALL.len();
    let describe = |(range, spaces): (&Range, &Vec<&str>)| match all(spaces) {
        true => part(range),
        false => format!("{} {}", spaces.join("+"), part(range)),
    };
    by_range.iter().map(describe).collect::<Vec<_>>().join(", ")
}

fn document(status: &ApiStatusReply, weak: &[Weakness]) -> serde_json::Value {
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
        "weaknesses": weak.iter().map(|w| json!({ "lost": w.lost, "what": w.what })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::message::view::Served;
    use beam_wire::{Epoch, LogIndex};

    fn view(datacenter: &str, state: ViewState, part: (u32, u32)) -> NodeStatus<ViewStatusReply> {
        let serves = Space::ALL.map(|space| Served { space, range: Range::partition(part.0, part.1) });
        let zero = LogIndex(0);
        NodeStatus {
            node: Name::new("v").unwrap(),
            datacenter: Name::new(datacenter).unwrap(),
            status: Ok(ViewStatusReply {
                epoch: Some(Epoch(1)),
                serves: serves.into(),
                state,
                oldest: zero,
                applied: zero,
                durable: zero,
                checkpoint: zero,
                committed: zero,
                facts: 0,
                window: 1,
                calls: 0,
            }),
        }
    }

    fn least(views: Vec<NodeStatus<ViewStatusReply>>) -> Option<(Range, usize)> {
        let va = Name::new("va").unwrap();
        let (log, recent) = (vec![], None);
        let status =
            ApiStatusReply { node: va.clone(), datacenter: va.clone(), recent, log, views, hedges: 0, requests: 0 };
        least_covered(&status, &va, Space::Object)
    }

    #[test]
    fn the_least_covered_range_is_found() {
        use ViewState::*;
        assert_eq!(least(vec![]), Some((Range::ALL, 0)));
        let twice = || vec![view("va", Serving, (0, 2)), view("va", Serving, (0, 2)), view("va", Serving, (1, 2))];
        assert_eq!(least(twice()), Some((Range::partition(1, 2), 1)));
        let mut whole = twice();
        whole.push(view("va", Booting, (1, 2)));
        whole.push(view("or", Serving, (1, 2)));
        assert_eq!(
            least(whole),
            Some((Range::partition(1, 2), 1)),
            "neither booting views nor other datacenters count"
        );
        let mut mixed = twice();
        mixed.push(view("va", Serving, (3, 4)));
        assert_eq!(least(mixed), Some((Range::partition(2, 4), 1)));
    }
}

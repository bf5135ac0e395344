//! Who shall hold which partitions of the next cut, and what to do next on the way there. Plain data in, plain data
//! out.
//!
//! Everything is decided from what the nodes say of themselves, so that a change which was broken off goes on
//! wherever it is taken up again: a view that is of the new cut already stays where it is.

use crate::coverage::{self, Piece, served};
use crate::partitions::{partition_of, range_name};
use beam_wire::message::view::{Served, ViewInstancesReply, ViewState};
use beam_wire::{Name, Range, Space};
use std::collections::{BTreeMap, BTreeSet};

/// A node that holds views, and what it said.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The node.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// How its views are, or why that is not known.
    pub says: Result<ViewInstancesReply, String>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Into how many partitions the data is to be cut.
    pub partitions: u32,
    /// How many nodes are to hold each, in each datacenter.
    pub replicas: u32,
}

/// Who shall hold what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One for each node that answers, by datacenter and name.
    pub targets: Vec<Target>,
    /// All holds as is wanted, and nothing else.
    pub nothing_to_do: bool,
    /// What is worth knowing, a sentence each.
    pub warnings: Vec<String>,
    /// Why it is not done unless it is forced.
    pub refused: Option<String>,
    /// Why it cannot be.
    pub impossible: Option<String>,
}

/// What one node shall hold in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// Partitions of the new cut, from 0.
    pub parts: BTreeSet<u32>,
    /// The same, for each of its spaces.
    pub serves: Vec<Served>,
    /// One of its views holds just this already.
    pub has: bool,
    /// About how much it will take on disk, while what the node holds now is there, too; none if nobody knows.
    pub takes_bytes: Option<u64>,
    /// Room on its disk.
    pub free_bytes: Option<u64>,
}

/// More would make each query ask more views than a datacenter has servers.
const PARTITIONS_MAX: u32 = 4096;
/// A view that has this many entries still to apply is not ready to take over.
pub const LAG_MAX: u64 = 5_000;

/// A sixteen-thousandth of all points.
const OVERLAP_UNIT: u128 = 1 << 50;

/// Plans a cut.
pub fn plan(wanted: Wanted, seen: &[Seen]) -> Plan {
    let mut plan = Plan::default();
    let Wanted { partitions, replicas } = wanted;
    if !(1..=PARTITIONS_MAX).contains(&partitions) || replicas == 0 {
        let why = format!("there can be 1 to {PARTITIONS_MAX} partitions, each held by at least one node");
        return Plan { impossible: Some(why), ..plan };
    }
    for node in seen {
        if let Err(why) = &node.says {
            plan.warnings.push(format!("{} is left out, and what it holds does not count: {why}", node.node));
        }
    }
    // Nodes that hold different spaces are cut apart from one another.
    let mut groups: BTreeMap<(&Name, Vec<Space>), Vec<&Seen>> = BTreeMap::new();
    for node in seen.iter().filter(|node| node.says.is_ok()) {
        groups.entry((&node.datacenter, spaces_of(node))).or_default().push(node);
    }
    if groups.is_empty() {
        plan.impossible = Some("no node that holds views answers".into());
        return plan;
    }
    for ((datacenter, spaces), nodes) in groups {
        if nodes.len() < replicas as usize {
            let why =
                format!("{datacenter} has {}, and each partition is to lie on {replicas}", count_nodes(nodes.len()));
            plan.impossible.get_or_insert(why);
            continue;
        }
        let density = density(&nodes);
        for (node, parts) in nodes.iter().zip(assign(wanted, &nodes)) {
            let serves = serves_of(&spaces, &parts, partitions);
            let says = node.says.as_ref().expect("only those that answer are in groups");
            let has = views_of(node).any(|view| view.state != ViewState::Draining && sorted(&view.serves) == serves);
            let takes_bytes = density.map(|per_point| (per_point * width(&serves) as f64) as u64);
            plan.targets.push(Target {
                node: node.node.clone(),
                datacenter: datacenter.clone(),
                parts,
                serves,
                has,
                takes_bytes: if has { Some(0) } else { takes_bytes },
                free_bytes: says.free_bytes,
            });
        }
    }
    plan.targets.sort_by(|a, b| (&a.datacenter, &a.node).cmp(&(&b.datacenter, &b.node)));
    plan.nothing_to_do = plan.targets.iter().all(|target| target.has) && superfluous(&plan.targets, seen).is_empty();
    plan.refused = refusal(wanted, &plan, seen);
    plan
}

/// Why the plan is not to be carried out, though it can be.
fn refusal(wanted: Wanted, plan: &Plan, seen: &[Seen]) -> Option<String> {
    let least = wanted.replicas.min(2) as usize;
    // What is thin though all nodes answer is what the plan itself makes good: a node was replaced or wiped. But a node
    // that is down comes back with what it held, and is needed more than another cut.
    let down = |datacenter: &Name| seen.iter().find(|node| node.says.is_err() && node.datacenter == *datacenter);
    let thin =
        thin_spots(seen, least, &|_, _| true).into_iter().find_map(|thin| down(&thin.0).map(|down| (thin, down)));
    if let Some(((datacenter, piece), down)) = thin {
        return Some(format!(
            "in {datacenter}, {} of the {} space is served by {} now, and {} does not answer: start it again, or another \
             in its place, before anything is moved",
            range_name(&piece.range),
            piece.space,
            count_nodes(piece.serving.len()),
            down.node
        ));
    }
    let crowded = plan.targets.iter().find(|target| target.takes_bytes > target.free_bytes.map(|free| free / 10 * 9));
    crowded.filter(|target| target.free_bytes.is_some()).map(|target| {
        let (takes, free) = (mib(target.takes_bytes), mib(target.free_bytes));
        format!("{} needs about {takes} more while both cuts are there, and has {free}", target.node)
    })
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tell these nodes what to hold.
    Hold(Vec<(Name, Vec<Served>)>),
    /// Wait.
    Wait,
    /// Tell these nodes what to let go of.
    Drop(Vec<(Name, Vec<Served>)>),
    /// All is as it shall be.
    Done,
}

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// New views that serve.
    pub serving: usize,
    /// New views in all.
    pub wanted: usize,
    /// Old views that are still there.
    pub old: usize,
    /// What is waited for, a phrase each.
    pub waits: Vec<String>,
}

/// What to do next, and how far it has come. First every new view must serve; only then do old ones go, node after
/// node in each datacenter, and none whose going would leave a point to fewer nodes than is wanted.
pub fn next(wanted: Wanted, targets: &[Target], seen: &[Seen]) -> (Step, Progress) {
    let mut progress = Progress { wanted: targets.len(), ..Progress::default() };
    let mut holds = Vec::new();
    for target in targets {
        let Some(node) = seen.iter().find(|seen| seen.node == target.node) else {
            progress.waits.push(format!("DNS does not name {}", target.node));
            continue;
        };
        let says = match &node.says {
            Ok(says) => says,
            Err(why) => {
                progress.waits.push(format!("{} does not answer: {why}", target.node));
                continue;
            }
        };
        let Some(view) = says.instances.iter().find(|view| sorted(&view.status.serves) == target.serves) else {
            holds.push((target.node.clone(), target.serves.clone()));
            progress.waits.push(format!("{} is told", target.node));
            continue;
        };
        let status = &view.status;
        let lag = status.committed.0.saturating_sub(status.applied.0);
        match (status.state, view.copied) {
            (ViewState::Serving, _) if lag <= LAG_MAX => progress.serving += 1,
            (ViewState::Booting, Some(copied)) => {
                progress.waits.push(format!("{} has copied {copied} records", target.node));
            }
            (ViewState::Draining, _) => progress.waits.push(format!("{} stops", target.node)),
            _ => progress.waits.push(format!("{} is {lag} entries behind", target.node)),
        }
    }
    let old = superfluous(targets, seen);
    progress.old = old.len();
    if !holds.is_empty() {
        return (Step::Hold(holds), progress);
    }
    if progress.serving < targets.len() {
        return (Step::Wait, progress);
    }
    let mut drops: Vec<(Name, Vec<Served>)> = Vec::new();
    let mut busy: BTreeSet<&Name> = BTreeSet::new();
    for (node, _, state) in &old {
        if *state == ViewState::Draining {
            progress.waits.push(format!("{} drains what it held", node.node));
            busy.insert(&node.datacenter);
        }
    }
    for (node, serves, _) in &old {
        if !busy.insert(&node.datacenter) {
            continue;
        }
        let stays = |name: &Name, held: &[Served]| *name != node.node || sorted(held) != *serves;
        match thin_spots(seen, wanted.replicas as usize, &stays).into_iter().find(|(dc, _)| *dc == node.datacenter) {
            Some((_, piece)) => progress.waits.push(format!(
                "{} keeps what it held: without it, {} of the {} space would be served by {} in {}",
                node.node,
                range_name(&piece.range),
                piece.space,
                count_nodes(piece.serving.len()),
                node.datacenter
            )),
            None => drops.push((node.node.clone(), serves.clone())),
        }
    }
    match (old.is_empty(), drops.is_empty()) {
        (true, _) => (Step::Done, progress),
        (false, true) => (Step::Wait, progress),
        (false, false) => {
            progress.waits.extend(drops.iter().map(|(node, _)| format!("{node} drains what it held")));
            (Step::Drop(drops), progress)
        }
    }
}

/// Views of the nodes in the plan that are not what these shall hold: what, and in what state.
fn superfluous<'a>(targets: &[Target], seen: &'a [Seen]) -> Vec<(&'a Seen, Vec<Served>, ViewState)> {
    let mut found = Vec::new();
    for node in seen {
        let Some(target) = targets.iter().find(|target| target.node == node.node) else { continue };
        let others = views_of(node).filter(|view| sorted(&view.serves) != target.serves);
        found.extend(others.map(|view| (node, sorted(&view.serves), view.state)));
    }
    found
}

/// In each datacenter, what the fewest nodes serve, counting only views that `stays` lets count: where that is fewer
/// than `least`.
fn thin_spots(seen: &[Seen], least: usize, stays: &dyn Fn(&Name, &[Served]) -> bool) -> Vec<(Name, Piece)> {
    let views = seen.iter().flat_map(|node| {
        let view = |status| coverage::Seen { node: &node.node, datacenter: &node.datacenter, status };
        views_of(node).map(view)
    });
    let staying: Vec<coverage::Seen<'_>> = views.filter(|view| stays(view.node, &view.status.serves)).collect();
    let datacenters: BTreeSet<&Name> = seen.iter().filter(|s| s.says.is_ok()).map(|s| &s.datacenter).collect();
    let thinnest = |datacenter: &Name| {
        let piece = served(&staying, datacenter).into_iter().min_by_key(|piece| piece.serving.len())?;
        (piece.serving.len() < least).then(|| (datacenter.clone(), piece))
    };
    datacenters.into_iter().filter_map(thinnest).collect()
}

/// Which partitions each node shall hold, in their order: each partition lies on as many as wanted, and every node
/// holds at least one. What is of the new cut already stays, and what is to move goes where most of it is.
fn assign(wanted: Wanted, nodes: &[&Seen]) -> Vec<BTreeSet<u32>> {
    let Wanted { partitions, replicas } = wanted;
    let mut parts: Vec<BTreeSet<u32>> = nodes.iter().map(|node| kept(node, partitions)).collect();
    let was_kept: Vec<bool> = parts.iter().map(|parts| !parts.is_empty()).collect();
    let load_max = (partitions as usize * replicas as usize).div_ceil(nodes.len());
    let held: Vec<Vec<Range>> = nodes.iter().map(|node| ranges_of(node)).collect();
    let overlap = |node: usize, part: u32| -> u128 {
        let range = Range::partition(part, partitions);
        let common: u128 = held[node].iter().filter_map(|held| held.intersect(&range)).map(points).sum();
        // Partitions that seem equally long differ by a point or two.
        (common + OVERLAP_UNIT / 2) / OVERLAP_UNIT
    };
    for part in 0..partitions {
        let holders = parts.iter().filter(|parts| parts.contains(&part)).count();
        for _ in holders..replicas as usize {
            let free = (0..nodes.len()).filter(|node| !parts[*node].contains(&part));
            let rank = |node: &usize| {
                let load = parts[*node].len();
                (load >= load_max, was_kept[*node], std::cmp::Reverse(overlap(*node, part)), load, &nodes[*node].node)
            };
            let best = free.min_by_key(rank).expect("there are at least as many nodes as replicas");
            parts[best].insert(part);
        }
    }
    for node in 0..nodes.len() {
        if parts[node].is_empty() {
            let holders = |part: &u32| parts.iter().filter(|parts| parts.contains(part)).count();
            let thinnest = |part: &u32| (holders(part), std::cmp::Reverse(overlap(node, *part)));
            let part = (0..partitions).min_by_key(thinnest).expect("there is a partition");
            parts[node].insert(part);
        }
    }
    parts
}

/// The partitions that a node holds already in a view of just this cut.
fn kept(node: &Seen, partitions: u32) -> BTreeSet<u32> {
    let spaces = spaces_of(node);
    let of_cut = |serves: &[Served]| {
        let parts: Option<BTreeSet<u32>> = serves.iter().map(|served| partition_of(served.range, partitions)).collect();
        parts.filter(|parts| serves_of(&spaces, parts, partitions) == sorted(serves))
    };
    let staying = views_of(node).filter(|view| view.state != ViewState::Draining);
    staying.filter_map(|view| of_cut(&view.serves)).max_by_key(BTreeSet::len).unwrap_or_default()
}

fn serves_of(spaces: &[Space], parts: &BTreeSet<u32>, n: u32) -> Vec<Served> {
    let of = |space: &Space| {
        let space = *space;
        parts.iter().map(move |part| Served { space, range: Range::partition(*part, n) })
    };
    sorted(&spaces.iter().flat_map(of).collect::<Vec<_>>())
}

fn views_of(node: &Seen) -> impl Iterator<Item = &beam_wire::message::view::ViewStatusReply> {
    node.says.iter().flat_map(|says| &says.instances).map(|view| &view.status)
}

fn spaces_of(node: &Seen) -> Vec<Space> {
    views_of(node)
        .flat_map(|view| &view.serves)
        .map(|served| served.space)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// What a node holds of its first space, and could copy from itself.
fn ranges_of(node: &Seen) -> Vec<Range> {
    let Some(first) = spaces_of(node).first().copied() else { return Vec::new() };
    let able = views_of(node).filter(|view| view.state != ViewState::Booting);
    able.flat_map(|view| &view.serves).filter(|served| served.space == first).map(|served| served.range).collect()
}

fn sorted(serves: &[Served]) -> Vec<Served> {
    let mut serves = serves.to_vec();
    serves.sort_unstable();
    serves
}

fn points(range: Range) -> u128 {
    u128::from(range.last.0) - u128::from(range.first.0) + 1
}

fn width(serves: &[Served]) -> u128 {
    serves.iter().map(|served| points(served.range)).sum()
}

/// Bytes on disk for each point of each space, as views that serve have them.
fn density(nodes: &[&Seen]) -> Option<f64> {
    let views = nodes.iter().flat_map(|node| node.says.iter()).flat_map(|says| &says.instances);
    let serving = views.filter(|view| view.status.state == ViewState::Serving);
    let sizes = serving.filter_map(|view| Some((view.disk_bytes? as f64, width(&view.status.serves) as f64)));
    let (bytes, width) = sizes.fold((0.0, 0.0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
    (width > 0.0).then(|| bytes / width)
}

fn count_nodes(count: usize) -> String {
    match count {
        0 => "no node".into(),
        1 => "a single node".into(),
        n => format!("{n} nodes"),
    }
}

fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("an unknown size".into(), |bytes| format!("{} MiB", bytes >> 20))
}

#[cfg(test)]
mod tests;

//! What a topology may be, but better were not.

use super::{Node, Topology};
use crate::identity::Role;
use crate::ids::Name;
use crate::space::{Point, Range, Space};
use std::collections::BTreeSet;

pub(super) fn warnings(topology: &Topology) -> Vec<String> {
    let mut warnings = Vec::new();
    log_nodes(topology, &mut warnings);
    for datacenter in &topology.datacenters {
        if topology.nodes_in(datacenter).next().is_none() {
            warnings.push(format!("datacenter {datacenter} has no node"));
            continue;
        }
        if !topology.nodes_in(datacenter).any(|node| node.has_role(Role::Api)) {
            warnings.push(format!("datacenter {datacenter} has no api node: its clients are answered from elsewhere"));
        }
        for space in Space::ALL {
            views(topology, datacenter, space, &mut warnings);
        }
    }
    warnings
}

fn log_nodes(topology: &Topology, warnings: &mut Vec<String>) {
    let all = topology.nodes_with(Role::Log).count();
    if all < 3 {
        let nodes = match all {
            0 => "there is no log node: nothing can be written".into(),
            1 => "there is 1 log node: losing it loses the log".into(),
            n => format!("there are {n} log nodes: losing one stops all writes; three or more go on"),
        };
        warnings.push(nodes);
        return;
    }
    for datacenter in &topology.datacenters {
        let here = topology.nodes_in(datacenter).filter(|node| node.has_role(Role::Log)).count();
        let (left, majority) = (all - here, all / 2 + 1);
        if left < majority {
            warnings.push(format!(
                "losing datacenter {datacenter} stops all writes: {left} of {all} log nodes would be left, and {majority} must agree"
            ));
        }
    }
}

/// Design: at least two instances of each partition in each datacenter.
fn views(topology: &Topology, datacenter: &Name, space: Space, warnings: &mut Vec<String>) {
    let holding = |node: &&Node| node.serves.iter().any(|served| served.space == space);
    let views: Vec<&Node> = topology.nodes_in(datacenter).filter(holding).collect();
    if views.is_empty() {
        warnings.push(format!("datacenter {datacenter} holds nothing of space {space}: it cannot answer alone"));
        return;
    }
    for (range, holders) in coverage(&views, space) {
        match holders[..] {
            [] => warnings.push(format!("no view in datacenter {datacenter} holds {range} of space {space}")),
            [only] => warnings.push(format!(
                "in datacenter {datacenter}, only view {only} holds {range} of space {space}: two or more go on when one is down"
            )),
            _ => {}
        }
    }
}

/// All points, cut where the set of views that hold them changes.
fn coverage<'a>(views: &[&'a Node], space: Space) -> Vec<(Range, Vec<&'a Name>)> {
    let ranges = || {
        let of_node = move |node: &&'a Node| {
            let name = &node.name;
            node.serves.iter().filter(move |served| served.space == space).map(move |served| (name, served.range))
        };
        views.iter().flat_map(of_node).collect::<Vec<_>>()
    };
    let mut starts = BTreeSet::from([Range::ALL.first]);
    for (_, range) in ranges() {
        starts.insert(range.first);
        starts.extend(range.last.0.checked_add(1).map(Point));
    }
    let starts: Vec<Point> = starts.into_iter().collect();
    let mut pieces: Vec<(Range, Vec<&Name>)> = Vec::new();
    for (i, &first) in starts.iter().enumerate() {
        let last = starts.get(i + 1).map_or(Range::ALL.last, |next| Point(next.0 - 1));
        let holders: Vec<&Name> =
            ranges().into_iter().filter(|(_, range)| range.contains(first)).map(|(name, _)| name).collect();
        match pieces.last_mut() {
            Some((range, before)) if *before == holders => range.last = last,
            _ => pieces.push((Range { first, last }, holders)),
        }
    }
    pieces
}

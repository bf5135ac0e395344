//! What a topology may be, but better were not.

use super::{Node, Topology};
use crate::identity::Role;
use crate::ids::Name;
use crate::space::{Space, overlay};

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
    let ranges = views.iter().flat_map(|node| {
        let held = node.serves.iter().filter(|served| served.space == space);
        held.map(|served| (served.range, &node.name))
    });
    for (range, holders) in overlay(&ranges.collect::<Vec<_>>()) {
        match holders[..] {
            [] => warnings.push(format!("no view in datacenter {datacenter} holds {range} of space {space}")),
            [only] => warnings.push(format!(
                "in datacenter {datacenter}, only view {only} holds {range} of space {space}: two or more go on when one is down"
            )),
            _ => {}
        }
    }
}

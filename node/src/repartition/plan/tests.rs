//! Plans, and what comes of following them while nodes die, come back, and lose their disks.

use super::*;
use beam_wire::LogIndex;
use beam_wire::message::view::{Instance, ViewStatusReply};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn name(text: impl Into<String>) -> Name {
    Name::new(text).unwrap()
}

fn part(parts: &[u32], n: u32) -> Vec<Served> {
    serves_of(&Space::ALL, &parts.iter().copied().collect(), n)
}

fn view(number: u64, serves: Vec<Served>, state: ViewState) -> Instance {
    let zero = LogIndex(0);
    let status = ViewStatusReply {
        epoch: None,
        serves,
        state,
        oldest: zero,
        applied: zero,
        durable: zero,
        checkpoint: zero,
        committed: zero,
        facts: 0,
        window: 1,
        calls: 0,
    };
    Instance { number, status, copied: None, disk_bytes: Some(100 << 20) }
}

fn seen(node: &str, instances: Vec<Instance>) -> Seen {
    let says = ViewInstancesReply { instances, topology: vec![], free_bytes: Some(10 << 30) };
    Seen { node: name(node), datacenter: name("va"), says: Ok(says) }
}

/// Nodes that hold an n-th each, each n-th so often.
fn cut(n: u32, times: u32) -> Vec<Seen> {
    let one = |i: u32| seen(&format!("v{}", i + 10), vec![view(0, part(&[i % n], n), ViewState::Serving)]);
    (0..n * times).map(one).collect()
}

fn into(partitions: u32) -> Wanted {
    Wanted { partitions, replicas: 2 }
}

/// Which nodes hold each partition by a plan.
fn holders(plan: &Plan, n: u32) -> Vec<Vec<&str>> {
    let of =
        |part: u32| plan.targets.iter().filter(move |t| t.parts.contains(&part)).map(|t| t.node.as_str()).collect();
    (0..n).map(of).collect()
}

#[test]
fn every_partition_goes_to_two_nodes_where_most_of_it_is() {
    let four = cut(4, 2);
    let five = plan(into(5), &four);
    assert_eq!((&five.refused, &five.impossible, &five.warnings), (&None, &None, &vec![]));
    // v10 and v14 hold the first fourth, v11 and v15 the second, and so on.
    let expected = [["v10", "v14"], ["v11", "v15"], ["v12", "v16"], ["v12", "v16"], ["v13", "v17"]];
    assert_eq!(holders(&five, 5), expected);
    assert_eq!(five.targets[2].serves, part(&[2, 3], 5));
    let takes = |i: usize| five.targets[i].takes_bytes.unwrap() >> 20;
    assert_eq!((takes(0), takes(2)), (80, 160), "a fifth is four fifths of a fourth");

    let three = plan(into(3), &four);
    assert!(three.targets.iter().all(|target| !target.parts.is_empty()), "nobody is idle");
    assert!(holders(&three, 3).iter().all(|nodes| nodes.len() >= 2));
}

#[test]
fn what_is_there_already_stays() {
    let four = cut(4, 2);
    assert!(plan(into(4), &four).nothing_to_do);
    // Half of the nodes were told of another spread than we would plan now.
    let mut half = four.clone();
    for (node, parts) in half.iter_mut().zip([[4u32], [3], [2], [1]]) {
        let says = node.says.as_mut().unwrap();
        says.instances.push(view(1, part(&parts, 5), ViewState::Booting));
    }
    let on = plan(into(5), &half);
    for (target, parts) in on.targets.iter().zip([[4u32], [3], [2], [1]]) {
        assert_eq!((target.parts.clone(), target.has), (parts.into(), true), "{}", target.node);
    }
    assert!(holders(&on, 5).iter().all(|nodes| nodes.len() == 2), "{:?}", holders(&on, 5));
    assert!(!on.nothing_to_do);
}

#[test]
fn what_is_unsafe_is_refused_and_what_is_impossible_cannot_be_forced() {
    let mut nodes = cut(4, 2);
    nodes[1].says = Err("it does not answer".into());
    let thin = plan(into(5), &nodes);
    let why = thin.refused.clone().unwrap();
    assert!(why.contains("2/4") && why.contains("a single node") && why.contains("v11 does not answer"), "{why}");
    assert_eq!(thin.warnings.len(), 1);
    assert!(thin.targets.iter().all(|target| target.node != nodes[1].node));
    assert!(holders(&thin, 5).iter().all(|nodes| nodes.len() == 2), "if it is forced, it makes up for the lost one");

    // Another in its place that is still empty, or that holds something else, is what the plan is for.
    nodes[1] = seen("v11", vec![view(1, part(&[0], 4), ViewState::Booting)]);
    let mended = plan(into(4), &nodes);
    assert_eq!((&mended.refused, &mended.impossible), (&None, &None));
    assert!(holders(&mended, 4).iter().all(|nodes| nodes.len() >= 2), "{:?}", holders(&mended, 4));

    let impossible = |wanted, nodes: &[Seen]| plan(wanted, nodes).impossible.unwrap();
    assert!(impossible(into(2), &cut(1, 1)).contains("a single node"));
    assert!(impossible(into(0), &cut(4, 2)).contains("1 to 4096"));
    assert!(impossible(into(5000), &cut(4, 2)).contains("1 to 4096"));
    assert!(impossible(into(5), &[]).contains("no node"));

    let mut full = cut(4, 2);
    full[6].says.as_mut().unwrap().free_bytes = Some(100 << 20);
    let why = plan(into(5), &full).refused.unwrap();
    assert!(why.contains("v16 needs about 160 MiB more") && why.contains("has 100 MiB"), "{why}");
}

#[test]
fn nodes_of_other_spaces_are_cut_apart() {
    let only = |space: Space, i: u32| {
        let serves = vec![Served { space, range: Range::partition(i, 2) }];
        view(0, serves, ViewState::Serving)
    };
    let mut nodes = Vec::new();
    for space in Space::ALL {
        for i in 0..4 {
            nodes.push(seen(&format!("{}-{i}", space.as_str()), vec![only(space, i % 2)]));
        }
    }
    let plan = plan(into(4), &nodes);
    assert_eq!((&plan.refused, &plan.impossible), (&None, &None));
    for target in &plan.targets {
        assert_eq!(target.serves.len(), 2, "eight places in each space over four nodes");
        assert!(target.serves.iter().all(|s| target.node.as_str().starts_with(s.space.as_str())));
    }
}

#[test]
fn old_views_go_one_after_the_other_once_all_new_ones_serve() {
    let wanted = into(5);
    let mut nodes = cut(4, 2);
    let targets = plan(wanted, &nodes).targets;
    let Step::Hold(orders) = next(wanted, &targets, &nodes).0 else { panic!() };
    assert_eq!(orders.len(), 8);
    for (node, (_, serves)) in nodes.iter_mut().zip(orders) {
        node.says.as_mut().unwrap().instances.push(view(1, serves, ViewState::Serving));
    }
    let copying = nodes.clone();
    let last = |nodes: &mut Vec<Seen>, change: &dyn Fn(&mut Instance)| {
        change(&mut nodes[7].says.as_mut().unwrap().instances[1]);
    };
    let waits = |nodes: &[Seen]| match next(wanted, &targets, nodes) {
        (Step::Wait, progress) => progress.waits.join("; "),
        other => panic!("{other:?}"),
    };
    last(&mut nodes, &|view| (view.status.state, view.copied) = (ViewState::Booting, Some(7)));
    assert_eq!(waits(&nodes), "v17 has copied 7 records");
    last(&mut nodes, &|view| (view.copied, view.status.committed) = (None, LogIndex(9)));
    assert_eq!(waits(&nodes), "v17 is 9 entries behind");
    last(&mut nodes, &|view| (view.status.state, view.status.committed) = (ViewState::Serving, LogIndex(LAG_MAX + 1)));
    assert_eq!(waits(&nodes), "v17 is 5001 entries behind");
    nodes[7].says = Err("gone".into());
    assert_eq!(waits(&nodes), "v17 does not answer: gone");

    let mut nodes = copying;
    let (step, progress) = next(wanted, &targets, &nodes);
    assert_eq!(step, Step::Drop(vec![(name("v10"), part(&[0], 4))]));
    assert_eq!((progress.serving, progress.wanted, progress.old), (8, 8, 8));
    nodes[0].says.as_mut().unwrap().instances[0].status.state = ViewState::Draining;
    assert_eq!(waits(&nodes), "v10 drains what it held");
    nodes[0].says.as_mut().unwrap().instances.remove(0);
    assert_eq!(next(wanted, &targets, &nodes).0, Step::Drop(vec![(name("v11"), part(&[1], 4))]));
}

/// A node with its views, as the nodes of a cluster behave.
struct Host {
    seen: Seen,
    up: bool,
    next: u64,
    topology: Vec<Served>,
}

impl Host {
    fn views(&mut self) -> &mut Vec<Instance> {
        &mut self.seen.says.as_mut().unwrap().instances
    }
}

/// From any cut to any other, with nodes that die, come back and lose their disks, and the one who follows the plan
/// beginning anew now and then: no old view goes while that leaves a point to fewer than two nodes, and in the end all
/// is as was wanted.
#[test]
fn it_ends_well_whatever_dies_on_the_way() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (from, to) = (rng.random_range(1..7), rng.random_range(1..7));
        let wanted = into(to);
        let mut hosts: Vec<Host> = cut(from, rng.random_range(2..4))
            .into_iter()
            .map(|seen| Host {
                topology: seen.says.as_ref().unwrap().instances[0].status.serves.clone(),
                seen,
                up: true,
                next: 1,
            })
            .collect();
        let look = |hosts: &[Host]| -> Vec<Seen> {
            let down = |host: &Host| Seen { says: Err("down".into()), ..host.seen.clone() };
            hosts.iter().map(|host| if host.up { host.seen.clone() } else { down(host) }).collect()
        };
        let mut targets = plan(wanted, &look(&hosts)).targets;
        let mut done = false;
        for round in 0..600 {
            let calm = round > 200;
            if !calm && rng.random_range(0..10) == 0 {
                // Whoever follows the plan begins anew; it would be refused while a node is down.
                let again = plan(wanted, &look(&hosts));
                if again.refused.is_none() && again.impossible.is_none() {
                    targets = again.targets;
                }
            }
            let seen = look(&hosts);
            let (step, _) = next(wanted, &targets, &seen);
            match step {
                Step::Hold(orders) => {
                    for (node, serves) in orders {
                        let host = hosts.iter_mut().find(|host| host.seen.node == node).unwrap();
                        let number = host.next;
                        host.next += 1;
                        host.views().push(view(number, serves, ViewState::Booting));
                    }
                }
                Step::Drop(orders) => {
                    for (node, serves) in orders {
                        let host = hosts.iter_mut().find(|host| host.seen.node == node).unwrap();
                        let view = host.views().iter_mut().find(|view| view.status.serves == serves).unwrap();
                        view.status.state = ViewState::Draining;
                    }
                    let thin = thin_spots(&look(&hosts), 2, &|_, _| true);
                    assert!(thin.is_empty(), "seed {seed}: {thin:?}");
                }
                Step::Wait => {}
                Step::Done => {
                    // Whoever was down when the plan was made was left out of it.
                    let again = plan(wanted, &seen);
                    done = calm && again.nothing_to_do;
                    if done {
                        break;
                    }
                    if calm {
                        targets = again.targets;
                    }
                }
            }
            for host in &mut hosts {
                host.views().retain(|view| view.status.state != ViewState::Draining);
                for view in host.views() {
                    if view.status.state == ViewState::Booting && rng.random_range(0..3) == 0 {
                        view.status.state = ViewState::Serving;
                    }
                }
            }
            let down = hosts.iter().position(|host| !host.up);
            match down {
                Some(down) if calm || rng.random_range(0..4) == 0 => {
                    let host = &mut hosts[down];
                    host.up = true;
                    if rng.random_range(0..2) == 0 {
                        let serves = host.topology.clone();
                        *host.views() = vec![view(0, serves, ViewState::Booting)];
                    }
                }
                None if !calm && rng.random_range(0..6) == 0 => {
                    let victim = rng.random_range(0..hosts.len());
                    hosts[victim].up = false;
                }
                _ => {}
            }
        }
        assert!(done, "seed {seed}: from {from} to {to} it does not end");
        let end = plan(wanted, &look(&hosts));
        assert!(end.nothing_to_do, "seed {seed}: {end:?}");
    }
}

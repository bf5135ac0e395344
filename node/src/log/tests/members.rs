//! Plans of changes, as a table of facts.
//!
//! A cluster is drawn as `va1 va2 or3 !or4 ie5? ie6<100`: voters in their datacenters by Raft id; `!` does not
//! answer, `?` learns, `<100` has caught up to entry 99. Nodes are named after their datacenter and id; `va1=va9`
//! is the node `va9` under the Raft id 1. The leader is the first, and its log ends at entry 9999.

use crate::log::members::{Candidate, Decision, Health, Known, Step, Unvoting, decide, settle};
use crate::log::types::{LogNode, Membership};
use beam_wire::ids::{Epoch, LogIndex, Name};
use beam_wire::message::log::{Change, Member, MemberName};
use std::collections::{BTreeMap, BTreeSet};

const LAST: u64 = 9999;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn known(drawing: &str) -> Known {
    let (mut voters, mut nodes, mut health) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let mut leader = None;
    for word in drawing.split_whitespace() {
        let (word, caught_up_to) = match word.split_once('<') {
            Some((word, next)) => (word, next.parse::<u64>().unwrap().checked_sub(1)),
            None => (word, Some(LAST)),
        };
        let (word, answers) = word.strip_prefix('!').map_or((word, true), |word| (word, false));
        let (word, learns) = word.strip_suffix('?').map_or((word, false), |word| (word, true));
        let (place, called) = word.split_once('=').unwrap_or((word, word));
        let id: u64 = place[2..].parse().unwrap();
        nodes.insert(id, LogNode { node: name(called), datacenter: name(&place[..2]) });
        health.insert(id, Health { matched: caught_up_to, answers, full: false });
        if !learns {
            voters.insert(id);
        }
        leader.get_or_insert(id);
    }
    Known {
        epoch: Epoch(1),
        membership: Membership::new(vec![voters], nodes).unwrap(),
        at: 7,
        last: LAST,
        leader: leader.unwrap(),
        health,
        drained: BTreeSet::new(),
        preferred: None,
        candidate: None,
    }
}

/// `va1 or3?`: the voters and learners of a plan.
fn drawn(members: &[Member]) -> String {
    let draw = |m: &Member| format!("{}{}{}", m.datacenter, m.raft_id, if m.voter { "" } else { "?" });
    members.iter().map(draw).collect::<Vec<_>>().join(" ")
}

fn promote(nodes: &str) -> Change {
    Change::Promote { nodes: nodes.split_whitespace().map(name).collect() }
}

fn remove(nodes: &str) -> Change {
    let member = |node| MemberName { node: name(node), raft_id: None };
    Change::Remove { members: nodes.split_whitespace().map(member).collect() }
}

fn drain(datacenter: &str) -> Change {
    Change::Drain { datacenter: name(datacenter) }
}

/// What a plan comes to, in a line.
fn verdict(known: &Known, change: &Change) -> String {
    let Decision { plan, step } = decide(known, change);
    assert_eq!(plan.at, LogIndex(7));
    if let Some(why) = plan.impossible {
        return format!("impossible: {why}");
    }
    if let Some(why) = plan.refused {
        return format!("refused: {why}");
    }
    if let Some(what) = plan.waits {
        assert!(step == Step::Wait, "{step:?}");
        return format!("waits: {what}");
    }
    match step {
        Step::Nothing => format!("nothing: {}", plan.notes.join("; ")),
        Step::HandOver(to) => format!("hand over to {to}"),
        Step::Drain(datacenters) => {
            format!("drained: {}", datacenters.iter().map(Name::as_str).collect::<Vec<_>>().join(" "))
        }
        Step::Members(_) => {
            let warnings = plan.warnings.iter().map(|warning| format!("; warning: {warning}")).collect::<String>();
            format!("{}{warnings}", drawn(&plan.after))
        }
        Step::Wait => panic!("it waits for nothing"),
    }
}

#[test]
fn voters_are_promoted_so_that_any_one_datacenter_may_be_lost() {
    let table = [
        // From one to two to three in each datacenter, all newcomers of a step at once.
        ("va1 or2 ie3 va4? or5?", promote("va4 or5"), "ie3 or2 or5 va1 va4"),
        ("va1 va2 or3 or4 ie5 va6? or7? ie8? ie9?", promote("va6 or7 ie8 ie9"), "ie5 ie8 ie9 or3 or4 or7 va1 va2 va6"),
        // One alone would put half of four voters into one datacenter.
        (
            "va1 or2 ie3 va4? or5?",
            promote("va4"),
            "refused: the loss of va would stop all writes: 2 of 4 voters would be left, and 3 must agree",
        ),
        // Two datacenters can never bear it; what is no worse than before is only warned about.
        (
            "va1 va2 or3 or4?",
            promote("or4"),
            "refused: the loss of or would stop all writes: 2 of 4 voters would be left, and 3 must agree; the loss of \
             va would stop all writes: 2 of 4 voters would be left, and 3 must agree",
        ),
        (
            "va1 va2 or3 va4? or5?",
            promote("va4 or5"),
            "or3 or5 va1 va2 va4; warning: as before, the loss of va would stop all writes: 2 of 5 voters would be left, \
             and 3 must agree",
        ),
        // Not yet, or never.
        ("va1 or2 ie3 va4?<100 or5?", promote("va4 or5"), "waits: va4 has caught up to 100 of 10000"),
        ("va1 or2 ie3 va4? !or5?", promote("va4 or5"), "waits: or5 does not answer"),
        ("va1 or2 ie3", promote("va4"), "impossible: va4 is not a member: beam log add va4"),
        ("va1 or2 ie3", promote("or2"), "nothing: or2 votes already"),
        (
            "va1 !or2 !ie3 va4? or5?",
            promote("va4"),
            "impossible: nothing could be written any more: of 4 voters 3 must agree, and 2 answer (or2, ie3 not)",
        ),
        (
            "va1 or2 ie3 cn4?",
            promote("cn4"),
            "cn4 ie3 or2 va1; warning: an even number of voters: 4 bear the loss of no more than 3 do",
        ),
    ];
    for (drawing, change, expected) in table {
        assert_eq!(verdict(&known(drawing), &change), expected, "{drawing}");
    }
}

#[test]
fn voters_are_removed_as_long_as_a_majority_lives_anywhere() {
    let all_nine = "va1 va2 va3 or4 or5 or6 ie7 ie8 ie9";
    let table = [
        (all_nine, remove("va3 or6 ie8 ie9"), "ie7 or4 or5 va1 va2"),
        ("va1 va2 or3 or4 ie5", remove("va2 or4"), "ie5 or3 va1"),
        (
            "va1 va2 or3 or4 ie5",
            remove("ie5"),
            "refused: the loss of or would stop all writes: 2 of 4 voters would be left, and 3 must agree; the loss of \
             va would stop all writes: 2 of 4 voters would be left, and 3 must agree",
        ),
        (
            "va1 or2 !ie3",
            remove("or2"),
            "impossible: nothing could be written any more: of 2 voters 2 must agree, and 1 answer (ie3 not)",
        ),
        // The leader hands over to one that stays, first.
        ("va1 va2 or3 or4 ie5", remove("va1 or3"), "hand over to 5"),
        ("va1 va2 or3 or4 ie5<100", remove("va1 or3"), "hand over to 4"),
        (
            "va1 or2 ie3",
            remove("va1 or2 ie3"),
            "impossible: the last voter cannot be removed: nothing could be written any more",
        ),
        ("va1 or2 ie3 or4?", remove("or4"), "ie3 or2 va1"),
        ("va1 or2 ie3", remove("or9"), "nothing: or9 is not a member"),
        // A node that was rebuilt is there twice; without an id both go.
        ("va1 va2 or3 or4 ie5 va9=va2?", remove("va2 or4"), "ie5 or3 va1"),
    ];
    for (drawing, change, expected) in table {
        assert_eq!(verdict(&known(drawing), &change), expected, "{drawing}");
    }
    let old = Change::Remove { members: vec![MemberName { node: name("va2"), raft_id: Some(9) }] };
    assert_eq!(verdict(&known("va1 va2 or3 or4 ie5 va9=va2?"), &old), "ie5 or3 or4 va1 va2");
}

#[test]
fn a_node_is_added_that_is_empty_or_of_this_log() {
    let with = |drawing: &str, candidate: Result<(u64, &str, Option<u64>), &str>| Known {
        candidate: Some(match candidate {
            Ok((raft_id, datacenter, epoch)) => {
                Ok(Candidate { raft_id, datacenter: name(datacenter), epoch: epoch.map(Epoch) })
            }
            Err(why) => Err(why.into()),
        }),
        ..known(drawing)
    };
    let add = Change::Add { node: name("va4"), datacenter: name("va") };
    let table = [
        (with("va1 or2 ie3", Ok((4, "va", None))), "ie3 or2 va1 va4?"),
        (with("va1 or2 ie3", Ok((4, "va", Some(1)))), "ie3 or2 va1 va4?"),
        (
            with("va1 or2 ie3", Ok((4, "va", Some(2)))),
            "impossible: va4 holds a log of epoch 2, and this log is in epoch 1: empty its data directory and start it \
             again",
        ),
        (with("va1 or2 ie3", Ok((4, "or", None))), "impossible: va4 is in or, as its certificate says, not in va"),
        (with("va1 or2 ie3 va4?", Ok((4, "va", Some(1)))), "nothing: va4 is a learner already"),
        (
            with("va1 or2 ie3 va4", Ok((5, "va", None))),
            "impossible: va4 is a member already, under the Raft id 4; it has lost its disk and is 5 now: beam log \
             replace va4",
        ),
        (
            with("va1 or2 ie3", Err("it is off")),
            "impossible: va4 does not answer: start it, with an empty disk (it is off)",
        ),
    ];
    for (known, expected) in table {
        assert_eq!(verdict(&known, &add), expected);
    }
}

#[test]
fn a_rebuilt_node_learns_and_then_takes_its_own_place() {
    let replace = Change::Replace { node: name("or2") };
    let with = |drawing: &str, raft_id: u64| Known {
        candidate: Some(Ok(Candidate { raft_id, datacenter: name("or"), epoch: None })),
        ..known(drawing)
    };
    let table = [
        (with("va1 !or2 ie3", 9), "ie3 or9 va1"),
        (with("va1 !or2 ie3 or9=or2?<5", 9), "waits: or2 has caught up to 5 of 10000"),
        (with("va1 !or2 ie3 or9=or2?", 9), "ie3 or9 va1"),
        // It was rebuilt once more before it had caught up.
        (with("va1 !or2 ie3 !or9=or2?", 10), "ie3 or10 va1"),
        (with("va1 or2 ie3", 2), "nothing: or2 is a voter under the Raft id 2, which is its own"),
        (with("va1 ie3", 9), "impossible: or2 is not a member: beam log add or2"),
        (with("va1 ie3 cn4 !or2?", 9), "cn4 ie3 or9? va1"),
        (with("va1 !or2 !ie3", 9), "ie3 or9 va1; warning: only 2 of the 3 voters answer now"),
    ];
    for (mut known, expected) in table {
        if let Some(Ok(candidate)) = &known.candidate {
            let answers = Health { answers: true, ..known.health.get(&candidate.raft_id).copied().unwrap_or_default() };
            known.health.insert(candidate.raft_id, answers);
        }
        assert_eq!(verdict(&known, &replace), expected);
    }
    let step = |drawing: &str, id: u64| {
        let mut known = with(drawing, id);
        known.health.entry(id).or_default().answers = true;
        format!("{:?}", decide(&known, &replace).step)
    };
    assert!(step("va1 !or2 ie3", 9).starts_with("Members(AddNodes("), "it learns first");
    assert_eq!(step("va1 !or2 ie3 or9=or2?", 9), "Members(Batch([AddVoterIds({9}), RemoveVoters({2})]))");
}

#[test]
fn leadership_goes_to_a_voter_that_can_take_it() {
    let lead = |node: &str| Change::Lead { node: name(node) };
    let table = [
        ("va1 or2 ie3", lead("or2"), "hand over to 2"),
        ("va1 or2 ie3", lead("va1"), "nothing: va1 leads already"),
        ("va1 !or2 ie3", lead("or2"), "impossible: or2 does not answer"),
        ("va1 or2<3 ie3", lead("or2"), "waits: or2 has caught up to 3 of 10000"),
        ("va1 or2 ie3 or4?", lead("or4"), "impossible: or4 learns, and only a voter can lead: beam log promote or4"),
        ("va1 or2 ie3", lead("or9"), "impossible: or9 is not a member: beam log add or9"),
    ];
    for (drawing, change, expected) in table {
        assert_eq!(verdict(&known(drawing), &change), expected, "{drawing}");
    }
    let drained = Known { drained: [name("or")].into(), ..known("va1 or2 ie3") };
    assert_eq!(
        verdict(&drained, &lead("or2")),
        "impossible: or is drained: the leader stays out of it until beam log return or"
    );
    let preferred = Known { preferred: Some(name("va")), ..known("va1 or2 ie3") };
    assert!(decide(&preferred, &lead("or2")).plan.warnings[0].starts_with("the topology prefers va"));
}

#[test]
fn a_datacenter_is_drained_if_the_rest_can_go_on_without_it() {
    let table = [
        ("va1 or2 ie3", drain("or"), "drained: or"),
        ("va1 va2 or3 or4 ie5", drain("va"), "drained: va"),
        ("va1 va2 va3 or4 or5 or6 ie7 ie8 ie9", drain("va"), "drained: va"),
        (
            "va1 va2 or3",
            drain("va"),
            "refused: without va nothing can be written: 1 of 3 voters would be left, and 2 must agree",
        ),
        (
            "va1 !or2 ie3",
            drain("va"),
            "refused: without va nothing can be written: 1 of 3 voters would be left, and 2 must agree",
        ),
        (
            "va1 va2 va3 or4 or5 or6 ie7 ie8 !ie9",
            drain("va"),
            "refused: ie9 is down already, and is not in va: bring it back first, or replace it",
        ),
        // That one of its own is down is no reason to leave it on.
        ("va1 !va2 or3 or4 ie5", drain("va"), "drained: va"),
        ("va1 or2 ie3", drain("au"), "impossible: no log node is in au; they are in ie, or, va"),
    ];
    for (drawing, change, expected) in table {
        assert_eq!(verdict(&known(drawing), &change), expected, "{drawing}");
    }
    let notes = |drawing: &str, datacenter: &str| decide(&known(drawing), &drain(datacenter)).plan.notes[0].clone();
    assert_eq!(notes("va1 or2 ie3", "or"), "while or is off, 0 more log nodes may fail and writes go on");
    assert_eq!(
        notes("va1 va2 va3 or4 or5 or6 ie7 ie8 ie9", "or"),
        "while or is off, 1 more log node may fail and writes go on"
    );
    let drained = |drawing: &str, datacenters: &[&str]| Known {
        drained: datacenters.iter().map(|dc| name(dc)).collect(),
        ..known(drawing)
    };
    let table = [
        // The leader leaves.
        (drained("va1 or2 ie3", &["va"]), drain("va"), "hand over to 3"),
        (
            drained("va1 or2<4 ie3<7", &["va"]),
            drain("va"),
            "waits: va1 leads still: no other voter that could lead has caught up",
        ),
        (
            drained("va1 or2 ie3", &["or"]),
            drain("ie"),
            "refused: without ie, or nothing can be written: 1 of 3 voters would be left, and 2 must agree",
        ),
        (drained("va1 or2 ie3", &["or"]), Change::Return { datacenter: name("or") }, "drained: "),
        (drained("va1 or2 ie3", &["or"]), Change::Return { datacenter: name("ie") }, "nothing: ie is not drained"),
    ];
    for (known, change, expected) in table {
        assert_eq!(verdict(&known, &change), expected);
    }
}

#[test]
fn a_change_that_stands_half_done_is_ended_by_who_lives() {
    let joint = |drawing: &str, old: &[u64], new: &[u64]| {
        let known = known(drawing);
        let configs = [old, new].map(|voters| voters.iter().copied().collect::<BTreeSet<u64>>());
        let nodes: BTreeMap<u64, LogNode> = known.membership.nodes().map(|(id, n)| (*id, n.clone())).collect();
        Known { membership: Membership::new(configs.into(), nodes).unwrap(), ..known }
    };
    let settled = |known: &Known| settle(known).map(|(change, unvoting)| (format!("{change:?}"), unvoting));
    assert_eq!(settled(&known("va1 or2 ie3")), None);
    let forward = joint("va1 !or2 ie3 or9=or2", &[1, 2, 3], &[1, 3, 9]);
    assert_eq!(settled(&forward), Some(("ReplaceAllVoters({1, 3, 9})".into(), Unvoting::Leave)));
    let back = joint("va1 or2 ie3 !va4 !or5", &[1, 2, 3], &[1, 4, 5]);
    assert_eq!(settled(&back), Some(("ReplaceAllVoters({1, 2, 3})".into(), Unvoting::Learn)));
    assert_eq!(settled(&joint("va1 !or2 !ie3 !va4 !or5", &[1, 2, 3], &[1, 4, 5])), None);
    // Until then no other change begins.
    assert_eq!(verdict(&forward, &remove("ie3")).split(':').next(), Some("refused"));
    let change =
        Known { candidate: Some(Ok(Candidate { raft_id: 7, datacenter: name("va"), epoch: None })), ..forward };
    let add = Change::Add { node: name("va7"), datacenter: name("va") };
    assert_eq!(verdict(&change, &add), "waits: an earlier change of members is being finished");
}

//! What follows from what was told, as a table of views and answers.

use super::*;
use beam_wire::message::view::Scanned;

/// A set of numbers in a range: each lies in the fraction of all points that it is of 240.
fn sum(space: Space, range: Range, members: &[u64]) -> RangeSum {
    let here = members.iter().filter(|member| range.contains(Range::partition(**member as u32, 240).first));
    let mut all = RangeSum { served: Served { space, range }, count: 0, sum: Sum::default() };
    here.for_each(|member| {
        all.count += 1;
        all.sum += Sum::of(&member.to_be_bytes());
    });
    all
}

const MEMBERS: [u64; 8] = [3, 30, 70, 100, 130, 170, 200, 239];

/// The i-th part of n, told by a view that holds these.
fn told(node: &str, (i, n): (u32, u32), members: &[u64]) -> Told {
    let range = Range::partition(i, n);
    let sums = vec![sum(Space::Subject, range, members), sum(Space::Object, range, members)];
    let reply = ViewVerifyReply { sums, verdicts: Sum::of(b"verdicts"), scanned: None };
    Told { node: Name::new(node).unwrap(), datacenter: Name::new("va").unwrap(), reply, after: LogIndex(7) }
}

fn wrong(compared: &Compared) -> Vec<Vec<&str>> {
    compared.findings.iter().map(|finding| finding.wrong.iter().map(Name::as_str).collect()).collect()
}

#[test]
fn views_that_agree_are_not_named() {
    let halves =
        |name: &str| [told(&format!("{name}1"), (0, 2), &MEMBERS), told(&format!("{name}2"), (1, 2), &MEMBERS)];
    let compared = compare(&[halves("a"), halves("b")].concat());
    assert_eq!(compared, Compared { findings: vec![], alone: vec![], facts: Some(8) });
    assert_eq!(compare(&[]), Compared::default());
}

#[test]
fn of_three_that_differ_the_third_is_named() {
    let lost = &MEMBERS[1..];
    let compared = compare(&[told("a", (0, 1), &MEMBERS), told("b", (0, 1), lost), told("c", (0, 1), &MEMBERS)]);
    assert_eq!(wrong(&compared), [["b"], ["b"]], "by subject and by object");
    assert_eq!(compared.findings[0].served, Some(Served { space: Space::Subject, range: Range::ALL }));
    assert!(compared.findings[0].why.contains("a, c say 8") && compared.findings[0].why.contains("b say 7"));
    // With two, nobody can say which.
    let compared = compare(&[told("a", (0, 1), &MEMBERS), told("b", (0, 1), lost)]);
    assert_eq!(wrong(&compared), [[""; 0], [""; 0]]);
    assert!(compared.findings[0].why.contains("cannot be told which is right"), "{}", compared.findings[0]);
}

#[test]
fn as_many_facts_that_are_others_are_found() {
    let mut others = MEMBERS;
    others[2] += 1;
    let compared = compare(&[told("a", (0, 1), &MEMBERS), told("b", (0, 1), &others), told("c", (0, 1), &MEMBERS)]);
    assert_eq!(wrong(&compared), [["b"], ["b"]]);
}

/// Cuts that have no range in common: their parts add up.
#[test]
fn cuts_without_common_ranges_are_compared_by_adding_up() {
    let cut = |name: &str, n: u32, members: &[u64]| -> Vec<Told> {
        (0..n).map(|i| told(&format!("{name}{i}"), (i, n), members)).collect()
    };
    let whole = || told("w", (0, 1), &MEMBERS);
    let compared = compare(&[cut("a", 2, &MEMBERS), cut("b", 3, &MEMBERS), vec![whole()]].concat());
    assert_eq!(compared, Compared { findings: vec![], alone: vec![], facts: Some(8) });
    let compared = compare(&[cut("a", 2, &MEMBERS), cut("b", 3, &MEMBERS[1..]), vec![whole()]].concat());
    assert_eq!(wrong(&compared), [["b0", "b1", "b2"], ["b0", "b1", "b2"]], "one of these");
    // With nothing that covers both, they are alone, and only the totals speak.
    let compared = compare(&cut("a", 2, &MEMBERS));
    assert_eq!((compared.findings.len(), compared.alone.len(), compared.facts), (0, 4, Some(8)));
}

#[test]
fn facts_by_subject_that_are_not_those_by_object_are_found() {
    let mut one = told("a", (0, 1), &MEMBERS);
    one.reply.sums[1] = sum(Space::Object, Range::ALL, &MEMBERS[1..]);
    let compared = compare(&[one.clone(), Told { node: Name::new("b").unwrap(), ..one }]);
    assert_eq!(compared.findings.len(), 1);
    assert_eq!(compared.findings[0].what, What::Totals);
    assert_eq!(compared.findings[0].why, "there are 8 facts by their subjects and 7 by their objects");
}

#[test]
fn another_state_of_verdicts_is_found() {
    let mut odd = told("b", (0, 1), &MEMBERS);
    odd.reply.verdicts = Sum::of(b"others");
    let compared = compare(&[told("a", (0, 1), &MEMBERS), odd, told("c", (0, 1), &MEMBERS)]);
    assert_eq!(wrong(&compared), [["b"]]);
    assert!(compared.findings[0].why.starts_with("the state of verdicts: b differ"), "{}", compared.findings[0]);
}

#[test]
fn past_versions_are_compared_where_they_are_whole() {
    let scanned = |node: &str, members: &[u64], oldest: u64| {
        let mut told = told(node, (0, 1), &MEMBERS);
        let past = vec![sum(Space::Subject, Range::ALL, members)];
        told.reply.scanned = Some(Scanned { past, oldest: LogIndex(oldest), records: 9 });
        told
    };
    let compared = compare(&[scanned("a", &[1, 2], 7), scanned("b", &[2], 6), scanned("c", &[1, 2], 7)]);
    assert_eq!(wrong(&compared), [["b"]]);
    assert!(compared.findings[0].why.contains("past versions of subject"), "{}", compared.findings[0]);
    let compared = compare(&[scanned("a", &[1, 2], 7), scanned("b", &[2], 8), scanned("c", &[1, 2], 7)]);
    assert_eq!(wrong(&compared).len(), 0, "b no longer has all that was asked for");
}

use super::*;
use beam_wire::Epoch;
use beam_wire::message::view::Served;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A view per line: name, datacenter, part, checkpoint, durable; then perhaps `drains`, `older epoch` or `copies`.
fn views(lines: &str) -> Vec<(Name, Name, ViewStatusReply)> {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let view = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (i, n) = words[2].split_once('/').unwrap();
        let range = Range::partition(i.parse::<u32>().unwrap() - 1, n.parse().unwrap());
        let (checkpoint, durable) = (LogIndex(words[3].parse().unwrap()), LogIndex(words[4].parse().unwrap()));
        let mut status = ViewStatusReply {
            epoch: Some(Epoch(3)),
            serves: Space::ALL.map(|space| Served { space, range }).into(),
            state: ViewState::Serving,
            oldest: LogIndex(0),
            applied: durable,
            durable,
            checkpoint,
            committed: durable,
            facts: 0,
            window: 1000,
            calls: 0,
        };
        match words.get(5) {
            Some(&"drains") => status.state = ViewState::Draining,
            Some(&"older") => status.epoch = Some(Epoch(2)),
            Some(&"copies") => (status.state, status.epoch) = (ViewState::Booting, None),
            // Applied, and not on the disk yet.
            Some(&"ahead") => status.applied = LogIndex(1000),
            _ => {}
        }
        (name(words[0]), name(words[1]), status)
    };
    lines.map(view).collect()
}

/// Entries 100 to 999 of 1,000 bytes each; a step is ten of them.
fn log() -> LogInfoReply {
    LogInfoReply {
        node: name("log"),
        raft_id: 1,
        epoch: Some(Epoch(3)),
        first: LogIndex(100),
        last: Some(LogIndex(999)),
        committed: Some(LogIndex(999)),
        bytes: 900_000,
        term: 1,
        leader: None,
        members: vec![],
    }
}

fn options(hold: u64) -> ShortenOptions {
    let datacenters = ["va", "or"].map(name).into();
    ShortenOptions { datacenters, keep_entries: 50, hold_bytes: hold * 1000, step_bytes: 10_000 }
}

fn decided(lines: &str, hold: u64) -> Decision {
    let views = views(lines);
    let seen: Vec<Seen<'_>> =
        views.iter().map(|(node, datacenter, status)| Seen { node, datacenter, status }).collect();
    decide(&options(hold), &seen, &log())
}

const ALL: &str = "a va 1/2 700 990
    b va 1/2 600 980
    c va 2/2 650 985
    d va 2/2 640 985
    e or 1/1 660 900
    f or 1/1 670 901";

fn without(names: &str) -> String {
    ALL.lines().filter(|line| !names.contains(line.trim().chars().next().unwrap())).collect::<Vec<_>>().join("\n")
}

fn with(line: &str) -> String {
    format!("{ALL}\n{line}")
}

fn view(node: &str, datacenter: &str, from: u64) -> Held {
    Held::View { node: name(node), datacenter: name(datacenter), from: LogIndex(from) }
}

#[test]
fn the_oldest_checkpoint_and_the_least_covered_datacenter_decide() {
    // What the views say, up to where the log goes, and the first words of what holds it.
    let table: &[(String, Option<u64>, &str)] = &[
        (ALL.into(), Some(601), "b in va needs it from entry 601 on"),
        (ALL.replace(" 700 990", " 991 990"), None, "a in va has no verdict checkpoint on its disk yet"),
        // One of three may be away, one of two not.
        (with("g va 1/2 300 980"), Some(301), "g in va needs it from entry 301 on"),
        (without("b"), None, "in va only a is seen to hold 1/2 of subject on its disk, not two"),
        (without("cd"), None, "in va no view is seen to hold 2/2 of subject"),
        (without("ef"), None, "in or no view is seen to hold 1/1 of subject"),
        (String::new(), None, "in or no view is seen"),
        // A datacenter that only its views tell of counts, too.
        (with("x ie 1/1 500 990"), None, "in ie only x is seen"),
        // Draining views and those of an older epoch are nobody's second copy; but what they need is kept.
        (without("b") + "\nb va 1/2 500 980 drains", None, "in va only a"),
        (without("b") + "\nb va 1/2 500 980 older", None, "in va only a"),
        (with("g va 1/2 300 980 drains"), Some(301), "g in va needs"),
        (with("g va 1/2 300 980 older"), Some(301), "g in va needs"),
        // One that copies needs what follows its checkpoint; one that has nothing needs nothing.
        (with("g va 1/2 400 0 copies"), Some(401), "g in va needs"),
        (with("g va 1/2 0 0 copies"), Some(601), "b in va needs"),
        // One that reads the log from its beginning, or whose checkpoint is not on the disk, needs all.
        (with("g va 1/2 0 500"), None, "g in va has no verdict checkpoint on its disk yet"),
        (with("g va 1/2 990 980"), None, "g in va has no verdict checkpoint on its disk yet"),
        // Less than a step is not worth it.
        (with("g va 1/2 108 980"), None, "g in va needs it from entry 109 on"),
        (with("g va 1/2 109 980"), Some(110), "g in va needs it from entry 110 on"),
    ];
    for (lines, before, held) in table {
        let decision = decided(lines, 10_000);
        assert_eq!(decision.before, before.map(LogIndex), "{lines}\n{decision:?}");
        assert!(decision.held.to_string().starts_with(held), "{lines}\n{}", decision.held);
        assert!(decision.without.is_empty());
    }
}

#[test]
fn the_newest_entries_are_kept_whoever_has_them() {
    let all = "a va 1/1 990 995\n b va 1/1 990 995\n c or 1/1 990 995\n d or 1/1 990 995";
    let decision = decided(all, 10_000);
    assert_eq!((decision.before, decision.held), (Some(LogIndex(950)), Held::Kept { from: LogIndex(950) }));
}

#[test]
fn past_the_size_nobody_is_waited_for_but_two_copies_in_two_datacenters() {
    // The size, in entries; what the views say; up to where the log goes, and without whom.
    let unseen = |datacenter, only: Option<&str>, range| Held::Unseen {
        datacenter: name(datacenter),
        space: Space::Subject,
        range,
        only: only.map(name),
    };
    let first_half = Range::partition(0, 2);
    let table: &[(u64, String, Option<u64>, Vec<Held>)] = &[
        // A laggard: until the log outgrows the size, then no further than it must.
        (900, with("g va 1/2 300 980"), Some(301), vec![]),
        (600, with("g va 1/2 300 980"), Some(400), vec![view("g", "va", 301)]),
        (450, with("g va 1/2 300 980"), Some(550), vec![view("g", "va", 301)]),
        // What makes it fit goes anyhow.
        (800, ALL.into(), Some(601), vec![]),
        // One of two is away; the other datacenter has two.
        (600, without("b"), Some(400), vec![unseen("va", Some("a"), first_half)]),
        // No further than two nodes in two datacenters allow: a and c or d have theirs at 701 and 641 on, e and f at 671.
        (10, without("b"), Some(651), vec![unseen("va", Some("a"), first_half), view("d", "va", 641)]),
    ];
    for (hold, lines, before, without) in table {
        let decision = decided(lines, *hold);
        assert_eq!((decision.before, &decision.without), (before.map(LogIndex), without), "{hold} {lines}");
        assert_eq!(decision.is_worrying(&options(*hold)), !without.is_empty());
    }
    // A single datacenter, or a single view, is no reason to let anything go.
    for lines in [without("ef"), without("abcd"), without("bcdef"), String::new()] {
        let decision = decided(&lines, 10);
        assert_eq!(decision.before, None, "{lines}");
        assert!(matches!(decision.held, Held::Single { .. }), "{lines} {decision:?}");
        assert!(decision.is_worrying(&options(10)));
    }
}

#[test]
fn sentences_name_what_the_log_is_kept_for() {
    let sentence = |lines: &str, hold| decided(lines, hold).sentence(&options(hold));
    assert_eq!(
        sentence(ALL, 2000),
        "the log takes 878.91 KiB from entry 100 on, and is shortened by itself: b in va needs it from entry 601 on when it \
         starts again"
    );
    assert_eq!(
        sentence(&without("ef"), 2000),
        "the log takes 878.91 KiB from entry 100 on, and is not shortened: in or no view is seen to hold 1/1 of subject on \
         its disk, not two. It waits for them until it takes 1.91 MiB"
    );
    assert_eq!(
        sentence(&without("f"), 600),
        "the log takes 878.91 KiB, more than the 585.94 KiB of hold_gib: it is shortened all the same although in or only e is \
         seen to hold 1/1 of subject on its disk, not two; who lacks what is gone copies it from other views"
    );
    assert_eq!(
        sentence(&without("abcd"), 600),
        "the log takes 878.91 KiB from entry 100 on, more than the 585.94 KiB of hold_gib, and is not shortened: 1/1 of subject is not on the disks of two views in two datacenters, so the next failure could lose what goes"
    );
}

use super::*;
use beam_wire::Epoch;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// `2/4`, or `subject+object 1/2` where it is not all spaces.
fn serves(text: &str) -> Vec<Served> {
    let (spaces, part) = text.rsplit_once(' ').unwrap_or(("subject+object+term", text));
    let (i, n) = part.split_once('/').unwrap();
    let range = Range::partition(i.parse::<u32>().unwrap() - 1, n.parse().unwrap());
    let space = |word: &str| Space::ALL.into_iter().find(|space| space.as_str() == word).unwrap();
    spaces.split('+').map(|word| Served { space: space(word), range }).collect()
}

fn status(state: ViewState, serves: Vec<Served>) -> ViewStatusReply {
    let zero = LogIndex(0);
    ViewStatusReply {
        epoch: Some(Epoch(1)),
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
    }
}

/// Lines of: name, datacenter, what it holds, and what it does: `serves`, `boots`, `drains`, or `silent`, which the
/// topology names and nobody sees.
struct Cluster {
    planned: Vec<Planned>,
    seen: Vec<(Name, Name, ViewStatusReply)>,
}

impl Cluster {
    fn of(lines: &str) -> Cluster {
        let (mut planned, mut seen) = (Vec::new(), Vec::new());
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (head, does) = line.rsplit_once(' ').unwrap();
            let (node, rest) = head.split_once(' ').unwrap();
            let (datacenter, held) = rest.split_once(' ').unwrap();
            let (node, datacenter, serves) = (name(node), name(datacenter), serves(held));
            let state = match does {
                "serves" => Some(ViewState::Serving),
                "boots" => Some(ViewState::Booting),
                "drains" => Some(ViewState::Draining),
                _ => None,
            };
            seen.extend(state.map(|state| (node.clone(), datacenter.clone(), status(state, serves.clone()))));
            planned.push(Planned { node, datacenter, serves });
        }
        Cluster { planned, seen }
    }

    fn seen(&self) -> Vec<Seen<'_>> {
        self.seen.iter().map(|(node, datacenter, status)| Seen { node, datacenter, status }).collect()
    }

    /// What is told of it.
    fn told(&self, log_first: u64) -> Vec<String> {
        let gaps = gaps(&self.planned, &self.seen(), Some(LogIndex(log_first)));
        gaps.iter().map(|gap| format!("{gap} | {}", gap.remedy)).collect()
    }
}

const WHOLE: &str = "a va 1/2 serves
    b va 1/2 serves
    c va 2/2 serves
    d va 2/2 serves
    e or 1/1 serves
    f or 1/1 serves";

#[test]
fn what_is_served_twice_everywhere_is_whole() {
    assert!(Cluster::of(WHOLE).told(100).is_empty());
    let mixed = WHOLE.replace("d va 2/2", "d va 2/3") + "\n g va 3/3 serves";
    assert!(Cluster::of(&mixed).told(100).is_empty(), "cuts may differ");
}

#[test]
fn a_gap_says_what_is_missing_what_it_costs_and_what_to_start() {
    let table: &[(&str, &str, &str)] = &[
        (
            "d va 2/2 serves",
            "d va 2/2 silent",
            "va: only c serves 2/2 of all spaces; if it fails, queries are answered from or alone | \
             start d: beam node --name d --data DIR",
        ),
        (
            "d va 2/2 serves",
            "d va 2/2 boots",
            "va: only c serves 2/2 of all spaces; if it fails, queries are answered from or alone | \
             d will serve it by itself: wait",
        ),
        (
            "d va 2/2 serves",
            "d va 2/2 drains",
            "va: only c serves 2/2 of all spaces; if it fails, queries are answered from or alone | \
             add a view to the topology and to DNS, and start it:\n    [[node]]\n    name = \"view-va-1\"\n    \
             datacenter = \"va\"\n    roles = [\"view\"]\n    partition = \"2/2\"\n    address = \"ADDRESS:PORT\"",
        ),
        (
            "d va 2/2 serves",
            "d va subject+object 2/2 serves",
            "va: only c serves 2/2 of term; if it fails, queries are answered from or alone | \
             add a view to the topology and to DNS, and start it:\n    [[node]]\n    name = \"view-va-1\"\n    \
             datacenter = \"va\"\n    roles = [\"view\"]\n    partition = \"2/2\"\n    address = \"ADDRESS:PORT\"",
        ),
        (
            "c va 2/2 serves\n    d va 2/2 serves",
            "c va 2/2 silent\n    d va 2/2 silent",
            "va: no view serves 2/2 of all spaces; queries are answered from or alone: they fail if that is lost, too | \
             start c or d: beam node --name c --data DIR, or beam node --name d --data DIR",
        ),
    ];
    for (before, after, expected) in table {
        assert!(WHOLE.contains(before));
        assert_eq!(Cluster::of(&WHOLE.replace(before, after)).told(100), [*expected], "{after}");
    }
}

#[test]
fn two_instances_on_one_node_are_one_view() {
    let moving = "a va 1/1 serves
        a va 1/2 serves
        a va 2/2 boots
        b va 1/2 serves";
    let told = Cluster::of(moving).seen;
    let seen: Vec<Seen<'_>> = told.iter().map(|(node, datacenter, status)| Seen { node, datacenter, status }).collect();
    let pieces = served(&seen, &name("va"));
    let subject: Vec<_> = pieces.iter().filter(|p| p.space == Space::Subject).collect();
    assert_eq!(subject.len(), 2);
    assert_eq!(subject[0].serving, [name("a"), name("b")].into());
    assert_eq!((&subject[1].serving, subject[1].booting.len()), (&[name("a")].into(), 0));
}

#[test]
fn the_last_copy_is_told_once_the_log_has_let_go_of_it() {
    let alone = "a va 1/1 serves
        b va 1/1 silent
        c or 1/1 silent";
    let costs = |first| Cluster::of(alone).told(first).concat();
    assert!(
        costs(0).contains("va: only a serves 1/1 of all spaces; if it fails, queries that need it fail everywhere |")
    );
    assert!(costs(7).contains("fail everywhere; what the log has let go of is on a alone, and lost with it | start b"));
    assert!(costs(7).contains("or: no view serves 1/1 of all spaces; queries are answered from va alone"));
    let none = Cluster::of("a va 1/1 silent").told(7);
    assert_eq!(
        none,
        [
            "va: no view serves 1/1 of all spaces; nor does any elsewhere: queries that need it fail; what the log has let \
         go of is on no view that answers | start a: beam node --name a --data DIR"
        ]
    );
}

#[test]
fn a_new_view_is_cut_as_the_others_are() {
    let mixed = "a va 1/2 serves
        b va 2/2 serves
        c va 1/4 serves
        e or 1/2 serves
        f or 1/2 serves
        g or 2/2 serves
        h or 2/2 serves";
    let told = Cluster::of(mixed).told(0);
    assert_eq!(told.len(), 2, "the second quarter and the second half: {told:#?}");
    assert!(told[0].contains("only a serves 2/4") && told[0].contains("partition = \"1/2\""), "{}", told[0]);
    assert!(told[1].contains("only b serves 2/2") && told[1].contains("partition = \"2/2\""), "{}", told[1]);
}

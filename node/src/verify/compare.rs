//! Compares what views have told: decides, and asks nobody.
//!
//! Ranges that several views tell of are compared one by one; where cuts differ so much that their cells do, parts are
//! added up to the whole. More than half of the views of a range that agree are right, and the others are named; two
//! that differ cannot tell which of them is wrong: a scan, or a third, can. Lastly, all facts by their subjects are all facts
//! by their objects.

use beam_wire::message::view::{RangeSum, Served, ViewVerifyReply};
use beam_wire::{LogIndex, Name, Point, Range, Space, Sum};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What one view has told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its name.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// Its hashes.
    pub reply: ViewVerifyReply,
    /// Past versions were asked for that were deleted after this index.
    pub after: LogIndex,
}

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Live facts, or texts.
    Live,
    /// Earlier versions of facts.
    Past,
    /// The state that verdicts are made from.
    Verdicts,
    /// All facts by subject against all by object.
    Totals,
    /// What a view said of its own disk.
    Disk,
}

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was compared.
    pub what: What,
    /// Where; none if it has no place.
    pub served: Option<Served>,
    /// The views that are wrong; none if that cannot be said.
    pub wrong: Vec<Name>,
    /// For people.
    pub why: String,
}

/// All that follows from what was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// What differs.
    pub findings: Vec<Finding>,
    /// What could be compared with nothing.
    pub alone: Vec<String>,
    /// Live facts in all, if all ranges were told.
    pub facts: Option<u64>,
}

impl Finding {
    /// A view has found itself damaged.
    pub fn damage(node: Name, why: String) -> Finding {
        Finding { what: What::Disk, served: None, why: format!("{node}: {why}"), wrong: vec![node] }
    }

    /// Whether a view has said so of itself.
    pub fn is_damage(&self) -> bool {
        self.what == What::Disk
    }

    /// Whether only a scan can find it.
    pub fn needs_scan(&self) -> bool {
        matches!(self.what, What::Disk | What::Past)
    }

    /// Whether another finding is about the same.
    pub fn same_place(&self, other: &Finding) -> bool {
        (self.what, self.served) == (other.what, other.served)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

/// What lies in a range, and who says so: a view, or several whose parts add up to that.
type Saying = BTreeMap<(u64, Sum), Vec<BTreeSet<Name>>>;

/// Compares all with all.
pub fn compare(told: &[Told]) -> Compared {
    let mut compared = Compared::default();
    let live = gather(told, |reply| &reply.sums);
    compare_ranges(What::Live, &live, &mut compared);
    let whole = |told: &&Told| told.reply.scanned.as_ref().is_some_and(|scanned| scanned.oldest <= told.after);
    let scanned: Vec<Told> = told.iter().filter(whole).cloned().collect();
    let past = gather(&scanned, |reply| reply.scanned.as_ref().map_or(&[][..], |scanned| &scanned.past));
    compare_ranges(What::Past, &past, &mut compared);
    let mut verdicts = Saying::new();
    for told in told {
        verdicts.entry((0, told.reply.verdicts)).or_default().push([told.node.clone()].into());
    }
    compared.findings.extend(differ(What::Verdicts, None, &verdicts));
    let [subject, object] = [Space::Subject, Space::Object].map(|space| whole_of(&live, space));
    if let (Some(subject), Some(object)) = (subject, object) {
        compared.facts = Some(subject.0);
        // If a view is named already, this follows from it.
        if subject != object && compared.findings.is_empty() {
            let why = format!("there are {} facts by their subjects and {} by their objects", subject.0, object.0);
            let why = if subject.0 == object.0 { "the facts by subject are not those by object".into() } else { why };
            compared.findings.push(Finding { what: What::Totals, served: None, wrong: Vec::new(), why });
        }
    }
    compared
}

fn gather<'a>(told: &'a [Told], of: impl Fn(&'a ViewVerifyReply) -> &'a [RangeSum]) -> BTreeMap<Served, Saying> {
    let mut all: BTreeMap<Served, Saying> = BTreeMap::new();
    for told in told {
        for RangeSum { served, count, sum } in of(&told.reply) {
            let saying = all.entry(*served).or_default();
            saying.entry((*count, *sum)).or_default().push([told.node.clone()].into());
        }
    }
    all
}

fn compare_ranges(what: What, told: &BTreeMap<Served, Saying>, compared: &mut Compared) {
    for (served, saying) in told {
        let mut saying = saying.clone();
        // The same, put together from parts that others hold.
        for (value, nodes) in added_up(told, *served) {
            saying.entry(value).or_default().push(nodes);
        }
        let nodes: BTreeSet<&Name> = saying.values().flatten().flatten().collect();
        if nodes.len() == 1 && what == What::Live && !is_part(told, *served) {
            compared.alone.push(format!("{} {} is held by {} alone", served.space, served.range, all(&nodes)));
        }
        compared.findings.extend(differ(what, Some(*served), &saying));
    }
}

/// A finding, if not all say the same.
fn differ(what: What, served: Option<Served>, saying: &Saying) -> Option<Finding> {
    if saying.len() < 2 {
        return None;
    }
    let voices: usize = saying.values().map(Vec::len).sum();
    let right = saying.iter().find(|(_, voices_for)| voices_for.len() * 2 > voices).map(|(value, _)| value);
    let against = saying.iter().filter(|(value, _)| right.is_some_and(|right| right != *value));
    let wrong: BTreeSet<&Name> = against.flat_map(|(_, voices)| voices).flatten().collect();
    let place = served.map_or("the state of verdicts".to_owned(), |Served { space, range }| {
        let kind = match (what, space) {
            (_, Space::Term) => "texts",
            (What::Past, _) => "past versions",
            _ => "facts",
        };
        format!("{kind} of {space} {range}")
    });
    let say = |((count, sum), voices): (&(u64, Sum), &Vec<BTreeSet<Name>>)| {
        let nodes: BTreeSet<&Name> = voices.iter().flatten().collect();
        match served {
            Some(_) => format!("{} say {count} ({sum})", all(&nodes)),
            None => format!("{} say {sum}", all(&nodes)),
        }
    };
    let said = saying.iter().map(say).collect::<Vec<_>>().join(", ");
    let who = match wrong.is_empty() {
        true => "cannot be told which is right".to_owned(),
        false => format!("{} differ from the others", all(&wrong)),
    };
    let wrong = wrong.into_iter().cloned().collect();
    Some(Finding { what, served, wrong, why: format!("{place}: {who}: {said}") })
}

/// What the parts of a range add up to, for each way in which others have cut it; whoever told a part answers for it.
fn added_up(told: &BTreeMap<Served, Saying>, whole: Served) -> Vec<((u64, Sum), BTreeSet<Name>)> {
    let inside = |served: &Served| {
        served.space == whole.space
            && served.range != whole.range
            && whole.range.intersect(&served.range) == Some(served.range)
    };
    let parts: Vec<(&Served, &Saying)> = told.iter().filter(|(served, _)| inside(served)).collect();
    let mut sums = Vec::new();
    // Each part that begins where the whole does may begin another way.
    for (first, saying) in parts.iter().filter(|(served, _)| served.range.first == whole.range.first) {
        for (value, voices) in *saying {
            let mut all: BTreeSet<Name> = voices.iter().flatten().cloned().collect();
            let (mut sum, mut last) = (*value, first.range.last);
            while last < whole.range.last {
                let next = Point(last.0 + 1);
                let follows = parts.iter().filter(|(served, _)| served.range.first == next);
                // Where parts differ among themselves, that is found by itself.
                let Some((served, saying)) = follows.max_by_key(|(served, _)| served.range.last) else { break };
                let Some((value, voices)) = saying.iter().max_by_key(|(_, voices)| voices.len()) else { break };
                (sum.0, last) = (sum.0 + value.0, served.range.last);
                sum.1 += value.1;
                all.extend(voices.iter().flatten().cloned());
            }
            if last == whole.range.last {
                sums.push((sum, all));
            }
        }
    }
    sums
}

/// Whether a range is compared as a part of a larger one.
fn is_part(told: &BTreeMap<Served, Saying>, part: Served) -> bool {
    told.keys().any(|served| {
        served.space == part.space
            && served.range != part.range
            && served.range.intersect(&part.range) == Some(part.range)
            && !added_up(told, *served).is_empty()
    })
}

/// What most say of each range of a space, added up; none if some of it was told by nobody.
fn whole_of(told: &BTreeMap<Served, Saying>, space: Space) -> Option<(u64, Sum)> {
    let mut all = told.clone();
    all.retain(|served, _| served.space == space);
    let whole = Served { space, range: Range::ALL };
    if let Some(saying) = all.get(&whole) {
        return saying.iter().max_by_key(|(_, voices)| voices.len()).map(|(value, _)| *value);
    }
    added_up(&all, whole).into_iter().max_by_key(|(_, nodes)| nodes.len()).map(|(value, _)| value)
}

fn all<'a>(names: impl IntoIterator<Item = &'a (impl fmt::Display + 'a)>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;

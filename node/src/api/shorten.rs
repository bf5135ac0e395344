//! How much of the log may go, and why not more. Plain data in, plain data out: api nodes act on it ([`super::discard`]),
//! and commands tell it.
//!
//! A view that starts again judges the entries that follow its verdict checkpoint, so those it needs; all that
//! came before is on its disk. So the log may begin where no view needs an older entry, as soon as each point is held like
//! that by two views in every datacenter. While a datacenter is not seen, nothing goes: its views may need all of it.
//!
//! That is true up to a size. A log that outgrows it goes on without those who are behind or not seen, by no
//! more than it must: they will copy from other views. Even then each point must be held by two views, and
//! in two datacenters where there are as many: else what goes could be lost with the next failure.

use crate::coverage::{Seen, datacenters, planned};
use crate::partitions::range_name;
use beam_wire::message::log::LogInfoReply;
use beam_wire::message::view::{ViewState, ViewStatusReply};
use beam_wire::space::overlay;
use beam_wire::topology::Topology;
use beam_wire::{LogIndex, Name, Range, Space};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the operator has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortenOptions {
    /// The datacenters that have views by the topology.
    pub datacenters: BTreeSet<Name>,
    /// The newest entries that are always kept.
    pub keep_entries: u64,
    /// Beyond this the log does not wait for those who are behind or not seen.
    pub hold_bytes: u64,
    /// Less than this is not worth a command.
    pub step_bytes: u64,
}

/// As many as can be read of a view's past: minutes at full speed, so that a view whose machine restarts reads on. Some 300 MB.
const KEEP_ENTRIES: u64 = 1_000_000;
/// Days of writing, and a tenth of what a disk holds.
const HOLD_BYTES: u64 = 64 << 30;
/// The log lets go of whole segments, which have this size unless the topology says otherwise.
const SEGMENT_MIB: u32 = 64;

impl ShortenOptions {
    /// As a topology says, else by default.
    pub fn of(topology: &Topology) -> ShortenOptions {
        let planned = planned(topology);
        ShortenOptions {
            datacenters: datacenters(&planned, &[]).into_iter().cloned().collect(),
            keep_entries: topology.log.keep_entries.unwrap_or(KEEP_ENTRIES),
            hold_bytes: topology.log.hold_bytes.unwrap_or(HOLD_BYTES),
            step_bytes: u64::from(topology.log.segment_mib.unwrap_or(SEGMENT_MIB)) << 20,
        }
    }
}

/// What may be done, and what stands against more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The lowest entry of the log.
    pub first: LogIndex,
    /// What the log takes.
    pub bytes: u64,
    /// Let the entries below this go; none if that is not worth it, or nothing may go.
    pub before: Option<LogIndex>,
    /// What the log is kept for.
    pub held: Held,
    /// Past the size: the log no longer waits for these.
    pub without: Vec<Held>,
}

/// What keeps the log from being shortened further.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Fewer than two views of a datacenter hold a range on their disks, as far as is seen.
    Unseen {
        /// The datacenter.
        datacenter: Name,
        /// The space.
        space: Space,
        /// The range.
        range: Range,
        /// The one that holds it.
        only: Option<Name>,
    },
    /// Past the size: if more went, a range would be in one datacenter only, or on one view.
    Single {
        /// The space.
        space: Space,
        /// The range.
        range: Range,
    },
    /// A view needs the entries from here on when it starts again.
    View {
        /// Its node.
        node: Name,
        /// Its datacenter.
        datacenter: Name,
        /// The lowest entry that it needs.
        from: LogIndex,
    },
    /// All views could do without, but the newest entries are kept.
    Kept {
        /// The lowest of them.
        from: LogIndex,
    },
}

/// Decides by what one log node and the views say of themselves.
pub fn decide(options: &ShortenOptions, views: &[Seen<'_>], log: &LogInfoReply) -> Decision {
    let (first, bytes) = (log.first, log.bytes);
    let end = log.committed.map_or(first, LogIndex::next);
    let entries = end.0.saturating_sub(first.0).max(1);
    // The rest of the oldest segment counts as if it were still needed: it is on the disk.
    let bytes_per_entry = (bytes / entries).max(1);

    let keepers: Vec<Keeper<'_>> = views.iter().filter_map(|view| Keeper::of(view, log)).collect();
    let all = options.datacenters.iter().chain(views.iter().map(|view| view.datacenter)).collect::<BTreeSet<_>>();
    let unseen: Vec<Held> = all.iter().filter_map(|datacenter| unseen(datacenter, &keepers)).collect();
    let oldest = views.iter().filter_map(needs_of).min();
    let kept_from = LogIndex(end.0.saturating_sub(options.keep_entries));
    let held = match (unseen.first(), oldest) {
        (Some(unseen), _) => unseen.clone(),
        (None, Some(needs)) if needs.from < kept_from => needs.into(),
        (None, _) => Held::Kept { from: kept_from },
    };
    let patient = match &held {
        Held::Unseen { .. } | Held::Single { .. } => first,
        Held::View { from, .. } | Held::Kept { from } => (*from).max(first),
    };

    // Beyond the size, as much goes as makes it fit.
    let fits_from = LogIndex(end.0.saturating_sub(options.hold_bytes / bytes_per_entry));
    let single = (bytes > options.hold_bytes && fits_from > patient).then(|| held_twice(&keepers, all.len() > 1));
    let (before, held) = match single {
        None => (patient, held),
        Some(Ok(safe)) => (fits_from.min(safe).max(patient), held),
        Some(Err(single)) => (patient, single),
    };
    let mut without = Vec::new();
    if before > patient {
        without.extend(unseen);
        without.extend(views.iter().filter_map(needs_of).filter(|needs| needs.from < before).map(Held::from));
    }
    let gain = (before.0 - first.0).saturating_mul(bytes_per_entry);
    let worth_it = before > first && gain >= options.step_bytes && before < end;
    Decision { first, bytes, before: worth_it.then_some(before), held, without }
}

/// From where on a view needs the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Needs<'a> {
    from: LogIndex,
    node: &'a Name,
    datacenter: &'a Name,
}

impl From<Needs<'_>> for Held {
    fn from(Needs { from, node, datacenter }: Needs<'_>) -> Held {
        Held::View { node: node.clone(), datacenter: datacenter.clone(), from }
    }
}

/// None of a view that has nothing yet: it will copy, or begin where the log does.
fn needs_of<'a>(view: &Seen<'a>) -> Option<Needs<'a>> {
    let Seen { node, datacenter, status } = *view;
    let (copies, none) = (status.applied == LogIndex(0), status.checkpoint == LogIndex(0));
    // A checkpoint that is not on the disk may leave it with the one before, which nobody knows.
    let on_disk = copies || status.checkpoint <= status.durable;
    let from = if none || !on_disk { LogIndex(0) } else { status.checkpoint.next() };
    (!(copies && none)).then_some(Needs { from, node, datacenter })
}

/// A view whose disk holds everything before what it needs of the log.
struct Keeper<'a> {
    needs: Needs<'a>,
    status: &'a ViewStatusReply,
}

impl<'a> Keeper<'a> {
    fn of(view: &Seen<'a>, log: &LogInfoReply) -> Option<Keeper<'a>> {
        let status = view.status;
        // One that drains is about to go, perhaps with its disk. One that starts again has what it had.
        let stays = matches!(status.state, ViewState::Serving | ViewState::Booting);
        let keeps = status.epoch == log.epoch && stays && status.applied > LogIndex(0);
        keeps.then_some(Keeper { needs: needs_of(view)?, status })
    }
}

fn held_in<'a>(keepers: impl Iterator<Item = &'a Keeper<'a>>, space: Space) -> Vec<(Range, Needs<'a>)> {
    let of_space = |keeper: &'a Keeper<'a>| {
        let served = keeper.status.serves.iter().filter(move |served| served.space == space);
        served.map(move |served| (served.range, keeper.needs))
    };
    keepers.flat_map(of_space).collect()
}

/// The first range of a datacenter that fewer than two of its nodes hold.
fn unseen(datacenter: &Name, keepers: &[Keeper<'_>]) -> Option<Held> {
    Space::ALL.into_iter().find_map(|space| {
        let here = keepers.iter().filter(|keeper| keeper.needs.datacenter == datacenter);
        overlay(&held_in(here, space)).into_iter().find_map(|(range, holders)| {
            let nodes: BTreeSet<&Name> = holders.iter().map(|needs| needs.node).collect();
            let only = nodes.first().map(|node| (*node).clone());
            (nodes.len() < 2).then(|| Held::Unseen { datacenter: datacenter.clone(), space, range, only })
        })
    })
}

/// Up to where the log can go such that each point stays on two nodes, in two datacenters if so asked.
fn held_twice(keepers: &[Keeper<'_>], in_two_datacenters: bool) -> Result<LogIndex, Held> {
    let mut safe = LogIndex(u64::MAX);
    for space in Space::ALL {
        for (range, holders) in overlay(&held_in(keepers.iter(), space)) {
            let by_node = second_highest(holders.iter().map(|needs| (needs.node, needs.from)));
            let by_datacenter = second_highest(holders.iter().map(|needs| (needs.datacenter, needs.from)));
            let second = if in_two_datacenters { by_node.min(by_datacenter) } else { by_node };
            safe = safe.min(second.ok_or(Held::Single { space, range })?);
        }
    }
    Ok(safe)
}

/// Of the highest of each name, the second.
fn second_highest<'a>(of: impl Iterator<Item = (&'a Name, LogIndex)>) -> Option<LogIndex> {
    let mut highest: BTreeMap<&Name, LogIndex> = BTreeMap::new();
    for (name, index) in of {
        let known = highest.entry(name).or_insert(index);
        *known = index.max(*known);
    }
    let mut all: Vec<LogIndex> = highest.into_values().collect();
    all.sort_unstable();
    all.iter().rev().nth(1).copied()
}

impl Decision {
    /// An operator should know.
    pub fn is_worrying(&self, options: &ShortenOptions) -> bool {
        let waits = matches!(self.held, Held::Unseen { .. } | Held::Single { .. });
        (waits && self.bytes >= options.step_bytes) || !self.without.is_empty()
    }

    /// In one sentence: from where on the log is kept, and for whom.
    pub fn sentence(&self, options: &ShortenOptions) -> String {
        let Decision { first, bytes, held, without, .. } = self;
        let (bytes, hold) = (indicatif::HumanBytes(*bytes), indicatif::HumanBytes(options.hold_bytes));
        if !without.is_empty() {
            let whom: Vec<String> = without.iter().map(Held::to_string).collect();
            return format!(
                "the log takes {bytes}, more than the {hold} of hold_gib: it is shortened all the same although {}; who lacks \
                 what is gone copies it from other views",
                whom.join(", and ")
            );
        }
        let from = format!("the log takes {bytes} from entry {first} on");
        match held {
            Held::Unseen { .. } => {
                format!("{from}, and is not shortened: {held}. It waits for them until it takes {hold}")
            }
            Held::Single { .. } => format!(
                "{from}, more than the {hold} of hold_gib, and is not shortened: {held}, so the next failure could lose what goes"
            ),
            Held::View { .. } | Held::Kept { .. } => format!("{from}, and is shortened by itself: {held}"),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Unseen { datacenter, space, range, only } => {
                let seen = only.as_ref().map_or("no view".to_owned(), |only| format!("only {only}"));
                write!(
                    f,
                    "in {datacenter} {seen} is seen to hold {} of {space} on its disk, not two",
                    range_name(range)
                )
            }
            Held::Single { space, range } => {
                write!(f, "{} of {space} is not on the disks of two views in two datacenters", range_name(range))
            }
            Held::View { node, datacenter, from: LogIndex(0) } => {
                write!(f, "{node} in {datacenter} has no verdict checkpoint on its disk yet, and needs all of it")
            }
            Held::View { node, datacenter, from } => {
                write!(f, "{node} in {datacenter} needs it from entry {from} on when it starts again")
            }
            Held::Kept { from } => write!(f, "the newest entries are kept, from {from} on, whoever has them"),
        }
    }
}

#[cfg(test)]
mod tests;

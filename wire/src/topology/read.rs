//! From the text of `topology.toml` to a [`Topology`].

use super::table::{Faults, Located, Section, suggest};
use super::{Dns, Link, Log, Node, Query, Topology, TopologyError, Verdicts, View};
use crate::command::SLOTS_LOG2;
use crate::identity::Role;
use crate::ids::Name;
use crate::message::view::Served;
use crate::space::{Range, Space};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;
use toml::de::DeTable;

pub(super) fn parse(text: &str, file: &str) -> Result<Topology, TopologyError> {
    let faults = Faults::new(text);
    let topology = match DeTable::parse(text) {
        Ok(table) => topology(&faults, Section::new(&faults, &table)),
        Err(e) => {
            faults.add(&e.span().unwrap_or(0..0), e.message());
            None
        }
    };
    match (topology, faults.into_sorted()) {
        (Some(topology), found) if found.is_empty() => Ok(topology),
        (_, faults) => {
            debug_assert!(!faults.is_empty(), "refused without a reason");
            Err(TopologyError::Faulty { file: file.into(), faults })
        }
    }
}

fn topology(faults: &Faults<'_>, mut root: Section<'_>) -> Option<Topology> {
    let cluster = root.required::<Name>("cluster");
    let zone = root.required::<Zone>("zone");
    let dns = root.section("dns").map(dns).unwrap_or_default();
    let datacenters = datacenters(faults, &mut root);
    let log = root.section("log").map(|section| log(faults, section)).unwrap_or_default();
    let verdicts = root.section("verdicts").map(verdicts).unwrap_or_default();
    let view = root.section("view").map(view).unwrap_or_default();
    let query = root.section("query").map(query).unwrap_or_default();
    let links = links(faults, &mut root, &datacenters);
    let nodes = nodes(faults, &mut root, &datacenters);
    root.end();

    let names: Vec<&Name> = datacenters.iter().map(|dc| &dc.value).collect();
    if let Some(preferred) = &log.preferred {
        known_datacenter(faults, preferred, &names);
        let holds_log = |node: &Node| node.datacenter == preferred.value && node.has_role(Role::Log);
        if names.contains(&&preferred.value) && !nodes.iter().any(holds_log) {
            let message = format!("`preferred`: datacenter {} has no log node", preferred.value);
            faults.add(&preferred.span, message);
        }
    }
    Some(Topology {
        cluster: cluster?.value,
        zone: zone?.value.0,
        dns,
        log: Log {
            preferred: log.preferred.map(|preferred| preferred.value),
            heartbeat: log.heartbeat,
            election: log.election,
            segment_mib: log.segment_mib,
            reserve_mib: log.reserve_mib,
            keep_entries: log.keep_entries,
            hold_bytes: log.hold_bytes,
        },
        verdicts,
        view,
        query,
        links,
        datacenters: datacenters.into_iter().map(|dc| dc.value).collect(),
        nodes,
    })
}

/// A DNS name of at least one label, in lower case.
struct Zone(String);

impl FromStr for Zone {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let zone = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        for label in zone.split('.') {
            Name::new(label).map_err(|_| {
                format!("{text:?} is not a DNS zone: its labels are 1 to 63 characters of a-z, 0-9 and '-'")
            })?;
        }
        // The longest name is `_beam-view._udp.<63 characters>.<zone>`, or `<63>.<63>.<zone>`.
        if zone.len() > 253 - 128 {
            return Err(format!("{text:?} is longer than {} characters", 253 - 128));
        }
        Ok(Zone(zone))
    }
}

fn dns(mut section: Section<'_>) -> Dns {
    let servers = section.list::<SocketAddr>("servers").map(|list| list.value).unwrap_or_default();
    section.end();
    Dns { servers: servers.into_iter().map(|server| server.value).collect() }
}

#[derive(Default)]
struct LogKeys {
    preferred: Option<Located<Name>>,
    heartbeat: Option<Duration>,
    election: Option<(Duration, Duration)>,
    segment_mib: Option<u32>,
    reserve_mib: Option<u32>,
    keep_entries: Option<u64>,
    hold_bytes: Option<u64>,
}

fn log(faults: &Faults<'_>, mut section: Section<'_>) -> LogKeys {
    let preferred = section.optional("preferred");
    let heartbeat = section.integer("heartbeat_ms", 1..=60_000);
    let shortest = section.integer("election_min_ms", 1..=600_000);
    let longest = section.integer("election_max_ms", 1..=600_000);
    let segment_mib = section.integer("segment_mib", 1..=4096);
    let reserve_mib = section.integer("reserve_mib", 0..=1 << 20);
    let keep_entries = section.integer("keep_entries", 0..=1 << 40);
    let hold_gib = section.integer("hold_gib", 1..=1 << 20);

    if let (Some(heartbeat), Some(shortest)) = (&heartbeat, &shortest)
        && shortest.value <= heartbeat.value
    {
        faults.add(&shortest.span, "`election_min_ms` must exceed `heartbeat_ms`, or every pause is an election");
    }
    let election = match (shortest, longest) {
        (Some(shortest), Some(longest)) => {
            if longest.value <= shortest.value {
                faults.add(&longest.span, "`election_max_ms` must exceed `election_min_ms`");
            }
            Some((Duration::from_millis(shortest.value), Duration::from_millis(longest.value)))
        }
        (None, None) => None,
        (Some(alone), None) | (None, Some(alone)) => {
            faults.add(&alone.span, "`election_min_ms` and `election_max_ms` go together");
            None
        }
    };
    section.end();
    LogKeys {
        preferred,
        heartbeat: heartbeat.map(|ms| Duration::from_millis(ms.value)),
        election,
        segment_mib: segment_mib.map(|mib| mib.value as u32),
        reserve_mib: reserve_mib.map(|mib| mib.value as u32),
        keep_entries: keep_entries.map(|entries| entries.value),
        hold_bytes: hold_gib.map(|gib| gib.value << 30),
    }
}

fn verdicts(mut section: Section<'_>) -> Verdicts {
    let default = Verdicts::default();
    let slots = u64::from(*SLOTS_LOG2.start())..=u64::from(*SLOTS_LOG2.end());
    let slots_log2 = section.integer("slots_log2", slots).map_or(default.slots_log2, |n| n.value as u8);
    let window = section.integer("window", 1..=1 << 40).map_or(default.window, |n| n.value);
    section.end();
    Verdicts { slots_log2, window }
}

fn view(mut section: Section<'_>) -> View {
    let history = section.integer("history", 0..=1 << 40).map(|n| n.value);
    let checkpoint = section.integer("checkpoint", 1..=1 << 40).map(|n| n.value);
    let copy_mib_per_second = section.integer("copy_mib_per_second", 1..=1 << 20).map(|n| n.value as u32);
    let scan_hours = section.integer("scan_hours", 0..=100_000).map(|n| n.value as u32);
    let calls = section.integer("calls", 1..=1 << 20).map(|n| n.value as u32);
    section.end();
    View { history, checkpoint, copy_mib_per_second, scan_hours, calls }
}

fn query(mut section: Section<'_>) -> Query {
    let memory_mib = section.integer("memory_mib", 1..=1 << 20).map(|n| n.value as u32);
    let hedge = section.boolean("hedge").map(|b| b.value);
    let [running, waiting, writes] =
        ["running", "waiting", "writes"].map(|key| section.integer(key, 1..=1 << 20).map(|n| n.value as u32));
    section.end();
    Query { memory_mib, hedge, running, waiting, writes }
}

fn datacenters(faults: &Faults<'_>, root: &mut Section<'_>) -> Vec<Located<Name>> {
    let mut names: Vec<Located<Name>> = Vec::new();
    for mut section in root.sections("datacenter") {
        if let Some(name) = section.required::<Name>("name") {
            match names.iter().any(|other| other.value == name.value) {
                true => faults.add(&name.span, format!("datacenter {} is there twice", name.value)),
                false => names.push(name),
            }
        }
        section.end();
    }
    names
}

fn known_datacenter(faults: &Faults<'_>, name: &Located<Name>, known: &[&Name]) {
    if !known.contains(&&name.value) {
        let words: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
        let advice = match words[..] {
            [] => "; there is no [[datacenter]]".into(),
            _ => suggest(name.value.as_str(), &words),
        };
        faults.add(&name.span, format!("unknown datacenter {:?}{advice}", name.value.as_str()));
    }
}

fn links(faults: &Faults<'_>, root: &mut Section<'_>, datacenters: &[Located<Name>]) -> Vec<Link> {
    let known: Vec<&Name> = datacenters.iter().map(|dc| &dc.value).collect();
    let mut links: Vec<Link> = Vec::new();
    for mut section in root.sections("link") {
        section.need("between");
        section.need("round_trip_ms");
        let between = section.list::<Name>("between");
        let round_trip = section.integer("round_trip_ms", 0..=60_000);
        let reserved_mbit = section.integer("reserved_mbit", 1..=1_000_000).map(|n| n.value as u32);
        section.end();
        if let (Some(Located { value: ends, span }), Some(round_trip)) = (between, round_trip) {
            ends.iter().for_each(|end| known_datacenter(faults, end, &known));
            let [a, b] = &ends[..] else {
                faults.add(&span, "`between` names two datacenters");
                continue;
            };
            let same = |link: &Link| {
                let (one, other) = &link.between;
                (*one == a.value && *other == b.value) || (*one == b.value && *other == a.value)
            };
            if a.value == b.value {
                faults.add(&span, "`between` names two different datacenters");
            } else if links.iter().any(same) {
                faults.add(&span, format!("the link between {} and {} is there twice", a.value, b.value));
            }
            let round_trip = Duration::from_millis(round_trip.value);
            links.push(Link { between: (a.value.clone(), b.value.clone()), round_trip, reserved_mbit });
        }
    }
    links
}

/// `i/n`, from 1.
struct Partition(Range);

impl FromStr for Partition {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a partition: write \"1/2\" for the first of two");
        let (i, n) = text.split_once('/').ok_or_else(wrong)?;
        let (i, n): (u32, u32) = (i.parse().map_err(|_| wrong())?, n.parse().map_err(|_| wrong())?);
        match i >= 1 && i <= n && n <= PARTITIONS_MAX {
            true => Ok(Partition(Range::partition(i - 1, n))),
            false if n > PARTITIONS_MAX => Err(format!("{text:?}: there can be at most {PARTITIONS_MAX} partitions")),
            false => Err(format!("{text:?}: of {n} partitions, the first is 1/{n} and the last {n}/{n}")),
        }
    }
}

/// More would make each query ask more views than a datacenter has servers.
const PARTITIONS_MAX: u32 = 4096;

/// A space by its name.
struct SpaceName(Space);

impl FromStr for SpaceName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Space::ALL.into_iter().find(|space| space.as_str() == text);
        named
            .map(SpaceName)
            .ok_or_else(|| format!("unknown space {text:?}{}", suggest(text, &Space::ALL.map(Space::as_str))))
    }
}

/// A role by its name, with a suggestion.
struct RoleName(Role);

impl FromStr for RoleName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(RoleName)
            .map_err(|_| format!("unknown role {text:?}{}", suggest(text, &Role::ALL.map(Role::as_str))))
    }
}

/// Where others reach a node.
struct Address(SocketAddr);

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("{text:?} is not an address: write \"192.0.2.7:7101\" or \"[2001:db8::7]:7101\""))?;
        if address.port() == 0 {
            return Err(format!("{text:?} has port 0, which nobody can dial"));
        }
        if address.ip().is_unspecified() {
            return Err(format!("nobody can dial {text:?}: say where others reach the node, and put this into `bind`"));
        }
        Ok(Address(address))
    }
}

fn nodes(faults: &Faults<'_>, root: &mut Section<'_>, datacenters: &[Located<Name>]) -> Vec<Node> {
    let known: Vec<&Name> = datacenters.iter().map(|dc| &dc.value).collect();
    let mut nodes: Vec<Node> = Vec::new();
    let mut taken: BTreeMap<SocketAddr, Name> = BTreeMap::new();
    for section in root.sections("node") {
        let Some(node) = node(faults, section, &known) else { continue };
        let Located { value: node, span } = node;
        if nodes.iter().any(|other| other.name == node.name) {
            faults.add(&span, format!("node {} is there twice", node.name));
        } else if let Some(other) = taken.insert(node.address, node.name.clone()) {
            faults.add(&span, format!("nodes {other} and {} have the same address {}", node.name, node.address));
        } else {
            nodes.push(node);
        }
    }
    nodes
}

/// The ranges of a view's partitions, ascending; all points where none is named.
fn ranges(faults: &Faults<'_>, partitions: Option<Located<Vec<Located<Partition>>>>) -> Vec<Range> {
    let Some(Located { value: partitions, span }) = partitions else { return vec![Range::ALL] };
    if partitions.is_empty() {
        faults.add(&span, "a view holds at least one partition; leave `partition` out for all points");
    }
    let mut ranges: Vec<Range> = partitions.iter().map(|partition| partition.value.0).collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2).filter(|pair| pair[1].first <= pair[0].last) {
        let overlap = pair[0].intersect(&pair[1]).unwrap_or(pair[1]);
        faults.add(&span, format!("`partition`: {overlap} is in two of them; the partitions of a view do not overlap"));
    }
    ranges
}

/// The node, located at its name.
fn node(faults: &Faults<'_>, mut section: Section<'_>, known: &[&Name]) -> Option<Located<Node>> {
    let name = section.required::<Name>("name");
    let datacenter = section.required::<Name>("datacenter");
    section.need("roles");
    let roles = section.list::<RoleName>("roles");
    let address = section.required::<Address>("address");
    let bind = section.optional::<SocketAddr>("bind");
    let partitions = section.one_or_more::<Partition>("partition");
    let spaces = section.list::<SpaceName>("spaces");

    if let Some(datacenter) = &datacenter {
        known_datacenter(faults, datacenter, known);
    }
    if let Some(roles) = roles.as_ref().filter(|roles| roles.value.is_empty()) {
        faults.add(&roles.span, "a node has at least one role: log, view or api");
    }
    section.end();
    let mut roles: Vec<Role> = roles?.value.into_iter().map(|role| role.value.0).collect();
    roles.sort_unstable();
    roles.dedup();
    if !roles.contains(&Role::View) {
        let what_views_hold =
            [("partition", partitions.as_ref().map(|p| &p.span)), ("spaces", spaces.as_ref().map(|s| &s.span))];
        for (key, span) in what_views_hold {
            if let Some(span) = span {
                faults.add(span, format!("`{key}` is for views; add \"view\" to this node's roles or leave it out"));
            }
        }
    }
    if let Some(spaces) = spaces.as_ref().filter(|spaces| spaces.value.is_empty()) {
        faults.add(&spaces.span, "a view holds at least one space; leave `spaces` out for all three");
    }

    let ranges = ranges(faults, partitions);
    let mut held: Vec<Space> = match spaces {
        Some(spaces) => spaces.value.into_iter().map(|space| space.value.0).collect(),
        None => Space::ALL.into(),
    };
    held.sort_unstable();
    held.dedup();
    let serves = match roles.contains(&Role::View) {
        true => {
            held.into_iter().flat_map(|space| ranges.iter().map(move |range| Served { space, range: *range })).collect()
        }
        false => Vec::new(),
    };
    let Located { value: name, span } = name?;
    let node = Node {
        name,
        datacenter: datacenter?.value,
        roles,
        serves,
        address: address?.value.0,
        bind: bind.map(|bind| bind.value),
    };
    Some(Located { value: node, span })
}

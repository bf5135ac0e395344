//! Who serves what, and what is missing: every point of every space is to be served by two views, on two nodes,
//! in each datacenter. Plain data in, plain data out.
//!
//! [`served`] says for each range of each space of a datacenter which views serve it, and which are about to.
//! [`gaps`] are the ranges that fewer than two serve: what that costs now, what the next failure would take away, and
//! what to start.

use crate::partitions::{self, is_partition, range_name};
use beam_wire::message::view::{Served, ViewState, ViewStatusReply};
use beam_wire::space::overlay;
use beam_wire::topology::Topology;
use beam_wire::{LogIndex, Name, Range, Role, Space};
use std::collections::BTreeSet;
use std::fmt;

/// A view that has said how it is. A node that holds several cuts at a time is there once for each.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its node.
    pub node: &'a Name,
    /// Its datacenter.
    pub datacenter: &'a Name,
    /// What it has said.
    pub status: &'a ViewStatusReply,
}

/// A view node of the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// What it is to hold.
    pub serves: Vec<Served>,
}

/// A range of a space, and who holds it. A node is in the first of these sets that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The space.
    pub space: Space,
    /// The range.
    pub range: Range,
    /// Nodes that serve it.
    pub serving: BTreeSet<Name>,
    /// Nodes that still answer for it, and are about to stop.
    pub draining: BTreeSet<Name>,
    /// Nodes that do not answer for it yet.
    pub booting: BTreeSet<Name>,
}

/// A range that too few views of a datacenter serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The datacenter.
    pub datacenter: Name,
    /// The spaces in which it is the same.
    pub spaces: Vec<Space>,
    /// The range.
    pub range: Range,
    /// The one view that serves it, or none.
    pub only: Option<Name>,
    /// The other datacenters that serve it.
    pub elsewhere: Vec<Name>,
    /// The log has let go of what this view alone has left.
    pub last_copy: bool,
    /// What to do about it.
    pub remedy: Remedy,
}

/// What brings a second view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// These views are starting: they will serve by themselves.
    Wait(Vec<Name>),
    /// These nodes of the topology are to hold it, and say nothing.
    Start(Vec<Name>),
    /// A node like this.
    Add(Planned),
}

impl Gap {
    /// Nobody in the datacenter serves it now.
    pub fn is_open(&self) -> bool {
        self.only.is_none()
    }
}

/// The view nodes that a topology names.
pub fn planned(topology: &Topology) -> Vec<Planned> {
    let view = |n: &beam_wire::topology::Node| Planned {
        node: n.name.clone(),
        datacenter: n.datacenter.clone(),
        serves: n.serves.clone(),
    };
    topology.nodes_with(Role::View).map(view).collect()
}

/// The datacenters that are to serve everything: those with a view, planned or seen.
pub fn datacenters<'a>(planned: &'a [Planned], seen: &'a [Seen<'a>]) -> BTreeSet<&'a Name> {
    planned.iter().map(|view| &view.datacenter).chain(seen.iter().map(|view| view.datacenter)).collect()
}

/// Who serves what in a datacenter: every point of every space once, by space and range.
pub fn served(seen: &[Seen<'_>], datacenter: &Name) -> Vec<Piece> {
    let here: Vec<&Seen<'_>> = seen.iter().filter(|view| view.datacenter == datacenter).collect();
    let pieces = |space: Space| {
        let held = here.iter().flat_map(|view| {
            let of_space = view.status.serves.iter().filter(move |served| served.space == space);
            of_space.map(|served| (served.range, (view.status.state, view.node)))
        });
        overlay(&held.collect::<Vec<_>>()).into_iter().map(move |(range, holders)| piece(space, range, &holders))
    };
    Space::ALL.into_iter().flat_map(pieces).collect()
}

fn piece(space: Space, range: Range, holders: &[(ViewState, &Name)]) -> Piece {
    let of = |state: ViewState| holders.iter().filter(move |(s, _)| *s == state).map(|(_, node)| (*node).clone());
    let serving: BTreeSet<Name> = of(ViewState::Serving).collect();
    let draining: BTreeSet<Name> = of(ViewState::Draining).filter(|node| !serving.contains(node)).collect();
    let answers = |node: &Name| serving.contains(node) || draining.contains(node);
    let booting = of(ViewState::Booting).filter(|node| !answers(node)).collect();
    Piece { space, range, serving, draining, booting }
}

/// What fewer than two views of a datacenter serve. `log_first` is the lowest entry of the log: what lay before is on
/// views alone.
pub fn gaps(planned: &[Planned], seen: &[Seen<'_>], log_first: Option<LogIndex>) -> Vec<Gap> {
    let everywhere: Vec<(&Name, Vec<Piece>)> =
        datacenters(planned, seen).into_iter().map(|datacenter| (datacenter, served(seen, datacenter))).collect();
    let mut gaps: Vec<Gap> = Vec::new();
    for (datacenter, pieces) in &everywhere {
        for piece in pieces.iter().filter(|piece| piece.serving.len() < 2) {
            let others = everywhere.iter().filter(|(other, _)| other != datacenter);
            let whole = |pieces: &[Piece]| overlapping(pieces, piece).all(|p| !p.serving.is_empty());
            let elsewhere: Vec<Name> =
                others.clone().filter(|(_, pieces)| whole(pieces)).map(|(name, _)| (*name).clone()).collect();
            let held = |p: &Piece| !p.serving.is_empty() || !p.draining.is_empty();
            let held_elsewhere = others.flat_map(|(_, pieces)| overlapping(pieces, piece)).any(held);
            let gap = Gap {
                datacenter: (*datacenter).clone(),
                spaces: vec![piece.space],
                range: piece.range,
                only: piece.serving.first().cloned(),
                elsewhere,
                last_copy: log_first > Some(LogIndex(0)) && !held_elsewhere && piece.draining.is_empty(),
                remedy: remedy(planned, seen, datacenter, piece),
            };
            match gaps.iter_mut().find(|known| known.is_same_but_for_space(&gap)) {
                Some(known) => known.spaces.push(piece.space),
                None => gaps.push(gap),
            }
        }
    }
    gaps
}

impl Gap {
    fn is_same_but_for_space(&self, other: &Gap) -> bool {
        Gap { spaces: other.spaces.clone(), ..self.clone() } == *other
    }
}

fn overlapping<'a>(pieces: &'a [Piece], piece: &'a Piece) -> impl Iterator<Item = &'a Piece> {
    pieces.iter().filter(|p| p.space == piece.space && p.range.intersect(&piece.range).is_some())
}

fn remedy(planned: &[Planned], seen: &[Seen<'_>], datacenter: &Name, piece: &Piece) -> Remedy {
    if piece.serving.len() + piece.booting.len() >= 2 {
        return Remedy::Wait(piece.booting.iter().cloned().collect());
    }
    let here = || planned.iter().filter(|view| view.datacenter == *datacenter);
    let is_silent = |view: &&Planned| !seen.iter().any(|s| *s.node == view.node);
    let of_piece = |served: &Served| served.space == piece.space && served.range.intersect(&piece.range).is_some();
    let silent: Vec<Name> = here()
        .filter(is_silent)
        .filter(|view| view.serves.iter().any(of_piece))
        .map(|view| view.node.clone())
        .collect();
    if !silent.is_empty() {
        return Remedy::Start(silent);
    }
    // Cut as the others are: here, else anywhere; as most are.
    let holds_it = |served: &&Served| {
        let whole = served.range.intersect(&piece.range) == Some(piece.range);
        served.space == piece.space && whole && is_partition(&served.range)
    };
    let running = seen.iter().map(|view| (view.datacenter, &view.status.serves));
    let all = running.chain(planned.iter().map(|view| (&view.datacenter, &view.serves)));
    let cuts: Vec<(bool, Range)> = all
        .flat_map(|(dc, serves)| serves.iter().filter(holds_it).map(move |served| (dc == datacenter, served.range)))
        .collect();
    let votes = |cut: &(bool, Range)| cuts.iter().filter(|other| *other == cut).count();
    let range = cuts.iter().max_by_key(|cut| (cut.0, votes(cut), cut.1)).map_or(Range::ALL, |cut| cut.1);
    // A view of all spaces, unless somebody here has cut them apart.
    let example = here().find(|view| view.serves.iter().any(of_piece));
    let spaces = example.map_or(Space::ALL.to_vec(), |view| view.serves.iter().map(|s| s.space).collect());
    let taken: BTreeSet<&str> =
        planned.iter().map(|p| p.node.as_str()).chain(seen.iter().map(|s| s.node.as_str())).collect();
    // A datacenter's name may be as long as a node's.
    let name = |n: u32| Name::new(format!("view-{datacenter}-{n}")).or_else(|_| Name::new(format!("view-{n}")));
    let mut free = (1..).filter_map(|n| name(n).ok()).filter(|name| !taken.contains(name.as_str()));
    let node = free.next().expect("there are more numbers than nodes");
    let serves = spaces.into_iter().map(|space| Served { space, range }).collect();
    Remedy::Add(Planned { node, datacenter: datacenter.clone(), serves })
}

fn list(names: &[Name], and: &str) -> String {
    let names: Vec<&str> = names.iter().map(Name::as_str).collect();
    match &names[..] {
        [most @ .., last] if !most.is_empty() => format!("{} {and} {last}", most.join(", ")),
        few => few.concat(),
    }
}

/// What is missing, and what that means, in one sentence.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { datacenter, spaces, range, only, elsewhere, last_copy, .. } = self;
        let of = match spaces.len() == Space::ALL.len() {
            true => "of all spaces".to_owned(),
            false => format!("of {}", spaces.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" and ")),
        };
        let part = format!("{} {of}", range_name(range));
        match only {
            None => write!(f, "{datacenter}: no view serves {part}; ")?,
            Some(only) => write!(f, "{datacenter}: only {only} serves {part}; if it fails, ")?,
        }
        match (&elsewhere[..], only) {
            ([], None) => write!(f, "nor does any elsewhere: queries that need it fail")?,
            ([], Some(_)) => write!(f, "queries that need it fail everywhere")?,
            ([one], None) => write!(f, "queries are answered from {one} alone: they fail if that is lost, too")?,
            ([one], Some(_)) => write!(f, "queries are answered from {one} alone")?,
            (many, _) => write!(f, "queries are answered from {}", list(many, "and"))?,
        }
        match (last_copy, only) {
            (false, _) => Ok(()),
            (true, Some(only)) => write!(f, "; what the log has let go of is on {only} alone, and lost with it"),
            (true, None) => write!(f, "; what the log has let go of is on no view that answers"),
        }
    }
}

/// What to do, in words for an operator.
impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remedy::Wait(views) => write!(f, "{} will serve it by itself: wait", list(views, "and")),
            Remedy::Start(nodes) => {
                let commands = nodes.iter().map(|node| format!("beam node --name {node} --data DIR"));
                write!(f, "start {}: {}", list(nodes, "or"), commands.collect::<Vec<_>>().join(", or "))
            }
            Remedy::Add(view) => {
                write!(f, "add a view to the topology and to DNS, and start it:")?;
                view.lines().iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
        }
    }
}

impl Planned {
    /// The lines of `topology.toml` that make such a node.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            "[[node]]".to_owned(),
            format!("name = \"{}\"", self.node),
            format!("datacenter = \"{}\"", self.datacenter),
            "roles = [\"view\"]".to_owned(),
        ];
        // Who says nothing holds everything.
        let said = partitions::lines(&self.serves).unwrap_or_default();
        lines.extend(said.lines().filter(|line| *line != r#"partition = "1/1""#).map(str::to_owned));
        lines.push("address = \"ADDRESS:PORT\"".to_owned());
        lines
    }
}

#[cfg(test)]
mod tests;

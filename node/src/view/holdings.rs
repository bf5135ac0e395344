//! Which views a node holds: written down, so that a restart brings back what the node was last told.
//!
//! A node that was never told anything holds what its topology says. That is view 0, and it lies in the node's
//! view directory itself; each that the node was told to hold lies in a directory below it, named by its number.
//! `holdings.json` says which of them count. It is written before a view drains and after one has begun: a
//! directory that it does not list is nobody's, and is removed at the next start.

use super::store::{OpenError, write_durably};
use beam_wire::message::view::{RANGES_MAX, Served};
use beam_wire::{CallError, Code};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "holdings.json";
/// The version of the file.
const VERSION: u16 = 1;
/// Views of one node. Cutting anew takes two; a third is there when a cut is given up half-way for another. Each
/// has the state of all verdicts in memory.
const VIEWS_MAX: usize = 4;

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    version: u16,
    /// The number of the next view.
    next: u64,
    /// By number.
    pub views: Vec<Holding>,
}

/// One view of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Its number, which is not used again.
    pub number: u64,
    /// What it holds, ascending.
    pub serves: Vec<Served>,
    /// It drains, and is about to go.
    pub dropped: bool,
}

impl Holdings {
    /// Those of a node that was never told anything.
    pub fn of_topology(mut serves: Vec<Served>) -> Holdings {
        serves.sort_unstable();
        Holdings { version: VERSION, next: 1, views: vec![Holding { number: 0, serves, dropped: false }] }
    }

    /// What is written down in a node's view directory; none if nothing is.
    pub fn load(directory: &Path) -> Result<Option<Holdings>, OpenError> {
        let path = directory.join(FILE);
        let io = |why| OpenError::Io { directory: path.clone(), why };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let wrong = |why: String| {
            let why = format!("{why}. Remove the whole directory: the node begins anew with what its topology says");
            io(io::Error::new(io::ErrorKind::InvalidData, why))
        };
        let holdings: Holdings = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        if holdings.version != VERSION {
            return Err(wrong(format!("it is of version {}, and this program knows {VERSION}", holdings.version)));
        }
        Ok(Some(holdings))
    }

    /// Writes it down, durably and whole.
    pub fn save(&self, directory: &Path) -> Result<(), OpenError> {
        let text = serde_json::to_string_pretty(self).expect("it is plain data");
        let io = |why| OpenError::Io { directory: directory.join(FILE), why };
        std::fs::create_dir_all(directory).map_err(io)?;
        write_durably(directory, FILE, &text).map_err(io)
    }

    /// Where a view lies.
    pub fn place(directory: &Path, number: u64) -> PathBuf {
        if number == 0 { directory.to_owned() } else { directory.join(number.to_string()) }
    }

    /// The numbers of directories that views may have left behind.
    pub fn strays(&self, directory: &Path) -> io::Result<Vec<u64>> {
        let mut found = vec![0];
        for entry in std::fs::read_dir(directory)? {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        found.retain(|number| !self.views.iter().any(|view| view.number == *number && !view.dropped));
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// One more view is to be held. Its number; none if there is one that holds just this.
    pub fn hold(&mut self, mut serves: Vec<Served>) -> Result<Option<u64>, CallError> {
        serves.sort_unstable();
        check(&serves)?;
        match self.views.iter().find(|view| view.serves == serves) {
            Some(view) if view.dropped => {
                return Err(CallError::later(
                    Code::Unavailable,
                    1000,
                    "the view that holds this is just being dropped",
                ));
            }
            Some(_) => return Ok(None),
            None => {}
        }
        if self.views.len() >= VIEWS_MAX {
            let message = format!("this node holds {VIEWS_MAX} views already, and no more: drop one first");
            return Err(CallError::never(Code::Overloaded, message));
        }
        let number = self.next;
        self.next += 1;
        self.views.push(Holding { number, serves, dropped: false });
        Ok(Some(number))
    }

    /// The view that holds exactly this is to go. Its number; none if there is none, or it goes already.
    /// Refused unless another one serves.
    pub fn drop(
        &mut self,
        mut serves: Vec<Served>,
        is_serving: impl Fn(u64) -> bool,
    ) -> Result<Option<u64>, CallError> {
        serves.sort_unstable();
        let Some(at) = self.views.iter().position(|view| view.serves == serves && !view.dropped) else {
            return Ok(None);
        };
        let number = self.views[at].number;
        if !self.views.iter().any(|view| view.number != number && !view.dropped && is_serving(view.number)) {
            let message = "no other view of this node serves: it would hold nothing that is of use";
            return Err(CallError::later(Code::Unavailable, 1000, message));
        }
        self.views[at].dropped = true;
        Ok(Some(number))
    }

    /// A view is gone.
    pub fn forget(&mut self, number: u64) {
        self.views.retain(|view| view.number != number);
    }
}

/// What a view may hold: something, and no point of a space twice.
fn check(serves: &[Served]) -> Result<(), CallError> {
    let refuse = |why: String| Err(CallError::never(Code::Invalid, why));
    if serves.is_empty() {
        return refuse("a view needs at least one range of one space to hold".into());
    }
    if serves.len() > RANGES_MAX {
        return refuse(format!("{} ranges are more than the {RANGES_MAX} that one view may hold", serves.len()));
    }
    if let Some(served) = serves.iter().find(|served| served.range.first > served.range.last) {
        return refuse(format!("the range {} of the {} space ends before it begins", served.range, served.space));
    }
    for pair in serves.windows(2) {
        if pair[0].space == pair[1].space && pair[1].range.first <= pair[0].range.last {
            return refuse(format!("{} and {} of the {} space overlap", pair[0].range, pair[1].range, pair[0].space));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::{Point, Range, Space};

    fn part(i: u32, n: u32) -> Vec<Served> {
        Space::ALL.map(|space| Served { space, range: Range::partition(i, n) }).into()
    }

    #[test]
    fn a_node_is_told_to_hold_and_to_let_go() {
        let mut holdings = Holdings::of_topology(part(0, 4));
        assert_eq!(holdings.hold(part(0, 4)), Ok(None), "it has that already");
        assert_eq!(holdings.hold(part(0, 5)), Ok(Some(1)));
        assert_eq!(holdings.hold(part(0, 5)), Ok(None), "told twice");
        let refused = holdings.drop(part(0, 4), |_| false).unwrap_err();
        assert!(refused.message.contains("no other view"), "{refused}");
        assert_eq!(holdings.drop(part(3, 4), |_| true), Ok(None), "never had it");
        assert_eq!(holdings.drop(part(0, 4), |number| number == 1), Ok(Some(0)));
        assert_eq!(holdings.drop(part(0, 4), |_| true), Ok(None), "told twice");
        assert!(holdings.drop(part(0, 5), |_| true).is_err(), "the one that goes does not count");
        assert_eq!(holdings.hold(part(0, 4)).unwrap_err().code, Code::Unavailable);
        holdings.forget(0);
        assert_eq!(holdings.hold(part(0, 4)), Ok(Some(2)), "numbers are not used again");
        holdings.hold(part(1, 4)).unwrap();
        holdings.hold(part(2, 4)).unwrap();
        assert_eq!(holdings.hold(part(3, 4)).unwrap_err().code, Code::Overloaded);
    }

    #[test]
    fn what_cannot_be_held_is_refused() {
        let refused = |serves| Holdings::of_topology(part(0, 4)).hold(serves).unwrap_err();
        assert_eq!(refused(vec![]).code, Code::Invalid);
        assert!(refused([part(0, 4), part(0, 5)].concat()).message.contains("overlap"));
        let range = Range { first: Point(2), last: Point(1) };
        assert!(refused(vec![Served { space: Space::Term, range }]).message.contains("ends before"));
        assert_eq!(Holdings::of_topology(part(0, 4)).hold([part(0, 5), part(4, 5)].concat()), Ok(Some(1)));
    }

    #[test]
    fn it_comes_back_from_disk_and_strays_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(Holdings::load(path).unwrap(), None);
        let mut holdings = Holdings::of_topology(part(0, 4));
        holdings.hold(part(0, 5)).unwrap();
        holdings.save(path).unwrap();
        assert_eq!(Holdings::load(path).unwrap(), Some(holdings.clone()));
        for name in ["1", "7", "facts", "7x"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        assert_eq!(holdings.strays(path).unwrap(), [7]);
        holdings.drop(part(0, 4), |_| true).unwrap();
        assert_eq!(holdings.strays(path).unwrap(), [0, 7], "one that was to go goes at the next start");
        std::fs::write(path.join(FILE), "{").unwrap();
        assert!(Holdings::load(path).unwrap_err().to_string().contains("Remove the whole directory"));
        std::fs::write(path.join(FILE), r#"{"version":2,"next":1,"views":[]}"#).unwrap();
        assert!(Holdings::load(path).unwrap_err().to_string().contains("version 2"));
    }
}

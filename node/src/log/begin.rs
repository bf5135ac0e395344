//! How a log begins a new epoch, on its disk.
//!
//! A log directory becomes the seed of the epoch: all entries that it holds stay at their indexes, committed or not;
//! two follow that nobody proposed. The first says where the epoch begins, to everybody who reads the log; the
//! second makes this node, under a new Raft id, the only member. Both are committed by decree, and from then on
//! everything is as in any other cluster of one.
//!
//! It happens before the log is opened, by order of [`super::pending`] or when a backup is restored. What the
//! metadata file says changes last, in one transaction: until then the directory is what it was, but for entries
//! at its end that the next attempt recognises and cuts off.

use super::disk::Disk;
use super::files::{Files, Worked};
use super::meta::{META, MachineState, MetaState};
use super::open::open_files;
use super::pending::{self, Pending, Refounding, SettingAside};
use super::store::{StoreError, StoreOptions};
use super::types::{
    Course, Entry, EntryContent, EpochBegan, LogCommand, LogId, LogNode, Membership, StoredMembership, Vote,
};
use super::writer::{Begun, Change};
use beam_wire::ids::{Epoch, LogIndex, Origin};
use beam_wire::message::log::LogEnd;
use bytes::Bytes;
use openraft::EntryPayload;
use openraft::vote::leader_id_adv::LeaderId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// What the entry says to readers with which an epoch begins. The log never looks into bodies.
pub type BeginBody = fn(Epoch, LogIndex) -> Bytes;

/// Two more entries: where the epoch begins, and its only member.
pub const BEGIN_ENTRIES: u64 = 2;

/// The epoch to be, and who begins it.
pub struct Seed {
    pub epoch: Epoch,
    /// Drawn anew.
    pub raft_id: u64,
    pub node: LogNode,
    pub body: BeginBody,
}

/// What has become of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarriedOut {
    Refounded {
        epoch: Epoch,
        kept: LogIndex,
    },
    SetAside {
        files: Vec<String>,
    },
    /// The log is not what it was when the order was given.
    Refused {
        why: String,
    },
}

/// Carries out what is pending, if anything is. The caller waits for the disk to settle.
pub fn carry_out(
    disk: Arc<dyn Disk>,
    options: &StoreOptions,
    node: &LogNode,
    body: BeginBody,
) -> Result<Option<CarriedOut>, StoreError> {
    pending::tidy(&*disk)?;
    let Some(order) = pending::read(&*disk)? else { return Ok(None) };
    let done = match order {
        Pending::Refound(order) => {
            let seed = Seed { epoch: order.epoch, raft_id: order.raft_id, node: node.clone(), body };
            refound(disk.clone(), options, &order, &seed)?
        }
        Pending::SetAside(order) => set_aside(disk.clone(), options, &order)?,
    };
    pending::remove(&*disk)?;
    Ok(Some(done))
}

fn refound(
    disk: Arc<dyn Disk>,
    options: &StoreOptions,
    order: &Refounding,
    seed: &Seed,
) -> Result<CarriedOut, StoreError> {
    let Some((mut files, state, last)) = open(disk, options)? else {
        return Ok(CarriedOut::Refused { why: "there is no log here".into() });
    };
    let kept = order.seen.last.unwrap_or_default();
    if state.epoch == Some(order.epoch) && state.raft_id == order.raft_id {
        write(&mut files, vec![Change::Close])?;
        return Ok(CarriedOut::Refounded { epoch: order.epoch, kept });
    }
    // What an attempt that was broken off has added is known by the new Raft id.
    let ours = last.is_some_and(|last| last.leader_id.node_id == order.raft_id);
    let term = if ours {
        write(&mut files, vec![Change::Truncate(kept.0 + 1)])?;
        order.seen.term
    } else {
        let found = end(&state, last);
        if found != order.seen {
            write(&mut files, vec![Change::Close])?;
            return Ok(CarriedOut::Refused {
                why: format!("the log is {found}, the plan was made for {}", order.seen),
            });
        }
        found.term
    };
    let machine = MachineState::clone(&state.machine);
    begin(&mut files, &state, machine, term.unwrap_or_default(), kept, seed)?;
    write(&mut files, vec![Change::Close])?;
    Ok(CarriedOut::Refounded { epoch: seed.epoch, kept })
}

/// Adds the two entries after `kept`, and makes the directory that of the new epoch. `machine` is what followed from
/// the entries up to `kept`, as far as they were applied; `last_term` is that of the entry at `kept`.
pub fn begin(
    files: &mut Files,
    state: &MetaState,
    mut machine: MachineState,
    last_term: u64,
    kept: LogIndex,
    seed: &Seed,
) -> Result<LogId, StoreError> {
    let term = 1 + last_term.max(state.vote.map_or(0, |vote| vote.leader_id.term));
    let leader_id = LeaderId { term, node_id: seed.raft_id };
    let at = |after: u64| LogId::new(leader_id, kept.0 + after);
    let origin = Origin { node: seed.node.node.clone(), boot: seed.raft_id, sequence: 0 };
    let command = LogCommand::Begin { epoch: seed.epoch, kept, origin, body: (seed.body)(seed.epoch, kept) };
    let voters = BTreeSet::from([seed.raft_id]);
    let membership = Membership::new(vec![voters], BTreeMap::from([(seed.raft_id, seed.node.clone())]))
        .expect("the only voter is a node");
    let entries = vec![
        Entry { log_id: at(1), payload: EntryPayload::Normal(command) },
        Entry { log_id: at(BEGIN_ENTRIES), payload: EntryPayload::Membership(membership.clone()) },
    ];
    // It is known at once where the epoch began: readers of the one before may come before it was applied.
    machine.course.epochs.push(EpochBegan { epoch: seed.epoch, kept });
    if machine.applied.is_some_and(|applied| applied.index == kept.0) {
        machine.applied = Some(at(BEGIN_ENTRIES));
        machine.course.drained.clear();
        machine.memberships.push(StoredMembership::new(Some(at(BEGIN_ENTRIES)), membership));
    }
    let vote = Vote { leader_id, committed: true };
    let begun = Begun {
        raft_id: seed.raft_id,
        epoch: seed.epoch,
        vote,
        committed: at(BEGIN_ENTRIES),
        machine: Arc::new(machine),
    };
    write(files, vec![Change::Append(entries), Change::Begin(begun)])?;
    Ok(at(BEGIN_ENTRIES))
}

/// A log that is made out of entries as readers see them.
pub struct Restoring {
    files: Files,
    state: MetaState,
    epochs: Vec<EpochBegan>,
    seed: Seed,
    next: u64,
    holds_data: bool,
}

impl Restoring {
    /// On an empty disk. `epochs` are those that have begun among the entries, or before the first.
    pub fn new(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        first: LogIndex,
        epochs: Vec<EpochBegan>,
        seed: Seed,
    ) -> Result<Self, StoreError> {
        let mut fresh = MetaState::fresh(options.cluster.clone(), seed.raft_id);
        fresh.purged = first.0.checked_sub(1).map(|index| restored(&seed, index));
        let (files, state, _) = open_files(disk, options, fresh)?;
        Ok(Self { files, state, epochs, seed, next: first.0, holds_data: false })
    }

    /// Whether anything in it was appended by anybody.
    pub fn holds_data(&self) -> bool {
        self.holds_data
    }

    /// Adds the entries that come next.
    pub fn append(mut self, contents: Vec<EntryContent>) -> Result<Self, StoreError> {
        let mut entries = Vec::with_capacity(contents.len());
        for content in contents {
            let began = self.epochs.iter().find(|began| began.kept.0 + 1 == self.next);
            let payload = match (content, began) {
                (EntryContent::Skip, _) => EntryPayload::Blank,
                (EntryContent::Data { origin, body }, None) => {
                    self.holds_data = true;
                    EntryPayload::Normal(LogCommand::Data { origin, body })
                }
                (EntryContent::Data { origin, body }, Some(EpochBegan { epoch, kept })) => {
                    EntryPayload::Normal(LogCommand::Begin { epoch: *epoch, kept: *kept, origin, body })
                }
            };
            entries.push(Entry { log_id: restored(&self.seed, self.next), payload });
            self.next += 1;
        }
        write(&mut self.files, vec![Change::Append(entries)])?;
        Ok(self)
    }

    /// Begins the epoch after the last entry.
    pub fn finish(mut self, kept: LogIndex) -> Result<(), StoreError> {
        assert_eq!(kept.0 + 1, self.next, "all entries up to it were added");
        let machine = MachineState {
            applied: Some(restored(&self.seed, kept.0)),
            discarded: self.state.purged,
            memberships: Vec::new(),
            course: Course { epochs: self.epochs, ..Course::default() },
        };
        begin(&mut self.files, &self.state, machine, RESTORED_TERM, kept, &self.seed)?;
        write(&mut self.files, vec![Change::Close])?;
        self.files.finish()
    }
}

/// The term of what was restored: readers are not told in which it was written.
const RESTORED_TERM: u64 = 1;

fn restored(seed: &Seed, index: u64) -> LogId {
    LogId::new(LeaderId { term: RESTORED_TERM, node_id: seed.raft_id }, index)
}

/// Does all of it, or fails: nobody else makes room meanwhile.
pub fn write(files: &mut Files, changes: Vec<Change>) -> Result<(), StoreError> {
    files.ask(changes);
    match files.work()? {
        Worked::All => Ok(()),
        Worked::Waits => {
            let message = "there is no room on the log's disk: make some, and start again";
            Err(io::Error::new(io::ErrorKind::StorageFull, message).into())
        }
    }
}

/// Names of files that were set aside begin with this, and the plan's token.
pub const ASIDE: &str = "aside-";

fn set_aside(disk: Arc<dyn Disk>, options: &StoreOptions, order: &SettingAside) -> Result<CarriedOut, StoreError> {
    let prefix = format!("{ASIDE}{:016x}-", order.token);
    let begun = disk.list()?.iter().any(|name| name.starts_with(&prefix));
    if !begun {
        let Some((mut files, state, last)) = open(disk.clone(), options)? else {
            return Ok(CarriedOut::Refused { why: "there is no log here".into() });
        };
        write(&mut files, vec![Change::Close])?;
        let found = end(&state, last);
        if found != order.seen {
            return Ok(CarriedOut::Refused {
                why: format!("the log is {found}, the plan was made for {}", order.seen),
            });
        }
    }
    let stays = |name: &&String| *name == pending::PENDING || name.starts_with(ASIDE);
    for name in disk.list()?.iter().filter(|name| !stays(name)) {
        disk.rename(name, &format!("{prefix}{name}"))?;
    }
    disk.sync_dir()?;
    let files = disk.list()?.into_iter().filter(|name| name.starts_with(&prefix)).collect();
    Ok(CarriedOut::SetAside { files })
}

/// The files of a log that is there; none if there is no log.
fn open(disk: Arc<dyn Disk>, options: &StoreOptions) -> Result<Option<(Files, MetaState, Option<LogId>)>, StoreError> {
    if !disk.list()?.iter().any(|name| name == META) {
        return Ok(None);
    }
    let never = MetaState::fresh(options.cluster.clone(), 0);
    let (files, state, last) = open_files(disk, options.clone(), never)?;
    Ok(Some((files, state.clone(), last.or(state.purged))))
}

fn end(state: &MetaState, last: Option<LogId>) -> LogEnd {
    LogEnd {
        raft_id: state.raft_id,
        epoch: state.epoch,
        term: last.map(|id| id.leader_id.term),
        last: last.map(|id| LogIndex(id.index)),
    }
}

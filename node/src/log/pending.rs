//! What a log node shall do when it starts next, before anything else.
//!
//! An order is given while the node runs, or by a command on its machine, and carried out by the start that
//! follows: only then is nobody else at the files. It lies in a file of its own, `pending`, which counts once it
//! is whole and durable, and is removed once what it says is done. A start that is broken off begins again.

use super::disk::Disk;
use super::note::Note;
use super::store::StoreError;
use beam_wire::ids::Epoch;
use beam_wire::message::log::LogEnd;
use serde::{Deserialize, Serialize};

/// The file's name.
pub const PENDING: &str = "pending";
/// Its name until it is durable.
const PENDING_NEW: &str = "pending.new";
const NOTE: Note = Note { name: PENDING, new: PENDING_NEW, format: 1, way_out: ": remove it" };

/// An order. Variants are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pending {
    /// Make what the directory holds the beginning of a new epoch, with this node as its only member.
    Refound(Refounding),
    /// Rename all files of the log, and begin with an empty one.
    SetAside(SettingAside),
}

/// See [`Pending::Refound`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refounding {
    /// Of the plan that says so.
    pub token: u64,
    /// What the plan was made from. If the log ends elsewhere now, nothing is done.
    pub seen: LogEnd,
    /// The new epoch.
    pub epoch: Epoch,
    /// The node's new Raft id: what it says under the old one was said in the old epoch.
    pub raft_id: u64,
}

/// See [`Pending::SetAside`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingAside {
    /// Of the plan that says so. It is in the new names of the files.
    pub token: u64,
    /// What the plan was made from. If the log ends elsewhere now, nothing is done.
    pub seen: LogEnd,
    /// The epoch that has replaced the node's own.
    pub epoch: Epoch,
}

impl Pending {
    /// The plan that says so.
    pub fn token(&self) -> u64 {
        match self {
            Self::Refound(Refounding { token, .. }) | Self::SetAside(SettingAside { token, .. }) => *token,
        }
    }
}

/// Removes what a crash has left of an order that was never given.
pub fn tidy(disk: &dyn Disk) -> Result<(), StoreError> {
    if disk.list()?.iter().any(|name| name == PENDING_NEW) {
        disk.remove(PENDING_NEW)?;
    }
    Ok(())
}

/// Reads the order, if there is one.
pub fn read(disk: &dyn Disk) -> Result<Option<Pending>, StoreError> {
    NOTE.read(disk)
}

/// Makes an order durable (once the disk has settled, if it is simulated). It replaces any other.
pub fn write(disk: &dyn Disk, order: &Pending) -> Result<(), StoreError> {
    NOTE.write(disk, order)
}

/// What it said is done, or will not be.
pub fn remove(disk: &dyn Disk) -> Result<(), StoreError> {
    NOTE.remove(disk)
}

#[cfg(test)]
mod tests {
    use super::super::disk::Directory;
    use super::*;
    use beam_wire::codec;
    use beam_wire::ids::LogIndex;

    fn orders() -> [Pending; 2] {
        let seen = LogEnd { raft_id: 300, epoch: Some(Epoch(1)), term: Some(4), last: Some(LogIndex(5)) };
        let refounding = Refounding { token: 7, seen: seen.clone(), epoch: Epoch(70_001), raft_id: 9 };
        let setting_aside = SettingAside { token: 7, seen, epoch: Epoch(70_001) };
        [Pending::Refound(refounding), Pending::SetAside(setting_aside)]
    }

    /// These bytes lie on disks. If this test must change, the format number must.
    #[test]
    fn orders_have_these_bytes() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let found = orders().map(|order| hex(codec::encode(&order)));
        assert_eq!(found, ["0007ac02010101040105f1a20409", "0107ac02010101040105f1a204"]);
    }

    #[test]
    fn an_order_is_read_as_it_was_written_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Directory::open(directory.path()).unwrap();
        assert_eq!(read(&disk).unwrap(), None);
        for order in orders() {
            write(&disk, &order).unwrap();
            assert_eq!(read(&disk).unwrap(), Some(order));
        }
        let path = directory.path().join(PENDING);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut rotten = whole.clone();
            rotten[at] ^= 1;
            std::fs::write(&path, rotten).unwrap();
            assert!(read(&disk).is_err(), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&disk).is_err(), "cut at {at}");
        }
        remove(&disk).unwrap();
        assert_eq!(read(&disk).unwrap(), None);
    }
}

//! A log node that has lost data becomes another member: a small file beside the log says so until it votes
//! again. It outlives the log's own files, and is durable before anything of what it speaks of is done.

use super::disk::Disk;
use super::note::Note;
use super::store::StoreError;
use beam_wire::ids::Name;
use serde::{Deserialize, Serialize};

/// The file's name.
pub const RENEWAL: &str = "renewal";
const NOTE: Note = Note { name: RENEWAL, new: "renewal.new", format: 1, way_out: "" };

/// How far it is. Variants and fields are only ever added, at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renewal {
    /// The node's files are being set aside, so that it can join anew: it must not start before that is done.
    SetAside(Old),
    /// The node is to become a member anew, in place of who it was, and its log is empty.
    Rejoin(Old),
}

/// Who a node was, as far as its files still told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    pub raft_id: Option<u64>,
    pub cluster: Option<Name>,
}

/// What the directory says, if anything.
pub fn read(disk: &dyn Disk) -> Result<Option<Renewal>, StoreError> {
    NOTE.read(disk)
}

/// Durable on return, and whole or not there: what the directory said before is replaced.
pub fn write(disk: &dyn Disk, renewal: &Renewal) -> Result<(), StoreError> {
    NOTE.write(disk, renewal)
}

/// There is nothing left to do.
pub fn clear(disk: &dyn Disk) -> Result<(), StoreError> {
    NOTE.remove(disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
    use crate::log::types::LogTypes;
    use beam_wire::env::Env;
    use openraft::type_config::TypeConfigExt;

    fn old() -> Old {
        Old { raft_id: Some(300), cluster: Some("beam".parse().unwrap()) }
    }

    /// These bytes lie on disks.
    #[test]
    fn it_has_these_bytes() {
        LogTypes::run(async {
            let disk = SimDisk::new(&Env::current(), SimDiskOptions::default());
            let hex = |disk: &SimDisk| -> String {
                disk.bytes(RENEWAL).unwrap().iter().map(|b| format!("{b:02x}")).collect()
            };
            write(&disk, &Renewal::SetAside(Old::default())).unwrap();
            assert!(hex(&disk).ends_with("000000"), "{}", hex(&disk));
            write(&disk, &Renewal::Rejoin(old())).unwrap();
            assert!(hex(&disk).starts_with("01") && hex(&disk).ends_with("0101ac0201046265616d"), "{}", hex(&disk));
            assert_eq!(read(&disk).unwrap(), Some(Renewal::Rejoin(old())));
            for at in 0..disk.bytes(RENEWAL).unwrap().len() {
                disk.rot(RENEWAL, at as u64).unwrap();
                assert!(read(&disk).is_err());
                disk.rot(RENEWAL, at as u64).unwrap();
            }
            clear(&disk).unwrap();
            assert_eq!(read(&disk).unwrap(), None);
        });
    }

    #[test]
    fn it_is_there_or_not_whenever_power_fails() {
        LogTypes::run(async {
            for loss in [Loss::Unsynced, Loss::Torn, Loss::Nothing] {
                for n in 1..30 {
                    let disk = SimDisk::seeded(&Env::current(), n, SimDiskOptions::default());
                    write(&disk, &Renewal::SetAside(old())).unwrap();
                    disk.crash_before(n);
                    let written = write(&disk, &Renewal::Rejoin(old()));
                    disk.crash(loss);
                    let found = read(&disk).unwrap().unwrap();
                    let wanted = if written.is_ok() { Renewal::Rejoin(old()) } else { found.clone() };
                    assert_eq!(found, wanted);
                }
            }
        });
    }
}

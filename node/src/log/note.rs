//! Small files beside the log that say what is to be done with it: whole and durable, or not there.
//!
//! ```text
//!  0        1          9
//!  +--------+----------+------------------+
//!  | format | checksum | what it says     |
//!  +--------+----------+------------------+
//! ```
//!
//! The checksum is the first 8 bytes of BLAKE3 of what it says, which is in postcard.

use super::disk::Disk;
use super::store::StoreError;
use beam_wire::codec;
use redb::StorageBackend;
use serde::{Serialize, de::DeserializeOwned};

/// Format byte, then checksum.
const HEADER_BYTES: usize = 9;

/// A file of this kind.
pub struct Note {
    /// Its name.
    pub name: &'static str,
    /// Its name until it is durable.
    pub new: &'static str,
    /// The format that this version writes, and the only one that it reads.
    pub format: u8,
    /// What to do when it is damaged.
    pub way_out: &'static str,
}

impl Note {
    /// What it says; none if it is not there.
    pub fn read<T: DeserializeOwned>(&self, disk: &dyn Disk) -> Result<Option<T>, StoreError> {
        if !disk.list()?.iter().any(|name| name == self.name) {
            return Ok(None);
        }
        let corrupt =
            |why: String| StoreError::Corrupt { file: self.name.into(), why: format!("{why}{}", self.way_out) };
        let file = disk.open(self.name)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read(0, &mut bytes)?;
        file.close()?;
        let Some((header, says)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(corrupt("it ends within its header".into()));
        };
        if header[0] != self.format {
            let (file, found) = (self.name.into(), header[0].into());
            return Err(StoreError::UnknownFormat { file, found, known: self.format.into() });
        }
        if header[1..] != checksum(says) {
            return Err(corrupt("its bytes are not those that were written (checksum)".into()));
        }
        codec::decode(says).map(Some).map_err(|e| corrupt(e.to_string()))
    }

    /// Durable on return (once the disk has settled, if it is simulated). What it said before is replaced.
    pub fn write<T: Serialize>(&self, disk: &dyn Disk, says: &T) -> Result<(), StoreError> {
        let says = codec::encode(says);
        let bytes = [&[self.format][..], &checksum(&says), &says].concat();
        let file = disk.create(self.new)?;
        file.set_len(bytes.len() as u64)?;
        file.write(0, &bytes)?;
        file.sync_data()?;
        file.close()?;
        disk.rename(self.new, self.name)?;
        Ok(disk.sync_dir()?)
    }

    /// What it says is done, or will not be.
    pub fn remove(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        disk.remove(self.name)?;
        Ok(disk.sync_dir()?)
    }
}

fn checksum(says: &[u8]) -> [u8; 8] {
    blake3::hash(says).as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}

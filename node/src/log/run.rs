//! A run: entries that follow one another, in one value, which is cut into pieces that fill redb's pages.
//!
//! What is written together is hashed together, and takes one row instead of one for each entry. redb gives a
//! value that is larger than a page the next power of two of pages: uncut, an entry of 16 KiB would be written,
//! and kept, as 32.

use super::stored::{EntryError, put_entry, take_entry};
use super::types::Entry;
use bytes::{Bytes, BytesMut};

/// The format of runs that this version writes, and the only one that it reads.
pub const RUN_FORMAT: u8 = 2;
/// Format byte, checksum, and how many bytes follow.
const HEADER_BYTES: usize = 13;
const CHECKSUM: std::ops::Range<usize> = 1..9;
const LENGTH: std::ops::Range<usize> = 9..HEADER_BYTES;

/// A run takes no more entries beyond this, unless its first alone is larger: to read one entry, all of its run
/// is read. Two pages of redb's are full then, and hold four entries of 16 KiB.
const RUN_BYTES_MAX: usize = (64 << 10) + PAGE_BYTES - 2 * ROW_BYTES;
/// redb's smallest page.
const PAGE_BYTES: usize = 4 << 10;
/// What redb adds to a row that is alone in its page: the page's own, the key, and the value's length.
const ROW_BYTES: usize = 4 + 10 + 4;

/// What is to be written.
pub struct Run {
    /// How many entries it holds.
    pub count: usize,
    /// Its value, whole.
    pub bytes: Bytes,
}

impl Run {
    /// Takes entries off the front, one at least: no more when they weigh `bytes_max`.
    pub fn of(entries: &[Entry], bytes_max: usize) -> Run {
        let first = entries.first().expect("a run has an entry");
        let mut bytes = BytesMut::zeroed(HEADER_BYTES);
        let mut count = 0;
        for entry in entries {
            let before = bytes.len();
            put_entry(entry, &mut bytes);
            if count > 0 && bytes.len() > RUN_BYTES_MAX {
                bytes.truncate(before);
                break;
            }
            count += 1;
            if bytes.len() >= bytes_max {
                break;
            }
        }
        let length = u32::try_from(bytes.len() - HEADER_BYTES).expect("a run is about as long as an entry may be");
        bytes[0] = RUN_FORMAT;
        bytes[LENGTH].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(first.log_id.index, &bytes);
        bytes[CHECKSUM].copy_from_slice(&checksum);
        Run { count, bytes: bytes.freeze() }
    }

    /// What goes into each row.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> {
        let mut rest = self.bytes.clone();
        std::iter::from_fn(move || (!rest.is_empty()).then(|| rest.split_to(piece(rest.len()))))
    }
}

/// How much of so many bytes goes into the next row: all, if that leaves less than a page of its pages empty;
/// else as much as fills the largest page.
fn piece(bytes: usize) -> usize {
    let page = (bytes + ROW_BYTES).next_power_of_two().max(PAGE_BYTES);
    if page - ROW_BYTES - bytes < PAGE_BYTES { bytes } else { page / 2 - ROW_BYTES }
}

/// How long a run is, as its first piece says.
pub fn length(first: u64, piece: &[u8]) -> Result<usize, EntryError> {
    let header = piece.get(..HEADER_BYTES).ok_or(EntryError::Short { index: first })?;
    if header[0] != RUN_FORMAT {
        return Err(EntryError::UnknownFormat { index: first, found: header[0], known: RUN_FORMAT });
    }
    let length = u32::from_le_bytes(header[LENGTH].try_into().expect("these are 4 bytes"));
    Ok(HEADER_BYTES + length as usize)
}

/// Reads what [`Run::of`] made of entries from `first` on. Their bodies lie in `bytes`, and keep all of it.
pub fn entries(first: u64, bytes: &Bytes) -> Result<Vec<Entry>, EntryError> {
    if length(first, bytes)? != bytes.len() {
        return Err(EntryError::Piece { first });
    }
    if bytes[CHECKSUM] != checksum(first, bytes) {
        return Err(EntryError::RunChecksum { first });
    }
    let (mut entries, mut rest) = (Vec::new(), &bytes[HEADER_BYTES..]);
    while !rest.is_empty() {
        let (entry, after) = take_entry(first + entries.len() as u64, bytes, rest)?;
        entries.push(entry);
        rest = after;
    }
    Ok(entries)
}

/// Covers the first index, so that a run that strayed to another place is found out too. It comes last: what is
/// hashed from its beginning on is hashed many blocks at a time.
fn checksum(first: u64, run: &[u8]) -> [u8; 8] {
    let hash = blake3::Hasher::new().update(&run[LENGTH.start..]).update(&first.to_le_bytes()).finalize();
    hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::types::{LogCommand, LogId};
    use openraft::EntryPayload;
    use openraft::vote::leader_id_adv::LeaderId;
    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};

    fn data(index: u64, bytes: usize) -> Entry {
        let origin = beam_wire::Origin { node: "a".parse().unwrap(), boot: 1, sequence: index };
        let body = (0..bytes).map(|i| (i as u64 + index) as u8).collect::<Vec<u8>>().into();
        let payload = EntryPayload::Normal(LogCommand::Data { origin, body });
        Entry { log_id: LogId::new(LeaderId { term: 2, node_id: 300 }, index), payload }
    }

    fn blank(index: u64) -> Entry {
        Entry { log_id: LogId::new(LeaderId { term: 2, node_id: 300 }, index), payload: EntryPayload::Blank }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// These bytes lie on disks. If this test must change, the format number must.
    #[test]
    fn a_run_has_these_bytes() {
        let run = Run::of(&[blank(5), data(6, 3)], usize::MAX);
        assert_eq!(hex(&run.bytes), GOLDEN);
        assert_eq!(entries(5, &run.bytes), Ok(vec![blank(5), data(6, 3)]));
    }

    const GOLDEN: &str = "026ae20e319287d2121000000002ac020002ac02020161010603060708";

    #[test]
    fn other_bytes_are_refused() {
        let bytes = Run::of(&[blank(5), data(6, 3)], usize::MAX).bytes;
        assert_eq!(entries(6, &bytes), Err(EntryError::RunChecksum { first: 6 }));
        for cut in 0..bytes.len() {
            let wanted =
                if cut < HEADER_BYTES { EntryError::Short { index: 5 } } else { EntryError::Piece { first: 5 } };
            assert_eq!(entries(5, &bytes.slice(..cut)), Err(wanted));
        }
        for at in 1..bytes.len() {
            let mut rotten = bytes.to_vec();
            rotten[at] ^= 1;
            let is_length = LENGTH.contains(&at);
            let wanted = if is_length { EntryError::Piece { first: 5 } } else { EntryError::RunChecksum { first: 5 } };
            assert_eq!(entries(5, &rotten.into()), Err(wanted));
        }
        let newer = [&[3], &bytes[1..]].concat().into();
        assert_eq!(entries(5, &newer), Err(EntryError::UnknownFormat { index: 5, found: 3, known: RUN_FORMAT }));
    }

    #[test]
    fn a_run_ends_when_it_is_long_enough() {
        let small: Vec<Entry> = (0..5000).map(|i| data(i, 100)).collect();
        let run = Run::of(&small, usize::MAX);
        assert!((RUN_BYTES_MAX - 200..=RUN_BYTES_MAX).contains(&run.bytes.len()), "{}", run.bytes.len());
        assert_eq!(entries(0, &run.bytes).unwrap(), small[..run.count]);
        assert_eq!(Run::of(&small, 300).count, 3);
        assert_eq!(Run::of(&small, 1).count, 1);
        let sixteen: Vec<Entry> = (0..9).map(|i| data(i, 16 << 10)).collect();
        assert_eq!(Run::of(&sixteen, usize::MAX).count, 4);
        assert_eq!(Run::of(&[data(0, 900 << 10), data(1, 1)], usize::MAX).count, 1);
    }

    /// Prevents: pages that are half empty, which doubles what is written. redb itself says what it left empty.
    #[test]
    fn pieces_fill_their_pages() {
        let table = TableDefinition::<(u64, u16), &[u8]>::new("runs");
        for bytes in [1, 4_000, 4_078, 4_079, 8_000, 8_192, 16_424, 49_000, 65_518, 65_519, RUN_BYTES_MAX, 900 << 10] {
            let run = Run { count: 1, bytes: vec![7; bytes].into() };
            let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
            let write = db.begin_write().unwrap();
            for (piece, number) in run.pieces().zip(0..) {
                write.open_table(table).unwrap().insert((5, number), &piece[..]).unwrap();
            }
            write.commit().unwrap();
            let stats = db.begin_read().unwrap().open_table(table).unwrap().stats().unwrap();
            assert_eq!(run.pieces().map(|p| p.len()).sum::<usize>(), bytes);
            // The pages between the root and the leaves are as good as empty, too.
            let empty = stats.fragmented_bytes() as usize;
            let branches = stats.branch_pages() as usize * PAGE_BYTES;
            assert!(empty < PAGE_BYTES + branches, "{bytes} bytes leave {empty} empty");
        }
    }
}

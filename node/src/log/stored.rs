//! How the log's values look on disk. The structs here are the format: what openraft calls things
//! may change with its versions, these bytes do not. `docs/disk-log.md` draws them.

use super::types::{Entry, LogCommand, LogId, LogNode, Membership, StoredMembership, Vote};
use beam_wire::codec::{self, DecodeError};
use beam_wire::ids::{Epoch, LogIndex, Name, Origin};
use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::errors::MembershipError;
use openraft::vote::leader_id_adv::LeaderId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The format of entries that lie alone: earlier versions wrote them so, this one only reads them.
pub const ENTRY_FORMAT: u8 = 1;
/// Format byte, then checksum.
const ENTRY_HEADER_BYTES: usize = 9;

/// Why the bytes at an index are not an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("entry {index} ends within its header")]
    Short { index: u64 },
    #[error("entry {index} has format {found}, but this version of Beam reads only {known} here: start a newer one")]
    UnknownFormat { index: u64, found: u8, known: u8 },
    #[error("the bytes of entry {index} are not those that were written (checksum)")]
    Checksum { index: u64 },
    #[error("the bytes of the run that begins with entry {first} are not those that were written (checksum)")]
    RunChecksum { first: u64 },
    #[error("the run that begins with entry {first} is not whole")]
    Piece { first: u64 },
    #[error("entry {index}: {source}")]
    Malformed { index: u64, source: DecodeError },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLogId {
    term: u64,
    leader: u64,
    index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVote {
    term: u64,
    node: u64,
    committed: bool,
}

/// `configs` has two sets while the membership changes, else one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredConfig {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, LogNode>,
}

/// `B` is what holds a body: a slice of what is read.
#[derive(Serialize, Deserialize)]
struct StoredEntry<B> {
    term: u64,
    leader: u64,
    payload: StoredPayload<B>,
}

#[derive(Serialize, Deserialize)]
enum StoredPayload<B> {
    Blank,
    Membership(StoredConfig),
    Data { origin: Origin, body: B },
    Discard { before: u64 },
    Drain { datacenters: BTreeSet<Name> },
    Begin { epoch: Epoch, kept: LogIndex, origin: Origin, body: B },
}

/// Adds an entry, but not its index, to the end of `into`.
pub fn put_entry(entry: &Entry, into: &mut BytesMut) {
    let payload = match &entry.payload {
        EntryPayload::Blank => StoredPayload::Blank,
        EntryPayload::Membership(m) => StoredPayload::Membership(m.into()),
        EntryPayload::Normal(LogCommand::Data { origin, body }) => {
            StoredPayload::Data { origin: origin.clone(), body: body.clone() }
        }
        EntryPayload::Normal(LogCommand::Discard { before }) => StoredPayload::Discard { before: *before },
        EntryPayload::Normal(LogCommand::Drain { datacenters }) => {
            StoredPayload::Drain { datacenters: datacenters.clone() }
        }
        EntryPayload::Normal(LogCommand::Begin { epoch, kept, origin, body }) => {
            StoredPayload::Begin { epoch: *epoch, kept: *kept, origin: origin.clone(), body: body.clone() }
        }
    };
    let leader = entry.log_id.leader_id;
    codec::append(&StoredEntry { term: leader.term, leader: leader.node_id, payload }, into);
}

/// Reads the entry of an index from the front of `bytes`, which lie in `all`, and returns what follows it. Its
/// body is a part of `all`.
pub fn take_entry<'a>(index: u64, all: &Bytes, bytes: &'a [u8]) -> Result<(Entry, &'a [u8]), EntryError> {
    let malformed = |source| EntryError::Malformed { index, source };
    let (stored, rest): (StoredEntry<&[u8]>, _) = codec::take_borrowed(bytes).map_err(malformed)?;
    let payload = match stored.payload {
        StoredPayload::Blank => EntryPayload::Blank,
        StoredPayload::Membership(m) => EntryPayload::Membership(m.try_into().map_err(malformed)?),
        StoredPayload::Data { origin, body } => {
            EntryPayload::Normal(LogCommand::Data { origin, body: all.slice_ref(body) })
        }
        StoredPayload::Discard { before } => EntryPayload::Normal(LogCommand::Discard { before }),
        StoredPayload::Drain { datacenters } => EntryPayload::Normal(LogCommand::Drain { datacenters }),
        StoredPayload::Begin { epoch, kept, origin, body } => {
            EntryPayload::Normal(LogCommand::Begin { epoch, kept, origin, body: all.slice_ref(body) })
        }
    };
    let leader = LeaderId { term: stored.term, node_id: stored.leader };
    Ok((Entry { log_id: LogId::new(leader, index), payload }, rest))
}

/// Reads an entry that lies alone, in the form of earlier versions.
pub fn decode_entry(index: u64, bytes: &[u8]) -> Result<Entry, EntryError> {
    let Some((header, _)) = bytes.split_at_checked(ENTRY_HEADER_BYTES) else {
        return Err(EntryError::Short { index });
    };
    if header[0] != ENTRY_FORMAT {
        return Err(EntryError::UnknownFormat { index, found: header[0], known: ENTRY_FORMAT });
    }
    if header[1..] != checksum(index, &bytes[ENTRY_HEADER_BYTES..]) {
        return Err(EntryError::Checksum { index });
    }
    let all = Bytes::copy_from_slice(&bytes[ENTRY_HEADER_BYTES..]);
    match take_entry(index, &all, &all)? {
        (entry, []) => Ok(entry),
        (_, rest) => {
            let source = DecodeError::Trailing { what: "StoredEntry", count: rest.len() };
            Err(EntryError::Malformed { index, source })
        }
    }
}

/// What earlier versions wrote at the entry's index.
#[cfg(test)]
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut bytes = BytesMut::zeroed(ENTRY_HEADER_BYTES);
    put_entry(entry, &mut bytes);
    bytes[0] = ENTRY_FORMAT;
    let checksum = checksum(entry.log_id.index, &bytes[ENTRY_HEADER_BYTES..]);
    bytes[1..ENTRY_HEADER_BYTES].copy_from_slice(&checksum);
    bytes.to_vec()
}

/// Covers the index, so that an entry that strayed to another place is found out too.
fn checksum(index: u64, payload: &[u8]) -> [u8; 8] {
    let hash = blake3::Hasher::new().update(&index.to_le_bytes()).update(payload).finalize();
    hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}

impl From<LogId> for StoredLogId {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<StoredLogId> for LogId {
    fn from(id: StoredLogId) -> Self {
        LogId::new(LeaderId { term: id.term, node_id: id.leader }, id.index)
    }
}

impl From<Vote> for StoredVote {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<StoredVote> for Vote {
    fn from(vote: StoredVote) -> Self {
        Vote { leader_id: LeaderId { term: vote.term, node_id: vote.node }, committed: vote.committed }
    }
}

impl From<&Membership> for StoredConfig {
    fn from(membership: &Membership) -> Self {
        let nodes = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        Self { configs: membership.get_joint_config().clone(), nodes }
    }
}

impl TryFrom<StoredConfig> for Membership {
    type Error = DecodeError;

    fn try_from(config: StoredConfig) -> Result<Self, DecodeError> {
        let malformed = |e: MembershipError<u64>| DecodeError::Malformed { what: "Membership", why: e.to_string() };
        Membership::new(config.configs, config.nodes).map_err(malformed)
    }
}

/// A membership and where in the log it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMembers {
    at: Option<StoredLogId>,
    config: StoredConfig,
}

impl From<&StoredMembership> for StoredMembers {
    fn from(membership: &StoredMembership) -> Self {
        Self { at: membership.log_id().as_ref().map(|id| (*id).into()), config: membership.membership().into() }
    }
}

impl TryFrom<StoredMembers> for StoredMembership {
    type Error = DecodeError;

    fn try_from(members: StoredMembers) -> Result<Self, DecodeError> {
        Ok(StoredMembership::new(members.at.map(Into::into), members.config.try_into()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn entry(payload: EntryPayload<LogCommand, u64, LogNode>) -> Entry {
        Entry { log_id: LogId::new(LeaderId { term: 2, node_id: 300 }, 5), payload }
    }

    fn members() -> Membership {
        let node = LogNode { node: "log-va".parse().unwrap(), datacenter: "va".parse().unwrap() };
        Membership::new(vec![BTreeSet::from([300])], BTreeMap::from([(300, node)])).unwrap()
    }

    /// These bytes lie on disks. If this test must change, the format number must.
    #[test]
    fn entries_have_these_bytes() {
        let origin = Origin { node: "a".parse().unwrap(), boot: 1, sequence: 2 };
        let drained = BTreeSet::from(["ie".parse().unwrap(), "va".parse().unwrap()]);
        let begin = LogCommand::Begin {
            epoch: Epoch(2),
            kept: LogIndex(300),
            origin: Origin { node: "a".parse().unwrap(), boot: 1, sequence: 2 },
            body: vec![7, 8, 9].into(),
        };
        let golden = [
            (entry(EntryPayload::Blank), GOLDEN_BLANK),
            (entry(EntryPayload::Membership(members())), GOLDEN_MEMBERSHIP),
            (entry(EntryPayload::Normal(LogCommand::Data { origin, body: vec![7, 8, 9].into() })), GOLDEN_DATA),
            (entry(EntryPayload::Normal(LogCommand::Discard { before: 4 })), GOLDEN_DISCARD),
            (entry(EntryPayload::Normal(LogCommand::Drain { datacenters: drained })), GOLDEN_DRAIN),
            (entry(EntryPayload::Normal(begin)), GOLDEN_BEGIN),
        ];
        let found: Vec<String> = golden.iter().map(|(entry, _)| hex(&encode_entry(entry))).collect();
        assert_eq!(found, golden.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>());
        for (entry, _) in golden {
            assert_eq!(decode_entry(5, &encode_entry(&entry)), Ok(entry));
        }
    }

    const GOLDEN_BLANK: &str = "011eb4cdebfe374dee02ac0200";
    const GOLDEN_MEMBERSHIP: &str = "019fe0f39193b967ba02ac02010101ac0201ac02066c6f672d7661027661";
    const GOLDEN_DATA: &str = "01a5cbb9eb51a2f85602ac02020161010203070809";
    const GOLDEN_DISCARD: &str = "0171b76fca6732c72002ac020304";
    const GOLDEN_DRAIN: &str = "013c0b0f7961aeff2a02ac020402026965027661";
    const GOLDEN_BEGIN: &str = "0150f0a4d2a9c1e1b302ac020502ac020161010203070809";

    #[test]
    fn other_bytes_are_refused() {
        let bytes = encode_entry(&entry(EntryPayload::Blank));
        assert_eq!(decode_entry(6, &bytes), Err(EntryError::Checksum { index: 6 }));
        assert_eq!(decode_entry(5, &bytes[..8]), Err(EntryError::Short { index: 5 }));
        for at in 1..bytes.len() {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1;
            assert_eq!(decode_entry(5, &rotten), Err(EntryError::Checksum { index: 5 }));
        }
        let newer = [&[2], &bytes[1..]].concat();
        assert_eq!(decode_entry(5, &newer), Err(EntryError::UnknownFormat { index: 5, found: 2, known: 1 }));
    }
}

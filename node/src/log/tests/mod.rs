//! What the log promises of its disk. Each test names the loss that it prevents.

mod begin;
mod crash;
mod full;
mod machine;
mod members;
mod rebuilt;
mod rot;
mod search;
mod store;
mod suite;

use super::disk::Disk;
use super::store::{LogStore, StoreError, StoreOptions};
use super::types::{Entry, IoFlushed, LogCommand, LogId, LogNode, LogTypes, Membership, Vote};
use beam_wire::env::Env;
use openraft::EntryPayload;
use openraft::storage::RaftLogStorage;
use openraft::type_config::TypeConfigExt;
use openraft::vote::leader_id_adv::LeaderId;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::sync::Arc;

/// Runs in an environment with the machine's clock and disk.
fn run<T>(test: impl Future<Output = T>) -> T {
    LogTypes::run(test)
}

/// Small enough that a handful of entries makes several segments, and leaves the cache.
fn options() -> StoreOptions {
    StoreOptions { cluster: "test".parse().unwrap(), segment_bytes: 400, cache_bytes: 600, reserve_bytes: 0 }
}

async fn open(disk: &(impl Disk + Clone)) -> Result<LogStore, StoreError> {
    LogStore::open(&Env::current(), Arc::new(disk.clone()), options()).await
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 7 }, index)
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: LeaderId { term, node_id: 7 }, committed: true }
}

/// An entry with 100 bytes of body that say what it is.
fn data(term: u64, index: u64) -> Entry {
    let origin = beam_wire::Origin { node: "a".parse().unwrap(), boot: term, sequence: index };
    let mut body = vec![term as u8; 100];
    body[..8].copy_from_slice(&index.to_le_bytes());
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(LogCommand::Data { origin, body: body.into() }) }
}

fn members(term: u64, index: u64, voters: &[u64]) -> Entry {
    Entry { log_id: id(term, index), payload: EntryPayload::Membership(membership(voters)) }
}

fn membership(voters: &[u64]) -> Membership {
    let node = |id: &u64| LogNode { node: format!("n{id}").parse().unwrap(), datacenter: "va".parse().unwrap() };
    let nodes: BTreeMap<u64, LogNode> = voters.iter().map(|id| (*id, node(id))).collect();
    Membership::new(vec![BTreeSet::from_iter(voters.iter().copied())], nodes).unwrap()
}

/// Appends, and waits until the flush is reported.
async fn append(store: &mut LogStore, entries: impl IntoIterator<Item = Entry> + Send) -> io::Result<()> {
    let flushed = append_only(store, entries).await?;
    flushed.await.map_err(io::Error::other)?
}

/// Appends. The flush is reported by what is returned.
async fn append_only(
    store: &mut LogStore,
    entries: impl IntoIterator<Item = Entry> + Send,
) -> io::Result<tokio::sync::oneshot::Receiver<io::Result<()>>> {
    let (flushed, is_flushed) = LogTypes::oneshot();
    let entries: Vec<Entry> = entries.into_iter().collect();
    store.append(entries, IoFlushed::signal(flushed)).await?;
    Ok(is_flushed)
}

async fn all(store: &LogStore) -> Vec<Entry> {
    use openraft::storage::RaftLogReader;
    store.clone().try_get_log_entries(..).await.unwrap()
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|e| e.log_id.index).collect()
}

//! Entries for a log's store, and a store to append them to, without Raft above it.

use anyhow::{Context, Result, anyhow};
use beam_node::log::disk::Directory;
use beam_node::log::store::{LogStore, StoreOptions};
use beam_node::log::types::{Entry, IoFlushed, LogCommand, LogId, LogTypes};
use beam_wire::Origin;
use beam_wire::env::Env;
use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::RaftLogStorage;
use openraft::type_config::TypeConfigExt;
use openraft::vote::leader_id_adv::LeaderId;
use std::path::Path;
use std::sync::Arc;

/// A log that is appended to.
pub struct Appended {
    pub store: LogStore,
    next: u64,
    body: Bytes,
    origin: Origin,
}

impl Appended {
    /// Opens the log of a directory, to append bodies of so many bytes.
    pub async fn open(directory: &Path, body_bytes: usize) -> Result<Self> {
        let disk = Arc::new(Directory::open(directory)?);
        let store = LogStore::open(&Env::current(), disk, StoreOptions::new("bench".parse()?)).await?;
        let next = store.state().last.map_or(0, |last| last.index + 1);
        let origin = Origin { node: "bench".parse()?, boot: 1, sequence: 0 };
        Ok(Self { store, next, body: noise(body_bytes).into(), origin })
    }

    /// Appends so many entries as one, and returns when they are on disk.
    pub async fn append(&mut self, count: usize) -> Result<()> {
        self.append_bodies(vec![self.body.clone(); count]).await
    }

    /// Appends entries with these bodies as one, and returns when they are on disk.
    pub async fn append_bodies(&mut self, bodies: Vec<Bytes>) -> Result<()> {
        let (flushed, is_flushed) = LogTypes::oneshot();
        let count = bodies.len() as u64;
        let entries: Vec<Entry> = (self.next..).zip(bodies).map(|(index, body)| self.entry(index, body)).collect();
        self.next += count;
        self.store.append(entries, IoFlushed::signal(flushed)).await?;
        is_flushed.await.map_err(|_| anyhow!("the writer is gone"))?.context("the writer failed")
    }

    fn entry(&self, index: u64, body: Bytes) -> Entry {
        let origin = Origin { sequence: index, ..self.origin.clone() };
        let payload = EntryPayload::Normal(LogCommand::Data { origin, body });
        Entry { log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, index), payload }
    }
}

/// Bytes that no layer can compress.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut byte = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| byte()).collect()
}

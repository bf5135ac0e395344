//! The log: one sequence of entries, replicated by Raft over the log nodes of three or more datacenters.
//!
//! Every change to the database is an entry. Any log node takes appends and brings them to the leader
//! ([`append`]), serves committed entries from its own disk ([`read`]), says where the log ends
//! ([`info`]), and lets old entries go when told to. Raft itself is openraft ([`raft`]) with our store,
//! our connections ([`network`]) and our clock, chance and tasks ([`runtime`]).
//!
//! What this room promises:
//! - an index that was answered names an entry on the disks of a majority;
//! - no reader sees an entry that is not committed, and every reader sees the same ones;
//! - every proposal is answered within its deadline: with its index, or with the reason;
//! - a message that was not meant for this node, or is not from whom it says, never reaches openraft;
//! - a node that has lost its disk votes for nobody ([`birth`]), and one that finds damage in it stops;
//! - a full disk loses nothing: proposals are refused, what is replicated waits ([`room`], [`full`]).
//!
//! What it never does: it does not look into bodies, and does not know views or api nodes.
//!
//! Members come and go while the log runs ([`change`] acts, [`members`] plans), the leader stays where it
//! should be ([`place`]), times follow from measured round trips ([`timers`]), and entries are let go together
//! ([`discard`]). What a disk has lost is set aside ([`rebuild`]), and its node joins anew ([`rejoin`]).
//!
//! A log that has lost its majority goes on in a new epoch: [`survivors`] decides whose entries are kept,
//! [`recover`] takes the orders, [`pending`] keeps them over a restart, [`begin`] carries them out on the disk, and a
//! node that was left behind notices it ([`outlived`]).
//!
//! What is missing: the acknowledgement after one
//! round trip. Where a follower's log agrees with the leader's is known at once if it has voted for this
//! leader ([`search`]); for others openraft halves from index 0, a round trip each time.

pub mod append;
pub mod begin;
pub mod birth;
mod change;
mod discard;
pub mod disk;
pub mod disk_sim;
mod files;
mod forward;
mod full;
mod guard;
mod heir;
pub mod info;
pub mod machine;
mod members;
mod meta;
pub mod network;
mod note;
mod open;
mod outlived;
pub mod pending;
mod place;
pub mod raft;
pub mod read;
pub mod rebuild;
mod recover;
mod rejoin;
mod removed;
pub mod renewal;
pub mod room;
mod round_trips;
mod run;
pub mod runtime;
mod search;
mod segment;
pub mod serve;
pub mod store;
mod stored;
pub mod survivors;
mod tail;
pub mod timers;
pub mod types;
pub mod verify;
mod writer;

pub use raft::{LogError, LogOptions};

use beam_wire::env::Env;
use beam_wire::error::CallError;
use beam_wire::message::Kind;
use beam_wire::message::log::LogInfoReply;
use beam_wire::quic::directory::Directory;
use beam_wire::quic::{Incoming, Peers};
use bytes::Bytes;
use disk::Disk;
use futures::future::BoxFuture;
use std::sync::Arc;

/// One log node. It lives as long as the tasks of its [`Env`].
pub struct LogRole {
    log: Arc<raft::Log>,
}

impl LogRole {
    /// Opens the log and joins the others. `first_entry` is what a new log begins with.
    pub async fn start(
        env: &Env,
        options: LogOptions,
        peers: Peers,
        directory: Directory,
        disk: Arc<dyn Disk>,
        first_entry: Bytes,
    ) -> Result<Arc<Self>, LogError> {
        let starting = raft::Log::start(env.clone(), options, peers, directory, disk, first_entry);
        // openraft asks for its environment wherever it spawns.
        Ok(Arc::new(Self { log: env.scope(starting).await? }))
    }

    /// Whether this role answers calls of a kind.
    pub fn answers(kind: Kind) -> bool {
        use Kind::*;
        let raft = matches!(kind, RaftPipe | RaftVote | RaftSnapshot | RaftTransfer | RaftHeartbeat);
        raft || matches!(
            kind,
            LogAppend | LogRead | LogTail | LogInfo | LogDiscard | LogStatus | LogChange | LogRecover
        )
    }

    /// Answers a call.
    pub fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        let log = self.log.clone();
        Box::pin(async move { log.env.clone().scope(serve::serve(log, call)).await })
    }

    /// What is missing before this node has a log to append to; none when nothing is.
    pub fn waits_for(&self) -> Option<String> {
        self.log.birth.waits_for()
    }

    /// What this node knows of the log.
    pub fn info(&self) -> LogInfoReply {
        info::info(&self.log)
    }

    /// Waits until the node shall start again, and says why.
    pub async fn restart(&self) -> String {
        use openraft::async_runtime::{WatchReceiver, WatchSender};
        let mut asked = self.log.restart.subscribe();
        loop {
            if let Some(why) = &*asked.borrow_and_update() {
                return why.clone();
            }
            // The sender, which is in `self`, does not end before this does.
            let _ = asked.changed().await;
        }
    }

    /// Waits for openraft to end, then for the disk. Calls under way fail.
    pub async fn stop(&self) {
        // openraft may be waiting for a full disk, and would for ever.
        let full = self.log.store.waits_for_room();
        if full {
            self.close().await;
        }
        if let Err(e) = self.log.raft.shutdown().await {
            tracing::warn!("Raft did not end well: {e}");
        }
        if !full {
            self.close().await;
        }
    }

    async fn close(&self) {
        if let Err(e) = self.log.store.close().await {
            tracing::warn!("the log did not close well: {e}");
        }
    }
}

#[cfg(test)]
mod tests;

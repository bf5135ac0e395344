//! Reads each call of the log, lets the room that knows it answer, and checks Raft's messages before
//! openraft sees them.

use super::network::{HeartbeatBody, SnapshotBody, VoteBody};
use super::raft::Log;
use super::types::{LogTypes, Vote};
use super::{append, change, discard, info, read, recover};
use beam_wire::codec;
use beam_wire::error::{CallError, Code};
use beam_wire::message::raft::{Envelope, RaftBytes, RaftHeartbeat, RaftPipe, RaftSnapshot, RaftTransfer, RaftVote};
use beam_wire::message::{Kind, log as message};
use beam_wire::quic::{Handle, Incoming, ItemReader, PeerInfo};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, stream};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest};
use openraft::storage::Snapshot;
use serde::Serialize;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

/// Beats whose effect openraft has not confirmed. A node whose disk stalls this long need not hear more.
const BEATS_MAX: usize = 64;

/// Answers a call.
pub(super) async fn serve(log: Arc<Log>, call: Incoming) -> Result<(), CallError> {
    match call.kind {
        Kind::LogAppend => append::append(log, call.open()?).await,
        Kind::LogRead => {
            let call = call.open()?;
            tokio::select! { biased;
                gone = log.removed.refusal(&log) => Err(gone),
                read = read::read(log.clone(), call) => read,
            }
        }
        Kind::LogTail => {
            let mut call: Handle<message::LogTail> = call.open()?;
            let version = info::tail(&log, &call.request, call.deadline).await?;
            call.reply(&version).await
        }
        Kind::LogInfo => {
            let mut call: Handle<message::LogInfo> = call.open()?;
            call.reply(&info::info(&log)).await
        }
        Kind::LogStatus => {
            let mut call: Handle<message::LogStatus> = call.open()?;
            call.reply(&info::status(&log).await).await
        }
        Kind::LogRecover => {
            let mut call: Handle<message::LogRecover> = call.open()?;
            let reply = recover::recover(&log, &call.request).await?;
            call.reply(&reply).await
        }
        Kind::LogDiscard => {
            let mut call: Handle<message::LogDiscard> = call.open()?;
            let version = discard::discard(&log, &call.request, call.deadline).await?;
            call.reply(&version).await
        }
        Kind::LogChange => {
            let mut call: Handle<message::LogChange> = call.open()?;
            let answer = change::change(&log, &call.request, call.deadline).await?;
            call.reply(&answer).await
        }
        Kind::RaftPipe => pipe(log, call.open()?).await,
        Kind::RaftHeartbeat => heartbeat(log, call.open()?).await,
        Kind::RaftVote => {
            let mut call: Handle<RaftVote> = call.open()?;
            admit(&log, &call.request.envelope, &call.peer).await?;
            let answer = match codec::decode(&call.request.body.0)? {
                VoteBody::Vote(request) => log.raft.vote(request).await,
                VoteBody::PreVote(request) => log.raft.pre_vote(request).await,
            };
            call.reply(&encode(&answer.map_err(stopped)?)).await
        }
        Kind::RaftSnapshot => {
            let mut call: Handle<RaftSnapshot> = call.open()?;
            admit(&log, &call.request.envelope, &call.peer).await?;
            let SnapshotBody { vote, meta, data } = codec::decode(&call.request.body.0)?;
            let answer = log.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: data }).await;
            call.reply(&encode(&answer.map_err(stopped)?)).await
        }
        Kind::RaftTransfer => {
            let mut call: Handle<RaftTransfer> = call.open()?;
            admit(&log, &call.request.envelope, &call.peer).await?;
            let request: TransferLeaderRequest<LogTypes> = codec::decode(&call.request.body.0)?;
            log.inherits(*request.to_node_id());
            let answer = log.raft.handle_transfer_leader(request).await;
            call.reply(&encode(&answer.map_err(stopped)?)).await
        }
        other => Err(CallError::never(Code::UnknownKind, format!("the log does not answer {other:?}"))),
    }
}

/// Checks whom a message is for and from whom it is. A node that was not born yet takes its epoch.
async fn admit(log: &Log, envelope: &Envelope, from: &PeerInfo) -> Result<(), CallError> {
    let membership = log.raft.server_metrics().borrow_watched().membership_config.clone();
    if let Err(e) = log.network.check(envelope, from, &membership) {
        log.network.tell_refused(from, &e);
        return Err(e.into());
    }
    if let (Some(epoch), None) = (envelope.epoch, log.store.epoch()) {
        log.store.set_epoch(epoch).await.map_err(|e| CallError::elsewhere(Code::Storage, e.to_string()))?;
    }
    Ok(())
}

fn encode<M: Serialize>(message: &M) -> RaftBytes {
    RaftBytes(codec::encode(message).into())
}

fn stopped(e: impl std::fmt::Display) -> CallError {
    CallError::elsewhere(Code::Unavailable, format!("this log node has stopped: {e}"))
}

/// Replication: requests in, answers out, in the same order.
async fn pipe(log: Arc<Log>, call: Handle<RaftPipe>) -> Result<(), CallError> {
    admit(&log, &call.request.envelope, &call.peer).await?;
    let (items, mut replies) = call.split();
    let broken = Arc::new(Mutex::new(None));
    let requests = Requests { items, log: log.clone(), broken: broken.clone() };
    let requests = stream::unfold(requests, |mut requests| async move {
        let next = requests.next().await?;
        Some((next, requests))
    });
    let mut answers = pin!(log.raft.stream_append(requests));
    while let Some(answer) = answers.next().await {
        let answer: StreamAppendResult<LogTypes> = answer.map_err(stopped)?;
        replies.reply(&encode(&answer)).await?;
    }
    let broken = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
    broken.map_or(Ok(()), Err)
}

/// The requests of a pipe, until it ends or breaks.
struct Requests {
    items: ItemReader<RaftPipe>,
    log: Arc<Log>,
    broken: Arc<Mutex<Option<CallError>>>,
}

impl Requests {
    async fn next(&mut self) -> Option<AppendEntriesRequest<LogTypes>> {
        let item = match self.items.item().await {
            Ok(item) => item?,
            Err(e) => return self.broke(e),
        };
        match codec::decode(&item.0) {
            Ok(request) => {
                self.log.heard.leader(self.log.env.now());
                Some(request)
            }
            Err(e) => self.broke(e.into()),
        }
    }

    fn broke<T>(&self, e: CallError) -> Option<T> {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
        None
    }
}

async fn heartbeat(log: Arc<Log>, mut call: Handle<RaftHeartbeat>) -> Result<(), CallError> {
    admit(&log, &call.request.envelope, &call.peer).await?;
    match codec::decode(&call.request.body.0)? {
        HeartbeatBody::Ask(request) => {
            log.heard.leader(log.env.now());
            let answer = log.raft.append_entries(request).await.map_err(stopped)?;
            call.reply(&encode(&answer)).await
        }
        HeartbeatBody::Beats { vote } => beats(log, vote, call).await,
    }
}

/// Lets openraft know that the leader lives. An empty request that matches every log and announces no
/// commit changes nothing but the lease; one of a leader that was replaced is refused.
async fn beats(log: Arc<Log>, vote: Vote, mut call: Handle<RaftHeartbeat>) -> Result<(), CallError> {
    let mut unconfirmed = FuturesUnordered::new();
    loop {
        tokio::select! { biased;
            Some(answer) = unconfirmed.next() => match answer {
                Ok(openraft::raft::AppendEntriesResponse::HigherVote(higher)) => {
                    return Err(CallError::never(Code::NotLeader, format!("{vote} was replaced by {higher}")));
                }
                Ok(_) => {}
                Err(e) => return Err(stopped(e)),
            },
            item = call.item() => {
                if item?.is_none() {
                    return Ok(());
                }
                log.heard.leader(log.env.now());
                if unconfirmed.len() < BEATS_MAX {
                    let beat = AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
                    unconfirmed.push(log.raft.append_entries(beat));
                }
            }
        }
    }
}

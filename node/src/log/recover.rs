//! A log node's part in a recovery from a lost majority: what it has to say, and how it takes an order.
//!
//! The order becomes durable, then the node restarts by itself; the start carries it out ([`super::begin`]).

use super::info;
use super::pending::{self, Pending, Refounding, SettingAside};
use super::raft::Log;
use super::store::StoreError;
use super::survivors::SILENT_MS;
use super::types::EntryContent;
use beam_wire::error::{CallError, Code};
use beam_wire::ids::{Epoch, LogIndex, Name};
use beam_wire::message::log::{
    LogEnd, LogRecover, LogRecoverReply, LogStatus, RecoverOrder, RecoverPart, shared_up_to,
};
use openraft::Instant as _;
use openraft::async_runtime::{WatchReceiver, WatchSender};
use std::time::Duration;

/// How long the node that has begun the new epoch may take to say so.
const FOUNDER_WITHIN: Duration = Duration::from_secs(3);
/// Between an order and the restart: the answer must be out.
const RESTART_AFTER: Duration = Duration::from_millis(300);

/// Why an order is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    #[error("the order is for {meant}, this is {me}")]
    NotMe { meant: Name, me: Name },
    #[error("the plan does not hold any more: it saw a log that was {seen}; now it is {now}. Make a new plan")]
    Changed { seen: LogEnd, now: LogEnd },
    #[error("{me} has not carried out its part of the plan {token:016x} yet")]
    Pending { me: Name, token: u64 },
    #[error("epoch {asked} is not after {mine}, in which this node is")]
    NotNewer { asked: Epoch, mine: Epoch },
    #[error("a leader was heard {ms} ms ago: the log is not lost")]
    LeaderHeard { ms: u64 },
    #[error("{me} holds nothing that was ever appended: there is nothing to begin an epoch with")]
    NoData { me: Name },
    #[error("{founder} does not say that it is in epoch {epoch}, after this node's own: {why}")]
    NoFounder { founder: Name, epoch: Epoch, why: String },
    #[error("the order cannot be written down: {0}")]
    Storage(String),
}

impl From<RecoverError> for CallError {
    fn from(e: RecoverError) -> Self {
        let message = e.to_string();
        match e {
            RecoverError::NotMe { .. } => CallError::never(Code::Invalid, message),
            RecoverError::NoFounder { .. } => CallError::later(Code::Unavailable, 500, message),
            RecoverError::Storage(_) => CallError::never(Code::Storage, message),
            _ => CallError::never(Code::Rejected, message),
        }
    }
}

/// Takes the order, if there is one, and says how this node is.
pub(super) async fn recover(log: &Log, call: &LogRecover) -> Result<LogRecoverReply, CallError> {
    if let Some(order) = &call.order {
        take(log, order).await?;
    }
    bring(log).await
}

async fn bring(log: &Log) -> Result<LogRecoverReply, CallError> {
    let pending = read_pending(log).await?.map(|order| order.token());
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let metrics = log.raft.metrics();
    let voters = {
        let metrics = metrics.borrow_watched();
        let sets = metrics.membership_config.membership().get_joint_config().iter();
        sets.map(|voters| voters.iter().copied().collect()).collect()
    };
    let acked = log.raft.data_metrics().borrow_watched().last_quorum_acked.map(|at| ms(at.elapsed()));
    Ok(LogRecoverReply {
        status: info::status(log).await,
        voters,
        majority_ms_ago: acked,
        leader_ms_ago: log.heard.ago(log.env.now()).map(ms),
        pending,
    })
}

async fn take(log: &Log, order: &RecoverOrder) -> Result<(), CallError> {
    let me = &log.options.node;
    if order.node != *me {
        return Err(RecoverError::NotMe { meant: order.node.clone(), me: me.clone() }.into());
    }
    match read_pending(log).await? {
        // The answer to the first was lost.
        Some(taken) if taken.token() == order.token => return Ok(()),
        Some(other) => return Err(RecoverError::Pending { me: me.clone(), token: other.token() }.into()),
        None => {}
    }
    let now = bring(log).await?.end();
    if now != order.seen {
        return Err(RecoverError::Changed { seen: order.seen.clone(), now }.into());
    }
    let pending = match &order.part {
        RecoverPart::Refound { epoch } => refound(log, order, *epoch).await?,
        RecoverPart::SetAside { epoch, founder } => set_aside(log, order, *epoch, founder).await?,
    };
    let disk = log.disk.clone();
    let written = log.env.blocking(move || pending::write(&*disk, &pending)).await;
    written.map_err(|e| RecoverError::Storage(e.to_string()))?;
    log.disk.settled().await.map_err(|e| RecoverError::Storage(e.to_string()))?;
    tracing::warn!("the log node {me} has its part in the recovery {:016x}, and restarts", order.token);
    let (env, restart) = (log.env.clone(), log.restart.clone());
    let why = format!("to carry out its part in the recovery {:016x}", order.token);
    let restarting = async move {
        env.sleep(RESTART_AFTER).await;
        restart.send_if_modified(|restart| {
            *restart = Some(why);
            true
        });
    };
    log.env.tasks().serve("log.restart", restarting).detach();
    Ok(())
}

async fn refound(log: &Log, order: &RecoverOrder, epoch: Epoch) -> Result<Pending, RecoverError> {
    is_newer(log, epoch)?;
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let acked = log.raft.data_metrics().borrow_watched().last_quorum_acked.map(|at| ms(at.elapsed()));
    if let Some(ms) = acked.filter(|ms| *ms < SILENT_MS) {
        return Err(RecoverError::LeaderHeard { ms });
    }
    if !holds_data(log).await? {
        return Err(RecoverError::NoData { me: log.options.node.clone() });
    }
    let (token, seen) = (order.token, order.seen.clone());
    Ok(Pending::Refound(Refounding { token, seen, epoch, raft_id: log.env.random_u64() }))
}

/// A log is set aside only when another has taken its place: asked of who has begun it.
async fn set_aside(log: &Log, order: &RecoverOrder, epoch: Epoch, founder: &Name) -> Result<Pending, RecoverError> {
    let mine = is_newer(log, epoch)?;
    let no = |why: String| RecoverError::NoFounder { founder: founder.clone(), epoch, why };
    let said = log.network.ask(founder, &LogStatus, FOUNDER_WITHIN).await.map_err(|e| no(e.to_string()))?;
    if said.info.epoch != Some(epoch) || shared_up_to(&said.epochs, mine).is_none() {
        let epochs: Vec<_> = said.epochs.iter().map(|began| began.epoch.to_string()).collect();
        return Err(no(format!("it is in epoch {:?}, with {epochs:?} behind it", said.info.epoch.map(|e| e.0))));
    }
    Ok(Pending::SetAside(SettingAside { token: order.token, seen: order.seen.clone(), epoch }))
}

fn is_newer(log: &Log, asked: Epoch) -> Result<Epoch, RecoverError> {
    let mine = log.store.epoch().unwrap_or(Epoch(0));
    if asked > mine { Ok(mine) } else { Err(RecoverError::NotNewer { asked, mine }) }
}

async fn read_pending(log: &Log) -> Result<Option<Pending>, RecoverError> {
    let disk = log.disk.clone();
    let read = log.env.blocking(move || pending::read(&*disk)).await;
    read.map_err(|e: StoreError| RecoverError::Storage(e.to_string()))
}

/// Whether anything was ever appended. It lies within the first few entries, or there is nothing; once something was
/// discarded, there was.
async fn holds_data(log: &Log) -> Result<bool, RecoverError> {
    /// The first entry of all comes after those of the first elections.
    const LOOK_AT_MOST: u64 = 4096;
    let state = log.store.state();
    let Some(last) = state.last else { return Ok(false) };
    if state.purged.is_some() || last.index > LOOK_AT_MOST {
        return Ok(true);
    }
    let mut from = 0;
    while from <= last.index {
        let read = log.store.read(from, last.index, 64 << 10).await;
        let entries = read.map_err(|e| RecoverError::Storage(e.to_string()))?;
        let Some((read_to, _)) = entries.last() else { break };
        from = read_to + 1;
        if entries.iter().any(|(_, content)| matches!(content, EntryContent::Data { .. })) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The lowest index from which a reader of an epoch may go on in this one, checked.
pub(super) fn check_reader(log: &Log, asked: Option<Epoch>, from: LogIndex) -> Result<(), CallError> {
    let (Some(asked), Some(mine)) = (asked, log.store.epoch()) else { return log.check_epoch(asked) };
    if asked >= mine {
        return log.check_epoch(Some(asked));
    }
    log.outlived.check()?;
    let epochs = &log.store.machine().course.epochs;
    if epochs.last().map_or(Epoch(1), |last| last.epoch) != mine {
        let message = format!("{} does not know yet where epoch {mine} began", log.options.node);
        return Err(CallError::elsewhere(Code::Unavailable, message));
    }
    match shared_up_to(epochs, asked) {
        Some(kept) if from <= kept.next() => Ok(()),
        Some(kept) => Err(CallError::never(
            Code::WrongEpoch,
            format!(
                "the log was recovered or restored: it is in epoch {mine}, and of epoch {asked} it has kept the entries up \
                 to {kept}. What a reader at {from} has seen after {kept} is not in it any more"
            ),
        )),
        None => Err(CallError::never(
            Code::WrongEpoch,
            format!(
                "this log is in epoch {mine}, which does not come from epoch {asked}: it is another life of the log"
            ),
        )),
    }
}

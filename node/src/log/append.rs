//! Everything that an append does.
//!
//! A proposal waits in the queue of the node that took it until a leader is known. If that is this node,
//! the queue goes to openraft in batches; else over one long-lived stream to the leader. What a leader
//! change leaves undecided is proposed again, under the same origin: appends are at least once. Every
//! proposal is answered within its deadline, with its index or with the reason.

use super::full;
use super::heir::Successions;
use super::raft::{Leads, Log};
use super::types::{LogCommand, LogNode, LogTypes};
use beam_wire::error::{CallError, Code, Retry};
use beam_wire::ids::{LogIndex, Name, Origin};
use beam_wire::message::log::{Appended, BODY_BYTES_MAX, LogAppend, Proposal, Proposals};
use beam_wire::quic::{CallOptions, Handle, ItemWriter, Lane, ReplyReader};
use futures::StreamExt;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::raft::WriteResult;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// What one call may have waiting before its next item is read.
const CALL_BYTES_MAX: usize = 8 << 20;
/// What one batch to openraft holds at most, beside its last proposal: about one flush.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// What one frame to the leader holds at most: with names and lengths it stays below 1 MiB.
const FRAME_BYTES_MAX: usize = BODY_BYTES_MAX + 64 * 1024;
/// What may be on its way to the leader: 100 Mbit/s over 300 ms.
const FORWARD_BYTES_MAX: usize = 4 << 20;
/// What a proposal costs beside its body.
const PROPOSAL_BYTES: usize = 128;
/// A new leader refuses proposals until a majority has answered it. Shorter than any round trip between
/// datacenters.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// Why a proposal has no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("a body of {bytes} bytes is above the limit of {BODY_BYTES_MAX}: cut the transaction")]
    TooLarge { bytes: usize },
    #[error("{waiting_bytes} bytes already wait to be appended, the limit is {limit_bytes}")]
    QueueFull { waiting_bytes: usize, limit_bytes: usize },
    #[error("{me} does not lead the log{}", .leader.as_ref().map(|l| format!(", {l} does")).unwrap_or_default())]
    NotLeader { me: Name, leader: Option<Name> },
    #[error("no majority of the log nodes ({voters}) took the entry in time; it may still come to be in the log")]
    NoQuorum { voters: String },
    #[error("{me} does not reach {leader}, which leads the log; the entry may still come to be in the log")]
    LeaderSilent { me: Name, leader: Name },
    #[error("the log is not born yet: {waits_for}")]
    Unborn { waits_for: String },
    #[error(
        "the log takes no entries: too little room is left on the disk of {nodes}. Make room there, or let old entries go (beam log discard); it then goes on by itself"
    )]
    DiskFull { nodes: String },
    /// As the leader put it, to which this was forwarded.
    #[error("{why}")]
    LeaderRefuses { why: String },
    #[error("this log node has stopped: {why}")]
    Stopped { why: String },
}

impl From<AppendError> for CallError {
    fn from(e: AppendError) -> Self {
        let (code, retry) = match &e {
            AppendError::TooLarge { .. } => (Code::TooLarge, Retry::Never),
            AppendError::QueueFull { .. } => (Code::Overloaded, Retry::Later { after_ms: 100 }),
            AppendError::NotLeader { leader: Some(leader), .. } => (Code::NotLeader, Retry::At(leader.clone())),
            AppendError::NotLeader { leader: None, .. } => (Code::NotLeader, Retry::Later { after_ms: 50 }),
            AppendError::NoQuorum { .. } => (Code::NoQuorum, Retry::Later { after_ms: 500 }),
            AppendError::LeaderSilent { .. } => (Code::Unavailable, Retry::Elsewhere),
            AppendError::Unborn { .. } => (Code::Unavailable, Retry::Later { after_ms: 500 }),
            AppendError::DiskFull { .. } | AppendError::LeaderRefuses { .. } => {
                (Code::Storage, Retry::Later { after_ms: 1000 })
            }
            AppendError::Stopped { .. } => (Code::Unavailable, Retry::Elsewhere),
        };
        CallError { code, message: e.to_string(), retry }
    }
}

/// Serves one stream of appends.
pub(super) async fn append(log: Arc<Log>, mut call: Handle<LogAppend>) -> Result<(), CallError> {
    log.check_epoch(call.request.epoch)?;
    let forwarded = call.request.forwarded;
    let mut asked: VecDeque<Asked> = VecDeque::new();
    let mut asked_bytes = 0;
    let mut more = true;
    while more || !asked.is_empty() {
        let reads = more && asked_bytes < CALL_BYTES_MAX;
        tokio::select! { biased;
            first = first_answer(&log, &mut asked), if !asked.is_empty() => {
                let mut indexes = vec![first?];
                asked_bytes -= asked.pop_front().map_or(0, |a| a.bytes);
                // All others that are here go with it.
                while let Some(next) = asked.front_mut() {
                    let Ok(answer) = next.answer.try_recv() else { break };
                    indexes.push(answer?);
                    asked_bytes -= asked.pop_front().map_or(0, |a| a.bytes);
                }
                let epoch = log.epoch()?;
                call.reply(&Appended { epoch, indexes }).await?;
            }
            item = call.item(), if reads => match item? {
                None => more = false,
                Some(Proposals { proposals }) => {
                    log.outlived.check()?;
                    let deadline = log.env.now() + log.options.append_timeout;
                    let deadline = call.deadline.map_or(deadline, |d| d.min(deadline));
                    for proposal in proposals {
                        let new = log.queue.push(&log.options.node, proposal, forwarded, deadline)?;
                        asked_bytes += new.bytes;
                        asked.push_back(new);
                    }
                }
            },
        }
    }
    Ok(())
}

/// Waits for the oldest answer, at most until its deadline. Safe to cancel.
async fn first_answer(log: &Log, asked: &mut VecDeque<Asked>) -> Result<LogIndex, CallError> {
    let Some(oldest) = asked.front_mut() else { return std::future::pending().await };
    match log.env.timeout_at(oldest.deadline, &mut oldest.answer).await {
        Ok(Ok(answer)) => Ok(answer?),
        Ok(Err(_)) => Err(AppendError::Stopped { why: "its queue is gone".into() }.into()),
        Err(_) => Err(too_late(log).into()),
    }
}

/// Why nothing came of it in time.
fn too_late(log: &Log) -> AppendError {
    if let Some(waits_for) = log.birth.waits_for() {
        return AppendError::Unborn { waits_for };
    }
    match log.leads() {
        Leads::Other { node, .. } if !log.queue.reaches(&node.node) => {
            AppendError::LeaderSilent { me: log.options.node.clone(), leader: node.node }
        }
        _ => AppendError::NoQuorum { voters: log.voters() },
    }
}

/// What this node has taken and not yet answered.
pub(super) struct Queue {
    boot: u64,
    sequence: AtomicU64,
    held: Arc<Held>,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// The leader to which a stream of forwards is open.
    reached: Option<Name>,
    /// openraft refused: wait until then.
    pause_until: Option<Instant>,
}

/// A proposal on its way.
struct Waiting {
    proposal: Proposal,
    forwarded: bool,
    answer: oneshot::Sender<Result<LogIndex, AppendError>>,
    size: Hold,
}

/// The other end of a [`Waiting`].
struct Asked {
    answer: oneshot::Receiver<Result<LogIndex, AppendError>>,
    deadline: Instant,
    bytes: usize,
}

/// Counts the bytes of all proposals that are not answered.
struct Held {
    bytes: Mutex<usize>,
    bytes_max: usize,
}

/// A part of [`Held`], returned when dropped.
struct Hold {
    held: Arc<Held>,
    bytes: usize,
}

impl Held {
    fn hold(self: &Arc<Self>, bytes: usize) -> Result<Hold, AppendError> {
        let mut all = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if *all + bytes > self.bytes_max {
            return Err(AppendError::QueueFull { waiting_bytes: *all, limit_bytes: self.bytes_max });
        }
        *all += bytes;
        Ok(Hold { held: self.clone(), bytes })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        *self.held.bytes.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
    }
}

impl Queue {
    /// `boot` is drawn at random at each start: with it, origins are unique.
    pub fn new(boot: u64, bytes_max: usize) -> Self {
        let held = Arc::new(Held { bytes: Mutex::new(0), bytes_max });
        Self { boot, sequence: AtomicU64::new(0), held, state: Mutex::default(), filled: Notify::new() }
    }

    /// A fresh origin.
    pub fn origin(&self, me: &Name) -> Origin {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        Origin { node: me.clone(), boot: self.boot, sequence }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(
        &self,
        me: &Name,
        mut proposal: Proposal,
        forwarded: bool,
        deadline: Instant,
    ) -> Result<Asked, AppendError> {
        let bytes = proposal.body.len();
        if bytes > BODY_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes });
        }
        if !forwarded || proposal.origin.is_none() {
            proposal.origin = Some(self.origin(me));
        }
        let size = self.held.hold(bytes + PROPOSAL_BYTES)?;
        let bytes = size.bytes;
        let (sender, answer) = oneshot::channel();
        self.state().waiting.push_back(Waiting { proposal, forwarded, answer: sender, size });
        self.filled.notify_one();
        Ok(Asked { answer, deadline, bytes })
    }

    /// Puts back what is undecided, before all others.
    fn put_back(&self, undecided: impl DoubleEndedIterator<Item = Waiting>) {
        let mut state = self.state();
        for waiting in undecided.rev() {
            state.waiting.push_front(waiting);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// The oldest proposals for which somebody still waits, up to `bytes_max` and at least one.
    fn take(&self, bytes_max: usize) -> Vec<Waiting> {
        let mut state = self.state();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.waiting.front() {
            if next.answer.is_closed() {
                state.waiting.pop_front();
                continue;
            }
            bytes += next.size.bytes;
            if bytes > bytes_max && !taken.is_empty() {
                break;
            }
            taken.extend(state.waiting.pop_front());
        }
        taken
    }

    /// Answers some of what waits with an error.
    fn refuse(&self, which: impl Fn(&Waiting) -> bool, why: &AppendError) {
        let refused = {
            let mut state = self.state();
            let (refused, kept): (VecDeque<_>, _) = state.waiting.drain(..).partition(|w| which(w));
            state.waiting = kept;
            refused
        };
        for waiting in refused {
            // The receiver is gone if its call is.
            let _ = waiting.answer.send(Err(why.clone()));
        }
    }

    /// Waits until something is there.
    async fn filled(&self) {
        loop {
            let filled = self.filled.notified();
            if !self.state().waiting.is_empty() {
                return;
            }
            filled.await;
        }
    }

    /// Whether forwards reach this leader.
    fn reaches(&self, leader: &Name) -> bool {
        self.state().reached.as_ref() == Some(leader)
    }
}

/// Brings what waits to whoever leads, as long as the node lives.
pub(super) async fn run(log: Arc<Log>) -> Result<(), AppendError> {
    let queue = &log.queue;
    let mut changes = Successions::of(&log);
    loop {
        queue.filled().await;
        let pause = queue.state().pause_until.take();
        if let Some(until) = pause {
            log.env.sleep_until(until).await;
        }
        changes.seen();
        match log.takes_proposals() {
            Leads::Me if log.birth.is_open() => match full::refuses(&log) {
                None => propose(&log, queue.take(BATCH_BYTES_MAX)).await?,
                Some(nodes) => queue.refuse(|_| true, &AppendError::DiskFull { nodes }),
            },
            Leads::Me => {
                tokio::select! { biased;
                    _ = log.birth.open() => {}
                    goes_on = changes.changed(&log) => is_there(goes_on)?,
                }
            }
            Leads::Other { id, node } => {
                let ended = forward(&log, id, &node).await;
                queue.state().reached = None;
                if let Err(e) = ended {
                    if e.code == Code::Storage {
                        queue.refuse(|_| true, &AppendError::LeaderRefuses { why: e.message.clone() });
                    }
                    tracing::debug!("forwarding to {node} ended: {e}");
                    // Whoever was refused a connection asks again soon; a new leader is taken at once.
                    let moment = log.env.sleep(REFUSED_PAUSE * 5);
                    tokio::select! { biased;
                        goes_on = changes.changed(&log) => is_there(goes_on)?,
                        _ = moment => {}
                    }
                }
            }
            Leads::Nobody => {
                if !log.is_heir() {
                    refuse_forwarded(&log, None);
                }
                is_there(changes.changed(&log).await)?;
            }
        }
    }
}

fn is_there(goes_on: bool) -> Result<(), AppendError> {
    if goes_on { Ok(()) } else { Err(AppendError::Stopped { why: "Raft has stopped".into() }) }
}

/// Whoever forwarded to us knows others, and shall not be forwarded again.
fn refuse_forwarded(log: &Log, leader: Option<Name>) {
    log.queue.refuse(|w| w.forwarded, &AppendError::NotLeader { me: log.options.node.clone(), leader });
}

/// Hands a batch to openraft. The answers come when they come.
async fn propose(log: &Arc<Log>, batch: Vec<Waiting>) -> Result<(), AppendError> {
    if batch.is_empty() {
        return Ok(());
    }
    let commands: Vec<LogCommand> = batch.iter().map(|w| command(&w.proposal)).collect();
    let stop = |e: Fatal<LogTypes>| AppendError::Stopped { why: e.to_string() };
    let mut answers = log.raft.client_write_many(commands).await.map_err(stop)?;
    let of = log.clone();
    let answering = async move {
        let mut undecided = Vec::new();
        for waiting in batch {
            match answers.next().await {
                Some(Ok(answer)) => undecided.extend(settle(answer, waiting)),
                // openraft has stopped, and so does this node.
                Some(Err(_)) | None => return,
            }
        }
        if !undecided.is_empty() {
            of.queue.state().pause_until = Some(of.env.now() + REFUSED_PAUSE);
            of.queue.put_back(undecided.into_iter());
        }
    };
    log.env.tasks().serve("log.append", answering).detach();
    Ok(())
}

fn command(proposal: &Proposal) -> LogCommand {
    let origin = proposal.origin.clone().expect("the queue gives every proposal an origin");
    LogCommand::Data { origin, body: proposal.body.clone() }
}

/// Answers a proposal that is decided, and returns one that is not.
fn settle(answer: WriteResult<LogTypes>, waiting: Waiting) -> Option<Waiting> {
    match answer {
        Ok(written) => {
            // The receiver is gone if its call is.
            let _ = waiting.answer.send(Ok(LogIndex(written.log_id.index)));
            None
        }
        // Not led from here, not yet, or not any more: the queue finds out who leads.
        Err(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_)) => Some(waiting),
        Err(e @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_))) => {
            unreachable!("a plain write neither changes members nor has conditions: {e}")
        }
    }
}

/// Sends what waits to the leader, until another leads or the stream breaks. What is undecided then
/// goes back to the queue.
async fn forward(log: &Arc<Log>, leader: u64, node: &LogNode) -> Result<(), CallError> {
    let mut changes = Successions::of(log);
    let mut gone = pin!(async move {
        loop {
            changes.seen();
            let same = matches!(log.takes_proposals(), Leads::Other { id, .. } if id == leader);
            if !same || !changes.changed(log).await {
                return;
            }
        }
    });
    let open = LogAppend { epoch: Some(log.epoch()?), forwarded: true };
    let opening = async { log.network.peer(&node.node, Lane::Calls).await?.call(&open, CallOptions::default()).await };
    let call = tokio::select! { biased;
        _ = &mut gone => return Ok(()),
        call = opening => call?,
    };
    log.queue.state().reached = Some(node.node.clone());
    let (mut items, mut replies) = call.split();
    let mut sent = Sent { log: log.clone(), waiting: VecDeque::new(), bytes: 0 };
    loop {
        tokio::select! { biased;
            _ = &mut gone => {
                // A leader that hands over goes on acknowledging what it has taken.
                if log.is_handed_over() {
                    log.env.tasks().serve("log.forwarded", sent.settle(leader, items, replies)).detach();
                }
                return Ok(());
            }
            answered = sent.answer(&mut replies), if !sent.waiting.is_empty() => answered?,
            _ = log.queue.filled(), if sent.bytes < FORWARD_BYTES_MAX => {
                refuse_forwarded(log, Some(node.node.clone()));
                let batch = log.queue.take(FRAME_BYTES_MAX);
                if batch.is_empty() {
                    continue;
                }
                let proposals = Proposals { proposals: batch.iter().map(|w| w.proposal.clone()).collect() };
                sent.push(batch);
                let mut sending = pin!(items.send(&proposals));
                loop {
                    tokio::select! { biased;
                        _ = &mut gone => return Ok(()),
                        done = &mut sending => break done?,
                        answered = sent.answer(&mut replies) => answered?,
                    }
                }
            }
        }
    }
}

/// What the leader was sent and has not answered; back to the queue with it at the end.
struct Sent {
    log: Arc<Log>,
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl Sent {
    fn push(&mut self, batch: Vec<Waiting>) {
        self.bytes += batch.iter().map(|w| w.size.bytes).sum::<usize>();
        self.waiting.extend(batch);
    }

    /// Waits for the next indexes and passes them on. Safe to cancel.
    async fn answer(&mut self, replies: &mut ReplyReader<LogAppend>) -> Result<(), CallError> {
        let Some(Appended { indexes, .. }) = replies.next().await? else {
            return Err(CallError::elsewhere(Code::Disconnected, "the leader ended the stream of forwards"));
        };
        for index in indexes {
            let Some(waiting) = self.waiting.pop_front() else {
                return Err(CallError::never(Code::Internal, "the leader answers what it was not asked"));
            };
            self.bytes -= waiting.size.bytes;
            // The receiver is gone if its call is.
            let _ = waiting.answer.send(Ok(index));
        }
        Ok(())
    }

    /// Waits for what can still be answered, until another leads. The stream to the leader must last as long.
    async fn settle(mut self, leader: u64, items: ItemWriter<LogAppend>, mut replies: ReplyReader<LogAppend>) {
        let mut changes = self.log.raft.server_metrics();
        let replaced = async {
            let same = |now: Option<u64>| now.is_none_or(|now| now == leader);
            while same(changes.borrow_and_update().current_leader) && changes.changed().await.is_ok() {}
        };
        let answered = async { while !self.waiting.is_empty() && self.answer(&mut replies).await.is_ok() {} };
        tokio::select! { biased;
            () = answered => {}
            () = replaced => {}
        }
        drop(items);
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.log.queue.put_back(std::mem::take(&mut self.waiting).into_iter());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// A queue, and what pushes a body of so many bytes into it, from a client or forwarded.
    fn queue(bytes_max: usize) -> (Queue, impl Fn(&Queue, usize, bool) -> Result<Asked, AppendError>) {
        let push = |queue: &Queue, bytes: usize, forwarded: bool| {
            let origin = forwarded.then(|| Origin { node: name("log-or"), boot: 1, sequence: 7 });
            let proposal = Proposal { origin, body: Bytes::from(vec![0; bytes]) };
            queue.push(&name("log-va"), proposal, forwarded, far())
        };
        (Queue::new(9, bytes_max), push)
    }

    fn far() -> Instant {
        let env = beam_wire::env::Env::real(std::sync::Arc::new(Nowhere));
        env.now() + Duration::from_secs(3600)
    }

    struct Nowhere;

    impl beam_wire::env::Dns for Nowhere {
        fn srv<'a>(
            &'a self,
            name: &'a str,
        ) -> futures::future::BoxFuture<'a, Result<beam_wire::env::SrvAnswer, beam_wire::env::DnsError>> {
            Box::pin(async move { Err(beam_wire::env::DnsError::NoSuchName(name.into())) })
        }
    }

    fn sequences(taken: &[Waiting]) -> Vec<u64> {
        taken.iter().map(|w| w.proposal.origin.as_ref().unwrap().sequence).collect()
    }

    #[test]
    fn proposals_are_taken_in_order_by_bytes_and_one_at_least() {
        let (queue, push) = queue(1 << 20);
        let _asked: Vec<_> = [100, 100, 5000, 100].map(|bytes| push(&queue, bytes, false).unwrap()).into();
        assert_eq!(sequences(&queue.take(2 * (100 + PROPOSAL_BYTES))), [0, 1]);
        assert_eq!(sequences(&queue.take(1000)), [2], "one at least");
        assert_eq!(sequences(&queue.take(1000)), [3]);
        assert_eq!(sequences(&queue.take(1000)), [0; 0]);
    }

    #[test]
    fn what_is_put_back_comes_first_and_keeps_its_origin() {
        let (queue, push) = queue(1 << 20);
        let _asked: Vec<_> = [1, 1, 1].map(|bytes| push(&queue, bytes, false).unwrap()).into();
        let taken = queue.take(2 * (1 + PROPOSAL_BYTES));
        queue.put_back(taken.into_iter());
        assert_eq!(sequences(&queue.take(1 << 20)), [0, 1, 2]);
    }

    #[test]
    fn nobody_waits_for_it_so_it_is_not_proposed() {
        let (queue, push) = queue(1 << 20);
        let gone = push(&queue, 1, false).unwrap();
        let _here = push(&queue, 1, false).unwrap();
        drop(gone);
        assert_eq!(sequences(&queue.take(1 << 20)), [1]);
    }

    #[test]
    fn a_full_queue_refuses_until_something_is_answered() {
        let (queue, push) = queue(2 * (50 + PROPOSAL_BYTES));
        let _first = push(&queue, 50, false).unwrap();
        let _second = push(&queue, 50, false).unwrap();
        let full = push(&queue, 50, false).err().unwrap();
        assert_eq!(CallError::from(full).code, Code::Overloaded);
        let taken = queue.take(1);
        assert!(push(&queue, 50, false).is_err(), "what is on its way counts");
        drop(taken);
        assert!(push(&queue, 50, false).is_ok());
    }

    #[test]
    fn the_node_that_took_a_proposal_first_names_it() {
        let (queue, push) = queue(1 << 20);
        let _own = push(&queue, 1, false).unwrap();
        let _others = push(&queue, 1, true).unwrap();
        let taken = queue.take(1 << 20);
        assert_eq!(taken[0].proposal.origin, Some(Origin { node: name("log-va"), boot: 9, sequence: 0 }));
        assert_eq!(taken[1].proposal.origin, Some(Origin { node: name("log-or"), boot: 1, sequence: 7 }));
    }

    #[test]
    fn a_body_above_the_limit_is_refused_for_good() {
        let (queue, push) = queue(usize::MAX);
        assert!(push(&queue, BODY_BYTES_MAX, false).is_ok());
        let refused: CallError = push(&queue, BODY_BYTES_MAX + 1, false).err().unwrap().into();
        assert_eq!((refused.code, refused.retry), (Code::TooLarge, Retry::Never));
    }
}

//! Typed calls to log nodes.
//!
//! Any log node answers every call, so a call goes to those of the own datacenter first, and to the
//! others when these fail. A stream of entries goes on at the next index wherever it was broken off:
//! it never goes back, repeats or skips.

mod read;

pub use read::Reader;

use beam_wire::env::{Env, Task};
use beam_wire::error::{CallError, Code};
use beam_wire::identity::Role;
use beam_wire::ids::{Epoch, LogIndex, Name, Version};
use beam_wire::message::Call;
use beam_wire::message::log::{
    Appended, Apply, BODY_BYTES_MAX, Change, EpochBegan, LogAppend, LogChange, LogChangeReply, LogDiscard, LogInfo,
    LogInfoReply, LogRecover, LogRecoverReply, LogStatus, LogStatusReply, LogTail, Proposal, Proposals,
};
use beam_wire::quic::directory::{Directory, NodeAddress};
use beam_wire::quic::{CallOptions, Lane, Peer, Peers, ReplyReader};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Between two rounds over all log nodes.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// How long one log node may take to accept a connection before the next is asked.
const DIAL_WITHIN: Duration = Duration::from_secs(2);
/// How long a stream stays with a log node elsewhere before it tries its own datacenter again.
const HOMESICK_AFTER: Duration = Duration::from_secs(30);
/// Proposals that wait for their stream. Beyond it the caller waits.
const APPENDS_WAITING_MAX: usize = 1024;
/// What one frame of proposals holds at most, beside its last one.
const FRAME_BYTES: usize = 100 << 10;

/// The log, as views and api nodes see it. Cheap to clone.
#[derive(Clone)]
pub struct RemoteLog {
    env: Env,
    peers: Peers,
    directory: Directory,
    datacenter: Name,
    only: Option<Name>,
}

impl RemoteLog {
    /// `datacenter` is the caller's own: its log nodes are asked first.
    pub fn new(env: &Env, peers: Peers, directory: Directory, datacenter: Name) -> Self {
        Self { env: env.clone(), peers, directory, datacenter, only: None }
    }

    /// The log as this one node has it: no other is asked.
    pub fn at(&self, node: Name) -> Self {
        Self { only: Some(node), ..self.clone() }
    }

    /// All log nodes that DNS names, those of the own datacenter first.
    pub fn nodes(&self) -> Vec<NodeAddress> {
        let mut nodes = self.directory.nodes_everywhere(Role::Log);
        nodes.retain(|node| self.only.as_ref().is_none_or(|only| *only == node.node));
        nodes.sort_by_key(|n| (n.datacenter != self.datacenter, n.datacenter.clone(), n.node.clone()));
        nodes
    }

    /// The entries from `from` on; when `follow`, without end. Refused if the log is in another epoch.
    pub fn read(&self, epoch: Option<Epoch>, from: LogIndex, follow: bool) -> Reader {
        Reader::new(self.clone(), epoch, from, follow)
    }

    /// Appends bodies in this order, and waits until all are in the log. At least once: when this
    /// fails, some may be in it. (After a change of leader some may lie after later ones.)
    pub async fn append(&self, bodies: Vec<Bytes>, deadline: Instant) -> Result<Vec<Version>, CallError> {
        let appender = self.appender();
        let appending = async {
            let mut answers = Vec::with_capacity(bodies.len());
            for body in bodies {
                answers.push(appender.push(body).await?);
            }
            let mut versions = Vec::with_capacity(answers.len());
            for answer in answers {
                versions.push(answer.await.map_err(|_| gone())??);
            }
            Ok(versions)
        };
        appender.within(deadline, appending).await
    }

    /// Appends over one long-lived stream, for those who append often.
    pub fn appender(&self) -> Appender {
        let (jobs, waiting) = mpsc::channel(APPENDS_WAITING_MAX);
        let trouble = Arc::default();
        let stream = Stream { log: self.clone(), waiting, sent: VecDeque::new(), trouble: Arc::clone(&trouble) };
        let task = self.env.tasks().serve("remote.appender", stream.run());
        Appender { env: self.env.clone(), jobs, trouble, _task: Arc::new(task) }
    }

    /// The newest version: with everything that was acknowledged before, or as one log node knows it.
    pub async fn tail(&self, linearizable: bool, deadline: Instant) -> Result<Version, CallError> {
        self.ask_any(&LogTail { linearizable, forwarded: false }, deadline).await
    }

    /// Lets all entries before an index go.
    pub async fn discard(&self, epoch: Epoch, before: LogIndex, deadline: Instant) -> Result<Version, CallError> {
        self.ask_any(&LogDiscard { epoch, before, forwarded: false }, deadline).await
    }

    /// What one log node says of itself.
    pub async fn info(&self, node: &Name, deadline: Instant) -> Result<LogInfoReply, CallError> {
        self.ask_one(node, &LogInfo, deadline).await
    }

    /// How one log node is.
    pub async fn status(&self, node: &Name, deadline: Instant) -> Result<LogStatusReply, CallError> {
        self.ask_one(node, &LogStatus, deadline).await
    }

    /// The epoch of the log, and where each but the first began: as a log node knows it that is not left behind.
    pub async fn epochs(&self, deadline: Instant) -> Result<(Epoch, Vec<EpochBegan>), CallError> {
        loop {
            // Whoever was left behind says how it is, but names no tail.
            let tail = self.tail(false, deadline).await?;
            for node in self.nodes() {
                let share = deadline.min(self.env.now() + DIAL_WITHIN);
                let Ok(Ok(status)) = self.env.timeout_at(share, self.ask(&node, &LogStatus, share)).await else {
                    continue;
                };
                let known = status.epochs.last().map_or(Epoch(1), |last| last.epoch);
                if status.info.epoch == Some(tail.epoch) && known == tail.epoch {
                    return Ok((tail.epoch, status.epochs));
                }
            }
            if self.env.now() + ROUND_PAUSE >= deadline {
                let message = format!("no log node knows yet where epoch {} began", tail.epoch);
                return Err(CallError::later(Code::Unavailable, 500, message));
            }
            self.env.sleep(ROUND_PAUSE).await;
        }
    }

    /// What one log node brings to a recovery; with an order, its part in it.
    pub async fn recover(
        &self,
        node: &Name,
        call: &LogRecover,
        deadline: Instant,
    ) -> Result<LogRecoverReply, CallError> {
        self.ask_one(node, call, deadline).await
    }

    async fn ask_one<C: Call>(&self, node: &Name, call: &C, deadline: Instant) -> Result<C::Reply, CallError> {
        let Some(address) = self.directory.find(node) else {
            return Err(CallError::never(Code::Unavailable, format!("DNS names no address of {node}")));
        };
        match self.env.timeout_at(deadline, self.ask(&address, call, deadline)).await {
            Ok(answer) => answer,
            Err(_) => Err(silent(&address)),
        }
    }

    /// Plans a change of the log's members, leader or drained datacenters, and does it if `apply` says so.
    /// When this fails after a plan was to be applied, it may have been.
    pub async fn change(
        &self,
        change: &Change,
        apply: Option<Apply>,
        deadline: Instant,
    ) -> Result<LogChangeReply, CallError> {
        self.ask_any(&LogChange { epoch: None, change: change.clone(), apply, forwarded: false }, deadline).await
    }

    async fn peer(&self, node: &NodeAddress) -> Result<Peer, CallError> {
        match self.env.timeout(DIAL_WITHIN, self.peers.peer(&node.target(), Lane::Calls)).await {
            Ok(peer) => peer,
            Err(_) => Err(silent(node)),
        }
    }

    async fn ask<C: Call>(&self, node: &NodeAddress, call: &C, deadline: Instant) -> Result<C::Reply, CallError> {
        self.peer(node).await?.ask(call, deadline).await
    }

    /// Asks one log node after the other, until one answers or time is out.
    async fn ask_any<C: Call>(&self, call: &C, deadline: Instant) -> Result<C::Reply, CallError> {
        let mut last = nobody();
        loop {
            let nodes = self.nodes();
            let count = nodes.len() as u32;
            for (asked, node) in (0..).zip(&nodes) {
                // One that hangs leaves time for the others.
                let now = self.env.now();
                let share = deadline.saturating_duration_since(now) / (count - asked);
                // The node is to give its reason before we give up on it.
                let asking = self.ask(node, call, now + share.mul_f64(0.9));
                let trouble = match self.env.timeout_at(now + share, asking).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(e)) if !e.is_retryable() => return Err(e),
                    Ok(Err(e)) => e,
                    Err(_) => silent(node),
                };
                // That one is silent says less than what another has answered.
                let says_little = |e: &CallError| matches!(e.code, Code::Unavailable | Code::Disconnected);
                if !says_little(&trouble) || says_little(&last) {
                    last = trouble;
                }
            }
            if self.env.now() + ROUND_PAUSE >= deadline {
                return Err(last);
            }
            self.env.sleep(ROUND_PAUSE).await;
        }
    }
}

fn nobody() -> CallError {
    CallError::later(Code::Unavailable, 500, "DNS names no log node")
}

fn silent(node: &NodeAddress) -> CallError {
    CallError::elsewhere(Code::Unavailable, format!("the log node {} does not answer", node.node))
}

/// Appends over one stream at a time. Cheap to clone.
#[derive(Clone)]
pub struct Appender {
    env: Env,
    jobs: mpsc::Sender<Job>,
    trouble: Trouble,
    _task: Arc<Task>,
}

/// Why the last log node failed.
type Trouble = Arc<Mutex<Option<CallError>>>;

struct Job {
    body: Bytes,
    done: oneshot::Sender<Result<Version, CallError>>,
}

impl Appender {
    /// Appends a body, and waits until it is in the log. At least once: when this fails or is
    /// cancelled, the body may be in the log, now or later; and it may be there twice.
    pub async fn append(&self, body: Bytes, deadline: Instant) -> Result<Version, CallError> {
        let appending = async { self.push(body).await?.await.map_err(|_| gone())? };
        self.within(deadline, appending).await
    }

    /// Hands a body over, in order.
    async fn push(&self, body: Bytes) -> Result<oneshot::Receiver<Result<Version, CallError>>, CallError> {
        if body.len() > BODY_BYTES_MAX {
            let message = format!("a body of {} bytes is above the limit of {BODY_BYTES_MAX}", body.len());
            return Err(CallError::never(Code::TooLarge, message));
        }
        let (done, answer) = oneshot::channel();
        self.jobs.send(Job { body, done }).await.map_err(|_| gone())?;
        Ok(answer)
    }

    /// What comes in time; else why it did not.
    async fn within<T>(
        &self,
        deadline: Instant,
        appending: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        match self.env.timeout_at(deadline, appending).await {
            Ok(answer) => answer,
            Err(_) => Err(unanswered(self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone())),
        }
    }
}

/// Why what was handed over was not acknowledged in time: as the last log node said it, if one did.
fn unanswered(trouble: Option<CallError>) -> CallError {
    let message = "the log did not take the entry in time; it may still do so";
    match trouble {
        // It was said of a whole stream, of which it may have taken this entry before, and another node may have, too. Our
        // caller would take it to mean that nothing was done.
        Some(CallError { code: Code::Overloaded, message: why, retry }) => {
            CallError { code: Code::Deadline, message: format!("{message}. The last log node: {why}"), retry }
        }
        Some(other) => other,
        None => CallError::later(Code::Deadline, 100, message),
    }
}

fn gone() -> CallError {
    CallError::elsewhere(Code::Unavailable, "this node is stopping")
}

/// What an [`Appender`] leaves to its task.
struct Stream {
    log: RemoteLog,
    waiting: mpsc::Receiver<Job>,
    /// Sent and not answered; or to be sent again.
    sent: VecDeque<Job>,
    trouble: Trouble,
}

impl Stream {
    async fn run(mut self) {
        let mut rank = 0;
        loop {
            if self.sent.is_empty() {
                let Some(job) = self.waiting.recv().await else { return };
                self.sent.push_back(job);
            }
            let nodes = self.log.nodes();
            let ended = match nodes.get(rank % nodes.len().max(1)) {
                Some(node) => self.append_at(&node.clone()).await,
                None => Err(nobody()),
            };
            let e = match ended {
                // Nobody appends any more.
                Ok(()) => return,
                Err(e) => e,
            };
            tracing::debug!("the stream of appends ended: {e}");
            if !e.is_retryable() {
                for job in self.sent.drain(..) {
                    // The receiver is gone if its caller is.
                    let _ = job.done.send(Err(e.clone()));
                }
            }
            {
                let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
                // That there is no majority says more than that the next node does not answer either.
                if e.code == Code::NoQuorum || trouble.as_ref().is_none_or(|last| last.code != Code::NoQuorum) {
                    *trouble = Some(e);
                }
            }
            self.sent.retain(|job| !job.done.is_closed());
            rank += 1;
            if rank.is_multiple_of(nodes.len().max(1)) {
                self.log.env.sleep(ROUND_PAUSE).await;
                rank = 0;
            }
        }
    }

    /// Sends what waits to one log node, as it comes, until that fails.
    async fn append_at(&mut self, node: &NodeAddress) -> Result<(), CallError> {
        let open = LogAppend { epoch: None, forwarded: false };
        let opening = async { self.log.peer(node).await?.call(&open, CallOptions::default()).await };
        let (mut items, mut replies) = opening.await?.split();
        let away = node.datacenter != self.log.datacenter;
        let homesick_at = away.then(|| self.log.env.now() + HOMESICK_AFTER);
        let mut unsent = self.sent.len();
        loop {
            if homesick_at.is_some_and(|at| at <= self.log.env.now()) && self.sent.is_empty() {
                return Err(CallError::later(Code::Unavailable, 0, "trying the own datacenter again"));
            }
            if unsent > 0 {
                let frame = frame(self.sent.iter().skip(self.sent.len() - unsent).map(|job| &job.body));
                unsent -= frame.proposals.len();
                let mut sending = pin!(items.send(&frame));
                loop {
                    tokio::select! { biased;
                        done = &mut sending => break done?,
                        answered = answer(&mut self.sent, &self.trouble, &mut replies) => answered?,
                    }
                }
                continue;
            }
            tokio::select! { biased;
                answered = answer(&mut self.sent, &self.trouble, &mut replies) => answered?,
                job = self.waiting.recv() => {
                    let Some(job) = job else { return Ok(()) };
                    self.sent.push_back(job);
                    unsent = 1;
                    // All others that are here go with it.
                    while self.sent.len() < APPENDS_WAITING_MAX
                        && let Ok(job) = self.waiting.try_recv()
                    {
                        self.sent.push_back(job);
                        unsent += 1;
                    }
                }
            }
        }
    }
}

/// A frame of the first bodies.
fn frame<'a>(bodies: impl Iterator<Item = &'a Bytes>) -> Proposals {
    let mut bytes = 0;
    let mut proposals = Vec::new();
    for body in bodies {
        if bytes + body.len() > FRAME_BYTES && !proposals.is_empty() {
            break;
        }
        bytes += body.len();
        proposals.push(Proposal { origin: None, body: body.clone() });
    }
    Proposals { proposals }
}

/// Waits for the next indexes and passes them on. Safe to cancel.
async fn answer(
    sent: &mut VecDeque<Job>,
    trouble: &Trouble,
    replies: &mut ReplyReader<LogAppend>,
) -> Result<(), CallError> {
    let Some(Appended { epoch, indexes }) = replies.next().await? else {
        return Err(CallError::elsewhere(Code::Disconnected, "a log node ended the stream of appends"));
    };
    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    for index in indexes {
        let Some(job) = sent.pop_front() else {
            return Err(CallError::elsewhere(Code::Internal, "a log node answers what it was not asked"));
        };
        // The receiver is gone if its caller is.
        let _ = job.done.send(Ok(Version { epoch, index }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_is_never_said_to_be_untouched() {
        let full = CallError::later(Code::Overloaded, 700, "67108864 bytes already wait to be appended");
        let said = unanswered(Some(full.clone()));
        assert_eq!((said.code, &said.retry), (Code::Deadline, &full.retry));
        assert!(said.message.contains("may still do so") && said.message.contains(&full.message), "{said}");
        let lost = CallError::later(Code::NoQuorum, 500, "no majority");
        assert_eq!(unanswered(Some(lost.clone())), lost);
        assert_eq!(unanswered(None).code, Code::Deadline);
    }
}

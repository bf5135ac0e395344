//! The log as a stream of entries, from whichever log node has them.
//!
//! A stream from elsewhere is left for one of the own datacenter only when that has brought a frame: what has arrived of a
//! frame over a bad link took long, and would take as long again.

use super::{ROUND_PAUSE, RemoteLog, nobody};
use beam_wire::error::{CallError, Code};
use beam_wire::ids::{Epoch, LogIndex};
use beam_wire::message::log::{Entries, LogRead};
use beam_wire::quic::directory::NodeAddress;
use beam_wire::quic::{CallOptions, Caller};
use std::time::Duration;
use tokio::time::Instant;

/// How long a stream stays with a log node elsewhere before it tries its own datacenter again, beside it.
const HOMESICK_AFTER: Duration = Duration::from_secs(30);

/// A stream of entries, from whichever log node has them.
pub struct Reader {
    log: RemoteLog,
    epoch: Option<Epoch>,
    next: LogIndex,
    follow: bool,
    ended: bool,
    open: Option<Open>,
    /// A stream of the own datacenter, opened beside one from elsewhere: it takes over with its first frame.
    returning: Option<Open>,
    /// Which log node to ask next, in the order of [`RemoteLog::nodes`].
    rank: usize,
    /// Which of those of the own datacenter to ask next whether it is back.
    home_rank: usize,
    trouble: Option<CallError>,
}

/// A stream from one log node.
struct Open {
    call: Caller<LogRead>,
    node: NodeAddress,
    /// When to look for a log node of the own datacenter again.
    homesick_at: Option<Instant>,
}

impl Reader {
    pub(super) fn new(log: RemoteLog, epoch: Option<Epoch>, next: LogIndex, follow: bool) -> Reader {
        let (open, returning, trouble) = (None, None, None);
        Reader { log, epoch, next, follow, ended: false, open, returning, rank: 0, home_rank: 0, trouble }
    }

    /// The next entries: they begin where the last ones ended. Frames without entries tell how far the
    /// log is committed. None at the end, if this does not follow. What passes is waited for, for as
    /// long as it takes; errors are those that would come again. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Entries>, CallError> {
        while !self.ended {
            match self.next_frame().await {
                Ok(Some(entries)) => {
                    self.trouble = None;
                    self.epoch = Some(entries.epoch);
                    self.next = LogIndex(self.next.0 + entries.entries.len() as u64);
                    return Ok(Some(entries));
                }
                Ok(None) => self.ended = true,
                Err(e) if !e.is_retryable() => return Err(e),
                Err(e) => self.fail_over(e).await,
            }
        }
        Ok(None)
    }

    /// The index that comes next.
    pub fn position(&self) -> LogIndex {
        self.next
    }

    /// Why nothing comes, when a log node has failed since entries came last.
    pub fn trouble(&self) -> Option<&CallError> {
        self.trouble.as_ref()
    }

    async fn next_frame(&mut self) -> Result<Option<Entries>, CallError> {
        loop {
            if self.open.is_none() {
                let nodes = self.log.nodes();
                let node = nodes.get(self.rank % nodes.len().max(1)).cloned().ok_or_else(nobody)?;
                self.open = Some(self.log.open(node, &self.request()).await?);
            }
            let request = self.request();
            let Reader { log, open, returning, home_rank, .. } = self;
            let open = open.as_mut().expect("opened above");
            let next = match open.homesick_at {
                None => open.call.next().await?,
                // Over a bad link a frame takes long: what has come of it is not given up before there is something better.
                Some(at) => tokio::select! { biased;
                    first = log.first_from_home(at, &request, *home_rank, returning) => match first {
                        Ok(first) => {
                            self.open = self.returning.take();
                            self.rank = 0;
                            Some(first)
                        }
                        Err(e) => {
                            tracing::debug!("the log is still read from {}: {e}", open.node.node);
                            open.homesick_at = Some(log.env.now() + HOMESICK_AFTER);
                            (*returning, *home_rank) = (None, *home_rank + 1);
                            continue;
                        }
                    },
                    next = open.call.next() => next?,
                },
            };
            let node = &self.open.as_ref().expect("a frame came from it").node;
            let Some(mut entries) = next else {
                let message = format!("{} ended a stream that was to follow", node.node);
                return if self.follow { Err(CallError::elsewhere(Code::Disconnected, message)) } else { Ok(None) };
            };
            if entries.first > self.next {
                let message = format!("{} sent entries from {}, not from {}", node.node, entries.first, self.next);
                return Err(CallError::elsewhere(Code::Internal, message));
            }
            // What the stream that was left has brought meanwhile.
            let known = usize::try_from(self.next.0 - entries.first.0).unwrap_or(usize::MAX);
            entries.entries.drain(..known.min(entries.entries.len()));
            entries.first = self.next;
            return Ok(Some(entries));
        }
    }

    fn request(&self) -> LogRead {
        LogRead { epoch: self.epoch, from: self.next, follow: self.follow }
    }

    async fn fail_over(&mut self, e: CallError) {
        self.returning = None;
        let asked = self.open.take().map(|open| open.node.node.to_string()).unwrap_or_default();
        tracing::debug!("reading the log from {asked} at {}: {e}", self.next);
        self.trouble = Some(e);
        self.rank += 1;
        if self.rank.is_multiple_of(self.log.nodes().len().max(1)) {
            self.log.env.sleep(ROUND_PAUSE).await;
        }
    }
}

impl RemoteLog {
    async fn open(&self, node: NodeAddress, request: &LogRead) -> Result<Open, CallError> {
        let call = self.peer(&node).await?.call(request, CallOptions::default()).await?;
        let away = node.datacenter != self.datacenter;
        let homesick_at = away.then(|| self.env.now() + HOMESICK_AFTER);
        Ok(Open { call, node, homesick_at })
    }

    /// The first frame of a stream from the own datacenter, tried at `at`. Safe to cancel: `opened` is kept.
    async fn first_from_home(
        &self,
        at: Instant,
        request: &LogRead,
        rank: usize,
        opened: &mut Option<Open>,
    ) -> Result<Entries, CallError> {
        self.env.sleep_until(at).await;
        if opened.is_none() {
            let mut home = self.nodes();
            home.retain(|node| node.datacenter == self.datacenter);
            let node = home.get(rank % home.len().max(1)).cloned().ok_or_else(nobody)?;
            *opened = Some(self.open(node, request).await?);
        }
        let open = opened.as_mut().expect("opened above");
        let first = open.call.next().await?;
        first.ok_or_else(|| CallError::elsewhere(Code::Disconnected, format!("{} ended the stream", open.node.node)))
    }
}

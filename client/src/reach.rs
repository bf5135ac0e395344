//! Everything that a call does until somebody answers: which api node, when another one, and when to give up.
//!
//! A call goes to the best node ([`crate::nodes`]). When that fails, or is late ([`crate::pace`]), it goes to the next
//! as well, and the first answer counts: reads change nothing, and writes carry an id that makes them happen once,
//! whoever does them. A node that is older than we and does not know the call is passed over. When all have failed,
//! they are asked again after a pause, until the deadline.

use crate::client::{Client, Inner, lock};
use crate::error::ClientError;
use beam_wire::error::Retry;
use beam_wire::quic::{Lane, NodeAddress, Peer};
use beam_wire::{CallError, Code, Name, Role, TransactionId};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How long one api node may take to accept a connection, before the next is asked.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);

/// A node that has failed, and is tried again because it has rested, is late after so long: those who try it must not
/// pay for it.
const SUSPECT_LATE: Duration = Duration::from_millis(60);

/// Between two rounds over all api nodes; doubles up to the maximum.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a call may have changed when no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// Nothing.
    Nothing,
    /// Each attempt appends the same command: what is said of one is true of all.
    Same(TransactionId),
    /// Each attempt plans anew: what is said of one may be wrong of another.
    Planned(TransactionId),
}

/// One attempt, when it is over.
struct Attempt<T> {
    node: Name,
    /// It was sent.
    sent: bool,
    outcome: Result<T, CallError>,
    took: Duration,
}

/// What a call has come to so far.
struct Course {
    changes: Changes,
    /// An attempt may have changed something, and its answer is lost.
    unknown: bool,
    last: Option<Box<(Name, CallError)>>,
    /// Nodes that do not know the call, and what they said.
    too_old: BTreeMap<Name, CallError>,
    pause: Duration,
}

impl Client {
    /// Makes a call of one api node after another until one answers, or refuses for all.
    pub(crate) async fn anywhere<'a, T: Send + 'a>(
        &'a self,
        changes: Changes,
        call: impl Fn(Peer, Instant) -> BoxFuture<'a, Result<T, CallError>> + Send + Sync,
    ) -> Result<T, ClientError> {
        let Inner { env, standing, .. } = self.inner();
        let deadline = self.deadline();
        let mut course = Course { changes, unknown: false, last: None, too_old: BTreeMap::new(), pause: PAUSE_FIRST };
        let mut running = FuturesUnordered::new();
        let mut nodes: VecDeque<NodeAddress> = self.order().into();
        let (mut started, mut names) = (0, VecDeque::new());
        let mut wake = env.now();
        self.budgets().iter().for_each(|budget| lock(budget).called());
        while env.now() < deadline {
            // Another is asked when nobody is, or when whoever is asked is late.
            if env.now() >= wake {
                // Whether there is somebody to ask comes first: a token that nobody uses is lost to other calls.
                match nodes.pop_front() {
                    Some(address) => match self.may_start(started, running.is_empty()) {
                        Ok(()) => {
                            started += 1;
                            wake = env.now() + self.late_after(&address.node, changes);
                            names.push_back(address.node.clone());
                            running.push(self.attempt(address, deadline, &call));
                        }
                        Err(later) => {
                            nodes.push_front(address);
                            wake = later;
                        }
                    },
                    None if running.is_empty() => {
                        nodes = self.order().into();
                        nodes.retain(|node| !course.too_old.contains_key(&node.node));
                        if nodes.is_empty()
                            && let Some((node, error)) = course.too_old.pop_first()
                        {
                            return Err(self.refused(&course, true, node, error));
                        }
                        wake = env.now() + course.pause_after_round(env.random_below(1000));
                    }
                    None => wake = deadline,
                }
            }
            let attempt = tokio::select! {
                biased;
                Some(attempt) = running.next(), if !running.is_empty() => attempt,
                () = env.sleep_until(wake.min(deadline)) => continue,
            };
            let Attempt { node, sent, outcome, took } = attempt;
            let place = names.iter().position(|name| *name == node);
            if let Some(place) = place {
                names.remove(place);
            }
            let error = match outcome {
                Ok(answer) => {
                    lock(self.lateness(changes)).answered(took);
                    let mut standing = lock(standing);
                    standing.answered(&node);
                    // Those who were asked before have not answered yet: others shall be asked first. Who was asked later
                    // has done nothing wrong.
                    let before = names.iter().take(place.unwrap_or(0));
                    before.for_each(|late| standing.failed(late, env.now()));
                    return Ok(answer);
                }
                Err(error) => error,
            };
            // Others may be newer, as long as nodes are being upgraded. It is well, and has done nothing.
            if error.code == Code::UnknownKind {
                course.too_old.insert(node, error);
                if running.is_empty() {
                    wake = env.now();
                }
                continue;
            }
            // Whoever says that it is overloaded has done nothing: that is promised. Of any other it cannot be known.
            let may_have_changed = sent && error.code != Code::Overloaded;
            match error.retry {
                Retry::Never => return Err(self.refused(&course, running.is_empty(), node, error)),
                _ if error.code == Code::Conflict => {
                    return Err(self.refused(&course, running.is_empty(), node, error));
                }
                // It is well, but busy: the pause between rounds is for it.
                Retry::Later { after_ms } if error.code == Code::Overloaded => {
                    course.pause = course.pause.max(Duration::from_millis(after_ms.into()));
                }
                Retry::Later { .. } | Retry::Elsewhere | Retry::At(_) => lock(standing).failed(&node, env.now()),
            }
            course.failed(may_have_changed, node, error);
            if running.is_empty() {
                wake = env.now();
            }
        }
        course.unknown |= !running.is_empty();
        match changes {
            Changes::Same(id) | Changes::Planned(id) if course.unknown => {
                Err(ClientError::OutcomeUnknown { id, last: course.last })
            }
            _ => Err(ClientError::Unavailable { after: self.timeout(), last: course.last }),
        }
    }

    /// How long to wait for a node before another is asked as well.
    fn late_after(&self, node: &Name, changes: Changes) -> Duration {
        let usual = lock(self.lateness(changes)).late_after();
        if lock(&self.inner().standing).is_suspect(node) { usual.min(SUSPECT_LATE) } else { usual }
    }

    /// Whether one more attempt may be sent now; or when.
    fn may_start(&self, started: u32, nobody_runs: bool) -> Result<(), Instant> {
        let Inner { env, began, .. } = self.inner();
        // The first attempt, and one at another node when it has failed.
        if started == 0 || (started == 1 && nobody_runs) {
            return Ok(());
        }
        let budget = &self.budgets()[usize::from(!nobody_runs)];
        lock(budget).take(env.now() - *began).map_err(|at| *began + at)
    }

    /// The api nodes in the order in which to ask them.
    fn order(&self) -> Vec<NodeAddress> {
        let Inner { env, options, directory, standing, .. } = self.inner();
        let nodes = directory.nodes_everywhere(Role::Api);
        let mut random = |n| env.random_below(n);
        lock(standing).order(nodes, &options.datacenters, env.now(), &mut random)
    }

    async fn attempt<'a, T>(
        &self,
        address: NodeAddress,
        deadline: Instant,
        call: &(impl Fn(Peer, Instant) -> BoxFuture<'a, Result<T, CallError>> + Send + Sync),
    ) -> Attempt<T> {
        let env = &self.inner().env;
        let began = env.now();
        let node = address.node.clone();
        let late = |_| Err(CallError::later(Code::Deadline, 0, "no answer came in time"));
        let (sent, outcome) = match self.dial(&address, deadline).await {
            Ok(peer) => (true, env.timeout_at(deadline, call(peer, deadline)).await.unwrap_or_else(late)),
            Err(error) => (false, Err(error)),
        };
        Attempt { node, sent, outcome, took: env.now() - began }
    }

    async fn dial(&self, address: &NodeAddress, deadline: Instant) -> Result<Peer, CallError> {
        let Inner { env, peers, .. } = self.inner();
        let late = |_| Err(CallError::elsewhere(Code::Unavailable, "it does not accept connections"));
        let patience = deadline.min(env.now() + DIAL_PATIENCE);
        env.timeout_at(patience, peers.peer(&address.target(), Lane::Calls)).await.unwrap_or_else(late)
    }

    /// What a refusal means, when other attempts may have done what this one has not.
    fn refused(&self, course: &Course, alone: bool, node: Name, error: CallError) -> ClientError {
        if error.code == Code::WrongEpoch {
            // What we knew belongs to the past.
            self.forget_newest();
            return ClientError::EpochChanged { node, error };
        }
        match course.changes {
            Changes::Same(id) | Changes::Planned(id)
                if error.code == Code::OutcomeUnknown
                    || (course.unknown || !alone) && !speaks_for_all(course.changes, error.code) =>
            {
                ClientError::OutcomeUnknown { id, last: Some(Box::new((node, error))) }
            }
            _ if error.code == Code::UnknownKind => ClientError::NodeTooOld { node, error },
            _ => ClientError::Refused { node, error },
        }
    }
}

/// Whether a refusal says that no attempt of the call can have changed anything.
fn speaks_for_all(changes: Changes, code: Code) -> bool {
    match code {
        // They depend on nothing but the request, and the caller.
        Code::Invalid | Code::Denied | Code::Unsupported | Code::TooLarge => true,
        // An earlier copy that was committed would have made this one a duplicate, and a later one meets the same.
        Code::Conflict | Code::Rejected => matches!(changes, Changes::Same(_)),
        _ => false,
    }
}

impl Course {
    fn failed(&mut self, may_have_changed: bool, node: Name, error: CallError) {
        self.unknown |= may_have_changed;
        // That time ran out says less than what went wrong before.
        let vague = matches!(error.code, Code::Deadline | Code::OutcomeUnknown | Code::Disconnected);
        if !vague || self.last.is_none() {
            self.last = Some(Box::new((node, error)));
        }
    }

    /// With jitter: clients that lost the same node would otherwise all come back at once.
    fn pause_after_round(&mut self, random_below_1000: usize) -> Duration {
        let jittered = self.pause.mul_f64(0.5 + random_below_1000 as f64 / 1000.0);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        jittered
    }
}

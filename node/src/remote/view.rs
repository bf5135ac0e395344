//! Typed calls to views, and a live table of all views that DNS names.
//!
//! [`RemoteViews`] stays connected with each of them and follows what it says of itself: what it holds, how far it has applied
//! the log. Beside that it keeps what can only be seen from here: requests that wait, and how long answers take.
//! It chooses nobody: that is the caller's part.

use crate::remote::latency::Latency;
use beam_wire::env::Env;
use beam_wire::message::Call;
use beam_wire::message::view::ViewStatusReply;
use beam_wire::{CallError, Name};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// The views that can be asked, and asking them. Over the network, or in memory in tests.
pub trait Views: Send + Sync + 'static {
    /// All views that are connected and have said how they are, by name.
    fn table(&self) -> Vec<View>;

    /// Waits until the table differs from what it was at the call.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// Asks a view. Dropping the stream cancels the call at once.
    fn call<C: Call>(
        &self,
        view: &View,
        asking: Asking,
        request: C,
        deadline: Instant,
    ) -> BoxStream<'static, Result<C::Reply, CallError>>;
}

/// A view, as it is known now.
#[derive(Clone)]
pub struct View {
    /// Its name.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// Its datacenter is ours.
    pub home: bool,
    /// What it said last.
    pub status: Arc<ViewStatusReply>,
    /// What was seen of it from here.
    pub record: Arc<Record>,
}

/// What is asked, as far as it matters for how long an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Facts by their subjects or objects.
    Keys,
    /// Facts all over a range.
    Scan,
    /// Texts of terms.
    Terms,
    /// What became of an entry.
    Verdict,
    /// Numbers of facts.
    Count,
    /// The same, of a view that must apply more entries before it can answer.
    Behind,
}

const ASKINGS: usize = 6;

/// What was seen of a view from here.
pub struct Record {
    in_flight: AtomicU32,
    latencies: Mutex<[Latency; ASKINGS]>,
}

impl Record {
    /// Nothing was seen yet. A view of another datacenter is assumed to be a long round trip away.
    pub fn new(home: bool) -> Record {
        let assumed = Duration::from_millis(if home { 30 } else { 250 });
        let latencies = std::array::from_fn(|_| Latency::starting_at(assumed));
        Record { in_flight: AtomicU32::new(0), latencies: Mutex::new(latencies) }
    }

    /// Requests that it has not answered yet.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The time that `percent` of its recent answers of this kind took at most, until their first chunk.
    pub fn latency(&self, asking: Asking, percent: u32) -> Duration {
        self.latencies.lock().expect("no holder panics")[asking as usize].percentile(percent)
    }

    fn answered(&self, asking: Asking, took: Duration) {
        self.latencies.lock().expect("no holder panics")[asking as usize].record(took);
    }
}

/// A request that waits for its first chunk. Its end, however it comes, is put on the view's record.
pub struct Waiting {
    env: Env,
    record: Arc<Record>,
    asking: Asking,
    since: Instant,
    answered: bool,
}

impl Waiting {
    /// From now on.
    pub fn start(env: &Env, view: &View, asking: Asking) -> Waiting {
        view.record.in_flight.fetch_add(1, Ordering::Relaxed);
        Waiting { env: env.clone(), record: view.record.clone(), asking, since: env.now(), answered: false }
    }

    /// The first chunk, or the end, is there.
    pub fn answered(&mut self) {
        if !self.answered {
            self.answered = true;
            self.record.answered(self.asking, self.env.now() - self.since);
        }
    }

    /// It failed: how soon says nothing about answers.
    pub fn failed(&mut self) {
        self.answered = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.record.in_flight.fetch_sub(1, Ordering::Relaxed);
        // Cancelled, most often because another was quicker. If it was late by then, that is all that will ever be known
        // of its slowness; if not, it says nothing.
        let waited = self.env.now() - self.since;
        if !self.answered && waited >= self.record.latency(self.asking, 95) {
            self.record.answered(self.asking, waited);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use beam_wire::message::view::{Served, ViewState};
    use beam_wire::{Epoch, LogIndex, Range, Space};

    /// A view of our datacenter that serves this in epoch 1, and has applied all up to an index.
    pub fn view(name: &str, serves: &[(Space, Range)], applied: u64) -> View {
        let status = ViewStatusReply {
            epoch: Some(Epoch(1)),
            serves: serves.iter().map(|(space, range)| Served { space: *space, range: *range }).collect(),
            state: ViewState::Serving,
            oldest: LogIndex(0),
            applied: LogIndex(applied),
            durable: LogIndex(applied),
            checkpoint: LogIndex(0),
            committed: LogIndex(applied),
            facts: 0,
            window: 1000,
            calls: 0,
        };
        let (node, datacenter) = (Name::new(name).unwrap(), Name::new("va").unwrap());
        View { node, datacenter, home: true, status: Arc::new(status), record: Arc::new(Record::new(true)) }
    }

    impl View {
        /// Changes what it says.
        pub fn set(&mut self, change: impl FnOnce(&mut ViewStatusReply)) {
            change(Arc::make_mut(&mut self.status));
        }
    }
}

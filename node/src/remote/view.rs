//! Typed calls to views, and a live table of all views that DNS names.
//!
//! [`RemoteViews`] stays connected with each of them and follows what it says of itself: what it holds, how
//! far it has applied the log. Beside that it keeps what can only be seen from here: requests that wait, and
//! how long answers take. It chooses nobody: that is the caller's part.

use crate::remote::latency::Latency;
use beam_wire::env::{Env, Task};
use beam_wire::message::Call;
use beam_wire::message::view::{
    ViewInstances, ViewInstancesReply, ViewLoad, ViewLoadReply, ViewStatus, ViewStatusReply,
};
use beam_wire::quic::{CallOptions, Caller, Directory, Lane, NodeAddress, Peers};
use beam_wire::{CallError, Code, Name, Role};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The views that can be asked, and asking them. Over the network, or in memory in tests.
pub trait Views: Send + Sync + 'static {
    /// All views that are connected and have said how they are, by the names of their nodes. Of several that one
    /// node holds, the node lets the one answer that can.
    fn table(&self) -> Arc<[View]>;

    /// The view of a node, if it is in the table.
    fn find(&self, node: &Name) -> Option<View> {
        self.table().iter().find(|view| view.node == *node).cloned()
    }

    /// Whether there is such a view, connected or not.
    fn names(&self, node: &Name) -> bool {
        self.find(node).is_some()
    }

    /// Waits until the table differs from what it was at the call.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// Asks a view's node. Dropping the stream cancels the call at once.
    fn call<C: Call>(
        &self,
        view: &View,
        asking: Asking,
        request: C,
        deadline: Instant,
    ) -> BoxStream<'static, Result<C::Reply, CallError>>;
}

/// A view, as it is known now. A node may hold several.
#[derive(Clone)]
pub struct View {
    /// The name of its node.
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
    /// Copies of all that it holds.
    Copy,
    /// The same, of a view that must apply more entries before it can answer.
    Behind,
}

const ASKINGS: usize = 7;

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

    /// What its recent answers of this kind took in the mean, until their first chunk; see [`Latency::mean`].
    pub fn mean(&self, asking: Asking) -> Duration {
        self.latencies.lock().expect("no holder panics")[asking as usize].mean()
    }

    /// What was seen before says nothing any more: answers are assumed to take so long.
    pub fn begin_anew(&self, assumed: Duration) {
        self.latencies.lock().expect("no holder panics").fill(Latency::starting_at(assumed));
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
        // Cancelled, most often because another was quicker. If it was late by then, that is all that will
        // ever be known of its slowness; if not, it says nothing.
        let waited = self.env.now() - self.since;
        if !self.answered && waited >= self.record.latency(self.asking, 95) {
            self.record.answered(self.asking, waited);
        }
    }
}

/// All views that DNS names, over the network. Clones share one table.
#[derive(Clone)]
pub struct RemoteViews {
    shared: Arc<Shared>,
    _following: Arc<Task>,
}

struct Shared {
    env: Env,
    peers: Peers,
    directory: Directory,
    datacenter: Name,
    known: Mutex<AllKnown>,
    changed: Notify,
}

/// All views that DNS names.
#[derive(Default)]
struct AllKnown {
    nodes: BTreeMap<Name, Known>,
    /// The table, until something changes. Every call looks at it, some several times.
    table: Option<Arc<[View]>>,
}

/// A view that DNS names or has named.
struct Known {
    address: NodeAddress,
    record: Arc<Record>,
    /// What each of its views says of itself, or why that is not known.
    views: Result<Vec<Arc<ViewStatusReply>>, CallError>,
}

/// A view that tells nothing for so long is taken for lost: it promises to tell every second.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// The pause after a connection failed, and the longest one, to which it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl RemoteViews {
    /// Begins to follow every view that the directory names, now and later. Those of `datacenter` are at
    /// home.
    pub fn start(env: &Env, peers: Peers, directory: Directory, datacenter: Name) -> RemoteViews {
        let shared = Arc::new(Shared {
            env: env.clone(),
            peers,
            directory,
            datacenter,
            known: Mutex::default(),
            changed: Notify::new(),
        });
        let following = env.tasks().serve("views.find", find(shared.clone()));
        RemoteViews { shared, _following: Arc::new(following) }
    }

    /// Every view that DNS names, by datacenter and name, and what it said last or why nothing is known. A node that
    /// holds several is there once for each.
    pub fn all(&self) -> Vec<(NodeAddress, Result<Arc<ViewStatusReply>, CallError>)> {
        let known = self.shared.known();
        let each = |known: &Known| match &known.views {
            Ok(views) => views.iter().map(|status| (known.address.clone(), Ok(status.clone()))).collect(),
            Err(error) => vec![(known.address.clone(), Err(error.clone()))],
        };
        let mut all: Vec<_> = known.nodes.values().flat_map(each).collect();
        all.sort_by(|(a, _), (b, _)| (&a.datacenter, &a.node).cmp(&(&b.datacenter, &b.node)));
        all
    }

    /// How much a view node has to do and has done.
    pub async fn load(&self, address: &NodeAddress, deadline: Instant) -> Result<ViewLoadReply, CallError> {
        let peer = self.shared.peers.peer(&address.target(), Lane::Calls).await?;
        peer.ask(&ViewLoad, deadline).await
    }
}

impl Views for RemoteViews {
    fn table(&self) -> Arc<[View]> {
        let AllKnown { nodes, table } = &mut *self.shared.known();
        let views = || nodes.iter().flat_map(|(node, known)| known.table(node, &self.shared.datacenter));
        table.get_or_insert_with(|| views().collect()).clone()
    }

    fn names(&self, node: &Name) -> bool {
        self.shared.known().nodes.contains_key(node)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        // Listening begins here, not when the future is first polled.
        let mut changed = Box::pin(self.shared.changed.notified());
        changed.as_mut().enable();
        changed
    }

    fn call<C: Call>(
        &self,
        view: &View,
        asking: Asking,
        request: C,
        deadline: Instant,
    ) -> BoxStream<'static, Result<C::Reply, CallError>> {
        let waiting = Waiting::start(&self.shared.env, view, asking);
        // Copies must not stand before what somebody waits for.
        let lane = if asking == Asking::Copy { Lane::Bulk } else { Lane::Calls };
        let (shared, node) = (self.shared.clone(), view.node.clone());
        let begin = Answering::<C>::Asking { shared, node, lane, request, deadline };
        stream::unfold((begin, waiting), |(answering, mut waiting)| async move {
            let step = answering.next().await;
            match step {
                Ok(Some((reply, rest))) => {
                    waiting.answered();
                    Some((Ok(reply), (rest, waiting)))
                }
                Ok(None) => {
                    waiting.answered();
                    None
                }
                Err(error) => {
                    waiting.failed();
                    Some((Err(error), (Answering::Over, waiting)))
                }
            }
        })
        .boxed()
    }
}

/// A call to a view, from the dialling on.
enum Answering<C: Call> {
    Asking { shared: Arc<Shared>, node: Name, lane: Lane, request: C, deadline: Instant },
    Reading(Caller<C>),
    Over,
}

impl<C: Call> Answering<C> {
    async fn next(self) -> Result<Option<(C::Reply, Self)>, CallError> {
        let mut caller = match self {
            Answering::Asking { shared, node, lane, request, deadline } => {
                let gone = || CallError::elsewhere(Code::Unavailable, format!("DNS no longer names view {node}"));
                let target = shared.known().nodes.get(&node).map(|k| k.address.target()).ok_or_else(gone)?;
                let peer = shared.peers.peer(&target, lane).await?;
                peer.call(&request, CallOptions { deadline: Some(deadline) }).await?
            }
            Answering::Reading(caller) => caller,
            Answering::Over => return Ok(None),
        };
        let reply = caller.next().await?;
        Ok(reply.map(|reply| (reply, Answering::Reading(caller))))
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, AllKnown> {
        self.known.lock().expect("no holder panics")
    }

    fn say(&self, node: &Name, views: Result<Vec<Arc<ViewStatusReply>>, CallError>) {
        let AllKnown { nodes, table } = &mut *self.known();
        if let Some(known) = nodes.get_mut(node) {
            *table = None;
            if let (Ok(_), Err(error)) = (&known.views, &views) {
                tracing::info!(view = %node, %error, "a view is lost");
            }
            known.views = views;
        }
        self.changed.notify_waiters();
    }
}

impl Known {
    /// What the table says of the views of this node.
    fn table(&self, node: &Name, datacenter: &Name) -> impl Iterator<Item = View> {
        let home = self.address.datacenter == *datacenter;
        self.views.iter().flatten().map(move |status| View {
            node: node.clone(),
            datacenter: self.address.datacenter.clone(),
            home,
            status: status.clone(),
            record: self.record.clone(),
        })
    }
}

/// Keeps one follower for each view that DNS names.
async fn find(shared: Arc<Shared>) {
    // They end when this does.
    let mut followers: BTreeMap<Name, Task> = BTreeMap::new();
    let mut seen = None;
    loop {
        seen = match seen {
            None => Some(shared.directory.version()),
            Some(seen) => Some(shared.directory.changed(seen).await),
        };
        let named: BTreeMap<Name, NodeAddress> =
            shared.directory.nodes_everywhere(Role::View).into_iter().map(|n| (n.node.clone(), n)).collect();
        let mut known = shared.known();
        known.table = None;
        known.nodes.retain(|node, known| named.get(node) == Some(&known.address));
        followers.retain(|node, _| known.nodes.contains_key(node));
        for (node, address) in named {
            known.nodes.entry(node.clone()).or_insert_with(|| {
                let record = Arc::new(Record::new(address.datacenter == shared.datacenter));
                let views = Err(CallError::later(Code::Unavailable, 500, "not connected yet"));
                let follower = follow(shared.clone(), address.clone());
                followers.insert(node, shared.env.tasks().serve("views.follow", follower));
                Known { address, record, views }
            });
        }
        drop(known);
        shared.changed.notify_waiters();
    }
}

/// Stays connected with one view, and keeps what it says of itself.
async fn follow(shared: Arc<Shared>, address: NodeAddress) {
    let mut pause = PAUSE_FIRST;
    loop {
        let mut heard = false;
        let error = match listen(&shared, &address, &mut heard).await {
            Ok(()) => CallError::elsewhere(Code::Disconnected, "it stopped telling how it is"),
            Err(error) => error,
        };
        shared.say(&address.node, Err(error));
        pause = if heard { PAUSE_FIRST } else { (pause * 2).min(PAUSE_MAX) };
        // With jitter: api nodes that lost the same view would otherwise all come back at once.
        let jittered = pause.mul_f64(0.5 + shared.env.random_below(1000) as f64 / 1000.0);
        shared.env.sleep(jittered).await;
    }
}

async fn listen(shared: &Shared, address: &NodeAddress, heard: &mut bool) -> Result<(), CallError> {
    match listen_to(shared, address, heard, ViewInstances { watch: true }, views_of).await {
        // A node of an older version holds one view.
        Err(error) if error.code == Code::UnknownKind => {
            listen_to(shared, address, heard, ViewStatus { watch: true }, |status| vec![Arc::new(status)]).await
        }
        ended => ended,
    }
}

fn views_of(reply: ViewInstancesReply) -> Vec<Arc<ViewStatusReply>> {
    reply.instances.into_iter().map(|instance| Arc::new(instance.status)).collect()
}

async fn listen_to<C: Call>(
    shared: &Shared,
    address: &NodeAddress,
    heard: &mut bool,
    watch: C,
    views: impl Fn(C::Reply) -> Vec<Arc<ViewStatusReply>>,
) -> Result<(), CallError> {
    let peer = shared.peers.peer(&address.target(), Lane::Calls).await?;
    let mut telling = pin!(peer.call(&watch, CallOptions { deadline: None }).await?);
    loop {
        let silent = |_| CallError::elsewhere(Code::Deadline, "it has not told how it is for a while");
        match shared.env.timeout(SILENCE_MAX, telling.next()).await.map_err(silent)?? {
            Some(reply) => shared.say(&address.node, Ok(views(reply))),
            None => return Ok(()),
        }
        *heard = true;
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

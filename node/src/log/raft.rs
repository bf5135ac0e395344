//! One log node: openraft with our store and network, and what keeps its leader well.

use super::append::{self, Queue};
use super::begin::{self, BeginBody, CarriedOut};
use super::birth::{self, Birth};
use super::change;
use super::discard;
use super::disk::Disk;
use super::full::{self, Full};
use super::heir::Heir;
use super::machine::Machine;
use super::network::{HeartbeatBody, Network, QUICK};
use super::outlived::{self, Outlived};
use super::place;
use super::rejoin;
use super::removed::{self, Removed};
use super::renewal::{self, Renewal};
use super::round_trips;
use super::runtime;
use super::store::{LogStore, StoreError, StoreOptions};
use super::timers::{self, Timers};
use super::types::{LogId, LogNode, LogTypes, Vote};
use beam_wire::codec;
use beam_wire::env::{Env, Task};
use beam_wire::error::{CallError, Code};
use beam_wire::ids::{Epoch, Name};
use beam_wire::message::raft::{RaftBytes, RaftHeartbeat};
use beam_wire::quic::directory::Directory;
use beam_wire::quic::{CallOptions, Lane, Peers};
use openraft::async_runtime::watch::Watch as _;
use openraft::async_runtime::{WatchReceiver, WatchSender};
use openraft::{Config, Instant as _, Raft, ServerState, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Who a log node is, and how it works.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The cluster.
    pub cluster: Name,
    /// This node.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// The log nodes that the topology names, in its order: they are the first members.
    pub members: Vec<LogNode>,
    /// What the topology says of the times below, which are worked out from it and from the measured round
    /// trips when the node starts: see [`super::timers`]. Until then they fit round trips of up to 130 ms.
    pub given: timers::Given,
    /// How often the leader asks every member whether it still leads. An answer that takes longer is
    /// lost, so this must exceed the longest round trip between two log nodes.
    pub heartbeat: Duration,
    /// How often the leader says that it lives, without waiting for answers.
    pub beat: Duration,
    /// How long openraft waits at least, beyond the lease, before it asks for an election by itself.
    /// [`detect`] is sooner.
    pub election_min: Duration,
    /// The same at most, and the lease: for how long those who heard the leader refuse another. It
    /// must exceed `heartbeat`, a tick and a round trip together, or an idle leader refuses proposals
    /// for a moment.
    pub election_max: Duration,
    /// Within this time every proposal is answered, if only with an error (default: 5 s).
    pub append_timeout: Duration,
    /// What may wait to be appended (default: 64 MiB; beyond it waiting only hides that we are
    /// overloaded).
    pub queue_bytes_max: usize,
    /// The datacenter where the leader should be.
    pub preferred: Option<Name>,
    /// How long all must have been well before the leader hands over to the preferred datacenter
    /// (default: 5 s).
    pub calm: Duration,
    /// What the entry says to readers with which an epoch begins (default: a line of text).
    pub begin_body: BeginBody,
    /// How the log is kept.
    pub store: StoreOptions,
    /// Whether a restarted leader leads on without being elected. It loses acknowledged entries
    /// (`tests/` shows it), and is here for that test alone.
    pub leader_restore: bool,
}

impl LogOptions {
    pub fn new(cluster: Name, node: Name, datacenter: Name, members: Vec<LogNode>) -> Self {
        let Timers { heartbeat, beat, election_min, election_max } = Timers::default();
        Self {
            store: StoreOptions::new(cluster.clone()),
            cluster,
            node,
            datacenter,
            members,
            given: timers::Given::default(),
            heartbeat,
            beat,
            election_min,
            election_max,
            append_timeout: Duration::from_secs(5),
            queue_bytes_max: 64 << 20,
            preferred: None,
            calm: Duration::from_secs(5),
            begin_body: |epoch, kept| format!("begin {epoch} {kept}").into(),
            leader_restore: false,
        }
    }

    /// The log nodes of the topology but this one.
    fn others(&self) -> Vec<LogNode> {
        self.members.iter().filter(|member| member.node != self.node).cloned().collect()
    }

    /// Takes times that fit the round trips.
    fn fit(&mut self, others: &BTreeMap<Name, Option<Duration>>) {
        let Timers { heartbeat, beat, election_min, election_max } = Timers::derive(&self.given, others);
        (self.heartbeat, self.beat) = (heartbeat, beat);
        (self.election_min, self.election_max) = (election_min, election_max);
    }

    fn openraft(&self) -> Result<Config, LogError> {
        let ms = |d: Duration| d.as_millis() as u64;
        let config = Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            // A restarted leader that lost its unflushed tail would write another entry where an
            // acknowledged one lies.
            enable_leader_restore: Some(self.leader_restore),
            // A node that comes back does not disturb a healthy leader.
            enable_pre_vote: Some(true),
            // A leader falls silent when it has lost its majority, but not as soon as one answer is
            // late, as openraft's own way would have it: see `hush`.
            quorum_loss_probe_interval: None,
            // Only a discard lets entries go.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            replication_lag_threshold: u64::MAX,
            // The store cuts requests by bytes before this does.
            max_payload_entries: 1024,
            api_batch_capacity: 4096,
            api_batch_linger_ms: 0,
            ..Config::default()
        };
        config.validate().map_err(|e| LogError::Options(e.to_string()))
    }
}

/// Why a log node does not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log's options contradict each other: {0}")]
    Options(String),
    #[error("the log does not open: {0}")]
    Store(#[from] StoreError),
    #[error("Raft does not start: {0}")]
    Raft(String),
    #[error("{node} is not among the log nodes of the topology ({members})")]
    NotAMember { node: Name, members: String },
}

/// Who leads, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    Me,
    Other { id: u64, node: LogNode },
    Nobody,
}

/// All that the calls of one log node share.
pub(super) struct Log {
    pub env: Env,
    pub options: LogOptions,
    pub network: Network,
    pub store: LogStore,
    pub raft: Raft<LogTypes, Machine>,
    pub birth: Birth,
    pub(super) queue: Queue,
    pub disk: Arc<dyn Disk>,
    /// Whether the log goes on without this node.
    pub outlived: Outlived,
    /// Why the node shall start again, once it shall.
    pub restart: runtime::Sender<Option<String>>,
    pub heard: Heard,
    /// This node leads, but keeps silent: see `hush`.
    pub hushed: AtomicBool,
    /// Whether it was taken out of the members.
    pub removed: Removed,
    /// When it started.
    pub began: Instant,
    /// Since when it leads.
    pub leads_since: Mutex<Option<Instant>>,
    /// To whom leadership was handed last.
    pub heir: runtime::Sender<Option<Heir>>,
    /// What does not fit in its timers: see [`round_trips::watch`].
    pub timer_warnings: Mutex<Vec<String>>,
    /// The other voters whose disks are full.
    pub full: Full,
}

/// When this node last heard a leader.
pub(super) struct Heard(runtime::Sender<Option<Instant>>);

impl Heard {
    pub fn new() -> Self {
        Self(runtime::Watch::channel(None).0)
    }

    /// How long ago a leader spoke.
    pub fn ago(&self, now: Instant) -> Option<Duration> {
        self.0.borrow_watched().map(|heard| now.duration_since(heard))
    }

    /// A leader spoke just now.
    pub fn leader(&self, now: Instant) {
        self.0.send_if_modified(|last| {
            *last = Some(now);
            true
        });
    }

    /// When a leader spoke last; none if none did since the start.
    pub fn last(&self) -> Option<Instant> {
        *self.0.borrow_watched()
    }
}

impl Log {
    pub async fn start(
        env: Env,
        mut options: LogOptions,
        peers: Peers,
        directory: Directory,
        disk: Arc<dyn Disk>,
        first_entry: bytes::Bytes,
    ) -> Result<Arc<Log>, LogError> {
        if !options.members.iter().any(|member| member.node == options.node) {
            let members = names(options.members.iter().map(|m| &m.node));
            return Err(LogError::NotAMember { node: options.node, members });
        }
        carry_out_what_is_pending(&env, &disk, &options).await?;
        let files = disk.clone();
        let renewal = env.blocking(move || renewal::read(&*files)).await?;
        let store = LogStore::open(&env, disk.clone(), options.store.clone()).await?;
        let birth = Birth::new();
        let machine = Machine::new(store.clone(), birth.watches_applied());
        let discarded = machine.discarded();
        let network =
            Network::new(env.clone(), options.cluster.clone(), options.node.clone(), peers, directory, store.clone());
        if !options.given.is_complete() {
            options.fit(&round_trips::measure(&env, &network, &options.others()).await);
        } else {
            options.fit(&BTreeMap::new());
        }
        let config = Arc::new(options.openraft()?);
        let raft = Raft::new(store.raft_id(), config, network.clone(), store.clone(), machine);
        let raft = raft.await.map_err(|e| LogError::Raft(e.to_string()))?;
        let queue = Queue::new(env.random_u64(), options.queue_bytes_max);
        let heard = Heard::new();
        let hushed = AtomicBool::new(false);
        let began = env.now();
        let (leads_since, timer_warnings) = (Mutex::default(), Mutex::default());
        let removed = Removed::new();
        let (outlived, restart) = (Outlived::new(), runtime::Watch::channel(None).0);
        let full = Full::default();
        let log = Log {
            env,
            options,
            network,
            store,
            raft,
            birth,
            queue,
            heard,
            hushed,
            removed,
            disk,
            outlived,
            restart,
            began,
            leads_since,
            timer_warnings,
            full,
            heir: runtime::Watch::channel(None).0,
        };
        let log = Arc::new(log);
        let tasks = log.env.tasks();
        tasks.own("log.raft", watch_raft(log.clone())).detach();
        tasks.own("log.birth", birth::run(log.clone(), first_entry, discarded.clone())).detach();
        tasks.own("log.append", append::run(log.clone())).detach();
        tasks.own("log.discard", discard::run(log.clone(), discarded)).detach();
        tasks.serve("log.beat", beat(log.clone())).detach();
        tasks.serve("log.hush", hush(log.clone())).detach();
        tasks.serve("log.detect", detect(log.clone())).detach();
        tasks.serve("log.place", place::place(log.clone())).detach();
        tasks.serve("log.removed", removed::watch(log.clone())).detach();
        tasks.serve("log.settle", change::settle(log.clone())).detach();
        tasks.serve("log.round_trips", round_trips::watch(log.clone())).detach();
        tasks.serve("log.outlived", outlived::watch(log.clone())).detach();
        tasks.serve("log.connect", connect(log.clone())).detach();
        tasks.serve("log.full", full::run(log.clone())).detach();
        if let Some(Renewal::Rejoin(_)) = renewal {
            tasks.serve("log.rejoin", rejoin::run(log.clone(), log.disk.clone())).detach();
        }
        Ok(log)
    }

    /// Who leads, as far as this node knows.
    pub fn leads(&self) -> Leads {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let Some(id) = metrics.current_leader else { return Leads::Nobody };
        if id == metrics.id {
            return if metrics.state == ServerState::Leader { Leads::Me } else { Leads::Nobody };
        }
        match metrics.membership_config.membership().get_node(&id) {
            Some(node) => Leads::Other { id, node: node.clone() },
            None => Leads::Nobody,
        }
    }

    /// The epoch of the log.
    pub fn epoch(&self) -> Result<Epoch, CallError> {
        self.outlived.check()?;
        self.store.epoch().ok_or_else(|| {
            let waits_for = self.birth.waits_for().unwrap_or_else(|| "its first leader".into());
            append::AppendError::Unborn { waits_for }.into()
        })
    }

    /// Refuses a caller that means another epoch.
    pub fn check_epoch(&self, asked: Option<Epoch>) -> Result<(), CallError> {
        self.outlived.check()?;
        let message = |mine, asked| format!("this log is in epoch {mine}, the call means epoch {asked}");
        match (asked, self.store.epoch()) {
            // This node may have been left behind, and not know it yet.
            (Some(asked), Some(mine)) if asked > mine => {
                Err(CallError::elsewhere(Code::WrongEpoch, message(mine, asked)))
            }
            (Some(asked), Some(mine)) if asked < mine => Err(CallError::never(Code::WrongEpoch, message(mine, asked))),
            _ => Ok(()),
        }
    }

    /// The newest index that this node knows to be committed and holds.
    pub fn committed(&self) -> Option<LogId> {
        self.raft.watch_commit_progress().get()
    }

    /// The names of all voters, for messages.
    pub fn voters(&self) -> String {
        names(self.voter_names().iter())
    }

    /// All voters, or those who will be.
    pub fn voter_names(&self) -> Vec<Name> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: Vec<_> = membership.voter_ids().filter_map(|id| membership.get_node(&id)).collect();
        let known = if voters.is_empty() { self.options.members.iter().collect() } else { voters };
        known.into_iter().map(|n| n.node.clone()).collect()
    }

    /// All other log nodes: members, and those that the topology names.
    pub fn others(&self) -> BTreeSet<Name> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.nodes().map(|(_, node)| node);
        let all = members.chain(&self.options.members).map(|node| node.node.clone());
        all.filter(|node| *node != self.options.node).collect()
    }
}

async fn carry_out_what_is_pending(env: &Env, disk: &Arc<dyn Disk>, options: &LogOptions) -> Result<(), StoreError> {
    let (files, store, body) = (disk.clone(), options.store.clone(), options.begin_body);
    let node = LogNode { node: options.node.clone(), datacenter: options.datacenter.clone() };
    let done = env.blocking(move || begin::carry_out(files, &store, &node, body)).await?;
    disk.settled().await?;
    match done {
        None => {}
        Some(CarriedOut::Refounded { epoch, kept }) => {
            tracing::warn!("epoch {epoch} begins with this node's log: all entries up to {kept} are kept");
        }
        Some(CarriedOut::SetAside { files }) => {
            tracing::warn!("the old log is set aside, and this node begins with an empty one: {}", files.join(", "));
        }
        Some(CarriedOut::Refused { why }) => {
            tracing::error!("the part in a recovery was not carried out, and nothing was changed: {why}");
        }
    }
    Ok(())
}

pub(super) fn names<'a>(nodes: impl Iterator<Item = &'a Name>) -> String {
    nodes.map(Name::as_str).collect::<Vec<_>>().join(", ")
}

/// Ends when openraft does, which stops the node.
async fn watch_raft(log: Arc<Log>) -> Result<(), String> {
    let mut metrics = log.raft.metrics();
    loop {
        if let Err(e) = &metrics.borrow_and_update().running_state {
            return Err(e.to_string());
        }
        metrics.changed().await.map_err(|_| "Raft is gone".to_string())?;
    }
}

/// Keeps connections to all other log nodes, so that a vote need not wait for a handshake.
async fn connect(log: Arc<Log>) {
    let mut changes = log.raft.server_metrics();
    let mut kept: BTreeMap<Name, [Task; 2]> = BTreeMap::new();
    loop {
        drop(changes.borrow_and_update());
        let others = log.others();
        kept.retain(|node, _| others.contains(node));
        for node in others {
            let keep = |lane| log.env.tasks().serve("log.connected", keep_connected(log.clone(), node.clone(), lane));
            kept.entry(node.clone()).or_insert_with(|| [Lane::Raft, QUICK].map(keep));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn keep_connected(log: Arc<Log>, node: Name, lane: Lane) {
    loop {
        match log.network.peer(&node, lane).await {
            Ok(peer) => peer.closed().await,
            Err(e) => tracing::debug!("no connection to the log node {node}: {e}"),
        }
        // With jitter: nodes that lost the same peer would otherwise all dial it at once.
        let pause = 50 + log.env.random_below(50) as u64;
        log.env.sleep(Duration::from_millis(pause)).await;
    }
}

/// While this node leads, says so to every member on a stream of its own, one way: no answer is waited
/// for, so the round trip does not matter to how soon silence is noticed.
async fn beat(log: Arc<Log>) {
    let mut changes = log.raft.server_metrics();
    let mut led = None;
    loop {
        let (vote, members) = {
            let metrics = changes.borrow_and_update();
            let leads = metrics.state == ServerState::Leader && metrics.vote.is_committed();
            (metrics.vote, if leads { members(&log, &metrics.membership_config) } else { BTreeMap::new() })
        };
        // At once, when it begins to lead: openraft would wait for its next tick.
        if !members.is_empty() && led.replace(vote) != Some(vote) && log.raft.trigger().heartbeat().await.is_err() {
            return;
        }
        let _beats: Vec<Task> = members
            .into_iter()
            .map(|(id, node)| log.env.tasks().serve("log.beats", beats_to(log.clone(), vote, id, node)))
            .collect();
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// All members but this node.
fn members(log: &Log, membership: &super::types::StoredMembership) -> BTreeMap<u64, LogNode> {
    let me = log.store.raft_id();
    membership.nodes().filter(|(id, _)| **id != me).map(|(id, node)| (*id, node.clone())).collect()
}

async fn beats_to(log: Arc<Log>, vote: Vote, id: u64, node: LogNode) {
    loop {
        if let Err(e) = beats_on_one_stream(&log, vote, id, &node.node).await {
            tracing::debug!("the beats to {node} stopped: {e}");
        }
        log.env.sleep(log.options.beat).await;
    }
}

async fn beats_on_one_stream(log: &Log, vote: Vote, id: u64, node: &Name) -> Result<(), CallError> {
    let peer = log.network.peer(node, QUICK).await?;
    let body = RaftBytes(codec::encode(&HeartbeatBody::Beats { vote }).into());
    let envelope = log.network.envelope(node, id);
    let mut call = peer.call(&RaftHeartbeat { envelope, body }, CallOptions::default()).await?;
    loop {
        if !log.hushed.load(Ordering::Relaxed) {
            call.send(&RaftBytes(bytes::Bytes::new())).await?;
        }
        log.env.sleep(log.options.beat).await;
    }
}

/// Makes this leader fall silent from time to time after it has lost its majority: those who still hear
/// it would else refuse for ever to elect one that can lead (openraft, issue 2080).
async fn hush(log: Arc<Log>) {
    let lease = log.options.election_max;
    let mut leads_since: Option<openraft_rt_tokio::TokioInstant> = None;
    loop {
        log.env.sleep(lease).await;
        // Who is the only voter is a majority, and need not be answered.
        if log.leads() != Leads::Me || is_alone(&log) {
            leads_since = None;
            continue;
        }
        let since = *leads_since.get_or_insert_with(openraft::Instant::now);
        let acked = log.raft.data_metrics().borrow_watched().last_quorum_acked.map(|at| *at);
        if acked.unwrap_or(since).max(since).elapsed() < lease * LEASES_LOST {
            continue;
        }
        tracing::warn!("no majority of the log nodes answers this leader: it lets them elect another");
        log.hushed.store(true, Ordering::Relaxed);
        log.raft.runtime_config().heartbeat(false);
        // Until their leases end, and an election could.
        log.env.sleep(lease * 4).await;
        log.raft.runtime_config().heartbeat(true);
        log.hushed.store(false, Ordering::Relaxed);
        log.env.sleep(lease * LEASES_LOST).await;
    }
}

fn is_alone(log: &Log) -> bool {
    let metrics = log.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().voter_ids().all(|id| id == metrics.id)
}

/// How many leases without an answer of a majority mean that it is lost: several heartbeats in a row.
const LEASES_LOST: u32 = 4;

/// Asks to be elected as soon as the leader has been silent for as long as its lease: openraft alone
/// would wait for another election timeout. Those who still hear the leader refuse, and nothing changes.
async fn detect(log: Arc<Log>) {
    let mut heard = log.heard.0.subscribe();
    loop {
        let last = *heard.borrow_and_update();
        // Nobody was heard since the start: openraft's own timer decides.
        let Some(last) = last else {
            if heard.changed().await.is_err() {
                return;
            }
            continue;
        };
        // With jitter: two that both ask at once split the vote.
        let lease = log.options.election_max;
        let jitter = Duration::from_micros(log.env.random_below(lease.as_micros() as usize / 2) as u64);
        let silent = log.env.timeout_at(last + lease + log.options.beat + jitter, heard.changed()).await;
        match silent {
            Ok(Ok(())) => continue,
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        if log.leads() == Leads::Me {
            if heard.changed().await.is_err() {
                return;
            }
            continue;
        }
        tracing::info!("the leader is silent: asking the others whether to replace it");
        loop {
            let running = log.raft.server_metrics().borrow_watched().state == ServerState::Candidate;
            if !running && !place::stands_back(&log) && log.raft.trigger().elect(true).await.is_err() {
                return;
            }
            // Whoever heard the leader last refuses for a while: ask again, when an answer was possible.
            let pause = log.options.heartbeat * 2;
            let jitter = Duration::from_micros(log.env.random_below(pause.as_micros() as usize) as u64);
            match log.env.timeout(pause + jitter, heard.changed()).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return,
                Err(_) if log.leads() == Leads::Me => break,
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LogOptions {
        let name = |text: &str| Name::new(text).unwrap();
        let member = LogNode { node: name("log-va"), datacenter: name("va") };
        LogOptions::new(name("beam"), name("log-va"), name("va"), vec![member])
    }

    #[test]
    fn the_defaults_agree_with_each_other_and_with_what_safety_needs() {
        let options = options();
        let config = options.openraft().unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
        // An idle leader's newest answer is as old as a heartbeat, a tick of openraft's, and a round trip.
        let longest_round_trip = Duration::from_millis(130);
        let tick = options.heartbeat * 13 / 64;
        assert!(options.heartbeat > longest_round_trip);
        assert!(options.election_max > options.heartbeat + tick + longest_round_trip);
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let options = LogOptions { heartbeat: Duration::from_millis(500), ..options() };
        assert!(matches!(options.openraft(), Err(LogError::Options(_))));
    }
}

//! A load that never ends, and views that cannot follow it: writers are slowed, and told to come again later, so that readers of
//! `Latest` wait a few seconds at most, and no writer's id grows too old to be known. And an api node at whose door there are more
//! than it takes: it turns the rest away at once and says when to come again, and those who do so get what they want.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, Position};
use beam_tests::{SimCluster, tell};
use beam_wire::command::{Builder, Command};
use beam_wire::env::Env;
use beam_wire::env::sim::{Link, SimWorld};
use beam_wire::error::Retry;
use beam_wire::message::api::{ApiLoad, ApiLoadReply, ApiQuery, ApiTransact};
use beam_wire::quic::{CallOptions, Lane, Peer};
use beam_wire::{CallError, ClientRole, Code, Role, Term, TransactionId, Version};
use futures::future::join_all;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// W, small: a writer that waits for long would not be known any more.
const WINDOW: u64 = 2000;
/// Writers, each with one transaction on its way.
const WRITERS: u64 = 24;
/// Letters of each transaction, which no compression makes few.
const LETTERS: usize = 12_000;
/// How long the load goes on.
const LOAD: Duration = Duration::from_secs(25);
/// How long a reader of `Latest` waits at most: as old as entries become before writes are refused, those that were on their way
/// then, and the way to the log.
const LATEST_MAX: Duration = Duration::from_secs(8);

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    written: AtomicU64,
    failed: Mutex<Option<String>>,
}

#[test]
fn a_load_without_end_starves_no_reader_and_lets_no_id_expire() {
    tell(|| SimWorld::run(21, load_without_end));
}

async fn load_without_end(world: SimWorld) -> Result<()> {
    let mut cluster = SimCluster::start(world, 0.0, |topology| {
        topology.verdicts.slots_log2 = 12;
        topology.verdicts.window = WINDOW;
    })
    .await?;
    let env = cluster.env();
    let clients = cluster.clients(PATIENCE).await?;
    let here = cluster.topology.datacenters[0].clone();
    let reader = clients[&here].clone();
    let writer = cluster.client_within(&here, std::slice::from_ref(&here), ClientRole::Writer, PATIENCE).await?;
    // The way from log nodes to views carries less than is written, everywhere: no view is of help to another.
    let slow = Link { loss: 0.15, ..Link::of(Duration::from_millis(8)) };
    for log in cluster.topology.nodes_with(Role::Log) {
        for view in cluster.topology.nodes_with(Role::View) {
            cluster.world.net().set_link(log.address, view.address, slow);
        }
    }

    let load = Arc::new(Load::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| env.tasks().serve("load.write", write(env.clone(), writer.clone(), load.clone(), number)))
        .collect();
    let (mut reads, mut longest) = (0, Duration::ZERO);
    let until = env.now() + LOAD;
    while env.now() < until {
        let asked = env.now();
        reader.query_all("ASK { <urn:load> ?p ?o }", Position::Latest).await.context("a read of Latest")?;
        longest = longest.max(env.now() - asked);
        reads += 1;
    }
    load.stop.store(true, Relaxed);
    while !writers.iter().all(|writer| writer.is_finished()) {
        env.sleep(Duration::from_millis(50)).await;
        ensure!(env.now() < until + PATIENCE, "a writer has not ended");
    }
    let failed = load.failed.lock().expect("nobody panics with it").take();
    ensure!(failed.is_none(), "{}", failed.unwrap_or_default());
    let written = load.written.load(Relaxed);
    println!("{written} written; {reads} reads, the longest took {longest:?}");
    ensure!(longest <= LATEST_MAX, "a read of Latest took {longest:?}");
    ensure!(longest > Duration::from_secs(2), "the views followed: this story tells nothing");
    ensure!(written > WRITERS, "nothing was written");

    let found = reader.query_all("SELECT (COUNT(*) AS ?n) { <urn:load> <urn:p> ?o }", Position::Latest).await?;
    let count = found.rows.first().and_then(|row| row[0].clone()).context("a count")?;
    let Term::Literal { lexical, .. } = &count else { anyhow::bail!("{count:?} is no number") };
    ensure!(*lexical == written.to_string(), "{lexical} are there, {written} were acknowledged");
    Ok(())
}

/// Writes one fact after the other. Each has its own id, which stays the same until it is acknowledged.
async fn write(env: Env, client: Client, load: Arc<Load>, writer: u64) {
    for number in 0.. {
        if load.stop.load(Relaxed) {
            return;
        }
        let letters: String = (0..LETTERS / 16).map(|_| format!("{:016x}", env.random_u64())).collect();
        let update = format!("INSERT DATA {{ <urn:load> <urn:p> \"{writer} {number} {letters}\" }}");
        // A client that is told to come again later does so, until its patience ends.
        if let Err(error) = client.update(&update).await {
            *load.failed.lock().expect("nobody panics with it") = Some(format!("writer {writer}: {error}"));
            return;
        }
        load.written.fetch_add(1, Relaxed);
    }
}

/// What an api node takes here at once: so many transactions, and so many queries that run and that wait.
const WRITES: usize = 4;
const RUNNING: usize = 2;
const WAITING: usize = 3;
/// And how many come at the same moment.
const AT_ONCE: usize = 32;
/// Who is turned away must hear of it sooner than any write can be acknowledged: the nearest majority is 60 ms away.
const REFUSED_WITHIN: Duration = Duration::from_millis(20);
/// And come again no sooner than this.
const HINT_MIN_MS: u32 = 100;

/// One api node, and who speaks to it directly.
struct Door {
    env: Env,
    _cluster: SimCluster,
    client: Client,
    peer: Peer,
    version: Version,
}

/// What became of those who came at the same moment.
#[derive(Default)]
struct Turned {
    taken: usize,
    refused: usize,
}

impl Door {
    async fn open(world: SimWorld) -> Result<Door> {
        let mut cluster = SimCluster::start(world, 0.0, |topology| {
            topology.verdicts.slots_log2 = 12;
            topology.query.writes = Some(WRITES as u32);
            topology.query.running = Some(RUNNING as u32);
            topology.query.waiting = Some(WAITING as u32);
        })
        .await?;
        let env = cluster.env();
        let here = cluster.topology.datacenters[0].clone();
        let client = cluster.clients(PATIENCE).await?[&here].clone();
        let version = client.update("INSERT DATA { <urn:door> <urn:p> 0 }").await?.version;
        let (peers, directory, _) = cluster.nodes(&here)?;
        let api = client.api_load().await?.0;
        let target = loop {
            match directory.nodes_everywhere(Role::Api).into_iter().find(|node| node.node == api) {
                Some(node) => break node.target(),
                None => env.sleep(Duration::from_millis(10)).await,
            }
        };
        let peer = peers.peer(&target, Lane::Calls).await?;
        // What is asked once is known.
        peer.ask(&ApiLoad, env.now() + PATIENCE).await?;
        Ok(Door { env, _cluster: cluster, client, peer, version })
    }

    async fn load(&self) -> Result<ApiLoadReply> {
        Ok(self.peer.ask(&ApiLoad, self.env.now() + PATIENCE).await?)
    }

    /// So many come at the same moment. Those who are turned away are told so at once, and when to come again.
    async fn knock<F: Future<Output = Result<(), CallError>>>(&self, one: impl Fn(usize) -> F) -> Result<Turned> {
        let before = self.load().await?.refused;
        let came = self.env.now();
        let all = join_all((0..AT_ONCE).map(|number| {
            let call = one(number);
            async move { (call.await, self.env.now() - came) }
        }));
        let mut turned = Turned::default();
        for (outcome, took) in all.await {
            match outcome {
                Ok(()) => turned.taken += 1,
                Err(error) => {
                    ensure!(error.code == Code::Overloaded, "{error}");
                    let Retry::Later { after_ms } = error.retry else { anyhow::bail!("no hint: {:?}", error.retry) };
                    ensure!(after_ms >= HINT_MIN_MS, "come again after {after_ms} ms: {error}");
                    ensure!(took <= REFUSED_WITHIN, "refused after {took:?}: {error}");
                    turned.refused += 1;
                }
            }
        }
        let counted = self.load().await?.refused - before;
        ensure!(counted == turned.refused as u64, "{} were refused, and {counted} counted", turned.refused);
        Ok(turned)
    }
}

#[test]
fn an_api_node_takes_so_many_transactions_and_turns_the_rest_away() {
    tell(|| SimWorld::run(22, too_many_transactions));
}

async fn too_many_transactions(world: SimWorld) -> Result<()> {
    let door = &Door::open(world).await?;
    let turned = door
        .knock(|number| {
            let Version { epoch, index } = door.version;
            let mut facts = Builder::new();
            let iri = |text: &str| Term::Iri(text.to_owned());
            let fact = [iri("urn:door"), iri("urn:p"), Term::string(format!("{number}"))];
            let added = facts.insert(fact, None);
            let id = TransactionId::new(index, door.env.random_u128());
            let command = Command::Transact(facts.build(epoch, id, index, Vec::new())).encode();
            async move {
                added.map_err(|error| CallError::never(Code::Invalid, error.to_string()))?;
                let request = ApiTransact { command, wait: false };
                door.peer.ask(&request, door.env.now() + PATIENCE).await.map(drop)
            }
        })
        .await?;
    ensure!(turned.taken == WRITES, "{} transactions were taken at once, of {AT_ONCE}", turned.taken);

    // Programs come again when they are told to, and all of them get through.
    let many = (0..AT_ONCE).map(|number| {
        let client = door.client.clone();
        async move {
            let mut facts = Builder::new();
            let iri = |text: &str| Term::Iri(text.to_owned());
            facts.insert([iri("urn:program"), iri("urn:p"), Term::string(format!("{number}"))], None)?;
            anyhow::Ok(client.write(facts).await?)
        }
    });
    let refused = door.load().await?.refused;
    for written in join_all(many).await {
        written?;
    }
    ensure!(door.load().await?.refused > refused, "nobody had to come again: this story tells nothing");
    let there = |subject: &str| format!("SELECT ?o {{ <urn:{subject}> <urn:p> ?o }}");
    let rows = |answer: beam_client::Everything| answer.rows.len();
    let here = rows(door.client.query_all(&there("door"), Position::Latest).await?);
    ensure!(here == 1 + WRITES, "{here} are there, {WRITES} were acknowledged");
    let here = rows(door.client.query_all(&there("program"), Position::Latest).await?);
    ensure!(here == AT_ONCE, "{here} are there of {AT_ONCE}");
    Ok(())
}

#[test]
fn an_api_node_lets_so_many_queries_run_and_wait_and_turns_the_rest_away() {
    tell(|| SimWorld::run(23, too_many_queries));
}

async fn too_many_queries(world: SimWorld) -> Result<()> {
    let door = &Door::open(world).await?;
    // To know the newest version takes a round trip, in which nobody runs: these need none.
    let ask = || async move {
        let sparql = "SELECT ?o { <urn:door> <urn:p> ?o }".to_owned();
        let request = ApiQuery { sparql, base_iri: None, position: Position::Recent };
        let deadline = Some(door.env.now() + PATIENCE);
        let mut call = door.peer.call(&request, CallOptions { deadline }).await?;
        while call.next().await?.is_some() {}
        Ok(())
    };
    let turned = door.knock(|_| ask()).await?;
    ensure!(turned.taken == RUNNING + WAITING, "{} queries were taken at once, of {AT_ONCE}", turned.taken);

    let refused = door.load().await?.refused;
    let many = (0..AT_ONCE).map(|_| door.client.query_all("ASK { <urn:door> <urn:p> 0 }", Position::Latest));
    for answered in join_all(many).await {
        answered?;
    }
    ensure!(door.load().await?.refused > refused, "nobody had to come again: this story tells nothing");
    Ok(())
}

//! Watchers are told every change once, in order, whatever dies: held against a model of the log.

use anyhow::{Context, Result, ensure};
use beam_client::{Builder, Changed, Client, ClientError, Position, Version};
use beam_node::log::disk_sim::Loss;
use beam_tests::model::{Model, read_log};
use beam_tests::{SimCluster, seeds, tell};
use beam_wire::env::sim::SimWorld;
use beam_wire::env::{Env, Task};
use beam_wire::message::api::FactChange;
use beam_wire::{Code, Fact, LogIndex, Term, TermId};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn ms(ms: usize) -> Duration {
    Duration::from_millis(ms as u64)
}

fn fact(n: usize) -> [Term; 3] {
    let iri = |text: String| Term::Iri(text);
    [
        iri(format!("urn:s:{}", n % 7)),
        iri(format!("urn:p:{}", n % 2)),
        Term::string(format!("an object, number {}", n % 3)),
    ]
}

/// Inserts what may be there, and deletes what may not be, in one graph or another.
async fn write(env: Env, client: Client, stop: Arc<AtomicBool>) {
    while !stop.load(Relaxed) {
        let mut facts = Builder::new();
        for _ in 0..env.random_below(5) {
            let graph = (env.random_below(3) == 0).then(|| Term::Iri("urn:graph".to_owned()));
            let (fact, deletes) = (fact(env.random_below(42)), env.random_below(2) == 0);
            let written = if deletes { facts.delete(fact, graph) } else { facts.insert(fact, graph) };
            written.expect("they are facts");
        }
        // Whether it was written, the log knows.
        let _ = client.write(facts).await;
        env.sleep(ms(env.random_below(40))).await;
    }
}

/// What a watcher keeps: where it is, and what it was told.
#[derive(Default)]
struct Kept {
    after: Option<Version>,
    told: Vec<Changed>,
}

/// Watches, and dies from time to time; another goes on from what was kept.
async fn watch(env: Env, clients: Arc<Vec<Client>>, kept: Arc<Mutex<Kept>>, stop: Arc<AtomicBool>) -> Result<()> {
    while !stop.load(Relaxed) {
        let client = &clients[env.random_below(clients.len())];
        let after = kept.lock().unwrap().after.context("it knows where to begin")?;
        let mut watch = client.watch(after);
        let dies = env.now() + ms(500 + env.random_below(12_000));
        loop {
            match env.timeout_at(dies, watch.next()).await {
                Ok(Ok(changed)) => {
                    let mut kept = kept.lock().unwrap();
                    kept.after = Some(changed.version);
                    kept.told.push(changed);
                }
                Ok(Err(error)) if error.is_retryable() => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => break,
            }
        }
        drop(watch);
        // Then there is more to catch up with.
        env.sleep(ms(env.random_below(2500))).await;
    }
    Ok(())
}

fn story(seed: u64) -> Result<()> {
    SimWorld::run(seed, |world| async move {
        let mut cluster = SimCluster::start(world, 0.001, |topology| topology.verdicts.slots_log2 = 14).await?;
        let env = cluster.env();
        let clients = cluster.clients_everywhere(PATIENCE).await?;
        let clients: Arc<Vec<Client>> = Arc::new(clients.into_values().collect());
        let begun = clients[0].query_all("ASK {}", Position::Latest).await?.version;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers: Vec<Task> = Vec::new();
        for client in clients.iter() {
            let writing = write(env.clone(), client.within(ms(8000)), stop.clone());
            writers.push(env.tasks().serve("write", writing));
        }
        let (over, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let mut watchers: Vec<(Task, Arc<Mutex<Kept>>)> = Vec::new();
        for _ in 0..2 {
            let kept = Arc::new(Mutex::new(Kept { after: Some(begun), told: Vec::new() }));
            let watching = watch(env.clone(), clients.clone(), kept.clone(), over.clone());
            let failed = failed.clone();
            let watching = async move {
                if let Err(error) = watching.await {
                    failed.lock().unwrap().push(error.to_string());
                }
            };
            watchers.push((env.tasks().serve("watch", watching), kept));
        }
        let end = env.now() + Duration::from_secs(20);
        while env.now() < end {
            cluster.trouble(Loss::Unsynced).await?;
        }
        stop.store(true, Relaxed);
        while !writers.iter().all(Task::is_finished) {
            env.sleep(ms(100)).await;
        }
        let datacenter = cluster.topology.datacenters[0].clone();
        let log = read_log(&env, &cluster.log(&datacenter)?, PATIENCE).await?;
        let mut model = Model::default();
        let mut expected: Vec<(LogIndex, BTreeSet<(bool, Fact)>)> = Vec::new();
        for (index, entry) in (1..).zip(&log) {
            let (gone, come) = model.go_on(index, entry);
            let changes = gone.into_iter().map(|f| (false, f)).chain(come.into_iter().map(|f| (true, f))).collect();
            expected.push((LogIndex(index), changes));
        }
        expected.retain(|(index, changes)| *index > begun.index && !changes.is_empty());
        ensure!(expected.len() > 50, "only {} versions have changed anything", expected.len());
        let last = expected.last().map(|(index, _)| *index);
        let patience = env.now() + PATIENCE;
        for (_, kept) in &watchers {
            while kept.lock().unwrap().after.map(|after| after.index) < last && env.now() < patience {
                env.sleep(ms(100)).await;
            }
        }
        over.store(true, Relaxed);
        let failed = std::mem::take(&mut *failed.lock().unwrap());
        ensure!(failed.is_empty(), "{failed:?}");
        for (_, kept) in &watchers {
            let told = &kept.lock().unwrap().told;
            let told: Vec<_> = told.iter().map(|changed| (changed.version.index, of(&changed.facts))).collect();
            for (told, expected) in told.iter().zip(&expected) {
                ensure!(told == expected, "told {told:?}\nand not {expected:?}");
            }
            ensure!(told.len() == expected.len(), "{} versions were told, and not {}", told.len(), expected.len());
        }
        println!("{} of {} entries have changed facts", expected.len(), log.len());
        late(&clients[0], begun).await
    })
}

/// What does not exist yet, or was never known, is refused and not waited for.
async fn late(client: &Client, begun: Version) -> Result<()> {
    let ahead = Version { index: LogIndex(begun.index.0 + 1_000_000), ..begun };
    match client.watch(ahead).next().await {
        Err(ClientError::Refused { error, .. }) => ensure!(error.code == Code::Ahead, "{error}"),
        other => anyhow::bail!("a watch from the future was answered: {other:?}"),
    }
    Ok(())
}

fn of(changes: &[FactChange]) -> BTreeSet<(bool, Fact)> {
    let id = TermId::of;
    let fact = |change: &FactChange| {
        let [subject, predicate, object] = change.fact.each_ref().map(id);
        Fact { subject, predicate, object, graph: change.graph.as_ref().map_or(TermId::DEFAULT_GRAPH, id) }
    };
    changes.iter().map(|change| (change.inserted, fact(change))).collect()
}

#[test]
fn watchers_are_told_every_change_once_whatever_dies() {
    for seed in seeds(700, 1) {
        tell(move || story(seed).with_context(|| format!("seed {seed}")));
    }
}

//! Watchers are told every change once, in order, whatever dies: held against a model of the log.

use anyhow::{Context, Result, ensure};
use beam_client::{Builder, Changed, Client, ClientError, Position, Version, Watch};
use beam_node::log::disk_sim::Loss;
use beam_tests::model::{Model, read_log};
use beam_tests::recover::recover;
use beam_tests::{SimCluster, seeds, tell};
use beam_wire::env::sim::SimWorld;
use beam_wire::env::{Env, Task};
use beam_wire::message::api::FactChange;
use beam_wire::{Code, Epoch, Fact, LogIndex, Term, TermId};
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

/// Inserts one fact of a name.
async fn note(client: &Client, name: &str) -> Result<Version> {
    let mut facts = Builder::new();
    facts.insert([Term::Iri(format!("urn:{name}")), Term::Iri("urn:is".into()), Term::string(name)], None)?;
    Ok(client.write(facts).await?)
}

/// What a watcher is told next: the name, and its epoch.
async fn told(watch: &mut Watch) -> Result<(String, Epoch), ClientError> {
    loop {
        match watch.next().await {
            Ok(changed) => {
                let names = changed.facts.iter().map(|change| format!("{:?}", change.fact[0])).collect::<Vec<_>>();
                return Ok((names.join(" "), changed.version.epoch));
            }
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error),
        }
    }
}

fn named(name: &str) -> String {
    format!("{:?}", Term::Iri(format!("urn:{name}")))
}

/// Two of three datacenters are lost for ever, and with them what the third had not heard of. Whoever watches from before is told
/// what was kept and what comes, each once; whoever was told what is lost is told that.
#[test]
fn watchers_cross_a_recovery_or_are_told_what_is_lost() {
    tell(|| SimWorld::run(17, recovered));
}

async fn recovered(world: SimWorld) -> Result<()> {
    let mut cluster = SimCluster::start(world.clone(), 0.0, |topology| topology.verdicts.slots_log2 = 14).await?;
    let env = cluster.env();
    let datacenters = cluster.topology.datacenters.clone();
    let (home, clients) = (&datacenters[0], cluster.clients_everywhere(PATIENCE).await?);
    let (near, far) = (&clients[home], &clients[&datacenters[1]]);
    let begun = near.query_all("ASK {}", Position::Latest).await?.version;
    // One stops after the first change, and keeps where it was; the others watch all the time.
    let (mut all, mut parted, mut misled) = (near.watch(begun), near.watch(begun), far.watch(begun));
    for kept in ["kept-1", "kept-2"] {
        note(near, kept).await?;
        for watch in [&mut all, &mut misled] {
            ensure!(told(watch).await? == (named(kept), Epoch(1)));
        }
    }
    ensure!(told(&mut parted).await? == (named("kept-1"), Epoch(1)));
    let stopped = parted.reached();
    drop(parted);
    env.sleep(Duration::from_secs(2)).await;

    cluster.cut_off(home);
    note(&far.within(PATIENCE), "lost").await?;
    ensure!(told(&mut misled).await? == (named("lost"), Epoch(1)));
    for datacenter in &datacenters[1..] {
        cluster.lose_datacenter(datacenter, Loss::Unsynced).await;
    }
    env.sleep(Duration::from_secs(15)).await;
    world.net().heal();
    let epoch = recover(&mut cluster, home, PATIENCE).await?;
    // Past the index of what was lost: whoever took one epoch for the other would be told these instead.
    for new in ["new-1", "new-2", "new-3", "new-4", "new-5"] {
        note(&near.within(PATIENCE), new).await?;
    }

    let mut resumed = near.watch(stopped);
    ensure!(told(&mut resumed).await?.0 == named("kept-2"));
    for new in ["new-1", "new-2", "new-3", "new-4", "new-5"] {
        for watch in [&mut all, &mut resumed] {
            let found = told(watch).await?;
            ensure!(found == (named(new), epoch), "{found:?} and not {new}");
        }
    }
    match told(&mut misled).await {
        Err(error @ ClientError::EpochChanged { .. }) => {
            ensure!(error.to_string().contains("not in the database any more"))
        }
        other => anyhow::bail!("whoever was told what is lost is told {other:?}"),
    }
    // It reads anew, and goes on from there.
    let anew = far.query_all("ASK {}", Position::Latest).await?.version;
    let mut anew = far.watch(anew);
    note(near, "newest").await?;
    ensure!(told(&mut anew).await? == (named("newest"), epoch));
    Ok(())
}

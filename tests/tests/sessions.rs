//! What readers are promised about versions: sessions that move about never go back, and an exact version is
//! answered the same, to the byte, wherever and whenever it is asked for.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, ClientError, Everything, Position, Version};
use beam_node::demo::checks;
use beam_node::log::disk_sim::Loss;
use beam_tests::{SimCluster, seeds, tell};
use beam_wire::env::Env;
use beam_wire::env::sim::SimWorld;
use beam_wire::{ClientRole, Name, Term};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Questions that say nothing, or not enough, about the order of their answers.
const QUESTIONS: &[&str] = &[
    "SELECT * { ?s ?p ?o }",
    "SELECT ?thing ?rank { ?thing <urn:rank> ?rank } ORDER BY ?rank",
    "SELECT ?thing { ?thing <urn:rank> ?rank } LIMIT 7",
    "SELECT ?thing ?says { ?thing <urn:rank> ?rank ; <urn:says> ?says } LIMIT 5",
    "SELECT ?rank (COUNT(*) AS ?n) (SAMPLE(?thing) AS ?one) { ?thing <urn:rank> ?rank } GROUP BY ?rank",
    "SELECT (GROUP_CONCAT(?thing) AS ?all) { ?thing <urn:rank> ?rank }",
    "SELECT DISTINCT ?p { ?s ?p ?o }",
    "SELECT ?thing (BNODE() AS ?new) (BNODE(\"x\") AS ?named) { ?thing <urn:rank> 3 }",
    "CONSTRUCT { ?thing <urn:has> [ <urn:rank> ?rank ; <urn:of> ?other ] } \
     { ?thing <urn:rank> ?rank ; <urn:near> ?other }",
    "DESCRIBE <urn:thing:3>",
    "SELECT ?a ?b { <urn:thing:1> <urn:near>+ ?a OPTIONAL { ?a <urn:gone> ?b } }",
];

async fn grow(client: &Client, from: u64, to: u64) -> Result<Version> {
    let mut last = None;
    for i in from..to {
        let update = format!(
            "DELETE {{ <urn:thing:{old}> <urn:rank> ?rank }} \
             INSERT {{ <urn:thing:{i}> <urn:rank> {} ; <urn:near> <urn:thing:{}>, [ <urn:of> {i} ] ; \
                       <urn:says> \"a text that is too long to lie in an id, number {i}\" }} \
             WHERE {{ OPTIONAL {{ <urn:thing:{old}> <urn:rank> ?rank }} }}",
            i % 5,
            (i + 7) % 23,
            old = i.saturating_sub(9),
        );
        last = Some(client.update(&update).await?.version);
    }
    last.context("nothing was written")
}

/// The answer without what it took.
async fn exactly(client: &Client, question: &str, at: Version) -> Result<Everything> {
    let answer = client.query_all(question, Position::Exact(at)).await.with_context(|| question.to_owned())?;
    ensure!(answer.version == at, "{question} at {at} was answered at {}", answer.version);
    Ok(Everything { summary: Default::default(), ..answer })
}

/// An exact version is asked for at three places, while it is the newest, when it is the past, and when other
/// views answer: always the same rows in the same order, with the same blank nodes.
#[test]
fn an_exact_version_is_answered_the_same_to_the_byte() {
    tell(|| {
        SimWorld::run(11, |world| async move {
            let mut cluster = SimCluster::start(world, 0.001, |topology| topology.verdicts.slots_log2 = 14).await?;
            let clients = cluster.clients(PATIENCE).await?;
            let near = clients.values().next().context("a client")?;
            let at = grow(near, 0, 40).await?;
            let mut expected = Vec::new();
            for question in QUESTIONS {
                let answer = exactly(near, question, at).await?;
                ensure!(!answer.rows.is_empty() || !answer.triples.is_empty(), "{question} has no answer");
                expected.push(answer);
            }
            let same = async |when: &str, clients: &BTreeMap<Name, Client>| {
                for (place, client) in clients {
                    for (question, expected) in QUESTIONS.iter().zip(&expected) {
                        let answer = exactly(client, question, at).await?;
                        ensure!(answer == *expected, "{when}, in {place}: {question}\n{answer:#?}\nnot\n{expected:#?}");
                    }
                }
                anyhow::Ok(())
            };
            same("at once", &clients).await?;
            // Some of what was there goes, and some stays: views find the two apart.
            grow(near, 40, 45).await?;
            same("when it was the past", &clients).await?;
            cluster.kill_node(&Name::new("view-va-1a")?, Loss::Nothing).await;
            same("when another view answered", &clients).await
        })
    });
}

/// The datacenter that a client prefers is gone from one moment to the next: its calls go elsewhere when they are
/// late, long before their connections are known to be dead, and so do those that come after.
#[test]
fn a_lost_datacenter_costs_its_clients_a_moment() {
    tell(|| {
        SimWorld::run(31, |world| async move {
            let mut cluster = SimCluster::start(world, 0.001, |topology| topology.verdicts.slots_log2 = 14).await?;
            let env = cluster.env();
            let clients = cluster.clients(PATIENCE).await?;
            let datacenters = cluster.topology.datacenters.clone();
            // The one that is lost does not lead the log: how long a new leader takes is another story.
            let led = checks::leader_datacenter(&clients[&datacenters[0]]).await?;
            let (lost, home) = match datacenters.iter().position(|d| *d == led).context("it is a datacenter")? {
                0 => (&datacenters[1], &datacenters[2]),
                _ => (&datacenters[0], &datacenters[1]),
            };
            let mut order = datacenters.clone();
            order.sort_by_key(|d| d != lost);
            let client = cluster.client(home, &order, ClientRole::Writer).await?;
            for _ in 0..20 {
                client.query_all("ASK { ?s ?p ?o }", Position::Recent).await?;
                client.update("INSERT DATA { <urn:a> <urn:is> 1 }").await?;
            }
            cluster.lose_datacenter(lost, Loss::Unsynced).await;
            let (mut read, mut wrote) = (Vec::new(), Vec::new());
            for number in 0..20 {
                let began = env.now();
                client.query_all("ASK { ?s ?p ?o }", Position::Recent).await?;
                read.push(env.now() - began);
                let began = env.now();
                client.update(&format!("INSERT DATA {{ <urn:b> <urn:is> {number} }}")).await?;
                wrote.push(env.now() - began);
            }
            println!("reads took {read:?}\nwrites took {wrote:?}");
            let slowest = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
            ensure!(slowest(&read) < Duration::from_millis(1500), "a read took {:?}", slowest(&read));
            ensure!(slowest(&wrote) < Duration::from_millis(2500), "a write took {:?}", slowest(&wrote));
            let slow = read.iter().chain(&wrote).filter(|took| **took > Duration::from_millis(600)).count();
            ensure!(slow <= 1, "{slow} calls were late");
            Ok(())
        })
    });
}

/// What is seen by one who asks here and there.
struct Wanderer {
    seen: Option<Version>,
    counted: i64,
}

/// Readers carry a session from one datacenter to another, while views and datacenters come and go and a counter
/// counts up: they never see it count down, and never less than they wrote themselves.
#[test]
fn a_session_never_goes_back_wherever_it_goes() {
    for seed in seeds(20, 1) {
        tell(move || wander(seed).with_context(|| format!("seed {seed}")));
    }
}

fn wander(seed: u64) -> Result<()> {
    SimWorld::run(seed, |world| async move {
        let mut cluster = SimCluster::start(world, 0.002, |topology| topology.verdicts.slots_log2 = 14).await?;
        let env = cluster.env();
        let clients: Arc<Vec<Client>> = Arc::new(cluster.clients(PATIENCE).await?.into_values().collect());
        let stop = Arc::new(AtomicBool::new(false));
        let (answers, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(std::sync::Mutex::new(Vec::<String>::new())));
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let (env, clients, stop) = (env.clone(), clients.clone(), stop.clone());
            let (answers, failed) = (answers.clone(), failed.clone());
            let wandering = async move {
                let mut wanderer = Wanderer { seen: None, counted: 0 };
                while !stop.load(Relaxed) {
                    let client = &clients[env.random_below(clients.len())];
                    match step(&env, client, &mut wanderer).await {
                        Ok(answered) => drop(answers.fetch_add(u64::from(answered), Relaxed)),
                        Err(wrong) => return failed.lock().expect("nobody panics").push(wrong.to_string()),
                    }
                }
            };
            tasks.push(cluster.env().tasks().serve("wanderer", wandering));
        }
        let datacenters = cluster.topology.datacenters.clone();
        for round in 0..6 {
            env.sleep(Duration::from_millis(700)).await;
            let victim = &datacenters[env.random_below(datacenters.len())];
            match round % 3 {
                0 => {
                    cluster.cut_off(victim);
                    env.sleep(Duration::from_millis(2500)).await;
                    cluster.world.net().heal();
                }
                1 => {
                    cluster.lose_datacenter(victim, Loss::Unsynced).await;
                    env.sleep(Duration::from_millis(1500)).await;
                    cluster.return_datacenter(victim).await?;
                }
                _ => {
                    let views: Vec<Name> = cluster.topology.nodes_in(victim).map(|n| n.name.clone()).collect();
                    let views: Vec<Name> = views.into_iter().filter(|n| n.as_str().starts_with("view")).collect();
                    let view = &views[env.random_below(views.len())];
                    cluster.kill_node(view, Loss::Nothing).await;
                    env.sleep(Duration::from_millis(500)).await;
                    cluster.start_node(view).await?;
                }
            }
        }
        env.sleep(Duration::from_secs(3)).await;
        stop.store(true, Relaxed);
        while !tasks.iter().all(beam_wire::env::Task::is_finished) {
            env.sleep(Duration::from_millis(100)).await;
        }
        let failed = failed.lock().expect("nobody panics");
        ensure!(failed.is_empty(), "{failed:?}");
        let answers = answers.load(Relaxed);
        println!("{answers} answers");
        ensure!(answers > 100, "only {answers} answers");
        Ok(())
    })
}

/// What was answered, if anything was: while nodes come and go that may be nothing, but it is never wrong.
fn answered<T>(outcome: Result<T, ClientError>) -> Result<Option<T>> {
    match outcome {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_retryable() => Ok(None),
        Err(ClientError::OutcomeUnknown { .. }) => Ok(None),
        Err(error) => Err(error).context("while nodes came and went"),
    }
}

/// Reads the counter, or counts; whether there was an answer.
async fn step(env: &Env, client: &Client, wanderer: &mut Wanderer) -> Result<bool> {
    let session = match wanderer.seen {
        Some(seen) => client.session_from(seen),
        None => client.session(),
    };
    if env.random_below(4) == 0 {
        let counts = "DELETE { <urn:counter> <urn:is> ?n } INSERT { <urn:counter> <urn:is> ?next } \
                      WHERE { OPTIONAL { <urn:counter> <urn:is> ?n } BIND(COALESCE(?n, 0) + 1 AS ?next) }";
        let Some(outcome) = answered(session.update(counts).await)? else { return Ok(false) };
        ensure!(wanderer.seen.is_none_or(|seen| seen < outcome.version), "a write went back to {}", outcome.version);
        // Whoever has counted from here has made it at least one more than was seen here.
        wanderer.counted += 1;
    } else {
        let question = "SELECT ?n { <urn:counter> <urn:is> ?n }";
        let Some(answer) = answered(session.query_all(question).await)? else { return Ok(false) };
        let counted = match answer.rows.first().map(Vec::as_slice) {
            None => 0,
            Some([Some(Term::Literal { lexical, .. })]) => lexical.parse()?,
            other => anyhow::bail!("the counter is {other:?}"),
        };
        ensure!(
            wanderer.seen.is_none_or(|seen| seen <= answer.version) && counted >= wanderer.counted,
            "at {} the counter was {counted}; at {:?} it had been {}",
            answer.version,
            wanderer.seen,
            wanderer.counted
        );
        wanderer.counted = counted;
    }
    wanderer.seen = session.seen();
    Ok(true)
}

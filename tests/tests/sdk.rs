//! What programs are promised by the SDK: loads that go on whoever dies, updates that happen once, and streams.

use anyhow::{Context, Result, ensure};
use beam_client::{Builder, Client, ClientError, Position, Term, batches};
use beam_node::demo::checks;
use beam_node::log::disk_sim::Loss;
use beam_tests::{SimCluster, seeds, tell};
use beam_wire::Name;
use beam_wire::env::sim::SimWorld;
use futures::{StreamExt, TryStreamExt, stream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn iri(text: impl Into<String>) -> Term {
    Term::Iri(text.into())
}

fn fact(subject: &str, number: usize, text: String) -> [Term; 3] {
    [iri(format!("urn:{subject}:{number}")), iri(format!("urn:{subject}")), Term::string(text)]
}

/// The one number that a query asks for.
async fn number(client: &Client, sparql: &str) -> Result<usize> {
    let answer = client.query_all(sparql, Position::Latest).await?;
    match answer.rows.as_slice() {
        [row] => match row.as_slice() {
            [Some(Term::Literal { lexical, .. })] => Ok(lexical.parse()?),
            other => anyhow::bail!("{sparql}: {other:?}"),
        },
        other => anyhow::bail!("{sparql}: {other:?}"),
    }
}

/// The api node that a load goes through is killed, and then the datacenter that leads the log: it goes on by itself,
/// counts each fact once, and all of them are there.
#[test]
fn a_load_goes_on_whoever_dies() {
    for seed in seeds(40, 1) {
        tell(move || load(seed).with_context(|| format!("seed {seed}")));
    }
}

fn load(seed: u64) -> Result<()> {
    const FACTS: usize = 9000;
    const EACH: usize = 50;
    SimWorld::run(seed, |world| async move {
        let mut cluster = SimCluster::start(world, 0.001, |topology| topology.verdicts.slots_log2 = 14).await?;
        let env = cluster.env();
        let clients = cluster.clients_everywhere(PATIENCE).await?;
        let leads = checks::leader_datacenter(&clients[&cluster.topology.datacenters[0]]).await?;
        let home = cluster.topology.datacenters.iter().find(|d| **d != leads).context("another datacenter")?.clone();
        // Its calls end long before a lost leader is replaced.
        let client = clients[&home].within(Duration::from_millis(500));
        let api = cluster.topology.nodes_in(&home).map(|n| n.name.clone()).find(|n| n.as_str().starts_with("api"));
        let api = api.context("an api node at home")?;

        let over = Arc::new(AtomicBool::new(false));
        let loading = {
            let (client, over, env) = (client.clone(), over.clone(), env.clone());
            async move {
                // Facts come no faster than this, so that there is time for what happens meanwhile.
                let facts = stream::iter(0..FACTS).then(|number| {
                    let env = env.clone();
                    async move {
                        if number.is_multiple_of(EACH) {
                            env.sleep(Duration::from_millis(50)).await;
                        }
                        Ok::<_, ClientError>((fact("loaded", number, number.to_string()), None))
                    }
                });
                let mut told = Vec::new();
                let loaded = client.load(batches(facts, EACH), 4, |so_far| told.push(so_far.facts)).await;
                over.store(true, Relaxed);
                anyhow::Ok((loaded?, told))
            }
        };
        let trouble = async {
            env.sleep(Duration::from_secs(2)).await;
            cluster.kill_node(&api, Loss::Unsynced).await;
            env.sleep(Duration::from_secs(2)).await;
            ensure!(!over.load(Relaxed), "it was over too soon");
            cluster.start_node(&api).await?;
            cluster.lose_datacenter(&leads, Loss::Unsynced).await;
            env.sleep(Duration::from_secs(2)).await;
            ensure!(!over.load(Relaxed), "it was over too soon");
            cluster.return_datacenter(&leads).await
        };
        let ((loaded, told), ()) = futures::future::try_join(loading, trouble).await?;
        ensure!(loaded.facts as usize == FACTS && loaded.transactions as usize == FACTS / EACH, "{loaded:?}");
        ensure!(told.windows(2).all(|pair| pair[0] < pair[1]) && told.last() == Some(&loaded.facts), "{told:?}");
        let count = number(&clients[&home], "SELECT (COUNT(*) AS ?n) { ?s <urn:loaded> ?o }").await?;
        ensure!(count == FACTS, "{count} facts are there");
        Ok(())
    })
}

/// Updates under ids that their callers keep, made again whenever the outcome is not known, while nodes and datacenters
/// come and go: each has happened once, and whoever asks again hears where.
#[test]
fn an_update_under_a_kept_id_happens_once() {
    for seed in seeds(50, 1) {
        tell(move || keep_ids(seed).with_context(|| format!("seed {seed}")));
    }
}

fn keep_ids(seed: u64) -> Result<()> {
    const UPDATES: usize = 15;
    const COUNT: &str = "DELETE { <urn:counter> <urn:is> ?n } INSERT { <urn:counter> <urn:is> ?next } \
                         WHERE { OPTIONAL { <urn:counter> <urn:is> ?n } BIND(COALESCE(?n, 0) + 1 AS ?next) }";
    SimWorld::run(seed, |world| async move {
        let mut cluster = SimCluster::start(world, 0.01, |topology| topology.verdicts.slots_log2 = 14).await?;
        let env = cluster.env();
        let clients: Vec<Client> = cluster.clients_everywhere(PATIENCE).await?.into_values().collect();
        let over = Arc::new(AtomicBool::new(false));
        let updating = async {
            let (mut made, mut again) = (Vec::new(), 0);
            for _ in 0..UPDATES {
                let (_, id) = clients[0].new_id().await?;
                let mut tries = 0;
                let outcome = loop {
                    tries += 1;
                    ensure!(tries <= 300, "it was tried {tries} times");
                    // So little time that many outcomes are not known.
                    let client = clients[env.random_below(clients.len())].within(Duration::from_millis(300));
                    match client.update_as(id, COUNT).await {
                        Ok(outcome) => break outcome,
                        Err(error) if error.is_retryable() => {}
                        Err(ClientError::OutcomeUnknown { .. }) => again += 1,
                        Err(error) => return Err(error.into()),
                    }
                    env.sleep(Duration::from_millis(50)).await;
                };
                made.push((id, outcome));
            }
            over.store(true, Relaxed);
            anyhow::Ok((made, again))
        };
        let trouble = async {
            while !over.load(Relaxed) {
                cluster.trouble(Loss::Unsynced).await?;
            }
            Ok(())
        };
        let ((made, again), ()) = futures::future::try_join(updating, trouble).await?;
        println!("{again} outcomes were not known");
        ensure!(again > 0, "every outcome was known");
        let counted = number(&clients[0], "SELECT ?n { <urn:counter> <urn:is> ?n }").await?;
        ensure!(counted == UPDATES, "{UPDATES} updates have counted to {counted}");
        for (id, outcome) in made {
            let now = clients[1].update_as(id, COUNT).await?;
            ensure!(now.attempts == 0, "it was made again: {now:?}");
            ensure!(now.version.index == outcome.version.index, "{outcome:?} is {now:?} now");
        }
        Ok(())
    })
}

/// The rows of a large answer as a stream: all of them, once, also to a reader who takes his time; and one that is
/// dropped costs nobody anything.
#[test]
fn an_answer_can_be_streamed() {
    const FACTS: usize = 80;
    const ROWS: usize = FACTS * FACTS;
    const TEXT_BYTES: usize = 2400;
    const PACKET_BYTES_MAX: usize = 1500;
    tell(|| {
        SimWorld::run(60, |world| async move {
            let mut cluster = SimCluster::start(world, 0.001, |topology| topology.verdicts.slots_log2 = 14).await?;
            let env = cluster.env();
            let clients = cluster.clients(PATIENCE).await?;
            let client = clients.values().next().context("a client")?;
            let text = || (0..TEXT_BYTES / 32).map(|_| format!("{:032x}", env.random_u128())).collect::<String>();
            let facts = (0..FACTS).map(|n| Ok::<_, ClientError>((fact("row", n, text()), None)));
            client.load(batches(stream::iter(facts), 100), 4, |_| {}).await?;

            // More than what may be under way to one reader.
            let question = "SELECT ?a ?b { ?s <urn:row> ?a . ?t <urn:row> ?b }";
            let mut rows = pin!(client.query(question, Position::Latest).await?.stream());
            let mut seen = vec![rows.try_next().await?.context("a row")?];
            // What may be under way to somebody who does not read has arrived by then; the rest comes when he does.
            env.sleep(Duration::from_secs(5)).await;
            let before = cluster.world.net().trace().packets;
            while let Some(row) = rows.try_next().await? {
                seen.push(row);
            }
            let packets = cluster.world.net().trace().packets - before;
            let all = (2 * ROWS * TEXT_BYTES / PACKET_BYTES_MAX) as u64;
            println!("{packets} packets, all would be {all}");
            ensure!(packets > all / 4, "{packets} packets came while the rest was read, all would be {all}");
            seen.sort_unstable_by_key(|row| format!("{row:?}"));
            seen.dedup();
            ensure!(seen.len() == ROWS, "{} different rows", seen.len());

            let answer = client.query(question, Position::Latest).await?;
            let some: Vec<_> = answer.stream().take(3).try_collect().await?;
            ensure!(some.len() == 3);
            ensure!(number(client, "SELECT (COUNT(*) AS ?n) { ?s <urn:row> ?o }").await? == FACTS);
            Ok(())
        })
    });
}

/// A watch as a stream tells what `next` tells, in order; and who only waits hears how far all was told.
#[test]
fn changes_can_be_streamed() {
    tell(|| {
        SimWorld::run(70, |world| async move {
            let mut cluster = SimCluster::start(world, 0.001, |topology| topology.verdicts.slots_log2 = 14).await?;
            let env = cluster.env();
            let clients: Vec<(Name, Client)> = cluster.clients(PATIENCE).await?.into_iter().collect();
            let (here, elsewhere) = (&clients[0].1, &clients[1].1);
            let begun = here.query_all("ASK {}", Position::Latest).await?.version;
            let mut written = Vec::new();
            for n in 0..20 {
                let mut facts = Builder::new();
                facts.insert(fact("told", n, n.to_string()), None)?;
                written.push(here.write(facts).await?);
            }
            let told: Vec<_> = elsewhere.watch(begun).stream().take(written.len()).try_collect().await?;
            for ((n, version), told) in written.iter().enumerate().zip(&told) {
                let [change] = told.facts.as_slice() else { anyhow::bail!("{told:?}") };
                ensure!(
                    told.version == *version && change.inserted && change.fact == fact("told", n, n.to_string()),
                    "{told:?}"
                );
            }

            // What changes nothing is not told, but passed.
            let mut watch = elsewhere.watch(told.last().context("something was told")?.version);
            let mut facts = Builder::new();
            facts.delete(fact("nowhere", 0, String::new()), None)?;
            let empty = here.write(facts).await?;
            let next = env.timeout(Duration::from_secs(5), watch.next()).await;
            ensure!(next.is_err(), "{next:?}");
            ensure!(watch.reached() == empty, "it has reached {}, and {empty} was written", watch.reached());
            Ok(())
        })
    });
}

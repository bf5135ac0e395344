//! Two of three datacenters are lost for ever. The log goes on in the third, and views, api nodes and clients notice: what
//! was kept is what it was, and whoever has seen what is lost is told.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, ClientError, Committed, Transaction};
use beam_node::log::disk_sim::Loss;
use beam_tests::recover::recover;
use beam_tests::{SimCluster, tell};
use beam_wire::env::sim::SimWorld;
use beam_wire::env::{Env, Task};
use beam_wire::message::api::Shape;
use beam_wire::{Epoch, Position, Role, Term, Version};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

async fn value(client: &Client, key: &str, position: Position) -> Result<Vec<String>, ClientError> {
    let answer = client.query_all(&format!("SELECT ?v {{ <urn:{key}> <urn:is> ?v }}"), position).await?;
    Ok(answer.rows.iter().map(|row| format!("{:?}", row[0])).collect())
}

type Done = Result<Committed<bool>, ClientError>;

/// A transaction that reads, and takes its time before it writes.
struct Slow {
    _task: Task,
    outcome: Arc<Mutex<Option<Done>>>,
}

impl Slow {
    fn begin(env: &Env, client: Client, go_on: Arc<AtomicBool>) -> Slow {
        let (clock, outcome) = (env.clone(), Arc::new(Mutex::new(None)));
        let attempt = move |tx: Transaction| {
            let (clock, go_on) = (clock.clone(), go_on.clone());
            async move {
                let kept = tx.query("ASK { <urn:kept> <urn:is> 1 }").await?.boolean() == Some(true);
                while !go_on.load(Relaxed) {
                    clock.sleep(Duration::from_millis(100)).await;
                }
                let iri = |text: &str| Term::Iri(text.to_owned());
                tx.insert([iri("urn:slow"), iri("urn:is"), Term::string("done")], None)?;
                Ok::<_, ClientError>(kept)
            }
        };
        let told = outcome.clone();
        let task = async move {
            let done = client.transaction(attempt).await;
            *told.lock().expect("nothing panics while it holds this") = Some(done);
        };
        Slow { _task: env.tasks().serve("transaction", task), outcome }
    }

    async fn end(self, env: &Env) -> Result<Done> {
        let until = env.now() + PATIENCE;
        loop {
            if let Some(done) = self.outcome.lock().expect("nothing panics while it holds this").take() {
                return Ok(done);
            }
            ensure!(env.now() < until, "the transaction has not ended");
            env.sleep(Duration::from_millis(50)).await;
        }
    }
}

#[test]
fn views_and_clients_go_on_in_the_new_epoch_with_what_was_kept() {
    tell(story);
}

fn story() -> Result<()> {
    SimWorld::run(7, |world| async move {
        let mut cluster = SimCluster::start(world.clone(), 0.0, |topology| topology.verdicts.slots_log2 = 14).await?;
        let env = cluster.env();
        let datacenters = cluster.topology.datacenters.clone();
        let clients = cluster.clients(PATIENCE).await?;
        let home = &datacenters[0];
        let (near, far) = (&clients[home], &clients[&datacenters[1]]);
        let session = near.session();
        session.update("INSERT DATA { <urn:kept> <urn:is> 1 }").await?;
        let kept = session.seen().context("it has seen its own write")?;
        ensure!(kept.epoch == Epoch(1));
        env.sleep(Duration::from_secs(2)).await;

        let recovered = Arc::new(AtomicBool::new(false));
        let slow = Slow::begin(&env, near.within(2 * PATIENCE), recovered.clone());
        env.sleep(Duration::from_secs(1)).await;

        // The datacenter that will be left is cut off, and misses a write. Then the others are lost.
        cluster.cut_off(home);
        let lost_session = far.session();
        lost_session.update("INSERT DATA { <urn:lost> <urn:is> 2 }").await.context("the majority goes on")?;
        let lost = lost_session.seen().context("it has seen its own write")?;
        for datacenter in &datacenters[1..] {
            cluster.lose_datacenter(datacenter, Loss::Unsynced).await;
        }
        env.sleep(Duration::from_secs(15)).await;
        world.net().heal();
        ensure!(near.update("INSERT DATA { <urn:no> <urn:is> 0 }").await.is_err(), "there is no majority");

        let epoch = recover(&mut cluster, home, PATIENCE).await?;
        ensure!(epoch > Epoch(1));
        let written = near.update("INSERT DATA { <urn:new> <urn:is> 3 }").await.context("writes go on")?.version;
        ensure!(written.epoch == epoch, "{written}");
        for key in ["kept", "new"] {
            ensure!(value(near, key, Position::Latest).await?.len() == 1, "{key} is there");
        }
        ensure!(value(near, "lost", Position::Latest).await?.is_empty(), "what was lost is nowhere");

        // A transaction that had read before reads anew, and happens once.
        recovered.store(true, Relaxed);
        let done = slow.end(&env).await?.context("the transaction")?;
        ensure!(done.version.epoch == epoch && done.attempts == 2 && done.value, "{done:?}");
        ensure!(value(near, "slow", Position::Latest).await?.len() == 1, "it has happened once");

        // A session that has seen only what was kept does not even notice; its own last version can be read.
        ensure!(session.query_all("ASK { <urn:kept> <urn:is> 1 }").await?.version.epoch == epoch);
        let past = near.query_all("ASK { <urn:new> <urn:is> 3 }", Position::Exact(kept)).await?;
        ensure!(past.version == Version { epoch, ..kept } && past.shape == Shape::Boolean(false), "{past:?}");
        // One that has seen what is lost is told so, with an error of its own.
        let told = near.query("ASK {}", Position::AtLeast(lost)).await.err().context("it must be told")?;
        ensure!(matches!(told, ClientError::EpochChanged { .. }) && !told.is_retryable(), "{told}");
        ensure!(told.to_string().contains(&format!("version {lost} is not in the database any more")), "{told}");
        let resumed = near.session_from(lost);
        ensure!(matches!(resumed.query_all("ASK {}").await, Err(ClientError::EpochChanged { .. })));
        resumed.forget();
        resumed.query_all("ASK {}").await?;

        // The lost ones come back: nothing of what they hold is taken for what is. Their views had not seen it either, or
        // stop; their log nodes are refused.
        for node in cluster.topology.clone().nodes.iter().filter(|n| n.datacenter != *home && n.has_role(Role::Log)) {
            cluster.start_node(&node.name).await?;
        }
        env.sleep(Duration::from_secs(5)).await;
        near.update("INSERT DATA { <urn:newer> <urn:is> 4 }").await.context("writes go on")?;
        ensure!(value(near, "lost", Position::Latest).await?.is_empty(), "what was lost is nowhere");
        recover(&mut cluster, home, PATIENCE).await.context("the old logs are set aside")?;
        Ok(())
    })
}

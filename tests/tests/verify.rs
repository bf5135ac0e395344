//! Views whose data is not what the log says: found, named, and made anew, while queries go on.

use anyhow::{Context, Result, ensure};
use beam_client::{Client, Position, Version};
use beam_node::demo::checks;
use beam_node::log::disk_sim::Loss;
use beam_node::remote::view::RemoteViews;
use beam_node::verify::compare::What;
use beam_node::verify::{Report, verify};
use beam_node::view::keys::{self, Order};
use beam_node::view::store::{Batch, Heat, Store, StoreOptions};
use beam_tests::SimCluster;
use beam_wire::env::Env;
use beam_wire::env::sim::SimWorld;
use beam_wire::message::view::KeyInterval;
use beam_wire::{Fact, LogIndex, Name, TermId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Small, so that a short log has a checkpoint: only what comes after the oldest one must be kept.
const CHECKPOINT: u64 = 40;

/// A counter that counts up, among facts that stay: there is a past, and a text for each.
async fn write(client: &Client, i: u64) -> Result<Version> {
    let update = format!(
        "DELETE {{ <urn:counter> <urn:is> ?n }} INSERT {{ <urn:counter> <urn:is> {i} . \
         <urn:thing:{i}> <urn:says> \"a text that is too long to lie in an id, number {i}\" }} \
         WHERE {{ OPTIONAL {{ <urn:counter> <urn:is> ?n }} }}"
    );
    Ok(client.update(&update).await?.version)
}

struct Story {
    cluster: SimCluster,
    env: Env,
    clients: BTreeMap<Name, Client>,
    views: RemoteViews,
    /// How many things were written.
    written: u64,
    all: usize,
}

impl Story {
    /// A cluster whose log has let go of its beginning: views can only copy from one another.
    async fn begin(world: SimWorld) -> Result<Story> {
        let change = |topology: &mut beam_wire::topology::Topology| {
            topology.verdicts.slots_log2 = 12;
            topology.view.checkpoint = Some(CHECKPOINT);
        };
        let mut cluster = SimCluster::start(world, 0.0, change).await?;
        let env = cluster.env();
        let clients = cluster.clients(PATIENCE).await?;
        let home = cluster.topology.datacenters[0].clone();
        let (peers, directory, _) = cluster.nodes(&home)?;
        let views = RemoteViews::start(&env, peers, directory, home.clone());
        let all = cluster.topology.nodes.iter().filter(|node| node.name.as_str().starts_with("view")).count();
        let mut story = Story { cluster, env, clients, views, written: 0, all };
        story.write(100).await?;
        story.cluster.discard(&story.clients[&home], CHECKPOINT, PATIENCE).await?;
        Ok(story)
    }

    fn home(&self) -> &Client {
        &self.clients[&self.cluster.topology.datacenters[0]]
    }

    async fn write(&mut self, count: u64) -> Result<Version> {
        let mut last = None;
        for _ in 0..count {
            last = Some(write(self.home(), self.written).await?);
            self.written += 1;
        }
        last.context("nothing was written")
    }

    async fn verify(&self, scan: bool) -> Report {
        verify(&self.env, &self.views, scan, self.env.now() + PATIENCE).await
    }

    async fn all_agree(&self, scan: bool) -> Result<()> {
        let report = self.verify(scan).await;
        ensure!(report.all_agree() && report.missing.is_empty() && report.alone.is_empty(), "{report:?}");
        ensure!(report.compared.len() == self.all, "{} views were compared", report.compared.len());
        ensure!(report.facts == Some(self.written + 1), "{:?} facts, not {}", report.facts, self.written + 1);
        ensure!(scan == (report.records > 0), "{} records were read", report.records);
        Ok(())
    }

    /// Changes what a view has on its disk while it is down.
    async fn tamper(&mut self, view: &Name, change: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.cluster.kill_node(view, Loss::Nothing).await;
        change(&self.cluster.view_directory(view))?;
        self.cluster.start_node(view).await?;
        self.serving().await
    }

    /// Opens the store of a view that is down, and writes one batch.
    fn batch<C>(&self, view: &Name, change: C) -> impl FnOnce(&Path) -> Result<()> + use<C>
    where
        C: FnOnce(&Store, &mut Batch<'_>),
    {
        let cluster = self.cluster.topology.cluster.clone();
        let mut serves = self.cluster.topology.node(view).expect("a node of the topology").serves.clone();
        serves.sort_unstable();
        move |directory| {
            let store = Store::open(directory, &cluster, &serves, &StoreOptions::default())?;
            let mut batch = store.batch();
            change(&store, &mut batch);
            batch.commit()?;
            Ok(store.persist()?)
        }
    }

    async fn serving(&self) -> Result<()> {
        checks::until_serving(&self.env, &self.clients, PATIENCE).await
    }

    /// Asks for everything, again and again, until it agrees with the others on their disks, too. Every answer must be
    /// whole.
    async fn made_anew_unnoticed(&self) -> Result<()> {
        let healed = AtomicBool::new(false);
        let asking = async {
            let mut asked = 0;
            while !healed.load(Ordering::Relaxed) {
                let query = "SELECT ?s ?o { ?s <urn:says> ?o }";
                let found = self.home().query_all(query, Position::Recent).await?;
                ensure!(found.rows.len() as u64 == self.written, "{} rows at {}", found.rows.len(), found.version);
                asked += 1;
                self.env.sleep(Duration::from_millis(200)).await;
            }
            ensure!(asked > 1, "{asked} queries were asked meanwhile");
            Ok(())
        };
        let healing = async {
            let healing = async {
                self.serving().await?;
                self.all_agree(true).await
            };
            let outcome = healing.await;
            healed.store(true, Ordering::Relaxed);
            outcome
        };
        let (asked, healed) = futures::join!(asking, healing);
        healed.and(asked)
    }
}

/// The first live fact of the subject space.
fn first_fact(store: &Store) -> Fact {
    let everything = KeyInterval { from: Bytes::new(), to: None };
    let row = store.snapshot().live_range(Order::Spog, &everything).next().expect("there are facts").unwrap();
    keys::read_live(Order::Spog, &row.0).unwrap()
}

/// The largest file of tables below a directory.
fn largest_table(directory: &Path) -> Result<PathBuf> {
    let (mut open, mut largest) = (vec![directory.to_owned()], None);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)? {
            let (path, size) = entry.map(|e| e.metadata().map(|m| (e.path(), m.len())))??;
            if path.is_dir() {
                open.push(path);
            } else if path.parent().is_some_and(|parent| parent.ends_with("tables")) {
                largest = largest.max(Some((size, path)));
            }
        }
    }
    Ok(largest.context("there are no tables")?.1)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A view is copied from one that has lost a fact on its disk, and does not know it: the copy differs from all others, and
/// both are made anew.
#[test]
fn a_copy_of_a_damaged_view_is_found_and_both_are_made_anew() {
    beam_tests::tell(|| {
        SimWorld::run(22, |world| async move {
            let mut story = Story::begin(world).await?;
            let (copy, source) = (name("view-va-1a"), name("view-va-1b"));
            story.cluster.kill_node(&copy, Loss::Nothing).await;
            story.cluster.wipe_view(&copy)?;
            let lose =
                story.batch(&source, |store, batch| batch.put_live(Order::Spog, &first_fact(store), None, Heat::Cold));
            story.cluster.kill_node(&source, Loss::Nothing).await;
            lose(&story.cluster.view_directory(&source))?;
            story.cluster.start_node(&source).await?;
            // Until it answers, the other would copy from another datacenter.
            story.env.sleep(Duration::from_secs(3)).await;
            story.cluster.start_node(&copy).await?;

            story.env.sleep(PATIENCE).await;
            story.serving().await?;
            let report = story.verify(true).await;
            ensure!(report.all_agree(), "nobody has found it: {report:?}");
            story.write(10).await?;
            story.all_agree(true).await.context("made anew, and gone on")
        })
    });
}

/// A view loses a fact on its disk, and later a byte of a table flips: each time a scan finds it, the view stops
/// answering, copies what it had from others, and is as they are; queries and writes go on.
#[test]
fn a_view_whose_disk_has_rotted_is_found_and_made_anew() {
    beam_tests::tell(|| {
        SimWorld::run(21, |world| async move {
            let mut story = Story::begin(world).await?;
            story.all_agree(false).await.context("at the beginning")?;
            story.all_agree(true).await.context("at the beginning, on disk")?;

            let victim = name("view-va-1a");
            let lose =
                story.batch(&victim, |store, batch| batch.put_live(Order::Spog, &first_fact(store), None, Heat::Cold));
            story.tamper(&victim, lose).await?;
            story.all_agree(false).await.context("what was applied is not touched")?;
            let report = story.verify(true).await;
            ensure!(report.findings.len() == 1 && report.findings[0].what == What::Disk, "{report:?}");
            ensure!(report.findings[0].wrong == [victim.clone()], "{report:?}");
            ensure!(report.findings[0].why.contains("the live facts (spog)"), "{report:?}");
            story.made_anew_unnoticed().await.context("after it lost a fact")?;
            story.write(10).await?;
            story.all_agree(true).await.context("made anew, and gone on")?;

            // It has been copied, so what it has lies in tables.
            let flip = |directory: &Path| -> Result<()> {
                let table = largest_table(directory)?;
                let mut bytes = std::fs::read(&table)?;
                let at = bytes.len() / 10;
                bytes[at] ^= 0x10;
                Ok(std::fs::write(&table, bytes)?)
            };
            story.cluster.kill_node(&victim, Loss::Nothing).await;
            flip(&story.cluster.view_directory(&victim))?;
            story.cluster.start_node(&victim).await?;
            // Perhaps it was found when the view was opened; else now.
            let report = story.verify(true).await;
            ensure!(report.findings.iter().all(|f| f.wrong == [victim.clone()]), "{report:?}");
            ensure!(!report.findings.is_empty() || !report.missing.is_empty(), "nobody noticed: {report:?}");
            story.serving().await.context("after a bit has flipped")?;
            story.write(10).await?;
            story.all_agree(true).await.context("made anew again")
        })
    });
}

/// A view that holds something else than the log says, without a contradiction in itself: the others outvote it.
#[test]
fn a_view_that_has_applied_something_else_is_named_by_the_others() {
    beam_tests::tell(|| {
        SimWorld::run(22, |world| async move {
            let mut story = Story::begin(world).await?;
            let odd = name("view-or-2b");
            let forge = story.batch(&odd, |store, batch| {
                let fact = first_fact(store);
                let named = fact.graph != TermId::DEFAULT_GRAPH;
                [Order::Spog, Order::Posg].into_iter().for_each(|order| batch.put_live(order, &fact, None, Heat::Cold));
                batch.put_count(&fact.predicate, named, store.count(&fact.predicate, named).unwrap() - 1);
                let mut progress = store.progress().unwrap();
                progress.facts -= 1;
                batch.put_progress(&progress);
                // So it sums what it has.
                batch.put_summed(LogIndex(0));
            });
            story.tamper(&odd, forge).await?;
            // Also while the others go on.
            let (client, from) = (story.home().clone(), story.written);
            let writing = async {
                for i in from..from + 50 {
                    write(&client, i).await?;
                }
                anyhow::Ok(())
            };
            let (report, written) = futures::join!(story.verify(false), writing);
            written.context("while views are compared")?;
            ensure!(!report.findings.is_empty() && report.missing.is_empty(), "{report:?}");
            ensure!(report.findings.iter().all(|finding| finding.wrong == [odd.clone()]), "{report:?}");
            story.written += 50;
            let report = story.verify(true).await;
            ensure!(report.findings.iter().any(|finding| finding.what == What::Live), "{report:?}");
            ensure!(report.findings.iter().all(|finding| finding.wrong == [odd.clone()]), "{report:?}");

            // An operator gives it an empty directory.
            story.cluster.kill_node(&odd, Loss::Nothing).await;
            story.cluster.wipe_view(&odd)?;
            story.cluster.start_node(&odd).await?;
            story.serving().await?;
            story.all_agree(true).await
        })
    });
}

//! The role: the views that a node holds, of which there is one, or a few while the data is cut anew.
//!
//! Each is an [`Instance`] of its own, with its own directory and place in the log. A call goes to whichever can
//! answer it best. An operator tells the node what it is to hold; what it was told last is written down in
//! [`Holdings`], and comes back with a restart.

use super::holdings::Holdings;
use super::instance::{Instance, Others, ViewError, ViewOptions};
use super::serve;
use super::status::{WATCH_EVERY, WATCH_PAUSE};
use super::store::{OpenError, StorageError, Store};
use beam_wire::env::Env;
use beam_wire::message::Kind;
use beam_wire::message::view::{self, Served, ViewDrop, ViewHold, ViewInstances, ViewInstancesReply, ViewState};
use beam_wire::quic::{Handle, Incoming};
use beam_wire::{CallError, Code};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all, select_all};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// How long a view that drains still takes calls: those who ask are told of it at once, so this is for messages
/// that were lost on the way.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How long it then waits for calls that it has begun to answer. Whoever is not done asks another view.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// How often it looks whether they have ended.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);
/// How long to wait for the engine to close before its files are removed.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// The view role of a node. It stops when it is dropped.
pub struct ViewRole {
    env: Env,
    /// What the topology says; the directory is the node's.
    options: ViewOptions,
    others: Others,
    /// One change at a time.
    holdings: tokio::sync::Mutex<Holdings>,
    running: Mutex<Running>,
    changed: Notify,
}

/// The views that run, by number.
#[derive(Default)]
struct Running {
    instances: BTreeMap<u64, Arc<Instance>>,
    edition: u64,
}

impl ViewRole {
    /// Opens all that the node holds. Each view follows the log from where it was left.
    pub async fn start(env: &Env, options: ViewOptions, others: Others) -> Result<Arc<ViewRole>, ViewError> {
        if options.serves.is_empty() {
            return Err(ViewError::Nothing);
        }
        let directory = options.directory.clone();
        let loaded = Holdings::load(&directory)?;
        let was_told = loaded.is_some();
        let holdings = loaded.unwrap_or_else(|| Holdings::of_topology(options.serves.clone()));
        let role = Arc::new(ViewRole {
            env: env.clone(),
            options,
            others,
            holdings: tokio::sync::Mutex::new(holdings.clone()),
            running: Mutex::default(),
            changed: Notify::new(),
        });
        role.clear_away(&holdings, was_told).await?;
        for holding in holdings.views.into_iter().filter(|view| !view.dropped) {
            role.begin(holding.number, holding.serves).await?;
        }
        if role.serves() != sorted(role.options.serves.clone()) {
            tracing::warn!(
                "this node holds what it was told to hold, which is not what its topology says: `beam views list` \
                 shows both"
            );
        }
        Ok(role)
    }

    /// Removes what a change that was broken off has left. A node that was told nothing goes on to hold what its topology says.
    async fn clear_away(&self, holdings: &Holdings, was_told: bool) -> Result<(), ViewError> {
        let directory = &self.options.directory;
        if !directory.exists() {
            return Ok(());
        }
        let strays = holdings.strays(directory).map_err(|why| OpenError::Io { directory: directory.clone(), why })?;
        for number in strays {
            self.remove(number).await?;
        }
        if !was_told {
            return Ok(());
        }
        let mut kept = self.holdings.lock().await;
        kept.views.retain(|view| !view.dropped);
        Ok(kept.save(directory)?)
    }

    /// Answers a call of a kind that belongs to views.
    pub fn serve(self: &Arc<Self>, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        let role = self.clone();
        match call.kind {
            Kind::ViewInstances => async move { role.tell(call.open()?).await }.boxed(),
            Kind::ViewHold => async move {
                let mut call: Handle<ViewHold> = call.open()?;
                let (holder, serves, (tell, told)) = (role.clone(), call.request.serves.clone(), oneshot::channel());
                // Whoever asks may go meanwhile: what was begun is written down all the same.
                let holding = async move {
                    let _ = tell.send(holder.hold(serves).await);
                };
                role.env.tasks().serve("view.hold", holding).detach();
                let broken_off =
                    |_| CallError::later(Code::Internal, 1000, "this node did not begin a view: see its log");
                told.await.map_err(broken_off)??;
                call.reply(&role.reply(true).await).await
            }
            .boxed(),
            Kind::ViewDrop => async move {
                let mut call: Handle<ViewDrop> = call.open()?;
                role.drop(call.request.serves.clone()).await?;
                call.reply(&role.reply(true).await).await
            }
            .boxed(),
            _ => serve::serve(self.env.clone(), self.instances().into_values().collect(), call).boxed(),
        }
    }

    /// All that it holds, drained views excepted.
    pub fn serves(&self) -> Vec<Served> {
        let statuses = self.instances().into_values().map(|instance| instance.status());
        sorted(statuses.filter(|s| s.state != ViewState::Draining).flat_map(|s| s.serves).collect())
    }

    /// Stops all views, and puts everything onto the disk.
    pub async fn stop(&self, within: Duration) -> Result<(), StorageError> {
        let instances = self.instances();
        let stopped = join_all(instances.values().map(|instance| instance.stop(within))).await;
        stopped.into_iter().collect()
    }

    /// Tells how the views are; with `watch`, whenever that changes.
    async fn tell(self: Arc<Self>, mut call: Handle<ViewInstances>) -> Result<(), CallError> {
        let watch = call.request.watch;
        loop {
            let (instances, edition) = {
                let running = self.running();
                (running.instances.clone(), running.edition)
            };
            let editions: Vec<u64> = instances.values().map(|instance| instance.board().edition()).collect();
            call.reply(&self.reply(!watch).await).await?;
            if !watch {
                return Ok(());
            }
            self.env.sleep(WATCH_PAUSE).await;
            let seen = instances.values().zip(editions);
            let news = seen.map(|(instance, edition)| instance.board().changed_since(edition).boxed());
            let news = news.chain([self.others_since(edition).boxed()]);
            // Its end is news too: that the views are alive.
            let _ = self.env.timeout(WATCH_EVERY - WATCH_PAUSE, select_all(news)).await;
        }
    }

    /// Waits until there are other views than at an edition.
    async fn others_since(&self, edition: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.running().edition != edition {
                return;
            }
            changed.await;
        }
    }

    /// How the views are. Sizes are not told to those who watch: they change with every compaction.
    async fn reply(&self, sizes: bool) -> ViewInstancesReply {
        let mut instances = Vec::new();
        for (number, instance) in self.instances() {
            let disk_bytes = match instance.desk().filter(|_| sizes) {
                Some(desk) => self.env.blocking(move || desk.store.disk_bytes()).await.ok(),
                None => None,
            };
            let (status, copied) = (instance.status(), instance.copied());
            instances.push(view::Instance { number, status, copied, disk_bytes });
        }
        let free_bytes = if sizes { free_bytes(&self.options.directory) } else { None };
        ViewInstancesReply { instances, topology: sorted(self.options.serves.clone()), free_bytes }
    }

    /// Holds these ranges, too, from now on.
    async fn hold(&self, serves: Vec<Served>) -> Result<(), CallError> {
        let mut holdings = self.holdings.lock().await;
        let mut next = holdings.clone();
        let Some(number) = next.hold(serves.clone())? else { return Ok(()) };
        tracing::info!("view {number} of this node begins: it is to hold {}", listed(&serves));
        // What a crash leaves here is nobody's until it is written down.
        self.begin(number, serves).await.map_err(failed)?;
        if let Err(error) = next.save(&self.options.directory) {
            self.end(number);
            return Err(failed(error.into()));
        }
        *holdings = next;
        Ok(())
    }

    /// Lets go of the view that holds exactly these ranges, once nobody asks it any more.
    async fn drop(self: &Arc<Self>, serves: Vec<Served>) -> Result<(), CallError> {
        let mut holdings = self.holdings.lock().await;
        let mut next = holdings.clone();
        let is_serving = |number| self.instances().get(&number).is_some_and(|i| i.status().state == ViewState::Serving);
        let Some(number) = next.drop(serves, is_serving)? else { return Ok(()) };
        next.save(&self.options.directory).map_err(|error| failed(error.into()))?;
        *holdings = next;
        let Some(instance) = self.instances().get(&number).cloned() else { return Ok(()) };
        tracing::info!("view {number} of this node drains: it is to go");
        instance.drain();
        self.env.tasks().serve("view.drop", self.clone().see_off(number, instance)).detach();
        Ok(())
    }

    /// Waits until nobody asks a view that drains, then removes all that it has.
    async fn see_off(self: Arc<Self>, number: u64, instance: Arc<Instance>) {
        self.env.sleep(DRAIN_GRACE).await;
        let quiet = async {
            while instance.status().calls > 0 {
                self.env.sleep(DRAIN_PAUSE).await;
            }
        };
        if self.env.timeout(DRAIN_MAX, quiet).await.is_err() {
            tracing::warn!("view {number} of this node goes, though {} calls are on", instance.status().calls);
        }
        // From here on calls go to the others, or are refused, and asked elsewhere.
        self.end(number);
        // What is on its disk need not be whole: it is removed.
        if let Err(error) = instance.stop(Duration::ZERO).await {
            tracing::warn!("view {number} of this node did not stop well: {error}");
        }
        drop(instance);
        loop {
            match self.forget(number).await {
                Ok(()) => return tracing::info!("view {number} of this node is gone"),
                // Somebody still reads from it, and will not for long.
                Err(ViewError::Open(OpenError::InUse { directory })) => {
                    tracing::warn!("view {number} of this node has stopped, but {} is still open", directory.display());
                }
                Err(error) => {
                    return tracing::error!("the data of view {number} goes at the next start of this node: {error}");
                }
            }
        }
    }

    /// Removes what a stopped view has left, then strikes it off.
    async fn forget(&self, number: u64) -> Result<(), ViewError> {
        self.remove(number).await?;
        let mut holdings = self.holdings.lock().await;
        holdings.forget(number);
        Ok(holdings.save(&self.options.directory)?)
    }

    async fn begin(&self, number: u64, serves: Vec<Served>) -> Result<(), ViewError> {
        let directory = Holdings::place(&self.options.directory, number);
        let options = ViewOptions { serves, directory, ..self.options.clone() };
        let instance = Instance::start(&self.env, options, self.others.clone()).await?;
        let mut running = self.running();
        running.instances.insert(number, instance);
        running.edition += 1;
        drop(running);
        self.changed.notify_waiters();
        Ok(())
    }

    fn end(&self, number: u64) {
        let mut running = self.running();
        running.instances.remove(&number);
        running.edition += 1;
        drop(running);
        self.changed.notify_waiters();
    }

    /// Removes a view's data, once its engine has closed.
    async fn remove(&self, number: u64) -> Result<(), ViewError> {
        let directory = Holdings::place(&self.options.directory, number);
        let give_up = self.env.now() + CLOSING_MAX;
        loop {
            let path = directory.clone();
            match self.env.blocking(move || Store::remove(&path, number != 0)).await {
                Err(OpenError::InUse { .. }) if self.env.now() < give_up => self.env.sleep(DRAIN_PAUSE).await,
                removed => return Ok(removed?),
            }
        }
    }

    fn instances(&self) -> BTreeMap<u64, Arc<Instance>> {
        self.running().instances.clone()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().expect("nothing panics while it holds this")
    }
}

fn sorted(mut serves: Vec<Served>) -> Vec<Served> {
    serves.sort_unstable();
    serves.dedup();
    serves
}

fn listed(serves: &[Served]) -> String {
    serves.iter().map(|s| format!("{} {}", s.space, s.range)).collect::<Vec<_>>().join(", ")
}

fn failed(error: ViewError) -> CallError {
    CallError::later(Code::Storage, 1000, format!("this node cannot hold that: {error}"))
}

/// Room on the disk of a directory; none where the system does not say.
fn free_bytes(directory: &std::path::Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

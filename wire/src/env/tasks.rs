//! Tasks: the only place that spawns. Every task has a name, an owner and an end.

use super::{Env, Inner};
use futures::FutureExt;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

/// The tasks of one [`Env`].
pub struct Tasks {
    env: Weak<Inner>,
    shared: Arc<Shared>,
}

/// A task that owned state is gone, so its node must stop: the replicas cover for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The name of the task.
    pub name: String,
    /// Its error, its panic, or that it simply returned.
    pub why: String,
}

/// A running task. Dropping this aborts it; [`Task::detach`] leaves it to its [`Tasks`].
#[must_use = "dropping a task aborts it: keep it, or detach it"]
#[derive(Debug)]
pub struct Task {
    handle: Option<AbortHandle>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The first state-owning task ended, or the last task is gone.
    changed: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    running: BTreeMap<u64, AbortHandle>,
    children: Vec<Weak<Inner>>,
    /// Nothing starts any more.
    killed: bool,
    panics: u64,
    ended: Option<Ended>,
}

impl Tasks {
    pub(super) fn new(env: Weak<Inner>) -> Self {
        Tasks { env, shared: Arc::default() }
    }

    pub(super) fn adopt(&self, child: &Arc<Inner>) {
        let mut state = self.shared.state();
        state.children.retain(|c| c.strong_count() > 0);
        state.children.push(Arc::downgrade(child));
        let killed = state.killed;
        drop(state);
        if killed {
            child.tasks.kill();
        }
    }

    /// Runs a task that owns state. When it ends, in whatever way but by its owner's wish,
    /// [`Tasks::ended`] tells it, and the node must stop.
    pub fn own<E: Display>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Task {
        let shared = self.shared.clone();
        self.start(async move {
            let why = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => "it returned".to_owned(),
                Ok(Err(e)) => e.to_string(),
                Err(panic) => {
                    shared.state().panics += 1;
                    format!("it panicked: {}", panic_text(&*panic))
                }
            };
            tracing::debug!("the task {name} ended: {why}");
            shared.state().ended.get_or_insert(Ended { name: name.to_owned(), why });
            shared.changed.notify_waiters();
        })
    }

    /// Runs a task that serves requests or helps. A panic is logged and counted, and hurts nothing else.
    pub fn serve(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> Task {
        let shared = self.shared.clone();
        // Whatever is wrapped around a future holds it twice, as it was given and as it is polled: a call would be copied in
        // tens of kilobytes before it begins.
        let task = Box::pin(task);
        self.start(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                shared.state().panics += 1;
                tracing::error!("the task {name} panicked: {}", panic_text(&*panic));
            }
        })
    }

    /// Runs a task whose end the caller awaits through the handle: for quinn and openraft, which own
    /// their tasks. Dropping the handle leaves the task running.
    pub fn spawn_raw<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let env = Env { inner: self.env.upgrade().expect("an Env outlives the borrow of its tasks") };
        let mut state = self.shared.state();
        let id = state.next;
        state.next += 1;
        let leave = Leave { shared: self.shared.clone(), id };
        // The task cannot leave before it is entered: we hold the lock.
        let handle = spawn(async move {
            let _leave = leave;
            env.scope(task).await
        });
        state.running.insert(id, handle.abort_handle());
        if state.killed {
            handle.abort();
        }
        handle
    }

    fn start(&self, task: impl Future<Output = ()> + Send + 'static) -> Task {
        Task { handle: Some(self.spawn_raw(task).abort_handle()) }
    }

    /// Waits until a state-owning task has ended, and says which was the first.
    pub async fn ended(&self) -> Ended {
        self.shared.wait(|state| state.ended.clone()).await
    }

    /// Aborts everything, children included, at one instant, as a crash would. Nothing starts here
    /// any more.
    pub fn kill(&self) {
        let (running, children) = {
            let mut state = self.shared.state();
            state.killed = true;
            (state.running.values().cloned().collect::<Vec<_>>(), std::mem::take(&mut state.children))
        };
        for handle in running {
            handle.abort();
        }
        for child in children.iter().filter_map(Weak::upgrade) {
            child.tasks.kill();
        }
        self.shared.state().children = children;
    }

    /// Whether [`Tasks::kill`] was called.
    pub fn is_killed(&self) -> bool {
        self.shared.state().killed
    }

    /// Waits until none of its tasks is left, children's included.
    pub async fn join(&self) {
        self.shared.wait(|state| state.running.is_empty().then_some(())).await;
        let children = self.shared.state().children.clone();
        for child in children.iter().filter_map(Weak::upgrade) {
            Box::pin(child.tasks.join()).await;
        }
    }

    /// How many tasks and calls have panicked.
    pub fn panics(&self) -> u64 {
        self.shared.state().panics
    }

    /// Counts and logs a panic that somebody else has caught.
    pub(crate) fn caught(&self, name: &str, panic: &(dyn Any + Send)) {
        self.shared.state().panics += 1;
        tracing::error!("{name} panicked: {}", panic_text(panic));
    }
}

impl Task {
    /// Ends it at its next await.
    pub fn abort(&self) {
        if let Some(handle) = &self.handle {
            handle.abort()
        }
    }

    /// Lets it run until it ends by itself, or its [`Tasks`] are killed.
    pub fn detach(mut self) {
        self.handle = None;
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(AbortHandle::is_finished)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }

    async fn wait<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let seen = look(&self.state());
            match seen {
                Some(found) => return found,
                None => changed.await,
            }
        }
    }
}

/// Strikes a task from the list when its future is dropped, done or not.
struct Leave {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.running.remove(&self.id);
        if state.running.is_empty() {
            self.shared.changed.notify_waiters();
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("with no message")
}

#[allow(clippy::disallowed_methods, reason = "this is the place that spawns")]
fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(task)
}

#[allow(clippy::disallowed_methods, reason = "this is the place that spawns")]
pub(super) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(f).await {
        Ok(value) => value,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels it, and then nobody polls us again.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::SimWorld;
    use std::convert::Infallible;
    use std::time::Duration;

    #[test]
    fn the_end_of_an_owned_task_is_told_whatever_it_was() {
        SimWorld::run(1, |world| async move {
            for (host, wants) in
                [("errs", "the disk is full"), ("panics", "it panicked: on entry 7"), ("ends", "it returned")]
            {
                let env = world.env(host);
                let task = env.tasks().own("log.writer", async move {
                    match host {
                        "errs" => Err("the disk is full"),
                        "panics" => panic!("on entry {}", 7),
                        _ => Ok(()),
                    }
                });
                let ended = env.tasks().ended().await;
                assert_eq!(ended, Ended { name: "log.writer".into(), why: wants.into() });
                // Who asks later hears the same.
                assert_eq!(env.tasks().ended().await, ended);
                assert_eq!(env.tasks().panics(), u64::from(host == "panics"));
                env.tasks().join().await;
                assert!(task.is_finished());
            }
        });
    }

    #[test]
    fn what_its_owner_ends_is_not_told() {
        SimWorld::run(2, |world| async move {
            let env = world.env("a");
            let forever = || std::future::pending::<Result<(), Infallible>>();
            let (dropped, aborted) = (env.tasks().own("one", forever()), env.tasks().own("two", forever()));
            drop(dropped);
            aborted.abort();
            env.tasks().join().await;
            assert!(env.timeout(Duration::from_secs(1), env.tasks().ended()).await.is_err());
        });
    }

    #[test]
    fn a_panic_of_a_serving_task_is_counted_and_hurts_nothing() {
        SimWorld::run(3, |world| async move {
            let env = world.env("a");
            env.tasks().serve("quic.call", async { panic!("as asked") }).detach();
            env.tasks().join().await;
            assert_eq!(env.tasks().panics(), 1);
            assert!(env.timeout(Duration::from_secs(1), env.tasks().ended()).await.is_err());
        });
    }

    #[test]
    fn every_task_knows_its_env_and_children_have_their_own() {
        SimWorld::run(4, |world| async move {
            let env = world.env("a");
            let child = env.child("b");
            let name = |env: &Env| env.tasks().spawn_raw(async { Env::current().name().to_owned() });
            assert_eq!((name(&env).await.unwrap(), name(&child).await.unwrap()), ("a".into(), "a/b".into()));
            child.tasks().kill();
            assert!(child.tasks().is_killed() && !env.tasks().is_killed());
        });
    }
}

//! What openraft takes from its runtime, taken from [`Env`]: tasks that end with their node, seeded
//! chance, and a watch channel whose waiters wake in the order in which they came.

use beam_wire::env::{Dns, DnsError, Env, SrvAnswer};
use futures::future::BoxFuture;
use openraft_rt::{AsyncRuntime, OptionalSend, OptionalSync, watch};
use openraft_rt_tokio as tokio_rt;
use rand10::{TryRng, rand_core::Rng};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The runtime that openraft is given.
#[derive(Debug)]
pub struct Runtime {
    /// Only [`AsyncRuntime::block_on`] uses it: openraft's test suites.
    tokio: tokio::runtime::Runtime,
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = tokio_rt::TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = Chance;
    type Mpsc = tokio_rt::TokioMpsc;
    type Watch = Watch;
    type Oneshot = tokio_rt::TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = tokio_rt::TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Env::current().tasks().spawn_raw(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        <tokio_rt::TokioRuntime as AsyncRuntime>::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        <tokio_rt::TokioRuntime as AsyncRuntime>::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        <tokio_rt::TokioRuntime as AsyncRuntime>::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        <tokio_rt::TokioRuntime as AsyncRuntime>::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Chance {
        Chance(Env::current())
    }

    fn new(_threads: usize) -> Self {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Runtime { tokio: tokio.expect("a machine that runs tests can make a runtime") }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.tokio.block_on(Env::real(Arc::new(NoNames)).scope(future))
    }
}

/// openraft's own suites, which [`AsyncRuntime::block_on`] runs, look nothing up.
struct NoNames;

impl Dns for NoNames {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>> {
        Box::pin(async move { Err(DnsError::NoSuchName(name.to_string())) })
    }
}

/// Chance from the environment of the task that asks.
pub struct Chance(Env);

impl TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.random_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.random_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

const fn _chance_is_infallible<R: Rng>() {}
const _: () = _chance_is_infallible::<Chance>();

/// A watch channel that wakes first who waited first. (tokio's spreads its waiters over lists that it
/// draws at random, so that two replication tasks would wake in another order in every run.)
pub struct Watch;

struct Shared<T> {
    value: RwLock<T>,
    state: Mutex<State>,
}

/// A `version` rises with every change; each receiver remembers the one that it saw.
#[derive(Default)]
struct State {
    version: u64,
    senders: usize,
    receivers: usize,
    next_ticket: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, changed: bool) {
        let waiting = {
            let mut state = self.state();
            state.version += u64::from(changed);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_values().for_each(Waker::wake);
    }
}

/// The sending end of a [`Watch`].
pub struct Sender<T>(Arc<Shared<T>>);

/// The receiving end of a [`Watch`].
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.0.state();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.0.wake(false);
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.state().receivers += 1;
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.state().receivers -= 1;
    }
}

impl watch::Watch for Watch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let state = State { senders: 1, receivers: 1, ..State::default() };
        let shared = Arc::new(Shared { value: RwLock::new(init), state: Mutex::new(state) });
        (Sender(shared.clone()), Receiver { shared, seen: 0 })
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<Watch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), watch::SendError<T>> {
        if self.0.state().receivers == 0 {
            return Err(watch::SendError(value));
        }
        *self.0.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        self.0.wake(true);
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let changed = modify(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.0.wake(true);
        }
        changed
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        let mut state = self.0.state();
        state.receivers += 1;
        Receiver { shared: self.0.clone(), seen: state.version }
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<Watch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), watch::RecvError> {
        let change = Change { shared: &self.shared, seen: self.seen, ticket: None };
        self.seen = change.await.ok_or(watch::RecvError(()))?;
        Ok(())
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.shared.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        // The version first: a change in between is then seen twice rather than never.
        self.seen = self.shared.state().version;
        self.shared.read()
    }
}

/// Resolves to the version after `seen`, or to nothing once all senders are gone.
struct Change<'a, T> {
    shared: &'a Shared<T>,
    seen: u64,
    ticket: Option<u64>,
}

impl<T> Future for Change<'_, T> {
    type Output = Option<u64>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        let mut state = self.shared.state();
        if state.version != self.seen {
            return Poll::Ready(Some(state.version));
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        let ticket = self.ticket.unwrap_or(state.next_ticket);
        state.next_ticket = state.next_ticket.max(ticket + 1);
        state.waiting.insert(ticket, cx.waker().clone());
        drop(state);
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl<T> Drop for Change<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.state().waiting.remove(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft_rt::{WatchReceiver, WatchSender, watch::Watch as _};

    #[test]
    fn openraft_accepts_this_runtime() {
        openraft_rt::testing::Suite::<Runtime>::test_all();
    }

    #[test]
    fn the_first_to_wait_is_the_first_to_wake() {
        Runtime::new(1).block_on(async {
            let (sender, receiver) = Watch::channel(0);
            let woken = Arc::new(Mutex::new(Vec::new()));
            let mut waiting = Vec::new();
            for number in 0..32 {
                let (mut receiver, woken) = (receiver.clone(), woken.clone());
                waiting.push(Runtime::spawn(async move {
                    receiver.changed().await.unwrap();
                    woken.lock().unwrap().push(number);
                }));
                tokio::task::yield_now().await;
            }
            sender.send(1).unwrap();
            for task in waiting {
                task.await.unwrap();
            }
            assert_eq!(*woken.lock().unwrap(), (0..32).collect::<Vec<_>>());
        });
    }
}

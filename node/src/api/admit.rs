//! How much work an api node takes at once. More is refused before anything is done for it, with a word on when to come
//! again: those who wait for long have left when their turn comes, and what was done for them is lost.
//!
//! Waiting helps over a burst, and after it the queue is empty again. One that is never empty only makes everybody wait: as many
//! are answered with a short one, and sooner.

use beam_wire::env::Env;
use beam_wire::{CallError, Code};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How much an api node takes.
#[derive(Clone, Debug)]
pub struct AdmitOptions {
    /// Queries and updates that are evaluated at once, and queries whose answers are being sent. Each may hold as much
    /// memory as its limits say.
    pub running_max: usize,
    /// Those that wait for their turn. More are refused at once.
    pub waiting_max: usize,
    /// How long they wait. Where that will not do, as far as can be told, they are refused at once.
    pub wait_max: Duration,
    /// Transactions and updates that were taken and are not answered yet. Each holds what it writes, up to a megabyte.
    pub writes_max: usize,
    /// Reads and updates that wait until it is known which version they read, most of them for the log. They have
    /// looked at nothing yet, so each holds little but its text; and they hold no place of those that run.
    pub versions_max: usize,
}

impl Default for AdmitOptions {
    fn default() -> Self {
        // Two seconds: people have not left yet. Writes and versions: a round trip of 100 ms at 10,000 a second.
        let wait_max = Duration::from_secs(2);
        Self { running_max: 16, waiting_max: 256, wait_max, writes_max: 1024, versions_max: 1024 }
    }
}

/// The door of an api node.
pub struct Admission {
    env: Env,
    options: AdmitOptions,
    running: Semaphore,
    waiting: AtomicU32,
    writes: Semaphore,
    versions: Semaphore,
    /// How long a query runs, lately, in the mean.
    usual_us: AtomicU64,
    opened: Instant,
    /// When somebody got in without waiting, last: so long after `opened`.
    free_at_us: AtomicU64,
    refused: AtomicU64,
}

/// A query or update that may run. Its end makes room for another.
pub struct Admitted<'a> {
    admission: &'a Admission,
    /// When it began to run; none when it has run, and only its answer is held.
    since: Option<Instant>,
    _permit: SemaphorePermit<'a>,
}

/// Somebody waits for as long as this is there.
struct Waiting<'a>(&'a AtomicU32);

impl Admission {
    /// Nobody is in yet.
    pub fn new(env: &Env, options: AdmitOptions) -> Admission {
        Admission {
            env: env.clone(),
            running: Semaphore::new(options.running_max),
            waiting: AtomicU32::new(0),
            writes: Semaphore::new(options.writes_max),
            versions: Semaphore::new(options.versions_max),
            usual_us: AtomicU64::new(0),
            opened: env.now(),
            free_at_us: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            options,
        }
    }

    /// Refuses a query or update that would get no turn now, before anything is done for it.
    pub fn door(&self, deadline: Instant) -> Result<(), CallError> {
        match self.running.available_permits() {
            0 => self.may_wait(self.waiting(), self.patience(deadline)),
            _ => Ok(()),
        }
    }

    /// Waits for the turn of a query or update, where that makes sense. Whoever has a turn should wait for nothing but
    /// what it looks up.
    pub async fn query(&self, deadline: Instant) -> Result<Admitted<'_>, CallError> {
        let admitted = |permit| Admitted { admission: self, since: Some(self.env.now()), _permit: permit };
        if let Ok(permit) = self.running.try_acquire() {
            self.free_at_us.store(self.since_opened().as_micros() as u64, Ordering::Relaxed);
            return Ok(admitted(permit));
        }
        let patience = self.patience(deadline);
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        self.may_wait(waiting, patience)?;
        match self.env.timeout(patience, self.running.acquire()).await {
            Ok(permit) => Ok(admitted(permit.expect("the semaphore is never closed"))),
            Err(_) => Err(self.refuse(HINT_MIN, "none of them ended in time")),
        }
    }

    fn patience(&self, deadline: Instant) -> Duration {
        self.options.wait_max.min(deadline.saturating_duration_since(self.env.now()))
    }

    fn may_wait(&self, waiting: u32, patience: Duration) -> Result<(), CallError> {
        let usual = Duration::from_micros(self.usual_us.load(Ordering::Relaxed));
        let full_for =
            self.since_opened().saturating_sub(Duration::from_micros(self.free_at_us.load(Ordering::Relaxed)));
        may_wait(&self.options, waiting as usize, usual, patience, full_for)
            .map_err(|after| self.refuse(after, &format!("{waiting} more wait")))
    }

    fn since_opened(&self) -> Duration {
        self.env.now() - self.opened
    }

    /// Takes a transaction, until what is returned is dropped.
    pub fn write(&self) -> Result<SemaphorePermit<'_>, CallError> {
        self.writes.try_acquire().map_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!(
                "{} transactions wait for the log here: have fewer in flight, or go to another node",
                self.options.writes_max
            );
            CallError::later(Code::Overloaded, millis(HINT_MIN), message)
        })
    }

    /// Lets a read wait for its version, until what is returned is dropped.
    pub fn version(&self) -> Result<SemaphorePermit<'_>, CallError> {
        self.versions.try_acquire().map_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!(
                "{} calls wait here for the log or for views to say which version they read: read a recent one, or come \
                 again later",
                self.options.versions_max
            );
            CallError::later(Code::Overloaded, millis(HINT_MIN), message)
        })
    }

    /// Queries and updates that are evaluated now.
    pub fn running(&self) -> u32 {
        (self.options.running_max - self.running.available_permits()) as u32
    }

    /// Those that wait for their turn.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Calls that were refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn refuse(&self, after: Duration, why: &str) -> CallError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let running = self.options.running_max;
        let message = format!("{running} queries are running here, and {why}: come again later, or go to another node");
        CallError::later(Code::Overloaded, millis(after), message)
    }

    /// A query has run for so long.
    fn ran(&self, took: Duration) {
        // Two that end at once may count as one.
        let usual = self.usual_us.load(Ordering::Relaxed);
        let took = took.as_micros() as u64;
        self.usual_us.store(if usual == 0 { took } else { (usual * 15 + took) / 16 }, Ordering::Relaxed);
    }
}

impl Admitted<'_> {
    /// It was evaluated. The place is held until the answer, which may be large, is sent; how long its reader takes says
    /// nothing of how long others will run.
    pub fn evaluated(&mut self) {
        if let Some(since) = self.since.take() {
            self.admission.ran(self.admission.env.now() - since);
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.evaluated();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whoever is refused comes back no sooner than this, and no later than that.
const HINT_MIN: Duration = Duration::from_millis(100);
const HINT_MAX: Duration = Duration::from_secs(5);

/// When nobody has got in without waiting for so long, it is no burst any more.
const BURST: Duration = Duration::from_millis(500);
/// How long whoever comes then may have to wait, unless fewer wait than run: enough that what runs never waits for more.
const WAIT_FULL: Duration = Duration::from_millis(50);

/// Whether one more may wait while `waiting` do and each runs for `usual`, and when nobody has got in at once for `full_for`; else,
/// when it may come again.
fn may_wait(
    options: &AdmitOptions,
    waiting: usize,
    usual: Duration,
    patience: Duration,
    full_for: Duration,
) -> Result<(), Duration> {
    let turn = usual.mul_f64((waiting + 1) as f64 / options.running_max as f64);
    let helps = full_for <= BURST || turn <= WAIT_FULL || waiting < options.running_max;
    if waiting < options.waiting_max && turn <= patience && helps {
        return Ok(());
    }
    Err(turn.clamp(HINT_MIN, HINT_MAX))
}

fn millis(duration: Duration) -> u32 {
    duration.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::env::sim::SimWorld;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn who_would_wait_too_long_is_told_at_once_when_to_come_again() {
        let options = AdmitOptions { running_max: 4, waiting_max: 10, ..AdmitOptions::default() };
        // (waiting, usual, patience), and what is said.
        let cases = [
            ((0, ms(0), ms(2000)), Ok(())),
            ((9, ms(100), ms(2000)), Ok(())),
            ((10, ms(100), ms(2000)), Err(ms(275))),
            ((7, ms(100), ms(200)), Ok(())),
            ((8, ms(100), ms(200)), Err(ms(225))),
            ((10, ms(1), ms(2000)), Err(HINT_MIN)),
            ((3, ms(60_000), ms(2000)), Err(HINT_MAX)),
        ];
        for ((waiting, usual, patience), expected) in cases {
            let said = may_wait(&options, waiting, usual, patience, ms(0));
            assert_eq!(said, expected, "{waiting} wait for {usual:?} each");
        }
    }

    #[test]
    fn after_a_burst_few_wait() {
        let options = AdmitOptions { running_max: 4, waiting_max: 100, ..AdmitOptions::default() };
        // (waiting, usual, full for), and what is said.
        let cases = [
            ((99, ms(10), ms(500)), Ok(())),
            ((99, ms(10), ms(501)), Err(ms(250))),
            ((19, ms(10), ms(501)), Ok(())),
            ((20, ms(10), ms(501)), Err(HINT_MIN)),
            ((3, ms(400), ms(501)), Ok(())),
            ((4, ms(400), ms(501)), Err(ms(500))),
        ];
        for ((waiting, usual, full_for), expected) in cases {
            let said = may_wait(&options, waiting, usual, ms(2000), full_for);
            assert_eq!(said, expected, "{waiting} wait for {usual:?} each, full for {full_for:?}");
        }
    }

    /// Two may run and two may wait. A place is given back when it is dropped, goes to whoever waits longest, and nobody
    /// waits for longer than is said.
    #[test]
    fn places_are_given_back_and_waiting_ends() {
        SimWorld::run(1, |world| async move {
            let env = world.env("api");
            let options =
                AdmitOptions { running_max: 2, waiting_max: 2, wait_max: ms(1000), ..AdmitOptions::default() };
            let admission = Admission::new(&env, options);
            let (started, far) = (env.now(), env.now() + ms(60_000));
            let at = || (env.now() - started).as_millis() as u64;
            let counts = || (admission.running(), admission.waiting(), admission.refused());

            let first = admission.query(far).await.unwrap();
            let second = admission.query(far).await.unwrap();
            assert!(counts() == (2, 0, 0) && admission.door(far).is_ok(), "one may still wait");
            let leaving = async {
                env.sleep(ms(300)).await;
                drop(first);
            };
            let third = async { (admission.query(far).await.is_ok(), at()) };
            let fourth = async {
                env.sleep(ms(1)).await;
                (admission.query(env.now() + ms(600)).await.map(drop).map_err(|e| e.code), at())
            };
            let fifth = async {
                env.sleep(ms(2)).await;
                assert_eq!(counts(), (2, 2, 0));
                let refused = admission.query(far).await.map(drop).unwrap_err();
                assert_eq!((refused.code, refused.is_retryable(), at()), (Code::Overloaded, true, 2));
                assert_eq!(admission.door(far).unwrap_err().code, Code::Overloaded);
            };
            let ((), third, fourth, ()) = futures::join!(leaving, third, fourth, fifth);
            assert_eq!(third, (true, 300), "it has the place that was given back");
            assert_eq!(fourth, (Ok(()), 300), "the third gave it back at once");
            assert_eq!(counts(), (1, 0, 2));

            // Nobody leaves: whoever waits is told so when its patience ends, its own or ours.
            let _again = admission.query(far).await.unwrap();
            let (began, deadline) = (at(), env.now() + ms(5));
            assert_eq!(admission.query(deadline).await.map(drop).unwrap_err().code, Code::Overloaded);
            assert_eq!((at(), counts()), (began, (2, 0, 3)), "each runs for too long to wait 5 ms");
            assert_eq!(admission.query(far).await.map(drop).unwrap_err().code, Code::Overloaded);
            assert_eq!((at(), counts()), (began + 1000, (2, 0, 4)));
            drop(second);
            assert_eq!(counts(), (1, 0, 4));
        });
    }

    /// How long an answer is on its way says nothing of how long others must wait; its place is held until it is gone.
    #[test]
    fn only_evaluating_counts_as_running_long() {
        SimWorld::run(2, |world| async move {
            let env = world.env("api");
            let admission = Admission::new(&env, AdmitOptions { running_max: 1, ..AdmitOptions::default() });
            let far = env.now() + ms(600_000);
            let mut answering = admission.query(far).await.unwrap();
            env.sleep(ms(10)).await;
            answering.evaluated();
            env.sleep(ms(60_000)).await;
            assert_eq!(admission.running(), 1);
            drop(answering);
            assert_eq!((admission.running(), admission.usual_us.load(Ordering::Relaxed)), (0, 10_000));
        });
    }

    #[test]
    fn those_who_wait_for_a_version_are_bounded_and_take_no_place() {
        SimWorld::run(3, |world| async move {
            let env = world.env("api");
            let admission = Admission::new(&env, AdmitOptions { versions_max: 2, ..AdmitOptions::default() });
            let waiting = [admission.version().unwrap(), admission.version().unwrap()];
            assert_eq!(admission.version().map(drop).unwrap_err().code, Code::Overloaded);
            assert!(admission.query(env.now() + ms(1)).await.is_ok() && admission.refused() == 1);
            drop(waiting);
            assert!(admission.version().is_ok());
        });
    }
}

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
    /// Queries and updates that are evaluated at once. Each may hold as much memory as its limits say.
    pub running_max: usize,
    /// Those that wait for their turn. More are refused at once.
    pub waiting_max: usize,
    /// How long they wait. Where that will not do, as far as can be told, they are refused at once.
    pub wait_max: Duration,
    /// Transactions that were taken and are not answered yet. Each holds what it writes, up to a megabyte.
    pub writes_max: usize,
}

impl Default for AdmitOptions {
    fn default() -> Self {
        // Two seconds: people have not left yet. Writes: a round trip of 100 ms at 10,000 transactions a second.
        Self { running_max: 16, waiting_max: 256, wait_max: Duration::from_secs(2), writes_max: 1024 }
    }
}

/// The door of an api node.
pub struct Admission {
    env: Env,
    options: AdmitOptions,
    running: Semaphore,
    waiting: AtomicU32,
    writes: Semaphore,
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
    since: Instant,
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
            usual_us: AtomicU64::new(0),
            opened: env.now(),
            free_at_us: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            options,
        }
    }

    /// Waits for the turn of a query or update, where that makes sense.
    pub async fn query(&self, deadline: Instant) -> Result<Admitted<'_>, CallError> {
        let admitted = |permit| Admitted { admission: self, since: self.env.now(), _permit: permit };
        let now = self.env.now();
        if let Ok(permit) = self.running.try_acquire() {
            self.free_at_us.store((now - self.opened).as_micros() as u64, Ordering::Relaxed);
            return Ok(admitted(permit));
        }
        let full_for =
            (now - self.opened).saturating_sub(Duration::from_micros(self.free_at_us.load(Ordering::Relaxed)));
        let patience = self.options.wait_max.min(deadline.saturating_duration_since(now));
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let usual = Duration::from_micros(self.usual_us.load(Ordering::Relaxed));
        if let Err(after) = may_wait(&self.options, waiting as usize, usual, patience, full_for) {
            return Err(self.refuse(after, &format!("{waiting} more wait")));
        }
        match self.env.timeout(patience, self.running.acquire()).await {
            Ok(permit) => Ok(admitted(permit.expect("the semaphore is never closed"))),
            Err(_) => Err(self.refuse(HINT_MIN, "none of them ended in time")),
        }
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

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.ran(self.admission.env.now() - self.since);
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

    #[test]
    fn who_would_wait_too_long_is_told_at_once_when_to_come_again() {
        let ms = Duration::from_millis;
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
        let ms = Duration::from_millis;
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
}

//! Writers and readers that never stop while datacenters come and go, and the ledger of what they
//! were promised.

use beam_client::Client;
use beam_wire::env::{Env, Task};
use beam_wire::{Name, Position};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Writers in each datacenter. Each waits for its acknowledgement before it writes again.
const WRITERS: usize = 3;
/// Readers in each datacenter.
const READERS: usize = 2;
/// Between two calls of one writer or reader: the traffic is to be steady, not to saturate.
const PAUSE: Duration = Duration::from_millis(20);

/// The predicate of every write of the traffic.
pub const WRITTEN_IN: &str = "urn:beam:demo:written-in";

/// The subject of a write.
pub fn subject(number: u64) -> String {
    format!("urn:beam:demo:write:{number}")
}

/// What was promised, and what was seen.
#[derive(Default)]
pub struct Ledger {
    next: AtomicU64,
    acknowledged: Mutex<Acknowledged>,
    pub writes_failed: AtomicU64,
    pub queries_ok: AtomicU64,
    pub queries_failed: AtomicU64,
    /// Acknowledged writes that a later read at `Latest` did not find.
    pub not_found: AtomicU64,
    last_error: Mutex<Option<String>>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Acknowledged {
    numbers: Vec<u64>,
    last: Option<Instant>,
    gap: Duration,
}

impl Ledger {
    /// The numbers of all acknowledged writes.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.lock().numbers.clone()
    }

    /// How many writes were acknowledged.
    pub fn writes(&self) -> u64 {
        self.lock().numbers.len() as u64
    }

    /// The longest time between two acknowledgements, the one that runs included.
    pub fn gap(&self, now: Instant) -> Duration {
        let acknowledged = self.lock();
        acknowledged.gap.max(acknowledged.last.map_or(Duration::ZERO, |last| now - last))
    }

    /// The newest error of a call, taken out.
    pub fn take_error(&self) -> Option<String> {
        self.last_error.lock().expect("no one panics with the ledger").take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().expect("no one panics with the ledger")
    }

    fn acknowledge(&self, number: u64, now: Instant) {
        let mut acknowledged = self.lock();
        if let Some(last) = acknowledged.last {
            acknowledged.gap = acknowledged.gap.max(now - last);
        }
        acknowledged.last = Some(now);
        acknowledged.numbers.push(number);
    }

    fn fail(&self, counter: &AtomicU64, error: impl std::fmt::Display) {
        counter.fetch_add(1, Relaxed);
        *self.last_error.lock().expect("no one panics with the ledger") = Some(error.to_string());
    }
}

/// Writers and readers at work.
pub struct Traffic {
    pub ledger: Arc<Ledger>,
    tasks: Vec<Task>,
}

impl Traffic {
    /// Starts writers and readers with each client, which is named by its datacenter. Readers ask
    /// for acknowledged writes, and now and then one of `queries`.
    pub fn start(env: &Env, clients: &BTreeMap<Name, Client>, queries: Vec<String>) -> Traffic {
        let ledger = Arc::new(Ledger::default());
        let mut tasks = vec![];
        for (datacenter, client) in clients {
            for _ in 0..WRITERS {
                let writer = write(env.clone(), ledger.clone(), client.clone(), datacenter.clone());
                tasks.push(env.tasks().serve("demo.write", writer));
            }
            for _ in 0..READERS {
                let reader = read(env.clone(), ledger.clone(), client.clone(), queries.clone());
                tasks.push(env.tasks().serve("demo.read", reader));
            }
        }
        Traffic { ledger, tasks }
    }

    /// Lets every call end, then returns what was promised.
    pub async fn stop(self, env: &Env) -> Arc<Ledger> {
        self.ledger.stop.store(true, Relaxed);
        while !self.tasks.iter().all(Task::is_finished) {
            env.sleep(PAUSE).await;
        }
        self.ledger
    }
}

async fn write(env: Env, ledger: Arc<Ledger>, client: Client, datacenter: Name) {
    while !ledger.stop.load(Relaxed) {
        let number = ledger.next.fetch_add(1, Relaxed);
        let update = format!("INSERT DATA {{ <{}> <{WRITTEN_IN}> \"{datacenter}\" }}", subject(number));
        match client.update(&update).await {
            Ok(_) => ledger.acknowledge(number, env.now()),
            Err(error) => ledger.fail(&ledger.writes_failed, format!("a write from {datacenter}: {error}")),
        }
        env.sleep(PAUSE).await;
    }
}

async fn read(env: Env, ledger: Arc<Ledger>, client: Client, queries: Vec<String>) {
    let mut turn = 0;
    while !ledger.stop.load(Relaxed) {
        turn += 1;
        let known = ledger.lock().numbers.last().copied();
        let (sparql, position, must_find) = match known {
            Some(number) if turn % 4 != 0 || queries.is_empty() => {
                let sparql = format!("SELECT ?in WHERE {{ <{}> <{WRITTEN_IN}> ?in }}", subject(number));
                (sparql, Position::Latest, true)
            }
            _ if queries.is_empty() => ("ASK {}".to_owned(), Position::Recent, false),
            _ => (queries[env.random_below(queries.len())].clone(), Position::Recent, false),
        };
        match client.query_all(&sparql, position).await {
            Ok(answer) => {
                ledger.queries_ok.fetch_add(1, Relaxed);
                if must_find && answer.rows.is_empty() {
                    ledger.not_found.fetch_add(1, Relaxed);
                }
            }
            Err(error) => ledger.fail(&ledger.queries_failed, format!("a query: {error}")),
        }
        env.sleep(PAUSE).await;
    }
}

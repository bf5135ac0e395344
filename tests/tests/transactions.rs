//! Transactions of programs while machines die, networks part and clients go away in the middle: bank transfers, names
//! that only one may have, two who must not both leave, lists that are appended to. Each kind has a judge of its own,
//! and the log judges all: every answer must be what a simple model of it says.

use anyhow::{Context, Result, ensure};
use beam_client::{Builder, Client, ClientError, Done, Position, Transaction};
use beam_node::log::disk_sim::Loss;
use beam_tests::appends::{self, Append, Ended};
use beam_tests::model::{self, Answer, Asked, Model};
use beam_tests::{SimCluster, seeds, tell};
use beam_wire::env::sim::SimWorld;
use beam_wire::env::{Env, Task};
use beam_wire::{Code, Term, TransactionId, Version};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const ACCOUNTS: usize = 5;
const MONEY: i64 = 100;
const NAMES: usize = 4;
const SHIFTS: usize = 2;
const LISTS: usize = 3;

fn ms(ms: usize) -> Duration {
    Duration::from_millis(ms as u64)
}

fn iri(text: impl AsRef<str>) -> Term {
    Term::Iri(format!("urn:{}", text.as_ref()))
}

fn number(n: i64) -> Term {
    Term::Literal { lexical: n.to_string(), datatype: "http://www.w3.org/2001/XMLSchema#integer".to_owned() }
}

/// What all have seen and done.
struct Story {
    env: Env,
    began: tokio::time::Instant,
    stop: AtomicBool,
    answers: Mutex<Vec<Answer>>,
    appends: Mutex<Vec<Append>>,
    /// Transactions that were said to be committed at a version, or to have changed nothing.
    told: Mutex<Vec<(TransactionId, Option<Version>)>>,
    wrong: Mutex<Vec<String>>,
    committed: AtomicU64,
    again: AtomicU64,
    before: AtomicU64,
    unknown: AtomicU64,
}

/// Why an attempt ends.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("nothing to do: {0}")]
    Nothing(&'static str),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Story {
    fn new(env: &Env) -> Arc<Story> {
        Arc::new(Story {
            env: env.clone(),
            began: env.now(),
            stop: AtomicBool::new(false),
            answers: Mutex::default(),
            appends: Mutex::default(),
            told: Mutex::default(),
            wrong: Mutex::default(),
            committed: AtomicU64::new(0),
            again: AtomicU64::new(0),
            before: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        })
    }

    fn now(&self) -> Duration {
        self.env.now() - self.began
    }

    fn wrong(&self, what: impl Into<String>) {
        self.wrong.lock().unwrap().push(what.into());
    }

    /// Reads in a transaction, and writes down what was answered.
    async fn read(&self, tx: &Transaction, asked: Asked) -> Result<Vec<Vec<Term>>, ClientError> {
        let found = tx.query(&asked.sparql()).await?;
        let rows = model::rows(&found.rows);
        self.answers.lock().unwrap().push(Answer { version: found.version, asked, rows });
        Ok(found.rows.into_iter().map(|row| row.into_iter().flatten().collect()).collect())
    }

    /// Makes a transaction until it is known what became of it. Sometimes whoever makes it dies on the way, and
    /// somebody else goes on under the same id. True if it is committed; one that `writes` nothing leaves no entry.
    async fn once<F, Fut>(&self, client: &Client, writes: bool, attempt: F) -> bool
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<(), Stopped>>,
    {
        let id = loop {
            match client.new_id().await {
                Ok((_, id)) => break id,
                Err(_) => self.env.sleep(ms(100)).await,
            }
        };
        let mut cut_short = false;
        loop {
            let mut patience = PATIENCE;
            if self.env.random_below(3) == 0 {
                patience = ms(self.env.random_below(600));
            }
            let made = self.env.timeout(patience, client.transaction_as(id, &attempt)).await;
            let done = match made {
                Ok(Ok(Done::Now(done))) => {
                    self.again.fetch_add(u64::from(done.attempts - 1), Relaxed);
                    Some(done.version)
                }
                Ok(Ok(Done::Before(version))) => {
                    self.before.fetch_add(1, Relaxed);
                    Some(version)
                }
                // A copy of an earlier round may still be on its way.
                Ok(Err(Stopped::Nothing(_))) if cut_short => return false,
                Ok(Err(Stopped::Nothing(_))) => None,
                Ok(Err(Stopped::Client(error))) if !self.bearable(&error) => return false,
                Ok(Err(Stopped::Client(_))) | Err(_) => {
                    cut_short = true;
                    self.env.sleep(ms(50)).await;
                    continue;
                }
            };
            self.told.lock().unwrap().push((id, done.filter(|_| writes)));
            self.committed.fetch_add(u64::from(done.is_some()), Relaxed);
            return done.is_some();
        }
    }

    /// Whether it may be tried again; all else is a fault.
    fn bearable(&self, error: &ClientError) -> bool {
        let bearable = error.is_retryable() || matches!(error, ClientError::OutcomeUnknown { .. });
        if !bearable {
            self.wrong(format!("{error}"));
        }
        bearable
    }
}

fn lexical(term: &Term) -> String {
    match term {
        Term::Literal { lexical, .. } => lexical.clone(),
        Term::Iri(text) => text.clone(),
        other => panic!("{other:?} was not written"),
    }
}

/// Moves money between two accounts.
async fn transfer(story: Arc<Story>, client: Client) {
    while !story.stop.load(Relaxed) {
        let from = story.env.random_below(ACCOUNTS);
        let to = (from + 1 + story.env.random_below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = 1 + story.env.random_below(30) as i64;
        let attempt = |tx: Transaction| {
            let story = &story;
            async move {
                let mut balances = Vec::new();
                for account in [from, to] {
                    let asked = Asked::Objects(iri(format!("account:{account}")), iri("balance"));
                    let rows = story.read(&tx, asked).await?;
                    let [row] = &rows[..] else {
                        story.wrong(format!("account {account} has balances {rows:?}"));
                        return Err(Stopped::Nothing("a wrong account"));
                    };
                    balances.push(lexical(&row[0]).parse::<i64>().unwrap());
                }
                if balances[0] < amount {
                    return Err(Stopped::Nothing("not enough money"));
                }
                let new = [balances[0] - amount, balances[1] + amount];
                for ((account, old), new) in [from, to].into_iter().zip(balances).zip(new) {
                    let account = iri(format!("account:{account}"));
                    tx.delete([account.clone(), iri("balance"), number(old)], None)?;
                    tx.insert([account, iri("balance"), number(new)], None)?;
                }
                Ok(())
            }
        };
        story.once(&client, true, attempt).await;
    }
}

/// Takes a name that nobody has, or gives one back.
async fn claim(story: Arc<Story>, client: Client, who: usize) {
    for turn in 0.. {
        if story.stop.load(Relaxed) {
            return;
        }
        let name = Term::string(format!("name {}", story.env.random_below(NAMES)));
        let user = iri(format!("user:{who}:{turn}"));
        let attempt = |tx: Transaction| {
            let (story, name, user) = (&story, name.clone(), user.clone());
            async move {
                let holders = story.read(&tx, Asked::Subjects(iri("name"), name.clone())).await?;
                if holders.is_empty() {
                    tx.insert([user, iri("name"), name.clone()], None)?;
                }
                for holder in holders {
                    tx.delete([holder[0].clone(), iri("name"), name.clone()], None)?;
                }
                Ok(())
            }
        };
        story.once(&client, true, attempt).await;
        story.env.sleep(ms(story.env.random_below(50))).await;
    }
}

/// One of two leaves a shift if the other one stays, or comes back.
async fn leave(story: Arc<Story>, client: Client) {
    while !story.stop.load(Relaxed) {
        let (shift, me) = (story.env.random_below(SHIFTS), story.env.random_below(2));
        let doctor = |n: usize| iri(format!("doctor:{shift}:{n}"));
        let attempt = |tx: Transaction| {
            let (story, mine, others) = (&story, doctor(me), doctor(1 - me));
            async move {
                let on_call = |doctor: Term| Asked::Objects(doctor, iri("on-call"));
                let here = [mine.clone(), iri("on-call"), number(shift as i64)];
                if story.read(&tx, on_call(mine)).await?.is_empty() {
                    tx.insert(here, None)?;
                } else if !story.read(&tx, on_call(others)).await?.is_empty() {
                    tx.delete(here, None)?;
                } else {
                    return Err(Stopped::Nothing("the other one has left"));
                }
                Ok(())
            }
        };
        story.once(&client, true, attempt).await;
    }
}

/// The values of a list, in their order. Each element says at which place it stands.
fn in_order(story: &Story, list: usize, rows: &[Vec<Term>]) -> Vec<String> {
    let mut elements: Vec<(usize, String)> = Vec::new();
    for row in rows {
        let text = lexical(&row[0]);
        let (place, value) = text.split_once(' ').expect("elements have a place");
        elements.push((place.parse().unwrap(), value.to_owned()));
    }
    elements.sort_unstable();
    if elements.iter().enumerate().any(|(n, (place, _))| n != *place) {
        story.wrong(format!("list {list} has places {elements:?}"));
    }
    elements.into_iter().map(|(_, value)| value).collect()
}

/// Reads one or two lists, and appends to some of them.
async fn append(story: Arc<Story>, client: Client, who: usize) {
    for turn in 0.. {
        if story.stop.load(Relaxed) {
            return;
        }
        let first = story.env.random_below(LISTS);
        let lists = [first, (first + 1) % LISTS];
        let lists = &lists[..1 + story.env.random_below(2)];
        let appends: Vec<bool> = lists.iter().map(|_| story.env.random_below(4) > 0).collect();
        let value = format!("{who}-{turn}");
        let read = Mutex::new(BTreeMap::new());
        let attempt = |tx: Transaction| {
            let (story, read, value, appends) = (&story, &read, &value, &appends);
            async move {
                read.lock().unwrap().clear();
                for (list, appends) in lists.iter().zip(appends) {
                    let subject = iri(format!("list:{list}"));
                    let rows = story.read(&tx, Asked::Objects(subject.clone(), iri("holds"))).await?;
                    let values = in_order(story, *list, &rows);
                    if *appends {
                        let element = Term::string(format!("{} {value}", values.len()));
                        tx.insert([subject, iri("holds"), element], None)?;
                    }
                    read.lock().unwrap().insert(*list as u64, values);
                }
                Ok(())
            }
        };
        let began = story.now();
        let (ended, known) = if turn % 3 > 0 {
            let before = story.before.load(Relaxed);
            let done = story.once(&client, appends.contains(&true), attempt).await;
            let ended = if done { Ended::Committed(story.now()) } else { Ended::GivenUp };
            // What it read is not known when another copy of it was committed.
            (ended, story.before.load(Relaxed) == before)
        } else {
            match client.transaction(attempt).await {
                Ok(done) => {
                    story.again.fetch_add(u64::from(done.attempts - 1), Relaxed);
                    story.committed.fetch_add(1, Relaxed);
                    (Ended::Committed(story.now()), true)
                }
                Err(Stopped::Client(ClientError::OutcomeUnknown { .. })) => {
                    story.unknown.fetch_add(1, Relaxed);
                    (Ended::Unknown, true)
                }
                Err(Stopped::Client(error)) => {
                    story.bearable(&error);
                    (Ended::GivenUp, false)
                }
                Err(Stopped::Nothing(_)) => (Ended::GivenUp, false),
            }
        };
        let read = if known { read.into_inner().unwrap() } else { BTreeMap::new() };
        let appended = lists.iter().zip(&appends).filter(|(_, appends)| **appends);
        let appended = appended.map(|(list, _)| (*list as u64, value.clone())).collect();
        story.appends.lock().unwrap().push(Append { began, ended, read, appended });
    }
}

/// Reads all of a kind at once, at any position, and holds it against what must always be true.
async fn watch(story: Arc<Story>, client: Client) {
    let session = client.session();
    while !story.stop.load(Relaxed) {
        let kind = story.env.random_below(3);
        let asked = Asked::Pairs(iri(["balance", "name", "on-call"][kind]));
        let found = match story.env.random_below(3) {
            0 => client.query_all(&asked.sparql(), Position::Latest).await,
            1 => client.query_all(&asked.sparql(), Position::Recent).await,
            _ => session.query_all(&asked.sparql()).await,
        };
        match found {
            Ok(found) => {
                let rows = model::rows(&found.rows);
                let terms: Vec<Vec<String>> =
                    found.rows.iter().map(|row| row.iter().flatten().map(lexical).collect()).collect();
                if let Err(why) = holds(kind, &terms) {
                    story.wrong(format!("at {}: {why}", found.version));
                }
                story.answers.lock().unwrap().push(Answer { version: found.version, asked, rows });
            }
            Err(error) => drop(story.bearable(&error)),
        }
        story.env.sleep(ms(story.env.random_below(100))).await;
    }
}

/// What is true of every version: the money stays the same, each name has one holder, and somebody is on call.
fn holds(kind: usize, rows: &[Vec<String>]) -> Result<()> {
    let count = |of: usize, value: &str| rows.iter().filter(|row| row[of] == value).count();
    match kind {
        0 => {
            let sum: i64 = rows.iter().map(|row| row[1].parse::<i64>().unwrap()).sum();
            ensure!(rows.len() == ACCOUNTS && sum == MONEY * ACCOUNTS as i64, "the money is {sum}: {rows:?}");
        }
        1 => ensure!(rows.iter().all(|row| count(1, &row[1]) == 1), "two have the same name: {rows:?}"),
        _ => {
            let shifts = (0..SHIFTS).all(|shift| count(1, &shift.to_string()) > 0);
            ensure!(shifts, "nobody is on call: {rows:?}");
        }
    }
    Ok(())
}

fn chaos(seed: u64) -> Result<()> {
    SimWorld::run(seed, |world| async move {
        let mut cluster = SimCluster::start(world, 0.001, |topology| topology.verdicts.slots_log2 = 16).await?;
        let env = cluster.env();
        let clients = cluster.clients_everywhere(PATIENCE).await?;
        let first = clients.values().next().context("a client")?;
        let begin = first.transaction(|tx| async move {
            for account in 0..ACCOUNTS {
                tx.insert([iri(format!("account:{account}")), iri("balance"), number(MONEY)], None)?;
            }
            for shift in 0..SHIFTS {
                for doctor in [0, 1] {
                    let doctor = iri(format!("doctor:{shift}:{doctor}"));
                    tx.insert([doctor, iri("on-call"), number(shift as i64)], None)?;
                }
            }
            Ok::<_, ClientError>(())
        });
        let begun = begin.await?.version;
        let story = Story::new(&env);
        let mut tasks: Vec<Task> = Vec::new();
        for (who, client) in clients.values().enumerate() {
            // Whoever reads Recent must not see a time before there was anything.
            while client.status().await?.recent.is_none_or(|recent| recent < begun) {
                env.sleep(ms(50)).await;
            }
            let spawn = |name, work: futures::future::BoxFuture<'static, ()>| env.tasks().serve(name, work);
            let within = client.within(Duration::from_secs(10));
            tasks.push(spawn("transfer", Box::pin(transfer(story.clone(), within.clone()))));
            tasks.push(spawn("claim", Box::pin(claim(story.clone(), within.clone(), who))));
            tasks.push(spawn("leave", Box::pin(leave(story.clone(), within.clone()))));
            tasks.push(spawn("append", Box::pin(append(story.clone(), within.clone(), who))));
            tasks.push(spawn("append", Box::pin(append(story.clone(), within.clone(), who + 100))));
            tasks.push(spawn("watch", Box::pin(watch(story.clone(), within))));
        }
        let end = env.now() + Duration::from_secs(20);
        while env.now() < end {
            cluster.trouble(Loss::Torn).await?;
        }
        story.stop.store(true, Relaxed);
        while !tasks.iter().all(Task::is_finished) {
            env.sleep(ms(100)).await;
        }
        judge(&mut cluster, &story, first).await
    })
}

/// The end: what became of everything.
async fn judge(cluster: &mut SimCluster, story: &Story, client: &Client) -> Result<()> {
    let mut last = BTreeMap::new();
    for list in 0..LISTS {
        let asked = Asked::Objects(iri(format!("list:{list}")), iri("holds"));
        let found = client.query_all(&asked.sparql(), Position::Latest).await?;
        let rows: Vec<Vec<Term>> = found.rows.iter().map(|row| row.iter().flatten().cloned().collect()).collect();
        last.insert(list as u64, in_order(story, list, &rows));
    }
    let wrong = std::mem::take(&mut *story.wrong.lock().unwrap());
    ensure!(wrong.is_empty(), "{} things are wrong, first {:?}", wrong.len(), &wrong[..wrong.len().min(3)]);
    let history = std::mem::take(&mut *story.appends.lock().unwrap());
    appends::check(&history, &last)?;
    let datacenter = cluster.topology.datacenters[0].clone();
    let log = model::read_log(&story.env, &cluster.log(&datacenter)?, PATIENCE).await?;
    let answers = std::mem::take(&mut *story.answers.lock().unwrap());
    let count = answers.len();
    let model = Model::check(&log, answers)?;
    for (id, told) in story.told.lock().unwrap().iter() {
        let (told, committed) = (told.map(|version| version.index), model.committed(id));
        ensure!(told == committed, "{id:?} was said to be committed at {told:?}, and was at {committed:?}");
    }
    let of = |number: &AtomicU64| number.load(Relaxed);
    println!(
        "{} transactions committed, {} conflicts met, {} had been committed by an earlier copy, {} unknown; {} appends \
         and {count} answers judged, {} entries",
        of(&story.committed),
        of(&story.again),
        of(&story.before),
        of(&story.unknown),
        history.len(),
        log.len()
    );
    ensure!(of(&story.committed) > 100, "only {} were committed", of(&story.committed));
    ensure!(of(&story.again) > 0, "none met a conflict");
    Ok(())
}

#[test]
fn transactions_are_strictly_serializable_and_happen_once_whoever_dies() {
    for seed in seeds(500, 1) {
        tell(move || chaos(seed).with_context(|| format!("seed {seed}")));
    }
}

/// Moves money between two accounts that nobody else touches; counts transactions and conflicts.
async fn alone(env: Env, client: Client, who: usize, end: tokio::time::Instant, counts: Arc<[AtomicU64; 2]>) {
    let accounts = [0, 1].map(|n| iri(format!("account:{who}:{n}")));
    let mut turn = 0;
    while env.now() < end {
        turn += 1;
        let attempt = |tx: Transaction| {
            let accounts = &accounts;
            async move {
                for account in accounts {
                    let found = tx.query(&Asked::Objects(account.clone(), iri("balance")).sparql()).await?;
                    for old in found.rows.into_iter().flatten().flatten() {
                        tx.delete([account.clone(), iri("balance"), old], None)?;
                    }
                    tx.insert([account.clone(), iri("balance"), number(turn)], None)?;
                }
                Ok::<_, ClientError>(())
            }
        };
        let attempts = client.transaction(attempt).await.expect("nothing stands in its way").attempts;
        counts[0].fetch_add(1, Relaxed);
        counts[1].fetch_add(u64::from(attempts - 1), Relaxed);
    }
}

/// Eighteen at once, over three datacenters and two partitions, read and write the same predicate of their own
/// subjects: none may have to try again because of another, but for slots of the write history that two share by
/// accident.
#[test]
fn disjoint_transactions_do_not_conflict() {
    tell(|| {
        SimWorld::run(9, |world| async move {
            let mut cluster = SimCluster::start(world, 0.0, |topology| topology.verdicts.slots_log2 = 20).await?;
            let env = cluster.env();
            let clients = cluster.clients(PATIENCE).await?;
            let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            let end = env.now() + Duration::from_secs(6);
            let mut tasks = Vec::new();
            for (place, client) in clients.values().enumerate() {
                for who in 0..6 {
                    let work = alone(env.clone(), client.clone(), place * 6 + who, end, counts.clone());
                    tasks.push(env.tasks().serve("alone", work));
                }
            }
            while !tasks.iter().all(Task::is_finished) {
                env.sleep(ms(100)).await;
            }
            let [transactions, conflicts] = [0, 1].map(|n| counts[n].load(Relaxed));
            println!("{transactions} disjoint transactions, {conflicts} conflicts");
            ensure!(transactions > 300, "only {transactions} were made");
            ensure!(conflicts * 200 <= transactions, "{conflicts} of {transactions} conflicted");
            Ok(())
        })
    });
}

/// W of the story of the id that is too old, small.
const WINDOW: u64 = 200;

#[test]
fn an_id_that_is_too_old_is_refused_and_not_made_again() {
    tell(|| SimWorld::run(31, too_old));
}

/// A program keeps the id of what it wrote, and comes again with it: soon after, and when ids as old as that are not known any
/// more. What it wrote was deleted meanwhile: made again, it would be there again.
async fn too_old(world: SimWorld) -> Result<()> {
    let mut cluster = SimCluster::start(world, 0.0, |topology| {
        topology.verdicts.slots_log2 = 12;
        topology.verdicts.window = WINDOW;
    })
    .await?;
    let clients = cluster.clients(PATIENCE).await?;
    let client = clients[&cluster.topology.datacenters[0]].clone();
    let (_, id) = client.new_id().await?;
    let kept = "INSERT DATA { <urn:kept> <urn:p> 1 }";
    let first = client.update_as(id, kept).await?.version;
    client.update("DELETE DATA { <urn:kept> <urn:p> 1 }").await?;
    let soon = client.update_as(id, kept).await?;
    ensure!((soon.version, soon.attempts) == (first, 0), "{soon:?} and not what was made at {first}");
    let there =
        async || anyhow::Ok(client.query_all("ASK { <urn:kept> <urn:p> 1 }", Position::Latest).await?.boolean());
    ensure!(there().await? == Some(false), "it was made twice");

    for n in 0..WINDOW {
        client.update(&format!("INSERT DATA {{ <urn:other> <urn:p> {n} }}")).await?;
    }
    let is_unknown = |error: &ClientError| matches!(error, ClientError::OutcomeUnknown { .. }) && !error.is_retryable();
    let error = client.update_as(id, kept).await.err().context("it was taken")?;
    ensure!(is_unknown(&error), "{error}");
    let error = client.committed(id).await.err().context("what became of it was told")?;
    ensure!(is_unknown(&error), "{error}");
    // So is who says straight away what to append.
    let mut facts = Builder::new();
    facts.insert([iri("kept"), iri("p"), number(1)], None)?;
    let transact = facts.build(first.epoch, id, id.born, Vec::new());
    let error = client.transact(transact, true).await.err().context("it was appended")?;
    ensure!(is_unknown(&error), "{error}");
    ensure!(there().await? == Some(false), "it was made again");

    // What became of entries as old as that is forgotten, so nobody can watch them any more; and is told so for good.
    let mut watch = client.watch(first);
    let error = loop {
        match watch.next().await {
            Ok(changed) => anyhow::bail!("told of {}", changed.version),
            Err(error) if error.is_retryable() => {}
            Err(error) => break error,
        }
    };
    ensure!(error.code() == Some(Code::TooOld), "{error}");
    Ok(())
}

//! Api nodes that do as they are told, in a world of virtual time: what a client does when they fail.

use beam_certs::{Authority, Credentials, days};
use beam_client::{Builder, Client, ClientError, ClientOptions, Everything, Position, Term};
use beam_wire::command::Command;
use beam_wire::env::sim::SimWorld;
use beam_wire::env::{Env, SrvAnswer, SrvTarget};
use beam_wire::message::Kind;
use beam_wire::message::api::{
    ApiCommitted, ApiQuery, ApiTransact, ApiUpdate, CommittedReply, Outcome, QueryReply, Shape, TransactReply,
};
use beam_wire::message::hello::Hello;
use beam_wire::quic::{Endpoint, EndpointOptions, Incoming, Peers, Service};
use beam_wire::{CallError, ClientRole, Code, Epoch, Identity, LogIndex, Name, Role, TransactionId, Version};
use futures::future::BoxFuture;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What an api node does with the next call.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Answers with so many rows, or with the outcome.
    Answers(usize),
    /// Answers after so many milliseconds.
    Late(u64),
    /// Says this.
    Fails(Code),
    /// Sends so many rows, then fails.
    Breaks(usize),
    /// Never answers.
    Hangs,
}
use Step::*;

const AT: Version = Version { epoch: Epoch(1), index: LogIndex(700) };

#[derive(Clone)]
struct Script {
    env: Env,
    node: Name,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    steps: BTreeMap<Name, VecDeque<Step>>,
    /// Who was asked, in order.
    asked: Vec<String>,
    ids: Vec<TransactionId>,
    /// What each asked id has come to.
    committed: Option<LogIndex>,
    positions: Vec<Position>,
}

impl Script {
    fn step(&self) -> Step {
        let mut shared = self.shared.lock().unwrap();
        shared.asked.push(self.node.to_string());
        shared.steps.get_mut(&self.node).and_then(VecDeque::pop_front).unwrap_or(Answers(1))
    }

    async fn query(self, call: Incoming) -> Result<(), CallError> {
        let mut call = call.open::<ApiQuery>()?;
        self.shared.lock().unwrap().positions.push(call.request.position);
        let step = self.late(self.step()).await;
        let shape = Shape::Solutions { variables: vec!["x".into()] };
        let head = QueryReply::Head { version: AT, shape };
        match step {
            Fails(code) => Err(fault(code)),
            Hangs | Late(_) => std::future::pending().await,
            Answers(rows) => {
                call.reply(&head).await?;
                for row in 0..rows {
                    call.reply(&QueryReply::Rows(vec![vec![Some(Term::string(row.to_string()))]])).await?;
                }
                call.reply(&QueryReply::Summary { facts_fetched: 3, requests: 2, hedges: 1 }).await
            }
            Breaks(rows) => {
                call.reply(&head).await?;
                for row in 0..rows {
                    call.reply(&QueryReply::Rows(vec![vec![Some(Term::string(row.to_string()))]])).await?;
                }
                // The rows arrive before the error does.
                self.env.sleep(Duration::from_millis(100)).await;
                Err(fault(Code::Internal))
            }
        }
    }

    async fn update(self, call: Incoming) -> Result<(), CallError> {
        let mut call = call.open::<ApiUpdate>()?;
        self.shared.lock().unwrap().ids.push(call.request.id);
        match self.late(self.step()).await {
            Fails(code) => Err(fault(code)),
            Answers(_) => call.reply(&Outcome { version: AT, attempts: 1 }).await,
            Hangs | Late(_) | Breaks(_) => std::future::pending().await,
        }
    }

    async fn transact(self, call: Incoming) -> Result<(), CallError> {
        let mut call = call.open::<ApiTransact>()?;
        let Command::Transact(transact) = Command::decode(&call.request.command).unwrap() else {
            panic!("no transaction")
        };
        self.shared.lock().unwrap().ids.push(transact.id);
        match self.late(self.step()).await {
            Fails(code) => Err(fault(code)),
            Answers(_) => call.reply(&TransactReply { version: AT, verdict: None }).await,
            Hangs | Late(_) | Breaks(_) => std::future::pending().await,
        }
    }

    async fn committed(self, call: Incoming) -> Result<(), CallError> {
        let mut call = call.open::<ApiCommitted>()?;
        let committed = self.shared.lock().unwrap().committed;
        match self.late(self.step()).await {
            Fails(code) => Err(fault(code)),
            Answers(_) => call.reply(&CommittedReply { at: AT, committed }).await,
            Hangs | Late(_) | Breaks(_) => std::future::pending().await,
        }
    }

    /// What is left of a step when its time has come.
    async fn late(&self, step: Step) -> Step {
        let Late(ms) = step else { return step };
        self.env.sleep(Duration::from_millis(ms)).await;
        Answers(1)
    }
}

fn fault(code: Code) -> CallError {
    let message = format!("{code:?}");
    match code {
        Code::WrongEpoch | Code::Invalid | Code::Conflict | Code::Denied | Code::QueryTooLarge | Code::UnknownKind => {
            CallError::never(code, message)
        }
        Code::Overloaded | Code::NoQuorum => CallError::later(code, 100, message),
        _ => CallError::elsewhere(code, message),
    }
}

impl Service for Script {
    fn hello(&self) -> Hello {
        let (_, datacenter) = self.node.as_str().split_once('-').unwrap();
        Hello {
            cluster: name("beam"),
            epoch: None,
            name: self.node.clone(),
            datacenter: Some(name(datacenter)),
            roles: vec!["api".into()],
            software: String::new(),
            format: 1,
            serves: Vec::new(),
            boot: 1,
        }
    }

    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        let script = self.clone();
        match call.kind {
            Kind::ApiQuery => Box::pin(script.query(call)),
            Kind::ApiUpdate => Box::pin(script.update(call)),
            Kind::ApiTransact => Box::pin(script.transact(call)),
            Kind::ApiCommitted => Box::pin(script.committed(call)),
            other => panic!("{other:?} is not asked here"),
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Api nodes in some datacenters, and a client that prefers them in the same order.
struct Stage {
    world: SimWorld,
    shared: Arc<Mutex<Shared>>,
    client: Client,
    peers: Vec<Peers>,
}

impl Stage {
    async fn new(world: SimWorld, datacenters: &[&str]) -> Stage {
        let authority = Authority::create(&world.env("authority"), &name("beam"), days(30)).unwrap();
        let shared = Arc::<Mutex<Shared>>::default();
        let mut peers = Vec::new();
        for (number, datacenter) in datacenters.iter().copied().enumerate() {
            let node = name(&format!("api-{datacenter}"));
            let env = world.env(node.as_str());
            let identity = Identity::Node {
                cluster: name("beam"),
                datacenter: name(datacenter),
                node: node.clone(),
                roles: vec![Role::Api],
            };
            let credentials = authority.issue(&world.env("authority"), &identity, days(1)).unwrap();
            let address = format!("10.0.{number}.1:7100").parse().unwrap();
            let options = EndpointOptions::wan([7; 64]);
            let endpoint = Endpoint::open(&env, address, credentials.tls(&env).unwrap(), options).unwrap();
            let script = Script { env: env.clone(), node: node.clone(), shared: shared.clone() };
            peers.push(Peers::start(env, endpoint, Arc::new(script)));
            let target = SrvTarget {
                priority: 0,
                weight: 1,
                port: 7100,
                target: format!("{node}.{datacenter}.beam.test"),
                addresses: vec![address.ip()],
            };
            let answer = SrvAnswer { targets: vec![target], ttl: Duration::from_secs(60) };
            world.dns().set(&format!("_beam-api._udp.{datacenter}.beam.test"), Ok(answer));
        }
        let identity = Identity::Client { cluster: name("beam"), name: name("app"), role: ClientRole::Writer };
        let credentials: Credentials = authority.issue(&world.env("authority"), &identity, days(1)).unwrap();
        let env = world.env("app");
        // In another order, which the preference puts right.
        let backwards = datacenters.iter().rev().map(|datacenter| name(datacenter)).collect();
        let options = ClientOptions::new("beam.test", backwards, credentials.tls(&env).unwrap());
        let options = datacenters.iter().rev().fold(options, |options, datacenter| options.prefer(&name(datacenter)));
        let options = options.timeout(Duration::from_secs(20));
        let options = options.bind("10.0.9.1:0".parse().unwrap());
        let client = Client::connect(env, options).await.unwrap();
        Stage { world, shared, client, peers }
    }

    fn will(&self, node: &str, steps: &[Step]) {
        self.shared.lock().unwrap().steps.insert(name(node), steps.iter().copied().collect());
    }

    fn asked(&self) -> String {
        std::mem::take(&mut self.shared.lock().unwrap().asked).join(" ")
    }

    fn ids(&self) -> Vec<TransactionId> {
        std::mem::take(&mut self.shared.lock().unwrap().ids)
    }

    async fn query(&self) -> Result<Everything, ClientError> {
        self.client.query_all("SELECT ?x {}", Position::Recent).await
    }
}

fn play<F: Future<Output = ()>>(story: impl FnOnce(Stage) -> F) {
    play_with(&["va", "or"], story);
}

fn play_with<F: Future<Output = ()>>(datacenters: &[&str], story: impl FnOnce(Stage) -> F) {
    SimWorld::run(1, |world| async move {
        let stage = Stage::new(world, datacenters).await;
        story(stage).await
    });
}

#[test]
fn the_preferred_datacenter_answers_and_all_rows_come() {
    play(|stage| async move {
        stage.will("api-va", &[Answers(1000)]);
        let answer = stage.query().await.unwrap();
        assert_eq!((answer.rows.len(), answer.version), (1000, AT));
        assert_eq!(answer.rows[999], [Some(Term::string("999"))]);
        assert_eq!(answer.summary.facts_fetched, 3);
        assert_eq!(stage.asked(), "api-va");
    });
}

#[test]
fn what_fails_before_its_first_row_is_asked_elsewhere() {
    play(|stage| async move {
        for step in [Fails(Code::Unavailable), Fails(Code::Overloaded), Fails(Code::NoQuorum), Breaks(0)] {
            stage.will("api-va", &[step]);
            assert_eq!(stage.query().await.unwrap().rows.len(), 1, "{step:?}");
            assert_eq!(stage.asked(), "api-va api-or", "{step:?}");
            stage.client.env().sleep(Duration::from_secs(60)).await;
        }
        stage.will("api-va", &[Fails(Code::Unavailable)]);
        stage.query().await.unwrap();
        stage.query().await.unwrap();
        assert_eq!(stage.asked(), "api-va api-or api-or", "whoever failed rests for a while");
    });
}

#[test]
fn rows_never_come_twice() {
    play(|stage| async move {
        stage.will("api-va", &[Breaks(2)]);
        let mut answer = stage.client.query("SELECT ?x {}", Position::Recent).await.unwrap();
        assert!(answer.next().await.unwrap().is_some());
        assert!(answer.next().await.unwrap().is_some());
        let error = answer.next().await.unwrap_err();
        assert!(matches!(error, ClientError::BrokenOff { .. }) && error.is_retryable(), "{error}");
        assert_eq!(stage.asked(), "api-va");
    });
}

#[test]
fn what_all_would_refuse_is_asked_once() {
    play(|stage| async move {
        stage.will("api-va", &[Fails(Code::Invalid)]);
        let error = stage.query().await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), (Some(Code::Invalid), false));
        assert_eq!(error.to_string(), "api-va: Invalid");
        assert_eq!(stage.asked(), "api-va");
    });
}

#[test]
fn a_write_keeps_its_id_when_its_node_dies() {
    play(|stage| async move {
        stage.query().await.unwrap();
        stage.will("api-va", &[Hangs]);
        let (world, client) = (stage.world.clone(), stage.client.clone());
        let killer = async {
            client.env().sleep(Duration::from_millis(500)).await;
            world.kill("api-va");
        };
        let (outcome, ()) = futures::join!(stage.client.update("INSERT DATA {}"), killer);
        assert_eq!(outcome.unwrap().version, AT);
        let ids = stage.ids();
        assert_eq!(ids.len(), 2);
        assert_eq!(ids[0], ids[1]);
        assert_eq!(ids[0].born, AT.index, "born at an index that the client has seen");
        assert_eq!(stage.asked(), "api-va api-va api-or");
    });
}

#[test]
fn in_the_end_it_says_what_it_does_not_know() {
    play(|stage| async move {
        stage.query().await.unwrap();
        let started = stage.client.env().now();
        stage.will("api-va", &[Fails(Code::NoQuorum); 100]);
        stage.will("api-or", &[Fails(Code::NoQuorum); 100]);
        let error = stage.client.update("INSERT DATA {}").await.unwrap_err();
        let ids = stage.ids();
        assert!(ids.len() > 2 && ids.iter().all(|id| *id == ids[0]));
        assert!(matches!(error, ClientError::OutcomeUnknown { id, .. } if id == ids[0]), "{error}");
        assert!(!error.is_retryable());
        let error = stage.query().await.unwrap_err();
        assert!(matches!(error, ClientError::Unavailable { .. }) && error.code() == Some(Code::NoQuorum), "{error}");
        assert!(stage.client.env().now() - started <= Duration::from_secs(41), "twice the timeout");

        // Whoever is overloaded has done nothing, so it is known.
        stage.client.env().sleep(Duration::from_secs(60)).await;
        stage.will("api-va", &[Answers(1), Fails(Code::Overloaded)]);
        stage.will("api-or", &[Fails(Code::Overloaded); 100]);
        stage.shared.lock().unwrap().steps.get_mut(&name("api-va")).unwrap().extend([Fails(Code::Overloaded); 100]);
        let error = stage.client.update("INSERT DATA {}").await.unwrap_err();
        assert!(matches!(error, ClientError::Unavailable { .. }) && error.is_retryable(), "{error}");
    });
}

#[test]
fn a_session_asks_for_what_it_has_seen() {
    play(|stage| async move {
        let session = stage.client.session();
        session.query_all("SELECT ?x {}").await.unwrap();
        session.update("INSERT DATA {}").await.unwrap();
        session.query_all("SELECT ?x {}").await.unwrap();
        let positions = stage.shared.lock().unwrap().positions.clone();
        assert_eq!(positions, [Position::Recent, Position::AtLeast(AT)]);
        assert_eq!(stage.client.session_from(AT).seen(), Some(AT));
        assert_eq!(stage.peers.len(), 2);
    });
}

#[test]
fn who_is_late_is_not_waited_for() {
    play(|stage| async move {
        let env = stage.client.env().clone();
        // Reads and writes: each is asked elsewhere as well, long before anybody could know that the node is gone.
        for _ in 0..2 {
            stage.will("api-va", &[Hangs]);
            let began = env.now();
            stage.query().await.unwrap();
            assert!(env.now() - began < Duration::from_millis(1500), "it took {:?}", env.now() - began);
            assert_eq!(stage.asked(), "api-va api-or");
            stage.query().await.unwrap();
            assert_eq!(stage.asked(), "api-or", "whoever was late rests for a while");
            env.sleep(Duration::from_secs(60)).await;
        }
        // The version that ids are born at is too old by now.
        stage.query().await.unwrap();
        stage.asked();
        stage.will("api-va", &[Hangs]);
        let began = env.now();
        stage.client.update("INSERT DATA {}").await.unwrap();
        assert!(env.now() - began < Duration::from_millis(1500), "it took {:?}", env.now() - began);
        assert_eq!(stage.asked(), "api-va api-or");
        let ids = stage.ids();
        assert_eq!((ids.len(), ids[0]), (2, ids[1]), "the same write at both");
    });
}

#[test]
fn a_call_may_have_a_limit_of_its_own() {
    play(|stage| async move {
        let env = stage.client.env().clone();
        stage.will("api-va", &[Hangs; 9]);
        stage.will("api-or", &[Hangs; 9]);
        let began = env.now();
        let hasty = stage.client.within(Duration::from_millis(700));
        let error = hasty.query_all("SELECT ?x {}", Position::Recent).await.unwrap_err();
        assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
        assert_eq!(env.now() - began, Duration::from_millis(700));
    });
}

/// A late node that wins after all says nothing of those that were asked because it was late.
#[test]
fn who_was_asked_later_is_not_blamed() {
    play_with(&["va", "or", "ie"], |stage| async move {
        stage.will("api-va", &[Late(1000), Fails(Code::Unavailable)]);
        stage.will("api-or", &[Hangs]);
        stage.query().await.unwrap();
        assert_eq!(stage.asked(), "api-va api-or");
        stage.query().await.unwrap();
        assert_eq!(stage.asked(), "api-va api-or", "the second is as good as before");
        // And who was asked before, and lost, rests.
        stage.client.env().sleep(Duration::from_secs(60)).await;
        stage.will("api-va", &[Hangs]);
        stage.query().await.unwrap();
        stage.query().await.unwrap();
        assert_eq!(stage.asked(), "api-va api-or api-or");
    });
}

/// A call that takes several, one after the other, takes no longer than its limit.
#[test]
fn the_limit_holds_for_all_parts_of_a_call() {
    play(|stage| async move {
        let env = stage.client.env().clone();
        let hasty = stage.client.within(Duration::from_millis(700));
        // The first names a version, the second asks whether it was made before.
        for parts in 1..=2 {
            for node in ["api-va", "api-or"] {
                stage.will(node, &[Late(500), Hangs, Hangs, Hangs]);
            }
            let id = TransactionId::new(AT.index, 7);
            let began = env.now();
            let error = match parts {
                1 => hasty.update("INSERT DATA {}").await.unwrap_err(),
                _ => hasty.update_as(id, "INSERT DATA {}").await.unwrap_err(),
            };
            assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
            assert_eq!(env.now() - began, Duration::from_millis(700), "{error}");
            env.sleep(Duration::from_secs(60)).await;
        }
        // Nor does a transaction, whatever of it is late.
        stage.will("api-va", &[Late(500), Hangs, Hangs]);
        stage.will("api-or", &[Hangs; 9]);
        let began = env.now();
        let made = hasty.transaction_as(TransactionId::new(AT.index, 8), |tx| async move {
            tx.insert([Term::Iri("urn:a".into()), Term::Iri("urn:b".into()), Term::string("c")], None)?;
            // The version that it is born at has to be asked for.
            Ok::<_, ClientError>(())
        });
        assert!(made.await.is_err());
        assert_eq!(env.now() - began, Duration::from_millis(700));
    });
}

/// A write that one node has answered with what is true of its own attempt only, while another's answer is lost,
/// may have been done.
#[test]
fn a_refusal_speaks_for_itself_only() {
    play(|stage| async move {
        for (refusal, known) in [(Code::QueryTooLarge, false), (Code::Invalid, true)] {
            stage.query().await.unwrap();
            stage.will("api-va", &[Fails(Code::Unavailable)]);
            stage.will("api-or", &[Fails(refusal)]);
            let error = stage.client.update("INSERT DATA {}").await.unwrap_err();
            assert_eq!(matches!(error, ClientError::Refused { .. }), known, "{error}");
            assert_eq!(matches!(error, ClientError::OutcomeUnknown { .. }), !known, "{error}");
            stage.client.env().sleep(Duration::from_secs(60)).await;
        }
    });
}

/// Api nodes are upgraded one after the other, and the program was before them.
#[test]
fn a_node_that_is_too_old_is_passed_over_and_named_if_all_are() {
    play(|stage| async move {
        let env = stage.client.env().clone();
        stage.query().await.unwrap();
        stage.asked();
        stage.will("api-va", &[Fails(Code::UnknownKind); 4]);
        for _ in 0..2 {
            stage.query().await.unwrap();
        }
        stage.client.update("INSERT DATA {}").await.unwrap();
        assert_eq!(stage.asked(), "api-va api-or ".repeat(3).trim_end(), "it is well, and does not rest");

        stage.will("api-or", &[Fails(Code::UnknownKind)]);
        let began = env.now();
        let error = stage.query().await.unwrap_err();
        assert!(env.now() - began < Duration::from_millis(10), "nothing is to be waited for");
        assert!(matches!(error, ClientError::NodeTooOld { .. }) && !error.is_retryable(), "{error}");
        assert_eq!(error.code(), Some(Code::UnknownKind));
        assert!(error.to_string().contains("api-or is older"), "{error}");
        assert_eq!(stage.asked(), "api-va api-or");

        // Whoever knows the call may be away for a moment; whoever does not is not asked again.
        stage.will("api-va", &[Fails(Code::UnknownKind); 9]);
        stage.will("api-or", &[Fails(Code::NoQuorum), Fails(Code::NoQuorum)]);
        stage.query().await.unwrap();
        assert_eq!(stage.asked(), "api-va api-or api-or api-or");
        env.sleep(Duration::from_secs(60)).await;

        // What the newer one may have done, the older one cannot deny.
        stage.query().await.unwrap();
        stage.will("api-va", &[Fails(Code::Unavailable), Fails(Code::UnknownKind)]);
        stage.will("api-or", &[Fails(Code::UnknownKind)]);
        let error = stage.client.update("INSERT DATA {}").await.unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    });
}

#[test]
fn what_is_tried_again_is_bounded() {
    play(|stage| async move {
        for node in ["api-va", "api-or"] {
            stage.will(node, &[Fails(Code::Overloaded); 10_000]);
        }
        // A hundred callers for twenty seconds: without a bound each would ask twenty times and more.
        let calls = (0..100).map(|_| stage.query());
        let answers = futures::future::join_all(calls).await;
        assert!(answers.iter().all(Result::is_err));
        let asked = stage.asked().split(' ').count();
        assert!((200..=200 + 50 + 10 + 20 * 5 + 20).contains(&asked), "{asked} requests of 100 calls");
    });
}

#[test]
fn what_fits_into_no_entry_is_not_sent() {
    play(|stage| async move {
        stage.query().await.unwrap();
        stage.asked();
        let env = stage.client.env().clone();
        // Chance, in letters: nothing that could be compressed.
        let text: String = (0..60_000).map(|_| format!("{:032x}", env.random_u128())).collect();
        let mut facts = Builder::new();
        let iri = |text: &str| Term::Iri(text.to_owned());
        facts.insert([iri("urn:a"), iri("urn:b"), Term::string(text)], None).unwrap();
        let error = stage.client.write(facts.clone()).await.unwrap_err();
        assert!(matches!(error, ClientError::TooLarge { what: "bytes", count, max } if count > max), "{error}");
        assert_eq!((error.code(), error.is_retryable()), (Some(Code::TooLarge), false));
        // Nor is what an attempt has written that failed; and after its end, nothing belongs to it.
        let kept = Mutex::new(None);
        let failed = stage.client.transaction(|tx| {
            tx.insert([iri("urn:a"), iri("urn:b"), Term::string("c")], None).unwrap();
            *kept.lock().unwrap() = Some(tx);
            async { Err::<(), _>(ClientError::Command(beam_wire::command::CommandError::Malformed("of mine".into()))) }
        });
        assert!(matches!(failed.await, Err(ClientError::Command(_))), "what an attempt returns is returned");
        let kept = kept.into_inner().unwrap().unwrap();
        let late = kept.insert([iri("urn:a"), iri("urn:b"), Term::string("c")], None);
        assert!(matches!(late, Err(ClientError::Over)), "{late:?}");
        assert_eq!(stage.asked(), "");
    });
}

/// A first copy is lost on its way to one node, and the next node is in a new epoch already. If that copy was kept, it counts,
/// with what its attempt returned; if not, it never comes, and the next attempt is a transaction of its own.
#[test]
fn a_transaction_that_meets_a_recovery_happens_once() {
    play(|stage| async move {
        let tries = Mutex::new(0);
        let transaction = || {
            stage.client.transaction(|tx| {
                let mut tries = tries.lock().unwrap();
                *tries += 1;
                let iri = |text: String| Term::Iri(text);
                let fact = [iri("urn:a".into()), iri("urn:b".into()), iri(format!("urn:{tries}"))];
                tx.insert(fact, None).unwrap();
                let tried = *tries;
                async move { Ok::<_, ClientError>(tried) }
            })
        };
        for kept in [Some(LogIndex(650)), None] {
            *tries.lock().unwrap() = 0;
            stage.shared.lock().unwrap().committed = kept;
            stage.will("api-va", &[Answers(1), Fails(Code::Disconnected)]);
            stage.will("api-or", &[Fails(Code::WrongEpoch)]);
            let done = transaction().await.unwrap();
            let ids = stage.ids();
            match kept {
                Some(index) => {
                    assert_eq!((done.value, done.attempts, done.version), (1, 1, Version { index, ..AT }));
                    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
                }
                None => {
                    assert_eq!((done.value, done.attempts, done.version), (2, 2, AT));
                    assert!(ids.len() == 3 && ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
                }
            }
            stage.client.env().sleep(Duration::from_secs(60)).await;
        }
        // Whoever has kept an id keeps it.
        let id = stage.client.new_id().await.unwrap().1;
        // It asks first what has become of it.
        stage.will("api-va", &[Answers(1), Fails(Code::WrongEpoch), Answers(1), Answers(1)]);
        let iri = |text: &str| Term::Iri(text.to_owned());
        let fact = [iri("urn:a"), iri("urn:b"), iri("urn:c")];
        let done = stage.client.transaction_as(id, async |tx| tx.insert(fact.clone(), None));
        done.await.unwrap();
        assert_eq!(stage.ids(), [id, id]);
    });
}

/// It is known what comes of it.
#[test]
fn a_transaction_without_reads_and_writes_sends_nothing() {
    play(|stage| async move {
        let read = stage.query().await.unwrap().version;
        stage.asked();
        let done = stage.client.transaction(async |_| Ok::<_, ClientError>(7)).await.unwrap();
        assert_eq!((done.value, done.version, done.attempts), (7, read, 1));
        assert_eq!((stage.asked(), stage.ids()), (String::new(), vec![]));
    });
}

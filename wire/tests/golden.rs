//! The bytes of everything that travels or is stored, held against `wire/golden/`.
//!
//! One file for each type, one line for each value: a name, then its bytes in hex. With
//! `BEAM_GOLDEN=add` missing lines are written; a line that is there is never changed. If one must
//! be, a promise is broken: the change needs a new format or protocol version instead.

use beam_wire::codec;
use beam_wire::command::{AccessPath, Begin, Builder, Command, FactRef, Genesis, Rejection, Transact, Verdict};
use beam_wire::fact::{Fact, GraphPattern, Pattern};
use beam_wire::identity::{ClientRole, Identity, Role};
use beam_wire::message::api::*;
use beam_wire::message::hello::*;
use beam_wire::message::log::*;
use beam_wire::message::raft::*;
use beam_wire::message::view::*;
use beam_wire::message::{Call, Kind};
use beam_wire::term::{Direction, XSD};
use beam_wire::*;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use std::path::{Path, PathBuf};

/// Values by the name of their type and their own.
#[derive(Default)]
struct Samples(BTreeMap<String, Vec<(String, String)>>);

impl Samples {
    fn add<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, value: T) {
        let bytes = codec::encode(&value);
        assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(&value), "{name} comes back");
        self.text(type_name::<T>(), name, hex(&bytes));
    }

    fn text(&mut self, kind: &str, name: &str, text: String) {
        assert!(!name.is_empty() && !name.contains(char::is_whitespace), "{name:?}");
        let of_type = self.0.entry(kind.to_string()).or_default();
        assert!(of_type.iter().all(|(other, _)| other != name), "{kind} {name} twice");
        of_type.push((name.to_string(), text));
    }
}

/// `NodeStatus<LogInfoReply>` is a `NodeStatus`.
fn type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("strings grow");
        text
    })
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn version() -> Version {
    Version { epoch: Epoch(3), index: LogIndex(70_000) }
}

fn iri(text: &str) -> Term {
    Term::Iri(format!("http://example.org/{text}"))
}

fn typed(lexical: &str, datatype: &str) -> Term {
    Term::Literal { lexical: lexical.into(), datatype: format!("{XSD}{datatype}") }
}

fn lang(lexical: &str, language: &str, direction: Option<Direction>) -> Term {
    Term::LangLiteral { lexical: lexical.into(), language: language.into(), direction }
}

fn terms() -> Vec<(&'static str, Term)> {
    let inner = Term::Triple(Box::new([Term::Blank("b0".into()), iri("p"), typed("1", "integer")]));
    vec![
        ("iri", iri("s")),
        ("blank", Term::Blank("b0".into())),
        ("string", Term::string("Dublin")),
        ("string-empty", Term::string("")),
        ("string-long", Term::string("seventeen bytes !")),
        ("lang", lang("Wien", "de", None)),
        ("lang-three-letters", lang("Wean", "bar", None)),
        ("lang-region", lang("colour", "en-gb", None)),
        ("lang-long", lang("fifteen bytes !", "en", None)),
        ("lang-ltr", lang("abc", "en", Some(Direction::Ltr))),
        ("lang-rtl", lang("نص", "ar", Some(Direction::Rtl))),
        ("boolean", typed("true", "boolean")),
        ("boolean-hashed", typed("1", "boolean")),
        ("integer", typed("-42", "integer")),
        ("integer-hashed", typed("042", "integer")),
        ("decimal", typed("2.50", "decimal")),
        ("decimal-hashed", typed(".5", "decimal")),
        ("float", typed("1.5E0", "float")),
        ("float-hashed", typed("1.50", "float")),
        ("double", typed("-1.0E-7", "double")),
        ("double-plain", typed("6.25", "double")),
        ("double-nan", typed("NaN", "double")),
        ("double-hashed", typed("1e0", "double")),
        ("date-time", typed("2024-02-29T12:34:56.789+05:30", "dateTime")),
        ("date-time-hashed", typed("2024-02-29T24:00:00", "dateTime")),
        ("date", typed("1969-07-20", "date")),
        ("date-hashed", typed("-0044-03-15", "date")),
        ("year-month", typed("1999-12Z", "gYearMonth")),
        ("year", typed("2024", "gYear")),
        ("non-positive-integer", typed("0", "nonPositiveInteger")),
        ("negative-integer", typed("-1", "negativeInteger")),
        ("long", typed("-9223372036854775808", "long")),
        ("int", typed("2147483647", "int")),
        ("short", typed("-32768", "short")),
        ("byte", typed("127", "byte")),
        ("byte-ill-typed", typed("128", "byte")),
        ("non-negative-integer", typed("0", "nonNegativeInteger")),
        ("unsigned-long", typed("18446744073709551615", "unsignedLong")),
        ("unsigned-int", typed("4294967295", "unsignedInt")),
        ("unsigned-short", typed("65535", "unsignedShort")),
        ("unsigned-byte", typed("255", "unsignedByte")),
        ("positive-integer", typed("1", "positiveInteger")),
        ("other", typed("PT1H", "duration")),
        ("triple", Term::Triple(Box::new([iri("s"), iri("p"), inner]))),
    ]
}

fn id(text: &str) -> TermId {
    TermId::of(&iri(text))
}

fn fact() -> Fact {
    Fact { subject: id("s"), predicate: id("p"), object: id("o"), graph: TermId::DEFAULT_GRAPH }
}

fn pattern() -> Pattern {
    Pattern { subject: Some(id("s")), predicate: None, object: Some(id("o")), graph: GraphPattern::Named(id("g")) }
}

fn half() -> Range {
    Range::partition(1, 2)
}

fn served() -> Served {
    Served { space: Space::Object, range: half() }
}

fn transact() -> Transact {
    let mut builder = Builder::new();
    builder.insert([iri("s"), iri("p"), Term::string("new")], Some(iri("g"))).unwrap();
    builder.insert([Term::Blank("b0".into()), iri("p"), iri("s")], None).unwrap();
    builder.delete([iri("s"), iri("p"), Term::string("old")], None).unwrap();
    builder.build(Epoch(3), transaction(), LogIndex(69_000), vec![0xdead_beef, 7])
}

fn transaction() -> TransactionId {
    TransactionId { born: LogIndex(68_000), random: 0x0123_4567_89ab_cdef_0011_2233_4455_6677 }
}

fn genesis() -> Genesis {
    Genesis { cluster: name("beam"), epoch: Epoch(1), format: 1, slots_log2: 20, window: 1_000_000 }
}

fn call_error() -> CallError {
    CallError { code: Code::NotLeader, message: "log-va leads".into(), retry: Retry::At(name("log-va")) }
}

fn log_info() -> LogInfoReply {
    let member = Member {
        node: name("log-va"),
        datacenter: name("va"),
        raft_id: 0xfeed,
        voter: true,
        matched: Some(LogIndex(69_999)),
    };
    LogInfoReply {
        node: name("log-or"),
        raft_id: 0xbeef,
        epoch: Some(Epoch(3)),
        first: LogIndex(1),
        last: Some(LogIndex(70_001)),
        committed: Some(LogIndex(70_000)),
        bytes: 1 << 30,
        term: 9,
        leader: Some(name("log-va")),
        members: vec![member],
    }
}

fn plan() -> Plan {
    Plan {
        at: LogIndex(300),
        before: log_info().members,
        after: vec![],
        drained: vec![],
        leader: None,
        nothing_to_do: false,
        notes: vec!["1 voter".into()],
        warnings: vec!["an even number of voters".into()],
        waits: None,
        refused: None,
        impossible: None,
    }
}

fn log_status() -> LogStatusReply {
    LogStatusReply {
        info: log_info(),
        last_term: Some(9),
        epochs: vec![EpochBegan { epoch: Epoch(3), kept: LogIndex(5000) }],
        drained: vec![name("ie")],
        free_bytes: Some(1 << 32),
        full: false,
        heartbeat_ms: 150,
        lease_ms: 350,
        round_trips: vec![RoundTrip { node: name("log-va"), micros: 60_125 }],
        warnings: vec!["log-ie does not answer".into()],
    }
}

fn view_load() -> ViewLoadReply {
    ViewLoadReply { calls: 3, answered: 70_000, cancelled: 200, refused: 1 }
}

fn view_status() -> ViewStatusReply {
    ViewStatusReply {
        epoch: Some(Epoch(3)),
        serves: vec![served()],
        state: ViewState::Serving,
        oldest: LogIndex(10),
        applied: LogIndex(70_000),
        durable: LogIndex(69_990),
        checkpoint: LogIndex(60_000),
        committed: LogIndex(70_001),
        facts: 3_166_792,
        window: 1_000_000,
        calls: 2,
    }
}

fn hello() -> Hello {
    Hello {
        cluster: name("beam"),
        epoch: Some(Epoch(3)),
        name: name("view-va-1a"),
        datacenter: Some(name("va")),
        roles: vec!["view".into()],
        software: "0.1.0".into(),
        format: 1,
        serves: vec![served()],
        boot: 0x1122_3344_5566_7788,
    }
}

fn origin() -> Origin {
    Origin { node: name("log-ie"), boot: 5, sequence: 6 }
}

fn envelope() -> Envelope {
    Envelope {
        cluster: name("beam"),
        epoch: None,
        from: name("log-va"),
        from_raft_id: 1,
        to: name("log-or"),
        to_raft_id: u64::MAX,
    }
}

fn raft_bytes() -> RaftBytes {
    RaftBytes(vec![1, 2, 3].into())
}

/// The request, item and reply of a call, and the types' names. A new kind does not compile until it
/// has a line here.
fn of_kind(samples: &mut Samples, kind: Kind) -> [&'static str; 3] {
    fn names<C: Call>(kind: Kind) -> [&'static str; 3] {
        assert_eq!(C::KIND, kind);
        [type_name::<C>(), type_name::<C::Item>(), type_name::<C::Reply>()]
    }
    macro_rules! raft {
        ($name:ident) => {{
            samples.add("one", $name { envelope: envelope(), body: raft_bytes() });
            names::<$name>(kind)
        }};
    }
    match kind {
        Kind::Hello => {
            samples.add("raft", Greeting { lane: Lane::Raft, hello: hello() });
            samples.add("view", hello());
            samples.add(
                "client",
                Hello { datacenter: None, epoch: None, serves: vec![], roles: vec!["writer".into()], ..hello() },
            );
            names::<Greeting>(kind)
        }
        Kind::LogAppend => {
            samples.add("client", LogAppend { epoch: None, forwarded: false });
            samples.add("forwarded", LogAppend { epoch: Some(Epoch(3)), forwarded: true });
            let first = Proposal { origin: None, body: vec![1, 0, 0, 2, 2].into() };
            let second = Proposal { origin: Some(origin()), body: vec![].into() };
            samples.add("two", Proposals { proposals: vec![first, second] });
            samples.add("two", Appended { epoch: Epoch(3), indexes: vec![LogIndex(1), LogIndex(300)] });
            names::<LogAppend>(kind)
        }
        Kind::LogRead => {
            samples.add("follow", LogRead { epoch: Some(Epoch(3)), from: LogIndex(1), follow: true });
            let data = Entry::Data { origin: origin(), body: vec![1, 0, 0, 2, 2].into() };
            let entries = vec![Entry::Skip, data];
            samples.add("two", Entries { epoch: Epoch(3), committed: LogIndex(9), first: LogIndex(1), entries });
            samples
                .add("none", Entries { epoch: Epoch(3), committed: LogIndex(9), first: LogIndex(1), entries: vec![] });
            names::<LogRead>(kind)
        }
        Kind::LogTail => {
            samples.add("linearizable", LogTail { linearizable: true, forwarded: false });
            names::<LogTail>(kind)
        }
        Kind::LogInfo => {
            samples.add("one", LogInfo);
            samples.add("leader", log_info());
            let unborn =
                LogInfoReply { epoch: None, last: None, committed: None, leader: None, members: vec![], ..log_info() };
            samples.add("unborn", unborn);
            names::<LogInfo>(kind)
        }
        Kind::LogDiscard => {
            samples.add("one", LogDiscard { epoch: Epoch(3), before: LogIndex(1000), forwarded: true });
            names::<LogDiscard>(kind)
        }
        Kind::LogStatus => {
            samples.add("one", LogStatus);
            samples.add("drained", log_status());
            samples.add("full", LogStatusReply { last_term: None, free_bytes: None, full: true, ..log_status() });
            names::<LogStatus>(kind)
        }
        Kind::LogChange => {
            let asked = [
                ("add", Change::Add { node: name("log-or"), datacenter: name("or") }),
                ("promote", Change::Promote { nodes: vec![name("log-or"), name("log-ie")] }),
                ("remove", Change::Remove { members: vec![MemberName { node: name("log-or"), raft_id: Some(300) }] }),
                ("replace", Change::Replace { node: name("log-or") }),
                ("lead", Change::Lead { node: name("log-or") }),
                ("drain", Change::Drain { datacenter: name("or") }),
                ("return", Change::Return { datacenter: name("or") }),
            ];
            for (which, change) in asked {
                samples.add(which, LogChange { epoch: None, change, apply: None, forwarded: false });
            }
            let change = Change::Remove { members: vec![MemberName { node: name("log-or"), raft_id: None }] };
            let apply = Some(Apply { seen: LogIndex(300), force: true });
            samples.add("apply", LogChange { epoch: Some(Epoch(3)), change, apply, forwarded: true });
            samples.add("done", LogChangeReply { plan: plan(), done: Some(version()) });
            let other = Plan {
                drained: vec![name("ie")],
                leader: Some(name("log-va")),
                nothing_to_do: true,
                waits: Some("log-or holds 12 of 300 entries".into()),
                refused: Some("no majority without va".into()),
                impossible: Some("the last voter".into()),
                ..plan()
            };
            samples.add("refused", LogChangeReply { plan: other, done: None });
            names::<LogChange>(kind)
        }
        Kind::LogRecover => {
            let seen = LogEnd { raft_id: 300, epoch: Some(Epoch(3)), term: Some(9), last: Some(LogIndex(70_000)) };
            let order = |part| RecoverOrder { token: 1 << 60, node: name("log-va"), seen: seen.clone(), part };
            samples.add("ask", LogRecover { order: None });
            let refound = RecoverPart::Refound { epoch: Epoch(70_001) };
            samples.add("refound", LogRecover { order: Some(order(refound)) });
            let set_aside = RecoverPart::SetAside { epoch: Epoch(70_001), founder: name("log-va") };
            samples.add("set-aside", LogRecover { order: Some(order(set_aside)) });
            let survivor = LogRecoverReply {
                status: log_status(),
                voters: vec![vec![1, 300], vec![300]],
                majority_ms_ago: None,
                leader_ms_ago: Some(12_000),
                pending: None,
            };
            samples.add("survivor", survivor.clone());
            samples.add("leader", LogRecoverReply { majority_ms_ago: Some(20), pending: Some(1 << 60), ..survivor });
            names::<LogRecover>(kind)
        }
        Kind::RaftPipe => raft!(RaftPipe),
        Kind::RaftVote => raft!(RaftVote),
        Kind::RaftSnapshot => raft!(RaftSnapshot),
        Kind::RaftTransfer => raft!(RaftTransfer),
        Kind::RaftHeartbeat => raft!(RaftHeartbeat),
        Kind::ViewStatus => {
            samples.add("watch", ViewStatus { watch: true });
            samples.add("serving", view_status());
            samples.add("booting", ViewStatusReply { epoch: None, state: ViewState::Booting, ..view_status() });
            samples.add("draining", ViewStatusReply { state: ViewState::Draining, ..view_status() });
            samples.add("damaged", ViewStatusReply { state: ViewState::Damaged, ..view_status() });
            names::<ViewStatus>(kind)
        }
        Kind::ViewLookup => {
            let patterns = vec![pattern()];
            samples.add("one", ViewLookup { at: version(), space: Space::Subject, range: half(), patterns });
            samples.add("one", LookupChunk { facts: vec![(300, fact())] });
            names::<ViewLookup>(kind)
        }
        Kind::ViewTerms => {
            samples.add("one", ViewTerms { at: version(), ids: vec![id("s")] });
            samples.add("one", TermsChunk { terms: vec![(0, iri("s"))] });
            names::<ViewTerms>(kind)
        }
        Kind::ViewVerdict => {
            samples.add("one", ViewVerdict { at: version() });
            for (name, verdict) in verdicts() {
                samples.add(name, verdict);
            }
            names::<ViewVerdict>(kind)
        }
        Kind::ViewCount => {
            let patterns = vec![pattern()];
            samples.add("one", ViewCount { at: version(), space: Space::Object, range: half(), patterns, limit: 100 });
            samples.add("two", Counts { counts: vec![0, 100] });
            names::<ViewCount>(kind)
        }
        Kind::ViewCopy => {
            let interval = |to: Option<&'static [u8]>| KeyInterval {
                from: Bytes::from_static(b"abc"),
                to: to.map(Bytes::from_static),
            };
            let wanted = vec![interval(Some(b"abd")), interval(None)];
            samples.add("one", ViewCopy { at: version(), space: Space::Subject, range: half(), wanted });
            let fact =
                |deleted| CopiedFact { shared: 17, rest: Bytes::from_static(b"xyz"), inserted: LogIndex(300), deleted };
            let term = CopiedTerm { id: id("s"), text: Bytes::from_static(b"text") };
            let facts = vec![fact(None), fact(Some(LogIndex(400)))];
            let chunk = CopyChunk { oldest: LogIndex(9), done: None, facts, terms: vec![term] };
            samples.add("more", chunk.clone());
            samples.add("done", CopyChunk { done: Some(interval(None)), ..chunk });
            names::<ViewCopy>(kind)
        }
        Kind::ViewCheckpoint => {
            samples.add("one", ViewCheckpoint { epoch: Some(Epoch(3)) });
            let pieces = vec![(Bytes::from_static(b"head"), Bytes::from_static(b"value"))];
            samples.add("one", CheckpointChunk { at: version(), pieces });
            names::<ViewCheckpoint>(kind)
        }
        Kind::ViewRules => {
            samples.add("one", ViewRules);
            samples.add("format", ViewRulesReply { at: LogIndex(70_000), format: Some(2) });
            samples.add("booting", ViewRulesReply { at: LogIndex(0), format: None });
            names::<ViewRules>(kind)
        }
        Kind::ViewInstances => {
            samples.add("watch", ViewInstances { watch: true });
            let serving = Instance { number: 0, status: view_status(), copied: None, disk_bytes: Some(1 << 30) };
            let booting = ViewStatusReply { epoch: None, state: ViewState::Booting, ..view_status() };
            let copying = Instance { number: 1, status: booting, copied: Some(70_000), disk_bytes: None };
            let topology = view_status().serves;
            let instances = vec![serving, copying];
            samples.add("two", ViewInstancesReply { instances, topology, free_bytes: Some(1 << 40) });
            samples.add("watched", ViewInstancesReply { instances: vec![], topology: vec![], free_bytes: None });
            names::<ViewInstances>(kind)
        }
        Kind::ViewHold => {
            samples.add("one", ViewHold { serves: view_status().serves });
            names::<ViewHold>(kind)
        }
        Kind::ViewDrop => {
            samples.add("one", ViewDrop { serves: view_status().serves });
            names::<ViewDrop>(kind)
        }
        Kind::ViewVerify => {
            let served = Served { space: Space::Object, range: Range::partition(1, 3) };
            let of = |count, member: &str| RangeSum { served, count, sum: Sum::of(member.as_bytes()) };
            let request = ViewVerify { serves: vec![served], at: version(), scan: None };
            samples.add("sums", request.clone());
            samples.add("scan", ViewVerify { scan: Some(LogIndex(300)), ..request });
            let told = ViewVerifyReply { sums: vec![of(70_000, "facts")], verdicts: Sum::of_pair(1, 2), scanned: None };
            samples.add("sums", told.clone());
            let scanned = Scanned { past: vec![of(2, "past")], oldest: LogIndex(200), records: 210_002 };
            samples.add("scan", ViewVerifyReply { scanned: Some(scanned), ..told });
            names::<ViewVerify>(kind)
        }
        Kind::ViewLoad => {
            samples.add("one", ViewLoad);
            samples.add("one", view_load());
            names::<ViewLoad>(kind)
        }
        Kind::ApiQuery => {
            let sparql = "ASK {}".to_string();
            samples.add("latest", ApiQuery { sparql: sparql.clone(), base_iri: None, position: Position::Latest });
            let base_iri = Some("http://example.org/".to_string());
            samples.add("exact", ApiQuery { sparql, base_iri, position: Position::Exact(version()) });
            let shape = Shape::Solutions { variables: vec!["x".into(), "y".into()] };
            samples.add("head-rows", QueryReply::Head { version: version(), shape });
            samples.add("head-ask", QueryReply::Head { version: version(), shape: Shape::Boolean(true) });
            samples.add("head-graph", QueryReply::Head { version: version(), shape: Shape::Graph });
            samples.add("rows", QueryReply::Rows(vec![vec![Some(iri("s")), None]]));
            samples.add("triples", QueryReply::Triples(vec![[iri("s"), iri("p"), iri("o")]]));
            samples.add("summary", QueryReply::Summary { facts_fetched: 300, requests: 4, hedges: 1 });
            samples.add("rows", Shape::Solutions { variables: vec!["x".into()] });
            samples.add("reads", QueryReply::Reads { fine: vec![1, u64::MAX], coarse: vec![300] });
            names::<ApiQuery>(kind)
        }
        Kind::ApiRead => {
            let (sparql, base_iri) = ("ASK {}".to_string(), Some("http://example.org/".to_string()));
            samples.add("exact", ApiRead { sparql, base_iri, position: Position::Exact(version()) });
            names::<ApiRead>(kind)
        }
        Kind::ApiWatch => {
            samples.add("one", ApiWatch { after: version() });
            let inserted = FactChange { inserted: true, fact: [iri("s"), iri("p"), iri("o")], graph: Some(iri("g")) };
            let deleted = FactChange { inserted: false, graph: None, ..inserted.clone() };
            samples.add("inserted", inserted.clone());
            samples.add("deleted", deleted.clone());
            let changes = vec![deleted, inserted];
            samples.add("changes", WatchReply::Changes { version: version(), last: true, changes });
            samples.add("reached", WatchReply::Reached(version()));
            names::<ApiWatch>(kind)
        }
        Kind::ApiCommitted => {
            samples.add("one", ApiCommitted { id: transaction() });
            samples.add("not-yet", CommittedReply { at: version(), committed: None });
            samples.add("committed", CommittedReply { at: version(), committed: Some(LogIndex(300)) });
            names::<ApiCommitted>(kind)
        }
        Kind::ViewVerdicts => {
            samples.add("one", ViewVerdicts { after: LogIndex(300), at: version() });
            let verdicts = vec![(LogIndex(300), Verdict::Committed), (LogIndex(302), Verdict::Expired)];
            samples.add("two", VerdictsChunk { verdicts });
            names::<ViewVerdicts>(kind)
        }
        Kind::ApiUpdate => {
            let at_least = Some(version());
            samples.add("one", ApiUpdate { sparql: "CLEAR ALL".into(), base_iri: None, id: transaction(), at_least });
            samples.add("one", Outcome { version: version(), attempts: 2 });
            names::<ApiUpdate>(kind)
        }
        Kind::ApiTransact => {
            samples.add("one", ApiTransact { command: vec![1, 0, 0].into(), wait: true });
            samples.add("blind", TransactReply { version: version(), verdict: None });
            samples.add("committed", TransactReply { version: version(), verdict: Some(Verdict::Committed) });
            names::<ApiTransact>(kind)
        }
        Kind::ApiStatus => {
            samples.add("one", ApiStatus);
            let log = NodeStatus { node: name("log-va"), datacenter: name("va"), status: Ok(log_info()) };
            let views =
                NodeStatus { node: name("view-va-1a"), datacenter: name("va"), status: Err("no answer".to_string()) };
            samples.add("error", views.clone());
            let reply = ApiStatusReply {
                node: name("api-va"),
                datacenter: name("va"),
                recent: Some(version()),
                log: vec![log],
                views: vec![views],
                hedges: 1,
                requests: 300,
            };
            samples.add("one", reply);
            names::<ApiStatus>(kind)
        }
        Kind::ApiLoad => {
            samples.add("one", ApiLoad);
            let view = NodeStatus { node: name("view-va-1a"), datacenter: name("va"), status: Ok(view_load()) };
            let (out, views) = (vec![name("view-va-1b")], vec![view]);
            let reply = ApiLoadReply {
                requests: 300,
                hedges: 10,
                probes: 2,
                out,
                running: 16,
                waiting: 5,
                refused: 70_000,
                views,
            };
            samples.add("one", reply);
            names::<ApiLoad>(kind)
        }
    }
}

fn verdicts() -> Vec<(&'static str, Verdict)> {
    vec![
        ("committed", Verdict::Committed),
        ("conflict", Verdict::Conflict { with: LogIndex(300) }),
        ("duplicate", Verdict::Duplicate { of: LogIndex(300) }),
        ("expired", Verdict::Expired),
        ("malformed", Verdict::Rejected(Rejection::Malformed)),
        ("format-not-in-force", Verdict::Rejected(Rejection::FormatNotInForce)),
        ("wrong-epoch", Verdict::Rejected(Rejection::WrongEpoch)),
        ("born-ahead", Verdict::Rejected(Rejection::BornAhead)),
        ("read-ahead", Verdict::Rejected(Rejection::ReadAhead)),
        ("before-genesis", Verdict::Rejected(Rejection::BeforeGenesis)),
        ("second-genesis", Verdict::Rejected(Rejection::SecondGenesis)),
    ]
}

fn nouns(samples: &mut Samples) {
    for kind in Kind::ALL {
        samples.text("Kind", &format!("{kind:?}"), (kind as u16).to_string());
    }
    for number in 0..=u16::MAX {
        // Codes are numbered without gaps, so the first number that is none ends them.
        let Ok(code) = codec::decode::<Code>(&codec::encode(&number)) else { break };
        assert_eq!(code as u16, number);
        samples.add(&format!("{code:?}"), code);
    }
    samples.add("not-leader", call_error());
    samples.add("never", Retry::Never);
    samples.add("later", Retry::Later { after_ms: 300 });
    samples.add("elsewhere", Retry::Elsewhere);
    samples.add("at", Retry::At(name("log-va")));
    samples.add("latest", Position::Latest);
    samples.add("recent", Position::Recent);
    samples.add("at-least", Position::AtLeast(version()));
    samples.add("exact", Position::Exact(version()));
    samples.add("three", raft_bytes());
    samples.add("one", version());
    samples.add("one", transaction());
    samples.add("one", origin());
    for space in Space::ALL {
        samples.add(space.as_str(), space);
    }
    samples.add("half", half());
    samples.add("one", fact());
    for (name, graph) in [
        ("default", GraphPattern::Default),
        ("named", GraphPattern::Named(id("g"))),
        ("any-named", GraphPattern::AnyNamed),
        ("any", GraphPattern::Any),
    ] {
        samples.add(name, Pattern { graph, ..pattern() });
    }
    let roles = vec![Role::Log, Role::View, Role::Api];
    samples.add("node", Identity::Node { cluster: name("beam"), datacenter: name("va"), node: name("all-va"), roles });
    for (text, role) in [("reader", ClientRole::Reader), ("writer", ClientRole::Writer), ("admin", ClientRole::Admin)] {
        samples.add(text, Identity::Client { cluster: name("beam"), name: name("me"), role });
    }
    for (name, term) in terms() {
        term.check().unwrap();
        let id = TermId::of(&term);
        samples.add(name, id);
        samples.text("Point", name, format!("{:016x}", id.point().0));
        samples.add(name, term);
    }
    samples.add("default-graph", TermId::DEFAULT_GRAPH);
    samples.text("Point", "default-graph", format!("{:016x}", TermId::DEFAULT_GRAPH.point().0));
    let (s, p, o) = (id("s"), id("p"), id("o"));
    for (name, path) in [
        ("subject-predicate-object", AccessPath::SubjectPredicateObject(s, p, o)),
        ("subject-predicate", AccessPath::SubjectPredicate(s, p)),
        ("predicate-object", AccessPath::PredicateObject(p, o)),
        ("subject", AccessPath::Subject(s)),
        ("predicate", AccessPath::Predicate(p)),
        ("object", AccessPath::Object(o)),
        ("graph", AccessPath::Graph(TermId::DEFAULT_GRAPH)),
        ("everything", AccessPath::Everything),
    ] {
        samples.text("AccessPath", name, format!("{:016x}", path.hash()));
    }
    samples.add("graph", FactRef { subject: 0, predicate: 1, object: 300, graph: Some(2) });
    samples.add("one", genesis());
    samples.add("one", transact());
    for (name, command) in [
        ("genesis", Command::Genesis(genesis())),
        ("transact", Command::Transact(transact())),
        ("upgrade", Command::Upgrade(2)),
        ("begin", Command::Begin(Begin { epoch: Epoch(70_001), kept: LogIndex(5000) })),
    ] {
        samples.text("Body", name, hex(&command.encode()));
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn lines(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect()
}

#[test]
fn bytes_are_what_they_always_were() {
    let mut samples = Samples::default();
    nouns(&mut samples);
    let mut sent = BTreeSet::new();
    for kind in Kind::ALL {
        sent.extend(of_kind(&mut samples, kind));
    }
    sent.remove("()");
    for name in sent {
        assert!(samples.0.contains_key(name), "there is no sample of {name}, which travels");
    }
    let add = std::env::var("BEAM_GOLDEN").is_ok_and(|how| how == "add");
    let mut wrong = Vec::new();
    for (kind, values) in &samples.0 {
        let path = folder().join(format!("{kind}.txt"));
        let mut text = std::fs::read_to_string(&path).unwrap_or_default();
        let known: BTreeMap<String, String> = lines(&text).into_iter().map(|(a, b)| (a.into(), b.into())).collect();
        for (name, bytes) in values {
            match known.get(name) {
                Some(golden) if golden == bytes => {}
                Some(golden) => wrong.push(format!("{kind} {name} was\n  {golden}\nand is now\n  {bytes}")),
                None if add => writeln!(text, "{name} {bytes}").expect("strings grow"),
                None => wrong.push(format!("{kind} {name} has no golden bytes: run with BEAM_GOLDEN=add")),
            }
        }
        for name in known.keys().filter(|name| values.iter().all(|(other, _)| other != *name)) {
            wrong.push(format!("{kind} {name} is golden, but no sample any more"));
        }
        if add {
            std::fs::write(&path, text).unwrap();
        }
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if file.strip_suffix(".txt").is_none_or(|kind| !samples.0.contains_key(kind)) {
            wrong.push(format!("golden/{file} belongs to no type"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Types that the message modules declare are parts of something that travels: all have a sample.
#[test]
fn every_type_of_a_message_has_golden_bytes() {
    /// Held by the samples of the replies that contain them.
    const PARTS: [&str; 22] = [
        "Change",
        "MemberName",
        "Apply",
        "Plan",
        "Member",
        "EpochBegan",
        "RoundTrip",
        "KeyInterval",
        "CopiedFact",
        "CopiedTerm",
        "Served",
        "RangeSum",
        "Scanned",
        "ViewState",
        "Instance",
        "Lane",
        "Entry",
        "Proposal",
        "Envelope",
        "RecoverOrder",
        "RecoverPart",
        "LogEnd",
    ];
    let messages = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/message");
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(messages).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in source.lines() {
            let declared = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
            let Some(declared) = declared else { continue };
            let name: String = declared.chars().take_while(|c| c.is_alphanumeric()).collect();
            let golden = folder().join(format!("{name}.txt"));
            if !PARTS.contains(&name.as_str()) && !golden.exists() {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "no golden bytes of {missing:?}");
}

#[test]
fn golden_bodies_decode() {
    let text = std::fs::read_to_string(folder().join("Body.txt")).unwrap();
    for (name, hex) in lines(&text) {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        assert!(Command::decode(&bytes).is_ok(), "{name}");
    }
}

/// docs/wire.md draws every message; a field that is added must be drawn too.
#[test]
fn every_field_of_a_message_is_in_the_book() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let book = std::fs::read_to_string(crate_folder.join("../docs/wire.md")).unwrap();
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(crate_folder.join("src/message")).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut row = "";
        for line in source.lines() {
            if let Some(declared) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) {
                let name: String = declared.chars().take_while(|c| c.is_alphanumeric()).collect();
                row = book.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap_or_default();
                if row.is_empty() && name != "Kind" {
                    missing.push(name);
                }
            } else if let Some(field) = line.strip_prefix("    pub ").and_then(|field| field.strip_suffix(','))
                && field.contains(": ")
                && !row.contains(&format!("`{field}`"))
            {
                missing.push(field.to_string());
            }
        }
    }
    for kind in Kind::ALL {
        let row = format!("| {} | {kind:?} |", kind as u16);
        if !book.contains(&row) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "docs/wire.md lacks {missing:?}");
}

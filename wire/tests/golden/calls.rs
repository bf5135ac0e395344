//! A sample of what each kind of call sends.

use super::values::*;
use super::{Samples, type_name};
use beam_wire::command::Verdict;
use beam_wire::message::api::*;
use beam_wire::message::hello::*;
use beam_wire::message::log::*;
use beam_wire::message::raft::*;
use beam_wire::message::view::*;
use beam_wire::message::{Call, Kind};
use beam_wire::*;
use bytes::Bytes;

/// The request, item and reply of a call, and the types' names. A new kind does not compile until it
/// has a line here.
pub fn of_kind(samples: &mut Samples, kind: Kind) -> [&'static str; 3] {
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

//! Values that many samples are made of.

use beam_wire::command::{Builder, Genesis, Rejection, Transact, Verdict};
use beam_wire::fact::{Fact, GraphPattern, Pattern};
use beam_wire::message::hello::*;
use beam_wire::message::log::*;
use beam_wire::message::raft::*;
use beam_wire::message::view::*;
use beam_wire::term::{Direction, XSD};
use beam_wire::*;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn version() -> Version {
    Version { epoch: Epoch(3), index: LogIndex(70_000) }
}

pub fn iri(text: &str) -> Term {
    Term::Iri(format!("http://example.org/{text}"))
}

pub fn typed(lexical: &str, datatype: &str) -> Term {
    Term::Literal { lexical: lexical.into(), datatype: format!("{XSD}{datatype}") }
}

pub fn lang(lexical: &str, language: &str, direction: Option<Direction>) -> Term {
    Term::LangLiteral { lexical: lexical.into(), language: language.into(), direction }
}

pub fn terms() -> Vec<(&'static str, Term)> {
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

pub fn id(text: &str) -> TermId {
    TermId::of(&iri(text))
}

pub fn fact() -> Fact {
    Fact { subject: id("s"), predicate: id("p"), object: id("o"), graph: TermId::DEFAULT_GRAPH }
}

pub fn pattern() -> Pattern {
    Pattern { subject: Some(id("s")), predicate: None, object: Some(id("o")), graph: GraphPattern::Named(id("g")) }
}

pub fn half() -> Range {
    Range::partition(1, 2)
}

pub fn served() -> Served {
    Served { space: Space::Object, range: half() }
}

pub fn transact() -> Transact {
    let mut builder = Builder::new();
    builder.insert([iri("s"), iri("p"), Term::string("new")], Some(iri("g"))).unwrap();
    builder.insert([Term::Blank("b0".into()), iri("p"), iri("s")], None).unwrap();
    builder.delete([iri("s"), iri("p"), Term::string("old")], None).unwrap();
    builder.build(Epoch(3), transaction(), LogIndex(69_000), vec![0xdead_beef, 7])
}

pub fn transaction() -> TransactionId {
    TransactionId { born: LogIndex(68_000), random: 0x0123_4567_89ab_cdef_0011_2233_4455_6677 }
}

pub fn genesis() -> Genesis {
    Genesis { cluster: name("beam"), epoch: Epoch(1), format: 1, slots_log2: 20, window: 1_000_000 }
}

pub fn call_error() -> CallError {
    CallError { code: Code::NotLeader, message: "log-va leads".into(), retry: Retry::At(name("log-va")) }
}

pub fn log_info() -> LogInfoReply {
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

pub fn plan() -> Plan {
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

pub fn log_status() -> LogStatusReply {
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

pub fn view_load() -> ViewLoadReply {
    ViewLoadReply { calls: 3, answered: 70_000, cancelled: 200, refused: 1 }
}

pub fn view_status() -> ViewStatusReply {
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

pub fn hello() -> Hello {
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

pub fn origin() -> Origin {
    Origin { node: name("log-ie"), boot: 5, sequence: 6 }
}

pub fn envelope() -> Envelope {
    Envelope {
        cluster: name("beam"),
        epoch: None,
        from: name("log-va"),
        from_raft_id: 1,
        to: name("log-or"),
        to_raft_id: u64::MAX,
    }
}

pub fn raft_bytes() -> RaftBytes {
    RaftBytes(vec![1, 2, 3].into())
}

pub fn verdicts() -> Vec<(&'static str, Verdict)> {
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

//! Samples of what messages and entries of the log are made of.

use super::values::*;
use super::{Samples, hex};
use beam_wire::codec;
use beam_wire::command::{AccessPath, Begin, Command, FactRef};
use beam_wire::fact::{GraphPattern, Pattern};
use beam_wire::identity::{ClientRole, Identity, Role};
use beam_wire::message::Kind;
use beam_wire::*;

pub fn nouns(samples: &mut Samples) {
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

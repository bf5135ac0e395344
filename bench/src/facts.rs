//! Facts to measure with: as many as are asked for, the same in every run.

use beam_wire::term::XSD;
use beam_wire::{Fact, Term, TermId};

/// Facts of one subject.
pub const PER_SUBJECT: u64 = 8;

/// The terms of the fact of a number. Each subject has eight facts: a class (four subjects in five have the same
/// one, so that a tenth of all facts have this object), a number, a short name, three links to other subjects, a
/// long text and a date.
pub fn terms(number: u64) -> [Term; 3] {
    let (subject, which) = (number / PER_SUBJECT, number % PER_SUBJECT);
    let chance = mix(number);
    let object = match which {
        0 if chance.is_multiple_of(5) => iri("class", chance % 997),
        0 => iri("class", 0),
        1 => literal(&(chance % 1_000_000).to_string(), "integer"),
        2 => Term::string(format!("n{}", chance % 10_000_000)),
        6 => Term::string(format!("a text that is too long to be an id of its own, number {chance}")),
        7 => literal(&format!("20{:02}-{:02}-11", chance % 30, 1 + chance % 12), "date"),
        // Of the subjects that come before it, the earlier ones have more links to them.
        _ => iri("subject", mix(chance) % (1 + chance % (subject + 1))),
    };
    [iri("subject", subject), iri("predicate", which), object]
}

/// The fact of a number.
pub fn fact(number: u64) -> Fact {
    let [subject, predicate, object] = terms(number).map(|term| TermId::of(&term));
    Fact { subject, predicate, object, graph: TermId::DEFAULT_GRAPH }
}

/// The predicate of a subject's fact.
pub fn predicate(which: u64) -> TermId {
    TermId::of(&iri("predicate", which))
}

/// A number of a seeded sequence.
pub fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn iri(kind: &str, number: u64) -> Term {
    Term::Iri(format!("http://example.com/{kind}/{number}"))
}

fn literal(lexical: &str, datatype: &str) -> Term {
    Term::Literal { lexical: lexical.to_owned(), datatype: format!("{XSD}{datatype}") }
}

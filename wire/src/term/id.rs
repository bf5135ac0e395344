//! What the 17 bytes of a [`TermId`] are. `docs/wire.md` draws them; they are a promise for ever,
//! because they are keys on every view's disk and cut the data into partitions.

use super::{Direction, Term, XSD, XSD_STRING, inline};
use crate::space::Point;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A term's id: a type byte, then the value where it fits, else the first 16 bytes of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TermId(pub [u8; 17]);

const IRI: u8 = 0x01;
const BLANK: u8 = 0x02;
const TRIPLE: u8 = 0x03;
/// A literal of a datatype that has no type byte of its own.
const OTHER: u8 = 0x04;
const LTR: u8 = 0x05;
const RTL: u8 = 0x06;
/// From here on, type bytes come in pairs: the even one means that the value is in the id, the odd
/// one after it that the id is a hash, because the value does not fit or is not in canonical form.
const STRING: u8 = 0x10;
const LANG: u8 = 0x12;
pub(super) const BOOLEAN: u8 = 0x14;
pub(super) const INTEGER: u8 = 0x16;
pub(super) const DECIMAL: u8 = 0x18;
pub(super) const FLOAT: u8 = 0x1a;
pub(super) const DOUBLE: u8 = 0x1c;
pub(super) const DATE_TIME: u8 = 0x1e;
pub(super) const DATE: u8 = 0x20;
pub(super) const YEAR_MONTH: u8 = 0x22;
pub(super) const YEAR: u8 = 0x24;
pub(super) const NON_POSITIVE_INTEGER: u8 = 0x30;
pub(super) const NEGATIVE_INTEGER: u8 = 0x32;
pub(super) const LONG: u8 = 0x34;
pub(super) const INT: u8 = 0x36;
pub(super) const SHORT: u8 = 0x38;
pub(super) const BYTE: u8 = 0x3a;
pub(super) const NON_NEGATIVE_INTEGER: u8 = 0x3c;
pub(super) const UNSIGNED_LONG: u8 = 0x3e;
pub(super) const UNSIGNED_INT: u8 = 0x40;
pub(super) const UNSIGNED_SHORT: u8 = 0x42;
pub(super) const UNSIGNED_BYTE: u8 = 0x44;
pub(super) const POSITIVE_INTEGER: u8 = 0x46;
/// No type byte is this or above.
const END: u8 = 0x48;

/// Datatypes with a type byte, by their name in XML Schema's namespace.
const DATATYPES: [(u8, &str); 22] = [
    (STRING, "string"),
    (BOOLEAN, "boolean"),
    (INTEGER, "integer"),
    (DECIMAL, "decimal"),
    (FLOAT, "float"),
    (DOUBLE, "double"),
    (DATE_TIME, "dateTime"),
    (DATE, "date"),
    (YEAR_MONTH, "gYearMonth"),
    (YEAR, "gYear"),
    (NON_POSITIVE_INTEGER, "nonPositiveInteger"),
    (NEGATIVE_INTEGER, "negativeInteger"),
    (LONG, "long"),
    (INT, "int"),
    (SHORT, "short"),
    (BYTE, "byte"),
    (NON_NEGATIVE_INTEGER, "nonNegativeInteger"),
    (UNSIGNED_LONG, "unsignedLong"),
    (UNSIGNED_INT, "unsignedInt"),
    (UNSIGNED_SHORT, "unsignedShort"),
    (UNSIGNED_BYTE, "unsignedByte"),
    (POSITIVE_INTEGER, "positiveInteger"),
];

impl TermId {
    /// Stands for the default graph where a graph's id is expected. No term has this id.
    pub const DEFAULT_GRAPH: TermId = TermId([0; 17]);

    /// The id of a term: the same on every node, and for ever.
    pub fn of(term: &Term) -> TermId {
        match term {
            Term::Iri(iri) => hashed(IRI, &[iri.as_bytes()]),
            Term::Blank(label) => hashed(BLANK, &[label.as_bytes()]),
            Term::Literal { lexical, datatype } => literal(lexical, datatype),
            Term::LangLiteral { lexical, language, direction } => {
                let kind = match direction {
                    None => LANG,
                    Some(Direction::Ltr) => LTR,
                    Some(Direction::Rtl) => RTL,
                };
                match inline::language_string(lexical, language) {
                    Some(value) if kind == LANG => whole(LANG, value),
                    _ => {
                        let kind = if kind == LANG { LANG + 1 } else { kind };
                        hashed(kind, &[&length(language), language.as_bytes(), lexical.as_bytes()])
                    }
                }
            }
            Term::Triple(parts) => {
                let [subject, predicate, object] = parts.each_ref().map(TermId::of);
                hashed(TRIPLE, &[&subject.0, &predicate.0, &object.0])
            }
        }
    }

    /// The term, where the id holds its whole value. `TermId::of(term).inline()` is exactly `term`
    /// or none; bytes that are the id of no term give none.
    pub fn inline(&self) -> Option<Term> {
        let (kind, value) = self.parts();
        if !(STRING..END).contains(&kind) || !kind.is_multiple_of(2) {
            return None;
        }
        let term = if kind == LANG {
            let (lexical, language) = inline::read_language_string(value)?;
            Term::LangLiteral { lexical, language, direction: None }
        } else {
            let (_, name) = DATATYPES.iter().find(|(byte, _)| *byte == kind)?;
            let lexical = if kind == STRING { inline::read_string(value) } else { inline::read(kind, value) }?;
            Term::Literal { lexical, datatype: format!("{XSD}{name}") }
        };
        (TermId::of(&term) == *self).then_some(term)
    }

    /// Where the term lies in a space: the first 8 bytes of BLAKE3 of the id, most significant first.
    pub fn point(&self) -> Point {
        let hash = blake3::hash(&self.0);
        let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        Point(u64::from_be_bytes(*first))
    }

    /// Whether the whole value is in the id, so that no text has to be fetched.
    pub fn is_inline(&self) -> bool {
        (STRING..END).contains(&self.0[0]) && self.0[0].is_multiple_of(2)
    }

    /// Whether this is the id of an IRI.
    pub fn is_iri(&self) -> bool {
        self.0[0] == IRI
    }

    /// Whether this is the id of a blank node.
    pub fn is_blank(&self) -> bool {
        self.0[0] == BLANK
    }

    /// Whether this is the id of a triple term.
    pub fn is_triple(&self) -> bool {
        self.0[0] == TRIPLE
    }

    /// Whether this is the id of a literal.
    pub fn is_literal(&self) -> bool {
        (OTHER..END).contains(&self.0[0])
    }

    fn parts(&self) -> (u8, &[u8; 16]) {
        let (kind, value) = self.0.split_first().expect("17 bytes");
        (*kind, value.try_into().expect("16 bytes follow the type byte"))
    }
}

impl fmt::Display for TermId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn literal(lexical: &str, datatype: &str) -> TermId {
    if datatype == XSD_STRING {
        return match inline::string(lexical) {
            Some(value) => whole(STRING, value),
            None => hashed(STRING + 1, &[lexical.as_bytes()]),
        };
    }
    let own = datatype.strip_prefix(XSD).and_then(|name| DATATYPES.iter().find(|(_, n)| *n == name));
    match own {
        Some((kind, _)) => match inline::write(*kind, lexical) {
            Some(value) => whole(*kind, value),
            None => hashed(*kind + 1, &[lexical.as_bytes()]),
        },
        None => hashed(OTHER, &[&length(datatype), datatype.as_bytes(), lexical.as_bytes()]),
    }
}

fn whole(kind: u8, value: [u8; 16]) -> TermId {
    let mut id = [kind; 17];
    id[1..].copy_from_slice(&value);
    TermId(id)
}

/// The type byte is hashed too, so that no two kinds of terms can share a hash.
fn hashed(kind: u8, parts: &[&[u8]]) -> TermId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]);
    for part in parts {
        hasher.update(part);
    }
    let (first, _) = hasher.finalize().as_bytes().split_first_chunk().map(|(a, b)| (*a, b.len())).expect("32 bytes");
    whole(kind, first)
}

/// Before a text that another follows.
fn length(text: &str) -> [u8; 8] {
    (text.len() as u64).to_le_bytes()
}

#[cfg(test)]
mod tests;

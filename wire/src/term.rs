//! Terms, and their ids of fixed size.

use crate::space::Point;
use serde::{Deserialize, Serialize};

/// An RDF 1.2 term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Term {
    /// An absolute IRI.
    Iri(String),
    /// A blank node's label, unique in the database.
    Blank(String),
    /// A literal with a datatype; `xsd:string` for simple ones.
    Literal {
        /// As it was written.
        lexical: String,
        /// The datatype's IRI.
        datatype: String,
    },
    /// A literal with a language tag.
    LangLiteral {
        /// As it was written.
        lexical: String,
        /// In lower case.
        language: String,
        /// RDF 1.2's base direction: `ltr` or `rtl`.
        direction: Option<Direction>,
    },
    /// A triple term, nested at most [`DEPTH_MAX`] deep.
    Triple(Box<[Term; 3]>),
}

/// The base direction of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Left to right.
    Ltr,
    /// Right to left.
    Rtl,
}

/// How deep triple terms may nest.
pub const DEPTH_MAX: usize = 64;

/// A term's id: a type byte, then the value where it fits, else the first 16 bytes of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TermId(pub [u8; 17]);

impl TermId {
    /// Stands for the default graph where a graph's id is expected. No term has this id.
    pub const DEFAULT_GRAPH: TermId = TermId([0; 17]);

    /// The id of a term: the same on every node.
    pub fn of(_term: &Term) -> TermId {
        todo!()
    }

    /// The term, where the id holds its whole value.
    pub fn inline(&self) -> Option<Term> {
        todo!()
    }

    /// Where the term lies in a space.
    pub fn point(&self) -> Point {
        todo!()
    }
}

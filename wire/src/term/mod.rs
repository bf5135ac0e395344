//! Terms, and their ids of fixed size.
//!
//! A [`Term`] is a text; a [`TermId`] is 17 bytes that every node computes alike from the text, so
//! that nothing has to hand out ids. `id.rs` says what the bytes are, `inline.rs` how a value is put
//! into them. What a term may be is decided in [`Term::check`]; views reject entries by it, so it
//! must answer the same for ever: it uses no other library's idea of an IRI or a language tag.

mod id;
mod inline;
mod serial;

pub use id::TermId;

use serde::{Deserialize, Serialize};

/// An RDF 1.2 term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

/// How deep triple terms may nest: a triple term whose components are no triple terms has depth 1.
pub const DEPTH_MAX: usize = 64;

/// The namespace of XML Schema's datatypes.
pub const XSD: &str = "http://www.w3.org/2001/XMLSchema#";
/// The datatype of simple literals.
pub const XSD_STRING: &str = "http://www.w3.org/2001/XMLSchema#string";
const RDF_LANG_STRING: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#langString";
const RDF_DIR_LANG_STRING: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#dirLangString";

/// Why something is not a term that Beam stores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermError {
    /// Not an absolute IRI.
    #[error("{0:?} is not an absolute IRI")]
    Iri(String),
    /// Not a blank node's label.
    #[error("{0:?} is not a blank node's label: use ASCII letters, digits, '_', and inside also '-' and '.'")]
    Blank(String),
    /// Not a language tag in lower case.
    #[error("{0:?} is not a language tag in lower case")]
    Language(String),
    /// The datatype of texts with a language, on a literal without one.
    #[error("a literal of datatype {0} must have a language")]
    NoLanguage(String),
    /// A term where RDF does not allow it.
    #[error("a {found} cannot be a {place}")]
    Place {
        /// What the term is.
        found: &'static str,
        /// Where it stands.
        place: &'static str,
    },
    /// Nested too deep.
    #[error("triple terms nest deeper than {DEPTH_MAX}")]
    Depth,
}

impl Term {
    /// A literal of datatype `xsd:string`.
    pub fn string(lexical: impl Into<String>) -> Term {
        Term::Literal { lexical: lexical.into(), datatype: XSD_STRING.into() }
    }

    /// Checks everything that can be wrong with a term by itself.
    pub fn check(&self) -> Result<(), TermError> {
        self.check_below(DEPTH_MAX)
    }

    fn check_below(&self, depth: usize) -> Result<(), TermError> {
        match self {
            Term::Iri(iri) if is_iri(iri) => Ok(()),
            Term::Iri(iri) => Err(TermError::Iri(iri.clone())),
            Term::Blank(label) if is_label(label) => Ok(()),
            Term::Blank(label) => Err(TermError::Blank(label.clone())),
            Term::Literal { datatype, .. } if datatype == RDF_LANG_STRING || datatype == RDF_DIR_LANG_STRING => {
                Err(TermError::NoLanguage(datatype.clone()))
            }
            Term::Literal { datatype, .. } if is_iri(datatype) => Ok(()),
            Term::Literal { datatype, .. } => Err(TermError::Iri(datatype.clone())),
            Term::LangLiteral { language, .. } if is_language(language) => Ok(()),
            Term::LangLiteral { language, .. } => Err(TermError::Language(language.clone())),
            Term::Triple(parts) => {
                let depth = depth.checked_sub(1).ok_or(TermError::Depth)?;
                let [subject, predicate, object] = &**parts;
                subject.can_be_subject()?;
                predicate.can_be_predicate()?;
                [subject, predicate, object].into_iter().try_for_each(|part| part.check_below(depth))
            }
        }
    }

    /// Whether a fact may have this subject: an IRI or a blank node.
    pub fn can_be_subject(&self) -> Result<(), TermError> {
        self.can_be("subject", matches!(self, Term::Iri(_) | Term::Blank(_)))
    }

    /// Whether a fact may have this predicate: an IRI.
    pub fn can_be_predicate(&self) -> Result<(), TermError> {
        self.can_be("predicate", matches!(self, Term::Iri(_)))
    }

    /// Whether a fact may lie in a graph of this name: an IRI or a blank node.
    pub fn can_be_graph(&self) -> Result<(), TermError> {
        self.can_be("graph", matches!(self, Term::Iri(_) | Term::Blank(_)))
    }

    fn can_be(&self, place: &'static str, allowed: bool) -> Result<(), TermError> {
        let found = match self {
            Term::Iri(_) => "IRI",
            Term::Blank(_) => "blank node",
            Term::Literal { .. } | Term::LangLiteral { .. } => "literal",
            Term::Triple(_) => "triple term",
        };
        if allowed { Ok(()) } else { Err(TermError::Place { found, place }) }
    }
}

/// A scheme, a colon, and no character that N-Triples' `IRIREF` excludes. RFC 3987 asks for more;
/// this much is what every syntax can write down again.
fn is_iri(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    let mut letters = scheme.bytes();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.'))
        && text.bytes().all(|c| c > b' ' && !matches!(c, b'<' | b'>' | b'"' | b'{' | b'}' | b'|' | b'^' | b'`' | b'\\'))
}

/// Whether a blank node may be called so: the ASCII part of N-Triples' `BLANK_NODE_LABEL`.
pub fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
    text.bytes().all(inner) && !text.is_empty() && !text.starts_with(['-', '.']) && !text.ends_with('.')
}

/// Turtle's `LANGTAG`, in lower case, with BCP 47's limit of 8 characters for each part.
fn is_language(text: &str) -> bool {
    let mut parts = text.split('-');
    let fits = |part: &str| (1..=8).contains(&part.len());
    parts.next().is_some_and(|p| fits(p) && p.bytes().all(|c| c.is_ascii_lowercase()))
        && parts.all(|p| fits(p) && p.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lang(language: &str) -> Term {
        Term::LangLiteral { lexical: "x".into(), language: language.into(), direction: None }
    }

    #[test]
    fn iris_are_absolute_and_can_be_written_in_every_syntax() {
        for good in ["http://example.org/", "urn:x", "a:", "x+y-1.z:é", "http://例え.jp/%20"] {
            assert_eq!(Term::Iri(good.into()).check(), Ok(()), "{good}");
        }
        for bad in ["", ":", "a", "1:x", "/a:b", "http://a b", "x:<", "x:\"", "x:\\u0020", "x:\0", "x:\n", "x y:z"] {
            assert_eq!(Term::Iri(bad.into()).check(), Err(TermError::Iri(bad.into())));
        }
    }

    #[test]
    fn languages_are_tags_in_lower_case() {
        for good in ["en", "de-ch", "zh-hant-tw", "x-1a", "abcdefgh"] {
            assert_eq!(lang(good).check(), Ok(()));
        }
        for bad in ["", "EN", "en_US", "en-", "-en", "e1", "abcdefghi", "en-US", "é"] {
            assert_eq!(lang(bad).check(), Err(TermError::Language(bad.into())));
        }
        let no_language = Term::Literal { lexical: "x".into(), datatype: RDF_LANG_STRING.into() };
        assert!(matches!(no_language.check(), Err(TermError::NoLanguage(_))));
    }

    #[test]
    fn labels_can_be_written_in_every_syntax() {
        for good in ["a", "0", "_", "a.b", "a-", "A_9"] {
            assert_eq!(Term::Blank(good.into()).check(), Ok(()));
        }
        for bad in ["", ".", "a.", "-a", "a b", "é", "a:b", "_:a"] {
            assert_eq!(Term::Blank(bad.into()).check(), Err(TermError::Blank(bad.into())));
        }
    }

    #[test]
    fn components_of_triple_terms_stand_where_rdf_allows_them() {
        let iri = || Term::Iri("x:y".into());
        let triple = |s, p, o| Term::Triple(Box::new([s, p, o]));
        assert_eq!(triple(iri(), iri(), triple(Term::Blank("b".into()), iri(), lang("en"))).check(), Ok(()));
        let as_subject = triple(triple(iri(), iri(), iri()), iri(), iri());
        assert_eq!(as_subject.check(), Err(TermError::Place { found: "triple term", place: "subject" }));
        let as_predicate = triple(iri(), lang("en"), iri());
        assert_eq!(as_predicate.check(), Err(TermError::Place { found: "literal", place: "predicate" }));
    }

    #[test]
    fn triple_terms_nest_64_deep_and_no_deeper() {
        let nest = |depth| {
            let iri = || Term::Iri("x:y".into());
            (0..depth).fold(iri(), |inner, _| Term::Triple(Box::new([iri(), iri(), inner])))
        };
        assert_eq!(nest(DEPTH_MAX).check(), Ok(()));
        assert_eq!(nest(DEPTH_MAX + 1).check(), Err(TermError::Depth));
    }
}

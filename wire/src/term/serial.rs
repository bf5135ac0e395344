//! Reading terms from bytes without trusting them: nesting is counted down, so that hostile bytes
//! get an error where a derived implementation would exhaust the stack and end the process.

use super::{DEPTH_MAX, Direction, Term};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, SeqAccess, VariantAccess, Visitor};
use std::fmt;

#[derive(serde::Deserialize)]
#[serde(variant_identifier)]
enum Variant {
    Iri,
    Blank,
    Literal,
    LangLiteral,
    Triple,
}

const VARIANTS: &[&str] = &["Iri", "Blank", "Literal", "LangLiteral", "Triple"];

#[derive(serde::Deserialize)]
struct Literal {
    lexical: String,
    datatype: String,
}

#[derive(serde::Deserialize)]
struct LangLiteral {
    lexical: String,
    language: String,
    direction: Option<Direction>,
}

impl<'de> Deserialize<'de> for Term {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Term, D::Error> {
        AnyTerm { depth: DEPTH_MAX }.deserialize(d)
    }
}

/// A term in which `depth` more triple terms may nest.
#[derive(Clone, Copy)]
struct AnyTerm {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for AnyTerm {
    type Value = Term;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Term, D::Error> {
        d.deserialize_enum("Term", VARIANTS, self)
    }
}

impl<'de> Visitor<'de> for AnyTerm {
    type Value = Term;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a term")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Term, A::Error> {
        let (variant, content) = access.variant::<Variant>()?;
        Ok(match variant {
            Variant::Iri => Term::Iri(content.newtype_variant()?),
            Variant::Blank => Term::Blank(content.newtype_variant()?),
            Variant::Literal => {
                let Literal { lexical, datatype } = content.newtype_variant()?;
                Term::Literal { lexical, datatype }
            }
            Variant::LangLiteral => {
                let LangLiteral { lexical, language, direction } = content.newtype_variant()?;
                Term::LangLiteral { lexical, language, direction }
            }
            Variant::Triple => {
                let Some(depth) = self.depth.checked_sub(1) else {
                    return Err(A::Error::custom(super::TermError::Depth));
                };
                Term::Triple(Box::new(content.newtype_variant_seed(Components { depth })?))
            }
        })
    }
}

/// The three components of a triple term.
struct Components {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Components {
    type Value = [Term; 3];
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<[Term; 3], D::Error> {
        d.deserialize_tuple(3, self)
    }
}

impl<'de> Visitor<'de> for Components {
    type Value = [Term; 3];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("three terms")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<[Term; 3], A::Error> {
        let term = AnyTerm { depth: self.depth };
        let mut next = |i| seq.next_element_seed(term)?.ok_or_else(|| A::Error::invalid_length(i, &"three terms"));
        Ok([next(0)?, next(1)?, next(2)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use proptest::prelude::*;

    fn nest(depth: usize) -> Term {
        let iri = || Term::Iri("x:y".into());
        (0..depth).fold(iri(), |inner, _| Term::Triple(Box::new([iri(), iri(), inner])))
    }

    #[test]
    fn every_kind_of_term_comes_back() {
        for term in [
            Term::Iri("x:y".into()),
            Term::Blank("b1".into()),
            Term::string("text"),
            Term::LangLiteral { lexical: "t".into(), language: "ar".into(), direction: Some(Direction::Rtl) },
            Term::LangLiteral { lexical: "t".into(), language: "en".into(), direction: None },
            nest(1),
            nest(DEPTH_MAX),
        ] {
            assert_eq!(codec::decode(&codec::encode(&term)), Ok(term));
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let bytes = codec::encode(&nest(DEPTH_MAX + 1));
        assert!(codec::decode::<Term>(&bytes).is_err());
        // A million triple terms as subjects of one another: a derived implementation aborts here.
        assert!(codec::decode::<Term>(&[4u8; 1_000_000]).is_err());
        // The same as objects, well-formed as far as it goes.
        let objects = [4, 0, 1, b'x', 0, 1, b'y'].repeat(1_000_000);
        assert!(codec::decode::<Term>(&objects).is_err());
        assert!(codec::decode::<Vec<Option<Term>>>(&[&[1, 1], objects.as_slice()].concat()).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((term, _)) = codec::take::<Term>(&bytes) {
                prop_assert_eq!(codec::decode::<Term>(&codec::encode(&term)), Ok(term));
            }
        }
    }
}

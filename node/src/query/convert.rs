//! Terms as the evaluator has them, and as they travel.

use beam_wire::Term;
use beam_wire::term::Direction;
use oxrdf::{BaseDirection, BlankNode, Literal, NamedNode, NamedOrBlankNode, Triple};

/// The term as it travels.
pub fn to_wire(term: &oxrdf::Term) -> Term {
    match term {
        oxrdf::Term::NamedNode(n) => Term::Iri(n.as_str().to_owned()),
        oxrdf::Term::BlankNode(n) => Term::Blank(n.as_str().to_owned()),
        oxrdf::Term::Literal(l) => match l.language() {
            Some(language) => Term::LangLiteral {
                lexical: l.value().to_owned(),
                language: language.to_owned(),
                direction: l.direction().map(|d| match d {
                    BaseDirection::Ltr => Direction::Ltr,
                    BaseDirection::Rtl => Direction::Rtl,
                }),
            },
            None => Term::Literal { lexical: l.value().to_owned(), datatype: l.datatype().as_str().to_owned() },
        },
        oxrdf::Term::Triple(t) => Term::Triple(Box::new([
            to_wire(&t.subject.clone().into()),
            to_wire(&t.predicate.clone().into()),
            to_wire(&t.object),
        ])),
    }
}

/// The term as the evaluator has it; nothing where RDF 1.2 does not allow it (a triple term whose
/// subject is a literal, for example).
pub fn from_wire(term: &Term) -> Option<oxrdf::Term> {
    Some(match term {
        Term::Iri(iri) => NamedNode::new_unchecked(iri).into(),
        Term::Blank(label) => BlankNode::new_unchecked(label).into(),
        Term::Literal { lexical, datatype } => {
            Literal::new_typed_literal(lexical, NamedNode::new_unchecked(datatype)).into()
        }
        Term::LangLiteral { lexical, language, direction: None } => {
            Literal::new_language_tagged_literal_unchecked(lexical, language).into()
        }
        Term::LangLiteral { lexical, language, direction: Some(direction) } => {
            let direction = match direction {
                Direction::Ltr => BaseDirection::Ltr,
                Direction::Rtl => BaseDirection::Rtl,
            };
            Literal::new_directional_language_tagged_literal_unchecked(lexical, language, direction).into()
        }
        Term::Triple(parts) => {
            let subject: NamedOrBlankNode = match from_wire(&parts[0])? {
                oxrdf::Term::NamedNode(n) => n.into(),
                oxrdf::Term::BlankNode(n) => n.into(),
                _ => return None,
            };
            let oxrdf::Term::NamedNode(predicate) = from_wire(&parts[1])? else { return None };
            Triple::new(subject, predicate, from_wire(&parts[2])?).into()
        }
    })
}

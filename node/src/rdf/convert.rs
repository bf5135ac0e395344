//! Terms of the parsers' library, and ours.

use super::read::Quad;
use beam_wire::term::{DEPTH_MAX, Direction, Term, TermError, XSD_STRING};
use oxrdf::{BaseDirection, BlankNode, GraphName, Literal, NamedNode, NamedOrBlankNode, Triple};

/// Our term, of one that the parsers made.
///
/// # Errors
/// If triple terms nest too deep.
pub fn from_oxrdf(term: oxrdf::Term) -> Result<Term, TermError> {
    from_oxrdf_below(term, DEPTH_MAX)
}

fn from_oxrdf_below(term: oxrdf::Term, depth: usize) -> Result<Term, TermError> {
    Ok(match term {
        oxrdf::Term::NamedNode(node) => Term::Iri(node.into_string()),
        oxrdf::Term::BlankNode(node) => Term::Blank(node.into_string()),
        oxrdf::Term::Literal(literal) => from_literal(literal),
        oxrdf::Term::Triple(triple) => {
            let depth = depth.checked_sub(1).ok_or(TermError::Depth)?;
            let Triple { subject, predicate, object } = *triple;
            let predicate = Term::Iri(predicate.into_string());
            Term::Triple(Box::new([from_node(subject), predicate, from_oxrdf_below(object, depth)?]))
        }
    })
}

fn from_literal(literal: Literal) -> Term {
    match literal.destruct() {
        (lexical, _, Some(mut language), direction) => {
            language.make_ascii_lowercase();
            let direction = direction.map(|direction| match direction {
                BaseDirection::Ltr => Direction::Ltr,
                BaseDirection::Rtl => Direction::Rtl,
            });
            Term::LangLiteral { lexical, language, direction }
        }
        (lexical, datatype, None, _) => {
            let datatype = datatype.map_or_else(|| XSD_STRING.into(), NamedNode::into_string);
            Term::Literal { lexical, datatype }
        }
    }
}

/// Our term, of a subject.
fn from_node(node: NamedOrBlankNode) -> Term {
    match node {
        NamedOrBlankNode::NamedNode(node) => Term::Iri(node.into_string()),
        NamedOrBlankNode::BlankNode(node) => Term::Blank(node.into_string()),
    }
}

/// Our fact, of one that the parsers made.
///
/// # Errors
/// If triple terms nest too deep.
pub fn from_quad(quad: oxrdf::Quad) -> Result<Quad, TermError> {
    let graph = match quad.graph_name {
        GraphName::DefaultGraph => None,
        GraphName::NamedNode(node) => Some(Term::Iri(node.into_string())),
        GraphName::BlankNode(node) => Some(Term::Blank(node.into_string())),
    };
    let predicate = Term::Iri(quad.predicate.into_string());
    Ok(Quad { fact: [from_node(quad.subject), predicate, from_oxrdf(quad.object)?], graph })
}

/// The library's term, of ours. Nothing is checked: our terms were, when they came in.
///
/// # Errors
/// If a triple term has a component where RDF does not allow it.
pub fn to_oxrdf(term: &Term) -> Result<oxrdf::Term, TermError> {
    Ok(match term {
        Term::Iri(iri) => NamedNode::new_unchecked(iri).into(),
        Term::Blank(label) => BlankNode::new_unchecked(label).into(),
        Term::Literal { lexical, datatype } if datatype == XSD_STRING => Literal::new_simple_literal(lexical).into(),
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
        Term::Triple(parts) => to_triple(&parts[0], &parts[1], &parts[2])?.into(),
    })
}

/// The library's triple, of our terms.
///
/// # Errors
/// If a term stands where RDF does not allow it.
pub fn to_triple(subject: &Term, predicate: &Term, object: &Term) -> Result<Triple, TermError> {
    Ok(Triple { subject: to_node(subject)?, predicate: to_predicate(predicate)?, object: to_oxrdf(object)? })
}

/// The library's quad, of ours.
///
/// # Errors
/// If a term stands where RDF does not allow it.
pub fn to_quad(quad: &Quad) -> Result<oxrdf::Quad, TermError> {
    let [subject, predicate, object] = &quad.fact;
    let graph = match &quad.graph {
        None => GraphName::DefaultGraph,
        Some(graph) => {
            graph.can_be_graph()?;
            to_node(graph)?.into()
        }
    };
    Ok(to_triple(subject, predicate, object)?.in_graph(graph))
}

fn to_node(term: &Term) -> Result<NamedOrBlankNode, TermError> {
    term.can_be_subject()?;
    Ok(match term {
        Term::Blank(label) => BlankNode::new_unchecked(label).into(),
        Term::Iri(iri) => NamedNode::new_unchecked(iri).into(),
        _ => unreachable!("only IRIs and blank nodes can be subjects"),
    })
}

fn to_predicate(term: &Term) -> Result<NamedNode, TermError> {
    term.can_be_predicate()?;
    match term {
        Term::Iri(iri) => Ok(NamedNode::new_unchecked(iri)),
        _ => unreachable!("only IRIs can be predicates"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_term_comes_back() {
        let iri = || Term::Iri("http://example.org/a".into());
        for term in [
            iri(),
            Term::Blank("b1".into()),
            Term::string("plain"),
            Term::Literal { lexical: "01".into(), datatype: "http://www.w3.org/2001/XMLSchema#integer".into() },
            Term::LangLiteral { lexical: "text".into(), language: "en-gb".into(), direction: None },
            Term::LangLiteral { lexical: "نص".into(), language: "ar".into(), direction: Some(Direction::Rtl) },
            Term::LangLiteral { lexical: "text".into(), language: "en".into(), direction: Some(Direction::Ltr) },
            Term::Triple(Box::new([Term::Blank("b".into()), iri(), Term::Triple(Box::new([iri(), iri(), iri()]))])),
        ] {
            assert_eq!(from_oxrdf(to_oxrdf(&term).unwrap()), Ok(term));
        }
    }

    #[test]
    fn terms_in_the_wrong_place_are_refused() {
        let iri = Term::Iri("http://example.org/a".into());
        let text = Term::string("text");
        assert!(to_triple(&text, &iri, &iri).is_err());
        assert!(to_triple(&iri, &Term::Blank("b".into()), &iri).is_err());
        assert!(to_quad(&Quad { fact: [iri.clone(), iri.clone(), iri.clone()], graph: Some(text) }).is_err());
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let iri = || NamedNode::new_unchecked("x:y");
        let nest =
            |depth| (0..depth).fold(oxrdf::Term::from(iri()), |inner, _| Triple::new(iri(), iri(), inner).into());
        assert!(from_oxrdf(nest(DEPTH_MAX)).is_ok());
        assert_eq!(from_oxrdf(nest(DEPTH_MAX + 1)), Err(TermError::Depth));
    }
}

//! Our path over a source, against spareval over all facts at once: every query of a long list, over
//! random data that is small and dense, so that every trap of optional, negated and correlated parts
//! is met.

use super::testing::{Memory, answer, rows};
use super::{Query, parse_query};
use beam_wire::message::api::Shape;
use oxrdf::{BlankNode, Dataset, GraphName, Literal, NamedNode, NamedOrBlankNode, Quad, Term};
use proptest::prelude::*;
use spareval::{QueryEvaluator, QueryResults};

fn iri(name: &str) -> NamedNode {
    NamedNode::new_unchecked(format!("http://example.com/{name}"))
}

/// Few nodes, three properties, two named graphs.
fn quads() -> impl Strategy<Value = Vec<Quad>> {
    let node = prop_oneof![
        6 => (0..6u8).prop_map(|n| NamedOrBlankNode::from(iri(&format!("n{n}")))),
        1 => (0..2u8).prop_map(|n| NamedOrBlankNode::from(BlankNode::new_unchecked(format!("b{n}")))),
    ];
    let object = prop_oneof![
        6 => node.clone().prop_map(Term::from),
        1 => (0..3i64).prop_map(|n| Term::from(Literal::from(n))),
        1 => (0..2u8).prop_map(|n| Literal::new_typed_literal(format!("0{n}"), oxrdf::vocab::xsd::INTEGER).into()),
        1 => (0..2u8).prop_map(|n| {
            Literal::new_language_tagged_literal_unchecked(format!("a text that fits into no id, number {n}"), "en").into()
        }),
    ];
    let graph = prop_oneof![
        4 => Just(GraphName::DefaultGraph),
        1 => Just(GraphName::from(iri("g1"))),
        1 => Just(GraphName::from(iri("g2"))),
    ];
    let quad = (node, (0..3u8).prop_map(|n| iri(&format!("p{n}"))), object, graph);
    prop::collection::vec(quad.prop_map(|(s, p, o, g)| Quad::new(s, p, o, g)), 0..40)
}

/// Patterns; each is tried as `SELECT *`, `ASK` and in other queries of its own.
const PATTERNS: &[&str] = &[
    "?s ?p ?o",
    ":n1 ?p ?o",
    "?s :p0 ?o . ?o :p1 ?z",
    "?s :p0 ?o . ?o :p1 ?z . ?z :p2 ?s",
    "?s :p0 ?s",
    "?s ?s ?o",
    "?s ?p ?p",
    ":n1 :p0 ?x . ?y :p1 ?x . ?y ?p ?z",
    "?s :p0 1",
    "?s ?p 01",
    "?s ?p ?o FILTER(?o = 1)",
    "?s ?p ?o FILTER(sameTerm(?o, 1))",
    "?s ?p ?o FILTER(?s = :n1 || ?s = :n2)",
    "?s ?p ?o FILTER(?s IN (:n1, :n3) && ?o != :n0)",
    "?s ?p ?o FILTER(?s NOT IN (:n1, :n3))",
    "?s ?p ?o FILTER(!(?s = :n1))",
    // OPTIONAL: a variable that the left may leave unbound, narrowed by what follows or surrounds it.
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z } ?z :p2 ?w",
    "?z :p2 ?w { ?s :p0 ?o OPTIONAL { ?o :p1 ?z } }",
    "VALUES ?z { :n1 :n2 } { ?s :p0 ?o OPTIONAL { ?o :p1 ?z } }",
    "{ ?s :p0 ?o OPTIONAL { ?o :p1 ?z } } VALUES ?z { :n1 }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z } FILTER(?z = :n1)",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z } FILTER(!BOUND(?z))",
    "?s :p0 ?o OPTIONAL { ?s :p1 ?z } OPTIONAL { ?o :p1 ?z } OPTIONAL { ?z :p2 ?w }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z OPTIONAL { ?z :p2 ?w } }",
    "?s :p0 ?o OPTIONAL { ?x :p1 ?z OPTIONAL { ?z :p2 ?o } }",
    "?x :p0 ?o OPTIONAL { { ?y :p1 ?z OPTIONAL { ?z :p2 ?x } } }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z FILTER(?z != ?s) }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z FILTER(?z = :n1) }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z FILTER(?s = :n1) }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z FILTER EXISTS { ?z :p2 ?s } }",
    "OPTIONAL { ?s :p0 ?o } OPTIONAL { ?s :p1 ?z }",
    "{ OPTIONAL { :n1 :p0 ?z } } ?s :p1 ?z",
    "?s :p1 ?z { OPTIONAL { ?s :p0 ?z } }",
    // MINUS: rows without shared variables are ignored; unbound variables share nothing.
    "?s :p0 ?o MINUS { ?s :p1 ?z }",
    "?s :p0 ?o MINUS { ?a :p1 ?b }",
    "?s :p0 ?o MINUS { ?s :p1 ?o }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z } MINUS { ?s :p2 ?z }",
    "{ ?s :p0 ?o OPTIONAL { ?o :p1 ?z } MINUS { ?o :p2 ?z } } VALUES ?z { :n1 :n2 }",
    "?s :p0 ?o MINUS { ?s :p1 ?z OPTIONAL { ?z :p2 ?o } }",
    "?s :p0 ?o MINUS { ?s :p1 ?z MINUS { ?z :p2 ?o } }",
    "?s :p0 ?o MINUS { VALUES (?s ?o) { (:n1 UNDEF) (UNDEF :n2) } }",
    // EXISTS is correlated.
    "?s :p0 ?o FILTER EXISTS { ?o :p1 ?s }",
    "?s :p0 ?o FILTER NOT EXISTS { ?o :p1 ?z }",
    "?s :p0 ?o FILTER NOT EXISTS { ?o :p1 ?z FILTER(?z = ?s) }",
    "?s :p0 ?o FILTER NOT EXISTS { ?a :p1 ?b FILTER EXISTS { ?b :p2 ?s } }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z } FILTER EXISTS { ?s :p2 ?z }",
    "?s :p0 ?o OPTIONAL { ?o :p1 ?z } FILTER NOT EXISTS { ?z :p2 ?s }",
    "?s :p0 ?o FILTER(EXISTS { ?s :p1 ?o } || ?o = :n1)",
    "?s :p0 ?o FILTER NOT EXISTS { ?s :p1 ?z OPTIONAL { ?z :p2 ?w } FILTER(!BOUND(?w)) }",
    "?s :p0 ?o FILTER EXISTS { { ?s :p1 ?z } UNION { ?o :p2 ?z } }",
    "?s :p0 ?o FILTER NOT EXISTS { ?s :p1 ?z MINUS { ?z :p2 ?o } }",
    "?s :p0 ?o BIND(EXISTS { ?o :p1 ?z } AS ?e)",
    "?s :p0 ?o FILTER EXISTS { ?s :p1+ ?o }",
    // UNION
    "{ ?s :p0 ?o } UNION { ?s :p1 ?o }",
    "{ ?s :p0 ?o } UNION { ?z :p1 ?w } ?s :p2 ?q",
    "?s :p2 ?q { { ?s :p0 ?o } UNION { ?o :p1 ?s } UNION { :n1 :p1 ?z } }",
    "{ ?s :p0 ?o } UNION { ?s :p1 ?z } OPTIONAL { ?z :p2 ?o }",
    "{ { ?s :p0 ?o } UNION { ?s :p1 ?z } } MINUS { ?s :p2 ?o }",
    "{} UNION { ?s :p0 ?o }",
    // VALUES, BIND
    "VALUES ?s { :n1 :n2 :nowhere } ?s ?p ?o",
    "VALUES (?s ?o) { (:n1 UNDEF) (UNDEF :n2) (:n3 :n4) } ?s :p0 ?o",
    "VALUES (?s ?o) { (:n1 UNDEF) (UNDEF :n2) } ?s :p0 ?z . ?z :p1 ?o",
    "VALUES ?o { 1 01 } ?s ?p ?o",
    "BIND(:n1 AS ?s) ?s ?p ?o",
    "?s :p0 ?o BIND(?o AS ?z) OPTIONAL { ?z :p1 ?w }",
    "?s :p0 ?o BIND(1/0 AS ?z) ?q :p1 ?w",
    "?s :p0 ?o BIND(STR(?o) AS ?t) BIND(LANG(?o) AS ?l)",
    "BIND(1 + 0 AS ?o) ?s ?p ?o",
    "?s :p0 ?o BIND(IF(?o = :n1, :n2, :n3) AS ?z) ?z :p1 ?w",
    // Paths
    "?s :p0+ ?o",
    "?s :p0* ?o",
    "?s :p0? ?o",
    ":n1 :p0+ ?o",
    ":n1 :p0* ?o",
    ":nowhere :p0* ?o",
    "?s :p0* :nowhere",
    ":nowhere :p0? :nowhere",
    ":nowhere :p0* :n1",
    "1 :p0* ?o",
    "?s :p0* 1",
    "?s (:p0/:p1)+ :n1",
    "?s (:p0|:p1)* :n1",
    "?s ^:p0/:p1 ?o",
    "?s (^:p0|:p1)+ ?o . ?o :p2 :n1",
    "?s !(:p0|:p1) ?o",
    "?s !(:p0|^:p1) :n1",
    ":n1 (!:p0)+ ?o",
    "?s :p0 ?m . ?m :p1* ?o",
    "?s :p0 ?m . ?o :p1+ ?m",
    "VALUES ?s { :n1 :n2 :nowhere } ?s :p0* ?o",
    "VALUES ?o { :n1 :n2 :nowhere } ?s :p0* ?o",
    "VALUES ?s { :p0 :n5 } ?s :p1? ?o",
    "BIND(:nowhere AS ?s) ?s :p0* ?o",
    "?a ?s ?b . ?s :p0* ?o",
    ":n1 :p0*/:p1 ?o",
    ":n1 :p0*/:p1* ?o",
    "?s (:p0*/:p1)|:p2 ?o",
    ":n1 :p0? ?x . ?x :p1? ?y",
    "?x :p0* ?x",
    ":n1 (:p0/:p1?)* :n2",
    "?s :p0 ?o OPTIONAL { ?o :p1* ?z }",
    "?s :p0 ?o FILTER NOT EXISTS { ?o :p1* :n1 }",
    // GRAPH
    "GRAPH ?g { ?s ?p ?o }",
    "GRAPH :g1 { ?s ?p ?o }",
    "GRAPH :nowhere { ?s ?p ?o }",
    "GRAPH ?g {}",
    "GRAPH :g1 {}",
    "GRAPH :nowhere {}",
    "GRAPH ?g { ?s :p0 ?o OPTIONAL { ?o :p1 ?z } }",
    "GRAPH ?g { OPTIONAL { ?o :p1 ?z } }",
    "GRAPH ?g { ?s :p0 ?o MINUS { ?s :p1 ?z } }",
    "GRAPH ?g { ?s :p0 ?o } GRAPH ?h { ?o :p1 ?z }",
    "GRAPH ?g { ?s :p0 ?o } ?g ?p ?x",
    "VALUES ?g { :g1 :nowhere } GRAPH ?g { ?s ?p ?o }",
    "VALUES ?g { :g1 :nowhere } GRAPH ?g {}",
    "?s :p0 ?o GRAPH ?g { ?o ?p ?z }",
    "?s :p0 ?o OPTIONAL { GRAPH ?g { ?o ?p ?z } }",
    "?s :p0 ?o FILTER NOT EXISTS { GRAPH ?g { ?s ?p ?z } }",
    "GRAPH ?g { ?s :p0+ ?o }",
    "GRAPH ?g { :n1 :p0* ?o }",
    "GRAPH ?g { ?s :p0? :n1 }",
    "GRAPH ?g { ?s :p0* ?o }",
    "GRAPH :g1 { :n1 :p0* ?o }",
    "GRAPH :g1 { ?s :p0* ?o }",
    "VALUES ?s { :n1 :n2 } GRAPH ?g { ?s :p0* ?o }",
    "GRAPH ?g { ?s ?p ?g }",
    "GRAPH ?g { { SELECT ?s { ?s :p0 ?g } } ?s :p1 ?o }",
    "GRAPH ?g { { SELECT ?s ?g { ?s :p0 ?o } } }",
    "GRAPH ?g { { SELECT (COUNT(*) AS ?n) { ?s :p0 ?o } } }",
    // Sub-selects
    "?s :p0 ?o { SELECT ?o { ?o :p1 ?s } }",
    "?s :p0 ?o { SELECT ?o (COUNT(*) AS ?n) { ?o ?p ?z } GROUP BY ?o }",
    "?s :p0 ?o { SELECT (COUNT(*) AS ?n) { ?o ?p ?z } }",
    "?s :p0 ?o { SELECT ?o (COUNT(?z) AS ?n) { ?o :p1 ?x OPTIONAL { ?x :p2 ?z } } GROUP BY ?o HAVING(COUNT(?z) > 0) }",
    "VALUES ?n { 1 2 } { SELECT (COUNT(*) AS ?n) { ?o ?p ?z } }",
    "VALUES ?o { :n1 } { SELECT ?o { ?o ?p ?z } ORDER BY ?o ?p ?z LIMIT 2 }",
    "{ SELECT DISTINCT ?o { ?s ?p ?o } } ?o :p0 ?z",
    "?s :p0 ?o OPTIONAL { SELECT ?o (MAX(STR(?z)) AS ?m) { ?o :p1 ?z } GROUP BY ?o }",
    "?s :p0 ?o MINUS { SELECT ?s { ?s :p1 ?z } }",
    "?s :p0 ?o FILTER EXISTS { SELECT ?o { ?o :p1 ?s } }",
    // Blank nodes in patterns
    "?s :p0 [ :p1 ?z ]",
    "[] :p0 [] ; :p1 ?z",
    "_:x :p0 ?o . ?o :p1 _:x",
    ":n1 :p0* [ :p1 ?z ]",
    // Joins on variables that may be unbound
    "{ ?s :p0 ?o OPTIONAL { ?o :p1 ?z } } { ?a :p1 ?b OPTIONAL { ?b :p2 ?z } }",
    "{ ?a :p0 ?b } { ?c :p1 ?d }",
];

/// Whole queries. Where only some of the rows are asked for, or one of several equal values, no two are equal: of `1`
/// and `01` either would do.
const QUERIES: &[&str] = &[
    "SELECT ?s ?o { ?s :p0 ?o } ORDER BY ?s ?o",
    "SELECT DISTINCT ?s { ?s ?p ?o } ORDER BY DESC(?s)",
    "SELECT REDUCED ?s { ?s ?p ?o }",
    "SELECT (COUNT(*) AS ?n) { ?s ?p ?o }",
    "SELECT (COUNT(*) AS ?n) { :nowhere ?p ?o }",
    "SELECT ?p (COUNT(DISTINCT ?s) AS ?n) (SUM(?o) AS ?t) (MIN(STR(?o)) AS ?m) { ?s ?p ?o } GROUP BY ?p",
    "SELECT ?s (GROUP_CONCAT(STR(?o)) AS ?c) { { SELECT ?s ?o { ?s :p0 ?o } ORDER BY ?s ?o } } GROUP BY ?s",
    "SELECT ?s (COUNT(?o) AS ?n) { ?s :p0 ?o } GROUP BY ?s HAVING (COUNT(?o) > 1)",
    "SELECT ?s (AVG(?o) AS ?n) { ?s ?p ?o FILTER(isNumeric(?o)) } GROUP BY ?s ORDER BY ?n ?s",
    "SELECT * { ?s ?p ?o FILTER(!isNumeric(?o)) } ORDER BY ?s ?p ?o OFFSET 2 LIMIT 3",
    "SELECT (?o AS ?x) (STRLEN(STR(?o)) AS ?n) { ?s :p0 ?o }",
    "SELECT ?s { ?s :p0 ?o } ORDER BY EXISTS { ?s :p1 ?z } ?s ?o",
    "SELECT (SUM(IF(EXISTS { ?s :p1 ?z }, 1, 0)) AS ?n) { ?s :p0 ?o }",
    "CONSTRUCT { ?o :q ?s } WHERE { ?s :p0 ?o }",
    "CONSTRUCT WHERE { ?s :p0 ?o }",
    "CONSTRUCT { ?s :q ?z } WHERE { ?s :p0 ?o OPTIONAL { ?o :p1 ?z } }",
    "SELECT * FROM :g1 { ?s ?p ?o }",
    "SELECT * FROM :g1 FROM :g2 { ?s ?p ?o }",
    "SELECT * FROM :g1 FROM NAMED :g2 { ?s :p0 ?o GRAPH ?g { ?o ?p ?z } }",
    "SELECT * FROM NAMED :g1 { GRAPH ?g { ?s :p0 ?o } OPTIONAL { ?s ?p ?z } }",
    "SELECT * FROM NAMED :g1 FROM NAMED :nowhere { GRAPH ?g {} }",
    "SELECT * FROM :g1 { GRAPH ?g { ?s ?p ?o } }",
    "SELECT * FROM NAMED :g1 { GRAPH :g2 { ?s ?p ?o } }",
    "SELECT * FROM :g1 FROM :g2 { ?s :p0* ?o }",
    "SELECT * FROM :g1 FROM :g2 { VALUES ?s { :n1 :n2 } ?s :p0* ?o }",
    "SELECT * FROM :g1 FROM :g2 { ?s :p0 ?o MINUS { ?o :p1 ?z } }",
    "SELECT ?x { VALUES ?x { :n1 :n2 } FILTER NOT EXISTS { ?x ?p ?o } }",
];

fn parse(text: &str) -> Query {
    let text = format!("PREFIX : <http://example.com/> {text}");
    parse_query(&text, None).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn queries() -> Vec<(String, Query)> {
    let select = PATTERNS.iter().map(|p| format!("SELECT * {{ {p} }}"));
    let ask = PATTERNS.iter().map(|p| format!("ASK {{ {p} }}"));
    let nested = PATTERNS.iter().map(|p| format!("SELECT * {{ ?s :p2 ?z OPTIONAL {{ {p} }} }}"));
    let negated = PATTERNS.iter().map(|p| format!("SELECT * {{ ?s :p2 ?z FILTER NOT EXISTS {{ {p} }} }}"));
    let whole = QUERIES.iter().map(|q| q.to_string());
    select.chain(ask).chain(nested).chain(negated).chain(whole).map(|q| (q.clone(), parse(&q))).collect()
}

/// What spareval says when it has all facts at hand. FROM graphs are merged: it would not see that two
/// of them hold the same triple.
fn oracle(query: &Query, dataset: &Dataset) -> (String, Vec<String>) {
    let mut merged = Dataset::new();
    let from = query.0.dataset();
    for quad in dataset {
        let graph = match quad.graph_name {
            oxrdf::GraphNameRef::NamedNode(n) => Some(n.into_owned()),
            _ => None,
        };
        if from.is_none() || graph.is_some() {
            merged.insert(quad);
        }
        if let (Some(from), Some(graph)) = (from, graph)
            && from.default.contains(&graph)
        {
            merged.insert(oxrdf::QuadRef::new(
                quad.subject,
                quad.predicate,
                quad.object,
                oxrdf::GraphNameRef::DefaultGraph,
            ));
        }
    }
    let evaluator = QueryEvaluator::new();
    let mut prepared = evaluator.prepare(&query.0);
    if from.is_some() {
        prepared.dataset_mut().set_default_graph(vec![GraphName::DefaultGraph]);
    }
    match prepared.execute(&merged).unwrap() {
        QueryResults::Boolean(b) => (b.to_string(), vec![]),
        QueryResults::Solutions(solutions) => {
            let head = solutions.variables().iter().map(|v| format!("{v} ")).collect();
            (head, solutions.map(|s| line(s.unwrap().values())).collect())
        }
        QueryResults::Graph(triples) => {
            let lines = triples.map(|t| {
                let t = t.unwrap();
                line(&[Some(t.subject.into()), Some(t.predicate.into()), Some(t.object)])
            });
            ("graph".into(), lines.collect())
        }
    }
}

fn line(row: &[Option<Term>]) -> String {
    row.iter().map(|t| t.as_ref().map_or("- ".into(), |t| format!("{t} "))).collect()
}

fn ours(query: &Query, source: &Memory) -> (String, Vec<String>) {
    let answer = answer(query, source).unwrap();
    let head = match &answer.shape {
        Shape::Boolean(b) => b.to_string(),
        Shape::Solutions { variables } => variables.iter().map(|v| format!("?{v} ")).collect(),
        Shape::Graph => "graph".into(),
    };
    (head, rows(&answer).iter().map(|r| line(r)).collect())
}

fn agree(text: &str, query: &Query, dataset: &Dataset, source: &Memory) -> Result<(), TestCaseError> {
    let ((head, mut ours), (expected_head, mut expected)) = (ours(query, source), oracle(query, dataset));
    if !text.contains("ORDER BY ?s ?p ?o") {
        ours.sort();
        expected.sort();
    }
    if text.contains("REDUCED") {
        ours.dedup();
        expected.dedup();
    }
    prop_assert_eq!(head, expected_head, "{}", text);
    prop_assert_eq!(ours, expected, "{}", text);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_query_has_the_answer_that_it_has_over_all_facts(quads in quads()) {
        let dataset: Dataset = quads.into_iter().collect();
        let source = Memory::of(&dataset);
        for (text, query) in queries() {
            agree(&text, &query, &dataset, &source)?;
        }
    }

    #[test]
    fn describe_follows_blank_nodes(quads in quads()) {
        let dataset: Dataset = quads.into_iter().collect();
        let source = Memory::of(&dataset);
        for text in ["DESCRIBE :n1", "DESCRIBE ?s { ?s :p0 :n1 }", "DESCRIBE * { ?s :p0 ?o }", "DESCRIBE :nowhere"] {
            let query = parse(text);
            let (mut ours, mut expected) = (ours(&query, &source).1, oracle(&query, &dataset).1);
            ours.sort();
            expected.sort();
            expected.dedup();
            prop_assert_eq!(ours, expected, "{}", text);
        }
    }
}

//! Stories about queries and updates: what is fetched, what is refused, and what an update comes to.

use super::testing::{Memory, answer, env, rows, run};
use super::{Changes, Limits, QueryError, evaluate, parse_query, parse_update, plan_update};
use crate::rdf::read::Quad;
use beam_wire::command::{AccessPath, READS_MAX};
use beam_wire::error::{CallError, Code};
use beam_wire::message::api::QueryReply;
use beam_wire::{Term, TermId};
use oxrdfio::{RdfFormat, RdfParser};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

const PREFIX: &str = "PREFIX : <http://example.com/> ";

fn memory(trig: &str) -> Memory {
    let text = format!("@prefix : <http://example.com/> . {trig}");
    Memory::new(RdfParser::from_format(RdfFormat::TriG).for_slice(&text).map(|q| q.expect("TriG")))
}

fn people() -> Memory {
    memory(
        ":alice :knows :bob, :carol ; :name 'Alice' . :bob :knows :carol ; :name 'Bob' .
         :carol :name 'Carol' ; :age 30 . :g { :alice :likes :bob }",
    )
}

fn ask(source: &Memory, query: &str) -> Vec<String> {
    let query = parse_query(&format!("{PREFIX}{query}"), None).unwrap();
    let mut lines: Vec<String> = rows(&answer(&query, source).unwrap())
        .iter()
        .map(|row| row.iter().map(|t| t.as_ref().map_or("-".into(), |t| t.to_string())).collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines
}

fn plan(source: &Memory, update: &str) -> Result<Changes, QueryError> {
    let update = parse_update(&format!("{PREFIX}{update}"), None)?;
    run(plan_update(&update, source, Limits::default(), &env()))
}

fn short(quads: &[Quad]) -> Vec<String> {
    let term = |t: &Term| match t {
        Term::Iri(iri) => iri.replace("http://example.com/", ":"),
        Term::Blank(_) => "_:".into(),
        Term::Literal { lexical, .. } => lexical.clone(),
        other => format!("{other:?}"),
    };
    let quad = |q: &Quad| {
        let graph = q.graph.as_ref().map_or(String::new(), |g| format!(" {}", term(g)));
        format!("{}{graph}", q.fact.iter().map(term).collect::<Vec<_>>().join(" "))
    };
    let mut lines: Vec<String> = quads.iter().map(quad).collect();
    lines.sort();
    lines
}

fn id(name: &str) -> TermId {
    TermId::of(&Term::Iri(format!("http://example.com/{name}")))
}

fn reads(paths: &[AccessPath]) -> Vec<u64> {
    paths.iter().map(AccessPath::hash).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn a_selective_query_fetches_little() {
    let mut text = String::new();
    for i in 0..2_000 {
        text += &format!(":p{i} a :Person ; :name 'someone whose name is {i}' ; :knows :p{} .", (i + 1) % 2_000);
    }
    let source = memory(&text);
    assert_eq!(
        ask(&source, "SELECT ?n { :p7 :knows ?x . ?x :name ?n . ?x a :Person }"),
        [r#""someone whose name is 8""#]
    );
    assert_eq!(source.facts.load(Ordering::Relaxed), 3);
    assert_eq!(source.texts.load(Ordering::Relaxed), 1, "the name alone is shown");
    // Which is first does not depend on how it is written.
    assert_eq!(
        ask(&source, "SELECT ?n { ?x a :Person . ?x :name ?n . :p7 :knows ?x }"),
        [r#""someone whose name is 8""#]
    );
    assert_eq!(source.facts.load(Ordering::Relaxed), 6);
    assert_eq!(source.scans.load(Ordering::Relaxed), 0);
}

#[test]
fn a_limit_without_an_order_fetches_no_more_rows_than_it_keeps() {
    let text: String = (0..500).map(|i| format!(":s{i} :p {i} .")).collect();
    let source = memory(&text);
    assert_eq!(ask(&source, "SELECT * { ?s ?p ?o } LIMIT 5").len(), 5);
    assert_eq!(ask(&source, "SELECT ?s { ?s :p ?o } OFFSET 3 LIMIT 2").len(), 2);
    let query = parse_query("ASK { ?s ?p ?o }", None).unwrap();
    answer(&query, &source).unwrap();
    assert_eq!(source.facts.load(Ordering::Relaxed), 5 + 5 + 1);
    // Which rows DISTINCT keeps depends on all of them.
    assert_eq!(ask(&source, "SELECT DISTINCT ?p { ?s ?p ?o } LIMIT 5").len(), 1);
}

#[test]
fn too_large_a_query_is_refused_and_names_the_pattern() {
    let text: String = (0..500).map(|i| format!(":s{i} :p {i} . :s{i} :q 'x' .")).collect();
    let source = memory(&text);
    let evaluate = |sparql: &str, limits: Limits| {
        let query = parse_query(&format!("{PREFIX}{sparql}"), None).unwrap();
        run(async { evaluate(&query, &source, limits, &env()).await })
    };
    let few = Limits { facts_max: 100, ..Limits::default() };
    let refused = evaluate("SELECT * { ?s :p ?o ; :q 'x' }", few.clone()).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("?s <http://example.com/q> \"x\"") && text.contains("100 facts"), "{text}");
    assert_eq!(CallError::from(refused).code, Code::QueryTooLarge);
    assert!(evaluate("SELECT * { :s1 ?p ?o }", few).is_ok());
    let small = Limits { memory_bytes_max: 20_000, ..Limits::default() };
    assert!(matches!(evaluate("SELECT * { ?s :p ?o }", small.clone()), Err(QueryError::TooLarge { .. })));
    let cross = Limits { memory_bytes_max: 1 << 20, ..Limits::default() };
    let refused = evaluate("SELECT * { ?s :p ?o . ?t :q ?x }", cross).unwrap_err().to_string();
    assert!(refused.contains("answer"), "{refused}");
}

#[test]
fn a_query_ends_at_its_deadline() {
    let text: String = (0..300).map(|i| format!(":s{i} :p {i} .")).collect();
    let source = memory(&text);
    let query = parse_query(
        &format!("{PREFIX} SELECT (COUNT(*) AS ?n) {{ ?a :p ?b . ?c :p ?d . ?e :p ?f . ?g :p ?h . ?i :p ?j }}"),
        None,
    )
    .unwrap();
    let late = run(async {
        let env = env();
        let limits = Limits { deadline: Some(env.now() + Duration::from_millis(300)), ..Limits::default() };
        evaluate(&query, &source, limits, &env).await
    });
    assert_eq!(late, Err(QueryError::Deadline));
}

#[test]
fn what_is_not_sparql_is_told_with_its_place() {
    let e = parse_query("SELECT ?x\nWHERE { ?x :p }", None).unwrap_err();
    assert!(matches!(e, QueryError::Syntax { at: Some((2, _)), .. }), "{e}");
    assert!(e.to_string().starts_with("line 2, column "), "{e}");
    assert_eq!(CallError::from(e).code, Code::Invalid);
    assert!(matches!(parse_query("ASK {}", Some("no base")), Err(QueryError::Syntax { at: None, .. })));
    assert!(matches!(parse_update("INSERT DATA {", None), Err(QueryError::Syntax { at: Some((1, _)), .. })));
}

#[test]
fn what_beam_does_not_do_is_refused_clearly() {
    for (query, word) in [
        ("SELECT * { SERVICE <http://x/> { ?s ?p ?o } }", "SERVICE"),
        ("SELECT * { ?s ?p ?o FILTER NOT EXISTS { SERVICE ?x { ?s ?p ?o } } }", "SERVICE"),
        ("SELECT * { ?s ?p <<( ?a ?b ?c )>> }", "triple term"),
    ] {
        let e = parse_query(query, None).unwrap_err();
        assert!(matches!(&e, QueryError::Unsupported(m) if m.contains(word)), "{e}");
    }
    let e = parse_update("LOAD <http://x/>", None).unwrap_err();
    assert!(matches!(&e, QueryError::Unsupported(m) if m.contains("LOAD")), "{e}");
    let function = parse_query("SELECT (<http://x/f>(1) AS ?x) {}", None).unwrap();
    assert!(matches!(answer(&function, &people()), Err(QueryError::Unsupported(_))));
}

#[test]
fn triple_terms_pass_through_as_values() {
    let source = memory(":a :says <<( :b :likes 'a text that is too long for an id' )>> .");
    let all = ask(&source, "SELECT ?o { :a :says ?o }");
    assert_eq!(
        all,
        ["<<( <http://example.com/b> <http://example.com/likes> \"a text that is too long for an id\" )>>"]
    );
    let whole = "SELECT ?s { ?s :says <<( :b :likes 'a text that is too long for an id' )>> }";
    assert_eq!(ask(&source, whole), ["<http://example.com/a>"]);
    assert_eq!(ask(&source, "SELECT (SUBJECT(?o) AS ?x) { :a :says ?o }"), ["<http://example.com/b>"]);
}

#[test]
fn large_answers_come_in_parts() {
    let text: String = (0..3_000).map(|i| format!(":s{i} :p '{}' .", "x".repeat(100))).collect();
    let query = parse_query(&format!("{PREFIX} SELECT * {{ ?s :p ?o }}"), None).unwrap();
    let found = answer(&query, &memory(&text)).unwrap();
    assert!(found.chunks.len() > 3, "{} parts", found.chunks.len());
    for chunk in &found.chunks {
        let QueryReply::Rows(rows) = chunk else { panic!("{chunk:?}") };
        assert!(!rows.is_empty() && beam_wire::codec::encode(chunk).len() < 2 * super::CHUNK_BYTES);
    }
    assert_eq!(found.stats.rows, 3_000);
}

#[test]
fn data_is_written_blindly() {
    let source = people();
    let changes = plan(&source, "INSERT DATA { :a :p _:x . _:x :q 1 GRAPH :g { :a :p 2 } } ; DELETE DATA { :b :p 3 }");
    let changes = changes.unwrap();
    assert_eq!(short(&changes.inserts), [":a :p 2 :g", ":a :p _:", "_: :q 1"]);
    assert_eq!(short(&changes.deletes), [":b :p 3"]);
    assert!(changes.reads.is_empty());
    let [x, y] = [&changes.inserts, &plan(&source, "INSERT DATA { :a :p _:x }").unwrap().inserts]
        .map(|quads| quads.iter().find_map(|q| Some(&q.fact[2]).filter(|t| matches!(t, Term::Blank(_))).cloned()));
    assert!(x.is_some() && y.is_some() && x != y, "labels are new in every update");
}

#[test]
fn a_condition_names_what_it_read() {
    let source = people();
    let changes = plan(
        &source,
        "DELETE { ?s :name ?n } INSERT { ?s :name 'Bobby' } WHERE { ?s :name ?n . :alice :knows ?s FILTER(?n = 'Bob') }",
    );
    let changes = changes.unwrap();
    assert_eq!(short(&changes.deletes), [":bob :name Bob"]);
    assert_eq!(short(&changes.inserts), [":bob :name Bobby"]);
    assert_eq!(
        changes.reads,
        reads(&[
            AccessPath::SubjectPredicate(id("alice"), id("knows")),
            AccessPath::SubjectPredicate(id("bob"), id("name")),
            AccessPath::SubjectPredicate(id("carol"), id("name")),
        ])
    );
    // What was not found was read as well.
    let nothing = plan(&source, "INSERT { :x :p 1 } WHERE { FILTER NOT EXISTS { :dave :name ?n } }").unwrap();
    assert_eq!(nothing.reads, reads(&[AccessPath::SubjectPredicate(id("dave"), id("name"))]));
    assert_eq!(short(&nothing.inserts), [":x :p 1"]);
}

#[test]
fn later_operations_see_earlier_ones() {
    let source = people();
    let changes = plan(
        &source,
        "INSERT DATA { :dave :name 'a name that is longer than an id' } ;
         DELETE DATA { :bob :name 'Bob' } ;
         INSERT { ?s :greeted ?n } WHERE { ?s :name ?n } ;
         DELETE { ?s :greeted 'Alice' } WHERE { ?s :greeted 'Alice' } ;
         INSERT DATA { :bob :name 'Bob' }",
    )
    .unwrap();
    assert_eq!(
        short(&changes.inserts),
        [
            ":bob :name Bob",
            ":carol :greeted Carol",
            ":dave :greeted a name that is longer than an id",
            ":dave :name a name that is longer than an id",
        ]
    );
    assert_eq!(short(&changes.deletes), [":alice :greeted Alice"]);
}

#[test]
fn one_operation_deletes_before_it_inserts() {
    let source = memory(":a :next :b . :b :next :a .");
    let changes = plan(&source, "DELETE { ?x :next ?y } INSERT { ?y :next ?x } WHERE { ?x :next ?y }").unwrap();
    assert_eq!(short(&changes.inserts), [":a :next :b", ":b :next :a"]);
    assert!(changes.deletes.is_empty());
}

#[test]
fn template_blanks_are_new_in_every_solution() {
    let changes = plan(&people(), "INSERT { _:e :who ?s ; :label ?n } WHERE { ?s :name ?n }").unwrap();
    let subjects: BTreeSet<&Term> = changes.inserts.iter().map(|q| &q.fact[0]).collect();
    assert_eq!((changes.inserts.len(), subjects.len()), (6, 3));
}

#[test]
fn templates_that_make_no_fact_are_left_out() {
    let update = "INSERT { ?n :p ?s . ?s ?n ?s . ?s :p ?unbound . ?s :ok 1 } WHERE { ?s :name ?n }";
    assert_eq!(short(&plan(&people(), update).unwrap().inserts), [":alice :ok 1", ":bob :ok 1", ":carol :ok 1"]);
}

#[test]
fn clearing_reads_what_it_removes() {
    let source = people();
    let one = plan(&source, "DROP GRAPH :g").unwrap();
    assert_eq!(short(&one.deletes), [":alice :likes :bob :g"]);
    assert_eq!(one.reads, reads(&[AccessPath::Graph(id("g"))]));
    let default = plan(&source, "CLEAR DEFAULT").unwrap();
    assert_eq!((default.deletes.len(), default.reads), (7, reads(&[AccessPath::Graph(TermId::DEFAULT_GRAPH)])));
    let all = plan(&source, "CREATE GRAPH :new ; CLEAR ALL ; INSERT DATA { :a :p 1 }").unwrap();
    assert_eq!((all.deletes.len(), all.reads), (8, reads(&[AccessPath::Everything])));
    assert_eq!(short(&all.inserts), [":a :p 1"]);
}

#[test]
fn many_reads_coarsen() {
    let text: String = (0..READS_MAX + 10).map(|i| format!(":s{i} :a :x ; :b {i} .")).collect();
    let source = memory(&text);
    let changes = plan(&source, "INSERT { :n :c ?o } WHERE { ?s :a :x . ?s :b ?o }").unwrap();
    assert_eq!(changes.inserts.len(), READS_MAX + 10);
    assert_eq!(changes.reads, reads(&[AccessPath::Predicate(id("a")), AccessPath::Predicate(id("b"))]));
    let changes = plan(&source, "INSERT { :n :c ?o } WHERE { ?s :a :x . ?s ?p ?o }").unwrap();
    assert_eq!(changes.reads, reads(&[AccessPath::Everything]));
}

/// Conditions whose result is compared before and after a change elsewhere.
const CONDITIONS: [&str; 12] = [
    "?s :p0 ?o . ?o :p1 ?z",
    ":n1 :p0 ?o",
    "?s :p0 :n2 . ?s :p1 ?z",
    "?s :p0 :n2 OPTIONAL { ?s :p1 ?z }",
    ":n1 :p0 ?o MINUS { ?o :p1 ?z }",
    ":n1 :p0 ?o FILTER NOT EXISTS { ?o :p2 ?z }",
    ":n1 :p0+ ?o",
    ":n1 :p0* ?o . ?o ?p :n0",
    "VALUES ?s { :n1 :n2 } ?s ?p ?o",
    "GRAPH :g1 { :n1 ?p ?o }",
    "GRAPH ?g { :n1 :p0 ?o }",
    "{ SELECT (COUNT(*) AS ?n) { :n1 :p1 ?x } } FILTER(?n > 1)",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The promise that reads make: a write to none of their classes leaves the condition as it was.
    #[test]
    fn a_write_that_changes_a_condition_touches_its_reads(
        facts in prop::collection::vec((0..4u8, 0..3u8, 0..4u8, 0..3u8), 0..25),
        changed in (0..4u8, 0..3u8, 0..4u8, 0..3u8),
    ) {
        let trig = |(s, p, o, g): &(u8, u8, u8, u8)| {
            let triple = format!(":n{s} :p{p} :n{o}");
            if *g == 0 { format!("{triple} .\n") } else { format!(":g{g} {{ {triple} }}\n") }
        };
        let mut after = facts.clone();
        match after.iter().position(|f| *f == changed) {
            Some(_) => after.retain(|f| *f != changed),
            None => after.push(changed),
        }
        let text = |facts: &[_]| facts.iter().map(trig).collect::<String>();
        let (before, after) = (memory(&text(&facts)), memory(&text(&after)));
        let (s, p, o, g) = changed;
        let graph = if g == 0 { TermId::DEFAULT_GRAPH } else { id(&format!("g{g}")) };
        let points = [id(&format!("n{s}")), id(&format!("p{p}")), id(&format!("n{o}")), graph].map(|id| id.point());
        let classes = AccessPath::classes(points);
        for condition in CONDITIONS {
            let update = format!("INSERT {{ ?s :w ?o . ?o :w ?z . ?o :v ?g . :x :y ?n . ?s ?p ?o }} WHERE {{ {condition} }}");
            let (first, second) = (plan(&before, &update).unwrap(), plan(&after, &update).unwrap());
            if first.inserts != second.inserts {
                let touched = classes.iter().any(|class| first.reads.binary_search(class).is_ok());
                prop_assert!(touched, "{} changes the result of {}, and its reads do not know", trig(&changed), condition);
            }
        }
    }
}

//! The W3C's SPARQL 1.1 tests: syntax, query evaluation, update evaluation and result formats.
//!
//! The suites lie beside the repository, not in it; where they are not, the test says so and passes.

use super::testing::{Memory, answer, env, rows, run};
use super::{Limits, QueryError, parse_query, parse_update, plan_update};
use crate::rdf::convert::to_quad;
use beam_wire::message::api::Shape;
use oxrdf::dataset::CanonicalizationAlgorithm;
use oxrdf::vocab::rdf;
use oxrdf::{BlankNode, Dataset, Graph, GraphName, NamedNode, NamedOrBlankNode, Quad, Term, TermRef};
use oxrdfio::{RdfFormat, RdfParser};
use sparesults::{QueryResultsFormat, QueryResultsParser, SliceQueryResultsParserOutput};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tests that do not pass, and why.
const EXPECTED: &[(&str, &str)] = &[];

/// What each folder may hold that is not for a query engine.
const OTHER_KINDS: [&str; 3] = ["ProtocolTest", "GraphStoreProtocolTest", "ServiceDescriptionTest"];

fn mf(name: &str) -> NamedNode {
    NamedNode::new_unchecked(format!("http://www.w3.org/2001/sw/DataAccess/tests/test-manifest#{name}"))
}
fn qt(name: &str) -> NamedNode {
    NamedNode::new_unchecked(format!("http://www.w3.org/2001/sw/DataAccess/tests/test-query#{name}"))
}
fn ut(name: &str) -> NamedNode {
    NamedNode::new_unchecked(format!("http://www.w3.org/2009/sparql/tests/test-update#{name}"))
}

fn rs(name: &str) -> NamedNode {
    NamedNode::new_unchecked(format!("http://www.w3.org/2001/sw/DataAccess/tests/result-set#{name}"))
}

/// Numbers compare by value: the files write them as it comes.
fn plain(term: Term) -> Term {
    use oxrdf::vocab::xsd;
    match &term {
        Term::Literal(l) if [xsd::DECIMAL, xsd::FLOAT, xsd::DOUBLE].contains(&l.datatype()) => {
            match l.value().parse::<f64>() {
                Ok(n) => oxrdf::Literal::new_typed_literal(format!("{n:e}"), l.datatype()).into(),
                Err(_) => term,
            }
        }
        _ => term,
    }
}

/// Rows, by variables; without those that are unbound.
fn named(variables: &[String], rows: &[Vec<Option<Term>>]) -> Vec<BTreeMap<String, Term>> {
    let named = |row: &Vec<Option<Term>>| {
        variables.iter().zip(row).filter_map(|(v, t)| Some((v.clone(), t.clone()?))).collect()
    };
    rows.iter().map(named).collect()
}

/// Where the files of a folder are said to be.
const BASE: &str = "http://www.w3.org/w3c/";

struct Manifest {
    graph: Graph,
    root: PathBuf,
}

impl Manifest {
    fn one(&self, subject: &Term, predicate: &NamedNode) -> Option<Term> {
        self.all(subject, predicate).into_iter().next()
    }

    fn all(&self, subject: &Term, predicate: &NamedNode) -> Vec<Term> {
        let subject: NamedOrBlankNode = match subject {
            Term::NamedNode(n) => n.clone().into(),
            Term::BlankNode(n) => n.clone().into(),
            _ => return vec![],
        };
        self.graph.objects_for_subject_predicate(&subject, predicate).map(TermRef::into_owned).collect()
    }

    fn list(&self, mut at: Term) -> Vec<Term> {
        let mut items = vec![];
        while at != Term::from(rdf::NIL.into_owned()) {
            items.extend(self.one(&at, &rdf::FIRST.into_owned()));
            at = self.one(&at, &rdf::REST.into_owned()).expect("a list ends");
        }
        items
    }

    /// The rows of a result set that is written as RDF.
    fn rows(&self, set: &Term) -> Vec<BTreeMap<String, Term>> {
        let binding = |b: &Term| {
            let Some(Term::Literal(variable)) = self.one(b, &rs("variable")) else {
                panic!("a binding has a variable")
            };
            (variable.value().to_owned(), self.one(b, &rs("value")).expect("a value"))
        };
        let row = |row: &Term| self.all(row, &rs("binding")).iter().map(binding).collect();
        self.all(set, &rs("solution")).iter().map(row).collect()
    }

    fn path(&self, file: &Term) -> PathBuf {
        let Term::NamedNode(file) = file else { panic!("{file} is no file") };
        self.root.join(file.as_str().strip_prefix(BASE).unwrap_or_else(|| panic!("{file} lies elsewhere")))
    }

    fn text(&self, file: &Term) -> String {
        let path = self.path(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

fn read(path: &Path, base: &str, graph: GraphName) -> Vec<Quad> {
    let format = match path.extension().and_then(|e| e.to_str()) {
        Some("rdf") => RdfFormat::RdfXml,
        Some("nt") => RdfFormat::NTriples,
        Some("trig") => RdfFormat::TriG,
        _ => RdfFormat::Turtle,
    };
    let parser = RdfParser::from_format(format).with_base_iri(base).unwrap().with_default_graph(graph);
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    parser.for_slice(&text).collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The data of an action or a result: `data` into the default graph, `graphData` into named ones.
/// Blank nodes of different files are different.
fn dataset(manifest: &Manifest, of: &Term, kind: fn(&str) -> NamedNode) -> Dataset {
    let mut dataset = Dataset::new();
    let mut add = |file: &Term, graph: GraphName| {
        let Term::NamedNode(iri) = file else { panic!("{file} is no file") };
        let (path, n) = (manifest.path(file), dataset.len());
        for quad in read(&path, iri.as_str(), graph) {
            dataset.insert(&own_labels(quad, n));
        }
    };
    for file in manifest.all(of, &kind("data")) {
        add(&file, GraphName::DefaultGraph);
    }
    for data in manifest.all(of, &kind("graphData")) {
        match (&data, manifest.one(&data, &kind("graph"))) {
            (_, Some(file)) => {
                let label = NamedNode::new_unchecked("http://www.w3.org/2000/01/rdf-schema#label");
                let Some(Term::Literal(name)) = manifest.one(&data, &label) else { panic!("a graph has a name") };
                add(&file, NamedNode::new_unchecked(name.value()).into());
            }
            (Term::NamedNode(name), None) => add(&data, name.clone().into()),
            _ => panic!("{data} is no graph"),
        }
    }
    dataset
}

fn own_labels(quad: Quad, file: usize) -> Quad {
    let blank = |n: BlankNode| BlankNode::new_unchecked(format!("{}f{file}", n.as_str()));
    Quad {
        subject: match quad.subject {
            NamedOrBlankNode::BlankNode(n) => blank(n).into(),
            node => node,
        },
        object: match quad.object {
            Term::BlankNode(n) => blank(n).into(),
            term => term,
        },
        ..quad
    }
}

/// Rows as a graph, so that they can be compared whatever their blank nodes are called.
fn as_graph(rows: &[BTreeMap<String, Term>]) -> Dataset {
    let has_blank = rows.iter().flat_map(|r| r.values()).any(|t| matches!(t, Term::BlankNode(_)));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut dataset = Dataset::new();
    for (i, row) in rows.iter().enumerate() {
        let node: NamedOrBlankNode = if has_blank {
            BlankNode::new_unchecked(format!("row{i}")).into()
        } else {
            let text = format!("{:?}", row.values().cloned().map(plain).zip(row.keys()).collect::<Vec<_>>());
            let n = counts.entry(text.clone()).and_modify(|n| *n += 1).or_insert(1);
            NamedNode::new_unchecked(format!("row:{n}:{text}")).into()
        };
        for (variable, term) in row {
            let predicate = NamedNode::new_unchecked(format!("variable:{variable}"));
            dataset.insert(&Quad::new(node.clone(), predicate, plain(term.clone()), GraphName::DefaultGraph));
        }
        dataset.insert(&Quad::new(node, rdf::TYPE, NamedNode::new_unchecked("a:row"), GraphName::DefaultGraph));
    }
    dataset
}

fn same(mut ours: Dataset, mut expected: Dataset) -> Result<(), String> {
    let (a, b) = (ours.to_string(), expected.to_string());
    ours.canonicalize(CanonicalizationAlgorithm::Unstable);
    expected.canonicalize(CanonicalizationAlgorithm::Unstable);
    if ours == expected { Ok(()) } else { Err(format!("got\n{a}\nexpected\n{b}")) }
}

fn query_test(manifest: &Manifest, test: &Term) -> Result<(), String> {
    let action = manifest.one(test, &mf("action")).expect("an action");
    let query_file = manifest.one(&action, &qt("query")).expect("a query");
    let Term::NamedNode(base) = &query_file else { panic!("{query_file} is no file") };
    let text = manifest.text(&query_file);
    let query = parse_query(&text, Some(base.as_str())).map_err(|e| e.to_string())?;
    let mut data = dataset(manifest, &action, qt);
    // Graphs that only FROM names are there as well.
    for graph in query.0.dataset().iter().flat_map(|d| d.default.iter().chain(d.named.iter().flatten())) {
        let path = manifest.path(&graph.clone().into());
        for quad in read(&path, graph.as_str(), graph.clone().into()) {
            data.insert(&own_labels(quad, 1_000_000));
        }
    }
    let found = answer(&query, &Memory::of(&data)).map_err(|e| e.to_string())?;
    let file = manifest.one(test, &mf("result")).expect("a result");
    let path = manifest.path(&file);
    match path.extension().and_then(|e| e.to_str()) {
        Some("ttl" | "rdf") if found.shape != Shape::Graph => {
            let graph =
                read(&path, base.as_str(), GraphName::DefaultGraph).into_iter().map(oxrdf::Triple::from).collect();
            let results = Manifest { graph, root: PathBuf::new() };
            let expected = results.graph.subjects_for_predicate_object(rdf::TYPE, &rs("ResultSet")).next();
            let expected = results.rows(&Term::from(expected.expect("a result set").into_owned()));
            let Shape::Solutions { variables } = &found.shape else { return Err(format!("got {:?}", found.shape)) };
            same(as_graph(&named(variables, &rows(&found))), as_graph(&expected))
        }
        Some("ttl" | "rdf" | "nt") => {
            let expected: Dataset = read(&path, base.as_str(), GraphName::DefaultGraph).into_iter().collect();
            let triple = |row: Vec<Option<Term>>| {
                let [Some(s), Some(Term::NamedNode(p)), Some(o)] = <[_; 3]>::try_from(row).expect("three terms") else {
                    panic!("not a triple")
                };
                Quad::new(NamedOrBlankNode::try_from(s).expect("a subject"), p, o, GraphName::DefaultGraph)
            };
            same(rows(&found).into_iter().map(triple).collect(), expected)
        }
        Some("csv") => {
            let ours = rows(&found).iter().map(|row| csv(row)).collect::<Vec<_>>();
            let text = manifest.text(&file).replace("\r\n", "\n");
            let masked = |lines: Vec<String>| {
                let mut lines: Vec<String> = lines.iter().map(|l| mask_labels(l)).collect();
                lines.sort();
                lines
            };
            let (ours, expected) = (masked(ours), masked(text.lines().skip(1).map(str::to_owned).collect()));
            if ours == expected { Ok(()) } else { Err(format!("got {ours:?}\nexpected {expected:?}")) }
        }
        extension => {
            let format = match extension {
                Some("srx") => QueryResultsFormat::Xml,
                Some("srj") => QueryResultsFormat::Json,
                Some("tsv") => QueryResultsFormat::Tsv,
                other => panic!("results in {other:?}"),
            };
            let bytes = std::fs::read(&path).expect("a file");
            match (QueryResultsParser::from_format(format).for_slice(&bytes).expect("results"), &found.shape) {
                (SliceQueryResultsParserOutput::Boolean(expected), Shape::Boolean(ours)) => {
                    if expected == *ours {
                        Ok(())
                    } else {
                        Err(format!("got {ours}, expected {expected}"))
                    }
                }
                (SliceQueryResultsParserOutput::Solutions(expected), Shape::Solutions { variables }) => {
                    let expected_rows: Vec<BTreeMap<String, Term>> = expected
                        .map(|row| {
                            let row = row.expect("a row");
                            row.iter().map(|(v, t)| (v.as_str().to_owned(), t.clone())).collect()
                        })
                        .collect();
                    let ours = named(variables, &rows(&found));
                    same(as_graph(&ours), as_graph(&expected_rows))
                }
                (_, shape) => Err(format!("got {shape:?}")),
            }
        }
    }
}

fn csv(row: &[Option<Term>]) -> String {
    let cell = |t: &Option<Term>| match t {
        None => String::new(),
        Some(Term::NamedNode(n)) => n.as_str().to_owned(),
        Some(Term::Literal(l)) if l.value().contains(['"', ',', '\n']) => {
            format!("\"{}\"", l.value().replace('"', "\"\""))
        }
        Some(Term::Literal(l)) => l.value().to_owned(),
        Some(t) => t.to_string(),
    };
    row.iter().map(cell).collect::<Vec<_>>().join(",")
}

fn mask_labels(line: &str) -> String {
    line.split(',').map(|c| if c.starts_with("_:") { "_:" } else { c }).collect::<Vec<_>>().join(",")
}

fn update_test(manifest: &Manifest, test: &Term) -> Result<(), String> {
    let action = manifest.one(test, &mf("action")).expect("an action");
    let request = manifest.one(&action, &ut("request")).expect("a request");
    let Term::NamedNode(base) = &request else { panic!("{request} is no file") };
    let update = parse_update(&manifest.text(&request), Some(base.as_str())).map_err(|e| e.to_string())?;
    let mut data = dataset(manifest, &action, ut);
    let source = Memory::of(&data);
    let changes = run(plan_update(&update, &source, Limits::default(), &env())).map_err(|e| e.to_string())?;
    if !update.needs_read() && !changes.reads.is_empty() {
        return Err("a blind update has reads".into());
    }
    for quad in &changes.deletes {
        data.remove(&to_quad(quad).expect("a quad"));
    }
    for quad in &changes.inserts {
        data.insert(&to_quad(quad).expect("a quad"));
    }
    let result = manifest.one(test, &mf("result")).expect("a result");
    same(data, dataset(manifest, &result, ut))
}

fn syntax_test(manifest: &Manifest, test: &Term, kind: &str) -> Result<(), String> {
    let file = manifest.one(test, &mf("action")).expect("an action");
    let Term::NamedNode(base) = &file else { panic!("{file} is no file") };
    let text = manifest.text(&file);
    let parsed = if kind.contains("Update") {
        parse_update(&text, Some(base.as_str())).map(drop)
    } else {
        parse_query(&text, Some(base.as_str())).map(drop)
    };
    match (kind.starts_with("Positive"), parsed) {
        (true, Err(e @ QueryError::Syntax { .. })) => Err(e.to_string()),
        (false, Ok(())) => Err("it is taken".into()),
        (false, Err(e)) if !matches!(e, QueryError::Syntax { .. }) => Err(format!("another error: {e}")),
        _ => Ok(()),
    }
}

#[test]
fn w3c_suites_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/w3c/sparql11");
    if !root.is_dir() {
        eprintln!("skipped: there are no W3C suites at {}", root.display());
        return;
    }
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let (mut failures, mut others) = (vec![], 0);
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let base = format!("{BASE}{name}/manifest.ttl");
        let quads = read(&folder.join("manifest.ttl"), &base, GraphName::DefaultGraph);
        let graph = quads.into_iter().map(oxrdf::Triple::from).collect();
        let manifest = Manifest { graph, root: root.clone() };
        let here = Term::from(NamedNode::new_unchecked(base));
        let tests = manifest.one(&here, &mf("entries")).map(|list| manifest.list(list)).unwrap_or_default();
        for test in tests {
            let Some(Term::NamedNode(kind)) = manifest.one(&test, &rdf::TYPE.into_owned()) else { continue };
            let kind = kind.as_str().rsplit('#').next().unwrap().to_owned();
            if OTHER_KINDS.contains(&kind.as_str()) {
                others += 1;
                continue;
            }
            let (group, result) = match kind.as_str() {
                "QueryEvaluationTest" | "CSVResultFormatTest" => ("query", query_test(&manifest, &test)),
                "UpdateEvaluationTest" => ("update", update_test(&manifest, &test)),
                kind if kind.contains("SyntaxTest") => ("syntax", syntax_test(&manifest, &test, kind)),
                other => ("unknown", Err(format!("a test of kind {other}"))),
            };
            let count = counts.entry(group).or_default();
            count.1 += 1;
            let label = match &test {
                Term::NamedNode(n) => format!("{name}/{}", n.as_str().rsplit('#').next().unwrap()),
                t => format!("{name}/{t}"),
            };
            let expected = EXPECTED.iter().any(|(test, _)| *test == label);
            match result {
                Ok(()) if expected => failures.push(format!("{label} passes, and is not expected to")),
                Ok(()) => count.0 += 1,
                Err(_) if expected => {}
                Err(e) => failures.push(format!("{label}: {e}")),
            }
        }
    }
    for (group, (passed, all)) in &counts {
        eprintln!("w3c {group}: {passed} of {all} pass");
    }
    for (test, reason) in EXPECTED {
        eprintln!("w3c {test} is expected to fail: {reason}");
    }
    eprintln!("w3c: {others} tests of protocols are not for a query engine");
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n\n"));
}

//! Queries of a real data set, 3.2 million facts, against their answers. It takes minutes and a
//! gigabyte: `cargo test --release -p beam-node --lib oewn -- --ignored --nocapture`.

use super::testing::{Memory, answer, rows};
use super::{QueryError, parse_query};
use beam_wire::message::api::Shape;
use oxrdf::{GraphName, Term};
use oxrdfio::{RdfFormat, RdfParser};
use sparesults::{QueryResultsFormat, QueryResultsParser, SliceQueryResultsParserOutput};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Queries that the simple path must answer, and the facts that each may fetch. In all there are 3.2
/// million: none of these may scan them.
const QUERIES: [(&str, u64); 7] =
    [("q01", 1_000), ("q02", 1_000), ("q04", 1_000), ("q05", 1_000), ("q10", 400_000), ("q20", 1_000), ("q21", 2_000)];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/oewn")
}

fn unpacked(path: &Path) -> Vec<u8> {
    zstd::decode_all(std::fs::File::open(path).expect("a file")).expect("zstd")
}

fn file(folder: &str, prefix: &str) -> PathBuf {
    let entries = std::fs::read_dir(self::folder().join(folder)).expect("a folder");
    let mut paths = entries.map(|e| e.expect("an entry").path());
    paths.find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix))).expect("a file of that name")
}

fn lines(rows: Vec<Vec<Option<Term>>>) -> Vec<String> {
    let cell = |t: &Option<Term>| t.as_ref().map_or("-".into(), Term::to_string);
    let mut lines: Vec<String> = rows.iter().map(|r| r.iter().map(cell).collect::<Vec<_>>().join("\t")).collect();
    lines.sort();
    lines
}

#[test]
#[ignore = "takes minutes and a gigabyte"]
fn queries_fetch_little_and_have_their_answers() {
    if !folder().is_dir() {
        eprintln!("skipped: there is no data at {}", folder().display());
        return;
    }
    let file_reader = std::fs::File::open(folder().join("oewn.nt.zst")).expect("a file");
    let reader = std::io::BufReader::with_capacity(1 << 20, zstd::Decoder::new(file_reader).expect("zstd"));
    let parser = RdfParser::from_format(RdfFormat::NTriples).with_default_graph(GraphName::DefaultGraph);
    let source = Memory::new(parser.for_reader(reader).map(|q| q.expect("N-Triples")));
    let mut names: Vec<(String, u64)> = QUERIES.iter().map(|(n, max)| (n.to_string(), *max)).collect();
    if std::env::var_os("BEAM_OEWN_ALL").is_some() {
        names = (1..=24).map(|n| (format!("q{n:02}"), u64::MAX)).collect();
    }
    for (name, facts_max) in names {
        let text = std::fs::read_to_string(file("queries", &name)).expect("a query");
        let query = parse_query(&text, None).expect("SPARQL");
        let before = (source.facts.load(Ordering::Relaxed), source.texts.load(Ordering::Relaxed));
        let found = match answer(&query, &source) {
            Ok(found) => found,
            Err(e @ QueryError::TooLarge { .. }) if facts_max == u64::MAX => {
                eprintln!("{name}: {e}");
                continue;
            }
            Err(e) => panic!("{name}: {e}"),
        };
        let facts = source.facts.load(Ordering::Relaxed) - before.0;
        let texts = source.texts.load(Ordering::Relaxed) - before.1;
        eprintln!(
            "{name}: {} rows, {facts} facts travelled, {} kept, {texts} texts, {} requests",
            found.stats.rows, found.stats.facts, found.stats.requests
        );
        assert!(facts <= facts_max, "{name} fetched {facts} facts");
        let path = file("answers", &name);
        let bytes = unpacked(&path);
        if path.to_string_lossy().contains(".json") {
            let json = QueryResultsParser::from_format(QueryResultsFormat::Json).for_slice(&bytes).expect("JSON");
            let SliceQueryResultsParserOutput::Boolean(expected) = json else { panic!("not a boolean") };
            assert_eq!(found.shape, Shape::Boolean(expected), "{name}");
        } else if path.to_string_lossy().contains(".nt") {
            let expected = RdfParser::from_format(RdfFormat::NTriples).for_slice(&bytes).map(|q| {
                let q = q.expect("N-Triples");
                vec![Some(q.subject.into()), Some(q.predicate.into()), Some(q.object)]
            });
            assert!(lines(rows(&found)) == lines(expected.collect()), "{name} has another answer");
        } else {
            let tsv = QueryResultsParser::from_format(QueryResultsFormat::Tsv).for_slice(&bytes).expect("TSV");
            let SliceQueryResultsParserOutput::Solutions(expected) = tsv else { panic!("not rows") };
            let expected: Vec<_> = expected.map(|row| row.expect("a row").values().to_vec()).collect();
            assert!(lines(rows(&found)) == lines(expected), "{name} has another answer");
        }
    }
}

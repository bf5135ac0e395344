use super::*;
use std::io::Write;

fn quads(text: impl Into<Vec<u8>>, format: Format) -> Result<Vec<Quad>, ReadError> {
    read(io::Cursor::new(text.into()), "data", format, 0xabc)?.collect()
}

#[track_caller]
fn fault(text: &str, format: Format) -> (u64, u64, String) {
    let error = quads(text, format).unwrap_err();
    let (line, column) = (error.line.unwrap(), error.column.unwrap());
    assert!(error.to_string().starts_with(&format!("data:{line}:{column}: ")), "{error}");
    (line, column, error.message)
}

const NT: &str = "<http://a/s> <http://a/p> \"v\" .\n<http://a/s> <http://a/p> _:b .\n";

#[test]
fn every_format_is_read() {
    let ttl = "@prefix a: <http://a/> . a:s a:p \"v\", _:b .";
    let trig = "@prefix a: <http://a/> . { a:s a:p \"v\", _:b . }";
    let xml = r#"<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:a="http://a/">
        <rdf:Description rdf:about="http://a/s"><a:p>v</a:p><a:p rdf:nodeID="b"/></rdf:Description></rdf:RDF>"#;
    let expected = quads(NT, Format::NTriples).unwrap();
    assert_eq!(expected.len(), 2);
    assert_eq!(expected[1].fact[2], Term::Blank("0000000000000abcb".into()));
    for (text, format) in [(NT, Format::NQuads), (ttl, Format::Turtle), (trig, Format::TriG), (xml, Format::RdfXml)] {
        assert_eq!(quads(text, format).as_ref(), Ok(&expected), "{format:?}");
    }
}

#[test]
fn graphs_are_read() {
    let quads = quads("<http://a/s> <http://a/p> \"v\" <http://a/g> .", Format::NQuads).unwrap();
    assert_eq!(quads[0].graph, Some(Term::Iri("http://a/g".into())));
}

#[test]
fn rdf_1_2_is_read() {
    let text = "<x:s> <x:p> <<( _:s <x:p> \"v\"@en--ltr )>> .\n<x:s> <x:p> \"V\"@EN-GB .";
    let quads = quads(text, Format::NTriples).unwrap();
    let Term::Triple(parts) = &quads[0].fact[2] else { panic!("{quads:?}") };
    assert_eq!(parts[0], Term::Blank("0000000000000abcs".into()));
    assert!(quads.iter().all(|quad| quad.fact.iter().all(|term| term.check().is_ok())));
}

#[test]
fn nesting_that_would_exhaust_the_stack_is_a_fault() {
    for depth in [64, 65, 2000, 1_000_000] {
        let text = format!("{}<x:s> <x:p> <x:o>{} .", "<x:s> <x:p> <<( ".repeat(depth), " )>>".repeat(depth));
        let read = quads(text, Format::NTriples);
        assert_eq!(read.is_ok(), depth <= 64, "{depth}");
        assert!(depth <= 64 || read.unwrap_err().message.contains("nest deeper than 64"));
    }
}

#[test]
fn compressed_files_are_recognised_by_their_bytes() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(NT.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::stream::encode_all(NT.as_bytes(), 1).unwrap();
    let expected = quads(NT, Format::NTriples);
    assert_eq!(quads(gz.clone(), Format::NTriples), expected);
    assert_eq!(quads(zst.clone(), Format::NTriples), expected);
    // Files of several members are read to the end of the last.
    for twice in [[gz.clone(), gz.clone()].concat(), [zst.clone(), zst.clone()].concat()] {
        assert_eq!(quads(twice, Format::NTriples).unwrap().len(), 4);
    }
    for cut in [&gz[..gz.len() - 9], &zst[..zst.len() - 3]] {
        let error = quads(cut, Format::NTriples).unwrap_err();
        assert!(error.message.starts_with("cannot be read on"), "{error}");
    }
}

#[test]
fn empty_and_tiny_files_are_read() {
    assert_eq!(quads("", Format::NTriples), Ok(vec![]));
    assert_eq!(quads("#", Format::NTriples), Ok(vec![]));
}

#[test]
fn faults_have_their_place() {
    let broken = format!("{NT}<http://a/s> <http://a/p> oops .\n{NT}");
    assert_eq!(fault(&broken, Format::NTriples).0, 3);
    assert_eq!(fault(&broken, Format::NQuads).0, 3);
    let (line, column, message) = fault("<x:s> <x:p>\n  \"é\" , é\"x .", Format::Turtle);
    assert_eq!((line, column), (2, 9), "{message}");
    assert!(!message.is_empty() && !message.contains("line"), "{message}");
    assert_eq!(fault("<x:g> {\n <x:s> <x:p> <x:o> .\n <x:s> \"p\" <x:o> }", Format::TriG).0, 3);
    let xml = "<?xml version=\"1.0\"?>\n<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n  \
               <rdf:Description rdf:about=\"é\"\n  /></rdf:RDF>";
    assert_eq!(fault(xml, Format::RdfXml).0, 3);
    let xml = "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n\n <rdf:li></b></rdf:RDF>";
    assert_eq!(fault(xml, Format::RdfXml).0, 3);
}

#[test]
fn a_fault_ends_the_stream() {
    let broken = format!("{NT}oops\n{NT}");
    let mut quads = read(io::Cursor::new(broken), "data", Format::NTriples, 1).unwrap();
    assert_eq!(quads.by_ref().filter(|quad| quad.is_ok()).count(), 2);
    assert!(quads.next().is_none());
}

#[test]
fn bytes_that_are_no_text_are_a_fault() {
    let bytes = [b"<x:s> <x:p> \"".as_slice(), &[0xff, 0xfe], b"\" .\n"].concat();
    assert!(quads(bytes, Format::NTriples).is_err());
}

#[test]
fn labels_of_two_loads_and_of_other_scripts_stay_apart() {
    let text = "_:b <x:p> _:é .\n_:bc3a9 <x:p> _:c3a9 .\n";
    let load = |load| -> Vec<Term> {
        let quads = read(io::Cursor::new(text), "data", Format::NTriples, load).unwrap();
        quads.flat_map(|quad| quad.unwrap().fact).filter(|term| matches!(term, Term::Blank(_))).collect()
    };
    let mut all = [load(1), load(2)].concat();
    assert!(all.iter().all(|term| term.check().is_ok()), "{all:?}");
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8);
}

#[test]
fn formats_are_told_by_names() {
    let of = |path: &str| Format::of_path(Path::new(path));
    assert_eq!(of("dir/a.nt"), Some(Format::NTriples));
    assert_eq!(of("a.b.nq.gz"), Some(Format::NQuads));
    assert_eq!(of("a.TTL"), Some(Format::Turtle));
    assert_eq!(of("a.trig.zst"), Some(Format::TriG));
    assert_eq!(of("a.owl"), Some(Format::RdfXml));
    assert_eq!(of("a.csv"), None);
    assert_eq!(of("nt"), None);
    assert!(Format::NAMES.iter().all(|name| Format::from_name(name).is_some()));
}

#[test]
fn files_that_cannot_be_opened_say_why() {
    let error = open(Path::new("/no/such/file.nt"), None, 1).err().unwrap();
    assert!(error.to_string().starts_with("/no/such/file.nt: "), "{error}");
    let error = open(Path::new("/no/such/file.csv"), None, 1).err().unwrap();
    assert!(error.message.contains("--format: nt, nq, ttl, trig, rdf"), "{error}");
    let error = open(Path::new("/"), Some(Format::Turtle), 1).err().unwrap();
    assert!(error.message.contains("directory"), "{error}");
}

#[test]
fn progress_counts_the_bytes_on_disk() {
    let mut file = tempfile::Builder::new().suffix(".nt").tempfile().unwrap();
    file.write_all(NT.as_bytes()).unwrap();
    let mut quads = open(file.path(), None, 1).unwrap();
    let progress = quads.progress();
    assert_eq!(quads.size_bytes(), Some(NT.len() as u64));
    assert_eq!(quads.by_ref().count(), 2);
    assert_eq!(progress.bytes(), NT.len() as u64);
}

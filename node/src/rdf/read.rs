//! Reads facts from files: a stream, whatever the size of the file.

use super::convert;
use beam_wire::term::{Term, is_label};
use flate2::bufread::MultiGzDecoder;
use nesting::Nesting;
use oxrdfio::{RdfFormat, RdfParseError, RdfParser, ReaderQuadParser};
use position::Position;
pub use position::Progress;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

mod nesting;
mod position;

/// Read from a file at once: large reads keep the decompressor busy.
const BUFFER_BYTES: usize = 256 * 1024;

/// A fact as text: subject, predicate, object, and a graph unless it is in the default one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quad {
    /// Subject, predicate, object.
    pub fact: [Term; 3],
    /// The named graph.
    pub graph: Option<Term>,
}

/// A syntax that facts are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A triple a line.
    NTriples,
    /// A quad a line.
    NQuads,
    /// Triples with abbreviations.
    Turtle,
    /// Turtle with graphs.
    TriG,
    /// The oldest one.
    RdfXml,
}

impl Format {
    /// The names that users give, which are the extensions of files.
    pub const NAMES: [&str; 5] = ["nt", "nq", "ttl", "trig", "rdf"];

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Format> {
        Some(match name.to_ascii_lowercase().as_str() {
            "nt" | "ntriples" => Format::NTriples,
            "nq" | "nquads" => Format::NQuads,
            "ttl" | "turtle" => Format::Turtle,
            "trig" => Format::TriG,
            "rdf" | "xml" | "rdfxml" | "owl" => Format::RdfXml,
            _ => return None,
        })
    }

    /// The format that a file's name tells, before `.gz` or `.zst`.
    pub fn of_path(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_str()?;
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
        Format::from_name(name.rsplit_once('.')?.1)
    }

    fn parser(self) -> RdfParser {
        RdfParser::from_format(match self {
            Format::NTriples => RdfFormat::NTriples,
            Format::NQuads => RdfFormat::NQuads,
            Format::Turtle => RdfFormat::Turtle,
            Format::TriG => RdfFormat::TriG,
            Format::RdfXml => RdfFormat::RdfXml,
        })
    }
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {message}", place(*line, *column))]
pub struct ReadError {
    /// The file's name as it was given, or `stdin`.
    pub file: String,
    /// Counted from 1; none if the fault has no place in the text.
    pub line: Option<u64>,
    /// In characters, counted from 1.
    pub column: Option<u64>,
    /// What is wrong there.
    pub message: String,
}

fn place(line: Option<u64>, column: Option<u64>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!(":{line}:{column}"),
        (Some(line), None) => format!(":{line}"),
        _ => String::new(),
    }
}

/// The facts of one file, in its order. Ends after the first error.
pub struct Quads {
    file: String,
    parser: Option<ReaderQuadParser<Box<dyn Read + Send>>>,
    position: Position,
    labels: Labels,
    size: Option<u64>,
    progress: Progress,
}

/// Opens a file, or stdin for `-`. The format is that of the file's name unless one is given; what
/// is compressed by gzip or Zstandard is recognised by its first bytes. `load` must be random and
/// fresh: it keeps the blank nodes of this file apart from all others.
///
/// # Errors
/// If there is no such file, or nothing says what format it has.
pub fn open(path: &Path, format: Option<Format>, load: u64) -> Result<Quads, ReadError> {
    let is_stdin = path == Path::new("-");
    let file = if is_stdin { "stdin".to_string() } else { path.display().to_string() };
    let error = |message: String| ReadError { file: file.clone(), line: None, column: None, message };
    let Some(format) = format.or_else(|| Format::of_path(path)) else {
        let names = Format::NAMES.join(", ");
        return Err(error(match is_stdin {
            true => format!("give the format with --format: {names}"),
            false => format!("the name does not tell the format; give it with --format: {names}"),
        }));
    };
    if is_stdin {
        return read(io::stdin(), &file, format, load);
    }
    let input = File::open(path).map_err(|e| error(e.to_string()))?;
    let metadata = input.metadata().map_err(|e| error(e.to_string()))?;
    if metadata.is_dir() {
        return Err(error("is a directory".into()));
    }
    let mut quads = read(input, &file, format, load)?;
    quads.size = metadata.is_file().then_some(metadata.len());
    Ok(quads)
}

/// Reads facts from any input; `file` is its name for messages. See [`open`].
///
/// # Errors
/// If the first bytes cannot be read.
pub fn read(input: impl Read + Send + 'static, file: &str, format: Format, load: u64) -> Result<Quads, ReadError> {
    let progress = Progress::default();
    let error = |e: io::Error| ReadError { file: file.into(), line: None, column: None, message: e.to_string() };
    let text = decompressed(progress.count(input)).map_err(error)?;
    let (text, position) = match format {
        // The XML parser does not say where it is: its input is watched instead.
        Format::RdfXml => Position::watch(text),
        _ => (Box::new(Nesting::new(text)) as Box<dyn Read + Send>, Position::unknown()),
    };
    Ok(Quads {
        file: file.into(),
        parser: Some(format.parser().for_reader(text)),
        position,
        labels: Labels::new(load),
        size: None,
        progress,
    })
}

fn decompressed(input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    // A pipe may give its first bytes one by one.
    let mut first = Vec::new();
    input.by_ref().take(4).read_to_end(&mut first)?;
    let is = |magic: &[u8]| first.starts_with(magic);
    let (gzip, zstandard) = (is(&[0x1f, 0x8b]), is(&[0x28, 0xb5, 0x2f, 0xfd]));
    let input = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(first).chain(input));
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(input))
    } else if zstandard {
        Box::new(zstd::stream::read::Decoder::with_buffer(input)?)
    } else {
        Box::new(input)
    })
}

impl Quads {
    /// The file's size in bytes as it lies on disk, if it is a regular file.
    pub fn size_bytes(&self) -> Option<u64> {
        self.size
    }

    /// Tells how many of these bytes were read, also while another thread reads them.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// An error about a fact that was well written, but cannot be taken.
    pub(super) fn refuse(&self, message: String) -> ReadError {
        ReadError { file: self.file.clone(), line: None, column: None, message }
    }

    fn error(&self, error: RdfParseError) -> ReadError {
        let syntax = match error {
            RdfParseError::Io(e) => return self.io_error(&e),
            RdfParseError::Syntax(syntax) => syntax,
        };
        let (line, column) = match syntax.location() {
            Some(place) => (Some(place.start.line + 1), Some(place.start.column + 1)),
            None => self.position.now(),
        };
        // The library's text begins with the place, in a wording of its own.
        let text = syntax.to_string();
        let message = match text.strip_prefix("Parser error ").and_then(|rest| rest.split_once(": ")) {
            Some((_, message)) => message.to_string(),
            None => text,
        };
        ReadError { file: self.file.clone(), line, column, message }
    }

    fn io_error(&self, error: &io::Error) -> ReadError {
        let (line, column) = self.position.now();
        ReadError { file: self.file.clone(), line, column, message: format!("cannot be read on: {error}") }
    }
}

impl Iterator for Quads {
    type Item = Result<Quad, ReadError>;

    fn next(&mut self) -> Option<Result<Quad, ReadError>> {
        let quad = match self.parser.as_mut()?.next() {
            Some(Ok(quad)) => convert::from_quad(quad).map_err(|e| self.refuse(e.to_string())),
            Some(Err(e)) => Err(self.error(e)),
            None => {
                self.parser = None;
                return None;
            }
        };
        match quad {
            Ok(mut quad) => {
                quad.fact.iter_mut().chain(&mut quad.graph).for_each(|term| self.labels.rename(term));
                Some(Ok(quad))
            }
            Err(error) => {
                self.parser = None;
                Some(Err(error))
            }
        }
    }
}

/// New labels for blank nodes: 16 hex digits of the load, then the label if ASCII can write it, else
/// a dot (which begins no label) and the label's bytes in hex.
struct Labels {
    load: String,
}

impl Labels {
    fn new(load: u64) -> Labels {
        Labels { load: format!("{load:016x}") }
    }

    fn rename(&self, term: &mut Term) {
        match term {
            Term::Blank(label) if is_label(label) => label.insert_str(0, &self.load),
            Term::Blank(label) => {
                let hex: String = label.bytes().map(|byte| format!("{byte:02x}")).collect();
                *label = format!("{}.{hex}", self.load);
            }
            Term::Triple(parts) => parts.iter_mut().for_each(|part| self.rename(part)),
            Term::Iri(_) | Term::Literal { .. } | Term::LangLiteral { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;

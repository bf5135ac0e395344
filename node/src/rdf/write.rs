//! Writes answers as they come: rows in the formats of SPARQL's results, triples as N-Triples or
//! Turtle.

use super::convert;
use beam_wire::term::{Term, TermError};
use oxrdf::{Variable, VariableRef};
use oxrdfio::{RdfFormat, RdfSerializer, WriterQuadSerializer};
use sparesults::{QueryResultsFormat, QueryResultsSerializer, WriterSolutionsSerializer};
use std::io::{self, Write};

/// How the rows of a SELECT, or the answer of an ASK, are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// SPARQL 1.1 Query Results JSON.
    Json,
    /// Values only, for spreadsheets.
    Csv,
    /// Terms as in Turtle.
    Tsv,
    /// SPARQL Query Results XML.
    Xml,
}

/// How the triples of a CONSTRUCT or DESCRIBE are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TripleFormat {
    /// A triple a line.
    NTriples,
    /// Triples of one subject together.
    Turtle,
}

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output failed.
    #[error(transparent)]
    Output(#[from] io::Error),
    /// The answer holds what its format cannot say.
    #[error("the answer cannot be written: {0}")]
    Term(#[from] TermError),
    /// The answer has no such variable or row.
    #[error("the answer cannot be written: {0}")]
    Row(String),
}

/// A term as N-Triples writes it.
///
/// # Errors
/// If it cannot be written so.
pub fn text(term: &Term) -> Result<String, TermError> {
    Ok(convert::to_oxrdf(term)?.to_string())
}

/// Writes the answer of an ASK.
///
/// # Errors
/// If the output fails.
pub fn boolean<W: Write>(format: RowFormat, output: W, value: bool) -> Result<W, WriteError> {
    Ok(format.serializer().serialize_boolean_to_writer(output, value)?)
}

impl RowFormat {
    fn serializer(self) -> QueryResultsSerializer {
        QueryResultsSerializer::from_format(match self {
            RowFormat::Json => QueryResultsFormat::Json,
            RowFormat::Csv => QueryResultsFormat::Csv,
            RowFormat::Tsv => QueryResultsFormat::Tsv,
            RowFormat::Xml => QueryResultsFormat::Xml,
        })
    }
}

/// Writes rows, a chunk at a time. Give it a buffered output: it writes in small pieces.
pub struct Rows<W: Write> {
    variables: Vec<Variable>,
    output: WriterSolutionsSerializer<W>,
}

impl<W: Write> Rows<W> {
    /// Writes the head.
    ///
    /// # Errors
    /// If a variable has no name that SPARQL allows, or the output fails.
    pub fn start(format: RowFormat, output: W, variables: &[String]) -> Result<Self, WriteError> {
        let variable =
            |name: &String| Variable::new(name).map_err(|e| WriteError::Row(format!("variable {name:?}: {e}")));
        let variables: Vec<Variable> = variables.iter().map(variable).collect::<Result<_, _>>()?;
        let output = format.serializer().serialize_solutions_to_writer(output, variables.clone())?;
        Ok(Rows { variables, output })
    }

    /// Writes rows: for each variable of the head, a term or nothing.
    ///
    /// # Errors
    /// If a row has another number of terms than there are variables, or the output fails.
    pub fn write(&mut self, rows: &[Vec<Option<Term>>]) -> Result<(), WriteError> {
        for row in rows {
            if row.len() != self.variables.len() {
                return Err(WriteError::Row(format!("{} terms for {} variables", row.len(), self.variables.len())));
            }
            let mut bound: Vec<(VariableRef<'_>, oxrdf::Term)> = Vec::with_capacity(row.len());
            for (variable, term) in self.variables.iter().zip(row) {
                if let Some(term) = term {
                    bound.push((variable.as_ref(), convert::to_oxrdf(term)?));
                }
            }
            self.output.serialize(bound.iter().map(|(variable, term)| (*variable, term)))?;
        }
        Ok(())
    }

    /// Writes the end, and gives the output back.
    ///
    /// # Errors
    /// If the output fails.
    pub fn finish(self) -> Result<W, WriteError> {
        Ok(self.output.finish()?)
    }
}

/// Writes triples, a chunk at a time. Give it a buffered output: it writes in small pieces.
pub struct Triples<W: Write> {
    output: WriterQuadSerializer<W>,
}

impl<W: Write> Triples<W> {
    /// Writes nothing yet.
    pub fn start(format: TripleFormat, output: W) -> Self {
        let format = match format {
            TripleFormat::NTriples => RdfFormat::NTriples,
            TripleFormat::Turtle => RdfFormat::Turtle,
        };
        Triples { output: RdfSerializer::from_format(format).for_writer(output) }
    }

    /// Writes triples: subject, predicate, object.
    ///
    /// # Errors
    /// If a term stands where RDF does not allow it, or the output fails.
    pub fn write(&mut self, triples: &[[Term; 3]]) -> Result<(), WriteError> {
        for [subject, predicate, object] in triples {
            let triple = convert::to_triple(subject, predicate, object)?;
            self.output.serialize_triple(&triple)?;
        }
        Ok(())
    }

    /// Writes the end, and gives the output back.
    ///
    /// # Errors
    /// If the output fails.
    pub fn finish(self) -> Result<W, WriteError> {
        Ok(self.output.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(format: RowFormat) -> String {
        let variables = ["a".to_string(), "b".to_string()];
        let mut rows = Rows::start(format, Vec::new(), &variables).unwrap();
        let label = Term::LangLiteral { lexical: "a \"b\", c".into(), language: "en".into(), direction: None };
        rows.write(&[vec![Some(Term::Iri("http://a/s".into())), Some(label)]]).unwrap();
        rows.write(&[vec![None, Some(Term::Blank("b1".into()))]]).unwrap();
        String::from_utf8(rows.finish().unwrap()).unwrap()
    }

    #[test]
    fn rows_are_written_in_every_format() {
        assert_eq!(rows(RowFormat::Csv), "a,b\r\nhttp://a/s,\"a \"\"b\"\", c\"\r\n,_:b1\r\n");
        assert_eq!(rows(RowFormat::Tsv), "?a\t?b\n<http://a/s>\t\"a \\\"b\\\", c\"@en\n\t_:b1\n");
        let json: serde_json::Value = serde_json::from_str(&rows(RowFormat::Json)).unwrap();
        assert_eq!(json["head"]["vars"], serde_json::json!(["a", "b"]));
        assert_eq!(json["results"]["bindings"][0]["b"]["xml:lang"], "en");
        assert_eq!(json["results"]["bindings"][1], serde_json::json!({"b": {"type": "bnode", "value": "b1"}}));
        assert!(rows(RowFormat::Xml).ends_with("<bnode>b1</bnode></binding></result></results></sparql>"));
    }

    #[test]
    fn no_rows_are_an_answer_too() {
        let rows = Rows::start(RowFormat::Json, Vec::new(), &[]).unwrap().finish().unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&rows).is_ok());
    }

    #[test]
    fn an_ask_is_written() {
        let json = boolean(RowFormat::Json, Vec::new(), true).unwrap();
        assert_eq!(json, br#"{"head":{},"boolean":true}"#);
    }

    #[test]
    fn rows_that_do_not_fit_their_head_are_refused() {
        let mut rows = Rows::start(RowFormat::Csv, Vec::new(), &["a".to_string()]).unwrap();
        assert!(matches!(rows.write(&[vec![]]), Err(WriteError::Row(_))));
        assert!(matches!(Rows::start(RowFormat::Csv, Vec::new(), &["a b".to_string()]), Err(WriteError::Row(_))));
    }

    #[test]
    fn triples_are_written_and_can_be_read_again() {
        let iri = |text: &str| Term::Iri(text.into());
        let triples = [
            [iri("http://a/s"), iri("http://a/p"), Term::string("one\ntwo")],
            [iri("http://a/s"), iri("http://a/p"), iri("http://a/o")],
        ];
        for (format, as_read) in [
            (TripleFormat::NTriples, super::super::read::Format::NTriples),
            (TripleFormat::Turtle, super::super::read::Format::Turtle),
        ] {
            let mut output = Triples::start(format, Vec::new());
            triples.chunks(1).for_each(|chunk| output.write(chunk).unwrap());
            let text = output.finish().unwrap();
            let quads = super::super::read::read(io::Cursor::new(text), "answer", as_read, 1).unwrap();
            let back: Vec<_> = quads.map(|quad| quad.unwrap().fact).collect();
            assert_eq!(back, triples, "{format:?}");
        }
        let mut output = Triples::start(TripleFormat::NTriples, Vec::new());
        assert!(matches!(output.write(&[[Term::string("s"), iri("x:p"), iri("x:o")]]), Err(WriteError::Term(_))));
    }
}

//! RDF's syntaxes, at the edge: files in, answers out.
//!
//! `read.rs` reads facts from N-Triples, N-Quads, Turtle, TriG and RDF/XML, plain or compressed, a
//! stream at a time; `batch.rs` cuts the stream into transactions; `write.rs` writes rows and triples
//! in the formats of SPARQL's answers; `convert.rs` turns the parsers' terms into ours and back.
//!
//! A fault in a file is told with file, line and column, and ends the stream: nothing of the batch
//! that holds it is ever sent. Blank nodes get new labels for each load, so that two files may both
//! speak of `_:b`. Nothing here reads a clock, draws chance or knows a network; but for blank nodes
//! without a label (`[]` in Turtle, and in RDF/XML), which the parser draws at random.
//!
//! Missing: JSON-LD, relative IRIs without a base in the file, reading one file by several threads.

pub mod batch;
pub mod convert;
pub mod read;
pub mod write;

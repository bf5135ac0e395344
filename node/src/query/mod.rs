//! SPARQL over facts that lie elsewhere: this room has no network of its own.
//!
//! A query is answered in three steps. [`parse_query`] reads it. Then facts are fetched through a
//! [`Source`]: a part of the data, small where the query is selective, in which the query has the same
//! answer as in all of it ([`fetch`] says how, and why that is so). Then spareval evaluates the query
//! over that part, on a thread that may block. Updates go the same way: [`plan_update`] turns one into
//! the facts that it deletes and inserts, and the classes of facts that its conditions rest on.
//!
//! What it promises:
//! - the answer is that of all facts of the source's version, and of no other;
//! - memory is bounded by [`Limits`]: a query that needs more is refused, naming the pattern;
//! - nothing is left out silently: when the evaluator meets a term whose text is unknown, the answer is
//!   thrown away.
//!
//! What it never does: it sends nothing, reads no clock but its `Env`'s, and opens no connection on
//! behalf of a query (SERVICE and LOAD are refused).
//!
//! What is missing: an engine that joins where the facts lie. Here every fact that a pattern can match
//! travels, joins have no statistics, COUNT counts what was fetched, and ORDER BY with LIMIT sorts all.

mod answer;
mod columns;
#[cfg(test)]
mod differential;
mod error;
mod facts;
mod fetch;
mod guard;
mod local;
mod names;
#[cfg(test)]
mod oewn;
mod overlay;
mod parse;
mod plan;
mod source;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod testing;
mod update;
#[cfg(test)]
mod w3c;
mod work;

pub use answer::{Answer, CHUNK_BYTES, Stats, evaluate};
pub use error::QueryError;
pub use fetch::Reads;
pub use parse::{Query, Update, parse_query, parse_update};
pub use source::{BATCH_MAX, Found, Source};
pub use update::{Changes, plan_update};

use tokio::time::Instant;

/// The stack of each thread that evaluates: parser and evaluator recurse as deep as the guard of
/// texts allows, and frames are large in builds without optimisation.
pub const STACK_BYTES: usize = 16 << 20;

/// What one query may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Facts held at a time.
    pub facts_max: usize,
    /// An estimate of the memory for facts, texts and the answer, each by itself below this.
    pub memory_bytes_max: usize,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

impl Default for Limits {
    /// Two million facts take about 300 MiB in three orders with their numbers; an api node can hold a
    /// few such queries at a time.
    fn default() -> Self {
        Self { facts_max: 2_000_000, memory_bytes_max: 512 << 20, deadline: None }
    }
}

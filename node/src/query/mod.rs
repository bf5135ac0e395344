//! SPARQL over facts that lie elsewhere.

mod error;
mod source;

pub use error::QueryError;
pub use source::{BATCH_MAX, Found, Source};

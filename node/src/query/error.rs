//! Why a query or an update is not answered.

use beam_wire::error::{CallError, Code};

/// Why a query or an update is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The text is not SPARQL.
    #[error("{}{message}", position(.at))]
    Syntax {
        /// What the parser expected.
        message: String,
        /// Line and column, both counted from 1, where the parser knows them.
        at: Option<(usize, usize)>,
    },
    /// It is SPARQL, but asks for something that Beam does not do.
    #[error("{0}")]
    Unsupported(String),
    /// It would take more memory than a query may use.
    #[error("the query is too large: {what}; {advice}")]
    TooLarge {
        /// Which part of the query, and which limit.
        what: String,
        /// What the user can do.
        advice: &'static str,
    },
    /// It took longer than its caller waits.
    #[error("the query was not finished before its deadline")]
    Deadline,
    /// The facts could not be fetched.
    #[error(transparent)]
    Source(#[from] CallError),
    /// The expression evaluator failed.
    #[error("the query failed: {0}")]
    Evaluation(String),
}

fn position(at: &Option<(usize, usize)>) -> String {
    at.map(|(line, column)| format!("line {line}, column {column}: ")).unwrap_or_default()
}

impl From<QueryError> for CallError {
    fn from(e: QueryError) -> CallError {
        let message = e.to_string();
        match e {
            QueryError::Syntax { .. } => CallError::never(Code::Invalid, message),
            QueryError::Unsupported(_) => CallError::never(Code::Unsupported, message),
            QueryError::TooLarge { .. } => CallError::never(Code::QueryTooLarge, message),
            QueryError::Deadline => CallError::never(Code::Deadline, message),
            QueryError::Source(e) => e,
            QueryError::Evaluation(_) => CallError::never(Code::Internal, message),
        }
    }
}

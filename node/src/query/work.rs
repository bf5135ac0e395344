//! Bounds what an evaluation does, and stops it at once.
//!
//! The evaluator looks at its cancellation token when it reads a fact, and takes no bound on memory. So
//! we count: the rows that joins make (see `plan.rs`) and the facts that are read. When there are too
//! many, or nobody waits any more, the evaluation is unwound from within, past an evaluator that
//! would take an error for a missing row and go on. This is not a panic: no hook sees it, and
//! [`until_stopped`] catches it, and nothing else.

use super::error::QueryError;
use spareval::CancellationToken;
use spargebra::Query;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// A row in memory, without its terms.
const ROW_BYTES: usize = 48;

/// A term of a row.
const TERM_BYTES: usize = 8;

/// Two terms that a path connects, in the evaluator's sets of them.
const PAIR_BYTES: usize = 32;

/// What an evaluation has done so far.
pub struct Work {
    token: CancellationToken,
    rows: AtomicU64,
    rows_max: u64,
    facts: AtomicU64,
    facts_max: u64,
}

/// Carried by the unwinding.
struct Stopped(QueryError);

impl Work {
    /// Bounds for a query that may use so many bytes.
    pub fn new(token: CancellationToken, query: &Query, bytes_max: usize) -> Self {
        let text = query.to_sse();
        let variables: std::collections::BTreeSet<&str> =
            text.split(|c: char| c.is_whitespace() || "()".contains(c)).filter(|w| w.starts_with('?')).collect();
        let rows_max = bytes_max / (ROW_BYTES + TERM_BYTES * variables.len());
        // A closure holds a pair for each fact that it follows from each start. Without one, facts are
        // read again and again without being held.
        let closure = text.contains("(path* ") || text.contains("(path+ ");
        let facts_max = if closure { (bytes_max / PAIR_BYTES) as u64 } else { u64::MAX };
        Self { token, rows: AtomicU64::new(0), rows_max: rows_max as u64, facts: AtomicU64::new(0), facts_max }
    }

    /// A join has made a row.
    pub fn row(&self) {
        let rows = self.rows.fetch_add(1, Ordering::Relaxed);
        if rows >= self.rows_max {
            stop(QueryError::TooLarge {
                what: format!("its joins make more than {} rows", self.rows_max),
                advice: "connect its patterns by shared variables, or ask for a part at a time",
            });
        }
        self.check(rows);
    }

    /// A fact was read.
    pub fn fact(&self) {
        let facts = self.facts.fetch_add(1, Ordering::Relaxed);
        if facts >= self.facts_max {
            stop(QueryError::TooLarge {
                what: format!("its paths follow more than {} facts", self.facts_max),
                advice: "name where a path begins or ends",
            });
        }
        self.check(facts);
    }

    fn check(&self, n: u64) {
        if n.is_multiple_of(64) && self.token.is_cancelled() {
            stop(QueryError::Deadline);
        }
    }
}

fn stop(why: QueryError) -> ! {
    resume_unwind(Box::new(Stopped(why)))
}

/// Runs an evaluation until it ends or is stopped.
pub fn until_stopped<T>(evaluation: impl FnOnce() -> T) -> Result<T, QueryError> {
    // Whatever it leaves behind is dropped with it.
    match catch_unwind(AssertUnwindSafe(evaluation)) {
        Ok(done) => Ok(done),
        Err(payload) => match payload.downcast::<Stopped>() {
            Ok(stopped) => Err(stopped.0),
            Err(panic) => resume_unwind(panic),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_stopped_is_caught() {
        assert_eq!(until_stopped(|| 7), Ok(7));
        assert_eq!(until_stopped(|| stop(QueryError::Deadline)), Err::<(), _>(QueryError::Deadline));
        let panic = catch_unwind(|| until_stopped(|| resume_unwind(Box::new("a bug")))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"a bug"));
    }
}

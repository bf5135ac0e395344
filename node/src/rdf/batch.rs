//! Cuts a stream of facts into transactions.

use super::convert;
use super::read::{Quad, Quads, ReadError};
use beam_wire::Term;
use beam_wire::command::Builder;
use beam_wire::message::log::BODY_BYTES_MAX;

pub use beam_client::FACTS_PER_TRANSACTION as FACTS;

/// Bytes that the terms and facts of one entry may take before compression. The rest of it is format,
/// epoch, id, index and counts.
const FACT_BYTES_MAX: usize = BODY_BYTES_MAX - 128;

/// Facts for one transaction.
#[derive(Debug)]
pub struct Batch {
    /// The facts, to be inserted.
    pub builder: Builder,
    /// How many were read for it: more than it holds where the file repeats itself.
    pub read: u64,
}

/// Why reading stopped, and what was taken before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause} ({taken} facts were taken before it, none of the batch that holds it)")]
pub struct BatchError {
    /// What is wrong, and where.
    pub cause: ReadError,
    /// Facts in the batches before.
    pub taken: u64,
}

/// The batches of a file. Ends after the first error; the facts that were read since the last batch
/// are dropped then.
pub struct Batches {
    quads: Quads,
    facts_max: usize,
    /// The one that did not fit into the batch before.
    next: Option<Quad>,
    taken: u64,
    ended: bool,
}

/// Cuts a file into batches of at most `facts_max` facts that fit into an entry of the log.
///
/// # Panics
/// If `facts_max` is 0.
pub fn batches(quads: Quads, facts_max: usize) -> Batches {
    assert!(facts_max > 0, "batches of no facts");
    Batches { quads, facts_max, next: None, taken: 0, ended: false }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Result<Batch, BatchError>> {
        if self.ended {
            return None;
        }
        let mut batch = Batch { builder: Builder::new(), read: 0 };
        match self.fill(&mut batch) {
            Err(cause) => {
                self.ended = true;
                Some(Err(BatchError { cause, taken: self.taken }))
            }
            Ok(()) if batch.read == 0 => None,
            Ok(()) => {
                self.taken += batch.read;
                Some(Ok(batch))
            }
        }
    }
}

impl Batches {
    fn fill(&mut self, batch: &mut Batch) -> Result<(), ReadError> {
        while batch.read < self.facts_max as u64 {
            let quad = match self.next.take().map_or_else(|| self.quads.next(), |quad| Some(Ok(quad))) {
                Some(quad) => quad?,
                None => {
                    self.ended = true;
                    return Ok(());
                }
            };
            let bytes = Builder::bytes_of(&quad.fact, quad.graph.as_ref());
            if batch.builder.bytes() + bytes > FACT_BYTES_MAX {
                if batch.read > 0 {
                    self.next = Some(quad);
                    return Ok(());
                }
                let why = format!("has {bytes} bytes; one may have {FACT_BYTES_MAX}");
                return Err(self.refuse(&quad.fact[0], &why));
            }
            batch.builder.insert(quad.fact, quad.graph).map_err(|e| self.quads.refuse(e.to_string()))?;
            batch.read += 1;
        }
        Ok(())
    }

    fn refuse(&self, subject: &Term, why: &str) -> ReadError {
        let subject = convert::to_oxrdf(subject).map_or_else(|_| format!("{subject:?}"), |term| term.to_string());
        self.quads.refuse(format!("a fact about {subject} {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdf::read::{Format, read};
    use beam_wire::command::{Command, Transact};
    use beam_wire::{Epoch, LogIndex, TransactionId};
    use std::io::Cursor;

    fn of(text: impl Into<Vec<u8>>, facts_max: usize) -> Batches {
        batches(read(Cursor::new(text.into()), "data.nt", Format::NTriples, 1).unwrap(), facts_max)
    }

    fn line(n: usize) -> String {
        format!("<http://a/s{n}> <http://a/p> \"{n}\" .\n")
    }

    fn transact(batch: Batch) -> Transact {
        batch.builder.build(Epoch(1), TransactionId { born: LogIndex(1), random: 1 }, LogIndex(1), vec![])
    }

    #[test]
    fn every_fact_is_in_one_batch() {
        let text: String = (0..25).map(line).collect();
        let sizes: Vec<_> = of(text, 10).map(|batch| transact(batch.unwrap()).inserts.len()).collect();
        assert_eq!(sizes, [10, 10, 5]);
        assert_eq!(of("", 10).count(), 0);
        assert_eq!(of((0..10).map(line).collect::<String>(), 10).count(), 1);
    }

    #[test]
    fn facts_that_a_file_repeats_are_counted_but_sent_once() {
        let batch = of(line(1).repeat(7), 10).next().unwrap().unwrap();
        assert_eq!(batch.read, 7);
        assert_eq!(transact(batch).inserts.len(), 1);
    }

    #[test]
    fn the_batch_with_the_fault_is_not_given_out() {
        let text: String = (0..25).map(|n| if n == 17 { "oops\n".into() } else { line(n) }).collect();
        let mut batches = of(text, 10);
        assert_eq!(batches.next().unwrap().unwrap().read, 10);
        let error = batches.next().unwrap().unwrap_err();
        assert_eq!((error.taken, error.cause.line), (10, Some(18)));
        assert!(error.to_string().starts_with("data.nt:18:"), "{error}");
        assert!(error.to_string().contains("10 facts were taken before it"), "{error}");
        assert!(batches.next().is_none());
    }

    #[test]
    fn large_facts_make_small_batches_that_fit_into_an_entry() {
        // Texts that do not compress.
        let mut seed = 1u64;
        let mut noise = || {
            let letters = (0..300_000).map(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                char::from(b'#' + (seed >> 33) as u8 % 50)
            });
            letters.collect::<String>()
        };
        let text: String = (0..7).map(|n| format!("<http://a/s{n}> <http://a/p> \"{}\" .\n", noise())).collect();
        let batches: Vec<_> = of(text, 1000).map(|batch| batch.unwrap()).collect();
        assert_eq!(batches.iter().map(|batch| batch.read).collect::<Vec<_>>(), [3, 3, 1]);
        for batch in batches {
            let body = Command::Transact(transact(batch)).encode();
            assert!(body.len() <= BODY_BYTES_MAX);
            assert!(Command::decode(&body).is_ok());
        }
    }

    #[test]
    fn a_fact_that_fits_into_no_entry_is_a_fault() {
        let text = format!("{}<http://a/s> <http://a/p> \"{}\" .\n", line(1), "x".repeat(BODY_BYTES_MAX));
        let mut batches = of(text, 1000);
        assert_eq!(batches.next().unwrap().unwrap().read, 1);
        let error = batches.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("a fact about <http://a/s> has 92"), "{error}");
        assert_eq!(error.taken, 1);
    }
}

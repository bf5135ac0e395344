//! Makes a transaction in the one order that every view accepts.

use super::{FactRef, READS_MAX, Transact};
use crate::ids::{Epoch, LogIndex, TransactionId};
use crate::term::{Term, TermError};
use std::collections::{BTreeSet, HashMap};

/// Collects facts into a [`Transact`]: each term and fact once, everything sorted.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    /// Never iterated where order could matter: terms go to the place that their number says.
    numbers: HashMap<Term, u32>,
    deletes: BTreeSet<FactRef>,
    inserts: BTreeSet<FactRef>,
    term_bytes: usize,
}

/// More than a [`FactRef`] of a table below 2^21 terms takes.
const FACT_BYTES: usize = 13;

impl Builder {
    /// Nothing yet.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Will insert this fact; in the default graph if none is given.
    ///
    /// # Errors
    /// If it is no fact that Beam stores. Nothing is added then.
    pub fn insert(&mut self, fact: [Term; 3], graph: Option<Term>) -> Result<(), TermError> {
        let fact = self.number(fact, graph)?;
        self.inserts.insert(fact);
        Ok(())
    }

    /// Will delete this fact; from the default graph if none is given. Deletes come before inserts.
    ///
    /// # Errors
    /// If it is no fact that Beam stores. Nothing is added then.
    pub fn delete(&mut self, fact: [Term; 3], graph: Option<Term>) -> Result<(), TermError> {
        let fact = self.number(fact, graph)?;
        self.deletes.insert(fact);
        Ok(())
    }

    fn number(&mut self, fact: [Term; 3], graph: Option<Term>) -> Result<FactRef, TermError> {
        fact[0].can_be_subject()?;
        fact[1].can_be_predicate()?;
        graph.as_ref().map_or(Ok(()), Term::can_be_graph)?;
        // Terms of the table were checked when they came in: all must be good before any comes in.
        let known = |term: &Term| match self.numbers.get(term) {
            Some(number) => Ok(Some(*number)),
            None => term.check().map(|()| None),
        };
        let [s, p, o] = &fact;
        let [s, p, o] = [known(s)?, known(p)?, known(o)?];
        let g = graph.as_ref().map_or(Ok(None), known)?;
        let [subject, predicate, object] = fact;
        Ok(FactRef {
            subject: s.unwrap_or_else(|| self.number_of(subject)),
            predicate: p.unwrap_or_else(|| self.number_of(predicate)),
            object: o.unwrap_or_else(|| self.number_of(object)),
            graph: graph.map(|graph| g.unwrap_or_else(|| self.number_of(graph))),
        })
    }

    /// The number of a term that may be new.
    fn number_of(&mut self, term: Term) -> u32 {
        let next = self.numbers.len() as u32;
        let bytes = text_bytes(&term);
        let number = *self.numbers.entry(term).or_insert(next);
        if number == next {
            self.term_bytes += bytes;
        }
        number
    }

    /// Facts so far, deletes and inserts.
    pub fn len(&self) -> usize {
        self.deletes.len() + self.inserts.len()
    }

    /// Whether there is no fact yet.
    pub fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.inserts.is_empty()
    }

    /// At most so many bytes will the terms and facts so far take, before compression.
    pub fn bytes(&self) -> usize {
        self.term_bytes + self.len() * FACT_BYTES
    }

    /// At most so many bytes does one more fact add.
    pub fn bytes_of(fact: &[Term; 3], graph: Option<&Term>) -> usize {
        fact.iter().chain(graph).map(text_bytes).sum::<usize>() + FACT_BYTES
    }

    /// The transaction. `reads` may come in any order and more than once; above
    /// [`READS_MAX`] the caller must have coarsened them.
    pub fn build(self, epoch: Epoch, id: TransactionId, read_index: LogIndex, mut reads: Vec<u64>) -> Transact {
        reads.sort_unstable();
        reads.dedup();
        assert!(reads.len() <= READS_MAX, "{} reads were not coarsened", reads.len());
        let mut terms: Vec<Option<Term>> = vec![None; self.numbers.len()];
        for (term, number) in self.numbers {
            terms[number as usize] = Some(term);
        }
        Transact {
            epoch,
            id,
            read_index,
            reads,
            terms: terms.into_iter().map(|term| term.expect("numbers are dense")).collect(),
            deletes: self.deletes.into_iter().collect(),
            inserts: self.inserts.into_iter().collect(),
        }
    }
}

/// At most so many bytes does a term take in postcard: a length of up to five bytes before each text.
fn text_bytes(term: &Term) -> usize {
    match term {
        Term::Iri(text) | Term::Blank(text) => 6 + text.len(),
        Term::Literal { lexical, datatype } => 11 + lexical.len() + datatype.len(),
        Term::LangLiteral { lexical, language, .. } => 13 + lexical.len() + language.len(),
        Term::Triple(parts) => 1 + parts.iter().map(text_bytes).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::{codec, term::Direction};

    fn iri(text: &str) -> Term {
        Term::Iri(text.into())
    }

    fn transact(builder: Builder, reads: Vec<u64>) -> Transact {
        let id = TransactionId { born: LogIndex(7), random: 9 };
        builder.build(Epoch(1), id, LogIndex(7), reads)
    }

    #[test]
    fn what_is_built_is_accepted_and_holds_each_thing_once() {
        let mut builder = Builder::new();
        for object in ["x:o3", "x:o1", "x:o2", "x:o1"] {
            builder.insert([iri("x:s"), iri("x:p"), iri(object)], Some(iri("x:g"))).unwrap();
        }
        builder.delete([iri("x:s"), iri("x:p"), Term::string("old")], None).unwrap();
        assert_eq!(builder.len(), 4);
        let bound = builder.bytes();
        let transact = transact(builder, vec![5, 3, 5]);
        assert_eq!(transact.reads, [3, 5]);
        assert_eq!(transact.terms.len(), 7);
        assert_eq!(transact.inserts.len(), 3);
        assert!(codec::encode(&(&transact.terms, &transact.deletes, &transact.inserts)).len() <= bound + 3);
        let command = Command::Transact(transact);
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    }

    #[test]
    fn what_is_refused_leaves_nothing_behind() {
        let mut builder = Builder::new();
        assert!(builder.insert([Term::string("s"), iri("x:p"), iri("x:o")], None).is_err());
        assert!(builder.insert([iri("x:s"), Term::Blank("p".into()), iri("x:o")], None).is_err());
        assert!(builder.insert([iri("x:s"), iri("x:p"), iri("relative")], None).is_err());
        assert!(builder.insert([iri("x:s"), iri("x:p"), iri("x:o")], Some(Term::string("g"))).is_err());
        assert!(builder.is_empty());
        assert_eq!(builder.bytes(), 0);
        assert_eq!(transact(builder, vec![]).terms, []);
    }

    #[test]
    fn the_bound_on_bytes_holds_for_every_kind_of_term() {
        let text = "t".repeat(300);
        let direction = Some(Direction::Rtl);
        for term in [
            iri(&format!("x:{text}")),
            Term::Blank(text.clone()),
            Term::string(text.clone()),
            Term::LangLiteral { lexical: text.clone(), language: "en".into(), direction },
            Term::Triple(Box::new([iri("x:s"), iri("x:p"), Term::string(text)])),
        ] {
            assert!(codec::encode(&term).len() <= text_bytes(&term));
        }
    }
}

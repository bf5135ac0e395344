//! Texts of terms: stored once each, in the term space.

use super::store::{Snapshot, StorageError};
use beam_wire::{Point, Term, TermId, codec};

/// Ids whose text is known to be stored: a small table in which a newer id takes the place of an
/// older one. Most entries use the same predicates and classes as the one before.
pub struct KnownTerms {
    ids: Vec<TermId>,
}

/// Entries of the table: 1.1 MB.
const KNOWN_MAX: usize = 65_536;

impl KnownTerms {
    /// Knows none.
    pub fn new() -> KnownTerms {
        KnownTerms { ids: vec![TermId::DEFAULT_GRAPH; KNOWN_MAX] }
    }

    /// Notes that the text of `id` is stored, or will be with this batch; true if that is news.
    pub fn learn(&mut self, id: &TermId, point: Point) -> bool {
        let known = &mut self.ids[point.0 as usize % KNOWN_MAX];
        let news = known != id;
        *known = *id;
        news
    }
}

/// The text of a term; none if it is not stored here.
pub fn read(snapshot: &Snapshot, id: &TermId) -> Result<Option<Term>, StorageError> {
    let Some(text) = snapshot.term(id)? else { return Ok(None) };
    codec::decode(&text).map(Some).map_err(|e| StorageError::Damaged(format!("the text of a term: {e}")))
}

//! Texts of terms: stored once each, in the term space.

use super::lookup::{LookupError, check_version};
use super::store::{Snapshot, StorageError, Store};
use beam_wire::{LogIndex, Point, Term, TermId, Version, codec};

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

/// A batch of ids, being looked up.
pub struct TermLookup {
    snapshot: Snapshot,
    /// With their numbers in the request; the next one last.
    ids: Vec<(u32, TermId)>,
}

/// Texts in one slice, in bytes, beside its last one.
const SLICE_BYTES: usize = 200 << 10;
/// Ids looked up in one slice: a few milliseconds.
const SLICE_IDS: usize = 1024;

impl TermLookup {
    /// Takes the snapshot. The caller has waited until the version is applied.
    pub fn open(store: &Store, at: Version, ids: Vec<TermId>) -> Result<TermLookup, LookupError> {
        let snapshot = store.snapshot();
        let progress = snapshot.progress()?;
        let epoch = progress.rules.as_ref().map(|rules| rules.epoch);
        // Terms are never dropped, so that no version is too old.
        check_version(at, epoch, LogIndex(0), progress.applied)?;
        let mut ids: Vec<(u32, TermId)> = (0..).zip(ids).collect();
        ids.sort_unstable_by_key(|(_, id)| std::cmp::Reverse(*id));
        Ok(TermLookup { snapshot, ids })
    }

    /// Finds more, and says whether that was the last. A slice may be empty without being the last.
    pub fn slice(&mut self) -> Result<(Vec<(u32, Term)>, bool), StorageError> {
        let (mut terms, mut bytes) = (Vec::new(), 0);
        for _ in 0..SLICE_IDS {
            let Some((number, id)) = self.ids.pop() else { return Ok((terms, true)) };
            let inline = id.inline();
            let term = if inline.is_some() { inline } else { read(&self.snapshot, &id)? };
            if let Some(term) = term {
                bytes += 40 + text_bytes(&term);
                terms.push((number, term));
            }
            if bytes >= SLICE_BYTES {
                break;
            }
        }
        Ok((terms, self.ids.is_empty()))
    }
}

fn text_bytes(term: &Term) -> usize {
    match term {
        Term::Iri(text) | Term::Blank(text) => text.len(),
        Term::Literal { lexical, datatype } => lexical.len() + datatype.len(),
        Term::LangLiteral { lexical, language, .. } => lexical.len() + language.len(),
        Term::Triple(parts) => parts.iter().map(text_bytes).sum(),
    }
}

//! Where facts come from: the only door between a query and the rest of the world.

use beam_wire::error::{CallError, Code};
use beam_wire::fact::{Fact, Pattern};
use beam_wire::message::view::KEYS_MAX;
use beam_wire::{Term, TermId};
use futures::future::BoxFuture;

/// Patterns in one look-up, and ids in one question for texts: what a view takes in one call.
pub const BATCH_MAX: usize = KEYS_MAX;

/// Facts and texts of one version of the database.
///
/// Every answer is of the same version, however many questions are asked. Neither call is asked for
/// more than [`BATCH_MAX`] things at a time.
pub trait Source: Send + Sync {
    /// Every fact that matches any of the patterns, each once, in any order.
    ///
    /// When there are more than `limit`, this is an error with [`Code::QueryTooLarge`], found before
    /// many more than `limit` facts are held in memory ([`too_many`] makes it).
    fn lookup(&self, patterns: Vec<Pattern>, limit: usize) -> BoxFuture<'_, Result<Vec<Fact>, CallError>>;

    /// The texts of terms, in any order. An id that nobody knows is left out.
    fn terms(&self, ids: Vec<TermId>) -> BoxFuture<'_, Result<Vec<(TermId, Term)>, CallError>>;
}

/// What [`Source::lookup`] says when more facts match than it was asked to hold.
pub fn too_many(limit: usize) -> CallError {
    CallError::never(Code::QueryTooLarge, format!("more than {limit} facts match"))
}

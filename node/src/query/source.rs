//! Where facts come from: the only door between a query and the rest of the world.

use beam_wire::error::CallError;
use beam_wire::fact::{Fact, Pattern};
use beam_wire::message::view::KEYS_MAX;
use beam_wire::{Term, TermId, Version};
use futures::future::BoxFuture;

/// Patterns in one look-up, and ids in one question for texts: what a view takes in one call.
pub const BATCH_MAX: usize = KEYS_MAX;

/// Facts and texts of one version of the database.
///
/// Every answer is of the same version, however many questions are asked. Neither call is asked for
/// more than [`BATCH_MAX`] things at a time. Several calls may be waited for at once.
///
/// All facts of a version come in one order, whoever holds them: answers whose order nobody asked for, and
/// ties of those with one, follow from it, so that the same question of the same version has the same answer.
pub trait Source: Send + Sync {
    /// Facts that match any of the patterns, each once: all of them, or at least
    /// `limit` of them and word that there are more. It holds not many more than `limit` in memory.
    fn lookup(&self, patterns: Vec<Pattern>, limit: usize) -> BoxFuture<'_, Result<Found, CallError>>;

    /// At least `count` facts that match a pattern, or all: whichever come first, unless the answer shall be
    /// the same whenever it is asked for.
    fn some(&self, pattern: Pattern, count: usize) -> BoxFuture<'_, Result<Found, CallError>> {
        self.lookup(vec![pattern], count)
    }

    /// The texts of terms, in any order. An id that nobody knows is left out.
    fn terms(&self, ids: Vec<TermId>) -> BoxFuture<'_, Result<Vec<(TermId, Term)>, CallError>>;

    /// The version of all that is answered, where versions have names. New blank nodes are called after it.
    fn version(&self) -> Option<Version> {
        None
    }
}

/// What a look-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Facts that match, each once.
    pub facts: Vec<Fact>,
    /// Whether these are all. If not, there are at least as many as the limit.
    pub complete: bool,
}

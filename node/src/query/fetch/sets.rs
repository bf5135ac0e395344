//! Sets of terms: what a variable may be bound to, as far as is known.

use crate::query::facts::Id;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A set of terms: sorted, each once.
pub type Set = Arc<Vec<Id>>;

/// For some variables, a set that holds every term the variable may be bound to in a row of interest.
pub type Candidates = BTreeMap<String, Set>;

/// What is known of a pattern's rows of interest once its facts are fetched.
#[derive(Clone, Debug, Default)]
pub struct Out {
    /// Variables that are bound in each of these rows, and a superset of what they are bound to.
    pub sets: Candidates,
    /// There is no such row.
    pub empty: bool,
}

impl Out {
    /// Adds what is known of the other half of a join.
    pub fn join(&mut self, other: Out) {
        narrow(&mut self.sets, &other.sets);
        self.empty |= other.empty;
        self.see_empty();
    }

    /// A variable that is bound in every row, and can be nothing, means that there is no row.
    pub fn see_empty(&mut self) {
        self.empty |= self.sets.values().any(|set| set.is_empty());
    }
}

/// Sorts, and drops doubles.
pub fn set(mut ids: Vec<Id>) -> Set {
    ids.sort_unstable();
    ids.dedup();
    ids.shrink_to_fit();
    Arc::new(ids)
}

/// Whether the set holds a term.
pub fn contains(set: &Set, id: Id) -> bool {
    set.binary_search(&id).is_ok()
}

/// Terms of both.
pub fn both(a: &Set, b: &Set) -> Set {
    if Arc::ptr_eq(a, b) {
        return a.clone();
    }
    let (small, large) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    Arc::new(small.iter().copied().filter(|id| contains(large, *id)).collect())
}

/// Terms of either.
pub fn either(a: &Set, b: &Set) -> Set {
    set(a.iter().chain(b.iter()).copied().collect())
}

/// Terms of the first that are not in the second.
pub fn without(a: &Set, b: &Set) -> Set {
    Arc::new(a.iter().copied().filter(|id| !contains(b, *id)).collect())
}

/// Both kinds of knowledge at once.
pub fn narrow(sets: &mut Candidates, with: &Candidates) {
    for (variable, set) in with {
        sets.entry(variable.clone()).and_modify(|s| *s = both(s, set)).or_insert_with(|| set.clone());
    }
}

/// What is known of these variables only.
pub fn only<'v>(sets: &Candidates, variables: impl IntoIterator<Item = &'v oxrdf::Variable>) -> Candidates {
    variables.into_iter().filter_map(|v| Some((v.as_str().to_owned(), sets.get(v.as_str())?.clone()))).collect()
}

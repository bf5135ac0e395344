//! Where a voter's log ends to agree with that of the leader it has elected.
//!
//! openraft looks for that place by halving from index 0, a round trip a step: seconds for a long log on a
//! WAN, in which nothing is acknowledged. But the voter has said where its log ends when it voted: the
//! vote was written after all that it held, and since then it takes entries from that leader alone. If the
//! leader's log holds that same entry, both hold the same up to there (Raft's log matching property). So
//! the transport answers the steps of the search itself, and the first message that travels is the one
//! that carries what the voter lacks.
//!
//! openraft takes an answer to a request for a sign of life, as new as the request: leases and linearizable
//! reads rest on it. These answers must not be that, since nobody was asked. openraft reads no time from
//! an answer that confirms nothing beyond what precedes the request's entries, nor from a conflict below
//! that: those are the only ones given here.

use super::store::LogStore;
use super::types::{LogId, LogTypes};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use std::io;

/// openraft halves in multiples of so many entries.
const HALVING_UNIT: u64 = 8;

/// A search for where one voter's log ends to agree with ours.
#[derive(Debug)]
pub struct Search {
    /// The voter holds what we hold below this index, and nothing else of ours.
    shared: u64,
    /// openraft has been told of what lies below this index.
    told: u64,
}

/// What to do with a request of the search.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Say that what precedes the entries is held.
    Matches,
    /// Say that the search ends before this index.
    EndsBefore(u64),
    /// Only the voter can answer.
    Send,
}

impl Search {
    /// Begins a search for a voter whose log ended with `theirs` when it voted for us. None if our log does
    /// not tell how much of that it shares.
    pub async fn begin(store: &LogStore, theirs: Option<LogId>) -> io::Result<Option<Self>> {
        let shared = match theirs {
            None => Some(0),
            Some(theirs) => shared(store, theirs).await?,
        };
        Ok(shared.map(|shared| Self { shared, told: 0 }))
    }

    /// The answer to a request, if it need not be sent.
    pub async fn answer(
        &mut self,
        store: &LogStore,
        request: &AppendEntriesRequest<LogTypes>,
    ) -> io::Result<Option<StreamAppendResult<LogTypes>>> {
        let Some(before) = request.prev_log_id.filter(|_| !request.entries.is_empty()) else { return Ok(None) };
        let step = self.step(before.index);
        if let Step::EndsBefore(index) = step
            && let Some(end) = store.log_id(index).await?
        {
            return Ok(Some(Err(StreamAppendError::Conflict(end))));
        }
        // Also where the search cannot end since the entry there is gone.
        if step == Step::Send || before.index >= self.shared {
            return Ok(None);
        }
        self.told = before.index + 1;
        Ok(Some(Ok(Some(before))))
    }

    /// What to answer to a request whose entries follow the index `before`.
    fn step(&self, before: u64) -> Step {
        if before <= self.told {
            // openraft does not halve any more; or there is no room below for an end.
            let news = before == self.told && before < self.shared;
            return if news { Step::Matches } else { Step::Send };
        }
        if before >= self.shared {
            return Step::EndsBefore(self.shared.min(before - 1));
        }
        // The next steps would go entry by entry: to end here makes openraft send all that follows. What
        // the voter holds of it is left out by `trim`.
        if before - self.told < HALVING_UNIT { Step::EndsBefore(self.told) } else { Step::Matches }
    }

    /// Leaves out of a request what the voter holds.
    pub fn trim(&self, request: &mut AppendEntriesRequest<LogTypes>) {
        let next = request.prev_log_id.map_or(0, |id| id.index + 1);
        let held = usize::try_from(self.shared.saturating_sub(next)).unwrap_or(usize::MAX);
        if let Some(last) = request.entries.drain(..held.min(request.entries.len())).last() {
            request.prev_log_id = Some(last.log_id);
        }
    }
}

/// How much a log that ends with `theirs` shares with ours: everything below the index returned, and nothing
/// above. None if ours does not tell.
async fn shared(store: &LogStore, theirs: LogId) -> io::Result<Option<u64>> {
    let state = store.state();
    let holds = state.purged == Some(theirs) || store.log_id(theirs.index).await? == Some(theirs);
    if holds {
        return Ok(Some(theirs.index + 1));
    }
    // It ends with entries that we lack. Who holds one entry of a leader holds all that this leader put
    // before it, so both share our newest entry of the leader that wrote their last one.
    let Some(last) = state.last else { return Ok(None) };
    let (mut low, mut high) = (state.first, theirs.index.min(last.index) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match store.log_id(middle).await? {
            None => return Ok(None),
            Some(id) if id.leader_id <= theirs.leader_id => low = middle + 1,
            Some(_) => high = middle,
        }
    }
    let Some(newest) = low.checked_sub(1) else { return Ok(None) };
    let ours = store.log_id(newest).await?;
    Ok(ours.filter(|id| id.leader_id == theirs.leader_id).map(|id| id.index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// openraft's part: it knows that the match lies in `matching..=end`, and asks halfway. Ends with where
    /// it goes on, and how many steps it took to know.
    fn search(entries: u64, shared: u64, purged: u64) -> (u64, u32) {
        let (mut matching, mut end) = (0, entries);
        let mut search = Search { shared, told: 0 };
        for steps in 0.. {
            assert!(matching <= end && matching <= shared, "{entries} {shared} {purged}: {matching}..{end}");
            let start = (matching + (end - matching) / 16 * 8).max(purged);
            let Some(before) = start.checked_sub(1).filter(|_| matching < end) else { return (matching, steps) };
            let step = match search.step(before) {
                Step::EndsBefore(index) if index < purged => Step::Matches,
                step => step,
            };
            match step {
                Step::Matches if before < shared => {
                    assert!(before >= matching, "openraft learns something, or it would ask again for ever");
                    search.told = start;
                    matching = start;
                }
                Step::EndsBefore(index) => {
                    assert!((matching..before).contains(&index), "{entries} {shared} {purged}: ends before {index}");
                    end = index;
                }
                Step::Matches | Step::Send => return (matching, steps),
            }
        }
        unreachable!()
    }

    #[test]
    fn a_search_ends_close_to_the_match_without_a_message() {
        for entries in [0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 100, 1000, 1 << 20, u64::MAX >> 8] {
            for less in [0, 1, 2, 7, 8, 9, 15, 16, 40, 100, 999, 5000, u64::MAX] {
                let shared = entries.saturating_sub(less);
                let (matching, steps) = search(entries, shared, 0);
                assert!(shared - matching < 48, "{entries} entries, {shared} shared: goes on from {matching}");
                assert!(steps <= 64, "{entries} entries, {shared} shared: {steps} steps");
            }
        }
    }

    #[test]
    fn what_is_gone_is_never_where_a_search_ends() {
        for purged in [1, 5, 8, 17, 500, 990, 1000] {
            for shared in [purged, purged + 1, purged + 7, 1000] {
                let (matching, _) = search(1000, shared.min(1000), purged);
                assert!(matching >= purged, "{purged} gone, {shared} shared: goes on from {matching}");
            }
        }
    }
}

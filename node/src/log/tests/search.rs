use super::*;
use crate::log::disk_sim::{SimDisk, SimDiskOptions};
use crate::log::search::Search;
use openraft::raft::AppendEntriesRequest;

/// Entries of these terms, from index 0 on.
async fn log(terms: &[(u64, u64)]) -> LogStore {
    let mut store = open(&SimDisk::new(&Env::current(), SimDiskOptions::default())).await.unwrap();
    let terms = terms.iter().flat_map(|(term, count)| (0..*count).map(|_| *term));
    for (index, term) in (0..).zip(terms) {
        append(&mut store, [data(term, index)]).await.unwrap();
    }
    store
}

/// What is left out of a request for everything, for a voter whose log ended there: none if it is not known
/// what it holds.
async fn left_out(store: &LogStore, log_ends: Option<LogId>) -> Option<u64> {
    let search = Search::begin(store, log_ends).await.unwrap()?;
    let entries = all(store).await;
    let prev_log_id = entries.first().and_then(|e| e.log_id.index.checked_sub(1)).map(|index| id(1, index));
    let count = entries.len();
    let mut request = AppendEntriesRequest { vote: vote(9), prev_log_id, entries, leader_commit: None };
    search.trim(&mut request);
    let left = request.prev_log_id.map_or(0, |id| id.index + 1);
    assert_eq!(request.entries.len() + (left - prev_log_id.map_or(0, |id| id.index + 1)) as usize, count);
    Some(left)
}

/// Prevents: counting on a follower for entries that it does not hold.
#[test]
fn two_logs_share_what_lies_before_an_entry_that_both_hold() {
    run(async {
        let store = log(&[(1, 10), (3, 10), (4, 5)]).await;
        assert_eq!(left_out(&store, None).await, Some(0), "an empty log shares nothing");
        assert_eq!(left_out(&store, Some(id(4, 24))).await, Some(25), "all of it");
        assert_eq!(left_out(&store, Some(id(1, 9))).await, Some(10), "a shorter log");
        assert_eq!(left_out(&store, Some(id(1, 3))).await, Some(4), "a much shorter one");
        // It has entries of a leader that did not bring them to us.
        assert_eq!(left_out(&store, Some(id(1, 17))).await, Some(10), "longer, of an old leader");
        assert_eq!(left_out(&store, Some(id(3, 99))).await, Some(20), "longer than all of ours");
        // Of the leader 2 we have nothing: what it shares before that, nobody knows.
        assert_eq!(left_out(&store, Some(id(2, 12))).await, None);
        assert_eq!(left_out(&log(&[]).await, Some(id(2, 12))).await, None);
    });
}

/// Prevents: reading what is gone.
#[test]
fn a_log_whose_beginning_is_gone_knows_its_last_purged_entry() {
    run(async {
        let mut store = log(&[(1, 10), (3, 10)]).await;
        store.purge(id(1, 7)).await.unwrap();
        assert_eq!(left_out(&store, Some(id(1, 7))).await, Some(8));
        assert_eq!(left_out(&store, Some(id(1, 15))).await, Some(10));
        assert_eq!(left_out(&store, Some(id(1, 5))).await, None, "nobody knows what was there");
    });
}

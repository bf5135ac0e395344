//! A log that loses power at every single operation of its disk, and comes back.
//!
//! The script appends, votes, rolls, truncates and discards, step by step. Whatever a crash leaves must be
//! what the log was after some step: at least after the last one that was acknowledged, with no entry
//! missing before another, and nothing of a later step (a vote, say) without the earlier ones.

use super::*;
use crate::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
use crate::log::segment::is_segment_name;
use std::sync::Mutex;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Entries `first..first + count` of a term.
    Append {
        term: u64,
        first: u64,
        count: u64,
    },
    /// As `Append`, but the next step does not wait for it: it is in flight when that is asked for.
    Pipeline {
        term: u64,
        first: u64,
        count: u64,
    },
    Vote(u64),
    Epoch(u64),
    Truncate {
        after: (u64, u64),
    },
    Purge((u64, u64)),
}

use Step::*;

/// Segments hold three entries. Every kind of step meets every kind of place: within a segment, at its
/// end, across several.
pub const SCRIPT: &[Step] = &[
    Vote(1),
    Append { term: 1, first: 0, count: 2 },
    Epoch(1),
    Pipeline { term: 1, first: 2, count: 4 },
    Pipeline { term: 1, first: 6, count: 1 },
    Vote(2),
    Append { term: 2, first: 7, count: 3 },
    Truncate { after: (2, 8) },
    Truncate { after: (1, 4) },
    Pipeline { term: 3, first: 5, count: 1 },
    Vote(3),
    Append { term: 3, first: 6, count: 6 },
    Purge((1, 1)),
    Purge((3, 5)),
    Append { term: 3, first: 12, count: 1 },
    Purge((3, 12)),
    Append { term: 3, first: 13, count: 2 },
    Truncate { after: (3, 12) },
    Append { term: 4, first: 13, count: 1 },
    Vote(4),
];

/// What the log should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    entries: Vec<LogId>,
    vote: Option<u64>,
    epoch: Option<u64>,
    purged: Option<LogId>,
}

impl Model {
    pub fn step(&mut self, step: Step) {
        match step {
            Append { term, first, count } | Pipeline { term, first, count } => {
                self.entries.extend((first..first + count).map(|i| id(term, i)));
            }
            Vote(term) => self.vote = Some(term),
            Epoch(epoch) => self.epoch = Some(epoch),
            Truncate { after } => self.entries.retain(|e| e.index <= after.1),
            Purge(upto) => {
                self.purged = Some(id(upto.0, upto.1));
                self.entries.retain(|e| e.index > upto.1);
            }
        }
    }

    /// Whether a log may look like `self` when the step from `before` to `after` was cut short.
    fn is_between(&self, before: &Model, after: &Model) -> bool {
        let (short, long) = match before.entries.len() < after.entries.len() {
            true => (before, after),
            false => (after, before),
        };
        let of_a_part = Model { entries: self.entries.clone(), ..before.clone() };
        let in_part = long.entries.starts_with(&self.entries) && self.entries.starts_with(&short.entries);
        // A discard is all or nothing: it moves where the log begins.
        *self == *before || *self == *after || *self == of_a_part && before.purged == after.purged && in_part
    }
}

/// How many steps were acknowledged, and how many were asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub acknowledged: usize,
    pub asked: usize,
}

/// Does the script until power fails.
pub async fn perform(store: &mut LogStore, progress: &Mutex<Progress>) {
    let mut in_flight = Vec::new();
    for (i, step) in SCRIPT.iter().enumerate() {
        progress.lock().unwrap().asked = i + 1;
        let result = match *step {
            Append { term, first, count } => append(store, (first..first + count).map(|i| data(term, i))).await,
            Pipeline { term, first, count } => {
                match append_only(store, (first..first + count).map(|i| data(term, i))).await {
                    Ok(flushed) => {
                        in_flight.push(flushed);
                        continue;
                    }
                    Err(e) => Err(e),
                }
            }
            Vote(term) => store.save_vote(&vote(term)).await,
            Epoch(epoch) => store.set_epoch(beam_wire::Epoch(epoch)).await,
            Truncate { after } => store.truncate_after(Some(id(after.0, after.1))).await,
            Purge(upto) => store.purge(id(upto.0, upto.1)).await,
        };
        if result.is_err() {
            for is_flushed in in_flight {
                progress.lock().unwrap().acknowledged += usize::from(matches!(is_flushed.await, Ok(Ok(()))));
            }
            return;
        }
        for is_flushed in in_flight.drain(..) {
            is_flushed.await.unwrap().expect("a later step is acknowledged, so this one is flushed");
        }
        progress.lock().unwrap().acknowledged = i + 1;
    }
}

/// What a crash left is what the log was after some step that was asked for, or on the way there, and not
/// before the last one that was acknowledged.
pub fn check(found: &Model, progress: Progress) {
    let Progress { acknowledged, asked } = progress;
    let mut before = Model::default();
    SCRIPT[..acknowledged].iter().for_each(|step| before.step(*step));
    let fits = *found == before
        || SCRIPT[acknowledged..asked].iter().any(|step| {
            let mut after = before.clone();
            after.step(*step);
            let fits = found.is_between(&before, &after);
            before = after;
            fits
        });
    assert!(fits, "with {progress:?}, the log is {found:?}");
}

pub async fn look(store: &LogStore) -> Model {
    let entries = all(store).await;
    for entry in &entries {
        assert_eq!(*entry, data(entry.log_id.leader_id.term, entry.log_id.index));
    }
    Model {
        entries: entries.iter().map(|e| e.log_id).collect(),
        vote: store.vote().map(|v| v.leader_id.term),
        epoch: store.epoch().map(|epoch| epoch.0),
        purged: store.state().purged,
    }
}

/// The log still works, and keeps what it takes from now on.
pub async fn goes_on(store: &mut LogStore, disk: &SimDisk) {
    let next = store.state().last.map_or(0, |last| last.index + 1);
    append(store, (next..next + 5).map(|i| data(9, i))).await.unwrap();
    store.save_vote(&vote(9)).await.unwrap();
    let before = look(store).await;
    disk.crash(Loss::Unsynced);
    let store = open(disk).await.unwrap();
    assert_eq!(look(&store).await, before);
}

/// Fails power before operation `n` of the script. False if the script needs fewer.
async fn crash_at(n: u64, loss: Loss) -> bool {
    println!("power fails before operation {n}");
    let disk = SimDisk::seeded(&Env::current(), n, SimDiskOptions::default());
    disk.crash_before(n);
    let mut raft_id = None;
    let progress = Mutex::default();
    if let Ok(mut store) = open(&disk).await {
        raft_id = Some(store.raft_id());
        perform(&mut store, &progress).await;
    }
    let progress = progress.into_inner().unwrap();
    if disk.is_on() {
        assert_eq!(progress.acknowledged, SCRIPT.len());
        return false;
    }
    disk.crash(loss);
    // A crash while the log is being recovered is as good as any.
    disk.crash_before(1 + n * 7 % 23);
    drop(open(&disk).await);
    disk.crash(loss);
    let mut store = open(&disk).await.unwrap();
    assert!(raft_id.is_none_or(|id| id == store.raft_id()), "a node that lost nothing has another id");
    check(&look(&store).await, progress);
    let files = disk.list().unwrap();
    let segments = files.iter().filter(|name| is_segment_name(name)).count();
    assert_eq!(segments, store.segment_count(), "{files:?}");
    goes_on(&mut store, &disk).await;
    true
}

fn crash_everywhere(loss: Loss) {
    run(async {
        let mut n = 1;
        while crash_at(n, loss).await {
            n += 1;
        }
        assert!(n > 300, "the script has only {n} operations");
    });
}

/// Prevents: an acknowledgement before the disk has what is acknowledged.
#[test]
fn a_crash_at_any_operation_that_loses_all_unsynced_bytes_loses_nothing_acknowledged() {
    crash_everywhere(Loss::Unsynced);
}

/// Prevents: files that are listed before they are whole, cut before the list says so, or found by their
/// names alone.
#[test]
fn a_crash_at_any_operation_that_tears_sectors_and_names_loses_nothing_acknowledged() {
    crash_everywhere(Loss::Torn);
}

/// Prevents: a state on disk that only an orderly shutdown puts right.
#[test]
fn a_process_that_is_killed_at_any_operation_loses_nothing_acknowledged() {
    crash_everywhere(Loss::Nothing);
}

/// Prevents: the loss for which leader restore is off. A leader's unflushed tail may be gone after a
/// kill, and none of it was reported as flushed.
#[test]
fn an_unflushed_tail_is_never_reported_and_may_be_gone() {
    run(async {
        let slow = SimDiskOptions { sync: Duration::from_millis(20), ..Default::default() };
        let disk = SimDisk::new(&Env::current(), slow);
        let mut store = open(&disk).await.unwrap();
        append(&mut store, [data(1, 0), data(1, 1)]).await.unwrap();
        let flushed = append_only(&mut store, [data(1, 2), data(1, 3)]).await.unwrap();
        assert_eq!(indexes(&all(&store).await), [0, 1, 2, 3], "an append can be read at once");
        assert_eq!(store.state().flushed, Some(1));
        disk.crash(Loss::Unsynced);
        assert!(flushed.await.unwrap().is_err());
        assert!(append_only(&mut store, [data(1, 4)]).await.is_err(), "nothing goes on after a failed write");
        let store = open(&disk).await.unwrap();
        assert_eq!(indexes(&all(&store).await), [0, 1]);
    });
}

/// Prevents: an acknowledgement while the sync that it stands for is still under way, and writes that
/// overtake one. Here syncs take time, and stall; the crash comes at any instant.
#[test]
fn a_slow_disk_that_crashes_at_any_instant_loses_nothing_acknowledged() {
    run(async {
        tokio::time::pause();
        let world = Env::current();
        let slow = SimDiskOptions { sync: Duration::from_millis(1), stall_one_in: 4, stall: Duration::from_millis(20) };
        for n in 0..120 {
            println!("crash {n}");
            let disk = SimDisk::seeded(&world, n, slow);
            let node = world.child("node");
            let progress = Arc::new(Mutex::new(Progress::default()));
            let (on, by) = (disk.clone(), progress.clone());
            drop(node.tasks().spawn_raw(async move {
                if let Ok(mut store) = open(&on).await {
                    perform(&mut store, &by).await;
                }
            }));
            world.sleep(Duration::from_micros(n * 2_900)).await;
            disk.crash([Loss::Torn, Loss::Unsynced, Loss::Nothing][n as usize % 3]);
            node.tasks().kill();
            node.tasks().join().await;
            let mut store = open(&disk).await.unwrap();
            check(&look(&store).await, *progress.lock().unwrap());
            goes_on(&mut store, &disk).await;
        }
    });
}

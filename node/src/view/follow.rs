//! Follows the log: gathers what has come, and applies it in runs.
//!
//! While a run is applied, on a thread that may block, the next one gathers; so a view at the end of
//! the log applies entry by entry, and one that is behind applies many at once, which is several
//! times cheaper for each. About once a second all that was applied is put onto the disk itself.

use super::apply::{Applied, Applier, ApplyError, Run};
use super::status::Board;
use super::store::{StorageError, Store};
use beam_wire::command::Command;
use beam_wire::env::Env;
use beam_wire::message::log::{Entries, Entry};
use beam_wire::message::view::ViewState;
use beam_wire::{CallError, Epoch, LogIndex};
use futures::{Stream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Commands in one run, before compression: some 25,000 facts. A run holds many times its size in memory,
/// and a look-up for the newest version waits for its end.
const RUN_BYTES: usize = 384 << 10;
/// Entries in one run, whatever their size.
const RUN_ENTRIES: usize = 4096;
/// Commands that wait, before compression: enough to keep the applying thread busy while the network delivers more.
const WAITING_BYTES: usize = 2 << 20;
/// How often what was applied is put onto the disk.
const PERSIST_EVERY: Duration = Duration::from_secs(1);

/// Why a view stops.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It cannot apply what it reads, or its disk failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The log cannot be read, and will not be.
    #[error("the log cannot be read from entry {from} on: {why}")]
    Log {
        /// The first entry that is missing.
        from: LogIndex,
        /// What the log said.
        why: CallError,
    },
    /// The log ended, though it was to be followed.
    #[error("the log ended at entry {at}")]
    Ended {
        /// The next entry.
        at: LogIndex,
    },
    /// The log is not the one that this view's directory was filled from.
    #[error(
        "the log is in epoch {found}, and this view's data in {ours}, which is newer: this is the log of before the \
         cluster was recovered or restored"
    )]
    OtherEpoch {
        /// The log's.
        found: Epoch,
        /// The view's.
        ours: Epoch,
    },
    /// A look-up found the disk broken.
    #[error("{0}")]
    Broken(Arc<FollowError>),
}

impl FollowError {
    /// Whether the view's data is damaged: it may begin anew.
    pub fn is_damage(&self) -> bool {
        match self {
            FollowError::Apply(ApplyError::Storage(error)) => error.is_damage(),
            FollowError::Broken(why) => why.is_damage(),
            _ => false,
        }
    }
}

impl From<StorageError> for FollowError {
    fn from(e: StorageError) -> Self {
        FollowError::Apply(e.into())
    }
}

/// Entries that wait to be applied.
struct Waiting {
    next: LogIndex,
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// What the applying thread does.
enum Work {
    Apply(Run),
    Persist,
}

/// Applies what `log` brings, from [`Applier::next`] on, until something fails.
pub async fn follow(
    env: Env,
    applier: Applier,
    store: Store,
    mut log: impl Stream<Item = Result<Entries, CallError>> + Send + Unpin,
    board: Arc<Board>,
) -> Result<(), FollowError> {
    let applied_at_start = applier.applied().progress.applied;
    let mut waiting = Waiting { next: applier.next(), entries: VecDeque::new(), bytes: 0 };
    let mut idle = Some(applier);
    let mut busy = None;
    let mut persisted = applied_at_start;
    let mut tick_at = env.now() + PERSIST_EVERY;
    let mut persist_due = false;
    // What the log held when this view first heard of it: it serves when it has got there.
    let mut target = None;
    loop {
        if let Some(applier) = idle.take() {
            let work = if persist_due && applier.applied().progress.applied > persisted {
                Some(Work::Persist)
            } else {
                waiting.take_run().map(Work::Apply)
            };
            persist_due = false;
            match work {
                Some(work) => busy = Some(Box::pin(perform(env.clone(), applier, store.clone(), work))),
                None => idle = Some(applier),
            }
        }
        tokio::select! {
            biased;
            why = board.broken() => return Err(FollowError::Broken(why)),
            (applier, outcome) = async { busy.as_mut().expect("guarded").await }, if busy.is_some() => {
                busy = None;
                match outcome? {
                    Some(applied) => board.set_applied(applied),
                    None => {
                        persisted = applier.applied().progress.applied;
                        board.set_durable(persisted);
                    }
                }
                serve_when(&board, target.is_some_and(|target| applier.next() > target));
                idle = Some(applier);
            }
            more = log.next(), if waiting.bytes < WAITING_BYTES => {
                let entries = match more {
                    Some(Ok(entries)) => entries,
                    Some(Err(why)) => return Err(FollowError::Log { from: waiting.wanted(), why }),
                    None => return Err(FollowError::Ended { at: waiting.wanted() }),
                };
                // A newer one is all right: the log node has made sure that what we have is in it, and the entry
                // where it began will tell us.
                if let Some(ours) = board.epoch().filter(|ours| *ours > entries.epoch) {
                    return Err(FollowError::OtherEpoch { found: entries.epoch, ours });
                }
                board.set_committed(entries.committed);
                let target = *target.get_or_insert(entries.committed);
                serve_when(&board, idle.as_ref().is_some_and(|applier| applier.next() > target));
                waiting.add(entries);
            }
            () = env.sleep_until(tick_at) => {
                tick_at = env.now() + PERSIST_EVERY;
                persist_due = true;
                if busy.is_some() {
                    // A commit may wait for a worker of the engine that has died.
                    let store = store.clone();
                    env.blocking(move || store.healthy()).await?;
                }
            }
        }
    }
}

fn serve_when(board: &Board, caught_up: bool) {
    if caught_up && board.state() == ViewState::Booting {
        board.set_state(ViewState::Serving);
    }
}

/// Does one piece of work on a thread that may block. Returns what was applied, if anything was.
async fn perform(
    env: Env,
    mut applier: Applier,
    store: Store,
    work: Work,
) -> (Applier, Result<Option<Applied>, FollowError>) {
    env.blocking(move || {
        let outcome = match work {
            Work::Apply(run) => applier.apply(&run).map(Some).map_err(FollowError::from),
            Work::Persist => {
                let persisted = store.persist();
                // What nobody may read any more goes only after that is durable.
                persisted
                    .map(|()| store.let_go(applier.applied().progress.oldest))
                    .map(|()| None)
                    .map_err(FollowError::from)
            }
        };
        (applier, outcome)
    })
    .await
}

impl Waiting {
    fn add(&mut self, entries: Entries) {
        if entries.entries.is_empty() {
            return;
        }
        // The reader goes on where it was broken off: only we could have lost our place.
        assert_eq!(entries.first, self.wanted(), "the log skipped");
        self.bytes += entries.entries.iter().map(bytes).sum::<usize>();
        self.entries.extend(entries.entries);
    }

    fn wanted(&self) -> LogIndex {
        LogIndex(self.next.0 + self.entries.len() as u64)
    }

    fn take_run(&mut self) -> Option<Run> {
        let (first, mut entries, mut taken) = (self.next, Vec::new(), 0);
        while taken < RUN_BYTES && entries.len() < RUN_ENTRIES {
            let Some(entry) = self.entries.pop_front() else { break };
            taken += bytes(&entry);
            entries.push(entry);
        }
        self.bytes -= taken;
        self.next.0 += entries.len() as u64;
        (!entries.is_empty()).then_some(Run { first, entries })
    }
}

/// What an entry takes while it waits.
fn bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Skip => 64,
        Entry::Data { body, .. } => 64 + Command::bytes_of(body),
    }
}

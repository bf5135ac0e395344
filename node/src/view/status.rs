//! How the view is: one board, on which the follower writes and everybody else reads or waits.

use super::apply::Applied;
use super::follow::FollowError;
use beam_wire::env::Env;
use beam_wire::message::view::{Served, ViewLoadReply, ViewRulesReply, ViewState, ViewStatusReply};
use beam_wire::{CallError, Code, Epoch, LogIndex};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A watcher is told of changes at most this often.
pub const WATCH_PAUSE: Duration = Duration::from_millis(10);
/// And at least this often.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);
/// When to come again to a view that has too much to do: most calls have ended by then.
const OVERLOADED_MS: u32 = 100;
/// How long a call waits for entries to be applied, if it sets no deadline itself.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What the view shows of itself.
pub struct Board {
    serves: Vec<Served>,
    shown: Mutex<Shown>,
    changed: Notify,
}

struct Shown {
    applied: Applied,
    durable: LogIndex,
    committed: LogIndex,
    state: ViewState,
    calls: u32,
    answered: u64,
    cancelled: u64,
    refused: u64,
    copied: Option<u64>,
    broken: Option<Arc<FollowError>>,
    /// What is wrong with its data, while it has none to answer from because of that.
    damage: Option<String>,
    /// Counts changes of anything but `calls`.
    edition: u64,
}

/// A call that is being answered. Dropped before its end, it was broken off.
pub struct CallGuard {
    board: Arc<Board>,
    ended: bool,
}

impl Board {
    /// Of a view that has just been opened.
    pub fn new(serves: Vec<Served>, applied: Applied) -> Board {
        let shown = Shown {
            durable: applied.progress.applied,
            applied,
            committed: LogIndex(0),
            state: ViewState::Booting,
            calls: 0,
            answered: 0,
            cancelled: 0,
            refused: 0,
            copied: None,
            broken: None,
            damage: None,
            edition: 0,
        };
        Board { serves, shown: Mutex::new(shown), changed: Notify::new() }
    }

    /// More was applied.
    pub fn set_applied(&self, applied: Applied) {
        self.change(|shown| {
            let epoch = |applied: &Applied| applied.progress.rules.as_ref().map(|rules| rules.epoch);
            // What was committed of an earlier epoch, and is not kept, is not in the log any more.
            if epoch(&shown.applied).is_some_and(|before| epoch(&applied) != Some(before)) {
                shown.committed = applied.progress.applied;
            }
            shown.applied = applied;
        });
    }

    /// The view has given up what it had.
    pub fn set_anew(&self) {
        self.set_state(ViewState::Booting);
        self.change(|shown| (shown.applied, shown.durable, shown.committed) = Default::default());
    }

    /// The disk holds everything up to `durable`.
    pub fn set_durable(&self, durable: LogIndex) {
        self.change(|shown| shown.durable = durable);
    }

    /// A log node said that everything up to `committed` is in the log.
    pub fn set_committed(&self, committed: LogIndex) {
        if committed > self.shown().committed {
            self.change(|shown| shown.committed = committed);
        }
    }

    /// From booting to serving; to draining from either.
    pub fn set_state(&self, state: ViewState) {
        self.change(|shown| {
            if shown.state != ViewState::Draining {
                shown.state = state;
            }
            shown.damage = None;
        });
    }

    /// So many versions of facts and texts were copied; none when the view is not copying any more.
    pub fn set_copied(&self, copied: Option<u64>) {
        self.change(|shown| shown.copied = copied);
    }

    /// So many more were copied.
    pub fn add_copied(&self, more: u64) {
        self.change(|shown| shown.copied = Some(shown.copied.unwrap_or_default() + more));
    }

    /// As [`Board::set_copied`] said.
    pub fn copied(&self) -> Option<u64> {
        self.shown().copied
    }

    /// A look-up has found the disk broken: the view must stop.
    pub fn set_broken(&self, why: FollowError) {
        self.change(|shown| {
            shown.broken.get_or_insert(Arc::new(why));
        });
    }

    /// What the view has is damaged: it answers nothing until it has begun anew.
    pub fn set_damaged(&self, why: String) {
        self.set_state(ViewState::Damaged);
        self.change(|shown| (shown.broken, shown.damage) = (None, Some(why)));
    }

    /// What is wrong with its data, if it has stopped because of that.
    pub fn damage(&self) -> Option<String> {
        let shown = self.shown();
        shown.damage.clone().or_else(|| shown.broken.as_ref().map(|why| why.to_string()))
    }

    /// What it holds.
    pub fn serves(&self) -> &[Served] {
        &self.serves
    }

    /// Waits until something is found broken.
    pub async fn broken(&self) -> Arc<FollowError> {
        self.wait(|shown| shown.broken.clone()).await
    }

    /// Counts a call until the guard is dropped, if there are fewer than so many.
    pub fn enter(self: &Arc<Self>, calls_max: u32) -> Result<CallGuard, CallError> {
        let mut shown = self.shown();
        if shown.calls >= calls_max {
            shown.refused += 1;
            let message = format!("this view answers {calls_max} calls already: ask another, or later");
            return Err(CallError::later(Code::Overloaded, OVERLOADED_MS, message));
        }
        shown.calls += 1;
        Ok(CallGuard { board: self.clone(), ended: false })
    }

    /// What it has to do and has done.
    pub fn load(&self) -> ViewLoadReply {
        let Shown { calls, answered, cancelled, refused, .. } = *self.shown();
        ViewLoadReply { calls, answered, cancelled, refused }
    }

    /// Calls being answered.
    pub fn calls(&self) -> u32 {
        self.shown().calls
    }

    /// What the view is doing.
    pub fn state(&self) -> ViewState {
        self.shown().state
    }

    /// The epoch of what is applied; none before the genesis.
    pub fn epoch(&self) -> Option<Epoch> {
        self.shown().applied.progress.rules.as_ref().map(|rules| rules.epoch)
    }

    /// What is said to those who ask.
    pub fn status(&self) -> ViewStatusReply {
        let shown = self.shown();
        let progress = &shown.applied.progress;
        ViewStatusReply {
            epoch: progress.rules.as_ref().map(|rules| rules.epoch),
            serves: self.serves.clone(),
            state: shown.state,
            oldest: progress.oldest,
            applied: progress.applied,
            durable: shown.durable,
            checkpoint: shown.applied.checkpoint,
            committed: shown.committed,
            facts: progress.facts,
            window: progress.rules.as_ref().map_or(0, |rules| rules.window),
            calls: shown.calls,
        }
    }

    /// What the log has laid down so far.
    pub fn rules(&self) -> ViewRulesReply {
        let shown = self.shown();
        let progress = &shown.applied.progress;
        ViewRulesReply { at: progress.applied, format: progress.rules.as_ref().map(|rules| rules.format) }
    }

    /// The number of this state of the board.
    pub fn edition(&self) -> u64 {
        self.shown().edition
    }

    /// Waits until the board has changed since an edition.
    pub async fn changed_since(&self, edition: u64) {
        self.wait(|shown| (shown.edition != edition).then_some(())).await
    }

    /// Waits until an index is applied, no longer than until the deadline.
    pub async fn applied(&self, env: &Env, index: LogIndex, deadline: Option<Instant>) -> Result<(), CallError> {
        self.reached(env, index, deadline, |applied| applied.progress.applied).await
    }

    /// Waits until an index is judged, no longer than until the deadline.
    pub async fn judged(&self, env: &Env, index: LogIndex, deadline: Option<Instant>) -> Result<(), CallError> {
        self.reached(env, index, deadline, |applied| applied.judged).await
    }

    async fn reached(
        &self,
        env: &Env,
        index: LogIndex,
        deadline: Option<Instant>,
        of: impl Fn(&Applied) -> LogIndex,
    ) -> Result<(), CallError> {
        if of(&self.shown().applied) >= index {
            return Ok(());
        }
        let deadline = deadline.unwrap_or_else(|| env.now() + WAIT_MAX);
        let waited = self.wait(|shown| (of(&shown.applied) >= index).then_some(()));
        env.timeout_at(deadline, waited).await.map_err(|_| {
            let has = of(&self.shown().applied);
            CallError::elsewhere(Code::Ahead, format!("this view waited for entry {index}, and has got to {has} only"))
        })
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        let mut shown = self.shown();
        change(&mut shown);
        shown.edition += 1;
        drop(shown);
        self.changed.notify_waiters();
    }

    async fn wait<T>(&self, look: impl Fn(&Shown) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let seen = look(&self.shown());
            match seen {
                Some(found) => return found,
                None => changed.await,
            }
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("nothing panics while it holds this")
    }
}

impl CallGuard {
    /// The call was answered, well or not.
    pub fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut shown = self.board.shown();
        shown.calls -= 1;
        let counter = if self.ended { &mut shown.answered } else { &mut shown.cancelled };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::error::Retry;

    #[test]
    fn calls_are_bounded_and_each_is_counted_once() {
        let board = Arc::new(Board::new(Vec::new(), Applied::default()));
        let enter = || board.enter(2);
        let (one, other) = (enter().unwrap(), enter().unwrap());
        for _ in 0..3 {
            let refused = enter().err().expect("two are in");
            assert_eq!(refused.code, Code::Overloaded);
            assert_eq!(
                refused.retry,
                Retry::Later { after_ms: OVERLOADED_MS },
                "whoever is refused is told when to come"
            );
        }
        one.ended();
        drop(other);
        let last = enter().unwrap();
        assert_eq!(board.load(), ViewLoadReply { calls: 1, answered: 1, cancelled: 1, refused: 3 });
        last.ended();
        assert_eq!(board.load(), ViewLoadReply { calls: 0, answered: 2, cancelled: 1, refused: 3 });
    }
}

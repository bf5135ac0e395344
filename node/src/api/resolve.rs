//! Which version a position means now, and whether writes are welcome.

use crate::api::ApiRole;
use crate::api::lag::{Behind, Lag, Pressure, pressure};
use crate::api::position::{self, Uncovered};
use crate::remote::log::RemoteLog;
use crate::remote::view::{View, Views};
use beam_wire::env::Env;
use beam_wire::message::log::{EpochBegan, shared_up_to};
use beam_wire::{CallError, Code, Epoch, Name, Position, Version};
use futures::future::BoxFuture;
use std::sync::MutexGuard;
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait until the views cover everything: what a datacenter needs to find its views after its
/// start.
const COVER_PATIENCE: Duration = Duration::from_secs(5);

/// How long the log may take to name its end. A leader is replaced within two seconds; a log node without a majority says
/// so after five, and its reason is better than ours.
const TAIL_PATIENCE: Duration = Duration::from_secs(6);

/// How long to wait for views to hear of a version before the log is asked for its end. Whoever just wrote
/// it would else pay a round trip to the leader for reading it, while the news is on its way.
const NEWS_PATIENCE: Duration = Duration::from_millis(200);

/// Looks where the log ends, each time anew: a majority must say that whoever names the end still leads.
pub(super) fn looks(
    env: Env,
    log: RemoteLog,
) -> impl Fn() -> BoxFuture<'static, Result<Version, CallError>> + Send + Sync + 'static {
    move || {
        let (log, deadline) = (log.clone(), env.now() + TAIL_PATIENCE);
        Box::pin(async move { log.tail(true, deadline).await })
    }
}

impl ApiRole {
    /// The version to read. So many may wait for it, and no more.
    pub(super) async fn resolve(&self, position: Position, deadline: Instant) -> Result<Version, CallError> {
        if let Some(version) = self.resolve_now(position) {
            return Ok(version);
        }
        let _waiting = self.admission.version()?;
        match position {
            Position::Latest => self.tail(deadline).await,
            Position::Recent => self.recent(deadline).await,
            Position::AtLeast(least) => {
                let recent = self.recent(deadline).await?;
                let least = self.current(least, deadline).await?;
                let reached = recent.epoch == least.epoch && recent.index >= least.index;
                if reached { Ok(recent) } else { self.existing(least, deadline).await }
            }
            Position::Exact(exact) => {
                let exact = self.current(exact, deadline).await?;
                self.existing(exact, deadline).await
            }
        }
    }

    /// The version to read, where the views have said enough to know it.
    fn resolve_now(&self, position: Position) -> Option<Version> {
        match position {
            Position::Latest => None,
            Position::Recent => self.recent_now().ok(),
            Position::AtLeast(least) => {
                self.recent_now().ok().filter(|recent| recent.epoch == least.epoch && recent.index >= least.index)
            }
            Position::Exact(exact) => {
                let table = self.views.table();
                let exists =
                    committed(&table).is_some_and(|newest| newest.epoch == exact.epoch && newest.index >= exact.index);
                exists.then_some(exact)
            }
        }
    }

    /// What a version is called in the newest epoch that the views know. What an older one has left behind is
    /// refused.
    pub(super) async fn current(&self, version: Version, deadline: Instant) -> Result<Version, CallError> {
        match position::epoch(self.views.table().iter()) {
            // If the version's is newer, the views are about to hear of it.
            Some(epoch) if version.epoch < epoch => {
                let (epoch, epochs) = self.log.epochs(deadline.min(self.env.now() + TAIL_PATIENCE)).await?;
                translate(version, epoch, &epochs)
            }
            _ => Ok(version),
        }
    }

    /// A version that holds everything that was acknowledged before.
    pub(super) async fn tail(&self, deadline: Instant) -> Result<Version, CallError> {
        let tail = self.latest.version(deadline).await?;
        self.saw_in_log(tail);
        Ok(tail)
    }

    /// The newest version that views of our datacenter cover; if they don't cover everything, that all views
    /// do. Waits a moment where there is none yet.
    pub(super) async fn recent(&self, deadline: Instant) -> Result<Version, CallError> {
        let give_up = deadline.min(self.env.now() + COVER_PATIENCE);
        loop {
            let changed = self.views.changed();
            let uncovered = match self.recent_now() {
                Ok(version) => return Ok(version),
                Err(uncovered) => uncovered,
            };
            if self.env.timeout_at(give_up, changed).await.is_err() {
                return Err(CallError::later(Code::Unavailable, 500, uncovered.to_string()));
            }
        }
    }

    /// As [`ApiRole::recent`], without waiting.
    pub(super) fn recent_now(&self) -> Result<Version, Uncovered> {
        let table = self.views.table();
        let at_home: Vec<&View> = table.iter().filter(|v| v.home).collect();
        position::covered(at_home).or_else(|_| position::covered(table.iter()))
    }

    /// The version, if there is one. Views wait for what they have not applied: they must not wait for what
    /// will never be.
    pub(super) async fn existing(&self, wanted: Version, deadline: Instant) -> Result<Version, CallError> {
        let give_up = deadline.min(self.env.now() + NEWS_PATIENCE);
        loop {
            let changed = self.views.changed();
            let table = self.views.table();
            match committed(&table) {
                Some(newest) if newest.epoch != wanted.epoch => break,
                Some(newest) if newest.index >= wanted.index => return Ok(wanted),
                _ => {}
            }
            if self.env.timeout_at(give_up, changed).await.is_err() {
                break;
            }
        }
        let tail = self.tail(deadline).await?;
        if wanted.epoch > tail.epoch {
            let message = format!("version {wanted} does not exist yet: the log is in epoch {}", tail.epoch);
            return Err(CallError::never(Code::Ahead, message));
        }
        if wanted.epoch < tail.epoch {
            let (epoch, epochs) = self.log.epochs(deadline.min(self.env.now() + TAIL_PATIENCE)).await?;
            return translate(wanted, epoch, &epochs);
        }
        if wanted.index > tail.index {
            let message = format!("version {wanted} does not exist yet: the log ends at {tail}");
            // The tail is linearizable: nobody can have been promised more.
            return Err(CallError::never(Code::Ahead, message));
        }
        Ok(wanted)
    }

    /// Slows or refuses a write when the views of our datacenter have fallen behind.
    pub(super) async fn hold_back(&self) -> Result<(), CallError> {
        let table = self.views.table();
        let Some(window) = window(&table) else { return Ok(()) };
        // Where views are missing, others of their partition cover for them; where none covers, there is
        // nothing to wait for.
        let Ok(covered) = self.recent_now() else { return Ok(()) };
        // Views may not have heard yet of what was sent to them: what this node has seen of the log itself counts as well.
        committed(&table).into_iter().for_each(|newest| self.saw_in_log(newest));
        let behind = self.lag().behind(covered, self.age());
        match pressure(behind, window) {
            Pressure::None => Ok(()),
            Pressure::Slow(pause) => {
                self.env.sleep(pause).await;
                Ok(())
            }
            Pressure::Refuse => Err(too_far_behind(&self.datacenter, behind)),
        }
    }

    /// The log has got as far as this.
    pub(super) fn saw_in_log(&self, end: Version) {
        self.lag().saw(end, self.age());
    }

    fn lag(&self) -> MutexGuard<'_, Lag> {
        self.lag.lock().expect("no holder panics")
    }

    fn age(&self) -> Duration {
        self.env.now() - self.started
    }

    /// W: how many indexes back verdicts are known. None until a view has said it.
    pub(super) fn window(&self) -> Option<u64> {
        window(&self.views.table())
    }
}

/// A write is refused. Sooner than after a second the views have hardly come on.
fn too_far_behind(datacenter: &Name, behind: Behind) -> CallError {
    let Behind { entries, age, need } = behind;
    let need =
        need.map_or(String::new(), |need| format!(", and need {} ms for that as they go on now", need.as_millis()));
    let age = age.as_millis();
    let message =
        format!("the views of {datacenter} are {entries} entries and {age} ms behind the log{need}: write more slowly");
    CallError::later(Code::Overloaded, 1000, message)
}

fn window(table: &[View]) -> Option<u64> {
    let epoch = position::epoch(table)?;
    let said = table.iter().filter(|v| v.status.epoch == Some(epoch)).map(|v| v.status.window);
    said.filter(|window| *window > 0).min()
}

/// The newest version that any view has heard of.
fn committed(table: &[View]) -> Option<Version> {
    let epoch = position::epoch(table)?;
    let same = table.iter().filter(|v| v.status.epoch == Some(epoch));
    let index = same.map(|v| v.status.committed.max(v.status.applied)).max()?;
    Some(Version { epoch, index })
}

/// What a version is called in `epoch`, whose past is `epochs`. Indexes up to those that were kept mean the same; what came
/// after is lost, and whoever has seen it must be told.
fn translate(version: Version, epoch: Epoch, epochs: &[EpochBegan]) -> Result<Version, CallError> {
    let Version { epoch: of, index } = version;
    match shared_up_to(epochs, of) {
        Some(kept) if index <= kept => Ok(Version { epoch, index }),
        Some(kept) => Err(CallError::never(
            Code::WrongEpoch,
            format!(
                "version {version} is not in the database any more: it was recovered or restored, is in epoch {epoch}, and has \
                 kept what was written up to {of}.{kept}. What was written or read after that may be lost: read anew"
            ),
        )),
        None => Err(CallError::never(
            Code::WrongEpoch,
            format!("version {version} is of another life of the database, which is in epoch {epoch}: read anew"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::view::tests::view;
    use beam_wire::LogIndex;
    use beam_wire::error::Retry;

    #[test]
    fn whoever_is_refused_hears_why_and_when_to_come_again() {
        let ms = Duration::from_millis;
        let refused = |need| {
            let behind = Behind { entries: 90, age: ms(4), need };
            too_far_behind(&Name::new("home").unwrap(), behind)
        };
        let error = refused(Some(ms(9000)));
        assert_eq!(error.code, Code::Overloaded);
        assert!(matches!(error.retry, Retry::Later { after_ms: 1000 }), "{error:?}");
        // Neither the entries nor their age are much: what is, is named.
        assert!(error.message.contains("home are 90 entries and 4 ms behind"), "{error}");
        assert!(error.message.contains("need 9000 ms"), "{error}");
        assert!(!refused(None).message.contains("need"), "{error}");
    }

    #[test]
    fn the_newest_of_what_views_have_heard_counts_in_the_newest_epoch() {
        let heard = |epoch, applied, committed| {
            let mut view = view("a", &[], applied);
            view.set(|s| (s.epoch, s.committed) = (Some(Epoch(epoch)), LogIndex(committed)));
            view
        };
        let newest = |views: &[View]| committed(views).map(|newest| (newest.epoch.0, newest.index.0));
        assert_eq!(newest(&[]), None);
        assert_eq!(newest(&[heard(1, 70, 90), heard(1, 80, 80)]), Some((1, 90)));
        assert_eq!(newest(&[heard(1, 95, 90), heard(1, 80, 80)]), Some((1, 95)), "what is applied is committed");
        assert_eq!(
            newest(&[heard(1, 500, 500), heard(2, 60, 65)]),
            Some((2, 65)),
            "the other index is of the other epoch"
        );
    }

    #[test]
    fn versions_go_over_into_a_new_epoch_as_far_as_they_were_kept() {
        let began = |epoch, kept| EpochBegan { epoch: Epoch(epoch), kept: LogIndex(kept) };
        let past = [began(40, 100), began(70, 80), began(90, 300)];
        let in_newest = |epoch, index| {
            let version = Version { epoch: Epoch(epoch), index: LogIndex(index) };
            translate(version, Epoch(90), &past).map(|v| (v.epoch.0, v.index.0)).map_err(|e| e.code)
        };
        // Of epoch 1 the second recovery kept less than the first had.
        assert_eq!(in_newest(1, 80), Ok((90, 80)));
        assert_eq!(in_newest(1, 81), Err(Code::WrongEpoch));
        assert_eq!(in_newest(40, 81), Err(Code::WrongEpoch));
        assert_eq!(in_newest(70, 300), Ok((90, 300)));
        assert_eq!(in_newest(70, 301), Err(Code::WrongEpoch));
        assert_eq!(in_newest(90, 5000), Ok((90, 5000)));
        assert_eq!(in_newest(41, 3), Err(Code::WrongEpoch), "an epoch of another life");
    }
}

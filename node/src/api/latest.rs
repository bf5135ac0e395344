//! The newest version, for many who ask at once: one look at the log serves all of them.
//!
//! A reader may be given the end of the log only as it was found by a look that began after the reader asked:
//! an older one may have missed what was acknowledged in between. So readers gather for the next look, and never
//! join one that is under way. Looks begin a few milliseconds apart, whether or not those before have ended: one
//! that waits for a lost leader holds up nobody who comes later.

use beam_wire::env::Env;
use beam_wire::{CallError, Code, Version};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Between the beginnings of two looks. A look takes a round trip between datacenters, tens of milliseconds:
/// a twentieth of that is not noticed, and a thousand readers a second share two hundred looks.
const PACE: Duration = Duration::from_millis(5);

/// Looks where the log ends.
type Look = dyn Fn() -> BoxFuture<'static, Result<Version, CallError>> + Send + Sync;

/// Shares looks at the end of the log.
pub struct Latest {
    env: Env,
    look: Arc<Look>,
    gathering: Arc<Mutex<Gathering>>,
}

#[derive(Default)]
struct Gathering {
    /// The look that has not begun yet, if somebody waits for one.
    next: Option<Shared<BoxFuture<'static, Result<Version, CallError>>>>,
    last_began: Option<Instant>,
}

impl Latest {
    /// `look` finds the end of the log, with all that was acknowledged before it was called.
    pub fn new(
        env: &Env,
        look: impl Fn() -> BoxFuture<'static, Result<Version, CallError>> + Send + Sync + 'static,
    ) -> Latest {
        Latest { env: env.clone(), look: Arc::new(look), gathering: Arc::default() }
    }

    /// A version with everything that was acknowledged before this call.
    pub async fn version(&self, deadline: Instant) -> Result<Version, CallError> {
        let look = self.join();
        let late = |_| Err(CallError::later(Code::NoQuorum, 500, "the log did not name its end in time"));
        self.env.timeout_at(deadline, look).await.unwrap_or_else(late)
    }

    /// The look that begins next.
    fn join(&self) -> Shared<BoxFuture<'static, Result<Version, CallError>>> {
        let mut gathering = lock(&self.gathering);
        if let Some(next) = &gathering.next {
            return next.clone();
        }
        let begins = gathering.last_began.map_or(self.env.now(), |last| last + PACE);
        let (env, look, shared) = (self.env.clone(), self.look.clone(), self.gathering.clone());
        let next = async move {
            env.sleep_until(begins).await;
            {
                // From here on, nobody joins.
                let mut gathering = lock(&shared);
                gathering.next = None;
                gathering.last_began = Some(env.now());
            }
            look().await
        };
        let next = next.boxed().shared();
        gathering.next = Some(next.clone());
        next
    }
}

fn lock(gathering: &Mutex<Gathering>) -> MutexGuard<'_, Gathering> {
    gathering.lock().expect("no holder panics")
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::env::sim::SimWorld;
    use beam_wire::{Epoch, LogIndex};
    use std::sync::atomic::{AtomicU64, Ordering};

    const ROUND_TRIP: Duration = Duration::from_millis(60);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A log whose end at a look is the number of milliseconds since the start at which the look began.
    fn log(env: &Env) -> (Latest, Arc<AtomicU64>) {
        let (started, looks) = (env.now(), Arc::new(AtomicU64::new(0)));
        let (counted, clock) = (looks.clone(), env.clone());
        let latest = Latest::new(env, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let index = LogIndex((clock.now() - started).as_millis() as u64);
            let env = clock.clone();
            Box::pin(async move {
                env.sleep(ROUND_TRIP).await;
                Ok(Version { epoch: Epoch(1), index })
            })
        });
        (latest, looks)
    }

    #[test]
    fn nobody_is_given_an_end_that_was_found_before_he_asked() {
        SimWorld::run(1, |world| async move {
            let env = world.env("api");
            let (latest, looks) = log(&env);
            let started = env.now();
            let ask = |at: u64| {
                let (env, latest) = (&env, &latest);
                async move {
                    env.sleep_until(started + ms(at)).await;
                    let found = latest.version(env.now() + ms(1000)).await.unwrap().index.0;
                    (at, found, (env.now() - started).as_millis() as u64)
                }
            };
            // The first begins at once; those who come while it is under way gather, and share the next.
            let answers = futures::future::join_all([0, 1, 2, 4, 30, 30, 31, 500].map(ask)).await;
            for (asked, found, answered) in &answers {
                assert!(found >= asked, "asked at {asked}, and given what was found at {found}");
                assert!(answered - asked <= 60 + 7, "asked at {asked}, answered at {answered}");
            }
            let found: Vec<u64> = answers.iter().map(|a| a.1).collect();
            assert_eq!((found[0], found[1] == found[2], found[2] == found[3]), (0, true, true), "{answers:?}");
            assert_eq!(looks.load(Ordering::Relaxed), 5, "{answers:?}");
        });
    }

    #[test]
    fn whoever_goes_away_takes_no_look_from_others() {
        SimWorld::run(2, |world| async move {
            let env = world.env("api");
            let (latest, looks) = log(&env);
            let first = latest.version(env.now() + ms(1000));
            // Both wait for the look after the first one; the one that came first does not wait until it begins.
            let hasty = async {
                env.sleep(ms(1)).await;
                env.timeout(ms(2), latest.version(env.now() + ms(1000))).await.is_err()
            };
            let patient = async {
                env.sleep(ms(2)).await;
                latest.version(env.now() + ms(1000)).await
            };
            let (first, gone, found) = futures::join!(first, hasty, patient);
            assert!(first.is_ok() && gone && found.is_ok());
            assert_eq!(looks.load(Ordering::Relaxed), 2);
            // A look that takes too long for somebody is none for him; and nobody waits for ever.
            let error = latest.version(env.now() + ms(10)).await.unwrap_err();
            assert_eq!((error.code, error.is_retryable()), (Code::NoQuorum, true));
        });
    }
}

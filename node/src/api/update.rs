//! Everything that a SPARQL update does: read, plan, commit; and again, when others wrote what was read.
//!
//! The id stays the same through all attempts, also after a conflict: an attempt with a conflict leaves no
//! trace, so the id can be committed once, whichever attempt that is, and a caller who lost the answer sends
//! the update again without doing it twice.

use crate::api::ApiRole;
use crate::api::transact::{Terms, judge};
use crate::query::{Update, parse_update, plan_update};
use crate::rdf::read::Quad;
use beam_wire::command::{Builder, Command};
use beam_wire::message::api::{ApiUpdate, Outcome};
use beam_wire::term::TermError;
use beam_wire::{CallError, Code, Position, Version};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// The longest pause before the first new attempt. It doubles with each, up to the maximum.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(640);
/// What the views need to hear that an epoch has begun.
const EPOCH_PAUSE: Duration = Duration::from_millis(500);

impl ApiRole {
    /// Makes the change, or finds that there is nothing to change.
    pub(super) async fn update(&self, request: &ApiUpdate, deadline: Instant) -> Result<Outcome, CallError> {
        let update = parse_update(&request.sparql, request.base_iri.as_deref())?;
        self.hold_back().await?;
        let mut pause = PAUSE_FIRST;
        for attempts in 1.. {
            let read = self.readable(&update, request.at_least, deadline).await?;
            match self.attempt(&update, request, read, deadline).await {
                Ok(version) => return Ok(Outcome { version, attempts }),
                // An epoch has begun meanwhile. What the update read must be read again, as after a conflict.
                Err(error) if error.code == Code::WrongEpoch && attempts == 1 => {
                    tracing::info!("an update is made anew: {error}");
                    self.env.sleep(EPOCH_PAUSE).await;
                }
                Err(error) if error.code == Code::Conflict => {
                    // With jitter: writers who met at one fact would otherwise meet again.
                    let wait = pause.mul_f64(self.env.random_below(1000) as f64 / 1000.0);
                    if self.env.now() + wait >= deadline {
                        let message = format!("others kept writing what the update reads, {attempts} times: {error}");
                        return Err(CallError::later(Code::Conflict, 100, message));
                    }
                    self.env.sleep(wait).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("attempts are not counted to their end")
    }

    /// The version at which the update's conditions are read. An update without conditions reads nothing, so
    /// any version will do.
    async fn readable(&self, update: &Update, least: Option<Version>, deadline: Instant) -> Result<Version, CallError> {
        let position = if update.needs_read() { Position::Latest } else { Position::Recent };
        let version = self.resolve(position, deadline).await?;
        if let Some(least) = least {
            self.current(least, deadline).await?;
        }
        Ok(version)
    }

    async fn attempt(
        &self,
        update: &Update,
        request: &ApiUpdate,
        read: Version,
        deadline: Instant,
    ) -> Result<Version, CallError> {
        let Some((terms, body)) = self.plan(update, request, read, deadline).await? else { return Ok(read) };
        match self.commit(terms, body, false, deadline).await? {
            (version, Some(verdict)) => judge(version, verdict),
            (version, None) => Ok(version),
        }
    }

    /// What the update changes at a version, as it is appended; none if it changes nothing. It runs for so long, and no
    /// longer: the log may take its time.
    async fn plan(
        &self,
        update: &Update,
        request: &ApiUpdate,
        read: Version,
        deadline: Instant,
    ) -> Result<Option<(Terms, Bytes)>, CallError> {
        let _admitted = self.admission.query(deadline).await?;
        let source = self.source(read, deadline);
        let changes = plan_update(update, &source, self.limits(deadline), &self.env).await?;
        if changes.deletes.is_empty() && changes.inserts.is_empty() {
            return Ok(None);
        }
        let mut builder = Builder::new();
        let refuse = |error: TermError| CallError::never(Code::Invalid, error.to_string());
        for Quad { fact, graph } in changes.deletes {
            builder.delete(fact, graph).map_err(refuse)?;
        }
        for Quad { fact, graph } in changes.inserts {
            builder.insert(fact, graph).map_err(refuse)?;
        }
        let transact = builder.build(read.epoch, request.id, read.index, changes.reads);
        let terms = Terms::of(&transact);
        Ok(Some((terms, Command::Transact(transact).encode())))
    }
}

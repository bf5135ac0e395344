//! Asks views: covers the points of a question by parts, follows each with a [`Hedge`], and collects the
//! answers.
//!
//! [`cover`] says who is asked for what, [`Hedge`] when somebody else is; here requests are sent and
//! dropped, and what became of them is told to the [`Ejector`]. A part whose view fails or is late is asked of
//! another view, or of several where the cuts differ; at most one answer is used for each part.

use crate::api::choose::{Candidate, choose};
use crate::api::cover::{Offer, Part, cover, within};
use crate::api::eject::{Ejector, Outcome};
use crate::api::hedge::{Budget, GiveUp, Hedge, Next, Way, late_after};
use crate::remote::view::{Asking, View, Views};
use beam_wire::env::Env;
use beam_wire::message::Call;
use beam_wire::message::view::ViewState;
use beam_wire::{CallError, Code, Name, Range, Space, Version};
use futures::future::{BoxFuture, try_join_all};
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use standing::{Sent, blame};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is asked of views.
pub trait Question: Send + Sync {
    /// The call that asks it.
    type Call: Call;
    /// What an answer consists of.
    type Found: Send + 'static;

    /// How to expect the answer.
    fn asking(&self) -> Asking;
    /// The version that is read.
    fn at(&self) -> Version;
    /// The space whose points are asked for; none if any view can answer.
    fn space(&self) -> Option<Space>;
    /// The points that are asked for, ascending and disjoint.
    fn wanted(&self) -> &[Range];
    /// The request for the points of one range.
    fn request(&self, range: Range) -> Self::Call;
    /// So many are enough: with one more, the answer may stop.
    fn limit(&self) -> usize {
        usize::MAX
    }
    /// Drops what is not wanted of what one part has found so far.
    fn keep(&self, _found: &mut Vec<Self::Found>) {}
    /// Takes what was asked for out of a reply.
    fn take(&self, request: &Self::Call, reply: <Self::Call as Call>::Reply) -> Result<Vec<Self::Found>, CallError>;
}

/// An answer to a question.
#[derive(Debug)]
pub struct Answer<F> {
    /// What was found, each once.
    pub found: Vec<F>,
    /// Whether this is all. If not, there is more of it than the limit.
    pub complete: bool,
}

/// Asks views, for all queries of one api node.
pub struct Fanout<V> {
    env: Env,
    views: V,
    started: Instant,
    /// Late requests are hedged, and silent and slow views left out.
    hedging: bool,
    budget: Mutex<Budget>,
    ejector: Arc<Mutex<Ejector>>,
    /// Since the start of the node.
    pub total: Tally,
}

/// Counts requests.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    hedges: AtomicU64,
    probes: AtomicU64,
}

impl Tally {
    /// All requests to views.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Those among them that were sent because another was late.
    pub fn hedges(&self) -> u64 {
        self.hedges.load(Ordering::Relaxed)
    }

    /// Those among them that were sent only to see whether a view is well again.
    pub fn probes(&self) -> u64 {
        self.probes.load(Ordering::Relaxed)
    }

    fn count(&self, requests: usize, hedge: bool) {
        self.requests.fetch_add(requests as u64, Ordering::Relaxed);
        self.hedges.fetch_add(if hedge { requests as u64 } else { 0 }, Ordering::Relaxed);
    }
}

/// The view that failed, and how.
#[derive(Debug)]
struct Failed {
    view: Option<Name>,
    error: CallError,
}

/// What happens to a way.
enum Event<F> {
    Chunk(Vec<F>),
    End,
    Failed(Failed),
}

/// Views that may refuse a part because they have too much to do, before it is given up: asking all of them in turn would give
/// them more.
const REFUSED_MAX: u32 = 2;

/// Without hedging, nothing is late.
const NEVER: Duration = Duration::from_secs(3600);

impl<V: Views> Fanout<V> {
    /// Nothing is asked yet. Without `hedging`, nobody is asked twice but after a failure, and nobody left out.
    pub fn new(env: Env, views: V, hedging: bool) -> Fanout<V> {
        let started = env.now();
        let (budget, ejector) = (Mutex::default(), Arc::default());
        Fanout { env, views, started, hedging, budget, ejector, total: Tally::default() }
    }

    /// The views that are left out, because they were silent or slow. Those that are no more are not among them.
    pub fn out(&self) -> Vec<Name> {
        let mut ejector = self.ejector();
        ejector.keep(|view| self.views.names(view));
        ejector.out().cloned().collect()
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().expect("no holder panics")
    }

    fn ejector(&self) -> MutexGuard<'_, Ejector> {
        self.ejector.lock().expect("no holder panics")
    }

    /// The views.
    pub fn views(&self) -> &V {
        &self.views
    }

    /// Where time and chance come from.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The answer to a question, or why there is none. Requests are counted in `tally` too.
    pub async fn ask<Q: Question>(
        &self,
        q: &Q,
        deadline: Instant,
        tally: &Tally,
    ) -> Result<Answer<Q::Found>, CallError> {
        let deadline = deadline.saturating_duration_since(self.started);
        let (found, enough) = (AtomicUsize::new(0), Notify::new());
        let asked = Asked { fanout: self, q, tally, deadline, found, enough };
        let found = asked.all().await.map_err(|failed| failed.error)?;
        Ok(Answer { found, complete: !asked.is_enough() })
    }
}

/// One question under way.
struct Asked<'a, V, Q> {
    fanout: &'a Fanout<V>,
    q: &'a Q,
    tally: &'a Tally,
    deadline: Duration,
    /// How much was found so far, counting for each part the way that found most.
    found: AtomicUsize,
    /// Told when that is above the limit.
    enough: Notify,
}

impl<V: Views, Q: Question> Asked<'_, V, Q> {
    fn now(&self) -> Duration {
        self.fanout.env.now() - self.fanout.started
    }

    fn is_enough(&self) -> bool {
        self.found.load(Ordering::Relaxed) > self.q.limit()
    }

    async fn all(&self) -> Result<Vec<Q::Found>, Failed> {
        let (wanted, nobody) = (self.q.wanted(), BTreeSet::new());
        // Whoever answers together is chosen together; whoever fails later is replaced part by part.
        let parts = match self.cut(wanted, &nobody) {
            Ok(parts) => parts,
            // Nobody holds some of the points now: the whole is one part, until somebody does.
            Err(_) => return self.part(wanted, None, &nobody, true).await,
        };
        let wanted_of: Vec<Vec<Range>> = parts.iter().map(|p| within(wanted, p.range)).collect();
        let asked = parts.into_iter().zip(&wanted_of).map(|(p, wanted)| self.part(wanted, Some(p), &nobody, true));
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// The answer for one part: first of the view that was chosen for it, then of others as the hedge says,
    /// but of none in `avoid`. A part of the question itself, rather than a part of a part, is patient with
    /// views that fail, and is counted.
    async fn part(
        &self,
        wanted: &[Range],
        mut chosen: Option<Part>,
        avoid: &BTreeSet<Name>,
        whole: bool,
    ) -> Result<Vec<Q::Found>, Failed> {
        let mut hedge = if whole { Hedge::new(self.deadline) } else { Hedge::within(self.deadline) };
        avoid.iter().for_each(|view| hedge.avoid(view.clone()));
        let mut events: SelectAll<BoxStream<'_, (usize, Event<Q::Found>)>> = SelectAll::new();
        let mut found: Vec<Vec<Q::Found>> = Vec::new();
        let mut sent: Vec<Sent> = Vec::new();
        let mut counted = 0;
        let mut refused = 0;
        let mut last_error = None;
        let mut enough = pin!(self.enough.notified());
        enough.as_mut().enable();
        loop {
            let mut missing = None;
            let mut find = |avoid: &BTreeSet<Name>| match chosen.take() {
                Some(part) => Some(way(vec![part])),
                None => self.cut(wanted, avoid).map(way).map_err(|e| missing = Some(e)).ok(),
            };
            let next = {
                let mut budget = self.fanout.budget();
                hedge.next(self.now(), &mut budget, &mut find)
            };
            let wake = match next {
                Next::Send { way, parts, hedge: is_hedge } => {
                    debug_assert_eq!(way, found.len());
                    found.push(Vec::new());
                    sent.push(Sent::of(&parts, self.now()));
                    events.push(self.send(way, parts, wanted, &hedge, is_hedge));
                    continue;
                }
                Next::WaitUntil(at) => self.fanout.started + at,
                Next::GiveUp(why) => return Err(self.gave_up(why, last_error, missing)),
            };
            last_error = last_error.or_else(|| missing.map(|error| Failed { view: None, error }));
            let event = tokio::select! {
                biased;
                () = &mut enough => return Ok(found.into_iter().max_by_key(Vec::len).unwrap_or_default()),
                event = events.next(), if !events.is_empty() => event,
                () = self.fanout.env.sleep_until(wake) => None,
            };
            debug_assert!(event.as_ref().is_none_or(|(way, _)| hedge.running().any(|running| running == *way)));
            match event {
                Some((way, Event::Chunk(chunk))) => {
                    self.heard(&mut sent[way]);
                    hedge.heard(way, self.now());
                    found[way].extend(chunk);
                    self.q.keep(&mut found[way]);
                }
                Some((way, Event::End)) => {
                    self.heard(&mut sent[way]);
                    let now = self.now();
                    // Who was asked later and loses has done nothing wrong.
                    let losers = hedge.running().filter(|other| *other < way && hedge.is_late(*other, now));
                    losers.for_each(|loser| self.saw(&sent[loser], Outcome::Silent));
                    return Ok(std::mem::take(&mut found[way]));
                }
                Some((_, Event::Failed(failed))) if is_final(&failed.error) => return Err(failed),
                Some((way, Event::Failed(failed))) => {
                    if let Some(outcome) = blame(&failed.error) {
                        self.saw(&sent[way], outcome);
                    }
                    refused += u32::from(failed.error.code == Code::Overloaded);
                    found[way] = Vec::new();
                    hedge.failed(way, failed.view.as_ref());
                    // One that is only late may still answer.
                    if refused >= REFUSED_MAX && hedge.running().next().is_none() {
                        return Err(failed);
                    }
                    last_error = Some(failed);
                }
                None => {}
            }
            if whole {
                self.count(&mut counted, found.iter().map(Vec::len).max().unwrap_or_default());
            }
        }
    }

    /// A part that had found `counted` has found `now`.
    fn count(&self, counted: &mut usize, now: usize) {
        self.found.fetch_add(now, Ordering::Relaxed);
        self.found.fetch_sub(*counted, Ordering::Relaxed);
        *counted = now;
        if self.is_enough() {
            self.enough.notify_waiters();
        }
    }

    /// Sends the requests of one way, and tells what comes of them.
    fn send<'b>(
        &'b self,
        way: usize,
        parts: Vec<Part>,
        wanted: &'b [Range],
        hedge: &Hedge,
        is_hedge: bool,
    ) -> BoxStream<'b, (usize, Event<Q::Found>)> {
        if let [part] = &parts[..] {
            self.tally.count(1, is_hedge);
            self.fanout.total.count(1, is_hedge);
            if !is_hedge {
                self.probe(part);
            }
            return self.request(part.clone()).map(move |event| (way, event)).boxed();
        }
        // No single view holds the part: it is asked of several, and each of these parts has a hedge of its
        // own, which counts its requests.
        for tally in [self.tally, &self.fanout.total] {
            tally.hedges.fetch_add(if is_hedge { parts.len() as u64 } else { 0 }, Ordering::Relaxed);
        }
        let avoid: BTreeSet<Name> = hedge.unwanted();
        stream::once(async move {
            let wanted_of: Vec<Vec<Range>> = parts.iter().map(|p| within(wanted, p.range)).collect();
            let asked = parts.into_iter().zip(&wanted_of).map(|(p, wanted)| {
                let asked: BoxFuture<'_, _> = Box::pin(self.part(wanted, Some(p), &avoid, false));
                asked
            });
            try_join_all(asked).await
        })
        .flat_map(move |answers| {
            let events = match answers {
                Ok(answers) => vec![Event::Chunk(answers.into_iter().flatten().collect()), Event::End],
                Err(failed) => vec![Event::Failed(failed)],
            };
            stream::iter(events.into_iter().map(move |event| (way, event)))
        })
        .boxed()
    }

    /// One request to one view.
    fn request(&self, part: Part) -> BoxStream<'_, Event<Q::Found>> {
        let Some(view) = self.fanout.views.find(&part.view) else {
            let error = CallError::elsewhere(Code::Unavailable, format!("{} has gone", part.view));
            return stream::iter([Event::Failed(Failed { view: Some(part.view), error })]).boxed();
        };
        let request = self.q.request(part.range);
        let deadline = self.fanout.started + self.deadline;
        let asking = if part.behind { Asking::Behind } else { self.q.asking() };
        // The request is made twice: the one that is sent is gone when replies come that speak of it.
        let replies = self.fanout.views.call(&view, asking, self.q.request(part.range), deadline);
        replies
            .map(Some)
            .chain(stream::iter([None]))
            .map(move |reply| match reply {
                Some(Ok(reply)) => match self.q.take(&request, reply) {
                    Ok(found) => Event::Chunk(found),
                    Err(error) => Event::Failed(Failed { view: Some(part.view.clone()), error }),
                },
                Some(Err(error)) => Event::Failed(Failed { view: Some(part.view.clone()), error }),
                None => Event::End,
            })
            // A failure is the last that is heard: its stream's end is no answer.
            .scan(false, |over, event| {
                let last = std::mem::replace(over, matches!(event, Event::Failed(_)));
                std::future::ready((!last).then_some(event))
            })
            .boxed()
    }

    /// Covers points by views that are not to be avoided.
    fn cut(&self, wanted: &[Range], avoid: &BTreeSet<Name>) -> Result<Vec<Part>, CallError> {
        let table = self.fanout.views.table();
        let offers: Vec<Offer> = {
            let ejector = self.fanout.ejector();
            let allowed = table.iter().filter(|v| !avoid.contains(&v.node));
            allowed.flat_map(|v| self.offers(v, ejector.is_out(&v.node))).collect()
        };
        let mut below = |n| self.fanout.env.random_below(n);
        cover(wanted, &offers, &mut |candidates| choose(candidates, &mut below)).map_err(|missing| {
            let space = self.q.space().map_or(String::new(), |s| format!(" for {} of the {s} space", missing.0));
            CallError::later(Code::Unavailable, 500, format!("no view answers{space} at version {}", self.q.at()))
        })
    }

    fn offers(&self, view: &View, out: bool) -> Vec<Offer> {
        let (at, status) = (self.q.at(), &view.status);
        if status.epoch != Some(at.epoch) || !status.state.answers() {
            return Vec::new();
        }
        let behind = at.index.0.saturating_sub(status.applied.0);
        let asking = if behind > 0 { Asking::Behind } else { self.q.asking() };
        let candidate = Candidate {
            view: view.node.clone(),
            home: view.home,
            behind,
            unwilling: status.state == ViewState::Draining || status.oldest > at.index,
            out,
            in_flight: view.record.in_flight(),
            usual: view.record.mean(asking),
            late_after: if self.fanout.hedging { late_after(view.record.latency(asking, 95)) } else { NEVER },
        };
        let ranges: Vec<Range> = match self.q.space() {
            Some(space) => status.serves.iter().filter(|s| s.space == space).map(|s| s.range).collect(),
            None => vec![Range::ALL],
        };
        ranges.into_iter().map(|range| Offer { candidate: candidate.clone(), range }).collect()
    }

    fn gave_up(&self, why: GiveUp, last: Option<Failed>, missing: Option<CallError>) -> Failed {
        match (why, last) {
            (GiveUp::NobodyLeft, Some(Failed { view: Some(view), error })) => {
                let message = format!("no view could answer at version {}; the last, {view}: {error}", self.q.at());
                let error = CallError { message, ..error };
                Failed { view: Some(view), error }
            }
            (GiveUp::NobodyLeft, Some(failed)) => failed,
            (GiveUp::NobodyLeft, None) => {
                let nobody = || CallError::later(Code::Unavailable, 500, "no view is known".to_owned());
                Failed { view: None, error: missing.unwrap_or_else(nobody) }
            }
            (GiveUp::Deadline, last) => {
                let last = last.map_or(String::new(), |f| format!("; the last error: {}", f.error));
                let message = format!("the views did not answer at version {} in time{last}", self.q.at());
                Failed { view: None, error: CallError::later(Code::Deadline, 500, message) }
            }
        }
    }
}

fn way(parts: Vec<Part>) -> Way<Part> {
    let views = parts.iter().map(|p| p.view.clone()).collect();
    let late_after = parts.iter().map(|p| p.late_after).max().unwrap_or_default();
    Way { parts, views, late_after }
}

/// Whether another view would say the same.
fn is_final(error: &CallError) -> bool {
    use Code::*;
    matches!(error.code, Invalid | TooLarge | TooOld | WrongEpoch | QueryTooLarge | OutcomeUnknown)
}

mod standing;
#[cfg(test)]
mod tests;

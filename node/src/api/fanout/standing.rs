//! What requests say of the views that they were sent to: told to the ejector; and probes of those that it has put out.

use super::{Asked, Fanout, Question};
use crate::api::cover::Part;
use crate::api::eject::Outcome;
use crate::remote::view::{View, Views};
use beam_wire::{CallError, Code, Name};
use futures::stream::StreamExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a view that was put out may take to answer a probe.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// An answer is much too late when it takes so many times what makes a request late.
const SLOW: u32 = 2;

/// A way that was sent, as far as its view is judged by it. A way of several parts is judged part by part.
pub(super) struct Sent {
    part: Option<Part>,
    at: Duration,
    heard: bool,
}

impl Sent {
    pub(super) fn of(parts: &[Part], at: Duration) -> Sent {
        let part = if let [part] = parts { Some(part.clone()) } else { None };
        Sent { part, at, heard: false }
    }
}

impl<V: Views> Fanout<V> {
    /// What became of a request that was sent then.
    fn saw(&self, part: &Part, outcome: Outcome, sent: Duration) {
        // A view that must apply entries first is late because of these.
        if !self.hedging || part.behind {
            return;
        }
        let now = self.env.now() - self.started;
        let mut ejector = self.ejector();
        if part.out {
            if ejector.probed(&part.view, outcome, now)
                && let Some(view) = self.views.find(&part.view)
            {
                back_in(&view, part.late_after);
            }
        } else if ejector.saw(&part.view, outcome, sent, &part.rivals, now) {
            tracing::warn!(view = %part.view, "a view is left out: it is {outcome:?} too often");
            ejector.keep(|view| self.views.names(view));
        }
    }
}

impl<V: Views, Q: Question> Asked<'_, V, Q> {
    /// Something was heard of a request.
    pub(super) fn heard(&self, sent: &mut Sent) {
        if let (false, Some(part)) = (sent.heard, &sent.part) {
            let in_time = self.now() - sent.at <= part.late_after * SLOW;
            self.fanout.saw(part, if in_time { Outcome::InTime } else { Outcome::Slow }, sent.at);
        }
        sent.heard = true;
    }

    pub(super) fn saw(&self, sent: &Sent, outcome: Outcome) {
        if let Some(part) = &sent.part {
            self.fanout.saw(part, outcome, sent.at);
        }
    }

    /// Sends the same request to views that are out, if it is time. Nobody waits for their answers.
    pub(super) fn probe(&self, part: &Part) {
        let fanout = self.fanout;
        let now = self.now();
        let due: Vec<Name> = fanout.ejector().due(now).filter(|view| **view != part.view).cloned().collect();
        for view in due.iter().filter_map(|view| fanout.views.find(view)) {
            let can_answer = self
                .offers(&view, true)
                .iter()
                .any(|offer| offer.candidate.behind == 0 && offer.range.intersect(&part.range) == Some(part.range));
            // Where a hedge is chosen, the budget is held before the ejector, too.
            let mut budget = fanout.budget();
            if !can_answer || !fanout.ejector().probe(&view.node, now, || budget.spend(1)) {
                continue;
            }
            drop(budget);
            fanout.total.requests.fetch_add(1, Ordering::Relaxed);
            fanout.total.probes.fetch_add(1, Ordering::Relaxed);
            let (env, started, ejector) = (fanout.env.clone(), fanout.started, fanout.ejector.clone());
            let answer = fanout.views.call(&view, self.q.asking(), self.q.request(part.range), env.now() + PROBE_MAX);
            let in_time = part.late_after * SLOW;
            let probing = async move {
                let mut answer = answer;
                let first = env.timeout(PROBE_MAX, answer.next()).await;
                let took = env.now() - started - now;
                let outcome = match first {
                    Ok(None | Some(Ok(_))) if took <= in_time => Outcome::InTime,
                    Ok(None | Some(Ok(_))) => Outcome::Slow,
                    Ok(Some(Err(_))) | Err(_) => Outcome::Silent,
                };
                let now = env.now() - started;
                if ejector.lock().expect("no holder panics").probed(&view.node, outcome, now) {
                    back_in(&view, in_time / SLOW);
                }
            };
            fanout.env.tasks().serve("api.probe", probing).detach();
        }
    }
}

/// What an error says of the view that it came from.
pub(super) fn blame(error: &CallError) -> Option<Outcome> {
    use Code::*;
    match error.code {
        Overloaded => Some(Outcome::Slow),
        Unavailable | Disconnected | Storage | Internal => Some(Outcome::Silent),
        _ => None,
    }
}

/// A view was out, and is not any more. How slow it was should not keep others from it now.
fn back_in(view: &View, assumed: Duration) {
    tracing::info!(view = %view.node, "a view is asked again: it answers in time");
    view.record.begin_anew(assumed);
}

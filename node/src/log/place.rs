//! Where the leader is: in the datacenter that the topology prefers while it is well there, and never in a
//! drained one, or one whose disk is full, while another can lead.
//!
//! It moves by transfer, which is not an election: the old leader chooses a voter that lacks nothing, and stops
//! taking proposals only until that one leads.

use super::members::LAG_MAX;
use super::raft::{Leads, Log};
use beam_wire::error::{CallError, Code};
use beam_wire::ids::Name;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// For how many leases of silence the voters of a drained datacenter leave it to the others to elect a leader.
/// After that none of the others can: they lack entries, or are too few. A log that takes nothing is worse than
/// a leader in a datacenter that is about to be switched off, so then any voter may lead, and hands over as
/// soon as another can.
const STAND_BACK_LEASES: u32 = 10;
/// How long a transfer may take before it counts as failed.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);

/// A voter, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Voter {
    id: u64,
    datacenter: Name,
    /// It answers, lacks what is on its way at most, and has room on its disk.
    well: bool,
}

/// Since when each voter has been well.
#[derive(Debug, Default)]
struct Placement {
    well_since: BTreeMap<u64, Instant>,
}

/// What does not change while the node runs.
struct Wish<'a> {
    /// Where the leader is.
    here: &'a Name,
    preferred: Option<&'a Name>,
    drained: &'a BTreeSet<Name>,
    /// The leader's disk is full.
    full: bool,
    calm: Duration,
}

impl Placement {
    /// The voter that should lead instead of the leader, if any should now.
    fn choose(&mut self, now: Instant, wish: &Wish<'_>, others: &[Voter]) -> Option<u64> {
        self.well_since.retain(|id, _| others.iter().any(|voter| voter.id == *id && voter.well));
        for voter in others.iter().filter(|voter| voter.well) {
            self.well_since.entry(voter.id).or_insert(now);
        }
        let is_preferred = |voter: &Voter| wish.preferred == Some(&voter.datacenter);
        let may_lead = |voter: &&Voter| !wish.drained.contains(&voter.datacenter);
        let well = others.iter().filter(may_lead).filter_map(|v| Some((v, *self.well_since.get(&v.id)?)));
        let chosen = if wish.full || wish.drained.contains(wish.here) {
            well.min_by_key(|(voter, since)| (!is_preferred(voter), *since, voter.id))
        } else if wish.preferred == Some(wish.here) {
            None
        } else {
            // Whoever comes and goes begins anew each time, so the leader does not follow it.
            let calm = |since: &Instant| now.duration_since(*since) >= wish.calm;
            well.filter(|(voter, since)| is_preferred(voter) && calm(since)).min_by_key(|(v, since)| (*since, v.id))
        };
        chosen.map(|(voter, _)| voter.id)
    }
}

/// Keeps the leader where it should be.
pub(super) async fn place(log: Arc<Log>) {
    let mut placement = Placement::default();
    loop {
        log.env.sleep(log.options.heartbeat).await;
        log.raft.runtime_config().elect(!stands_back(&log));
        let leads = log.leads() == Leads::Me;
        {
            let mut since = log.leads_since.lock().unwrap_or_else(PoisonError::into_inner);
            *since = if leads { since.or(Some(log.env.now())) } else { None };
        }
        if !leads {
            placement = Placement::default();
            continue;
        }
        let drained = log.store.machine().course.drained.clone();
        let (here, preferred) = (&log.options.datacenter, log.options.preferred.as_ref());
        let full = log.store.is_full();
        let wish = Wish { here, preferred, drained: &drained, full, calm: log.options.calm };
        if let Some(to) = placement.choose(log.env.now(), &wish, &others(&log)) {
            match hand_over(&log, to).await {
                Ok(()) => placement = Placement::default(),
                Err(e) => tracing::warn!("{e}"),
            }
        }
    }
}

/// All voters but this leader.
fn others(log: &Log) -> Vec<Voter> {
    let metrics = log.raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let last = metrics.last_log_index.unwrap_or(0);
    let full = log.store.is_full();
    let voters = membership.voter_ids().filter(|id| *id != metrics.id).filter_map(|id| {
        let matched = metrics.replication.as_ref().and_then(|r| r.get(&id)).and_then(|m| m.as_ref());
        let answered = metrics.heartbeat.as_ref().and_then(|h| h.get(&id)).and_then(|at| *at);
        let well = matched.is_some_and(|m| m.index + LAG_MAX >= last)
            && answered.is_some_and(|at| at.elapsed() < log.options.election_max * 2)
            // Full leaders that hand over to one another without asking would do nothing else.
            && log.full.knows(id).map_or(!full, |full| !full);
        Some(Voter { id, datacenter: membership.get_node(&id)?.datacenter.clone(), well })
    });
    voters.collect()
}

/// Whether this node leaves it to others to lead, because its datacenter is drained.
pub(super) fn stands_back(log: &Log) -> bool {
    let silence = log.env.now().duration_since(log.heard.last().unwrap_or(log.began));
    log.store.machine().course.drained.contains(&log.options.datacenter)
        && silence < log.options.election_max * STAND_BACK_LEASES
}

/// Hands leadership over to a voter, and waits until this node does not lead any more.
pub(super) async fn hand_over(log: &Log, to: u64) -> Result<(), CallError> {
    let mut changes = log.raft.server_metrics();
    let (me, name) = {
        let metrics = changes.borrow_watched();
        let node = metrics.membership_config.membership().get_node(&to);
        (metrics.id, node.map_or(format!("{to:x}"), |node| node.to_string()))
    };
    tracing::info!("handing leadership over to {name}");
    let stopped = |e: &dyn std::fmt::Display| CallError::elsewhere(Code::Unavailable, format!("Raft has stopped: {e}"));
    log.inherits(to);
    log.raft.trigger().transfer_leader(to).await.map_err(|e| stopped(&e))?;
    let gone = async {
        while changes.borrow_and_update().current_leader == Some(me) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    match log.env.timeout(HAND_OVER_WITHIN, gone).await {
        Ok(()) => Ok(()),
        Err(_) => Err(CallError::later(Code::Unavailable, 500, format!("{name} did not take leadership over"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// `va1+ or2-`: who is well, and who is not.
    fn voters(text: &str) -> Vec<Voter> {
        let voter = |word: &str| Voter {
            id: word[2..3].parse().unwrap(),
            datacenter: name(&word[..2]),
            well: word.ends_with('+'),
        };
        text.split_whitespace().map(voter).collect()
    }

    /// Each line: milliseconds, the other voters, and who is chosen then (`-` for nobody). Among the drained ones,
    /// `full` says that the leader's disk is.
    #[allow(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn told(here: &str, preferred: Option<&str>, drained: &str, script: &str) {
        let began = Instant::now();
        let (here, preferred) = (name(here), preferred.map(name));
        let drained: BTreeSet<Name> = drained.split_whitespace().map(name).collect();
        let calm = Duration::from_millis(5000);
        let full = drained.contains(&name("full"));
        let wish = Wish { here: &here, preferred: preferred.as_ref(), drained: &drained, full, calm };
        let mut placement = Placement::default();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (ms, rest) = line.split_once(' ').unwrap();
            let (others, chosen) = rest.split_once("→").unwrap();
            let now = began + Duration::from_millis(ms.parse().unwrap());
            let id = placement.choose(now, &wish, &voters(others)).map_or("-".into(), |id| id.to_string());
            assert_eq!(id, chosen.trim(), "{line}");
        }
    }

    #[test]
    fn the_leader_goes_to_the_preferred_datacenter_once_it_is_calm_there() {
        told(
            "or",
            Some("va"),
            "",
            "
            0    va1+ ie3+ → -
            4999 va1+ ie3+ → -
            5000 va1+ ie3+ → 1
        ",
        );
        told("va", Some("va"), "", "0 va1+ or2+ → -\n9000 va1+ or2+ → -");
        told("or", None, "", "0 va1+ ie3+ → -\n9000 va1+ ie3+ → -");
    }

    #[test]
    fn a_voter_that_comes_and_goes_is_not_followed() {
        told(
            "or",
            Some("va"),
            "",
            "
            0     va1+ → -
            4000  va1- → -
            4100  va1+ → -
            8000  va1- → -
            8100  va1+ → -
            13099 va1+ → -
            13100 va1+ → 1
        ",
        );
    }

    #[test]
    fn any_well_voter_of_the_preferred_datacenter_will_do() {
        // One flaps all the time; the other has been calm for long enough.
        told(
            "or",
            Some("va"),
            "",
            "
            0    va1+ va2- → -
            1000 va1- va2+ → -
            2000 va1+ va2+ → -
            5999 va1- va2+ → -
            6000 va1+ va2+ → 2
        ",
        );
        told("or", Some("va"), "", "0 va1+ va2+ va3+ → -\n5000 va1- va2+ va3+ → 2");
    }

    #[test]
    fn a_drained_datacenter_is_left_at_once_and_not_entered() {
        told("va", Some("va"), "va", "0 va1+ or2- ie3+ → 3");
        told("va", Some("or"), "va", "0 ie1+ or2+ → 2");
        told("va", Some("va"), "va", "0 va1+ or2- ie3- → -");
        told("or", Some("va"), "va", "0 va1+ ie3+ → -\n9000 va1+ ie3+ → -");
        told("va", None, "va or", "0 or2+ ie3+ → 3");
    }

    #[test]
    fn a_leader_whose_disk_is_full_hands_over_at_once() {
        told("va", Some("va"), "full", "0 or2- ie3+ → 3");
        told("va", Some("va"), "full or", "0 or2+ ie3- → -");
        told("or", Some("va"), "full", "0 va1+ ie3+ → 1");
    }
}

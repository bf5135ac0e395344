//! What to do with what is left of a log that has lost its majority. Plain data in, plain data out.
//!
//! Of the log nodes that answer, the one whose log is newest (Raft's order: the term of the last entry, then its
//! index) begins a new epoch with all that it holds. Whatever a lost majority has acknowledged lies on it, if it
//! lies on any survivor: an acknowledged entry was on some of them under the newest term that they have. The others'
//! logs are set aside, and they join anew.
//!
//! Nothing is done while the log may not be lost: while a majority of its voters answers, or somebody hears a leader
//! that does not. And nothing is done twice: a plan has a token, the hash of all that it was made from, and each node
//! compares what the plan saw of it with what it is. The new epoch's number is drawn from the same hash, so that two
//! plans, made on two sides of a broken network, make two epochs, and the nodes of one refuse the other's.

use beam_wire::codec;
use beam_wire::ids::{Epoch, LogIndex, Name};
use beam_wire::message::log::{EpochBegan, LogEnd, LogRecoverReply, RecoverOrder, RecoverPart, shared_up_to};
use serde::Serialize;
use std::collections::BTreeSet;

/// Who was heard less long ago may live on where we do not see it. Elections take a second.
pub const SILENT_MS: u64 = 10_000;

/// A new epoch's number exceeds the newest by at most this: what two plans draw differs but once in a million times.
const EPOCHS_DRAWN: u64 = 1 << 20;

/// What the log nodes of a topology said.
pub type Answers = Vec<(Name, Result<LogRecoverReply, String>)>;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Names the plan: no other, and no other state of the survivors, has it.
    pub token: u64,
    /// The epoch in which the log goes on.
    pub epoch: Epoch,
    /// The node with whose log it begins; none if it has begun already.
    pub chosen: Option<Chosen>,
    /// A node that is in the epoch, or will be.
    pub founder: Name,
    /// What each node that answers shall do, the chosen one first.
    pub orders: Vec<RecoverOrder>,
    /// Nodes that answer and have no log of this cluster: nothing is done to them.
    pub empty: Vec<Name>,
    /// Nodes that do not answer, and why.
    pub lost: Vec<(Name, String)>,
    /// What the operator should know before agreeing.
    pub notes: Vec<String>,
}

/// The log that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub node: Name,
    /// Its lowest entry.
    pub first: LogIndex,
    /// Its last entry: indexes up to it mean the same in both epochs.
    pub kept: LogIndex,
    /// Up to which entry any survivor knows it to be committed.
    pub committed: Option<LogIndex>,
}

/// Why there is nothing to recover, or nothing to recover from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRecovery {
    #[error("no log node answers: there is nothing to recover from. Restore a backup (beam log restore)")]
    NoSurvivor,
    #[error("the log nodes that answer ({nodes}) hold no log: restore a backup (beam log restore)")]
    NoLog { nodes: String },
    #[error(
        "{answering} of {voters} voters of the log answer, which is a majority: it is not lost{}",
        .leader.as_ref().map_or(". If nobody leads yet, wait a moment".into(), |l| format!(", {l} leads"))
    )]
    NotLost { answering: usize, voters: usize, leader: Option<Name> },
    #[error("a majority has answered {leader} {ms} ms ago, which leads: the log is not lost")]
    Leads { leader: Name, ms: u64 },
    #[error(
        "{node} has heard {leader} lead {ms} ms ago, which does not answer here: run this where it can be reached. If \
         it is dead, try again in {} s", SILENT_MS / 1000
    )]
    LeaderHeard { node: Name, leader: String, ms: u64 },
    #[error(
        "{a} is in epoch {epoch_a} and {b} in epoch {epoch_b}, and neither comes from the other: the log was recovered \
         twice, on two sides. Decide which side lives, stop the log nodes of the other and move their log \
         directories away; they then join anew"
    )]
    TwoLives { a: Name, epoch_a: Epoch, b: Name, epoch_b: Epoch },
    #[error("{node} has not carried out its part of another plan ({token:016x}) yet: wait until it has restarted")]
    Pending { node: Name, token: u64 },
}

/// One that answers and holds a log.
struct Survivor<'a> {
    node: &'a Name,
    epoch: Epoch,
    said: &'a LogRecoverReply,
}

/// Decides.
pub fn plan(cluster: &Name, answers: &Answers) -> Result<Plan, NoRecovery> {
    let lost = answers.iter().filter_map(|(n, a)| a.as_ref().err().map(|why| (n.clone(), why.clone()))).collect();
    let said: Vec<_> = answers.iter().filter_map(|(node, answer)| Some((node, answer.as_ref().ok()?))).collect();
    if said.is_empty() {
        return Err(NoRecovery::NoSurvivor);
    }
    let holding = said.iter().filter(|(_, said)| said.status.info.last.is_some());
    let survivors: Vec<Survivor<'_>> =
        holding.filter_map(|(node, said)| Some(Survivor { node, epoch: said.status.info.epoch?, said })).collect();
    let holds = |node: &Name| survivors.iter().any(|s| s.node == node);
    let empty: Vec<Name> = said.iter().map(|(node, _)| (*node).clone()).filter(|node| !holds(node)).collect();
    let Some(newest) = survivors.iter().max_by_key(|s| rank(s)) else {
        return Err(NoRecovery::NoLog { nodes: names(empty.iter()) });
    };
    let epochs = &newest.said.status.epochs;
    if let Some(other) = survivors.iter().find(|s| !is_past(epochs, s.epoch, newest.epoch)) {
        let (a, b) = (newest.node.clone(), other.node.clone());
        return Err(NoRecovery::TwoLives { a, epoch_a: newest.epoch, b, epoch_b: other.epoch });
    }
    let current: Vec<&Survivor<'_>> = survivors.iter().filter(|s| s.epoch == newest.epoch).collect();
    let old: Vec<&Survivor<'_>> = survivors.iter().filter(|s| s.epoch != newest.epoch).collect();
    let left_behind = |founder: &Name, epoch| -> Vec<RecoverOrder> {
        let part = |s: &Survivor<'_>| order(s, RecoverPart::SetAside { epoch, founder: founder.clone() });
        old.iter().map(|s| part(s)).collect()
    };
    if let Err(alive) = is_lost(newest, &current) {
        if old.is_empty() {
            return Err(alive);
        }
        // The log lives in its newest epoch; others have not noticed, or were away.
        let orders = left_behind(newest.node, newest.epoch);
        let (epoch, founder) = (newest.epoch, newest.node.clone());
        let plan = Plan { token: 0, epoch, chosen: None, founder, orders, empty, lost, notes: Vec::new() };
        return sealed(plan, cluster, &survivors);
    }
    let founder = newest.node.clone();
    let drawn = hash(&(cluster, "epoch", newest.node, facts(&survivors))) % EPOCHS_DRAWN;
    let epoch = Epoch(newest.epoch.0 + 1 + drawn);
    let info = &newest.said.status.info;
    let committed = current.iter().filter_map(|s| s.said.status.info.committed).max();
    let kept = info.last.unwrap_or_default();
    let mut orders = vec![order(newest, RecoverPart::Refound { epoch })];
    let others = current.iter().filter(|s| s.node != newest.node);
    orders.extend(others.map(|s| order(s, RecoverPart::SetAside { epoch, founder: founder.clone() })));
    orders.extend(left_behind(&founder, epoch));
    let chosen = Chosen { node: founder.clone(), first: info.first, kept, committed };
    let notes = notes(&chosen, &current);
    let plan = Plan { token: 0, epoch, chosen: Some(chosen), founder, orders, empty, lost, notes };
    sealed(plan, cluster, &survivors)
}

/// Of two logs of one epoch, the newer, then the one that reaches further back.
fn rank<'a>(s: &Survivor<'a>) -> (Epoch, Option<u64>, Option<LogIndex>, std::cmp::Reverse<LogIndex>, &'a Name) {
    let info = &s.said.status.info;
    (s.epoch, s.said.status.last_term, info.last, std::cmp::Reverse(info.first), s.node)
}

fn is_past(epochs: &[EpochBegan], epoch: Epoch, newest: Epoch) -> bool {
    epoch == newest || shared_up_to(epochs, epoch).is_some()
}

/// Whether no majority can be made of those who answer, and nobody hears one elsewhere.
fn is_lost(newest: &Survivor<'_>, current: &[&Survivor<'_>]) -> Result<(), NoRecovery> {
    for s in current {
        if let Some(ms) = s.said.majority_ms_ago.filter(|ms| *ms < SILENT_MS) {
            return Err(NoRecovery::Leads { leader: s.node.clone(), ms });
        }
    }
    let there: BTreeSet<u64> = current.iter().map(|s| s.said.status.info.raft_id).collect();
    let answering = |voters: &Vec<u64>| voters.iter().filter(|id| there.contains(id)).count();
    let sets = &newest.said.voters;
    if sets.iter().all(|voters| answering(voters) * 2 > voters.len()) {
        let voters = sets.first().map_or(0, Vec::len);
        let leader = newest.said.status.info.leader.clone();
        return Err(NoRecovery::NotLost { answering: sets.first().map_or(0, answering), voters, leader });
    }
    for s in current {
        let leader = &s.said.status.info.leader;
        let answers = leader.as_ref().is_some_and(|leader| current.iter().any(|other| other.node == leader));
        if let Some(ms) = s.said.leader_ms_ago.filter(|ms| *ms < SILENT_MS && !answers) {
            let leader = leader.as_ref().map_or("a node".into(), Name::to_string);
            return Err(NoRecovery::LeaderHeard { node: s.node.clone(), leader, ms });
        }
    }
    Ok(())
}

fn order(s: &Survivor<'_>, part: RecoverPart) -> RecoverOrder {
    RecoverOrder { token: 0, node: s.node.clone(), seen: s.said.end(), part }
}

/// What may be lost, in plain words.
fn notes(chosen: &Chosen, current: &[&Survivor<'_>]) -> Vec<String> {
    let Chosen { node, first, kept, committed } = chosen;
    let mut notes = vec![format!(
        "everything that was acknowledged after entry {kept} is lost: only log nodes that do not answer held it"
    )];
    match kept.0.saturating_sub(committed.map_or(0, |c| c.0)) {
        0 => {}
        1 => notes.push(format!("entry {kept} is kept though no survivor knows whether it was committed")),
        n => notes.push(format!(
            "the last {n} entries, up to {kept}, are kept though no survivor knows whether they were committed: writers \
             of some may have been told that they failed"
        )),
    }
    for s in current {
        let info = &s.said.status.info;
        if info.first < *first {
            notes.push(format!(
                "{} still holds entries from {} on, {node} only from {first} on: what lies between was discarded, and is \
                 set aside with the rest of its log",
                s.node, info.first
            ));
        }
    }
    notes.push(
        "if the nodes that do not answer still run somewhere, do not go on: both sides would take writes, and one \
         side's are lost later"
            .into(),
    );
    notes
}

/// All that a plan is made from: what may change without a reason to think again is not in it.
fn facts<'a>(survivors: &[Survivor<'a>]) -> Vec<(&'a Name, LogEnd)> {
    let mut facts: Vec<_> = survivors.iter().map(|s| (s.node, s.said.end())).collect();
    facts.sort();
    facts
}

fn sealed(mut plan: Plan, cluster: &Name, survivors: &[Survivor<'_>]) -> Result<Plan, NoRecovery> {
    let parts: Vec<_> = plan.orders.iter().map(|order| (&order.node, &order.part)).collect();
    let token = hash(&(cluster, "plan", plan.epoch, &plan.founder, parts, facts(survivors)));
    let pending = survivors.iter().find_map(|s| Some((s.node, s.said.pending.filter(|other| *other != token)?)));
    if let Some((node, token)) = pending {
        return Err(NoRecovery::Pending { node: node.clone(), token });
    }
    plan.token = token;
    plan.orders.iter_mut().for_each(|order| order.token = token);
    Ok(plan)
}

fn hash(facts: &impl Serialize) -> u64 {
    let hash = blake3::hash(&codec::encode(facts));
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

fn names<'a>(nodes: impl Iterator<Item = &'a Name>) -> String {
    nodes.map(Name::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::message::log::{LogInfoReply, LogStatusReply};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// A survivor in an epoch, with a log that ends at an entry of a term, of which so much is committed.
    fn said(node: &str, epoch: u64, term: u64, last: u64, committed: u64) -> LogRecoverReply {
        let info = LogInfoReply {
            node: name(node),
            raft_id: id(node),
            epoch: Some(Epoch(epoch)),
            first: LogIndex(0),
            last: Some(LogIndex(last)),
            committed: Some(LogIndex(committed)),
            bytes: 0,
            term,
            leader: None,
            members: Vec::new(),
        };
        let status = LogStatusReply {
            info,
            last_term: Some(term),
            epochs: Vec::new(),
            drained: Vec::new(),
            free_bytes: None,
            full: false,
            heartbeat_ms: 150,
            lease_ms: 350,
            round_trips: Vec::new(),
            warnings: Vec::new(),
        };
        let voters = vec![["a", "b", "c", "d", "e"].map(id).to_vec()];
        LogRecoverReply { status, voters, majority_ms_ago: None, leader_ms_ago: None, pending: None }
    }

    fn id(node: &str) -> u64 {
        node.as_bytes()[0].into()
    }

    /// Those that are not named do not answer.
    fn decide(said: &[LogRecoverReply]) -> Result<Plan, NoRecovery> {
        let answer = |node: &str| said.iter().find(|s| s.status.info.node == name(node)).cloned();
        let answers = ["a", "b", "c", "d", "e"].map(|n| (name(n), answer(n).ok_or("silent".into()))).to_vec();
        plan(&name("beam"), &answers)
    }

    fn chosen(said: &[LogRecoverReply]) -> String {
        decide(said).unwrap().chosen.unwrap().node.to_string()
    }

    #[test]
    fn the_newest_log_is_kept() {
        assert_eq!(chosen(&[said("a", 1, 4, 90, 80)]), "a");
        assert_eq!(chosen(&[said("a", 1, 4, 90, 80), said("b", 1, 4, 91, 70)]), "b");
        assert_eq!(chosen(&[said("a", 1, 5, 60, 50), said("b", 1, 4, 91, 70)]), "a", "a later term wins");
        let mut shorter = said("b", 1, 4, 90, 80);
        shorter.status.info.first = LogIndex(40);
        let both = [said("a", 1, 4, 90, 80), shorter];
        assert_eq!(chosen(&both), "a", "of equals the one that reaches further back");
        let mut newer = both.clone();
        newer[1].status.info.last = Some(LogIndex(91));
        let plan = decide(&newer).unwrap();
        assert_eq!(plan.founder, name("b"));
        assert!(plan.notes.iter().any(|note| note.contains("a still holds entries from 0 on, b only from 40")));
    }

    #[test]
    fn it_says_what_may_be_lost() {
        let plan = decide(&[said("a", 1, 4, 90, 80), said("b", 1, 4, 88, 85)]).unwrap();
        assert_eq!(plan.orders.iter().map(|o| o.node.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(plan.lost.len(), 3);
        assert!(plan.notes[0].contains("acknowledged after entry 90"), "{:?}", plan.notes);
        assert!(plan.notes[1].contains("the last 5 entries"), "{:?}", plan.notes);
        assert!(plan.epoch > Epoch(1) && plan.epoch.0 <= 1 + EPOCHS_DRAWN);
    }

    #[test]
    fn a_log_that_lives_is_left_alone() {
        let three = [said("a", 1, 4, 90, 80), said("b", 1, 4, 90, 80), said("c", 1, 4, 90, 80)];
        assert!(matches!(decide(&three), Err(NoRecovery::NotLost { answering: 3, voters: 5, .. })));
        let two = &three[..2];
        assert!(decide(two).is_ok());
        let with = |change: fn(&mut LogRecoverReply)| {
            let mut said = two.to_vec();
            change(&mut said[0]);
            decide(&said)
        };
        assert!(matches!(with(|s| s.majority_ms_ago = Some(200)), Err(NoRecovery::Leads { ms: 200, .. })));
        assert!(with(|s| s.majority_ms_ago = Some(SILENT_MS)).is_ok());
        let heard = |leader: &'static str, ms| {
            let mut said = two.to_vec();
            (said[0].leader_ms_ago, said[0].status.info.leader) = (Some(ms), Some(name(leader)));
            decide(&said)
        };
        assert!(matches!(heard("c", 200), Err(NoRecovery::LeaderHeard { ms: 200, .. })));
        assert!(heard("c", SILENT_MS).is_ok(), "it is silent by now");
        assert!(heard("b", 200).is_ok(), "it answers here, and says itself that no majority answers it");
        // While the membership changes, both majorities must be there.
        let joint = |second: &[&str]| {
            let mut said = three.to_vec();
            said.iter_mut().for_each(|s| s.voters.push(second.iter().map(|n| id(n)).collect()));
            decide(&said)
        };
        assert!(matches!(joint(&["a", "b", "z"]), Err(NoRecovery::NotLost { .. })));
        assert!(joint(&["a", "y", "z"]).is_ok());
    }

    #[test]
    fn nodes_of_an_older_epoch_are_set_aside_and_of_another_life_refused() {
        let began = |epoch, kept| EpochBegan { epoch: Epoch(epoch), kept: LogIndex(kept) };
        let mut alive = said("a", 700, 9, 95, 95);
        alive.status.epochs = vec![began(700, 90)];
        (alive.voters, alive.majority_ms_ago) = (vec![vec![id("a")]], Some(50));
        let plan = decide(&[alive.clone(), said("b", 1, 4, 99, 99)]).unwrap();
        assert_eq!((plan.epoch, &plan.chosen, plan.orders.len()), (Epoch(700), &None, 1));
        assert_eq!(plan.orders[0].part, RecoverPart::SetAside { epoch: Epoch(700), founder: name("a") });
        assert!(matches!(decide(&[alive.clone()]), Err(NoRecovery::Leads { .. })));
        let mut other = said("b", 500, 9, 95, 95);
        other.status.epochs = vec![began(500, 80)];
        assert!(matches!(decide(&[alive, other]), Err(NoRecovery::TwoLives { .. })));
    }

    #[test]
    fn a_token_names_one_plan() {
        let two = [said("a", 1, 4, 90, 80), said("b", 1, 4, 88, 85)];
        let plan = decide(&two).unwrap();
        // What changes by itself changes nothing.
        let mut later = two.clone();
        (later[0].status.info.committed, later[0].leader_ms_ago) = (Some(LogIndex(81)), Some(99_999));
        assert_eq!(decide(&later).unwrap().token, plan.token);
        let mut tokens = BTreeSet::from([plan.token]);
        assert!(tokens.insert(decide(&two[..1]).unwrap().token), "another survivor");
        assert!(tokens.insert(decide(&[said("a", 1, 4, 91, 80), two[1].clone()]).unwrap().token), "another entry");
        let mut wiped = two.clone();
        wiped[1].status.info.raft_id = 77;
        assert!(tokens.insert(decide(&wiped).unwrap().token), "another disk");
        assert!(plan.orders.iter().all(|order| order.token == plan.token));
        let mut ordered = two.clone();
        ordered[0].pending = Some(plan.token);
        assert!(decide(&ordered).is_ok(), "it is this plan");
        ordered[0].pending = Some(1);
        assert_eq!(decide(&ordered), Err(NoRecovery::Pending { node: name("a"), token: 1 }));
    }

    #[test]
    fn without_a_log_there_is_nothing_to_recover() {
        assert_eq!(decide(&[]), Err(NoRecovery::NoSurvivor));
        let mut empty = said("a", 1, 0, 0, 0);
        (empty.status.info.epoch, empty.status.info.last) = (None, None);
        assert_eq!(decide(&[empty]), Err(NoRecovery::NoLog { nodes: "a".into() }));
    }
}

//! What a change of the log's members, of its leader or of the drained datacenters would do: decided here,
//! without asking anybody. [`super::change`] finds out what there is to know, and acts.
//!
//! What is held against every new set of voters: that a majority of it lives now (else nothing could be
//! written any more, and not even the change itself could be finished or undone), and that a majority is
//! left when any one datacenter is lost.

use super::types::{LogNode, LogTypes, Membership};
use beam_wire::ids::{Epoch, LogIndex, Name};
use beam_wire::message::log::{Change, Member, MemberName, Plan};
use std::collections::{BTreeMap, BTreeSet};

pub type ChangeMembers = openraft::ChangeMembers<u64, LogNode>;
pub type Precondition = openraft::raft::Precondition<LogTypes>;

/// What a busy log has on its way to a member that lacks nothing.
pub const LAG_MAX: u64 = 4096;

/// How a member is, as the leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The newest entry that it is known to hold.
    pub matched: Option<u64>,
    /// Whether it answers, under this Raft id.
    pub answers: bool,
    /// Whether its disk takes no more.
    pub full: bool,
}

/// What a node says of itself that a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub raft_id: u64,
    /// As its certificate says.
    pub datacenter: Name,
    /// None when its log is empty.
    pub epoch: Option<Epoch>,
}

/// All that a plan is made from.
#[derive(Clone, Debug)]
pub struct Known {
    pub epoch: Epoch,
    pub membership: Membership,
    /// Where the membership lies in the log.
    pub at: u64,
    /// The newest entry of the leader's log.
    pub last: u64,
    /// The leader, who plans.
    pub leader: u64,
    pub health: BTreeMap<u64, Health>,
    pub drained: BTreeSet<Name>,
    pub preferred: Option<Name>,
    /// The node that is to be added or replaced, or why it does not answer.
    pub candidate: Option<Result<Candidate, String>>,
}

/// What is to be done next. After each step, the leader of then plans anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All is as asked.
    Nothing,
    /// Until [`Plan::waits`] has come.
    Wait,
    /// Write this change of members.
    Members(ChangeMembers),
    /// Write that these are drained.
    Drain(BTreeSet<Name>),
    /// Hand leadership over.
    HandOver(u64),
}

/// A plan for people, and its first step, which counts only if nothing in the plan forbids it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub plan: Plan,
    pub step: Step,
}

/// Plans a change.
pub fn decide(known: &Known, change: &Change) -> Decision {
    let mut draft = Draft::new(known);
    let step = match change {
        Change::Add { node, datacenter } => draft.add(node, datacenter),
        Change::Promote { nodes } => draft.promote(nodes),
        Change::Remove { members } => draft.remove(members),
        Change::Replace { node } => draft.replace(node),
        Change::Lead { node } => draft.lead(node),
        Change::Drain { datacenter } => draft.drain(datacenter),
        Change::Return { datacenter } => draft.give_back(datacenter),
    };
    draft.decide(step)
}

/// How a change that its leader did not finish (it was replaced between the two halves) is ended: by going on
/// if a majority of the new voters lives, else by going back if one of the old does.
pub fn settle(known: &Known) -> Option<(ChangeMembers, Unvoting)> {
    let configs = known.membership.get_joint_config();
    let (Some(old), Some(new)) = (configs.first(), configs.last()) else { return None };
    if configs.len() < 2 {
        return None;
    }
    let lives = |voters: &BTreeSet<u64>| known.live(voters) >= majority(voters.len());
    let (goal, unvoting) = match (lives(new), lives(old)) {
        (true, _) => (new, Unvoting::Leave),
        (false, true) => (old, Unvoting::Learn),
        (false, false) => return None,
    };
    Some((ChangeMembers::ReplaceAllVoters(goal.clone()), unvoting))
}

/// What becomes of those who vote no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unvoting {
    Leave,
    Learn,
}

/// More than half.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl Known {
    fn health(&self, id: u64) -> Health {
        self.health.get(&id).copied().unwrap_or_default()
    }

    fn answers(&self, id: u64) -> bool {
        id == self.leader || self.health(id).answers
    }

    /// How many of these answer.
    fn live(&self, voters: &BTreeSet<u64>) -> usize {
        voters.iter().filter(|id| self.answers(**id)).count()
    }

    /// Whether it lacks only what is on its way.
    fn caught_up(&self, id: u64) -> bool {
        let matched = |m: u64| m + LAG_MAX >= self.last;
        id == self.leader || (self.answers(id) && self.health(id).matched.is_some_and(matched))
    }

    fn nodes(&self) -> BTreeMap<u64, LogNode> {
        self.membership.nodes().map(|(id, node)| (*id, node.clone())).collect()
    }

    /// The Raft ids that a node has among the members.
    fn ids_of(&self, node: &Name) -> Vec<u64> {
        self.membership.nodes().filter(|(_, n)| n.node == *node).map(|(id, _)| *id).collect()
    }

    /// The voter that should lead, of those that may and can: in the preferred datacenter first.
    fn successor(&self, voters: &BTreeSet<u64>, drained: &BTreeSet<Name>) -> Option<u64> {
        let at = |id: &u64| self.membership.get_node(id).map(|n| &n.datacenter);
        let can =
            |id: &u64| *id != self.leader && self.caught_up(*id) && at(id).is_some_and(|dc| !drained.contains(dc));
        let matched = |id: &u64| self.health(*id).matched;
        voters.iter().copied().filter(can).max_by_key(|id| (at(id) == self.preferred.as_ref(), matched(id), *id))
    }
}

/// A plan that is being made.
struct Draft<'a> {
    known: &'a Known,
    voters: BTreeSet<u64>,
    nodes: BTreeMap<u64, LogNode>,
    drained: BTreeSet<Name>,
    leader: Option<u64>,
    notes: Vec<String>,
    warnings: Vec<String>,
    waits: Option<String>,
    refused: Option<String>,
}

/// Why something cannot be.
type Impossible = String;

impl<'a> Draft<'a> {
    fn new(known: &'a Known) -> Self {
        Self {
            voters: known.membership.get_joint_config().last().cloned().unwrap_or_default(),
            nodes: known.nodes(),
            drained: known.drained.clone(),
            leader: None,
            notes: Vec::new(),
            warnings: Vec::new(),
            waits: None,
            refused: None,
            known,
        }
    }

    fn add(&mut self, node: &Name, datacenter: &Name) -> Result<Step, Impossible> {
        let candidate = self.candidate(node)?;
        if candidate.datacenter != *datacenter {
            return Err(format!("{node} is in {}, as its certificate says, not in {datacenter}", candidate.datacenter));
        }
        let ids = self.known.ids_of(node);
        if ids.contains(&candidate.raft_id) {
            self.notes.push(format!("{node} is a {} already", self.role(candidate.raft_id)));
            return Ok(Step::Nothing);
        }
        if let Some(old) = ids.first() {
            return Err(format!(
                "{node} is a member already, under the Raft id {old:x}; it has lost its disk and is {:x} now: beam log \
                 replace {node}",
                candidate.raft_id
            ));
        }
        let member = LogNode { node: node.clone(), datacenter: datacenter.clone() };
        self.nodes.insert(candidate.raft_id, member.clone());
        self.notes.push(format!("{node} learns; it votes once it is promoted: beam log promote {node}"));
        Ok(Step::Members(ChangeMembers::AddNodes([(candidate.raft_id, member)].into())))
    }

    fn promote(&mut self, nodes: &[Name]) -> Result<Step, Impossible> {
        let mut learners = BTreeSet::new();
        for node in nodes {
            let ids = self.known.ids_of(node);
            if ids.iter().any(|id| self.voters.contains(id)) {
                self.notes.push(format!("{node} votes already"));
                continue;
            }
            match ids[..] {
                [] => return Err(format!("{node} is not a member: beam log add {node}")),
                [id] => learners.insert(id),
                _ => return Err(format!("{node} is a member under several Raft ids: remove all but one")),
            };
        }
        if learners.is_empty() {
            return Ok(Step::Nothing);
        }
        self.voters.extend(&learners);
        self.holds_majorities(&learners)?;
        if !self.have_caught_up(&learners) {
            return Ok(Step::Wait);
        }
        Ok(Step::Members(ChangeMembers::AddVoterIds(learners)))
    }

    fn remove(&mut self, members: &[MemberName]) -> Result<Step, Impossible> {
        let mut ids = BTreeSet::new();
        for MemberName { node, raft_id } in members {
            let mut of_node = self.known.ids_of(node);
            of_node.retain(|id| raft_id.is_none_or(|asked| asked == *id));
            if of_node.is_empty() {
                let id = raft_id.map_or(String::new(), |id| format!(" under the Raft id {id:x}"));
                self.notes.push(format!("{node} is not a member{id}"));
            }
            ids.extend(of_node);
        }
        if ids.is_empty() {
            return Ok(Step::Nothing);
        }
        let voters: BTreeSet<u64> = self.voters.intersection(&ids).copied().collect();
        self.voters.retain(|id| !ids.contains(id));
        self.nodes.retain(|id, _| !ids.contains(id));
        if self.voters.is_empty() {
            return Err("the last voter cannot be removed: nothing could be written any more".into());
        }
        self.notes.push("a removed node keeps its files, and can be added again".into());
        if voters.is_empty() {
            return Ok(Step::Members(ChangeMembers::RemoveNodes(ids)));
        }
        self.holds_majorities(&BTreeSet::new())?;
        if ids.contains(&self.known.leader) {
            return self.hand_over_first();
        }
        let learners: BTreeSet<u64> = ids.difference(&voters).copied().collect();
        let mut steps = vec![ChangeMembers::RemoveVoters(voters)];
        if !learners.is_empty() {
            steps.push(ChangeMembers::RemoveNodes(learners));
        }
        Ok(Step::Members(ChangeMembers::Batch(steps)))
    }

    fn replace(&mut self, node: &Name) -> Result<Step, Impossible> {
        let candidate = self.candidate(node)?;
        let new = candidate.raft_id;
        let ids = self.known.ids_of(node);
        let old: BTreeSet<u64> = ids.iter().copied().filter(|id| *id != new).collect();
        if old.is_empty() {
            if ids.is_empty() {
                return Err(format!("{node} is not a member: beam log add {node}"));
            }
            self.notes.push(format!("{node} is a {} under the Raft id {new:x}, which is its own", self.role(new)));
            return Ok(Step::Nothing);
        }
        let old_voters: BTreeSet<u64> = self.voters.intersection(&old).copied().collect();
        let member = LogNode { node: node.clone(), datacenter: candidate.datacenter.clone() };
        let learns_already = ids.contains(&new);
        self.nodes.retain(|id, _| !old.contains(id));
        self.nodes.insert(new, member.clone());
        let learns = ChangeMembers::AddNodes([(new, member)].into());
        if old_voters.is_empty() {
            let leave = ChangeMembers::RemoveNodes(old);
            return Ok(Step::Members(ChangeMembers::Batch(vec![learns, leave])));
        }
        self.voters.retain(|id| !old.contains(id));
        self.voters.insert(new);
        self.holds_majorities(&[new].into())?;
        self.notes.push(format!(
            "{node} learns under the Raft id {new:x}, and once it has caught up votes in the place of {}",
            old.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>().join(", ")
        ));
        if !learns_already {
            return Ok(Step::Members(learns));
        }
        if !self.have_caught_up(&[new].into()) {
            return Ok(Step::Wait);
        }
        let old_learners: BTreeSet<u64> = old.difference(&old_voters).copied().collect();
        let mut steps = vec![ChangeMembers::AddVoterIds([new].into()), ChangeMembers::RemoveVoters(old_voters)];
        if !old_learners.is_empty() {
            steps.push(ChangeMembers::RemoveNodes(old_learners));
        }
        Ok(Step::Members(ChangeMembers::Batch(steps)))
    }

    fn lead(&mut self, node: &Name) -> Result<Step, Impossible> {
        let ids = self.known.ids_of(node);
        let Some(id) = ids.iter().copied().find(|id| self.voters.contains(id)) else {
            return Err(match ids.is_empty() {
                true => format!("{node} is not a member: beam log add {node}"),
                false => format!("{node} learns, and only a voter can lead: beam log promote {node}"),
            });
        };
        self.leader = Some(id);
        let datacenter = &self.nodes[&id].datacenter;
        if self.drained.contains(datacenter) {
            return Err(format!(
                "{datacenter} is drained: the leader stays out of it until beam log return {datacenter}"
            ));
        }
        if let Some(preferred) =
            self.known.preferred.as_ref().filter(|p| *p != datacenter && !self.drained.contains(*p))
        {
            self.warnings.push(format!(
                "the topology prefers {preferred}: leadership goes back there once it has been well for a while; to \
                 keep the leader out of it, drain it"
            ));
        }
        if id == self.known.leader {
            self.notes.push(format!("{node} leads already"));
            return Ok(Step::Nothing);
        }
        if !self.known.answers(id) {
            return Err(format!("{node} does not answer"));
        }
        if !self.have_caught_up(&[id].into()) {
            return Ok(Step::Wait);
        }
        Ok(Step::HandOver(id))
    }

    fn drain(&mut self, datacenter: &Name) -> Result<Step, Impossible> {
        self.has_members(datacenter)?;
        let already = !self.drained.insert(datacenter.clone());
        let is_off = |id: &u64| self.nodes.get(id).is_some_and(|n| self.drained.contains(&n.datacenter));
        let rest: BTreeSet<u64> = self.voters.iter().copied().filter(|id| !is_off(id)).collect();
        let (all, need, live) = (self.voters.len(), majority(self.voters.len()), self.known.live(&rest));
        let off = list(self.drained.iter().map(Name::as_str));
        if already {
            self.notes.push(format!("{datacenter} is drained already"));
        } else if live < need {
            self.refused = Some(format!(
                "without {off} nothing can be written: {live} of {all} voters would be left, and {need} must agree"
            ));
        } else if let Some(down) = rest.iter().find(|id| !self.known.answers(**id)) {
            let node = &self.nodes[down].node;
            self.refused =
                Some(format!("{node} is down already, and is not in {off}: bring it back first, or replace it"));
        }
        if let Some(more) = live.checked_sub(need) {
            let nodes = if more == 1 { "node" } else { "nodes" };
            self.notes.push(format!("while {off} is off, {more} more log {nodes} may fail and writes go on"));
        }
        self.notes.push("its log nodes stay voters, and learn and vote as long as they run".into());
        if !already {
            return Ok(Step::Drain(self.drained.clone()));
        }
        if !is_off(&self.known.leader) {
            return Ok(Step::Nothing);
        }
        match self.known.successor(&rest, &self.drained) {
            Some(to) => Ok(Step::HandOver(to)),
            None => {
                let leader = self.name(self.known.leader);
                self.waits = Some(format!("{leader} leads still: no other voter that could lead has caught up"));
                Ok(Step::Wait)
            }
        }
    }

    fn give_back(&mut self, datacenter: &Name) -> Result<Step, Impossible> {
        if !self.drained.remove(datacenter) {
            self.has_members(datacenter)?;
            self.notes.push(format!("{datacenter} is not drained"));
            return Ok(Step::Nothing);
        }
        if self.known.preferred.as_ref() == Some(datacenter) {
            self.notes.push(format!("leadership goes back to {datacenter} once it has been well for a while"));
        }
        Ok(Step::Drain(self.drained.clone()))
    }

    /// The node that a change brings in, if it may come.
    fn candidate(&self, node: &Name) -> Result<&'a Candidate, Impossible> {
        let candidate = match &self.known.candidate {
            Some(Ok(candidate)) => candidate,
            Some(Err(why)) => return Err(format!("{node} does not answer: start it, with an empty disk ({why})")),
            None => return Err(format!("{node} was not asked")),
        };
        match candidate.epoch {
            Some(theirs) if theirs != self.known.epoch => Err(format!(
                "{node} holds a log of epoch {theirs}, and this log is in epoch {}: empty its data directory and start \
                 it again",
                self.known.epoch
            )),
            _ => Ok(candidate),
        }
    }

    /// Checks the new voters; `newcomers` did not vote before.
    fn holds_majorities(&mut self, newcomers: &BTreeSet<u64>) -> Result<(), Impossible> {
        let (all, need, live) = (self.voters.len(), majority(self.voters.len()), self.known.live(&self.voters));
        if live < need {
            let silent = self.voters.iter().filter(|id| !self.known.answers(**id)).map(|id| self.name(*id));
            return Err(format!(
                "nothing could be written any more: of {all} voters {need} must agree, and {live} answer ({} not)",
                list(silent)
            ));
        }
        let before = self.known.membership.get_joint_config().last().cloned().unwrap_or_default();
        let fatal_before: BTreeSet<Name> = self.fatal(&before, &self.known.nodes()).into_keys().collect();
        let fatal = self.fatal(&self.voters, &self.nodes);
        let why = fatal.iter().map(|(datacenter, left)| {
            format!("the loss of {datacenter} would stop all writes: {left} of {all} voters would be left, and {need} must agree")
        });
        let why = why.collect::<Vec<_>>().join("; ");
        if fatal.keys().any(|datacenter| !fatal_before.contains(datacenter)) {
            self.refused = Some(why);
        } else if !fatal.is_empty() {
            self.warnings.push(format!("as before, {why}"));
        } else {
            self.notes.push("the loss of any one datacenter stops nothing".into());
        }
        let voters = if all == 1 { "voter" } else { "voters" };
        self.notes.push(format!("of {all} {voters} {need} must agree: {} may fail", all - need));
        if all.is_multiple_of(2) {
            self.warnings.push(format!("an even number of voters: {all} bear the loss of no more than {} do", all - 1));
        }
        if live < all {
            self.warnings.push(format!("only {live} of the {all} voters answer now"));
        }
        for id in newcomers.iter().filter(|id| self.known.health(**id).full) {
            self.warnings.push(format!("the disk of {} is full", self.name(*id)));
        }
        Ok(())
    }

    /// The datacenters without which these voters have no majority, and how many would be left.
    fn fatal(&self, voters: &BTreeSet<u64>, nodes: &BTreeMap<u64, LogNode>) -> BTreeMap<Name, usize> {
        let mut here: BTreeMap<Name, usize> = BTreeMap::new();
        for node in voters.iter().filter_map(|id| nodes.get(id)) {
            *here.entry(node.datacenter.clone()).or_default() += 1;
        }
        let left = here.into_iter().map(|(datacenter, count)| (datacenter, voters.len() - count));
        left.filter(|(_, left)| *left < majority(voters.len())).collect()
    }

    /// Whether all of these may vote or lead at once; else says how far they are.
    fn have_caught_up(&mut self, ids: &BTreeSet<u64>) -> bool {
        let behind = ids.iter().copied().filter(|id| !self.known.caught_up(*id)).map(|id| {
            let name = self.name(id);
            match self.known.health(id) {
                Health { answers: false, .. } => format!("{name} does not answer"),
                Health { matched, .. } => {
                    format!("{name} has caught up to {} of {}", matched.map_or(0, |m| m + 1), self.known.last + 1)
                }
            }
        });
        let behind: Vec<String> = behind.collect();
        if !behind.is_empty() {
            self.waits = Some(behind.join("; "));
        }
        behind.is_empty()
    }

    /// The leader would not be there any more: another leads first.
    fn hand_over_first(&mut self) -> Result<Step, Impossible> {
        let me = self.name(self.known.leader);
        self.notes.push(format!("{me} leads, and hands over first"));
        match self.known.successor(&self.voters, &self.drained).or(self.known.successor(&self.voters, &BTreeSet::new()))
        {
            Some(to) => {
                self.leader = Some(to);
                Ok(Step::HandOver(to))
            }
            None => {
                self.waits = Some("no voter that stays has caught up, to lead".into());
                Ok(Step::Wait)
            }
        }
    }

    fn has_members(&self, datacenter: &Name) -> Result<(), Impossible> {
        let all: BTreeSet<&Name> = self.nodes.values().map(|n| &n.datacenter).collect();
        match all.contains(datacenter) {
            true => Ok(()),
            false => {
                Err(format!("no log node is in {datacenter}; they are in {}", list(all.iter().map(|n| n.as_str()))))
            }
        }
    }

    fn name(&self, id: u64) -> String {
        let node = self.nodes.get(&id).or(self.known.membership.get_node(&id));
        node.map_or(format!("{id:x}"), |n| n.node.to_string())
    }

    fn role(&self, id: u64) -> &'static str {
        if self.voters.contains(&id) { "voter" } else { "learner" }
    }

    fn decide(mut self, step: Result<Step, Impossible>) -> Decision {
        let (mut step, impossible) = match step {
            Ok(step) => (step, None),
            Err(why) => (Step::Nothing, Some(why)),
        };
        // Drained datacenters and the leader may change meanwhile, members not.
        if self.known.membership.get_joint_config().len() > 1 && matches!(step, Step::Members(_)) {
            self.waits = Some("an earlier change of members is being finished".into());
            step = Step::Wait;
        }
        let before = &self.known.membership;
        let voters_before: BTreeSet<u64> = before.voter_ids().collect();
        let plan = Plan {
            at: LogIndex(self.known.at),
            before: self.members(&self.known.nodes(), &voters_before),
            after: self.members(&self.nodes, &self.voters),
            drained: self.drained.iter().cloned().collect(),
            leader: self.leader.and_then(|id| self.nodes.get(&id)).map(|n| n.node.clone()),
            nothing_to_do: step == Step::Nothing && impossible.is_none(),
            notes: self.notes,
            warnings: self.warnings,
            waits: self.waits,
            refused: self.refused,
            impossible,
        };
        Decision { plan, step }
    }

    fn members(&self, nodes: &BTreeMap<u64, LogNode>, voters: &BTreeSet<u64>) -> Vec<Member> {
        let member = |(id, node): (&u64, &LogNode)| Member {
            node: node.node.clone(),
            datacenter: node.datacenter.clone(),
            raft_id: *id,
            voter: voters.contains(id),
            matched: self.known.health(*id).matched.map(LogIndex),
        };
        let mut members: Vec<Member> = nodes.iter().map(member).collect();
        members.sort_by(|a, b| (&a.datacenter, &a.node, a.raft_id).cmp(&(&b.datacenter, &b.node, b.raft_id)));
        members
    }
}

fn list<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    names.map(|n| n.as_ref().to_owned()).collect::<Vec<_>>().join(", ")
}

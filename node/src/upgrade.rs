//! Putting a newer command format in force: only when every node that runs can read it.
//!
//! A format comes into force by an entry of the log, at one index for everybody; a view that does not know it stops
//! there. So first every node that DNS names, and every member of the log, is asked what it reads: by the hello of a fresh
//! connection, which a node says before anything else. Which format is in force is asked of the views, who have read it in
//! the log.

use crate::remote::log::RemoteLog;
use beam_wire::command::Command;
use beam_wire::env::Env;
use beam_wire::message::view::{ViewRules, ViewRulesReply};
use beam_wire::quic::{Directory, Lane, Peers};
use beam_wire::{CallError, Name, Role, Version};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What the nodes said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The newest format that each reads, or why it does not say.
    pub reads: BTreeMap<Name, Result<u16, String>>,
    /// The format in force, as the view says that has read furthest.
    pub in_force: Option<u16>,
}

/// Why a format is not put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefused {
    /// Nobody knows.
    #[error("no view says which format is in force: the cluster must serve before it is upgraded")]
    InForceUnknown,
    /// There is nothing to do, or no way back.
    #[error("format {in_force} is in force already: formats only rise, by one")]
    NotNewer {
        /// The format in force.
        in_force: u16,
    },
    /// Formats come one after the other.
    #[error("format {in_force} is in force: put {} in force next, then go on", in_force + 1)]
    Skips {
        /// The format in force.
        in_force: u16,
    },
    /// These would stop.
    #[error(
        "these nodes read formats up to an older one only, and their views would stop: {nodes}. Install a newer beam on \
         them first"
    )]
    Older {
        /// Their names and formats.
        nodes: String,
    },
    /// These may be older.
    #[error(
        "these nodes do not say what they read: {nodes}. If they are gone for good, or known to be new enough, say --force"
    )]
    Silent {
        /// Their names, and why.
        nodes: String,
    },
}

/// Asks every node.
pub async fn survey(env: &Env, peers: &Peers, directory: &Directory, log: &RemoteLog) -> Survey {
    let mut addresses = BTreeMap::new();
    for role in [Role::Log, Role::View, Role::Api] {
        addresses.extend(directory.nodes_everywhere(role).into_iter().map(|node| (node.node.clone(), node)));
    }
    let mut survey = Survey::default();
    let deadline = env.now() + ANSWER_WITHIN;
    // Members that DNS does not name any more may come back.
    let infos = join_all(log.nodes().iter().map(|node| log.info(&node.node, deadline))).await;
    for member in infos.into_iter().flatten().flat_map(|info| info.members) {
        if !addresses.contains_key(&member.node) {
            survey.reads.insert(member.node, Err("DNS names no address of it".into()));
        }
    }
    let asked = join_all(addresses.into_iter().map(|(name, node)| async move {
        let asking = async {
            let peer = peers.peer(&node.target(), Lane::Calls).await?;
            let hello = &peer.info().hello;
            let rules: Option<ViewRulesReply> = match hello.roles.iter().any(|role| *role == Role::View.to_string()) {
                true => Some(peer.ask(&ViewRules, deadline).await?),
                false => None,
            };
            Ok::<_, CallError>((hello.format, rules))
        };
        (name, env.timeout_at(deadline, asking).await.unwrap_or_else(|_| Err(silent())))
    }))
    .await;
    let mut furthest = None;
    for (name, answer) in asked {
        let reads = match answer {
            Ok((reads, rules)) => {
                if let Some(ViewRulesReply { at, format: Some(format) }) = rules {
                    furthest = furthest.max(Some((at, format)));
                }
                Ok(reads)
            }
            Err(e) => Err(e.to_string()),
        };
        survey.reads.insert(name, reads);
    }
    survey.in_force = furthest.map(|(_, format)| format);
    survey
}

fn silent() -> CallError {
    CallError::elsewhere(beam_wire::Code::Unavailable, "it does not answer")
}

/// Whether a format may be put in force.
pub fn decide(survey: &Survey, wanted: u16) -> Result<(), UpgradeRefused> {
    let in_force = survey.in_force.ok_or(UpgradeRefused::InForceUnknown)?;
    if wanted <= in_force {
        return Err(UpgradeRefused::NotNewer { in_force });
    }
    if wanted - in_force > 1 {
        return Err(UpgradeRefused::Skips { in_force });
    }
    let older = survey.reads.iter().filter_map(|(name, reads)| Some((name, reads.as_ref().ok()?)));
    let older: Vec<String> =
        older.filter(|(_, reads)| **reads < wanted).map(|(name, reads)| format!("{name} (up to {reads})")).collect();
    if !older.is_empty() {
        return Err(UpgradeRefused::Older { nodes: older.join(", ") });
    }
    let silent = survey.reads.iter().filter_map(|(name, reads)| Some(format!("{name} ({})", reads.as_ref().err()?)));
    let silent: Vec<String> = silent.collect();
    if silent.is_empty() { Ok(()) } else { Err(UpgradeRefused::Silent { nodes: silent.join(", ") }) }
}

impl UpgradeRefused {
    /// Whether an operator who knows better may go on all the same.
    pub fn can_be_forced(&self) -> bool {
        matches!(self, UpgradeRefused::Older { .. } | UpgradeRefused::Silent { .. })
    }
}

/// Puts a format in force. Twice does no harm.
pub async fn upgrade(log: &RemoteLog, wanted: u16, deadline: Instant) -> Result<Version, CallError> {
    let versions = log.append(vec![Command::Upgrade(wanted).encode()], deadline).await?;
    Ok(versions[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_comes_into_force_when_all_can_read_it() {
        let of = |in_force, reads: &[(&str, Result<u16, &str>)]| Survey {
            in_force,
            reads: reads.iter().map(|(n, r)| (Name::new(*n).unwrap(), r.map_err(str::to_owned))).collect(),
        };
        let new = [("a", Ok(2)), ("b", Ok(3))];
        assert_eq!(decide(&of(Some(1), &new), 2), Ok(()));
        assert_eq!(decide(&of(None, &new), 2), Err(UpgradeRefused::InForceUnknown));
        assert_eq!(decide(&of(Some(2), &new), 2), Err(UpgradeRefused::NotNewer { in_force: 2 }));
        assert_eq!(decide(&of(Some(2), &new), 1), Err(UpgradeRefused::NotNewer { in_force: 2 }));
        assert_eq!(decide(&of(Some(1), &new), 3), Err(UpgradeRefused::Skips { in_force: 1 }));
        let older = decide(&of(Some(1), &[("a", Ok(1)), ("b", Err("gone"))]), 2).unwrap_err();
        assert_eq!(older, UpgradeRefused::Older { nodes: "a (up to 1)".into() });
        let silent = decide(&of(Some(1), &[("a", Ok(2)), ("b", Err("gone"))]), 2).unwrap_err();
        assert_eq!(silent, UpgradeRefused::Silent { nodes: "b (gone)".into() });
        assert!(older.can_be_forced() && silent.can_be_forced());
        assert!(!UpgradeRefused::Skips { in_force: 1 }.can_be_forced());
    }
}

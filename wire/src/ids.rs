//! The names of things: nodes, versions of the database, transactions.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;

/// Where an entry lies in the log. A log index names a version of the whole database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The index after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the lives of a cluster: it rises when a cluster is recovered from a lost majority or
/// restored. Indexes of different epochs are not comparable. The first epoch is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One version of the whole database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The epoch that `index` belongs to.
    pub epoch: Epoch,
    /// All entries up to and including this one.
    pub index: LogIndex,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.index)
    }
}

/// How a reader names the version that it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// Linearizable: at least everything that was acknowledged before the call began.
    Latest,
    /// The newest version that views of the api node's datacenter cover.
    Recent,
    /// This version or a newer one: what a session uses, so that it never goes back.
    AtLeast(Version),
    /// Exactly this version.
    Exact(Version),
}

/// The name of a cluster, datacenter, node or client: a DNS label of 1 to 63 characters out of
/// `a-z`, `0-9` and `-`, which neither begins nor ends with `-`. Cheap to clone, and a name of up to 23
/// characters takes no memory of its own: each entry of the log has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(SmolStr);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name: use 1 to 63 characters of a-z, 0-9 and '-', with no '-' at either end")]
pub struct NameError {
    /// The text that was refused.
    pub text: String,
}

impl Name {
    /// Checks that `text` is a DNS label in lower case.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        Self::check(SmolStr::from(text.into()))
    }

    fn check(text: SmolStr) -> Result<Self, NameError> {
        let label = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let fits = (1..=63).contains(&text.len()) && text.bytes().all(label);
        if fits && !text.starts_with('-') && !text.ends_with('-') {
            Ok(Self(text))
        } else {
            Err(NameError { text: text.into() })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::check(SmolStr::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// Where a proposal came from. It is unique to the proposal, so that a log node can match an entry
/// with the client that waits for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The log node that first took the proposal.
    pub node: Name,
    /// Drawn at random at each start of that node.
    pub boot: u64,
    /// Counts that node's proposals since its start.
    pub sequence: u64,
}

/// Makes a transaction exactly once, however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionId {
    /// An index that was known when the id was made. It stays through every retry whose outcome is
    /// unknown.
    pub born: LogIndex,
    /// 128 random bits.
    pub random: u128,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "va", "log-va-1", "0", &"x".repeat(63)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert_eq!(Name::new(bad), Err(NameError { text: bad.into() }));
        }
    }
}

//! What became of the last W entries, for writers who ask.

use beam_wire::LogIndex;
use beam_wire::command::{Rejection, Verdict};
use std::collections::VecDeque;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has no data.
    Skip,
    /// It has.
    Judged(Verdict),
}

/// Outcomes by index, in eight bytes each, no more than the window.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// The index of the first code.
    first: u64,
    codes: VecDeque<u64>,
}

/// How many outcomes are kept while no genesis has said W.
const WINDOW_BEFORE_GENESIS: u64 = 1024;

impl Outcomes {
    /// Adds the outcome of the next index, and drops what is older than the window.
    pub fn push(&mut self, index: LogIndex, outcome: Outcome, window: Option<u64>) {
        assert!(self.push_code(index, outcome.code(), window), "outcomes are added in order");
    }

    /// As [`Outcomes::push`], from a checkpoint; false if it is not the next, or no code.
    #[must_use]
    pub fn push_code(&mut self, index: LogIndex, code: u64, window: Option<u64>) -> bool {
        if self.codes.is_empty() {
            self.first = index.0;
        }
        if index.0 != self.first + self.codes.len() as u64 || Outcome::from_code(code).is_none() {
            return false;
        }
        self.codes.push_back(code);
        while self.codes.len() as u64 > window.unwrap_or(WINDOW_BEFORE_GENESIS) {
            self.codes.pop_front();
            self.first += 1;
        }
        true
    }

    /// What became of an entry; none if it is out of the window or not judged yet.
    pub fn get(&self, index: LogIndex) -> Option<Outcome> {
        self.code(index).and_then(Outcome::from_code)
    }

    /// The code of an index, as a checkpoint stores it.
    pub fn code(&self, index: LogIndex) -> Option<u64> {
        self.codes.get(usize::try_from(index.0.checked_sub(self.first)?).ok()?).copied()
    }
}

/// The kind is in the highest four bits, an index or reason in the rest. On disk: a promise.
impl Outcome {
    fn code(self) -> u64 {
        let (kind, rest) = match self {
            Outcome::Skip => (0, 0),
            Outcome::Judged(Verdict::Committed) => (1, 0),
            Outcome::Judged(Verdict::Conflict { with }) => (2, with.0),
            Outcome::Judged(Verdict::Duplicate { of }) => (3, of.0),
            Outcome::Judged(Verdict::Expired) => (4, 0),
            Outcome::Judged(Verdict::Rejected(rejection)) => (5, reason(rejection)),
        };
        kind << 60 | rest
    }

    /// What a code says; none if it is no code of ours.
    pub fn from_code(code: u64) -> Option<Outcome> {
        let index = LogIndex(code & ((1 << 60) - 1));
        Some(match code >> 60 {
            0 => Outcome::Skip,
            1 => Outcome::Judged(Verdict::Committed),
            2 => Outcome::Judged(Verdict::Conflict { with: index }),
            3 => Outcome::Judged(Verdict::Duplicate { of: index }),
            4 => Outcome::Judged(Verdict::Expired),
            5 => Outcome::Judged(Verdict::Rejected(REASONS.into_iter().find(|r| reason(*r) == index.0)?)),
            _ => return None,
        })
    }
}

const REASONS: [Rejection; 7] = [
    Rejection::Malformed,
    Rejection::FormatNotInForce,
    Rejection::WrongEpoch,
    Rejection::BornAhead,
    Rejection::ReadAhead,
    Rejection::BeforeGenesis,
    Rejection::SecondGenesis,
];

fn reason(rejection: Rejection) -> u64 {
    match rejection {
        Rejection::Malformed => 0,
        Rejection::FormatNotInForce => 1,
        Rejection::WrongEpoch => 2,
        Rejection::BornAhead => 3,
        Rejection::ReadAhead => 4,
        Rejection::BeforeGenesis => 5,
        Rejection::SecondGenesis => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_codes() {
        let judged = Outcome::Judged;
        let golden = [
            (Outcome::Skip, 0),
            (judged(Verdict::Committed), 0x1000_0000_0000_0000),
            (judged(Verdict::Conflict { with: LogIndex(0x1234) }), 0x2000_0000_0000_1234),
            (judged(Verdict::Duplicate { of: LogIndex(0x1234) }), 0x3000_0000_0000_1234),
            (judged(Verdict::Expired), 0x4000_0000_0000_0000),
            (judged(Verdict::Rejected(Rejection::Malformed)), 0x5000_0000_0000_0000),
            (judged(Verdict::Rejected(Rejection::FormatNotInForce)), 0x5000_0000_0000_0001),
            (judged(Verdict::Rejected(Rejection::WrongEpoch)), 0x5000_0000_0000_0002),
            (judged(Verdict::Rejected(Rejection::BornAhead)), 0x5000_0000_0000_0003),
            (judged(Verdict::Rejected(Rejection::ReadAhead)), 0x5000_0000_0000_0004),
            (judged(Verdict::Rejected(Rejection::BeforeGenesis)), 0x5000_0000_0000_0005),
            (judged(Verdict::Rejected(Rejection::SecondGenesis)), 0x5000_0000_0000_0006),
        ];
        for (outcome, code) in golden {
            assert_eq!(outcome.code(), code);
            assert_eq!(Outcome::from_code(code), Some(outcome));
        }
        assert_eq!(Outcome::from_code(0x5000_0000_0000_0007), None);
        assert_eq!(Outcome::from_code(0x6000_0000_0000_0000), None);
    }

    #[test]
    fn no_more_than_the_window_is_kept() {
        let mut outcomes = Outcomes::default();
        for i in 7..=20 {
            outcomes.push(LogIndex(i), Outcome::Judged(Verdict::Duplicate { of: LogIndex(i - 1) }), Some(3));
        }
        let of = |i| Some(Outcome::Judged(Verdict::Duplicate { of: LogIndex(i) }));
        let found = [17, 18, 19, 20, 21].map(|i| outcomes.get(LogIndex(i)));
        assert_eq!(found, [None, of(17), of(18), of(19), None]);
    }
}

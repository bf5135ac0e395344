//! Whether transactions that read and append to lists can have happened one after the other, in an order in which
//! each comes after all that had ended before it began.
//!
//! It knows nothing of logs and versions: the order is inferred from the lists that were read (Kingsbury, Alvaro: Elle,
//! 2020). Who read a list saw whoever appended what it holds, and did not see whoever appended what comes next; a
//! circle of such relations, and of times, is a contradiction. That only whole prefixes may be seen, nothing twice,
//! and nothing of transactions that were given up, is checked on the way.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was committed, and that was known at this time.
    Committed(Duration),
    /// It changed nothing.
    GivenUp,
    /// Nobody knows.
    Unknown,
}

/// One transaction.
#[derive(Clone, Debug)]
pub struct Append {
    /// When it began.
    pub began: Duration,
    /// What became of it.
    pub ended: Ended,
    /// The lists as it read them; empty if that is not known.
    pub read: BTreeMap<u64, Vec<String>>,
    /// What it appended; no two transactions append the same.
    pub appended: Vec<(u64, String)>,
}

/// Checks a history; `last` are the lists at the very end.
pub fn check(history: &[Append], last: &BTreeMap<u64, Vec<String>>) -> Result<()> {
    let mut writer: HashMap<(u64, &str), usize> = HashMap::new();
    for (number, append) in history.iter().enumerate() {
        for (list, value) in &append.appended {
            ensure!(writer.insert((*list, value), number).is_none(), "the story appends {value} to {list} twice");
        }
    }
    for (list, values) in last {
        let mut sorted = values.clone();
        sorted.sort_unstable();
        sorted.dedup();
        ensure!(sorted.len() == values.len(), "list {list} holds something twice: {values:?}");
        for value in values {
            let number = writer.get(&(*list, value.as_str())).with_context(|| format!("nobody appended {value}"))?;
            ensure!(history[*number].ended != Ended::GivenUp, "{value} in {list} is of a transaction that failed");
        }
    }
    for append in history {
        for (list, value) in &append.appended {
            let held = last.get(list).is_some_and(|values| values.contains(value));
            ensure!(held || !matches!(append.ended, Ended::Committed(_)), "{value} was committed, and {list} lacks it");
        }
        for (list, values) in &append.read {
            let all = last.get(list).map(Vec::as_slice).unwrap_or_default();
            ensure!(all.starts_with(values), "list {list} was read as {values:?}, which is no beginning of {all:?}");
        }
        // One is there as a whole, or not at all.
        let held = append.appended.iter().filter(|(list, value)| last.get(list).is_some_and(|v| v.contains(value)));
        let held = held.count();
        ensure!(held == 0 || held == append.appended.len(), "half of {append:?} is there");
    }
    no_circle(history, &edges(history, last, &writer))
}

/// Who must come before whom.
fn edges(
    history: &[Append],
    last: &BTreeMap<u64, Vec<String>>,
    writer: &HashMap<(u64, &str), usize>,
) -> Vec<Vec<usize>> {
    let mut after = vec![Vec::new(); history.len()];
    let mut edge = |from: usize, to: usize| {
        if from != to {
            after[from].push(to);
        }
    };
    for (list, values) in last {
        for pair in values.windows(2) {
            edge(writer[&(*list, pair[0].as_str())], writer[&(*list, pair[1].as_str())]);
        }
    }
    for (number, append) in history.iter().enumerate().filter(|(_, append)| append.ended != Ended::GivenUp) {
        for (list, seen) in &append.read {
            if let Some(newest) = seen.last() {
                edge(writer[&(*list, newest.as_str())], number);
            }
            if let Some(next) = last.get(list).and_then(|values| values.get(seen.len())) {
                edge(number, writer[&(*list, next.as_str())]);
            }
        }
        let Ended::Committed(ended) = append.ended else { continue };
        for (later, _) in history.iter().enumerate().filter(|(_, other)| other.began > ended) {
            if history[later].ended != Ended::GivenUp {
                edge(number, later);
            }
        }
    }
    after
}

fn no_circle(history: &[Append], after: &[Vec<usize>]) -> Result<()> {
    let mut before = vec![0; history.len()];
    after.iter().flatten().for_each(|to| before[*to] += 1);
    let mut free: Vec<usize> = (0..history.len()).filter(|n| before[*n] == 0).collect();
    let mut ordered = 0;
    while let Some(number) = free.pop() {
        ordered += 1;
        for to in &after[number] {
            before[*to] -= 1;
            if before[*to] == 0 {
                free.push(*to);
            }
        }
    }
    let stuck: Vec<_> =
        history.iter().zip(&before).filter(|(_, before)| **before > 0).map(|(a, _)| a).take(4).collect();
    ensure!(ordered == history.len(), "{} transactions go in a circle, among them {stuck:#?}", history.len() - ordered);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// From, to, what was read of list 1 and 2 (`-` if it was not), what was appended to which.
    fn append(began: u64, ended: u64, read: [&str; 2], appended: &[(u64, &str)]) -> Append {
        let lists = (1..).zip(read).filter(|(_, values)| *values != "-");
        let read = lists.map(|(list, values)| (list, values.split_whitespace().map(str::to_owned).collect())).collect();
        let appended = appended.iter().map(|(list, value)| (*list, value.to_string())).collect();
        Append { began: at(began), ended: Ended::Committed(at(ended)), read, appended }
    }

    fn lists(one: &str, two: &str) -> BTreeMap<u64, Vec<String>> {
        [(1, one), (2, two)].map(|(n, v)| (n, v.split_whitespace().map(str::to_owned).collect())).into()
    }

    #[test]
    fn what_can_have_happened_is_believed() {
        let history = [
            append(0, 10, ["", "-"], &[(1, "a")]),
            append(5, 20, ["a", ""], &[(1, "b"), (2, "x")]),
            append(15, 30, ["a b", "x"], &[]),
        ];
        check(&history, &lists("a b", "x")).unwrap();
    }

    #[test]
    fn every_anomaly_is_found() {
        let lost = [append(0, 10, ["", "-"], &[(1, "a")]), append(5, 20, ["", "-"], &[(1, "b")])];
        let skew = [append(0, 10, ["", "-"], &[(2, "x")]), append(0, 10, ["-", ""], &[(1, "a")])];
        let stale = [append(0, 10, ["", "-"], &[(1, "a")]), append(11, 20, ["", "-"], &[])];
        let failed = [Append { ended: Ended::GivenUp, ..append(0, 10, ["", "-"], &[(1, "a")]) }];
        let fork = [append(0, 10, ["", "-"], &[(1, "a")]), append(0, 10, ["b", "-"], &[(1, "b")])];
        let cases = [
            (&lost[..], lists("a", ""), "lacks it"),
            (&lost[..], lists("a b", ""), "circle"),
            (&skew[..], lists("a", "x"), "circle"),
            (&stale[..], lists("a", ""), "circle"),
            (&failed[..], lists("a", ""), "failed"),
            (&fork[..], lists("a b", ""), "no beginning"),
            (&lost[..1], lists("a a", ""), "twice"),
        ];
        for (history, last, why) in cases {
            let found = check(history, &last).unwrap_err().to_string();
            assert!(found.contains(why), "{why}: {found}");
        }
        // Nobody knows whether it happened, so both are right.
        let unknown = [Append { ended: Ended::Unknown, ..append(0, 0, ["", "-"], &[(1, "a")]) }];
        check(&unknown, &lists("a", "")).unwrap();
        check(&unknown, &lists("", "")).unwrap();
    }
}

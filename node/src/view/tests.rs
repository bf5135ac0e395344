//! The view against its model.

use super::apply::{Applier, ApplyOptions, Held, Run};
use super::keys::Order;
use super::lookup::{At, Lookup, LookupError, Request};
use super::model::{self, Attempt, Model};
use super::outcomes::Outcome;
use super::scan::{self, Scan};
use super::store::{Store, StoreOptions};
use super::sums::{self, Cells, Missed, Tally};
use super::terms;
use beam_wire::fact::{GraphPattern, Pattern};
use beam_wire::message::log::Entry;
use beam_wire::message::view::Served;
use beam_wire::{Code, Fact, LogIndex, Range, Space, TermId, TransactionId};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

mod faults;
mod versions;

pub(super) fn all(range: Range) -> Vec<Served> {
    Space::ALL.iter().map(|space| Served { space: *space, range }).collect()
}

fn open(directory: &Path, serves: &[Served], checkpoint_indexes: u64) -> (Store, Applier) {
    open_with(directory, serves, checkpoint_indexes, u64::MAX)
}

pub(super) fn open_with(
    directory: &Path,
    serves: &[Served],
    checkpoint_indexes: u64,
    history: u64,
) -> (Store, Applier) {
    let options = StoreOptions { cache_bytes: 1 << 20, memtable_bytes: 1 << 20, write_bytes: 4 << 20 };
    let store = Store::open(directory, &model::cluster(), serves, &options).unwrap();
    let applier = Applier::open(store.clone(), apply_options(serves, checkpoint_indexes, history)).unwrap();
    (store, applier)
}

pub(super) fn apply_options(serves: &[Served], checkpoint_indexes: u64, history: u64) -> ApplyOptions {
    ApplyOptions {
        cluster: model::cluster(),
        serves: serves.to_vec(),
        format: beam_wire::command::FORMAT,
        history,
        checkpoint_indexes,
    }
}

pub(super) fn run(entries: &[Entry], next: LogIndex, until: u64) -> Run {
    Run { first: next, entries: entries[next.0 as usize - 1..until as usize].to_vec() }
}

fn look_up(store: &Store, applier: &Applier, held: &Held, request: &Request<'_>) -> Vec<Vec<Fact>> {
    let mut lookup = Lookup::open(store, applier.shared(), held, request).unwrap();
    let mut found = vec![Vec::new(); request.patterns.len()];
    loop {
        let slice = lookup.slice().unwrap();
        for (number, fact) in slice.facts {
            found[number as usize].push(fact);
        }
        if slice.done {
            return found;
        }
    }
}

/// Compares a batch of look-ups at one version with the model.
pub(super) fn compare(
    model: &Model,
    store: &Store,
    applier: &Applier,
    serves: &[Served],
    index: u64,
    chance: &mut StdRng,
) {
    let held = Held::new(serves);
    for served in serves.iter().filter(|served| served.space != Space::Term) {
        let mut range = served.range;
        if chance.random_bool(0.3) {
            range.last.0 = range.first.0 + (range.last.0 - range.first.0) / 3;
        }
        let patterns: Vec<Pattern> = (0..20).map(|_| model::pattern(chance)).collect();
        let at = At::Exact(model::version(index));
        let request = Request { at, space: served.space, range, patterns: &patterns, limit: u64::MAX };
        for (pattern, found) in patterns.iter().zip(look_up(store, applier, &held, &request)) {
            let set: BTreeSet<Fact> = found.iter().copied().collect();
            assert_eq!(set.len(), found.len(), "a fact was found twice");
            assert_eq!(set, model.look_up(index, pattern, served.space, &range), "{pattern:?} at {index}");
        }
    }
}

/// The sums of all facts at a version, as the model has them. It has no texts.
pub(super) fn summed(model: &Model, cells: &Cells, index: u64) -> Vec<Tally> {
    let mut inserted: BTreeMap<Fact, LogIndex> = BTreeMap::new();
    for (version, facts) in (0..).zip(&model.versions[..=index as usize]) {
        inserted.retain(|fact, _| facts.contains(fact));
        for fact in facts {
            inserted.entry(*fact).or_insert(LogIndex(version));
        }
    }
    let mut tallies = cells.empty();
    for (fact, inserted) in inserted {
        for space in [Space::Subject, Space::Object] {
            let point = fact.point(space);
            if cells.holds(space, point) {
                let tally = &mut tallies[cells.number(space, point)];
                tally.count += 1;
                tally.sum += sums::of_fact(&fact, inserted);
            }
        }
    }
    tallies
}

/// What is kept while entries are applied is what the model says, at every version that can still be told, and what lies
/// on the disk.
pub(super) fn check_sums(model: &Model, store: &Store, applier: &Applier) {
    let applied = applier.applied().progress.applied;
    let kept = applier.shared().sums();
    let cells = kept.cells();
    let facts = 0..cells.of_space(Space::Object).end;
    let mut told = 0;
    for index in 0..=applied.0 {
        match kept.as_of(LogIndex(index)) {
            Ok(found) => {
                assert_eq!(found.tallies[facts.clone()], summed(model, cells, index)[facts.clone()], "at {index}");
                told += 1;
            }
            Err(Missed::Before(since)) => assert!(index < since.0),
            // A restarted view has not judged all again.
            Err(Missed::Ahead) => assert!(applier.applied().judged < applied),
        }
    }
    assert!(told > 0 || applier.applied().judged < applied, "nothing is told");
    let (tallies, counts) = scan::tally(store, cells).unwrap();
    assert_eq!(tallies, kept.tallies());
    assert_eq!(counts.values().sum::<u64>(), applier.applied().progress.facts);
    for ((predicate, named), count) in counts {
        assert_eq!(store.count(&predicate, named).unwrap(), count);
    }
    let mut scan = Scan::of(store.snapshot(), cells.clone(), (LogIndex(0), applied));
    while scan.slice().unwrap().is_some() {}
    assert_eq!(scan.difference(kept.tallies()), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Random logs, cut into random runs, restarted now and then: everything that can be read is
    /// what the model says, at every version, in every cut.
    #[test]
    fn a_view_answers_as_the_model(seed: u64, length in 1usize..120, cut in 0u32..3, every in 1u64..40) {
        let model = Model::random(seed, length);
        let mut chance = StdRng::seed_from_u64(seed ^ 1);
        let directory = tempfile::tempdir().unwrap();
        let serves = all(if cut == 0 { Range::ALL } else { Range::partition(cut - 1, 2) });
        let (mut store, mut applier) = open(directory.path(), &serves, every);
        while applier.applied().progress.applied.0 < length as u64 {
            let next = applier.next();
            let until = (next.0 + chance.random_range(0..12)).min(length as u64);
            applier.apply(&run(&model.entries, next, until)).unwrap();
            if chance.random_bool(0.2) {
                drop((store, applier));
                (store, applier) = open(directory.path(), &serves, every);
                check_sums(&model, &store, &applier);
            }
            let applied = applier.applied().progress.applied.0;
            if let Some(genesis) = model.genesis_at().filter(|genesis| *genesis <= applied) {
                let index = chance.random_range(genesis..=applied);
                compare(&model, &store, &applier, &serves, index, &mut chance);
            }
        }
        check_sums(&model, &store, &applier);
        if let Some(genesis) = model.genesis_at() {
            for index in genesis..=length as u64 {
                compare(&model, &store, &applier, &serves, index, &mut chance);
            }
            // Every term of every fact that was ever inserted can be told.
            let snapshot = store.snapshot();
            let held = Held::new(&serves);
            for id in model.versions.iter().flatten().flat_map(|f| [f.subject, f.predicate, f.object]) {
                if held.contains(Space::Term, id.point()) && !id.is_inline() {
                    let term = terms::read(&snapshot, &id).unwrap();
                    prop_assert_eq!(term.map(|term| TermId::of(&term)), Some(id));
                }
            }
        }
    }

    /// Verdicts come from the log alone: views that hold different ranges, were restarted at
    /// different places and cut the log into other runs agree with one another and the model.
    #[test]
    fn views_with_different_ranges_reach_equal_verdicts(seed: u64, length in 1usize..150, every in 1u64..60) {
        let model = Model::random_with_epochs(seed, length);
        let mut chance = StdRng::seed_from_u64(seed ^ 2);
        let mut states = Vec::new();
        for part in 0..3 {
            let directory = tempfile::tempdir().unwrap();
            let serves = all(Range::partition(part, 3));
            let (mut store, mut applier) = open(directory.path(), &serves, every);
            while applier.next().0 <= length as u64 {
                let until = (applier.next().0 + chance.random_range(0..12)).min(length as u64);
                let first = applier.next().0;
                applier.apply(&run(&model.entries, applier.next(), until)).unwrap();
                for index in (first..=until).rev().take(2) {
                    let outcome = model.outcomes[index as usize - 1].map_or(Outcome::Skip, Outcome::Judged);
                    prop_assert_eq!(applier.shared().outcomes().get(LogIndex(index)), Some(outcome), "index {}", index);
                }
                if chance.random_bool(0.1) {
                    drop((store, applier));
                    (store, applier) = open(directory.path(), &serves, every);
                }
            }
            let slots = applier.verdicts().slots().clone();
            let chunks: Vec<_> = (0..slots.chunks()).map(|i| slots.chunk(i)).collect();
            let ids: Vec<_> = applier.verdicts().committed_after(LogIndex(0)).copied().collect();
            let sum = applier.verdicts().sum();
            states.push((applier.verdicts().rules().cloned(), chunks, ids, sum));
            drop((store, applier));
            // One that is made from a checkpoint has the same as one that went on.
            let (_store, mut applier) = open(directory.path(), &serves, every);
            if applier.next().0 <= length as u64 {
                applier.apply(&run(&model.entries, applier.next(), length as u64)).unwrap();
            }
            prop_assert_eq!(applier.verdicts().sum(), sum);
            prop_assert_eq!(applier.shared().sums().as_of(LogIndex(length as u64)).map(|s| s.verdicts), Ok(sum));
        }
        prop_assert!(states.windows(2).all(|pair| pair[0] == pair[1]));
    }

    /// A torn journal, as a power loss leaves it: the view is at an earlier batch, whole, and
    /// resumes from there.
    #[test]
    fn a_torn_journal_leaves_whole_batches(seed: u64, length in 10usize..80, cut in 0.0f64..1.0) {
        let model = Model::random(seed, length);
        let mut chance = StdRng::seed_from_u64(seed ^ 3);
        let directory = tempfile::tempdir().unwrap();
        let serves = all(Range::ALL);
        let (store, mut applier) = open(directory.path(), &serves, 7);
        while applier.next().0 <= length as u64 {
            let until = (applier.next().0 + chance.random_range(0..5)).min(length as u64);
            applier.apply(&run(&model.entries, applier.next(), until)).unwrap();
        }
        drop((store, applier));
        let journal = directory.path().join("facts/0.jnl");
        let bytes = std::fs::read(&journal).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        std::fs::File::options().write(true).open(&journal).unwrap().set_len((end as f64 * cut) as u64).unwrap();

        let (store, mut applier) = open(directory.path(), &serves, 7);
        check_sums(&model, &store, &applier);
        let applied = applier.applied().progress.applied.0;
        if model.genesis_at().is_some_and(|genesis| genesis <= applied) {
            compare(&model, &store, &applier, &serves, applied, &mut chance);
        }
        applier.apply(&run(&model.entries, applier.next(), length as u64)).unwrap();
        if let Some(genesis) = model.genesis_at() {
            compare(&model, &store, &applier, &serves, chance.random_range(genesis..=length as u64), &mut chance);
        }
    }
}

/// A view restarts behind its facts, at its checkpoint. If an epoch began in between that it knows nothing of, it
/// has applied what the log has lost.
#[test]
fn a_view_that_knows_more_than_the_log_has_kept_stops() {
    let mut old = Model::new();
    old.begin(1000);
    let write = |n: u64, epoch| Attempt {
        id: TransactionId { born: LogIndex(n), random: u128::from(n) },
        read_index: n,
        reads: Vec::new(),
        epoch,
        deletes: Vec::new(),
        inserts: vec![([model::term('s', n), model::term('p', 1), model::term('o', n)], None)],
    };
    (1..8).for_each(|n| old.attempt(&write(n, 1)));
    let restarted = |kept: usize| {
        let mut new = Model::new();
        new.begin(1000);
        (1..kept as u64).for_each(|n| new.attempt(&write(n, 1)));
        new.begin_epoch(9, kept as u64);
        (kept as u64 + 1..20).for_each(|n| new.attempt(&write(n, 9)));
        let directory = tempfile::tempdir().unwrap();
        let (store, mut applier) = open(directory.path(), &all(Range::ALL), 4);
        applier.apply(&run(&old.entries, LogIndex(1), 4)).unwrap();
        applier.apply(&run(&old.entries, LogIndex(5), 6)).unwrap();
        drop((store, applier));
        let (_store, mut applier) = open(directory.path(), &all(Range::ALL), 4);
        assert_eq!((applier.next(), applier.applied().progress.applied), (LogIndex(5), LogIndex(6)));
        applier.apply(&run(&new.entries, LogIndex(5), 12))
    };
    let adopted = restarted(6).unwrap();
    assert_eq!((adopted.progress.applied, adopted.progress.facts), (LogIndex(12), 10));
    assert_eq!(adopted.progress.rules.unwrap().epoch, beam_wire::Epoch(9));
    let refused = restarted(5).unwrap_err().to_string();
    assert!(refused.contains("up to 6 of epoch 1, but epoch 9 began after entry 5"), "{refused}");
}

/// Counters and counted facts agree with the model, and stop at the limit.
#[test]
fn counts_are_those_of_the_newest_version() {
    let (model, directory, serves) = (Model::random(11, 200), tempfile::tempdir().unwrap(), all(Range::ALL));
    let (store, mut applier) = open(directory.path(), &serves, 50);
    let mut chance = StdRng::seed_from_u64(11);
    while applier.next().0 <= 200 {
        let until = (applier.next().0 + chance.random_range(0..30)).min(200);
        applier.apply(&run(&model.entries, applier.next(), until)).unwrap();
        if model.genesis_at().unwrap() > until {
            continue;
        }
        assert_eq!(applier.applied().progress.facts, model.versions[until as usize].len() as u64);
        let p = TermId::of(&model::term('p', 1));
        let by_counter = [GraphPattern::Default, GraphPattern::AnyNamed, GraphPattern::Any].map(|graph| Pattern {
            subject: None,
            predicate: Some(p),
            object: None,
            graph,
        });
        let patterns: Vec<Pattern> = (0..10).map(|_| model::pattern(&mut chance)).chain(by_counter).collect();
        for limit in [3, u64::MAX] {
            let request = Request {
                at: At::AtLeast(model::version(until)),
                space: Space::Subject,
                range: Range::ALL,
                patterns: &patterns,
                limit,
            };
            let mut counts = vec![0; patterns.len()];
            let mut lookup = Lookup::count(&store, applier.shared(), &Held::new(&serves), &request).unwrap();
            let slice = lookup.slice().unwrap();
            assert!(slice.done);
            slice.counts.iter().for_each(|(number, count)| counts[*number as usize] += count);
            slice.facts.iter().for_each(|(number, _)| counts[*number as usize] += 1);
            for (pattern, count) in patterns.iter().zip(counts) {
                let wanted = model.look_up(until, pattern, Space::Subject, &Range::ALL).len() as u64;
                assert_eq!(count, wanted.min(limit), "{pattern:?} at {until}");
            }
        }
    }
}

mod instance {
    //! One view, fed from memory.
    use super::super::{Instance, ViewError, ViewOptions};
    use super::*;
    use beam_wire::env::{Dns, DnsError, Env, SrvAnswer};
    use beam_wire::message::log::Entries;
    use beam_wire::message::view::ViewState;
    use beam_wire::{CallError, Epoch};
    use futures::future::BoxFuture;
    use futures::stream::{self, Stream};
    use futures::{FutureExt, StreamExt};
    use std::sync::Arc;
    use tokio::sync::mpsc;

    struct NoDns;
    impl Dns for NoDns {
        fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>> {
            async { Err(DnsError::NoSuchName(name.to_owned())) }.boxed()
        }
    }

    fn env() -> Env {
        Env::real(Arc::new(NoDns))
    }

    fn options(directory: &Path) -> ViewOptions {
        ViewOptions::new(model::cluster(), all(Range::partition(0, 2)), directory)
    }

    fn frame(model: &Model, first: u64, until: u64) -> Result<Entries, CallError> {
        Ok(Entries {
            epoch: Epoch(1),
            committed: LogIndex(model.entries.len() as u64),
            first: LogIndex(first),
            entries: model.entries[first as usize - 1..until as usize].to_vec(),
        })
    }

    type Frames = mpsc::UnboundedSender<Result<Entries, CallError>>;

    fn log() -> (Frames, impl Stream<Item = Result<Entries, CallError>> + Send + Unpin) {
        let (send, receive) = mpsc::unbounded_channel();
        (send, stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) }).boxed())
    }

    #[tokio::test]
    async fn it_boots_serves_drains_and_goes_on_where_it_was() {
        let (env, directory, model) = (env(), tempfile::tempdir().unwrap(), Model::random(7, 100));
        let (send, frames) = log();
        let mut frames = Some(frames);
        let view = Instance::start_with(&env, options(directory.path()), None, move |epoch, from| {
            assert_eq!((epoch, from), (None, LogIndex(1)));
            frames.take().unwrap()
        });
        let view = view.await.unwrap();
        assert_eq!(view.status().state, ViewState::Booting);
        send.send(frame(&model, 1, 60)).unwrap();
        view.board().applied(&env, LogIndex(60), None).await.unwrap();
        assert_eq!(view.status().state, ViewState::Booting, "the log held 100 entries when it started");
        assert_eq!(view.status().committed, LogIndex(100));
        send.send(frame(&model, 61, 100)).unwrap();
        view.ready().await;
        assert_eq!((view.status().state, view.status().applied), (ViewState::Serving, LogIndex(100)));
        while view.status().durable < LogIndex(100) {
            let edition = view.board().edition();
            view.board().changed_since(edition).await;
        }
        view.drain();
        assert_eq!(view.status().state, ViewState::Draining);
        view.stop(std::time::Duration::from_secs(1)).await.unwrap();
        drop(view);

        let (_send, frames) = log();
        let mut frames = Some(frames);
        let view = Instance::start_with(&env, options(directory.path()), None, move |epoch, from| {
            assert_eq!((epoch, from), (Some(Epoch(1)), LogIndex(1)), "there is no checkpoint yet");
            frames.take().unwrap()
        });
        assert_eq!(view.await.unwrap().status().applied, LogIndex(100));
    }

    /// Calls that wait for entries that may never come would else keep its files from whoever begins anew.
    #[tokio::test]
    async fn a_view_that_stops_ends_the_calls_that_wait() {
        let (env, directory) = (env(), tempfile::tempdir().unwrap());
        let view = Instance::start_with(&env, options(directory.path()), None, |_, _| stream::pending()).await.unwrap();
        let desk = view.desk().expect("it has a desk");
        let mut waiting = Box::pin(async move {
            let reached = async { desk.board.applied(&desk.env, LogIndex(9), None).await };
            desk.while_open(reached).await
        });
        assert!(futures::poll!(&mut waiting).is_pending(), "entry 9 has not come");
        view.stop(std::time::Duration::ZERO).await.unwrap();
        drop(view);
        let ended = waiting.await.expect_err("the view has stopped");
        assert_eq!(ended.code, beam_wire::Code::Unavailable, "{ended}");
        Instance::start_with(&env, options(directory.path()), None, |_, _| stream::pending()).await.unwrap();
    }

    #[tokio::test]
    async fn it_is_not_opened_as_another_view() {
        let (env, directory) = (env(), tempfile::tempdir().unwrap());
        let start = |options| Instance::start_with(&env, options, None, |_, _| stream::pending());
        drop(start(options(directory.path())).await.unwrap());
        let other = |change: fn(&mut ViewOptions)| {
            let mut options = options(directory.path());
            change(&mut options);
            options
        };
        let ranges = other(|options| options.serves = all(Range::partition(1, 2)));
        let spaces = other(|options| options.serves.truncate(2));
        let cluster = other(|options| options.cluster = "other".parse().unwrap());
        for options in [ranges, spaces, cluster] {
            let refused = start(options).await.err().expect("it holds something else").to_string();
            assert!(refused.contains("empty directory"), "{refused}");
        }
        let nothing = other(|options| options.serves.clear());
        assert!(matches!(start(nothing).await, Err(ViewError::Nothing)));
        start(options(directory.path())).await.unwrap();
    }

    /// Every way in which a view ends by itself, and what it says then.
    #[tokio::test]
    async fn it_stops_with_a_reason() {
        let discarded = || Err(CallError::never(Code::Discarded, "entry 1 was discarded, the log begins at 9"));
        let genesis = || vec![model::genesis(10)];
        let stranger = || {
            let genesis = beam_wire::command::Genesis {
                cluster: "stranger".parse().unwrap(),
                epoch: Epoch(1),
                format: 1,
                slots_log2: 10,
                window: 10,
            };
            vec![model::command(beam_wire::command::Command::Genesis(genesis))]
        };
        let upgrade = || vec![model::command(beam_wire::command::Command::Upgrade(999))];
        let of = |epoch, first, entries| {
            Ok(Entries { epoch: Epoch(epoch), committed: LogIndex(9), first: LogIndex(first), entries })
        };
        let cases = [
            (vec![discarded()], "entry 1 was discarded"),
            (vec![of(1, 1, stranger())], "cluster stranger"),
            (vec![of(1, 1, genesis()), of(1, 2, upgrade())], "format 999"),
            (vec![of(1, 1, genesis()), of(3, 2, vec![model::begin(3, 1)]), of(2, 3, Vec::new())], "epoch 2"),
        ];
        for (frames, reason) in cases {
            let (env, directory, (send, log)) = (env(), tempfile::tempdir().unwrap(), log());
            let mut log = Some(log);
            let entries = move |_, _| log.take().unwrap();
            let view = Instance::start_with(&env, options(directory.path()), None, entries).await.unwrap();
            let board = view.board();
            for frame in frames {
                let next = frame.as_ref().map_or(1, |entries| entries.first.0);
                board.applied(&env, LogIndex(next - 1), None).await.unwrap();
                send.send(frame).unwrap();
            }
            let ended = env.tasks().ended().await;
            assert_eq!(ended.name, "view.follow");
            assert!(ended.why.contains(reason), "{} does not say {reason}", ended.why);
        }
    }
}

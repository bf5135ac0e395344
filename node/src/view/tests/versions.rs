//! Versions: of facts that change again and again, and of those that nobody may read any more.

use super::super::prune;
use super::*;

/// A log in which one fact comes and goes, and each state of it is one index.
fn toggling(times: u64) -> Model {
    let mut model = Model::new();
    model.begin(1_000_000);
    (1..times).for_each(|i| model.attempt(&toggle(i)));
    model
}

/// The fact comes, or goes.
fn toggle(i: u64) -> Attempt {
    let quad = ([model::term('s', 0), model::term('p', 0), model::term('o', 0)], None);
    let mut attempt = attempt(i);
    if i % 2 == 1 { &mut attempt.inserts } else { &mut attempt.deletes }.push(quad);
    attempt
}

/// All facts of the subject space as they were at an index.
fn everything(index: u64) -> Request<'static> {
    const EVERYTHING: &[Pattern] =
        &[Pattern { subject: None, predicate: None, object: None, graph: GraphPattern::Any }];
    let at = At::Exact(model::version(index));
    Request { at, space: Space::Subject, range: Range::ALL, patterns: EVERYTHING, limit: u64::MAX }
}

/// A transaction that changes nothing yet.
fn attempt(i: u64) -> Attempt {
    let id = TransactionId { born: LogIndex(i), random: u128::from(i) };
    Attempt { id, read_index: i, reads: vec![], epoch: 1, deletes: vec![], inserts: vec![] }
}

/// Near the head deletions are in memory; further back a few seeks pass over all versions.
#[test]
fn a_fact_that_changed_often_is_found_as_fast_as_any() {
    const TIMES: u64 = 20_000;
    let (model, directory, serves) = (toggling(TIMES), tempfile::tempdir().unwrap(), all(Range::ALL));
    let (mut store, mut applier) = open(directory.path(), &serves, u64::MAX);
    for until in (500..=TIMES).step_by(500) {
        applier.apply(&run(&model.entries, applier.next(), until)).unwrap();
    }
    let [s, p, o] = [('s', 0), ('p', 0), ('o', 0)].map(|(kind, i)| TermId::of(&model::term(kind, i)));
    let exact = Pattern { subject: Some(s), predicate: Some(p), object: Some(o), graph: GraphPattern::Default };
    let patterns = [exact, Pattern { object: None, ..exact }, Pattern { subject: None, ..exact }];
    for memory in [true, false] {
        if !memory {
            drop((store, applier));
            (store, applier) = open(directory.path(), &serves, u64::MAX);
        }
        for index in [TIMES, TIMES - 1, TIMES - 2, TIMES - 999, TIMES / 2, TIMES / 2 + 1, 3, 2] {
            for pattern in patterns {
                let request = Request {
                    at: At::Exact(model::version(index)),
                    space: Space::Subject,
                    range: Range::ALL,
                    patterns: &[pattern],
                    limit: u64::MAX,
                };
                let mut lookup = Lookup::open(&store, applier.shared(), &Held::new(&serves), &request).unwrap();
                let slice = lookup.slice().unwrap();
                assert!(slice.done);
                assert_eq!(slice.facts.len() as u64, (index + 1) % 2, "at {index}");
                assert!(lookup.visited() < 60, "{} keys for {pattern:?} at {index}", lookup.visited());
            }
        }
    }
}

/// The engine keeps all versions of a row in memory, and walks them when it scans. A fact that changes again and again
/// leaves few: the rest lies where it is asked for by its key alone. Restarts do not change that, and once the fact has
/// rested for a whole history, it is like all others.
#[test]
fn a_fact_that_changes_again_and_again_is_written_apart() {
    const TIMES: u64 = 2_000;
    let (mut model, directory, serves) = (toggling(TIMES), tempfile::tempdir().unwrap(), all(Range::ALL));
    let others = TIMES + 200;
    for i in TIMES..others {
        let inserts = vec![([model::term('s', i), model::term('p', 0), model::term('o', i)], None)];
        model.attempt(&Attempt { inserts, ..attempt(i) });
    }
    let (mut store, mut applier) = open_with(directory.path(), &serves, 100, 128);
    let orders = [Order::Spog, Order::Posg, Order::Opsg];
    let cooled = |store: &Store, oldest| store.cooled(LogIndex(oldest), &[], 10).unwrap().0.len();
    let mut chance = StdRng::seed_from_u64(6);
    for end in [TIMES / 2, TIMES] {
        drop((store, applier));
        (store, applier) = open_with(directory.path(), &serves, 100, 128);
        while applier.next().0 <= end {
            // At the head of the log a run is one entry.
            applier.apply(&run(&model.entries, applier.next(), applier.next().0)).unwrap();
        }
    }
    for order in orders {
        let rows = store.live_rows_in_memory(order);
        assert!(rows < 50, "{rows} versions of one fact are in memory in {}", order.name());
    }
    assert_eq!(cooled(&store, TIMES), 1);
    check_sums(&model, &store, &applier);
    let is_as_in_the_model = |store: &Store, applier: &Applier, index, chance: &mut StdRng| {
        compare(&model, store, applier, &serves, index, chance);
    };
    (TIMES - 90..=TIMES).for_each(|index| is_as_in_the_model(&store, &applier, index, &mut chance));
    applier.apply(&run(&model.entries, applier.next(), TIMES + 40)).unwrap();
    assert_eq!(cooled(&store, TIMES), 1, "it rests for too short a time");
    applier.apply(&run(&model.entries, applier.next(), others)).unwrap();
    assert_eq!(cooled(&store, others), 0);
    check_sums(&model, &store, &applier);
    (others - 60..=others).for_each(|index| is_as_in_the_model(&store, &applier, index, &mut chance));
}

/// However many facts were hot, and however few of them are looked at at a time.
#[test]
fn facts_that_have_rested_are_like_all_others_again() {
    const FACTS: u64 = 20;
    let (mut model, directory, serves) = (Model::new(), tempfile::tempdir().unwrap(), all(Range::ALL));
    model.begin(1_000_000);
    let (busy, end) = (10 * FACTS, 10 * FACTS + 400);
    for i in 1..end {
        let quad = |object| ([model::term('s', i % FACTS), model::term('p', 0), model::term('o', object)], None);
        let mut attempt = attempt(i);
        match i < busy {
            true if (i / FACTS).is_multiple_of(2) => attempt.inserts.push(quad(0)),
            true => attempt.deletes.push(quad(0)),
            false => attempt.inserts.push(quad(i)),
        }
        model.attempt(&attempt);
    }
    let (store, mut applier) = open_with(directory.path(), &serves, 100, 128);
    let hot = || store.cooled(LogIndex(u64::MAX), &[], usize::MAX).unwrap().0.len() as u64;
    while applier.next().0 <= busy {
        applier.apply(&run(&model.entries, applier.next(), applier.next().0)).unwrap();
    }
    assert!(hot() > FACTS / 2, "{} are hot", hot());
    while applier.next().0 <= end {
        applier.apply(&run(&model.entries, applier.next(), applier.next().0)).unwrap();
    }
    assert_eq!(hot(), 0);
    check_sums(&model, &store, &applier);
}

/// Nothing is written any more, so nothing is compacted: the pass alone removes what is too old, in slices, and a
/// look-up that was half-way is told.
#[tokio::test]
async fn a_pass_removes_what_is_too_old_beside_look_ups() {
    let (model, directory, serves) = (Model::random(8, 400), tempfile::tempdir().unwrap(), all(Range::ALL));
    let (mut store, mut applier) = open_with(directory.path(), &serves, 50, 40);
    let mut chance = StdRng::seed_from_u64(8);
    while applier.next().0 <= 400 {
        let until = (applier.next().0 + chance.random_range(0..12)).min(400);
        applier.apply(&run(&model.entries, applier.next(), until)).unwrap();
    }
    // No deletion is in memory any more: what is read of the past is what lies on the disk.
    drop((store, applier));
    (store, applier) = open_with(directory.path(), &serves, 50, 40);
    let env = beam_wire::env::sim::SimWorld::new(8).env("view");
    let oldest = applier.applied().progress.oldest;
    let before: Vec<usize> = store.orders().map(|order| store.past_count(order)).collect();
    assert_eq!(prune::pass(&env, || Some(store.clone())).await.unwrap(), 0, "what may be read stays");
    let open = |index| Lookup::open(&store, applier.shared(), &Held::new(&serves), &everything(index)).unwrap();
    let (mut too_old, mut kept) = (open(oldest.0), open(oldest.0 + 1));

    store.let_go(oldest.next());
    let removed = prune::pass(&env, || Some(store.clone())).await.unwrap();
    let after: Vec<usize> = store.orders().map(|order| store.past_count(order)).collect();
    assert_eq!(removed as usize, before.iter().sum::<usize>() - after.iter().sum::<usize>());
    assert!(after.iter().zip(&before).all(|(after, before)| after < &(before / 3)), "{after:?} of {before:?}");
    assert!(matches!(too_old.slice(), Err(LookupError::Call(e)) if e.code == Code::TooOld));
    let mut found = BTreeSet::new();
    loop {
        let slice = kept.slice().unwrap();
        found.extend(slice.facts.into_iter().map(|(_, fact)| fact));
        if slice.done {
            break;
        }
    }
    assert_eq!(found, model.versions[oldest.0 as usize + 1]);
    for index in oldest.0 + 1..=400 {
        compare(&model, &store, &applier, &serves, index, &mut chance);
    }
}

/// One fact goes at each index. What the oldest version that is promised still shows went after it: all of that stays, and nothing
/// else, whether a pass or compaction removes it.
#[tokio::test]
async fn what_goes_ends_exactly_at_the_oldest_index() {
    const FACTS: u64 = 60;
    let quad = |i| ([model::term('s', i), model::term('p', i % 3), model::term('o', i)], None);
    let mut model = Model::new();
    model.begin(1_000_000);
    (1..=FACTS).for_each(|i| model.attempt(&Attempt { inserts: vec![quad(i)], ..attempt(i) }));
    (1..=FACTS).for_each(|i| model.attempt(&Attempt { deletes: vec![quad(i)], ..attempt(FACTS + i) }));
    let (last, serves) = (model.entries.len() as u64, all(Range::ALL));
    let env = beam_wire::env::sim::SimWorld::new(9).env("view");
    let mut chance = StdRng::seed_from_u64(9);
    for compacts in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, mut applier) = open(directory.path(), &serves, 1000);
        applier.apply(&run(&model.entries, applier.next(), last)).unwrap();
        // What is read of the past is what lies on the disk.
        drop((store, applier));
        (store, applier) = open(directory.path(), &serves, 1000);
        for oldest in [last - FACTS, last - FACTS + 1, last - 21, last - 20, last - 1, last] {
            store.let_go(LogIndex(oldest));
            if compacts {
                store.compact().unwrap();
            } else {
                prune::pass(&env, || Some(store.clone())).await.unwrap();
            }
            for order in store.orders() {
                let kept = (oldest + 1..=last).map(LogIndex).collect();
                assert_eq!(store.past_deletions(order), kept, "{} when {oldest} is the oldest", order.name());
            }
            (oldest..=last).for_each(|index| compare(&model, &store, &applier, &serves, index, &mut chance));
        }
    }
}

#[test]
fn versions_older_than_the_history_are_refused_and_dropped() {
    const HISTORY: u64 = 32;
    let (model, directory, serves) = (Model::random(5, 400), tempfile::tempdir().unwrap(), all(Range::ALL));
    let (store, mut applier) = open_with(directory.path(), &serves, 50, HISTORY);
    let mut chance = StdRng::seed_from_u64(5);
    while applier.next().0 <= 400 {
        let until = (applier.next().0 + chance.random_range(0..12)).min(400);
        let oldest = applier.apply(&run(&model.entries, applier.next(), until)).unwrap().progress.oldest.0;
        assert!(oldest <= until.saturating_sub(HISTORY));
        for index in (oldest.max(model.genesis_at().unwrap())..=until).step_by(7) {
            compare(&model, &store, &applier, &serves, index, &mut chance);
        }
    }
    let oldest = applier.applied().progress.oldest.0;
    assert!(oldest >= 400 - HISTORY - HISTORY / 16 - 12, "oldest {oldest}");
    let refused = |index| match Lookup::open(&store, applier.shared(), &Held::new(&serves), &everything(index)) {
        Err(LookupError::Call(e)) => e.code,
        _ => panic!("version {index} was not refused"),
    };
    assert_eq!(refused(oldest - 1), Code::TooOld);
    assert_eq!(refused(401), Code::Ahead);

    // A look-up that began before the oldest version rose must not miss what was dropped since.
    let before = store.past_count(Order::Spog);
    let mut slow = Lookup::open(&store, applier.shared(), &Held::new(&serves), &everything(oldest)).unwrap();
    store.let_go(LogIndex(oldest + 1));
    assert!(matches!(slow.slice(), Err(LookupError::Call(e)) if e.code == Code::TooOld));
    store.compact().unwrap();
    let after = store.past_count(Order::Spog);
    assert!(after < before / 4, "{after} of {before} past versions are left");
    for index in oldest + 1..=400 {
        compare(&model, &store, &applier, &serves, index, &mut chance);
    }
}

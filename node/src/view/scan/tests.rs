//! What a scan finds: one mistake at a time is planted on the disk of a view that was whole.

use super::*;
use crate::view::apply::Applier;
use crate::view::model::Model;
use crate::view::store::{Batch, Heat};
use crate::view::tests::{all, open_with, run};
use beam_wire::Range;
use beam_wire::message::view::KeyInterval;

const LENGTH: u64 = 150;
/// Almost everything.
const HELD: Range = Range { first: Point(1 << 60), last: Point(u64::MAX) };

fn everything() -> KeyInterval {
    KeyInterval { from: Bytes::new(), to: None }
}

fn scan(store: &Store, applier: &Applier) -> Result<Option<String>, StorageError> {
    let sums = applier.shared().sums();
    let mut scan = Scan::of(store.snapshot(), sums.cells().clone(), (LogIndex(0), LogIndex(LENGTH)));
    while scan.slice()?.is_some() {}
    Ok(scan.difference(sums.tallies()))
}

/// A view of almost everything, with this changed on its disk; and what a scan says.
fn found(change: impl FnOnce(&Store, &mut Batch<'_>)) -> String {
    let (model, directory) = (Model::random(11, LENGTH as usize), tempfile::tempdir().unwrap());
    let serves = all(HELD);
    let (store, mut applier) = open_with(directory.path(), &serves, 40, u64::MAX);
    applier.apply(&run(&model.entries, applier.next(), LENGTH)).unwrap();
    assert_eq!(scan(&store, &applier).unwrap(), None, "it was whole");
    let mut batch = store.batch();
    change(&store, &mut batch);
    batch.commit().unwrap();
    match scan(&store, &applier) {
        Ok(difference) => difference.expect("a difference"),
        Err(error) => {
            assert!(error.is_damage());
            error.to_string()
        }
    }
}

fn live(store: &Store, order: Order) -> (Fact, LogIndex) {
    let row = store.snapshot().live_range(order, &everything()).next().expect("there are facts").unwrap();
    (keys::read_live(order, &row.0).unwrap(), keys::read_index(&row.1).unwrap())
}

#[test]
fn a_lost_fact_is_found_in_every_order() {
    for order in [Order::Spog, Order::Posg, Order::Opsg] {
        let said = found(|store, batch| batch.put_live(order, &live(store, order).0, None, Heat::Cold));
        assert!(
            said.starts_with("there are ") && said.contains(&format!("the live facts ({})", order.name())),
            "{said}"
        );
    }
}

#[test]
fn a_fact_of_another_version_is_found() {
    for order in [Order::Spog, Order::Posg, Order::Opsg] {
        let said = found(|store, batch| {
            let (fact, inserted) = live(store, order);
            batch.put_live(order, &fact, Some(LogIndex(inserted.0 ^ 1)), Heat::Cold);
        });
        assert!(said.contains("are not those that were written in the live facts"), "{said}");
    }
}

#[test]
fn a_fact_that_was_never_written_is_found() {
    let said = found(|store, batch| {
        let (mut fact, inserted) = live(store, Order::Spog);
        fact.object.0[16] ^= 1;
        batch.put_live(Order::Spog, &fact, Some(inserted), Heat::Cold);
    });
    assert!(said.contains("the live facts (spog)"), "{said}");
    let elsewhere = |id: &TermId| id.point() < HELD.first;
    let said = found(|store, batch| {
        let (mut fact, inserted) = live(store, Order::Opsg);
        while !elsewhere(&fact.object) {
            fact.object.0[16] = fact.object.0[16].wrapping_add(1);
        }
        batch.put_live(Order::Opsg, &fact, Some(inserted), Heat::Cold);
    });
    assert!(said.contains("what lies at other points"), "{said}");
}

#[test]
fn a_past_version_that_only_one_order_has_is_found() {
    for order in [Order::Spog, Order::Posg] {
        let said = found(|store, batch| {
            let (fact, inserted) = live(store, order);
            batch.put_past(order, &fact, LogIndex(LENGTH), inserted);
        });
        assert!(said.contains("in the past facts (posg)"), "{said}");
    }
}

#[test]
fn a_text_that_is_another_is_found() {
    let said = found(|store, batch| {
        let row = store.snapshot().terms_range(&everything()).next().expect("there are texts").unwrap();
        let id = TermId(row.0[..].try_into().unwrap());
        let mut text = row.1.to_vec();
        *text.last_mut().unwrap() ^= 1;
        batch.put_term(&id, &text);
    });
    assert!(said.contains("are not those that were written in the texts"), "{said}");
}

#[test]
fn a_counter_that_is_wrong_is_found() {
    let said = found(|store, batch| batch.put_count(&live(store, Order::Posg).0.predicate, false, 1_000_000));
    assert!(said.contains("says 1000000, and there are"), "{said}");
}

/// The engine's checksums cannot see that a piece is missing, or stale.
#[test]
fn a_checkpoint_that_is_not_as_it_was_written_is_found_and_not_taken_up() {
    let piece = |store: &Store, prefix: &[u8]| {
        let pieces = store.snapshot().checkpoint_pieces().map(Result::unwrap);
        let found = pieces.filter(|(key, value)| key.starts_with(prefix) && value.iter().any(|byte| *byte != 0));
        let (key, value) = found.last().expect("there is such a piece");
        (key.to_vec(), value.to_vec())
    };
    let said = found(|store, batch| batch.remove_checkpoint_piece(&piece(store, b"slots/").0));
    assert!(said.contains("the hash of the verdict checkpoint"), "{said}");
    let said = found(|store, batch| {
        let (key, mut chunk) = piece(store, b"slots/");
        let at = chunk.iter().position(|byte| *byte != 0).unwrap();
        chunk[at] ^= 1;
        batch.put_checkpoint_piece(&key, &chunk);
    });
    assert!(said.contains("the hash of the verdict checkpoint"), "{said}");
    let said = found(|store, batch| batch.remove_checkpoint_piece(&piece(store, b"log/").0));
    assert!(said.contains("the hash of the verdict checkpoint"), "{said}");
    let said = found(|_, batch| batch.remove_checkpoint_piece(b"head"));
    assert!(said.contains("the missing head of the verdict checkpoint"), "{said}");

    let model = Model::random(11, LENGTH as usize);
    for prefix in [&b"slots/"[..], b"log/", b"head"] {
        let directory = tempfile::tempdir().unwrap();
        let (store, mut applier) = open_with(directory.path(), &all(HELD), 40, u64::MAX);
        applier.apply(&run(&model.entries, applier.next(), LENGTH)).unwrap();
        drop(applier);
        let options = || crate::view::tests::apply_options(&all(HELD), 40, u64::MAX);
        assert!(Applier::open(store.clone(), options()).is_ok(), "it was whole");
        let mut batch = store.batch();
        batch.remove_checkpoint_piece(&piece(&store, prefix).0);
        batch.commit().unwrap();
        let error = Applier::open(store, options()).err().expect("something is missing");
        assert!(error.is_damage(), "{error}");
    }
}

/// Past versions are told to other views only as far as they were asked for.
#[test]
fn past_versions_are_told_as_they_were_asked_for() {
    let (model, directory) = (Model::random(11, LENGTH as usize), tempfile::tempdir().unwrap());
    let (store, mut applier) = open_with(directory.path(), &all(Range::ALL), 40, u64::MAX);
    applier.apply(&run(&model.entries, applier.next(), LENGTH)).unwrap();
    let cells = applier.shared().sums().cells().clone();
    let told = |after, until| {
        let mut scan = Scan::of(store.snapshot(), cells.clone(), (LogIndex(after), LogIndex(until)));
        while scan.slice().unwrap().is_some() {}
        let past = scan.scanned().unwrap().past;
        let of = |space| past.iter().filter(|sum| sum.served.space == space).map(|sum| sum.count).sum::<u64>();
        (of(Space::Subject), of(Space::Object))
    };
    let (all, early, late) = (told(0, LENGTH), told(0, 70), told(70, LENGTH));
    assert!(early.0 > 0 && late.0 > 0, "{early:?} and {late:?}");
    assert_eq!(all, (early.0 + late.0, early.1 + late.1));
    assert_eq!(all.0, all.1, "each version lies once in each space");
}

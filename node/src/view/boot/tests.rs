//! Copies from views of any cuts that come and go, against the model.

use super::*;
use crate::remote::view::tests::view;
use crate::view::apply::{Applied, Applier};
use crate::view::carousel::{Carousel, Ride};
use crate::view::copy::Wanted;
use crate::view::model::{self, Model};
use crate::view::status::Board;
use crate::view::store::StoreOptions;
use crate::view::tests::{all, check_sums, compare, open_with, run};
use beam_wire::env::sim::SimWorld;
use beam_wire::message::log::Entry;
use beam_wire::message::view::{CopiedFact, CopiedTerm, ViewState};
use beam_wire::message::{Call, Kind};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::any::Any;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A view from which others copy.
struct Source {
    view: View,
    store: Store,
    carousel: Carousel,
    _applier: Applier,
    _directory: tempfile::TempDir,
    /// It fails a call instead of one chunk in so many, by chance.
    fails_one_in: u32,
    chance: Arc<Mutex<StdRng>>,
    sent: Arc<AtomicUsize>,
}

impl Source {
    /// Has applied so many entries.
    fn new(env: &Env, name: String, serves: Vec<Served>, entries: &[Entry], applied: u64, fails_one_in: u32) -> Source {
        let directory = tempfile::tempdir().unwrap();
        let (store, mut applier) = open_with(directory.path(), &serves, 7, u64::MAX);
        while applier.next().0 <= applied {
            let until = (applier.next().0 + 9).min(applied);
            applier.apply(&run(entries, applier.next(), until)).unwrap();
        }
        let board = Arc::new(Board::new(serves, Applied::default()));
        board.set_applied(applier.applied());
        board.set_state(ViewState::Serving);
        let mut view = view(&name, &[], applied);
        view.status = Arc::new(board.status());
        let carousel = Carousel::new(env.clone(), store.clone(), board, None);
        let sent = Arc::default();
        let chance = Arc::new(Mutex::new(StdRng::seed_from_u64(env.random_u64())));
        Source { view, store, carousel, _applier: applier, _directory: directory, fails_one_in, chance, sent }
    }

    fn pieces(&self) -> Vec<(Bytes, Bytes)> {
        let scan = self.store.snapshot().checkpoint_pieces();
        scan.map(|row| row.map(|(k, v)| (Bytes::copy_from_slice(&k), Bytes::copy_from_slice(&v))).unwrap()).collect()
    }

    fn chunks(&self, request: &dyn Any) -> BoxStream<'static, Box<dyn Any + Send>> {
        if let Some(ViewCopy { at, space, range, wanted }) = request.downcast_ref::<ViewCopy>() {
            assert!(self.view.status.applied >= at.index && self.view.status.epoch == Some(at.epoch));
            let keys = Intervals::checked(wanted.clone()).unwrap();
            let ride = self.carousel.ride(*space, Wanted { at: at.index, range: *range, keys });
            let pieces = stream::unfold(ride, |mut ride| async move { Some((ride.next().await.unwrap()?, ride)) });
            return pieces.flat_map(stream::iter).map(|chunk| Box::new(chunk) as Box<dyn Any + Send>).boxed();
        }
        let head = checkpoint::head(&self.store.snapshot()).unwrap().unwrap();
        let chunks: Vec<_> = self.pieces().chunks(2).map(|pieces| pieces.to_vec()).collect();
        let chunk = move |pieces| Box::new(CheckpointChunk { at: head, pieces }) as Box<dyn Any + Send>;
        stream::iter(chunks).map(chunk).boxed()
    }
}

/// All of them.
#[derive(Clone)]
struct Everybody {
    env: Env,
    sources: Arc<Vec<Source>>,
    /// After so many chunks all fall silent: the one who copies is killed.
    left: Arc<AtomicUsize>,
}

impl Views for Everybody {
    fn table(&self) -> Arc<[View]> {
        self.sources.iter().map(|source| source.view.clone()).collect()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn call<C: Call>(
        &self,
        view: &View,
        _: Asking,
        request: C,
        _: tokio::time::Instant,
    ) -> BoxStream<'static, Result<C::Reply, CallError>> {
        let source = self.sources.iter().find(|source| source.view.node == view.node).unwrap();
        let (sent, chance, left) = (source.sent.clone(), source.chance.clone(), self.left.clone());
        let one_in = source.fails_one_in;
        let replies = source.chunks(&request).then(move |chunk| {
            let silent = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err();
            // A checkpoint is taken whole or not at all: only the first piece of the first is lost.
            let number = sent.fetch_add(1, Ordering::Relaxed) + 1;
            let fails = if C::KIND == Kind::ViewCopy {
                one_in < u32::MAX && chance.lock().unwrap().random_ratio(1, one_in)
            } else {
                number == 1
            };
            async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                let reply: Box<dyn Any> = chunk;
                let reply = *reply.downcast::<C::Reply>().expect("the reply of this call");
                if fails { Err(CallError::elsewhere(Code::Disconnected, "it died")) } else { Ok(reply) }
            }
        });
        // A failed call ends.
        let ends = replies.scan(false, |over, reply| {
            let last = std::mem::replace(over, reply.is_err());
            std::future::ready((!last).then_some(reply))
        });
        ends.boxed()
    }
}

/// Copies until it is done, and is killed again and again.
async fn copy(
    everybody: &Everybody,
    directory: &Path,
    serves: &[Served],
    chance: &mut StdRng,
) -> (Store, Applier, u32) {
    let mut kills = 0;
    loop {
        let store = Store::open(directory, &model::cluster(), serves, &StoreOptions::default()).unwrap();
        everybody.left.store(chance.random_range(1..40), Ordering::Relaxed);
        if kills > 6 {
            everybody.left.store(usize::MAX, Ordering::Relaxed);
        }
        let env = everybody.env.clone();
        let boot = Boot::begin(env.clone(), "me".parse().unwrap(), everybody.clone(), store, serves);
        let copied = env.timeout(Duration::from_secs(10), async { boot.await?.finish().await }).await;
        match copied {
            Ok(copied) => {
                copied.unwrap();
                let (store, applier) = open_with(directory, serves, 7, u64::MAX);
                return (store, applier, kills);
            }
            Err(_) => kills += 1,
        }
    }
}

fn state(applier: &Applier) -> (Vec<Vec<u8>>, Vec<(LogIndex, beam_wire::TransactionId)>) {
    let slots = applier.verdicts().slots();
    let chunks = (0..slots.chunks()).map(|chunk| slots.chunk(chunk).to_vec()).collect();
    (chunks, applier.verdicts().committed_after(LogIndex(0)).copied().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_cannot_be_told_from_a_view_that_read_the_log(
        seed: u64, length in 40usize..160, cut in 1u32..4, own in 1u32..5
    ) {
        // Few histories have their genesis late: those have nothing to copy.
        let _ = is_as_who_read_the_log(seed, length, cut, own);
    }
}

#[test]
fn from_four_to_five_partitions_and_from_five_to_three() {
    for (seed, cut, own) in [(1, 4, 5), (2, 5, 3), (4, 5, 4), (5, 3, 5)] {
        assert!(is_as_who_read_the_log(seed, 120, cut, own), "seed {seed} has nothing to copy");
    }
}

/// Sources of so many partitions, two of each at different places of the log, one of which fails now and
/// then; the copy is killed now and then, too. What comes of it can not be told from a view that has read the
/// whole log: every version, every count, every verdict. False if the history has nothing to copy for long.
#[must_use]
fn is_as_who_read_the_log(seed: u64, length: usize, cut: u32, own: u32) -> bool {
    let model = Model::random(seed, length);
    let Some(genesis) = model.genesis_at().filter(|genesis| *genesis < 20) else { return false };
    SimWorld::run(seed, |world| async move {
        let env = world.env("views");
        let mut chance = StdRng::seed_from_u64(seed ^ 3);
        let least = chance.random_range(20..length as u64);
        let mut sources = Vec::new();
        for part in 0..cut {
            for instance in 0..2 {
                let applied = if instance == 0 { least } else { chance.random_range(least..=length as u64) };
                let (name, serves) = (format!("v{part}{instance}"), all(Range::partition(part, cut)));
                let fails_one_in = chance.random_range(2..9);
                let mut source = Source::new(&env, name, serves, &model.entries, applied, fails_one_in);
                // The version is that of a view of the own datacenter. When that fails, the other is asked, which
                // may be further.
                source.view.home = instance == 0;
                sources.push(source);
            }
        }
        let everybody = Everybody { env, sources: Arc::new(sources), left: Arc::default() };
        let serves = all(Range::partition(chance.random_range(0..own), own));
        let directory = tempfile::tempdir().unwrap();
        let (store, mut applier, kills) = copy(&everybody, directory.path(), &serves, &mut chance).await;
        assert_eq!(applier.applied().progress.applied, LogIndex(least), "after {kills} kills");
        applier.apply(&run(&model.entries, applier.next(), length as u64)).unwrap();

        let control = tempfile::tempdir().unwrap();
        let (whole, mut reader) = open_with(control.path(), &serves, 7, u64::MAX);
        reader.apply(&run(&model.entries, LogIndex(1), length as u64)).unwrap();
        assert_eq!(applier.applied().progress, reader.applied().progress);
        assert_eq!(state(&applier), state(&reader));
        let sums = |applier: &Applier| applier.shared().sums().as_of(LogIndex(length as u64)).unwrap();
        assert_eq!(sums(&applier), sums(&reader), "texts, facts and verdicts");
        check_sums(&model, &store, &applier);
        for index in genesis..=length as u64 {
            compare(&model, &store, &applier, &serves, index, &mut chance);
        }
        for id in model.versions.iter().flatten().flat_map(|f| [f.subject, f.predicate, f.object]) {
            let text = |store: &Store| crate::view::terms::read(&store.snapshot(), &id).unwrap();
            assert_eq!(text(&store), text(&whole));
        }
    });
    true
}

/// Rides for all facts, as of an entry.
fn ride(source: &Source, at: u64) -> Ride {
    let wanted = Wanted { at: LogIndex(at), range: Range::ALL, keys: Intervals::all() };
    source.carousel.ride(Space::Subject, wanted)
}

fn facts(chunks: &[CopyChunk]) -> usize {
    chunks.iter().map(|chunk| chunk.facts.len()).sum()
}

/// Rides to the end. Returns how many facts came.
async fn ride_on(mut ride: Ride) -> usize {
    let mut found = 0;
    while let Some(chunks) = ride.next().await.unwrap() {
        found += facts(&chunks);
    }
    found
}

/// Of a scan that is under way, one who comes later reads on: only what it has missed is read once more.
#[test]
fn one_scan_serves_riders_that_come_at_different_moments() {
    let model = Model::random(5, 900);
    SimWorld::run(5, |world| async move {
        let env = world.env("view");
        let source = Source::new(&env, "v".into(), all(Range::ALL), &model.entries, 900, u32::MAX);
        let alone = ride_on(ride(&source, 900)).await;
        let of_one = source.carousel.slices();
        assert!(of_one >= 20, "{of_one} slices are too few to come in the middle");

        // Four, each of which comes when those before it are some slices further.
        let (mut riders, mut found) = (Vec::new(), vec![0; 4]);
        while riders.len() < 4 || riders.iter().any(Option::is_some) {
            if riders.len() < 4 {
                riders.push(Some(ride(&source, 900)));
            }
            for (rider, found) in riders.iter_mut().zip(&mut found) {
                if let Some(riding) = rider {
                    match riding.next().await.unwrap() {
                        Some(chunks) => *found += facts(&chunks),
                        None => *rider = None,
                    }
                }
            }
        }
        assert_eq!(found, vec![alone; 4], "each gets all");
        let of_four = source.carousel.slices() - of_one;
        assert!(of_four <= 2 * of_one, "{of_four} slices for four, {of_one} for one");
    });
}

/// A rider that reads nothing does not keep the others from getting all, and gets all itself later.
#[test]
fn a_slow_rider_keeps_nobody_waiting() {
    let model = Model::random(5, 150);
    SimWorld::run(5, |world| async move {
        let env = world.env("view");
        let source = Source::new(&env, "v".into(), all(Range::ALL), &model.entries, 150, u32::MAX);
        let slow = ride(&source, 150);
        let mut facts = Vec::new();
        for _ in 0..3 {
            facts.push(ride_on(ride(&source, 150)).await);
        }
        let found = ride_on(slow).await;
        assert!(found > 0 && facts.iter().all(|count| *count == found), "{found}, {facts:?}");
    });
}

/// Whoever rides is told when the turning ends by a panic, and who comes then is carried.
#[test]
fn a_carousel_that_broke_down_turns_again() {
    let model = Model::random(5, 150);
    SimWorld::run(5, |world| async move {
        let env = world.env("view");
        let source = Source::new(&env, "v".into(), all(Range::ALL), &model.entries, 150, u32::MAX);
        let mut first = ride(&source, 150);
        source.carousel.break_down(Space::Subject);
        assert_eq!(first.next().await.expect_err("it broke down").code, Code::Internal);
        // What really turned has noticed by then that nobody rides.
        env.sleep(Duration::from_secs(1)).await;
        source.carousel.break_down(Space::Subject);
        let mut second = ride(&source, 150);
        let came = env.timeout(Duration::from_secs(1), second.next()).await.expect("it stands still");
        assert!(came.unwrap().is_some(), "nothing came");
    });
}

/// What is sent must be what was asked for.
#[test]
fn a_source_that_sends_something_else_is_refused() {
    let fact = model::fact(&model::quad(&mut StdRng::seed_from_u64(1)));
    let key = Bytes::copy_from_slice(crate::view::keys::Key::live(Order::Spog, &fact).as_ref());
    let copied = |change: &dyn Fn(&mut CopiedFact)| {
        let mut copied = CopiedFact { shared: 0, rest: key.clone(), inserted: LogIndex(3), deleted: None };
        change(&mut copied);
        CopyChunk { oldest: LogIndex(0), done: None, facts: vec![copied], terms: Vec::new() }
    };
    let here = fact.subject.point();
    let served = |first, last| Served { space: Space::Subject, range: Range { first, last } };
    let add = |chunk, served| Gathered::default().add(chunk, LogIndex(5), served).map_err(|e| e.message);
    assert_eq!(add(copied(&|_| {}), served(here, here)), Ok(()));
    let other = beam_wire::Point(here.0 ^ 1);
    assert_eq!(add(copied(&|_| {}), served(other, other)), Err("it sent facts of other points".into()));
    assert_eq!(
        add(copied(&|c| c.shared = 1), served(here, here)),
        Err("it sent a key that goes on from nothing".into())
    );
    assert_eq!(
        add(copied(&|c| c.rest = Bytes::from_static(b"x")), served(here, here)),
        Err("it sent what is no key".into())
    );
    assert_eq!(add(copied(&|c| c.inserted = LogIndex(6)), served(here, here)), Err("it sent what came later".into()));
    assert_eq!(
        add(copied(&|c| c.deleted = Some(LogIndex(6))), served(here, here)),
        Err("it sent what came later".into())
    );

    let text = model::term('s', 1);
    let (id, at) = (TermId::of(&text), TermId::of(&text).point());
    let told = |id, text: &[u8]| {
        let copied = CopiedTerm { id, text: Bytes::copy_from_slice(text) };
        let chunk = CopyChunk { oldest: LogIndex(0), done: None, facts: Vec::new(), terms: vec![copied] };
        add(chunk, Served { space: Space::Term, range: Range { first: at, last: at } })
    };
    let bytes = beam_wire::codec::encode(&text);
    assert_eq!(told(id, &bytes), Ok(()));
    assert_eq!(told(id, b"\xff"), Err("it sent what is no text".into()));
    let other = beam_wire::codec::encode(&model::term('s', 2));
    assert_eq!(told(id, &other), Err("it sent a text of another id".into()));
}

//! Views in memory: what they hold, how slow they are, how they fail; and what was asked of them.

use super::*;
use crate::api::lookup::{Lookups, TextCache, Took};
use crate::query::Source;
use crate::remote::view::tests::view;
use crate::remote::view::{Asking, Record, Waiting};
use beam_wire::env::{Dns, DnsError, SrvAnswer};
use beam_wire::fact::{GraphPattern, Pattern};
use beam_wire::message::Kind;
use beam_wire::message::view::{LookupChunk, TermsChunk, ViewLookup, ViewTerms};
use beam_wire::{Epoch, Fact, LogIndex, Term, TermId, codec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a view does when it is asked.
#[derive(Clone)]
enum Mood {
    AnswersAfter(Duration),
    FailsAfter(Duration, Code),
}

struct Fake {
    view: View,
    mood: Mood,
}

#[derive(Clone)]
struct FakeViews {
    env: Env,
    shared: Arc<Shared>,
}

struct Shared {
    fakes: Mutex<BTreeMap<Name, Fake>>,
    facts: Vec<Fact>,
    terms: BTreeMap<TermId, Term>,
    asked: Mutex<Vec<String>>,
    dropped: Mutex<Vec<Name>>,
}

struct NoDns;

impl Dns for NoDns {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>> {
        Box::pin(async move { Err(DnsError::NoSuchName(name.to_owned())) })
    }
}

impl FakeViews {
    fn new(facts: Vec<Fact>, terms: BTreeMap<TermId, Term>) -> FakeViews {
        let (fakes, asked, dropped) = (Mutex::default(), Mutex::default(), Mutex::default());
        let shared = Shared { fakes, facts, terms, asked, dropped };
        FakeViews { env: Env::real(Arc::new(NoDns)), shared: Arc::new(shared) }
    }

    /// A view of partition `i` of `n`, in all spaces.
    fn add(&self, name: &str, (i, n): (u32, u32), home: bool, mood: Mood) {
        let serves = Space::ALL.map(|space| (space, Range::partition(i, n)));
        let mut view = view(name, &serves, 10);
        view.home = home;
        view.record = Arc::new(Record::new(home));
        self.shared.fakes.lock().unwrap().insert(view.node.clone(), Fake { view, mood });
    }

    fn set(&self, name: &str, mood: Mood) {
        self.shared.fakes.lock().unwrap().get_mut(&Name::new(name).unwrap()).unwrap().mood = mood;
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut beam_wire::message::view::ViewStatusReply)) {
        self.shared.fakes.lock().unwrap().get_mut(&Name::new(name).unwrap()).unwrap().view.set(change);
    }

    fn asked(&self) -> String {
        std::mem::take(&mut *self.shared.asked.lock().unwrap()).join(" ")
    }

    fn dropped(&self) -> Vec<Name> {
        std::mem::take(&mut *self.shared.dropped.lock().unwrap())
    }
}

impl Views for FakeViews {
    fn table(&self) -> Arc<[View]> {
        self.shared.fakes.lock().unwrap().values().map(|f| f.view.clone()).collect()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn call<C: Call>(
        &self,
        view: &View,
        asking: Asking,
        request: C,
        _: Instant,
    ) -> BoxStream<'static, Result<C::Reply, CallError>> {
        let mood = self.shared.fakes.lock().unwrap()[&view.node].mood.clone();
        self.shared.asked.lock().unwrap().push(view.node.to_string());
        let mut waiting = Waiting::start(&self.env, view, asking);
        let mut running = Running { shared: self.shared.clone(), view: view.node.clone(), over: false };
        let (env, shared) = (self.env.clone(), self.shared.clone());
        let answer = async move {
            let result = match mood {
                Mood::AnswersAfter(delay) => {
                    env.sleep(delay).await;
                    waiting.answered();
                    Ok(shared.answer::<C>(&request))
                }
                Mood::FailsAfter(delay, code) => {
                    env.sleep(delay).await;
                    waiting.failed();
                    Err(CallError::elsewhere(code, format!("{code:?}")))
                }
            };
            running.end();
            result
        };
        // One reply for each fact, so that chunks count.
        stream::once(answer)
            .flat_map(|answer| {
                stream::iter(match answer {
                    Ok(replies) => replies.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                })
            })
            .boxed()
    }
}

struct Running {
    shared: Arc<Shared>,
    view: Name,
    over: bool,
}

impl Running {
    fn end(&mut self) {
        self.over = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            self.shared.dropped.lock().unwrap().push(self.view.clone());
        }
    }
}

impl Shared {
    fn answer<C: Call>(&self, request: &C) -> Vec<C::Reply> {
        let replies: Vec<Vec<u8>> = match C::KIND {
            Kind::ViewLookup => {
                let ViewLookup { space, range, patterns, .. } = codec::decode(&codec::encode(request)).unwrap();
                let here = self.facts.iter().filter(|f| range.contains(f.point(space)));
                let found = here.flat_map(|fact| {
                    let numbers = (0..patterns.len()).filter(|i| patterns[*i].matches(fact));
                    numbers.map(|number| LookupChunk { facts: vec![(number as u32, *fact)] }).collect::<Vec<_>>()
                });
                found.map(|chunk| codec::encode(&chunk)).collect()
            }
            Kind::ViewTerms => {
                let ViewTerms { ids, .. } = codec::decode(&codec::encode(request)).unwrap();
                let known = ids.iter().enumerate().filter_map(|(i, id)| Some((i as u32, self.terms.get(id)?.clone())));
                vec![codec::encode(&TermsChunk { terms: known.collect() })]
            }
            other => panic!("{other:?} is not asked here"),
        };
        replies.iter().map(|bytes| codec::decode(bytes).unwrap()).collect()
    }
}

const AT: Version = Version { epoch: Epoch(1), index: LogIndex(10) };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn term(text: &str) -> Term {
    Term::Iri(format!("urn:a-name-that-is-too-long-to-be-in-its-id:{text}"))
}

fn id(text: &str) -> TermId {
    TermId::of(&term(text))
}

fn facts() -> Vec<Fact> {
    let fact = |s: usize, p: usize| {
        let [subject, predicate, object] = [format!("s{s}"), format!("p{p}"), format!("o{}", s % 7)].map(|t| id(&t));
        Fact { subject, predicate, object, graph: TermId::DEFAULT_GRAPH }
    };
    (0..40).flat_map(|s| (0..3).map(move |p| fact(s, p))).collect()
}

fn pattern(subject: Option<&str>, predicate: Option<&str>, object: Option<&str>) -> Pattern {
    let [subject, predicate, object] = [subject, predicate, object].map(|t| t.map(id));
    Pattern { subject, predicate, object, graph: GraphPattern::Any }
}

struct Asker {
    views: FakeViews,
    fanout: Fanout<FakeViews>,
    texts: TextCache,
}

impl Asker {
    fn new(views: &FakeViews) -> Asker {
        let fanout = Fanout::new(views.env.clone(), views.clone(), true);
        Asker { views: views.clone(), fanout, texts: TextCache::new(1 << 20) }
    }

    fn source(&self) -> Lookups<'_, FakeViews> {
        let deadline = self.views.env.now() + ms(20_000);
        Lookups { fanout: &self.fanout, texts: &self.texts, at: AT, repeatable: false, deadline, took: Took::default() }
    }

    async fn lookup(&self, patterns: &[Pattern]) -> Result<Vec<Fact>, CallError> {
        let found = self.source().lookup(patterns.to_vec(), usize::MAX).await?;
        assert!(found.complete);
        let mut facts = found.facts;
        facts.sort_unstable();
        Ok(facts)
    }
}

fn matching(facts: &[Fact], patterns: &[Pattern]) -> Vec<Fact> {
    let mut matching: Vec<Fact> = facts.iter().copied().filter(|f| patterns.iter().any(|p| p.matches(f))).collect();
    matching.sort_unstable();
    matching
}

/// Whatever is bound, and however patterns overlap, each fact is found once; whatever cuts are alive, and
/// whichever of their views fail or are slow, as long as one cut is whole.
#[tokio::test(start_paused = true)]
async fn every_fact_is_found_once_over_any_mix_of_cuts() {
    let facts = facts();
    let questions: [&[Pattern]; 6] = [
        &[pattern(Some("s3"), None, None)],
        &[pattern(None, None, Some("o2")), pattern(None, Some("p1"), Some("o2"))],
        &[pattern(None, Some("p2"), None)],
        &[pattern(None, None, None)],
        &[pattern(Some("s3"), None, None), pattern(None, None, Some("o3")), pattern(None, Some("p0"), None)],
        &[pattern(Some("s1"), Some("p1"), None), pattern(Some("s1"), None, None), pattern(Some("nobody"), None, None)],
    ];
    for round in 0..30u64 {
        let views = FakeViews::new(facts.clone(), BTreeMap::new());
        for (cut, n) in [2u32, 3, 5].into_iter().enumerate() {
            for i in 0..n {
                let chance = views.env.random_below(4);
                let whole = cut as u64 == round % 3;
                let mood = match chance {
                    0 if !whole => Mood::FailsAfter(ms(3), Code::Unavailable),
                    1 if !whole => Mood::AnswersAfter(ms(4000)),
                    _ => Mood::AnswersAfter(ms(2)),
                };
                views.add(&format!("v{i}of{n}"), (i, n), true, mood);
            }
        }
        let asker = Asker::new(&views);
        for question in questions {
            let found = asker.lookup(question).await.unwrap();
            assert!(found == matching(&facts, question), "round {round}: {question:?} found {} facts", found.len());
        }
    }
}

/// The near view stops answering. The far one is asked a little later, and the near one is told to stop.
#[tokio::test(start_paused = true)]
async fn a_late_view_is_hedged_and_the_loser_dropped() {
    let facts = facts();
    let views = FakeViews::new(facts.clone(), BTreeMap::new());
    views.add("near", (0, 1), true, Mood::AnswersAfter(ms(2)));
    views.add("far", (0, 1), false, Mood::AnswersAfter(ms(80)));
    let asker = Asker::new(&views);
    let question = [pattern(Some("s3"), None, None)];
    for _ in 0..100 {
        asker.lookup(&question).await.unwrap();
    }
    assert!(!views.asked().contains("far"), "who is far is not asked while the near one answers");
    assert_eq!(asker.fanout.total.hedges(), 0);

    views.set("near", Mood::AnswersAfter(ms(60_000)));
    let asked = views.env.now();
    assert!(asker.lookup(&question).await.unwrap() == matching(&facts, &question));
    assert_eq!(views.asked(), "near far");
    assert_eq!(views.dropped(), [Name::new("near").unwrap()]);
    let took = views.env.now() - asked;
    assert!(took >= ms(85) && took <= ms(100), "{took:?} is not the floor of 5 ms and the far view's 80");
    assert_eq!(asker.fanout.total.hedges(), 1);
    assert_eq!(views.table().iter().map(|v| v.record.in_flight()).sum::<u32>(), 0);
}

/// A view that holds everything fails; those that hold halves take over, each for its half.
#[tokio::test(start_paused = true)]
async fn a_part_that_fails_is_split_where_the_cuts_differ() {
    let facts = facts();
    let views = FakeViews::new(facts.clone(), BTreeMap::new());
    views.add("all", (0, 1), true, Mood::FailsAfter(ms(1), Code::Disconnected));
    views.add("half0", (0, 2), false, Mood::AnswersAfter(ms(2)));
    views.add("half1", (1, 2), false, Mood::AnswersAfter(ms(2)));
    let asker = Asker::new(&views);
    let question = [pattern(None, None, None)];
    assert!(asker.lookup(&question).await.unwrap() == matching(&facts, &question));
    assert_eq!(views.asked(), "all half0 half1");
    assert_eq!(asker.fanout.total.requests(), 3);
    assert_eq!(asker.fanout.total.hedges(), 0, "an error is not late");
}

/// What another view would say too fails at once; what passes is tried again, until it is said what is
/// missing.
#[tokio::test(start_paused = true)]
async fn errors_fail_whole_questions_and_say_why() {
    let views = FakeViews::new(facts(), BTreeMap::new());
    views.add("old", (0, 2), true, Mood::FailsAfter(ms(1), Code::TooOld));
    views.add("good", (1, 2), true, Mood::AnswersAfter(ms(5)));
    let asker = Asker::new(&views);
    let scan = [pattern(None, Some("p0"), None)];
    let asked = views.env.now();
    assert_eq!(asker.lookup(&scan).await.unwrap_err().code, Code::TooOld);
    assert!(views.env.now() - asked < ms(10));

    views.set("old", Mood::FailsAfter(ms(1), Code::Unavailable));
    let asked = views.env.now();
    let error = asker.lookup(&scan).await.unwrap_err();
    assert!(error.message.contains("old") && error.code == Code::Unavailable, "{error}");
    assert!(views.env.now() - asked > ms(3000), "it was forgiven a few times");

    views.shared.fakes.lock().unwrap().remove(&Name::new("old").unwrap());
    let error = asker.lookup(&scan).await.unwrap_err();
    let hole = "no view answers for 0000000000000000..=7fffffffffffffff of the subject space at version 1.10";
    assert_eq!(error.message, hole);
}

/// A look-up that needs only a few facts stops when it has them.
#[tokio::test(start_paused = true)]
async fn enough_is_enough() {
    let views = FakeViews::new(facts(), BTreeMap::new());
    views.add("half0", (0, 2), true, Mood::AnswersAfter(ms(2)));
    views.add("half1", (1, 2), true, Mood::AnswersAfter(ms(5000)));
    let asker = Asker::new(&views);
    let asked = views.env.now();
    let found = asker.source().lookup(vec![pattern(None, None, None)], 5).await.unwrap();
    assert!(!found.complete && found.facts.len() > 5);
    assert!(views.env.now() - asked < ms(100), "nobody waits for the slow half");

    let question = vec![pattern(Some("s3"), None, None)];
    let found = asker.source().lookup(question, 3).await.unwrap();
    assert!(found.complete && found.facts.len() == 3, "as many as the limit are all");
}

/// Texts are asked for once; those that are in their ids, never.
#[tokio::test(start_paused = true)]
async fn texts_are_kept() {
    let long = term("x");
    let views = FakeViews::new(Vec::new(), BTreeMap::from([(TermId::of(&long), long.clone())]));
    views.add("all", (0, 1), true, Mood::AnswersAfter(ms(2)));
    let asker = Asker::new(&views);
    let ids = vec![TermId::of(&long), TermId::of(&Term::string("a")), id("nobody knows this")];
    for (asked, requests) in [("all", 1), ("all", 2)] {
        let mut found = asker.source().terms(ids.clone()).await.unwrap();
        found.sort();
        let mut expected = vec![(ids[0], long.clone()), (ids[1], Term::string("a"))];
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(views.asked(), asked, "the unknown one is asked for again");
        assert_eq!(asker.fanout.total.requests(), requests);
    }
    let found = asker.source().terms(ids[..2].to_vec()).await.unwrap();
    assert_eq!((found.len(), views.asked().as_str()), (2, ""));
}

/// A view stops for good. The first few requests to it are hedged; then it is left out and costs nothing, except a probe now
/// and then. When it answers again, it is asked again.
#[tokio::test(start_paused = true)]
async fn a_view_that_stops_costs_a_few_hedges_and_then_nothing() {
    let facts = facts();
    let views = FakeViews::new(facts.clone(), BTreeMap::new());
    views.add("a", (0, 1), true, Mood::AnswersAfter(ms(2)));
    views.add("b", (0, 1), true, Mood::AnswersAfter(ms(2)));
    views.add("away", (0, 1), false, Mood::AnswersAfter(ms(80)));
    let asker = Asker::new(&views);
    let question = [pattern(Some("s3"), None, None)];
    for _ in 0..200 {
        asker.lookup(&question).await.unwrap();
    }
    assert!(asker.fanout.out().is_empty());
    views.asked();

    views.set("a", Mood::AnswersAfter(ms(3_600_000)));
    let mut slow = 0;
    for _ in 0..5000 {
        let asked = views.env.now();
        assert_eq!(asker.lookup(&question).await.unwrap(), matching(&facts, &question));
        let took = views.env.now() - asked;
        assert!(took <= ms(10), "{took:?} is more than being late and another answer");
        slow += u32::from(took > ms(3));
        views.env.sleep(ms(1)).await;
    }
    assert_eq!(asker.fanout.out(), [Name::new("a").unwrap()]);
    assert_eq!(slow, 4, "as many as it takes to know");
    let asked = views.asked();
    let to = |view: &str| asked.split(' ').filter(|asked| *asked == view).count() as u64;
    assert_eq!(to("a"), 4 + asker.fanout.total.probes());
    assert!((3..=8).contains(&asker.fanout.total.probes()), "{} probes in 15 s", asker.fanout.total.probes());
    assert_eq!(to("away"), 0);

    views.set("a", Mood::AnswersAfter(ms(2)));
    for _ in 0..5000 {
        asker.lookup(&question).await.unwrap();
    }
    assert!(asker.fanout.out().is_empty(), "it is well again");
    let asked = views.asked();
    let share = asked.split(' ').filter(|asked| *asked == "a").count();
    assert!(share > 1000, "it was asked {share} times");
}

/// Both views of the home datacenter stop. Another datacenter answers, and nobody waits any more for those at home; when they
/// are back, no request leaves home.
#[tokio::test(start_paused = true)]
async fn when_all_at_home_stop_others_answer_until_they_are_back() {
    let facts = facts();
    let views = FakeViews::new(facts.clone(), BTreeMap::new());
    for view in ["a", "b"] {
        views.add(view, (0, 1), true, Mood::AnswersAfter(ms(2)));
    }
    views.add("away", (0, 1), false, Mood::AnswersAfter(ms(80)));
    let asker = Asker::new(&views);
    let question = [pattern(Some("s3"), None, None)];
    for round in 0..3 {
        for _ in 0..300 {
            asker.lookup(&question).await.unwrap();
        }
        views.asked();
        ["a", "b"].iter().for_each(|view| views.set(view, Mood::AnswersAfter(ms(3_600_000))));
        let mut late = 0;
        for _ in 0..100 {
            let asked = views.env.now();
            asker.lookup(&question).await.unwrap();
            let took = views.env.now() - asked;
            assert!(took < ms(200), "{took:?} in round {round}");
            late += u32::from(took > ms(81));
        }
        assert!(late <= 8, "{late} waited for views at home in round {round}");
        ["a", "b"].iter().for_each(|view| views.set(view, Mood::AnswersAfter(ms(2))));
        for _ in 0..3000 {
            asker.lookup(&question).await.unwrap();
        }
        views.asked();
        for _ in 0..100 {
            asker.lookup(&question).await.unwrap();
        }
        assert!(!views.asked().contains("away"), "it goes on at home in round {round}");
    }
}

/// Two views that hold the same, of which it was known how quick they are when both became so many times slower.
async fn two_that_became_slower(question: &[Pattern], slower: u64) -> Asker {
    let views = FakeViews::new(facts(), BTreeMap::new());
    for view in ["a", "b"] {
        views.add(view, (0, 1), true, Mood::AnswersAfter(ms(2)));
    }
    let asker = Asker::new(&views);
    for _ in 0..200 {
        asker.lookup(question).await.unwrap();
    }
    ["a", "b"].iter().for_each(|view| views.set(view, Mood::AnswersAfter(ms(2 * slower))));
    asker
}

/// All views become slower by any factor at once. Hedges would make that worse: they stay within their budget, and nobody is
/// left out.
#[tokio::test(start_paused = true)]
async fn a_slowdown_of_all_views_stays_within_the_budget() {
    for slower in [3, 10, 100, 1000] {
        let question = [pattern(Some("s3"), None, None)];
        let asker = two_that_became_slower(&question, slower).await;
        let (before, hedges) = (asker.fanout.total.requests(), asker.fanout.total.hedges());
        for _ in 0..20 {
            let many = (0..50).map(|_| asker.lookup(&question));
            futures::future::try_join_all(many).await.unwrap();
        }
        let extra = asker.fanout.total.hedges() - hedges + asker.fanout.total.probes();
        let wanted = asker.fanout.total.requests() - before - extra;
        assert_eq!(wanted, 1000);
        let burst = crate::api::hedge::BURST;
        assert!(extra <= wanted / 20 + burst, "{extra} extra requests for {wanted}, {slower} times slower");
        assert!(asker.fanout.out().is_empty(), "{:?} are out, {slower} times slower", asker.fanout.out());
    }
}

/// All of these come before anybody knows what is usual now: all are late, and the budget alone holds their hedges back.
#[tokio::test(start_paused = true)]
async fn the_first_moment_of_a_slowdown_stays_within_the_budget() {
    for slower in [10, 100, 1000] {
        let question = [pattern(Some("s3"), None, None)];
        let asker = two_that_became_slower(&question, slower).await;
        let before = asker.fanout.total.requests();
        for round in 0..20 {
            futures::future::try_join_all((0..200).map(|_| asker.lookup(&question))).await.unwrap();
            let extra = asker.fanout.total.hedges() + asker.fanout.total.probes();
            let wanted = asker.fanout.total.requests() - before - extra;
            assert_eq!(wanted, 200 * (round + 1));
            assert!(
                extra > 0 && extra <= wanted / 20 + crate::api::hedge::BURST,
                "{extra} extra requests for {wanted}"
            );
            assert_eq!(asker.fanout.out(), [], "both are {slower} times slower, in round {round}");
        }
    }
}

/// It is told as left out for as long as there is such a view, and not for ever.
#[tokio::test(start_paused = true)]
async fn a_view_that_is_no_more_is_not_left_out() {
    let views = FakeViews::new(facts(), BTreeMap::new());
    views.add("a", (0, 1), true, Mood::AnswersAfter(ms(2)));
    views.add("b", (0, 1), true, Mood::FailsAfter(ms(1), Code::Unavailable));
    let asker = Asker::new(&views);
    for _ in 0..100 {
        asker.lookup(&[pattern(Some("s3"), None, None)]).await.unwrap();
    }
    let b = Name::new("b").unwrap();
    assert_eq!(asker.fanout.out(), std::slice::from_ref(&b));
    views.shared.fakes.lock().unwrap().remove(&b);
    assert_eq!(asker.fanout.out(), []);
}

/// Views refuse because they have too much to do. Two are asked for each part, and then it is given up: asking all in turn
/// would give them more.
#[tokio::test(start_paused = true)]
async fn work_that_is_refused_is_not_multiplied() {
    let views = FakeViews::new(facts(), BTreeMap::new());
    for view in ["a", "b"] {
        views.add(view, (0, 1), true, Mood::FailsAfter(ms(1), Code::Overloaded));
    }
    for view in ["c", "d", "e"] {
        views.add(view, (0, 1), false, Mood::FailsAfter(ms(1), Code::Overloaded));
    }
    let asker = Asker::new(&views);
    let question = [pattern(Some("s3"), None, None)];
    for _ in 0..100 {
        assert_eq!(asker.lookup(&question).await.unwrap_err().code, Code::Overloaded);
    }
    assert_eq!(asker.fanout.total.requests(), 200);
    assert!(asker.fanout.out().is_empty(), "all have too much to do");
}

/// A view that lags is not asked for what it has not applied while others have, and is asked for what it has.
#[tokio::test(start_paused = true)]
async fn a_view_that_lags_answers_for_the_past() {
    let views = FakeViews::new(facts(), BTreeMap::new());
    for view in ["lagging", "ahead"] {
        views.add(view, (0, 1), true, Mood::AnswersAfter(ms(2)));
    }
    views.change("lagging", |status| status.applied = LogIndex(8));
    let asker = Asker::new(&views);
    let question = vec![pattern(Some("s3"), None, None)];
    for (index, expected) in [(10, &["ahead"][..]), (8, &["ahead", "lagging"])] {
        for _ in 0..100 {
            let at = Version { index: LogIndex(index), ..AT };
            let source = Lookups { at, ..asker.source() };
            source.lookup(question.clone(), usize::MAX).await.unwrap();
        }
        let asked = views.asked();
        let asked: std::collections::BTreeSet<&str> = asked.split(' ').collect();
        assert_eq!(asked.into_iter().collect::<Vec<_>>(), expected, "at {index}");
    }
}

/// A late view still has a request when two others refuse theirs. Its answer is waited for.
#[tokio::test(start_paused = true)]
async fn who_is_only_late_may_still_answer_when_others_refuse() {
    let facts = facts();
    let views = FakeViews::new(facts.clone(), BTreeMap::new());
    views.add("near", (0, 1), true, Mood::AnswersAfter(ms(2)));
    for view in ["a", "b", "c"] {
        views.add(view, (0, 1), false, Mood::FailsAfter(ms(1), Code::Overloaded));
    }
    let asker = Asker::new(&views);
    let question = [pattern(Some("s3"), None, None)];
    for _ in 0..100 {
        asker.lookup(&question).await.unwrap();
    }
    views.asked();
    views.set("near", Mood::AnswersAfter(ms(60)));
    assert!(asker.lookup(&question).await.unwrap() == matching(&facts, &question));
    assert!(views.asked().split(' ').count() > 2, "two others were asked, and refused");
}

/// Where no single view holds what is asked for, a question is sent in parts to several, each of which may be hedged. Their
/// requests are counted once, so hedges stay one in twenty.
#[tokio::test(start_paused = true)]
async fn parts_of_parts_earn_no_hedges_again() {
    let views = FakeViews::new(facts(), BTreeMap::new());
    views.add("whole", (0, 1), true, Mood::FailsAfter(ms(1), Code::Unavailable));
    views.add("half0", (0, 2), false, Mood::AnswersAfter(ms(2)));
    views.add("half1", (1, 2), false, Mood::AnswersAfter(ms(2)));
    let asker = Asker::new(&views);
    while asker.fanout.budget().spend(1) {}
    let question = [pattern(None, None, None)];
    // The one that holds all is asked, fails, and two others answer: three requests.
    asker.lookup(&question).await.unwrap();
    assert_eq!((views.asked().as_str(), asker.fanout.total.requests()), ("whole half0 half1", 3));
    asker.fanout.budget().earn(17);
    assert!(asker.fanout.budget().spend(1), "three and seventeen are twenty");
    asker.lookup(&question).await.unwrap();
    asker.fanout.budget().earn(16);
    assert!(!asker.fanout.budget().spend(1), "and not more");
}

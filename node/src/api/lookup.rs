//! Facts and texts for one query, at one version: what a query asks becomes questions to views.

use crate::api::cover::ranges_of;
use crate::api::fanout::{Fanout, Question, Tally};
use crate::query::{Found, Source};
use crate::remote::view::{Asking, Views};
use beam_wire::fact::Pattern;
use beam_wire::message::view::{KEYS_MAX, LookupChunk, TermsChunk, ViewLookup, ViewTerms};
use beam_wire::{CallError, Code, Fact, Point, Range, Space, Term, TermId, Version};
use futures::future::{BoxFuture, try_join_all};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

/// The door through which one query asks.
pub struct Lookups<'a, V> {
    /// Who is asked.
    pub fanout: &'a Fanout<V>,
    /// Texts that were asked for before, by any query.
    pub texts: &'a TextCache,
    /// The version that every question is about.
    pub at: Version,
    /// A part of the facts is always the same part. That takes looking at all of them.
    pub repeatable: bool,
    /// When the query must be done.
    pub deadline: Instant,
    /// What it took.
    pub took: Took,
}

/// What a query took.
#[derive(Debug, Default)]
pub struct Took {
    /// Requests to views.
    pub tally: Tally,
    /// Facts that came from them.
    pub facts: AtomicU64,
}

impl<V: Views> Source for Lookups<'_, V> {
    fn lookup(&self, patterns: Vec<Pattern>, limit: usize) -> BoxFuture<'_, Result<Found, CallError>> {
        Box::pin(async move {
            let keys = Keys::sort(patterns);
            let questions = keys.questions(self.at, limit);
            let asked = questions.iter().map(|q| self.fanout.ask(q, self.deadline, &self.took.tally));
            let answers = try_join_all(asked).await?;
            let complete = answers.iter().all(|a| a.complete);
            let mut facts: Vec<Fact> = answers.into_iter().flat_map(|a| a.found).collect();
            // Views answer in any order, and not always the same ones answer.
            facts.sort_unstable();
            self.took.facts.fetch_add(facts.len() as u64, Ordering::Relaxed);
            Ok(Found { facts, complete })
        })
    }

    fn some(&self, pattern: Pattern, count: usize) -> BoxFuture<'_, Result<Found, CallError>> {
        if !self.repeatable {
            return self.lookup(vec![pattern], count);
        }
        Box::pin(async move {
            let keys = Keys::sort(vec![pattern]);
            let mut facts = Vec::new();
            for question in keys.questions(self.at, usize::MAX) {
                let question = First { lookup: question, count };
                facts.extend(self.fanout.ask(&question, self.deadline, &self.took.tally).await?.found);
            }
            facts.sort_unstable();
            let complete = facts.len() <= count;
            facts.truncate(count);
            self.took.facts.fetch_add(facts.len() as u64, Ordering::Relaxed);
            Ok(Found { facts, complete })
        })
    }

    fn version(&self) -> Option<Version> {
        Some(self.at)
    }

    fn terms(&self, ids: Vec<TermId>) -> BoxFuture<'_, Result<Vec<(TermId, Term)>, CallError>> {
        Box::pin(async move {
            let (mut known, unknown) = self.texts.find(ids);
            let questions = Texts::split(unknown, self.at);
            let asked = questions.iter().map(|q| self.fanout.ask(q, self.deadline, &self.took.tally));
            let found: Vec<(TermId, Term)> = try_join_all(asked).await?.into_iter().flat_map(|a| a.found).collect();
            self.texts.keep(&found);
            known.extend(found);
            Ok(known)
        })
    }
}

/// Patterns, by where they are looked up: at their subject, else at their object, else everywhere in the
/// subject space.
///
/// A fact that several patterns match counts for the first of them, in this order, so that each is found
/// once.
#[derive(Default)]
struct Keys {
    /// Ascending by points.
    subjects: Vec<(Point, Pattern)>,
    /// Ascending by points.
    objects: Vec<(Point, Pattern)>,
    scans: Vec<Pattern>,
}

/// Patterns of one kind, which are asked for together.
struct Lookup<'a> {
    keys: &'a Keys,
    kind: Kind,
    at: Version,
    wanted: Vec<Range>,
    limit: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Subjects,
    Objects,
    Scans,
}

impl Keys {
    fn sort(patterns: Vec<Pattern>) -> Keys {
        let mut keys = Keys::default();
        for pattern in patterns {
            match (pattern.subject, pattern.object) {
                (Some(subject), _) => keys.subjects.push((subject.point(), pattern)),
                (None, Some(object)) => keys.objects.push((object.point(), pattern)),
                (None, None) => keys.scans.push(pattern),
            }
        }
        for sorted in [&mut keys.subjects, &mut keys.objects] {
            sorted.sort_unstable();
            sorted.dedup();
        }
        keys.scans.sort_unstable();
        keys.scans.dedup();
        keys
    }

    fn questions(&self, at: Version, limit: usize) -> Vec<Lookup<'_>> {
        let points = |keys: &[(Point, Pattern)]| ranges_of(keys.iter().map(|(point, _)| *point));
        let everywhere = if self.scans.is_empty() { Vec::new() } else { vec![Range::ALL] };
        let kinds = [
            (Kind::Subjects, points(&self.subjects)),
            (Kind::Objects, points(&self.objects)),
            (Kind::Scans, everywhere),
        ];
        let asked = kinds.into_iter().filter(|(_, wanted)| !wanted.is_empty());
        asked.map(|(kind, wanted)| Lookup { keys: self, kind, at, wanted, limit }).collect()
    }

    /// Whether a kind that comes before this one finds the fact too.
    fn found_before(&self, kind: Kind, fact: &Fact) -> bool {
        let at = |keys: &[(Point, Pattern)], term: TermId| {
            let point = || Range { first: term.point(), last: term.point() };
            !keys.is_empty() && in_range(keys, point(), |(point, _)| *point).iter().any(|(_, p)| p.matches(fact))
        };
        kind > Kind::Subjects && at(&self.subjects, fact.subject)
            || kind > Kind::Objects && at(&self.objects, fact.object)
    }
}

impl Question for Lookup<'_> {
    type Call = ViewLookup;
    type Found = Fact;

    fn asking(&self) -> Asking {
        if self.kind == Kind::Scans { Asking::Scan } else { Asking::Keys }
    }

    fn at(&self) -> Version {
        self.at
    }

    fn space(&self) -> Option<Space> {
        Some(if self.kind == Kind::Objects { Space::Object } else { Space::Subject })
    }

    fn wanted(&self) -> &[Range] {
        &self.wanted
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn request(&self, range: Range) -> ViewLookup {
        let keys = |keys| in_range(keys, range, |(point, _)| *point).iter().map(|(_, pattern)| *pattern).collect();
        let (space, patterns) = match self.kind {
            Kind::Subjects => (Space::Subject, keys(&self.keys.subjects)),
            Kind::Objects => (Space::Object, keys(&self.keys.objects)),
            Kind::Scans => (Space::Subject, self.keys.scans.clone()),
        };
        ViewLookup { at: self.at, space, range, patterns }
    }

    fn take(&self, request: &ViewLookup, reply: LookupChunk) -> Result<Vec<Fact>, CallError> {
        let mut facts = Vec::with_capacity(reply.facts.len());
        for (number, fact) in reply.facts {
            let number = number as usize;
            let Some(pattern) = request.patterns.get(number).filter(|p| p.matches(&fact)) else {
                let message = format!("a fact was sent that pattern {number} does not look for");
                return Err(CallError::elsewhere(Code::Internal, message));
            };
            // Patterns are sorted, so those of the same key stand together.
            let mut before = request.patterns[..number].iter().rev();
            let found_here = match self.kind {
                Kind::Subjects => before.take_while(|p| p.subject == pattern.subject).any(|p| p.matches(&fact)),
                Kind::Objects => before.take_while(|p| p.object == pattern.object).any(|p| p.matches(&fact)),
                Kind::Scans => before.any(|p| p.matches(&fact)),
            };
            if !found_here && !self.keys.found_before(self.kind, &fact) {
                facts.push(fact);
            }
        }
        Ok(facts)
    }
}

/// The first facts in the order of facts, one more than are wanted. Views answer in no promised order: all that
/// match are looked at, and few are held.
struct First<'a> {
    lookup: Lookup<'a>,
    count: usize,
}

/// What is held beyond the wanted ones before it is sorted out: so that sorting costs little per fact.
const UNSORTED_MAX: usize = 4096;

impl Question for First<'_> {
    type Call = ViewLookup;
    type Found = Fact;

    fn asking(&self) -> Asking {
        self.lookup.asking()
    }

    fn at(&self) -> Version {
        self.lookup.at()
    }

    fn space(&self) -> Option<Space> {
        self.lookup.space()
    }

    fn wanted(&self) -> &[Range] {
        self.lookup.wanted()
    }

    fn request(&self, range: Range) -> ViewLookup {
        self.lookup.request(range)
    }

    fn keep(&self, found: &mut Vec<Fact>) {
        let wanted = self.count.saturating_add(1);
        if found.len() > wanted.saturating_mul(2).max(UNSORTED_MAX) {
            found.select_nth_unstable(wanted);
            found.truncate(wanted);
        }
    }

    fn take(&self, request: &ViewLookup, reply: LookupChunk) -> Result<Vec<Fact>, CallError> {
        self.lookup.take(request, reply)
    }
}

/// Texts of terms.
struct Texts {
    at: Version,
    wanted: Vec<Range>,
    /// Ascending by points.
    ids: Vec<(Point, TermId)>,
}

impl Texts {
    fn split(ids: Vec<TermId>, at: Version) -> Vec<Texts> {
        let mut ids: Vec<(Point, TermId)> = ids.into_iter().map(|id| (id.point(), id)).collect();
        ids.sort_unstable();
        ids.dedup();
        let chunks = ids.chunks(KEYS_MAX);
        chunks.map(|ids| Texts { at, wanted: ranges_of(ids.iter().map(|i| i.0)), ids: ids.to_vec() }).collect()
    }
}

impl Question for Texts {
    type Call = ViewTerms;
    type Found = (TermId, Term);

    fn asking(&self) -> Asking {
        Asking::Terms
    }

    fn at(&self) -> Version {
        self.at
    }

    fn space(&self) -> Option<Space> {
        Some(Space::Term)
    }

    fn wanted(&self) -> &[Range] {
        &self.wanted
    }

    fn request(&self, range: Range) -> ViewTerms {
        let ids = in_range(&self.ids, range, |(point, _)| *point).iter().map(|(_, id)| *id).collect();
        ViewTerms { at: self.at, ids }
    }

    fn take(&self, request: &ViewTerms, reply: TermsChunk) -> Result<Vec<(TermId, Term)>, CallError> {
        let texts = reply.terms.into_iter().map(|(number, term)| match request.ids.get(number as usize) {
            Some(id) => Ok((*id, term)),
            None => Err(CallError::elsewhere(Code::Internal, format!("term {number} was not asked for"))),
        });
        texts.collect()
    }
}

/// The keys (ascending by points) whose points lie in a range.
fn in_range<K>(keys: &[K], range: Range, point: impl Fn(&K) -> Point) -> &[K] {
    let first = keys.partition_point(|k| point(k) < range.first);
    let end = keys.partition_point(|k| point(k) <= range.last);
    &keys[first..end]
}

/// Texts that were looked up lately. A text belongs to its id forever, whatever the version.
///
/// Two generations: what is found moves to the young one; when that is full, it becomes the old one, and
/// what was old is forgotten.
pub struct TextCache {
    generation_bytes: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<TermId, Term>,
    young_bytes: usize,
    old: HashMap<TermId, Term>,
}

impl TextCache {
    /// Holds at most so many bytes of texts.
    pub fn new(bytes: usize) -> TextCache {
        TextCache { generation_bytes: bytes / 2, generations: Mutex::default() }
    }

    /// The texts that need not be asked for, and the ids that do.
    fn find(&self, ids: Vec<TermId>) -> (Vec<(TermId, Term)>, Vec<TermId>) {
        let mut generations = self.generations.lock().expect("no holder panics");
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for id in ids {
            match id.inline().or_else(|| generations.find(&id, self.generation_bytes)) {
                Some(term) => known.push((id, term)),
                None => unknown.push(id),
            }
        }
        (known, unknown)
    }

    fn keep(&self, texts: &[(TermId, Term)]) {
        let mut generations = self.generations.lock().expect("no holder panics");
        texts.iter().for_each(|(id, term)| generations.keep(*id, term.clone(), self.generation_bytes));
    }
}

impl Generations {
    fn find(&mut self, id: &TermId, bytes_max: usize) -> Option<Term> {
        if let Some(term) = self.young.get(id) {
            return Some(term.clone());
        }
        let term = self.old.remove(id)?;
        self.keep(*id, term.clone(), bytes_max);
        Some(term)
    }

    fn keep(&mut self, id: TermId, term: Term, bytes_max: usize) {
        let bytes = size(&term);
        if self.young_bytes + bytes > bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if bytes <= bytes_max && self.young.insert(id, term).is_none() {
            self.young_bytes += bytes;
        }
    }
}

/// About what a text costs in memory, with its place in the table.
fn size(term: &Term) -> usize {
    const PLACE: usize = size_of::<(TermId, Term)>() * 8 / 7 + 16;
    PLACE
        + match term {
            Term::Iri(text) | Term::Blank(text) => text.len(),
            Term::Literal { lexical, datatype } => lexical.len() + datatype.len(),
            Term::LangLiteral { lexical, language, .. } => lexical.len() + language.len(),
            Term::Triple(terms) => terms.iter().map(size).sum(),
        }
}

//! Small answers, remembered: the live facts whose keys begin with some terms, as they were at one index.
//!
//! Nothing is removed when facts change. Whoever finds an answer here asks the write history whether anything that it
//! looks for was written since that index, or since the version that it reads if that is the older one. If not, what
//! is live, past and to come agree in between, and the answer is that of its version.
//!
//! What this never does: hold more than some bytes, or answers that are long. It decides nothing: what is in it
//! changes how long a look-up takes, and never what it finds.

use super::keys::{Key, LIVE_BYTES_MAX, Order};
use beam_wire::{Fact, LogIndex};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// The longest answer that is kept: what a subject, or a subject and a predicate, usually have.
pub const FACTS_MAX: usize = if cfg!(test) { 4 } else { 64 };

/// What all of them take.
const BYTES_MAX: u64 = 16 << 20;

/// What an answer takes beside its facts: its key, its places in the cache, and what allocating costs.
const ANSWER_BYTES: usize = 160;

/// Locks: more than there are cores to wait for one another.
const SHARDS: usize = 16;

/// The live facts with some prefix.
pub struct Answer {
    /// The index at which these were all.
    pub at: LogIndex,
    /// In the order of their bytes.
    pub facts: Box<[Fact]>,
}

/// Answers by order and prefix. Cheap to clone.
#[derive(Clone)]
pub struct RowCache(Arc<Answers>);

/// The same keys fall into the same places in every run: a simulation repeats itself.
type Answers = Cache<Box<[u8]>, Arc<Answer>, Bytes, BuildHasherDefault<DefaultHasher>>;

impl RowCache {
    /// An empty one.
    pub fn new() -> RowCache {
        let answers = BYTES_MAX as usize / ANSWER_BYTES;
        let options = OptionsBuilder::new()
            .estimated_items_capacity(answers / 4)
            .weight_capacity(BYTES_MAX)
            .shards(SHARDS)
            .build()
            .expect("all that it needs is given");
        RowCache(Arc::new(Answers::with_options(options, Bytes, Default::default(), DefaultLifecycle::default())))
    }

    /// What is remembered of a prefix.
    pub fn get(&self, order: Order, prefix: &Key) -> Option<Arc<Answer>> {
        let mut name = [0; 1 + LIVE_BYTES_MAX];
        self.0.get(named(order, prefix, &mut name))
    }

    /// Remembers at most [`FACTS_MAX`] facts in place of what was there.
    pub fn put(&self, order: Order, prefix: &Key, answer: Answer) {
        let mut name = [0; 1 + LIVE_BYTES_MAX];
        self.0.insert(named(order, prefix, &mut name).into(), Arc::new(answer));
    }
}

fn named<'a>(order: Order, prefix: &Key, name: &'a mut [u8; 1 + LIVE_BYTES_MAX]) -> &'a [u8] {
    let prefix = prefix.as_ref();
    name[0] = order as u8;
    name[1..1 + prefix.len()].copy_from_slice(prefix);
    &name[..1 + prefix.len()]
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Box<[u8]>, Arc<Answer>> for Bytes {
    fn weight(&self, name: &Box<[u8]>, answer: &Arc<Answer>) -> u64 {
        (ANSWER_BYTES + name.len() + size_of_val(&*answer.facts)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::TermId;

    #[test]
    fn it_takes_no_more_than_it_may() {
        let (cache, id) = (RowCache::new(), TermId([1; 17]));
        let fact = Fact { subject: id, predicate: id, object: id, graph: id };
        let prefix = |number: u32| {
            let mut id = TermId([0; 17]);
            id.0[..4].copy_from_slice(&number.to_be_bytes());
            Key::prefix(&[id])
        };
        for number in 0..100_000 {
            cache.put(Order::Spog, &prefix(number), Answer { at: LogIndex(1), facts: [fact; FACTS_MAX].into() });
        }
        assert!(cache.0.weight() <= BYTES_MAX);
        let found = |order| (0..100_000).filter(|number| cache.get(order, &prefix(*number)).is_some()).count();
        assert!(found(Order::Spog) > 1_000);
        assert_eq!(found(Order::Opsg), 0);
    }
}

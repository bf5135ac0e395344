//! Classes of facts: what a transaction's conditions read, and what its writes touch.

use crate::space::Point;
use crate::term::TermId;

/// A way in which facts are looked up, and so a class of facts that a reader depends on. Graphs do
/// not refine the classes of subject, predicate and object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants name the given terms")]
pub enum AccessPath {
    SubjectPredicateObject(TermId, TermId, TermId),
    SubjectPredicate(TermId, TermId),
    PredicateObject(TermId, TermId),
    Subject(TermId),
    Predicate(TermId),
    Object(TermId),
    Graph(TermId),
    Everything,
}

impl AccessPath {
    /// The hash that stands for the class: the same on every node.
    ///
    /// A look-up in a graph that is given, or in all of them, is of the class of its other terms; of
    /// [`AccessPath::Graph`] only if nothing else is given.
    pub fn hash(&self) -> u64 {
        use AccessPath::*;
        let point = |id: &TermId| id.point().0;
        match self {
            SubjectPredicateObject(s, p, o) => chain(1, [point(s), point(p), point(o)]),
            SubjectPredicate(s, p) => chain(2, [point(s), point(p)]),
            PredicateObject(p, o) => chain(3, [point(p), point(o)]),
            Subject(s) => chain(4, [point(s)]),
            Predicate(p) => chain(5, [point(p)]),
            Object(o) => chain(6, [point(o)]),
            Graph(g) => chain(7, [point(g)]),
            Everything => chain(8, []),
        }
    }

    /// The hashes of every class that a fact belongs to. `points` are those of its subject,
    /// predicate, object and graph.
    pub fn classes(points: [Point; 4]) -> [u64; 8] {
        let [s, p, o, g] = points.map(|point| point.0);
        [
            chain(1, [s, p, o]),
            chain(2, [s, p]),
            chain(3, [p, o]),
            chain(4, [s]),
            chain(5, [p]),
            chain(6, [o]),
            chain(7, [g]),
            chain(8, []),
        ]
    }
}

/// Mixes a tag and points into one number. Points are hashes already; all that is left to do is to
/// keep classes of different tags and orders apart, so a cheap mixer will do: 11 of these are paid
/// for every fact that is written.
fn chain<const N: usize>(tag: u64, points: [u64; N]) -> u64 {
    points.into_iter().fold(mix(tag), |hash, point| mix(hash.wrapping_add(point)))
}

/// The output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014), after its step.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::term::Term;

    #[test]
    fn a_fact_is_of_every_class_that_a_look_up_can_find_it_by() {
        let [s, p, o] = ["x:s", "x:p", "x:o"].map(|iri| TermId::of(&Term::Iri(iri.into())));
        let g = TermId::DEFAULT_GRAPH;
        let classes = AccessPath::classes([s, p, o, g].map(|id| id.point()));
        let paths = [
            AccessPath::SubjectPredicateObject(s, p, o),
            AccessPath::SubjectPredicate(s, p),
            AccessPath::PredicateObject(p, o),
            AccessPath::Subject(s),
            AccessPath::Predicate(p),
            AccessPath::Object(o),
            AccessPath::Graph(g),
            AccessPath::Everything,
        ];
        assert_eq!(paths.map(|path| path.hash()), classes);
    }

    #[test]
    fn classes_of_other_tags_and_orders_differ() {
        let a = TermId::of(&Term::string("a"));
        let b = TermId::of(&Term::string("b"));
        let mut hashes = vec![
            AccessPath::Subject(a).hash(),
            AccessPath::Predicate(a).hash(),
            AccessPath::Object(a).hash(),
            AccessPath::Graph(a).hash(),
            AccessPath::SubjectPredicate(a, b).hash(),
            AccessPath::SubjectPredicate(b, a).hash(),
            AccessPath::PredicateObject(a, b).hash(),
            AccessPath::SubjectPredicateObject(a, a, b).hash(),
            AccessPath::SubjectPredicateObject(a, b, a).hash(),
            AccessPath::Everything.hash(),
        ];
        let count = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }

    #[test]
    fn the_mixer_is_splitmix64() {
        // The first outputs of the reference generator seeded with 0 and with 1234567.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }
}

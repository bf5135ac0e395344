//! Which api node to ask: decided without I/O.
//!
//! The preferred datacenter first, and within one as its SRV records say (RFC 2782: by priority, then at
//! random by weight). A node that failed rests for a while, and is asked after all others.

use beam_wire::Name;
use beam_wire::quic::NodeAddress;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The first rest. It doubles with each failure in a row, up to the longest.
const REST_FIRST: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(30);

/// Who failed lately.
#[derive(Debug, Default)]
pub struct Standing {
    resting: BTreeMap<Name, Rest>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    failures: u32,
}

impl Standing {
    /// The node answered.
    pub fn answered(&mut self, node: &Name) {
        self.resting.remove(node);
    }

    /// The node failed, in a way that others may not.
    pub fn failed(&mut self, node: &Name, now: Instant) {
        let rest = self.resting.entry(node.clone()).or_insert(Rest { until: now, failures: 0 });
        let pause = (REST_FIRST * (1 << rest.failures.min(10))).min(REST_MAX);
        rest.failures += 1;
        rest.until = now + pause;
    }

    /// Whether the node has failed, and has not answered since: it is asked again when it has rested, but not waited
    /// for as others are.
    pub fn is_suspect(&self, node: &Name) -> bool {
        self.resting.contains_key(node)
    }

    /// The nodes in the order in which to ask them.
    pub fn order(
        &self,
        nodes: Vec<NodeAddress>,
        preference: &[Name],
        now: Instant,
        random_below: &mut dyn FnMut(usize) -> usize,
    ) -> Vec<NodeAddress> {
        let rank = |node: &NodeAddress| preference.iter().position(|dc| *dc == node.datacenter);
        let rest = |node: &NodeAddress| self.resting.get(&node.node).map(|r| r.until).filter(|until| *until > now);
        let mut left = nodes;
        left.sort_by_key(|n| (rest(n), rank(n).unwrap_or(usize::MAX), n.priority, n.node.clone()));
        let mut order = Vec::with_capacity(left.len());
        while let Some(first) = left.first() {
            let same = |n: &&NodeAddress| (rest(n), rank(n), n.priority) == (rest(first), rank(first), first.priority);
            let group: Vec<usize> = left.iter().take_while(same).map(|n| usize::from(n.weight)).collect();
            order.push(left.remove(by_weight(&group, random_below)));
        }
        order
    }
}

/// One of the group: the more often the higher its weight. Weight 0 has a small chance.
fn by_weight(weights: &[usize], random_below: &mut dyn FnMut(usize) -> usize) -> usize {
    let weight = |w: &usize| w * 16 + 1;
    let mut ticket = random_below(weights.iter().map(weight).sum());
    weights
        .iter()
        .position(|w| {
            let found = ticket < weight(w);
            ticket = ticket.saturating_sub(weight(w));
            found
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use beam_wire::Role;

    fn node(name: &str, priority: u16, weight: u16) -> NodeAddress {
        let (_, datacenter) = name.split_once('-').unwrap();
        let datacenter = Name::new(datacenter.trim_end_matches(|c: char| c.is_ascii_digit())).unwrap();
        let addresses = vec!["127.0.0.1:1".parse().unwrap()];
        NodeAddress { node: Name::new(name).unwrap(), datacenter, role: Role::Api, priority, weight, addresses }
    }

    fn names(order: &[NodeAddress]) -> Vec<&str> {
        order.iter().map(|n| n.node.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn near_nodes_come_first_and_failed_ones_last() {
        let now = beam_wire::env::Env::real(std::sync::Arc::new(NoDns)).now();
        let preference = ["or", "va"].map(|n| Name::new(n).unwrap());
        let nodes = || vec![node("a-va", 0, 1), node("b-or1", 1, 1), node("c-or2", 0, 1), node("d-ie", 0, 1)];
        let mut standing = Standing::default();
        let mut first = |_| 0;
        let order = |standing: &Standing, now, first: &mut dyn FnMut(usize) -> usize| {
            names(&standing.order(nodes(), &preference, now, first)).join(" ")
        };
        assert_eq!(order(&standing, now, &mut first), "c-or2 b-or1 a-va d-ie");
        let failed = Name::new("c-or2").unwrap();
        assert!(!standing.is_suspect(&failed));
        standing.failed(&failed, now);
        assert!(standing.is_suspect(&failed));
        assert_eq!(order(&standing, now, &mut first), "b-or1 a-va d-ie c-or2");
        assert_eq!(order(&standing, now + REST_FIRST, &mut first), "c-or2 b-or1 a-va d-ie", "it has rested");
        standing.failed(&Name::new("c-or2").unwrap(), now);
        assert_eq!(order(&standing, now + REST_FIRST, &mut first), "b-or1 a-va d-ie c-or2", "and rests longer");
        standing.answered(&failed);
        assert!(!standing.is_suspect(&failed));
        assert_eq!(order(&standing, now, &mut first), "c-or2 b-or1 a-va d-ie");
    }

    #[test]
    fn weights_are_chances() {
        let tickets = 0..(16 * 3 + 1 + 16 + 1 + 1);
        let mut counts = [0; 3];
        let total = tickets.end;
        for ticket in tickets {
            counts[by_weight(&[3, 1, 0], &mut |n| {
                assert_eq!(n, total);
                ticket
            })] += 1;
        }
        assert_eq!(counts, [49, 17, 1]);
    }

    struct NoDns;

    impl beam_wire::env::Dns for NoDns {
        fn srv<'a>(
            &'a self,
            name: &'a str,
        ) -> futures::future::BoxFuture<'a, Result<beam_wire::env::SrvAnswer, beam_wire::env::DnsError>> {
            Box::pin(async move { Err(beam_wire::env::DnsError::NoSuchName(name.to_owned())) })
        }
    }
}

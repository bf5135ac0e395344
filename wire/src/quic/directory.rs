//! Who is where, by DNS.
//!
//! One SRV name for each role and datacenter, each asked again when its answer expires. What DNS said
//! last is kept when it fails, and also when it says that there is no such name: a zone that was
//! emptied by mistake must not take a running cluster apart. Only an answer that names other nodes
//! takes nodes away.
//!
//! A lie in DNS costs availability at most: whoever dials demands a certificate for the node's name
//! ([`super::Target`]).

use super::Target;
use crate::env::{DnsError, Env, SrvAnswer, SrvTarget, Task};
use crate::identity::Role;
use crate::ids::Name;
use crate::topology::{node_of_host, service_name};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// How long an answer may take, all tries and all hosts included. Resolvers have timeouts of their own;
/// this is for when those fail.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How often to ask.
#[derive(Clone, Debug)]
pub struct DirectoryOptions {
    /// Never sooner than this after an answer, whatever its TTL: a TTL of 0 must not be a flood.
    pub refresh_min: Duration,
    /// Never later than this: a TTL of a day must not hide a node that moved.
    pub refresh_max: Duration,
    /// How long to wait after a failure. Twice as long after each further one, up to `refresh_min`
    /// or a minute, whichever is longer.
    pub retry: Duration,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { refresh_min: seconds(5), refresh_max: seconds(300), retry: Duration::from_millis(500) }
    }
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAddress {
    /// Its name.
    pub node: Name,
    /// Its datacenter.
    pub datacenter: Name,
    /// The role under which DNS names it.
    pub role: Role,
    /// Lower ones are to be tried first (RFC 2782).
    pub priority: u16,
    /// How often, among those of one priority (RFC 2782).
    pub weight: u16,
    /// Not empty, ascending.
    pub addresses: Vec<SocketAddr>,
}

impl NodeAddress {
    /// What to dial: this node and no other.
    pub fn target(&self) -> Target {
        Target {
            node: Some(self.node.clone()),
            datacenter: Some(self.datacenter.clone()),
            addresses: self.addresses.clone(),
        }
    }
}

/// DNS has not said anything useful.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no node is known: {}", .why.join("; "))]
pub struct NobodyKnown {
    /// What each name led to.
    pub why: Vec<String>,
}

/// All nodes that DNS names. Clones share one view of them; the last one dropped ends the asking.
#[derive(Clone)]
pub struct Directory {
    known: Arc<Known>,
    _asking: Arc<Vec<Task>>,
}

struct Known {
    zone: String,
    table: Mutex<Table>,
    changed: Notify,
}

struct Table {
    /// Counts changes.
    version: u64,
    places: BTreeMap<(Role, Name), Place>,
}

/// What one SRV name leads to.
#[derive(Default)]
struct Place {
    nodes: Vec<NodeAddress>,
    /// The last answer's error, or none when it was good.
    said: Option<Result<(), DnsError>>,
}

impl Directory {
    /// Begins to ask for these roles in these datacenters.
    pub fn start(
        env: &Env,
        zone: &str,
        datacenters: Vec<Name>,
        roles: &[Role],
        options: DirectoryOptions,
    ) -> Directory {
        let each_role = |dc: &Name| roles.iter().map(|role| (*role, dc.clone())).collect::<Vec<_>>();
        let keys: Vec<(Role, Name)> = datacenters.iter().flat_map(each_role).collect();
        let places = keys.iter().map(|key| (key.clone(), Place::default())).collect();
        let known = Arc::new(Known {
            zone: zone.trim_end_matches('.').to_ascii_lowercase(),
            table: Mutex::new(Table { version: 0, places }),
            changed: Notify::new(),
        });
        let ask = |(role, datacenter)| {
            let asking = ask(env.clone(), known.clone(), role, datacenter, options.clone());
            env.tasks().serve("directory.ask", asking)
        };
        let asking = keys.into_iter().map(ask).collect();
        Directory { known, _asking: Arc::new(asking) }
    }

    /// The nodes of a role in a datacenter, by name.
    pub fn nodes(&self, role: Role, datacenter: &Name) -> Vec<NodeAddress> {
        let table = self.known.table();
        table.places.get(&(role, datacenter.clone())).map(|place| place.nodes.clone()).unwrap_or_default()
    }

    /// The nodes of a role in all datacenters, by datacenter and name.
    pub fn nodes_everywhere(&self, role: Role) -> Vec<NodeAddress> {
        let table = self.known.table();
        let here = table.places.iter().filter(|((of, _), _)| *of == role);
        here.flat_map(|(_, place)| place.nodes.iter().cloned()).collect()
    }

    /// Where a node is.
    pub fn find(&self, node: &Name) -> Option<NodeAddress> {
        let table = self.known.table();
        table.places.values().flat_map(|place| &place.nodes).find(|known| known.node == *node).cloned()
    }

    /// Counts the changes of what the directory knows.
    pub fn version(&self) -> u64 {
        self.known.table().version
    }

    /// Waits until there was a change after version `seen`, and returns the version then.
    pub async fn changed(&self, seen: u64) -> u64 {
        self.known.wait(|table| (table.version > seen).then_some(table.version)).await
    }

    /// Waits until DNS has answered for every name. When it did not within `limit`, what is known by
    /// then must do; it is an error if that is nobody.
    pub async fn ready(&self, env: &Env, limit: Duration) -> Result<(), NobodyKnown> {
        let all_answered = |table: &Table| {
            let answered = |place: &Place| matches!(place.said, Some(Ok(()) | Err(DnsError::NoSuchName(_))));
            table.places.values().all(answered).then_some(())
        };
        // Out of time is no different from answered: what counts is who is known.
        let _ = env.timeout(limit, self.known.wait(all_answered)).await;
        let table = self.known.table();
        if table.places.values().any(|place| !place.nodes.is_empty()) {
            return Ok(());
        }
        let why = |((role, datacenter), place): (&(Role, Name), &Place)| {
            let name = service_name(*role, datacenter, &self.known.zone);
            match &place.said {
                None => format!("{name}: DNS did not answer"),
                Some(Err(e)) => format!("{name}: {e}"),
                Some(Ok(())) => format!("{name}: DNS names no node with an address"),
            }
        };
        Err(NobodyKnown { why: table.places.iter().map(why).collect() })
    }
}

impl Known {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().expect("nobody panics while holding the table")
    }

    async fn wait<T>(&self, until: impl Fn(&Table) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listening before looking: a change in between wakes us.
            changed.as_mut().enable();
            if let Some(found) = until(&self.table()) {
                return found;
            }
            changed.await;
        }
    }

    fn heard(&self, role: Role, datacenter: &Name, answer: Result<SrvAnswer, DnsError>) {
        let mut table = self.table();
        let place = table.places.get_mut(&(role, datacenter.clone())).expect("asked for what is in the table");
        let (said, nodes) = match answer {
            Ok(answer) => (Ok(()), Some(nodes(&self.zone, role, datacenter, answer.targets, &place.nodes))),
            Err(e) => (Err(e), None),
        };
        let said = Some(said);
        let (new_nodes, news) = match nodes {
            Some(nodes) => (nodes != place.nodes, nodes),
            None => (false, std::mem::take(&mut place.nodes)),
        };
        place.nodes = news;
        let first = place.said != said;
        place.said = said;
        if new_nodes {
            table.version += 1;
        }
        drop(table);
        if new_nodes || first {
            self.changed.notify_waiters();
        }
    }
}

/// Asks for one name, for ever.
async fn ask(env: Env, known: Arc<Known>, role: Role, datacenter: Name, options: DirectoryOptions) {
    let name = service_name(role, &datacenter, &known.zone);
    let mut retry = options.retry;
    let mut told = None;
    loop {
        let answer = match env.timeout(ANSWER_TIMEOUT, env.dns().srv(&name)).await {
            Ok(answer) => answer,
            Err(_) => Err(DnsError::Failed(format!("{name}: no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
        };
        let (wait, fault) = match &answer {
            Ok(answer) => {
                retry = options.retry;
                (refresh_after(&env, answer.ttl, &options), None)
            }
            Err(e) => {
                let wait = jittered(&env, retry);
                retry = (retry * 2).min(options.refresh_min.max(Duration::from_secs(60)));
                (wait, Some(e.clone()))
            }
        };
        if let Some(fault) = fault.as_ref().filter(|fault| told.as_ref() != Some(*fault)) {
            tracing::warn!(name, %fault, "directory keeps what it knew");
        }
        told = fault;
        known.heard(role, &datacenter, answer);
        env.sleep(wait).await;
    }
}

/// With jitter: nodes that started together would otherwise ask together for ever.
fn refresh_after(env: &Env, ttl: Duration, options: &DirectoryOptions) -> Duration {
    // A configuration with the bounds crossed means the shorter wait.
    let max = options.refresh_max.max(options.refresh_min);
    jittered(env, ttl.min(max)).clamp(options.refresh_min, max)
}

/// ± 20 %.
fn jittered(env: &Env, duration: Duration) -> Duration {
    duration * (800 + env.random_below(401) as u32) / 1000
}

/// The nodes that an answer names. One whose host has no address just now keeps those it had.
fn nodes(
    zone: &str,
    role: Role,
    datacenter: &Name,
    targets: Vec<SrvTarget>,
    before: &[NodeAddress],
) -> Vec<NodeAddress> {
    let mut nodes: BTreeMap<Name, NodeAddress> = BTreeMap::new();
    for SrvTarget { priority, weight, port, target, addresses } in targets {
        let node = match node_of_host(&target, zone) {
            Some((node, at)) if at == *datacenter => node,
            _ => {
                tracing::warn!(%role, %datacenter, target, "DNS names a host that is no node of this datacenter");
                continue;
            }
        };
        let mut addresses: Vec<SocketAddr> = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        if let Some(old) = before.iter().find(|old| old.node == node).filter(|_| addresses.is_empty()) {
            addresses.clone_from(&old.addresses);
        }
        // A node with two records is one node with all their addresses; the better record ranks it.
        let datacenter = datacenter.clone();
        let found = nodes.entry(node.clone()).or_insert(NodeAddress {
            node,
            datacenter,
            role,
            priority,
            weight,
            addresses: Vec::new(),
        });
        if priority < found.priority {
            (found.priority, found.weight) = (priority, weight);
        }
        found.addresses.append(&mut addresses);
    }
    let mut nodes: Vec<NodeAddress> = nodes.into_values().filter(|node| !node.addresses.is_empty()).collect();
    for node in &mut nodes {
        node.addresses.sort();
        node.addresses.dedup();
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Dns;
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use std::net::IpAddr;

    type Answers = BTreeMap<String, Result<SrvAnswer, DnsError>>;

    /// Says what it was told to; nothing for ever where it was told nothing.
    #[derive(Default)]
    struct Script {
        answers: Mutex<Answers>,
        asked: Mutex<Vec<String>>,
    }

    impl Dns for Script {
        fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SrvAnswer, DnsError>> {
            self.asked.lock().unwrap().push(name.into());
            let answer = self.answers.lock().unwrap().get(name).cloned();
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
            .boxed()
        }
    }

    impl Script {
        fn say(&self, name: &str, answer: Result<SrvAnswer, DnsError>) {
            self.answers.lock().unwrap().insert(name.into(), answer);
        }
        fn asked(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    const LOG_VA: &str = "_beam-log._udp.va.beam.test";
    const LOG_OR: &str = "_beam-log._udp.or.beam.test";

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn target(host: &str, port: u16, ips: &[&str]) -> SrvTarget {
        let addresses = ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect();
        SrvTarget { priority: 0, weight: 10, port, target: host.into(), addresses }
    }

    fn answer(targets: Vec<SrvTarget>) -> Result<SrvAnswer, DnsError> {
        Ok(SrvAnswer { targets, ttl: Duration::from_secs(30) })
    }

    fn start(datacenters: &[&str]) -> (Env, Arc<Script>, impl Fn() -> Directory) {
        let script = Arc::new(Script::default());
        let env = Env::real(script.clone());
        let datacenters: Vec<Name> = datacenters.iter().map(|dc| name(dc)).collect();
        let of = env.clone();
        let begin =
            move || Directory::start(&of, "beam.test", datacenters.clone(), &[Role::Log], DirectoryOptions::default());
        (env, script, begin)
    }

    fn hosts(directory: &Directory, datacenter: &str) -> Vec<String> {
        let line = |node: NodeAddress| {
            let addresses: Vec<String> = node.addresses.iter().map(SocketAddr::to_string).collect();
            format!("{} {}", node.node, addresses.join(" "))
        };
        directory.nodes(Role::Log, &name(datacenter)).into_iter().map(line).collect()
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn nodes_are_found_by_role_datacenter_and_name() {
        let (env, script, begin) = start(&["va", "or"]);
        script.say(
            LOG_VA,
            answer(vec![
                target("b.va.beam.test.", 2, &["::1"]),
                target("A.va.Beam.test", 1, &["10.0.0.2", "10.0.0.1"]),
                target("a.va.beam.test", 3, &["10.0.0.1"]),
            ]),
        );
        script.say(LOG_OR, Err(DnsError::NoSuchName(LOG_OR.into())));
        let directory = begin();
        directory.ready(&env, LIMIT).await.unwrap();
        assert_eq!(hosts(&directory, "va"), ["a 10.0.0.1:1 10.0.0.1:3 10.0.0.2:1", "b [::1]:2"]);
        assert_eq!(hosts(&directory, "or"), Vec::<String>::new());
        assert_eq!(directory.nodes_everywhere(Role::Log).len(), 2);
        assert_eq!(directory.nodes(Role::Api, &name("va")), []);
        let found = directory.find(&name("b")).unwrap();
        assert_eq!(found.target().node, Some(name("b")));
        assert_eq!(found.target().datacenter, Some(name("va")));
        assert_eq!(directory.find(&name("c")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_of_elsewhere_are_no_nodes() {
        let (env, script, begin) = start(&["va"]);
        let hosts_of = ["a.or.beam.test", "a.va.other.test", "va.beam.test", "x.a.va.beam.test"];
        let mut targets: Vec<SrvTarget> = hosts_of.iter().map(|host| target(host, 1, &["10.0.0.1"])).collect();
        targets.push(target("none.va.beam.test", 1, &[]));
        script.say(LOG_VA, answer(targets));
        let directory = begin();
        let error = directory.ready(&env, LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no node is known: {LOG_VA}: DNS names no node with an address"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_dns_said_last_stays_through_failure_and_through_no_such_name() {
        let (env, script, begin) = start(&["va"]);
        script.say(LOG_VA, answer(vec![target("a.va.beam.test", 1, &["10.0.0.1"])]));
        let directory = begin();
        directory.ready(&env, LIMIT).await.unwrap();
        let version = directory.version();
        for fault in [DnsError::Failed("timeout".into()), DnsError::NoSuchName(LOG_VA.into())] {
            let asked = script.asked();
            script.say(LOG_VA, Err(fault));
            env.sleep(Duration::from_secs(600)).await;
            assert!(script.asked() > asked + 5, "it asks on");
            assert_eq!(hosts(&directory, "va"), ["a 10.0.0.1:1"]);
        }
        assert_eq!(directory.version(), version);

        // A host without an address just now keeps the one that it had; a node that is no longer
        // named goes.
        let later = [target("a.va.beam.test", 1, &[]), target("b.va.beam.test", 1, &["10.0.0.2"])];
        script.say(LOG_VA, answer(later.to_vec()));
        let version = directory.changed(version).await;
        assert_eq!(hosts(&directory, "va"), ["a 10.0.0.1:1", "b 10.0.0.2:1"]);
        script.say(LOG_VA, answer(later[1..].to_vec()));
        directory.changed(version).await;
        assert_eq!(hosts(&directory, "va"), ["b 10.0.0.2:1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_again_as_the_ttl_says_within_bounds() {
        // TTL, and how many answers 1,000 seconds may take.
        for (ttl, least, most) in [(0, 150, 202), (30, 27, 43), (86_400, 3, 6)] {
            let (env, script, begin) = start(&["va"]);
            let ttl = Duration::from_secs(ttl);
            let targets = vec![target("a.va.beam.test", 1, &["10.0.0.1"])];
            script.say(LOG_VA, Ok(SrvAnswer { targets, ttl }));
            let directory = begin();
            env.sleep(Duration::from_secs(1000)).await;
            let asked = script.asked();
            assert!((least..=most).contains(&asked), "ttl {ttl:?}: asked {asked} times");
            drop(directory);
            env.sleep(Duration::from_secs(1)).await;
            let asked = script.asked();
            env.sleep(Duration::from_secs(1000)).await;
            assert_eq!(script.asked(), asked, "a dropped directory asks no more");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_silent_name_does_not_keep_a_node_from_starting() {
        let (env, script, begin) = start(&["va", "or"]);
        script.say(LOG_OR, answer(vec![target("a.or.beam.test", 1, &["10.0.0.1"])]));
        let directory = begin();
        let before = env.now();
        directory.ready(&env, LIMIT).await.unwrap();
        assert_eq!(env.now() - before, LIMIT, "it waits for the others first");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_known_says_why() {
        let (env, script, begin) = start(&["va", "or"]);
        script.say(LOG_OR, Err(DnsError::Failed("connection refused".into())));
        let error = begin().ready(&env, LIMIT).await.unwrap_err();
        assert_eq!(
            error.why,
            [
                "_beam-log._udp.or.beam.test: DNS failed: connection refused",
                "_beam-log._udp.va.beam.test: DNS did not answer"
            ]
        );
    }
}

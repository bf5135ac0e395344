use super::*;
use crate::space::{Range, Space};

const WHOLE: &str = include_str!("../../../topology.toml");

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn faults(text: &str) -> Vec<String> {
    let error = Topology::parse(text, "t.toml").expect_err("should be refused");
    error.to_string().lines().map(String::from).collect()
}

/// A topology of one node with everything that is required; `more` stands before the node.
fn small(more: &str) -> String {
    format!(
        r#"cluster = "beam"
zone = "beam.test"
{more}
[[datacenter]]
name = "va"

[[node]]
name = "one"
datacenter = "va"
roles = ["log", "view", "api"]
address = "127.0.0.1:7101"
"#
    )
}

#[test]
fn the_committed_topology_is_good() {
    let topology = Topology::parse(WHOLE, "topology.toml").unwrap();
    assert_eq!(topology.warnings(), Vec::<String>::new());
    assert_eq!(topology.nodes.len(), 18);
    assert_eq!(topology.datacenters, ["va", "or", "ie"].map(name));
    assert_eq!(topology.log.preferred, Some(name("va")));
    assert_eq!(topology.round_trip(&name("ie"), &name("or")), Some(Duration::from_millis(130)));
    assert_eq!(topology.verdicts, Verdicts { slots_log2: 20, window: 1_000_000 });
    let view = topology.node(&name("view-or-2b")).unwrap();
    let second = Range::partition(1, 2);
    assert_eq!(view.serves, Space::ALL.map(|space| Served { space, range: second }));
    assert_eq!(topology.identity(view).to_string(), "spiffe://beam/dc/or/node/view-or-2b/role/view");
    assert_eq!(topology.nodes_with(Role::Log).count(), 3);
    assert!(topology.node(&name("log-va")).unwrap().serves.is_empty());
}

#[test]
fn what_is_left_out_has_a_default() {
    let topology = Topology::parse(&small(""), "t.toml").unwrap();
    assert_eq!(topology.dns, Dns::default());
    assert_eq!(topology.log, Log::default());
    assert_eq!(topology.verdicts, Verdicts { slots_log2: 23, window: 1_000_000 });
    let node = &topology.nodes[0];
    assert_eq!(node.roles, Role::ALL);
    assert_eq!(node.serves, Space::ALL.map(|space| Served { space, range: Range::ALL }));
    assert_eq!(node.bind(), node.address);
}

#[test]
fn every_setting_is_read() {
    let more = r#"
[dns]
servers = ["[::1]:53", "192.0.2.1:53"]
[log]
preferred = "va"
heartbeat_ms = 50
election_min_ms = 150
election_max_ms = 300
segment_mib = 64
reserve_mib = 1024
keep_entries = 5000
hold_gib = 100
[view]
history = 1000
checkpoint = 500
copy_mib_per_second = 50
scan_hours = 0
calls = 99
[query]
memory_mib = 256
hedge = false
running = 8
waiting = 100
writes = 500
"#;
    let topology = Topology::parse(&small(more), "t.toml").unwrap();
    assert_eq!(topology.dns.servers, ["[::1]:53", "192.0.2.1:53"].map(|text| text.parse().unwrap()));
    let ms = Duration::from_millis;
    assert_eq!(
        topology.log,
        Log {
            preferred: Some(name("va")),
            heartbeat: Some(ms(50)),
            election: Some((ms(150), ms(300))),
            segment_mib: Some(64),
            reserve_mib: Some(1024),
            keep_entries: Some(5000),
            hold_bytes: Some(100 << 30),
        }
    );
    let view = View {
        history: Some(1000),
        checkpoint: Some(500),
        copy_mib_per_second: Some(50),
        scan_hours: Some(0),
        calls: Some(99),
    };
    assert_eq!(topology.view, view);
    let query =
        Query { memory_mib: Some(256), hedge: Some(false), running: Some(8), waiting: Some(100), writes: Some(500) };
    assert_eq!(topology.query, query);
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_a_suggestion() {
    let text = WHOLE.replacen("partition = \"1/2\"", "partion = \"1/2\"", 1);
    let line = 1 + text.lines().position(|line| line.starts_with("partion")).unwrap();
    assert_eq!(faults(&text), [format!("t.toml:{line}:1: unknown key `partion`; did you mean `partition`?")]);

    assert_eq!(faults(&small("[dsn]")), ["t.toml:3:2: unknown key `dsn`; did you mean `dns`?"]);
    assert_eq!(
        faults(&small("[query]\n  colour = 1")),
        ["t.toml:4:3: unknown key `colour`; known are `memory_mib`, `hedge`, `running`, `waiting`, `writes`"]
    );
}

#[test]
fn a_view_may_hold_several_partitions() {
    let serves = |partition: &str| {
        let text = WHOLE.replacen("partition = \"1/2\"", &format!("partition = {partition}"), 1);
        let topology = Topology::parse(&text, "topology.toml").unwrap();
        topology.nodes_with(Role::View).next().unwrap().serves.clone()
    };
    let ranges = [Range::partition(0, 5), Range::partition(3, 5)];
    let expected: Vec<Served> =
        Space::ALL.into_iter().flat_map(|space| ranges.map(|range| Served { space, range })).collect();
    assert_eq!(serves("[\"4/5\", \"1/5\"]"), expected);
    assert_eq!(serves("\"1/5\""), serves("[\"1/5\"]"));
}

/// Each changes one thing in a good topology, and names the line and what is said of it.
#[test]
fn each_fault_is_told_at_its_place() {
    let node = "\n[[node]]\nname = \"two\"\ndatacenter = \"va\"\nroles = [\"view\"]\naddress = \"127.0.0.1:7102\"\n";
    let with_node = |from: &str, to: &str| {
        assert!(node.contains(from), "{from}");
        small("") + &node.replace(from, to)
    };
    let cases = [
        (small("").replace("cluster = \"beam\"\n", ""), "t.toml:1:1: `cluster` is missing"),
        (
            small("").replace("\"beam\"", "\"Beam\""),
            "t.toml:1:11: `cluster`: \"Beam\" is not a name: use 1 to 63 characters of a-z, 0-9 and '-', with no '-' at either end",
        ),
        (small("").replace("\"beam\"", "7"), "t.toml:1:11: `cluster` is of type integer; it should be a string"),
        (
            small("").replace("\"beam.test\"", "\"beam..test\""),
            "t.toml:2:8: `zone`: \"beam..test\" is not a DNS zone: its labels are 1 to 63 characters of a-z, 0-9 and '-'",
        ),
        (small("[log]\npreferred = \"or\""), "t.toml:4:13: unknown datacenter \"or\"; known are `va`"),
        (small("[verdicts]\nslots_log2 = 5"), "t.toml:4:14: `slots_log2` is 5; it may be from 10 to 30"),
        (small("[verdicts]\nwindow = -1"), "t.toml:4:10: `window` is -1; it may be from 1 to 1099511627776"),
        (
            small("[log]\nheartbeat_ms = 100\nelection_min_ms = 100\nelection_max_ms = 200"),
            "t.toml:5:19: `election_min_ms` must exceed `heartbeat_ms`, or every pause is an election",
        ),
        (small("[log]\nelection_min_ms = 100"), "t.toml:4:19: `election_min_ms` and `election_max_ms` go together"),
        (
            small("[log]\nelection_min_ms = 100\nelection_max_ms = 100"),
            "t.toml:5:19: `election_max_ms` must exceed `election_min_ms`",
        ),
        (small("[dns]\nservers = [\"ns\"]"), "t.toml:4:12: `servers`: invalid socket address syntax"),
        (small("link = 5"), "t.toml:3:8: `link` is of type integer; it should be an array of tables: [[link]]"),
        (small("[[link]]\nbetween = [\"va\"]\nround_trip_ms = 5"), "t.toml:4:11: `between` names two datacenters"),
        (small("[[link]]\nround_trip_ms = 5"), "t.toml:3:1: `between` is missing"),
        (with_node("\"two\"", "\"one\""), "t.toml:14:8: node one is there twice"),
        (with_node("7102", "7101"), "t.toml:14:8: nodes one and two have the same address 127.0.0.1:7101"),
        (with_node("\"va\"", "\"vs\""), "t.toml:15:14: unknown datacenter \"vs\"; did you mean `va`?"),
        (with_node("\"view\"", "\"veiw\""), "t.toml:16:10: `roles`: unknown role \"veiw\"; did you mean `view`?"),
        (with_node("[\"view\"]", "[]"), "t.toml:16:9: a node has at least one role: log, view or api"),
        (with_node("roles = [\"view\"]\n", ""), "t.toml:13:1: `roles` is missing"),
        (
            with_node("127.0.0.1:7102", "localhost:1"),
            "t.toml:17:11: `address`: \"localhost:1\" is not an address: write \"192.0.2.7:7101\" or \"[2001:db8::7]:7101\"",
        ),
        (
            with_node("127.0.0.1:7102", "127.0.0.1:0"),
            "t.toml:17:11: `address`: \"127.0.0.1:0\" has port 0, which nobody can dial",
        ),
        (
            with_node("127.0.0.1:7102", "0.0.0.0:1"),
            "t.toml:17:11: `address`: nobody can dial \"0.0.0.0:1\": say where others reach the node, and put this into `bind`",
        ),
        (
            small("") + node + "partition = \"3/2\"",
            "t.toml:18:13: `partition`: \"3/2\": of 2 partitions, the first is 1/2 and the last 2/2",
        ),
        (
            small("") + node + "partition = \"0/2\"",
            "t.toml:18:13: `partition`: \"0/2\": of 2 partitions, the first is 1/2 and the last 2/2",
        ),
        (
            small("") + node + "partition = \"half\"",
            "t.toml:18:13: `partition`: \"half\" is not a partition: write \"1/2\" for the first of two",
        ),
        (
            small("") + node + "partition = \"1/9999\"",
            "t.toml:18:13: `partition`: \"1/9999\": there can be at most 4096 partitions",
        ),
        (
            small("") + node + "partition = [\"1/2\", 2]",
            "t.toml:18:21: `partition` is of type integer; it should be a string",
        ),
        (
            small("") + node + "partition = []",
            "t.toml:18:13: a view holds at least one partition; leave `partition` out for all points",
        ),
        (
            small("") + node + "partition = [\"2/2\", \"4/4\"]",
            "t.toml:18:13: `partition`: c000000000000000..=ffffffffffffffff is in two of them; the partitions of a view do not overlap",
        ),
        (
            small("") + node + "spaces = [\"subjet\"]",
            "t.toml:18:11: `spaces`: unknown space \"subjet\"; did you mean `subject`?",
        ),
        (
            small("") + node + "spaces = []",
            "t.toml:18:10: a view holds at least one space; leave `spaces` out for all three",
        ),
        (
            with_node("\"view\"", "\"log\"") + "partition = \"1/2\"",
            "t.toml:18:13: `partition` is for views; add \"view\" to this node's roles or leave it out",
        ),
        (small("") + "[[datacenter]]\nname = \"va\"", "t.toml:13:8: datacenter va is there twice"),
    ];
    for (text, expected) in cases {
        assert_eq!(faults(&text), [expected], "{text}");
    }
}

#[test]
fn the_preferred_datacenter_holds_log() {
    let text = small("[log]\npreferred = \"va\"").replace("[\"log\", \"view\", \"api\"]", "[\"api\"]");
    assert_eq!(faults(&text), ["t.toml:4:13: `preferred`: datacenter va has no log node"]);
}

#[test]
fn all_faults_are_told_at_once() {
    let text = small("[dns]\nserver = []\n[log]\nheartbeat_ms = 0");
    assert_eq!(
        faults(&text),
        [
            "t.toml:4:1: unknown key `server`; did you mean `servers`?",
            "t.toml:6:16: `heartbeat_ms` is 0; it may be from 1 to 60000"
        ]
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_place() {
    let told = faults("cluster = \"beam\nzone = 1");
    assert!(told[0].starts_with("t.toml:1:"), "{told:?}");
    assert!(faults("cluster = \"a\"\ncluster = \"b\"")[0].starts_with("t.toml:2:1: duplicate key"));
    let error = Topology::load(Path::new("/nowhere/topology.toml")).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/topology.toml: No such file"), "{error}");
}

#[test]
fn what_is_unwise_is_warned_of() {
    let topology = Topology::parse(&small(""), "t.toml").unwrap();
    let all = Range::ALL;
    let mut expected = vec!["there is 1 log node: losing it loses the log".to_string()];
    for space in ["subject", "object", "term"] {
        expected.push(format!(
            "in datacenter va, only view one holds {all} of space {space}: two or more go on when one is down"
        ));
    }
    assert_eq!(topology.warnings(), expected);

    let warnings = |change: &dyn Fn(&mut Topology)| {
        let mut topology = Topology::parse(WHOLE, "topology.toml").unwrap();
        change(&mut topology);
        topology.warnings()
    };
    let node = |topology: &mut Topology, text: &str| {
        let at = topology.nodes.iter().position(|node| node.name == name(text)).unwrap();
        topology.nodes.remove(at)
    };
    assert_eq!(
        warnings(&|t| {
            let mut moved = node(t, "log-ie");
            moved.datacenter = name("va");
            t.nodes.push(moved);
        }),
        ["losing datacenter va stops all writes: 1 of 3 log nodes would be left, and 2 must agree"]
    );
    assert_eq!(
        warnings(&|t| drop(node(t, "log-ie"))),
        ["there are 2 log nodes: losing one stops all writes; three or more go on"]
    );
    assert_eq!(
        warnings(&|t| drop(node(t, "api-or"))),
        ["datacenter or has no api node: its clients are answered from elsewhere"]
    );
    let half = Range::partition(1, 2);
    let told = warnings(&|t| drop((node(t, "view-or-2a"), node(t, "view-or-2b"))));
    assert_eq!(told[0], format!("no view in datacenter or holds {half} of space subject"));
    assert_eq!(told.len(), 3);
    let told = warnings(&|t| t.nodes.iter_mut().filter(|n| n.datacenter == name("ie")).for_each(|n| n.serves.clear()));
    assert_eq!(told[0], "datacenter ie holds nothing of space subject: it cannot answer alone");
    assert_eq!(warnings(&|t| t.datacenters.push(name("new"))), ["datacenter new has no node"]);
}

#[test]
fn records_lead_to_the_nodes() {
    let topology = Topology::parse(WHOLE, "topology.toml").unwrap();
    let services = topology.srv_records();
    assert_eq!(services.len(), 18);
    assert_eq!(
        services[0],
        SrvRecord {
            service: "_beam-log._udp.va.beam.test".into(),
            priority: 0,
            weight: 10,
            port: 7101,
            target: "log-va.va.beam.test".into(),
        }
    );
    let hosts = topology.address_records();
    assert_eq!(hosts.len(), 18);
    assert_eq!(hosts[0].host, services[0].target);
    for service in services {
        assert_eq!(hosts.iter().filter(|host| host.host == service.target).count(), 1, "{service:?}");
    }
}

#[test]
fn a_host_name_names_a_node() {
    let node = |host: &str| node_of_host(host, "beam.test");
    assert_eq!(node("log-va.va.beam.test"), Some((name("log-va"), name("va"))));
    assert_eq!(node("LOG-VA.va.Beam.Test."), Some((name("log-va"), name("va"))));
    for other in
        ["", ".", "beam.test", "va.beam.test", "a.b.c.beam.test", "log-va.va.xbeam.test", "log-va.va.other.test"]
    {
        assert_eq!(node(other), None, "{other}");
    }
}

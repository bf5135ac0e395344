//! The records of a topology as a zone file (RFC 1035, section 5).

use beam_wire::topology::{AddressRecord, SrvRecord, TTL, Topology};
use std::fmt::Write;
use std::net::IpAddr;

/// What to put into the zone of the topology, or into a file that it includes. SOA and NS records are
/// for whoever runs the zone.
pub fn text(topology: &Topology) -> String {
    let (services, hosts) = (topology.srv_records(), topology.address_records());
    let zone = &topology.zone;
    let short = |name: &str| name.strip_suffix(zone).and_then(|name| name.strip_suffix('.')).unwrap_or(name).to_owned();
    let longest = services.iter().map(|record| &record.service).chain(hosts.iter().map(|record| &record.host));
    let width = longest.map(|name| short(name).len()).max().unwrap_or(0);

    let mut text = format!("$ORIGIN {zone}.\n$TTL {}\n", TTL.as_secs());
    for SrvRecord { service, priority, weight, port, target } in services {
        let (service, target) = (short(&service), short(&target));
        put(&mut text, format_args!("{service:width$}  IN SRV   {priority} {weight} {port} {target}"));
    }
    for AddressRecord { host, address } in hosts {
        let kind = match address {
            IpAddr::V4(_) => "A",
            IpAddr::V6(_) => "AAAA",
        };
        put(&mut text, format_args!("{:width$}  IN {kind:5} {address}", short(&host)));
    }
    text
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_file_has_every_record() {
        let topology = r#"
cluster = "beam"
zone = "beam.test"
[[datacenter]]
name = "va"
[[node]]
name = "one"
datacenter = "va"
roles = ["log", "api"]
address = "192.0.2.1:7101"
[[node]]
name = "two"
datacenter = "va"
roles = ["view"]
address = "[2001:db8::2]:7102"
"#;
        let topology = Topology::parse(topology, "t.toml").unwrap();
        let expected = "\
$ORIGIN beam.test.
$TTL 30
_beam-log._udp.va   IN SRV   0 10 7101 one.va
_beam-api._udp.va   IN SRV   0 10 7101 one.va
_beam-view._udp.va  IN SRV   0 10 7102 two.va
one.va              IN A     192.0.2.1
two.va              IN AAAA  2001:db8::2
";
        assert_eq!(text(&topology), expected);
    }
}

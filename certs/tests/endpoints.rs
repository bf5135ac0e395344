//! Certificates at work between QUIC endpoints, in simulation: bad ones are each refused with their
//! own sentence, on both sides, within seconds; good ones end and are renewed.

use beam_certs::{Authority, Credentials, days};
use beam_wire::env::Env;
use beam_wire::env::sim::SimWorld;
use beam_wire::message::hello::Hello;
use beam_wire::quic::{Endpoint, EndpointOptions, Incoming, Lane, Peers, Service, Target, Tls};
use beam_wire::{CallError, Code, Identity, Name, Role};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// What "within seconds" means: one address, dialled once.
const AT_ONCE: Duration = Duration::from_secs(2);

const MINUTE: Duration = Duration::from_secs(60);

struct Greeter(Identity);

impl Service for Greeter {
    fn hello(&self) -> Hello {
        Hello::of(&self.0, 1)
    }

    fn serve(&self, call: Incoming) -> Pin<Box<dyn Future<Output = Result<(), CallError>> + Send>> {
        Box::pin(async move { Err(CallError::never(Code::UnknownKind, format!("{:?} is not served", call.kind))) })
    }
}

/// One node of a story.
struct Host {
    env: Env,
    peers: Peers,
    address: SocketAddr,
}

impl Host {
    fn start(world: &SimWorld, name: &str, tls: Tls) -> Host {
        let env = world.env(name);
        let address = SocketAddr::from(([10, 0, 0, name.as_bytes()[0]], 7101));
        let identity = tls.identity.clone();
        let endpoint = Endpoint::open(&env, address, tls, EndpointOptions::lan([7; 64])).unwrap();
        let peers = Peers::start(env.clone(), endpoint, Arc::new(Greeter(identity)));
        Host { env, peers, address }
    }

    /// Dials `to`, which it takes for node `wanted`.
    async fn dial(&self, to: &Host, wanted: &str) -> Result<beam_wire::quic::Peer, CallError> {
        let target = Target { node: Some(name(wanted)), datacenter: None, addresses: vec![to.address] };
        let before = self.env.now();
        let dialled = self.peers.peer(&target, Lane::Calls).await;
        assert!(self.env.now() - before < AT_ONCE, "it took {:?}", self.env.now() - before);
        dialled
    }

    async fn refused(&self, to: &Host, wanted: &str, sentences: &[&str]) {
        let told = self.dial(to, wanted).await.unwrap_err();
        assert_eq!(told.code, Code::Denied, "{told}");
        for sentence in sentences {
            assert!(told.message.contains(sentence), "{told} does not say {sentence:?}");
        }
        self.env.sleep(Duration::from_secs(1)).await;
        assert!(self.peers.connections().is_empty() && to.peers.connections().is_empty());
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn node(cluster: &str, node: &str) -> Identity {
    Identity::node(name(cluster), name("va"), name(node), vec![Role::Log])
}

fn authority(world: &SimWorld, cluster: &str) -> Authority {
    Authority::create(&world.env("authority"), &name(cluster), days(10)).unwrap()
}

fn issue(world: &SimWorld, authority: &Authority, who: &str, lifetime: Duration) -> Credentials {
    let identity = node(authority.cluster().as_str(), who);
    authority.issue(&world.env("authority"), &identity, lifetime).unwrap()
}

fn host(world: &SimWorld, authority: &Authority, who: &str, lifetime: Duration) -> Host {
    Host::start(world, who, issue(world, authority, who, lifetime).tls(&world.env(who)).unwrap())
}

#[test]
fn good_certificates_connect_and_the_name_must_be_right() {
    SimWorld::run(1, async |world| {
        let authority = authority(&world, "beam");
        let (a, b) = (host(&world, &authority, "a", days(1)), host(&world, &authority, "b", days(1)));
        let peer = a.dial(&b, "b").await.unwrap();
        assert_eq!(peer.info().identity, node("beam", "b"));
        // DNS said that c is where a is.
        let told = b.dial(&a, "c").await.unwrap_err();
        assert!(told.message.contains("it is spiffe://beam/dc/va/node/a/role/log, not node c"), "{told}");
    });
}

#[test]
fn another_authority_is_told() {
    SimWorld::run(2, async |world| {
        let good = host(&world, &authority(&world, "beam"), "good", days(1));
        let bad = host(&world, &authority(&world, "beam"), "bad", days(1));
        let why = "it was signed by an authority that ca.pem does not list";
        good.refused(&bad, "bad", &["the peer's certificate was refused", why]).await;
        bad.refused(&good, "good", &["the peer's certificate was refused", why]).await;
    });
}

#[test]
fn an_expired_certificate_is_told() {
    SimWorld::run(3, async |world| {
        let authority = authority(&world, "beam");
        let good = host(&world, &authority, "good", days(5));
        let bad = host(&world, &authority, "bad", Duration::from_secs(60));
        good.env.sleep(Duration::from_secs(120)).await;
        let why = "it has expired, or is not valid yet";
        good.refused(&bad, "bad", &["the peer's certificate was refused", why]).await;
        bad.refused(&good, "good", &["the peer refused our certificate", why]).await;
    });
}

#[test]
fn another_cluster_is_told_even_where_its_root_is_trusted() {
    SimWorld::run(4, async |world| {
        let dir = tempfile::tempdir().unwrap();
        let both = |authority: &Authority, who: &str, roots: &str| {
            let dir = dir.path().join(who);
            issue(&world, authority, who, days(1)).save(&dir).unwrap();
            std::fs::write(dir.join("ca.pem"), roots).unwrap();
            Host::start(&world, who, Credentials::load(&dir, who).unwrap().tls(&world.env(who)).unwrap())
        };
        let (ours, theirs) = (authority(&world, "beam"), authority(&world, "other"));
        let root = |authority: &Authority| {
            let dir = dir.path().join(authority.cluster().as_str());
            authority.save(&dir).unwrap();
            std::fs::read_to_string(dir.join("ca.pem")).unwrap()
        };
        let roots = root(&ours) + &root(&theirs);
        let (good, bad) = (both(&ours, "good", &roots), both(&theirs, "bad", &roots));
        good.refused(&bad, "bad", &["the peer's certificate was refused", "belongs to cluster other, not to beam"])
            .await;
        bad.refused(&good, "good", &["the peer's certificate was refused", "belongs to cluster beam, not to other"])
            .await;
    });
}

#[test]
fn a_connection_ends_with_its_certificate_and_a_new_one_connects_again() {
    SimWorld::run(5, async |world| {
        let authority = authority(&world, "beam");
        let (a, b) = (host(&world, &authority, "a", days(5)), host(&world, &authority, "b", 10 * MINUTE));
        let peer = a.dial(&b, "b").await.unwrap();
        a.env.sleep(9 * MINUTE).await;
        assert!(!peer.is_closed());

        // Renewed in time: what was connected stays until its old certificate ends, then comes again.
        let renewed = issue(&world, &authority, "b", days(1)).tls(&b.env).unwrap();
        b.peers.endpoint().set_tls(renewed).unwrap();
        assert!(!peer.is_closed());
        a.env.sleep(2 * MINUTE).await;
        assert!(peer.is_closed());
        let peer = a.dial(&b, "b").await.unwrap();
        a.env.sleep(10 * MINUTE).await;
        assert!(!peer.is_closed());
    });
}

#[test]
fn one_seed_gives_one_set_of_certificates() {
    let made = |seed| {
        SimWorld::run(seed, async |world| {
            let authority = authority(&world, "beam");
            let issued = issue(&world, &authority, "a", days(1));
            (issued.certificate().clone(), issued.roots().to_vec())
        })
    };
    assert_eq!(made(6), made(6));
    assert_ne!(made(6).0, made(7).0);
}

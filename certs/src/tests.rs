//! Handshakes between rustls connections in memory, at times of our choosing.

use super::*;
use crate::authority::{leaf_params, new_key, uri};
use crate::files::{CA_KEY, CA_PEM};
use beam_wire::env::{Dns, DnsError, Env, SrvAnswer};
use beam_wire::quic::Tls;
use beam_wire::{ClientRole, Identity, Name, Role};
use rcgen::CertificateParams;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::fs;
use std::path::Path;
use std::sync::Arc;

struct NoDns;

impl Dns for NoDns {
    fn srv<'a>(
        &'a self,
        name: &'a str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<SrvAnswer, DnsError>> + Send + 'a>> {
        Box::pin(async { Err(DnsError::NoSuchName(name.into())) })
    }
}

fn env() -> Env {
    Env::real(Arc::new(NoDns))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn node(of: &str, node: &str) -> Identity {
    Identity::node(name(of), name("va"), name(node), vec![Role::Log])
}

fn client(of: &str) -> Identity {
    Identity::client(name(of), name("alice"), ClientRole::Writer)
}

fn authority(env: &Env, cluster: &str) -> Authority {
    Authority::create(env, &name(cluster), days(365)).unwrap()
}

/// A clock that is ahead of the real one.
#[derive(Debug)]
struct Ahead(Duration);

impl TimeProvider for Ahead {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(env().unix_time() + self.0))
    }
}

/// What each side says of the handshake.
fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (Result<(), String>, Result<(), String>) {
    let mut client = ClientConnection::new(client, ServerName::try_from("beam").unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let (mut from_client, mut from_server) = (Ok(()), Ok(()));
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        if from_server.is_ok() {
            from_server = server.process_new_packets().map(drop).map_err(|e| e.to_string());
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        if from_client.is_ok() {
            from_client = client.process_new_packets().map(drop).map_err(|e| e.to_string());
        }
    }
    if from_client.is_ok() && from_server.is_ok() {
        assert!(!client.is_handshaking() && !server.is_handshaking(), "the handshake hangs");
        assert_eq!(client.alpn_protocol(), Some(ALPN));
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1));
    }
    (from_client, from_server)
}

fn shake_tls(client: &Tls, server: &Tls) -> (Result<(), String>, Result<(), String>) {
    shake(client.client.clone(), server.server.clone().expect("a node accepts"))
}

const GOOD: (Result<(), String>, Result<(), String>) = (Ok(()), Ok(()));

#[test]
fn nodes_and_clients_of_one_cluster_trust_each_other() {
    let env = env();
    let authority = authority(&env, "beam");
    let tls = |identity| authority.issue(&env, &identity, days(30)).unwrap().tls(&env).unwrap();
    let (a, b, alice) = (tls(node("beam", "a")), tls(node("beam", "b")), tls(client("beam")));
    assert_eq!(shake_tls(&a, &b), GOOD);
    assert_eq!(shake_tls(&b, &a), GOOD);
    assert_eq!(shake_tls(&alice, &a), GOOD);
    assert_eq!(a.identity, node("beam", "a"));
    assert!(alice.server.is_none(), "clients only dial");
    // Twice with the same configuration: nothing is resumed (`shake` looks).
    assert_eq!(shake_tls(&alice, &a), GOOD);
}

#[test]
fn another_authority_is_refused_by_both_sides() {
    let env = env();
    let tls = |authority: &Authority, who: &str| {
        authority.issue(&env, &node("beam", who), days(30)).unwrap().tls(&env).unwrap()
    };
    let (ours, theirs) = (tls(&authority(&env, "beam"), "a"), tls(&authority(&env, "beam"), "b"));
    let (dialling, accepting) = shake_tls(&ours, &theirs);
    assert_eq!(dialling.unwrap_err(), "invalid peer certificate: UnknownIssuer");
    assert_eq!(accepting.unwrap_err(), "received fatal alert: UnknownCA");

    // The other way round, with a client that would take anybody.
    let trusting = {
        let mut config = (*theirs.client).clone();
        config.dangerous().set_certificate_verifier(Arc::new(Anybody));
        config
    };
    let (_, accepting) = shake(Arc::new(trusting), ours.server.unwrap());
    assert_eq!(accepting.unwrap_err(), "invalid peer certificate: UnknownIssuer");
}

#[test]
fn no_certificate_is_refused() {
    let env = env();
    let ours = authority(&env, "beam").issue(&env, &node("beam", "a"), days(30)).unwrap().tls(&env).unwrap();
    let mut nobody = ClientConfig::builder_with_provider(env.crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    nobody.alpn_protocols = vec![ALPN.to_vec()];
    let (_, accepting) = shake(Arc::new(nobody), ours.server.unwrap());
    assert_eq!(accepting.unwrap_err(), "peer sent no certificates");
}

#[test]
fn time_decides_on_both_sides() {
    let env = env();
    let authority = authority(&env, "beam");
    let credentials = authority.issue(&env, &node("beam", "a"), days(1)).unwrap();
    assert_eq!(credentials.not_after(), Duration::from_secs((env.unix_time() + days(1)).as_secs()));
    let tls = credentials.tls(&env).unwrap();
    let at = |ahead: Duration| {
        let clock: Arc<dyn TimeProvider> = Arc::new(Ahead(ahead));
        let (mut client, mut server) = ((*tls.client).clone(), (**tls.server.as_ref().unwrap()).clone());
        client.time_provider = clock.clone();
        server.time_provider = clock;
        (Arc::new(client), Arc::new(server))
    };
    let (client_now, server_now) = at(Duration::ZERO);
    let (client_later, server_later) = at(days(2));
    assert_eq!(shake(client_now.clone(), server_now.clone()), GOOD);
    let expired = |said: Result<(), String>| {
        let said = said.unwrap_err();
        assert!(said.starts_with("invalid peer certificate: certificate expired: "), "{said}");
    };
    expired(shake(client_later, server_now).0);
    expired(shake(client_now, server_later).1);
}

#[test]
fn what_is_not_valid_now_is_refused_where_it_is_loaded() {
    let env = env();
    let authority = authority(&env, "beam");
    let soon = authority.issue(&env, &node("beam", "a"), Duration::ZERO).unwrap();
    // notAfter is inclusive: it ends with the second.
    let mut waited = 0;
    let error = loop {
        match soon.tls(&env) {
            Err(e) => break e,
            Ok(_) if waited < 100 => std::thread::sleep(Duration::from_millis(50)),
            Ok(_) => panic!("it never expires"),
        }
        waited += 1;
    };
    assert_eq!(
        error.to_string(),
        format!(
            "the certificate of spiffe://beam/dc/va/node/a/role/log expired at {}: issue a new one",
            error::utc(soon.not_after())
        )
    );

    let verifier = verify::Verifier::new(soon.roots(), name("beam"), &env.crypto()).unwrap();
    let early = soon.not_before() - Duration::from_secs(1);
    let error = verifier.judge(soon.certificate(), &[], early, verify::Usage::Node).unwrap_err();
    assert!(matches!(error, CertError::NotYetValid { from, now, .. } if from == soon.not_before() && now == early));
    assert!(error.to_string().contains("compare the clocks"));
}

#[test]
fn certificates_do_not_outlive_their_authority_nor_leave_their_cluster() {
    let env = env();
    let authority = authority(&env, "beam");
    let error = authority.issue(&env, &node("beam", "a"), days(366)).unwrap_err();
    assert!(matches!(error, CertError::OutlivesAuthority { .. }), "{error}");
    let error = authority.issue(&env, &node("other", "a"), days(1)).unwrap_err();
    assert_eq!(error.to_string(), "spiffe://other/dc/va/node/a/role/log belongs to cluster other, not to beam");
}

/// Signs what no command of ours would issue.
fn forged(env: &Env, authority: &Authority, identity: &Identity, change: impl Fn(&mut CertificateParams)) -> Tls {
    let good = authority.issue(env, identity, days(1)).unwrap();
    let mut params = leaf_params(identity).unwrap();
    let at = |unix: Duration| time::OffsetDateTime::from_unix_timestamp(unix.as_secs() as i64).unwrap();
    (params.not_before, params.not_after) = (at(good.not_before()), at(good.not_after()));
    change(&mut params);
    let key = new_key(env);
    let certificate = authority.sign(params, &key).unwrap();
    let mut tls = good.tls(env).unwrap();
    let key = || rustls::pki_types::PrivateKeyDer::Pkcs8(key.clone_key());
    let mut client = ClientConfig::builder_with_provider(env.crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(vec![certificate.clone()], key())
        .unwrap();
    client.alpn_protocols = vec![ALPN.to_vec()];
    tls.client = Arc::new(client);
    let mut server = ServerConfig::builder_with_provider(env.crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key())
        .unwrap();
    server.alpn_protocols = vec![ALPN.to_vec()];
    tls.server = Some(Arc::new(server));
    tls
}

#[test]
fn signed_is_not_enough() {
    let env = env();
    let authority = authority(&env, "beam");
    let ours = authority.issue(&env, &node("beam", "a"), days(1)).unwrap().tls(&env).unwrap();
    let b = node("beam", "b");
    let dialling = |tls: &Tls| shake_tls(tls, &ours).1.unwrap_err();
    let accepting = |tls: &Tls| shake_tls(&ours, tls).0.unwrap_err();

    let nameless = forged(&env, &authority, &b, |params| params.subject_alt_names.clear());
    let double = forged(&env, &authority, &b, |params| {
        params.subject_alt_names.push(uri("spiffe://beam/client/eve/role/admin").unwrap())
    });
    let foreign = forged(&env, &authority, &b, |params| {
        params.subject_alt_names = vec![uri("spiffe://other/dc/va/node/b/role/log").unwrap()]
    });
    let strange = forged(&env, &authority, &b, |params| {
        params.subject_alt_names = vec![uri("spiffe://beam/dc/va/node/b/role/god").unwrap()]
    });
    for (tls, expected) in [
        (nameless, "names nobody: it carries no SPIFFE URI"),
        (double, "names 2 identities, and exactly one is allowed"),
        (foreign, "belongs to cluster other, not to beam"),
        (strange, "\"god\" is not a role; roles are log, view and api"),
    ] {
        for said in [dialling(&tls), accepting(&tls)] {
            assert!(said.contains(expected), "{said:?} does not say {expected:?}");
        }
    }
    // A client's certificate dials, and cannot accept: by its key usage, and by its name.
    let posing = forged(&env, &authority, &client("beam"), |_| {});
    assert_eq!(shake_tls(&posing, &ours).1, Ok(()));
    assert!(accepting(&posing).contains("Extended Key Usage") || accepting(&posing).contains("cannot be used"));
    let usages = leaf_params(&b).unwrap().extended_key_usages;
    let posing = forged(&env, &authority, &client("beam"), |params| params.extended_key_usages = usages.clone());
    assert!(accepting(&posing).contains("is a client: only nodes accept connections"));
    // A node cannot sign for others.
    let as_root = authority.issue(&env, &b, days(1)).unwrap();
    let verifier = verify::Verifier::new(as_root.roots(), name("beam"), &env.crypto()).unwrap();
    let root = &as_root.roots()[0];
    assert!(verifier.judge(root, &[], env.unix_time(), verify::Usage::Node).is_err(), "a root is no peer");
}

#[test]
fn files_are_read_as_they_were_written() {
    let env = env();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = authority(&env, "beam");
    authority.save(dir).unwrap();
    let saved = authority.issue(&env, &node("beam", "log-va"), days(30)).unwrap();
    saved.save(dir).unwrap();
    let read = Credentials::load(dir, "log-va").unwrap();
    assert_eq!(read.identity(), &node("beam", "log-va"));
    assert_eq!((read.not_before(), read.not_after()), (saved.not_before(), saved.not_after()));
    let again = Authority::load(dir).unwrap();
    assert_eq!((again.cluster(), again.not_after()), (authority.cluster(), authority.not_after()));
    let other = again.issue(&env, &node("beam", "b"), days(30)).unwrap().tls(&env).unwrap();
    assert_eq!(shake_tls(&read.tls(&env).unwrap(), &other), GOOD);

    // Keys are for their owner, and nothing is overwritten that cannot be made again.
    #[cfg(unix)]
    for (file, expected) in [(CA_KEY, 0o600), ("log-va.key", 0o600), (CA_PEM, 0o644), ("log-va.pem", 0o644)] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & !expected, 0, "{file} has mode {mode:o}");
    }
    let key = fs::read(dir.join(CA_KEY)).unwrap();
    let error = self::authority(&env, "beam").save(dir).unwrap_err().to_string();
    assert_eq!(error, format!("{} exists already: nothing was overwritten", dir.join(CA_KEY).display()));
    assert_eq!(fs::read(dir.join(CA_KEY)).unwrap(), key);
    assert!(fs::read_dir(dir).unwrap().all(|file| !file.unwrap().file_name().to_string_lossy().ends_with(".new")));
}

#[test]
fn each_fault_of_a_file_is_told() {
    let env = env();
    let whole = tempfile::tempdir().unwrap();
    let authority = authority(&env, "beam");
    authority.save(whole.path()).unwrap();
    authority.issue(&env, &node("beam", "a"), days(30)).unwrap().save(whole.path()).unwrap();
    authority.issue(&env, &node("beam", "b"), days(30)).unwrap().save(whole.path()).unwrap();

    let told = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        for file in ["ca.pem", "ca.key", "a.pem", "a.key", "b.pem", "b.key"] {
            fs::copy(whole.path().join(file), dir.path().join(file)).unwrap();
        }
        change(dir.path());
        let error = Credentials::load(dir.path(), "a").and_then(|read| read.tls(&env).map(drop)).unwrap_err();
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    let copy = |from: &'static str, to: &'static str| {
        move |dir: &Path| {
            fs::copy(dir.join(from), dir.join(to)).unwrap();
        }
    };
    let remove = |file: &'static str| move |dir: &Path| fs::remove_file(dir.join(file)).unwrap();
    let write = |file: &'static str, text: &'static str| move |dir: &Path| fs::write(dir.join(file), text).unwrap();
    assert_eq!(
        told(&remove("a.pem")),
        "a.pem does not exist: `beam cert node` or `beam cert client` with the name a makes it"
    );
    assert_eq!(
        told(&remove("a.key")),
        "a.key does not exist: `beam cert node` or `beam cert client` with the name a makes it"
    );
    assert_eq!(told(&remove("ca.pem")), "ca.pem does not exist: `beam cert ca` makes it");
    assert_eq!(told(&write("a.pem", "hello")), "a.pem is damaged or of another kind: there is no CERTIFICATE in it");
    assert!(told(&write("a.key", "hello")).starts_with("a.key is damaged or of another kind: there is no PRIVATE KEY"));
    assert_eq!(told(&copy("b.key", "a.key")), "a.pem does not match its key");
    assert_eq!(
        told(&|dir| {
            let other = self::authority(&env, "beam");
            fs::remove_file(dir.join(CA_PEM)).unwrap();
            fs::remove_file(dir.join(CA_KEY)).unwrap();
            other.save(dir).unwrap();
        }),
        "the certificate of spiffe://beam/dc/va/node/a/role/log was signed by another authority than those in ca.pem"
    );
    assert_eq!(told(&copy("ca.pem", "a.pem")), "a.pem does not match its key");
    let dir = tempfile::tempdir().unwrap();
    let error = Authority::load(dir.path()).unwrap_err().to_string();
    assert_eq!(error, format!("{} does not exist: `beam cert ca` makes it", dir.path().join(CA_KEY).display()));
}

#[test]
fn a_new_authority_is_rolled_in_beside_the_old() {
    let env = env();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let old = authority(&env, "beam");
    old.save(dir).unwrap();
    let before = old.issue(&env, &node("beam", "a"), days(30)).unwrap();
    before.save(dir).unwrap();

    let mut new = authority(&env, "beam");
    new.trust_also(&Authority::load(dir).unwrap()).unwrap();
    new.replace(dir).unwrap();
    let both = Credentials::load(dir, "a").unwrap();
    assert_eq!(both.roots().len(), 2);
    let issued = Authority::load(dir).unwrap().issue(&env, &node("beam", "b"), days(30)).unwrap();
    let (old_leaf, new_leaf) = (both.tls(&env).unwrap(), issued.tls(&env).unwrap());
    assert_eq!(shake_tls(&old_leaf, &new_leaf), GOOD);
    assert_eq!(shake_tls(&new_leaf, &old_leaf), GOOD);
    // Who has not got the new ca.pem yet does not know the new authority.
    assert!(shake_tls(&before.tls(&env).unwrap(), &new_leaf).0.is_err());

    let error = authority(&env, "other").trust_also(&old).unwrap_err();
    assert!(matches!(error, CertError::OtherCluster { .. }), "{error}");
}

#[test]
fn what_is_missing_is_made_and_the_rest_is_kept() {
    let env = env();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ensure = |identities: &[Identity]| {
        let made = ensure(&env, dir, &name("beam"), identities).unwrap();
        made.iter().for_each(|credentials| drop(credentials.tls(&env).unwrap()));
        made.iter().map(|credentials| credentials.certificate().clone()).collect::<Vec<_>>()
    };
    let first = ensure(&[node("beam", "a"), client("beam")]);
    let second = ensure(&[node("beam", "a"), client("beam"), node("beam", "b")]);
    assert_eq!(first, second[..2]);
    // One that ends soon, one whose node does something else now, and one that was half written.
    let authority = Authority::load(dir).unwrap();
    authority.issue(&env, &client("beam"), days(6)).unwrap().save(dir).unwrap();
    let other = Identity::node(name("beam"), name("va"), name("a"), vec![Role::Log, Role::Api]);
    fs::copy(dir.join("a.key"), dir.join("b.key")).unwrap();
    let third = ensure(&[other, client("beam"), node("beam", "b")]);
    assert!(third.iter().zip(&second).all(|(new, old)| new != old));
    let error = super::ensure(&env, dir, &name("other"), &[]).unwrap_err();
    assert!(error.to_string().contains("belongs to cluster beam, not to other"), "{error}");
}

#[test]
fn a_survey_says_what_is_there() {
    let env = env();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = authority(&env, "beam");
    authority.save(dir).unwrap();
    for who in [node("beam", "b"), node("beam", "a"), client("beam")] {
        authority.issue(&env, &who, days(30)).unwrap().save(dir).unwrap();
    }
    fs::remove_file(dir.join("a.key")).unwrap();
    fs::copy(dir.join("alice.key"), dir.join("b.key")).unwrap();
    let found = survey(&env, dir).unwrap();
    let lines: Vec<String> = found
        .iter()
        .map(|at| {
            let usable = at.usable.as_ref().map_or_else(|e| e.to_string(), |()| "ok".into());
            format!("{} {} {usable}", at.file, at.names)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "ca.pem spiffe://beam ok",
            "a.pem spiffe://beam/dc/va/node/a/role/log ok",
            "alice.pem spiffe://beam/client/alice/role/writer ok",
            "b.pem spiffe://beam/dc/va/node/b/role/log b.pem does not match its key",
        ]
    );
    assert!(found[0].is_authority && !found[1].is_authority);
    assert_eq!(found[0].not_after, authority.not_after());
}

#[tokio::test(start_paused = true)]
async fn a_running_node_takes_up_new_certificates() {
    let env = env();
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&env, "beam");
    authority.save(dir.path()).unwrap();
    let issue = |lifetime| authority.issue(&env, &node("beam", "a"), lifetime).unwrap().save(dir.path()).unwrap();
    issue(days(1));
    let (found, mut finds) = tokio::sync::mpsc::unbounded_channel();
    let current = Credentials::load(dir.path(), "a").unwrap();
    let tell = move |tls: Result<Tls, CertError>| {
        found.send(tls.map(|tls| tls.not_after).map_err(|e| e.to_string())).unwrap();
    };
    let _following =
        env.tasks().serve("certs.follow", follow(env.clone(), dir.path().into(), "a".into(), current, tell));
    env.sleep(LOOK_EVERY * 3).await;
    assert!(finds.try_recv().is_err(), "nothing changed");

    let key = fs::read(dir.path().join("a.key")).unwrap();
    issue(days(2));
    let not_after = finds.recv().await.unwrap().unwrap();
    assert!(not_after > env.unix_time() + days(1));

    fs::write(dir.path().join("a.key"), key).unwrap();
    assert_eq!(finds.recv().await.unwrap().unwrap_err(), "a.pem does not match its key");
    env.sleep(LOOK_EVERY * 3).await;
    assert!(finds.try_recv().is_err(), "a fault is told once");
    issue(days(3));
    assert!(finds.recv().await.unwrap().unwrap() > not_after);
}

/// Takes any certificate: what an attacker's client would do.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }
}

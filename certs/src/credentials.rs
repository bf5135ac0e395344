//! The certificate and key of one node or client, and the TLS configurations that follow.

use crate::authority::key_pair;
use crate::certificate::Certificate;
use crate::files::{self, CA_PEM, Readers};
use crate::verify::{Usage, Verifier};
use crate::{ALPN, CertError};
use beam_wire::Identity;
use beam_wire::env::Env;
use beam_wire::quic::Tls;
use rcgen::PublicKeyData;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a node or client shows to others, and whom it trusts.
#[derive(Debug)]
pub struct Credentials {
    file: String,
    identity: Identity,
    roots: Vec<CertificateDer<'static>>,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    not_before: Duration,
    not_after: Duration,
}

impl Credentials {
    /// Puts together what belongs together. `file` is the name that they are saved under.
    pub(crate) fn new(
        file: String,
        roots: Vec<CertificateDer<'static>>,
        certificate: CertificateDer<'static>,
        key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Credentials, CertError> {
        let what = format!("{file}.pem");
        let read = Certificate::read(&certificate, &what)?;
        if read.public_key != key_pair(&key, &format!("{file}.key"))?.der_bytes() {
            return Err(CertError::KeyMismatch { what });
        }
        let identity = read.identity(&what)?;
        let (not_before, not_after) = (read.not_before, read.not_after);
        Ok(Credentials { file, identity, roots, certificate, key, not_before, not_after })
    }

    /// Reads `NAME.pem`, `NAME.key` and `ca.pem`. Whether they are valid now is judged by
    /// [`Credentials::tls`].
    pub fn load(dir: &Path, name: &str) -> Result<Credentials, CertError> {
        let make = format!("`beam cert node` or `beam cert client` with the name {name}");
        let mut certificates = files::read_certificates(&dir.join(format!("{name}.pem")), &make)?;
        let key = files::read_key(&dir.join(format!("{name}.key")), &make)?;
        let roots = files::read_certificates(&dir.join(CA_PEM), "`beam cert ca`")?;
        Self::new(name.into(), roots, certificates.swap_remove(0), key)
    }

    /// Writes `NAME.pem` and `NAME.key`, over older ones of that name, and `ca.pem` where there is
    /// none.
    pub fn save(&self, dir: &Path) -> Result<(), CertError> {
        // A reader in between finds a key that does not match, and looks again later.
        files::write(&dir.join(format!("{}.key", self.file)), &files::key_pem(&self.key), Readers::Owner)?;
        let certificate = files::certificate_pem(&self.certificate);
        files::write(&dir.join(format!("{}.pem", self.file)), &certificate, Readers::Everybody)?;
        let roots = dir.join(CA_PEM);
        if !roots.exists() {
            let all: String = self.roots.iter().map(files::certificate_pem).collect();
            files::write(&roots, &all, Readers::Everybody)?;
        }
        Ok(())
    }

    /// What an endpoint shows and demands. Fails if these credentials are not good themselves: now,
    /// rather than at each peer.
    pub fn tls(&self, env: &Env) -> Result<Tls, CertError> {
        let (crypto, clock) = (env.crypto(), env.time_provider());
        let verifier = Verifier::new(&self.roots, self.identity.cluster().clone(), &crypto)?;
        let usage = match self.identity {
            Identity::Node { .. } => Usage::Node,
            Identity::Client { .. } => Usage::Caller,
        };
        verifier.judge(&self.certificate, &[], env.unix_time(), usage)?;

        let verifier = Arc::new(verifier);
        let chain = || vec![self.certificate.clone()];
        let key = || PrivateKeyDer::Pkcs8(self.key.clone_key());
        let mut client = ClientConfig::builder_with_details(crypto.clone(), clock.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_auth_cert(chain(), key())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would outlive the certificates that began it.
        client.resumption = Resumption::disabled();

        let server = match self.identity {
            Identity::Client { .. } => None,
            Identity::Node { .. } => {
                let mut server = ServerConfig::builder_with_details(crypto, clock)
                    .with_protocol_versions(&[&TLS13])?
                    .with_client_cert_verifier(verifier)
                    .with_single_cert(chain(), key())?;
                server.alpn_protocols = vec![ALPN.to_vec()];
                server.session_storage = Arc::new(NoServerSessionStorage {});
                server.send_tls13_tickets = 0;
                Some(Arc::new(server))
            }
        };
        Ok(Tls { client: Arc::new(client), server, identity: self.identity.clone(), not_after: self.not_after })
    }

    /// Whom they name.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// From when they are valid, as unix time.
    pub fn not_before(&self) -> Duration {
        self.not_before
    }

    /// Until when they are valid, as unix time.
    pub fn not_after(&self) -> Duration {
        self.not_after
    }

    /// The certificate, for comparing and showing.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The roots that are trusted.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }
}

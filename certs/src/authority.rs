//! The authority of a cluster: whoever has its key decides who belongs to it.

use crate::certificate::Certificate;
use crate::files::{self, CA_KEY, CA_PEM, Readers};
use crate::{CertError, Credentials};
use beam_wire::env::Env;
use beam_wire::{Identity, Name};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;

/// Certificates are valid from this long before they are made, because clocks differ.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// The command that makes an authority, for errors.
const MAKE: &str = "`beam cert ca`";

/// Issues the certificates of one cluster.
#[derive(Debug)]
pub struct Authority {
    cluster: Name,
    /// Its own root first, then those that are trusted beside it.
    roots: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    not_after: Duration,
}

impl Authority {
    /// A new authority with a new key, valid for so long from now.
    pub fn create(env: &Env, cluster: &Name, lifetime: Duration) -> Result<Authority, CertError> {
        let key = new_key(env);
        let not_after = whole_seconds(env.unix_time() + lifetime);
        let pair = key_pair(&key, "the new key")?;
        let mut params = root_params(&pair);
        (params.not_before, params.not_after) = validity(env, not_after)?;
        params.serial_number = Some(serial_number(env));
        // SPIFFE: the identity of a signing authority is its trust domain.
        params.subject_alt_names = vec![uri(&format!("spiffe://{cluster}"))?];
        let root = params.self_signed(&pair).map_err(cannot_make)?.der().clone();
        Ok(Authority { cluster: cluster.clone(), roots: vec![root], key, not_after })
    }

    /// The authority of a directory.
    pub fn load(dir: &Path) -> Result<Authority, CertError> {
        let key = files::read_key(&dir.join(CA_KEY), MAKE)?;
        let mut roots = files::read_certificates(&dir.join(CA_PEM), MAKE)?;
        let file = dir.join(CA_PEM).display().to_string();
        let public_key = key_pair(&key, &dir.join(CA_KEY).display().to_string())?.der_bytes().to_vec();
        for at in 0..roots.len() {
            let root = Certificate::read(&roots[at], &file)?;
            if root.public_key != public_key {
                continue;
            }
            let cluster = cluster_of_root(&root, &file)?;
            roots[..=at].rotate_right(1);
            return Ok(Authority { cluster, roots, key, not_after: root.not_after });
        }
        Err(CertError::KeyMismatch { what: file })
    }

    /// Writes `ca.pem` and `ca.key`, unless there is an authority already.
    pub fn save(&self, dir: &Path) -> Result<(), CertError> {
        for file in [CA_KEY, CA_PEM] {
            let path = dir.join(file);
            if path.exists() {
                return Err(CertError::Exists { path });
            }
        }
        self.write(dir)
    }

    /// Takes the place of another authority of the same cluster, which stays trusted: the nodes that
    /// get the new `ca.pem` accept certificates of both. Nothing is written: [`Authority::replace`].
    pub fn trust_also(&mut self, other: &Authority) -> Result<(), CertError> {
        if other.cluster != self.cluster {
            let what = "the authority that is there".into();
            return Err(CertError::OtherCluster { what, theirs: other.cluster.clone(), ours: self.cluster.clone() });
        }
        for root in &other.roots {
            if !self.roots.contains(root) {
                self.roots.push(root.clone());
            }
        }
        Ok(())
    }

    /// Writes `ca.pem` and `ca.key` over those that are there.
    pub fn replace(&self, dir: &Path) -> Result<(), CertError> {
        self.write(dir)
    }

    fn write(&self, dir: &Path) -> Result<(), CertError> {
        // The roots first: a crash in between leaves the old key, whose root is among them.
        let roots: String = self.roots.iter().map(files::certificate_pem).collect();
        files::write(&dir.join(CA_PEM), &roots, Readers::Everybody)?;
        files::write(&dir.join(CA_KEY), &files::key_pem(&self.key), Readers::Owner)
    }

    /// A new key and a certificate for it, valid for so long from now.
    pub fn issue(&self, env: &Env, identity: &Identity, lifetime: Duration) -> Result<Credentials, CertError> {
        let not_after = whole_seconds(env.unix_time() + lifetime);
        if not_after > self.not_after {
            return Err(CertError::OutlivesAuthority { until: not_after, authority: self.not_after });
        }
        if *identity.cluster() != self.cluster {
            let what = identity.to_string();
            return Err(CertError::OtherCluster {
                what,
                theirs: identity.cluster().clone(),
                ours: self.cluster.clone(),
            });
        }
        let key = new_key(env);
        let mut params = leaf_params(identity)?;
        (params.not_before, params.not_after) = validity(env, not_after)?;
        params.serial_number = Some(serial_number(env));
        let certificate = self.sign(params, &key)?;
        Credentials::new(identity.name().to_string(), self.roots.clone(), certificate, key)
    }

    /// Signs whatever it is given.
    pub(crate) fn sign(
        &self,
        params: CertificateParams,
        key: &PrivatePkcs8KeyDer<'_>,
    ) -> Result<CertificateDer<'static>, CertError> {
        let own = key_pair(&self.key, CA_KEY)?;
        let issuer = Issuer::new(root_params(&own), own);
        let signed = params.signed_by(&key_pair(key, "the new key")?, &issuer).map_err(cannot_make)?;
        Ok(signed.der().clone())
    }

    /// The cluster that it speaks for.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// When its root ends, as unix time.
    pub fn not_after(&self) -> Duration {
        self.not_after
    }
}

/// The cluster that a root speaks for.
pub(crate) fn cluster_of_root(root: &Certificate, what: &str) -> Result<Name, CertError> {
    let cluster = |uri: &String| uri.strip_prefix("spiffe://").and_then(|cluster| Name::new(cluster).ok());
    match &root.uris[..] {
        [] => Err(CertError::NoIdentity { what: what.into() }),
        [uri] => cluster(uri).ok_or_else(|| {
            CertError::malformed(what, format!("{uri:?} is not the URI of a cluster: spiffe://<cluster>"))
        }),
        many => Err(CertError::ManyIdentities { what: what.into(), count: many.len() }),
    }
}

/// What identifies a root as an issuer: all that follows from its key.
fn root_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Two authorities of one cluster need two names, or a verifier would take one for the other.
    let id: String = params.key_identifier(key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = common_name(&format!("beam authority {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn leaf_params(identity: &Identity) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(identity.name().as_str());
    params.subject_alt_names = vec![uri(&identity.to_string())?];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match identity {
        // A client's certificate cannot pose as a node's.
        Identity::Client { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Identity::Node { .. } => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

pub(crate) fn uri(text: &str) -> Result<SanType, CertError> {
    text.try_into().map(SanType::URI).map_err(cannot_make)
}

fn validity(env: &Env, not_after: Duration) -> Result<(OffsetDateTime, OffsetDateTime), CertError> {
    let at = |unix: Duration| {
        i64::try_from(unix.as_secs())
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .ok_or_else(|| CertError::malformed("the lifetime", "it ends after the year 9999"))
    };
    Ok((at(env.unix_time().saturating_sub(BACKDATED))?, at(not_after)?))
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

/// 127 random bits: positive, and unique (RFC 5280 4.1.2.2).
fn serial_number(env: &Env) -> SerialNumber {
    let mut bytes: [u8; 16] = env.random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// An Ed25519 key out of 32 random bytes (RFC 8410: PKCS #8 is a fixed prefix before them).
pub(crate) fn new_key(env: &Env) -> PrivatePkcs8KeyDer<'static> {
    const PREFIX: [u8; 16] = [0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32];
    let secret: [u8; 32] = env.random();
    PrivatePkcs8KeyDer::from([&PREFIX[..], &secret].concat())
}

/// `what` names the key in errors.
pub(crate) fn key_pair(key: &PrivatePkcs8KeyDer<'_>, what: &str) -> Result<KeyPair, CertError> {
    KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ED25519)
        .map_err(|_| CertError::malformed(what, "it is not an Ed25519 key"))
}

fn cannot_make(e: rcgen::Error) -> CertError {
    CertError::malformed("the new certificate", e)
}

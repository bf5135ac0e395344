//! Judges the certificate of a peer, or one's own.

use crate::CertError;
use crate::certificate::Certificate;
use beam_wire::{Identity, Name};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// What the owner of a certificate wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Accept connections.
    Node,
    /// Open connections.
    Caller,
}

/// Takes certificates that a root signed for the use at hand, that are valid now, and that name one
/// identity of the cluster.
#[derive(Debug)]
pub(crate) struct Verifier {
    roots: Vec<TrustAnchor<'static>>,
    cluster: Name,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(crate) fn new(
        roots: &[CertificateDer<'_>],
        cluster: Name,
        crypto: &CryptoProvider,
    ) -> Result<Verifier, CertError> {
        let anchor = |root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned());
        let roots: Result<Vec<_>, _> = roots.iter().map(anchor).collect();
        let roots = roots.map_err(|e| CertError::malformed("a root in ca.pem", e))?;
        Ok(Verifier { roots, cluster, algorithms: crypto.signature_verification_algorithms })
    }

    pub(crate) fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: Duration,
        usage: Usage,
    ) -> Result<Identity, CertError> {
        let who = who(certificate);
        let key_usage = match usage {
            Usage::Node => KeyUsage::server_auth(),
            Usage::Caller => KeyUsage::client_auth(),
        };
        let time = UnixTime::since_unix_epoch(now);
        EndEntityCert::try_from(certificate)
            .and_then(|parsed| {
                parsed
                    .verify_for_usage(self.algorithms.all, &self.roots, intermediates, time, key_usage, None, None)
                    .map(drop)
            })
            .map_err(|fault| match fault {
                webpki::Error::CertExpired { not_after, .. } => {
                    CertError::Expired { who: who.clone(), since: Duration::from_secs(not_after.as_secs()) }
                }
                webpki::Error::CertNotValidYet { not_before, .. } => {
                    CertError::NotYetValid { who: who.clone(), from: Duration::from_secs(not_before.as_secs()), now }
                }
                webpki::Error::UnknownIssuer => CertError::OtherAuthority { who: who.clone() },
                other => CertError::Unusable { who: who.clone(), why: other.to_string() },
            })?;

        let what = format!("the certificate of {who}");
        let identity = Certificate::read(certificate, &what)?.identity(&what)?;
        if *identity.cluster() != self.cluster {
            let (theirs, ours) = (identity.cluster().clone(), self.cluster.clone());
            return Err(CertError::OtherCluster { what, theirs, ours });
        }
        if usage == Usage::Node && matches!(identity, Identity::Client { .. }) {
            return Err(CertError::NotANode { what });
        }
        Ok(identity)
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), Error> {
        let now = Duration::from_secs(now.as_secs());
        self.judge(certificate, intermediates, now, usage).map(drop).map_err(|e| tls_error(e, now))
    }
}

/// Whom a certificate claims to be of, for messages about certificates that nobody vouched for.
fn who(certificate: &CertificateDer<'_>) -> String {
    let read = Certificate::read(certificate, "it");
    match read.map(|certificate| certificate.uris) {
        Ok(uris) if !uris.is_empty() => uris.join(" and "),
        _ => "an unknown peer".into(),
    }
}

/// rustls tells the peer a code that follows from the variant; the sentence stays here.
fn tls_error(e: CertError, now: Duration) -> Error {
    let unix = UnixTime::since_unix_epoch;
    Error::InvalidCertificate(match e {
        CertError::Expired { since, .. } => {
            CertificateError::ExpiredContext { time: unix(now), not_after: unix(since) }
        }
        CertError::NotYetValid { from, .. } => {
            CertificateError::NotValidYetContext { time: unix(now), not_before: unix(from) }
        }
        CertError::OtherAuthority { .. } => CertificateError::UnknownIssuer,
        CertError::Malformed { .. } => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(Sentence(other)))),
    })
}

/// rustls shows other errors by `Debug`; people should read the sentence.
struct Sentence(CertError);

impl fmt::Debug for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Sentence {}

impl ServerCertVerifier for Verifier {
    /// The name is not looked at: see the crate's documentation.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now, Usage::Node).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now, Usage::Caller).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fn only_tls13() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

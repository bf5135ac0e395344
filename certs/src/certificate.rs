//! What a certificate says, read from its DER.

use crate::CertError;
use beam_wire::Identity;
use rustls::pki_types::CertificateDer;
use std::time::Duration;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The parts of a certificate that Beam looks at. That it is signed by somebody is not checked here.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// All URIs of its subject.
    pub(crate) uris: Vec<String>,
    /// The Ed25519 public key, if it is one.
    pub(crate) public_key: Vec<u8>,
    /// As unix time.
    pub(crate) not_before: Duration,
    /// As unix time.
    pub(crate) not_after: Duration,
}

impl Certificate {
    /// `what` names the certificate in errors.
    pub(crate) fn read(der: &CertificateDer<'_>, what: &str) -> Result<Certificate, CertError> {
        let malformed = |why: String| CertError::malformed(what, why);
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes follow the certificate", rest.len())));
        }
        let names = parsed.subject_alternative_name().map_err(|e| malformed(e.to_string()))?;
        let uri = |name: &GeneralName<'_>| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        };
        let uris = names.map(|san| san.value.general_names.iter().filter_map(uri).collect()).unwrap_or_default();
        let unix = |seconds: i64| Duration::from_secs(seconds.max(0) as u64);
        Ok(Certificate {
            uris,
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            not_before: unix(parsed.validity().not_before.timestamp()),
            not_after: unix(parsed.validity().not_after.timestamp()),
        })
    }

    /// The one identity that it names.
    pub(crate) fn identity(&self, what: &str) -> Result<Identity, CertError> {
        match &self.uris[..] {
            [] => Err(CertError::NoIdentity { what: what.into() }),
            [uri] => uri.parse().map_err(|source| CertError::Identity { what: what.into(), source }),
            many => Err(CertError::ManyIdentities { what: what.into(), count: many.len() }),
        }
    }
}

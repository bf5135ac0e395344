//! What certificates there are in a directory, and how good they are.

use crate::authority::cluster_of_root;
use crate::certificate::Certificate;
use crate::error::utc;
use crate::files::{self, CA_PEM};
use crate::verify::{Usage, Verifier};
use crate::{CertError, Credentials};
use beam_wire::Identity;
use beam_wire::env::Env;
use rustls::pki_types::CertificateDer;
use std::path::Path;
use std::time::Duration;

/// One certificate that was found.
#[derive(Debug)]
pub struct Surveyed {
    /// The file that it is in.
    pub file: String,
    /// The URI of whom it names; for an authority, of its cluster.
    pub names: String,
    /// Whether it is the root of an authority.
    pub is_authority: bool,
    /// From when it is valid, as unix time.
    pub not_before: Duration,
    /// Until when it is valid, as unix time.
    pub not_after: Duration,
    /// Whether it can be used now, with the key beside it and the roots in `ca.pem`.
    pub usable: Result<(), CertError>,
}

impl Surveyed {
    /// Its validity as people read it.
    pub fn valid(&self) -> (String, String) {
        (utc(self.not_before), utc(self.not_after))
    }
}

/// Looks at every `*.pem` of a directory, `ca.pem` first, then by name.
pub fn survey(env: &Env, dir: &Path) -> Result<Vec<Surveyed>, CertError> {
    let unreadable = |source| CertError::Unreadable { path: dir.into(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.file_name();
        if let Some(stem) = file.to_str().and_then(|file| file.strip_suffix(".pem")) {
            files.push(stem.to_owned());
        }
    }
    files.sort_by_key(|stem| (format!("{stem}.pem") != CA_PEM, stem.clone()));
    let mut found = Vec::new();
    for stem in files {
        let file = format!("{stem}.pem");
        let certificates = files::read_certificates(&dir.join(&file), "`beam cert`")?;
        for der in certificates {
            let read = Certificate::read(&der, &file)?;
            let usable = match file == CA_PEM {
                true => authority(env, &read, &file),
                false => leaf(env, dir, &stem, &der),
            };
            found.push(Surveyed {
                names: read.uris.join(" "),
                is_authority: file == CA_PEM,
                not_before: read.not_before,
                not_after: read.not_after,
                usable,
                file: file.clone(),
            });
        }
    }
    Ok(found)
}

fn authority(env: &Env, root: &Certificate, file: &str) -> Result<(), CertError> {
    let who = cluster_of_root(root, file).map(|cluster| format!("the authority of {cluster}"))?;
    match env.unix_time() > root.not_after {
        true => Err(CertError::Expired { who, since: root.not_after }),
        false => Ok(()),
    }
}

fn leaf(env: &Env, dir: &Path, stem: &str, der: &CertificateDer<'_>) -> Result<(), CertError> {
    match Credentials::load(dir, stem) {
        Ok(credentials) => credentials.tls(env).map(drop),
        // Where only certificates are gathered, their keys are elsewhere: judge what is there.
        Err(CertError::Missing { path, .. }) if path.extension().is_some_and(|kind| kind == "key") => {
            let file = format!("{stem}.pem");
            let identity = Certificate::read(der, &file)?.identity(&file)?;
            let roots = files::read_certificates(&dir.join(CA_PEM), "`beam cert ca`")?;
            let usage = match identity {
                Identity::Node { .. } => Usage::Node,
                Identity::Client { .. } => Usage::Caller,
            };
            let verifier = Verifier::new(&roots, identity.cluster().clone(), &env.crypto())?;
            verifier.judge(der, &[], env.unix_time(), usage).map(drop)
        }
        Err(e) => Err(e),
    }
}

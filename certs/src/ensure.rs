//! The certificates of a cluster that one person runs on one machine, made as they are needed.

use crate::files::CA_KEY;
use crate::{Authority, CertError, Credentials, days};
use beam_wire::env::Env;
use beam_wire::{Identity, Name};
use std::path::Path;
use std::time::Duration;

/// How long the authority is valid, in days: it is as old as the data beside it.
const AUTHORITY_DAYS: u32 = 3650;

/// How long certificates are valid, in days.
const LEAF_DAYS: u32 = 90;

/// Who starts a cluster for a demonstration may let it run for a week.
const RENEWED_BEFORE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Gives each identity its credentials out of `dir`: makes an authority if there is none, issues what
/// is missing or ends within a week, and keeps the rest. In production use [`Authority::issue`],
/// elsewhere than where the nodes run.
pub fn ensure(env: &Env, dir: &Path, cluster: &Name, identities: &[Identity]) -> Result<Vec<Credentials>, CertError> {
    let authority = match dir.join(CA_KEY).exists() {
        true => Authority::load(dir)?,
        false => {
            let authority = Authority::create(env, cluster, days(AUTHORITY_DAYS))?;
            authority.save(dir)?;
            authority
        }
    };
    if authority.cluster() != cluster {
        let what = dir.join(CA_KEY).display().to_string();
        return Err(CertError::OtherCluster { what, theirs: authority.cluster().clone(), ours: cluster.clone() });
    }
    let of = |identity: &Identity| {
        match Credentials::load(dir, identity.name().as_str()) {
            Ok(found) if found.identity() == identity && found.not_after() > env.unix_time() + RENEWED_BEFORE => {
                if found.tls(env).is_ok() {
                    return Ok(found);
                }
            }
            Ok(_) | Err(CertError::Missing { .. } | CertError::KeyMismatch { .. }) => {}
            Err(e) => return Err(e),
        }
        let issued = authority.issue(env, identity, days(LEAF_DAYS))?;
        issued.save(dir)?;
        Ok(issued)
    };
    identities.iter().map(of).collect()
}

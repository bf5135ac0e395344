//! Certificates are short-lived: whoever issues them writes new ones over the old, and a running node
//! takes them up.

use crate::{CertError, Credentials};
use beam_wire::env::Env;
use beam_wire::quic::Tls;
use std::path::PathBuf;
use std::time::Duration;

/// How often a running node looks for new certificates: nobody issues them for minutes only, and
/// reading three small files costs nothing.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Looks into `dir` for ever, and gives each change of certificate, key or roots to `found`, which
/// hands it to the endpoint. What cannot be used is given too, once for each distinct fault, so that
/// it can be said; the endpoint keeps what it has.
pub async fn follow(
    env: Env,
    dir: PathBuf,
    name: String,
    mut current: Credentials,
    mut found: impl FnMut(Result<Tls, CertError>) + Send,
) {
    let mut told = String::new();
    loop {
        env.sleep(LOOK_EVERY).await;
        let (from, of) = (dir.clone(), name.clone());
        let tls = match env.blocking(move || Credentials::load(&from, &of)).await {
            Ok(read) if read.certificate() == current.certificate() && read.roots() == current.roots() => {
                told.clear();
                continue;
            }
            Ok(read) => read.tls(&env).map(|tls| (read, tls)),
            Err(e) => Err(e),
        };
        match tls {
            Ok((read, tls)) => {
                current = read;
                told.clear();
                found(Ok(tls));
            }
            Err(e) => {
                let sentence = e.to_string();
                if sentence != told {
                    told = sentence;
                    found(Err(e));
                }
            }
        }
    }
}

//! Which cluster the examples speak to, from the command line or the environment.

use beam_certs::Credentials;
use beam_client::ClientOptions;
use beam_client::wire::env::{Env, dns::Resolver};
use beam_client::wire::topology::Topology;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

pub struct Cluster {
    pub env: Env,
    pub topology: Topology,
    credentials: Credentials,
}

pub fn from_args() -> Result<Cluster, Box<dyn Error>> {
    let setting = |option: &str, variable: &str, default: &str| {
        let mut args = std::env::args().skip_while(|arg| arg != option).skip(1);
        args.next().or_else(|| std::env::var(variable).ok()).unwrap_or_else(|| default.to_owned())
    };
    let topology = Topology::load(&PathBuf::from(setting("--topology", "BEAM_TOPOLOGY", "topology.toml")))?;
    let certs = PathBuf::from(setting("--certs", "BEAM_CERTS", "beam-data/certs"));
    let credentials = Credentials::load(&certs, &setting("--client", "BEAM_CLIENT", "writer"))?;
    let servers = &topology.dns.servers;
    let resolver = if servers.is_empty() { Resolver::system()? } else { Resolver::new(servers)? };
    Ok(Cluster { env: Env::real(Arc::new(resolver)), topology, credentials })
}

impl Cluster {
    pub fn options(&self) -> Result<ClientOptions, Box<dyn Error>> {
        Ok(ClientOptions::of(&self.topology, self.credentials.tls(&self.env)?))
    }
}

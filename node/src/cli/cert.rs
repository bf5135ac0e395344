//! `beam cert`: makes an authority, and the certificates of nodes and clients.
//!
//! Files that were written are named on stdout, one a line.

use anyhow::{Context, bail};
use beam_certs::{Authority, Surveyed, days, survey};
use beam_wire::env::Env;
use beam_wire::env::dns::Resolver;
use beam_wire::topology::Topology;
use beam_wire::{ClientRole, Identity, Name, Role};
use comfy_table::{Table, presets};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Makes and shows certificates.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes the authority of a cluster: ca.pem, which every node and client needs, and ca.key, which stays here
    Ca(Ca),
    /// Issues certificates of nodes
    Node(Node),
    /// Issues the certificate of a client
    Client(Client),
    /// Shows the certificates of a directory, and whether they can be used
    Show(Show),
}

/// Where certificates are, and how long new ones are valid.
#[derive(Debug, clap::Args)]
struct Place {
    /// The directory of the certificates
    #[arg(long, default_value = "certs")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Ca {
    #[command(flatten)]
    place: Place,
    /// The cluster; without it, the one of the topology
    #[arg(long)]
    cluster: Option<Name>,
    /// The topology
    #[arg(long, default_value = "topology.toml")]
    topology: PathBuf,
    /// How long the authority is valid
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    /// Replace the authority that is there, and go on trusting it: give the new ca.pem to every node and client, then issue new certificates
    #[arg(long)]
    roll: bool,
}

#[derive(Debug, clap::Args)]
struct Node {
    /// The nodes; all of the topology, if none is named
    names: Vec<Name>,
    #[command(flatten)]
    place: Place,
    /// The topology, which says where the nodes are and what they do
    #[arg(long, default_value = "topology.toml")]
    topology: PathBuf,
    /// For one node that the topology does not name: its datacenter
    #[arg(long, requires_all = ["roles", "names"])]
    datacenter: Option<Name>,
    /// For one node that the topology does not name: its roles (log, view, api)
    #[arg(long, requires = "datacenter", value_delimiter = ',')]
    roles: Vec<Role>,
    /// How long the certificates are valid
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
}

#[derive(Debug, clap::Args)]
struct Client {
    /// The client
    name: Name,
    #[command(flatten)]
    place: Place,
    /// What it may do: reader, writer or admin
    #[arg(long, default_value = "reader")]
    role: ClientRole,
    /// How long the certificate is valid
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    place: Place,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Does what the arguments say.
pub fn run(args: Args) -> anyhow::Result<()> {
    // Nobody is asked anything here: the clock and chance are all that certificates need.
    let env = Env::real(Arc::new(Resolver::new(&[])?));
    match args.command {
        Command::Ca(args) => ca(&env, args),
        Command::Node(args) => node(&env, args),
        Command::Client(args) => client(&env, args),
        Command::Show(args) => show(&env, args),
    }
}

fn ca(env: &Env, args: Ca) -> anyhow::Result<()> {
    let dir = &args.place.dir;
    let cluster = match args.cluster {
        Some(cluster) => cluster,
        None => Topology::load(&args.topology).context("name the cluster by --cluster or --topology")?.cluster,
    };
    let mut authority = Authority::create(env, &cluster, days(args.days))?;
    if args.roll {
        authority.trust_also(&Authority::load(dir)?)?;
        authority.replace(dir)?;
        eprintln!("the authority of cluster {cluster} was replaced, and the old one stays trusted");
        eprintln!("give ca.pem to every node and client before you issue certificates");
    } else {
        authority.save(dir)?;
        eprintln!("the authority of cluster {cluster} is made: keep ca.key away from nodes and clients");
    }
    wrote(dir, &["ca.pem".into(), "ca.key".into()]);
    Ok(())
}

fn node(env: &Env, args: Node) -> anyhow::Result<()> {
    let dir = &args.place.dir;
    let authority = Authority::load(dir)?;
    let identities = match args.datacenter {
        Some(datacenter) => {
            let [name] = &args.names[..] else { bail!("--datacenter and --roles describe one node: name one") };
            vec![Identity::node(authority.cluster().clone(), datacenter, name.clone(), args.roles)]
        }
        None => nodes_of_topology(&args.topology, &args.names, authority.cluster())?,
    };
    for identity in identities {
        issue(env, dir, &authority, &identity, days(args.days))?;
    }
    Ok(())
}

/// The nodes of these names, or all if there is none.
fn nodes_of_topology(file: &Path, names: &[Name], cluster: &Name) -> anyhow::Result<Vec<Identity>> {
    let topology = Topology::load(file)?;
    let theirs = &topology.cluster;
    if theirs != cluster {
        bail!("{} describes cluster {theirs}, and the authority is of cluster {cluster}", file.display());
    }
    if names.is_empty() {
        return Ok(topology.nodes.iter().map(|node| topology.identity(node)).collect());
    }
    let identity = |name: &Name| match topology.node(name) {
        Some(node) => Ok(topology.identity(node)),
        None => bail!(
            "{} names no node {name}: add it there, or say where it is and what it does by --datacenter and --roles",
            file.display()
        ),
    };
    names.iter().map(identity).collect()
}

fn client(env: &Env, args: Client) -> anyhow::Result<()> {
    let dir = &args.place.dir;
    let authority = Authority::load(dir)?;
    let identity = Identity::client(authority.cluster().clone(), args.name, args.role);
    issue(env, dir, &authority, &identity, days(args.days))
}

fn issue(env: &Env, dir: &Path, authority: &Authority, identity: &Identity, lifetime: Duration) -> anyhow::Result<()> {
    if identity.name().as_str() == "ca" {
        bail!("\"ca\" is the authority's own file: choose another name");
    }
    authority.issue(env, identity, lifetime)?.save(dir)?;
    eprintln!("{identity}");
    wrote(dir, &[format!("{}.pem", identity.name()), format!("{}.key", identity.name())]);
    Ok(())
}

fn wrote(dir: &Path, files: &[String]) {
    for file in files {
        println!("{}", dir.join(file).display());
    }
}

fn show(env: &Env, args: Show) -> anyhow::Result<()> {
    let found = survey(env, &args.place.dir)?;
    let state = |at: &Surveyed| at.usable.as_ref().map_or_else(|e| e.to_string(), |()| "ok".into());
    match args.output {
        Output::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["FILE", "NAMES", "VALID UNTIL", "STATE"]);
            for at in &found {
                table.add_row([at.file.clone(), at.names.clone(), at.valid().1, state(at)]);
            }
            println!("{table}");
        }
        Output::Json => {
            let certificates: Vec<_> = found
                .iter()
                .map(|at| {
                    json!({
                        "file": at.file,
                        "names": at.names,
                        "authority": at.is_authority,
                        "not_before_unix_s": at.not_before.as_secs(),
                        "not_after_unix_s": at.not_after.as_secs(),
                        "usable": at.usable.is_ok(),
                        "state": state(at),
                    })
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&json!({ "version": 1, "certificates": certificates }))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Runs a command line in a directory of its own, with the committed topology beside it.
    fn beam_cert(dir: &Path, line: &str) -> Result<(), String> {
        let topology = dir.join("topology.toml");
        std::fs::write(&topology, include_str!("../../../topology.toml")).unwrap();
        let line = line.replace("T=", &format!("--topology={}", topology.display()));
        let words = ["cert"].into_iter().chain(line.split_whitespace()).map(String::from);
        let at = format!("--dir={}", dir.join("certs").display());
        let line = Line::try_parse_from(words.chain([at])).map_err(|e| e.to_string())?;
        run(line.args).map_err(|e| format!("{e:#}").replace(&format!("{}/", dir.display()), ""))
    }

    #[test]
    fn a_cluster_gets_its_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let run = |line| beam_cert(dir.path(), line);
        assert_eq!(run("node T="), Err("certs/ca.key does not exist: `beam cert ca` makes it".into()));
        run("ca T=").unwrap();
        assert_eq!(run("ca T="), Err("certs/ca.key exists already: nothing was overwritten".into()));
        run("node T=").unwrap();
        run("client alice --role=writer").unwrap();
        run("node extra --datacenter=va --roles=view,api").unwrap();
        run("ca T= --roll").unwrap();
        run("node log-va T=").unwrap();
        run("show").unwrap();
        run("show --output=json").unwrap();

        let env = Env::real(Arc::new(Resolver::new(&[]).unwrap()));
        let found = survey(&env, &dir.path().join("certs")).unwrap();
        assert_eq!(found.len(), 2 + 18 + 1 + 1);
        assert!(found.iter().all(|at| at.usable.is_ok()), "{found:?}");
        let names = |file: &str| found.iter().find(|at| at.file == file).unwrap().names.clone();
        assert_eq!(names("extra.pem"), "spiffe://beam/dc/va/node/extra/role/view.api");
        assert_eq!(names("alice.pem"), "spiffe://beam/client/alice/role/writer");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let run = |line| beam_cert(dir.path(), line).unwrap_err();
        assert!(
            run("ca --topology=nowhere.toml").contains("name the cluster by --cluster or --topology: nowhere.toml")
        );
        beam_cert(dir.path(), "ca --cluster=other").unwrap();
        assert_eq!(run("node T="), "topology.toml describes cluster beam, and the authority is of cluster other");
        std::fs::remove_dir_all(dir.path().join("certs")).unwrap();
        beam_cert(dir.path(), "ca T=").unwrap();
        assert!(run("node mars T=").starts_with("topology.toml names no node mars: add it there"));
        assert!(run("client ca").contains("choose another name"));
        assert!(run("client Alice").contains("\"Alice\" is not a name"));
        assert!(run("client alice --role=god").contains("roles are reader, writer and admin"));
        assert!(run("client alice --days=0").contains("0 is not in 1..=36500"));
        assert!(run("client alice --days=36500").contains("longer than its authority"));
        assert!(run("node a b --datacenter=va --roles=log").contains("name one"));
    }
}

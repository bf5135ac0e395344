//! What a cluster refuses, and how it says so: each within seconds of (virtual) time, with its own code, and nothing is
//! changed.

use anyhow::{Context, Result};
use beam_client::{Builder, Client, ClientError};
use beam_node::demo::checks;
use beam_node::log::disk_sim::Loss;
use beam_tests::SimCluster;
use beam_wire::env::sim::SimWorld;
use beam_wire::{ClientRole, Code, Name, Position, Term};
use std::collections::BTreeMap;
use std::time::Duration;

async fn small(world: &SimWorld) -> Result<(SimCluster, Vec<Name>)> {
    let cluster = SimCluster::start(world.clone(), 0.0, |topology| topology.verdicts.slots_log2 = 12).await?;
    let datacenters = cluster.topology.datacenters.clone();
    Ok((cluster, datacenters))
}

async fn serving(cluster: &mut SimCluster, role: ClientRole) -> Result<Client> {
    let datacenters = cluster.topology.datacenters.clone();
    let client = cluster.client(&datacenters[0], &datacenters, role).await?;
    let clients = BTreeMap::from([(datacenters[0].clone(), client.clone())]);
    checks::until_serving(&cluster.env(), &clients, Duration::from_secs(30)).await.context("at the start")?;
    Ok(client)
}

#[track_caller]
fn refused<T>(answer: Result<T, ClientError>, code: Code, says: &str) {
    let error = answer.err().expect("it must be refused");
    assert_eq!(error.code(), Some(code), "{error}");
    assert!(error.to_string().contains(says), "it does not say {says:?}: {error}");
}

const WRITE: &str = "INSERT DATA { <urn:a> <urn:p> 1 }";

#[test]
fn a_role_may_do_only_what_is_its_own() {
    SimWorld::run(1, |world| async move {
        let (mut cluster, _) = small(&world).await?;
        let reader = serving(&mut cluster, ClientRole::Reader).await?;
        refused(reader.update(WRITE).await, Code::Denied, "reader");
        let nothing = reader.query_all("ASK { ?s ?p ?o }", Position::Latest).await?;
        assert_eq!(nothing.shape, beam_wire::message::api::Shape::Boolean(false));
        anyhow::Ok(())
    })
    .unwrap();
}

#[test]
fn what_is_no_query_or_too_large_is_refused_and_changes_nothing() {
    SimWorld::run(2, |world| async move {
        let (mut cluster, _) = small(&world).await?;
        let writer = serving(&mut cluster, ClientRole::Writer).await?;
        refused(writer.query_all("SELECT", Position::Latest).await, Code::Invalid, "line 1");
        refused(writer.update("INSERT DATA { <urn:a> }").await, Code::Invalid, "line 1");
        let mut facts = Builder::new();
        let iri = |text: &str| Term::Iri(text.to_owned());
        // Random letters, so that no compression makes it small.
        let mut long = String::new();
        while long.len() < 2 << 20 {
            long += &format!("{:x}", cluster.env().random_u128());
        }
        facts.insert([iri("urn:a"), iri("urn:p"), Term::string(&long)], None)?;
        refused(writer.write(facts).await, Code::TooLarge, "bytes");
        let nothing = writer.query_all("ASK { ?s ?p ?o }", Position::Latest).await?;
        assert_eq!(nothing.shape, beam_wire::message::api::Shape::Boolean(false));
        anyhow::Ok(())
    })
    .unwrap();
}

#[test]
fn without_a_quorum_reads_of_the_past_go_on_and_all_else_says_why() {
    SimWorld::run(3, |world| async move {
        let (mut cluster, datacenters) = small(&world).await?;
        let writer = serving(&mut cluster, ClientRole::Writer).await?;
        let version = writer.update(WRITE).await?.version;
        // Views of the first datacenter have it: they answered a Latest read.
        let one = "SELECT ?o WHERE { <urn:a> <urn:p> ?o }";
        assert_eq!(writer.query_all(one, Position::Latest).await?.rows.len(), 1);
        for lost in &datacenters[1..] {
            cluster.lose_datacenter(lost, Loss::Unsynced).await;
        }
        let only = [datacenters[0].clone()];
        let alone = cluster.client_within(&datacenters[0], &only, ClientRole::Writer, Duration::from_secs(8)).await?;
        let began = cluster.env().now();
        let error =
            alone.update("INSERT DATA { <urn:b> <urn:p> 2 }").await.err().context("nobody can acknowledge it")?;
        assert!(error.to_string().contains("majority"), "{error}");
        let error =
            alone.query_all(one, Position::Latest).await.err().context("nobody can confirm the newest version")?;
        assert!(error.to_string().contains("majority"), "{error}");
        assert!(cluster.env().now() - began < Duration::from_secs(20));
        assert_eq!(alone.query_all(one, Position::Exact(version)).await?.rows.len(), 1);
        assert_eq!(alone.query_all(one, Position::Recent).await?.rows.len(), 1);
        anyhow::Ok(())
    })
    .unwrap();
}

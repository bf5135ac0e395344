//! openraft's own cases for storage: what it takes for granted of ours.

use super::{options, run};
use crate::log::disk::{Directory, Disk};
use crate::log::disk_sim::{SimDisk, SimDiskOptions};
use crate::log::machine::Machine;
use crate::log::store::LogStore;
use crate::log::types::LogTypes;
use beam_wire::env::Env;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::sync::Arc;
use std::time::Duration;

struct OnDirectory;
struct InMemory;

type Built<G> = Result<(G, LogStore, Machine), StorageError<LogTypes>>;

async fn build<G>(guard: G, disk: impl Disk) -> Built<G> {
    let store = LogStore::open(&Env::current(), Arc::new(disk), options()).await.unwrap();
    let machine = Machine::new(store.clone(), Arc::new(|_| {}));
    Ok((guard, store, machine))
}

impl StoreBuilder<LogTypes, LogStore, Machine, tempfile::TempDir> for OnDirectory {
    async fn build(&self) -> Built<tempfile::TempDir> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::open(dir.path()).unwrap();
        build(dir, disk).await
    }
}

impl StoreBuilder<LogTypes, LogStore, Machine, ()> for InMemory {
    async fn build(&self) -> Built<()> {
        let slow = SimDiskOptions { sync: Duration::from_micros(100), ..Default::default() };
        build((), SimDisk::new(&Env::current(), slow)).await
    }
}

#[test]
fn openraft_accepts_a_log_in_a_directory() {
    run(Suite::test_all(OnDirectory)).unwrap();
}

#[test]
fn openraft_accepts_a_log_on_a_simulated_disk() {
    run(Suite::test_all(InMemory)).unwrap();
}

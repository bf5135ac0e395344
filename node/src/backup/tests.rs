//! Backups of a small log: broken off, damaged, added to, restored to every index.

use super::chunk::is_chunk_name;
use super::manifest::{Locked, Manifest, ManifestError};
use super::restore::{RestoreError, Restored, Target, restore};
use super::verify::verify;
use super::write::Writer;
use crate::log::disk::Directory;
use crate::log::store::{LogStore, StoreOptions};
use crate::log::types::{LogCommand, LogNode};
use beam_wire::env::Env;
use beam_wire::env::dns::Resolver;
use beam_wire::message::log::{Entry, EpochBegan};
use beam_wire::{Epoch, LogIndex, Name, Origin};
use openraft::EntryPayload;
use openraft::storage::RaftLogReader;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn env() -> Env {
    Env::real(Arc::new(Resolver::new(&[]).unwrap()))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// What lies at an index: the log's own entries are skips, the first data comes third.
fn entry(index: u64) -> Entry {
    match index {
        0 | 1 | 7 => Entry::Skip,
        _ => {
            let origin = Origin { node: name("log-va"), boot: 1, sequence: index };
            Entry::Data { origin, body: format!("body {index} {}", "x".repeat(index as usize % 50)).into() }
        }
    }
}

fn began() -> Vec<EpochBegan> {
    vec![EpochBegan { epoch: Epoch(500), kept: LogIndex(9) }]
}

fn open(directory: &Path, first: u64) -> Writer {
    let manifest = Manifest::load(directory).unwrap();
    let manifest = manifest.unwrap_or_else(|| Manifest::new(name("beam"), LogIndex(first)));
    Writer::open(directory, manifest, began()).unwrap()
}

/// A backup of entries `first..=last`, in chunks of so many.
fn backup(directory: &Path, first: u64, last: u64, chunk: usize) {
    let indexes: Vec<u64> = (first..=last).collect();
    for run in indexes.chunks(chunk) {
        let mut writer = open(directory, first);
        writer.push(run.iter().map(|i| entry(*i)).collect()).unwrap();
        writer.finish().unwrap();
    }
}

fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 600, ..StoreOptions::new(name("beam")) }
}

async fn restored(backup: &Path, to: Option<u64>, log: &Path) -> Result<Restored, RestoreError> {
    let node = LogNode { node: name("log-va"), datacenter: name("va") };
    let disk = Arc::new(Directory::open(log).unwrap());
    let body = |epoch, kept| format!("begin {epoch} {kept}").into();
    restore(&env(), backup, to.map(LogIndex), Target { disk, options: options(), node, body }, |_| {}).await
}

#[tokio::test]
async fn a_backup_is_restored_to_every_index() {
    let directory = tempfile::tempdir().unwrap();
    backup(directory.path(), 0, 30, 4);
    for to in 2..=30 {
        let log = tempfile::tempdir().unwrap();
        let made = restored(directory.path(), Some(to), log.path()).await.unwrap();
        assert_eq!((made.first, made.kept), (LogIndex(0), LogIndex(to)));
        assert!(made.epoch > Epoch(500 + (1 << 20)));
        let env = env();
        let mut store = LogStore::open(&env, Arc::new(Directory::open(log.path()).unwrap()), options()).await.unwrap();
        let read = store.read(0, to, usize::MAX).await.unwrap();
        assert_eq!(
            read.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>(),
            (0..=to).map(entry).collect::<Vec<_>>()
        );
        let all = store.try_get_log_entries(..).await.unwrap();
        assert_eq!(all.len() as u64, to + 3);
        let began: Vec<u64> = all
            .iter()
            .filter_map(|e| match &e.payload {
                EntryPayload::Normal(LogCommand::Begin { .. }) => Some(e.log_id.index),
                _ => None,
            })
            .collect();
        let expected = if to >= 10 { vec![10, to + 1] } else { vec![to + 1] };
        assert_eq!(began, expected, "epochs begin where they began");
        assert_eq!((store.epoch(), store.state().committed.map(|id| id.index)), (Some(made.epoch), Some(to + 2)));
        store.close().await.unwrap();
        env.tasks().kill();
    }
    for (to, why) in [(1, "nothing was ever appended"), (31, "entries 0 to 30")] {
        let log = tempfile::tempdir().unwrap();
        let refused = restored(directory.path(), Some(to), log.path()).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[tokio::test]
async fn a_log_that_begins_late_is_restored_where_it_was() {
    let (directory, log) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    backup(directory.path(), 12, 20, 3);
    restored(directory.path(), None, log.path()).await.unwrap();
    let env = env();
    let store = LogStore::open(&env, Arc::new(Directory::open(log.path()).unwrap()), options()).await.unwrap();
    assert_eq!((store.state().first, store.state().last.map(|id| id.index)), (12, Some(22)));
    assert_eq!(store.read(12, 12, 0).await.unwrap(), [(12, entry(12))]);
    assert_eq!(store.machine().course.epochs.len(), 2, "an epoch that began before is known");
    store.close().await.unwrap();
    drop(store);
    env.tasks().kill();
    env.tasks().join().await;
    let refused = restored(directory.path(), None, log.path()).await.unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");
}

/// Killed anywhere: what was listed is whole, what was not is written again.
#[tokio::test]
async fn a_backup_that_was_broken_off_goes_on() {
    for seed in 0..40 {
        let mut chance = StdRng::seed_from_u64(seed);
        let directory = tempfile::tempdir().unwrap();
        let mut files_before = Vec::new();
        loop {
            let mut writer = open(directory.path(), 0);
            let next = writer.next().0;
            if next > 40 {
                break;
            }
            let until = (next + chance.random_range(0..9)).min(40);
            writer.push((next..=until).map(entry).collect()).unwrap();
            if chance.random_bool(0.6) {
                writer.finish().unwrap();
            } else {
                // What a kill leaves: a chunk that no manifest names, half of another, half of a manifest.
                let unlisted = format!("log-{next:020}-{until:020}.zst");
                fs::write(directory.path().join(unlisted), "torn").unwrap();
                fs::write(directory.path().join("manifest.json.new"), "{\"manif").unwrap();
            }
            let listed: Vec<String> = Manifest::load(directory.path())
                .unwrap()
                .map_or(Vec::new(), |m| m.chunks.into_iter().map(|chunk| chunk.file).collect());
            assert!(listed.starts_with(&files_before), "files are only added");
            files_before = listed;
            let found = verify_if_any(directory.path()).await;
            assert!(found, "seed {seed}");
        }
        let log = tempfile::tempdir().unwrap();
        assert_eq!(restored(directory.path(), None, log.path()).await.unwrap().kept, LogIndex(40));
        let chunks = fs::read_dir(directory.path()).unwrap();
        let chunks = chunks.filter(|e| is_chunk_name(&e.as_ref().unwrap().file_name().to_string_lossy())).count();
        assert_eq!(chunks, files_before.len(), "nothing that is not listed is left");
    }
}

async fn verify_if_any(directory: &Path) -> bool {
    match verify(&env(), directory, |_, _| {}).await {
        Ok(verified) => verified.damage.is_empty(),
        Err(ManifestError::NoBackup { .. }) => true,
        Err(e) => panic!("{e}"),
    }
}

#[tokio::test]
async fn damage_is_named_and_never_restored() {
    let directory = tempfile::tempdir().unwrap();
    backup(directory.path(), 0, 30, 10);
    let clean = verify(&env(), directory.path(), |_, _| {}).await.unwrap();
    assert_eq!((clean.damage.len(), clean.manifest.last()), (0, Some(LogIndex(30))));
    let mut paths: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap() != "lock");
    for path in paths {
        let whole = fs::read(&path).unwrap();
        let is_manifest = path.extension().unwrap() == "json";
        for at in 0..whole.len() {
            let mut rotten = whole.clone();
            rotten[at] ^= 1;
            fs::write(&path, &rotten).unwrap();
            match verify(&env(), directory.path(), |_, _| {}).await {
                Ok(found) if is_manifest => assert_eq!(found, clean, "white space, byte {at}"),
                Err(e) => assert!(is_manifest, "byte {at} of {path:?}: {e}"),
                Ok(found) => {
                    let file = path.file_name().unwrap().to_string_lossy();
                    assert_eq!(found.damage.iter().map(|d| &d.file).collect::<Vec<_>>(), [&*file], "byte {at}");
                }
            }
        }
        if !is_manifest {
            let log = tempfile::tempdir().unwrap();
            let refused = restored(directory.path(), None, log.path()).await.unwrap_err();
            assert!(matches!(refused, RestoreError::Damaged { .. }), "{refused}");
            fs::remove_file(&path).unwrap();
            let found = verify(&env(), directory.path(), |_, _| {}).await.unwrap();
            assert_eq!(found.damage[0].why, "it is missing");
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let held = Locked::take(directory.path()).unwrap();
    assert!(matches!(Locked::take(directory.path()), Err(ManifestError::InUse { .. })));
    drop(held);
    Locked::take(directory.path()).unwrap();
}

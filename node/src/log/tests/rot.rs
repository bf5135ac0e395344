//! Bytes that rot, anywhere in any file: the log is the same as it was, or it says what is damaged. It never
//! shows other entries, fewer of them, or another vote, and nothing panics.

use super::*;
use crate::log::disk_sim::{SimDisk, SimDiskOptions};
use crate::log::meta::META;
use crate::log::verify::verify;
use redb::StorageBackend;

const ENTRIES: u64 = 14;

/// A log of several segments, whose last one was left in a crash, or closed.
async fn log(closed: bool) -> SimDisk {
    let disk = SimDisk::new(&Env::current(), SimDiskOptions::default());
    let mut store = open(&disk).await.unwrap();
    for index in 0..ENTRIES {
        append(&mut store, [data(1, index)]).await.unwrap();
    }
    store.save_vote(&vote(3)).await.unwrap();
    store.save_committed(Some(id(1, ENTRIES - 1))).await.unwrap();
    store.save().await.unwrap();
    if closed {
        store.close().await.unwrap();
    }
    disk.copy()
}

/// What a node would see.
#[derive(Debug, PartialEq)]
enum Seen {
    AsItWas,
    Error(String),
    Other(String),
}

async fn look(disk: &SimDisk) -> Seen {
    let store = match open(disk).await {
        Ok(store) => store,
        Err(e) => return Seen::Error(e.to_string()),
    };
    let read = async {
        let mut entries = Vec::new();
        for index in 0..ENTRIES {
            entries.extend(store.entries_at(index, index, usize::MAX).await?);
        }
        io::Result::Ok(entries)
    };
    let wanted: Vec<Entry> = (0..ENTRIES).map(|index| data(1, index)).collect();
    match read.await {
        Err(e) => Seen::Error(e.to_string()),
        Ok(entries) if entries == wanted && store.vote() == Some(vote(3)) => Seen::AsItWas,
        Ok(entries) => Seen::Other(format!("{:?} and the vote {:?}", indexes(&entries), store.vote())),
    }
}

/// Flips some bits of every byte that is not zero, and of some that are, one at a time.
async fn rot_everywhere(closed: bool, every: usize) {
    let whole = log(closed).await;
    assert_eq!(look(&whole.copy()).await, Seen::AsItWas);
    let (mut found, mut harmless) = (0, 0);
    for name in whole.list().unwrap() {
        let bytes = whole.bytes(&name).unwrap();
        let places = bytes.iter().enumerate().filter(|(at, byte)| **byte != 0 || at % 997 == 0);
        for (n, (at, _)) in places.enumerate().filter(|(n, _)| n % every == 0) {
            let bits = 1u8 << ((n / every) % 8);
            let disk = whole.copy();
            disk.flip(&name, at as u64, bits).unwrap();
            // Offline first: it must not say that all is well when it is not.
            let verified = verify(Arc::new(disk.copy()), |_| ()).map(|v| (v.entries, v.damages.is_empty()));
            match look(&disk).await {
                Seen::AsItWas => harmless += 1,
                Seen::Error(why) => {
                    assert!(why.contains("segment-") || why.contains(META), "{name} at {at}, bits {bits}: {why}");
                    assert!(
                        !matches!(verified, Ok((_, true))),
                        "{name} at {at}, bits {bits}: nothing found, but {why}"
                    );
                    found += 1;
                }
                Seen::Other(what) => panic!("{name} at {at}, bits {bits}: {what}"),
            }
        }
    }
    println!("{found} found, {harmless} harmless");
    assert!(found > 30 && harmless > 10, "{found} found, {harmless} harmless");
}

#[test]
fn rot_in_a_log_that_was_closed_is_found_or_harmless() {
    run(rot_everywhere(true, 53));
}

#[test]
fn rot_in_a_log_that_was_left_in_a_crash_is_found_or_harmless() {
    run(rot_everywhere(false, 59));
}

/// Damages an entry. Returns its file.
fn rot_entry(disk: &SimDisk, index: u64) -> String {
    let EntryPayload::Normal(LogCommand::Data { body, .. }) = data(1, index).payload else { panic!("it is data") };
    let names = disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment-"));
    let mut rotten = None;
    // Pages that are no longer used may hold it too.
    for name in names {
        let bytes = disk.bytes(&name).unwrap();
        for (at, _) in bytes.windows(body.len()).enumerate().filter(|(_, w)| **w == body[..]) {
            disk.rot(&name, at as u64 + 20).unwrap();
            rotten = Some(name.clone());
        }
    }
    rotten.expect("it is on the disk")
}

/// Prevents: a node that goes on serving from a disk that has begun to rot.
#[test]
fn damage_that_a_reader_finds_ends_the_writer() {
    run(async {
        let disk = log(true).await;
        let name = rot_entry(&disk, 4);
        let node = Env::current().child("node");
        let store = LogStore::open(&node, Arc::new(disk), options()).await.unwrap();
        assert!(store.read(4, 4, 1000).await.unwrap_err().to_string().contains("entry 4"));
        let ended = node.tasks().ended().await;
        assert_eq!(ended.name, "log.writer");
        assert!(ended.why.contains(&name) && ended.why.contains("entry 4"), "{}", ended.why);
        assert!(ended.why.contains("beam log rebuild"), "{}", ended.why);
        assert!(append_only(&mut store.clone(), [data(1, ENTRIES)]).await.is_err());
    });
}

/// Prevents: a damage that is named without saying where, or that hides the next one.
#[test]
fn verify_names_every_damage() {
    run(async {
        let disk = log(true).await;
        let names: Vec<String> = disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment-")).collect();
        assert!(names.len() >= 4);
        let [first, again, third] = [1, 2, 10].map(|index| rot_entry(&disk, index));
        assert!(first == names[0] && again == names[0] && third == names[2], "{names:?}");
        let file = disk.open(&names[1]).unwrap();
        file.set_len(file.len().unwrap() - 100).unwrap();
        let mut told = Vec::new();
        let verified = verify(Arc::new(disk), |progress| told.push(progress.segments)).unwrap();
        assert_eq!(told, Vec::from_iter(0..=names.len()));
        let has = |name: &str, what: &str| verified.damages.iter().any(|d| d.starts_with(name) && d.contains(what));
        assert!(has(&names[0], "entry 1") && has(&names[0], "entry 2") && has(&names[2], "entry 10"), "{verified:?}");
        assert!(has(&names[1], "bytes long, but was"), "{verified:?}");
    });
}

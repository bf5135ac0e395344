use super::*;
use crate::log::disk::Directory;
use crate::log::disk_sim::{Loss, SimDisk, SimDiskOptions};
use crate::log::meta::META;
use crate::log::run;
use crate::log::segment::{RUNS, SINGLES};
use crate::log::stored::encode_entry;
use crate::log::verify::verify;
use beam_wire::message::log::Entry as EntryContent;
use openraft::storage::RaftLogReader;
use redb::{Builder, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, TableDefinition};

fn disk() -> SimDisk {
    SimDisk::new(&Env::current(), SimDiskOptions::default())
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment-")).collect()
}

async fn filled(disk: &SimDisk, count: u64) -> LogStore {
    let mut store = open(disk).await.unwrap();
    for index in 0..count {
        append(&mut store, [data(1, index)]).await.unwrap();
    }
    store
}

/// Prevents: one fsync for each entry, which the slowest disk pays for.
#[test]
fn what_waits_is_flushed_together() {
    run(async {
        let slow = SimDiskOptions { sync: std::time::Duration::from_millis(5), ..Default::default() };
        let disk = SimDisk::new(&Env::current(), slow);
        let roomy = StoreOptions { segment_bytes: 1 << 20, ..options() };
        let mut store = LogStore::open(&Env::current(), Arc::new(disk.clone()), roomy).await.unwrap();
        append(&mut store, [data(1, 0)]).await.unwrap();
        let before = disk.syncs();
        let mut flushed = Vec::new();
        for index in 1..200 {
            flushed.push(append_only(&mut store, [data(1, index)]).await.unwrap());
        }
        for is_flushed in flushed {
            is_flushed.await.unwrap().unwrap();
        }
        assert!(disk.syncs() - before < 20, "{} syncs for 199 appends", disk.syncs() - before);
    });
}

/// Prevents: entries that are nowhere between the memory and the disk.
#[test]
fn entries_are_read_from_memory_and_disk_as_one_log() {
    run(async {
        let disk = disk();
        let store = filled(&disk, 40).await;
        assert!(segments(&disk).len() > 5);
        let everything = all(&store).await;
        assert_eq!(everything, (0..40).map(|i| data(1, i)).collect::<Vec<_>>());
        for from in 0..40 {
            let wanted: Vec<_> = (from..40.min(from + 7)).collect();
            assert_eq!(indexes(&store.clone().try_get_log_entries(from..from + 7).await.unwrap()), wanted);
            // Three of 228 bytes each fit.
            let bounded = store.read(from, 99, 700).await.unwrap();
            assert_eq!(bounded.iter().map(|(i, _)| *i).collect::<Vec<_>>(), Vec::from_iter(from..40.min(from + 3)));
            let (index, EntryContent::Data { origin, .. }) = &store.read(from, from, 0).await.unwrap()[0] else {
                panic!("entry {from} is data")
            };
            assert_eq!((*index, origin.sequence), (from, from));
        }
        assert_eq!(store.read(40, 99, 1000).await.unwrap(), []);
    });
}

/// Prevents: a restart that takes as long as the log is, or that trusts bytes which have rotted: nothing
/// but the ends is read at the start, and what is read later is checked.
#[test]
fn opening_reads_only_the_ends_and_reading_finds_what_rotted() {
    run(async {
        let disk = disk();
        filled(&disk, 40).await.close().await.unwrap();
        let name = &segments(&disk)[1];
        let body = [&5u64.to_le_bytes()[..], &[1; 92]].concat();
        let at = disk.bytes(name).unwrap().windows(100).position(|w| w == body).expect("the second segment holds 5");
        disk.rot(name, at as u64 + 50).unwrap();
        let store = open(&disk).await.unwrap();
        let state = store.state();
        assert_eq!((state.first, state.last, state.flushed), (0, Some(id(1, 39)), Some(39)));
        assert_eq!(store.read(6, 39, usize::MAX).await.unwrap().len(), 34);
        let error = store.read(0, 39, usize::MAX).await.unwrap_err().to_string();
        assert!(error.contains(name.as_str()) && error.contains("entry 5"), "{error}");
    });
}

/// Prevents: readers that slow each other or the writer down to one at a time, or see a half-done log.
#[test]
fn many_read_while_one_appends() {
    run(async {
        let disk = disk();
        let mut store = filled(&disk, 30).await;
        let mut readers = Vec::new();
        for from in 0..8 {
            let store = store.clone();
            let task = async move {
                let mut next = from;
                while next < 60 {
                    for (index, _) in store.read(next, 59, 500).await.unwrap() {
                        assert_eq!(index, next);
                        next += 1;
                    }
                    tokio::task::yield_now().await;
                }
            };
            readers.push(Env::current().tasks().spawn_raw(task));
        }
        for index in 30..60 {
            append(&mut store, [data(1, index)]).await.unwrap();
        }
        for reader in readers {
            reader.await.unwrap();
        }
    });
}

/// Prevents: an old file that a crash left, or a backup brought back, taken for a new one of its name.
#[test]
fn names_of_segments_are_never_used_again() {
    run(async {
        let disk = disk();
        let mut store = filled(&disk, 12).await;
        let before = segments(&disk);
        store.truncate_after(Some(id(1, 2))).await.unwrap();
        let kept = segments(&disk);
        append(&mut store, (3..20).map(|i| data(2, i))).await.unwrap();
        store.purge(id(2, 19)).await.unwrap();
        assert_eq!(segments(&disk), [""; 0]);
        append(&mut store, [data(2, 20)]).await.unwrap();
        store.close().await.unwrap();
        let mut store = open(&disk).await.unwrap();
        append(&mut store, [data(2, 21)]).await.unwrap();
        let after = segments(&disk);
        assert!(kept.iter().all(|name| before.contains(name)));
        assert!(after.iter().all(|name| !before.contains(name)), "{before:?} {after:?}");
    });
}

/// Prevents: a reader that waits for ever for what was discarded, or takes the next entry for it.
#[test]
fn what_was_discarded_is_named_as_such() {
    run(async {
        let disk = disk();
        let mut store = filled(&disk, 20).await;
        let bytes = store.state().bytes;
        store.purge(id(1, 9)).await.unwrap();
        let error = store.read(9, 15, 1000).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), "the log begins at 10, not at 9");
        assert_eq!(store.read(10, 10, 1000).await.unwrap()[0].0, 10);
        assert!(store.state().bytes < bytes);
        assert_eq!(store.log_id(9).await.unwrap(), None);
        assert_eq!(store.log_id(10).await.unwrap(), Some(id(1, 10)));
    });
}

/// Prevents: a hole that openraft, which looks at the last entry only, would never notice.
#[test]
fn an_append_that_would_leave_a_hole_is_refused() {
    run(async {
        let mut store = filled(&disk(), 3).await;
        let error = append_only(&mut store, [data(1, 4)]).await.unwrap_err().to_string();
        assert_eq!(error, "entry 4 would leave a hole at 3");
        append(&mut store, [data(1, 3)]).await.unwrap();
    });
}

/// Prevents: acknowledgements from a disk that no longer keeps anything. The node must stop.
#[test]
fn a_failing_sync_is_reported_and_ends_the_writer() {
    run(async {
        let disk = disk();
        let mut store = filled(&disk, 3).await;
        disk.fail_syncs(true);
        let flushed = append_only(&mut store, [data(1, 3)]).await.unwrap();
        assert!(flushed.await.unwrap().is_err());
        let ended = Env::current().tasks().ended().await;
        assert_eq!(ended.name, "log.writer");
        assert!(ended.why.contains("syncs fail"), "{}", ended.why);
        assert!(store.save_vote(&vote(1)).await.unwrap_err().to_string().contains("syncs fail"));
        assert!(append_only(&mut store, [data(1, 4)]).await.is_err());
    });
}

/// Prevents: a log that starts without some of its entries, and a message that does not say which.
#[test]
fn a_missing_segment_is_named() {
    run(async {
        let disk = disk();
        filled(&disk, 20).await.close().await.unwrap();
        let name = segments(&disk)[2].clone();
        disk.remove(&name).unwrap();
        let error = open(&disk).await.err().unwrap().to_string();
        assert!(error.contains(&name), "{error}");
    });
}

/// Prevents: a segment of another log, or an older copy, that is taken for the real one; and one that was
/// cut or went on growing, which nobody would notice before it is read: a start looks only at lengths.
#[test]
fn a_segment_that_is_not_as_long_as_it_was_is_named() {
    run(async {
        for change in [-1i64, 1, 4096] {
            let disk = disk();
            filled(&disk, 20).await.close().await.unwrap();
            let name = &segments(&disk)[2];
            let file = disk.open(name).unwrap();
            let bytes = file.len().unwrap();
            file.set_len(bytes.strict_add_signed(change)).unwrap();
            let error = open(&disk).await.err().unwrap().to_string();
            let wanted = format!("{name}: it is {} bytes long, but was {bytes} when", bytes.strict_add_signed(change));
            assert!(error.starts_with(&wanted), "{error}");
        }
    });
}

/// Prevents: a start that takes longer the longer the log is.
#[test]
fn a_start_opens_the_last_segment_only() {
    run(async {
        let opened = async |count| {
            let disk = disk();
            filled(&disk, count).await.close().await.unwrap();
            let before = disk.opened();
            open(&disk).await.unwrap();
            (segments(&disk).len(), disk.opened() - before)
        };
        let ((few, opened_of_few), (many, opened_of_many)) = (opened(20).await, opened(200).await);
        assert!(many > few * 5);
        // The metadata, and the last segment.
        assert_eq!((opened_of_few, opened_of_many), (2, 2));
    });
}

/// Prevents: a log that an earlier version wrote, and that this one does not take; or of which it opens
/// every segment at every start.
#[test]
fn metadata_of_format_1_is_read_and_completed() {
    run(async {
        let disk = disk();
        filled(&disk, 20).await.close().await.unwrap();
        change_meta(&disk, |table| {
            table.insert("format", &1u32.to_le_bytes()[..]).unwrap();
            for key in ["course", "sealed", "checksum"] {
                table.remove(key).unwrap().unwrap();
            }
        });
        let mut store = open(&disk).await.unwrap();
        assert_eq!(indexes(&all(&store).await), Vec::from_iter(0..20));
        append(&mut store, [data(1, 20)]).await.unwrap();
        store.close().await.unwrap();
        let before = disk.opened();
        open(&disk).await.unwrap();
        assert_eq!(disk.opened() - before, 2);
    });
}

/// What earlier versions wrote: each entry in a row of its own, and the metadata in format 2. This makes the
/// lengths that the metadata tells of sealed segments wrong, so they are taken away, as in format 1.
fn as_written_earlier(disk: &SimDisk) {
    for name in segments(disk) {
        let db = Builder::new().create_with_backend(disk.open(&name).unwrap()).unwrap();
        let write = db.begin_write().unwrap();
        {
            let runs = write.open_table(RUNS).unwrap();
            let mut singles = write.open_table(SINGLES).unwrap();
            for row in runs.iter().unwrap() {
                let (key, value) = row.unwrap();
                for entry in run::entries(key.value().0, &value.value().to_vec().into()).unwrap() {
                    singles.insert(entry.log_id.index, &encode_entry(&entry)[..]).unwrap();
                }
            }
        }
        write.delete_table(RUNS).unwrap();
        write.commit().unwrap();
        db.close().unwrap();
    }
    change_meta(disk, |table| {
        table.insert("format", &1u32.to_le_bytes()[..]).unwrap();
        for key in ["course", "sealed", "checksum"] {
            table.remove(key).unwrap().unwrap();
        }
    });
}

/// Prevents: a log that an earlier version wrote, and that this one does not take, wherever it goes on in it.
#[test]
fn entries_that_an_earlier_version_wrote_are_read_followed_and_cut() {
    run(async {
        for cut_after in [21, 19, 18, 17, 10] {
            let disk = disk();
            let roomy = StoreOptions { segment_bytes: 2000, ..options() };
            let reopen = async || LogStore::open(&Env::current(), Arc::new(disk.clone()), roomy.clone()).await.unwrap();
            let mut store = reopen().await;
            append(&mut store, (0..20).map(|i| data(1, i))).await.unwrap();
            store.close().await.unwrap();
            as_written_earlier(&disk);
            let mut store = reopen().await;
            assert_eq!(all(&store).await, Vec::from_iter((0..20).map(|i| data(1, i))));
            append(&mut store, (20..25).map(|i| data(1, i))).await.unwrap();
            store.truncate_after(Some(id(1, cut_after))).await.unwrap();
            let wanted: Vec<Entry> = (0..=cut_after).map(|i| data(1, i)).chain([data(2, cut_after + 1)]).collect();
            append(&mut store, [data(2, cut_after + 1)]).await.unwrap();
            store.close().await.unwrap();
            let store = reopen().await;
            assert_eq!(all(&store).await, wanted);
            store.close().await.unwrap();
            let verified = verify(Arc::new(disk.clone()), |_| ()).unwrap();
            assert_eq!((verified.entries, verified.damages), (cut_after + 2, vec![]));
        }
    });
}

/// Prevents: an earlier version that is started again, does not know where entries lie now, and takes the log for
/// shorter than it is.
#[test]
fn an_earlier_version_refuses_what_this_one_has_written_to() {
    run(async {
        let disk = disk();
        filled(&disk, 2).await.close().await.unwrap();
        as_written_earlier(&disk);
        let mut n = 1;
        loop {
            let disk = disk.copy();
            disk.crash_before(n);
            if let Ok(mut store) = open(&disk).await
                && append(&mut store, [data(1, 2)]).await.is_ok()
            {
                // What is durable: power fails later.
                let disk = disk.copy();
                assert!(has_runs(&disk) && has_format(&disk, 3));
                break;
            }
            disk.crash([Loss::Torn, Loss::Unsynced, Loss::Nothing][n as usize % 3]);
            assert!(!has_runs(&disk) || has_format(&disk, 3), "power failed before operation {n}");
            n += 1;
        }
        assert!(n > 5, "only {n} operations");
    });
}

fn has_runs(disk: &SimDisk) -> bool {
    segments(disk).iter().any(|name| {
        let db = Builder::new().create_with_backend(disk.open(name).unwrap()).unwrap();
        db.begin_read().unwrap().open_table(RUNS).is_ok_and(|runs| !runs.is_empty().unwrap())
    })
}

fn has_format(disk: &SimDisk, format: u32) -> bool {
    let db = Builder::new().create_with_backend(disk.open(META).unwrap()).unwrap();
    let table = db.begin_read().unwrap().open_table(TableDefinition::<&str, &[u8]>::new("meta")).unwrap();
    table.get("format").unwrap().is_some_and(|found| found.value() == format.to_le_bytes())
}

/// Prevents: a vote, or a list of segments, that has rotted and is believed.
#[test]
fn metadata_that_was_not_written_so_is_refused() {
    run(async {
        let disk = disk();
        filled(&disk, 20).await.close().await.unwrap();
        change_meta(&disk, |table| {
            table.insert("vote", &[1, 9, 7, 1][..]).unwrap();
        });
        let error = open(&disk).await.err().unwrap().to_string();
        assert!(error.starts_with("meta: its values are not those that were written (checksum)"), "{error}");
    });
}

fn change_meta(disk: &SimDisk, change: impl FnOnce(&mut redb::Table<'_, &str, &[u8]>)) {
    let db = Builder::new().create_with_backend(disk.open(META).unwrap()).unwrap();
    let write = db.begin_write().unwrap();
    change(&mut write.open_table(TableDefinition::<&str, &[u8]>::new("meta")).unwrap());
    write.commit().unwrap();
}

/// Prevents: a node that lost its vote, and with it its promises, and starts as if it were new.
#[test]
fn segments_without_the_metadata_file_are_refused() {
    run(async {
        let disk = disk();
        filled(&disk, 3).await.close().await.unwrap();
        disk.remove(META).unwrap();
        let error = open(&disk).await.err().unwrap();
        assert!(matches!(error, StoreError::NoMeta { .. }), "{error}");
    });
}

/// Prevents: acknowledged entries that a lying disk lost, and that nobody misses.
#[test]
fn a_log_that_ends_before_what_was_committed_is_refused() {
    run(async {
        let disk = disk();
        let mut store = filled(&disk, 20).await;
        store.save_committed(Some(id(1, 19))).await.unwrap();
        store.close().await.unwrap();
        let name = segments(&disk).pop().unwrap();
        let db = Builder::new().create_with_backend(disk.open(&name).unwrap()).unwrap();
        let write = db.begin_write().unwrap();
        write.open_table(RUNS).unwrap().remove((19, 0)).unwrap();
        write.commit().unwrap();
        drop(db);
        let error = open(&disk).await.err().unwrap().to_string();
        assert!(error.contains("entry 19 is committed, but the log ends at 18"), "{error}");
    });
}

/// Prevents: bytes of a newer version that an older one misreads.
#[test]
fn metadata_of_an_unknown_format_is_refused() {
    run(async {
        let disk = disk();
        filled(&disk, 1).await.close().await.unwrap();
        change_meta(&disk, |table| {
            table.insert("format", &4u32.to_le_bytes()[..]).unwrap();
        });
        let error = open(&disk).await.err().unwrap().to_string();
        let wanted = "meta has format 4, but this version of Beam reads up to 3: start the version that wrote it";
        assert_eq!(error, wanted);
    });
}

/// Prevents: a directory that was copied to another cluster's node.
#[test]
fn a_log_of_another_cluster_is_refused() {
    run(async {
        let disk = disk();
        filled(&disk, 1).await.close().await.unwrap();
        let other = StoreOptions::new("other".parse().unwrap());
        let error = LogStore::open(&Env::current(), Arc::new(disk), other).await.err().unwrap().to_string();
        assert_eq!(error, "this log belongs to the cluster test, not to other");
    });
}

/// Prevents: two processes that write one log.
#[test]
fn a_directory_has_one_user() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = {
            let disk = Directory::open(dir.path()).unwrap();
            LogStore::open(&Env::current(), Arc::new(disk), options()).await.unwrap()
        };
        let error = Directory::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(error.to_string().ends_with("is in use by another process: one log node per directory"), "{error}");
        store.close().await.unwrap();
        drop(store);
        // The writer's task drops its last hold on the directory some time later.
        let disk = loop {
            match Directory::open(dir.path()) {
                Ok(disk) => break disk,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        LogStore::open(&Env::current(), Arc::new(disk), options()).await.unwrap();
    });
}

/// Prevents: a real directory that behaves in another way than the simulated one.
#[test]
fn a_log_in_a_directory_comes_back() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Directory::open(dir.path()).unwrap());
        let mut store = LogStore::open(&Env::current(), disk.clone(), options()).await.unwrap();
        append(&mut store, (0..30).map(|i| data(1, i))).await.unwrap();
        store.save_vote(&vote(3)).await.unwrap();
        store.set_epoch(beam_wire::Epoch(1)).await.unwrap();
        store.truncate_after(Some(id(1, 24))).await.unwrap();
        store.purge(id(1, 7)).await.unwrap();
        store.save_committed(Some(id(1, 20))).await.unwrap();
        let raft_id = store.raft_id();
        assert!(!store.is_pristine());
        store.close().await.unwrap();
        let mut store = LogStore::open(&Env::current(), disk, options()).await.unwrap();
        assert_eq!((store.raft_id(), store.vote(), store.epoch()), (raft_id, Some(vote(3)), Some(beam_wire::Epoch(1))));
        assert_eq!(store.read_committed().await.unwrap(), Some(id(1, 20)));
        assert_eq!(indexes(&all(&store).await), Vec::from_iter(8..25));
        append(&mut store, [data(3, 25)]).await.unwrap();
    });
}

/// Prevents: a stream that wants the whole log in memory, as a restart would that has much to apply.
#[test]
fn a_stream_of_entries_is_the_same_log_in_pieces() {
    use futures::TryStreamExt;
    run(async {
        let mut store = filled(&disk(), 25).await;
        let streamed: Vec<Entry> = store.entries_stream(3..24).await.try_collect().await.unwrap();
        assert_eq!(indexes(&streamed), Vec::from_iter(3..24));
    });
}

/// Not a test but a measure: appends per second against a bare file that is written and synced as often.
#[test]
#[ignore = "it measures this machine; run it alone, with --release and --nocapture"]
fn appends_against_a_bare_file() {
    use std::io::Write;
    run(async {
        let env = Env::current();
        for in_flight in [1, 16, 256, 4096] {
            let (count, body) = (in_flight.max(512) * 2, vec![7; 256]);
            let dir = tempfile::tempdir_in(".").unwrap();
            let disk = Arc::new(Directory::open(dir.path()).unwrap());
            let options = StoreOptions::new("test".parse().unwrap());
            let mut store = LogStore::open(&env, disk, options).await.unwrap();
            let began = env.now();
            let mut next = 0;
            while next < count {
                let mut flushed = Vec::new();
                for _ in 0..in_flight {
                    let mut entry = data(1, next);
                    if let EntryPayload::Normal(LogCommand::Data { body: b, .. }) = &mut entry.payload {
                        *b = body.clone().into();
                    }
                    flushed.push(append_only(&mut store, [entry]).await.unwrap());
                    next += 1;
                }
                for is_flushed in flushed {
                    is_flushed.await.unwrap().unwrap();
                }
            }
            let ours = env.now() - began;
            let mut file = std::fs::File::create(dir.path().join("bare")).unwrap();
            file.set_len(count * 256).unwrap();
            file.sync_all().unwrap();
            let began = env.now();
            for _ in 0..count / in_flight {
                file.write_all(&vec![7; 256 * in_flight as usize]).unwrap();
                file.sync_data().unwrap();
            }
            let bare = env.now() - began;
            let per_second = count as f64 / ours.as_secs_f64();
            let ratio = bare.as_secs_f64() / ours.as_secs_f64();
            println!("{in_flight:5} in flight: {per_second:8.0} appends/s, {ratio:.2} of a bare file");
        }
    });
}

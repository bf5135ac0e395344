//! Bits that flip below a view. Its engine's files cannot be simulated, so these are real ones.

use super::super::store::OpenError;
use super::*;
use std::path::PathBuf;

/// Every file of a directory, the larger the likelier, and a place in it.
fn somewhere(directory: &Path, chance: &mut StdRng) -> (PathBuf, u64) {
    let (mut files, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            match metadata.is_dir() {
                true => directories.push(entry.path()),
                // Journals are longer than what is in them.
                false => files.push((entry.path(), std::fs::read(entry.path()).unwrap())),
            }
        }
    }
    files.sort();
    let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    let mut place = chance.random_range(0..files.iter().map(|(_, bytes)| end(bytes)).sum::<u64>());
    for (path, bytes) in files {
        match place.checked_sub(end(&bytes)) {
            Some(rest) => place = rest,
            None => return (path, place),
        }
    }
    unreachable!("the place lies in one of them")
}

/// A bit flips somewhere below a view that is down, part of whose data is in tables and part in the journal. Either it
/// does not open, and says that it is damaged, or a look-up says so, or it answers as the model, perhaps from earlier on.
#[test]
fn a_flipped_bit_never_makes_a_wrong_answer() {
    let (mut refused, mut whole) = (0, 0);
    for seed in 0..20 {
        let (model, mut chance) = (Model::random(seed, 60), StdRng::seed_from_u64(seed));
        let Some(genesis) = model.genesis_at() else { continue };
        let (directory, serves) = (tempfile::tempdir().unwrap(), all(Range::ALL));
        let (store, mut applier) = open(directory.path(), &serves, 7);
        while applier.next().0 <= 60 {
            let until = (applier.next().0 + chance.random_range(0..9)).min(60);
            applier.apply(&run(&model.entries, applier.next(), until)).unwrap();
            if chance.random_bool(0.1) {
                store.compact().unwrap();
            }
        }
        drop((store, applier));
        let (file, place) = somewhere(&directory.path().join("facts"), &mut chance);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[place as usize] ^= 1 << chance.random_range(0..8);
        std::fs::write(&file, bytes).unwrap();

        let what = format!("seed {seed}: byte {place} of {}", file.display());
        match try_open(directory.path(), &serves) {
            Err(damage) => {
                assert!(damage, "{what}: it is not called damage");
                refused += 1;
            }
            Ok((store, mut applier)) => {
                let applied = applier.applied().progress.applied.0;
                let right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    if genesis <= applied {
                        compare(&model, &store, &applier, &serves, applied, &mut chance);
                    }
                    applier.apply(&run(&model.entries, applier.next(), 60)).unwrap();
                    compare(&model, &store, &applier, &serves, 60, &mut chance);
                }));
                match right {
                    Ok(()) => whole += 1,
                    Err(why) => {
                        let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
                        assert!(why.contains("Err` value: Storage") || why.contains("Damaged"), "{what}: {why}");
                        refused += 1;
                    }
                }
            }
        }
    }
    // Most of what lies there is read when it is opened.
    assert!(refused > 5 && refused + whole > 10, "{refused} were refused, {whole} were whole");
}

/// Whether what keeps it from opening is damage.
fn try_open(directory: &Path, serves: &[Served]) -> Result<(Store, Applier), bool> {
    let options = StoreOptions { cache_bytes: 1 << 20, memtable_bytes: 1 << 20, write_bytes: 4 << 20 };
    let store = Store::open(directory, &model::cluster(), serves, &options).map_err(|e| match e {
        OpenError::Storage { why, .. } => why.is_damage(),
        _ => false,
    })?;
    let applier = Applier::open(store.clone(), apply_options(serves, 7, u64::MAX)).map_err(|e| e.is_damage())?;
    Ok((store, applier))
}

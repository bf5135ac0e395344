//! The view's disk: the only module that knows the storage engine.
//!
//! One fjall database holds, per order, the live facts and the past ones ([`super::keys`]); texts of
//! terms; counts per predicate; the newest verdict checkpoint; and how far the view has come. What
//! one [`Batch`] writes becomes readable and survives a kill as one. It reaches the disk with
//! [`Store::persist`]: after a power loss an older batch may be the last, never half of one, because
//! the engine syncs its journal before it writes a table from memory.
//!
//! What this never does: read back keys in another order than their bytes', cache values itself, or
//! decide anything.
//!
//! A [`Snapshot`] is read key by key by a [`Scan`]. Facts that change again and again lie apart ([`hot`]).

mod batch;
mod hot;
mod prune;
mod snapshot;

pub use batch::Batch;
pub use hot::{Deletions, Found, Heat};
pub use prune::Pruned;
pub use snapshot::{Scan, Snapshot, StoredBytes};

use super::boot::Unfinished;
use super::keys::{self, Key, KeyError, Order};
use super::sums::{Cells, Tally};
use super::verdict::Rules;
use beam_wire::message::view::Served;
use beam_wire::{Fact, LogIndex, Name, Space, TermId, codec};
use bytes::Bytes;
use fjall::compaction::filter::Factory;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy, PinningPolicy, RestartIntervalPolicy};
use fjall::{AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The disk failed, or holds what we never wrote. This view must stop; others cover for it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The storage engine could not read or write.
    #[error("the storage engine failed: {0}")]
    Engine(#[from] fjall::Error),
    /// What was read is not what we write.
    #[error("the view's data is damaged: {0}")]
    Damaged(String),
}

impl StorageError {
    /// Whether what lies on the disk is not what was written. If not, the disk itself has failed, or is full: then
    /// writing it anew would not help.
    pub fn is_damage(&self) -> bool {
        use fjall::{Error, LsmError};
        let cut_short = |e: &io::Error| matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData);
        match self {
            StorageError::Damaged(_) => true,
            StorageError::Engine(Error::Io(e) | Error::Storage(LsmError::Io(e))) => cut_short(e),
            StorageError::Engine(
                Error::Storage(_)
                | Error::JournalRecovery(_)
                | Error::Decompress(_)
                | Error::InvalidTrailer
                | Error::InvalidTag(_)
                | Error::Unrecoverable,
            ) => true,
            StorageError::Engine(_) => false,
        }
    }
}

impl From<KeyError> for StorageError {
    fn from(e: KeyError) -> Self {
        StorageError::Damaged(e.to_string())
    }
}

/// Why a view's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It belongs to another cluster, or holds other ranges.
    #[error(
        "{} holds this view:\n{found}which is not the one that was asked for:\n{wanted}\
         Give the new view an empty directory; it fills it from the log", directory.display()
    )]
    OtherView {
        /// The directory.
        directory: PathBuf,
        /// What the directory says.
        found: String,
        /// What it should say.
        wanted: String,
    },
    /// Another process, or another view of this one, has it open.
    #[error("{} is in use by another process", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// Reading or writing it failed.
    #[error("cannot open {}: {why}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The storage engine refused, or its data is damaged.
    #[error("cannot open {}: {why}", directory.display())]
    Storage {
        /// The directory.
        directory: PathBuf,
        /// What went wrong.
        why: StorageError,
    },
}

/// How much memory the engine may take.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Cached blocks of all orders. Look-ups are fast while the hot part of the index fits.
    pub cache_bytes: u64,
    /// What one order gathers in memory before it writes a table. Larger is not faster (measured).
    pub memtable_bytes: u64,
    /// What all orders gather together, those included that are being written.
    pub write_bytes: u64,
}

impl Default for StoreOptions {
    /// A dozen views may share one process on a developer's machine.
    fn default() -> Self {
        StoreOptions { cache_bytes: 64 << 20, memtable_bytes: 16 << 20, write_bytes: 96 << 20 }
    }
}

/// How far the view has come. Written with the facts of the same batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Every entry up to this one is in the index.
    pub applied: LogIndex,
    /// Past facts deleted at or before this index may be gone.
    pub oldest: LogIndex,
    /// Live facts in the subject space.
    pub facts: u64,
    /// What the log has laid down so far.
    pub rules: Option<Rules>,
}

/// The open disk of one view. Cheap to clone; it closes when the last clone is gone.
#[derive(Clone)]
pub struct Store {
    db: Database,
    meta: Keyspace,
    checkpoint: Keyspace,
    counts: Keyspace,
    terms: Keyspace,
    hot: Keyspace,
    lanes: BTreeMap<Order, Lane>,
    write_bytes: u64,
    /// Compaction may drop what was deleted at or before this index.
    floor: Arc<AtomicU64>,
}

/// The two keyspaces of an order.
#[derive(Clone)]
struct Lane {
    live: Keyspace,
    past: Keyspace,
}

/// Facts that are hot no more, and since when each is live, if it is; and where to look on.
pub type Cooled = (Vec<(Fact, Option<LogIndex>)>, Option<StoredBytes>);

/// The version of everything in this module and [`super::keys`].
const LAYOUT: u16 = 1;
/// The version of how cells are cut and summed: a store with another is summed anew.
const SUMS: u16 = 1;
const IDENTITY: &str = "view.txt";
const ENGINE: &str = "facts";
const PROGRESS: &[u8] = b"progress";
const UNFINISHED: &[u8] = b"unfinished";
const SUMMED: &[u8] = b"summed";
const SUM: &[u8] = b"sum/";
/// Written with every batch; its value says nothing.
const BATCH: &[u8] = b"batch";
const LIVE: &str = "live-";
const PAST: &str = "past-";
/// Open files of one view: a dozen views stay below the usual limit of a process.
const FILES_MAX: usize = 64;

impl Store {
    /// Opens a view's directory, and makes it if there is none.
    pub fn open(
        directory: &Path,
        cluster: &Name,
        serves: &[Served],
        options: &StoreOptions,
    ) -> Result<Store, OpenError> {
        let io = |why| OpenError::Io { directory: directory.into(), why };
        std::fs::create_dir_all(directory).map_err(io)?;
        let (wanted, engine) = (identity(cluster, serves), directory.join(ENGINE));
        let found = match std::fs::read_to_string(directory.join(IDENTITY)) {
            Ok(found) => Some(found),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(io(e)),
        };
        match found {
            Some(found) if found == wanted => {}
            Some(found) => return Err(OpenError::OtherView { directory: directory.into(), found, wanted }),
            // An engine without an identity was given up, or its making was cut short: nothing in it counts.
            None if engine.exists() => {
                if let Err(fjall::Error::Locked) = Store::open_engine(&engine, serves, options) {
                    return Err(OpenError::InUse { directory: directory.into() });
                }
                std::fs::remove_dir_all(&engine).map_err(io)?;
            }
            None => {}
        }
        let store = Store::open_engine(&engine, serves, options).map_err(|why| match why {
            fjall::Error::Locked => OpenError::InUse { directory: directory.into() },
            why => OpenError::Storage { directory: directory.into(), why: why.into() },
        })?;
        store.check_journal().map_err(|why| OpenError::Storage { directory: directory.into(), why })?;
        if !directory.join(IDENTITY).exists() {
            write_durably(directory, IDENTITY, &wanted).map_err(io)?;
        }
        Ok(store)
    }

    /// The engine ends its journal at the first entry that is damaged, as if nothing had followed. What it had written
    /// to tables by then remains, and the rest is gone: parts of the view would be of different indexes. Every batch
    /// leaves a mark among the settings, so these are never older than any table. (A copy under way is not of one
    /// index anyhow: what is written twice does no harm.)
    fn check_journal(&self) -> Result<(), StorageError> {
        let of = |keyspace: &Keyspace| keyspace.tree.get_highest_persisted_seqno();
        let tables = self.keyspaces().filter_map(of).max();
        if tables > self.meta.tree.get_highest_seqno() && self.unfinished()?.is_none() {
            return Err(StorageError::Damaged("its journal ends before what its tables hold".into()));
        }
        Ok(())
    }

    fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        let lanes = self.lanes.values().flat_map(|lane| [&lane.live, &lane.past]);
        lanes.chain([&self.meta, &self.checkpoint, &self.counts, &self.terms, &self.hot])
    }

    /// The engine panics at some journals whose bits have flipped. That is damage, like what it returns as an error.
    fn open_engine(path: &Path, serves: &[Served], options: &StoreOptions) -> fjall::Result<Store> {
        let opened = catch_unwind(AssertUnwindSafe(|| Store::open_keyspaces(path, serves, options)));
        opened.unwrap_or(Err(fjall::Error::Unrecoverable))
    }

    fn open_keyspaces(path: &Path, serves: &[Served], options: &StoreOptions) -> fjall::Result<Store> {
        let floor = Arc::new(AtomicU64::new(0));
        let past = {
            let floor = floor.clone();
            move |name: &str| -> Option<Arc<dyn Factory>> {
                name.starts_with(PAST).then(|| Arc::new(prune::Drops(floor.clone())) as Arc<dyn Factory>)
            }
        };
        let db = Database::builder(path)
            .cache_size(options.cache_bytes)
            .journal_compression(CompressionType::None)
            .max_journaling_size(64 << 20)
            .max_cached_files(Some(FILES_MAX))
            .with_compaction_filter_factories(Arc::new(past))
            // While one of several workers compacts, fjall's first spins on the next compaction.
            .worker_threads(1)
            .open()?;
        let memtable_bytes = options.memtable_bytes;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes);
        let tuned = move |block: u32, filter: bool| {
            let options = KeyspaceCreateOptions::default()
                .max_memtable_size(memtable_bytes)
                .data_block_size_policy(BlockSizePolicy::all(block))
                // A look-up reads on from the last full key before it: a sixth less time than with 16, for 3 % more bytes.
                .data_block_restart_interval_policy(RestartIntervalPolicy::all(4))
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4));
            match filter {
                // Applying asks for facts that are not there: then filters are all that is read. They take 2.5 bytes a
                // fact and order, and are in memory whatever the level.
                true => options
                    .filter_block_partitioning_policy(PinningPolicy::all(false))
                    .filter_block_pinning_policy(PinningPolicy::all(true)),
                false => options.filter_policy(FilterPolicy::disabled()),
            }
        };
        // Filters only where single keys are looked up.
        let lane = |order: Order| {
            let (block, filter) = match order {
                Order::Spog | Order::Opsg => (4 << 10, true),
                Order::Posg => (16 << 10, false),
            };
            fjall::Result::Ok(Lane {
                live: db.keyspace(&format!("{LIVE}{}", order.name()), || tuned(block, filter))?,
                past: db.keyspace(&format!("{PAST}{}", order.name()), || tuned(16 << 10, false))?,
            })
        };
        let mut lanes = BTreeMap::new();
        for served in serves {
            for order in orders(served.space) {
                lanes.insert(*order, lane(*order)?);
            }
        }
        let [meta, checkpoint, counts] = ["meta", "checkpoint", "counts"].map(|name| db.keyspace(name, small));
        let terms = db.keyspace("terms", || tuned(16 << 10, true))?;
        let hot = db.keyspace("hot", || tuned(4 << 10, true))?;
        Ok(Store {
            meta: meta?,
            checkpoint: checkpoint?,
            counts: counts?,
            terms,
            hot,
            lanes,
            write_bytes: options.write_bytes,
            floor,
            db,
        })
    }

    /// Gives up what a directory holds, durably: it is removed when the directory is opened next.
    pub fn give_up(directory: &Path) -> Result<(), OpenError> {
        let io = |why| OpenError::Io { directory: directory.into(), why };
        match std::fs::remove_file(directory.join(IDENTITY)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(io(why)),
            _ => {}
        }
        std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
    }

    /// Removes what a directory holds, and the directory itself if it is nobody else's. Refused while it is open.
    pub fn remove(directory: &Path, whole: bool) -> Result<(), OpenError> {
        if !directory.exists() {
            return Ok(());
        }
        let io = |why| OpenError::Io { directory: directory.into(), why };
        Store::give_up(directory)?;
        let engine = directory.join(ENGINE);
        if engine.exists() {
            if let Err(fjall::Error::Locked) = Store::open_engine(&engine, &[], &StoreOptions::default()) {
                return Err(OpenError::InUse { directory: directory.into() });
            }
            std::fs::remove_dir_all(&engine).map_err(io)?;
        }
        if whole { std::fs::remove_dir_all(directory).map_err(io) } else { Ok(()) }
    }

    /// Begins to gather writes.
    pub fn batch(&self) -> Batch<'_> {
        Batch::of(self, self.db.batch())
    }

    /// What is on disk now, as one version, whatever is written meanwhile.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self, self.db.snapshot())
    }

    /// What is known of a fact, by its row in one order.
    pub fn find(&self, order: Order, fact: &Fact) -> Result<Found, StorageError> {
        let row = self.lanes[&order].live.get(Key::live(order, fact))?;
        hot::found(row.as_deref(), || self.hot.get(hot::key(fact)))
    }

    /// Looks at so many hot facts, from a key on. Returns those that have not changed since `oldest`, and since when each
    /// is live, if it is; and the key of the next to look at, none if that was the last.
    pub fn cooled(&self, oldest: LogIndex, from: &[u8], count: usize) -> Result<Cooled, StorageError> {
        let mut cooled = Vec::new();
        for (number, row) in self.hot.range(from..).enumerate() {
            let (key, value) = row.into_inner()?;
            if number == count {
                return Ok((cooled, Some(key)));
            }
            let (live, since) = hot::read(&value)?;
            if since <= oldest {
                cooled.push((keys::read_live(Order::Spog, &key)?, live.then_some(since)));
            }
        }
        Ok((cooled, None))
    }

    /// Whether the text of a term is here.
    pub fn has_term(&self, id: &TermId) -> Result<bool, StorageError> {
        Ok(self.terms.contains_key(id.0)?)
    }

    /// How many live facts of the subject space have this predicate, in the default graph or in named ones.
    pub fn count(&self, predicate: &TermId, named: bool) -> Result<u64, StorageError> {
        read_count(self.counts.get(count_key(predicate, named))?)
    }

    /// How far the view has come.
    pub fn progress(&self) -> Result<Progress, StorageError> {
        read_progress(self.meta.get(PROGRESS)?)
    }

    /// What is kept of each cell, if it is as of this index: an older program applies entries without summing.
    pub fn tallies(&self, cells: &Cells, applied: LogIndex) -> Result<Option<Vec<Tally>>, StorageError> {
        let damaged = |what: &str| StorageError::Damaged(what.into());
        let Some(summed) = self.meta.get(SUMMED)? else { return Ok(None) };
        let summed: (u16, LogIndex) = codec::decode(&summed).map_err(|_| damaged("what says how sums are kept"))?;
        if summed != (SUMS, applied) {
            return Ok(None);
        }
        let read = |served| match self.meta.get(sum_key(served))? {
            None => Ok(Tally::default()),
            Some(value) => {
                let (sum, count) = value.split_last_chunk().ok_or_else(|| damaged("a sum"))?;
                let sum: [u8; 32] = sum.try_into().map_err(|_| damaged("a sum"))?;
                Ok(Tally { count: u64::from_le_bytes(*count), sum: sum.into() })
            }
        };
        cells.served().iter().map(read).collect::<Result<_, StorageError>>().map(Some)
    }

    /// What is noted of a copy under way; none if none is.
    pub fn unfinished(&self) -> Result<Option<Unfinished>, StorageError> {
        let Some(noted) = self.meta.get(UNFINISHED)? else { return Ok(None) };
        codec::decode(&noted).map(Some).map_err(|e| StorageError::Damaged(e.to_string()))
    }

    /// Notes how far a copy has come, durably.
    pub fn note_unfinished(&self, noted: &Unfinished) -> Result<(), StorageError> {
        self.meta.insert(UNFINISHED, codec::encode(noted))?;
        self.persist()
    }

    /// Adds versions of facts to an order that is being copied, durably. What is there already may come
    /// again.
    pub fn ingest_facts(&self, order: Order, facts: &[(Fact, LogIndex, Option<LogIndex>)]) -> Result<(), StorageError> {
        let live = facts.iter().filter(|(_, _, deleted)| deleted.is_none());
        let live = live.map(|(fact, inserted, _)| (Key::live(order, fact), Some(*inserted)));
        let past = facts
            .iter()
            .filter_map(|(fact, inserted, deleted)| Some((Key::past(order, fact, (*deleted)?, *inserted), None)));
        self.ingest(&self.lanes[&order].live, live.collect())?;
        self.ingest(&self.lanes[&order].past, past.collect())
    }

    fn ingest(&self, keyspace: &Keyspace, mut rows: Vec<(Key, Option<LogIndex>)>) -> Result<(), StorageError> {
        rows.sort_unstable();
        rows.dedup();
        if rows.is_empty() {
            return Ok(());
        }
        if rows.windows(2).any(|rows| rows[0].0 == rows[1].0) {
            return Err(StorageError::Damaged("a copy in which one fact was inserted by two entries at once".into()));
        }
        let mut ingestion = keyspace.start_ingestion()?;
        for (key, inserted) in rows {
            let (value, length) = inserted.map_or(([0; 10], 0), keys::write_index);
            ingestion.write(key.as_ref(), &value[..length])?;
        }
        Ok(ingestion.finish()?)
    }

    /// Adds texts, as [`Store::ingest_facts`] adds facts.
    pub fn ingest_terms(&self, mut terms: Vec<(TermId, Bytes)>) -> Result<(), StorageError> {
        terms.sort_unstable();
        terms.dedup_by_key(|(id, _)| *id);
        if terms.is_empty() {
            return Ok(());
        }
        let mut ingestion = self.terms.start_ingestion()?;
        for (id, text) in terms {
            ingestion.write(id.0, &text[..])?;
        }
        Ok(ingestion.finish()?)
    }

    /// Adds pieces of a verdict checkpoint that is being copied.
    pub fn put_checkpoint(&self, pieces: &[(Bytes, Bytes)]) -> Result<(), StorageError> {
        let mut batch = self.batch();
        pieces.iter().for_each(|(key, piece)| batch.put_checkpoint_piece(key, piece));
        batch.commit()
    }

    /// Drops the verdict checkpoint.
    pub fn forget_checkpoint(&self) -> Result<(), StorageError> {
        let mut batch = self.batch();
        for piece in self.snapshot().checkpoint_pieces() {
            batch.remove_checkpoint_piece(&piece?.0);
        }
        batch.commit()
    }

    /// Ends a copy, durably: from now on the store is as if it had applied the log, but for what is counted and summed.
    pub fn conclude(&self, progress: &Progress) -> Result<(), StorageError> {
        let mut batch = self.batch();
        batch.put_progress(progress);
        batch.remove_unfinished();
        batch.commit()?;
        self.persist()
    }

    /// Puts all that was committed onto the disk itself.
    pub fn persist(&self) -> Result<(), StorageError> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    /// Fails once the engine has failed to write anything. A commit that waits for the engine's
    /// worker would wait forever for one that has died: ask from elsewhere.
    pub fn healthy(&self) -> Result<(), StorageError> {
        Ok(self.db.persist(PersistMode::Buffer)?)
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> Result<u64, StorageError> {
        Ok(self.db.disk_space()?)
    }

    /// Lets compaction drop what was deleted at or before `oldest`. The caller has made it durable
    /// that no older version is read.
    pub fn let_go(&self, oldest: LogIndex) {
        self.floor.fetch_max(oldest.0, Ordering::AcqRel);
    }

    /// The orders that the view keeps.
    pub fn orders(&self) -> impl Iterator<Item = Order> {
        self.lanes.keys().copied()
    }

    /// Past versions deleted at or before this index may be gone by now.
    pub fn floor(&self) -> LogIndex {
        LogIndex(self.floor.load(Ordering::Acquire))
    }

    /// Waits while more is in memory than was promised. fjall halts writers at four sealed tables of
    /// one order, but leaves the sealing to its worker, which may be compacting while we write on.
    fn throttle(&self) -> Result<(), StorageError> {
        while self.db.write_buffer_size() > self.write_bytes {
            let all: Vec<_> = self.keyspaces().collect();
            if all.iter().all(|keyspace| keyspace.sealed_memtable_count() == 0)
                && let Some(largest) = all.iter().max_by_key(|keyspace| keyspace.tree.active_memtable().size())
            {
                largest.rotate_memtable()?;
            }
            self.healthy()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Writes what is in memory to tables and compacts all: for tests of what is dropped.
    #[cfg(test)]
    pub fn compact(&self) -> Result<(), StorageError> {
        for lane in self.lanes.values() {
            for keyspace in [&lane.live, &lane.past] {
                keyspace.rotate_memtable_and_wait()?;
                keyspace.major_compact()?;
            }
        }
        Ok(())
    }

    /// How many versions of live rows of an order the engine has in memory.
    #[cfg(test)]
    pub fn live_rows_in_memory(&self, order: Order) -> usize {
        self.lanes[&order].live.tree.active_memtable().len()
    }

    /// When the past versions were deleted that are on disk in an order.
    #[cfg(test)]
    pub fn past_deletions(&self, order: Order) -> std::collections::BTreeSet<LogIndex> {
        let keys = self.lanes[&order].past.iter().map(|row| row.key().expect("the disk is well"));
        keys.map(|key| keys::deleted_at(&key).expect("a past key")).collect()
    }

    /// How many past versions are on disk in an order.
    #[cfg(test)]
    pub fn past_count(&self, order: Order) -> usize {
        self.lanes[&order].past.iter().count()
    }
}

/// The orders that a space is kept in.
pub fn orders(space: Space) -> &'static [Order] {
    match space {
        Space::Subject => &[Order::Spog, Order::Posg],
        Space::Object => &[Order::Opsg],
        Space::Term => &[],
    }
}

/// What a view's directory says it is: for people, and compared byte by byte.
fn identity(cluster: &Name, serves: &[Served]) -> String {
    let mut text = format!("a view of Beam, layout {LAYOUT}\ncluster {cluster}\n");
    for Served { space, range } in serves {
        text += &format!("{space} {range}\n");
    }
    text
}

/// Writes a small file beside the engine, whole.
pub(super) fn write_durably(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(temporary, directory.join(name))?;
    std::fs::File::open(directory)?.sync_all()
}

fn count_key(predicate: &TermId, named: bool) -> [u8; keys::ID_BYTES + 1] {
    let mut key = [u8::from(named); keys::ID_BYTES + 1];
    key[..keys::ID_BYTES].copy_from_slice(&predicate.0);
    key
}

fn sum_key(Served { space, range }: &Served) -> Vec<u8> {
    [SUM, &[*space as u8], &range.first.0.to_be_bytes(), &range.last.0.to_be_bytes()].concat()
}

fn read_count(value: Option<fjall::Slice>) -> Result<u64, StorageError> {
    let Some(value) = value else { return Ok(0) };
    let bytes = value[..].try_into().map_err(|_| StorageError::Damaged("a count is not 8 bytes".into()))?;
    Ok(u64::from_le_bytes(bytes))
}

fn read_progress(value: Option<fjall::Slice>) -> Result<Progress, StorageError> {
    let Some(value) = value else { return Ok(Progress::default()) };
    codec::decode(&value).map_err(|e| StorageError::Damaged(e.to_string()))
}

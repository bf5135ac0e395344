//! A disk in memory that crashes: what was not synced may be lost, whole or by 512-byte sectors; syncs
//! take virtual time and stall; the disk fills up, or its syncs fail.
//!
//! Whoever writes goes on at once after a sync, as if it had waited, and asks [`Disk::settled`] before it
//! tells anybody. So a crash during a sync undoes all that was written after it: on a real machine the
//! writer would still have waited.

use super::disk::{Disk, DiskFile};
use super::room::Space;
use beam_wire::env::Env;
use futures::future::BoxFuture;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const SECTOR_BYTES: usize = 512;

/// What a crash takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the process was killed, and the machine lives on.
    Nothing,
    /// All that was not synced.
    Unsynced,
    /// Of what was not synced, each sector, length and name by chance.
    Torn,
}

/// How slow a disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimDiskOptions {
    /// What a sync takes.
    pub sync: Duration,
    /// By chance, one sync in this many takes up to `stall` longer; none if zero.
    pub stall_one_in: u64,
    pub stall: Duration,
}

/// A machine's disk. It outlives the node that uses it. Cheap to clone.
#[derive(Clone)]
pub struct SimDisk {
    env: Env,
    options: SimDiskOptions,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Rises with every crash. Files that were opened in another life are dead.
    life: u64,
    on: bool,
    chance: u64,
    next_file: u64,
    files: BTreeMap<u64, Content>,
    names: Names,
    durable_names: Names,
    /// What is not durable yet, in the order in which it was done.
    journal: Vec<Op>,
    /// When the last sync that was asked for ends.
    busy_until: Option<Instant>,
    operations: u64,
    syncs: u64,
    opened: u64,
    crash_at: Option<u64>,
    syncs_fail: bool,
    capacity: Option<u64>,
    /// From which operation on how many more fail for want of room.
    full: Option<(u64, u64)>,
}

type Names = BTreeMap<String, u64>;

#[derive(Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone)]
enum Op {
    Write { file: u64, at: u64, data: Vec<u8> },
    SetLen { file: u64, len: u64 },
    Name { name: String, file: u64 },
    Unname { name: String },
    Sync { target: Target, ends: Instant },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    File(u64),
    Directory,
}

impl Op {
    /// What must be synced to make this durable. None for a sync.
    fn target(&self) -> Option<Target> {
        match self {
            Op::Write { file, .. } | Op::SetLen { file, .. } => Some(Target::File(*file)),
            Op::Name { .. } | Op::Unname { .. } => Some(Target::Directory),
            Op::Sync { .. } => None,
        }
    }
}

impl SimDisk {
    pub fn new(env: &Env, options: SimDiskOptions) -> Self {
        Self::seeded(env, env.random_u64(), options)
    }

    /// With chance of its own.
    pub fn seeded(env: &Env, seed: u64, options: SimDiskOptions) -> Self {
        let state = State {
            life: 0,
            on: true,
            chance: seed,
            next_file: 0,
            files: BTreeMap::new(),
            names: Names::new(),
            durable_names: Names::new(),
            journal: Vec::new(),
            busy_until: None,
            operations: 0,
            syncs: 0,
            opened: 0,
            crash_at: None,
            syncs_fail: false,
            capacity: None,
            full: None,
        };
        Self { env: env.clone(), options, state: Arc::new(Mutex::new(state)) }
    }

    /// Power fails, and comes back at once. Do this before the node's tasks are killed: what they drop
    /// would else still write.
    pub fn crash(&self, loss: Loss) {
        let now = self.now();
        self.lock().crash(loss, now);
    }

    /// Power fails and stays away. [`SimDisk::crash`] says what was lost, and brings it back.
    pub fn power_off(&self) {
        self.lock().on = false;
    }

    /// Power fails just before the n-th operation from now that changes anything (the first is 1).
    pub fn crash_before(&self, n: u64) {
        let mut state = self.lock();
        state.crash_at = Some(state.operations + n);
    }

    /// How many operations have changed something or synced.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// How many syncs were asked for.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How often a file was opened.
    pub fn opened(&self) -> u64 {
        self.lock().opened
    }

    /// Whether power is on.
    pub fn is_on(&self) -> bool {
        self.lock().on
    }

    /// From now on syncs fail, or succeed again.
    pub fn fail_syncs(&self, fail: bool) {
        self.lock().syncs_fail = fail;
    }

    /// How many bytes all files may have together; no bound if none.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// From the n-th operation from now on (the first is 1), so many operations that take room fail: somebody
    /// else has filled the disk, and then makes room; at a crash at the latest.
    pub fn full_before(&self, n: u64, times: u64) {
        let mut state = self.lock();
        state.full = Some((state.operations + n, times));
    }

    /// How many bytes all files have together.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Changes one byte that was thought safe. Fails if the file is not there or not that long.
    pub fn rot(&self, name: &str, at: u64) -> io::Result<()> {
        self.flip(name, at, 0x20)
    }

    /// The same, of chosen bits.
    pub fn flip(&self, name: &str, at: u64, bits: u8) -> io::Result<()> {
        let mut state = self.lock();
        let file = state.find(name)?;
        let content = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
        for bytes in [&mut content.live, &mut content.durable] {
            *bytes.get_mut(at as usize).ok_or(io::ErrorKind::UnexpectedEof)? ^= bits;
        }
        Ok(())
    }

    /// Another disk that holds what is durable on this one.
    pub fn copy(&self) -> SimDisk {
        let copy = Self::seeded(&self.env, 0, self.options);
        {
            let (from, mut to) = (self.lock(), copy.lock());
            to.next_file = from.next_file;
            (to.names, to.durable_names) = (from.durable_names.clone(), from.durable_names.clone());
            let content = |c: &Content| Content { live: c.durable.clone(), durable: c.durable.clone() };
            to.files = from.files.iter().map(|(file, c)| (*file, content(c))).collect();
        }
        copy
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.lock();
        let file = state.find(name)?;
        Ok(state.files[&file].live.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk without delays needs no clock, so that it also runs outside of a runtime.
    fn now(&self) -> Option<Instant> {
        let timed = self.options.sync > Duration::ZERO || self.options.stall_one_in > 0;
        timed.then(|| self.env.now())
    }

    fn file(&self, state: &State, file: u64) -> DiskFile {
        DiskFile::new(SimFile { disk: self.clone(), file, life: state.life })
    }

    /// The caller has counted this as an operation.
    fn sync(&self, state: &mut State, target: Target) -> io::Result<()> {
        state.syncs += 1;
        if state.syncs_fail {
            return Err(io::Error::other("this disk's syncs fail"));
        }
        match self.now() {
            None => {
                let before = state.journal.len();
                state.settle_first(before, target);
            }
            Some(now) => {
                state.settle(now);
                let unlucky = self.options.stall_one_in > 0 && state.draw().is_multiple_of(self.options.stall_one_in);
                let stall = if unlucky { self.options.stall.as_micros() as u64 } else { 0 };
                let stall = Duration::from_micros(if stall > 0 { state.draw() % stall } else { 0 });
                let ends = state.busy_until.unwrap_or(now).max(now) + self.options.sync + stall;
                state.busy_until = Some(ends);
                state.journal.push(Op::Sync { target, ends });
            }
        }
        Ok(())
    }
}

impl State {
    /// Counts an operation that changes something, unless power is off by then.
    fn operate(&mut self) -> io::Result<()> {
        self.powered()?;
        self.operations += 1;
        if self.crash_at.is_some_and(|at| self.operations >= at) {
            self.on = false;
        }
        self.powered()
    }

    fn powered(&self) -> io::Result<()> {
        if self.on { Ok(()) } else { Err(io::Error::other("the machine has no power")) }
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name}"));
        self.names.get(name).copied().ok_or_else(missing)
    }

    /// Removing a file makes room at once, though power may bring it back.
    fn used(&self) -> u64 {
        self.names.values().filter_map(|file| self.files.get(file)).map(|f| f.live.len() as u64).sum()
    }

    /// Fails if the file cannot grow to `len`.
    fn room(&mut self, file: u64, len: u64) -> io::Result<()> {
        let has = self.files[&file].live.len() as u64;
        let full = self.capacity.is_some_and(|capacity| len > has && self.used() + (len - has) > capacity);
        if full { Err(no_room()) } else { self.some_room() }
    }

    /// Fails while somebody else fills the disk.
    fn some_room(&mut self) -> io::Result<()> {
        match &mut self.full {
            Some((from, times)) if self.operations >= *from && *times > 0 => {
                *times -= 1;
                Err(no_room())
            }
            _ => Ok(()),
        }
    }

    fn draw(&mut self) -> u64 {
        // splitmix64, by Sebastiano Vigna: https://prng.di.unimi.it/splitmix64.c
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Does what was done to the live files and names.
    fn live(&mut self, op: Op) {
        apply(&op, &mut self.files, |f| &mut f.live, &mut self.names);
        self.journal.push(op);
    }

    /// Makes durable what syncs that have ended cover.
    fn settle(&mut self, now: Instant) {
        while let Some((at, target)) = self.first_sync(|ends| ends <= now) {
            self.journal.remove(at);
            self.settle_first(at, target);
        }
    }

    fn first_sync(&self, wanted: impl Fn(Instant) -> bool) -> Option<(usize, Target)> {
        self.journal.iter().enumerate().find_map(|(at, op)| match op {
            Op::Sync { target, ends } if wanted(*ends) => Some((at, *target)),
            _ => None,
        })
    }

    /// Makes durable what the first `n` operations of the journal did to `target`.
    fn settle_first(&mut self, n: usize, target: Target) {
        let later = self.journal.split_off(n);
        let before = std::mem::take(&mut self.journal).into_iter();
        let (safe, rest): (Vec<Op>, Vec<Op>) = before.partition(|op| op.target() == Some(target));
        self.journal = rest;
        self.journal.extend(later);
        for op in &safe {
            self.harden(op);
        }
    }

    fn harden(&mut self, op: &Op) {
        apply(op, &mut self.files, |f| &mut f.durable, &mut self.durable_names);
        if matches!(op, Op::Unname { .. }) {
            let (names, durable) = (&self.names, &self.durable_names);
            self.files.retain(|file, _| names.values().chain(durable.values()).any(|named| named == file));
        }
    }

    fn crash(&mut self, loss: Loss, now: Option<Instant>) {
        if let Some(now) = now {
            self.settle(now);
        }
        // A sync that has not ended: whoever asked for it never came to do what follows.
        if let Some((at, _)) = self.first_sync(|_| true) {
            self.journal.truncate(at);
        }
        let unsynced = std::mem::take(&mut self.journal);
        match loss {
            Loss::Unsynced => {}
            Loss::Nothing => self.journal = unsynced,
            Loss::Torn => unsynced.iter().for_each(|op| self.tear(op)),
        }
        self.names = self.durable_names.clone();
        self.files.values_mut().for_each(|f| f.live = f.durable.clone());
        for op in std::mem::take(&mut self.journal) {
            self.live(op);
        }
        let named: Vec<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        self.files.retain(|file, _| named.contains(file));
        self.journal.retain(|op| match op.target() {
            Some(Target::File(file)) => self.files.contains_key(&file),
            _ => true,
        });
        self.life += 1;
        self.on = true;
        self.crash_at = None;
        self.full = None;
        self.busy_until = None;
    }

    /// An operation that was not synced, and of which some survives.
    fn tear(&mut self, op: &Op) {
        match op {
            Op::Write { file, at, data } => {
                // Sectors are those of the disk, not of the write.
                let head = (SECTOR_BYTES - *at as usize % SECTOR_BYTES).min(data.len());
                let (head, tail) = data.split_at(head);
                let mut at = *at;
                for sector in std::iter::once(head).chain(tail.chunks(SECTOR_BYTES)) {
                    if self.draw().is_multiple_of(2) {
                        self.harden(&Op::Write { file: *file, at, data: sector.to_vec() });
                    }
                    at += sector.len() as u64;
                }
            }
            op => {
                if self.draw().is_multiple_of(2) {
                    self.harden(op);
                }
            }
        }
    }
}

fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left on this disk")
}

fn apply(op: &Op, files: &mut BTreeMap<u64, Content>, side: impl Fn(&mut Content) -> &mut Vec<u8>, names: &mut Names) {
    match op {
        Op::Write { file, at, data } => {
            let Some(content) = files.get_mut(file) else { return };
            let (bytes, at) = (side(content), *at as usize);
            bytes.resize(bytes.len().max(at + data.len()), 0);
            bytes[at..at + data.len()].copy_from_slice(data);
        }
        Op::SetLen { file, len } => {
            if let Some(content) = files.get_mut(file) {
                side(content).resize(*len as usize, 0);
            }
        }
        Op::Name { name, file } => {
            names.insert(name.clone(), *file);
        }
        Op::Unname { name } => {
            names.remove(name);
        }
        Op::Sync { .. } => {}
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.lock();
        state.powered()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        let mut state = self.lock();
        state.operate()?;
        state.some_room()?;
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, Content::default());
        state.live(Op::Name { name: name.to_owned(), file });
        Ok(self.file(&state, file))
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        let mut state = self.lock();
        state.powered()?;
        state.opened += 1;
        let file = state.find(name)?;
        Ok(self.file(&state, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        let file = state.find(from)?;
        // Two steps, so that a torn crash may leave both names, or none if `to` had none before. A
        // journaling file system is kinder.
        state.live(Op::Name { name: to.to_owned(), file });
        state.live(Op::Unname { name: from.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        state.find(name)?;
        state.live(Op::Unname { name: name.to_owned() });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        self.sync(&mut state, Target::Directory)
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.lock();
        state.powered()?;
        let capacity = state.capacity.unwrap_or(u64::MAX);
        // Large enough for any reserve.
        Ok(Space { free_bytes: capacity.saturating_sub(state.used()), total_bytes: u64::MAX })
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        let state = self.lock();
        state.powered()?;
        Ok(state.files[&state.find(name)?].live.len() as u64)
    }

    fn settled(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let (life, until) = {
                let state = self.lock();
                (state.life, state.busy_until)
            };
            if let Some(until) = until {
                self.env.sleep_until(until).await;
            }
            let state = self.lock();
            state.powered()?;
            if state.life == life { Ok(()) } else { Err(io::Error::other("the machine crashed meanwhile")) }
        })
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("env", &self.env.name()).finish_non_exhaustive()
    }
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
    life: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.powered()?;
        let alive = state.life == self.life && state.files.contains_key(&self.file);
        if alive { Ok(state) } else { Err(io::Error::other("this file was opened before a crash")) }
    }

    fn change(&self, op: Op, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.operate()?;
        state.room(self.file, len)?;
        state.live(op);
        Ok(())
    }
}

impl StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.files[&self.file].live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state()?;
        let (live, at) = (&state.files[&self.file].live, offset as usize);
        out.copy_from_slice(live.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::SetLen { file: self.file, len }, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.operate()?;
        self.disk.sync(&mut state, Target::File(self.file))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write { file: self.file, at: offset, data: data.to_vec() }, offset + data.len() as u64)
    }
}

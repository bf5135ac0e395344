//! Where the log's files lie: a real directory, or one in memory that crashes ([`super::disk_sim`]).

use super::room::Space;
use futures::future::BoxFuture;
use redb::{BackendError, StorageBackend};
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// One flat directory of files, as redb and the log's writer need it.
pub trait Disk: Debug + Send + Sync + 'static {
    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file of no bytes; one of that name is replaced.
    fn create(&self, name: &str) -> io::Result<DiskFile>;
    /// A file that exists.
    fn open(&self, name: &str) -> io::Result<DiskFile>;
    /// Gives a file another name, replacing what had it. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// How much room there is.
    fn space(&self) -> io::Result<Space>;
    /// How many bytes a file has.
    fn len(&self, name: &str) -> io::Result<u64>;
    /// Waits until all that was synced is on the platters: at once on a real disk, where a sync
    /// blocks; in simulation, where a sync returns at once, when the virtual time of it has passed.
    fn settled(&self) -> BoxFuture<'_, io::Result<()>>;
}

/// An open file, in the form in which redb takes it.
#[derive(Debug)]
pub struct DiskFile(Box<dyn StorageBackend>);

impl DiskFile {
    pub fn new(file: impl StorageBackend) -> Self {
        Self(Box::new(file))
    }
}

/// A directory of the machine. While it is open no other process can open it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    dir: File,
    /// Held locked as long as this lives.
    _lock: File,
}

const LOCK: &str = "lock";

impl Directory {
    /// Makes the directory if need be, and takes it for this process alone.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_path_buf();
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        fs::create_dir_all(&path).map_err(at)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(at)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("{} is in use by another process: one log node per directory", path.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
            }
            Err(TryLockError::Error(e)) => return Err(at(e)),
        }
        let dir = File::open(&path).map_err(at)?;
        Ok(Self { path, dir, _lock: lock })
    }

    fn at<T>(&self, name: &str, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.path.join(name).display())))
    }

    fn file(&self, name: &str, options: &OpenOptions) -> io::Result<DiskFile> {
        let file = self.at(name, options.open(self.path.join(name)))?;
        let backend = redb::backends::FileBackend::new(file).map_err(io::Error::other)?;
        Ok(DiskFile::new(backend))
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.at("", fs::read_dir(&self.path))? {
            // A name that is not Unicode is not one of ours.
            if let Ok(name) = self.at("", entry)?.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        self.file(name, OpenOptions::new().read(true).write(true).create(true).truncate(true))
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        self.file(name, OpenOptions::new().read(true).write(true))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.at(from, fs::rename(self.path.join(from), self.path.join(to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.at(name, fs::remove_file(self.path.join(name)))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.at("", self.dir.sync_all())
    }

    fn space(&self) -> io::Result<Space> {
        let found = self.at("", rustix::fs::fstatvfs(&self.dir).map_err(io::Error::from))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        // What is kept for the superuser is not for us, whoever we are.
        Ok(Space { free_bytes: bytes(found.f_bavail), total_bytes: bytes(found.f_blocks) })
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.at(name, fs::metadata(self.path.join(name)))?.len())
    }

    fn settled(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Every call goes to the file behind, locks too.
impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    /// What a sync failed to write may be lost, and a later sync may not say so: such an error is never taken
    /// for a disk that is merely full.
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data().map_err(|e| io::Error::other(format!("the disk did not keep what was written: {e}")))
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

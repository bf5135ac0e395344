//! Between us and redb, where a file may have rotted. redb looks at checksums when it repairs a file, and
//! trusts them otherwise: it may then return an error of its own, want bytes that are not there, or panic.
//! All of these mean the same: the file is damaged.

use super::store::StoreError;
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does something with a file of redb's. What it was done with must not be used again if this says that it is
/// damaged.
pub fn guarded<T>(file: &str, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let damaged = |why: String| {
        Err(StoreError::Corrupt { file: file.to_owned(), why: format!("its structure is damaged ({why})") })
    };
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Err(StoreError::Database { source: redb::Error::Corrupted(why), .. })) => damaged(why),
        Ok(Err(StoreError::Database { source: redb::Error::Io(e), .. })) if is_beyond_the_file(&e) => {
            damaged(e.to_string())
        }
        Ok(Err(StoreError::Database { source: source @ redb::Error::TableDoesNotExist(_), .. })) => {
            damaged(source.to_string())
        }
        Ok(result) => result,
        Err(panic) => damaged(text(&*panic).to_owned()),
    }
}

fn is_beyond_the_file(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("redb panicked")
}

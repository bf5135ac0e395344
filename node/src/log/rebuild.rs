//! A log node that has lost data never votes again as who it was: its files are set aside, and it joins
//! anew, as another member with an empty log, which the others then fill.

use super::disk::Disk;
use super::meta::{META, META_NEW, Meta};
use super::renewal::{self, Old, Renewal};
use super::segment::is_segment_name;
use super::store::StoreError;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Who the node was.
    pub old: Old,
    /// The names that its files have now; none if they were deleted.
    pub set_aside: Vec<String>,
    /// What they take.
    pub bytes: u64,
}

/// Sets the log's files aside (or deletes them), and leaves word that the node is to join anew. A crash on
/// the way leaves a directory in which no log starts; doing this once more ends it.
pub fn rebuild(disk: &dyn Disk, delete: bool) -> Result<Rebuilt, StoreError> {
    let files: Vec<String> = disk.list()?.into_iter().filter(|name| is_of_the_log(name)).collect();
    let old = match renewal::read(disk) {
        Ok(Some(Renewal::SetAside(old))) => old,
        // Nothing came of it yet.
        Ok(Some(Renewal::Rejoin(old))) if files.is_empty() => old,
        Ok(None) if files.is_empty() => return Err(StoreError::NoLog),
        Ok(Some(Renewal::Rejoin(_)) | None) | Err(StoreError::Corrupt { .. }) => who(disk)?,
        Err(e) => return Err(e),
    };
    renewal::write(disk, &Renewal::SetAside(old.clone()))?;
    let prefix = unused_prefix(disk)?;
    let (mut set_aside, mut bytes) = (Vec::new(), 0);
    for file in files {
        if delete {
            disk.remove(&file)?;
            continue;
        }
        bytes += disk.len(&file)?;
        let name = format!("{prefix}{file}");
        disk.rename(&file, &name)?;
        set_aside.push(name);
    }
    disk.sync_dir()?;
    renewal::write(disk, &Renewal::Rejoin(old.clone()))?;
    Ok(Rebuilt { old, set_aside, bytes })
}

fn is_of_the_log(name: &str) -> bool {
    name == META || name == META_NEW || is_segment_name(name)
}

/// Who the files say that the node was: nobody, if that is what is damaged.
fn who(disk: &dyn Disk) -> Result<Old, StoreError> {
    if !disk.list()?.iter().any(|name| name == META) {
        return Ok(Old::default());
    }
    match Meta::open(disk) {
        Ok((meta, state)) => {
            meta.close()?;
            Ok(Old { raft_id: Some(state.raft_id), cluster: Some(state.cluster) })
        }
        Err(StoreError::Corrupt { .. } | StoreError::Database { .. }) => Ok(Old::default()),
        Err(e) => Err(e),
    }
}

/// `aside-rebuilt-N-`, where no file is named so yet.
fn unused_prefix(disk: &dyn Disk) -> Result<String, StoreError> {
    let names = disk.list()?;
    let prefixes = (1u64..).map(|n| format!("aside-rebuilt-{n}-"));
    let mut unused = prefixes.filter(|prefix| !names.iter().any(|name| name.starts_with(prefix.as_str())));
    Ok(unused.next().expect("there are more numbers than files"))
}

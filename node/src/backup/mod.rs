//! The database, or its log alone, in a directory of files, outside of the cluster: made while it runs, added to later,
//! checked, and made into a cluster again.
//!
//! A backup of the log is a run of committed entries, as readers see them, cut into *chunks*: each a file of its own, named by its
//! first and last index, compressed, and never changed once it is there. The [`manifest`] says which chunks count, with
//! their hashes, and of which cluster and epochs they are. It is replaced whole, after the chunks that it names are
//! durable; so a backup that was broken off is what it was when the manifest was last written, and goes on from there.
//!
//! [`write`] adds to a backup of the log, [`verify`] reads all of one, [`restore`] makes the log directory of one node from
//! it, in a new epoch.
//!
//! A backup of the database ([`database`]) is a [`base`], which is copied from views as a starting view copies, and a backup of
//! the log from there on. [`fill`] makes a view's directory from the base, for any cut; the rest that view reads from the restored log.
//!
//! What is missing: a base that is brought forward; a backup of which entries are wanted long after begins anew.

pub mod base;
pub mod chunk;
pub mod database;
pub mod fill;
pub mod manifest;
pub mod restore;
pub mod verify;
pub mod write;

#[cfg(test)]
mod tests;

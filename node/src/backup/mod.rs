//! The log in a directory of files, outside of the cluster: made while it runs, added to later, checked, and made into a
//! log again.
//!
//! A backup is a run of committed entries, as readers see them, cut into *chunks*: each a file of its own, named by its
//! first and last index, compressed, and never changed once it is there. The [`manifest`] says which chunks count, with
//! their hashes, and of which cluster and epochs they are. It is replaced whole, after the chunks that it names are
//! durable; so a backup that was broken off is what it was when the manifest was last written, and goes on from there.
//!
//! [`write`] adds to a backup, [`verify`] reads all of one, [`restore`] makes the log directory of one node from it, in a
//! new epoch.

pub mod chunk;
pub mod manifest;
pub mod restore;
pub mod verify;
pub mod write;

#[cfg(test)]
mod tests;

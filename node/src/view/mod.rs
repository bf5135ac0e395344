//! Views: what the log says, indexed, for one range of one or more spaces.
//!
//! A node holds one view ([`instance`]), or two while the data is cut anew ([`role`], [`holdings`]). A view reads the log in order and applies it to an index on its disk. It never decides anything
//! that another view with the same log would decide otherwise: whether a transaction is committed
//! follows from the log alone ([`verdict`]), so views never talk about it.
//!
//! [`follow`] reads the log and hands runs of entries to [`apply`], the one place that changes
//! facts. Facts, progress and, now and then, a [`checkpoint`] of the verdicts become durable
//! together in [`store`], under the keys that [`keys`] draws. [`lookup`] finds facts as they were at
//! one exact version; [`serve`] hands what it finds to peers, and [`status`] says how the view is.
//! A view without data, or whose log was discarded beneath it, first copies what others hold ([`boot`]),
//! from the one scan that each of them turns for all who ride ([`carousel`], [`copy`]).
//! [`sums`] are hashes of what was applied, [`scan`] reads whether that is what lies on the disk, [`verify`] tells both,
//! and a view that is found damaged begins anew ([`damage`]). What nobody may read any more is removed ([`prune`]).
//!
//! What is promised:
//! - a view that is killed resumes exactly where it was; after a power loss, from somewhere earlier,
//!   never from between two batches;
//! - a look-up sees one version, whole, or fails;
//! - a bad entry is judged, a bad disk stops the view, and the two are never mistaken for one another;
//! - a view that was copied from others cannot be told from one that read the whole log;
//! - views that hold the same tell the same hashes at every index, whatever their cuts.
//!
//! What it never does: read a clock while it applies, ask another view about anything but a copy, write to
//! the log, or answer for points that it does not hold.
//!
//! Missing: a copy is not compared with the hashes of those that it was made from; `beam verify` does that.

pub mod apply;
pub mod boot;
mod carousel;
pub mod checkpoint;
mod copied;
mod copy;
mod damage;
pub mod follow;
mod holdings;
mod instance;
pub mod intervals;
pub mod keys;
pub mod lookup;
pub mod outcomes;
pub mod prune;
pub mod recent;
pub mod role;
pub mod row_cache;
mod scan;
pub mod serve;
pub mod status;
pub mod store;
pub mod sums;
pub mod terms;
pub mod verdict;
mod verify;

pub use instance::{Instance, Others, ViewError, ViewOptions};
pub use role::ViewRole;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

//! Beam's node: the roles log, view and api, and the command line that runs them.
//!
//! [`node`] starts one node; [`local`] runs a whole cluster in this process; [`cli`] is what the
//! binary `beam` does. `docs/ARCHITECTURE.md` is the map.

pub mod api;
pub mod backup;
pub mod cli;
pub mod coverage;
pub mod demo;
pub mod discovery;
pub mod load;
pub mod local;
pub mod log;
pub mod node;
pub mod partitions;
pub mod query;
pub mod rdf;
pub mod recovery;
pub mod remote;
pub mod repartition;
pub mod upgrade;
pub mod verify;
pub mod view;

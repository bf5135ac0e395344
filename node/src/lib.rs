//! Beam's node: the roles log, view and api, and the command line that runs them.

pub mod api;
pub mod cli;
pub mod discovery;
pub mod log;
pub mod query;
pub mod rdf;
pub mod remote;
pub mod view;

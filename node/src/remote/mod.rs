//! Typed calls to the other roles: the only way in which log, view and api speak to one another.

pub mod latency;
pub mod log;
pub mod view;

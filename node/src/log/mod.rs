//! log

pub mod disk;
pub mod runtime;
pub mod types;

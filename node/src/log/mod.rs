//! log

pub mod disk;
pub mod machine;
pub mod runtime;
pub mod store;
pub mod types;

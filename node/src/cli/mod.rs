//! The command line. Each command is one file, with its arguments and all that it does.

pub mod cert;
pub mod topology;

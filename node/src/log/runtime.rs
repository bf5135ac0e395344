//! What openraft takes from its runtime.

pub use openraft_rt_tokio::TokioRuntime as Runtime;

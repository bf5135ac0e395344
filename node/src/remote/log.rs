//! Typed calls to log nodes.

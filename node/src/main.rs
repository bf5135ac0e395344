//! beam
fn main() {}

//! Which role may make which call: one table, deny by default.

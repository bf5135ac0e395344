//! Typed calls to views.

//! api
pub mod choose;
pub mod cover;
pub mod hedge;

//! api
pub mod choose;
pub mod cover;
pub mod fanout;
pub mod hedge;
pub mod lookup;
pub mod position;

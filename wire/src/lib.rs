//! What travels between Beam's nodes, and how.
//!
//! Start at [`message`]: every call that one peer may make of another, with its request and its
//! replies. [`term`], [`fact`], [`space`] and [`command`] are the nouns those messages speak of;
//! [`quic`] carries them; [`env`] is where a node gets its clock, chance, sockets, DNS and tasks.
//! The bytes are drawn in `docs/wire.md`, and `wire/golden/` holds one of each.
//!
//! The message modules know nothing of tokio or sockets: a tidy test holds this.

#![deny(missing_docs)]

pub mod codec;
pub mod command;
pub mod env;
pub mod error;
pub mod fact;
pub mod identity;
pub mod ids;
pub mod message;
pub mod quic;
pub mod space;
pub mod sum;
pub mod term;
pub mod topology;

pub use error::{CallError, Code, Retry};
pub use fact::Fact;
pub use identity::{ClientRole, Identity, Role};
pub use ids::{Epoch, LogIndex, Name, Origin, Position, TransactionId, Version};
pub use space::{Point, Range, Space};
pub use sum::Sum;
pub use term::{Term, TermId};

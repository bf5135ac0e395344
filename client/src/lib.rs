//! The way into a Beam cluster for programs.
//!
//! A [`Client`] finds the cluster's api nodes by DNS, or from a topology ([`TopologyDns`]), speaks to the nearest one that answers, and goes to
//! another when that fails: first in the same datacenter, then in others. It proves who it is by a
//! certificate, and checks theirs.
//!
//! ```no_run
//! use beam_client::{Client, ClientOptions, Position};
//! use beam_client::wire::env::{Env, dns::Resolver};
//! use beam_client::wire::topology::Topology;
//! use beam_certs::Credentials;
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let topology = Topology::load(Path::new("topology.toml"))?;
//! let env = Env::real(Arc::new(Resolver::new(&topology.dns.servers)?));
//! let tls = Credentials::load(Path::new("beam-data/certs"), "writer")?.tls(&env)?;
//! let client = Client::connect(env, ClientOptions::of(&topology, tls)).await?;
//!
//! client.update("INSERT DATA { <urn:alice> <urn:knows> <urn:bob> }").await?;
//!
//! let mut answer = client.query("SELECT ?who { <urn:alice> <urn:knows> ?who }", Position::Latest).await?;
//! while let Some(row) = answer.next().await? {
//!     println!("{row:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - Every write has an id that stays the same through all retries: it is done once, or not at all.
//!   When that cannot be said in time, the error is [`ClientError::OutcomeUnknown`]; whoever has kept the id can
//!   find out ([`Client::committed`]), or make it again, and it is still done once ([`Client::update_as`],
//!   [`Client::transaction_as`]).
//! - [`Client::transaction`] reads and writes as if nobody else did anything meanwhile.
//! - A query is sent again only before its first row was handed out: rows never come twice. Rows are read from
//!   the cluster no faster than they are taken.
//! - An api node that is late is not waited for: another is asked as well, and the first answer counts. What is sent
//!   besides first attempts is bounded, so that clients don't keep down a cluster that has too much to do.
//! - A program may be newer than some api nodes: its calls go to those that know them. Where none does, the error is
//!   [`ClientError::NodeTooOld`].
//! - Every answer says the version of the database that it is of. A [`Session`] never goes back: it
//!   sees its own writes, and what it has seen before.
//! - [`Client::watch`] tells every change of facts once, in order, and goes on where it was.
//! - Nothing waits for longer than [`ClientOptions::timeout`], or what [`Client::within`] says for one call; but a
//!   [`Watch`], which waits for changes.
//!
//! Runnable examples are in `client/examples/`: `read_your_write`, `stream_large`, `transfer`, `watch_changes` and
//! `load_many`.

#![deny(missing_docs)]

mod answer;
mod client;
mod discover;
mod error;
mod load;
mod nodes;
mod pace;
mod reach;
mod session;
mod transaction;
mod watch;

pub use answer::{Answer, Everything, Row, Summary};
pub use client::{Client, ClientOptions};
pub use discover::TopologyDns;
pub use error::ClientError;
pub use load::{FACTS_PER_TRANSACTION, LOADS_IN_FLIGHT, LoadError, Loaded, batches};
pub use session::Session;
pub use transaction::{Committed, Done, Transaction};
pub use watch::{Changed, Watch};

pub use beam_wire as wire;
pub use beam_wire::command::Builder;
pub use beam_wire::ids::{Epoch, LogIndex, Position, TransactionId, Version};
pub use beam_wire::message::api::{ApiLoadReply, ApiStatusReply, FactChange, Outcome, Shape, TransactReply};
pub use beam_wire::term::Term;

use beam_wire::message::view::{ViewState, ViewStatusReply};

/// Whether a view answers queries, and is not about to stop.
pub fn is_serving(view: &ViewStatusReply) -> bool {
    view.state == ViewState::Serving
}

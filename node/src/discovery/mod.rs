//! DNS for a cluster: the records of its topology, as text or from a server of our own.
//!
//! Nodes find one another by [`beam_wire::quic::Directory`], which asks whatever DNS there is. This
//! room is the other end: [`zone::text`] prints the records for the operator of a DNS server, and
//! [`DnsServer`] answers them where there is none (`beam dev`, `beam demo`, tests).
//!
//! It never says whether a node is alive: a node that is down stays in DNS.
//!
//! Missing: DNSSEC, zone transfers, updates by nodes themselves.

pub mod server;
pub mod zone;

pub use server::{DnsServer, DnsServerError};

//! The callee's half of a call.

use super::PeerInfo;
use crate::error::CallError;
use crate::message::hello::Hello;
use crate::message::{Call, Kind};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::sync::Arc;
use tokio::time::Instant;

/// Answers the calls of peers.
pub trait Service: Send + Sync + 'static {
    /// What we say of ourselves when a connection begins.
    fn hello(&self) -> Hello;

    /// Answers a call that its peer may make. `Ok` ends it well, `Err` tells the caller why not. The
    /// future is dropped when the caller cancels, vanishes, or its deadline passes.
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>>;
}

/// Ties together what several nodes do for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The request at the edge.
    pub trace: u128,
    /// The call within it.
    pub span: u64,
}

/// A call that a peer makes.
pub struct Incoming {
    /// What it asks for.
    pub kind: Kind,
    /// Who asks.
    pub peer: Arc<PeerInfo>,
    /// When the caller gives up, if ever.
    pub deadline: Option<Instant>,
    /// For logs.
    pub trace: TraceContext,
}

/// A call whose request was read: items come in, replies go out.
pub struct Handle<C: Call> {
    /// The request.
    pub request: C,
    /// Who asks.
    pub peer: Arc<PeerInfo>,
    /// When the caller gives up, if ever.
    pub deadline: Option<Instant>,
}

/// The caller's items.
pub struct ItemReader<C: Call>(PhantomData<C>);

/// Our replies.
pub struct ReplyWriter<C: Call>(PhantomData<C>);

#[allow(clippy::todo, reason = "bodies follow")]
impl Incoming {
    /// Reads the request.
    ///
    /// # Panics
    /// If `C` is not of this kind.
    pub fn open<C: Call>(self) -> Result<Handle<C>, CallError> {
        todo!()
    }
}

#[allow(clippy::todo, unused_variables, reason = "bodies follow")]
impl<C: Call> Handle<C> {
    /// The next item; none when the caller has sent all. Safe to cancel.
    pub async fn item(&mut self) -> Result<Option<C::Item>, CallError> {
        todo!()
    }
    /// Sends a reply. When cancelled, the reply still goes out, before the next one.
    pub async fn reply(&mut self, reply: &C::Reply) -> Result<(), CallError> {
        todo!()
    }
    /// Both directions apart; the request is `request`.
    pub fn split(self) -> (ItemReader<C>, ReplyWriter<C>) {
        todo!()
    }
}

#[allow(clippy::todo, reason = "bodies follow")]
impl<C: Call> ItemReader<C> {
    /// The next item; none when the caller has sent all. Safe to cancel.
    pub async fn item(&mut self) -> Result<Option<C::Item>, CallError> {
        todo!()
    }
}

#[allow(clippy::todo, unused_variables, reason = "bodies follow")]
impl<C: Call> ReplyWriter<C> {
    /// Sends a reply. When cancelled, the reply still goes out, before the next one.
    pub async fn reply(&mut self, reply: &C::Reply) -> Result<(), CallError> {
        todo!()
    }
}

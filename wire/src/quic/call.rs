//! The caller's half of a call.

use crate::error::CallError;
use crate::message::Call;
use std::marker::PhantomData;
use tokio::time::Instant;

/// How to make a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    /// When to give up, on both sides. None for streams that follow something without end.
    pub deadline: Option<Instant>,
}

/// A call under way. Dropping it cancels it on both sides.
pub struct Caller<C: Call>(PhantomData<C>);

/// The caller's items. Dropping it before [`ItemWriter::finish`] breaks the call off.
pub struct ItemWriter<C: Call>(PhantomData<C>);

/// The callee's replies. Dropping it before the end cancels the call.
pub struct ReplyReader<C: Call>(PhantomData<C>);

#[allow(clippy::todo, unused_variables, reason = "bodies follow")]
impl<C: Call> Caller<C> {
    /// The next reply; none when the call is done. Safe to cancel: no reply is lost.
    pub async fn next(&mut self) -> Result<Option<C::Reply>, CallError> {
        todo!()
    }
    /// Sends an item. When cancelled, the item still goes out, before the next one.
    pub async fn send(&mut self, item: &C::Item) -> Result<(), CallError> {
        todo!()
    }
    /// Says that no more items come.
    pub async fn finish(&mut self) -> Result<(), CallError> {
        todo!()
    }
    /// Both directions apart.
    pub fn split(self) -> (ItemWriter<C>, ReplyReader<C>) {
        todo!()
    }
}

#[allow(clippy::todo, unused_variables, reason = "bodies follow")]
impl<C: Call> ItemWriter<C> {
    /// Sends an item. When cancelled, the item still goes out, before the next one.
    pub async fn send(&mut self, item: &C::Item) -> Result<(), CallError> {
        todo!()
    }
    /// Says that no more items come.
    pub async fn finish(&mut self) -> Result<(), CallError> {
        todo!()
    }
}

#[allow(clippy::todo, unused_variables, reason = "bodies follow")]
impl<C: Call> ReplyReader<C> {
    /// The next reply; none when the call is done. Safe to cancel: no reply is lost.
    pub async fn next(&mut self) -> Result<Option<C::Reply>, CallError> {
        todo!()
    }
}

//! The caller's half of a call.

use super::frame::{self, CallHeader, FrameError, FrameReader, FrameWriter, Tag, TraceContext, reason};
use crate::env::Env;
use crate::error::{CallError, Code};
use crate::message::Call;
use std::any::TypeId;
use std::marker::PhantomData;
use std::time::Duration;
use tokio::time::Instant;

/// How to make a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    /// When to give up, on both sides. None for streams that follow something without end.
    pub deadline: Option<Instant>,
}

/// A call under way. Dropping it cancels it on both sides.
pub struct Caller<C: Call> {
    items: ItemWriter<C>,
    replies: ReplyReader<C>,
}

/// The caller's items. Dropping it before [`ItemWriter::finish`] breaks the call off.
pub struct ItemWriter<C: Call> {
    writer: FrameWriter,
    finished: bool,
    clock: Deadline,
    call: PhantomData<fn(C)>,
}

/// The callee's replies. Dropping it before the end cancels the call.
pub struct ReplyReader<C: Call> {
    reader: FrameReader,
    /// The end frame was read, or reading failed.
    over: bool,
    clock: Deadline,
    call: PhantomData<fn(C)>,
}

impl<C: Call> Caller<C> {
    /// Sends the request, on a stream of its own.
    pub(super) async fn open(
        env: &Env,
        connection: &quinn::Connection,
        trace: TraceContext,
        request: &C,
        options: CallOptions,
    ) -> Result<Self, CallError> {
        let clock = Deadline { env: env.clone(), at: options.deadline };
        let header = CallHeader { kind: C::KIND as u16, trace, deadline_ms: clock.left_ms() };
        let (send, receive) = clock.within(connection.open_bi()).await?.map_err(FrameError::Lost)?;
        let call = PhantomData;
        let mut items = ItemWriter { writer: FrameWriter::new(send), finished: false, clock: clock.clone(), call };
        let replies = ReplyReader { reader: FrameReader::new(receive), over: false, clock, call };
        items.writer.push(Tag::Open, &(header, request))?;
        if TypeId::of::<C::Item>() == TypeId::of::<()>() {
            items.finish().await?;
        } else {
            items.flush().await?;
        }
        Ok(Self { items, replies })
    }

    /// The next reply; none when the call is done. Safe to cancel: no reply is lost.
    pub async fn next(&mut self) -> Result<Option<C::Reply>, CallError> {
        self.replies.next().await
    }

    /// Sends an item. When cancelled, the item still goes out, before the next one.
    pub fn send(&mut self, item: &C::Item) -> impl Future<Output = Result<(), CallError>> + Send + use<'_, C> {
        self.items.send(item)
    }

    /// Says that no more items come. For calls that have none, this was said already.
    pub async fn finish(&mut self) -> Result<(), CallError> {
        self.items.finish().await
    }

    /// Both directions apart.
    pub fn split(self) -> (ItemWriter<C>, ReplyReader<C>) {
        (self.items, self.replies)
    }
}

impl<C: Call> ItemWriter<C> {
    /// Sends an item. When cancelled, the item still goes out, before the next one. An error says
    /// that the callee reads no more; its last reply says why.
    pub fn send(&mut self, item: &C::Item) -> impl Future<Output = Result<(), CallError>> + Send + use<'_, C> {
        // Before the first await, so that items need not be shareable between threads.
        let pushed = if self.finished { Err(FrameError::Over) } else { self.writer.push(Tag::Item, item) };
        async move {
            pushed?;
            self.flush().await
        }
    }

    /// Says that no more items come. For calls that have none, this was said already.
    pub async fn finish(&mut self) -> Result<(), CallError> {
        if !self.finished {
            self.writer.push_empty(Tag::ItemsEnd);
            self.clock.within(self.writer.finish()).await??;
            self.finished = true;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CallError> {
        Ok(self.clock.within(self.writer.flush()).await??)
    }
}

impl<C: Call> Drop for ItemWriter<C> {
    fn drop(&mut self) {
        if !self.finished {
            self.writer.reset(reason::CANCELLED)
        }
    }
}

impl<C: Call> ReplyReader<C> {
    /// The next reply; none when the call is done. Safe to cancel: no reply is lost.
    pub async fn next(&mut self) -> Result<Option<C::Reply>, CallError> {
        if self.over {
            return Err(FrameError::Over.into());
        }
        let read = self.clock.within(self.reader.frame()).await;
        let outcome = read.and_then(|frame| match frame? {
            Some((Tag::Reply, payload)) => Ok(Some(frame::read(&payload)?)),
            Some((Tag::Done, payload)) => {
                frame::read::<()>(&payload)?;
                Ok(None)
            }
            Some((Tag::Error, payload)) => Err(frame::read::<CallError>(&payload)?),
            Some((found, _)) => Err(FrameError::Unexpected { found }.into()),
            None => Err(FrameError::Truncated.into()),
        });
        if !matches!(outcome, Ok(Some(_))) {
            self.over = true;
        }
        if outcome.is_err() {
            // After an error frame this does nothing; after our own error the callee must know.
            self.reader.stop(reason::CANCELLED);
        }
        outcome
    }
}

impl<C: Call> Drop for ReplyReader<C> {
    fn drop(&mut self) {
        if !self.over {
            self.reader.stop(reason::CANCELLED)
        }
    }
}

/// An instant, and a clock to hold it against.
#[derive(Clone)]
struct Deadline {
    env: Env,
    at: Option<Instant>,
}

impl Deadline {
    async fn within<F: Future>(&self, future: F) -> Result<F::Output, CallError> {
        match self.at {
            None => Ok(future.await),
            Some(at) => self.env.timeout_at(at, future).await.map_err(|_| passed()),
        }
    }

    fn left_ms(&self) -> Option<u32> {
        let left = self.at?.saturating_duration_since(self.env.now());
        Some(u32::try_from(left.as_millis()).unwrap_or(u32::MAX))
    }
}

/// What a caller is told whose deadline has passed, on whichever side that was seen.
pub(super) fn passed() -> CallError {
    CallError::elsewhere(Code::Deadline, "the deadline passed before the answer was whole")
}

/// When a call that brought this much time must be done.
pub(super) fn deadline(env: &Env, left_ms: Option<u32>) -> Option<Instant> {
    left_ms.map(|left| env.now() + Duration::from_millis(left.into()))
}

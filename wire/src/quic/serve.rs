//! The callee's half of a call, and the dispatcher that stands before every service.

use super::PeerInfo;
use super::call::{deadline, passed};
use super::frame::{self, CallHeader, FrameError, FrameReader, FrameWriter, Tag, TraceContext, reason};
use crate::codec;
use crate::env::Env;
use crate::error::{CallError, Code};
use crate::message::hello::Hello;
use crate::message::{Call, Kind, allow};
use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a caller may take to send its request once the stream is open: a megabyte at 1 Mbit/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a caller may take to make room for the end frame.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers the calls of peers.
pub trait Service: Send + Sync + 'static {
    /// What we say of ourselves when a connection begins.
    fn hello(&self) -> Hello;

    /// Answers a call that its peer may make. `Ok` ends it well, `Err` tells the caller why not. The
    /// future is dropped when the caller cancels, vanishes, or its deadline passes.
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>>;
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
    request: Bytes,
    reader: FrameReader,
    writer: Lent,
}

/// A call whose request was read: items come in, replies go out.
pub struct Handle<C: Call> {
    /// The request.
    pub request: C,
    /// Who asks.
    pub peer: Arc<PeerInfo>,
    /// When the caller gives up, if ever.
    pub deadline: Option<Instant>,
    items: ItemReader<C>,
    replies: ReplyWriter<C>,
}

/// The caller's items.
pub struct ItemReader<C: Call> {
    reader: FrameReader,
    ended: bool,
    call: PhantomData<fn(C)>,
}

/// Our replies. The call ends when the service has returned and this is dropped, whichever is last.
pub struct ReplyWriter<C: Call> {
    writer: Lent,
    call: PhantomData<fn(C)>,
}

impl Incoming {
    /// Reads the request.
    ///
    /// # Panics
    /// If `C` is not of this kind: only we can take one for another.
    pub fn open<C: Call>(self) -> Result<Handle<C>, CallError> {
        assert_eq!(self.kind, C::KIND, "a call was opened as another kind");
        let request = codec::decode(&self.request)?;
        let call = PhantomData;
        Ok(Handle {
            request,
            peer: self.peer,
            deadline: self.deadline,
            items: ItemReader { reader: self.reader, ended: false, call },
            replies: ReplyWriter { writer: self.writer, call },
        })
    }
}

impl<C: Call> Handle<C> {
    /// The next item; none when the caller has sent all. Safe to cancel.
    pub async fn item(&mut self) -> Result<Option<C::Item>, CallError> {
        self.items.item().await
    }

    /// Sends a reply. When cancelled, the reply still goes out, before the next one.
    pub fn reply(&mut self, reply: &C::Reply) -> impl Future<Output = Result<(), CallError>> + Send + use<'_, C> {
        self.replies.reply(reply)
    }

    /// Both directions apart.
    pub fn split(self) -> (ItemReader<C>, ReplyWriter<C>) {
        (self.items, self.replies)
    }
}

impl<C: Call> ItemReader<C> {
    /// The next item; none when the caller has sent all. Safe to cancel.
    pub async fn item(&mut self) -> Result<Option<C::Item>, CallError> {
        if self.ended {
            return Ok(None);
        }
        match self.reader.frame().await? {
            Some((Tag::Item, payload)) => Ok(Some(frame::read(&payload)?)),
            Some((Tag::ItemsEnd, payload)) => {
                frame::read::<()>(&payload)?;
                self.ended = true;
                Ok(None)
            }
            Some((found, _)) => Err(FrameError::Unexpected { found }.into()),
            None => Err(FrameError::Truncated.into()),
        }
    }
}

impl<C: Call> ReplyWriter<C> {
    /// Sends a reply. When cancelled, the reply still goes out, before the next one.
    pub fn reply(&mut self, reply: &C::Reply) -> impl Future<Output = Result<(), CallError>> + Send + use<'_, C> {
        // Before the first await, so that replies need not be shareable between threads.
        let writer = self.writer.get();
        let pushed = writer.push(Tag::Reply, reply);
        async move {
            pushed?;
            Ok(writer.flush().await?)
        }
    }
}

/// The writer, on loan to a handler: when the handler drops it, it comes home for the end frame.
struct Lent {
    writer: Option<FrameWriter>,
    home: Option<oneshot::Sender<FrameWriter>>,
}

impl Lent {
    fn new(writer: FrameWriter) -> (Lent, oneshot::Receiver<FrameWriter>) {
        let (home, returned) = oneshot::channel();
        (Lent { writer: Some(writer), home: Some(home) }, returned)
    }

    fn get(&mut self) -> &mut FrameWriter {
        self.writer.as_mut().expect("it leaves only when this is dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(writer), Some(home)) = (self.writer.take(), self.home.take()) {
            // Nobody is at home after the caller has gone; then the stream is reset.
            if let Err(mut writer) = home.send(writer) {
                writer.reset(reason::CANCELLED);
            }
        }
    }
}

/// Serves one stream that the peer has opened, from its first byte to its end frame.
pub(super) async fn dispatch(
    env: Env,
    service: Arc<dyn Service>,
    peer: Arc<PeerInfo>,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
) {
    let mut writer = FrameWriter::new(send);
    let mut reader = FrameReader::new(receive);
    let stopped = writer.stopped();
    tokio::pin!(stopped);
    let opened = tokio::select! {
        biased;
        () = &mut stopped => return writer.reset(reason::CANCELLED),
        opened = env.timeout(REQUEST_TIMEOUT, open(&env, &peer, &mut reader)) => opened,
    };
    let opened = match opened {
        Ok(Ok(opened)) => opened,
        // A request that was broken off has nobody who waits for an answer.
        Ok(Err(e)) if e.code == Code::Disconnected => return writer.reset(reason::CANCELLED),
        Ok(Err(e)) => {
            reader.stop(reason::MALFORMED);
            return end(&env, writer, Err(e)).await;
        }
        Err(_) => {
            reader.stop(reason::MALFORMED);
            return end(&env, writer, Err(passed())).await;
        }
    };
    let Opened { kind, trace, deadline, request } = opened;
    let (lent, mut returned) = Lent::new(writer);
    let incoming = Incoming { kind, peer, deadline, trace, request, reader, writer: lent };
    // The call itself may panic too, before it has made its future.
    let serving = AssertUnwindSafe(TRACE.scope(trace, async move { service.serve(incoming).await })).catch_unwind();
    let outcome = {
        tokio::pin!(serving);
        let served = async {
            let outcome = match serving.await {
                Ok(outcome) => outcome,
                Err(panic) => {
                    env.tasks().caught(&format!("the handler of {kind:?}"), &*panic);
                    Err(CallError::elsewhere(Code::Internal, format!("the handler of {kind:?} panicked")))
                }
            };
            (outcome, (&mut returned).await)
        };
        let late = async {
            match deadline {
                Some(at) => env.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut stopped => None,
            () = late => Some((Err(passed()), None)),
            (outcome, writer) = served => Some((outcome, writer.ok())),
        }
    };
    // By here the handler was dropped, so the writer is home, unless another task still holds it;
    // then that task's drop resets the stream.
    match outcome {
        None => {
            if let Ok(mut writer) = returned.try_recv() {
                writer.reset(reason::CANCELLED)
            }
        }
        Some((outcome, writer)) => {
            if let Some(writer) = writer.or_else(|| returned.try_recv().ok()) {
                tokio::select! {
                    biased;
                    () = &mut stopped => {}
                    () = end(&env, writer, outcome) => {}
                }
            }
        }
    }
}

tokio::task_local! {
    static TRACE: TraceContext;
}

/// What the running handler was called for, so that the calls it makes in turn carry it on.
pub(super) fn current_trace() -> Option<TraceContext> {
    TRACE.try_get().ok()
}

struct Opened {
    kind: Kind,
    trace: TraceContext,
    deadline: Option<Instant>,
    request: Bytes,
}

/// Reads the first frame, and decides whether this peer may make this call.
async fn open(env: &Env, peer: &PeerInfo, reader: &mut FrameReader) -> Result<Opened, CallError> {
    let (header, request) = first_frame(reader).await?;
    let kind = Kind::from_number(header.kind).ok_or_else(|| {
        CallError::never(Code::UnknownKind, format!("this version knows no call of kind {}", header.kind))
    })?;
    if !allow::may(&peer.identity, kind) {
        return Err(CallError::never(Code::Denied, format!("{} may not call {kind:?}", peer.identity)));
    }
    if kind == Kind::Hello {
        return Err(CallError::never(Code::Invalid, "hello was said already"));
    }
    Ok(Opened { kind, trace: header.trace, deadline: deadline(env, header.deadline_ms), request })
}

/// The header of a call, and the bytes of its request.
pub(super) async fn first_frame(reader: &mut FrameReader) -> Result<(CallHeader, Bytes), FrameError> {
    match reader.frame().await? {
        Some((Tag::Open, mut payload)) => {
            let (header, request) = codec::take::<CallHeader>(&payload)?;
            let header_bytes = payload.len() - request.len();
            payload.advance(header_bytes);
            Ok((header, payload))
        }
        Some((found, _)) => Err(FrameError::Unexpected { found }),
        None => Err(FrameError::Truncated),
    }
}

/// Sends the end frame. What the handler had begun to write goes out before it.
async fn end(env: &Env, mut writer: FrameWriter, outcome: Result<(), CallError>) {
    match outcome {
        Ok(()) => writer.push_empty(Tag::Done),
        Err(e) => writer.push(Tag::Error, &short(e)).expect("a short error fits a frame"),
    }
    if !matches!(env.timeout(END_TIMEOUT, writer.finish()).await, Ok(Ok(()))) {
        writer.reset(reason::CANCELLED);
    }
}

/// Longer messages help nobody.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

fn short(mut e: CallError) -> CallError {
    if e.message.len() > MESSAGE_BYTES_MAX {
        let cut = (0..=MESSAGE_BYTES_MAX).rev().find(|i| e.message.is_char_boundary(*i)).unwrap_or(0);
        e.message.truncate(cut);
        e.message.push('…');
    }
    e
}

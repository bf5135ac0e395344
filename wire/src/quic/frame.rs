//! Frames: how a call lies on its stream.
//!
//! ```text
//! u32 length of the payload, little-endian | u8 tag | payload
//!
//! caller:  Open(header, request)  Item(item)*  ItemsEnd   then the stream finishes
//! callee:  Reply(reply)*  Done | Error(error)             then the stream finishes
//! ```
//!
//! Payloads are postcard. A stream that finishes in the middle of this was broken off.

use crate::codec::{self, DecodeError};
use crate::error::{CallError, Code};
use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest payload of a frame. Checked before anything is allocated for it.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Length and tag.
const HEAD_BYTES: usize = 5;

/// Chunks taken from quinn at once.
const CHUNKS: usize = 32;

/// What a frame holds. The numbers are promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    Open = 1,
    Item = 2,
    ItemsEnd = 3,
    Reply = 4,
    Done = 5,
    Error = 6,
}

/// What the first frame says before the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CallHeader {
    /// A [`crate::message::Kind`], perhaps one that we do not know.
    pub kind: u16,
    pub trace: TraceContext,
    /// What is left until the caller gives up.
    pub deadline_ms: Option<u32>,
}

/// Ties together what several nodes do for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The request at the edge; zero if nobody named it.
    pub trace: u128,
    /// The call within it.
    pub span: u64,
}

/// Why a stream was reset or stopped, and why a connection was closed. Promises, as all numbers.
pub(super) mod reason {
    use quinn::VarInt;
    /// Nothing is wrong.
    pub const DONE: VarInt = VarInt::from_u32(0);
    /// Nobody waits for the answer any more.
    pub const CANCELLED: VarInt = VarInt::from_u32(1);
    /// What came is not what the protocol says.
    pub const MALFORMED: VarInt = VarInt::from_u32(2);
    /// The peer is not who it must be.
    pub const REFUSED: VarInt = VarInt::from_u32(3);
    /// Its certificate has ended.
    pub const EXPIRED: VarInt = VarInt::from_u32(4);
    /// The same node has connected again, after a restart.
    pub const REPLACED: VarInt = VarInt::from_u32(5);
}

/// Why a frame could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {bytes} bytes is above the limit of {FRAME_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("no frame has the tag {0}")]
    UnknownTag(u8),
    #[error("a {found:?} frame came where none may be")]
    Unexpected { found: Tag },
    #[error("the peer broke off in the middle of a frame")]
    Truncated,
    #[error("the peer broke the call off (reason {0})")]
    BrokenOff(VarInt),
    #[error("the call is over")]
    Over,
    #[error("the connection is lost: {0}")]
    Lost(ConnectionError),
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl From<FrameError> for CallError {
    fn from(e: FrameError) -> Self {
        let text = e.to_string();
        match e {
            FrameError::TooLarge { .. } => CallError::never(Code::TooLarge, text),
            FrameError::UnknownTag(_) | FrameError::Unexpected { .. } | FrameError::Malformed(_) => {
                CallError::never(Code::Invalid, text)
            }
            FrameError::Truncated | FrameError::BrokenOff(_) | FrameError::Over | FrameError::Lost(_) => {
                CallError::elsewhere(Code::Disconnected, text)
            }
        }
    }
}

/// Reads frames. Every method is safe to cancel: what has arrived is kept.
pub(super) struct FrameReader {
    stream: RecvStream,
    /// Arrived, not yet read.
    buffer: BytesMut,
}

impl FrameReader {
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame; none when the stream has finished between two.
    pub async fn frame(&mut self) -> Result<Option<(Tag, Bytes)>, FrameError> {
        loop {
            if let Some(frame) = split_frame(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            let mut chunks = [const { Bytes::new() }; CHUNKS];
            match self.stream.read_chunks(&mut chunks).await {
                Ok(Some(count)) => chunks[..count].iter().for_each(|chunk| self.buffer.extend_from_slice(chunk)),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(FrameError::Truncated),
                Err(ReadError::Reset(why)) => return Err(FrameError::BrokenOff(why)),
                Err(ReadError::ConnectionLost(e)) => return Err(FrameError::Lost(e)),
                Err(ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected) => {
                    return Err(FrameError::Over);
                }
            }
        }
    }

    /// Tells the peer that we read no more.
    pub fn stop(&mut self, why: VarInt) {
        // Fails only when there is nothing left to stop.
        let _ = self.stream.stop(why);
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        // Takes note of an end that has arrived already, so that quinn need not tell the peer to stop.
        let _ = self.stream.read_chunk(1, true).now_or_never();
    }
}

/// Takes a whole frame from the front, if there is one. Refuses its length as soon as that is known.
fn split_frame(buffer: &mut BytesMut) -> Result<Option<(Tag, Bytes)>, FrameError> {
    if buffer.len() < HEAD_BYTES {
        return Ok(None);
    }
    let bytes = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes });
    }
    let tag = Tag::from_number(buffer[4])?;
    if buffer.len() < HEAD_BYTES + bytes {
        buffer.reserve(HEAD_BYTES + bytes - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEAD_BYTES);
    Ok(Some((tag, buffer.split_to(bytes).freeze())))
}

impl Tag {
    fn from_number(number: u8) -> Result<Tag, FrameError> {
        use Tag::*;
        let known = [Open, Item, ItemsEnd, Reply, Done, Error];
        known.into_iter().find(|tag| *tag as u8 == number).ok_or(FrameError::UnknownTag(number))
    }
}

/// Writes frames. A frame whose writing was cancelled goes out before the next one.
pub(super) struct FrameWriter {
    stream: SendStream,
    /// Queued.
    unsent: BytesMut,
    /// Taken from there, and not yet by quinn: it goes first.
    sending: Bytes,
    ended: bool,
}

impl FrameWriter {
    pub fn new(stream: SendStream) -> Self {
        Self { stream, unsent: BytesMut::new(), sending: Bytes::new(), ended: false }
    }

    /// Queues a frame; [`FrameWriter::flush`] hands it to quinn.
    pub fn push<M: Serialize + ?Sized>(&mut self, tag: Tag, message: &M) -> Result<(), FrameError> {
        put_frame(&mut self.unsent, tag, message)
    }

    /// Queues a frame that carries nothing.
    pub fn push_empty(&mut self, tag: Tag) {
        self.unsent.extend_from_slice(&[0, 0, 0, 0, tag as u8]);
    }

    /// Waits until quinn has taken all that was queued.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        loop {
            if self.sending.is_empty() {
                self.sending = self.unsent.split().freeze();
            }
            if self.sending.is_empty() {
                return Ok(());
            }
            // quinn keeps what it takes, without copying it.
            match self.stream.write_chunks(std::slice::from_mut(&mut self.sending)).await {
                Ok(_) => {}
                Err(WriteError::Stopped(why)) => return Err(FrameError::BrokenOff(why)),
                Err(WriteError::ConnectionLost(e)) => return Err(FrameError::Lost(e)),
                Err(WriteError::ClosedStream | WriteError::ZeroRttRejected) => return Err(FrameError::Over),
            }
        }
    }

    /// Flushes, and ends the stream well.
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        self.ended = true;
        self.stream.finish().map_err(|_| FrameError::Over)
    }

    /// Ends the stream badly: what was not received yet may never be.
    pub fn reset(&mut self, why: VarInt) {
        self.ended = true;
        // Fails only when it has ended already.
        let _ = self.stream.reset(why);
    }

    /// Resolves when the peer reads no more, or the connection is lost. Never, if all was received.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move {
            if let Ok(None) = stopped.await {
                std::future::pending().await
            }
        }
    }
}

/// Dropping a quinn stream finishes it, and half a call would look whole: whoever means to finish
/// says so.
impl Drop for FrameWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.reset(reason::CANCELLED)
        }
    }
}

fn put_frame<M: Serialize + ?Sized>(into: &mut BytesMut, tag: Tag, message: &M) -> Result<(), FrameError> {
    let start = into.len();
    into.extend_from_slice(&[0, 0, 0, 0, tag as u8]);
    codec::append(message, into);
    let bytes = into.len() - start - HEAD_BYTES;
    if bytes > FRAME_BYTES_MAX {
        into.truncate(start);
        return Err(FrameError::TooLarge { bytes });
    }
    into[start..start + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
    Ok(())
}

/// Reads a payload that must be exactly one message.
pub(super) fn read<M: DeserializeOwned>(payload: &[u8]) -> Result<M, FrameError> {
    Ok(codec::decode(payload)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame<M: Serialize>(tag: Tag, message: &M) -> BytesMut {
        let mut bytes = BytesMut::new();
        put_frame(&mut bytes, tag, message).unwrap();
        bytes
    }

    #[test]
    fn a_frame_lies_as_drawn() {
        let header = CallHeader { kind: 17, trace: TraceContext { trace: 1, span: 2 }, deadline_ms: Some(300) };
        let mut bytes = frame(Tag::Open, &(header.clone(), 7u8));
        assert_eq!(bytes.as_ref(), [7, 0, 0, 0, 1, 17, 1, 2, 1, 0xac, 2, 7]);
        let (tag, payload) = split_frame(&mut bytes).unwrap().unwrap();
        assert_eq!((tag, read::<(CallHeader, u8)>(&payload)), (Tag::Open, Ok((header, 7))));
        assert!(bytes.is_empty());
    }

    #[test]
    fn frames_come_whole_or_not_at_all() {
        let mut all = frame(Tag::Reply, &300u32);
        all.extend_from_slice(&frame(Tag::Done, &()));
        for cut in 0..all.len() {
            let mut bytes = BytesMut::from(&all[..cut]);
            let mut tags = Vec::new();
            while let Some((tag, _)) = split_frame(&mut bytes).unwrap() {
                tags.push(tag);
            }
            assert_eq!(tags, if cut < 7 { vec![] } else { vec![Tag::Reply] }, "of {cut} bytes");
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_bytes_come() {
        let mut bytes = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, Tag::Item as u8][..]);
        assert_eq!(split_frame(&mut bytes), Err(FrameError::TooLarge { bytes: u32::MAX as usize }));
        assert!(bytes.capacity() < 1024);
        let mut written = BytesMut::from(&b"before"[..]);
        let big = vec![0u8; FRAME_BYTES_MAX];
        assert!(matches!(put_frame(&mut written, Tag::Item, &big), Err(FrameError::TooLarge { .. })));
        assert_eq!(written.as_ref(), b"before");
    }

    #[test]
    fn an_unknown_tag_is_refused() {
        let mut bytes = BytesMut::from(&[0, 0, 0, 0, 9][..]);
        assert_eq!(split_frame(&mut bytes), Err(FrameError::UnknownTag(9)));
    }

    #[test]
    fn nothing_may_follow_a_message() {
        let mut bytes = frame(Tag::Item, &(300u32, 0u8));
        let (_, payload) = split_frame(&mut bytes).unwrap().unwrap();
        assert!(matches!(read::<u32>(&payload), Err(FrameError::Malformed(DecodeError::Trailing { count: 1, .. }))));
    }
}

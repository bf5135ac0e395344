//! Postcard with the limits that it does not have itself.

use bytes::{BufMut, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Why bytes are not the message that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end early, or hold a value that the type does not have.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// The type that was expected.
        what: &'static str,
        /// What the decoder said.
        why: String,
    },
    /// The message is whole, but something follows it.
    #[error("{count} bytes follow the end of {what}")]
    Trailing {
        /// The type that was expected.
        what: &'static str,
        /// How many bytes are left.
        count: usize,
    },
}

/// The bytes of `message`.
pub fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    // Only a `Serialize` of our own that fails, or a sequence of unknown length, can fail here.
    postcard::to_stdvec(message).expect("our messages serialize")
}

/// Adds the bytes of `message` to the end of `into`.
pub fn append<M: Serialize + ?Sized>(message: &M, into: &mut BytesMut) {
    postcard::serialize_with_flavor(message, Appender(into)).expect("our messages serialize");
}

/// Where postcard writes to. Its own adapter for `Extend` takes bytes one by one.
struct Appender<'a>(&'a mut BytesMut);

impl Flavor for Appender<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Reads one message that fills `bytes` to the last.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, DecodeError> {
    let (message, rest) = take(bytes)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(DecodeError::Trailing { what: short_name::<M>(), count: rest.len() })
    }
}

/// Reads one message from the front of `bytes`, and returns what follows it.
pub fn take<M: DeserializeOwned>(bytes: &[u8]) -> Result<(M, &[u8]), DecodeError> {
    take_borrowed(bytes)
}

/// The same, of a message that may keep parts of `bytes`.
pub fn take_borrowed<'a, M: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(M, &'a [u8]), DecodeError> {
    postcard::take_from_bytes(bytes).map_err(|e| DecodeError::Malformed { what: short_name::<M>(), why: e.to_string() })
}

fn short_name<M>() -> &'static str {
    let name = std::any::type_name::<M>();
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LogIndex;

    #[test]
    fn only_whole_messages_decode() {
        let bytes = encode(&LogIndex(300));
        assert_eq!(decode::<LogIndex>(&bytes), Ok(LogIndex(300)));
        assert!(matches!(decode::<LogIndex>(&bytes[..1]), Err(DecodeError::Malformed { .. })));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode::<LogIndex>(&longer), Err(DecodeError::Trailing { what: "LogIndex", count: 1 }));
    }

    #[test]
    fn a_huge_length_is_refused_without_allocating_it() {
        let mut bytes = encode(&u64::MAX);
        bytes.push(0);
        assert!(matches!(decode::<Vec<u8>>(&bytes), Err(DecodeError::Malformed { .. })));
    }
}

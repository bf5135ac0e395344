//! Where reading is: in bytes for a progress bar, in lines for parsers that do not know.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts bytes as they are read.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Bytes read so far, before decompression.
    pub fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn count<R: Read>(&self, input: R) -> Counting<R> {
        Counting { input, progress: self.clone() }
    }
}

pub(super) struct Counting<R> {
    input: R,
    progress: Progress,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.progress.0.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

/// The line and column that a parser has come to, seen from what it has read.
#[derive(Clone, Debug, Default)]
pub(super) struct Position(Option<Arc<(AtomicU64, AtomicU64)>>);

impl Position {
    /// For a parser that knows its place.
    pub(super) fn unknown() -> Position {
        Position(None)
    }

    /// Hands the input on one tag or line at a time, so that no more was read than was parsed.
    pub(super) fn watch(input: Box<dyn Read + Send>) -> (Box<dyn Read + Send>, Position) {
        let place = Arc::new((AtomicU64::new(1), AtomicU64::new(1)));
        let position = Position(Some(place));
        let watched = Watched {
            input,
            buffer: vec![0; super::BUFFER_BYTES].into(),
            read: 0..0,
            next: (1, 1),
            position: position.clone(),
        };
        (Box::new(watched), position)
    }

    /// Line and column, counted from 1, of the beginning of the tag that was read last.
    pub(super) fn now(&self) -> (Option<u64>, Option<u64>) {
        match &self.0 {
            Some(place) => (Some(place.0.load(Relaxed)), Some(place.1.load(Relaxed))),
            None => (None, None),
        }
    }
}

struct Watched {
    input: Box<dyn Read + Send>,
    buffer: Box<[u8]>,
    read: std::ops::Range<usize>,
    /// Line and column of the first byte that was not handed on.
    next: (u64, u64),
    position: Position,
}

impl Read for Watched {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.read.is_empty() {
            self.read = 0..self.input.read(&mut self.buffer)?;
        }
        let waiting = &self.buffer[self.read.clone()];
        let end = waiting.iter().position(|c| matches!(c, b'>' | b'\n')).map_or(waiting.len(), |at| at + 1);
        let chunk = &waiting[..end.min(out.len())];
        out[..chunk.len()].copy_from_slice(chunk);
        self.read.start += chunk.len();
        let mut place = None;
        for byte in chunk {
            if *byte == b'<' {
                place = Some(self.next);
            }
            match byte {
                b'\n' => self.next = (self.next.0 + 1, 1),
                // Bytes that go on a character of UTF-8 are no column of their own.
                0x80..0xc0 => {}
                _ => self.next.1 += 1,
            }
        }
        if let (Some((line, column)), Some(shared)) = (place, &self.position.0) {
            shared.0.store(line, Relaxed);
            shared.1.store(column, Relaxed);
        }
        Ok(chunk.len())
    }
}

//! Stops a text whose triple terms nest so deep that the parser would exhaust the stack (a million
//! levels end the process, when it drops the term). It looks at the text only, so it counts what
//! stands in strings too; hence a limit far above that of terms, and a new count after each full stop.

use beam_wire::term::DEPTH_MAX;
use std::io::{self, Read};

/// Harmless to the parser, and more than any text has by chance before a full stop.
const OPEN_MAX: usize = 1000;

pub(super) struct Nesting<R> {
    input: R,
    open: usize,
    /// The two bytes before.
    last: [u8; 2],
}

impl<R: Read> Nesting<R> {
    pub(super) fn new(input: R) -> Nesting<R> {
        Nesting { input, open: 0, last: [0; 2] }
    }

    fn count(&mut self, text: &[u8]) {
        for at in 0..text.len() {
            // Nearly all text has none open, and then only a parenthesis matters.
            if self.open == 0 && text[at] != b'(' {
                continue;
            }
            let before = |back: usize| if at >= back { text[at - back] } else { self.last[2 + at - back] };
            match [before(2), before(1), text[at]] {
                [b'<', b'<', b'('] => self.open += 1,
                [b')', b'>', b'>'] => self.open = self.open.saturating_sub(1),
                [_, b'.', c] if c.is_ascii_whitespace() => self.open = 0,
                _ => {}
            }
            if self.open > OPEN_MAX {
                return;
            }
        }
        for byte in &text[text.len().saturating_sub(2)..] {
            self.last = [self.last[1], *byte];
        }
    }
}

impl<R: Read> Read for Nesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.count(&buffer[..count]);
        if self.open > OPEN_MAX {
            let why = format!("triple terms nest deeper than {DEPTH_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str, chunk: usize) -> bool {
        let mut input = Nesting::new(text.as_bytes());
        let mut buffer = vec![0; chunk];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    #[test]
    fn what_opens_too_often_is_stopped_wherever_it_is_cut() {
        for chunk in [1, 2, 3, 7, 4096] {
            assert!(!reads(&"<<( <x:s> <x:p> ".repeat(OPEN_MAX + 1), chunk));
            assert!(reads(&"<<( <x:s> <x:p> ".repeat(OPEN_MAX), chunk));
            assert!(reads(&"<<( <x:s> <x:p> <x:o> )>> ".repeat(OPEN_MAX * 3), chunk));
            assert!(reads(&"<x:s> <x:p> \"1<<(n)\" .\n".repeat(OPEN_MAX * 3), chunk));
        }
    }
}

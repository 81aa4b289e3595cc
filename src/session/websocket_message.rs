//! A WebSocket message that comes in pieces. Knows nothing of frames. Invariant: what was gathered
//! of a text is UTF-8 so far, so that a fault is known with the byte that makes it certain and
//! nothing is checked twice.

use std::borrow::Cow;

use crate::base::close::Violation;
use crate::session::websocket::WebSocketStep;

pub struct Message {
    gathered: Gathered,
}

enum Gathered {
    Text(String, Cut),
    Binary(Vec<u8>),
}

/// The beginning of a character whose end is in the next piece.
#[derive(Default)]
struct Cut {
    bytes: [u8; 4],
    len: usize,
}

impl Message {
    pub fn new(is_text: bool) -> Message {
        Message {
            gathered: match is_text {
                true => Gathered::Text(String::new(), Cut::default()),
                false => Gathered::Binary(Vec::new()),
            },
        }
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        match &self.gathered {
            Gathered::Text(text, cut) => text.len() + cut.len,
            Gathered::Binary(bytes) => bytes.len(),
        }
    }

    pub fn push(&mut self, piece: &[u8]) -> Result<(), Violation> {
        match &mut self.gathered {
            Gathered::Text(text, cut) => {
                let rest = cut.complete(text, piece)?;
                push_text(text, cut, rest)
            }
            Gathered::Binary(bytes) => {
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// The message is whole.
    pub fn finish<'a>(self) -> Result<WebSocketStep<'a>, Violation> {
        match self.gathered {
            Gathered::Text(text, cut) if cut.len == 0 => Ok(WebSocketStep::Text(Cow::Owned(text))),
            Gathered::Text(..) => Err(Violation::NotUtf8),
            Gathered::Binary(bytes) => Ok(WebSocketStep::Binary(Cow::Owned(bytes))),
        }
    }
}

impl Cut {
    /// Adds bytes of `piece` until the character is whole; returns the others.
    fn complete<'a>(&mut self, text: &mut String, piece: &'a [u8]) -> Result<&'a [u8], Violation> {
        let mut rest = piece;
        while self.len > 0
            && let Some((next, others)) = rest.split_first()
        {
            rest = others;
            self.bytes[self.len] = *next;
            self.len += 1;
            match std::str::from_utf8(&self.bytes[..self.len]) {
                Ok(character) => {
                    text.push_str(character);
                    self.len = 0;
                }
                // Four bytes are either a character or an error, so there is room for the next.
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Violation::NotUtf8),
            }
        }
        Ok(rest)
    }
}

/// Adds what is whole of `piece`; a character that is cut by its end goes to `cut`.
fn push_text(text: &mut String, cut: &mut Cut, piece: &[u8]) -> Result<(), Violation> {
    let tail = match simdutf8::compat::from_utf8(piece) {
        Ok(piece) => {
            text.push_str(piece);
            return Ok(());
        }
        Err(error) if error.error_len().is_some() => return Err(Violation::NotUtf8),
        Err(error) => piece.split_at(error.valid_up_to()),
    };
    let (whole, tail) = tail;
    match simdutf8::basic::from_utf8(whole) {
        Ok(whole) => text.push_str(whole),
        Err(_) => return Err(Violation::NotUtf8),
    }
    cut.bytes[..tail.len()].copy_from_slice(tail);
    cut.len = tail.len();
    Ok(())
}

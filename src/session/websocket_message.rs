//! A WebSocket message that comes in pieces, compressed or not. Knows nothing of frames. Invariants:
//! what was gathered of a text is UTF-8 so far, so that a fault is known with the byte that makes
//! it certain and nothing is checked twice; a compressed message never gathers more than it may.

use std::borrow::Cow;

use crate::base::close::Violation;
use crate::session::websocket::WebSocketStep;
use crate::wire::deflate::{Garbled, History, Inflater, Inflaters};

pub struct Message {
    gathered: Gathered,
    inflation: Option<Inflation>,
}

/// Of a compressed message.
struct Inflation {
    inflater: Inflater,
    /// Compressed bytes so far.
    taken: usize,
}

/// Compressed bytes that a message of at most `message_bytes` may take: blocks that hold little or
/// nothing are allowed, an endless row of them is not.
pub fn deflated_bytes_max(message_bytes: usize) -> usize {
    message_bytes.saturating_mul(2).saturating_add(1024)
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
            inflation: None,
        }
    }

    /// A compressed message that `inflater` was made ready for.
    pub fn deflated(is_text: bool, inflater: Inflater) -> Message {
        Message {
            inflation: Some(Inflation { inflater, taken: 0 }),
            ..Message::new(is_text)
        }
    }

    /// How many more bytes its frames may bring.
    pub fn room(&self, message_bytes: usize) -> usize {
        match &self.inflation {
            None => message_bytes.saturating_sub(self.gathered.size()),
            Some(inflation) => deflated_bytes_max(message_bytes).saturating_sub(inflation.taken),
        }
    }

    /// The next piece of the payload, which `room` allowed. A compressed one is inflated to at most
    /// `message_bytes`; `history` is what it may refer to.
    pub fn push(
        &mut self,
        piece: &[u8],
        history: &[u8],
        message_bytes: usize,
    ) -> Result<(), Violation> {
        match &mut self.inflation {
            None => self.gathered.push(piece),
            Some(inflation) => inflation.push(piece, &mut self.gathered, history, message_bytes),
        }
    }

    /// The message is whole.
    pub fn finish<'a>(
        mut self,
        history: Option<&mut History>,
        inflaters: &mut Inflaters,
        message_bytes: usize,
    ) -> Result<WebSocketStep<'a>, Violation> {
        if let Some(Inflation { mut inflater, .. }) = self.inflation {
            let allowed = message_bytes.saturating_sub(self.gathered.size());
            inflater.finish(allowed, |plain| self.gathered.push(plain))?;
            inflaters.give_back(inflater);
            if let Some(history) = history {
                history.remember(self.gathered.as_slice());
            }
        }
        match self.gathered {
            Gathered::Text(text, cut) if cut.len == 0 => Ok(WebSocketStep::Text(Cow::Owned(text))),
            Gathered::Text(..) => Err(Violation::NotUtf8),
            Gathered::Binary(bytes) => Ok(WebSocketStep::Binary(Cow::Owned(bytes))),
        }
    }
}

impl Gathered {
    /// Bytes so far.
    fn size(&self) -> usize {
        match self {
            Gathered::Text(text, cut) => text.len() + cut.len,
            Gathered::Binary(bytes) => bytes.len(),
        }
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), Violation> {
        match self {
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

    /// Without a character that is not whole.
    fn as_slice(&self) -> &[u8] {
        match self {
            Gathered::Text(text, _) => text.as_bytes(),
            Gathered::Binary(bytes) => bytes,
        }
    }

    fn cut(&self) -> &[u8] {
        match self {
            Gathered::Text(_, cut) => &cut.bytes[..cut.len],
            Gathered::Binary(_) => &[],
        }
    }
}

impl Inflation {
    fn push(
        &mut self,
        mut piece: &[u8],
        gathered: &mut Gathered,
        history: &[u8],
        message_bytes: usize,
    ) -> Result<(), Violation> {
        self.taken += piece.len();
        loop {
            let allowed = message_bytes.saturating_sub(gathered.size());
            let sink = |plain: &[u8]| gathered.push(plain);
            let (taken, ended) = self.inflater.push(piece, allowed, sink)?;
            piece = &piece[taken..];
            if !ended {
                return Ok(());
            }
            // A final block inside a message: the next one may refer to all that came before it.
            self.begin_again(gathered, history)?;
            if piece.is_empty() {
                return Ok(());
            }
        }
    }

    fn begin_again(&mut self, gathered: &Gathered, history: &[u8]) -> Result<(), Garbled> {
        let mut seen = History::new(Some(crate::wire::deflate::WINDOW_BITS_MAX));
        for bytes in [history, gathered.as_slice(), gathered.cut()] {
            seen.remember(bytes);
        }
        self.inflater.begin(seen.as_slice())
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

//! The contract for a protocol on a plain byte stream: where one message ends, what it holds, how
//! one is written. Owns the checks that every framing needs and none can be trusted to make. Knows
//! no connection. Invariant: whatever a framing answers, `next` takes at least one byte and at most
//! `bytes_max` for a message, and what can never become one is a violation, not a wait.

use crate::base::bytes::Inbox;
use crate::base::close::Violation;

/// A raw protocol in three functions; it keeps no state between them.
///
/// Messages that end with a zero byte, in full:
///
/// ```
/// use lineman::base::bytes::Inbox;
/// use lineman::base::close::Violation;
/// use lineman::wire::framing::{self, Extent, Framing, Payload, Unsendable};
///
/// struct ZeroEnded;
///
/// impl Framing for ZeroEnded {
///     fn measure(&self, input: &[u8], _bytes_max: usize) -> Result<Extent, Violation> {
///         match input.iter().position(|byte| *byte == 0) {
///             Some(end) => Ok(Extent::Whole(end + 1)),
///             None => Ok(Extent::Unknown),
///         }
///     }
///
///     fn decode<'a>(&self, message: &'a [u8]) -> Result<Payload<'a>, Violation> {
///         Payload::text(&message[..message.len() - 1])
///     }
///
///     fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable> {
///         if payload.contains(&0) {
///             return Err(Unsendable);
///         }
///         out.extend_from_slice(payload);
///         out.push(0);
///         Ok(())
///     }
/// }
///
/// let mut bytes = *b"one\0two\0thr";
/// let mut inbox = Inbox::new(&mut bytes);
/// assert_eq!(framing::next(&ZeroEnded, &mut inbox, 100), Ok(Some(Payload::Text("one"))));
/// assert_eq!(framing::next(&ZeroEnded, &mut inbox, 100), Ok(Some(Payload::Text("two"))));
/// assert_eq!(framing::next(&ZeroEnded, &mut inbox, 100), Ok(None));
/// assert_eq!(framing::next(&ZeroEnded, &mut inbox, 3), Err(Violation::TooBig));
/// ```
pub trait Framing: Send + Sync {
    /// How far the first message in `input` reaches. Called again from its beginning whenever more
    /// has come. Sessions call `next`, which refuses 0 and more than `bytes_max` whatever this
    /// returns; a framing looks at `bytes_max` only to refuse earlier or in better words.
    fn measure(&self, input: &[u8], bytes_max: usize) -> Result<Extent, Violation>;

    /// What a message says; `message` is exactly what was measured.
    fn decode<'a>(&self, message: &'a [u8]) -> Result<Payload<'a>, Violation>;

    /// Appends a message to `out`.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable>;
}

/// What `measure` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The end cannot be told yet.
    Unknown,
    /// The message has this many bytes, those of the framing included. They need not all be there.
    Whole(usize),
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Bytes that have to be text.
    pub fn text(bytes: &'a [u8]) -> Result<Payload<'a>, Violation> {
        match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => Ok(Payload::Text(text)),
            Err(_) => Err(Violation::NotUtf8),
        }
    }
}

/// The payload has no form in this framing. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsendable;

/// Takes the next message, or tells that more must come first. `bytes_max` bounds a message with
/// what the framing adds to it.
pub fn next<'a>(
    framing: &dyn Framing,
    inbox: &mut Inbox<'a>,
    bytes_max: usize,
) -> Result<Option<Payload<'a>>, Violation> {
    let input = inbox.rest();
    if input.is_empty() {
        return Ok(None);
    }
    match framing.measure(input, bytes_max)? {
        Extent::Whole(0) => Err(Violation::Protocol("Message has no length")),
        Extent::Whole(len) if len > bytes_max => Err(Violation::TooBig),
        Extent::Whole(len) if len <= input.len() => framing.decode(inbox.take(len)).map(Some),
        Extent::Whole(_) => Ok(None),
        // One byte more and it is too long, wherever it ends.
        Extent::Unknown if input.len() >= bytes_max => Err(Violation::TooBig),
        Extent::Unknown => Ok(None),
    }
}

/// Reads `stream` cut at every byte and checks that the messages, owned, are `expected` each time.
#[cfg(test)]
pub fn check_every_cut(framing: &dyn Framing, stream: &[u8], expected: &[&[u8]]) {
    let read = |pieces: [&[u8]; 2]| {
        let (mut held, mut messages) = (Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            let mut inbox = Inbox::new(&mut held);
            while let Some(payload) = next(framing, &mut inbox, 1 << 20).expect("valid") {
                messages.push(match payload {
                    Payload::Text(text) => text.as_bytes().to_vec(),
                    Payload::Binary(bytes) => bytes.to_vec(),
                });
            }
            let taken = inbox.taken();
            held.drain(..taken);
        }
        (messages, held.len())
    };
    for cut in 0..=stream.len() {
        let (messages, left) = read([&stream[..cut], &stream[cut..]]);
        assert_eq!(messages, expected, "cut at {cut}");
        assert_eq!(left, 0, "cut at {cut}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the same to everything.
    struct Careless(Extent);

    impl Framing for Careless {
        fn measure(&self, _input: &[u8], _bytes_max: usize) -> Result<Extent, Violation> {
            Ok(self.0)
        }

        fn decode<'a>(&self, message: &'a [u8]) -> Result<Payload<'a>, Violation> {
            Ok(Payload::Binary(message))
        }

        fn encode(&self, _payload: &[u8], _out: &mut Vec<u8>) -> Result<(), Unsendable> {
            Err(Unsendable)
        }
    }

    fn check(extent: Extent, expected: Result<Option<&[u8]>, Violation>) {
        let mut bytes = *b"12345678";
        let mut inbox = Inbox::new(&mut bytes);
        let found = next(&Careless(extent), &mut inbox, 8);
        assert_eq!(found, expected.map(|found| found.map(Payload::Binary)));
    }

    #[test]
    fn a_careless_framing_can_neither_spin_nor_overrun_nor_wait_for_ever() {
        check(
            Extent::Whole(0),
            Err(Violation::Protocol("Message has no length")),
        );
        check(Extent::Whole(1), Ok(Some(b"1")));
        check(Extent::Whole(8), Ok(Some(b"12345678")));
        check(Extent::Whole(9), Err(Violation::TooBig));
        check(Extent::Whole(usize::MAX), Err(Violation::TooBig));
        check(Extent::Unknown, Err(Violation::TooBig));
    }

    #[test]
    fn a_message_that_is_not_whole_is_waited_for() {
        let mut bytes = *b"123";
        let mut inbox = Inbox::new(&mut bytes);
        for extent in [Extent::Whole(8), Extent::Unknown] {
            assert_eq!(next(&Careless(extent), &mut inbox, 8), Ok(None));
        }
        assert_eq!(inbox.taken(), 0);
        assert_eq!(
            next(&Careless(Extent::Whole(1)), &mut Inbox::new(&mut []), 8),
            Ok(None)
        );
    }
}

//! Length-prefixed frames: four bytes, big-endian, say how long the frame is, themselves included;
//! the rest is the message. A frame without a body is refused, both ways: it says nothing, and a
//! stream of zeros or fours is a peer that counts wrongly. Does not know what a frame says.

use crate::base::close::Violation;
use crate::wire::framing::{Extent, Framing, Payload, Unsendable};

const PREFIX: usize = 4;

/// `frame://`.
pub struct Frames;

impl Framing for Frames {
    fn measure(&self, input: &[u8], bytes_max: usize) -> Result<Extent, Violation> {
        let Some(prefix) = input.first_chunk::<PREFIX>() else {
            return Ok(Extent::Unknown);
        };
        match u32::from_be_bytes(*prefix) as usize {
            0..=PREFIX => Err(Violation::Protocol("Frame length is less than 5")),
            length if length > bytes_max => Err(Violation::TooBig),
            length => Ok(Extent::Whole(length)),
        }
    }

    /// What is UTF-8 is a text, anything else is bytes: the prefix has no room to say which.
    fn decode<'a>(&self, message: &'a [u8]) -> Result<Payload<'a>, Violation> {
        let body = message.get(PREFIX..).unwrap_or_default();
        Ok(Payload::text(body).unwrap_or(Payload::Binary(body)))
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        let length = u32::try_from(PREFIX + payload.len()).map_err(|_| Unsendable)?;
        if payload.is_empty() {
            return Err(Unsendable);
        }
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bytes::Inbox;
    use crate::wire::framing::{check_every_cut, next};

    fn check(input: &[u8], expected: Result<Option<Payload<'_>>, Violation>) {
        let mut bytes = input.to_vec();
        let found = next(&Frames, &mut Inbox::new(&mut bytes), 8);
        assert_eq!(found, expected);
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let bodies: [&[u8]; 4] = [b"a", b"{\"event\":1}", &[0xff; 300], "ö".as_bytes()];
        let mut stream = Vec::new();
        for body in bodies {
            Frames.encode(body, &mut stream).expect("it has a body");
        }
        check_every_cut(&Frames, &stream, &bodies);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_with_the_prefix() {
        let short = Err(Violation::Protocol("Frame length is less than 5"));
        for length in 0..=4 {
            check(&[0, 0, 0, length], short);
        }
        check(&[0, 0, 0, 9], Err(Violation::TooBig));
        check(&[0xff; 4], Err(Violation::TooBig));
        check(&[0, 0, 0], Ok(None));
        check(&[0, 0, 0, 8, 1], Ok(None));
        check(&[0, 0, 0, 5, b'x'], Ok(Some(Payload::Text("x"))));
        check(&[0, 0, 0, 5, 0xff], Ok(Some(Payload::Binary(&[0xff]))));
    }

    #[test]
    fn an_empty_body_is_not_written() {
        let mut out = Vec::new();
        assert_eq!(Frames.encode(b"", &mut out), Err(Unsendable));
        assert!(out.is_empty());
    }
}

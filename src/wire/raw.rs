//! No framing at all: whatever has come is a message, and a message is sent as it is. Where the
//! network cuts the stream is not for the peer to say, so only handlers that take any bytes can
//! stand on this.

use crate::base::close::Violation;
use crate::wire::framing::{Extent, Framing, Payload, Unsendable};

/// `tcp://`.
pub struct Raw;

impl Framing for Raw {
    fn measure(&self, input: &[u8], bytes_max: usize) -> Result<Extent, Violation> {
        Ok(Extent::Whole(input.len().min(bytes_max)))
    }

    fn decode<'a>(&self, message: &'a [u8]) -> Result<Payload<'a>, Violation> {
        Ok(Payload::Binary(message))
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        out.extend_from_slice(payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bytes::Inbox;
    use crate::wire::framing::next;

    #[test]
    fn everything_that_came_is_handed_on_in_pieces_of_the_limit() {
        let mut bytes = *b"12345";
        let mut inbox = Inbox::new(&mut bytes);
        let mut pieces = Vec::new();
        while let Ok(Some(Payload::Binary(piece))) = next(&Raw, &mut inbox, 2) {
            pieces.push(piece.to_vec());
        }
        assert_eq!(pieces, [&b"12"[..], b"34", b"5"]);
    }
}

//! One of our own processes at the other end: a stream of bus or control frames. Stateless; what
//! was not a whole frame yet stays in the inbox.

use crate::base::bytes::Inbox;
use crate::wire::bus_codec::{Extent, Garbled, measure};

/// The next whole frame, length field included; `None` until more bytes come.
pub fn next_frame<'a>(
    inbox: &mut Inbox<'a>,
    bytes_max: usize,
) -> Result<Option<&'a [u8]>, Garbled> {
    match measure(inbox.rest(), bytes_max)? {
        Extent::Partial => Ok(None),
        Extent::Whole(length) => Ok(Some(inbox.take(length))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::{Order, Report};

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let stream = [Report::Ready.encode(), Report::Stats(vec![1, 2]).encode()].concat();
        for cut in 0..=stream.len() {
            let mut frames = Vec::new();
            let mut held = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                held.extend_from_slice(part);
                let mut inbox = Inbox::new(&mut held);
                while let Some(frame) = next_frame(&mut inbox, 100).expect("well-formed") {
                    frames.push(Report::decode(frame).expect("a report"));
                }
                let taken = inbox.taken();
                held.drain(..taken);
            }
            assert_eq!(
                frames,
                [Report::Ready, Report::Stats(vec![1, 2])],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_there() {
        let mut bytes = Order::Stop.encode();
        bytes[0] = 200;
        assert_eq!(next_frame(&mut Inbox::new(&mut bytes), 100), Err(Garbled));
    }
}

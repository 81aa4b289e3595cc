//! Server-Sent Events: how messages stand in a `text/event-stream`, which browsers read with
//! `EventSource` (HTML Standard, section 9.2). Nothing comes the other way. Does not know who reads.

use std::borrow::Cow;

use crate::base::close::Violation;
use crate::wire::bus::Position;
use crate::wire::framing::{Extent, Framing, Payload, Unsendable};
use crate::wire::pusher::parse_epoch;

/// A comment: keeps proxies and readers from giving up a stream on which nothing happens.
pub const HEARTBEAT: &[u8] = b":\n\n";
pub const CONTENT_TYPE: &str = "text/event-stream";

/// How long a reader whose stream ended waits before it asks again.
pub fn retry(milliseconds: u64) -> String {
    format!("retry: {milliseconds}\n\n")
}

/// A message with the field `event` becomes an event of that name; its data is the whole message. One
/// with a position in a channel's history has that as its id, so that a reader whose stream broke
/// names it in `Last-Event-ID`.
pub struct EventStream;

/// What is looked at.
#[derive(serde::Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    epoch: Cow<'a, str>,
    offset: Option<u64>,
    /// Of a success: how many events follow it that lead up to its position.
    #[serde(default)]
    missed: u64,
}

impl Named<'_> {
    /// `CHANNEL/EPOCH/OFFSET`; a channel's name has no slash and ends no line.
    fn id(&self) -> Option<String> {
        let offset = self.offset.filter(|_| self.missed == 0)?;
        parse_epoch(&self.epoch)?;
        Some(format!("{}/{}/{offset}", self.channel, self.epoch))
    }
}

/// The channel and the position in the id of an event that was encoded here.
pub fn read_id(id: &str) -> Option<(&str, Position)> {
    let (channel, rest) = id.split_once('/')?;
    let (epoch, offset) = rest.split_once('/')?;
    let (epoch, offset) = (parse_epoch(epoch)?, offset.parse().ok()?);
    Some((channel, Position { epoch, offset }))
}

impl Framing for EventStream {
    /// A reader has nothing to say.
    fn measure(&self, input: &[u8], _bytes_max: usize) -> Result<Extent, Violation> {
        Ok(Extent::Whole(input.len()))
    }

    fn decode<'a>(&self, message: &'a [u8]) -> Result<Payload<'a>, Violation> {
        Ok(Payload::Binary(message))
    }

    /// Lines of a text become lines of data; a lone CR would end one too (section 9.2.5).
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        let Ok(Payload::Text(text)) = Payload::text(payload) else {
            return Err(Unsendable);
        };
        let named: Option<Named<'_>> = serde_json::from_str(text).ok();
        let plain = |named: &Named<'_>| !named.event.contains(['\r', '\n']);
        if let Some(named) = named.filter(plain) {
            if let Some(id) = named.id() {
                out.extend_from_slice(format!("id: {id}\n").as_bytes());
            }
            let event = &named.event;
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(event.as_bytes());
            out.push(b'\n');
        }
        for line in text.split(['\r', '\n']) {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
        out.push(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> String {
        let mut out = Vec::new();
        EventStream
            .encode(text.as_bytes(), &mut out)
            .expect("a text");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn an_event_has_its_name_and_the_whole_message() {
        let text = r#"{"event":"pri\u0063e","channel":"a","data":"1"}"#;
        assert_eq!(encoded(text), format!("event: price\ndata: {text}\n\n"));
        assert_eq!(encoded("plain"), "data: plain\n\n");
        assert_eq!(retry(1500), "retry: 1500\n\n");
    }

    #[test]
    fn what_has_a_position_has_an_id_to_go_on_from() {
        let text =
            r#"{"event":"e","channel":"a","data":"1","epoch":"00000000000000ab","offset":7}"#;
        let id = "a/00000000000000ab/7";
        assert_eq!(
            encoded(text),
            format!("id: {id}\nevent: e\ndata: {text}\n\n")
        );
        let (epoch, offset) = (0xab, 7);
        assert_eq!(read_id(id), Some(("a", Position { epoch, offset })));
        for other in ["", "7", "a/7", "a/ab/7", "a/00000000000000ab/x"] {
            assert_eq!(read_id(other), None, "{other}");
        }
        // Two events come first that it has not got yet.
        let success = text.replace('}', ",\"recovered\":true,\"missed\":2}");
        assert!(!encoded(&success).contains("id: "));
        let strange = text.replace("00000000000000ab", "a\\nid: b");
        assert!(!encoded(&strange).contains("id: a"));
    }

    #[test]
    fn nothing_in_a_message_ends_a_line_early() {
        let name = "{\"event\":\"a\\nb\",\"data\":\"\"}";
        assert_eq!(encoded(name), format!("data: {name}\n\n"));
        assert_eq!(
            encoded("a\rb\n\nc"),
            "data: a\ndata: b\ndata: \ndata: c\n\n"
        );
        let refused = EventStream.encode(b"\xff", &mut Vec::new());
        assert_eq!(refused, Err(Unsendable));
    }
}

//! Server-Sent Events: how messages stand in a `text/event-stream`, which browsers read with
//! `EventSource` (HTML Standard, section 9.2). Nothing comes the other way. Does not know who reads.

use std::borrow::Cow;

use crate::base::close::Violation;
use crate::wire::framing::{Extent, Framing, Payload, Unsendable};

/// A comment: keeps proxies and readers from giving up a stream on which nothing happens.
pub const HEARTBEAT: &[u8] = b":\n\n";
pub const CONTENT_TYPE: &str = "text/event-stream";

/// How long a reader whose stream ended waits before it asks again.
pub fn retry(milliseconds: u64) -> String {
    format!("retry: {milliseconds}\n\n")
}

/// A message with the field `event` becomes an event of that name; its data is the whole message.
///
/// An `id:` line would stand first, as soon as there is a history that a reader could go on from
/// with `Last-Event-ID`.
pub struct EventStream;

/// The one field that is looked at.
#[derive(serde::Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
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
        if let Some(Named { event }) = named.filter(plain) {
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

//! SockJS's xhr transports as far as pusher-js uses them where there is no WebSocket: a session is
//! many requests to paths below one URL, what the server says is lines, and what the client says is
//! JSON arrays of strings. Knows no session. Source: the SockJS protocol 0.3.3, sections on
//! `xhr_send`, `xhr` and `xhr_streaming`, and what pusher-js 8 makes of it.

use std::borrow::Cow;

use crate::base::close::Violation;
use crate::wire::frames::Frames;
use crate::wire::framing::{Extent, Framing, Payload, Unsendable};

/// The first line of a session. A client that hears it again knows its session was lost.
pub const OPEN: &[u8] = b"o{}\n";
/// Nothing to say. Over a stream, clients answer with an empty array.
pub const HEARTBEAT: &[u8] = b"h\n";
/// Browsers that hold back the first bytes of a stream let go after this many, as do some proxies.
const PRELUDE_BYTES: usize = 2048;
/// A client that has read more than so many characters of an answer leaves it for a new one, and
/// with it what comes after the line that did it.
pub const STREAM_CHARACTERS: usize = 256 * 1024;
/// Of each half of a session's name.
const NAME_BYTES: usize = 32;

/// What a request of a session asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Lines as they come, in one answer without an end.
    Stream,
    /// Lines as soon as there are any, and the end of the answer.
    Poll,
    /// The body holds messages.
    Post,
}

/// A path of a session: `…/app/KEY/SERVER/SESSION/xhr`, or `xhr_streaming` or `xhr_send` at its
/// end. It may stand under any prefix: pusher-js puts `/pusher` before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    pub app_key: &'a str,
    /// `KEY/SERVER/SESSION`: what makes the session one.
    pub session: &'a str,
    pub ask: Ask,
}

impl<'a> Path<'a> {
    /// `None`: it is none. Both parts of a name are chosen by the client, from a few letters.
    pub fn parse(path: &'a str) -> Option<Path<'a>> {
        let (rest, ask) = path.rsplit_once('/')?;
        let ask = match ask {
            "xhr_streaming" => Ask::Stream,
            "xhr" => Ask::Poll,
            "xhr_send" => Ask::Post,
            _ => return None,
        };
        let mut parts = rest.rsplitn(5, '/');
        let (session, server) = (parts.next()?, parts.next()?);
        let (app_key, directory) = (parts.next()?, parts.next()?);
        let named = is_name(session) && is_name(server);
        if !named || directory != "app" || app_key.is_empty() {
            return None;
        }
        let from = rest.len() - app_key.len() - server.len() - session.len() - 2;
        Some(Path {
            app_key,
            session: &rest[from..],
            ask,
        })
    }
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=NAME_BYTES).contains(&text.len()) && text.bytes().all(plain)
}

/// The messages of a request's body, each as `SockJs` reads it; an empty array has none. `None`
/// when the body is no array of strings.
pub fn messages(body: &[u8]) -> Option<Vec<u8>> {
    let texts: Vec<Text<'_>> = serde_json::from_slice(body).ok()?;
    let mut bytes = Vec::with_capacity(body.len());
    for Text(text) in &texts {
        // One without content is no message; it says as much as an empty array.
        let _ = Frames.encode(text.as_bytes(), &mut bytes);
    }
    Some(bytes)
}

/// A string that borrows when it holds no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// `c[CODE,"TEXT"]`: the end of a session, with the code of a WebSocket Close frame.
pub fn closing(code: u16, text: &str) -> Vec<u8> {
    let text = serde_json::Value::from(text);
    format!("c[{code},{text}]\n").into_bytes()
}

/// What an older receiver is told when another asks for the same session (SockJS: 2010).
pub fn superseded() -> Vec<u8> {
    closing(2010, "Another connection still open")
}

/// The first bytes of a stream, which mean nothing: a long heartbeat.
pub fn prelude() -> Vec<u8> {
    let mut line = vec![b'h'; PRELUDE_BYTES];
    line.push(b'\n');
    line
}

/// How many characters of JavaScript a part of a stream adds: UTF-16 units. `lines` is UTF-8.
pub fn characters(lines: &[u8]) -> usize {
    let starts = lines.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    starts + lines.iter().filter(|byte| **byte >= 0xf0).count()
}

/// How many bytes of `lines` an answer takes that has room for so many characters: all up to the end
/// of the line that passes it.
pub fn fitting(lines: &[u8], room: usize) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        bytes += line.len();
        count += characters(line);
        if count > room {
            break;
        }
    }
    bytes
}

/// A session's messages: each goes out as a line `a["…"]`, and what came in stands with its length
/// before it, as `messages` wrote it.
pub struct SockJs;

impl Framing for SockJs {
    fn measure(&self, input: &[u8], bytes_max: usize) -> Result<Extent, Violation> {
        Frames.measure(input, bytes_max)
    }

    fn decode<'a>(&self, message: &'a [u8]) -> Result<Payload<'a>, Violation> {
        Frames.decode(message)
    }

    /// A line carries text only.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        let Ok(Payload::Text(text)) = Payload::text(payload) else {
            return Err(Unsendable);
        };
        out.extend_from_slice(b"a[");
        serde_json::to_writer(&mut *out, text).map_err(|_| Unsendable)?;
        out.extend_from_slice(b"]\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bytes::Inbox;
    use crate::wire::framing::next;

    #[test]
    fn a_path_names_app_session_and_what_is_asked() {
        let path = Path::parse("/pusher/app/demo-key/123/abcd0123/xhr_send");
        let expected = Path {
            app_key: "demo-key",
            session: "demo-key/123/abcd0123",
            ask: Ask::Post,
        };
        assert_eq!(path, Some(expected));
        let ask = |path| Path::parse(path).map(|path| path.ask);
        assert_eq!(ask("/app/k/1/s/xhr_streaming"), Some(Ask::Stream));
        assert_eq!(ask("/a/b/app/k/1/s/xhr"), Some(Ask::Poll));
        for other in [
            "/app/k/1/s/xhr/",
            "/app/k/1/s/websocket",
            "/app/k/1/xhr",
            "/apps/k/1/s/xhr",
            "/app//1/s/xhr",
            "/app/k/1%2f/s/xhr",
            "/app/k/1/012345678901234567890123456789012/xhr",
            "app/k/1//xhr",
        ] {
            assert_eq!(ask(other), None, "{other}");
        }
    }

    fn read(body: &str) -> Option<Vec<String>> {
        let mut bytes = messages(body.as_bytes())?;
        let mut inbox = Inbox::new(&mut bytes);
        let mut texts = Vec::new();
        while let Some(payload) = next(&SockJs, &mut inbox, 1000).expect("frames") {
            match payload {
                Payload::Text(text) => texts.push(text.to_owned()),
                Payload::Binary(bytes) => panic!("{bytes:?}"),
            }
        }
        Some(texts)
    }

    #[test]
    fn a_body_is_an_array_of_strings() {
        assert_eq!(read("[]"), Some(vec![]));
        let two = read(r#" ["{\"a\":1}", "", "\u00e4\n"] "#);
        assert_eq!(two, Some(vec!["{\"a\":1}".into(), "ä\n".into()]));
        for body in ["", "{}", "\"a\"", "[1]", "[\"a\"", "[\"a\"]x", "[null]"] {
            assert_eq!(read(body), None, "{body}");
        }
    }

    #[test]
    fn a_message_is_one_line_whatever_it_says() {
        let mut out = Vec::new();
        assert_eq!(
            SockJs.encode("{\"a\":\"ä\n\"}".as_bytes(), &mut out),
            Ok(())
        );
        assert_eq!(out, "a[\"{\\\"a\\\":\\\"ä\\n\\\"}\"]\n".as_bytes());
        assert_eq!(SockJs.encode(b"\xff", &mut out), Err(Unsendable));
        assert_eq!(closing(4001, "No \"x\""), b"c[4001,\"No \\\"x\\\"\"]\n");
    }

    #[test]
    fn characters_are_counted_as_javascript_does() {
        for text in ["", "abc", "äöü", "€", "a𝄞b"] {
            let counted = characters(text.as_bytes());
            assert_eq!(counted, text.encode_utf16().count(), "{text}");
        }
        let lines = "ab\nüü\n𝄞\n".as_bytes();
        for (room, fit) in [(0, 3), (2, 3), (3, 8), (5, 8), (6, 13), (100, 13)] {
            assert_eq!(fitting(lines, room), fit, "{room}");
        }
    }
}

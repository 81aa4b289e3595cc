//! What HTTP/1.1 says: a `Request` as the application sees it, a `Response` as it is written, and a
//! `Refusal` of a request that is not to be understood. Knows nothing of connections or of who
//! asks. Invariant: a response is queued whole or not at all, and its Content-Length is true.

use std::borrow::Cow;

use bytes::Bytes;

use crate::base::bytes::{Full, Outbox};
use crate::base::files::FilePart;
use crate::wire::http_date::imf_fixdate;

/// A whole request, borrowed from the bytes it came in. Its head passed every check of
/// `http_head`; a chunked body was decoded.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// In origin-form, or `*` (RFC 9112 section 3.2).
    pub target: &'a str,
    pub body: &'a [u8],
    /// The field lines as they came, each with its CRLF.
    pub lines: &'a [u8],
    /// A WebSocket opening handshake without fault (RFC 6455 section 4.2.1).
    pub websocket: bool,
}

impl<'a> Request<'a> {
    pub fn path(&self) -> &'a str {
        self.target
            .split_once('?')
            .map_or(self.target, |(path, _)| path)
    }

    /// What follows the first `?`; empty when there is none.
    pub fn query(&self) -> &'a str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first field of that name, in any case, without the blanks around it. A value that is
    /// not UTF-8 counts as absent.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// All fields of that name, in order; those that are not UTF-8 left out.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let values = self.raw_headers(name);
        values.filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// All fields of that name, in order, whatever bytes they hold.
    pub fn raw_headers(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.lines.split(|&byte| byte == b'\n');
        lines.filter_map(move |line| {
            let (found, value) = line.split_at_checked(name.len())?;
            let is_it = value.first() == Some(&b':') && found.eq_ignore_ascii_case(name.as_bytes());
            is_it.then(|| value[1..].trim_ascii())
        })
    }

    /// Whether it is answered with an upgrade.
    pub fn wants_websocket(&self) -> bool {
        self.websocket
    }
}

/// An answer, ready but for what the connection adds to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Empty when there is no content.
    pub content_type: &'static str,
    pub body: Bytes,
    /// The body comes from here instead, in pieces, after the head.
    pub file: Option<FilePart>,
    /// Further fields. One with a control character in its value is left out.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl Response {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response {
        Response {
            status,
            content_type,
            body: body.into(),
            file: None,
            headers: Vec::new(),
        }
    }

    pub fn json(status: u16, body: impl Into<Bytes>) -> Response {
        Response::new(status, "application/json", body)
    }

    pub fn text(status: u16, body: impl Into<Bytes>) -> Response {
        Response::new(status, "text/plain; charset=utf-8", body)
    }

    pub fn html(status: u16, body: impl Into<Bytes>) -> Response {
        Response::new(status, "text/html; charset=utf-8", body)
    }

    /// No content at all, such as 204.
    pub fn empty(status: u16) -> Response {
        Response::new(status, "", Bytes::new())
    }

    /// `{"error":message,"code":status}`
    pub fn error(status: u16, message: &str) -> Response {
        let message = serde_json::Value::from(message);
        Response::json(status, format!("{{\"error\":{message},\"code\":{status}}}"))
    }

    pub fn with_header(
        mut self,
        name: &'static str,
        value: impl Into<Cow<'static, str>>,
    ) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// What follows the head in pieces; `None`: nothing does.
    pub fn streamed(&self, without_body: bool) -> Option<FilePart> {
        let bodiless = without_body || self.is_bodiless();
        self.file.filter(|part| !bodiless && part.length > 0)
    }

    /// Whether the application itself asks for the end of the connection.
    pub fn says_close(&self) -> bool {
        self.headers
            .iter()
            .any(|(name, value)| is_connection(name) && value.eq_ignore_ascii_case("close"))
    }

    /// Queues the whole response.
    pub fn write(&self, manner: Manner, out: &mut Outbox) -> Result<(), Full> {
        let body: &[u8] = match manner.without_body || self.is_bodiless() {
            true => &[],
            false => &self.body,
        };
        let mut size = body.len();
        self.head(manner, |piece| size += piece.len());
        out.push_with(size, |tail| {
            self.head(manner, |piece| tail.extend_from_slice(piece));
            tail.extend_from_slice(body);
        })
    }

    /// RFC 9110 section 8.6: 204 has no Content-Length and no content; 304 has no content.
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }

    /// Names every piece of the head in order, so that it is measured and written by one text.
    fn head(&self, manner: Manner, mut piece: impl FnMut(&[u8])) {
        let mut number = itoa::Buffer::new();
        piece(b"HTTP/1.1 ");
        piece(number.format(self.status).as_bytes());
        piece(b" ");
        piece(reason(self.status).as_bytes());
        piece(b"\r\n");
        // RFC 9110 section 6.6.1.
        if manner.unix_seconds > 0 {
            piece(b"Date: ");
            piece(&imf_fixdate(manner.unix_seconds));
            piece(b"\r\n");
        }
        if !self.is_bodiless() && !self.content_type.is_empty() {
            piece(b"Content-Type: ");
            piece(self.content_type.as_bytes());
            piece(b"\r\n");
        }
        if !self.is_bodiless() && !manner.endless {
            piece(b"Content-Length: ");
            let length = self.file.map_or(self.body.len() as u64, |part| part.length);
            piece(number.format(length).as_bytes());
            piece(b"\r\n");
        }
        piece(match manner.connection {
            Connection::Persists => b"",
            Connection::KeepAlive => b"Connection: keep-alive\r\n",
            Connection::Close => b"Connection: close\r\n",
        });
        for (name, value) in &self.headers {
            if is_connection(name) || value.bytes().any(|b| b.is_ascii_control()) {
                continue;
            }
            piece(name.as_bytes());
            piece(b": ");
            piece(value.as_bytes());
            piece(b"\r\n");
        }
        piece(b"\r\n");
    }
}

fn is_connection(name: &str) -> bool {
    name.eq_ignore_ascii_case("connection")
}

/// What the request and the connection decide about the form of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub connection: Connection,
    /// The answer to HEAD tells the length of a body and leaves it out.
    pub without_body: bool,
    /// More of the body follows, of no known length: it ends with the connection (RFC 9112 section
    /// 6.3, rule 8).
    pub endless: bool,
    /// For the Date field. Zero: the clock is not set, and a date must not be made up.
    pub unix_seconds: u64,
}

/// RFC 9112 section 9.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The default of HTTP/1.1; nothing is said.
    Persists,
    /// An HTTP/1.0 client asked for it and must be told.
    KeepAlive,
    Close,
}

/// Why a request is not understood. The connection ends after it, because where the next request
/// would begin is no longer certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub message: &'static str,
}

impl Refusal {
    pub const fn new(status: u16, message: &'static str) -> Refusal {
        Refusal { status, message }
    }

    pub const fn bad(message: &'static str) -> Refusal {
        Refusal::new(400, message)
    }

    pub fn response(&self) -> Response {
        let response = Response::error(self.status, self.message);
        match self.status {
            // RFC 6455 section 4.4: tell which version would do.
            426 => response.with_header("Sec-WebSocket-Version", "13"),
            _ => response,
        }
    }
}

/// Queues the answer that turns the connection into a WebSocket (RFC 6455 section 4.2.2), with the
/// extension that was agreed on.
pub fn write_upgrade(accept: &str, extension: Option<&str>, out: &mut Outbox) -> Result<(), Full> {
    let (name, extension) = match extension {
        Some(extension) => ("\r\nSec-WebSocket-Extensions: ", extension),
        None => ("", ""),
    };
    let pieces = [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Accept: ",
        accept,
        name,
        extension,
        "\r\n\r\n",
    ];
    out.push_with(pieces.iter().map(|piece| piece.len()).sum(), |tail| {
        for piece in pieces {
            tail.extend_from_slice(piece.as_bytes());
        }
    })
}

/// Queues the interim answer to `Expect: 100-continue` (RFC 9110 section 10.1.1).
pub fn write_continue(out: &mut Outbox) -> Result<(), Full> {
    out.push(b"HTTP/1.1 100 Continue\r\n\r\n")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_divide_at_the_first_question_mark() {
        let table = [
            ("/a", "/a", ""),
            ("/a?", "/a", ""),
            ("/a?b=c&d", "/a", "b=c&d"),
            ("/?a?b", "/", "a?b"),
        ];
        for (target, path, query) in table {
            let request = Request {
                method: "GET",
                target,
                body: b"",
                lines: b"Ab: c\r\nA:  first \r\na: second\r\n",
                websocket: false,
            };
            assert_eq!((request.path(), request.query()), (path, query));
            assert_eq!(request.header("a"), Some("first"));
            assert_eq!(request.header("AB"), Some("c"));
            assert_eq!(request.header("b"), None);
            assert_eq!(
                request.headers("A").collect::<Vec<_>>(),
                ["first", "second"]
            );
        }
    }
}

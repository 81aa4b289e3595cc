//! The head of an HTTP/1.1 request: where it ends in bytes that are still arriving, and what it
//! says about the message. httparse reads the syntax; everything it is lenient about, and every
//! rule that keeps two readers from seeing different requests (RFC 9112 section 11.2), is checked
//! here. Knows nothing of what is asked for. Invariant: no byte of a head is scanned twice, however
//! it is cut.

use std::mem::MaybeUninit;
use std::ops::Range;

use memchr::memchr2;

use crate::wire::http::{Refusal, Request};
use crate::wire::http_chunks;

/// More fields than this are answered 431.
const FIELDS_MAX: usize = 100;
/// RFC 9112 section 2.2 asks for at least one empty line before a request to be ignored.
const EMPTY_LINES_MAX: u8 = 2;

/// Whatever is configured: positions within a head are kept in 32 bits.
pub const HEAD_BYTES_MAX: usize = u32::MAX as usize / 2;

/// Lines that end in CRLF, in bytes that keep growing. Each byte is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines {
    /// Where the line that is not whole yet begins.
    line: u32,
    /// Up to here there is no line end.
    seen: u32,
}

impl Lines {
    /// The next whole line, without its CRLF; `None` while it is not whole. RFC 9112 section 2.2
    /// allows a lone LF to end a line; as others may not agree, it is refused like a lone CR.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
        let fresh = bytes.get(self.seen as usize..).unwrap_or_default();
        let Some(offset) = memchr2(b'\r', b'\n', fresh) else {
            self.seen = bytes.len() as u32;
            return Ok(None);
        };
        let end = self.seen as usize + offset;
        self.seen = end as u32;
        match (bytes[end], bytes.get(end + 1)) {
            (b'\r', None) => Ok(None),
            (b'\r', Some(b'\n')) => {
                let line = self.line as usize..end;
                self.line = end as u32 + 2;
                self.seen = self.line;
                Ok(Some(line))
            }
            (b'\r', Some(_)) => Err(Refusal::bad("CR without LF")),
            _ => Err(Refusal::bad("LF without CR")),
        }
    }
}

/// The search for the end of a head.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    lines: Lines,
    empty_lines: u8,
    /// Where the field lines begin; zero while the request line is not whole.
    fields_at: u32,
}

/// A whole head within the bytes it was found in.
#[derive(Clone, Copy, Debug)]
pub struct HeadSpan {
    /// The request line begins here, after empty lines.
    start: usize,
    fields_at: usize,
    pub len: usize,
}

impl HeadScan {
    /// Looks at what arrived since the last call. `bytes` begins where it began before.
    ///
    /// Only the first `head_bytes` are ever looked at, so that the verdict does not depend on how
    /// much arrived at once.
    pub fn find(&mut self, bytes: &[u8], head_bytes: usize) -> Result<Option<HeadSpan>, Refusal> {
        let head_bytes = head_bytes.min(HEAD_BYTES_MAX);
        while self.fields_at == 0 {
            let line_max = self.start() + head_bytes / 2;
            match self.lines.next(&bytes[..bytes.len().min(line_max)])? {
                Some(line) if line.is_empty() => {
                    self.empty_lines += 1;
                    if self.empty_lines > EMPTY_LINES_MAX {
                        return Err(Refusal::bad("Empty lines before the request line"));
                    }
                }
                Some(line) => self.fields_at = line.end as u32 + 2,
                None if bytes.len() >= line_max => {
                    return Err(Refusal::new(414, "Request line is too long"));
                }
                None => return Ok(None),
            }
        }
        let window = &bytes[..bytes.len().min(head_bytes)];
        loop {
            match self.lines.next(window)? {
                Some(line) if line.is_empty() => {
                    return Ok(Some(HeadSpan {
                        start: self.start(),
                        fields_at: self.fields_at as usize,
                        len: line.end + 2,
                    }));
                }
                Some(_) => {}
                None if bytes.len() >= head_bytes => {
                    return Err(Refusal::new(431, "Request head is too long"));
                }
                None => return Ok(None),
            }
        }
    }

    fn start(&self) -> usize {
        usize::from(self.empty_lines) * 2
    }
}

/// How long the body is (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Length(usize),
    Chunked,
}

/// What a whole head says. The words stay in the bytes; this remembers where.
#[derive(Clone, Debug)]
pub struct Head {
    pub len: usize,
    pub body: Body,
    pub persists: bool,
    /// HTTP/1.0, which knows neither chunks nor interim answers.
    pub old: bool,
    /// The method is HEAD.
    pub without_body: bool,
    pub expects_continue: bool,
    /// `Sec-WebSocket-Key` of a WebSocket handshake without fault.
    pub websocket_key: Option<[u8; 24]>,
    method: Range<usize>,
    target: Target,
    fields: Range<usize>,
}

#[derive(Clone, Debug)]
enum Target {
    At(Range<usize>),
    /// Said by an absolute-form without a path.
    Fixed(&'static str),
}

impl Head {
    /// Reads the head that `span` found in `bytes`. A body over `body_bytes` is refused.
    pub fn parse(bytes: &[u8], span: HeadSpan, body_bytes: usize) -> Result<Head, Refusal> {
        let bytes = &bytes[..span.len];
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let head = &bytes[span.start..];
        match parsed.parse_with_uninit_headers(head, &mut fields) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            Ok(_) => return Err(Refusal::bad("Request head ends early")),
            Err(error) => return Err(syntax(error, &bytes[span.start..span.fields_at - 2])),
        }
        let (Some(method), Some(target), Some(minor)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Refusal::bad("Request line is not whole"));
        };
        check_method(method)?;
        let fields = Fields::gather(parsed.headers)?;
        let old = minor == 0;
        let host = fields.host(old)?;
        // httparse takes exactly one space on either side of the target.
        let target_at = span.start + method.len() + 1;
        let body = fields.body(old, body_bytes)?;
        Ok(Head {
            len: span.len,
            body,
            persists: !fields.close && (!old || fields.keep_alive),
            old,
            without_body: method == "HEAD",
            expects_continue: fields.expects_continue(old)?,
            websocket_key: fields.websocket_key(method, old, body)?,
            method: span.start..span.start + method.len(),
            target: locate_target(method, target, target_at, host)?,
            fields: span.fields_at..span.len - 2,
        })
    }

    /// The request in `bytes`: this head and the whole body behind it.
    pub fn request<'a>(&self, bytes: &'a mut [u8]) -> Request<'a> {
        let (head, body) = bytes.split_at_mut(self.len);
        let body = match self.body {
            Body::Length(_) => body,
            Body::Chunked => http_chunks::decode(body),
        };
        let mut target = Target::clone(&self.target);
        if let Target::At(at) = &mut target
            && head[at.start] == b'?'
        {
            // `http://host?query` has an empty path, which means `/`. There is a byte of the
            // authority in front to write it to, and nobody reads that one again.
            at.start -= 1;
            head[at.start] = b'/';
        }
        let head: &'a [u8] = head;
        Request {
            method: ascii(&head[self.method.clone()]),
            target: match target {
                Target::At(at) => ascii(&head[at]),
                Target::Fixed(text) => text,
            },
            body,
            lines: &head[self.fields.clone()],
            websocket: self.websocket_key.is_some(),
        }
    }
}

/// Bytes that were found to be ASCII when the head was parsed.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn syntax(error: httparse::Error, request_line: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(431, "Too many header fields"),
        httparse::Error::Version => {
            // RFC 9112 section 2.3: HTTP-version = "HTTP/" DIGIT "." DIGIT. What looks like ours
            // and was refused is behind a second space.
            let mut words = request_line.split(|&b| b == b' ').skip(2);
            match (words.next(), words.next()) {
                (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
                    if major.is_ascii_digit() && minor.is_ascii_digit() =>
                {
                    Refusal::new(505, "HTTP/1.1 is spoken here")
                }
                _ => Refusal::bad("Invalid HTTP version"),
            }
        }
        httparse::Error::HeaderName => Refusal::bad("Invalid header name"),
        httparse::Error::HeaderValue => Refusal::bad("Invalid header value"),
        _ => Refusal::bad("Invalid request line"),
    }
}

/// RFC 9110 section 9.1: an unknown method is answered 501. CONNECT and TRACE are known and offered
/// nowhere; TRACE would show a page what its browser hides from it.
fn check_method(method: &str) -> Result<(), Refusal> {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS" => Ok(()),
        _ => Err(Refusal::new(501, "Method is not implemented")),
    }
}

/// RFC 9112 section 3.2. `at` is where the target begins among the bytes of the head.
fn locate_target(
    method: &str,
    target: &str,
    at: usize,
    host: Option<&str>,
) -> Result<Target, Refusal> {
    // httparse lets UTF-8 pass. A fragment is never sent; a backslash is a slash to some readers.
    // Looked at without leaving early, so that the compiler takes many bytes at once.
    let misplaced = |found, b: u8| found | !b.is_ascii() | (b == b'#') | (b == b'\\');
    if target.bytes().fold(false, misplaced) {
        return Err(Refusal::bad("Invalid character in the request target"));
    }
    if target.starts_with('/') {
        return Ok(Target::At(at..at + target.len()));
    }
    if target == "*" {
        return match method {
            "OPTIONS" => Ok(Target::Fixed("*")),
            _ => Err(Refusal::bad("Target * is for OPTIONS only")),
        };
    }
    let invalid = Err(Refusal::bad("Invalid request target"));
    let Some((scheme, rest)) = target.split_once("://") else {
        return invalid;
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return invalid;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, origin) = rest.split_at(end);
    if !is_authority(authority) {
        return invalid;
    }
    if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
        return Err(Refusal::bad("Host differs from the request target"));
    }
    let end = at + target.len();
    Ok(match (origin, method) {
        // RFC 9112 section 3.2.4.
        ("", "OPTIONS") => Target::Fixed("*"),
        ("", _) => Target::Fixed("/"),
        _ => Target::At(end - origin.len()..end),
    })
}

/// `host [":" port]` (RFC 9110 section 7.2), with the letters that hosts in use have: the commas
/// and other delimiters that RFC 3986 would allow divide lists elsewhere.
fn is_authority(text: &str) -> bool {
    let (host_is_fine, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let fine = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
                (!address.is_empty() && address.bytes().all(fine), port)
            }
            None => (false, ""),
        },
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            (!host.is_empty() && host.bytes().all(fine), port)
        }
    };
    let port_is_fine = match port.strip_prefix(':') {
        Some(digits) => {
            digits.bytes().all(|b| b.is_ascii_digit())
                && (digits.is_empty() || digits.parse::<u16>().is_ok())
        }
        None => port.is_empty(),
    };
    host_is_fine && port_is_fine
}

/// The fields that decide about the message and the connection.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade_websocket: bool,
    expect: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn gather(headers: &[httparse::Header<'a>]) -> Result<Fields<'a>, Refusal> {
        let mut fields = Fields::default();
        for header in headers {
            // The length tells most names apart before any letter is compared.
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let value = header.value;
            match header.name.len() {
                4 if is("Host") => once(&mut fields.host, value, "More than one Host")?,
                6 if is("Expect") => once(&mut fields.expect, value, "More than one Expect")?,
                7 if is("Upgrade") => {
                    fields.upgrade_websocket |= tokens(value).any(|t| same(t, "websocket"));
                }
                10 if is("Connection") => fields.connection(value),
                14 if is("Content-Length") => {
                    once(
                        &mut fields.content_length,
                        value,
                        "More than one Content-Length",
                    )?;
                }
                17 if is("Transfer-Encoding") => {
                    let twice = "More than one Transfer-Encoding";
                    once(&mut fields.transfer_encoding, value, twice)?;
                }
                17 if is("Sec-WebSocket-Key") => {
                    once(&mut fields.key, value, "More than one Sec-WebSocket-Key")?;
                }
                21 if is("Sec-WebSocket-Version") => {
                    once(
                        &mut fields.version,
                        value,
                        "More than one Sec-WebSocket-Version",
                    )?;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn connection(&mut self, value: &[u8]) {
        for token in tokens(value) {
            self.close |= same(token, "close");
            self.keep_alive |= same(token, "keep-alive");
            self.connection_upgrade |= same(token, "upgrade");
        }
    }

    /// RFC 9112 section 3.2: required in HTTP/1.1, valid wherever it is sent.
    fn host(&self, old: bool) -> Result<Option<&'a str>, Refusal> {
        let Some(host) = self.host else {
            return match old {
                true => Ok(None),
                false => Err(Refusal::bad("Host is missing")),
            };
        };
        match std::str::from_utf8(host) {
            Ok(host) if is_authority(host) => Ok(Some(host)),
            _ => Err(Refusal::bad("Invalid Host")),
        }
    }

    /// RFC 9112 sections 6.1 to 6.3, without any of the repairs they allow.
    fn body(&self, old: bool, body_bytes: usize) -> Result<Body, Refusal> {
        match (self.transfer_encoding, self.content_length) {
            (Some(_), Some(_)) => Err(Refusal::bad("Content-Length with Transfer-Encoding")),
            (Some(_), None) if old => Err(Refusal::bad("Transfer-Encoding in HTTP/1.0")),
            (Some(coding), None) => check_coding(coding).map(|()| Body::Chunked),
            (None, Some(digits)) => {
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(Refusal::bad("Invalid Content-Length"));
                }
                let length = ascii(digits).parse::<u64>();
                let length = length.map_err(|_| Refusal::bad("Invalid Content-Length"))?;
                match usize::try_from(length) {
                    Ok(length) if length <= body_bytes => Ok(Body::Length(length)),
                    _ => Err(Refusal::new(413, "Request body is too long")),
                }
            }
            (None, None) => Ok(Body::Length(0)),
        }
    }

    /// RFC 9110 section 10.1.1; an HTTP/1.0 client cannot expect anything.
    fn expects_continue(&self, old: bool) -> Result<bool, Refusal> {
        match self.expect {
            Some(_) if old => Ok(false),
            Some(value) if same(value, "100-continue") => Ok(true),
            Some(_) => Err(Refusal::new(417, "Expectation is not known")),
            None => Ok(false),
        }
    }

    /// RFC 6455 section 4.2.1. A request that does not ask for a WebSocket in full is an ordinary
    /// one, whatever else it offers to upgrade to (RFC 9110 section 7.8).
    fn websocket_key(
        &self,
        method: &str,
        old: bool,
        body: Body,
    ) -> Result<Option<[u8; 24]>, Refusal> {
        let asked = method == "GET" && !old && self.connection_upgrade && self.upgrade_websocket;
        if !asked {
            return Ok(None);
        }
        if self.version != Some(b"13") {
            return Err(Refusal::new(426, "WebSocket version 13 is spoken here"));
        }
        if body != Body::Length(0) {
            return Err(Refusal::bad("WebSocket handshake with a body"));
        }
        // Base64 of 16 bytes: 22 letters and two signs of padding.
        let key = self.key.and_then(|key| <[u8; 24]>::try_from(key).ok());
        let letter = |b: &u8| b.is_ascii_alphanumeric() || *b == b'+' || *b == b'/';
        match key {
            Some(key) if key[..22].iter().all(letter) && key[22..] == *b"==" => Ok(Some(key)),
            _ => Err(Refusal::bad("Invalid Sec-WebSocket-Key")),
        }
    }
}

/// Fields of which a second one, even with the same value, leaves open which one counts.
fn once<'a>(
    slot: &mut Option<&'a [u8]>,
    value: &'a [u8],
    twice: &'static str,
) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::bad(twice)),
    }
}

fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(<[u8]>::trim_ascii)
}

fn same(token: &[u8], name: &str) -> bool {
    token.eq_ignore_ascii_case(name.as_bytes())
}

/// Of what names in fields are made (RFC 9110 section 5.6.2).
pub(super) fn is_token_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// `chunked` and nothing else (RFC 9112 section 6.1). Well-formed codings that are not known are
/// answered 501; a list that is broken, or has `chunked` anywhere but once at its end, 400.
fn check_coding(value: &[u8]) -> Result<(), Refusal> {
    if same(value, "chunked") {
        return Ok(());
    }
    let count = tokens(value).count();
    for (index, token) in tokens(value).enumerate() {
        let misplaced = same(token, "chunked") && index + 1 != count;
        if token.is_empty() || misplaced || !token.iter().all(is_token_byte) {
            return Err(Refusal::bad("Invalid Transfer-Encoding"));
        }
    }
    Err(Refusal::new(501, "Transfer-Encoding is not known"))
}

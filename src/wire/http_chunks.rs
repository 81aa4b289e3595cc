//! Chunked bodies (RFC 9112 section 7.1): measured while they arrive, decoded in place once they
//! are whole. Knows nothing of the request around them. Invariant: `decode` is given only what
//! `Chunks` found whole, and what `Chunks` accepts has one reading.

use crate::wire::http::Refusal;
use crate::wire::http_head::{HEAD_BYTES_MAX, Lines, is_token_byte};

/// A chunk's size and its extensions, with the CRLF. No extension is known to us.
const SIZE_LINE_BYTES: usize = 256;
const TRAILER_FIELDS_MAX: usize = 100;

/// What a chunked body may be.
#[derive(Clone, Copy, Debug)]
pub struct ChunkLimits {
    /// The decoded body. The framing around it may weigh as much again, so that a body in tiny
    /// chunks or with long extensions cannot take more memory than that.
    pub body_bytes: usize,
    pub trailer_bytes: usize,
}

/// How far a chunked body has arrived.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chunks {
    /// The next size line begins here; after the last chunk, the trailer section.
    at: usize,
    decoded: usize,
    trailers: Option<Lines>,
}

impl Chunks {
    /// Looks at what arrived since the last call; `bytes` begins with the body. Returns the
    /// encoded length once the body is whole.
    pub fn measure(&mut self, bytes: &[u8], limits: ChunkLimits) -> Result<Option<usize>, Refusal> {
        while self.trailers.is_none() {
            let Some(line) = SizeLine::parse(&bytes[self.at..])? else {
                return Ok(None);
            };
            let data = self.at + line.len;
            if line.size == 0 {
                self.at = data;
                self.trailers = Some(Lines::default());
                break;
            }
            let room = limits.body_bytes - self.decoded.min(limits.body_bytes);
            let framing = data - self.decoded;
            let size = match usize::try_from(line.size) {
                Ok(size)
                    if size <= room
                        && framing <= limits.body_bytes.saturating_add(SIZE_LINE_BYTES) =>
                {
                    size
                }
                _ => return Err(Refusal::new(413, "Request body is too long")),
            };
            let end = data.saturating_add(size);
            match bytes.get(end..) {
                None | Some([]) | Some([b'\r']) => return Ok(None),
                Some([b'\r', b'\n', ..]) => {}
                Some(_) => return Err(Refusal::bad("Chunk is longer than its size")),
            }
            self.at = end + 2;
            self.decoded += size;
        }
        self.measure_trailers(bytes, limits)
    }

    /// Trailer fields are read for their syntax and dropped.
    fn measure_trailers(
        &mut self,
        bytes: &[u8],
        limits: ChunkLimits,
    ) -> Result<Option<usize>, Refusal> {
        let section = &bytes[self.at..];
        let trailer_bytes = limits.trailer_bytes.min(HEAD_BYTES_MAX);
        let window = &section[..section.len().min(trailer_bytes)];
        let lines = self.trailers.get_or_insert_default();
        loop {
            match lines.next(window)? {
                Some(line) if line.is_empty() => {
                    check_trailers(&section[..line.end + 2])?;
                    return Ok(Some(self.at + line.end + 2));
                }
                Some(_) => {}
                None if section.len() >= trailer_bytes => {
                    return Err(Refusal::new(431, "Trailer section is too long"));
                }
                None => return Ok(None),
            }
        }
    }
}

fn check_trailers(section: &[u8]) -> Result<(), Refusal> {
    if section == b"\r\n" {
        return Ok(());
    }
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((len, _))) if len == section.len() => Ok(()),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::new(431, "Too many trailer fields")),
        _ => Err(Refusal::bad("Invalid trailer section")),
    }
}

struct SizeLine {
    size: u64,
    /// With the CRLF.
    len: usize,
}

impl SizeLine {
    /// `1*HEXDIG [ ";" … ] CRLF`, and no blank, sign or prefix beside the digits. `None` while the
    /// line is not whole.
    fn parse(bytes: &[u8]) -> Result<Option<SizeLine>, Refusal> {
        const INVALID: Refusal = Refusal::bad("Invalid chunk size");
        let digits = bytes
            .iter()
            .take(17)
            .take_while(|b| b.is_ascii_hexdigit())
            .count();
        if digits > 16 {
            return Err(INVALID);
        }
        let Some(after) = bytes.get(digits) else {
            return Ok(None);
        };
        if digits == 0 || !matches!(after, b'\r' | b';') {
            return Err(INVALID);
        }
        let window = &bytes[..bytes.len().min(SIZE_LINE_BYTES)];
        let Some(end) = window[digits..].iter().position(|b| !is_extension(*b)) else {
            return match bytes.len() >= SIZE_LINE_BYTES {
                true => Err(Refusal::bad("Chunk extension is too long")),
                false => Ok(None),
            };
        };
        let end = digits + end;
        match window[end..] {
            [b'\r'] if end + 1 == SIZE_LINE_BYTES => {
                Err(Refusal::bad("Chunk extension is too long"))
            }
            [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] if extension_is_well_formed(&window[digits..end]) => {
                let hex = std::str::from_utf8(&window[..digits]).map_err(|_| INVALID)?;
                let size = u64::from_str_radix(hex, 16).map_err(|_| INVALID)?;
                Ok(Some(SizeLine { size, len: end + 2 }))
            }
            _ => Err(Refusal::bad("Invalid chunk extension")),
        }
    }
}

fn is_extension(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// RFC 9112 section 7.1.1: `*( ";" name [ "=" ( token / quoted-string ) ] )`, blanks between. A
/// quotation mark that is never closed would hide the end of the line from a reader who looks for
/// another one.
fn extension_is_well_formed(extension: &[u8]) -> bool {
    let mut rest = extension;
    while let Some(named) = rest.strip_prefix(b";") {
        let Some(after) = behind_token(named.trim_ascii_start()) else {
            return false;
        };
        rest = after.trim_ascii_start();
        if let Some(value) = rest.strip_prefix(b"=") {
            let value = value.trim_ascii_start();
            let Some(after) = behind_quoted(value).or_else(|| behind_token(value)) else {
                return false;
            };
            rest = after.trim_ascii_start();
        }
    }
    rest.is_empty()
}

/// RFC 9110 section 5.6.2.
fn behind_token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|b| is_token_byte(b)).count();
    (length > 0).then(|| &text[length..])
}

/// RFC 9110 section 5.6.4.
fn behind_quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => return None,
        };
    }
}

/// Moves the data of a whole chunked body to its front and returns it.
pub fn decode(bytes: &mut [u8]) -> &mut [u8] {
    let mut at = 0;
    let mut decoded = 0;
    while let Ok(Some(line)) = SizeLine::parse(&bytes[at..]) {
        let size = line.size as usize;
        if size == 0 {
            break;
        }
        let data = at + line.len;
        bytes.copy_within(data..data + size, decoded);
        decoded += size;
        at = data + size + 2;
    }
    &mut bytes[..decoded]
}

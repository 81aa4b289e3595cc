//! WebSocket as a client sees it (RFC 6455): the upgrade request and the check
//! of its answer, masked frames out, frames in.
//!
//! Written apart from the server's own code on purpose, so that a mistake made
//! there is not made here as well. It keeps no state: bytes in, values out.

use std::ops::Range;

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY};
use data_encoding::BASE64;

use crate::Fallible;

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// The key every connection of a run sends. It need not be a secret: it only
/// proves that the server read the request (RFC 6455, section 1.3).
pub const KEY: &str = "bGluZW1hbi1sb2FkLWdlbg==";
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// One frame found at the start of a buffer.
pub struct Frame {
    pub opcode: u8,
    pub mask: Option<[u8; 4]>,
    /// Where the payload lies in the buffer.
    pub payload: Range<usize>,
}

impl Frame {
    /// Bytes of the whole frame, header included.
    pub fn len(&self) -> usize {
        self.payload.end
    }
}

/// The value of `Sec-WebSocket-Accept` that answers `key`.
pub fn accept_for(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(MAGIC.as_bytes());
    BASE64.encode(hash.finish().as_ref())
}

/// The request that asks for an upgrade of `path`.
pub fn upgrade_request(path: &str, host: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Checks the answer to an upgrade; `None` while its head is incomplete,
/// otherwise the length of the head.
pub fn check_upgrade(bytes: &[u8], accept: &str) -> Fallible<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes)? else {
        return Ok(None);
    };
    if response.code != Some(101) {
        let head = String::from_utf8_lossy(&bytes[..length.min(200)]);
        return Err(format!("upgrade refused: {}", head.trim_end()).into());
    }
    let has = |name: &str, value: &str, exact: bool| {
        response.headers.iter().any(|header| {
            let text = header.value;
            header.name.eq_ignore_ascii_case(name)
                && (text == value.as_bytes()
                    || !exact && text.eq_ignore_ascii_case(value.as_bytes()))
        })
    };
    if !has("upgrade", "websocket", false) || !has("connection", "upgrade", false) {
        return Err("101 without the Upgrade and Connection headers".into());
    }
    if !has("sec-websocket-accept", accept, true) {
        return Err("101 with a wrong Sec-WebSocket-Accept".into());
    }
    Ok(Some(length))
}

/// The frame at the start of `bytes`, or `None` while it is incomplete.
pub fn parse_frame(bytes: &[u8]) -> Fallible<Option<Frame>> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err("frame with a reserved bit set, though no extension was agreed".into());
    }
    if first & 0x80 == 0 {
        return Err("fragmented message: not expected by this generator".into());
    }
    let (length, used) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (127, _) if rest.len() >= 8 => {
            let wide = u64::from_be_bytes(rest[..8].try_into()?);
            (usize::try_from(wide)?, 10)
        }
        (126 | 127, _) => return Ok(None),
        (short, _) => (usize::from(short), 2),
    };
    let (mask, start) = if second & 0x80 == 0 {
        (None, used)
    } else if let Some(key) = bytes.get(used..used + 4) {
        (Some(key.try_into()?), used + 4)
    } else {
        return Ok(None);
    };
    let end = start.checked_add(length).ok_or("frame length overflows")?;
    if bytes.len() < end {
        return Ok(None);
    }
    Ok(Some(Frame {
        opcode: first & 0x0f,
        mask,
        payload: start..end,
    }))
}

/// Appends one masked frame with the concatenation of `parts` as its payload.
pub fn write_masked(out: &mut Vec<u8>, opcode: u8, parts: &[&[u8]], key: [u8; 4]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    write_header(out, opcode, length, 0x80);
    out.extend_from_slice(&key);
    let start = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    apply_mask(&mut out[start..], key);
}

/// Appends one unmasked frame, as a server sends it.
pub fn write_unmasked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    write_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Masks, or unmasks, `bytes` in place; a word at a time, because this is the
/// only work of the client that grows with the message.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let value = u64::from_ne_bytes((&*word).try_into().expect("eight bytes")) ^ wide;
        word.copy_from_slice(&value.to_ne_bytes());
    }
    for (index, byte) in words.into_remainder().iter_mut().enumerate() {
        *byte ^= key[index & 3];
    }
}

fn write_header(out: &mut Vec<u8>, opcode: u8, length: usize, masked: u8) {
    out.push(0x80 | opcode);
    if length < 126 {
        out.push(masked | length as u8);
    } else if let Ok(short) = u16::try_from(length) {
        out.push(masked | 126);
        out.extend_from_slice(&short.to_be_bytes());
    } else {
        out.push(masked | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

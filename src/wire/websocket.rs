//! WebSocket frames (RFC 6455 section 5) as bytes: headers read and written with tungstenite's
//! parts, payloads masked and unmasked, whole frames encoded once for all who receive them. Knows
//! nothing of messages or of a connection. Invariant: a header that `Header::parse` returns obeys
//! every rule that can be told from one header alone.

use std::io::Cursor;

use bytes::Bytes;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::CloseCode;
pub use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::base::bytes::{Full, Outbox};
use crate::base::close::Violation;

pub const TEXT: OpCode = OpCode::Data(Data::Text);
pub const BINARY: OpCode = OpCode::Data(Data::Binary);
pub const CONTINUATION: OpCode = OpCode::Data(Data::Continue);
pub const CLOSE: OpCode = OpCode::Control(Control::Close);
pub const PING: OpCode = OpCode::Control(Control::Ping);
pub const PONG: OpCode = OpCode::Control(Control::Pong);

/// The payload of a control frame is no longer (RFC 6455 section 5.5).
pub const CONTROL_BYTES: usize = 125;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    derive_accept_key(key)
}

/// Which end of a connection we are: the client masks its frames, the server does not (RFC 6455
/// section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// The header of a frame from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub opcode: OpCode,
    pub is_final: bool,
    /// The message that begins is compressed (RFC 7692 section 6).
    pub is_deflated: bool,
    /// All zeros from a server, which changes nothing.
    pub mask: [u8; 4],
    /// Of the payload. May be larger than memory.
    pub length: u64,
    /// Of the header itself.
    pub len: usize,
}

impl Header {
    /// Reads a header from the front of `bytes`; `None` while it is not whole. `deflate`: messages
    /// may be compressed. `role` is ours.
    pub fn parse(bytes: &[u8], deflate: bool, role: Role) -> Result<Option<Header>, Violation> {
        let mut cursor = Cursor::new(bytes);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(None),
            // Sections 5.2: opcodes 3–7 and 11–15 are reserved.
            Err(_) => return Err(Violation::Protocol("Reserved opcode")),
        };
        let len = cursor.position() as usize;
        // RFC 7692 section 6.1: the first frame of a message tells for all of it.
        let begins = matches!(header.opcode, TEXT | BINARY);
        // No extension was agreed on that could give the bits a meaning here (section 5.2).
        if (header.rsv1 && !(deflate && begins)) || header.rsv2 || header.rsv3 {
            return Err(Violation::Protocol("Reserved bits are set"));
        }
        // Section 5.1.
        let mask = match (role, header.mask) {
            (Role::Server, Some(mask)) => mask,
            (Role::Server, None) => return Err(Violation::Protocol("Frame is not masked")),
            (Role::Client, None) => [0; 4],
            (Role::Client, Some(_)) => return Err(Violation::Protocol("Frame is masked")),
        };
        // Section 5.2: the most significant bit is 0, and the shortest encoding is used.
        if length > i64::MAX as u64 {
            return Err(Violation::Protocol("Length has its top bit set"));
        }
        if len != header.len(length) {
            return Err(Violation::Protocol("Length is not encoded minimally"));
        }
        if matches!(header.opcode, OpCode::Control(_)) {
            // Section 5.5.
            if length > CONTROL_BYTES as u64 {
                return Err(Violation::Protocol("Control frame is too long"));
            }
            if !header.is_final {
                return Err(Violation::Protocol("Control frame is fragmented"));
            }
        }
        Ok(Some(Header {
            opcode: header.opcode,
            is_final: header.is_final,
            is_deflated: header.rsv1,
            mask,
            length,
            len,
        }))
    }
}

/// A text frame as every receiver gets it.
pub fn text_frame(payload: &str) -> Bytes {
    frame(TEXT, payload.as_bytes())
}

/// A whole frame from the server: final, not masked.
pub fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let header = server_header(opcode);
    let mut bytes = Vec::with_capacity(header.len(payload.len() as u64) + payload.len());
    write_frame(&header, payload, &mut bytes);
    Bytes::from(bytes)
}

/// The same for a payload that was compressed.
pub fn deflated_frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let header = deflated_header(opcode);
    let mut bytes = Vec::with_capacity(header.len(payload.len() as u64) + payload.len());
    write_frame(&header, payload, &mut bytes);
    Bytes::from(bytes)
}

/// Queues a whole frame of a compressed payload.
pub fn push_deflated(out: &mut Outbox, opcode: OpCode, payload: &[u8]) -> Result<(), Full> {
    let header = deflated_header(opcode);
    let size = header.len(payload.len() as u64) + payload.len();
    out.push_with(size, |tail| write_frame(&header, payload, tail))
}

/// The payload of a whole frame that `frame` made, to be looked at by tests.
#[cfg(test)]
pub fn payload(frame: &[u8]) -> &[u8] {
    let header_len = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(header_len..).unwrap_or_default()
}

/// Queues a whole frame.
pub fn push_frame(out: &mut Outbox, opcode: OpCode, payload: &[u8]) -> Result<(), Full> {
    let header = server_header(opcode);
    let size = header.len(payload.len() as u64) + payload.len();
    out.push_with(size, |tail| write_frame(&header, payload, tail))
}

fn server_header(opcode: OpCode) -> FrameHeader {
    FrameHeader {
        opcode,
        ..FrameHeader::default()
    }
}

fn deflated_header(opcode: OpCode) -> FrameHeader {
    FrameHeader {
        rsv1: true,
        ..server_header(opcode)
    }
}

fn write_frame(header: &FrameHeader, payload: &[u8], bytes: &mut Vec<u8>) {
    header
        .format(payload.len() as u64, bytes)
        .expect("a vector takes every byte");
    bytes.extend_from_slice(payload);
}

/// Queues a whole frame as a client sends it.
pub fn push_masked(
    out: &mut Outbox,
    opcode: OpCode,
    mask: [u8; 4],
    payload: &[u8],
) -> Result<(), Full> {
    let header = masked_header(opcode, true, mask);
    let size = header.len(payload.len() as u64) + payload.len();
    out.push_with(size, |tail| write_masked(&header, mask, payload, tail))
}

/// A frame as a client sends it: for tests and the simulation.
pub fn client_frame(opcode: OpCode, is_final: bool, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let header = masked_header(opcode, is_final, mask);
    let mut bytes = Vec::with_capacity(header.len(payload.len() as u64) + payload.len());
    write_masked(&header, mask, payload, &mut bytes);
    bytes
}

fn masked_header(opcode: OpCode, is_final: bool, mask: [u8; 4]) -> FrameHeader {
    FrameHeader {
        is_final,
        mask: Some(mask),
        ..server_header(opcode)
    }
}

fn write_masked(header: &FrameHeader, mask: [u8; 4], payload: &[u8], bytes: &mut Vec<u8>) {
    write_frame(header, payload, bytes);
    let payload_at = bytes.len() - payload.len();
    unmask(&mut bytes[payload_at..], mask, 0);
}

/// Masks or unmasks a part of a payload that begins `offset` bytes into it (RFC 6455 section 5.3).
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    if mask == [0; 4] {
        return;
    }
    let word = u32::from_le_bytes(mask).rotate_right(8 * (offset % 4) as u32);
    let key = word.to_le_bytes();
    let wide = u64::from(word) << 32 | u64::from(word);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_le_bytes(*bytes) ^ wide).to_le_bytes();
    }
    for (place, byte) in rest.iter_mut().enumerate() {
        *byte ^= key[place % 4];
    }
}

/// The payload of a Close frame. A text that is too long is cut between two characters.
pub fn close_payload(code: u16, text: &str) -> Vec<u8> {
    let mut end = text.len().min(CONTROL_BYTES - 2);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&text.as_bytes()[..end]);
    payload
}

/// The code in a Close frame of a peer, if it has one (RFC 6455 sections 5.5.1 and 7.4).
pub fn parse_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Protocol("Close code is cut off")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !CloseCode::from(code).is_allowed() {
                return Err(Violation::Protocol("Close code is not allowed"));
            }
            match simdutf8::basic::from_utf8(reason) {
                Ok(_) => Ok(Some(code)),
                Err(_) => Err(Violation::NotUtf8),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        let accept = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn unmasking_in_parts_equals_unmasking_at_once() {
        let plain: Vec<u8> = (0..100).collect();
        let mask = [0xa1, 0xb2, 0xc3, 0xd4];
        let masked: Vec<u8> = plain
            .iter()
            .zip(mask.iter().cycle())
            .map(|(b, m)| b ^ m)
            .collect();
        for first in 0..40 {
            for second in first..60 {
                let mut bytes = masked.clone();
                unmask(&mut bytes[..first], mask, 0);
                unmask(&mut bytes[first..second], mask, first);
                unmask(&mut bytes[second..], mask, second);
                assert_eq!(bytes, plain, "{first} {second}");
            }
        }
    }

    #[test]
    fn frames_of_every_length_class_are_read_back() {
        for size in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![7; size];
            let bytes = client_frame(BINARY, true, [1, 2, 3, 4], &payload);
            let header = Header::parse(&bytes, false, Role::Server);
            let header = header.expect("valid").expect("whole");
            assert_eq!((header.opcode, header.length), (BINARY, size as u64));
            assert_eq!(bytes.len(), header.len + size);
            for cut in 0..header.len {
                assert_eq!(Header::parse(&bytes[..cut], false, Role::Server), Ok(None));
            }
            let mut out = Outbox::new(1 << 20);
            push_frame(&mut out, BINARY, &payload).expect("room");
            assert_eq!(out.len(), frame(BINARY, &payload).len());
            assert_eq!(super::payload(&frame(BINARY, &payload)), payload);
            let mut out = Outbox::new(1 << 20);
            push_masked(&mut out, BINARY, [1, 2, 3, 4], &payload).expect("room");
            assert_eq!(out.front(bytes.len()), bytes);
        }
        assert_eq!(&text_frame("hi")[..], b"\x81\x02hi");
    }

    #[test]
    fn each_role_refuses_the_frames_of_its_own_kind() {
        let masked = client_frame(TEXT, true, [1, 2, 3, 4], b"hi");
        let plain = text_frame("hi");
        let parse = |bytes: &[u8], role| Header::parse(bytes, false, role).map(|it| it.is_some());
        assert_eq!(parse(&masked, Role::Server), Ok(true));
        assert_eq!(parse(&plain, Role::Client), Ok(true));
        let unmasked = Violation::Protocol("Frame is not masked");
        assert_eq!(parse(&plain, Role::Server), Err(unmasked));
        let over = Violation::Protocol("Frame is masked");
        assert_eq!(parse(&masked, Role::Client), Err(over));
    }

    #[test]
    fn a_close_text_is_cut_between_characters() {
        assert_eq!(close_payload(1000, ""), [3, 232]);
        let payload = close_payload(4000, &"ä".repeat(100));
        assert_eq!(payload.len(), 2 + 122);
        assert_eq!(parse_close(&payload), Ok(Some(4000)));
        assert_eq!(close_payload(4000, &"a".repeat(200)).len(), CONTROL_BYTES);
    }
}

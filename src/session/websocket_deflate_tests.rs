//! Compressed messages (RFC 7692) as a connection meets them.

use super::tests::{Client, MASK, OPTIONS, at};
use super::*;
use crate::base::dice::Dice;
use crate::wire::deflate::Compressor;
use crate::wire::websocket::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame, close_payload, frame,
};

/// "Hello" (RFC 7692 section 7.2.3.1).
const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
/// The same once "Hello" went by (section 7.2.3.2).
const AGAIN: &[u8] = &[0xf2, 0x00, 0x11, 0x00, 0x00];

fn client(context_bits: Option<u8>) -> Client {
    let mut client = Client::new();
    client.socket = WebSocket::new(at(0)).with_deflate(context_bits);
    client
}

fn plain(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    client_frame(opcode, is_final, MASK, payload)
}

/// With the first reserved bit.
fn marked(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = plain(opcode, is_final, payload);
    bytes[0] |= 0x40;
    bytes
}

fn check(context_bits: Option<u8>, input: &[u8], events: &[&str], output: &[u8]) {
    for size in [input.len(), 1, 2, 7] {
        let mut client = client(context_bits);
        for piece in input.chunks(size) {
            client.send(piece, at(0));
        }
        assert_eq!(client.events, events, "in pieces of {size}");
        assert_eq!(client.output(), output, "in pieces of {size}");
    }
}

fn check_violation(input: &[u8], violation: Violation, code: u16, text: &str) {
    let event = format!("{:?}", Close::Violation(violation));
    let said = frame(CLOSE, &close_payload(code, text));
    check(Some(15), input, &[&event], &said);
}

#[test]
fn compressed_and_plain_messages_mix() {
    let input = [
        marked(TEXT, true, HELLO),
        plain(TEXT, true, b"plain"),
        marked(BINARY, true, AGAIN),
        marked(TEXT, true, &[0]),
        // A final block, and another after it (section 7.2.3.4).
        marked(
            TEXT,
            true,
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ),
        marked(TEXT, true, AGAIN),
    ]
    .concat();
    let binary = format!("binary {:?}", b"Hello");
    let events = [
        "text Hello",
        "text plain",
        &binary,
        "text ",
        "text Hello",
        "text Hello",
    ];
    check(Some(15), &input, &events, b"");
}

#[test]
fn control_frames_come_between_the_fragments_of_a_compressed_message() {
    let input = [
        marked(TEXT, false, &HELLO[..3]),
        plain(PING, true, b"?"),
        plain(CONTINUATION, false, b""),
        plain(PONG, true, b""),
        plain(CONTINUATION, true, &HELLO[3..]),
        marked(TEXT, false, b""),
        plain(CONTINUATION, true, AGAIN),
    ]
    .concat();
    let events = ["text Hello", "text Hello"];
    check(Some(9), &input, &events, &frame(PONG, b"?"));
}

#[test]
fn the_bit_marks_the_first_frame_of_a_message_only() {
    let bits = "Reserved bits are set";
    let wrong = [
        [marked(TEXT, false, HELLO), marked(CONTINUATION, true, b"")].concat(),
        [plain(TEXT, false, b"a"), marked(CONTINUATION, true, HELLO)].concat(),
        marked(PING, true, b""),
        marked(PONG, true, HELLO),
        marked(CLOSE, true, b""),
    ];
    for input in wrong {
        check_violation(&input, Violation::Protocol(bits), 1002, bits);
    }
    for other in [0x20, 0x10] {
        let mut input = marked(TEXT, true, HELLO);
        input[0] |= other;
        check_violation(&input, Violation::Protocol(bits), 1002, bits);
    }
}

#[test]
fn nothing_refers_to_earlier_messages_unless_it_was_agreed_on() {
    let input = [marked(TEXT, true, HELLO), marked(TEXT, true, AGAIN)].concat();
    let garbled = "Compressed message is garbled";
    let event = format!("{:?}", Close::Violation(Violation::Protocol(garbled)));
    let said = frame(CLOSE, &close_payload(1002, garbled));
    check(None, &input, &["text Hello", &event], &said);
    check_violation(
        &marked(TEXT, true, &[0xff; 9]),
        Violation::Protocol(garbled),
        1002,
        garbled,
    );
}

fn compressed(message: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(15);
    compressor.compress(message).expect("smaller").to_vec()
}

#[test]
fn a_bomb_is_stopped_by_what_it_would_become() {
    let fits = vec![b'a'; OPTIONS.message_bytes];
    let text = format!("text {}", "a".repeat(OPTIONS.message_bytes));
    let input = marked(TEXT, true, &compressed(&fits));
    check(Some(15), &input, &[&text], b"");
    let too_big = "Message is too big";
    for size in [OPTIONS.message_bytes + 1, 30_000_000] {
        let bomb = compressed(&vec![b'a'; size]);
        check_violation(&marked(TEXT, true, &bomb), Violation::TooBig, 1009, too_big);
        let (front, back) = bomb.split_at(bomb.len() / 2);
        let input = [
            marked(BINARY, false, front),
            plain(CONTINUATION, true, back),
        ]
        .concat();
        check_violation(&input, Violation::TooBig, 1009, too_big);
    }
    // Empty blocks become nothing, and still have an end.
    let empty = [0x00, 0x00, 0x00, 0xff, 0xff].repeat(100);
    let endless: Vec<u8> = std::iter::once(marked(TEXT, false, &empty))
        .chain((0..10).map(|_| plain(CONTINUATION, false, &empty)))
        .flatten()
        .collect();
    check_violation(&endless, Violation::TooBig, 1009, too_big);
}

#[test]
fn inflated_text_fails_with_the_byte_that_makes_it_certain() {
    // A stored block, so that each byte comes out as it goes in.
    let payload = [&[0x00, 0x06, 0x00, 0xf9, 0xff][..], b"ab\xed\xa0xy"].concat();
    let input = marked(TEXT, false, &payload);
    let certain = input.len() - 2;
    let mut client = client(Some(15));
    client.send(&input[..certain - 1], at(0));
    assert!(client.events.is_empty());
    client.send(&input[certain - 1..certain], at(0));
    assert_eq!(client.events, ["Violation(NotUtf8)"]);
    // A character divided between two frames, and one that is never whole.
    let stored = |text: &[u8]| {
        let size = text.len() as u8;
        [&[0x00, size, 0, !size, 0xff][..], text].concat()
    };
    let parts = [
        marked(TEXT, false, &stored(b"\xe2\x82")),
        plain(CONTINUATION, true, &[&stored(b"\xac")[..], &[0]].concat()),
    ];
    check(None, &parts.concat(), &["text \u{20ac}"], b"");
    let cut = marked(TEXT, true, &[&stored(b"\xe2\x82")[..], &[0]].concat());
    check_violation(&cut, Violation::NotUtf8, 1007, "Text is not UTF-8");
}

#[test]
fn between_messages_only_the_agreed_context_is_held() {
    let message = vec![b'x'; 900];
    for (bits, kept) in [(None, 0), (Some(9), 512), (Some(15), 900)] {
        let mut client = client(bits);
        client.send(&marked(BINARY, true, &compressed(&message)), at(0));
        assert_eq!(client.events.len(), 1);
        assert!(client.socket.message.is_none() && client.socket.frame.is_none());
        let history = client.socket.deflate.as_ref().expect("agreed");
        assert_eq!(history.as_slice().len(), kept);
    }
}

/// Messages of all kinds, compressed or not, cut into frames and into reads anywhere.
#[test]
fn random_conversations_come_out_as_they_went_in() {
    for seed in 0..60u8 {
        let mut dice = Dice::new([seed; 16]);
        let bits = [None, Some(9), Some(12), Some(15)][dice.below(4) as usize];
        let mut compressor = Compressor::new(bits.unwrap_or(15));
        let mut history = History::new(bits);
        let (mut input, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..30 {
            let size = dice.below(OPTIONS.message_bytes as u64 + 1) as usize;
            let text: String = (0..size)
                .map(|_| char::from(b'a' + dice.below(3) as u8))
                .collect();
            let payload = match dice.below(4) {
                0 => None,
                _ => compressor.compress_after(text.as_bytes(), history.as_slice()),
            };
            let is_deflated = payload.is_some();
            let payload = payload.map_or(text.as_bytes().to_vec(), <[u8]>::to_vec);
            if is_deflated {
                history.remember(text.as_bytes());
            }
            let cut = dice.below(payload.len() as u64 + 1) as usize;
            let mut first = plain(TEXT, false, &payload[..cut]);
            first[0] |= if is_deflated { 0x40 } else { 0 };
            input.extend(first);
            input.extend(plain(CONTINUATION, true, &payload[cut..]));
            expected.push(format!("text {text}"));
        }
        let mut client = client(bits);
        let mut rest = &input[..];
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rest.len().min(1 + dice.below(400) as usize));
            client.send(piece, at(0));
            rest = others;
        }
        assert_eq!(client.events, expected, "seed {seed}");
    }
}

/// Whatever comes: no panic, no message over the limit, nothing after the end.
#[test]
fn random_frames_never_pass_a_limit() {
    for seed in 0..200u8 {
        let mut dice = Dice::new([seed; 16]);
        let mut client = client(Some(10));
        while !client.ended && client.events.len() < 50 {
            let size = dice.below(40) as usize;
            let mut payload: Vec<u8> = (0..size).map(|_| dice.below(256) as u8).collect();
            if dice.below(3) > 0 {
                payload = compressed(&vec![b'a'; 100 + dice.below(1200) as usize]);
                if dice.below(4) == 0 {
                    let at = dice.below(payload.len() as u64) as usize;
                    payload[at] ^= 1 << dice.below(8);
                }
            }
            let opcode = [TEXT, BINARY, BINARY, CONTINUATION, PING][dice.below(5) as usize];
            let mut bytes = plain(opcode, dice.below(4) > 0, &payload);
            bytes[0] |= if opcode != PING && dice.below(2) > 0 {
                0x40
            } else {
                0
            };
            client.send(&bytes, at(0));
        }
        let longest = client.events.iter().map(String::len).max();
        assert!(
            longest.unwrap_or(0) <= 20 + 5 * OPTIONS.message_bytes,
            "seed {seed}"
        );
    }
}

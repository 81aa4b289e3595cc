//! RFC 6455 as the WebSocket session keeps it, whatever way its input is cut.

use super::*;
use crate::base::dice::Dice;
use crate::wire::websocket::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame, close_payload, frame,
};

pub(super) const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
pub(super) const OPTIONS: WebSocketOptions = WebSocketOptions {
    message_bytes: 1000,
    ping_after: Duration::from_secs(100),
    pong_within: Duration::from_secs(30),
    close_within: Duration::from_secs(5),
};

pub(super) fn at(seconds: u64) -> Now {
    Now {
        moment: Moment::from_micros(seconds * 1_000_000),
        unix_ms: 0,
    }
}

fn whole(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    client_frame(opcode, true, MASK, payload)
}

fn part(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    client_frame(opcode, false, MASK, payload)
}

/// A connection as a worker keeps it.
pub(super) struct Client {
    pub(super) socket: WebSocket,
    kept: Vec<u8>,
    out: Outbox,
    options: WebSocketOptions,
    pub(super) inflaters: Inflaters,
    pub(super) events: Vec<String>,
    pub(super) ended: bool,
}

impl Client {
    pub(super) fn new() -> Client {
        Client {
            socket: WebSocket::new(at(0)),
            kept: Vec::new(),
            out: Outbox::new(1 << 20),
            options: OPTIONS,
            inflaters: Inflaters::default(),
            events: Vec::new(),
            ended: false,
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8], now: Now) {
        self.kept.extend_from_slice(bytes);
        while !self.ended {
            let mut inbox = Inbox::new(&mut self.kept);
            let step = self.socket.next(
                &mut inbox,
                &mut self.out,
                now,
                &self.options,
                &mut self.inflaters,
            );
            let taken = inbox.taken();
            match step {
                WebSocketStep::Idle => {
                    self.kept.drain(..taken);
                    return;
                }
                WebSocketStep::Text(text) => self.events.push(format!("text {text}")),
                WebSocketStep::Binary(bytes) => self.events.push(format!("binary {bytes:?}")),
                WebSocketStep::Close(close) => {
                    self.events.push(format!("{close:?}"));
                    self.ended = true;
                }
            }
            self.kept.drain(..taken);
        }
    }

    pub(super) fn output(&self) -> Vec<u8> {
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let filled = self.out.slices(&mut slices);
        slices[..filled].iter().flat_map(|s| s.to_vec()).collect()
    }
}

/// What is told and said does not depend on how the input was cut.
fn check(input: &[u8], events: &[&str], output: &[u8]) {
    let feed = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut client = Client::new();
        for piece in pieces {
            client.send(piece, at(0));
        }
        (client.events.clone(), client.output())
    };
    let expected: Vec<String> = events.iter().map(|e| e.to_string()).collect();
    let expected = (expected, output.to_vec());
    assert_eq!(feed(&mut [input].into_iter()), expected, "{input:x?}");
    for cut in 1..input.len() {
        let (front, back) = input.split_at(cut);
        let got = feed(&mut [front, back].into_iter());
        assert_eq!(got, expected, "cut at {cut}: {input:x?}");
    }
    assert_eq!(feed(&mut input.chunks(1)), expected, "bytes: {input:x?}");
}

fn check_violation(input: &[u8], code: u16, text: &'static str) {
    let violation = match code {
        1002 => Violation::Protocol(text),
        1007 => Violation::NotUtf8,
        1009 => Violation::TooBig,
        other => panic!("{other} is no violation"),
    };
    let close = Close::Violation(violation);
    let said = frame(CLOSE, &close_payload(code, text));
    check(input, &[&format!("{close:?}")], &said);
}

const NOT_UTF8: &str = "Text is not UTF-8";
const TOO_BIG: &str = "Message is too big";

#[test]
fn messages_come_out_as_they_went_in() {
    let long = "ä".repeat(200);
    let input = [
        whole(TEXT, b"hello"),
        whole(TEXT, b""),
        whole(BINARY, &[0, 255]),
        whole(BINARY, b""),
        whole(TEXT, long.as_bytes()),
        part(TEXT, b""),
        part(CONTINUATION, b"a"),
        part(CONTINUATION, b""),
        whole(CONTINUATION, b"b"),
        part(BINARY, &[1]),
        whole(CONTINUATION, &[2]),
        whole(TEXT, b"bye"),
    ]
    .concat();
    let long = format!("text {long}");
    let events = [
        "text hello",
        "text ",
        "binary [0, 255]",
        "binary []",
        &long,
        "text ab",
        "binary [1, 2]",
        "text bye",
    ];
    check(&input, &events, b"");
}

#[test]
fn a_whole_frame_is_borrowed_and_a_split_one_is_not() {
    let mut client = Client::new();
    let mut bytes = [
        whole(TEXT, b"one"),
        whole(BINARY, b"two"),
        whole(TEXT, b"six"),
    ]
    .concat();
    let last = bytes.len() - 2;
    let mut inbox = Inbox::new(&mut bytes[..last]);
    let mut next = || {
        client.socket.next(
            &mut inbox,
            &mut client.out,
            at(0),
            &OPTIONS,
            &mut client.inflaters,
        )
    };
    assert!(matches!(next(), WebSocketStep::Text(Cow::Borrowed("one"))));
    assert!(matches!(
        next(),
        WebSocketStep::Binary(Cow::Borrowed(b"two"))
    ));
    assert!(matches!(next(), WebSocketStep::Idle));
    assert!(inbox.is_empty(), "payload leaves the inbox as it comes");
    let mut inbox = Inbox::new(&mut bytes[last..]);
    let step = client.socket.next(
        &mut inbox,
        &mut client.out,
        at(0),
        &OPTIONS,
        &mut client.inflaters,
    );
    assert!(matches!(step, WebSocketStep::Text(Cow::Owned(text)) if text == "six"));
    assert!(client.socket.message.is_none() && client.socket.frame.is_none());
}

#[test]
fn control_frames_are_dealt_with_between_fragments() {
    let longest = [b'p'; 125];
    let input = [
        part(TEXT, b"a"),
        whole(PING, b"1"),
        part(CONTINUATION, b"b"),
        whole(PONG, b"nobody asked"),
        whole(PING, &longest),
        whole(CONTINUATION, b"c"),
        whole(PING, b""),
    ]
    .concat();
    let output = [frame(PONG, b"1"), frame(PONG, &longest), frame(PONG, b"")].concat();
    check(&input, &["text abc"], &output);
}

#[test]
fn frame_headers_obey_section_5() {
    let raw = |front: &[u8], payload: &[u8]| [front, &MASK, payload].concat();
    for bits in [0x40, 0x20, 0x10, 0x70] {
        check_violation(
            &raw(&[0x81 | bits, 0x80], b""),
            1002,
            "Reserved bits are set",
        );
        check_violation(
            &raw(&[0x89 | bits, 0x80], b""),
            1002,
            "Reserved bits are set",
        );
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check_violation(&raw(&[0x80 | opcode, 0x80], b""), 1002, "Reserved opcode");
    }
    check_violation(&[0x81, 0x01, b'a'], 1002, "Frame is not masked");
    check_violation(&[0x89, 0x00], 1002, "Frame is not masked");
    let minimal = "Length is not encoded minimally";
    check_violation(&raw(&[0x81, 0xfe, 0, 125], b""), 1002, minimal);
    check_violation(
        &raw(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], b""),
        1002,
        minimal,
    );
    check_violation(&raw(&[0x89, 0xfe, 0, 1], b"a"), 1002, minimal);
    let top_bit = "Length has its top bit set";
    check_violation(
        &raw(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], b""),
        1002,
        top_bit,
    );
    check_violation(
        &raw(&[0x89, 0xfe, 0, 126], b""),
        1002,
        "Control frame is too long",
    );
    check_violation(
        &raw(&[0x88, 0xfe, 0, 126], b""),
        1002,
        "Control frame is too long",
    );
    for opcode in [PING, PONG, CLOSE] {
        check_violation(&part(opcode, b""), 1002, "Control frame is fragmented");
    }
}

#[test]
fn fragments_obey_section_5_4() {
    check_violation(&whole(CONTINUATION, b"a"), 1002, "Nothing to continue");
    check_violation(&part(CONTINUATION, b""), 1002, "Nothing to continue");
    let inside = "Message begins inside another";
    for opcode in [TEXT, BINARY] {
        let input = [part(TEXT, b"a"), whole(opcode, b"b")].concat();
        check_violation(&input, 1002, inside);
        let input = [part(BINARY, b"a"), part(opcode, b"")].concat();
        check_violation(&input, 1002, inside);
    }
}

#[test]
fn a_message_is_bounded_over_all_its_fragments() {
    let fit = [part(BINARY, &[7; 600]), whole(CONTINUATION, &[7; 400])].concat();
    check(&fit, &[&format!("binary {:?}", [7; 1000])], b"");
    check_violation(&whole(BINARY, &[7; 1001]), 1009, TOO_BIG);
    let sum = [part(TEXT, &[b'a'; 600]), part(CONTINUATION, &[b'a'; 401])].concat();
    check_violation(&sum, 1009, TOO_BIG);
    let header = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    check_violation(&[&header[..], &MASK].concat(), 1009, TOO_BIG);
}

#[test]
fn text_is_utf8_even_when_characters_are_divided() {
    let text = "κόσμε \u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}!";
    for cut in 0..=text.len() {
        let (front, back) = text.as_bytes().split_at(cut);
        let input = [
            part(TEXT, front),
            whole(PING, b""),
            whole(CONTINUATION, back),
        ]
        .concat();
        check(&input, &[&format!("text {text}")], &frame(PONG, b""));
    }
    let invalid: [&[u8]; 12] = [
        b"\x80",
        b"a\xff",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\xaf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xc3(",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
    ];
    for bytes in invalid {
        check_violation(&whole(TEXT, bytes), 1007, NOT_UTF8);
        for cut in 0..=bytes.len() {
            let (front, back) = bytes.split_at(cut);
            let input = [part(TEXT, front), whole(CONTINUATION, back)].concat();
            check_violation(&input, 1007, NOT_UTF8);
        }
    }
    check(&whole(BINARY, b"\xff"), &["binary [255]"], b"");
}

#[test]
fn text_fails_with_the_byte_that_makes_it_certain() {
    let table: [(&[u8], usize); 5] = [
        (b"abc\xff", 4),
        (b"\xce\xba\xf4\x90", 4),
        (b"\xe0\x80", 2),
        (b"\xed\xa0", 2),
        (b"\xf0\x9f\x98a", 4),
    ];
    for (bytes, certain) in table {
        let mut client = Client::new();
        let input = part(TEXT, &[bytes, &[b'x'; 50]].concat());
        let payload_at = input.len() - bytes.len() - 50;
        client.send(&input[..payload_at + certain - 1], at(0));
        assert!(
            client.events.is_empty(),
            "{bytes:x?} could still become text"
        );
        client.send(
            &input[payload_at + certain - 1..payload_at + certain],
            at(0),
        );
        assert_eq!(client.events, ["Violation(NotUtf8)"], "{bytes:x?}");
    }
}

#[test]
fn a_close_frame_is_answered_with_its_code() {
    check(&whole(CLOSE, b""), &["Done"], &frame(CLOSE, b""));
    for code in [
        1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999,
    ] {
        let input = whole(CLOSE, &close_payload(code, "so long ä"));
        check(&input, &["Done"], &frame(CLOSE, &code.to_be_bytes()));
    }
    let input = [whole(TEXT, b"a"), whole(CLOSE, b""), whole(TEXT, b"late")].concat();
    check(&input, &["text a", "Done"], &frame(CLOSE, b""));
    let unfinished = [part(TEXT, b"a"), whole(CLOSE, b"")].concat();
    check(&unfinished, &["Done"], &frame(CLOSE, b""));
}

#[test]
fn a_faulty_close_frame_is_a_violation() {
    check_violation(&whole(CLOSE, b"\x03"), 1002, "Close code is cut off");
    for code in [
        0u16, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        let input = whole(CLOSE, &code.to_be_bytes());
        check_violation(&input, 1002, "Close code is not allowed");
    }
    check_violation(&whole(CLOSE, b"\x03\xe8\xff"), 1007, NOT_UTF8);
    check_violation(&whole(CLOSE, b"\x03\xe8\xe2\x82"), 1007, NOT_UTF8);
}

#[test]
fn shutting_waits_for_the_answer_and_drops_what_comes_before_it() {
    let mut client = Client::new();
    client.send(&part(TEXT, b"ab")[..7], at(1));
    assert_eq!(
        client
            .socket
            .shut(&Close::GoingAway, &mut client.out, at(1)),
        Shut::Wait
    );
    assert!(client.socket.is_closing());
    assert!(client.socket.message.is_none(), "its memory is given back");
    let said = frame(CLOSE, &close_payload(1001, "Server is going away"));
    assert_eq!(client.output(), said);
    let late = [
        whole(CONTINUATION, b"c"),
        whole(TEXT, &[b'x'; 2000]),
        whole(PING, b"?"),
        part(BINARY, b"\xff"),
    ];
    client.send(&part(TEXT, b"ab")[7..], at(2));
    client.send(&late.concat(), at(2));
    assert!(client.events.is_empty(), "{:?}", client.events);
    assert_eq!(
        client
            .socket
            .shut(&Close::PathUnknown, &mut client.out, at(2)),
        Shut::Wait
    );
    client.send(&whole(CLOSE, b"\x03\xe9"), at(3));
    assert_eq!(client.events, ["Done"]);
    assert_eq!(client.output(), said, "one Close frame is enough");
    assert_eq!(client.socket.deadline(&OPTIONS), None);
}

#[test]
fn a_violation_while_closing_ends_without_another_close_frame() {
    let mut client = Client::new();
    client.socket.shut(&Close::Done, &mut client.out, at(1));
    let said = client.output();
    client.send(&[0xff, 0x80, 0, 0, 0, 0], at(1));
    assert_eq!(client.events.len(), 1);
    assert_eq!(client.output(), said);
}

#[test]
fn what_has_no_close_code_is_cut() {
    let mut client = Client::new();
    assert_eq!(
        client.socket.shut(&Close::TooSlow, &mut client.out, at(0)),
        Shut::Cut
    );
    assert!(client.out.is_empty());
    let mut client = Client::new();
    client.out = Outbox::new(10);
    client.out.push(b"0123456789").expect("room");
    assert_eq!(
        client.socket.shut(&Close::Done, &mut client.out, at(0)),
        Shut::Cut
    );
}

fn lapse(client: &mut Client, seconds: u64) -> Option<Close> {
    let deadline = client.socket.deadline(&OPTIONS);
    let close = client
        .socket
        .elapsed(&mut client.out, at(seconds), &OPTIONS);
    if deadline.is_none_or(|deadline| deadline > at(seconds).moment) {
        assert_eq!(close, None, "nothing happens before the deadline");
    }
    close
}

#[test]
fn a_silent_peer_is_asked_and_then_given_up() {
    let mut client = Client::new();
    assert_eq!(lapse(&mut client, 99), None);
    assert!(client.out.is_empty());
    assert_eq!(lapse(&mut client, 100), None);
    let ping = frame(PING, b"");
    assert_eq!(client.output(), ping);
    assert_eq!(lapse(&mut client, 129), None);
    assert_eq!(lapse(&mut client, 130), Some(Close::Unheard));
    let close = frame(CLOSE, &close_payload(4201, "Pong reply not received"));
    assert_eq!(client.output(), [ping, close].concat());
    assert_eq!(client.socket.deadline(&OPTIONS), None);
}

#[test]
fn anything_received_is_a_sign_of_life() {
    let long = part(BINARY, &[0; 200]);
    for life in [
        &whole(PONG, b""),
        &whole(PING, b""),
        &whole(TEXT, b"a"),
        &part(TEXT, b""),
        &long[..9],
    ] {
        let mut client = Client::new();
        assert_eq!(lapse(&mut client, 100), None);
        client.send(life, at(120));
        assert_eq!(client.socket.deadline(&OPTIONS), Some(at(220).moment));
        assert_eq!(lapse(&mut client, 219), None);
    }
    let mut client = Client::new();
    client.send(&whole(PONG, b"")[..3], at(50));
    assert_eq!(
        client.socket.deadline(&OPTIONS),
        Some(at(100).moment),
        "not a frame yet"
    );
}

#[test]
fn a_peer_that_does_not_answer_our_close_frame_is_given_up() {
    let mut client = Client::new();
    client.socket.shut(&Close::Done, &mut client.out, at(10));
    client.send(&whole(TEXT, b"still here"), at(14));
    assert_eq!(lapse(&mut client, 14), None);
    assert_eq!(lapse(&mut client, 15), Some(Close::TooLate));
}

#[test]
fn pings_do_not_fill_the_outbox_without_bound() {
    let mut client = Client::new();
    client.out = Outbox::new(1000);
    client.send(&whole(PING, &[0; 125]).repeat(20), at(0));
    assert_eq!(client.events, ["TooSlow"]);
    assert!(client.out.len() <= 1000);
    let mut client = Client::new();
    client.out = Outbox::new(10);
    client.out.push(b"0123456789").expect("room");
    assert_eq!(lapse(&mut client, 100), Some(Close::TooSlow));
}

#[test]
fn a_long_message_in_small_pieces_is_taken_as_it_comes() {
    const SIZE: usize = 16 << 20;
    let options = WebSocketOptions {
        message_bytes: SIZE,
        ..OPTIONS
    };
    let text = "häß".repeat(SIZE / 5);
    let rest = "x".repeat(SIZE - text.len());
    let text = text + &rest;
    for opcode in [TEXT, BINARY] {
        let mut bytes = whole(opcode, text.as_bytes());
        let mut client = Client::new();
        let mut told = None;
        for piece in bytes.chunks_mut(1021) {
            let mut inbox = Inbox::new(piece);
            let step = client.socket.next(
                &mut inbox,
                &mut client.out,
                at(0),
                &options,
                &mut client.inflaters,
            );
            assert!(inbox.rest().is_empty());
            match step {
                WebSocketStep::Idle => {}
                WebSocketStep::Text(text) => told = Some(text.into_owned().into_bytes()),
                WebSocketStep::Binary(bytes) => told = Some(bytes.into_owned()),
                WebSocketStep::Close(close) => panic!("{close:?}"),
            }
        }
        assert!(told.as_deref() == Some(text.as_bytes()));
        assert!(client.socket.message.is_none());
    }
}

#[test]
fn nothing_is_told_after_the_end() {
    let mut client = Client::new();
    client.send(&whole(CLOSE, b""), at(0));
    let mut more = whole(TEXT, b"late");
    let mut inbox = Inbox::new(&mut more);
    let step = client.socket.next(
        &mut inbox,
        &mut client.out,
        at(0),
        &OPTIONS,
        &mut client.inflaters,
    );
    assert!(matches!(step, WebSocketStep::Idle));
    assert!(inbox.is_empty());
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<WebSocket>() <= 64, "{}", size_of::<WebSocket>());
}

/// Frames with bytes changed, lost and doubled: no reading may depend on the cuts or panic.
#[test]
fn damaged_frames_have_one_reading_too() {
    let seed = [
        whole(TEXT, "aä€".as_bytes()),
        part(TEXT, b"a"),
        whole(PING, b"b"),
        whole(CONTINUATION, b"c"),
        whole(BINARY, &[0; 130]),
        whole(CLOSE, b"\x03\xe8bye"),
    ]
    .concat();
    let mut dice = Dice::new([7; 16]);
    for _ in 0..300 {
        let mut input = seed.clone();
        let at = dice.below(input.len() as u64) as usize;
        match dice.below(3) {
            0 => input[at] ^= 1 << dice.below(8),
            1 => input.insert(at, dice.below(256) as u8),
            _ => drop(input.remove(at)),
        }
        let mut client = Client::new();
        client.send(&input, Now::default());
        let events: Vec<&str> = client.events.iter().map(String::as_str).collect();
        check(&input, &events, &client.output());
    }
}

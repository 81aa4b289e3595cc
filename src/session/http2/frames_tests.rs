//! The connection against frames written by hand: what a server may send, and what it may not.

use super::play::{Client, Frame, options};
use super::*;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status` in the static table of RFC 7541 appendix A.
const S200: &[u8] = &[0x88];
const S400: &[u8] = &[0x8c];
/// `:status: 103`, as a literal.
const S103: &[u8] = &[0x08, 3, b'1', b'0', b'3'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(0, flags, stream, payload)
}

fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(1, flags | END_HEADERS, stream, block)
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(3, 0, stream, &code.to_be_bytes())
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let pairs = pairs.iter();
    let payload =
        pairs.flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(4, 0, 0, &payload.collect::<Vec<u8>>())
}

fn goaway(last: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    let payload = [&last.to_be_bytes()[..], &code.to_be_bytes(), debug].concat();
    frame(7, 0, 0, &payload)
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(8, 0, stream, &more.to_be_bytes())
}

/// A field that no table has, as a literal.
fn field(name: &str, value: &str) -> Vec<u8> {
    let lengths = [name.len() as u8, value.len() as u8];
    [
        &[0, lengths[0]],
        name.as_bytes(),
        &[lengths[1]],
        value.as_bytes(),
    ]
    .concat()
}

/// A client with so many requests under way, which the server has.
fn asked(count: usize) -> Client {
    let mut client = Client::new(options());
    client.feed(&settings(&[(3, 100)]));
    client.asks(count);
    client.take_output();
    client
}

/// What is told about `count` requests when the server says this, however it is cut; and then the
/// server closes the connection.
fn check(count: usize, bytes: &[u8], expected: &[&str]) {
    for cut in 0..=bytes.len() {
        let mut client = asked(count);
        client.feed(&bytes[..cut]);
        client.feed(&bytes[cut..]);
        client.take_output();
        client.end();
        assert_eq!(client.told(), expected, "cut at {cut}");
    }
}

/// The same for what no server may say: the connection breaks at once, and the server is told of an
/// error; of which, is h2's choice.
fn check_broken(bytes: &[u8]) {
    let mut client = asked(1);
    client.feed(bytes);
    let told = client.told();
    assert_eq!(told, ["1: lost", "broken"], "{bytes:?}");
    let frames = client.frames();
    let goaway = frames.iter().find(|(kind, ..)| *kind == 7);
    let (.., payload) = goaway.expect("a GOAWAY");
    assert_ne!(payload[7], 0, "{bytes:?}");
}

fn of_kind(client: &mut Client, wanted: u8) -> Vec<Frame> {
    let mut frames = client.frames();
    frames.retain(|(kind, ..)| *kind == wanted);
    frames
}

#[test]
fn above_the_last_stream_nothing_was_done_and_below_it_all_goes_on() {
    let bytes = [
        goaway(3, 0, b""),
        headers(1, END_STREAM, S200),
        headers(3, 0, S400),
        data(3, END_STREAM, b"{}"),
    ];
    let told = [
        "goaway 3 0 ",
        "5: refused",
        "1: 200 ",
        "3: 400 {}",
        "drained",
    ];
    let bytes = bytes.concat();
    let mut client = asked(3);
    client.feed(&goaway(3, 0, b""));
    assert_eq!(client.told(), &told[..2]);
    assert_eq!((client.http2.room(), client.http2.under_way()), (0, 2));
    for cut in goaway(3, 0, b"").len()..=bytes.len() {
        let mut client = asked(3);
        client.feed(&bytes[..cut]);
        client.feed(&bytes[cut..]);
        let mut all = client.told();
        all[1..4].sort();
        assert_eq!(
            all,
            [
                "goaway 3 0 ",
                "1: 200 ",
                "3: 400 {}",
                "5: refused",
                "drained"
            ]
        );
    }
}

#[test]
fn the_lowest_last_stream_counts() {
    let graceful = goaway(0x7fff_ffff, 0, b"");
    let later = [
        graceful.clone(),
        headers(3, END_STREAM, S200),
        goaway(1, 0, b"bye"),
    ];
    let told = [
        "goaway 2147483647 0 ",
        "3: 200 ",
        "goaway 1 0 bye",
        "5: refused",
        "1: lost",
        "broken",
    ];
    let mut client = asked(3);
    for bytes in later {
        client.feed(&bytes);
    }
    client.end();
    assert_eq!(client.told(), told);
    let twice = [graceful.clone(), graceful].concat();
    check(1, &twice, &["goaway 2147483647 0 ", "1: lost", "broken"]);
}

#[test]
fn a_last_stream_that_rises_breaks_the_connection_and_brings_nothing_back() {
    let mut client = asked(3);
    client.feed(&goaway(1, 0, b""));
    client.feed(&goaway(3, 0, b""));
    assert_eq!(
        client.told(),
        [
            "goaway 1 0 ",
            "3: refused",
            "5: refused",
            "1: lost",
            "broken"
        ]
    );
}

#[test]
fn behind_what_breaks_the_connection_nothing_counts() {
    let misplaced = frame(4, 0, 1, b"");
    let too_long = frame(0, 0, 1, &[0; 16_385]);
    for broken in [misplaced, too_long] {
        let bytes = [broken, goaway(0, 0, b"")].concat();
        let mut client = asked(2);
        client.feed(&bytes);
        assert_eq!(client.told(), ["1: lost", "3: lost", "broken"]);
    }
}

#[test]
fn the_words_of_a_goaway_are_told() {
    let words = br#"{"reason":"BadCertificateEnvironment"}"#;
    let expected = r#"goaway 0 0 {"reason":"BadCertificateEnvironment"}"#;
    check(
        1,
        &goaway(0, 0, words),
        &[expected, "1: refused", "drained"],
    );
}

#[test]
fn a_goaway_of_an_idle_connection_drains_it() {
    let mut client = asked(0);
    client.feed(&goaway(0, 0, b""));
    assert_eq!(client.told(), ["goaway 0 0 ", "drained"]);
    assert_eq!(of_kind(&mut client, 7).len(), 1, "we take our leave too");
}

#[test]
fn a_refused_stream_may_be_asked_again_and_another_reset_may_not() {
    let bytes = [reset(1, 7), reset(3, 8), reset(5, 2), reset(7, 0)].concat();
    let told = ["1: refused", "3: lost", "5: lost", "7: lost", "broken"];
    check(4, &bytes, &told);
    let mut client = asked(2);
    client.feed(&reset(1, 7));
    client.asks(1);
    client.feed(&headers(5, END_STREAM, S200));
    assert_eq!(
        client.told(),
        ["1: refused", "5: 200 "],
        "the connection goes on"
    );
}

#[test]
fn an_answer_stands_though_the_stream_is_reset_behind_it() {
    let answer = [headers(1, 0, S400), data(1, END_STREAM, b"no"), reset(1, 0)].concat();
    check(1, &answer, &["1: 400 no", "broken"]);
    for code in [0, 7, 8] {
        let half = [headers(1, 0, S400), data(1, 0, b"no"), reset(1, code)].concat();
        check(1, &half, &["1: 400 no (cut)", "broken"]);
        let head = [headers(1, 0, S200), reset(1, code)].concat();
        check(
            1,
            &head,
            &["1: 200 (cut)".replace(" (", "  (").as_str(), "broken"],
        );
    }
}

#[test]
fn an_answer_may_come_before_the_whole_request_has_gone() {
    let mut client = asked(0);
    client.ask(&[b'x'; 200_000]).expect("room");
    client.poll();
    let sent: usize = of_kind(&mut client, 0)
        .iter()
        .map(|frame| frame.3.len())
        .sum();
    assert_eq!(sent, 65_535, "the window of RFC 9113 section 6.9.2");
    client.feed(&[headers(1, END_STREAM, S400), reset(1, 0)].concat());
    assert_eq!(client.told(), ["1: 400 "]);
    client.feed(&window(0, 100_000));
    client.asks(1);
    client.feed(&headers(3, END_STREAM, S200));
    assert_eq!(client.told(), ["3: 200 "]);
}

#[test]
fn a_window_that_sinks_below_zero_holds_the_body_back() {
    let mut client = asked(0);
    client.feed(&window(0, 1_000_000));
    client.ask(&[b'x'; 100_000]).expect("room");
    client.poll();
    let sent = |client: &mut Client| -> usize {
        of_kind(client, 0).iter().map(|frame| frame.3.len()).sum()
    };
    assert_eq!(sent(&mut client), 65_535);
    // From 0 to -65,035.
    client.feed(&settings(&[(4, 500)]));
    client.feed(&window(1, 65_035));
    assert_eq!(sent(&mut client), 0);
    client.feed(&window(1, 1));
    assert_eq!(sent(&mut client), 1);
    client.feed(&window(1, 40_000));
    assert_eq!(sent(&mut client), 100_000 - 65_536);
    client.feed(&headers(1, END_STREAM, S200));
    assert_eq!(client.told(), ["1: 200 "]);
}

#[test]
fn what_the_server_takes_at_a_time_may_change() {
    let mut client = asked(0);
    client.feed(&settings(&[(3, 0)]));
    assert_eq!(client.http2.room(), 0);
    assert_eq!(client.ask(b""), Err(NotAsked::Full));
    client.feed(&settings(&[(3, 1)]));
    assert_eq!(client.http2.room(), 1);
    client.asks(1);
    client.feed(&settings(&[(3, 3)]));
    client.asks(2);
    client.feed(&settings(&[(3, 1)]));
    client.feed(&headers(3, END_STREAM, S200));
    assert_eq!(client.http2.room(), 0, "two are under way");
    client.feed(&headers(1, END_STREAM, S200));
    client.feed(&headers(5, END_STREAM, S200));
    assert_eq!((client.http2.room(), client.told().len()), (1, 3));
    let mut unbounded = Client::new(options());
    unbounded.feed(&settings(&[]));
    assert_eq!(unbounded.http2.room(), 1000);
}

#[test]
fn interim_answers_and_trailers_say_nothing() {
    let interim = headers(1, 0, S103);
    let trailers = headers(1, END_STREAM, &field("a", "b"));
    let bytes = [
        interim.repeat(20),
        headers(1, 0, S200),
        data(1, 0, b"ok"),
        trailers.clone(),
    ]
    .concat();
    check(1, &bytes, &["1: 200 ok", "broken"]);
    let bare = [headers(1, 0, S200), trailers].concat();
    check(1, &bare, &["1: 200 ", "broken"]);
    check(1, &interim, &["1: lost", "broken"]);
}

#[test]
fn fields_and_padding_are_read() {
    let block = [S400, &field("retry-after", "7"), &field("apns-id", "X")].concat();
    let (first, rest) = block.split_at(9);
    let head = [frame(1, 0, 1, first), frame(9, END_HEADERS, 1, rest)].concat();
    let padded = data(1, 8 | END_STREAM, &[&[3][..], b"ok", &[0; 3]].concat());
    let mut client = asked(1);
    client.feed(&[head, padded].concat());
    let Some(Http2Event::Answered { answer, .. }) = client.told.first() else {
        panic!("{:?}", client.told);
    };
    assert_eq!(answer.fields.only("retry-after"), Some(&b"7"[..]));
    let fields: Vec<(&str, &[u8])> = answer.fields.iter().collect();
    assert_eq!(fields, [("retry-after", &b"7"[..]), ("apns-id", b"X")]);
    assert_eq!((answer.body.as_slice(), answer.whole), (&b"ok"[..], true));
}

#[test]
fn a_body_of_another_length_than_announced_is_not_whole() {
    let block = [S400, &field("content-length", "5")].concat();
    let short = [headers(1, 0, &block), data(1, END_STREAM, b"abc")].concat();
    check(1, &short, &["1: 400  (cut)", "broken"]);
}

#[test]
fn a_head_that_is_too_long_costs_its_own_request_only() {
    let long = field("a", &"x".repeat(100)).repeat(200);
    let block = [S200, &long].concat();
    let (first, rest) = block.split_at(16_000);
    let head = [frame(1, 0, 1, first), frame(9, END_HEADERS, 1, rest)].concat();
    let mut client = asked(2);
    client.feed(&head);
    client.feed(&headers(3, END_STREAM, S200));
    assert_eq!(client.told(), ["1: lost", "3: 200 "]);
}

#[test]
fn a_malformed_answer_costs_its_own_request_only() {
    let mut client = asked(2);
    client.feed(&headers(1, END_STREAM, &field("no", "status")));
    client.feed(&headers(3, END_STREAM, S200));
    assert_eq!(client.told(), ["1: lost", "3: 200 "]);
}

#[test]
fn what_no_server_may_send_breaks_the_connection() {
    let promise = [&[0, 0, 0, 2][..], S200].concat();
    check_broken(&frame(5, END_HEADERS, 1, &promise));
    check_broken(&headers(9, END_STREAM, S200));
    check_broken(&data(9, END_STREAM, b"x"));
    check_broken(&headers(2, END_STREAM, S200));
    check_broken(&reset(0, 0));
    check_broken(&window(0, 0x7fff_ffff));
    check_broken(&settings(&[(4, 0xffff_ffff)]));
    check_broken(&frame(4, 0, 0, &[0; 5]));
    check_broken(&frame(6, 0, 0, &[0; 7]));
    check_broken(&headers(1, END_STREAM, &[0xff; 4]));
    check_broken(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    check_broken(&frame(9, END_HEADERS, 1, S200));
    let capitals = [S200, &field("Ab", "c")].concat();
    check_broken(&headers(1, END_STREAM, &capitals));
}

#[test]
fn a_connection_breaks_even_where_nobody_can_be_told() {
    let mut client = asked(1);
    client.out.push(&[0; 200_000]).expect("room");
    client.feed(&headers(9, END_STREAM, S200));
    assert_eq!(client.told(), ["1: lost", "broken"]);
    let mut idle = asked(0);
    idle.out.push(&[0; 200_000]).expect("room");
    idle.feed(&headers(9, END_STREAM, S200));
    assert_eq!(idle.ask(b""), Err(NotAsked::Leaving));
    idle.poll();
    assert_eq!(idle.told(), ["drained"]);
}

#[test]
fn a_head_without_end_is_not_collected() {
    let mut client = asked(1);
    let more = frame(9, 0, 1, &field("a", "b").repeat(100));
    client.feed(&frame(1, 0, 1, S200));
    let mut count = 0;
    while client.told.is_empty() {
        client.feed(&more);
        count += 1;
        assert!(count < 200, "it is read without end");
    }
    assert_eq!(client.told(), ["1: lost", "broken"]);
    let mut client = asked(1);
    client.feed(&frame(1, 0, 1, S200));
    client.feed(&frame(9, 0, 1, b"").repeat(2000));
    assert_eq!(client.told(), ["1: lost", "broken"], "nor an empty one");
}

#[test]
fn bodies_in_tiny_pieces_are_not_borne_for_ever() {
    let mut client = asked(1);
    client.feed(&headers(1, 0, S200));
    client.feed(&data(1, 0, b"").repeat(2000));
    assert_eq!(client.told(), ["1: 200  (cut)", "broken"]);
}

#[test]
fn a_ping_is_answered() {
    let mut client = asked(0);
    client.feed(&frame(6, 0, 0, b"abcdefgh"));
    assert_eq!(of_kind(&mut client, 6), [(6, 1, 0, b"abcdefgh".to_vec())]);
}

#[test]
fn a_server_that_does_not_begin_to_speak_is_given_up() {
    let mut client = Client::new(options());
    client.asks(1);
    client.take_output();
    client.wait(9_999);
    assert!(client.told().is_empty());
    client.wait(1);
    assert_eq!(client.told(), ["1: lost", "broken"]);
}

#[test]
fn the_first_bytes_are_the_preface_and_no_push_is_wanted() {
    let mut client = Client::new(options());
    client.asks(1);
    let frames = client.frames();
    assert!(
        client
            .wrote
            .starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    );
    let (kind, _, _, pairs) = &frames[0];
    assert_eq!(*kind, 4);
    assert!(
        pairs.chunks(6).any(|pair| pair == [0, 2, 0, 0, 0, 0]),
        "{pairs:?}"
    );
    let kinds: Vec<(u8, u32)> = frames.iter().map(|frame| (frame.0, frame.2)).collect();
    assert_eq!(kinds, [(4, 0), (8, 0), (1, 1), (0, 1)]);
}

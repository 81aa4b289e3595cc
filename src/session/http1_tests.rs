//! Requests over one connection, and what becomes of one when the connection ends.

use bytes::Bytes;

use super::*;
use crate::wire::http2::Http2Answer;

const PLAIN: &str = "HTTP/1.1 201 Created\r\nLocation: /m/7\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 429 No\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
const CLOSING: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

fn at(seconds: u64) -> Now {
    Now {
        moment: Moment::from_micros(seconds * 1_000_000),
        unix_ms: seconds * 1000,
    }
}

struct Play {
    http1: Http1,
    out: Outbox,
    held: Vec<u8>,
}

impl Play {
    fn new() -> Play {
        let origin = Http2Origin::new(true, "hub.example").expect("an authority");
        Play {
            http1: Http1::new(origin, at(0)),
            out: Outbox::new(1_000_000),
            held: Vec::new(),
        }
    }

    fn ask(&mut self) -> StreamKey {
        let asked = Http2Request {
            method: "POST",
            path: "/h/messages/?direct=true",
            common: None,
            fields: &[("authorization", "x y")],
            body: Bytes::from_static(b"{}"),
        };
        let key = self.http1.ask(&asked, at(10).moment).expect("it rests");
        assert_eq!(self.events(1), []);
        key
    }

    fn ask_and_be_answered(&mut self) {
        self.ask();
        self.write();
        self.receive(PLAIN);
    }

    /// What was written leaves.
    fn write(&mut self) -> String {
        let bytes = self.out.take(usize::MAX);
        String::from_utf8(bytes).expect("text")
    }

    fn receive(&mut self, bytes: &str) -> Vec<Http2Event> {
        self.held.extend_from_slice(bytes.as_bytes());
        let mut inbox = Inbox::new(&mut self.held);
        self.http1.received(&mut inbox, at(1));
        let taken = inbox.taken();
        self.held.drain(..taken);
        self.events(1)
    }

    fn end(&mut self) -> Vec<Http2Event> {
        self.http1.ended();
        self.events(1)
    }

    fn events(&mut self, seconds: u64) -> Vec<Http2Event> {
        let mut events = Vec::new();
        while let Some(event) = self.http1.poll(&mut self.out, at(seconds)) {
            events.push(event);
        }
        events
    }
}

fn answer(events: &[Http2Event], key: StreamKey) -> &Http2Answer {
    match events.first() {
        Some(Http2Event::Answered { key: own, answer }) if *own == key => answer,
        _ => panic!("no answer: {events:?}"),
    }
}

#[test]
fn requests_go_one_after_the_other() {
    let mut play = Play::new();
    for _ in 0..3 {
        assert_eq!(play.http1.room(), 1);
        let key = play.ask();
        assert_eq!(play.http1.room(), 0);
        assert_eq!(
            play.write(),
            "POST /h/messages/?direct=true HTTP/1.1\r\nhost: hub.example\r\n\
             authorization: x y\r\ncontent-length: 2\r\n\r\n{}"
        );
        let events = play.receive(PLAIN);
        let answer = answer(&events, key);
        assert_eq!((answer.status, &*answer.body), (201, &b"ok"[..]));
        assert_eq!(answer.fields.only("location"), Some(&b"/m/7"[..]));
        assert!(answer.whole && events.len() == 1);
    }
}

#[test]
fn an_answer_is_the_same_wherever_it_is_cut() {
    for cut in 0..CHUNKED.len() {
        let mut play = Play::new();
        let key = play.ask();
        let mut events = play.receive(&CHUNKED[..cut]);
        events.extend(play.receive(&CHUNKED[cut..]));
        let answer = answer(&events, key);
        assert_eq!((answer.status, &*answer.body), (429, &b"abcde"[..]));
        assert_eq!(answer.fields.only("retry-after"), Some(&b"7"[..]));
    }
}

#[test]
fn a_connection_that_is_not_kept_is_drained_behind_its_answer() {
    for text in [CLOSING.to_string(), format!("{PLAIN}surplus")] {
        let mut play = Play::new();
        let key = play.ask();
        let events = play.receive(&text);
        assert_eq!(answer(&events, key).body, b"ok");
        assert_eq!(events[1..], [Http2Event::Drained], "{text:?}");
        assert_eq!(play.http1.room(), 0);
    }
    let mut play = Play::new();
    let key = play.ask();
    assert_eq!(play.receive("HTTP/1.0 200 OK\r\n\r\nto the end"), []);
    let events = play.end();
    assert_eq!(answer(&events, key).body, b"to the end");
    assert!(answer(&events, key).whole);
}

#[test]
fn what_has_not_begun_to_leave_is_refused_and_does_not_leave() {
    for first in [false, true] {
        let mut play = Play::new();
        if first {
            play.ask_and_be_answered();
        }
        let key = play.ask();
        let events = play.end();
        assert_eq!(events[0], Http2Event::Refused { key });
        assert!(matches!(events[1], Http2Event::Broken { .. }));
        assert_eq!(play.write(), "");
    }
}

#[test]
fn what_was_written_and_not_answered_may_have_been_acted_on() {
    // The whole of it on a new connection and on one that had answered before, and a part.
    for (first, bytes) in [(false, usize::MAX), (true, usize::MAX), (true, 1)] {
        let mut play = Play::new();
        if first {
            play.ask_and_be_answered();
        }
        let key = play.ask();
        let length = play.out.len();
        play.out.advance(bytes.min(length));
        let events = play.end();
        assert!(
            matches!(events[0], Http2Event::Lost { key: own, .. } if own == key),
            "{events:?}"
        );
    }
}

#[test]
fn a_status_counts_though_its_body_never_ends() {
    let mut play = Play::new();
    let key = play.ask();
    play.write();
    let head = "HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\nhalf";
    assert_eq!(play.receive(head), []);
    let events = play.events(10);
    assert_eq!(answer(&events, key).status, 201);
    assert!(!answer(&events, key).whole);
    assert_eq!(events[1..], [Http2Event::Drained]);
}

#[test]
fn a_request_without_an_answer_in_time_is_late_and_spends_the_connection() {
    let mut play = Play::new();
    let key = play.ask();
    play.write();
    assert_eq!(play.http1.deadline(), Some(at(10).moment));
    assert_eq!(play.events(9), []);
    let events = play.events(10);
    assert_eq!(events[0], Http2Event::Late { key });
    assert!(matches!(events[1], Http2Event::Broken { .. }));
    assert_eq!(play.http1.deadline(), None);
    assert_eq!(play.receive(PLAIN), []);
}

#[test]
fn what_is_no_answer_breaks_the_connection() {
    let mut play = Play::new();
    let key = play.ask();
    play.write();
    let events = play.receive("SSH-2.0-x\r\n\r\n");
    assert!(matches!(events[0], Http2Event::Lost { key: own, .. } if own == key));
    let mut unasked = Play::new();
    assert!(matches!(
        unasked.receive(PLAIN)[..],
        [Http2Event::Broken { .. }]
    ));
}

#[test]
fn a_connection_that_rests_is_given_up() {
    let mut play = Play::new();
    play.ask_and_be_answered();
    let until = play.http1.deadline().expect("it has one");
    assert_eq!(until, at(1).moment + REST);
    assert_eq!(play.events(30), []);
    assert_eq!(play.events(31), [Http2Event::Drained]);
    let mut ended = Play::new();
    ended.ask_and_be_answered();
    assert_eq!(ended.end(), [Http2Event::Drained], "nobody lost anything");
}

#[test]
fn only_one_is_taken_and_nothing_that_cannot_be_written() {
    let mut play = Play::new();
    let ask = |play: &mut Play, value| {
        let asked = Http2Request {
            method: "GET",
            path: "/",
            common: None,
            fields: &[("a", value)],
            body: Bytes::new(),
        };
        play.http1.ask(&asked, at(10).moment)
    };
    let split = ask(&mut play, "b\r\nc: d");
    assert!(matches!(split, Err(NotAsked::Malformed(_))), "{split:?}");
    assert!(ask(&mut play, "b").is_ok());
    assert_eq!(ask(&mut play, "b"), Err(NotAsked::Full));
    play.http1.retire();
    assert_eq!(ask(&mut play, "b"), Err(NotAsked::Leaving));
}

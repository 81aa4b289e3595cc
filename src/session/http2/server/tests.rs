//! The server against our own client, byte queue to byte queue, and against frames written by hand.

use std::io::IoSlice;

use super::*;
use crate::session::http2::Http2Options;
use crate::session::http2::play::{Client, options};

fn reply(status: u16, body: &'static str) -> Http2Reply<'static> {
    Http2Reply {
        status,
        fields: &[("apns-id", "x")],
        body: body.into(),
    }
}

struct Server {
    http2: Http2Server,
    out: Outbox,
    /// Requests that are to be answered.
    asked: Vec<(StreamKey, Http2Asked)>,
    told: Vec<String>,
}

impl Server {
    fn new(start_with_one: bool) -> Server {
        Server {
            http2: Http2Server::new(ServerOptions {
                streams_max: 1000,
                start_with_one,
                body_bytes: 10_000,
            }),
            out: Outbox::new(usize::MAX),
            asked: Vec::new(),
            told: Vec::new(),
        }
    }

    fn poll(&mut self) {
        while let Some(call) = self.http2.poll(&mut self.out) {
            match call {
                Http2Call::Asked { key, request } => self.asked.push((key, request)),
                Http2Call::Gone { key } => self.told.push(format!("{}: gone", key.0)),
                Http2Call::Over { .. } => self.told.push("over".to_string()),
            }
        }
    }

    fn feed(&mut self, bytes: &[u8], step: usize) {
        for piece in bytes.chunks(step) {
            let mut piece = piece.to_vec();
            self.http2.received(&mut Inbox::new(&mut piece));
            self.poll();
        }
    }

    fn take_output(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = self.out.slices(&mut slices);
            let count = slices[..filled].iter().map(|slice| slice.len()).sum();
            all.extend(slices[..filled].iter().flat_map(|slice| slice.to_vec()));
            self.out.advance(count);
        }
        all
    }

    fn keys(&self) -> Vec<u32> {
        self.asked.iter().map(|(key, _)| key.0).collect()
    }
}

/// Passes bytes both ways until there are none, `step` at a time.
fn run(client: &mut Client, server: &mut Server, step: usize) {
    loop {
        server.poll();
        client.poll();
        let (up, down) = (client.take_output(), server.take_output());
        if up.is_empty() && down.is_empty() {
            return;
        }
        server.feed(&up, step);
        down.chunks(step).for_each(|piece| client.feed(piece));
    }
}

fn pair() -> (Client, Server) {
    let (mut client, mut server) = (Client::new(options()), Server::new(false));
    run(&mut client, &mut server, usize::MAX);
    (client, server)
}

#[test]
fn requests_come_whole_and_answers_go_in_any_order_however_bytes_are_cut() {
    for step in [1, 7, 16_384] {
        let (mut client, mut server) = (Client::new(options()), Server::new(false));
        run(&mut client, &mut server, step);
        client.ask_path("/a?b", b"first").expect("room");
        client.ask_path("/c", &[b'x'; 9000]).expect("room");
        client.ask(b"").expect("room");
        run(&mut client, &mut server, step);
        server.asked.sort_by_key(|(key, _)| *key);
        let (first, second) = (&server.asked[0].1, &server.asked[1].1);
        assert_eq!((&*first.method, &*first.target), ("POST", "/a?b"));
        assert_eq!(first.authority.as_deref(), Some("push.example"));
        assert_eq!(first.fields.only("apns-topic"), Some(&b"example"[..]));
        assert_eq!((&first.body[..], first.whole), (&b"first"[..], true));
        assert_eq!((second.body.len(), second.whole), (9000, true));
        server.http2.answer(StreamKey(5), &reply(200, ""));
        server.http2.answer(StreamKey(1), &reply(410, "{}"));
        run(&mut client, &mut server, step);
        assert_eq!(client.told(), ["5: 200 ", "1: 410 {}"]);
        assert_eq!(server.http2.under_way(), 1, "silence is an answer too");
    }
}

#[test]
fn a_thousand_at_a_time_get_their_own_answers() {
    let (mut client, mut server) = pair();
    for round in 0..3 {
        client.asks(1000);
        run(&mut client, &mut server, 5000);
        for (key, request) in server.asked.drain(..).rev() {
            assert_eq!(request.body, b"{}", "round {round}");
            server.http2.answer(key, &reply(200, ""));
        }
        run(&mut client, &mut server, 5000);
        assert_eq!(client.told().len(), 1000);
    }
    assert!(server.http2.streams.len() <= 1000, "slots are used again");
    assert_eq!((server.http2.bodies, server.http2.under_way()), (0, 0));
}

#[test]
fn a_body_over_the_bound_is_cut_and_can_be_answered() {
    let (mut client, mut server) = pair();
    client.ask(&[b'x'; 500_000]).expect("room");
    run(&mut client, &mut server, 16_384);
    let (key, request) = server.asked.pop().expect("a request");
    assert_eq!((request.body.len(), request.whole), (10_000, false));
    server.http2.answer(key, &reply(413, "{}"));
    run(&mut client, &mut server, 16_384);
    assert_eq!(client.told(), ["1: 413 {}"]);
    assert_eq!(server.http2.bodies, 0);
}

#[test]
fn a_stream_is_reset_with_the_code_that_was_chosen() {
    let (mut client, mut server) = pair();
    client.asks(2);
    run(&mut client, &mut server, 100);
    server
        .http2
        .reset(StreamKey(1), Reason::REFUSED_STREAM.into());
    server
        .http2
        .reset(StreamKey(3), Reason::INTERNAL_ERROR.into());
    run(&mut client, &mut server, 100);
    assert_eq!(client.told(), ["1: refused", "3: lost"]);
}

#[test]
fn a_request_that_its_client_gives_up_is_gone() {
    let (mut client, mut server) = pair();
    client.asks(2);
    run(&mut client, &mut server, 100);
    client.now = 20_001;
    client.poll();
    assert_eq!(client.told(), ["1: late", "3: late"]);
    run(&mut client, &mut server, 100);
    assert_eq!(server.told, ["1: gone", "3: gone"]);
    assert_eq!(server.http2.under_way(), 0);
    server.http2.answer(StreamKey(1), &reply(200, ""));
    run(&mut client, &mut server, 100);
    assert!(client.told().is_empty());
}

#[test]
fn a_goaway_has_words_refuses_what_is_above_and_waits_for_the_rest() {
    let (mut client, mut server) = pair();
    client.asks(3);
    run(&mut client, &mut server, 100);
    assert_eq!(server.keys(), [1, 3, 5]);
    let debug = br#"{"reason":"Shutdown"}"#.to_vec();
    server.http2.answer(StreamKey(1), &reply(200, ""));
    server.http2.go_away(GoAway {
        last: 3,
        code: 0,
        debug,
    });
    run(&mut client, &mut server, 100);
    let told = client.told();
    assert!(told.contains(&r#"goaway 3 0 {"reason":"Shutdown"}"#.to_string()));
    assert!(told.contains(&"5: refused".to_string()), "{told:?}");
    assert!(server.told.is_empty(), "one is under way");
    server.http2.answer(StreamKey(3), &reply(200, "late"));
    run(&mut client, &mut server, 100);
    assert_eq!(client.told(), ["3: 200 late", "drained"]);
    assert_eq!(server.told, ["over"]);
}

#[test]
fn one_stream_is_allowed_until_all_are() {
    let mut client = Client::new(Http2Options {
        streams_max: 500,
        ..options()
    });
    let mut server = Server::new(true);
    run(&mut client, &mut server, 16_384);
    assert_eq!(client.http2.room(), 1);
    client.asks(1);
    run(&mut client, &mut server, 16_384);
    server.http2.answer(StreamKey(1), &reply(200, ""));
    server.http2.allow_all();
    run(&mut client, &mut server, 16_384);
    assert_eq!(client.told(), ["1: 200 "]);
    assert_eq!(client.http2.room(), 500);
    client.asks(500);
    run(&mut client, &mut server, 16_384);
    assert_eq!(server.keys().len(), 501);
}

#[test]
fn an_end_and_bytes_that_are_no_http2_end_the_connection() {
    let (mut client, mut server) = pair();
    client.asks(1);
    run(&mut client, &mut server, 100);
    server.http2.ended();
    server.poll();
    assert_eq!(server.told, ["1: gone", "over"]);
    server.http2.answer(StreamKey(1), &reply(200, ""));
    server.poll();
    let mut server = Server::new(false);
    server.feed(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 100);
    assert_eq!(server.told, ["over"]);
}

#[test]
fn a_client_that_reads_nothing_is_not_read_from() {
    let (mut client, mut server) = pair();
    client.asks(1);
    server.feed(&client.take_output(), usize::MAX);
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut fed = 0;
    while server.http2.wants_input() {
        server.feed(&ping.repeat(1000), usize::MAX);
        fed += 1;
        assert!(fed < 40, "it is read without end");
    }
    assert!(server.out.len() < 300 * 1024, "{}", server.out.len());
    server.take_output();
    assert!(server.out.take_awaited());
    server.poll();
    assert!(server.http2.wants_input());
}

#[test]
fn a_client_that_leaves_gets_its_last_answer() {
    let (mut client, mut server) = pair();
    client.asks(1);
    run(&mut client, &mut server, 100);
    client.http2.retire();
    run(&mut client, &mut server, 100);
    server.http2.answer(StreamKey(1), &reply(200, ""));
    run(&mut client, &mut server, 100);
    assert_eq!(client.told(), ["1: 200 ", "drained"]);
    assert_eq!(server.told, ["over"]);
}

//! The node, driven as the reactor drives it: HTTP/1.1 as text, HTTP/2 by our own client.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::base::dice::Dice;
use crate::mock::script::Script;
use crate::mock::webpush::{WebPush, WebPushOptions};
use crate::session::http2::{Http2, Http2Event, Http2Options, PulseOptions};
use crate::wire::http2::{Http2Origin, Http2Request};

const CONN: ConnId = ConnId {
    slot: 0,
    generation: 1,
};

fn at(millis: u64) -> Now {
    Now {
        moment: Moment::from_micros(millis * 1000),
        unix_ms: 1_800_000_000_000 + millis,
    }
}

struct World {
    node: MockNode,
    now: u64,
    /// How the connection ended.
    ended: Option<Ending>,
}

impl World {
    fn new(rules: &[&str]) -> World {
        let provider = WebPush::new(WebPushOptions::default());
        let mut script = Script::default();
        for rule in rules {
            let added = script.add_text(crate::mock::Kind::WebPush, rule);
            added.expect("a rule");
        }
        let mock = Mock::new(Box::new(provider), script, Dice::new([1; 16]), true);
        let mut node = MockNode::new(MockOptions {
            mock,
            streams_max: 100,
            start_with_one: false,
            limits: Limits::default(),
            tell: Box::new(|_| true),
        });
        node.opened(CONN, Origin::client(0, None), at(0));
        World {
            node,
            now: 0,
            ended: None,
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.node.received(CONN, &mut bytes.to_vec(), at(self.now));
        self.take()
    }

    /// What it writes.
    fn take(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(output) = self.node.poll_output(at(self.now)) {
            match output {
                Output::Flush(conn) => {
                    let out = self.node.outbox(conn).expect("it is open");
                    all.extend(out.take(usize::MAX));
                    if out.take_awaited() {
                        self.node.drained(conn, at(self.now));
                    }
                }
                Output::Close(_, ending) => self.ended = Some(ending),
                other => panic!("{other:?}"),
            }
        }
        all
    }

    fn wait(&mut self, wait: Duration) -> Vec<u8> {
        self.now += wait.as_millis() as u64;
        self.node.elapsed(at(self.now));
        self.take()
    }
}

fn post(path: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nTTL: 0\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn http_1_is_answered_in_order_however_it_is_cut() {
    let both = [post("/push/a"), post("/push/b")].concat();
    for step in [1, 7, both.len()] {
        let mut world = World::new(&["token=b answer=Gone"]);
        let pieces = both.chunks(step);
        let said: Vec<u8> = pieces.flat_map(|piece| world.feed(piece)).collect();
        let said = text(&said);
        let answers: Vec<&str> = said.lines().filter(|it| it.starts_with("HTTP/")).collect();
        assert_eq!(answers, ["HTTP/1.1 401 Unauthorized", "HTTP/1.1 410 Gone"]);
        assert_eq!(world.ended, None);
    }
}

#[test]
fn an_answer_that_is_put_off_comes_at_its_time_and_the_next_behind_it() {
    let mut world = World::new(&["nth=1 delay=2s answer=ok"]);
    let said = world.feed(&[post("/push/a"), post("/push/b")].concat());
    assert!(said.is_empty());
    assert_eq!(world.node.deadline(), Some(at(2000).moment));
    assert!(world.wait(Duration::from_millis(1999)).is_empty());
    let said = text(&world.wait(Duration::from_millis(1)));
    assert!(said.starts_with("HTTP/1.1 201"), "{said}");
    assert!(said.contains("HTTP/1.1 401"), "{said}");
}

#[test]
fn silence_close_and_farewell_over_http_1() {
    let mut world = World::new(&["token=quiet silence", "token=cut close", "answer=ok goaway"]);
    assert!(world.feed(&post("/push/quiet")).is_empty());
    assert!(world.wait(Duration::from_secs(3600)).is_empty());
    assert!(world.node.wants_input(CONN));
    world.feed(&vec![b'x'; LEFTOVER]);
    assert!(
        !world.node.wants_input(CONN),
        "what comes behind has a bound"
    );
    let mut world = World::new(&["token=cut close", "answer=ok goaway"]);
    let said = text(&world.feed(&post("/push/last")));
    assert!(said.contains("Connection: close"), "{said}");
    assert_eq!(world.ended, Some(Ending::Flushed));
    let mut world = World::new(&["token=cut close"]);
    assert!(world.feed(&post("/push/cut")).is_empty());
    assert_eq!(world.ended, Some(Ending::Cut));
}

const LEFTOVER: usize = 64 * 1024;

#[test]
fn a_client_that_never_asks_is_not_kept() {
    let mut world = World::new(&[]);
    let due = world.node.deadline().expect("a time");
    world.now = due.as_micros() / 1000;
    world.wait(Duration::ZERO);
    assert_eq!(world.ended, Some(Ending::Flushed));
    world.node.closed(CONN, at(world.now));
    assert_eq!(world.node.deadline(), None);
}

fn client() -> Http2 {
    let options = Http2Options {
        origin: Http2Origin::new(true, "a").expect("an authority"),
        streams_max: 100,
        start_with_one: false,
        pulse: PulseOptions::default(),
    };
    Http2::new(options, at(0))
}

/// Passes bytes until there are none; what the client is told.
fn run(world: &mut World, http2: &mut Http2, out: &mut Outbox) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        while let Some(event) = http2.poll(out, at(world.now)) {
            told.push(match event {
                Http2Event::Answered { key, answer } => format!("{}: {}", key.0, answer.status),
                Http2Event::GoAway(goaway) => {
                    format!("goaway {} {}", goaway.last, text(&goaway.debug))
                }
                other => format!("{other:?}"),
            });
        }
        let up = out.take(usize::MAX);
        let mut down = match up.is_empty() {
            true => world.take(),
            false => world.feed(&up),
        };
        if up.is_empty() && down.is_empty() {
            return told;
        }
        http2.received(&mut Inbox::new(&mut down), at(world.now));
    }
}

fn ask(http2: &mut Http2, path: &str) {
    let request = Http2Request {
        method: "POST",
        path,
        common: None,
        fields: &[("ttl", "0")],
        body: Bytes::new(),
    };
    let deadline = at(600_000).moment;
    http2.ask(&request, deadline, at(0)).expect("room");
}

#[test]
fn http_2_is_what_begins_with_its_preface() {
    let mut world = World::new(&["token=slow delay=5s answer=ok", "token=dead answer=Gone"]);
    let (mut http2, mut out) = (client(), Outbox::new(usize::MAX));
    assert!(run(&mut world, &mut http2, &mut out).is_empty());
    for path in ["/push/slow", "/push/dead", "/push/x"] {
        ask(&mut http2, path);
    }
    assert_eq!(run(&mut world, &mut http2, &mut out), ["3: 410", "5: 401"]);
    let mut down = world.wait(Duration::from_secs(5));
    http2.received(&mut Inbox::new(&mut down), at(world.now));
    assert_eq!(run(&mut world, &mut http2, &mut out), ["1: 201"]);
}

#[test]
fn resets_and_goaways_over_http_2() {
    let rules = [
        "token=refused reset=REFUSED_STREAM",
        "token=quiet silence",
        "token=last answer=ok goaway=Shutdown",
        "token=none goaway=BadCertificateEnvironment last=0",
    ];
    let mut world = World::new(&rules);
    let (mut http2, mut out) = (client(), Outbox::new(usize::MAX));
    run(&mut world, &mut http2, &mut out);
    ask(&mut http2, "/push/refused");
    let told = run(&mut world, &mut http2, &mut out);
    assert_eq!(told, ["Refused { key: StreamKey(1) }"]);
    ask(&mut http2, "/push/last");
    let told = run(&mut world, &mut http2, &mut out);
    assert_eq!(told[..2], [r#"goaway 3 {"reason":"Shutdown"}"#, "3: 201"]);
    assert_eq!(world.ended, Some(Ending::Flushed));

    let mut world = World::new(&rules);
    let (mut http2, mut out) = (client(), Outbox::new(usize::MAX));
    run(&mut world, &mut http2, &mut out);
    ask(&mut http2, "/push/quiet");
    ask(&mut http2, "/push/none");
    let told = run(&mut world, &mut http2, &mut out);
    assert!(told[0].starts_with("goaway 0 "), "{told:?}");
    assert!(
        told.contains(&"Refused { key: StreamKey(1) }".to_string()),
        "{told:?}"
    );
    assert!(
        told.contains(&"Refused { key: StreamKey(3) }".to_string()),
        "{told:?}"
    );
}

#[test]
fn what_is_put_off_for_a_connection_that_is_gone_is_forgotten() {
    let mut world = World::new(&["delay=5s answer=ok"]);
    world.feed(&post("/push/a"));
    world.node.closed(CONN, at(0));
    assert_eq!(world.node.deadline(), None);
    assert!(world.node.seats.is_empty() && world.node.later.is_empty());
}

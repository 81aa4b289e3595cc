//! A worker as a client: of another worker, joined to it in memory, and of servers that a test
//! plays.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::app::application::{Application, Cx, Message, Outlet, Parcel, Unavailable};
use crate::app::apps::Apps;
use crate::app::cors::Cors;
use crate::app::handler::Handler;
use crate::app::service::Services;
use crate::base::close::Close;
use crate::base::ids::{ConnId, DialId};
use crate::base::limits::Limits;
use crate::base::now::{Moment, Now};
use crate::node::worker::{Listener, Worker, WorkerOptions};
use crate::node::{Ending, Node, Origin, Output, Peer};
use crate::wire::bus::Answer;
use crate::wire::control::{DIALLED, Order, Report, Wanted};
use crate::wire::deflate_offer::DeflateOptions;
use crate::wire::http::Request;
use crate::wire::protocol::Protocol;
use crate::wire::target::Target;
use crate::wire::websocket::{self, Header, OpCode, Role, accept_key, frame};

type Log = Rc<RefCell<Vec<String>>>;

/// Writes down what it is told.
struct Recorder {
    log: Log,
    /// Sent to whoever is reached.
    greetings: Vec<String>,
    /// Dialled again when it is not reached.
    again: Option<Target>,
}

impl Recorder {
    fn note(&self, line: String) {
        self.log.borrow_mut().push(line);
    }
}

impl Application for Recorder {
    fn reached(&mut self, conn: ConnId, dial: DialId, cx: &mut Cx<'_>) {
        self.note(format!("reached {}", dial.0));
        for text in &self.greetings {
            cx.outlet.send(conn, Message::Text(text));
            cx.outlet.deliver(conn, &Parcel::text(text));
        }
    }

    fn unreached(&mut self, dial: DialId, why: &str, cx: &mut Cx<'_>) {
        self.note(format!("unreached {}: {why}", dial.0));
        if let Some(target) = &self.again {
            cx.outlet.dial(Handler::Echo, target);
        }
    }

    fn message(&mut self, _conn: ConnId, message: Message<'_>, _cx: &mut Cx<'_>) {
        self.note(match message {
            Message::Text(text) => text.to_string(),
            Message::Binary(bytes) => format!("{bytes:?}"),
        });
    }

    fn closed(&mut self, _conn: ConnId, _close: &Close, _cx: &mut Cx<'_>) {
        self.note("closed".to_string());
    }

    fn request(&mut self, _: ConnId, _: &Request<'_>, _: &mut Cx<'_>) {}
    fn answered(&mut self, _: ConnId, _: Result<Answer<'_>, Unavailable>, _: &mut Cx<'_>) {}
}

/// A worker with one connection to look at.
struct Side {
    worker: Worker,
    now: Now,
    log: Log,
    outputs: Vec<Output>,
    written: Vec<u8>,
}

const CONN: ConnId = ConnId {
    slot: 5,
    generation: 1,
};
const PEER: Peer = Peer::Outside(DialId(1));

impl Side {
    fn new(limits: Limits) -> Side {
        let now = Now {
            moment: Moment::from_micros(1_000_000),
            unix_ms: 0,
        };
        let options = WorkerOptions {
            slot: 0,
            life: 0,
            listeners: vec![Listener {
                protocol: Protocol::Http,
                handler: Handler::Echo,
                forwarding: None,
            }],
            apps: Apps::new(Vec::new()),
            demo_page: None,
            services: Services::default(),
            limits,
            deflate: Some(DeflateOptions {
                client_context: true,
                server_context: true,
                min_bytes: 1,
                window_bits: 12,
            }),
            cors: Cors::default(),
            seed: [9; 16],
        };
        let mut side = Side {
            worker: Worker::new(options, now),
            now,
            log: Log::default(),
            outputs: Vec::new(),
            written: Vec::new(),
        };
        side.drain();
        side.outputs.clear();
        side
    }

    /// One whose echo application is a recorder.
    fn client(limits: Limits) -> Side {
        let mut side = Side::new(limits);
        side.record(Vec::new(), None);
        side
    }

    fn record(&mut self, greetings: Vec<String>, again: Option<Target>) {
        self.worker.handlers.echo = Box::new(Recorder {
            log: self.log.clone(),
            greetings,
            again,
        });
    }

    fn dial(&mut self, url: &str) -> DialId {
        let target = Target::parse(url).expect("a URL");
        let dial = self.worker.shared.outgoing.dial(Handler::Echo, &target);
        self.worker.carry_out(self.now);
        self.drain();
        dial
    }

    /// As an application would, during one of its calls.
    fn hang_up_on(&mut self, dial: DialId) {
        self.worker.shared.outgoing.hang_up(dial);
        self.worker.carry_out(self.now);
        self.drain();
    }

    fn open(&mut self, origin: Origin) {
        self.worker.opened(CONN, origin, self.now);
        self.drain();
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.worker.received(CONN, &mut bytes.to_vec(), self.now);
        self.drain();
    }

    fn pass(&mut self, seconds: u64) {
        self.now.moment = self.now.moment + Duration::from_secs(seconds);
        self.turn();
    }

    fn turn(&mut self) {
        self.worker.elapsed(self.now);
        self.drain();
    }

    fn order(&mut self, order: &Order) {
        let master = ConnId::new(9, 1);
        self.worker.opened(master, Origin::Master, self.now);
        self.worker.received(master, &mut order.encode(), self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.worker.poll_output(self.now) {
            match output {
                Output::Flush(conn) if conn == CONN => self.flush(),
                Output::Flush(_) => {}
                Output::Close(conn, ending) => {
                    if ending == Ending::Flushed && conn == CONN {
                        self.flush();
                    }
                    self.outputs.push(output);
                    self.worker.closed(conn, self.now);
                }
                other => self.outputs.push(other),
            }
        }
    }

    fn flush(&mut self) {
        let Some(outbox) = self.worker.outbox(CONN) else {
            return;
        };
        while !outbox.is_empty() {
            let front = outbox.front(usize::MAX);
            self.written.extend_from_slice(front);
            let count = front.len();
            outbox.advance(count);
        }
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.written)
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut *self.log.borrow_mut())
    }

    /// The connection stands and the server is asked for a WebSocket.
    fn upgrading() -> Side {
        let mut side = Side::client(Limits::default());
        side.dial("ws://a.example/path");
        side.open(Origin::Dialled(PEER));
        side
    }

    /// The server agreed.
    fn websocket() -> Side {
        let mut side = Side::upgrading();
        let answer = agree(&side.take());
        side.receive(&answer);
        assert_eq!(side.told(), ["reached 1"]);
        side
    }

    fn numbers(&self) -> (u64, u64, u64) {
        let counters = &self.worker.shared.counters;
        (counters.dialled, counters.dial_failed, counters.closed)
    }
}

/// The answer that agrees to a request.
fn agree(request: &[u8]) -> Vec<u8> {
    let request = String::from_utf8(request.to_vec()).expect("ASCII");
    let key = request.split("Sec-WebSocket-Key: ").nth(1).expect("a key");
    let accept = accept_key(key.split("\r\n").next().expect("its line").as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// Frames as a server reads them, with their keys.
fn frames(mut bytes: &[u8]) -> Vec<(OpCode, [u8; 4], Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let header = Header::parse(bytes, false, Role::Server).expect("a frame of a client");
        let header = header.expect("a whole one");
        let end = header.len + header.length as usize;
        let mut payload = bytes[header.len..end].to_vec();
        websocket::unmask(&mut payload, header.mask, 0);
        found.push((header.opcode, header.mask, payload));
        bytes = &bytes[end..];
    }
    found
}

/// Carries bytes both ways, in pieces of at most `cut`, until nothing moves.
fn carry(client: &mut Side, server: &mut Side, cut: usize) {
    loop {
        let (there, back) = (client.take(), server.take());
        there.chunks(cut).for_each(|piece| server.receive(piece));
        back.chunks(cut).for_each(|piece| client.receive(piece));
        if there.is_empty() && back.is_empty() {
            return;
        }
    }
}

#[test]
fn a_worker_speaks_websocket_with_another_however_the_bytes_are_cut() {
    let long = "long ".repeat(20_000);
    for cut in [1, 7, usize::MAX] {
        let (mut client, mut server) = (
            Side::client(Limits::default()),
            Side::new(Limits::default()),
        );
        client.record(vec!["hello".into(), long.clone()], None);
        client.dial("ws://server.example/");
        assert_eq!(client.outputs, [Output::Dial(PEER)]);
        client.open(Origin::Dialled(PEER));
        server.open(Origin::client(0, None));
        carry(&mut client, &mut server, cut);
        let expected = ["reached 1", "hello", "hello", &long, &long];
        assert!(client.told() == expected, "cut {cut}");
        // Both ask whether the other lives, and both do.
        client.pass(135);
        server.pass(135);
        carry(&mut client, &mut server, cut);
        client.pass(100);
        server.pass(100);
        carry(&mut client, &mut server, cut);
        assert_eq!(client.told(), [""; 0]);
        client.order(&Order::Stop);
        carry(&mut client, &mut server, cut);
        assert_eq!(client.told(), ["closed"]);
        let ends = |side: &Side| side.outputs.contains(&Output::Close(CONN, Ending::Flushed));
        assert!(ends(&client) && ends(&server));
        assert_eq!(client.numbers(), (1, 0, 1));
    }
}

#[test]
fn every_frame_of_a_client_has_a_key_of_its_own() {
    let mut side = Side::websocket();
    for _ in 0..2 {
        let outgoing = &mut side.worker.shared.outgoing;
        outgoing.send(CONN, Message::Text("same"));
        outgoing.deliver(CONN, &Parcel::text("same"));
    }
    side.drain();
    side.receive(&frame(websocket::PING, b"p"));
    let frames = frames(&side.take());
    let mut keys: Vec<[u8; 4]> = frames.iter().map(|(_, key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((frames.len(), keys.len()), (5, 5));
    let texts = frames[..4].iter();
    assert!(texts.into_iter().all(|(_, _, payload)| payload == b"same"));
    assert_eq!(
        (frames[4].0, &frames[4].2[..]),
        (websocket::PONG, &b"p"[..])
    );
}

#[test]
fn a_server_that_masks_its_frames_breaks_the_protocol() {
    let mut side = Side::websocket();
    side.receive(&websocket::client_frame(
        websocket::TEXT,
        true,
        [1; 4],
        b"x",
    ));
    assert_eq!(side.told(), ["closed"]);
    let said = frames(&side.take());
    assert_eq!(said[0].0, websocket::CLOSE);
    assert_eq!(said[0].2[..2], 1002u16.to_be_bytes());
}

/// What makes a dial fail, and a word of the reason.
type Failure = (fn(&mut Side), &'static str);

fn check_failures(begin: fn() -> Side, failures: &[Failure]) {
    for (fail, words) in failures {
        let mut side = begin();
        fail(&mut side);
        side.drain();
        // What is refused by ourselves is told in the next turn; then nothing more is.
        side.turn();
        side.pass(60);
        let told = side.told();
        assert_eq!(told.len(), 1, "{words}: {told:?}");
        assert!(told[0].starts_with("unreached 1: "), "{told:?}");
        assert!(told[0].contains(words), "{words}: {told:?}");
        assert_eq!(side.numbers(), (0, 1, 0), "{words}");
        assert_eq!(side.worker.target(DialId(1)), None);
        assert!(side.worker.dialled.is_empty());
    }
}

fn hang_up(side: &mut Side) {
    side.hang_up_on(DialId(1));
}

fn drain(side: &mut Side) {
    let window = Duration::from_secs(5);
    side.order(&Order::Drain { window });
}

#[test]
fn a_dial_that_fails_on_its_way_is_told_once_whatever_it_fails_by() {
    let begin = || {
        let mut side = Side::client(Limits::default());
        side.dial("ws://a.example/");
        side
    };
    let refuse = |side: &mut Side| {
        let now = side.now;
        side.worker.unreachable(PEER, "connection refused", now);
    };
    check_failures(
        begin,
        &[
            (refuse, "connection refused"),
            (hang_up, "given up"),
            (drain, "about to end"),
            (|side| side.order(&Order::Stop), "about to end"),
        ],
    );
}

#[test]
fn a_handshake_that_fails_is_told_once_whatever_it_fails_by() {
    let answer = |side: &mut Side| side.receive(b"HTTP/1.1 403 No\r\nX: y\r\n\r\n");
    let redirect = |side: &mut Side| side.receive(b"HTTP/1.1 301 No\r\nX: y\r\n\r\n");
    let flood = |side: &mut Side| side.receive(&[b'x'; 20_000]);
    let shut = |side: &mut Side| {
        let now = side.now;
        side.worker.hung_up(CONN, now);
    };
    let lose = |side: &mut Side| {
        let now = side.now;
        side.worker.closed(CONN, now);
    };
    check_failures(
        Side::upgrading,
        &[
            (answer, "status 403"),
            (redirect, "redirects"),
            (flood, "over 16384 bytes"),
            (shut, "closed before it answered"),
            (lose, "ended before"),
            (|side| side.pass(11), "in time"),
            (hang_up, "given up"),
            (drain, "about to end"),
            (|side| side.order(&Order::Stop), "about to end"),
        ],
    );
}

#[test]
fn a_server_may_take_as_long_as_its_target_allows() {
    let mut side = Side::client(Limits::default());
    let target = Target::parse("ws://a.example/").expect("a URL");
    let target = target.with_connect_within(Duration::from_secs(3600));
    side.worker.shared.outgoing.dial(Handler::Echo, &target);
    side.worker.carry_out(side.now);
    side.open(Origin::Dialled(PEER));
    // Longer than the wheel reaches at once.
    for _ in 0..71 {
        side.pass(50);
    }
    assert_eq!(side.told(), [""; 0]);
    side.pass(51);
    assert_eq!(side.told().len(), 1);
}

#[test]
fn what_comes_about_after_it_was_given_up_is_cut() {
    let mut side = Side::client(Limits::default());
    let dial = side.dial("tcp://a.example:1");
    side.hang_up_on(dial);
    assert_eq!(side.outputs, [Output::Dial(PEER), Output::HangUp(dial)]);
    side.open(Origin::Dialled(PEER));
    assert_eq!(side.outputs[2..], [Output::Close(CONN, Ending::Cut)]);
    side.turn();
    assert_eq!(side.told(), ["unreached 1: it was given up"]);
    assert_eq!(side.numbers(), (0, 1, 0));
}

#[test]
fn lines_frames_and_bytes_need_no_handshake() {
    let table = [
        (
            "text://a.example:1",
            &b"one\ntwo\n"[..],
            "one",
            &b"hi\n"[..],
        ),
        (
            "frame://a.example:1",
            b"\0\0\0\x07one",
            "one",
            b"\0\0\0\x06hi",
        ),
        ("tcp://a.example:1", b"one", "[111, 110, 101]", b"hi"),
        ("unix:///run/x.sock", b"one", "[111, 110, 101]", b"hi"),
    ];
    for (url, input, message, output) in table {
        let mut side = Side::client(Limits::default());
        side.dial(url);
        side.open(Origin::Dialled(PEER));
        side.receive(input);
        assert_eq!(side.told()[..2], ["reached 1", message], "{url}");
        let outgoing = &mut side.worker.shared.outgoing;
        outgoing.send(CONN, Message::Text("hi"));
        side.drain();
        assert_eq!(side.take(), output, "{url}");
        side.worker.closed(CONN, side.now);
        assert_eq!(side.told(), ["closed"], "{url}");
        assert_eq!(side.numbers(), (1, 0, 1), "{url}");
    }
}

#[test]
fn a_dial_beyond_a_bound_fails_in_the_next_turn_and_the_others_go_on() {
    let mut side = Side::client(Limits {
        dials: 2,
        connections: 1,
        ..Limits::default()
    });
    for _ in 0..3 {
        side.dial("tcp://a.example:1");
    }
    assert_eq!(side.told(), [""; 0]);
    assert!(side.worker.deadline() <= Some(side.now.moment));
    side.turn();
    let told = side.told();
    assert!(
        told[0].starts_with("unreached 3: too many connections are being"),
        "{told:?}"
    );
    assert_eq!(side.outputs.len(), 2);
    // As many stand as may: `connections`, and `dials` beyond.
    for number in 1..=2 {
        let conn = ConnId::new(number, 1);
        let origin = Origin::Dialled(Peer::Outside(DialId(u64::from(number))));
        side.worker.opened(conn, origin, side.now);
    }
    let origin = Origin::client(0, None);
    side.worker.opened(ConnId::new(3, 1), origin, side.now);
    side.dial("tcp://a.example:1");
    side.turn();
    let told = side.told();
    assert_eq!(told[..2], ["reached 1", "reached 2"]);
    assert!(told[2].contains("limits.connections"), "{told:?}");
}

#[test]
fn an_application_that_dials_again_at_once_does_not_hold_the_worker() {
    let mut side = Side::client(Limits {
        dials: 0,
        ..Limits::default()
    });
    let target = Target::parse("tcp://a.example:1").expect("a URL");
    side.record(Vec::new(), Some(target));
    side.dial("tcp://a.example:1");
    for _ in 0..5 {
        side.turn();
        assert_eq!(side.told().len(), 1);
    }
}

#[test]
fn a_draining_worker_says_1001_to_servers_and_dials_no_more() {
    let mut side = Side::websocket();
    side.order(&Order::Drain {
        window: Duration::from_secs(1),
    });
    side.pass(2);
    let said = frames(&side.take());
    assert_eq!(said[0].0, websocket::CLOSE);
    assert_eq!(said[0].2[..2], 1001u16.to_be_bytes());
    assert_eq!(side.told(), ["closed"]);
    side.dial("tcp://a.example:1");
    side.turn();
    assert_eq!(side.told(), ["unreached 2: this worker is about to end"]);
}

#[test]
fn a_list_shows_where_an_outgoing_connection_leads() {
    let rows = |side: &Side| match side.worker.list(
        &Wanted {
            limit: 10,
            ..Wanted::default()
        },
        side.now,
    ) {
        Report::Connections { rows, .. } => rows,
        other => panic!("{other:?}"),
    };
    let row = &rows(&Side::upgrading())[0];
    assert_eq!((&*row.protocol, &*row.status), ("ws-client", "upgrading"));
    let row = &rows(&Side::websocket())[0];
    assert_eq!((&*row.protocol, &*row.status), ("ws-client", "open"));
    assert_eq!((row.listener, &*row.remote), (DIALLED, "a.example:80"));
}

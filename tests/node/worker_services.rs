//! What an embedding program's service is told, call by call, and what its wishes become.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lineman::app::handler::Handler;
use lineman::app::service::{Served, Services};
use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::node::worker::Listener;
use lineman::node::{Node, Origin};
use lineman::wire::bus::{Content, Down, InfoWanted, Item, RefusalReason};
use lineman::wire::control::Order;
use lineman::wire::protocol::Protocol;
use lineman::{Close, Connection, Error, Message, Service, Timer, Worker};

use crate::worker_play::Play;
use crate::world::LISTENERS;

thread_local! {
    /// What the services of this test's thread were told.
    static CALLS: Rc<RefCell<Vec<String>>> = Rc::default();
}

fn calls() -> Vec<String> {
    CALLS.with(|calls| calls.borrow_mut().drain(..).collect())
}

fn note(call: String) {
    CALLS.with(|calls| calls.borrow_mut().push(call));
}

/// Writes down every call; does what a message says.
#[derive(Default)]
struct Recorder {
    every: Option<Timer>,
}

impl Service for Recorder {
    fn start(&mut self, worker: &mut Worker<'_>) {
        note(format!("start {}", worker.number()));
    }

    fn reload(&mut self, _worker: &mut Worker<'_>) {
        note("reload".into());
    }

    fn stop(&mut self, _worker: &mut Worker<'_>) {
        note("stop".into());
    }

    fn connect(&mut self, conn: &mut Connection<'_>) {
        note(format!("connect {:?}", conn.remote_address()));
    }

    fn message(&mut self, conn: &mut Connection<'_>, message: Message<'_>) {
        let Message::Text(text) = message else {
            return note(format!("{message:?}"));
        };
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "subscribe" => conn.subscribe(rest),
            "unsubscribe" => conn.unsubscribe(rest),
            "publish" => conn.publish("room", rest),
            "others" => conn.publish_to_others("room", rest),
            "every" => self.every = Some(conn.worker().every(Duration::from_millis(100))),
            "cancel" => {
                let timer = self.every.take().expect("every came first");
                conn.worker().cancel(timer);
            }
            "count" => {
                let count: &mut u64 = conn.context();
                *count += 1;
                let text = count.to_string();
                conn.send(&text);
            }
            "flood" => conn.send("x".repeat(rest.parse().expect("a number")).as_str()),
            "pause" => {
                conn.pause();
                conn.worker().after(Duration::from_secs(1));
            }
            "close" => conn.close(),
            _ => note(format!("said {text}")),
        }
    }

    fn subscribed(&mut self, _conn: &mut Connection<'_>, topic: &str) {
        note(format!("subscribed {topic}"));
    }

    fn buffer_full(&mut self, conn: &mut Connection<'_>) {
        note(format!("full {}", conn.buffered()));
    }

    fn buffer_drained(&mut self, conn: &mut Connection<'_>) {
        note(format!("drained {}", conn.buffered()));
    }

    fn error(&mut self, _conn: &mut Connection<'_>, error: &Error) {
        note(format!("{error:?}"));
    }

    fn close(&mut self, _conn: &mut Connection<'_>, close: &Close) {
        note(format!("close {close:?}"));
    }

    fn timer(&mut self, worker: &mut Worker<'_>, timer: Timer) {
        note(format!("timer {}", self.every == Some(timer)));
        for id in worker.connections() {
            worker.connection(id).expect("it is listed").resume();
        }
    }
}

fn play(limits: Limits) -> Play {
    calls();
    let services = Services::new(vec![Served {
        factory: Arc::new(|| Box::new(Recorder::default())),
        framing: None,
    }]);
    let listener = Listener {
        protocol: Protocol::Lines,
        handler: Handler::Service(0),
        forwarding: None,
    };
    let play = Play::serving(limits, services, vec![listener]);
    assert_eq!(calls(), ["start 3"]);
    play
}

fn open(play: &mut Play) -> ConnId {
    let peer = "192.0.2.1:7".parse().expect("an address");
    let conn = play.hand.open(Origin::client(LISTENERS.len(), Some(peer)));
    assert_eq!(calls(), ["connect Some(192.0.2.1:7)"]);
    conn
}

fn deliver(content: Content<'_>) -> Down<'_> {
    let item = Item {
        channels: vec!["~/room"],
        content,
        user_id: None,
        exclude: None,
        info: InfoWanted::default(),
    };
    let positions = Vec::new();
    Down::Deliver { item, positions }
}

#[test]
fn a_topic_is_a_channel_that_no_app_can_have() {
    let mut play = play(Limits::default());
    let conn = open(&mut play);
    play.send(conn, b"subscribe room\n");
    let told = play.told();
    assert!(
        told[0].contains("Subscribe") && told[0].contains("\"~/room\""),
        "{told:?}"
    );
    play.tell(&deliver(Content::Text("too early")));
    play.tell(&Down::Subscribed {
        ticket: 1,
        channel: "~/room",
        roster: None,
        cached: None,
        beginning: None,
    });
    assert_eq!(calls(), ["subscribed room"]);
    play.tell(&deliver(Content::Text("hi")));
    assert_eq!(play.hand.take(conn), b"hi\n");
    play.send(conn, b"publish hello\nothers hello\nunsubscribe room\n");
    let told = play.told();
    assert!(
        told[0].contains("Text(\"hello\")") && told[0].contains("exclude: None"),
        "{told:?}"
    );
    assert!(told[1].contains("exclude: Some("), "{told:?}");
    assert!(told[2].contains("Unsubscribe"), "{told:?}");
    play.tell(&deliver(Content::Text("too late")));
    assert_eq!(play.hand.take(conn), b"");
}

#[test]
fn what_fails_is_told_to_the_connection_that_asked() {
    let mut play = play(Limits::default());
    let conn = open(&mut play);
    play.send(conn, b"subscribe \n");
    let rule = "a topic has 1 to 200 bytes and no control characters";
    assert_eq!(calls(), [format!("NotSubscribed(\"\", {rule:?})")]);
    play.send(conn, b"subscribe room\n");
    play.tell(&Down::Refused {
        ticket: 1,
        channel: "~/room",
        reason: RefusalReason::Settling,
    });
    let expected = "NotSubscribed(\"room\", \"the switchboard has just come back\")";
    assert_eq!(calls(), [expected]);
    play.hand.lose(play.link);
    play.send(conn, b"publish x\n");
    assert_eq!(calls(), ["Undelivered"]);
}

#[test]
fn every_connection_has_a_context_of_its_own() {
    let mut play = play(Limits::default());
    let (one, other) = (open(&mut play), open(&mut play));
    play.send(one, b"count\ncount\n");
    play.send(other, b"count\n");
    assert_eq!(play.hand.take(one), b"1\n2\n");
    assert_eq!(play.hand.take(other), b"1\n");
}

#[test]
fn timers_fire_until_they_are_cancelled() {
    let mut play = play(Limits::default());
    let conn = open(&mut play);
    play.send(conn, b"every\n");
    play.hand.pass(Duration::from_millis(350));
    assert_eq!(calls(), ["timer true"; 3]);
    play.send(conn, b"cancel\n");
    play.hand.pass(Duration::from_millis(350));
    assert_eq!(calls(), [""; 0]);
}

#[test]
fn a_paused_connection_is_not_read_from_and_loses_nothing() {
    let mut play = play(Limits::default());
    let conn = open(&mut play);
    play.send(conn, b"pause\none\ntwo\n");
    assert!(!play.hand.node.wants_input(conn));
    assert_eq!(calls(), [""; 0]);
    play.hand.pass(Duration::from_secs(1));
    assert!(play.hand.node.wants_input(conn));
    assert_eq!(calls(), ["timer false", "said one", "said two"]);
}

#[test]
fn a_reader_that_is_slow_is_told_of_before_it_is_cut() {
    let mut play = play(Limits {
        outbox_bytes: 1000,
        ..Limits::default()
    });
    let conn = open(&mut play);
    play.hand.stalled.insert(conn);
    play.send(conn, b"flood 400\n");
    assert_eq!(calls(), [""; 0]);
    play.send(conn, b"flood 300\nflood 10\n");
    assert_eq!(calls(), ["full 702"]);
    play.hand.release(conn);
    assert_eq!(calls(), ["drained 0"]);
    play.hand.stalled.insert(conn);
    play.send(conn, b"flood 900\nflood 900\nlate\n");
    assert_eq!(calls(), ["full 901", "close TooSlow"]);
}

#[test]
fn every_end_has_its_reason_and_comes_once() {
    let mut play = play(Limits::default());
    let conn = open(&mut play);
    play.send(conn, b"close\nlate\n");
    assert_eq!(calls(), ["close Done"]);
    let conn = open(&mut play);
    play.hand.lose(conn);
    assert_eq!(calls(), ["close PeerGone"]);
    let conn = open(&mut play);
    play.send(conn, &[b'x', 0xff, b'\n']);
    assert_eq!(calls(), ["close Violation(NotUtf8)"]);
}

#[test]
fn a_worker_that_is_replaced_says_so_and_then_that_it_ends() {
    let mut play = play(Limits::default());
    let master = play.hand.open(Origin::Master);
    open(&mut play);
    let window = Duration::from_secs(1);
    play.hand.receive(master, &Order::Drain { window }.encode());
    assert_eq!(calls(), ["reload"]);
    play.hand.pass(Duration::from_secs(2));
    assert_eq!(calls(), ["close GoingAway"]);
    play.hand.receive(master, &Order::Stop.encode());
    assert_eq!(calls(), ["stop"]);
}

#[test]
fn a_service_is_given_what_its_slow_readers_send() {
    let mut play = play(Limits::default());
    let conn = open(&mut play);
    play.hand.stalled.insert(conn);
    play.send(conn, b"flood 100000\n");
    assert!(
        play.hand.node.wants_input(conn),
        "pausing is the service's to say"
    );
}

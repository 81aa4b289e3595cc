//! Requests that wait for the switchboard: refused in time, answered in order, never by what was
//! meant for somebody else.

use std::time::Duration;

use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::node::{Ending, Node, Origin, Output};
use lineman::wire::bus::{Answer, ChannelCounts, RefusalReason};

use crate::worker_play::{NO_CHANNELS, Play, READ, answer, publish, read_channels};
use crate::world::client::{Client, Heard, Speech, text};

#[test]
fn one_question_too_many_is_answered_503_at_once() {
    let mut play = Play::new(Limits {
        questions: 1,
        ..Limits::default()
    });
    let (first, second) = (play.open(0), play.open(0));
    play.send(first, &read_channels());
    play.send(second, &read_channels());
    assert_eq!(play.statuses(first), [0; 0]);
    assert_eq!(play.statuses(second), [503]);
    play.tell(&answer(1, NO_CHANNELS));
    assert_eq!(play.statuses(first), [200]);
    play.send(second, &read_channels());
    play.tell(&answer(2, NO_CHANNELS));
    assert_eq!(play.statuses(second), [200]);
}

#[test]
fn an_unanswered_question_becomes_503_after_five_seconds() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    play.send(conn, &publish("1"));
    play.hand.pass(Duration::from_millis(4_999));
    assert_eq!(play.statuses(conn), [0; 0]);
    play.hand.pass(Duration::from_millis(1));
    assert_eq!(play.statuses(conn), [503]);
    assert_eq!(play.counters().events_refused, 1);
}

#[test]
fn a_late_answer_is_not_taken_for_that_of_the_next_question() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    play.send(conn, &read_channels());
    play.hand.pass(Duration::from_secs(5));
    assert_eq!(play.statuses(conn), [503]);
    play.send(conn, &read_channels());
    play.tell(&answer(1, NO_CHANNELS));
    assert_eq!(play.statuses(conn), [0; 0]);
    play.tell(&answer(2, Answer::Refused(RefusalReason::TooLong)));
    assert_eq!(play.statuses(conn), [400]);
}

#[test]
fn an_answer_for_a_connection_that_is_gone_reaches_nobody() {
    let mut play = Play::new(Limits::default());
    let asker = play.open(0);
    play.send(asker, &read_channels());
    play.hand.lose(asker);
    // Somebody else sits on the same chair, and asks too.
    let next = ConnId::new(asker.slot, asker.generation + 1);
    let origin = Origin::client(0, None);
    play.hand.open_as(next, origin);
    play.clients.insert(next, Client::new(0, Speech::Http));
    play.send(next, &read_channels());
    play.tell(&answer(1, Answer::Users(vec!["somebody"])));
    assert_eq!(play.statuses(next), [0; 0]);
    play.tell(&answer(2, NO_CHANNELS));
    assert_eq!(play.statuses(next), [200]);
}

#[test]
fn publishing_into_a_full_link_is_answered_503_and_nothing_is_queued() {
    let mut play = Play::new(Limits {
        link_bytes: 1_000,
        ..Limits::default()
    });
    let listener = play.enter_channel("private-talk", 1);
    play.told();
    play.hand.stalled.insert(play.link);
    let conn = play.open(0);
    play.send(conn, &publish(&"x".repeat(700)));
    assert_eq!(play.statuses(conn), [0; 0]);
    let other = play.open(0);
    play.send(other, &publish(&"y".repeat(700)));
    assert_eq!(play.statuses(other), [503]);
    // A client event is refused likewise; what tells our own state is not.
    let event = format!(
        "{{\"event\":\"client-a\",\"channel\":\"private-talk\",\"data\":\"{}\"}}",
        "z".repeat(700)
    );
    play.send(listener, &text(&event));
    assert_eq!(play.events(listener), ["pusher:error"]);
    play.send(
        listener,
        &text("{\"event\":\"pusher:unsubscribe\",\"data\":{\"channel\":\"private-talk\"}}"),
    );
    play.hand.release(play.link);
    let told = play.told();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("xxx"), "{told:?}");
    assert!(told[1].starts_with("Unsubscribe"), "{told:?}");
    assert_eq!(play.counters().events_refused, 1);
}

#[test]
fn pipelined_requests_are_answered_in_order_though_one_waits_for_the_switchboard() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    let requests = [READ, &read_channels(), READ, &read_channels(), READ].concat();
    // Whole, and byte by byte.
    play.send(conn, &requests);
    assert_eq!(play.statuses(conn), [200]);
    play.tell(&answer(1, NO_CHANNELS));
    assert_eq!(play.statuses(conn), [200, 200]);
    play.tell(&answer(2, Answer::Refused(RefusalReason::TooLong)));
    assert_eq!(play.statuses(conn), [400, 200]);
    for byte in &requests {
        play.send(conn, &[*byte]);
    }
    assert_eq!(play.statuses(conn), [200]);
    play.tell(&answer(3, NO_CHANNELS));
    play.tell(&answer(4, NO_CHANNELS));
    assert_eq!(play.statuses(conn), [200, 200, 200, 200]);
    assert_eq!(play.counters().http_requests, 10);
}

#[test]
fn a_pipeline_is_left_with_the_kernel_when_it_grows_too_long() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    play.send(conn, &read_channels());
    assert!(play.hand.node.wants_input(conn));
    play.send(conn, &READ.repeat(2_000));
    assert!(!play.hand.node.wants_input(conn));
    play.tell(&answer(1, NO_CHANNELS));
    assert!(play.hand.node.wants_input(conn));
    assert_eq!(play.statuses(conn).len(), 2_001);
}

#[test]
fn a_kept_connection_is_closed_when_no_further_request_comes() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    play.send(conn, READ);
    play.hand.pass(Duration::from_secs(70));
    play.send(conn, READ);
    assert_eq!(play.statuses(conn), [200, 200]);
    play.hand.take_outputs();
    play.hand.pass(Duration::from_secs(74));
    assert_eq!(play.hand.take_outputs(), []);
    play.hand.pass(Duration::from_secs(2));
    assert_eq!(
        play.hand.take_outputs(),
        [Output::Close(conn, Ending::Flushed)]
    );
}

#[test]
fn a_caller_that_sends_no_more_is_still_answered() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    play.send(conn, &read_channels());
    play.hand.take_outputs();
    play.hand.hang_up(conn);
    assert_eq!(play.hand.take_outputs(), []);
    play.tell(&answer(1, NO_CHANNELS));
    assert_eq!(play.statuses(conn), [200]);
    assert_eq!(
        play.hand.take_outputs(),
        [Output::Close(conn, Ending::Flushed)]
    );
}

#[test]
fn an_answer_of_the_wrong_kind_promises_nothing() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    play.send(conn, &publish("1"));
    play.tell(&answer(
        1,
        Answer::Channel {
            counts: ChannelCounts::default(),
            cached: None,
        },
    ));
    assert_eq!(play.statuses(conn), [503]);
    play.send(conn, &publish("2"));
    play.tell(&answer(2, Answer::Refused(RefusalReason::Congested)));
    assert_eq!(play.statuses(conn), [503]);
    play.tell(&answer(99, NO_CHANNELS));
    assert_eq!(play.statuses(conn), [0; 0]);
}

#[test]
fn the_demo_page_is_at_the_root() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    play.send(conn, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let heard = play.heard(conn);
    let [Heard::Answer { status, head, body }] = &heard[..] else {
        panic!("{heard:?}");
    };
    assert_eq!((*status, body.as_str()), (200, "<title>demo</title>"));
    assert!(head.contains("text/html"), "{head}");
}

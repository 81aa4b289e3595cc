//! Subscribers of one worker: those who read too slowly, and answers that cross with their leaving.

use std::time::Duration;

use lineman::base::ids::{ConnId, SocketId};
use lineman::base::limits::Limits;
use lineman::node::{Ending, Node, Output};
use lineman::wire::bus::{Down, Member, RefusalReason};

use crate::worker_play::{Play, deliver};
use crate::world::client::{Heard, text};

#[test]
fn a_slow_client_is_cut_and_counted_and_nobody_else_notices() {
    let mut play = Play::new(Limits {
        outbox_bytes: 2_000,
        ..Limits::default()
    });
    let slow = play.enter_channel("news", 1);
    let quick = play.enter_channel("news", 2);
    play.hand.stalled.insert(slow);
    play.told();
    play.hand.take_outputs();
    let data = format!("\"{}\"", "x".repeat(900));
    for _ in 0..2 {
        play.tell(&deliver("demo/news", &data));
    }
    assert_eq!(play.hand.take_outputs(), []);
    play.tell(&deliver("demo/news", &data));
    let cut = Output::Close(slow, Ending::Cut);
    assert_eq!(play.hand.take_outputs(), [cut]);
    let counters = play.counters();
    assert_eq!((counters.closed_slow, counters.closed), (1, 1));
    let told = play.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("Unsubscribe"), "{told:?}");
    assert_eq!(play.events(quick), ["e", "e", "e"]);
    play.tell(&deliver("demo/news", &data));
    assert_eq!(play.events(quick), ["e"]);
}

#[test]
fn a_fan_out_to_many_waits_for_what_is_prompt_and_keeps_the_order_of_each() {
    let mut play = Play::new(Limits::default());
    let many: Vec<ConnId> = (1..=65).map(|at| play.enter_channel("news", at)).collect();
    let few = play.enter_channel("talk", 66);
    play.hand.fan_outs = 0;
    play.tell(&deliver("demo/news", "1"));
    play.tell(&deliver("demo/talk", "1"));
    assert_eq!(play.events(few), ["e"], "few do not wait");
    assert!(many.iter().all(|conn| play.heard(*conn).is_empty()));
    assert_eq!(play.hand.node.fan_out_left(), 65);
    play.send(many[64], &text(r#"{"event":"pusher:ping"}"#));
    assert_eq!(play.events(many[64]), ["e", "pusher:pong"]);
    play.hand.fan_outs = 10;
    play.tell(&deliver("demo/news", "2"));
    for conn in &many[..10] {
        assert_eq!(play.events(*conn), ["e", "e"]);
    }
    assert!(play.heard(many[10]).is_empty(), "its turn comes");
    play.hand.fan_outs = 55;
    play.hand.pass(Duration::ZERO);
    for conn in &many[10..64] {
        assert_eq!(play.events(*conn), ["e", "e"]);
    }
    assert_eq!(play.events(many[64]), ["e"]);
    assert_eq!(play.hand.node.fan_out_left(), 0);
}

#[test]
fn a_client_that_reads_slowly_is_not_read_from_either() {
    let mut play = Play::new(Limits::default());
    let client = play.enter_channel("news", 1);
    play.hand.stalled.insert(client);
    let data = format!("\"{}\"", "x".repeat(66_000));
    play.tell(&deliver("demo/news", &data));
    assert!(!play.hand.node.wants_input(client));
    play.hand.release(client);
    assert!(play.hand.node.wants_input(client));
    assert!(!play.hand.node.wants_input(ConnId::new(99, 1)), "nobody");
}

#[test]
fn who_sends_too_fast_is_held_back_and_its_end_comes_after_what_it_sent() {
    let mut play = Play::new(Limits {
        messages_per_second: 2,
        ..Limits::default()
    });
    let client = play.open(0);
    let requests = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5);
    play.send(client, requests.as_bytes());
    assert_eq!(play.statuses(client), [200, 200]);
    assert!(!play.hand.node.wants_input(client));
    // TLS reads the end together with the last bytes.
    play.hand.hang_up(client);
    play.hand.take_outputs();
    play.hand.pass(Duration::from_secs(1));
    assert_eq!(play.statuses(client), [200, 200]);
    assert_eq!(play.hand.take_outputs(), []);
    play.hand.pass(Duration::from_secs(1));
    assert_eq!(play.statuses(client), [200]);
    let ended = Output::Close(client, Ending::Flushed);
    assert_eq!(play.hand.take_outputs(), [ended]);
    assert!(play.counters().throttled >= 2);
}

#[test]
fn a_client_that_hangs_up_leaves_its_channels() {
    let mut play = Play::new(Limits::default());
    let conn = play.enter_channel("news", 1);
    play.told();
    play.hand.hang_up(conn);
    let told = play.told();
    assert!(told[0].starts_with("Unsubscribe"), "{told:?}");
    assert_eq!(told.len(), 1);
    play.tell(&deliver("demo/news", "\"late\""));
    assert_eq!(play.heard(conn), []);
}

#[test]
fn the_list_of_members_serves_whoever_is_left_when_the_first_to_ask_has_gone() {
    let mut play = Play::new(Limits::default());
    let (first, second) = (play.enter(), play.enter());
    play.ask_to_subscribe(first, "presence-room", Some("alice"));
    play.ask_to_subscribe(second, "presence-room", Some("bob"));
    play.hand.lose(first);
    // In the order the switchboard took them up; the list goes with the first of the link.
    let member = |user_id| Member {
        user_id,
        user_info: "null",
    };
    let channel = "demo/presence-room";
    play.confirm(1, channel, Some(vec![member("alice")]));
    play.tell(&Down::MemberAdded {
        channel,
        member: member("bob"),
    });
    play.confirm(2, channel, None);
    play.tell(&Down::MemberRemoved {
        channel,
        user_id: "alice",
    });
    let heard = play.heard(second);
    let Some(Heard::Text(success)) = heard.first() else {
        panic!("no success but {heard:?}");
    };
    let data = "{\\\"presence\\\":{\\\"ids\\\":[\\\"alice\\\",\\\"bob\\\"]";
    assert!(success.contains(data), "{success}");
    assert_eq!(heard.len(), 2, "alice was there and leaves: {heard:?}");
}

#[test]
fn a_subscription_confirmed_after_the_client_left_is_nobodys() {
    let mut play = Play::new(Limits::default());
    let conn = play.enter();
    play.ask_to_subscribe(conn, "news", None);
    let leave = "{\"event\":\"pusher:unsubscribe\",\"data\":{\"channel\":\"news\"}}";
    play.send(conn, &text(leave));
    play.ask_to_subscribe(conn, "news", None);
    play.confirm(1, "demo/news", None);
    assert_eq!(play.heard(conn), []);
    play.tell(&deliver("demo/news", "\"before\""));
    assert_eq!(play.heard(conn), []);
    play.confirm(2, "demo/news", None);
    play.tell(&deliver("demo/news", "\"after\""));
    let success = "pusher_internal:subscription_succeeded";
    assert_eq!(play.events(conn), [success, "e"]);
}

#[test]
fn asking_twice_before_the_answer_is_answered_once() {
    let mut play = Play::new(Limits::default());
    let conn = play.enter();
    play.told();
    play.ask_to_subscribe(conn, "news", None);
    play.ask_to_subscribe(conn, "news", None);
    assert_eq!(play.told().len(), 1);
    play.confirm(1, "demo/news", None);
    assert_eq!(play.events(conn).len(), 1);
}

#[test]
fn who_is_not_in_yet_sends_nothing() {
    let mut play = Play::new(Limits::default());
    let conn = play.enter();
    play.ask_to_subscribe(conn, "private-talk", None);
    play.told();
    let event = "{\"event\":\"client-a\",\"channel\":\"private-talk\",\"data\":{}}";
    play.send(conn, &text(event));
    assert_eq!(play.events(conn), ["pusher:error"]);
    assert_eq!(play.told(), [""; 0]);
}

#[test]
fn a_refusal_of_the_switchboard_reaches_the_client_and_leaves_nothing_behind() {
    let mut play = Play::new(Limits::default());
    let conn = play.enter();
    for (ticket, reason, status) in [
        (1, RefusalReason::Full, "409"),
        (2, RefusalReason::Settling, "503"),
    ] {
        play.ask_to_subscribe(conn, "presence-room", Some("bob"));
        let channel = "demo/presence-room";
        play.tell(&Down::Refused {
            ticket,
            channel,
            reason,
        });
        let heard = play.heard(conn);
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(format!("{heard:?}").contains(status), "{heard:?}");
    }
    let unknown = Down::Refused {
        ticket: 77,
        channel: "demo/presence-room",
        reason: RefusalReason::Full,
    };
    play.tell(&unknown);
    assert_eq!(play.heard(conn), []);
}

#[test]
fn a_client_event_the_switchboard_could_not_deliver_is_reported_to_its_sender() {
    let mut play = Play::new(Limits::default());
    let conn = play.enter_channel("private-talk", 1);
    let id = play.clients[&conn].socket_id.clone().expect("it entered");
    let sender = SocketId::parse(&id).expect("an id");
    play.tell(&Down::Undelivered { sender });
    assert_eq!(play.events(conn), ["pusher:error"]);
    play.hand.lose(conn);
    play.tell(&Down::Undelivered { sender });
    assert_eq!(play.heard(conn), []);
}

#[test]
fn what_the_switchboard_says_of_channels_nobody_holds_changes_nothing() {
    let mut play = Play::new(Limits::default());
    let conn = play.enter_channel("news", 1);
    let member = Member {
        user_id: "bob",
        user_info: "null",
    };
    for channel in ["demo/presence-room", "demo/news"] {
        play.tell(&Down::MemberAdded { channel, member });
        play.tell(&Down::MemberRemoved {
            channel,
            user_id: "bob",
        });
        play.tell(&Down::Roster {
            channel,
            members: vec![member],
        });
    }
    play.tell(&deliver("demo/other", "\"x\""));
    assert_eq!(play.heard(conn), []);
}

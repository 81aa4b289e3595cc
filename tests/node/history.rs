//! History at its seams: between what a subscriber missed and what comes live, and when a link that
//! broke may have lost something.

use std::time::Duration;

use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::node::{Origin, Peer};
use lineman::wire::bus::{Beginning, Content, Down, Past, Position, Recover, Up};

use crate::switchboard_play::{Board, hello, holding, item, publish};
use crate::worker_play::Play;
use crate::world::client::{Heard, text};

const ROOM: &str = "demo/kept-room";

/// Subscribes from this position on.
fn resume(board: &mut Board, conn: ConnId, position: Position) {
    let socket_id = None;
    board.hear(
        conn,
        &Up::Subscribe {
            ticket: 7,
            channel: ROOM,
            member: None,
            recover: Some(Recover {
                position,
                socket_id,
            }),
        },
    );
}

/// Everything on a link in order: live events as their offset, subscriptions as where they begin and
/// the offsets of what they bring; and the last position.
fn course(board: &mut Board, conn: ConnId) -> (String, Option<Position>) {
    let mut words = Vec::new();
    let mut last = None;
    for frame in board.hand.take_frames(conn) {
        match Down::decode(&frame).expect("a message") {
            Down::Deliver { positions, .. } => {
                last = positions[0];
                words.push(positions[0].expect("history").offset.to_string());
            }
            Down::Subscribed { beginning, .. } => {
                let Beginning { position, missed } = beginning.expect("history");
                last = Some(position);
                let missed = missed.map(|it| it.iter().map(|past| past.offset).collect::<Vec<_>>());
                words.push(format!("at {} missed {missed:?}", position.offset));
            }
            _ => {}
        }
    }
    (words.join(", "), last)
}

#[test]
fn what_was_missed_ends_where_live_begins_though_the_link_carries_live_events_already() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.subscribe(one, ROOM);
    board.hear(two, &publish(1, ROOM, "\"1\""));
    let (_, first) = course(&mut board, one);
    board.hear(two, &publish(2, ROOM, "\"2\""));
    resume(&mut board, one, first.expect("an event came"));
    board.hear(two, &publish(3, ROOM, "\"3\""));
    let (told, _) = course(&mut board, one);
    assert_eq!(told, "2, at 2 missed Some([2]), 3");
}

#[test]
fn a_worker_whose_link_broke_may_have_missed_something_so_that_no_old_position_counts() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.subscribe(one, ROOM);
    board.subscribe(two, ROOM);
    board.hear(two, &publish(1, ROOM, "\"1\""));
    let (_, seen) = course(&mut board, one);
    let seen = seen.expect("an event came");
    board.hand.lose(one);
    board.hear(two, &publish(2, ROOM, "\"2\""));
    course(&mut board, two);
    let again = board.link();
    board.hear(again, &hello(0));
    board.hear(again, &holding(ROOM, &["a"]));
    board.hear(again, &Up::Announced);
    board.hear(two, &publish(3, ROOM, "\"3\""));
    for conn in [again, two] {
        let (told, last) = course(&mut board, conn);
        assert_eq!(told, "1");
        assert_ne!(last.expect("an event came").epoch, seen.epoch);
    }
    resume(&mut board, two, seen);
    assert_eq!(course(&mut board, two).0, "at 1 missed None");
}

#[test]
fn a_worker_that_held_nothing_of_a_channel_changes_nothing_there() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.subscribe(two, ROOM);
    board.hear(two, &publish(1, ROOM, "\"1\""));
    let (_, seen) = course(&mut board, two);
    board.hand.lose(one);
    let again = board.join(0);
    board.hear(two, &publish(2, ROOM, "\"2\""));
    resume(&mut board, again, seen.expect("an event came"));
    assert_eq!(course(&mut board, again).0, "at 2 missed Some([2])");
}

#[test]
fn on_a_link_that_is_nearly_full_nothing_is_recovered_and_nothing_breaks() {
    let limits = Limits {
        link_bytes: 3_000,
        ..Limits::default()
    };
    let (mut board, one, two) = Board::of_two(limits);
    let data = format!("\"{}\"", "x".repeat(800));
    board.hear(one, &publish(1, ROOM, &data));
    let start = Position {
        epoch: 0,
        offset: 0,
    };
    resume(&mut board, two, start);
    let (_, begin) = course(&mut board, two);
    let begin = begin.expect("success");
    let before = Position { offset: 0, ..begin };
    board.hand.stalled.insert(two);
    for _ in 0..4 {
        resume(&mut board, two, before);
    }
    board.hand.release(two);
    let (told, _) = course(&mut board, two);
    let begins: Vec<&str> = told.split(", ").collect();
    assert_eq!(begins.len(), 4, "{told}");
    assert_eq!(begins[0], "at 1 missed Some([1])");
    assert_eq!(begins[3], "at 1 missed None");
}

#[test]
fn a_subscription_that_was_not_answered_is_asked_again_from_the_same_position() {
    let mut play = Play::new(Limits::default());
    let conn = play.enter();
    let message = r#"{"event":"pusher:subscribe","data":{"channel":"kept-room",
        "recover":{"epoch":"00000000000000ff","offset":3,"socket_id":"1.2"}}}"#;
    play.send(conn, &text(message));
    let asked = play.told();
    assert!(asked[0].contains("epoch: 255, offset: 3"), "{asked:?}");
    play.hand.lose(play.link);
    play.hand.pass(Duration::from_secs(2));
    play.link = play.hand.open(Origin::Dialled(Peer::Switchboard));
    let told = play.told();
    assert_eq!(told.last(), asked.last());
}

#[test]
fn a_client_whose_outbox_has_no_room_is_told_that_nothing_was_recovered() {
    let mut play = Play::new(Limits {
        outbox_bytes: 4_000,
        ..Limits::default()
    });
    let conn = play.enter();
    play.ask_to_subscribe(conn, "kept-room", None);
    let (data, position) = (
        "x".repeat(900),
        Position {
            epoch: 1,
            offset: 2,
        },
    );
    let data = format!("\"{data}\"");
    let past = |offset| Past {
        offset,
        name: "\"e\"",
        data: &data,
        user_id: None,
    };
    let success = |ticket, missed| Down::Subscribed {
        ticket,
        channel: ROOM,
        roster: None,
        cached: None,
        beginning: Some(Beginning {
            position,
            missed: Some(missed),
        }),
    };
    play.tell(&success(1, vec![past(1), past(2)]));
    let heard = play.heard(conn);
    let [Heard::Text(text)] = &heard[..] else {
        panic!("{heard:?}");
    };
    assert!(text.contains(r#""offset":2,"recovered":false"#), "{text}");
    let conn = play.enter();
    play.ask_to_subscribe(conn, "kept-room", None);
    play.tell(&success(2, vec![past(2)]));
    assert_eq!(play.heard(conn).len(), 2);
}

#[test]
fn only_events_are_kept() {
    let (mut board, one, _) = Board::of_two(Limits::default());
    board.subscribe(one, ROOM);
    let mut event = item(ROOM, "");
    event.content = Content::Text("a topic's");
    let items = vec![event];
    board.hear(
        one,
        &Up::Publish {
            ticket: 1,
            terms: Default::default(),
            items,
        },
    );
    assert!(board.told(one)[0].contains("positions: []"));
}

//! What the switchboard reports to the courier: in which order, how often, and what it does when the
//! courier is away.

use std::time::Duration;

use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::node::switchboard::Watched;
use lineman::node::{Origin, Output, Peer};
use lineman::push::webhook::Kind;
use lineman::wire::bus::Up;
use lineman::wire::courier_bus::{Receipt, Report};

use crate::switchboard_play::{Board, holding, item, join, publish};

const ROOM: &str = "demo/presence-room";

fn watched() -> Watched {
    let kinds = vec![Kind::ClientEvent, Kind::SubscriptionCount, Kind::CacheMiss];
    Watched::from([("demo".to_string(), kinds)])
}

/// A switchboard that expects so many workers and has dialled its courier.
fn board(links: u32) -> (Board, ConnId) {
    let mut board = Board::watching(links, Limits::default(), watched());
    board.hand.pass(Duration::ZERO);
    let dial = Output::Dial(Peer::Courier);
    assert_eq!(board.hand.take_outputs(), [dial]);
    let courier = board.hand.open(Origin::Dialled(Peer::Courier));
    (board, courier)
}

fn reports(board: &mut Board, courier: ConnId) -> Vec<String> {
    let frames = board.hand.take_frames(courier);
    let read = |frame: &Vec<u8>| match Report::decode(frame).expect("a report") {
        Report::Hello { .. } => "hello".to_string(),
        Report::Here {
            sequence,
            channel,
            user_id,
        } => {
            format!("{sequence} +{channel} {}", user_id.unwrap_or("-"))
        }
        Report::Gone {
            sequence,
            channel,
            user_id,
        } => {
            format!("{sequence} -{channel} {}", user_id.unwrap_or("-"))
        }
        Report::Passed { sequence, json, .. } => format!("{sequence} {json}"),
        Report::SnapshotBegins => "[".to_string(),
        Report::Present { channel, users } => format!("{channel} {users:?}"),
        Report::SnapshotEnds => "]".to_string(),
        other => panic!("{other:?} is for a cluster or of the gateway"),
    };
    frames.iter().map(read).collect()
}

fn receipt(board: &mut Board, courier: ConnId, receipt: Receipt<'_>) {
    board.hand.receive(courier, &receipt.encode());
}

#[test]
fn changes_are_reported_once_and_numbered() {
    let (mut board, courier) = board(1);
    let worker = board.join(0);
    receipt(&mut board, courier, Receipt::Heard { sequence: 0 });
    assert_eq!(reports(&mut board, courier), ["hello", "[", "]"]);
    board.hear(worker, &join(1, ROOM, "u"));
    board.hear(worker, &join(2, ROOM, "u"));
    let (channel, user_id) = (ROOM, Some("u"));
    board.hear(worker, &Up::Unsubscribe { channel, user_id });
    board.hear(worker, &Up::Unsubscribe { channel, user_id });
    board.hear(worker, &join(3, "other/presence-x", "u"));
    let expected = [
        "1 +demo/presence-room -",
        "2 +demo/presence-room u",
        "3 -demo/presence-room u",
        "4 -demo/presence-room -",
    ];
    assert_eq!(reports(&mut board, courier), expected);
}

#[test]
fn client_events_counts_and_misses_are_passed_on_and_publishes_are_not() {
    let (mut board, courier) = board(1);
    let worker = board.join(0);
    receipt(&mut board, courier, Receipt::Heard { sequence: 0 });
    reports(&mut board, courier);
    board.told(worker);
    board.subscribe(worker, "demo/cache-x");
    board.subscribe(worker, "demo/cache-x");
    let items = vec![item("demo/cache-x", "\"d\"")];
    board.hear(
        worker,
        &Up::Publish {
            ticket: 0,
            terms: Default::default(),
            items,
        },
    );
    board.hear(worker, &publish(5, "demo/cache-x", "\"d\""));
    let told = reports(&mut board, courier);
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told[1].contains("cache_miss"), "{told:?}");
    assert!(told[2].contains("\"subscription_count\":1}"), "{told:?}");
    assert!(told[3].contains("\"subscription_count\":2}"), "{told:?}");
    assert!(told[4].contains("\"event\":\"e\",\"data\":\"d\",\"socket_id\":\"1.2\""));
}

#[test]
fn what_was_not_stored_is_reported_again_and_then_the_whole_truth() {
    let (mut board, courier) = board(1);
    let worker = board.join(0);
    receipt(&mut board, courier, Receipt::Heard { sequence: 0 });
    board.hear(worker, &join(1, ROOM, "u"));
    receipt(&mut board, courier, Receipt::Stored { sequence: 1 });
    board.hand.lose(courier);
    board.hear(worker, &join(2, ROOM, "v"));
    board.hand.take_outputs();
    board.hand.pass(Duration::from_secs(1));
    let dial = Output::Dial(Peer::Courier);
    assert_eq!(board.hand.take_outputs(), [dial]);
    let next = board.hand.open(Origin::Dialled(Peer::Courier));
    receipt(&mut board, next, Receipt::Heard { sequence: 1 });
    let expected = [
        "hello",
        "2 +demo/presence-room u",
        "3 +demo/presence-room v",
        "[",
        "demo/presence-room [\"u\", \"v\"]",
        "]",
    ];
    assert_eq!(reports(&mut board, next), expected);
}

#[test]
fn no_snapshot_is_sent_before_the_truth_is_known_and_one_after_a_death() {
    let (mut board, courier) = board(2);
    receipt(&mut board, courier, Receipt::Heard { sequence: 0 });
    let one = board.link();
    board.hear(one, &crate::switchboard_play::hello(0));
    board.hear(one, &holding(ROOM, &["u"]));
    board.hear(one, &Up::Announced);
    assert_eq!(reports(&mut board, courier), ["hello"]);
    let two = board.join(1);
    let present = "demo/presence-room [\"u\"]";
    assert_eq!(reports(&mut board, courier), ["[", present, "]"]);
    board.hear(two, &join(1, "demo/presence-b", "w"));
    reports(&mut board, courier);
    board.hand.lose(one);
    let left = "demo/presence-b [\"w\"]";
    assert_eq!(reports(&mut board, courier), ["[", left, "]"]);
}

//! When a publish is answered: with the kernel on every link, refused as a whole, or not yet.

use std::time::Duration;

use lineman::base::limits::Limits;
use lineman::node::Origin;
use lineman::wire::bus::{Question, Up};

use crate::switchboard_play::{Board, item, join, publish};

const ROOM: &str = "demo/presence-room";

fn narrow() -> Limits {
    Limits {
        link_bytes: 1_000,
        ..Limits::default()
    }
}

#[test]
fn a_publish_is_answered_when_every_other_link_has_taken_it() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.subscribe(one, "demo/news");
    board.subscribe(two, "demo/news");
    board.hand.stalled.insert(two);
    board.hear(one, &publish(1, "demo/news", "\"a\""));
    board.hear(one, &publish(2, "demo/other", "\"b\""));
    let told = board.told(one);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("Deliver"), "{told:?}");
    assert!(told[1].contains("ticket: 2"), "{told:?}");
    board.hand.release_all_but(two, 1);
    assert_eq!(board.kinds(one), [""; 0], "one byte is missing");
    board.hand.release(two);
    assert_eq!(board.kinds(two), ["Deliver"]);
    let told = board.told(one);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("ticket: 1"), "{told:?}");
    assert!(told[0].contains("Published"), "{told:?}");
}

#[test]
fn a_worker_that_dies_takes_its_subscribers_with_it_and_the_publish_is_good() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.subscribe(two, "demo/news");
    board.hand.stalled.insert(two);
    board.hear(one, &publish(1, "demo/news", "\"a\""));
    assert_eq!(board.kinds(one), [""; 0]);
    board.hand.lose(two);
    let told = board.told(one);
    assert!(told[0].contains("Published"), "{told:?}");
}

#[test]
fn a_publish_that_was_lost_with_a_link_we_cut_is_refused() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.subscribe(two, "demo/news");
    board.hand.stalled.insert(two);
    board.hear(one, &publish(1, "demo/news", "\"a\""));
    // That worker lives, and so do its subscribers, who will never see the event.
    board.hand.receive(two, &[255; 12]);
    assert!(board.has_cut(two));
    let told = board.told(one);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("Refused(Congested)"), "{told:?}");
}

#[test]
fn a_publish_that_one_link_has_no_room_for_reaches_nobody() {
    let (mut board, one, two) = Board::of_two(narrow());
    board.subscribe(one, "demo/news");
    board.subscribe(two, "demo/news");
    board.hand.stalled.insert(two);
    let data = format!("\"{}\"", "x".repeat(600));
    board.hear(one, &publish(1, "demo/news", &data));
    assert_eq!(board.kinds(one), ["Deliver"]);
    board.hear(one, &publish(2, "demo/news", &data));
    let told = board.told(one);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("Refused(Congested)"), "{told:?}");
    // A client event wants no answer but word of its failure.
    board.hear(one, &publish(0, "demo/news", &data));
    let told = board.told(one);
    assert_eq!(told, ["Undelivered { sender: 1.2 }"]);
    // A batch with one such event is refused as a whole.
    let items = vec![item("demo/nobody", "\"a\""), item("demo/news", &data)];
    let terms = Default::default();
    board.hear(
        one,
        &Up::Publish {
            ticket: 3,
            terms,
            items,
        },
    );
    assert_eq!(board.kinds(one), ["Answer"]);
    board.hand.release(two);
    assert_eq!(board.kinds(two), ["Deliver"]);
    assert_eq!(board.kinds(one), ["Answer"]);
    board.hear(one, &publish(4, "demo/news", &data));
    assert_eq!(board.kinds(two), ["Deliver"]);
}

#[test]
fn an_asker_that_does_not_read_is_given_nothing_more_to_read() {
    let (mut board, one, two) = Board::of_two(narrow());
    board.subscribe(one, "demo/news");
    board.hand.stalled.insert(one);
    let data = format!("\"{}\"", "x".repeat(600));
    board.hear(two, &publish(1, "demo/news", &data));
    board.hear(one, &publish(2, "demo/other", &data));
    board.hand.release(one);
    let told = board.told(one);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("Refused(Congested)"), "{told:?}");
}

#[test]
fn no_more_publishes_wait_for_kernels_than_the_limit_allows() {
    let (mut board, one, two) = Board::of_two(Limits {
        held_messages: 1,
        ..Limits::default()
    });
    board.subscribe(two, "demo/news");
    board.hand.stalled.insert(two);
    board.hear(one, &publish(1, "demo/news", "\"a\""));
    assert_eq!(board.told(one), [""; 0]);
    board.hear(one, &publish(2, "demo/news", "\"b\""));
    let told = board.told(one);
    assert!(told[0].contains("Refused(Congested)"), "{told:?}");
    board.hand.release(two);
    assert_eq!(board.kinds(two), ["Deliver"]);
}

#[test]
fn a_hopeless_link_is_cut_and_nothing_is_promised_until_it_has_announced_itself_again() {
    let (mut board, one, two) = Board::of_two(Limits {
        link_bytes: 4_000,
        presence_members: 200,
        ..Limits::default()
    });
    board.hear(two, &join(1, ROOM, "bob"));
    board.told(two);
    board.hand.stalled.insert(two);
    board.hand.take_outputs();
    // Changes of presence cannot be refused; at twice the limit it is enough.
    let users: Vec<String> = (0..200).map(|number| format!("u{number}")).collect();
    let cut_at = users.iter().position(|user| {
        board.hear(one, &join(2, ROOM, user));
        board.has_cut(two)
    });
    assert!(cut_at.is_some_and(|count| count > 100), "{cut_at:?}");
    board.told(one);
    board.hear(one, &publish(9, ROOM, "\"a\""));
    assert_eq!(board.kinds(one), [""; 0], "held");
    let back = board.join(1);
    assert_eq!(board.kinds(back), ["Welcome"]);
    let told = board.told(one);
    let begins = ["Welcome", "Roster", "Deliver", "Answer"];
    assert_eq!(told.len(), begins.len());
    assert!(
        told.iter()
            .zip(begins)
            .all(|(told, kind)| told.starts_with(kind))
    );
    assert!(told[3].contains("Published"), "{}", told[3]);
}

#[test]
fn a_link_that_does_not_come_back_is_waited_for_only_so_long() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.hand.receive(two, &[255; 12]);
    board.hear(one, &publish(1, "demo/news", "\"a\""));
    board.hand.pass(Duration::from_millis(999));
    assert_eq!(board.kinds(one), [""; 0]);
    board.hand.pass(Duration::from_millis(1));
    assert_eq!(board.kinds(one), ["Welcome", "Answer"]);
}

#[test]
fn an_answer_too_long_for_a_link_says_so() {
    let (mut board, one, _) = Board::of_two(Limits {
        bus_message_bytes: 100,
        ..Limits::default()
    });
    for number in 0..10 {
        board.subscribe(one, &format!("demo/channel-{number}"));
    }
    let question = Question::Channels {
        app_id: "demo",
        prefix: "",
    };
    board.hear(
        one,
        &Up::Ask {
            ticket: 1,
            question,
        },
    );
    let told = board.told(one);
    assert!(told[0].contains("Refused(TooLong)"), "{told:?}");
    let question = Question::Channels {
        app_id: "demo",
        prefix: "channel-1",
    };
    board.hear(
        one,
        &Up::Ask {
            ticket: 2,
            question,
        },
    );
    let told = board.told(one);
    assert!(told[0].contains("Channels("), "{told:?}");
}

#[test]
fn a_client_has_no_business_here() {
    let (mut board, _, _) = Board::of_two(Limits::default());
    let client = board.hand.open(Origin::client(0, None));
    assert!(board.has_cut(client));
}

//! Links that come, go, come twice, or speak another language; and what is held until all have spoken.

use std::time::Duration;

use lineman::base::counters::Counters;
use lineman::base::limits::Limits;
use lineman::node::{Origin, Output};
use lineman::wire::bus::{Question, Up, VERSION};
use lineman::wire::control::{Order, Report};

use crate::switchboard_play::{Board, ask_whether_ready, hello, holding, join, publish};

const ROOM: &str = "demo/presence-room";

#[test]
fn nothing_is_answered_before_all_links_have_announced_what_they_hold() {
    let mut board = Board::new(2, Limits::default());
    let one = board.link();
    board.hear(one, &hello(0));
    board.hear(one, &holding(ROOM, &["alice"]));
    board.hear(one, &Up::Announced);
    board.hear(one, &publish(1, ROOM, "\"a\""));
    board.hear(one, &ask_whether_ready(2));
    assert_eq!(board.kinds(one), [""; 0]);
    let two = board.link();
    board.hear(two, &hello(1));
    board.hear(two, &holding(ROOM, &["bob", "alice"]));
    assert_eq!(board.kinds(one), [""; 0]);
    board.hear(two, &Up::Announced);
    assert_eq!(board.kinds(two), ["Welcome", "Roster", "Deliver"]);
    let told = board.told(one);
    assert_eq!(told[0], "Welcome");
    assert!(
        told[1].contains("alice") && told[1].contains("bob"),
        "{told:?}"
    );
    assert!(told[2].starts_with("Deliver"), "{told:?}");
    assert!(told[3].contains("linked: 2, expected: 2"), "{told:?}");
    assert!(told[4].contains("Published"), "{told:?}");
}

#[test]
fn links_that_stay_away_are_waited_for_only_so_long() {
    let mut board = Board::new(3, Limits::default());
    let one = board.join(0);
    board.hear(one, &ask_whether_ready(1));
    board.hand.pass(Duration::from_millis(999));
    assert_eq!(board.kinds(one), [""; 0]);
    board.hand.pass(Duration::from_millis(1));
    let told = board.told(one);
    assert!(told[1].contains("linked: 1, expected: 3"), "{told:?}");
    // Whoever comes late is welcome, and the others hear of its users.
    board.hear(one, &join(2, ROOM, "alice"));
    board.told(one);
    let late = board.link();
    board.hear(late, &hello(1));
    board.hear(late, &holding(ROOM, &["alice", "bob"]));
    board.hear(late, &Up::Announced);
    let told = board.told(one);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("MemberAdded"), "{told:?}");
    assert!(told[0].contains("bob"), "{told:?}");
    assert_eq!(board.kinds(late), ["Welcome", "Roster"]);
}

#[test]
fn what_is_too_much_to_hold_is_turned_away() {
    let mut board = Board::new(
        2,
        Limits {
            held_messages: 2,
            ..Limits::default()
        },
    );
    let one = board.join(0);
    board.hear(one, &join(1, ROOM, "alice"));
    board.hear(one, &ask_whether_ready(2));
    assert_eq!(board.kinds(one), [""; 0]);
    board.hear(one, &publish(3, ROOM, "\"a\""));
    board.hear(one, &publish(0, ROOM, "\"b\""));
    board.hear(one, &ask_whether_ready(4));
    board.hear(one, &join(5, ROOM, "bob"));
    // An unsubscription cannot be refused.
    let leave = Up::Unsubscribe {
        channel: ROOM,
        user_id: Some("alice"),
    };
    board.hear(one, &leave);
    let told = board.told(one);
    let settling = told.iter().filter(|told| told.contains("Settling"));
    assert_eq!(settling.count(), 3, "{told:?}");
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[1].starts_with("Undelivered"), "{told:?}");
    board.join(1);
    assert_eq!(board.kinds(one), ["Welcome", "Subscribed", "Answer"]);
    let question = Question::Users { channel: ROOM };
    board.hear(
        one,
        &Up::Ask {
            ticket: 6,
            question,
        },
    );
    assert!(board.told(one)[0].contains("Users([])"));
}

#[test]
fn what_a_link_asked_is_forgotten_with_it() {
    let mut board = Board::new(
        2,
        Limits {
            held_messages: 1,
            ..Limits::default()
        },
    );
    let one = board.join(0);
    board.hear(one, &join(1, ROOM, "alice"));
    board.hand.lose(one);
    let again = board.join(0);
    board.hear(again, &join(2, ROOM, "bob"));
    assert_eq!(board.kinds(again), [""; 0], "there is room to hold it");
    board.join(1);
    let told = board.told(again);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(!told[1].contains("alice"), "{told:?}");
}

#[test]
fn another_version_and_another_division_are_not_understood() {
    let strange = [
        Up::Hello {
            version: VERSION + 1,
            slot: 0,
            life: 0,
            shard: 0,
            shards: 1,
            counted: Vec::new(),
        },
        Up::Hello {
            version: VERSION,
            slot: 0,
            life: 0,
            shard: 0,
            shards: 2,
            counted: Vec::new(),
        },
        Up::Hello {
            version: VERSION,
            slot: 0,
            life: 0,
            shard: 1,
            shards: 1,
            counted: Vec::new(),
        },
        Up::Announced,
        ask_whether_ready(1),
    ];
    for message in strange {
        let (mut board, one, _) = Board::of_two(Limits::default());
        let stranger = board.link();
        board.hear(stranger, &message);
        assert!(board.has_cut(stranger), "{message:?}");
        // Nobody else waits because of it.
        board.hear(one, &publish(1, "demo/news", "\"a\""));
        assert_eq!(board.kinds(one), ["Answer"], "{message:?}");
    }
}

#[test]
fn a_link_that_asks_before_it_has_announced_is_not_understood() {
    let mut board = Board::new(1, Limits::default());
    let one = board.link();
    board.hear(one, &hello(0));
    board.hear(one, &publish(1, "demo/news", "\"a\""));
    assert!(board.has_cut(one));
}

#[test]
fn a_link_that_introduces_itself_twice_changes_nothing() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.hear(one, &join(1, ROOM, "alice"));
    board.told(one);
    board.hear(one, &hello(1));
    board.hear(one, &holding(ROOM, &["bob"]));
    board.hear(one, &Up::Announced);
    assert_eq!(board.kinds(one), [""; 0]);
    assert_eq!(board.kinds(two), [""; 0]);
    assert_eq!(board.hand.take_outputs(), []);
}

#[test]
fn garbled_bytes_end_a_link_and_those_of_others_stay() {
    for garbled in [&[255; 12][..], &[3, 0, 0, 0, 99, 0, 0]] {
        let (mut board, one, two) = Board::of_two(Limits::default());
        board.hear(one, &join(1, ROOM, "alice"));
        board.hear(two, &join(2, ROOM, "bob"));
        board.told(one);
        board.hand.receive(two, garbled);
        assert!(board.has_cut(two));
        let told = board.told(one);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("MemberRemoved"), "{told:?}");
    }
}

#[test]
fn frames_are_understood_however_they_are_cut() {
    let (mut board, one, _) = Board::of_two(Limits::default());
    let bytes = [
        join(1, ROOM, "alice").encode(),
        publish(2, ROOM, "\"a\"").encode(),
    ];
    for byte in bytes.concat() {
        board.hand.receive(one, &[byte]);
    }
    assert_eq!(board.kinds(one), ["Subscribed", "Deliver", "Answer"]);
}

#[test]
fn of_two_links_that_claim_one_slot_the_later_one_is_believed() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.hear(one, &join(1, ROOM, "alice"));
    board.hear(two, &join(2, ROOM, "bob"));
    board.told(one);
    board.told(two);
    board.hand.take_outputs();
    let again = board.link();
    board.hear(again, &hello(0));
    assert!(board.has_cut(one));
    assert_eq!(board.kinds(two), ["MemberRemoved"]);
    board.hear(again, &holding(ROOM, &["carol"]));
    board.hear(again, &Up::Announced);
    assert_eq!(board.kinds(again), ["Welcome", "Roster"]);
    assert_eq!(board.kinds(two), ["MemberAdded"]);
    // The end of the former one is no news.
    board.hand.lose(one);
    board.hear(two, &publish(3, ROOM, "\"a\""));
    assert_eq!(board.kinds(again), ["Deliver"]);
    assert_eq!(board.kinds(two), ["Deliver", "Answer"]);
}

#[test]
fn users_are_announced_to_the_others_and_listed_for_the_newcomer() {
    let (mut board, one, two) = Board::of_two(Limits::default());
    board.hear(one, &join(1, ROOM, "alice"));
    assert!(board.told(one)[0].contains("roster: Some"));
    board.hear(two, &join(2, ROOM, "bob"));
    assert_eq!(board.kinds(one), ["MemberAdded"]);
    assert!(board.told(two)[0].contains("alice"));
    // Further ones on links that know the channel: told there as well, before success.
    board.hear(two, &join(3, ROOM, "carol"));
    assert_eq!(board.kinds(one), ["MemberAdded"]);
    let told = board.told(two);
    assert!(told[0].starts_with("MemberAdded"), "{told:?}");
    assert!(told[1].contains("roster: None"), "{told:?}");
    // Again somebody who is there.
    board.hear(one, &join(4, ROOM, "carol"));
    assert_eq!(board.kinds(one), ["Subscribed"]);
    assert_eq!(board.kinds(two), [""; 0]);
}

#[test]
fn the_master_is_told_at_once_that_it_serves_and_the_numbers_when_it_asks() {
    let (mut board, _, two) = Board::of_two(Limits::default());
    let master = board.hand.open(Origin::Master);
    assert_eq!(board.hand.take_frames(master), [Report::Ready.encode()]);
    board.hand.lose(two);
    board.hand.receive(master, &Order::Ask.encode());
    let frames = board.hand.take_frames(master);
    let Ok(Report::Stats(values)) = Report::decode(&frames[0]) else {
        panic!("no numbers");
    };
    let counters = Counters::from_values(&values);
    assert_eq!((counters.links, counters.link_losses), (1, 1));
    board.hand.receive(master, &Order::Stop.encode());
    assert!(board.hand.take_outputs().contains(&Output::Quit));
}

#[test]
fn a_switchboard_without_a_master_ends() {
    for end in [0, 1, 2] {
        let (mut board, _, _) = Board::of_two(Limits::default());
        let master = board.hand.open(Origin::Master);
        match end {
            0 => board.hand.lose(master),
            1 => board.hand.hang_up(master),
            _ => board.hand.receive(master, &[255; 12]),
        }
        assert!(board.hand.take_outputs().contains(&Output::Quit), "{end}");
    }
}

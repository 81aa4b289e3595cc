//! A worker and its own kind: a link that is full, breaks or talks nonsense, and a master's orders.

use std::time::Duration;

use lineman::base::counters::Counters;
use lineman::base::limits::Limits;
use lineman::node::{Ending, Node, Origin, Output, Peer};
use lineman::wire::bus::Down;
use lineman::wire::control::{Order, Report};

use crate::worker_play::{Play, READ, publish, read_channels};
use crate::world::client::Heard;

#[test]
fn clients_are_not_read_while_the_link_is_congested() {
    let mut play = Play::new(Limits {
        http_body_bytes: 8 << 20,
        event_data_bytes: 8 << 20,
        ..Limits::default()
    });
    let (publisher, client) = (play.open(0), play.enter());
    play.hand.stalled.insert(play.link);
    assert!(play.hand.node.wants_input(client));
    play.send(publisher, &publish(&"x".repeat(5 << 20)));
    assert!(!play.hand.node.wants_input(client));
    assert!(!play.hand.node.wants_input(publisher));
    assert!(
        play.hand.node.wants_input(play.link),
        "or it would never end"
    );
    play.hand.release(play.link);
    assert!(play.hand.node.wants_input(client));
}

#[test]
fn a_broken_link_answers_everybody_and_is_dialled_again_with_patience() {
    let mut play = Play::new(Limits::default());
    let (reader, publisher) = (play.open(0), play.open(0));
    play.send(reader, &read_channels());
    play.send(publisher, &publish("1"));
    play.hand.take_outputs();
    play.hand.lose(play.link);
    assert_eq!(play.statuses(reader), [503]);
    assert_eq!(play.statuses(publisher), [503]);
    // Both connections are kept.
    play.send(reader, READ);
    assert_eq!(play.statuses(reader), [200]);
    for _ in 0..3 {
        play.hand.pass(Duration::from_secs(2));
        assert_eq!(play.hand.take_outputs(), [Output::Dial(Peer::Switchboard)]);
        play.hand.pass(Duration::from_secs(2));
        assert_eq!(play.hand.take_outputs(), [], "one attempt at a time");
        let now = play.hand.now;
        play.hand
            .node
            .unreachable(Peer::Switchboard, "refused", now);
    }
}

#[test]
fn a_new_link_begins_with_everything_that_is_held_and_asks_again_what_was_not_answered() {
    let mut play = Play::new(Limits::default());
    play.enter_channel("news", 1);
    let waiting = play.enter();
    play.ask_to_subscribe(waiting, "presence-room", Some("bob"));
    play.hand.lose(play.link);
    play.hand.pass(Duration::from_secs(2));
    play.link = play.hand.open(Origin::Dialled(Peer::Switchboard));
    let told = play.told();
    let words: Vec<&str> = told
        .iter()
        .filter_map(|message| message.split([' ', '(']).next())
        .collect();
    assert_eq!(
        words,
        ["Hello", "Announce", "Announced", "Subscribe"],
        "{told:?}"
    );
    assert!(told[1].contains("demo/news"), "{told:?}");
    assert!(told[3].contains("bob"), "{told:?}");
}

#[test]
fn a_switchboard_that_talks_nonsense_is_left_and_dialled_again() {
    for nonsense in [&[3, 0, 0, 0, 99, 0, 0][..], &[255; 12]] {
        let mut play = Play::new(Limits::default());
        play.hand.take_outputs();
        play.hand.receive(play.link, nonsense);
        let cut = Output::Close(play.link, Ending::Cut);
        assert_eq!(play.hand.take_outputs(), [cut]);
        play.hand.pass(Duration::from_secs(2));
        assert_eq!(play.hand.take_outputs(), [Output::Dial(Peer::Switchboard)]);
    }
}

#[test]
fn the_master_hears_of_readiness_once_and_of_numbers_when_it_asks() {
    let mut play = Play::new(Limits::default());
    play.enter_channel("news", 1);
    let master = play.hand.open(Origin::Master);
    assert_eq!(play.hand.take_frames(master), [Report::Ready.encode()]);
    play.tell(&Down::Welcome);
    assert_eq!(play.hand.take(master), b"");
    play.hand.receive(master, &Order::Ask.encode());
    let frames = play.hand.take_frames(master);
    let Ok(Report::Stats(values)) = Report::decode(&frames[0]) else {
        panic!("no numbers");
    };
    let counters = Counters::from_values(&values);
    assert_eq!(counters.connections, 1);
    assert_eq!(counters.subscriptions, 1);
    assert_eq!(counters.messages_out, 2);
    assert_eq!(counters.messages_in, 1);
}

#[test]
fn stop_says_goodbye_to_clients_and_then_ends() {
    let mut play = Play::new(Limits::default());
    let master = play.hand.open(Origin::Master);
    let (polite, rude, caller) = (play.enter(), play.enter(), play.open(0));
    play.send(caller, READ);
    assert_eq!(play.statuses(caller), [200]);
    play.hand.take_outputs();
    play.hand.receive(master, &Order::Stop.encode());
    let going = Heard::Close(1001, "Server is going away".to_owned());
    assert_eq!(play.heard(polite), std::slice::from_ref(&going));
    assert_eq!(play.heard(rude), [going]);
    let outputs = play.hand.take_outputs();
    assert_eq!(outputs[0], Output::StopAccepting);
    assert!(outputs.contains(&Output::Close(caller, Ending::Flushed)));
    assert!(!outputs.contains(&Output::Quit), "two have not answered");
    let reply = std::mem::take(&mut play.clients.get_mut(&polite).expect("it").reply);
    play.send(polite, &reply);
    assert!(!play.hand.take_outputs().contains(&Output::Quit));
    play.hand.receive(master, &Order::Stop.encode());
    play.hand.pass(Duration::from_millis(500));
    assert!(play.hand.take_outputs().contains(&Output::Quit));
}

#[test]
fn stop_ends_at_once_when_nobody_is_there() {
    let mut play = Play::new(Limits::default());
    let master = play.hand.open(Origin::Master);
    play.hand.receive(master, &Order::Stop.encode());
    assert!(play.hand.take_outputs().contains(&Output::Quit));
}

#[test]
fn a_worker_without_a_master_ends() {
    for end in [0, 1, 2] {
        let mut play = Play::new(Limits::default());
        let master = play.hand.open(Origin::Master);
        play.hand.take_outputs();
        match end {
            0 => play.hand.lose(master),
            1 => play.hand.hang_up(master),
            _ => play.hand.receive(master, &[3, 0, 0, 0, 99, 0, 0]),
        }
        assert!(play.hand.take_outputs().contains(&Output::Quit), "{end}");
    }
}

#[test]
fn nobody_links_to_a_worker() {
    let mut play = Play::new(Limits::default());
    let stranger = play.hand.open(Origin::Link);
    assert!(
        play.hand
            .take_outputs()
            .contains(&Output::Close(stranger, Ending::Cut))
    );
}

//! What is kept for how long, what comes back in which order, and when a position means nothing.

use std::time::Duration;

use super::*;
use crate::wire::bus::InfoWanted;

const START: Moment = Moment::from_micros(0);
const ROOM: &str = "demo/room";

fn rule(pattern: &str, events: usize) -> HistoryRule {
    HistoryRule {
        app_id: "demo".into(),
        pattern: pattern.into(),
        events,
        bytes: 10_000,
        age: Duration::from_secs(60),
    }
}

fn history(limits: &Limits) -> History {
    let rules = vec![rule("short", 2), rule("*", 5)];
    History::new(rules, limits, &mut Dice::new([0; 16]))
}

fn item<'a>(data: &'a str, exclude: Option<SocketId>) -> Item<'a> {
    Item {
        channels: Vec::new(),
        content: Content::Event {
            name: "\"e\"",
            data,
        },
        user_id: None,
        exclude,
        info: InfoWanted::default(),
    }
}

fn put(history: &mut History, key: &str, data: &str, now: Moment) -> Position {
    let position = history.append(key, &item(data, None), now);
    position.expect("the channel keeps history")
}

fn since(history: &History, key: &str, position: Position, now: Moment) -> Option<String> {
    let socket_id = None;
    let recover = Recover {
        position,
        socket_id,
    };
    let events = history.since(key, recover, now).ok()?;
    Some(shown(events))
}

/// Each event as `OFFSET:DATA`.
fn shown<'a>(events: impl Iterator<Item = Past<'a>>) -> String {
    let events = events.map(|past| format!("{}:{}", past.offset, past.data));
    events.collect::<Vec<_>>().join(" ")
}

#[test]
fn who_comes_back_gets_what_came_after_his_position_in_order() {
    let mut history = history(&Limits::default());
    let before = history.position(ROOM).expect("it keeps history");
    assert_eq!(before.offset, 0);
    assert_eq!(since(&history, ROOM, before, START).as_deref(), Some(""));
    let first = put(&mut history, ROOM, "a", START);
    assert_eq!(first.offset, 1);
    put(&mut history, "demo/other", "x", START);
    put(&mut history, ROOM, "b", START);
    let last = put(&mut history, ROOM, "c", START);
    let of = |position| since(&history, ROOM, position, START);
    assert_eq!(of(before).as_deref(), Some("1:a 2:b 3:c"));
    assert_eq!(of(first).as_deref(), Some("2:b 3:c"));
    assert_eq!(of(last).as_deref(), Some(""));
    assert_eq!(history.position(ROOM), Some(last));
    assert_eq!(shown(history.last(ROOM, 2, START)), "2:b 3:c");
}

#[test]
fn where_no_rule_covers_the_channel_nothing_is_kept() {
    let mut history = history(&Limits::default());
    for key in ["other/room", "demo/#server-to-user-1", "nonsense"] {
        assert_eq!(history.append(key, &item("a", None), START), None, "{key}");
        assert_eq!(history.position(key), None, "{key}");
    }
    let text = Item {
        content: Content::Text("a"),
        ..item("a", None)
    };
    assert_eq!(history.append(ROOM, &text, START), None);
}

#[test]
fn beyond_what_a_channel_keeps_a_position_cannot_be_recovered() {
    let mut history = history(&Limits::default());
    let positions: Vec<Position> = ["a", "b", "c", "d"]
        .map(|data| put(&mut history, "demo/short", data, START))
        .to_vec();
    let of = |index: usize| since(&history, "demo/short", positions[index], START);
    assert_eq!(of(0), None, "the second event is gone");
    assert_eq!(of(1).as_deref(), Some("3:c 4:d"));
    let future = Position {
        offset: 5,
        ..positions[0]
    };
    assert_eq!(since(&history, "demo/short", future, START), None);
    let strange = Position {
        epoch: !positions[3].epoch,
        ..positions[3]
    };
    assert_eq!(since(&history, "demo/short", strange, START), None);
}

#[test]
fn an_event_is_kept_for_its_time_and_the_position_for_longer() {
    let mut history = history(&Limits::default());
    let first = put(&mut history, ROOM, "a", START);
    let later = START + Duration::from_secs(30);
    let second = put(&mut history, ROOM, "b", later);
    let of = |position, now| since(&history, ROOM, position, now);
    let end = START + Duration::from_secs(60);
    assert_eq!(of(first, end).as_deref(), Some("2:b"));
    let end = START + Duration::from_secs(90);
    assert_eq!(of(first, end), None);
    assert_eq!(of(second, end).as_deref(), Some(""), "nothing was missed");
    put(&mut history, "demo/other", "x", end);
    assert_eq!(history.expiry.len(), 1, "what has run out takes no room");
    assert_eq!(history.position(ROOM), Some(second));
}

#[test]
fn what_a_connection_was_not_to_receive_it_does_not_recover() {
    let mut history = history(&Limits::default());
    let own = SocketId::parse("1.2");
    let before = history.position(ROOM).expect("it keeps history");
    history.append(ROOM, &item("mine", own), START);
    put(&mut history, ROOM, "theirs", START);
    let recover = |socket_id| Recover {
        position: before,
        socket_id,
    };
    let of = |socket_id| {
        shown(
            history
                .since(ROOM, recover(socket_id), START)
                .expect("kept"),
        )
    };
    assert_eq!(of(own), "2:theirs");
    assert_eq!(of(SocketId::parse("3.4")), "1:mine 2:theirs");
    assert_eq!(of(None), "1:mine 2:theirs");
}

#[test]
fn when_all_is_full_what_runs_out_next_is_forgotten() {
    let limits = Limits {
        history_events: 3,
        ..Limits::default()
    };
    let mut few = history(&limits);
    let before = few.position(ROOM).expect("it keeps history");
    put(&mut few, ROOM, "a", START);
    for data in ["b", "c", "d"] {
        put(&mut few, "demo/other", data, START + Duration::from_secs(1));
    }
    assert_eq!(since(&few, ROOM, before, START), None);
    assert_eq!(few.last("demo/other", 9, START).count(), 3);

    let limits = Limits {
        history_bytes: 400,
        ..Limits::default()
    };
    let mut small = history(&limits);
    put(&mut small, ROOM, "a", START);
    put(&mut small, "demo/other", &"x".repeat(200), START);
    assert_eq!(small.last(ROOM, 9, START).count(), 0);
    assert_eq!(small.last("demo/other", 9, START).count(), 1);
    put(&mut small, ROOM, &"x".repeat(500), START);
    assert_eq!((small.bytes, small.expiry.len()), (0, 0), "it never fits");
    assert_eq!(small.position(ROOM).map(|it| it.offset), Some(2));
}

#[test]
fn a_channel_that_was_forgotten_has_no_epoch_twice() {
    let limits = Limits {
        history_channels: 1,
        ..Limits::default()
    };
    let mut history = history(&limits);
    let empty = history.position(ROOM).expect("it keeps history");
    let first = put(&mut history, ROOM, "a", START);
    assert_eq!(first.epoch, empty.epoch);
    put(&mut history, "demo/other", "x", START);
    assert_eq!(since(&history, ROOM, first, START), None);
    let again = put(&mut history, ROOM, "b", START);
    assert_ne!(again.epoch, first.epoch);
    assert_eq!(again.offset, 1);
    for old in [empty, first] {
        assert_eq!(since(&history, ROOM, old, START), None);
    }
    assert_eq!(history.quiet.len(), history.streams.len());
}

#[test]
fn what_is_forgotten_on_purpose_leaves_nothing() {
    let mut history = history(&Limits::default());
    let position = put(&mut history, ROOM, "a", START);
    history.forget(ROOM);
    assert_eq!(since(&history, ROOM, position, START), None);
    assert_eq!((history.bytes, history.expiry.len()), (0, 0));
    assert!(history.quiet.is_empty());
}

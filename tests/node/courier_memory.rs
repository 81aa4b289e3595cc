//! A courier in a cluster: what it does with memory that it is given, what it has kept in the cluster
//! before it sends, and that it sends only while it may.

use std::time::Duration;

use lineman::node::{Origin, Output, Peer};
use lineman::push::facts::{Fact, Letter, Memory, StoreReply, StoreRequest};
use lineman::push::truth::Subject;
use lineman::wire::courier_bus::{Entry, Receipt, Report, VERSION};

use crate::courier::{FINE, Post, ROOM, URL};

/// It has loaded this; its switchboard has greeted, and it may send for that long.
fn post(own: Memory, given: bool, licence: Duration) -> Post {
    let mut post = Post::started(true);
    assert_eq!(post.asked(), Some(StoreRequest::Load));
    post.reply(StoreReply::Loaded(own));
    greet(&mut post, given, licence);
    post
}

pub fn greet(post: &mut Post, given: bool, licence: Duration) {
    let (version, life) = (VERSION, 1);
    post.hear(&Report::Hello {
        version,
        life,
        given,
    });
    let until_ms = post.hand.now.unix_ms + licence.as_millis() as u64;
    post.hear(&Report::Licence { until_ms });
}

fn letter(id: u64, body: &str) -> Letter {
    Letter {
        id,
        app_id: "a".into(),
        url: URL.into(),
        lane: 0,
        time_ms: recently(),
        body: body.into(),
    }
}

/// Recent enough not to be given up.
fn recently() -> u64 {
    crate::hand::start().unix_ms
}

fn told(user_id: Option<&str>) -> Entry<'_> {
    let channel = ROOM;
    Entry::Told { channel, user_id }
}

fn give(post: &mut Post, entries: Vec<Entry<'_>>) {
    post.hear(&Report::Given { entries });
    post.hear(&Report::GivenAll);
}

/// What it says to the switchboard: a word for each receipt and each entry to be kept.
fn said(post: &mut Post) -> Vec<String> {
    let frames = post.hand.take_frames(post.link);
    let words = |frame: &Vec<u8>| match Receipt::decode(frame).expect("a receipt") {
        Receipt::Heard { sequence } => vec![format!("heard {sequence}")],
        Receipt::Stored { sequence } => vec![format!("stored {sequence}")],
        Receipt::Keep { entries, whole } => {
            let word = |entry: &Entry<'_>| match entry {
                Entry::Anew => "anew".to_string(),
                Entry::Told { user_id, .. } => format!("told {}", user_id.unwrap_or("-")),
                Entry::Untold { user_id, .. } => format!("untold {}", user_id.unwrap_or("-")),
                Entry::Queued { id, .. } => format!("queued {id}"),
                Entry::Settled { id } => format!("settled {id}"),
                Entry::Heard { sequence, .. } => format!("up to {sequence}"),
            };
            let end = whole.then(|| "whole".to_string());
            entries.iter().map(word).chain(end).collect()
        }
        other => panic!("{other:?} is of the gateway"),
    };
    frames.iter().flat_map(words).collect()
}

fn commit(post: &mut Post) -> Vec<Fact> {
    match post.asked() {
        Some(StoreRequest::Commit(work)) => {
            post.reply(StoreReply::Committed(Vec::new()));
            work.facts.to_vec()
        }
        other => panic!("{other:?} is no commit"),
    }
}

fn dials(post: &mut Post) -> usize {
    let outputs = post.hand.take_outputs();
    let is_dial = |it: &&Output| matches!(it, Output::Dial(Peer::Outside(_)));
    outputs.iter().filter(is_dial).count()
}

pub const LONG: Duration = Duration::from_secs(1000);

#[test]
fn what_is_given_replaces_what_was_stored() {
    let own = Memory {
        told: vec![(ROOM.into(), Subject::Member("old".into()))],
        letters: vec![letter(3, "old")],
        heard: Some((1, 9)),
        ..Memory::default()
    };
    let mut post = post(own, true, LONG);
    assert_eq!(dials(&mut post), 0, "nothing of its own is sent");
    let given = letter(5, "given").encode();
    let entry = Entry::Queued {
        id: 5,
        letter: &given,
    };
    let (life, sequence) = (1, 4);
    let heard = Entry::Heard { life, sequence };
    give(&mut post, vec![heard, told(None), told(Some("ann")), entry]);
    assert_eq!(said(&mut post), ["heard 4"]);
    let conn = post.connect();
    let request = String::from_utf8(post.hand.take(conn)).expect("text");
    assert!(request.ends_with("\r\n\r\ngiven"), "{request}");
    let facts = commit(&mut post);
    assert_eq!(facts[0], Fact::Anew);
    assert_eq!(facts.len(), 5, "{facts:?}");
    // Told already.
    post.here(5, Some("ann"));
    assert_eq!(said(&mut post), ["stored 5"]);
}

#[test]
fn nothing_is_sent_before_the_cluster_keeps_it() {
    let mut post = post(Memory::default(), true, LONG);
    give(&mut post, Vec::new());
    commit(&mut post);
    assert_eq!(said(&mut post), ["heard 0"]);
    post.here(1, Some("ann"));
    commit(&mut post);
    let kept = ["queued 1", "told -", "told ann", "up to 1"];
    assert_eq!(said(&mut post), kept);
    assert_eq!(dials(&mut post), 0);
    post.hear(&Report::Kept);
    assert_eq!(said(&mut post), ["stored 1"]);
    let conn = post.connect();
    assert!(!post.hand.take(conn).is_empty());
    post.hand.receive(conn, FINE);
    commit(&mut post);
    assert_eq!(said(&mut post), ["settled 1"]);
}

#[test]
fn a_cluster_that_has_nothing_is_told_all() {
    let own = Memory {
        told: vec![(ROOM.into(), Subject::Channel)],
        letters: vec![letter(3, "own")],
        heard: Some((1, 9)),
        ..Memory::default()
    };
    let mut post = post(own, false, LONG);
    commit(&mut post);
    let all = ["heard 9", "anew", "queued 3", "told -", "up to 9", "whole"];
    assert_eq!(said(&mut post), all);
}

#[test]
fn without_a_licence_nothing_is_sent_and_nobody_wakes_up_for_it() {
    let mut post = post(Memory::default(), true, Duration::ZERO);
    let given = letter(5, "given").encode();
    let entry = Entry::Queued {
        id: 5,
        letter: &given,
    };
    give(&mut post, vec![entry]);
    commit(&mut post);
    post.hand.pass(Duration::from_secs(60));
    assert_eq!(dials(&mut post), 0);
    let until_ms = post.hand.now.unix_ms + 1000;
    post.hear(&Report::Licence { until_ms });
    assert_eq!(dials(&mut post), 1);
}

#[test]
fn what_was_delivered_before_memory_was_given_back_is_not_sent_again() {
    let mut post = post(Memory::default(), true, LONG);
    let given = letter(5, "given").encode();
    let entry = Entry::Queued {
        id: 5,
        letter: &given,
    };
    give(&mut post, vec![entry]);
    commit(&mut post);
    let conn = post.connect();
    // The switchboard goes while the request is under way, and the answer comes.
    post.hand.hang_up(post.link);
    post.hand.receive(conn, FINE);
    post.hand.take(conn);
    post.link = post.hand.open(Origin::Link);
    greet(&mut post, true, LONG);
    give(&mut post, vec![entry]);
    commit(&mut post);
    commit(&mut post);
    assert_eq!(said(&mut post), ["heard 0", "settled 5"]);
    assert_eq!(post.hand.take(conn), b"", "not sent again");
    assert_eq!(dials(&mut post), 0);
}

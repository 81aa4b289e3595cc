//! What the hub counts, confirms and announces while connections come and go.

use super::*;

fn hub() -> Hub {
    Hub::new(3, &mut Dice::new([0; 16]))
}

fn conn(slot: u32) -> ConnId {
    ConnId::new(slot, 1)
}

fn key(name: &str) -> ChannelKey {
    ChannelKey::new("demo", name)
}

fn presence(user_id: &str) -> Option<Presence> {
    Some(Presence {
        user_id: user_id.into(),
        user_info: "null".into(),
    })
}

#[test]
fn only_confirmed_subscriptions_receive() {
    let mut hub = hub();
    let ticket = hub
        .subscribe(conn(1), &key("a"), None, None)
        .expect("asked");
    assert_eq!(hub.subscribers("demo/a"), []);
    assert_eq!(hub.membership(conn(1), "demo/a"), None);
    assert_eq!(
        hub.confirm(ticket, "demo/a", None),
        Some((conn(1), key("a")))
    );
    assert_eq!(hub.subscribers("demo/a"), [conn(1)]);
    assert_eq!(hub.membership(conn(1), "demo/a"), Some(None));
    assert_eq!(
        hub.confirm(ticket, "demo/a", None),
        None,
        "an answer counts once"
    );
    assert_eq!(hub.len(), 1);
}

#[test]
fn an_answer_to_a_former_subscription_does_not_confirm_the_next() {
    let mut hub = hub();
    let first = hub
        .subscribe(conn(1), &key("a"), None, None)
        .expect("asked");
    assert!(hub.unsubscribe(conn(1), "demo/a").is_some());
    let second = hub
        .subscribe(conn(1), &key("a"), None, None)
        .expect("asked again");
    assert_eq!(hub.confirm(first, "demo/a", None), None);
    assert_eq!(hub.subscribers("demo/a"), []);
    assert!(hub.confirm(second, "demo/a", None).is_some());
}

#[test]
fn subscribing_twice_is_told_apart_from_too_often() {
    let mut hub = hub();
    let ticket = hub
        .subscribe(conn(1), &key("a"), None, None)
        .expect("asked");
    assert_eq!(
        hub.subscribe(conn(1), &key("a"), None, None),
        Err(NotSubscribed::Asked)
    );
    hub.confirm(ticket, "demo/a", None);
    assert_eq!(
        hub.subscribe(conn(1), &key("a"), None, None),
        Err(NotSubscribed::Already)
    );
    hub.subscribe(conn(1), &key("b"), None, None).expect("room");
    hub.subscribe(conn(1), &key("c"), None, None).expect("room");
    assert_eq!(
        hub.subscribe(conn(1), &key("d"), None, None),
        Err(NotSubscribed::TooMany)
    );
}

#[test]
fn leaving_tells_what_is_left_and_forgets_empty_channels() {
    let mut hub = hub();
    let ticket = hub
        .subscribe(conn(1), &key("presence-a"), presence("u"), None)
        .expect("asked");
    hub.confirm(ticket, "demo/presence-a", Some(&[]));
    hub.subscribe(conn(1), &key("b"), None, None)
        .expect("asked");
    hub.subscribe(conn(2), &key("b"), None, None)
        .expect("asked");
    let mut left = hub.unsubscribe_all(conn(1));
    left.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = [
        Left {
            key: key("b"),
            user_id: None,
        },
        Left {
            key: key("presence-a"),
            user_id: Some("u".into()),
        },
    ];
    assert_eq!(left, expected);
    assert!(hub.roster("demo/presence-a").is_none());
    assert_eq!(hub.channels_of(conn(1)).count(), 0);
    assert_eq!(hub.channels_of(conn(2)).collect::<Vec<_>>(), [&key("b")]);
    assert_eq!((hub.len(), hub.channels.len()), (0, 1));
}

#[test]
fn a_roster_lives_as_long_as_anybody_waits_for_the_channel() {
    let mut hub = hub();
    let first = hub
        .subscribe(conn(1), &key("presence-a"), presence("u"), None)
        .expect("asked");
    let member = Member {
        user_id: "u",
        user_info: "null",
    };
    hub.confirm(first, "demo/presence-a", Some(&[member]));
    let second = hub
        .subscribe(conn(2), &key("presence-a"), presence("v"), None)
        .expect("asked");
    hub.unsubscribe(conn(1), "demo/presence-a");
    assert!(hub.confirm(second, "demo/presence-a", None).is_some());
    assert_eq!(
        hub.roster("demo/presence-a").map(|r| r.iter().count()),
        Some(1)
    );
}

#[test]
fn an_announcement_sums_up_users_and_leaves_out_what_is_pending() {
    let mut hub = hub();
    for (slot, user) in [(1, "u"), (2, "u"), (3, "v")] {
        let ticket = hub.subscribe(conn(slot), &key("presence-a"), presence(user), None);
        hub.confirm(ticket.expect("asked"), "demo/presence-a", Some(&[]));
    }
    let waiting = hub
        .subscribe(conn(4), &key("presence-a"), presence("w"), None)
        .expect("asked");
    let mut announced = Vec::new();
    hub.announce(|holding| {
        let mut members: Vec<(String, u32)> = holding
            .members
            .iter()
            .map(|(m, count)| (m.user_id.to_owned(), *count))
            .collect();
        members.sort();
        announced.push((holding.channel.to_owned(), holding.subscriptions, members));
    });
    let users = vec![("u".to_owned(), 2), ("v".to_owned(), 1)];
    assert_eq!(announced, [("demo/presence-a".to_owned(), 3, users)]);
    let mut pending = Vec::new();
    hub.pending(|ticket, key, member, _| {
        pending.push((ticket, key.clone(), member.map(|m| m.user_id.to_owned())));
    });
    assert_eq!(
        pending,
        [(waiting, key("presence-a"), Some("w".to_owned()))]
    );
}

//! Every message survives the trip, and no bytes are taken for one that was not sent.

use super::*;
use crate::wire::bus_codec::{Extent, measure};

const MEMBER: Member<'_> = Member {
    user_id: "u1",
    user_info: "{\"a\":1}",
};

const CACHED: Cached<'_> = Cached {
    name: "\"e\"",
    data: "\"d\"",
    ttl_seconds: 1800,
};

fn item() -> Item<'static> {
    Item {
        channels: vec!["demo/a", "demo/b"],
        content: Content::Event {
            name: "\"e\"",
            data: "\"d\"",
        },
        user_id: Some("u1"),
        exclude: Some(SocketId::from_halves(1, 2)),
        info: InfoWanted {
            user_count: false,
            subscription_count: true,
            cache: true,
            offset: true,
        },
    }
}

const POSITION: Position = Position {
    epoch: u64::MAX,
    offset: 7,
};

fn past() -> Vec<Past<'static>> {
    let first = Past {
        offset: 6,
        name: "\"e\"",
        data: "\"d\"",
        user_id: None,
    };
    let second = Past {
        offset: 7,
        user_id: Some("u1"),
        ..first
    };
    vec![first, second]
}

fn terms() -> Terms {
    Terms {
        rates: vec![Rate {
            name: "demo".into(),
            per_second: 5,
        }],
        once: Some(Once {
            signature: "5f".into(),
            until: -7,
        }),
    }
}

fn ups() -> Vec<Up<'static>> {
    let holding = Holding {
        channel: "demo/a",
        subscriptions: 2,
        members: vec![(MEMBER, 2)],
    };
    vec![
        Up::Hello {
            version: VERSION,
            slot: 3,
            life: 8,
            shard: 0,
            shards: 1,
            counted: vec!["demo", "other"],
        },
        Up::Announce(holding),
        Up::Announced,
        Up::Subscribe {
            ticket: 9,
            channel: "demo/a",
            member: Some(MEMBER),
            recover: Some(Recover {
                position: POSITION,
                socket_id: Some(SocketId::from_halves(1, 2)),
            }),
        },
        Up::Unsubscribe {
            channel: "demo/a",
            user_id: None,
        },
        Up::Publish {
            ticket: 7,
            terms: terms(),
            items: vec![item(), item()],
        },
        Up::Watch {
            users: vec!["demo/#server-to-user-1"],
        },
        Up::Unwatch {
            users: vec!["demo/#server-to-user-1"],
        },
    ]
}

fn asks() -> Vec<Up<'static>> {
    vec![
        Up::Ask {
            ticket: 8,
            question: Question::Channels {
                app_id: "demo",
                prefix: "p",
            },
        },
        Up::Ask {
            ticket: 8,
            question: Question::Channel { channel: "demo/a" },
        },
        Up::Ask {
            ticket: 8,
            question: Question::Users { channel: "demo/a" },
        },
        Up::Ask {
            ticket: 8,
            question: Question::Ready,
        },
        Up::Ask {
            ticket: 8,
            question: Question::History {
                channel: "demo/a",
                after: Some(POSITION),
                count: 100,
            },
        },
    ]
}

fn sessions() -> Vec<Up<'static>> {
    vec![
        Up::Sessions {
            names: vec!["k/1/s", "k/2/t"],
        },
        Up::SessionEnded { name: "k/1/s" },
        Up::Errand {
            ticket: 4,
            session: "k/1/s",
            errand: Errand::Post(b"\0\0\0\x05a"),
        },
        Up::Outcome {
            to: CALLER,
            session: "k/1/s",
            outcome: Outcome::Yours,
        },
    ]
}

const CALLER: Caller = Caller {
    slot: 1,
    life: 2,
    ticket: 3,
};

fn errands() -> Vec<Down<'static>> {
    let errands = [
        Errand::Receive {
            have: Some(7),
            room: 0,
            opens: true,
        },
        Errand::Receive {
            have: None,
            room: 262_144,
            opens: false,
        },
        Errand::Release { returns: true },
        Errand::Post(b""),
        Errand::Lost,
    ];
    let errands = errands.map(|errand| Down::Errand {
        from: CALLER,
        session: "k/1/s",
        errand,
    });
    let outcomes = [
        Outcome::Yours,
        Outcome::Unknown,
        Outcome::Busy,
        Outcome::Taken,
        Outcome::Lines {
            number: 8,
            lines: b"h\n",
            last: true,
        },
        Outcome::Superseded,
        Outcome::Gone,
    ];
    let outcomes = outcomes.map(|outcome| Down::Outcome { ticket: 9, outcome });
    errands.into_iter().chain(outcomes).collect()
}

fn answers() -> Vec<Down<'static>> {
    let counts = ChannelCounts {
        users: 1,
        subscriptions: 2,
    };
    let answer = |answer| Down::Answer { ticket: 5, answer };
    vec![
        answer(Answer::Published(vec![
            (counts, None),
            (counts, Some(POSITION)),
        ])),
        answer(Answer::Channels(vec![("a", counts)])),
        answer(Answer::Channel {
            counts,
            cached: Some(CACHED),
        }),
        answer(Answer::Users(vec!["u1", "u2"])),
        answer(Answer::Ready {
            linked: 1,
            expected: 2,
        }),
        answer(Answer::Refused(RefusalReason::Congested)),
        answer(Answer::History {
            position: Some(POSITION),
            events: Some(past()),
        }),
    ]
}

fn downs() -> Vec<Down<'static>> {
    vec![
        Down::Welcome,
        Down::Subscribed {
            ticket: 1,
            channel: "demo/a",
            roster: Some(vec![MEMBER]),
            cached: None,
            beginning: Some(Beginning {
                position: POSITION,
                missed: Some(past()),
            }),
        },
        Down::Subscribed {
            ticket: 1,
            channel: "demo/a",
            roster: None,
            cached: Some(CACHED),
            beginning: None,
        },
    ]
}

fn further_downs() -> Vec<Down<'static>> {
    vec![
        Down::Refused {
            ticket: 1,
            channel: "demo/a",
            reason: RefusalReason::TooLong,
        },
        Down::Deliver {
            item: item(),
            positions: vec![Some(POSITION), None],
        },
        Down::MemberAdded {
            channel: "demo/a",
            member: MEMBER,
        },
        Down::MemberRemoved {
            channel: "demo/a",
            user_id: "u1",
        },
        Down::Roster {
            channel: "demo/a",
            members: vec![MEMBER, MEMBER],
        },
        Down::Undelivered {
            sender: SocketId::from_halves(3, 4),
        },
        Down::Counted {
            channel: "demo/a",
            subscriptions: 7,
        },
        Down::Standings {
            users: vec![
                ("demo/#server-to-user-1", true),
                ("demo/#server-to-user-2", false),
            ],
        },
        Down::Deliver {
            item: Item {
                content: Content::Dismissal,
                ..item()
            },
            positions: Vec::new(),
        },
    ]
}

#[test]
fn every_message_survives_the_trip() {
    for message in ups().into_iter().chain(asks()).chain(sessions()) {
        assert_eq!(Up::decode(&message.encode()), Ok(message));
    }
    let downs = downs().into_iter().chain(further_downs());
    for message in downs.chain(answers()).chain(errands()) {
        assert_eq!(Down::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn a_cut_or_lengthened_message_is_garbled_never_misread() {
    for message in ups().into_iter().chain(asks()).chain(sessions()) {
        let frame = message.encode();
        for cut in 0..frame.len() {
            assert_eq!(measure(&frame[..cut], 1 << 20), Ok(Extent::Partial));
            assert!(
                Up::decode(&frame[..cut]).is_err(),
                "{message:?} cut at {cut}"
            );
        }
        assert_eq!(measure(&frame, 1 << 20), Ok(Extent::Whole(frame.len())));
        let longer = [&frame[..], b"x"].concat();
        assert!(Up::decode(&longer).is_err());
    }
}

#[test]
fn a_length_of_zero_or_over_the_limit_is_garbled() {
    assert!(measure(&[0, 0, 0, 0], 100).is_err());
    assert!(measure(&[101, 0, 0, 0], 100).is_err());
    assert_eq!(measure(&[100, 0, 0, 0], 100), Ok(Extent::Partial));
}

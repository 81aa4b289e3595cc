//! A switchboard played by hand: workers that say exactly what the test wants, in whatever state.

use std::time::Duration;

use lineman::base::history_rule::HistoryRule;
use lineman::base::ids::{ConnId, SocketId};
use lineman::base::limits::Limits;
use lineman::node::switchboard::{Switchboard, SwitchboardOptions, Watched};
use lineman::node::{Ending, Origin, Output};
use lineman::realtime::registry::LinkId;
use lineman::wire::bus::{Content, Down, Holding, InfoWanted, Item, Member, Question, Up, VERSION};

use crate::hand::{Hand, start};

pub struct Board {
    pub hand: Hand<Switchboard>,
}

impl Board {
    /// A switchboard that has just started and expects so many links.
    pub fn new(links_expected: u32, limits: Limits) -> Board {
        Board::made(links_expected, Vec::new(), limits, Watched::default())
    }

    /// Likewise, started while workers live already.
    pub fn among(links_expected: u32, living: Vec<LinkId>, limits: Limits) -> Board {
        Board::made(links_expected, living, limits, Watched::default())
    }

    /// The same with a courier to report to.
    pub fn watching(links_expected: u32, limits: Limits, watched: Watched) -> Board {
        Board::made(links_expected, Vec::new(), limits, watched)
    }

    fn made(links_expected: u32, living: Vec<LinkId>, limits: Limits, watched: Watched) -> Board {
        let options = SwitchboardOptions {
            links_expected,
            living,
            limits,
            watched,
            gateway: false,
            cluster: None,
            history: vec![kept()],
            seed: [6; 16],
        };
        Board {
            hand: Hand::new(Switchboard::new(options, start())),
        }
    }

    /// One that has settled with two workers.
    pub fn of_two(limits: Limits) -> (Board, ConnId, ConnId) {
        let mut board = Board::new(2, limits);
        let (one, two) = (board.join(0), board.join(1));
        assert_eq!(board.told(one), ["Welcome"]);
        assert_eq!(board.told(two), ["Welcome"]);
        (board, one, two)
    }

    pub fn link(&mut self) -> ConnId {
        self.hand.open(Origin::Link)
    }

    /// A worker that holds nothing.
    pub fn join(&mut self, slot: u32) -> ConnId {
        self.join_as(LinkId::new(slot, 0))
    }

    /// Likewise, one of several in its slot.
    pub fn join_as(&mut self, id: LinkId) -> ConnId {
        let conn = self.link();
        self.hear(conn, &hello_of(id));
        self.hear(conn, &Up::Announced);
        conn
    }

    /// The switchboard hears a message.
    pub fn hear(&mut self, conn: ConnId, message: &Up<'_>) {
        self.hand.receive(conn, &message.encode());
    }

    /// What a worker was told since the last call, in the words of `Debug`.
    pub fn told(&mut self, conn: ConnId) -> Vec<String> {
        let frames = self.hand.take_frames(conn);
        let read = |frame: &Vec<u8>| format!("{:?}", Down::decode(frame).expect("a message"));
        frames.iter().map(read).collect()
    }

    /// Likewise, the kinds of messages.
    pub fn kinds(&mut self, conn: ConnId) -> Vec<String> {
        let told = self.told(conn);
        let kind = |message: &String| {
            let end = message.find([' ', '(']).unwrap_or(message.len());
            message[..end].to_owned()
        };
        told.iter().map(kind).collect()
    }

    /// Whether the switchboard cut this link since the last call.
    pub fn has_cut(&mut self, conn: ConnId) -> bool {
        let outputs = self.hand.take_outputs();
        outputs.contains(&Output::Close(conn, Ending::Cut))
    }

    /// A subscription, confirmed.
    pub fn subscribe(&mut self, conn: ConnId, channel: &str) {
        self.hear(
            conn,
            &Up::Subscribe {
                ticket: 1000,
                channel,
                member: None,
                recover: None,
            },
        );
        assert_eq!(self.kinds(conn), ["Subscribed"]);
    }
}

pub fn hello(slot: u32) -> Up<'static> {
    hello_of(LinkId::new(slot, 0))
}

pub fn hello_of(LinkId { slot, life }: LinkId) -> Up<'static> {
    Up::Hello {
        version: VERSION,
        slot,
        life,
        shard: 0,
        shards: 1,
        counted: Vec::new(),
    }
}

pub fn member(user_id: &str) -> Member<'_> {
    Member {
        user_id,
        user_info: "null",
    }
}

/// Channels `kept-…` have history.
fn kept() -> HistoryRule {
    HistoryRule {
        app_id: "demo".into(),
        pattern: "kept-*".into(),
        events: 10,
        bytes: 100_000,
        age: Duration::from_secs(60),
    }
}

pub fn join<'a>(ticket: u64, channel: &'a str, user_id: &'a str) -> Up<'a> {
    Up::Subscribe {
        ticket,
        channel,
        member: Some(member(user_id)),
        recover: None,
    }
}

pub fn holding<'a>(channel: &'a str, users: &[&'a str]) -> Up<'a> {
    Up::Announce(Holding {
        channel,
        subscriptions: users.len() as u32,
        members: users.iter().map(|user| (member(user), 1)).collect(),
        position: None,
    })
}

pub fn item<'a>(channel: &'a str, data: &'a str) -> Item<'a> {
    Item {
        channels: vec![channel],
        content: Content::Event {
            name: "\"e\"",
            data,
        },
        user_id: None,
        exclude: Some(SocketId::from_halves(1, 2)),
        info: InfoWanted::default(),
    }
}

pub fn publish<'a>(ticket: u64, channel: &'a str, data: &'a str) -> Up<'a> {
    Up::Publish {
        ticket,
        terms: Default::default(),
        items: vec![item(channel, data)],
    }
}

pub fn ask_whether_ready(ticket: u64) -> Up<'static> {
    Up::Ask {
        ticket,
        question: Question::Ready,
    }
}

//! A worker played by hand: clients on one side, a switchboard and a master that say exactly what
//! the test wants on the other. What a real switchboard never says, or says late, is tried so.

use std::collections::BTreeMap;

use lineman::app::service::Services;
use lineman::base::counters::Counters;
use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::node::worker::{Listener, Worker, WorkerOptions};
use lineman::node::{Node, Origin, Output, Peer};
use lineman::wire::bus::{Answer, Content, Down, InfoWanted, Item, Member, Up};
use serde_json::Value;

use crate::apps::one_app;
use crate::hand::{Hand, start};
use crate::world::client::{Client, Heard, Speech, call, subscribe, upgrade};

pub const READ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";

pub struct Play {
    pub hand: Hand<Worker>,
    pub link: ConnId,
    pub clients: BTreeMap<ConnId, Client>,
}

impl Play {
    /// A worker whose switchboard has welcomed it.
    pub fn new(limits: Limits) -> Play {
        Play::serving(limits, Services::default(), Vec::new())
    }

    /// The same with listeners of an embedding program behind the usual ones.
    pub fn serving(limits: Limits, services: Services, more: Vec<Listener>) -> Play {
        let options = WorkerOptions {
            deflate: None,
            cors: lineman::app::cors::Cors::default(),
            slot: 3,
            life: 0,
            listeners: [crate::world::LISTENERS.to_vec(), more].concat(),
            apps: one_app("demo", "demo-key", "demo-secret"),
            demo_page: Some("<title>demo</title>"),
            services,
            limits,
            seed: [5; 16],
        };
        let mut hand = Hand::new(Worker::new(options, start()));
        assert_eq!(hand.take_outputs(), [Output::Dial(Peer::Switchboard)]);
        let link = hand.open(Origin::Dialled(Peer::Switchboard));
        let mut play = Play {
            hand,
            link,
            clients: BTreeMap::new(),
        };
        play.tell(&Down::Welcome);
        let greeting = play.hand.take_frames(link);
        let hello = Up::Hello {
            version: lineman::wire::bus::VERSION,
            slot: 3,
            life: 0,
            shard: 0,
            shards: 1,
            counted: Vec::new(),
        };
        assert_eq!(Up::decode(&greeting[0]), Ok(hello));
        assert_eq!(Up::decode(&greeting[1]), Ok(Up::Announced));
        play
    }

    /// The switchboard says something.
    pub fn tell(&mut self, message: &Down<'_>) {
        self.hand.receive(self.link, &message.encode());
    }

    /// What the switchboard was told since the last call, in the words of `Debug`.
    pub fn told(&mut self) -> Vec<String> {
        let frames = self.hand.take_frames(self.link);
        let read = |frame: &Vec<u8>| format!("{:?}", Up::decode(frame).expect("a message"));
        frames.iter().map(read).collect()
    }

    pub fn open(&mut self, listener: usize) -> ConnId {
        let conn = self.hand.open(Origin::client(listener, None));
        self.clients.insert(conn, Client::new(0, Speech::Http));
        conn
    }

    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.hand.receive(conn, bytes);
    }

    /// What a client heard since the last call.
    pub fn heard(&mut self, conn: ConnId) -> Vec<Heard> {
        let bytes = self.hand.take(conn);
        let client = self.clients.get_mut(&conn).expect("a client");
        client.receive(&bytes, false);
        client.heard.drain(..).collect()
    }

    /// Likewise, the HTTP statuses.
    pub fn statuses(&mut self, conn: ConnId) -> Vec<u16> {
        let heard = self.heard(conn);
        let status = |heard| match heard {
            Heard::Answer { status, .. } => status,
            other => panic!("no answer but {other:?}"),
        };
        heard.into_iter().map(status).collect()
    }

    /// Likewise, the events by name.
    pub fn events(&mut self, conn: ConnId) -> Vec<String> {
        let heard = self.heard(conn);
        let name = |heard: &Heard| match heard {
            Heard::Text(text) => {
                let event: Value = serde_json::from_str(text).expect("JSON");
                event["event"].as_str().expect("a name").to_owned()
            }
            other => panic!("no event but {other:?}"),
        };
        heard.iter().map(name).collect()
    }

    /// A Pusher client.
    pub fn enter(&mut self) -> ConnId {
        let conn = self.open(0);
        self.send(conn, &upgrade("/app/demo-key?protocol=7"));
        assert_eq!(self.heard(conn).len(), 2);
        conn
    }

    pub fn ask_to_subscribe(&mut self, conn: ConnId, channel: &str, user_id: Option<&str>) {
        let socket_id = self.clients[&conn].socket_id.clone().expect("it entered");
        self.send(conn, &subscribe(&socket_id, channel, user_id));
    }

    /// Confirms the subscription with this ticket.
    pub fn confirm(&mut self, ticket: u64, channel: &str, roster: Option<Vec<Member<'_>>>) {
        self.tell(&Down::Subscribed {
            ticket,
            channel,
            roster,
            cached: None,
            beginning: None,
        });
    }

    /// A client in a public channel, confirmed under this ticket.
    pub fn enter_channel(&mut self, channel: &str, ticket: u64) -> ConnId {
        let conn = self.enter();
        self.ask_to_subscribe(conn, channel, None);
        self.confirm(ticket, &format!("demo/{channel}"), None);
        let success = "pusher_internal:subscription_succeeded";
        assert_eq!(self.events(conn), [success]);
        conn
    }

    pub fn counters(&mut self) -> Counters {
        self.hand.node.counters().clone()
    }
}

pub fn read_channels() -> Vec<u8> {
    call("GET", "/apps/demo/channels", "")
}

pub fn publish(data: &str) -> Vec<u8> {
    let body = format!("{{\"name\":\"e\",\"channel\":\"news\",\"data\":\"{data}\"}}");
    call("POST", "/apps/demo/events", &body)
}

pub fn deliver<'a>(channel: &'a str, data: &'a str) -> Down<'a> {
    let item = Item {
        channels: vec![channel],
        content: Content::Event {
            name: "\"e\"",
            data,
        },
        user_id: None,
        exclude: None,
        info: InfoWanted::default(),
    };
    let positions = Vec::new();
    Down::Deliver { item, positions }
}

pub fn answer(ticket: u64, answer: Answer<'static>) -> Down<'static> {
    Down::Answer { ticket, answer }
}

pub const NO_CHANNELS: Answer<'static> = Answer::Channels(Vec::new());

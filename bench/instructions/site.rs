//! Workers and the switchboard of one server, joined by hand.

use lineman::app::cors::Cors;
use lineman::app::handler::Handler;
use lineman::app::service::Services;
use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::node::switchboard::{Switchboard, SwitchboardOptions, Watched};
use lineman::node::worker::{Listener, Worker, WorkerOptions};
use lineman::node::{Origin, Output, Peer};
use lineman::wire::protocol::Protocol;

use crate::apps::one_app;
use crate::counted::Counted;
use crate::hand::{Hand, start};
use crate::world::client::{Client, Speech, subscribe, upgrade};
use crate::world::{KEY, SECRET};

/// The listeners of each worker.
pub const CHANNELS: usize = 0;
pub const ECHO: usize = 1;

/// A worker, and its link as both ends know it.
struct Place {
    hand: Hand<Counted<Worker>>,
    up: ConnId,
    down: ConnId,
}

/// See the file's head.
pub struct Site {
    switchboard: Hand<Counted<Switchboard>>,
    places: Vec<Place>,
}

/// A client, and who holds it.
#[derive(Clone, Copy)]
pub struct Held {
    pub worker: usize,
    pub conn: ConnId,
}

impl Site {
    pub fn new(workers: u32) -> Site {
        let switchboard = Switchboard::new(
            SwitchboardOptions {
                links_expected: workers,
                living: Vec::new(),
                limits: limits(),
                watched: Watched::default(),
                gateway: false,
                cluster: None,
                history: Vec::new(),
                seed: [6; 16],
            },
            start(),
        );
        let mut site = Site {
            switchboard: Hand::new(Counted::new(switchboard)),
            places: Vec::new(),
        };
        for slot in 0..workers {
            let mut hand = Hand::new(Counted::new(Worker::new(options(slot), start())));
            assert_eq!(hand.take_outputs(), [Output::Dial(Peer::Switchboard)]);
            let up = hand.open(Origin::Dialled(Peer::Switchboard));
            let down = site.switchboard.open(Origin::Link);
            site.places.push(Place { hand, up, down });
        }
        site.carry();
        site
    }

    /// What these workers do is counted from now on, and what the switchboard does.
    pub fn count(&mut self, workers: &[usize], switchboard: bool) {
        for (index, place) in self.places.iter_mut().enumerate() {
            place.hand.node.is_counting = workers.contains(&index);
        }
        self.switchboard.node.is_counting = switchboard;
    }

    /// Bytes between the processes, until there are no more.
    fn carry(&mut self) {
        loop {
            let mut is_quiet = true;
            for place in &mut self.places {
                let (up, down) = (place.hand.take(place.up), self.switchboard.take(place.down));
                is_quiet &= up.is_empty() && down.is_empty();
                if !up.is_empty() {
                    self.switchboard.receive(place.down, &up);
                }
                if !down.is_empty() {
                    place.hand.receive(place.up, &down);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    pub fn open(&mut self, worker: usize, listener: usize) -> Held {
        let conn = self.places[worker]
            .hand
            .open(Origin::client(listener, None));
        Held { worker, conn }
    }

    /// A client's bytes, and all that follows.
    pub fn say(&mut self, client: Held, bytes: &[u8]) {
        self.places[client.worker].hand.receive(client.conn, bytes);
        self.carry();
    }

    /// What it was sent since the last call.
    pub fn hear(&mut self, client: Held) -> Vec<u8> {
        self.places[client.worker].hand.take(client.conn)
    }

    pub fn leave(&mut self, client: Held) {
        self.places[client.worker].hand.lose(client.conn);
        self.carry();
    }

    /// A client that has said hello and is in the channel.
    pub fn enter(&mut self, worker: usize, channel: &str) -> Held {
        let client = self.open(worker, CHANNELS);
        self.say(client, &upgrade(&format!("/app/{KEY}?protocol=7")));
        let mut reader = Client::new(0, Speech::Http);
        reader.receive(&self.hear(client), false);
        let socket_id = reader.socket_id.expect("it was greeted");
        self.say(client, &subscribe(&socket_id, channel, None));
        let heard = self.hear(client);
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.contains("subscription_succeeded"), "{heard}");
        client
    }
}

/// Those that are on by default, with room for what is repeated here.
fn limits() -> Limits {
    Limits {
        client_events_per_second: 1_000_000,
        ..Limits::default()
    }
}

fn options(slot: u32) -> WorkerOptions {
    let listener = |handler| Listener {
        protocol: Protocol::Http,
        handler,
        forwarding: None,
    };
    WorkerOptions {
        slot,
        life: 0,
        listeners: vec![listener(Handler::Channels), listener(Handler::Echo)],
        apps: one_app("demo", KEY, SECRET),
        demo_page: None,
        services: Services::default(),
        limits: limits(),
        deflate: None,
        cors: Cors::default(),
        // Socket ids are made of it: no two clients may have the same.
        seed: [5 + slot as u8; 16],
    }
}

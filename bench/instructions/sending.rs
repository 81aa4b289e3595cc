//! A courier with its store in memory, and the mock of APNs at the end of its connection, joined by hand.
//! TLS is left out on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lineman::base::dice::Dice;
use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::mock::Mock;
use lineman::mock::apns::{Apns, ApnsOptions};
use lineman::mock::script::Script;
use lineman::node::courier::Courier;
use lineman::node::mock::{MockNode, MockOptions};
use lineman::node::{Node, Origin, Output, Peer};
use lineman::store::sqlite::InMemory;
use lineman::wire::courier_bus::{Receipt, Report, VERSION};
use lineman::wire::gateway::GatewayCall;
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::counted::{Counted, counted_turn};
use crate::hand::Hand;
use crate::sender::courier_options;

/// As APNs has them.
const STREAMS: u32 = 1_000;
/// The topic of every device.
pub const ALL: &str = "all";

/// See the file's head.
pub struct Gateway {
    courier: Hand<Counted<Courier>>,
    store: InMemory,
    counts_store: bool,
    provider: Hand<MockNode>,
    /// Ends of connections: the courier's, the provider's.
    lines: Vec<(ConnId, ConnId)>,
    link: ConnId,
    ticket: u64,
    /// Notifications that have come to the provider.
    arrived: Arc<AtomicU64>,
}

impl Gateway {
    /// Devices have numbers from 0, and users of the same.
    pub fn new(devices: u64) -> Gateway {
        let mut dice = Dice::new([7; 16]);
        let limits = Limits {
            notifications_per_second: 0,
            notifications_per_user_per_second: 0,
            device_calls_per_second: 0,
            ..Limits::default()
        };
        let key = KeyPair::generate().expect("a key").serialize_pem();
        let options = courier_options("one", &key, limits, &mut dice, [9; 16]);
        let mut courier = Hand::new(Counted::new(Courier::new(options)));
        courier.open(Origin::Master);
        let link = courier.open(Origin::Link);
        courier.receive(link, &Report::Calls { version: VERSION }.encode());
        let arrived = Arc::new(AtomicU64::new(0));
        let mut gateway = Gateway {
            courier,
            store: InMemory::open().expect("SQLite"),
            counts_store: false,
            provider: Hand::new(provider(Arc::clone(&arrived))),
            lines: Vec::new(),
            link,
            ticket: 0,
            arrived,
        };
        // It takes calls once it knows what the store remembers.
        gateway.settle();
        gateway.register(0..devices);
        gateway
    }

    pub fn count(&mut self, courier: bool, store: bool) {
        (self.courier.node.is_counting, self.counts_store) = (courier, store);
    }

    /// One call for each; they may be stored together.
    pub fn register(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let device = json!({
                "device_id": format!("device-{number}"), "user_id": format!("user-{number}"),
                "platform": "ios", "token": format!("{:064x}", number + 1), "topics": [ALL],
            });
            self.call("devices", &device);
        }
        self.settle();
    }

    pub fn notify(&mut self, to: Value) {
        let note = json!({"title": "Ada", "body": "Are you there?", "data": {"room": 7}});
        self.call(
            "notify",
            &json!({"to": to, "note": note, "deliver": "push"}),
        );
    }

    fn call(&mut self, what: &str, body: &Value) {
        self.ticket += 1;
        let (ticket, body) = (self.ticket, body.to_string());
        let call = GatewayCall {
            app_id: "a",
            key: "k",
            method: "POST",
            segments: vec![what],
            query: Vec::new(),
            body: body.as_bytes(),
        };
        self.courier
            .receive(self.link, &Report::Call { ticket, call }.encode());
    }

    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Until nobody has anything to do, now or within a second.
    pub fn settle(&mut self) {
        let mut quiet_ms = 0;
        while quiet_ms < 1_000 {
            quiet_ms = if self.step() { 0 } else { quiet_ms + 100 };
            if quiet_ms > 0 {
                self.courier.pass(Duration::from_millis(100));
                self.provider.now = self.courier.now;
            }
        }
    }

    fn step(&mut self) -> bool {
        for frame in self.courier.take_frames(self.link) {
            if let Ok(Receipt::Answer { answer, .. }) = Receipt::decode(&frame) {
                assert!(answer.status < 300, "{}", answer.body);
            }
        }
        let outputs = self.courier.take_outputs();
        let mut moved = !outputs.is_empty();
        for output in outputs {
            match output {
                Output::Dial(peer) => self.connect(peer),
                Output::AskStore => {}
                other => panic!("{other:?} is not of the path"),
            }
        }
        while let Some(request) = self.courier.node.store_request() {
            let reply = match self.counts_store {
                true => counted_turn(|| self.store.answer(&request)),
                false => self.store.answer(&request),
            };
            let now = self.courier.now;
            self.courier.node.stored(reply, now);
            self.courier.pass(Duration::ZERO);
            moved = true;
        }
        for (near, far) in &self.lines {
            let (out, back) = (self.courier.take(*near), self.provider.take(*far));
            moved |= !out.is_empty() || !back.is_empty();
            if !out.is_empty() {
                self.provider.receive(*far, &out);
            }
            if !back.is_empty() {
                self.courier.receive(*near, &back);
            }
        }
        moved
    }

    fn connect(&mut self, peer: Peer) {
        let Peer::Outside(dial) = peer else {
            panic!("it dials nobody else");
        };
        self.courier.node.target(dial).expect("it was not given up");
        self.courier.node.agreed(dial, Some(b"h2"));
        let near = self.courier.open(Origin::Dialled(peer));
        let far = self.provider.open(Origin::client(0, None));
        self.lines.push((near, far));
    }
}

fn provider(arrived: Arc<AtomicU64>) -> MockNode {
    MockNode::new(MockOptions {
        mock: Mock::new(
            Box::new(Apns::new(ApnsOptions::default())),
            Script::default(),
            Dice::new([8; 16]),
            true,
        ),
        streams_max: STREAMS,
        start_with_one: true,
        limits: Limits::default(),
        tell: Box::new(move |_| {
            arrived.fetch_add(1, Ordering::Relaxed);
            true
        }),
    })
}

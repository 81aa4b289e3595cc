//! Deliveries in small lives of a courier, in virtual time: the courier itself, SQLite itself, and over
//! HTTP/2 the mock of APNs, which answers as badly as rules and chance have it. Whatever breaks or dies,
//! what was accepted is settled in the end; a provider has it more than once only where nobody could know
//! whether it had, and that is counted; and what says that it was accepted, or was not, is so. In every
//! third life nothing happens that could leave anybody in doubt, though the store is out of reach for
//! minutes: then nothing is in doubt, and nothing comes twice.
//! `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` runs n.

#[path = "sim_sending/account.rs"]
mod account;
#[path = "node/hand.rs"]
mod hand;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use account::Sums;
use hand::Hand;
use lineman::app::apps::{App, AppKey, Apps, Secret};
use lineman::base::dice::Dice;
use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::base::now::Moment;
use lineman::mock::apns::{Apns, ApnsOptions};
use lineman::mock::script::Script;
use lineman::mock::{Kind, Mock};
use lineman::node::courier::{Courier, CourierOptions, DeviceOptions, SendingOptions};
use lineman::node::mock::{MockNode, MockOptions};
use lineman::node::{Node, Origin, Output};
use lineman::push::devices::token_key::{KeyId, TokenKey};
use lineman::push::devices::vault::{Binding, TokenVault};
use lineman::push::facts::{StoreReply, StoreRequest};
use lineman::push::providers::credential::Credential;
use lineman::store::sqlite::InMemory;
use lineman::wire::control::Order;
use lineman::wire::courier_bus::{Receipt, Report, VERSION};
use lineman::wire::gateway::GatewayCall;
use rcgen::KeyPair;
use serde_json::{Map, Value, json};

const STEPS: u64 = 500;
const DEVICES: u64 = 5;
/// Of which a life has some; each ends what it does sooner or later.
const RULES: [&str; 12] = [
    "chance=0.05 reset=CANCEL",
    "chance=0.03 close",
    "chance=0.03 silence",
    "chance=0.05 answer=503",
    "chance=0.05 answer=429 retry-after=20",
    "chance=0.05 reset=REFUSED_STREAM",
    "chance=0.03 goaway=Shutdown",
    "chance=0.2 delay=3s",
    "chance=0.03 answer=InternalServerError",
    "nth=1-4 answer=ExpiredProviderToken",
    "token=02* chance=0.3 answer=Unregistered",
    "token=03* chance=0.3 answer=BadDeviceToken",
];
/// Only the first ones leave it open whether the request was acted on.
const UNCLEAR: usize = 3;

/// A connection on its way through the net.
#[derive(Default)]
struct Pipe {
    /// What is under way to the courier and to the provider.
    ways: [VecDeque<u8>; 2],
    /// The ends, as long as they are open: the courier's, the provider's.
    ends: [Option<ConnId>; 2],
}

struct Life {
    dice: Dice,
    /// Nothing happens that could leave anybody in doubt.
    is_clear: bool,
    key: String,
    /// `None`: it is dead.
    courier: Option<Hand<Courier>>,
    link: ConnId,
    master: ConnId,
    mock: Hand<MockNode>,
    told: Arc<Mutex<Vec<String>>>,
    pipes: Vec<Pipe>,
    store: InMemory,
    under_way: Option<StoreRequest>,
    /// Until then the store cannot be reached.
    outage: Moment,
    /// When the next courier begins, in steps.
    revived: u64,
    tickets: u64,
    accepted: Vec<String>,
    /// Couriers that there were.
    lives: u8,
    /// Since time went on.
    turns: u32,
}

fn apps() -> Apps {
    Apps::new(vec![App {
        id: "a".into(),
        keys: vec![AppKey::new("k".into(), Secret::new("s".into()))],
        publishes_per_second: 0,
        client_events: true,
        subscription_counts: false,
        watchlists: false,
        authorize_seconds: 0,
        replay_guard: false,
        origins: Vec::new(),
    }])
}

fn credential(key: &str) -> Credential {
    let fields = json!({
        "kind": "apns-token", "key": key, "key_id": "ABC123DEFG", "team_id": "TEAM123456",
        "bundle": "org.example.app", "base_url": "https://apns.example",
    });
    let fields: Map<String, Value> = fields.as_object().expect("an object").clone();
    Credential::parse(&fields).expect("a credential")
}

fn mock(dice: &mut Dice, is_clear: bool, told: &Arc<Mutex<Vec<String>>>) -> MockNode {
    let mut script = Script::default();
    for rule in &RULES[if is_clear { UNCLEAR } else { 0 }..] {
        if dice.below(3) == 0 {
            script.add_text(Kind::Apns, rule).expect("a rule");
        }
    }
    let told = Arc::clone(told);
    MockNode::new(MockOptions {
        mock: Mock::new(
            Box::new(Apns::new(ApnsOptions::default())),
            script,
            Dice::new([dice.below(256) as u8; 16]),
            true,
        ),
        streams_max: 1 + dice.below(20) as u32,
        start_with_one: true,
        limits: Limits::default(),
        tell: Box::new(move |line| {
            told.lock().expect("nobody died").push(line);
            true
        }),
    })
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut dice = Dice::new(bytes);
        let told = Arc::default();
        let is_clear = seed % 3 == 2;
        let mock = Hand::new(mock(&mut dice, is_clear, &told));
        let mut life = Life {
            dice,
            is_clear,
            key: KeyPair::generate().expect("a key").serialize_pem(),
            courier: None,
            link: ConnId::new(0, 1),
            master: ConnId::new(0, 1),
            mock,
            told,
            pipes: Vec::new(),
            store: InMemory::open().expect("SQLite"),
            under_way: None,
            outage: Moment::default(),
            revived: 0,
            tickets: 0,
            accepted: Vec::new(),
            lives: 0,
            turns: 0,
        };
        life.begin();
        let registrations = (1..=DEVICES).map(|nth| {
            json!({"device_id": format!("d{nth}"), "platform": "ios", "user_id": format!("u{}", nth % 3),
                   "token": format!("{nth:02}").repeat(32)})
        });
        for registration in registrations.collect::<Vec<_>>() {
            life.call("POST", &["devices"], &registration);
            while life.turn_store(0) {}
        }
        life
    }

    fn begin(&mut self) {
        self.lives += 1;
        let text = data_encoding::BASE64.encode(b"a key of two and thirty bytes ..");
        let key = TokenKey::parse(KeyId::parse("1").expect("an id"), &text).expect("a key");
        let vault = TokenVault::new(key, Vec::new(), Binding::Row, &mut self.dice);
        let mut hand = Hand::new(Courier::new(CourierOptions {
            webhooks: Vec::new(),
            apps: apps(),
            limits: Limits {
                notifications_per_user_per_second: 0,
                ..Limits::default()
            },
            in_cluster: false,
            devices: Some(DeviceOptions {
                vault: vault.expect("a vault"),
                keep_ms: 30 * 24 * 3600 * 1000,
            }),
            sending: SendingOptions {
                credentials: vec![("a".into(), credential(&self.key))],
                courier: "main".into(),
                wrong_tokens: 100,
                ..SendingOptions::default()
            },
            seed: [self.lives; 16],
        }));
        hand.now = self.mock.now;
        self.master = hand.open(Origin::Master);
        self.link = hand.open(Origin::Link);
        let version = VERSION;
        hand.receive(self.link, &Report::Calls { version }.encode());
        self.courier = Some(hand);
        self.look();
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            match self.dice.below(100) {
                0..12 => self.notify(),
                12..14 => self.take_back(),
                14..20 if self.is_clear => self.pass(Duration::ZERO),
                14..16 => self.kill(step),
                16..17 => self.stop(step),
                17..19 => self.cut(),
                19..20 => self.freeze(),
                20..30 => {
                    let most = [10, 1_000, 30_000][self.dice.below(3) as usize];
                    let millis = self.dice.below(most);
                    self.pass(Duration::from_millis(millis));
                }
                30..31 if self.dice.below(3) == 0 => {
                    let millis = self.dice.below(400_000);
                    self.outage = self.mock.now.moment + Duration::from_millis(millis);
                }
                30..60 => drop(self.turn_store(3)),
                _ => drop(self.carry()),
            }
            if self.courier.is_none() && self.revived <= step {
                self.begin();
            }
        }
        // Longer than all attempts of the most patient provider together.
        self.outage = self.mock.now.moment;
        let mut quiet = 0;
        for _ in 0..400 {
            if self.courier.is_none() {
                self.begin();
            }
            self.settle();
            quiet = if self.is_done() { quiet + 1 } else { 0 };
            if quiet == 3 {
                break;
            }
            self.pass(Duration::from_secs(120));
        }
    }

    fn settle(&mut self) {
        while self.turn_store(0) || self.carry() {}
    }

    fn notify(&mut self) {
        let user = format!("u{}", self.dice.below(3));
        let note = json!({"title": "t", "data": {"call": self.tickets}});
        let mut body = json!({"to": {"users": [user]}, "note": note, "deliver": "push"});
        if self.dice.below(3) == 0 {
            body["on_unknown"] = "fail".into();
        }
        if self.dice.below(6) == 0 {
            body["expires"] = (self.mock.now.unix_ms / 1000 + 30).into();
        }
        if self.dice.below(6) == 0 {
            body["delay"] = 5.into();
        }
        self.call("POST", &["notify"], &body);
    }

    /// Asks that some notification is cancelled, or that what has failed of it is sent again.
    fn take_back(&mut self) {
        let index = self.dice.below(1 + self.accepted.len() as u64) as usize;
        if let Some(id) = self.accepted.get(index).cloned() {
            self.call("DELETE", &["notifications", &id], &Value::Null);
        }
    }

    fn call(&mut self, method: &str, segments: &[&str], body: &Value) {
        self.tickets += 1;
        let ticket = self.tickets;
        let body = body.to_string();
        let call = GatewayCall {
            app_id: "a",
            key: "k",
            method,
            segments: segments.to_vec(),
            query: Vec::new(),
            body: body.as_bytes(),
        };
        let link = self.link;
        if let Some(courier) = &mut self.courier {
            courier.receive(link, &Report::Call { ticket, call }.encode());
        }
        self.look();
    }

    /// Takes up what both nodes want done.
    fn look(&mut self) {
        let Some(courier) = &mut self.courier else {
            return;
        };
        for frame in courier.take_frames(self.link) {
            if let Receipt::Answer { answer, .. } = Receipt::decode(&frame).expect("a receipt")
                && answer.status == 202
            {
                let body: Value = serde_json::from_str(answer.body).expect("JSON");
                let id = body["id"].as_str().expect("an id");
                self.accepted.push(id.to_string());
            }
        }
        let mut dials = Vec::new();
        let mut has_ended = false;
        for output in courier.take_outputs() {
            match output {
                Output::Dial(peer) => dials.push(peer),
                Output::Quit => has_ended = true,
                Output::Close(conn, _) => {
                    take_away(&mut self.pipes, 0, conn, courier.take(conn));
                }
                _ => {}
            }
        }
        for peer in dials {
            self.dial(peer);
        }
        for output in self.mock.take_outputs() {
            if let Output::Close(conn, _) = output {
                let last = self.mock.take(conn);
                take_away(&mut self.pipes, 1, conn, last);
            }
        }
        self.take_written();
        if has_ended {
            self.bury();
        }
        if self.under_way.is_none()
            && let Some(courier) = &mut self.courier
        {
            self.under_way = courier.node.store_request();
        }
    }

    fn dial(&mut self, peer: lineman::node::Peer) {
        let (lineman::node::Peer::Outside(dial), Some(courier)) = (peer, &mut self.courier) else {
            panic!("it dials nobody else");
        };
        let now = courier.now;
        if self.dice.below(10) == 0 {
            return courier.node.unreachable(peer, "refused", now);
        }
        let target = courier.node.target(dial);
        assert_eq!(
            target.map(|it| it.host().to_string()),
            Some("apns.example".into())
        );
        courier.node.agreed(dial, Some(b"h2"));
        let own = courier.open(Origin::Dialled(peer));
        let far = self.mock.open(Origin::client(0, None));
        self.pipes.push(Pipe {
            ends: [Some(own), Some(far)],
            ..Pipe::default()
        });
    }

    fn take_written(&mut self) {
        for pipe in &mut self.pipes {
            if let (Some(conn), Some(courier)) = (pipe.ends[0], &mut self.courier) {
                pipe.ways[1].extend(courier.take(conn));
            }
            if let Some(conn) = pipe.ends[1] {
                pipe.ways[0].extend(self.mock.take(conn));
            }
        }
        self.pipes.retain(|pipe| pipe.ends != [None, None]);
    }

    /// Brings some bytes on, or the news that no more come; false when there is nothing.
    fn carry(&mut self) -> bool {
        let (first, count) = (
            self.dice.below(1 + self.pipes.len() as u64),
            self.pipes.len(),
        );
        for nth in 0..2 * count {
            let (index, way) = ((first as usize + nth / 2) % count, nth % 2);
            let pipe = &mut self.pipes[index];
            let Some(conn) = pipe.ends[way] else {
                pipe.ways[way].clear();
                continue;
            };
            let is_over = pipe.ends[1 - way].is_none();
            if pipe.ways[way].is_empty() && !is_over {
                continue;
            }
            if pipe.ways[way].is_empty() {
                pipe.ends[way] = None;
                match (way, &mut self.courier) {
                    (0, Some(courier)) => courier.hang_up(conn),
                    (0, None) => {}
                    _ => self.mock.hang_up(conn),
                }
            } else {
                let most = pipe.ways[way].len() as u64;
                let count = 1 + self.dice.below(most.min(3_000)) as usize;
                let bytes: Vec<u8> = pipe.ways[way].drain(..count).collect();
                match (way, &mut self.courier) {
                    (0, Some(courier)) => courier.receive(conn, &bytes),
                    (0, None) => {}
                    _ => self.mock.receive(conn, &bytes),
                }
            }
            self.look();
            return true;
        }
        false
    }

    /// A connection breaks, and what is under way is lost.
    fn cut(&mut self) {
        let index = self.dice.below(1 + self.pipes.len() as u64) as usize;
        if index >= self.pipes.len() {
            return;
        }
        let [own, far] = self.pipes.remove(index).ends;
        if let (Some(conn), Some(courier)) = (own, &mut self.courier) {
            courier.lose(conn);
        }
        if let Some(conn) = far {
            self.mock.lose(conn);
        }
        self.look();
    }

    /// Time passes for the provider, and the courier notices it all at once.
    fn freeze(&mut self) {
        let millis = self.dice.below(400_000);
        self.mock.pass(Duration::from_millis(millis));
        if let Some(courier) = &mut self.courier {
            courier.now = self.mock.now;
        }
    }

    /// The store answers, if it was asked; how often of a hundred a commit fails.
    fn turn_store(&mut self, trouble: u64) -> bool {
        let Some(request) = self.under_way.take() else {
            return false;
        };
        let is_out = self.mock.now.moment < self.outage;
        let fails = is_out || self.dice.below(100) < trouble;
        let fails = fails && matches!(request, StoreRequest::Commit(_));
        let reply = match fails {
            true => StoreReply::Failed("the disk is full".into()),
            false => self.store.answer(&request),
        };
        if let Some(courier) = &mut self.courier {
            let now = courier.now;
            courier.node.stored(reply, now);
            courier.pass(Duration::ZERO);
        }
        self.look();
        true
    }

    fn kill(&mut self, step: u64) {
        self.revived = step + self.dice.below(20);
        self.bury();
    }

    /// What was under way to the store is there as a whole or not; some of what was written arrives.
    fn bury(&mut self) {
        if self.courier.take().is_none() {
            return;
        }
        if let Some(request) = self.under_way.take()
            && self.dice.below(2) == 0
        {
            self.store.answer(&request);
        }
        for pipe in &mut self.pipes {
            pipe.ends[0] = None;
            pipe.ways[0].clear();
            if self.dice.below(2) == 0 {
                pipe.ways[1].clear();
            }
        }
    }

    /// The master asks it to end.
    fn stop(&mut self, step: u64) {
        self.revived = step + 40;
        let master = self.master;
        if let Some(courier) = &mut self.courier {
            courier.receive(master, &Order::Stop.encode());
        }
        self.look();
    }

    fn pass(&mut self, duration: Duration) {
        if self.is_clear {
            // Nobody is late.
            while self.carry() {}
        }
        let until = self.mock.now.moment + duration;
        while self.mock.now.moment < until {
            let deadline = |node: &dyn Node| node.deadline();
            let own = self.courier.as_ref().and_then(|it| deadline(&it.node));
            let next = [own, deadline(&self.mock.node)].into_iter().flatten().min();
            let next = next.map_or(until, |at| at.min(until));
            let step = next.max(self.mock.now.moment).since(self.mock.now.moment);
            self.turns = if step.is_zero() { self.turns + 1 } else { 0 };
            assert!(self.turns < 10_000, "something is due again and again");
            self.mock.pass(step);
            if let Some(courier) = &mut self.courier {
                courier.pass(step);
                courier.now = self.mock.now;
            }
            self.look();
            // Nobody waits for ever for what nobody brings.
            while self.turn_store(0) || self.carry() {}
            if step.is_zero() && next >= until {
                break;
            }
        }
    }
}

/// An end is closed by its owner; its last words are on their way.
fn take_away(pipes: &mut [Pipe], side: usize, conn: ConnId, last: Vec<u8>) {
    if let Some(pipe) = pipes.iter_mut().find(|it| it.ends[side] == Some(conn)) {
        pipe.ways[1 - side].extend(last);
        pipe.ends[side] = None;
    }
}

#[test]
fn what_was_accepted_is_settled_and_arrives_twice_only_where_nobody_could_know() {
    let number = |name| std::env::var(name).ok().and_then(|it| it.parse().ok());
    let one: Option<u64> = number("SIM_SEED");
    let count = number("SIM_SEEDS").unwrap_or(48);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let mut sums = Sums::default();
    for seed in seeds {
        println!("replay with: SIM_SEED={seed} cargo test --test sim_sending");
        let mut life = Life::new(seed);
        life.run();
        let Sums {
            accepted,
            others,
            uncertain,
            twice,
        } = life.check();
        sums.accepted += accepted;
        sums.others += others;
        sums.uncertain += uncertain;
        sums.twice += twice;
    }
    println!("{sums:?}");
    // A simulation in which nothing happens proves nothing.
    let busy = sums.accepted > 200 && sums.others > 20 && sums.uncertain > 20 && sums.twice > 0;
    assert!(busy || one.is_some(), "{sums:?}");
}

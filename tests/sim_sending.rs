//! Deliveries in small lives of couriers, in virtual time: the courier itself, SQLite itself, and over
//! HTTP/2 the mock of APNs, which answers as badly as rules and chance have it. Whatever breaks, sleeps or
//! dies, what was accepted is settled in the end; a provider has it more than once only where nobody could
//! know whether it had, and that is counted; what says that it was accepted, or was not, is so; and
//! nothing is sent when it has expired, or long after it was cancelled.
//!
//! Lives are of three kinds: of one courier; of two that share the store; and of one to which nothing
//! happens that could leave anybody in doubt, though its store is out of reach for minutes: then nothing
//! is in doubt, and nothing comes twice.
//!
//! `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` runs n.

#[path = "sim_sending/account.rs"]
mod account;
#[path = "node/apps.rs"]
mod apps;
#[path = "node/hand.rs"]
mod hand;
#[path = "node/sender.rs"]
mod sender;
#[path = "sim_sending/server.rs"]
mod server;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use account::Sums;
use hand::Hand;
use lineman::base::dice::Dice;
use lineman::base::ids::ConnId;
use lineman::node::mock::MockNode;
use lineman::node::{Node, Origin, Output, Peer};
use lineman::push::delivery::jobs::DeliveryJob;
use lineman::push::facts::{StoreReply, StoreRequest};
use lineman::push::jobs::Job;
use lineman::store::sqlite::InMemory;
use lineman::wire::control::Order;
use lineman::wire::courier_bus::{Receipt, Report};
use lineman::wire::gateway::GatewayCall;
use rcgen::KeyPair;
use serde_json::{Value, json};
use server::Server;

const STEPS: u64 = 500;
const DEVICES: u64 = 5;

/// A connection of a server on its way through the net.
struct Pipe {
    server: usize,
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
    servers: Vec<Server>,
    mock: Hand<MockNode>,
    told: Arc<Mutex<Vec<String>>>,
    pipes: Vec<Pipe>,
    store: InMemory,
    tickets: u64,
    accepted: Vec<String>,
    /// The calls that cancel, by ticket; and when which notification was cancelled.
    cancelling: BTreeMap<u64, String>,
    cancelled: BTreeMap<String, u64>,
    /// Since time went on.
    turns: u32,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut dice = Dice::new(bytes);
        let told = Arc::default();
        let is_clear = seed % 3 == 2;
        let names = ["one", "two"]
            .into_iter()
            .take(1 + usize::from(seed % 3 == 1));
        let mock = Hand::new(server::mock(&mut dice, is_clear, &told));
        let mut life = Life {
            dice,
            is_clear,
            key: KeyPair::generate().expect("a key").serialize_pem(),
            servers: names.map(Server::new).collect(),
            mock,
            told,
            pipes: Vec::new(),
            store: InMemory::open().expect("SQLite"),
            tickets: 0,
            accepted: Vec::new(),
            cancelling: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            turns: 0,
        };
        life.revive(0);
        let registrations = (1..=DEVICES).map(|nth| {
            json!({"device_id": format!("d{nth}"), "platform": "ios", "user_id": format!("u{}", nth % 3),
                   "token": format!("{nth:02}").repeat(32)})
        });
        for registration in registrations.collect::<Vec<_>>() {
            life.call(0, "POST", &["devices"], &registration);
            while life.turn_stores(0) {}
        }
        life
    }

    /// Dead couriers whose time has come have successors.
    fn revive(&mut self, step: u64) {
        for server in &mut self.servers {
            if server.courier.is_none() && server.revived <= step {
                server.begin(&self.key, &mut self.dice, self.mock.now);
            }
        }
        self.look();
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            let index = self.dice.below(self.servers.len() as u64) as usize;
            match self.dice.below(100) {
                0..12 => self.notify(index),
                12..14 => self.cancel(index),
                14..20 if self.is_clear => {}
                14..16 => {
                    self.servers[index].revived = step + self.dice.below(20);
                    self.bury(index);
                }
                16..17 => self.stop(index, step),
                17..19 => self.cut(),
                19..20 => self.servers[index].sleep = self.later(400_000),
                20..30 => {
                    let most = [10, 1_000, 30_000][self.dice.below(3) as usize];
                    let millis = self.dice.below(most);
                    self.pass(Duration::from_millis(millis));
                }
                30..31 if self.dice.below(3) == 0 => {
                    self.servers[index].outage = self.later(400_000);
                }
                30..60 => drop(self.turn_store(index, 3)),
                _ => drop(self.carry()),
            }
            self.revive(step);
        }
        // Longer than all attempts of the most patient provider together.
        let mut quiet = 0;
        for _ in 0..400 {
            self.revive(u64::MAX);
            self.settle();
            quiet = if self.is_done() { quiet + 1 } else { 0 };
            if quiet == 5 {
                break;
            }
            self.pass(Duration::from_secs(120));
        }
    }

    fn later(&mut self, millis_max: u64) -> lineman::base::now::Moment {
        self.mock.now.moment + Duration::from_millis(self.dice.below(millis_max))
    }

    fn settle(&mut self) {
        while self.turn_stores(0) || self.carry() {}
    }

    fn notify(&mut self, index: usize) {
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
        self.call(index, "POST", &["notify"], &body);
    }

    /// Asks that some notification is cancelled.
    fn cancel(&mut self, index: usize) {
        let which = self.dice.below(1 + self.accepted.len() as u64) as usize;
        if let Some(id) = self.accepted.get(which).cloned() {
            self.cancelling.insert(self.tickets + 1, id.clone());
            self.call(index, "DELETE", &["notifications", &id], &Value::Null);
        }
    }

    fn call(&mut self, index: usize, method: &str, segments: &[&str], body: &Value) {
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
        let (link, now) = (self.servers[index].link, self.mock.now);
        if let Some(courier) = self.servers[index].awake(now) {
            courier.receive(link, &Report::Call { ticket, call }.encode());
        }
        self.look();
    }

    /// Takes up what all nodes want done.
    fn look(&mut self) {
        for index in 0..self.servers.len() {
            self.look_at(index);
        }
        for output in self.mock.take_outputs() {
            if let Output::Close(conn, _) = output {
                let last = self.mock.take(conn);
                let is_its = |pipe: &Pipe| pipe.ends[1] == Some(conn);
                take_away(&mut self.pipes, 1, is_its, last);
            }
        }
        self.take_written();
    }

    fn look_at(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let Some(courier) = &mut server.courier else {
            return;
        };
        for frame in courier.take_frames(server.link) {
            if let Receipt::Answer { ticket, answer } = Receipt::decode(&frame).expect("a receipt")
            {
                let cancelled = self.cancelling.remove(&ticket);
                match (answer.status, cancelled) {
                    (202, _) => {
                        let body: Value = serde_json::from_str(answer.body).expect("JSON");
                        let id = body["id"].as_str().expect("an id");
                        self.accepted.push(id.to_string());
                    }
                    (200, Some(id)) => drop(self.cancelled.insert(id, self.mock.now.unix_ms)),
                    _ => {}
                }
            }
        }
        let mut dials = Vec::new();
        let mut has_ended = false;
        for output in courier.take_outputs() {
            match output {
                Output::Dial(peer) => dials.push(peer),
                Output::Quit => has_ended = true,
                Output::Close(conn, _) => {
                    let last = courier.take(conn);
                    let is_its = |it: &Pipe| it.server == index && it.ends[0] == Some(conn);
                    take_away(&mut self.pipes, 0, is_its, last);
                }
                _ => {}
            }
        }
        if server.under_way.is_none() {
            server.under_way = courier.node.store_request();
        }
        for peer in dials {
            self.dial(index, peer);
        }
        if has_ended {
            self.take_written();
            self.bury(index);
        }
    }

    fn dial(&mut self, index: usize, peer: Peer) {
        let (Peer::Outside(dial), Some(courier)) = (peer, &mut self.servers[index].courier) else {
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
            server: index,
            ways: Default::default(),
            ends: [Some(own), Some(far)],
        });
    }

    fn take_written(&mut self) {
        for pipe in &mut self.pipes {
            let courier = &mut self.servers[pipe.server].courier;
            if let (Some(conn), Some(courier)) = (pipe.ends[0], courier) {
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
        let count = self.pipes.len();
        let first = self.dice.below(1 + count as u64) as usize;
        for nth in 0..2 * count {
            if self.carry_on((first + nth / 2) % count, nth % 2) {
                self.look();
                return true;
            }
        }
        false
    }

    /// The same for one way of one pipe.
    fn carry_on(&mut self, index: usize, way: usize) -> bool {
        let pipe = &mut self.pipes[index];
        let Some(conn) = pipe.ends[way] else {
            pipe.ways[way].clear();
            return false;
        };
        let is_over = pipe.ends[1 - way].is_none();
        let courier = self.servers[pipe.server].awake(self.mock.now);
        if (pipe.ways[way].is_empty() && !is_over) || (way == 0 && courier.is_none()) {
            return false;
        }
        let most = pipe.ways[way].len() as u64;
        if most == 0 {
            pipe.ends[way] = None;
            match courier {
                Some(courier) if way == 0 => courier.hang_up(conn),
                _ => self.mock.hang_up(conn),
            }
            return true;
        }
        let count = 1 + self.dice.below(most.min(3_000)) as usize;
        let bytes: Vec<u8> = pipe.ways[way].drain(..count).collect();
        match courier {
            Some(courier) if way == 0 => courier.receive(conn, &bytes),
            _ => self.mock.receive(conn, &bytes),
        }
        true
    }

    /// A connection breaks, and what is under way is lost.
    fn cut(&mut self) {
        let index = self.dice.below(1 + self.pipes.len() as u64) as usize;
        if index >= self.pipes.len() {
            return;
        }
        let Pipe { server, ends, .. } = self.pipes.remove(index);
        if let (Some(conn), Some(courier)) = (ends[0], &mut self.servers[server].courier) {
            courier.lose(conn);
        }
        if let Some(conn) = ends[1] {
            self.mock.lose(conn);
        }
        self.look();
    }

    /// The store of some server answers, if any was asked.
    fn turn_stores(&mut self, trouble: u64) -> bool {
        (0..self.servers.len()).any(|index| self.turn_store(index, trouble))
    }

    /// The store answers, if it was asked; how often of a hundred a commit fails.
    fn turn_store(&mut self, index: usize, trouble: u64) -> bool {
        let now = self.mock.now;
        let server = &mut self.servers[index];
        let outage = server.outage;
        if server.awake(now).is_none() {
            return false;
        }
        let Some(request) = server.under_way.take() else {
            return false;
        };
        let fails = now.moment < outage || self.dice.below(100) < trouble;
        let reply = match fails && matches!(request, StoreRequest::Commit(_)) {
            true => StoreReply::Failed("the disk is full".into()),
            false => self.store.answer(&request),
        };
        let has_begun = matches!(&reply, StoreReply::Committed(_)) && begins(&request);
        if let Some(courier) = &mut server.courier {
            courier.node.stored(reply, now);
            courier.pass(Duration::ZERO);
        }
        if has_begun {
            self.check_begun(index);
        }
        self.look();
        true
    }

    /// Its courier is dead. What was under way to the store is there as a whole or not; some of what was
    /// written arrives.
    fn bury(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.courier.take().is_none() {
            return;
        }
        if let Some(request) = server.under_way.take()
            && server.outage <= self.mock.now.moment
            && self.dice.below(2) == 0
        {
            self.store.answer(&request);
        }
        for pipe in self.pipes.iter_mut().filter(|it| it.server == index) {
            pipe.ends[0] = None;
            pipe.ways[0].clear();
            if self.dice.below(2) == 0 {
                pipe.ways[1].clear();
            }
        }
    }

    /// The master asks it to end.
    fn stop(&mut self, index: usize, step: u64) {
        let now = self.mock.now;
        let server = &mut self.servers[index];
        server.revived = step + 40;
        let master = server.master;
        if let Some(courier) = server.awake(now) {
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
            let now = self.mock.now;
            let mut next = until;
            next = next.min(self.mock.node.deadline().unwrap_or(until));
            for server in &mut self.servers {
                let deadline = match server.awake(now) {
                    Some(courier) => courier.node.deadline(),
                    None => server.courier.as_ref().map(|_| server.sleep),
                };
                next = next.min(deadline.unwrap_or(until));
            }
            let step = next.max(now.moment).since(now.moment);
            self.turns = if step.is_zero() { self.turns + 1 } else { 0 };
            assert!(self.turns < 10_000, "something is due again and again");
            self.mock.pass(step);
            for server in &mut self.servers {
                if let Some(courier) = server.awake(now) {
                    courier.pass(step);
                }
                if let Some(courier) = server.awake(self.mock.now) {
                    courier.now = self.mock.now;
                }
            }
            self.look();
            // Nobody waits for ever for what nobody brings.
            while self.turn_stores(0) || self.carry() {}
        }
    }
}

/// Whether a courier says with it that it is new.
fn begins(request: &StoreRequest) -> bool {
    let StoreRequest::Commit(work) = request else {
        return false;
    };
    let is_begin = |job: &Job| matches!(job, Job::Delivery(DeliveryJob::Begin { .. }));
    work.jobs.iter().any(|(_, job)| is_begin(job))
}

/// An end is closed by its owner; its last words are on their way.
fn take_away(pipes: &mut [Pipe], side: usize, is_its: impl Fn(&Pipe) -> bool, last: Vec<u8>) {
    if let Some(pipe) = pipes.iter_mut().find(|pipe| is_its(pipe)) {
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

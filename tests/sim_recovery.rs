//! Readers of channels with history in small lives of a server, as in `sim.rs`: they lose their
//! connections, come back to any worker and name the last position they have. Whatever dies, within
//! one epoch each of them has every event exactly once and in order, and every other is a loss that it
//! was told of. `SIM_SEED=n` replays one seed.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use lineman::base::limits::Limits;
use serde_json::{Value, json};
use world::client::call;
use world::{APP_ID, World};

const WORKERS: usize = 3;
const STEPS: u64 = 400;
const CHANNELS: [&str; 2] = ["kept-a", "kept-b"];

/// Epoch and offset.
type Position = (String, u64);

/// Somebody with one connection after the other.
#[derive(Default)]
struct Reader {
    client: Option<usize>,
    seen: usize,
    asked: bool,
    /// By channel.
    last: BTreeMap<String, Position>,
    subscribed: Vec<String>,
    recovered: usize,
    told_of_loss: usize,
    received: usize,
}

struct Life {
    world: World,
    readers: Vec<Reader>,
    /// HTTP clients: index and worker.
    publishers: Vec<(usize, usize)>,
    numbers: u64,
    /// The number of each event, by channel and position: the same for everybody.
    truth: BTreeMap<(String, Position), u64>,
    /// A process that was killed, and the step at which it comes back.
    dead: Vec<(usize, u64)>,
}

impl Life {
    fn new(seed: u64) -> Life {
        Life {
            world: World::new(WORKERS, Limits::default(), seed, true),
            readers: (0..6).map(|_| Reader::default()).collect(),
            publishers: Vec::new(),
            numbers: 0,
            truth: BTreeMap::new(),
            dead: Vec::new(),
        }
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            match self.world.dice().below(100) {
                0..10 => self.come(),
                10..14 => self.go(),
                14..30 => self.publish(),
                30..32 => self.kill(step),
                32..36 => {
                    let millis = self.world.dice().below(300);
                    self.world.pass(Duration::from_millis(millis));
                }
                _ => (0..20).for_each(|_| {
                    self.world.carry();
                }),
            }
            self.revive(step);
            self.look();
        }
        self.revive(u64::MAX);
        self.settle();
        // Everybody comes back and hears one more event of each channel.
        (0..self.readers.len()).for_each(|index| self.connect(index));
        self.settle();
        self.look();
        self.settle();
        for channel in CHANNELS {
            self.publish_to(channel);
        }
        self.settle();
        self.look();
        self.check_the_end();
    }

    fn settle(&mut self) {
        self.world.carry_all();
        self.world.pass(Duration::from_secs(10));
    }

    fn alive_worker(&mut self) -> Option<usize> {
        let worker = self.world.dice().below(WORKERS as u64) as usize;
        self.world.is_alive(worker).then_some(worker)
    }

    fn is_connected(&self, index: usize) -> bool {
        let client = self.readers[index].client;
        client.is_some_and(|client| !self.world.clients[client].gone)
    }

    fn come(&mut self) {
        let index = self.world.dice().below(self.readers.len() as u64) as usize;
        self.connect(index);
    }

    fn connect(&mut self, index: usize) {
        if self.is_connected(index) {
            return;
        }
        let Some(worker) = self.alive_worker() else {
            return;
        };
        // What the last connection still brought counts.
        self.look();
        let listener = [0, 0, 2, 3][self.world.dice().below(4) as usize];
        let client = self.world.connect(worker, listener);
        let hello = self.world.clients[client].speech.connect();
        self.world.send(client, &hello);
        let reader = &mut self.readers[index];
        reader.client = Some(client);
        (reader.seen, reader.asked) = (0, false);
        reader.subscribed.clear();
    }

    fn go(&mut self) {
        let index = self.world.dice().below(self.readers.len() as u64) as usize;
        if self.is_connected(index) {
            self.look();
            let client = self.readers[index].client.expect("connected");
            self.world.disconnect(client);
        }
    }

    fn publish(&mut self) {
        let channel = CHANNELS[self.world.dice().below(2) as usize];
        self.publish_to(channel);
    }

    fn publish_to(&mut self, channel: &str) {
        let Some(worker) = self.alive_worker() else {
            return;
        };
        let mut known = self.publishers.iter();
        let known = known.find(|(client, of)| *of == worker && !self.world.clients[*client].gone);
        let publisher = match known {
            Some((client, _)) => *client,
            None => {
                let client = self.world.connect(worker, 0);
                self.publishers.push((client, worker));
                client
            }
        };
        self.numbers += 1;
        let padding = "x".repeat(self.world.dice().below(300) as usize);
        let data = json!({"number": self.numbers, "padding": padding}).to_string();
        let body = json!({"name": "n", "channel": channel, "data": data}).to_string();
        let path = format!("/apps/{APP_ID}/events");
        self.world.send(publisher, &call("POST", &path, &body));
    }

    fn kill(&mut self, step: u64) {
        // The switchboard now and then: with it, all that could be recovered is gone.
        let index = match self.world.dice().below(8) {
            0 => self.world.switchboard(),
            other => other as usize % WORKERS,
        };
        if self.world.is_alive(index) {
            self.world.kill(index);
            let back = step + 1 + self.world.dice().below(30);
            self.dead.push((index, back));
        }
    }

    fn revive(&mut self, step: u64) {
        let (due, later) = self.dead.iter().partition(|(_, at)| *at <= step);
        self.dead = later;
        let due: Vec<(usize, u64)> = due;
        for (index, _) in due {
            self.world.start(index);
        }
    }

    /// Lets every reader take up what it was told since the last look.
    fn look(&mut self) {
        for reader in &mut self.readers {
            let Some(client) = reader.client else {
                continue;
            };
            let events = &self.world.clients[client].events;
            for event in &events[reader.seen..] {
                reader.take(event, &mut self.truth);
            }
            reader.seen = events.len();
            let connected = &self.world.clients[client];
            if connected.socket_id.is_some() && !connected.gone && !reader.asked {
                reader.asked = true;
                for channel in CHANNELS {
                    let message = reader.subscription(channel);
                    self.world.say(client, &message);
                }
            }
        }
    }

    fn check_the_end(&self) {
        for channel in CHANNELS {
            let of = |reader: &Reader| reader.last.get(channel).cloned();
            let last: Vec<Option<Position>> = self.readers.iter().map(of).collect();
            assert!(last[0].is_some(), "nobody knows {channel}");
            assert!(last.iter().all(|it| *it == last[0]), "{channel}: {last:?}");
        }
    }
}

impl Reader {
    fn subscription(&self, channel: &str) -> String {
        let mut data = json!({"channel": channel});
        if let Some((epoch, offset)) = self.last.get(channel) {
            data["recover"] = json!({"epoch": epoch, "offset": offset});
        }
        json!({"event": "pusher:subscribe", "data": data}).to_string()
    }

    fn take(&mut self, event: &Value, truth: &mut BTreeMap<(String, Position), u64>) {
        let name = event["event"].as_str().expect("a name");
        let channel = event["channel"].as_str().unwrap_or_default().to_string();
        let position = || {
            let epoch = event["epoch"].as_str().expect("an epoch").to_string();
            (epoch, event["offset"].as_u64().expect("an offset"))
        };
        match name {
            "n" => {
                assert!(self.subscribed.contains(&channel), "too early: {event}");
                let (epoch, offset) = position();
                let last = self.last.get(&channel).expect("success told a position");
                if epoch == last.0 {
                    assert_eq!(offset, last.1 + 1, "after {last:?}: {event}");
                } else {
                    // The history began anew, which the epoch tells.
                    assert_eq!(offset, 1, "after {last:?}: {event}");
                    self.told_of_loss += 1;
                }
                let number = event["data"]["number"].as_u64().expect("a number");
                let place = (channel.clone(), (epoch.clone(), offset));
                let known = *truth.entry(place).or_insert(number);
                assert_eq!(known, number, "one position, two events: {event}");
                self.last.insert(channel, (epoch, offset));
                self.received += 1;
            }
            "pusher_internal:subscription_succeeded" => {
                self.subscribed.push(channel.clone());
                let (epoch, offset) = position();
                if event["recovered"] == true {
                    let last = self.last.get(&channel).expect("it named a position");
                    assert_eq!(last.0, epoch, "{event}");
                    assert!(offset >= last.1, "after {last:?}: {event}");
                    self.recovered += (offset - last.1) as usize;
                } else {
                    self.told_of_loss += usize::from(self.last.contains_key(&channel));
                    self.last.insert(channel, (epoch, offset));
                }
            }
            "pusher:connection_established" => {}
            // Refused while a new switchboard settles, or let go: it comes back.
            "pusher:error" => {}
            other => panic!("an unexpected event {other}: {event}"),
        }
    }
}

#[test]
fn who_comes_back_has_everything_once_and_in_order_or_knows_better() {
    let one = std::env::var("SIM_SEED")
        .ok()
        .and_then(|it| it.parse().ok());
    let seeds = one.map_or(0..64, |seed: u64| seed..seed + 1);
    let (mut recovered, mut told_of_loss, mut received) = (0, 0, 0);
    for seed in seeds {
        println!("replay with: SIM_SEED={seed} cargo test --test sim_recovery");
        let mut life = Life::new(seed);
        life.run();
        for reader in &life.readers {
            recovered += reader.recovered;
            told_of_loss += reader.told_of_loss;
            received += reader.received;
        }
    }
    // A simulation in which nothing happens proves nothing.
    let some = [recovered, told_of_loss, received / 10];
    assert!(some.iter().all(|it| *it > 64) || one.is_some(), "{some:?}");
}

//! Readers of channels with history in small lives of a server, as in `sim.rs`: they lose their
//! connections, come back to any worker and name the last position they have. Whatever dies, within
//! one epoch each of them has every event exactly once and in order, and every other is a loss that it
//! was told of. `SIM_SEED=n` replays one seed.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use lineman::base::limits::Limits;
use serde_json::json;
use world::client::call;
use world::reader::{Position, Reader};
use world::{APP_ID, World};

const WORKERS: usize = 3;
const STEPS: u64 = 400;
const CHANNELS: [&str; 2] = ["kept-a", "kept-b"];

struct Life {
    world: World,
    readers: Vec<Reader>,
    /// HTTP clients: index and worker.
    publishers: Vec<(usize, usize)>,
    numbers: u64,
    /// The number of each event, by channel and position: the same for everybody.
    truth: BTreeMap<(String, Position), u64>,
}

impl Life {
    fn new(seed: u64) -> Life {
        Life {
            world: World::new(WORKERS, Limits::default(), seed, true),
            readers: (0..6).map(|_| Reader::default()).collect(),
            publishers: Vec::new(),
            numbers: 0,
            truth: BTreeMap::new(),
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
            self.world.revive(step);
            self.look();
        }
        self.world.revive(u64::MAX);
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
        self.world.kill_for_a_while(index, step);
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

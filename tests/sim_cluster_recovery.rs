//! Readers of channels with history in small lives of a cluster: they lose their connections and come
//! back to any server, while workers, switchboards, whole servers and Redis die or fall silent. Within
//! one epoch each has every event once and in order, and all have them in the same; every other is a
//! loss that it was told of. `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` runs n.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use lineman::base::limits::Limits;
use serde_json::json;
use world::client::call;
use world::reader::{Position, Reader};
use world::redis::Shared;
use world::{APP_ID, World};

const SERVERS: usize = 2;
const WORKERS: usize = 2;
const STEPS: u64 = 400;
const CHANNELS: [&str; 2] = ["kept-a", "short-kept-b"];
/// All worlds keep the same time, in steps of this.
const SLICE: Duration = Duration::from_millis(20);
const SEEDS: u64 = 48;

struct Life {
    worlds: Vec<World>,
    redis: Shared,
    readers: Vec<Reader>,
    /// HTTP clients: server, worker and index.
    publishers: Vec<(usize, usize, usize)>,
    numbers: u64,
    /// The number of each event, by channel and position: the same for everybody.
    truth: BTreeMap<(String, Position), u64>,
    /// Killed processes: server, index and the step at which each comes back.
    dead: Vec<(usize, usize, u64)>,
    redis_back: Option<u64>,
}

impl Life {
    fn new(seed: u64) -> Life {
        let redis = Shared::default();
        let world = |number: usize| {
            let seed = seed.wrapping_mul(31).wrapping_add(number as u64);
            let size = (WORKERS, Limits::default());
            World::in_cluster(size, seed, (redis.clone(), number), None)
        };
        let reader = |_| Reader {
            clustered: true,
            ..Reader::default()
        };
        Life {
            worlds: (0..SERVERS).map(world).collect(),
            redis: redis.clone(),
            readers: (0..6).map(reader).collect(),
            publishers: Vec::new(),
            numbers: 0,
            truth: BTreeMap::new(),
            dead: Vec::new(),
            redis_back: None,
        }
    }

    /// Chance has one source: that of the first world.
    fn below(&mut self, bound: u64) -> u64 {
        self.worlds[0].dice().below(bound)
    }

    fn pass(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let slice = left.min(SLICE);
            for world in &mut self.worlds {
                self.redis.borrow_mut().now = world.now.moment;
                world.pass(slice);
            }
            left -= slice;
        }
        // What one has said last is still under way to the others.
        for _ in 0..3 {
            self.worlds.iter_mut().for_each(World::carry_all);
        }
    }

    fn run(&mut self, crashes: bool) {
        self.pass(Duration::from_millis(500));
        for step in 0..STEPS {
            match self.below(100) {
                0..10 => {
                    let index = self.below(self.readers.len() as u64) as usize;
                    self.connect(index);
                }
                10..14 => self.go(),
                14..30 => {
                    let channel = CHANNELS[self.below(2) as usize];
                    self.publish_to(channel);
                }
                30..33 if crashes => self.crash(step),
                33..35 if crashes => self.trouble_redis(step),
                35..39 => {
                    let millis = self.below(300);
                    self.pass(Duration::from_millis(millis));
                }
                _ => {
                    for _ in 0..20 {
                        let server = self.below(SERVERS as u64) as usize;
                        self.worlds[server].carry();
                    }
                }
            }
            self.revive(step, false);
            self.look();
        }
        self.revive(0, true);
        self.settle();
        // Everybody comes back and hears one more event of each channel.
        (0..self.readers.len()).for_each(|index| self.connect(index));
        self.settle();
        for channel in CHANNELS {
            self.publish_to(channel);
        }
        self.settle();
        self.check_the_end();
    }

    /// Longer than any lease, and than every wait before a dial.
    fn settle(&mut self) {
        self.pass(Duration::from_millis(100));
        self.look();
        self.pass(3 * world::redis::LEASE);
        self.look();
    }

    fn alive_worker(&mut self) -> Option<(usize, usize)> {
        let server = self.below(SERVERS as u64) as usize;
        let worker = self.below(WORKERS as u64) as usize;
        let is_alive = self.worlds[server].is_alive(worker);
        is_alive.then_some((server, worker))
    }

    fn is_connected(&self, index: usize) -> bool {
        let reader = &self.readers[index];
        let world = &self.worlds[reader.server];
        reader.client.is_some_and(|it| !world.clients[it].gone)
    }

    fn connect(&mut self, index: usize) {
        if self.is_connected(index) {
            return;
        }
        let Some((server, worker)) = self.alive_worker() else {
            return;
        };
        // What the last connection still brought counts.
        self.look();
        let world = &mut self.worlds[server];
        let client = world.connect(worker, 0);
        let hello = world.clients[client].speech.connect();
        world.send(client, &hello);
        let reader = &mut self.readers[index];
        (reader.server, reader.client) = (server, Some(client));
        (reader.seen, reader.asked) = (0, false);
        reader.subscribed.clear();
    }

    fn go(&mut self) {
        let index = self.below(self.readers.len() as u64) as usize;
        if self.is_connected(index) {
            self.look();
            let reader = &self.readers[index];
            let client = reader.client.expect("connected");
            self.worlds[reader.server].disconnect(client);
        }
    }

    fn publish_to(&mut self, channel: &str) {
        let Some((server, worker)) = self.alive_worker() else {
            return;
        };
        let mut known = self.publishers.iter();
        let known = known
            .find(|it| (it.0, it.1) == (server, worker) && !self.worlds[server].clients[it.2].gone);
        let publisher = match known {
            Some((.., client)) => *client,
            None => {
                let client = self.worlds[server].connect(worker, 0);
                self.publishers.push((server, worker, client));
                client
            }
        };
        self.numbers += 1;
        let data = json!({"number": self.numbers}).to_string();
        let body = json!({"name": "n", "channel": channel, "data": data}).to_string();
        let path = format!("/apps/{APP_ID}/events");
        self.worlds[server].send(publisher, &call("POST", &path, &body));
    }

    /// Workers, switchboards, and now and then everything that a server is.
    fn crash(&mut self, step: u64) {
        let server = self.below(SERVERS as u64) as usize;
        let victim = self.below(WORKERS as u64 + 2) as usize;
        let back = step + 1 + self.below(40);
        let all = victim > WORKERS;
        for index in (0..=WORKERS).filter(|index| all || *index == victim) {
            if self.worlds[server].is_alive(index) {
                self.worlds[server].kill(index);
                self.dead.push((server, index, back));
            }
        }
    }

    fn trouble_redis(&mut self, step: u64) {
        if self.redis_back.is_some() {
            return;
        }
        let kind = self.below(8);
        self.redis_back = Some(step + 1 + self.below(30));
        let mut redis = self.redis.borrow_mut();
        match kind {
            0..3 => redis.cut_all(),
            3..5 => redis.paused = true,
            5..7 => {
                redis.refuses = true;
                redis.cut_all();
            }
            _ => {
                redis.refuses = true;
                redis.empty();
            }
        }
    }

    fn revive(&mut self, step: u64, all: bool) {
        let (due, dead): (Vec<_>, Vec<_>) = std::mem::take(&mut self.dead)
            .into_iter()
            .partition(|(_, _, at)| all || *at <= step);
        self.dead = dead;
        for (server, index, _) in due {
            self.worlds[server].start(index);
        }
        if self.redis_back.is_some_and(|at| all || at <= step) {
            self.redis_back = None;
            let mut redis = self.redis.borrow_mut();
            (redis.paused, redis.refuses) = (false, false);
        }
    }

    /// Lets every reader take up what it was told since the last look.
    fn look(&mut self) {
        for reader in &mut self.readers {
            let Some(client) = reader.client else {
                continue;
            };
            let world = &mut self.worlds[reader.server];
            let events = &world.clients[client].events;
            for event in &events[reader.seen..] {
                reader.take(event, &mut self.truth);
            }
            reader.seen = events.len();
            let connected = &world.clients[client];
            if connected.socket_id.is_some() && !connected.gone && !reader.asked {
                reader.asked = true;
                for channel in CHANNELS {
                    let message = reader.subscription(channel);
                    world.say(client, &message);
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

fn run_all(crashes: bool) -> [usize; 4] {
    let number = |name| {
        let text = std::env::var(name).ok();
        text.and_then(|text| text.parse::<u64>().ok())
    };
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut sums = [0; 4];
    for seed in seeds {
        println!("replay with: SIM_SEED={seed} cargo test --test sim_cluster_recovery");
        let mut life = Life::new(seed);
        life.run(crashes);
        for reader in &life.readers {
            sums[0] += reader.received;
            sums[1] += reader.recovered;
            sums[2] += reader.told_of_loss;
            sums[3] += reader.unplaced;
        }
    }
    sums
}

#[test]
fn whoever_comes_back_to_any_server_has_everything_once_and_in_order() {
    let [received, recovered, told_of_loss, unplaced] = run_all(false);
    assert!(received > 100 && recovered > 10, "{received} {recovered}");
    // The short history forgets; nothing else does.
    assert!(told_of_loss < recovered, "{told_of_loss} {recovered}");
    assert_eq!(unplaced, 0, "Redis was there all the time");
}

#[test]
fn whatever_dies_nothing_is_missed_without_a_word_nor_comes_twice() {
    let sums = run_all(true);
    assert!(sums.iter().all(|it| *it > 10), "{sums:?}");
}

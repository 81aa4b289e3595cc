//! Small lives of a cluster: servers of two workers each around one Redis, under random delays,
//! cuts and kills of everything, Redis included. Whatever happens, what docs/cluster.md promises
//! holds. `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` runs n.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use lineman::base::limits::Limits;
use serde_json::json;
use world::client::{call, subscription};
use world::redis::Shared;
use world::view::View;
use world::{APP_ID, World};

const SERVERS: usize = 3;
const WORKERS: usize = 2;
const STEPS: u64 = 400;
const ROOM: &str = "presence-room";
const CHANNELS: [&str; 3] = [ROOM, "private-talk", "news"];
/// All worlds keep the same time, in steps of this.
const SLICE: Duration = Duration::from_millis(20);

struct Subscriber {
    server: usize,
    client: usize,
    user: String,
    asked: BTreeSet<&'static str>,
    seen: usize,
    view: View,
}

struct Published {
    number: u64,
    channel: &'static str,
    server: usize,
    publisher: usize,
    /// Which answer of the publisher is its.
    answer: usize,
    /// Who had been told of success before it was posted.
    audience: Vec<usize>,
}

struct Cluster {
    worlds: Vec<World>,
    redis: Shared,
    subscribers: Vec<Subscriber>,
    /// HTTP clients: server and index.
    publishers: Vec<(usize, usize)>,
    published: Vec<Published>,
    /// Killed processes: server, index and the step at which each comes back.
    dead: Vec<(usize, usize, u64)>,
    redis_back: Option<u64>,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let redis = Shared::default();
        let world = |number| {
            let limits = Limits {
                presence_members: 1000,
                ..Limits::default()
            };
            let seed = seed.wrapping_mul(31).wrapping_add(number as u64);
            World::in_cluster((WORKERS, limits), seed, (redis.clone(), number), None)
        };
        Cluster {
            worlds: (0..SERVERS).map(world).collect(),
            redis: redis.clone(),
            subscribers: Vec::new(),
            publishers: Vec::new(),
            published: Vec::new(),
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
                0..5 => self.new_subscriber(),
                5..13 => self.subscribe_somebody(),
                13..15 => self.disconnect_somebody(),
                15..27 => self.publish(),
                27..30 if crashes => self.crash(step),
                30..32 if crashes => self.trouble_redis(step),
                32..36 => {
                    let millis = self.below(400);
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
        self.pass(Duration::from_millis(100));
        // Longer than any lease, and than every wait before a dial.
        self.pass(3 * world::redis::LEASE);
        self.look();
        self.check_deliveries(crashes);
        self.check_order();
        self.check_presence();
    }

    fn alive_worker(&mut self) -> Option<(usize, usize)> {
        let server = self.below(SERVERS as u64) as usize;
        let worker = self.below(WORKERS as u64) as usize;
        self.worlds[server]
            .is_alive(worker)
            .then_some((server, worker))
    }

    fn new_subscriber(&mut self) {
        let Some((server, worker)) = self.alive_worker() else {
            return;
        };
        let world = &mut self.worlds[server];
        let client = world.connect(worker, 0);
        let hello = world.clients[client].speech.connect();
        world.send(client, &hello);
        let user = format!("u{}", self.below(4));
        self.subscribers.push(Subscriber {
            server,
            client,
            user,
            asked: BTreeSet::new(),
            seen: 0,
            view: View::default(),
        });
    }

    fn is_live(&self, index: usize) -> bool {
        let subscriber = &self.subscribers[index];
        !self.worlds[subscriber.server].clients[subscriber.client].gone
    }

    fn somebody(&mut self) -> Option<usize> {
        let index = self.below(self.subscribers.len().max(1) as u64) as usize;
        let subscriber = self.subscribers.get(index)?;
        let client = &self.worlds[subscriber.server].clients[subscriber.client];
        (!client.gone && client.socket_id.is_some()).then_some(index)
    }

    fn subscribe_somebody(&mut self) {
        let channel = CHANNELS[self.below(CHANNELS.len() as u64) as usize];
        let Some(index) = self.somebody() else {
            return;
        };
        let subscriber = &mut self.subscribers[index];
        if subscriber.asked.insert(channel) {
            let world = &mut self.worlds[subscriber.server];
            let socket_id = world.clients[subscriber.client]
                .socket_id
                .clone()
                .expect("ready");
            let user = (channel == ROOM).then_some(subscriber.user.as_str());
            let message = subscription(&socket_id, channel, user);
            world.say(subscriber.client, &message);
        }
    }

    fn disconnect_somebody(&mut self) {
        if let Some(index) = self.somebody() {
            let subscriber = &self.subscribers[index];
            self.worlds[subscriber.server].disconnect(subscriber.client);
        }
    }

    fn publish(&mut self) {
        let Some((server, worker)) = self.alive_worker() else {
            return;
        };
        self.look();
        let channel = CHANNELS[self.below(CHANNELS.len() as u64) as usize];
        let known = self.publishers.iter().rev().find(|it| it.0 == server);
        let known = known.map(|(_, client)| *client);
        let world = &mut self.worlds[server];
        let publisher = match known.filter(|client| !world.clients[*client].gone) {
            Some(client) => client,
            None => {
                let client = world.connect(worker, 0);
                self.publishers.push((server, client));
                client
            }
        };
        let number = self.published.len() as u64;
        let data = json!({"number": number}).to_string();
        let body = json!({"name": "n", "channel": channel, "data": data}).to_string();
        let path = format!("/apps/{APP_ID}/events");
        self.worlds[server].send(publisher, &call("POST", &path, &body));
        let same = |it: &&Published| (it.server, it.publisher) == (server, publisher);
        let audience = self.subscribers.iter().enumerate();
        let audience = audience.filter(|(_, it)| it.view.succeeded.contains(channel));
        self.published.push(Published {
            number,
            channel,
            server,
            publisher,
            answer: self.published.iter().filter(same).count(),
            audience: audience.map(|(index, _)| index).collect(),
        });
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
        let kind = self.below(4);
        self.redis_back = Some(step + 1 + self.below(30));
        let mut redis = self.redis.borrow_mut();
        match kind {
            0 => redis.cut_all(),
            1 => redis.paused = true,
            2 => {
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
        let (due, dead) = std::mem::take(&mut self.dead)
            .into_iter()
            .partition(|(_, _, at)| all || *at <= step);
        self.dead = dead;
        for (server, index, _) in due {
            let due: (usize, usize) = (server, index);
            self.worlds[due.0].start(due.1);
        }
        if self.redis_back.is_some_and(|at| all || at <= step) {
            self.redis_back = None;
            let mut redis = self.redis.borrow_mut();
            (redis.paused, redis.refuses) = (false, false);
        }
    }

    fn look(&mut self) {
        for subscriber in &mut self.subscribers {
            let events = &self.worlds[subscriber.server].clients[subscriber.client].events;
            for event in &events[subscriber.seen..] {
                subscriber.view.take(event);
            }
            subscriber.seen = events.len();
        }
    }

    /// Here, whoever was promised an event has it; elsewhere too, unless somebody was in trouble.
    fn check_deliveries(&self, crashes: bool) {
        let mut everywhere = 0;
        for event in &self.published {
            let publisher = &self.worlds[event.server].clients[event.publisher];
            let Some((status, body)) = publisher.answers.get(event.answer) else {
                assert!(publisher.gone, "a publisher was left without an answer");
                continue;
            };
            assert!([200, 503].contains(status), "{status}");
            if *status != 200 {
                continue;
            }
            let promised = body == "{}";
            assert!(promised || body == "{\"cluster\":\"local\"}", "{body}");
            for index in event.audience.iter().filter(|index| self.is_live(**index)) {
                let subscriber = &self.subscribers[*index];
                let here = subscriber.server == event.server;
                if here || (promised && !crashes) {
                    everywhere += usize::from(!here);
                    let received = subscriber.view.received.get(event.channel);
                    assert!(
                        received.is_some_and(|it| it.contains(&event.number)),
                        "event {} of server {} never came to client {} of server {}",
                        event.number,
                        event.server,
                        subscriber.client,
                        subscriber.server
                    );
                }
            }
        }
        assert!(crashes || everywhere > 0, "nothing was delivered afar");
    }

    /// Any two clients saw what one server published in a channel in the same order.
    fn check_order(&self) {
        for (channel, server) in CHANNELS
            .iter()
            .flat_map(|it| (0..SERVERS).map(move |s| (it, s)))
        {
            let of_server = |number: &u64| self.published[*number as usize].server == server;
            let seen: Vec<Vec<u64>> = self
                .subscribers
                .iter()
                .filter_map(|it| it.view.received.get(*channel))
                .map(|it| it.iter().copied().filter(|it| of_server(it)).collect())
                .collect();
            for one in &seen {
                for other in &seen {
                    let common = |a: &[u64], b: &[u64]| -> Vec<u64> {
                        a.iter().filter(|it| b.contains(it)).copied().collect()
                    };
                    assert_eq!(
                        common(one, other),
                        common(other, one),
                        "{channel} of {server}"
                    );
                }
            }
        }
    }

    /// What every live subscriber believes is who is there on all servers, and so does each API.
    fn check_presence(&mut self) {
        let live = (0..self.subscribers.len()).filter(|index| self.is_live(*index));
        let live: Vec<&Subscriber> = live.map(|index| &self.subscribers[index]).collect();
        for subscriber in &live {
            for asked in &subscriber.asked {
                assert!(
                    subscriber.view.succeeded.contains(*asked),
                    "never told of {asked}"
                );
            }
        }
        let there = live.iter().filter(|it| it.view.succeeded.contains(ROOM));
        let there: Vec<&&Subscriber> = there.collect();
        let truth: BTreeSet<String> = there.iter().map(|it| it.user.clone()).collect();
        for subscriber in there {
            let (server, client) = (subscriber.server, subscriber.client);
            assert_eq!(
                subscriber.view.present, truth,
                "client {client} of server {server}"
            );
        }
        for server in 0..SERVERS {
            let reader = self.worlds[server].connect(0, 0);
            let path = format!("/apps/{APP_ID}/channels/{ROOM}/users");
            self.worlds[server].send(reader, &call("GET", &path, ""));
            self.pass(Duration::from_secs(1));
            let (status, body) = self.worlds[server].clients[reader].answers[0].clone();
            assert_eq!(status, 200);
            let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            let users = body["users"].as_array().expect("a list").iter();
            let users: BTreeSet<&str> = users.filter_map(|it| it["id"].as_str()).collect();
            assert!(
                users.iter().copied().eq(truth.iter().map(String::as_str)),
                "{users:?}"
            );
        }
        let occupied = CHANNELS.iter().filter(|channel| {
            let held = |it: &usize| self.subscribers[*it].view.succeeded.contains(**channel);
            (0..self.subscribers.len()).any(|index| held(&index) && self.is_live(index))
        });
        assert_eq!(
            self.redis.borrow().channels(),
            occupied.count(),
            "Redis forgets the rest"
        );
    }
}

const SEEDS: u64 = 48;

fn run_all(crashes: bool) {
    let number = |name| {
        let text = std::env::var(name).ok();
        text.and_then(|text| text.parse::<u64>().ok())
    };
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let caught = std::panic::catch_unwind(|| Cluster::new(seed).run(crashes));
        if let Err(panic) = caught {
            eprintln!("replay with: SIM_SEED={seed} cargo test --test sim_cluster");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn events_reach_all_servers_once_and_in_order_under_any_delay() {
    run_all(false);
}

#[test]
fn presence_heals_through_crashes_of_servers_and_of_redis() {
    run_all(true);
}

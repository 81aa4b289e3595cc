//! Webhooks in small lives of a cluster: servers around one Redis, each with a courier and the same
//! endpoints. Whoever is killed, stopped or cut off, at any step, each endpoint is told in turns that
//! users and channels come and go, by whichever server, and at the end it knows the truth. A request is
//! repeated to the byte, and only when its sender cannot know, or say, that it has arrived.
//! `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` runs n.

mod world;

use std::time::Duration;

use lineman::base::limits::Limits;
use world::World;
use world::belief::{Belief, believe, without_repeats};
use world::client::subscription;
use world::courier::{Outside, Told};
use world::redis::{LEASE, Shared};

const SERVERS: usize = 3;
const WORKERS: usize = 1;
const STEPS: u64 = 300;
const ROOMS: [&str; 2] = ["presence-one", "presence-two"];
const USERS: [&str; 3] = ["ann", "bob", "cat"];
const RECEIVERS: usize = 2;
/// All worlds keep the same time, in steps of this.
const SLICE: Duration = Duration::from_millis(20);

/// What may go wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Bytes are late, endpoints fail.
    Delays,
    /// Processes and whole servers die or stop, Redis is cut off and paused.
    Crashes,
    /// Redis loses all its data, and nobody dies.
    Amnesia,
}

/// A connection that joins one room as soon as it can.
struct Person {
    server: usize,
    client: usize,
    room: &'static str,
    user: &'static str,
    asked: bool,
}

struct Life {
    trouble: Trouble,
    worlds: Vec<World>,
    redis: Shared,
    people: Vec<Person>,
    /// Until which step a server is stopped as by SIGSTOP.
    stopped: [u64; SERVERS],
    redis_back: u64,
    /// How often the office changed hands.
    takeovers: usize,
    teller: String,
}

impl Life {
    fn new(seed: u64, trouble: Trouble) -> Life {
        let redis = Shared::default();
        let first = Outside::new(RECEIVERS);
        let world = |number| {
            let seed = seed.wrapping_mul(31).wrapping_add(number as u64);
            let outside = Some(Outside::beside(&first));
            let server = (WORKERS, Limits::default());
            World::in_cluster(server, seed, (redis.clone(), number), outside)
        };
        Life {
            trouble,
            worlds: (0..SERVERS).map(world).collect(),
            redis: redis.clone(),
            people: Vec::new(),
            stopped: [0; SERVERS],
            redis_back: 0,
            takeovers: 0,
            teller: String::new(),
        }
    }

    /// Chance has one source: that of the first world.
    fn below(&mut self, bound: u64) -> u64 {
        self.worlds[0].dice().below(bound)
    }

    fn run(&mut self) {
        for world in &mut self.worlds {
            // One endpoint has a hard life, the other a calm one.
            world.outside_mut().receivers[0].trouble = 30;
        }
        for step in 0..STEPS {
            let crashes = self.trouble == Trouble::Crashes;
            match self.below(100) {
                0..10 => self.come(),
                10..18 => self.go(),
                18..22 if crashes => self.crash(step),
                22..24 if crashes => self.stop(step),
                24..26 if self.trouble != Trouble::Delays => self.trouble_redis(step),
                26..34 => {
                    let millis = self.below(1500);
                    self.pass(Duration::from_millis(millis), step);
                }
                _ => (0..20).for_each(|_| {
                    let server = self.below(SERVERS as u64) as usize;
                    if self.stopped[server] <= step {
                        self.worlds[server].carry();
                    }
                }),
            }
            self.revive(step);
            self.look();
        }
        self.revive(u64::MAX);
        for world in &mut self.worlds {
            world.outside_mut().receivers[0].trouble = 0;
        }
        // A lease, the window for those who return, and the longest wait between two attempts.
        for _ in 0..6 {
            self.pass(Duration::from_secs(25), u64::MAX);
            self.look();
        }
    }

    fn pass(&mut self, time: Duration, step: u64) {
        let mut left = time;
        while !left.is_zero() {
            let slice = left.min(SLICE);
            for (server, world) in self.worlds.iter_mut().enumerate() {
                self.redis.borrow_mut().now = world.now.moment;
                match self.stopped[server] <= step {
                    true => world.pass(slice),
                    false => world.skip(slice),
                }
            }
            left -= slice;
        }
        // What one has said last is still under way to the others.
        for _ in 0..3 {
            let awake = self.worlds.iter_mut().zip(self.stopped);
            let awake = awake.filter(|(_, until)| *until <= step);
            awake.for_each(|(world, _)| world.carry_all());
        }
    }

    fn come(&mut self) {
        let server = self.below(SERVERS as u64) as usize;
        let world = &mut self.worlds[server];
        if !world.is_alive(0) {
            return;
        }
        let client = world.connect(0, 0);
        let hello = world.clients[client].speech.connect();
        world.send(client, &hello);
        let room = ROOMS[self.below(ROOMS.len() as u64) as usize];
        let user = USERS[self.below(USERS.len() as u64) as usize];
        self.people.push(Person {
            server,
            client,
            room,
            user,
            asked: false,
        });
    }

    fn go(&mut self) {
        let index = self.below(1 + self.people.len() as u64) as usize;
        if let Some(person) = self.people.get(index) {
            self.worlds[person.server].disconnect(person.client);
        }
    }

    /// A process, or all of a server; the teller's as often as those of all others.
    fn crash(&mut self, step: u64) {
        let teller = self.redis.borrow().teller_world();
        let server = match (self.below(2), teller) {
            (0, Some(teller)) => teller,
            _ => self.below(SERVERS as u64) as usize,
        };
        let victim = self.below(WORKERS as u64 + 4) as usize;
        let all = victim > WORKERS + 1;
        for index in (0..WORKERS + 2).filter(|index| all || *index == victim) {
            self.worlds[server].kill_for_a_while(index, step);
        }
    }

    fn stop(&mut self, step: u64) {
        let server = self.below(SERVERS as u64) as usize;
        self.stopped[server] = step + 1 + self.below(60);
    }

    fn trouble_redis(&mut self, step: u64) {
        if self.redis_back > 0 {
            return;
        }
        let kind = match self.trouble {
            Trouble::Amnesia => 3,
            _ => self.below(3),
        };
        self.redis_back = step + 1 + self.below(30);
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

    fn revive(&mut self, step: u64) {
        for world in &mut self.worlds {
            world.revive(step);
        }
        if self.redis_back <= step {
            self.redis_back = 0;
            let mut redis = self.redis.borrow_mut();
            (redis.paused, redis.refuses) = (false, false);
        }
    }

    fn look(&mut self) {
        for person in &mut self.people {
            let world = &mut self.worlds[person.server];
            let client = &world.clients[person.client];
            if let Some(socket_id) = client.socket_id.clone().filter(|_| !person.asked) {
                person.asked = true;
                let message = subscription(&socket_id, person.room, Some(person.user));
                world.say(person.client, &message);
            }
        }
        let teller = self.redis.borrow().teller().to_string();
        if !teller.is_empty() && teller != self.teller {
            self.takeovers += usize::from(!self.teller.is_empty());
            self.teller = teller;
        }
    }

    fn truth(&self) -> Belief {
        let gone = |it: &Person| self.worlds[it.server].clients[it.client].gone;
        let here = self.people.iter().filter(|it| !gone(it));
        here.flat_map(|it| [(it.room, it.user), (it.room, "")])
            .map(|(room, user)| (room.to_string(), user.to_string()))
            .collect()
    }

    /// How many events the endpoints were told.
    fn check(&mut self) -> usize {
        let truth = self.truth();
        let lossy = self.trouble != Trouble::Delays;
        let mut events = 0;
        for index in 0..RECEIVERS {
            let outsides = self.worlds.iter().filter_map(|it| it.outside.as_ref());
            let mut requests: Vec<&Told> = outsides
                .flat_map(|it| &it.receivers[index].requests)
                .collect();
            requests.sort_by_key(|told| told.place);
            let first_times = without_repeats(requests, lossy);
            assert_eq!(believe(&first_times), truth, "told, and what is so");
            events += first_times
                .iter()
                .map(|told| told.events().len())
                .sum::<usize>();
        }
        assert_eq!(self.redis.borrow().remembered(), (truth.len(), 0));
        events
    }
}

fn run_all(trouble: Trouble) {
    let number = |name| std::env::var(name).ok().and_then(|it| it.parse().ok());
    let one: Option<u64> = number("SIM_SEED");
    let count = number("SIM_SEEDS").unwrap_or(24);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let (mut events, mut takeovers) = (0, 0);
    for seed in seeds {
        println!("replay with: SIM_SEED={seed} cargo test --test sim_teller");
        let mut life = Life::new(seed, trouble);
        life.run();
        events += life.check();
        takeovers += life.takeovers;
    }
    // A simulation in which nothing happens proves nothing.
    assert!(events > 200 || one.is_some(), "only {events} events");
    let some = trouble != Trouble::Crashes || takeovers > 10 || one.is_some();
    assert!(some, "only {takeovers} takeovers");
}

#[test]
fn each_change_is_told_once_under_any_delay() {
    run_all(Trouble::Delays);
}

#[test]
fn each_change_is_told_once_whoever_dies_or_stops() {
    run_all(Trouble::Crashes);
}

#[test]
fn a_redis_that_lost_its_data_is_told_anew_what_endpoints_know() {
    run_all(Trouble::Amnesia);
}

/// The bound that docs/cluster.md states.
#[test]
fn another_takes_over_within_a_lease_and_a_third() {
    let mut life = Life::new(7, Trouble::Delays);
    life.pass(Duration::from_secs(1), 0);
    let first = life.redis.borrow().teller_world().expect("a teller");
    for index in 0..WORKERS + 2 {
        life.worlds[first].kill(index);
    }
    life.pass(LEASE * 4 / 3 + Duration::from_millis(100), 0);
    let next = life.redis.borrow().teller_world().expect("a teller");
    assert_ne!(first, next);
}

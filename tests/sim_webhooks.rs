//! Webhooks in small lives of a server, as in `sim.rs`: whatever dies, and however endpoints and the
//! disk fail, each endpoint is told in turns that users and channels come and go, in order, and at
//! the end it knows the truth. A request is repeated to the byte, and only when its sender cannot
//! know that it has arrived. `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` runs n.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lineman::base::limits::Limits;
use world::World;
use world::client::subscription;
use world::courier::{Outside, Told};

const WORKERS: usize = 2;
const STEPS: u64 = 400;
const ROOMS: [&str; 2] = ["presence-one", "presence-two"];
const USERS: [&str; 4] = ["ann", "bob", "cat", "dan"];
const RECEIVERS: usize = 2;

/// A connection that joins one room as soon as it can.
struct Person {
    client: usize,
    room: &'static str,
    user: &'static str,
    asked: bool,
}

struct Life {
    world: World,
    people: Vec<Person>,
    /// Who was killed, and the step at which it comes back.
    dead: Vec<(usize, u64)>,
    /// Whether the courier is killed too: it may die between an answer and the note of it.
    mortal_courier: bool,
}

/// What an endpoint believes: users by room, where the room itself is the user "".
type Belief = BTreeSet<(String, String)>;

impl Life {
    fn new(seed: u64) -> Life {
        let outside = Some(Outside::new(RECEIVERS));
        Life {
            world: World::with(WORKERS, Limits::default(), seed, true, outside),
            people: Vec::new(),
            dead: Vec::new(),
            mortal_courier: !seed.is_multiple_of(4),
        }
    }

    fn run(&mut self) {
        // One endpoint has a hard life, the other a calm one.
        self.world.outside_mut().receivers[0].trouble = 40;
        for step in 0..STEPS {
            match self.world.dice().below(100) {
                0..10 => self.come(),
                10..18 => self.go(),
                18..22 => self.kill(step),
                22..30 => {
                    let millis = self.world.dice().below(2000);
                    if !self.mortal_courier {
                        // An answer that is on its way is not late.
                        self.world.carry_all();
                    }
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
        self.world.outside_mut().receivers[0].trouble = 0;
        // Settling, the window for those who return, and the longest wait between two attempts.
        for _ in 0..6 {
            self.world.pass(Duration::from_secs(30));
            self.look();
        }
    }

    fn come(&mut self) {
        let worker = self.world.dice().below(WORKERS as u64) as usize;
        if !self.world.is_alive(worker) {
            return;
        }
        let client = self.world.connect(worker, 0);
        let hello = self.world.clients[client].speech.connect();
        self.world.send(client, &hello);
        let room = ROOMS[self.world.dice().below(ROOMS.len() as u64) as usize];
        let user = USERS[self.world.dice().below(USERS.len() as u64) as usize];
        self.people.push(Person {
            client,
            room,
            user,
            asked: false,
        });
    }

    fn go(&mut self) {
        let index = self.world.dice().below(1 + self.people.len() as u64) as usize;
        if let Some(person) = self.people.get(index) {
            self.world.disconnect(person.client);
        }
    }

    fn kill(&mut self, step: u64) {
        let index = self.world.dice().below(WORKERS as u64 + 2) as usize;
        let courier = self.world.courier();
        if !self.world.is_alive(index) || (index == courier && !self.mortal_courier) {
            return;
        }
        if index == courier {
            self.world.kill_courier();
        } else {
            self.world.kill(index);
        }
        let back = step + 1 + self.world.dice().below(30);
        self.dead.push((index, back));
    }

    fn revive(&mut self, step: u64) {
        let (due, later): (Vec<_>, Vec<_>) = self.dead.iter().partition(|(_, at)| *at <= step);
        self.dead = later;
        for (index, _) in due {
            self.world.start(index);
        }
    }

    fn look(&mut self) {
        for person in &mut self.people {
            let client = &self.world.clients[person.client];
            if let Some(socket_id) = client.socket_id.clone().filter(|_| !person.asked) {
                person.asked = true;
                let message = subscription(&socket_id, person.room, Some(person.user));
                self.world.say(person.client, &message);
            }
        }
    }

    fn truth(&self) -> Belief {
        let here = self
            .people
            .iter()
            .filter(|it| !self.world.clients[it.client].gone);
        here.flat_map(|it| [(it.room, it.user), (it.room, "")])
            .map(|(room, user)| (room.to_string(), user.to_string()))
            .collect()
    }

    /// How many events each endpoint was told.
    fn check(&mut self) -> usize {
        let truth = self.truth();
        let mortal = self.mortal_courier;
        let mut events = 0;
        for receiver in &self.world.outside_mut().receivers {
            let first_times = without_repeats(&receiver.requests, mortal);
            let belief = believe(&first_times);
            assert_eq!(belief, truth, "what the endpoint was told and what is so");
            events += first_times
                .iter()
                .map(|told| told.events().len())
                .sum::<usize>();
        }
        events
    }
}

/// What is left without the requests that came before, to the byte. After an answer that arrived,
/// none comes again unless the courier died before it had noted the answer.
fn without_repeats(requests: &[Told], mortal_courier: bool) -> Vec<&Told> {
    let mut answered: BTreeMap<&str, bool> = BTreeMap::new();
    let mut needless = 0;
    let mut first_times = Vec::new();
    for told in requests {
        match answered.get_mut(told.body.as_str()) {
            Some(before) => {
                needless += usize::from(*before);
                *before |= told.fine;
            }
            None => {
                answered.insert(&told.body, told.fine);
                first_times.push(told);
            }
        }
    }
    assert!(
        mortal_courier || needless == 0,
        "{needless} needless repeats"
    );
    first_times
}

/// Fails when something comes that is there, or goes that is not.
fn believe(requests: &[&Told]) -> Belief {
    let mut belief = Belief::new();
    for event in requests.iter().flat_map(|told| told.events()) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_string();
        let whom = (text("channel"), text("user_id"));
        let room = (text("channel"), String::new());
        match event["name"].as_str().expect("every event has a name") {
            "channel_occupied" | "member_added" => {
                assert!(belief.insert(whom), "told twice in a row: {event}");
            }
            "channel_vacated" | "member_removed" => {
                assert!(belief.remove(&whom), "gone without having come: {event}");
            }
            other => panic!("an unexpected event {other}: {event}"),
        }
        let empty = !belief
            .iter()
            .any(|(at, user)| *at == room.0 && !user.is_empty());
        assert!(
            empty || belief.contains(&room),
            "somebody is in an empty channel: {event}"
        );
    }
    belief
}

#[test]
fn endpoints_know_the_truth_whatever_fails() {
    let number = |name| std::env::var(name).ok().and_then(|it| it.parse().ok());
    let one: Option<u64> = number("SIM_SEED");
    let count = number("SIM_SEEDS").unwrap_or(64);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let (mut events, mut commits) = (0, 0);
    for seed in seeds {
        println!("replay with: SIM_SEED={seed} cargo test --test sim_webhooks");
        let mut life = Life::new(seed);
        life.run();
        events += life.check();
        commits += life.world.outside_mut().disk.commits;
    }
    // A simulation in which nothing happens proves nothing.
    assert!(events > 500 || one.is_some(), "only {events} events");
    assert!(commits > 500 || one.is_some(), "only {commits} commits");
}

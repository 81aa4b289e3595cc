//! Signed-in users in small lives of a server, as in `sim.rs`: whatever dies, a watchlist is told of
//! every change exactly once, events reach all connections of their user, and at the end everybody
//! knows the truth. `SIM_SEED=n` replays one seed.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lineman::base::limits::Limits;
use serde_json::{Value, json};
use world::client::{call, sign_in};
use world::{APP_ID, World};

const WORKERS: usize = 3;
const STEPS: u64 = 300;
const USERS: [&str; 4] = ["ann", "bob", "cat", "dan"];

/// A connection that signs in as soon as it can.
struct Person {
    client: usize,
    user: &'static str,
    asked: bool,
    seen: usize,
    signed_in: bool,
    /// Whom it watches, as far as it was told.
    online: BTreeMap<String, bool>,
    received: Vec<u64>,
}

/// An event to a user, and who of his connections had been told of success before it was posted.
struct Posted {
    number: u64,
    publisher: usize,
    audience: Vec<usize>,
}

struct Life {
    world: World,
    people: Vec<Person>,
    posted: Vec<Posted>,
}

impl Life {
    fn run(&mut self) {
        for step in 0..STEPS {
            match self.world.dice().below(100) {
                0..8 => self.come(),
                8..12 => self.go(),
                12..20 => self.post(),
                20..23 => self.kill(step),
                23..27 => {
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
        // A switchboard that settles before a byte has moved could not know better.
        self.world.carry_all();
        for _ in 0..3 {
            // Long enough for redialling and settling, and for those who have just connected.
            self.world.pass(Duration::from_secs(10));
            self.look();
        }
        self.check_watchlists();
        self.check_events();
    }

    fn worker(&mut self) -> Option<usize> {
        let worker = self.world.dice().below(WORKERS as u64) as usize;
        self.world.is_alive(worker).then_some(worker)
    }

    fn come(&mut self) {
        let Some(worker) = self.worker() else {
            return;
        };
        let client = self.world.connect(worker, 0);
        let hello = self.world.clients[client].speech.connect();
        self.world.send(client, &hello);
        let user = USERS[self.world.dice().below(USERS.len() as u64) as usize];
        self.people.push(Person {
            client,
            user,
            asked: false,
            seen: 0,
            signed_in: false,
            online: BTreeMap::new(),
            received: Vec::new(),
        });
    }

    fn go(&mut self) {
        let index = self.world.dice().below(1 + self.people.len() as u64) as usize;
        if let Some(person) = self.people.get(index) {
            self.world.disconnect(person.client);
        }
    }

    fn post(&mut self) {
        let Some(worker) = self.worker() else {
            return;
        };
        self.look();
        let user = USERS[self.world.dice().below(USERS.len() as u64) as usize];
        let number = self.posted.len() as u64;
        let channel = format!("#server-to-user-{user}");
        let body = json!({"name": "n", "channel": channel, "data": number.to_string()});
        let publisher = self.world.connect(worker, 0);
        let path = format!("/apps/{APP_ID}/events");
        self.world
            .send(publisher, &call("POST", &path, &body.to_string()));
        let people = self.people.iter().enumerate();
        let audience = people.filter(|(_, it)| it.signed_in && it.user == user);
        self.posted.push(Posted {
            number,
            publisher,
            audience: audience.map(|(index, _)| index).collect(),
        });
    }

    fn kill(&mut self, step: u64) {
        // The switchboard more often than each worker.
        let index = self.world.dice().below(2 * WORKERS as u64) as usize;
        let index = index.min(self.world.switchboard());
        self.world.kill_for_a_while(index, step);
    }

    fn look(&mut self) {
        for person in &mut self.people {
            let client = &self.world.clients[person.client];
            for event in &client.events[person.seen..] {
                person.take(event);
            }
            person.seen = client.events.len();
            if let Some(socket_id) = client.socket_id.clone().filter(|_| !person.asked) {
                person.asked = true;
                self.world
                    .say(person.client, &sign_in(&socket_id, person.user, &USERS));
            }
        }
    }

    fn is_live(&self, person: &Person) -> bool {
        !self.world.clients[person.client].gone
    }

    fn check_watchlists(&self) {
        let live: Vec<&Person> = self.people.iter().filter(|it| self.is_live(it)).collect();
        let online: BTreeSet<&str> = live.iter().map(|person| person.user).collect();
        let truth = USERS.map(|user| (user.to_owned(), online.contains(user)));
        for person in live {
            assert!(person.signed_in, "{} was never signed in", person.client);
            assert_eq!(
                person.online,
                BTreeMap::from(truth.clone()),
                "what it was told"
            );
        }
    }

    fn check_events(&self) {
        for Posted {
            number,
            publisher,
            audience,
        } in &self.posted
        {
            let answers = &self.world.clients[*publisher].answers;
            match answers.first().map(|(status, _)| *status) {
                Some(200) => {
                    for person in audience.iter().map(|index| &self.people[*index]) {
                        let got = person.received.contains(number) || !self.is_live(person);
                        assert!(got, "event {number} did not reach {}", person.client);
                    }
                }
                Some(503) => {}
                None => assert!(self.world.clients[*publisher].gone, "no answer"),
                Some(other) => panic!("an unexpected answer {other}"),
            }
        }
    }
}

impl Person {
    fn take(&mut self, event: &Value) {
        match event["event"].as_str().expect("every event has a name") {
            "pusher:connection_established" => {}
            "pusher:signin_success" => self.signed_in = true,
            "pusher_internal:watchlist_events" => {
                assert!(self.signed_in, "before success");
                for told in event["data"]["events"].as_array().expect("a list") {
                    let online = told["name"] == "online";
                    for user in told["user_ids"].as_array().expect("a list") {
                        let user = user.as_str().expect("text").to_owned();
                        let before = self.online.insert(user, online);
                        assert_ne!(before, Some(online), "no change: {event}");
                    }
                }
            }
            "n" => {
                assert!(self.signed_in, "before success");
                let number = event["data"].as_u64().expect("a number");
                assert!(!self.received.contains(&number), "twice");
                self.received.push(number);
            }
            other => panic!("an unexpected event {other}: {event}"),
        }
    }
}

#[test]
fn users_are_reached_and_watched_through_crashes_of_every_process() {
    let one = std::env::var("SIM_SEED")
        .ok()
        .and_then(|it| it.parse().ok());
    let seeds = one.map_or(0..64, |seed: u64| seed..seed + 1);
    let (mut reached, mut changes) = (0, 0);
    for seed in seeds {
        println!("replay with: SIM_SEED={seed} cargo test --test sim_users");
        let mut life = Life {
            world: World::new(WORKERS, Limits::default(), seed, true),
            people: Vec::new(),
            posted: Vec::new(),
        };
        life.run();
        reached += life
            .people
            .iter()
            .map(|it| it.received.len())
            .sum::<usize>();
        changes += life.people.iter().map(|it| it.online.len()).sum::<usize>();
    }
    // A simulation in which nothing happens proves nothing.
    assert!(reached > 64 || one.is_some(), "only {reached} events");
    assert!(changes > 64 || one.is_some(), "only {changes} standings");
}

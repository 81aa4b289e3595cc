//! Notifications in small lives of a server, as in `sim.rs`: whatever dies, nothing that was accepted
//! is lost; a user who acknowledged gets no push that was not sent before; one whom nobody reached
//! gets it. `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` runs n.

mod world;

use std::time::Duration;

use lineman::base::dice::Dice;
use lineman::base::limits::Limits;
use lineman::push::devices::device::Device;
use lineman::push::devices::registration::{DeviceBounds, Registration};
use lineman::store::devices;
use rusqlite::Connection;
use serde_json::{Value, json};
use world::client::{call, sign_in};
use world::courier::Outside;
use world::{APP_ID, World};

const WORKERS: usize = 2;
const STEPS: u64 = 300;
/// The last has no device.
const USERS: [&str; 4] = ["ann", "bob", "cat", "dan"];

/// A connection that signs in as soon as it can, and acknowledges what comes or does not.
struct Person {
    client: usize,
    user: &'static str,
    attentive: bool,
    asked: bool,
    seen: usize,
    got: Vec<String>,
}

/// A call for a notification.
struct Called {
    client: usize,
    user: &'static str,
}

struct Life {
    world: World,
    people: Vec<Person>,
    calls: Vec<Called>,
}

impl Life {
    fn new(seed: u64) -> Life {
        let outside = Some(Outside::gateway());
        let mut life = Life {
            world: World::with(WORKERS, Limits::default(), seed, true, outside),
            people: Vec::new(),
            calls: Vec::new(),
        };
        let now = life.world.now;
        let mut dice = Dice::new([1; 16]);
        let vault = world::courier::vault(&mut dice);
        let store = life.store();
        for (id, print) in vault.keys() {
            devices::put_key(store, id, print, now.unix_ms).expect("a key");
        }
        for user in &USERS[..3] {
            let json = format!(
                r#"{{"device_id":"{user}","platform":"web","service":"fcm","token":"token-of-{user}","user_id":"{user}"}}"#
            );
            let read = Registration::read(&json, &DeviceBounds::default(), now);
            let read = read.expect("a registration");
            let device = Device::new(APP_ID, read, &vault, &mut dice, now);
            devices::put(store, &device).expect("it is put");
        }
        life
    }

    fn store(&mut self) -> &Connection {
        let disk = &self.world.outside_mut().disk;
        disk.gateway.as_ref().expect("a gateway").connection()
    }

    fn count(&mut self, sql: &str) -> u64 {
        let count = self.store().query_row(sql, [], |row| row.get::<_, i64>(0));
        count.expect("a count") as u64
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            match self.world.dice().below(100) {
                0..8 => self.come(),
                8..11 => self.go(),
                11..22 => self.notify(),
                22..26 => {
                    let index = self.world.dice().below(WORKERS as u64 + 2) as usize;
                    self.world.kill_for_a_while(index, step);
                }
                26..36 => {
                    let millis = self.world.dice().below(2000);
                    self.world.pass(Duration::from_millis(millis));
                }
                36..40 => self.send(),
                _ => (0..20).for_each(|_| {
                    self.world.carry();
                }),
            }
            self.world.revive(step);
            self.look();
        }
        self.world.revive(u64::MAX);
        // Longer than every order, every acknowledgement and every restart together.
        for _ in 0..8 {
            self.world.pass(Duration::from_secs(10));
            self.look();
        }
    }

    fn worker(&mut self) -> Option<usize> {
        let worker = self.world.dice().below(WORKERS as u64) as usize;
        self.world.is_alive(worker).then_some(worker)
    }

    fn user(&mut self) -> &'static str {
        USERS[self.world.dice().below(USERS.len() as u64) as usize]
    }

    fn come(&mut self) {
        let Some(worker) = self.worker() else {
            return;
        };
        let client = self.world.connect(worker, 0);
        let hello = self.world.clients[client].speech.connect();
        self.world.send(client, &hello);
        let user = self.user();
        self.people.push(Person {
            client,
            user,
            attentive: self.world.dice().below(2) == 0,
            asked: false,
            seen: 0,
            got: Vec::new(),
        });
    }

    fn go(&mut self) {
        let index = self.world.dice().below(1 + self.people.len() as u64) as usize;
        if let Some(person) = self.people.get(index) {
            self.world.disconnect(person.client);
        }
    }

    fn notify(&mut self) {
        let Some(worker) = self.worker() else {
            return;
        };
        let (user, client) = (self.user(), self.world.connect(worker, 0));
        let body = json!({"to": {"users": [user]}, "note": {"title": "t"}, "ack_timeout": 4});
        let path = format!("/apps/{APP_ID}/notify");
        self.world
            .send(client, &call("POST", &path, &body.to_string()));
        self.calls.push(Called { client, user });
    }

    /// What is queued goes to providers; nothing of it may be acknowledged.
    fn send(&mut self) {
        let acknowledged = "SELECT count(*) FROM deliveries v \
            JOIN reaches r ON r.notification = v.notification AND r.name = v.user_id \
            WHERE v.state IN ('queued', 'held') AND r.acknowledged_at IS NOT NULL";
        assert_eq!(
            self.count(acknowledged),
            0,
            "acknowledged, and about to be sent"
        );
        let now = self.world.now.unix_ms as i64;
        let sent = "UPDATE deliveries SET state = 'accepted', settled_at = ? \
                    WHERE state = 'queued' AND due_at <= ?";
        self.store().execute(sent, [now, now]).expect("sent");
    }

    fn look(&mut self) {
        for person in &mut self.people {
            let client = &self.world.clients[person.client];
            let news = client.events[person.seen..].iter();
            let news = news.filter(|event| event["event"] == "lineman:notification");
            let ids: Vec<String> = news.map(id_of).collect();
            person.seen = client.events.len();
            if let Some(socket_id) = client.socket_id.clone().filter(|_| !person.asked) {
                person.asked = true;
                let hello = sign_in(&socket_id, person.user, &[]);
                self.world.say(person.client, &hello);
            }
            for id in ids {
                if person.attentive {
                    let ack = json!({"event": "lineman:ack", "data": {"id": id}});
                    self.world.say(person.client, &ack.to_string());
                }
                person.got.push(id);
            }
        }
    }

    /// How many notifications were pushed and how many acknowledged.
    fn check(&mut self) -> (u64, u64) {
        for Called { client, user } in std::mem::take(&mut self.calls) {
            let answer = self.world.clients[client].answers.first().cloned();
            let Some((202, body)) = answer else {
                continue;
            };
            let body: Value = serde_json::from_str(&body).expect("JSON");
            let id = body["id"].as_str().expect("an id");
            let own = format!(
                "SELECT count(*) FROM reaches WHERE notification = '{id}' AND name = '{user}'"
            );
            assert_eq!(self.count(&own), 1, "it was accepted");
        }
        let got: Vec<String> = self.people.iter().flat_map(|it| it.got.clone()).collect();
        for id in got {
            let known = format!("SELECT count(*) FROM notifications WHERE id = '{id}'");
            assert_eq!(
                self.count(&known),
                1,
                "it was stored before anybody heard of it"
            );
        }
        let waiting = "SELECT count(*) FROM reaches WHERE due_at IS NOT NULL";
        assert_eq!(self.count(waiting), 0, "something is to come yet");
        let held = "SELECT count(*) FROM deliveries WHERE state = 'held'";
        assert_eq!(self.count(held), 0);
        let forgotten = "SELECT count(*) FROM reaches r \
            JOIN deliveries v ON v.notification = r.notification AND v.user_id = r.name \
            WHERE r.acknowledged_at IS NULL AND v.state NOT IN ('queued', 'accepted')";
        assert_eq!(self.count(forgotten), 0, "nobody acknowledged");
        let missing = "SELECT count(*) FROM reaches r WHERE r.name <> 'dan' AND NOT EXISTS \
            (SELECT 1 FROM deliveries v WHERE v.notification = r.notification)";
        assert_eq!(self.count(missing), 0, "a device was forgotten");
        self.send();
        let pushed = self.count("SELECT count(*) FROM deliveries WHERE state = 'accepted'");
        let spared = self.count("SELECT count(*) FROM deliveries WHERE state = 'cancelled'");
        (pushed, spared)
    }
}

fn id_of(event: &Value) -> String {
    let data = &event["data"];
    let id = data["notification_id"].as_str();
    id.unwrap_or_else(|| panic!("no id in {event}")).to_string()
}

#[test]
fn users_are_reached_one_way_or_the_other_whatever_dies() {
    let number = |name| std::env::var(name).ok().and_then(|it| it.parse().ok());
    let one: Option<u64> = number("SIM_SEED");
    let count = number("SIM_SEEDS").unwrap_or(64);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let (mut pushed, mut spared) = (0, 0);
    for seed in seeds {
        println!("replay with: SIM_SEED={seed} cargo test --test sim_notify");
        let mut life = Life::new(seed);
        life.run();
        let (sent, acknowledged) = life.check();
        pushed += sent;
        spared += acknowledged;
    }
    // A simulation in which nothing happens proves nothing.
    assert!(pushed > 300 || one.is_some(), "only {pushed} pushed");
    assert!(spared > 100 || one.is_some(), "only {spared} acknowledged");
}

//! Thousands of small lives of a server: workers, switchboard and clients under random delays,
//! cuts and kills. Whatever happens, the promises of ARCHITECTURE.md hold. `SIM_SEED=n` replays
//! one seed, `SIM_SEEDS=n` runs n of each family, `SIM_FAMILY=n` chooses the second family.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use lineman::base::limits::Limits;
use serde_json::json;
use world::client::{call, subscription};
use world::view::View;
use world::{APP_ID, World};

const WORKERS: usize = 3;
const STEPS: u64 = 500;
const CHANNELS: [&str; 3] = ["presence-room", "private-talk", "news"];

/// A client by WebSocket, lines or frames, and what the test knows it asked for.
struct Subscriber {
    client: usize,
    worker: usize,
    user: String,
    /// Channels asked for.
    asked: BTreeSet<&'static str>,
    seen: usize,
    view: View,
}

struct Published {
    number: u64,
    channel: &'static str,
    publisher: usize,
    /// Which answer of the publisher is its.
    answer: usize,
    /// Who had been told of success before it was posted.
    audience: Vec<usize>,
}

struct Simulation {
    world: World,
    subscribers: Vec<Subscriber>,
    /// HTTP clients: index and worker.
    publishers: Vec<(usize, usize)>,
    published: Vec<Published>,
    numbers: u64,
    /// Processes that were succeeded, and the step at which each is told to let its clients go.
    leaving: Vec<(usize, u64)>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let limits = Limits {
            presence_members: 1000,
            ..Limits::default()
        };
        Simulation {
            world: World::new(WORKERS, limits, seed, true),
            subscribers: Vec::new(),
            publishers: Vec::new(),
            published: Vec::new(),
            numbers: 0,
            leaving: Vec::new(),
        }
    }

    fn run(&mut self, crashes: bool, reloads: bool) {
        for step in 0..STEPS {
            match self.world.dice().below(100) {
                0..4 => self.new_subscriber(),
                4..10 => self.subscribe_somebody(),
                10..12 => self.unsubscribe_somebody(),
                12..14 => self.disconnect_somebody(),
                14..22 => self.publish(),
                22..24 if crashes => self.crash(step),
                27..29 if reloads => self.replace(step),
                24..27 => self.let_time_pass(),
                _ => {
                    for _ in 0..20 {
                        self.world.carry();
                    }
                }
            }
            self.world.revive(step);
            self.let_go(step);
            self.look();
        }
        self.world.revive(u64::MAX);
        self.let_go(u64::MAX);
        // What is under way comes before the next deadline: a worker that a new switchboard hears
        // nothing of for all of `settle_ms` is not waited for, and nothing is promised for it.
        self.world.carry_all();
        // Long enough for redialling, settling and every deadline of a question.
        self.world.pass(Duration::from_secs(10));
        self.look();
        self.check_the_end();
    }

    fn alive_worker(&mut self) -> Option<usize> {
        let slot = self.world.dice().below(WORKERS as u64) as usize;
        let worker = self.world.holder(slot);
        self.world.is_alive(worker).then_some(worker)
    }

    fn new_subscriber(&mut self) {
        let Some(worker) = self.alive_worker() else {
            return;
        };
        let listener = [0, 0, 2, 3][self.world.dice().below(4) as usize];
        let client = self.world.connect(worker, listener);
        let hello = self.world.clients[client].speech.connect();
        self.world.send(client, &hello);
        let user = format!("u{}", self.world.dice().below(5));
        self.subscribers.push(Subscriber {
            client,
            worker,
            user,
            asked: BTreeSet::new(),
            seen: 0,
            view: View::default(),
        });
    }

    fn somebody(&mut self) -> Option<usize> {
        let count = self.subscribers.len() as u64;
        let index = self.world.dice().below(count) as usize;
        let client = self.subscribers.get(index)?.client;
        let ready =
            !self.world.clients[client].gone && self.world.clients[client].socket_id.is_some();
        ready.then_some(index)
    }

    fn a_channel(&mut self) -> &'static str {
        CHANNELS[self.world.dice().below(CHANNELS.len() as u64) as usize]
    }

    fn subscribe_somebody(&mut self) {
        let (Some(index), channel) = (self.somebody(), self.a_channel()) else {
            return;
        };
        let subscriber = &mut self.subscribers[index];
        let has_left = subscriber.asked.contains(left(channel));
        if !has_left && subscriber.asked.insert(channel) {
            let socket_id = self.world.clients[subscriber.client]
                .socket_id
                .clone()
                .expect("ready");
            let user = channel
                .starts_with("presence-")
                .then_some(subscriber.user.as_str());
            let message = subscription(&socket_id, channel, user);
            self.world.say(subscriber.client, &message);
        }
    }

    fn unsubscribe_somebody(&mut self) {
        let (Some(index), channel) = (self.somebody(), self.a_channel()) else {
            return;
        };
        self.look();
        let subscriber = &mut self.subscribers[index];
        // Only a settled subscription: else success and unsubscription cross on the way, which is
        // fine but leaves nothing to check.
        if subscriber.view.succeeded.contains(channel) && subscriber.asked.remove(channel) {
            subscriber.view.succeeded.remove(channel);
            let message = json!({"event": "pusher:unsubscribe", "data": {"channel": channel}});
            self.world.say(subscriber.client, &message.to_string());
            // A client that has left ignores what is still on its way; so does the check, by
            // leaving for good.
            subscriber.asked.insert(left(channel));
        }
    }

    fn disconnect_somebody(&mut self) {
        if let Some(index) = self.somebody() {
            self.world.disconnect(self.subscribers[index].client);
        }
    }

    fn publish(&mut self) {
        let Some(worker) = self.alive_worker() else {
            return;
        };
        self.look();
        let channel = self.a_channel();
        let known = self
            .publishers
            .iter()
            .find(|(client, of)| *of == worker && !self.world.clients[*client].gone);
        let publisher = match known {
            Some((client, _)) => *client,
            None => {
                let client = self.world.connect(worker, 0);
                self.publishers.push((client, worker));
                client
            }
        };
        self.numbers += 1;
        let number = self.numbers;
        // Long enough to fill a small kernel buffer now and then.
        let padding = "x".repeat(self.world.dice().below(300) as usize);
        let data = json!({"number": number, "padding": padding}).to_string();
        let body = json!({"name": "n", "channel": channel, "data": data}).to_string();
        let path = format!("/apps/{APP_ID}/events");
        self.world.send(publisher, &call("POST", &path, &body));
        let answer = self
            .published
            .iter()
            .filter(|p| p.publisher == publisher)
            .count();
        let subscribers = self.subscribers.iter().enumerate();
        let audience = subscribers
            .filter(|(_, s)| s.view.succeeded.contains(channel))
            .map(|(index, _)| index)
            .collect();
        self.published.push(Published {
            number,
            channel,
            publisher,
            answer,
            audience,
        });
    }

    fn crash(&mut self, step: u64) {
        let index = self.world.dice().below(2 * WORKERS as u64) as usize;
        // Past the switchboard are the successors; the old of one that was replaced stays dead.
        let index = match index.min(self.world.switchboard()) {
            slot if slot < WORKERS => self.world.holder(slot),
            switchboard => switchboard,
        };
        self.world.kill_for_a_while(index, step);
    }

    /// Starts a successor; the old one goes on until the new one serves.
    fn replace(&mut self, step: u64) {
        let slot = self.world.dice().below(WORKERS as u64) as usize;
        let old = self.world.holder(slot);
        if self.world.is_alive(old) && self.leaving.is_empty() {
            self.world.succeed(slot);
            let at = step + 1 + self.world.dice().below(10);
            self.leaving.push((old, at));
        }
    }

    fn let_go(&mut self, step: u64) {
        let due = self.leaving.iter().position(|(_, at)| *at <= step);
        if let Some((old, _)) = due.map(|index| self.leaving.swap_remove(index)) {
            let window = self.world.dice().below(1000);
            self.world.order_drain(old, Duration::from_millis(window));
        }
    }

    fn let_time_pass(&mut self) {
        let millis = self.world.dice().below(300);
        self.world.pass(Duration::from_millis(millis));
    }

    /// Reads what every client was told since the last look, checking each event as it comes.
    fn look(&mut self) {
        for subscriber in &mut self.subscribers {
            let events = &self.world.clients[subscriber.client].events;
            for event in &events[subscriber.seen..] {
                let channel = event["channel"].as_str().unwrap_or("");
                if !subscriber.asked.contains(left(channel)) {
                    subscriber.view.take(event);
                }
            }
            subscriber.seen = events.len();
        }
    }

    fn check_the_end(&mut self) {
        self.check_answers_and_deliveries();
        self.check_order();
        self.check_presence();
    }

    fn is_live(&self, index: usize) -> bool {
        !self.world.clients[self.subscribers[index].client].gone
    }

    fn check_answers_and_deliveries(&self) {
        for event in &self.published {
            let publisher = &self.world.clients[event.publisher];
            let status = publisher
                .answers
                .get(event.answer)
                .map(|(status, _)| *status);
            match status {
                None => assert!(publisher.gone, "a publisher was left without an answer"),
                Some(200) => {
                    for index in event.audience.iter().filter(|index| self.is_live(**index)) {
                        let subscriber = &self.subscribers[*index];
                        if subscriber.view.succeeded.contains(event.channel) {
                            let received = subscriber.view.received.get(event.channel);
                            assert!(
                                received.is_some_and(|r| r.contains(&event.number)),
                                "event {} of {} was answered 200 but client {} on worker {} never got it",
                                event.number,
                                event.channel,
                                subscriber.client,
                                subscriber.worker
                            );
                        }
                    }
                }
                Some(503) => {}
                Some(other) => panic!("an unexpected answer {other}"),
            }
        }
    }

    /// Any two clients saw the events of a channel in the same order.
    fn check_order(&self) {
        for channel in CHANNELS {
            let seen: Vec<&Vec<u64>> = self
                .subscribers
                .iter()
                .filter_map(|s| s.view.received.get(channel))
                .collect();
            for one in &seen {
                for other in &seen {
                    let common = |a: &[u64], b: &[u64]| -> Vec<u64> {
                        a.iter().filter(|n| b.contains(n)).copied().collect()
                    };
                    assert_eq!(common(one, other), common(other, one), "order in {channel}");
                }
            }
        }
    }

    /// What every live subscriber believes is who is really there, and so does the API.
    fn check_presence(&mut self) {
        let channel = "presence-room";
        let truth: BTreeSet<String> = (0..self.subscribers.len())
            .filter(|index| self.is_live(*index))
            .map(|index| &self.subscribers[index])
            .filter(|s| s.view.succeeded.contains(channel))
            .map(|s| s.user.clone())
            .collect();
        for index in (0..self.subscribers.len()).filter(|index| self.is_live(*index)) {
            let subscriber = &self.subscribers[index];
            if subscriber.view.succeeded.contains(channel) {
                assert_eq!(
                    subscriber.view.present, truth,
                    "client {}",
                    subscriber.client
                );
            }
            for asked in subscriber
                .asked
                .iter()
                .filter(|asked| !asked.starts_with("left "))
            {
                assert!(
                    subscriber.view.succeeded.contains(*asked),
                    "client {} was never told of {asked}",
                    subscriber.client
                );
            }
        }
        let reader = self.world.connect(self.world.holder(0), 0);
        let path = format!("/apps/{APP_ID}/channels/{channel}/users");
        self.world.send(reader, &call("GET", &path, ""));
        self.world.pass(Duration::from_secs(1));
        let (status, body) = self.world.clients[reader].answers[0].clone();
        assert_eq!(status, 200);
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let users: BTreeSet<String> = body["users"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|user| user["id"].as_str().expect("a string").to_owned())
            .collect();
        assert_eq!(users, truth, "what the API says");
    }
}

/// The mark of a channel that a client has left for good.
fn left(channel: &str) -> &'static str {
    match channel {
        "presence-room" => "left presence-room",
        "private-talk" => "left private-talk",
        _ => "left news",
    }
}

/// How many seeds of each family are run.
const SEEDS: u64 = 64;

/// The same seeds in every run, and as many of another family, so that who names a new family sees
/// lives that nobody has seen.
fn seeds() -> Vec<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(seed) = number("SIM_SEED") {
        return vec![seed];
    }
    let count = number("SIM_SEEDS").unwrap_or(SEEDS);
    let other = number("SIM_FAMILY").unwrap_or(1) << 32;
    (0..count).chain(other..other + count).collect()
}

fn run_all(crashes: bool, reloads: bool) {
    let mut delivered = 0;
    let mut confirmed = 0;
    for seed in seeds() {
        let caught = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            simulation.run(crashes, reloads);
            let answers = simulation.publishers.iter();
            let ok = answers
                .flat_map(|(client, _)| &simulation.world.clients[*client].answers)
                .filter(|(status, _)| *status == 200)
                .count();
            let got: usize = simulation
                .subscribers
                .iter()
                .flat_map(|s| s.view.received.values())
                .map(Vec::len)
                .sum();
            (got, ok)
        });
        match caught {
            Ok((got, ok)) => {
                delivered += got;
                confirmed += ok;
            }
            Err(panic) => {
                eprintln!("replay with: SIM_SEED={seed} cargo test --test sim");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // A simulation in which nothing happens proves nothing.
    assert!(delivered > seeds().len() * 5, "only {delivered} deliveries");
    assert!(
        confirmed > seeds().len() * 5,
        "only {confirmed} publishes were confirmed"
    );
}

#[test]
fn order_presence_and_delivery_hold_under_any_delay() {
    run_all(false, false);
}

#[test]
fn order_presence_and_delivery_hold_through_crashes_of_every_process() {
    run_all(true, false);
}

#[test]
fn order_presence_and_delivery_hold_while_workers_are_replaced() {
    run_all(false, true);
}

#[test]
fn order_presence_and_delivery_hold_when_they_also_crash_meanwhile() {
    run_all(true, true);
}

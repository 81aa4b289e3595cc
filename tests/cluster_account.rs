//! A rolling restart of every server of a cluster under traffic, with an account: whatever was
//! answered without reserve was received once by everybody who was there, in the publisher's order.

#[path = "support/redis.rs"]
mod redis;
mod support;
#[path = "support/talker.rs"]
mod talker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::Redis;
use serde_json::json;
use support::{Server, get, wait_until};
use talker::{Talker, publish};

const SERVERS: usize = 3;

fn start(redis: &Redis) -> Server {
    let text = format!(
        "workers = 2\n[[listen]]\nurl = \"text://127.0.0.1:0\"\n\
         [[listen]]\nurl = \"http://127.0.0.1:0\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
         [cluster]\nredis_url = \"{}\"\nlease_seconds = 6\n",
        redis.url()
    );
    let server = Server::start(&text);
    let http = server.address(1);
    wait_until("it has joined", || {
        get(&http, "/readyz").is_ok_and(|(_, body)| body.contains("joined"))
    });
    server
}

/// One event, and what its publisher was told of it.
struct Entry {
    data: String,
    began: Instant,
    ended: Instant,
    /// Answered 200, and nothing was said against other servers.
    promised: bool,
}

/// Publishes at whatever address stands in `at`, until told to stop; its account.
fn publisher(
    number: usize,
    at: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Vec<Entry>> {
    std::thread::spawn(move || {
        let mut account = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let data = format!("{number}-{}", account.len());
            let address = at.lock().expect("whole").clone();
            let began = Instant::now();
            let answer = publish(&address, "news", &data);
            account.push(Entry {
                data,
                began,
                ended: Instant::now(),
                promised: answer.is_ok_and(|(code, body)| code == 200 && body == json!({})),
            });
            std::thread::sleep(Duration::from_millis(2));
        }
        account
    })
}

/// A subscriber, and when it surely was one.
struct Subscriber {
    talker: Talker,
    since: Instant,
    until: Option<Instant>,
}

impl Subscriber {
    fn of(server: &Server) -> Subscriber {
        let mut talker = Talker::connect(&server.address(0));
        talker.subscribe("news");
        Subscriber {
            talker,
            since: Instant::now(),
            until: None,
        }
    }

    fn received(&self) -> BTreeMap<String, usize> {
        let mut received = BTreeMap::new();
        for event in self.talker.heard().iter().filter(|it| it["event"] == "e") {
            let data = event["data"].as_str().expect("text").to_string();
            *received.entry(data).or_insert(0) += 1;
        }
        received
    }

    /// Everything that was promised while it was there came, nothing twice, and in order.
    fn settle(&self, entries: &[&Entry]) {
        let owed: Vec<&str> = entries
            .iter()
            .filter(|entry| entry.promised && entry.began > self.since)
            .filter(|entry| self.until.is_none_or(|until| entry.ended < until))
            .map(|entry| entry.data.as_str())
            .collect();
        assert!(!owed.is_empty());
        wait_until("what was promised has come", || {
            let received = self.received();
            owed.iter().all(|data| received.contains_key(*data))
        });
        let twice: Vec<(String, usize)> =
            self.received().into_iter().filter(|it| it.1 > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        self.check_order();
    }

    /// The numbers of each publisher rise.
    fn check_order(&self) {
        let mut last: BTreeMap<String, usize> = BTreeMap::new();
        for event in self.talker.heard().iter().filter(|it| it["event"] == "e") {
            let data = event["data"].as_str().expect("text");
            let (publisher, number) = data.split_once('-').expect("two numbers");
            let number = number.parse().expect("a number");
            let before = last.insert(publisher.to_string(), number);
            assert!(
                before.is_none_or(|before| before < number),
                "{data} after {before:?}"
            );
        }
    }
}

#[test]
fn sent_is_received_or_said_not_to_be_while_every_server_is_restarted() {
    let redis = Redis::start();
    let mut servers: Vec<Server> = (0..SERVERS).map(|_| start(&redis)).collect();
    let mut present: Vec<Subscriber> = servers.iter().map(Subscriber::of).collect();
    let mut past: Vec<Subscriber> = Vec::new();
    let stop = Arc::new(AtomicBool::new(false));
    let addresses: Vec<Arc<Mutex<String>>> = servers
        .iter()
        .map(|server| Arc::new(Mutex::new(server.address(1))))
        .collect();
    let publishers: Vec<JoinHandle<Vec<Entry>>> = addresses
        .iter()
        .enumerate()
        .map(|(number, at)| publisher(number, at.clone(), stop.clone()))
        .collect();
    for index in 0..SERVERS {
        let stayed = &present[(index + 1) % SERVERS];
        let until = restart(&redis, &mut servers[index], &present[index], stayed);
        *addresses[index].lock().expect("whole") = servers[index].address(1);
        let subscriber = Subscriber::of(&servers[index]);
        let mut gone = std::mem::replace(&mut present[index], subscriber);
        gone.until = Some(until);
        past.push(gone);
    }
    let marker = present[0].received().len();
    wait_until("all publish again", || {
        present[0].received().len() > marker + 200
    });
    stop.store(true, Ordering::Relaxed);
    let accounts: Vec<Vec<Entry>> = publishers
        .into_iter()
        .map(|publisher| publisher.join().expect("an account"))
        .collect();
    let entries: Vec<&Entry> = accounts.iter().flatten().collect();
    let promised = entries.iter().filter(|entry| entry.promised).count();
    assert!(
        promised > 1000 && promised < entries.len(),
        "{promised} of {}",
        entries.len()
    );
    past.iter()
        .chain(&present)
        .for_each(|subscriber| subscriber.settle(&entries));
}

/// Stops a server amid traffic and starts another in its place; until when its subscriber surely
/// was one.
fn restart(redis: &Redis, server: &mut Server, here: &Subscriber, stayed: &Subscriber) -> Instant {
    let traffic = |subscriber: &Subscriber, count: usize| {
        let before = subscriber.received().len();
        wait_until("there is traffic", || {
            subscriber.received().len() > before + count
        });
    };
    traffic(here, 200);
    let until = Instant::now();
    // What was under way at that moment has come by then: it comes in order.
    traffic(here, 100);
    assert_eq!(server.place.run(&["stop"]).status.code(), Some(0));
    server.wait();
    traffic(stayed, 100);
    *server = start(redis);
    until
}

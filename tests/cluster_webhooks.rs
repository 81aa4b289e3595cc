//! Webhooks in a cluster: one server tells them for all, and each change is told once, wherever it
//! happened and whoever was away meanwhile.

#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/redis.rs"]
mod redis;
mod support;
#[path = "support/talker.rs"]
mod talker;

use std::time::Duration;

use receiver::Receiver;
use redis::Redis;
use serde_json::{Value, json};
use support::{Place, Server, get, wait_until};
use talker::Talker;

const ROOM: &str = "presence-room";
/// Longer than the window in which a return is no news.
const SETTLED: Duration = Duration::from_millis(3500);

fn config(redis: &Redis, receiver: Option<&Receiver>) -> String {
    let hook = receiver.map(|receiver| {
        format!(
            "[[apps.webhooks]]\nurl = \"{}\"\ntimeout_seconds = 1\nevents = [\"channel_occupied\", \
             \"channel_vacated\", \"member_added\", \"member_removed\", \"client_event\", \
             \"cache_miss\"]\n[webhooks]\nallow_private = true\n",
            receiver.url()
        )
    });
    format!(
        "workers = 2\n[[listen]]\nurl = \"text://127.0.0.1:0\"\n\
         [[listen]]\nurl = \"http://127.0.0.1:0\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n{}\
         [cluster]\nredis_url = \"{}\"\nlease_seconds = 6\n",
        hook.unwrap_or_default(),
        redis.url()
    )
}

fn wait_for(server: &Server, state: &str) {
    let http = server.address(1);
    wait_until(&format!("a server is {state}"), || {
        get(&http, "/readyz").is_ok_and(|(_, body)| body.contains(state))
    });
}

/// The server that tells, and one that does not.
fn start(redis: &Redis, receiver: &Receiver) -> (Server, Server) {
    let teller = Server::start(&config(redis, Some(receiver)));
    let other = Server::start(&config(redis, None));
    wait_for(&teller, "joined");
    wait_for(&other, "joined");
    (teller, other)
}

fn client(server: &Server) -> Talker {
    Talker::connect(&server.address(0))
}

/// What was told, each as `name channel user`.
fn told(receiver: &Receiver) -> Vec<String> {
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or("-").to_string();
    let events = receiver.events();
    let all = events.iter().map(|it| {
        format!(
            "{} {} {}",
            word(it, "name"),
            word(it, "channel"),
            word(it, "user_id")
        )
    });
    all.collect()
}

fn wait_told(receiver: &Receiver, expected: &[&str]) {
    wait_until(&format!("{expected:?} was told"), || {
        let told = told(receiver);
        expected.iter().all(|one| told.iter().any(|it| it == one))
    });
}

#[test]
fn what_happens_at_any_server_is_told_once() {
    let (redis, receiver) = (Redis::start(), Receiver::start());
    let (teller, other) = start(&redis, &receiver);
    let mut afar = client(&other);
    afar.join(ROOM, "ann");
    wait_told(
        &receiver,
        &[
            "channel_occupied presence-room -",
            "member_added presence-room ann",
        ],
    );
    let mut here = client(&teller);
    assert_eq!(here.join(ROOM, "ann"), ["ann"]);
    let mut bob = client(&other);
    assert_eq!(bob.join(ROOM, "bob"), ["ann", "bob"]);
    bob.say(&json!({"event": "client-hi", "channel": ROOM, "data": {"a": 1}}));
    here.event("client-hi", ROOM);
    bob.subscribe("cache-empty");
    wait_told(
        &receiver,
        &["client_event presence-room bob", "cache_miss cache-empty -"],
    );
    drop((afar, here, bob));
    let end = [
        "member_removed presence-room ann",
        "member_removed presence-room bob",
        "channel_vacated presence-room -",
        "channel_vacated cache-empty -",
    ];
    wait_told(&receiver, &end);
    std::thread::sleep(SETTLED);
    let mut all = told(&receiver);
    all.sort_unstable();
    let mut expected = vec![
        "cache_miss cache-empty -",
        "channel_occupied cache-empty -",
        "channel_occupied presence-room -",
        "client_event presence-room bob",
        "member_added presence-room ann",
        "member_added presence-room bob",
    ];
    expected.extend(end);
    expected.sort_unstable();
    assert_eq!(all, expected);
}

#[test]
fn an_outage_is_no_news_but_what_changed_meanwhile_is() {
    let (mut redis, receiver) = (Redis::start(), Receiver::start());
    let (teller, other) = start(&redis, &receiver);
    let (mut ann, mut bob) = (client(&other), client(&other));
    let mut eve = client(&teller);
    ann.join(ROOM, "ann");
    bob.join(ROOM, "bob");
    eve.join(ROOM, "eve");
    ann.subscribe("news");
    wait_told(&receiver, &["channel_occupied news -"]);
    let came = ["ann", "bob", "eve"].map(|user| format!("member_added {ROOM} {user}"));
    wait_told(&receiver, &came.each_ref().map(String::as_str));
    redis.kill_and_empty();
    wait_for(&teller, "away");
    // Longer than the lease: to eve, the others are gone.
    wait_until("eve is alone", || eve.present(ROOM) == ["eve"]);
    // As far as can be seen from here, the channel is empty when this one has left.
    client(&teller).subscribe("news");
    std::thread::sleep(SETTLED);
    drop(bob);
    redis.run();
    wait_for(&teller, "joined");
    wait_told(&receiver, &["member_removed presence-room bob"]);
    wait_until("eve sees ann", || eve.present(ROOM) == ["ann", "eve"]);
    std::thread::sleep(SETTLED);
    let removed: Vec<String> = told(&receiver)
        .into_iter()
        .filter(|it| it.starts_with("member_removed"))
        .collect();
    assert_eq!(removed, ["member_removed presence-room bob"]);
    assert_eq!(told(&receiver).len(), 6, "{:?}", told(&receiver));
}

#[test]
fn what_changed_while_the_teller_was_away_is_told_when_it_is_back() {
    let (redis, receiver) = (Redis::start(), Receiver::start());
    let place = Place::new(&config(&redis, Some(&receiver)));
    let mut teller = Server::start_in(place);
    let other = Server::start(&config(&redis, None));
    wait_for(&teller, "joined");
    wait_for(&other, "joined");
    let (mut ann, mut bob) = (client(&other), client(&other));
    ann.join(ROOM, "ann");
    bob.join(ROOM, "bob");
    let came = ["ann", "bob"].map(|user| format!("member_added {ROOM} {user}"));
    wait_told(&receiver, &came.each_ref().map(String::as_str));
    assert_eq!(teller.place.run(&["stop"]).status.code(), Some(0));
    teller.wait();
    drop(bob);
    let mut eve = client(&other);
    eve.join(ROOM, "eve");
    wait_until("bob is gone", || ann.present(ROOM) == ["ann", "eve"]);
    assert_eq!(teller.place.run(&["start", "-d"]).status.code(), Some(0));
    wait_told(
        &receiver,
        &[
            "member_added presence-room eve",
            "member_removed presence-room bob",
        ],
    );
    std::thread::sleep(SETTLED);
    assert_eq!(told(&receiver).len(), 5, "{:?}", told(&receiver));
    assert_eq!(teller.place.run(&["stop"]).status.code(), Some(0));
}

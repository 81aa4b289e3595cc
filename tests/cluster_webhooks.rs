//! Webhooks in a cluster: every server has the same configuration, one of them tells for all, and
//! each change is told once, wherever it happened, whoever was away meanwhile, and whoever tells.

#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/redis.rs"]
mod redis;
mod support;
#[path = "support/talker.rs"]
mod talker;

use std::time::Duration;

use receiver::{Manner, Receiver};
use redis::Redis;
use serde_json::{Value, json};
use support::{Server, get, kill, pid_of, wait_until};
use talker::Talker;

const ROOM: &str = "presence-room";
/// Longer than the window in which a return is no news.
const SETTLED: Duration = Duration::from_millis(3500);

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

fn config(redis: &Redis, receiver: &Receiver) -> String {
    format!(
        "workers = 1\n[[listen]]\nurl = \"text://127.0.0.1:0\"\n\
         [[listen]]\nurl = \"http://127.0.0.1:0\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
         [[apps.webhooks]]\nurl = \"{}\"\ntimeout_seconds = 1\nevents = [\"channel_occupied\", \
         \"channel_vacated\", \"member_added\", \"member_removed\", \"client_event\", \
         \"cache_miss\"]\n[webhooks]\nallow_private = true\n\
         [cluster]\nredis_url = \"{}\"\nlease_seconds = 6\n",
        receiver.url(),
        redis.url()
    )
}

fn wait_for(server: &Server, state: &str) {
    let http = server.address(1);
    wait_until(&format!("a server is {state}"), || {
        get(&http, "/readyz").is_ok_and(|(_, body)| body.contains(state))
    });
}

fn is_teller(server: &Server) -> bool {
    server.status()["total"]["cluster_teller"] == 1
}

/// The server that tells, and others.
fn start<const N: usize>(redis: &Redis, receiver: &Receiver) -> (Server, [Server; N]) {
    let teller = Server::start(&config(redis, receiver));
    wait_until("it tells", || is_teller(&teller));
    let others = std::array::from_fn(|_| Server::start(&config(redis, receiver)));
    others.iter().for_each(|it| wait_for(it, "joined"));
    (teller, others)
}

/// Every process of a server, its master first.
fn pids(server: &Server) -> Vec<u32> {
    let status = server.status();
    let all = status["processes"].as_array().expect("a list").iter();
    let all = all.map(pid_of).filter(|pid| *pid > 0);
    std::iter::once(server.pid()).chain(all).collect()
}

/// SIGKILL to all that a server is.
fn kill_all(server: &mut Server) {
    kill(server.pid(), SIGKILL);
    server.wait();
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
    let (teller, [other]) = start(&redis, &receiver);
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
    let (teller, [other]) = start(&redis, &receiver);
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

/// Nothing is under way of which the teller does not know whether it has arrived.
fn wait_settled(redis: &Redis) {
    wait_until("all is settled", || {
        let letters = redis.ask(&["HLEN", "lineman:letters"]);
        letters.is_some_and(|it| it == ":0\r\n")
    });
}

/// Fails unless exactly these were told, in any order.
fn assert_told(receiver: &Receiver, expected: &[&str]) {
    let mut all = told(receiver);
    all.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(all, expected);
}

const ANN_BOB_EVE: [&str; 5] = [
    "channel_occupied presence-room -",
    "channel_occupied news -",
    "member_added presence-room ann",
    "member_added presence-room bob",
    "member_added presence-room eve",
];

#[test]
fn a_killed_teller_is_succeeded_and_who_is_really_gone_is_told_once() {
    let (redis, receiver) = (Redis::start(), Receiver::start());
    let (mut teller, [other, third]) = start(&redis, &receiver);
    let (mut ann, mut news) = (client(&teller), client(&teller));
    let (mut bob, mut eve, mut too) = (client(&other), client(&third), client(&teller));
    ann.join(ROOM, "ann");
    news.subscribe("news");
    bob.join(ROOM, "bob");
    eve.join(ROOM, "eve");
    too.join(ROOM, "eve");
    wait_told(&receiver, &ANN_BOB_EVE);
    wait_settled(&redis);
    kill_all(&mut teller);
    wait_until("nobody listens", || {
        let listeners = redis.ask(&["PUBSUB", "NUMSUB", "lineman:in:demo"]);
        listeners.is_some_and(|it| it.ends_with(":0\r\n"))
    });
    // Traffic while nobody tells.
    bob.say(&json!({"event": "client-hi", "channel": ROOM, "data": {"a": 1}}));
    eve.event("client-hi", ROOM);
    drop(bob);
    eve.subscribe("cache-empty");
    let mut cat = client(&other);
    cat.join(ROOM, "cat");
    let gone = [
        "member_removed presence-room ann",
        "member_removed presence-room bob",
        "channel_vacated news -",
        "member_added presence-room cat",
        "client_event presence-room bob",
        "channel_occupied cache-empty -",
        "cache_miss cache-empty -",
    ];
    // The lease and a third, the window for those who return, and a little to write it down.
    let began = std::time::Instant::now();
    wait_told(&receiver, &gone);
    assert!(began.elapsed() < Duration::from_secs(8 + 3 + 4));
    assert_ne!(is_teller(&other), is_teller(&third));
    // The former teller returns to what it had stored, and has nothing to say.
    let place = std::mem::replace(&mut teller.place, support::Place::new(""));
    drop(teller);
    let former = Server::start_in(place);
    wait_for(&former, "joined");
    let mut dan = client(&former);
    dan.join(ROOM, "dan");
    wait_told(&receiver, &["member_added presence-room dan"]);
    std::thread::sleep(SETTLED);
    assert!(!is_teller(&former));
    let mut all = ANN_BOB_EVE.to_vec();
    all.extend(gone);
    all.push("member_added presence-room dan");
    assert_told(&receiver, &all);
}

#[test]
fn what_a_killed_teller_had_not_delivered_its_successor_delivers() {
    let (redis, receiver) = (Redis::start(), Receiver::start());
    let (mut teller, [other]) = start(&redis, &receiver);
    receiver.behave(Manner::Status(503));
    let (mut ann, mut bob) = (client(&other), client(&other));
    ann.join(ROOM, "ann");
    bob.join(ROOM, "bob");
    ann.say(&json!({"event": "client-hi", "channel": ROOM, "data": {"a": 1}}));
    bob.event("client-hi", ROOM);
    wait_until("it was tried", || !receiver.requests().is_empty());
    wait_until("all is stored", || {
        let letters = redis.ask(&["HVALS", "lineman:letters"]);
        let told = redis.ask(&["SCARD", "lineman:told"]);
        letters.is_some_and(|it| it.contains("client_event"))
            && told.is_some_and(|it| it == ":3\r\n")
    });
    let first = receiver.requests()[0].body.clone();
    kill_all(&mut teller);
    receiver.behave(Manner::Fine);
    let all = [
        "channel_occupied presence-room -",
        "member_added presence-room ann",
        "member_added presence-room bob",
        "client_event presence-room ann",
    ];
    wait_told(&receiver, &all);
    std::thread::sleep(SETTLED);
    assert_told(&receiver, &all);
    let bodies: Vec<String> = receiver.requests().into_iter().map(|it| it.body).collect();
    let again = bodies.iter().filter(|body| **body == first).count();
    assert!(again >= 2, "the same request came again: {bodies:?}");
}

#[test]
fn a_teller_that_was_stopped_for_longer_than_its_lease_tells_nothing_more() {
    let (redis, receiver) = (Redis::start(), Receiver::start());
    let (teller, [other]) = start(&redis, &receiver);
    let (mut ann, mut bob) = (client(&other), client(&other));
    ann.join(ROOM, "ann");
    wait_told(&receiver, &["member_added presence-room ann"]);
    wait_settled(&redis);
    // Something that it would try again as soon as it goes on.
    receiver.behave(Manner::Status(503));
    bob.join(ROOM, "bob");
    wait_until("it was tried", || receiver.requests().len() >= 3);
    let pids = pids(&teller);
    pids.iter().for_each(|pid| kill(*pid, SIGSTOP));
    wait_until("another tells", || is_teller(&other));
    receiver.behave(Manner::Fine);
    drop(ann);
    let all = [
        "channel_occupied presence-room -",
        "member_added presence-room ann",
        "member_added presence-room bob",
        "member_removed presence-room ann",
    ];
    wait_told(&receiver, &all);
    pids.iter().rev().for_each(|pid| kill(*pid, SIGCONT));
    wait_for(&teller, "joined");
    wait_until("it sees who tells", || !is_teller(&teller));
    std::thread::sleep(SETTLED);
    assert_told(&receiver, &all);
}

#[test]
fn redis_may_restart_and_the_teller_goes_on() {
    let (mut redis, receiver) = (Redis::start(), Receiver::start());
    let (teller, [other]) = start(&redis, &receiver);
    let (mut ann, mut bob) = (client(&other), client(&teller));
    ann.join(ROOM, "ann");
    bob.join(ROOM, "bob");
    wait_told(
        &receiver,
        &[
            "member_added presence-room ann",
            "member_added presence-room bob",
        ],
    );
    wait_settled(&redis);
    redis.kill();
    wait_for(&teller, "away");
    drop(bob);
    redis.run();
    wait_for(&teller, "joined");
    wait_for(&other, "joined");
    let all = [
        "channel_occupied presence-room -",
        "member_added presence-room ann",
        "member_added presence-room bob",
        "member_removed presence-room bob",
    ];
    wait_told(&receiver, &all);
    std::thread::sleep(SETTLED);
    assert_told(&receiver, &all);
}

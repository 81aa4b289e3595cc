//! The paths that are counted. Each is set up and taken a few times before it is counted, so that what
//! happens once is not part of it; and what came of it is checked.

use lineman::wire::websocket::{TEXT, client_frame};
use serde_json::json;

use crate::sending::{ALL, Gateway};
use crate::site::{CHANNELS, ECHO, Held, Site};
use crate::world::client::{call, text, upgrade};
use crate::world::{KEY, SECRET};

/// Turns before those that are counted.
const WARM: u64 = 5;
/// Turns that are counted.
const TURNS: u64 = 20;
/// Subscribers of a fan-out; devices of a call for many. Callgrind slows all of it down, what is not
/// counted too.
const MANY: u64 = 100;
/// Messages in one read.
const BURST: u64 = 16;

/// See the file's head.
pub struct Path {
    pub name: &'static str,
    /// What is counted.
    pub operation: &'static str,
    /// Operations in one walk.
    pub times: u64,
    pub walk: fn(),
}

pub const PATHS: [Path; 19] = [
    path(
        "echo-20",
        "WebSocket message of 20 bytes, there and back",
        TURNS,
        || echo(20, 1),
    ),
    path("echo-1024", "the same of 1 KiB", TURNS, || echo(1_024, 1)),
    path("echo-16384", "the same of 16 KiB", TURNS, || {
        echo(16_384, 1)
    }),
    path(
        "echo-20-burst",
        "one of 16 messages of 20 bytes that came in one read",
        TURNS * BURST,
        || echo(20, BURST),
    ),
    path(
        "http",
        "GET /healthz and its answer, kept alive",
        TURNS,
        || get(1),
    ),
    path(
        "http-burst",
        "one of 16 such requests that came in one read",
        TURNS * BURST,
        || get(BURST),
    ),
    path(
        "enter",
        "connect, upgrade, Pusher's greeting, a subscription, leave: worker and switchboard",
        TURNS,
        enter,
    ),
    path(
        "publish-signed",
        "signed POST of one event, nobody listens: worker and switchboard",
        TURNS,
        publish_signed,
    ),
    path(
        "fan-out",
        "one delivery of an event to one of 100 subscribers, worker and switchboard",
        TURNS * MANY,
        fan_out,
    ),
    path(
        "client-event-sender",
        "client event between two workers: the sender's",
        TURNS,
        || client_event(&[0], false),
    ),
    path(
        "client-event-switchboard",
        "the same: the switchboard",
        TURNS,
        || client_event(&[], true),
    ),
    path(
        "client-event-receiver",
        "the same: the receiver's worker",
        TURNS,
        || client_event(&[1], false),
    ),
    path(
        "publish-4-switchboard",
        "an event that four workers want: the switchboard",
        TURNS,
        publish_to_four,
    ),
    path(
        "push-one-courier",
        "call for one user with one device, from the call to the verdict: the courier",
        TURNS,
        || push_one(true),
    ),
    path(
        "push-one-store",
        "the same: SQLite, in memory",
        TURNS,
        || push_one(false),
    ),
    path(
        "push-many-courier",
        "one delivery of a call for 100 devices, from the call to the verdict: the courier",
        MANY,
        || push_many(true),
    ),
    path(
        "push-many-store",
        "the same: SQLite, in memory",
        MANY,
        || push_many(false),
    ),
    path(
        "register-courier",
        "registration of a device: the courier",
        TURNS,
        || register(true),
    ),
    path(
        "register-store",
        "the same: SQLite, in memory",
        TURNS,
        || register(false),
    ),
];

const fn path(name: &'static str, operation: &'static str, times: u64, walk: fn()) -> Path {
    Path {
        name,
        operation,
        times,
        walk,
    }
}

/// Warm turns, and those that count.
fn turns(
    site: &mut Site,
    (workers, switchboard): (&[usize], bool),
    mut turn: impl FnMut(&mut Site),
) {
    (0..WARM).for_each(|_| turn(site));
    site.count(workers, switchboard);
    (0..TURNS).for_each(|_| turn(site));
}

fn echo(bytes: usize, burst: u64) {
    let mut site = Site::new(1);
    let client = site.open(0, ECHO);
    site.say(client, &upgrade("/"));
    site.hear(client);
    let payload = vec![b'a'; bytes];
    let frame = client_frame(TEXT, true, [1, 2, 3, 4], &payload);
    let burst = frame.repeat(burst as usize);
    // What comes back is not masked.
    let answer = burst.len() - 4 * (burst.len() / frame.len());
    turns(&mut site, (&[0], true), |site| {
        site.say(client, &burst);
        assert_eq!(site.hear(client).len(), answer);
    });
}

fn get(burst: u64) {
    let mut site = Site::new(1);
    let client = site.open(0, CHANNELS);
    let request =
        b"GET /healthz HTTP/1.1\r\nHost: lineman.example:6001\r\n\r\n".repeat(burst as usize);
    turns(&mut site, (&[0], true), |site| {
        site.say(client, &request);
        let answers = String::from_utf8(site.hear(client)).expect("text");
        assert_eq!(answers.matches("HTTP/1.1 200").count() as u64, burst);
    });
}

fn enter() {
    let mut site = Site::new(1);
    turns(&mut site, (&[0], true), |site| {
        let client = site.enter(0, "news");
        site.leave(client);
    });
}

/// As SDKs sign it: HMAC over method, path and sorted parameters, MD5 of the body.
fn signed_publish(channel: &str) -> Vec<u8> {
    let body = json!({"name": "e", "channels": [channel], "data": "x".repeat(128)}).to_string();
    let md5 = data_encoding::HEXLOWER.encode(&<md5::Md5 as md5::Digest>::digest(&body));
    let at = crate::hand::start().unix_ms / 1000;
    let query = format!("auth_key={KEY}&auth_timestamp={at}&auth_version=1.0&body_md5={md5}");
    let signature =
        crate::world::client::signature_with(SECRET, &format!("POST\n/apps/demo/events\n{query}"));
    format!(
        "POST /apps/demo/events?{query}&auth_signature={signature} HTTP/1.1\r\nHost: lineman.example:6001\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn publish(site: &mut Site, client: Held, request: &[u8]) {
    site.say(client, request);
    let answer = site.hear(client);
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

fn publish_signed() {
    let mut site = Site::new(1);
    let client = site.open(0, CHANNELS);
    let request = signed_publish("nobody");
    turns(&mut site, (&[0], true), |site| {
        publish(site, client, &request)
    });
}

fn fan_out() {
    let mut site = Site::new(1);
    let subscribers: Vec<Held> = (0..MANY).map(|_| site.enter(0, "news")).collect();
    let client = site.open(0, CHANNELS);
    let request = signed_publish("news");
    turns(&mut site, (&[0], true), |site| {
        publish(site, client, &request);
        assert!(subscribers.iter().all(|it| site.hear(*it).len() > 128));
    });
}

fn client_event(workers: &[usize], switchboard: bool) {
    let mut site = Site::new(2);
    let channel = "private-room";
    let (sender, receiver) = (site.enter(0, channel), site.enter(1, channel));
    let event = json!({"event": "client-move", "channel": channel, "data": {"x": 17, "y": 4}});
    let event = text(&event.to_string());
    turns(&mut site, (workers, switchboard), |site| {
        site.say(sender, &event);
        assert!(site.hear(sender).is_empty() && !site.hear(receiver).is_empty());
    });
}

fn publish_to_four() {
    let mut site = Site::new(4);
    let subscribers: Vec<Held> = (0..4).map(|worker| site.enter(worker, "news")).collect();
    let client = site.open(0, CHANNELS);
    let request = call(
        "POST",
        "/apps/demo/events",
        &json!({"name": "e", "channel": "news", "data": "x".repeat(128)}).to_string(),
    );
    turns(&mut site, (&[], true), |site| {
        publish(site, client, &request);
        assert!(subscribers.iter().all(|it| !site.hear(*it).is_empty()));
    });
}

/// Counts the courier, or else its store.
fn push_one(counts_courier: bool) {
    let mut gateway = Gateway::new(10);
    for turn in 0..WARM + TURNS {
        if turn == WARM {
            gateway.count(counts_courier, !counts_courier);
        }
        gateway.notify(json!({"users": [format!("user-{}", turn % 10)]}));
        gateway.settle();
        assert_eq!(gateway.arrived(), turn + 1);
    }
}

fn push_many(counts_courier: bool) {
    let mut gateway = Gateway::new(MANY);
    // The connection stands, and the provider has told how many streams it takes.
    gateway.notify(json!({"users": ["user-0"]}));
    gateway.settle();
    gateway.count(counts_courier, !counts_courier);
    gateway.notify(json!({"topics": [ALL]}));
    gateway.settle();
    assert_eq!(gateway.arrived(), 1 + MANY);
}

fn register(counts_courier: bool) {
    let mut gateway = Gateway::new(WARM);
    gateway.count(counts_courier, !counts_courier);
    for number in WARM..WARM + TURNS {
        gateway.register(number..number + 1);
    }
}

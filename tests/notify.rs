//! Notifications of the real binary: a call reaches a user where he is, live on his connections or by
//! deliveries to his devices, whoever of the server dies meanwhile. Devices are written into the store
//! here, and deliveries are read from it.

#[path = "support/redis.rs"]
mod redis;
mod support;
#[path = "support/talker.rs"]
mod talker;

use std::time::Duration;

use lineman::base::dice::Dice;
use lineman::base::now::Now;
use lineman::push::devices::device::Device;
use lineman::push::devices::registration::{DeviceBounds, Registration};
use lineman::push::devices::token_key::{KeyId, TokenKey};
use lineman::push::devices::vault::{Binding, TokenVault};
use lineman::store::devices;
use redis::Redis;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::{PUSH, Place, Server, get, pid_of, processes, requests, wait_until};
use talker::{Talker, data_of};

/// The one behind `PUSH`.
const KEY: &str = "a2V5cyBmb3IgdGVzdHMgaGF2ZSAzMiBieXRlcy4uLi4=";
const EVENT: &str = "lineman:notification";

struct Play {
    server: Server,
    vault: TokenVault,
    dice: Dice,
}

impl Play {
    fn new(rest: &str) -> Play {
        let toml = format!(
            "workers = 2\n[[listen]]\nurl = \"http://127.0.0.1:0\"\n\
             [[listen]]\nurl = \"text://127.0.0.1:0\"\n\
             [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
             {PUSH}[store]\ndir = \"store\"\n{rest}"
        );
        let server = Server::start_in(Place::new(&toml));
        let key = TokenKey::parse(KeyId::parse("1").expect("an id"), KEY).expect("a key");
        let mut dice = Dice::new([3; 16]);
        let vault = TokenVault::new(key, Vec::new(), Binding::Row, &mut dice).expect("a vault");
        Play {
            server,
            vault,
            dice,
        }
    }

    /// The database, once the courier has made it.
    fn store(&self) -> Connection {
        let path = self.server.place.path().join("store/lineman.db");
        wait_until("the store is there", || {
            let store = Connection::open(&path);
            store.is_ok_and(|it| it.prepare("SELECT 1 FROM deliveries").is_ok())
        });
        let store = Connection::open(path).expect("the store opens");
        let patience = Duration::from_secs(10);
        store.busy_timeout(patience).expect("a timeout");
        store
    }

    /// Registers a device for each name; `rest` are further fields of the registration.
    fn register(&mut self, names: impl Iterator<Item = String>, rest: &str) {
        let now = Now {
            unix_ms: std::time::UNIX_EPOCH
                .elapsed()
                .expect("a clock")
                .as_millis() as u64,
            ..Now::default()
        };
        let mut store = self.store();
        let store = store.transaction().expect("a transaction");
        for (id, print) in self.vault.keys() {
            devices::put_key(&*store, id, print, now.unix_ms).expect("a key");
        }
        for name in names {
            let json = format!(
                r#"{{"device_id":"{name}","platform":"android","token":"token-of-{name}"{rest}}}"#
            );
            let read = Registration::read(&json, &DeviceBounds::default(), now);
            let read = read.expect("a registration");
            let device = Device::new("demo", read, &self.vault, &mut self.dice, now);
            devices::put(&*store, &device).expect("it is put");
        }
        store.commit().expect("it is kept");
    }

    fn user_with_device(&mut self, user: &str) {
        let device = json!({"device_id": format!("device-of-{user}"), "platform": "android",
                            "token": format!("token-of-{user}"), "user_id": user});
        let (code, told) = self.call("POST", "devices", &device);
        assert_eq!(code / 100, 2, "{told}");
    }

    fn sign_in(&self, user: &str) -> Talker {
        let mut talker = Talker::connect(&self.server.address(1));
        talker.sign_in(user, &[]);
        talker
    }

    fn call_with(&self, fields: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let path = format!("/apps/demo/{path}");
        let fields = format!("Authorization: Bearer demo-secret\r\n{fields}");
        let address = self.server.address(0);
        let (code, body) = requests::answer(&address, method, &path, &fields, body);
        let told = serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}"));
        (code, told)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.call_with("", method, path, &body.to_string())
    }

    /// Asks for a notification that is taken.
    fn notify(&self, body: &Value) -> Value {
        let (code, told) = self.call("POST", "notify", body);
        assert_eq!(code, 202, "{told}");
        told
    }

    fn show(&self, id: &str) -> Value {
        let (code, shown) = self.call("GET", &format!("notifications/{id}"), &Value::Null);
        assert_eq!(code, 200, "{shown}");
        shown
    }

    /// Until the notification's deliveries are in these states, so many in each.
    fn wait_for_counts(&self, id: &str, counts: &Value) {
        wait_until(&format!("{counts} in {id}"), || {
            let path = format!("notifications/{id}");
            let (code, shown) = self.call("GET", &path, &Value::Null);
            // 503 while the courier is away.
            code == 200 && shown["counts"] == *counts
        });
    }

    fn kill(&self, role: &str) {
        let status = self.server.status();
        for process in processes(&status, role) {
            self.server.kill(pid_of(process), libc::SIGKILL);
        }
    }
}

fn hello(user: &str) -> Value {
    json!({"to": {"users": [user]}, "note": {"title": "Hello"}, "ack_timeout": 1})
}

fn id_of(told: &Value) -> &str {
    told["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id: {told}"))
}

fn events(told: &Value) -> Vec<String> {
    let timeline = told["timeline"].as_array().expect("a timeline").iter();
    timeline
        .map(|it| it["event"].as_str().expect("an event").to_string())
        .collect()
}

#[test]
fn who_is_there_and_acknowledges_gets_no_push() {
    let mut play = Play::new("");
    play.user_with_device("ann");
    let mut phone = play.sign_in("ann");
    let tablet = play.sign_in("ann");
    let mut other = play.sign_in("bob");
    let told = play.notify(&hello("ann"));
    assert_eq!(
        told["users"],
        json!([{"user_id": "ann", "live": 2, "push": 0, "held": 1}])
    );
    let id = id_of(&told);
    for talker in [&phone, &tablet] {
        let event = talker.find("the event", |event| event["event"] == EVENT);
        let data = data_of(&event);
        assert_eq!(data, json!({"title": "Hello", "notification_id": id}));
        assert_eq!(event["channel"], "#server-to-user-ann");
    }
    // Whose it is not cannot acknowledge it.
    other.say(&json!({"event": "lineman:ack", "data": {"id": id}}));
    phone.say(&json!({"event": "lineman:ack", "data": {"id": id}}));
    play.wait_for_counts(id, &json!({"cancelled": 1}));
    std::thread::sleep(Duration::from_millis(1500));
    let shown = play.show(id);
    assert_eq!(shown["state"], "done", "{shown}");
    assert_eq!(shown["deliveries"][0]["reason"], "acknowledged");
    assert_eq!(
        events(&shown),
        [
            "accepted",
            "live",
            "acknowledged",
            "delivery cancelled",
            "done"
        ]
    );
    assert_eq!(other.count(EVENT), 0);
    let stranger = Talker::connect(&play.server.address(1));
    let mut stranger = stranger;
    stranger.say(&json!({"event": "lineman:ack", "data": {"id": id}}));
    stranger.find("a complaint", |event| event["event"] == "pusher:error");
}

#[test]
fn who_is_silent_or_away_gets_a_push() {
    let mut play = Play::new("");
    play.user_with_device("ann");
    play.user_with_device("bob");
    let _ann = play.sign_in("ann");
    let body = json!({"to": {"users": ["ann", "bob", "cyd"], "channels": ["news"]},
                      "note": {"title": "Hello"}, "ack_timeout": 1});
    let told = play.notify(&body);
    assert_eq!(
        told["users"],
        json!([{"user_id": "ann", "live": 1, "push": 0, "held": 1},
               {"user_id": "bob", "live": 0, "push": 1, "held": 0},
               {"user_id": "cyd", "live": 0, "push": 0, "held": 0}])
    );
    assert_eq!(told["channels"], json!([{"channel": "news", "live": 0}]));
    assert_eq!(
        told["totals"],
        json!({"live": 1, "push": 1, "held": 1, "nobody": 1})
    );
    let id = id_of(&told);
    play.wait_for_counts(id, &json!({"queued": 2}));
    // Too late for the timer, in time for what nobody has taken in hand.
    let path = format!("notifications/{id}/ack");
    let (code, told) = play.call("POST", &path, &json!({"user_id": "ann"}));
    assert_eq!((code, told), (200, json!({"cancelled": 1})));
    let (code, _) = play.call("POST", &path, &json!({"user_id": "eve"}));
    assert_eq!(code, 404);
    let (code, told) = play.call("DELETE", &format!("notifications/{id}"), &Value::Null);
    assert_eq!((code, told), (200, json!({"cancelled": 1})));
    assert_eq!(play.show(id)["state"], "cancelled");
    let (_, listed) = play.call("GET", "notifications?state=cancelled", &Value::Null);
    assert_eq!(listed["notifications"][0]["id"], id);
    let (_, listed) = play.call("GET", "notifications?state=open", &Value::Null);
    assert_eq!(listed["notifications"], json!([]));
}

#[test]
fn nothing_that_was_accepted_is_forgotten_whoever_dies() {
    let mut play = Play::new("");
    play.user_with_device("ann");
    play.user_with_device("bob");
    let mut ann = play.sign_in("ann");
    let body = json!({"to": {"users": ["ann"]}, "note": {"title": "a"}, "ack_timeout": 2});
    let silent = play.notify(&body);
    let mut heard = play.notify(&body);
    let mut later = hello("bob");
    later["delay"] = 2.into();
    let later = play.notify(&later);
    assert_eq!(later["state"], "scheduled");
    play.kill("courier");
    // While it is away, what is acknowledged waits for it.
    ann.say(&json!({"event": "lineman:ack", "data": {"id": heard["id"]}}));
    play.wait_for_counts(id_of(&silent), &json!({"queued": 1}));
    play.wait_for_counts(id_of(&heard), &json!({"cancelled": 1}));
    play.wait_for_counts(id_of(&later), &json!({"queued": 1}));

    play.kill("switchboard");
    wait_until("a notification is taken again", || {
        let (code, told) = play.call("POST", "notify", &hello("ann"));
        heard = told;
        code == 202
    });
    play.wait_for_counts(id_of(&heard), &json!({"queued": 1}));
}

#[test]
fn a_user_on_another_server_of_the_cluster_is_there() {
    let redis = Redis::start();
    let cluster = format!("[cluster]\nredis_url = \"{}\"\n", redis.url());
    let mut play = Play::new(&cluster);
    let elsewhere = Play::new(&cluster);
    for server in [&play.server, &elsewhere.server] {
        wait_until("a server has joined", || {
            let told = get(&server.address(0), "/readyz");
            told.is_ok_and(|(_, body)| body.contains("joined"))
        });
    }
    play.user_with_device("ann");
    let ann = elsewhere.sign_in("ann");
    let told = play.notify(&hello("ann"));
    assert_eq!(
        told["users"],
        json!([{"user_id": "ann", "live": 1, "push": 0, "held": 1}])
    );
    ann.find("the event", |event| event["event"] == EVENT);
    let id = id_of(&told);
    play.wait_for_counts(id, &json!({"queued": 1}));
}

#[test]
fn an_operator_at_the_machine_needs_no_secret() {
    let mut play = Play::new("");
    play.user_with_device("ann");
    let run = |words: &[&str]| {
        let output = play.server.place.run(words);
        let said = String::from_utf8(output.stdout).expect("text");
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said, complained)
    };
    let (code, said, complained) = run(&["push", "send", "--user", "ann", "--title", "Hi"]);
    assert_eq!(code, Some(0), "{complained}");
    assert!(
        said.ends_with("\nann: 0 connections, 1 devices queued, 0 waiting\n"),
        "{said}"
    );
    let id = said.lines().next().expect("an id");
    play.server.wait_for_log("notification accepted");
    let log = play.server.stderr();
    let audit = |line: &&str| line.contains("notification accepted") && line.contains(id);
    let line = log
        .lines()
        .find(audit)
        .expect("who sent what is in the log");
    assert!(line.contains("demo") && !line.contains("Hi"), "{line}");
    let (_, story, _) = run(&["push", "status", id]);
    let told: Vec<&str> = story
        .lines()
        .filter_map(|line| line.split("  ").nth(1))
        .collect();
    assert_eq!(told, ["accepted", "live", "push"], "{story}");
    assert!(
        story.starts_with("open\n") && story.ends_with("\n1 queued\n"),
        "{story}"
    );
    assert_eq!(run(&["push", "cancel", id]).1, "1 cancelled\n");
    assert!(
        run(&["push", "status"])
            .1
            .contains(&format!("{id}  cancelled"))
    );
    assert_eq!(run(&["push", "retry", id]).1, "0 queued\n");
    for (what, count) in [("cancelled", 1), ("queued", 0)] {
        let said = format!(
            "notification {what} app=demo key=operator notification={id} deliveries={count}"
        );
        play.server.wait_for_log(&said);
    }
    let (code, _, complained) = run(&["push", "status", "nobody"]);
    assert_eq!(code, Some(1), "{complained}");
}

#[test]
fn the_same_key_is_the_same_notification() {
    let mut play = Play::new("[limits]\nnotifications_per_user_per_second = 4\n");
    play.user_with_device("ann");
    let body = hello("ann").to_string();
    let field = "Idempotency-Key: order-7\r\n";
    let (code, first) = play.call_with(field, "POST", "notify", &body);
    assert_eq!((code, &first["users"][0]["push"]), (202, &json!(1)));
    wait_until("the answer is kept", || {
        play.call_with(field, "POST", "notify", &body) == (202, first.clone())
    });
    let other = hello("bob").to_string();
    let (code, told) = play.call_with(field, "POST", "notify", &other);
    assert_eq!(code, 409, "{told}");
    let rows = "SELECT count(*) FROM notifications";
    let rows: i64 = play
        .store()
        .query_row(rows, [], |row| row.get(0))
        .expect("a count");
    assert_eq!(rows, 1);
    wait_until("too many are refused", || {
        play.call("POST", "notify", &hello("ann")).0 == 429
    });
    let (code, told) = play.call("POST", "notify", &json!({"note": {"title": "a"}}));
    assert_eq!((code, told["error"].as_str()), (400, Some("to is missing")));
}

#[test]
fn a_topic_of_many_devices_is_expanded_behind_the_answer() {
    let mut play = Play::new("");
    let names = (0..10_000).map(|number| format!("device-{number}"));
    play.register(names, r#","topics":["news"]"#);
    play.register(std::iter::once("else".into()), r#","topics":["olds"]"#);
    let body = json!({"to": {"topics": ["news"]}, "note": {"title": "News"}});
    let told = play.notify(&body);
    assert_eq!(told["state"], "expanding");
    let id = id_of(&told);
    wait_until("the first page", || {
        play.show(id)["counts"]["queued"].is_number()
    });
    play.kill("courier");
    play.wait_for_counts(id, &json!({"queued": 10_000}));
    let (_, page) = play.call("GET", &format!("notifications/{id}?limit=7"), &Value::Null);
    assert_eq!(page["deliveries"].as_array().map(Vec::len), Some(7));
    let next = &page["next"];
    let path = format!("notifications/{id}?limit=7&after={next}");
    let (_, second) = play.call("GET", &path, &Value::Null);
    assert_ne!(page["deliveries"], second["deliveries"]);
}

//! Notifications of the real binary on their way to providers, which are `lineman mock`: what they answer
//! is followed, and nothing that was accepted is lost, whoever dies meanwhile.

#[path = "support/provider.rs"]
mod provider;
#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use provider::Provider;
use receiver::{Manner, Receiver};
use serde_json::{Value, json};
use support::{
    PATIENCE, PUSH, Place, Server, crash_rounds, pid_of, processes, requests, wait_until,
};

/// What the server has for a provider.
fn credential(provider: &Provider) -> String {
    let (url, ca) = (provider.url(), provider.ca().display().to_string());
    match provider.ready["provider"].as_str() {
        Some("apns") => provider.apns_table(),
        Some("fcm") => format!(
            "[[apps.fcm]]\naccount = {{ file = \"{}\" }}\nbase_url = \"{url}\"\nca_file = \"{ca}\"\n",
            provider.file("service-account.json").display()
        ),
        _ => format!(
            "[[apps.webpush]]\nkey = {{ env = \"{VAPID}\" }}\ncontact = \"mailto:a@b.example\"\n\
             ca_file = \"{ca}\"\n"
        ),
    }
}

const VAPID: &str = "LINEMAN_TEST_TOKEN_KEY";

struct Play {
    server: Server,
}

impl Play {
    fn new(providers: &[&Provider]) -> Play {
        Play {
            server: Server::start_in(Place::new(&toml(providers))),
        }
    }

    fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let path = format!("/apps/demo/{path}");
        let fields = "Authorization: Bearer demo-secret\r\n";
        let address = self.server.address(0);
        let (code, body) = requests::answer(&address, method, &path, fields, body);
        let told = serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}"));
        (code, told)
    }

    /// Registers devices, `rest` with further fields of each.
    fn register(&self, platform: &str, tokens: impl Iterator<Item = String>, rest: &str) {
        let tokens: Vec<String> = tokens.collect();
        for page in tokens.chunks(200) {
            let lines = page.iter().map(|token| {
                // A name must not hold the token.
                let name = format!("{platform}-{}", &token[token.len().saturating_sub(6)..]);
                format!(
                    r#"{{"device_id":"{name}","platform":"{platform}","token":"{token}"{rest}}}"#
                )
            });
            let body = lines.collect::<Vec<_>>().join("\n");
            let (code, told) = self.call("POST", "devices/import", &body);
            assert_eq!((code, &told["refused"]), (200, &json!([])), "{told}");
        }
    }

    fn notify(&self, body: &Value) -> String {
        let (code, told) = self.call("POST", "notify", &body.to_string());
        assert_eq!(code, 202, "{told}");
        told["id"].as_str().expect("an id").to_string()
    }

    /// Until it is accepted; the key makes sure that it is so once.
    fn notify_whoever_dies(&self, body: &Value, key: u64) -> String {
        let mut body = body.clone();
        body["idempotency_key"] = format!("key-{key}").into();
        let mut told = Value::Null;
        wait_until("it is accepted", || {
            let (code, answer) = self.call("POST", "notify", &body.to_string());
            told = answer;
            assert!(matches!(code, 202 | 503 | 504), "{code}: {told}");
            code == 202
        });
        told["id"].as_str().expect("an id").to_string()
    }

    fn show(&self, id: &str) -> Value {
        let (code, shown) = self.call("GET", &format!("notifications/{id}"), "");
        assert_eq!(code, 200, "{shown}");
        shown
    }

    fn device(&self, name: &str) -> Value {
        let (code, told) = self.call("GET", &format!("devices/{name}"), "");
        assert_eq!(code, 200, "{told}");
        told
    }

    /// Waits until the notification is done, with so many deliveries in each state.
    fn wait_for(&self, id: &str, counts: &Value) {
        let mut last = Value::Null;
        let begun = std::time::Instant::now();
        while begun.elapsed() < 3 * PATIENCE {
            last = self.show(id);
            if last["counts"] == *counts && last["state"] == "done" {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let shown = json!([last["state"], last["counts"], last["deliveries"][0]]);
        panic!("{counts}, not {shown}: {}", self.server.stderr());
    }

    fn kill_courier(&self) {
        let status = self.server.status();
        let couriers = processes(&status, "courier");
        for pid in couriers.into_iter().map(pid_of).filter(|pid| *pid > 0) {
            self.server.kill(pid, libc::SIGKILL);
        }
    }

    fn wait_for_courier(&self) {
        wait_until("a courier is back", || {
            let (code, _) = self.call("GET", "notifications", "");
            code == 200
        });
    }

    fn counter(&self, name: &str) -> u64 {
        let status = self.server.status();
        let couriers = processes(&status, "courier");
        couriers[0]["counters"][name].as_u64().unwrap_or_default()
    }
}

fn toml(providers: &[&Provider]) -> String {
    let credentials: Vec<String> = providers.iter().map(|it| credential(it)).collect();
    format!(
        "[[listen]]\nurl = \"http://127.0.0.1:0\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n{}\n{PUSH}\
         allow_loopback = true\n[store]\ndir = \"store\"\n",
        credentials.concat()
    )
}

/// Hexadecimal digits of a device's own.
fn token(nth: usize) -> String {
    format!("{nth:064x}")
}

fn to_user(user: &str) -> Value {
    json!({"to": {"users": [user]}, "note": {"title": "Hello"}, "deliver": "push"})
}

fn to_iphones() -> Value {
    json!({"to": {"platform": "ios"}, "note": {"title": "Hello"}, "deliver": "push"})
}

#[test]
fn a_user_is_reached_on_every_device_by_its_own_provider() {
    let apns = Provider::start("apns", &[]);
    let fcm = Provider::start("fcm", &[]);
    let web = Provider::start("webpush", &[]);
    let play = Play::new(&[&apns, &fcm, &web]);
    let user = r#","user_id":"u""#;
    play.register("ios", [token(1)].into_iter(), user);
    play.register("android", ["android-token".to_string()].into_iter(), user);
    let subscription = json!({
        "endpoint": format!("{}/push/sub-1", web.url()),
        "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        },
    });
    let device =
        json!({"device_id": "web", "platform": "web", "token": subscription, "user_id": "u"});
    let (code, told) = play.call("POST", "devices", &device.to_string());
    assert_eq!(code, 201, "{told}");
    let id = play.notify(&to_user("u"));
    play.wait_for(&id, &json!({"accepted": 3}));
    assert_eq!(apns.told()[0]["token"], token(1));
    assert_eq!(apns.told()[0]["payload"]["aps"]["alert"]["title"], "Hello");
    assert_eq!(fcm.told()[0]["token"], "android-token");
    assert_eq!(web.count(201), 1);
    assert!(play.show(&id)["deliveries"][0]["provider_id"].is_string());
    assert_eq!(play.counter("push_accepted"), 3);
    let log = play.server.stderr();
    assert!(!log.contains(&token(1)) && !log.contains("bearer"), "{log}");
}

#[test]
fn each_of_many_is_told_what_he_is_to_be_told_though_requests_have_much_in_common() {
    let apns = Provider::start("apns", &[]);
    let play = Play::new(&[&apns]);
    let locales = [r#","locale":"de-AT""#, r#","locale":"fr""#, ""];
    for nth in 0..60 {
        play.register("ios", [token(nth)].into_iter(), locales[nth % 3]);
    }
    let mut body = to_iphones();
    body["locales"] = json!({"de": {"title": "Hallo"}, "fr": {"title": "Salut"}});
    body["note"]["collapse"] = "greeting".into();
    let first = play.notify(&body);
    body["note"] = json!({"title": "Again", "data": {"nth": 2}});
    let second = play.notify(&body);
    for id in [first, second] {
        play.wait_for(&id, &json!({"accepted": 60}));
    }
    let told = apns.told();
    let mut ids = BTreeSet::new();
    for nth in 0..60 {
        let mut own: Vec<&Value> = told.iter().filter(|it| it["token"] == token(nth)).collect();
        own.sort_by_key(|line| line["payload"]["nth"].is_null());
        let title = |line: &Value| line["payload"]["aps"]["alert"]["title"].clone();
        let mine = [Some("Hallo"), Some("Salut"), None][nth % 3];
        let titles: Vec<Value> = own.iter().map(|line| title(line)).collect();
        assert_eq!(titles, [mine.unwrap_or("Again"), mine.unwrap_or("Hello")]);
        assert_eq!(own[0]["headers"].get("apns-collapse-id"), None);
        assert_eq!(own[1]["headers"]["apns-collapse-id"], "greeting");
        ids.extend(
            own.iter()
                .map(|line| line["headers"]["apns-id"].to_string()),
        );
    }
    assert_eq!(ids.len(), 120, "each has an id of its own");
}

#[test]
fn what_providers_answer_is_followed() {
    let rules = [
        "token=dead* answer=Unregistered",
        "token=bad0* answer=BadDeviceToken",
        "token=429* nth=1 answer=429 retry-after=1",
        "token=big0* answer=PayloadTooLarge",
        "token=ccc* nth=1 reset=CANCEL",
        "token=ddd* nth=1 reset=REFUSED_STREAM",
    ];
    let rules = rules.map(|rule| rule.replace("big0", "b190"));
    let apns = Provider::start("apns", &rules.each_ref().map(String::as_str));
    let play = Play::new(&[&apns]);
    let tokens = [
        "00aa", "dead00", "bad000", "429000", "b19000", "ccc000", "ddd000",
    ];
    play.register("ios", tokens.into_iter().map(str::to_string), "");
    let mut body = to_iphones();
    body["on_unknown"] = "fail".into();
    let id = play.notify(&body);
    play.wait_for(&id, &json!({"accepted": 3, "failed": 4}));
    let shown = play.show(&id);
    let of = |token: &str| {
        let deliveries = shown["deliveries"].as_array().expect("a list").iter();
        let name = format!("ios-{token}");
        let mut those = deliveries.filter(|it| it["device_id"] == *name);
        those.next().expect("its delivery").clone()
    };
    assert_eq!(of("dead00")["reason"], "Unregistered");
    assert_eq!(of("bad000")["reason"], "BadDeviceToken");
    assert_eq!(of("b19000")["reason"], "PayloadTooLarge");
    assert_eq!(of("ccc000")["reason"], "nobody knows whether it was sent");
    assert_eq!(of("429000")["attempts"], 2);
    assert_eq!(
        of("ddd000")["attempts"],
        1,
        "what was refused is no attempt"
    );
    let state = |token: &str| play.device(&format!("ios-{token}"))["is_active"].clone();
    assert_eq!(state("dead00"), false);
    assert_eq!(state("bad000"), true, "one answer is no proof");
    let id = play.notify(&to_iphones());
    play.wait_for(&id, &json!({"accepted": 4, "failed": 2}));
    for (name, count) in [
        ("push_token_dead", 1),
        ("push_token_suspect", 2),
        ("push_bad_request", 2),
        ("push_retry_after", 1),
        ("push_never_sent", 1),
        ("push_unknown", 1),
        ("push_retired", 1),
    ] {
        assert_eq!(play.counter(name), count, "{name}");
    }
}

#[test]
fn ten_thousand_arrive_once_though_connections_end_and_streams_are_refused() {
    let rules = [
        "every=3001 goaway=Shutdown",
        "every=97 reset=REFUSED_STREAM",
    ];
    let apns = Provider::start("apns", &rules);
    let play = Play::new(&[&apns]);
    play.register("ios", (0..10_000).map(token), "");
    let id = play.notify(&to_iphones());
    play.wait_for(&id, &json!({"accepted": 10_000}));
    assert_eq!(play.counter("push_unknown"), 0);
    wait_until("the mock has told all", || apns.count(200) >= 10_000);
    let told = apns.told();
    let accepted = told.iter().filter(|it| it["answer"]["status"] == 200);
    let mut tokens: Vec<&str> = accepted.filter_map(|it| it["token"].as_str()).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!((tokens.len(), apns.count(200)), (10_000, 10_000));
    assert!(play.counter("push_never_sent") > 50);
}

#[test]
fn a_provider_that_is_down_costs_time_and_nothing_else() {
    let mut apns = Provider::start("apns", &[]);
    let play = Play::new(&[&apns]);
    play.register("ios", (0..50).map(token), "");
    apns.stop();
    let id = play.notify(&to_iphones());
    wait_until("it cannot be reached", || {
        play.server.stderr().contains("cannot be reached")
    });
    assert_eq!(play.show(&id)["counts"], json!({"queued": 50}));
    apns.restart(&["nth=1-3 answer=503"]);
    play.wait_for(&id, &json!({"accepted": 50}));
}

#[test]
fn a_refused_credential_stops_its_app_and_a_reload_with_another_goes_on() {
    let apns = Provider::start("apns", &["--team-id MOCKTEAM01"]);
    let broken = toml(&[&apns]).replace("MOCKTEAM01", "OTHERTEAM1");
    let play = Play {
        server: Server::start_in(Place::new(&broken)),
    };
    play.register("ios", (0..20).map(token), "");
    let id = play.notify(&to_iphones());
    wait_until("the credential is refused", || {
        play.server.stderr().contains("refuses the credential")
    });
    let shown = play.show(&id);
    assert_eq!(shown["counts"], json!({"queued": 20}));
    assert_eq!(shown["deliveries"][0]["attempts"], 0);
    play.server.place.configure(&toml(&[&apns]));
    let reloaded = play.server.place.run(&["reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    play.wait_for(&id, &json!({"accepted": 20}));
}

#[test]
fn whoever_is_killed_nothing_accepted_is_lost_and_what_may_come_twice_is_counted() {
    let apns = Provider::start("apns", &["every=7 delay=20ms"]);
    let mut play = Play::new(&[&apns]);
    const DEVICES: usize = 300;
    play.register("ios", (0..DEVICES).map(token), "");
    let mut ids = Vec::new();
    for round in 0..crash_rounds(24) as u64 {
        ids.push(play.notify_whoever_dies(&to_iphones(), round));
        std::thread::sleep(Duration::from_millis(20 + (round * 37) % 230));
        if round % 6 == 5 {
            play = Play {
                server: play.server.restart(),
            };
        } else {
            play.kill_courier();
        }
        play.wait_for_courier();
    }
    for id in &ids {
        play.wait_for(id, &json!({"accepted": DEVICES}));
        let (_, shown) = play.call("GET", &format!("notifications/{id}?limit=1000"), "");
        assert_eq!(shown["counts"]["accepted"], DEVICES);
    }
    let store = play.server.place.path().join("store/lineman.db");
    let store = rusqlite::Connection::open(store).expect("the store");
    let sum = "SELECT sum(uncertain) FROM deliveries";
    let uncertain: i64 = store.query_row(sum, [], |row| row.get(0)).expect("a sum");
    let accepted = DEVICES * ids.len();
    wait_until("the mock has told all", || apns.count(200) >= accepted);
    let twice = apns.count(200) - accepted;
    assert!(
        twice as i64 <= uncertain,
        "{twice} came twice, and {uncertain} are counted as uncertain"
    );
}

/// As the command line takes a credential for Apple, of this team.
fn fields_of(apns: &Provider, team: &str) -> Vec<String> {
    let told = |name: &str| apns.ready[name].as_str().expect("it is told").to_string();
    [
        ("kind", "apns-token".to_string()),
        ("key", format!("@{}", told("key"))),
        ("key_id", told("key_id")),
        ("team_id", team.to_string()),
        ("bundle", "org.example.app".to_string()),
        ("base_url", apns.url().to_string()),
        ("ca_file", apns.ca().display().to_string()),
    ]
    .map(|(name, value)| format!("{name}={value}"))
    .into()
}

impl Play {
    fn credentials(&self, words: &[&str], fields: &[String]) -> (Option<i32>, String) {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let verb = [&["credentials"], words, &fields[..]].concat();
        let output = self.server.place.run(&verb);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    }
}

#[test]
fn a_credential_that_is_put_is_used_at_once_and_what_the_former_has_sent_is_answered() {
    let apns = Provider::start("apns", &["--team-id MOCKTEAM01", "every=1 delay=300ms"]);
    let play = Play::new(&[]);
    play.register("ios", (0..40).map(token), "");
    let id = play.notify(&to_iphones());
    let put = |team: &str| play.credentials(&["put", "main"], &fields_of(&apns, team));
    assert_eq!(
        put("OTHERTEAM1"),
        (Some(0), "in use for apns, apns-channel\n".into())
    );
    wait_until("the credential is refused", || {
        play.server.stderr().contains("refuses the credential")
    });
    let courier = pid_of(processes(&play.server.status(), "courier")[0]);
    assert_eq!(put("MOCKTEAM01").0, Some(0));
    play.wait_for(&id, &json!({"accepted": 40}));
    // Another one while the answers to what was sent with it are under way.
    let asked = play.counter("push_apns");
    let id = play.notify(&to_iphones());
    wait_until("all are under way", || {
        play.counter("push_apns") >= asked + 40
    });
    let mut other = fields_of(&apns, "MOCKTEAM01");
    other.push("environment=production".into());
    assert_eq!(play.credentials(&["put", "main"], &other).0, Some(0));
    play.wait_for(&id, &json!({"accepted": 40}));
    assert_eq!(apns.count(200), 80, "none was sent twice");
    wait_until("the former's connections have ended", || {
        play.counter("push_connections") == 0
    });
    let id = play.notify(&to_iphones());
    play.wait_for(&id, &json!({"accepted": 40}));
    let status = play.server.status();
    assert_eq!(
        pid_of(processes(&status, "courier")[0]),
        courier,
        "nothing was started anew"
    );
    // It is kept, and sealed.
    play.server.kill(courier, libc::SIGKILL);
    wait_until("there is another courier", || {
        play.call("GET", "credentials", "").0 == 200
    });
    let id = play.notify(&to_iphones());
    play.wait_for(&id, &json!({"accepted": 40}));
    let key = apns.ready["key"].as_str().expect("a key");
    assert!(!is_in_clear(&play, key));
    assert_eq!(
        play.credentials(&["remove", "main"], &[]),
        (Some(0), "removed\n".into())
    );
    let id = play.notify(&to_iphones());
    assert_eq!(play.show(&id)["counts"], json!({"queued": 40}));
    for done in ["put", "removed"] {
        let said = format!("credential {done} app=demo key=operator credential=main");
        play.server.wait_for_log(&said);
    }
}

/// Whether a line of a key in a file is in the log or in what is stored.
fn is_in_clear(play: &Play, key: &str) -> bool {
    let key = std::fs::read_to_string(key).expect("a key");
    let secret = key.lines().nth(1).expect("a line of it").as_bytes();
    let stored = ["lineman.db", "lineman.db-wal"].map(|name| {
        let path = play.server.place.path().join("store").join(name);
        std::fs::read(path).unwrap_or_default()
    });
    assert!(!stored.concat().is_empty(), "something is stored");
    let all = [stored.concat(), play.server.stderr().into_bytes()].concat();
    all.windows(secret.len()).any(|it| it == secret)
}

fn with_hook(toml: &str, receiver: &Receiver) -> String {
    let words = r#"["notification_delivered", "notification_failed", "device_removed"]"#;
    let hook = format!(
        "[[apps.webhooks]]\nurl = \"{}\"\nevents = {words}\nretry_seconds = 600\n\
         [webhooks]\nallow_private = true\n",
        receiver.url()
    );
    toml.replace("[push]", &format!("{hook}[push]"))
}

fn delivered(id: &str) -> Value {
    json!({
        "name": "notification_delivered", "channel": "#server-to-user-u", "notification_id": id,
        "device_id": "ios-00aa", "user_id": "u",
    })
}

fn failed(id: &str) -> Value {
    json!({
        "name": "notification_failed", "channel": "#devices", "notification_id": id,
        "device_id": "ios-dead00", "reason": "Unregistered",
    })
}

fn removed() -> Value {
    json!({
        "name": "device_removed", "channel": "#devices", "device_id": "ios-dead00", "reason": "gone",
    })
}

#[test]
fn webhooks_are_told_what_becomes_of_notifications_and_devices_though_the_courier_is_killed() {
    let receiver = Receiver::start();
    let apns = Provider::start(
        "apns",
        &["token=dead* answer=Unregistered", "nth=1 answer=503"],
    );
    let play = Play {
        server: Server::start_in(Place::new(&with_hook(&toml(&[&apns]), &receiver))),
    };
    receiver.behave(Manner::Status(500));
    play.register("ios", ["00aa".to_string()].into_iter(), r#","user_id":"u""#);
    play.register("ios", ["dead00".to_string()].into_iter(), "");
    let id = play.notify(&to_iphones());
    play.wait_for(&id, &json!({"accepted": 1, "failed": 1}));
    play.kill_courier();
    play.wait_for_courier();
    receiver.behave(Manner::Fine);
    let mut told = Vec::new();
    wait_until("all is told", || {
        told = receiver.distinct_events();
        told.len() == 3
    });
    let about = |name: &str| {
        let mut those = told.iter().filter(|it| it["name"] == name);
        those
            .next()
            .unwrap_or_else(|| panic!("no {name}: {told:?}"))
    };
    assert_eq!(*about("notification_delivered"), delivered(&id));
    assert_eq!(*about("notification_failed"), failed(&id));
    assert_eq!(*about("device_removed"), removed());
    let shown = play.show(&id);
    let timeline = shown["timeline"].as_array().expect("a list");
    let tried = timeline.iter().find(|it| it["event"] == "attempt failed");
    let tried = tried.unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(
        (&tried["attempt"], &tried["at_ms"].is_u64()),
        (&json!(1), &true)
    );
    let store = play.server.place.path().join("store/lineman.db");
    let store = rusqlite::Connection::open(store).expect("the store");
    let left = || store.query_row("SELECT count(*) FROM news", [], |row| row.get::<_, i64>(0));
    wait_until("what is told is forgotten", || {
        left().is_ok_and(|it| it == 0)
    });
}

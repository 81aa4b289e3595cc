//! The registry of devices in the real binary: registered, found, changed and removed over HTTP and
//! from the command line, whoever dies; token keys that fit and that do not; rotation.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::requests::{self, answer};
use support::{DEMO, PUSH, Place, Server, pid_of, processes, wait_until};

const BEARER: &str = "Authorization: Bearer demo-secret\r\n";

fn config(rest: &str) -> String {
    format!("workers = 2\n{DEMO}{PUSH}{rest}")
}

fn call(address: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let path = format!("/apps/demo/devices{path}");
    let (status, body) = answer(address, method, &path, BEARER, body);
    let read = serde_json::from_str(&body);
    (status, read.unwrap_or_else(|_| panic!("no JSON: {body}")))
}

/// Again while the courier is away.
fn call_until_there(address: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut done = (503, Value::Null);
    wait_until("the courier answers", || {
        done = call(address, method, path, body);
        done.0 != 503
    });
    done
}

fn android(id: &str, token: &str, rest: &Value) -> String {
    let mut device = json!({"device_id": id, "platform": "android", "token": token});
    let more = rest.as_object().expect("an object").clone();
    device.as_object_mut().expect("an object").extend(more);
    device.to_string()
}

/// A token that can be searched for.
fn token(name: &str) -> String {
    format!("{name}:APA91b-a-token-that-nobody-may-see")
}

fn courier(server: &Server) -> u32 {
    let status = server.status();
    pid_of(processes(&status, "courier")[0])
}

fn kill_courier(server: &Server) {
    let before = courier(server);
    server.kill(before, 9);
    wait_until("there is another courier", || {
        let status = server.status();
        status["state"] == "running" && courier(server) != before
    });
}

/// The ids of a list, page by page.
fn listed(address: &str, query: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = String::new();
    loop {
        let (status, page) = call(address, "GET", &format!("?limit=2{query}{after}"), "");
        assert_eq!(status, 200, "{page}");
        let devices = page["devices"].as_array().expect("a list");
        assert!(devices.len() <= 2);
        let names = devices
            .iter()
            .map(|it| it["device_id"].as_str().expect("an id"));
        ids.extend(names.map(str::to_string));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => {
                ids.sort();
                return ids;
            }
        }
    }
}

fn holds(path: &Path, text: &str) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[test]
fn a_device_registers_changes_and_goes() {
    let server = Server::start(&config(""));
    let address = server.address(0);
    let rest = json!({"user_id": "u1", "topics": ["news"], "metadata": {"v": 1}});
    let (status, device) = call(&address, "POST", "", &android("d1", &token("one"), &rest));
    assert_eq!(status, 201, "{device}");
    assert_eq!(
        (&device["user_id"], &device["is_active"]),
        (&json!("u1"), &json!(true))
    );
    assert_eq!(call(&address, "GET", "/d1", ""), (200, device.clone()));
    // The same once more is the same device, with what it left out.
    let (status, again) = call(
        &address,
        "POST",
        "",
        &android("d1", &token("one"), &json!({})),
    );
    assert_eq!((status, &again["id"]), (200, &device["id"]));
    assert_eq!(again["topics"], json!(["news"]));
    let change = json!({"token": token("two"), "user_id": null, "locale": "de_AT"}).to_string();
    let (status, changed) = call(&address, "PATCH", "/d1", &change);
    assert_eq!(
        (status, &changed["locale"]),
        (200, &json!("de-AT")),
        "{changed}"
    );
    assert_eq!(changed["user_id"], Value::Null);
    let (_, changed) = call(&address, "PUT", "/d1/topics/sports", "");
    assert_eq!(changed["topics"], json!(["news", "sports"]));
    let (_, changed) = call(&address, "DELETE", "/d1/topics/news", "");
    assert_eq!(changed["topics"], json!(["sports"]));
    assert_eq!(call(&address, "DELETE", "/d1", ""), (200, json!({})));
    for (method, path) in [("GET", "/d1"), ("DELETE", "/d1"), ("PATCH", "/d1")] {
        assert_eq!(call(&address, method, path, "{}").0, 404, "{method}");
    }
    assert!(!server.stderr().contains("APA91b"), "no token in the log");
    server.wait_for_log("device registered");
}

#[test]
fn what_is_wrong_is_told_with_its_field_and_without_what_stood_there() {
    let limits = "[limits]\ndevices_per_app = 4\ndevices_per_user = 1\n";
    let server = Server::start(&config(limits));
    let address = server.address(0);
    let secret = token("secret");
    for (body, why) in [
        (
            json!({"platform": "android", "token": secret}),
            "device_id is missing",
        ),
        (
            json!({"device_id": "d", "platform": secret, "token": secret}),
            "platform is none of",
        ),
        (
            json!({"device_id": "d", "platform": "ios", "token": secret}),
            "token ",
        ),
        (json!([secret]), "no JSON object"),
    ] {
        let (status, answer) = call(&address, "POST", "", &body.to_string());
        let told = answer["error"].as_str().expect("a reason");
        assert!(status == 400 && told.contains(why), "{status} {told}");
        assert!(!told.contains("APA91b"), "{told}");
    }
    for query in ["?limit=0", "?platform=tv", "?active=perhaps", "?user=u"] {
        assert_eq!(call(&address, "GET", query, "").0, 400, "{query}");
    }
    for (method, path) in [("PUT", ""), ("PUT", "/d"), ("GET", "/d/topics/t")] {
        assert_eq!(call(&address, method, path, "{}").0, 405, "{method} {path}");
    }
    assert_eq!(call(&address, "GET", "/d/e/f/g", "").0, 404);
    assert_eq!(call(&address, "PUT", "/d/topics/a%20b", "").0, 400);
    let register = |id: &str, user: &str| {
        let rest = json!({"user_id": user});
        call(&address, "POST", "", &android(id, &token(id), &rest))
    };
    assert_eq!(register("d1", "u1").0, 201);
    let (status, answer) = register("d2", "u1");
    assert_eq!(
        (status, answer["error"].as_str()),
        (409, Some("The user has 1 devices already"))
    );
    assert_eq!(register("d1", "u1").0, 200, "it counts once");
    for (id, user) in [("d2", "u2"), ("d3", "u3"), ("d4", "u4")] {
        assert_eq!(register(id, user).0, 201);
    }
    assert_eq!(register("d5", "u5").0, 409);
    assert_eq!(call(&address, "DELETE", "/d4", "").0, 200);
    assert_eq!(register("d5", "u5").0, 201);
    let change = json!({"user_id": "u1"}).to_string();
    assert_eq!(call(&address, "PATCH", "/d5", &change).0, 409);
    // Nobody in particular.
    let (status, _) = requests::answer(&address, "GET", "/apps/demo/devices", "", "");
    assert_eq!(status, 401);
}

#[test]
fn a_token_is_of_one_device_and_devices_are_found_by_user_topic_and_platform() {
    let server = Server::start(&config(""));
    let address = server.address(0);
    let register = |id: &str, name: &str, rest: Value| {
        let (status, answer) = call(&address, "POST", "", &android(id, &token(name), &rest));
        assert!(status < 300, "{answer}");
    };
    for n in 0..5 {
        let rest = json!({"user_id": format!("u{}", n % 2), "topics": ["all", format!("t{n}")]});
        register(&format!("d{n}"), &format!("token{n}"), rest);
    }
    let web = json!({"device_id": "w", "platform": "web", "service": "fcm", "token": token("w")});
    assert_eq!(call(&address, "POST", "", &web.to_string()).0, 201);
    // Somebody else signs in on the phone with another installation of the app.
    register("d5", "token0", json!({"user_id": "u9"}));
    let (_, replaced) = call(&address, "GET", "/d0", "");
    assert_eq!(replaced["inactive_reason"], "replaced");
    assert_eq!(
        listed(&address, ""),
        ["d0", "d1", "d2", "d3", "d4", "d5", "w"]
    );
    assert_eq!(
        listed(&address, "&active=true"),
        ["d1", "d2", "d3", "d4", "d5", "w"]
    );
    assert_eq!(listed(&address, "&user_id=u0"), ["d0", "d2", "d4"]);
    assert_eq!(
        listed(&address, "&topic=all"),
        ["d0", "d1", "d2", "d3", "d4"]
    );
    assert_eq!(listed(&address, "&topic=t3"), ["d3"]);
    assert_eq!(listed(&address, "&topic=all&user_id=u1"), ["d1", "d3"]);
    assert_eq!(listed(&address, "&platform=web"), ["w"]);
    assert_eq!(listed(&address, "&user_id=nobody"), [""; 0]);
    // The first one comes back, with a token of its own.
    register("d0", "token-new", json!({}));
    assert_eq!(
        listed(&address, "&active=true&user_id=u0"),
        ["d0", "d2", "d4"]
    );
    let (status, removed) = call(&address, "DELETE", "?user_id=u0", "");
    assert_eq!((status, removed), (200, json!({"removed": 3})));
    assert_eq!(call(&address, "DELETE", "", "").0, 400, "never all of them");
    assert_eq!(listed(&address, ""), ["d1", "d3", "d5", "w"]);
}

#[test]
fn what_was_answered_survives_a_kill_and_no_token_stands_in_the_file() {
    let place = Place::new(&config("[store]\ndir = \"store\"\n"));
    let server = Server::start_in(place);
    let address = server.address(0);
    for round in 0..3 {
        for n in 0..5 {
            let id = format!("d{round}-{n}");
            let rest = json!({"user_id": "u", "topics": ["t"]});
            let (status, answer) =
                call_until_there(&address, "POST", "", &android(&id, &token(&id), &rest));
            assert_eq!(status, 201, "{answer}");
        }
        kill_courier(&server);
    }
    wait_until("the courier answers", || {
        call(&address, "GET", "", "").0 == 200
    });
    assert_eq!(listed(&address, "&user_id=u&topic=t").len(), 15);
    let dir = server.place.path().join("store");
    let files = ["lineman.db", "lineman.db-wal"].map(|name| dir.join(name));
    let found = |text: &str| files.iter().any(|file| holds(file, text));
    assert!(found("d2-4"), "the search finds what is there");
    assert!(!found("APA91b"), "no token in clear");
    assert!(!server.stderr().contains("APA91b"));
}

/// With a former key, or as the only one, each in a file of its own.
fn keyed(place: &Place, current: &str, former: &[&str]) {
    let mut text = String::new();
    for (place_of, id) in std::iter::once(&current).chain(former).enumerate() {
        let heading = if place_of == 0 {
            "[push]"
        } else {
            "[[push.former_keys]]"
        };
        text.push_str(&format!(
            "{heading}\ntoken_key = {{ file = \"{id}.key\" }}\ntoken_key_id = \"{id}\"\n"
        ));
        let path = place.path().join(format!("{id}.key"));
        if !path.exists() {
            let key = place.run(&["keys", "generate"]);
            std::fs::write(path, key.stdout).expect("a key");
        }
    }
    place.configure(&format!(
        "workers = 1\n{DEMO}[store]\ndir = \"store\"\n{text}"
    ));
}

fn words(output: &std::process::Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_start_with_a_wrong_or_missing_key_ends_with_a_reason() {
    let place = Place::new("");
    keyed(&place, "a", &[]);
    let mut server = Server::start_in(place);
    let (status, _) = call(
        &server.address(0),
        "POST",
        "",
        &android("d", &token("d"), &json!({})),
    );
    assert_eq!(status, 201);
    server.kill(server.pid(), 15);
    server.wait();
    let place = &server.place;
    let failing = |code: i32, told: &str| {
        for verb in [&["start"][..], &["start", "-d"]] {
            let output = place.run(verb);
            assert_eq!(output.status.code(), Some(code), "{}", words(&output));
            assert!(words(&output).contains(told), "{}", words(&output));
            assert!(place.status().is_none());
        }
    };
    let good = std::fs::read(place.path().join("a.key")).expect("the key");
    let other = place.run(&["keys", "generate"]).stdout;
    std::fs::write(place.path().join("a.key"), &other).expect("another key");
    failing(
        6,
        "the token key a is not the one that encrypted the tokens",
    );
    std::fs::write(place.path().join("a.key"), "too short").expect("no key");
    failing(6, "the key is not base64");
    assert_eq!(place.run(&["check"]).status.code(), Some(6));
    std::fs::write(place.path().join("a.key"), &good).expect("the first key");
    keyed(place, "b", &[]);
    failing(
        6,
        "tokens are kept that need the token key a, which is not configured",
    );
    keyed(place, "b", &["a"]);
    let daemon = place.run(&["start", "-d"]);
    assert_eq!(daemon.status.code(), Some(0), "{}", words(&daemon));
    let status = place.status().expect("it runs");
    let url = status["listen"][0]["url"]
        .as_str()
        .expect("a URL")
        .to_string();
    let address = url.strip_prefix("http://").expect("a scheme");
    // A reload with keys that do not fit is given up, and the server goes on with those it had.
    keyed(place, "c", &[]);
    let reload = place.run(&["reload"]);
    assert_eq!(reload.status.code(), Some(1), "{}", words(&reload));
    assert!(
        words(&reload).contains("needs the token key a")
            || words(&reload).contains("need the token key a"),
        "{}",
        words(&reload)
    );
    assert_eq!(call_until_there(address, "GET", "/d", "").0, 200);
}

/// Puts, or asks for, one that a rotation has to seal anew, too.
fn credential(server: &Server, method: &str) -> (u16, Value) {
    let browsers = json!({"kind": "webpush", "contact": "mailto:a@b.example",
                          "key": "a2V5cyBmb3IgdGVzdHMgaGF2ZSAzMiBieXRlcy4uLi4="});
    let path = "/apps/demo/credentials/browsers";
    let (status, body) = answer(
        &server.address(0),
        method,
        path,
        BEARER,
        &browsers.to_string(),
    );
    (status, serde_json::from_str(&body).unwrap_or_default())
}

#[test]
fn keys_rotate_under_traffic_whoever_dies_until_the_former_one_is_not_needed() {
    let place = Place::new("");
    keyed(&place, "a", &[]);
    let server = Server::start_in(place);
    let lines: String = (0..3_000)
        .map(|n| android(&format!("d{n}"), &token(&format!("t{n}")), &json!({})) + "\n")
        .collect();
    let file = server.place.path().join("devices.ndjson");
    std::fs::write(&file, lines).expect("a file");
    let import = server
        .place
        .run(&["devices", "import", file.to_str().expect("UTF-8")]);
    assert!(
        words(&import).contains("3000 registered, 0 refused"),
        "{}",
        words(&import)
    );
    assert_eq!(credential(&server, "PUT").0, 201);
    keyed(&server.place, "b", &["a"]);
    let reload = server.place.run(&["reload"]);
    assert_eq!(reload.status.code(), Some(0), "{}", words(&reload));
    let tokens = |key: &str| {
        let status = server.place.run(&["keys", "status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        let keys = status["keys"].as_array()?;
        keys.iter().find(|it| it["id"] == key)?["tokens"].as_u64()
    };
    assert_eq!((tokens("a"), tokens("b")), (Some(3_000), Some(0)));
    let address = server.address(0);
    let mut rotate = server.place.command(&["keys", "rotate"]);
    let mut rotate = rotate.spawn().expect("the program runs");
    wait_until("some are rotated", || {
        tokens("b").is_some_and(|count| count > 0)
    });
    kill_courier(&server);
    // Registrations go on meanwhile: one moves a token to another device, the others are new.
    for n in 0..20 {
        let body = android(&format!("e{n}"), &token(&format!("t{n}")), &json!({}));
        assert_eq!(call_until_there(&address, "POST", "", &body).0, 201);
    }
    assert_eq!(rotate.wait().expect("it ends").code(), Some(0));
    wait_until("all are rotated", || tokens("a") == Some(0));
    assert_eq!(tokens("b"), Some(3_020));
    let (_, moved) = call_until_there(&address, "GET", "/d7", "");
    assert_eq!(moved["inactive_reason"], "replaced");
    keyed(&server.place, "b", &[]);
    let reload = server.place.run(&["reload"]);
    assert_eq!(reload.status.code(), Some(0), "{}", words(&reload));
    let change = json!({"token": token("t8-new")}).to_string();
    assert_eq!(
        call_until_there(&address, "PATCH", "/d2999", &change).0,
        200
    );
    let (status, told) = credential(&server, "GET");
    assert_eq!(
        (status, &told["used_for"]),
        (200, &json!(["webpush"])),
        "{told}"
    );
}

fn says_who_did_what(server: &Server) {
    for said in [
        "devices imported app=demo key=operator registered=500 new=500 refused=0",
        "devices listed app=demo key=operator count=500",
        "device updated app=demo key=operator",
        "device removed app=demo key=operator",
        "all devices of a user removed app=demo key=operator count=1",
    ] {
        server.wait_for_log(said);
    }
    assert!(!server.stderr().contains("APA91b"), "no token in the log");
}

#[test]
fn devices_go_in_and_out_by_files_and_the_operator_needs_no_secret() {
    let server = Server::start(&config(""));
    let path = |name: &str| server.place.path().join(name).display().to_string();
    let mut lines: Vec<String> = (0..10_000)
        .map(|n| {
            let rest = json!({"user_id": format!("u{}", n / 2), "topics": ["all"]});
            android(&format!("d{n}"), &token(&format!("t{n}")), &rest)
        })
        .collect();
    lines[7_000] = json!({"device_id": "wrong", "platform": "android"}).to_string();
    std::fs::write(path("in"), lines.join("\n")).expect("a file");
    let run = |verb: &[&str]| server.place.run(verb);
    let import = run(&["devices", "import", &path("in")]);
    assert_eq!(import.status.code(), Some(1), "{}", words(&import));
    let told = words(&import);
    assert!(told.contains("9999 registered, 1 refused"), "{told}");
    assert!(told.contains("line 7001: token is missing"), "{told}");
    let again = run(&["devices", "import", &path("in"), "--from", "9990"]);
    assert!(
        words(&again).contains("11 registered, 0 refused"),
        "{}",
        words(&again)
    );
    let export = run(&["devices", "export", &path("out")]);
    assert_eq!(export.status.code(), Some(0), "{}", words(&export));
    let whole = std::fs::read_to_string(path("out")).expect("an export");
    assert_eq!(whole.lines().count(), 9_999);
    assert!(whole.contains("\"d9999\"") && !whole.contains("APA91b"));
    // Interrupted in the middle of a line, it goes on.
    std::fs::write(path("out"), &whole[..whole.len() / 2]).expect("half of it");
    assert_eq!(
        run(&["devices", "export", &path("out"), "--resume"])
            .status
            .code(),
        Some(0)
    );
    assert_eq!(
        std::fs::read_to_string(path("out")).expect("an export"),
        whole
    );
    let list = words(&run(&["devices", "list", "--user", "u1"]));
    assert!(
        list.contains(" d2\n") && list.contains(" d3\n") && !list.contains(" d4\n"),
        "{list}"
    );
    let topics = run(&["devices", "topics", "d2", "--add", "new", "--remove", "all"]);
    assert_eq!(words(&topics), "new\n");
    let show: Value =
        serde_json::from_slice(&run(&["devices", "show", "d2", "--json"]).stdout).expect("JSON");
    assert_eq!(show["topics"], json!(["new"]));
    assert_eq!(words(&run(&["devices", "remove", "d2"])), "removed\n");
    assert_eq!(
        words(&run(&["devices", "remove", "--user", "u1"])),
        "1 removed\n"
    );
    let gone = run(&["devices", "show", "d2"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(words(&gone).contains("There is no such device"));
    says_who_did_what(&server);
}

#[test]
fn what_expires_is_retired_by_upkeep_and_removed_when_its_time_is_up() {
    let place = Place::new("");
    place.configure(&config(
        "keep_inactive_days = 0\n[store]\ndir = \"store\"\n\
         [[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"metrics\"\n",
    ));
    let server = Server::start_in(place);
    let address = server.address(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let soon = now.expect("a clock").as_secs() + 2;
    let week = json!({"token_expires_at": soon + 3 * 86_400, "user_id": "far",
                      "location": {"latitude": 48.2, "longitude": 16.4}});
    assert_eq!(
        call(&address, "POST", "", &android("f", &token("f"), &week)).0,
        201
    );
    let rest = json!({"token_expires_at": soon});
    assert_eq!(
        call(&address, "POST", "", &android("d", &token("d"), &rest)).0,
        201
    );
    assert_eq!(
        call(&address, "POST", "", &android("e", &token("e"), &json!({}))).0,
        201
    );
    // Upkeep comes with each start, too: it retires what has expired, and removes at once.
    wait_until("the device is gone", || {
        kill_courier(&server);
        call_until_there(&address, "GET", "/d", "").0 == 404
    });
    assert_eq!(call_until_there(&address, "GET", "/e", "").0, 200);
    let numbers = server.address(1);
    wait_until("devices are counted", || {
        let page = answer(&numbers, "GET", "/metrics", "", "").1;
        [
            "lineman_devices{state=\"active\"} 2",
            "lineman_devices_expiring 1",
            "lineman_devices_overdue 0",
            "lineman_devices_located{region=\"europe\"} 1",
            "lineman_devices_located{region=\"asia\"} 0",
        ]
        .iter()
        .all(|line| page.lines().any(|it| it == *line))
    });
    let europe = "lineman_device_registrations_located_total{region=\"europe\"} ";
    let count = || {
        let page = answer(&numbers, "GET", "/metrics", "", "").1;
        let line = page
            .lines()
            .find_map(|it| it.strip_prefix(europe))
            .map(str::to_owned);
        line.map_or(0, |it| it.parse().expect("a number"))
    };
    let before: u64 = count();
    assert_eq!(
        call(&address, "POST", "", &android("f", &token("f"), &week)).0,
        200
    );
    wait_until("it is counted", || count() == before + 1);
}

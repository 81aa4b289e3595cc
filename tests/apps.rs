//! Apps with several keys, on the real program with two workers: what each key may do, how keys are
//! replaced, how often events may be published, requests that are good for one time, and what the
//! log says of those who were not let in; credentials for push providers that apps are given.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use lineman::wire::sign::sign;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use support::{DEMO, PATIENCE, PUSH, Server, processes, requests, wait_until};

const BODY: &str = r#"{"name":"n","channel":"news","data":"1"}"#;

/// Two workers, and an app with these keys in its table. Clients of a worker that is replaced have a day: one
/// that is to stay must not have its turn by chance.
fn start(app: &str) -> Server {
    Server::start(&config(app))
}

fn config(app: &str) -> String {
    format!(
        "workers = 2\ndrain_seconds = 86400\n[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"channels\"\n\
         [[apps]]\nid = \"demo\"\n{app}"
    )
}

fn key(name: &str, rest: &str) -> String {
    format!("[[apps.keys]]\nkey = \"{name}-key\"\nsecret = \"{name}-secret\"\n{rest}")
}

/// One request on a connection of its own, so that either worker may get it: status and answer.
fn call(server: &Server, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.address(0)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = body.len();
    let request =
        format!("{head}Host: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.expect("a status"), answer)
}

fn with_token(server: &Server, method: &str, path: &str, secret: &str, body: &str) -> u16 {
    let head = format!("{method} /apps/demo/{path} HTTP/1.1\r\nAuthorization: Bearer {secret}\r\n");
    call(server, &head, body).0
}

fn publish(server: &Server, secret: &str) -> u16 {
    with_token(server, "POST", "events", secret, BODY)
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is later").as_secs()
}

/// A publishing request as an SDK signs it.
fn signed(name: &str, timestamp: u64) -> String {
    let md5 = HEXLOWER.encode(&Md5::digest(BODY));
    let query =
        format!("auth_key={name}-key&auth_timestamp={timestamp}&auth_version=1.0&body_md5={md5}");
    let text = format!("POST\n/apps/demo/events\n{query}");
    let signature = sign(&format!("{name}-secret"), &text);
    format!("POST /apps/demo/events?{query}&auth_signature={signature} HTTP/1.1\r\n")
}

fn counter(server: &Server, role: &str, name: &str) -> u64 {
    let status = server.status();
    let processes = processes(&status, role);
    let counts = processes.iter().map(|one| one["counters"][name].as_u64());
    counts.map(|count| count.expect("a counter")).sum()
}

#[test]
fn a_key_may_do_what_its_roles_say() {
    let keys = key("all", "")
        + &key("pub", "roles = [\"publish\"]\n")
        + &key("read", "roles = [\"read\"]\n")
        + &key("adm", "roles = [\"admin\"]\n");
    let server = start(&keys);
    let calls = [
        ("POST", "events", BODY),
        ("GET", "channels", ""),
        ("POST", "users/ann/terminate_connections", "{}"),
    ];
    for (name, expected) in [
        ("all", [200, 200, 200]),
        ("pub", [200, 403, 403]),
        ("read", [403, 200, 403]),
        ("adm", [403, 403, 200]),
        ("none", [401, 401, 401]),
    ] {
        let secret = format!("{name}-secret");
        let got =
            calls.map(|(method, path, body)| with_token(&server, method, path, &secret, body));
        assert_eq!(got, expected, "{name}");
    }
    // What a signature shows, a signature shows for its own key.
    assert_eq!(call(&server, &signed("pub", now()), BODY).0, 200);
    assert_eq!(call(&server, &signed("read", now()), BODY).0, 403);
    let other = signed("pub", now()).replace("pub-key", "all-key");
    assert_eq!(call(&server, &other, BODY).0, 401);
    let changed = BODY.replace('1', "2");
    assert_eq!(call(&server, &signed("pub", now()), &changed).0, 401);
    assert_eq!(counter(&server, "worker", "calls_forbidden"), 7);
    assert_eq!(counter(&server, "worker", "calls_unauthorised"), 5);
}

#[test]
fn a_key_is_replaced_while_clients_stay() {
    let server = start(&key("old", ""));
    let url = format!("ws://{}/app/old-key?protocol=7", server.address(0));
    let (mut socket, _) = tungstenite::connect(url).expect("the old key is good");
    let mut hears = |what: &str| {
        while !socket.read().expect("a message").to_string().contains(what) {}
    };
    hears("connection_established");
    let reload = |app: &str| {
        server.place.configure(&config(app));
        let output = server.place.run(&["reload", "-g"]);
        assert!(output.status.success(), "{output:?}");
    };
    reload(&(key("new", "") + &key("old", "")));
    wait_until("both keys are good on both workers", || {
        (0..8).all(|n| publish(&server, ["old-secret", "new-secret"][n % 2]) == 200)
    });
    reload(&key("new", ""));
    wait_until("the old one is refused by both", || {
        (0..8).all(|n| publish(&server, ["old-secret", "new-secret"][n % 2]) == [401, 200][n % 2])
    });
    // The client came with a key that is gone, and is still there.
    socket
        .send(r#"{"event":"pusher:ping","data":{}}"#.into())
        .expect("it is open");
    let pong = socket.read().expect("an answer").to_string();
    assert!(pong.contains("pusher:pong"), "{pong}");
}

#[test]
fn events_have_a_rate_for_the_app_and_for_each_key_over_all_workers() {
    let keys = String::from("publishes_per_second = 6\n")
        + &key("some", "publishes_per_second = 2\n")
        + &key("more", "");
    let server = start(&keys);
    let taken = |secret: &str| (0..12).filter(|_| publish(&server, secret) == 200).count();
    let few = taken("some-secret");
    let others = taken("more-secret");
    // A second or two may have gone by.
    assert!((2..=6).contains(&few), "{few} with a rate of 2");
    assert!((3..=12).contains(&others), "{others} of the rest of 6");
    assert!(few + others < 24, "somebody was refused");
    let refused = (0..50).find_map(|_| {
        let head = "POST /apps/demo/events HTTP/1.1\r\nAuthorization: Bearer some-secret\r\n";
        let (status, answer) = call(&server, head, BODY);
        (status == 429).then_some(answer)
    });
    let refused = refused.expect("fifty are too many");
    assert!(refused.contains("Retry-After: 1\r\n"), "{refused}");
    assert!(counter(&server, "worker", "calls_limited") > 0);
    wait_until("it is let in again", || {
        publish(&server, "some-secret") == 200
    });
}

#[test]
fn with_the_guard_a_signed_request_is_good_for_one_time_on_all_workers() {
    let server = start(&format!("replay_guard = true\n{}", key("a", "")));
    let now = now();
    for age in 0..6 {
        let request = signed("a", now - age);
        let answers: Vec<u16> = (0..6).map(|_| call(&server, &request, BODY).0).collect();
        assert_eq!(answers, [200, 401, 401, 401, 401, 401]);
    }
    assert_eq!(counter(&server, "worker", "calls_repeated"), 30);
    // Reading changes nothing, and a token is no signature.
    for _ in 0..4 {
        assert_eq!(publish(&server, "a-secret"), 200);
    }
    let without = start(&key("a", ""));
    let request = signed("a", now);
    for _ in 0..4 {
        assert_eq!(call(&without, &request, BODY).0, 200);
    }
}

#[test]
fn who_is_not_let_in_is_in_the_log_without_any_secret() {
    let server = start(&key("a", ""));
    let request = signed("a", now()).replace("auth_signature=", "auth_signature=00");
    assert_eq!(call(&server, &request, BODY).0, 401);
    assert_eq!(publish(&server, "guess-1234"), 401);
    // Who takes the one for the other must not find it in the log.
    let mixed = signed("a", now()).replace("auth_key=a-key", "auth_key=a-secret");
    assert_eq!(call(&server, &mixed, BODY).0, 401);
    wait_until("all are in the log", || {
        server.stderr().matches("denied").count() == 3
    });
    let log = server.stderr();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("denied")).collect();
    for line in &lines {
        for part in ["/apps/demo/events", "address=127.0.0.1:"] {
            assert!(line.contains(part), "no {part} in {line}");
        }
    }
    assert!(lines[0].contains("key=a-key") && lines[0].contains("auth_signature does not match"));
    assert!(
        !log.contains("guess-1234") && !log.contains("a-secret"),
        "{log}"
    );
    // A storm, over one connection so that it is one, gets some lines and is counted.
    let mut stream = TcpStream::connect(server.address(0)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let one = "GET /apps/demo/channels HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\n\r\n";
    let sent = std::thread::spawn({
        let mut stream = stream.try_clone().expect("a copy");
        move || stream.write_all(one.repeat(1000).as_bytes())
    });
    let mut answers = String::new();
    while answers.matches("HTTP/1.1 401").count() < 1000 {
        let mut bytes = [0; 65_536];
        let count = stream.read(&mut bytes).expect("answers");
        answers.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
    }
    sent.join().expect("no panic").expect("it is taken");
    let denied = server.stderr().matches("denied").count();
    assert!(denied < 500, "{denied} lines for 1003 attempts");
    assert_eq!(counter(&server, "worker", "calls_unauthorised"), 1003);
}

fn credentials(server: &Server, method: &str, path: &str, body: &str) -> (u16, Value) {
    let path = format!("/apps/demo/credentials{path}");
    let fields = "Authorization: Bearer demo-secret\r\n";
    let (code, body) = requests::answer(&server.address(0), method, &path, fields, body);
    (code, serde_json::from_str(&body).expect("JSON"))
}

fn operator(server: &Server, words: &[&str]) -> (Option<i32>, String) {
    let output = server.place.run(&[&["credentials"], words].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

const VAPID_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=";

/// A credential for browsers as a backend gives it, with one field as it is said.
fn browsers(name: &str, value: &str) -> String {
    let mut body = json!({"kind": "webpush", "key": VAPID_KEY, "contact": "mailto:a@b.example"});
    body[name] = value.into();
    body.to_string()
}

#[test]
fn an_app_puts_credentials_of_its_own_that_go_before_the_configuration_s() {
    let own = "[[apps.webpush]]\nkey = { env = \"LINEMAN_TEST_TOKEN_KEY\" }\n\
               contact = \"mailto:a@b.example\"\n";
    let server = Server::start(&format!("{DEMO}{own}{PUSH}"));
    let call = |method: &str| {
        let body = browsers("kind", "webpush");
        credentials(&server, method, "/browsers", &body)
    };
    let (status, told) = call("PUT");
    assert_eq!((status, &told["source"]), (201, &json!("api")), "{told}");
    assert_eq!(told["used_for"], json!(["webpush"]));
    assert_eq!(told["fingerprint"].as_str().map(str::len), Some(16));
    assert_eq!(call("PUT").0, 200);
    let uses = || {
        let (_, list) = credentials(&server, "GET", "", "");
        assert!(!list.to_string().contains(VAPID_KEY), "{list}");
        let all = list["credentials"].as_array().expect("a list").iter();
        let rows = all.map(|it| json!([it["name"], it["source"], it["used_for"]]));
        Value::from(rows.collect::<Vec<_>>())
    };
    assert_eq!(
        uses(),
        json!([
            ["browsers", "api", ["webpush"]],
            [null, "configuration", []]
        ])
    );
    let said = operator(&server, &["list"]).1;
    assert!(
        said.contains("browsers              webpush           api"),
        "{said}"
    );
    assert_eq!(call("DELETE").0, 200);
    assert_eq!((call("GET").0, call("DELETE").0), (404, 404));
    assert_eq!(uses(), json!([[null, "configuration", ["webpush"]]]));
}

#[test]
fn what_is_wrong_with_a_credential_is_told_and_an_app_says_nothing_about_the_machine() {
    let server = Server::start(&format!("{DEMO}{PUSH}"));
    let put = |name: &str, body: &str| credentials(&server, "PUT", &format!("/{name}"), body);
    assert_eq!(put("browsers", &browsers("kind", "webpush")).0, 201);
    let machine = json!({"kind": "azure-entra", "hub": "h",
                         "namespace": "sb://n.servicebus.windows.net/"});
    for (name, body, status, why) in [
        (
            "b",
            browsers("kind", "webpush"),
            409,
            "for these devices: browsers",
        ),
        (
            "b",
            browsers("ca_file", "/etc/x"),
            400,
            "ca_file: only an operator",
        ),
        ("b", browsers("contact", "nobody"), 400, "contact:"),
        ("b", browsers("key", "tiger"), 400, "key:"),
        ("b", browsers("tiger", "x"), 400, "is nothing of webpush"),
        ("a:b", browsers("kind", "webpush"), 400, "The name is not"),
        ("hub", machine.to_string(), 400, "client_secret"),
        ("x", "[\"tiger\"]".to_string(), 400, "no JSON object"),
    ] {
        let (code, told) = put(name, &body);
        let error = told["error"].as_str().unwrap_or_default();
        assert_eq!(code, status, "{told}");
        assert!(error.contains(why), "{told}");
    }
    assert_eq!(credentials(&server, "POST", "", "{}").0, 405);
    let (code, said) = operator(&server, &["put", "x", "key=tiger"]);
    assert_eq!(code, Some(2), "{said}");
    let hub = [
        "put",
        "hub",
        "kind=azure-entra",
        "hub=h",
        "namespace=sb://n.servicebus.windows.net/",
    ];
    let put = operator(&server, &hub);
    assert_eq!(put.0, Some(0), "an operator may: {}", put.1);
}

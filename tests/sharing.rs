//! Two servers with one PostgreSQL: one register of devices and one queue, whoever is killed meanwhile.
//! Providers are `lineman mock`.

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/provider.rs"]
mod provider;
mod support;
#[path = "support/talker.rs"]
mod talker;

use std::time::Duration;

use postgres::{DATABASE, Postgres};
use provider::Provider;
use serde_json::{Value, json};
use support::{PATIENCE, PUSH, Server, pid_of, processes, requests, wait_until};
use talker::Talker;

fn toml(provider: &Provider, postgres: &Postgres, server: &str) -> String {
    format!(
        "[[listen]]\nurl = \"http://127.0.0.1:0\"\n[[listen]]\nurl = \"text://127.0.0.1:0\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
         {}{PUSH}allow_loopback = true\n{}",
        provider.apns_table(),
        postgres.store(server)
    )
}

fn call(server: &Server, method: &str, path: &str, body: &str) -> (u16, Value) {
    let path = format!("/apps/demo/{path}");
    let fields = "Authorization: Bearer demo-secret\r\n";
    let (code, body) = requests::answer(&server.address(0), method, &path, fields, body);
    (code, serde_json::from_str(&body).unwrap_or_default())
}

/// Until it is accepted; the key makes sure that it is so once.
fn notify(server: &Server, user: usize, key: &str, rest: &Value) -> String {
    let mut body = json!({"to": {"users": [format!("u{user}")]}, "note": {"title": "Hello"},
                          "deliver": "push", "idempotency_key": key});
    for (name, value) in rest.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let mut told = Value::Null;
    wait_until(&format!("{key} is accepted"), || {
        let (code, answer) = call(server, "POST", "notify", &body.to_string());
        told = answer;
        assert!(matches!(code, 202 | 503 | 504), "{code}: {told}");
        code == 202
    });
    told["id"].as_str().expect("an id").to_string()
}

fn register(server: &Server, users: usize) {
    let lines = (0..users).map(|nth| {
        format!(
            r#"{{"device_id":"d{nth}","platform":"ios","token":"{nth:064x}","user_id":"u{nth}"}}"#
        )
    });
    let body = lines.collect::<Vec<_>>().join("\n");
    let (code, told) = call(server, "POST", "devices/import", &body);
    assert_eq!((code, &told["refused"]), (200, &json!([])), "{told}");
}

fn kill_courier(server: &Server) {
    let status = server.status();
    for pid in processes(&status, "courier").into_iter().map(pid_of) {
        server.kill(pid, libc::SIGKILL);
    }
}

fn number(postgres: &Postgres, sql: &str) -> usize {
    let told = postgres.ask(DATABASE, sql);
    told.parse().unwrap_or_else(|_| panic!("{sql}: {told}"))
}

fn wait_for_accepted(postgres: &Postgres, count: usize) {
    let sql = "SELECT count(*) FROM lineman.deliveries WHERE state = 'accepted'";
    let begun = std::time::Instant::now();
    while number(postgres, sql) < count {
        let states = "SELECT state, claimed_by, count(*) FROM lineman.deliveries GROUP BY 1, 2";
        let late = begun.elapsed() > 3 * PATIENCE;
        assert!(!late, "{}", postgres.ask(DATABASE, states));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn two_servers_share_devices_and_a_queue_and_nothing_accepted_is_lost() {
    const USERS: usize = 25;
    const NOTES: usize = 500;
    let apns = Provider::start("apns", &["every=9 delay=20ms"]);
    let mut postgres = Postgres::start();
    let [one, two] = ["one", "two"].map(|it| Server::start(&toml(&apns, &postgres, it)));
    register(&one, USERS);
    let (_, seen) = call(&two, "GET", "devices/d7", "");
    assert_eq!(seen["user_id"], "u7", "one register");
    let mut ids = Vec::new();
    for nth in 0..NOTES {
        match nth {
            150 | 350 => kill_courier(if nth == 150 { &one } else { &two }),
            250 => {
                postgres.kill();
                postgres.run();
            }
            _ => {}
        }
        let server = if nth % 2 == 0 { &one } else { &two };
        ids.push(notify(
            server,
            nth % USERS,
            &format!("note-{nth}"),
            &json!({}),
        ));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), NOTES);
    wait_for_accepted(&postgres, NOTES);
    let all = number(&postgres, "SELECT count(*) FROM lineman.deliveries");
    assert_eq!(all, NOTES, "accepted is settled, and nothing else is there");
    let open = "SELECT count(*) FROM lineman.notifications WHERE state <> 'done'";
    wait_until("all are done", || number(&postgres, open) == 0);
    let uncertain = number(&postgres, "SELECT sum(uncertain) FROM lineman.deliveries");
    wait_until("the mock has told all", || apns.count(200) >= NOTES);
    let twice = apns.count(200) - NOTES;
    assert!(
        twice <= uncertain,
        "{twice} came twice, {uncertain} are uncertain"
    );
    let (code, shown) = call(&two, "GET", &format!("notifications/{}", ids[0]), "");
    assert_eq!((code, &shown["state"]), (200, &json!("done")), "{shown}");
}

#[test]
fn what_a_server_that_is_gone_had_to_do_later_another_does() {
    let apns = Provider::start("apns", &[]);
    let postgres = Postgres::start();
    let [one, two] = ["one", "two"].map(|it| Server::start(&toml(&apns, &postgres, it)));
    register(&one, 3);
    let later = notify(&one, 0, "later", &json!({"delay": 3}));
    // Nobody is connected: then his devices have their turn.
    notify(&one, 1, "reach", &json!({"deliver": "reach", "delay": 3}));
    let mut here = Talker::connect(&one.address(1));
    here.sign_in("u2", &[]);
    let waits = json!({"deliver": "reach", "ack_timeout": 60});
    let seen = notify(&one, 2, "seen", &waits);
    let (path, user) = (format!("notifications/{seen}/ack"), r#"{"user_id":"u2"}"#);
    let (code, told) = call(&two, "POST", &path, user);
    assert_eq!(code, 200, "{told}");
    drop(one);
    wait_for_accepted(&postgres, 2);
    let settled = format!(
        "SELECT count(*) FROM lineman.notifications WHERE id = '{seen}' AND settled_at IS NOT NULL"
    );
    wait_until("what was acknowledged elsewhere is over", || {
        number(&postgres, &settled) == 1
    });
    let sent = "SELECT count(*) FROM lineman.deliveries WHERE state = 'accepted'";
    assert_eq!(number(&postgres, sent), 2, "who acknowledged gets no push");
    let (code, shown) = call(&two, "GET", &format!("notifications/{later}"), "");
    assert_eq!((code, &shown["counts"]), (200, &json!({"accepted": 1})));
}

//! The registry of devices in the real binary: registered, found, changed and removed over HTTP and
//! from the command line, whoever dies; token keys that fit and that do not; rotation.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::requests::answer;
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
    assert!(
        server.stderr().contains("device registered"),
        "who did what is"
    );
}

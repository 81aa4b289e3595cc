//! The real binary and Azure, which is `lineman mock azure`: notification hubs and the tokens for them,
//! over HTTP/1.1 where the server takes nothing else, and token keys out of Key Vault.

#[path = "support/provider.rs"]
mod provider;
mod support;

use std::time::{Duration, Instant};

use provider::Provider;
use serde_json::{Value, json};
use support::{PATIENCE, PUSH, Place, Server, requests};

/// How the hub is signed in to: the fields of `[[apps.azure]]`.
fn by_connection(mock: &Provider) -> String {
    let text = mock.ready["connection_string"]
        .as_str()
        .expect("it is told");
    std::fs::write(mock.file("connection"), text).expect("a file");
    let path = mock.file("connection").display().to_string();
    format!("connection_string = {{ file = \"{path}\" }}\n")
}

fn by_client(mock: &Provider) -> String {
    std::fs::write(mock.file("client"), "secret").expect("a file");
    format!(
        "namespace = \"https://mock.servicebus.windows.net\"\ntenant = \"mock-tenant\"\n\
         client_id = \"client\"\nclient_secret = {{ file = \"{}\" }}\ntoken_url = \"{}\"\n",
        mock.file("client").display(),
        mock.url()
    )
}

fn by_machine(mock: &Provider) -> String {
    format!(
        "namespace = \"https://mock.servicebus.windows.net\"\ntoken_url = \"{}\"\n",
        mock.url()
    )
}

fn hub(mock: &Provider, proof: &str) -> String {
    let ca = match mock.ready["ca"].as_str() {
        Some(path) => format!("ca_file = \"{path}\"\n"),
        None => String::new(),
    };
    let url = mock.url();
    format!("[[apps.azure]]\nhub = \"mock-hub\"\nbase_url = \"{url}\"\n{ca}{proof}")
}

fn config(credential: &str, push: &str) -> String {
    format!(
        "[[listen]]\nurl = \"http://127.0.0.1:0\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n{credential}\n{push}\
         [store]\ndir = \"store\"\n"
    )
}

fn call(server: &Server, method: &str, path: &str, body: &str) -> (u16, Value) {
    let path = format!("/apps/demo/{path}");
    let fields = "Authorization: Bearer demo-secret\r\n";
    let (code, body) = requests::answer(&server.address(0), method, &path, fields, body);
    let told = serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}"));
    (code, told)
}

/// iPhones, each with a token of its own that begins with `kind`.
fn register(server: &Server, kind: &str, count: usize) {
    let lines = (0..count).map(|nth| {
        let token = format!("{kind}{nth:060x}");
        json!({"device_id": format!("{kind}-{nth}"), "platform": "ios", "token": token}).to_string()
    });
    let body = lines.collect::<Vec<_>>().join("\n");
    let (code, told) = call(server, "POST", "devices/import", &body);
    assert_eq!((code, &told["refused"]), (200, &json!([])), "{told}");
}

fn notify(server: &Server, more: &[(&str, Value)]) -> String {
    let note = json!({"title": "Hello"});
    let mut body = json!({"to": {"platform": "ios"}, "note": note, "deliver": "push"});
    for (name, value) in more {
        body[*name] = value.clone();
    }
    let (code, told) = call(server, "POST", "notify", &body.to_string());
    assert_eq!(code, 202, "{told}");
    told["id"].as_str().expect("an id").to_string()
}

/// Waits until the notification is done, with so many deliveries in each state.
fn wait_for(server: &Server, id: &str, counts: &Value) -> Value {
    let begun = Instant::now();
    loop {
        let (_, shown) = call(server, "GET", &format!("notifications/{id}"), "");
        if shown["counts"] == *counts && shown["state"] == "done" {
            return shown;
        }
        let shown = json!([shown["state"], shown["counts"], shown["deliveries"][0]]);
        let late = begun.elapsed() > 2 * PATIENCE;
        assert!(!late, "{counts}, not {shown}: {}", server.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many devices a request was for.
fn devices(line: &Value) -> u64 {
    line["payload"]["devices"].as_u64().unwrap_or(1)
}

fn title(line: &Value) -> &str {
    let payload = match line["payload"]["notification"].is_object() {
        true => &line["payload"]["notification"],
        false => &line["payload"],
    };
    let title = payload["aps"]["alert"]["title"].as_str();
    title.unwrap_or_else(|| panic!("no title: {line}"))
}

#[test]
fn only_devices_that_are_told_the_same_share_a_request() {
    let mock = Provider::start("azure", &["--http1"]);
    let place = Place::new(&config(&hub(&mock, &by_connection(&mock)), PUSH));
    let server = Server::start_in(place);
    let lines = (0..10).map(|nth| {
        let (kind, locale) = if nth % 2 == 0 {
            ("de", "de-AT")
        } else {
            ("ff", "fr")
        };
        let token = format!("{kind}{nth:062x}");
        json!({"device_id": format!("d{nth}"), "platform": "ios", "token": token, "locale": locale})
            .to_string()
    });
    let body = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(call(&server, "POST", "devices/import", &body).0, 200);
    let id = notify(&server, &[("locales", json!({"de": {"title": "Hallo"}}))]);
    wait_for(&server, &id, &json!({"accepted": 10}));
    let told = mock.told();
    assert_eq!(told.iter().map(devices).sum::<u64>(), 10);
    for line in &told {
        let tokens = line["token"].as_str().expect("tokens").split(',');
        let expected = if title(line) == "Hallo" { "de" } else { "ff" };
        assert!(tokens.clone().all(|it| it.starts_with(expected)), "{line}");
    }
    // Noted one by one that they are going to be sent, they go together all the same.
    let id = notify(&server, &[("on_unknown", json!("fail"))]);
    wait_for(&server, &id, &json!({"accepted": 10}));
    let more = mock.told().split_off(told.len());
    assert_eq!(more.iter().map(devices).sum::<u64>(), 10);
    assert!(more.len() < 10, "{more:?}");
}

#[test]
fn a_hub_that_takes_no_http2_is_reached_with_every_kind_of_credential() {
    let over_http2 = (&["--name localhost"][..], 2);
    let over_http1 = (&["--http1"][..], 1);
    let without_tls = (&["--plain"][..], 1);
    let table = [
        (over_http1, by_connection as fn(&Provider) -> String),
        (over_http1, by_client),
        (without_tls, by_machine),
        (without_tls, by_connection),
        (over_http2, by_client),
    ];
    for ((options, version), proof) in table {
        let mock = Provider::start("azure", options);
        let place = Place::new(&config(&hub(&mock, &proof(&mock)), PUSH));
        let server = Server::start_in(place);
        register(&server, "aaaa", 20);
        let id = notify(&server, &[]);
        let shown = wait_for(&server, &id, &json!({"accepted": 20}));
        assert!(shown["deliveries"][0]["provider_id"].is_string(), "{shown}");
        let told = mock.told();
        assert_eq!(told.iter().map(devices).sum::<u64>(), 20);
        assert!(told.len() < 20, "several share a request");
        for line in &told {
            assert_eq!(line["http"], version, "{line}");
            assert_eq!(title(line), "Hello");
        }
        let mut connections: Vec<u64> = told
            .iter()
            .filter_map(|it| it["connection"].as_u64())
            .collect();
        connections.sort_unstable();
        connections.dedup();
        assert!(
            connections.len() <= 8,
            "kept and used again: {connections:?}"
        );
        let log = server.stderr();
        assert!(!log.contains("mock.") && !log.contains("sig="), "{log}");
    }
}

#[test]
fn over_http1_an_answer_or_its_loss_means_what_it_means_over_http2() {
    let rules = [
        "--http1",
        "token=*4290* nth=1 answer=429 retry-after=1",
        "token=*5030* nth=1 answer=503",
        "token=*4000* answer=BadRequest",
        "token=c0c0* nth=1 close",
    ];
    let mock = Provider::start("azure", &rules);
    let place = Place::new(&config(&hub(&mock, &by_connection(&mock)), PUSH));
    let server = Server::start_in(place);
    register(&server, "c0c0", 1);
    let fails = [("on_unknown", json!("fail"))];
    let id = notify(&server, &fails);
    let shown = wait_for(&server, &id, &json!({"failed": 1}));
    let reason = &shown["deliveries"][0]["reason"];
    assert_eq!(reason, "nobody knows whether it was sent", "{shown}");
    support::wait_until("the mock has told of it", || !mock.told().is_empty());
    assert_eq!(mock.told().len(), 1, "it was not sent again");
    for kind in ["4290", "5030", "4000", "aaaa"] {
        register(&server, kind, 2);
    }
    let id = notify(&server, &[]);
    let shown = wait_for(&server, &id, &json!({"accepted": 7, "failed": 2}));
    let deliveries = shown["deliveries"].as_array().expect("a list").iter();
    let mut failed = deliveries.filter(|it| it["state"] == "failed");
    assert!(
        failed.all(|it| it["device_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("4000"))),
        "{shown}"
    );
}

#[test]
fn one_wrong_device_costs_the_others_of_its_request_no_attempt() {
    let mock = Provider::start("azure", &["--http1", "token=*dead* answer=BadRequest"]);
    let place = Place::new(&config(&hub(&mock, &by_connection(&mock)), PUSH));
    let server = Server::start_in(place);
    register(&server, "dead", 1);
    register(&server, "aaaa", 9);
    let id = notify(&server, &[]);
    let shown = wait_for(&server, &id, &json!({"accepted": 9, "failed": 1}));
    server.wait_for_log("each is sent alone");
    for delivery in shown["deliveries"].as_array().expect("a list") {
        let is_wrong = delivery["device_id"] == "dead-0";
        let expected = if is_wrong { "failed" } else { "accepted" };
        assert_eq!(
            (&delivery["state"], &delivery["attempts"]),
            (&json!(expected), &json!(1))
        );
    }
    assert_eq!(devices(&mock.told()[0]), 10, "all were together first");
}

#[test]
fn a_hub_that_dies_and_comes_back_gets_everything() {
    let slow = "every=1 delay=200ms";
    let mut mock = Provider::start("azure", &["--http1", slow]);
    let key = mock.ready["connection_string"]
        .as_str()
        .expect("it is told");
    let key = key
        .rsplit_once("SharedAccessKey=")
        .expect("a key")
        .1
        .to_string();
    let place = Place::new(&config(&hub(&mock, &by_connection(&mock)), PUSH));
    let server = Server::start_in(place);
    register(&server, "aaaa", 10);
    let ids: Vec<String> = (0..30).map(|_| notify(&server, &[])).collect();
    support::wait_until("some were sent", || mock.count(201) > 3);
    let option = format!("--key {key}");
    mock.restart(&["--http1", &option]);
    for id in &ids {
        wait_for(&server, id, &json!({"accepted": 10}));
    }
    let told = mock.told();
    let good = told.iter().filter(|it| it["answer"]["status"] == 201);
    let sent: u64 = good.map(devices).sum();
    // A hub that is killed may have answered what it has not written down yet: one request on each
    // of eight connections.
    assert!(sent + 8 * 10 >= 300, "{sent}");
}

/// Two keys of 32 bytes.
const KEYS: [&str; 2] = [
    "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "Zm9ydHktdHdvIGJ5dGVzIG1pbnVzIHRlbiBtYWtlIDM=",
];

/// A vault with both, beside all else that Azure has.
fn vault(options: &[&str]) -> Provider {
    let secrets = [("one", KEYS[0]), ("two", KEYS[1])];
    let secrets = secrets.map(|(name, value)| format!("--secret {name}={value}"));
    let all = secrets.iter().map(String::as_str);
    Provider::start(
        "azure",
        &all.chain(options.iter().copied()).collect::<Vec<_>>(),
    )
}

/// `{ key_vault = … }` for a secret of this vault. The access token is a client's, or the machine's
/// where there is no TLS.
fn key_vault(mock: &Provider, secret: &str) -> String {
    let url = mock.url();
    let client = match mock.ready["ca"].as_str() {
        None => String::new(),
        Some(ca) => {
            std::fs::write(mock.file("client"), "secret").expect("a file");
            let path = mock.file("client").display().to_string();
            format!(
                ", tenant = \"mock-tenant\", client_id = \"client\", \
                 client_secret = {{ file = \"{path}\" }}, ca_file = \"{ca}\""
            )
        }
    };
    format!(
        "token_key = {{ key_vault = \"{url}/secrets/{secret}\", identity = {{ token_url = \"{url}\", \
         resource = \"https://vault.azure.net\"{client} }} }}\n"
    )
}

fn push(mock: &Provider, secret: &str) -> String {
    format!("[push]\n{}", key_vault(mock, secret))
}

/// The keys as the courier has them.
fn keys(place: &Place) -> Vec<Value> {
    let output = place.run(&["keys", "status", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    told["keys"].as_array().expect("a list").clone()
}

/// Starts a server that cannot start: its exit code and what it says.
fn refused(place: &Place) -> (Option<i32>, String) {
    let output = place.run(&["start"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), told)
}

#[test]
fn the_token_key_comes_out_of_a_vault_under_the_name_of_its_version() {
    for options in [&["--http1"][..], &["--plain"], &[]] {
        let mock = vault(options);
        let server = Server::start_in(Place::new(&config("", &push(&mock, "one"))));
        register(&server, "aaaa", 3);
        let first = keys(&server.place);
        assert_eq!(
            (first.len(), &first[0]["tokens"]),
            (1, &json!(3)),
            "{first:?}"
        );
        let version = first[0]["id"].as_str().expect("an id").to_string();
        assert!(version.len() == 32 && version.bytes().all(|b| b.is_ascii_hexdigit()));
        // Another key, and the former one by its version.
        let former = key_vault(&mock, &format!("one/{version}"));
        let both = format!("{}[[push.former_keys]]\n{former}", push(&mock, "two"));
        server.place.configure(&config("", &both));
        let reloaded = server.place.run(&["reload"]);
        assert!(reloaded.status.success(), "{}", server.stderr());
        support::wait_until("both keys are there", || keys(&server.place).len() == 2);
        let rotated = server.place.run(&["keys", "rotate"]);
        assert!(rotated.status.success(), "{}", server.stderr());
        let now = keys(&server.place);
        let tokens = |current: bool| {
            let those = now.iter().filter(|key| (key["current"] == true) == current);
            those.filter_map(|key| key["tokens"].as_u64()).sum::<u64>()
        };
        assert_eq!((tokens(true), tokens(false)), (3, 0), "{now:?}");
        let log = server.stderr();
        assert!(KEYS.iter().all(|key| !log.contains(key)), "{log}");
        // The database knows the keys under these names.
        let again = server.restart();
        assert_eq!(keys(&again.place).len(), 2);
    }
}

#[test]
fn a_vault_that_is_busy_is_asked_again() {
    let rules = [
        "--plain",
        "path=/metadata/* nth=1 answer=500",
        "path=/secrets/* nth=1-2 answer=Throttled retry-after=1",
    ];
    let mock = vault(&rules);
    let server = Server::start_in(Place::new(&config("", &push(&mock, "one"))));
    assert_eq!(keys(&server.place).len(), 1);
}

#[test]
fn what_is_wrong_with_a_vault_is_told_and_an_outage_has_another_code() {
    let mut mock = vault(&["--plain", "path=/secrets/two silence"]);
    let told = |secret: &str| {
        let place = Place::new(&config("", &push(&mock, secret)));
        refused(&place)
    };
    let (code, words) = told("none");
    assert_eq!(code, Some(6), "{words}");
    assert!(
        words.contains("Azure Key Vault: there is no such secret") && words.contains(".toml:10"),
        "{words}"
    );
    let begun = Instant::now();
    let (code, words) = told("two");
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("no answer in time"), "{words}");
    assert!(begun.elapsed() < PATIENCE, "it has a deadline");
    let server = Server::start_in(Place::new(&config("", &push(&mock, "one"))));
    mock.stop();
    let place = Place::new(&config("", &push(&mock, "one")));
    let (code, words) = refused(&place);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("refused"), "{words}");
    let reloaded = server.place.run(&["reload"]);
    let words = String::from_utf8_lossy(&reloaded.stderr).into_owned();
    assert_eq!(reloaded.status.code(), Some(1), "{words}");
    assert!(words.contains("goes on as it was"), "{words}");
    register(&server, "aaaa", 1);
}

#[test]
fn a_client_that_azure_does_not_know_gets_no_key() {
    let mock = vault(&["--client client:another"]);
    let (code, words) = refused(&Place::new(&config("", &push(&mock, "one"))));
    assert_eq!(code, Some(6), "{words}");
    assert!(
        words.contains("no access token: tenant, client id"),
        "{words}"
    );
}

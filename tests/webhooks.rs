//! Webhooks of the real binary, at receivers written here: what is told, that it is signed, that it
//! is told once whoever dies, and that an endpoint in trouble is nobody else's.

#[path = "support/authority.rs"]
mod authority;
#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use authority::Authority;
use aws_lc_rs::hmac;
use receiver::{Manner, Receiver};
use serde_json::{Value, json};
use support::{PATIENCE, Place, Server, pid_of, processes, wait_until};

const ROOM: &str = "presence-room";
const PRESENCE: &str =
    "\"channel_occupied\", \"channel_vacated\", \"member_added\", \"member_removed\"";
/// Longer than the window in which a return is no news.
const SETTLED: Duration = Duration::from_millis(3500);

/// A server of two workers with a listener for lines, and webhooks for each `(url, events)`.
fn config(hooks: &[(&str, &str)], rest: &str) -> String {
    let mut text =
        "workers = 2\n[[listen]]\nurl = \"text://127.0.0.1:0\"\n[[apps]]\nid = \"demo\"\n\
                    key = \"demo-key\"\nsecret = \"demo-secret\"\n"
            .to_string();
    for (url, events) in hooks {
        text.push_str(&format!(
            "[[apps.webhooks]]\nurl = \"{url}\"\nevents = [{events}]\ntimeout_seconds = 1\n"
        ));
    }
    text + rest
}

const PRIVATE: &str = "[webhooks]\nallow_private = true\n";

/// A client of lines.
struct Client {
    stream: BufReader<TcpStream>,
    socket_id: String,
}

impl Client {
    fn connect(address: &str) -> Option<Client> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut client = Client {
            stream: BufReader::new(stream),
            socket_id: String::new(),
        };
        let hello = json!({"event": "pusher:connect",
                           "data": {"app_key": "demo-key", "protocol": 7}});
        client.send(&hello)?;
        let hello = client.event("pusher:connection_established")?;
        let data: Value = serde_json::from_str(hello["data"].as_str()?).ok()?;
        client.socket_id = data["socket_id"].as_str()?.to_string();
        Some(client)
    }

    fn send(&mut self, message: &Value) -> Option<()> {
        let line = format!("{message}\n");
        self.stream.get_mut().write_all(line.as_bytes()).ok()
    }

    fn event(&mut self, name: &str) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let event: Value = serde_json::from_str(&line).ok()?;
            if event["event"] == name {
                return Some(event);
            }
        }
    }

    /// Whether the server has ended the connection; what came before is dropped.
    fn is_lost(&mut self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).expect("a socket");
        loop {
            match self.stream.fill_buf() {
                Ok([]) => return true,
                Ok(bytes) => {
                    let count = bytes.len();
                    self.stream.consume(count);
                }
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }

    fn subscribe(&mut self, data: Value) -> Option<()> {
        self.send(&json!({"event": "pusher:subscribe", "data": data}))?;
        self.event("pusher_internal:subscription_succeeded")?;
        Some(())
    }

    fn join(&mut self, room: &str, user: &str) -> Option<()> {
        let me = json!({"user_id": user}).to_string();
        let text = format!("{}:{room}:{me}", self.socket_id);
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"demo-secret");
        let tag = hmac::sign(&key, text.as_bytes());
        let auth = format!("demo-key:{}", data_encoding::HEXLOWER.encode(tag.as_ref()));
        self.subscribe(json!({"channel": room, "auth": auth, "channel_data": me}))
    }
}

/// Connects and joins, again and again while processes are replaced.
fn joined(address: &str, room: &str, user: &str) -> Client {
    let began = Instant::now();
    loop {
        let client = Client::connect(address);
        if let Some(mut client) = client
            && client.join(room, user).is_some()
        {
            return client;
        }
        assert!(began.elapsed() < PATIENCE, "{user} cannot join");
    }
}

fn counter(server: &Server, role: &str, name: &str) -> u64 {
    let status = server.status();
    let process = processes(&status, role)[0];
    process["counters"][name].as_u64().expect("a counter")
}

#[test]
fn every_kind_of_event_is_told_in_order_and_signed() {
    let receiver = Receiver::start();
    let all = format!("{PRESENCE}, \"client_event\", \"subscription_count\"");
    let server = Server::start(&config(&[(&receiver.url(), &all)], PRIVATE));
    let address = server.address(0);
    let mut one = joined(&address, ROOM, "ann");
    let mut two = joined(&address, ROOM, "bob");
    one.send(&json!({"event": "client-hi", "channel": ROOM, "data": {"a": "ü"}}));
    two.event("client-hi").expect("bob is told");
    let socket_id = one.socket_id.clone();
    two.subscribe(json!({"channel": "news"}))
        .expect("it is public");
    receiver.wait_for(6);
    drop((one, two));
    let told = receiver.wait_for(10);
    let of = |channel: &str| -> Vec<Value> {
        let events = told.iter().filter(|event| event["channel"] == channel);
        events.cloned().collect()
    };
    assert_eq!(
        of("news"),
        [
            json!({"name": "channel_occupied", "channel": "news"}),
            json!({"name": "subscription_count", "channel": "news", "subscription_count": 1}),
            json!({"name": "channel_vacated", "channel": "news"}),
        ]
    );
    let room = of(ROOM);
    let member = |name: &str, id: &str| json!({"name": name, "channel": ROOM, "user_id": id});
    assert_eq!(
        room[..4],
        [
            json!({"name": "channel_occupied", "channel": ROOM}),
            member("member_added", "ann"),
            member("member_added", "bob"),
            json!({"name": "client_event", "channel": ROOM, "event": "client-hi",
                   "data": "{\"a\":\"ü\"}", "socket_id": socket_id, "user_id": "ann"}),
        ]
    );
    let last = json!({"name": "channel_vacated", "channel": ROOM});
    assert!(room[4..6].contains(&member("member_removed", "ann")));
    assert!(room[4..6].contains(&member("member_removed", "bob")));
    assert_eq!(room[6..], [last]);
    for request in receiver.requests() {
        assert_eq!(request.field("X-Pusher-Key"), "demo-key");
        assert_eq!(request.field("Content-Type"), "application/json");
        assert!(request.is_signed("demo-secret"), "{request:?}");
    }
    assert!(receiver.connections() <= 4, "connections are kept");
}

#[test]
fn who_returns_in_time_is_no_news() {
    let receiver = Receiver::start();
    let server = Server::start(&config(&[(&receiver.url(), PRESENCE)], PRIVATE));
    let address = server.address(0);
    for _ in 0..3 {
        drop(joined(&address, ROOM, "ann"));
        std::thread::sleep(Duration::from_millis(300));
    }
    let names = |told: &[Value]| -> Vec<String> {
        let names = told.iter().map(|event| event["name"].as_str());
        names
            .map(|name| name.expect("a name").to_string())
            .collect()
    };
    let came = ["channel_occupied", "member_added"];
    assert_eq!(names(&receiver.wait_for(2)), came);
    let all = receiver.wait_for(4);
    std::thread::sleep(SETTLED);
    assert_eq!(receiver.events().len(), 4, "nothing is told twice");
    assert_eq!(names(&all[2..]), ["member_removed", "channel_vacated"]);
}

/// Whether coming and going were told in turns, and how it ended.
fn is_there(events: &[Value], user: &str) -> bool {
    let mut there = false;
    for event in events.iter().filter(|event| event["user_id"] == user) {
        let came = event["name"] == "member_added";
        assert_ne!(came, there, "{user} is told twice: {events:#?}");
        there = came;
    }
    there
}

#[test]
fn each_change_is_told_once_whoever_is_killed() {
    let receiver = Receiver::start();
    let server = Server::start(&config(&[(&receiver.url(), PRESENCE)], PRIVATE));
    let address = server.address(0);
    let mut there: Vec<(String, Client)> = Vec::new();
    for (round, role) in ["courier", "switchboard", "worker", "courier"]
        .iter()
        .enumerate()
    {
        for n in 0..6 {
            let user = format!("{role}-{round}-{n}");
            let client = joined(&address, ROOM, &user);
            there.push((user, client));
            if n == 2 {
                let status = server.status();
                server.kill(pid_of(processes(&status, role)[0]), 9);
            }
        }
        // Some leave while somebody is being replaced; those who were thrown out return.
        let left: Vec<String> = there.drain(..2).map(|(user, _)| user).collect();
        for (user, client) in &mut there {
            if client.is_lost() {
                *client = joined(&address, ROOM, user);
            }
        }
        wait_until("everybody is told about", || {
            let events = receiver.distinct_events();
            let gone = left.iter().all(|user| !is_there(&events, user));
            gone && there.iter().all(|(user, _)| is_there(&events, user))
        });
    }
    std::thread::sleep(SETTLED);
    let events = receiver.distinct_events();
    assert!(there.iter().all(|(user, _)| is_there(&events, user)));
    let occupied = events
        .iter()
        .filter(|event| event["name"] == "channel_occupied");
    assert_eq!(occupied.count(), 1, "the room was never empty");
    assert!(
        !events
            .iter()
            .any(|event| event["name"] == "channel_vacated")
    );
}

#[test]
fn what_was_accepted_before_the_whole_server_died_is_told_by_the_next() {
    let receiver = Receiver::start();
    receiver.behave(Manner::Status(503));
    let mut server = Server::start(&config(&[(&receiver.url(), PRESENCE)], PRIVATE));
    let client = joined(&server.address(0), ROOM, "ann");
    wait_until("it was tried", || receiver.requests().len() >= 2);
    server.kill(server.pid(), 9);
    server.wait();
    drop(client);
    receiver.behave(Manner::Fine);
    let place = std::mem::replace(&mut server.place, Place::new(""));
    let _next = Server::start_in(place);
    let told = receiver.wait_for(4);
    let names: Vec<&str> = told
        .iter()
        .filter_map(|event| event["name"].as_str())
        .collect();
    let all = [
        "channel_occupied",
        "member_added",
        "member_removed",
        "channel_vacated",
    ];
    assert_eq!(names, all);
    // What is sent again is the same to the byte.
    let requests = receiver.requests();
    assert!(
        requests
            .iter()
            .filter(|it| it.body == requests[0].body)
            .count()
            >= 2
    );
}

#[test]
fn an_endpoint_in_trouble_delays_no_other_and_gets_everything_later() {
    let [fine, silent, failing] = [(); 3].map(|()| Receiver::start());
    silent.behave(Manner::Silent);
    failing.behave(Manner::Status(302));
    let urls = [fine.url(), silent.url(), failing.url()];
    let hooks = urls.each_ref().map(|url| (url.as_str(), PRESENCE));
    let server = Server::start(&config(&hooks, PRIVATE));
    let address = server.address(0);
    let users: Vec<Client> = (0..5)
        .map(|n| joined(&address, ROOM, &format!("user-{n}")))
        .collect();
    assert_eq!(fine.wait_for(6).len(), 6);
    assert!(silent.events().is_empty() && failing.events().is_empty());
    wait_until("attempts are counted", || {
        counter(&server, "courier", "webhooks_failed") >= 2
    });
    silent.behave(Manner::Fine);
    failing.behave(Manner::Fine);
    for receiver in [&silent, &failing] {
        let told = receiver.wait_for(6);
        assert_eq!(told, fine.events()[..6], "in the same order, once");
    }
    drop(users);
}

#[test]
fn endpoints_are_reached_over_tls_if_their_certificates_are_good() {
    let authority = Authority::new();
    let good = Receiver::start_secured(authority.server("localhost"));
    let wrong_name = Receiver::start_secured(authority.server("elsewhere.example"));
    let unknown = Receiver::start_secured(Authority::new().server("localhost"));
    let urls = [good.url(), wrong_name.url(), unknown.url()];
    let hooks = urls.each_ref().map(|url| (url.as_str(), PRESENCE));
    let place = Place::new(&config(&hooks, PRIVATE));
    let trusted = place.path().join("authority.pem");
    std::fs::write(&trusted, &authority.pem).expect("the authority is written");
    let mut command = place.command(&["start"]);
    command.env("SSL_CERT_FILE", trusted);
    let server = Server::start_with(place, command);
    let _client = joined(&server.address(0), ROOM, "ann");
    let told = good.wait_for(2);
    let names = told.iter().map(|event| event["name"].as_str());
    assert!(names.eq([Some("channel_occupied"), Some("member_added")]));
    assert!(good.requests()[0].is_signed("demo-secret"));
    wait_until("the others are tried and fail", || {
        wrong_name.connections() >= 2
            && unknown.connections() >= 2
            && counter(&server, "courier", "webhooks_failed") >= 4
    });
    assert!(wrong_name.requests().is_empty() && unknown.requests().is_empty());
    assert_eq!(good.connections(), 1, "the connection is kept");
}

#[test]
fn a_private_address_is_not_connected_to_unless_that_is_allowed() {
    let receiver = Receiver::start();
    let named = receiver.url().replace("127.0.0.1", "localhost");
    let hooks = [(receiver.url(), PRESENCE), (named, PRESENCE)];
    let hooks = hooks
        .each_ref()
        .map(|(url, events)| (url.as_str(), *events));
    let server = Server::start(&config(&hooks, ""));
    let _client = joined(&server.address(0), ROOM, "ann");
    wait_until("both were tried", || {
        counter(&server, "courier", "webhooks_failed") >= 2
    });
    assert_eq!(receiver.connections(), 0);
    assert!(
        server.stderr().contains("private address"),
        "{}",
        server.stderr()
    );
}

#[test]
fn a_server_without_webhooks_has_no_courier_and_a_reload_changes_what_is_told() {
    let [one, two] = [(); 2].map(|()| Receiver::start());
    let plain = Server::start(&config(&[], ""));
    assert!(processes(&plain.status(), "courier").is_empty());
    let added = config(&[(&one.url(), PRESENCE)], PRIVATE);
    plain.place.configure(&added);
    let refused = plain.place.run(&["reload"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("apps.webhooks"));
    let server = Server::start(&added);
    let address = server.address(0);
    let _client = joined(&address, ROOM, "ann");
    one.wait_for(2);
    server
        .place
        .configure(&config(&[(&two.url(), "\"member_added\"")], PRIVATE));
    let reloaded = server.place.run(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{reloaded:?}");
    let _other = joined(&address, ROOM, "bob");
    let told = two.wait_for(1);
    assert_eq!(told[0]["user_id"], "bob");
    let status = server.status();
    assert_eq!(processes(&status, "courier").len(), 1);
}

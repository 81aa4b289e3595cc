//! Clients without WebSocket, with real sockets: sessions of many requests, each on a connection of
//! its own, so that they reach every worker. What happens to them when workers are killed, replaced,
//! or cannot be reached.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::{Value, json};
use support::requests::{answer, holders, publish, request, signed};
use support::{DEMO, Server, pid_of, processes, wait_until};

/// So many requests on fresh connections reach both of two workers, or the system is to blame.
const ATTEMPTS: usize = 200;

fn server(workers: u32, rest: &str) -> Server {
    Server::start(&format!(
        "workers = {workers}\n{DEMO}client_events = true\n{rest}"
    ))
}

/// A client as pusher-js is one without WebSocket.
struct Client {
    address: String,
    path: String,
    stream: Option<BufReader<TcpStream>>,
    /// Read of this stream, as JavaScript counts.
    characters: usize,
    /// Messages that came and were not asked for yet.
    heard: Vec<Value>,
}

impl Client {
    fn new(server: &Server, session: &str) -> Client {
        Client {
            address: server.address(0),
            path: format!("/pusher/app/demo-key/7/{session}"),
            stream: None,
            characters: 0,
            heard: Vec::new(),
        }
    }

    fn streaming(server: &Server, session: &str) -> Client {
        let mut client = Client::new(server, session);
        client.stream();
        assert_eq!(client.line(), "o{}");
        client
    }

    fn stream(&mut self) {
        let path = format!("{}/xhr_streaming?protocol=7&n=1", self.path);
        let (code, head, stream) = request(&self.address, "POST", &path, "", "");
        assert_eq!(code, 200, "{head}");
        self.stream = Some(stream);
        self.characters = 0;
        assert_eq!(self.line(), "h".repeat(2048));
    }

    /// The next line of the stream; empty at its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let stream = self.stream.as_mut().expect("a stream");
        stream.read_line(&mut line).expect("a line or the end");
        self.characters += line.encode_utf16().count();
        line.trim_end().to_string()
    }

    /// The lines of one poll.
    fn poll(&mut self) -> String {
        let path = format!("{}/xhr?protocol=7&n=1", self.path);
        let (code, lines) = answer(&self.address, "POST", &path, "", "");
        assert_eq!(code, 200, "{lines}");
        lines
    }

    fn send(&self, messages: &[Value]) -> u16 {
        let texts: Vec<String> = messages.iter().map(Value::to_string).collect();
        let path = format!("{}/xhr_send?n=2", self.path);
        let fields = "Content-Type: application/json\r\n";
        answer(
            &self.address,
            "POST",
            &path,
            fields,
            &json!(texts).to_string(),
        )
        .0
    }

    fn take(&mut self, lines: &str) {
        for line in lines.lines() {
            if let Some(array) = line.strip_prefix('a') {
                let texts: Vec<String> = serde_json::from_str(array).expect("an array of texts");
                let messages = texts.iter().map(|text| serde_json::from_str(text));
                self.heard.extend(messages.map(|it| it.expect("JSON")));
            }
        }
    }

    /// The next event of this name, by the stream or else by polls; others are passed over.
    fn event(&mut self, name: &str) -> Value {
        loop {
            while !self.heard.is_empty() {
                let mut event = self.heard.remove(0);
                if event["event"] == name {
                    if let Some(data) = event["data"].as_str() {
                        event["data"] = serde_json::from_str(data).expect("data is JSON here");
                    }
                    return event;
                }
            }
            let lines = match self.stream {
                Some(_) => self.line(),
                None => self.poll(),
            };
            assert!(!lines.is_empty(), "the end before {name}");
            self.take(&lines);
        }
    }

    /// Subscribes to a presence channel; who was there then.
    fn join(&mut self, room: &str, user: &str) -> Vec<String> {
        let hello = self.event("pusher:connection_established");
        let socket_id = hello["data"]["socket_id"].as_str().expect("an id");
        let me = json!({"user_id": user, "user_info": {"name": user}}).to_string();
        let auth = signed(&format!("{socket_id}:{room}:{me}"));
        let auth = format!("demo-key:{auth}");
        let subscribe = json!({"event": "pusher:subscribe",
            "data": {"channel": room, "auth": auth, "channel_data": me}});
        assert_eq!(self.send(&[subscribe]), 204);
        let joined = self.event("pusher_internal:subscription_succeeded");
        let ids = &joined["data"]["presence"]["ids"];
        let mut ids: Vec<String> = serde_json::from_value(ids.clone()).expect("ids");
        ids.sort();
        ids
    }

    fn subscribe(&mut self, channel: &str) {
        let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": channel}});
        assert_eq!(self.send(&[subscribe]), 204);
        self.event("pusher_internal:subscription_succeeded");
    }
}

/// A client whose stream is carried by another worker than the one that holds its session.
fn apart(server: &Server, name: &str) -> (Client, u64, u64) {
    for attempt in 0..ATTEMPTS {
        let mut client = Client::new(server, &format!("{name}{attempt}"));
        let first = client.poll();
        assert!(first.starts_with("o{}\n"), "{first}");
        client.take(&first);
        client.stream();
        let [holder] = holders(server, "sockjs", "open")[..] else {
            panic!("one session");
        };
        let [carrier] = holders(server, "http", "answering")[..] else {
            panic!("one stream");
        };
        if holder != carrier {
            return (client, holder, carrier);
        }
        drop(client);
        wait_until("the session is gone with its stream", || {
            holders(server, "sockjs", "open").is_empty()
        });
    }
    panic!("all connections reached one worker");
}

fn requests_of_workers(server: &Server) -> Vec<u64> {
    let status = server.status();
    let workers = processes(&status, "worker").into_iter();
    workers
        .map(|worker| {
            worker["counters"]["http_requests"]
                .as_u64()
                .expect("a number")
        })
        .collect()
}

#[test]
fn a_session_is_one_whichever_workers_its_requests_reach() {
    let server = server(3, "[limits]\nclient_events_per_second = 1000\n");
    let mut clients = Vec::new();
    for (index, streaming) in [true, false].into_iter().enumerate() {
        let room = format!("presence-{index}");
        let [ann, ben] = [0, 1].map(|n| format!("s{index}{n}"));
        let open = |name: &str| match streaming {
            true => Client::streaming(&server, name),
            false => Client::new(&server, name),
        };
        let (mut ann, mut ben) = (open(&ann), open(&ben));
        assert_eq!(ann.join(&room, "ann"), ["ann"]);
        assert_eq!(ben.join(&room, "ben"), ["ann", "ben"]);
        assert_eq!(
            ann.event("pusher_internal:member_added")["data"]["user_id"],
            "ben"
        );
        for turn in 0..12 {
            let text = format!("{turn} grüße 👋\n\"{}\"", "x".repeat(turn * 700));
            let said = json!({"event": "client-said", "channel": room, "data": {"text": text}});
            assert_eq!(ann.send(&[said]), 204);
            let heard = ben.event("client-said");
            assert_eq!(
                (&heard["user_id"], &heard["data"]["text"]),
                (&json!("ann"), &json!(text))
            );
        }
        clients.extend([ann, ben]);
    }
    let requests = requests_of_workers(&server);
    assert!(
        requests.iter().all(|count| *count > 0),
        "all were reached: {requests:?}"
    );
    assert_eq!(server.status()["total"]["http_sessions"], 4);
}

#[test]
fn messages_of_one_body_are_taken_up_in_order_and_answers_come_in_theirs() {
    let server = server(2, "");
    let (mut client, holder, carrier) = apart(&server, "order");
    assert_ne!(holder, carrier);
    client.event("pusher:connection_established");
    let names: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    let subscribe = |name: &String| json!({"event": "pusher:subscribe", "data": {"channel": name}});
    let messages: Vec<Value> = names.iter().map(subscribe).collect();
    for some in messages.chunks(10) {
        assert_eq!(client.send(some), 204);
    }
    for name in &names {
        let told = client.event("pusher_internal:subscription_succeeded");
        assert_eq!(told["channel"], **name);
    }
}

#[test]
fn a_stream_gives_way_to_the_next_without_losing_anything() {
    let server = server(2, "[limits]\nevent_data_bytes = 40_000\n");
    let (mut far, holder, carrier) = apart(&server, "far");
    assert_ne!(holder, carrier);
    let mut near = Client::new(&server, "poller");
    for client in [&mut far, &mut near] {
        client.event("pusher:connection_established");
        client.subscribe("flood");
    }
    let filler = "ü".repeat(9_000);
    for number in 0..40 {
        publish(&server, "flood", &json!([number, filler]).to_string());
    }
    let mut expected = 0;
    while expected < 40 {
        let line = far.line();
        assert!(!line.is_empty(), "the end");
        far.take(&line);
        for event in far.heard.drain(..).filter(|event| event["event"] == "news") {
            let data: Value =
                serde_json::from_str(event["data"].as_str().expect("text")).expect("JSON");
            assert_eq!(data[0], expected, "each comes once, in order");
            expected += 1;
        }
        // As pusher-js does.
        if far.characters > 256 * 1024 {
            far.stream();
        }
    }
    for number in 0..40 {
        assert_eq!(near.event("news")["data"][0], number);
    }
}

#[test]
fn the_death_of_the_holder_sends_the_client_away_and_that_of_the_carrier_ends_the_stream() {
    let server = server(2, "");
    let (mut client, holder, _) = apart(&server, "a");
    client.event("pusher:connection_established");
    server.kill(holder as u32, 9);
    assert_eq!(client.line(), "c[4200,\"Please reconnect immediately\"]");
    assert_eq!(client.line(), "");
    wait_until("the worker is replaced", || {
        let status = server.status();
        let workers = processes(&status, "worker");
        let states: BTreeSet<_> = workers.iter().map(|it| it["state"].to_string()).collect();
        let pids: Vec<u32> = workers.iter().map(|it| pid_of(it)).collect();
        states.len() == 1 && states.contains("\"running\"") && !pids.contains(&(holder as u32))
    });
    // What is asked of a session that is no more.
    assert_eq!(client.send(&[json!({"event": "pusher:ping"})]), 404);
    assert!(
        client.poll().starts_with("o{}\n"),
        "a client that polls on learns it by this"
    );

    let mut again = Client::streaming(&server, "again");
    again.join("presence-room", "ann");
    let [holder] = holders(&server, "http", "answering")[..] else {
        panic!("one stream");
    };
    server.kill(holder as u32, 9);
    assert_eq!(again.line(), "", "the end, as pusher-js understands it");
}

#[test]
fn the_death_of_the_switchboard_costs_no_session() {
    let server = server(2, "");
    let (mut client, holder, carrier) = apart(&server, "s");
    assert_ne!(holder, carrier);
    client.event("pusher:connection_established");
    client.subscribe("news");
    let status = server.status();
    let switchboard = pid_of(processes(&status, "switchboard")[0]);
    server.kill(switchboard, 9);
    // Without waiting: what is said now is taken up once, by and by.
    for name in ["one", "two", "three"] {
        let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": name}});
        assert_eq!(client.send(&[subscribe]), 204);
    }
    for name in ["one", "two", "three"] {
        let told = client.event("pusher_internal:subscription_succeeded");
        assert_eq!(told["channel"], name);
    }
    wait_until("publishing works again", || {
        let status = server.status();
        processes(&status, "switchboard")[0]["state"] == "running"
    });
    publish(&server, "news", "1");
    assert_eq!(client.event("news")["data"], 1);
}

#[test]
fn a_reload_sends_clients_away_and_who_comes_back_was_never_absent() {
    let server = server(2, "");
    let (mut client, holder, carrier) = apart(&server, "c");
    assert_ne!(holder, carrier);
    assert_eq!(client.join("presence-room", "ann"), ["ann"]);
    let mut poller = Client::new(&server, "p");
    poller.join("presence-room", "ben");
    let mut reload = server.place.command(&["reload"]);
    let mut reload = reload.stdout(Stdio::null()).spawn().expect("it starts");
    let is_end = |lines: &str| lines.contains("c[4200,\"Please reconnect immediately\"]");
    let told = |client: &mut Client| match client.stream {
        Some(_) => client.line(),
        None => client.poll(),
    };
    while !is_end(&told(&mut client)) {}
    assert_eq!(client.line(), "");
    while !is_end(&told(&mut poller)) {}
    let path = "/apps/demo/channels/presence-room/users";
    let fields = "Authorization: Bearer demo-secret\r\n";
    let (_, users) = answer(&server.address(0), "GET", path, fields, "");
    assert_eq!(users, "{\"users\":[{\"id\":\"ann\"},{\"id\":\"ben\"}]}");
    let mut back = Client::streaming(&server, "back");
    assert_eq!(back.join("presence-room", "ann"), ["ann", "ben"]);
    assert!(reload.wait().expect("it ends").success());
}

#[test]
fn who_is_not_admitted_learns_why_and_what_is_no_session_is_refused() {
    let server = server(2, "[limits]\nhttp_sessions = 1\n");
    let address = server.address(0);
    let post = |path: &str, body: &str| answer(&address, "POST", path, "", body);
    let (code, lines) = post("/pusher/app/nobody/1/s/xhr?protocol=7", "");
    let refused = "o{}\nc[4001,\"App key nobody does not exist\"]\n";
    assert_eq!((code, lines.as_str()), (200, refused));
    let (_, lines) = post("/pusher/app/demo-key/1/s/xhr?protocol=99", "");
    assert_eq!(lines, "o{}\nc[4007,\"Unsupported protocol version\"]\n");
    assert_eq!(post("/app/demo-key/1/nobody/xhr_send", "[\"x\"]").0, 404);
    assert_eq!(post("/app/demo-key/1/nobody/xhr_send", "[1]").0, 400);
    assert_eq!(
        answer(&address, "GET", "/app/demo-key/1/s/xhr", "", "").0,
        405
    );

    let preflight = "Origin: https://page.example\r\nAccess-Control-Request-Method: POST\r\n\
        Access-Control-Request-Headers: content-type\r\n";
    let path = "/pusher/app/demo-key/1/s/xhr_streaming";
    let (code, head, _) = request(&address, "OPTIONS", path, preflight, "");
    assert_eq!(code, 204);
    assert!(
        head.contains("Access-Control-Allow-Origin: *\r\n"),
        "{head}"
    );
    assert!(
        head.contains(
            "Access-Control-Allow-Headers: Authorization, Content-Type, Last-Event-ID\r\n"
        )
    );

    let mut first = Client::new(&server, "first");
    first.poll();
    let busy = (0..ATTEMPTS).find(|n| {
        let path = format!("/app/demo-key/2/s{n}/xhr?protocol=7");
        post(&path, "").1 == "o{}\nc[4100,\"Over capacity\"]\n"
    });
    assert!(
        busy.is_some_and(|n| n <= 2),
        "each of two workers holds one: {busy:?}"
    );
}

#[test]
fn a_client_that_stops_asking_is_gone_and_an_older_request_gives_way() {
    let server = server(
        2,
        "[limits]\nhttp_session_seconds = 1\nhttp_heartbeat_seconds = 1\n",
    );
    let mut client = Client::new(&server, "quiet");
    client.join("presence-room", "ann");
    let count = || server.status()["total"]["http_sessions"].as_u64();
    assert_eq!(count(), Some(1));
    wait_until("nobody asks and the session ends", || count() == Some(0));
    assert_eq!(client.poll().lines().next(), Some("o{}"), "it is another");

    let mut twice = Client::streaming(&server, "twice");
    let mut older = twice.stream.take().expect("a stream");
    twice.stream();
    let mut rest = String::new();
    older.read_to_string(&mut rest).expect("the end");
    let last = rest.lines().last();
    assert_eq!(last, Some("c[2010,\"Another connection still open\"]"));
    while twice.line() != "h" {}
}

#[test]
fn a_user_is_dismissed_and_an_operator_closes_sessions_like_all_others() {
    let server = server(2, "");
    let (mut client, ..) = apart(&server, "x");
    let hello = client.event("pusher:connection_established");
    let socket_id = hello["data"]["socket_id"].as_str().expect("an id");
    let user = json!({"id": "ann"}).to_string();
    let auth = signed(&format!("{socket_id}::user::{user}"));
    let signin = json!({"event": "pusher:signin",
        "data": {"auth": format!("demo-key:{auth}"), "user_data": user}});
    assert_eq!(client.send(&[signin]), 204);
    client.event("pusher:signin_success");
    let path = "/apps/demo/users/ann/terminate_connections";
    let fields = "Authorization: Bearer demo-secret\r\n";
    assert_eq!(answer(&server.address(0), "POST", path, fields, "").0, 200);
    assert_eq!(
        client.line(),
        "c[4009,\"Connections of this user were terminated\"]"
    );
    assert_eq!(client.line(), "");

    let mut other = Client::streaming(&server, "other");
    let output = server.place.run(&["connections", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut rows = told["connections"].as_array().expect("a list").iter();
    let row = rows
        .find(|row| row["protocol"] == "sockjs")
        .expect("the session");
    let id = row["id"].as_str().expect("an id");
    let closed = server.place.run(&["connections", "close", id]);
    assert_eq!(closed.status.code(), Some(0));
    other.event("pusher:connection_established");
    assert_eq!(other.line(), "c[1008,\"Closed by the operator\"]");
}

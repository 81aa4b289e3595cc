//! Clients without WebSocket, with real sockets: sessions of many requests, each on a connection of
//! its own, so that they reach every worker; and readers of Server-Sent Events. What happens to them
//! when workers are killed, replaced, or cannot be reached.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use support::{DEMO, PATIENCE, Server, pid_of, processes, publish_call, wait_until};

/// So many requests on fresh connections reach both of two workers, or the system is to blame.
const ATTEMPTS: usize = 200;

fn server(workers: u32, rest: &str) -> Server {
    Server::start(&format!(
        "workers = {workers}\n{DEMO}client_events = true\n{rest}"
    ))
}

/// Sends a request on a connection of its own; its answer's code, fields and, as far as it has come,
/// body.
fn request(
    address: &str,
    method: &str,
    path: &str,
    fields: &str,
    body: &str,
) -> (u16, String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(answer.read_line(&mut head).expect("a head"), 0, "{head}");
    }
    let code = head[9..12].parse().expect("a code");
    (code, head, answer)
}

/// The whole of an answer that has a length.
fn answer(address: &str, method: &str, path: &str, fields: &str, body: &str) -> (u16, String) {
    let (code, head, mut rest) = request(address, method, path, fields, body);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    rest.read_exact(&mut body).expect("a whole body");
    (code, String::from_utf8(body).expect("text"))
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

fn signed(text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"demo-secret");
    data_encoding::HEXLOWER.encode(hmac::sign(&key, text.as_bytes()).as_ref())
}

fn publish(server: &Server, channel: &str, data: &str) {
    let body = json!({"name": "news", "channel": channel, "data": data}).to_string();
    let mut stream = TcpStream::connect(server.address(0)).expect("the server listens");
    let call = publish_call("Connection: close\r\n", &body);
    stream.write_all(call.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The pids of those who hold connections with this protocol and state.
fn holders(server: &Server, protocol: &str, status: &str) -> Vec<u64> {
    let output = server
        .place
        .run(&["connections", "--json", "--limit", "1000"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let all = told["connections"].as_array().expect("a list").iter();
    let those = all.filter(|row| row["protocol"] == protocol && row["status"] == status);
    those
        .map(|row| row["pid"].as_u64().expect("a pid"))
        .collect()
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
fn a_reload_sends_streams_and_polls_away_and_nobody_was_absent() {
    let server = server(2, "[limits]\nhttp_heartbeat_seconds = 5\n");
    let mut watcher = Client::streaming(&server, "watcher");
    assert_eq!(watcher.join("presence-room", "watcher"), ["watcher"]);
    let (mut client, holder, carrier) = {
        // One client at a time is looked for apart, so the watcher waits outside.
        drop(watcher);
        wait_until("it is gone", || {
            holders(&server, "sockjs", "open").is_empty()
        });
        apart(&server, "c")
    };
    assert_ne!(holder, carrier);
    assert_eq!(client.join("presence-room", "ann"), ["ann"]);
    let reload = {
        let command = server.place.command(&["reload"]);
        let mut command = command;
        command.stdout(std::process::Stdio::null());
        command.spawn().expect("it starts")
    };
    let mut reload = reload;
    let line = loop {
        let line = client.line();
        if !line.starts_with('a') && line != "h" {
            break line;
        }
    };
    assert_eq!(line, "c[4200,\"Please reconnect immediately\"]");
    assert_eq!(client.line(), "");
    let mut back = Client::streaming(&server, "back");
    back.join("presence-room", "ann");
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
    assert!(head.contains("Access-Control-Allow-Headers: Authorization, Content-Type\r\n"));

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
}

/// The fields of the next event of a stream of Server-Sent Events; comments are passed over.
fn next_event(stream: &mut BufReader<TcpStream>) -> Vec<String> {
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).expect("a line"), 0, "the end");
        match line.trim_end() {
            "" if fields.is_empty() => {}
            "" => return fields,
            comment if comment.starts_with(':') => {}
            field => fields.push(field.to_string()),
        }
    }
}

fn signed_query(channels: &str, expires: u64, rest: &str) -> String {
    let query = format!("auth_key=demo-key{rest}&channels={channels}&expires={expires}");
    let signature = signed(&format!("GET\n/app/demo-key/sse\n{query}"));
    format!("/app/demo-key/sse?{query}&auth_signature={signature}")
}

#[test]
fn readers_get_events_of_public_channels_and_of_others_with_a_signed_url() {
    let server = server(2, "[limits]\nhttp_heartbeat_seconds = 1\n");
    let address = server.address(0);
    let get = |path: &str| request(&address, "GET", path, "Origin: https://p.example\r\n", "");
    let (code, head, mut open) = get("/app/demo-key/sse?channels=a,b");
    assert_eq!(code, 200);
    for field in [
        "Content-Type: text/event-stream\r\n",
        "Access-Control-Allow-Origin: *\r\n",
    ] {
        assert!(head.contains(field), "{head}");
    }
    let retry = next_event(&mut open);
    assert!(retry[0].starts_with("retry: "), "{retry:?}");
    assert_eq!(
        next_event(&mut open)[0],
        "event: pusher:connection_established"
    );
    for channel in ["a", "b"] {
        let told = next_event(&mut open);
        assert!(
            told[1].contains(&format!("\"channel\":\"{channel}\"")),
            "{told:?}"
        );
    }
    publish(&server, "b", "1");
    let data = "data: {\"event\":\"news\",\"channel\":\"b\",\"data\":\"1\"}";
    assert_eq!(next_event(&mut open), ["event: news", data]);
    assert_eq!(holders(&server, "sse", "open").len(), 1);

    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let mut comments = String::new();
    open.read_line(&mut comments).expect("a heartbeat");
    assert_eq!(comments, ":\n");

    let private = "private-a,presence-b";
    let me = "&channel_data={\"user_id\":\"reader\"}";
    let (code, _, mut signed) = get(&signed_query(private, now + 60, me));
    assert_eq!(code, 200);
    let told: Vec<String> = (0..4).map(|_| next_event(&mut signed).concat()).collect();
    assert!(told[3].contains("reader"), "{told:?}");
    for (path, expected) in [
        (format!("/app/demo-key/sse?channels={private}"), 401),
        (signed_query(private, now - 1, me), 401),
        (
            signed_query(private, now + 60, me).replace("private-a", "private-c"),
            401,
        ),
        (
            signed_query("a", now + 60, "").replace("=a&", "=a,private-x&"),
            401,
        ),
        ("/app/demo-key/sse?channels=".to_string(), 400),
        ("/app/demo-key/sse?channels=a%20b".to_string(), 400),
        ("/app/nobody/sse?channels=a".to_string(), 404),
    ] {
        assert_eq!(get(&path).0, expected, "{path}");
    }
}

#[test]
fn readers_are_let_go_when_the_worker_is_replaced() {
    let server = server(1, "");
    let path = "/app/demo-key/sse?channels=a";
    let (_, _, mut stream) = request(&server.address(0), "GET", path, "", "");
    let mut reload = server.place.command(&["reload"]);
    let mut reload = reload
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an orderly end");
    assert!(rest.contains("4200"), "{rest}");
    assert!(reload.wait().expect("it ends").success());
    assert_eq!(request(&server.address(0), "GET", path, "", "").0, 200);
}

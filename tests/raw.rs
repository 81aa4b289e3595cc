//! Listeners by URL, with real sockets: clients of lines, frames and plain bytes beside WebSocket
//! clients, HTTP through a Unix socket, and the socket file from its birth to its end.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use support::{PATIENCE, Place, Server, kill, pid_of, processes, publish_call, wait_until};
use tungstenite::{Message, WebSocket};

const APPS: &str = "[[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n";
/// Of `examples/game.py`.
const ROOM: &str = "presence-room";

/// A server of `workers` with a listener for each URL and handler, on free ports.
fn server(workers: u32, listeners: &[(&str, &str)], rest: &str) -> Server {
    Server::start(&config(workers, listeners, rest))
}

fn config(workers: u32, listeners: &[(&str, &str)], rest: &str) -> String {
    let mut text = format!("workers = {workers}\n");
    for (url, handler) in listeners {
        text.push_str(&format!(
            "[[listen]]\nurl = \"{url}\"\nhandler = \"{handler}\"\n"
        ));
    }
    text + APPS + rest
}

const ROOMS: &[(&str, &str)] = &[
    ("websocket://127.0.0.1:0", "channels"),
    ("text://127.0.0.1:0", "channels"),
    ("frame://127.0.0.1:0", "channels"),
];

/// A client of any kind that speaks Pusher events.
enum Client {
    WebSocket(Box<WebSocket<TcpStream>>),
    Lines(BufReader<TcpStream>),
    Frames(TcpStream),
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

impl Client {
    fn websocket(address: &str) -> Client {
        let url = format!("ws://{address}/app/demo-key?protocol=7");
        let (socket, _) = tungstenite::client(url, connect(address)).expect("a handshake");
        Client::WebSocket(Box::new(socket))
    }

    fn lines(address: &str) -> Client {
        Client::Lines(BufReader::new(connect(address)))
    }

    fn frames(address: &str) -> Client {
        Client::Frames(connect(address))
    }

    /// Introduces itself as a raw client has to.
    fn introduced(mut self) -> Client {
        self.send(&json!({"event": "pusher:connect",
                          "data": {"app_key": "demo-key", "protocol": 7}}));
        self
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        match self {
            Client::WebSocket(socket) => socket.send(Message::text(text)).expect("sent"),
            Client::Lines(stream) => {
                let line = format!("{text}\n");
                stream.get_mut().write_all(line.as_bytes()).expect("sent");
            }
            Client::Frames(stream) => stream.write_all(&frame(text.as_bytes())).expect("sent"),
        }
    }

    /// The next message; `None` at the end.
    fn read(&mut self) -> Option<Value> {
        let text = match self {
            Client::WebSocket(socket) => match socket.read().expect("a message") {
                Message::Text(text) => text.to_string(),
                other => panic!("a text was expected, not {other:?}"),
            },
            Client::Lines(stream) => {
                let mut line = String::new();
                if stream.read_line(&mut line).expect("a line or the end") == 0 {
                    return None;
                }
                line
            }
            Client::Frames(stream) => {
                let mut prefix = [0; 4];
                match stream.read_exact(&mut prefix) {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
                    read => read.expect("a prefix"),
                }
                let mut body = vec![0; u32::from_be_bytes(prefix) as usize - 4];
                stream.read_exact(&mut body).expect("a whole frame");
                String::from_utf8(body).expect("text")
            }
        };
        Some(serde_json::from_str(&text).expect("JSON"))
    }

    /// The next event of this name; others are passed over.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let mut event = self
                .read()
                .unwrap_or_else(|| panic!("the end before {name}"));
            if event["event"] == name {
                if let Some(data) = event["data"].as_str() {
                    event["data"] = serde_json::from_str(data).expect("data is JSON here");
                }
                return event;
            }
        }
    }

    /// Subscribes to `room` as `user`; who was there then.
    fn join(&mut self, room: &str, user: &str) -> Vec<String> {
        let hello = self.event("pusher:connection_established");
        assert_eq!(hello["data"]["activity_timeout"], 120);
        let socket_id = hello["data"]["socket_id"].as_str().expect("an id");
        let me = json!({"user_id": user, "user_info": {"name": user}}).to_string();
        let auth = signature(&format!("{socket_id}:{room}:{me}"));
        self.send(&json!({"event": "pusher:subscribe",
                          "data": {"channel": room, "auth": auth, "channel_data": me}}));
        let joined = self.event("pusher_internal:subscription_succeeded");
        let ids = joined["data"]["presence"]["ids"].as_array().expect("ids");
        let mut ids: Vec<String> = ids
            .iter()
            .map(|id| id.as_str().expect("an id").to_string())
            .collect();
        ids.sort();
        ids
    }

    fn chat(&mut self, room: &str, text: &str) {
        self.send(&json!({"event": "client-message", "channel": room, "data": {"text": text}}));
    }

    fn hears(&mut self, from: &str, text: &str) {
        let event = self.event("client-message");
        assert_eq!(event["user_id"], from);
        assert_eq!(event["data"]["text"], text);
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 4).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn signature(text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"demo-secret");
    let signed = hmac::sign(&key, text.as_bytes());
    format!(
        "demo-key:{}",
        data_encoding::HEXLOWER.encode(signed.as_ref())
    )
}

/// Sends `bytes` and reads to the end.
fn exchange(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an orderly end");
    answer
}

fn counter(server: &Server, name: &str) -> u64 {
    server.status()["total"][name].as_u64().expect("a counter")
}

#[test]
fn lines_frames_and_websockets_chat_in_one_presence_room_of_several_workers() {
    let server = server(3, ROOMS, "");
    let [websocket, lines, frames] = [0, 1, 2].map(|listen| server.address(listen));
    // Enough of each that the workers all have some.
    for round in 0..4 {
        let room = format!("presence-{round}");
        let mut ann = Client::websocket(&websocket);
        assert_eq!(ann.join(&room, "ann"), ["ann"]);
        let mut bob = Client::lines(&lines).introduced();
        assert_eq!(bob.join(&room, "bob"), ["ann", "bob"]);
        let added = ann.event("pusher_internal:member_added");
        assert_eq!(added["data"]["user_id"], "bob");
        let mut cyd = Client::frames(&frames).introduced();
        assert_eq!(cyd.join(&room, "cyd"), ["ann", "bob", "cyd"]);
        assert_eq!(
            bob.event("pusher_internal:member_added")["data"]["user_info"]["name"],
            "cyd"
        );
        let text = format!("round {round}: two\nlines, \"quoted\", größer");
        for speaker in ["ann", "bob", "cyd"] {
            let all = [("ann", &mut ann), ("bob", &mut bob), ("cyd", &mut cyd)];
            let (said, heard): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|(name, _)| *name == speaker);
            said.into_iter()
                .for_each(|(_, client)| client.chat(&room, &text));
            heard
                .into_iter()
                .for_each(|(_, client)| client.hears(speaker, &text));
        }
        drop(bob);
        let removed = cyd.event("pusher_internal:member_removed");
        assert_eq!(removed["data"]["user_id"], "bob");
    }
}

#[test]
fn raw_clients_meet_the_same_rules_as_websocket_clients() {
    let server = server(1, ROOMS, "");
    let mut client = Client::lines(&server.address(1)).introduced();
    client.event("pusher:connection_established");
    client.send(&json!({"event": "pusher:subscribe",
                        "data": {"channel": "private-x", "auth": "demo-key:00"}}));
    let refused = client.event("pusher:subscription_error");
    assert_eq!(refused["data"]["status"], 401);
    client.send(&json!({"event": "client-x", "channel": "private-x", "data": "{}"}));
    assert_eq!(client.event("pusher:error")["data"]["code"], Value::Null);
    client.send(&json!({"event": "pusher:ping"}));
    client.event("pusher:pong");
}

#[test]
fn who_introduces_itself_wrongly_is_told_the_code_and_then_the_end() {
    let server = server(
        1,
        ROOMS,
        "[limits]\nconnect_seconds = 1\nmessage_bytes = 1024\n",
    );
    let lines = server.address(1);
    let connect = |data: Value| json!({"event": "pusher:connect", "data": data}).to_string();
    for (line, code) in [
        (connect(json!({"app_key": "nobody's"})), 4001),
        (connect(json!({"app_key": "demo-key", "protocol": 6})), 4007),
        (connect(json!({})), 4009),
        ("GET / HTTP/1.1\r".to_string(), 4009),
        (json!({"event": "pusher:ping"}).to_string(), 4009),
        ("x".repeat(2000), 1009),
        // Half a line, then nothing.
        (String::new(), 1002),
    ] {
        let whole = if line.is_empty() {
            "half".into()
        } else {
            line + "\n"
        };
        let answer = exchange(&lines, whole.as_bytes());
        let error: Value = serde_json::from_slice(&answer).expect("one line");
        assert_eq!(error["event"], "pusher:error");
        assert_eq!(error["data"]["code"], code, "{error}");
    }
    let answer = exchange(&lines, b"\xff\xfe\n");
    assert!(String::from_utf8_lossy(&answer).contains("1007"));
}

#[test]
fn lengths_that_cannot_be_end_their_own_connection_only() {
    let listeners = &[("frame://127.0.0.1:0", "channels")];
    let server = server(1, listeners, "[limits]\nmessage_bytes = 1024\n");
    let address = server.address(0);
    let mut bystander = Client::frames(&address).introduced();
    bystander.event("pusher:connection_established");
    for (length, code) in [(0_u32, 1002), (4, 1002), (1025, 1009), (u32::MAX, 1009)] {
        let mut culprit = Client::frames(&address);
        let Client::Frames(stream) = &mut culprit else {
            unreachable!();
        };
        stream.write_all(&length.to_be_bytes()).expect("sent");
        assert_eq!(culprit.event("pusher:error")["data"]["code"], code);
        assert_eq!(culprit.read(), None);
    }
    bystander.send(&json!({"event": "pusher:ping"}));
    bystander.event("pusher:pong");
    assert_eq!(counter(&server, "closed_violation"), 4);
}

#[test]
fn a_dead_peer_is_found_within_twice_the_interval_though_we_keep_sending() {
    let limits = "[limits]\nactivity_seconds = 10\npong_seconds = 2\n";
    let server = server(1, ROOMS, limits);
    let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": "news"}});
    let mut dead = Client::lines(&server.address(1)).introduced();
    dead.send(&subscribe);
    dead.event("pusher_internal:subscription_succeeded");
    let mut live = Client::frames(&server.address(2)).introduced();
    live.event("pusher:connection_established");
    let began = Instant::now();
    let address = server.address(0);
    let publisher = std::thread::spawn(move || {
        let body = r#"{"name":"e","channel":"news","data":"x"}"#;
        let request = publish_call("Connection: close\r\n", body);
        while began.elapsed() < Duration::from_secs(15) {
            exchange(&address, request.as_bytes());
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    // It answers, so it stays; the other hears the same question, says nothing, and is ended.
    live.event("pusher:ping");
    live.send(&json!({"event": "pusher:pong", "data": {}}));
    let Client::Lines(stream) = &mut dead else {
        unreachable!();
    };
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("an orderly end");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(told.contains("\"event\":\"e\""), "{told}");
    assert!(told.contains("pusher:ping"), "{told}");
    assert!(
        told.trim_end().ends_with('}') && told.contains("4201"),
        "{told}"
    );
    assert_eq!(counter(&server, "closed_unheard"), 1);
    publisher.join().expect("published");
    live.send(&json!({"event": "pusher:ping"}));
    live.event("pusher:pong");
}

#[test]
fn a_server_that_stops_tells_raw_clients_so() {
    let mut server = server(1, ROOMS, "");
    let mut client = Client::frames(&server.address(2)).introduced();
    client.event("pusher:connection_established");
    kill(server.pid(), 15);
    assert_eq!(client.event("pusher:error")["data"]["code"], 1001);
    assert_eq!(client.read(), None);
    assert!(server.wait().success());
}

#[test]
fn every_scheme_serves_what_it_says_and_status_shows_it() {
    let listeners = &[
        ("http://[::1]:0", "echo"),
        ("websocket://127.0.0.1:0", "echo"),
        ("text://[::1]:0", "echo"),
        ("frame://127.0.0.1:0", "echo"),
        ("tcp://localhost:0", "echo"),
        ("unix://echo.sock", "echo"),
    ];
    let server = server(2, listeners, "");
    let urls: Vec<String> = (0..listeners.len())
        .map(|listen| server.url(listen))
        .collect();
    let socket = server.place.path().join("echo.sock");
    let unix = format!(
        "unix://{}",
        fs::canonicalize(&socket).expect("a socket").display()
    );
    let starts = [
        "http://[::1]:",
        "websocket://127.0.0.1:",
        "text://[::1]:",
        "frame://127.0.0.1:",
    ];
    let starts = starts
        .into_iter()
        .chain(["tcp://127.0.0.1:", unix.as_str()]);
    let banner = server.stdout();
    for (url, start) in urls.iter().zip(starts) {
        assert!(url.starts_with(start) && !url.ends_with(":0"), "{url}");
        assert!(banner.contains(url.as_str()), "no {url} in:\n{banner}");
    }
    for listen in [0, 1] {
        let address = server.address(listen);
        assert_eq!(
            support::get(&address, "/healthz").expect("an answer").0,
            200
        );
        let url = format!("ws://{address}/");
        let (mut socket, _) = tungstenite::client(url, connect(&address)).expect("a handshake");
        socket.send(Message::text("both")).expect("sent");
        assert_eq!(socket.read().expect("an answer"), Message::text("both"));
    }
    for (listen, sent, expected) in [
        (2, &b"one\r\n\ntwo\n"[..], &b"one\n\ntwo\n"[..]),
        (3, &frame(b"\xff\x00"), &frame(b"\xff\x00")),
        (4, b"any\xff\x00bytes", b"any\xff\x00bytes"),
    ] {
        let mut stream = connect(&server.address(listen));
        stream.write_all(sent).expect("sent");
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).expect("it comes back");
        assert_eq!(answer, expected);
    }
}

/// One GET through a Unix socket.
fn get_unix(path: &std::path::Path) -> String {
    let mut stream = UnixStream::connect(path).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_unix_socket_serves_from_every_worker_and_its_file_goes_with_the_server() {
    let listeners = &[("unix://web.sock", "channels")];
    let mut server = server(2, listeners, "");
    let path = server.place.path().join("web.sock");
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let room = |path: &std::path::Path| {
        let stream = UnixStream::connect(path).expect("the server listens");
        let (socket, _) =
            tungstenite::client("ws://x/app/demo-key?protocol=7", stream).expect("a handshake");
        socket
    };
    let mut socket = room(&path);
    let hello = socket.read().expect("a greeting").to_string();
    assert!(hello.contains("connection_established"), "{hello}");
    // One worker after the other is killed: the other accepts from the same socket.
    for number in 0..2 {
        let status = server.status();
        let worker = pid_of(processes(&status, "worker")[number]);
        server.kill(worker, 9);
        assert!(get_unix(&path).starts_with("HTTP/1.1 200"));
        wait_until("it is replaced", || server.status()["state"] == "running");
    }
    kill(server.pid(), 15);
    assert!(server.wait().success());
    assert!(!path.exists());
}

#[test]
fn the_socket_of_a_killed_server_is_replaced_and_that_of_a_living_one_refused() {
    let listeners = &[("unix://web.sock", "echo")];
    let mut server = server(1, listeners, "");
    let path = server.place.path().join("web.sock");
    let other = Place::new(&config(
        1,
        &[(&format!("unix://{}", path.display()), "echo")],
        "",
    ));
    let refused = other.run(&["start"]);
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("another program listens there"), "{words}");
    assert!(
        get_unix(&path).starts_with("HTTP/1.1 200"),
        "it was left alone"
    );
    kill(server.pid(), 9);
    server.wait();
    assert!(path.exists());
    wait_until("its workers are gone", || {
        UnixStream::connect(&path).is_err()
    });
    let _successor = Server::start_in(other);
    assert!(get_unix(&path).starts_with("HTTP/1.1 200"));
}

#[test]
fn the_python_game_of_the_page_plays_with_a_browser() {
    let server = server(2, ROOMS, "");
    let mut ann = Client::websocket(&server.address(0));
    ann.join(ROOM, "ann");
    let lines = server.address(1);
    let (host, port) = lines.split_once(':').expect("a port");
    let game = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/game.py");
    let mut game = Command::new("python3")
        .args([game, host, port, "bob"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut said = BufReader::new(game.stdout.take().expect("piped")).lines();
    let added = ann.event("pusher_internal:member_added");
    assert_eq!(added["data"]["user_id"], "bob");
    ann.hears("bob", "bob is here");
    ann.chat(ROOM, "welcome");
    let welcome = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("welcome")));
    assert!(welcome.is_some());
    game.kill().expect("killed");
    game.wait().expect("ended");
    let removed = ann.event("pusher_internal:member_removed");
    assert_eq!(removed["data"]["user_id"], "bob");
}

#[test]
fn the_session_of_the_page_is_what_the_server_says() {
    let page = include_str!("../docs/raw-tcp.md");
    let server = server(1, ROOMS, "");
    let mut stream = BufReader::new(connect(&server.address(1)));
    let session = page.split("```text\n").nth(1).expect("a session");
    let session = session.split("```").next().expect("its end");
    for line in session.lines() {
        if let Some(sent) = line.strip_prefix("> ") {
            stream
                .get_mut()
                .write_all(format!("{sent}\n").as_bytes())
                .expect("sent");
        } else if let Some(expected) = line.strip_prefix("< ") {
            let mut found = String::new();
            stream.read_line(&mut found).expect("a line");
            // Socket ids differ from one connection to the next.
            let (before, after) = expected.split_once("120.240").unwrap_or((expected, ""));
            let found = found.trim_end();
            assert!(
                found.starts_with(before) && found.ends_with(after),
                "{found}\n{expected}"
            );
        }
    }
}

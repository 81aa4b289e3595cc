//! What happens at the limits of the whole program, with real sockets: whoever passes one is
//! answered as documented, and nobody else notices.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{DEMO, ECHO, PATIENCE, Place, Server, pid_of, processes, publish_call, wait_until};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket, client};

type Socket = WebSocket<TcpStream>;

/// A WebSocket to `path`.
fn open(address: &str, path: &str) -> Socket {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (socket, _) =
        tungstenite::client(format!("ws://{address}{path}"), stream).expect("a handshake");
    socket
}

/// A Pusher client that is subscribed to `channel`.
fn subscriber(address: &str, channel: &str) -> Socket {
    let mut socket = open(address, "/app/demo-key?protocol=7");
    let subscribe = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
    socket.send(Message::text(subscribe)).expect("sent");
    assert!(text(&mut socket).contains("connection_established"));
    assert!(text(&mut socket).contains("subscription_succeeded"));
    socket
}

fn text(socket: &mut Socket) -> String {
    match socket.read() {
        Ok(Message::Text(text)) => text.to_string(),
        other => panic!("a text was expected, not {other:?}"),
    }
}

/// A connection whose answers are read head by head.
fn publish(stream: &mut TcpStream, channel: &str, data: &str) -> u16 {
    let body = format!(r#"{{"name":"e","channel":"{channel}","data":"{data}"}}"#);
    let call = publish_call("", &body);
    stream.write_all(call.as_bytes()).expect("sent");
    let mut answer = [0; 1024];
    let count = stream.read(&mut answer).expect("an answer");
    let status = std::str::from_utf8(&answer[9..12.min(count)]).expect("a status");
    status.parse().expect("a number")
}

fn counter(server: &Server, name: &str) -> u64 {
    let status = server.status();
    let workers = processes(&status, "worker");
    workers
        .iter()
        .map(|worker| worker["counters"][name].as_u64().unwrap_or(0))
        .sum()
}

/// Sends `request` on a connection of its own and reads to the end.
fn exchange(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request).expect("sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer and an orderly end");
    answer
}

#[test]
fn a_slow_reader_is_cut_and_the_others_get_everything() {
    let server = Server::start(&format!(
        "workers = 1\n{DEMO}[limits]\noutbox_bytes = 262144\n"
    ));
    let address = server.address(0);
    let slow = subscriber(&address, "news");
    let mut fast = subscriber(&address, "news");
    let events = 2000;
    let reader = std::thread::spawn(move || {
        let mut got = 0;
        while got < events {
            assert!(text(&mut fast).contains("\"event\":\"e\""));
            got += 1;
        }
        got
    });
    let mut publisher = TcpStream::connect(&address).expect("the server listens");
    let data = "x".repeat(10_000);
    for _ in 0..events {
        assert_eq!(publish(&mut publisher, "news", &data), 200);
    }
    assert_eq!(reader.join().expect("the fast one read on"), events);
    wait_until("the slow one is cut", || {
        counter(&server, "closed_slow") == 1
    });
    assert_eq!(
        counter(&server, "connections"),
        1,
        "only the publisher is left"
    );
    drop(slow);
}

#[test]
fn at_the_descriptor_limit_the_served_go_on_and_the_waiting_come_in_later() {
    let place = Place::new(&format!("workers = 1\n{ECHO}"));
    let plain = place.command(&["start"]);
    let mut limited = Command::new("sh");
    limited
        .arg("-c")
        .arg("ulimit -n 64 && exec \"$0\" \"$@\"")
        .arg(plain.get_program());
    limited.args(plain.get_args());
    let server = Server::start_with(place, limited);
    let address = server.address(0);
    let mut first = open(&address, "/");
    // More than 64 descriptors can hold; the kernel queues the rest.
    let mut crowd: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(&address).expect("queued at least"))
        .collect();
    wait_until("accepting rests", || counter(&server, "accept_pauses") >= 1);
    first.send(Message::text("still there?")).expect("sent");
    assert_eq!(text(&mut first), "still there?");
    let status = server.status();
    let worker = pid_of(processes(&status, "worker")[0]);
    let before = cpu_ticks(worker);
    let began = Instant::now();
    wait_until("a second has passed", || {
        began.elapsed() > Duration::from_secs(1)
    });
    assert!(
        cpu_ticks(worker) - before < 20,
        "resting costs next to nothing"
    );
    let last = crowd.pop().expect("a hundred");
    drop(crowd);
    let mut last = last;
    last.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    let mut answer = [0; 12];
    last.read_exact(&mut answer)
        .expect("served once others have left");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// Whether every thread of a process has stopped.
fn is_stopped(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

/// User and system time of a process, in clock ticks (proc(5)).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let fields: Vec<&str> = fields.split(' ').collect();
    [11, 12]
        .iter()
        .map(|field| fields[*field].parse::<u64>().expect("ticks"))
        .sum()
}

#[test]
fn at_the_connection_limit_the_next_is_served_when_one_leaves() {
    let server = Server::start(&format!("workers = 1\n{ECHO}[limits]\nconnections = 2\n"));
    let address = server.address(0);
    let first = open(&address, "/");
    let mut second = open(&address, "/");
    let mut third = TcpStream::connect(&address).expect("queued");
    third
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("sent");
    wait_until("accepting rests", || counter(&server, "accept_pauses") == 1);
    second.send(Message::text("hello")).expect("sent");
    assert_eq!(text(&mut second), "hello");
    drop(first);
    let mut answer = String::new();
    third.read_to_string(&mut answer).expect("served at last");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn what_is_too_large_is_answered_with_its_status() {
    let limits = "[limits]\nhttp_head_bytes = 1024\nhttp_body_bytes = 1024\nmessage_bytes = 1024\n";
    let server = Server::start(&format!("workers = 1\n{ECHO}{limits}"));
    let address = server.address(0);
    let head = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "x".repeat(2000)
    );
    assert!(exchange(&address, head.as_bytes()).starts_with("HTTP/1.1 431 "));
    let target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(2000));
    assert!(exchange(&address, target.as_bytes()).starts_with("HTTP/1.1 414 "));
    let body = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n{}",
        "x".repeat(1025)
    );
    assert!(exchange(&address, body.as_bytes()).starts_with("HTTP/1.1 413 "));
    assert!(exchange(&address, b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let mut socket = open(&address, "/");
    socket.send(Message::binary(vec![0; 1024])).expect("sent");
    assert_eq!(socket.read().expect("just fits").len(), 1024);
    socket.send(Message::binary(vec![0; 1025])).expect("sent");
    match socket.read() {
        Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1009),
        other => panic!("a Close frame was expected, not {other:?}"),
    }
}

#[test]
fn a_malformed_frame_ends_its_own_connection_only() {
    let server = Server::start(&format!("workers = 1\n{ECHO}"));
    let address = server.address(0);
    let mut bystander = open(&address, "/");
    let mut culprit = open(&address, "/");
    // An unmasked frame with a reserved opcode.
    culprit
        .get_mut()
        .write_all(&[0x83, 0x01, 0x00])
        .expect("sent");
    match culprit.read() {
        Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1002),
        other => panic!("a Close frame was expected, not {other:?}"),
    }
    bystander.send(Message::text("unmoved")).expect("sent");
    assert_eq!(text(&mut bystander), "unmoved");
    assert_eq!(counter(&server, "closed_violation"), 1);
}

#[test]
fn a_slow_handshake_runs_out_of_time() {
    let limits = "[limits]\nhttp_head_seconds = 1\nhttp_body_seconds = 1\n";
    let server = Server::start(&format!("workers = 1\n{ECHO}{limits}"));
    let address = server.address(0);
    assert!(exchange(&address, b"GET / HT").starts_with("HTTP/1.1 408 "));
    let body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf";
    assert!(exchange(&address, body).starts_with("HTTP/1.1 408 "));
    assert_eq!(
        exchange(&address, b""),
        "",
        "who says nothing is told nothing"
    );
}

#[test]
fn a_dead_websocket_is_found_within_twice_the_interval_though_we_keep_sending() {
    // The longer pong_seconds would find it too late, so it does not count.
    let limits = "[limits]\nactivity_seconds = 10\npong_seconds = 300\n";
    let server = Server::start(&format!("workers = 1\n{DEMO}{limits}"));
    let address = server.address(0);
    // It reads nothing, so it answers nothing.
    let silent = subscriber(&address, "news");
    let began = Instant::now();
    let mut publisher = TcpStream::connect(&address).expect("the server listens");
    while counter(&server, "closed_unheard") == 0 {
        // Ten seconds for the client to check and ten more until our PING: that is the interval.
        assert!(began.elapsed() < Duration::from_secs(40), "nobody noticed");
        assert_eq!(publish(&mut publisher, "news", "still there?"), 200);
        std::thread::sleep(Duration::from_millis(200));
    }
    drop((silent, publisher));
    wait_until("it is gone", || counter(&server, "connections") == 0);
}

#[test]
fn input_that_arrives_in_crumbs_is_understood() {
    let server = Server::start(&format!("workers = 1\n{ECHO}"));
    let mut stream = TcpStream::connect(server.address(0)).expect("the server listens");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for byte in b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    {
        stream.write_all(&[*byte]).expect("sent");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[test]
fn probes_tell_alive_from_ready() {
    let server = Server::start(&format!("workers = 2\nwatchdog_seconds = 0\n{DEMO}"));
    let address = server.address(0);
    let (status, body) = support::get(&address, "/readyz").expect("an answer");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (status, &body["ready"], &body["linked"]),
        (200, &Value::Bool(true), &2.into())
    );
    let status = server.status();
    let switchboard = pid_of(processes(&status, "switchboard")[0]);
    // Stopped, not killed, and without a watchdog: so that nobody replaces it.
    server.kill(switchboard, 19);
    // The signal is taken by one thread and then stops the others, which takes its time.
    wait_until("the switchboard stands still", || is_stopped(switchboard));
    let (status, _) = support::get(&address, "/healthz").expect("an answer");
    assert_eq!(status, 200, "a worker is alive without the switchboard");
    let (status, _) = support::get(&address, "/readyz").expect("an answer");
    assert_eq!(status, 503, "but not ready");
    let mut publisher = TcpStream::connect(&address).expect("the server listens");
    assert_eq!(
        publish(&mut publisher, "news", "x"),
        503,
        "and it promises nothing"
    );
    server.kill(switchboard, 18);
    wait_until("it is ready again", || {
        support::get(&address, "/readyz").is_ok_and(|(status, _)| status == 200)
    });
}

#[test]
fn browsers_learn_what_they_may_do() {
    let http = "[http]\ncors_origins = [\"https://*.example.com\"]\n";
    let server = Server::start(&format!("workers = 1\n{DEMO}{http}"));
    let address = server.address(0);
    let ask = |line: &str, fields: &str| {
        let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
        exchange(&address, head.as_bytes())
    };
    let listed = "Origin: https://a.example.com\r\nAccess-Control-Request-Method: POST\r\n";
    let answer = ask("OPTIONS /apps/demo/events", listed);
    assert!(
        answer.starts_with("HTTP/1.1 204 No Content\r\nDate: "),
        "{answer}"
    );
    assert!(!answer.contains("Content-Length"), "{answer}");
    for line in [
        "Allow: POST, OPTIONS",
        "Vary: Origin",
        "Access-Control-Allow-Origin: https://a.example.com",
        "Access-Control-Allow-Methods: POST, OPTIONS",
        "Access-Control-Allow-Headers: Authorization, Content-Type, Last-Event-ID",
    ] {
        assert!(
            answer.contains(&format!("\r\n{line}\r\n")),
            "{line}: {answer}"
        );
    }
    let answer = ask("GET /readyz", listed);
    let told = "\r\nAccess-Control-Allow-Origin: https://a.example.com\r\n";
    assert!(
        answer.contains(told),
        "answers that came later too: {answer}"
    );
    let answer = ask("GET /apps/demo/channels", listed);
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains(told),
        "{answer}"
    );
    let answer = ask("OPTIONS /healthz", "Origin: https://evil.example\r\n");
    assert!(
        answer.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("Access-Control"), "{answer}");
    let answer = ask("OPTIONS *", "");
    assert!(
        answer.contains("\r\nAllow: GET, HEAD, POST, OPTIONS\r\n"),
        "{answer}"
    );
    assert!(ask("OPTIONS /nowhere", "").starts_with("HTTP/1.1 404 "));
    assert!(ask("TRACE /", "").starts_with("HTTP/1.1 501 "));
    let head = ask("HEAD /", "");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(!head.contains("\r\nServer:"), "{head}");
}

#[test]
fn an_app_chooses_the_pages_that_may_connect() {
    let server = Server::start(&format!(
        "workers = 1\n{DEMO}origins = [\"https://good.example\"]\n"
    ));
    let address = server.address(0);
    for (origin, event) in [
        (
            Some("https://good.example"),
            "pusher:connection_established",
        ),
        (None, "pusher:connection_established"),
        (Some("https://evil.example"), "4009"),
    ] {
        let mut request = format!("ws://{address}/app/demo-key?protocol=7")
            .into_client_request()
            .expect("a request");
        if let Some(origin) = origin {
            let value = origin.parse().expect("a value");
            request.headers_mut().insert("Origin", value);
        }
        let stream = TcpStream::connect(&address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (mut socket, _) = client(request, stream).expect("upgraded");
        let said = format!("{:?}", socket.read().expect("a message"));
        assert!(said.contains(event), "{origin:?}: {said}");
    }
}

//! The limits on who comes in and how fast, with real sockets and several workers: what happens at
//! each, that its counter tells, and that others go on.

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use support::{
    DEMO, ECHO, PATIENCE, PUSH, Server, get, pid_of, processes, publish_call, requests, wait_until,
};
use tungstenite::{Message, WebSocket};

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the kernel takes it");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// From this address of the machine, with this much room for what comes back.
fn connect_from(source: &str, address: &str, receive_bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .set_recv_buffer_size(receive_bytes)
        .expect("an option");
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    socket.bind(&source.into()).expect("a loopback address");
    let address: SocketAddr = address.parse().expect("an address");
    socket.connect(&address.into()).expect("the server listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn open(address: &str, path: &str) -> WebSocket<TcpStream> {
    let url = format!("ws://{address}{path}");
    let (socket, _) = tungstenite::client(url, connect(address)).expect("a handshake");
    socket
}

/// Whether the server answers on this connection; it closes it otherwise.
fn is_served(stream: &mut TcpStream) -> bool {
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut answer = [0; 1024];
    // It is short and comes in one piece.
    let answered = asked.and_then(|()| stream.read(&mut answer));
    answered.is_ok_and(|count| answer[..count].starts_with(b"HTTP/1.1 200"))
}

/// Over all workers.
fn counter(server: &Server, name: &str) -> u64 {
    server.status()["total"][name].as_u64().expect("a counter")
}

fn text(socket: &mut WebSocket<TcpStream>) -> String {
    match socket.read() {
        Ok(Message::Text(text)) => text.to_string(),
        other => panic!("a text was expected, not {other:?}"),
    }
}

#[test]
fn a_full_listener_rests_over_all_workers_and_the_others_go_on() {
    let server = Server::start(&format!("workers = 3\n{ECHO}connections = 4\n{ECHO}"));
    let (full, other) = (server.address(0), server.address(1));
    let mut inside: Vec<TcpStream> = (0..4).map(|_| connect(&full)).collect();
    assert!(inside.iter_mut().all(is_served));
    let mut waiting = connect(&full);
    waiting
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("the kernel takes it");
    wait_until("the listener rests", || {
        counter(&server, "listener_full") >= 1
    });
    assert_eq!(counter(&server, "connections"), 4);
    assert_eq!(get(&other, "/healthz").expect("an answer").0, 200);
    assert!(inside.iter_mut().all(is_served));
    inside.pop();
    let mut answer = [0; 12];
    waiting.read_exact(&mut answer).expect("served at last");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn a_listener_accepts_at_its_rate_and_everybody_comes_in_later() {
    let server = Server::start(&format!("workers = 2\n{ECHO}accepts_per_second = 10\n"));
    let address = server.address(0);
    let began = Instant::now();
    let mut crowd: Vec<TcpStream> = (0..40).map(|_| connect(&address)).collect();
    assert!(crowd.iter_mut().all(is_served), "none is refused");
    // Ten at once, then thirty at ten in a second.
    assert!(began.elapsed() > Duration::from_millis(2500));
    assert!(counter(&server, "listener_paced") > 0);
}

#[test]
fn an_address_has_its_connections_over_all_workers_and_a_dead_worker_takes_none_along() {
    let limits = "[limits]\nconnections_per_address = 6\ntarpit_seconds = 0\n";
    let server = Server::start(&format!("workers = 3\n{ECHO}{limits}"));
    let address = server.address(0);
    let mut inside: Vec<TcpStream> = (0..6).map(|_| connect(&address)).collect();
    assert!(inside.iter_mut().all(is_served));
    for _ in 0..10 {
        assert!(!is_served(&mut connect(&address)));
    }
    assert_eq!(counter(&server, "refused_connections"), 10);
    let mut other = connect_from("127.0.0.2", &address, 65_536);
    assert!(is_served(&mut other), "another address has its own");
    // The worker that has most of them dies.
    let status = server.status();
    let workers = processes(&status, "worker");
    let busiest = workers
        .into_iter()
        .max_by_key(|worker| worker["counters"]["connections"].as_u64())
        .expect("three workers");
    server.kill(pid_of(busiest), 9);
    wait_until("its clients are gone", || {
        let before = inside.len();
        inside.retain_mut(is_served);
        inside.len() < before
    });
    let mut more = Vec::new();
    wait_until("their places are free", || {
        let mut stream = connect(&address);
        if is_served(&mut stream) {
            more.push(stream);
        }
        inside.len() + more.len() == 6
    });
    assert!(!is_served(&mut connect(&address)), "and no others");
}

#[test]
fn who_is_turned_away_is_told_so_after_a_while_of_his_own() {
    let limits = "[limits]\nconnections_per_address = 1\ntarpit_seconds = 3\n";
    let server = Server::start(&format!("workers = 2\n{ECHO}{limits}"));
    let address = server.address(0);
    let mut inside = connect(&address);
    assert!(is_served(&mut inside));
    let refused: Vec<TcpStream> = (0..30).map(|_| connect(&address)).collect();
    for stream in &refused {
        stream.set_nonblocking(true).expect("a socket");
    }
    let is_open = |mut stream: &TcpStream| {
        let read = stream.read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    wait_until("all are refused", || {
        counter(&server, "refused_connections") == 30
    });
    // Some are closed while others are still held, and at last all are.
    wait_until("some are closed and some are not", || {
        let open = refused.iter().filter(|stream| is_open(stream)).count();
        (1..30).contains(&open)
    });
    wait_until("all are closed", || !refused.iter().any(is_open));
    assert!(is_served(&mut inside));
}

#[test]
fn an_address_that_comes_too_often_is_turned_away_for_a_while() {
    let limits = "[limits]\naccepts_per_address_per_second = 5\ntarpit_seconds = 0\n";
    let server = Server::start(&format!("workers = 2\n{ECHO}{limits}"));
    let address = server.address(0);
    let served = (0..30).filter(|_| is_served(&mut connect(&address)));
    let served = served.count();
    assert!((5..30).contains(&served), "{served}");
    assert_eq!(counter(&server, "refused_rate"), 30 - served as u64);
    let mut other = connect_from("127.0.0.2", &address, 65_536);
    assert!(is_served(&mut other), "another address is as welcome");
    wait_until("it may come again", || is_served(&mut connect(&address)));
}

#[test]
fn who_sends_too_fast_waits_and_loses_nothing() {
    let text_listener = "[[listen]]\nurl = \"text://127.0.0.1:0\"\nhandler = \"echo\"\n";
    let limits = "[limits]\nmessages_per_second = 20\n";
    let server = Server::start(&format!("workers = 1\n{ECHO}{text_listener}{limits}"));
    let address = server.address(0);
    let mut socket = open(&address, "/");
    // Twenty are taken at once; the upgrade was one.
    for number in 0..60 {
        socket
            .write(Message::text(number.to_string()))
            .expect("queued");
    }
    let began = Instant::now();
    socket.flush().expect("sent");
    let mut bystander = open(&address, "/");
    bystander.send(Message::text("hello")).expect("sent");
    assert_eq!(text(&mut bystander), "hello");
    for number in 0..60 {
        assert_eq!(text(&mut socket), number.to_string());
    }
    assert!(began.elapsed() > Duration::from_millis(1500));
    assert!(counter(&server, "throttled") > 0);

    // Requests in a row, and lines, from who has nothing more to say after them.
    let mut pipelined = connect(&address);
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    pipelined
        .write_all(request.repeat(50).as_bytes())
        .expect("sent");
    pipelined
        .shutdown(std::net::Shutdown::Write)
        .expect("half closed");
    let mut answers = String::new();
    pipelined.read_to_string(&mut answers).expect("an end");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 50);

    let mut lines = connect(&server.address(1));
    let said: String = (0..50).map(|number| format!("{number}\n")).collect();
    lines.write_all(said.as_bytes()).expect("sent");
    lines
        .shutdown(std::net::Shutdown::Write)
        .expect("half closed");
    let mut heard = String::new();
    lines.read_to_string(&mut heard).expect("an end");
    assert_eq!(heard, said);
}

fn publish(stream: &mut TcpStream, data: &str) {
    let body = format!(r#"{{"name":"e","channel":"news","data":"{data}"}}"#);
    let call = publish_call("", &body);
    stream.write_all(call.as_bytes()).expect("sent");
    let mut answer = [0; 1024];
    let count = stream.read(&mut answer).expect("an answer");
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
}

fn subscribed(address: &str) -> WebSocket<TcpStream> {
    let mut socket = open(address, "/app/demo-key?protocol=7");
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#;
    socket.send(Message::text(subscribe)).expect("sent");
    assert!(text(&mut socket).contains("connection_established"));
    assert!(text(&mut socket).contains("subscription_succeeded"));
    socket
}

#[test]
fn with_the_policy_drop_a_slow_reader_misses_events_and_stays() {
    let limits = "[limits]\noutbox_bytes = 262144\noutbox_policy = \"drop\"\n";
    let server = Server::start(&format!("workers = 1\n{DEMO}{limits}"));
    let address = server.address(0);
    let mut slow = subscribed(&address);
    let mut publisher = connect(&address);
    let padding = "x".repeat(10_000);
    let mut published = 0;
    wait_until("events are dropped", || {
        for _ in 0..100 {
            publish(&mut publisher, &format!("{published} {padding}"));
            published += 1;
        }
        counter(&server, "events_dropped") > 200
    });
    assert_eq!(counter(&server, "closed_slow"), 0);
    // It reads on, finds gaps but no disorder, and then what is new.
    let reader = thread::spawn(move || {
        let mut got: Vec<u64> = Vec::new();
        loop {
            let event = text(&mut slow);
            let (_, data) = event.split_once("\"data\":\"").expect("an event");
            match data.split_once(' ') {
                Some((number, _)) => got.push(number.parse().expect("a number")),
                None => return got,
            }
        }
    });
    wait_until("it gets what is new", || {
        publish(&mut publisher, "new");
        reader.is_finished()
    });
    let got = reader.join().expect("it reads");
    assert!(
        (got.len() as u64) < published,
        "{} of {published}",
        got.len()
    );
    assert!(got.is_sorted(), "{got:?}");
}

#[test]
fn an_answer_that_nobody_takes_is_cut_in_time() {
    let limits = "[limits]\nwrite_seconds = 1\nhttp_body_bytes = 16777216\n";
    let server = Server::start(&format!("workers = 1\n{ECHO}{limits}"));
    let address = server.address(0);
    let body = vec![b'x'; 16_000_000];
    let mut streams = Vec::new();
    for (connection, cut) in [("keep-alive", 1), ("close", 2)] {
        let mut stream = connect_from("127.0.0.1", &address, 4096);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(&body).expect("sent");
        wait_until("it is cut", || counter(&server, "closed_unread") == cut);
        streams.push(stream);
    }
    wait_until("both are gone", || counter(&server, "connections") == 0);
    assert_eq!(counter(&server, "closed_slow"), 0);
}

#[test]
fn each_deadline_has_a_counter_of_its_own() {
    let lines = "[[listen]]\nurl = \"text://127.0.0.1:0\"\n";
    let limits = "[limits]\nhttp_head_seconds = 1\nhttp_body_seconds = 1\nconnect_seconds = 1\n\
                  close_seconds = 1\n";
    let server = Server::start(&format!("workers = 1\n{lines}{DEMO}{limits}"));
    let (lines, http) = (server.address(0), server.address(1));
    let mut silent = connect(&http);
    let mut half = connect(&http);
    half.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        .expect("sent");
    let mut nobody = connect(&lines);
    // It is told 4001 and does not answer the Close frame.
    let mut rude = open(&http, "/app/unknown?protocol=7");
    let mut said = String::new();
    assert_eq!(silent.read_to_string(&mut said).expect("an end"), 0);
    half.read_to_string(&mut said).expect("an end");
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    let mut said = String::new();
    BufReader::new(&mut nobody)
        .read_line(&mut said)
        .expect("an end");
    assert!(said.contains("1002"), "{said}");
    wait_until("the Close frame was waited for", || {
        counter(&server, "late_closes") == 1
    });
    assert_eq!(counter(&server, "late_requests"), 2);
    assert_eq!(counter(&server, "late_introductions"), 1);
    assert!(matches!(rude.read(), Ok(Message::Close(Some(_)))));
}

#[test]
fn a_listener_is_served_by_the_first_of_the_workers_also_after_a_reload() {
    let toml = format!("workers = 3\n{ECHO}workers = 1\n{ECHO}");
    let server = Server::start(&toml);
    let address = server.address(0);
    let mut streams: Vec<TcpStream> = (0..30).map(|_| connect(&address)).collect();
    assert!(streams.iter_mut().all(is_served));
    let status = server.status();
    assert_eq!(status["listen"][0]["workers"], 1);
    assert_eq!(status["listen"][1]["workers"], 3);
    let workers = processes(&status, "worker");
    let accepted = workers.iter().map(|it| &it["counters"]["accepted"]);
    assert_eq!(accepted.collect::<Vec<_>>(), [30, 0, 0]);
    let table = server.place.run(&["status"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("(echo, 1 of 3 workers)"), "{table}");

    let more = toml.replace("workers = 1", "workers = 2");
    server.place.configure(&more);
    let refused = server.place.run(&["reload"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("listen.workers: cannot change"), "{words}");

    server.place.configure(&toml);
    let reloaded = server.place.run(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0));
    assert!(is_served(&mut connect(&address)));
}

const BEARER: &str = "Authorization: Bearer demo-secret\r\n";

fn call_devices(address: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let path = format!("/apps/demo/devices{path}");
    let (status, body) = requests::answer(address, method, &path, BEARER, body);
    (status, serde_json::from_str(&body).expect("JSON"))
}

fn device_of(name: &str, user: &str) -> String {
    let token = format!("{name}:APA91b-a-token-of-its-own");
    json!({"device_id": name, "platform": "android", "token": token, "user_id": user}).to_string()
}

/// The first answer of many that is not the usual one.
fn first_other(usual: u16, call: impl Fn() -> (u16, Value)) -> (u16, Value) {
    let told = (0..50).map(|_| call());
    told.into_iter().find(|it| it.0 != usual).expect("a limit")
}

#[test]
fn who_calls_too_often_waits_and_costs_no_other_user_and_no_operator_anything() {
    let limits = "[limits]\ndevice_calls_per_second = 40\ndevice_calls_per_user_per_second = 1\n";
    let server = Server::start(&format!("workers = 2\n{DEMO}{PUSH}{limits}"));
    let address = server.address(0);
    let device = |user: &str| device_of(&format!("d-{user}"), user);
    assert_eq!(call_devices(&address, "POST", "", &device("ann")).0, 201);
    let told = first_other(200, || call_devices(&address, "POST", "", &device("ann")));
    assert_eq!(
        (told.0, &told.1["error"]),
        (429, &json!("Too many calls about devices for the user ann"))
    );
    let told = first_other(200, || call_devices(&address, "PATCH", "/d-ann", "{}"));
    assert_eq!(told.0, 429, "{}", told.1);
    assert_eq!(call_devices(&address, "POST", "", &device("bob")).0, 201);
    // More than the app may do in a second is let through when it has done nothing for one.
    let many: Vec<String> = (0..60)
        .map(|n| device_of(&format!("e{n}"), "ann"))
        .collect();
    let import = || call_devices(&address, "POST", "/import", &many.join("\n"));
    wait_until("there is room for an import", || import().0 == 200);
    let told = first_other(200, import);
    assert_eq!((told.0, &told.1["code"]), (429, &json!(429)));
    let path = "/apps/demo/devices/import";
    let head = requests::request(&address, "POST", path, BEARER, &many.join("\n")).1;
    assert!(head.contains("Retry-After: 1\r\n"), "{head}");
    for _ in 0..3 {
        let shown = server.place.run(&["devices", "remove", "--user", "bob"]);
        assert_eq!(
            shown.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&shown.stderr)
        );
    }
}

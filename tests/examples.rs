//! Every example, run as its reader would run it: the real program with its workers, real clients,
//! its own command line.

mod support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::{PATIENCE, Place, Server, get, kill, pid_of, processes, wait_until};
use tungstenite::{Message, WebSocket};

/// Cargo builds the examples beside the programs; when asked for this test alone it does not, and
/// `cargo build --examples` comes first.
fn program(name: &str) -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_lineman"));
    let target = binary.parent().expect("it is in a directory");
    target.join("examples").join(name)
}

/// The example, on a free port instead of its own.
fn start(name: &str, scheme: &str, settings: &str) -> Server {
    let listen = format!("[[listen]]\nurl = \"{scheme}://127.0.0.1:0\"\nhandler = \"{name}\"\n");
    let place = Place::of(&program(name), &format!("{settings}\n{listen}"));
    Server::start_in(place)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address(0)).expect("the example listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn websocket(server: &Server) -> WebSocket<TcpStream> {
    let url = format!("ws://{}/", server.address(0));
    let (socket, _) = tungstenite::client(url, connect(server)).expect("a handshake");
    socket
}

/// The worker that serves a client, found through the master's own list.
fn worker_of(server: &Server, socket: &WebSocket<TcpStream>) -> u64 {
    let port = socket.get_ref().local_addr().expect("it is open").port();
    let output = server.place.run(&["connections", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = list["connections"].as_array().expect("a list");
    let row = rows.iter().find(|row| {
        let remote = row["remote"].as_str().unwrap_or_default();
        remote.ends_with(&format!(":{port}"))
    });
    row.and_then(|row| row["pid"].as_u64())
        .expect("it is listed")
}

#[test]
fn all_see_what_one_says_in_whatever_worker_they_are() {
    let server = start("chat", "websocket", "workers = 2");
    let mut sockets = Vec::new();
    let mut workers = HashSet::new();
    wait_until("both workers have a client", || {
        sockets.push(websocket(&server));
        workers.insert(worker_of(&server, &sockets[sockets.len() - 1]));
        workers.len() == 2
    });
    // Subscribing takes a moment: whoever hears himself is in the room.
    for (number, socket) in sockets.iter_mut().enumerate() {
        let hello = Message::text(format!("hello {number}"));
        socket.send(hello.clone()).expect("open");
        while socket.read().expect("an answer") != hello {}
    }
    let last = sockets.len() - 1;
    sockets[0]
        .send(Message::binary(vec![0, 255]))
        .expect("open");
    while sockets[last].read().expect("a message") != Message::binary(vec![0, 255]) {}
}

#[test]
fn a_program_has_all_verbs_and_survives_its_workers() {
    let server = start("chat", "websocket", "workers = 2");
    let mut socket = websocket(&server);
    let status = server.status();
    let workers = processes(&status, "worker");
    let name = |process| {
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", pid_of(process)));
        comm.unwrap_or_default()
    };
    assert_eq!(name(workers[0]), "chat\n");
    assert_eq!(status["listen"][0]["handler"], "chat");
    let reloaded = server.place.run(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{}", server.stderr());
    match socket.read() {
        Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1001),
        other => panic!("{other:?}"),
    }
    let before = pid_of(processes(&server.status(), "worker")[0]);
    kill(before, 9);
    wait_until("a worker that was killed is replaced", || {
        let status = server.status();
        let workers = processes(&status, "worker");
        workers[0]["state"] == "running" && pid_of(workers[0]) != before
    });
    websocket(&server);
    let wrong = Command::new(program("chat"))
        .arg("strat")
        .output()
        .expect("it runs");
    assert_eq!(wrong.status.code(), Some(2));
    let stopped = server.place.run(&["stop"]);
    assert_eq!(stopped.status.code(), Some(0));
    assert_eq!(server.place.run(&["status"]).status.code(), Some(3));
}

#[test]
fn hello_answers_http() {
    let server = start("hello", "http", "workers = 1");
    let address = server.address(0);
    let (code, body) = get(&address, "/").expect("an answer");
    assert_eq!((code, body.as_str()), (200, "Hello from worker 0.\n"));
    assert_eq!(get(&address, "/x").expect("an answer").0, 404);
}

#[test]
fn echo_gives_lines_back_and_logs_for_its_own_name() {
    let server = start("echo", "text", "workers = 1");
    let mut lines = BufReader::new(connect(&server));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a greeting");
    assert_eq!(line, "1 here, with you\n");
    lines.get_mut().write_all(b"hi\r\nquit\n").expect("open");
    line.clear();
    lines.read_to_string(&mut line).expect("an end");
    assert_eq!(line, "hi\n");
    wait_until("the program's own line is in the log", || {
        server.stderr().contains("left: Done")
    });
}

#[test]
fn a_client_that_only_writes_is_paused_and_loses_nothing() {
    let settings = "workers = 1\n[limits]\noutbox_bytes = 65536";
    let server = start("echo", "text", settings);
    let mut writing = connect(&server);
    let reading = writing.try_clone().expect("a copy");
    const LINES: usize = 40_000;
    let writer = std::thread::spawn(move || {
        for number in 0..LINES {
            let line = format!("{number:0>100}\n");
            writing
                .write_all(line.as_bytes())
                .expect("it is only slowed down");
        }
        writing.shutdown(Shutdown::Write).expect("open");
    });
    std::thread::sleep(Duration::from_millis(500));
    let mut lines = BufReader::new(reading).lines().skip(1);
    for number in 0..LINES {
        let line = lines.next().expect("a line").expect("UTF-8");
        assert_eq!(line.parse::<usize>(), Ok(number));
    }
    writer.join().expect("it wrote everything");
}

#[test]
fn a_framing_of_its_own_is_spoken() {
    let server = start("framing", "tcp", "workers = 1");
    let mut stream = connect(&server);
    stream.write_all(b"\x02one\x03\x02tw").expect("open");
    stream.write_all(b"o\x03").expect("open");
    let mut answer = [0; 26];
    stream.read_exact(&mut answer).expect("two answers");
    assert_eq!(&answer, b"\x02printed one\x03\x02printed two\x03");
    stream.write_all(b"no").expect("open");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an end");
    assert_eq!(rest, b"");
}

#[test]
fn the_world_ticks_and_players_move() {
    let server = start("tick", "websocket", "workers = 1");
    let mut player = websocket(&server);
    player.send(Message::text("right")).expect("open");
    let mut last = 0;
    let mut ticks = 0;
    loop {
        let text = player.read().expect("a tick").into_text().expect("text");
        let world: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let tick = world["tick"].as_u64().expect("a number");
        assert!(tick > last, "{tick} after {last}");
        last = tick;
        ticks += 1;
        if ticks >= 5 && world["players"][0] == 1 {
            break;
        }
    }
    player.send(Message::text("up")).expect("open");
    let code = loop {
        match player.read().expect("a Close frame") {
            Message::Close(frame) => break frame.map(|frame| u16::from(frame.code)),
            _ => continue,
        }
    };
    assert_eq!(code, Some(4000));
}

/// Answers every connection with what it got, until there is no more.
fn upstream() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reading = stream.try_clone().expect("a copy");
                let mut writing = stream;
                std::io::copy(&mut reading, &mut writing)
            });
        }
    });
    address
}

fn start_with(name: &str, settings: &str, variable: (&str, String)) -> Server {
    let place = Place::of(&program(name), settings);
    let mut command = place.command(&["start"]);
    command.env(variable.0, variable.1);
    Server::start_with(place, command)
}

const PROXY: &str = "workers = 1\n[[listen]]\nurl = \"tcp://127.0.0.1:0\"\nhandler = \"proxy\"\n";

#[test]
fn the_proxy_carries_a_stream_both_ways_and_waits_for_a_slow_reader() {
    let upstream = format!("tcp://{}", upstream());
    let settings = format!("{PROXY}[limits]\noutbox_bytes = 131072\n");
    let server = start_with("proxy", &settings, ("UPSTREAM", upstream));
    const BYTES: usize = 24 * 1024 * 1024;
    let byte = |index: usize| (index / 1000 % 251) as u8;
    let mut reading = connect(&server);
    let mut writing = reading.try_clone().expect("a copy");
    let writer = std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..BYTES).map(byte).collect();
        writing.write_all(&bytes).expect("it is only slowed down");
    });
    // Much more than all buffers hold is on its way by now, or would be if nothing waited.
    std::thread::sleep(Duration::from_millis(500));
    let mut bytes = vec![0; BYTES];
    reading
        .read_exact(&mut bytes)
        .expect("everything comes back");
    let wrong = bytes
        .iter()
        .enumerate()
        .find(|(index, it)| **it != byte(*index));
    assert_eq!(wrong, None);
    writer.join().expect("it wrote everything");
}

#[test]
fn a_client_of_the_proxy_is_let_go_when_there_is_no_upstream() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let upstream = format!("tcp://{}", nobody.local_addr().expect("bound"));
    drop(nobody);
    let server = start_with("proxy", PROXY, ("UPSTREAM", upstream));
    let mut rest = Vec::new();
    connect(&server).read_to_end(&mut rest).expect("an end");
    wait_until("the reason is logged", || {
        server.stderr().contains("no upstream: ")
    });
}

#[test]
fn the_client_comes_back_whenever_the_room_does() {
    let mut room = start("chat", "websocket", "workers = 1");
    let address = room.address(0);
    let client = start_with("client", "", ("ROOM", format!("ws://{address}/")));
    let mut listener = websocket(&room);
    let said = |text: &Message| text == &Message::text("still on the line");
    while !said(&listener.read().expect("the client speaks")) {}
    wait_until("the client hears itself", || {
        client.stderr().contains("heard: still on the line")
    });
    room.place.run(&["stop"]);
    room.wait();
    wait_until("the client notices", || {
        client.stderr().contains("no room yet: ")
    });
    let listen = format!("[[listen]]\nurl = \"websocket://{address}\"\nhandler = \"chat\"\n");
    let room = Server::start_in(Place::of(
        &program("chat"),
        &format!("workers = 1\n{listen}"),
    ));
    let mut listener = websocket(&room);
    while !said(&listener.read().expect("the client is back")) {}
}

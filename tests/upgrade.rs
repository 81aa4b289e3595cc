//! Another version of the program in the place of the running master: the same process, nobody
//! refused; and programs that cannot take over, which cost nothing.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use support::{DEMO, ECHO, PATIENCE, Place, Server, get, is_alive, pid_of, wait_until};

const SIGKILL: i32 = 9;

/// Installs a program where the server was started from, as a package manager does: the new file
/// takes the name of the old one.
fn install(place: &Place, bytes: &[u8]) {
    let new = place.path().join("lineman.new");
    fs::write(&new, bytes).expect("the new program is written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("its mode");
    fs::rename(&new, program(place)).expect("it takes the name");
}

fn program(place: &Place) -> PathBuf {
    place.path().join("lineman")
}

/// The program under test, as a file that differs from all others by `build`.
fn build(build: &str) -> Vec<u8> {
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_lineman")).expect("the program");
    // Behind its end, where nothing looks.
    bytes.extend_from_slice(build.as_bytes());
    bytes
}

fn start(toml: &str) -> Server {
    let place = Place::new(toml);
    install(&place, &build("one"));
    let mut command = Command::new(program(&place));
    command.arg("start").arg("--config").arg(place.config());
    Server::start_with(place, command)
}

fn told(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn upgrade(server: &Server) {
    let output = server.place.run(&["upgrade"]);
    let words = told(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{words}\n{}",
        server.stderr()
    );
    assert!(words.contains("upgraded to "), "{words}");
}

fn children(status: &Value) -> Vec<u32> {
    let all = status["processes"].as_array().expect("a list");
    let serving = all.iter().filter(|it| it["state"] == "running");
    serving.map(pid_of).collect()
}

/// What a process executes: the end of its file.
fn build_of(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/exe")).expect("a process");
    String::from_utf8_lossy(&bytes[bytes.len() - 3..]).into_owned()
}

/// An echo connection over WebSocket.
fn open_socket(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("a request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    stream
}

/// The next build in the same process, and in all others, which are new.
fn upgrade_to(server: &Server, next: &str) {
    let before = server.status();
    install(&server.place, &build(next));
    upgrade(server);
    let after = server.status();
    assert_eq!(after["master"]["pid"], before["master"]["pid"]);
    assert!(after["started_at"].as_str() > before["started_at"].as_str());
    let (old, new) = (children(&before), children(&after));
    assert_eq!(new.len(), 3, "{after}");
    assert!(old.iter().all(|pid| !new.contains(pid)), "{old:?} {new:?}");
    for pid in new.into_iter().chain([server.pid()]) {
        assert_eq!(build_of(pid), next);
    }
    for process in after["processes"].as_array().expect("a list") {
        assert_eq!(process["restarts"], 0, "{process}");
    }
    wait_until("the old ones have left", || {
        !old.iter().any(|it| is_alive(*it))
    });
}

#[test]
fn the_same_process_goes_on_as_the_next_program_and_nobody_is_refused() {
    let mut server = start(&format!("workers = 2\n{ECHO}"));
    let address = server.address(0);
    let mut sockets: Vec<TcpStream> = (0..20).map(|_| open_socket(&address)).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let visits = (0..3).map(|_| {
            scope.spawn(|| {
                let mut served = 0;
                while !over.load(Ordering::Relaxed) {
                    let (code, _) = get(&address, "/healthz")
                        .unwrap_or_else(|error| panic!("refused: {error}\n{}", server.stderr()));
                    assert_eq!(code, 200);
                    served += 1;
                }
                served
            })
        });
        let visits: Vec<_> = visits.collect();
        for next in ["two", "six", "ten"] {
            upgrade_to(&server, next);
        }
        over.store(true, Ordering::Relaxed);
        let served: usize = visits
            .into_iter()
            .map(|it| it.join().expect("served"))
            .sum();
        assert!(served > 20, "{served}");
    });
    // Those who were connected were told to come back: a Close frame with 1001.
    for socket in &mut sockets {
        let mut frame = [0; 4];
        socket.read_exact(&mut frame).expect("a Close frame");
        assert_eq!(
            (frame[0], u16::from_be_bytes([frame[2], frame[3]])),
            (0x88, 1001)
        );
    }
    assert_eq!(
        server.place.run(&["start"]).status.code(),
        Some(8),
        "it is locked"
    );
    assert_eq!(server.place.run(&["stop"]).status.code(), Some(0));
    assert!(server.wait().success());
}

#[test]
fn an_upgraded_master_supervises_as_before() {
    let mut server = start(&format!("workers = 2\n{DEMO}"));
    install(&server.place, &build("two"));
    upgrade(&server);
    let victim = children(&server.status())[1];
    server.kill(victim, SIGKILL);
    wait_until("it is replaced", || {
        let now = server.status();
        now["state"] == "running" && !children(&now).contains(&victim)
    });
    assert_eq!(server.place.run(&["reload"]).status.code(), Some(0));
    assert_eq!(
        get(&server.address(0), "/readyz").expect("an answer").0,
        200
    );
    let all = children(&server.status());
    server.kill(server.pid(), SIGKILL);
    wait_until("the children die with the master", || {
        !all.iter().any(|it| is_alive(*it))
    });
    server.wait();
}

#[test]
fn a_program_that_cannot_take_over_costs_nothing() {
    let server = start(&format!("workers = 1\n{ECHO}"));
    let before = children(&server.status());
    let refused = |words: &str| {
        let output = server.place.run(&["upgrade"]);
        let found = told(&output);
        assert!(matches!(output.status.code(), Some(1 | 6)), "{found}");
        assert!(
            found.contains(words) && found.contains("goes on as it was"),
            "{found}"
        );
        assert_eq!(children(&server.status()), before);
        assert_eq!(
            get(&server.address(0), "/healthz").expect("an answer").0,
            200
        );
    };
    fs::remove_file(program(&server.place)).expect("it was there");
    refused("No such file");
    install(&server.place, b"this is no program");
    refused("Exec format error");
    install(&server.place, b"#!/bin/sh\necho it is broken >&2\nexit 3\n");
    refused("it is broken");
    install(&server.place, b"#!/bin/sh\nexit 0\n");
    refused("without a word");
    install(&server.place, b"#!/bin/sh\nexec sleep 60\n");
    refused("in time");
    // One that knows another shape of what is handed over.
    let other = "#!/bin/sh\nsed 's/\"version\":[0-9]*,/\"version\":999,/' | BINARY \"$@\"\n";
    let other = other.replace("BINARY", env!("CARGO_BIN_EXE_lineman"));
    install(&server.place, other.as_bytes());
    refused("version 999");
    install(&server.place, &build("two"));
    let good = fs::read_to_string(server.place.config()).expect("the configuration");
    fs::write(
        server.place.config(),
        format!("{good}[log]\nlevel = \"loud\"\n"),
    )
    .expect("written");
    refused("\"loud\" is not known here");
    fs::write(server.place.config(), good).expect("written");
    upgrade(&server);
    assert_ne!(children(&server.status()), before);
}

#[test]
fn a_daemon_with_its_log_and_a_unix_socket_can_be_upgraded() {
    let toml = "workers = 2\n[[listen]]\nurl = \"unix://a.sock\"\nhandler = \"echo\"\n";
    let place = Place::new(toml);
    install(&place, &build("one"));
    let started = Command::new(program(&place))
        .args(["start", "-d", "--config"])
        .arg(place.config())
        .output()
        .expect("it runs");
    assert_eq!(started.status.code(), Some(0), "{}", told(&started));
    let before = place.status().expect("it runs");
    install(&place, &build("two"));
    let output = place.run(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let after = place.status().expect("it runs");
    assert_eq!(after["master"]["pid"], before["master"]["pid"]);
    assert_eq!(after["listen"], before["listen"]);
    let log = after["log_file"].as_str().expect("a log file");
    let log = fs::read_to_string(log).expect("the log");
    assert!(log.contains("took over"), "{log}");
    let mut stream = UnixStream::connect(place.path().join("a.sock")).expect("a connection");
    let head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(head).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(place.run(&["stop"]).status.code(), Some(0));
    assert!(
        !place.path().join("a.sock").exists(),
        "its file goes with it"
    );
}

#[test]
fn connections_stay_counted_while_the_old_workers_let_them_go() {
    let toml = format!("workers = 2\ndrain_seconds = 3600\n{ECHO}connections = 3\n");
    let server = start(&toml);
    let address = server.address(0);
    let sockets: Vec<TcpStream> = (0..3).map(|_| open_socket(&address)).collect();
    assert!(get(&address, "/healthz").is_err(), "it is full");
    install(&server.place, &build("two"));
    let output = server.place.run(&["upgrade", "-g"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(get(&address, "/healthz").is_err(), "it still is");
    drop(sockets);
    wait_until("there is room again", || {
        matches!(get(&address, "/healthz"), Ok((200, _)))
    });
}

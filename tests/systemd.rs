//! The service manager's side: what it is told, the sockets it hands over, and the unit files.
//! What needs systemd's tools is left out where they are not installed, and fails where they are
//! and complain.

mod support;

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::{ECHO, PATIENCE, Place, Server, get, wait_until};

const SIGQUIT: i32 = 3;
const SIGUSR1: i32 = 10;

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("systemd")
        .join(name)
}

/// Whether a tool is there to be asked.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        eprintln!("{tool} is not installed");
    }
    found
}

/// A service manager that only listens.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn start(toml: &str, watchdog_ms: u64) -> (Manager, Server) {
        let place = Place::new(toml);
        let path = place.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a timeout");
        let mut command = place.command(&["start"]);
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", (watchdog_ms * 1000).to_string());
        let server = Server::start_with(place, command);
        (Manager { socket }, server)
    }

    /// The next message that has this line.
    fn hears(&self, line: &str) -> String {
        let began = Instant::now();
        let mut buffer = [0; 4096];
        while began.elapsed() < PATIENCE {
            match self.socket.recv(&mut buffer) {
                Ok(count) => {
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    if text.lines().any(|found| found.starts_with(line)) {
                        return text;
                    }
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        panic!("{line} was not said");
    }
}

#[test]
fn a_manager_is_told_of_every_step_and_hears_signs_of_life() {
    let (manager, mut server) = Manager::start(&format!("workers = 2\n{ECHO}"), 600);
    let ready = manager.hears("READY=1");
    assert!(
        ready.contains(&format!("MAINPID={}", server.pid())),
        "{ready}"
    );
    assert!(ready.contains("STATUS=2 workers serve http://"), "{ready}");
    for _ in 0..3 {
        assert_eq!(manager.hears("WATCHDOG=1"), "WATCHDOG=1");
    }
    // Port 0 of the configuration stays what it is.
    server.kill(server.pid(), SIGUSR1);
    assert!(manager.hears("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.hears("READY=1");
    server.kill(server.pid(), SIGQUIT);
    assert!(manager.hears("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    assert!(server.wait().success());
}

#[test]
fn an_activated_socket_is_taken_over_with_those_who_wait_in_it() {
    let tool = "systemd-socket-activate";
    if !has(tool) {
        return;
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let place = Place::new(&format!(
        "workers = 2\n[[listen]]\nurl = \"http://{address}\"\nhandler = \"echo\"\n"
    ));
    let mut command = Command::new(tool);
    command.args([
        "-l",
        &address,
        "--fdname=web",
        env!("CARGO_BIN_EXE_lineman"),
        "start",
    ]);
    command.arg("--config").arg(place.config());
    // It starts the server at the first connection, which waits for its answer until then.
    let waiting = {
        let address = address.clone();
        std::thread::spawn(move || {
            let mut answer = None;
            wait_until("the port is open", || {
                answer = get(&address, "/healthz").ok();
                answer.is_some()
            });
            answer.expect("an answer").0
        })
    };
    let server = Server::start_with(place, command);
    assert_eq!(waiting.join().expect("it ends"), 200);
    let log = server.stderr();
    assert!(!log.contains("another program"), "{log}");
    for _ in 0..20 {
        assert_eq!(get(&address, "/healthz").expect("an answer").0, 200);
    }
    assert_eq!(server.place.run(&["reload"]).status.code(), Some(0));
    assert_eq!(get(&address, "/healthz").expect("an answer").0, 200);
}

#[test]
fn the_units_are_well_formed_and_the_service_is_confined() {
    if !has("systemd-analyze") {
        return;
    }
    // With a program that is there, and both in one place, since one names the other.
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["lineman.service", "lineman.socket"] {
        let text = std::fs::read_to_string(unit(name)).expect("a unit");
        let text = text.replace("/usr/bin/lineman", env!("CARGO_BIN_EXE_lineman"));
        std::fs::write(dir.path().join(name), text).expect("a copy");
    }
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).current_dir(dir.path());
        command.output().expect("it runs")
    };
    let verified = analyze(&["verify", "./lineman.service", "./lineman.socket"]);
    let told = String::from_utf8_lossy(&verified.stderr).into_owned();
    // It ends well even when it complains.
    assert!(verified.status.success() && told.is_empty(), "{told}");
    let secure = [
        "security",
        "--offline=true",
        "--threshold=20",
        "./lineman.service",
    ];
    let scored = analyze(&secure);
    let told = String::from_utf8_lossy(&scored.stdout).into_owned();
    assert!(scored.status.success(), "{told}");
    let score = told
        .lines()
        .rev()
        .find(|line| line.contains("exposure"))
        .map(str::to_owned);
    eprintln!("{}", score.unwrap_or_default());
}

//! What a fault costs, with a service that has faults on demand (`examples/faulty.rs`): a panic, a
//! call that does not return, memory that grows. And what a master that may not do something says.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use support::{ECHO, PATIENCE, Place, Server, is_alive, pid_of, processes, wait_until};

/// Cargo builds the examples beside the programs; when asked for this test alone it does not, and
/// `cargo build --examples` comes first.
fn faulty(settings: &str) -> Server {
    let binary = Path::new(env!("CARGO_BIN_EXE_lineman"));
    let program = binary.with_file_name("examples").join("faulty");
    let listen = "[[listen]]\nurl = \"text://127.0.0.1:0\"\nhandler = \"faulty\"\n";
    Server::start_in(Place::of(&program, &format!("{settings}\n{listen}")))
}

/// A client that speaks lines, and the worker that serves it.
struct Client {
    lines: BufReader<TcpStream>,
    worker: u32,
}

impl Client {
    fn connect(server: &Server) -> Client {
        let stream = TcpStream::connect(server.address(0)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let port = stream.local_addr().expect("it is open").port();
        let mut client = Client {
            lines: BufReader::new(stream),
            worker: 0,
        };
        assert_eq!(client.says("hello"), "hello\n");
        let output = server.place.run(&["connections", "--json"]);
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let rows = list["connections"].as_array().expect("a list");
        let remote = format!("127.0.0.1:{port}");
        let row = rows.iter().find(|row| row["remote"] == remote.as_str());
        client.worker = pid_of(row.expect("it is listed"));
        client
    }

    /// One in each of two workers.
    fn in_both_workers(server: &Server) -> (Client, Client) {
        let first = Client::connect(server);
        loop {
            let second = Client::connect(server);
            if second.worker != first.worker {
                return (first, second);
            }
        }
    }

    /// The answer; empty when the connection has ended.
    fn says(&mut self, words: &str) -> String {
        let line = format!("{words}\n");
        let mut answer = String::new();
        let sent = self.lines.get_mut().write_all(line.as_bytes());
        if sent.is_ok() {
            // A reset is an end too.
            let _ = self.lines.read_line(&mut answer);
        }
        answer
    }
}

/// Waits until the place of this process has another, and returns how the first one ended.
fn replaced(server: &Server, pid: u32) -> String {
    let status = server.status();
    let workers = processes(&status, "worker");
    let place = workers.iter().position(|it| pid_of(it) == pid);
    let mut end = String::new();
    wait_until("it is replaced", || {
        let status = server.status();
        let workers = processes(&status, "worker");
        // A place whose worker has gone before it was looked at has an end to show.
        let ended = |it: &&&serde_json::Value| it["last_end"].is_string();
        let worker = place.map_or_else(|| workers.iter().find(ended), |it| workers.get(it));
        let Some(worker) = worker.filter(|it| it["state"] == "running" && pid_of(it) != pid) else {
            return false;
        };
        end = worker["last_end"].as_str().unwrap_or_default().to_string();
        true
    });
    end
}

#[test]
fn a_panic_costs_its_worker_and_nobody_else() {
    let server = faulty("workers = 2");
    let (mut first, mut second) = Client::in_both_workers(&server);
    assert_eq!(first.says("panic"), "");
    assert_eq!(second.says("still there?"), "still there?\n");
    let end = replaced(&server, first.worker);
    assert_eq!(end, "exit code 12: a bug, the log says where");
    let log = server.stderr();
    assert!(
        log.contains("examples/faulty.rs") && log.contains("asked for"),
        "{log}"
    );
    let table = server.place.run(&["status"]).stdout;
    let table = String::from_utf8_lossy(&table).into_owned();
    assert!(table.contains("a bug, the log says where"), "{table}");
    // It was never a matter of the others, nor of the server.
    assert_eq!(second.says("and now?"), "and now?\n");
    let status = server.status();
    let restarts = processes(&status, "worker").into_iter();
    let restarts: u64 = restarts.filter_map(|it| it["restarts"].as_u64()).sum();
    assert_eq!((restarts, &status["state"]), (1, &"running".into()));
    assert_eq!(Client::connect(&server).says("me too"), "me too\n");
}

#[test]
fn a_call_that_does_not_return_is_found_and_the_log_says_where_it_stands() {
    for (bug, place) in [("block 600", "sleep"), ("spin 600", "spin at ")] {
        let server = faulty("workers = 2\nwatchdog_seconds = 3");
        let (mut first, mut second) = Client::in_both_workers(&server);
        let stuck = first.worker;
        let waits = std::thread::spawn(move || first.says(bug));
        let end = replaced(&server, stuck);
        assert!(end.contains("no sign of life"), "{end}");
        assert_eq!(waits.join().expect("its connection ends"), "");
        assert!(!is_alive(stuck));
        assert_eq!(second.says("still there?"), "still there?\n");
        let log = server.stderr();
        let mut frames = log.lines().filter(|line| line.contains("stuck, frame "));
        assert!(
            frames.any(|line| line.contains(place)),
            "no {place} in {log}"
        );
        // Names down to the service's own code.
        let mut frames = log.lines().filter(|line| line.contains("stuck, frame "));
        assert!(
            frames.any(|line| line.contains("examples/faulty.rs")),
            "{log}"
        );
    }
}

#[test]
fn a_worker_over_its_ceiling_is_drained_and_replaced() {
    let ceiling = 96 << 20;
    let server = faulty(&format!(
        "workers = 2\ndrain_seconds = 2\nworker_memory_bytes = {ceiling}"
    ));
    let (mut first, mut second) = Client::in_both_workers(&server);
    let heavy = first.worker;
    assert_eq!(first.says("grow 128"), "grow 128\n");
    // Those with less than ten seconds behind them are left alone; then comes its time.
    wait_until("it is told to let go", || {
        server.stderr().contains("lets its clients go")
    });
    // The successor serves before the heavy one lets go of anybody.
    let status = server.status();
    let workers = processes(&status, "worker");
    let running = workers.iter().filter(|it| it["state"] == "running").count();
    assert_eq!(running, 2, "{status}");
    let log = server.stderr();
    assert!(
        log.contains("MB of memory, more than 96; it is replaced"),
        "{log}"
    );
    wait_until("it is gone", || !is_alive(heavy));
    assert_eq!(first.says("anybody?"), "");
    assert_eq!(second.says("still there?"), "still there?\n");
    assert_eq!(Client::connect(&server).says("me too"), "me too\n");
    wait_until("all run", || server.status()["state"] == "running");
}

/// A limit of a process, as the kernel tells it: soft and hard.
fn descriptor_limits(pid: u32) -> (String, String) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process");
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let mut words = line.expect("a limit").split_whitespace().skip(3);
    let mut word = || words.next().expect("two numbers").to_string();
    (word(), word())
}

/// `lineman start` by way of another program that changes something first.
fn start_by(place: &Place, program: &str, arguments: &[&str]) -> Command {
    let plain = place.command(&["start"]);
    let mut command = Command::new(program);
    command.args(arguments).arg(plain.get_program());
    command.args(plain.get_args());
    command
}

#[test]
fn the_descriptor_limit_is_raised_for_all_processes() {
    let place = Place::new(&format!("workers = 1\n{ECHO}"));
    let command = start_by(
        &place,
        "sh",
        &["-c", "ulimit -S -n 100 && exec \"$0\" \"$@\""],
    );
    let server = Server::start_with(place, command);
    let status = server.status();
    let all = status["processes"].as_array().expect("a list");
    for pid in all.iter().map(pid_of).chain([server.pid()]) {
        let (soft, hard) = descriptor_limits(pid);
        assert_eq!(soft, hard);
        assert_ne!(soft, "100");
    }
}

#[test]
fn rights_that_cannot_be_dropped_are_an_end_before_anybody_is_served() {
    let me = std::fs::read_to_string("/proc/self/status").expect("a process");
    if !me.contains("\nUid:\t0\t") {
        // Another user is refused before; tests/process.rs sees to that.
        return;
    }
    let place = Place::new(&format!("workers = 1\nuser = \"nobody\"\n{ECHO}"));
    // Root, without the right to become somebody else.
    let mut command = start_by(&place, "setpriv", &["--bounding-set", "-setuid,-setgid"]);
    let output = command.output().expect("setpriv runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("cannot become user \"nobody\""), "{told}");
    assert_eq!(place.run(&["status"]).status.code(), Some(3));
}

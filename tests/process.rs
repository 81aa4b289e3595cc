//! The whole program as processes: starting, dying, being replaced, stopping, and the words and
//! codes with which it tells. What is said to clients is tested elsewhere.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{
    DEMO, ECHO, PATIENCE, Place, Server, get, is_alive, kill, pid_of, processes, publish_call,
    wait_until,
};
use tungstenite::WebSocket;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGKILL: i32 = 9;
const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// The promise for a process that was killed.
const REPLACED_WITHIN: Duration = Duration::from_secs(1);

fn two_workers(rest: &str) -> String {
    format!("workers = 2\n{rest}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until a process of this role other than `pid` runs. Returns how long it took until there
/// was one.
fn wait_for_replacement(server: &Server, role: &str, number: usize, pid: u32) -> Duration {
    let began = Instant::now();
    let mut took = None;
    wait_until("the process is replaced", || {
        let status = server.status();
        let process = processes(&status, role)[number];
        let replaced = ![0, pid].contains(&pid_of(process));
        if replaced {
            took.get_or_insert(began.elapsed());
        }
        replaced && process["state"] == "running"
    });
    took.unwrap_or_default()
}

/// All pids but the master's.
fn children(server: &Server) -> Vec<u32> {
    let status = server.status();
    let all = status["processes"].as_array().expect("a list");
    let pids: Vec<u32> = all.iter().map(pid_of).collect();
    assert!(pids.iter().all(|pid| *pid != 0));
    pids
}

fn instance_dir(server: &Server) -> PathBuf {
    PathBuf::from(server.status()["run_dir"].as_str().expect("a directory"))
}

#[test]
fn the_banner_says_what_runs_and_what_to_try() {
    let server = Server::start(&two_workers(DEMO));
    let url = server.url(0);
    wait_until("the banner is printed", || {
        server.stdout().contains("Ctrl-C")
    });
    let banner = server.stdout();
    for part in [
        url.as_str(),
        "channels",
        "switchboard",
        "/apps/demo/events",
        "lineman status",
    ] {
        assert!(banner.contains(part), "no {part} in:\n{banner}");
    }
    assert!(!banner.contains("Not ready"), "{banner}");
}

#[test]
fn status_shows_every_process_as_table_and_as_json() {
    let server = Server::start(&format!("workers = 2\nthreads = 2\n{ECHO}"));
    let status = server.status();
    assert_eq!(processes(&status, "worker").len(), 2);
    assert_eq!(processes(&status, "switchboard").len(), 1);
    assert_eq!(
        status["master"]["pid"].as_u64(),
        Some(u64::from(server.pid()))
    );
    assert_eq!(status["state"], "running");
    for process in status["processes"].as_array().expect("a list") {
        assert_eq!(process["state"], "running");
        assert!(process["memory_bytes"].as_u64() > Some(0));
        assert!(process["counters"]["connections"].is_u64());
    }
    assert!(status["total"]["messages_in"].is_u64());
    let table = text(&server.place.run(&["status"]).stdout);
    for pid in children(&server) {
        assert!(table.contains(&pid.to_string()), "{table}");
    }
    assert!(
        table.contains("2 workers × 2 threads") && table.contains("Summary"),
        "{table}"
    );
}

#[test]
fn a_second_start_is_refused_and_the_first_goes_on() {
    let server = Server::start(ECHO);
    let second = server.place.run(&["start"]);
    assert_eq!(second.status.code(), Some(8));
    let words = text(&second.stderr);
    assert!(words.contains("already running"), "{words}");
    assert!(words.contains(&server.pid().to_string()), "{words}");
    let daemon = server.place.run(&["start", "-d"]);
    assert_eq!(daemon.status.code(), Some(8));
    assert_eq!(server.status()["state"], "running");
}

#[test]
fn a_killed_worker_is_replaced_and_clients_are_served() {
    let server = Server::start(&two_workers(ECHO));
    let address = server.address(0);
    let victim = children(&server)[1];
    server.kill(victim, SIGKILL);
    let took = wait_for_replacement(&server, "worker", 0, victim);
    assert!(took < REPLACED_WITHIN, "it took {took:?}");
    let status = server.status();
    let worker = processes(&status, "worker")[0];
    assert_eq!(worker["restarts"], 1);
    assert_eq!(worker["last_end"], "killed by signal 9 (SIGKILL)");
    for _ in 0..20 {
        let (code, _) = get(&address, "/healthz").expect("an answer");
        assert_eq!(code, 200);
    }
    assert!(
        server
            .stderr()
            .contains("worker 0 ended: killed by signal 9 (SIGKILL)")
    );
}

#[test]
fn a_connection_made_while_no_worker_lives_is_served_by_the_next() {
    let server = Server::start(&format!("workers = 1\n{ECHO}"));
    let address = server.address(0);
    let victim = children(&server)[1];
    server.kill(victim, SIGKILL);
    // Whether this meets the dead worker's queue or the new worker, it is not refused.
    let (code, _) = get(&address, "/healthz").expect("an answer");
    assert_eq!(code, 200);
}

#[test]
fn a_killed_switchboard_is_replaced() {
    let server = Server::start(&two_workers(ECHO));
    let victim = children(&server)[0];
    server.kill(victim, SIGKILL);
    let took = wait_for_replacement(&server, "switchboard", 0, victim);
    assert!(took < REPLACED_WITHIN, "it took {took:?}");
    assert_eq!(
        get(&server.address(0), "/healthz").expect("an answer").0,
        200
    );
}

#[test]
fn everything_dies_with_the_master_and_the_next_start_finds_no_obstacle() {
    let server = Server::start(&two_workers(ECHO));
    let children = children(&server);
    server.kill(server.pid(), SIGKILL);
    wait_until("all children are gone", || {
        !children.iter().any(|pid| is_alive(*pid))
    });
    assert_eq!(server.place.run(&["status"]).status.code(), Some(3));
    let place = Place::new(ECHO);
    let again = Server::start_in(place);
    assert_eq!(again.status()["state"], "running");
}

#[test]
fn a_start_after_a_killed_master_takes_the_same_directory() {
    let mut server = Server::start(ECHO);
    server.kill(server.pid(), SIGKILL);
    server.wait();
    let started = server.place.run(&["start", "-d"]);
    assert_eq!(started.status.code(), Some(0), "{}", text(&started.stderr));
    assert_eq!(server.place.run(&["stop"]).status.code(), Some(0));
}

#[test]
fn signals_end_the_server_cleanly() {
    for signal in [SIGTERM, SIGINT, SIGQUIT] {
        let mut server = Server::start(&two_workers(ECHO));
        let children = children(&server);
        let dir = instance_dir(&server);
        server.kill(server.pid(), signal);
        assert_eq!(server.wait().code(), Some(0));
        assert!(!children.iter().any(|pid| is_alive(*pid)));
        assert!(!dir.exists(), "{} is left", dir.display());
    }
}

#[test]
fn signals_sent_to_children_do_no_harm() {
    let server = Server::start(ECHO);
    for child in children(&server) {
        for signal in [SIGHUP, SIGUSR1, SIGQUIT, SIGTERM, SIGINT] {
            // A terminal sends Ctrl-C to the whole group; it is the master that decides.
            server.kill(child, signal);
        }
    }
    let status = server.status();
    assert_eq!(status["state"], "running");
    let all = status["processes"].as_array().expect("a list");
    assert!(all.iter().all(|it| it["restarts"] == 0));
}

#[test]
fn a_stuck_worker_shows_as_busy_and_does_not_hold_up_the_end() {
    let mut server = Server::start(&two_workers(ECHO));
    let stuck = children(&server)[1];
    server.kill(stuck, SIGSTOP);
    let status = server.status();
    assert_eq!(processes(&status, "worker")[0]["state"], "busy");
    assert_eq!(processes(&status, "worker")[1]["state"], "running");
    server.kill(server.pid(), SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!is_alive(stuck));
}

#[test]
fn a_daemon_starts_tells_and_stops() {
    let place = Place::new(&two_workers(DEMO));
    let started = place.run(&["start", "--daemon"]);
    assert_eq!(started.status.code(), Some(0), "{}", text(&started.stderr));
    assert!(text(&started.stdout).contains("lineman stop --config"));
    let status = place.status().expect("it runs");
    assert_eq!(status["state"], "running");
    let master = status["master"]["pid"].as_u64().expect("a pid") as u32;
    let log = PathBuf::from(status["log_file"].as_str().expect("a log file"));
    assert_eq!(
        log.metadata().expect("the log").permissions().mode() & 0o777,
        0o600
    );
    assert!(
        std::fs::read_to_string(&log)
            .expect("the log")
            .contains("ready")
    );
    let stopped = place.run(&["stop"]);
    assert_eq!(
        (stopped.status.code(), text(&stopped.stdout)),
        (Some(0), "stopped\n".to_string())
    );
    wait_until("the master is gone", || !is_alive(master));
    let gone = place.run(&["status"]);
    assert_eq!(gone.status.code(), Some(3));
    assert!(text(&gone.stdout).contains("not running"));
    let again = place.run(&["stop"]);
    assert_eq!(again.status.code(), Some(0));
    assert!(text(&again.stdout).contains("not running"));
}

#[test]
fn restart_replaces_the_server_but_not_by_a_wrong_configuration() {
    let place = Place::new(ECHO);
    assert_eq!(place.run(&["restart", "-d"]).status.code(), Some(0));
    let first = place.status().expect("it runs")["master"]["pid"].clone();
    assert_eq!(place.run(&["restart", "-d"]).status.code(), Some(0));
    let second = place.status().expect("it runs")["master"]["pid"].clone();
    assert_ne!(first, second);
    place.configure(&format!("workers = 9999\n{ECHO}"));
    assert_eq!(place.run(&["restart", "-d"]).status.code(), Some(6));
    assert_eq!(
        place.status().expect("it still runs")["master"]["pid"],
        second
    );
    // A configuration that became wrong does not keep anyone from stopping.
    assert_eq!(place.run(&["stop"]).status.code(), Some(0));
}

#[test]
fn a_taken_port_is_told_in_clear_words() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let place = Place::new(&format!(
        "[[listen]]\nurl = \"http://{address}\"\nhandler = \"echo\"\n"
    ));
    for verb in [&["start"][..], &["start", "-d"][..]] {
        let started = place.run(verb);
        assert_eq!(started.status.code(), Some(1));
        let words = text(&started.stderr);
        assert!(words.contains(&address.to_string()), "{words}");
        assert!(words.contains("another program listens there"), "{words}");
    }
    assert_eq!(place.run(&["status"]).status.code(), Some(3));
}

#[test]
fn another_server_of_ours_on_the_port_counts_as_taken() {
    let server = Server::start(ECHO);
    let url = server.url(0);
    let place = Place::new(&format!(
        "[[listen]]\nurl = \"{url}\"\nhandler = \"echo\"\n"
    ));
    assert_eq!(place.run(&["start"]).status.code(), Some(1));
}

#[test]
fn a_wrong_configuration_names_its_lines() {
    let wrong = |toml: &str, parts: &[&str]| {
        let place = Place::new(toml);
        for verb in ["check", "start"] {
            let output = place.run(&[verb]);
            let words = text(&output.stderr);
            assert_eq!(output.status.code(), Some(6), "{words}");
            for part in parts {
                assert!(words.contains(part), "no {part} in:\n{words}");
            }
        }
    };
    wrong("workers = 1\nthreads = = 1\n", &["test.toml:3:"]);
    wrong(
        &format!("wrokers = 1\n{ECHO}"),
        &["test.toml:2:", "`workers`"],
    );
    let two = format!("threads = 0\n{}", ECHO.replace("echo", "eco"));
    wrong(
        &two,
        &["test.toml:2:", "test.toml:5:", "did you mean \"echo\"?"],
    );
    wrong(
        &DEMO.replace("127.0.0.1", "0.0.0.0"),
        &["test.toml:8:", "demo secret", "openssl rand -hex 32"],
    );
}

#[test]
fn check_says_ok_and_a_wrong_command_line_has_a_code() {
    let place = Place::new(DEMO);
    let output = place.run(&["check"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("ok"));
    assert_eq!(place.run(&["fly"]).status.code(), Some(2));
    let help = text(&place.run(&["--help"]).stdout);
    assert!(help.contains("Exit codes:"), "{help}");
}

#[test]
fn a_role_started_by_hand_explains_itself() {
    let output = Place::new(ECHO).run(&["worker", "--number", "0", "--switchboard", "/x"]);
    assert_eq!(output.status.code(), Some(10));
    assert!(text(&output.stderr).contains("started by the master"));
}

#[test]
fn nothing_in_the_run_directory_is_for_others() {
    let server = Server::start(ECHO);
    let dir = instance_dir(&server);
    assert_eq!(
        dir.metadata().expect("the directory").permissions().mode() & 0o777,
        0o700
    );
    for entry in std::fs::read_dir(&dir).expect("the directory") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.path());
    }
}

#[test]
fn children_get_no_descriptor_that_is_not_theirs() {
    let place = Place::new(ECHO);
    let script = "exec 9</dev/zero; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args([
        "-c",
        script,
        env!("CARGO_BIN_EXE_lineman"),
        "start",
        "-d",
        "--config",
    ]);
    let started = command
        .arg(place.config())
        .output()
        .expect("the shell runs");
    assert_eq!(started.status.code(), Some(0), "{}", text(&started.stderr));
    let status = place.status().expect("it runs");
    for process in status["processes"].as_array().expect("a list") {
        let fds = format!("/proc/{}/fd", pid_of(process));
        for entry in std::fs::read_dir(fds).expect("the descriptors").flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            assert_ne!(target, PathBuf::from("/dev/zero"));
        }
    }
}

#[test]
fn the_log_carries_no_secret_and_can_be_json() {
    let server = Server::start(&format!(
        "{DEMO}[log]\nlevel = \"trace\"\nformat = \"json\"\n"
    ));
    let mut stream = TcpStream::connect(server.address(0)).expect("a connection");
    stream
        .write_all(b"GET /payload-in-a-path HTTP/1.1\r\n\r\n")
        .expect("a request");
    let victim = children(&server)[1];
    kill(victim, SIGKILL);
    wait_for_replacement(&server, "worker", 0, victim);
    let log = server.stderr();
    assert!(
        !log.contains("demo-secret") && !log.contains("payload-in-a-path"),
        "{log}"
    );
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(object["time"].is_string() && object["pid"].is_u64() && object["role"].is_string());
    }
}

/// What the kernel says of a process under this name.
fn kernel_says(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    let (_, rest) = line.split_once(':').expect("a colon");
    rest.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn children_of_root_drop_to_the_user_and_are_linked_all_the_same() {
    let toml = format!("workers = 2\nuser = \"nobody\"\n{DEMO}");
    if kernel_says(std::process::id(), "Uid").starts_with('0') {
        let server = Server::start(&toml);
        let master = kernel_says(server.pid(), "Uid");
        assert!(master.starts_with("0 0"), "{master}");
        for child in children(&server) {
            let uid = kernel_says(child, "Uid");
            let first = uid.split(' ').next().expect("a number").to_string();
            assert!(
                first != "0" && uid.split(' ').all(|it| it == first),
                "{uid}"
            );
            assert!(!kernel_says(child, "Gid").split(' ').any(|it| it == "0"));
            assert!(!kernel_says(child, "Groups").split(' ').any(|it| it == "0"));
            assert_eq!(kernel_says(child, "NoNewPrivs"), "1");
            assert_eq!(kernel_says(child, "CapEff"), "0000000000000000");
        }
        // Ready means that the switchboard answers both workers.
        let (code, _) = get(&server.address(0), "/readyz").expect("an answer");
        assert_eq!(code, 200);
        let children = children(&server);
        server.kill(server.pid(), SIGKILL);
        wait_until("dropping rights did not lose the tie to the master", || {
            !children.iter().any(|pid| is_alive(*pid))
        });
    } else {
        let started = Place::new(&toml).run(&["start"]);
        assert_eq!(started.status.code(), Some(4));
        assert!(text(&started.stderr).contains("only root"));
    }
    let nobody = Place::new(&toml.replace("nobody", "no-such-user"));
    let started = nobody.run(&["start"]);
    assert_eq!(started.status.code(), Some(6), "{}", text(&started.stderr));
}

/// One event of ten kilobytes through whichever worker listens there; the status of the answer.
fn publish(address: &str, name: &str) -> String {
    let data = "x".repeat(10_000);
    let body = format!(r#"{{"name":"{name}","channel":"c","data":"{data}"}}"#);
    let call = publish_call("Connection: close\r\n", &body);
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.write_all(call.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer[..12].to_string()
}

fn until(socket: &mut WebSocket<TcpStream>, part: &str) {
    while !socket.read().expect("a message").to_string().contains(part) {}
}

/// What was answered 200 lies in the kernel; a worker that learns of the death by writing must read
/// it all the same.
#[test]
fn what_the_switchboard_said_before_it_died_is_heard() {
    let first_only = "[[listen]]\nurl = \"http://127.0.0.1:0\"\nworkers = 1\n";
    let server = Server::start(&two_workers(&format!("{first_only}{DEMO}")));
    let status = server.status();
    let second = pid_of(processes(&status, "worker")[1]);
    let url = format!("ws://{}/app/demo-key?protocol=7", server.address(1));
    let on_second = || {
        let output = server.place.run(&["connections", "--json"]);
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let rows = list["connections"].as_array().expect("a list");
        rows.iter().any(|row| row["pid"] == second)
    };
    let mut subscriber = loop {
        let stream = TcpStream::connect(server.address(1)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (socket, _) = tungstenite::client(&url, stream).expect("a handshake");
        if on_second() {
            break socket;
        }
    };
    let subscribe = |channel| {
        let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
        tungstenite::Message::text(text)
    };
    until(&mut subscriber, "connection_established");
    subscriber.send(subscribe("c")).expect("sent");
    until(&mut subscriber, "subscription_succeeded");
    kill(second, SIGSTOP);
    for number in 0..12 {
        let status = publish(&server.address(0), &format!("event-{number}"));
        assert_eq!(status, "HTTP/1.1 200");
    }
    // So that the worker writes to the switchboard before it has read everything.
    subscriber.send(subscribe("d")).expect("sent");
    let switchboard = pid_of(processes(&status, "switchboard")[0]);
    kill(switchboard, SIGKILL);
    wait_for_replacement(&server, "switchboard", 0, switchboard);
    kill(second, SIGCONT);
    for number in 0..12 {
        until(&mut subscriber, &format!("\"event-{number}\""));
    }
}

#[test]
fn every_verb_that_tells_something_tells_it_as_json_too() {
    let place = Place::new(&format!("workers = 1\n{ECHO}"));
    let told = |verb: &[&str], code: i32| -> serde_json::Value {
        let output = place.run(&[verb, &["--json"]].concat());
        let words = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{verb:?}: {words}");
        assert!(
            output.stderr.is_empty(),
            "{verb:?}: {}",
            text(&output.stderr)
        );
        serde_json::from_str(&words).unwrap_or_else(|_| panic!("{verb:?}: {words}"))
    };
    let verbs = [
        &["status"][..],
        &["connections"],
        &["reload"],
        &["upgrade"],
        &["reopen"],
    ];
    for verb in verbs {
        assert_eq!(told(verb, 3)["state"], "stopped", "{verb:?}");
    }
    assert_eq!(told(&["stop"], 0)["state"], "stopped");
    let checked = told(&["check"], 0);
    assert_eq!(
        (&checked["done"], checked["warnings"].is_array()),
        (&"ok".into(), true)
    );
    assert_eq!(told(&["start"], 2)["exit"], 2);
    assert_eq!(place.run(&["start", "-d"]).status.code(), Some(0));
    assert_eq!(
        told(&["reload"], 0)["done"],
        "reloaded: 1 processes replaced"
    );
    let closed = told(&["connections", "close", "1-2-3"], 1);
    assert!(
        closed["error"].is_string() && closed["exit"] == 1,
        "{closed}"
    );
    place.configure(&format!("wrokers = 1\n{ECHO}"));
    for verb in ["check", "reload"] {
        let failed = told(&[verb], 6);
        let error = failed["error"].as_str().expect("words");
        assert!(
            error.contains("test.toml:2:") && failed["exit"] == 6,
            "{failed}"
        );
    }
    assert_eq!(told(&["stop"], 0)["done"], "stopped");
}

//! A child that is stuck in its very start: stopped after it was executed and before it serves.

mod support;

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use support::{ECHO, PATIENCE, Server, get, kill, pid_of, processes, wait_until};

const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;

/// A shell that stops processes, since starting a program for it would take too long.
struct Stopper {
    shell: Child,
}

impl Stopper {
    fn new() -> Stopper {
        let shell = Command::new("sh")
            .args(["-c", "while read pid; do kill -STOP $pid; done"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        Stopper { shell }
    }

    fn stop(&mut self, pid: u32) {
        let stdin = self.shell.stdin.as_mut().expect("its input");
        writeln!(stdin, "{pid}").expect("it listens");
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn worker(server: &Server) -> serde_json::Value {
    processes(&server.status(), "worker")[0].clone()
}

/// Kills the worker until a replacement could be stopped before it serves; returns its pid.
fn stop_a_starting_worker(server: &Server) -> u32 {
    let mut stopper = Stopper::new();
    let master = server.pid();
    let children = format!("/proc/{master}/task/{master}/children");
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        wait_until("a worker serves", || worker(server)["state"] == "running");
        let all = fs::read_to_string(&children).expect("the children of the master");
        let known: Vec<String> = all.split_whitespace().map(str::to_string).collect();
        kill(pid_of(&worker(server)), SIGKILL);
        let mut found = None;
        wait_until("there is another", || {
            let all = fs::read_to_string(&children).expect("the children of the master");
            let pid = all
                .split_whitespace()
                .find(|pid| !known.iter().any(|it| it == pid));
            let pid: Option<u32> = pid.and_then(|pid| pid.parse().ok());
            // Before exec it would hold up the master, which waits for that.
            let executed = |pid: &u32| {
                let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                words.windows(8).any(|it| it == b"--number")
            };
            found = pid.filter(executed);
            if let Some(pid) = found {
                stopper.stop(pid);
            }
            found.is_some()
        });
        let pid = found.expect("it was just found");
        wait_until("it is stopped or dead", || {
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            text.rsplit_once(") ")
                .is_none_or(|(_, rest)| rest.starts_with(['T', 'Z']))
        });
        if worker(server)["state"] == "starting" {
            return pid;
        }
        kill(pid, SIGCONT);
    }
    panic!("every worker was too fast");
}

#[test]
fn a_worker_stuck_in_its_start_is_killed_told_and_replaced() {
    let server = Server::start(&format!("workers = 1\nwatchdog_seconds = 3\n{ECHO}"));
    let stuck = stop_a_starting_worker(&server);
    wait_until("it is replaced", || {
        let worker = worker(&server);
        worker["state"] == "running" && pid_of(&worker) != stuck
    });
    let end = worker(&server)["last_end"].clone();
    assert_eq!(end, "not ready after 6 s, killed");
    let log = server.stderr();
    assert!(log.contains("worker 0 is stuck: thread "), "{log}");
    assert_eq!(
        get(&server.address(0), "/healthz").expect("an answer").0,
        200
    );
}

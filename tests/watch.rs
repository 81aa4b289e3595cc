//! `status --watch`: what it shows, where it shows it, and how it ends.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use support::{ECHO, Place, Server, get, kill, wait_until};

const SIGINT: i32 = 2;

/// A watch under way, ended with the test.
struct Watch {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Watch {
    fn begin(mut command: Command) -> Watch {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Watch { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        assert!(!line.is_empty(), "it ended");
        line
    }

    /// The exit code, and what was shown until the end.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("its output");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn json_is_a_line_each_time_and_tells_what_happened_in_between() {
    let server = Server::start(&format!("workers = 2\n{ECHO}"));
    let address = server.address(0);
    let mut watch = Watch::begin(server.place.command(&["status", "--json", "--watch", "1"]));
    let first: Value = serde_json::from_str(&watch.line()).expect("JSON");
    assert_eq!(first["state"], "running");
    assert!(first.get("rates").is_none(), "{first}");
    for _ in 0..50 {
        get(&address, "/healthz").expect("an answer");
    }
    let mut sum = 0.0;
    while sum < 1.0 {
        let later: Value = serde_json::from_str(&watch.line()).expect("JSON");
        let total = later["rates"]["accepted"].as_f64().expect("a rate");
        let all = later["processes"].as_array().expect("a list");
        let each = all
            .iter()
            .map(|it| it["rates"]["accepted"].as_f64().expect("a rate"));
        assert!((each.sum::<f64>() - total).abs() < 0.01, "{later}");
        sum += total;
    }
    kill(watch.child.id(), SIGINT);
    assert_eq!(watch.end().0, Some(0));
}

#[test]
fn a_pipe_gets_whole_tables_and_no_escape_codes() {
    let server = Server::start(ECHO);
    let mut watch = Watch::begin(server.place.command(&["status", "--watch"]));
    let mut text = String::new();
    while text.matches("Summary").count() < 2 {
        text += &watch.line();
    }
    kill(watch.child.id(), SIGINT);
    let (code, rest) = watch.end();
    assert_eq!(code, Some(0));
    assert!(!(text.clone() + &rest).contains('\x1b'), "{text}");
    let heads: Vec<&str> = text.lines().filter(|it| it.starts_with("PID")).collect();
    assert_eq!(heads.len(), 2, "{text}");
    assert!(heads[0].contains("CONNS/S"), "{text}");
}

#[test]
fn a_terminal_is_drawn_over_and_ctrl_c_is_a_good_end() {
    let server = Server::start(ECHO);
    let mut command = Command::new("script");
    let config = server.place.config();
    let typed = format!(
        "stty rows 24 cols 40; exec {} status --watch --config {}",
        env!("CARGO_BIN_EXE_lineman"),
        config.display()
    );
    command
        .args(["-qec", &typed, "/dev/null"])
        .stdin(Stdio::piped());
    let mut watch = Watch::begin(command);
    let mut text = String::new();
    while text.matches("Summary").count() < 2 {
        text += &watch.line();
    }
    let keyboard = watch.child.stdin.as_mut().expect("its keyboard");
    keyboard.write_all(b"\x03").expect("Ctrl-C");
    assert_eq!(watch.end().0, Some(0));
    assert_eq!(text.matches("\x1b[H\x1b[J").count(), 2, "{text}");
    let longest = text
        .lines()
        .map(|line| line.trim_end().chars().count())
        .max();
    assert!(longest <= Some(40 + "\x1b[H\x1b[J".len()), "{text}");
}

#[test]
fn a_server_that_does_not_run_ends_it_and_one_that_stops_does_not() {
    let place = Place::new(ECHO);
    let output = place.run(&["status", "--watch"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("not running"));
    let mut server = Server::start_in(place);
    let mut watch = Watch::begin(server.place.command(&["status", "--json", "--watch"]));
    watch.line();
    assert_eq!(server.place.run(&["stop"]).status.code(), Some(0));
    server.wait();
    let mut told = String::new();
    wait_until("it tells", || {
        told = watch.line();
        told.contains("stopped")
    });
    kill(watch.child.id(), SIGINT);
    assert_eq!(watch.end().0, Some(0));
    let wrong = server.place.run(&["status", "--watch", "0"]);
    assert_eq!(wrong.status.code(), Some(2));
}

//! The log file when it is rotated: every process goes on in the new one, and no line is lost or
//! torn, whoever rotates it and however the server is told.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rcgen::{CertificateParams, KeyPair};
use support::{DEMO, PATIENCE, Place, Server, pid_of, processes, wait_until};

const SIGHUP: i32 = 1;
const SIGUSR1: i32 = 10;

/// A server whose workers log a line for each handshake that fails.
fn start() -> Server {
    let place = Place::new("");
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(["localhost".to_string()]).expect("a name");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    fs::write(place.path().join("a.pem"), certificate.pem()).expect("written");
    fs::write(place.path().join("a.key"), key.serialize_pem()).expect("written");
    let demo = DEMO.replace(
        "handler",
        "tls = { certificate = \"a.pem\", key = \"a.key\" }\nhandler",
    );
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let demo = demo.replace("http://127.0.0.1:0", &format!("https://127.0.0.1:{port}"));
    fs::create_dir(place.path().join("log")).expect("a directory");
    place.configure(&format!(
        "workers = 2\n{demo}[log]\nlevel = \"debug\"\nformat = \"json\"\nfile = \"log/a.log\"\n"
    ));
    Server::start_in(place)
}

fn log_path(server: &Server) -> PathBuf {
    server.place.path().join("log/a.log")
}

/// Every process of the server, and the file that its standard error is.
fn files(server: &Server) -> BTreeMap<u32, PathBuf> {
    let status = server.status();
    let all = status["processes"].as_array().expect("a list");
    let pids = all.iter().map(pid_of).chain([server.pid()]);
    let file = |pid| fs::read_link(format!("/proc/{pid}/fd/2")).unwrap_or_default();
    pids.filter(|pid| *pid != 0)
        .map(|pid| (pid, file(pid)))
        .collect()
}

/// Waits until all write to the file that has the log's name.
fn wait_for_all(server: &Server) -> BTreeMap<u32, PathBuf> {
    let path = log_path(server).canonicalize().expect("the log is there");
    let mut found = BTreeMap::new();
    wait_until("all go on in the new file", || {
        found = files(server);
        found.values().all(|file| *file == path)
    });
    found
}

/// One handshake that fails: one line of a worker.
fn fail_handshake(address: &str) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
        .write_all(b"this is no handshake at all")
        .expect("sent");
    let _ = stream.read_to_end(&mut Vec::new());
}

/// How often a message stands in all log files; every line must be whole.
fn count(server: &Server, message: &str) -> usize {
    let folder = fs::read_dir(server.place.path().join("log")).expect("the folder");
    let mut found = 0;
    for entry in folder {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a log");
        assert!(text.is_empty() || text.ends_with('\n'));
        for line in text.lines() {
            let object: serde_json::Value = serde_json::from_str(line).expect(line);
            let words = object["message"].as_str().expect("a message");
            found += usize::from(words.contains(message));
        }
    }
    found
}

#[test]
fn logrotate_loses_no_line_and_tears_none() {
    if Command::new("logrotate").arg("--version").output().is_err() {
        eprintln!("logrotate is not installed");
        return;
    }
    let server = start();
    let pids: Vec<u32> = files(&server).into_keys().collect();
    let address = server.address(0);
    let rules = server.place.path().join("rules");
    fs::write(
        &rules,
        format!(
            "{} {{\n rotate 20\n create 0600\n postrotate\n {} reopen --config {}\n endscript\n}}\n",
            log_path(&server).display(),
            env!("CARGO_BIN_EXE_lineman"),
            server.place.config().display()
        ),
    )
    .expect("written");
    let over = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let noise = scope.spawn(|| {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                fail_handshake(&address);
                sent += 1;
            }
            sent
        });
        for _ in 0..10 {
            let mut command = Command::new("logrotate");
            command
                .arg("-f")
                .arg("-s")
                .arg(server.place.path().join("state"));
            let output = command.arg(&rules).output().expect("it runs");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && told.is_empty(), "{told}");
            wait_for_all(&server);
        }
        over.store(true, Ordering::Relaxed);
        noise.join().expect("it ends")
    });
    assert!(sent > 20, "{sent}");
    let rotated = server.place.path().join("log/a.log.10");
    assert!(rotated.exists(), "ten rotations leave ten files");
    wait_until("all lines are written", || {
        count(&server, "a TLS connection failed") >= sent
    });
    assert_eq!(count(&server, "a TLS connection failed"), sent);
    // Nobody was replaced for it.
    assert_eq!(files(&server).into_keys().collect::<Vec<_>>(), pids);
}

#[test]
fn a_hangup_changes_the_file_only_and_a_reload_brings_those_that_stay_along() {
    let server = start();
    let rename = |to: &str| {
        let path = log_path(&server);
        fs::rename(&path, path.with_file_name(to)).expect("it was there");
    };
    let before = wait_for_all(&server);
    rename("first");
    server.kill(server.pid(), SIGHUP);
    wait_until("the file is there again", || log_path(&server).exists());
    assert_eq!(wait_for_all(&server), before);
    // After a crash a child gets the file of that time, and later ones like the others.
    let victim = pid_of(processes(&server.status(), "worker")[0]);
    server.kill(victim, 9);
    wait_until("it is replaced", || {
        let status = server.status();
        status["state"] == "running" && pid_of(processes(&status, "worker")[0]) != victim
    });
    let before = wait_for_all(&server);
    rename("second");
    server.kill(server.pid(), SIGUSR1);
    wait_until("the file is there again", || log_path(&server).exists());
    wait_until("the workers are others", || {
        let after = wait_for_all(&server);
        let stayed = before.keys().filter(|pid| after.contains_key(pid));
        // The master and the switchboard.
        stayed.count() == 2
    });
    assert_eq!(count(&server, "the log goes on in a new file"), 2);
}

#[test]
fn reopening_tells_whether_there_was_anything_to_do() {
    let server = start();
    let check = |code: i32, words: &str| {
        let output = server.place.run(&["reopen"]);
        let told = [&output.stdout[..], &output.stderr[..]].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(words), "{told}");
    };
    check(0, "the one it was");
    fs::remove_file(log_path(&server)).expect("it was there");
    check(0, "new file");
    wait_for_all(&server);
    // Where the log cannot be, it stays where it was, and so does the server.
    let folder = server.place.path().join("log");
    fs::remove_dir_all(&folder).expect("it was there");
    check(1, "the file it had: No such file");
    assert_eq!(server.status()["state"], "running");
    fs::create_dir(&folder).expect("a directory");
    check(0, "new file");
    wait_for_all(&server);
}

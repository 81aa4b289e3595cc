//! Replacing what runs without anybody being refused: reloads, graceful ends, children that are
//! stuck or die again and again, and the connections that live through it.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{
    DEMO, ECHO, PATIENCE, Server, get, is_alive, pid_of, processes, publish_call, wait_until,
};

const SIGHUP: i32 = 1;
const SIGQUIT: i32 = 3;
const SIGKILL: i32 = 9;
const SIGUSR2: i32 = 12;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// A WebSocket client that reads frames of the server.
struct Socket {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Socket {
    fn open(address: &str, path: &str) -> std::io::Result<Socket> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut socket = Socket {
            stream,
            bytes: Vec::new(),
        };
        let end = loop {
            if let Some(end) = socket.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            socket.fill()?;
        };
        let head: Vec<u8> = socket.bytes.drain(..end).collect();
        if !head.starts_with(b"HTTP/1.1 101") {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(socket)
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.bytes.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    /// The next frame: its opcode and payload.
    fn frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        loop {
            if let [first, length, ..] = *self.bytes.as_slice() {
                let (start, length) = match length {
                    126 if self.bytes.len() >= 4 => (
                        4,
                        usize::from(u16::from_be_bytes([self.bytes[2], self.bytes[3]])),
                    ),
                    126 => (4, usize::MAX - 4),
                    length => (2, usize::from(length)),
                };
                if self.bytes.len() >= start + length {
                    let frame: Vec<u8> = self.bytes.drain(..start + length).collect();
                    return Ok((first & 15, frame[start..].to_vec()));
                }
            }
            self.fill()?;
        }
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)
    }

    /// Reads until the server closes, answers as a browser does, and returns the code.
    fn closed(mut self) -> u16 {
        loop {
            let (opcode, payload) = self.frame().expect("a Close frame before the end");
            if opcode == 8 {
                let _ = self.send(8, &payload);
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }

    fn echoes(&mut self) -> bool {
        let sent = self.send(1, b"ping");
        sent.is_ok() && matches!(self.frame(), Ok((1, payload)) if payload == b"ping")
    }
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(server: &Server, verb: &[&str]) -> (Option<i32>, String) {
    let output = server.place.run(verb);
    let told = words(&output.stdout) + &words(&output.stderr);
    (output.status.code(), told)
}

fn worker_pids(server: &Server) -> Vec<u32> {
    let status = server.status();
    let workers = processes(&status, "worker");
    let serving = workers.iter().filter(|it| it["state"] != "draining");
    serving.map(|worker| pid_of(worker)).collect()
}

/// With the ports it has now, so that a reload finds them unchanged.
fn on_fixed_ports(toml: &str) -> String {
    let mut text = toml.to_string();
    while let Some(at) = text.find("127.0.0.1:0\"") {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        text.replace_range(at..at + 11, &format!("127.0.0.1:{port}"));
    }
    text
}

/// Makes connections until it is told to stop: each is served, or counted as refused.
struct Visitors {
    over: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<usize>>,
}

impl Visitors {
    fn begin(address: &str) -> Visitors {
        let over = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let threads = (0..3).map(|_| {
            let (over, refused, address) = (over.clone(), refused.clone(), address.to_string());
            thread::spawn(move || {
                let mut served = 0;
                while !over.load(Ordering::Relaxed) {
                    match get(&address, "/healthz") {
                        Ok((200, _)) => served += 1,
                        other => {
                            eprintln!("refused: {other:?}");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                served
            })
        });
        let threads = threads.collect();
        Visitors {
            over,
            refused,
            threads,
        }
    }

    /// How many were served; none was refused.
    fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        let served = self
            .threads
            .into_iter()
            .map(|it| it.join().expect("it ends"));
        let served = served.sum();
        assert_eq!(self.refused.load(Ordering::Relaxed), 0, "of {served}");
        served
    }
}

#[test]
fn nobody_is_refused_through_a_reload_and_plain_sockets_are_told_1001() {
    let server = Server::start(&on_fixed_ports(&format!("workers = 2\n{ECHO}")));
    let address = server.address(0);
    let before = worker_pids(&server);
    let sockets: Vec<Socket> = (0..100)
        .map(|_| Socket::open(&address, "/").expect("a socket"))
        .collect();
    let visitors = Visitors::begin(&address);
    let (code, told) = run(&server, &["reload"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("2 processes replaced"), "{told}");
    let after = worker_pids(&server);
    assert!(
        before.iter().all(|pid| !after.contains(pid)),
        "{before:?} {after:?}"
    );
    assert!(sockets.into_iter().all(|socket| socket.closed() == 1001));
    let served = visitors.end();
    assert!(served > 20, "only {served} were served");
    wait_until("the old ones are gone", || {
        !before.iter().any(|pid| is_alive(*pid))
    });
    let status = server.status();
    let all = status["processes"].as_array().expect("a list");
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|it| it["restarts"] == 0));
    eprintln!("{served} connections through a reload");
}

#[test]
fn workers_are_replaced_one_by_one_and_the_new_one_serves_before_the_old_one_lets_go() {
    let server = Server::start(&on_fixed_ports(&format!("workers = 3\n{ECHO}")));
    assert_eq!(run(&server, &["reload"]).0, Some(0));
    wait_until("all have let go", || {
        server.stderr().matches("lets its clients go").count() == 3
    });
    let log = server.stderr();
    let (_, log) = log.split_once("] reloading").expect("it says so");
    let steps = log.lines().filter_map(|line| {
        let (_, words) = line.split_once("] worker ")?;
        let (number, step) = words.split_once(' ')?;
        let step = ["runs", "lets"].iter().find(|it| step.starts_with(**it))?;
        Some(format!("{number} {step}"))
    });
    let steps: Vec<String> = steps.collect();
    let expected = ["0 runs", "0 lets", "1 runs", "1 lets", "2 runs", "2 lets"];
    assert_eq!(steps, expected, "{log}");
}

#[test]
fn pusher_clients_are_told_4200_evenly_over_the_window_and_can_come_back_at_once() {
    let toml = format!("workers = 1\ndrain_seconds = 3\n{DEMO}");
    let server = Server::start(&on_fixed_ports(&toml));
    let address = server.address(0);
    let path = "/app/demo-key?protocol=7";
    let sockets: Vec<Socket> = (0..60)
        .map(|_| Socket::open(&address, path).expect("a socket"))
        .collect();
    let began = Instant::now();
    server.kill(server.pid(), SIGUSR2);
    let ends = sockets.into_iter().map(|socket| {
        let address = address.clone();
        thread::spawn(move || {
            let code = socket.closed();
            let at = began.elapsed();
            let mut again = Socket::open(&address, path).expect("back at once");
            assert_eq!(again.frame().expect("a greeting").0, 1);
            (code, at)
        })
    });
    let ends: Vec<_> = ends.collect();
    let ends: Vec<(u16, Duration)> = ends
        .into_iter()
        .map(|it| it.join().expect("it ends"))
        .collect();
    assert!(ends.iter().all(|(code, _)| *code == 4200), "{ends:?}");
    let first = ends.iter().map(|(_, at)| *at).min().expect("some");
    // Each third of the window has about a third of them.
    let mut thirds = [0; 3];
    for (_, at) in &ends {
        thirds[((at.as_millis() - first.as_millis()) / 1000).min(2) as usize] += 1;
    }
    assert!(thirds.iter().all(|count| *count >= 10), "{thirds:?}");
}

#[test]
fn a_wrong_configuration_changes_nothing_and_says_why() {
    let toml = on_fixed_ports(&format!("workers = 2\n{DEMO}"));
    let server = Server::start(&toml);
    let before = worker_pids(&server);
    let refused = |toml: &str, part: &str| {
        server.place.configure(toml);
        let (code, told) = run(&server, &["reload"]);
        assert_eq!(code, Some(6), "{told}");
        assert!(told.contains(part), "no {part} in {told}");
        assert!(told.contains("goes on as it was"), "{told}");
    };
    refused(&format!("wrokers = 1\n{toml}"), "test.toml:2:");
    refused(
        &toml.replace("workers = 2", "workers = 3"),
        "workers: cannot change",
    );
    refused(&format!("threads = 2\n{toml}"), "threads: cannot change");
    refused(
        &on_fixed_ports(&format!("workers = 2\n{DEMO}")),
        "listen.url: cannot change",
    );
    refused(
        &on_fixed_ports(&format!("{toml}{ECHO}")),
        "the number of [[listen]] tables: cannot change",
    );
    let fewer = "handler = \"channels\"\nworkers = 1";
    refused(
        &toml.replace("handler = \"channels\"", fewer),
        "listen.workers: cannot change",
    );
    refused(
        &format!("user = \"nobody\"\ngroup = \"nogroup\"\n{toml}[log]\nfile = \"x.log\"\n"),
        "user, group, log.file: cannot change",
    );
    assert_eq!(worker_pids(&server), before);
    server.kill(server.pid(), SIGHUP);
    wait_until("the log tells", || server.stderr().contains("not reloaded"));
    assert_eq!(server.status()["state"], "running");
    assert_eq!(worker_pids(&server), before);
}

#[test]
fn a_changed_app_takes_effect_and_the_switchboard_stays() {
    let toml = on_fixed_ports(&format!("workers = 2\n{DEMO}"));
    let server = Server::start(&toml);
    let switchboard = pid_of(processes(&server.status(), "switchboard")[0]);
    server.place.configure(&toml.replace("demo-key", "new-key"));
    assert_eq!(run(&server, &["reload"]).0, Some(0));
    let greeting = |key: &str| {
        let path = format!("/app/{key}?protocol=7");
        let mut socket = Socket::open(&server.address(0), &path).expect("a socket");
        socket.frame().expect("a frame").0
    };
    assert_eq!(greeting("new-key"), 1);
    assert_eq!(greeting("demo-key"), 8);
    assert_eq!(
        pid_of(processes(&server.status(), "switchboard")[0]),
        switchboard
    );
    // A limit concerns it.
    server
        .place
        .configure(&format!("{toml}[limits]\npresence_members = 7\n"));
    assert_eq!(run(&server, &["reload"]).0, Some(0));
    assert_ne!(
        pid_of(processes(&server.status(), "switchboard")[0]),
        switchboard
    );
}

/// A worker that leaves has clients for a long time, and its successor speaks in the same slot: a
/// new switchboard must hear both before it answers 200.
#[test]
fn a_publish_reaches_clients_of_a_worker_that_leaves_though_the_switchboard_died() {
    let rest = format!("{DEMO}[limits]\nsettle_ms = 30000\n");
    let toml = on_fixed_ports(&format!("workers = 1\ndrain_seconds = 3600\n{rest}"));
    let server = Server::start(&toml);
    let address = server.address(0);
    let leaving = worker_pids(&server)[0];
    let mut subscriber = Socket::open(&address, "/app/demo-key?protocol=7").expect("a socket");
    let until = |subscriber: &mut Socket, part: &str| {
        while !words(&subscriber.frame().expect("a frame").1).contains(part) {}
    };
    let subscribe = br#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#;
    subscriber.send(1, subscribe).expect("sent");
    until(&mut subscriber, "subscription_succeeded");
    assert_eq!(run(&server, &["reload", "-g"]).0, Some(0));
    server.kill(leaving, SIGSTOP);
    let switchboard = || pid_of(processes(&server.status(), "switchboard")[0]);
    let former = switchboard();
    server.kill(former, SIGKILL);
    wait_until("it is replaced", || ![0, former].contains(&switchboard()));

    let mut publisher = TcpStream::connect(&address).expect("the successor listens");
    let body = r#"{"name":"the-event","channel":"c","data":"x"}"#;
    let mut publish = || {
        let call = publish_call("", body);
        publisher.write_all(call.as_bytes()).expect("sent");
        let mut answer = [0; 1024];
        let soon = Some(Duration::from_millis(500));
        publisher.set_read_timeout(soon).expect("a timeout");
        let count = publisher.read(&mut answer).unwrap_or(0);
        words(&answer[..count])
    };
    // Refused while the successor has no link yet; held as soon as it has.
    let mut answer = String::new();
    wait_until("it is linked", || {
        answer = publish();
        !answer.starts_with("HTTP/1.1 503")
    });
    assert_eq!(answer, "", "nothing is promised yet");
    server.kill(leaving, SIGCONT);
    until(&mut subscriber, "the-event");
}

/// How many sockets the large test holds: `LINEMAN_RELOAD_SOCKETS`, else 10,000 or what this
/// process may have, once it has raised its limit as the server does.
fn socket_count() -> usize {
    let asked = std::env::var("LINEMAN_RELOAD_SOCKETS").ok();
    asked
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| (support::raised_descriptor_limit() - 500).min(10_000))
}

#[test]
fn thousands_of_open_sockets_live_through_a_graceful_reload() {
    let count = socket_count();
    let toml = format!("workers = 2\ndrain_seconds = 4\n{ECHO}");
    let server = Server::start(&on_fixed_ports(&toml));
    let address = server.address(0);
    let mut sockets: Vec<Socket> = (0..count)
        .map(|_| Socket::open(&address, "/").expect("a socket"))
        .collect();
    let visitors = Visitors::begin(&address);
    let began = Instant::now();
    assert_eq!(run(&server, &["reload", "-g"]).0, Some(0));
    let took = began.elapsed();
    // Those whose turn has not come are served as before.
    let mut codes = Vec::new();
    let mut still = 0;
    for mut socket in sockets.split_off(count - 20) {
        // It may be told to go at this very moment; then that is what it reads.
        let _ = socket.send(1, b"ping");
        match socket.frame().expect("an echo or a Close frame") {
            (8, payload) => codes.push(u16::from_be_bytes([payload[0], payload[1]])),
            (opcode, payload) => {
                assert_eq!((opcode, payload.as_slice()), (1, &b"ping"[..]));
                still += 1;
                sockets.push(socket);
            }
        }
    }
    codes.extend(sockets.into_iter().map(Socket::closed));
    assert!(codes.iter().all(|code| *code == 1001));
    assert_eq!(codes.len(), count);
    eprintln!(
        "{count} sockets: reload took {took:?}, all told within {:?}, {still} of 20 served on, {} visitors",
        began.elapsed(),
        visitors.end()
    );
}

#[test]
fn a_graceful_end_gives_the_last_answers_and_refuses_new_ones() {
    let toml = format!("workers = 2\ndrain_seconds = 2\n{ECHO}");
    let mut server = Server::start(&on_fixed_ports(&toml));
    let address = server.address(0);
    let sockets: Vec<Socket> = (0..20)
        .map(|_| Socket::open(&address, "/").expect("a socket"))
        .collect();
    // A request whose second half comes when the server is leaving.
    let mut half = TcpStream::connect(&address).expect("a connection");
    half.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    half.write_all(b"GET /healthz HTTP/1.1\r\n")
        .expect("half a head");
    wait_until("it is seen", || {
        let told = run(&server, &["connections", "--filter", "reading"]).1;
        told.contains("1 of 1")
    });
    server.kill(server.pid(), SIGQUIT);
    wait_until("it refuses", || TcpStream::connect(&address).is_err());
    half.write_all(b"Host: x\r\n\r\n").expect("the rest");
    let mut answer = String::new();
    half.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    assert!(sockets.into_iter().all(|socket| socket.closed() == 1001));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn stop_g_waits_for_clients_and_stop_overtakes_it() {
    let toml = format!("workers = 1\ndrain_seconds = 600\n{ECHO}");
    let mut server = Server::start(&toml);
    let address = server.address(0);
    let sockets: Vec<Socket> = (0..30)
        .map(|_| Socket::open(&address, "/").expect("a socket"))
        .collect();
    let mut waiting = server
        .place
        .command(&["stop", "-g"])
        .spawn()
        .expect("it runs");
    wait_until("it leaves", || server.status()["state"] == "stopping");
    assert!(waiting.try_wait().expect("it can be asked").is_none());
    assert_eq!(run(&server, &["stop"]).0, Some(0));
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(waiting.wait().expect("it ends").code(), Some(0));
    drop(sockets);
}

#[test]
fn a_stuck_worker_is_found_told_and_replaced() {
    let server = Server::start(&format!("workers = 2\nwatchdog_seconds = 3\n{ECHO}"));
    let stuck = worker_pids(&server)[0];
    server.kill(stuck, SIGSTOP);
    wait_until("it is replaced", || {
        let status = server.status();
        let worker = processes(&status, "worker")[0];
        worker["state"] == "running" && pid_of(worker) != stuck
    });
    let status = server.status();
    let end = processes(&status, "worker")[0]["last_end"].clone();
    assert!(
        end.as_str().expect("words").contains("no sign of life"),
        "{end}"
    );
    let log = server.stderr();
    assert!(log.contains("is stuck: thread reactor-0"), "{log}");
    assert!(!is_alive(stuck));
}

#[test]
fn a_worker_in_back_off_gets_no_connections_and_status_says_why() {
    let server = Server::start(&format!("workers = 2\n{ECHO}"));
    let address = server.address(0);
    let waits = || {
        let status = server.status();
        let worker = processes(&status, "worker")[0].clone();
        (worker["state"] == "waiting" && worker["wait_ms"].as_u64() > Some(2000)).then_some(worker)
    };
    let mut waiting = None;
    wait_until("it is in back-off", || {
        waiting = waits();
        let status = server.status();
        let pid = pid_of(processes(&status, "worker")[0]);
        if waiting.is_none() && pid != 0 && is_alive(pid) {
            support::kill(pid, SIGKILL);
        }
        waiting.is_some()
    });
    let worker = waiting.expect("it waits");
    assert_eq!(worker["last_end"], "killed by signal 9 (SIGKILL)");
    let table = run(&server, &["status"]).1;
    assert!(
        table.contains("waiting") && table.contains("SIGKILL"),
        "{table}"
    );
    // All go to the one that lives, at once.
    let began = Instant::now();
    for _ in 0..30 {
        assert_eq!(get(&address, "/healthz").expect("an answer").0, 200);
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // A reload does not wait for the back-off.
    assert_eq!(run(&server, &["reload"]).0, Some(0));
    wait_until("it is back", || server.status()["state"] == "running");
}

#[test]
fn connections_are_listed_sorted_cut_off_and_closed() {
    let server = Server::start(&format!("workers = 2\n{ECHO}"));
    let address = server.address(0);
    let mut sockets: Vec<Socket> = (0..10)
        .map(|_| Socket::open(&address, "/").expect("a socket"))
        .collect();
    assert!(sockets[3].echoes());
    let list = |verb: &[&str]| -> serde_json::Value {
        let (code, told) = run(&server, &[&["connections", "--json"], verb].concat());
        assert_eq!(code, Some(0), "{told}");
        serde_json::from_str(&told).expect("JSON")
    };
    let all = list(&[]);
    assert_eq!(all["matched"], 10);
    let busiest = list(&["--sort", "bytes-in", "--limit", "1"]);
    assert_eq!(busiest["matched"], 10);
    let rows = busiest["connections"].as_array().expect("rows");
    let local = sockets[3]
        .stream
        .local_addr()
        .expect("an address")
        .to_string();
    assert_eq!(
        (rows.len(), rows[0]["remote"].as_str()),
        (1, Some(local.as_str()))
    );
    assert_eq!(rows[0]["protocol"], "websocket");
    assert_eq!(rows[0]["local"].as_str(), Some(address.as_str()));
    let table = run(&server, &["connections", "--limit", "3"]).1;
    assert!(
        table.contains("3 of 10") && table.contains("cut off"),
        "{table}"
    );
    assert_eq!(list(&["--filter", &local])["matched"], 1);
    let id = rows[0]["id"].as_str().expect("an id");
    let (code, told) = run(&server, &["connections", "close", id]);
    assert_eq!((code, told.as_str()), (Some(0), "closed\n"));
    assert_eq!(sockets.remove(3).closed(), 1008);
    assert_eq!(run(&server, &["connections", "close", id]).0, Some(1));
    assert_eq!(run(&server, &["connections", "close", "x"]).0, Some(1));
    assert_eq!(
        run(&server, &["connections", "--sort", "colour"]).0,
        Some(2)
    );
}

//! Lineman under test: the real binary with a database of its own, one app and its devices, asked over
//! HTTP like anybody's. Ends with the value.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Fallible;
use crate::cpu::Cpu;
use crate::place::{KEY_ID, Place, TEAM_ID, TOPIC, token};

const PATIENCE: Duration = Duration::from_secs(30);
/// Registered by one call.
const PAGE: usize = 500;
const TOKEN_KEY: (&str, &str) = (
    "LINEMAN_BENCH_TOKEN_KEY",
    "a2V5cyBmb3IgdGVzdHMgaGF2ZSAzMiBieXRlcy4uLi4=",
);

pub struct Server<'a> {
    place: &'a Place,
    program: String,
    port: u16,
    child: Child,
}

impl<'a> Server<'a> {
    /// `store`: the url of a PostgreSQL, or SQLite. Without `sends` it accepts what it is asked for, and
    /// has no credential to send it with.
    pub fn start(
        place: &'a Place,
        program: &str,
        store: Option<&str>,
        sends: bool,
    ) -> Fallible<Server<'a>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        drop(listener);
        fs::write(place.file("bench.toml"), toml(place, port, store, sends))?;
        let child = command(program, place, "start")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(place.file("stderr"))?)
            .spawn()?;
        let server = Server {
            place,
            program: program.to_string(),
            port,
            child,
        };
        let begun = Instant::now();
        while !server.is_ready() {
            if begun.elapsed() > PATIENCE {
                let why = fs::read_to_string(place.file("stderr"))?;
                return Err(format!("it does not become ready: {why}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn is_ready(&self) -> bool {
        let mut caller = match Caller::new(self.port) {
            Ok(caller) => caller,
            Err(_) => return false,
        };
        // The courier answers that, and the worker has a way to it.
        let asked = caller.call("GET", "/apps/bench/notifications?limit=1", "");
        asked.is_ok_and(|it| it.0 == 200)
    }

    /// What a process of it has used.
    pub fn cpu(&self, role: &str) -> Fallible<Cpu> {
        let told = command(&self.program, self.place, "status")
            .arg("--json")
            .output()?;
        let status: Value = serde_json::from_slice(&told.stdout)?;
        let all = status["processes"].as_array().ok_or("no processes")?;
        let mut those = all.iter().filter(|it| it["role"] == role);
        let pid = those.next().and_then(|it| it["pid"].as_u64());
        Cpu::of(pid.ok_or_else(|| format!("there is no {role}"))? as u32)
    }

    /// One device for each of so many users.
    pub fn register(&self, count: usize) -> Fallible<()> {
        let mut caller = Caller::new(self.port)?;
        let all: Vec<usize> = (0..count).collect();
        for page in all.chunks(PAGE) {
            let lines = page.iter().map(|nth| {
                format!(
                    r#"{{"device_id":"d{nth}","user_id":"u{nth}","platform":"ios","token":"{}"}}"#,
                    token(*nth)
                )
            });
            let body = lines.collect::<Vec<_>>().join("\n");
            caller.expect(200, "POST", "/apps/bench/devices/import", &body)?;
        }
        Ok(())
    }

    /// Accepts so many notifications for so many users each, asked for by several callers, each of
    /// whom waits for every answer; how long it took.
    pub fn notify(&self, calls: usize, users: usize, callers: usize) -> Fallible<Duration> {
        let next = AtomicUsize::new(0);
        let begun = Instant::now();
        thread::scope(|scope| {
            let work = || -> Result<(), String> {
                let mut caller = Caller::new(self.port).map_err(|error| error.to_string())?;
                loop {
                    let nth = next.fetch_add(1, Relaxed);
                    if nth >= calls {
                        return Ok(());
                    }
                    let body = notification(nth, users);
                    let done = caller.expect(202, "POST", "/apps/bench/notify", &body);
                    done.map_err(|error| error.to_string())?;
                }
            };
            let threads: Vec<_> = (0..callers).map(|_| scope.spawn(work)).collect();
            let ends = threads.into_iter().map(|it| it.join().expect("no panic"));
            ends.collect::<Result<(), String>>()
        })?;
        Ok(begun.elapsed())
    }

    /// Whether no notification is open any more.
    pub fn is_settled(&self) -> Fallible<bool> {
        let mut caller = Caller::new(self.port)?;
        let path = "/apps/bench/notifications?state=open&limit=1";
        let told: Value = serde_json::from_str(&caller.expect(200, "GET", path, "")?)?;
        Ok(told["notifications"]
            .as_array()
            .ok_or("no list")?
            .is_empty())
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = command(&self.program, self.place, "stop").output();
        let _ = self.child.wait();
    }
}

fn command(program: &str, place: &Place, verb: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(verb).arg("--config");
    command.arg(place.file("bench.toml"));
    command.env(TOKEN_KEY.0, TOKEN_KEY.1);
    command
}

fn toml(place: &Place, port: u16, store: Option<&str>, sends: bool) -> String {
    let store = match store {
        Some(url) => {
            // Lineman wants the user beside the URL, not in it.
            let (url, user) = apart(url);
            format!("url = {url:?}\nuser = {user:?}")
        }
        None => "dir = \"store\"".to_string(),
    };
    let credential = format!(
        "[[apps.apns]]\nkey = {{ file = {:?} }}\nkey_id = \"{KEY_ID}\"\nteam_id = \"{TEAM_ID}\"\n\
         bundle = \"{TOPIC}\"\nbase_url = \"https://localhost:{}\"\nca_file = {:?}\n",
        place.file("key.p8"),
        place.port,
        place.file("ca.pem"),
    );
    let credential = if sends { credential } else { String::new() };
    format!(
        "run_dir = \"run\"\nworkers = 1\n\
         [limits]\ndevice_calls_per_second = 0\nnotifications_per_second = 0\nnotifications_per_user_per_second = 0\n\
         [[listen]]\nurl = \"http://127.0.0.1:{port}\"\n\
         [[apps]]\nid = \"bench\"\nkey = \"bench-key\"\nsecret = \"bench-secret\"\n{credential}\
         [push]\ntoken_key = {{ env = \"{}\" }}\nallow_loopback = true\n[store]\n{store}\n",
        TOKEN_KEY.0
    )
}

/// A URL without its user, and the user; the database's own name for who is not named.
fn apart(url: &str) -> (String, &str) {
    let parts = url.split_once("://");
    let parts = parts.and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?)));
    match parts {
        Some((scheme, (user, rest))) => (format!("{scheme}://{rest}"), user),
        None => (url.to_string(), "postgres"),
    }
}

/// The nth of a run; users in turn.
fn notification(nth: usize, users: usize) -> String {
    let users = (nth * users..(nth + 1) * users).map(|user| format!("\"u{user}\""));
    let users = users.collect::<Vec<_>>().join(",");
    format!(
        r#"{{"to":{{"users":[{users}]}},"deliver":"push","note":{{"title":"Order {nth}","body":"Your order is ready to be collected at the counter."}}}}"#
    )
}

/// One connection of HTTP/1.1.
struct Caller {
    stream: BufReader<TcpStream>,
}

impl Caller {
    fn new(port: u16) -> std::io::Result<Caller> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let stream = BufReader::new(stream);
        Ok(Caller { stream })
    }

    fn expect(&mut self, code: u16, method: &str, path: &str, body: &str) -> Fallible<String> {
        let (told, answer) = self.call(method, path, body)?;
        match told == code {
            true => Ok(answer),
            false => Err(format!("{method} {path}: {told} {answer}").into()),
        }
    }

    fn call(&mut self, method: &str, path: &str, body: &str) -> Fallible<(u16, String)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer bench-secret\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let code = line.get(9..12).ok_or("no status")?.parse()?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok((code, String::from_utf8(answer)?))
    }
}

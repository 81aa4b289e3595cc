//! What tests of the whole program share: a real server in a directory of its own, its status, and
//! a small HTTP call. Invariant: nothing a test starts outlives it, and nothing waits without end.

// Each test file uses its own part of this module.
#![allow(dead_code)]

mod alive;
pub mod requests;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub use alive::PATIENCE;
#[allow(unused_imports)]
pub use alive::{crash_rounds, is_alive};

/// An echo server on a free port.
pub const ECHO: &str = "[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"echo\"\n";

/// A channels server on a free port, with the demo app.
pub const DEMO: &str = "[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"channels\"\n\
    [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n";

/// Where `Place::command` keeps a token key for `PUSH`.
pub const TOKEN_KEY: (&str, &str) = (
    "LINEMAN_TEST_TOKEN_KEY",
    "a2V5cyBmb3IgdGVzdHMgaGF2ZSAzMiBieXRlcy4uLi4=",
);

/// A push gateway with the token key of `Place::command`.
pub const PUSH: &str = "[push]\ntoken_key = { env = \"LINEMAN_TEST_TOKEN_KEY\" }\n";

/// A configuration file in a directory of its own, which also holds the run directory.
pub struct Place {
    dir: TempDir,
    program: PathBuf,
}

impl Place {
    /// `toml` without `run_dir`.
    pub fn new(toml: &str) -> Place {
        Place::of(Path::new(env!("CARGO_BIN_EXE_lineman")), toml)
    }

    /// For a program that embeds the server.
    pub fn of(program: &Path, toml: &str) -> Place {
        let place = Place {
            dir: TempDir::new().expect("a temporary directory"),
            program: program.to_path_buf(),
        };
        place.configure(toml);
        place
    }

    /// Replaces the configuration. `run_dir` is the first line.
    pub fn configure(&self, toml: &str) {
        let text = format!("run_dir = \"run\"\n{toml}");
        fs::write(self.config(), text).expect("the configuration is written");
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("test.toml")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `lineman VERB…` with this configuration.
    pub fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(verb)
            .arg("--config")
            .arg(self.config())
            .env(TOKEN_KEY.0, TOKEN_KEY.1)
            .stdin(Stdio::null());
        command
    }

    /// Runs a verb that ends by itself; one that does not is killed and shows no exit code.
    pub fn run(&self, verb: &[&str]) -> Output {
        // Into files, because a pipe that nobody reads would stop the program when it is full.
        let mut stdout = tempfile::tempfile().expect("an output file");
        let mut stderr = tempfile::tempfile().expect("an output file");
        let mut command = self.command(verb);
        command.stdout(stdout.try_clone().expect("a copy"));
        command.stderr(stderr.try_clone().expect("a copy"));
        let mut child = command.spawn().expect("the program runs");
        let began = Instant::now();
        while child.try_wait().expect("the child can be asked").is_none() {
            if began.elapsed() > 2 * PATIENCE {
                let _ = child.kill();
            }
            pause();
        }
        let status = child.wait().expect("it has ended");
        let [stdout, stderr] = [&mut stdout, &mut stderr].map(|file| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).expect("the start of a file");
            file.read_to_end(&mut bytes)
                .expect("a file that can be read");
            bytes
        });
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// What `status --json` prints; `None` when no server runs.
    pub fn status(&self) -> Option<Value> {
        let output = self.run(&["status", "--json"]);
        if output.status.code() != Some(0) {
            return None;
        }
        serde_json::from_slice(&output.stdout).ok()
    }
}

impl Drop for Place {
    /// Ends a daemon that a failed test left behind.
    fn drop(&mut self) {
        let _ = self
            .command(&["stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// A server that runs in the foreground.
pub struct Server {
    pub place: Place,
    child: Child,
}

impl Server {
    /// Starts it and waits until all its processes run. `toml` without `run_dir`.
    pub fn start(toml: &str) -> Server {
        Server::start_in(Place::new(toml))
    }

    pub fn start_in(place: Place) -> Server {
        let command = place.command(&["start"]);
        Server::start_with(place, command)
    }

    /// By a command that comes to `lineman start` in its own way.
    pub fn start_with(place: Place, mut command: Command) -> Server {
        let file = |name: &str| File::create(place.path().join(name)).expect("an output file");
        command.stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().expect("the program starts");
        Server { place, child }.when_running()
    }

    /// Kills the master, and starts anew where it was.
    pub fn restart(self) -> Server {
        self.kill(self.pid(), libc::SIGKILL);
        let mut server = self;
        server.wait();
        let file = |name: &str| {
            let path = server.place.path().join(name);
            let file = File::options().append(true).open(path);
            file.expect("an output file")
        };
        let mut command = server.place.command(&["start"]);
        command.stdout(file("stdout")).stderr(file("stderr"));
        server.child = command.spawn().expect("the program starts");
        server.when_running()
    }

    fn when_running(mut self) -> Server {
        let server = &mut self;
        let began = Instant::now();
        while !server
            .place
            .status()
            .is_some_and(|status| status["state"] == "running")
        {
            let ended = server.child.try_wait().expect("the child can be asked");
            if ended.is_some() || began.elapsed() > PATIENCE {
                panic!(
                    "no server ({ended:?}):\n{}{}",
                    server.stdout(),
                    server.stderr()
                );
            }
            pause();
        }
        self
    }

    /// The pid of the master.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What `status --json` says; fails when the server does not answer.
    pub fn status(&self) -> Value {
        self.place
            .status()
            .unwrap_or_else(|| panic!("no status:\n{}", self.stderr()))
    }

    /// Where the `[[listen]]` table with this number listens, as in `http://127.0.0.1:1234`.
    pub fn url(&self, listen: usize) -> String {
        let status = self.status();
        status["listen"][listen]["url"]
            .as_str()
            .expect("a URL")
            .to_string()
    }

    /// The same as an address, `127.0.0.1:1234`.
    pub fn address(&self, listen: usize) -> String {
        let url = self.url(listen);
        let (_, address) = url.split_once("://").expect("a scheme");
        address.to_string()
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.place.path().join("stdout")).unwrap_or_default()
    }

    /// Until the log has this; it is written beside everything else.
    pub fn wait_for_log(&self, said: &str) {
        wait_until(&format!("the log says: {said}"), || {
            self.stderr().contains(said)
        });
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.place.path().join("stderr")).unwrap_or_default()
    }

    pub fn kill(&self, pid: u32, signal: i32) {
        kill(pid, signal);
    }

    /// Waits until the master has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("the server ends", || {
            ended = self.child.try_wait().expect("the child can be asked");
            ended.is_some()
        });
        ended.expect("it was just seen to end")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The children die with the master.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal, through the shell's own word for it so that tests need no `unsafe`.
pub fn kill(pid: u32, signal: i32) {
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(pid.to_string())
        .status();
    assert!(status.expect("kill runs").success(), "kill -{signal} {pid}");
}

/// Polls until `condition` holds; fails with `what` when it does not.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited too long until {what}");
        pause();
    }
}

/// Between two looks at something that has no other way to tell.
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// The processes of one role in a status.
pub fn processes<'a>(status: &'a Value, role: &str) -> Vec<&'a Value> {
    let all = status["processes"].as_array().expect("a list of processes");
    all.iter()
        .filter(|process| process["role"] == role)
        .collect()
}

/// The pid of a process in a status; zero when it has none.
pub fn pid_of(process: &Value) -> u32 {
    process["pid"].as_u64().unwrap_or(0) as u32
}

/// One GET on a connection of its own: the status code and the body.
pub fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code, body.to_string()))
}

/// Raises the number of descriptors this process may have to what is allowed, and returns it.
/// Through the system's own program for it, so that tests need no `unsafe`.
pub fn raised_descriptor_limit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("limits");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let hard = files.and_then(|line| line.split_whitespace().nth(4));
    let hard = hard.expect("a hard limit");
    let mut raise = Command::new("prlimit");
    raise.args(["--pid", &std::process::id().to_string()]);
    raise.arg(format!("--nofile={hard}:{hard}"));
    assert!(raise.status().expect("prlimit runs").success());
    hard.parse().unwrap_or(usize::MAX)
}

/// A call of the demo app's backend that publishes the event in `body`, with these further fields,
/// each with its line end.
pub fn publish_call(fields: &str, body: &str) -> String {
    format!(
        "POST /apps/demo/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer demo-secret\r\n\
         {fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

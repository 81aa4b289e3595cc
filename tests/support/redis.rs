//! A real Redis, or Valkey, of a test's own. Invariant: it does not outlive the test.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{kill, wait_until};

const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// See the file's head.
pub struct Redis {
    dir: TempDir,
    port: u16,
    password: Option<&'static str>,
    /// Certificate and key of `localhost`, as PEM; without TLS, none.
    identity: Option<(String, String)>,
    child: Option<Child>,
}

impl Redis {
    pub fn start() -> Redis {
        Redis::with_password(None)
    }

    pub fn with_password(password: Option<&'static str>) -> Redis {
        Redis::with(password, None)
    }

    /// One that speaks TLS alone, with this certificate and key of `localhost`.
    pub fn with_tls(identity: (String, String)) -> Redis {
        Redis::with(None, Some(identity))
    }

    fn with(password: Option<&'static str>, identity: Option<(String, String)>) -> Redis {
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let mut redis = Redis {
            dir: TempDir::new().expect("a directory"),
            port: port.expect("a free port").port(),
            password,
            identity,
            child: None,
        };
        redis.run();
        redis
    }

    /// Starts it on what its directory holds, and waits until it answers.
    pub fn run(&mut self) {
        let child = PROGRAMS.iter().find_map(|program| {
            let mut command = Command::new(program);
            command.args(["--bind", "127.0.0.1", "--appendonly", "yes"]);
            command.args(["--appendfsync", "always", "--save", ""]);
            command.args(self.port_words());
            command.arg("--dir").arg(self.dir.path());
            if let Some(password) = self.password {
                command.args(["--requirepass", password]);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.spawn().ok()
        });
        self.child = Some(child.expect("tests/setup installs redis-server"));
        if self.identity.is_some() {
            let address = ("127.0.0.1", self.port);
            return wait_until("Redis listens", || TcpStream::connect(address).is_ok());
        }
        wait_until("Redis answers", || {
            let answer = self.ask(&["PING"]);
            answer.is_some_and(|it| it.contains("PONG") || it.contains("NOAUTH"))
        });
    }

    fn port_words(&self) -> Vec<String> {
        let port = self.port.to_string();
        let Some((certificate, key)) = &self.identity else {
            return vec!["--port".into(), port];
        };
        let file = |name: &str, text: &str| {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.to_str().expect("text").to_string()
        };
        let (certificate, key) = (file("redis.pem", certificate), file("redis.key", key));
        let words = [
            "--port",
            "0",
            "--tls-port",
            &port,
            "--tls-auth-clients",
            "no",
        ];
        let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key];
        let mut words: Vec<&str> = words.into_iter().chain(files).collect();
        // Only asked for by Redis, since it checks nobody.
        words.extend(["--tls-ca-cert-file", &certificate]);
        words.into_iter().map(str::to_owned).collect()
    }

    pub fn url(&self) -> String {
        match self.identity {
            None => format!("redis://127.0.0.1:{}", self.port),
            Some(_) => format!("rediss://localhost:{}", self.port),
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its data is gone too.
    pub fn kill_and_empty(&mut self) {
        self.kill();
        for entry in std::fs::read_dir(self.dir.path()).expect("its directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => std::fs::remove_dir_all(path).expect("removed"),
                false => std::fs::remove_file(path).expect("removed"),
            }
        }
    }

    pub fn signal(&self, signal: i32) {
        kill(self.child.as_ref().expect("it runs").id(), signal);
    }

    /// One command on a connection of its own; what comes first, as it came.
    pub fn ask(&self, parts: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut text = format!("*{}\r\n", parts.len());
        for part in parts {
            text.push_str(&format!("${}\r\n{part}\r\n", part.len()));
        }
        stream.write_all(text.as_bytes()).ok()?;
        let mut bytes = [0; 64 * 1024];
        let count = stream.read(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    /// Its keys that match, sorted.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let answer = self.ask(&["KEYS", pattern]).unwrap_or_default();
        let lines = answer.lines().filter(|line| !line.starts_with(['*', '$']));
        let mut keys: Vec<String> = lines.map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

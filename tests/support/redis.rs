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
    child: Option<Child>,
}

impl Redis {
    pub fn start() -> Redis {
        Redis::with_password(None)
    }

    pub fn with_password(password: Option<&'static str>) -> Redis {
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let mut redis = Redis {
            dir: TempDir::new().expect("a directory"),
            port: port.expect("a free port").port(),
            password,
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
            command.args(["--port", &self.port.to_string()]);
            command.arg("--dir").arg(self.dir.path());
            if let Some(password) = self.password {
                command.args(["--requirepass", password]);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.spawn().ok()
        });
        self.child = Some(child.expect("tests/setup installs redis-server"));
        wait_until("Redis answers", || {
            let answer = self.ask(&["PING"]);
            answer.is_some_and(|it| it.contains("PONG") || it.contains("NOAUTH"))
        });
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
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

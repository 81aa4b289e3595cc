//! A real PostgreSQL of a test's own, on a free port and on sockets in its directory. Invariant: it
//! does not outlive the test, nor does its data.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::support::{PATIENCE, is_alive};

pub const USER: &str = "lineman";
pub const DATABASE: &str = "lineman";

/// See the file's head.
pub struct Postgres {
    dir: TempDir,
    port: u16,
    password: Option<&'static str>,
    child: Option<Child>,
}

impl Postgres {
    /// Whoever comes is let in.
    pub fn start() -> Postgres {
        Postgres::set_up(None, |_| {})
    }

    /// Over TCP, whoever comes has to know the password.
    pub fn with_password(password: &'static str) -> Postgres {
        Postgres::set_up(Some(password), |_| {})
    }

    /// The same, over TLS only, with what is in these files.
    pub fn with_tls(password: &'static str, certificate: &str, key: &str) -> Postgres {
        Postgres::set_up(Some(password), |data| {
            let own = [("server.crt", certificate), ("server.key", key)];
            for (name, text) in own {
                write(&data.join(name), text);
            }
            let settings = "ssl = on\n";
            append(&data.join("postgresql.conf"), settings);
            let access = "local all all trust\nhostssl all all all scram-sha-256\n";
            write(&data.join("pg_hba.conf"), access);
        })
    }

    fn set_up(password: Option<&'static str>, change: impl FnOnce(&Path)) -> Postgres {
        let dir = TempDir::new().expect("a directory");
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("ours");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a directory");
        give(&data);
        let file = dir.path().join("password");
        write(&file, password.unwrap_or("none"));
        let mut init = own_user(&program("initdb"));
        init.args([
            "--username",
            USER,
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        init.arg("--pwfile").arg(&file);
        init.args(["--auth-local=trust", "--auth-host"]);
        init.arg(password.map_or("trust", |_| "scram-sha-256"));
        init.arg("--pgdata").arg(&data);
        let made = init.output().expect("initdb runs");
        assert!(made.status.success(), "{made:?}");
        change(&data);
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let mut postgres = Postgres {
            port: port.expect("a free port").port(),
            dir,
            password,
            child: None,
        };
        postgres.run();
        postgres.ask("postgres", &format!("CREATE DATABASE {DATABASE}"));
        postgres
    }

    /// Starts it on what its directory holds, and waits until it answers.
    pub fn run(&mut self) {
        let data = self.dir.path().join("data");
        let mut command = own_user(&program("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(&data);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.args(["-c", "shared_buffers=8MB", "-c", "max_connections=20"]);
        command.args(["-c", "autovacuum=off", "-c", "logging_collector=off"]);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("a log");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("tests/setup installs postgresql"));
        let began = Instant::now();
        let answers = |it: &Postgres| {
            let asked = it.psql("postgres", "SELECT 1").output();
            asked.is_ok_and(|it| it.status.success())
        };
        while !answers(self) {
            if began.elapsed() > 2 * PATIENCE {
                let log = std::fs::read_to_string(self.dir.path().join("log"));
                panic!("no PostgreSQL:\n{}", log.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its socket is.
    pub fn sockets(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The table `[store]` for a server of that name.
    pub fn store(&self, server: &str) -> String {
        let file = self.dir.path().join("password");
        let kept = format!("password = {{ file = \"{}\" }}\n", file.display());
        let password = self.password.map(|_| kept);
        format!(
            "[store]\nurl = \"postgres://127.0.0.1:{}/{DATABASE}\"\nuser = \"{USER}\"\n\
             server = \"{server}\"\n{}",
            self.port,
            password.unwrap_or_default()
        )
    }

    /// What a statement gives: a line for each row, `|` between columns.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        let done = self.psql(database, sql).output().expect("psql runs");
        assert!(done.status.success(), "{sql}: {done:?}");
        String::from_utf8_lossy(&done.stdout).trim_end().to_string()
    }

    fn psql(&self, database: &str, sql: &str) -> Command {
        let mut command = Command::new(program("psql"));
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        command.arg("-h").arg(self.sockets());
        command.args(["-p", &self.port.to_string(), "-U", USER, "-d", database]);
        command.args(["-v", "ON_ERROR_STOP=1", "-c", sql]);
        command
    }

    /// SIGKILL for all of it: what it had under way is recovered at the next start.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // It may not see them die, or it would start others.
        signal_if_there(child.id(), "STOP");
        let others = children_of(child.id());
        for pid in &others {
            signal_if_there(*pid, "KILL");
        }
        let _ = child.kill();
        let _ = child.wait();
        let began = Instant::now();
        while others.iter().any(|pid| is_alive(*pid)) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let lock = self.sockets().join("postmaster.pid");
        let _ = std::fs::remove_file(lock);
    }

    /// As an administrator stops it: connections end, nothing is recovered.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        signal_if_there(child.id(), "INT");
        let _ = child.wait();
    }

    /// Stops, or lets go on, every process of it.
    pub fn signal(&self, signal: &str) {
        let parent = self.child.as_ref().expect("it runs").id();
        for pid in children_of(parent).into_iter().chain([parent]) {
            signal_if_there(pid, signal);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal_if_there(pid: u32, signal: &str) {
    let mut command = Command::new("kill");
    command
        .args(["-s", signal, &pid.to_string()])
        .stderr(Stdio::null());
    command.status().expect("kill runs");
}

fn children_of(parent: u32) -> Vec<u32> {
    let found = Command::new("pgrep")
        .args(["-P", &parent.to_string()])
        .output();
    let found = found.expect("tests/setup installs pgrep");
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// In PATH, or where Debian keeps those of each version.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).map(|dir| dir.join(name));
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.into_iter().flatten().flatten();
    let versions = versions.map(|version| version.path().join("bin").join(name));
    let found = named.chain(versions).find(|path| path.is_file());
    found.expect("tests/setup installs postgresql")
}

/// It refuses to be root; then it is who Debian made for it. It ends with the test, however that does.
fn own_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if let Some((uid, gid)) = stand_in() {
        command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()]);
        command.arg("--clear-groups");
    }
    command.arg(program).current_dir("/");
    command
}

fn stand_in() -> Option<(u32, u32)> {
    let own = Command::new("id").arg("-u").output().expect("id runs");
    if own.stdout.trim_ascii() != b"0" {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("users");
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let line = line.expect("the package makes a user postgres");
    let mut fields = line
        .split(':')
        .skip(2)
        .filter_map(|field| field.parse().ok());
    Some((
        fields.next().expect("a number"),
        fields.next().expect("a number"),
    ))
}

/// Makes it that user's.
fn give(path: &Path) {
    if let Some((uid, gid)) = stand_in() {
        chown(path, Some(uid), Some(gid)).expect("root gives away");
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).expect("ours");
    give(path);
}

fn append(path: &Path, text: &str) {
    let mut whole = std::fs::read_to_string(path).expect("a file");
    whole.push_str(text);
    write(path, &whole);
}

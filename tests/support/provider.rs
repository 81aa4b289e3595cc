//! `lineman mock` beside a server under test: started, read while it runs, ended and started again at
//! the same place.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

/// A push provider; ends with the test.
pub struct Provider {
    kind: &'static str,
    rules: Vec<String>,
    child: Option<Child>,
    dir: TempDir,
    /// What it said when it was ready the first time.
    pub ready: Value,
    /// Each request with its answer.
    told: Arc<Mutex<Vec<Value>>>,
}

impl Provider {
    /// `rules`: as `--rule` takes them, or options with their values.
    pub fn start(kind: &'static str, rules: &[&str]) -> Provider {
        let mut provider = Provider {
            kind,
            rules: rules.iter().map(ToString::to_string).collect(),
            child: None,
            dir: TempDir::new().expect("a directory"),
            ready: Value::Null,
            told: Arc::default(),
        };
        provider.ready = provider.run(&[]);
        provider
    }

    fn run(&mut self, more: &[&str]) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lineman"));
        command.args(["mock", self.kind]).args(more);
        for rule in &self.rules {
            match rule.starts_with("--") {
                true => command.args(rule.split(' ')),
                false => command.args(["--rule", rule]),
            };
        }
        command.arg("--dir").arg(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        self.child = Some(child);
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("it is ready");
        let told = Arc::clone(&self.told);
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("JSON");
                told.lock().expect("nobody died").push(line);
            }
        });
        ready
    }

    pub fn url(&self) -> &str {
        self.ready["urls"][0].as_str().expect("a URL")
    }

    /// A table of an app that leads to this mock of APNs.
    pub fn apns_table(&self) -> String {
        let told = |name: &str| self.ready[name].as_str().expect("it is told");
        format!(
            "[[apps.apns]]\nkey = {{ file = \"{}\" }}\nkey_id = \"{}\"\nteam_id = \"{}\"\n\
             bundle = \"org.example.app\"\nbase_url = \"{}\"\nca_file = \"{}\"\n",
            told("key"),
            told("key_id"),
            told("team_id"),
            self.url(),
            self.ca().display()
        )
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The pushes it was asked for, with the answers.
    pub fn told(&self) -> Vec<Value> {
        let told = self.told.lock().expect("nobody died");
        let pushes = told.iter().filter(|line| line["token"].is_string());
        pushes.cloned().collect()
    }

    /// How many pushes it answered with this status.
    pub fn count(&self, status: u64) -> usize {
        let told = self.told();
        let those = told.iter().filter(|it| it["answer"]["status"] == status);
        those.count()
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again where it was, with other rules.
    pub fn restart(&mut self, rules: &[&str]) {
        self.stop();
        self.rules = rules.iter().map(ToString::to_string).collect();
        let place = self.url().trim_start_matches("https://").to_string();
        let mut more = vec!["--listen".to_string(), place];
        if self.kind == "apns" {
            let key = self.ready["key"].as_str().expect("a key").to_string();
            more.extend(["--key".to_string(), key]);
        }
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        self.run(&more);
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}

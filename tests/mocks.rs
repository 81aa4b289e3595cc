//! `lineman mock` as a developer runs it, asked by clients that others wrote: unmodified libraries in
//! `tests/clients/push`, which `tests/setup` installs. What they check is written in them; here is how
//! the mock is started for each, and what it must have told. Where a library cannot be led to another
//! host, its file says how it is done.

#[path = "support/authority.rs"]
mod authority;
mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use authority::Authority;

/// A mock that runs; ends with the test.
struct Mock {
    child: Child,
    out: BufReader<ChildStdout>,
    dir: TempDir,
    /// What it said when it was ready.
    ready: Value,
}

fn mock_command(kind: &str, rest: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lineman"));
    command.args(["mock", kind]).args(rest).stdin(Stdio::null());
    command
}

impl Mock {
    fn start(kind: &str, rest: &[&str]) -> Mock {
        let dir = TempDir::new().expect("a directory");
        let child = mock_command(kind, rest)
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("the program runs");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("it is ready");
        assert_eq!(
            (&ready["ready"], &ready["provider"]),
            (&true.into(), &kind.into())
        );
        Mock {
            child,
            out,
            dir,
            ready,
        }
    }

    /// Runs a program against it.
    fn serve(&self, program: &Path, arguments: &[&str]) {
        let ca = self.dir.path().join("ca.pem");
        let output = Command::new(program)
            .args(arguments)
            .current_dir(clients())
            .env("MOCK", self.ready.to_string())
            .env("NODE_EXTRA_CA_CERTS", &ca)
            .env("REQUESTS_CA_BUNDLE", &ca)
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .output();
        let output = output.expect("the program runs; tests/setup installs it");
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn serve_node(&self, file: &str) {
        self.serve(Path::new("node"), &["--test", file]);
    }

    fn serve_python(&self, file: &str) {
        self.serve(&clients().join(".venv/bin/python"), &[file]);
    }

    /// Ends it; what it told of requests.
    fn told(mut self) -> Vec<Value> {
        // What was answered before is on its way to the pipe, and ours is the last request.
        let url = self.ready["urls"][0].as_str().expect("a URL").to_string();
        let asked = Command::new("curl")
            .args([
                "--silent",
                "--max-time",
                "10",
                "--output",
                "/dev/null",
                "--cacert",
            ])
            .arg(self.dir.path().join("ca.pem"))
            .arg(format!("{url}/the-end"))
            .status();
        assert!(asked.expect("curl runs").success());
        let mut told = Vec::new();
        loop {
            let mut line = String::new();
            let count = self.out.read_line(&mut line).expect("a line");
            assert!(count > 0, "it ended by itself");
            let line: Value = serde_json::from_str(&line).expect("JSON");
            if line["path"] == "/the-end" {
                return told;
            }
            told.push(line);
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/push")
}

/// How many lines have these values at these places.
fn count(told: &[Value], wanted: &[(&str, &str)]) -> usize {
    let fits = |line: &&Value| {
        let mut all = wanted.iter();
        all.all(|(place, value)| line.pointer(place).is_some_and(|it| it == value))
    };
    told.iter().filter(fits).count()
}

#[test]
fn node_apn_is_served_as_apns_serves_it() {
    let rules = [
        "--rule",
        "token=dead* answer=Unregistered",
        "--rule",
        "token=bad* answer=BadDeviceToken",
        "--rule",
        "token=90a3a1* nth=1 goaway=Shutdown",
    ];
    let mock = Mock::start("apns", &[&["--key-id", "MOCKKEY001"], &rules[..]].concat());
    mock.serve_node("apns.test.mjs");
    let told = mock.told();
    let hello = ("/payload/aps/alert", "hello");
    assert!(count(&told, &[hello, ("/headers/apns-topic", "org.example.app")]) > 1000);
    assert_eq!(count(&told, &[("/answer/reason", "Unregistered")]), 1);
    assert_eq!(count(&told, &[("/answer/goaway/reason", "Shutdown")]), 1);
}

#[test]
fn aioapns_is_served_as_apns_serves_it() {
    let mock = Mock::start("apns", &["--rule", "token=dead* answer=Unregistered"]);
    mock.serve_python("apns.py");
    let told = mock.told();
    assert_eq!(count(&told, &[("/answer/reason", "PayloadTooLarge")]), 1);
    assert_eq!(
        count(&told, &[("/payload/aps/alert", "hello from aioapns")]),
        202
    );
}

#[test]
fn firebase_admin_is_served_as_fcm_serves_it() {
    let rules = [
        "token=dead* answer=UNREGISTERED",
        "token=strange answer=SENDER_ID_MISMATCH",
        "token=apns answer=THIRD_PARTY_AUTH_ERROR",
        "token=busy answer=QUOTA_EXCEEDED",
        "token=broken answer=INTERNAL",
        "token=shaky nth=1 answer=UNAVAILABLE",
    ];
    let rules: Vec<&str> = rules.iter().flat_map(|rule| ["--rule", rule]).collect();
    let mock = Mock::start("fcm", &rules);
    mock.serve_node("fcm.test.mjs");
    let told = mock.told();
    assert!(count(&told, &[("/path", "/token")]) > 0, "it signed in");
    assert_eq!(count(&told, &[("/token", "shaky")]), 2);
}

#[test]
fn web_push_is_served_and_its_messages_are_read() {
    let rules = [
        "--subscriptions",
        "3",
        "--rule",
        "token=sub-2 answer=Gone",
        "--rule",
        "token=sub-3 answer=429 retry-after=5",
    ];
    let mock = Mock::start("webpush", &rules);
    mock.serve_node("webpush.test.mjs");
    mock.serve_python("webpush.py");
    let told = mock.told();
    for (text, times) in [
        ("hello from web-push", 5),
        ("hello from pywebpush", 2),
        ("hello from http_ece", 2),
    ] {
        assert_eq!(count(&told, &[("/payload", text)]), times, "{text}");
    }
}

#[test]
fn the_sdks_of_azure_are_served_as_azure_serves_them() {
    let mock = Mock::start("azure", &["--rule", "token=full answer=QuotaExceeded"]);
    mock.serve_node("azure.test.mjs");
    let told = mock.told();
    let batch = [
        ("/token", "aa,bb,cc"),
        ("/payload/notification/aps/alert", "hello"),
    ];
    assert_eq!(count(&told, &batch), 1);
    assert!(!tells_secrets(&told));
}

/// Whether a client's secret or an assertion stands in what was told.
fn tells_secrets(told: &[Value]) -> bool {
    told.iter()
        .any(|line| line.to_string().contains("client_secret"))
}

/// What curl is answered: `STATUS BODY`.
fn curl(arguments: &[&str], url: &str) -> String {
    let fixed = [
        "--silent",
        "--max-time",
        "10",
        "--write-out",
        " %{http_code}",
        "--data",
        "{}",
    ];
    let output = Command::new("curl")
        .args(fixed)
        .args(arguments)
        .arg(url)
        .output();
    let output = output.expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn without_tls_both_versions_are_spoken_on_one_port() {
    let mock = Mock::start(
        "apns",
        &["--plain", "--rule", "token=ab answer=BadDeviceToken"],
    );
    let url = format!(
        "{}/3/device/ab",
        mock.ready["urls"][0].as_str().expect("a URL")
    );
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let said = curl(&[version], &url);
        assert_eq!(said, r#"{"reason":"BadDeviceToken"} 400"#, "{version}");
    }
}

#[test]
fn a_certificate_signs_a_client_in() {
    let authority = Authority::new();
    let dir = TempDir::new().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let ca = write("ca.pem", &authority.pem);
    let (certificate, key) = authority.issue("sender.example");
    let (certificate, key) = (write("own.pem", &certificate), write("own.key", &key));
    let mock = Mock::start("apns", &["--client-ca", &ca]);
    let url = format!(
        "{}/3/device/ab",
        mock.ready["urls"][0].as_str().expect("a URL")
    );
    let trusted = mock.dir.path().join("ca.pem").display().to_string();
    let anonymous = ["--cacert", &*trusted];
    assert_eq!(curl(&anonymous, &url), " 000", "the handshake fails");
    let own = [&anonymous[..], &["--cert", &certificate, "--key", &key]].concat();
    // Of an empty object nothing is sent: it is the payload that is refused.
    assert_eq!(curl(&own, &url), r#"{"reason":"PayloadEmpty"} 400"#);
}

#[test]
fn rules_come_from_a_file_and_mistakes_in_them_are_named() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("rules.toml");
    let refused = |text: &str, words: &str| {
        std::fs::write(&file, text).expect("written");
        let output = mock_command("apns", &["--rules"]).arg(&file).output();
        let output = output.expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains(words) && said.contains("rules.toml"),
            "{said}"
        );
    };
    refused(
        "[[rule]]\nanswer = 410\n[[rule]]\nanswer = \"Gone\"",
        "rule 2: `Gone` is no answer of apns",
    );
    refused("[[rule]]\ntokn = \"a\"", "`tokn` is unknown");
    refused("[[rule]", "line 1");
    let output = mock_command("fcm", &["--rule", "delay=soon"]).output();
    let said = String::from_utf8_lossy(&output.expect("it runs").stderr).into_owned();
    assert!(
        said.contains("the rule `delay=soon`: `soon` is no time"),
        "{said}"
    );
}

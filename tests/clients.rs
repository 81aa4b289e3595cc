//! Real clients against the real server: for each program in tests/clients a server of its own with
//! two workers is started, and the program is run against it. What the programs check is written in
//! them; here is only who runs them and what they are told. `tests/setup` installs what they need.

#[path = "support/provider.rs"]
mod provider;
mod support;

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use provider::Provider;
use support::{Server, wait_until};

/// The app of the programs has digits for an id, because the Python SDK takes nothing else. The demo
/// app is there for the demo page.
const CONFIG: &str = r#"
workers = 2

[[listen]]
url = "http://127.0.0.1:0"
handler = "channels"

[[apps]]
id = "41"
key = "client-test-key"
secret = "client-test-secret"
watchlists = true

[[apps.history]]
pattern = "*kept-*"
events = 5_000

# The scorecard listens there while it runs; elsewhere nobody does.
[[apps.webhooks]]
url = "http://127.0.0.1:WEBHOOK_PORT/"
events = ["channel_occupied"]
channel_prefix = "hooked"

[webhooks]
allow_private = true

[push]
token_key = { env = "LINEMAN_TEST_TOKEN_KEY" }

[[apps]]
id = "42"
key = "counting-key"
secret = "counting-secret"
subscription_counts = true

[[apps]]
id = "demo"
key = "demo-key"
secret = "demo-secret"
"#;

/// A program that has not ended by then hangs.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(240);

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn run(program: Command) {
    run_with(program, CONFIG);
}

/// Runs one program against a fresh server, and fails with all that both of them said.
fn run_with(mut program: Command, config: &str) {
    let webhook_port = free_port();
    let server = Server::start(&config.replace("WEBHOOK_PORT", &webhook_port));
    let address = server.address(0);
    let (host, port) = address.rsplit_once(':').expect("host:port");
    program
        .current_dir(directory())
        .env("LINEMAN_HOST", host)
        .env("LINEMAN_PORT", port)
        .env("LINEMAN_APP_ID", "41")
        .env("LINEMAN_APP_KEY", "client-test-key")
        .env("LINEMAN_APP_SECRET", "client-test-secret")
        .env("LINEMAN_WEBHOOK_PORT", webhook_port)
        .env("LINEMAN_CONTROL", env!("CARGO_BIN_EXE_lineman"))
        .env("LINEMAN_CONFIG", server.place.config());

    let said = server.place.path().join("program.log");
    let output = File::create(&said).expect("a file for the program's output");
    let child = program
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("one file for both outputs"))
        .stderr(output)
        // With everything it starts in one group, nothing outlives it.
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?} does not start: {error}. Run tests/setup."));
    let status = wait(child);

    let said = std::fs::read_to_string(said).expect("the program's output");
    match status {
        Some(status) if status.success() => println!("{said}"),
        Some(status) => panic!(
            "{said}\n{program:?}: {status}\nThe server said:\n{}",
            server.stderr()
        ),
        None => panic!(
            "{said}\n{program:?} did not end within {PROGRAM_DEADLINE:?}\nThe server said:\n{}",
            server.stderr()
        ),
    }
}

/// A port where nobody listens, for a program to listen on later.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    address.port().to_string()
}

/// How the program ended; `None` when it had to be killed.
fn wait(mut child: Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PROGRAM_DEADLINE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    let _ = child.wait();
    None
}

/// A Node program, its tests reported by name.
fn node(file: &str) {
    run(node_program(file));
}

fn node_program(file: &str) -> Command {
    require("node_modules/.installed");
    let mut program = Command::new("node");
    program.args(["--test", "--test-reporter=spec", file]);
    program
}

/// What tests/setup leaves behind when it is done.
fn require(file: &str) {
    let path = directory().join(file);
    assert!(
        path.exists(),
        "{} is missing: run tests/setup once",
        path.display()
    );
}

#[test]
fn pusher_js_works_unchanged() {
    node("pusher-js.test.mjs");
}

#[test]
fn pusher_js_falls_back_where_no_websocket_gets_through() {
    node("fallback.test.mjs");
}

#[test]
fn users_sign_in_and_are_reached() {
    node("users.test.mjs");
}

#[test]
fn every_kind_of_channel_works_unchanged() {
    node("kinds.test.mjs");
}

#[test]
fn the_wire_is_as_the_protocol_says() {
    node("wire.test.mjs");
}

#[test]
fn the_node_server_sdk_works_unchanged() {
    node("server-sdk.test.mjs");
}

#[test]
fn the_python_server_sdk_works_unchanged() {
    require(".venv/.installed");
    let mut program = Command::new(directory().join(".venv/bin/python"));
    program.args(["-m", "unittest", "-v", "test_server_sdk"]);
    run(program);
}

#[test]
fn laravel_echo_works_unchanged() {
    node("echo.test.mjs");
}

#[test]
fn the_scorecard_is_what_the_sdks_do() {
    require(".venv/.installed");
    node("scorecard.test.mjs");
}

#[test]
fn a_browser_hears_what_a_backend_posts() {
    node("browser.test.mjs");
}

#[test]
fn a_shell_script_can_publish() {
    node("publish-sh.test.mjs");
}

#[test]
fn killed_processes_are_replaced_under_traffic() {
    node("crash.test.mjs");
}

#[test]
fn with_the_add_on_a_client_that_comes_back_has_missed_nothing_or_knows() {
    node("recovery.test.mjs");
}

#[test]
fn a_notification_reaches_pusher_js_and_is_acknowledged() {
    node("notify.test.mjs");
}

#[test]
fn a_person_in_a_browser_is_reached_live_or_by_push() {
    let apns = Provider::start("apns", &[]);
    let hooks = "# The scorecard listens";
    let config = CONFIG.replace(hooks, &format!("{}\n{hooks}", apns.apns_table()));
    run_with(node_program("reach.test.mjs"), &config);
    wait_until("the mock has told all", || apns.count(200) >= 2);
    let told = apns.told();
    let tokens = told
        .iter()
        .map(|it| it["token"].as_str().unwrap_or_default());
    let tokens: Vec<&str> = tokens.collect();
    assert_eq!(tokens, ["bb".repeat(32), "cc".repeat(32)]);
}

//! Secrets that are kept in the environment, in files and with the service manager: who gets them,
//! when they are read again, and what is said when they are not there.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use support::{Place, Server, pid_of, wait_until};

const SIGHUP: i32 = 1;

const APPS: &str = "workers = 1\n[[listen]]\nurl = \"http://127.0.0.1:PORT\"\n\
    [[apps]]\nid = \"e\"\nkey = \"ke\"\nsecret = { env = \"LINEMAN_TEST_SECRET\" }\n\
    [[apps]]\nid = \"f\"\nkey = \"kf\"\nsecret = { file = \"secret\" }\n\
    [[apps]]\nid = \"c\"\nkey = \"kc\"\nsecret = { credential = \"app\" }\n";

/// A place with a secret in a file, and another for a service manager to hand over.
fn place() -> Place {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    let place = Place::new(&APPS.replace("PORT", &port.to_string()));
    keep(&place, "secret", "tiger-of-the-file\n");
    fs::create_dir(place.path().join("credentials")).expect("a directory");
    keep(&place, "credentials/app", "tiger-of-systemd");
    place
}

fn keep(place: &Place, name: &str, secret: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = place.path().join(name);
    fs::write(&path, secret).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
}

/// As a service manager and a shell would have it.
fn equipped(place: &Place, verb: &[&str]) -> Command {
    let mut command = place.command(verb);
    command
        .env("LINEMAN_TEST_SECRET", "tiger-of-the-environment")
        .env("CREDENTIALS_DIRECTORY", place.path().join("credentials"));
    command
}

fn start() -> Server {
    let place = place();
    let command = equipped(&place, &["start"]);
    Server::start_with(place, command)
}

/// The status of a call to the HTTP API that shows the app's secret.
fn call(server: &Server, app: &str, secret: &str) -> u16 {
    let mut stream = TcpStream::connect(server.address(0)).expect("a connection");
    let head = format!(
        "GET /apps/{app}/channels HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {secret}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer[9..12].parse().expect("a status")
}

fn told(output: &std::process::Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn each_app_has_the_secret_that_is_kept_for_it() {
    let server = start();
    for (app, secret) in [
        ("e", "tiger-of-the-environment"),
        ("f", "tiger-of-the-file"),
        ("c", "tiger-of-systemd"),
    ] {
        assert_eq!(call(&server, app, secret), 200, "{app}");
        assert_eq!(call(&server, app, "tiger"), 401, "{app}");
    }
    assert!(!server.stderr().contains("tiger"), "{}", server.stderr());
}

#[test]
fn children_show_no_secret_in_their_environment_or_command_line() {
    let server = start();
    let show = |pid: u32| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).expect("a process");
        let bytes = [read("environ"), read("cmdline")].concat();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    // What is looked for can be found: the master was started with it.
    assert!(show(server.pid()).contains("tiger-of-the-environment"));
    let status = server.status();
    let children = status["processes"].as_array().expect("a list");
    assert_eq!(children.len(), 2);
    for child in children {
        let shown = show(pid_of(child));
        for hidden in ["tiger", "LINEMAN_TEST_SECRET", "CREDENTIALS_DIRECTORY"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        assert!(shown.contains("LISTEN_FDNAMES"), "{shown}");
    }
}

#[test]
fn a_reload_and_a_hangup_read_secrets_again_and_a_missing_one_changes_nothing() {
    let server = start();
    keep(&server.place, "secret", "lion");
    assert_eq!(call(&server, "f", "lion"), 401);
    let output = server.place.run(&["reload"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(call(&server, "f", "lion"), 200);
    assert_eq!(call(&server, "f", "tiger-of-the-file"), 401);
    // The environment of a running server stays what it was.
    assert_eq!(call(&server, "e", "tiger-of-the-environment"), 200);
    keep(&server.place, "secret", "puma");
    server.kill(server.pid(), SIGHUP);
    wait_until("the secret is read", || call(&server, "f", "puma") == 200);
    fs::remove_file(server.place.path().join("secret")).expect("it was there");
    let output = server.place.run(&["reload"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(
        told(&output).contains("cannot be read"),
        "{}",
        told(&output)
    );
    assert_eq!(call(&server, "f", "puma"), 200);
}

#[test]
fn children_without_rights_have_what_only_root_can_read() {
    let place = place();
    let text = fs::read_to_string(place.config()).expect("the configuration");
    fs::write(place.config(), format!("user = \"nobody\"\n{text}")).expect("it is written");
    let owner = fs::metadata(place.config()).expect("a file");
    if std::os::unix::fs::MetadataExt::uid(&owner) != 0 {
        let output = equipped(&place, &["start"]).output().expect("it runs");
        assert_eq!(output.status.code(), Some(4), "{}", told(&output));
        return;
    }
    let command = equipped(&place, &["start"]);
    let server = Server::start_with(place, command);
    assert_eq!(call(&server, "f", "tiger-of-the-file"), 200);
}

#[test]
fn check_tells_every_secret_that_is_missing_with_its_line_and_none_of_those_there() {
    let place = place();
    let output = equipped(&place, &["check"]).output().expect("it runs");
    assert_eq!(told(&output).lines().count(), 1, "{}", told(&output));
    assert_eq!(output.status.code(), Some(0));
    fs::remove_file(place.path().join("secret")).expect("it was there");
    let output = place.run(&["check"]);
    let words = told(&output);
    assert_eq!(output.status.code(), Some(6));
    for part in [
        "test.toml:8: the variable named here is not set",
        "test.toml:12: the file named here cannot be read",
        "test.toml:16: there are no credentials",
        "LoadCredential=",
    ] {
        assert!(words.contains(part), "no {part:?} in:\n{words}");
    }
    // Whoever writes a secret in the place of its name does not read it in a log.
    let text = fs::read_to_string(place.config()).expect("the configuration");
    let text = text
        .replace("LINEMAN_TEST_SECRET", "tiger")
        .replace("\"app\"", "\"tiger\"");
    fs::write(place.config(), text.replace("\"secret\"", "\"tiger\"")).expect("it is written");
    let words = told(&place.run(&["check"]));
    assert!(
        words.contains("test.toml:16:") && !words.contains("tiger"),
        "{words}"
    );
}

#[test]
fn a_file_that_everybody_may_read_is_used_with_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(place.path().join("secret"), mode).expect("its mode");
    let output = equipped(&place, &["check"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    assert!(told(&output).contains("warning: ") && told(&output).contains("chmod 640"));
    let command = equipped(&place, &["start"]);
    let server = Server::start_with(place, command);
    assert!(server.stderr().contains("chmod 640"), "{}", server.stderr());
}

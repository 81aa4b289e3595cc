//! The database of the real binary, copied while it is written to, looked at, lost and restored: what
//! was answered before a copy was begun is in it, and its devices are reached again.

#[path = "support/provider.rs"]
mod provider;
mod support;

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use provider::Provider;
use serde_json::{Value, json};
use support::{DEMO, PUSH, Place, Server, requests, wait_until};

const FIELDS: &str = "Authorization: Bearer demo-secret\r\n";
/// Devices of one call while copies are made.
const PAGE: usize = 20;

fn toml(apns: &Provider) -> String {
    let told = |name: &str| apns.ready[name].as_str().expect("it is told");
    format!(
        "{DEMO}[[apps.apns]]\nkey = {{ file = \"{}\" }}\nkey_id = \"{}\"\nteam_id = \"{}\"\n\
         bundle = \"org.example.app\"\nbase_url = \"{}\"\nca_file = \"{}\"\n{PUSH}\
         [store]\ndir = \"store\"\n",
        told("key"),
        told("key_id"),
        told("team_id"),
        apns.url(),
        apns.ca().display()
    )
}

fn token(nth: usize) -> String {
    format!("{nth:064x}")
}

fn call(address: &str, path: &str, body: &str) -> (u16, Value) {
    let path = format!("/apps/demo/{path}");
    let (code, body) = requests::answer(address, "POST", &path, FIELDS, body);
    (code, serde_json::from_str(&body).expect("JSON"))
}

fn register(address: &str, from: usize, count: usize) {
    let lines = (from..from + count).map(|n| {
        let device = json!({"device_id": format!("d{n}"), "platform": "ios", "token": token(n)});
        device.to_string()
    });
    let (code, told) = call(
        address,
        "devices/import",
        &lines.collect::<Vec<_>>().join("\n"),
    );
    assert_eq!((code, &told["registered"]), (200, &json!(count)), "{told}");
}

fn words(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{out}{err}")
}

/// `verify --json`; its exit code has to say the same.
fn verify(place: &Place, more: &[&str]) -> Value {
    let output = place.run(&[&["verify", "--json"], more].concat());
    let told: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", words(&output)));
    let code = if told["good"] == true { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

/// It is its owner's alone, good, and of one moment between two calls.
fn check_copy(place: &Place, copy: &Path, expected: RangeInclusive<usize>) {
    let mode = fs::metadata(copy).expect("a copy").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let told = verify(place, &[copy.to_str().expect("UTF-8")]);
    let devices = told["report"]["devices"].as_u64().expect("a number") as usize;
    assert!(expected.contains(&devices), "{told}");
    assert_eq!(devices % PAGE, 0, "an import is whole or not there");
    assert_eq!(told["report"]["tokens"]["readable"], devices);
    assert!(!told.to_string().contains(&token(1)[40..]), "no token");
}

#[test]
fn a_copy_under_load_brings_everything_back_and_what_is_restored_is_sent_to() {
    let apns = Provider::start("apns", &[]);
    let mut server = Server::start_in(Place::new(&toml(&apns)));
    let address = server.address(0);
    register(&address, 0, 1_000);
    let (registered, stop) = (AtomicUsize::new(1_000), AtomicBool::new(false));
    let path = |place: &Place, n: usize| place.path().join(format!("copy{n}.db"));
    let mut at_least = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                register(&address, registered.load(Ordering::SeqCst), PAGE);
                registered.fetch_add(PAGE, Ordering::SeqCst);
            }
        });
        for n in 0..3 {
            thread::sleep(Duration::from_millis(100));
            at_least.push(registered.load(Ordering::SeqCst));
            let to = path(&server.place, n).display().to_string();
            let done = server.place.run(&["backup", &to]);
            assert!(done.status.success(), "{}", words(&done));
            assert!(words(&done).contains("pages"), "{}", words(&done));
        }
        let live = verify(&server.place, &[]);
        stop.store(true, Ordering::SeqCst);
        assert_eq!(live["good"], true, "{live}");
    });
    let end = registered.load(Ordering::SeqCst);
    assert!(end > at_least[2], "somebody wrote all the time");
    for (n, at_least) in at_least.iter().enumerate() {
        check_copy(&server.place, &path(&server.place, n), *at_least..=end);
    }
    server.kill(server.pid(), libc::SIGKILL);
    server.wait();
    // The machine is gone; there is another one, and the copy.
    let copy = path(&server.place, 2);
    let place = Place::new(&toml(&apns));
    fs::create_dir(place.path().join("store")).expect("a directory");
    fs::copy(copy, place.path().join("store/lineman.db")).expect("it is restored");
    let server = Server::start_in(place);
    let told = verify(&server.place, &[]);
    assert_eq!(told["good"], true, "{told}");
    let devices = told["report"]["devices"].as_u64().expect("a number") as usize;
    let note = json!({"to": {"platform": "ios"}, "note": {"title": "x"}, "deliver": "push"});
    let (code, told) = call(&server.address(0), "notify", &note.to_string());
    assert_eq!(code, 202, "{told}");
    wait_until("all that was restored is reached", || {
        apns.count(200) >= devices
    });
    let mut tokens: Vec<String> = apns
        .told()
        .iter()
        .map(|it| it["token"].to_string())
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!((tokens.len(), apns.count(200)), (devices, devices));
}

#[test]
fn what_is_wrong_is_told_and_nothing_is_written_over() {
    let apns = Provider::start("apns", &[]);
    let place = Place::new(&toml(&apns));
    let fails = |place: &Place, verb: &[&str], why: &str| {
        let output = place.run(verb);
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        assert!(words(&output).contains(why), "{why}: {}", words(&output));
    };
    let copy = place.path().join("copy.db").display().to_string();
    fails(&place, &["backup", &copy], "there is no database");
    fails(&place, &["verify"], "there is no database");
    let mut server = Server::start_in(place);
    register(&server.address(0), 0, 10);
    server.kill(server.pid(), libc::SIGTERM);
    server.wait();
    let place = &server.place;
    // Nobody has to run.
    assert!(place.run(&["backup", &copy]).status.success());
    let before = fs::read(&copy).expect("the copy");
    fails(place, &["backup", &copy], "it is there already");
    assert_eq!(fs::read(&copy).expect("the copy"), before);
    assert_eq!(verify(place, &[&copy])["good"], true);
    // The keys are elsewhere, and so is the configuration.
    let place = Place::new("[push]\ntoken_key = { env = \"NOBODY_HAS_SET_THIS\" }\n");
    let told = verify(&place, &["--without-keys", &copy]);
    assert_eq!(told["report"]["tokens"], Value::Null);
    assert_eq!(
        place.run(&["verify", &copy]).status.code(),
        Some(6),
        "no key, no configuration"
    );
    // Another key.
    let key = place.run(&["keys", "generate"]).stdout;
    fs::write(place.path().join("token.key"), key).expect("a key");
    place.configure(&format!(
        "{DEMO}[push]\ntoken_key = {{ file = \"token.key\" }}\n"
    ));
    fails(&place, &["verify", &copy], "do not open     10 !");
    let told = verify(&place, &[&copy]);
    assert_eq!(told["report"]["tokens"]["unreadable"], 10, "{told}");
    assert!(told.to_string().contains("is not the one that encrypted"));
    // A page that is not what it was.
    let mut bytes = before;
    let half = bytes.len() / 2;
    bytes[half..half + 5_000].fill(0xee);
    fs::write(&copy, bytes).expect("the copy");
    let output = server.place.run(&["verify", &copy]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
}

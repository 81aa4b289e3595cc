//! Webhooks of servers whose store is a PostgreSQL: told once, whoever dies, the database too; two
//! servers in one database tell what is theirs; and the password stays with the courier.

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/receiver.rs"]
mod receiver;
mod support;
#[path = "support/talker.rs"]
mod talker;

use std::time::Duration;

use postgres::{DATABASE, Postgres};
use receiver::{Manner, Receiver};
use serde_json::Value;
use support::{Place, Server, pid_of, processes, wait_until};
use talker::Talker;

const ROOM: &str = "presence-room";
/// Longer than the window in which a return is no news.
const SETTLED: Duration = Duration::from_millis(3500);

fn config(receiver: &Receiver, store: &str) -> String {
    format!(
        "workers = 2\n[[listen]]\nurl = \"text://127.0.0.1:0\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
         [[apps.webhooks]]\nurl = \"{}\"\ntimeout_seconds = 1\nevents = [\"channel_occupied\", \
         \"channel_vacated\", \"member_added\", \"member_removed\"]\n\
         [webhooks]\nallow_private = true\n{store}",
        receiver.url()
    )
}

/// What was told of users, each as `name user`, by bodies that differ.
fn told(receiver: &Receiver) -> Vec<String> {
    let events = receiver.distinct_events();
    let of_users = events.iter().filter(|event| event["user_id"].is_string());
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_string();
    of_users
        .map(|event| format!("{} {}", word(event, "name"), word(event, "user_id")))
        .collect()
}

fn wait_told(receiver: &Receiver, expected: &[String]) {
    wait_until(&format!("{expected:?} was told"), || {
        let told = told(receiver);
        expected.iter().all(|one| told.contains(one))
    });
}

fn added(users: &[String]) -> Vec<String> {
    users
        .iter()
        .map(|user| format!("member_added {user}"))
        .collect()
}

#[test]
fn each_change_is_told_once_whoever_is_killed_and_the_database_too() {
    let (mut postgres, receiver) = (Postgres::start(), Receiver::start());
    let server = Server::start(&config(&receiver, &postgres.store("main")));
    let address = server.address(0);
    let mut there = Vec::new();
    let mut users: Vec<String> = Vec::new();
    for (round, what) in ["courier", "stop", "kill", "courier"].iter().enumerate() {
        for n in 0..6 {
            let user = format!("{what}-{round}-{n}");
            let mut client = Talker::connect(&address);
            client.join(ROOM, &user);
            there.push(client);
            users.push(user);
            match (n, *what) {
                (2, "courier") => {
                    let status = server.status();
                    server.kill(pid_of(processes(&status, "courier")[0]), 9);
                }
                (2, "stop") => postgres.stop(),
                (2, "kill") => postgres.kill(),
                (5, "stop" | "kill") => postgres.run(),
                _ => {}
            }
        }
        wait_told(&receiver, &added(&users));
    }
    drop(there);
    let gone: Vec<String> = users
        .iter()
        .map(|user| format!("member_removed {user}"))
        .collect();
    wait_told(&receiver, &gone);
    std::thread::sleep(SETTLED);
    let mut all = told(&receiver);
    all.sort();
    let mut expected = [added(&users), gone].concat();
    expected.sort();
    assert_eq!(all, expected, "each once");
    wait_until("nothing waits in the database", || {
        postgres.ask(DATABASE, "SELECT count(*) FROM lineman.letters") == "0"
            && postgres.ask(DATABASE, "SELECT count(*) FROM lineman.told") == "0"
    });
}

#[test]
fn two_servers_in_one_database_tell_what_is_theirs_and_no_two_have_one_name() {
    let postgres = Postgres::start();
    let [east, west] = [(); 2].map(|()| Receiver::start());
    west.behave(Manner::Status(503));
    let one = Server::start(&config(&east, &postgres.store("east")));
    let mut two = Server::start(&config(&west, &postgres.store("west")));
    let mut ann = Talker::connect(&one.address(0));
    ann.join(ROOM, "ann");
    let mut bob = Talker::connect(&two.address(0));
    bob.join(ROOM, "bob");
    wait_told(&east, &added(&["ann".into()]));
    wait_until("the other's waits", || !west.requests().is_empty());
    // The whole server dies, and comes back somewhere else: what waits is in the database.
    two.kill(two.pid(), 9);
    two.wait();
    west.behave(Manner::Fine);
    let next = Server::start(&config(&west, &postgres.store("west")));
    wait_told(
        &west,
        &["member_added bob".into(), "member_removed bob".into()],
    );
    assert_eq!(told(&east), ["member_added ann"]);
    let twin = Place::new(&config(&west, &postgres.store("east")));
    let mut command = twin.command(&["start"]);
    let log = std::fs::File::create(twin.path().join("stderr")).expect("a file");
    let mut child = command.stderr(log).spawn().expect("it starts");
    wait_until("the twin says why it cannot", || {
        let log = std::fs::read_to_string(twin.path().join("stderr")).expect("a log");
        log.contains("another server has the name \"east\"")
    });
    child.kill().expect("it is there");
    child.wait().expect("it ended");
    let mut eve = Talker::connect(&one.address(0));
    eve.join(ROOM, "eve");
    wait_told(&east, &added(&["eve".into()]));
    drop(next);
}

#[test]
fn the_password_reaches_the_courier_and_nobody_else() {
    let (postgres, receiver) = (Postgres::with_password("quite-a-tiger"), Receiver::start());
    let config = config(&receiver, &postgres.store("main"));
    let server = Server::start(&config);
    let mut client = Talker::connect(&server.address(0));
    client.join(ROOM, "ann");
    wait_told(&receiver, &added(&["ann".into()]));
    assert_eq!(who_knows(&server, b"quite-a-tiger"), ["courier"]);
    let changed = config.replace("timeout_seconds = 1", "timeout_seconds = 2");
    server.place.configure(&changed);
    let reloaded = server.place.run(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{reloaded:?}");
    let mut client = Talker::connect(&server.address(0));
    client.join(ROOM, "bob");
    wait_told(&receiver, &added(&["bob".into()]));
    assert_eq!(who_knows(&server, b"quite-a-tiger"), ["courier"]);
    assert!(!server.stderr().contains("quite-a-tiger"));
    let here = changed.replace("password = {", "password = \"quite-a-tiger\" #");
    server.place.configure(&here);
    let refused = server.place.run(&["check"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    let words = "does not stand in the file";
    assert!(told.contains(words) && !told.contains("tiger"), "{told}");
    server.place.configure(&changed);
}

/// The roles of the processes whose configuration, as handed over, has these bytes.
fn who_knows(server: &Server, bytes: &[u8]) -> Vec<String> {
    let status = server.status();
    let all = status["processes"].as_array().expect("a list");
    let mut roles: Vec<String> = Vec::new();
    for process in all {
        let pid = pid_of(process);
        let role = process["role"].as_str().expect("a word");
        // It may have been replaced meanwhile.
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let handed = open.flatten().filter(|file| {
            let to = std::fs::read_link(file.path()).unwrap_or_default();
            to.to_string_lossy().contains("memfd:")
        });
        let mut texts = handed.filter_map(|file| std::fs::read(file.path()).ok());
        let knows = texts.any(|text| memchr::memmem::find(&text, bytes).is_some());
        if knows || memory_has(pid, bytes) {
            roles.push(role.to_string());
        }
    }
    roles.retain(|role| role != "master");
    roles
}

/// Whether the bytes stand anywhere in what the process may write to.
fn memory_has(pid: u32, bytes: &[u8]) -> bool {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(memory) = std::fs::File::open(format!("/proc/{pid}/mem")) else {
        return false;
    };
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (range, _) = line.split_once(' ').expect("a range");
        let (start, end) = range.split_once('-').expect("a range");
        let number = |hex: &str| u64::from_str_radix(hex, 16).expect("a number");
        let (start, end) = (number(start), number(end));
        let mut part = vec![0; (end - start).min(64 << 20) as usize];
        let Ok(count) = memory.read_at(&mut part, start) else {
            continue;
        };
        if memchr::memmem::find(&part[..count], bytes).is_some() {
            return true;
        }
    }
    false
}

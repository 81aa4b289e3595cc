//! How fast the stores take facts: letters are accepted and settled, so many in one commit, one commit
//! after the other, as the courier does it. `cargo bench --bench store -- sqlite DIRECTORY`, or
//! `… -- postgres HOST PORT DATABASE USER`, where the password is in PGPASSWORD if there is one.
//! Invariant: what is counted was answered, so it is on the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lineman::push::facts::{Fact, Letter, Store, StoreReply, StoreRequest, Work};
use lineman::store::postgres::{Host, PostgresOptions};
use lineman::store::{postgres, sqlite};
use mio::{Events, Poll, Token, Waker};

/// Letters in one commit.
const SIZES: [u64; 4] = [1, 10, 100, 1000];
/// What a letter about a few members weighs.
const BODY_BYTES: usize = 300;
const SECONDS: u64 = 3;
/// A store that is silent for so long is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    // Cargo adds a word of its own.
    let words = std::env::args().skip(1).filter(|word| word != "--bench");
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let poll = Poll::new().expect("a poll");
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
    let store: Box<dyn Store> = match words.as_slice() {
        ["sqlite", dir] => {
            let path = std::path::Path::new(dir).join("bench.db");
            Box::new(sqlite::start(path, waker).expect("a thread"))
        }
        ["postgres", host, port, database, user] => {
            let options = PostgresOptions {
                host: Host::Name(host.to_string()),
                port: port.parse().expect("a port"),
                database: database.to_string(),
                user: user.to_string(),
                password: std::env::var("PGPASSWORD").ok(),
                tls: None,
                server: "bench".into(),
                seed: [7; 16],
            };
            Box::new(postgres::start(options, waker).expect("a thread"))
        }
        _ => {
            eprintln!("sqlite DIRECTORY, or postgres HOST PORT DATABASE USER");
            std::process::exit(2);
        }
    };
    run(Bench { poll, store });
}

fn run(mut bench: Bench) {
    bench.ask(StoreRequest::Load);
    println!("letters/commit    accepted/s     settled/s    ms/commit");
    let mut next = 1;
    for size in SIZES {
        let (began, first) = (Instant::now(), next);
        while began.elapsed() < Duration::from_secs(SECONDS) {
            bench.commit((next..next + size).map(|id| Fact::Queued(letter(id))));
            next += size;
        }
        let accepting = began.elapsed().as_secs_f64();
        let began = Instant::now();
        for start in (first..next).step_by(size as usize) {
            bench.commit((start..start + size).map(Fact::Settled));
        }
        let settling = began.elapsed().as_secs_f64();
        let count = (next - first) as f64;
        println!(
            "{size:>14} {:>13.0} {:>13.0} {:>12.2}",
            count / accepting,
            count / settling,
            accepting * 1000.0 * size as f64 / count
        );
    }
}

fn letter(id: u64) -> Arc<Letter> {
    Arc::new(Letter {
        id,
        app_id: "app".into(),
        url: "https://backend.example/hooks".into(),
        lane: (id % 4) as u8,
        time_ms: 1_800_000_000_000,
        body: "x".repeat(BODY_BYTES),
    })
}

struct Bench {
    poll: Poll,
    store: Box<dyn Store>,
}

impl Bench {
    fn commit(&mut self, facts: impl Iterator<Item = Fact>) {
        let work = Work {
            facts: Arc::new(facts.collect()),
            ..Work::default()
        };
        self.ask(StoreRequest::Commit(work));
    }

    fn ask(&mut self, request: StoreRequest) {
        self.store.ask(request);
        let mut events = Events::with_capacity(4);
        let began = Instant::now();
        loop {
            match self.store.next() {
                Some(StoreReply::Failed(why)) => panic!("{why}"),
                Some(_) => return,
                None => {}
            }
            assert!(began.elapsed() < PATIENCE, "the store is silent");
            let wait = Some(Duration::from_millis(100));
            self.poll.poll(&mut events, wait).expect("a wait");
        }
    }
}

//! What every store promises, asked of each: SQLite in a file, and a real PostgreSQL. And what only
//! PostgreSQL can be asked: servers that share it, and connections that end at bad moments.

#[path = "support/authority.rs"]
mod authority;
#[path = "support/bad_line.rs"]
mod bad_line;
#[path = "support/postgres.rs"]
mod postgres;
mod support;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::Authority;
use bad_line::{BadLine, Trouble};
use lineman::push::facts::{Fact, Letter, Memory, Store, StoreReply, StoreRequest, Work};
use lineman::push::truth::Subject;
use lineman::store::postgres::{Host, PostgresOptions, start as start_postgres};
use lineman::store::sqlite;
use mio::{Events, Poll, Token, Waker};
use postgres::{DATABASE, Postgres, USER};
use support::PATIENCE;
use tempfile::TempDir;

/// What stores are made of.
trait Engine {
    /// A store on what was kept, as after a crash of the one before.
    fn open(&self, poll: &Poll) -> Box<dyn Store>;
}

struct File(TempDir);

impl Engine for File {
    fn open(&self, poll: &Poll) -> Box<dyn Store> {
        let path = self.0.path().join("lineman.db");
        Box::new(sqlite::start(path, waker(poll)).expect("a thread"))
    }
}

impl Engine for Postgres {
    fn open(&self, poll: &Poll) -> Box<dyn Store> {
        Box::new(start_postgres(options(self, "main"), waker(poll)).expect("a thread"))
    }
}

fn waker(poll: &Poll) -> Arc<Waker> {
    Arc::new(Waker::new(poll.registry(), Token(7)).expect("a waker"))
}

fn options(postgres: &Postgres, server: &str) -> PostgresOptions {
    PostgresOptions {
        host: Host::Name("127.0.0.1".into()),
        port: postgres.port(),
        database: DATABASE.into(),
        user: USER.into(),
        password: None,
        tls: None,
        server: server.into(),
        seed: [server.len() as u8; 16],
    }
}

/// A store, and the means to wait for it.
struct Play {
    poll: Poll,
    store: Box<dyn Store>,
}

impl Play {
    fn new(open: impl FnOnce(&Poll) -> Box<dyn Store>) -> Play {
        let poll = Poll::new().expect("a poll");
        let store = open(&poll);
        Play { poll, store }
    }

    /// Opened anew.
    fn of(engine: &dyn Engine) -> Play {
        Play::new(|poll| engine.open(poll))
    }

    fn ask(&mut self, request: StoreRequest) -> StoreReply {
        self.store.ask(request);
        self.wait(2 * PATIENCE)
    }

    fn wait(&mut self, patience: Duration) -> StoreReply {
        let began = Instant::now();
        let mut events = Events::with_capacity(4);
        loop {
            if let Some(reply) = self.store.next() {
                return reply;
            }
            assert!(began.elapsed() < patience, "the store is silent");
            let wait = Some(Duration::from_millis(100));
            match self.poll.poll(&mut events, wait) {
                // By a signal that is meant for another test, such as the end of its child.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                waited => waited.expect("a wait"),
            }
        }
    }

    fn load(&mut self) -> Memory {
        match self.ask(StoreRequest::Load) {
            StoreReply::Loaded(mut memory) => {
                memory.told.sort();
                // The one thing in which they differ.
                memory.is_shared = false;
                memory
            }
            other => panic!("{other:?}"),
        }
    }

    /// Commits until it is done, as the courier does.
    fn commit(&mut self, facts: Vec<Fact>) {
        let work = work(facts);
        let began = Instant::now();
        loop {
            match self.ask(StoreRequest::Commit(work.clone())) {
                StoreReply::Committed(done) => return assert!(done.is_empty()),
                StoreReply::Failed(why) => {
                    assert!(began.elapsed() < PATIENCE, "{why}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn work(facts: Vec<Fact>) -> Work {
    Work {
        facts: Arc::new(facts),
        ..Work::default()
    }
}

fn letter(id: u64) -> Arc<Letter> {
    Arc::new(Letter {
        id,
        app_id: "a".into(),
        url: "https://b/".into(),
        lane: 3,
        time_ms: u64::MAX >> 1,
        body: "{\"ü\":\"\0\"}".into(),
    })
}

fn member(id: &str) -> (String, Subject) {
    ("a/presence-x".to_string(), Subject::Member(id.to_string()))
}

fn channel() -> (String, Subject) {
    ("a/presence-x".to_string(), Subject::Channel)
}

fn told((key, subject): (String, Subject)) -> Fact {
    Fact::Told(key, subject)
}

fn untold((key, subject): (String, Subject)) -> Fact {
    Fact::Untold(key, subject)
}

/// Runs a test for each store.
fn everywhere(test: impl Fn(&dyn Engine)) {
    test(&File(TempDir::new().expect("a directory")));
    test(&Postgres::start());
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    everywhere(|engine| {
        let mut play = Play::of(engine);
        assert_eq!(play.load(), Memory::default());
        let (life, sequence) = (u64::MAX, 1);
        play.commit(vec![
            told(channel()),
            told(channel()),
            told(member("u\0")),
            told(member("v")),
            told(member("")),
            Fact::Heard { life, sequence },
            Fact::Queued(letter(1)),
            Fact::Queued(letter(2)),
        ]);
        let sequence = 2;
        play.commit(vec![
            untold(member("v")),
            Fact::Settled(1),
            Fact::Heard { life, sequence },
        ]);
        drop(play);
        let mut play = Play::of(engine);
        let memory = play.load();
        assert_eq!(memory.told, [member(""), member("u\0"), channel()]);
        assert_eq!(memory.letters, [(*letter(2)).clone()]);
        assert_eq!(memory.heard, Some((life, 2)));
        play.commit(vec![untold(channel())]);
        drop(play);
        let memory = Play::of(engine).load();
        assert_eq!(memory.told, [member(""), member("u\0")]);
    });
}

#[test]
fn the_facts_of_one_commit_count_in_their_order() {
    everywhere(|engine| {
        let mut play = Play::of(engine);
        play.load();
        play.commit(vec![told(member("u"))]);
        play.commit(vec![
            untold(member("u")),
            told(member("u")),
            told(member("v")),
            untold(member("v")),
            Fact::Queued(letter(1)),
            Fact::Settled(1),
            Fact::Settled(77),
        ]);
        drop(play);
        let memory = Play::of(engine).load();
        assert_eq!(memory.told, [member("u")]);
        assert!(memory.letters.is_empty());
    });
}

#[test]
fn a_commit_is_whole_or_not_at_all_and_the_next_one_works() {
    everywhere(|engine| {
        let mut play = Play::of(engine);
        play.load();
        let twice = vec![
            told(channel()),
            Fact::Queued(letter(1)),
            Fact::Queued(letter(1)),
        ];
        let done = play.ask(StoreRequest::Commit(work(twice)));
        assert!(matches!(done, StoreReply::Failed(_)), "{done:?}");
        drop(play);
        let mut play = Play::of(engine);
        assert_eq!(play.load(), Memory::default());
        play.commit(vec![Fact::Queued(letter(1))]);
    });
}

#[test]
fn a_commit_may_be_large() {
    everywhere(|engine| {
        let mut play = Play::of(engine);
        play.load();
        let (letters, members) = (80, 30_000);
        let long = |id| Letter {
            body: "x".repeat(256 * 1024),
            ..(*letter(id)).clone()
        };
        let mut facts: Vec<Fact> = (0..letters)
            .map(|id| Fact::Queued(Arc::new(long(id))))
            .collect();
        facts.extend((0..members).map(|id| told(member(&id.to_string()))));
        play.commit(facts);
        drop(play);
        let memory = Play::of(engine).load();
        assert_eq!(memory.letters.len(), letters as usize);
        assert_eq!(memory.letters[7], long(7));
        assert_eq!(memory.told.len(), members);
    });
}

// ---- PostgreSQL alone

fn named(postgres: &Postgres, server: &str) -> Play {
    let options = options(postgres, server);
    Play::new(|poll| Box::new(start_postgres(options, waker(poll)).expect("a thread")))
}

#[test]
fn servers_with_one_database_do_not_mix_and_a_name_is_of_one() {
    let postgres = Postgres::start();
    let mut one = named(&postgres, "one");
    let mut two = named(&postgres, "two");
    one.load();
    two.load();
    one.commit(vec![told(channel()), Fact::Queued(letter(1))]);
    two.commit(vec![
        told(member("u")),
        Fact::Queued(letter(1)),
        Fact::Settled(1),
    ]);
    let refused = named(&postgres, "one").ask(StoreRequest::Load);
    let StoreReply::Failed(why) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        why.contains("the name \"one\"") && why.contains("store.server"),
        "{why}"
    );
    drop((one, two));
    let memory = named(&postgres, "one").load();
    assert_eq!((memory.told, memory.letters.len()), (vec![channel()], 1));
    let memory = named(&postgres, "two").load();
    assert_eq!((memory.told, memory.letters.len()), (vec![member("u")], 0));
}

#[test]
fn it_comes_with_a_password_over_tls_or_through_a_socket() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    let postgres = Postgres::with_tls("tiger", &certificate, &key);
    let load = |change: &dyn Fn(&mut PostgresOptions)| {
        let mut options = options(&postgres, "main");
        change(&mut options);
        let open = |poll: &Poll| -> Box<dyn Store> {
            Box::new(start_postgres(options, waker(poll)).expect("a thread"))
        };
        match Play::new(open).ask(StoreRequest::Load) {
            StoreReply::Loaded(_) => "loaded".to_string(),
            StoreReply::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    };
    let trusting =
        |authority: &Authority| Some(Arc::new(authority.client(rustls::ALL_VERSIONS, None)));
    let secured = |host: &str, authority: &Authority, password: &str| {
        load(&|options| {
            options.host = Host::Name(host.into());
            options.tls = trusting(authority);
            options.password = Some(password.into());
        })
    };
    assert_eq!(secured("localhost", &authority, "tiger"), "loaded");
    let socket = |options: &mut PostgresOptions| options.host = Host::Sockets(postgres.sockets());
    assert_eq!(load(&socket), "loaded");
    let wrong_password = secured("localhost", &authority, "lion");
    assert!(
        wrong_password.contains("password authentication failed"),
        "{wrong_password}"
    );
    assert!(!wrong_password.contains("lion"), "{wrong_password}");
    let wrong_name = secured("127.0.0.1", &authority, "tiger");
    assert!(wrong_name.contains("certificate"), "{wrong_name}");
    let unknown = secured("localhost", &Authority::new(), "tiger");
    assert!(unknown.contains("certificate"), "{unknown}");
    let clear = load(&|options| options.password = Some("tiger".into()));
    assert!(clear.contains("no encryption"), "{clear}");
}

#[test]
fn a_database_of_a_newer_program_is_left_alone_and_many_may_make_it_at_once() {
    let postgres = Postgres::start();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let options = options(&postgres, &format!("server-{number}"));
            std::thread::spawn(move || {
                let open = |poll: &Poll| -> Box<dyn Store> {
                    Box::new(start_postgres(options, waker(poll)).expect("a thread"))
                };
                Play::new(open).load()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("it is made"), Memory::default());
    }
    postgres.ask(DATABASE, "UPDATE lineman.schema_version SET version = 99");
    let refused = named(&postgres, "main").ask(StoreRequest::Load);
    let StoreReply::Failed(why) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("newer version"), "{why}");
}

#[test]
fn a_commit_whose_answer_is_lost_is_done_once() {
    let postgres = Postgres::start();
    let bad = BadLine::to(postgres.port());
    let mut options = options(&postgres, "main");
    options.port = bad.port;
    let mut play =
        Play::new(|poll| Box::new(start_postgres(options, waker(poll)).expect("a thread")));
    play.load();
    // The first of its kind, so that the next is one request.
    play.commit(vec![Fact::Queued(letter(1))]);
    for (id, trouble) in [(2, Trouble::LosesAnswers), (3, Trouble::LosesRequests)] {
        bad.behave(trouble);
        let queued = work(vec![Fact::Queued(letter(id))]);
        let done = play.ask(StoreRequest::Commit(queued));
        assert_eq!(done, StoreReply::Committed(Vec::new()), "{trouble:?}");
        assert_eq!(bad.cuts(), id - 1, "{trouble:?}");
    }
    let ids = postgres.ask(DATABASE, "SELECT id FROM lineman.letters ORDER BY id");
    assert_eq!(ids, "1\n2\n3");
}

#[test]
fn a_database_that_stands_still_is_not_waited_for_forever() {
    let postgres = Postgres::start();
    let mut play = named(&postgres, "main");
    play.load();
    play.commit(vec![Fact::Queued(letter(1))]);
    postgres.signal("STOP");
    let queued = work(vec![Fact::Queued(letter(2))]);
    play.store.ask(StoreRequest::Commit(queued.clone()));
    let patience = 3 * PATIENCE;
    let done = play.wait(patience);
    postgres.signal("CONT");
    assert!(matches!(done, StoreReply::Failed(_)), "{done:?}");
    let mut done = play.ask(StoreRequest::Commit(queued.clone()));
    if let StoreReply::Failed(_) = done {
        done = play.ask(StoreRequest::Commit(queued));
    }
    assert_eq!(done, StoreReply::Committed(Vec::new()));
    let ids = postgres.ask(DATABASE, "SELECT id FROM lineman.letters ORDER BY id");
    assert_eq!(ids, "1\n2");
}

#[test]
fn it_goes_on_after_the_database_was_stopped_or_killed() {
    let mut postgres = Postgres::start();
    let mut play = named(&postgres, "main");
    play.load();
    play.commit(vec![Fact::Queued(letter(1))]);
    postgres.stop();
    let done = play.ask(StoreRequest::Commit(work(vec![Fact::Queued(letter(2))])));
    assert!(matches!(done, StoreReply::Failed(_)), "{done:?}");
    postgres.run();
    play.commit(vec![Fact::Queued(letter(2))]);
    postgres.kill();
    postgres.run();
    // It does not know yet that its connection is gone.
    let done = play.ask(StoreRequest::Commit(work(vec![Fact::Queued(letter(3))])));
    assert!(matches!(done, StoreReply::Committed(_)), "{done:?}");
    drop(play);
    let ids: Vec<u64> = named(&postgres, "main")
        .load()
        .letters
        .iter()
        .map(|it| it.id)
        .collect();
    assert_eq!(ids, [1, 2, 3]);
}

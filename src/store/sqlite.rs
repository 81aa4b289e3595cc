//! Facts in one SQLite file, written by one thread: a request is one transaction, and it is answered
//! when the disk has it (write-ahead log, synchronous=FULL). Whoever asks collects facts while a
//! commit is under way, so that many share the wait for the disk.
//!
//! Invariants: the file is readable by its owner alone. It is brought to the newest schema, or, when
//! a newer program wrote it, left alone and refused.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, params};

use crate::push::facts::{Fact, Letter, Memory, StoreReply, StoreRequest, Work};
use crate::push::jobs::{JobTicket, Outcome};
use crate::push::truth::Subject;
use crate::store::desk::Desk;
use crate::store::rows::{Fault, Result};
use crate::store::{devices, jobs, notifications};

/// Each is run once, in its order; `user_version` counts them.
const SCHEMA: [&str; 7] = [
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
    include_str!("schema/0007.sql"),
];
/// What `user_version` is in a file that is up to date.
pub const VERSION: u32 = SCHEMA.len() as u32;
/// A predecessor that is just ending may hold the file.
const BUSY: Duration = Duration::from_secs(5);
/// Prepared at a time; there are about as many.
const STATEMENTS: usize = 128;
/// Of pages kept in memory, in units of 1,024 bytes; negative, as SQLite wants it. With its own 2 MiB, a
/// transaction of a few thousand rows writes its pages more than once.
const CACHE_KIB: i32 = -64 * 1024;
/// Of the write-ahead log, before its pages are copied into the file. A page that every commit changes is
/// copied once for all of them; SQLite's own 1,000 are full after a few hundred calls.
const LOG_PAGES: u32 = 8_000;

/// Starts the thread. `waker` is used when there is a reply. What is wrong with the file is told in
/// reply to `StoreRequest::Load`.
pub fn start(path: PathBuf, waker: Arc<Waker>) -> std::io::Result<Desk> {
    let begin = || None;
    Desk::start(waker, begin, move |file, request| {
        let done = answer(&path, file, request);
        done.unwrap_or_else(|why| StoreReply::Failed(format!("{}: {why}", path.display())))
    })
}

/// The same in memory, without a thread: whoever asks is answered at once.
pub struct InMemory(Connection);

impl InMemory {
    pub fn open() -> std::result::Result<InMemory, String> {
        let mut file = Connection::open_in_memory().map_err(|error| error.to_string())?;
        keep_statements(&file).map_err(|error| error.to_string())?;
        migrate(&mut file)?;
        Ok(InMemory(file))
    }

    pub fn answer(&mut self, request: &StoreRequest) -> StoreReply {
        carry_out(&mut self.0, request)
            .unwrap_or_else(|error| StoreReply::Failed(error.to_string()))
    }

    /// For who looks at rows, or writes some of his own.
    pub fn connection(&self) -> &Connection {
        &self.0
    }
}

fn answer(
    path: &Path,
    file: &mut Option<Connection>,
    request: &StoreRequest,
) -> std::result::Result<StoreReply, String> {
    let open = match file {
        Some(open) => open,
        None => file.insert(open(path)?),
    };
    carry_out(open, request).map_err(|error| error.to_string())
}

fn carry_out(open: &mut Connection, request: &StoreRequest) -> Result<StoreReply> {
    match request {
        StoreRequest::Load => load(open).map(StoreReply::Loaded),
        StoreRequest::Commit(work) => {
            let done = match commit(open, work, false) {
                Err(Fault::Refused(_)) => commit(open, work, true),
                done => done,
            };
            done.map(StoreReply::Committed)
        }
    }
}

/// With `apart`, a job that is refused costs the others nothing (`jobs::run_all`).
fn commit(open: &mut Connection, work: &Work, apart: bool) -> Result<Vec<(JobTicket, Outcome)>> {
    let transaction = open.transaction()?;
    for fact in work.facts.iter() {
        write(&transaction, fact)?;
    }
    let done = jobs::run_all(&*transaction, &work.jobs, apart)?;
    transaction.commit()?;
    Ok(done)
}

/// What was prepared once is not prepared again.
fn keep_statements(open: &Connection) -> rusqlite::Result<()> {
    open.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without, SQLite looks at what is bound to a statement, and prepares it anew for other values.
    open.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

/// Opens the file, makes it if there is none, and brings it to the newest schema.
pub(super) fn open(path: &Path) -> std::result::Result<Connection, String> {
    // SQLite gives its side files the mode of the file.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| error.to_string())?;
    let words = |error: rusqlite::Error| error.to_string();
    let mut file = Connection::open(path).map_err(words)?;
    file.busy_timeout(BUSY).map_err(words)?;
    keep_statements(&file).map_err(words)?;
    file.pragma_update(None, "cache_size", CACHE_KIB)
        .map_err(words)?;
    // What SQLite keeps for going back to a savepoint would be a file.
    file.pragma_update(None, "temp_store", "MEMORY")
        .map_err(words)?;
    file.pragma_update(None, "journal_mode", "WAL")
        .map_err(words)?;
    file.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)
        .map_err(words)?;
    file.pragma_update(None, "synchronous", "FULL")
        .map_err(words)?;
    migrate(&mut file)?;
    Ok(file)
}

pub(super) fn migrate(file: &mut Connection) -> std::result::Result<(), String> {
    let words = |error: rusqlite::Error| error.to_string();
    let done: u32 = file
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(words)?;
    let done = done as usize;
    if done > SCHEMA.len() {
        return Err("a newer version of lineman wrote this file".to_string());
    }
    for (version, step) in SCHEMA.iter().enumerate().skip(done) {
        let transaction = file.transaction().map_err(words)?;
        transaction.execute_batch(step).map_err(words)?;
        transaction
            .pragma_update(None, "user_version", version as u32 + 1)
            .map_err(words)?;
        transaction.commit().map_err(words)?;
    }
    Ok(())
}

fn load(file: &Connection) -> Result<Memory> {
    let mut told = file.prepare("SELECT channel, member FROM told")?;
    let told = told.query_map([], |row| {
        let member: Option<String> = row.get(1)?;
        Ok((
            row.get(0)?,
            member.map_or(Subject::Channel, Subject::Member),
        ))
    })?;
    let mut letters =
        file.prepare("SELECT id, app_id, url, lane, time_ms, body FROM letters ORDER BY id")?;
    let letters = letters.query_map([], |row| {
        Ok(Letter {
            id: row.get::<_, i64>(0)? as u64,
            app_id: row.get(1)?,
            url: row.get(2)?,
            lane: row.get(3)?,
            time_ms: row.get::<_, i64>(4)? as u64,
            body: row.get(5)?,
        })
    })?;
    let mut heard = file.prepare("SELECT life, sequence FROM heard")?;
    let mut heard = heard.query_map([], |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
    })?;
    Ok(Memory {
        is_shared: false,
        told: told.collect::<rusqlite::Result<_>>()?,
        letters: letters.collect::<rusqlite::Result<_>>()?,
        heard: heard.next().transpose()?,
        token_keys: devices::needed_keys(file)?,
        has_notifications: notifications::are_there(file)?,
    })
}

fn write(to: &Transaction<'_>, fact: &Fact) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        to.prepare_cached(sql)?.execute(values).map(|_| ())
    };
    match fact {
        Fact::Anew => to.execute_batch("DELETE FROM told; DELETE FROM letters; DELETE FROM heard;"),
        Fact::Told(channel, subject) => run(
            "INSERT OR IGNORE INTO told (channel, member) VALUES (?, ?)",
            params![channel, member(subject)],
        ),
        Fact::Untold(channel, subject) => run(
            "DELETE FROM told WHERE channel = ? AND member IS ?",
            params![channel, member(subject)],
        ),
        Fact::Queued(letter) => run(
            "INSERT INTO letters (id, app_id, url, lane, time_ms, body) VALUES (?, ?, ?, ?, ?, ?)",
            params![
                letter.id as i64,
                letter.app_id,
                letter.url,
                letter.lane,
                letter.time_ms as i64,
                letter.body
            ],
        ),
        Fact::Settled(id) => run("DELETE FROM letters WHERE id = ?", params![*id as i64]),
        Fact::Heard { life, sequence } => run(
            "INSERT INTO heard (one, life, sequence) VALUES (1, ?1, ?2) \
             ON CONFLICT (one) DO UPDATE SET life = ?1, sequence = ?2",
            params![*life as i64, *sequence as i64],
        ),
    }
}

fn member(subject: &Subject) -> Option<&str> {
    match subject {
        Subject::Member(id) => Some(id),
        Subject::Channel => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::push::delivery::jobs::{DeliveryJob, DeliveryOutcome};
    use crate::push::facts::Store;
    use crate::push::jobs::Job;

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

    fn work(facts: Vec<Fact>) -> Work {
        Work {
            facts: Arc::new(facts),
            ..Work::default()
        }
    }

    /// Each call opens the file anew, as after a crash.
    fn ask(path: &Path, request: StoreRequest) -> StoreReply {
        answer(path, &mut None, &request).expect("a working file")
    }

    fn commit(path: &Path, facts: Vec<Fact>) {
        let done = ask(path, StoreRequest::Commit(work(facts)));
        assert_eq!(done, StoreReply::Committed(Vec::new()));
    }

    #[test]
    fn a_job_that_is_refused_costs_the_others_nothing() {
        let mut store = InMemory::open().expect("SQLite");
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON passes WHEN NEW.name = 'bad' \
                      BEGIN SELECT RAISE(ABORT, 'no'); END";
        store.connection().execute_batch(refuse).expect("a trigger");
        let keep = |name: &str| {
            let (name, text) = (name.to_string(), "sealed".to_string());
            Job::Delivery(DeliveryJob::KeepPass { name, text })
        };
        let jobs = ["one", "bad", "two"].map(keep);
        let tickets = (1..).map(JobTicket);
        let work = Work {
            facts: Arc::new(vec![Fact::Queued(letter(1))]),
            jobs: Arc::new(tickets.zip(jobs).collect()),
        };
        let StoreReply::Committed(done) = store.answer(&StoreRequest::Commit(work)) else {
            panic!("it was not committed");
        };
        let outcome = |nth: usize| (done[nth].0.0, &done[nth].1);
        let kept = Outcome::Delivery(DeliveryOutcome::Done);
        assert_eq!([outcome(0), outcome(2)], [(1, &kept), (3, &kept)]);
        let (2, Outcome::Delivery(DeliveryOutcome::Impossible(why))) = outcome(1) else {
            panic!("{done:?}");
        };
        assert_eq!(why, "no");
        let kept = "SELECT (SELECT group_concat(name) FROM passes ORDER BY name) || ' ' || \
                    (SELECT count(*) FROM letters)";
        let kept: String = { store.connection() }
            .query_row(kept, [], |row| row.get(0))
            .expect("a row");
        assert_eq!(kept, "one,two 1");
    }

    #[test]
    fn what_was_committed_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lineman.db");
        let loaded = ask(&path, StoreRequest::Load);
        assert_eq!(loaded, StoreReply::Loaded(Memory::default()));
        let member = |id: &str| ("a/presence-x".to_string(), Subject::Member(id.to_string()));
        let channel = ("a/presence-x".to_string(), Subject::Channel);
        let told = |(key, subject): (String, Subject)| Fact::Told(key, subject);
        let (life, sequence) = (u64::MAX, 1);
        let mut facts = vec![told(channel.clone()), told(channel.clone())];
        facts.extend([
            told(member("u")),
            told(member("v")),
            Fact::Heard { life, sequence },
        ]);
        facts.extend([Fact::Queued(letter(1)), Fact::Queued(letter(2))]);
        commit(&path, facts);
        let (key, subject) = member("v");
        let (sequence, settled) = (2, Fact::Settled(1));
        commit(
            &path,
            vec![
                Fact::Untold(key, subject),
                settled,
                Fact::Heard { life, sequence },
            ],
        );
        let StoreReply::Loaded(mut memory) = ask(&path, StoreRequest::Load) else {
            panic!("nothing was loaded");
        };
        memory.told.sort();
        assert_eq!(memory.told, [member("u"), channel.clone()]);
        assert_eq!(memory.letters, [(*letter(2)).clone()]);
        assert_eq!(memory.heard, Some((life, 2)));
        let (key, subject) = channel;
        commit(&path, vec![Fact::Untold(key, subject)]);
        let StoreReply::Loaded(memory) = ask(&path, StoreRequest::Load) else {
            panic!("nothing was loaded");
        };
        assert_eq!(memory.told, [member("u")]);
        let mode = std::fs::metadata(&path)
            .expect("the file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_commit_is_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lineman.db");
        let twice = vec![Fact::Queued(letter(1)), Fact::Queued(letter(1))];
        let request = StoreRequest::Commit(work(twice));
        assert!(answer(&path, &mut None, &request).is_err());
        let loaded = ask(&path, StoreRequest::Load);
        assert_eq!(loaded, StoreReply::Loaded(Memory::default()));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let load = |path: &Path| answer(path, &mut None, &StoreRequest::Load);
        assert!(load(&dir.path().join("none/lineman.db")).is_err());
        let garbage = dir.path().join("garbage.db");
        std::fs::write(&garbage, "no database at all, and long enough to be one").expect("a file");
        assert!(load(&garbage).is_err_and(|why| why.contains("not a database")));
        let newer = dir.path().join("newer.db");
        ask(&newer, StoreRequest::Load);
        let file = Connection::open(&newer).expect("the file");
        file.pragma_update(None, "user_version", 99)
            .expect("a number");
        assert!(load(&newer).is_err_and(|why| why.contains("newer version")));
    }

    #[test]
    fn no_constraint_makes_a_table_of_words_and_each_of_them_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.db");
        drop(open(&path).expect("a file"));
        let file = open(&path).expect("the same file");
        let explain = |sql: &str| {
            let mut plan = file.prepare(&format!("EXPLAIN {sql}")).expect("a plan");
            let steps = plan.query_map([], |row| row.get::<_, String>(1));
            let steps = steps.expect("steps").collect::<rusqlite::Result<Vec<_>>>();
            steps.expect("steps")
        };
        for (table, column) in [
            ("notifications", "state"),
            ("deliveries", "state"),
            ("device_registrations", "platform"),
            ("device_registrations", "service"),
        ] {
            let change = format!("UPDATE {table} SET {column} = 'nonsense'");
            let steps = explain(&change);
            assert!(
                steps.iter().any(|step| step == "Halt"),
                "{table}: {steps:?}"
            );
            let tables = steps.iter().filter(|step| *step == "OpenEphemeral");
            assert_eq!(tables.count(), 0, "{table}: {steps:?}");
        }
        file.execute_batch("PRAGMA foreign_keys = OFF")
            .expect("rows on their own");
        let put = |state: &str| {
            let sql = "INSERT INTO deliveries (notification, app_id, device, way, state, due_at, priority) \
                       VALUES ('n', 'a', ?1, 'apns', ?1, 0, 0)";
            file.execute(sql, [state])
        };
        let words = [
            "held",
            "queued",
            "accepted",
            "failed",
            "expired",
            "cancelled",
        ];
        for state in words {
            assert_eq!(put(state), Ok(1));
        }
        let refused = put("sent").expect_err("no such state");
        assert!(refused.to_string().contains("CHECK constraint failed"));
    }

    #[test]
    fn the_thread_answers_and_wakes() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut poll = mio::Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), mio::Token(7)).expect("a waker");
        let mut store = start(dir.path().join("a.db"), Arc::new(waker)).expect("a thread");
        store.ask(StoreRequest::Load);
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(20)))
            .expect("a wait");
        assert_eq!(store.next(), Some(StoreReply::Loaded(Memory::default())));
    }
}

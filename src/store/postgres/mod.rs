//! The store on PostgreSQL, for servers that share one: a thread with one connection. A commit whose
//! outcome got lost with the connection is looked up before it is done again, so nothing is kept twice
//! and nothing is answered that was not kept.
//!
//! Invariants: whoever holds the lock of a server's name is the only one that writes its facts, and the
//! lock is held by the connection that writes; when a new connection has it, whatever the former had
//! under way is decided.

mod facts;
mod fault;
pub(in crate::store) mod rows;
pub(in crate::store) mod schema;
pub(in crate::store) mod session;
mod tls;

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::Waker;
use rustls::ClientConfig;

use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::push::facts::{StoreReply, StoreRequest, Work};
use crate::push::jobs::{JobTicket, Outcome};
use crate::store::desk::Desk;
use crate::store::jobs;
use crate::store::postgres::facts::Mark;
use crate::store::postgres::rows::Tables;
use crate::store::postgres::session::Session;
use crate::store::rows::Fault;

/// What was kept has to be there for a courier to begin; it waits so long for a database that is just
/// starting, or for its predecessor's connection to be noticed dead.
const LOAD_WITHIN: Duration = Duration::from_secs(15);
/// A commit tries again at once, once: a connection that has been idle may have ended unnoticed.
const ATTEMPTS: usize = 2;
/// How often others may be in the way of one commit.
const CONFLICTS: usize = 5;
/// Between attempts to connect.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_LONGEST: Duration = Duration::from_secs(10);
/// For the lock of our name, and between looks at it.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
const LOCK_EVERY: Duration = Duration::from_millis(100);

/// Where the database is, and as whom we come.
#[derive(Clone)]
pub struct PostgresOptions {
    pub host: Host,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: Option<String>,
    /// `None`: in the clear.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whose facts these are; no two servers that run have the same.
    pub server: String,
    /// From the operating system's entropy.
    pub seed: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Name(String),
    /// The directory of its sockets.
    Sockets(PathBuf),
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) if name.contains(':') => {
                write!(f, "postgres://[{name}]:{}", self.port)?
            }
            Host::Name(name) => write!(f, "postgres://{name}:{}", self.port)?,
            Host::Sockets(dir) => write!(f, "postgres in {}", dir.display())?,
        }
        write!(f, "/{}", self.database)
    }
}

/// Starts the thread. `waker` is used when there is a reply. What is wrong with the database is told in
/// reply to `StoreRequest::Load`.
pub fn start(options: PostgresOptions, waker: Arc<Waker>) -> std::io::Result<Desk> {
    Desk::start(waker, move || Keeper::new(options), Keeper::answer)
}

/// A commit that was under way when its connection was lost.
struct Unsure {
    work: Work,
    mark: Mark,
    outcomes: Vec<(JobTicket, Outcome)>,
}

struct Keeper {
    options: PostgresOptions,
    session: Option<Session>,
    /// Our last process there; it may still hold our lock.
    former: i32,
    mark: Mark,
    unsure: Option<Unsure>,
    dice: Dice,
    backoff: Backoff,
    /// Not to connect before.
    again_at: Instant,
}

impl Keeper {
    fn new(options: PostgresOptions) -> Keeper {
        let mut dice = Dice::new(options.seed);
        let (courier, number) = (dice.next_u64() as i64, 0);
        Keeper {
            options,
            session: None,
            former: 0,
            mark: Mark { courier, number },
            unsure: None,
            dice,
            backoff: Backoff::new(AGAIN_FIRST, AGAIN_LONGEST),
            again_at: Instant::now(),
        }
    }

    fn answer(&mut self, request: &StoreRequest) -> StoreReply {
        let done = match request {
            StoreRequest::Load => self.load(),
            StoreRequest::Commit(work) => self.commit(work),
        };
        done.unwrap_or_else(|fault| {
            StoreReply::Failed(format!("{}: {}", self.options, fault.text()))
        })
    }

    fn load(&mut self) -> Result<StoreReply, Fault> {
        let due = Instant::now() + LOAD_WITHIN;
        let mut has_told = false;
        loop {
            let server = self.options.server.clone();
            let done = self
                .connect()
                .and_then(|session| facts::load(session, &server));
            match done {
                Ok(memory) => return Ok(StoreReply::Loaded(memory)),
                Err(Fault::Lost(why)) if Instant::now() < due => {
                    if !has_told {
                        log::warn!("waits for {}: {why}", self.options);
                        has_told = true;
                    }
                    self.lost(&why);
                }
                Err(fault) => {
                    self.session = None;
                    return Err(fault);
                }
            }
        }
    }

    fn commit(&mut self, work: &Work) -> Result<StoreReply, Fault> {
        let (mut attempt, mut conflicts, mut apart) = (1, 0, false);
        loop {
            let done = self.try_commit(work, apart);
            match done {
                Ok(outcomes) => return Ok(StoreReply::Committed(outcomes)),
                Err(Fault::Lost(why)) if attempt < ATTEMPTS => {
                    self.lost(&why);
                    attempt += 1;
                }
                Err(Fault::Again(_)) if conflicts < CONFLICTS => conflicts += 1,
                // Who is in the way may be another courier, which is done by now.
                Err(Fault::Refused(_)) if !apart && !work.jobs.is_empty() => apart = true,
                Err(Fault::Lost(why)) => {
                    self.lost(&why);
                    return Err(Fault::Lost(why));
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    fn try_commit(&mut self, work: &Work, apart: bool) -> Result<Vec<(JobTicket, Outcome)>, Fault> {
        let server = self.options.server.clone();
        self.connect()?;
        let session = self.session.as_mut().expect("it was connected");
        if let Some(unsure) = &self.unsure {
            let is_done = facts::last_mark(session, &server)? == unsure.mark;
            let unsure = self.unsure.take().expect("it was there");
            if is_done && is_same(&unsure.work, work) {
                return Ok(unsure.outcomes);
            }
        }
        self.mark.number += 1;
        let mark = self.mark;
        let parts = facts::parts(&work.facts);
        if let ([facts], true) = (parts.as_slice(), work.jobs.is_empty()) {
            // A transaction by itself.
            let kept = facts::keep(session, &server, facts, mark);
            if let Err(Fault::Lost(_)) = &kept {
                self.note_unsure(work, Vec::new());
            }
            return kept.map(|()| Vec::new());
        }
        let outcomes = match in_transaction(session, &server, (work, &parts), mark, apart) {
            Err(Fault::Lost(why)) => return Err(Fault::Lost(why)),
            Err(fault) => {
                session.batch("ROLLBACK")?;
                return Err(fault);
            }
            Ok(outcomes) => outcomes,
        };
        match session.batch("COMMIT") {
            Ok(()) => Ok(outcomes),
            Err(fault) => {
                // Even a refusal may come too late to say that nothing was done.
                self.note_unsure(work, outcomes);
                Err(Fault::Lost(fault.text()))
            }
        }
    }

    fn note_unsure(&mut self, work: &Work, outcomes: Vec<(JobTicket, Outcome)>) {
        self.unsure = Some(Unsure {
            work: work.clone(),
            mark: self.mark,
            outcomes,
        });
    }

    /// The connection, made if there is none: the schema is right then, and the name is ours.
    fn connect(&mut self) -> Result<&mut Session, Fault> {
        if self.session.is_none() {
            thread::sleep(self.again_at.saturating_duration_since(Instant::now()));
            let mut session = Session::open(&self.options)?;
            schema::migrate(&mut session)?;
            self.lock(&mut session)?;
            facts::enter(&mut session, &self.options.server)?;
            self.former = session.pid;
            self.backoff.reset();
            self.session = Some(session);
        }
        Ok(self.session.as_mut().expect("it was made"))
    }

    fn lost(&mut self, why: &str) {
        if self.session.take().is_some() {
            log::warn!("the connection to the database is lost: {why}");
        }
        self.again_at = Instant::now() + self.backoff.next(&mut self.dice);
    }

    /// Waits until nobody else writes what belongs to our name.
    fn lock(&self, session: &mut Session) -> Result<(), Fault> {
        const TAKE: &str = "SELECT pg_try_advisory_lock(hashtextextended('lineman/' || $1, 0))";
        // Our own former process there, if it has not noticed yet that nobody listens to it.
        const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks \
                           WHERE locktype = 'advisory' AND pid = $1 AND granted";
        let server = &self.options.server;
        if self.former != 0 {
            session.query(END, &[&self.former])?;
        }
        let due = Instant::now() + LOCK_WITHIN;
        while !session.one(TAKE, &[server])?.get::<_, bool>(0) {
            if Instant::now() >= due {
                let why = format!(
                    "another server has the name \"{server}\" there: store.server has to be \
                     different for each"
                );
                return Err(Fault::Lost(why));
            }
            thread::sleep(LOCK_EVERY);
        }
        Ok(())
    }
}

/// Everything but the commit. With `apart`, a job that is refused costs the others nothing
/// (`jobs::run_all`).
fn in_transaction(
    session: &mut Session,
    server: &str,
    (work, parts): (&Work, &[&[crate::push::facts::Fact]]),
    mark: Mark,
    apart: bool,
) -> Result<Vec<(JobTicket, Outcome)>, Fault> {
    session.batch("BEGIN")?;
    for part in parts.iter().filter(|part| !part.is_empty()) {
        facts::keep(session, server, part, mark)?;
    }
    let tables = Tables(RefCell::new(session));
    jobs::lock(&tables, &work.jobs)?;
    let outcomes = jobs::run_all(&tables, &work.jobs, apart)?;
    facts::mark(tables.0.into_inner(), server, mark)?;
    Ok(outcomes)
}

/// Whether it is asked again, not another that looks the same.
fn is_same(one: &Work, other: &Work) -> bool {
    Arc::ptr_eq(&one.facts, &other.facts) && Arc::ptr_eq(&one.jobs, &other.jobs)
}

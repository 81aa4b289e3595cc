//! Databases for the tests of jobs: SQLite in memory, and a real PostgreSQL, which tests that run at the
//! same time share; each has a database of its own there.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use crate::push::jobs::{Job, Outcome};
use crate::store::jobs;
use crate::store::postgres::rows::Tables;
use crate::store::postgres::session::Session;
use crate::store::postgres::{Host, PostgresOptions, schema};
use crate::store::rows::{Result, Row, Rows, Value};
use crate::store::sqlite;

#[path = "../../tests/support/postgres.rs"]
mod postgres;
#[path = "../../tests/support/alive.rs"]
mod support;

use postgres::{Postgres, USER};

/// The server that runs now, if one does.
static SERVER: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A database without a row.
pub enum Base {
    File(Connection),
    Server {
        session: RefCell<Session>,
        options: Box<PostgresOptions>,
        server: Arc<Postgres>,
    },
}

/// Runs a test on each.
pub fn everywhere(test: impl Fn(Base)) {
    test(Base::file());
    test(Base::server());
}

impl Base {
    pub fn file() -> Base {
        let mut file = Connection::open_in_memory().expect("SQLite");
        sqlite::migrate(&mut file).expect("the schema");
        Base::File(file)
    }

    pub fn server() -> Base {
        let mut running = SERVER.lock().unwrap_or_else(|it| it.into_inner());
        let server = running.upgrade().unwrap_or_else(|| {
            let server = start();
            *running = Arc::downgrade(&server);
            server
        });
        drop(running);
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let database = format!("base_{number}");
        server.ask("postgres", &format!("CREATE DATABASE {database}"));
        let options = Box::new(PostgresOptions {
            host: Host::Sockets(server.sockets()),
            port: server.port(),
            database,
            user: USER.into(),
            password: None,
            tls: None,
            server: "main".into(),
            seed: [7; 16],
        });
        Base::open(server, options)
    }

    fn open(server: Arc<Postgres>, options: Box<PostgresOptions>) -> Base {
        let mut session = Session::open(&options).expect("a connection");
        schema::migrate(&mut session).expect("the schema");
        Base::Server {
            session: RefCell::new(session),
            options,
            server,
        }
    }

    /// The same database once more, for whoever shares it.
    pub fn again(&self) -> Base {
        match self {
            Base::File(_) => panic!("nobody shares it"),
            Base::Server {
                options, server, ..
            } => Base::open(Arc::clone(server), options.clone()),
        }
    }

    pub fn sqlite(&self) -> &Connection {
        match self {
            Base::File(file) => file,
            Base::Server { .. } => panic!("this is no SQLite"),
        }
    }

    /// Jobs in one transaction, as the stores do them when one of them was refused.
    pub fn commit(&self, jobs: &[Job]) -> Vec<Outcome> {
        self.write("BEGIN", &[]);
        let done = jobs.iter().map(|job| jobs::run_apart(self, job));
        let done = done.collect::<Result<_>>().expect("a working database");
        self.write("COMMIT", &[]);
        done
    }

    /// For rows that no job writes.
    pub fn write(&self, sql: &str, values: &[Value]) {
        self.execute(sql, values).expect("it is written");
    }

    /// The first column of each row, as it is shown.
    pub fn lines(&self, sql: &str) -> Vec<String> {
        let rows = self.query(sql, &[]).expect("rows");
        let shown = |row: &Row| match &row.values[0] {
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        rows.iter().map(shown).collect()
    }

    pub fn number(&self, sql: &str) -> u64 {
        self.lines(sql)[0].parse().expect("a number")
    }
}

impl Rows for Base {
    fn query(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        match self {
            Base::File(file) => file.query(sql, values),
            Base::Server { session, .. } => tables(&mut session.borrow_mut()).query(sql, values),
        }
    }

    fn execute(&self, sql: &str, values: &[Value]) -> Result<u64> {
        match self {
            Base::File(file) => Rows::execute(file, sql, values),
            Base::Server { session, .. } => tables(&mut session.borrow_mut()).execute(sql, values),
        }
    }

    fn execute_each(&self, sql: &str, values: &[Vec<Value>]) -> Result<Vec<u64>> {
        match self {
            Base::File(file) => file.execute_each(sql, values),
            Base::Server { session, .. } => {
                tables(&mut session.borrow_mut()).execute_each(sql, values)
            }
        }
    }

    fn is_shared(&self) -> bool {
        matches!(self, Base::Server { .. })
    }
}

/// A server ends with the thread that has started it, and tests have threads of their own.
fn start() -> Arc<Postgres> {
    let (tell, told) = channel();
    thread::spawn(move || {
        let server = Arc::new(Postgres::start());
        let held = Arc::downgrade(&server);
        if tell.send(server).is_ok() {
            while held.strong_count() > 0 {
                thread::sleep(Duration::from_millis(50));
            }
        }
    });
    told.recv().expect("a server")
}

fn tables(session: &mut Session) -> Tables<'_> {
    Tables(RefCell::new(session))
}

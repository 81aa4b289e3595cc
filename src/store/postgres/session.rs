//! One connection to PostgreSQL, as blocking calls: a question, and an answer within a time. Owns the
//! deadlines, and the library's runtime, which turns only inside of these calls and only in their
//! thread. Does not know what is asked.
//!
//! Invariants: no call waits longer than its time. A connection that was lost is not used again.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use crate::store::postgres::tls::Rustls;
use crate::store::postgres::{Host, PostgresOptions};
use crate::store::rows::Fault;

/// For a name, TCP, TLS and signing in.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);
/// For the answer to one statement; the server gives up before.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// A schema may have to be changed row by row.
const MIGRATION_WITHIN: Duration = Duration::from_secs(30 * 60);

/// How the server keeps its side. It notices soon that nobody is at the other end, since the lock of a
/// dead server keeps its successor waiting. What was answered is on its disk.
const SETTINGS: &str = "
    SET statement_timeout = '10s';
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '30s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 2;
    SET tcp_keepalives_count = 3;
    SET client_min_messages = 'warning';
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local');
    SET search_path = lineman";

pub type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// See the file's head.
pub struct Session {
    runtime: Runtime,
    client: Client,
    /// The process that serves it there.
    pub pid: i32,
    prepared: BTreeMap<String, Statement>,
}

impl Session {
    pub fn open(options: &PostgresOptions) -> Result<Session, Fault> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Fault::Lost(error.to_string()))?;
        let config = config_of(options);
        let connecting = async {
            match &options.tls {
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
                Some(tls) => {
                    let (client, connection) = config.connect(Rustls(tls.clone())).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
            }
        };
        let client = wait(&runtime, CONNECT_WITHIN, connecting)?;
        let mut session = Session {
            runtime,
            client,
            pid: 0,
            prepared: BTreeMap::new(),
        };
        session.batch(SETTINGS)?;
        session.pid = session.one("SELECT pg_backend_pid()", &[])?.get(0);
        Ok(session)
    }

    /// The rows that a statement gives. It is prepared once.
    pub fn query(&mut self, sql: &str, values: Values<'_>) -> Result<Vec<Row>, Fault> {
        let statement = self.prepare(sql)?;
        let rows = self.client.query(&statement, values);
        wait(&self.runtime, ANSWER_WITHIN, rows)
    }

    /// The first row.
    pub fn one(&mut self, sql: &str, values: Values<'_>) -> Result<Row, Fault> {
        let row = self.query(sql, values)?.into_iter().next();
        row.ok_or_else(|| Fault::Refused("a row is missing that was there".to_string()))
    }

    /// How many rows a statement has changed. It is prepared once.
    pub fn execute(&mut self, sql: &str, values: Values<'_>) -> Result<u64, Fault> {
        let statement = self.prepare(sql)?;
        let done = self.client.execute(&statement, values);
        wait(&self.runtime, ANSWER_WITHIN, done)
    }

    /// Statements without values.
    pub fn batch(&self, sql: &str) -> Result<(), Fault> {
        wait(&self.runtime, ANSWER_WITHIN, self.client.batch_execute(sql))
    }

    /// The same, for those that take their time.
    pub fn migrate(&self, sql: &str) -> Result<(), Fault> {
        let done = self.client.batch_execute(sql);
        wait(&self.runtime, MIGRATION_WITHIN, done)
    }

    /// The same with each of these, all under way at once.
    pub fn execute_each(&mut self, sql: &str, values: &[Values<'_>]) -> Result<Vec<u64>, Fault> {
        let statement = self.prepare(sql)?;
        let each = values.iter();
        let each = each.map(|values| Box::pin(self.client.execute(&statement, values)));
        wait(&self.runtime, ANSWER_WITHIN, in_order(each.collect()))
    }

    /// The rows that a statement gives with each of these, all under way at once.
    pub fn query_each(&mut self, sql: &str, values: &[Values<'_>]) -> Result<Vec<Vec<Row>>, Fault> {
        let statement = self.prepare(sql)?;
        let each = values.iter();
        let each = each.map(|values| Box::pin(self.client.query(&statement, values)));
        wait(&self.runtime, ANSWER_WITHIN, in_order(each.collect()))
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, Fault> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let text = numbered(sql);
        let statement = wait(&self.runtime, ANSWER_WITHIN, self.client.prepare(&text))?;
        self.prepared.insert(sql.to_string(), statement.clone());
        Ok(statement)
    }
}

/// `?` and `?1` as PostgreSQL writes them: `$1`. As in SQLite, one without a number has the next one.
fn numbered(sql: &str) -> String {
    let (mut text, mut last, mut quoted) = (String::with_capacity(sql.len() + 16), 0, false);
    let mut rest = sql.chars().peekable();
    while let Some(next) = rest.next() {
        quoted ^= next == '\'';
        if next != '?' || quoted {
            text.push(next);
            continue;
        }
        let mut number = 0;
        while let Some(digit) = rest.peek().and_then(|it| it.to_digit(10)) {
            number = number * 10 + digit;
            rest.next();
        }
        if number == 0 {
            number = last + 1;
        }
        last = last.max(number);
        text.push_str(&format!("${number}"));
    }
    text
}

/// What all of them give, or the first error. Each is begun before the first is waited for; they end in
/// their order.
async fn in_order<F, T, E>(mut futures: Vec<Pin<Box<F>>>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut done = Vec::with_capacity(futures.len());
    let mut begun = false;
    poll_fn(move |cx| {
        while let Some(next) = futures.get_mut(done.len()) {
            match next.as_mut().poll(cx) {
                Poll::Ready(Ok(it)) => done.push(it),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        if done.len() == futures.len() {
            return Poll::Ready(Ok(std::mem::take(&mut done)));
        }
        if !std::mem::replace(&mut begun, true) {
            for other in futures.iter_mut().skip(done.len() + 1) {
                // None of them ends before the first.
                if let Poll::Ready(Err(error)) = other.as_mut().poll(cx) {
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Pending
    })
    .await
}

fn wait<T>(
    runtime: &Runtime,
    within: Duration,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Fault> {
    let late = |_| Fault::Lost(format!("no answer for {} seconds", within.as_secs()));
    let answer = runtime.block_on(async { tokio::time::timeout(within, answer).await });
    Ok(answer.map_err(late)??)
}

fn config_of(options: &PostgresOptions) -> Config {
    let mut config = Config::new();
    match &options.host {
        Host::Name(name) => config.host(name),
        Host::Sockets(dir) => config.host_path(dir),
    };
    config
        .port(options.port)
        .dbname(&options.database)
        .user(&options.user)
        .application_name(format!("lineman {}", options.server))
        .connect_timeout(CONNECT_WITHIN)
        .tcp_user_timeout(ANSWER_WITHIN)
        .keepalives_idle(ANSWER_WITHIN)
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .ssl_mode(match options.tls {
            Some(_) => SslMode::Require,
            None => SslMode::Disable,
        });
    if let Some(password) = &options.password {
        config.password(password);
    }
    config
}

//! Facts as rows of PostgreSQL, those of one server: a commit of them is one statement, so one way
//! there and back. Knows the tables of `schema/postgres/0001.sql`. Invariant: what a commit keeps is
//! what the facts would leave one after the other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::push::facts::{Fact, Letter, Memory};
use crate::push::truth::Subject;
use crate::store::postgres::rows::Tables;
use crate::store::postgres::session::Session;
use crate::store::rows::Fault;
use crate::store::{devices, notifications};

/// What one statement takes: far below what PostgreSQL does (1 GB), and done well within its time.
const BYTES_MAX: usize = 16 * 1024 * 1024;
const FACTS_MAX: usize = 20_000;

/// All parts see what was there before, so that no row may be touched by two of them.
const KEEP: &str = "
    WITH untold AS (
        DELETE FROM told
        USING unnest($2::text[], $3::boolean[], $4::bytea[]) AS gone (channel, is_member, member)
        WHERE told.server = $1 AND told.channel = gone.channel
            AND told.is_member = gone.is_member AND told.member = gone.member
    ), told_now AS (
        INSERT INTO told (server, channel, is_member, member)
        SELECT $1, * FROM unnest($5::text[], $6::boolean[], $7::bytea[])
        ON CONFLICT DO NOTHING
    ), queued AS (
        INSERT INTO letters (server, id, app_id, url, lane, time_ms, body)
        SELECT $1, * FROM unnest(
            $8::bigint[], $9::text[], $10::text[], $11::smallint[], $12::bigint[], $13::bytea[])
    ), settled AS (
        DELETE FROM letters WHERE server = $1 AND id = ANY ($14::bigint[])
    )
    UPDATE servers SET
        courier = $15, commit_number = $16,
        life = COALESCE($17, life), sequence = COALESCE($18, sequence)
    WHERE name = $1";

/// Nothing that was kept of this server counts.
const ANEW: &str = "
    WITH told_before AS (
        DELETE FROM told WHERE server = $1
    ), queued_before AS (
        DELETE FROM letters WHERE server = $1
    )
    UPDATE servers SET courier = $2, commit_number = $3, life = NULL, sequence = NULL
    WHERE name = $1";

/// Which commit it is: the life of the courier, and the number it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub courier: i64,
    pub number: i64,
}

/// Makes sure that the server is known.
pub fn enter(session: &mut Session, server: &str) -> Result<(), Fault> {
    let sql = "INSERT INTO servers (name) VALUES ($1) ON CONFLICT DO NOTHING";
    session.execute(sql, &[&server]).map(|_| ())
}

/// The last commit that was done.
pub fn last_mark(session: &mut Session, server: &str) -> Result<Mark, Fault> {
    let sql = "SELECT courier, commit_number FROM servers WHERE name = $1";
    let row = session.one(sql, &[&server])?;
    Ok(Mark {
        courier: row.get(0),
        number: row.get(1),
    })
}

/// Notes the commit if its transaction has changed anything so far.
pub fn mark(session: &mut Session, server: &str, mark: Mark) -> Result<(), Fault> {
    let sql = "UPDATE servers SET courier = $2, commit_number = $3 \
               WHERE name = $1 AND pg_current_xact_id_if_assigned() IS NOT NULL";
    let values = session.execute(sql, &[&server, &mark.courier, &mark.number]);
    values.map(|_| ())
}

pub fn load(session: &mut Session, server: &str) -> Result<Memory, Fault> {
    let sql = "SELECT channel, is_member, member FROM told WHERE server = $1";
    let mut told = Vec::new();
    for row in session.query(sql, &[&server])? {
        let subject = match row.get(1) {
            true => Subject::Member(text(row.get(2))?),
            false => Subject::Channel,
        };
        told.push((row.get(0), subject));
    }
    let sql =
        "SELECT id, app_id, url, lane, time_ms, body FROM letters WHERE server = $1 ORDER BY id";
    let mut letters = Vec::new();
    for row in session.query(sql, &[&server])? {
        letters.push(Letter {
            id: row.get::<_, i64>(0) as u64,
            app_id: row.get(1),
            url: row.get(2),
            lane: row.get::<_, i16>(3) as u8,
            time_ms: row.get::<_, i64>(4) as u64,
            body: text(row.get(5))?,
        });
    }
    let row = session.one(
        "SELECT life, sequence FROM servers WHERE name = $1",
        &[&server],
    )?;
    let heard: (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
    let tables = Tables(RefCell::new(session));
    Ok(Memory {
        token_keys: devices::needed_keys(&tables)?,
        has_notifications: notifications::are_there(&tables)?,
        is_shared: true,
        told,
        letters,
        heard: heard
            .0
            .zip(heard.1)
            .map(|(life, sequence)| (life as u64, sequence as u64)),
    })
}

fn text(bytes: &[u8]) -> Result<String, Fault> {
    let wrong = |_| Fault::Refused("a row holds what this program did not write".to_string());
    String::from_utf8(bytes.to_vec()).map_err(wrong)
}

/// As many parts as it takes statements to keep them.
pub fn parts(facts: &[Fact]) -> Vec<&[Fact]> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, fact) in facts.iter().enumerate() {
        let more = size(fact);
        // What begins anew is a part of its own.
        let alone = *fact == Fact::Anew || facts[start] == Fact::Anew;
        if at > start && (alone || bytes + more > BYTES_MAX || at - start >= FACTS_MAX) {
            parts.push(&facts[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += more;
    }
    parts.push(&facts[start..]);
    parts
}

fn size(fact: &Fact) -> usize {
    match fact {
        Fact::Queued(letter) => letter.body.len() + letter.url.len(),
        Fact::Told(channel, _) | Fact::Untold(channel, _) => channel.len(),
        Fact::Anew | Fact::Settled(_) | Fact::Heard { .. } => 0,
    }
}

/// Keeps what one statement can, and notes the commit.
pub fn keep(session: &mut Session, server: &str, facts: &[Fact], mark: Mark) -> Result<(), Fault> {
    if facts == [Fact::Anew] {
        let changed = session.execute(ANEW, &[&server, &mark.courier, &mark.number])?;
        return check_row(changed);
    }
    let columns = Columns::of(facts);
    let (gone, here, queued) = (&columns.untold, &columns.told, &columns.queued);
    let heard = (columns.heard.map(|it| it.0), columns.heard.map(|it| it.1));
    let changed = session.execute(
        KEEP,
        &[
            &server,
            &gone.channel,
            &gone.is_member,
            &gone.member,
            &here.channel,
            &here.is_member,
            &here.member,
            &queued.id,
            &queued.app_id,
            &queued.url,
            &queued.lane,
            &queued.time_ms,
            &queued.body,
            &columns.settled,
            &mark.courier,
            &mark.number,
            &heard.0,
            &heard.1,
        ],
    )?;
    check_row(changed)
}

fn check_row(changed: u64) -> Result<(), Fault> {
    match changed {
        1 => Ok(()),
        _ => Err(Fault::Lost(
            "somebody removed this server's row".to_string(),
        )),
    }
}

/// Facts by kind, each column a list.
#[derive(Default)]
struct Columns<'a> {
    told: Subjects<'a>,
    untold: Subjects<'a>,
    queued: Letters<'a>,
    settled: Vec<i64>,
    heard: Option<(i64, i64)>,
}

#[derive(Default)]
struct Subjects<'a> {
    channel: Vec<&'a str>,
    is_member: Vec<bool>,
    member: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Letters<'a> {
    id: Vec<i64>,
    app_id: Vec<&'a str>,
    url: Vec<&'a str>,
    lane: Vec<i16>,
    time_ms: Vec<i64>,
    body: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(facts: &'a [Fact]) -> Columns<'a> {
        let mut columns = Columns::default();
        // Of a subject only its last fact counts.
        let mut subjects: BTreeMap<(&str, &Subject), bool> = BTreeMap::new();
        let mut settled = BTreeSet::new();
        for fact in facts {
            match fact {
                Fact::Told(channel, subject) => {
                    subjects.insert((channel, subject), true);
                }
                Fact::Untold(channel, subject) => {
                    subjects.insert((channel, subject), false);
                }
                Fact::Settled(id) => {
                    settled.insert(*id);
                }
                Fact::Anew | Fact::Queued(_) => {}
                Fact::Heard { life, sequence } => {
                    columns.heard = Some((*life as i64, *sequence as i64));
                }
            }
        }
        for ((channel, subject), is_there) in subjects {
            let side = match is_there {
                true => &mut columns.told,
                false => &mut columns.untold,
            };
            side.push(channel, subject);
        }
        for fact in facts {
            // What is settled already never gets there.
            if let Fact::Queued(letter) = fact
                && !settled.contains(&letter.id)
            {
                columns.queued.push(letter);
            }
        }
        columns.settled = settled.into_iter().map(|id| id as i64).collect();
        columns
    }
}

impl<'a> Subjects<'a> {
    fn push(&mut self, channel: &'a str, subject: &'a Subject) {
        let member: Option<&str> = match subject {
            Subject::Member(id) => Some(id),
            Subject::Channel => None,
        };
        self.channel.push(channel);
        self.is_member.push(member.is_some());
        self.member.push(member.unwrap_or_default().as_bytes());
    }
}

impl<'a> Letters<'a> {
    fn push(&mut self, letter: &'a Letter) {
        self.id.push(letter.id as i64);
        self.app_id.push(&letter.app_id);
        self.url.push(&letter.url);
        self.lane.push(letter.lane.into());
        self.time_ms.push(letter.time_ms as i64);
        self.body.push(letter.body.as_bytes());
    }
}

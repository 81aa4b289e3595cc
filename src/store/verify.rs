//! Whether a SQLite file is good: whole, of a schema that is known, its rows belonging together, its
//! tokens readable. Changes nothing. Invariant: what is told holds numbers and our own ids, and
//! nothing of a token or a key.

use std::path::Path;

use rusqlite::Connection;
use serde::Serialize;

use crate::push::devices::vault::TokenVault;
use crate::store::backup::open;
use crate::store::credentials;
use crate::store::devices::{needed_by_devices, read};
use crate::store::rows::{self, Fault, Row, Rows, values};
use crate::store::sqlite::VERSION;

/// Of damages, and of devices that are named.
const NAMED_MAX: usize = 10;
/// Devices between two words about how far it is.
const STEP: u64 = 1_000;

/// What was found. All of one moment, if somebody writes meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Of the file, and the newest that this program knows.
    pub schema: u32,
    pub newest_schema: u32,
    /// SQLite's words, at most ten. Where there are some, nothing else was looked at.
    pub damage: Vec<String>,
    /// Rows that point to one that is not there.
    pub orphans: u64,
    /// Apps whose number of devices is kept wrong.
    pub miscounted_apps: u64,
    pub devices: u64,
    /// What apps were given while the server ran; those of them that do not open, if that was tried.
    pub credentials: u64,
    pub unreadable_credentials: u64,
    pub notifications: u64,
    /// Deliveries that wait.
    pub deliveries: u64,
    /// Webhooks that wait.
    pub webhooks: u64,
    /// `None`: they were not tried.
    pub tokens: Option<Tokens>,
}

/// How tokens fare with the keys of a vault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Why keys and file do not fit, if they do not.
    pub keys: Option<String>,
    pub readable: u64,
    pub unreadable: u64,
    /// Readable, but not found by their token.
    pub misindexed: u64,
    /// Ids (`device_registrations.id`) of the first ten that are either.
    pub wrong: Vec<String>,
}

impl Report {
    /// Whether a server can run on it, and send to each of its devices if tokens were tried.
    pub fn is_good(&self) -> bool {
        let tokens = self.tokens.as_ref().is_none_or(|tokens| {
            tokens.keys.is_none() && tokens.unreadable == 0 && tokens.misindexed == 0
        });
        (1..=self.newest_schema).contains(&self.schema)
            && self.damage.is_empty()
            && self.orphans == 0
            && self.miscounted_apps == 0
            && self.unreadable_credentials == 0
            && tokens
    }
}

/// Whether tokens are tried, and with what.
#[derive(Clone, Copy)]
pub enum Keys<'a> {
    /// They are elsewhere, and the tokens are not tried.
    Elsewhere,
    /// `None`: there are none, which is wrong if there are tokens.
    Here(Option<&'a TokenVault>),
}

/// Looks at all of it. `progress` is told of how many devices the tokens were tried.
pub fn verify(path: &Path, keys: Keys<'_>, progress: impl FnMut(u64)) -> Result<Report, String> {
    let words = |fault: Fault| format!("{}: {fault}", path.display());
    let file = open(path).map_err(|error| words(error.into()))?;
    look(&file, keys, progress).map_err(words)
}

fn look(file: &Connection, keys: Keys<'_>, mut progress: impl FnMut(u64)) -> rows::Result<Report> {
    let file = file.unchecked_transaction()?;
    let mut report = Report {
        schema: file.pragma_query_value(None, "user_version", |row| row.get(0))?,
        newest_schema: VERSION,
        ..Report::default()
    };
    report.damage = damage(&file)?;
    if !report.damage.is_empty() || !(1..=VERSION).contains(&report.schema) {
        return Ok(report);
    }
    report.orphans = file
        .prepare("PRAGMA foreign_key_check")?
        .query_map([], |_| Ok(()))?
        .count() as u64;
    let count = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0));
    report.webhooks = count("SELECT count(*) FROM letters")? as u64;
    if report.schema >= 2 {
        report.devices = count("SELECT count(*) FROM device_registrations")? as u64;
        report.miscounted_apps = count(MISCOUNTED)? as u64;
        report.tokens = match keys {
            Keys::Elsewhere => None,
            Keys::Here(None) if report.devices == 0 => None,
            Keys::Here(None) => Some(Tokens {
                keys: Some("there are tokens, and no token_key is configured".to_string()),
                ..Tokens::default()
            }),
            Keys::Here(Some(vault)) => Some(try_tokens(&file, vault, &mut progress)?),
        };
    }
    if report.schema >= 5 {
        report.credentials = count("SELECT count(*) FROM credentials")? as u64;
        report.unreadable_credentials = match keys {
            Keys::Elsewhere => 0,
            Keys::Here(None) => report.credentials,
            Keys::Here(Some(vault)) => credentials::count_unreadable(&*file, vault)?,
        };
    }
    if report.schema >= 3 {
        report.notifications = count("SELECT count(*) FROM notifications")? as u64;
        report.deliveries = count(WAITING)? as u64;
    }
    Ok(report)
}

const WAITING: &str = "SELECT count(*) FROM deliveries WHERE state IN ('held', 'queued')";

const MISCOUNTED: &str = "\
    WITH counted AS (SELECT app_id, count(*) AS devices FROM device_registrations GROUP BY app_id) \
    SELECT count(*) FROM \
    (SELECT app_id, devices FROM counted \
     EXCEPT SELECT app_id, devices FROM device_counts \
     UNION SELECT app_id, devices FROM device_counts \
     WHERE devices <> 0 AND app_id NOT IN (SELECT app_id FROM counted))";

fn damage(file: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = file.prepare(&format!("PRAGMA integrity_check({NAMED_MAX})"))?;
    let lines = check.query_map([], |row| row.get(0))?;
    let lines = lines.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(match lines.as_slice() {
        [one] if one == "ok" => Vec::new(),
        _ => lines,
    })
}

fn try_tokens(
    file: &Connection,
    vault: &TokenVault,
    progress: &mut impl FnMut(u64),
) -> rows::Result<Tokens> {
    let known = vault.check_known(&needed_by_devices(file)?);
    let mut tokens = Tokens {
        keys: known.err().map(|fault| fault.text()),
        ..Tokens::default()
    };
    let sql = "SELECT * FROM device_registrations WHERE id > ? ORDER BY id LIMIT ?";
    let mut last = String::new();
    loop {
        let page = file.query(sql, &values![&last, STEP])?;
        for row in &page {
            last = row.get("id")?;
            tokens.count(row, vault);
        }
        if page.is_empty() {
            return Ok(tokens);
        }
        progress(tokens.readable + tokens.unreadable);
    }
}

impl Tokens {
    fn count(&mut self, row: &Row, vault: &TokenVault) {
        // A row that this program did not write counts as one more that is unreadable.
        let opened = read(row).ok().and_then(|device| {
            let token = vault.open(&device.row(), &device.sealed).ok()?;
            let indexes = vault.indexes(&device.app_id, &token);
            Some(indexes.contains(&device.sealed.index))
        });
        match opened {
            Some(true) => self.readable += 1,
            Some(false) => {
                self.readable += 1;
                self.misindexed += 1;
            }
            None => self.unreadable += 1,
        }
        if opened != Some(true) && self.wrong.len() < NAMED_MAX {
            self.wrong.extend(row.get::<String>("id"));
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;

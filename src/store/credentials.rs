//! The jobs of `push/providers/credential/jobs` on their table. Knows no secret: they come sealed.

use crate::push::devices::token_key::{Fingerprint, KeyId};
use crate::push::devices::vault::{SealedSecret, TokenVault};
use crate::push::providers::credential::jobs::{
    APP_MAX, CredentialJob, CredentialOutcome, Kept, KeptCredential, MAX, NewCredential,
    ResealedSecret,
};
use crate::store::devices::{read_key_id, read_keys, word};
use crate::store::rows::{Result, Row, Rows, Value, values};

/// The table, behind that of devices.
pub const SCHEMA: &str = include_str!("schema/0005.sql");

/// To be called in a transaction.
pub fn run(on: &dyn Rows, job: &CredentialJob) -> Result<CredentialOutcome> {
    match job {
        CredentialJob::Look { since } => {
            let revision = revision(on)?;
            match *since == Some(revision) {
                true => Ok(CredentialOutcome::Same),
                false => kept(on, revision).map(CredentialOutcome::Kept),
            }
        }
        CredentialJob::Put { credential, now_ms } => put(on, credential, *now_ms),
        CredentialJob::Remove { app_id, name } => {
            on.take_turn("credentials")?;
            let sql = "DELETE FROM credentials WHERE app_id = ? AND name = ?";
            match on.execute(sql, &values![app_id, name])? {
                0 => Ok(CredentialOutcome::Unknown),
                _ => {
                    let revision = raised(on)?;
                    kept(on, revision).map(CredentialOutcome::Removed)
                }
            }
        }
        CredentialJob::Reseal(rows) => reseal(on, rows).map(CredentialOutcome::Resealed),
    }
}

fn revision(on: &dyn Rows) -> Result<u64> {
    let row = on.first("SELECT revision FROM credential_changes", &[])?;
    row.map_or(Ok(0), |row| row.get(0))
}

fn raised(on: &dyn Rows) -> Result<u64> {
    let sql = "UPDATE credential_changes SET revision = revision + 1";
    on.execute(sql, &[])?;
    revision(on)
}

fn put(on: &dyn Rows, new: &NewCredential, now_ms: u64) -> Result<CredentialOutcome> {
    on.take_turn("credentials")?;
    let sql = "SELECT name FROM credentials WHERE app_id = ? AND family = ? AND name <> ?";
    if let Some(row) = on.first(sql, &values![&new.app_id, new.family, &new.name])? {
        return Ok(CredentialOutcome::Conflict(row.get(0)?));
    }
    let sql = "SELECT count(*) FROM credentials WHERE app_id = ? AND name = ?";
    let is_new = count(on, sql, &values![&new.app_id, &new.name])? == 0;
    let sql = "SELECT count(*) FROM credentials WHERE app_id = ?";
    let is_full = || -> Result<bool> {
        let of_app = count(on, sql, &values![&new.app_id])?;
        Ok(of_app >= APP_MAX || count(on, "SELECT count(*) FROM credentials", &[])? >= MAX)
    };
    if is_new && is_full()? {
        return Ok(CredentialOutcome::Full);
    }
    let revision = raised(on)?;
    let sql = "INSERT INTO credentials (app_id, name, family, is_operators, sealed, sealed_iv, \
               sealed_tag, key_id, revision, created_at, updated_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10) \
               ON CONFLICT (app_id, name) DO UPDATE SET family = ?3, is_operators = ?4, \
               sealed = ?5, sealed_iv = ?6, sealed_tag = ?7, key_id = ?8, revision = ?9, \
               updated_at = ?10";
    let sealed = &new.sealed;
    let values = values![
        &new.app_id,
        &new.name,
        new.family,
        new.is_operators,
        &sealed.text,
        &sealed.iv,
        &sealed.tag,
        sealed.key_id.as_str(),
        revision,
        now_ms,
    ];
    on.execute(sql, &values)?;
    let kept = kept(on, revision)?;
    Ok(CredentialOutcome::Put { is_new, kept })
}

fn count(on: &dyn Rows, sql: &str, values: &[Value]) -> Result<u64> {
    on.first(sql, values)?.map_or(Ok(0), |row| row.get(0))
}

fn reseal(on: &dyn Rows, rows: &[ResealedSecret]) -> Result<u64> {
    let sql = "UPDATE credentials SET sealed = ?, sealed_iv = ?, sealed_tag = ?, key_id = ? \
               WHERE app_id = ? AND name = ? AND sealed_iv = ? AND sealed_tag = ?";
    let changes = rows.iter().map(|row| {
        values![
            &row.sealed.text,
            &row.sealed.iv,
            &row.sealed.tag,
            row.sealed.key_id.as_str(),
            &row.app_id,
            &row.name,
            &row.was.iv,
            &row.was.tag,
        ]
        .to_vec()
    });
    let done = on.execute_each(sql, &changes.collect::<Vec<_>>())?;
    Ok(done.iter().sum())
}

/// All, as of this revision or a later one.
fn kept(on: &dyn Rows, revision: u64) -> Result<Kept> {
    let rows = all(on)?;
    let all = rows.iter().map(read).collect::<Result<_>>()?;
    Ok(Kept { revision, all })
}

fn all(on: &dyn Rows) -> Result<Vec<Row>> {
    on.query("SELECT * FROM credentials ORDER BY app_id, name", &[])
}

fn read(row: &Row) -> Result<KeptCredential> {
    Ok(KeptCredential {
        app_id: row.get("app_id")?,
        name: row.get("name")?,
        revision: row.get("revision")?,
        is_operators: row.get("is_operators")?,
        sealed: SealedSecret {
            text: row.get("sealed")?,
            iv: row.get("sealed_iv")?,
            tag: row.get("sealed_tag")?,
            key_id: word(row, "key_id", read_key_id)?,
        },
        created_ms: row.get("created_at")?,
        updated_ms: row.get("updated_at")?,
    })
}

/// The keys that some credential needs.
pub(super) fn needed_keys(from: &dyn Rows) -> Result<Vec<(KeyId, Fingerprint)>> {
    let sql = "SELECT DISTINCT k.key_id, k.fingerprint FROM token_keys k \
               JOIN credentials c ON c.key_id = k.key_id";
    read_keys(&from.query(sql, &[])?)
}

/// How many do not open.
pub(super) fn count_unreadable(from: &dyn Rows, vault: &TokenVault) -> Result<u64> {
    let rows = all(from)?;
    let opens = |row: &&Row| {
        let kept = read(row).ok();
        kept.is_some_and(|it| {
            vault
                .open_secret((&it.app_id, &it.name), &it.sealed)
                .is_ok()
        })
    };
    Ok((rows.len() - rows.iter().filter(opens).count()) as u64)
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;

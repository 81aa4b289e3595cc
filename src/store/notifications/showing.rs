//! What became of notifications, for who asks. Changes nothing.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::push::notify::jobs::{DeliveryShown, NotifyOutcome, ReachShown, Shown, Summary};

const SUMMARY: &str = "id, state, sender, created_at, send_at, expires_at, settled_at";

fn summary(row: &Row<'_>) -> rusqlite::Result<Summary> {
    Ok(Summary {
        id: row.get(0)?,
        state: row.get(1)?,
        sender: row.get(2)?,
        created_at_ms: row.get::<_, i64>(3)? as u64,
        send_at_ms: row.get::<_, i64>(4)? as u64,
        expires_at_ms: time(row, 5)?,
        settled_at_ms: time(row, 6)?,
    })
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let time: Option<i64> = row.get(column)?;
    Ok(time.map(|ms| ms as u64))
}

pub(super) fn show(
    on: &Connection,
    (app_id, id): (&str, &str),
    after: u64,
    limit: u32,
) -> rusqlite::Result<NotifyOutcome> {
    let sql = format!("SELECT {SUMMARY} FROM notifications WHERE id = ? AND app_id = ?");
    let mut found = on.prepare_cached(&sql)?;
    let Some(summary) = found.query_row([id, app_id], summary).optional()? else {
        return Ok(NotifyOutcome::Missing);
    };
    let sql = "SELECT state, count(*) FROM deliveries WHERE notification = ? GROUP BY state";
    let mut counts = on.prepare_cached(sql)?;
    let counts = counts.query_map([id], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
    let counts: BTreeMap<String, u64> = counts.collect::<rusqlite::Result<_>>()?;
    let deliveries = deliveries(on, id, after, limit)?;
    let last = deliveries.last().map(|delivery| delivery.number);
    Ok(NotifyOutcome::Shown(Box::new(Shown {
        summary,
        // They are on the first page.
        reaches: if after == 0 {
            reaches(on, id)?
        } else {
            Vec::new()
        },
        counts,
        next: last.filter(|_| deliveries.len() == limit as usize),
        deliveries,
    })))
}

fn reaches(on: &Connection, id: &str) -> rusqlite::Result<Vec<ReachShown>> {
    let sql = "SELECT kind, name, connections, live_at, acknowledged_at, pushed_at, due_at \
               FROM reaches WHERE notification = ? ORDER BY kind, name";
    let mut found = on.prepare_cached(sql)?;
    let found = found.query_map([id], |row| {
        let is_user = row.get::<_, String>(0)? == "user";
        let name: String = row.get(1)?;
        let (user_id, channel) = match is_user {
            true => (Some(name), None),
            false => (None, Some(name)),
        };
        Ok(ReachShown {
            user_id,
            channel,
            connections: row.get(2)?,
            live_at_ms: time(row, 3)?,
            acknowledged_at_ms: time(row, 4)?,
            pushed_at_ms: time(row, 5)?,
            due_at_ms: time(row, 6)?,
        })
    })?;
    found.collect()
}

fn deliveries(
    on: &Connection,
    id: &str,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<DeliveryShown>> {
    let sql = "SELECT v.id, d.device_id, v.user_id, v.address, v.state, v.attempts, v.due_at, \
               v.settled_at, v.reason, v.provider_id FROM deliveries v \
               LEFT JOIN device_registrations_safe d ON d.id = v.device \
               WHERE v.notification = ? AND v.id > ? ORDER BY v.id LIMIT ?";
    let mut found = on.prepare_cached(sql)?;
    let found = found.query_map(params![id, after as i64, limit], |row| {
        let address: Option<String> = row.get(3)?;
        Ok(DeliveryShown {
            number: row.get::<_, i64>(0)? as u64,
            device_id: row.get(1)?,
            user_id: row.get(2)?,
            address: address.and_then(|json| serde_json::from_str(&json).ok()),
            state: row.get(4)?,
            attempts: row.get(5)?,
            due_at_ms: row.get::<_, i64>(6)? as u64,
            settled_at_ms: time(row, 7)?,
            reason: row.get(8)?,
            provider_id: row.get(9)?,
        })
    })?;
    found.collect()
}

/// The newest first, behind `before`.
pub(super) fn list(
    on: &Connection,
    app_id: &str,
    (state, before): (Option<&str>, Option<&str>),
    limit: u32,
) -> rusqlite::Result<NotifyOutcome> {
    let sql = format!(
        "SELECT {SUMMARY} FROM notifications \
         WHERE app_id = ?1 AND (?2 IS NULL OR state = ?2) \
         AND (?3 IS NULL OR (created_at, id) < (SELECT created_at, id FROM notifications WHERE id = ?3)) \
         ORDER BY created_at DESC, id DESC LIMIT ?4"
    );
    let mut found = on.prepare_cached(&sql)?;
    let found = found.query_map(params![app_id, state, before, limit], summary)?;
    Ok(NotifyOutcome::Listed(
        found.collect::<rusqlite::Result<_>>()?,
    ))
}

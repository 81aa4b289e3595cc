//! What became of notifications, for who asks. Changes nothing.

use std::collections::BTreeMap;

use crate::push::notify::jobs::{
    AttemptShown, DeliveryShown, NotifyOutcome, ReachShown, Shown, Summary,
};
use crate::store::rows::{Result, Row, Rows, Value, values};

const SUMMARY: &str = "id, state, sender, created_at, send_at, expires_at, settled_at";

fn summary(row: &Row) -> Result<Summary> {
    Ok(Summary {
        id: row.get(0)?,
        state: row.get(1)?,
        sender: row.get(2)?,
        created_at_ms: row.get(3)?,
        send_at_ms: row.get(4)?,
        expires_at_ms: row.get(5)?,
        settled_at_ms: row.get(6)?,
    })
}

pub(super) fn show(
    on: &dyn Rows,
    (app_id, id): (&str, &str),
    after: u64,
    limit: u32,
) -> Result<NotifyOutcome> {
    let sql = format!("SELECT {SUMMARY} FROM notifications WHERE id = ? AND app_id = ?");
    let Some(found) = on.first(&sql, &values![id, app_id])? else {
        return Ok(NotifyOutcome::Missing);
    };
    let summary = summary(&found)?;
    let sql = "SELECT state, count(*) FROM deliveries WHERE notification = ? GROUP BY state";
    let counts = on.query(sql, &values![id])?;
    let counts = counts.iter().map(|row| Ok((row.get(0)?, row.get(1)?)));
    let counts: BTreeMap<String, u64> = counts.collect::<Result<_>>()?;
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

fn reaches(on: &dyn Rows, id: &str) -> Result<Vec<ReachShown>> {
    let sql = "SELECT kind, name, connections, live_at, acknowledged_at, pushed_at, due_at \
               FROM reaches WHERE notification = ? ORDER BY kind, name";
    let found = on.query(sql, &values![id])?;
    let found = found.iter().map(|row| {
        let is_user = row.get::<String>(0)? == "user";
        let name: String = row.get(1)?;
        let (user_id, channel) = match is_user {
            true => (Some(name), None),
            false => (None, Some(name)),
        };
        Ok(ReachShown {
            user_id,
            channel,
            connections: row.get(2)?,
            live_at_ms: row.get(3)?,
            acknowledged_at_ms: row.get(4)?,
            pushed_at_ms: row.get(5)?,
            due_at_ms: row.get(6)?,
        })
    });
    found.collect()
}

fn deliveries(on: &dyn Rows, id: &str, after: u64, limit: u32) -> Result<Vec<DeliveryShown>> {
    let sql = "SELECT v.id, d.device_id, v.user_id, v.address, v.state, v.attempts, v.due_at, \
               v.settled_at, v.reason, v.provider_id FROM deliveries v \
               LEFT JOIN device_registrations_safe d ON d.id = v.device \
               WHERE v.notification = ? AND v.id > ? ORDER BY v.id LIMIT ?";
    let found = on.query(sql, &values![id, after, limit])?;
    let numbers = found.iter().map(|row| row.get(0));
    let mut attempts = attempts(on, numbers.collect::<Result<_>>()?)?;
    let found = found.iter().map(|row| {
        let number: u64 = row.get(0)?;
        let address: Option<String> = row.get(3)?;
        Ok(DeliveryShown {
            number,
            failed_attempts: attempts.remove(&number).unwrap_or_default(),
            device_id: row.get(1)?,
            user_id: row.get(2)?,
            address: address.and_then(|json| serde_json::from_str(&json).ok()),
            state: row.get(4)?,
            attempts: row.get(5)?,
            due_at_ms: row.get(6)?,
            settled_at_ms: row.get(7)?,
            reason: row.get(8)?,
            provider_id: row.get(9)?,
        })
    });
    found.collect()
}

/// By delivery.
fn attempts(on: &dyn Rows, of: Vec<i64>) -> Result<BTreeMap<u64, Vec<AttemptShown>>> {
    let sql = format!(
        "SELECT delivery, number, at, reason FROM attempts WHERE delivery {} \
         ORDER BY delivery, number",
        on.among(1)
    );
    let mut attempts: BTreeMap<u64, Vec<AttemptShown>> = BTreeMap::new();
    for row in on.query(&sql, &[Value::Ints(of)])? {
        attempts.entry(row.get(0)?).or_default().push(AttemptShown {
            attempt: row.get(1)?,
            at_ms: row.get(2)?,
            reason: row.get(3)?,
        });
    }
    Ok(attempts)
}

/// The newest first, behind `before`.
pub(super) fn list(
    on: &dyn Rows,
    app_id: &str,
    (state, before): (Option<&str>, Option<&str>),
    limit: u32,
) -> Result<NotifyOutcome> {
    let sql = format!(
        "SELECT {SUMMARY} FROM notifications \
         WHERE app_id = ?1 AND (CAST(?2 AS TEXT) IS NULL OR state = ?2) \
         AND (CAST(?3 AS TEXT) IS NULL OR (created_at, id) < (SELECT created_at, id FROM notifications WHERE id = ?3)) \
         ORDER BY created_at DESC, id DESC LIMIT ?4"
    );
    let found = on.query(&sql, &values![app_id, state, before, limit])?;
    let found = found.iter().map(summary);
    Ok(NotifyOutcome::Listed(found.collect::<Result<_>>()?))
}

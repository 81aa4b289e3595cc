//! Deliveries as rows of SQLite: claimed, settled, taken back. Knows the tables of `schema/0003.sql`;
//! how a delivery came to be queued is `notifications`'. Invariants: a row is in the hands of one
//! courier at a time, until it reports or its lease ends; a report about a row that is settled
//! changes nothing; a notification is done with its last delivery.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::base::now::{Moment, Now};
use crate::push::delivery::jobs::{
    Claim, Claimable, Claimed, Delivery, DeliveryEnd, DeliveryJob, DeliveryOutcome, DeliveryReport,
    DeliveryTarget, EXPIRED_PAGE, LaneName, TokenNews, TokenNewsKind, UNCERTAIN, Way,
};
use crate::push::devices::device::{Device, Retired, State};
use crate::store::devices;
use crate::store::notifications::settle_if_over;

/// Of `deliveries.priority`.
const PRIORITIES: u8 = 3;
/// A device's last success is noted to this.
const ACCEPTED_EVERY_MS: u64 = 3_600_000;

/// Does a job in a transaction.
pub fn run(on: &Connection, job: &DeliveryJob) -> rusqlite::Result<DeliveryOutcome> {
    match job {
        DeliveryJob::Begin { courier, now_ms } => begin(on, courier, *now_ms),
        DeliveryJob::Claim(claim) => {
            let claimed = claim_all(on, claim)?;
            Ok(DeliveryOutcome::Claimed(Box::new(claimed)))
        }
        DeliveryJob::Mark { ids, now_ms } => {
            let sql = "UPDATE deliveries SET asked_at = ? WHERE id = ?";
            let mut mark = on.prepare_cached(sql)?;
            for id in ids {
                mark.execute(params![*now_ms as i64, *id as i64])?;
            }
            Ok(DeliveryOutcome::Done)
        }
        DeliveryJob::Settle {
            courier,
            reports,
            now_ms,
        } => settle_all(on, courier, reports, *now_ms),
        DeliveryJob::Expire { now_ms } => expire(on, *now_ms),
        DeliveryJob::KeepPass { name, text } => {
            let sql = "INSERT INTO passes (name, text) VALUES (?1, ?2) \
                       ON CONFLICT (name) DO UPDATE SET text = ?2";
            on.prepare_cached(sql)?.execute([name, text])?;
            Ok(DeliveryOutcome::Done)
        }
    }
}

fn begin(on: &Connection, courier: &str, now_ms: u64) -> rusqlite::Result<DeliveryOutcome> {
    let mut held = on.prepare_cached("SELECT id FROM deliveries WHERE claimed_by = ?")?;
    let held = held.query_map([courier], |row| row.get(0))?;
    let held: Vec<i64> = held.collect::<rusqlite::Result<_>>()?;
    for id in &held {
        take_back(on, *id, now_ms)?;
    }
    let mut passes = on.prepare_cached("SELECT name, text FROM passes")?;
    let passes = passes.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(DeliveryOutcome::Begun {
        released: held.len() as u64,
        passes: passes.collect::<rusqlite::Result<_>>()?,
    })
}

/// Whoever had it in hand is gone, and may have sent it: whether it is queued again.
fn take_back(on: &Connection, id: i64, now_ms: u64) -> rusqlite::Result<bool> {
    let sql = "UPDATE deliveries SET uncertain = uncertain + 1, claimed_by = NULL, \
               claimed_until = NULL, due_at = ?2, \
               state = CASE WHEN asked_at IS NULL THEN 'queued' ELSE 'failed' END, \
               settled_at = CASE WHEN asked_at IS NULL THEN NULL ELSE ?2 END, \
               reason = CASE WHEN asked_at IS NULL THEN reason ELSE ?3 END \
               WHERE id = ?1 AND state = 'queued' RETURNING notification, state = 'queued'";
    let mut update = on.prepare_cached(sql)?;
    let values = params![id, now_ms as i64, UNCERTAIN];
    let taken = update.query_row(values, |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
    });
    let Some((notification, is_queued)) = taken.optional()? else {
        return Ok(false);
    };
    if !is_queued {
        settle_if_over(on, &notification, now_ms)?;
    }
    Ok(is_queued)
}

fn claim_all(on: &Connection, claim: &Claim) -> rusqlite::Result<Claimed> {
    let mut claimed = Claimed::default();
    let mut next: Option<u64> = None;
    let mut name = first_lane(on)?;
    while let Some(lane) = name {
        if let Some(way) = Way::from_word(&lane.1) {
            let lane = LaneName {
                app_id: lane.0.clone(),
                way,
            };
            if let Some(count) = claim.lanes.get(&lane) {
                claim_lane(on, claim, &lane, *count, &mut claimed)?;
                let due = next_due(on, &lane)?;
                next = next.min(due).or(next).or(due);
            }
        }
        name = lane_after(on, &lane)?;
    }
    claimed.next_ms = next;
    Ok(claimed)
}

const LANE: &str = "SELECT app_id, way FROM deliveries INDEXED BY delivery_by_time \
                    WHERE state = 'queued'";

fn first_lane(on: &Connection) -> rusqlite::Result<Option<(String, String)>> {
    let sql = format!("{LANE} ORDER BY app_id, way LIMIT 1");
    let mut first = on.prepare_cached(&sql)?;
    let lane = first.query_row([], |row| Ok((row.get(0)?, row.get(1)?)));
    lane.optional()
}

/// The next lane that something waits in; the rows of this one are not walked through.
fn lane_after(
    on: &Connection,
    (app, way): &(String, String),
) -> rusqlite::Result<Option<(String, String)>> {
    let sql = format!("{LANE} AND (app_id, way) > (?, ?) ORDER BY app_id, way LIMIT 1");
    let mut after = on.prepare_cached(&sql)?;
    let lane = after.query_row([app, way], |row| Ok((row.get(0)?, row.get(1)?)));
    lane.optional()
}

/// When something of the lane is due, in hand or not.
fn next_due(on: &Connection, lane: &LaneName) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT due_at FROM deliveries INDEXED BY delivery_by_time WHERE state = 'queued' \
               AND app_id = ? AND way = ? AND priority = ? ORDER BY due_at LIMIT 1";
    let mut due = on.prepare_cached(sql)?;
    let mut next: Option<u64> = None;
    for priority in 0..PRIORITIES {
        let values = params![lane.app_id, lane.way.word(), priority];
        let at: Option<i64> = due.query_row(values, |row| row.get(0)).optional()?;
        let at = at.map(|at| at as u64);
        next = next.min(at).or(next).or(at);
    }
    Ok(next)
}

struct Found {
    delivery: Delivery,
    device: Option<String>,
    /// Whose device it has to be.
    user: Option<String>,
    /// Its courier has let the lease end.
    left: bool,
}

fn claim_lane(
    on: &Connection,
    claim: &Claim,
    lane: &LaneName,
    count: u32,
    into: &mut Claimed,
) -> rusqlite::Result<()> {
    let sql = "SELECT id, notification, device, address, priority, attempts, uncertain, tried_at, \
               claimed_by IS NOT NULL, user_id FROM deliveries INDEXED BY delivery_by_time \
               WHERE state = 'queued' AND app_id = ? AND way = ? AND priority = ? AND due_at <= ? \
               ORDER BY due_at LIMIT ?";
    let mut due = on.prepare_cached(sql)?;
    let mut room = count;
    for priority in 0..PRIORITIES {
        let now = claim.now_ms as i64;
        let values = params![lane.app_id, lane.way.word(), priority, now, room];
        let found = due.query_map(values, |row| read(row, lane))?;
        let found: Vec<Found> = found.collect::<rusqlite::Result<_>>()?;
        room -= found.len() as u32;
        for one in found {
            claim_one(on, claim, one, into)?;
        }
    }
    Ok(())
}

fn read(row: &Row<'_>, lane: &LaneName) -> rusqlite::Result<Found> {
    let address: Option<String> = row.get(3)?;
    Ok(Found {
        delivery: Delivery {
            id: row.get::<_, i64>(0)? as u64,
            lane: lane.clone(),
            notification: row.get(1)?,
            target: match address {
                Some(address) => DeliveryTarget::Address(address),
                None => DeliveryTarget::Device(None),
            },
            priority: row.get(4)?,
            attempts: row.get(5)?,
            uncertain: row.get(6)?,
            tried_ms: row.get::<_, Option<i64>>(7)?.map(|ms| ms as u64),
        },
        device: row.get(2)?,
        left: row.get(8)?,
        user: row.get(9)?,
    })
}

fn claim_one(
    on: &Connection,
    claim: &Claim,
    found: Found,
    into: &mut Claimed,
) -> rusqlite::Result<()> {
    let Found {
        mut delivery,
        device,
        user,
        left,
    } = found;
    let id = delivery.id as i64;
    if left {
        into.released += 1;
        if !take_back(on, id, claim.now_ms)? {
            return Ok(());
        }
        delivery.uncertain += 1;
    }
    if let (Some(device), DeliveryTarget::Device(to)) = (device, &mut delivery.target) {
        let sql = "SELECT * FROM device_registrations WHERE id = ?";
        let mut one = on.prepare_cached(sql)?;
        let known = one.query_row([&device], devices::read).optional()?;
        let is_his = |device: &Device| user.is_none() || device.profile.user_id == user;
        let known = known.filter(|device| device.state == State::Active && is_his(device));
        if let (Some(device), Way::Device(service)) = (&known, delivery.lane.way)
            && device.service != service
        {
            // It has another token now, and goes another way.
            let sql = "UPDATE deliveries SET way = ? WHERE id = ?";
            on.prepare_cached(sql)?
                .execute(params![device.service.word(), id])?;
            return Ok(());
        }
        *to = known.map(Box::new);
    }
    if !into.specs.contains_key(&delivery.notification) {
        let Some(claimable) = read_claimable(on, &delivery.notification)? else {
            let sql = "UPDATE deliveries SET state = 'failed', settled_at = ?, \
                       reason = 'the notification cannot be read' WHERE id = ?";
            on.prepare_cached(sql)?
                .execute(params![claim.now_ms as i64, id])?;
            return settle_if_over(on, &delivery.notification, claim.now_ms);
        };
        into.specs
            .insert(delivery.notification.clone(), Arc::new(claimable));
    }
    let sql = "UPDATE deliveries SET claimed_by = ?, claimed_until = ?2, due_at = ?2 WHERE id = ?";
    on.prepare_cached(sql)?
        .execute(params![claim.courier, claim.until_ms as i64, id])?;
    into.deliveries.push(delivery);
    Ok(())
}

fn read_claimable(on: &Connection, id: &str) -> rusqlite::Result<Option<Claimable>> {
    let sql = "SELECT spec, expires_at, created_at FROM notifications WHERE id = ?";
    let mut one = on.prepare_cached(sql)?;
    let found = one.query_row([id], |row| {
        let spec: String = row.get(0)?;
        let expires: Option<i64> = row.get(1)?;
        Ok((spec, expires, row.get::<_, i64>(2)?))
    });
    let Some((spec, expires, created)) = found.optional()? else {
        return Ok(None);
    };
    let spec = serde_json::from_str(&spec).ok();
    Ok(spec.map(|spec| Claimable {
        spec,
        expires_ms: expires.map(|ms| ms as u64),
        created_ms: created as u64,
    }))
}

fn settle_all(
    on: &Connection,
    courier: &str,
    reports: &[DeliveryReport],
    now_ms: u64,
) -> rusqlite::Result<DeliveryOutcome> {
    let mut over = BTreeSet::new();
    let mut retired = 0;
    for report in reports {
        if settle(on, courier, report, now_ms)? {
            over.insert(report.notification.as_str());
        }
        if let Some(news) = &report.news {
            retired += u64::from(tell_device(on, news, now_ms)?);
        }
    }
    for notification in over {
        settle_if_over(on, notification, now_ms)?;
    }
    Ok(DeliveryOutcome::Settled { retired })
}

/// Whether it may have been the last of its notification.
fn settle(
    on: &Connection,
    courier: &str,
    report: &DeliveryReport,
    now_ms: u64,
) -> rusqlite::Result<bool> {
    let id = report.id as i64;
    let tried = report.tried_ms.map(|ms| ms as i64);
    match &report.end {
        // Whoever else has it in hand by now: what a provider said is so.
        DeliveryEnd::Settled {
            state,
            reason,
            provider_id,
        } => {
            let sql = "UPDATE deliveries SET state = ?, reason = ?, provider_id = ?, \
                       settled_at = ?, attempts = ?, uncertain = ?, tried_at = ?, \
                       claimed_by = NULL, claimed_until = NULL WHERE id = ? AND state = 'queued'";
            let changed = on.prepare_cached(sql)?.execute(params![
                state.word(),
                reason,
                provider_id,
                now_ms as i64,
                report.attempts,
                report.uncertain,
                tried,
                id
            ])?;
            Ok(changed > 0)
        }
        DeliveryEnd::Again { due_ms, reason } => {
            let sql = "UPDATE deliveries SET due_at = ?, reason = ?, attempts = ?, uncertain = ?, \
                       tried_at = ?, asked_at = NULL, claimed_by = NULL, claimed_until = NULL \
                       WHERE id = ? AND state = 'queued' AND claimed_by = ?";
            let changed = on.prepare_cached(sql)?.execute(params![
                *due_ms as i64,
                reason,
                report.attempts,
                report.uncertain,
                tried,
                id,
                courier
            ])?;
            if changed == 0 {
                return Ok(false);
            }
            cancel_unwanted(on, id, now_ms)
        }
    }
}

/// What was cancelled or acknowledged while a courier had it in hand is not sent again.
fn cancel_unwanted(on: &Connection, id: i64, now_ms: u64) -> rusqlite::Result<bool> {
    let sql = "UPDATE deliveries SET state = 'cancelled', settled_at = ?2, \
               reason = CASE (SELECT state FROM notifications n WHERE n.id = notification) \
                        WHEN 'cancelled' THEN 'cancelled' ELSE 'acknowledged' END \
               WHERE id = ?1 AND EXISTS (SELECT 1 FROM notifications n WHERE n.id = notification \
               AND (n.state = 'cancelled' OR json_extract(n.spec, '$.deliver') = 'reach' \
                    AND EXISTS (SELECT 1 FROM reaches r WHERE r.notification = n.id \
                    AND r.kind = 'user' AND r.name = user_id AND r.acknowledged_at IS NOT NULL)))";
    let changed = on
        .prepare_cached(sql)?
        .execute(params![id, now_ms as i64])?;
    Ok(changed > 0)
}

/// Whether the device is retired by it.
fn tell_device(on: &Connection, news: &TokenNews, now_ms: u64) -> rusqlite::Result<bool> {
    if news.kind == TokenNewsKind::Accepted {
        let sql = "UPDATE device_registrations SET accepted_at = ?1, suspicions = 0 WHERE id = ?2 \
                   AND (suspicions > 0 OR accepted_at IS NULL OR accepted_at <= ?3)";
        let before = now_ms.saturating_sub(ACCEPTED_EVERY_MS) as i64;
        on.prepare_cached(sql)?
            .execute(params![now_ms as i64, news.device, before])?;
        return Ok(false);
    }
    let sql = "SELECT * FROM device_registrations WHERE id = ?";
    let mut one = on.prepare_cached(sql)?;
    let found = one.query_row([&news.device], devices::read).optional()?;
    let Some(device) = found else {
        return Ok(false);
    };
    let mut device = devices::with_topics(on, device)?;
    let now = Now {
        moment: Moment::default(),
        unix_ms: now_ms,
    };
    let was_active = device.state == State::Active;
    match news.kind {
        TokenNewsKind::Accepted => {}
        TokenNewsKind::Dead { since_ms } => {
            device.token_dead(since_ms, news.asked_ms, now);
        }
        // It has another token since.
        _ if device.token_set_ms > news.asked_ms => {}
        TokenNewsKind::Suspect { limit } => {
            device.token_suspect(limit, now);
        }
        TokenNewsKind::Unreadable => device.retire(Retired::Unreadable, now),
    }
    devices::put(on, &device)?;
    Ok(was_active && device.state != State::Active)
}

fn expire(on: &Connection, now_ms: u64) -> rusqlite::Result<DeliveryOutcome> {
    // As the index `notification_by_expiry` has it.
    let sql = "SELECT id FROM notifications WHERE state = 'open' \
               AND coalesce(expires_at, send_at + 2419200000) <= ?1 \
               AND EXISTS (SELECT 1 FROM deliveries v WHERE v.notification = notifications.id \
                           AND v.state = 'queued' AND v.claimed_by IS NULL) LIMIT 50";
    let mut old = on.prepare_cached(sql)?;
    let old = old.query_map([now_ms as i64], |row| row.get::<_, String>(0))?;
    let old: Vec<String> = old.collect::<rusqlite::Result<_>>()?;
    let sql = "UPDATE deliveries SET state = 'expired', settled_at = ?, reason = 'expired' \
               WHERE id IN (SELECT id FROM deliveries WHERE notification = ? AND state = 'queued' \
                            AND claimed_by IS NULL LIMIT ?)";
    let mut end = on.prepare_cached(sql)?;
    let mut room = EXPIRED_PAGE;
    for id in &old {
        room -= end.execute(params![now_ms as i64, id, room])? as u32;
        settle_if_over(on, id, now_ms)?;
        if room == 0 {
            break;
        }
    }
    Ok(DeliveryOutcome::Expired {
        count: u64::from(EXPIRED_PAGE - room),
        more: room == 0,
    })
}

#[cfg(test)]
#[path = "deliveries_tests.rs"]
mod tests;

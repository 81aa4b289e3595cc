//! Deliveries as rows: claimed, settled, taken back. Knows the tables of `schema/0003.sql`;
//! how a delivery came to be queued is `notifications`'. Invariants: a row is in the hands of one
//! courier at a time, until it reports or its lease ends; a report about a row that is settled
//! changes nothing; a notification is done with its last delivery. Where several write, a claim passes
//! over what others are just claiming.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::now::{Moment, Now};
use crate::push::delivery::jobs::{
    Claim, Claimable, Claimed, Delivery, DeliveryEnd, DeliveryJob, DeliveryOutcome, DeliveryReport,
    DeliveryTarget, EXPIRED_PAGE, LaneName, TokenNews, TokenNewsKind, UNCERTAIN, Way,
};
use crate::push::devices::device::{Device, Retired, State};
use crate::store::notifications::{OPEN, OPEN_UNTIL, settle_all_over, settle_if_over};
use crate::store::rows::{Result, Row, Rows, Value, values};
use crate::store::{devices, news};

/// Of `deliveries.priority`.
const PRIORITIES: u8 = 3;
/// The newest of each delivery are kept.
const ATTEMPTS_SHOWN: u32 = 10;
/// A device's last success is noted to this.
const ACCEPTED_EVERY_MS: u64 = 3_600_000;
/// Of what is queued again nobody wants that whose notification was cancelled meanwhile, or whose user has
/// said that he has it.
const CANCEL_UNWANTED: &str = "UPDATE deliveries SET state = 'cancelled', settled_at = ?2, \
    reason = CASE (SELECT state FROM notifications n WHERE n.id = notification) \
             WHEN 'cancelled' THEN 'cancelled' ELSE 'acknowledged' END \
    WHERE id = ?1 AND EXISTS (SELECT 1 FROM notifications n WHERE n.id = notification \
    AND (n.state = 'cancelled' OR n.is_reach \
         AND EXISTS (SELECT 1 FROM reaches r WHERE r.notification = n.id \
         AND r.kind = 'user' AND r.name = user_id AND r.acknowledged_at IS NOT NULL)))";

/// Does a job in a transaction.
pub fn run(on: &dyn Rows, job: &DeliveryJob) -> Result<DeliveryOutcome> {
    match job {
        DeliveryJob::Begin { courier, now_ms } => begin(on, courier, *now_ms),
        DeliveryJob::Claim(claim) => {
            let claimed = claim_all(on, claim)?;
            Ok(DeliveryOutcome::Claimed(Box::new(claimed)))
        }
        DeliveryJob::Mark { ids, now_ms } => {
            let sql = "UPDATE deliveries SET asked_at = ? WHERE id = ?";
            let marks = ids.iter().map(|id| values![*now_ms, *id].to_vec());
            on.execute_each(sql, &marks.collect::<Vec<_>>())?;
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
            on.execute(sql, &values![name, text])?;
            Ok(DeliveryOutcome::Done)
        }
    }
}

fn begin(on: &dyn Rows, courier: &str, now_ms: u64) -> Result<DeliveryOutcome> {
    let sql = format!(
        "SELECT id FROM deliveries WHERE claimed_by = ? ORDER BY id{}",
        on.locked()
    );
    let held = on.query(&sql, &values![courier])?;
    for row in &held {
        take_back(on, row.get(0)?, now_ms)?;
    }
    let passes = on.query("SELECT name, text FROM passes", &[])?;
    let passes = passes.iter().map(|row| Ok((row.get(0)?, row.get(1)?)));
    Ok(DeliveryOutcome::Begun {
        released: held.len() as u64,
        passes: passes.collect::<Result<_>>()?,
    })
}

/// Whoever had it in hand is gone, and may have sent it: whether it is queued again.
fn take_back(on: &dyn Rows, id: i64, now_ms: u64) -> Result<bool> {
    let sql = "UPDATE deliveries SET uncertain = uncertain + 1, claimed_by = NULL, \
               claimed_until = NULL, due_at = ?2, \
               state = CASE WHEN asked_at IS NULL THEN 'queued' ELSE 'failed' END, \
               settled_at = CASE WHEN asked_at IS NULL THEN NULL ELSE CAST(?2 AS BIGINT) END, \
               reason = CASE WHEN asked_at IS NULL THEN reason ELSE ?3 END \
               WHERE id = ?1 AND state = 'queued' RETURNING notification, state = 'queued'";
    let Some(taken) = on.first(sql, &values![id, now_ms, UNCERTAIN])? else {
        return Ok(false);
    };
    let mut is_queued: bool = taken.get(1)?;
    if is_queued {
        is_queued = on.execute(CANCEL_UNWANTED, &values![id, now_ms])? == 0;
    }
    if !is_queued {
        news::note_settled(on, &[id as u64])?;
        let notification: String = taken.get(0)?;
        settle_if_over(on, &notification, now_ms)?;
    }
    Ok(is_queued)
}

fn claim_all(on: &dyn Rows, claim: &Claim) -> Result<Claimed> {
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

fn lane(on: &dyn Rows, after: &str, values: &[Value]) -> Result<Option<(String, String)>> {
    let sql = format!(
        "SELECT app_id, way FROM deliveries{} WHERE state = 'queued' {after} \
         ORDER BY app_id, way LIMIT 1",
        on.by("delivery_by_time")
    );
    let lane = on.first(&sql, values)?;
    lane.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

fn first_lane(on: &dyn Rows) -> Result<Option<(String, String)>> {
    lane(on, "", &[])
}

/// The next lane that something waits in; the rows of this one are not walked through.
fn lane_after(on: &dyn Rows, (app, way): &(String, String)) -> Result<Option<(String, String)>> {
    lane(on, "AND (app_id, way) > (?, ?)", &values![app, way])
}

/// When something of the lane is due, in hand or not.
fn next_due(on: &dyn Rows, lane: &LaneName) -> Result<Option<u64>> {
    let sql = format!(
        "SELECT due_at FROM deliveries{} WHERE state = 'queued' \
         AND app_id = ? AND way = ? AND priority = ? ORDER BY due_at LIMIT 1",
        on.by("delivery_by_time")
    );
    let mut next: Option<u64> = None;
    for priority in 0..PRIORITIES {
        let due = on.first(&sql, &values![&lane.app_id, lane.way.word(), priority])?;
        let at: Option<u64> = due.map(|row| row.get(0)).transpose()?;
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
    on: &dyn Rows,
    claim: &Claim,
    lane: &LaneName,
    count: u32,
    into: &mut Claimed,
) -> Result<()> {
    let sql = format!(
        "SELECT id, notification, device, address, priority, attempts, uncertain, tried_at, \
         claimed_by IS NOT NULL, user_id FROM deliveries{} \
         WHERE state = 'queued' AND app_id = ? AND way = ? AND priority = ? AND due_at <= ? \
         ORDER BY due_at LIMIT ?{}",
        on.by("delivery_by_time"),
        on.free("")
    );
    let mut room = count;
    for priority in 0..PRIORITIES {
        let values = values![&lane.app_id, lane.way.word(), priority, claim.now_ms, room];
        let found = on.query(&sql, &values)?;
        let found = found.iter().map(|row| read(row, lane));
        let found = found.collect::<Result<Vec<_>>>()?;
        room -= found.len() as u32;
        if !found.is_empty() {
            claim_found(on, claim, found, into)?;
        }
    }
    Ok(())
}

fn read(row: &Row, lane: &LaneName) -> Result<Found> {
    let address: Option<String> = row.get(3)?;
    Ok(Found {
        delivery: Delivery {
            id: row.get(0)?,
            lane: lane.clone(),
            notification: row.get(1)?,
            target: match address {
                Some(address) => DeliveryTarget::Address(address),
                None => DeliveryTarget::Device(None),
            },
            priority: row.get(4)?,
            attempts: row.get(5)?,
            uncertain: row.get(6)?,
            tried_ms: row.get(7)?,
        },
        device: row.get(2)?,
        left: row.get(8)?,
        user: row.get(9)?,
    })
}

fn claim_found(
    on: &dyn Rows,
    claim: &Claim,
    mut found: Vec<Found>,
    into: &mut Claimed,
) -> Result<()> {
    let mut taken_back = BTreeSet::new();
    for one in found.iter_mut().filter(|one| one.left) {
        into.released += 1;
        one.delivery.uncertain += 1;
        if !take_back(on, one.delivery.id as i64, claim.now_ms)? {
            taken_back.insert(one.delivery.id);
        }
    }
    found.retain(|one| !taken_back.contains(&one.delivery.id));
    read_specs(on, &found, into)?;
    let devices = read_devices(on, &found)?;
    let (mut claimed, mut moved) = (Vec::new(), Vec::new());
    for one in found {
        let mut delivery = one.delivery;
        let id = delivery.id as i64;
        if let (Some(device), DeliveryTarget::Device(to)) = (one.device, &mut delivery.target) {
            let is_his = |it: &Device| one.user.is_none() || it.profile.user_id == one.user;
            let known = devices.get(&device).cloned();
            let known = known.filter(|it| it.state == State::Active && is_his(it));
            if let (Some(device), Way::Device(service)) = (&known, delivery.lane.way)
                && device.service != service
            {
                // It has another token now, and goes another way.
                moved.push(values![device.service.word(), id].to_vec());
                continue;
            }
            *to = known.map(Box::new);
        }
        if !into.specs.contains_key(&delivery.notification) {
            let sql = "UPDATE deliveries SET state = 'failed', settled_at = ?, \
                       reason = 'the notification cannot be read' WHERE id = ?";
            on.execute(sql, &values![claim.now_ms, id])?;
            news::note_settled(on, &[delivery.id])?;
            settle_if_over(on, &delivery.notification, claim.now_ms)?;
            continue;
        }
        claimed.push(id);
        into.deliveries.push(delivery);
    }
    on.execute_each("UPDATE deliveries SET way = ? WHERE id = ?", &moved)?;
    let sql = format!(
        "UPDATE deliveries SET claimed_by = ?1, claimed_until = ?2, due_at = ?2 WHERE id {}",
        on.among(3)
    );
    on.execute(&sql, &values![&claim.courier, claim.until_ms, claimed])
        .map(|_| ())
}

/// By their ids.
fn read_devices(on: &dyn Rows, found: &[Found]) -> Result<BTreeMap<String, Device>> {
    let ids: Vec<String> = found.iter().filter_map(|one| one.device.clone()).collect();
    let sql = format!(
        "SELECT * FROM device_registrations WHERE id {}",
        on.among(1)
    );
    let rows = on.query(&sql, &values![ids])?;
    let devices = rows.iter().map(|row| {
        let device = devices::read(row)?;
        Ok((device.id.clone(), device))
    });
    devices.collect()
}

/// What the notifications say that can be read, and are not known yet.
fn read_specs(on: &dyn Rows, found: &[Found], into: &mut Claimed) -> Result<()> {
    let ids = found.iter().map(|one| &one.delivery.notification);
    let ids: BTreeSet<&String> = ids.filter(|id| !into.specs.contains_key(*id)).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT id, spec, expires_at, created_at FROM notifications WHERE id {}",
        on.among(1)
    );
    let ids: Vec<String> = ids.into_iter().cloned().collect();
    for row in on.query(&sql, &values![ids])? {
        let spec: String = row.get(1)?;
        if let Ok(spec) = serde_json::from_str(&spec) {
            let claimable = Claimable {
                spec,
                expires_ms: row.get(2)?,
                created_ms: row.get(3)?,
            };
            into.specs.insert(row.get(0)?, Arc::new(claimable));
        }
    }
    Ok(())
}

fn settle_all(
    on: &dyn Rows,
    courier: &str,
    reports: &[DeliveryReport],
    now_ms: u64,
) -> Result<DeliveryOutcome> {
    let mut over = settle(on, reports, now_ms)?;
    over.extend(give_back(on, courier, reports, now_ms)?);
    let retired = tell_devices(on, reports, now_ms)?;
    let over = over.into_iter().map(str::to_string).collect();
    settle_all_over(on, over, now_ms)?;
    Ok(DeliveryOutcome::Settled { retired })
}

/// Those that go nowhere any more; the notifications of which they may have been the last.
fn settle<'a>(
    on: &dyn Rows,
    reports: &'a [DeliveryReport],
    now_ms: u64,
) -> Result<BTreeSet<&'a str>> {
    // Whoever else has it in hand by now: what a provider said is so.
    // Who took it from this courier counted that as uncertain, which stays.
    let sql = "UPDATE deliveries SET state = ?1, reason = ?2, provider_id = ?3, \
               settled_at = ?4, attempts = ?5, tried_at = ?7, \
               uncertain = CASE WHEN uncertain > ?6 THEN uncertain ELSE ?6 END, \
               claimed_by = NULL, claimed_until = NULL WHERE id = ?8 AND state = 'queued'";
    let (mut ends, mut of) = (Vec::new(), Vec::new());
    for report in reports {
        if let DeliveryEnd::Settled {
            state,
            reason,
            provider_id,
        } = &report.end
        {
            let values = values![
                state.word(),
                reason.as_ref(),
                provider_id.as_ref(),
                now_ms,
                report.attempts,
                report.uncertain,
                report.tried_ms,
                report.id,
            ];
            ends.push(values.to_vec());
            of.push(report);
        }
    }
    let changed = on.execute_each(sql, &ends)?;
    let of = where_changed(of, &changed);
    let ids: Vec<u64> = of.iter().map(|report| report.id).collect();
    news::note_settled(on, &ids)?;
    Ok(notifications_of(&of))
}

fn where_changed<'a>(of: Vec<&'a DeliveryReport>, changed: &[u64]) -> Vec<&'a DeliveryReport> {
    let of = of.into_iter().zip(changed);
    of.filter(|(_, changed)| **changed > 0)
        .map(|(of, _)| of)
        .collect()
}

fn notifications_of<'a>(reports: &[&'a DeliveryReport]) -> BTreeSet<&'a str> {
    let of = reports.iter().map(|report| report.notification.as_str());
    of.collect()
}

/// Those that are to be sent again. What was cancelled or acknowledged while a courier had it in hand
/// is not; the notifications of which these may have been the last.
fn give_back<'a>(
    on: &dyn Rows,
    courier: &str,
    reports: &'a [DeliveryReport],
    now_ms: u64,
) -> Result<BTreeSet<&'a str>> {
    let sql = "UPDATE deliveries SET due_at = ?, reason = ?, attempts = ?, uncertain = ?, \
               tried_at = ?, asked_at = NULL, claimed_by = NULL, claimed_until = NULL \
               WHERE id = ? AND state = 'queued' AND claimed_by = ?";
    let (mut agains, mut of) = (Vec::new(), Vec::new());
    for report in reports {
        if let DeliveryEnd::Again { due_ms, reason } = &report.end {
            let values = values![
                *due_ms,
                reason.as_ref(),
                report.attempts,
                report.uncertain,
                report.tried_ms,
                report.id,
                courier,
            ];
            agains.push(values.to_vec());
            of.push(report);
        }
    }
    let changed = on.execute_each(sql, &agains)?;
    let of = where_changed(of, &changed);
    note_attempts(on, &of, now_ms)?;
    let unwanted = of.iter().map(|report| values![report.id, now_ms].to_vec());
    let changed = on.execute_each(CANCEL_UNWANTED, &unwanted.collect::<Vec<_>>())?;
    Ok(notifications_of(&where_changed(of, &changed)))
}

/// Of what has to be tried again, why it had to be this time.
fn note_attempts(on: &dyn Rows, of: &[&DeliveryReport], now_ms: u64) -> Result<()> {
    let (mut tried, mut old) = (Vec::new(), Vec::new());
    for report in of {
        if let DeliveryEnd::Again {
            reason: Some(reason),
            ..
        } = &report.end
            && report.attempts > 0
        {
            tried.push(values![report.id, report.attempts, now_ms, reason].to_vec());
            if let Some(last) = report.attempts.checked_sub(ATTEMPTS_SHOWN) {
                old.push(values![report.id, last].to_vec());
            }
        }
    }
    let sql = "INSERT INTO attempts (delivery, number, at, reason) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (delivery, number) DO UPDATE SET at = ?3, reason = ?4";
    on.execute_each(sql, &tried)?;
    let sql = "DELETE FROM attempts WHERE delivery = ? AND number <= ?";
    on.execute_each(sql, &old).map(|_| ())
}

/// How many devices are retired.
fn tell_devices(on: &dyn Rows, reports: &[DeliveryReport], now_ms: u64) -> Result<u64> {
    let is_good = |news: &TokenNews| news.kind == TokenNewsKind::Accepted;
    let news: Vec<&TokenNews> = reports.iter().filter_map(|it| it.news.as_ref()).collect();
    let mut retired = 0;
    for run in news.chunk_by(|one, next| is_good(one) && is_good(next)) {
        if is_good(run[0]) {
            note_good(on, run, now_ms)?;
        } else {
            retired += u64::from(tell_device(on, run[0], now_ms)?);
        }
    }
    Ok(retired)
}

fn note_good(on: &dyn Rows, news: &[&TokenNews], now_ms: u64) -> Result<()> {
    // In one order, so that nobody waits for somebody who waits.
    let devices: BTreeSet<&String> = news.iter().map(|news| &news.device).collect();
    let sql = "UPDATE device_registrations SET accepted_at = ?1, suspicions = 0 WHERE id = ?2 \
               AND (suspicions > 0 OR accepted_at IS NULL OR accepted_at <= ?3)";
    let before = now_ms.saturating_sub(ACCEPTED_EVERY_MS);
    let notes = devices.into_iter();
    let notes = notes.map(|device| values![now_ms, device, before].to_vec());
    on.execute_each(sql, &notes.collect::<Vec<_>>()).map(|_| ())
}

/// Whether the device is retired by it.
fn tell_device(on: &dyn Rows, news: &TokenNews, now_ms: u64) -> Result<bool> {
    let Some(mut device) = devices::find_by_id(on, &news.device)? else {
        return Ok(false);
    };
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
    let retired = was_active && device.state != State::Active;
    if retired {
        news::note_retired(on, &device)?;
    }
    Ok(retired)
}

fn expire(on: &dyn Rows, now_ms: u64) -> Result<DeliveryOutcome> {
    let sql = format!(
        "SELECT id FROM notifications{} WHERE state = 'open' AND {OPEN_UNTIL} <= ?1 \
         AND EXISTS (SELECT 1 FROM deliveries v{} WHERE v.notification = notifications.id \
                     AND v.{OPEN} AND v.state = 'queued' AND v.claimed_by IS NULL) LIMIT 50{}",
        on.by("notification_open"),
        on.by("delivery_open"),
        on.free("")
    );
    let old = on.query(&sql, &values![now_ms])?;
    let sql = format!(
        "UPDATE deliveries SET state = 'expired', settled_at = ?, reason = 'expired' \
         WHERE id IN (SELECT id FROM deliveries{} WHERE notification = ? AND {OPEN} \
                      AND state = 'queued' AND claimed_by IS NULL LIMIT ?{}) RETURNING id",
        on.by("delivery_open"),
        on.free("")
    );
    let mut room = EXPIRED_PAGE;
    for row in &old {
        let id: String = row.get(0)?;
        let ended = on.query(&sql, &values![now_ms, &id, room])?;
        let ended = ended.iter().map(|row| row.get(0));
        let ended = ended.collect::<Result<Vec<u64>>>()?;
        room -= ended.len() as u32;
        news::note_settled(on, &ended)?;
        settle_if_over(on, &id, now_ms)?;
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

//! Notifications as rows of SQLite: accepted, begun, acknowledged, cancelled, settled, removed. Knows
//! the tables of `schema/0003.sql`; of deliveries only what happens before they are queued, and that
//! those which nobody has in hand can be taken back. Invariants: what waits for its time has a time
//! in an index, so that nothing is forgotten however often its keeper dies; a row that cannot be read
//! ends its own notification and nobody else's.

mod finding;
mod showing;

use rusqlite::{Connection, OptionalExtension, params};

use crate::push::notify::jobs::{
    Accepted, Due, LiveOrder, New, NotifyJob, NotifyOutcome, ORDER_AGAIN_MS, ORDERS_MAX, PAGE,
    Standing, Whom,
};
use crate::push::notify::spec::{Deliver, Spec};
use crate::push::providers::note::Priority;

/// Notifications that begin in one page; each may be for many users.
const BEGIN: u32 = 10;
/// Notifications whose devices are looked for at the same time, so that a large one keeps nobody
/// waiting.
const EXPAND: u32 = 8;
/// Deliveries that are removed in one page.
const REMOVE: u32 = 2_000;

/// What of a notification's row its reaching needs.
pub(super) struct Head {
    id: String,
    app_id: String,
    state: String,
    priority: u8,
    spec: Spec,
}

/// Does a job in a transaction.
pub fn run(on: &Connection, job: &NotifyJob) -> rusqlite::Result<NotifyOutcome> {
    match job {
        NotifyJob::Accept(new) => accept(on, new).map(NotifyOutcome::Accepted),
        NotifyJob::Reached {
            id,
            reached,
            now_ms,
        } => take_reached(on, id, reached, *now_ms),
        NotifyJob::Answered { id, answer } => {
            let sql = "UPDATE notifications SET answer = ? WHERE id = ?";
            on.prepare_cached(sql)?.execute([answer, id])?;
            Ok(NotifyOutcome::Done)
        }
        NotifyJob::Acknowledge {
            app_id,
            id,
            user_id,
            now_ms,
        } => acknowledge(on, (app_id, id), user_id, *now_ms),
        NotifyJob::Due { now_ms } => do_due(on, *now_ms).map(NotifyOutcome::Due),
        NotifyJob::Show {
            app_id,
            id,
            after,
            limit,
        } => showing::show(on, (app_id, id), *after, *limit),
        NotifyJob::List {
            app_id,
            state,
            before,
            limit,
        } => showing::list(on, app_id, (state.as_deref(), before.as_deref()), *limit),
        NotifyJob::Cancel { app_id, id, now_ms } => cancel(on, (app_id, id), *now_ms),
        NotifyJob::Retry { app_id, id, now_ms } => retry(on, (app_id, id), *now_ms),
        NotifyJob::Tidy {
            settled_before_ms,
            after,
            now_ms,
        } => tidy(on, *settled_before_ms, after, *now_ms),
    }
}

/// Whether there are any.
pub fn are_there(on: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM notifications)";
    on.query_row(sql, [], |row| row.get(0))
}

fn priority(spec: &Spec) -> u8 {
    match spec.note.priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

fn accept(on: &Connection, new: &New) -> rusqlite::Result<Accepted> {
    if let Some((key, print)) = &new.idempotency {
        let sql = "SELECT id, fingerprint, answer FROM notifications \
                   WHERE app_id = ? AND idempotency_key = ?";
        let mut known = on.prepare_cached(sql)?;
        let known = known.query_row([&new.app_id, key], |row| {
            let same = row.get::<_, Option<String>>(1)?.as_ref() == Some(print);
            Ok((same, row.get(0)?, row.get(2)?))
        });
        match known.optional()? {
            Some((true, id, answer)) => return Ok(Accepted::Again(id, answer)),
            Some((false, ..)) => return Ok(Accepted::Conflict),
            None => {}
        }
    }
    let sql = "INSERT INTO notifications (id, app_id, idempotency_key, fingerprint, sender, spec, \
               created_at, send_at, expires_at, priority, state) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'scheduled')";
    let kept = serde_json::to_string(&new.spec);
    let kept = kept.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let (key, print) = new.idempotency.clone().unzip();
    on.prepare_cached(sql)?.execute(params![
        new.id,
        new.app_id,
        key,
        print,
        new.sender,
        kept,
        new.now_ms as i64,
        new.send_at_ms as i64,
        new.expires_ms.map(|ms| ms as i64),
        priority(&new.spec),
    ])?;
    if new.send_at_ms > new.now_ms {
        return Ok(Accepted::Fresh(Vec::new()));
    }
    let head = Head {
        id: new.id.clone(),
        app_id: new.app_id.clone(),
        state: "scheduled".to_string(),
        priority: priority(&new.spec),
        spec: new.spec.clone(),
    };
    begin(on, &head, new.now_ms).map(Accepted::Fresh)
}

/// The time of a notification has come: devices of its users are found, orders and further devices
/// are due.
fn begin(on: &Connection, head: &Head, now_ms: u64) -> rusqlite::Result<Vec<(Whom, Standing)>> {
    let spec = &head.spec;
    let is_live = spec.deliver.is_live();
    let sql = "INSERT OR IGNORE INTO reaches \
               (notification, kind, name, orders, due_at, pushed_at) VALUES (?, ?, ?, ?, ?, ?)";
    let mut insert = on.prepare_cached(sql)?;
    let mut standings = Vec::new();
    for whom in spec.whom() {
        let (kind, name) = columns(&whom);
        let due = is_live.then_some((now_ms + ORDER_AGAIN_MS) as i64);
        let is_pushed = kind == "user" && matches!(spec.deliver, Deliver::Push | Deliver::Both);
        let pushed = is_pushed.then_some(now_ms as i64);
        insert.execute(params![
            head.id,
            kind,
            name,
            u32::from(is_live),
            due,
            pushed
        ])?;
        let mut standing = Standing::default();
        if let Whom::User(user) = &whom {
            let found = finding::hold_or_queue(on, head, user, now_ms)?;
            match spec.deliver {
                Deliver::Reach => standing.held = found,
                _ => standing.queued = found,
            }
        }
        standings.push((whom, standing));
    }
    finding::queue_addresses(on, head, now_ms)?;
    let more = spec.deliver.is_push() && !spec.to.steps().is_empty();
    let state = if more { "expanding" } else { "open" };
    set_state(on, &head.id, state)?;
    settle_if_over(on, &head.id, now_ms)?;
    Ok(standings)
}

fn columns(whom: &Whom) -> (&'static str, &str) {
    match whom {
        Whom::User(id) => ("user", id),
        Whom::Channel(name) => ("channel", name),
    }
}

fn set_state(on: &Connection, id: &str, state: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE notifications SET state = ? WHERE id = ?";
    on.prepare_cached(sql)?.execute([state, id])?;
    Ok(())
}

/// The notification, unless there is none. One that cannot be read is ended.
fn head(on: &Connection, id: &str, now_ms: u64) -> rusqlite::Result<Option<Head>> {
    let sql = "SELECT app_id, state, priority, spec FROM notifications WHERE id = ?";
    let mut found = on.prepare_cached(sql)?;
    let found = found.query_row([id], |row| {
        let spec: String = row.get(3)?;
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, spec))
    });
    let Some((app_id, state, priority, spec)) = found.optional()? else {
        return Ok(None);
    };
    let Ok(spec) = serde_json::from_str(&spec) else {
        end(
            on,
            id,
            "cancelled",
            "the notification cannot be read",
            now_ms,
        )?;
        return Ok(None);
    };
    Ok(Some(Head {
        id: id.to_string(),
        app_id,
        state,
        priority,
        spec,
    }))
}

fn take_reached(
    on: &Connection,
    id: &str,
    reached: &[(Whom, u32)],
    now_ms: u64,
) -> rusqlite::Result<NotifyOutcome> {
    let Some(head) = head(on, id, now_ms)? else {
        return Ok(NotifyOutcome::Missing);
    };
    let sql = "UPDATE reaches SET live_at = ?, connections = ?, due_at = NULL \
               WHERE notification = ? AND kind = ? AND name = ? AND live_at IS NULL \
               RETURNING acknowledged_at IS NOT NULL";
    let mut update = on.prepare_cached(sql)?;
    let later =
        "UPDATE reaches SET due_at = ? WHERE notification = ? AND kind = 'user' AND name = ?";
    let mut later = on.prepare_cached(later)?;
    let waits = head.spec.deliver == Deliver::Reach && head.state != "cancelled";
    let mut standings = Vec::new();
    for (whom, connections) in reached {
        let (kind, name) = columns(whom);
        let values = params![now_ms as i64, connections, id, kind, name];
        let fresh: Option<bool> = update.query_row(values, |row| row.get(0)).optional()?;
        if let (Whom::User(user), Some(false), true) = (whom, fresh, waits) {
            match connections {
                0 => {
                    finding::push(on, &head, user, now_ms)?;
                }
                _ => {
                    let due = (now_ms + head.spec.ack_ms) as i64;
                    later.execute(params![due, id, user])?;
                }
            }
        }
        let mut standing = finding::standing(on, id, whom)?;
        standing.live = Some(*connections);
        standings.push((whom.clone(), standing));
    }
    settle_if_over(on, id, now_ms)?;
    Ok(NotifyOutcome::Reached(standings))
}

fn acknowledge(
    on: &Connection,
    (app_id, id): (&str, &str),
    user_id: &str,
    now_ms: u64,
) -> rusqlite::Result<NotifyOutcome> {
    let sql = "UPDATE reaches SET acknowledged_at = coalesce(acknowledged_at, ?), due_at = NULL \
               WHERE notification = (SELECT id FROM notifications WHERE id = ? AND app_id = ?) \
               AND kind = 'user' AND name = ?";
    let values = params![now_ms as i64, id, app_id, user_id];
    if on.prepare_cached(sql)?.execute(values)? == 0 {
        return Ok(NotifyOutcome::Missing);
    }
    let Some(head) = head(on, id, now_ms)? else {
        return Ok(NotifyOutcome::Missing);
    };
    let mut taken = 0;
    if head.spec.deliver == Deliver::Reach {
        taken = take_back(on, id, Some(user_id), "acknowledged", now_ms)?;
    }
    settle_if_over(on, id, now_ms)?;
    Ok(NotifyOutcome::Changed(taken))
}

/// Cancels the deliveries of a notification, or of one of its users, that nobody has in hand.
fn take_back(
    on: &Connection,
    id: &str,
    user_id: Option<&str>,
    reason: &str,
    now_ms: u64,
) -> rusqlite::Result<u64> {
    let sql = "UPDATE deliveries SET state = 'cancelled', reason = ?1, settled_at = ?2 \
               WHERE notification = ?3 AND (?4 IS NULL OR user_id = ?4) \
               AND (state = 'held' OR \
                    state = 'queued' AND (claimed_until IS NULL OR claimed_until <= ?2))";
    let values = params![reason, now_ms as i64, id, user_id];
    Ok(on.prepare_cached(sql)?.execute(values)? as u64)
}

/// Ends a notification before it was done; how many deliveries that took back.
fn end(on: &Connection, id: &str, state: &str, reason: &str, now_ms: u64) -> rusqlite::Result<u64> {
    let sql = "UPDATE notifications SET state = ?, settled_at = ? WHERE id = ?";
    on.prepare_cached(sql)?
        .execute(params![state, now_ms as i64, id])?;
    let sql = "UPDATE reaches SET due_at = NULL WHERE notification = ?";
    on.prepare_cached(sql)?.execute([id])?;
    take_back(on, id, None, reason, now_ms)
}

fn state_of(on: &Connection, (app_id, id): (&str, &str)) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT state FROM notifications WHERE id = ? AND app_id = ?";
    let mut found = on.prepare_cached(sql)?;
    found.query_row([id, app_id], |row| row.get(0)).optional()
}

fn cancel(on: &Connection, name: (&str, &str), now_ms: u64) -> rusqlite::Result<NotifyOutcome> {
    match state_of(on, name)?.as_deref() {
        None => Ok(NotifyOutcome::Missing),
        Some("done" | "cancelled" | "expired") => Ok(NotifyOutcome::Changed(0)),
        Some(_) => end(on, name.1, "cancelled", "cancelled", now_ms).map(NotifyOutcome::Changed),
    }
}

fn retry(on: &Connection, name: (&str, &str), now_ms: u64) -> rusqlite::Result<NotifyOutcome> {
    if state_of(on, name)?.is_none() {
        return Ok(NotifyOutcome::Missing);
    }
    let sql = "UPDATE deliveries SET state = 'queued', due_at = ?, settled_at = NULL, \
               reason = NULL, attempts = 0, uncertain = 0, tried_at = NULL, asked_at = NULL \
               WHERE notification = ? AND state = 'failed'";
    let queued = on
        .prepare_cached(sql)?
        .execute(params![now_ms as i64, name.1])?;
    if queued > 0 {
        let sql = "UPDATE notifications SET state = 'open', settled_at = NULL \
                   WHERE id = ? AND state IN ('done', 'cancelled')";
        on.prepare_cached(sql)?.execute([name.1])?;
    }
    Ok(NotifyOutcome::Changed(queued as u64))
}

/// Whoever settles a delivery calls this afterwards: a notification of which nothing is left to do is
/// done.
pub fn settle_if_over(on: &Connection, id: &str, now_ms: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE notifications SET state = 'done', settled_at = ?2 \
               WHERE id = ?1 AND state = 'open' \
               AND NOT EXISTS (SELECT 1 FROM deliveries \
                               WHERE notification = ?1 AND state IN ('held', 'queued')) \
               AND NOT EXISTS (SELECT 1 FROM reaches \
                               WHERE notification = ?1 AND due_at IS NOT NULL)";
    on.prepare_cached(sql)?
        .execute(params![id, now_ms as i64])?;
    Ok(())
}

fn do_due(on: &Connection, now_ms: u64) -> rusqlite::Result<Due> {
    let mut due = Due::default();
    let mut full = begin_due(on, now_ms, &mut due)?;
    full |= finding::expand_due(on, EXPAND, now_ms, &mut due)?;
    full |= reach_due(on, now_ms, &mut due)?;
    let sql = "SELECT min(at) FROM (\
               SELECT min(send_at) AS at FROM notifications WHERE state = 'scheduled' \
               UNION ALL SELECT min(due_at) FROM reaches WHERE due_at IS NOT NULL)";
    let next: Option<i64> = on.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    due.next_ms = match full {
        true => Some(now_ms),
        false => next.map(|ms| ms as u64),
    };
    Ok(due)
}

/// Whether there may be more.
fn begin_due(on: &Connection, now_ms: u64, due: &mut Due) -> rusqlite::Result<bool> {
    let sql = "SELECT id, expires_at FROM notifications \
               WHERE state = 'scheduled' AND send_at <= ? ORDER BY send_at LIMIT ?";
    let mut found = on.prepare_cached(sql)?;
    let found = found.query_map(params![now_ms as i64, BEGIN], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    let found: Vec<_> = found.collect::<rusqlite::Result<_>>()?;
    for (id, expires) in &found {
        if expires.is_some_and(|at| at as u64 <= now_ms) {
            end(on, id, "expired", "expired", now_ms)?;
            continue;
        }
        let Some(head) = head(on, id, now_ms)? else {
            continue;
        };
        let standings = begin(on, &head, now_ms)?;
        due.queued += standings
            .iter()
            .map(|(_, it)| u64::from(it.queued))
            .sum::<u64>();
        if head.spec.deliver.is_live() && !standings.is_empty() {
            let whom = standings.into_iter().map(|(whom, _)| whom).collect();
            let order = LiveOrder::new(id, &head.app_id, &head.spec, whom);
            due.orders.push((order, head.spec.ack_ms));
        }
    }
    Ok(found.len() == BEGIN as usize)
}

/// Events that nobody has said anything about go out again; devices get their turn where nobody has
/// acknowledged.
fn reach_due(on: &Connection, now_ms: u64, due: &mut Due) -> rusqlite::Result<bool> {
    let sql = "SELECT notification, kind, name, live_at IS NULL, orders FROM reaches \
               WHERE due_at <= ? ORDER BY due_at LIMIT ?";
    let mut found = on.prepare_cached(sql)?;
    let found = found.query_map(params![now_ms as i64, PAGE], |row| {
        let name: String = row.get(2)?;
        let whom = match row.get::<_, String>(1)?.as_str() {
            "user" => Whom::User(name),
            _ => Whom::Channel(name),
        };
        let unheard: bool = row.get(3)?;
        let again = unheard && row.get::<_, u32>(4)? < ORDERS_MAX;
        Ok((row.get::<_, String>(0)?, whom, again))
    })?;
    let found: Vec<(String, Whom, bool)> = found.collect::<rusqlite::Result<_>>()?;
    let full = found.len() == PAGE as usize;
    let mut by_id = std::collections::BTreeMap::<String, Vec<(Whom, bool)>>::new();
    for (id, whom, again) in found {
        by_id.entry(id).or_default().push((whom, again));
    }
    let again_sql = "UPDATE reaches SET orders = orders + 1, due_at = ? \
                     WHERE notification = ? AND kind = ? AND name = ?";
    let mut order_again = on.prepare_cached(again_sql)?;
    for (id, whom) in by_id {
        let Some(head) = head(on, &id, now_ms)? else {
            continue;
        };
        let mut ordered = Vec::new();
        for (whom, again) in whom {
            let (kind, name) = columns(&whom);
            let next = again.then_some((now_ms + ORDER_AGAIN_MS) as i64);
            order_again.execute(params![next, id, kind, name])?;
            match &whom {
                _ if again => ordered.push(whom),
                Whom::User(user) if head.spec.deliver == Deliver::Reach => {
                    due.queued += u64::from(finding::push(on, &head, user, now_ms)?);
                }
                _ => {}
            }
        }
        if !ordered.is_empty() {
            let order = LiveOrder::new(&id, &head.app_id, &head.spec, ordered);
            due.orders.push((order, head.spec.ack_ms));
        }
        settle_if_over(on, &id, now_ms)?;
    }
    Ok(full)
}

fn tidy(
    on: &Connection,
    settled_before_ms: u64,
    after: &str,
    now_ms: u64,
) -> rusqlite::Result<NotifyOutcome> {
    let sql = "SELECT id FROM notifications WHERE settled_at < ? ORDER BY settled_at LIMIT ?";
    let mut old = on.prepare_cached(sql)?;
    let old = old.query_map(params![settled_before_ms as i64, PAGE], |row| row.get(0))?;
    let old: Vec<String> = old.collect::<rusqlite::Result<_>>()?;
    let (mut room, mut removed) = (REMOVE, 0);
    let sql = "DELETE FROM deliveries WHERE id IN \
               (SELECT id FROM deliveries WHERE notification = ? LIMIT ?)";
    let mut shrink = on.prepare_cached(sql)?;
    for id in &old {
        room -= shrink.execute(params![id, room])? as u32;
        if room == 0 {
            break;
        }
        on.prepare_cached("DELETE FROM notifications WHERE id = ?")?
            .execute([id])?;
        removed += 1;
    }
    let sql = "SELECT id FROM notifications WHERE state = 'open' AND id > ? ORDER BY id LIMIT ?";
    let mut open = on.prepare_cached(sql)?;
    let open = open.query_map(params![after, PAGE], |row| row.get(0))?;
    let open: Vec<String> = open.collect::<rusqlite::Result<_>>()?;
    for id in &open {
        settle_if_over(on, id, now_ms)?;
    }
    let more = room == 0 || old.len() == PAGE as usize;
    let after = match (open.len() == PAGE as usize, open.last()) {
        (true, Some(last)) => Some(last.clone()),
        _ => more.then(|| after.to_string()),
    };
    Ok(NotifyOutcome::Tidied { removed, after })
}

#[cfg(test)]
mod tests;

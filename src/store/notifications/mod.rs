//! Notifications as rows: accepted, begun, acknowledged, cancelled, settled, removed. Knows
//! the tables of `schema/0003.sql`; of deliveries only what happens before they are queued, and that
//! those which nobody has in hand can be taken back. Where several write, whoever changes anything of a
//! notification has its row locked, and what is due is taken by whoever locks it first. Invariants: what waits for its time has a time
//! in an index, so that nothing is forgotten however often its keeper dies; a row that cannot be read
//! ends its own notification and nobody else's.

mod finding;
mod showing;

use crate::push::notify::jobs::{
    Accepted, Due, LiveOrder, New, NotifyJob, NotifyOutcome, ORDER_AGAIN_MS, ORDERS_MAX, OpenPlace,
    PAGE, Standing, Whom,
};
use crate::push::notify::spec::{Deliver, Spec};
use crate::push::providers::note::Priority;
use crate::store::rows::{Result, Row, Rows, Value, damaged, values};

/// Notifications that begin in one page; each may be for many users.
const BEGIN: u32 = 10;
/// Notifications whose devices are looked for at the same time, so that a large one keeps nobody
/// waiting.
const EXPAND: u32 = 8;
/// Deliveries that are removed in one page.
const REMOVE: u32 = 2_000;

/// Of a delivery that is not settled, as the index `delivery_open` has it.
pub const OPEN: &str = "state IN ('held', 'queued')";
/// Until when a notification is kept open, as the index `notification_open` has it. What names no end is
/// kept for 28 days.
pub const OPEN_UNTIL: &str = "coalesce(expires_at, send_at + 2419200000)";

/// What others are just doing is looked at again after this.
const OTHERS_MS: u64 = 200;

/// What of a notification's row its reaching needs.
pub(super) struct Head {
    id: String,
    app_id: String,
    state: String,
    priority: u8,
    spec: Spec,
}

/// Does a job in a transaction.
pub fn run(on: &dyn Rows, job: &NotifyJob) -> Result<NotifyOutcome> {
    match job {
        NotifyJob::Accept(new) => accept(on, new).map(NotifyOutcome::Accepted),
        NotifyJob::Reached {
            id,
            reached,
            now_ms,
        } => take_reached(on, id, reached, *now_ms),
        NotifyJob::Answered { id, answer } => {
            let sql = "UPDATE notifications SET answer = ? WHERE id = ?";
            on.execute(sql, &values![answer, id])?;
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
pub fn are_there(on: &dyn Rows) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM notifications)";
    let there = on.first(sql, &[])?;
    there.map_or(Ok(false), |row| row.get(0))
}

fn priority(spec: &Spec) -> u8 {
    match spec.note.priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

/// Whether an acknowledgement makes devices superfluous.
fn is_reach(spec: &Spec) -> bool {
    spec.deliver == Deliver::Reach
}

fn accept(on: &dyn Rows, new: &New) -> Result<Accepted> {
    if let Some((key, print)) = &new.idempotency {
        let sql = "SELECT id, fingerprint, answer FROM notifications \
                   WHERE app_id = ? AND idempotency_key = ?";
        if let Some(known) = on.first(sql, &values![&new.app_id, key])? {
            let is_same = known.get::<Option<String>>(1)?.as_ref() == Some(print);
            return match is_same {
                true => Ok(Accepted::Again(known.get(0)?, known.get(2)?)),
                false => Ok(Accepted::Conflict),
            };
        }
    }
    let sql = "INSERT INTO notifications (id, app_id, idempotency_key, fingerprint, sender, spec, \
               is_reach, created_at, send_at, expires_at, priority, state) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let is_due = new.send_at_ms <= new.now_ms;
    let state = match is_due {
        true => begun(&new.spec),
        false => "scheduled",
    };
    let kept = serde_json::to_string(&new.spec);
    let kept = kept.map_err(|_| damaged("spec"))?;
    let (key, print) = new.idempotency.clone().unzip();
    let values = values![
        &new.id,
        &new.app_id,
        key,
        print,
        &new.sender,
        kept,
        is_reach(&new.spec),
        new.now_ms,
        new.send_at_ms,
        new.expires_ms,
        priority(&new.spec),
        state,
    ];
    on.execute(sql, &values)?;
    if !is_due {
        return Ok(Accepted::Fresh(Vec::new()));
    }
    let head = Head {
        id: new.id.clone(),
        app_id: new.app_id.clone(),
        state: state.to_string(),
        priority: priority(&new.spec),
        spec: new.spec.clone(),
    };
    begin(on, &head, new.now_ms).map(Accepted::Fresh)
}

/// The state of a notification whose time has come: whether there may be more devices than those of its
/// users.
fn begun(spec: &Spec) -> &'static str {
    match spec.deliver.is_push() && !spec.to.steps().is_empty() {
        true => "expanding",
        false => "open",
    }
}

/// The time of a notification has come, and its state says so: devices of its users are found, orders
/// are due.
fn begin(on: &dyn Rows, head: &Head, now_ms: u64) -> Result<Vec<(Whom, Standing)>> {
    let spec = &head.spec;
    let is_live = spec.deliver.is_live();
    let sql = "INSERT INTO reaches (notification, kind, name, orders, due_at, pushed_at) \
               VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (notification, kind, name) DO NOTHING";
    let all = spec.whom();
    let rows = all.iter().map(|whom| {
        let (kind, name) = columns(whom);
        let due = is_live.then_some(now_ms + ORDER_AGAIN_MS);
        let is_pushed = kind == "user" && matches!(spec.deliver, Deliver::Push | Deliver::Both);
        let pushed = is_pushed.then_some(now_ms);
        values![&head.id, kind, name, u32::from(is_live), due, pushed].to_vec()
    });
    on.execute_each(sql, &rows.collect::<Vec<_>>())?;
    let users: Vec<&str> = all.iter().filter_map(user_of).collect();
    let mut found = finding::hold_or_queue(on, head, &users, now_ms)?.into_iter();
    let standings = all.iter().map(|whom| {
        let count = user_of(whom).and_then(|_| found.next()).unwrap_or(0);
        let (held, queued) = match spec.deliver {
            Deliver::Reach => (count, 0),
            _ => (0, count),
        };
        let live = None;
        (whom.clone(), Standing { live, held, queued })
    });
    let standings: Vec<_> = standings.collect();
    let addresses = finding::queue_addresses(on, head, now_ms)?;
    let found = standings.iter().any(|(_, it)| it.held + it.queued > 0);
    let is_ordered = is_live && !standings.is_empty();
    // Most have something to do, and need not be looked through for it.
    if !found && !is_ordered && addresses == 0 {
        settle_if_over(on, &head.id, now_ms)?;
    }
    Ok(standings)
}

fn user_of(whom: &Whom) -> Option<&str> {
    match whom {
        Whom::User(id) => Some(id),
        Whom::Channel(_) => None,
    }
}

fn columns(whom: &Whom) -> (&'static str, &str) {
    match whom {
        Whom::User(id) => ("user", id),
        Whom::Channel(name) => ("channel", name),
    }
}

fn set_state(on: &dyn Rows, id: &str, state: &str) -> Result<()> {
    let sql = "UPDATE notifications SET state = ? WHERE id = ?";
    on.execute(sql, &values![state, id]).map(|_| ())
}

/// The notification, unless there is none. One that cannot be read is ended.
fn head(on: &dyn Rows, id: &str, now_ms: u64) -> Result<Option<Head>> {
    let sql = format!(
        "SELECT app_id, state, priority, spec FROM notifications WHERE id = ?{}",
        on.locked()
    );
    let Some(row) = on.first(&sql, &values![id])? else {
        return Ok(None);
    };
    let spec: String = row.get(3)?;
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
        app_id: row.get(0)?,
        state: row.get(1)?,
        priority: row.get(2)?,
        spec,
    }))
}

fn take_reached(
    on: &dyn Rows,
    id: &str,
    reached: &[(Whom, u32)],
    now_ms: u64,
) -> Result<NotifyOutcome> {
    let Some(head) = head(on, id, now_ms)? else {
        return Ok(NotifyOutcome::Missing);
    };
    let sql = "UPDATE reaches SET live_at = ?, connections = ?, due_at = NULL \
               WHERE notification = ? AND kind = ? AND name = ? AND live_at IS NULL \
               RETURNING acknowledged_at IS NOT NULL";
    let later =
        "UPDATE reaches SET due_at = ? WHERE notification = ? AND kind = 'user' AND name = ?";
    let waits = is_reach(&head.spec) && head.state != "cancelled";
    let mut standings = Vec::new();
    for (whom, connections) in reached {
        let (kind, name) = columns(whom);
        let fresh = on.first(sql, &values![now_ms, *connections, id, kind, name])?;
        let fresh: Option<bool> = fresh.map(|row| row.get(0)).transpose()?;
        if let (Whom::User(user), Some(false), true) = (whom, fresh, waits) {
            match connections {
                0 => {
                    finding::push(on, &head, user, now_ms)?;
                }
                _ => {
                    let due = now_ms + head.spec.ack_ms;
                    on.execute(later, &values![due, id, user])?;
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
    on: &dyn Rows,
    (app_id, id): (&str, &str),
    user_id: &str,
    now_ms: u64,
) -> Result<NotifyOutcome> {
    let Some(head) = head(on, id, now_ms)?.filter(|head| head.app_id == app_id) else {
        return Ok(NotifyOutcome::Missing);
    };
    let sql = "UPDATE reaches SET acknowledged_at = coalesce(acknowledged_at, ?), due_at = NULL \
               WHERE notification = ? AND kind = 'user' AND name = ?";
    if on.execute(sql, &values![now_ms, id, user_id])? == 0 {
        return Ok(NotifyOutcome::Missing);
    }
    let mut taken = 0;
    if is_reach(&head.spec) {
        taken = take_back(on, id, Some(user_id), "acknowledged", now_ms)?;
    }
    settle_if_over(on, id, now_ms)?;
    Ok(NotifyOutcome::Changed(taken))
}

/// Cancels the deliveries of a notification, or of one of its users, that nobody has in hand. Who let
/// his lease end may have sent it.
fn take_back(
    on: &dyn Rows,
    id: &str,
    user_id: Option<&str>,
    reason: &str,
    now_ms: u64,
) -> Result<u64> {
    let mut values = values![reason, now_ms, id].to_vec();
    values.extend(user_id.map(Value::from));
    let sql = format!(
        "UPDATE deliveries{} SET state = 'cancelled', reason = ?1, settled_at = ?2, \
         uncertain = uncertain + CASE WHEN claimed_by IS NULL THEN 0 ELSE 1 END, \
         claimed_by = NULL, claimed_until = NULL \
         WHERE notification = ?3{} AND {OPEN} \
         AND (state = 'held' OR claimed_until IS NULL OR claimed_until <= ?2)",
        on.by("delivery_open"),
        user_id.map_or("", |_| " AND user_id = ?4"),
    );
    on.execute(&sql, &values)
}

/// Ends a notification before it was done; how many deliveries that took back.
fn end(on: &dyn Rows, id: &str, state: &str, reason: &str, now_ms: u64) -> Result<u64> {
    let sql = "UPDATE notifications SET state = ?, settled_at = ? WHERE id = ?";
    on.execute(sql, &values![state, now_ms, id])?;
    let sql = "UPDATE reaches SET due_at = NULL WHERE notification = ?";
    on.execute(sql, &values![id])?;
    take_back(on, id, None, reason, now_ms)
}

fn state_of(on: &dyn Rows, (app_id, id): (&str, &str)) -> Result<Option<String>> {
    let sql = format!(
        "SELECT state FROM notifications WHERE id = ? AND app_id = ?{}",
        on.locked()
    );
    let found = on.first(&sql, &values![id, app_id])?;
    found.map(|row| row.get(0)).transpose()
}

fn cancel(on: &dyn Rows, name: (&str, &str), now_ms: u64) -> Result<NotifyOutcome> {
    match state_of(on, name)?.as_deref() {
        None => Ok(NotifyOutcome::Missing),
        Some("done" | "cancelled" | "expired") => Ok(NotifyOutcome::Changed(0)),
        Some(_) => end(on, name.1, "cancelled", "cancelled", now_ms).map(NotifyOutcome::Changed),
    }
}

fn retry(on: &dyn Rows, name: (&str, &str), now_ms: u64) -> Result<NotifyOutcome> {
    if state_of(on, name)?.is_none() {
        return Ok(NotifyOutcome::Missing);
    }
    let sql = "UPDATE deliveries SET state = 'queued', due_at = ?, settled_at = NULL, \
               reason = NULL, attempts = 0, uncertain = 0, tried_at = NULL, asked_at = NULL \
               WHERE notification = ? AND state = 'failed'";
    let queued = on.execute(sql, &values![now_ms, name.1])?;
    if queued > 0 {
        let sql = "UPDATE notifications SET state = 'open', settled_at = NULL \
                   WHERE id = ? AND state IN ('done', 'cancelled')";
        on.execute(sql, &values![name.1])?;
    }
    Ok(NotifyOutcome::Changed(queued))
}

/// Whoever settles a delivery calls this afterwards: a notification of which nothing is left to do is
/// done.
pub fn settle_if_over(on: &dyn Rows, id: &str, now_ms: u64) -> Result<()> {
    settle_all_over(on, vec![id.to_string()], now_ms)
}

/// The same for several.
pub fn settle_all_over(on: &dyn Rows, ids: Vec<String>, now_ms: u64) -> Result<()> {
    lock(on, &ids)?;
    let sql = format!(
        "UPDATE notifications SET state = 'done', settled_at = ?2 \
         WHERE id {} AND state = 'open' \
         AND NOT EXISTS (SELECT 1 FROM deliveries v \
                         WHERE v.notification = notifications.id AND v.{OPEN}) \
         AND NOT EXISTS (SELECT 1 FROM reaches r \
                         WHERE r.notification = notifications.id AND r.due_at IS NOT NULL)",
        on.among(1)
    );
    on.execute(&sql, &values![ids, now_ms]).map(|_| ())
}

/// Of two that settle the last two deliveries of a notification, the later one has to see what the
/// other did: whoever has the lock sees all that was done under it. In one order, so that nobody
/// waits for somebody who waits.
pub fn lock(on: &dyn Rows, ids: &[String]) -> Result<()> {
    if on.is_shared() && !ids.is_empty() {
        let sql = "SELECT id FROM notifications WHERE id = ANY (?1) ORDER BY id FOR UPDATE";
        on.query(sql, &values![ids.to_vec()])?;
    }
    Ok(())
}

fn do_due(on: &dyn Rows, now_ms: u64) -> Result<Due> {
    let mut due = Due::default();
    let mut full = begin_due(on, now_ms, &mut due)?;
    full |= finding::expand_due(on, EXPAND, now_ms, &mut due)?;
    full |= reach_due(on, now_ms, &mut due)?;
    let sql = "SELECT min(at) FROM (\
               SELECT min(send_at) AS at FROM notifications WHERE state = 'scheduled' \
               UNION ALL SELECT min(due_at) FROM reaches WHERE due_at IS NOT NULL) AS times";
    let next = on.first(sql, &[])?;
    let next: Option<u64> = next.map_or(Ok(None), |row| row.get(0))?;
    due.next_ms = match full {
        true => Some(now_ms),
        // What is due by now somebody else has in hand.
        false if on.is_shared() => next.map(|ms| ms.max(now_ms + OTHERS_MS)),
        false => next,
    };
    Ok(due)
}

/// Whether there may be more.
fn begin_due(on: &dyn Rows, now_ms: u64, due: &mut Due) -> Result<bool> {
    let sql = format!(
        "SELECT id, expires_at FROM notifications \
         WHERE state = 'scheduled' AND send_at <= ? ORDER BY send_at LIMIT ?{}",
        on.free("")
    );
    let found = on.query(&sql, &values![now_ms, BEGIN])?;
    for row in &found {
        let (id, expires): (String, Option<u64>) = (row.get(0)?, row.get(1)?);
        if expires.is_some_and(|at| at <= now_ms) {
            end(on, &id, "expired", "expired", now_ms)?;
            continue;
        }
        let Some(head) = head(on, &id, now_ms)? else {
            continue;
        };
        set_state(on, &id, begun(&head.spec))?;
        let standings = begin(on, &head, now_ms)?;
        due.queued += standings
            .iter()
            .map(|(_, it)| u64::from(it.queued))
            .sum::<u64>();
        if head.spec.deliver.is_live() && !standings.is_empty() {
            let whom = standings.into_iter().map(|(whom, _)| whom).collect();
            let order = LiveOrder::new(&id, &head.app_id, &head.spec, whom);
            due.orders.push((order, head.spec.ack_ms));
        }
    }
    Ok(found.len() == BEGIN as usize)
}

/// Events that nobody has said anything about go out again; devices get their turn where nobody has
/// acknowledged.
fn reach_due(on: &dyn Rows, now_ms: u64, due: &mut Due) -> Result<bool> {
    let sql = format!(
        "SELECT r.notification, r.kind, r.name, r.live_at IS NULL, r.orders \
         FROM reaches r JOIN notifications n ON n.id = r.notification \
         WHERE r.due_at <= ? ORDER BY r.due_at LIMIT ?{}",
        on.free("n, r")
    );
    let found = on.query(&sql, &values![now_ms, PAGE])?;
    let found = found.iter().map(read_reach).collect::<Result<Vec<_>>>()?;
    let full = found.len() == PAGE as usize;
    let mut by_id = std::collections::BTreeMap::<String, Vec<(Whom, bool)>>::new();
    for (id, whom, again) in found {
        by_id.entry(id).or_default().push((whom, again));
    }
    let sql = "UPDATE reaches SET orders = orders + 1, due_at = ? \
                     WHERE notification = ? AND kind = ? AND name = ?";
    for (id, whom) in by_id {
        let Some(head) = head(on, &id, now_ms)? else {
            continue;
        };
        let mut ordered = Vec::new();
        for (whom, again) in whom {
            let (kind, name) = columns(&whom);
            let next = again.then_some(now_ms + ORDER_AGAIN_MS);
            on.execute(sql, &values![next, &id, kind, name])?;
            match &whom {
                _ if again => ordered.push(whom),
                Whom::User(user) if is_reach(&head.spec) => {
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

/// Of which notification, whom, and whether the event goes out again.
fn read_reach(row: &Row) -> Result<(String, Whom, bool)> {
    let name: String = row.get(2)?;
    let whom = match row.get::<String>(1)?.as_str() {
        "user" => Whom::User(name),
        _ => Whom::Channel(name),
    };
    let unheard: bool = row.get(3)?;
    let again = unheard && row.get::<u32>(4)? < ORDERS_MAX;
    Ok((row.get(0)?, whom, again))
}

fn tidy(
    on: &dyn Rows,
    settled_before_ms: u64,
    after: &OpenPlace,
    now_ms: u64,
) -> Result<NotifyOutcome> {
    let sql = format!(
        "SELECT id FROM notifications WHERE settled_at < ? ORDER BY settled_at LIMIT ?{}",
        on.free("")
    );
    let old = on.query(&sql, &values![settled_before_ms, PAGE])?;
    let (mut room, mut removed) = (REMOVE, 0);
    let sql = "DELETE FROM deliveries WHERE id IN \
               (SELECT id FROM deliveries WHERE notification = ? LIMIT ?)";
    for row in &old {
        let id: String = row.get(0)?;
        room -= on.execute(sql, &values![&id, room])? as u32;
        if room == 0 {
            break;
        }
        on.execute("DELETE FROM notifications WHERE id = ?", &values![id])?;
        removed += 1;
    }
    let open = open_behind(on, after)?;
    let last = open.last().filter(|_| open.len() == PAGE as usize).cloned();
    settle_all_over(on, open.into_iter().map(|place| place.1).collect(), now_ms)?;
    let more = room == 0 || old.len() == PAGE as usize;
    let after = last.or_else(|| more.then(|| after.clone()));
    Ok(NotifyOutcome::Tidied { removed, after })
}

/// A page in the order of the index `notification_open`; each with its place.
fn open_behind(on: &dyn Rows, after: &OpenPlace) -> Result<Vec<OpenPlace>> {
    let sql = format!(
        "SELECT {OPEN_UNTIL}, id FROM notifications{} WHERE state = 'open' \
         AND {OPEN_UNTIL} >= ?1 AND ({OPEN_UNTIL}, id) > (?1, ?2) \
         ORDER BY {OPEN_UNTIL}, id LIMIT ?3",
        on.by("notification_open")
    );
    let found = on.query(&sql, &values![after.0, &after.1, PAGE])?;
    let found = found.iter().map(|row| Ok((row.get(0)?, row.get(1)?)));
    found.collect()
}

#[cfg(test)]
mod tests;

//! From a notification to its deliveries: the devices of a user, of a topic, of an area, page by page.
//! Invariants: a device has one delivery of a notification, whatever named it; a page reads a bounded
//! number of rows.

use serde::{Deserialize, Serialize};

use super::{EXPAND, Head, OPEN, head, set_state, settle_if_over};
use crate::push::delivery::jobs::Way;
use crate::push::devices::geo::{Area, Point};
use crate::push::devices::token::Service;
use crate::push::notify::jobs::{Due, PAGE, Standing, Whom};
use crate::push::notify::spec::{Deliver, Spec, Step};
use crate::store::rows::{Result, Row, Rows, values};

/// Users whose devices are looked for at the same time: a database that is far away is waited for once for
/// all of them, and what is in memory is bounded.
const USERS: usize = 100;

const COLUMNS: &str = "d.id, d.user_id, d.platform, d.time_zone, \
                       d.last_known_latitude, d.last_known_longitude, d.service";

/// How far the devices of a notification are found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Cursor {
    /// Of `Recipients::steps`.
    step: usize,
    /// Of the area's boxes.
    part: usize,
    /// How many of a list.
    named: usize,
    /// Behind this latitude and longitude, where these are the order,
    place: Option<(f64, f64)>,
    /// and this row.
    id: String,
}

/// What of a device decides whether and when it gets something.
struct Found {
    id: String,
    user_id: Option<String>,
    platform: String,
    service: String,
    time_zone: Option<String>,
    place: Option<(f64, f64)>,
}

fn read(row: &Row) -> Result<Found> {
    let place: (Option<f64>, Option<f64>) = (row.get(4)?, row.get(5)?);
    Ok(Found {
        id: row.get(0)?,
        user_id: row.get(1)?,
        platform: row.get(2)?,
        time_zone: row.get(3)?,
        service: row.get(6)?,
        place: place.0.zip(place.1),
    })
}

fn read_all(rows: &[Row]) -> Result<Vec<Found>> {
    rows.iter().map(read).collect()
}

/// Which devices platform and area leave.
struct Filter<'a> {
    platform: Option<&'a str>,
    area: Option<Area>,
}

impl Filter<'_> {
    fn of(spec: &Spec) -> Filter<'_> {
        Filter {
            platform: spec.to.platform.as_deref(),
            area: spec.to.area(),
        }
    }

    fn takes(&self, found: &Found) -> bool {
        let point = found
            .place
            .and_then(|(latitude, longitude)| Point::new(latitude, longitude).ok());
        let is_there = |area: &Area| point.is_some_and(|point| area.contains(&point));
        self.platform.is_none_or(|it| it == found.platform)
            && self.area.as_ref().is_none_or(is_there)
    }
}

/// For which of them there was no delivery before: 1, or 0.
fn put(on: &dyn Rows, head: &Head, found: &[Found], state: &str, now_ms: u64) -> Result<Vec<u64>> {
    let sql = "INSERT INTO deliveries \
               (notification, app_id, user_id, device, way, state, due_at, priority) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
               ON CONFLICT (notification, device) DO NOTHING";
    let rows = found.iter().map(|found| {
        values![
            &head.id,
            &head.app_id,
            found.user_id.as_ref(),
            &found.id,
            &found.service,
            state,
            due_ms(&head.spec, found.time_zone.as_deref(), now_ms),
            head.priority,
        ]
        .to_vec()
    });
    on.execute_each(sql, &rows.collect::<Vec<_>>())
}

fn due_ms(spec: &Spec, zone: Option<&str>, now_ms: u64) -> u64 {
    spec.quiet.map_or(now_ms, |quiet| quiet.after(zone, now_ms))
}

/// Deliveries for the devices of users; how many for each.
pub(super) fn hold_or_queue(
    on: &dyn Rows,
    head: &Head,
    users: &[&str],
    now_ms: u64,
) -> Result<Vec<u32>> {
    let state = match head.spec.deliver {
        Deliver::Live => return Ok(vec![0; users.len()]),
        Deliver::Reach => "held",
        Deliver::Push | Deliver::Both => "queued",
    };
    let filter = Filter::of(&head.spec);
    let sql = format!(
        "SELECT {COLUMNS} FROM device_registrations d{} \
         WHERE d.app_id = ? AND d.user_id = ? AND d.is_active ORDER BY d.id LIMIT {PAGE}",
        on.by("device_by_user")
    );
    let mut counts = Vec::with_capacity(users.len());
    for users in users.chunks(USERS) {
        let wanted = users
            .iter()
            .map(|user| values![&head.app_id, *user].to_vec());
        let rows = on.query_each(&sql, &wanted.collect::<Vec<_>>())?;
        let (mut devices, mut of_each) = (Vec::new(), Vec::new());
        for rows in &rows {
            let before = devices.len();
            devices.extend(read_all(rows)?.into_iter().filter(|it| filter.takes(it)));
            of_each.push(devices.len() - before);
        }
        let new = put(on, head, &devices, state, now_ms)?;
        let mut new = new.into_iter();
        let count = |devices: usize| new.by_ref().take(devices).sum::<u64>() as u32;
        counts.extend(of_each.into_iter().map(count));
    }
    Ok(counts)
}

/// Deliveries for addresses that are not of our registry; how many.
pub(super) fn queue_addresses(on: &dyn Rows, head: &Head, now_ms: u64) -> Result<usize> {
    let sql = "INSERT INTO deliveries (notification, app_id, address, way, state, due_at, priority) \
               VALUES (?, ?, ?, ?, 'queued', ?, ?)";
    let due = due_ms(&head.spec, None, now_ms);
    let addresses = head.spec.to.addresses();
    for address in &addresses {
        let is_apns = address.starts_with("{\"apns");
        let way = if is_apns {
            Way::Channel
        } else {
            Way::Device(Service::Fcm)
        };
        let values = values![
            &head.id,
            &head.app_id,
            address,
            way.word(),
            due,
            head.priority
        ];
        on.execute(sql, &values)?;
    }
    Ok(addresses.len())
}

/// It is the turn of a user's devices: those that are still his are queued; how many.
pub(super) fn push(on: &dyn Rows, head: &Head, user_id: &str, now_ms: u64) -> Result<u32> {
    let sql = "UPDATE reaches SET pushed_at = ?, due_at = NULL \
               WHERE notification = ? AND kind = 'user' AND name = ?";
    on.execute(sql, &values![now_ms, &head.id, user_id])?;
    let sql = format!(
        "SELECT v.id, d.user_id, d.is_active, d.time_zone FROM deliveries v{} \
         LEFT JOIN device_registrations d ON d.id = v.device \
         WHERE v.notification = ? AND v.user_id = ? AND v.{OPEN} AND v.state = 'held'",
        on.by("delivery_open")
    );
    let (mut queue, mut drop) = (Vec::new(), Vec::new());
    for row in on.query(&sql, &values![&head.id, user_id])? {
        let id: i64 = row.get(0)?;
        let owner: Option<String> = row.get(1)?;
        let active: Option<bool> = row.get(2)?;
        let zone: Option<String> = row.get(3)?;
        if owner.as_deref() == Some(user_id) && active == Some(true) {
            let due = due_ms(&head.spec, zone.as_deref(), now_ms);
            queue.push(values![due, id].to_vec());
        } else {
            drop.push(values![now_ms, id].to_vec());
        }
    }
    let sql = "UPDATE deliveries SET state = 'queued', due_at = ? WHERE id = ?";
    let queued = on.execute_each(sql, &queue)?;
    let sql = "UPDATE deliveries SET state = 'cancelled', settled_at = ?, \
               reason = 'the device is not the user''s any more' WHERE id = ?";
    on.execute_each(sql, &drop)?;
    Ok(queued.iter().sum::<u64>() as u32)
}

/// What has come of a user or channel, his connections left out.
pub(super) fn standing(on: &dyn Rows, id: &str, whom: &Whom) -> Result<Standing> {
    let Whom::User(user_id) = whom else {
        return Ok(Standing::default());
    };
    let sql = format!(
        "SELECT count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'held') \
         FROM deliveries{} WHERE notification = ? AND user_id = ? AND {OPEN}",
        on.by("delivery_open")
    );
    let counts = on.first(&sql, &values![id, user_id])?;
    counts.map_or(Ok(Standing::default()), |row| {
        Ok(Standing {
            live: None,
            queued: row.get(0)?,
            held: row.get(1)?,
        })
    })
}

/// Finds further devices of notifications that are not whole; whether there may be more.
pub(super) fn expand_due(on: &dyn Rows, most: u32, now_ms: u64, due: &mut Due) -> Result<bool> {
    let sql = format!(
        "SELECT id, cursor FROM notifications WHERE state = 'expanding' LIMIT ?{}",
        on.free("")
    );
    let found = on.query(&sql, &values![most])?;
    let page = PAGE / (found.len() as u32).clamp(1, EXPAND);
    for row in &found {
        let id: String = row.get(0)?;
        let Some(head) = head(on, &id, now_ms)? else {
            continue;
        };
        let cursor: Option<String> = row.get(1)?;
        let cursor = cursor.as_deref().unwrap_or("{}");
        let cursor: Cursor = serde_json::from_str(cursor).unwrap_or_default();
        let (mut devices, next) = next_page(on, &head, cursor, page)?;
        let filter = Filter::of(&head.spec);
        devices.retain(|found| filter.takes(found));
        due.queued += put(on, &head, &devices, "queued", now_ms)?
            .iter()
            .sum::<u64>();
        let kept = next.and_then(|next| serde_json::to_string(&next).ok());
        let sql = "UPDATE notifications SET cursor = ? WHERE id = ?";
        on.execute(sql, &values![kept.as_ref(), &id])?;
        if kept.is_none() {
            set_state(on, &id, "open")?;
            settle_if_over(on, &id, now_ms)?;
        }
    }
    Ok(!found.is_empty())
}

/// The next devices, not filtered yet, and where to go on.
fn next_page(
    on: &dyn Rows,
    head: &Head,
    cursor: Cursor,
    page: u32,
) -> Result<(Vec<Found>, Option<Cursor>)> {
    let steps = head.spec.to.steps();
    let Some(step) = steps.get(cursor.step) else {
        return Ok((Vec::new(), None));
    };
    let step_done = Cursor {
        step: cursor.step + 1,
        ..Cursor::default()
    };
    let (found, next) = match step {
        Step::Named(names) => named(on, head, names, cursor, page)?,
        Step::Topic(topic) => of_topic(on, head, topic, cursor, page)?,
        Step::All => match head.spec.to.area() {
            Some(area) => within(on, head, &area, cursor, page)?,
            None => of_platform(on, head, cursor, page)?,
        },
    };
    let next = next.unwrap_or(step_done);
    Ok((found, Some(next).filter(|next| next.step < steps.len())))
}

type Page = Result<(Vec<Found>, Option<Cursor>)>;

fn named(on: &dyn Rows, head: &Head, names: &[String], cursor: Cursor, page: u32) -> Page {
    let sql = format!(
        "SELECT {COLUMNS} FROM device_registrations d \
         WHERE d.app_id = ? AND d.device_id = ? AND d.is_active"
    );
    let (mut found, begin) = (Vec::new(), cursor.named.min(names.len()));
    let end = (begin + page as usize).min(names.len());
    for name in &names[begin..end] {
        found.extend(read_all(&on.query(&sql, &values![&head.app_id, name])?)?);
    }
    let next = Cursor {
        named: end,
        ..cursor
    };
    Ok((found, Some(next).filter(|_| end < names.len())))
}

fn of_topic(on: &dyn Rows, head: &Head, topic: &str, cursor: Cursor, page: u32) -> Page {
    let sql = format!(
        "SELECT {COLUMNS} FROM device_topics t JOIN device_registrations d ON d.id = t.device \
         WHERE t.app_id = ? AND t.topic = ? AND t.device > ? AND d.is_active \
         ORDER BY t.device LIMIT ?"
    );
    let found = on.query(&sql, &values![&head.app_id, topic, &cursor.id, page])?;
    Ok(behind(read_all(&found)?, cursor, page))
}

fn of_platform(on: &dyn Rows, head: &Head, cursor: Cursor, page: u32) -> Page {
    let sql = format!(
        "SELECT {COLUMNS} FROM device_registrations d \
         WHERE d.app_id = ? AND d.platform = ? AND d.id > ? AND d.is_active \
         ORDER BY d.id LIMIT ?"
    );
    let platform = head.spec.to.platform.as_deref().unwrap_or_default();
    let found = on.query(&sql, &values![&head.app_id, platform, &cursor.id, page])?;
    Ok(behind(read_all(&found)?, cursor, page))
}

/// In the order of the index by place, so that few rows outside are read.
fn within(on: &dyn Rows, head: &Head, area: &Area, cursor: Cursor, page: u32) -> Page {
    let boxes = area.boxes();
    let Some(bounds) = boxes.get(cursor.part) else {
        return Ok((Vec::new(), None));
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM device_registrations d WHERE d.app_id = ? \
         AND d.last_known_latitude BETWEEN ? AND ? AND d.last_known_longitude BETWEEN ? AND ? \
         AND (d.last_known_latitude, d.last_known_longitude, d.id) > (?, ?, ?) \
         AND d.is_active \
         ORDER BY d.last_known_latitude, d.last_known_longitude, d.id LIMIT ?"
    );
    let (latitude, longitude) = cursor.place.unwrap_or((-91.0, 0.0));
    let values = values![
        &head.app_id,
        // What was read is not searched through again.
        bounds.south.max(latitude),
        bounds.north,
        bounds.west,
        bounds.east,
        latitude,
        longitude,
        &cursor.id,
        page
    ];
    let found = read_all(&on.query(&sql, &values)?)?;
    let next_part = Cursor {
        step: cursor.step,
        part: cursor.part + 1,
        ..Cursor::default()
    };
    let has_next = next_part.part < boxes.len();
    let (found, next) = behind(found, cursor, page);
    Ok((found, next.or(Some(next_part).filter(|_| has_next))))
}

/// Goes on behind the last row of a full page.
fn behind(found: Vec<Found>, cursor: Cursor, page: u32) -> (Vec<Found>, Option<Cursor>) {
    let last = found.last().filter(|_| found.len() == page as usize);
    let next = last.map(|last| Cursor {
        place: last.place,
        id: last.id.clone(),
        ..cursor
    });
    (found, next)
}

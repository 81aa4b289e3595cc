//! Devices as rows: written, read, found by name and by token. Knows the tables of `schema/0002.sql`
//! and neither what a device may do nor what its token is. Invariant: a device that was put is read
//! back equal. Where several write, whoever puts a device that it has read has its row locked.

use std::collections::{BTreeMap, BTreeSet};

use crate::push::devices::device::{Device, Retired, State};
use crate::push::devices::geo::Point;
use crate::push::devices::registration::Profile;
use crate::push::devices::token::{Platform, Service};
use crate::push::devices::token_key::{Fingerprint, KeyId};
use crate::push::devices::vault::{Binding, SealedToken};
use crate::store::credentials;
use crate::store::rows::{Result, Row, Rows, damaged, values};

/// The tables, to be run once.
pub const SCHEMA: &str = include_str!("schema/0002.sql");

/// In the order in which `put` gives their values.
const COLUMNS: [&str; 26] = [
    "id",
    "app_id",
    "device_id",
    "user_id",
    "platform",
    "service",
    "encrypted_token",
    "token_iv",
    "token_tag",
    "token_key_id",
    "token_binding",
    "token_index",
    "token_set_at",
    "token_expires_at",
    "created_at",
    "updated_at",
    "accepted_at",
    "suspicions",
    "is_active",
    "inactive_reason",
    "inactive_since",
    "last_known_latitude",
    "last_known_longitude",
    "device_metadata",
    "locale",
    "time_zone",
];

/// Writes a device over the one with its id, its topics with it. The key of its token has to be
/// known (`put_key`). To be called in a transaction.
pub fn put(to: &dyn Rows, device: &Device) -> Result<()> {
    let (profile, sealed) = (&device.profile, &device.sealed);
    let end = match device.state {
        State::Active => None,
        State::Inactive { why, since_ms } => Some((why.word(), since_ms)),
    };
    let (columns, marks) = (COLUMNS.join(","), ["?"; COLUMNS.len()].join(","));
    let news = COLUMNS.map(|column| format!("excluded.{column}")).join(",");
    // Not REPLACE: that would take whatever other device is in the way.
    let sql = format!(
        "INSERT INTO device_registrations ({columns}) VALUES ({marks}) \
         ON CONFLICT (id) DO UPDATE SET ({columns}) = ({news})"
    );
    let values = values![
        &device.id,
        &device.app_id,
        &device.device_id,
        profile.user_id.as_ref(),
        device.platform.word(),
        device.service.word(),
        &sealed.encrypted_token,
        &sealed.token_iv,
        &sealed.token_tag,
        sealed.key_id.as_str(),
        sealed.binding.number(),
        &sealed.index,
        device.token_set_ms,
        profile.token_expires_ms,
        device.created_ms,
        device.updated_ms,
        device.accepted_ms,
        device.suspicions,
        end.is_none(),
        end.map(|(why, _)| why),
        end.map(|(_, since)| since),
        profile.location.map(|point| point.latitude()),
        profile.location.map(|point| point.longitude()),
        profile.metadata.as_ref(),
        profile.locale.as_ref(),
        profile.time_zone.as_ref(),
    ];
    to.execute(&sql, &values)?;
    put_topics(to, device)
}

/// Only what has changed: most devices are put as they were.
fn put_topics(to: &dyn Rows, device: &Device) -> Result<()> {
    let sql = "SELECT topic FROM device_topics WHERE device = ?";
    let had = to.query(sql, &values![&device.id])?;
    let had = had.iter().map(|row| row.get(0));
    let had = had.collect::<Result<BTreeSet<String>>>()?;
    let topics = &device.profile.topics;
    let gone: Vec<String> = had.difference(topics).cloned().collect();
    if !gone.is_empty() {
        let sql = format!(
            "DELETE FROM device_topics WHERE device = ?1 AND topic {}",
            to.among(2)
        );
        to.execute(&sql, &values![&device.id, gone])?;
    }
    let sql = "INSERT INTO device_topics (device, app_id, topic) VALUES (?, ?, ?)";
    let new = topics.difference(&had);
    let new = new.map(|topic| values![&device.id, &device.app_id, topic].to_vec());
    to.execute_each(sql, &new.collect::<Vec<_>>()).map(|_| ())
}

/// Takes a device away, its topics with it; whether it was there.
pub fn remove(from: &dyn Rows, app_id: &str, device_id: &str) -> Result<bool> {
    let sql = "DELETE FROM device_registrations WHERE app_id = ? AND device_id = ?";
    Ok(from.execute(sql, &values![app_id, device_id])? > 0)
}

/// By the name that the client gave it.
pub fn find(from: &dyn Rows, app_id: &str, device_id: &str) -> Result<Option<Device>> {
    let sql = format!(
        "SELECT * FROM device_registrations WHERE app_id = ? AND device_id = ?{}",
        from.locked()
    );
    let found = from.query(&sql, &values![app_id, device_id])?;
    Ok(read_all(from, &found)?.pop())
}

/// By our own name for it.
pub(super) fn find_by_id(from: &dyn Rows, id: &str) -> Result<Option<Device>> {
    let sql = format!(
        "SELECT * FROM device_registrations WHERE id = ?{}",
        from.locked()
    );
    let found = from.query(&sql, &values![id])?;
    Ok(read_all(from, &found)?.pop())
}

/// The active devices of the app that hold a token, one at most but during a rotation; `indexes` are
/// those of the vault for it. They have to be retired before another device is put with this token.
pub fn holders(from: &dyn Rows, app_id: &str, indexes: &[String]) -> Result<Vec<Device>> {
    let sql = format!(
        "SELECT * FROM device_registrations{} \
         WHERE app_id = ?1 AND token_index {} AND is_active ORDER BY id{}",
        from.by("device_by_token"),
        from.among(2),
        from.locked()
    );
    let found = from.query(&sql, &values![app_id, indexes.to_vec()])?;
    read_all(from, &found)
}

/// The next devices of a rotation, by id after `after`: those whose token was not sealed with this
/// key and binding. At most so many.
pub fn outdated(
    from: &dyn Rows,
    (key, binding): (&KeyId, Binding),
    after: &str,
    count: u32,
) -> Result<Vec<Device>> {
    let sql = "SELECT * FROM device_registrations \
               WHERE id > ? AND (token_key_id <> ? OR token_binding <> ?) ORDER BY id LIMIT ?";
    let values = values![after, key.as_str(), binding.number(), count];
    read_all(from, &from.query(sql, &values)?)
}

/// Notes that a key exists, before the first device is put that needs it. What was known under its
/// name stays only while a device or a credential needs that.
pub fn put_key(to: &dyn Rows, id: &KeyId, print: &Fingerprint, now_ms: u64) -> Result<()> {
    let sql = "INSERT INTO token_keys (key_id, fingerprint, created_at) VALUES (?1, ?2, ?3) \
               ON CONFLICT (key_id) DO UPDATE \
               SET fingerprint = ?2, created_at = ?3, sealed = 0, is_rotating = FALSE \
               WHERE token_keys.fingerprint <> ?2 AND NOT EXISTS \
               (SELECT 1 FROM device_registrations WHERE token_key_id = token_keys.key_id) \
               AND NOT EXISTS (SELECT 1 FROM credentials WHERE credentials.key_id = token_keys.key_id)";
    to.execute(sql, &values![id.as_str(), print, now_ms])
        .map(|_| ())
}

/// The keys that some device or credential needs, for `TokenVault::check_known`.
pub fn needed_keys(from: &dyn Rows) -> Result<Vec<(KeyId, Fingerprint)>> {
    let mut keys = needed_by_devices(from)?;
    let others = credentials::needed_keys(from)?;
    keys.extend(
        others
            .into_iter()
            .filter(|(id, _)| keys.iter().all(|(own, _)| own != id))
            .collect::<Vec<_>>(),
    );
    Ok(keys)
}

/// Of these, those that devices need.
pub(super) fn needed_by_devices(from: &dyn Rows) -> Result<Vec<(KeyId, Fingerprint)>> {
    let sql = "SELECT key_id, fingerprint FROM token_keys WHERE EXISTS \
               (SELECT 1 FROM device_registrations WHERE token_key_id = key_id) ORDER BY key_id";
    read_keys(&from.query(sql, &[])?)
}

pub(super) fn read_keys(rows: &[Row]) -> Result<Vec<(KeyId, Fingerprint)>> {
    let keys = rows.iter().map(|row| {
        let id = word(row, "key_id", read_key_id)?;
        Ok((id, row.get("fingerprint")?))
    });
    keys.collect()
}

/// The devices of some rows, in their order.
pub(super) fn read_all(from: &dyn Rows, rows: &[Row]) -> Result<Vec<Device>> {
    let devices = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
    with_topics(from, devices)
}

pub(super) fn read(row: &Row) -> Result<Device> {
    let state = match row.get("is_active")? {
        true => State::Active,
        false => State::Inactive {
            why: word(row, "inactive_reason", Retired::from_word)?,
            since_ms: row.get("inactive_since")?,
        },
    };
    Ok(Device {
        id: row.get("id")?,
        app_id: row.get("app_id")?,
        device_id: row.get("device_id")?,
        platform: word(row, "platform", Platform::from_word)?,
        service: word(row, "service", Service::from_word)?,
        profile: Profile {
            user_id: row.get("user_id")?,
            topics: Default::default(),
            token_expires_ms: row.get("token_expires_at")?,
            location: read_place(row)?,
            metadata: row.get("device_metadata")?,
            locale: row.get("locale")?,
            time_zone: row.get("time_zone")?,
        },
        sealed: SealedToken {
            encrypted_token: row.get("encrypted_token")?,
            token_iv: row.get("token_iv")?,
            token_tag: row.get("token_tag")?,
            key_id: word(row, "token_key_id", read_key_id)?,
            binding: read_binding(row)?,
            index: row.get("token_index")?,
        },
        state,
        suspicions: row.get("suspicions")?,
        created_ms: row.get("created_at")?,
        updated_ms: row.get("updated_at")?,
        token_set_ms: row.get("token_set_at")?,
        accepted_ms: row.get("accepted_at")?,
    })
}

pub(super) fn read_place(row: &Row) -> Result<Option<Point>> {
    let latitude: Option<f64> = row.get("last_known_latitude")?;
    let place = latitude.zip(row.get("last_known_longitude")?);
    Ok(place.and_then(|(latitude, longitude)| Point::new(latitude, longitude).ok()))
}

fn with_topics(from: &dyn Rows, mut devices: Vec<Device>) -> Result<Vec<Device>> {
    if devices.is_empty() {
        return Ok(devices);
    }
    let ids: Vec<String> = devices.iter().map(|device| device.id.clone()).collect();
    let sql = format!(
        "SELECT device, topic FROM device_topics WHERE device {}",
        from.among(1)
    );
    let mut topics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in from.query(&sql, &values![ids])? {
        topics.entry(row.get(0)?).or_default().insert(row.get(1)?);
    }
    for device in &mut devices {
        device.profile.topics = topics.remove(&device.id).unwrap_or_default();
    }
    Ok(devices)
}

pub(super) fn read_key_id(text: &str) -> Option<KeyId> {
    KeyId::parse(text).ok()
}

fn read_binding(row: &Row) -> Result<Binding> {
    let number: u8 = row.get("token_binding")?;
    Binding::from_number(number).ok_or_else(|| damaged("token_binding"))
}

/// A column that holds one of some words.
pub(super) fn word<T>(row: &Row, column: &str, read: fn(&str) -> Option<T>) -> Result<T> {
    let text: String = row.get(column)?;
    read(&text).ok_or_else(|| damaged(column))
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;

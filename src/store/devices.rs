//! Devices as rows of SQLite: written, read, found by name and by token. Knows the tables of
//! `schema/0002.sql` and neither what a device may do nor what its token is. Invariant: a device that
//! was put is read back equal.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use crate::push::devices::device::{Device, Retired, State};
use crate::push::devices::geo::Point;
use crate::push::devices::registration::Profile;
use crate::push::devices::token::{Platform, Service};
use crate::push::devices::token_key::{Fingerprint, KeyId};
use crate::push::devices::vault::{Binding, SealedToken};

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
pub fn put(to: &Connection, device: &Device) -> rusqlite::Result<()> {
    let (profile, sealed) = (&device.profile, &device.sealed);
    let end = match device.state {
        State::Active => None,
        State::Inactive { why, since_ms } => Some((why.word(), since_ms as i64)),
    };
    let (columns, marks) = (COLUMNS.join(","), ["?"; COLUMNS.len()].join(","));
    let news = COLUMNS.map(|column| format!("excluded.{column}")).join(",");
    // Not REPLACE: that would take whatever other device is in the way.
    let sql = format!(
        "INSERT INTO device_registrations ({columns}) VALUES ({marks}) \
         ON CONFLICT (id) DO UPDATE SET ({columns}) = ({news})"
    );
    to.prepare_cached(&sql)?.execute(params![
        device.id,
        device.app_id,
        device.device_id,
        profile.user_id,
        device.platform.word(),
        device.service.word(),
        sealed.encrypted_token,
        sealed.token_iv,
        sealed.token_tag,
        sealed.key_id.as_str(),
        sealed.binding.number(),
        sealed.index,
        device.token_set_ms as i64,
        profile.token_expires_ms.map(|ms| ms as i64),
        device.created_ms as i64,
        device.updated_ms as i64,
        device.accepted_ms.map(|ms| ms as i64),
        device.suspicions,
        end.is_none(),
        end.map(|(why, _)| why),
        end.map(|(_, since)| since),
        profile.location.map(|point| point.latitude()),
        profile.location.map(|point| point.longitude()),
        profile.metadata,
        profile.locale,
        profile.time_zone,
    ])?;
    to.prepare_cached("DELETE FROM device_topics WHERE device = ?")?
        .execute([&device.id])?;
    let mut topics =
        to.prepare_cached("INSERT INTO device_topics (device, app_id, topic) VALUES (?, ?, ?)")?;
    for topic in &profile.topics {
        topics.execute([&device.id, &device.app_id, topic])?;
    }
    Ok(())
}

/// Takes a device away, its topics with it; whether it was there.
pub fn remove(from: &Connection, app_id: &str, device_id: &str) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM device_registrations WHERE app_id = ? AND device_id = ?";
    let removed = from.prepare_cached(sql)?.execute([app_id, device_id])?;
    Ok(removed > 0)
}

/// By the name that the client gave it.
pub fn find(from: &Connection, app_id: &str, device_id: &str) -> rusqlite::Result<Option<Device>> {
    let sql = "SELECT * FROM device_registrations WHERE app_id = ? AND device_id = ?";
    let mut statement = from.prepare_cached(sql)?;
    let found = statement.query_row([app_id, device_id], read).optional()?;
    found.map(|device| with_topics(from, device)).transpose()
}

/// The active devices of the app that hold a token, one at most but during a rotation; `indexes` are
/// those of the vault for it. They have to be retired before another device is put with this token.
pub fn holders(
    from: &Connection,
    app_id: &str,
    indexes: &[String],
) -> rusqlite::Result<Vec<Device>> {
    let marks = vec!["?"; indexes.len()].join(",");
    let sql = format!(
        "SELECT * FROM device_registrations \
         WHERE app_id = ? AND token_index IN ({marks}) AND is_active = 1 ORDER BY id"
    );
    let values = std::iter::once(app_id).chain(indexes.iter().map(String::as_str));
    let mut statement = from.prepare_cached(&sql)?;
    let found = statement.query_map(params_from_iter(values), read)?;
    found.map(|device| with_topics(from, device?)).collect()
}

/// The next devices of a rotation, by id after `after`: those whose token was not sealed with this
/// key and binding. At most so many.
pub fn outdated(
    from: &Connection,
    (key, binding): (&KeyId, Binding),
    after: &str,
    count: u32,
) -> rusqlite::Result<Vec<Device>> {
    let sql = "SELECT * FROM device_registrations \
               WHERE id > ? AND (token_key_id <> ? OR token_binding <> ?) ORDER BY id LIMIT ?";
    let mut statement = from.prepare_cached(sql)?;
    let values = params![after, key.as_str(), binding.number(), count];
    let found = statement.query_map(values, read)?;
    found.map(|device| with_topics(from, device?)).collect()
}

/// Notes that a key exists, before the first device is put that needs it. What was known under its
/// name stays only while a device needs that.
pub fn put_key(
    to: &Connection,
    id: &KeyId,
    print: &Fingerprint,
    now_ms: u64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO token_keys (key_id, fingerprint, created_at) VALUES (?1, ?2, ?3) \
               ON CONFLICT (key_id) DO UPDATE \
               SET fingerprint = ?2, created_at = ?3, sealed = 0, is_rotating = 0 \
               WHERE fingerprint <> ?2 AND NOT EXISTS \
               (SELECT 1 FROM device_registrations WHERE token_key_id = key_id)";
    to.prepare_cached(sql)?
        .execute(params![id.as_str(), print, now_ms as i64])?;
    Ok(())
}

/// The keys that some device needs, for `TokenVault::check_known`.
pub fn needed_keys(from: &Connection) -> rusqlite::Result<Vec<(KeyId, Fingerprint)>> {
    let sql = "SELECT key_id, fingerprint FROM token_keys WHERE EXISTS \
               (SELECT 1 FROM device_registrations WHERE token_key_id = key_id) ORDER BY key_id";
    let mut statement = from.prepare(sql)?;
    let keys = statement.query_map([], |row| {
        Ok((word(row, "key_id", read_key_id)?, row.get(1)?))
    })?;
    keys.collect()
}

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Device> {
    let ms = |column: &str| row.get::<_, i64>(column).map(|ms| ms as u64);
    let later = |column: &str| {
        row.get::<_, Option<i64>>(column)
            .map(|ms| ms.map(|ms| ms as u64))
    };
    let state = match row.get("is_active")? {
        true => State::Active,
        false => State::Inactive {
            why: word(row, "inactive_reason", Retired::from_word)?,
            since_ms: ms("inactive_since")?,
        },
    };
    let place: (Option<f64>, Option<f64>) = (
        row.get("last_known_latitude")?,
        row.get("last_known_longitude")?,
    );
    Ok(Device {
        id: row.get("id")?,
        app_id: row.get("app_id")?,
        device_id: row.get("device_id")?,
        platform: word(row, "platform", Platform::from_word)?,
        service: word(row, "service", Service::from_word)?,
        profile: Profile {
            user_id: row.get("user_id")?,
            topics: Default::default(),
            token_expires_ms: later("token_expires_at")?,
            location: place
                .0
                .zip(place.1)
                .and_then(|(latitude, longitude)| Point::new(latitude, longitude).ok()),
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
        created_ms: ms("created_at")?,
        updated_ms: ms("updated_at")?,
        token_set_ms: ms("token_set_at")?,
        accepted_ms: later("accepted_at")?,
    })
}

pub(super) fn with_topics(from: &Connection, mut device: Device) -> rusqlite::Result<Device> {
    let mut statement = from.prepare_cached("SELECT topic FROM device_topics WHERE device = ?")?;
    let topics = statement.query_map([&device.id], |row| row.get(0))?;
    device.profile.topics = topics.collect::<rusqlite::Result<_>>()?;
    Ok(device)
}

pub(super) fn read_key_id(text: &str) -> Option<KeyId> {
    KeyId::parse(text).ok()
}

fn read_binding(row: &Row<'_>) -> rusqlite::Result<Binding> {
    let number: u8 = row.get("token_binding")?;
    Binding::from_number(number).ok_or_else(|| damaged("token_binding"))
}

/// A column that holds one of some words.
pub(super) fn word<T>(
    row: &Row<'_>,
    column: &'static str,
    read: fn(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    read(&text).ok_or_else(|| damaged(column))
}

fn damaged(column: &'static str) -> rusqlite::Error {
    let why = format!("{column} holds what this program did not write");
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, why.into())
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;

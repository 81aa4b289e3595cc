//! The jobs of `push/devices/jobs` on the tables of devices. Knows how a job becomes queries, and not
//! who wants it done. Invariant: a job that meets what it cannot do leaves nothing behind and the
//! transaction as it was; only a file that does not work fails.

use rusqlite::{Connection, ErrorCode, OptionalExtension, ToSql, params, params_from_iter};

use crate::base::now::Now;
use crate::push::devices::device::{
    Device, Retired, SealedRegistration, SealedUpdate, State, Upkeep,
};
use crate::push::devices::jobs::{
    DeviceFilter, DeviceJob, DeviceLimits, DeviceOutcome, Full, KeyJob, KeyUse, Registered,
    Resealed,
};
use crate::push::devices::token_key::KeyId;
use crate::push::devices::vault::Binding;
use crate::store::devices::{self, read, read_key_id, with_topics, word};

/// To be called in a transaction.
pub fn run(on: &Connection, job: &DeviceJob) -> rusqlite::Result<DeviceOutcome> {
    on.prepare_cached("SAVEPOINT job")?.execute([])?;
    let done = carry_out(on, job);
    match done {
        Ok(_) => {}
        Err(ref error) if costs_the_file(error) => return done,
        Err(_) => {
            on.prepare_cached("ROLLBACK TO job")?.execute([])?;
        }
    }
    on.prepare_cached("RELEASE job")?.execute([])?;
    done.or_else(|error| Ok(DeviceOutcome::Impossible(error.to_string())))
}

/// Whether an error is one of the file rather than of what one job wanted.
fn costs_the_file(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => code != ErrorCode::ConstraintViolation,
        None => !matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
        ),
    }
}

fn carry_out(on: &Connection, job: &DeviceJob) -> rusqlite::Result<DeviceOutcome> {
    match job {
        DeviceJob::Register {
            registrations,
            limits,
            now,
        } => {
            let all = registrations.iter();
            let done = all.map(|registration| register(on, registration, limits, *now));
            let done = done.collect::<rusqlite::Result<_>>()?;
            Ok(DeviceOutcome::Registered(done))
        }
        DeviceJob::Find { app_id, device_id } => Ok(told(devices::find(on, app_id, device_id)?)),
        DeviceJob::Update {
            app_id,
            device_id,
            update: change,
            limits,
            now,
        } => match devices::find(on, app_id, device_id)? {
            None => Ok(DeviceOutcome::Unknown),
            Some(device) => update(on, device, change, limits, *now),
        },
        DeviceJob::SetTopic {
            app_id,
            device_id,
            topic,
            wanted,
            limits,
            now,
        } => match devices::find(on, app_id, device_id)? {
            None => Ok(DeviceOutcome::Unknown),
            Some(device) => set_topic(on, device, (topic, *wanted), limits, *now),
        },
        DeviceJob::Remove { app_id, device_id } => {
            let device = devices::find(on, app_id, device_id)?;
            devices::remove(on, app_id, device_id)?;
            Ok(told(device))
        }
        DeviceJob::RemoveUser { app_id, user_id } => {
            let sql = "DELETE FROM device_registrations WHERE app_id = ? AND user_id = ?";
            let removed = on.prepare_cached(sql)?.execute([app_id, user_id])?;
            Ok(DeviceOutcome::Done(removed as u64))
        }
        DeviceJob::List {
            app_id,
            filter,
            after,
            count,
        } => list(on, (app_id, filter), after, *count),
        DeviceJob::Keys(job) => carry_out_keys(on, job),
        DeviceJob::Upkeep {
            keep_ms,
            count,
            now,
        } => upkeep(on, *keep_ms, *count, *now),
    }
}

fn carry_out_keys(on: &Connection, job: &KeyJob) -> rusqlite::Result<DeviceOutcome> {
    match job {
        KeyJob::Put { keys, now } => {
            for (id, print) in keys {
                devices::put_key(on, id, print, now.unix_ms)?;
            }
            Ok(DeviceOutcome::Done(keys.len() as u64))
        }
        KeyJob::Outdated {
            key,
            binding,
            after,
            count,
        } => {
            let found = devices::outdated(on, (key, *binding), after, *count)?;
            Ok(DeviceOutcome::List(found, None))
        }
        KeyJob::Reseal(rows) => reseal(on, rows),
        KeyJob::Rotate { key, wanted } => {
            let sql = "UPDATE token_keys SET is_rotating = (key_id = ?1 AND ?2)";
            on.prepare_cached(sql)?
                .execute(params![key.as_str(), wanted])?;
            Ok(DeviceOutcome::Done(1))
        }
        KeyJob::Count => count_keys(on),
    }
}

fn told(device: Option<Device>) -> DeviceOutcome {
    device.map_or(DeviceOutcome::Unknown, |device| {
        DeviceOutcome::Device(Box::new(device))
    })
}

fn register(
    on: &Connection,
    registration: &SealedRegistration,
    limits: &DeviceLimits,
    now: Now,
) -> rusqlite::Result<Result<Registered, Full>> {
    let (app_id, device_id) = (&registration.app_id, &registration.device_id);
    let known = devices::find(on, app_id, device_id)?;
    if known.is_none() && count_of_app(on, app_id)? >= limits.per_app {
        return Ok(Err(Full::App));
    }
    let had = known.as_ref().and_then(user_of);
    let (is_new, indexes) = (known.is_none(), registration.token.indexes.clone());
    let device = match known {
        None => Device::begin(registration.clone(), now),
        Some(mut device) => {
            device.register(registration.clone(), now);
            device
        }
    };
    let others = other_holders(on, &device, &indexes)?;
    let user = &device.profile.user_id;
    if let Some(user) = user.as_ref().filter(|user| had.as_ref() != Some(user)) {
        let leaving = others
            .iter()
            .filter(|it| it.profile.user_id.as_ref() == Some(user));
        let stay = count_of_user(on, app_id, user)?.saturating_sub(leaving.count() as u64);
        if stay >= limits.per_user {
            return Ok(Err(Full::User));
        }
    }
    let replaced = replace(on, others, now)?;
    devices::put(on, &device)?;
    count_sealed(on, &device.sealed.key_id, 1)?;
    Ok(Ok(Registered {
        device,
        is_new,
        replaced,
    }))
}

/// As whose active device it counts.
fn user_of(device: &Device) -> Option<String> {
    let user = device.profile.user_id.clone();
    user.filter(|_| device.state == State::Active)
}

fn other_holders(
    on: &Connection,
    device: &Device,
    indexes: &[String],
) -> rusqlite::Result<Vec<Device>> {
    let mut found = devices::holders(on, &device.app_id, indexes)?;
    found.retain(|other| other.id != device.id);
    Ok(found)
}

fn replace(on: &Connection, others: Vec<Device>, now: Now) -> rusqlite::Result<u32> {
    let count = others.len() as u32;
    for mut other in others {
        other.retire(Retired::Replaced, now);
        devices::put(on, &other)?;
    }
    Ok(count)
}

fn update(
    on: &Connection,
    mut device: Device,
    update: &SealedUpdate,
    limits: &DeviceLimits,
    now: Now,
) -> rusqlite::Result<DeviceOutcome> {
    if !update.is_for(&device) {
        return Ok(DeviceOutcome::Changed);
    }
    let had = user_of(&device);
    device.update(update.clone(), now);
    let user = user_of(&device).filter(|user| had.as_ref() != Some(user));
    if let Some(user) = user
        && count_of_user(on, &device.app_id, &user)? >= limits.per_user
    {
        return Ok(DeviceOutcome::Full(Full::User));
    }
    if let Some((_, token)) = &update.token {
        let others = other_holders(on, &device, &token.indexes)?;
        replace(on, others, now)?;
        count_sealed(on, &device.sealed.key_id, 1)?;
    }
    devices::put(on, &device)?;
    Ok(told(Some(device)))
}

fn set_topic(
    on: &Connection,
    mut device: Device,
    (topic, wanted): (&str, bool),
    limits: &DeviceLimits,
    now: Now,
) -> rusqlite::Result<DeviceOutcome> {
    let topics = &mut device.profile.topics;
    let changed = match wanted {
        true => topics.insert(topic.to_string()),
        false => topics.remove(topic),
    };
    if topics.len() > limits.topics {
        return Ok(DeviceOutcome::Full(Full::Topics));
    }
    if changed {
        device.updated_ms = now.unix_ms;
        devices::put(on, &device)?;
    }
    Ok(told(Some(device)))
}

fn count_of_app(on: &Connection, app_id: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT devices FROM device_counts WHERE app_id = ?";
    let mut statement = on.prepare_cached(sql)?;
    let count: Option<i64> = statement.query_row([app_id], |row| row.get(0)).optional()?;
    Ok(count.unwrap_or(0) as u64)
}

fn count_of_user(on: &Connection, app_id: &str, user_id: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) FROM device_registrations \
               WHERE app_id = ? AND user_id = ? AND is_active = 1";
    let mut statement = on.prepare_cached(sql)?;
    let count: i64 = statement.query_row([app_id, user_id], |row| row.get(0))?;
    Ok(count as u64)
}

fn count_sealed(on: &Connection, key: &KeyId, more: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE token_keys SET sealed = sealed + ? WHERE key_id = ?";
    on.prepare_cached(sql)?
        .execute(params![more as i64, key.as_str()])?;
    Ok(())
}

fn list(
    on: &Connection,
    (app_id, filter): (&str, &DeviceFilter),
    after: &str,
    count: u32,
) -> rusqlite::Result<DeviceOutcome> {
    let mut sql = "SELECT d.* FROM device_registrations d".to_string();
    let mut values: Vec<&dyn ToSql> = Vec::new();
    if let Some(topic) = &filter.topic {
        sql.push_str(
            " JOIN device_topics t ON t.device = d.id AND t.app_id = d.app_id AND t.topic = ?",
        );
        values.push(topic);
    }
    sql.push_str(" WHERE d.app_id = ? AND d.id > ?");
    values.extend([&app_id as &dyn ToSql, &after]);
    let platform = filter.platform.map(|platform| platform.word());
    if let Some(platform) = &platform {
        sql.push_str(" AND d.platform = ?");
        values.push(platform);
    }
    if let Some(user_id) = &filter.user_id {
        sql.push_str(" AND d.user_id = ?");
        values.push(user_id);
    }
    if let Some(is_active) = &filter.is_active {
        sql.push_str(" AND d.is_active = ?");
        values.push(is_active);
    }
    // One more than wanted tells whether the list goes on.
    sql.push_str(" ORDER BY d.id LIMIT ?");
    let rows = i64::from(count) + 1;
    values.push(&rows);
    let mut statement = on.prepare_cached(&sql)?;
    let found = statement.query_map(params_from_iter(values), read)?;
    let found = found.map(|device| with_topics(on, device?));
    let mut found = found.collect::<rusqlite::Result<Vec<_>>>()?;
    let goes_on = found.len() > count as usize;
    found.truncate(count as usize);
    let next = found.last().map(|last| last.id.clone());
    Ok(DeviceOutcome::List(found, next.filter(|_| goes_on)))
}

fn reseal(on: &Connection, rows: &[Resealed]) -> rusqlite::Result<DeviceOutcome> {
    let sql = "UPDATE device_registrations SET encrypted_token = ?, token_iv = ?, token_tag = ?, \
               token_key_id = ?, token_binding = ?, token_index = ? \
               WHERE id = ? AND encrypted_token = ? AND token_iv = ? AND token_key_id = ?";
    let mut statement = on.prepare_cached(sql)?;
    let mut done = 0;
    for Resealed { id, was, sealed } in rows {
        done += statement.execute(params![
            sealed.encrypted_token,
            sealed.token_iv,
            sealed.token_tag,
            sealed.key_id.as_str(),
            sealed.binding.number(),
            sealed.index,
            id,
            was.encrypted_token,
            was.token_iv,
            was.key_id.as_str(),
        ])? as u64;
    }
    if let Some(first) = rows.first() {
        count_sealed(on, &first.sealed.key_id, rows.len() as u64)?;
    }
    Ok(DeviceOutcome::Done(done))
}

fn count_keys(on: &Connection) -> rusqlite::Result<DeviceOutcome> {
    let sql = "SELECT key_id, sealed, is_rotating, \
               (SELECT count(*) FROM device_registrations WHERE token_key_id = key_id) AS tokens, \
               (SELECT count(*) FROM device_registrations \
                WHERE token_key_id = key_id AND token_binding = ?) AS unbound \
               FROM token_keys ORDER BY created_at, key_id";
    let mut statement = on.prepare_cached(sql)?;
    let keys = statement.query_map([Binding::Context.number()], |row| {
        let number = |column: &str| row.get::<_, i64>(column).map(|count| count as u64);
        Ok(KeyUse {
            key: word(row, "key_id", read_key_id)?,
            tokens: number("tokens")?,
            unbound: number("unbound")?,
            sealed: number("sealed")?,
            is_rotating: row.get("is_rotating")?,
        })
    })?;
    Ok(DeviceOutcome::Keys(keys.collect::<rusqlite::Result<_>>()?))
}

fn upkeep(on: &Connection, keep_ms: u64, count: u32, now: Now) -> rusqlite::Result<DeviceOutcome> {
    let sql = "SELECT * FROM device_registrations \
               WHERE is_active = 1 AND token_expires_at IS NOT NULL AND token_expires_at <= ? LIMIT ?";
    let mut statement = on.prepare_cached(sql)?;
    let found = statement.query_map(params![now.unix_ms as i64, count], read)?;
    let mut expired = 0;
    for device in found {
        let mut device = with_topics(on, device?)?;
        debug_assert_eq!(device.upkeep(keep_ms, now), Upkeep::Retire);
        device.retire(Retired::Expired, now);
        devices::put(on, &device)?;
        expired += 1;
    }
    let sql = "DELETE FROM device_registrations WHERE id IN (SELECT id FROM device_registrations \
               WHERE is_active = 0 AND inactive_since <= ? LIMIT ?)";
    let since = now.unix_ms.saturating_sub(keep_ms) as i64;
    let removed = on.prepare_cached(sql)?.execute(params![since, count])?;
    Ok(DeviceOutcome::Upkept {
        expired,
        removed: removed as u64,
        more: expired.max(removed as u64) >= u64::from(count),
    })
}

#[cfg(test)]
#[path = "device_jobs_tests.rs"]
mod tests;

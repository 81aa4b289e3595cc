//! The jobs of `push/devices/jobs` on the tables of devices. Knows how a job becomes queries, and not
//! who wants it done. Where several write, those who register devices of one app take turns, so
//! that its limits hold.

use std::collections::BTreeSet;

use crate::base::now::Now;
use crate::push::devices::census::Census;
use crate::push::devices::device::{
    Device, Retired, SealedRegistration, SealedUpdate, State, Upkeep,
};
use crate::push::devices::jobs::{
    DeviceFilter, DeviceJob, DeviceLimits, DeviceOutcome, Full, KeyJob, KeyUse, Registered,
    Resealed,
};
use crate::push::devices::token_key::KeyId;
use crate::push::devices::vault::Binding;
use crate::store::devices::{self, read_all, read_key_id, word};
use crate::store::news;
use crate::store::rows::{Result, Rows, Value, values};

/// To be called in a transaction.
pub fn run(on: &dyn Rows, job: &DeviceJob) -> Result<DeviceOutcome> {
    take_turns(on, job)?;
    match job {
        DeviceJob::Register {
            registrations,
            limits,
            now,
        } => {
            let all = registrations.iter();
            let done = all.map(|registration| register(on, registration, limits, *now));
            let done = done.collect::<Result<_>>()?;
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
            let removed = on.execute(sql, &values![app_id, user_id])?;
            Ok(DeviceOutcome::Done(removed))
        }
        DeviceJob::List {
            app_id,
            filter,
            after,
            count,
        } => list(on, (app_id, filter), after, *count),
        DeviceJob::Keys(job) => carry_out_keys(on, job),
        DeviceJob::Count { after, count, now } => census(on, after, *count, *now),
        DeviceJob::Upkeep {
            keep_ms,
            count,
            now,
        } => upkeep(on, *keep_ms, *count, *now),
    }
}

fn carry_out_keys(on: &dyn Rows, job: &KeyJob) -> Result<DeviceOutcome> {
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
            on.execute(sql, &values![key.as_str(), *wanted])?;
            Ok(DeviceOutcome::Done(1))
        }
        KeyJob::Count => count_keys(on),
    }
}

/// Others may count the devices of an app when we have put ours.
fn take_turns(on: &dyn Rows, job: &DeviceJob) -> Result<()> {
    // In their order, so that nobody waits for somebody who waits.
    let apps: BTreeSet<&String> = match job {
        DeviceJob::Register { registrations, .. } => {
            registrations.iter().map(|it| &it.app_id).collect()
        }
        DeviceJob::Update { app_id, .. } => [app_id].into(),
        _ => return Ok(()),
    };
    let mut apps = apps.into_iter();
    apps.try_for_each(|app_id| on.take_turn(&format!("devices/{app_id}")))
}

fn told(device: Option<Device>) -> DeviceOutcome {
    device.map_or(DeviceOutcome::Unknown, |device| {
        DeviceOutcome::Device(Box::new(device))
    })
}

/// A registration, or what is full.
type Attempt = std::result::Result<Registered, Full>;

fn register(
    on: &dyn Rows,
    registration: &SealedRegistration,
    limits: &DeviceLimits,
    now: Now,
) -> Result<Attempt> {
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

fn other_holders(on: &dyn Rows, device: &Device, indexes: &[String]) -> Result<Vec<Device>> {
    let mut found = devices::holders(on, &device.app_id, indexes)?;
    found.retain(|other| other.id != device.id);
    Ok(found)
}

fn replace(on: &dyn Rows, others: Vec<Device>, now: Now) -> Result<u32> {
    let count = others.len() as u32;
    for mut other in others {
        other.retire(Retired::Replaced, now);
        devices::put(on, &other)?;
        news::note_retired(on, &other)?;
    }
    Ok(count)
}

fn update(
    on: &dyn Rows,
    mut device: Device,
    update: &SealedUpdate,
    limits: &DeviceLimits,
    now: Now,
) -> Result<DeviceOutcome> {
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
    on: &dyn Rows,
    mut device: Device,
    (topic, wanted): (&str, bool),
    limits: &DeviceLimits,
    now: Now,
) -> Result<DeviceOutcome> {
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

fn count_of_app(on: &dyn Rows, app_id: &str) -> Result<u64> {
    let sql = "SELECT devices FROM device_counts WHERE app_id = ?";
    let count = on.first(sql, &values![app_id])?;
    count.map_or(Ok(0), |row| row.get(0))
}

fn count_of_user(on: &dyn Rows, app_id: &str, user_id: &str) -> Result<u64> {
    let sql = "SELECT count(*) FROM device_registrations \
               WHERE app_id = ? AND user_id = ? AND is_active";
    let count = on.first(sql, &values![app_id, user_id])?;
    count.map_or(Ok(0), |row| row.get(0))
}

fn count_sealed(on: &dyn Rows, key: &KeyId, more: u64) -> Result<()> {
    let sql = "UPDATE token_keys SET sealed = sealed + ? WHERE key_id = ?";
    on.execute(sql, &values![more, key.as_str()]).map(|_| ())
}

fn list(
    on: &dyn Rows,
    (app_id, filter): (&str, &DeviceFilter),
    after: &str,
    count: u32,
) -> Result<DeviceOutcome> {
    let mut sql = "SELECT d.* FROM device_registrations d".to_string();
    if filter.user_id.is_some() {
        sql.push_str(&on.by("device_by_user"));
    }
    let mut values: Vec<Value> = Vec::new();
    if let Some(topic) = &filter.topic {
        sql.push_str(
            " JOIN device_topics t ON t.device = d.id AND t.app_id = d.app_id AND t.topic = ?",
        );
        values.push(topic.into());
    }
    sql.push_str(" WHERE d.app_id = ? AND d.id > ?");
    values.extend(values![app_id, after]);
    if let Some(platform) = filter.platform {
        sql.push_str(" AND d.platform = ?");
        values.push(platform.word().into());
    }
    if let Some(user_id) = &filter.user_id {
        sql.push_str(" AND d.user_id = ?");
        values.push(user_id.into());
    }
    match filter.is_active {
        Some(true) => sql.push_str(" AND d.is_active"),
        Some(false) => sql.push_str(" AND NOT d.is_active"),
        None => {}
    }
    // One more than wanted tells whether the list goes on.
    sql.push_str(" ORDER BY d.id LIMIT ?");
    values.push((u64::from(count) + 1).into());
    let mut found = read_all(on, &on.query(&sql, &values)?)?;
    let goes_on = found.len() > count as usize;
    found.truncate(count as usize);
    let next = found.last().map(|last| last.id.clone());
    Ok(DeviceOutcome::List(found, next.filter(|_| goes_on)))
}

fn reseal(on: &dyn Rows, rows: &[Resealed]) -> Result<DeviceOutcome> {
    let sql = "UPDATE device_registrations SET encrypted_token = ?, token_iv = ?, token_tag = ?, \
               token_key_id = ?, token_binding = ?, token_index = ? \
               WHERE id = ? AND encrypted_token = ? AND token_iv = ? AND token_key_id = ?";
    let changes = rows.iter().map(|Resealed { id, was, sealed }| {
        values![
            &sealed.encrypted_token,
            &sealed.token_iv,
            &sealed.token_tag,
            sealed.key_id.as_str(),
            sealed.binding.number(),
            &sealed.index,
            id,
            &was.encrypted_token,
            &was.token_iv,
            was.key_id.as_str(),
        ]
        .to_vec()
    });
    let done = on.execute_each(sql, &changes.collect::<Vec<_>>())?;
    if let Some(first) = rows.first() {
        count_sealed(on, &first.sealed.key_id, rows.len() as u64)?;
    }
    Ok(DeviceOutcome::Done(done.iter().sum()))
}

fn count_keys(on: &dyn Rows) -> Result<DeviceOutcome> {
    let sql = "SELECT key_id, sealed, is_rotating, \
               (SELECT count(*) FROM device_registrations WHERE token_key_id = key_id) AS tokens, \
               (SELECT count(*) FROM device_registrations \
                WHERE token_key_id = key_id AND token_binding = ?) AS unbound, \
               (SELECT count(*) FROM credentials \
                WHERE credentials.key_id = token_keys.key_id) AS credentials \
               FROM token_keys ORDER BY created_at, key_id";
    let keys = on.query(sql, &values![Binding::Context.number()])?;
    let keys = keys.iter().map(|row| {
        Ok(KeyUse {
            key: word(row, "key_id", read_key_id)?,
            tokens: row.get("tokens")?,
            unbound: row.get("unbound")?,
            credentials: row.get("credentials")?,
            sealed: row.get("sealed")?,
            is_rotating: row.get("is_rotating")?,
        })
    });
    Ok(DeviceOutcome::Keys(keys.collect::<Result<_>>()?))
}

fn census(on: &dyn Rows, after: &str, count: u32, now: Now) -> Result<DeviceOutcome> {
    let sql = "SELECT id, is_active, token_expires_at, last_known_latitude, last_known_longitude \
               FROM device_registrations WHERE id > ? ORDER BY id LIMIT ?";
    let found = on.query(sql, &values![after, count])?;
    let mut census = Census::default();
    for row in &found {
        let place = devices::read_place(row)?;
        let expires = row.get("token_expires_at")?;
        census.count(row.get("is_active")?, expires, place.as_ref(), now);
    }
    let last = found.last().filter(|_| found.len() >= count as usize);
    let next = last.map(|row| row.get("id")).transpose()?;
    Ok(DeviceOutcome::Counted(Box::new(census), next))
}

fn upkeep(on: &dyn Rows, keep_ms: u64, count: u32, now: Now) -> Result<DeviceOutcome> {
    let sql = format!(
        "SELECT * FROM device_registrations \
         WHERE is_active AND token_expires_at IS NOT NULL AND token_expires_at <= ? LIMIT ?{}",
        on.free("")
    );
    let found = on.query(&sql, &values![now.unix_ms, count])?;
    let mut expired = 0;
    for mut device in read_all(on, &found)? {
        debug_assert_eq!(device.upkeep(keep_ms, now), Upkeep::Retire);
        device.retire(Retired::Expired, now);
        devices::put(on, &device)?;
        news::note_retired(on, &device)?;
        expired += 1;
    }
    let sql = format!(
        "DELETE FROM device_registrations WHERE id IN (SELECT id FROM device_registrations \
         WHERE NOT is_active AND inactive_since <= ? LIMIT ?{})",
        on.free("")
    );
    let since = now.unix_ms.saturating_sub(keep_ms);
    let removed = on.execute(&sql, &values![since, count])?;
    Ok(DeviceOutcome::Upkept {
        expired,
        removed,
        more: expired.max(removed) >= u64::from(count),
    })
}

#[cfg(test)]
#[path = "device_jobs_tests.rs"]
mod tests;

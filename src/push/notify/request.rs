//! What a backend sends to `POST /apps/ID/notify`: read and checked, so that nothing of it can fail
//! later but the reaching itself. Invariant: whatever is wrong is told with the name of its field.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::base::limits::Limits;
use crate::base::names::{is_event_name, is_name};
use crate::base::now::Now;
use crate::push::devices::geo::Area;
use crate::push::devices::token::Platform;
use crate::push::notify::quiet::Quiet;
use crate::push::notify::spec::{Deliver, LiveEvent, OnUnknown, Spec, Wording};
use crate::push::notify::template;
use crate::push::providers::address::Address;
use crate::push::providers::note::{Note, Priority};
use crate::wire::pusher::parse_object;

pub const BODY_BYTES: usize = 256 * 1024;
const USERS_MAX: usize = 1_000;
const DEVICES_MAX: usize = 1_000;
const TOPICS_MAX: usize = 20;
const CHANNELS_MAX: usize = 100;
const LOCALES_MAX: usize = 50;
/// Of a topic or a device's name; no registration has longer ones.
const NAME_BYTES: usize = 200;
/// Visible ASCII.
pub const KEY_BYTES: usize = 128;
const ACK_SECONDS: f64 = 10.0;
const ACK_SECONDS_MAX: f64 = 3_600.0;
const AHEAD_SECONDS_MAX: u64 = 30 * 24 * 3_600;
/// A longer text in another language is nobody's notification.
const WORDING_BYTES: usize = 4_096;
/// Stands for the id of a note that has none yet.
const SOME_ID: &str = "00000000-0000-4000-8000-000000000000";

/// See the file's head. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub spec: Spec,
    pub idempotency_key: Option<String>,
    pub send_at_ms: u64,
    pub expires_ms: Option<u64>,
}

/// Why it is not taken, beginning with the name of the field.
pub type Fault = String;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    note: Option<&'a RawValue>,
    #[serde(borrow)]
    locales: Option<&'a RawValue>,
    #[serde(borrow)]
    template: Option<&'a RawValue>,
    #[serde(borrow)]
    deliver: Option<&'a RawValue>,
    #[serde(borrow)]
    ack_timeout: Option<&'a RawValue>,
    #[serde(borrow)]
    send_at: Option<&'a RawValue>,
    #[serde(borrow)]
    delay: Option<&'a RawValue>,
    #[serde(borrow)]
    expires: Option<&'a RawValue>,
    #[serde(borrow)]
    quiet: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    collapse: Option<&'a RawValue>,
    #[serde(borrow)]
    on_unknown: Option<&'a RawValue>,
    #[serde(borrow)]
    dry_run: Option<&'a RawValue>,
    #[serde(borrow)]
    idempotency_key: Option<&'a RawValue>,
}

impl Request {
    /// `header`: the idempotency key as a header field, which is as good as the field.
    pub fn read(
        body: &[u8],
        header: Option<&str>,
        limits: &Limits,
        now: Now,
    ) -> Result<Request, Fault> {
        if body.len() > BODY_BYTES {
            return Err(format!("the body is longer than {BODY_BYTES} bytes"));
        }
        let text = str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
        let raw: Raw<'_> = parse_object(text).map_err(|error| error.to_string())?;
        let mut spec = Spec {
            note: field("note", raw.note)?.unwrap_or_default(),
            on_unknown: field::<OnUnknown>("on_unknown", raw.on_unknown)?.unwrap_or_default(),
            to: field("to", raw.to)?.ok_or("to is missing")?,
            deliver: field::<Deliver>("deliver", raw.deliver)?.unwrap_or_default(),
            event: field("event", raw.event)?,
            ack_ms: ack_ms(raw.ack_timeout)?,
            quiet: field::<Quiet>("quiet", raw.quiet)?,
            locales: locales(raw.locales)?,
            template: field("template", raw.template)?.unwrap_or_default(),
        };
        let (send_at_ms, expires_ms) = times(&raw, &mut spec.note, now)?;
        if let Some(priority) = field::<Priority>("priority", raw.priority)? {
            spec.note.priority = priority;
        }
        if let Some(collapse) = field("collapse", raw.collapse)? {
            spec.note.collapse = Some(collapse);
        }
        if let Some(true) = field("dry_run", raw.dry_run)? {
            spec.note.dry_run = true;
        }
        if spec.note.dry_run {
            // Nobody is to see anything.
            spec.deliver = Deliver::Push;
        }
        check_to(&mut spec, limits)?;
        check_note(&mut spec)?;
        check_event(&spec, limits)?;
        let key = field("idempotency_key", raw.idempotency_key)?;
        Ok(Request {
            spec,
            idempotency_key: read_key(key.or(header.map(str::to_string)))?,
            send_at_ms,
            expires_ms,
        })
    }
}

fn field<T: DeserializeOwned>(name: &str, raw: Option<&RawValue>) -> Result<Option<T>, Fault> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
        return Ok(None);
    };
    let read = serde_json::from_str(raw.get());
    read.map(Some).map_err(|error| format!("{name}: {error}"))
}

fn ack_ms(raw: Option<&RawValue>) -> Result<u64, Fault> {
    let seconds: f64 = field("ack_timeout", raw)?.unwrap_or(ACK_SECONDS);
    match (1.0..=ACK_SECONDS_MAX).contains(&seconds) {
        true => Ok((seconds * 1_000.0) as u64),
        false => Err(format!(
            "ack_timeout is not between 1 and {ACK_SECONDS_MAX} seconds"
        )),
    }
}

fn locales(raw: Option<&RawValue>) -> Result<BTreeMap<String, Wording>, Fault> {
    let sent: BTreeMap<String, Wording> = field("locales", raw)?.unwrap_or_default();
    if sent.len() > LOCALES_MAX {
        return Err(format!("locales has more than {LOCALES_MAX} entries"));
    }
    let mut read = BTreeMap::new();
    for (tag, wording) in sent {
        let is_tag = (2..=35).contains(&tag.len())
            && tag
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !is_tag {
            return Err(format!("locales: {tag:?} is no language tag such as de-AT"));
        }
        let texts = [&wording.title, &wording.subtitle, &wording.body];
        if texts
            .into_iter()
            .flatten()
            .any(|it| it.len() > WORDING_BYTES)
        {
            let why = format!("locales: a text of {tag} is longer than {WORDING_BYTES} bytes");
            return Err(why);
        }
        read.insert(tag.to_ascii_lowercase().replace('_', "-"), wording);
    }
    Ok(read)
}

/// When it goes out and until when it is worth it; the latter is the note's, too.
fn times(raw: &Raw<'_>, note: &mut Note, now: Now) -> Result<(u64, Option<u64>), Fault> {
    let now_seconds = now.unix_ms / 1000;
    let send_at: Option<u64> = field("send_at", raw.send_at)?;
    let delay: Option<u64> = field("delay", raw.delay)?;
    let ahead = match (send_at, delay) {
        (Some(_), Some(_)) => return Err("delay: send_at says already when".to_string()),
        (Some(at), None) => at.saturating_sub(now_seconds),
        (None, delay) => delay.unwrap_or(0),
    };
    if ahead > AHEAD_SECONDS_MAX {
        let name = if send_at.is_some() {
            "send_at"
        } else {
            "delay"
        };
        return Err(format!(
            "{name} is more than {AHEAD_SECONDS_MAX} seconds ahead; times are seconds since 1970"
        ));
    }
    let send_at_ms = now.unix_ms + ahead * 1_000;
    if let Some(expires) = field::<u32>("expires", raw.expires)? {
        note.expires = Some(expires);
    }
    // 0: now or never, as the provider reads it.
    let expires = note.expires.filter(|expires| *expires > 0);
    let expires_ms = expires.map(|seconds| u64::from(seconds) * 1_000);
    match expires_ms.is_some_and(|expires| expires <= send_at_ms) {
        true => Err("expires is over before it is sent; times are seconds since 1970".to_string()),
        false => Ok((send_at_ms, expires_ms)),
    }
}

fn check_to(spec: &mut Spec, limits: &Limits) -> Result<(), Fault> {
    let (deliver, to) = (spec.deliver, &mut spec.to);
    let user = |id: &str| is_name(id, limits.user_id_bytes);
    let name = |name: &str| (1..=NAME_BYTES).contains(&name.len());
    let channel = |name: &str| is_name(name, limits.channel_name_bytes);
    check_list("to.users", &mut to.users, USERS_MAX, user)?;
    check_list("to.devices", &mut to.devices, DEVICES_MAX, name)?;
    check_list("to.topics", &mut to.topics, TOPICS_MAX, name)?;
    check_list("to.channels", &mut to.channels, CHANNELS_MAX, channel)?;
    let wrong = |name: &str, why: &str| Err(format!("to.{name}: {why}"));
    if let Some(platform) = &to.platform
        && Platform::from_word(platform).is_none()
    {
        return wrong("platform", "is none of ios, android, web");
    }
    if let Some(area) = &to.area
        && let Err(why) = Area::read(&area.to_string())
    {
        return wrong("area", &why);
    }
    let topic = to.fcm_topic.as_deref().map(Address::fcm_topic);
    let condition = to.fcm_condition.as_deref().map(Address::fcm_condition);
    let broadcast = to.apns_channel.as_deref().map(Address::apns_channel);
    let addresses = [
        ("fcm_topic", topic),
        ("fcm_condition", condition),
        ("apns_channel", broadcast),
    ];
    for (name, address) in addresses {
        if let Some(Err(why)) = address {
            return wrong(name, why);
        }
    }
    let pushed = !to.steps().is_empty() || !to.addresses().is_empty();
    let live = !to.channels.is_empty();
    match (to.users.is_empty(), pushed, live) {
        (true, false, false) => Err("to names nobody".to_string()),
        (_, true, _) if !deliver.is_push() => Err(
            "deliver: devices, topics, platform, area and addresses cannot be reached live".into(),
        ),
        (_, _, true) if !deliver.is_live() => {
            Err("deliver: channels can be reached live only".to_string())
        }
        _ => Ok(()),
    }
}

/// Each name once, none that cannot be one.
fn check_list(
    field: &str,
    names: &mut Vec<String>,
    most: usize,
    is_one: impl Fn(&str) -> bool,
) -> Result<(), Fault> {
    if names.len() > most {
        return Err(format!("{field} has more than {most} entries"));
    }
    if let Some(bad) = names.iter().find(|name| !is_one(name)) {
        let shown: String = bad.chars().take(40).collect();
        return Err(format!("{field}: {shown:?} cannot be one"));
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(())
}

fn check_note(spec: &mut Spec) -> Result<(), Fault> {
    if !spec.note.id.is_empty() {
        return Err("note.id: the notification's id is chosen here".to_string());
    }
    // Channels, and users with an event of its own, need no note.
    if spec.deliver == Deliver::Live && spec.event.is_some() && spec.note == Note::default() {
        return Ok(());
    }
    if spec.template {
        check_template(spec)?;
    }
    let note = spec.note_for(None, SOME_ID.to_string());
    note.check().map_err(|why| format!("note: {why}"))
}

fn check_template(spec: &Spec) -> Result<(), Fault> {
    let own = [&spec.note.title, &spec.note.subtitle, &spec.note.body];
    let other = spec.locales.iter().flat_map(|(tag, wording)| {
        let texts = [&wording.title, &wording.subtitle, &wording.body];
        texts.map(|text| (tag.as_str(), text))
    });
    for (tag, text) in own.map(|text| ("", text)).into_iter().chain(other) {
        let Some(text) = text else { continue };
        let field = if tag.is_empty() { "note" } else { "locales" };
        let filled = template::fill(text, &spec.note.data);
        let filled = filled.map_err(|why| format!("{field}: {why}"))?;
        if filled.len() > WORDING_BYTES {
            let why =
                format!("{field}: a text is longer than {WORDING_BYTES} bytes when filled in");
            return Err(why);
        }
    }
    Ok(())
}

fn check_event(spec: &Spec, limits: &Limits) -> Result<(), Fault> {
    let is_live = !spec.to.users.is_empty() || !spec.to.channels.is_empty();
    if let Some(LiveEvent { name, .. }) = &spec.event {
        let most = limits.event_name_bytes;
        let taken = name.starts_with("pusher:") || name.starts_with("pusher_internal:");
        if !is_event_name(name, most) || taken {
            return Err(format!(
                "event.name is empty, longer than {most} bytes, not printable, or begins with pusher:"
            ));
        }
        if !is_live || !spec.deliver.is_live() {
            return Err("event: nobody is to be reached live".to_string());
        }
    }
    let (_, data) = spec.live_event(SOME_ID);
    let most = limits.event_data_bytes;
    match is_live && spec.deliver.is_live() && data.len() > most {
        true => Err(format!("event: its data is longer than {most} bytes")),
        false => Ok(()),
    }
}

fn read_key(key: Option<String>) -> Result<Option<String>, Fault> {
    let visible = |key: &str| key.bytes().all(|byte| byte.is_ascii_graphic());
    match key {
        Some(key) if !(1..=KEY_BYTES).contains(&key.len()) || !visible(&key) => Err(format!(
            "idempotency_key is not 1 to {KEY_BYTES} visible ASCII characters"
        )),
        key => Ok(key),
    }
}

/// For an acknowledgement over HTTP: `{"user_id":…}`.
pub fn read_acknowledging_user(body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Acknowledgement {
        user_id: String,
    }
    let read = serde_json::from_slice::<Acknowledgement>(body);
    read.map(|it| it.user_id).map_err(|error| error.to_string())
}

/// As JSON, for what repeats a request.
pub fn canonical(body: &[u8]) -> Vec<u8> {
    // Keys are sorted where serde_json keeps no order; blanks do not count.
    let value = serde_json::from_slice::<Value>(body).unwrap_or_default();
    value.to_string().into_bytes()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

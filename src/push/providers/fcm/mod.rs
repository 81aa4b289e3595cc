//! Firebase Cloud Messaging, HTTP v1: one message to a token, an installation, a topic or a condition
//! (Firebase, "FCM HTTP v1 API"). Owns which field of a note stands where in a message. The pass is
//! `account`'s, the answers are `verdict`'s, the pace is `quota`'s, who is in a topic `topics`'.

pub mod account;
pub mod quota;
pub mod topics;
pub mod verdict;

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::providers::address::Address;
use crate::push::providers::apns::payload;
use crate::push::providers::note::{Note, Priority, lay_over};
use crate::push::providers::provider::{Answer, Method, Pass, Patience, Provider, Request, Unfit};
use crate::push::providers::verdict::Ruling;

pub const ORIGIN: &str = "https://fcm.googleapis.com";

/// What FCM keeps a message for at most, and what it assumes.
const FOUR_WEEKS: u32 = 28 * 24 * 3600;
/// Keys and values, in bytes.
pub const PAYLOAD_BYTES: usize = 4096;
const TOPIC_PAYLOAD_BYTES: usize = 2048;
/// No key of `data` may be one of these or begin with one of the others.
const RESERVED_KEYS: [&str; 2] = ["from", "message_type"];
const RESERVED_PREFIXES: [&str; 2] = ["google", "gcm"];
const TARGETS: [&str; 4] = ["token", "fid", "topic", "condition"];

/// One project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fcm {
    /// `ORIGIN`, or a relay; without a path.
    pub origin: String,
    /// Its id or number.
    pub project: String,
}

impl Provider for Fcm {
    fn request(
        &self,
        note: &Note,
        to: &Address,
        pass: Option<&Pass>,
        now: Now,
        _: &mut Dice,
    ) -> Result<Request, Unfit> {
        let pass = pass.ok_or(Unfit::Pass)?;
        let (target, value) = match to {
            Address::FcmToken(token) => ("token", token),
            Address::FcmFid(fid) => ("fid", fid),
            Address::FcmTopic(topic) => ("topic", topic),
            Address::FcmCondition(condition) => ("condition", condition),
            _ => return Err(Unfit::Address),
        };
        let limit = match to {
            Address::FcmTopic(_) | Address::FcmCondition(_) => TOPIC_PAYLOAD_BYTES,
            _ => PAYLOAD_BYTES,
        };
        let mut message = message(note, now, limit)?;
        message[target] = json!(value);
        let body = json!({"validate_only": note.dry_run, "message": message});
        let path = format!("/v1/projects/{}/messages:send", self.project);
        let mut request = Request::new(Method::Post, &self.origin, path);
        request.secret_field("authorization", &pass.authorization);
        Ok(request.with_body("application/json", body.to_string().into_bytes()))
    }

    fn ruling(&self, answer: &Answer<'_>, now: Now) -> Ruling {
        verdict::ruling(answer, now)
    }

    fn patience(&self) -> Patience {
        Patience {
            answer: Duration::from_secs(15),
            first_retry: Duration::from_secs(10),
            give_up: Duration::from_secs(3600),
        }
    }
}

/// A message without its target; `limit` as FCM counts bytes.
pub fn message(note: &Note, now: Now, limit: usize) -> Result<Value, Unfit> {
    let mut message = Map::new();
    let data = data(note)?;
    let notification = texts(&[
        ("title", &note.title),
        ("body", &note.body),
        ("image", &note.image),
    ]);
    let left = note.seconds_left(now.unix_seconds())?;
    for (name, part) in [
        ("data", data),
        ("notification", notification),
        ("android", android(note, left)),
        ("apns", apns(note)?),
        ("webpush", webpush(note, left)),
    ] {
        if !part.is_empty() {
            message.insert(name.to_string(), Value::Object(part));
        }
    }
    if TARGETS.iter().any(|it| note.fcm.message.contains_key(*it)) {
        return Err(Unfit::Note("fcm.message names a target".to_string()));
    }
    lay_over(&mut message, &note.fcm.message);
    let message = Value::Object(message);
    let bytes = weight(&message["data"]) + weight(&message["notification"]);
    match bytes > limit {
        true => Err(Unfit::TooLarge { bytes, limit }),
        false => Ok(message),
    }
}

fn texts(fields: &[(&str, &Option<String>)]) -> Map<String, Value> {
    let there = fields.iter();
    there
        .filter_map(|(name, value)| Some((name.to_string(), json!(value.as_ref()?))))
        .collect()
}

/// FCM takes strings only; anything else goes as its JSON.
fn data(note: &Note) -> Result<Map<String, Value>, Unfit> {
    let mut data = Map::new();
    for (key, value) in &note.data {
        let mut prefixes = RESERVED_PREFIXES.iter();
        let is_reserved = RESERVED_KEYS.contains(&key.as_str());
        if is_reserved || prefixes.any(|prefix| key.starts_with(prefix)) {
            return Err(Unfit::Note(format!("data has a key {key}, which is FCM's")));
        }
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        data.insert(key.clone(), json!(text));
    }
    Ok(data)
}

fn android(note: &Note, left: Option<u32>) -> Map<String, Value> {
    let mut android = texts(&[("collapse_key", &note.collapse)]);
    let urgent = note.priority == Priority::High && !note.silent;
    let priority = if urgent { "HIGH" } else { "NORMAL" };
    android.insert("priority".to_string(), json!(priority));
    if let Some(left) = left {
        let ttl = format!("{}s", left.min(FOUR_WEEKS));
        android.insert("ttl".to_string(), json!(ttl));
    }
    let mut shown = texts(&[("sound", &note.sound), ("channel_id", &note.category)]);
    if let Some(badge) = note.badge {
        shown.insert("notification_count".to_string(), json!(badge));
    }
    if !shown.is_empty() {
        android.insert("notification".to_string(), Value::Object(shown));
    }
    android
}

/// For iPhones that FCM reaches; it adds title, body and data itself.
fn apns(note: &Note) -> Result<Map<String, Value>, Unfit> {
    let mut aps = payload::aps(note)?;
    if note.subtitle.is_none() {
        aps.remove("alert");
    }
    let shows = payload::has_alert(note) || note.sound.is_some() || note.badge.is_some();
    let mut headers = texts(&[("apns-collapse-id", &note.collapse)]);
    if !shows {
        aps.insert("content-available".to_string(), json!(1));
    }
    let priority = match note.priority {
        _ if !shows => "5",
        Priority::High => "10",
        Priority::Normal => "5",
        Priority::Low => "1",
    };
    headers.insert("apns-priority".to_string(), json!(priority));
    if let Some(expires) = note.expires {
        headers.insert("apns-expiration".to_string(), json!(expires.to_string()));
    }
    let mut apns = Map::new();
    apns.insert("headers".to_string(), Value::Object(headers));
    if !aps.is_empty() {
        apns.insert("payload".to_string(), json!({"aps": aps}));
    }
    if let Some(image) = &note.image {
        apns.insert("fcm_options".to_string(), json!({"image": image}));
    }
    Ok(apns)
}

fn webpush(note: &Note, left: Option<u32>) -> Map<String, Value> {
    let mut webpush = Map::new();
    if let Some(left) = left {
        let ttl = left.min(FOUR_WEEKS).to_string();
        webpush.insert("headers".to_string(), json!({"TTL": ttl}));
    }
    if let Some(link) = &note.link {
        webpush.insert("fcm_options".to_string(), json!({"link": link}));
    }
    webpush
}

/// The bytes of all keys and strings.
fn weight(value: &Value) -> usize {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| key.len() + weight(value))
            .sum(),
        Value::Array(values) => values.iter().map(weight).sum(),
        Value::String(text) => text.len(),
        Value::Null => 0,
        other => other.to_string().len(),
    }
}

#[cfg(test)]
mod tests;

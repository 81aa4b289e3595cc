//! What a client says of its device, as JSON: read, checked, and the changes it asks for. Does not
//! know whether the client may say so. Invariants: what is wrong is told with the name of the field
//! and nothing of what stood there. A client that copies the token it sends into another field, where
//! it would be kept in clear, is refused.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::base::names::is_name;
use crate::base::now::Now;
use crate::push::devices::geo::Point;
use crate::push::devices::token::{ClearToken, Platform, Service};

/// A token is said to expire within this time, or it is milliseconds where seconds belong.
const EXPIRY_MAX_SECONDS: u64 = 10 * 366 * 24 * 3600;
const LOCALE_BYTES_MAX: usize = 35;
const TIME_ZONE_BYTES_MAX: usize = 64;
/// Shorter tokens are no provider's, and would be found in many a word.
const COPY_BYTES_MIN: usize = 16;

/// How much a client may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceBounds {
    pub device_id_bytes: usize,
    pub user_id_bytes: usize,
    /// Of one device.
    pub topics: usize,
    pub topic_bytes: usize,
    /// Of the JSON, as sent.
    pub metadata_bytes: usize,
}

impl Default for DeviceBounds {
    /// Topics are as long as Pusher's interests.
    fn default() -> DeviceBounds {
        DeviceBounds {
            device_id_bytes: 128,
            user_id_bytes: 128,
            topics: 1_000,
            topic_bytes: 164,
            metadata_bytes: 4_096,
        }
    }
}

/// What is known of a device beside its token; nothing of it has to be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    pub user_id: Option<String>,
    pub topics: BTreeSet<String>,
    /// In milliseconds since 1970.
    pub token_expires_ms: Option<u64>,
    pub location: Option<Point>,
    /// A JSON object.
    pub metadata: Option<String>,
    /// As in BCP 47: `de-AT`.
    pub locale: Option<String>,
    /// By its name in the IANA database: `Europe/Vienna`.
    pub time_zone: Option<String>,
}

/// What a client wants to be different: what it left out stays, what is `Some(None)` goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    pub user_id: Option<Option<String>>,
    pub topics: Option<BTreeSet<String>>,
    pub token_expires_ms: Option<Option<u64>>,
    pub location: Option<Option<Point>>,
    pub metadata: Option<Option<String>>,
    pub locale: Option<Option<String>>,
    pub time_zone: Option<Option<String>>,
}

impl Change {
    pub fn apply(self, profile: &mut Profile) {
        fn put<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        put(&mut profile.user_id, self.user_id);
        put(&mut profile.topics, self.topics);
        put(&mut profile.token_expires_ms, self.token_expires_ms);
        put(&mut profile.location, self.location);
        put(&mut profile.metadata, self.metadata);
        put(&mut profile.locale, self.locale);
        put(&mut profile.time_zone, self.time_zone);
    }
}

/// A device that is new, or that comes again; the same words either way.
#[derive(Debug)]
pub struct Registration {
    pub device_id: String,
    pub platform: Platform,
    pub token: ClearToken,
    pub change: Change,
}

/// News of a device that is registered.
#[derive(Debug)]
pub struct Update {
    /// A new token of the same service.
    pub token: Option<ClearToken>,
    pub change: Change,
}

/// Why it is not taken, for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationFault {
    /// Empty: all of it.
    pub field: &'static str,
    pub why: Cow<'static, str>,
}

impl RegistrationFault {
    pub fn text(&self) -> String {
        match self.field {
            "" => self.why.to_string(),
            field => format!("{field} {}", self.why),
        }
    }
}

type Checked<T> = Result<T, RegistrationFault>;

fn fault<T>(field: &'static str, why: impl Into<Cow<'static, str>>) -> Checked<T> {
    let why = why.into();
    Err(RegistrationFault { field, why })
}

/// The fields as they were sent; `null` is there, too.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw<'a> {
    #[serde(borrow, deserialize_with = "sent")]
    device_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    platform: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    service: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    token: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    token_expires_at: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    topics: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    location: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    locale: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "sent")]
    time_zone: Option<&'a RawValue>,
}

fn sent<'a, D: Deserializer<'a>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLocation {
    latitude: f64,
    longitude: f64,
}

/// A list would be read field by field, too, and nobody could know in which order it was meant.
fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
}

/// Of a Web Push subscription only what concerns the registration.
#[derive(Deserialize)]
struct RawExpiry {
    /// In milliseconds since 1970, with a fraction (`DOMHighResTimeStamp`).
    #[serde(rename = "expirationTime")]
    expiration_time: Option<f64>,
}

impl Registration {
    /// Reads `{"device_id", "platform", "token", …}`; without `service` it is the platform's usual
    /// one. The token of Web Push may be the subscription itself or its text.
    pub fn read(json: &str, bounds: &DeviceBounds, now: Now) -> Checked<Registration> {
        let raw = Raw::read(json)?;
        let device_id = read_text("device_id", raw.device_id)?;
        if !is_name(&device_id, bounds.device_id_bytes) {
            return fault("device_id", alphabet(bounds.device_id_bytes));
        }
        let platform = Platform::from_word(&read_text("platform", raw.platform)?);
        let Some(platform) = platform else {
            return fault("platform", "is none of ios, android, web");
        };
        let service = match raw.service {
            None => platform.usual_service(),
            Some(_) => match Service::from_word(&read_text("service", raw.service)?) {
                Some(service) if service.is_on(platform) => service,
                Some(_) => return fault("service", "does not reach this platform"),
                None => {
                    return fault(
                        "service",
                        "is none of apns, apns-sandbox, fcm, fcm-fid, webpush",
                    );
                }
            },
        };
        let token = read_token(service, raw.token)?;
        let change = raw.change_with(&token, Some(&device_id), bounds, now)?;
        Ok(Registration {
            device_id: device_id.into_owned(),
            platform,
            token,
            change,
        })
    }
}

impl Update {
    /// Reads the same fields without `device_id`, `platform` and `service`. What is `null` goes.
    pub fn read(json: &str, service: Service, bounds: &DeviceBounds, now: Now) -> Checked<Update> {
        let raw = Raw::read(json)?;
        let fixed = [
            ("device_id", raw.device_id),
            ("platform", raw.platform),
            ("service", raw.service),
        ];
        if let Some((field, _)) = fixed.iter().find(|(_, sent)| sent.is_some()) {
            return fault(field, "cannot change; register the device anew");
        }
        if raw.token.is_none() {
            let (token, change) = (None, raw.change(bounds, now)?);
            return Ok(Update { token, change });
        }
        let token = read_token(service, raw.token)?;
        let change = raw.change_with(&token, None, bounds, now)?;
        let token = Some(token);
        Ok(Update { token, change })
    }
}

impl<'a> Raw<'a> {
    fn read(json: &'a str) -> Checked<Raw<'a>> {
        if !is_object(json) {
            return fault("", "this is no JSON object");
        }
        serde_json::from_str(json).or_else(|error| {
            // Such a message quotes what it found, which may be the token in a wrong place.
            let text = error.to_string();
            let name = text.split('`').nth(1).filter(|name| is_name(name, 32));
            match (name, error.is_data()) {
                (Some(name), true) => fault(
                    "",
                    format!("{name} is no field of a device, or is there twice"),
                ),
                (None, true) => fault("", "this is no JSON object with the fields of a device"),
                _ => fault(
                    "",
                    format!(
                        "this is no JSON: line {}, column {}",
                        error.line(),
                        error.column()
                    ),
                ),
            }
        })
    }

    /// The change that goes with a token.
    fn change_with(
        &self,
        token: &ClearToken,
        device_id: Option<&str>,
        bounds: &DeviceBounds,
        now: Now,
    ) -> Checked<Change> {
        let mut change = self.change(bounds, now)?;
        if let (Service::WebPush, None) = (token.service(), change.token_expires_ms) {
            change.token_expires_ms = Some(read_subscription_expiry(self.token, now)?);
        }
        check_copies(token, device_id, &change)?;
        Ok(change)
    }

    fn change(&self, bounds: &DeviceBounds, now: Now) -> Checked<Change> {
        let user_id = unless_null(self.user_id, |sent| {
            let id = read_text("user_id", Some(sent))?;
            match is_name(&id, bounds.user_id_bytes) {
                true => Ok(id.into_owned()),
                false => fault("user_id", alphabet(bounds.user_id_bytes)),
            }
        })?;
        let topics = unless_null(self.topics, |sent| read_topics(sent, bounds))?;
        Ok(Change {
            user_id,
            topics: topics.map(Option::unwrap_or_default),
            token_expires_ms: unless_null(self.token_expires_at, |sent| {
                let seconds: Result<u64, _> = serde_json::from_str(sent.get());
                match seconds.ok().and_then(|seconds| seconds.checked_mul(1000)) {
                    Some(ms) => check_expiry("token_expires_at", ms, now),
                    None => fault("token_expires_at", "is not in whole seconds since 1970"),
                }
            })?,
            location: unless_null(self.location, read_location)?,
            metadata: unless_null(self.metadata, |sent| read_metadata(sent, bounds))?,
            locale: unless_null(self.locale, read_locale)?,
            time_zone: unless_null(self.time_zone, read_time_zone)?,
        })
    }
}

/// Left out: `None`; `null`: `Some(None)`.
fn unless_null<T>(
    sent: Option<&RawValue>,
    read: impl FnOnce(&RawValue) -> Checked<T>,
) -> Checked<Option<Option<T>>> {
    match sent {
        None => Ok(None),
        Some(sent) if sent.get() == "null" => Ok(Some(None)),
        Some(sent) => read(sent).map(|value| Some(Some(value))),
    }
}

fn alphabet(bytes_max: usize) -> String {
    format!("is not 1 to {bytes_max} letters, digits and any of _-=@,.;")
}

fn read_text<'a>(field: &'static str, sent: Option<&'a RawValue>) -> Checked<Cow<'a, str>> {
    /// A plain `Cow` would copy even where there is nothing to unescape.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let Some(sent) = sent else {
        return fault(field, "is missing");
    };
    match serde_json::from_str::<Text<'_>>(sent.get()) {
        Ok(Text(text)) => Ok(text),
        Err(_) => fault(field, "is not a string"),
    }
}

fn read_token(service: Service, sent: Option<&RawValue>) -> Checked<ClearToken> {
    let token = match sent.filter(|sent| is_object(sent.get())) {
        Some(sent) if service == Service::WebPush => ClearToken::parse(service, sent.get()),
        _ => ClearToken::parse(service, &read_text("token", sent)?),
    };
    token.or_else(|why| fault("token", why))
}

/// A subscription says itself when it ends, if it does.
fn read_subscription_expiry(token: Option<&RawValue>, now: Now) -> Checked<Option<u64>> {
    let text = match token {
        Some(sent) if is_object(sent.get()) => Cow::Borrowed(sent.get()),
        sent => read_text("token", sent)?,
    };
    let expiry: Result<RawExpiry, _> = serde_json::from_str(&text);
    match expiry.map(|raw| raw.expiration_time) {
        Ok(Some(ms)) => check_expiry("expirationTime", ms as u64, now).map(Some),
        Ok(None) => Ok(None),
        Err(_) => fault("expirationTime", "is not in milliseconds since 1970"),
    }
}

fn check_expiry(field: &'static str, ms: u64, now: Now) -> Checked<u64> {
    if ms <= now.unix_ms {
        return fault(field, "is in the past");
    }
    if ms > now.unix_ms.saturating_add(EXPIRY_MAX_SECONDS * 1000) {
        return fault(field, "is more than ten years away");
    }
    Ok(ms)
}

fn read_topics(sent: &RawValue, bounds: &DeviceBounds) -> Checked<BTreeSet<String>> {
    let Ok(topics) = serde_json::from_str::<Vec<Cow<'_, str>>>(sent.get()) else {
        return fault("topics", "is not a list of strings");
    };
    if topics.len() > bounds.topics {
        return fault("topics", format!("has more than {} entries", bounds.topics));
    }
    if !topics
        .iter()
        .all(|topic| is_name(topic, bounds.topic_bytes))
    {
        return fault(
            "topics",
            format!("has one that {}", alphabet(bounds.topic_bytes)),
        );
    }
    Ok(topics.into_iter().map(Cow::into_owned).collect())
}

fn read_location(sent: &RawValue) -> Checked<Point> {
    match serde_json::from_str::<RawLocation>(sent.get()) {
        Ok(raw) if is_object(sent.get()) => match Point::new(raw.latitude, raw.longitude) {
            Ok(point) => Ok(point),
            Err(why) => fault("location", format!("is no place: {why}")),
        },
        _ => fault(
            "location",
            "is not {\"latitude\", \"longitude\"} in degrees",
        ),
    }
}

fn read_metadata(sent: &RawValue, bounds: &DeviceBounds) -> Checked<String> {
    if sent.get().len() > bounds.metadata_bytes {
        return fault(
            "metadata",
            format!("is longer than {} bytes", bounds.metadata_bytes),
        );
    }
    if !is_object(sent.get()) {
        return fault("metadata", "is not a JSON object");
    }
    Ok(sent.get().to_string())
}

/// BCP 47, by its alphabet; iOS and Java write an underscore.
fn read_locale(sent: &RawValue) -> Checked<String> {
    let locale = read_text("locale", Some(sent))?.replace('_', "-");
    let mut parts = locale.split('-');
    let is_word = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let language = parts.next().unwrap_or_default();
    let is_language = language.len() >= 2 && language.bytes().all(|b| b.is_ascii_alphabetic());
    if locale.len() > LOCALE_BYTES_MAX || !is_language || !is_word(language) || !parts.all(is_word)
    {
        return fault("locale", "is no language tag such as de-AT");
    }
    Ok(locale)
}

fn read_time_zone(sent: &RawValue) -> Checked<String> {
    let zone = read_text("time_zone", Some(sent))?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+-".contains(&b);
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(allowed);
    if zone.len() > TIME_ZONE_BYTES_MAX || !zone.split('/').all(is_part) {
        return fault(
            "time_zone",
            "is no name of a time zone such as Europe/Vienna",
        );
    }
    Ok(zone.into_owned())
}

/// Looks for the token in everything else that is kept.
fn check_copies(token: &ClearToken, device_id: Option<&str>, change: &Change) -> Checked<()> {
    let identity = token.identity().to_ascii_lowercase();
    if identity.len() < COPY_BYTES_MIN {
        return Ok(());
    }
    let holds = |text: &str| text.to_ascii_lowercase().contains(&identity);
    let text = |value: &Option<Option<String>>| value.iter().flatten().any(|it| holds(it));
    // Written anew, it holds no escapes that could hide it.
    let metadata = change.metadata.iter().flatten().any(|json| {
        let value: Result<serde_json::Value, _> = serde_json::from_str(json);
        value.is_ok_and(|value| holds(&value.to_string()))
    });
    let places = [
        ("device_id", device_id.is_some_and(holds)),
        ("user_id", text(&change.user_id)),
        ("topics", change.topics.iter().flatten().any(|it| holds(it))),
        ("metadata", metadata),
    ];
    match places.iter().find(|(_, holds)| *holds) {
        Some((field, _)) => fault(field, "holds the token, and is not kept as a secret"),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "registration_tests.rs"]
mod tests;

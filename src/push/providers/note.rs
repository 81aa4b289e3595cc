//! A notification before it is anybody's: what is to be said, how urgent it is, until when it is
//! worth saying; and what a caller wants said differently to one provider. Owns the bounds of its
//! fields. Knows no provider's wire format: each renders it in its own file.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::uuid::is_lower_uuid;

/// Of one text field, in bytes: no provider takes a larger notification.
const TEXT_BYTES: usize = 4096;
/// Apple's bound for `apns-collapse-id`, the smallest there is for a name.
const NAME_BYTES: usize = 64;
const URL_BYTES: usize = 2048;
/// Of `data` and of the overrides, each written as JSON.
const JSON_BYTES: usize = 16 * 1024;
/// Providers keep seconds since 1970 in 31 bits.
const EXPIRES_MAX: u32 = i32::MAX as u32;

/// How much it matters that the device wakes for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// At once: somebody has to act now.
    #[default]
    High,
    /// When it suits the device.
    Normal,
    /// Never wakes it.
    Low,
}

/// See the file's head. All fields but `id` may be left out.
///
/// ```
/// use lineman::push::providers::note::{Note, Priority};
///
/// let note: Note = serde_json::from_str(
///     r#"{"id":"8f14e45f-ceea-467f-9538-1f0a6f0b1c2d","title":"Hi","priority":"normal",
///         "apns":{"interruption_level":"time-sensitive"}}"#,
/// )?;
/// assert_eq!(note.priority, Priority::Normal);
/// assert_eq!(note.check(), Ok(()));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Note {
    /// A lower-case UUID, the same in every attempt; providers that echo an id get this one.
    pub id: String,
    pub title: Option<String>,
    pub subtitle: Option<String>,
    pub body: Option<String>,
    /// `default`, or the name of a sound that the app brings.
    pub sound: Option<String>,
    /// On the app's icon; 0 takes it away.
    pub badge: Option<u32>,
    /// The URL of a picture.
    pub image: Option<String>,
    /// The URL that opens with the notification, where there is a browser.
    pub link: Option<String>,
    /// Which actions the app offers with it; on Android the notification channel.
    pub category: Option<String>,
    /// What it is shown together with.
    pub thread: Option<String>,
    /// For the app. Providers that know strings only get other values as JSON text.
    pub data: Map<String, Value>,
    pub priority: Priority,
    /// Seconds since 1970; 0 means now or never, `None` as long as the provider keeps it.
    pub expires: Option<u32>,
    /// A newer notification of this name takes the place of an older one.
    pub collapse: Option<String>,
    /// Wakes the app and shows nothing.
    pub silent: bool,
    /// Checked by the provider, delivered to nobody.
    pub dry_run: bool,
    pub apns: ApnsOverride,
    pub fcm: FcmOverride,
    pub webpush: WebPushOverride,
}

/// For APNs alone; what is set here wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApnsOverride {
    /// `alert`, `background`, … (`push/providers/apns`); by default what the note's content asks for.
    pub push_type: Option<String>,
    /// The whole topic, suffix included.
    pub topic: Option<String>,
    /// 10, 5 or 1.
    pub priority: Option<u8>,
    /// `passive`, `active`, `time-sensitive` or `critical`.
    pub interruption_level: Option<String>,
    pub relevance_score: Option<f64>,
    /// A service extension of the app may change it before it is shown.
    pub mutable_content: Option<bool>,
    pub live_activity: Option<LiveActivity>,
    /// Laid over the finished payload, `aps` key by key; null removes.
    pub payload: Map<String, Value>,
}

/// Apple, "Starting and updating Live Activities with ActivityKit push notifications".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveActivity {
    pub event: ActivityEvent,
    /// Decoded by Swift's default decoder: dates in it are seconds since 2001.
    pub content_state: Map<String, Value>,
    /// Seconds since 1970, and so is `dismissal_date`.
    #[serde(default)]
    pub stale_date: Option<u64>,
    #[serde(default)]
    pub dismissal_date: Option<u64>,
    /// Both belong to a start.
    #[serde(default)]
    pub attributes_type: Option<String>,
    #[serde(default)]
    pub attributes: Option<Map<String, Value>>,
    /// A started activity asks for a token of its own, from iOS 18.
    #[serde(default)]
    pub input_push_token: bool,
    /// Or listens to this broadcast channel.
    #[serde(default)]
    pub input_push_channel: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivityEvent {
    Start,
    Update,
    End,
}

/// For FCM alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FcmOverride {
    /// Laid over the finished `message`, object by object; null removes. Not its target.
    pub message: Map<String, Value>,
}

/// For Web Push alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebPushOverride {
    /// `very-low`, `low`, `normal` or `high` (RFC 8030 section 5.3).
    pub urgency: Option<String>,
    /// Instead of the JSON that `push/providers/webpush` writes.
    pub payload: Option<Value>,
}

impl Note {
    /// Whether every field keeps its bounds and the note has anything to say.
    pub fn check(&self) -> Result<(), String> {
        if !is_lower_uuid(&self.id) {
            return Err("id is not a lower-case UUID".to_string());
        }
        let fields = [
            ("title", &self.title, TEXT_BYTES),
            ("subtitle", &self.subtitle, TEXT_BYTES),
            ("body", &self.body, TEXT_BYTES),
            ("sound", &self.sound, NAME_BYTES),
            ("image", &self.image, URL_BYTES),
            ("link", &self.link, URL_BYTES),
            ("category", &self.category, NAME_BYTES),
            ("thread", &self.thread, NAME_BYTES),
            ("collapse", &self.collapse, NAME_BYTES),
        ];
        for (name, value, most) in fields {
            let Some(value) = value else { continue };
            if value.len() > most {
                return Err(format!("{name} is longer than {most} bytes"));
            }
        }
        // It becomes a header field.
        let collapse = self.collapse.as_deref().unwrap_or("-");
        if collapse.is_empty() || !collapse.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("collapse is empty or not made of visible ASCII characters".to_string());
        }
        if self.expires.is_some_and(|at| at > EXPIRES_MAX) {
            return Err(format!("expires is later than {EXPIRES_MAX}"));
        }
        self.check_json()?;
        self.check_content()
    }

    fn check_json(&self) -> Result<(), String> {
        let maps = [
            ("data", &self.data),
            ("apns.payload", &self.apns.payload),
            ("fcm.message", &self.fcm.message),
        ];
        let maps = maps.map(|(name, map)| (name, serde_json::to_string(map)));
        let payload = serde_json::to_string(&self.webpush.payload);
        for (name, json) in maps.into_iter().chain([("webpush.payload", payload)]) {
            if json.is_ok_and(|json| json.len() > JSON_BYTES) {
                return Err(format!("{name} is longer than {JSON_BYTES} bytes"));
            }
        }
        Ok(())
    }

    fn check_content(&self) -> Result<(), String> {
        let shows = self.title.is_some() || self.body.is_some() || self.sound.is_some();
        if self.silent && shows {
            return Err("a silent note has neither title, body nor sound".to_string());
        }
        let overrides = !self.apns.payload.is_empty()
            || !self.fcm.message.is_empty()
            || self.webpush.payload.is_some()
            || self.apns.live_activity.is_some();
        match shows || self.badge.is_some() || !self.data.is_empty() || self.silent || overrides {
            true => Ok(()),
            false => Err("the note says nothing".to_string()),
        }
    }

    /// Seconds until it expires, `None` if it does not say when; 0 means now or never.
    /// An error: that is over.
    pub fn seconds_left(&self, unix_seconds: i64) -> Result<Option<u32>, Expired> {
        match self.expires {
            None => Ok(None),
            Some(0) => Ok(Some(0)),
            Some(at) => match i64::from(at) - unix_seconds {
                left @ 1.. => Ok(Some(u32::try_from(left).unwrap_or(u32::MAX))),
                _ => Err(Expired),
            },
        }
    }
}

/// The note is not worth sending any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

/// Lays `over` on `under`: objects key by key, all else replaced, null removes (RFC 7396).
pub fn lay_over(under: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match value {
            Value::Null => {
                under.remove(key);
            }
            Value::Object(over) => {
                let slot = under.entry(key.clone()).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(under) = slot {
                    lay_over(under, over);
                }
            }
            _ => {
                under.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8f14e45f-ceea-467f-9538-1f0a6f0b1c2d";

    fn read(json: &str) -> Result<(), String> {
        let note: Note = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Note {
            id: ID.to_string(),
            ..note
        }
        .check()
    }

    #[test]
    fn a_note_that_keeps_its_bounds_is_taken() {
        for json in [
            r#"{"title":"a"}"#,
            r#"{"body":"a","expires":0,"collapse":"score"}"#,
            r#"{"badge":0}"#,
            r#"{"silent":true,"data":{"a":{"b":1}}}"#,
            r#"{"fcm":{"message":{"data":{"a":"b"}}}}"#,
        ] {
            assert_eq!(read(json), Ok(()), "{json}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_note_is_said() {
        let long = format!(r#"{{"title":"{}"}}"#, "a".repeat(4097));
        let heavy = format!(r#"{{"data":{{"a":"{}"}}}}"#, "a".repeat(16 * 1024));
        let table = [
            ("{}", "the note says nothing"),
            (long.as_str(), "title is longer than 4096 bytes"),
            (heavy.as_str(), "data is longer than 16384 bytes"),
            (r#"{"title":"a","collapse":""}"#, "collapse is empty"),
            (r#"{"title":"a","collapse":"a\nb"}"#, "collapse is empty or"),
            (r#"{"title":"a","expires":2147483648}"#, "expires is later"),
            (
                r#"{"title":"a","silent":true}"#,
                "a silent note has neither",
            ),
            (r#"{"title":"a","bdy":"b"}"#, "unknown field `bdy`"),
        ];
        for (json, expected) in table {
            let error = read(json).expect_err(json);
            assert!(error.starts_with(expected), "{error}");
        }
        let upper = Note {
            id: ID.to_uppercase(),
            ..Note::default()
        };
        assert_eq!(upper.check(), Err("id is not a lower-case UUID".into()));
    }

    #[test]
    fn what_is_left_is_counted_from_now() {
        let left = |expires| {
            let note = Note {
                expires,
                ..Note::default()
            };
            note.seconds_left(1000)
        };
        assert_eq!(left(None), Ok(None));
        assert_eq!(left(Some(0)), Ok(Some(0)));
        assert_eq!(left(Some(1300)), Ok(Some(300)));
        assert_eq!(left(Some(1000)), Err(Expired));
        assert_eq!(left(Some(300)), Err(Expired), "no duration");
    }

    #[test]
    fn objects_are_laid_over_each_other_and_null_removes() {
        let map = |json: &str| -> Map<String, Value> { serde_json::from_str(json).expect("JSON") };
        let mut under = map(r#"{"a":{"b":1,"c":2},"d":[1]}"#);
        lay_over(
            &mut under,
            &map(r#"{"a":{"b":null,"e":3},"d":[2],"f":{"g":null}}"#),
        );
        assert_eq!(under, map(r#"{"a":{"c":2,"e":3},"d":[2],"f":{}}"#));
    }
}

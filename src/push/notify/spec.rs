//! A notification as it was asked for: what is said, to whom, in which way. Kept as JSON beside its
//! deliveries; the event of the live side and each device's note are made from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::push::devices::device::Device;
use crate::push::devices::geo::Area;
use crate::push::devices::token::Platform;
use crate::push::notify::quiet::Quiet;
use crate::push::notify::template;
use crate::push::providers::note::Note;

/// The event of a notification that names none.
pub const EVENT: &str = "lineman:notification";
/// Under which the data of every event holds the notification's id.
pub const ID_FIELD: &str = "notification_id";

/// See the file's head.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// Its `id` is set for each delivery.
    pub note: Note,
    /// What is done when nobody can say whether a provider has it.
    pub on_unknown: OnUnknown,
    pub to: Recipients,
    pub deliver: Deliver,
    pub event: Option<LiveEvent>,
    /// How long an acknowledgement is waited for.
    pub ack_ms: u64,
    pub quiet: Option<Quiet>,
    /// By language tag, in lower case.
    pub locales: BTreeMap<String, Wording>,
    /// Whether texts have placeholders.
    pub template: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// Sent again: it may come twice.
    #[default]
    Retry,
    /// Failed: it may not come at all.
    Fail,
}

/// On which ways it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deliver {
    /// To connections alone.
    Live,
    /// To devices alone.
    Push,
    /// To both at once.
    Both,
    /// To a user's connections, and to his devices if there are none or none acknowledges in time.
    #[default]
    Reach,
}

impl Deliver {
    pub fn is_live(self) -> bool {
        self != Deliver::Push
    }

    pub fn is_push(self) -> bool {
        self != Deliver::Live
    }
}

/// An event of the live side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveEvent {
    pub name: String,
    #[serde(default)]
    pub data: Map<String, Value>,
}

/// What is said in one language; what is left out is the note's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wording {
    pub title: Option<String>,
    pub subtitle: Option<String>,
    pub body: Option<String>,
}

/// Whom it is for: all of those that are named. Platform and area make the devices fewer; without
/// users, devices and topics they are those devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipients {
    pub users: Vec<String>,
    /// By the names that clients gave them.
    pub devices: Vec<String>,
    /// Of our registry.
    pub topics: Vec<String>,
    /// Reached live alone.
    pub channels: Vec<String>,
    pub platform: Option<String>,
    /// As `push/devices/geo::Area` reads it.
    pub area: Option<Value>,
    /// Of FCM: it knows who is meant.
    pub fcm_topic: Option<String>,
    pub fcm_condition: Option<String>,
    /// A broadcast channel of APNs.
    pub apns_channel: Option<String>,
}

/// How devices are looked for, one step after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    Named(&'a [String]),
    Topic(&'a str),
    /// All that platform and area leave.
    All,
}

impl Recipients {
    pub fn platform(&self) -> Option<Platform> {
        Platform::from_word(self.platform.as_deref()?)
    }

    pub fn area(&self) -> Option<Area> {
        Area::read(&self.area.as_ref()?.to_string()).ok()
    }

    /// In which order devices are looked for; users are looked for before.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let named = Some(Step::Named(&self.devices)).filter(|_| !self.devices.is_empty());
        let topics = self.topics.iter().map(|topic| Step::Topic(topic.as_str()));
        let filtered = self.platform.is_some() || self.area.is_some();
        let nobody = self.users.is_empty() && self.devices.is_empty() && self.topics.is_empty();
        let all = Some(Step::All).filter(|_| filtered && nobody);
        named.into_iter().chain(topics).chain(all).collect()
    }

    /// Addresses that only their provider can look behind, as `deliveries.address` has them.
    pub fn addresses(&self) -> Vec<String> {
        let named = [
            ("fcm_topic", &self.fcm_topic),
            ("fcm_condition", &self.fcm_condition),
            ("apns_channel", &self.apns_channel),
        ];
        let named = named
            .into_iter()
            .filter_map(|(kind, name)| Some((kind, name.as_ref()?)));
        let json = |(kind, name): (&str, &String)| serde_json::json!({ kind: name }).to_string();
        named.map(json).collect()
    }
}

impl Spec {
    /// What is sent to this device, or to a topic. `id` is a lower-case UUID, the same in every
    /// attempt.
    pub fn note_for(&self, device: Option<&Device>, id: String) -> Note {
        let locale = device.and_then(|device| device.profile.locale.as_deref());
        Note {
            id,
            ..self.worded(locale)
        }
    }

    /// In which of its languages it is said to this device: those who are spoken to in the same one are told
    /// the same. `None`: in the note's own.
    pub fn language_for(&self, device: Option<&Device>) -> Option<&str> {
        let locale = device.and_then(|device| device.profile.locale.as_deref());
        Some(self.wording(locale?)?.0)
    }

    /// The note in the language that fits best: `de-AT`, `de`, or that of the note itself.
    fn worded(&self, locale: Option<&str>) -> Note {
        let mut note = self.note.clone();
        if let Some((_, wording)) = locale.and_then(|locale| self.wording(locale)) {
            let over = |text: &mut Option<String>, other: &Option<String>| {
                if other.is_some() {
                    text.clone_from(other);
                }
            };
            over(&mut note.title, &wording.title);
            over(&mut note.subtitle, &wording.subtitle);
            over(&mut note.body, &wording.body);
        }
        if self.template {
            for text in [&mut note.title, &mut note.subtitle, &mut note.body] {
                let filled = text
                    .as_deref()
                    .map(|text| template::fill(text, &self.note.data));
                // It was tried when the notification was accepted.
                if let Some(Ok(filled)) = filled {
                    *text = Some(filled);
                }
            }
        }
        note
    }

    fn wording(&self, locale: &str) -> Option<(&str, &Wording)> {
        if self.locales.is_empty() {
            return None;
        }
        let mut tag = locale.to_ascii_lowercase();
        loop {
            if let Some((tag, wording)) = self.locales.get_key_value(&tag) {
                return Some((tag, wording));
            }
            let shorter = tag.rfind('-')?;
            tag.truncate(shorter);
        }
    }

    /// Name and data of the event for connections.
    pub fn live_event(&self, id: &str) -> (String, String) {
        let (name, mut data) = match &self.event {
            Some(event) => (event.name.clone(), event.data.clone()),
            None => (EVENT.to_string(), self.note_fields()),
        };
        data.insert(ID_FIELD.to_string(), id.into());
        (name, Value::Object(data).to_string())
    }

    /// What a client can show.
    fn note_fields(&self) -> Map<String, Value> {
        let note = self.worded(None);
        let texts = [
            ("title", note.title),
            ("subtitle", note.subtitle),
            ("body", note.body),
            ("sound", note.sound),
            ("image", note.image),
            ("link", note.link),
            ("category", note.category),
            ("thread", note.thread),
            ("collapse", note.collapse),
        ];
        let named = |(name, text): (&str, Option<String>)| Some((name.to_string(), text?.into()));
        let mut fields: Map<String, Value> = texts.into_iter().filter_map(named).collect();
        if let Some(badge) = note.badge {
            fields.insert("badge".to_string(), badge.into());
        }
        if !note.data.is_empty() {
            fields.insert("data".to_string(), Value::Object(note.data));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Spec {
        serde_json::from_str(json).expect("a spec")
    }

    #[test]
    fn the_language_that_fits_best_is_spoken_and_the_rest_is_the_notes_own() {
        let spec = spec(
            r#"{"note":{"title":"Hello {{name}}","body":"News","data":{"name":"Ann","n":2}},
                "template":true,
                "locales":{"de":{"title":"Hallo {{name}}"},"de-at":{"title":"Servus {{n}}"}}}"#,
        );
        let titles = |locale| spec.worded(locale).title.expect("a title");
        assert_eq!(
            ["de-DE", "de-AT-1996", "fr"].map(|it| spec.wording(it).map(|found| found.0)),
            [Some("de"), Some("de-at"), None]
        );
        assert_eq!(titles(None), "Hello Ann");
        assert_eq!(titles(Some("fr")), "Hello Ann");
        assert_eq!(titles(Some("de")), "Hallo Ann");
        assert_eq!(titles(Some("de-DE")), "Hallo Ann");
        assert_eq!(titles(Some("de-AT")), "Servus 2");
        assert_eq!(
            spec.worded(Some("de-AT-1996")).body.as_deref(),
            Some("News")
        );
    }

    #[test]
    fn an_event_says_which_notification_it_is() {
        let own = spec(r#"{"note":{"title":"a","badge":0,"data":{"b":[1]}}}"#);
        let expected = r#"{"title":"a","badge":0,"data":{"b":[1]},"notification_id":"i"}"#;
        let (name, data) = own.live_event("i");
        assert_eq!(name, EVENT);
        let read = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
        assert_eq!(read(&data), read(expected));
        let named = spec(r#"{"event":{"name":"n","data":{"x":1}}}"#);
        let (name, data) = named.live_event("i");
        assert_eq!(name, "n");
        assert_eq!(read(&data), read(r#"{"x":1,"notification_id":"i"}"#));
    }

    #[test]
    fn a_spec_is_read_back_as_it_was_kept() {
        let text = r#"{"to":{"users":["u"],"platform":"ios"},"deliver":"both","ack_ms":7,
            "quiet":{"from":"22:00","to":"07:00"},"event":{"name":"n"}}"#;
        let spec = spec(text);
        let kept = serde_json::to_string(&spec).expect("JSON");
        assert_eq!(serde_json::from_str::<Spec>(&kept).expect("a spec"), spec);
    }
}

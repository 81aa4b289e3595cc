//! The JSON that APNs hands to a device (Apple, "Generating a remote notification" and "Starting and
//! updating Live Activities"). Owns which field of a note stands where in it. What is not Apple's
//! stands beside `aps`: the note's data, `image` and `link`.

use serde_json::{Map, Value, json};

use crate::base::now::Now;
use crate::push::providers::apns::PushType;
use crate::push::providers::note::{ActivityEvent, LiveActivity, Note, lay_over};
use crate::push::providers::provider::Unfit;

const LEVELS: [&str; 4] = ["passive", "active", "time-sensitive", "critical"];

/// Whether there is something to read.
pub fn has_alert(note: &Note) -> bool {
    note.title.is_some() || note.subtitle.is_some() || note.body.is_some()
}

/// `limit` in bytes of the finished JSON.
pub(super) fn payload(
    note: &Note,
    push_type: PushType,
    now: Now,
    limit: usize,
) -> Result<Vec<u8>, Unfit> {
    if note.data.contains_key("aps") {
        return Err(Unfit::Note(
            "data has a key aps, which is Apple's".to_string(),
        ));
    }
    let mut aps = aps(note)?;
    match &note.apns.live_activity {
        Some(activity) if push_type == PushType::LiveActivity => {
            aps.extend(activity_keys(note, activity, now)?);
        }
        _ if push_type == PushType::Background => {
            let shows = ["alert", "badge", "sound"];
            if shows.iter().any(|key| aps.contains_key(*key)) {
                let why = "a background push has neither title, body, badge nor sound";
                return Err(Unfit::Note(why.to_string()));
            }
            aps.insert("content-available".to_string(), json!(1));
        }
        _ => {}
    }
    let mut payload = Map::new();
    payload.insert("aps".to_string(), Value::Object(aps));
    for (name, value) in [("image", &note.image), ("link", &note.link)] {
        if let Some(value) = value {
            payload.insert(name.to_string(), json!(value));
        }
    }
    payload.extend(note.data.clone());
    lay_over(&mut payload, &note.apns.payload);
    // A payload of device management has none.
    if payload["aps"].as_object().is_some_and(Map::is_empty) {
        payload.remove("aps");
    }
    let bytes = Value::Object(payload).to_string().into_bytes();
    match bytes.len() > limit {
        false => Ok(bytes),
        true => Err(Unfit::TooLarge {
            bytes: bytes.len(),
            limit,
        }),
    }
}

/// What a note says to Apple's own code, Live Activities aside. FCM hands it on as it is.
pub fn aps(note: &Note) -> Result<Map<String, Value>, Unfit> {
    let mut aps = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            aps.insert(key.to_string(), value);
        }
    };
    put("alert", alert(note));
    put("badge", note.badge.map(Value::from));
    put("sound", note.sound.as_deref().map(Value::from));
    put("thread-id", note.thread.as_deref().map(Value::from));
    put("category", note.category.as_deref().map(Value::from));
    // A picture is fetched by the app's service extension, which runs for such notifications only.
    let mutable = note.apns.mutable_content.unwrap_or(note.image.is_some());
    put("mutable-content", mutable.then(|| json!(1)));
    if let Some(level) = &note.apns.interruption_level {
        if !LEVELS.contains(&level.as_str()) {
            let why = format!("apns.interruption_level is none of {}", LEVELS.join(", "));
            return Err(Unfit::Note(why));
        }
        put("interruption-level", Some(json!(level)));
    }
    put(
        "relevance-score",
        note.apns.relevance_score.map(Value::from),
    );
    Ok(aps)
}

fn alert(note: &Note) -> Option<Value> {
    let parts = [
        ("title", &note.title),
        ("subtitle", &note.subtitle),
        ("body", &note.body),
    ];
    let parts = parts.into_iter();
    let alert: Map<String, Value> = parts
        .filter_map(|(key, value)| Some((key.to_string(), json!(value.as_ref()?))))
        .collect();
    (!alert.is_empty()).then_some(Value::Object(alert))
}

fn activity_keys(
    note: &Note,
    activity: &LiveActivity,
    now: Now,
) -> Result<Map<String, Value>, Unfit> {
    let event = match activity.event {
        ActivityEvent::Start => "start",
        ActivityEvent::Update => "update",
        ActivityEvent::End => "end",
    };
    let kind = (&activity.attributes_type, &activity.attributes);
    let whole = has_alert(note) && matches!(kind, (Some(_), Some(_)));
    if activity.event == ActivityEvent::Start && !whole {
        let why = "a Live Activity starts with a title or body, attributes_type and attributes";
        return Err(Unfit::Note(why.to_string()));
    }
    let listens = activity.input_push_channel.as_deref();
    let asks = activity.input_push_token || listens.is_some();
    if asks && activity.event != ActivityEvent::Start {
        let why = "input_push_token and input_push_channel belong to the start of a Live Activity";
        return Err(Unfit::Note(why.to_string()));
    }
    if activity.input_push_token && listens.is_some() {
        let why = "a Live Activity has a token of its own or listens to a channel, not both";
        return Err(Unfit::Note(why.to_string()));
    }
    let keys = [
        ("timestamp", Some(json!(now.unix_seconds()))),
        ("event", Some(json!(event))),
        ("content-state", Some(json!(activity.content_state))),
        ("stale-date", activity.stale_date.map(Value::from)),
        ("dismissal-date", activity.dismissal_date.map(Value::from)),
        ("attributes-type", kind.0.as_deref().map(Value::from)),
        ("attributes", kind.1.clone().map(Value::Object)),
        (
            "input-push-token",
            activity.input_push_token.then(|| json!(1)),
        ),
        ("input-push-channel", listens.map(Value::from)),
    ];
    let keys = keys.into_iter();
    Ok(keys
        .filter_map(|(key, value)| Some((key.to_string(), value?)))
        .collect())
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;

//! What a message for FCM may say (Firebase, "REST Resource: projects.messages"): its target, its
//! fields, its size. Knows no request and no answer.

use serde_json::{Map, Value};

/// Keys and values together.
const BYTES: usize = 4096;
const TOPIC_BYTES: usize = 2048;
const TTL_SECONDS: f64 = 28.0 * 24.0 * 3600.0;
const TARGETS: [&str; 4] = ["token", "fid", "topic", "condition"];
const FIELDS: [&str; 6] = ["name", "data", "notification", "android", "apns", "webpush"];

/// What is wrong with a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its path from the request's body.
    pub field: String,
    pub why: String,
}

fn violation<T>(field: &str, why: &str) -> Result<T, Violation> {
    Err(Violation {
        field: field.to_string(),
        why: why.to_string(),
    })
}

/// Whether the request only wants to be checked (`validate_only`).
pub fn check(body: &Value) -> Result<bool, Violation> {
    let Value::Object(body) = body else {
        return violation("message", "the body is no JSON object");
    };
    let dry = body.get("validate_only").or(body.get("validateOnly"));
    let Some(Value::Object(message)) = body.get("message") else {
        return violation("message", "there is no message");
    };
    let known = ["message", "validate_only", "validateOnly"];
    if let Some(name) = body.keys().find(|name| !known.contains(&name.as_str())) {
        return violation(name, "unknown name");
    }
    for name in message.keys() {
        let options = ["fcm_options", "fcmOptions"];
        let mut all = FIELDS.iter().chain(&TARGETS).chain(&options);
        if !all.any(|own| own == name) {
            return violation(&format!("message.{name}"), "unknown name");
        }
    }
    check_target(message)?;
    check_data("message.data", message.get("data"))?;
    if let Some(notification) = message.get("notification") {
        check_texts(
            "message.notification",
            notification,
            &["title", "body", "image"],
        )?;
    }
    if let Some(android) = message.get("android") {
        check_android(android)?;
    }
    if let Some(headers) = message.get("apns").and_then(|apns| apns.get("headers")) {
        check_data("message.apns.headers", Some(headers))?;
    }
    if let Some(webpush) = message.get("webpush") {
        check_data("message.webpush.headers", webpush.get("headers"))?;
        check_data("message.webpush.data", webpush.get("data"))?;
    }
    check_size(message)?;
    Ok(dry == Some(&Value::Bool(true)))
}

fn check_target(message: &Map<String, Value>) -> Result<(), Violation> {
    let mut targets = TARGETS.iter().filter(|name| message.contains_key(**name));
    let (Some(target), None) = (targets.next(), targets.next()) else {
        let why = "exactly one of token, fid, topic and condition is required";
        return violation("message", why);
    };
    let field = format!("message.{target}");
    let Some(text) = message[*target].as_str().filter(|text| !text.is_empty()) else {
        return violation(&field, "it is no text");
    };
    match *target {
        "topic" if !is_topic(text) => violation(&field, "Malformed topic name"),
        "token" | "fid" if !is_token(text) => violation(
            &field,
            "The registration token is not a valid FCM registration token",
        ),
        _ => Ok(()),
    }
}

pub fn is_topic(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed)
}

/// Whether it has the form of a registration token or an installation's id.
pub fn is_token(token: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
    (1..=4096).contains(&token.len()) && token.bytes().all(allowed)
}

fn check_data(field: &str, data: Option<&Value>) -> Result<(), Violation> {
    match data {
        None => Ok(()),
        Some(Value::Object(data)) => {
            for (name, value) in data {
                let field = format!("{field}.{name}");
                if !value.is_string() {
                    return violation(&field, "it is no text");
                }
                if field.starts_with("message.data") && is_reserved(name) {
                    return violation(&field, "the name is reserved");
                }
            }
            Ok(())
        }
        Some(_) => violation(field, "it is no object"),
    }
}

fn is_reserved(name: &str) -> bool {
    matches!(name, "from" | "message_type") || name.starts_with("google") || name.starts_with("gcm")
}

fn check_texts(field: &str, value: &Value, names: &[&str]) -> Result<(), Violation> {
    let Value::Object(value) = value else {
        return violation(field, "it is no object");
    };
    for (name, value) in value {
        let field = format!("{field}.{name}");
        if !names.contains(&name.as_str()) {
            return violation(&field, "unknown name");
        }
        if !value.is_string() {
            return violation(&field, "it is no text");
        }
    }
    Ok(())
}

fn check_android(android: &Value) -> Result<(), Violation> {
    let Value::Object(android) = android else {
        return violation("message.android", "it is no object");
    };
    check_data("message.android.data", android.get("data"))?;
    let priority = android.get("priority").map(|it| it.as_str());
    if priority.is_some_and(|it| !matches!(it, Some("NORMAL" | "HIGH" | "normal" | "high"))) {
        return violation("message.android.priority", "it is neither NORMAL nor HIGH");
    }
    let ttl = android.get("ttl").map(|ttl| {
        let seconds = ttl.as_str().and_then(|ttl| ttl.strip_suffix('s'));
        seconds.and_then(|it| it.parse::<f64>().ok())
    });
    match ttl {
        None => Ok(()),
        Some(Some(seconds)) if (0.0..=TTL_SECONDS).contains(&seconds) => Ok(()),
        Some(_) => violation(
            "message.android.ttl",
            "it is not a time of up to four weeks such as 3600s",
        ),
    }
}

fn check_size(message: &Map<String, Value>) -> Result<(), Violation> {
    let to_many = message.contains_key("topic") || message.contains_key("condition");
    let most = if to_many { TOPIC_BYTES } else { BYTES };
    let parts = ["data", "notification"];
    let mut size: usize = parts
        .iter()
        .filter_map(|it| message.get(*it))
        .map(texts)
        .sum();
    size += message
        .get("apns")
        .and_then(|apns| apns.get("payload"))
        .map_or(0, |payload| payload.to_string().len());
    match size > most {
        true => violation("message", "Message too big"),
        false => Ok(()),
    }
}

/// The bytes of all names and texts.
fn texts(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(texts).sum(),
        Value::Object(all) => all
            .iter()
            .map(|(name, value)| name.len() + texts(value))
            .sum(),
        other => other.to_string().len(),
    }
}

//! What a mock tells of a request: one object of JSON in one line. Owns its form, which scripts read;
//! decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::base::now::Now;
use crate::mock::{Act, Asked, Caller, Kind, Sight};

/// A payload that is longer is cut, so that a line stays readable.
const TEXT_BYTES: usize = 64 * 1024;

/// See the file's head.
#[derive(Serialize)]
pub struct Line<'a> {
    /// Milliseconds since 1970.
    at: u64,
    provider: &'static str,
    connection: u64,
    http: u8,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    token: &'a str,
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    payload: &'a Value,
    /// Why the payload is not in clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<&'static str>,
    /// Bytes as they came.
    body_bytes: usize,
    /// `{"status":…,"reason":…}`, `"silence"`, `{"reset":…}`, `{"goaway":…}` or `"close"`.
    answer: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
}

impl<'a> Line<'a> {
    pub fn new(
        kind: Kind,
        caller: Caller,
        asked: &'a Asked,
        sight: &'a Sight,
        now: Now,
    ) -> Line<'a> {
        let mut headers: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in &asked.fields {
            let values = headers.entry(name).or_default();
            if !values.is_empty() {
                values.push_str(", ");
            }
            values.push_str(value);
        }
        Line {
            at: now.unix_ms,
            provider: kind.word(),
            connection: caller.connection,
            http: caller.version,
            method: &asked.method,
            path: &asked.target,
            token: &sight.token,
            headers,
            payload: &sight.payload,
            unreadable: sight.unreadable,
            body_bytes: asked.body.len(),
            answer: Value::Null,
            rule: None,
            delay_ms: None,
        }
    }

    /// What was done about it, by which rule.
    pub fn with(mut self, act: &Act, delay: Duration, rule: Option<usize>) -> Line<'a> {
        self.answer = match act {
            Act::Answer(reply, goaway) => {
                let mut answer = json!({ "status": reply.status });
                if !reply.reason.is_empty() {
                    answer["reason"] = json!(reply.reason);
                }
                if let Some(goaway) = goaway {
                    answer["goaway"] = json!(goaway);
                }
                answer
            }
            Act::Silence => json!("silence"),
            Act::Reset(code) => json!({ "reset": code }),
            Act::GoAway(goaway) => json!({ "goaway": goaway }),
            Act::Cut => json!("close"),
        };
        self.rule = rule;
        self.delay_ms = (!delay.is_zero()).then_some(delay.as_millis() as u64);
        self
    }

    pub fn text(&self) -> String {
        // Strings, numbers and values that were JSON before can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Bytes as a person would want to see them: as JSON if they are, else as text, else in base64.
pub fn readable(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return value;
    }
    let cut = &bytes[..bytes.len().min(TEXT_BYTES)];
    match std::str::from_utf8(cut) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": data_encoding::BASE64.encode(cut) }),
    }
}

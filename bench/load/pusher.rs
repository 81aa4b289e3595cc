//! The Pusher Channels protocol as a client and as a publisher see it: the
//! greeting, subscribing, signing an HTTP request, reading an event.
//!
//! It keeps no state but the application's credentials and, like the WebSocket
//! part, shares no line with the server.

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::Fallible;
use crate::options::TargetOptions;
use crate::websocket;
use crate::wire::Wire;

/// Name of every event that the generator publishes.
pub const EVENT: &str = "bench";

/// Name of those that its clients send each other.
pub const CLIENT_EVENT: &str = "client-bench";

/// One application's credentials, with the signing key prepared once.
pub struct App {
    pub id: String,
    pub key: String,
    signer: hmac::Key,
}

impl App {
    /// The application that the options name.
    pub fn of(options: &TargetOptions) -> App {
        App::new(&options.app_id, &options.app_key, &options.app_secret)
    }

    pub fn new(id: &str, key: &str, secret: &str) -> App {
        let signer = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        App {
            id: id.into(),
            key: key.into(),
            signer,
        }
    }

    /// The path a subscriber connects to.
    pub fn socket_path(&self) -> String {
        format!("/app/{}?protocol=7&client=load&version=1.0.0", self.key)
    }

    /// The message that subscribes to `channel`, signed where the channel's
    /// name asks for it.
    pub fn subscribe(&self, socket_id: &str, channel: &str) -> String {
        let mut data = json!({ "channel": channel });
        if channel.starts_with("private-") {
            let signature = self.sign(&format!("{socket_id}:{channel}"));
            data["auth"] = json!(format!("{}:{signature}", self.key));
        }
        json!({ "event": "pusher:subscribe", "data": data }).to_string()
    }

    /// Appends one signed publish as a whole HTTP request.
    pub fn write_publish(&self, out: &mut Vec<u8>, host: &str, at: u64, channel: &str, data: &str) {
        // `data` is made of letters, digits and dots: nothing to escape.
        let body = format!(r#"{{"name":"{EVENT}","channels":["{channel}"],"data":"{data}"}}"#);
        let path = format!("/apps/{}/events", self.id);
        let query = self.signed_query("POST", &path, body.as_bytes(), at);
        let length = body.len();
        out.extend_from_slice(
            format!(
                "POST {path}?{query} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        );
    }

    /// The query that authenticates a request (the signed text is the method,
    /// the path and the sorted parameters, each on a line of its own).
    pub fn signed_query(&self, method: &str, path: &str, body: &[u8], at: u64) -> String {
        let digest = HEXLOWER.encode(&Md5::digest(body));
        let key = &self.key;
        let mut query =
            format!("auth_key={key}&auth_timestamp={at}&auth_version=1.0&body_md5={digest}");
        let signature = self.sign(&format!("{method}\n{path}\n{query}"));
        query.push_str("&auth_signature=");
        query.push_str(&signature);
        query
    }

    fn sign(&self, text: &str) -> String {
        HEXLOWER.encode(hmac::sign(&self.signer, text.as_bytes()).as_ref())
    }
}

/// Checks the first message of a connection and gives its socket id.
pub fn read_greeting(payload: &[u8]) -> Fallible<String> {
    let data = read_event(payload, "pusher:connection_established", None)?;
    let data: Value = serde_json::from_str(&data)?;
    let id = data["socket_id"]
        .as_str()
        .ok_or("greeting without a socket_id")?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !id
        .split_once('.')
        .is_some_and(|(left, right)| digits(left) && digits(right))
    {
        return Err(format!("socket_id {id:?} is not of the form digits.digits").into());
    }
    if data["activity_timeout"].as_u64().unwrap_or(0) == 0 {
        return Err("greeting without an activity_timeout".into());
    }
    Ok(id.to_owned())
}

/// Checks the answer to a subscription.
pub fn check_subscribed(payload: &[u8], channel: &str) -> Fallible<()> {
    read_event(
        payload,
        "pusher_internal:subscription_succeeded",
        Some(channel),
    )
    .map(drop)
}

/// Appends one client event as a whole frame. `data` needs no escapes.
pub fn write_client_event(out: &mut Vec<u8>, channel: &str, data: &str) {
    let parts = [
        r#"{"event":""#,
        CLIENT_EVENT,
        r#"","channel":""#,
        channel,
        r#"","data":""#,
        data,
        r#""}"#,
    ];
    let parts = parts.map(str::as_bytes);
    websocket::write_masked(out, websocket::TEXT, &parts, [2, 4, 6, 8]);
}

/// Answers a ping of the protocol.
pub fn answer_ping(wire: &mut Wire) -> Fallible<()> {
    let text = br#"{"event":"pusher:pong","data":{}}"#;
    let mut frame = Vec::new();
    websocket::write_masked(&mut frame, websocket::TEXT, &[text], [3, 5, 7, 9]);
    Ok(wire.send(&frame)?)
}

/// Whether `payload` is a ping of the protocol (not of the frame layer).
pub fn is_ping(payload: &[u8]) -> bool {
    payload.len() < 100 && memchr::memmem::find(payload, b"\"pusher:ping\"").is_some()
}

/// Checks a delivered event in every field.
pub fn check_event(payload: &[u8], event: &str, channel: &str, data: &str) -> Fallible<()> {
    let got = read_event(payload, event, Some(channel))?;
    if got != data {
        return Err(format!("event with wrong data: {}", excerpt(payload)).into());
    }
    Ok(())
}

/// Signs and hashes known requests; a generator that signs wrongly would
/// measure how fast a server says no.
pub fn check_vectors() -> Fallible<()> {
    let app = App::new("3", "278d425bdf160c739803", "7ad3773142a6692b25b8");
    let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    let query = app.signed_query("POST", "/apps/3/events", body, 1_353_088_179);
    let expected =
        "auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    let private = app.sign("1234.1234:private-foobar");
    if !query.ends_with(expected)
        || private != "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    {
        return Err("the generator's own signatures are wrong".into());
    }
    Ok(())
}

/// The start of a message, for an error text.
pub fn excerpt(payload: &[u8]) -> String {
    String::from_utf8_lossy(&payload[..payload.len().min(300)]).into_owned()
}

/// Reads an envelope, checks its event and channel, and gives its `data`,
/// which has to be a string.
pub fn read_event(payload: &[u8], event: &str, channel: Option<&str>) -> Fallible<String> {
    let envelope: Value = serde_json::from_slice(payload)
        .map_err(|error| format!("not JSON ({error}): {}", excerpt(payload)))?;
    if envelope["event"] != event || channel.is_some_and(|name| envelope["channel"] != name) {
        let wanted = channel.unwrap_or("no channel");
        return Err(format!("expected {event} on {wanted}, got {}", excerpt(payload)).into());
    }
    let data = envelope["data"].as_str();
    let data = data.ok_or_else(|| format!("data is not a string: {}", excerpt(payload)))?;
    Ok(data.to_owned())
}

//! The bodies of publishing calls: read, checked against every limit, and turned into what the
//! bus carries. A batch is good as a whole or refused as a whole.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::ids::SocketId;
use crate::base::limits::Limits;
use crate::base::names::{ChannelKey, ChannelKind, is_event_name, is_name, user_of};
use crate::wire::bus::{Content, InfoWanted, Item};
use crate::wire::pusher::{JsonString, json_string, parse_object};

/// Why a call is refused: the status and a text for the caller.
#[derive(Debug, PartialEq, Eq)]
pub struct BadCall {
    pub status: u16,
    pub text: String,
}

impl BadCall {
    pub fn new(status: u16, text: impl Into<String>) -> BadCall {
        BadCall {
            status,
            text: text.into(),
        }
    }
}

/// One event to publish, checked.
#[derive(Debug)]
pub struct Event {
    pub keys: Vec<ChannelKey>,
    /// JSON strings, quotes included.
    name: String,
    data: String,
    exclude: Option<SocketId>,
    pub info: InfoWanted,
}

impl Event {
    pub fn item(&self) -> Item<'_> {
        Item {
            channels: self.keys.iter().map(ChannelKey::as_str).collect(),
            content: Content::Event {
                name: &self.name,
                data: &self.data,
            },
            user_id: None,
            exclude: self.exclude,
            info: self.info,
        }
    }
}

/// As the SDKs send it: `channels` or, PHP for a single one, `channel`.
#[derive(Deserialize)]
struct EventFields<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    channels: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    socket_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    info: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct BatchFields<'a> {
    #[serde(borrow)]
    batch: Vec<&'a RawValue>,
}

/// Reads the body of `POST /apps/ID/events`.
pub fn parse_event(app_id: &str, body: &[u8], limits: &Limits) -> Result<Event, BadCall> {
    check_event(app_id, parse_json(body)?, limits)
}

/// Reads the body of `POST /apps/ID/batch_events`.
pub fn parse_batch(app_id: &str, body: &[u8], limits: &Limits) -> Result<Vec<Event>, BadCall> {
    let BatchFields { batch } = parse_json(body)?;
    if batch.is_empty() || batch.len() > limits.batch_events {
        let text = format!("A batch holds 1 to {} events", limits.batch_events);
        return Err(BadCall::new(400, text));
    }
    batch
        .into_iter()
        .map(|event| check_event(app_id, parse_text(event.get())?, limits))
        .collect()
}

fn parse_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BadCall> {
    let text =
        simdutf8::basic::from_utf8(body).map_err(|_| BadCall::new(400, "The body is not UTF-8"))?;
    parse_text(text)
}

fn parse_text<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, BadCall> {
    parse_object(text)
        .map_err(|error| BadCall::new(400, format!("The body is not as expected: {error}")))
}

fn check_event(app_id: &str, fields: EventFields<'_>, limits: &Limits) -> Result<Event, BadCall> {
    let name = fields
        .name
        .ok_or_else(|| BadCall::new(400, "name is missing"))?;
    if !is_event_name(&name, limits.event_name_bytes) {
        let text = format!(
            "name must be 1 to {} printable bytes",
            limits.event_name_bytes
        );
        return Err(BadCall::new(400, text));
    }
    let raw = fields
        .data
        .ok_or_else(|| BadCall::new(400, "data is missing"))?;
    let data = JsonString::of(Some(raw))
        .ok_or_else(|| BadCall::new(400, "data is not a valid JSON string"))?;
    if data.len > limits.event_data_bytes {
        let text = format!("data is longer than {} bytes", limits.event_data_bytes);
        return Err(BadCall::new(413, text));
    }
    let exclude = match fields.socket_id.as_deref() {
        None | Some("") => None,
        Some(id) => Some(
            SocketId::parse(id)
                .ok_or_else(|| BadCall::new(400, "socket_id must be like 123.456"))?,
        ),
    };
    let info = parse_info(fields.info.as_deref())?;
    if info.cache {
        let text = "info=cache is told of single channels only";
        return Err(BadCall::new(400, text));
    }
    Ok(Event {
        keys: check_channels(app_id, fields.channels, fields.channel, limits)?,
        name: json_string(&name),
        data: data.json.into_owned(),
        exclude,
        info,
    })
}

fn check_channels(
    app_id: &str,
    channels: Option<Vec<Cow<'_, str>>>,
    channel: Option<Cow<'_, str>>,
    limits: &Limits,
) -> Result<Vec<ChannelKey>, BadCall> {
    let names = channels.unwrap_or_default();
    let mut names: Vec<&str> = names.iter().chain(&channel).map(|name| &**name).collect();
    if names.is_empty() || names.len() > limits.event_channels {
        let text = format!("An event goes to 1 to {} channels", limits.event_channels);
        return Err(BadCall::new(400, text));
    }
    // A channel named twice gets the event once.
    if names.len() > 1 {
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(*name));
    }
    names
        .into_iter()
        .map(|name| match user_of(name) {
            Some(user_id) => check_user(app_id, user_id, limits),
            None => check_channel(app_id, name, limits),
        })
        .collect()
}

/// Checks a user id; the key of the channel that leads to the user.
pub fn check_user(app_id: &str, user_id: &str, limits: &Limits) -> Result<ChannelKey, BadCall> {
    if !is_name(user_id, limits.user_id_bytes) {
        let text = format!(
            "A user id is 1 to {} of A-Z a-z 0-9 _ - = @ , . ;",
            limits.user_id_bytes
        );
        return Err(BadCall::new(400, text));
    }
    Ok(ChannelKey::of_user(app_id, user_id))
}

/// Checks a channel's name.
pub fn check_channel(app_id: &str, name: &str, limits: &Limits) -> Result<ChannelKey, BadCall> {
    if !is_name(name, limits.channel_name_bytes) {
        let shown: String = name.chars().take(40).collect();
        let text = format!(
            "The channel name {shown:?} is not 1 to {} of A-Z a-z 0-9 _ - = @ , . ;",
            limits.channel_name_bytes
        );
        return Err(BadCall::new(400, text));
    }
    Ok(ChannelKey::new(app_id, name))
}

/// Reads a comma-separated list of attributes.
pub fn parse_info(info: Option<&str>) -> Result<InfoWanted, BadCall> {
    let mut wanted = InfoWanted::default();
    for attribute in info
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|a| !a.is_empty())
    {
        match attribute {
            "user_count" => wanted.user_count = true,
            "subscription_count" => wanted.subscription_count = true,
            "cache" => wanted.cache = true,
            "offset" => wanted.offset = true,
            other => {
                let shown: String = other.chars().take(40).collect();
                let text = format!(
                    "info knows user_count, subscription_count, cache and offset, not {shown:?}"
                );
                return Err(BadCall::new(400, text));
            }
        }
    }
    Ok(wanted)
}

/// Presence is counted in presence channels only.
pub fn has_users(channel: &str) -> bool {
    ChannelKind::of(channel) == ChannelKind::Presence
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Event, BadCall> {
        parse_event("demo", body.as_bytes(), &Limits::default())
    }

    fn status(body: &str) -> u16 {
        parse(body).expect_err(body).status
    }

    #[test]
    fn the_spellings_of_the_sdks_are_read() {
        let node = parse(r#"{"name":"e","data":"{\"a\":1}","channels":["a","b","a"]}"#);
        let node = node.expect("good");
        let item = node.item();
        assert_eq!(item.channels, ["demo/a", "demo/b"]);
        let content = Content::Event {
            name: "\"e\"",
            data: r#""{\"a\":1}""#,
        };
        assert_eq!(item.content, content);
        let php = parse(
            r#"{"name":"e","data":{"a":1},"channel":"c","socket_id":"1.2","info":"user_count"}"#,
        );
        let php = php.expect("good");
        assert_eq!(php.item().content, content);
        assert_eq!(php.item().exclude, SocketId::parse("1.2"));
        assert!(php.info.user_count && !php.info.subscription_count);
    }

    #[test]
    fn each_limit_has_its_status() {
        let many: Vec<String> = (0..101).map(|n| format!("\"c{n}\"")).collect();
        let big = "x".repeat(10_241);
        let long = "n".repeat(201);
        let cases = [
            ("{".to_owned(), 400),
            (r#"["e","",["a"]]"#.to_owned(), 400),
            (r#"{"data":"","channel":"a"}"#.to_owned(), 400),
            (r#"{"name":"e","channel":"a"}"#.to_owned(), 400),
            (r#"{"name":"e","data":""}"#.to_owned(), 400),
            (r#"{"name":"e","data":"","channels":[]}"#.to_owned(), 400),
            (r#"{"name":"e","data":"","channel":"a b"}"#.to_owned(), 400),
            (
                r#"{"name":"e","data":"","channel":"a","socket_id":"x"}"#.to_owned(),
                400,
            ),
            (
                r#"{"name":"e","data":"","channel":"a","info":"colour"}"#.to_owned(),
                400,
            ),
            (r#"{"name":"e","data":"","channel":5}"#.to_owned(), 400),
            (
                format!(
                    r#"{{"name":"e","data":"","channels":[{}]}}"#,
                    many.join(",")
                ),
                400,
            ),
            (
                format!(r#"{{"name":"{long}","data":"","channel":"a"}}"#),
                400,
            ),
            (
                format!(r#"{{"name":"e","data":"{big}","channel":"a"}}"#),
                413,
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(status(&body), expected, "{}", &body[..body.len().min(80)]);
        }
        let fits = format!(
            r#"{{"name":"e","data":"{}","channel":"a"}}"#,
            "x".repeat(10_240)
        );
        assert!(parse(&fits).is_ok());
    }

    #[test]
    fn one_bad_event_refuses_the_batch() {
        let limits = Limits::default();
        let batch = |body: &str| parse_batch("demo", body.as_bytes(), &limits);
        let good = r#"{"name":"e","data":"d","channel":"a"}"#;
        assert_eq!(
            batch(&format!(r#"{{"batch":[{good},{good}]}}"#)).map(|b| b.len()),
            Ok(2)
        );
        assert!(batch(&format!(r#"{{"batch":[{good},{{}}]}}"#)).is_err());
        assert!(batch(r#"{"batch":[]}"#).is_err());
        let eleven = [good; 11].join(",");
        assert!(batch(&format!(r#"{{"batch":[{eleven}]}}"#)).is_err());
    }

    impl PartialEq for Event {
        fn eq(&self, other: &Event) -> bool {
            self.item() == other.item()
        }
    }
}

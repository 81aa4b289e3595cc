//! Pusher Channels messages: what clients send, read into an enum, and what the server sends,
//! written as JSON text. `data` is a JSON string in everything the server sends except
//! `pusher:error`, where it is an object: some SDKs accept nothing else.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::base::ids::SocketId;
use crate::wire::bus::{Member, Position, Recover};

/// What a client may say.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    Ping,
    Pong,
    Subscribe(Subscribe),
    Unsubscribe { channel: String },
    SignIn(SignIn),
    Event(ClientEvent<'a>),
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Subscribe {
    pub channel: String,
    pub auth: Option<String>,
    pub channel_data: Option<String>,
    recover: Option<Standpoint>,
}

/// Where a client was in a channel with history, in its own words.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Standpoint {
    epoch: String,
    offset: u64,
    socket_id: Option<String>,
}

impl Subscribe {
    /// What somebody asks for who has signed it elsewhere and goes on from nowhere.
    pub fn new(channel: String, channel_data: Option<String>) -> Subscribe {
        Subscribe {
            channel,
            auth: None,
            channel_data,
            recover: None,
        }
    }

    /// The same by somebody who was at this position.
    pub fn resuming(self, Position { epoch, offset }: Position) -> Subscribe {
        let epoch = epoch_text(epoch);
        let standpoint = Standpoint {
            epoch,
            offset,
            socket_id: None,
        };
        Subscribe {
            recover: Some(standpoint),
            ..self
        }
    }

    /// From where the client wants to go on. What cannot be one of our positions is none, so that it
    /// is told that nothing was recovered.
    pub fn recover(&self) -> Option<Recover> {
        let standpoint = self.recover.as_ref()?;
        let socket_id = standpoint.socket_id.as_deref();
        Some(Recover {
            position: Position {
                epoch: parse_epoch(&standpoint.epoch)?,
                offset: standpoint.offset,
            },
            socket_id: socket_id.and_then(SocketId::parse),
        })
    }
}

/// An epoch as clients see it: JavaScript's numbers do not hold 64 bits.
pub fn epoch_text(epoch: u64) -> String {
    format!("{epoch:016x}")
}

/// Reads what `epoch_text` wrote.
pub fn parse_epoch(text: &str) -> Option<u64> {
    let is_one = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_one)
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct SignIn {
    pub auth: String,
    /// JSON, as it was signed.
    pub user_data: String,
}

/// How a client of lines or frames introduces itself.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Connect {
    pub app_key: String,
    /// Without it, the only one there is.
    pub protocol: Option<u64>,
}

/// A `client-` event, its data already as a JSON string.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientEvent<'a> {
    pub event: Cow<'a, str>,
    pub channel: Cow<'a, str>,
    pub data: JsonString<'a>,
}

/// A JSON string, quotes included, and the length of what it says.
#[derive(Debug, PartialEq, Eq)]
pub struct JsonString<'a> {
    pub json: Cow<'a, str>,
    /// Bytes of the text it stands for.
    pub len: usize,
}

impl<'a> JsonString<'a> {
    /// Keeps a string as it is; writes anything else as its own JSON text; nothing becomes `{}`.
    pub fn of(value: Option<&'a RawValue>) -> Option<JsonString<'a>> {
        let raw = value.map_or("{}", RawValue::get);
        if raw.starts_with('"') {
            let text: Cow<'_, str> = serde_json::from_str::<Text<'_>>(raw).ok()?.0;
            return Some(JsonString {
                len: text.len(),
                json: Cow::Borrowed(raw),
            });
        }
        Some(JsonString {
            len: raw.len(),
            json: Cow::Owned(json_string(raw)),
        })
    }
}

/// A string that borrows when it holds no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Why a message was not understood; the text goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    NotJson,
    UnknownEvent,
    Field(&'static str),
}

impl Malformed {
    pub fn text(self) -> &'static str {
        match self {
            Malformed::NotJson => "Received invalid JSON",
            Malformed::UnknownEvent => "Unknown event",
            Malformed::Field(text) => text,
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Unsubscribe {
    channel: String,
}

/// Reads one message of a client.
pub fn parse(text: &str) -> Result<ClientMessage<'_>, Malformed> {
    let envelope: Envelope<'_> = parse_object(text).map_err(|_| Malformed::NotJson)?;
    let event = envelope.event.ok_or(Malformed::Field("event is missing"))?;
    match &*event {
        "pusher:ping" => Ok(ClientMessage::Ping),
        "pusher:pong" => Ok(ClientMessage::Pong),
        "pusher:subscribe" => {
            let recovers = envelope.data.is_some_and(|it| it.get().contains("recover"));
            let fault = Malformed::Field(match recovers {
                true => {
                    "pusher:subscribe needs data with a channel, and recover an epoch and an offset"
                }
                false => "pusher:subscribe needs data with a channel",
            });
            Ok(ClientMessage::Subscribe(
                read_data(envelope.data).ok_or(fault)?,
            ))
        }
        "pusher:unsubscribe" => {
            let fault = Malformed::Field("pusher:unsubscribe needs data with a channel");
            let Unsubscribe { channel } = read_data(envelope.data).ok_or(fault)?;
            Ok(ClientMessage::Unsubscribe { channel })
        }
        "pusher:signin" => {
            let fault = Malformed::Field("pusher:signin needs data with auth and user_data");
            Ok(ClientMessage::SignIn(
                read_data(envelope.data).ok_or(fault)?,
            ))
        }
        name if name.starts_with("client-") => {
            let channel = envelope
                .channel
                .ok_or(Malformed::Field("channel is missing"))?;
            let data = JsonString::of(envelope.data).ok_or(Malformed::NotJson)?;
            Ok(ClientMessage::Event(ClientEvent {
                event,
                channel,
                data,
            }))
        }
        _ => Err(Malformed::UnknownEvent),
    }
}

/// Reads the first message of a client of lines or frames.
pub fn parse_connect(text: &str) -> Result<Connect, Malformed> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|_| Malformed::NotJson)?;
    if envelope.event.as_deref() != Some("pusher:connect") {
        return Err(Malformed::Field("The first message must be pusher:connect"));
    }
    let fault = Malformed::Field("pusher:connect needs data with an app_key");
    read_data(envelope.data).ok_or(fault)
}

/// Third-party clients wrap the data of `pusher:` events in a string as they do for channel
/// events; both forms are read.
fn read_data<T: DeserializeOwned>(data: Option<&RawValue>) -> Option<T> {
    let raw = data?.get();
    if raw.starts_with('"') {
        let text: String = serde_json::from_str(raw).ok()?;
        return parse_object(&text).ok();
    }
    parse_object(raw).ok()
}

/// Reads a JSON object. An array of the same values in the order of our fields, which serde would
/// take as well, is not what anybody meant to send.
pub fn parse_object<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    if !text.trim_start().starts_with('{') {
        return Err(serde::de::Error::custom("a JSON object is expected"));
    }
    serde_json::from_str(text)
}

/// `channel_data` of a presence subscription.
#[derive(Debug, PartialEq, Eq)]
pub struct ChannelData {
    pub user_id: String,
    /// JSON; `null` when none was given.
    pub user_info: String,
}

/// Reads `{"user_id":…,"user_info":…}`; a number as user id becomes its text.
pub fn parse_channel_data(text: &str) -> Option<ChannelData> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        user_id: serde_json::Value,
        #[serde(borrow)]
        user_info: Option<&'a RawValue>,
    }
    let fields: Fields<'_> = parse_object(text).ok()?;
    let user_id = match fields.user_id {
        serde_json::Value::String(id) => id,
        serde_json::Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let user_info = fields.user_info.map_or("null", RawValue::get).to_owned();
    (!user_id.is_empty()).then_some(ChannelData { user_id, user_info })
}

/// `user_data` of a sign-in.
#[derive(Debug, PartialEq, Eq)]
pub struct UserData {
    pub id: String,
    /// JSON; `null` when none was given.
    pub user_info: String,
    pub watchlist: Vec<String>,
}

/// Reads `{"id":"…","user_info":…,"watchlist":["…"]}`; the id has to be a string, since pusher-js
/// takes no other.
pub fn parse_user_data(text: &str) -> Option<UserData> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        id: String,
        #[serde(borrow)]
        user_info: Option<&'a RawValue>,
        watchlist: Option<Vec<String>>,
    }
    let fields: Fields<'_> = parse_object(text).ok()?;
    Some(UserData {
        id: fields.id,
        user_info: fields.user_info.map_or("null", RawValue::get).to_owned(),
        watchlist: fields.watchlist.unwrap_or_default(),
    })
}

/// `text` as a JSON string, quotes included.
pub fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a string always has a JSON form")
}

pub fn connection_established(socket_id: SocketId, activity_seconds: u64) -> String {
    format!(
        "{{\"event\":\"pusher:connection_established\",\"data\":\"{{\\\"socket_id\\\":\\\"{socket_id}\\\",\\\"activity_timeout\\\":{activity_seconds}}}\"}}"
    )
}

/// Asks a client for a sign of life where the transport has no way to.
pub const PING: &str = "{\"event\":\"pusher:ping\",\"data\":\"{}\"}";

pub const PONG: &str = "{\"event\":\"pusher:pong\",\"data\":\"{}\"}";

/// A fault of the connection as a whole; without a code the connection stays.
pub fn error(code: Option<u16>, message: &str) -> String {
    let code = code.map_or(Cow::Borrowed("null"), |code| Cow::Owned(code.to_string()));
    let message = json_string(message);
    format!("{{\"event\":\"pusher:error\",\"data\":{{\"code\":{code},\"message\":{message}}}}}")
}

/// The two events that tell a client its subscription failed: the first for pusher-js and Echo,
/// the second for .NET, which waits for nothing else.
pub fn subscription_errors(channel: &str, kind: &str, message: &str, status: u16) -> [String; 2] {
    let data = format!(
        "{{\"type\":{},\"error\":{},\"status\":{status}}}",
        json_string(kind),
        json_string(message)
    );
    let data = json_string(&data);
    let channel = json_string(channel);
    [
        "pusher:subscription_error",
        "pusher_internal:subscription_error",
    ]
    .map(|event| format!("{{\"event\":\"{event}\",\"channel\":{channel},\"data\":{data}}}"))
}

/// An event of a channel. `event` and `data` are JSON strings already; a channel's name needs no
/// escaping, its alphabet has been checked.
pub fn event(channel: &str, event: &str, data: &str, user_id: Option<&str>) -> String {
    let mut text = String::with_capacity(channel.len() + event.len() + data.len() + 48);
    text.push_str("{\"event\":");
    text.push_str(event);
    text.push_str(",\"channel\":\"");
    text.push_str(channel);
    text.push_str("\",\"data\":");
    text.push_str(data);
    if let Some(user_id) = user_id {
        text.push_str(",\"user_id\":");
        text.push_str(&json_string(user_id));
    }
    text.push('}');
    text
}

/// The same with its place in the channel's history, if that keeps any. These members are ours;
/// Pusher's clients pass over what they do not know.
pub fn event_at(
    channel: &str,
    name: &str,
    data: &str,
    user_id: Option<&str>,
    position: Option<Position>,
) -> String {
    let mut text = event(channel, name, data, user_id);
    if let Some(position) = position {
        add_position(&mut text, position);
    }
    text
}

fn add_position(text: &mut String, Position { epoch, offset }: Position) {
    text.pop();
    let epoch = epoch_text(epoch);
    write!(text, ",\"epoch\":\"{epoch}\",\"offset\":{offset}}}").expect("writing to a string");
}

/// Adds to a success where the subscriber begins, and how many events come first that it missed, if
/// it gets all of them.
pub fn add_beginning(text: &mut String, position: Position, missed: Option<usize>) {
    add_position(text, position);
    text.pop();
    text.push_str(&match missed {
        Some(count) => format!(",\"recovered\":true,\"missed\":{count}}}"),
        None => ",\"recovered\":false}".to_owned(),
    });
}

pub fn subscription_succeeded(channel: &str) -> String {
    event(
        channel,
        "\"pusher_internal:subscription_succeeded\"",
        "\"{}\"",
        None,
    )
}

/// Success in a presence channel, with everybody who is there.
pub fn presence_succeeded<'a>(
    channel: &str,
    members: impl Iterator<Item = Member<'a>> + Clone,
) -> String {
    let mut data = String::from("{\"presence\":{\"ids\":[");
    join(&mut data, members.clone(), |data, member| {
        data.push_str(&json_string(member.user_id));
    });
    data.push_str("],\"hash\":{");
    join(&mut data, members.clone(), |data, member| {
        data.push_str(&json_string(member.user_id));
        data.push(':');
        data.push_str(member.user_info);
    });
    write!(data, "}},\"count\":{}}}}}", members.count()).expect("writing to a string");
    event(
        channel,
        "\"pusher_internal:subscription_succeeded\"",
        &json_string(&data),
        None,
    )
}

/// How many subscribe now.
pub fn subscription_count(channel: &str, subscriptions: u64) -> String {
    let data = format!("\"{{\\\"subscription_count\\\":{subscriptions}}}\"");
    event(
        channel,
        "\"pusher_internal:subscription_count\"",
        &data,
        None,
    )
}

/// Nothing is kept of this cache channel.
pub fn cache_miss(channel: &str) -> String {
    event(channel, "\"pusher:cache_miss\"", "\"{}\"", None)
}

/// `user_data` comes back as it was sent.
pub fn signin_success(user_data: &str) -> String {
    let data = format!("{{\"user_data\":{}}}", json_string(user_data));
    let data = json_string(&data);
    format!("{{\"event\":\"pusher:signin_success\",\"data\":{data}}}")
}

/// Who of a watchlist came and who went; a list that is empty is left out.
pub fn watchlist_events(online: &[&str], offline: &[&str]) -> String {
    let events = [("online", online), ("offline", offline)];
    let mut data = String::from("{\"events\":[");
    let told = events.iter().filter(|(_, users)| !users.is_empty());
    join(&mut data, told, |data, (name, users)| {
        data.push_str(&format!("{{\"name\":\"{name}\",\"user_ids\":["));
        join(data, users.iter(), |data, user| {
            data.push_str(&json_string(user));
        });
        data.push_str("]}");
    });
    data.push_str("]}");
    let data = json_string(&data);
    format!("{{\"event\":\"pusher_internal:watchlist_events\",\"data\":{data}}}")
}

fn join<T>(text: &mut String, items: impl Iterator<Item = T>, write: impl Fn(&mut String, T)) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        write(text, item);
    }
}

pub fn member_added(channel: &str, member: Member<'_>) -> String {
    let data = format!(
        "{{\"user_id\":{},\"user_info\":{}}}",
        json_string(member.user_id),
        member.user_info
    );
    event(
        channel,
        "\"pusher_internal:member_added\"",
        &json_string(&data),
        None,
    )
}

pub fn member_removed(channel: &str, user_id: &str) -> String {
    let data = format!("{{\"user_id\":{}}}", json_string(user_id));
    event(
        channel,
        "\"pusher_internal:member_removed\"",
        &json_string(&data),
        None,
    )
}

#[cfg(test)]
#[path = "pusher_tests.rs"]
mod tests;

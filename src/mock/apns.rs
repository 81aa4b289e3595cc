//! APNs as its provider API is documented (Apple, "Sending notification requests to APNs" and
//! "Handling notification responses from APNs"): who may send, what a request has to say, and the
//! reason of each refusal. Owns what a connection has shown of itself. Broadcast channels are
//! `apns_channels`'s.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::mock::apns_channels::Channels;
use crate::mock::jwt::{Jwt, Known, PublicKey};
use crate::mock::line::readable;
use crate::mock::{Asked, Caller, Judged, Kind, Provider, Reply, Sight, World};

/// Every reason with its status.
pub const WORDS: &[(&str, u16)] = &[
    ("ok", 200),
    ("BadDeviceToken", 400),
    ("BadCollapseId", 400),
    ("BadExpirationDate", 400),
    ("BadMessageId", 400),
    ("BadPriority", 400),
    ("BadTopic", 400),
    ("DeviceTokenNotForTopic", 400),
    ("DuplicateHeaders", 400),
    ("IdleTimeout", 400),
    ("InvalidPushType", 400),
    ("MissingDeviceToken", 400),
    ("MissingTopic", 400),
    ("PayloadEmpty", 400),
    ("TopicDisallowed", 400),
    ("BadChannelId", 400),
    ("BadRequestParams", 400),
    ("BadRequestPayload", 400),
    ("CannotCreateChannelConfig", 400),
    ("ChannelNotRegistered", 400),
    ("FeatureNotEnabled", 400),
    ("MissingChannelId", 400),
    ("MissingPushType", 400),
    ("Forbidden", 403),
    ("BadCertificate", 403),
    ("BadCertificateEnvironment", 403),
    ("BadEnvironmentKeyIdInToken", 403),
    ("ExpiredProviderToken", 403),
    ("InvalidProviderToken", 403),
    ("MissingProviderToken", 403),
    ("TopicMismatch", 403),
    ("UnrelatedKeyIdInToken", 403),
    ("BadPath", 404),
    ("MethodNotAllowed", 405),
    ("Unregistered", 410),
    ("ExpiredToken", 410),
    ("PayloadTooLarge", 413),
    ("TooManyRequests", 429),
    ("TooManyProviderTokenUpdates", 429),
    ("InternalServerError", 500),
    ("ServiceUnavailable", 503),
    ("Shutdown", 503),
];

const PAYLOAD_BYTES: usize = 4096;
const PAYLOAD_BYTES_LONG: usize = 5120;
const TOKEN_CHARS: usize = 400;
const COLLAPSE_ID_BYTES: usize = 64;
/// A token's age, in seconds.
const AGE_MAX: i64 = 3600;
/// Clocks differ.
const SKEW: i64 = 60;
/// One connection takes a new token not sooner.
const UPDATE_SECONDS: i64 = 20 * 60;

/// The push types, and what follows the bundle id in their topics.
const PUSH_TYPES: [(&str, &str); 11] = [
    ("alert", ""),
    ("background", ""),
    ("voip", ".voip"),
    ("complication", ".complication"),
    ("fileprovider", ".pushkit.fileprovider"),
    ("mdm", ""),
    ("location", ".location-query"),
    ("liveactivity", ".push-type.liveactivity"),
    ("pushtotalk", ".voip-ptt"),
    ("widgets", ".push-type.widgets"),
    ("controls", ".push-type.controls"),
];

/// How an APNs is set up.
#[derive(Clone, Debug, Default)]
pub struct ApnsOptions {
    /// Who signs the tokens; without it every signature is taken.
    pub key: Option<PublicKey>,
    pub key_id: Option<String>,
    pub team_id: Option<String>,
    /// Bundle ids; empty: all.
    pub topics: Vec<String>,
    /// The handshake has checked a certificate, and no token is asked for.
    pub by_certificate: bool,
    /// Leaves `apns-unique-id` out.
    pub production: bool,
}

/// See the file's head.
pub struct Apns {
    options: ApnsOptions,
    passes: Known<Result<Pass, &'static str>>,
    connections: BTreeMap<u64, Connection>,
    channels: Channels,
}

/// A token whose form and signature are good.
#[derive(Clone)]
struct Pass {
    team: String,
    issued: i64,
}

/// What a connection has shown.
#[derive(Default)]
struct Connection {
    token: String,
    team: String,
    /// When its token last changed.
    changed: i64,
    /// An old token was shown: nothing is taken from it any more.
    expired: bool,
}

impl Apns {
    pub fn new(options: ApnsOptions) -> Apns {
        Apns {
            options,
            passes: Known::default(),
            connections: BTreeMap::new(),
            channels: Channels::default(),
        }
    }

    /// Whether the client may send; else the reason.
    fn authenticate(
        &mut self,
        caller: Caller,
        asked: &Asked,
        now: i64,
    ) -> Result<(), &'static str> {
        if self.options.by_certificate {
            return Ok(());
        }
        let token = asked
            .authorization("bearer")
            .ok_or("MissingProviderToken")?;
        let options = &self.options;
        let pass = self.passes.get(token, || read_pass(token, options))?;
        let connection = self.connections.entry(caller.connection).or_default();
        connection.expired |= now - pass.issued > AGE_MAX;
        if connection.expired {
            return Err("ExpiredProviderToken");
        }
        if pass.issued > now + SKEW {
            return Err("InvalidProviderToken");
        }
        if connection.token == token {
            return Ok(());
        }
        if !connection.token.is_empty() {
            if connection.team != pass.team {
                return Err("InvalidProviderToken");
            }
            if now - connection.changed < UPDATE_SECONDS {
                return Err("TooManyProviderTokenUpdates");
            }
        }
        *connection = Connection {
            token: token.to_string(),
            team: pass.team,
            changed: now,
            expired: false,
        };
        Ok(())
    }

    /// Whether everything is as it should be; else the reason.
    fn check(
        &mut self,
        caller: Caller,
        asked: &Asked,
        sight: &Sight,
        now: i64,
    ) -> Result<(), &'static str> {
        let token = asked.path().strip_prefix("/3/device/");
        let token = token.ok_or("BadPath")?;
        if asked.method != "POST" {
            return Err("MethodNotAllowed");
        }
        self.authenticate(caller, asked, now)?;
        if token.is_empty() {
            return Err("MissingDeviceToken");
        }
        let hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex || token.len() % 2 != 0 || token.len() > TOKEN_CHARS {
            return Err("BadDeviceToken");
        }
        let push_type = check_fields(asked)?;
        self.check_topic(asked, push_type)?;
        let long = push_type == Some("voip");
        check_payload(
            asked,
            sight,
            if long {
                PAYLOAD_BYTES_LONG
            } else {
                PAYLOAD_BYTES
            },
        )
    }

    fn check_topic(&self, asked: &Asked, push_type: Option<&str>) -> Result<(), &'static str> {
        let Some(topic) = asked.field("apns-topic") else {
            return match self.options.by_certificate {
                true => Ok(()),
                false => Err("MissingTopic"),
            };
        };
        if topic.is_empty() || !topic.bytes().all(is_topic_byte) {
            return Err("BadTopic");
        }
        let own = PUSH_TYPES.iter().find(|(name, _)| push_type == Some(*name));
        let suffix = own.map_or("", |(_, suffix)| suffix);
        let bundle = topic.strip_suffix(suffix).ok_or("TopicDisallowed")?;
        let topics = &self.options.topics;
        let known = topics.is_empty() || push_type == Some("mdm");
        match known || topics.iter().any(|own| own == bundle || own == topic) {
            true => Ok(()),
            false => Err("TopicDisallowed"),
        }
    }
}

fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}

fn read_pass(token: &str, options: &ApnsOptions) -> Result<Pass, &'static str> {
    const INVALID: &str = "InvalidProviderToken";
    let jwt = Jwt::parse(token).ok_or(INVALID)?;
    let key_id = jwt.header["kid"].as_str().ok_or(INVALID)?;
    let team = jwt.claims["iss"].as_str().ok_or(INVALID)?;
    let issued = jwt.seconds("iat").ok_or(INVALID)?;
    let other = |own: &Option<String>, said: &str| own.as_deref().is_some_and(|own| own != said);
    let strange = other(&options.key_id, key_id) || other(&options.team_id, team);
    let unsigned = options.key.as_ref().is_some_and(|key| !key.verifies(token));
    if jwt.header["alg"] != "ES256" || strange || unsigned {
        return Err(INVALID);
    }
    Ok(Pass {
        team: team.to_string(),
        issued,
    })
}

/// What the fields about a notification say, whether to a device or to a channel. The push type.
pub(super) fn check_fields(asked: &Asked) -> Result<Option<&str>, &'static str> {
    let mut names: Vec<&str> = asked.fields.iter().map(|(name, _)| &**name).collect();
    names.retain(|name| name.starts_with("apns-") || *name == "authorization");
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("DuplicateHeaders");
    }
    if asked.field("apns-id").is_some_and(|id| !is_uuid(id)) {
        return Err("BadMessageId");
    }
    let expiration = asked.field("apns-expiration");
    if expiration.is_some_and(|it| it.parse::<u32>().is_err()) {
        return Err("BadExpirationDate");
    }
    let collapse = asked.field("apns-collapse-id");
    if collapse.is_some_and(|id| id.len() > COLLAPSE_ID_BYTES) {
        return Err("BadCollapseId");
    }
    let push_type = asked.field("apns-push-type");
    let known = |name: &str| PUSH_TYPES.iter().any(|(own, _)| *own == name);
    if push_type.is_some_and(|name| !known(name)) {
        return Err("InvalidPushType");
    }
    match (asked.field("apns-priority"), push_type) {
        (Some("10"), Some("background")) => Err("BadPriority"),
        (None | Some("1" | "5" | "10"), _) => Ok(push_type),
        (Some(_), _) => Err("BadPriority"),
    }
}

pub(super) fn check_payload(asked: &Asked, sight: &Sight, most: usize) -> Result<(), &'static str> {
    if asked.body.len() > most {
        return Err("PayloadTooLarge");
    }
    // What is no object holds no `aps`.
    match &sight.payload {
        Value::Object(payload) if !payload.is_empty() => Ok(()),
        _ => Err("PayloadEmpty"),
    }
}

/// Eight, four, four, four and twelve hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// An answer with a reason; of success and of strange numbers there is none.
pub(super) fn refusal(status: u16, reason: &str, timestamp: u64) -> Reply {
    let reply = match reason {
        "" | "ok" => Reply::empty(status),
        _ => {
            let mut body = json!({ "reason": reason });
            if status == 410 {
                body["timestamp"] = json!(timestamp);
            }
            Reply::json(status, &body)
        }
    };
    reply.because(reason)
}

fn status_of(reason: &str) -> u16 {
    let word = WORDS.iter().find(|(word, _)| *word == reason);
    word.map_or(400, |(_, status)| *status)
}

impl Provider for Apns {
    fn kind(&self) -> Kind {
        Kind::Apns
    }

    fn sight(&mut self, asked: &Asked) -> Sight {
        let to_device = asked.path().strip_prefix("/3/device/");
        let is_broadcast = asked.path().starts_with("/4/broadcasts/apps/");
        let channel = asked.field("apns-channel-id").unwrap_or_default();
        Sight {
            is_push: to_device.is_some() || is_broadcast,
            token: to_device.unwrap_or(channel).to_string(),
            payload: readable(&asked.body),
            unreadable: None,
        }
    }

    fn judge(
        &mut self,
        caller: Caller,
        asked: &Asked,
        sight: &Sight,
        mut world: World<'_>,
    ) -> Judged {
        let now = world.now.unix_seconds();
        let judged = match Channels::is_for(asked.path()) {
            true => match self.authenticate(caller, asked, now) {
                Ok(()) => self.channels.judge(asked, sight, &mut world),
                Err(reason) => Err(reason),
            },
            false => self
                .check(caller, asked, sight, now)
                .map(|()| Reply::empty(200)),
        };
        let signed_in = judged.is_ok();
        let reply =
            judged.unwrap_or_else(|reason| refusal(status_of(reason), reason, world.now.unix_ms));
        Judged {
            reply: self.identified(reply, asked, world),
            signed_in,
        }
    }

    fn say(&mut self, status: u16, word: &str, asked: &Asked, world: World<'_>) -> Reply {
        let reply = refusal(status, word, world.now.unix_ms);
        self.identified(reply, asked, world)
    }

    fn left(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }
}

impl Apns {
    /// With the ids that every answer has.
    fn identified(&self, reply: Reply, asked: &Asked, mut world: World<'_>) -> Reply {
        if Channels::is_management(asked.path()) {
            let id = asked.field("apns-request-id").map(str::to_string);
            return reply.with("apns-request-id", id.unwrap_or_else(|| world.uuid()));
        }
        let id = asked.field("apns-id").filter(|id| is_uuid(id));
        let id = id.map_or_else(|| world.uuid(), str::to_string);
        let accepted = reply.status == 200;
        let reply = reply.with("apns-id", id);
        match accepted && !self.options.production {
            true => reply.with("apns-unique-id", world.uuid()),
            false => reply,
        }
    }
}

#[cfg(test)]
#[path = "apns_tests.rs"]
mod tests;

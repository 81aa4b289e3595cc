//! A Web Push service (RFC 8030) that asks for VAPID (RFC 8292), with the refusals of the services
//! there are (Apple, "Sending web push notifications in web apps and browsers"; Mozilla autopush,
//! "Error Codes"). Owns its subscriptions.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::mock::jwt::{Jwt, Known, PublicKey};
use crate::mock::line::readable;
use crate::mock::subscriber::Subscriber;
use crate::mock::{Asked, Caller, Judged, Kind, Provider, Reply, Sight, World};

/// Every word with its status: Apple's reasons, Mozilla's numbers, and two texts of Google's.
pub const WORDS: &[(&str, u16)] = &[
    ("ok", 201),
    ("BadWebPushRequest", 400),
    ("BadTtl", 400),
    ("BadUrgency", 400),
    ("BadWebPushTopic", 400),
    ("VapidPkHashMismatch", 400),
    ("IdleTimeout", 400),
    ("errno101", 400),
    ("errno110", 400),
    ("errno111", 400),
    ("errno112", 400),
    ("errno113", 400),
    ("errno108", 400),
    ("errno109", 401),
    ("unauthorized", 401),
    ("BadJwtToken", 403),
    ("BadAuthorizationHeader", 403),
    ("BadVapidPublicKey", 403),
    ("key-mismatch", 403),
    ("NotFound", 404),
    ("BadPath", 404),
    ("errno102", 404),
    ("MethodNotAllowed", 405),
    ("Gone", 410),
    ("errno103", 410),
    ("errno105", 410),
    ("errno106", 410),
    ("PayloadTooLarge", 413),
    ("errno104", 413),
    ("TooManyRequests", 429),
    ("InternalServerError", 500),
    ("ServiceUnavailable", 503),
    ("Shutdown", 503),
];

const BODY_BYTES: usize = 4096;
const TOPIC_CHARS: usize = 32;
/// Thirty days: a longer time to live is lowered.
const TTL_MAX: u64 = 30 * 24 * 3600;
/// A token lasts no longer (RFC 8292 section 2), in seconds; and clocks differ.
const JWT_SECONDS: i64 = 24 * 3600;
const SKEW: i64 = 60;
const URGENCIES: [&str; 4] = ["very-low", "low", "normal", "high"];

/// How a service is set up.
#[derive(Default)]
pub struct WebPushOptions {
    /// By the last segment of their endpoints' paths. Empty: every path is a subscription that
    /// nobody can read for.
    pub subscribers: BTreeMap<String, Subscriber>,
    /// The key that all subscriptions were made for, as `k=` names it; else any.
    pub vapid: Option<String>,
    /// Whether requests come over plain HTTP, which shows in their origin.
    pub plain: bool,
}

/// See the file's head.
pub struct WebPush {
    options: WebPushOptions,
    /// Claims of tokens by `TOKEN KEY`, if they are signed well.
    passes: Known<Result<Value, &'static str>>,
}

/// The path of an endpoint, before its name.
pub const PATH: &str = "/push/";

impl WebPush {
    pub fn new(options: WebPushOptions) -> WebPush {
        WebPush {
            options,
            passes: Known::default(),
        }
    }

    fn check(&mut self, asked: &Asked, now: i64) -> Result<u64, &'static str> {
        let name = asked.path().strip_prefix(PATH).ok_or("NotFound")?;
        let subscribers = &self.options.subscribers;
        if name.is_empty() || (!subscribers.is_empty() && !subscribers.contains_key(name)) {
            return Err("NotFound");
        }
        if asked.method != "POST" {
            return Err("MethodNotAllowed");
        }
        let ttl = asked.field("ttl").and_then(|ttl| ttl.parse::<u64>().ok());
        let ttl = ttl.ok_or("BadTtl")?;
        let urgency = asked.field("urgency");
        if urgency.is_some_and(|urgency| !URGENCIES.contains(&urgency)) {
            return Err("BadUrgency");
        }
        let is_topic = |topic: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (1..=TOPIC_CHARS).contains(&topic.len()) && topic.bytes().all(allowed)
        };
        if asked.field("topic").is_some_and(|topic| !is_topic(topic)) {
            return Err("BadWebPushTopic");
        }
        if asked.body.len() > BODY_BYTES {
            return Err("PayloadTooLarge");
        }
        let encoding = asked.field("content-encoding");
        if !asked.body.is_empty() && encoding != Some("aes128gcm") {
            return Err("BadWebPushRequest");
        }
        self.authenticate(asked, now)?;
        Ok(ttl.min(TTL_MAX))
    }

    /// RFC 8292 sections 2 and 3.
    fn authenticate(&mut self, asked: &Asked, now: i64) -> Result<(), &'static str> {
        if asked.field("authorization").is_none() {
            return Err("unauthorized");
        }
        let parameters = asked
            .authorization("vapid")
            .ok_or("BadAuthorizationHeader")?;
        let value = |name: &str| {
            let mut all = parameters
                .split(',')
                .filter_map(|one| one.trim().split_once('='));
            all.find_map(|(own, value)| (own == name).then_some(value.trim_matches('"')))
        };
        let token = value("t").ok_or("BadAuthorizationHeader")?;
        let key = value("k").ok_or("BadAuthorizationHeader")?;
        let both = format!("{token} {key}");
        let claims = self.passes.get(&both, || read_pass(token, key))?;
        let scheme = if self.options.plain { "http" } else { "https" };
        if claims["aud"] != format!("{scheme}://{}", asked.authority) {
            return Err("BadJwtToken");
        }
        let expires = claims["exp"].as_f64().map(|exp| exp as i64);
        let good = expires.is_some_and(|it| (now..=now + JWT_SECONDS + SKEW).contains(&it));
        let contact = claims["sub"].as_str().unwrap_or_default();
        let is_contact = contact.starts_with("mailto:") || contact.starts_with("https:");
        if !good || !is_contact {
            return Err("BadJwtToken");
        }
        match &self.options.vapid {
            Some(own) if own != key.trim_end_matches('=') => Err("VapidPkHashMismatch"),
            _ => Ok(()),
        }
    }
}

fn read_pass(token: &str, key: &str) -> Result<Value, &'static str> {
    let jwt = Jwt::parse(token).ok_or("BadJwtToken")?;
    let point = BASE64URL_NOPAD.decode(key.trim_end_matches('=').as_bytes());
    let point = point
        .ok()
        .filter(|point| point.len() == 65 && point[0] == 4);
    let point = point.ok_or("BadVapidPublicKey")?;
    let is_signed = jwt.header["alg"] == "ES256" && PublicKey::P256(point).verifies(token);
    is_signed.then_some(jwt.claims).ok_or("BadJwtToken")
}

/// The number behind `errno`, with the rest of Mozilla's answer.
fn mozilla(status: u16, word: &str) -> Option<Reply> {
    let number: u16 = word.strip_prefix("errno")?.parse().ok()?;
    let error = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        410 => "Gone",
        413 => "Payload Too Large",
        _ => "Error",
    };
    let body = json!({
        "code": status, "errno": number, "error": error, "message": "the script says so",
        "more_info": "https://mozilla-services.github.io/autopush-rs/errors.html",
    });
    Some(Reply::json(status, &body))
}

fn refusal(status: u16, word: &str) -> Reply {
    let reply = match word {
        "" => Reply::empty(status),
        "key-mismatch" => Reply {
            content_type: "text/plain",
            body: b"the VAPID credentials in the authorization header do not correspond to the \
                credentials used to create the subscriptions."
                .to_vec(),
            ..Reply::empty(status)
        },
        "unauthorized" => Reply::empty(status).with("www-authenticate", "vapid"),
        "NotFound" | "Gone" => Reply::empty(status),
        word => {
            mozilla(status, word).unwrap_or_else(|| Reply::json(status, &json!({ "reason": word })))
        }
    };
    reply.because(word)
}

fn accepted(status: u16, ttl: u64, asked: &Asked, world: &mut World<'_>, plain: bool) -> Reply {
    let scheme = if plain { "http" } else { "https" };
    let id = world.uuid();
    Reply::empty(status)
        .with("location", format!("{scheme}://{}/m/{id}", asked.authority))
        .with("ttl", ttl)
}

impl Provider for WebPush {
    fn kind(&self) -> Kind {
        Kind::WebPush
    }

    fn sight(&mut self, asked: &Asked) -> Sight {
        let name = asked.path().strip_prefix(PATH);
        let subscriber = name.and_then(|name| self.options.subscribers.get(name));
        let (payload, unreadable) = match subscriber.map(|it| it.open(&asked.body)) {
            _ if asked.body.is_empty() => (Value::Null, None),
            Some(Ok(text)) => (readable(&text), None),
            Some(Err(why)) => (readable(&asked.body), Some(why)),
            None => (
                readable(&asked.body),
                Some("the subscription's key is not known here"),
            ),
        };
        Sight {
            is_push: name.is_some(),
            token: name.unwrap_or_default().to_string(),
            payload,
            unreadable,
        }
    }

    fn judge(&mut self, _: Caller, asked: &Asked, _: &Sight, mut world: World<'_>) -> Judged {
        let plain = self.options.plain;
        let checked = self.check(asked, world.now.unix_seconds());
        let reply = match checked {
            Ok(ttl) => accepted(201, ttl, asked, &mut world, plain),
            Err(word) => {
                let own = WORDS.iter().find(|(own, _)| *own == word);
                refusal(own.map_or(400, |(_, status)| *status), word)
            }
        };
        reply.into()
    }

    fn say(&mut self, status: u16, word: &str, asked: &Asked, mut world: World<'_>) -> Reply {
        match status {
            200..=202 => {
                let ttl = asked.field("ttl").and_then(|ttl| ttl.parse().ok());
                let plain = self.options.plain;
                accepted(status, ttl.unwrap_or(0), asked, &mut world, plain)
            }
            _ => refusal(status, word),
        }
    }
}

#[cfg(test)]
#[path = "webpush_tests.rs"]
mod tests;

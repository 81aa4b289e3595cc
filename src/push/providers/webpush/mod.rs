//! Web Push: one message to one browser, by way of the service that its subscription names (RFC 8030),
//! with VAPID as the pass (RFC 8292). Owns the fields and the JSON for the page's service worker. The
//! origin comes from a stranger: the request says so (`public_only`), whoever connects guards it and
//! follows no redirect.

pub mod crypt;
pub mod guard;
pub mod verdict;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::providers::address::{Address, bytes_of};
use crate::push::providers::note::{Note, Priority};
use crate::push::providers::provider::{Answer, Method, Pass, Patience, Provider, Request, Unfit};
use crate::push::providers::verdict::Ruling;
use crate::push::providers::webpush::crypt::{Fresh, TEXT_BYTES, encrypt};
use crate::wire::jwt::JwtKey;

/// 28 days: what every service keeps a message for. Mozilla and Apple refuse more than 30.
const TTL_MAX: u32 = 28 * 24 * 3600;
const URGENCIES: [&str; 4] = ["very-low", "low", "normal", "high"];
/// RFC 8030 section 5.4.
const TOPIC_BYTES: usize = 32;
/// Of a pass; 24 hours are the most (RFC 8292 section 2), and some services' clocks are behind.
const PASS_SECONDS: i64 = 12 * 3600;
/// Apple wants no new one within an hour.
const RENEW_SECONDS: i64 = 6 * 3600;

/// One app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebPush {
    /// Texts are filled up to a multiple of so many bytes, so that their length says less; 0: not.
    pub pad_to: usize,
}

impl Provider for WebPush {
    /// `pass`: one for the subscription's origin and the key it was made with.
    fn request(
        &self,
        note: &Note,
        to: &Address,
        pass: Option<&Pass>,
        now: Now,
        dice: &mut Dice,
    ) -> Result<Request, Unfit> {
        let Address::WebPush(to) = to else {
            return Err(Unfit::Address);
        };
        let pass = pass.ok_or(Unfit::Pass)?;
        let left = note.seconds_left(now.unix_seconds())?;
        if note.dry_run {
            return Err(Unfit::NoDryRun);
        }
        let mut request = Request::new(Method::Post, &to.origin, to.path.clone());
        request.public_only = true;
        request.field("ttl", left.unwrap_or(TTL_MAX).min(TTL_MAX).to_string());
        request.field("urgency", urgency(note)?);
        if let Some(collapse) = &note.collapse {
            request.field("topic", topic(collapse));
        }
        request.secret_field("authorization", &pass.authorization);
        let text = text(note)?;
        let padded = text.len().next_multiple_of(self.pad_to.max(1));
        let length = padded.min(TEXT_BYTES);
        let body = encrypt(to, &text, length, &Fresh::draw(dice)).ok_or(Unfit::Address)?;
        request.field("content-encoding", "aes128gcm");
        Ok(request.with_body("application/octet-stream", body))
    }

    fn ruling(&self, answer: &Answer<'_>, now: Now) -> Ruling {
        self::verdict::ruling(answer, now)
    }

    fn patience(&self) -> Patience {
        Patience {
            answer: Duration::from_secs(20),
            first_retry: Duration::from_secs(10),
            give_up: Duration::from_secs(24 * 3600),
        }
    }
}

fn urgency(note: &Note) -> Result<&str, Unfit> {
    match (&note.webpush.urgency, note.priority) {
        (Some(word), _) if URGENCIES.contains(&word.as_str()) => Ok(word),
        (Some(_), _) => {
            let why = format!("webpush.urgency is none of {}", URGENCIES.join(", "));
            Err(Unfit::Note(why))
        }
        (None, Priority::High) => Ok("high"),
        (None, Priority::Normal) => Ok("normal"),
        (None, Priority::Low) => Ok("low"),
    }
}

/// The name itself where it is one, else a digest of it: the same name gives the same topic.
fn topic(collapse: &str) -> String {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match collapse.len() <= TOPIC_BYTES && collapse.bytes().all(allowed) {
        true => collapse.to_string(),
        false => BASE64URL_NOPAD.encode(&digest(&SHA256, collapse.as_bytes()).as_ref()[..24]),
    }
}

/// For the page's service worker; with a link it is a declarative push message (W3C Push API), shown without one.
pub(super) fn text(note: &Note) -> Result<Vec<u8>, Unfit> {
    let text = unbounded_text(note);
    match text.len() > TEXT_BYTES {
        true => Err(Unfit::TooLarge {
            bytes: text.len(),
            limit: TEXT_BYTES,
        }),
        false => Ok(text),
    }
}

fn unbounded_text(note: &Note) -> Vec<u8> {
    if let Some(payload) = &note.webpush.payload {
        return payload.to_string().into_bytes();
    }
    let parts = [
        ("title", &note.title),
        ("body", &note.body),
        ("image", &note.image),
        ("navigate", &note.link),
        ("tag", &note.collapse),
    ];
    let parts = parts.into_iter();
    let mut shown: Map<String, Value> = parts
        .filter_map(|(name, value)| Some((name.to_string(), json!(value.as_ref()?))))
        .collect();
    if !note.data.is_empty() {
        shown.insert("data".to_string(), json!(note.data));
    }
    let mut message = Map::new();
    if note.title.is_some() && note.link.is_some() {
        message.insert("web_push".to_string(), json!(8030));
    }
    if let Some(badge) = note.badge {
        message.insert("app_badge".to_string(), json!(badge));
    }
    message.insert("notification".to_string(), Value::Object(shown));
    Value::Object(message).to_string().into_bytes()
}

/// A key of VAPID, the one that browsers subscribed with: another orphans all subscriptions.
#[derive(Debug)]
pub struct VapidKey {
    key: JwtKey,
    contact: String,
}

impl VapidKey {
    /// `secret`: 32 bytes in base64, or a PEM file. `contact`: whom a service may write to, as
    /// `mailto:` or `https:`.
    pub fn new(secret: &str, contact: &str) -> Result<VapidKey, &'static str> {
        if !VapidKey::is_contact(contact) {
            return Err("the contact is neither mailto: nor https:, or on localhost");
        }
        let key = match secret.contains("-----BEGIN") {
            true => JwtKey::es256_pem(secret.as_bytes())?,
            false => JwtKey::es256_raw(&bytes_of(secret.trim()).ok_or("the key is not base64")?)?,
        };
        Ok(VapidKey {
            key,
            contact: contact.to_string(),
        })
    }

    /// Whether services take it; Apple takes none on localhost.
    pub fn is_contact(text: &str) -> bool {
        let reachable = text.starts_with("mailto:") || text.starts_with("https://");
        reachable && !text.contains("localhost")
    }

    /// `applicationServerKey` in `pushManager.subscribe`.
    pub fn public(&self) -> String {
        BASE64URL_NOPAD.encode(self.key.public_key())
    }

    /// `origin` as in `Subscription`.
    pub fn pass(&self, origin: &str, now: Now) -> Result<Pass, &'static str> {
        let ends_at = now.unix_seconds() + PASS_SECONDS;
        let header = json!({"typ": "JWT", "alg": "ES256"});
        let claims = json!({"aud": origin, "exp": ends_at, "sub": self.contact});
        let token = self.key.sign(&header, &claims)?;
        Ok(Pass {
            authorization: format!("vapid t={token}, k={}", self.public()),
            renew_at: now.unix_seconds() + RENEW_SECONDS,
            ends_at,
        })
    }
}

#[cfg(test)]
mod tests;

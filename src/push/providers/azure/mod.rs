//! Azure Notification Hubs: a note to one device, or to up to a thousand of one platform, by their own
//! providers' tokens and without an installation ("Direct send" and "Direct batch send" of the
//! Notification Hubs REST API). Owns formats, fields and the two kinds of body; what stands in a
//! payload is the provider's behind the hub. The pass is `sas`'s or Microsoft Entra ID's, the answers
//! are `verdict`'s.
//!
//! A hub takes the same `Address` as the provider itself: that a device is reached through a hub is
//! said by the credential, not by the token. It answers before it has asked the provider, so from its
//! answers no token is ever known to be dead.

pub mod sas;
pub mod verdict;

use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::json;

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::providers::address::Address;
use crate::push::providers::apns::{Apns, ApnsAuth};
use crate::push::providers::fcm;
use crate::push::providers::note::Note;
use crate::push::providers::provider::{
    Answer, Batch, Field, Method, Pass, Patience, Provider, Request, Unfit,
};
use crate::push::providers::verdict::Ruling;
use crate::push::providers::webpush;

const API_VERSION: &str = "2020-06";
const JSON: &str = "application/json;charset=utf-8";
/// Of one batch.
const HANDLES: usize = 1000;
/// Of all handles of a batch: with a payload it stays below the 64 KiB of a message.
const HANDLES_BYTES: usize = 48 * 1024;

/// One hub in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// `https://NAMESPACE.servicebus.windows.net`, or a relay; without a path.
    pub origin: String,
    /// The hub's name.
    pub name: String,
    /// The bundle id, which names the topic on APNs; without it the hub takes its own.
    pub bundle: Option<String>,
}

/// What the hub hands on, and how it is told the platform.
struct Native {
    format: &'static str,
    fields: Vec<Field>,
    payload: Vec<u8>,
}

impl Hub {
    /// Whether a name can be a hub's.
    pub fn is_name(name: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        (1..=260).contains(&name.len()) && name.bytes().all(allowed)
    }

    /// As the provider behind the hub wants it.
    fn native(&self, note: &Note, to: &Address, now: Now) -> Result<Native, Unfit> {
        note.seconds_left(now.unix_seconds())?;
        // `test=true` does not check, it delivers.
        if note.dry_run {
            return Err(Unfit::NoDryRun);
        }
        match to {
            Address::Apns(_) => self.apple(note, to, now),
            Address::FcmToken(_) => {
                let message = fcm::message(note, now, fcm::PAYLOAD_BYTES)?;
                let payload = json!({ "message": message }).to_string().into_bytes();
                Ok(Native {
                    format: "fcmv1",
                    fields: Vec::new(),
                    payload,
                })
            }
            Address::WebPush(_) => Ok(Native {
                format: "browser",
                fields: Vec::new(),
                payload: webpush::text(note)?,
            }),
            _ => Err(Unfit::Address),
        }
    }

    /// The fields named `apns-` are handed on as they are. An id is Apple's to give: one request
    /// becomes many pushes.
    fn apple(&self, note: &Note, to: &Address, now: Now) -> Result<Native, Unfit> {
        let apns = Apns {
            origin: self.origin.clone(),
            bundle: self.bundle.clone().unwrap_or_default(),
            auth: ApnsAuth::Token,
        };
        let Request { fields, body, .. } = apns.unproven(note, to, now)?;
        let has_topic = self.bundle.is_some() || note.apns.topic.is_some();
        let is_handed_on = |name: &str| match name {
            "apns-id" => false,
            "apns-topic" => has_topic,
            name => name.starts_with("apns-"),
        };
        let fields = fields.into_iter();
        Ok(Native {
            format: "apple",
            fields: fields.filter(|it| is_handed_on(it.name)).collect(),
            payload: body,
        })
    }

    fn message(&self, end: &str, native: &Native, pass: Option<&Pass>) -> Result<Request, Unfit> {
        let pass = pass.ok_or(Unfit::Pass)?;
        let name = &self.name;
        let path = format!("/{name}/messages/{end}?api-version={API_VERSION}&direct=true");
        let mut request = Request::new(Method::Post, &self.origin, path);
        request.secret_field("authorization", &pass.authorization);
        request.field("servicebusnotification-format", native.format);
        request.fields.extend(native.fields.iter().cloned());
        Ok(request)
    }
}

impl Provider for Hub {
    fn request(
        &self,
        note: &Note,
        to: &Address,
        pass: Option<&Pass>,
        now: Now,
        _: &mut Dice,
    ) -> Result<Request, Unfit> {
        let native = self.native(note, to, now)?;
        let mut request = self.message("", &native, pass)?;
        request.secret_field(
            "servicebusnotification-devicehandle",
            handle(to).ok_or(Unfit::Address)?,
        );
        if let Address::WebPush(subscription) = to {
            let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
            request.secret_field("auth", text(&subscription.auth));
            request.secret_field("p256dh", text(&subscription.p256dh));
        }
        Ok(request.with_body(JSON, native.payload))
    }

    fn ruling(&self, answer: &Answer<'_>, now: Now) -> Ruling {
        verdict::ruling(answer, now)
    }

    fn patience(&self) -> Patience {
        Patience {
            answer: Duration::from_secs(30),
            first_retry: Duration::from_secs(5),
            give_up: Duration::from_secs(24 * 3600),
        }
    }

    fn batch(&self) -> Option<&dyn Batch> {
        Some(self)
    }
}

impl Batch for Hub {
    fn limit(&self) -> usize {
        HANDLES
    }

    fn limit_bytes(&self) -> usize {
        HANDLES_BYTES
    }

    /// Browsers go alone: a list of handles has no place for their keys.
    fn go_together(&self, one: &Address, other: &Address) -> bool {
        matches!(
            (one, other),
            (Address::Apns(_), Address::Apns(_)) | (Address::FcmToken(_), Address::FcmToken(_))
        )
    }

    /// Two parts in a `multipart/mixed` body (RFC 2046 section 5.1): the payload, and the handles
    /// as a JSON array.
    fn request(
        &self,
        note: &Note,
        to: &[&Address],
        pass: Option<&Pass>,
        now: Now,
        dice: &mut Dice,
    ) -> Result<Request, Unfit> {
        let first = to.first().ok_or(Unfit::Address)?;
        let fit = to.iter().all(|it| self.go_together(first, it));
        if !fit || to.len() > HANDLES {
            return Err(Unfit::Address);
        }
        let native = self.native(note, first, now)?;
        let handles: Vec<&str> = to.iter().filter_map(|it| handle_text(it)).collect();
        let handles = json!(handles).to_string();
        let boundary = HEXLOWER.encode(&dice.next_u128().to_be_bytes());
        let part = |name: &str, media_type: &str| {
            format!(
                "--{boundary}\r\ncontent-type: {media_type}\r\n\
                 content-disposition: inline; name={name}\r\n\r\n"
            )
        };
        let body = [
            part("notification", JSON).as_bytes(),
            &native.payload,
            b"\r\n",
            part("devices", "application/json").as_bytes(),
            handles.as_bytes(),
            format!("\r\n--{boundary}--\r\n").as_bytes(),
        ]
        .concat();
        let request = self.message("$batch", &native, pass)?;
        Ok(request.with_body(&format!("multipart/mixed; boundary=\"{boundary}\""), body))
    }
}

/// `ServiceBusNotification-DeviceHandle`.
fn handle(to: &Address) -> Option<String> {
    match to {
        Address::WebPush(subscription) => Some(subscription.endpoint()),
        other => handle_text(other).map(str::to_string),
    }
}

fn handle_text(to: &Address) -> Option<&str> {
    match to {
        Address::Apns(token) | Address::FcmToken(token) => Some(token),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

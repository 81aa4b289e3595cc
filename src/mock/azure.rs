//! Azure Notification Hubs (Microsoft, "Notification Hubs REST APIs"), as far as sending goes: direct,
//! to many devices, by tags, at a time; and installations. Owns what was installed. Secrets and access
//! tokens, which the same mock gives out, are `azure_vault`'s. Registrations in Atom are not there.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::mock::azure_vault::{Vault, VaultOptions};
use crate::mock::line::readable;
use crate::mock::{Asked, Caller, Judged, Kind, Provider, Reply, Sight, World};
use crate::wire::query::{decode_path, parse_query};

/// Every word with its status.
pub const WORDS: &[(&str, u16)] = &[
    ("ok", 201),
    ("BadRequest", 400),
    ("invalid_request", 400),
    ("Unauthorized", 401),
    ("invalid_client", 401),
    ("Forbidden", 403),
    ("QuotaExceeded", 403),
    ("NotFound", 404),
    ("SecretNotFound", 404),
    ("RequestTimeout", 408),
    ("Gone", 410),
    ("MessageTooLarge", 413),
    ("TooManyRequests", 429),
    ("Throttled", 429),
    ("InternalServerError", 500),
    ("BadGateway", 502),
    ("ServiceUnavailable", 503),
    ("GatewayTimeout", 504),
];

const FORMATS: [&str; 8] = [
    "apple", "fcmv1", "windows", "adm", "baidu", "browser", "xiaomi", "template",
];
const BODY_BYTES: usize = 64 * 1024;
/// What an access token has to be for.
const RESOURCE: &str = "https://notificationhubs.azure.net";
const HANDLES: usize = 1000;
const INSTALLATIONS: usize = 1000;
/// Of them the first so many stand in the line.
const SHOWN: usize = 10;

/// How the services are set up.
#[derive(Clone, Debug, Default)]
pub struct AzureOptions {
    /// Without it every hub exists.
    pub hub: Option<String>,
    pub key_name: String,
    /// As text; not decoded.
    pub key: String,
    pub vault: VaultOptions,
}

/// See the file's head.
pub struct Azure {
    options: AzureOptions,
    vault: Vault,
    /// By hub and id.
    installations: BTreeMap<(String, String), Value>,
}

/// What a path of a hub asks for.
enum Call<'a> {
    Messages,
    Batch,
    Scheduled,
    Cancelled,
    Installation(&'a str),
}

fn call<'a>(method: &str, path: &'a str) -> Option<(&'a str, Call<'a>)> {
    let (hub, rest) = path.strip_prefix('/')?.split_once('/')?;
    let rest = rest.trim_end_matches('/');
    let call = match (method, rest.split_once('/')) {
        ("POST", None) if rest == "messages" => Call::Messages,
        ("POST", Some(("messages", "$batch"))) => Call::Batch,
        ("POST", None) if rest == "schedulednotifications" => Call::Scheduled,
        ("DELETE", Some(("schedulednotifications", _))) => Call::Cancelled,
        (_, Some(("installations", id))) => Call::Installation(id),
        _ => return None,
    };
    Some((hub, call))
}

/// A batch: what is sent, and to which devices.
struct Batch<'a> {
    notification: &'a [u8],
    devices: Vec<String>,
}

/// The two parts of a multipart body (RFC 2046 section 5.1).
fn batch(asked: &Asked) -> Option<Batch<'_>> {
    let media = asked.field("content-type")?;
    // Microsoft's own library writes blanks around the sign.
    let boundary = media.split_once("boundary")?.1.trim_start();
    let boundary = boundary.strip_prefix('=')?.split(';').next()?;
    let boundary = boundary.trim().trim_matches('"');
    let delimiter = format!("--{boundary}");
    let mut rest = &asked.body[..];
    let (mut notification, mut devices) = (None, None);
    while let Some(at) = memchr::memmem::find(rest, delimiter.as_bytes()) {
        rest = &rest[at + delimiter.len()..];
        let end = memchr::memmem::find(rest, delimiter.as_bytes()).unwrap_or(rest.len());
        let Some(blank) = memchr::memmem::find(&rest[..end], b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&rest[..blank]).ok()?;
        let content = &rest[blank + 4..end];
        let content = content.strip_suffix(b"\r\n").unwrap_or(content);
        match head {
            head if head.contains("name=notification") => notification = Some(content),
            head if head.contains("name=devices") => devices = Some(content),
            _ => {}
        }
    }
    let devices: Vec<String> = serde_json::from_slice(devices?).ok()?;
    Some(Batch {
        notification: notification?,
        devices,
    })
}

impl Azure {
    pub fn new(options: AzureOptions) -> Azure {
        Azure {
            vault: Vault::new(options.vault.clone()),
            options,
            installations: BTreeMap::new(),
        }
    }

    /// An access token for hubs, or a Shared Access Signature (Microsoft, "Common parameters and
    /// headers"): of a resource that is the request's or above it, not over yet, and signed with our
    /// key.
    fn is_allowed(&self, asked: &Asked, now: i64) -> bool {
        if let Some(is_granted) = self.vault.grants(asked, RESOURCE, now) {
            return is_granted;
        }
        let Some(signature) = asked.authorization("SharedAccessSignature") else {
            return false;
        };
        let raw = |name: &str| {
            let mut all = signature.split('&').filter_map(|one| one.split_once('='));
            all.find_map(|(own, value)| (own == name).then_some(value))
        };
        let decoded = |name: &str| raw(name).and_then(decode_path);
        let (Some(resource), Some(expires)) = (raw("sr"), raw("se")) else {
            return false;
        };
        let signed = BASE64.decode(decoded("sig").unwrap_or_default().as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.options.key.as_bytes());
        let text = format!("{resource}\n{expires}");
        let is_signed = signed.is_ok_and(|it| hmac::verify(&key, text.as_bytes(), &it).is_ok());
        let above = decoded("sr").unwrap_or_default().to_lowercase();
        let above = above.split_once("://").map_or("", |(_, above)| above);
        let above = above.trim_end_matches('/');
        let ours = format!("{}{}", asked.authority, asked.path()).to_lowercase();
        let is_above = !above.is_empty() && ours.starts_with(above);
        let is_new = expires.parse().is_ok_and(|expires: i64| expires > now);
        let named = decoded("skn").is_some_and(|name| name == self.options.key_name);
        is_signed && is_above && is_new && named
    }

    fn send(
        &mut self,
        call: Call<'_>,
        asked: &Asked,
        world: &mut World<'_>,
    ) -> Result<Reply, Reply> {
        let bad = |why: &str| fault(400, "BadRequest", why);
        let format = asked.field("servicebusnotification-format");
        if !format.is_some_and(|format| FORMATS.contains(&format)) {
            return Err(bad("ServiceBusNotification-Format is missing or unknown"));
        }
        if asked.body.len() > BODY_BYTES || !asked.whole {
            return Err(fault(413, "MessageTooLarge", "the message is over 64 KB"));
        }
        let query = parse_query(asked.query()).unwrap_or_default();
        let direct = query
            .iter()
            .any(|(name, value)| name == "direct" && value == "true");
        let handle = asked.field("servicebusnotification-devicehandle");
        match call {
            Call::Messages if direct && handle.is_none() => {
                return Err(bad("ServiceBusNotification-DeviceHandle is missing"));
            }
            Call::Batch => match batch(asked) {
                Some(batch) if (1..=HANDLES).contains(&batch.devices.len()) => {}
                Some(_) => return Err(bad("there are not 1 to 1000 devices")),
                None => return Err(bad("the parts `notification` and `devices` are not there")),
            },
            Call::Scheduled if asked.field("servicebusnotification-scheduletime").is_none() => {
                return Err(bad("ServiceBusNotification-ScheduleTime is missing"));
            }
            _ => {}
        }
        Ok(accepted(asked, world))
    }

    fn install(&mut self, hub: &str, id: &str, asked: &Asked) -> Result<Reply, Reply> {
        let missing = || fault(404, "NotFound", "there is no such installation");
        let place = (hub.to_string(), id.to_string());
        match &*asked.method {
            "PUT" => {
                let Ok(wanted @ Value::Object(_)) = serde_json::from_slice(&asked.body) else {
                    return Err(fault(400, "BadRequest", "the body is no JSON object"));
                };
                let full = self.installations.len() >= INSTALLATIONS;
                if full && !self.installations.contains_key(&place) {
                    return Err(fault(403, "QuotaExceeded", "there are 1000 installations"));
                }
                self.installations.insert(place, wanted);
                Ok(Reply::empty(200))
            }
            "GET" => {
                let found = self.installations.get(&place).ok_or_else(missing)?;
                Ok(Reply::json(200, found))
            }
            "PATCH" => match self.installations.contains_key(&place) {
                true => Ok(Reply::empty(200)),
                false => Err(missing()),
            },
            "DELETE" => {
                self.installations.remove(&place);
                Ok(Reply::empty(204))
            }
            _ => Err(fault(
                400,
                "BadRequest",
                "the method is none of an installation",
            )),
        }
    }

    fn hear(&mut self, asked: &Asked, world: &mut World<'_>) -> Result<Reply, Reply> {
        let missing = || fault(404, "NotFound", "there is nothing here");
        let (hub, call) = call(&asked.method, asked.path()).ok_or_else(missing)?;
        if !self.is_allowed(asked, world.now.unix_seconds()) {
            return Err(fault(401, "Unauthorized", "InvalidSignature"));
        }
        if self.options.hub.as_deref().is_some_and(|own| own != hub) {
            return Err(fault(404, "NotFound", "there is no such hub"));
        }
        match call {
            Call::Installation(id) => self.install(hub, id, asked),
            Call::Cancelled => Ok(Reply::empty(200)),
            call => self.send(call, asked, world),
        }
    }
}

fn accepted(asked: &Asked, world: &mut World<'_>) -> Reply {
    let hub = asked.path().split('/').nth(1).unwrap_or_default();
    let location = format!(
        "https://{}/{hub}/messages/{}?api-version=2020-06",
        asked.authority,
        world.uuid()
    );
    Reply::empty(201)
        .with("location", location)
        .with("trackingid", world.uuid())
        .with("x-ms-correlation-request-id", world.uuid())
}

fn fault(status: u16, word: &str, detail: &str) -> Reply {
    let body = format!("<Error><Code>{status}</Code><Detail>{word}: {detail}</Detail></Error>");
    let reply = Reply {
        content_type: "application/xml; charset=utf-8",
        body: body.into_bytes(),
        ..Reply::empty(status)
    };
    reply.because(format!("{word}: {detail}"))
}

impl Provider for Azure {
    fn kind(&self) -> Kind {
        Kind::Azure
    }

    fn sight(&mut self, asked: &Asked) -> Sight {
        let sends = match call(&asked.method, asked.path()) {
            Some((_, call @ (Call::Messages | Call::Batch | Call::Scheduled))) => Some(call),
            _ => None,
        };
        let fields = ["devicehandle", "tags"];
        let named = |name: &&str| asked.field(&format!("servicebusnotification-{name}"));
        let mut token = fields
            .iter()
            .find_map(named)
            .unwrap_or_default()
            .to_string();
        let mut payload = match Vault::is_for(asked) {
            // Secrets of clients are theirs.
            true => Value::Null,
            false => readable(&asked.body),
        };
        if let (Some(Call::Batch), Some(batch)) = (&sends, batch(asked)) {
            payload = json!({
                "notification": readable(batch.notification),
                "devices": batch.devices.len(),
            });
            token = batch.devices[..batch.devices.len().min(SHOWN)].join(",");
        }
        Sight {
            is_push: sends.is_some(),
            token,
            payload,
            unreadable: None,
        }
    }

    fn judge(&mut self, _: Caller, asked: &Asked, _: &Sight, mut world: World<'_>) -> Judged {
        let reply = match Vault::is_for(asked) {
            true => self.vault.judge(asked, &mut world),
            false => self.hear(asked, &mut world).unwrap_or_else(|fault| fault),
        };
        reply.into()
    }

    fn say(&mut self, status: u16, word: &str, asked: &Asked, mut world: World<'_>) -> Reply {
        match status {
            _ if Vault::is_for(asked) => Vault::say(status, word),
            201 => accepted(asked, &mut world),
            status if status < 400 || word.is_empty() => Reply::empty(status).because(word),
            _ => fault(status, word, "the script says so"),
        }
    }
}

#[cfg(test)]
#[path = "azure_tests.rs"]
mod tests;

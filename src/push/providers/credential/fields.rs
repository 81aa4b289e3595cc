//! A credential out of named texts. Owns the names and what is said of a wrong one. Invariant: no
//! error quotes a secret.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::push::devices::entra::{self, Hidden, Identity};
use crate::push::providers::apns::certificate::ClientCertificate;
use crate::push::providers::apns::channels::{self, Channels};
use crate::push::providers::apns::{self, Apns, ApnsAuth, ApnsKey};
use crate::push::providers::azure::Hub;
use crate::push::providers::azure::sas::{SasKey, namespace};
use crate::push::providers::credential::about::about;
use crate::push::providers::credential::{Credential, Proof, Seal};
use crate::push::providers::fcm::account::ServiceAccount;
use crate::push::providers::fcm::{self, Fcm, topics};
use crate::push::providers::webpush::{VapidKey, WebPush};
use crate::wire::target::{Target, TargetScheme};

/// What Microsoft calls Notification Hubs when it gives out access tokens.
const HUBS_RESOURCE: &str = "https://notificationhubs.azure.net";
/// Of one value: a chain of certificates is the longest there is.
const VALUE_BYTES: usize = 64 * 1024;

/// What each kind may hold beside `kind` and `ca_file`.
const KINDS: [(&str, &[&str]); 6] = [
    (
        "apns-token",
        &[
            "key",
            "key_id",
            "team_id",
            "bundle",
            "environment",
            "base_url",
            "channels_url",
        ],
    ),
    (
        "apns-certificate",
        &[
            "certificate",
            "key",
            "bundle",
            "environment",
            "base_url",
            "channels_url",
        ],
    ),
    (
        "fcm",
        &["account", "project", "base_url", "token_url", "topics_url"],
    ),
    ("webpush", &["key", "contact"]),
    (
        "azure-connection",
        &["connection_string", "hub", "bundle", "base_url"],
    ),
    (
        "azure-entra",
        &[
            "namespace",
            "hub",
            "bundle",
            "tenant",
            "client_id",
            "client_secret",
            "identity_header",
            "base_url",
            "token_url",
            "resource",
        ],
    ),
];

/// The fields of `azure-entra` that say who asks.
pub(super) fn parse_identity(map: &Map<String, Value>) -> Result<Identity, String> {
    identity(&Texts(map))
}

pub(super) fn parse(map: &Map<String, Value>) -> Result<Credential, String> {
    let texts = Texts(map);
    let kind = texts.need("kind")?;
    let known = KINDS.iter().find(|(own, _)| *own == kind);
    let (_, names) = known.ok_or_else(|| {
        let words: Vec<&str> = KINDS.iter().map(|(word, _)| *word).collect();
        format!("kind: it is none of {}", words.join(", "))
    })?;
    let is_known = |name: &str| ["kind", "ca_file"].contains(&name) || names.contains(&name);
    if let Some(name) = map.keys().find(|name| !is_known(name)) {
        let name: String = name.chars().take(40).collect();
        return Err(format!(
            "{name:?} is nothing of {kind}, which has {}",
            names.join(", ")
        ));
    }
    let proof = match kind {
        "apns-token" | "apns-certificate" => apns(&texts, kind),
        "fcm" => fcm(&texts),
        "webpush" => webpush(&texts),
        "azure-connection" => azure_connection(&texts),
        _ => azure_entra(&texts),
    };
    let proof = proof?;
    Ok(Credential {
        about: about(map, &proof),
        proof,
        ca_file: texts.may("ca_file")?.map(str::to_string),
        seal: Seal::new(map),
    })
}

fn apns(texts: &Texts<'_>, kind: &str) -> Result<Proof, String> {
    let sandbox = match texts.may("environment")? {
        None | Some("production") => false,
        Some("development") => true,
        Some(_) => {
            return Err("environment: it is neither production nor development".to_string());
        }
    };
    let (origin, channels) = match sandbox {
        false => (apns::PRODUCTION, channels::PRODUCTION),
        true => (apns::DEVELOPMENT, channels::DEVELOPMENT),
    };
    let auth = match kind {
        "apns-token" => ApnsAuth::Token,
        _ => ApnsAuth::Certificate,
    };
    let bundle = texts.bundle()?.ok_or("bundle: it is missing")?;
    let app = Apns {
        origin: texts.origin("base_url", origin)?,
        bundle: bundle.clone(),
        auth,
    };
    let channels = Channels {
        origin: texts.origin("channels_url", channels)?,
        bundle,
        auth,
    };
    let key = texts.need("key")?;
    if auth == ApnsAuth::Certificate {
        return Ok(Proof::ApnsCertificate {
            app,
            channels,
            sandbox,
            certificate: ClientCertificate::parse(texts.need("certificate")?, key)?,
        });
    }
    for name in ["key_id", "team_id"] {
        let id = texts.need(name)?;
        if id.len() != 10 || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(format!("{name}: it has ten letters and digits"));
        }
    }
    let ids = (texts.need("key_id")?, texts.need("team_id")?);
    let key = ApnsKey::new(key.as_bytes(), ids.0, ids.1);
    Ok(Proof::ApnsToken {
        app,
        channels,
        sandbox,
        key: key.map_err(|why| format!("key: {why}"))?,
    })
}

fn fcm(texts: &Texts<'_>) -> Result<Proof, String> {
    let json = match texts.0.get("account") {
        Some(object @ Value::Object(_)) => Hidden::new(&object.to_string()),
        _ => Hidden::new(texts.need("account")?),
    };
    let account = ServiceAccount::parse(json.as_str().as_bytes());
    let mut account = account.map_err(|why| format!("account: {why}"))?;
    if let Some(url) = texts.may("token_url")? {
        account.token_url = checked_url("token_url", url)?;
    } else {
        checked_url("account", &account.token_url)?;
    }
    let project = texts.may("project")?.unwrap_or(&account.project);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.".contains(&byte);
    if project.is_empty() || !project.bytes().all(allowed) {
        return Err("project: it is neither a project's id nor its number".to_string());
    }
    Ok(Proof::FcmAccount {
        app: Fcm {
            origin: texts.origin("base_url", fcm::ORIGIN)?,
            project: project.to_string(),
        },
        topics_origin: texts.origin("topics_url", topics::ORIGIN)?,
        account: Box::new(account),
    })
}

fn webpush(texts: &Texts<'_>) -> Result<Proof, String> {
    let (key, contact) = (texts.need("key")?, texts.need("contact")?);
    let is_contact = VapidKey::is_contact(contact);
    let key = VapidKey::new(key, contact);
    let field = if is_contact { "key" } else { "contact" };
    Ok(Proof::Vapid {
        app: WebPush::default(),
        key: key.map_err(|why| format!("{field}: {why}"))?,
    })
}

fn azure_connection(texts: &Texts<'_>) -> Result<Proof, String> {
    let key = SasKey::parse(texts.need("connection_string")?);
    let key = key.map_err(|why| format!("connection_string: {why}"))?;
    Ok(Proof::AzureConnection {
        hub: hub(texts, &key.origin)?,
        key,
    })
}

fn azure_entra(texts: &Texts<'_>) -> Result<Proof, String> {
    let origin = namespace(texts.need("namespace")?).map_err(|why| format!("namespace: {why}"))?;
    Ok(Proof::AzureEntra {
        hub: hub(texts, &origin)?,
        identity: identity(texts)?,
        resource: match texts.may("resource")? {
            Some(resource) => checked_url("resource", resource)?,
            None => HUBS_RESOURCE.to_string(),
        },
    })
}

fn identity(texts: &Texts<'_>) -> Result<Identity, String> {
    let url = texts.may("token_url")?;
    let url = url.map(|url| checked_url("token_url", url)).transpose()?;
    let client_id = texts.may("client_id")?.map(str::to_string);
    let (identity, field) = match (texts.may("client_secret")?, texts.may("identity_header")?) {
        (Some(_), Some(_)) => {
            return Err("identity_header: it is not for a client with a secret".to_string());
        }
        (Some(secret), None) => {
            let identity = Identity::Client {
                authority: url.unwrap_or_else(|| entra::AUTHORITY.to_string()),
                tenant: texts.need("tenant")?.to_string(),
                client_id: texts.need("client_id")?.to_string(),
                secret: Hidden::new(secret),
            };
            (identity, "client_secret")
        }
        (None, Some(header)) => {
            let identity = Identity::Service {
                endpoint: url.ok_or("token_url: it is missing, IDENTITY_ENDPOINT belongs there")?,
                header: Hidden::new(header),
                client_id,
            };
            (identity, "identity_header")
        }
        (None, None) => {
            if texts.may("tenant")?.is_some() {
                return Err("client_secret: a tenant is named, and no secret".to_string());
            }
            let base = url.unwrap_or_else(|| entra::IMDS.to_string());
            (Identity::Machine { base, client_id }, "client_id")
        }
    };
    identity.check().map_err(|why| format!("{field}: {why}"))?;
    Ok(identity)
}

fn hub(texts: &Texts<'_>, origin: &str) -> Result<Hub, String> {
    let name = texts.need("hub")?;
    if !Hub::is_name(name) {
        return Err("hub: it is a name of letters, digits and - . _".to_string());
    }
    Ok(Hub {
        origin: texts.origin("base_url", origin)?,
        name: name.to_string(),
        bundle: texts.bundle()?,
    })
}

/// What was given.
struct Texts<'a>(&'a Map<String, Value>);

impl<'a> Texts<'a> {
    fn may(&self, name: &str) -> Result<Option<&'a str>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => {
                Err(format!("{name}: it is empty"))
            }
            Some(Value::String(text)) if text.len() > VALUE_BYTES => {
                Err(format!("{name}: it is longer than {VALUE_BYTES} bytes"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{name}: it is not a text")),
        }
    }

    fn need(&self, name: &str) -> Result<&'a str, String> {
        self.may(name)?
            .ok_or_else(|| format!("{name}: it is missing"))
    }

    fn bundle(&self) -> Result<Option<String>, String> {
        let bundle = self.may("bundle")?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        match bundle.is_none_or(|it| it.len() <= 255 && it.bytes().all(allowed)) {
            true => Ok(bundle.map(str::to_string)),
            false => Err("bundle: it looks like com.example.app".to_string()),
        }
    }

    /// `SCHEME://HOST[:PORT]`, as a request's origin.
    fn origin(&self, name: &str, usual: &str) -> Result<String, String> {
        let Some(url) = self.may(name)? else {
            return Ok(usual.to_string());
        };
        let url = checked_url(name, url)?;
        let target = Target::parse_web(&url).map_err(|why| format!("{name}: {why}"))?;
        match target.path_and_query() {
            "/" => Ok(format!(
                "{}://{}",
                target.scheme().word(),
                target.authority()
            )),
            _ => Err(format!("{name}: it ends behind host and port")),
        }
    }
}

/// Secrets go over TLS, unless they stay on this machine or ask the machine's own identity.
fn checked_url(name: &str, url: &str) -> Result<String, String> {
    let target = Target::parse_web(url).map_err(|why| format!("{name}: {why}"))?;
    let host = target.host();
    let is_near = match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback(),
        Err(_) => host == "localhost",
    };
    match target.scheme() == TargetScheme::HttpTls || is_near {
        true => Ok(url.to_string()),
        false => Err(format!("{name}: it does not begin with https://")),
    }
}

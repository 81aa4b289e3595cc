//! What an app proves itself with to a provider, of every kind in one place: which provider type goes
//! with it, and how its pass is made. What a configuration or an API gives is read in `fields`; when a
//! pass is made, kept and renewed is `keeper`'s. Invariant: `Debug` prints no secret.

mod about;
mod fields;
pub mod jobs;
pub mod keeper;

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use data_encoding::BASE64;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::devices::entra::{Identity, TokenVerdict};
use crate::push::devices::token::Service;
use crate::push::providers::apns::certificate::ClientCertificate;
use crate::push::providers::apns::channels::Channels;
use crate::push::providers::apns::{Apns, ApnsKey};
use crate::push::providers::azure::Hub;
use crate::push::providers::azure::sas::SasKey;
use crate::push::providers::fcm::Fcm;
use crate::push::providers::fcm::account::{self, ServiceAccount};
use crate::push::providers::provider::{Answer, Pass, Provider, Request};
use crate::push::providers::verdict::{Ruling, Scope, Verdict};
use crate::push::providers::webpush::{VapidKey, WebPush};

const NONCE_BYTES: usize = 12;
/// A certificate is warned about so long before it ends.
const WARN_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 24 * 3600;

/// See the file's head.
#[derive(Debug)]
pub struct Credential {
    pub proof: Proof,
    /// A PEM file with the authorities that are trusted instead of the system's, for all that is
    /// sent with this credential.
    pub ca_file: Option<String>,
    /// What may be told of it.
    pub about: Map<String, Value>,
    seal: Seal,
}

/// The kinds, each with the provider that takes it.
#[derive(Debug)]
pub enum Proof {
    ApnsToken {
        app: Apns,
        channels: Channels,
        sandbox: bool,
        key: ApnsKey,
    },
    /// Shown in the TLS handshake; there is no pass.
    ApnsCertificate {
        app: Apns,
        channels: Channels,
        sandbox: bool,
        certificate: ClientCertificate,
    },
    FcmAccount {
        app: Fcm,
        /// Where topics are joined and left (`fcm/topics`).
        topics_origin: String,
        account: Box<ServiceAccount>,
    },
    Vapid {
        app: WebPush,
        key: VapidKey,
    },
    AzureConnection {
        hub: Hub,
        key: SasKey,
    },
    AzureEntra {
        hub: Hub,
        identity: Identity,
        /// What the access token is for.
        resource: String,
    },
}

/// How a pass comes about.
#[derive(Debug)]
pub enum Making {
    /// Out of the credential alone.
    Made(Pass),
    /// By what `Credential::granted` makes of this request's answer.
    Ask(Request),
    /// There is none and none is needed.
    Unneeded,
}

impl Credential {
    /// Reads and checks what a configuration or an API gives. `kind` says which of these it is; all
    /// values are texts, secrets included, but for `account`, which may be the JSON object itself.
    /// URLs end behind host and port, unless they are token URLs.
    ///
    /// | kind | fields | may be left out |
    /// |---|---|---|
    /// | `apns-token` | `key` (the `.p8` file), `key_id`, `team_id`, `bundle` | `environment` (`production` or `development`), `base_url`, `channels_url` |
    /// | `apns-certificate` | `certificate`, `key` (both PEM), `bundle` | `environment`, `base_url`, `channels_url` |
    /// | `fcm` | `account` (the service account's JSON) | `project`, `base_url`, `token_url`, `topics_url` |
    /// | `webpush` | `key` (32 bytes in base64, or PEM), `contact` | |
    /// | `azure-connection` | `connection_string`, `hub` | `bundle`, `base_url` |
    /// | `azure-entra` | `namespace`, `hub` | `tenant`, `client_id`, `client_secret` (without it the machine's own identity), `identity_header` (that of an App Service; then `token_url` too), `bundle`, `base_url`, `token_url`, `resource` |
    ///
    /// Each may have `ca_file`. An error begins with the field's name and quotes no secret.
    pub fn parse(fields: &Map<String, Value>) -> Result<Credential, String> {
        fields::parse(fields)
    }

    pub fn kind(&self) -> &'static str {
        match self.proof {
            Proof::ApnsToken { .. } => "apns-token",
            Proof::ApnsCertificate { .. } => "apns-certificate",
            Proof::FcmAccount { .. } => "fcm",
            Proof::Vapid { .. } => "webpush",
            Proof::AzureConnection { .. } => "azure-connection",
            Proof::AzureEntra { .. } => "azure-entra",
        }
    }

    /// For which devices it is: an app has one for each.
    pub fn family(&self) -> &'static str {
        match &self.proof {
            Proof::ApnsToken { sandbox, .. } | Proof::ApnsCertificate { sandbox, .. } => {
                match sandbox {
                    true => "apns-sandbox",
                    false => "apns",
                }
            }
            Proof::FcmAccount { .. } => "fcm",
            Proof::Vapid { .. } => "webpush",
            Proof::AzureConnection { .. } | Proof::AzureEntra { .. } => "azure",
        }
    }

    /// Whether it is for whatever no other credential of the app is for.
    pub fn is_fallback(&self) -> bool {
        matches!(
            self.proof,
            Proof::AzureConnection { .. } | Proof::AzureEntra { .. }
        )
    }

    /// Whether it says the same in every field.
    pub fn is_same(&self, other: &Credential) -> bool {
        self.seal.0 == other.seal.0
    }

    /// Whether the machine proves who asks, and not the credential.
    pub fn is_of_machine(&self) -> bool {
        let Proof::AzureEntra { identity, .. } = &self.proof else {
            return false;
        };
        !matches!(identity, Identity::Client { .. })
    }

    pub fn provider(&self) -> &dyn Provider {
        match &self.proof {
            Proof::ApnsToken { app, .. } | Proof::ApnsCertificate { app, .. } => app,
            Proof::FcmAccount { app, .. } => app,
            Proof::Vapid { app, .. } => app,
            Proof::AzureConnection { hub, .. } | Proof::AzureEntra { hub, .. } => hub,
        }
    }

    /// Whether a device with a token of this service can be reached with it. Which environment of
    /// Apple's a hub talks to is the hub's own setting.
    pub fn serves(&self, service: Service) -> bool {
        match &self.proof {
            Proof::ApnsToken { sandbox, .. } | Proof::ApnsCertificate { sandbox, .. } => {
                let own = if *sandbox {
                    Service::ApnsSandbox
                } else {
                    Service::Apns
                };
                service == own
            }
            Proof::FcmAccount { .. } => matches!(service, Service::Fcm | Service::FcmFid),
            Proof::Vapid { .. } => service == Service::WebPush,
            Proof::AzureConnection { .. } | Proof::AzureEntra { .. } => service != Service::FcmFid,
        }
    }

    /// Whether each origin that is sent to needs a pass of its own.
    pub fn is_per_origin(&self) -> bool {
        matches!(self.proof, Proof::Vapid { .. })
    }

    /// What somebody should look after soon, in a sentence.
    pub fn warning(&self, now: Now) -> Option<String> {
        let Proof::ApnsCertificate { certificate, .. } = &self.proof else {
            return None;
        };
        let days = certificate.seconds_left(now).div_euclid(DAY_SECONDS);
        match days {
            ..0 => Some("the certificate has expired".to_string()),
            0..WARN_DAYS => Some(format!("the certificate expires in {days} days")),
            _ => None,
        }
    }

    /// Begins a pass. `origin`: where it is for, if `is_per_origin`.
    pub fn make(&self, origin: Option<&str>, now: Now) -> Result<Making, String> {
        match &self.proof {
            Proof::ApnsToken { key, .. } => Ok(Making::Made(key.pass(now)?)),
            Proof::ApnsCertificate { .. } => Ok(Making::Unneeded),
            Proof::FcmAccount { account, .. } => account.request(now).map(Making::Ask),
            Proof::Vapid { key, .. } => {
                let origin = origin.ok_or("a pass of Web Push is for one origin")?;
                Ok(Making::Made(key.pass(origin, now)?))
            }
            Proof::AzureConnection { key, .. } => Ok(Making::Made(key.pass(now))),
            Proof::AzureEntra {
                identity, resource, ..
            } => identity.request(resource).into_request().map(Making::Ask),
        }
    }

    /// The pass that an answer to `Making::Ask` holds, or why there is none. `tries` counts the
    /// requests since the last pass, this one included.
    pub fn granted(&self, answer: &Answer<'_>, tries: u32, now: Now) -> Result<Pass, Ruling> {
        let Proof::AzureEntra { identity, .. } = &self.proof else {
            return account::granted(answer, now);
        };
        let hint = answer.field("retry-after");
        match identity.verdict(answer.status, hint, answer.body, tries, now) {
            TokenVerdict::Token(token) => Ok(token.pass(now)),
            TokenVerdict::Again(wait) => {
                let scope = Scope::App;
                let verdict = Verdict::RetryAfter { wait, scope };
                Err(Ruling::new(verdict, format!("HTTP {}", answer.status)))
            }
            TokenVerdict::Refused(why) => Err(Ruling::new(Verdict::APP_BROKEN, why)),
        }
    }

    /// Seconds that have to lie between two passes, however bad the first one is. Apple: 20 minutes,
    /// and for browsers an hour; elsewhere so that a service that refuses all is not flooded.
    fn least_seconds(&self) -> i64 {
        match self.proof {
            Proof::ApnsToken { .. } => 20 * 60,
            Proof::Vapid { .. } => 3600,
            _ => 10,
        }
    }
}

/// Who asks Azure, by `tenant`, `client_id`, `client_secret`, `identity_header` and `token_url`, as in
/// `azure-entra`. An error begins with the field's name and quotes no secret.
pub fn parse_identity(fields: &Map<String, Value>) -> Result<Identity, String> {
    fields::parse_identity(fields)
}

/// Closes what is kept of a pass. Its key is made of the credential, so that whoever reads what is
/// kept learns nothing he could not do without, and a changed credential opens nothing old.
struct Seal(Zeroizing<[u8; 32]>);

impl Seal {
    /// `fields`: all of the credential.
    fn new(fields: &Map<String, Value>) -> Seal {
        let json = serde_json::to_vec(fields).unwrap_or_default();
        let json = Zeroizing::new(json);
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"lineman pass");
        let tag = hmac::sign(&key, &json);
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(tag.as_ref());
        Seal(bytes)
    }

    fn key(&self) -> Option<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, &self.0[..]).ok()?;
        Some(LessSafeKey::new(key))
    }

    /// In base64. Opens with the same `about` only.
    fn close(&self, text: &[u8], about: &str, dice: &mut Dice) -> Option<String> {
        let drawn = dice.next_u128().to_be_bytes();
        let nonce: [u8; NONCE_BYTES] = drawn[..NONCE_BYTES].try_into().ok()?;
        let mut sealed = text.to_vec();
        let (aad, used) = (Aad::from(about), Nonce::assume_unique_for_key(nonce));
        self.key()?
            .seal_in_place_append_tag(used, aad, &mut sealed)
            .ok()?;
        Some(BASE64.encode(&[&nonce[..], &sealed].concat()))
    }

    fn open(&self, text: &str, about: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = BASE64.decode(text.as_bytes()).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let opened = self
            .key()?
            .open_in_place(nonce, Aad::from(about), &mut sealed);
        let length = opened.ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("••••")
    }
}

#[cfg(test)]
mod tests;

//! Access tokens of Microsoft Entra ID, with which Azure is asked for secrets: of the machine's own
//! identity (IMDS), of an App Service's, or of a client with a secret. Requests and what their answers
//! mean; sends nothing. Invariants: secrets print as dots, leave no copy in memory when they are
//! dropped, and no message holds anything that was sent to us.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::base::now::Now;
use crate::push::devices::key_vault::read_retry_after;
use crate::push::providers::provider::{Method, Pass, Request};
use crate::wire::target::{Target, TargetScheme};

/// Where a virtual machine asks for its identity.
pub const IMDS: &str = "http://169.254.169.254";
/// Where a client shows its secret.
pub const AUTHORITY: &str = "https://login.microsoftonline.com";
/// A longer wait is not asked for by anybody who means it.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(300);
/// A token is renewed this long before it ends.
const RENEW_SECONDS: i64 = 300;
/// IMDS is asked so often, with longer and longer waits.
const IMDS_TRIES: u32 = 5;
const IMDS_FIRST_WAIT: Duration = Duration::from_millis(800);
/// While it updates itself (410) it takes up to 70 seconds.
const IMDS_UPDATE_WAIT: Duration = Duration::from_secs(20);

/// A text that prints as dots and is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    pub fn new(text: &str) -> Hidden {
        Hidden(Zeroizing::new(text.to_string()))
    }

    /// The text itself; only for sending.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("••••")
    }
}

/// A request as it is to be sent; `Host` and `Content-Length` are the sender's business. Redirects
/// are not followed, and no proxy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub url: String,
    /// Names in lower case.
    pub fields: Vec<(&'static str, Hidden)>,
    pub body: Zeroizing<Vec<u8>>,
}

impl Call {
    pub(super) fn get(url: String) -> Call {
        Call {
            method: Method::Get,
            url,
            fields: Vec::new(),
            body: Zeroizing::default(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: Hidden) -> Call {
        self.fields.push((name, value));
        self
    }

    /// As the push providers' requests are sent. All its fields are secret; what was copied is not
    /// overwritten any more.
    pub fn into_request(self) -> Result<Request, String> {
        let target = Target::parse_web(&self.url)?;
        let origin = format!("{}://{}", target.scheme().word(), target.authority());
        let path = target.path_and_query().to_string();
        let mut request = Request::new(self.method, &origin, path);
        for (name, value) in &self.fields {
            request.secret_field(name, value.as_str());
        }
        request.body = self.body.to_vec();
        Ok(request)
    }
}

/// Who we are to Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// That of the virtual machine; of several, the one with this client id.
    Machine {
        /// `IMDS`, but in tests.
        base: String,
        client_id: Option<String>,
    },
    /// That of an App Service or container app, which tells both by the environment variables
    /// `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`.
    Service {
        endpoint: String,
        header: Hidden,
        client_id: Option<String>,
    },
    /// Of an app registration, with its secret.
    Client {
        /// `AUTHORITY`, but in other clouds and in tests.
        authority: String,
        /// A UUID, or one of its domains.
        tenant: String,
        client_id: String,
        secret: Hidden,
    },
}

impl Identity {
    /// Whether its parts can be written into a request. What is wrong is told in a sentence for
    /// whoever configured it.
    pub fn check(&self) -> Result<(), String> {
        let (base, is_far) = match self {
            Identity::Machine { base, .. } => (base, false),
            Identity::Service { endpoint, .. } => (endpoint, false),
            Identity::Client { authority, .. } => (authority, true),
        };
        let target = Target::parse_web(base)?;
        let near = target.host().starts_with("127.") || target.host() == "localhost";
        if is_far && target.scheme() != TargetScheme::HttpTls && !near {
            return Err("a secret is sent over https:// only".to_string());
        }
        let is_id = |id: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            !id.is_empty() && id.bytes().all(allowed)
        };
        match self {
            Identity::Machine { client_id, .. } | Identity::Service { client_id, .. }
                if !client_id.as_deref().is_none_or(is_id) =>
            {
                Err("this is no client id of Azure".to_string())
            }
            Identity::Service { header, .. }
                if !header.as_str().bytes().all(|b| b.is_ascii_graphic()) =>
            {
                Err("IDENTITY_HEADER holds what no header field can carry".to_string())
            }
            Identity::Client { tenant, .. } if !is_id(tenant) => {
                Err("this is no tenant of Azure".to_string())
            }
            Identity::Client { client_id, .. } if !is_id(client_id) => {
                Err("this is no client id of Azure".to_string())
            }
            Identity::Client { secret, .. } if secret.as_str().is_empty() => {
                Err("the client secret is empty".to_string())
            }
            _ => Ok(()),
        }
    }

    /// Asks for a token for this resource, such as `https://vault.azure.net`.
    pub fn request(&self, resource: &str) -> Call {
        let of = |client_id: &Option<String>| match client_id {
            Some(id) => format!("&client_id={}", encode(id)),
            None => String::new(),
        };
        let wanted = encode(resource);
        match self {
            Identity::Machine { base, client_id } => Call::get(format!(
                "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={wanted}{}",
                base.trim_end_matches('/'),
                of(client_id)
            ))
            .with("metadata", Hidden::new("true")),
            Identity::Service {
                endpoint,
                header,
                client_id,
            } => Call::get(format!(
                "{endpoint}?api-version=2019-08-01&resource={wanted}{}",
                of(client_id)
            ))
            .with("x-identity-header", header.clone()),
            Identity::Client {
                authority,
                tenant,
                client_id,
                secret,
            } => {
                let secret = Zeroizing::new(encode(secret.as_str()));
                let body = format!(
                    "grant_type=client_credentials&client_id={}&client_secret={}&scope={wanted}%2F.default",
                    encode(client_id),
                    *secret
                );
                Call {
                    method: Method::Post,
                    url: format!(
                        "{}/{tenant}/oauth2/v2.0/token",
                        authority.trim_end_matches('/')
                    ),
                    fields: vec![(
                        "content-type",
                        Hidden::new("application/x-www-form-urlencoded"),
                    )],
                    body: Zeroizing::new(body.into_bytes()),
                }
            }
        }
    }

    /// What an answer means; `tries` counts the requests so far, this one included, and
    /// `retry_after` is that field's value.
    pub fn verdict(
        &self,
        status: u16,
        retry_after: Option<&str>,
        body: &[u8],
        tries: u32,
        now: Now,
    ) -> TokenVerdict {
        let is_client = matches!(self, Identity::Client { .. });
        match status {
            200 => read_token(body, now),
            400 | 401 if is_client => TokenVerdict::Refused(
                "tenant, client id and client secret do not belong together, or the secret has expired".into(),
            ),
            400 => TokenVerdict::Refused("no such identity is assigned to this machine".into()),
            404 | 410 if is_client => TokenVerdict::Refused("the authority knows no such tenant".into()),
            404 | 408 | 410 | 429 | 500..=599 if tries < IMDS_TRIES => {
                let wait = IMDS_FIRST_WAIT * 2_u32.pow(tries.min(IMDS_TRIES));
                let wait = if status == 410 { wait.max(IMDS_UPDATE_WAIT) } else { wait };
                TokenVerdict::Again(read_retry_after(retry_after).unwrap_or(wait))
            }
            _ => TokenVerdict::Refused(Cow::Owned(format!("the identity service answers {status}"))),
        }
    }
}

/// What came of a request for an access token.
#[derive(Debug)]
pub enum TokenVerdict {
    Token(AccessToken),
    /// Once more after so long.
    Again(Duration),
    /// Asking again does not help, or has not.
    Refused(Cow<'static, str>),
}

/// A token that Azure gave us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    text: Hidden,
    until_seconds: i64,
}

impl AccessToken {
    /// It is good for so many seconds.
    pub fn new(text: &str, seconds: i64, now: Now) -> AccessToken {
        AccessToken {
            text: Hidden::new(text),
            until_seconds: now.unix_seconds().saturating_add(seconds),
        }
    }

    /// Whether to ask for another one; until that is there this one may be used.
    pub fn is_due(&self, now: Now) -> bool {
        self.until_seconds.saturating_sub(RENEW_SECONDS) <= now.unix_seconds()
    }

    /// For whoever asks Azure for something else than secrets.
    pub fn pass(&self, now: Now) -> Pass {
        let left = self.until_seconds.saturating_sub(now.unix_seconds());
        Pass {
            authorization: self.bearer().as_str().to_string(),
            renew_at: self.until_seconds - RENEW_SECONDS.min(left / 2),
            ends_at: self.until_seconds,
        }
    }

    /// The value of `authorization`.
    pub fn bearer(&self) -> Hidden {
        let value = Zeroizing::new(format!("Bearer {}", self.text.as_str()));
        Hidden(value)
    }
}

#[derive(Deserialize)]
struct RawToken<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow)]
    token_type: Option<Cow<'a, str>>,
    /// Seconds; IMDS writes numbers as strings.
    expires_in: Option<Number>,
    /// Seconds since 1970, which is all that an App Service says.
    expires_on: Option<Number>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(i64),
    Text(String),
}

impl Number {
    fn get(&self) -> Option<i64> {
        match self {
            Number::Plain(number) => Some(*number),
            Number::Text(text) => text.parse().ok(),
        }
    }
}

fn read_token(body: &[u8], now: Now) -> TokenVerdict {
    let text = simdutf8::basic::from_utf8(body).ok();
    let raw: Option<RawToken<'_>> = text.and_then(|text| serde_json::from_str(text).ok());
    let usable = raw.filter(|raw| {
        let kind = raw.token_type.as_deref().unwrap_or("Bearer");
        let token = raw.access_token.as_bytes();
        kind.eq_ignore_ascii_case("bearer")
            && !token.is_empty()
            && token.iter().all(|b| b.is_ascii_graphic())
    });
    let token = usable.and_then(|raw| {
        let on = raw.expires_on.as_ref().and_then(Number::get);
        let seconds = raw.expires_in.as_ref().and_then(Number::get);
        let seconds = seconds.or_else(|| on.map(|on| on.saturating_sub(now.unix_seconds())));
        let seconds = seconds.filter(|seconds| *seconds > 0)?;
        Some(AccessToken::new(&raw.access_token, seconds, now))
    });
    token.map_or_else(
        || TokenVerdict::Refused("the answer is no access token".into()),
        TokenVerdict::Token,
    )
}

/// For a query or a form: all but what is never special is escaped (RFC 3986 section 2.3).
pub(in crate::push) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
#[path = "entra_tests.rs"]
mod tests;

//! A token key as a secret of Azure Key Vault: its URL, the request for it, what an answer means.
//! Sends nothing, and gets the access token from elsewhere (`entra`). Invariants: no message holds
//! anything that the vault sent, since that may be the key; a secret that is switched off or out of
//! its time gives no key.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;

use crate::base::now::Now;
use crate::push::devices::entra::{AccessToken, Call, WAIT_MAX};
use crate::push::devices::token_key::{KeyId, TokenKey};
use crate::wire::target::{Target, TargetScheme};

/// All newer ones answer the same.
const API_VERSION: &str = "7.4";
/// What the clouds call their vaults, and so what an access token is asked for.
const CLOUDS: [&str; 4] = [
    "vault.azure.net",
    "vault.azure.cn",
    "vault.usgovcloudapi.net",
    "vault.microsoftazure.de",
];

/// Where a secret is: `https://VAULT.vault.azure.net/secrets/NAME[/VERSION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUrl {
    /// Of the secret itself, without a query.
    url: String,
    host: String,
    version: Option<String>,
}

impl SecretUrl {
    /// What is wrong is told in a sentence for whoever wrote it.
    pub fn parse(url: &str) -> Result<SecretUrl, String> {
        let target = Target::parse_web(url)?;
        let host = target.host().to_string();
        // A relay or a test on this machine needs no TLS.
        let is_near = host.starts_with("127.") || host == "::1" || host == "localhost";
        if target.scheme() != TargetScheme::HttpTls && !is_near {
            return Err("the URL of a Key Vault secret begins with https://".to_string());
        }
        let parts: Vec<&str> = target.path_and_query().split('/').collect();
        let is_word = |part: &&str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            (1..=127).contains(&part.len()) && part.bytes().all(allowed)
        };
        let version = match parts.as_slice() {
            ["", "secrets", name] if is_word(name) => None,
            ["", "secrets", name, version] if is_word(name) && is_word(version) => Some(*version),
            _ => return Err("the path is /secrets/NAME or /secrets/NAME/VERSION".to_string()),
        };
        Ok(SecretUrl {
            url: url.to_string(),
            host,
            version: version.map(str::to_string),
        })
    }

    /// The same secret in another version: after a rotation that of the key by this name, for the
    /// tokens that still need it.
    pub fn of_version(&self, version: &KeyId) -> SecretUrl {
        let newest = match &self.version {
            Some(own) => &self.url[..self.url.len() - own.len() - 1],
            None => &self.url,
        };
        SecretUrl {
            url: format!("{newest}/{}", version.as_str()),
            host: self.host.clone(),
            version: Some(version.as_str().to_string()),
        }
    }

    /// What the access token has to be for; `None` if the host is none of Microsoft's, so that
    /// it has to be configured.
    pub fn resource(&self) -> Option<String> {
        let (_, cloud) = self.host.split_once('.')?;
        let known = CLOUDS.into_iter().find(|known| *known == cloud)?;
        Some(format!("https://{known}"))
    }

    pub fn request(&self, token: &AccessToken) -> Call {
        let url = format!("{}?api-version={API_VERSION}", self.url);
        Call::get(url).with("authorization", token.bearer())
    }

    /// What an answer means; `retry_after` is that field's value.
    pub fn verdict(
        &self,
        status: u16,
        retry_after: Option<&str>,
        body: &[u8],
        now: Now,
    ) -> KeyVerdict {
        match status {
            200 => self.read_key(body, now).unwrap_or_else(KeyVerdict::Refused),
            401 => KeyVerdict::TokenRefused,
            403 => KeyVerdict::Refused(Cow::Borrowed(match error_code(body) {
                Some(code) if code.contains("Disabled") => "the secret is switched off",
                Some(code) if code.contains("Firewall") => "the vault's firewall lets nobody in",
                _ => {
                    "the identity may not read secrets: it needs the right Get, or the role Key \
                      Vault Secrets User"
                }
            })),
            404 => KeyVerdict::Refused(Cow::Borrowed("there is no such secret")),
            408 | 429 | 500..=599 => KeyVerdict::Again(read_retry_after(retry_after)),
            _ => KeyVerdict::Refused(Cow::Owned(format!("the vault answers {status}"))),
        }
    }

    fn read_key(&self, body: &[u8], now: Now) -> Result<KeyVerdict, Cow<'static, str>> {
        let text = simdutf8::basic::from_utf8(body).ok();
        let secret: Option<Secret<'_>> = text.and_then(|text| serde_json::from_str(text).ok());
        let secret = secret.ok_or("the answer is no secret of Key Vault")?;
        let seconds = now.unix_seconds();
        let Attributes { enabled, nbf, exp } = secret.attributes;
        if enabled == Some(false) {
            return Err("the secret is switched off".into());
        }
        if nbf.is_some_and(|from| from > seconds) {
            return Err("the secret is not to be used yet".into());
        }
        if exp.is_some_and(|until| until <= seconds) {
            return Err("the secret has expired".into());
        }
        // ".../secrets/NAME/VERSION"
        let mut parts = secret.id.rsplit('/');
        let version = parts.next().filter(|_| parts.nth(1) == Some("secrets"));
        let version = version.ok_or("the answer names no version")?;
        if self
            .version
            .as_deref()
            .is_some_and(|asked| asked != version)
        {
            return Err("the answer is another version than was asked for".into());
        }
        let key = KeyId::parse(version).and_then(|id| TokenKey::parse(id, &secret.value));
        key.map(KeyVerdict::Key)
            .map_err(|fault| fault.text().into())
    }
}

/// What came of a request for a key.
#[derive(Debug)]
pub enum KeyVerdict {
    /// Named after the secret's version.
    Key(TokenKey),
    /// The access token is not good (any more): once more with a new one, then give up.
    TokenRefused,
    /// Later; so long, if the vault says.
    Again(Option<Duration>),
    /// Asking again does not help.
    Refused(Cow<'static, str>),
}

#[derive(Deserialize)]
struct Secret<'a> {
    /// Borrowed, so that no copy of it stays behind.
    #[serde(borrow)]
    value: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default)]
    attributes: Attributes,
}

/// In seconds since 1970.
#[derive(Default, Deserialize)]
struct Attributes {
    enabled: Option<bool>,
    nbf: Option<i64>,
    exp: Option<i64>,
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalCode,
}

#[derive(Deserialize)]
struct RefusalCode {
    code: String,
    #[serde(default)]
    innererror: Option<Box<RefusalCode>>,
}

/// The innermost code; only to be compared.
fn error_code(body: &[u8]) -> Option<String> {
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    let mut error = refusal.error;
    while let Some(inner) = error.innererror.take() {
        error = *inner;
    }
    Some(error.code)
}

/// Whole seconds; a date, which Microsoft does not send, is not understood.
pub(super) fn read_retry_after(value: Option<&str>) -> Option<Duration> {
    let seconds = value?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    const URL: &str = "https://keys.vault.azure.net/secrets/push-tokens";
    const VERSION: &str = "4387e9f3d6e14c459867679a90fd0f79";

    fn now() -> Now {
        Now {
            unix_ms: 1_800_000_000_000,
            ..Now::default()
        }
    }

    fn key_text() -> String {
        BASE64.encode(&(0..32).collect::<Vec<u8>>())
    }

    fn verdict(url: &str, status: u16, body: &str) -> KeyVerdict {
        let url = SecretUrl::parse(url).expect("a URL");
        url.verdict(status, Some("7"), body.as_bytes(), now())
    }

    fn answer(value: &str, attributes: &str) -> String {
        format!(
            r#"{{"value":"{value}","id":"{URL}/{VERSION}","contentType":"x","attributes":{{{attributes}"recoveryLevel":"Recoverable"}},"tags":{{}}}}"#
        )
    }

    #[test]
    fn the_url_of_a_secret_says_what_the_access_token_is_for() {
        let table = [
            (URL, Some("https://vault.azure.net")),
            (
                "https://k.vault.azure.cn/secrets/a/b1",
                Some("https://vault.azure.cn"),
            ),
            ("https://vault.example/secrets/a", None),
            ("http://127.0.0.1:81/secrets/a", None),
            ("https://vault.azure.net.evil.example/secrets/a", None),
        ];
        for (url, resource) in table {
            let url = SecretUrl::parse(url).expect(url);
            assert_eq!(url.resource().as_deref(), resource);
        }
        for url in [
            "http://keys.vault.azure.net/secrets/a",
            "https://keys.vault.azure.net/",
            "https://keys.vault.azure.net/keys/a",
            "https://keys.vault.azure.net/secrets/",
            "https://keys.vault.azure.net/secrets/a/b/c",
            "https://keys.vault.azure.net/secrets/a?b=c",
            "https://keys.vault.azure.net/secrets/a%2e",
            "keys.vault.azure.net/secrets/a",
        ] {
            assert!(SecretUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_older_version_is_asked_for_by_its_name() {
        let old = KeyId::parse("0123").expect("an id");
        for url in [
            URL.to_string(),
            format!("{URL}/{VERSION}"),
            format!("{URL}/0123"),
        ] {
            let url = SecretUrl::parse(&url).expect("a URL").of_version(&old);
            assert_eq!(Ok(url), SecretUrl::parse(&format!("{URL}/0123")));
        }
    }

    #[test]
    fn a_request_carries_the_access_token_where_it_prints_as_dots() {
        let token = AccessToken::new("tiger", 60, now());
        let call = SecretUrl::parse(URL).expect("a URL").request(&token);
        assert_eq!(
            (call.method.word(), call.url.as_str()),
            ("GET", &*format!("{URL}?api-version=7.4"))
        );
        assert_eq!(call.fields.len(), 1);
        assert_eq!(call.fields[0].0, "authorization");
        assert_eq!(call.fields[0].1.as_str(), "Bearer tiger");
        assert!(call.body.is_empty() && !format!("{call:?}").contains("tiger"));
    }

    #[test]
    fn a_key_is_named_after_its_version() {
        let valid = r#""enabled":true,"nbf":1799999999,"exp":1800000001,"#;
        let escaped = key_text().replace('/', "\\/");
        for body in [
            answer(&key_text(), valid),
            answer(&key_text(), ""),
            answer(&escaped, valid),
        ] {
            for url in [URL.to_string(), format!("{URL}/{VERSION}")] {
                let KeyVerdict::Key(key) = verdict(&url, 200, &body) else {
                    panic!("{body}");
                };
                assert_eq!(key.id().as_str(), VERSION);
            }
        }
    }

    fn told(verdict: KeyVerdict) -> String {
        match verdict {
            KeyVerdict::Key(key) => format!("key {}", key.id().as_str()),
            KeyVerdict::TokenRefused => "token refused".to_string(),
            KeyVerdict::Again(wait) => format!("again in {wait:?}"),
            KeyVerdict::Refused(why) => why.into_owned(),
        }
    }

    #[test]
    fn a_secret_that_is_no_key_now_is_refused_without_repeating_it() {
        let key = |attributes: &str| answer(&key_text(), attributes);
        let table = [
            ("tiger".to_string(), "no secret"),
            ("{}".to_string(), "no secret"),
            (answer("tiger", ""), "not base64"),
            (answer("dGlnZXI=", ""), "5 bytes"),
            (answer("", ""), "empty"),
            (key(r#""enabled":false,"#), "switched off"),
            (key(r#""nbf":1800000001,"#), "not to be used yet"),
            (key(r#""exp":1800000000,"#), "expired"),
            (key("").replace("/secrets/", "/tiger/"), "no version"),
        ];
        for (body, words) in table {
            let told = told(verdict(URL, 200, &body));
            assert!(
                told.contains(words) && !told.contains("tiger"),
                "{body}: {told}"
            );
        }
        let other = told(verdict(&format!("{URL}/0123"), 200, &key("")));
        assert!(other.contains("another version"), "{other}");
    }

    #[test]
    fn every_status_has_its_meaning() {
        let table = [
            (401, "", "token refused"),
            (403, "AccessDenied", "may not read"),
            (403, "ForbiddenByFirewall", "firewall"),
            (403, "SecretDisabled", "switched off"),
            (404, "SecretNotFound", "no such secret"),
            (302, "", "answers 302"),
            (400, "BadParameter", "answers 400"),
            (408, "", "again in Some(7s)"),
            (429, "Throttled", "again in Some(7s)"),
            (500, "", "again in Some(7s)"),
            (503, "", "again in Some(7s)"),
        ];
        for (status, code, words) in table {
            let body = format!(
                r#"{{"error":{{"code":"Tiger","message":"tiger","innererror":{{"code":"{code}"}}}}}}"#
            );
            let told = told(verdict(URL, status, &body));
            assert!(
                told.contains(words) && !told.contains("iger"),
                "{status} {code}: {told}"
            );
        }
        assert!(told(verdict(URL, 403, "tiger")).contains("may not read"));
    }

    #[test]
    fn a_wait_has_a_bound() {
        assert_eq!(read_retry_after(Some(" 7 ")), Some(Duration::from_secs(7)));
        assert_eq!(read_retry_after(Some("99999999")), Some(WAIT_MAX));
        assert_eq!(read_retry_after(Some("soon")), None);
        assert_eq!(read_retry_after(None), None);
    }
}

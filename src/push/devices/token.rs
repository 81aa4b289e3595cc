//! A push token in clear: what a client may call one, and the one spelling in which it is kept. Does
//! not know how it is stored. Invariants: a token leaves no copy in memory when it is dropped, prints
//! as dots, and is part of no error. Two spellings of one token become the same text.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::wire::target::{Target, TargetScheme};

/// Apple sets no length and is to be expected to change it (today 64 digits); this is room for
/// all kinds that are known.
const APNS_DIGITS_MAX: usize = 400;
/// No provider gives out longer ones.
const TOKEN_BYTES_MAX: usize = 4096;
/// A Firebase installation id has 22 characters; this leaves room.
const FID_BYTES_MAX: usize = 64;

/// What a device is, in the words of the column `platform`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    Ios,
    Android,
    Web,
}

impl Platform {
    /// With the word for each.
    pub const ALL: [(&'static str, Platform); 3] = [
        ("ios", Platform::Ios),
        ("android", Platform::Android),
        ("web", Platform::Web),
    ];

    pub fn word(self) -> &'static str {
        Platform::ALL[self as usize].0
    }

    pub fn from_word(word: &str) -> Option<Platform> {
        find(&Platform::ALL, word)
    }

    /// Who reaches such a device, unless the client says otherwise.
    pub fn usual_service(self) -> Service {
        match self {
            Platform::Ios => Service::Apns,
            Platform::Android => Service::Fcm,
            Platform::Web => Service::WebPush,
        }
    }
}

/// Who gave the token out, and so who can be asked to reach the device with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Of Apple's production environment.
    Apns,
    /// Of its development environment; neither takes the other's tokens.
    ApnsSandbox,
    /// A registration token of Firebase Cloud Messaging.
    Fcm,
    /// A Firebase installation id, which takes the place of registration tokens.
    FcmFid,
    /// A subscription of a browser (RFC 8030), with its keys (RFC 8291).
    WebPush,
}

impl Service {
    /// With the word for each.
    pub const ALL: [(&'static str, Service); 5] = [
        ("apns", Service::Apns),
        ("apns-sandbox", Service::ApnsSandbox),
        ("fcm", Service::Fcm),
        ("fcm-fid", Service::FcmFid),
        ("webpush", Service::WebPush),
    ];

    pub fn word(self) -> &'static str {
        Service::ALL[self as usize].0
    }

    pub fn from_word(word: &str) -> Option<Service> {
        find(&Service::ALL, word)
    }

    /// Whether such a device can have such a token. Firebase is on all platforms, and Web Push
    /// beside browsers on Android (UnifiedPush).
    pub fn is_on(self, platform: Platform) -> bool {
        match self {
            Service::Apns | Service::ApnsSandbox => platform == Platform::Ios,
            Service::Fcm | Service::FcmFid => true,
            Service::WebPush => platform != Platform::Ios,
        }
    }
}

fn find<T: Copy>(words: &[(&str, T)], word: &str) -> Option<T> {
    let found = words.iter().find(|(known, _)| *known == word);
    found.map(|(_, value)| *value)
}

/// See the file's head.
pub struct ClearToken {
    service: Service,
    text: Zeroizing<String>,
}

/// A subscription as it is kept and as `PushSubscription.toJSON()` gives it. What else is in there,
/// such as `expirationTime`, is the registration's business.
#[derive(Deserialize, Serialize)]
struct Subscription<'a> {
    #[serde(borrow)]
    endpoint: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    keys: Keys<'a>,
}

#[derive(Deserialize, Serialize)]
struct Keys<'a> {
    #[serde(borrow)]
    auth: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    p256dh: std::borrow::Cow<'a, str>,
}

/// The parts of a Web Push subscription.
pub struct WebPushKeys<'a> {
    pub endpoint: &'a str,
    /// The receiver's point on P-256, uncompressed (RFC 8291 section 3.1).
    pub p256dh: [u8; 65],
    /// The authentication secret (RFC 8291 section 3.2).
    pub auth: [u8; 16],
}

impl ClearToken {
    /// Reads what a client calls its token. For Web Push that is the subscription as JSON. What is
    /// wrong is told in words that hold nothing of it.
    pub fn parse(service: Service, text: &str) -> Result<ClearToken, &'static str> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err("is longer than any token");
        }
        let text = match service {
            Service::Apns | Service::ApnsSandbox => read_apns(text)?,
            Service::Fcm => read_visible(text)?,
            Service::FcmFid => read_fid(text)?,
            Service::WebPush => read_subscription(text)?,
        };
        Ok(ClearToken { service, text })
    }

    /// What was parsed once and kept since: `text` is as `expose` gave it.
    pub(super) fn kept(service: Service, text: Zeroizing<String>) -> ClearToken {
        ClearToken { service, text }
    }

    pub fn service(&self) -> Service {
        self.service
    }

    /// The token itself; only for sending to its provider. Lower-case digits for Apple, JSON for
    /// Web Push.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The part that names the device: of a subscription the endpoint, since its keys may change.
    pub fn identity(&self) -> &str {
        let subscription = match self.service {
            Service::WebPush => self.web_push(),
            _ => None,
        };
        subscription.map_or(&self.text, |keys| keys.endpoint)
    }

    /// `None` if it is no subscription.
    pub fn web_push(&self) -> Option<WebPushKeys<'_>> {
        let Subscription { endpoint, keys } = serde_json::from_str(&self.text).ok()?;
        // The canonical form escapes nothing, so it is borrowed.
        let std::borrow::Cow::Borrowed(endpoint) = endpoint else {
            return None;
        };
        Some(WebPushKeys {
            endpoint,
            p256dh: read_bytes(&keys.p256dh)?,
            auth: read_bytes(&keys.auth)?,
        })
    }
}

impl fmt::Debug for ClearToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ••••", self.service.word())
    }
}

/// Any even number of hexadecimal digits; `<`, `>` and blanks are how old iOS printed a token.
fn read_apns(text: &str) -> Result<Zeroizing<String>, &'static str> {
    let digits = text.chars().filter(|it| !matches!(it, '<' | '>' | ' '));
    let mut token = Zeroizing::new(String::with_capacity(text.len()));
    token.extend(digits.map(|it| it.to_ascii_lowercase()));
    let is_hex = token.bytes().all(|b| b.is_ascii_hexdigit());
    if token.is_empty() || !is_hex || !token.len().is_multiple_of(2) {
        return Err("is not an even number of hexadecimal digits, as a token of Apple is");
    }
    if token.len() > APNS_DIGITS_MAX {
        return Err("is longer than a token of Apple");
    }
    Ok(token)
}

fn read_visible(text: &str) -> Result<Zeroizing<String>, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("is not a registration token: these are visible ASCII without blanks");
    }
    Ok(Zeroizing::new(text.to_string()))
}

fn read_fid(text: &str) -> Result<Zeroizing<String>, &'static str> {
    let fits = (1..=FID_BYTES_MAX).contains(&text.len());
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !fits || !text.bytes().all(is_base64) {
        return Err("is not an installation id: these are base64url, 22 characters long");
    }
    Ok(Zeroizing::new(text.to_string()))
}

/// Checks it as far as can be done without asking its service, and writes it in one form.
fn read_subscription(text: &str) -> Result<Zeroizing<String>, &'static str> {
    let read = serde_json::from_str(text).ok();
    // A list would be read field by field, too.
    let read = read.filter(|_| text.trim_start().starts_with('{'));
    let Some(Subscription { endpoint, keys }) = read else {
        return Err("is not a subscription: {\"endpoint\", \"keys\": {\"p256dh\", \"auth\"}}");
    };
    let target = Target::parse_web(&endpoint).map_err(|_| "has an endpoint that is no URL")?;
    if target.scheme() != TargetScheme::HttpTls {
        return Err("has an endpoint that does not begin with https://");
    }
    if endpoint.contains(['"', '\\']) {
        return Err("has an endpoint that is no URL");
    }
    let point: Option<[u8; 65]> = read_bytes(&keys.p256dh);
    let point = point.ok_or("has a p256dh that is not 65 bytes in base64url")?;
    if point[0] != 4 || ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_err() {
        return Err("has a p256dh that is no point of the curve P-256");
    }
    let auth: Option<[u8; 16]> = read_bytes(&keys.auth);
    let auth = auth.ok_or("has an auth that is not 16 bytes in base64url")?;
    let (auth, p256dh) = (
        Zeroizing::new(BASE64URL_NOPAD.encode(&auth)),
        BASE64URL_NOPAD.encode(&point),
    );
    let keys = Keys {
        auth: auth.as_str().into(),
        p256dh: p256dh.into(),
    };
    let json = serde_json::to_string(&Subscription { endpoint, keys });
    json.map(Zeroizing::new).map_err(|_| "cannot be written")
}

/// Browsers write no padding, some libraries do.
fn read_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = [0; N];
    let fits = BASE64URL_NOPAD.decode_len(text.len()) == Ok(N);
    let read = fits.then(|| BASE64URL_NOPAD.decode_mut(text, &mut bytes))?;
    read.ok().map(|_| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The receiver's keys of RFC 8291 appendix A.
    const POINT: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn subscription(endpoint: &str, point: &str, auth: &str) -> String {
        format!(
            r#"{{"endpoint":"{endpoint}","expirationTime":null,"keys":{{"p256dh":"{point}","auth":"{auth}"}}}}"#
        )
    }

    fn parse(service: Service, text: &str) -> Result<String, &'static str> {
        ClearToken::parse(service, text).map(|token| token.expose().to_string())
    }

    #[test]
    fn words_lead_back_to_what_they_name() {
        for (word, platform) in Platform::ALL {
            assert_eq!(Platform::from_word(word), Some(platform));
            assert_eq!(platform.word(), word);
            assert!(platform.usual_service().is_on(platform));
        }
        for (word, service) in Service::ALL {
            assert_eq!(Service::from_word(word), Some(service));
            assert_eq!(service.word(), word);
        }
        assert_eq!(Platform::from_word("macos"), None);
        assert!(!Service::Apns.is_on(Platform::Android) && !Service::WebPush.is_on(Platform::Ios));
    }

    #[test]
    fn spellings_of_one_token_become_the_same() {
        let plain = "ab01".repeat(16);
        let printed = format!("<{}>", ["AB01AB01"; 8].join(" "));
        assert_eq!(parse(Service::Apns, &printed), Ok(plain.clone()));
        assert_eq!(parse(Service::ApnsSandbox, &plain), Ok(plain));
        let endpoint = "https://push.example/a?b=c";
        let one = subscription(endpoint, POINT, AUTH);
        let other = format!(
            r#"{{"keys":{{"auth":"{AUTH}==","p256dh":"{POINT}="}},"endpoint":"https:\/\/push.example/a?b=c"}}"#
        );
        assert_eq!(
            parse(Service::WebPush, &one),
            parse(Service::WebPush, &other)
        );
        let token = ClearToken::parse(Service::WebPush, &one).expect("a subscription");
        assert_eq!(token.identity(), endpoint);
        let keys = token.web_push().expect("a subscription");
        assert_eq!(
            (keys.endpoint, keys.p256dh[0], keys.auth[0]),
            (endpoint, 4, 5)
        );
        let fcm = ClearToken::parse(Service::Fcm, "c:APA91-_x").expect("a token");
        assert_eq!(fcm.identity(), "c:APA91-_x");
        assert!(fcm.web_push().is_none());
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        let web = |endpoint, point, auth| subscription(endpoint, point, auth);
        let off_curve = POINT.replace("Aiw4", "Aiw8");
        let compressed = BASE64URL_NOPAD.encode(&[2; 33]);
        let good = "https://push.example/a";
        let long_url = format!("https://push.example/{}", "x".repeat(TOKEN_BYTES_MAX));
        let table = [
            (Service::Apns, String::new()),
            (Service::Apns, "abc".into()),
            (Service::Apns, "tiger-".into()),
            (Service::Apns, "ä".repeat(32)),
            (Service::Apns, "ab".repeat(201)),
            (Service::Fcm, String::new()),
            (Service::Fcm, "tiger tiger".into()),
            (Service::Fcm, "x".repeat(TOKEN_BYTES_MAX + 1)),
            (Service::FcmFid, "tiger:tiger".into()),
            (Service::FcmFid, "x".repeat(FID_BYTES_MAX + 1)),
            (Service::WebPush, "tiger".into()),
            (Service::WebPush, "{}".into()),
            (
                Service::WebPush,
                format!(r#"["{good}",["{AUTH}","{POINT}"]]"#),
            ),
            (Service::WebPush, web("http://tiger.example/", POINT, AUTH)),
            (Service::WebPush, web("tiger", POINT, AUTH)),
            (Service::WebPush, web(r"https://a/tiger\u0022", POINT, AUTH)),
            (Service::WebPush, web(&long_url, POINT, AUTH)),
            (Service::WebPush, web(good, &off_curve, AUTH)),
            (Service::WebPush, web(good, &compressed, AUTH)),
            (Service::WebPush, web(good, "tiger", AUTH)),
            (Service::WebPush, web(good, POINT, "tiger")),
            (Service::WebPush, web(good, POINT, POINT)),
        ];
        for (service, text) in table {
            let why = parse(service, &text).expect_err(&text);
            assert!(!why.contains("tiger"), "{why}");
        }
        assert!(parse(Service::WebPush, &web(good, POINT, AUTH)).is_ok());
    }

    #[test]
    fn a_token_prints_as_dots() {
        let token = ClearToken::parse(Service::Fcm, "tiger").expect("a token");
        assert_eq!(format!("{token:?}"), "fcm ••••");
    }
}

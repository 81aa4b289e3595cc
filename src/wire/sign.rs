//! Pusher's signatures: HMAC-SHA256 in lowercase hex, keyed by the app's secret. Comparisons take
//! the same time whatever differs. What was expected is never part of an error.

use std::borrow::Cow;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use md5::{Digest, Md5};

/// How far a request's timestamp may be from our clock (Pusher: less than 600 s).
pub const TIMESTAMP_WINDOW_SECONDS: i64 = 600;

/// The signature of `text`.
pub fn sign(secret: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    HEXLOWER.encode(hmac::sign(&key, text.as_bytes()).as_ref())
}

/// Whether `signature` is the lowercase hex signature of `text`.
pub fn is_signed(secret: &str, text: &str, signature: &str) -> bool {
    let mut tag = [0; 32];
    let is_hex = signature.len() == 2 * tag.len()
        && HEXLOWER.decode_mut(signature.as_bytes(), &mut tag).is_ok();
    let key = || hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    is_hex && hmac::verify(&key(), text.as_bytes(), &tag).is_ok()
}

/// Compares two secrets in constant time for their common length.
pub fn is_same_secret(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// What a backend signs to let a connection into a channel. `channel_data` takes part whenever
/// the client sent one, in presence channels always.
pub fn channel_text(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    match channel_data {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

/// What a backend signs to let a connection act as a user.
pub fn user_text(socket_id: &str, user_data: &str) -> String {
    format!("{socket_id}::user::{user_data}")
}

/// Why a signed request is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureFault {
    Missing(&'static str),
    Version,
    /// Not a number, or too far from our clock.
    Timestamp,
    /// Not a number, or in the past.
    Expired,
    BodyMd5,
    Signature,
}

impl SignatureFault {
    pub fn text(self) -> Cow<'static, str> {
        match self {
            SignatureFault::Missing(name) => Cow::Owned(format!("{name} is missing")),
            SignatureFault::Version => Cow::Borrowed("auth_version must be 1.0"),
            SignatureFault::Timestamp => {
                Cow::Borrowed("auth_timestamp is not within 600 s of the server's clock")
            }
            SignatureFault::Expired => {
                Cow::Borrowed("expires is no time in seconds since 1970 that is still to come")
            }
            SignatureFault::BodyMd5 => {
                Cow::Borrowed("body_md5 is not the hex MD5 of the body as it arrived")
            }
            SignatureFault::Signature => Cow::Borrowed("auth_signature does not match"),
        }
    }
}

/// A request to the HTTP API as it came in.
pub struct SignedRequest<'a> {
    pub method: &'a str,
    /// Without the query, as on the wire.
    pub path: &'a str,
    /// Decoded pairs.
    pub query: &'a [(Cow<'a, str>, Cow<'a, str>)],
    pub body: &'a [u8],
    pub unix_seconds: i64,
}

impl SignedRequest<'_> {
    /// The value of a query parameter; keys are compared without regard to case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self
            .query
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &**value)
    }

    /// Verifies everything but that the key belongs to the app. Returns the request's timestamp, in
    /// seconds since 1970.
    pub fn verify(&self, secret: &str) -> Result<i64, SignatureFault> {
        let required = |name| self.parameter(name).ok_or(SignatureFault::Missing(name));
        let signature = required("auth_signature")?;
        if required("auth_version")? != "1.0" {
            return Err(SignatureFault::Version);
        }
        let timestamp = required("auth_timestamp")?.parse().ok();
        let is_near = |t: &i64| self.unix_seconds.abs_diff(*t) < TIMESTAMP_WINDOW_SECONDS as u64;
        let timestamp = timestamp.filter(is_near).ok_or(SignatureFault::Timestamp)?;
        self.verify_body()?;
        if self.is_signed_in_any_spelling(secret, signature) {
            Ok(timestamp)
        } else {
            Err(SignatureFault::Signature)
        }
    }

    /// Verifies a URL that was signed for somebody who cannot sign, such as a page: instead of when it
    /// was signed it says in `expires` until when it is good.
    pub fn verify_until(&self, secret: &str) -> Result<(), SignatureFault> {
        let required = |name| self.parameter(name).ok_or(SignatureFault::Missing(name));
        let signature = required("auth_signature")?;
        let expires: Option<i64> = required("expires")?.parse().ok();
        if expires.is_none_or(|expires| expires <= self.unix_seconds) {
            return Err(SignatureFault::Expired);
        }
        match self.is_signed_in_any_spelling(secret, signature) {
            true => Ok(()),
            false => Err(SignatureFault::Signature),
        }
    }

    /// Some SDKs send the MD5 of an empty body too, so it is checked whenever it is there.
    fn verify_body(&self) -> Result<(), SignatureFault> {
        match self.parameter("body_md5") {
            None if self.body.is_empty() => Ok(()),
            None => Err(SignatureFault::Missing("body_md5")),
            Some(md5) if is_md5_of(self.body, md5) => Ok(()),
            Some(_) => Err(SignatureFault::BodyMd5),
        }
    }

    /// A proxy may have encoded the path, and PHP joins repeated keys its own way: each spelling
    /// that some SDK signs is tried.
    fn is_signed_in_any_spelling(&self, secret: &str, signature: &str) -> bool {
        let pairs = self.sorted_pairs();
        let is_signed = |text: String| is_signed(secret, &text, signature);
        if is_signed(self.text(self.path, &pairs, false)) {
            return true;
        }
        let decoded = crate::wire::query::decode_path(self.path);
        let decoded = decoded.filter(|decoded| decoded != self.path);
        if decoded.is_some_and(|path| is_signed(self.text(&path, &pairs, false))) {
            return true;
        }
        let has_list = self.query.iter().any(|(key, _)| key.ends_with("[]"));
        has_list && is_signed(self.text(self.path, &pairs, true))
    }

    /// What is signed of the query, with keys in lower case.
    fn sorted_pairs(&self) -> Vec<(Cow<'_, str>, &str)> {
        let mut pairs = Vec::with_capacity(self.query.len());
        for (key, value) in self.query {
            if key.eq_ignore_ascii_case("auth_signature") {
                continue;
            }
            let key = match key.bytes().any(|byte| byte.is_ascii_uppercase()) {
                true => Cow::Owned(key.to_ascii_lowercase()),
                false => Cow::Borrowed(&**key),
            };
            pairs.push((key, &**value));
        }
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs
    }

    fn text(&self, path: &str, pairs: &[(Cow<'_, str>, &str)], join_lists: bool) -> String {
        let query = pairs.iter().map(|(key, value)| key.len() + value.len() + 2);
        let length = self.method.len() + path.len() + 2 + query.sum::<usize>();
        let mut text = String::with_capacity(length);
        for part in [self.method, "\n", path, "\n"] {
            text.push_str(part);
        }
        let mut last_key = None;
        for (key, value) in pairs {
            let key = if join_lists {
                key.trim_end_matches("[]")
            } else {
                key
            };
            if join_lists && last_key == Some(key) {
                text.push(',');
            } else {
                if last_key.is_some() {
                    text.push('&');
                }
                text.push_str(key);
                text.push('=');
            }
            text.push_str(value);
            last_key = Some(key);
        }
        text
    }
}

/// Whether `hex` is the lowercase hex MD5 of `bytes`.
fn is_md5_of(bytes: &[u8], hex: &str) -> bool {
    let mut expected = [0; 32];
    HEXLOWER.encode_mut(&Md5::digest(bytes), &mut expected);
    aws_lc_rs::constant_time::verify_slices_are_equal(hex.as_bytes(), &expected).is_ok()
}

/// Lowercase hex MD5.
pub fn md5_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Md5::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::query::parse_query;

    const KEY: &str = "278d425bdf160c739803";
    const SECRET: &str = "7ad3773142a6692b25b8";

    #[test]
    fn channel_signatures_match_the_published_vectors() {
        let presence = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
        let pusher = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
        let vectors = [
            (
                channel_text("1234.1234", "private-foobar", None),
                "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
            ),
            (
                channel_text("1234.1234", "presence-foobar", Some(presence)),
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
            (
                channel_text("1234.1234", "presence-foobar", Some(pusher)),
                "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
            ),
        ];
        for (text, signature) in vectors {
            assert_eq!(sign(SECRET, &text), signature, "{text}");
            assert!(is_signed(SECRET, &text, signature));
            assert!(!is_signed("another", &text, signature));
            assert!(!is_signed(SECRET, &text, &signature.to_uppercase()));
            assert!(!is_signed(SECRET, &text, &signature[..63]));
        }
    }

    fn check(
        method: &str,
        path: &str,
        extra: &str,
        body: &str,
        signature: &str,
        unix_seconds: i64,
    ) -> Result<(), SignatureFault> {
        let query = format!(
            "auth_signature={signature}&auth_version=1.0&auth_key={KEY}&auth_timestamp=1353088179{extra}"
        );
        let query = parse_query(&query).expect("well-formed");
        let body = body.as_bytes();
        SignedRequest {
            method,
            path,
            query: &query,
            body,
            unix_seconds,
        }
        .verify(SECRET)
        .map(drop)
    }

    const EVENT_BODY: &str =
        r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const EVENT_SIGNATURE: &str =
        "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    const EVENT_MD5: &str = "&body_md5=ec365a775a4cd0599faeb73354201b6f";

    #[test]
    fn request_signatures_match_the_published_vectors() {
        let now = 1_353_088_179;
        let event = check(
            "POST",
            "/apps/3/events",
            EVENT_MD5,
            EVENT_BODY,
            EVENT_SIGNATURE,
            now,
        );
        assert_eq!(event, Ok(()));
        let reads = [
            (
                "/apps/3/channels",
                "&filter_by_prefix=presence-&info=user_count",
                "16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291",
            ),
            (
                "/apps/3/channels/presence-foobar",
                "&info=user_count,subscription_count",
                "377ee9260ea002a70c0d40cd887d55cb36db9f7f821297f5efacbcce66be356d",
            ),
            (
                "/apps/3/channels/presence-foobar",
                "&info=user_count%2Csubscription_count",
                "377ee9260ea002a70c0d40cd887d55cb36db9f7f821297f5efacbcce66be356d",
            ),
            (
                "/apps/3/channels/presence-foobar/users",
                "&body_md5=d41d8cd98f00b204e9800998ecf8427e",
                "3d68b512095fd42cb6741cc80616761b1c77d00fcc4d6d9740f09504a4b761b0",
            ),
        ];
        for (path, extra, signature) in reads {
            assert_eq!(
                check("GET", path, extra, "", signature, now),
                Ok(()),
                "{path}{extra}"
            );
        }
    }

    #[test]
    fn what_was_tampered_with_is_refused() {
        let verify = |extra: &str, body: &str, now| {
            check("POST", "/apps/3/events", extra, body, EVENT_SIGNATURE, now)
        };
        let now = 1_353_088_179;
        assert_eq!(
            verify(EVENT_MD5, "other", now),
            Err(SignatureFault::BodyMd5)
        );
        assert_eq!(
            verify("", EVENT_BODY, now),
            Err(SignatureFault::Missing("body_md5"))
        );
        let more = format!("{EVENT_MD5}&info=user_count");
        assert_eq!(
            verify(&more, EVENT_BODY, now),
            Err(SignatureFault::Signature)
        );
    }

    #[test]
    fn the_timestamp_must_be_within_the_window_on_either_side() {
        let at = |now| {
            check(
                "POST",
                "/apps/3/events",
                EVENT_MD5,
                EVENT_BODY,
                EVENT_SIGNATURE,
                now,
            )
        };
        for (offset, believed) in [(599, true), (-599, true), (600, false), (-600, false)] {
            assert_eq!(at(1_353_088_179 + offset).is_ok(), believed, "{offset}");
        }
    }

    #[test]
    fn a_path_that_a_proxy_encoded_still_verifies() {
        let query = format!("auth_key={KEY}&auth_timestamp=100&auth_version=1.0");
        let signed = format!("GET\n/apps/3/channels/a@b\n{query}");
        let query = format!("{query}&auth_signature={}", sign(SECRET, &signed));
        let query = parse_query(&query).expect("well-formed");
        let path = "/apps/3/channels/a%40b";
        let request = SignedRequest {
            method: "GET",
            path,
            query: &query,
            body: b"",
            unix_seconds: 100,
        };
        assert!(request.verify(SECRET).is_ok());
    }

    #[test]
    fn lists_verify_in_both_spellings() {
        for signed_query in [
            "auth_timestamp=100&auth_version=1.0&k=a,b",
            "auth_timestamp=100&auth_version=1.0&k[]=a&k[]=b",
        ] {
            let signature = sign(SECRET, &format!("GET\n/p\n{signed_query}"));
            let query = format!(
                "auth_timestamp=100&auth_version=1.0&k[]=a&k[]=b&auth_signature={signature}"
            );
            let query = parse_query(&query).expect("well-formed");
            let request = SignedRequest {
                method: "GET",
                path: "/p",
                query: &query,
                body: b"",
                unix_seconds: 100,
            };
            assert!(request.verify(SECRET).is_ok(), "{signed_query}");
        }
    }
}

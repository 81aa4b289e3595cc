//! Where a notification goes: a device's token in the form its provider gave it, a topic, a
//! broadcast channel, a browser's subscription. Checked once, so that a request can be written
//! without looking at it again. `Debug` shows the kind only: who knows a token can send to it.

use std::fmt;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};

use crate::push::devices::token::{ClearToken, Service};
use crate::wire::target::Target;

/// Apple asks not to assume a length; theirs are 64 digits today, those of activities longer.
const APNS_DIGITS: usize = 400;
/// FCM documents none; theirs are below 300 bytes today.
const FCM_BYTES: usize = 4096;
/// Firebase, "Send messages to topics": so many in one condition.
const CONDITION_TOPICS: usize = 5;

/// See the file's head.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// Lower-case hexadecimal digits, an even number.
    Apns(String),
    /// A broadcast channel's id, in base64.
    ApnsChannel(String),
    FcmToken(String),
    /// A Firebase Installation ID, the token's successor.
    FcmFid(String),
    /// Without `/topics/`.
    FcmTopic(String),
    /// `'a' in topics && !('b' in topics)`; read by FCM alone.
    FcmCondition(String),
    WebPush(Box<Subscription>),
}

/// A browser's PushSubscription.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// `https://HOST[:PORT]`
    pub origin: String,
    /// The endpoint's path and query.
    pub path: String,
    /// The browser's P-256 point, uncompressed. Whether it is on the curve shows when it is used.
    pub p256dh: [u8; 65],
    pub auth: [u8; 16],
}

impl Address {
    /// Of the token, as it stands in a list of them; 0 where there is none.
    pub fn token_bytes(&self) -> usize {
        match self {
            Address::Apns(token) | Address::FcmToken(token) => token.len() + "\"\",".len(),
            _ => 0,
        }
    }

    /// Where a registered device is, as its provider names it; the same through a hub of Azure. An
    /// error: it was registered with what no provider gives out.
    pub fn of(token: &ClearToken) -> Result<Address, String> {
        let text = token.expose();
        let address = match token.service() {
            Service::Apns | Service::ApnsSandbox => Address::apns(text),
            Service::Fcm => Address::fcm_token(text),
            Service::FcmFid => Address::fcm_fid(text),
            Service::WebPush => {
                let keys = token.web_push().ok_or("this is no subscription")?;
                let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
                return Address::web_push(keys.endpoint, &text(&keys.p256dh), &text(&keys.auth));
            }
        };
        address.map_err(str::to_string)
    }

    /// Takes the digits in either case, with the blanks and angle brackets of old logs.
    pub fn apns(token: &str) -> Result<Address, &'static str> {
        let mut token = token.to_string();
        token.make_ascii_lowercase();
        token.retain(|it| !matches!(it, ' ' | '<' | '>'));
        let is_hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_hex
            && !token.is_empty()
            && token.len() <= APNS_DIGITS
            && token.len().is_multiple_of(2)
        {
            true => Ok(Address::Apns(token)),
            false => Err("an APNs token is an even number of hexadecimal digits, at most 400"),
        }
    }

    pub fn apns_channel(id: &str) -> Result<Address, &'static str> {
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte);
        match (1..=128).contains(&id.len()) && id.bytes().all(base64) {
            true => Ok(Address::ApnsChannel(id.to_string())),
            false => Err("a channel's id is base64"),
        }
    }

    pub fn fcm_token(token: &str) -> Result<Address, &'static str> {
        visible(token).map(Address::FcmToken)
    }

    pub fn fcm_fid(fid: &str) -> Result<Address, &'static str> {
        visible(fid).map(Address::FcmFid)
    }

    pub fn fcm_topic(name: &str) -> Result<Address, &'static str> {
        let name = name.strip_prefix("/topics/").unwrap_or(name);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
        match (1..=900).contains(&name.len()) && name.bytes().all(allowed) {
            true => Ok(Address::FcmTopic(name.to_string())),
            false => Err("a topic is made of letters, digits and - _ . ~ %"),
        }
    }

    pub fn fcm_condition(condition: &str) -> Result<Address, &'static str> {
        let topics = condition.matches(" in topics").count();
        let is_one = (1..=FCM_BYTES).contains(&condition.len()) && topics > 0;
        match is_one {
            _ if topics > CONDITION_TOPICS => Err("a condition names five topics at most"),
            true => Ok(Address::FcmCondition(condition.to_string())),
            false => Err("a condition looks like 'a' in topics && 'b' in topics"),
        }
    }

    /// The three strings of a subscription's JSON; the keys in base64, of either alphabet, padded or
    /// not. Whether the endpoint may be connected to is for who connects.
    pub fn web_push(endpoint: &str, p256dh: &str, auth: &str) -> Result<Address, String> {
        let target = Target::parse_web(endpoint)?;
        if !target.scheme().is_secured() {
            return Err("the endpoint does not begin with https://".to_string());
        }
        let point = bytes_of(p256dh).filter(|point| point.first() == Some(&4));
        let point = point.and_then(|point| point.try_into().ok());
        let auth = bytes_of(auth).and_then(|auth| auth.try_into().ok());
        Ok(Address::WebPush(Box::new(Subscription {
            origin: format!("https://{}", target.authority().to_ascii_lowercase()),
            path: target.path_and_query().to_string(),
            p256dh: point.ok_or("p256dh is not an uncompressed P-256 point in base64")?,
            auth: auth.ok_or("auth is not 16 bytes in base64")?,
        })))
    }

    /// The kind, for logs and timelines.
    pub fn word(&self) -> &'static str {
        match self {
            Address::Apns(_) => "apns",
            Address::ApnsChannel(_) => "apns_channel",
            Address::FcmToken(_) => "fcm_token",
            Address::FcmFid(_) => "fcm_fid",
            Address::FcmTopic(_) => "fcm_topic",
            Address::FcmCondition(_) => "fcm_condition",
            Address::WebPush(_) => "web_push",
        }
    }
}

impl Subscription {
    pub fn endpoint(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}, …)", self.word())
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({}/…)", self.origin)
    }
}

fn visible(token: &str) -> Result<String, &'static str> {
    let is_one = (1..=FCM_BYTES).contains(&token.len());
    match is_one && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token.to_string()),
        false => Err("an FCM token is visible ASCII, at most 4096 bytes"),
    }
}

/// Base64 of either alphabet, padded or not.
pub fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let decoded = BASE64URL_NOPAD.decode(text);
    decoded.or_else(|_| BASE64_NOPAD.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_found_in_the_wild() {
        let table = [
            ("00fc13AD", Some("00fc13ad")),
            ("<00fc 13ad>", Some("00fc13ad")),
            ("", None),
            ("<>", None),
            ("00f", None),
            ("00fg", None),
            ("00/../fc", None),
        ];
        for (text, token) in table {
            let token = token.map(|token| Address::Apns(token.to_string()));
            assert_eq!(Address::apns(text).ok(), token, "{text}");
        }
        assert!(Address::apns(&"a".repeat(400)).is_ok());
        assert!(Address::apns(&"a".repeat(402)).is_err());
    }

    #[test]
    fn names_cannot_become_something_else_in_a_request() {
        assert!(Address::fcm_token("dQw4:APA91b-x_y").is_ok());
        assert!(Address::fcm_token("a\r\nb: c").is_err());
        assert!(Address::fcm_fid("").is_err());
        assert_eq!(
            Address::fcm_topic("/topics/news-1.a~%"),
            Ok(Address::FcmTopic("news-1.a~%".to_string()))
        );
        assert!(Address::fcm_topic("news/1").is_err());
        assert!(Address::fcm_condition("'a' in topics || 'b' in topics").is_ok());
        assert!(Address::fcm_condition("a").is_err());
        let of =
            |topics: usize| Address::fcm_condition(&vec!["'a' in topics"; topics].join(" && "));
        assert!(of(5).is_ok() && of(6).is_err());
        assert!(Address::apns_channel("dHN0LXNyY2gtY2hubA==").is_ok());
        assert!(Address::apns_channel("a\nb").is_err());
    }

    const POINT: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    #[test]
    fn a_subscription_is_read_in_either_alphabet() {
        let other = |text: &str| text.replace('-', "+").replace('_', "/");
        let read = Address::web_push("https://Push.example/a?b", POINT, AUTH);
        let padded = format!("{}==", other(AUTH));
        let again = Address::web_push(
            "https://push.example:443/a?b",
            &format!("{}=", other(POINT)),
            &padded,
        );
        assert!(read.is_ok());
        assert_eq!(read, again);
        let Ok(Address::WebPush(subscription)) = read else {
            panic!("a subscription");
        };
        assert_eq!(subscription.endpoint(), "https://push.example/a?b");
    }

    #[test]
    fn a_registered_token_is_an_address() {
        let web = format!(
            r#"{{"endpoint":"https://push.example/a","keys":{{"p256dh":"{POINT}","auth":"{AUTH}"}}}}"#
        );
        let browser = Address::web_push("https://push.example/a", POINT, AUTH).expect("one");
        let table = [
            (Service::Apns, "00FC", Address::Apns("00fc".to_string())),
            (
                Service::ApnsSandbox,
                "00FC",
                Address::Apns("00fc".to_string()),
            ),
            (Service::Fcm, "a:b", Address::FcmToken("a:b".to_string())),
            (Service::FcmFid, "ab", Address::FcmFid("ab".to_string())),
            (Service::WebPush, &web, browser),
        ];
        for (service, text, address) in table {
            let token = ClearToken::parse(service, text).expect(text);
            assert_eq!(Address::of(&token), Ok(address));
        }
    }

    #[test]
    fn a_subscription_that_could_not_be_used_is_refused() {
        let compressed = BASE64URL_NOPAD.encode(&[2; 33]);
        let table = [
            ("http://push.example/", POINT, AUTH, "the endpoint does not"),
            ("file:///etc/passwd", POINT, AUTH, "the URL begins with"),
            ("https://a@push.example/", POINT, AUTH, ""),
            ("https://push.example/", &compressed, AUTH, "p256dh is not"),
            ("https://push.example/", "BA", AUTH, "p256dh is not"),
            ("https://push.example/", POINT, "BTBZ", "auth is not 16"),
            ("https://push.example/", POINT, "!", "auth is not 16"),
        ];
        for (endpoint, p256dh, auth, expected) in table {
            let error = Address::web_push(endpoint, p256dh, auth).expect_err(endpoint);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_token() {
        let web = Address::web_push("https://push.example/secret", POINT, AUTH);
        let shown = format!("{:?} {web:?}", Address::fcm_token("secret"));
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("fcm_token"), "{shown}");
    }
}

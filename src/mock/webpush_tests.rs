//! What a Web Push service takes and refuses.

use super::*;
use crate::base::dice::Dice;
use crate::mock::kit::{NOW, asked, json_of, mock, reply};
use crate::mock::{Act, Mock};
use crate::wire::jwt::JwtKey;

const PATH_OF_ONE: &str = "/push/one";

/// A sender's key, its public half, and what it says of itself.
struct Sender(JwtKey, String);

impl Sender {
    fn new(seed: u8) -> Sender {
        let key = JwtKey::es256_raw(&[seed; 32]).expect("a key");
        let public = BASE64URL_NOPAD.encode(key.public_key());
        Sender(key, public)
    }

    fn pass(&self, change: impl Fn(&mut Value)) -> String {
        let mut claims = json!({
            "aud": "https://mock.example", "exp": NOW + 3600, "sub": "mailto:a@example.org",
        });
        change(&mut claims);
        let token = self.0.sign(&json!({"alg": "ES256", "typ": "JWT"}), &claims);
        format!("vapid t={}, k={}", token.expect("a token"), self.1)
    }
}

fn service(vapid: Option<&Sender>, rules: &[&str]) -> Mock {
    let subscriber = Subscriber::draw(&mut Dice::new([5; 16]));
    let options = WebPushOptions {
        subscribers: BTreeMap::from([("one".to_string(), subscriber)]),
        vapid: vapid.map(|sender| sender.1.clone()),
        plain: false,
    };
    mock(WebPush::new(options), rules)
}

fn push(fields: &[(&str, &str)], body: &str) -> Asked {
    asked("POST", PATH_OF_ONE, fields, body)
}

#[test]
fn a_good_message_is_accepted() {
    let pass = Sender::new(1).pass(|_| {});
    let fields = [
        ("ttl", "99999999"),
        ("urgency", "high"),
        ("topic", "a-b_1"),
        ("authorization", &*pass),
    ];
    let accepted = reply(&mut service(None, &[]), &push(&fields, ""));
    assert_eq!(
        (accepted.status, accepted.value("ttl")),
        (201, Some("2592000"))
    );
    let location = accepted.value("location").expect("a location");
    assert!(
        location.starts_with("https://mock.example/m/"),
        "{location}"
    );
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let pass = Sender::new(1).pass(|_| {});
    let pass = ("authorization", &*pass);
    let (ttl, encoded) = (("ttl", "0"), ("content-encoding", "aes128gcm"));
    let long = "x".repeat(4097);
    let topic = "x".repeat(33);
    let mut mock = service(None, &[]);
    for (expected, fields, body) in [
        ("400 BadTtl", &[pass][..], ""),
        ("400 BadTtl", &[pass, ("ttl", "-1")], ""),
        ("400 BadUrgency", &[pass, ttl, ("urgency", "x")], ""),
        ("400 BadWebPushTopic", &[pass, ttl, ("topic", &topic)], ""),
        ("400 BadWebPushTopic", &[pass, ttl, ("topic", "a b")], ""),
        ("400 BadWebPushRequest", &[pass, ttl], "x"),
        ("413 PayloadTooLarge", &[pass, ttl, encoded], &long),
        ("401 unauthorized", &[ttl], ""),
        (
            "403 BadAuthorizationHeader",
            &[ttl, ("authorization", "bearer x")],
            "",
        ),
        (
            "403 BadAuthorizationHeader",
            &[ttl, ("authorization", "vapid t=x")],
            "",
        ),
    ] {
        let reply = reply(&mut mock, &push(fields, body));
        assert_eq!(format!("{} {}", reply.status, reply.reason), expected);
    }
    let fields = [pass, ttl];
    let mut status = |method, path| reply(&mut mock, &asked(method, path, &fields, "")).status;
    assert_eq!(status("POST", "/push/two"), 404);
    assert_eq!(status("POST", "/other"), 404);
    assert_eq!(status("GET", PATH_OF_ONE), 405);
}

#[test]
fn a_sender_says_who_it_is() {
    let (ours, theirs) = (Sender::new(1), Sender::new(2));
    let mut mock = service(Some(&ours), &[]);
    let mut reason = |pass: &str| {
        reply(
            &mut mock,
            &push(&[("ttl", "0"), ("authorization", pass)], ""),
        )
        .reason
    };
    assert_eq!(reason(&ours.pass(|_| {})), "");
    assert_eq!(reason(&theirs.pass(|_| {})), "VapidPkHashMismatch");
    let mixed = Sender(JwtKey::es256_raw(&[2; 32]).expect("a key"), ours.1.clone());
    assert_eq!(reason(&mixed.pass(|_| {})), "BadJwtToken");
    for (claim, value) in [
        ("aud", json!("https://other.example")),
        ("exp", json!(NOW - 1)),
        ("exp", json!(NOW + 25 * 3600)),
        ("exp", Value::Null),
        ("sub", json!("push")),
    ] {
        let pass = ours.pass(|claims| claims[claim] = value.clone());
        assert_eq!(reason(&pass), "BadJwtToken", "{claim}");
    }
    let pass = ours.pass(|_| {});
    assert_eq!(
        reason(&format!("{}x", &pass[..pass.len() - 2])),
        "BadVapidPublicKey"
    );
}

#[test]
fn what_nobody_here_can_read_is_told_as_such() {
    let mut mock = service(None, &[]);
    let heard = |mock: &mut Mock, path, body: &str| {
        let asked = asked("POST", path, &[], body);
        let heard = mock.hear(crate::mock::kit::caller(1), &asked, crate::mock::kit::at(0));
        let line: Value = serde_json::from_str(&heard.line.expect("a line")).expect("JSON");
        assert!(matches!(heard.act, Act::Answer(..)));
        (line["payload"].clone(), line["unreadable"].clone())
    };
    let short = heard(&mut mock, PATH_OF_ONE, "short");
    assert_eq!(
        short,
        (json!("short"), json!("the message ends in its header"))
    );
    let strange = heard(&mut mock, "/push/two", "x");
    assert_eq!(strange.1, json!("the subscription's key is not known here"));
    assert_eq!(
        heard(&mut mock, PATH_OF_ONE, ""),
        (Value::Null, Value::Null)
    );
}

#[test]
fn every_word_can_be_scripted() {
    for (word, status) in WORDS {
        let mut mock = service(None, &[&format!("answer={word}")]);
        let said = reply(&mut mock, &push(&[], ""));
        assert_eq!(said.status, *status, "{word}");
        match word.strip_prefix("errno") {
            Some(number) => {
                assert_eq!(json_of(&said)["errno"].to_string(), number);
                assert_eq!(json_of(&said)["code"], *status);
            }
            None if word.starts_with("Bad") => assert_eq!(json_of(&said)["reason"], *word),
            None => {}
        }
    }
}

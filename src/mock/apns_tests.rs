//! What APNs refuses, with which reason.

use super::*;
use crate::mock::kit::{NOW, asked, at, caller, json_of, mock, reply};
use crate::mock::{Act, Mock};
use crate::wire::jwt::JwtKey;

const TOKEN: &str = "aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00";
const PAYLOAD: &str = r#"{"aps":{"alert":"hello"}}"#;

struct Sender(JwtKey, Vec<u8>);

impl Sender {
    fn new() -> Sender {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let pem = pem.serialize_pem().into_bytes();
        Sender(JwtKey::es256_pem(&pem).expect("a key"), pem)
    }

    fn token(&self, team: &str, age: i64) -> String {
        let header = json!({"alg": "ES256", "kid": "KEY"});
        let claims = json!({"iss": team, "iat": NOW - age});
        let signed = self.0.sign(&header, &claims).expect("a token");
        format!("bearer {signed}")
    }
}

fn device() -> String {
    format!("/3/device/{TOKEN}")
}

/// The status and the reason of a push with these fields beside a good token and topic.
fn answer(mock: &mut Mock, token: &str, fields: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut all = vec![("authorization", token)];
    all.extend(fields);
    if !fields.iter().any(|(name, _)| *name == "apns-topic") {
        all.push(("apns-topic", "org.example"));
    }
    all.retain(|(_, value)| *value != "-");
    let reply = reply(mock, &asked("POST", &device(), &all, body));
    (reply.status, reply.reason)
}

fn open() -> (Mock, String) {
    let token = Sender::new().token("TEAM", 0);
    (mock(Apns::new(ApnsOptions::default()), &[]), token)
}

#[test]
fn a_good_push_is_accepted_with_its_id() {
    let (mut mock, token) = open();
    let id = "eabeae54-14a8-11e5-b60b-1697f925ec7b";
    let fields = [
        ("authorization", &*token),
        ("apns-topic", "org.example"),
        ("apns-id", id),
        ("apns-push-type", "alert"),
    ];
    let accepted = reply(&mut mock, &asked("POST", &device(), &fields, PAYLOAD));
    assert_eq!(
        (accepted.status, accepted.value("apns-id")),
        (200, Some(id))
    );
    assert!(accepted.body.is_empty() && accepted.value("apns-unique-id").is_some());
    let made = reply(&mut mock, &asked("POST", &device(), &fields[..2], PAYLOAD));
    let made = made.value("apns-id").expect("an id");
    assert!(is_uuid(made) && made.as_bytes()[14] == b'4', "{made}");
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let (mut mock, token) = open();
    let long = format!(r#"{{"aps":{{"alert":"{}"}}}}"#, "x".repeat(4080));
    let collapse = "x".repeat(65);
    for (expected, fields, body) in [
        ("400 MissingTopic", &[("apns-topic", "-")][..], PAYLOAD),
        ("400 BadTopic", &[("apns-topic", "a b")], PAYLOAD),
        ("400 InvalidPushType", &[("apns-push-type", "x")], PAYLOAD),
        ("400 BadPriority", &[("apns-priority", "7")], PAYLOAD),
        ("400 BadMessageId", &[("apns-id", "x")], PAYLOAD),
        (
            "400 BadExpirationDate",
            &[("apns-expiration", "x")],
            PAYLOAD,
        ),
        (
            "400 BadCollapseId",
            &[("apns-collapse-id", &collapse)],
            PAYLOAD,
        ),
        (
            "400 DuplicateHeaders",
            &[("apns-id", "x"), ("apns-id", "x")],
            PAYLOAD,
        ),
        ("400 PayloadEmpty", &[], ""),
        ("400 PayloadEmpty", &[], "hello"),
        ("413 PayloadTooLarge", &[], &long),
        (
            "403 MissingProviderToken",
            &[("authorization", "basic x")],
            PAYLOAD,
        ),
    ] {
        let is_auth = fields
            .first()
            .is_some_and(|(name, _)| *name == "authorization");
        let token = if is_auth { "-" } else { &*token };
        let (status, reason) = answer(&mut mock, token, fields, body);
        assert_eq!(format!("{status} {reason}"), expected, "{fields:?}");
    }
}

#[test]
fn a_push_type_has_its_topic_size_and_priority() {
    let (mut mock, token) = open();
    let text = |count| format!(r#"{{"aps":{{"alert":"{}"}}}}"#, "x".repeat(count));
    let (long, longest) = (text(4080), text(5120));
    let typed = |push_type, topic| [("apns-push-type", push_type), ("apns-topic", topic)];
    let mut status =
        |push_type, topic, body| answer(&mut mock, &token, &typed(push_type, topic), body).0;
    assert_eq!(status("voip", "org.example.voip", &*long), 200);
    assert_eq!(status("voip", "org.example.voip", &longest), 413);
    assert_eq!(status("voip", "org.example", PAYLOAD), 400);
    assert_eq!(
        status(
            "liveactivity",
            "org.example.push-type.liveactivity",
            PAYLOAD
        ),
        200
    );
    let background = [("apns-push-type", "background"), ("apns-priority", "10")];
    assert_eq!(
        answer(&mut mock, &token, &background, PAYLOAD).1,
        "BadPriority"
    );
}

#[test]
fn paths_and_methods_are_checked() {
    let (mut mock, token) = open();
    let fields = [("authorization", &*token), ("apns-topic", "org.example")];
    let mut reason = |method, path: &str| {
        let reply = reply(&mut mock, &asked(method, path, &fields, PAYLOAD));
        assert_eq!(json_of(&reply)["reason"], reply.reason);
        (reply.status, reply.reason)
    };
    let is = |status, word: &str| (status, word.to_string());
    assert_eq!(reason("GET", &device()), is(405, "MethodNotAllowed"));
    assert_eq!(reason("POST", "/2/device/aa"), is(404, "BadPath"));
    assert_eq!(reason("POST", "/3/device/"), is(400, "MissingDeviceToken"));
    for token in ["xx", "abc", &"ab".repeat(201)] {
        assert_eq!(
            reason("POST", &format!("/3/device/{token}")),
            is(400, "BadDeviceToken")
        );
    }
}

#[test]
fn tokens_are_checked_and_a_connection_remembers_them() {
    let (ours, theirs) = (Sender::new(), Sender::new());
    let options = ApnsOptions {
        key: Some(PublicKey::from_pem(&ours.1, false).expect("a key")),
        key_id: Some("KEY".to_string()),
        topics: vec!["org.example".to_string()],
        ..ApnsOptions::default()
    };
    let mut mock = mock(Apns::new(options), &[]);
    let mut hear = |connection, token: &str, topic: &str, seconds| {
        let fields = [("authorization", token), ("apns-topic", topic)];
        let heard = mock.hear(
            caller(connection),
            &asked("POST", &device(), &fields, PAYLOAD),
            at(seconds),
        );
        match heard.act {
            Act::Answer(reply, None) => {
                assert_eq!(heard.signed_in, reply.status == 200);
                format!("{} {}", reply.status, reply.reason)
            }
            other => panic!("{other:?}"),
        }
    };
    let mut push =
        |connection, token: &str, seconds| hear(connection, token, "org.example", seconds);
    let (first, second) = (ours.token("TEAM", 0), ours.token("TEAM", -1300));
    assert_eq!(push(1, &first, 0), "200 ");
    assert_eq!(
        push(1, &theirs.token("TEAM", 0), 0),
        "403 InvalidProviderToken"
    );
    assert_eq!(
        push(1, &ours.token("TEAM", 5), 60),
        "429 TooManyProviderTokenUpdates"
    );
    assert_eq!(
        push(1, &ours.token("OTHER", 0), 1300),
        "403 InvalidProviderToken"
    );
    assert_eq!(push(1, &second, 1300), "200 ");
    assert_eq!(
        push(2, &ours.token("TEAM", -100), 0),
        "403 InvalidProviderToken"
    );
    assert_eq!(push(2, &first, 3601), "403 ExpiredProviderToken");
    assert_eq!(
        push(2, &second, 3601),
        "403 ExpiredProviderToken",
        "for good"
    );
    assert_eq!(push(3, &second, 3601), "200 ");
    assert_eq!(hear(3, &second, "org.other", 3601), "400 TopicDisallowed");
    mock.left(2);
}

#[test]
fn a_certificate_takes_the_place_of_tokens() {
    let options = ApnsOptions {
        by_certificate: true,
        production: true,
        ..ApnsOptions::default()
    };
    let mut mock = mock(Apns::new(options), &[]);
    let accepted = reply(&mut mock, &asked("POST", &device(), &[], PAYLOAD));
    assert_eq!(
        (accepted.status, accepted.value("apns-unique-id")),
        (200, None)
    );
}

/// A call with a good token.
type Call<'a> = dyn FnMut(&str, &str, &[(&str, &str)], &str) -> Reply + 'a;

fn with_calls(then: impl FnOnce(&mut Call<'_>)) {
    let (mut mock, token) = open();
    then(&mut |method, path, more, body| {
        let fields = [&[("authorization", &*token)], more].concat();
        reply(&mut mock, &asked(method, path, &fields, body))
    });
}

const CHANNELS: &str = "/1/apps/org.example/channels";
const NOT_STORING: &str = r#"{"message-storage-policy":0,"push-type":"LiveActivity"}"#;

#[test]
fn channels_are_made_read_listed_and_deleted() {
    with_calls(|call| {
        let channels = CHANNELS;
        let made = call("POST", channels, &[("apns-request-id", "r1")], NOT_STORING);
        assert_eq!(
            (made.status, made.value("apns-request-id")),
            (201, Some("r1"))
        );
        let id = made.value("apns-channel-id").expect("an id");
        let named = [("apns-channel-id", id)];
        let read = call("GET", channels, &named, "");
        assert_eq!(
            (
                read.status,
                json_of(&read)["message-storage-policy"].clone()
            ),
            (200, json!(0))
        );
        let list = call("GET", "/1/apps/org.example/all-channels", &[], "");
        assert_eq!(json_of(&list), json!({ "channels": [id] }));
        assert_eq!(call("DELETE", channels, &named, "").status, 204);
        let gone = call("DELETE", channels, &named, "");
        assert_eq!((gone.status, &*gone.reason), (404, "BadPath"));
        for (body, reason) in [
            ("[]", "BadRequestPayload"),
            (r#"{"message-storage-policy":2}"#, "BadRequestPayload"),
            (r#"{"message-storage-policy":1}"#, "MissingPushType"),
            (
                r#"{"message-storage-policy":1,"push-type":"x"}"#,
                "InvalidPushType",
            ),
        ] {
            assert_eq!(call("POST", channels, &[], body).reason, reason);
        }
        assert_eq!(call("PUT", channels, &[], "").reason, "MethodNotAllowed");
    });
}

#[test]
fn broadcasts_go_to_channels() {
    with_calls(|call| {
        let made = call("POST", CHANNELS, &[], NOT_STORING);
        let id = made.value("apns-channel-id").expect("an id");
        let named = [("apns-channel-id", id)];
        let broadcast = "/4/broadcasts/apps/org.example";
        let activity = ("apns-push-type", "liveactivity");
        let mut send = |more: &[(&str, &str)]| {
            let reply = call("POST", broadcast, more, PAYLOAD);
            format!("{} {}", reply.status, reply.reason)
        };
        assert_eq!(send(&[named[0], activity]), "200 ");
        assert_eq!(send(&[activity]), "400 MissingChannelId");
        assert_eq!(send(&named), "400 MissingPushType");
        assert_eq!(
            send(&[("apns-channel-id", "!"), activity]),
            "400 BadChannelId"
        );
        assert_eq!(
            send(&[("apns-channel-id", "AAAA"), activity]),
            "400 ChannelNotRegistered"
        );
        assert_eq!(
            send(&[named[0], activity, ("apns-expiration", "9")]),
            "400 BadExpirationDate"
        );
    });
}

#[test]
fn the_channels_of_an_app_have_a_bound() {
    let (mut mock, token) = open();
    let wanted = r#"{"message-storage-policy":1,"push-type":"LiveActivity"}"#;
    let create = asked(
        "POST",
        "/1/apps/a/channels",
        &[("authorization", &token)],
        wanted,
    );
    for _ in 0..10_000 {
        assert_eq!(reply(&mut mock, &create).status, 201);
    }
    assert_eq!(
        reply(&mut mock, &create).reason,
        "CannotCreateChannelConfig"
    );
}

#[test]
fn every_reason_can_be_scripted() {
    for (word, status) in WORDS {
        let rule = format!("answer={word} retry-after=7");
        let mut mock = mock(Apns::new(ApnsOptions::default()), &[&rule]);
        let said = reply(&mut mock, &asked("POST", &device(), &[], PAYLOAD));
        assert_eq!(
            (said.status, said.value("retry-after")),
            (*status, Some("7")),
            "{word}"
        );
        if *word != "ok" {
            assert_eq!(json_of(&said)["reason"], *word);
        }
        let is_dead = json_of(&said)["timestamp"] == json!(NOW * 1000);
        assert_eq!(is_dead, *status == 410, "{word}");
    }
}

#[test]
fn what_was_asked_and_answered_is_told() {
    let mut mock = mock(
        Apns::new(ApnsOptions::default()),
        &["nth=2 delay=2s goaway=Shutdown"],
    );
    let fields = [("apns-topic", "a"), ("x", "1"), ("x", "2")];
    let push = asked("POST", &device(), &fields, PAYLOAD);
    let mut told = || {
        let line = mock.hear(caller(5), &push, at(1)).line.expect("a line");
        serde_json::from_str::<Value>(&line).expect("JSON")
    };
    assert_eq!(
        told(),
        json!({
            "at": (NOW + 1) * 1000, "provider": "apns", "connection": 5, "http": 2,
            "method": "POST", "path": device(), "token": TOKEN,
            "headers": {"apns-topic": "a", "x": "1, 2"},
            "payload": {"aps": {"alert": "hello"}}, "body_bytes": PAYLOAD.len(),
            "answer": {"status": 403, "reason": "MissingProviderToken"},
        })
    );
    let second = told();
    assert_eq!(
        second["answer"],
        json!({"goaway": {"reason": "Shutdown", "code": 0}})
    );
    assert_eq!(
        (&second["rule"], &second["delay_ms"]),
        (&json!(1), &json!(2000))
    );
}

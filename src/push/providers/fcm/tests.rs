//! Requests to FCM and the messages in them.

use super::*;
use crate::push::providers::kit::{body, head, note, now, pass};

fn fcm() -> Fcm {
    Fcm {
        origin: ORIGIN.to_string(),
        project: "p".to_string(),
    }
}

fn asked(json: &str, to: &Address) -> Result<Request, Unfit> {
    fcm().request(
        &note(json),
        to,
        Some(&pass()),
        now(),
        &mut Dice::new([1; 16]),
    )
}

fn token() -> Address {
    Address::fcm_token("abc").expect("a token")
}

#[test]
fn a_request_has_exactly_one_target() {
    let table = [
        (token(), "token", "abc"),
        (Address::fcm_fid("abc").expect("a fid"), "fid", "abc"),
        (
            Address::fcm_topic("/topics/news").expect("a topic"),
            "topic",
            "news",
        ),
        (
            Address::fcm_condition("'a' in topics").expect("a condition"),
            "condition",
            "'a' in topics",
        ),
    ];
    for (to, target, value) in table {
        let request = asked(r#"{"title":"t"}"#, &to).expect("a request");
        let expected = [
            "POST https://fcm.googleapis.com/v1/projects/p/messages:send",
            "authorization*: bearer PASS",
            "content-type: application/json",
        ];
        assert_eq!(head(&request), expected);
        let message = &body(&request)["message"];
        let there = TARGETS.iter().filter(|it| message.get(**it).is_some());
        assert_eq!(there.collect::<Vec<_>>(), [&target]);
        assert_eq!(message[target], value);
    }
    let elsewhere = Address::apns("00").expect("a token");
    assert_eq!(asked(r#"{"title":"t"}"#, &elsewhere), Err(Unfit::Address));
    let without = fcm().request(
        &note(r#"{"title":"t"}"#),
        &token(),
        None,
        now(),
        &mut Dice::new([1; 16]),
    );
    assert_eq!(without, Err(Unfit::Pass));
}

#[test]
fn a_dry_run_is_said_to_be_one() {
    for (json, expected) in [
        (r#"{"title":"t","dry_run":true}"#, true),
        (r#"{"title":"t"}"#, false),
    ] {
        let request = asked(json, &token()).expect("a request");
        assert_eq!(body(&request)["validate_only"], expected);
    }
}

#[test]
fn every_field_has_its_place() {
    let json = r#"{"title":"t","subtitle":"s","body":"b","sound":"default","badge":3,
        "image":"https://a/b.png","link":"https://a/","category":"c","thread":"x",
        "data":{"a":"b","n":1,"o":{"x":null}},"priority":"high","expires":1700000300,
        "collapse":"score","fcm":{"message":{"android":{"direct_boot_ok":true,"ttl":"5s"},
        "fcm_options":{"analytics_label":"l"}}}}"#;
    let expected = json!({
        "notification": {"title": "t", "body": "b", "image": "https://a/b.png"},
        "data": {"a": "b", "n": "1", "o": "{\"x\":null}"},
        "android": {"priority": "HIGH", "ttl": "5s", "collapse_key": "score", "direct_boot_ok": true,
            "notification": {"sound": "default", "channel_id": "c", "notification_count": 3}},
        "apns": {
            "headers": {"apns-priority": "10", "apns-expiration": "1700000300",
                "apns-collapse-id": "score"},
            "payload": {"aps": {"alert": {"title": "t", "subtitle": "s", "body": "b"}, "badge": 3,
                "sound": "default", "category": "c", "thread-id": "x", "mutable-content": 1}},
            "fcm_options": {"image": "https://a/b.png"}},
        "webpush": {"headers": {"TTL": "300"}, "fcm_options": {"link": "https://a/"}},
        "fcm_options": {"analytics_label": "l"},
    });
    assert_eq!(message(&note(json), now(), PAYLOAD_BYTES), Ok(expected));
}

#[test]
fn data_alone_wakes_an_iphone_as_apple_wants_it() {
    let message = message(
        &note(r#"{"silent":true,"data":{"a":"b"}}"#),
        now(),
        PAYLOAD_BYTES,
    )
    .expect("a message");
    assert_eq!(message["apns"]["headers"]["apns-priority"], "5");
    assert_eq!(
        message["apns"]["payload"]["aps"],
        json!({"content-available": 1})
    );
    assert_eq!(message["android"]["priority"], "NORMAL");
    assert_eq!(message.get("notification"), None);
}

#[test]
fn a_message_lives_four_weeks_at_most() {
    let ttl = |expires: u32| {
        let json = format!(r#"{{"title":"t","expires":{expires}}}"#);
        message(&note(&json), now(), PAYLOAD_BYTES).map(|message| message["android"]["ttl"].clone())
    };
    assert_eq!(ttl(0), Ok(json!("0s")));
    assert_eq!(ttl(1_700_000_060), Ok(json!("60s")));
    assert_eq!(ttl(2_000_000_000), Ok(json!("2419200s")));
    assert_eq!(ttl(1_600_000_000), Err(Unfit::Expired));
}

#[test]
fn what_fcm_would_refuse_is_not_sent() {
    for key in [
        "from",
        "message_type",
        "google.x",
        "googleapis",
        "gcm",
        "gcm.a",
    ] {
        let refused = asked(&format!(r#"{{"data":{{"{key}":"a"}}}}"#), &token());
        let why = format!("data has a key {key}, which is FCM's");
        assert_eq!(refused, Err(Unfit::Note(why)));
    }
    let target = asked(r#"{"fcm":{"message":{"topic":"all"}}}"#, &token());
    assert_eq!(
        target,
        Err(Unfit::Note("fcm.message names a target".into()))
    );
}

#[test]
fn keys_and_values_have_a_limit_and_topics_a_smaller_one() {
    let topic = Address::fcm_topic("news").expect("a topic");
    for (to, limit) in [(token(), 4096), (topic, 2048)] {
        let sized = |bytes: usize| {
            let fill = "a".repeat(bytes - 2);
            asked(&format!(r#"{{"data":{{"kk":"{fill}"}}}}"#), &to)
        };
        assert!(sized(limit).is_ok());
        let bytes = limit + 1;
        assert_eq!(sized(bytes), Err(Unfit::TooLarge { bytes, limit }));
    }
}

//! Requests to push services, their passes, and the JSON inside.

use super::*;
use crate::push::providers::kit::{NOW, head, note, now, pass};

const POINT: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

fn browser() -> Address {
    Address::web_push("https://push.example/s/1?a=b", POINT, AUTH).expect("a subscription")
}

fn asked(json: &str) -> Result<Request, Unfit> {
    let mut dice = Dice::new([1; 16]);
    WebPush::default().request(&note(json), &browser(), Some(&pass()), now(), &mut dice)
}

#[test]
fn a_request_has_the_fields_of_rfc_8030() {
    let json = r#"{"title":"t","priority":"normal","expires":1700000300,"collapse":"score"}"#;
    let request = asked(json).expect("a request");
    let expected = [
        "POST https://push.example/s/1?a=b",
        "ttl: 300",
        "urgency: normal",
        "topic: score",
        "authorization*: bearer PASS",
        "content-encoding: aes128gcm",
        "content-type: application/octet-stream",
    ];
    assert_eq!(head(&request), expected);
    assert!(request.public_only, "a stranger chose the origin");
}

#[test]
fn every_field_has_its_range() {
    let value = |json: &str, name: &str| {
        let request = asked(json).expect("a request");
        request.value(name).map(str::to_string)
    };
    let table = [
        (r#"{"title":"t"}"#, "ttl", Some("2419200")),
        (r#"{"title":"t","expires":0}"#, "ttl", Some("0")),
        (
            r#"{"title":"t","expires":2000000000}"#,
            "ttl",
            Some("2419200"),
        ),
        (r#"{"title":"t"}"#, "urgency", Some("high")),
        (r#"{"title":"t","priority":"low"}"#, "urgency", Some("low")),
        (
            r#"{"title":"t","webpush":{"urgency":"very-low"}}"#,
            "urgency",
            Some("very-low"),
        ),
        (r#"{"title":"t"}"#, "topic", None),
    ];
    for (json, name, expected) in table {
        assert_eq!(value(json, name).as_deref(), expected, "{json}");
    }
    let long = value(r#"{"title":"t","collapse":"match/1.goal"}"#, "topic").expect("a topic");
    assert_eq!(long.len(), 32);
    assert!(
        long.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    );
    assert_ne!(long, topic("match/2.goal"));
}

#[test]
fn what_could_not_arrive_is_not_sent() {
    let why = "webpush.urgency is none of very-low, low, normal, high".to_string();
    let urgency = asked(r#"{"title":"t","webpush":{"urgency":"now"}}"#);
    assert_eq!(urgency, Err(Unfit::Note(why)));
    assert_eq!(
        asked(r#"{"title":"t","expires":1600000000}"#),
        Err(Unfit::Expired)
    );
    assert_eq!(
        asked(r#"{"title":"t","dry_run":true}"#),
        Err(Unfit::NoDryRun)
    );
    let mut dice = Dice::new([1; 16]);
    let plain = note(r#"{"title":"t"}"#);
    let provider = WebPush::default();
    let without = provider.request(&plain, &browser(), None, now(), &mut dice);
    assert_eq!(without, Err(Unfit::Pass));
    let Address::WebPush(mut odd) = browser() else {
        panic!("a subscription");
    };
    odd.p256dh[64] ^= 1;
    let beside = Address::WebPush(odd);
    let refused = provider.request(&plain, &beside, Some(&pass()), now(), &mut dice);
    assert_eq!(refused, Err(Unfit::Address));
    let sized = |fill: usize| {
        let fill = "a".repeat(fill);
        asked(&format!(
            r#"{{"title":"t","webpush":{{"payload":"{fill}"}}}}"#
        ))
    };
    assert_eq!(sized(3991).expect("a request").body.len(), 4096);
    let too_large = Unfit::TooLarge {
        bytes: 3994,
        limit: 3993,
    };
    assert_eq!(sized(3992), Err(too_large));
}

#[test]
fn padded_texts_have_few_lengths() {
    let length = |json: &str| {
        let mut dice = Dice::new([1; 16]);
        let provider = WebPush { pad_to: 1024 };
        let request = provider.request(&note(json), &browser(), Some(&pass()), now(), &mut dice);
        request.expect("a request").body.len()
    };
    assert_eq!(length(r#"{"title":"t"}"#), 86 + 1024 + 1 + 16);
    assert_eq!(length(r#"{"title":"longer"}"#), 86 + 1024 + 1 + 16);
    let fill = "a".repeat(3900);
    assert_eq!(length(&format!(r#"{{"body":"{fill}"}}"#)), 4096);
}

#[test]
fn the_service_worker_gets_the_note_as_json() {
    let table = [
        (
            r#"{"title":"t","body":"b","link":"https://a/","badge":2,"collapse":"c","data":{"a":1}}"#,
            json!({"web_push": 8030, "app_badge": 2, "notification": {"title": "t", "body": "b",
                "navigate": "https://a/", "tag": "c", "data": {"a": 1}}}),
        ),
        (
            r#"{"title":"t","image":"https://a/b.png"}"#,
            json!({"notification": {"title": "t", "image": "https://a/b.png"}}),
        ),
        (
            r#"{"title":"t","webpush":{"payload":{"own":1}}}"#,
            json!({"own": 1}),
        ),
    ];
    for (json, expected) in table {
        let text = text(&note(json)).expect("a text");
        let read: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(read, expected, "{json}");
    }
}

#[test]
fn a_pass_is_for_one_origin_and_half_a_day() {
    let secret = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    let key = VapidKey::new(secret, "mailto:a@example.com").expect("a key");
    assert_eq!(key.public(), POINT);
    let pass = key.pass("https://push.example", now()).expect("a pass");
    let rest = pass.authorization.strip_prefix("vapid t=").expect("vapid");
    let (token, public) = rest.split_once(", k=").expect("a key");
    assert_eq!(public, POINT);
    let part = |at: usize| -> Value {
        let part = token.split('.').nth(at).expect("three parts");
        serde_json::from_slice(&bytes_of(part).expect("base64url")).expect("JSON")
    };
    assert_eq!(part(0), json!({"typ": "JWT", "alg": "ES256"}));
    let claims = json!({"aud": "https://push.example", "exp": NOW + 12 * 3600,
        "sub": "mailto:a@example.com"});
    assert_eq!(part(1), claims);
    assert!(
        pass.renew_at - NOW >= 3600,
        "Apple wants none within an hour"
    );
    assert!(pass.renew_at < pass.ends_at);
    for contact in ["a@example.com", "http://a.example", "mailto:a@localhost"] {
        assert!(VapidKey::new(secret, contact).is_err(), "{contact}");
    }
    assert!(VapidKey::new("AAAA", "mailto:a@example.com").is_err());
}

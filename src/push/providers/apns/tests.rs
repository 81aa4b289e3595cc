//! Requests to APNs, field by field.

use super::*;
use crate::push::providers::kit::{ID, NOW, head, note, now, pass, rows};

fn apns(auth: ApnsAuth) -> Apns {
    Apns {
        origin: PRODUCTION.to_string(),
        bundle: "com.example.app".to_string(),
        auth,
    }
}

fn device() -> Address {
    Address::apns("00FC13AD").expect("a token")
}

fn asked(json: &str, to: &Address) -> Result<Request, Unfit> {
    let mut dice = Dice::new([1; 16]);
    apns(ApnsAuth::Token).request(&note(json), to, Some(&pass()), now(), &mut dice)
}

#[test]
fn a_request_has_the_fields_of_its_note() {
    let request = asked(
        r#"{"title":"a","priority":"normal","expires":1700000300,"collapse":"score"}"#,
        &device(),
    );
    let expected = [
        "POST https://api.push.apple.com/3/device/00fc13ad",
        &format!("apns-id: {ID}"),
        "apns-topic: com.example.app",
        "apns-collapse-id: score",
        "apns-push-type: alert",
        "apns-priority: 5",
        "apns-expiration: 1700000300",
        "content-type: application/json",
        "authorization*: bearer PASS",
    ];
    assert_eq!(head(&request.expect("a request")), expected);
}

#[test]
fn expiry_is_a_point_in_time_now_or_never_or_apples_to_choose() {
    let value = |json: &str| {
        let request = asked(json, &device()).expect("a request");
        request.value("apns-expiration").map(str::to_string)
    };
    assert_eq!(value(r#"{"title":"a"}"#), None);
    assert_eq!(value(r#"{"title":"a","expires":0}"#), Some("0".into()));
    let late = asked(r#"{"title":"a","expires":1700000000}"#, &device());
    assert_eq!(late, Err(Unfit::Expired));
}

#[test]
fn every_push_type_has_its_topic_and_priority() {
    let activity = r#""live_activity":{"event":"update","content_state":{}}"#;
    let table = "
        | alert | com.example.app | 10 | 5 | 1 |
        | background | com.example.app | 5 | 5 | 5 |
        | voip | com.example.app.voip | 10 | 5 | 1 |
        | complication | com.example.app.complication | 10 | 5 | 1 |
        | fileprovider | com.example.app.pushkit.fileprovider | 10 | 5 | 1 |
        | location | com.example.app.location-query | 10 | 5 | 1 |
        | liveactivity | com.example.app.push-type.liveactivity | 10 | 5 | 5 |
        | pushtotalk | com.example.app.voip-ptt | 10 | 10 | 10 |
        | widgets | com.example.app.push-type.widgets | 10 | 5 | 1 |
        | controls | com.example.app.push-type.controls | 10 | 5 | 1 |
    ";
    for row in rows(table) {
        for (priority, expected) in ["high", "normal", "low"].iter().zip(&row[2..]) {
            let more = if row[0] == "liveactivity" {
                activity
            } else {
                r#""topic":null"#
            };
            let json = format!(
                r#"{{"data":{{"a":1}},"priority":"{priority}",
                     "apns":{{"push_type":"{}",{more}}}}}"#,
                row[0]
            );
            let request = asked(&json, &device()).expect("a request");
            assert_eq!(request.value("apns-push-type"), Some(row[0]));
            assert_eq!(request.value("apns-topic"), Some(row[1]));
            assert_eq!(request.value("apns-priority"), Some(*expected), "{json}");
        }
    }
    let talk = asked(
        r#"{"data":{"a":1},"apns":{"push_type":"pushtotalk"}}"#,
        &device(),
    );
    assert_eq!(talk.expect("a request").value("apns-expiration"), Some("0"));
    let mdm = r#"{"apns":{"push_type":"mdm","topic":"com.apple.mgmt.x","payload":{"mdm":"a"}}}"#;
    let mdm = asked(mdm, &device()).expect("a request");
    assert_eq!(mdm.value("apns-topic"), Some("com.apple.mgmt.x"));
}

#[test]
fn the_push_type_is_what_the_content_is() {
    let table = [
        (r#"{"title":"a"}"#, "alert"),
        (r#"{"badge":1}"#, "alert"),
        (r#"{"sound":"default"}"#, "alert"),
        (r#"{"apns":{"payload":{"aps":{"badge":1}}}}"#, "alert"),
        (r#"{"silent":true,"data":{"a":1}}"#, "background"),
        (r#"{"data":{"a":1}}"#, "background"),
        (
            r#"{"apns":{"live_activity":{"event":"end","content_state":{}}}}"#,
            "liveactivity",
        ),
    ];
    for (json, expected) in table {
        let request = asked(json, &device()).expect("a request");
        assert_eq!(request.value("apns-push-type"), Some(expected), "{json}");
    }
}

#[test]
fn what_apple_would_refuse_is_not_sent() {
    let table = [
        (
            r#"{"title":"a","apns":{"push_type":"loud"}}"#,
            "apns.push_type is none of Apple's",
        ),
        (
            r#"{"silent":true,"apns":{"priority":10}}"#,
            "apns.priority 10 does not go with push type background",
        ),
        (
            r#"{"title":"a","apns":{"priority":7}}"#,
            "apns.priority 7 does not go with push type alert",
        ),
        (
            r#"{"title":"a","apns":{"topic":"a\r\nb"}}"#,
            "apns.topic is not made of visible ASCII characters",
        ),
        (
            r#"{"apns":{"push_type":"mdm","payload":{"mdm":"a"}}}"#,
            "an mdm push needs apns.topic, the UID of its certificate",
        ),
    ];
    for (json, why) in table {
        let refused = Err(Unfit::Note(why.to_string()));
        assert_eq!(asked(json, &device()), refused, "{json}");
    }
    let dry = asked(r#"{"title":"a","dry_run":true}"#, &device());
    assert_eq!(dry, Err(Unfit::NoDryRun));
    let elsewhere = Address::fcm_token("a").expect("a token");
    assert_eq!(asked(r#"{"title":"a"}"#, &elsewhere), Err(Unfit::Address));
}

#[test]
fn payloads_have_the_limit_of_their_type() {
    let channel = Address::apns_channel("dHN0").expect("an id");
    let activity = r#""live_activity":{"event":"update","content_state":{}}"#;
    let table = [
        ("alert", device(), 4096, r#""topic":null"#),
        ("voip", device(), 5120, r#""topic":null"#),
        ("liveactivity", device(), 4096, activity),
        ("liveactivity", channel, 5120, activity),
    ];
    for (push_type, to, limit, more) in table {
        let sized = |fill: usize| {
            let fill = "a".repeat(fill);
            let apns = format!(r#"{{"push_type":"{push_type}",{more}}}"#);
            asked(
                &format!(r#"{{"data":{{"a":"{fill}"}},"apns":{apns}}}"#),
                &to,
            )
        };
        let rest = limit - sized(0).expect("a request").body.len();
        assert_eq!(sized(rest).expect("a request").body.len(), limit);
        let bytes = limit + 1;
        assert_eq!(sized(rest + 1), Err(Unfit::TooLarge { bytes, limit }));
    }
}

#[test]
fn a_channel_is_sent_updates_of_activities() {
    let channel = Address::apns_channel("dHN0LXNyY2gtY2hubA==").expect("an id");
    let update = r#"{"apns":{"live_activity":{"event":"update","content_state":{"a":1}}}}"#;
    let expected = [
        "POST https://api.push.apple.com/4/broadcasts/apps/com.example.app",
        "apns-channel-id: dHN0LXNyY2gtY2hubA==",
        &format!("apns-request-id: {ID}"),
        "apns-push-type: liveactivity",
        "apns-priority: 10",
        "apns-expiration: 0",
        "content-type: application/json",
        "authorization*: bearer PASS",
    ];
    assert_eq!(head(&asked(update, &channel).expect("a request")), expected);
    for (expires, stored) in [(1_700_000_300, "1700000300"), (1_800_000_000, "1700028800")] {
        let json = update.replacen('{', &format!(r#"{{"expires":{expires},"#), 1);
        let request = asked(&json, &channel).expect("a request");
        assert_eq!(request.value("apns-expiration"), Some(stored));
    }
    let start = r#"{"title":"a","apns":{"live_activity":{"event":"start","content_state":{},
        "attributes_type":"A","attributes":{}}}}"#;
    for json in [start, r#"{"title":"a"}"#] {
        let why = "a channel carries updates and ends of Live Activities";
        assert_eq!(asked(json, &channel), Err(Unfit::Note(why.to_string())));
    }
}

#[test]
fn a_certificate_needs_no_pass_and_a_token_does() {
    let ask = |auth, pass: Option<&Pass>, json: &str| {
        let mut dice = Dice::new([1; 16]);
        apns(auth).request(&note(json), &device(), pass, now(), &mut dice)
    };
    let note = r#"{"title":"a"}"#;
    let by_certificate = ask(ApnsAuth::Certificate, None, note).expect("a request");
    assert_eq!(by_certificate.value("authorization"), None);
    assert_eq!(by_certificate.value("apns-topic"), Some("com.example.app"));
    let pass = pass();
    assert_eq!(ask(ApnsAuth::Token, None, note), Err(Unfit::Pass));
    assert_eq!(
        ask(ApnsAuth::Certificate, Some(&pass), note),
        Err(Unfit::Pass)
    );
    let location = r#"{"data":{"a":1},"apns":{"push_type":"location"}}"#;
    assert!(ask(ApnsAuth::Token, Some(&pass), location).is_ok());
    assert!(ask(ApnsAuth::Certificate, None, location).is_err());
}

#[test]
fn a_pass_is_good_for_an_hour_and_renewed_before() {
    let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let pem = made.serialize_pem();
    let key = ApnsKey::new(pem.as_bytes(), "ABC123DEFG", "DEF123GHIJ").expect("a key");
    let pass = key.pass(now()).expect("a pass");
    let jwt = pass.authorization.strip_prefix("bearer ").expect("bearer");
    let parts: Vec<Vec<u8>> = jwt
        .split('.')
        .map(|part| crate::push::providers::address::bytes_of(part).expect("base64url"))
        .collect();
    assert_eq!(parts[0], br#"{"alg":"ES256","kid":"ABC123DEFG"}"#);
    let claims: serde_json::Value = serde_json::from_slice(&parts[1]).expect("JSON");
    assert_eq!(claims, json!({"iss": "DEF123GHIJ", "iat": NOW - 5}));
    assert_eq!(parts[2].len(), 64);
    assert_eq!(pass.ends_at, NOW - 5 + 3600);
    let minutes = (pass.renew_at - NOW) / 60;
    assert!((45..=50).contains(&minutes), "{minutes}");
    assert!(ApnsKey::new(pem.as_bytes(), "ABC", "DEF123GHIJ").is_err());
    assert!(ApnsKey::new(b"", "ABC123DEFG", "DEF123GHIJ").is_err());
}

#[test]
fn what_is_made_of_a_draft_is_what_is_asked_for_one_device() {
    let apns = apns(ApnsAuth::Token);
    let other = Address::apns("ab").expect("a token");
    for json in [
        r#"{"title":"a","priority":"normal","expires":1700000300,"collapse":"score"}"#,
        r#"{"silent":true,"data":{"a":1}}"#,
        r#"{"title":"a","apns":{"push_type":"voip"}}"#,
        r#"{"title":"a","apns":{"topic":"com.example.other"},"expires":0}"#,
        r#"{"apns":{"live_activity":{"event":"update","content_state":{"n":1}}}}"#,
    ] {
        for to in [&device(), &other] {
            let drafting = apns.drafting(to).expect("it is a device");
            let draft = drafting.draft(&note(json), Some(&pass()), now());
            let Draft { fields, body } = draft.expect("a draft");
            let mut made = drafting.own(ID, to).expect("a device's own");
            made.fields.extend(fields);
            made.body = body;
            let mut alone = asked(json, to).expect("a request");
            for request in [&mut made, &mut alone] {
                request.fields.sort_by_key(|field| field.name);
            }
            assert!(made == alone, "{json}");
        }
    }
}

#[test]
fn what_is_refused_for_one_device_is_refused_as_a_draft() {
    let apns = apns(ApnsAuth::Token);
    let long = format!(r#"{{"title":"{}"}}"#, "x".repeat(4000));
    let large = format!(r#"{{"title":"{0}","body":"{0}"}}"#, "x".repeat(2040));
    for json in [
        r#"{"title":"a","expires":1700000000}"#,
        r#"{"title":"a","dry_run":true}"#,
        r#"{"title":"a","apns":{"push_type":"post"}}"#,
        r#"{"title":"a","apns":{"push_type":"mdm"}}"#,
        r#"{"title":"a","data":{"aps":1}}"#,
        &large,
    ] {
        let drafted = apns.draft(&note(json), Some(&pass()), now()).err();
        assert_eq!(drafted, asked(json, &device()).err(), "{json}");
        assert!(drafted.is_some(), "{json}");
    }
    assert!(apns.draft(&note(&long), Some(&pass()), now()).is_ok());
    let none = apns.draft(&note(r#"{"title":"a"}"#), None, now());
    assert_eq!(none.err(), Some(Unfit::Pass));
    let channel = Address::apns_channel("ab==").expect("a channel");
    assert!(apns.drafting(&channel).is_none());
    assert_eq!(apns.own(ID, &channel).err(), Some(Unfit::Address));
}

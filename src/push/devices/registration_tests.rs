//! What a client may say of its device, and what it hears when it may not.

use super::*;

const TOKEN: &str = "c0ffee00c0ffee00c0ffee00c0ffee00";
const POINT: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

fn now() -> Now {
    Now {
        unix_ms: 1_800_000_000_000,
        ..Now::default()
    }
}

fn read(json: &str) -> Checked<Registration> {
    Registration::read(json, &DeviceBounds::default(), now())
}

/// An iOS device with these further fields.
fn with(fields: &str) -> Checked<Registration> {
    read(&format!(
        r#"{{"device_id":"d-1","platform":"ios","token":"{TOKEN}"{fields}}}"#
    ))
}

fn profile(registration: Registration) -> Profile {
    let mut profile = Profile::default();
    registration.change.apply(&mut profile);
    profile
}

#[test]
fn a_registration_says_all_that_is_kept() {
    let read = with(
        r#","user_id":"u","topics":["b","a","b"],"token_expires_at":1800000060,
           "location":{"latitude":52.5,"longitude":13.4},"metadata":{"model":"X"},
           "locale":"de_AT","time_zone":"Europe/Vienna""#,
    )
    .expect("a registration");
    assert_eq!(
        (read.device_id.as_str(), read.platform),
        ("d-1", Platform::Ios)
    );
    assert_eq!(
        (read.token.service(), read.token.expose()),
        (Service::Apns, TOKEN)
    );
    assert!(!format!("{read:?}").contains(TOKEN));
    let expected = Profile {
        user_id: Some("u".into()),
        topics: BTreeSet::from(["a".into(), "b".into()]),
        token_expires_ms: Some(1_800_000_060_000),
        location: Point::new(52.5, 13.4).ok(),
        metadata: Some(r#"{"model":"X"}"#.into()),
        locale: Some("de-AT".into()),
        time_zone: Some("Europe/Vienna".into()),
    };
    assert_eq!(profile(read), expected);
}

#[test]
fn little_has_to_be_said_and_what_is_left_out_stays() {
    let mut known = profile(with(r#","user_id":"u","topics":["a"],"locale":"de""#).expect("all"));
    let before = known.clone();
    let again = with("").expect("the least");
    assert_eq!(again.change, Change::default());
    again.change.apply(&mut known);
    assert_eq!(known, before);
    let less = with(r#","user_id":null,"topics":null,"locale":"fr""#).expect("less");
    less.change.apply(&mut known);
    let french = Some("fr".to_string());
    assert_eq!(
        known,
        Profile {
            locale: french,
            ..Profile::default()
        }
    );
}

#[test]
fn a_platform_has_a_usual_service_and_may_have_others() {
    let service = |platform: &str, service: &str, token: &str| {
        let json = format!(
            r#"{{"device_id":"d","platform":"{platform}","service":"{service}","token":"{token}"}}"#
        );
        read(&json)
            .map(|read| read.token.service())
            .map_err(|fault| fault.field)
    };
    assert_eq!(
        service("ios", "apns-sandbox", TOKEN),
        Ok(Service::ApnsSandbox)
    );
    assert_eq!(service("ios", "fcm", "c:x"), Ok(Service::Fcm));
    assert_eq!(service("web", "fcm-fid", "cid"), Ok(Service::FcmFid));
    assert_eq!(service("android", "apns", TOKEN), Err("service"));
    assert_eq!(service("android", "gcm", "c:x"), Err("service"));
    let android = read(r#"{"device_id":"d","platform":"android","token":"c:x"}"#);
    assert_eq!(android.expect("a phone").token.service(), Service::Fcm);
}

#[test]
fn a_subscription_is_taken_as_browsers_give_it() {
    let web = |expiry: &str| {
        format!(
            r#"{{"endpoint":"https://push.example/abc","expirationTime":{expiry},"keys":{{"p256dh":"{POINT}","auth":"{AUTH}"}}}}"#
        )
    };
    let device = |token: &str, rest: &str| {
        read(&format!(
            r#"{{"device_id":"d","platform":"web","token":{token}{rest}}}"#
        ))
    };
    let text = serde_json::Value::from(web("1800000000001.5")).to_string();
    for token in [web("1800000000001.5"), text] {
        let read = device(&token, "").expect("a browser");
        assert_eq!(read.token.identity(), "https://push.example/abc");
        assert_eq!(profile(read).token_expires_ms, Some(1_800_000_000_001));
    }
    let never = device(&web("null"), "").expect("a browser");
    assert_eq!(profile(never).token_expires_ms, None);
    let said = device(&web("1800000000001"), r#","token_expires_at":1800000009"#);
    let said = profile(said.expect("a browser"));
    assert_eq!(said.token_expires_ms, Some(1_800_000_009_000));
    let news = format!(r#"{{"token":{}}}"#, web("1800000000001"));
    let news = Update::read(&news, Service::WebPush, &DeviceBounds::default(), now());
    let news = news.expect("an update").change.token_expires_ms;
    assert_eq!(news, Some(Some(1_800_000_000_001)));
    for expiry in ["1", "\"x\"", "1e30"] {
        let why = device(&web(expiry), "").map(|_| ()).expect_err(expiry);
        assert_eq!(why.field, "expirationTime", "{expiry}");
    }
}

#[test]
fn what_is_wrong_is_told_by_field() {
    let topics = |count: usize| format!(r#","topics":[{}]"#, vec!["\"a\""; count].join(","));
    let table = [
        (r#","user_id":"a b""#.to_string(), "user_id"),
        (r#","user_id":7"#.into(), "user_id"),
        (r#","user_id":"""#.into(), "user_id"),
        (r#","topics":"a""#.into(), "topics"),
        (r#","topics":["a b"]"#.into(), "topics"),
        (r#","topics":[7]"#.into(), "topics"),
        (format!(r#","topics":["{}"]"#, "x".repeat(165)), "topics"),
        (topics(1001), "topics"),
        (r#","token_expires_at":1"#.into(), "token_expires_at"),
        (r#","token_expires_at":-1"#.into(), "token_expires_at"),
        (
            r#","token_expires_at":1800000000.5"#.into(),
            "token_expires_at",
        ),
        (
            r#","token_expires_at":1800000060000"#.into(),
            "token_expires_at",
        ),
        (
            r#","token_expires_at":18446744073709551615"#.into(),
            "token_expires_at",
        ),
        (
            r#","location":{"latitude":91,"longitude":0}"#.into(),
            "location",
        ),
        (r#","location":{"latitude":1}"#.into(), "location"),
        (r#","location":[1,2]"#.into(), "location"),
        (
            r#","location":{"latitude":1e999,"longitude":0}"#.into(),
            "location",
        ),
        (r#","metadata":[1]"#.into(), "metadata"),
        (r#","metadata":"x""#.into(), "metadata"),
        (
            format!(r#","metadata":{{"a":"{}"}}"#, "x".repeat(4096)),
            "metadata",
        ),
        (r#","locale":"d""#.into(), "locale"),
        (r#","locale":"de-""#.into(), "locale"),
        (r#","locale":"../../etc""#.into(), "locale"),
        (r#","time_zone":"../../etc/passwd""#.into(), "time_zone"),
        (r#","time_zone":"""#.into(), "time_zone"),
    ];
    for (fields, field) in table {
        let why = with(&fields).map(|_| ()).expect_err(&fields);
        assert_eq!(why.field, field, "{fields}: {}", why.text());
        assert!(why.text().starts_with(field), "{}", why.text());
    }
    assert!(with(&topics(1000)).is_ok(), "the same one twice is one");
}

#[test]
fn what_is_no_registration_is_refused_without_repeating_it() {
    let whole = [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ("\"tiger\"", "no JSON object"),
        (r#"{"usr_id":"tiger"}"#, "usr_id is no field"),
        (
            r#"{"platform":"ios","platform":"ios"}"#,
            "platform is no field of a device, or is there twice",
        ),
        (
            r#"{"the-tiger-in-the-wrong-place-and-very-long":1}"#,
            "no JSON object",
        ),
    ];
    for (json, words) in whole {
        let why = read(json).map(|_| ()).expect_err(json).text();
        assert!(why.contains(words) && !why.contains("tiger"), "{why}");
    }
}

#[test]
fn what_is_needed_is_asked_for_by_name() {
    let needed = [
        ("{}", "device_id"),
        (r#"{"device_id":null}"#, "device_id"),
        (r#"{"device_id":"a/b"}"#, "device_id"),
        (r#"{"device_id":"d"}"#, "platform"),
        (r#"{"device_id":"d","platform":"macos"}"#, "platform"),
        (r#"{"device_id":"d","platform":"ios"}"#, "token"),
        (
            r#"{"device_id":"d","platform":"ios","token":{"endpoint":"tiger"}}"#,
            "token",
        ),
        (
            r#"{"device_id":"d","platform":"ios","token":"tiger"}"#,
            "token",
        ),
        (
            r#"{"device_id":"d","platform":"web","token":"tiger"}"#,
            "token",
        ),
    ];
    for (json, field) in needed {
        let why = read(json).map(|_| ()).expect_err(json);
        assert_eq!(why.field, field, "{json}");
        assert!(!why.text().contains("tiger"), "{}", why.text());
    }
}

#[test]
fn a_copy_of_the_token_is_found_wherever_it_would_be_kept_in_clear() {
    let device = |id: &str, rest: &str| {
        read(&format!(
            r#"{{"device_id":"{id}","platform":"ios","token":"{TOKEN}"{rest}}}"#
        ))
    };
    let upper = TOKEN.to_ascii_uppercase();
    let table = [
        (TOKEN.to_string(), String::new(), "device_id"),
        (format!("ios-{upper}"), String::new(), "device_id"),
        ("d".into(), format!(r#","user_id":"{TOKEN}""#), "user_id"),
        (
            "d".into(),
            format!(r#","topics":["a","t-{TOKEN}"]"#),
            "topics",
        ),
        (
            "d".into(),
            format!(r#","metadata":{{"a":["{upper}"]}}"#),
            "metadata",
        ),
        (
            "d".into(),
            format!(r#","metadata":{{"a":"\u0063{}"}}"#, &TOKEN[1..]),
            "metadata",
        ),
    ];
    for (id, rest, field) in table {
        let why = device(&id, &rest).map(|_| ()).expect_err(&rest);
        assert_eq!(why.field, field);
        assert!(!why.text().to_ascii_lowercase().contains(TOKEN));
    }
    let short = read(r#"{"device_id":"cabin","platform":"ios","token":"ab"}"#);
    assert!(short.is_ok(), "a short one is found in many a word");
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    let update = |json: &str| Update::read(json, Service::Apns, &DeviceBounds::default(), now());
    let read = update(&format!(r#"{{"token":"{TOKEN}","topics":["x"]}}"#)).expect("an update");
    assert_eq!(read.token.expect("a token").expose(), TOKEN);
    let mut profile = Profile {
        user_id: Some("u".into()),
        ..Profile::default()
    };
    read.change.apply(&mut profile);
    assert_eq!(
        (profile.user_id.as_deref(), profile.topics.len()),
        (Some("u"), 1)
    );
    let gone = update(r#"{"user_id":null}"#).expect("an update");
    assert!(gone.token.is_none());
    gone.change.apply(&mut profile);
    assert_eq!(profile.user_id, None);
    for field in ["device_id", "platform", "service"] {
        let why = update(&format!(r#"{{"{field}":"ios"}}"#))
            .map(|_| ())
            .expect_err(field);
        assert_eq!(why.field, field);
    }
    let copied = update(&format!(r#"{{"token":"{TOKEN}","user_id":"{TOKEN}"}}"#));
    assert_eq!(copied.map(|_| ()).expect_err("a copy").field, "user_id");
    assert_eq!(
        update(r#"{"token":null}"#)
            .map(|_| ())
            .expect_err("none")
            .field,
        "token"
    );
}

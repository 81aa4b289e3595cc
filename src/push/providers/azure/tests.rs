//! Requests to a hub: one device, many, and each platform's format.

use super::*;
use crate::push::providers::kit::{ID, body, head, note, now, pass};

const POINT: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

fn hub() -> Hub {
    Hub {
        origin: "https://ns.servicebus.windows.net".to_string(),
        name: "hub".to_string(),
        bundle: Some("com.example.app".to_string()),
    }
}

fn apple(token: &str) -> Address {
    Address::apns(token).expect("a token")
}

fn android(token: &str) -> Address {
    Address::fcm_token(token).expect("a token")
}

fn browser() -> Address {
    Address::web_push("https://push.example/s/1?a=b", POINT, AUTH).expect("a subscription")
}

fn one(hub: &Hub, json: &str, to: &Address) -> Result<Request, Unfit> {
    let mut dice = Dice::new([1; 16]);
    Provider::request(hub, &note(json), to, Some(&pass()), now(), &mut dice)
}

fn many(json: &str, to: &[Address]) -> Result<Request, Unfit> {
    let mut dice = Dice::new([1; 16]);
    let to: Vec<&Address> = to.iter().collect();
    Batch::request(&hub(), &note(json), &to, Some(&pass()), now(), &mut dice)
}

const DIRECT: &str =
    "POST https://ns.servicebus.windows.net/hub/messages/?api-version=2020-06&direct=true";
const FULL: &str = r#"{"title":"t","data":{"a":1},"priority":"normal","expires":1700000300,
    "collapse":"score"}"#;

#[test]
fn an_iphone_gets_apples_fields_and_payload() {
    let request = one(&hub(), FULL, &apple("00FC")).expect("a request");
    let expected = [
        DIRECT,
        "authorization*: bearer PASS",
        "servicebusnotification-format: apple",
        "apns-topic: com.example.app",
        "apns-collapse-id: score",
        "apns-push-type: alert",
        "apns-priority: 5",
        "apns-expiration: 1700000300",
        "servicebusnotification-devicehandle*: 00fc",
        "content-type: application/json;charset=utf-8",
    ];
    assert_eq!(head(&request), expected);
    let payload = json!({"aps": {"alert": {"title": "t"}}, "a": 1});
    assert_eq!(body(&request), payload);
}

#[test]
fn without_a_bundle_the_hub_chooses_the_topic_unless_the_note_does() {
    let hub = Hub {
        bundle: None,
        ..hub()
    };
    let table = [
        (r#"{"title":"t"}"#, None),
        (
            r#"{"title":"t","apns":{"topic":"a.b.voip"}}"#,
            Some("a.b.voip"),
        ),
    ];
    for (json, topic) in table {
        let request = one(&hub, json, &apple("00")).expect("a request");
        assert_eq!(request.value("apns-topic"), topic);
    }
}

#[test]
fn an_android_gets_a_message_of_fcm_without_a_target() {
    let request = one(&hub(), FULL, &android("c:APA91")).expect("a request");
    let expected = [
        DIRECT,
        "authorization*: bearer PASS",
        "servicebusnotification-format: fcmv1",
        "servicebusnotification-devicehandle*: c:APA91",
        "content-type: application/json;charset=utf-8",
    ];
    assert_eq!(head(&request), expected);
    let message = &body(&request)["message"];
    assert_eq!(message["notification"], json!({"title": "t"}));
    assert_eq!(message["android"]["ttl"], "300s");
    assert_eq!(message["android"]["collapse_key"], "score");
    assert_eq!(message["android"]["priority"], "NORMAL");
    assert_eq!(message.get("token"), None);
}

#[test]
fn a_browser_gets_its_keys_told_and_a_text_that_the_hub_encrypts() {
    let request = one(&hub(), FULL, &browser()).expect("a request");
    let expected = [
        DIRECT,
        "authorization*: bearer PASS",
        "servicebusnotification-format: browser",
        "servicebusnotification-devicehandle*: https://push.example/s/1?a=b",
        &format!("auth*: {AUTH}"),
        &format!("p256dh*: {POINT}"),
        "content-type: application/json;charset=utf-8",
    ];
    assert_eq!(head(&request), expected);
    assert_eq!(body(&request)["notification"]["title"], "t");
    assert!(!request.public_only, "who is connected to is the hub");
}

#[test]
fn a_batch_has_the_payload_once_and_every_handle() {
    let request = many(r#"{"title":"t"}"#, &[apple("00"), apple("01")]).expect("a request");
    let media_type = request.value("content-type").expect("a media type");
    let boundary = media_type
        .strip_prefix("multipart/mixed; boundary=\"")
        .and_then(|rest| rest.strip_suffix('"'));
    let boundary = boundary.expect(media_type);
    let expected = [
        "POST https://ns.servicebus.windows.net/hub/messages/$batch?api-version=2020-06&direct=true",
        "authorization*: bearer PASS",
        "servicebusnotification-format: apple",
        "apns-topic: com.example.app",
        "apns-push-type: alert",
        "apns-priority: 10",
        &format!("content-type: {media_type}"),
    ];
    assert_eq!(head(&request), expected);
    let body = String::from_utf8(request.body.clone()).expect("text");
    let expected = [
        &format!("--{boundary}"),
        "content-type: application/json;charset=utf-8",
        "content-disposition: inline; name=notification",
        "",
        r#"{"aps":{"alert":{"title":"t"}}}"#,
        &format!("--{boundary}"),
        "content-type: application/json",
        "content-disposition: inline; name=devices",
        "",
        r#"["00","01"]"#,
        &format!("--{boundary}--"),
        "",
    ];
    assert_eq!(body.split("\r\n").collect::<Vec<_>>(), expected);
}

#[test]
fn a_batch_is_of_one_platform_and_has_a_limit() {
    let hub = hub();
    let batch = hub.batch().expect("a hub takes batches");
    assert_eq!(batch.limit(), 1000);
    let (a, b, c) = (apple("00"), android("x"), browser());
    assert!(batch.go_together(&a, &apple("01")) && batch.go_together(&b, &android("y")));
    assert!(!batch.go_together(&a, &b) && !batch.go_together(&c, &c));
    let title = r#"{"title":"t"}"#;
    assert_eq!(many(title, &[]), Err(Unfit::Address));
    assert_eq!(many(title, &[a.clone(), b]), Err(Unfit::Address));
    assert_eq!(many(title, &[c]), Err(Unfit::Address));
    assert!(many(title, &vec![a.clone(); 1000]).is_ok());
    assert_eq!(many(title, &vec![a; 1001]), Err(Unfit::Address));
}

#[test]
fn what_a_hub_cannot_do_is_not_sent() {
    let title = r#"{"title":"t"}"#;
    for to in [
        Address::fcm_fid("abc").expect("a fid"),
        Address::fcm_topic("news").expect("a topic"),
        Address::apns_channel("dHN0").expect("a channel"),
    ] {
        assert_eq!(one(&hub(), title, &to), Err(Unfit::Address));
    }
    for to in [apple("00"), android("x"), browser()] {
        let dry = r#"{"title":"t","dry_run":true}"#;
        assert_eq!(one(&hub(), dry, &to), Err(Unfit::NoDryRun));
        let late = r#"{"title":"t","expires":1700000000}"#;
        assert_eq!(one(&hub(), late, &to), Err(Unfit::Expired));
        let heavy = format!(r#"{{"data":{{"k":"{}"}}}}"#, "a".repeat(4200));
        let unfit = one(&hub(), &heavy, &to);
        assert!(matches!(unfit, Err(Unfit::TooLarge { .. })), "{unfit:?}");
        let mut dice = Dice::new([1; 16]);
        let without = Provider::request(&hub(), &note(title), &to, None, now(), &mut dice);
        assert_eq!(without, Err(Unfit::Pass));
    }
    assert!(!Hub::is_name("a/b") && !Hub::is_name("") && Hub::is_name("my-hub.1"));
}

#[test]
fn nothing_of_a_handle_is_shown() {
    let request = many(r#"{"title":"t"}"#, &[android("tiger")]).expect("a request");
    assert!(!format!("{request:?} {ID}").contains("tiger"));
    let request = one(&hub(), r#"{"title":"t"}"#, &android("tiger")).expect("a request");
    assert!(!format!("{request:?}").contains("tiger"));
}

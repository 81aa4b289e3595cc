//! What FCM grants, takes and refuses.

use super::*;
use crate::mock::Mock;
use crate::mock::kit::{NOW, asked, at, caller, json_of, mock, reply};
use crate::wire::jwt::JwtKey;

const SEND: &str = "/v1/projects/p/messages:send";

fn open(rules: &[&str]) -> Mock {
    let options = FcmOptions {
        any_access_token: true,
        ..FcmOptions::default()
    };
    mock(Fcm::new(options), rules)
}

/// The answer to a message: its status, FcmError's code, and the field that is at fault.
fn answer(mock: &mut Mock, message: &Value) -> (u16, String, String) {
    let fields = [("authorization", "Bearer x")];
    let body = json!({ "message": message }).to_string();
    let reply = reply(mock, &asked("POST", SEND, &fields, &body));
    let error = json_of(&reply)["error"].clone();
    let text = |pointer: &str| {
        let value = error.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default().to_string()
    };
    let field = text("/details/1/fieldViolations/0/field");
    (reply.status, text("/details/0/errorCode"), field)
}

#[test]
fn messages_are_taken() {
    let mut mock = open(&[]);
    for good in [
        json!({"token": "a:b-c", "notification": {"title": "t"}}),
        json!({"fid": "abc", "data": {"a": "1"}}),
        json!({"topic": "news", "fcm_options": {"analytics_label": "l"}}),
        json!({"condition": "'a' in topics"}),
        json!({"token": "a", "android": {"priority": "HIGH", "ttl": "3600s"}}),
        json!({"token": "a", "data": {"a": "x".repeat(4095)}}),
    ] {
        assert_eq!(answer(&mut mock, &good).0, 200, "{good}");
    }
    let fields = [("authorization", "Bearer x")];
    let dry = r#"{"validate_only":true,"message":{"token":"a"}}"#;
    let dry = reply(&mut mock, &asked("POST", SEND, &fields, dry));
    assert_eq!(json_of(&dry)["name"], "projects/p/messages/fake_message_id");
    let elsewhere = reply(
        &mut mock,
        &asked("POST", "/v1/projects//messages:send", &fields, ""),
    );
    assert_eq!(elsewhere.status, 404);
}

#[test]
fn the_fault_of_a_message_is_named() {
    let mut mock = open(&[]);
    for (message, field) in [
        (json!({}), "message"),
        (json!({"token": "a", "topic": "b"}), "message"),
        (json!({"token": 7}), "message.token"),
        (json!({"token": "not a token"}), "message.token"),
        (json!({"topic": "/topics/x"}), "message.topic"),
        (json!({"token": "a", "dta": {}}), "message.dta"),
        (json!({"token": "a", "data": {"n": 1}}), "message.data.n"),
        (
            json!({"token": "a", "data": {"from": "x"}}),
            "message.data.from",
        ),
        (json!({"token": "a", "data": []}), "message.data"),
        (
            json!({"token": "a", "notification": {"titel": "t"}}),
            "message.notification.titel",
        ),
        (
            json!({"token": "a", "android": {"priority": 5}}),
            "message.android.priority",
        ),
        (
            json!({"token": "a", "android": {"ttl": "1h"}}),
            "message.android.ttl",
        ),
        (
            json!({"token": "a", "apns": {"headers": {"apns-priority": 5}}}),
            "message.apns.headers.apns-priority",
        ),
        (
            json!({"token": "a", "data": {"a": "x".repeat(4096)}}),
            "message",
        ),
        (
            json!({"topic": "a", "data": {"a": "x".repeat(2048)}}),
            "message",
        ),
    ] {
        let expected = (400, "INVALID_ARGUMENT".to_string(), field.to_string());
        assert_eq!(answer(&mut mock, &message), expected, "{message}");
    }
}

struct Account(JwtKey, PublicKey);

fn account() -> Account {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    let pem = pem.serialize_pem();
    let public = PublicKey::from_pem(pem.as_bytes(), true).expect("a key");
    Account(JwtKey::rs256_pem(pem.as_bytes()).expect("a key"), public)
}

impl Account {
    fn assertion(&self, change: impl Fn(&mut Value)) -> Asked {
        let mut claims = json!({
            "iss": "a@p", "scope": SCOPES[0], "aud": "https://mock.example/token",
            "iat": NOW, "exp": NOW + 3600,
        });
        change(&mut claims);
        let token = self.0.sign(&json!({"alg": self.0.algorithm()}), &claims);
        let token = token.expect("a token");
        let body = format!("grant_type={GRANT}&assertion={token}");
        asked("POST", "/token", &[], &body)
    }
}

#[test]
fn access_is_granted_for_an_assertion_and_ends() {
    let account = account();
    let options = FcmOptions {
        key: Some(account.1.clone()),
        email: Some("a@p".to_string()),
        project: Some("p".to_string()),
        any_access_token: false,
    };
    let mut mock = mock(Fcm::new(options), &[]);
    let granted = reply(&mut mock, &account.assertion(|_| {}));
    assert_eq!(
        (granted.status, &json_of(&granted)["expires_in"]),
        (200, &json!(3599))
    );
    let bearer = format!(
        "Bearer {}",
        json_of(&granted)["access_token"].as_str().expect("one")
    );
    let mut push = |path: &str, token: &str, seconds| {
        let body = r#"{"message":{"token":"a"}}"#;
        let push = asked("POST", path, &[("authorization", token)], body);
        match mock.hear(caller(1), &push, at(seconds)).act {
            crate::mock::Act::Answer(reply, None) => (reply.status, reply.reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(push(SEND, &bearer, 3598).0, 200);
    let unauthenticated = (401, "unauthenticated".to_string());
    assert_eq!(push(SEND, &bearer, 3600), unauthenticated);
    assert_eq!(push(SEND, "Bearer other", 0), unauthenticated);
    assert_eq!(
        push("/v1/projects/q/messages:send", &bearer, 0),
        (404, "not-found".to_string())
    );
}

#[test]
fn an_assertion_that_is_wrong_gets_no_access() {
    let (ours, theirs) = (account(), account());
    let options = FcmOptions {
        key: Some(ours.1.clone()),
        email: Some("a@p".to_string()),
        ..FcmOptions::default()
    };
    let mut mock = mock(Fcm::new(options), &[]);
    let mut refused = |asked: Asked, words: &str| {
        let reply = reply(&mut mock, &asked);
        let why = json_of(&reply)["error_description"].to_string();
        assert!(reply.status == 400 && why.contains(words), "{why}");
    };
    refused(theirs.assertion(|_| {}), "Invalid JWT Signature");
    refused(
        ours.assertion(|claims| claims["iss"] = json!("b@p")),
        "account not found",
    );
    refused(
        ours.assertion(|claims| claims["scope"] = json!("x")),
        "no scope",
    );
    refused(
        ours.assertion(|claims| claims["aud"] = json!("https://x/token")),
        "aud",
    );
    refused(
        ours.assertion(|claims| claims["exp"] = json!(NOW + 3601)),
        "short-lived",
    );
    refused(
        ours.assertion(|claims| claims["iat"] = json!(NOW + 100)),
        "short-lived",
    );
    refused(
        ours.assertion(|claims| claims["exp"] = Value::Null),
        "no exp",
    );
    refused(asked("POST", "/token", &[], "assertion=x"), "grant_type");
    refused(
        asked(
            "POST",
            "/token",
            &[],
            &format!("grant_type={GRANT}&assertion=x"),
        ),
        "no JWT",
    );
}

#[test]
fn devices_subscribe_to_topics_in_both_ways() {
    let mut mock = open(&[]);
    let mut call = |method, path: &str, body: &str| {
        let fields = [("authorization", "Bearer x"), ("access_token_auth", "true")];
        reply(&mut mock, &asked(method, path, &fields, body))
    };
    let device = "/v1/projects/p/registrations/a%3Ab/topicSubscriptions";
    assert_eq!(
        call("POST", &format!("{device}?topic_name=news"), "{}").status,
        200
    );
    assert_eq!(
        call("DELETE", &format!("{device}/news?allow_missing=true"), "").status,
        200
    );
    assert_eq!(
        call("POST", &format!("{device}?topic_name=a b"), "{}").status,
        400
    );
    assert_eq!(call("POST", device, "{}").status, 404);
    let many = call(
        "POST",
        "/iid/v1:batchAdd",
        r#"{"to":"/topics/news","registration_tokens":["a","b c"]}"#,
    );
    assert_eq!(
        json_of(&many),
        json!({"results": [{}, {"error": "INVALID_ARGUMENT"}]})
    );
    let none = r#"{"to":"/topics/news","registration_tokens":[]}"#;
    assert_eq!(call("POST", "/iid/v1:batchRemove", none).status, 400);
}

#[test]
fn every_code_can_be_scripted() {
    for (word, status) in WORDS {
        let mut mock = open(&[&format!("answer={word}")]);
        let (said, code, _) = answer(&mut mock, &json!({"token": "a"}));
        assert_eq!(said, *status, "{word}");
        let expected = match *word {
            "invalid-token" => "INVALID_ARGUMENT",
            "device-quota" | "topic-quota" => "QUOTA_EXCEEDED",
            // What does not come from FCM itself has no code of FCM's.
            word if word.starts_with(|first: char| first.is_ascii_lowercase()) => "",
            word => word,
        };
        assert_eq!(code, expected, "{word}");
    }
}

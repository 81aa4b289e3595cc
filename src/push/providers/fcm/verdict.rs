//! What each answer of FCM means (Firebase, "FCM error codes" and "Best practices when sending FCM
//! messages at scale"). The `errorCode` of an FcmError decides; without one the answer did not come
//! from FCM itself but from what stands before it, and speaks of the project or the pass.

use std::time::Duration;

use serde_json::Value;

use crate::base::now::Now;
use crate::push::providers::provider::{Answer, shown_id};
use crate::push::providers::verdict::{Remedy, Ruling, Scope, Verdict, word_of};

pub(super) const QUOTA_WAIT: Duration = Duration::from_secs(60);

pub(super) fn ruling(answer: &Answer<'_>, now: Now) -> Ruling {
    let json = answer.json();
    if answer.status == 200 {
        let name = json["name"].as_str().unwrap_or_default();
        let id = name.rsplit('/').next().and_then(shown_id);
        return Ruling::new(Verdict::Accepted { id }, "HTTP 200");
    }
    let error = &json["error"];
    let own = detail(error, "google.firebase.fcm.v1.FcmError").next();
    let own = own.and_then(|it| it["errorCode"].as_str());
    let word = own.or(error["status"].as_str()).unwrap_or_default();
    let (verdict, remedy) = match own {
        Some(code) => by_code(code, error, answer, now),
        None => by_status(error, answer, now),
    };
    Ruling::new(verdict, word_of(word, answer.status)).with(remedy)
}

fn detail<'a>(error: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let details = error["details"].as_array().into_iter().flatten();
    details.filter(move |it| it["@type"].as_str().is_some_and(|own| own.ends_with(kind)))
}

const DEAD: Verdict = Verdict::TokenDead {
    since_unix_ms: None,
};

fn by_code(code: &str, error: &Value, answer: &Answer<'_>, now: Now) -> (Verdict, Remedy) {
    let verdict = match code {
        "INVALID_ARGUMENT" => argument(error),
        "UNREGISTERED" => DEAD,
        "SENDER_ID_MISMATCH" => Verdict::TokenSuspect,
        "THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR" => Verdict::AuthBroken { scope: Scope::Leg },
        "QUOTA_EXCEEDED" => answer.throttled(now, QUOTA_WAIT, quota_scope(error)),
        "INTERNAL" | "UNAVAILABLE" => answer.passing(now),
        _ => return by_status(error, answer, now),
    };
    (verdict, Remedy::Nothing)
}

fn by_status(error: &Value, answer: &Answer<'_>, now: Now) -> (Verdict, Remedy) {
    let verdict = match answer.status {
        400 => argument(error),
        401 => return (Verdict::NeverSent, Remedy::RenewPass),
        // The project's name is wrong, its API is off, a role is missing; or this is no FCM.
        300..=399 | 403 | 404 => Verdict::APP_BROKEN,
        429 => answer.throttled(now, QUOTA_WAIT, quota_scope(error)),
        500.. => answer.passing(now),
        _ => Verdict::BadRequest,
    };
    (verdict, Remedy::Nothing)
}

/// Either the payload is wrong, and then the token must not suffer, or the token is.
fn argument(error: &Value) -> Verdict {
    let message = error["message"].as_str().unwrap_or_default();
    let violations = detail(error, "google.rpc.BadRequest");
    let mut fields =
        violations.flat_map(|it| it["fieldViolations"].as_array().into_iter().flatten());
    let named =
        |field: &Value| field["field"] == "message.token" || field["field"] == "message.fid";
    let blames_token = message.contains("not a valid FCM registration token");
    match blames_token || fields.any(named) {
        true => DEAD,
        false => Verdict::BadRequest,
    }
}

/// Which quota it was; the project's, unless it says otherwise.
fn quota_scope(error: &Value) -> Scope {
    let failures = detail(error, "google.rpc.QuotaFailure").map(Value::to_string);
    let text = failures.collect::<String>().to_ascii_lowercase();
    match () {
        () if text.contains("device") => Scope::Token,
        () if text.contains("topic") => Scope::Topic,
        () => Scope::App,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::providers::kit::{answer, now, rows, shown};

    /// The error of FCM itself, with a further detail.
    fn of_fcm(code: &str, message: &str, more: &str) -> String {
        format!(
            r#"{{"error":{{"message":"{message}","status":"X","details":[{more}
                {{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError",
                  "errorCode":"{code}"}}]}}}}"#
        )
    }

    #[test]
    fn every_error_code_has_its_outcome() {
        let table = "
            | 400 | INVALID_ARGUMENT | BadRequest |
            | 404 | UNREGISTERED | TokenDead |
            | 403 | SENDER_ID_MISMATCH | TokenSuspect |
            | 401 | THIRD_PARTY_AUTH_ERROR | AuthBroken for the leg |
            | 401 | APNS_AUTH_ERROR | AuthBroken for the leg |
            | 429 | QUOTA_EXCEEDED | RetryAfter(60) for the app |
            | 500 | INTERNAL | Retry |
            | 503 | UNAVAILABLE | Retry |
            | 502 | OTHER | Retry |
        ";
        for row in rows(table) {
            let body = of_fcm(row[1], "m", "");
            let ruling = ruling(&answer(row[0], &[], &body), now());
            assert_eq!(shown(&ruling), row[2], "{row:?}");
            assert_eq!(ruling.reason, row[1]);
        }
    }

    #[test]
    fn without_an_fcm_error_the_project_or_the_pass_is_meant() {
        let table = "
            | 404 | NOT_FOUND | AuthBroken |
            | 403 | PERMISSION_DENIED | AuthBroken |
            | 401 | UNAUTHENTICATED | NeverSent, renew |
            | 429 | RESOURCE_EXHAUSTED | RetryAfter(60) for the app |
            | 400 | INVALID_ARGUMENT | BadRequest |
            | 500 | INTERNAL | Retry |
            | 503 | UNAVAILABLE | Retry |
            | 504 | - | Retry |
            | 302 | - | AuthBroken |
            | 413 | - | BadRequest |
        ";
        for row in rows(table) {
            let body = format!(r#"{{"error":{{"status":"{}"}}}}"#, row[1]);
            let ruling = ruling(&answer(row[0], &[], &body), now());
            assert_eq!(shown(&ruling), row[2], "{row:?}");
        }
        let refused = ruling(&answer("401", &[], "{}"), now());
        assert_eq!(shown(&refused.repeated()), "AuthBroken");
    }

    #[test]
    fn an_invalid_argument_is_the_tokens_or_the_payloads() {
        let violation = |field: &str| {
            format!(
                r#"{{"@type":"type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations":[{{"field":"{field}"}}]}},"#
            )
        };
        let invalid = "The registration token is not a valid FCM registration token";
        let table = [
            (invalid, String::new(), "TokenDead"),
            ("m", violation("message.token"), "TokenDead"),
            ("m", violation("message.data[0].value"), "BadRequest"),
            ("m", violation("message.android.ttl"), "BadRequest"),
        ];
        for (message, more, outcome) in table {
            let body = of_fcm("INVALID_ARGUMENT", message, &more);
            assert_eq!(
                shown(&ruling(&answer("400", &[], &body), now())),
                outcome,
                "{more}"
            );
        }
    }

    #[test]
    fn a_quota_says_whose_it_is_and_a_hint_is_followed() {
        let quota = |subject: &str| {
            format!(
                r#"{{"@type":"type.googleapis.com/google.rpc.QuotaFailure",
                    "violations":[{{"subject":"{subject}"}}]}},"#
            )
        };
        let table = [
            ("device:x", "RetryAfter(9) for the token"),
            ("Topic rate", "RetryAfter(9) for the topic"),
            ("project:1", "RetryAfter(9) for the app"),
        ];
        let hint = [("retry-after", "9")];
        for (subject, outcome) in table {
            let body = of_fcm("QUOTA_EXCEEDED", "m", &quota(subject));
            assert_eq!(shown(&ruling(&answer("429", &hint, &body), now())), outcome);
        }
        let body = of_fcm("UNAVAILABLE", "m", "");
        let down = ruling(&answer("503", &hint, &body), now());
        assert_eq!(shown(&down), "RetryAfter(9) for the app");
    }

    #[test]
    fn success_carries_the_id() {
        let body = r#"{"name":"projects/p/messages/0:1500415314455276%31bd"}"#;
        let ruling = ruling(&answer("200", &[], body), now());
        assert_eq!(shown(&ruling), "Accepted(0:1500415314455276%31bd)");
    }
}

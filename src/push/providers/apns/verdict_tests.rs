//! Every status and reason of APNs, with its outcome.

use super::*;
use crate::push::providers::kit::{answer, now, rows, shown};

/// The reason may be a list; `New` is one that Apple has not thought of yet.
fn check(table: &str) {
    for row in rows(table) {
        let [status, reasons, outcome] = row[..] else {
            panic!("{row:?}");
        };
        for reason in reasons.split(", ") {
            let body = format!(r#"{{"reason":"{reason}"}}"#);
            let ruling = ruling(&answer(status, &[], &body), now());
            assert_eq!(shown(&ruling), outcome, "{status} {reason}");
            assert_eq!(ruling.reason, reason);
        }
    }
}

#[test]
fn every_reason_of_a_device_push_has_its_outcome() {
    check(
        "
        | 400 | BadDeviceToken | TokenSuspect |
        | 400 | DeviceTokenNotForTopic | TokenSuspect |
        | 400 | BadTopic, MissingTopic, TopicDisallowed | AuthBroken |
        | 400 | BadCollapseId, BadExpirationDate, BadMessageId, BadPriority | BadRequest |
        | 400 | InvalidPushType, DuplicateHeaders, PayloadEmpty, MissingDeviceToken | BadRequest |
        | 400 | IdleTimeout | NeverSent, reconnect |
        | 403 | BadCertificate, BadCertificateEnvironment, MissingProviderToken | AuthBroken |
        | 403 | InvalidProviderToken, Forbidden | AuthBroken |
        | 403 | ExpiredProviderToken | NeverSent, renew and reconnect |
        | 403 | UnrelatedKeyIdInToken | NeverSent, reconnect |
        | 403 | BadEnvironmentKeyIdInToken | AuthBroken |
        | 404 | BadPath | BadRequest |
        | 405 | MethodNotAllowed | BadRequest |
        | 410 | Unregistered, ExpiredToken | TokenDead |
        | 413 | PayloadTooLarge | BadRequest |
        | 429 | TooManyRequests | RetryAfter(30) for the token |
        | 429 | TooManyProviderTokenUpdates | AuthBroken, keep the pass |
        | 500 | InternalServerError | Retry |
        | 503 | ServiceUnavailable, Shutdown | Retry, reconnect |
        ",
    );
}

#[test]
fn every_reason_of_channels_and_broadcasts_has_its_outcome() {
    check(
        "
        | 400 | FeatureNotEnabled | AuthBroken |
        | 400 | MissingChannelId, BadChannelId | BadRequest |
        | 400 | ChannelNotRegistered | TokenDead |
        | 400 | BadRequestParams, BadRequestPayload, MissingPushType | BadRequest |
        | 400 | CannotCreateChannelConfig | BadRequest |
        | 403 | TopicMismatch | AuthBroken |
        ",
    );
}

#[test]
fn a_reason_that_is_new_is_judged_by_its_status() {
    check(
        "
        | 302 | New | AuthBroken |
        | 400 | New | BadRequest |
        | 403 | New | AuthBroken |
        | 404 | New | BadRequest |
        | 410 | New | TokenDead |
        | 413 | New | BadRequest |
        | 429 | New | RetryAfter(30) for the token |
        | 500 | New | Retry |
        | 502 | New | Retry |
        | 503 | New | Retry, reconnect |
        ",
    );
    let odd = ruling(&answer("500", &[], "<html>"), now());
    assert_eq!(
        (shown(&odd).as_str(), odd.reason.as_str()),
        ("Retry", "HTTP 500")
    );
}

#[test]
fn success_carries_the_id() {
    let fields = [("Apns-Id", "eabeae54-14a8-11e5-b60b-1697f925ec7b")];
    let ruling = ruling(&answer("200", &fields, ""), now());
    assert_eq!(
        shown(&ruling),
        "Accepted(eabeae54-14a8-11e5-b60b-1697f925ec7b)"
    );
}

#[test]
fn a_dead_token_is_dead_since_the_timestamp() {
    let body = r#"{"reason":"Unregistered","timestamp":1454948015990}"#;
    let ruling = ruling(&answer("410", &[], body), now());
    assert_eq!(shown(&ruling), "TokenDead(1454948015990)");
}

#[test]
fn a_hint_is_followed() {
    let hint = [("retry-after", "7")];
    let table = [
        ("429", "TooManyRequests", "RetryAfter(7) for the token"),
        ("500", "InternalServerError", "RetryAfter(7) for the app"),
        ("503", "Shutdown", "RetryAfter(7) for the app, reconnect"),
    ];
    for (status, reason, outcome) in table {
        let body = format!(r#"{{"reason":"{reason}"}}"#);
        let ruling = ruling(&answer(status, &hint, &body), now());
        assert_eq!(shown(&ruling), outcome, "{reason}");
    }
}

#[test]
fn a_fresh_pass_that_has_expired_too_is_a_broken_credential() {
    let body = r#"{"reason":"ExpiredProviderToken"}"#;
    let first = ruling(&answer("403", &[], body), now());
    assert_eq!(shown(&first.repeated()), "AuthBroken");
}

#[test]
fn a_goaway_may_speak_of_the_credential() {
    let data = br#"{"reason":"BadCertificateEnvironment"}"#;
    let ruling = goaway(data, now()).expect("a ruling");
    assert_eq!(shown(&ruling), "AuthBroken");
    assert_eq!(ruling.reason, "BadCertificateEnvironment");
    for data in [
        r#"{"reason":"IdleTimeout"}"#,
        r#"{"reason":"Odd"}"#,
        "",
        "{}",
    ] {
        assert_eq!(goaway(data.as_bytes(), now()), None, "{data}");
    }
}

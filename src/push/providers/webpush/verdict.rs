//! What the answers of push services mean (RFC 8030 sections 5 and 7.3; Apple, "Sending web push
//! notifications"; Mozilla's autopush). The status decides, but where a service says of a refused pass
//! that only this subscription was made with another key.

use std::time::Duration;

use crate::base::now::Now;
use crate::push::providers::provider::{Answer, shown_id};
use crate::push::providers::verdict::{Remedy, Ruling, Scope, Verdict, word_of};

const THROTTLED_WAIT: Duration = Duration::from_secs(60);

pub(super) fn ruling(answer: &Answer<'_>, now: Now) -> Ruling {
    let json = answer.json();
    let word = json["reason"].as_str().unwrap_or_default();
    let (verdict, remedy) = by_reason(word).unwrap_or_else(|| {
        let other_key = String::from_utf8_lossy(answer.body).contains("do not correspond");
        match (answer.status, other_key) {
            (401 | 403, true) => (Verdict::TokenSuspect, Remedy::Nothing),
            _ => (by_status(answer, now), Remedy::Nothing),
        }
    });
    let reason = match json["errno"].as_u64() {
        Some(number) => format!("errno {number}"),
        None => word_of(word, answer.status),
    };
    Ruling::new(verdict, reason).with(remedy)
}

/// Apple's, where the status says less.
fn by_reason(reason: &str) -> Option<(Verdict, Remedy)> {
    match reason {
        "VapidPkHashMismatch" => Some((Verdict::TokenSuspect, Remedy::Nothing)),
        "BadAuthorizationHeader" | "BadJwtToken" | "BadVapidPublicKey" => {
            Some((Verdict::APP_BROKEN, Remedy::Nothing))
        }
        "IdleTimeout" => Some((Verdict::NeverSent, Remedy::Reconnect)),
        _ => None,
    }
}

fn by_status(answer: &Answer<'_>, now: Now) -> Verdict {
    match answer.status {
        200..=299 => {
            let resource = answer
                .field("location")
                .and_then(|it| it.rsplit('/').next());
            let id = answer.field("apns-id").or(resource).and_then(shown_id);
            Verdict::Accepted { id }
        }
        // Never followed: a service that moved has to be subscribed to again.
        300..=399 => Verdict::TokenSuspect,
        401 | 403 => Verdict::APP_BROKEN,
        404 | 410 => Verdict::TokenDead {
            since_unix_ms: None,
        },
        429 => answer.throttled(now, THROTTLED_WAIT, Scope::Token),
        500.. => answer.passing(now),
        _ => Verdict::BadRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::providers::kit::{answer, now, rows, shown};

    fn check(table: &str) {
        for row in rows(table) {
            let ruling = ruling(&answer(row[0], &[], row[1]), now());
            assert_eq!(shown(&ruling), row[2], "{row:?}");
        }
    }

    #[test]
    fn every_status_has_its_outcome() {
        check(
            "
            | 200 | - | Accepted |
            | 201 | - | Accepted |
            | 202 | - | Accepted |
            | 301 | - | TokenSuspect |
            | 307 | - | TokenSuspect |
            | 400 | - | BadRequest |
            | 401 | - | AuthBroken |
            | 403 | - | AuthBroken |
            | 403 | credentials do not correspond to those used to subscribe | TokenSuspect |
            | 404 | - | TokenDead |
            | 410 | - | TokenDead |
            | 413 | - | BadRequest |
            | 429 | - | RetryAfter(60) for the token |
            | 500 | - | Retry |
            | 502 | - | Retry |
            | 503 | - | Retry |
            ",
        );
    }

    #[test]
    fn every_reason_of_apple_has_its_outcome() {
        let table = "
            | 400 | BadTtl | BadRequest |
            | 400 | BadUrgency | BadRequest |
            | 400 | BadWebPushRequest | BadRequest |
            | 400 | BadWebPushTopic | BadRequest |
            | 400 | VapidPkHashMismatch | TokenSuspect |
            | 400 | IdleTimeout | NeverSent, reconnect |
            | 403 | BadAuthorizationHeader | AuthBroken |
            | 403 | BadJwtToken | AuthBroken |
            | 400 | BadVapidPublicKey | AuthBroken |
            | 404 | BadPath | TokenDead |
            | 405 | MethodNotAllowed | BadRequest |
            | 413 | PayloadTooLarge | BadRequest |
            | 429 | TooManyRequests | RetryAfter(60) for the token |
            | 500 | InternalServerError | Retry |
            | 503 | ServiceUnavailable | Retry |
            | 503 | Shutdown | Retry |
        ";
        for row in rows(table) {
            let body = format!(r#"{{"reason":"{}"}}"#, row[1]);
            let ruling = ruling(&answer(row[0], &[], &body), now());
            assert_eq!(shown(&ruling), row[2], "{row:?}");
            assert_eq!(ruling.reason, row[1]);
        }
    }

    #[test]
    fn every_errno_of_mozilla_has_its_outcome() {
        let table = "
            | 400 | 101 | BadRequest |
            | 400 | 110 | BadRequest |
            | 400 | 111 | BadRequest |
            | 400 | 112 | BadRequest |
            | 400 | 113 | BadRequest |
            | 400 | 108 | BadRequest |
            | 401 | 109 | AuthBroken |
            | 404 | 102 | TokenDead |
            | 410 | 103 | TokenDead |
            | 410 | 105 | TokenDead |
            | 410 | 106 | TokenDead |
            | 413 | 104 | BadRequest |
        ";
        for row in rows(table) {
            let body = format!(r#"{{"code":{},"errno":{}}}"#, row[0], row[1]);
            let ruling = ruling(&answer(row[0], &[], &body), now());
            assert_eq!(shown(&ruling), row[2], "{row:?}");
            assert_eq!(ruling.reason, format!("errno {}", row[1]));
        }
    }

    #[test]
    fn success_carries_an_id_and_a_hint_is_followed() {
        let at = [("location", "https://push.example/m/qwerty")];
        let apple = [("location", "https://a/m/b"), ("apns-id", "eabeae54")];
        let hint = [("retry-after", "3")];
        let table = [
            ("201", &at[..], "Accepted(qwerty)"),
            ("201", &apple[..], "Accepted(eabeae54)"),
            ("429", &hint[..], "RetryAfter(3) for the token"),
            ("503", &hint[..], "RetryAfter(3) for the app"),
        ];
        for (status, fields, outcome) in table {
            assert_eq!(shown(&ruling(&answer(status, fields, ""), now())), outcome);
        }
    }
}

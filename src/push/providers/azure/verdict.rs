//! What a hub's answers mean ("Direct send" of the Notification Hubs REST API, and how Microsoft's own
//! SDKs read it). The status decides; a token is never judged, since no provider has seen it yet.

use std::time::Duration;

use crate::base::now::Now;
use crate::push::providers::provider::{Answer, shown_id};
use crate::push::providers::verdict::{Remedy, Ruling, Scope, Verdict};

/// For a quota that is used up, when the hub does not say.
const QUOTA_WAIT: Duration = Duration::from_secs(15 * 60);
const THROTTLED_WAIT: Duration = Duration::from_secs(60);

pub(super) fn ruling(answer: &Answer<'_>, now: Now) -> Ruling {
    let (verdict, remedy) = match answer.status {
        // Told by the Standard tier alone: `https://…/messages/ID?api-version=…`.
        200 | 201 => {
            let path = answer.field("location").and_then(|it| it.split('?').next());
            let id = path.and_then(|it| it.rsplit('/').next());
            let id = id.and_then(shown_id);
            (Verdict::Accepted { id }, Remedy::Nothing)
        }
        // Whoever redirects is no hub.
        300..=399 | 404 => (Verdict::APP_BROKEN, Remedy::Nothing),
        401 => (Verdict::APP_BROKEN, Remedy::RenewPass),
        403 => (answer.throttled(now, QUOTA_WAIT, Scope::App), Remedy::Alert),
        429 => (
            answer.throttled(now, THROTTLED_WAIT, Scope::App),
            Remedy::Nothing,
        ),
        408 | 500.. => (answer.passing(now), Remedy::Nothing),
        _ => (Verdict::BadRequest, Remedy::Nothing),
    };
    let reason = sub_code(answer.body);
    let reason = reason.unwrap_or_else(|| format!("HTTP {}", answer.status));
    Ruling::new(verdict, reason).with(remedy)
}

/// `<Detail>SubCode=40000. …`, which says more than the status.
fn sub_code(body: &[u8]) -> Option<String> {
    let text = simdutf8::basic::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("SubCode=")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (digits.len() == 5).then(|| format!("SubCode {digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::providers::kit::{answer, now, rows, shown};

    #[test]
    fn every_status_has_its_outcome() {
        let table = "
            | 200 | Accepted |
            | 201 | Accepted |
            | 307 | AuthBroken |
            | 400 | BadRequest |
            | 401 | AuthBroken, renew |
            | 403 | RetryAfter(900) for the app, alert |
            | 404 | AuthBroken |
            | 408 | Retry |
            | 413 | BadRequest |
            | 429 | RetryAfter(60) for the app |
            | 500 | Retry |
            | 503 | Retry |
            | 504 | Retry |
        ";
        for row in rows(table) {
            let ruling = ruling(&answer(row[0], &[], ""), now());
            assert_eq!(shown(&ruling), row[1], "{row:?}");
            let reason = format!("HTTP {}", row[0]);
            assert_eq!(ruling.reason, reason);
        }
        let refused = ruling(&answer("401", &[], ""), now());
        assert_eq!(shown(&refused.repeated()), "AuthBroken");
    }

    #[test]
    fn a_hint_is_followed() {
        let hint = [("Retry-After", "9")];
        for (status, outcome) in [
            ("403", "RetryAfter(9) for the app, alert"),
            ("408", "RetryAfter(9) for the app"),
            ("429", "RetryAfter(9) for the app"),
            ("503", "RetryAfter(9) for the app"),
        ] {
            let ruling = ruling(&answer(status, &hint, ""), now());
            assert_eq!(shown(&ruling), outcome);
        }
    }

    #[test]
    fn the_standard_tier_gives_an_id() {
        let at = [(
            "Location",
            "https://ns.servicebus.windows.net/hub/messages/8776-79-10?api-version=2020-06",
        )];
        let ruling = ruling(&answer("201", &at, ""), now());
        assert_eq!(shown(&ruling), "Accepted(8776-79-10)");
    }

    #[test]
    fn a_reason_holds_a_code_and_none_of_the_text() {
        let table = [
            (
                "<Error><Code>400</Code><Detail>SubCode=40000. tiger</Detail></Error>",
                "SubCode 40000",
            ),
            (
                "<Error><Code>400</Code><Detail>tiger</Detail></Error>",
                "HTTP 400",
            ),
            ("SubCode=4", "HTTP 400"),
            ("SubCode=tiger", "HTTP 400"),
        ];
        for (body, reason) in table {
            assert_eq!(ruling(&answer("400", &[], body), now()).reason, reason);
        }
    }
}

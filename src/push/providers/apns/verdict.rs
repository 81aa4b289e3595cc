//! What each answer of APNs means (Apple, "Handling notification responses from APNs" and "Handling
//! error responses from APNs"). The reason decides; the status only where the reason is a new one.

use std::time::Duration;

use crate::base::now::Now;
use crate::push::providers::provider::{Answer, shown_id};
use crate::push::providers::verdict::{Remedy, Ruling, Scope, Verdict, word_of};

/// For one device after too many pushes in a row to it, when Apple does not say.
const DEVICE_WAIT: Duration = Duration::from_secs(30);

const DEAD: Verdict = Verdict::TokenDead {
    since_unix_ms: None,
};

pub(super) fn ruling(answer: &Answer<'_>, now: Now) -> Ruling {
    if answer.status == 200 {
        let id = answer.field("apns-id").and_then(shown_id);
        return Ruling::new(Verdict::Accepted { id }, "HTTP 200");
    }
    let json = answer.json();
    let word = json["reason"].as_str().unwrap_or_default();
    let since_unix_ms = json["timestamp"].as_u64();
    let known = by_reason(word, answer, now);
    let (verdict, remedy) = known.unwrap_or_else(|| by_status(answer, now));
    let verdict = match verdict {
        DEAD => Verdict::TokenDead { since_unix_ms },
        other => other,
    };
    Ruling::new(verdict, word_of(word, answer.status)).with(remedy)
}

fn by_reason(reason: &str, answer: &Answer<'_>, now: Now) -> Option<(Verdict, Remedy)> {
    let app = Verdict::APP_BROKEN;
    let verdict = match reason {
        "BadDeviceToken" | "DeviceTokenNotForTopic" => Verdict::TokenSuspect,
        "Unregistered" | "ExpiredToken" => DEAD,
        // Of broadcasts: the channel is the address.
        "ChannelNotRegistered" => DEAD,
        "BadTopic" | "MissingTopic" | "TopicDisallowed" | "TopicMismatch" | "FeatureNotEnabled" => {
            app
        }
        "BadCertificate"
        | "BadCertificateEnvironment"
        | "MissingProviderToken"
        | "InvalidProviderToken"
        | "Forbidden"
        | "BadEnvironmentKeyIdInToken" => app,
        "BadCollapseId" | "BadExpirationDate" | "BadMessageId" | "BadPriority"
        | "InvalidPushType" | "DuplicateHeaders" | "PayloadEmpty" | "MissingDeviceToken"
        | "BadPath" | "MethodNotAllowed" | "PayloadTooLarge" => Verdict::BadRequest,
        "MissingChannelId"
        | "BadChannelId"
        | "BadRequestParams"
        | "BadRequestPayload"
        | "MissingPushType"
        | "CannotCreateChannelConfig" => Verdict::BadRequest,
        "TooManyRequests" => answer.throttled(now, DEVICE_WAIT, Scope::Token),
        "InternalServerError" => answer.passing(now),
        "IdleTimeout" => return Some((Verdict::NeverSent, Remedy::Reconnect)),
        "ExpiredProviderToken" => {
            return Some((Verdict::NeverSent, Remedy::RenewPassAndReconnect));
        }
        "UnrelatedKeyIdInToken" => return Some((Verdict::NeverSent, Remedy::Reconnect)),
        "TooManyProviderTokenUpdates" => return Some((app, Remedy::KeepPass)),
        "ServiceUnavailable" | "Shutdown" => {
            return Some((answer.passing(now), Remedy::Reconnect));
        }
        _ => return None,
    };
    Some((verdict, Remedy::Nothing))
}

fn by_status(answer: &Answer<'_>, now: Now) -> (Verdict, Remedy) {
    let verdict = match answer.status {
        // Whoever redirects is no APNs: the address of the relay is wrong.
        300..=399 | 401 | 403 => Verdict::APP_BROKEN,
        410 => DEAD,
        429 => answer.throttled(now, DEVICE_WAIT, Scope::Token),
        503 => return (answer.passing(now), Remedy::Reconnect),
        500.. => answer.passing(now),
        _ => Verdict::BadRequest,
    };
    (verdict, Remedy::Nothing)
}

/// What the debug data of a GOAWAY means for the credential, if it says something about it: Apple
/// refuses a certificate of the other environment so. `lost` still rules each request.
pub fn goaway(debug_data: &[u8], now: Now) -> Option<Ruling> {
    let answer = Answer {
        status: 403,
        fields: &[],
        body: debug_data,
    };
    let json = answer.json();
    let reason = json["reason"].as_str()?;
    let (verdict, remedy) = by_reason(reason, &answer, now)?;
    let is_broken = matches!(verdict, Verdict::AuthBroken { .. });
    is_broken.then(|| Ruling::new(verdict, reason).with(remedy))
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;

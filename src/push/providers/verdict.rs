//! What a provider's answer means for the notification, for the device's token and for the credential
//! it was sent with. Every answer of every provider is one of these nine; everything the courier does
//! after a request hangs on which. Owns no state: how often something was tried, and what the guard
//! against mass invalidation has seen, is the courier's to know.

use std::time::Duration;

/// The longest wait that a provider's hint can ask for; what it asks beyond is cut.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// One outcome of one request.
///
/// | verdict | notification | token | credential |
/// |---|---|---|---|
/// | `Accepted` | done | was good just now | healthy |
/// | `TokenDead` | failed | deactivated, if `is_dead` | healthy; the guard counts it |
/// | `TokenSuspect` | failed | suspected; deactivated after several in a row, while few tokens of the app are suspects | healthy; the guard counts it |
/// | `BadRequest` | failed: the caller's error | untouched | healthy |
/// | `AuthBroken` | stays queued, no attempt is counted | untouched | paused, alert, probed after a minute or more |
/// | `RetryAfter` | again then, with jitter | untouched | slowed as far as `scope` says |
/// | `Retry` | again with backoff, until it expires or attempts run out | untouched | the breaker counts it |
/// | `NeverSent` | again at once, no attempt is counted | untouched | untouched |
/// | `Unknown` | as its own policy says: again (may come twice) or failed (may be lost) | untouched | untouched; counted as uncertain |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The provider took it, under this id if it gave one. No proof that a handset has it.
    Accepted { id: Option<String> },
    /// The token never works again. `since_unix_ms`: since when the provider knows that.
    TokenDead { since_unix_ms: Option<u64> },
    /// The token is of another app or environment; or ours is configured wrongly.
    TokenSuspect,
    /// The same bytes would fail again.
    BadRequest,
    /// The credential, or how the app is set up, fails everything that `scope` covers.
    AuthBroken { scope: Scope },
    /// Too much at once, or out of order with a hint when it is not.
    RetryAfter { wait: Duration, scope: Scope },
    /// Passing, without a hint.
    Retry,
    /// It is certain that the provider did not process the request.
    NeverSent,
    /// The request was written and no answer came.
    Unknown,
}

/// How much of what is queued a verdict speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This token, and no other.
    Token,
    /// Whatever goes to the same topic.
    Topic,
    /// What FCM hands on to another service (APNs, Web Push), whose credential it holds.
    Leg,
    /// All that is sent with the credential.
    App,
}

/// What else has to be done before the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    Nothing,
    /// The connection is used up; a new one is opened.
    Reconnect,
    /// The pass is renewed.
    RenewPass,
    /// The pass is renewed, and a new connection is opened for it.
    RenewPassAndReconnect,
    /// The pass stays, none is made for twenty minutes, and nothing is sent on this connection.
    KeepPass,
    /// A person has to look.
    Alert,
}

/// A verdict, its reason, and what to do beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    pub verdict: Verdict,
    /// The provider's own word if it used one that can be shown (`word_of`), else the status.
    pub reason: String,
    pub remedy: Remedy,
}

/// What becomes of the notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    Failed,
    /// Stays in the queue.
    Queued,
    /// The notification's own policy decides: again, or failed.
    AsItSays,
}

impl Verdict {
    pub const APP_BROKEN: Verdict = Verdict::AuthBroken { scope: Scope::App };

    /// The word in timelines and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Accepted { .. } => "accepted",
            Verdict::TokenDead { .. } => "token_dead",
            Verdict::TokenSuspect => "token_suspect",
            Verdict::BadRequest => "bad_request",
            Verdict::AuthBroken { .. } => "auth_broken",
            Verdict::RetryAfter { .. } => "retry_after",
            Verdict::Retry => "retry",
            Verdict::NeverSent => "never_sent",
            Verdict::Unknown => "unknown",
        }
    }

    pub fn fate(&self) -> Fate {
        match self {
            Verdict::Accepted { .. } => Fate::Done,
            Verdict::TokenDead { .. } | Verdict::TokenSuspect | Verdict::BadRequest => Fate::Failed,
            Verdict::Unknown => Fate::AsItSays,
            Verdict::AuthBroken { .. }
            | Verdict::RetryAfter { .. }
            | Verdict::Retry
            | Verdict::NeverSent => Fate::Queued,
        }
    }

    /// Whether the notification has one attempt less.
    pub fn is_attempt(&self) -> bool {
        !matches!(self, Verdict::AuthBroken { .. } | Verdict::NeverSent)
    }

    /// Whether the credential's circuit breaker counts it.
    pub fn counts_to_breaker(&self) -> bool {
        matches!(self, Verdict::Retry | Verdict::AuthBroken { .. })
    }

    /// Whether the guard against mass invalidation counts it.
    pub fn counts_to_guard(&self) -> bool {
        matches!(self, Verdict::TokenDead { .. } | Verdict::TokenSuspect)
    }
}

/// Whether a dead token is to be deactivated: not when the app registered it after the provider knew
/// it for dead (Apple, "Handling notification responses from APNs"), nor, where the provider does not
/// say since when, after the request was sent. All in milliseconds since 1970.
pub fn is_dead(since_unix_ms: Option<u64>, sent_unix_ms: u64, registered_unix_ms: u64) -> bool {
    since_unix_ms.unwrap_or(sent_unix_ms) >= registered_unix_ms
}

impl Ruling {
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Ruling {
        Ruling {
            verdict,
            reason: reason.into(),
            remedy: Remedy::Nothing,
        }
    }

    pub fn with(mut self, remedy: Remedy) -> Ruling {
        self.remedy = remedy;
        self
    }

    /// The same answer for a notification that met it before, with the remedy applied in between:
    /// a fresh pass that is refused too means that the credential is broken.
    pub fn repeated(mut self) -> Ruling {
        let renews = matches!(
            self.remedy,
            Remedy::RenewPass | Remedy::RenewPassAndReconnect
        );
        if renews {
            self.verdict = Verdict::APP_BROKEN;
            self.remedy = Remedy::Nothing;
        }
        self
    }
}

/// The provider's word for a reason, if it is one: a server could write anything there, the token
/// that must not be shown included, so what is longer than a word or is not spelt like one is
/// dropped. `or` is told instead.
pub fn word_of(text: &str, or: u16) -> String {
    let is_word = (1..=40).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    match is_word {
        true => text.to_string(),
        false => format!("HTTP {or}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_what_the_model_says() {
        let app = Scope::App;
        let wait = Duration::from_secs(1);
        let since_unix_ms = None;
        use Fate::*;
        #[rustfmt::skip]
        let table = [
            // outcome                          | word            | notification | attempt | breaker | guard
            (Verdict::Accepted { id: None },      "accepted",       Done,          true,     false,    false),
            (Verdict::TokenDead { since_unix_ms },"token_dead",     Failed,        true,     false,    true),
            (Verdict::TokenSuspect,               "token_suspect",  Failed,        true,     false,    true),
            (Verdict::BadRequest,                 "bad_request",    Failed,        true,     false,    false),
            (Verdict::AuthBroken { scope: app },  "auth_broken",    Queued,        false,    true,     false),
            (Verdict::RetryAfter { wait, scope: app }, "retry_after", Queued,      true,     false,    false),
            (Verdict::Retry,                      "retry",          Queued,        true,     true,     false),
            (Verdict::NeverSent,                  "never_sent",     Queued,        false,    false,    false),
            (Verdict::Unknown,                    "unknown",        AsItSays,      true,     false,    false),
        ];
        for (verdict, word, fate, attempt, breaker, guard) in table {
            assert_eq!(verdict.word(), word);
            assert_eq!(verdict.fate(), fate, "{word}");
            assert_eq!(verdict.is_attempt(), attempt, "{word}");
            assert_eq!(verdict.counts_to_breaker(), breaker, "{word}");
            assert_eq!(verdict.counts_to_guard(), guard, "{word}");
        }
    }

    #[test]
    fn a_token_registered_again_since_is_kept() {
        // since | sent | registered | dead
        let table = [
            (Some(100), 300, 100, true),
            (Some(100), 300, 101, false),
            (Some(100), 300, 50, true),
            (None, 300, 300, true),
            (None, 300, 301, false),
        ];
        for (since, sent, registered, dead) in table {
            assert_eq!(is_dead(since, sent, registered), dead, "{since:?}");
        }
    }

    #[test]
    fn a_remedy_that_did_not_help_is_not_tried_again() {
        let expired = |remedy| Ruling::new(Verdict::NeverSent, "x").with(remedy);
        for remedy in [Remedy::RenewPass, Remedy::RenewPassAndReconnect] {
            let twice = expired(remedy).repeated();
            assert_eq!(twice.verdict, Verdict::APP_BROKEN);
            assert_eq!(twice.remedy, Remedy::Nothing);
        }
        let reconnect = expired(Remedy::Reconnect);
        assert_eq!(reconnect.clone().repeated(), reconnect);
    }

    #[test]
    fn a_reason_is_a_word_or_a_status() {
        assert_eq!(word_of("BadDeviceToken", 400), "BadDeviceToken");
        assert_eq!(word_of("SENDER_ID_MISMATCH", 403), "SENDER_ID_MISMATCH");
        for secret in [
            "",
            "a b",
            "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0",
        ] {
            assert_eq!(word_of(secret, 400), "HTTP 400");
        }
    }
}

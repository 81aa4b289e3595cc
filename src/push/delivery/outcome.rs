//! What follows from a provider's ruling for one delivery: settled, or again and when; what is said
//! about its token; what its credential's breaker and guard are told. One table for all providers
//! (`providers/verdict`). Owns no state; what it counts is the delivery's own.

use std::time::Duration;

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::delivery::jobs::{
    Delivery, DeliveryEnd, DeliveryReport, Settlement, TokenNews, TokenNewsKind, UNCERTAIN,
};
use crate::push::notify::spec::OnUnknown;
use crate::push::providers::provider::{Patience, Unfit};
use crate::push::providers::verdict::{Ruling, Scope, Verdict};

/// Then it has failed, however patient its provider is.
pub const ATTEMPTS_MAX: u32 = 25;
/// Answers in a row that call a token wrong; then its device is retired.
pub const SUSPICIONS_MAX: u32 = 3;
/// Between two attempts at most, unless the provider asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// What is wrong with a part of a credential (`Scope::Leg`) is looked at again after this or twice it.
const LEG_WAIT: Duration = Duration::from_secs(120);

/// What a ruling is about.
pub struct Case<'a> {
    pub delivery: &'a Delivery,
    pub on_unknown: OnUnknown,
    pub expires_ms: Option<u64>,
    pub patience: Patience,
    /// When the request was sent.
    pub asked_ms: u64,
    /// Whether devices may be retired for being suspect (`guard`).
    pub retires: bool,
}

/// What is to be done with the delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// It is not in hand any more.
    Report(DeliveryReport),
    /// At once, on whatever connection has room.
    AtOnce,
}

/// See the file's head.
pub fn after(case: &Case<'_>, ruling: &Ruling, dice: &mut Dice, now: Now) -> Next {
    let delivery = case.delivery;
    let mut report = blank(delivery);
    if ruling.verdict.is_attempt() {
        report.attempts += 1;
        report.tried_ms = report.tried_ms.or(Some(case.asked_ms));
    }
    let reason = || Some(ruling.reason.clone());
    let failed = |reason| settled(Settlement::Failed, reason);
    let news = |kind| token_news(delivery, kind, case.asked_ms);
    match &ruling.verdict {
        Verdict::Accepted { id } => {
            report.news = news(TokenNewsKind::Accepted);
            report.end = DeliveryEnd::Settled {
                state: Settlement::Accepted,
                reason: None,
                provider_id: id.clone(),
            };
        }
        Verdict::TokenDead { since_unix_ms } => {
            // Who names a time knows this token; who does not may mean all of them.
            if since_unix_ms.is_some() || case.retires {
                let since_ms = *since_unix_ms;
                report.news = news(TokenNewsKind::Dead { since_ms });
            }
            report.end = failed(reason());
        }
        Verdict::TokenSuspect => {
            let limit = case.retires.then_some(SUSPICIONS_MAX);
            report.news = news(TokenNewsKind::Suspect { limit });
            report.end = failed(reason());
        }
        Verdict::BadRequest => report.end = failed(reason()),
        Verdict::AuthBroken { scope: Scope::App } => report.end = again(now.unix_ms, reason()),
        Verdict::AuthBroken { .. } => {
            let wait = LEG_WAIT + drawn(LEG_WAIT, dice);
            report.end = again(later(now, wait), reason());
        }
        Verdict::RetryAfter { wait, .. } => {
            let wait = *wait + drawn(*wait / 4 + Duration::from_secs(1), dice);
            retry(case, &mut report, wait, reason(), now);
        }
        Verdict::Retry => {
            let wait = backoff(case.patience, report.attempts, dice);
            retry(case, &mut report, wait, reason(), now);
        }
        Verdict::NeverSent => return Next::AtOnce,
        Verdict::Unknown => {
            report.uncertain += 1;
            match case.on_unknown {
                OnUnknown::Fail => report.end = failed(Some(UNCERTAIN.to_string())),
                OnUnknown::Retry => {
                    let wait = backoff(case.patience, report.attempts, dice);
                    retry(case, &mut report, wait, reason(), now);
                }
            }
        }
    }
    Next::Report(report)
}

/// There is no request for it.
pub fn unfit(delivery: &Delivery, why: &Unfit) -> DeliveryReport {
    let state = match why {
        Unfit::Expired => Settlement::Expired,
        _ => Settlement::Failed,
    };
    let mut report = blank(delivery);
    report.end = settled(state, Some(why.to_string()));
    report
}

/// Its device is gone, or its token does not open (`news`).
pub fn undeliverable(
    delivery: &Delivery,
    why: &str,
    news: Option<TokenNewsKind>,
    now: Now,
) -> DeliveryReport {
    let mut report = blank(delivery);
    report.end = settled(Settlement::Failed, Some(why.to_string()));
    report.news = news.and_then(|kind| token_news(delivery, kind, now.unix_ms));
    report
}

/// It was not tried, and is left to whoever claims it next.
pub fn given_back(delivery: &Delivery, wait: Duration, now: Now) -> DeliveryReport {
    let mut report = blank(delivery);
    report.end = again(later(now, wait), None);
    report
}

/// This courier cannot try it; it, or another one, may be able to later.
pub fn put_off(delivery: &Delivery, why: String, wait: Duration, now: Now) -> DeliveryReport {
    let mut report = blank(delivery);
    report.end = again(later(now, wait), Some(why));
    report
}

fn blank(delivery: &Delivery) -> DeliveryReport {
    DeliveryReport {
        id: delivery.id,
        notification: delivery.notification.clone(),
        attempts: delivery.attempts,
        uncertain: delivery.uncertain,
        tried_ms: delivery.tried_ms,
        end: again(0, None),
        news: None,
    }
}

fn token_news(delivery: &Delivery, kind: TokenNewsKind, asked_ms: u64) -> Option<TokenNews> {
    Some(TokenNews {
        device: delivery.device()?.id.clone(),
        asked_ms,
        kind,
    })
}

fn settled(state: Settlement, reason: Option<String>) -> DeliveryEnd {
    DeliveryEnd::Settled {
        state,
        reason,
        provider_id: None,
    }
}

fn again(due_ms: u64, reason: Option<String>) -> DeliveryEnd {
    DeliveryEnd::Again { due_ms, reason }
}

fn later(now: Now, wait: Duration) -> u64 {
    now.unix_ms
        .saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

/// Up to so much.
fn drawn(most: Duration, dice: &mut Dice) -> Duration {
    Duration::from_millis(dice.below(most.as_millis() as u64 + 1))
}

/// Before the attempt behind this one: doubled with each, and up to a half more by chance.
fn backoff(patience: Patience, attempts: u32, dice: &mut Dice) -> Duration {
    let doubled = 1 << (attempts.max(1) - 1).min(16);
    let wait = patience.first_retry.saturating_mul(doubled);
    let wait = wait.min(LONGEST_WAIT);
    wait + drawn(wait / 2, dice)
}

/// Again after `wait`, unless that is too late or too often.
fn retry(
    case: &Case<'_>,
    report: &mut DeliveryReport,
    wait: Duration,
    reason: Option<String>,
    now: Now,
) {
    let due_ms = later(now, wait);
    let tried_ms = report.tried_ms.unwrap_or(now.unix_ms);
    let given_up = tried_ms.saturating_add(case.patience.give_up.as_millis() as u64);
    report.end = if case.expires_ms.is_some_and(|end| end <= due_ms) {
        settled(Settlement::Expired, reason)
    } else if report.attempts >= ATTEMPTS_MAX || given_up <= due_ms {
        settled(Settlement::Failed, reason)
    } else {
        again(due_ms, reason)
    };
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
